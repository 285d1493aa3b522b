"""Networks built weight by weight: units, weights, errors, and the trees made of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.linalg
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from companion.approximation import ridge
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.polynomials import (
    Polynomial,
    exponents,
    num_monomials,
    random_polynomial,
    random_tree_polynomial,
)

Z = sympy.Symbol("z")
SYMBOLIC = {
    "softplus": sympy.log(1 + sympy.exp(Z)),
    "sigmoid": 1 / (1 + sympy.exp(-Z)),
    "tanh": sympy.tanh(Z),
    "gaussian": sympy.exp(-(Z**2)),
    "sin": sympy.sin(Z),
    "exp": sympy.exp(Z),
}
WITH_FLAT_BIAS = ["softplus", "sigmoid", "tanh", "gaussian"]


def slope(h: list[float], error: list[float]) -> float:
    return float(np.polyfit(np.log(h), np.log(error), 1)[0])


# --- activations ---------------------------------------------------------------------------------


def test_every_activation_has_a_reference() -> None:
    assert set(SYMBOLIC) == set(ridge.ACTIVATIONS)


@pytest.mark.parametrize("name", ridge.ACTIVATIONS)
def test_derivatives_agree_with_sympy(name: str) -> None:
    for order, value in enumerate(ridge.derivatives(name, 0.5, 5, digits=40)):
        exact = sympy.diff(SYMBOLIC[name], Z, order).subs(Z, sympy.Rational(1, 2)).evalf(50)
        with mpmath.workdps(50):
            assert abs(value - mpf(str(exact))) < mpf(10) ** -38


@pytest.mark.parametrize("name", ridge.ACTIVATIONS)
def test_tensors_and_mpmath_agree(name: str) -> None:
    net = ridge.RidgeNetwork(name, ((mpf(2),), (mpf(-1),)), (mpf("0.25"), mpf(0)), (mpf(1), mpf(3)))
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    precise = [float(net(mpf(value))) for value in z.tolist()]
    np.testing.assert_allclose(net(z).numpy(), precise, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", WITH_FLAT_BIAS)
@pytest.mark.parametrize("degree", [2, 3, 4])
def test_flat_bias_is_a_root_of_the_next_derivative_only(name: str, degree: int) -> None:
    b = ridge.flat_bias(name, degree)
    with mpmath.workdps(50):
        jet = [
            sympy.lambdify(Z, sympy.diff(SYMBOLIC[name], Z, j), "mpmath")(b)
            for j in range(degree + 2)
        ]
    assert abs(jet[-1]) < 1e-40
    assert min(abs(value) for value in jet[:-1]) > 1e-3


def test_flat_bias_has_known_values() -> None:
    assert ridge.flat_bias("softplus", 2) == 0
    assert math.isclose(ridge.flat_bias("tanh", 2), math.atanh(3**-0.5), rel_tol=1e-15)
    assert math.isclose(ridge.flat_bias("sigmoid", 2), math.log(2 + 3**0.5), rel_tol=1e-15)
    assert math.isclose(ridge.flat_bias("gaussian", 2), 1.5**0.5, rel_tol=1e-15)


@pytest.mark.parametrize(("name", "degree"), [("exp", 2), ("sin", 2), ("softplus", 1)])
def test_some_activations_have_no_flat_bias(name: str, degree: int) -> None:
    with pytest.raises(ValueError, match=f"'{name}' has no flat bias for degree {degree}"):
        ridge.flat_bias(name, degree)


# --- the difference formulas ---------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3), (3, 2), (4, 2)])
def test_lattice_is_centred_and_determines_polynomials(n: int, k: int) -> None:
    nodes = ridge.lattice(n, k)
    assert len(set(nodes)) == len(nodes) == math.comb(n + k, k)
    assert all(sum(column) == 0 for column in zip(*nodes, strict=True))
    matrix = sympy.Matrix(
        [[math.prod(a**e for a, e in zip(node, row, strict=True)) for row in exponents(n, k)]
         for node in nodes]
    )  # fmt: skip
    assert matrix.rank() == len(nodes)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_stencils_take_the_derivatives_of_any_polynomial(data: st.DataObject) -> None:
    n, k = data.draw(st.sampled_from([(1, 3), (2, 2), (2, 3), (3, 2)]))
    p, g = (random_polynomial(n, k, seed=data.draw(st.integers(0, 99)), bound=9, integer=True)
            for _ in range(2))  # fmt: skip
    at_nodes = [g(*node) for node in ridge.lattice(n, k)]
    x = sympy.symbols(f"x:{n}")
    for j, formula in enumerate(ridge.stencils(p)):
        expected = sum(
            c * math.prod(map(math.factorial, row)) * d
            for row, c in zip(p.powers, p.coefficients, strict=True) if sum(row) == j
            for r, d in zip(g.powers, g.coefficients, strict=True) if r == row
        )  # fmt: skip
        assert sum(w * v for w, v in zip(formula, at_nodes, strict=True)) == expected
    top = sympy.diff(g(*x), *((v, 1) for v in x[:1])).subs(dict.fromkeys(x, 0))
    linear = Polynomial(((1,) + (0,) * (n - 1),), (1,))
    formula = ridge.stencils(linear, degree=k)[1]
    assert sum(w * v for w, v in zip(formula, at_nodes, strict=True)) == top


def test_weights_of_one_product_in_closed_form() -> None:
    """(1, -1, -1, 1) / (h^2 sigma'') on the corners of a square of side h: Lin et al.'s gate."""
    net = ridge.ridge_network(Polynomial(((1, 1),), (1,)), h=0.25)
    np.testing.assert_allclose([float(c) for c in net.outer], [64, -64, -64, 0, 64, 0])
    assert all(b == 0 for b in net.biases)
    assert [float(a) for a in net.inner[3]] == pytest.approx([1 / 3, -1 / 6])


