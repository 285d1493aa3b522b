"""Graders of the chapter on shallow and deep networks."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_VARIABLES = 8


def _halving(answer: Any) -> str:
    shallow, tree = numbers(answer, (2,), "two numbers, [shallow, tree]")
    right = (2.0**_VARIABLES, 2.0**2)
    if close((shallow, tree), right, rel=1e-9):
        return "Halving the accuracy multiplies by 2 to the power of the exponent."
    if close((tree, shallow), right, rel=1e-9):
        raise Wrong("The two are swapped: the first is for the shallow network.")
    if close((shallow * right[0], tree * right[1]), (1, 1), rel=1e-9):
        raise Wrong("Upside down: a smaller error takes more units.")
    if close((shallow, tree), (_VARIABLES, 2), rel=1e-9):
        raise Wrong("These are the exponents: say by which factor the number of units grows.")
    if close(tree, right[1] * (_VARIABLES - 1), rel=1e-9):
        raise Wrong("The number of nodes is there before and after, so it cancels in the factor.")
    if close(shallow, right[0], rel=1e-9):
        raise Wrong("The factor of the shallow network is right, the other is not.")
    if close(tree, right[1], rel=1e-9):
        raise Wrong("The factor of the tree is right, the other is not.")
    raise Wrong("Divide the bound at half the accuracy by the bound at the accuracy.")


def _quadratics(answer: Any) -> str:
    best = np.polynomial.chebyshev.poly2cheb([0, 0, 0, 0, 1])[4]  # coefficient of T_4 in x^4
    return one_number(
        answer,
        float(best),
        right="The difference to the best quadratic is a multiple of Chebyshev's T_4.",
        mistakes={
            0.0: "A sum of units z^2 is a quadratic polynomial, and the target is none.",
            1 / 4: "Nearly: subtract the best constant too, so that the error goes both ways.",
            1 / 2: "Half the range of the target is what the best constant gives; use x^2.",
            1.0: "The zero function does that: use x^2 and a constant.",
        },
        otherwise="Write the target in Chebyshev polynomials: what can no quadratic reach?",
    )


_POINT = (3.0, 1.0, 1.0, 5.0)


def _budget(answer: Any) -> str:
    a, b, c, d = _POINT
    left, right = c * d, a * b
    return one_number(
        answer,
        left + right + 1,
        right="Each error is multiplied by the value that its node is multiplied with later.",
        mistakes={
            left + right: "The output is a node too, and adds its own error.",
            3.0: "That would be so where all values are one: here they multiply the errors.",
            a * b * c * d: "This is the value of the product, not its sensitivity to the nodes.",
            max(left, right): "All nodes err at once: add their contributions.",
            left + 1: "One of the two lower nodes is missing.",
            right + 1: "One of the two lower nodes is missing.",
        },
        otherwise="Add the derivatives of the output with respect to the values of all nodes.",
    )


_LABELS = (1, -1, -1, 1, -1)


def _one_parameter(answer: Any) -> str:
    theta = float(numbers(answer, (), "one number"))
    values = [math.sin(theta * 10.0**-i) for i in range(1, len(_LABELS) + 1)]
    signs = [math.copysign(1, v) for v in values]
    if min(abs(v) for v in values) < 1e-9:
        raise Wrong("A sine is zero there, and has no sign: keep theta off multiples of pi.")
    wrong = sum(s != y for s, y in zip(signs, _LABELS, strict=True))
    if wrong == len(_LABELS):
        raise Wrong("Wrong sign: every label comes out negated.")
    if signs == list(_LABELS[::-1]):
        raise Wrong("The labels come out in the reverse order: the first point is the largest.")
    if wrong:
        raise Wrong(f"Not yet: {wrong} of the {len(_LABELS)} signs are wrong.")
    return "One parameter reproduces all labels; its digits hold them."


def _shells(n: int, s: int, least: int | None = None) -> list[int]:
    """Number of points of Z^n with square norm 0 .. s, as powers of a theta series.

    With ``least``, of those points whose coordinates are not below it.
    """
    theta = np.zeros(s + 1, dtype=object)
    for j in range(-math.isqrt(s) if least is None else least, math.isqrt(s) + 1):
        theta[j * j] += 1
    power = np.zeros(s + 1, dtype=object)
    power[0] = 1
    for _ in range(n):
        power = np.convolve(power, theta)[: s + 1]
    return power.tolist()


def _lattice(answer: Any) -> str:
    # The first count is so large that no two mistakes give the same number.
    for n, s in ((3, 9), (1, 0), (1, 4), (2, 1), (2, 2), (4, 7), (8, 30), (12, 60)):
        value = call(answer, n, s, name="lattice_points")
        try:
            value = operator.index(value)
        except TypeError:
            raise Wrong("Wrong type: return a whole number, which must be exact.") from None
        shells = _shells(n, s)
        if value == sum(shells):
            continue
        if value == shells[s]:
            raise Wrong("These are the points on the sphere: count those inside it as well.")
        if value == sum(shells[:-1]):
            raise Wrong("The points on the sphere itself belong to the count.")
        if value == sum(_shells(n, s, least=0)):
            raise Wrong("Coordinates may be negative, too.")
        if value == sum(_shells(n, s * s)) and s > 1:
            raise Wrong("The bound is on the squared norm, not on the norm.")
        raise Wrong(f"The count is wrong for n = {n} and s = {s}.")
    return "All counts agree, also where the points could not be listed."


GRADERS: dict[str, Grader] = {
    "1": _halving,
    "2": _quadratics,
    "3": _budget,
    "4": _one_parameter,
    "5": _lattice,
}
