"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import pytest
import torch

from companion import exercises
from companion.dynamics import norm_control

SOLUTION_5 = [[5 * 0.42, 5 * 0.91], [0.35, 0.35], [0.45, 0.21]]


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def induced(W: torch.Tensor, W_dot: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rho = W.norm()
    V = W / rho
    radial = (V * W_dot).sum()
    return radial, (W_dot - radial * V) / rho


SOLUTIONS = [
    ("1", 0.6),
    ("2", 0.0625),
    ("3", induced),
    ("4", math.exp(-5) / 10),
    ("5", SOLUTION_5),
    ("5", torch.tensor(SOLUTION_5)),
]


def test_solution_1_is_the_packages() -> None:
    margins = norm_control.stationary_margins(torch.tensor([1.0, 0.75]))
    assert margins.tolist() == pytest.approx([1.0, 0.75, 0.6])


MISTAKES = [
    ("1", 0.75, "second coordinate"),
    ("1", 1.0, "first coordinate"),
    ("1", 0.36, "square root"),
    ("1", 5 / 3, "Upside down"),
    ("1", 1.25, "Wrong proportion"),
    ("1", 3 / 7, "squares that sum to 1"),
    ("1", -0.6, "Wrong sign"),
    ("1", 0.1, "unit norm"),
    ("1", "0.6", "Wrong type"),
    ("2", 0.25, "Not squared"),
    ("2", 2.25, "product of all norms"),
    ("2", 1.5, "factor in front"),
    ("2", 4.0, "first layer"),
    ("2", 16.0, "Upside down"),
    ("2", 0.7, "Divide the factors"),
    ("3", 1.0, "function itself"),
    ("3", lambda W, D: D, "two things"),
    ("3", lambda W, D: ((W * D).sum(), D), "in place of V"),
    ("3", lambda W, D: (D.norm(), D), "part of W_dot along V"),
    ("3", lambda W, D: (induced(W, D)[0], induced(W, D)[1] * W.norm()), "lacks the division"),
    ("3", lambda W, D: (induced(W, D)[0], D / W.norm()), "projection is missing"),
    ("3", lambda W, D: (induced(W, D)[0], -induced(W, D)[1]), "not that of Eq. 14"),
    ("3", lambda W, D: (induced(W, D)[0], W), "not orthogonal"),
    ("4", math.exp(-5) / 5, "has a 2"),
    ("4", math.exp(-5) * 2.5, "multiplier"),
    ("4", math.exp(-5), "missing"),
    ("4", math.exp(-5) / 2, "proportional"),
    ("4", math.exp(5) / 10, "exponent"),
    ("4", 0.1, "Set the derivative"),
    ("5", [[1, 1], [1, 1]], "Wrong shape"),
    ("5", [[1, 1], [1, 1], [1, -1]], "positive"),
    ("5", [[1, 1], [1, 1], [1, 1e-6]], "between"),
    ("5", [[1, 1], [1, 1], [1, 1]], "same path"),
    ("5", [[9, 1], [1, 1], [1, 1]], "Both flows end on coordinate 1"),
    ("5", [[0.1, 9], [1, 1], [1, 1]], "Both flows end on coordinate 2"),
    ("5", [[0.4, 1.7], [2.0, 0.8], [0.5, 0.9]], "other way round"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"norm_control.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"norm_control.{number}", answer))


@pytest.mark.parametrize(("number", "leak"), [("1", "0.6"), ("2", "0.0625"), ("4", "0.00067")])
def test_no_message_holds_the_answer(number: str, leak: str) -> None:
    for wrong in (0.1, 0.3, 2.0, -1.0, 7.0, 1e9):
        assert leak not in reason(f"norm_control.{number}", wrong)