# --- Theorem 2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [*itertools.product([1, 2, 3, 4], [0, 1, 2, 3])])
def test_number_of_units_is_the_number_of_monomials(n: int, k: int) -> None:
    net = ridge.ridge_network(random_polynomial(n, k, seed=1), h=0.1, bias=0.5)
    assert net.num_units == num_monomials(n, k) == math.comb(n + k, k)
    assert net.num_vars == n


@pytest.mark.parametrize("name", ridge.ACTIVATIONS)
def test_error_is_of_first_order(name: str) -> None:
    p, x = random_polynomial(2, 2, seed=3), ridge.cube_points(2, 50, seed=0)
    steps = [1e-2, 1e-4, 1e-6, 1e-8]
    errors = [
        ridge.relative_error(
            ridge.ridge_network(p, h=h, activation=name, bias=0.5), p, x, digits=50
        )
        for h in steps
    ]
    assert abs(slope(steps, errors) - 1) < 0.02


@pytest.mark.parametrize("name", WITH_FLAT_BIAS)
def test_error_is_of_second_order_with_the_flat_bias(name: str) -> None:
    p, x = random_polynomial(2, 3, seed=3), ridge.cube_points(2, 50, seed=0)
    steps = [1e-2, 1e-4, 1e-6]
    errors = [
        ridge.relative_error(ridge.ridge_network(p, h=h, activation=name), p, x, digits=50)
        for h in steps
    ]
    assert abs(slope(steps, errors) - 2) < 0.02


def test_bars_of_the_network_of_theorem_2() -> None:
    p, x = random_polynomial(2, 2, seed=0), ridge.cube_points(2, 500, seed=1)
    assert ridge.relative_error(ridge.ridge_network(p, h=3e-4), p, x) < 2e-8
    assert ridge.relative_error(ridge.ridge_network(p, h=2e-5, bias=0.5), p, x) < 2e-5
    p, x = random_polynomial(4, 2, seed=0), ridge.cube_points(4, 50, seed=1)
    net = ridge.ridge_network(p, h=1e-9, bias=0.5, digits=60)
    assert ridge.relative_error(net, p, x, digits=60) < 1e-10


