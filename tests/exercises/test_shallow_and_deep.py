"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.widths import _shells
from companion.exercises import shallow_and_deep as graders

THETA = math.pi * (1 + 10**2 + 10**3 + 10**5)


def lattice_points(n: int, s: int) -> int:
    return int(sum(_shells(n, s).tolist()))


def of_one_orthant(n: int, s: int) -> int:
    shells = [1] + [0] * s
    for _ in range(n):
        roots = range(math.isqrt(s) + 1)
        shells = [sum(shells[t - j * j] for j in roots if j * j <= t) for t in range(s + 1)]
    return sum(shells)


SOLUTIONS = [("1", [256, 4]), ("2", 1 / 8), ("3", 9), ("4", THETA), ("5", lattice_points)]


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"shallow_and_deep.{number}", answer)
    assert not verdict.correct
    return verdict.reason


MISTAKES = [
    ("1", [4, 256], "swapped"),
    ("1", [1 / 256, 1 / 4], "Upside down"),
    ("1", [8, 2], "exponents"),
    ("1", [256, 28], "cancels"),
    ("1", [256, 3], "the other is not"),
    ("1", [3, 4], "of the tree is right"),
    ("1", [3, 3], "Divide the bound"),
    ("1", 256, "Wrong shape"),
    ("2", 0.25, "subtract the best constant"),
    ("2", 0, "quadratic polynomial"),
    ("2", 0.5, "Half the range"),
    ("2", 1.0, "zero function"),
    ("2", 0.3, "Chebyshev"),
    ("2", -0.125, "Wrong sign"),
    ("3", 8, "output is a node"),
    ("3", 3, "values are one"),
    ("3", 4, "lower nodes is missing"),
    ("3", 6, "lower nodes is missing"),
    ("3", 5, "add their contributions"),
    ("3", 15, "not its sensitivity"),
    ("3", 11, "Add the derivatives"),
    ("4", -THETA, "negated"),
    ("4", math.pi * (1 + 10 + 10**4), "negated"),
    ("4", math.pi * (1 + 10 + 10**3 + 10**4), "reverse order"),
    ("4", THETA - math.pi, "is zero"),
    ("4", THETA / math.pi, "signs are wrong"),
    ("4", math.pi * 1e5, "is zero"),
    ("4", 1.0, "signs are wrong"),
    ("4", "pi", "Wrong type"),
    ("5", lambda n, s: int(_shells(n, s)[s]), "sphere"),
    ("5", lambda n, s: lattice_points(n, s) - int(_shells(n, s)[s]), "belong to the count"),
    ("5", lambda n, s: lattice_points(n, s * s), "squared norm"),
    ("5", of_one_orthant, "may be negative"),
    ("5", lambda n, s: float(lattice_points(n, s)), "whole number"),
    ("5", lambda n, s: 1, "The count is wrong for n = 3"),
    ("5", lambda n: 1, "raised TypeError"),
    ("5", 3, "give the function itself"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"shallow_and_deep.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))


def test_answers_agree_with_the_package() -> None:
    import torch

    tree = Compositional(Graph.tree(4), lambda a, b: a * b)
    assert tree.amplification(torch.tensor([graders._POINT], dtype=torch.float64)) == 9
    for n, s in itertools.product((1, 2, 5), (0, 3, 11)):
        assert graders._shells(n, s) == _shells(n, s).tolist()


@settings(max_examples=25)
@given(st.floats(-10, 300) | st.lists(st.floats(-10, 300), min_size=2, max_size=2))
def test_no_message_holds_an_answer(answer: object) -> None:
    for number, right in (("1", (256, 4)), ("2", (0.125,)), ("3", (9,)), ("4", (THETA,))):
        verdict = exercises.check(f"shallow_and_deep.{number}", answer)
        found = {float(value) for value in re.findall(r"\d+\.?\d*", verdict.reason)}
        assert verdict.correct or not found & set(right)
