"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from companion import exercises
from companion.landscape import hessian
from companion.networks import MLP


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"spectrum.{number}", answer)
    assert not verdict.correct
    return verdict.reason


# --- spectrum.1 ----------------------------------------------------------------------------------

EIGENVALUES = [(5 - 13**0.5) / 2, (5 + 13**0.5) / 2]


def test_spectrum_1_is_that_of_the_package() -> None:
    net = MLP(widths=(1, 1, 1), activation="linear")
    params = {"W1": torch.tensor([[1.0]]).double(), "W2": torch.tensor([[2.0]]).double()}
    one = torch.ones(1, dtype=torch.float64)
    found = hessian.spectrum(net, params, one[:, None], one).eigenvalues
    np.testing.assert_allclose(found.numpy(), EIGENVALUES, rtol=1e-12)


SOLUTIONS = [("1", EIGENVALUES), ("1", [0.70, 4.30])]


MISTAKES = [
    ("1", EIGENVALUES[::-1], "wrong order"),
    ("1", [0.0, 5.0], "G alone"),
    ("1", [-1.0, 1.0], "R alone"),
    ("1", [(5 - 45**0.5) / 2, (5 + 45**0.5) / 2], "Wrong sign of R"),
    ("1", [math.exp(-2) * v for v in EIGENVALUES], "divide by the loss"),
    ("1", [-v for v in EIGENVALUES[::-1]], "Wrong sign"),
    ("1", [1.0, 2.0], "not the trace"),
    ("1", [1.0, 4.0], "determinant"),
    ("1", [1.0], "Wrong shape"),
    ("1", "0.7, 4.3", "Wrong type"),
]


# --- spectrum.2 ----------------------------------------------------------------------------------


SOLUTIONS += [("2", 3950), ("2", 3950.0)]


MISTAKES += [
    ("2", 5050 - 1000, "R does not vanish"),
    ("2", 5050 - 1000 - 50, "Off by the number of units"),
    ("2", 5050 - 1000 - 200, "by units"),
    ("2", 5000 - 1000 - 100, "last layer are missing"),
    ("2", 1100, "how many cannot"),
    ("2", 5050, "all weights"),
    ("2", 17, "Count all weights"),
    ("2", [3950], "Wrong shape"),
]


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


SOLUTIONS += [
    ("3", double_backward),
    ("3", forward_over_reverse),
    ("3", ready_made),
    ("3", by_differences),
]


def gradient(loss, w: Tensor) -> Tensor:
    w = w.detach().requires_grad_()
    return torch.autograd.grad(loss(w), w)[0]


def matrix(loss, w: Tensor) -> Tensor:
    return torch.autograd.functional.hessian(loss, w, vectorize=True)


def with_the_matrix(loss, w: Tensor, v: Tensor) -> Tensor:
    return matrix(loss, w) @ v


def row_by_row(loss, w: Tensor, v: Tensor) -> Tensor:
    w = w.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(w), w, create_graph=True)
    return torch.stack([torch.autograd.grad(e, w, retain_graph=True)[0] @ v for e in g])


MISTAKES += [
    ("3", lambda loss, w, v: gradient(loss, w), "This is the gradient: diff"),
    ("3", lambda loss, w, v: gradient(loss, w) * v, "entry by entry"),
    ("3", lambda loss, w, v: -double_backward(loss, w, v), "Wrong sign"),
    ("3", lambda loss, w, v: 2 * double_backward(loss, w, v), "Off by a factor"),
    ("3", lambda loss, w, v: double_backward(loss, 0 * w, v), "at w = 0"),
    ("3", lambda loss, w, v: double_backward(loss, w, w), "multiplied by w"),
    ("3", lambda loss, w, v: double_backward(loss, w, torch.ones_like(v)), "v is missing"),
    ("3", lambda loss, w, v: matrix(loss, w).diagonal() * v, "Only the diagonal"),
    ("3", lambda loss, w, v: v, "Not the product"),
    ("3", lambda loss, w, v: double_backward(loss, w, v)[None], "Wrong shape"),
    ("3", lambda loss, w: w, "raised TypeError"),
    ("3", lambda loss, w, v: torch.autograd.grad(loss(w), w), "raised RuntimeError"),
    ("3", with_the_matrix, "matrix of P x P"),
    ("3", row_by_row, "one pass per weight"),
    ("3", lambda loss, w, v: double_backward(loss, w, v) + (len(w) > 6), "with six weights"),
    ("3", 3.0, "the function itself"),
]


