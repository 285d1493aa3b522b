"""Graders of the chapter on building networks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from companion.exercises._grading import (
    BY_HAND,
    Grader,
    Wrong,
    call,
    close,
    numbers,
    one_number,
    plain,
)

# Exercise 1: x^2 from softplus units at b = 0, nodes -1, 0, 1.
_STEP, _SECOND = 0.1, 0.25  # h, and sigma''(0)


def _building_1(answer: Any) -> str:
    c = numbers(answer, (3,), "3 numbers, the outer weights of the nodes -1, 0 and 1")
    formula = np.array([1.0, -2.0, 1.0])
    target = formula / (_STEP**2 * _SECOND)
    if close(c, target, rel=BY_HAND, abs_=BY_HAND):
        return "The constants cancel, the linear parts cancel, and the squares add up to x^2."
    if abs(c.sum()) > BY_HAND * np.abs(c).max():
        raise Wrong("The weights do not sum to zero, so the constant sigma(0) does not cancel.")
    if abs(c[2] - c[0]) > BY_HAND * np.abs(c).max():
        raise Wrong("The linear parts do not cancel: the outer two weights must be equal.")
    if np.abs(c).max() == 0:
        raise Wrong("All weights are zero: that is the zero function.")
    factor = c[0] / target[0]
    mistakes = {
        -1.0: "Wrong sign: x^2 is convex, and so is softplus.",
        0.5: "Off by a factor of 2: the two outer nodes both contribute, and x^2 has the second "
        "derivative 2.",
        2.0: "Off by a factor of 2: the Taylor term is sigma''(0) z^2 / 2, and two nodes have it.",
        _SECOND: "Off by a factor: divide by sigma''(0), which is not 1.",
        _SECOND**2: "Off by a factor: divide by sigma''(0), do not multiply.",
        _STEP**2: "Off by a factor: divide by h^2.",
        _STEP: "Off by a factor: divide by h squared, not by h.",
        _STEP**2 * _SECOND: "Off by a factor: divide by h^2 and by sigma''(0).",
        _STEP**4: "Off by a factor: divide by h^2, do not multiply.",
    }
    for mistaken, reason in mistakes.items():
        if close(factor, mistaken, rel=BY_HAND):
            raise Wrong(reason)
    raise Wrong("The right difference formula, but off by a factor: compare the terms in x^2.")


def _building_2(answer: Any) -> str:
    """sigma = s, s' = s (1 - s): s''' = s' (1 - 6 s + 6 s^2) vanishes at s = (3 + sqrt 3) / 6."""
    s = (3 + math.sqrt(3)) / 6
    return one_number(
        answer,
        math.log(s / (1 - s)),
        right="The third derivative vanishes there, and the three before it do not.",
        mistakes={
            s: "This is the value of the sigmoid at b; the exercise asks for b.",
            1 - s: "This is the value of the sigmoid at -b; the exercise asks for b.",
            math.atanh(3**-0.5): "This is the flat bias of tanh: tanh(z) is a sigmoid of 2z.",
            math.log(5 + 2 * math.sqrt(6)): "There the fourth derivative vanishes: that is the "
            "bias for degree 3.",
            0.0: "At 0 the second derivative vanishes, and the network needs to divide by it.",
        },
        otherwise="The third derivative does not vanish there. Write it as a polynomial in s, "
        "using s' = s (1 - s).",
        rel=2e-3,
    )


def _building_3(answer: Any) -> str:
    """h(a, b) = a b + 2 a at all nodes, x = (1, 1, 1, 1), and an error e at each node."""
    e, leaf = 1e-3, 3.0
    left, right, root = leaf + 2, leaf, 1.0
    return one_number(
        answer,
        (left + right + root) * e,
        right="Each node's error is multiplied by its sensitivity, and the products add up.",
        mistakes={
            3 * e: "This adds the errors of the nodes as they are; those of the lower nodes are "
            "multiplied on their way.",
            (left + right) * e: "The error of the root itself is missing.",
            (left + root) * e: "The error of one of the lower nodes is missing.",
            (right + root) * e: "The error of one of the lower nodes is missing.",
            (2 * left + root) * e: "The two lower nodes have different sensitivities: the root is "
            "not symmetric in what it reads.",
            (2 * right + root) * e: "The two lower nodes have different sensitivities: the root is "
            "not symmetric in what it reads.",
            left + right + root: "This is the amplification; multiply it by the error of a node.",
            left
            * right
            * e: "Sensitivities of different nodes add up; they multiply along a path.",
        },
        otherwise="Multiply the error of each node by the derivative of f with respect to its "
        "value, and add.",
    )


