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

LN2 = math.log(2)


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def log_bound(margins, norms):
    m, rho = torch.as_tensor(margins), torch.as_tensor(norms)
    return torch.logsumexp(2 * m.log() - m, 0) - math.log(len(m)) - 2 * rho.min().log()


SOLUTIONS = [
    ("1", LN2 / 3),
    ("1", 0.2311),
    ("2", 3 / 4),
    ("3", log_bound),
    ("4", [6, 2, 0, 0]),
    ("5", [1e6, 16e-6]),
    ("5", [-16e-6, -1e6]),
    ("5", [1e5, 14e-5]),
]


MISTAKES = [
    ("1", 0.0, "Not stationary: at zero"),
    ("1", 2 ** (1 / 3), "e to the power w"),
    ("1", LN2, "exponents of the two examples add"),
    ("1", 2 * LN2 / 3, "This is a margin"),
    ("1", -LN2 / 3, "Wrong sign"),
    ("1", 5.0, "Set the derivative"),
    ("1", "log", "Wrong type"),
    ("1", [LN2 / 3], "Wrong shape"),
    ("2", 0.0, "Separation alone is not enough"),
    ("2", 1.0, r"not K\^2"),
    ("2", 4 / 3, "Upside down"),
    ("2", 3.0, r"a factor K\^2"),
    ("2", 1 / 4, "two factors"),
    ("2", 0.6, "Not the threshold"),
    ("4", [4, 2, 0, 0], "number of planes"),
    ("4", [6, 1, 0, 0], "generic point"),
    ("4", [6, 2, 2, 0], "on the line"),
    ("4", [6, 2, 0, 1], "at the origin"),
    ("4", [6, 2, 0], "Wrong shape"),
    ("5", [-1.0, 20.0], "not separated"),
    ("5", [0.0, 0.0], "not separated"),
    ("5", [3.0, 3.0], "loss is too large"),
    ("5", [4.0, 4.0], "nearly balanced"),
    ("5", [100.0, 0.2], "move more norm"),
    ("5", [math.inf, 1.0], "Not finite"),
]


def naive(m, rho):
    return np.log((m**2 * np.exp(-m)).mean() / rho.min() ** 2)


def other(shift):
    return lambda m, rho: float(log_bound(m, rho)) + shift(m, rho)


MISTAKES += [
    ("3", naive, "Underflow"),
    ("3", lambda m, rho: torch.as_tensor(naive(m, rho)), "Underflow"),
    ("3", other(lambda m, rho: math.log(len(m))), "not the mean"),
    ("3", other(lambda m, rho: 2 * math.log(rho.min() / rho.max())), "another layer"),
    ("3", other(lambda m, rho: math.log(rho.min())), "with its square"),
    ("3", other(lambda m, rho: 2 * math.log(rho.min())), "norms are missing"),
    (
        "3",
        lambda m, rho: np.log((m * np.exp(-m)).mean() / rho.min() ** 2),
        "margins enter with their squares",
    ),
    ("3", lambda m, rho: log_bound(m, rho) / math.log(10), "natural logarithm"),
    ("3", lambda m, rho: -log_bound(m, rho), "Wrong sign"),
    ("3", lambda m, rho: log_bound(m, rho).exp(), "return its logarithm"),
    ("3", lambda m, rho: 1.0, "differs"),
    ("3", lambda m, rho: m, "Wrong shape"),
    ("3", lambda m, rho: None, "Wrong type"),
    ("3", lambda m, rho: 1 / 0, "raised ZeroDivisionError"),
    ("3", -1000.0, "the function itself"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"stationary.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"stationary.{number}", answer))


def test_the_graders_data_are_left_alone() -> None:
    def greedy(m, rho):
        value = log_bound(m.copy(), rho)
        m[:] = 0
        return value

    assert exercises.check("stationary.3", greedy).correct


@given(st.floats(1.0, 1e7), st.floats(1e-7, 1e3))
def test_sharpness_is_that_of_the_second_derivatives(w1: float, w2: float) -> None:
    m = w1 * w2
    if m > 600 or abs(m - 6 * math.log(10)) < 1e-9:
        return
    e = math.exp(-m)
    a, b, c = e * w2**2, e * (m - 1), e * w1**2
    top = (a + c) / 2 + math.hypot((a - c) / 2, b)
    if abs(top - 1000) > 1e-6:
        assert exercises.check("stationary.5", [w1, w2]).correct == (e < 1e-6 and top > 1000)


@settings(max_examples=25)
@given(st.floats(-10, 10), st.sampled_from([("stationary.1", LN2 / 3), ("stationary.2", 0.75)]))
def test_no_message_holds_an_answer(answer: float, case: tuple[str, float]) -> None:
    exercise_id, right = case
    for number in re.findall(r"\d+\.\d+", exercises.check(exercise_id, answer).reason):
        assert not math.isclose(float(number), right, rel_tol=0.02)
