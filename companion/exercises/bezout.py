"""Graders of the chapter on counting solutions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number


def _bezout_1(answer: Any) -> str:
    found = numbers(answer, (3,), "three numbers: complex solutions, real ones, and functions")
    power, examples = 4, 2
    real_roots = 2  # of y^(1/4) for y > 0
    all_of_them, real = power**examples, real_roots**examples
    functions = real // 2  # w and -w
    given = [round(float(value)) if float(value).is_integer() else None for value in found]
    if None in given:
        raise Wrong("Numbers of solutions are whole numbers.")
    if given[0] != all_of_them:
        raise Wrong(
            "The number of complex solutions is off: "
            + {
                power: "this counts the roots of one equation; every choice for the first example "
                "goes with every choice for the second.",
                power * examples: "choices for different examples multiply, they do not add.",
                functions: "two weight vectors with the same function are two solutions.",
            }.get(given[0], "how many values has a complex fourth root?")
        )
    if given[1] == all_of_them:
        raise Wrong("Not all are real: some fourth roots of a positive number are imaginary.")
    if given[1] != real:
        raise Wrong("The number of real ones is off: how many fourth roots of y > 0 are real?")
    if given[2] == real:
        raise Wrong("Some of the real solutions give the same function: change all signs.")
    if given[2] != functions:
        raise Wrong("The number of functions is off: which real solutions have the same function?")
    return "Bezout's number is attained, and few of its solutions are real and differ."


def _bezout_2(answer: Any) -> str:
    layers, power, examples = 4, 2, 10
    degree = sum(power**k for k in range(layers))
    in_x = power ** (layers - 1)
    reason = "That is not the product of the degrees of the equations in the weights."
    return one_number(
        answer,
        degree**examples,
        right="The degree in the weights counts each layer once more.",
        mistakes={
            in_x**examples: "This takes the degree in x; the unknowns are the weights.",
            power**examples: "This takes the degree of the activation alone.",
            (power**layers) ** examples: "The last layer is linear in its own weights.",
            degree: "This is the degree of one equation; multiply over all examples.",
            in_x: "This is the degree of one equation, and in x.",
            degree * examples: "The degrees multiply, they do not add.",
            (degree - 1) ** examples: "The last layer multiplies by one more weight.",
            layers**examples: "This is the degree of a linear network.",
        },
        otherwise=reason,
        rel=1e-6,
    )


_LEADING = (
    [(2, 0), (0, 2)],
    [(3,)],
    [(2, 0), (1, 1), (0, 3)],
    [(1, 0, 0), (0, 1, 0), (0, 0, 5)],
    [(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 1)],
    [(0, 0)],
    [(2, 0), (1, 1)],
    [(1, 2)],
    [(4, 0), (2, 1), (1, 3), (0, 4)],
)


def _standard(leading: list[tuple[int, ...]]) -> int | None:
    """Count in a box that holds all standard monomials if there are finitely many."""
    size, side = len(leading[0]), 1 + max(map(max, leading))
    total, boundary = 0, False
    for e in itertools.product(range(side), repeat=size):
        if not any(all(a <= b for a, b in zip(m, e, strict=True)) for m in leading):
            total += 1
            boundary |= max(e) == side - 1  # beyond every leading exponent: it goes on for ever
    return None if boundary else total


def _bezout_3(answer: Any) -> str:
    for leading in _LEADING:
        found = call(answer, list(leading), name="count")
        right = _standard(leading)
        where = f"for the leading monomials {leading}"
        if right is None:
            if found is None:
                continue
            raise Wrong(f"There are infinitely many solutions {where}: return None.")
        if found is None:
            raise Wrong(f"There are finitely many solutions {where}, and the function says None.")
        value = float(numbers(found, (), "one number or None"))
        if value == right:
            continue
        if right == 0:
            raise Wrong("The leading monomial 1 divides every monomial: nothing is standard.")
        pure = [
            min((m[i] for m in leading if sum(m) == m[i]), default=0)
            for i in range(len(leading[0]))
        ]
        if value == np.prod(pure):
            raise Wrong(f"The mixed leading monomials are forgotten {where}.")
        if value == right - 1:
            raise Wrong(f"One too few {where}: the monomial 1 is standard as well.")
        raise Wrong(f"Not the number of standard monomials {where}.")
    return "It counts the monomials that no leading monomial divides, and sees when they are many."


def _bezout_4(answer: Any) -> str:
    value = float(numbers(answer, (), "one number"))
    targets = (1.0, 4.0)
    # f = (b + a x)^2 up to scaling, with b = 1 and a + b = +-2: both continuations to x = 2
    continued = {sign: (2 * sign * targets[1] ** 0.5 - targets[0] ** 0.5) ** 2 for sign in (1, -1)}
    if close(value, continued[-1], rel=1e-9):
        return "The parabola has its double zero between the first two examples."
    if close(value, continued[1], rel=1e-9):
        raise Wrong("That one is excluded: it is the square of x + 1. There is another.")
    if close(value, 7.0, rel=1e-9):
        raise Wrong("This continues a straight line; the function has a double zero.")
    if value < 0:
        raise Wrong("The first two targets fix the sign of c, and so the sign of all outputs.")
    raise Wrong(
        "The network cannot: a square root of the outputs must be linear in x, with either sign "
        "at each example."
    )


def _bezout_5(answer: Any) -> str:
    import sympy as sp

    rows = numbers(answer, (2, 6), "two lists of six integers")
    if (rows != np.round(rows)).any() or np.abs(rows).max() > 10**6:
        raise Wrong("Give integers, not larger than a million.")
    a, b = sp.symbols("a b")
    monomials = (a**2, a * b, b**2, a, b, sp.Integer(1))
    p, q = (
        sum((int(k) * m for k, m in zip(row, monomials, strict=True)), sp.Integer(0))
        for row in rows
    )
    if not (rows[:, :3] != 0).any(axis=1).all():
        raise Wrong("Both equations must be quadratic: one has no term of degree two.")
    best: tuple[int, int, int] | None = None
    for shear in (3, -7, 19):  # a + shear * b takes different values at different solutions
        turned = [sp.expand(f.subs(a, a - shear * b, simultaneous=True)) for f in (p, q)]
        eliminated = sp.Poly(sp.resultant(*turned, b), a)
        if eliminated.is_zero:
            raise Wrong("The two curves share a whole piece: infinitely many solutions.")
        distinct = sp.Poly(eliminated.sqf_part(), a)
        real = distinct.count_roots() if distinct.degree() > 0 else 0
        counts = (eliminated.degree(), distinct.degree(), -real)
        best = counts if best is None else max(best, counts)
    assert best is not None
    total, different, real = best[0], best[1], -best[2]
    if total < 4:
        raise Wrong("Some solutions are at infinity: look at the terms of degree two alone.")
    if different < 4:
        raise Wrong("Some solutions coincide: the curves touch.")
    if real:
        raise Wrong("Some solutions are real: the curves meet.")
    return "Four complex solutions, and no point in the real plane."


GRADERS: dict[str, Grader] = {
    "1": _bezout_1,
    "2": _bezout_2,
    "3": _bezout_3,
    "4": _bezout_4,
    "5": _bezout_5,
}
