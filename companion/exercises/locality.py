"""Graders of the locality chapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

Pairs = set[frozenset[int]]
Gradient = Callable[[np.ndarray], np.ndarray]

# --- 1: parameters with and without sharing ------------------------------------------------------

_INPUTS, _UNITS = 16, 6


def _locality_1(answer: Any) -> str:
    given = numbers(answer, (3,), "three numbers: own weights, shared by level, shallow")
    n, Q = _INPUTS, _UNITS  # noqa: N806 (the letter of the text)
    node, levels, units = 4 * Q + 1, int(math.log2(n)), (n - 1) * Q
    own, shared, shallow = given
    for value, count, where in ((own, n - 1, "own"), (shared, levels, "shared")):
        if value == count * node:
            continue
        for per_node, reason in (
            (4 * Q, "The constant c_0 of each node is missing"),
            (3 * Q + 1, "A unit with two inputs has two weights, a bias and an outer weight"),
            (2 * Q + 1, "Inner weights, biases and outer weights all count"),
            (Q, "This counts units, not parameters"),
        ):
            if value == count * per_node:
                raise Wrong(f"{reason} ({where} weights).")
        if where == "own" and value == n * node:
            raise Wrong("A binary tree has one node less than inputs (own weights).")
        if where == "shared" and value == node:
            raise Wrong("One function per level, not one for the whole tree (shared weights).")
        raise Wrong(f"Wrong number for {where} weights: parameters of a node times functions.")
    if shallow == units * (n + 2) + 1:
        return "Linear in n with or without sharing; the shallow network is the largest of all."
    if shallow == units * (n + 2):
        raise Wrong("The constant c_0 of the shallow network is missing.")
    if shallow == units * (n + 1) + 1 or shallow == units * n + 1:
        raise Wrong("Each unit of the shallow network also has a bias and an outer weight.")
    raise Wrong("Wrong number for the shallow network: its units see all inputs.")


# --- 2: different permuted trees -----------------------------------------------------------------


def _locality_2(answer: Any) -> str:
    all_, same = math.factorial(8), 2**7
    return one_number(
        answer,
        all_ // same,
        rel=1e-9,
        right="Each node can exchange its two subtrees without changing the family.",
        mistakes={
            all_: "These are all permutations; many of them give the same tree.",
            same: "This is how many permutations give the same tree; divide by it.",
            all_ // same - 1: "The right graph counts as well.",
            all_ // 2**4: "Only the exchanges within pairs are taken into account, not those of "
            "pairs and of halves.",
            all_ // (2**4 * math.factorial(4)): "This counts the ways to form pairs; the trees "
            "also differ in how the pairs are joined.",
            all_ // 2: "More than one exchange leaves the tree as it is.",
        },
        otherwise="Count the exchanges of two subtrees that leave the tree as it is, one at each "
        "node, and divide.",
    )


# --- 3: the least number of trees ----------------------------------------------------------------


def _locality_3(answer: Any) -> str:
    n = k = 12
    monomials, node = math.comb(n + k, k), math.comb(k + 2, 2)
    quotient = monomials / ((n - 1) * node)
    value = float(numbers(answer, (), "one number"))
    if value == math.floor(quotient):
        raise Wrong("A number of trees at least as large as the quotient: round up, not down.")
    if close(value, quotient, rel=1e-5) and value != math.ceil(quotient):
        raise Wrong("This is the quotient; a number of trees is an integer.")
    return one_number(
        value,
        math.ceil(quotient),
        rel=1e-9,
        right="A sum of fewer trees has too few coefficients to fill the space.",
        mistakes={
            monomials: "This is the number of monomials; a tree has many coefficients.",
            (n - 1) * node: "This is the number of coefficients of one tree.",
            math.ceil(monomials / node): "A tree has n - 1 nodes, each with its coefficients.",
            math.ceil(monomials / (n * node)): "A binary tree has one node less than inputs.",
            math.ceil(monomials / (n - 1)): "Each node has as many coefficients as there are "
            "monomials of that degree in two variables.",
        },
        otherwise="Divide the dimension of the space of polynomials by the number of coefficients "
        "of one tree, and round up.",
    )


# --- 4: a smooth maximum, the same for every tree ------------------------------------------------


def _locality_4(answer: Any) -> str:
    rng = np.random.default_rng(4)
    for scale, shift in ((1.0, 0.0), (900.0, 1000.0), (900.0, -1000.0)):
        for num_inputs in (2, 3, 6):
            x = (shift + scale * rng.uniform(-1, 1, num_inputs)).tolist()
            value = _fold(answer, x, rng, large=shift != 0)
            target = float(np.logaddexp.reduce(x))
            if not close(value, target, rel=1e-9, abs_=1e-12):
                raise Wrong(_reading(value, np.array(x), large=shift != 0))
    return "Every tree computes the same value, also where the exponentials overflow."


def _fold(function: Any, values: list[float], rng: np.random.Generator, *, large: bool) -> float:
    """Join random pairs by the reader's function until one value is left: a random tree."""
    values = list(values)
    while len(values) > 1:
        i, j = sorted(rng.choice(len(values), 2, replace=False), reverse=True)
        try:
            result = call(function, values.pop(i), values.pop(j), name="constituent")
        except Wrong as wrong:
            if large and ("OverflowError" in str(wrong) or "math domain" in str(wrong)):
                raise Wrong(_OVERFLOW) from None
            raise
        values.append(float(numbers(result, (), "a function that returns one number")))
        if not math.isfinite(values[-1]):
            raise Wrong(_OVERFLOW)
    return values[0]


