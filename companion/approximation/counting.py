"""Counting polynomials: units, degrees, monomials and degrees of freedom of a composition.

T_k of a graph is the family of all functions whose constituents are polynomials of total degree at
most k; PNAS 2020 writes T_k^n for the binary tree with n inputs. All results are exact: integers,
and polynomials and matrices over the integers, the rationals or a prime field.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from sympy import GF, QQ, ZZ, ring
from sympy.polys.matrices import DomainMatrix
from sympy.polys.rings import PolyElement

from companion import _checks
from companion.approximation.compositional import Graph, evaluate
from companion.approximation.polynomials import Polynomial, exponents, num_monomials

PRIME = 2**61 - 1  # so large that a random matrix practically never loses rank modulo it


# --- units, degree, dimension --------------------------------------------------------------------


def num_units(graph: Graph, degree: int) -> int:
    """Return the sum over nodes of C(d + k, k), where d is the number of values a node reads.

    That is the number of coefficients of all constituents, and of units in Theorem 2 (one node
    that reads n inputs) and in Theorem 3 (binary tree), whose networks have one per coefficient.

    Source: PNAS 2020, Theorems 2 and 3.

    >>> num_units(Graph.shallow(8), 2), num_units(Graph.tree(8), 2)
    (45, 42)
    """
    return sum(num_monomials(len(parents), degree) for parents in graph.nodes)


def composed_degree(graph: Graph, degree: int) -> int:
    """Return k to the power of the graph's depth, the largest total degree of a function in T_k.

    >>> composed_degree(Graph.tree(8), 2)
    8
    """
    return int(_checks.integer("degree", degree, at_least=1) ** graph.depth)


def family_dimension(graph: Graph, degree: int) -> int:
    """Return the dimension of T_k of a tree: ``num_units`` less 2 for every node but the last.

    (n - 1) C(k + 2, 2) - 2 (n - 2) for a binary tree. ``jacobian_rank`` measures it.

    Raises:
        TypeError, ValueError: if the graph is not a tree, or the degree not an integer >= 1.

    >>> [family_dimension(Graph.tree(8), k) for k in (1, 2, 3)]
    [9, 30, 58]
    """
    _check_tree(graph)
    _checks.integer("degree", degree, at_least=1)
    return num_units(graph, degree) - 2 * (graph.num_nodes - 1)


# --- monomials -----------------------------------------------------------------------------------


def monomial_order(graph: Graph, degree: int, powers: Sequence[int]) -> int:
    """Return the least m such that the m-th power of a function in T_k can hold a monomial.

    The function itself can hold it if and only if m <= 1. An input needs its exponent; a node
    needs what its values need together, divided by k and rounded up.

    Args:
        graph: A tree.
        degree: k.
        powers: The exponents of the monomial, one per input.

    Raises:
        TypeError, ValueError: if the graph is not a tree or an argument is out of range.

    >>> [monomial_order(Graph.tree(4), 2, powers) for powers in ((3, 0, 1, 0), (2, 0, 2, 0))]
    [2, 1]
    """
    _check_tree(graph)
    k = _checks.integer("degree", degree, at_least=1)
    powers = _checks.integers("powers", powers, at_least=0)
    if len(powers) != graph.num_inputs:
        raise ValueError(f"powers must have {graph.num_inputs} entries, got {len(powers)}.")

    def need(*needs: int) -> int:
        return -(-sum(needs) // k)  # rounded up, exactly

    return int(evaluate(graph, [need] * graph.num_nodes, powers)[-1])


def num_composed_monomials(graph: Graph, degree: int) -> int:
    """Return the number of monomials of a function in T_k whose terms do not cancel.

    They are those of ``monomial_order`` at most 1. Node by node it is counted how many exponents
    there are of each order, by one convolution per value read, so that large counts are quick.

    Raises:
        TypeError, ValueError: if the graph is not a tree, or the degree not an integer >= 1.

    >>> [num_composed_monomials(Graph.tree(n), 2) for n in (2, 4, 8, 16)]
    [6, 54, 3638, 13838390]
    """
    _check_tree(graph)
    k = _checks.integer("degree", degree, at_least=1)
    highest = [1] * graph.num_values  # the largest order that is still useful, per value
    for j in reversed(range(graph.num_nodes)):
        for parent in graph.nodes[j]:
            highest[parent] = k * highest[graph.num_inputs + j]
    counts = [[1] * (top + 1) for top in highest[: graph.num_inputs]]
    for parents, top in zip(graph.nodes, highest[graph.num_inputs :], strict=True):
        sums = [1]
        for parent in parents:
            sums = _convolved(sums, counts[parent])[: k * top + 1]
        rounded_up = (sum(sums[k * (m - 1) + 1 : k * m + 1]) for m in range(1, top + 1))
        counts.append([1, *rounded_up])
    return sum(counts[-1])


def _convolved(a: list[int], b: list[int]) -> list[int]:
    """Coefficients of the product of two polynomials in one variable; integers of any size."""
    product, factor = np.zeros(len(a) + len(b) - 1, dtype=object), np.array(b, dtype=object)
    for i, value in enumerate(a):
        product[i : i + len(b)] += value * factor
    return product.tolist()


def compose(graph: Graph, constituents: Sequence[Polynomial]) -> PolyElement:
    """Return the composition, multiplied out, as an element of a SymPy polynomial ring.

    The ring is over the integers if all coefficients are integers, else over the rationals; its
    generators are x1 .. xn.

    Args:
        graph: Any graph.
        constituents: One polynomial per node, with integers or fractions as coefficients.

    Raises:
        TypeError, ValueError: if a coefficient is neither, or the numbers do not fit.

    >>> square_of_sum = Polynomial(((2, 0), (1, 1), (0, 2)), (1, 2, 1))
    >>> compose(Graph.tree(2), [square_of_sum])
    x1**2 + 2*x1*x2 + x2**2
    """
    numbers = [c for polynomial in constituents for c in polynomial.coefficients]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | Fraction):
            raise TypeError(f"coefficients must be integers or fractions, got {number!r}.")
    domain = ZZ if all(isinstance(number, int) for number in numbers) else QQ
    exact = [
        Polynomial(h.powers, tuple(domain(c.numerator) / c.denominator for c in h.coefficients))
        if domain is QQ
        else h
        for h in constituents
    ]
    _, *variables = ring([f"x{i + 1}" for i in range(graph.num_inputs)], domain)
    return evaluate(graph, exact, variables)[-1]


# --- degrees of freedom --------------------------------------------------------------------------


def jacobian(
    graph: Graph, constituents: Sequence[Polynomial], points: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """Return the derivatives of f at N points with respect to all coefficients: N rows, exactly.

    The columns run through the nodes and, for each, its coefficients. The derivative for the
    coefficient of a monomial is df / dv, with v the value of its node, times the monomial; the
    df / dv come backwards through the graph by the chain rule.

    Args:
        graph: Any graph.
        constituents: One polynomial per node; coefficients are integers, or of any field.
        points: N points of n coordinates each, of the same kind.

    Raises:
        ValueError: if there is not one constituent per node, or a point has not n coordinates.

    >>> jacobian(Graph.tree(2), [Polynomial(exponents(2, 1), (0, 1, 1))], [(2, 5)])
    [[1, 2, 5]]
    """
    partials = [[_partial(h, i) for i in range(h.num_vars)] for h in constituents]
    monomials = [[Polynomial((row,), (1,)) for row in h.powers] for h in constituents]
    rows = []
    for point in points:
        values = evaluate(graph, constituents, point)
        zero = values[-1] * 0
        slopes = [zero] * (graph.num_values - 1) + [zero + 1]
        blocks = []
        for j in reversed(range(graph.num_nodes)):
            slope, parents = slopes[graph.num_inputs + j], graph.nodes[j]
            read = [values[parent] for parent in parents]
            for parent, partial in zip(parents, partials[j], strict=True):
                slopes[parent] = slopes[parent] + slope * partial(*read)
            blocks.append([slope * monomial(*read) for monomial in monomials[j]])
        rows.append(list(itertools.chain(*reversed(blocks))))
    return rows


def gauge_directions(graph: Graph, constituents: Sequence[Polynomial]) -> list[list[Any]]:
    """Return changes of the coefficients that leave f as it is, to first order.

    Two rows for every node but the last: its value v is scaled, then shifted, and each node h
    that reads it undoes that by a change of -v dh/dv, or -dh/dv. The columns are those of
    ``jacobian``, which maps every row to zero.

    Args:
        graph: Any graph.
        constituents: One polynomial per node, with all monomials up to its degree.

    Raises:
        ValueError: if there is not one constituent per node, or a monomial is missing.

    >>> affine = Polynomial(exponents(1, 1), (7, 5))  # 7 + 5 x
    >>> gauge_directions(Graph(1, ((0,), (1,))), [affine, affine])
    [[7, 5, 0, -5], [1, 0, -5, 0]]
    """
    _check_complete(graph, constituents)
    rows = []
    for j, h in enumerate(constituents[:-1]):
        for shift in (False, True):
            blocks: list[Sequence[Any]] = [[0] * len(other.powers) for other in constituents]
            blocks[j] = [int(not any(row)) for row in h.powers] if shift else h.coefficients
            for i, parents in enumerate(graph.nodes):
                if graph.num_inputs + j in parents:
                    at = parents.index(graph.num_inputs + j)
                    blocks[i] = _undoing(constituents[i], at, shift=shift)
            rows.append(list(itertools.chain(*blocks)))
    return rows


def _undoing(h: Polynomial, at: int, *, shift: bool) -> list[Any]:
    """Coefficients of -dh/dv (shift) or -v dh/dv (scaling), v the argument number ``at``."""
    table = dict(zip(h.powers, h.coefficients, strict=True))
    if not shift:
        return [-row[at] * c for row, c in table.items()]
    return [-(row[at] + 1) * table.get(_moved(row, at, 1), 0) for row in table]


def rank(rows: Sequence[Sequence[Any]], *, modulus: int = PRIME) -> int:
    """Return the rank of a matrix of integers modulo a prime, by exact elimination.

    It is never more than the rank over the rationals, and equal to it unless the prime divides
    every minor of that size.

    Raises:
        ValueError: if there is no row, or the rows differ in length.

    >>> rank([[1, 2], [3, 6]]), rank([[1, 2], [3, 4]]), rank([[1, 2], [3, 4]], modulus=2)
    (1, 2, 1)
    """
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError("rows must hold at least one row, and all of the same length.")
    field = GF(modulus)
    matrix = [[field.convert(value) for value in row] for row in rows]
    return int(DomainMatrix(matrix, (len(rows), len(rows[0])), field).rank())


def jacobian_rank(graph: Graph, degree: int, *, seed: int, summands: int = 1) -> int:
    """Return the rank of the map from coefficients to functions of T_k, at a random point.

    The rank of ``jacobian`` modulo 2^61 - 1, with random coefficients, at as many random points
    as there are coefficients. It is never more than the dimension of T_k, and equal to it for
    almost every draw.

    Args:
        graph: Any graph.
        degree: k.
        seed: Seed of coefficients and points.
        summands: Number of elements of T_k that are added, each with coefficients of its own.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> jacobian_rank(Graph.tree(4), 2, seed=0)
    14
    """
    summands = _checks.integer("summands", summands, at_least=1)
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    field = GF(PRIME)

    def draw(size: int) -> tuple[Any, ...]:
        return tuple(field(int(value)) for value in rng.integers(PRIME, size=size))

    points = [draw(graph.num_inputs) for _ in range(summands * num_units(graph, degree))]
    tables = [exponents(len(parents), degree) for parents in graph.nodes]
    blocks = [
        jacobian(graph, [Polynomial(powers, draw(len(powers))) for powers in tables], points)
        for _ in range(summands)
    ]
    return rank([list(itertools.chain(*parts)) for parts in zip(*blocks, strict=True)])


def _moved(row: tuple[int, ...], i: int, step: int) -> tuple[int, ...]:
    return (*row[:i], row[i] + step, *row[i + 1 :])


def _partial(h: Polynomial, i: int) -> Polynomial:
    """The derivative of h with respect to variable number i."""
    terms = {
        _moved(row, i, -1): row[i] * c
        for row, c in zip(h.powers, h.coefficients, strict=True)
        if row[i]
    }
    terms = terms or {(0,) * h.num_vars: 0}
    return Polynomial(tuple(terms), tuple(terms.values()))


def _check_tree(graph: Graph) -> None:
    if not graph.is_tree:
        raise ValueError(
            f"graph must be a tree, in which every value but the last is read once, got {graph}."
        )


def _check_complete(graph: Graph, constituents: Sequence[Polynomial]) -> None:
    if len(constituents) != graph.num_nodes:
        raise ValueError(
            f"constituents must have {graph.num_nodes} entries, got {len(constituents)}."
        )
    for j, (h, parents) in enumerate(zip(constituents, graph.nodes, strict=True)):
        if set(h.powers) != set(exponents(len(parents), max(map(sum, h.powers)))):
            raise ValueError(f"constituents[{j}] must have all monomials up to its degree.")
