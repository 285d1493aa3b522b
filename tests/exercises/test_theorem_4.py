"""The solutions of the chapter on Theorem 4 pass, and mistakes get their reason."""

from __future__ import annotations

import math
import re

import pytest
import torch

from companion import exercises
from companion.dynamics import certificates
from companion.exercises import theorem_4 as graders


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def balanced(W1: torch.Tensor, W2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    c = (W2[0].abs() / W1.norm(dim=1)).sqrt()
    return c[:, None] * W1, W2 / c


def whole_layers(W1: torch.Tensor, W2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    c = (W2.norm() / W1.norm()).sqrt()
    return c * W1, W2 / c


def without_root(W1: torch.Tensor, W2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    c = W2[0].abs() / W1.norm(dim=1)
    return c[:, None] * W1, W2 / c


ALPHA = [1 / math.sqrt(5)] * 2

SOLUTIONS = [
    ("1", 1.0),
    ("1", 1),
    ("2", math.sqrt(5) / 2),
    ("2", 1.118),
    ("3", ALPHA),
    ("3", torch.tensor(ALPHA)),
    ("4", balanced),
    ("5", [[0.1, 1.0], [-0.1, 1.0]]),
    ("5", [[0.0, 1.0], [0.2, 2.0]]),
]


def test_the_best_margin_is_certified() -> None:
    x = torch.tensor(graders._X)
    found = certificates.best_margin(x, torch.ones(2, dtype=torch.float64))
    assert found.margin == pytest.approx(graders._BEST, rel=1e-12)
    torch.testing.assert_close(found.dual, torch.tensor(ALPHA, dtype=torch.float64))


MISTAKES = [
    ("1", 2.0, "both layers"),
    ("1", math.sqrt(2), "not normalized yet"),
    ("1", 0.5, "add up"),
    ("1", math.sqrt(5) / 2, "another network"),
    ("1", -1.0, "Wrong sign"),
    ("1", 7.0, "Not the smallest"),
    ("2", math.sqrt(5), "spent twice"),
    ("2", 2.5, "not its square"),
    ("2", math.sqrt(2.5), "not normalized yet"),
    ("2", 1.0, "active on both points"),
    ("2", 3.0, "Not the largest"),
    ("3", [0.5, 0.5], "Not feasible"),
    ("3", [0.2, 0.2], "not its square"),
    ("3", [0.3, 0.3], "not the best"),
    ("3", [0.0, 2 / math.sqrt(5)], "Not feasible"),
    ("3", [-0.2, 0.2], "Wrong sign"),
    ("3", [0.2], "Wrong shape"),
    ("4", lambda W1, W2: (W1, W2), "different from"),
    ("4", whole_layers, "one by one"),
    ("4", without_root, "root is missing"),
    ("4", lambda W1, W2: (2 * W1, W2), "outputs have changed"),
    ("4", lambda W1, W2: W1, "Wrong type"),
    ("4", 3, "the function itself"),
    ("5", [[2.0, 1.0], [-2.0, 1.0]], "not that of exercise 1"),
    ("5", [[0.0, -1.0], [0.0, -1.0]], "does not separate"),
    ("5", [[0.0, 0.0], [0.0, 1.0]], "zero"),
    ("5", [[2e200, 1e200], [-2e200, 1e200]], "Too large"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"theorem_4.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"theorem_4.{number}", answer))
