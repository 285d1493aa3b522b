"""Graders of the margin chapter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, raised


def _dual_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data, margins and the balanced weights of the points of exercise 1, at v = (1, 0)."""
    x, v = np.array([[1.0, 1.0], [1.0, -3.0], [2.0, 1.0]]), np.array([1.0, 0.0])
    margins = x @ v
    support = margins <= margins.min()
    terms = (x - np.outer(margins, v))[support]  # B_n for f = v . x and y = 1
    system = np.vstack([terms.T, np.ones(support.sum())])
    weights = np.zeros(len(x))
    weights[support] = np.linalg.lstsq(system, np.array([0.0, 0.0, 1.0]), rcond=None)[0]
    return x, margins, weights


def _margin_1(answer: Any) -> str:
    x, margins, target = _dual_weights()
    alpha = numbers(answer, (len(x),), f"{len(x)} numbers, one weight per point")
    support = target > 0
    if (alpha < -BY_HAND).any():
        negated = close(-alpha, target, rel=0, abs_=BY_HAND)
        raise Wrong(
            "Wrong sign: all weights are negated."
            if negated
            else "Wrong sign: weights are multipliers of inequalities, so none may be negative."
        )
    total = alpha.sum()
    if total <= BY_HAND:
        raise Wrong("All weights are zero: that balances anything. Normalize them to sum 1.")
    if (alpha[~support] > BY_HAND).any():
        raise Wrong(
            "A point whose margin is not the smallest carries weight: its exponential vanishes "
            "beside that of the support vectors."
        )
    shares = alpha / total
    if close(shares, target, rel=0, abs_=BY_HAND):
        if abs(total - 1) > 2 * BY_HAND:
            raise Wrong("Off by a factor: the ratio is right, but the weights must sum to 1.")
        return "The weighted pulls cancel, and only support vectors carry weight."
    if close(shares[support], target[support][::-1], rel=0, abs_=BY_HAND):
        raise Wrong("The two weights are swapped: the shorter pull needs the larger weight.")
    if (shares[support] < BY_HAND).any():
        raise Wrong("A single support vector cannot balance: its own B is not zero.")
    raise Wrong("Right support vectors, wrong ratio: the weighted sum of the B_n is not zero.")


_GAMMA, _LAYERS = 0.5, 3


def _margin_2(answer: Any) -> str:
    value = float(numbers(answer, (), "one number"))
    K, gamma = _LAYERS, _GAMMA  # noqa: N806 (the paper's letter)
    square = gamma ** (-2 / K)  # norm of one layer, squared
    mistakes = {
        -K / 2 * square: "Wrong sign: a sum of squares cannot be negative.",
        square / 2: "Off by a factor: this is the share of one layer, and the sum runs over all.",
        K * square: "Off by a factor: the objective has a 1/2 in front.",
        square: "This is the squared norm of one layer: put it into the objective.",
        gamma ** (-1 / K): "This is the norm of one layer: put it into the objective.",
        K / 2 * gamma ** (-1 / K): "Wrong exponent: the objective has the squared norms.",
        K / 2 / square: "Wrong sign of the exponent: a smaller margin needs larger weights.",
        K / 2 * gamma**-2: "Wrong exponent: the product of all norms makes up for the margin, "
        "and each layer takes an equal part.",
        gamma**-2 / 2: "This is the constant of a single layer; here the norms multiply.",
        K / 2 / gamma: "Wrong exponent: compare the product of the norms with their squares.",
    }
    if close(value, K / 2 * square, rel=1e-3):
        return "All layers share the norm equally, and the constraints are met with equality."
    for mistaken, reason in mistakes.items():
        if close(value, mistaken, rel=1e-3):
            raise Wrong(reason)
    if value <= 0:
        raise Wrong("Wrong sign: a sum of squares of nonzero weights is positive.")
    raise Wrong(
        "Not the minimum. Write the constraint as a lower bound on the product of the layer "
        "norms, and find the smallest sum of squares with that product."
    )


