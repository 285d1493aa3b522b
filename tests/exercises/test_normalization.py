"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

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


@pytest.mark.parametrize(("exercise", "answer"), list(ANSWERS.items()))
def test_numbers_are_accepted(exercise: str, answer: float) -> None:
    assert exercises.check(f"normalization.{exercise}", answer).correct
    assert exercises.check(f"normalization.{exercise}", np.float64(answer)).correct


def test_functions_are_accepted() -> None:
    assert exercises.check("normalization.4", velocity).correct
    assert exercises.check("normalization.5", lambda n: 1.0 if n == 0 else 0.0).correct
    assert exercises.check("normalization.5", lambda n: 0.5**n).correct


def test_answers_by_symbolic_computation() -> None:
    m = sympy.Symbol("m", integer=True, positive=True)
    k = sympy.Symbol("k", integer=True, positive=True)
    assert sympy.limit(sympy.product(1 - 1 / k**2, (k, 3, m)), m, sympy.oo) == sympy.Rational(2, 3)
    w = sympy.symbols("a b c")
    hessian = sympy.hessian((w[0] * w[1] * w[2] - 1) ** 2, w).subs(
        dict(zip(w, (1, 1, 0), strict=True))
    )
    assert max(abs(1 - value / 10) for value in hessian.eigenvals()) == sympy.Rational(6, 5)


@pytest.mark.parametrize(
    ("exercise", "answer", "why"),
    [
        ("1", 29, "squared norm"),
        ("1", 7, "parallel"),
        ("1", 5, "before the step"),
        ("1", math.sqrt(21), "Wrong sign"),
        ("1", math.sqrt(125), "Off by the step size"),
        ("1", math.sqrt(45), "enters squared"),
        ("1", -math.sqrt(29), "Wrong sign"),
        ("1", "5.4", "Wrong type"),
        ("2", 1 / 2, "too early"),
        ("2", 3 / 4, "too late"),
        ("2", 1 / 3, "lost"),
        ("2", 0, "infinite"),
        ("2", 1, "takes something away"),
        ("2", 0.9, "Not the infinite product"),
        ("3", 4, "eigenvalue of the Hessian"),
        ("3", 1.4, "Wrong sign"),
        ("3", 0.6, "another direction"),
        ("3", 1, "negative eigenvalue"),
        ("3", 1 + 0.2 * math.sqrt(2), "product of gradients"),
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
        ("4", lambda g: g, "raised TypeError"),
        ("5", 0.5, "Wrong type"),
        ("5", lambda n: 2.0, "leaves"),
        ("5", lambda n: 1 / (n + 2), "null space"),
        ("5", lambda n: 0.0, "null space"),
        ("5", lambda n: 0.3, "last weights"),
        ("5", lambda n: [0.1], "Wrong shape"),
    ],
)
def test_mistakes_are_named(exercise: str, answer: object, why: str) -> None:
    assert why in reason(exercise, answer)


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
