"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.exercises import bezout as graders
from companion.landscape import bezout

a, b, c, x = sp.symbols("a b c x")


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def count(leading):
    unknowns = range(len(leading[0]))
    if any(not any(m) for m in leading):
        return 0
    powers = [[m[i] for m in leading if sum(m) == m[i]] for i in unknowns]
    if not all(powers):
        return None
    box = itertools.product(*(range(min(p)) for p in powers))
    return sum(not any(all(m[i] <= e[i] for i in unknowns) for m in leading) for e in box)


SOLUTIONS = [
    ("1", [16, 4, 2]),
    ("1", (16.0, 4.0, 2.0)),
    ("2", 15**10),
    ("2", 15.0**10),
    ("3", count),
    ("4", 25),
    ("4", sp.Integer(25)),
    ("5", [[1, 0, 1, 0, 0, 1], [1, 0, -1, 0, 0, 0]]),
    ("5", np.array([[1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 1]])),
    ("5", [[1, 0, 1, 0, 0, 1], [1, 0, 2, 0, 0, 7]]),
    ("5", [[1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0]]),
]


MISTAKES = [
    ("1", [4, 4, 2], "roots of one equation"),
    ("1", [8, 4, 2], "do not add"),
    ("1", [2, 4, 2], "two solutions"),
    ("1", [5, 4, 2], "complex fourth root"),
    ("1", [16, 16, 8], "Not all are real"),
    ("1", [16, 2, 1], "real ones is off"),
    ("1", [16, 4, 4], "same function"),
    ("1", [16, 4, 1], "functions is off"),
    ("1", [16, 4.5, 1], "whole numbers"),
    ("1", [16, 4], "Wrong shape"),
    ("2", 8**10, "degree in x"),
    ("2", 2**10, "activation alone"),
    ("2", 16**10, "linear in its own weights"),
    ("2", 14**10, "one more weight"),
    ("2", 4**10, "linear network"),
    ("2", 15, "one equation"),
    ("2", 8, "one equation"),
    ("2", 150, "do not add"),
    ("2", 7, "not the product"),
    ("2", "many", "Wrong type"),
    ("3", lambda m: 4, "Not the number"),
    ("3", lambda m: None, "says None"),
    ("3", lambda m: math.prod(max(k) for k in zip(*m, strict=True)), "mixed"),
    ("3", lambda m: (count(m) or 1) - 1, "One too few"),
    ("3", lambda m: count(m) if any(map(sum, m)) else 1, "nothing is standard"),
    ("3", lambda m: count(m) or 0, "infinitely many"),
    ("3", lambda m: m[9], "raised IndexError"),
    ("3", 4, "the function itself"),
    ("4", 9, "excluded"),
    ("4", 7, "straight line"),
    ("4", -25, "sign"),
    ("4", 16, "cannot"),
    ("4", [25], "Wrong shape"),
    ("5", [[1, 0, 1, 0, 0, -1], [1, 0, -1, 0, 0, 0]], "are real"),
    ("5", [[1, 0, 1, 0, 0, 1], [1, 0, 1, 0, 0, 2]], "at infinity"),
    ("5", [[1, 0, 1, 0, 0, 1], [2, 0, 2, 0, 0, 2]], "share a whole piece"),
    ("5", [[1, 0, 1, 0, 0, 1], [1, 2, 1, 0, 0, 0]], "touch"),
    ("5", [[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]], "must be quadratic"),
    ("5", [[0.5, 0, 1, 0, 0, 1], [1, 0, -1, 0, 0, 0]], "integers"),
    ("5", [[1, 2], [3, 4]], "Wrong shape"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"bezout.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"bezout.{number}", answer))


# --- the solutions are what the package finds ----------------------------------------------------


def test_the_numbers_of_exercises_1_and_4_are_those_of_the_package() -> None:
    quartic = bezout.solve(bezout.interpolation((a * x + b) ** 4, x, [1, 3], [2, 5]), (a, b))
    assert (quartic.count, quartic.real) == (16, 4)
    unit = c * (a * x + b) ** 2
    dimensions = {
        y: bezout.solve(bezout.interpolation(unit, x, [0, 1, 2], [1, 4, y]), (c, a, b)).dimension
        for y in (7, 9, 16, 25, 36)
    }
    assert dimensions == {7: -1, 9: 1, 16: -1, 25: 1, 36: -1}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_the_grader_counts_as_the_package_does(leading: list[tuple[int, int]]) -> None:
    assert graders._standard(leading) == count(leading)
    found = bezout.solve([a**i * b**j for i, j in leading], (a, b))
    assert found.count == count(leading)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=2, max_size=2))
def test_exercise_5_agrees_with_the_package(rows: list[list[int]]) -> None:
    monomials = (a**2, a * b, b**2, a, b, 1)
    equations = [sum(k * m for k, m in zip(row, monomials, strict=True)) for row in rows]
    correct = exercises.check("bezout.5", rows).correct
    if not all(any(row[:3]) for row in rows):
        assert not correct
        return
    found = bezout.solve(equations, (a, b))
    assert correct == (found.count == found.distinct == 4 and found.real == 0)


ANSWERS = {"bezout.1": (16, 4, 2), "bezout.2": (15, 15**10), "bezout.4": (25,)}


@settings(max_examples=25)
@given(
    st.lists(st.integers(-3, 20), min_size=3, max_size=3)
    | st.integers(-3, 20)
    | st.text(max_size=3),
    st.sampled_from(sorted(ANSWERS)),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.?\d*", verdict.reason):
        assert float(number) not in ANSWERS[exercise_id]