def test_weights_grow_like_a_power_of_h() -> None:
    p = random_polynomial(2, 3, seed=0)
    steps = [1e-3, 1e-5, 1e-7]
    weights = [ridge.ridge_network(p, h=h).largest_weight for h in steps]
    assert abs(slope(steps, weights) + 3) < 0.01


def test_weights_solve_the_vandermonde_system() -> None:
    p, h, b = random_polynomial(2, 2, seed=4), 0.125, 0.5
    net = ridge.ridge_network(p, h=h, activation="tanh", bias=b)
    nodes = np.array([[float(a) for a in node] for node in ridge.lattice(2, 2)])
    jet = [float(d) for d in ridge.derivatives("tanh", b, 2)]
    matrix = [[*np.prod(nodes**row, axis=1)] for row in p.powers]
    demand = [
        math.prod(map(math.factorial, row)) * c / (h ** sum(row) * jet[sum(row)])
        for row, c in zip(p.powers, p.coefficients, strict=True)
    ]
    expected = np.linalg.solve(matrix, demand)
    np.testing.assert_allclose([float(c) for c in net.outer], expected, rtol=1e-11)


def test_box_moves_and_scales_the_variables() -> None:
    p, box = random_polynomial(2, 2, seed=5), [(3.0, 7.0), (-0.25, 0.0)]
    u = ridge.cube_points(2, 100, seed=0)
    x = u * u.new_tensor([2.0, 0.125]) + u.new_tensor([5.0, -0.125])
    net = ridge.ridge_network(p, h=1e-3, box=box)
    assert net.num_units == 6
    assert ridge.relative_error(net, p, x) < 1e-6
    moved = sympy.Poly(
        p(5 + 2 * sympy.Symbol("u"), sympy.Rational(-1, 8) + sympy.Symbol("v") / 8),
        *sympy.symbols("u v"),
    )
    q = Polynomial(tuple(moved.monoms()), tuple(float(c) for c in moved.coeffs()))
    same = ridge.ridge_network(q, h=1e-3)(*u.unbind(-1))
    torch.testing.assert_close(net(*x.unbind(-1)), same, rtol=1e-7, atol=0)


def test_box_may_be_a_point() -> None:
    p = Polynomial(((2, 0), (0, 1)), (1, 1))
    net = ridge.ridge_network(p, h=1e-3, box=[(2.0, 2.0), (-1.0, 1.0)])
    assert float(net(2.0, 0.5)) == pytest.approx(4.5, rel=1e-5)


def test_degree_may_exceed_that_of_the_polynomial() -> None:
    p = Polynomial(((1, 0), (0, 0)), (Fraction(1, 3), 2))
    net = ridge.ridge_network(p, h=1e-3, degree=2)
    assert net.num_units == 6
    assert float(net(0.5, 0.5)) == pytest.approx(2 + 1 / 6, rel=1e-6)


def test_network_follows_the_dtype_of_the_points_and_is_frozen() -> None:
    net = ridge.ridge_network(Polynomial(((2,),), (1,)), h=0.1)
    assert net(torch.zeros(3)).dtype == torch.float32
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.activation = "tanh"


