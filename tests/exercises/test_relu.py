"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.approximation import relu as networks
from companion.exercises import relu as graders

Relu = Callable[[Any], Any]


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- relu.1 and relu.2: numbers ------------------------------------------------------------------


def test_the_numbers_are_those_of_the_networks() -> None:
    error = networks.square_error(networks.square(9))
    assert error <= Fraction(1, 10**6) < networks.square_error(networks.square(8))
    assert networks.square(9).num_units == 26
    assert 1 / (8 * 354**2) <= 1e-6 < 1 / (8 * 353**2)


SOLUTIONS = [
    ("1", [9, 26]),
    ("1", (9.0, 26.0)),
    ("1", np.array([9, 26])),
    ("1", torch.tensor([9, 26])),
]


MISTAKES = [
    ("1", [8, 23], "One step too few"),
    ("1", [10, 29], "One step too many"),
    ("1", [19, 56], "four times per step"),
    ("1", [5, 14], "solve"),
    ("1", [9, 27], "The first layer needs no unit"),
    ("1", [9, 28], "signed square"),
    ("1", [9, 18], "a unit of its own"),
    ("1", [9, 512], "linear pieces"),
    ("1", [9, 40], "wrong number of units"),
    ("1", [9], "Wrong shape"),
    ("1", "9, 26", "Wrong type"),
    ("1", [9, math.nan], "Not finite"),
]


SOLUTIONS += [("2", 353), ("2", 353.0), ("2", np.int64(353))]


MISTAKES += [
    ("2", 354, "one unit fewer"),
    ("2", 352, "round the number of pieces up"),
    ("2", 500, "for the interpolant"),
    ("2", 499, "for the interpolant"),
    ("2", 250, "Wrong constant"),
    ("2", 249, "Wrong constant"),
    ("2", 354**2, "square of the number"),
    ("2", -353, "Wrong sign"),
    ("2", 1000, "Not the bound"),
    ("2", [353], "Wrong shape"),
    ("2", None, "Wrong type"),
]


@given(st.integers(1, 2000))
def test_relu_2_accepts_one_number(answer: int) -> None:
    assert exercises.check("relu.2", answer).correct == (answer == 353)


# --- relu.3: the signed square -------------------------------------------------------------------


def square(x: Any, m: int, relu: Relu) -> Any:
    tent = total = relu(x) + relu(-x)
    for s in range(1, m + 1):
        tent = 2 * tent - 4 * relu(tent - 0.5)
        total = total - tent / 4**s
    return total


def square_in_layers(x: Any, m: int, relu: Relu) -> Any:
    """As the network of the package: every layer passes everything on through ReLUs."""
    total, tent = relu(x) + relu(-x), None
    for s in range(1, m + 1):
        whole = total if tent is None else relu(tent)
        tent = 2 * whole - relu(whole + (-0.5)) * 4
        total = (total if s == 1 else relu(total)) - 0.25**s * tent
    return total


SOLUTIONS += [("3", square), ("3", square_in_layers)]


def one_sided(x: Any, m: int, relu: Relu) -> Any:
    tent = total = relu(x)
    for s in range(1, m + 1):
        tent = 2 * tent - 4 * relu(tent - 0.5)
        total = total - tent / 4**s
    return total


def wrong_scale(x: Any, m: int, relu: Relu) -> Any:
    tent = total = relu(x) + relu(-x)
    for s in range(1, m + 1):
        tent = 2 * tent - 4 * relu(tent - 0.5)
        total = total - tent / 2**s
    return total


def no_fold(x: Any, m: int, relu: Relu) -> Any:
    tent = total = relu(x) + relu(-x)
    for s in range(1, m + 1):
        tent = 2 * tent - 2 * relu(tent - 0.5)
        total = total - tent / 4**s
    return total


def wasteful(x: Any, m: int, relu: Relu) -> Any:
    for _ in range(20):
        x = relu(x) - relu(-x)
    return square(x, m, relu)


MISTAKES += [
    ("3", one_sided, "wrong for x < 0"),
    ("3", wrong_scale, "Wrong between the ends"),
    ("3", no_fold, r"Wrong at \|x\| = 1"),
    ("3", wasteful, "too many units"),
    ("3", lambda x, m, relu: square(x, m + 1, relu), "no tent is subtracted"),
    ("3", lambda x, m, relu: square(x, max(m - 1, 0), relu), "one step less"),
    ("3", lambda x, m, relu: square(x, m + (m > 1), relu), "one step more"),
    ("3", lambda x, m, relu: x * x, "multiply two signals"),
    ("3", lambda x, m, relu: x**2, "take powers"),
    ("3", lambda x, m, relu: relu(x) / x, "divide by a signal"),
    ("3", lambda x, m, relu: abs(x), "absolute values"),
    ("3", lambda x, m, relu: x if x > 0 else -x, "compare signals"),
    ("3", lambda x, m, relu: x or -x, "branch on a signal"),
    ("3", lambda x, m, relu: np.abs(x), "raised TypeError"),
    ("3", lambda x, m, relu: relu(3.0), "Wrong type"),
    ("3", lambda x, m, relu: x * math.inf, "Not finite"),
    ("3", lambda x: x, "raised TypeError"),
    ("3", 3.0, "Wrong type"),
]


