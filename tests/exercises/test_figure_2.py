"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises

LINE = (3 / 4, math.log(4) / 4)
SMALLEST = math.log(1 + 2 * math.exp(-math.sqrt(6)))


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- figure_2.1 -----------------------------------------------------------------------------------


SOLUTIONS = [("1", LINE), ("1", [0.75, 0.347]), ("1", np.array(LINE))]


MISTAKES = [
    ("1", (4 / 3, LINE[1]), "Wrong slope: the test loss"),
    ("1", LINE[::-1], "Wrong order"),
    ("1", (0.02, LINE[1]), "in proportion to their mean scores"),
    ("1", (1.0, 0.0), "in proportion to their mean scores"),
    ("1", (0.75, math.log(10) / 4), "ten classes"),
    ("1", (0.75, 0.5), "natural"),
    ("1", (0.75, 0.75 * math.log(4)), "point of zero outputs"),
    ("1", (0.75, -LINE[1]), "Wrong sign"),
    ("1", (0.75, 0.0), "losses are not zero"),
    ("1", (0.75, 0.2), "not the intercept"),
    ("1", 0.75, "Wrong shape"),
    ("1", "line", "Wrong type"),
    ("1", (math.nan, 0.0), "Not finite"),
]


# --- figure_2.2 -----------------------------------------------------------------------------------


SOLUTIONS += [("2", SMALLEST), ("2", 0.159), ("2", np.float64(SMALLEST))]


MISTAKES += [
    ("2", math.log(1 + 2 * math.exp(-2)), "can help by being negative"),
    ("2", math.log(1 + 2 * math.exp(-math.sqrt(1.5))), "length one"),
    ("2", math.log(1 + 9 * math.exp(-2 * math.sqrt(10 / 9))), "ten classes"),
    ("2", math.log(1 + 2 * math.exp(-4)), "longer than allowed"),
    ("2", math.log(1 + 2 * math.exp(-2 * math.sqrt(2 / 3))), "the others count too"),
    ("2", math.log(1 + math.exp(-math.sqrt(6))), "two wrong classes"),
    ("2", SMALLEST / math.log(2), "natural"),
    ("2", math.exp(-SMALLEST), "probability"),
    ("2", -SMALLEST, "Wrong sign"),
    ("2", 0.0, "Not the minimum"),
    ("2", [SMALLEST], "Wrong shape"),
]


# --- figure_2.3 -----------------------------------------------------------------------------------


def needed_length(loss: float, num_classes: int) -> float:
    share = math.expm1(loss) / (num_classes - 1)
    return -math.sqrt((num_classes - 1) / num_classes) * math.log(share)


def plain(loss: float, num_classes: int) -> np.floating:
    r = np.log(num_classes - 1) - np.log(np.exp(loss) - 1)
    return r * np.sqrt(1 - 1 / num_classes)


SOLUTIONS += [("3", needed_length), ("3", plain)]


MISTAKES += [
    ("3", lambda loss, C: -needed_length(loss, C), "Wrong sign"),
    ("3", lambda loss, C: needed_length(loss, C) * math.sqrt(C / (C - 1)), "not a length"),
    ("3", lambda loss, C: needed_length(loss, C) * C / (C - 1), "upside down"),
    ("3", lambda loss, C: needed_length(loss, C) * math.sqrt((C - 1) / C), "right class alone"),
    ("3", lambda loss, C: -math.log(math.expm1(loss)) * math.sqrt((C - 1) / C), "C - 1 wrong"),
    ("3", lambda loss, C: 1.0 + loss, "another smallest loss"),
    ("3", lambda loss: loss, "raised TypeError"),
    ("3", lambda loss, C: None, "Wrong type"),
    ("3", lambda loss, C: math.inf, "Not finite"),
    ("3", 1.0, "the function itself"),
]


# --- figure_2.4 -----------------------------------------------------------------------------------


def score(f: np.ndarray, y: np.ndarray) -> float:
    return (f[np.arange(len(y)), y] - f.mean(axis=1)).mean()


