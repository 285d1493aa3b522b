"""Exponential-type losses of the margins, entirely in the log domain.

The dynamics of the paper run to losses far below the smallest double (L < 1e-434), so nothing
here forms the loss itself: with margins m_n = y_n f(W; x_n) the functions return log l(m_n),
log L and the weights -d log L / dm_n. Three losses are covered: the exponential exp(-m), the
logistic log(1 + exp(-m)), and the cross-entropy, which is the logistic loss of the multiclass
margin z_y - log sum_{j != y} exp(z_j).

All functions follow the device and dtype of their input, work under torch.func, and can be
differentiated twice. For logistic margins above 4 they use the power series
``log(log(1 + e) / e) = -e/2 + 5 e^2/24 - ...`` with e = exp(-m), where the closed form would
divide 0 by 0.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from companion import _checks

KINDS = ("exponential", "logistic")
REDUCTIONS = ("sum", "mean")

_SWITCH = 4.0  # above this margin the series takes over
_TERMS = 10  # exp(-4 * 11) < 1e-19: the first term left out is below rounding


def _series(num_terms: int) -> tuple[float, ...]:
    """Coefficients c_1, c_2, ... of log(log(1 + e) / e) in powers of e, from exact rationals."""
    a = [Fraction((-1) ** n, n + 1) for n in range(num_terms + 1)]  # log(1 + e) / e
    c = [Fraction(0)] * (num_terms + 1)
    for n in range(1, num_terms + 1):  # from a c' = a', coefficient by coefficient
        c[n] = a[n] - sum((Fraction(k, n) * c[k] * a[n - k] for k in range(1, n)), Fraction(0))
    return tuple(float(value) for value in c[1:])


_COEFFICIENTS = _series(_TERMS)


def margins(f: Tensor, y: Tensor) -> Tensor:
    """Return the margins ``m_n = y_n f(W; x_n)``.

    Args:
        f: Outputs, shape (N,), or (..., N) for an ensemble.
        y: Labels -1 and +1, shape (N,), with the dtype of f.

    Raises:
        TypeError, ValueError: if y holds other labels, f is not finite, or shapes or dtypes differ.

    Source: PNAS 2020, section 3.

    >>> margins(torch.tensor([2.0, 3.0]), torch.tensor([1.0, -1.0]))
    tensor([ 2., -3.])
    """
    _checks.signs("y", y)
    _checks.finite("f", f)
    if y.ndim != 1 or f.ndim < 1 or f.shape[-1] != y.shape[0]:
        raise ValueError(
            f"f must have shape (..., N) with y of shape (N,), got {tuple(f.shape)} and "
            f"{tuple(y.shape)}."
        )
    _checks.same_kind("f", f, "y", y)
    return y * f


def multiclass_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``m_n = z_{n, y_n} - log sum_{j != y_n} exp(z_{n, j})``.

    With it the cross-entropy is the logistic loss: -log softmax(z)_y = log(1 + exp(-m)), and what
    holds for margins of binary classifiers carries over. It is below the hard multiclass margin
    z_y - max_{j != y} z_j by at most log(C - 1).

    Args:
        logits: z, shape (N, C) with C >= 2, or (..., N, C) for an ensemble.
        labels: Classes 0 .. C - 1, integers, shape (N,).

    Returns:
        Margins, shape (..., N).

    Raises:
        TypeError, ValueError: if shapes do not fit, labels are out of range, or logits not finite.

    Source: Lyu & Li 2020, appendix (multi-class classification with the cross-entropy loss).

    >>> z = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    >>> log_loss(multiclass_margin(z, torch.tensor([0])), "logistic").exp()
    tensor(0.2395, dtype=torch.float64)
    """
    _checks.finite("logits", logits)
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise ValueError(
            f"logits must have shape (..., N, C) with C >= 2, got {tuple(logits.shape)}."
        )
    _checks.class_labels("labels", labels, logits.shape[-1])
    _checks.shape("labels", labels, logits.shape[-2:-1])
    index = labels.long().unsqueeze(-1).expand(*logits.shape[:-1], 1)  # (..., N, 1)
    own = logits.gather(-1, index).squeeze(-1)
    classes = torch.arange(logits.shape[-1], device=logits.device)
    others = logits.masked_fill(classes == labels.unsqueeze(-1), -torch.inf)
    return own - others.logsumexp(dim=-1)


def log_example_losses(margins: Tensor, kind: str = "exponential") -> Tensor:
    """Return log l(m) elementwise.

    ``log l(m) = -m`` for the exponential loss and ``log log(1 + exp(-m))`` for the logistic one.
    In float64 the relative error is about 1e-16 for margins between -1e6 and 1e6 (absolute near
    the zero of the logistic case at m = -0.54).

    Args:
        margins: m, any shape.
        kind: "exponential" or "logistic".

    Raises:
        TypeError, ValueError: if margins are not finite floating-point numbers, or kind is unknown.

    >>> log_example_losses(torch.tensor([1000.0, -1000.0]), "logistic")
    tensor([-1000.0000,     6.9078])
    """
    _checks.choice("kind", kind, KINDS)
    _checks.finite("margins", margins)
    return _shifted(margins, kind, torch.zeros_like(margins))


