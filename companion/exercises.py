"""Answer checkers for the book's exercises: right or wrong, and why, never the answer.

    exercises.check("margin.1", [0.5, 0.5, 0.0])

Numbers may be Python's, NumPy's or torch's. A grader computes the answer from the exercise's data
when it is asked; what it says about a wrong answer names the kind of mistake, without numbers.
"""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from companion import _notebook

__all__ = ["Verdict", "check"]

Grader = Callable[[Any], str]  # returns why the answer is right, raises _Wrong if it is not


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and the reason if it is not."""

    correct: bool
    reason: str

    def _ipython_display_(self) -> None:
        """Nothing: :func:`check` has shown it already."""


class _Wrong(Exception):
    """Ends a grader with a reason."""


def check(exercise_id: str, answer: Any) -> Verdict:
    """Tell whether an answer is right and, if not, what kind of mistake it looks like.

    In IPython it shows one line; elsewhere it only returns the verdict.

    Args:
        exercise_id: Chapter and number, as printed above the exercise.
        answer: What the exercise asks for: numbers, or a function.

    Returns:
        The verdict. A wrong type or shape is a wrong answer, not an error.

    Raises:
        ValueError: for an id that is no exercise; the message lists those there are.

    >>> check("margin.1", [1.0, 0.0]).reason
    'Wrong shape: give 3 numbers, one weight per point.'
    """
    if exercise_id not in _GRADERS:
        known = ", ".join(map(repr, _GRADERS))
        raise ValueError(f"exercise_id must be one of {known}, got {exercise_id!r}.")
    try:
        verdict = Verdict(True, _GRADERS[exercise_id](answer))
    except _Wrong as wrong:
        verdict = Verdict(False, str(wrong))
    _notebook.show(_bundle(exercise_id, verdict))
    return verdict


def _bundle(exercise_id: str, verdict: Verdict) -> dict[str, str]:
    mark, word = ("✓", "right") if verdict.correct else ("✗", "not yet")
    return {
        "text/plain": f"{mark} {exercise_id}: {word}. {verdict.reason}",
        "text/html": (
            f'<p class="exercise-check"><span aria-hidden="true">{mark}</span> '
            f"<code>{html.escape(exercise_id)}</code> <strong>{word}.</strong> "
            f"{html.escape(verdict.reason)}</p>"
        ),
    }


# --- reading answers -----------------------------------------------------------------------------


def _numbers(answer: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The answer as a float64 array of that shape, or a reason why it is none."""
    if callable(answer) or isinstance(answer, (str, bytes, dict, set)) or answer is None:
        raise _Wrong(f"Wrong type: give {what}, not {type(answer).__name__}.")
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().numpy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # complex numbers lose their imaginary part
            values = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, Warning):
        raise _Wrong(f"Wrong type: give {what}.") from None
    if values.shape != shape:
        raise _Wrong(f"Wrong shape: give {what}.")
    if not np.isfinite(values).all():
        raise _Wrong("Not finite: the answer holds a NaN or an infinity.")
    return values


def _close(value: Any, target: Any, *, rel: float, abs_: float = 0.0) -> bool:
    return bool(np.allclose(value, target, rtol=rel, atol=abs_))


# --- dynamics/margin -----------------------------------------------------------------------------

_BY_HAND = 5e-3  # an answer rounded to two decimals is right


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
    alpha = _numbers(answer, (len(x),), f"{len(x)} numbers, one weight per point")
    support = target > 0
    if (alpha < -_BY_HAND).any():
        negated = _close(-alpha, target, rel=0, abs_=_BY_HAND)
        raise _Wrong(
            "Wrong sign: all weights are negated."
            if negated
            else "Wrong sign: weights are multipliers of inequalities, so none may be negative."
        )
    total = alpha.sum()
    if total <= _BY_HAND:
        raise _Wrong("All weights are zero: that balances anything. Normalize them to sum 1.")
    if (alpha[~support] > _BY_HAND).any():
        raise _Wrong(
            "A point whose margin is not the smallest carries weight: its exponential vanishes "
            "beside that of the support vectors."
        )
    shares = alpha / total
    if _close(shares, target, rel=0, abs_=_BY_HAND):
        if abs(total - 1) > 2 * _BY_HAND:
            raise _Wrong("Off by a factor: the ratio is right, but the weights must sum to 1.")
        return "The weighted pulls cancel, and only support vectors carry weight."
    if _close(shares[support], target[support][::-1], rel=0, abs_=_BY_HAND):
        raise _Wrong("The two weights are swapped: the shorter pull needs the larger weight.")
    if (shares[support] < _BY_HAND).any():
        raise _Wrong("A single support vector cannot balance: its own B is not zero.")
    raise _Wrong("Right support vectors, wrong ratio: the weighted sum of the B_n is not zero.")


_GAMMA, _LAYERS = 0.5, 3


def _margin_2(answer: Any) -> str:
    value = float(_numbers(answer, (), "one number"))
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
    if _close(value, K / 2 * square, rel=1e-3):
        return "All layers share the norm equally, and the constraints are met with equality."
    for mistaken, reason in mistakes.items():
        if _close(value, mistaken, rel=1e-3):
            raise _Wrong(reason)
    if value <= 0:
        raise _Wrong("Wrong sign: a sum of squares of nonzero weights is positive.")
    raise _Wrong(
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
        raise _Wrong(
            f"Wrong type: give the function itself, smoothed_margin, not {type(answer).__name__}."
        )
    for case in _cases():
        value = _evaluate(answer, case)
        if not _close(value, case.smoothed, rel=1e-9, abs_=1e-12):
            raise _Wrong(_diagnose(value, case))
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
        raise _Wrong(_range_problem(case))
    error = failures[0]
    raise _Wrong(f"The function raised {type(error).__name__} for a tensor of margins: {error}")


def _as_tensor(values: np.ndarray) -> Any:
    import torch

    return torch.tensor(values, dtype=torch.float64)


def _scalar(result: Any, case: _Case) -> float:
    if hasattr(result, "detach"):
        result = result.detach().cpu().numpy()
    try:
        shape = np.shape(result)
        value = float(result) if shape == () else math.nan
    except (TypeError, ValueError):
        raise _Wrong("Wrong type: the function must return one number.") from None
    if shape == case.margins.shape:
        raise _Wrong("Wrong shape: one value per sample; sum over the samples.")
    if shape != ():
        raise _Wrong("Wrong shape: return one number, without axes.")
    if not math.isfinite(value):
        raise _Wrong(_range_problem(case) if case.breaks else "Not finite on ordinary margins.")
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
    if _close(value, -right, rel=1e-9):
        return "Wrong sign: a small loss must give a large margin."
    for reading, reason in readings:
        if _close(value, reading, rel=1e-9):
            return reason
        if _close(value, -reading, rel=1e-9):
            return f"Wrong sign, and not only that. {reason}"
    if _close(value, right, rel=1e-5):
        return "Nearly, but digits are lost: stay in float64 and add nothing inside the logarithm."
    return "The values differ from -log(sum exp(-margins)) / rho."


_GRADERS: dict[str, Grader] = {"margin.1": _margin_1, "margin.2": _margin_2, "margin.3": _margin_3}