def _softplus_network(weights: Any, n: int) -> tuple[int, Any]:
    """The number of units of the given weights, and the network as a function of points (N, n)."""
    try:
        inner, biases, outer = weights
    except (TypeError, ValueError):
        raise Wrong("Wrong type: give three things, (inner, biases, outer).") from None
    try:
        (r,) = np.shape(plain(outer))
    except (TypeError, ValueError):
        r = 0
    if r == 0:
        raise Wrong("Wrong shape: outer must hold one number per unit.")
    a = numbers(inner, (r, n), f"inner weights of shape ({r}, {n}), one row per unit")
    b = numbers(biases, (r,), f"{r} biases, one per unit")
    c = numbers(outer, (r,), f"{r} outer weights, one per unit")
    return r, lambda x: np.logaddexp(0, x @ a.T + b) @ c


def _cube(n: int) -> np.ndarray:
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=n)))
    return np.vstack([np.random.default_rng(20200609).uniform(-1, 1, (400, n)), corners])


_GATE_UNITS = 4


def _building_4(answer: Any) -> str:
    x = _cube(2)
    y = x[:, 0] * x[:, 1]
    errors = []
    for h in (0.2, 0.02):
        units, net = _softplus_network(call(answer, h, name="gate"), 2)
        if units > _GATE_UNITS:
            raise Wrong(f"Too many units: {units}. Some weights of the six-unit network are zero.")
        f = net(x)
        errors.append(float(np.abs(f - y).max()))
        if h == 0.02 and not errors[-1] < 0.05:
            raise Wrong(_gate_problem(x, f, y))
    if not errors[1] < 0.3 * errors[0]:
        raise Wrong("Close, but the error does not shrink with h: the weights must depend on h.")
    return "Four units multiply, and the error shrinks with h."


def _gate_problem(x: np.ndarray, f: np.ndarray, y: np.ndarray) -> str:
    """What the network computes in place of the product, by a fit of all terms up to degree 2."""
    u, v = x.T
    terms = np.column_stack([np.ones_like(u), u, v, u * u, u * v, v * v])
    constant, *linear, square, product, other = np.linalg.lstsq(terms, f, rcond=None)[0]
    size = max(1.0, abs(product))
    if abs(constant) > 0.02 * size:
        return "A constant is left over: the outer weights must sum to zero."
    if max(map(abs, linear)) > 0.02 * size:
        return "A linear part is left over: the outer weights times the inner ones must cancel."
    if max(abs(square), abs(other)) > 0.02 * size:
        return "A square is left over: only the mixed term may survive."
    if abs(product) < 0.02:
        return "No product: the outer weights must grow like 1 / h^2."
    if close(product, -1, rel=0.05):
        return "Wrong sign: this is minus the product."
    if not close(product, 1, rel=0.05):
        return "A multiple of the product: check the powers of h and the derivative sigma''."
    return "The product is there, but so are terms of higher degree: the inner weights are large."


_MOST_UNITS = 7


def _building_5(answer: Any) -> str:
    if callable(answer):
        raise Wrong("Wrong type: give the weights, (inner, biases, outer), not a function.")
    x = _cube(3)
    y = (x[:, 0] + x[:, 1]) ** 3 + (x[:, 1] - x[:, 2]) ** 2
    units, net = _softplus_network(answer, 3)
    f = net(x)
    error = float(np.abs(f - y).max())
    if not error < 0.01:
        for part, name in (
            ((x[:, 0] + x[:, 1]) ** 3, "cube"),
            ((x[:, 1] - x[:, 2]) ** 2, "square"),
        ):
            if np.abs(f - part).max() < 0.02:
                raise Wrong(f"This is the {name} alone; add the other term.")
        if close(f, f.mean(), rel=0, abs_=1e-6):
            raise Wrong("This network is constant.")
        raise Wrong(
            "Not close enough: the error must stay below one hundredth on the whole cube. If the "
            "weights are right, choose h neither too large nor so small that rounding takes over."
        )
    if units > _MOST_UNITS:
        raise Wrong(
            "Right, but with too many units: each term depends on one direction only, and needs "
            "no more units than a polynomial in one variable."
        )
    return f"{units} units, where Theorem 2 would take 20."


GRADERS: dict[str, Grader] = {
    "1": _building_1,
    "2": _building_2,
    "3": _building_3,
    "4": _building_4,
    "5": _building_5,
}
