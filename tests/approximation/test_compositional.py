"""Graphs, compositions on any kind of number, and how errors at nodes reach the output."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.approximation.compositional import Compositional, Graph, evaluate

F64 = torch.float64
SHARED = Graph(4, ((0, 1), (4, 2), (4, 3), (5, 6)))  # the value 4 is read twice


def points(num: int, n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(num, n, generator=generator, dtype=F64) - 1


def sine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.sin(a * b + 0.8 * a - 0.5 * b + 0.3)


# --- graphs --------------------------------------------------------------------------------------


def test_tree_of_eight_is_that_of_the_paper() -> None:
    tree = Graph.tree(8)
    assert tree.nodes == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13))
    assert tree.levels == (1, 1, 1, 1, 2, 2, 3)
    assert (tree.num_nodes, tree.num_values, tree.depth, tree.is_tree) == (7, 15, 3, True)


@given(st.integers(2, 40), st.integers(2, 5))
def test_trees_read_every_value_once(n: int, arity: int) -> None:
    tree = Graph.tree(n, arity=arity)
    assert tree.is_tree
    assert all(2 <= len(parents) <= arity for parents in tree.nodes)
    assert sum(len(parents) - 1 for parents in tree.nodes) == n - 1
    depth = 0  # smallest with arity ** depth >= n
    while arity**depth < n:
        depth += 1
    assert tree.depth == depth
    if arity == 2:
        assert tree.num_nodes == n - 1


@given(st.integers(1, 9))
def test_shallow_is_one_node(n: int) -> None:
    graph = Graph.shallow(n)
    assert graph.nodes == (tuple(range(n)),)
    assert (graph.depth, graph.is_tree) == (1, True)


def test_a_value_that_is_read_twice_makes_no_tree() -> None:
    assert not SHARED.is_tree
    assert SHARED.levels == (1, 2, 2, 3)
    assert not Graph(2, ((0, 1), (0, 2))).is_tree  # an input read twice


@given(st.permutations(range(8)), st.integers(0, 100))
def test_permuted_graph_is_the_function_of_permuted_inputs(order: list[int], seed: int) -> None:
    x = points(5, 8, seed)
    tree = Graph.tree(8)
    permuted = tree.permuted(order)
    assert permuted.levels == tree.levels and permuted.is_tree
    torch.testing.assert_close(
        Compositional(permuted, sine)(x), Compositional(tree, sine)(x[:, order])
    )
    back = [order.index(i) for i in range(8)]
    assert permuted.permuted(back) == tree


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Graph(0, ((0,),)), ValueError, "num_inputs must be at least 1, got 0"),
        (lambda: Graph(2.0, ((0, 1),)), TypeError, "num_inputs must be an integer, got 2.0"),
        (lambda: Graph(2, ()), ValueError, "nodes must hold at least one node, got none"),
        (lambda: Graph(2, ((0, 1), ())), ValueError, r"nodes\[1\] must hold at least one"),
        (lambda: Graph(2, (0, 1)), TypeError, r"nodes\[0\] must be a sequence of integers"),
        (lambda: Graph(2, ((0, 0), (1, 2))), ValueError, r"nodes\[0\] must list different values"),
        (lambda: Graph(2, ((0, 2), (1, 2))), ValueError, r"nodes\[0\] must list .* 0 .. 1, got"),
        (lambda: Graph(2, ((0, -1),)), ValueError, r"nodes\[0\]\[1\] must be at least 0, got -1"),
        (
            lambda: Graph(3, ((0, 1),)),
            ValueError,
            r"nodes must read every value .* not read: \{2\}",
        ),
        (lambda: Graph(2, ((0, 1), (0, 1))), ValueError, r"every value .* not read: \{2\}"),
        (lambda: Graph.tree(1), ValueError, "num_inputs must be at least 2, got 1"),
        (lambda: Graph.tree(4, arity=1), ValueError, "arity must be at least 2, got 1"),
        (lambda: Graph.shallow(0), ValueError, "num_inputs must be at least 1, got 0"),
        (lambda: Graph.tree(3).permuted([0, 1]), ValueError, "order must be a permutation of 0"),
        (lambda: Graph.tree(2).permuted([0, 0]), ValueError, "order must be a permutation of 0"),
        (lambda: Graph.tree(2).permuted("01"), TypeError, "order must be a sequence of integers"),
    ],
)
def test_bad_graphs_are_refused(make, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


# --- evaluation ----------------------------------------------------------------------------------


def test_evaluate_takes_fractions_ring_elements_and_tensors() -> None:
    def node(a, b):
        return a * b + a

    exact = evaluate(SHARED, [node] * 4, [Fraction(1, k) for k in (2, 3, 5, 7)])
    _, *variables = sympy.ring("x1:5", sympy.QQ)
    polynomial = evaluate(SHARED, [node] * 4, variables)[-1]
    at = dict(zip(variables, [sympy.Rational(1, k) for k in (2, 3, 5, 7)], strict=True))
    assert Fraction(str(polynomial.evaluate(list(at.items())))) == exact[-1]
    x = torch.tensor([[1 / 2, 1 / 3, 1 / 5, 1 / 7]], dtype=F64)
    assert Compositional(SHARED, node)(x).item() == pytest.approx(float(exact[-1]), rel=1e-15)
    assert len(exact) == SHARED.num_values and exact[4] == Fraction(2, 3)


def test_each_node_has_its_function_in_order() -> None:
    f = Compositional(Graph.tree(4), (torch.add, torch.mul, torch.sub))
    x = points(6, 4)
    values = f.values(x)
    torch.testing.assert_close(values[4], x[:, 0] + x[:, 1])
    torch.testing.assert_close(values[5], x[:, 2] * x[:, 3])
    torch.testing.assert_close(f(x), values[4] - values[5])


def test_bad_functions_and_points_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each of the 3, got 2"):
        Compositional(Graph.tree(4), (torch.add, torch.mul))
    with pytest.raises(ValueError, match="functions must have 3 entries, got 1"):
        evaluate(Graph.tree(4), [torch.add], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="inputs must have 4 entries, got 3"):
        evaluate(Graph.tree(4), [torch.add] * 3, [1, 2, 3])
    f = Compositional(Graph.tree(4), torch.add)
    for bad in (points(3, 5), points(3, 4)[0]):
        with pytest.raises(ValueError, match=r"x must have shape \(N, 4\), got"):
            f(bad)
        with pytest.raises(ValueError, match=r"x must have shape \(N, 4\), got"):
            f.sensitivities(bad)
    with pytest.raises(TypeError, match="x must be a floating-point tensor"):
        f(torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(dataclasses.FrozenInstanceError):
        f.graph = Graph.tree(2)


# --- sensitivities -------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [Graph.tree(8), Graph.tree(5), SHARED], ids=str)
def test_sensitivities_agree_with_finite_differences(graph: Graph) -> None:
    x, h = points(4, graph.num_inputs), 1e-6
    f = Compositional(graph, sine)
    for j, sensitivity in enumerate(f.sensitivities(x).T):

        def shifted(by: float, j: int = j) -> torch.Tensor:
            functions = list(f.functions)
            functions[j] = lambda a, b: sine(a, b) + by
            return Compositional(graph, tuple(functions))(x)

        quotient = (shifted(h) - shifted(-h)) / (2 * h)
        torch.testing.assert_close(sensitivity, quotient.abs(), atol=1e-9, rtol=1e-7)


@settings(max_examples=30)
@given(st.integers(2, 16), st.integers(0, 2**16))
def test_errors_at_the_nodes_add_up_to_at_most_the_amplification(n: int, seed: int) -> None:
    """For sums the first order is exact, and nothing is amplified: A is the number of nodes."""
    f = Compositional(Graph.tree(n), torch.add)
    x = points(3, n, seed)
    assert f.amplification(x) == n - 1
    assert (f.sensitivities(x) == 1).all()


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_product_amplifies_by_its_number_of_nodes_at_the_ones(n: int) -> None:
    f = Compositional(Graph.tree(n), torch.mul)
    assert f.amplification(torch.ones(1, n, dtype=F64)) == n - 1
    assert f.amplification(0.5 * torch.ones(1, n, dtype=F64)) <= max(1, (n - 1) / 1.5)
    assert f.sensitivities(points(5, n))[:, -1].tolist() == [1.0] * 5


def test_amplification_bounds_the_error_of_the_tree_to_first_order() -> None:
    f, x, e = Compositional(Graph.tree(8), sine), points(200, 8), 1e-5

    def off(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return sine(a, b) + e * torch.cos(7 * a + 3 * b)

    error = (Compositional(f.graph, off)(x) - f(x)).abs().max()
    assert 0 < error <= e * f.amplification(x) * (1 + 1e-3)


def test_sensitivities_take_grad_mode_and_data_as_they_are() -> None:
    f, x = Compositional(Graph.tree(4), sine), points(3, 4)
    with torch.no_grad():
        inside = f.sensitivities(x)
    assert torch.equal(inside, f.sensitivities(x)) and not inside.requires_grad
    assert inside.shape == (3, 3) and math.isfinite(f.amplification(x))
