"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
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


@pytest.mark.parametrize("answer", [0.06, np.float64(0.06), torch.tensor(0.06), 0.36 / 6])
def test_the_temperature(answer: object) -> None:
    assert exercises.check("langevin.1", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (0.12, "Off by a factor"),
        (0.03, "Off by a factor"),
        (0.1, "square of the coefficient"),
        (0.2, "square of the coefficient"),
        (6 / 0.36, "inverse temperature"),
        (0.18, "drift is missing"),
        (1 / 6, "coefficient one"),
        (-0.06, "Wrong sign"),
        (1.0, "flux"),
        ([0.06], "Wrong shape"),
        ("T", "Wrong type"),
    ],
)
def test_wrong_temperatures(answer: object, why: str) -> None:
    assert why in reason("langevin.1", answer)


@pytest.mark.parametrize("answer", [CROSSOVER, 0.0621, torch.tensor(CROSSOVER)])
def test_the_crossover(answer: object) -> None:
    assert exercises.check("langevin.2", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (0.1 / math.log(25), "power -1/2"),
        (0.6 / math.log(25), "single direction"),
        (0.3 / math.log(25), "Count the directions"),
        (1 / CROSSOVER, "inverse temperature"),
        (0.2 / math.log10(25), "natural logarithm"),
        (0.6 / 72, "by its logarithm"),
        (-CROSSOVER, "Wrong sign"),
        (0.5, "Laplace"),
        (None, "Wrong type"),
        (math.nan, "Not finite"),
    ],
)
def test_wrong_crossovers(answer: object, why: str) -> None:
    assert why in reason("langevin.2", answer)


# --- langevin.3: the covariance of a batch -------------------------------------------------------


def covariance(gradients, b):
    N = len(gradients)
    centred = gradients - gradients.mean(axis=0)
    return (N - b) / (b * (N - 1)) * centred.T @ centred / N


def with_torch(gradients, b):
    return langevin.noise_covariance(torch.tensor(gradients), b)


def with_the_unbiased_one(gradients, b):
    return np.cov(gradients.T) * (1 - b / len(gradients)) / b


@pytest.mark.parametrize("answer", [covariance, with_torch, with_the_unbiased_one])
def test_the_covariance(answer: object) -> None:
    assert exercises.check("langevin.3", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda g, b: g.T @ g / len(g), "mean gradient is missing"),
        (lambda g, b: np.cov(g.T, bias=True) / b, "with replacement"),
        (lambda g, b: np.cov(g.T, bias=True), "must matter"),
        (lambda g, b: np.cov(g.T), "must matter"),
        (lambda g, b: np.cov(g.T, bias=True) * (1 - b / len(g)) / b, "at batches of one"),
        (lambda g, b: covariance(g, b) * b, "larger"),
        (lambda g, b: -covariance(g, b), "not the covariance"),
        (lambda g, b: covariance(g, b).trace(), "Wrong shape"),
        (lambda g, b: None, "Wrong type"),
        (lambda g: g, "raised TypeError"),
        (0.5, "the function itself"),
    ],
)
def test_wrong_covariances(answer: object, why: str) -> None:
    assert why in reason("langevin.3", answer)


# --- langevin.4: accept or reject ----------------------------------------------------------------


def acceptance(V, slope, x, y, T, h, *, depth=1.0, back=1.0, variance=2.0, temper=True):
    def log_q(to, start):
        return -((to - start + h * slope(start)) ** 2) / (2 * variance * h * T)

    log_ratio = depth * (V(x) - V(y)) / (T if temper else 1)
    return math.exp(min(0.0, log_ratio + back * (log_q(x, y) - log_q(y, x))))


def test_the_acceptance() -> None:
    assert exercises.check("langevin.4", acceptance).correct


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"back": 0.0}, "proposal is missing"),
        ({"back": -1.0}, "wrong way round"),
        ({"depth": -1.0}, "sign of V"),
        ({"temper": False}, "temperature is missing"),
        ({"variance": 4.0}, "2 h T"),
        ({"variance": 1.0}, "not h T"),
        ({"depth": 3.0}, "not the ratio"),
    ],
)
def test_wrong_acceptances(change: dict, why: str) -> None:
    def answer(V, slope, x, y, T, h):
        return acceptance(V, slope, x, y, T, h, **change)

    assert why in reason("langevin.4", answer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda V, s, x, y, T, h: 1.5, "More than one"),
        (lambda V, s, x, y, T, h: -0.5, "Negative"),
        (lambda V, s, x, y, T, h: [1.0], "Wrong shape"),
        (lambda V, s, x, y, T, h: math.nan, "Not finite"),
        (lambda V: 1.0, "raised TypeError"),
        (0.7, "the function itself"),
    ],
)
def test_answers_that_are_no_acceptance(answer: object, why: str) -> None:
    assert why in reason("langevin.4", answer)


# --- langevin.5: stable by noise -----------------------------------------------------------------


@pytest.mark.parametrize("answer", [[1, 3, 1.2], [3, 1, 1.2], [0.1, 0.3, 12.0], [1, 3, 1.33]])
def test_curvatures_that_noise_makes_stable(answer: list[float]) -> None:
    assert exercises.check("langevin.5", answer).correct
    h = torch.tensor(answer[:2], dtype=torch.float64)
    assert answer[2] * float(h.mean()) > 2
    assert langevin.lyapunov_exponent(h, answer[2]) < 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([1, 3, 0.9], "GD does not diverge"),
        ([1, 3, 1.4], "Almost every path of SGD leaves"),
        ([2, 2, 1.2], "Almost every path of SGD leaves"),
        ([-1, 3, 1.2], "curvatures must be positive"),
        ([1, 3, -1.2], "step size must be positive"),
        ([1, 3], "Wrong shape"),
        ("h", "Wrong type"),
    ],
)
def test_curvatures_that_are_no_answer(answer: object, why: str) -> None:
    assert why in reason("langevin.5", answer)


# --- no answer in a message ----------------------------------------------------------------------


@given(st.floats(-10, 10) | st.text(max_size=3), st.sampled_from(["langevin.1", "langevin.2"]))
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.?\d*", verdict.reason):
        assert not any(
            math.isclose(float(number), value, rel_tol=0.02) for value in (TEMPERATURE, CROSSOVER)
        )
