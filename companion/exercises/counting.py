"""Graders of the chapter on counting polynomials."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, numbers, one_number

# --- counting.1: three counts of a ternary tree --------------------------------------------------

_INPUTS, _ARITY, _DEGREE = 27, 3, 2


def _counting_1(answer: Any) -> str:
    given = numbers(answer, (3,), "3 numbers: the units, the degree and the dimension")
    nodes, k = (_INPUTS - 1) // (_ARITY - 1), _DEGREE
    per_node, binary = math.comb(_ARITY + k, k), math.comb(2 + k, k)
    levels, units = round(math.log(_INPUTS, _ARITY)), nodes * per_node
    targets = (units, k**levels, units - 2 * (nodes - 1))
    mistakes = (
        {
            nodes * binary: "a node of this tree has three arguments.",
            (_INPUTS - 1) * per_node: "a ternary tree has fewer nodes than a binary one.",
            (_INPUTS - 1) * binary: "this is the binary tree.",
            _INPUTS // _ARITY * per_node: "this is the lowest level of nodes only.",
            math.comb(_INPUTS + k, k): "this is the shallow network for degree k.",
            per_node: "this is a single node.",
            nodes: "this is the number of nodes.",
        },
        {
            k: "this is the degree of one constituent.",
            k * levels: "composing multiplies degrees, it does not add them.",
            k**nodes: "only nodes on one path multiply their degrees.",
            k ** (levels + 1): "the inputs are not a level of nodes.",
            k ** (levels - 1): "one level is missing.",
        },
        {
            units: "coefficients can change without changing the function.",
            units - 2 * nodes: "nobody undoes a change of the output's value.",
            units - (nodes - 1): "an internal edge can be scaled and shifted.",
            units - 2 * (_INPUTS - 2): "this tree has fewer internal edges than a binary one.",
            units - 3 * (nodes - 1): "an affine change of one value has two parameters.",
        },
    )
    otherwise = (
        "multiply the number of nodes by the number of monomials of one constituent.",
        "raise k to the number of nodes on a path from an input to the output.",
        "subtract from the units two for every internal edge.",
    )
    for name, value, target, known, rest in zip(
        ("Units", "Degree", "Dimension"), given, targets, mistakes, otherwise, strict=True
    ):
        reasons = {number: f"{name}: {reason}" for number, reason in known.items()}
        one_number(value, target, right="", mistakes=reasons, otherwise=f"{name}: {rest}", rel=1e-9)
    return "All three: the count per node, the product along a path, the gauge per internal edge."


# --- counting.2: monomials that cannot occur -----------------------------------------------------

MONOMIALS = ((9, 0, 0, 0), (5, 0, 3, 0), (5, 0, 5, 0), (2, 2, 1, 1), (7, 0, 0, 1), (1, 3, 2, 2))


def _counting_2(answer: Any) -> str:
    given = numbers(answer, (len(MONOMIALS),), f"{len(MONOMIALS)} values, True or False")
    if not np.isin(given, (0.0, 1.0)).all():
        raise Wrong("Give True (or 1) for a monomial that can occur and False (or 0) otherwise.")
    k = 3
    pairs = [(sum(row[:2]), sum(row[2:])) for row in MONOMIALS]
    target = [math.ceil(a / k) + math.ceil(b / k) <= k for a, b in pairs]
    if (given == target).all():
        return "Each pair passes on whole powers only, and the powers must fit into degree 3."
    readings = {
        tuple(a + b <= k * k for a, b in pairs): "The degree alone does not decide: each pair of "
        "variables takes whole powers of its node.",
        tuple(a + b <= k for a, b in pairs): "The degree may exceed 3: composing multiplies "
        "degrees.",
        tuple(math.floor(a / k) + math.floor(b / k) <= k for a, b in pairs): "Round up: a part of "
        "a power is as expensive as the whole.",
        tuple(not value for value in target): "All answers are turned around.",
    }
    reason = readings.get(tuple(bool(value) for value in given))
    wrong = int((given != target).sum())
    raise Wrong(reason or f"Not all are right. Wrong are {wrong} of the {len(MONOMIALS)}.")


# --- counting.3: from which degree on the leading term is good -----------------------------------


def _excess(num_vars: int, degree: int) -> float:
    """By which share C(n + k, k) exceeds k^n / n!."""
    exact = math.comb(num_vars + degree, num_vars) * math.factorial(num_vars)
    return exact / degree**num_vars - 1


@functools.cache
def _first_below(num_vars: int, bound: float) -> int:
    """The smallest degree at which the excess is below the bound."""
    return next(k for k in itertools.count(1) if _excess(num_vars, k) < bound)


def _counting_3(answer: Any) -> str:
    n = 8
    target = _first_below(n, 0.1)
    mistakes = {
        target - 1: "Close: there the excess is still above ten per cent.",
        target + 1: "Close: a smaller degree does it already.",
        n * (n + 1) // 2 * 10: "This is the estimate to first order; the exact product wants a "
        "slightly different degree.",
        _first_below(n, 1.0): "This is where the excess falls below a factor of 2.",
        _first_below(n, 0.01): "This is where the excess falls below one per cent.",
        _first_below(n, 1 / 0.9 - 1): "Measure the excess relative to the "
        "approximation, not to the exact number.",
    }
    return one_number(
        answer, target, mistakes=mistakes, rel=1e-4,
        right="From there on all n factors 1 + i/k together are less than 1.1.",
        otherwise="Multiply the factors 1 + i/k for i = 1 .. 8 and raise k until the product "
        "falls below 1.1.",
    )  # fmt: skip


# --- counting.4: which monomials occur for another tree ------------------------------------------


def _on_the_chain(powers: tuple[int, ...], k: int) -> bool:
    """Whether a monomial can occur in h(h(h(x1, x2), x3), x4) and so on."""
    order = powers[0]
    for power in powers[1:]:
        order = -(-(order + power) // k)
    return order <= 1


def _on_the_tree(powers: tuple[int, ...], k: int) -> bool:
    level = list(powers)
    while len(level) > 1:
        level = [
            -(-sum(level[i : i + 2]) // k) if i + 1 < len(level) else level[i]
            for i in range(0, len(level), 2)
        ]
    return level[0] <= 1


def _rounded_down(powers: tuple[int, ...], k: int) -> bool:
    order = powers[0]
    for power in powers[1:]:
        order = (order + power) // k
    return order <= 1


@functools.cache
def _cases() -> list[tuple[tuple[int, ...], int]]:
    rng = np.random.default_rng(2020)
    cases = [(powers, 2) for powers in itertools.product(range(5), repeat=3)]
    cases += [(powers, 1) for powers in itertools.product(range(2), repeat=3)]
    for n, k in ((2, 3), (4, 2), (4, 3), (6, 2)):
        tops = [k ** (n - 1)] + [k ** (n - i) for i in range(1, n)]
        cases += [
            (tuple(int(rng.integers(rng.integers(top + 1) + 1)) for top in tops), k)
            for _ in range(150)
        ]
    return cases


def _counting_4(answer: Any) -> str:
    misreadings = {
        "This is the balanced tree; in the chain each node reads one new input.": _on_the_tree,
        "Round up, not down: a part of a power is as expensive as the whole.": _rounded_down,
        "The degree alone does not decide: later inputs pass through fewer nodes.": (
            lambda powers, k: sum(powers) <= k ** (len(powers) - 1)
        ),
        "The degree may exceed k: composing multiplies degrees.": (
            lambda powers, k: sum(powers) <= k
        ),
        "All answers are turned around.": lambda powers, k: not _on_the_chain(powers, k),
    }
    cases = _cases()
    given = [_truth(call(answer, powers, k, name="occurs")) for powers, k in cases]
    target = [_on_the_chain(*case) for case in cases]
    if given == target:
        return f"It agrees on all {len(cases)} monomials that were tried."
    for reason, misreading in misreadings.items():
        if given == [misreading(*case) for case in cases]:
            raise Wrong(reason)
    wrong = [case for case, a, b in zip(cases, given, target, strict=True) if a != b]
    raise Wrong(
        f"Wrong for {len(wrong)} of {len(cases)} monomials, among them the exponents "
        f"{wrong[0][0]} at k = {wrong[0][1]}."
    )


def _truth(value: Any) -> bool:
    if hasattr(value, "item") and tuple(getattr(value, "shape", ())) == ():
        value = value.item()
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise Wrong("Wrong type: the function must return True or False.")


# --- counting.5: a graph with more freedom to change nothing -------------------------------------

_MOST_INPUTS, _MOST_NODES = 4, 5
_MODULUS = 2**31 - 1  # products of two residues fit into int64


def _counting_5(answer: Any) -> str:
    n, nodes = _graph(answer)
    tables = [_exponents(len(node), 2) for node in nodes]
    units = sum(len(table) for table in tables)
    dimension = _rank(_derivatives(n, nodes, tables))
    formula = units - 2 * (len(nodes) - 1)
    if dimension < formula:
        return f"The rank is {dimension}, and two per internal value would leave {formula}."
    read = [value for node in nodes for value in node]
    if len(read) == len(set(read)):
        raise Wrong("This is a tree, and for a tree the formula is exact: some value must be read "
                    "more than once.")  # fmt: skip
    raise Wrong(
        f"The rank is {dimension}, as the formula says. Sharing a value is not enough: look for a "
        "node that sees directly what is also inside one of its other arguments."
    )


def _graph(answer: Any) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Read (n, nodes), or say why it is no graph."""
    try:
        n, nodes = answer
        n = operator.index(n)
        nodes = tuple(tuple(operator.index(value) for value in node) for node in nodes)
    except (TypeError, ValueError):
        raise Wrong(
            "Wrong type: give (n, nodes), where nodes lists for each node the values it reads."
        ) from None
    if not (1 <= n <= _MOST_INPUTS and 1 <= len(nodes) <= _MOST_NODES):
        raise Wrong(f"Use at most {_MOST_INPUTS} inputs and {_MOST_NODES} nodes.")
    for j, node in enumerate(nodes):
        if not node or len(set(node)) < len(node) or min(node) < 0 or max(node) >= n + j:
            raise Wrong(
                "Not a graph: every node must read different values that are there already, "
                "inputs from 0 and then the nodes before it."
            )
    if set(range(n + len(nodes) - 1)) - {value for node in nodes for value in node}:
        raise Wrong("Not a graph: every value but the last must be read.")
    return n, nodes


