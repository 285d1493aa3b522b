"""Graders of the ReLU chapter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_ACCURACY = 1e-6


def _relu_1(answer: Any) -> str:
    steps, units = numbers(answer, (2,), "two numbers, the steps m and the number of units")
    m = next(m for m in itertools.count() if 4.0 ** -(m + 1) <= _ACCURACY)
    if steps != m:
        near = {
            m - 1: "One step too few: the error is still above the accuracy asked for.",
            m + 1: "One step too many: a smaller m will do. The error is 2 to the power -2m-2.",
            2 * m + 1: "The error falls four times per step, not twice.",
        }
        raise Wrong(near.get(steps, "Wrong m: solve 2 to the power -2m-2 for m, and round up."))
    if units != 3 * m - 1:
        near = {
            3 * m: "The first layer needs no unit for the sum so far: it holds the input itself.",
            3 * m + 1: "This is the count for the signed square on [-1, 1].",
            2 * m: "The sum so far takes a unit of its own in each layer but the first.",
            2**m: "These are the linear pieces, not the units.",
        }
        raise Wrong(near.get(units, "Right m, wrong number of units: read off the widths of f_3."))
    return "Each step divides the error by four and costs three units."


def _relu_2(answer: Any) -> str:
    pieces = math.ceil(math.sqrt(1 / (8 * _ACCURACY)))
    return one_number(
        answer,
        pieces - 1,
        right="One hidden layer has at most one piece more than it has units.",
        mistakes={
            pieces: "These are the pieces that are needed; one unit fewer may make them.",
            pieces - 2: "One too few: round the number of pieces up.",
            math.ceil(math.sqrt(1 / (4 * _ACCURACY))): "This is for the interpolant: a chord "
            "moved down by half its error is twice as good.",
            math.ceil(math.sqrt(1 / (4 * _ACCURACY))) - 1: "This is for the interpolant: a chord "
            "moved down by half its error is twice as good.",
            math.ceil(math.sqrt(1 / (16 * _ACCURACY))): "Wrong constant: on a piece of length h "
            "the best line is h squared over 8 away.",
            math.ceil(math.sqrt(1 / (16 * _ACCURACY))) - 1: "Wrong constant: on a piece of length "
            "h the best line is h squared over 8 away.",
            pieces**2: "The error falls with the square of the number of pieces.",
        },
        otherwise="Not the bound: find the number of pieces from the error of the best line on "
        "one of them, then the units.",
        rel=1e-4,
    )


# --- functions built from ReLUs ------------------------------------------------------------------


@dataclass
class _Tape:
    """Counts the ReLUs of a function, which may otherwise only add and scale."""

    units: int = 0

    def relu(self, value: Any) -> Any:
        if isinstance(value, _Signal):
            self.units += 1
            return _Signal(np.maximum(value.values, 0.0))
        return max(float(value), 0.0)


@dataclass(eq=False)
class _Signal:
    """What flows through a network: sums and multiples are allowed, nothing else."""

    values: np.ndarray
    __array_ufunc__: None = field(default=None, init=False, repr=False)  # keeps NumPy away

    def _plus(self, other: Any, sign: float = 1.0) -> _Signal:
        return _Signal(self.values + sign * _values(other))

    def __add__(self, other: Any) -> _Signal:
        return self._plus(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> _Signal:
        return self._plus(other, -1.0)

    def __rsub__(self, other: Any) -> _Signal:
        return (-self)._plus(other)

    def __neg__(self) -> _Signal:
        return _Signal(-self.values)

    def __mul__(self, factor: Any) -> _Signal:
        if isinstance(factor, _Signal):
            raise TypeError("a network may not multiply two signals.")
        return _Signal(float(factor) * self.values)

    __rmul__ = __mul__

    def __truediv__(self, factor: Any) -> _Signal:
        if isinstance(factor, _Signal):
            raise TypeError("a network may not divide by a signal.")
        return self * (1.0 / float(factor))

    def __pow__(self, exponent: Any) -> _Signal:
        raise TypeError("a network may not take powers; use the given relu.")

    def __abs__(self) -> _Signal:
        raise TypeError("a network may not take absolute values; use the given relu.")

    def __bool__(self) -> bool:
        raise TypeError("a network may not branch on a signal; use the given relu.")

    def _compare(self, other: Any) -> _Signal:
        raise TypeError("a network may not compare signals; use the given relu.")

    __lt__ = __le__ = __gt__ = __ge__ = _compare


def _values(value: Any) -> Any:
    return value.values if isinstance(value, _Signal) else float(value)


def _run(
    function: Callable[..., Any], name: str, inputs: tuple[np.ndarray, ...], *more: Any
) -> tuple[np.ndarray, int]:
    """Values of the reader's function at points, and the number of ReLUs it took."""
    tape = _Tape()
    signals = tuple(_Signal(np.array(x)) for x in inputs)
    result = call(function, *signals, *more, tape.relu, name=name)
    if not isinstance(result, _Signal):
        raise Wrong("Wrong type: return a sum of multiples of the inputs and of values of relu.")
    if not np.isfinite(result.values).all():
        raise Wrong("Not finite: some values are NaN or infinite.")
    return result.values, tape.units