def test_product_norm_counts_biases_as_weights() -> None:
    net = ridge.RidgeNetwork("tanh", ((mpf(3),), (mpf(0),)), (mpf(4), mpf(0)), (mpf(5), mpf(12)))
    assert net.product_norm == pytest.approx(5 * 13)
    assert net.largest_weight == 12


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"h": 0.0}, ValueError, "h must be finite and greater than 0, got 0.0"),
        ({"h": None}, TypeError, "h must be a number"),
        ({"activation": "relu"}, ValueError, "activation must be one of 'softplus'"),
        ({"activation": "tanh", "bias": 0.0}, ValueError, r"got b = 0.0, where derivative 0 does"),
        ({"activation": "softplus", "bias": 0.0, "degree": 3}, ValueError, "derivative 3 does"),
        ({"activation": "sin"}, ValueError, "'sin' has no flat bias"),
        ({"bias": "round"}, ValueError, "bias must be one of 'flat'"),
        ({"bias": [1]}, TypeError, "bias must be 'flat' or a number"),
        ({"bias": math.inf}, ValueError, "bias must be 'flat' or a finite number"),
        ({"degree": 1}, ValueError, "degree must be at least 2, got 1"),
        ({"box": [(0, 1)]}, ValueError, "box must hold 2 intervals"),
        ({"box": [(0, 1), (2, 1)]}, ValueError, "box must hold 2 intervals"),
        ({"digits": 3}, ValueError, "digits must be at least 10"),
    ],
)
def test_ridge_network_refuses(change: dict, error: type[Exception], match: str) -> None:
    p = Polynomial(((1, 1),), (1,))
    with pytest.raises(error, match=match):
        ridge.ridge_network(p, **({"h": 0.1} | change))


@pytest.mark.parametrize(
    ("c", "error"), [("1", TypeError), (1j, TypeError), (math.nan, ValueError)]
)
def test_coefficients_must_be_numbers(c: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="p must have"):
        ridge.stencils(Polynomial(((1,),), (c,)))


def test_number_of_arguments_is_checked() -> None:
    net = ridge.ridge_network(Polynomial(((2,),), (1,)), h=0.1)
    with pytest.raises(ValueError, match="x must be 1 values, got 2"):
        net(torch.zeros(3), torch.zeros(3))


# --- Theorem 3 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k", "units"), [(2, 2, 6), (4, 2, 18), (8, 2, 42), (8, 3, 70)])
def test_tree_network_has_the_units_of_theorem_3(n: int, k: int, units: int) -> None:
    graph, x = Graph.tree(n), ridge.cube_points(n, 300, seed=0)
    polynomials = random_tree_polynomial(n - 1, k, seed=0)
    net = ridge.tree_network(graph, polynomials, x, h=1e-3)
    assert sum(node.num_units for node in net.functions) == units
    assert units == (n - 1) * math.comb(k + 2, 2)
    f, fresh = Compositional(graph, polynomials), ridge.cube_points(n, 300, seed=1)
    assert ridge.relative_error(net, f, fresh) < (1e-6 if k == 2 else 5e-5)


def test_tree_network_in_arbitrary_precision() -> None:
    graph, polynomials = Graph.tree(4), random_tree_polynomial(3, 2, seed=0)
    x, f = ridge.cube_points(4, 10, seed=0), Compositional(graph, polynomials)
    net = ridge.tree_network(graph, polynomials, x, h=1e-7)
    assert ridge.relative_error(net, f, x, digits=50) < 1e-12


def test_nodes_of_different_degree_may_share_one() -> None:
    graph, x = Graph.tree(2), ridge.cube_points(2, 10, seed=0)
    linear = Polynomial(((1, 0), (0, 1)), (1, 1))
    net = ridge.tree_network(graph, [linear], x, h=1e-3, degree=2)
    assert net.functions[0].num_units == 6


@given(st.integers(0, 50), st.floats(1e-7, 1e-4))
@settings(max_examples=20, deadline=None)
def test_budget_bounds_the_error_up_to_second_order(seed: int, size: float) -> None:
    graph, x = Graph.tree(4), ridge.cube_points(4, 30, seed=seed)
    polynomials = random_tree_polynomial(3, 2, seed=seed)
    wrong = tuple(
        lambda a, b, p=p, i=i: p(a, b) + size * torch.cos(3 * a + b + i)
        for i, p in enumerate(polynomials)
    )
    f = Compositional(graph, polynomials)
    budget = ridge.error_budget(Compositional(graph, wrong), f, x)
    assert budget.node_errors.shape == (len(x), 3)
    assert budget.node_errors.max() <= size * (1 + 1e-6)
    second_order = 100 * size**2
    assert (budget.error <= budget.budget + second_order).all()
    torch.testing.assert_close(
        budget.budget, (f.sensitivities(x) * budget.node_errors).sum(1), rtol=1e-12, atol=0
    )


