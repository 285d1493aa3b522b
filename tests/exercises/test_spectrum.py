"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from companion.exercises import spectrum as graders
from companion.exercises._grading import Wrong
from companion.landscape import hessian
from companion.networks import MLP


def right(number: str, answer: object) -> str:
    return graders.GRADERS[number](answer)


def reason(number: str, answer: object) -> str:
    with pytest.raises(Wrong) as caught:
        graders.GRADERS[number](answer)
    return str(caught.value)


# --- spectrum.1 ----------------------------------------------------------------------------------

EIGENVALUES = [(5 - 13**0.5) / 2, (5 + 13**0.5) / 2]


def test_spectrum_1_is_that_of_the_package() -> None:
    net = MLP(widths=(1, 1, 1), activation="linear")
    params = {"W1": torch.tensor([[1.0]]).double(), "W2": torch.tensor([[2.0]]).double()}
    one = torch.ones(1, dtype=torch.float64)
    found = hessian.spectrum(net, params, one[:, None], one).eigenvalues
    np.testing.assert_allclose(found.numpy(), EIGENVALUES, rtol=1e-12)
    assert right("1", found) and right("1", [0.70, 4.30])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (EIGENVALUES[::-1], "wrong order"),
        ([0.0, 5.0], "G alone"),
        ([-1.0, 1.0], "R alone"),
        ([(5 - 45**0.5) / 2, (5 + 45**0.5) / 2], "Wrong sign of R"),
        ([math.exp(-2) * v for v in EIGENVALUES], "divide by the loss"),
        ([-v for v in EIGENVALUES[::-1]], "Wrong sign"),
        ([1.0, 2.0], "not the trace"),
        ([1.0, 4.0], "determinant"),
        ([1.0], "Wrong shape"),
        ("0.7, 4.3", "Wrong type"),
    ],
)
def test_spectrum_1_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("1", answer)


# --- spectrum.2 ----------------------------------------------------------------------------------


def test_spectrum_2() -> None:
    assert right("2", 3950) and right("2", 3950.0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (5050 - 1000, "R does not vanish"),
        (5050 - 1000 - 50, "Off by the number of units"),
        (5050 - 1000 - 200, "by units"),
        (5000 - 1000 - 100, "last layer are missing"),
        (1100, "how many cannot"),
        (5050, "all weights"),
        (17, "Count all weights"),
        ([3950], "Wrong shape"),
    ],
)
def test_spectrum_2_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("2", answer)


# --- spectrum.3 ----------------------------------------------------------------------------------


def double_backward(loss, w: Tensor, v: Tensor) -> Tensor:
    w = w.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w), w, create_graph=True)
    return torch.autograd.grad(gradient @ v, w)[0]


def forward_over_reverse(loss, w: Tensor, v: Tensor) -> Tensor:
    return torch.func.jvp(torch.func.grad(loss), (w,), (v,))[1]


def ready_made(loss, w: Tensor, v: Tensor) -> Tensor:
    return torch.autograd.functional.hvp(loss, w, v)[1]


def by_differences(loss, w: Tensor, v: Tensor) -> Tensor:
    gradient, step = torch.func.grad(loss), 1e-5
    return (gradient(w + step * v) - gradient(w - step * v)) / (2 * step)


@pytest.mark.parametrize(
    "answer", [double_backward, forward_over_reverse, ready_made, by_differences]
)
def test_spectrum_3_accepts_solutions(answer: object) -> None:
    assert right("3", answer)


def with_the_matrix(loss, w: Tensor, v: Tensor) -> Tensor:
    return torch.func.hessian(loss)(w) @ v


def row_by_row(loss, w: Tensor, v: Tensor) -> Tensor:
    w = w.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(w), w, create_graph=True)
    return torch.stack([torch.autograd.grad(e, w, retain_graph=True)[0] @ v for e in g])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda loss, w, v: torch.func.grad(loss)(w), "This is the gradient: diff"),
        (lambda loss, w, v: torch.func.grad(loss)(w) * v, "entry by entry"),
        (lambda loss, w, v: -double_backward(loss, w, v), "Wrong sign"),
        (lambda loss, w, v: 2 * double_backward(loss, w, v), "Off by a factor"),
        (lambda loss, w, v: double_backward(loss, 0 * w, v), "at w = 0"),
        (lambda loss, w, v: double_backward(loss, w, w), "multiplied by w"),
        (lambda loss, w, v: double_backward(loss, w, torch.ones_like(v)), "v is missing"),
        (
            lambda loss, w, v: torch.func.hessian(loss)(w).diagonal() * v,
            "Only the diagonal",
        ),
        (lambda loss, w, v: v, "Not the product"),
        (lambda loss, w, v: double_backward(loss, w, v)[None], "Wrong shape"),
        (lambda loss, w: w, "raised TypeError"),
        (lambda loss, w, v: torch.autograd.grad(loss(w), w), "raised RuntimeError"),
        (with_the_matrix, "matrix of P x P"),
        (row_by_row, "one pass per weight"),
        (3.0, "the function itself"),
    ],
)
def test_spectrum_3_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("3", answer)