def test_signals_do_what_numbers_do() -> None:
    x = graders._Signal(np.array([1.0, -2.0]))
    values = 1 - (2 * x - x / 4 + 0.5 * -x) + 3 - x
    np.testing.assert_allclose(values.values, [1.75, 8.5])


# --- relu.4: the hat function --------------------------------------------------------------------


def hat(u: Any, v: Any, relu: Relu) -> Any:
    def size(z: Any) -> Any:
        return relu(z) + relu(-z)

    return relu(1 - (size(u) + size(v) + size(u - v)) / 2)


def maximum(a: Any, b: Any, relu: Relu) -> Any:
    return b + relu(a - b)


def hat_from_maxima(u: Any, v: Any, relu: Relu) -> Any:
    top = maximum(maximum(u, v, relu), 0 * u, relu)
    bottom = -maximum(maximum(-u, -v, relu), 0 * u, relu)
    return relu(1 - top + bottom)


SOLUTIONS += [("4", hat), ("4", hat_from_maxima)]


MISTAKES += [
    ("4", lambda u, v, relu: hat(u, -1 * v, relu), "other diagonal"),
    ("4", lambda u, v, relu: 2 * hat(u, v, relu), "Off by a factor"),
    (
        "4",
        lambda u, v, relu: relu(1 - relu(u) - relu(-u) - relu(v) - relu(-v)),
        "not along u = v",
    ),
    (
        "4",
        lambda u, v, relu: relu(1 - (relu(u + v) + relu(-u - v) + relu(u - v) + relu(v - u)) / 2),
        "both diagonals",
    ),
    (
        "4",
        lambda u, v, relu: (
            1 - (relu(u) + relu(-u) + relu(v) + relu(-v) + relu(u - v) + relu(v - u)) / 2
        ),
        "Cut off",
    ),
    ("4", lambda u, v, relu: relu(1 - relu(u) - relu(v)), "Wrong at a grid point"),
    (
        "4",
        lambda u, v, relu: hat(u, v, relu) + 0.1 * hat(4 * u - 2, 4 * v, relu),
        "not linear on every triangle",
    ),
    ("4", lambda u, v, relu: hat(relu(u) - relu(-u), hat_pad(v, relu), relu), "too many units"),
    ("4", lambda u, v, relu: u * v, "multiply two signals"),
]


def hat_pad(v: Any, relu: Relu) -> Any:
    for _ in range(3):
        v = relu(v) - relu(-v)
    return v


# --- relu.5: the cube ----------------------------------------------------------------------------


def cube(x: Any, relu: Relu, m: int = 10) -> Any:
    y = square(x, m, relu)
    return square((x + y) / 2, m, relu) - square((x - y) / 2, m, relu)


def cube_by_polarization(x: Any, relu: Relu) -> Any:
    y = square(x, 12, relu)
    sides = square((x + y) / 2, 12, relu) * 4 - square(x, 12, relu) - square(y, 12, relu)
    return sides / 2


def shallow_cube(x: Any, relu: Relu, pieces: int = 1000) -> Any:
    knots = np.linspace(0, 1, pieces + 1)
    slopes = np.diff(knots**3) * pieces
    bends = np.diff(slopes, prepend=0.0)
    return sum(
        (float(bend) * relu(x - float(t)) for t, bend in zip(knots, bends, strict=False)), 0 * x
    )


SOLUTIONS += [("5", cube), ("5", cube_by_polarization)]


MISTAKES += [
    ("5", lambda x, relu: square(x, 10, relu), "This is the square"),
    ("5", lambda x, relu: cube(x, relu, 4), "take more tents"),
    ("5", lambda x, relu: x, "Far from the cube"),
    ("5", lambda x, relu: shallow_cube(x, relu), "more units than allowed"),
    ("5", lambda x, relu: shallow_cube(x, relu, 90), "take more tents"),
    ("5", lambda x, relu: x * x * x, "multiply two signals"),
    ("5", 7, "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"relu.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"relu.{number}", answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=2)
    | st.integers(0, 1000)
    | st.text(max_size=3),
    st.sampled_from(["relu.1", "relu.2"]),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.?\d*", verdict.reason):
        assert float(number) not in (9, 26, 353, 354)
