"""Solutions of the chapter pass, typical mistakes get their reason, none gives the answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from companion import data, exercises
from companion.dynamics import constrained
from companion.exercises import constrained as graders
from companion.networks import MLP

LAMBDA = (2 * math.exp(-1) + 3 * math.exp(-3)) / 6
TIME = math.log(100) / 2
LEAN = -math.log(4) / 5


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def dynamics_b(x, y, rho, v):  # noqa: ANN001, ANN201 (as a reader writes it)
    margins = y * (x @ v)
    weight = torch.exp(-rho * margins) / len(y)
    pull = y[:, None] * (x - (x @ v)[:, None] * v)
    return (weight * margins).sum(), rho * (weight @ pull)


SOLUTIONS = [
    ("1", LAMBDA),
    ("1", 0.1475),
    ("2", TIME),
    ("3", LEAN),
    ("4", dynamics_b),
    ("5", [-1.0, 1.0]),
    ("5", np.array([-3.0, 3.2])),
]


MISTAKES = [
    ("1", 2 * LAMBDA, "square of the norm"),
    ("1", 3 * LAMBDA, "mean over the samples"),
    ("1", 6 * LAMBDA, "Two factors"),
    ("1", (2 * math.exp(-1) + math.exp(-3)) / 6, "margin is missing"),
    ("1", -LAMBDA, "Wrong sign"),
    ("1", "x", "Wrong type"),
    ("1", 7.0, "insert the three margins"),
    ("2", 2 * TIME, "squared norm"),
    ("2", 4 * TIME, "numerator"),
    ("2", math.log(4 / 1.03) / 2, "excess over 1"),
    ("2", math.log(1 / (1.03**0.5 - 1)) / 2, "that of the squared norm"),
    ("2", 1.0, "natural logarithm"),
    ("2", 5.0, "minus one"),
    ("3", -LEAN, "Wrong sign"),
    ("3", -math.log(2) / 3, "of the text"),
    ("3", -math.log(4), "both points"),
    ("3", -math.log(4) / 4, "shorter point"),
    ("3", -math.log(4) / 3, "opposite signs"),
    ("3", 0.0, "has to lean"),
    ("3", 1.0, "balance the two pulls"),
    ("4", 3.0, "Wrong type"),
    ("4", lambda x, y, rho, v: 1.0, "a pair"),
    ("4", lambda x, y, rho: 1.0, "raised TypeError"),
    ("5", [1.0, 0.0], "separates the data already"),
    ("5", [0.0, -1.0], "finds a separating direction"),
    ("5", [0.0, 0.0], "no direction"),
    ("5", [1.0], "Wrong shape"),
]


def changed(change):  # noqa: ANN001, ANN201
    """Dynamics B with its pair of rates changed."""

    def wrong(x, y, rho, v):  # noqa: ANN001, ANN202
        return change(*dynamics_b(x, y, rho, v), x, y, rho)

    return wrong


def radial_part_left(x, y, rho, v):  # noqa: ANN001, ANN201
    weight = torch.exp(-rho * y * (x @ v)) / len(y)
    return dynamics_b(x, y, rho, v)[0], rho * (weight @ (y[:, None] * x))


MISTAKES += [
    ("4", changed(lambda r, v, x, y, rho: (-r, v)), "sign of the rate of rho"),
    ("4", changed(lambda r, v, x, y, rho: (len(y) * r, v)), "mean over the samples"),
    ("4", changed(lambda r, v, x, y, rho: (rho * r, v)), "factor rho too many"),
    ("4", changed(lambda r, v, x, y, rho: (r + 1, v)), "not minus the derivative"),
    ("4", changed(lambda r, v, x, y, rho: (r, -v)), "sign of the rate of v"),
    ("4", changed(lambda r, v, x, y, rho: (r, v / rho)), "factor rho is missing"),
    ("4", changed(lambda r, v, x, y, rho: (r, v / rho**2)), "unconstrained flow"),
    ("4", changed(lambda r, v, x, y, rho: (r, len(y) * v)), "mean over the samples"),
    ("4", changed(lambda r, v, x, y, rho: (r, v + 1)), "not orthogonal"),
    ("4", changed(lambda r, v, x, y, rho: (r, 3 * v)), "not the projected gradient"),
    ("4", changed(lambda r, v, x, y, rho: (r, v[:2])), "Wrong shape"),
    ("4", radial_part_left, "along v"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"constrained.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"constrained.{number}", answer))


@pytest.mark.parametrize("degrees", [20, 90, 134, 150, 200])
def test_the_grader_of_5_agrees_with_the_flow(degrees: float) -> None:
    turn = math.radians(degrees)
    v = np.array([math.cos(turn), math.sin(turn)])
    points, net = data.three_points(), MLP(widths=(2, 1))
    V = constrained.rest_point(net, 20.0, {"W1": torch.tensor(v)[None]}, points.x, points.y)
    at = graders._resting_angle(v, 20.0)
    assert math.cos(at - math.atan2(*V["W1"][0].flip(0).tolist())) > math.cos(2e-3)


def test_no_message_holds_the_answer() -> None:
    secrets = [f"{abs(value):.2f}" for value in (LAMBDA, TIME, LEAN)]
    for number, answers in {"1": (0.3, 1.0), "2": (1.0, 4.6), "3": (0.2, 0.0)}.items():
        for answer in answers:
            text = reason(f"constrained.{number}", answer)
            assert not re.search("|".join(map(re.escape, secrets)), text)
