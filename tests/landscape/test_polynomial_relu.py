"""Best polynomials against linear programming, known values and the alternation theorem."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy.integrate import quad
from scipy.optimize import linprog

from companion.landscape import polynomial_relu
from companion.networks import MLP

Z = np.cos(np.linspace(np.pi, 0.0, 40_001))  # denser where the errors of polynomials turn
RELU = np.maximum(0.0, Z)


def by_linear_programming(degree: int, num_points: int = 801) -> float:
    """Least error on a grid, which is at most that on the interval."""
    z = np.cos(np.linspace(0, np.pi, num_points))
    basis = chebyshev.chebvander(z, degree)
    ones, target = np.ones((num_points, 1)), np.maximum(0.0, z)
    result = linprog(
        c=[0.0] * (degree + 1) + [1.0],
        A_ub=np.block([[basis, -ones], [-basis, -ones]]),
        b_ub=np.concatenate([target, -target]),
        bounds=[(None, None)] * (degree + 2),
    )
    return result.fun


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7, 12])
def test_least_error_is_that_of_a_linear_program(degree: int) -> None:
    best = polynomial_relu.best_polynomial(degree)
    least = by_linear_programming(degree)
    # Between two of 801 points the error turns by at most its curvature, about (pi k / 1600)^2.
    assert least <= best.error + 1e-9
    assert best.error - least < 1e-3 * best.error


def test_values_known_in_closed_form() -> None:
    assert polynomial_relu.best_polynomial(1).error == pytest.approx(1 / 4, abs=1e-14)
    two = polynomial_relu.best_polynomial(2)  # z^2 / 2 + z / 2 + 1 / 16
    assert two.error == pytest.approx(1 / 16, abs=1e-14)
    np.testing.assert_allclose(two(Z), Z**2 / 2 + Z / 2 + 1 / 16, atol=1e-14)


@pytest.mark.parametrize("degree", [1, 2, 4, 5, 10, 32, 101, 200])
def test_error_and_bound_agree_and_the_error_alternates(degree: int) -> None:
    best = polynomial_relu.best_polynomial(degree)
    e = best(Z) - RELU
    assert np.abs(e).max() == pytest.approx(best.error, rel=1e-5)
    assert np.abs(e).max() <= best.error + 1e-13
    assert best.lower_bound == pytest.approx(best.error, abs=1e-13)
    at_top = e[np.abs(e) > 0.999 * best.error] > 0
    assert 1 + (at_top[1:] != at_top[:-1]).sum() >= degree + 2  # Chebyshev's theorem


def test_errors_extrapolate_to_bernsteins_constant() -> None:
    def scaled(m: int) -> float:
        return 4 * m * polynomial_relu.best_polynomial(2 * m).error

    row = [scaled(m) for m in (6, 12, 24, 48)]  # an expansion in 1 / m^2: Richardson
    for power in (4, 16, 64):
        row = [(power * b - a) / (power - 1) for a, b in zip(row, row[1:], strict=False)]
    assert row[0] == pytest.approx(polynomial_relu.BERNSTEIN, abs=1e-8)


@pytest.mark.parametrize("degree", [1, 2, 3, 8])
def test_chebyshev_coefficients_by_quadrature(degree: int) -> None:
    series = polynomial_relu.chebyshev_series(degree, radius=3.0)
    for j, coefficient in enumerate(series.coefficients):
        value = quad(lambda s, j=j: 3 * np.cos(s) * np.cos(j * s), 0, np.pi / 2)[0]
        assert coefficient == pytest.approx((1 if j == 0 else 2) / np.pi * value, abs=1e-12)
    e = series(3 * Z) - 3 * RELU
    assert np.abs(e).max() == pytest.approx(series.error, rel=1e-12)
    assert series.lower_bound < series.error


@given(st.integers(1, 40), st.floats(0.1, 50.0))
@settings(deadline=None, max_examples=25)
def test_the_radius_is_a_scale(degree: int, radius: float) -> None:
    unit = polynomial_relu.best_polynomial(degree)
    wide = polynomial_relu.best_polynomial(degree, radius)
    assert wide.error == pytest.approx(radius * unit.error, rel=1e-12)
    np.testing.assert_allclose(
        wide(radius * Z[::100]), radius * unit(Z[::100]), atol=1e-11 * radius
    )


def test_slope_is_the_derivative() -> None:
    p = polynomial_relu.best_polynomial(9, radius=2.0)
    z = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(p(z).sum(), z)
    torch.testing.assert_close(p.slope(z), gradient)
    assert float(p.slope(0.0)) == pytest.approx(0.5, abs=1e-12)  # by symmetry, for every degree


def test_the_same_values_for_numbers_arrays_tensors_and_symbols() -> None:
    p = polynomial_relu.best_polynomial(6, radius=2.0)
    z = sp.Symbol("z")
    exact = p.expression(z, denominator=10**14)
    for value in (-2.5, -0.3, 0.0, 1.7):
        one = p(value)
        assert p(np.array([value]))[0] == pytest.approx(one, abs=1e-14)
        assert p(torch.tensor(value, dtype=torch.float64)).item() == pytest.approx(one, abs=1e-14)
        assert float(exact.subs(z, sp.Rational(value))) == pytest.approx(one, abs=1e-10)
    assert sp.Poly(exact, z).degree() == 6 and not exact.has(sp.Float)
    assert sp.Poly(p.expression(z), z).eval(0) == pytest.approx(p(0.0), abs=1e-6)


@pytest.mark.parametrize("widths", [(3, 1), (3, 5, 1), (3, 5, 4, 2)])
def test_evaluate_with_the_relu_is_the_network(widths: tuple[int, ...]) -> None:
    net, x = MLP(widths=widths), torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    x = x.double()
    params = net.init(seed=1)
    out = polynomial_relu.evaluate(params, x, torch.relu)
    torch.testing.assert_close(out.f, net(params, x))
    largest = [float(z.abs().max()) for z in net.preactivations(params, x)]
    assert out.largest.tolist() == pytest.approx(largest)


@given(st.integers(0, 1000), st.integers(2, 4), st.sampled_from([2, 4, 8, 16]))
@settings(deadline=None, max_examples=25)
def test_error_stays_below_the_bound_inside_the_interval(seed: int, K: int, degree: int) -> None:
    net = MLP(widths=(3,) + (6,) * (K - 1) + (1,))
    params = net.init(seed=seed)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exact = polynomial_relu.evaluate(params, x, torch.relu)
    p = polynomial_relu.best_polynomial(degree, radius=4 * float(exact.largest.max()))
    out = polynomial_relu.evaluate(params, x, p)
    if float(out.largest.max()) > p.radius:  # the bound does not speak
        return
    bound = polynomial_relu.error_bound(params, p.error)
    assert float((out.f - exact.f).abs().max()) <= bound * (1 + 1e-12)


@pytest.mark.parametrize(("K", "s"), [(1, 3), (2, 2), (2, 3), (3, 2), (4, 2)])
def test_degree_in_the_weights_against_sympy(K: int, s: int) -> None:
    w, x = sp.symbols(f"w1:{K + 1}"), sp.Integer(5)
    f = w[0] * x
    for v in w[1:]:
        f = v * (f**s + f + 1)
    assert sp.Poly(f, *w).total_degree() == polynomial_relu.degree_in_weights(K, s)


def test_results_do_not_change() -> None:
    p = polynomial_relu.best_polynomial(4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.error = 0.0
    with pytest.raises(ValueError, match="read-only"):
        p.coefficients[0] = 1.0


@pytest.mark.parametrize(
    ("call", "error", "why"),
    [
        (lambda: polynomial_relu.best_polynomial(0), ValueError, "degree must be at least 1"),
        (lambda: polynomial_relu.best_polynomial(2.0), TypeError, "degree must be an integer"),
        (lambda: polynomial_relu.best_polynomial(201), ValueError, "at most 200, got 201"),
        (lambda: polynomial_relu.best_polynomial(2, -1.0), ValueError, "radius"),
        (lambda: polynomial_relu.chebyshev_series(2, np.nan), ValueError, "radius"),
        (lambda: polynomial_relu.degree_in_weights(0, 2), ValueError, "K must be at least 1"),
        (lambda: polynomial_relu.error_bound({}, 0.1), TypeError, "dict of matrices"),
        (lambda: polynomial_relu.error_bound({"W1": torch.ones(1, 1)}, -1), ValueError, "error"),
        (
            lambda: polynomial_relu.evaluate(
                {"W1": torch.ones(2, 3)}, torch.ones(4, 2), torch.relu
            ),
            ValueError,
            r"W1 needs inputs \(N, 3\), got \(4, 2\)",
        ),
        (
            lambda: polynomial_relu.evaluate(
                {"W1": torch.ones(5, 2, 3)}, torch.ones(4, 3), torch.relu
            ),
            ValueError,
            "W1 must be a matrix",
        ),
    ],
)
def test_refused(call, error: type, why: str) -> None:
    with pytest.raises(error, match=why):
        call()