def log_loss(margins: Tensor, kind: str = "exponential", *, reduction: str = "sum") -> Tensor:
    """Return the logarithm of the loss over the last axis, ``log L = log sum_n l(m_n)``.

    The sum, not the mean, is what the smoothed margin needs: for the exponential loss
    ``-log sum_n exp(-m_n)`` is at most the smallest margin, and divided by prod_k rho_k it grows
    along gradient flow once L < 1 (Lyu & Li 2020, Thm 4.1 and its multi-homogeneous form). The
    mean adds the constant log N to the numerator, which over growing norms is a falling term, and
    both the bound and the proof are lost. The gradient of log L is the same for both.

    Args:
        margins: m_n, shape (..., N).
        kind: "exponential" or "logistic".
        reduction: "sum" or "mean" over the N examples.

    Returns:
        log L, shape (...): right at -1000 and at -1e6, where L underflows.

    Raises:
        TypeError, ValueError: if margins are not finite or hold no example, or a name is unknown.

    Source: PNAS 2020, Eq. 1 (the gradient flow of this loss); Lyu & Li 2020, Thm 4.1.

    >>> log_loss(torch.tensor([1e6, 2e6], dtype=torch.float64))
    tensor(-1000000., dtype=torch.float64)
    """
    _checks.choice("reduction", reduction, REDUCTIONS)
    shift = _shift(margins, kind)
    total = _shifted(margins, kind, shift).logsumexp(dim=-1) - shift.squeeze(-1)
    if reduction == "mean":
        return total - math.log(margins.shape[-1])
    return total


def example_weights(margins: Tensor, kind: str = "exponential") -> Tensor:
    """Return ``q_n = -d log L / dm_n >= 0``, the pull of each example on the weights.

    For the exponential loss q is the softmax of -m and sums to one; for the logistic loss it is
    the softmax of log l times the slope ``-l'(m) / l(m)``, which tends to 1 as m grows. Hence
    ``-grad_W log L = sum_n q_n grad_W m_n``.

    Args:
        margins: m_n, shape (..., N).
        kind: "exponential" or "logistic".

    Returns:
        q, the shape of margins.

    Raises:
        TypeError, ValueError: as :func:`log_loss` does.

    Source: PNAS 2020, Eqs 8 and 9 (q_n is the paper's alpha_n, divided by their sum).

    >>> example_weights(torch.tensor([1000.0, 1000.0, 2000.0]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    softmax = _shifted(margins, kind, _shift(margins, kind)).softmax(dim=-1)
    return softmax if kind == "exponential" else softmax * _logistic_slope(margins)


def _shift(margins: Tensor, kind: str) -> Tensor:
    """Smallest margin (..., 1), at least 0: subtracted first, it leaves small, exact numbers."""
    _checks.choice("kind", kind, KINDS)
    _checks.finite("margins", margins)
    if margins.ndim < 1 or margins.shape[-1] == 0:
        raise ValueError(f"margins must have shape (..., N), N >= 1, got {tuple(margins.shape)}.")
    return margins.detach().amin(dim=-1, keepdim=True).clamp(min=0.0)


def _shifted(margins: Tensor, kind: str, shift: Tensor) -> Tensor:
    """Return log l(m) + shift, without rounding log l(m) to its own size on the way."""
    if kind == "exponential":
        return shift - margins
    # Each branch sees only margins where it is finite: torch.where alone would still send the
    # NaN of the branch not taken into the gradient.
    series = _polynomial(torch.exp(-margins.clamp(min=_SWITCH)), _COEFFICIENTS)
    closed = torch.log(-torch.nn.functional.logsigmoid(margins.clamp(max=_SWITCH)))
    return torch.where(margins > _SWITCH, (shift - margins) + series, closed + shift)


def _logistic_slope(margins: Tensor) -> Tensor:
    """Return -l'(m) / l(m) = sigmoid(-m) / log(1 + exp(-m)) of the logistic loss."""
    slopes = tuple(n * c for n, c in enumerate(_COEFFICIENTS, start=1))
    series = 1 + _polynomial(torch.exp(-margins.clamp(min=_SWITCH)), slopes)
    low = margins.clamp(max=_SWITCH)
    closed = torch.sigmoid(-low) / -torch.nn.functional.logsigmoid(low)
    return torch.where(margins > _SWITCH, series, closed)


def _polynomial(e: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Return c_1 e + c_2 e^2 + ... by Horner's rule."""
    total = torch.zeros_like(e)
    for c in reversed(coefficients):
        total = (total + c) * e
    return total
