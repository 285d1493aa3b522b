"""Graders of the chapter on width: solutions, typical mistakes, and no answer in a message."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"width.{number}", answer)
    assert not verdict.correct
    return verdict.reason


def widen(W1, W2, h):
    more = h - W1.shape[0]
    return np.pad(W1, ((0, more), (0, 0))), np.pad(W2, ((0, 0), (0, more)))


def split_last_unit(W1, W2, h):
    copies = h - len(W1) + 1
    rows, columns = np.repeat(W1[-1:], copies, 0), np.repeat(W2[:, -1:], copies, 1)
    share = math.sqrt(1 / copies)
    return np.r_[W1[:-1], share * rows], np.c_[W2[:, :-1], share * columns]


def as_tensors(W1, W2, h):
    return [torch.from_numpy(W) for W in widen(W1, W2, h)]


PAIR = [[1.0, 0.0], [1.0, 0.6]]


SOLUTIONS = [
    ("1", 16),
    ("1", 16.0),
    ("1", torch.tensor(16)),
    ("2", 2.0),
    ("2", 12 / 36**0.5),
    ("3", widen),
    ("3", split_last_unit),
    ("3", as_tensors),
    ("4", 60),
    ("5", PAIR),
    ("5", [(7.0, 0.0), (3.0, 2.5)]),
]


MISTAKES = [
    ("1", 15, "Not more weights than images yet"),
    ("1", 17, "one unit less"),
    ("1", 18, "last layer is missing"),
    ("1", 20, "between the two hidden layers"),
    ("1", 500, "three matrices"),
    ("1", [16], "Wrong shape"),
    ("1", -16, "Wrong sign"),
    ("2", 1 / 3, "square root"),
    ("2", 4.0, "This is the square of it; or a coin"),
    ("2", 12 / 1500**0.5, "exactly one is wrong"),
    ("2", 11 / 6, "continuity correction"),
    ("2", 12, "difference itself"),
    ("2", 7.0, "Which variance"),
    ("2", "two", "Wrong type"),
    ("4", 3 + math.log10(20), "law 1 / t"),
    ("4", 60 * math.log(10), "natural logarithm"),
    ("4", 0.15, "must grow"),
    ("4", 20, "where does it start"),
    ("4", 23, "nothing is added"),
    ("4", 1000.0, "product of the distance"),
    ("5", PAIR[::-1], "swapped"),
    ("5", [[1, 0], [-1, 0]], "v does not classify"),
    ("5", [[0, 1], [1, 0]], "u does not classify"),
    ("5", [[1, 0], [0, 0]], "zero vector"),
    ("5", [[1, 0], [1, -0.3]], "must make fewer"),
    ("5", [[1, -1.5], [1, 1]], "margin of u is not larger"),
    ("5", [1, 0, 1, 1], "Wrong shape"),
    ("5", [[1, 0], [math.nan, 1]], "Not finite"),
    ("3", 3, "the function itself"),
    ("3", lambda W1, W2, h: W1, "two layers"),
    ("3", lambda W1, W2, h: (W1, W2), "Wrong shape"),
    ("3", lambda W1, W2: (W1, W2), "raised TypeError"),
]


def noisy(W1, W2, h):
    more = h - W1.shape[0]
    return (np.pad(W1, ((0, more), (0, 0)), constant_values=1.0),
            np.pad(W2, ((0, 0), (0, more)), constant_values=1.0))  # fmt: skip


def heavy_first(W1, W2, h):
    V1, V2 = widen(W1, W2, h)
    V1[len(W1) :] = 1.0
    return V1, V2


def heavy_second(W1, W2, h):
    V1, V2 = widen(W1, W2, h)
    V2[:, len(W1) :] = 1.0
    return V1, V2


def rescaled(W1, W2, h):
    V1, V2 = widen(W1, W2, h)
    return 2 * V1, V2 / 2


def copied(W1, W2, h):
    copies = h - len(W1) + 1
    rows, columns = np.repeat(W1[-1:], copies, 0), np.repeat(W2[:, -1:], copies, 1)
    return np.r_[W1[:-1], rows], np.c_[W2[:, :-1], columns / copies]


MISTAKES += [
    ("3", noisy, "outputs changed"),
    ("3", heavy_first, "norm of layer 1"),
    ("3", heavy_second, "norm of layer 2"),
    ("3", rescaled, "both norms changed"),
    ("3", copied, "both norms changed"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"width.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))


@given(st.floats(0.5, 0.9), st.floats(0.1, 10.0))
def test_every_pair_that_fits_is_accepted(turn: float, length: float) -> None:
    assert exercises.check("width.5", [[length, 0.0], [1.0, max(turn, 0.51)]]).correct


@settings(max_examples=25)
@given(
    st.sampled_from(["1", "2", "4"]),
    st.floats(0.1, 200.0, allow_nan=False) | st.integers(1, 100),
)
def test_no_message_holds_an_answer(key: str, answer: float) -> None:
    target = {"1": 16, "2": 2.0, "4": 60}[key]
    verdict = exercises.check(f"width.{key}", answer)
    if verdict.correct:
        assert math.isclose(answer, target, rel_tol=2e-3)
    else:
        numbers = re.findall(r"\d+\.?\d*", verdict.reason)
        assert not any(math.isclose(float(n), target, rel_tol=0.02) for n in numbers)
