"""Networks against exact arithmetic, definitions, SciPy's splines and brute force."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.approximation import relu
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.polynomials import Polynomial, random_tree_polynomial

UNIT = st.fractions(0, 1, max_denominator=10**6)
SIGNED = st.fractions(-1, 1, max_denominator=10**6)


def column(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)[:, None]


def by_definition(x: Fraction, m: int) -> Fraction:
    """x - sum_s g_s(x) / 4^s with g_s the s-fold tent map."""
    total, g = x, x
    for s in range(1, m + 1):
        g = 2 * g if g < Fraction(1, 2) else 2 - 2 * g
        total -= g / 4**s
    return total


# --- the class -----------------------------------------------------------------------------------


def random_network(seed: int, widths: tuple[int, ...]) -> relu.ReluNetwork:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:  # eighths, so that exact arithmetic stays short
        return torch.randint(-8, 9, shape, generator=generator).to(torch.float64) / 8

    pairs = list(itertools.pairwise(widths))
    return relu.ReluNetwork(
        tuple(draw(out, into) for into, out in pairs), tuple(draw(out) for _, out in pairs)
    )


@given(st.integers(0, 1000), SIGNED, SIGNED)
def test_exact_and_floating_point_agree(seed: int, a: Fraction, b: Fraction) -> None:
    net = random_network(seed, (2, 3, 3, 1))
    x = torch.tensor([[float(a), float(b)]], dtype=torch.float64)
    assert float(net(x)) == pytest.approx(float(net.exact(a, b)), abs=1e-13)


def test_composition_and_stacking() -> None:
    inner, outer = random_network(1, (2, 4, 3)), random_network(2, (3, 5, 1))
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint = inner.then(outer)
    assert torch.allclose(joint(x), outer(inner(x)), atol=1e-13)
    assert joint.depth == 2 and joint.num_units == 9
    both = relu.beside([inner, random_network(3, (1, 2, 1))])
    y = torch.cat([x, x[:, :1]], dim=1)
    assert both.widths == (3, 6, 4) and both(y).shape == (50, 4)
    assert torch.allclose(both(y)[:, :3], inner(x), atol=1e-14)


def test_without_biases_is_the_same_function() -> None:
    net = relu.product(5)
    mlp, params = net.without_biases()
    x = 2 * torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    extended = torch.cat([x, torch.ones(100, 1, dtype=torch.float64)], dim=1)
    assert torch.allclose(mlp(params, extended), net(x), atol=1e-15)
    assert sum(mlp.widths[1:-1]) == net.num_units + net.depth
    # Homogeneous of degree one in each layer, and in the extended input.
    assert torch.allclose(mlp(params, 3 * extended), 3 * net(x), atol=1e-14)


def test_bad_networks_are_refused() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="one tensor per layer, got 1 and 0"):
        relu.ReluNetwork((one,), ())
    with pytest.raises(ValueError, match=r"weights\[1\] must have shape"):
        relu.ReluNetwork((one, torch.ones(1, 2)), (one[0], one[0]))
    with pytest.raises(ValueError, match=r"biases\[0\] must have shape \(1,\), got \(2,\)"):
        relu.ReluNetwork((one,), (torch.ones(2),))
    with pytest.raises(TypeError, match=r"weights\[0\] must be a torch.Tensor"):
        relu.ReluNetwork(([[1.0]],), (one[0],))
    net = relu.square(2)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1\), got \(4,\)"):
        net(torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="x must be 1 numbers, got 2"):
        net.exact(1, 2)
    with pytest.raises(ValueError, match="outer must take 1 inputs, got 2"):
        net.then(relu.product(2))
    with pytest.raises(ValueError, match="of equal depth"):
        relu.beside([relu.square(2), relu.square(3)])
    with pytest.raises(ValueError, match="must have one output, got 2"):
        relu.beside([net, net]).without_biases()


# --- the square ----------------------------------------------------------------------------------


@pytest.mark.parametrize("m", range(9))
def test_error_of_the_square_is_exact(m: int) -> None:
    bound = Fraction(1, 4 ** (m + 1))
    net, signed = relu.square(m), relu.square(m, signed=True)
    assert relu.square_error(net) == bound
    assert relu.square_error(signed, -1, 1) == bound
    assert relu.breakpoints(net) == tuple(Fraction(k, 2**m) for k in range(2**m + 1))
    assert (net.num_units, signed.num_units) == ((3 * m - 1, 3 * m + 1) if m else (1, 2))
    assert net.depth == signed.depth == max(m, 1)


def test_midpoint_of_a_piece_is_the_worst_point_by_sympy() -> None:
    x, k, h = sympy.symbols("x k h", positive=True)
    chord = (k * h) ** 2 + (2 * k + 1) * h * (x - k * h)
    (worst,) = sympy.solve(sympy.diff(chord - x**2, x), x)
    assert sympy.simplify(worst - (k + sympy.Rational(1, 2)) * h) == 0
    assert sympy.simplify((chord - x**2).subs(x, worst) - h**2 / 4) == 0


@given(UNIT, st.integers(0, 8))
def test_network_is_the_sum_of_tents(x: Fraction, m: int) -> None:
    value = relu.square(m).exact(x)
    assert value == by_definition(x, m)
    assert 0 <= value - x**2 <= Fraction(1, 4 ** (m + 1))
    assert relu.square(m, signed=True).exact(-x) == value
    assert relu.square(m).exact(-x) == 0


@given(st.integers(0, 2**20), st.integers(0, 9))
def test_closed_form_is_the_network(k: int, m: int) -> None:
    x = torch.tensor([k / 2**20], dtype=torch.float64)
    exact = float(relu.square(m).exact(Fraction(k, 2**20)))
    assert float(relu.interpolant(x, m)) == pytest.approx(exact, abs=1e-16)
    assert float(relu.square(m)(x[:, None])) == pytest.approx(exact, abs=1e-15)
    assert float(relu.interpolant(-x, m)) == 0.0


def test_tent_is_the_iterated_map() -> None:
    x = torch.linspace(0, 1, 65, dtype=torch.float64)
    assert torch.equal(relu.tent(x, 0), x)
    assert torch.equal(relu.tent(x, 3), relu.tent(relu.tent(relu.tent(x, 1), 1), 1))
    assert relu.tent(x, 3).tolist()[:9] == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]


@pytest.mark.parametrize("net", [relu.square(3), relu.square(40), relu.product(50)])
def test_many_steps_reach_rounding(net: relu.ReluNetwork) -> None:
    d = net.widths[0]
    x = torch.rand(500, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = x.prod(1) if d == 2 else x[:, 0] ** 2
    assert (net(x) - target).abs().max() < (2e-15 if net.depth > 30 else 4e-3)


# --- products ------------------------------------------------------------------------------------


@given(SIGNED, SIGNED, st.integers(0, 7), st.sampled_from([1, 2, 4]))
def test_product_within_its_bound(a: Fraction, b: Fraction, m: int, bound: int) -> None:
    a, b = bound * a, bound * b
    net = relu.product(m, bound=bound)
    assert abs(net.exact(a, b) - a * b) <= Fraction(bound**2, 4 ** (m + 1))
    assert net.exact(a, 0) == net.exact(0, b) == 0


@pytest.mark.parametrize("m", range(8))
def test_product_attains_its_bound(m: int) -> None:
    x = Fraction(1, 2 ** (m + 1))  # (x + x) / 2 is the middle of a piece, (x - x) / 2 is a knot
    assert relu.product(m).exact(x, x) - x * x == Fraction(1, 4 ** (m + 1))
    assert relu.product(m).num_units == (5 * m + 3 if m else 4)


# --- sums of squares -----------------------------------------------------------------------------


@pytest.mark.parametrize("m", [0, 1, 2, 6])
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_sum_of_squares_is_what_it_says(m: int, one_sided: bool, affine: bool) -> None:
    generator = torch.Generator().manual_seed(m)
    v = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    c = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    s = torch.tensor([0.1, 0.0, -0.3], dtype=torch.float64)
    linear = torch.tensor([0.7, -1.1], dtype=torch.float64) if affine else None
    radii = v.abs().sum(1) + s.abs()
    net = relu.sum_of_squares(
        v, c, m, radii=radii, shifts=s, linear=linear, constant=0.4, lift=100.0, one_sided=one_sided
    )
    x = 2 * torch.rand(200, 2, dtype=torch.float64, generator=generator) - 1
    z = x @ v.T + s
    z = z.clamp(min=0) if one_sided else z.abs()
    expected = relu.interpolant(z / radii, m) @ (c * radii**2) + 0.4
    if affine:
        expected = expected + x @ linear
    assert torch.allclose(net(x), expected, atol=1e-12)


def test_sum_of_squares_refuses_bad_input() -> None:
    one, two = torch.ones(1, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"directions must have shape \(J, d\)"):
        relu.sum_of_squares(one, one, 2, radii=one)
    with pytest.raises(ValueError, match=r"coefficients must have shape \(1,\), got \(2,\)"):
        relu.sum_of_squares(one[None], two, 2, radii=one)
    with pytest.raises(ValueError, match="radii must be greater than 0, got 0.0"):
        relu.sum_of_squares(one[None], one, 2, radii=0 * one)
    with pytest.raises(ValueError, match="coefficients must have the dtype"):
        relu.sum_of_squares(one[None], one.float(), 2, radii=one)
    for bad, error in ((-1, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="steps must be"):
            relu.square(bad)
    with pytest.raises(ValueError, match="bound must be finite and greater than 0"):
        relu.product(2, bound=0)


# --- breakpoints ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_breakpoints_are_all_there_and_no_more(seed: int) -> None:
    net = random_network(seed, (1, 3, 3, 1))
    points = relu.breakpoints(net, -2, 2)
    slopes = []
    for u, v in itertools.pairwise(points):
        middle = net.exact((u + v) / 2)
        for share in (Fraction(1, 7), Fraction(5, 8)):  # affine between neighbours
            x = u + share * (v - u)
            line = net.exact(u) + share * (net.exact(v) - net.exact(u))
            assert net.exact(x) == line
        slopes.append((middle - net.exact(u)) / (v - u))
    assert all(a != b for a, b in itertools.pairwise(slopes))
    limit = np.prod([width + 1 for width in net.widths[1:-1]])
    assert len(points) - 1 <= limit


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_square_error_is_the_largest(seed: int) -> None:
    net = random_network(seed, (1, 3, 2, 1))
    worst = relu.square_error(net, -1, 1)
    grid = [Fraction(k, 200) for k in range(-200, 201)]
    found = max(abs(net.exact(x) - x**2) for x in grid)
    assert found <= worst <= found + Fraction(1, 10)


def test_exact_functions_refuse_other_networks() -> None:
    with pytest.raises(ValueError, match="one input and one output"):
        relu.breakpoints(relu.product(2))
    with pytest.raises(ValueError, match="low must be less than high, got 1 and 1"):
        relu.square_error(relu.square(2), 1, 1)


@given(st.floats(1e-12, 0.1))
def test_least_units_is_the_piece_count(error: float) -> None:
    units = relu.least_units(error)
    assert 8 * error * 4.0**units >= 1 - 1e-12
    assert units == 0 or 8 * error * 4.0 ** (units - 1) < 1
    with pytest.raises(ValueError, match="error must be finite and greater than 0"):
        relu.least_units(-error)


# --- quadratics and trees ------------------------------------------------------------------------

COEFFICIENT = st.floats(-2, 2).map(lambda c: round(c, 3))
POWERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))


@settings(max_examples=60)
@given(st.lists(COEFFICIENT, min_size=6, max_size=6), st.integers(1, 6))
def test_quadratic_keeps_its_error_and_range(coefficients: list[float], m: int) -> None:
    p = Polynomial(POWERS, tuple(coefficients))
    box = ((-1.0, 0.5), (0.25, 2.0))
    part = relu.quadratic(p, m, box=box)
    a, b = (np.linspace(*side, 41) for side in box)
    x = torch.from_numpy(np.stack(np.meshgrid(a, b), -1).reshape(-1, 2))
    value, target = part.net(x), p(*x.unbind(-1))
    assert (value - target).abs().max() <= part.error[0] + 1e-12
    (low, high) = part.ranges[0]
    assert low - 1e-12 <= value.min() and value.max() <= high + 1e-12
    # The interval is that of the polynomial, widened by the error on both sides.
    slack = 0.02 * (1 + sum(map(abs, coefficients)))
    assert low + part.error[0] >= target.min() - slack
    assert high - part.error[0] <= target.max() + slack
    assert (part.net.depth, part.net.num_units) == (m, 5 * m + 4)


def test_quadratic_refuses_bad_input() -> None:
    box = ((-1, 1), (-1, 1))
    with pytest.raises(ValueError, match="degree at most 2, got 3"):
        relu.quadratic(Polynomial(((3, 0),), (1.0,)), 2, box=box)
    with pytest.raises(ValueError, match="box must hold"):
        relu.quadratic(Polynomial(((1, 1),), (1.0,)), 2, box=box[:1])
    with pytest.raises(ValueError, match="low < high"):
        relu.quadratic(Polynomial(((1, 1),), (1.0,)), 2, box=((1, 1), (0, 1)))


@pytest.mark.parametrize("n", [2, 4, 8])
def test_tree_error_falls_by_four_and_keeps_the_budget(n: int) -> None:
    polynomials = random_tree_polynomial(n - 1, 2, seed=2)
    f = Compositional(Graph.tree(n), polynomials)
    x = 2 * torch.rand(2000, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    sensitivities, values = f.sensitivities(x), torch.stack(f.values(x)[n:])
    errors = {}
    for m in (4, 10):
        built = relu.tree(polynomials, m)
        errors[m] = (built.net(x) - f(x)).abs()
        budget = sensitivities @ torch.tensor(built.error, dtype=torch.float64)
        assert (errors[m] <= 1.2 * budget).all()
        for row, (low, high) in zip(values, built.ranges, strict=True):
            assert low <= row.min() and row.max() <= high
        assert built.net.depth == m * Graph.tree(n).depth
        assert built.net.num_units == (n - 1) * (5 * m + 4)
    assert float(errors[4].max() / errors[10].max()) == pytest.approx(4**6, rel=0.5)


def test_tree_needs_a_full_binary_tree() -> None:
    polynomials = random_tree_polynomial(4, 2, seed=0)
    for wrong in ((), polynomials[:2], polynomials):
        with pytest.raises(ValueError, match="n a power of 2, got"):
            relu.tree(wrong, 3)


# --- functions of two variables ------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 2, 5])
def test_triangulated_interpolates_and_is_linear_on_triangles(cells: int) -> None:
    rng = np.random.default_rng(cells)
    table = torch.from_numpy(rng.normal(size=(cells + 1, cells + 1)))

    def f(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        i, j = (((v + 1) / 2 * cells).round().long() for v in (a, b))
        return table[i, j]

    net = relu.triangulated(f, cells)
    assert net.num_units == (cells + 1) ** 2 + 8 * cells + 6 and net.depth == 2
    for i, j in itertools.product(range(cells), repeat=2):
        for third in ((1, 0), (0, 1)):  # the triangles (0, 0), (1, 1), third of each square
            share = rng.dirichlet(np.ones(3))
            corners = np.array([[0, 0], [1, 1], third]) + [i, j]
            x = torch.from_numpy(share @ corners)[None] * 2 / cells - 1
            expected = sum(w * table[a, b] for w, (a, b) in zip(share, corners, strict=True))
            assert float(net(x)) == pytest.approx(float(expected), abs=1e-12)


def test_triangulated_keeps_the_lipschitz_bound() -> None:
    x = 2 * torch.rand(3000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1

    def f(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return ((a - 0.3).abs() - (b + 0.11).abs()).abs()

    for cells in (3, 8):
        assert (relu.triangulated(f, cells)(x) - f(*x.T)).abs().max() <= 2 / cells
    with pytest.raises(ValueError, match="cells must be at least 1"):
        relu.triangulated(f, 0)
    with pytest.raises(ValueError, match="high - low must be finite and greater than 0"):
        relu.triangulated(f, 2, low=1, high=1)
