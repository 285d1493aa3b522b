"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import mpmath
import numpy as np
import pytest

from companion import exercises


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"rates.{number}", answer)
    assert not verdict.correct
    return verdict.reason


def log_time(m: float, num_layers: int) -> mpmath.mpf:
    """With mpmath, which has no smallest or largest number to speak of."""
    beta = 2 - mpmath.mpf(2) / num_layers
    edges = [1, *(m - u for u in (200, 60, 20, 5, 1) if m - u > 1), m]
    return mpmath.log(mpmath.quad(lambda s: mpmath.exp(s) * s**-beta, edges) / num_layers)


def by_quadrature(m: float, num_layers: int) -> float:
    beta, u = 2 - 2 / num_layers, np.polynomial.legendre.leggauss(40)
    total, low = 0.0, 0.0
    for high in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0):
        high = min(high, m - 1)
        at = low + (high - low) * (u[0] + 1) / 2
        total += (high - low) / 2 * float(u[1] @ (np.exp(-at) * (1 - at / m) ** -beta))
        low = high
    return m - beta * math.log(m) - math.log(num_layers) + math.log(total)


SOLUTIONS = [
    ("1", 5 / 3),
    ("2", 4 * math.log(1e6)),
    ("2", 55.3),
    ("3", -1.609),
    ("4", by_quadrature),
    ("4", lambda m, K: float(log_time(m, K))),
    ("5", [[1.0, 0.5], [1.0, -0.05]]),
    ("5", [[0.5, 1.0], [-0.05, 1.0]]),
]


MISTAKES = [
    ("1", 1 / 6, "single norm"),
    ("1", 5 / 6, "squared"),
    ("1", 11 / 6, "squared"),
    ("1", 1 / 3, "what depth takes away"),
    ("1", 6, "number of layers"),
    ("1", 2, "infinitely many layers"),
    ("1", -5 / 3, "Wrong sign"),
    ("1", 7.0, "power of rho"),
    ("2", math.log(1e6), "margin is missing"),
    ("2", math.log(1e6) / 4, "do not multiply"),
    ("2", 8 * math.log(1e6), "not its growth"),
    ("2", 24, "natural logarithm"),
    ("2", 6, "natural logarithm; and"),
    ("2", 1.0, "at the two times"),
    ("3", math.log(0.1), "second support vector"),
    ("3", math.log(2), "number of examples"),
    ("3", math.log(0.05), "entropy enters"),
    ("3", math.log(0.4), "margin is missing"),
    ("3", math.log10(0.2), "natural logarithm"),
    ("3", 0.2, "Take the logarithm"),
    ("3", 3.0, "Add the logarithm"),
    ("3", 1.609, "Wrong sign"),
    ("4", 3.0, "give the function itself"),
    ("4", lambda m, K: float(log_time(m, K)) + math.log(K), "log K"),
    ("4", lambda m, K: math.exp(float(log_time(m, K))), "return its logarithm"),
    ("4", lambda m, K: m - (2 - 2 / K) * math.log(m) - math.log(K), "Near, but not exact"),
    ("4", lambda m, K: math.log(m), "differ"),
    ("5", [[1.0, 1.0], [1.0, 1.0]], "coincide"),
    ("5", [[1.0, 0.5], [1.0, 0.05]], "carries no weight"),
    ("5", [[1.0, 1.0], [1.0, -1.0]], "equal"),
    ("5", [[1.0, 1.0], [1.0, -2.0]], "not large enough"),
    ("5", [[1.0, 0.0], [-1.0, 0.0]], "No line"),
    ("5", [1.0, 2.0], "Wrong shape"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"rates.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))
