"""Losses in the log domain against mpmath at 60 digits and more, up to margins of a million."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import losses

KINDS = losses.KINDS
every_kind = pytest.mark.parametrize("kind", KINDS)
EXTREME = [-1e6, -1e3, -50.0, -20.5, -3.0, -0.5, 0.0, 1.0, 3.9, 4.0, 4.1, 10.0, 30.0, 37.0, 40.0]
HUGE = [700.0, 745.0, 1000.0, 1e5, 1e6]
MARGINS = [  # log L is about -1000 and -1e6, about +7 and +1e6, and mixed
    [1000.0, 1000.5, 1003.0, 5000.0],
    [1e6, 1e6 + 1.0, 1e6 + 0.25, 2e6],
    [0.1, 1e6],
    [-1e6, 1e6],
    [-3.0, 0.0, 2.0, 4.5, 50.0],
    [36.9, 37.1, 36.8],
]

# exp(-1e6) is an ordinary number in mpmath, whose exponents are unbounded; log(1 + e) needs log1p,
# which mpmath evaluates to full relative accuracy.


def exact_loss(m: float, kind: str) -> mpmath.mpf:
    e = mpmath.exp(-mpmath.mpf(m))
    return e if kind == "exponential" else mpmath.log1p(e)


def exact_slope(m: float, kind: str) -> mpmath.mpf:
    """-l'(m) / l(m)."""
    if kind == "exponential":
        return mpmath.mpf(1)
    e = mpmath.exp(-mpmath.mpf(m))
    return e / (1 + e) / mpmath.log1p(e)


def relative_error(value: float, exact: mpmath.mpf) -> float:
    """Error relative to max(|exact|, 1): absolute near a zero of the exact value."""
    return float(abs(value - exact) / max(abs(exact), 1))


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


@every_kind
def test_log_example_losses_agree_with_mpmath(kind: str) -> None:
    values = losses.log_example_losses(tensor(EXTREME + HUGE), kind).tolist()
    for m, value in zip(EXTREME + HUGE, values, strict=True):
        assert relative_error(value, mpmath.log(exact_loss(m, kind))) < 1e-15, m


@given(m=st.floats(-1e6, 1e6))
def test_logistic_log_loss_of_any_margin_agrees_with_mpmath(m: float) -> None:
    value = losses.log_example_losses(tensor([m]), "logistic").item()
    with mpmath.workdps(60):
        assert relative_error(value, mpmath.log(exact_loss(m, "logistic"))) < 1e-15


@every_kind
@pytest.mark.parametrize("margins", MARGINS, ids=str)
@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
def test_log_loss_agrees_with_mpmath(kind: str, margins: list[float], reduction: str) -> None:
    exact = mpmath.log(mpmath.fsum(exact_loss(m, kind) for m in margins))
    if reduction == "mean":
        exact -= mpmath.log(len(margins))
    value = losses.log_loss(tensor(margins), kind, reduction=reduction).item()
    assert abs(value - exact) <= 4e-16 * max(abs(exact), 1)


@every_kind
@pytest.mark.parametrize("margins", MARGINS, ids=str)
def test_example_weights_agree_with_mpmath_and_with_autograd(
    kind: str, margins: list[float]
) -> None:
    total = mpmath.fsum(exact_loss(m, kind) for m in margins)
    exact = [exact_loss(m, kind) / total * exact_slope(m, kind) for m in margins]
    m = tensor(margins).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.log_loss(m, kind), m)
    weights = losses.example_weights(tensor(margins), kind)
    assert (weights >= 0).all()
    for n, q in enumerate(exact):
        assert relative_error(weights[n].item(), q) < 2e-15
        assert relative_error(-gradient[n].item(), q) < 2e-15
        if q > mpmath.mpf("1e-300"):  # small weights are accurate too, not only large ones
            assert abs(weights[n].item() / q - 1) < 1e-13


@every_kind
def test_first_and_second_derivatives_agree_with_mpmath(kind: str) -> None:
    m = tensor(EXTREME + HUGE).requires_grad_()
    value = losses.log_example_losses(m, kind).sum()
    (first,) = torch.autograd.grad(value, m, create_graph=True)
    assert torch.isfinite(first).all()
    for margin, got in zip(m.tolist(), first.tolist(), strict=True):
        assert relative_error(got, -exact_slope(margin, kind)) < 1e-15
    if kind == "exponential":
        return
    (second,) = torch.autograd.grad(first.sum(), m)
    for margin, got in zip(m.tolist(), second.tolist(), strict=True):
        q, e = exact_slope(margin, kind), mpmath.exp(-mpmath.mpf(margin))
        assert relative_error(got, -q * (q - 1 / (1 + e))) < 4e-15


@every_kind
def test_derivatives_agree_with_finite_differences(kind: str) -> None:
    torch.autograd.gradcheck(
        lambda m: losses.log_loss(m, kind), tensor([-2, 0, 3.9, 7]).requires_grad_()
    )
    torch.autograd.gradgradcheck(
        lambda m: losses.log_loss(m, kind), tensor([-2.0, 0.0, 3.9, 7.0]).requires_grad_()
    )


@every_kind
def test_hessian_and_vmap_of_torch_func(kind: str) -> None:
    m = tensor([[0.5, 2.0, 6.0], [1000.0, 1001.0, 1005.0]])
    hessians = torch.func.vmap(torch.func.hessian(lambda m: losses.log_loss(m, kind)))(m)
    q = losses.example_weights(m, kind)
    assert torch.isfinite(hessians).all()
    if kind == "exponential":  # log-sum-exp: diag(q) - q q^T
        torch.testing.assert_close(
            hessians, torch.diag_embed(q) - q[:, :, None] * q[:, None], rtol=1e-12, atol=1e-15
        )


