"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import exercises, losses
from companion.dynamics import margin
from companion.exercises import margin as graders

ALPHA = np.array([3 / 4, 1 / 4, 0.0])
MINIMUM = 1.5 * 0.5 ** (-2 / 3)


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def test_verdict_is_frozen_and_silent_outside_ipython(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = exercises.check("margin.1", ALPHA)
    assert verdict.correct and verdict.reason
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.correct = False
    assert capsys.readouterr().out == ""


def test_unknown_exercise_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"one of 'margin.1', 'margin.2', .*, got 'margin.0'"):
        exercises.check("margin.0", 1)
    with pytest.raises(ValueError, match=r"a chapter and a number, such as .*'margin.1', got 'm'"):
        exercises.check("m", 1)


# --- margin.1: the dual weights of three points --------------------------------------------------


def test_the_exercise_has_the_maximum_margin_direction_and_weights() -> None:
    x, margins, weights = graders._dual_weights()
    solution = margin.max_margin(torch.tensor(x), torch.ones(3, dtype=torch.float64))
    np.testing.assert_allclose(solution.direction.numpy(), [1.0, 0.0], atol=1e-14)
    np.testing.assert_allclose(solution.dual.numpy(), ALPHA, atol=1e-14)
    np.testing.assert_allclose(weights, ALPHA, atol=1e-15)
    np.testing.assert_allclose(weights @ (x - np.outer(margins, [1.0, 0.0])), 0, atol=1e-15)


@pytest.mark.parametrize(
    "answer",
    [
        [3 / 4, 1 / 4, 0],
        (Fraction(3, 4), Fraction(1, 4), 0),
        np.array([0.752, 0.248, 0.0]),
        torch.tensor([0.75, 0.25, 0.0], requires_grad=True),
    ],
)
def test_margin_1_accepts_the_solution(answer: object) -> None:
    assert exercises.check("margin.1", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([3 / 4, 1 / 4], "Wrong shape"),
        ([[3 / 4, 1 / 4, 0]], "Wrong shape"),
        ("3/4, 1/4, 0", "Wrong type"),
        (None, "Wrong type"),
        ([1j, 0, 0], "Wrong type"),
        ([3 / 4, math.nan, 0], "Not finite"),
        ([3, 1, 0], "Off by a factor"),
        ([1.5, 0.5, 0], "Off by a factor"),
        ([1 / 4, 3 / 4, 0], "swapped"),
        ([-3 / 4, -1 / 4, 0], "all weights are negated"),
        ([3 / 4, -1 / 4, 0], "none may be negative"),
        ([1 / 2, 1 / 2, 0], "wrong ratio"),
        ([1, 0, 0], "single support vector"),
        ([0, 0, 1], "whose margin is not the smallest"),
        ([0.4, 0.2, 0.4], "whose margin is not the smallest"),
        ([0, 0, 0], "All weights are zero"),
    ],
)
def test_margin_1_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("margin.1", answer)


@given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
def test_margin_1_accepts_only_a_neighbourhood(shift: list[float]) -> None:
    answer = ALPHA + shift
    if np.abs(shift).max() < 2e-3:
        assert exercises.check("margin.1", answer).correct
    if np.abs(shift).max() > 5e-2:
        assert not exercises.check("margin.1", answer).correct


@given(st.floats(1.05, 1e3) | st.floats(0.02, 0.95))
def test_margin_1_sees_a_factor(factor: float) -> None:
    assert "Off by a factor" in reason("margin.1", factor * ALPHA)


# --- margin.2: the constant of Lemma 4 -----------------------------------------------------------


@pytest.mark.parametrize("answer", [MINIMUM, 2.381, np.float64(MINIMUM), torch.tensor(MINIMUM)])
def test_margin_2_accepts_the_solution(answer: object) -> None:
    assert exercises.check("margin.2", answer).correct


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (0.5 * 0.5 ** (-2 / 3), "the share of one layer"),
        (3 * 0.5 ** (-2 / 3), "1/2 in front"),
        (1.5 * 0.5 ** (2 / 3), "Wrong sign of the exponent"),
        (1.5 * 0.5**-2, "Wrong exponent"),
        (0.5 * 0.5**-2, "single layer"),
        (0.5 ** (-1 / 3), "norm of one layer"),
        (0.5 ** (-2 / 3), "squared norm of one layer"),
        (1.5 * 0.5 ** (-1 / 3), "squared norms"),
        (1.5 / 0.5, "Wrong exponent"),
        (-MINIMUM, "Wrong sign"),
        (-17.0, "Wrong sign"),
        ([MINIMUM], "Wrong shape"),
        ("2.38", "Wrong type"),
        (lambda: MINIMUM, "Wrong type"),
        (math.inf, "Not finite"),
        (2.5, "Not the minimum"),
    ],
)
def test_margin_2_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("margin.2", answer)


@given(st.floats(0.01, 100.0))
def test_margin_2_accepts_only_a_neighbourhood(factor: float) -> None:
    correct = exercises.check("margin.2", factor * MINIMUM).correct
    if abs(factor - 1) < 0.9e-3:
        assert correct
    if abs(factor - 1) > 1.1e-3:
        assert not correct


# --- margin.3: the smoothed margin as a function -------------------------------------------------