@dataclass(frozen=True)
class _Case:
    """One input of exercise 3 and what it is there to find out."""

    margins: np.ndarray
    rho: float
    breaks: str | None = None

    @property
    def smoothed(self) -> float:
        return -float(np.logaddexp.reduce(-self.margins)) / self.rho


def _cases() -> list[_Case]:
    rng = np.random.default_rng(20200609)
    spread = rng.uniform(0.0, 3.0, size=7)
    return [
        _Case(1.0 + spread, 2.5),
        _Case(spread - 1.5, 0.4),
        _Case(1.0e3 + spread, 40.0, "underflow"),
        _Case(1.0e5 + spread, 900.0, "underflow"),
        _Case(spread - 1.0e3, 40.0, "overflow"),
    ]


def _margin_3(answer: Any) -> str:
    if not callable(answer):
        raise Wrong(
            f"Wrong type: give the function itself, smoothed_margin, not {type(answer).__name__}."
        )
    for case in _cases():
        value = _evaluate(answer, case)
        if not close(value, case.smoothed, rel=1e-9, abs_=1e-12):
            raise Wrong(_diagnose(value, case))
    return "It agrees with the definition, also where every exponential is 0 in float64."


def _evaluate(function: Callable[..., Any], case: _Case) -> float:
    """Call the reader's function with tensors or, if it cannot take them, with arrays."""
    failures = []
    for convert in (_as_tensor, np.array):
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = function(convert(case.margins), case.rho)
        except Exception as error:  # whatever the reader's code raises
            failures.append(error)
            continue
        return _scalar(result, case)
    if case.breaks and any(isinstance(error, ArithmeticError | ValueError) for error in failures):
        raise Wrong(_range_problem(case))
    raise raised(failures[0], " for a tensor of margins")


def _as_tensor(values: np.ndarray) -> Any:
    import torch

    return torch.tensor(values, dtype=torch.float64)


def _scalar(result: Any, case: _Case) -> float:
    if hasattr(result, "detach"):
        result = result.detach().cpu().numpy()
    try:
        shape = np.shape(result)
        value = float(result) if shape == () else math.nan
    except (TypeError, ValueError, OverflowError):
        raise Wrong("Wrong type: the function must return one number.") from None
    if shape == case.margins.shape:
        raise Wrong("Wrong shape: one value per sample; sum over the samples.")
    if shape != ():
        raise Wrong("Wrong shape: return one number, without axes.")
    if not math.isfinite(value):
        raise Wrong(_range_problem(case) if case.breaks else "Not finite on ordinary margins.")
    return value


def _range_problem(case: _Case) -> str:
    size = f"near {'-' if case.margins.max() < 0 else ''}{abs(round(case.margins[0], -3)):.0f}"
    return (
        f"{str(case.breaks).capitalize()}: right on ordinary margins, but for margins {size} the "
        "exponentials leave the range of float64. Take the logarithm of the sum in one step."
    )


def _diagnose(value: float, case: _Case) -> str:
    """Name the mistake behind a finite wrong value."""
    if case.breaks:
        return _range_problem(case)
    right, rho, margins = case.smoothed, case.rho, case.margins
    per_sample = math.log(len(margins))
    logistic = -float(np.log(np.logaddexp(0, -margins).sum())) / rho
    readings = [
        (right + per_sample / rho, "Off by log(N) / rho: the mean of the losses, not their sum."),
        (right * rho + per_sample, "The mean of the losses, not their sum, and rho is missing."),
        (right * rho, "Off by rho: divide by the product of the layer norms."),
        (right * rho**2, "Off by rho: divide by it, do not multiply."),
        (right / rho, "Off by rho: divide by it once; the margins come unnormalized."),
        (math.exp(-right * rho) / rho, "The logarithm is missing: this is the loss over rho."),
        (math.exp(-right * rho), "This is the loss; take minus its logarithm and divide by rho."),
        (float(margins.min()) / rho, "This is the hard margin, the smallest one; smooth it."),
        (float(margins.mean()) / rho, "This is the mean of the margins."),
        (right / math.log(10), "Off by a factor: use the natural logarithm."),
        (right / math.log(2), "Off by a factor: use the natural logarithm."),
        (logistic, "This is the logistic loss; the exercise asks for the exponential one."),
        (-float(np.logaddexp.reduce(margins)) / rho, "Wrong sign in the exponent."),
    ]
    if close(value, -right, rel=1e-9):
        return "Wrong sign: a small loss must give a large margin."
    for reading, reason in readings:
        if close(value, reading, rel=1e-9):
            return reason
        if close(value, -reading, rel=1e-9):
            return f"Wrong sign, and not only that. {reason}"
    if close(value, right, rel=1e-5):
        return "Nearly, but digits are lost: stay in float64 and add nothing inside the logarithm."
    return "The values differ from -log(sum exp(-margins)) / rho."