@every_kind
def test_log_loss_reduces_the_last_axis_of_an_ensemble(kind: str) -> None:
    m = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    separate = torch.stack([losses.log_loss(row, kind) for row in m])
    torch.testing.assert_close(losses.log_loss(m, kind), separate, rtol=1e-15, atol=1e-15)
    weights = torch.stack([losses.example_weights(row, kind) for row in m])
    torch.testing.assert_close(losses.example_weights(m, kind), weights, rtol=1e-15, atol=0)


@given(st.lists(st.floats(-30, 500), min_size=1, max_size=6), st.floats(-100, 100))
def test_exponential_loss_is_shift_equivariant(margins: list[float], shift: float) -> None:
    moved = losses.log_loss(tensor(margins) + shift).item()
    assert moved == pytest.approx(losses.log_loss(tensor(margins)).item() - shift, abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_minus_log_sum_is_below_the_smallest_margin_by_at_most_log_n(margins: list[float]) -> None:
    """What makes the sum, and not the mean, the right thing under the logarithm."""
    gap = min(margins) + losses.log_loss(tensor(margins)).item()
    assert -1e-9 <= gap <= math.log(len(margins)) + 1e-9


def test_cross_entropy_is_the_logistic_loss_of_the_multiclass_margin() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(3, 20, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (20,), generator=generator)
    m = losses.multiclass_margin(logits, labels)
    assert m.shape == (3, 20)
    for row, z in zip(m, logits, strict=True):
        expected = torch.nn.functional.cross_entropy(z, labels)
        value = losses.log_loss(row, "logistic", reduction="mean").exp()
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    others = logits.scatter(-1, labels.expand(3, 20)[..., None], -torch.inf).amax(-1)
    hard = logits.gather(-1, labels.expand(3, 20)[..., None]).squeeze(-1) - others
    assert ((m <= hard) & (m >= hard - math.log(3))).all()


def test_cross_entropy_far_below_underflow() -> None:
    logits = tensor([[1e6, 0.0, -5.0], [0.0, 1e6, 1.0]])
    m = losses.multiclass_margin(logits, torch.tensor([0, 1]))
    exact = mpmath.log(
        mpmath.fsum(
            mpmath.log1p(mpmath.exp(a - 10**6) + mpmath.exp(b - 10**6))
            for a, b in ((0, -5), (0, 1))
        )
    )
    assert relative_error(losses.log_loss(m, "logistic").item(), exact) < 1e-15


def test_two_classes_reduce_to_the_difference_of_the_logits() -> None:
    logits = tensor([[1.0, 3.0], [2.0, -1.0]])
    assert losses.multiclass_margin(logits, torch.tensor([0, 0])).tolist() == [-2.0, 3.0]


def test_gradient_through_the_multiclass_margin_is_softmax_minus_one_hot() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    m = losses.multiclass_margin(logits, labels)
    loss = losses.log_example_losses(m, "logistic").exp().sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = logits.softmax(-1) - torch.nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-12, atol=1e-14)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device_follow_the_input(kind: str, dtype: torch.dtype, device: str) -> None:
    m = torch.tensor([1000.0, 1002.0], dtype=dtype, device=device)
    for reduction in losses.REDUCTIONS:
        total = losses.log_loss(m, kind, reduction=reduction)
        assert total.dtype == dtype and total.device.type == device
        assert total.item() == pytest.approx(-1000, abs=1)
    assert losses.example_weights(m, kind).dtype == dtype


F = torch.tensor([1.0, 2.0], dtype=torch.float64)
Z = torch.ones(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.margins(F, tensor([1, 0])),
            r"y must hold only the labels -1 and \+1, got 0",
        ),
        (lambda: losses.margins(F, tensor([1, math.nan])), "y must hold only the labels.*nan"),
        (lambda: losses.margins(F, torch.tensor([1, -1])), "y must be a floating-point tensor"),
        (lambda: losses.margins(F, tensor([1])), r"f must have shape \(\.\.\., N\)"),
        (
            lambda: losses.margins(F.float(), tensor([1, 1])),
            "f must have the dtype and device of y",
        ),
        (lambda: losses.margins(F / 0, tensor([1, 1])), "f must be finite, got 2 entries"),
        (lambda: losses.margins([1.0], tensor([1])), "f must be a torch.Tensor, got list"),
        (lambda: losses.log_loss(F * math.nan), "margins must be finite"),
        (lambda: losses.log_loss(F[:0]), r"margins must have shape \(\.\.\., N\), N >= 1"),
        (lambda: losses.log_loss(F.sum()), r"margins must have shape \(\.\.\., N\), N >= 1"),
        (lambda: losses.log_loss(F, "hinge"), "kind must be one of 'exponential', 'logistic'"),
        (lambda: losses.log_loss(F, reduction="max"), "reduction must be one of 'sum', 'mean'"),
        (lambda: losses.example_weights(F, "hinge"), "kind must be one of"),
        (lambda: losses.log_example_losses(F / 0), "margins must be finite"),
        (lambda: losses.multiclass_margin(F, torch.tensor([0])), "logits must have shape"),
        (lambda: losses.multiclass_margin(Z, torch.tensor([0, 3])), r"labels must lie in 0 \.\. 2"),
        (lambda: losses.multiclass_margin(Z, torch.tensor([0, -1])), "got -1"),
        (lambda: losses.multiclass_margin(Z, tensor([0, 1])), "labels must be an integer tensor"),
        (lambda: losses.multiclass_margin(Z, torch.tensor([0])), r"labels must have shape \(2,\)"),
        (lambda: losses.multiclass_margin(Z / 0, torch.tensor([0, 1])), "logits must be finite"),
    ],
)
def test_invalid_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
