"""The solutions of the chapter on Theorem 4 pass, and mistakes get their reason."""

from __future__ import annotations

import math

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


ALPHA = [1 / math.sqrt(5)] * 2

SOLUTIONS = {
    "theorem_4.1": [1.0, 1],
    "theorem_4.2": [math.sqrt(5) / 2, 1.118],
    "theorem_4.3": [ALPHA, torch.tensor(ALPHA)],
    "theorem_4.4": [balanced],
    "theorem_4.5": [[[0.1, 1.0], [-0.1, 1.0]], [[0.0, 1.0], [0.2, 2.0]]],
}


@pytest.mark.parametrize(
    ("exercise_id", "answer"), [(k, a) for k, answers in SOLUTIONS.items() for a in answers]
)
def test_solutions(exercise_id: str, answer: object) -> None:
    assert exercises.check(exercise_id, answer).correct


def test_the_best_margin_is_certified() -> None:
    x = torch.tensor(graders._X)
    found = certificates.best_margin(x, torch.ones(2, dtype=torch.float64))
    assert found.margin == pytest.approx(graders._BEST, rel=1e-12)
    torch.testing.assert_close(found.dual, torch.tensor(ALPHA, dtype=torch.float64))


@pytest.mark.parametrize(
    ("exercise_id", "answer", "why"),
    [
        ("theorem_4.1", 2.0, "both layers"),
        ("theorem_4.1", math.sqrt(2), "not normalized yet"),
        ("theorem_4.1", 0.5, "add up"),
        ("theorem_4.1", -1.0, "Wrong sign"),
        ("theorem_4.1", 7.0, "Not the smallest"),
        ("theorem_4.2", math.sqrt(5), "spent twice"),
        ("theorem_4.2", 2.5, "not its square"),
        ("theorem_4.2", 3.0, "Not the largest"),
        ("theorem_4.3", [0.5, 0.5], "Not feasible"),
        ("theorem_4.3", [0.2, 0.2], "not the best"),
        ("theorem_4.3", [-0.2, 0.2], "Wrong sign"),
        ("theorem_4.3", [0.2], "Wrong shape"),
        ("theorem_4.4", lambda W1, W2: (W1, W2), "different from"),
        ("theorem_4.4", whole_layers, "one by one"),
        ("theorem_4.4", lambda W1, W2: (2 * W1, W2), "outputs have changed"),
        ("theorem_4.4", lambda W1, W2: W1, "Wrong type"),
        ("theorem_4.4", 3, "the function itself"),
        ("theorem_4.5", [[2.0, 1.0], [-2.0, 1.0]], "not that of exercise 1"),
        ("theorem_4.5", [[0.0, -1.0], [0.0, -1.0]], "does not separate"),
        ("theorem_4.5", [[0.0, 0.0], [0.0, 1.0]], "zero"),
    ],
)
def test_mistakes(exercise_id: str, answer: object, why: str) -> None:
    message = reason(exercise_id, answer)
    assert why in message and "1.118" not in message and "0.447" not in message