def _margin_4(answer: Any) -> str:
    rng = np.random.default_rng(4)
    for num_points, d in ((6, 4), (5, 5), (1, 3)):
        x, v = rng.normal(size=(num_points, d)), rng.normal(size=d)
        y, v = np.where(np.arange(num_points) % 2, 1.0, -1.0), v / np.linalg.norm(v)
        along = (x @ v)[:, None] * v
        found = call(answer, *map(_as_tensor, (x, y, v)), name="pulls")
        B = numbers(found, x.shape, "an array of shape (N, d), one pull per sample")  # noqa: N806
        right = y[:, None] * (x - along)
        if close(B, right, rel=1e-9, abs_=1e-12):
            continue
        if close(B, -right, rel=1e-9, abs_=1e-12):
            raise Wrong("Wrong sign: a pull points where the margin of its own sample grows.")
        if close(B, x - along, rel=1e-9, abs_=1e-12):
            raise Wrong("The labels are missing.")
        if close(B, y[:, None] * x, rel=1e-9, abs_=1e-12):
            raise Wrong("The part along v is still there: a direction moves on the sphere only.")
        if close(B, y[:, None] * x - along, rel=1e-9, abs_=1e-12):
            raise Wrong("The label belongs to both terms.")
        if not close(B @ v, 0.0, rel=0, abs_=1e-9):
            raise Wrong("Not orthogonal to v: a pull moves the direction on the sphere only.")
        raise Wrong("Orthogonal to v, but not the derivative of the margin of its sample.")
    return "Each pull is orthogonal to v and grows the margin of its own sample."


def _margin_5(answer: Any) -> str:
    x = np.array([[1.0, 1.0], [1.0, -2.0]])
    w = numbers(answer, (2,), "two numbers, w_1 and w_2")
    size = np.hypot(*w)  # does not overflow
    if size == 0:
        raise Wrong("At w = 0 there is no direction.")
    m, v = x @ w, w / size
    smallest = m.min()
    if not smallest - np.log(np.exp(smallest - m).sum()) > 0:  # also where m overflows
        raise Wrong("The sum of the losses is not below 1 there: the margins are too small.")
    p = np.exp(smallest - m)
    turn = p / p.sum() @ (x - np.outer(x @ v, v))
    tied = m <= smallest + 1e-9 * abs(smallest)
    if (x[tied] @ turn).min() < -1e-9:
        return "The smallest margin falls there, although the smoothed one grows."
    if m[1] == smallest:
        raise Wrong(
            "The hard margin does not fall there: the second sample is the nearest, and its pull "
            "is the longer one. Let the first be as near, or nearer."
        )
    raise Wrong(
        "The hard margin does not fall there: the first sample is so much nearer that the pull of "
        "the second is too weak. Make the two margins more nearly equal."
    )


GRADERS: dict[str, Grader] = {
    "1": _margin_1,
    "2": _margin_2,
    "3": _margin_3,
    "4": _margin_4,
    "5": _margin_5,
}
