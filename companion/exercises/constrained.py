"""Graders of the chapter on constrained and unconstrained dynamics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_POINTS = np.array([[1.0, 1.0], [1.0, -2.0], [3.0, 0.0]])  # all labels are +1


def _constrained_1(answer: Any) -> str:
    margins = _POINTS @ np.array([1.0, 0.0])
    mean = float(np.mean(np.exp(-margins) * margins))
    return one_number(
        answer,
        mean / 2,
        right="It is half the mean of the margins, each weighted by its own loss.",
        mistakes={
            mean: "Off by a factor: the constraint is on the square of the norm.",
            3 * mean / 2: "Off by a factor: the loss is a mean over the samples.",
            3 * mean: "Two factors are missing: the mean, and the one from the squared norm.",
            float(np.mean(np.exp(-margins))) / 2: "The margin is missing as a factor.",
        },
        otherwise="Not the multiplier: insert the three margins into its formula.",
    )


def _constrained_2(answer: Any) -> str:
    start, end = 4.0 - 1.0, 1.03 - 1.0
    right = math.log(start / end) / 2
    return one_number(
        answer,
        right,
        right="The excess over 1 decays exponentially.",
        mistakes={
            2 * right: "Off by a factor: it is the squared norm that obeys the equation.",
            4 * right: "Off by a factor: the rate stands in the numerator of the exponent.",
            math.log(1 / (1.03**0.5 - 1)): "The equation is that of the squared norm.",
            math.log(1 / (1.03**0.5 - 1)) / 2: "The equation is that of the squared norm.",
            math.log(4 / 1.03) / 2: "It is the excess over 1 that decays, not the squared norm.",
            right / math.log(10): "Use the natural logarithm.",
        },
        otherwise="Not that time: write down the equation for the squared norm minus one.",
    )


def _constrained_3(answer: Any) -> str:
    length = 4.0
    c = -math.log(length) / (1 + length)
    return one_number(
        answer,
        c,
        right="The longer pull gets the smaller weight.",
        mistakes={
            -math.log(length): "The exponents of both points move with this number.",
            -math.log(length) / length: "The exponent of the shorter point moves, too.",
            -math.log(2) / 3: "This is the constant of the three points of the text.",
            -math.log(length) / (length - 1): "The exponents have opposite signs.",
            0.0: "With equal weights the longer pull wins: the direction has to lean.",
        },
        otherwise="Not the limit: balance the two pulls across the direction (1, 0).",
    )


def _constrained_4(answer: Any) -> str:
    import torch

    rng = np.random.default_rng(7)
    for num, d, rho in ((6, 4, 1.7), (5, 5, 0.4), (1, 3, 3.0)):
        x, v = rng.normal(size=(num, d)), rng.normal(size=d)
        y, v = np.where(np.arange(num) % 2, 1.0, -1.0), v / np.linalg.norm(v)
        tensors = [torch.tensor(part, dtype=torch.float64) for part in (x, y, v)]
        found = call(answer, tensors[0], tensors[1], rho, tensors[2], name="dynamics_b")
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise Wrong("Wrong shape: return a pair, the rate of rho and the rate of v.")
        _grade_rates(found, x, y, rho, v)
    return "Both rates agree with the derivatives of the loss, on the sphere."


def _grade_rates(found: Any, x: np.ndarray, y: np.ndarray, rho: float, v: np.ndarray) -> None:
    """Compare one answer of exercise 4 with the equations, and name the mistake."""
    margins = y * (x @ v)
    loss = np.exp(-rho * margins)
    rate, gradient = (loss * margins).mean(), y[:, None] * x
    turn = rho * ((loss[:, None] * (gradient - margins[:, None] * v)).mean(axis=0))
    rho_dot = float(numbers(found[0], (), "one number for the rate of rho"))
    v_dot = numbers(found[1], v.shape, "an array of shape (d,) for the rate of v")
    if not close(rho_dot, rate, rel=1e-9, abs_=1e-12):
        for value, why in (
            (-rate, "Wrong sign of the rate of rho: the flow goes downhill."),
            (rate * len(y), "The rate of rho is a mean over the samples, not a sum."),
            (rate * rho, "The rate of rho has a factor rho too many: with one layer it cancels."),
        ):
            if close(rho_dot, value, rel=1e-9, abs_=1e-12):
                raise Wrong(why)
        raise Wrong("The rate of rho is not minus the derivative of the loss.")
    if close(v_dot, turn, rel=1e-9, abs_=1e-12):
        return
    for value, why in (
        (-turn, "Wrong sign of the rate of v: the flow goes downhill."),
        (turn / rho, "The factor rho is missing in the rate of v."),
        (turn / rho**2, "This is the direction of the unconstrained flow: another power of rho."),
        (turn * len(y), "The rate of v is a mean over the samples, not a sum."),
        (rho * (loss[:, None] * gradient).mean(axis=0), "The part of the rate along v is left."),
    ):
        if close(v_dot, value, rel=1e-9, abs_=1e-12):
            raise Wrong(why)
    if not close(v_dot @ v, 0.0, rel=0, abs_=1e-9):
        raise Wrong("The rate of v is not orthogonal to v, so the norm would change.")
    raise Wrong("The rate of v is orthogonal to v, but not the projected gradient of the loss.")


def _resting_angle(v: np.ndarray, rho: float) -> float:
    """Angle at which dynamics A ends: on a circle the flow runs downhill to the next minimum."""
    grid = math.atan2(v[1], v[0]) + np.linspace(0, 2 * math.pi, 7201)  # a step of 1/20 degree
    margins = np.stack([np.cos(grid), np.sin(grid)], axis=1) @ _POINTS.T
    log_loss = np.logaddexp.reduce(-rho * margins, axis=1)
    at, n = 0, len(grid) - 1
    step = 1 if log_loss[1] < log_loss[n - 1] else -1
    while log_loss[(at + step) % n] < log_loss[at % n]:
        at += step
    return float(grid[at % n])


def _constrained_5(answer: Any) -> str:
    v = numbers(answer, (2,), "two numbers, v_1 and v_2")
    if np.linalg.norm(v) == 0:
        raise Wrong("Zero has no direction.")
    angle = _resting_angle(v, 20.0)
    margins = _POINTS @ np.array([math.cos(angle), math.sin(angle)])
    if margins.min() < 0:
        return "From there the flow comes to rest with a point on the wrong side."
    if (_POINTS @ v).min() > 0:
        raise Wrong("This direction separates the data already, and the flow keeps it so.")
    raise Wrong(
        "From there the flow finds a separating direction. Look for the second minimum of the "
        "loss on the circle, and start near it."
    )


GRADERS: dict[str, Grader] = {
    "1": _constrained_1,
    "2": _constrained_2,
    "3": _constrained_3,
    "4": _constrained_4,
    "5": _constrained_5,
}