def with_torch(m: torch.Tensor, rho: float) -> torch.Tensor:
    return -torch.logsumexp(-m, 0) / rho


def with_the_companion(m: torch.Tensor, rho: float) -> torch.Tensor:
    return -losses.log_loss(m, "exponential") / rho


def with_numpy(m: np.ndarray, rho: float) -> float:
    return -np.logaddexp.reduce(-m) / rho


def by_shifting(m: torch.Tensor, rho: float) -> float:
    low = min(m)
    return float(low - math.log(sum(math.exp(low - value) for value in m))) / rho


@pytest.mark.parametrize("answer", [with_torch, with_the_companion, with_numpy, by_shifting])
def test_margin_3_accepts_solutions(answer: object) -> None:
    assert exercises.check("margin.3", answer).correct


def naive_torch(m: torch.Tensor, rho: float) -> torch.Tensor:
    return -torch.log(torch.exp(-m).sum()) / rho


def naive_numpy(m: np.ndarray, rho: float) -> float:
    return -np.log(np.sum(np.exp(-m), axis=0)) / rho


def naive_math(m: torch.Tensor, rho: float) -> float:
    return -math.log(sum(math.exp(-value) for value in m)) / rho


def naive_with_a_floor(m: torch.Tensor, rho: float) -> torch.Tensor:
    return -torch.log(torch.exp(-m).sum() + 1e-300) / rho


@pytest.mark.parametrize("answer", [naive_torch, naive_numpy, naive_math, naive_with_a_floor])
def test_margin_3_sees_underflow(answer: object) -> None:
    message = reason("margin.3", answer)
    assert message.startswith("Underflow") and "near 1000 " in message


def test_margin_3_sees_overflow() -> None:
    def answer(m: torch.Tensor, rho: float) -> torch.Tensor:
        return naive_torch(m, rho) if m.min() < 0 else with_torch(m, rho)

    assert reason("margin.3", answer).startswith("Overflow")


def raises(m: torch.Tensor, rho: float) -> float:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda m, rho: -torch.log(torch.exp(-m).mean()) / rho, "mean of the losses"),
        (lambda m, rho: -torch.log(torch.exp(-m).mean()), "mean of the losses"),
        (lambda m, rho: -torch.logsumexp(-m, 0), "Off by rho"),
        (lambda m, rho: -torch.logsumexp(-m, 0) * rho, "Off by rho"),
        (lambda m, rho: -torch.logsumexp(-m, 0) / rho**2, "Off by rho"),
        (lambda m, rho: torch.logsumexp(-m, 0) / rho, "Wrong sign"),
        (lambda m, rho: torch.logsumexp(-m, 0), "Wrong sign"),
        (lambda m, rho: torch.logsumexp(m, 0) / rho, "Wrong sign"),
        (lambda m, rho: m.min() / rho, "hard margin"),
        (lambda m, rho: m.mean() / rho, "mean of the margins"),
        (lambda m, rho: torch.exp(-m).sum(), "This is the loss"),
        (lambda m, rho: -torch.logsumexp(-m, 0) / rho / math.log(10), "natural logarithm"),
        (lambda m, rho: -torch.log(torch.log1p(torch.exp(-m)).sum()) / rho, "logistic"),
        (lambda m, rho: -torch.logsumexp(-m.float(), 0) / rho, "digits are lost"),
        (lambda m, rho: m / rho, "Wrong shape"),
        (lambda m, rho: -torch.logsumexp(-m, 0, keepdim=True) / rho, "Wrong shape"),
        (lambda m, rho: None, "Wrong type"),
        (lambda m, rho: "big", "Wrong type"),
        (lambda m, rho: math.nan, "Not finite"),
        (lambda m, rho: 7.0, "differ from"),
        (lambda m: 0.0, "raised TypeError"),
        (raises, "raised KeyError"),
        (1.5, "Wrong type"),
    ],
)
def test_margin_3_names_the_mistake(answer: object, why: str) -> None:
    assert why in reason("margin.3", answer)


@given(st.floats(-10.0, 10.0), st.floats(0.1, 10.0))
def test_margin_3_accepts_no_other_affine_answer(shift: float, factor: float) -> None:
    if abs(shift) > 1e-3 or abs(factor - 1) > 1e-3:
        reason("margin.3", lambda m, rho: factor * with_torch(m, rho) + shift)


def test_margin_3_leaves_the_graders_data_alone() -> None:
    def greedy(m: torch.Tensor, rho: float) -> torch.Tensor:
        result = with_torch(m, rho)
        m.zero_()
        return result

    assert exercises.check("margin.3", greedy).correct


# --- no answer in a message ----------------------------------------------------------------------

ANSWERS = [*ALPHA[:2], MINIMUM]


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3) | st.floats(-10, 10) | st.text(max_size=3),
    st.sampled_from(["margin.1", "margin.2", "margin.3"]),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.?\d*", verdict.reason):
        assert not any(math.isclose(float(number), value, rel_tol=0.02) for value in ANSWERS)


def test_line_in_a_notebook_is_text_and_html() -> None:
    bundle = exercises._bundle("margin.1", exercises.Verdict(False, "a < b"))
    assert bundle["text/plain"] == "✗ margin.1: not yet. a < b"
    assert "a &lt; b" in bundle["text/html"] and 'class="exercise-check"' in bundle["text/html"]
