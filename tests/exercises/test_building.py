"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.approximation import ridge
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.polynomials import Polynomial

WEIGHTS = np.array([400.0, -800.0, 400.0])
FLAT = math.log(2 + math.sqrt(3))


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- building.1: the weights of a square ---------------------------------------------------------


def test_building_1_is_the_network_of_the_companion() -> None:
    net = ridge.ridge_network(Polynomial(((2,),), (1,)), h=0.1, bias=0.0)
    np.testing.assert_allclose([float(c) for c in net.outer], WEIGHTS)


SOLUTIONS = [("1", WEIGHTS), ("1", [400, -800, 400]), ("1", torch.tensor(WEIGHTS))]


MISTAKES = [
    ("1", [400, -800], "Wrong shape"),
    ("1", "400", "Wrong type"),
    ("1", [400, -800, math.nan], "Not finite"),
    ("1", [400, 800, 400], "sum to zero"),
    ("1", [0, -400, 400], "linear parts"),
    ("1", [0, 0, 0], "All weights are zero"),
    ("1", -WEIGHTS, "Wrong sign"),
    ("1", WEIGHTS / 2, "has the second derivative 2"),
    ("1", 2 * WEIGHTS, "the Taylor term"),
    ("1", WEIGHTS / 4, "which is not 1"),
    ("1", WEIGHTS / 16, "do not multiply"),
    ("1", WEIGHTS / 100, r"divide by h\^2\.$"),
    ("1", WEIGHTS / 10, "h squared"),
    ("1", WEIGHTS / 400, r"divide by h\^2 and by"),
    ("1", WEIGHTS / 1e4, "do not multiply"),
    ("1", 3 * WEIGHTS, "compare the terms"),
]


# --- building.2: the flat bias of the sigmoid ----------------------------------------------------


def test_building_2_is_the_bias_of_the_companion() -> None:
    assert float(ridge.flat_bias("sigmoid", 2)) == pytest.approx(FLAT, rel=1e-15)


SOLUTIONS += [("2", FLAT), ("2", 1.317), ("2", np.float64(FLAT))]


MISTAKES += [
    ("2", (3 + 3**0.5) / 6, "asks for b"),
    ("2", (3 - 3**0.5) / 6, "asks for b"),
    ("2", math.atanh(3**-0.5), "flat bias of tanh"),
    ("2", float(ridge.flat_bias("sigmoid", 3)), "degree 3"),
    ("2", 0, "the network needs to divide by it"),
    ("2", -FLAT, "Wrong sign"),
    ("2", 1.0, "does not vanish there"),
    ("2", [FLAT], "Wrong shape"),
    ("2", None, "Wrong type"),
]


# --- building.3: errors in a tree ----------------------------------------------------------------


def test_building_3_is_the_budget_of_the_companion() -> None:
    f = Compositional(Graph.tree(4), lambda a, b: a * b + 2 * a)
    ones = torch.ones(1, 4, dtype=torch.float64)
    assert f.sensitivities(ones).tolist() == [[5.0, 3.0, 1.0]]
    assert exercises.check("building.3", 1e-3 * f.amplification(ones)).correct


MISTAKES += [
    ("3", 0.003, "multiplied on their way"),
    ("3", 0.008, "root itself is missing"),
    ("3", 0.006, "one of the lower nodes is missing"),
    ("3", 0.004, "one of the lower nodes is missing"),
    ("3", 0.011, "not symmetric"),
    ("3", 0.007, "not symmetric"),
    ("3", 0.015, "multiply along a path"),
    ("3", 9, "multiply it by the error"),
    ("3", -0.009, "Wrong sign"),
    ("3", 0.1, "Multiply the error of each node"),
    ("3", "0.009", "Wrong type"),
]


# --- building.4: a product with four units -------------------------------------------------------


def symmetric(h: float) -> tuple:
    inner = h * np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    return inner, np.zeros(4), np.array([1, 1, -1, -1]) / h**2


def from_the_lattice(h: float) -> tuple:
    net = ridge.ridge_network(Polynomial(((1, 1),), (1,)), h=h, bias=0.5)
    keep = [i for i, c in enumerate(net.outer) if c]
    return (
        torch.tensor([[float(a) for a in net.inner[i]] for i in keep]),
        [0.5] * 4,
        [float(net.outer[i]) for i in keep],
    )


def stretched(h: float) -> tuple:
    inner, biases, outer = symmetric(h)
    return inner * [2, 1], biases, outer / 2


SOLUTIONS += [("3", 9e-3)]
SOLUTIONS += [("4", symmetric), ("4", from_the_lattice), ("4", stretched)]


