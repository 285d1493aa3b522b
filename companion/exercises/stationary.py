"""Graders of the chapter on stationary points."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import sympy

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number, plain


@functools.cache
def _root() -> float:
    """e^w at the stationary point of exercise 1."""
    w = sympy.symbols("w", real=True)
    t = sympy.symbols("t", positive=True)  # e^w
    slope = (sympy.exp(-2 * w) + sympy.exp(w)).diff(w).subs(w, sympy.log(t))
    (root,) = sympy.solve(sympy.simplify(slope), t)
    return float(root)


def _stationary_1(answer: Any) -> str:
    root = _root()
    return one_number(
        answer,
        math.log(root),
        right="The two pulls cancel there, and the second example is on the wrong side.",
        mistakes={
            0.0: "Not stationary: at zero the pulls are as long as the points, and those differ.",
            root: "This is e to the power w.",
            math.log(2): "The exponents of the two examples add: the points have both lengths.",
            2 * math.log(root): "This is a margin: w is multiplied by x_1.",
        },
        otherwise="Not stationary. Set the derivative of the sum of the losses to zero.",
    )


@functools.cache
def _threshold(K: int) -> float:  # noqa: N803 (the paper's letter)
    """The margin of exercise 2, for K layers."""
    t, m = sympy.symbols("t m", positive=True)
    curve = sympy.exp(-m * (1 + t) ** K).diff(t, 2).subs(t, 0)
    (target,) = sympy.solve(sympy.simplify(curve * sympy.exp(m)), m)
    return float(target)


def _stationary_2(answer: Any) -> str:
    K = 4  # noqa: N806
    target = _threshold(K)
    return one_number(
        answer,
        target,
        right="The square of the first derivative outweighs the second one from there on.",
        mistakes={
            0.0: "Separation alone is not enough: the margin itself is convex along the ray.",
            1.0: "The second derivative of the K-th power has the factor K (K - 1), not K^2.",
            1 / target: "Upside down.",
            (K - 1.0): "The square of the first derivative has a factor K^2.",
            1 / K: "The second derivative of the K-th power has two factors.",
        },
        otherwise="Not the threshold. Differentiate the loss twice in t at (1 + t) W.",
    )


def _log_bound(m: np.ndarray, rho: np.ndarray) -> float:
    low = m.min()
    return float(np.log(np.mean(m**2 * np.exp(low - m))) - low - 2 * np.log(rho.min()))


def _stationary_3(answer: Any) -> str:
    rng = np.random.default_rng(31)
    for shift, size in ((0.5, 5), (3.0, 2), (1000.0, 7), (2500.0, 4)):
        m, rho = shift + rng.uniform(0, 3, size=size), rng.uniform(0.5, 9, size=3)
        found = plain(call(answer, m.copy(), rho.copy(), name="log_bound"))
        if _infinite(found):
            raise Wrong("Underflow: at margins near 1000 the exponentials are zero.")
        value = float(numbers(found, (), "one number"))
        right = _log_bound(m, rho)
        if close(value, right, rel=1e-9, abs_=1e-9):
            continue
        _explain(value, right, m, rho)
    return "Right, and it does not underflow."


def _infinite(value: Any) -> bool:
    try:
        return np.ndim(value) == 0 and not math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _explain(value: float, right: float, m: np.ndarray, rho: np.ndarray) -> None:
    """Say which typical mistake gives this value."""
    low = m.min()
    first = float(np.log(np.mean(m * np.exp(low - m))) - low)
    mistakes = {
        right + math.log(len(m)): "This is the sum over the examples, not the mean.",
        right + 2 * math.log(rho.min() / rho.max()): "The largest bound comes from another layer.",
        right + math.log(rho.min()): "The norm enters with its square.",
        right + 2 * math.log(rho.min()): "The layer norms are missing.",
        first - 2 * math.log(rho.min()): "The margins enter with their squares.",
        right / math.log(10): "Take the natural logarithm.",
        -right: "Wrong sign.",
    }
    for mistaken, reason in mistakes.items():
        if close(value, mistaken, rel=1e-9, abs_=1e-9):
            raise Wrong(reason)
    if close(value, math.exp(right), rel=1e-9):
        raise Wrong("This is the bound itself: return its logarithm.")
    raise Wrong("The value differs from the logarithm of the bound.")


@functools.cache
def _four_layers() -> list[int]:
    """Planes, and ranks at a generic point of a plane, on a line of two planes, at the origin."""
    w = sympy.symbols("w_1:5")
    loss = sympy.exp(-sympy.prod(w))
    curvature = sympy.hessian(loss, w)
    gradient = [loss.diff(v) for v in w]
    planes = [
        pair
        for pair in itertools.combinations(w, 2)
        if all(g.subs(dict.fromkeys(pair, 0)) == 0 for g in gradient)
    ]
    spots = ((0, 0, 2, 3), (0, 0, 0, 3), (0, 0, 0, 0))
    return [len(planes)] + [
        curvature.subs(dict(zip(w, spot, strict=True))).rank() for spot in spots
    ]


def _stationary_4(answer: Any) -> str:
    found = numbers(answer, (4,), "four numbers: planes, and the rank at three kinds of points")
    target = _four_layers()
    wrong = [i for i in range(4) if found[i] != target[i]]
    reasons = (
        "Wrong number of planes: the gradient vanishes where every product of three weights does.",
        "Wrong rank at a generic point: which second derivatives survive two zeros?",
        "Wrong rank on the line: three weights vanish there.",
        "Wrong rank at the origin: the product has degree four.",
    )
    if wrong:
        raise Wrong(reasons[wrong[0]])
    return "Nondegenerate across each plane, and degenerate where planes meet."


def _stationary_5(answer: Any) -> str:
    w1, w2 = numbers(answer, (2,), "two numbers, w_1 and w_2")
    m = w1 * w2
    if m <= 0:
        raise Wrong("The example is not separated: its margin is not positive.")
    if np.exp(-m) >= 1e-6:
        raise Wrong("The loss is too large: the margin must grow.")
    curvature = np.exp(-m) * np.array([[w2 * w2, m - 1], [m - 1, w1 * w1]])
    if np.linalg.eigvalsh(curvature)[-1] > 1000:
        return "Sharp at a tiny loss: the layers are far from balance."
    if max(abs(w1), abs(w2)) < 10 * min(abs(w1), abs(w2)):
        raise Wrong("The largest eigenvalue is too small: the layers are nearly balanced.")
    raise Wrong(
        "The largest eigenvalue is too small: move more norm from one layer to the other, or "
        "lower the margin as far as the loss allows."
    )


GRADERS: dict[str, Grader] = {
    "1": _stationary_1,
    "2": _stationary_2,
    "3": _stationary_3,
    "4": _stationary_4,
    "5": _stationary_5,
}