# --- spectrum.4 ----------------------------------------------------------------------------------


def gauss_newton(J: Tensor, z: Tensor) -> Tensor:  # noqa: N803
    p = z.softmax(dim=1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("ncp,ncd,ndq->pq", J, inner, J)


def weighted(J: Tensor, B: Tensor) -> Tensor:  # noqa: N803
    return torch.einsum("ncp,ncd,ndq->pq", J, B, J)


def test_spectrum_4_is_that_of_the_package() -> None:
    assert right("4", gauss_newton)
    net, rng = MLP(widths=(3, 4, 3)), torch.Generator().manual_seed(0)
    params, x = net.init(seed=0), torch.randn(5, 3, generator=rng, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    at = hessian.gauss_newton(net, params, x, y, loss="cross_entropy", reduction="sum")
    J = hessian.jacobian(net, params, x).reshape(5, 3, -1)
    torch.testing.assert_close(
        math.exp(at.log_scale) * at.matrix, gauss_newton(J, net(params, x)), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda J, z: gauss_newton(J, z) / len(z), "mean over the samples"),
        (lambda J, z: -gauss_newton(J, z), "Wrong sign"),
        (lambda J, z: torch.einsum("ncp,ncq->pq", J, J), "are missing: this is the sum"),
        (lambda J, z: weighted(J, torch.diag_embed(z.softmax(1))), "couples the outputs"),
        (
            lambda J, z: weighted(J, z.softmax(1)[:, :, None] * z.softmax(1)[:, None, :]),
            "diagonal of the probabilities is missing",
        ),
        (
            lambda J, z: weighted(J, torch.diag_embed(z.softmax(1) * (1 - z.softmax(1)))),
            "as independent",
        ),
        (
            lambda J, z: 2 * weighted(J, torch.diag_embed(z.softmax(1))) - gauss_newton(J, z),
            "between the two terms",
        ),
        (lambda J, z: 2 * gauss_newton(J, z), "Symmetric, but not"),
        (lambda J, z: gauss_newton(J, z).triu(), "Not symmetric"),
        (lambda J, z: z, "Wrong shape"),
        (gauss_newton(torch.ones(1, 2, 3), torch.ones(1, 2)), "the function itself"),
    ],
)
def test_spectrum_4_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("4", answer)


# --- spectrum.5 ----------------------------------------------------------------------------------

X = torch.tensor([[1.0, 2.0], [1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([1.0, -1.0], dtype=torch.float64)


@pytest.mark.parametrize("answer", [[0, 1, 1], [0, -1, -1], [-1, 1.0, 0.1], [0.5, -2, -3]])
def test_spectrum_5_accepts_what_the_flow_confirms(answer: list[float]) -> None:
    assert right("5", answer)
    net = MLP(widths=(2, 1, 1))
    params = {"W1": torch.tensor([answer[:2]]).double(), "W2": torch.tensor([[answer[2]]]).double()}
    for _ in range(3000):
        f, pullback = net.vjp(params, X)
        slopes = pullback(Y * torch.exp(-Y * f))
        params = {name: params[name] + 0.1 * slopes[name] for name in params}
    margins = Y * net(params, X)
    assert (margins == 0).sum() == 1 and margins.max() > 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([1, 0, 1], "active on both"),
        ([-1, 0, 1], "active on neither"),
        ([0, 1, -1], "classified wrongly"),
        ([0, -1, 1], "classified wrongly"),
        ([1, 1, 1], "on the kink"),
        ([0, 1, 0], "a = 0"),
        ([0, 1], "Wrong shape"),
        (None, "Wrong type"),
    ],
)
def test_spectrum_5_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("5", answer)


# --- no answer in a message ----------------------------------------------------------------------


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=3) | st.floats(0, 1e4) | st.text(max_size=3),
    st.sampled_from(["1", "2", "5"]),
)
def test_no_message_holds_an_answer(answer: object, number: str) -> None:
    try:
        message = right(number, answer)
    except Wrong as wrong:
        message = str(wrong)
    for found in re.findall(r"\d+\.?\d*", message):
        assert not any(math.isclose(float(found), v, rel_tol=0.02) for v in (*EIGENVALUES, 3950))
