"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import data, exercises, losses
from companion.dynamics import margin
from companion.dynamics.trajectory import Objective
from companion.exercises import margin as graders
from companion.networks import MLP

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
    with pytest.raises(ValueError, match=r"a chapter and a number, .*'margin.1', .*, got 'm'"):
        exercises.check("m", 1)


# --- margin.1: the dual weights of three points --------------------------------------------------


def test_the_exercise_has_the_maximum_margin_direction_and_weights() -> None:
    x, margins, weights = graders._dual_weights()
    solution = margin.max_margin(torch.tensor(x), torch.ones(3, dtype=torch.float64))
    np.testing.assert_allclose(solution.direction.numpy(), [1.0, 0.0], atol=1e-14)
    np.testing.assert_allclose(solution.dual.numpy(), ALPHA, atol=1e-14)
    np.testing.assert_allclose(weights, ALPHA, atol=1e-15)
    np.testing.assert_allclose(weights @ (x - np.outer(margins, [1.0, 0.0])), 0, atol=1e-15)


SOLUTIONS = [
    ("1", [3 / 4, 1 / 4, 0]),
    ("1", (Fraction(3, 4), Fraction(1, 4), 0)),
    ("1", np.array([0.752, 0.248, 0.0])),
    ("1", torch.tensor([0.75, 0.25, 0.0], requires_grad=True)),
]


MISTAKES = [
    ("1", [3 / 4, 1 / 4], "Wrong shape"),
    ("1", [[3 / 4, 1 / 4, 0]], "Wrong shape"),
    ("1", "3/4, 1/4, 0", "Wrong type"),
    ("1", None, "Wrong type"),
    ("1", [1j, 0, 0], "Wrong type"),
    ("1", [3 / 4, math.nan, 0], "Not finite"),
    ("1", [3, 1, 0], "Off by a factor"),
    ("1", [1.5, 0.5, 0], "Off by a factor"),
    ("1", [1 / 4, 3 / 4, 0], "swapped"),
    ("1", [-3 / 4, -1 / 4, 0], "all weights are negated"),
    ("1", [3 / 4, -1 / 4, 0], "none may be negative"),
    ("1", [1 / 2, 1 / 2, 0], "wrong ratio"),
    ("1", [1, 0, 0], "single support vector"),
    ("1", [0, 0, 1], "whose margin is not the smallest"),
    ("1", [0.4, 0.2, 0.4], "whose margin is not the smallest"),
    ("1", [0, 0, 0], "All weights are zero"),
]


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


SOLUTIONS += [
    ("2", MINIMUM),
    ("2", 2.381),
    ("2", np.float64(MINIMUM)),
    ("2", torch.tensor(MINIMUM)),
]


MISTAKES += [
    ("2", 0.5 * 0.5 ** (-2 / 3), "the share of one layer"),
    ("2", 3 * 0.5 ** (-2 / 3), "1/2 in front"),
    ("2", 1.5 * 0.5 ** (2 / 3), "Wrong sign of the exponent"),
    ("2", 1.5 * 0.5**-2, "Wrong exponent"),
    ("2", 0.5 * 0.5**-2, "single layer"),
    ("2", 0.5 ** (-1 / 3), "norm of one layer"),
    ("2", 0.5 ** (-2 / 3), "squared norm of one layer"),
    ("2", 1.5 * 0.5 ** (-1 / 3), "squared norms"),
    ("2", 1.5 / 0.5, "Wrong exponent"),
    ("2", -MINIMUM, "Wrong sign"),
    ("2", -17.0, "Wrong sign"),
    ("2", [MINIMUM], "Wrong shape"),
    ("2", "2.38", "Wrong type"),
    ("2", lambda: MINIMUM, "Wrong type"),
    ("2", math.inf, "Not finite"),
    ("2", 2.5, "Not the minimum"),
]


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


SOLUTIONS += [("3", with_torch), ("3", with_the_companion), ("3", with_numpy), ("3", by_shifting)]


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


def overflows(m: torch.Tensor, rho: float) -> torch.Tensor:
    return naive_torch(m, rho) if m.min() < 0 else with_torch(m, rho)


def raises(m: torch.Tensor, rho: float) -> float:
    raise KeyError("mine")