def test_budget_needs_one_graph() -> None:
    x = ridge.cube_points(4, 5, seed=0)
    f = Compositional(Graph.tree(4), torch.mul)
    g = Compositional(Graph.tree(4).permuted([0, 2, 1, 3]), torch.mul)
    with pytest.raises(ValueError, match="must have the same graph"):
        ridge.error_budget(g, f, x)


# --- fewer units ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("name", ["softplus", "tanh"])
def test_quadratic_network_has_n_plus_2_units(n: int, name: str) -> None:
    p, x = random_polynomial(n, 2, seed=n), ridge.cube_points(n, 100, seed=0)
    net = ridge.quadratic_network(p, h=1e-4, activation=name)
    assert net.num_units == n + 2
    assert ridge.relative_error(net, p, x) < 1e-6


def test_quadratic_network_converges() -> None:
    p, x = random_polynomial(3, 2, seed=0), ridge.cube_points(3, 20, seed=0)
    for bias, order in ((0.5, 1), ("flat", 2)):
        steps = [1e-4, 1e-6, 1e-8]
        errors = [
            ridge.relative_error(ridge.quadratic_network(p, h=h, bias=bias), p, x, digits=50)
            for h in steps
        ]
        assert abs(slope(steps, errors) - order) < 0.05


def test_quadratic_network_refuses() -> None:
    with pytest.raises(ValueError, match="p must have degree 2, got 3"):
        ridge.quadratic_network(random_polynomial(2, 3, seed=0), h=0.1)
    with pytest.raises(ValueError, match="p must be a generic quadratic"):
        ridge.quadratic_network(Polynomial(((2, 0), (0, 1)), (1, 1)), h=0.1)


def test_worst_error_is_the_sine_of_the_largest_angle() -> None:
    x = ridge.cube_points(2, 400, seed=0)
    net = ridge.ridge_network(random_polynomial(2, 2, seed=0), h=0.1)
    monomials = torch.stack([(x ** x.new_tensor(row)).prod(1) for row in exponents(2, 2)], dim=1)
    angles = scipy.linalg.subspace_angles(monomials.numpy(), net.hidden(x).numpy())
    assert ridge.worst_error(net, 2, x) == pytest.approx(np.sin(angles.max()), rel=1e-6)
    fewer = dataclasses.replace(
        net, inner=net.inner[1:], biases=net.biases[1:], outer=net.outer[1:]
    )
    assert ridge.worst_error(fewer, 2, x) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="x must hold at least 6 points, got 5"):
        ridge.worst_error(fewer, 2, x[:5])


# --- measuring -----------------------------------------------------------------------------------


def test_relative_error_is_the_sup_error_over_the_range() -> None:
    x = torch.tensor([[-1.0], [0.5], [1.0]], dtype=torch.float64)
    p, q = Polynomial(((1,),), (2,)), Polynomial(((1,), (0,)), (2, 0.5))
    assert ridge.relative_error(q, p, x) == 0.125
    assert ridge.relative_error(q, p, x, digits=30) == 0.125
    with pytest.raises(ValueError, match="target must take more than one value"):
        ridge.relative_error(p, Polynomial(((0,),), (1,)), x)
    with pytest.raises(TypeError, match="x must be a torch.Tensor"):
        ridge.relative_error(p, p, [[1.0]])


def test_cube_points_hold_the_corners() -> None:
    x = ridge.cube_points(3, 10, seed=0)
    assert x.shape == (18, 3) and x.abs().max() == 1
    corners = set(map(tuple, x[10:].tolist()))
    assert corners == set(itertools.product([-1.0, 1.0], repeat=3))
    assert torch.equal(x, ridge.cube_points(3, 10, seed=0))
    assert ridge.cube_points(16, 10, seed=0).shape == (1034, 16)
    with pytest.raises(ValueError, match="count must be at least 0"):
        ridge.cube_points(2, -1, seed=0)
