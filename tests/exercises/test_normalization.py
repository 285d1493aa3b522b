"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises

ANSWERS = {"1": math.sqrt(29), "2": 2 / 3, "3": 1.2}


def reason(exercise: str, answer: object) -> str:
    verdict = exercises.check(f"normalization.{exercise}", answer)
    assert not verdict.correct
    return verdict.reason


def velocity(g, v, G):  # noqa: ANN001, ANN201, N803
    size = np.linalg.norm(v, axis=1)
    unit = v / size[:, None]
    along = (unit * G).sum(axis=1)
    return along, (g / size)[:, None] * (G - along[:, None] * unit)


SOLUTIONS = [
    *ANSWERS.items(),
    ("1", np.float64(ANSWERS["1"])),
    ("4", velocity),
    ("5", lambda n: 1.0 if n == 0 else 0.0),
    ("5", lambda n: 0.5**n),
]


def test_answers_by_exact_computation() -> None:
    """The partial products up to m are 2/3 (m + 1) / m; the eigenvalues are roots of a cubic."""
    product = Fraction(1)
    for k in range(3, 60):
        product *= 1 - Fraction(1, k * k)
        assert product == Fraction(2, 3) * Fraction(k + 1, k)
    w = sympy.symbols("a b c")
    hessian = sympy.hessian((w[0] * w[1] * w[2] - 1) ** 2, w).subs(
        dict(zip(w, (1, 1, 0), strict=True))
    )
    values = sympy.roots(hessian.charpoly().as_expr())
    assert max(abs(1 - value / 10) for value in values) == sympy.Rational(6, 5)


def with_v_dot(change):  # noqa: ANN001, ANN201
    """The right g_dot with another v_dot."""

    def wrong(g, v, G):  # noqa: ANN001, ANN202, N803
        unit = v / np.linalg.norm(v, axis=1)[:, None]
        along = (unit * G).sum(axis=1)
        return along, change(g, v, G, along, G - along[:, None] * unit)

    return wrong


MISTAKES = [
    ("1", 29, "squared norm"),
    ("1", 7, "parallel"),
    ("1", 5, "before the step"),
    ("1", math.sqrt(21), "Wrong sign"),
    ("1", math.sqrt(125), "Off by the step size"),
    ("1", math.sqrt(45), "enters squared"),
    ("1", 1.0, "minus lr times"),
    ("1", -math.sqrt(29), "Wrong sign"),
    ("1", "5.4", "Wrong type"),
    ("2", 1 / 2, "too early"),
    ("2", 3 / 4, "too late"),
    ("2", 1 / 3, "lost"),
    ("2", math.exp(-sum(1 / k**2 for k in range(3, 10**4))), "only an approximation"),
    ("2", 0, "infinite"),
    ("2", 1, "takes something away"),
    ("2", 0.9, "Not the infinite product"),
    ("3", 4, "eigenvalue of the Hessian"),
    ("3", 1.4, "Wrong sign"),
    ("3", 0.6, "another direction"),
    ("3", 1, "negative eigenvalue"),
    ("3", 1 + 0.2 * math.sqrt(2), "product of gradients"),
    ("3", 7.0, "largest absolute eigenvalue"),
    ("3", [1.2], "Wrong shape"),
    ("4", 3, "Wrong type"),
    ("4", lambda g, v, G: G, "pair"),
    ("4", lambda g, v, G: (velocity(g, v, G)[0], g), "Wrong shape"),
    ("4", lambda g, v, G: (-velocity(g, v, G)[0], v), "Wrong sign of g_dot"),
    ("4", lambda g, v, G: ((v * G).sum(axis=1), velocity(g, v, G)[1]), "not divided"),
    ("4", lambda g, v, G: (0 * g, v), "not the part"),
    ("4", lambda g, v, G: (velocity(g, v, G)[0], -velocity(g, v, G)[1]), "sign of v_dot"),
    ("4", lambda g, v, G: (velocity(g, v, G)[0], g[:, None] * G), "not orthogonal"),
    ("4", lambda g, v, G: (velocity(g, v, G)[0], velocity(1 + 0 * g, v, G)[1]), "missing"),
    ("4", lambda g, v, G: (velocity(g, v, G)[0], 2 * velocity(g, v, G)[1]), "wrong length"),
    ("4", with_v_dot(lambda g, v, G, along, across: g[:, None] * across), "not divided"),
    ("4", with_v_dot(lambda g, v, G, along, across: along[:, None] * v), "row by row"),
    ("4", lambda g: g, "raised TypeError"),
    ("5", 0.5, "Wrong type"),
    ("5", lambda n: 2.0, "leaves"),
    ("5", lambda n: 1 / (n + 2), "schedule of the text"),
    ("5", lambda n: 1 / (n + 2) ** 2, "left in the null space"),
    ("5", lambda n: 0.0, "Without any pull"),
    ("5", lambda n: 0.3, "last weights"),
    ("5", lambda n: [0.1], "Wrong shape"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"normalization.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))


@given(st.sampled_from(sorted(ANSWERS)), st.floats(0.01, 100.0))
@settings(deadline=None, max_examples=60)
def test_only_a_neighbourhood_is_accepted_and_nothing_leaks(exercise: str, factor: float) -> None:
    verdict = exercises.check(f"normalization.{exercise}", factor * ANSWERS[exercise])
    if abs(factor - 1) < 0.9e-3:
        assert verdict.correct
    if abs(factor - 1) > 1.1e-3:
        assert not verdict.correct
        for number in re.findall(r"\d+\.?\d*", verdict.reason):
            assert not math.isclose(float(number), ANSWERS[exercise], rel_tol=0.02)
