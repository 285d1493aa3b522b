"""Graders of the chapter on Fig. 2; answers are computed here, from their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import optimize

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number


def _figure_2_1(answer: Any) -> str:
    slope, intercept = numbers(answer, (2,), "two numbers, slope and intercept")
    q = 0.06 / 0.08
    right = (1 - q) * math.log(4)
    if close(slope, 1 / q, rel=BY_HAND):
        raise Wrong("Wrong slope: the test loss is a function of the training loss here.")
    if close(slope, right, rel=BY_HAND) and close(intercept, q, rel=BY_HAND):
        raise Wrong("Wrong order: the slope comes first.")
    if not close(slope, q, rel=BY_HAND):
        raise Wrong("Wrong slope: both losses fall with rho in proportion to their mean scores.")
    if close(intercept, right, rel=BY_HAND):
        return "It passes through (log 4, log 4), where all outputs are zero."
    mistakes = {
        (1 - q) * math.log(10): "The intercept is that of ten classes.",
        (1 - q) * 2: "The logarithm is the natural one.",
        q * math.log(4): "The line must pass through the point of zero outputs.",
        -right: "Wrong sign of the intercept.",
        0.0: "At zero outputs the losses are not zero.",
    }
    for value, reason in mistakes.items():
        if close(intercept, value, rel=BY_HAND, abs_=1e-6):
            raise Wrong(reason)
    raise Wrong("The slope is right, but not the intercept: where do the losses go as rho -> 0?")


def _smallest_loss(length: float, num_classes: int) -> float:
    """The smallest cross-entropy of an output of that length, by minimizing over its own score.

    The others share what is left of the length equally, with a sum that may be of either sign.
    """

    def loss(angle: float) -> float:
        own, other = length * math.cos(angle), length * math.sin(angle)
        return math.log1p((num_classes - 1) * math.exp(other / math.sqrt(num_classes - 1) - own))

    found = optimize.minimize_scalar(
        loss, bounds=(-math.pi / 2, 0), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.fun)


def _figure_2_2(answer: Any) -> str:
    r = 2.0
    return one_number(
        answer,
        _smallest_loss(r, 3),
        rel=BY_HAND,
        right="No other outputs of this length have a smaller loss.",
        mistakes={
            math.log1p(2 * math.exp(-r)): "All of the length in the right class: but the others "
            "can help by being negative.",
            _smallest_loss(1.0, 3): "That is the value for outputs of length one.",
            _smallest_loss(r, 10): "That is the value for ten classes.",
            math.log1p(2 * math.exp(-2 * r)): "Such outputs are longer than allowed.",
            math.log1p(2 * math.exp(-r * math.sqrt(2 / 3))): "Only the score of the right class "
            "is there; the others count too.",
            math.log1p(math.exp(-r * math.sqrt(3 / 2))): "There are two wrong classes.",
            math.log1p(2 * math.exp(-r * math.sqrt(3 / 2))) / math.log(2): "The logarithm is the "
            "natural one.",
            math.exp(-_smallest_loss(r, 3)): "That is the probability of the right class.",
        },
        otherwise="Not the minimum: spread the length over all three components.",
    )


def _figure_2_3(answer: Any) -> str:
    for num_classes, length in ((10, 1.0), (2, 3.0), (5, 0.05), (10, 0.7), (3, 9.0), (100, 4.0)):
        loss = _smallest_loss(length, num_classes)
        value = call(answer, loss, num_classes, name="needed_length")
        r = float(numbers(value, (), "one number for each loss"))
        if close(r, length, rel=1e-5):
            continue
        ratio = math.sqrt(num_classes / (num_classes - 1))
        if close(r, -length, rel=1e-5):
            raise Wrong("Wrong sign: a length is positive.")
        if close(r, length * ratio, rel=1e-5):
            raise Wrong("That is the difference between the right and a wrong score, not a length.")
        if close(r, length * ratio**2, rel=1e-5):
            raise Wrong("The factor that depends on C is upside down.")
        if close(r, length / ratio, rel=1e-5):
            raise Wrong("That is the score of the right class alone.")
        if close(r, -math.log(math.expm1(loss)) / ratio, rel=1e-4):
            raise Wrong("There are C - 1 wrong classes, not one.")
        raise Wrong(
            f"For C = {num_classes} and a loss of {loss:.4f} an output of the length that the "
            "function returns has another smallest loss."
        )
    return "The smallest loss of an output of this length is the one that was given."


def _centred(f: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([row[c] - sum(row) / len(row) for row, c in zip(f, y, strict=True)]))


def _margin(f: np.ndarray, y: np.ndarray) -> float:
    """Mean of own score less the largest other."""
    rows = [(row[c], np.delete(row, c).max()) for row, c in zip(f, y, strict=True)]
    return float(np.mean([own - other for own, other in rows]))


def _figure_2_4(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for sizes in ((30, 50), (40, 15), (25, 25)):
        y, z = (rng.integers(5, size=N) for N in sizes)
        f, g = (
            strength * np.eye(5)[labels] + rng.normal(0.7, 0.5, size=(len(labels), 5))
            for labels, strength in ((y, 2.0), (z, 1.2))
        )
        value = call(answer, f.copy(), y.copy(), g.copy(), z.copy(), name="ratio")
        q = float(numbers(value, (), "one number"))
        right = _centred(g, z) / _centred(f, y)
        if close(q, right, rel=1e-9):
            continue
        own = [np.mean(h[np.arange(len(h)), labels]) for h, labels in ((f, y), (g, z))]
        mistakes = {
            1 / right: "Upside down: the slope says how the test loss moves with the training "
            "loss.",
            own[1] / own[0]: "The score must be centred: subtract the mean over all classes.",
            _margin(g, z) / _margin(f, y): "That is the ratio of the margins: take the mean over "
            "the classes, not the largest of the others.",
            right * len(z) / len(y): "Means, not sums: the two sets differ in size.",
            -right: "Wrong sign.",
        }
        for mistaken, reason in mistakes.items():
            if close(q, mistaken, rel=1e-9):
                raise Wrong(reason)
        raise Wrong("Not the ratio of the mean centred scores.")
    return "The ratio of the mean centred scores, for sets of any size."


def _figure_2_5(answer: Any) -> str:
    f = numbers(answer, (2, 4, 3), "two arrays of shape (4, 3)")
    y = np.array([0, 1, 2, 0])
    if (np.linalg.norm(f, axis=2) > 1 + 1e-9).any():
        raise Wrong("An output is longer than one.")
    own = f[:, np.arange(4), y]
    loss = (np.log(np.exp(f).sum(axis=2)) - own).mean(axis=1)
    others = np.where(np.arange(3) == y[:, None], -np.inf, f).max(axis=2)
    errors = (own <= others).sum(axis=1)
    if errors[0] <= errors[1]:
        made = "as many errors as" if errors[0] == errors[1] else "fewer errors than"
        raise Wrong(f"A makes {made} B ({errors[0]} and {errors[1]}; a tie is an error).")
    if loss[0] >= loss[1]:
        raise Wrong(f"A has the larger loss, {loss[0]:.3f} against {loss[1]:.3f}.")
    return "The order of the losses is not that of the errors, even at a common length."


GRADERS: dict[str, Grader] = {
    "1": _figure_2_1,
    "2": _figure_2_2,
    "3": _figure_2_3,
    "4": _figure_2_4,
    "5": _figure_2_5,
}
