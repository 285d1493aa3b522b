"""Graders of the chapter on implicit norm control."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number


def _norm_control_1(answer: Any) -> str:
    x = np.array([1.0, 0.75])
    return one_number(
        answer,
        float((x**-2).sum() ** -0.5),
        right="Both coordinates carry weight there, in inverse proportion to x_i.",
        mistakes={
            0.75: "That is the margin of a point where only the second coordinate is in use.",
            1.0: "That is the margin of a point where only the first coordinate is in use.",
            float((x**-2).sum() ** -1): "A square root is missing.",
            float((x**-2).sum() ** 0.5): "Upside down: check the exponent of the sum.",
            float((x**2).sum() ** 0.5): "Wrong proportion: the entries of V_k go like 1 / x_i.",
            float((x**-1).sum() ** -1): "The entries of V_k have squares that sum to 1.",
        },
        otherwise="Write all V_k equal up to signs, use x_i V[i]^2 = f V[i], and the unit norm.",
    )


def _norm_control_2(answer: Any) -> str:
    rho = np.array([2.0, 3.0, 0.25])
    product = float(rho.prod())
    return one_number(
        answer,
        float(rho[2] ** 2),
        right="It is the square of that layer's own norm.",
        mistakes={
            product**2: "That is the square of the product of all norms: compare layer by layer.",
            float(rho[2]): "Not squared.",
            float(rho[0] ** 2): "That is the factor of the first layer.",
            float(
                rho[2] ** -2
            ): "Upside down: the constrained velocity over the unconstrained one.",
            product: "That is the factor in front of the constrained equation alone.",
        },
        otherwise="Divide the factors in front of the two sums.",
    )


def _norm_control_3(answer: Any) -> str:
    import torch

    rng = np.random.default_rng(3)
    for shape in ((3, 4), (1, 5), (2, 2)):
        W, W_dot = rng.normal(size=shape), rng.normal(size=shape)  # noqa: N806 (the paper's letters)
        size = np.linalg.norm(W)
        V = W / size  # noqa: N806
        radial = float((V * W_dot).sum())
        across = (W_dot - radial * V) / size
        given = call(answer, torch.tensor(W), torch.tensor(W_dot), name="induced")
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise Wrong("Wrong type: return two things, the speed of rho and that of V.")
        rate = float(numbers(given[0], (), "one number for the speed of rho"))
        turn = numbers(given[1], shape, "an array of the shape of W for the speed of V")
        if close(rate, radial * size, rel=1e-9) and not close(rate, radial, rel=1e-9):
            raise Wrong("The speed of rho has W in place of V: off by the norm.")
        if not close(rate, radial, rel=1e-9, abs_=1e-12):
            raise Wrong("The speed of rho is not the part of W_dot along V.")
        if close(turn, across, rel=1e-9, abs_=1e-12):
            continue
        if close(turn, across * size, rel=1e-9, abs_=1e-12):
            raise Wrong("The speed of V lacks the division by the norm.")
        if close(turn, W_dot / size, rel=1e-9, abs_=1e-12):
            raise Wrong("The projection is missing: V has to stay on its sphere.")
        if not close((turn * V).sum(), 0.0, rel=0, abs_=1e-9):
            raise Wrong("The speed of V is not orthogonal to V.")
        raise Wrong("The speed of V is orthogonal to V, but not that of Eq. 14.")
    return "Radial and tangential parts of the velocity, on every shape tried."


def _norm_control_4(answer: Any) -> str:
    rho = 5.0
    return one_number(
        answer,
        math.exp(-rho) / (2 * rho),
        right="The penalty that holds the minimum at this norm is exponentially small in it.",
        mistakes={
            math.exp(-rho) / rho: "Off by a factor: the derivative of the penalty has a 2.",
            math.exp(-rho) * rho / 2: "That is the Lagrange multiplier of the unit sphere.",
            math.exp(-rho): "The derivative of the penalty is missing.",
            math.exp(-rho) / 2: "The derivative of the penalty is proportional to the norm.",
            math.exp(rho) / (2 * rho): "Wrong sign in the exponent.",
        },
        otherwise="Set the derivative of the penalized loss in the norm to zero.",
    )


def _norm_control_5(answer: Any) -> str:
    W = numbers(answer, (3, 2), "three rows of two weights, one row per layer")  # noqa: N806
    if (W <= 0).any():
        raise Wrong("All six weights must be positive.")
    if W.max() > 1e3 or W.min() < 1e-3:
        raise Wrong("Keep all weights between 0.001 and 1000.")
    point = np.array([1.0, 0.8])
    free, held = _unconstrained_end(W, point), _constrained_end(W, point)
    sizes = np.linalg.norm(W, axis=1)
    if free == 1 and held == 0:
        return "The unconstrained flow ends on the worse coordinate, the other on the better."
    if sizes.max() - sizes.min() < BY_HAND * sizes.max():
        raise Wrong("With equal layer norms the directions of both flows take the same path.")
    if free == held:
        raise Wrong(
            f"Both flows end on coordinate {free + 1}. Keep the directions near the border between "
            "the two, and make the layers differ more in norm."
        )
    raise Wrong("The flows end apart, but the other way round: swap the roles of the coordinates.")


def _unconstrained_end(W: np.ndarray, x: np.ndarray) -> int:  # noqa: N803
    """The coordinate that would blow up first, by Carlson's integral."""
    from scipy.special import elliprf

    return int(np.argmin(elliprf(*W**2) / x))


def _constrained_end(W: np.ndarray, x: np.ndarray) -> int:  # noqa: N803
    from scipy.integrate import solve_ivp

    def slope(_: float, angles: np.ndarray) -> np.ndarray:
        c, s = np.cos(angles), np.sin(angles)
        first = [x[0] * np.delete(c, k).prod() for k in range(3)]
        second = [x[1] * np.delete(s, k).prod() for k in range(3)]
        return c * second - s * first

    path = solve_ivp(slope, (0.0, 60.0), np.arctan2(W[:, 1], W[:, 0]), rtol=1e-8, atol=1e-10)
    end = path.y[:, -1]
    return int(np.sin(end).prod() > np.cos(end).prod())


GRADERS: dict[str, Grader] = {
    "1": _norm_control_1,
    "2": _norm_control_2,
    "3": _norm_control_3,
    "4": _norm_control_4,
    "5": _norm_control_5,
}
