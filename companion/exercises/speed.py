"""Graders of the chapter on the speed of margin maximization."""

from __future__ import annotations

from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number, raised

_FIRST, _RATIO = 80.0, 1e4  # gradients to the first gap, and by how much it is to fall
_STEPS = 1e4  # of plain gradient descent to a gap that is then to be halved
_BUDGET, _GAP = 300, 0.01  # of exercise 5


def _speed_1(answer: Any) -> str:
    return one_number(
        answer,
        _FIRST * np.sqrt(_RATIO),
        right="A gap that falls like the inverse square of t needs the root of the factor.",
        mistakes={
            _FIRST * _RATIO: "This is the cost at the rate 1/t; here the gap falls with t squared.",
            np.sqrt(_RATIO): "This is the factor; multiply the gradients of the first stage by it.",
            _FIRST * _RATIO**2: "Wrong way round: a higher power of t makes the cost smaller.",
            _FIRST * (np.sqrt(_RATIO) - 1): "These are the gradients that come on top; the "
            "question is how many there are in all.",
        },
        otherwise="Write the gap as C / t^2, eliminate C, and solve for t.",
    )


def _speed_2(answer: Any) -> str:
    return one_number(
        answer,
        _STEPS**2,
        right="Twice the logarithm is the logarithm of the square.",
        mistakes={
            2 * _STEPS: "This would be the rate 1/t: it is the logarithm of t that has to double.",
            4 * _STEPS: "This would be the rate of a root of t; the gap falls with the logarithm.",
            2 * np.log(_STEPS): "This is the logarithm of the number of steps: take it back.",
            2 * np.log10(_STEPS): "This is the logarithm of the number of steps: take it back.",
            _STEPS**0.5: "Wrong way round: a smaller gap takes more steps.",
        },
        otherwise="Write the gap as C / log t, and ask which t doubles log t.",
    )


