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


@pytest.mark.parametrize("answer", [COUNTS, tuple(COUNTS), np.array(COUNTS), torch.tensor(COUNTS)])
def test_counting_1_accepts_the_solution(answer: object) -> None:
    assert exercises.check("counting.1", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([130, 8], "Wrong shape"),
        ("130", "Wrong type"),
        ([math.nan, 8, 106], "Not finite"),
        ([13 * 6, 8, 106], "three arguments"),
        ([260, 8, 106], "fewer nodes than a binary one"),
        ([26 * 6, 8, 106], "this is the binary tree"),
        ([90, 8, 106], "lowest level"),
        ([math.comb(29, 2), 8, 106], "shallow network"),
        ([13, 8, 106], "number of nodes"),
        ([10, 8, 106], "single node"),
        ([131, 8, 106], "Units: multiply"),
        ([130, 2, 106], "degree of one constituent"),
        ([130, 6, 106], "does not add them"),
        ([130, 2**13, 106], "on one path"),
        ([130, 16, 106], "not a level of nodes"),
        ([130, 4, 106], "one level is missing"),
        ([130, 27, 106], "Degree: raise k"),
        ([130, 8, 130], "without changing the function"),
        ([130, 8, 104], "the output's value"),
        ([130, 8, 118], "scaled and shifted"),
        ([130, 8, 80], "fewer internal edges"),
        ([130, 8, 94], "two parameters"),
        ([130, 8, 100], "Dimension: subtract"),
    ],
)
def test_counting_1_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("counting.1", answer)


# --- counting.2: monomials that cannot occur -----------------------------------------------------


def test_the_occurring_monomials_are_those_of_the_library() -> None:
    orders = [counting.monomial_order(Graph.tree(4), 3, row) for row in graders.MONOMIALS]
    assert [order <= 1 for order in orders] == OCCUR


@pytest.mark.parametrize("answer", [OCCUR, [1, 1, 0, 1, 0, 0], np.array(OCCUR)])
def test_counting_2_accepts_the_solution(answer: object) -> None:
    assert exercises.check("counting.2", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OCCUR[:5], "Wrong shape"),
        ("yes", "Wrong type"),
        ([2, 1, 0, 1, 0, 0], "Give True"),
        ([True] * 6, "Round up"),
        ([False] * 6, "may exceed 3"),
        ([True, True, False, True, True, True], "The degree alone does not decide"),
        ([not value for value in OCCUR], "turned around"),
        ([True, True, False, True, True, False], "1 of the 6 are wrong"),
    ],
)
def test_counting_2_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("counting.2", answer)


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_counting_2_accepts_nothing_else(answer: list[bool]) -> None:
    assert exercises.check("counting.2", answer).correct == (answer == OCCUR)


# --- counting.3: when is the leading term good? --------------------------------------------------


def excess(k: int) -> float:
    return math.prod(1 + i / k for i in range(1, 9)) - 1


def test_the_degree_is_the_first() -> None:
    assert excess(DEGREE) < 0.1 <= excess(DEGREE - 1)


@pytest.mark.parametrize("answer", [DEGREE, float(DEGREE), np.int64(DEGREE), torch.tensor(DEGREE)])
def test_counting_3_accepts_the_solution(answer: object) -> None:
    assert exercises.check("counting.3", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (DEGREE - 1, "still above"),
        (DEGREE + 1, "a smaller degree does it"),
        (360, "to first order"),
        (next(k for k in itertools.count(1) if excess(k) < 1), "a factor of 2"),
        (next(k for k in itertools.count(1) if excess(k) < 0.01), "one per cent"),
        (next(k for k in itertools.count(1) if 1 / (1 + excess(k)) > 0.9), "relative to"),
        (45, "Multiply the factors"),
        ([DEGREE], "Wrong shape"),
        ("many", "Wrong type"),
    ],
)
def test_counting_3_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("counting.3", answer)


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


@pytest.mark.parametrize(
    "answer", [occurs, with_the_companion, lambda powers, k: np.bool_(occurs(powers, k))]
)
def test_counting_4_accepts_solutions(answer: object) -> None:
    assert exercises.check("counting.4", answer).correct


def balanced(powers: tuple[int, ...], k: int) -> bool:
    return counting.monomial_order(Graph.tree(len(powers)), k, powers) <= 1


def rounded_down(powers: tuple[int, ...], k: int) -> bool:
    order = powers[0]
    for power in powers[1:]:
        order = (order + power) // k
    return order <= 1


def raises(powers: tuple[int, ...], k: int) -> bool:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (balanced, "balanced tree"),
        (rounded_down, "Round up, not down"),
        (lambda powers, k: sum(powers) <= k ** (len(powers) - 1), "The degree alone"),
        (lambda powers, k: sum(powers) <= k, "may exceed k"),
        (lambda powers, k: not occurs(powers, k), "turned around"),
        (lambda powers, k: powers[0] <= k, "Wrong for"),
        (lambda powers, k: True, "Wrong for"),
        (lambda powers, k: 0.5, "Wrong type"),
        (lambda powers, k: None, "Wrong type"),
        (lambda powers, k: np.array([True, False]), "Wrong type"),
        (lambda powers: True, "raised TypeError"),
        (raises, "raised KeyError"),
        (True, "Wrong type"),
    ],
)
def test_counting_4_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("counting.4", answer)


def test_the_cases_of_counting_4_are_mixed() -> None:
    cases = graders._cases()
    right = sum(occurs(*case) for case in cases)
    assert 0.2 * len(cases) < right < 0.8 * len(cases)


# --- counting.5: more freedom --------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        EXTRA,
        [2, [[0, 1], [0, 2]]],
        (np.int64(3), np.array([[0, 1], [0, 3], [2, 4]])),
        (2, ((0, 1), (0, 1), (2, 3))),
        (4, ((0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 2, 5), (0, 1, 2, 6), (0, 1, 2, 7))),
    ],
)
def test_counting_5_accepts_solutions(answer: object) -> None:
    assert exercises.check("counting.5", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((4, ((0, 1), (2, 3), (4, 5))), "This is a tree"),
        ((3, ((0, 1, 2),)), "This is a tree"),
        ((3, ((0, 1), (1, 2), (3, 4))), "Sharing a value is not enough"),
        ((5, ((0, 1), (2, 3), (4, 5), (6, 7))), "at most 4 inputs"),
        ((2, ()), "at most 4 inputs"),
        ((2, ((0, 0), (1, 2))), "must read different values"),
        ((2, ((0, 3), (1, 2))), "must read different values"),
        ((2, ((0,), (0, 2))), "every value but the last must be read"),
        (((0, 1), (0, 2)), "Wrong type"),
        ((2, ((0, 0.5), (0, 2))), "Wrong type"),
        (7, "Wrong type"),
        (None, "Wrong type"),
    ],
)
def test_counting_5_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("counting.5", answer)


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
