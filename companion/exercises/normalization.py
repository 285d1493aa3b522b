"""Graders of the chapter on normalization in practice."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number


def _normalization_1(answer: Any) -> str:
    v, gradient, lr = np.array([3.0, 4.0]), np.array([-8.0, 6.0]), 0.2
    size, step = np.linalg.norm(v), lr * np.linalg.norm(gradient)
    return one_number(
        answer,
        float(np.linalg.norm(v - lr * gradient)),
        right="The step is orthogonal to v, and the squares add up.",
        mistakes={
            float(size**2 + step**2): "This is the squared norm: take the root.",
            float(size + step): "Norms add up like this only for parallel vectors; here the step "
            "is orthogonal to v.",
            float(size): "That is the norm before the step: it is the flow that conserves it.",
            float(math.sqrt(size**2 - step**2)): "Wrong sign: the square of the step is added.",
            float(math.hypot(size, step / lr)): "Off by the step size: the step is lr times the "
            "gradient.",
            float(math.sqrt(size**2 + step**2 / lr)): "The step size enters squared.",
        },
        otherwise="Not the norm of v minus lr times the gradient.",
    )


@functools.cache
def _product(start: int, far: int = 4000) -> float:
    """The infinite product of 1 - 1/k^2 from k = start."""
    found = math.prod(1 - 1 / k**2 for k in range(start, far))
    return found * far / (far + 1)  # the tail, to second order


def _normalization_2(answer: Any) -> str:
    first, product = 3, _product
    total = math.pi**2 / 6 - 1 - 1 / 4  # of 1 / k^2 from k = 3
    return one_number(
        answer,
        product(first),
        right="The product telescopes; its limit is positive, as the sum of the weights is finite.",
        mistakes={
            product(2): "This starts one factor too early: look at the weight for n = 0.",
            product(4): "This starts one factor too late: look at the weight for n = 0.",
            1 - product(first): "This is the part that is lost, not the part that is left.",
            math.exp(-total): "The exponential of minus the sum is only an approximation.",
            0.0: "The product would vanish if the sum of the weights were infinite.",
            1.0: "Every step takes something away.",
        },
        otherwise="Not the infinite product of the factors by which the null space shrinks.",
    )


def _normalization_3(answer: Any) -> str:
    w, lr = np.array([1.0, 1.0, 0.0]), 0.1
    slope = np.array([w[1] * w[2], w[0] * w[2], w[0] * w[1]])
    second = np.array([[0, w[2], w[1]], [w[2], 0, w[0]], [w[1], w[0], 0]])
    hessian = 2 * np.outer(slope, slope) + 2 * (w.prod() - 1) * second
    values = np.linalg.eigvalsh(hessian)
    factors = np.abs(1 - lr * values)
    return one_number(
        answer,
        float(factors.max()),
        right="A negative eigenvalue stretches, however short the step.",
        mistakes={
            float(values.max()): "This is an eigenvalue of the Hessian, not of the step.",
            float(np.abs(1 + lr * values).max()): "Wrong sign: the step is I minus lr H.",
            float(1 - lr * values.max()): "This is the factor of the largest eigenvalue; another "
            "direction is stretched more.",
            1.0: "Look at the negative eigenvalue of the Hessian.",
            float(
                1 + lr * 2 * math.sqrt(2)
            ): "The part with the product of gradients is missing in H.",
        },
        otherwise="Not the largest absolute eigenvalue of I - lr H at this point.",
    )


def _normalization_4(answer: Any) -> str:
    rng = np.random.default_rng(1602)
    for sizes in (np.ones(3), rng.uniform(0.5, 3.0, 3)):
        g, v, G = rng.uniform(0.5, 2.0, 3), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))  # noqa: N806
        v *= (sizes / np.linalg.norm(v, axis=1))[:, None]
        found = call(answer, g.copy(), v.copy(), G.copy(), name="velocity")
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong("Wrong shape: return the pair (g_dot, v_dot).")
        g_dot = numbers(found[0], (3,), "g_dot with one number per row")
        v_dot = numbers(found[1], (3, 4), "v_dot with the shape of v")
        _compare(g_dot, v_dot, g, v, G, unit=bool(close(sizes, 1.0, rel=1e-12)))
    return "Both velocities are right, for every length of v."


def _compare(
    g_dot: np.ndarray,
    v_dot: np.ndarray,
    g: np.ndarray,
    v: np.ndarray,
    G: np.ndarray,  # noqa: N803 (the letter of the page)
    *,
    unit: bool,
) -> None:
    size = np.linalg.norm(v, axis=1, keepdims=True)
    along = ((v / size) * G).sum(axis=1)
    across = G - along[:, None] * v / size
    where = "" if unit else " It is right where v has norm 1, and wrong elsewhere."
    if not close(g_dot, along, rel=1e-9, abs_=1e-12):
        if close(g_dot, -along, rel=1e-9):
            raise Wrong("Wrong sign of g_dot: G is already minus the gradient.")
        if close(g_dot, along * size[:, 0], rel=1e-9):
            raise Wrong(f"g_dot is not divided by the norm of v.{where}")
        raise Wrong(f"g_dot is not the part of G along v / |v|, row by row.{where}")
    right = g[:, None] / size * across
    if close(v_dot, right, rel=1e-9, abs_=1e-12):
        return
    if close(v_dot, -right, rel=1e-9):
        raise Wrong("Wrong sign of v_dot: G is already minus the gradient.")
    if close(v_dot, g[:, None] / size * G, rel=1e-9):
        raise Wrong("v_dot is not orthogonal to v: the part of G along v must go.")
    if close(v_dot, across, rel=1e-9):
        raise Wrong("The factor g / |v| is missing in v_dot.")
    if close(v_dot, g[:, None] * across, rel=1e-9):
        raise Wrong(f"v_dot is not divided by the norm of v.{where}")
    if np.abs((v_dot * v).sum(axis=1)).max() > 1e-9:
        raise Wrong(f"v_dot is not orthogonal to v, row by row.{where}")
    raise Wrong(f"v_dot is orthogonal to v, but of the wrong length.{where}")


def _normalization_5(answer: Any) -> str:
    row, target, steps = np.array([1.0, 2.0]), 2.0, 200
    best = target * row / (row @ row)
    w, given = np.array([3.0, 2.0]), []
    for n in range(steps):
        a = float(numbers(call(answer, n, name="weights"), (), "one number for each n"))
        if not 0 <= a <= 1:
            raise Wrong(f"A weight leaves [0, 1], at n = {n}.")
        given.append(a)
        w = (1 - a) * (w + 0.1 * (target - row @ w) * row)
    null = np.array([-row[1], row[0]]) / np.linalg.norm(row)
    if not any(given):
        raise Wrong("Without any pull to the anchor nothing changes in the null space.")
    if close(given, 1 / (np.arange(steps) + 2), rel=1e-9):
        raise Wrong("This is the schedule of the text: find one that is better on this problem.")
    if abs(null @ w) > 1e-6:
        raise Wrong(
            "Something of the start is left in the null space: the product of all 1 - a_n must "
            "be small."
        )
    if np.linalg.norm(w - best) >= 1e-6:
        raise Wrong(
            "The null space is empty, but the equation is not met: the last weights still pull "
            "towards the anchor."
        )
    return "The start is forgotten, and the last steps are left alone."


GRADERS: dict[str, Grader] = {
    "1": _normalization_1,
    "2": _normalization_2,
    "3": _normalization_3,
    "4": _normalization_4,
    "5": _normalization_5,
}