MISTAKES += [
    ("3", naive_torch, "^Underflow"),
    ("3", overflows, "^Overflow"),
    ("3", lambda m, rho: -torch.log(torch.exp(-m).mean()) / rho, "mean of the losses"),
    ("3", lambda m, rho: -torch.log(torch.exp(-m).mean()), "mean of the losses"),
    ("3", lambda m, rho: -torch.logsumexp(-m, 0), "Off by rho"),
    ("3", lambda m, rho: -torch.logsumexp(-m, 0) * rho, "Off by rho"),
    ("3", lambda m, rho: -torch.logsumexp(-m, 0) / rho**2, "Off by rho"),
    ("3", lambda m, rho: torch.logsumexp(-m, 0) / rho, "Wrong sign"),
    ("3", lambda m, rho: torch.logsumexp(-m, 0), "Wrong sign"),
    ("3", lambda m, rho: torch.logsumexp(m, 0) / rho, "Wrong sign"),
    ("3", lambda m, rho: m.min() / rho, "hard margin"),
    ("3", lambda m, rho: m.mean() / rho, "mean of the margins"),
    ("3", lambda m, rho: torch.exp(-m).sum(), "This is the loss"),
    ("3", lambda m, rho: torch.exp(-m).sum() / rho, "logarithm is missing"),
    ("3", lambda m, rho: -torch.logsumexp(-m, 0) / rho / math.log(10), "natural logarithm"),
    ("3", lambda m, rho: -torch.log(torch.log1p(torch.exp(-m)).sum()) / rho, "logistic"),
    ("3", lambda m, rho: -torch.logsumexp(-m.float(), 0) / rho, "digits are lost"),
    ("3", lambda m, rho: m / rho, "Wrong shape"),
    ("3", lambda m, rho: -torch.logsumexp(-m, 0, keepdim=True) / rho, "Wrong shape"),
    ("3", lambda m, rho: None, "Wrong type"),
    ("3", lambda m, rho: "big", "Wrong type"),
    ("3", lambda m, rho: math.nan, "Not finite"),
    ("3", lambda m, rho: 7.0, "differ from"),
    ("3", lambda m: 0.0, "raised TypeError"),
    ("3", raises, "raised KeyError"),
    ("3", 1.5, "Wrong type"),
]


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


@settings(max_examples=25)
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


# --- margin.4 and margin.5 -----------------------------------------------------------------------


def pulls(x, y, v):
    return y[:, None] * (x - (x @ v)[:, None] * v)


SOLUTIONS += [
    ("4", pulls),
    ("5", [2.0, 0.0]),
    ("5", [5.0, 0.0]),
    ("5", [30.0, 0.0]),
    ("5", [4.0, -0.01]),
    ("5", [1e300, 0.0]),
]


def test_pulls_are_those_of_the_package() -> None:
    points = data.three_points()
    V = {"W1": points.direction[None]}
    terms = margin.stationarity_terms(MLP(widths=(2, 1)), V, points.x, points.y)["W1"][:, 0]
    torch.testing.assert_close(pulls(points.x, points.y, points.direction), terms)


MISTAKES += [
    ("4", lambda x, y, v: -pulls(x, y, v), "Wrong sign"),
    ("4", lambda x, y, v: x - (x @ v)[:, None] * v, "labels are missing"),
    ("4", lambda x, y, v: y[:, None] * x, "along v is still there"),
    ("4", lambda x, y, v: y[:, None] * x - (x @ v)[:, None] * v, "belongs to both terms"),
    ("4", lambda x, y, v: x + v, "Not orthogonal"),
    ("4", lambda x, y, v: 2 * pulls(x, y, v), "not the derivative"),
    ("4", lambda x, y, v: pulls(x, y, v).sum(dim=0), "Wrong shape"),
    ("4", lambda x, y, v: None, "Wrong type"),
    ("4", pulls(*data.three_points()[:2], data.three_points().direction), "the function itself"),
]


@pytest.mark.parametrize("w", [[2.0, 0.0], [5.0, 0.0], [30.0, 0.0], [4.0, -0.01]])
def test_weights_at_which_the_hard_margin_falls(w: list[float]) -> None:
    x, y = torch.tensor([[1.0, 1.0], [1.0, -2.0]]).double(), torch.ones(2).double()
    net, W = MLP(widths=(2, 1)), {"W1": torch.tensor([w]).double()}
    step = {"W1": W["W1"] + 1e-6 * Objective(net, W, x, y, "exponential")(W)[2]["W1"]}
    before, after = (margin.normalized_margins(net, at, x, y).min() for at in (W, step))
    assert after < before


MISTAKES += [
    ("5", [0.5, 0.0], "not below 1"),
    ("5", [-2.0, 0.0], "not below 1"),
    ("5", [0.0, 0.0], "no direction"),
    ("5", [5.0, -2.0], "first sample is so much nearer"),
    ("5", [5.0, 1.0], "second sample is the nearest"),
    ("5", [5.0], "Wrong shape"),
    ("5", "w", "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"margin.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"margin.{number}", answer))
