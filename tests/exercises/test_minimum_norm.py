"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
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
    assert exercises.check("minimum_norm.1", [2, 2, 2]).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([10 / 9, 20 / 9, 20 / 9], "nearest to the origin"),
        ([19 / 9, 20 / 9, 20 / 9], "overshoots"),
        ([10, 0, 0], "not the nearest"),
        ([10, 18, 18], "wrong length"),
        ([1, 0, 5], "does not meet"),
        ([2, 2], "Wrong shape"),
        ("2", "Wrong type"),
    ],
)
def test_minimum_norm_1_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("minimum_norm.1", answer)


def test_the_misses_are_those_of_the_package() -> None:
    X, y = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double(), torch.tensor([1.0, 3.0]).double()
    assert exercises.check("minimum_norm.2", interpolation.leave_one_out(X, y)).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([0.5, -2], "Wrong sign"),
        ([1.5, 1], "predictions"),
        ([0.25, 4], "squares"),
        ([2, -0.5], "wrong order"),
        ([-1, 2], "diagonal is missing"),
        ([0, 0], "residuals"),
        ([-0.5, 1], "One of the two is right"),
        ([7, 2], "One of the two is right"),
        ([7, 7], "Neither is right"),
        (2, "Wrong shape"),
    ],
)
def test_minimum_norm_2_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("minimum_norm.2", answer)


# --- minimum_norm.3 ------------------------------------------------------------------------------


def test_twice_w_star_is_as_good_as_zero() -> None:
    errors = [
        interpolation.expected_error(9, 20, signal=(1 - c) ** 2, noise=0.1)
        for c in (0.0, 1.999, 2.0, 2.001)
    ]
    assert errors[1] < errors[0] == errors[2] < errors[3]
    assert exercises.check("minimum_norm.3", 2).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (1, "smallest"),
        (0, "minimum norm itself"),
        (2**0.5, "not the norms"),
        (0.5, "squared distances"),
        (-2, "Wrong sign"),
        (3, "distance of u"),
        ([2], "Wrong shape"),
    ],
)
def test_minimum_norm_3_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("minimum_norm.3", answer)


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


@pytest.mark.parametrize("answer", [loo, from_the_package])
def test_minimum_norm_4_accepts_solutions(answer: object) -> None:
    assert exercises.check("minimum_norm.4", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (hat, "D at N"),
        (kernel, "D below N"),
        (lambda X, y: -loo(X, y), "Wrong sign"),
        (lambda X, y: y - loo(X, y), "predictions"),
        (lambda X, y: loo(X, y) ** 2, "squares"),
        (lambda X, y: y - X @ np.linalg.pinv(X) @ y, "fit to all samples"),
        (lambda X, y: y / 0, "Not finite"),
        (lambda X, y: loo(X, y).sum(), "Wrong shape"),
        (lambda X: X, "raised TypeError"),
        (3, "the function itself"),
    ],
)
def test_minimum_norm_4_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("minimum_norm.4", answer)


# --- minimum_norm.5 ------------------------------------------------------------------------------


@pytest.mark.parametrize("u", [[1, 0, 0], [1.5, 0.1, 0.2], (2.0, 1.0, 0.0)])
def test_longer_and_more_stable(u: object) -> None:
    assert exercises.check("minimum_norm.5", u).correct
    X, y = torch.tensor([[1.0, 0, 1], [0, 1, 1]]).double(), torch.tensor([2.0, 1.0]).double()
    u = torch.tensor(u).double()
    short, long = interpolation.interpolant(X, y), interpolation.interpolant(X, y, nearest_to=u)
    assert long.norm() > short.norm()
    before, after = (interpolation.leave_one_out(X, y, nearest_to=v) for v in (0 * u, u))
    assert after.square().mean() < before.square().mean()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([1, 0, 1], "of minimum norm"),
        ([-1, 0, 0], "not more stable"),
        ([1, 1, -1], "not more stable"),
        ([0, 0, 0], "Neither"),
        ([1, 0], "Wrong shape"),
        (None, "Wrong type"),
    ],
)
def test_minimum_norm_5_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("minimum_norm.5", answer)


# --- no answer in a message ----------------------------------------------------------------------


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=3) | st.floats(-5, 5) | st.text(max_size=3),
    st.sampled_from(["minimum_norm.1", "minimum_norm.2", "minimum_norm.3", "minimum_norm.5"]),
)
def test_no_message_holds_a_number_of_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    if not verdict.correct:
        assert not re.search(r"(?<![_x])\b(2|0\.5|-0\.5|1/2)\b", verdict.reason)
