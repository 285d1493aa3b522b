"""Graders of the chapter on speed: solutions pass, typical mistakes get their reason."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from companion import exercises


def reason(number: str, answer: object) -> str:
    verdict = exercises.check(f"speed.{number}", answer)
    assert not verdict.correct
    return verdict.reason


def bounds(x: Any, y: Any, w: Any, p: Any) -> tuple[Any, Any]:
    signed = y[:, None] * x
    return (signed @ w).min() / np.linalg.norm(w), np.linalg.norm(p @ signed)


def step(x: Any, y: Any, w: Any, eta: float) -> Any:
    signed = y[:, None] * x
    m = signed @ w
    p = np.exp(m.min() - m)
    return w + eta * (p / p.sum()) @ signed


def climb(gradient: Any, d: int) -> Any:
    w, g, h = np.zeros(d), np.zeros(d), gradient(np.zeros(d))
    for t in range(299):
        w = w + g + h
        h = gradient(w)
        g = t / (t + 1) * (g + h)
    return w


def naive(x: Any, y: Any, w: Any, eta: float) -> Any:
    signed = y[:, None] * x
    e = np.exp(-signed @ w)
    return w + eta * (e / e.sum()) @ signed


def unit_step(x: Any, y: Any, w: Any, eta: float) -> Any:
    gradient = step(x, y, w, 1.0) - w
    return w + eta * gradient / np.linalg.norm(gradient)


def constant(lr: float) -> Any:
    def climb(gradient: Any, d: int) -> Any:
        w = np.zeros(d)
        for _ in range(300):
            w = w + lr * gradient(w)
        return w

    return climb


SOLUTIONS = [
    ("1", 8000),
    ("1", torch.tensor(8000.0)),
    ("2", 1e8),
    ("3", bounds),
    ("3", lambda *a: torch.tensor(bounds(*a))),
    ("4", step),
    ("5", climb),
]


MISTAKES = [
    ("1", 800_000, "rate 1/t"),
    ("1", 100, "This is the factor"),
    ("1", 8e9, "Wrong way round"),
    ("1", 7920, "on top"),
    ("1", 5, "eliminate C"),
    ("1", "many", "Wrong type"),
    ("2", 2e4, "logarithm of t that has to double"),
    ("2", 4e4, "root of t"),
    ("2", 8, "take it back"),
    ("2", 100, "Wrong way round"),
    ("2", 2 * np.log(1e4), "take it back"),
    ("2", 1e8 - 1e4 - 1e6, "Write the gap as"),
    ("3", lambda *a: bounds(*a)[::-1], "swapped"),
    ("3", lambda x, y, w, p: ((y * (x @ w)).min(), 1.0), "must not depend on the length"),
    ("3", lambda x, y, w, p: ((x @ w).min() / np.linalg.norm(w), 1.0), "labels are missing"),
    ("3", lambda x, y, w, p: ((y * (x @ w)).mean() / np.linalg.norm(w), 1.0), "worst point"),
    ("3", lambda *a: (0.0, bounds(*a)[1]), "not the normalized margin"),
    ("3", lambda x, y, w, p: (bounds(x, y, w, p)[0], np.linalg.norm(p @ x)), "upper bound."),
    ("3", lambda *a: (bounds(*a)[0], bounds(*a)[1] ** 2), "squared"),
    ("3", lambda x, y, w, p: bounds(x, y, w, np.full(len(y), 1 / len(y))), "ignores p"),
    ("3", lambda *a: (bounds(*a)[0], 1.0), "combination of the y_n x_n"),
    ("3", lambda *a: bounds(*a)[0], "Wrong shape"),
    ("3", 1.0, "give the function itself"),
    ("4", naive, "leave the range"),
    ("4", lambda x, y, w, eta: 2 * w - step(x, y, w, eta), "Wrong sign"),
    ("4", lambda x, y, w, eta: step(x, y, w, eta) - w, "the step alone"),
    ("4", lambda x, y, w, eta: w + eta * np.exp(-y * (x @ w)) @ (y[:, None] * x), "plain"),
    ("4", lambda x, y, w, eta: w + len(y) * (step(x, y, w, eta) - w), "factor N"),
    ("4", unit_step, "norm of the gradient"),
    ("4", lambda x, y, w, eta: w, "Not the step"),
    ("4", lambda x, y, w, eta: w[:-1], "Wrong shape"),
    ("4", lambda x, y, w: w, "raised TypeError"),
    ("5", constant(1.0), "too far from the largest"),
    ("5", constant(16.0), "too far from the largest"),
    ("5", lambda gradient, d: [gradient(np.zeros(d)) for _ in range(1000)], "budget"),
    ("5", lambda gradient, d: np.zeros(d), "no direction"),
    ("5", lambda gradient, d: -gradient(np.zeros(d)), "not even separate"),
    ("5", lambda gradient, d: np.ones(d + 1), "Wrong shape"),
    ("5", lambda gradient, d: gradient(), "raised TypeError"),
    ("5", np.ones(12), "give the function itself"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"speed.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(number, answer))