def _instances() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Points, labels, weights w that separate them, and p on the simplex."""
    rng = np.random.default_rng(20210701)
    found = []
    for N, d in ((5, 2), (9, 4), (12, 20)):
        v = rng.normal(size=d)
        v /= np.linalg.norm(v)
        signed = rng.normal(size=(N, d))
        signed += (rng.uniform(0.5, 1.5, size=N) - signed @ v)[:, None] * v
        y = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
        p = rng.uniform(0.1, 1.0, size=N)
        found.append((y[:, None] * signed, y, 3.0 * v, p / p.sum()))
    return found


def _speed_3(answer: Any) -> str:
    for x, y, w, p in _instances():
        found = call(answer, x.copy(), y.copy(), w.copy(), p.copy(), name="bounds")
        value, upper = numbers(found, (2,), "two numbers, the lower bound and the upper bound")
        signed = y[:, None] * x
        margins = signed @ w
        low, high = margins.min() / np.linalg.norm(w), np.linalg.norm(p @ signed)
        if close(value, low, rel=1e-9) and close(upper, high, rel=1e-9):
            continue
        if close(value, high, rel=1e-9) and close(upper, low, rel=1e-9):
            raise Wrong("The two bounds are swapped: the lower one comes first.")
        if close(value, margins.min(), rel=1e-9):
            raise Wrong("The lower bound must not depend on the length of w: divide by it.")
        if close(value, (x @ w).min() / np.linalg.norm(w), rel=1e-9):
            raise Wrong("The labels are missing: the margin of a point is y_n times w . x_n.")
        if close(value, margins.mean() / np.linalg.norm(w), rel=1e-9):
            raise Wrong("The margin of a separator is that of its worst point, not of the mean.")
        if not close(value, low, rel=1e-9):
            raise Wrong("The lower bound is not the normalized margin of w.")
        if close(upper, np.linalg.norm(p @ x), rel=1e-9):
            raise Wrong("The labels are missing in the upper bound.")
        if close(upper, high**2, rel=1e-9):
            raise Wrong("The upper bound is squared: it is the norm that bounds the margin.")
        if close(upper, np.linalg.norm(signed.mean(axis=0)), rel=1e-9):
            raise Wrong("The upper bound ignores p: weight the points by it.")
        raise Wrong("The upper bound is not the norm of the combination of the y_n x_n.")
    return "The largest margin lies between the two, whatever w and p are."


def _speed_4(answer: Any) -> str:
    for factor, breaks in ((1.0, False), (3e4, True), (-3e4, True)):
        for x, y, w, _ in _instances():
            at = factor * w
            got = (
                numbers(
                    call(answer, x.copy(), y.copy(), at.copy(), 0.5, name="step"),
                    w.shape,
                    "an array of the shape of w",
                )
                if not breaks
                else _robust(answer, x, y, at)
            )
            signed = y[:, None] * x
            m = signed @ at
            p = np.exp(m.min() - m)
            grad = (p / p.sum()) @ signed
            if close(got, at + 0.5 * grad, rel=1e-9, abs_=1e-9):
                continue
            if close(got, at - 0.5 * grad, rel=1e-9, abs_=1e-9):
                raise Wrong("Wrong sign: the step must lower the loss, so it raises l.")
            if close(got, 0.5 * grad, rel=1e-9, abs_=1e-9):
                raise Wrong("This is the step alone: add it to w.")
            if breaks:
                raise Wrong(_RANGE)
            loss = float(np.exp(-m).sum())
            if close(got, at + 0.5 * loss * grad, rel=1e-9, abs_=1e-9) or close(
                got, at + 0.5 * loss / len(m) * grad, rel=1e-9, abs_=1e-9
            ):
                raise Wrong("This is plain gradient descent: divide the gradient by the loss.")
            if close(got, at + 0.5 * len(m) * grad, rel=1e-9, abs_=1e-9):
                raise Wrong("Off by a factor N: sum or mean, take the same in both places.")
            if close(got, at + 0.5 * grad / np.linalg.norm(grad), rel=1e-9, abs_=1e-9):
                raise Wrong("Divide by the loss, not by the norm of the gradient.")
            raise Wrong("Not the step w + eta * (gradient of l).")
    return "It is right also where every exponential leaves the range of float64."


_RANGE = (
    "Right on ordinary margins, but for very large ones, of either sign, the exponentials leave "
    "the range of float64. Take the smallest margin out of all of them first."
)


def _robust(function: Any, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """As numbers, but what is not finite here is a matter of the range."""
    try:
        got = call(function, x.copy(), y.copy(), w.copy(), 0.5, name="step")
        return numbers(got, w.shape, "an array of the shape of w")
    except Wrong as wrong:
        shape_or_type = str(wrong).startswith(("Wrong type", "Wrong shape"))
        raise (wrong if shape_or_type else Wrong(_RANGE)) from None


class _Spent(Exception):
    """The budget of gradients is used up."""


def _race() -> tuple[np.ndarray, float]:
    """The y_n x_n, of norm at most 1, and their largest margin."""
    from scipy.optimize import nnls

    rng = np.random.default_rng(8)
    N, d = 150, 12
    v = rng.normal(size=d)
    v /= np.linalg.norm(v)
    rows = rng.normal(size=(N, d))
    rows += (0.35 + np.abs(rng.normal(size=N)) - rows @ v)[:, None] * v
    rows /= np.linalg.norm(rows, axis=1).max()
    u, _ = nnls(np.vstack([rows.T, np.ones(N)]), np.append(np.zeros(d), 1.0), maxiter=100 * N)
    return rows, float(np.linalg.norm((u / u.sum()) @ rows))


def _speed_5(answer: Any) -> str:
    rows, best = _race()
    spent = 0

    def gradient(w: Any) -> np.ndarray:
        nonlocal spent
        spent += 1
        if spent > _BUDGET:
            raise _Spent
        margins = rows @ np.asarray(w, dtype=float)
        p = np.exp(margins.min() - margins)
        return (p / p.sum()) @ rows

    if not callable(answer):
        raise Wrong(f"Wrong type: give the function itself, climb, not {type(answer).__name__}.")
    try:
        result = answer(gradient, rows.shape[1])
    except _Spent:
        raise Wrong("It asked for more gradients than the budget allows.") from None
    except Exception as error:  # whatever the reader's code raises
        raise raised(error) from None
    w = numbers(result, (rows.shape[1],), "an array with d numbers, the weights")
    size = np.linalg.norm(w)
    if size == 0:
        raise Wrong("The weights are zero: they have no direction.")
    reached = (rows @ w).min() / size
    if reached <= 0:
        raise Wrong("These weights do not even separate the points.")
    if reached < (1 - _GAP) * best:
        raise Wrong(
            "Within the budget, but the margin is still too far from the largest one. Steps of "
            "constant size gain too little: let them grow, with momentum."
        )
    return "The margin is within the gap asked for, and the budget was kept."


GRADERS: dict[str, Grader] = {
    "1": _speed_1,
    "2": _speed_2,
    "3": _speed_3,
    "4": _speed_4,
    "5": _speed_5,
}
