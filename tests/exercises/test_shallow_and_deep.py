"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion import exercises
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.widths import _shells
from companion.exercises import shallow_and_deep as graders

THETA = math.pi * (1 + 10**2 + 10**3 + 10**5)


def lattice_points(n: int, s: int) -> int:
    return int(sum(_shells(n, s).tolist()))


SOLUTIONS = {"1": [256, 4], "2": 1 / 8, "3": 9, "4": THETA, "5": lattice_points}


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"shallow_and_deep.{number}", answer)
    assert not verdict.correct
    return verdict.reason


@pytest.mark.parametrize("number", graders.GRADERS)
def test_solution_is_right(number: str) -> None:
    assert exercises.check(f"shallow_and_deep.{number}", SOLUTIONS[number]).correct


@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
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
        ("2", -0.125, "Wrong sign"),
        ("3", 8, "output is a node"),
        ("3", 3, "values are one"),
        ("3", 4, "lower nodes is missing"),
        ("3", 11, "Add the derivatives"),
        ("4", -THETA, "negated"),
        ("4", math.pi * 1e5, "is zero"),
        ("4", 1.0, "signs are wrong"),
        ("4", "pi", "Wrong type"),
        ("5", lambda n, s: int(_shells(n, s)[s]), "sphere"),
        ("5", lambda n, s: lattice_points(n, s) - int(_shells(n, s)[s]), "belong to the count"),
        ("5", lambda n, s: lattice_points(n, s * s), "squared norm"),
        ("5", lambda n, s: float(lattice_points(n, s)), "whole number"),
        ("5", lambda n, s: 1, "The count is wrong for n = 1"),
        ("5", lambda n: 1, "raised TypeError"),
        ("5", 3, "give the function itself"),
    ],
)
def test_mistake_gets_its_reason(number: str, answer: object, said: str) -> None:
    assert said in reason(number, answer)


def test_answers_agree_with_the_package() -> None:
    import torch

    tree = Compositional(Graph.tree(4), lambda a, b: a * b)
    assert tree.amplification(torch.tensor([graders._POINT], dtype=torch.float64)) == 9
    for n, s in itertools.product((1, 2, 5), (0, 3, 11)):
        assert graders._shells(n, s) == _shells(n, s).tolist()


@given(st.floats(-10, 300) | st.lists(st.floats(-10, 300), min_size=2, max_size=2))
def test_no_message_holds_an_answer(answer: object) -> None:
    for number, right in (("1", (256, 4)), ("2", (0.125,)), ("3", (9,)), ("4", (THETA,))):
        verdict = exercises.check(f"shallow_and_deep.{number}", answer)
        found = {float(value) for value in re.findall(r"\d+\.?\d*", verdict.reason)}
        assert verdict.correct or not found & set(right)