def _interpolant(x: np.ndarray, m: int) -> np.ndarray:
    grid = np.linspace(0.0, 1.0, 2**m + 1)
    return np.interp(x, grid, grid**2)


def _relu_3(answer: Any) -> str:
    x = np.linspace(-1.0, 1.0, 2001)
    for m in range(5):
        value, units = _run(answer, "square", (x,), m)
        target = _interpolant(np.abs(x), m)
        if not close(value, target, rel=0, abs_=1e-9):
            raise Wrong(_square_mistake(x, value, target, m))
        if units > 3 * m + 2:
            raise Wrong("Right values, too many units: reuse what you have computed.")
    return "The interpolant on both sides of zero, for every m."


def _square_mistake(x: np.ndarray, value: np.ndarray, target: np.ndarray, m: int) -> str:
    right = close(value[x >= 0], target[x >= 0], rel=0, abs_=1e-9)
    if right:
        return "Right for x >= 0, wrong for x < 0: start from |x|, which takes two units."
    if m == 0:
        return "Wrong for m = 0, where no tent is subtracted: f_0(|x|) = |x|."
    shifted = {
        m - 1: "This is the function for one step less.",
        m + 1: "This is the function for one step more.",
    }
    for other, reason in shifted.items():
        if close(value, _interpolant(np.abs(x), other), rel=0, abs_=1e-9):
            return reason
    ends = np.abs(x) == 1
    if not close(value[ends], 1.0, rel=0, abs_=1e-9):
        return "Wrong at |x| = 1, where every tent is zero and the value is one."
    return "Wrong between the ends: subtract the s-fold tent of |x| over 4 to the power s."


def _relu_4(answer: Any) -> str:
    u, v = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(-2.0, 2.0, 81)]))
    value, units = _run(answer, "hat", (u, v))
    target = np.maximum(1 - np.maximum(np.maximum(abs(u), abs(v)), abs(u - v)), 0.0)
    if close(value, target, rel=0, abs_=1e-9):
        if units > 12:
            raise Wrong("Right values, too many units: three absolute values and one more do.")
        return "One at the origin, zero at all other grid points, linear on every triangle."
    mirrored = np.maximum(1 - np.maximum(np.maximum(abs(u), abs(v)), abs(u + v)), 0.0)
    pyramid = np.maximum(1 - np.maximum(abs(u), abs(v)), 0.0)
    diamond = np.maximum(1 - abs(u) - abs(v), 0.0)
    known = (
        (mirrored, "The squares are cut along the other diagonal: look at (1, 1) and (1, -1)."),
        (pyramid, "This pyramid bends along both diagonals: the triangles have only one."),
        (diamond, "This bends along the axes, where the triangles meet, but not along u = v."),
        (2 * target, "Off by a factor: the value at the origin is one."),
        (1 - np.maximum(np.maximum(abs(u), abs(v)), abs(u - v)), "Cut off what is negative."),
    )
    for values, reason in known:
        if close(value, values, rel=0, abs_=1e-9):
            raise Wrong(reason)
    at = (u == np.round(u)) & (v == np.round(v))
    if not close(value[at], target[at], rel=0, abs_=1e-9):
        raise Wrong("Wrong at a grid point: one at the origin and zero at all others.")
    raise Wrong("Right at the grid points, but not linear on every triangle.")


_CUBE_UNITS = 100


def _relu_5(answer: Any) -> str:
    x = np.unique(np.concatenate([np.linspace(0.0, 1.0, 40_001), np.arange(2**14 + 1) / 2**14]))
    value, units = _run(answer, "cube", (x,))
    error = np.abs(value - x**3).max()
    if error > _ACCURACY:
        if np.abs(value - x**2).max() < 1e-3:
            raise Wrong("This is the square. A cube is the product of x and its square.")
        if error > 1e-2:
            raise Wrong("Far from the cube somewhere on [0, 1]: check your product on its own.")
        raise Wrong("On the way, but the accuracy is not reached: take more tents.")
    if units > _CUBE_UNITS:
        raise Wrong("Accurate, but with more units than allowed: let depth do more of the work.")
    return "A product of a number and its square, each from squares, each from tents."


GRADERS: dict[str, Grader] = {
    "1": _relu_1,
    "2": _relu_2,
    "3": _relu_3,
    "4": _relu_4,
    "5": _relu_5,
}
