"""Graders of the complexity chapter."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number


def _linear(x: np.ndarray) -> np.ndarray:
    """|sum_n e_n x_n| / N for all sign vectors."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(x))))
    return np.linalg.norm(signs @ x, axis=1) / len(x)


def _complexity_1(answer: Any) -> str:
    x = np.array([[1.0], [2.0], [2.0]])
    R = _linear(x).mean()  # noqa: N806 (the book's letter)
    return one_number(
        answer,
        R,
        right="The mean of the supremum over all sign vectors.",
        mistakes={
            3 * R: "Divide by the number of points.",
            2 * R: "Twice the complexity: the factor of the bound does not belong here. Or is this "
            "the supremum for one sign vector? Take the mean over all.",
            R / 2: "The slope w may have either sign: the supremum is an absolute value.",
            1.0: "This is the bound by the root of the sum of squares: it is not attained.",
            0.0: "This is the mean before the supremum: the supremum comes first.",
        },
        otherwise="Not the mean of the suprema: list the sign vectors and take each absolute sum.",
    )


def _complexity_2(answer: Any) -> str:
    def needed(factor: float, delta: float) -> float:
        return 100 * (factor + math.sqrt(math.log(1 / delta) / 2)) ** 2

    value, target = float(numbers(answer, (), "one integer")), math.ceil(needed(4, 0.05))
    if value == target:
        return "The smallest sample for which the sum of both terms is low enough."
    if value != round(value):
        raise Wrong("Not an integer: samples come in whole numbers.")
    mistakes = {
        needed(2, 0.05): "The ramp is not 1-Lipschitz: the complexity is divided by the margin.",
        needed(1, 0.05): "The complexity has a factor 2 in front, and is divided by the margin.",
        needed(4, 0.025): "The bound is one-sided: no factor 2 in the logarithm.",
        1600.0: "The last term of the bound is missing.",
        100 * (4 + math.sqrt(math.log(20))) ** 2: "The root has a factor 2 in its denominator.",
    }
    for mistaken, reason in mistakes.items():
        if abs(value - mistaken) <= 1:
            raise Wrong(reason)
    if abs(value - target) <= 2:
        raise Wrong("Close: round so that the bound is still met, and no sample is spared.")
    if value < target:
        raise Wrong("Too few: the bound is still above the error that is asked for.")
    raise Wrong("Enough, but not the smallest number.")


def _complexity_3(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for shape in ((1, 2), (4, 3), (7, 2)):
        x = rng.normal(size=shape)
        found = call(answer, torch.from_numpy(x.copy()), name="linear_complexity")
        value, R = float(numbers(found, (), "one number")), _linear(x).mean()  # noqa: N806
        if close(value, R, rel=1e-9):
            continue
        N = len(x)  # noqa: N806
        mistakes = {
            N * R: "Divide by the number of points.",
            2 * R: "Twice the complexity: here there is no factor in front.",
            float(_linear(x).max()): "This is the largest supremum: take the mean over the signs.",
            float(np.linalg.norm(x) / N): "This is the upper bound by the sum of squares.",
            float(np.linalg.norm(x.sum(0)) / N): "Only one sign vector: take the mean over all.",
        }
        for mistaken, reason in mistakes.items():
            if close(value, mistaken, rel=1e-9):
                raise Wrong(reason)
        if close(value, R, rel=0.1):
            raise Wrong("Close, but not exact: enumerate all sign vectors, in float64.")
        raise Wrong(f"Not the mean of the suprema, for {N} points in dimension {shape[1]}.")
    return "Exact: the mean over all sign vectors."


def _complexity_4(answer: Any) -> str:
    phi = np.array([2.0, -6.0, 3.0])
    given = numbers(answer, (6,), "six numbers, a_1 to a_3 and v_1 to v_3")
    a, v = given[:3], given[3:]
    if (a < -BY_HAND).any():
        raise Wrong("Wrong sign: the sizes a are norms, so none is negative; a sign belongs in v.")
    for name, vector in (("a", a), ("v", v)):
        if not close(np.linalg.norm(vector), 1.0, rel=0, abs_=1e-3):
            raise Wrong(f"The norm of {name} is not one.")
    value = float((v * a) @ phi)
    if close(value, np.abs(phi).max(), rel=BY_HAND):
        return "One unit takes the whole norm in both layers."
    if value < 0:
        raise Wrong("The value is negative: the signs of the last layer are free.")
    if close(v, a * phi / np.linalg.norm(a * phi), rel=0, abs_=BY_HAND):
        raise Wrong("The last layer is the best for these sizes, but the sizes are not.")
    raise Wrong("A larger value is possible: compare the hidden sums by absolute value.")


def _complexity_5(answer: Any) -> str:
    A, q = numbers(answer, (2,), "two numbers, A and q")  # noqa: N806
    N, allowed = 10, math.sqrt(math.log(20) / 20)  # noqa: N806
    if A <= 0 or not 0 < q < 1:
        raise Wrong("Out of range: A is positive, and q a probability between 0 and 1.")
    fails = sum(
        math.comb(N, k) * q**k * (1 - q) ** (N - k)
        for k in range(N + 1)
        if q * A > k * A / N + allowed
    )
    if fails > 0.5:
        return f"The bound fails with probability {fails:.3f}: the loss is not bounded by one."
    if A <= 1:
        raise Wrong("With values in [0, 1] the theorem holds: the loss must be able to be larger.")
    if q * A <= allowed:
        raise Wrong("The expected loss is within the bound even if the sample shows no loss.")
    raise Wrong(f"The bound fails with probability {fails:.3f} only: make the large value rarer.")


GRADERS: dict[str, Grader] = {
    "1": _complexity_1,
    "2": _complexity_2,
    "3": _complexity_3,
    "4": _complexity_4,
    "5": _complexity_5,
}