_OVERFLOW = (
    "Right idea perhaps, but the exponentials leave the range of floating point for arguments "
    "around 1000 or -1000. Take the larger argument out of the logarithm."
)


def _reading(value: float, x: np.ndarray, *, large: bool) -> str:
    if large:
        return "Right for small arguments, but inaccurate for those around 1000 or -1000."
    readings = [
        (x.max(), "This is the maximum itself, not its smooth version."),
        (np.exp(x).sum(), "The logarithm is missing."),
        (x.sum(), "This is the sum of the arguments."),
        (np.log(np.exp(x).mean()), "Take the sum of the exponentials, not their mean."),
    ]
    for reading, reason in readings:
        if close(value, reading, rel=1e-9):
            return reason
    return "The tree does not compute the smooth maximum. What do two subtrees hand to their node?"


# --- 5: the pairs of an unknown graph ------------------------------------------------------------


def _locality_5(answer: Any) -> str:
    for num_inputs, seed in ((4, 0), (8, 1), (8, 2)):
        gradient, pairs = _unknown(num_inputs, seed)
        found = _as_pairs(call(answer, gradient, num_inputs, name="find_pairs"), num_inputs)
        if found == pairs:
            continue
        if found == {frozenset((i, i + 1)) for i in range(0, num_inputs, 2)}:
            raise Wrong("These pairs are neighbours. The inputs are permuted.")
        if found & pairs:
            raise Wrong(f"Some pairs are right, but not all (a function of {num_inputs} inputs).")
        raise Wrong(f"No pair is right (a function of {num_inputs} inputs).")
    return "All pairs found, on three functions that the grader drew."


def _as_pairs(result: Any, num_inputs: int) -> Pairs:
    if isinstance(result, np.ndarray):
        result = result.tolist()
    if not isinstance(result, Iterable) or isinstance(result, (str, bytes)):
        raise Wrong("Wrong type: return a list of pairs of integers.")
    rows = [tuple(row) if isinstance(row, Iterable) else () for row in result]
    if any(len(row) != 2 or not all(_is_index(i) for i in row) for row in rows):
        raise Wrong("Wrong type: return a list of pairs of integers.")
    indices = sorted(int(i) for row in rows for i in row)
    if indices == list(range(1, num_inputs + 1)):
        raise Wrong("Count the inputs from 0.")
    if indices != list(range(num_inputs)):
        raise Wrong("Every input belongs to exactly one pair.")
    return {frozenset(int(i) for i in row) for row in rows}


def _is_index(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _unknown(num_inputs: int, seed: int) -> tuple[Gradient, Pairs]:
    """A composition of sines over a balanced tree of permuted inputs: its gradient, its pairs."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(num_inputs)
    signs = rng.choice([-1.0, 1.0], (num_inputs - 1, 4)) * [1.0, 0.8, 0.5, 0.3]

    def gradient(x: Any) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        if x.ndim != 2 or x.shape[1] != num_inputs:
            raise ValueError(f"x must have shape (N, {num_inputs}), got {x.shape}.")
        coefficients = iter(signs)
        # One entry per value of a level: the value, and its derivatives by all inputs.
        level = [(x[:, i], np.tile(np.eye(num_inputs)[i], (len(x), 1))) for i in order]
        while len(level) > 1:
            level = [
                _sine(next(coefficients), *a, *b)
                for a, b in zip(level[::2], level[1::2], strict=True)
            ]
        return level[0][1]

    return gradient, {frozenset(map(int, pair)) for pair in order.reshape(-1, 2)}


def _sine(
    c: np.ndarray, a: np.ndarray, da: np.ndarray, b: np.ndarray, db: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """sin(c0 a b + c1 a + c2 b + c3) and its derivatives, (N,) and (N, n)."""
    z = c[0] * a * b + c[1] * a + c[2] * b + c[3]
    dz = (c[0] * b + c[1])[:, None] * da + (c[0] * a + c[2])[:, None] * db
    return np.sin(z), np.cos(z)[:, None] * dz


GRADERS: dict[str, Grader] = {
    "1": _locality_1,
    "2": _locality_2,
    "3": _locality_3,
    "4": _locality_4,
    "5": _locality_5,
}
