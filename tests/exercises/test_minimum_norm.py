"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.generalization import interpolation


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- minimum_norm.1 and minimum_norm.2 -----------------------------------------------------------


def test_the_nearest_interpolant_is_that_of_the_package() -> None:
    w = interpolation.interpolant(
        torch.tensor([[1.0, 2.0, 2.0]]).double(),
        torch.tensor([10.0]).double(),
        nearest_to=torch.tensor([1.0, 0.0, 0.0]).double(),
    )
    assert exercises.check("minimum_norm.1", w).correct


SOLUTIONS = [("1", [2, 2, 2]), ("2", [-1 / 2, 2]), ("3", 2)]


MISTAKES = [
    ("1", [10 / 9, 20 / 9, 20 / 9], "nearest to the origin"),
    ("1", [19 / 9, 20 / 9, 20 / 9], "overshoots"),
    ("1", [10, 0, 0], "not the nearest"),
    ("1", [10, 18, 18], "wrong length"),
    ("1", [1, 0, 5], "does not meet"),
    ("1", [2, 2], "Wrong shape"),
    ("1", "2", "Wrong type"),
]


def test_the_misses_are_those_of_the_package() -> None:
    X, y = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double(), torch.tensor([1.0, 3.0]).double()
    assert exercises.check("minimum_norm.2", interpolation.leave_one_out(X, y)).correct


MISTAKES += [
    ("2", [0.5, -2], "Wrong sign"),
    ("2", [1.5, 1], "predictions"),
    ("2", [0.25, 4], "squares"),
    ("2", [2, -0.5], "wrong order"),
    ("2", [-1, 2], "diagonal is missing"),
    ("2", [0, 0], "residuals"),
    ("2", [-0.5, 1], "One of the two is right"),
    ("2", [7, 2], "One of the two is right"),
    ("2", [7, 7], "Neither is right"),
    ("2", 2, "Wrong shape"),
]


# --- minimum_norm.3 ------------------------------------------------------------------------------


def test_twice_w_star_is_as_good_as_zero() -> None:
    errors = [
        interpolation.expected_error(9, 20, signal=(1 - c) ** 2, noise=0.1)
        for c in (0.0, 1.999, 2.0, 2.001)
    ]
    assert errors[1] < errors[0] == errors[2] < errors[3]


MISTAKES += [
    ("3", 1, "smallest"),
    ("3", 0, "minimum norm itself"),
    ("3", 2**0.5, "not the norms"),
    ("3", 0.5, "squared distances"),
    ("3", -2, "Wrong sign"),
    ("3", 3, "distance of u"),
    ("3", [2], "Wrong shape"),
]


# --- minimum_norm.4 ------------------------------------------------------------------------------


def loo(X, y):
    N, D = X.shape
    A = np.linalg.inv(X @ X.T) if D >= N else np.eye(N) - X @ np.linalg.pinv(X)
    return A @ y / np.diag(A)


def from_the_package(X, y):
    return interpolation.leave_one_out(torch.as_tensor(X), torch.as_tensor(y))


def hat(X, y):
    H = X @ np.linalg.pinv(X)
    return (y - H @ y) / (1 - np.diag(H))


def kernel(X, y):
    A = np.linalg.inv(X @ X.T)
    return A @ y / np.diag(A)


SOLUTIONS += [("4", loo), ("4", from_the_package)]


MISTAKES += [
    ("4", hat, "D at N"),
    ("4", kernel, "D below N"),
    ("4", lambda X, y: -loo(X, y), "Wrong sign"),
    ("4", lambda X, y: y - loo(X, y), "predictions"),
    ("4", lambda X, y: loo(X, y) ** 2, "squares"),
    ("4", lambda X, y: y - X @ np.linalg.pinv(X) @ y, "fit to all samples"),
    ("4", lambda X, y: y / 0, "Not finite"),
    ("4", lambda X, y: loo(X, y).sum(), "Wrong shape"),
    ("4", lambda X: X, "raised TypeError"),
    ("4", 3, "the function itself"),
]


# --- minimum_norm.5 ------------------------------------------------------------------------------


SOLUTIONS += [("5", [1, 0, 0]), ("5", [1.5, 0.1, 0.2]), ("5", (2.0, 1.0, 0.0))]


@pytest.mark.parametrize("u", [answer for number, answer in SOLUTIONS if number == "5"])
def test_longer_and_more_stable(u: object) -> None:
    X, y = torch.tensor([[1.0, 0, 1], [0, 1, 1]]).double(), torch.tensor([2.0, 1.0]).double()
    u = torch.tensor(u).double()
    short, long = interpolation.interpolant(X, y), interpolation.interpolant(X, y, nearest_to=u)
    assert long.norm() > short.norm()
    before, after = (interpolation.leave_one_out(X, y, nearest_to=v) for v in (0 * u, u))
    assert after.square().mean() < before.square().mean()


MISTAKES += [
    ("5", [1, 0, 1], "of minimum norm"),
    ("5", [-1, 0, 0], "not more stable"),
    ("5", [1, 1, -1], "not more stable"),
    ("5", [0, 0, 0], "Neither"),
    ("5", [1, 0], "Wrong shape"),
    ("5", None, "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"minimum_norm.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"minimum_norm.{number}", answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=3) | st.floats(-5, 5) | st.text(max_size=3),
    st.sampled_from(["minimum_norm.1", "minimum_norm.2", "minimum_norm.3", "minimum_norm.5"]),
)
def test_no_message_holds_a_number_of_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    if not verdict.correct:
        assert not re.search(r"(?<![_x])\b(2|0\.5|-0\.5|1/2)\b", verdict.reason)
