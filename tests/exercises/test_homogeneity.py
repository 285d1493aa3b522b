"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from companion import exercises


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def tangential(w: np.ndarray, u: np.ndarray) -> np.ndarray:
    return u - w * ((w @ u) / (w @ w))


DEGREES, SLOPE = [9, 3, 1], 1 / 9

SOLUTIONS = [
    ("1", DEGREES),
    ("1", torch.tensor([9.0, 3.0, 1.0])),
    ("2", [1, 0, 1, 1, 1]),
    ("2", np.array([True, False, True, True, True])),
    ("3", SLOPE),
    ("3", 0.1111),
    ("4", tangential),
    ("4", lambda w, u: u - np.outer(w[:1], w)[0] / w[0] * (w @ u) / (w @ w)),
    ("5", [1 / 3, 1 / 3, 1 / 3, 2 / 3, 1 / 3]),
    ("5", (0.2, 0.2, 0.3, 0.5, 0.5)),
    ("5", [0.333, 0.333, 0.333, 0.667, 0.334]),
]


def test_answers_follow_from_the_definitions() -> None:
    """Degrees by scaling a scalar chain; the slope by a root of the velocity."""

    def cube(z: float) -> float:
        return max(z, 0.0) ** 3

    degrees = []
    for k in range(3):
        w = [1.3, 0.7, 1.1]
        values = []
        for c in (1.0, 2.0):
            v = [c * w[i] if i == k else w[i] for i in range(3)]
            values.append(v[2] * cube(v[1] * cube(v[0])))
        degrees.append(math.log2(values[1] / values[0]))
    assert degrees == pytest.approx(DEGREES)

    a, w = math.log(3), np.array([1.0, -1.0])
    x, y = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([1.0, -1.0])

    def velocity(theta: float) -> float:
        z = x @ w
        loss = np.exp(-y * a * np.maximum(z, 0))
        return float(a * (loss * y * np.array([1.0, theta])) @ x @ x[1])

    assert brentq(velocity, 0, 1) == pytest.approx(SLOPE)
    # Both sides lead back to the kink: the velocity is positive below it and negative above.
    assert velocity(0.0) > 0 > velocity(1.0)


MISTAKES = [
    ("1", [1, 3, 9], "Reversed"),
    ("1", [1, 1, 1], "without the power"),
    ("1", [6, 3, 0], "multiply from activation"),
    ("1", [5, 3, 1], "do not add"),
    ("1", [27, 9, 3], "One activation too many"),
    ("1", [4, 2, 1], "square of the ReLU"),
    ("1", [8, 3, 1], "Not all degrees"),
    ("1", [0, 0, 0], "Not the degrees"),
    ("1", [9, 3], "Wrong shape"),
    ("2", [0, 1, 0, 0, 0], "turned round"),
    ("2", [1, 1, 1, 1, 1], "does not scale the whole"),
    ("2", [0, 0, 1, 1, 1], "Too strict"),
    ("2", [0, 1, 1, 1, 1], "one layer at a time"),
    ("2", [1, 0.5, 1, 1, 1], "1 or 0"),
    ("3", 1.0, "weigh them"),
    ("3", 2 / 9, "Divide by the squared length"),
    ("3", 0.5, "Half of the two"),
    ("3", 1 / 3, "not just a"),
    ("3", 1 / 18, "inner product"),
    ("3", 9.0, "Upside down"),
    ("3", 0.1, "weight of the first example"),
    ("3", -1 / 9, "Wrong sign"),
    ("3", 0.9, "Not the slope"),
    ("4", lambda w, u: u - w * (w @ u), "Normalize: w is not"),
    ("4", lambda w, u: u - w * (w @ u) / np.linalg.norm(w), "Normalize twice"),
    ("4", lambda w, u: w * (w @ u) / (w @ w), "part along w"),
    ("4", lambda w, u: tangential(w, u) / np.linalg.norm(w), "divided by the norm"),
    ("4", lambda w, u: -tangential(w, u), "Wrong sign"),
    ("4", lambda w, u: tangential(u, w), "exchanged"),
    ("4", lambda w, u: u, "Nothing is projected"),
    ("4", lambda w, u: u + 1, "not orthogonal"),
    ("4", lambda w, u: 0 * u, "Orthogonal to w, but"),
    ("4", lambda w, u: w @ u, "Wrong shape"),
    ("4", lambda w: w, "raised TypeError"),
    ("4", np.eye(2), "give the function itself"),
    ("5", [1, 1, 1, 2, 1], "not by c itself"),
    ("5", [0, 0, 0, 0, 1], "must be positive"),
    ("5", [1 / 3, 2 / 3, 1 / 3, 1, 1 / 3], "both must be scaled by the same"),
    ("5", [1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3], "scaled already"),
    ("5", [1 / 3, 1 / 3, 1 / 3, 1, 1 / 3], "like the sum"),
    ("5", [99, 99, 1, 1, 1], "Too large"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"homogeneity.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"homogeneity.{number}", answer))


def test_a_matrix_of_long_vectors_is_refused() -> None:
    def with_matrix(w: np.ndarray, u: np.ndarray) -> np.ndarray:
        if len(w) > 1000:  # what NumPy says where 80 GB are not there
            raise MemoryError("Unable to allocate 74.5 GiB for an array")
        v = w / np.linalg.norm(w)
        return (np.eye(len(w)) - np.outer(v, v)) @ u

    assert "do not form the matrix" in reason("homogeneity.4", with_matrix)


def test_the_reader_cannot_change_the_graders_data() -> None:
    def greedy(w: np.ndarray, u: np.ndarray) -> np.ndarray:
        result = tangential(w, u)
        w[:] = 0
        return result

    assert exercises.check("homogeneity.4", greedy).correct


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=5) | st.floats(-2, 2) | st.text(max_size=3),
    st.sampled_from(["1", "2", "3", "5"]),
)
@settings(max_examples=25)
def test_no_message_holds_an_answer(answer: object, number: str) -> None:
    text = exercises.check(f"homogeneity.{number}", answer).reason
    for value in re.findall(r"\d+\.\d+", text):
        assert not math.isclose(float(value), 1 / 9, rel_tol=0.02)
    assert not re.search(r"\b(9|27)\b", text)
