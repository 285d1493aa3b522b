"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch

from companion import exercises


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"complexity.{number}", answer)
    assert not verdict.correct
    return verdict.reason


def enumerated(x: torch.Tensor) -> torch.Tensor:
    e = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(x))), dtype=x.dtype)
    return (e @ x).norm(dim=1).mean() / len(x)


def largest(x: torch.Tensor) -> torch.Tensor:
    e = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(x))), dtype=x.dtype)
    return (e @ x).norm(dim=1).max() / len(x)


ROOT = math.sqrt(math.log(20) / 2)


SOLUTIONS = [
    ("1", 5 / 6),
    ("1", 0.8333),
    ("2", 2729),
    ("2", math.ceil(100 * (4 + ROOT) ** 2)),
    ("3", enumerated),
    ("4", [0, 1, 0, 0, -1, 0]),
    ("4", torch.tensor([0.0, 1.0, 0.0, 0.0, -1.0, 0.0])),
    ("5", [100.0, 0.01]),
    ("5", [1000.0, 0.05]),
]


HALF = math.sqrt(0.5)


MISTAKES = [
    ("1", 2.5, "Divide by the number"),
    ("1", 5 / 3, "Twice the complexity"),
    ("1", abs(1 + 2 + 2) / 3, "one sign vector"),
    ("1", 1.0, "not attained"),
    ("1", 0.0, "supremum comes first"),
    ("1", 5 / 12, "either sign"),
    ("1", -5 / 6, "Wrong sign"),
    ("1", 0.7, "list the sign vectors"),
    ("1", "5/6", "Wrong type"),
    ("2", 2728, "Close"),
    ("2", 2728.9, "Not an integer"),
    ("2", 1600, "last term"),
    ("2", round(100 * (4 + math.sqrt(math.log(20))) ** 2), "in its denominator"),
    ("2", math.ceil(100 * (2 + ROOT) ** 2), "not 1-Lipschitz"),
    ("2", math.ceil(100 * (1 + ROOT) ** 2), "factor 2 in front"),
    ("2", math.ceil(100 * (4 + math.sqrt(math.log(40) / 2)) ** 2), "one-sided"),
    ("2", 100, "Too few"),
    ("2", 10**6, "not the smallest"),
    ("3", lambda x: len(x) * enumerated(x), "Divide by"),
    ("3", lambda x: 2 * enumerated(x), "Twice"),
    ("3", lambda x: x.norm() / len(x), "upper bound"),
    ("3", lambda x: x.sum(0).norm() / len(x), "Only one sign vector"),
    ("3", largest, "largest supremum"),
    ("3", lambda x: enumerated(x) * 1.01, "Close"),
    ("3", lambda x: 7.0, "Not the mean"),
    ("3", lambda x: x / 0 if False else x, "Wrong shape"),
    ("3", 1.0, "the function itself"),
    ("4", [0, -1, 0, 0, 1, 0], "none is negative"),
    ("4", [0, 1, 0, 0, 1, 0], "value is negative"),
    ("4", [0, 2, 0, 0, -1, 0], "norm of a"),
    ("4", [0, 1, 0, 0, -2, 0], "norm of v"),
    ("4", [0, 0, 1, 0, 0, 1], "best for these sizes"),
    ("4", [0, HALF, HALF, 0, 0, 1], "larger value"),
    ("4", [1, 0], "Wrong shape"),
    ("5", [1.0, 0.3], "theorem holds"),
    ("5", [10.0, 0.01], "within the bound"),
    ("5", [100.0, 0.2], "rarer"),
    ("5", [100.0, 1.5], "Out of range"),
    ("5", [-1.0, 0.5], "Out of range"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"complexity.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))


def test_no_message_holds_an_answer() -> None:
    for value in (0.0, 0.5, 1.0, 5 / 3, 2.5, -1.0):
        assert "0.83" not in reason("1", value) and "5/6" not in reason("1", value)
    for value in (100, 1600, 2728, 2730, 3000):
        assert "2729" not in reason("2", value)
