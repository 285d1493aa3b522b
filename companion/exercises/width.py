"""Graders of the chapter on width and overparameterization."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_IMAGES = 1437


def _width_1(answer: Any) -> str:
    target = next(h for h in count(1) if 64 * h + h * h + 10 * h > _IMAGES)
    return one_number(
        answer,
        target,
        right="One unit less in each layer leaves fewer weights than images.",
        mistakes={
            target - 1: "Not more weights than images yet: count again at this width.",
            target + 1: "Enough weights, but one unit less in each layer suffices, too.",
            next(h for h in count(1) if 74 * h > _IMAGES): "The matrix between the two hidden "
            "layers is missing.",
            next(h for h in count(1) if 64 * h + h * h > _IMAGES): "The last layer is missing.",
        },
        otherwise="Add the sizes of the three matrices and compare with the number of images.",
    )


def _width_2(answer: Any) -> str:
    first, second, images = 24, 12, 1500
    difference, discordant = first - second, first + second
    return one_number(
        answer,
        difference / np.sqrt(discordant),
        right="Images on which both networks agree say nothing about the difference.",
        mistakes={
            difference / discordant: "Divided by the variance: take its square root.",
            difference / np.sqrt(images): "Only images on which exactly one is wrong vary.",
            # the statistic chi squared, and also the difference over the deviation of coins
            difference**2 / discordant: "This is the square of it; or a coin that counts 0 or 1, "
            "of variance 1/4, in place of a sign of variance 1.",
            (difference - 1) / np.sqrt(discordant): "Without the continuity correction, please.",
            difference: "This is the difference itself: divide by its standard deviation.",
        },
        otherwise="Under the hypothesis the difference is a sum of independent signs, one for "
        "each image on which exactly one network is wrong. Which variance does it have?",
    )


def _width_3(answer: Any) -> str:
    rng = np.random.default_rng(512)
    for d, narrow, C, h in ((3, 2, 2, 5), (4, 3, 1, 4), (2, 4, 3, 4)):  # noqa: N806 (classes)
        W1, W2 = rng.normal(size=(narrow, d)), rng.normal(size=(C, narrow))  # noqa: N806 (layers)
        found = call(answer, W1.copy(), W2.copy(), h, name="widen")
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise Wrong("Wrong type: return the two layers, W1 and W2.")
        V1 = numbers(found[0], (h, d), "a first layer of shape (h, d)")  # noqa: N806
        V2 = numbers(found[1], (C, h), "a second layer of shape (C, h)")  # noqa: N806
        x = rng.normal(size=(20, d))
        f, g = (np.maximum(x @ A.T, 0) @ B.T for A, B in ((W1, W2), (V1, V2)))
        if not close(g, f, rel=1e-9, abs_=1e-10):
            raise Wrong("The outputs changed: a new unit contributes, or an old one got lost.")
        same = [
            close(np.linalg.norm(after), np.linalg.norm(before), rel=1e-9)
            for before, after in ((W1, V1), (W2, V2))
        ]
        if not any(same):
            raise Wrong("The outputs are the same, but both norms changed: where a unit is copied, "
                        "its weights must shrink alike on both sides.")  # fmt: skip
        if not all(same):
            k = same.index(False) + 1
            raise Wrong(f"The outputs are the same, but the norm of layer {k} changed.")
    return "Same outputs and same norms, so no normalized margin changes."


def _width_4(answer: Any) -> str:
    exponent, now, then = 3, 0.02, 0.001
    factor = now / then
    return one_number(
        answer,
        exponent * factor,
        right="The exponent of ten grows by the factor by which the distance falls.",
        mistakes={
            exponent + np.log10(factor): "That is the law 1 / t: here t enters by its logarithm.",
            exponent * np.log(10) * factor: "This is the natural logarithm of t: give the power "
            "of ten.",
            exponent / factor: "The distance falls, so the logarithm must grow.",
            factor: "This is the factor by which the logarithm grows: where does it start?",
            exponent + factor: "The logarithm is multiplied, nothing is added to it.",
        },
        otherwise="The product of the distance and the logarithm of t is constant.",
    )


def _width_5(answer: Any) -> str:
    x, y = np.array([[2.0, 1.0], [-2.0, 1.0]]), np.array([1.0, -1.0])
    x_test = np.array([[-1.0, 3.0], [3.0, -1.0], [1.0, -2.0], [-3.0, 1.0]])
    y_test = np.array([1.0, 1.0, -1.0, -1.0])
    pair = numbers(answer, (2, 2), "two directions with two numbers each, [u, v]")
    lengths = np.linalg.norm(pair, axis=1)
    if (lengths == 0).any():
        raise Wrong("A zero vector has no direction.")
    directions = pair / lengths[:, None]
    margins = (y * (directions @ x.T)).min(axis=1)
    for name, margin in zip("uv", margins, strict=True):
        if margin <= 0:
            raise Wrong(f"{name} does not classify both training points correctly.")
    errors = (y_test * (directions @ x_test.T) <= 0).sum(axis=1)
    if margins[0] > margins[1] + 1e-9 and errors[1] < errors[0]:
        return "The larger margin makes the larger test error."
    if margins[1] > margins[0] + 1e-9 and errors[0] < errors[1]:
        raise Wrong("The two are swapped: u is the one with the larger margin.")
    if errors[1] >= errors[0]:
        raise Wrong(f"v makes {errors[1]} test errors and u makes {errors[0]}: v must make fewer.")
    raise Wrong("v makes fewer test errors, but the margin of u is not larger.")


GRADERS: dict[str, Grader] = {
    "1": _width_1,
    "2": _width_2,
    "3": _width_3,
    "4": _width_4,
    "5": _width_5,
}