def changed(**change: object) -> object:
    """The symmetric gate with one of its three parts replaced by a function of h and the part."""

    def gate(h: float) -> tuple:
        parts = dict(zip(("inner", "biases", "outer"), symmetric(h), strict=True))
        for name, new in change.items():
            parts[name] = new(h, parts[name])
        return tuple(parts.values())

    return gate


MISTAKES += [
    ("4", changed(outer=lambda h, c: 4 * c), "A multiple of the product"),
    ("4", changed(outer=lambda h, c: -c), "Wrong sign"),
    ("4", changed(outer=lambda h, c: c * h**2), "No product"),
    ("4", changed(outer=lambda h, c: c * [1, 1, -1, 0]), "A constant is left over"),
    ("4", changed(outer=lambda h, c: np.array([2, 0, -2, 0]) / h**2), "A linear part"),
    ("4", changed(inner=lambda h, a: a * [1, 0]), "No product"),
    ("4", lambda h: symmetric(0.02), "does not shrink with h"),
    ("4", lambda h: tuple(np.repeat(part, 2, axis=0) for part in symmetric(h)), "Too many units"),
    ("4", lambda h: symmetric(h)[:2], "three things"),
    ("4", lambda h: 1.0, "three things"),
    ("4", lambda h: (symmetric(h)[0].T, *symmetric(h)[1:]), "inner weights of shape"),
    ("4", lambda h: (*symmetric(h)[:2], 1.0), "one number per unit"),
    ("4", lambda h: (*symmetric(h)[:2], [math.inf] * 4), "Not finite"),
    ("4", lambda: 1, "raised TypeError"),
    ("4", symmetric(0.1), "Wrong type"),
]


def leftover_square(h: float) -> tuple:  # (x1 + x2)^2 / 2 - x1^2 / 2 keeps half of x2^2
    inner = h * np.array([[1, 1], [-1, -1], [1, 0], [-1, 0]])
    return inner, np.zeros(4), np.array([2, 2, -2, -2]) / h**2


def large_inner_weights(h: float) -> tuple:
    inner, biases, outer = symmetric(1.0)
    return inner, biases, 1.05 * outer


MISTAKES += [
    ("4", leftover_square, "A square is left over"),
    ("4", large_inner_weights, "terms of higher degree"),
]


# --- building.5: few units -----------------------------------------------------------------------


def weights(h: float = 1e-3, *, square: float = 1.0, cube: float = 1.0) -> tuple:
    parts = [
        (ridge.ridge_network(Polynomial(((3,),), (1,)), h=h), (1, 1, 0), cube),
        (ridge.ridge_network(Polynomial(((2,),), (1,)), h=h), (0, 1, -1), square),
    ]
    inner = [[float(a) * w for w in way] for net, way, _ in parts for (a,) in net.inner]
    biases = [float(b) for net, _, _ in parts for b in net.biases]
    outer = [size * float(c) for net, _, size in parts for c in net.outer]
    return inner, biases, outer


SOLUTIONS += [("5", weights())]


def test_building_5_counts_the_units() -> None:
    assert exercises.check("building.5", weights()).reason.startswith("7 units")


def twenty_units() -> tuple:
    cube = {(3, 0, 0): 1, (2, 1, 0): 3, (1, 2, 0): 3, (0, 3, 0): 1}
    terms = cube | {(0, 2, 0): 1, (0, 1, 1): -2, (0, 0, 2): 1}
    net = ridge.ridge_network(Polynomial(tuple(terms), tuple(terms.values())), h=1e-3)
    assert net.num_units == 20
    return (
        [[float(a) for a in row] for row in net.inner],
        [float(b) for b in net.biases],
        [float(c) for c in net.outer],
    )


MISTAKES += [
    ("5", twenty_units(), "too many units"),
    ("5", weights(square=0), "the cube alone"),
    ("5", weights(cube=0), "the square alone"),
    ("5", weights(square=0, cube=0), "constant"),
    ("5", weights(1e-6), "neither too large nor so small"),
    ("5", weights(1.0), "neither too large nor so small"),
    ("5", weights, "not a function"),
    ("5", weights()[:2], "three things"),
    ("5", ([[1, 1]], [0], [1]), "inner weights of shape"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"building.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"building.{number}", answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)
    | st.floats(-10, 10)
    | st.text(max_size=3),
    st.sampled_from(["building.1", "building.2", "building.3"]),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.\d+|\d{3,}", verdict.reason):
        assert not any(math.isclose(float(number), v, rel_tol=0.02) for v in (400, 800, FLAT, 9e-3))
