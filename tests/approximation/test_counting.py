"""Counts against listing and expansion, ranks against formulas, gauges against the Jacobian."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from companion.approximation import counting
from companion.approximation.compositional import Graph, evaluate
from companion.approximation.polynomials import (
    Polynomial,
    exponents,
    random_polynomial,
    random_tree_polynomial,
)

CHAIN = Graph(4, ((0, 1), (4, 2), (5, 3)))
TREES = {
    "pair": Graph.tree(2),
    "tree": Graph.tree(4),
    "chain": CHAIN,
    "ternary": Graph.tree(9, arity=3),
    "uneven": Graph.tree(5),
    "mixed": Graph(4, ((1, 2, 0), (4, 3))),
    "tower": Graph(1, ((0,), (1,), (2,))),
    "shallow": Graph.shallow(3),
}
DAG = Graph(3, ((0, 1), (1, 2), (3, 4)))  # reads x2 twice


def element(graph: Graph, k: int, seed: int, bound: int = 10**6) -> list[Polynomial]:
    """One random polynomial per node, with nonzero integer coefficients."""
    return [
        random_polynomial(len(node), k, seed=100 * seed + j, bound=bound, integer=True)
        for j, node in enumerate(graph.nodes)
    ]


def small_trees() -> st.SearchStrategy[Graph]:
    return st.sampled_from([graph for name, graph in TREES.items() if name != "ternary"])


# --- units, degree, dimension --------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 17))
@pytest.mark.parametrize("k", range(1, 7))
def test_units_are_those_of_the_theorems(n: int, k: int) -> None:
    assert counting.num_units(Graph.shallow(n), k) == sympy.binomial(n + k, k)
    assert counting.num_units(Graph.tree(n), k) == (n - 1) * (k + 1) * (k + 2) // 2
    formula = (n - 1) * sympy.binomial(k + 2, 2) - 2 * (n - 2)
    assert counting.family_dimension(Graph.tree(n), k) == formula


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("k", [1, 2])
def test_degree_is_that_of_the_product(name: str, k: int) -> None:
    graph = TREES[name]
    f = counting.compose(graph, element(graph, k, seed=0))
    assert max(map(sum, f.monoms())) == counting.composed_degree(graph, k)


def test_degree_of_the_balanced_tree_and_of_the_chain() -> None:
    for level, k in itertools.product(range(1, 5), range(1, 7)):
        assert counting.composed_degree(Graph.tree(2**level), k) == k**level
    assert counting.composed_degree(CHAIN, 3) == 27


# --- monomials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "k", "number"),
    [(2, 2, 6), (2, 5, 21), (4, 1, 5), (4, 2, 54), (4, 3, 514), (4, 4, 3529), (8, 2, 3638)],
)
def test_monomials_of_an_expanded_element(n: int, k: int, number: int) -> None:
    constituents = random_tree_polynomial(n - 1, k, seed=5, bound=10**6, integer=True)
    f = counting.compose(Graph.tree(n), constituents)
    assert len(f) == number == counting.num_composed_monomials(Graph.tree(n), k)
    assert all(counting.monomial_order(Graph.tree(n), k, row) <= 1 for row in f.monoms())


def test_terms_that_cancel_leave_fewer_monomials() -> None:
    positive = [Polynomial(exponents(2, 4), (1,) * 15)] * 3
    assert len(counting.compose(Graph.tree(4), positive)) == 3529
    small = random_tree_polynomial(3, 4, seed=0, bound=9, integer=True)
    assert len(counting.compose(Graph.tree(4), small)) < 3529


@pytest.mark.parametrize(
    ("name", "k"),
    [*itertools.product([name for name in TREES if name != "ternary"], (1, 2)),
     ("pair", 3), ("tree", 3), ("mixed", 3), ("tower", 3), ("shallow", 3)],
)  # fmt: skip
def test_rule_and_count_agree_with_positive_coefficients(name: str, k: int) -> None:
    graph = TREES[name]
    ones = [Polynomial(exponents(len(v), k), (1,) * math.comb(len(v) + k, k)) for v in graph.nodes]
    occurring = set(counting.compose(graph, ones).monoms())
    assert counting.num_composed_monomials(graph, k) == len(occurring)
    degree = counting.composed_degree(graph, k)
    for row in exponents(graph.num_inputs, min(degree, 8)):
        assert (counting.monomial_order(graph, k, row) <= 1) == (row in occurring)


@settings(deadline=None, max_examples=40)
@given(small_trees(), st.integers(1, 3), st.integers(1, 3), st.data())
def test_order_says_which_power_holds_a_monomial(
    graph: Graph, k: int, m: int, data: st.DataObject
) -> None:
    assume(counting.composed_degree(graph, k) * m <= 12)  # more takes long to multiply out
    ones = [Polynomial(exponents(len(v), k), (1,) * math.comb(len(v) + k, k)) for v in graph.nodes]
    power = counting.compose(graph, ones) ** m
    row = data.draw(st.tuples(*[st.integers(0, 6)] * graph.num_inputs))
    assert (counting.monomial_order(graph, k, row) <= m) == (row in power)


def test_large_counts_agree_with_a_sum_over_pairs() -> None:
    k, size = 3, np.arange(28)
    order = -(-size // k)  # of a pair of variables, by its degree; there are degree + 1 monomials
    quads = np.zeros(20, dtype=np.int64)
    for a, b in itertools.product(size, size):
        quads[-(-(order[a] + order[b]) // k)] += (a + 1) * (b + 1)
    total = sum(int(quads[a] * quads[b]) for a in range(4) for b in range(4) if a + b <= k)
    assert counting.num_composed_monomials(Graph.tree(8), 3) == total == 5_997_160


@pytest.mark.parametrize("k", [2, 3, 4])
def test_doubling_the_inputs_squares_the_count_at_least(k: int) -> None:
    counts = [counting.num_composed_monomials(Graph.tree(2**level), k) for level in range(1, 5)]
    for smaller, larger in itertools.pairwise(counts):
        assert larger >= smaller**2
    for level, count in enumerate(counts, start=1):
        assert count <= math.comb(2**level + k**level, 2**level)


def test_compose_is_evaluation() -> None:
    graph = TREES["uneven"]
    whole = element(graph, 2, seed=1)
    f = counting.compose(graph, whole)
    assert f.ring.domain is sympy.ZZ
    assert f(1, 2, 3, 4, 5) == evaluate(graph, whole, [1, 2, 3, 4, 5])[-1]
    sevenths = [Polynomial(h.powers, tuple(Fraction(c, 7) for c in h.coefficients)) for h in whole]
    f = counting.compose(graph, sevenths)
    assert f.ring.domain is sympy.QQ
    value = f(1, 2, 3, 4, 5)
    exact = evaluate(graph, sevenths, [1, 2, 3, 4, 5])[-1]
    assert (value.numerator, value.denominator) == (exact.numerator, exact.denominator)


def test_compose_agrees_with_expand() -> None:
    constituents = element(Graph.tree(4), 2, seed=2, bound=5)
    symbols = sympy.symbols("x1:5")
    expanded = sympy.expand(evaluate(Graph.tree(4), constituents, symbols)[-1])
    assert sympy.expand(counting.compose(Graph.tree(4), constituents).as_expr() - expanded) == 0


# --- degrees of freedom --------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dimensions"), [(2, (3, 6, 10)), (4, (5, 14, 26)), (8, (9, 30, 58))])
def test_exact_ranks(n: int, dimensions: tuple[int, ...]) -> None:
    for k, dimension in enumerate(dimensions, start=1):
        assert counting.jacobian_rank(Graph.tree(n), k, seed=11) == dimension
        assert counting.family_dimension(Graph.tree(n), k) == dimension


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("k", [1, 2])
def test_formula_for_trees_of_every_shape(name: str, k: int) -> None:
    graph = TREES[name]
    assert counting.jacobian_rank(graph, k, seed=1) == counting.family_dimension(graph, k)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([*TREES.values(), DAG]), st.integers(1, 3), st.integers(0, 99))
def test_the_gauge_is_the_kernel(graph: Graph, k: int, seed: int) -> None:
    assume(counting.num_units(graph, k) <= 45)  # more takes long
    constituents = element(graph, k, seed, bound=9)
    units = counting.num_units(graph, k)
    rng = np.random.default_rng(seed)
    points = rng.integers(-20, 21, (units, graph.num_inputs)).tolist()
    matrix = counting.jacobian(graph, constituents, points)
    directions = counting.gauge_directions(graph, constituents)
    assert len(directions) == 2 * (graph.num_nodes - 1)
    for row in matrix:
        assert len(row) == units
        assert all(sum(a * b for a, b in zip(row, d, strict=True)) == 0 for d in directions)
    if graph.is_tree and directions:
        rank = counting.rank(matrix)
        assert counting.rank(directions) == len(directions)
        assert rank <= counting.family_dimension(graph, k)


@pytest.mark.parametrize("graph", [TREES["tree"], TREES["mixed"], DAG])
def test_jacobian_is_the_derivative(graph: Graph) -> None:
    constituents = element(graph, 2, seed=3, bound=9)
    point = [Fraction(i + 1, i + 2) for i in range(graph.num_inputs)]
    (row,) = counting.jacobian(graph, constituents, [point])
    t = sympy.Symbol("t")
    place = 0
    for j, h in enumerate(constituents):
        for r in range(len(h.powers)):
            changed = list(h.coefficients)
            changed[r] = changed[r] + t
            moved = [*constituents]
            moved[j] = Polynomial(h.powers, tuple(changed))
            value = evaluate(graph, moved, [sympy.Rational(v.numerator, v.denominator)
                                            for v in point])[-1]  # fmt: skip
            slope = sympy.diff(value, t).subs(t, 0)
            assert sympy.Rational(row[place].numerator, row[place].denominator) == slope
            place += 1
    assert place == len(row)


def test_a_finite_gauge_transformation_changes_nothing() -> None:
    h1, h2, h3 = element(Graph.tree(4), 3, seed=4, bound=9)
    changed = [
        lambda *x: Fraction(2, 3) * h1(*x) - 5,
        h2,
        lambda u, v: h3((u + 5) * Fraction(3, 2), v),
    ]
    rng = np.random.default_rng(0)
    for point in rng.integers(-50, 51, (20, 4)).tolist():
        before = evaluate(Graph.tree(4), [h1, h2, h3], point)[-1]
        assert evaluate(Graph.tree(4), changed, point)[-1] == before


def test_sums_leave_the_family_and_fill_its_span() -> None:
    ranks = [counting.jacobian_rank(Graph.tree(4), 2, seed=0, summands=s) for s in (1, 2, 5)]
    assert ranks == [14, 27, counting.num_composed_monomials(Graph.tree(4), 2)]


def test_a_shared_input_that_the_reader_sees_adds_freedom() -> None:
    graph = Graph(2, ((0, 1), (0, 2)))
    units = counting.num_units(graph, 2)
    assert counting.jacobian_rank(graph, 2, seed=0) == units - 3
    assert counting.jacobian_rank(DAG, 2, seed=0) == counting.num_units(DAG, 2) - 4


@given(
    st.lists(st.lists(st.integers(-4, 4), min_size=4, max_size=4), min_size=1, max_size=5),
)
def test_rank_is_that_of_sympy(rows: list[list[int]]) -> None:
    assert counting.rank(rows) == sympy.Matrix(rows).rank()
    assert counting.rank(rows, modulus=2) <= counting.rank(rows)


def test_ranks_repeat() -> None:
    first = counting.jacobian_rank(DAG, 2, seed=3)
    assert first == counting.jacobian_rank(DAG, 2, seed=3)


# --- bad input -----------------------------------------------------------------------------------


def test_only_trees_where_a_tree_is_needed() -> None:
    for function in (counting.family_dimension, counting.num_composed_monomials):
        with pytest.raises(ValueError, match="graph must be a tree"):
            function(DAG, 2)
    with pytest.raises(ValueError, match="graph must be a tree"):
        counting.monomial_order(DAG, 2, (0, 0, 0))


@pytest.mark.parametrize(
    "function",
    [counting.family_dimension, counting.num_composed_monomials, counting.composed_degree],
)
def test_degrees_are_checked(function: object) -> None:
    with pytest.raises(ValueError, match="degree must be at least 1, got 0"):
        function(Graph.tree(4), 0)
    with pytest.raises(TypeError, match="degree must be an integer"):
        function(Graph.tree(4), 1.5)


def test_powers_are_checked() -> None:
    with pytest.raises(ValueError, match="powers must have 4 entries, got 3"):
        counting.monomial_order(Graph.tree(4), 2, (1, 1, 1))
    with pytest.raises(ValueError, match=r"powers\[1\] must be at least 0, got -1"):
        counting.monomial_order(Graph.tree(2), 2, (1, -1))


def test_compositions_are_checked() -> None:
    real = random_tree_polynomial(1, 2, seed=0)
    with pytest.raises(TypeError, match="coefficients must be integers or fractions, got"):
        counting.compose(Graph.tree(2), real)
    with pytest.raises(ValueError, match="functions must have 3 entries, got 1"):
        counting.compose(Graph.tree(4), element(Graph.tree(2), 2, seed=0))
    with pytest.raises(ValueError, match="inputs must have 2 entries, got 1"):
        counting.jacobian(Graph.tree(2), element(Graph.tree(2), 2, seed=0), [(1,)])


def test_gauge_needs_all_monomials() -> None:
    sparse = [*element(Graph.tree(4), 2, seed=0)[:2], Polynomial(((1, 1),), (1,))]
    with pytest.raises(ValueError, match=r"constituents\[2\] must have all monomials"):
        counting.gauge_directions(Graph.tree(4), sparse)
    with pytest.raises(ValueError, match="constituents must have 3 entries, got 1"):
        counting.gauge_directions(Graph.tree(4), sparse[:1])


def test_matrices_are_checked() -> None:
    for rows in ([], [[1, 2], [3]]):
        with pytest.raises(ValueError, match="rows must hold at least one row"):
            counting.rank(rows)
    with pytest.raises(ValueError, match="summands must be at least 1, got 0"):
        counting.jacobian_rank(Graph.tree(2), 1, seed=0, summands=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        counting.jacobian_rank(Graph.tree(2), 1, seed=-1)
