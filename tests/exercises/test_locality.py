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
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.local_networks import LocalNetwork
from companion.exercises import locality as graders

PARAMETERS = [375, 100, 1621]
TREES, LEAST = 315, 2702


def reason(number: int, answer: object) -> str:
    verdict = exercises.check(f"locality.{number}", answer)
    assert not verdict.correct
    return verdict.reason


# --- 1 -------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_networks() -> None:
    tree = Graph.tree(16)
    nets = [
        LocalNetwork(tree, 6),
        LocalNetwork(tree, 6, sharing="level"),
        LocalNetwork(Graph.shallow(16), 90),
    ]
    assert [net.num_params for net in nets] == PARAMETERS


SOLUTIONS = [("1", PARAMETERS), ("1", np.array(PARAMETERS)), ("1", torch.tensor(PARAMETERS))]


MISTAKES = [
    ("1", [375, 100], "Wrong shape"),
    ("1", 375, "Wrong shape"),
    ("1", "375", "Wrong type"),
    ("1", [math.nan, 100, 1621], "Not finite"),
    ("1", [360, 100, 1621], "The constant c_0 of each node is missing .own"),
    ("1", [375, 96, 1621], "The constant c_0 of each node is missing .shared"),
    ("1", [285, 100, 1621], "two weights"),
    ("1", [195, 100, 1621], "all count"),
    ("1", [90, 100, 1621], "counts units"),
    ("1", [400, 100, 1621], "one node less"),
    ("1", [375, 25, 1621], "One function per level"),
    ("1", [375, 375, 1621], "Wrong number for shared weights"),
    ("1", [1, 100, 1621], "Wrong number for own weights"),
    ("1", [375, 100, 1620], "constant c_0 of the shallow"),
    ("1", [375, 100, 1531], "bias and an outer weight"),
    ("1", [375, 100, 1441], "bias and an outer weight"),
    ("1", [375, 100, 361], "Wrong number for the shallow"),
]


# --- 2 -------------------------------------------------------------------------------------------


def canonical(graph: Graph, value: int) -> object:
    """The tree below a value, up to the order in which nodes read."""
    if value < graph.num_inputs:
        return value
    below = [canonical(graph, p) for p in graph.nodes[value - graph.num_inputs]]
    return tuple(sorted(below, key=repr))


def test_number_of_trees_counted_one_by_one() -> None:
    small = {canonical(g, 6) for g in map(Graph.tree(4).permuted, itertools.permutations(range(4)))}
    assert len(small) == math.factorial(4) // 2**3
    # With 0 in the first place (a symmetry of the tree) 5040 permutations are left.
    tree = Graph.tree(8)
    large = {canonical(tree.permuted((0, *p)), 14) for p in itertools.permutations(range(1, 8))}
    assert len(large) == TREES


SOLUTIONS += [("2", TREES)]


MISTAKES += [
    ("2", 40320, "all permutations"),
    ("2", 128, "divide by it"),
    ("2", 314, "right graph counts"),
    ("2", 2520, "within pairs"),
    ("2", 105, "ways to form pairs"),
    ("2", 20160, "More than one exchange"),
    ("2", -315, "Wrong sign"),
    ("2", 7, "one at each node"),
    ("2", [315], "Wrong shape"),
    ("2", None, "Wrong type"),
]


# --- 3 -------------------------------------------------------------------------------------------


SOLUTIONS += [("3", 2702), ("3", 2702.0), ("3", np.int64(2702)), ("3", torch.tensor(2702))]


MISTAKES += [
    ("3", 2701, "round up"),
    ("3", math.comb(24, 12) / 1001, "an integer"),
    ("3", 2704156, "number of monomials"),
    ("3", 1001, "one tree"),
    ("3", 29716, "n - 1 nodes"),
    ("3", 2477, "one node less"),
    ("3", 245833, "monomials of that degree"),
    ("3", -2702, "Wrong sign"),
    ("3", 3, "Divide the dimension"),
    ("3", "2702", "Wrong type"),
]


# --- 4 -------------------------------------------------------------------------------------------