def over_the_others(f: np.ndarray, y: np.ndarray, g: np.ndarray, z: np.ndarray) -> float:
    """The mean of the other classes instead of all: a common factor, which cancels."""
    scores = [
        np.mean([row[c] - np.delete(row, c).mean() for row, c in zip(h, labels, strict=True)])
        for h, labels in ((f, y), (g, z))
    ]
    return scores[1] / scores[0]


def ratio(f: np.ndarray, y: np.ndarray, g: np.ndarray, z: np.ndarray) -> float:
    return score(g, z) / score(f, y)


SOLUTIONS += [("4", ratio), ("4", over_the_others)]


def test_ratio_is_the_slope_of_the_line() -> None:
    rng = np.random.default_rng(1)
    f, g = rng.normal(size=(2, 20, 4))
    y, z = rng.integers(4, size=(2, 20))

    def loss(f: np.ndarray, y: np.ndarray) -> float:
        return (np.log(np.exp(f).sum(1)) - f[np.arange(20), y]).mean()

    h = 1e-5
    slopes = [(loss(h * a, b) - loss(-h * a, b)) / (2 * h) for a, b in ((g, z), (f, y))]
    assert ratio(f, y, g, z) == pytest.approx(slopes[0] / slopes[1], rel=1e-6)


MISTAKES += [
    ("4", lambda f, y, g, z: 1 / ratio(f, y, g, z), "Upside down"),
    ("4", lambda f, y, g, z: -ratio(f, y, g, z), "Wrong sign"),
    ("4", lambda f, y, g, z: ratio(f, y, g, z) * len(z) / len(y), "Means, not sums"),
    (
        "4",
        lambda f, y, g, z: g[np.arange(len(z)), z].mean() / f[np.arange(len(y)), y].mean(),
        "must be centred",
    ),
    (
        "4",
        lambda f, y, g, z: (
            np.mean([row[c] - np.delete(row, c).max() for row, c in zip(g, z, strict=True)])
            / np.mean([row[c] - np.delete(row, c).max() for row, c in zip(f, y, strict=True)])
        ),
        "ratio of the margins",
    ),
    ("4", lambda f, y, g, z: 0.5, "Not the ratio"),
    ("4", lambda f, y, g, z: np.array([0.5, 0.5]), "Wrong shape"),
    ("4", 0.75, "the function itself"),
]


# --- figure_2.5 -----------------------------------------------------------------------------------

RIGHT = np.eye(3)[[0, 1, 2, 0]]


def sure_but_once() -> np.ndarray:
    A = 1.2 * (RIGHT - 1 / 3)
    A[3] = [0.0, 0.01, 0.0]
    return A


SOLUTIONS += [
    ("5", [sure_but_once(), 0.01 * RIGHT]),
    ("5", (sure_but_once().tolist(), (0.2 * RIGHT).tolist())),
]


MISTAKES += [
    ("5", [2 * RIGHT, RIGHT], "longer than one"),
    ("5", [RIGHT, RIGHT], "as many errors as"),
    ("5", [0.01 * RIGHT, sure_but_once()], "fewer errors than"),
    ("5", [sure_but_once(), RIGHT], "the larger loss"),
    ("5", [0 * RIGHT, RIGHT], "the larger loss"),
    ("5", [RIGHT], "Wrong shape"),
    ("5", None, "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"figure_2.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"figure_2.{number}", answer))


# --- no answer in a message -----------------------------------------------------------------------


@settings(max_examples=25)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_no_message_holds_an_answer(a: float, b: float) -> None:
    for exercise_id, answer in (("figure_2.1", (a, b)), ("figure_2.2", a)):
        verdict = exercises.check(exercise_id, answer)
        if not verdict.correct:
            for number in re.findall(r"\d+\.\d+", verdict.reason):
                assert all(abs(float(number) - x) > 0.01 for x in (*LINE, SMALLEST))