def _exponents(num_vars: int, degree: int) -> list[tuple[int, ...]]:
    every = itertools.product(range(degree + 1), repeat=num_vars)
    return [row for row in every if sum(row) <= degree]


def _derivatives(
    n: int, nodes: tuple[tuple[int, ...], ...], tables: list[list[tuple[int, ...]]]
) -> np.ndarray:
    """Values at random points, differentiated forwards by all coefficients, modulo a prime."""
    rng = np.random.default_rng(7)
    units = sum(len(table) for table in tables)
    coefficients = rng.integers(1, _MODULUS, units)
    directions = np.eye(units, dtype=np.int64)

    def product(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        slope = (a[0] * b[1] % _MODULUS + a[1] * b[0] % _MODULUS) % _MODULUS
        return a[0] * b[0] % _MODULUS, slope

    rows = []
    for _ in range(units):
        values = [(x, np.zeros(units, dtype=np.int64)) for x in rng.integers(0, _MODULUS, n)]
        at = itertools.count()
        for node, table in zip(nodes, tables, strict=True):
            total, slope = np.int64(0), np.zeros(units, dtype=np.int64)
            for row in table:
                c = next(at)
                term = (coefficients[c], directions[c])
                for value, power in zip(node, row, strict=True):
                    for _ in range(power):
                        term = product(term, values[value])
                total, slope = (total + term[0]) % _MODULUS, (slope + term[1]) % _MODULUS
            values.append((total, slope))
        rows.append(values[-1][1])
    return np.array(rows)


def _rank(matrix: np.ndarray) -> int:
    """Gaussian elimination modulo the prime."""
    matrix, rank = matrix.copy(), 0
    for column in range(matrix.shape[1]):
        nonzero = np.flatnonzero(matrix[rank:, column])
        if not len(nonzero):
            continue
        pivot = rank + nonzero[0]
        matrix[[rank, pivot]] = matrix[[pivot, rank]]
        inverse = pow(int(matrix[rank, column]), -1, _MODULUS)
        row = matrix[rank] * inverse % _MODULUS
        factors = matrix[rank + 1 :, column, None]
        matrix[rank + 1 :] = (matrix[rank + 1 :] - factors * row % _MODULUS) % _MODULUS
        rank += 1
        if rank == len(matrix):
            break
    return rank


GRADERS: dict[str, Grader] = {
    "1": _counting_1,
    "2": _counting_2,
    "3": _counting_3,
    "4": _counting_4,
    "5": _counting_5,
}
