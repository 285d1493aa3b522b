"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest

from companion.exercises._grading import Wrong
from companion.exercises.rates import GRADERS


def log_time(m: float, num_layers: int) -> mpmath.mpf:
    """With mpmath, which has no smallest or largest number to speak of."""
    beta = 2 - mpmath.mpf(2) / num_layers
    edges = [1, *(m - u for u in (200, 60, 20, 5, 1) if m - u > 1), m]
    return mpmath.log(mpmath.quad(lambda s: mpmath.exp(s) * s**-beta, edges) / num_layers)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("1", 5 / 3),
        ("2", 4 * math.log(1e6)),
        ("2", 55.3),
        ("3", -1.609),
        ("4", lambda m, K: float(log_time(m, K))),
        ("5", [[1.0, 0.5], [1.0, -0.05]]),
        ("5", [[0.5, 1.0], [-0.05, 1.0]]),
    ],
)
def test_solutions_are_right(number: str, answer: Any) -> None:
    assert GRADERS[number](answer)


@pytest.mark.parametrize(
    ("number", "answer", "reason"),
    [
        ("1", 1 / 6, "single norm"),
        ("1", 5 / 6, "squared"),
        ("1", 7.0, "power of rho"),
        ("2", math.log(1e6), "margin is missing"),
        ("2", 24, "natural logarithm"),
        ("3", math.log(0.1), "second support vector"),
        ("3", math.log(2), "number of examples"),
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
    ],
)
def test_mistakes_get_their_reason(number: str, answer: Any, reason: str) -> None:
    with pytest.raises(Wrong, match=reason) as caught:
        GRADERS[number](answer)
    for leak in ("5/3", "1.66", "1.67", "55.2", "55.3", "1.609", "0.2"):
        assert leak not in str(caught.value)