def solution(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


SOLUTIONS += [
    ("4", solution),
    ("4", np.logaddexp),
    ("4", lambda a, b: torch.logsumexp(torch.tensor([a, b], dtype=torch.float64), 0)),
]


MISTAKES += [
    ("4", lambda a, b: math.log(math.exp(a) + math.exp(b)), "range of floating point"),
    ("4", lambda a, b: np.log(np.exp(a) + np.exp(b)), "Not finite"),
    ("4", lambda a, b: a + math.log1p(math.exp(b - a)), "range of floating point"),
    ("4", max, "maximum itself"),
    ("4", lambda a, b: a + b, "sum of the arguments"),
    ("4", lambda a, b: math.exp(a) + math.exp(b), "The logarithm is missing"),
    ("4", lambda a, b: solution(a, b) - math.log(2), "not their mean"),
    ("4", lambda a, b: a * b, "What do two subtrees hand"),
    ("4", lambda a, b: solution(a, b) + (1e-3 if abs(a) > 100 else 0), "inaccurate"),
    ("4", lambda a, b: (a, b), "Wrong shape"),
    ("4", lambda a: a, "raised TypeError"),
    ("4", 3.0, "Wrong type"),
]


# --- 5 -------------------------------------------------------------------------------------------


def find_pairs(gradient, n: int) -> list[tuple[int, int]]:
    pairs = []
    for i, j in itertools.combinations(range(n), 2):
        x = np.random.default_rng(1).uniform(-1, 1, (200, n))
        x[:, [i, j]] = 0.3, -0.4
        d = gradient(x)[:, [i, j]]
        cross = d[:, 0] * d[0, 1] - d[:, 1] * d[0, 0]
        if abs(cross).max() < 1e-9 * abs(d).max() ** 2:
            pairs.append((i, j))
    return pairs


SOLUTIONS += [
    ("5", find_pairs),
    ("5", lambda g, n: np.array(find_pairs(g, n))),
    ("5", lambda g, n: [[j, i] for i, j in find_pairs(g, n)]),
    ("5", lambda g, n: {frozenset(p) for p in find_pairs(g, n)}),
]


def test_gradient_of_the_unknown_function_is_that_of_a_composition() -> None:
    gradient, pairs = graders._unknown(8, seed=1)
    rng = np.random.default_rng(1)
    order, signs = rng.permutation(8), rng.choice([-1.0, 1.0], (7, 4)) * [1.0, 0.8, 0.5, 0.3]

    def sine(c):
        return lambda a, b: torch.sin(c[0] * a * b + c[1] * a + c[2] * b + c[3])

    f = Compositional(Graph.tree(8).permuted(order.tolist()), tuple(map(sine, signs.tolist())))
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(3, 8).requires_grad_()
    (expected,) = torch.autograd.grad(f(x).sum(), x)
    np.testing.assert_allclose(gradient(x.detach().numpy()), expected.numpy(), atol=1e-13)
    assert pairs == {frozenset(nodes) for nodes in f.graph.nodes[:4]}


MISTAKES += [
    ("5", lambda g, n: [(i, i + 1) for i in range(0, n, 2)], "neighbours"),
    ("5", lambda g, n: [(i, n - 1 - i) for i in range(n // 2)], "No pair is right"),
    ("5", lambda g, n: [(i + 1, j + 1) for i, j in find_pairs(g, n)], "Count the inputs from 0"),
    ("5", lambda g, n: find_pairs(g, n)[:-1], "exactly one pair"),
    ("5", lambda g, n: find_pairs(g, n) + [(0, 1)], "exactly one pair"),
    ("5", lambda g, n: [tuple(range(n))], "pairs of integers"),
    ("5", lambda g, n: [(0.5, 1)], "pairs of integers"),
    ("5", lambda g, n: 3, "list of pairs"),
    ("5", lambda g, n: "0,1", "list of pairs"),
    ("5", lambda g, n: g(np.zeros((2, n + 1))), "raised ValueError: x must have shape"),
    ("5", lambda g: [], "raised TypeError"),
    ("5", [(0, 1)], "Wrong type: give the function itself, find_pairs"),
]


def mixed(gradient, n: int) -> list[tuple[int, int]]:
    (a, b), (c, d), *rest = find_pairs(gradient, n)
    return [(a, c), (b, d), *rest] if n == 8 else [(a, b), (c, d)]


MISTAKES += [("5", mixed, r"Some pairs are right, but not all \(a function of 8 inputs\)")]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"locality.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(int(number), answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.integers(-3000, 3000) | st.lists(st.integers(0, 1700), min_size=3, max_size=3) | st.text(),
    st.sampled_from([1, 2, 3]),
)
def test_no_message_holds_an_answer(answer: object, number: int) -> None:
    verdict = exercises.check(f"locality.{number}", answer)
    known = {*PARAMETERS, TREES, LEAST}
    assert not known & {int(digits) for digits in re.findall(r"\d+", verdict.reason)}
