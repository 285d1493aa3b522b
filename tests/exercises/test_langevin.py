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
from companion.landscape import langevin

TEMPERATURE = 0.06
CROSSOVER = 0.2 / math.log(25)


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- langevin.1 and langevin.2: numbers ----------------------------------------------------------


SOLUTIONS = [("1", 0.06), ("1", np.float64(0.06)), ("1", torch.tensor(0.06)), ("1", 0.36 / 6)]


MISTAKES = [
    ("1", 0.12, "Off by a factor"),
    ("1", 0.03, "Off by a factor"),
    ("1", 0.1, "square of the coefficient"),
    ("1", 0.2, "square of the coefficient"),
    ("1", 6 / 0.36, "inverse temperature"),
    ("1", 3 / 0.36, "a factor is missing"),
    ("1", 0.36 * 3 / 2, "confines more"),
    ("1", 0.18, "drift is missing"),
    ("1", 1 / 6, "coefficient one"),
    ("1", -0.06, "Wrong sign"),
    ("1", 1.0, "flux"),
    ("1", [0.06], "Wrong shape"),
    ("1", "T", "Wrong type"),
]


SOLUTIONS += [("2", CROSSOVER), ("2", 0.0621), ("2", torch.tensor(CROSSOVER))]


MISTAKES += [
    ("2", 0.1 / math.log(25), "power -1/2"),
    ("2", 0.6 / math.log(25), "single direction"),
    ("2", 0.3 / math.log(25), "Count the directions"),
    ("2", 1 / CROSSOVER, "inverse temperature"),
    ("2", 0.2 / math.log10(25), "natural logarithm"),
    ("2", 0.6 / 72, "by its logarithm"),
    ("2", -CROSSOVER, "Wrong sign"),
    ("2", 0.5, "Laplace"),
    ("2", None, "Wrong type"),
    ("2", math.nan, "Not finite"),
]


# --- langevin.3: the covariance of a batch -------------------------------------------------------


def covariance(gradients, b):
    N = len(gradients)
    centred = gradients - gradients.mean(axis=0)
    return (N - b) / (b * (N - 1)) * centred.T @ centred / N


def with_torch(gradients, b):
    return langevin.noise_covariance(torch.tensor(gradients), b)


def with_the_unbiased_one(gradients, b):
    return np.cov(gradients.T) * (1 - b / len(gradients)) / b


SOLUTIONS += [("3", covariance), ("3", with_torch), ("3", with_the_unbiased_one)]


MISTAKES += [
    ("3", lambda g, b: g.T @ g / len(g), "mean gradient is missing"),
    ("3", lambda g, b: np.cov(g.T, bias=True) / b, "with replacement"),
    ("3", lambda g, b: np.cov(g.T, bias=True), "must matter"),
    ("3", lambda g, b: np.cov(g.T), "must matter"),
    ("3", lambda g, b: np.cov(g.T, bias=True) * (1 - b / len(g)) / b, "at batches of one"),
    ("3", lambda g, b: covariance(g, b) * b, "larger"),
    ("3", lambda g, b: covariance(g, b) * len(g) / (len(g) - 1), "divide by their number"),
    ("3", lambda g, b: -covariance(g, b), "not the covariance"),
    ("3", lambda g, b: covariance(g, b).trace(), "Wrong shape"),
    ("3", lambda g, b: None, "Wrong type"),
    ("3", lambda g: g, "raised TypeError"),
    ("3", 0.5, "the function itself"),
]


# --- langevin.4: accept or reject ----------------------------------------------------------------


def acceptance(V, slope, x, y, T, h, *, depth=1.0, back=1.0, variance=2.0, temper=True):
    def log_q(to, start):
        return -((to - start + h * slope(start)) ** 2) / (2 * variance * h * T)

    log_ratio = depth * (V(x) - V(y)) / (T if temper else 1)
    return math.exp(min(0.0, log_ratio + back * (log_q(x, y) - log_q(y, x))))


SOLUTIONS += [("4", acceptance)]


def changed(**change):
    def answer(V, slope, x, y, T, h):
        return acceptance(V, slope, x, y, T, h, **change)

    return answer


MISTAKES += [
    ("4", changed(back=0.0), "proposal is missing"),
    ("4", changed(back=-1.0), "wrong way round"),
    ("4", changed(depth=-1.0), "sign of V"),
    ("4", changed(temper=False), "temperature is missing"),
    ("4", changed(variance=4.0), "2 h T"),
    ("4", changed(variance=1.0), "not h T"),
    ("4", changed(depth=3.0), "not the ratio"),
]
MISTAKES += [
    ("4", lambda V, s, x, y, T, h: 1.5, "More than one"),
    ("4", lambda V, s, x, y, T, h: -0.5, "Negative"),
    ("4", lambda V, s, x, y, T, h: [1.0], "Wrong shape"),
    ("4", lambda V, s, x, y, T, h: math.nan, "Not finite"),
    ("4", lambda V: 1.0, "raised TypeError"),
    ("4", 0.7, "the function itself"),
]


# --- langevin.5: stable by noise -----------------------------------------------------------------


SOLUTIONS += [("5", [1, 3, 1.2]), ("5", [3, 1, 1.2]), ("5", [0.1, 0.3, 12.0]), ("5", [1, 3, 1.33])]


@pytest.mark.parametrize("answer", [answer for number, answer in SOLUTIONS if number == "5"])
def test_curvatures_that_noise_makes_stable(answer: list[float]) -> None:
    h = torch.tensor(answer[:2], dtype=torch.float64)
    assert answer[2] * float(h.mean()) > 2
    assert langevin.lyapunov_exponent(h, answer[2]) < 0


MISTAKES += [
    ("5", [1, 3, 0.9], "GD does not diverge"),
    ("5", [1, 3, 1.4], "Almost every path of SGD leaves"),
    ("5", [2, 2, 1.2], "Almost every path of SGD leaves"),
    ("5", [-1, 3, 1.2], "curvatures must be positive"),
    ("5", [1, 3, -1.2], "step size must be positive"),
    ("5", [1, 3], "Wrong shape"),
    ("5", "h", "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"langevin.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"langevin.{number}", answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(st.floats(-10, 10) | st.text(max_size=3), st.sampled_from(["langevin.1", "langevin.2"]))
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.?\d*", verdict.reason):
        assert not any(
            math.isclose(float(number), value, rel_tol=0.02) for value in (TEMPERATURE, CROSSOVER)
        )
