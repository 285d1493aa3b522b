"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.approximation import counting
from companion.approximation.compositional import Graph
from companion.exercises import counting as graders

THREE = Graph.tree(27, arity=3)
COUNTS = [130, 8, 106]
OCCUR = [True, True, False, True, False, False]
DEGREE = 375
EXTRA = (2, ((0, 1), (0, 2)))


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- counting.1: three counts of a ternary tree --------------------------------------------------


def test_the_counts_are_those_of_the_library() -> None:
    assert COUNTS == [
        counting.num_units(THREE, 2),
        counting.composed_degree(THREE, 2),
        counting.family_dimension(THREE, 2),
    ]


SOLUTIONS = [
    ("1", COUNTS),
    ("1", tuple(COUNTS)),
    ("1", np.array(COUNTS)),
    ("1", torch.tensor(COUNTS)),
]


MISTAKES = [
    ("1", [130, 8], "Wrong shape"),
    ("1", "130", "Wrong type"),
    ("1", [math.nan, 8, 106], "Not finite"),
    ("1", [13 * 6, 8, 106], "three arguments"),
    ("1", [260, 8, 106], "fewer nodes than a binary one"),
    ("1", [26 * 6, 8, 106], "this is the binary tree"),
    ("1", [90, 8, 106], "lowest level"),
    ("1", [math.comb(29, 2), 8, 106], "shallow network"),
    ("1", [13, 8, 106], "number of nodes"),
    ("1", [10, 8, 106], "single node"),
    ("1", [131, 8, 106], "Units: multiply"),
    ("1", [130, 2, 106], "degree of one constituent"),
    ("1", [130, 6, 106], "does not add them"),
    ("1", [130, 2**13, 106], "on one path"),
    ("1", [130, 16, 106], "not a level of nodes"),
    ("1", [130, 4, 106], "one level is missing"),
    ("1", [130, 27, 106], "Degree: raise k"),
    ("1", [130, 8, 130], "without changing the function"),
    ("1", [130, 8, 104], "the output's value"),
    ("1", [130, 8, 118], "scaled and shifted"),
    ("1", [130, 8, 80], "fewer internal edges"),
    ("1", [130, 8, 94], "two parameters"),
    ("1", [130, 8, 100], "Dimension: subtract"),
]


# --- counting.2: monomials that cannot occur -----------------------------------------------------


def test_the_occurring_monomials_are_those_of_the_library() -> None:
    orders = [counting.monomial_order(Graph.tree(4), 3, row) for row in graders.MONOMIALS]
    assert [order <= 1 for order in orders] == OCCUR


SOLUTIONS += [("2", OCCUR), ("2", [1, 1, 0, 1, 0, 0]), ("2", np.array(OCCUR))]


MISTAKES += [
    ("2", OCCUR[:5], "Wrong shape"),
    ("2", "yes", "Wrong type"),
    ("2", [2, 1, 0, 1, 0, 0], "Give True"),
    ("2", [True] * 6, "Round up"),
    ("2", [False] * 6, "may exceed 3"),
    ("2", [True, True, False, True, True, True], "The degree alone does not decide"),
    ("2", [not value for value in OCCUR], "turned around"),
    ("2", [True, True, False, True, True, False], "Wrong are 1 of the 6"),
]


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_counting_2_accepts_nothing_else(answer: list[bool]) -> None:
    assert exercises.check("counting.2", answer).correct == (answer == OCCUR)


# --- counting.3: when is the leading term good? --------------------------------------------------


def excess(k: int) -> float:
    return math.prod(1 + i / k for i in range(1, 9)) - 1


def test_the_degree_is_the_first() -> None:
    assert excess(DEGREE) < 0.1 <= excess(DEGREE - 1)


SOLUTIONS += [
    ("3", DEGREE),
    ("3", float(DEGREE)),
    ("3", np.int64(DEGREE)),
    ("3", torch.tensor(DEGREE)),
]


MISTAKES += [
    ("3", DEGREE - 1, "still above"),
    ("3", DEGREE + 1, "a smaller degree does it"),
    ("3", 360, "to first order"),
    ("3", next(k for k in itertools.count(1) if excess(k) < 1), "a factor of 2"),
    ("3", next(k for k in itertools.count(1) if excess(k) < 0.01), "one per cent"),
    ("3", next(k for k in itertools.count(1) if 1 / (1 + excess(k)) > 0.9), "relative to"),
    ("3", 45, "Multiply the factors"),
    ("3", [DEGREE], "Wrong shape"),
    ("3", "many", "Wrong type"),
]


# --- counting.4: the chain -----------------------------------------------------------------------


def occurs(powers: tuple[int, ...], k: int) -> bool:
    order = powers[0]
    for power in powers[1:]:
        order = math.ceil((order + power) / k)
    return order <= 1


