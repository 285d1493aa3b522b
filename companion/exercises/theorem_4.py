"""Graders of the chapter on Theorem 4."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_X = np.array([[2.0, 1.0], [-2.0, 1.0]])  # exercises 1 to 3; all labels are +1
_BEST = math.sqrt(5) / 2


def _theorem_4_1(answer: Any) -> str:
    return one_number(
        answer,
        1.0,
        right="The two units share their norm, and together give what one unit would.",
        mistakes={
            2.0: "Off by a factor: divide by the norms of both layers.",
            math.sqrt(2): "One of the two layers is not normalized yet.",
            0.5: "Both units are active on both points: their outputs add up.",
            _BEST: "That is the margin of another network, with one unit for each point.",
        },
        otherwise="Not the smallest margin of the normalized network.",
    )


def _theorem_4_2(answer: Any) -> str:
    return one_number(
        answer,
        _BEST,
        right="Each unit points at its own point and is silent on the other.",
        mistakes={
            math.sqrt(5): "Both units need a share of the norm: here it is spent twice.",
            1.0: "That is the margin of units that are active on both points.",
            math.sqrt(5 / 2): "One of the two layers is not normalized yet.",
            5 / 2: "Use the length of a point, not its square.",
        },
        otherwise="Not the largest margin.",
    )


def _theorem_4_3(answer: Any) -> str:
    alpha = numbers(answer, (2,), "two numbers, alpha_1 and alpha_2")
    if (alpha < 0).any():
        raise Wrong("Wrong sign: multipliers of inequalities are not negative.")
    angles = np.linspace(0, 2 * math.pi, 10_001)
    u = np.stack([np.cos(angles), np.sin(angles)])
    strongest = float((alpha @ np.maximum(_X @ u, 0)).max())
    if strongest > 1 + 5e-3:
        raise Wrong("Not feasible: some unit vector u collects more than 1.")
    if close(alpha, 1 / (_X**2).sum(axis=1), rel=5e-3):
        raise Wrong(
            "Feasible, but too small: a unit vector along a point collects the length of the "
            "point, not its square."
        )
    if not close(alpha.sum(), 1 / _BEST, rel=5e-3):
        raise Wrong("Feasible, but the bound that it proves is not the best one.")
    return "No unit collects more than 1, and the bound is the margin of exercise 2."


def _theorem_4_4(answer: Any) -> str:
    generator = np.random.default_rng(0)
    for num_units, dim in ((3, 2), (1, 4), (6, 3)):
        W1 = generator.normal(size=(num_units, dim))
        W2 = generator.normal(size=(1, num_units))
        x = generator.normal(size=(5, dim))
        found = call(answer, torch.tensor(W1), torch.tensor(W2), name="balanced")
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise Wrong("Wrong type: return the pair W1, W2.")
        new1 = numbers(found[0], W1.shape, "W1 in the shape it came in")
        new2 = numbers(found[1], W2.shape, "W2 in the shape it came in")
        before = W2 @ np.maximum(W1 @ x.T, 0)
        if not close(new2 @ np.maximum(new1 @ x.T, 0), before, rel=1e-9, abs_=1e-12):
            raise Wrong("The outputs have changed: what one layer gains, the other must lose.")
        sizes = np.linalg.norm(new1, axis=1)
        if not close(np.abs(new2[0]), sizes, rel=1e-9, abs_=1e-12):
            if close(sizes, np.abs(W2[0]), rel=1e-9):
                raise Wrong("A root is missing: the two norms of each unit have changed places.")
            if close(np.linalg.norm(new1), np.linalg.norm(new2), rel=1e-9):
                raise Wrong(
                    "The layers have equal norms, but the units are not balanced one by one."
                )
            raise Wrong("The outputs are right, but some unit has |a_j| different from |w_j|.")
    return "Same function, and the smallest product of norms that its units allow."


def _theorem_4_5(answer: Any) -> str:
    w = numbers(answer, (2, 2), "the two hidden units, an array of shape (2, 2)")
    if np.abs(w).max() > 1e6:
        raise Wrong("Too large: keep all four numbers below a million.")
    norms = np.linalg.norm(w, axis=1)
    if (norms == 0).any():
        raise Wrong("A unit that is zero stays zero with its output weight: give it a direction.")
    f = np.maximum(_X @ w.T, 0) @ norms  # balanced start, a_j = |w_j|
    if (f <= 0).any():
        raise Wrong("The start does not separate the points.")
    both = (_X @ w.T > 0).all(axis=0)
    margin = _end_of_flow(w, norms)
    if not 0.9 <= margin <= 1.05:
        raise Wrong("From there the flow finds a margin that is not that of exercise 1.")
    return (
        "Both units are active on both points, and the flow ends at the margin of exercise 1."
        if both.all()
        else "The flow ends at the margin of exercise 1."
    )


def _end_of_flow(w: np.ndarray, a: np.ndarray) -> float:
    """Normalized margin after an Euler flow to l = 60, from units w (2, 2), a (2,)."""
    w, a = w.copy(), a.copy()
    for _ in range(3000):
        z = _X @ w.T
        h = np.maximum(z, 0)
        m = h @ a
        p = np.exp(-(m - m.min()))
        log_loss = -m.min() + math.log(p.sum())
        if log_loss < -60:
            break
        p /= p.sum()
        da, dw = p @ h, ((p[:, None] * (z > 0)).T @ _X) * a[:, None]
        slope, size = (da**2).sum() + (dw**2).sum(), (a**2).sum() + (w**2).sum()
        step = min(0.1 / slope, 0.02 * math.sqrt(size / slope)) if slope > 0 else 0.0
        w, a = w + step * dw, a + step * da
    m = np.maximum(_X @ w.T, 0) @ a
    return float(m.min() / (np.linalg.norm(w) * np.linalg.norm(a)))


GRADERS: dict[str, Grader] = {
    "1": _theorem_4_1,
    "2": _theorem_4_2,
    "3": _theorem_4_3,
    "4": _theorem_4_4,
    "5": _theorem_4_5,
}
