"""Graders of the chapter on rates."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from scipy.integrate import quad

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number


def _rates_1(answer: Any) -> str:
    return one_number(
        answer,
        5 / 3,
        right="The exponent of rho in the rate is the coefficient of the iterated logarithm.",
        mistakes={
            1 / 6: "This is the exponent of log t in a single norm.",
            2 / 6: "This is what depth takes away: subtract it from the value without a limit.",
            11 / 6: "Off by a factor in what depth takes away: the gradient is squared.",
            5 / 6: "Off by a factor: the gradient is squared.",
            6.0: "This is the number of layers, which enters the constant.",
            2.0: "This is the limit of infinitely many layers.",
        },
        otherwise="Write d rho/dt as a power of rho times an exponential, and take logarithms.",
    )


def _rates_2(answer: Any) -> str:
    target = 4 * math.log(1e6)
    return one_number(
        answer,
        target,
        right="Squaring t adds log t / gamma.",
        mistakes={
            target / 4: "The margin is missing: this is the growth of gamma rho.",
            target / 16: "Divide by the margin, do not multiply.",
            2 * target: "This is rho at the end, not its growth.",
            24.0: "Use the natural logarithm.",
            6.0: "Use the natural logarithm; and the margin is missing.",
        },
        otherwise="Compare log t / gamma at the two times.",
    )


def _rates_3(answer: Any) -> str:
    target = math.log(0.2)
    return one_number(
        answer,
        target,
        right="Layers, margin, examples and support vectors: each has its part.",
        mistakes={
            math.log(0.1): "The second support vector is missing, or the number of layers.",
            math.log(2.0): "The number of examples is missing: the loss is a mean.",
            math.log(0.1) - math.log(2): "The entropy enters with the other sign.",
            math.log(0.4): "The margin is missing.",
            math.log10(0.2): "Use the natural logarithm.",
            0.2: "Take the logarithm.",
        },
        otherwise="Add the logarithm of the factor in the rate and the entropy of the weights.",
        rel=3e-3,
    )


@functools.cache
def _log_time(m: float, num_layers: int) -> float:
    beta, length = 2 - 2 / num_layers, m - 1.0
    edges = [0.0, *(e for e in (1.0, 5.0, 20.0, 60.0) if e < length), min(length, 200.0)]
    total = sum(
        quad(lambda u: math.exp(-u) * (1 - u / m) ** -beta, a, b, epsabs=0.0, epsrel=1e-12)[0]
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    )
    return m - beta * math.log(m) - math.log(num_layers) + math.log(total)


def _rates_4(answer: Any) -> str:
    for m, num_layers in ((2.0, 1), (3.0, 2), (20.0, 3), (300.0, 4), (5000.0, 2)):
        found = call(answer, m, num_layers, name="log_time")
        value = float(numbers(found, (), "one number"))
        target = _log_time(m, num_layers)
        if close(value, target, rel=0, abs_=1e-6):
            continue
        if num_layers > 1 and close(value, target + math.log(num_layers), rel=0, abs_=1e-6):
            raise Wrong("Off by log K: every layer contributes to the growth.")
        if target < 100 and close(value, math.exp(target), rel=1e-6):
            raise Wrong("This is t; return its logarithm.")
        if close(value, target, rel=0, abs_=0.5):
            raise Wrong("Near, but not exact: leave out no term of the integral.")
        raise Wrong(f"The values differ at m = {m:g} with K = {num_layers}.")
    return "It agrees with adaptive quadrature, also where t leaves the range of float64."


def _rates_5(answer: Any) -> str:
    x = numbers(answer, (2, 2), "two points of the plane, [[a, b], [c, d]]")
    step = x[1] - x[0]
    if not step.any():
        raise Wrong("The points coincide: that is one support vector.")
    second = -(x[0] @ step) / (step @ step)  # the dual weight of the second point
    nearest = x[0] + second * step
    gamma = np.linalg.norm(nearest)
    if not 1e-9 < second < 1 - 1e-9:
        raise Wrong("One of the points carries no weight: both must be support vectors.")
    if gamma < 1e-9:
        raise Wrong("No line through the origin has both points on one side.")
    # u along step, with first weight over second exp(u . step)
    u = math.log((1 - second) / second) / np.linalg.norm(step)
    if abs(u) < 1e-9:
        raise Wrong("The dual weights are equal: the constant is zero.")
    if abs(u) < 2:
        raise Wrong("The constant is not large enough: make the weights more unequal, "
                    "or bring the points closer to each other.")  # fmt: skip
    return "Unequal weights and a short distance leave a large offset across the direction."


GRADERS: dict[str, Grader] = {
    "1": _rates_1,
    "2": _rates_2,
    "3": _rates_3,
    "4": _rates_4,
    "5": _rates_5,
}