# --- spectrum.4 ----------------------------------------------------------------------------------


def gauss_newton(J: Tensor, z: Tensor) -> Tensor:  # noqa: N803
    p = z.softmax(dim=1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("ncp,ncd,ndq->pq", J, inner, J)


def weighted(J: Tensor, B: Tensor) -> Tensor:  # noqa: N803
    return torch.einsum("ncp,ncd,ndq->pq", J, B, J)


SOLUTIONS += [("4", gauss_newton)]


def test_spectrum_4_is_that_of_the_package() -> None:
    net, rng = MLP(widths=(3, 4, 3)), torch.Generator().manual_seed(0)
    params, x = net.init(seed=0), torch.randn(5, 3, generator=rng, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    at = hessian.gauss_newton(net, params, x, y, loss="cross_entropy", reduction="sum")
    J = hessian.jacobian(net, params, x).reshape(5, 3, -1)
    torch.testing.assert_close(
        math.exp(at.log_scale) * at.matrix, gauss_newton(J, net(params, x)), rtol=1e-10, atol=1e-12
    )


MISTAKES += [
    ("4", lambda J, z: gauss_newton(J, z) / len(z), "mean over the samples"),
    ("4", lambda J, z: -gauss_newton(J, z), "Wrong sign"),
    ("4", lambda J, z: torch.einsum("ncp,ncq->pq", J, J), "are missing: this is the sum"),
    ("4", lambda J, z: weighted(J, torch.diag_embed(z.softmax(1))), "couples the outputs"),
    (
        "4",
        lambda J, z: weighted(J, z.softmax(1)[:, :, None] * z.softmax(1)[:, None, :]),
        "diagonal of the probabilities is missing",
    ),
    (
        "4",
        lambda J, z: weighted(J, torch.diag_embed(z.softmax(1) * (1 - z.softmax(1)))),
        "as independent",
    ),
    (
        "4",
        lambda J, z: 2 * weighted(J, torch.diag_embed(z.softmax(1))) - gauss_newton(J, z),
        "between the two terms",
    ),
    ("4", lambda J, z: 2 * gauss_newton(J, z), "Symmetric, but not"),
    ("4", lambda J, z: gauss_newton(J, z).triu(), "Not symmetric"),
    ("4", lambda J, z: z, "Wrong shape"),
    ("4", gauss_newton(torch.ones(1, 2, 3), torch.ones(1, 2)), "the function itself"),
]


# --- spectrum.5 ----------------------------------------------------------------------------------

X = torch.tensor([[1.0, 2.0], [1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([1.0, -1.0], dtype=torch.float64)


SOLUTIONS += [("5", [0, 1, 1]), ("5", [0, -1, -1]), ("5", [-1, 1.0, 0.1]), ("5", [0.5, -2, -3])]


@pytest.mark.parametrize("answer", [answer for number, answer in SOLUTIONS if number == "5"])
def test_spectrum_5_accepts_what_the_flow_confirms(answer: list[float]) -> None:
    net = MLP(widths=(2, 1, 1))
    params = {"W1": torch.tensor([answer[:2]]).double(), "W2": torch.tensor([[answer[2]]]).double()}
    for _ in range(3000):
        f, pullback = net.vjp(params, X)
        slopes = pullback(Y * torch.exp(-Y * f))
        params = {name: params[name] + 0.1 * slopes[name] for name in params}
    margins = Y * net(params, X)
    assert (margins == 0).sum() == 1 and margins.max() > 3


MISTAKES += [
    ("5", [1, 0, 1], "active on both"),
    ("5", [-1, 0, 1], "active on neither"),
    ("5", [0, 1, -1], "classified wrongly"),
    ("5", [0, -1, 1], "classified wrongly"),
    ("5", [1, 1, 1], "on the kink"),
    ("5", [0, 1, 0], "a = 0"),
    ("5", [0, 1], "Wrong shape"),
    ("5", None, "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"spectrum.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=3) | st.floats(0, 1e4) | st.text(max_size=3),
    st.sampled_from(["1", "2", "5"]),
)
def test_no_message_holds_an_answer(answer: object, number: str) -> None:
    message = exercises.check(f"spectrum.{number}", answer).reason
    for found in re.findall(r"\d+\.?\d*", message):
        assert not any(math.isclose(float(found), v, rel_tol=0.02) for v in (*EIGENVALUES, 3950))