def with_the_companion(powers: tuple[int, ...], k: int) -> bool:
    n = len(powers)
    chain = Graph(n, ((0, 1), *((n + i - 1, i + 1) for i in range(1, n - 1))))
    return counting.monomial_order(chain, k, powers) <= 1


SOLUTIONS += [
    ("4", occurs),
    ("4", with_the_companion),
    ("4", lambda powers, k: np.bool_(occurs(powers, k))),
]


def balanced(powers: tuple[int, ...], k: int) -> bool:
    return counting.monomial_order(Graph.tree(len(powers)), k, powers) <= 1


def rounded_down(powers: tuple[int, ...], k: int) -> bool:
    order = powers[0]
    for power in powers[1:]:
        order = (order + power) // k
    return order <= 1


def raises(powers: tuple[int, ...], k: int) -> bool:
    raise KeyError("mine")


MISTAKES += [
    ("4", balanced, "balanced tree"),
    ("4", rounded_down, "Round up, not down"),
    ("4", lambda powers, k: sum(powers) <= k ** (len(powers) - 1), "The degree alone"),
    ("4", lambda powers, k: sum(powers) <= k, "may exceed k"),
    ("4", lambda powers, k: not occurs(powers, k), "turned around"),
    ("4", lambda powers, k: powers[0] <= k, "Wrong for"),
    ("4", lambda powers, k: True, "Wrong for"),
    ("4", lambda powers, k: 0.5, "Wrong type"),
    ("4", lambda powers, k: None, "Wrong type"),
    ("4", lambda powers, k: np.array([True, False]), "Wrong type"),
    ("4", lambda powers: True, "raised TypeError"),
    ("4", raises, "raised KeyError"),
    ("4", True, "Wrong type"),
]


def test_the_cases_of_counting_4_are_mixed() -> None:
    cases = graders._cases()
    right = sum(occurs(*case) for case in cases)
    assert 0.2 * len(cases) < right < 0.8 * len(cases)


# --- counting.5: more freedom --------------------------------------------------------------------


SOLUTIONS += [
    ("5", EXTRA),
    ("5", [2, [[0, 1], [0, 2]]]),
    ("5", (np.int64(3), np.array([[0, 1], [0, 3], [2, 4]]))),
    ("5", (2, ((0, 1), (0, 1), (2, 3)))),
    ("5", (4, ((0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 2, 5), (0, 1, 2, 6), (0, 1, 2, 7)))),
]


MISTAKES += [
    ("5", (4, ((0, 1), (2, 3), (4, 5))), "This is a tree"),
    ("5", (3, ((0, 1, 2),)), "This is a tree"),
    ("5", (3, ((0, 1), (1, 2), (3, 4))), "Sharing a value is not enough"),
    ("5", (5, ((0, 1), (2, 3), (4, 5), (6, 7))), "at most 4 inputs"),
    ("5", (2, ()), "at most 4 inputs"),
    ("5", (2, ((0, 0), (1, 2))), "must read different values"),
    ("5", (2, ((0, 3), (1, 2))), "must read different values"),
    ("5", (2, ((0,), (0, 2))), "every value but the last must be read"),
    ("5", ((0, 1), (0, 2)), "Wrong type"),
    ("5", (2, ((0, 0.5), (0, 2))), "Wrong type"),
    ("5", 7, "Wrong type"),
    ("5", None, "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"counting.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"counting.{number}", answer))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    n = draw(st.integers(1, 3))
    nodes = []
    for j in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, min(3, n + j)))
        nodes.append(tuple(draw(st.permutations(range(n + j)))[:size]))
    unread = set(range(n + len(nodes) - 1)) - {value for node in nodes[:-1] for value in node}
    nodes[-1] = tuple(sorted(set(nodes[-1]) | unread))
    return Graph(n, tuple(nodes))


@settings(deadline=None, max_examples=25)
@given(graphs())
def test_counting_5_finds_the_rank_of_the_library(graph: Graph) -> None:
    tables = [graders._exponents(len(node), 2) for node in graph.nodes]
    rank = graders._rank(graders._derivatives(graph.num_inputs, graph.nodes, tables))
    assert rank == counting.jacobian_rank(graph, 2, seed=0)
    extra = rank < counting.num_units(graph, 2) - 2 * (graph.num_nodes - 1)
    assert exercises.check("counting.5", (graph.num_inputs, graph.nodes)).correct == extra


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 200), min_size=3, max_size=3) | st.integers(1, 5000),
    st.sampled_from(["counting.1", "counting.3"]),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    numbers = {float(number) for number in re.findall(r"\d+\.?\d*", verdict.reason)}
    secret = {130.0, 106.0} if exercise_id == "counting.1" else {float(DEGREE)}
    assert verdict.correct or not numbers & secret


def test_graders_are_five() -> None:
    assert list(graders.GRADERS) == ["1", "2", "3", "4", "5"]
