"""Polynomials as tables: values against SymPy, exactness, counts, and refusals."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.approximation.polynomials import (
    Polynomial,
    exponents,
    num_monomials,
    random_polynomial,
    random_tree_polynomial,
)


def as_sympy(p: Polynomial) -> sympy.Poly:
    symbols = sympy.symbols(f"x1:{p.num_vars + 1}")
    terms = dict(zip(p.powers, map(sympy.Rational, p.coefficients), strict=True))
    return sympy.Poly.from_dict(terms, *symbols)


@st.composite
def tables(draw: st.DrawFn) -> Polynomial:
    n, k = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    rows = draw(st.permutations(exponents(n, k)))
    size = draw(st.integers(1, len(rows)))
    numbers = st.fractions(-5, 5, max_denominator=7) | st.integers(-9, 9)
    return Polynomial(tuple(rows[:size]), tuple(draw(numbers) for _ in range(size)))


# --- counting and listing ------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 17))
@pytest.mark.parametrize("k", range(7))
def test_number_of_monomials_is_the_binomial_coefficient(n: int, k: int) -> None:
    assert num_monomials(n, k) == sympy.binomial(n + k, k)
    if k and n > 1:  # Pascal: without the last variable, or divided by it
        assert num_monomials(n, k) == num_monomials(n - 1, k) + num_monomials(n, k - 1)


@pytest.mark.parametrize(("n", "k"), [(1, 0), (1, 5), (2, 3), (3, 3), (4, 4), (8, 2)])
def test_exponents_lists_each_monomial_once_by_degree(n: int, k: int) -> None:
    rows = exponents(n, k)
    every = {row for row in itertools.product(range(k + 1), repeat=n) if sum(row) <= k}
    assert set(rows) == every and len(rows) == len(every) == num_monomials(n, k)
    assert list(rows) == sorted(rows, key=lambda row: (sum(row), [-power for power in row]))


@pytest.mark.parametrize("function", [num_monomials, exponents])
def test_sizes_are_checked(function: object) -> None:
    with pytest.raises(ValueError, match="num_vars must be at least 1, got 0"):
        function(0, 2)
    with pytest.raises(ValueError, match="degree must be at least 0, got -1"):
        function(2, -1)
    with pytest.raises(TypeError, match="degree must be an integer, got 2.0"):
        function(2, 2.0)


# --- values --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(tables(), st.data())
def test_values_are_exact_and_those_of_sympy(p: Polynomial, data: st.DataObject) -> None:
    point = data.draw(
        st.lists(st.fractions(-3, 3, max_denominator=5), min_size=p.num_vars, max_size=p.num_vars)
    )
    value = p(*point)
    assert isinstance(value, Fraction)
    assert value == as_sympy(p).eval(tuple(map(sympy.Rational, point)))
    assert p.degree == max(as_sympy(p).total_degree(), 0)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(0, 3), st.data())
def test_values_are_linear_in_the_coefficients(n: int, k: int, data: st.DataObject) -> None:
    rows, numbers = exponents(n, k), st.fractions(-5, 5, max_denominator=7)
    p, q = (data.draw(st.tuples(*[numbers] * len(rows))) for _ in range(2))
    a, x = data.draw(numbers), data.draw(st.tuples(*[numbers] * n))
    total = tuple(c + a * d for c, d in zip(p, q, strict=True))
    assert Polynomial(rows, total)(*x) == Polynomial(rows, p)(*x) + a * Polynomial(rows, q)(*x)


def test_the_values_taken_decide_the_arithmetic() -> None:
    p = Polynomial(((2, 1), (0, 0)), (3, -1))
    assert p(2, 5) == 59 and isinstance(p(2, 5), int)
    assert p(Fraction(1, 3), Fraction(1, 2)) == Fraction(-5, 6)
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(p(x, 2 * x), 6 * x**3 - 1)
    np.testing.assert_array_equal(p(np.arange(4.0), np.ones(4)), [-1.0, 2.0, 11.0, 26.0])
    with mpmath.workdps(60):
        root = mpmath.sqrt(2)
        assert abs(p(root, root) - (6 * root - 1)) < mpmath.mpf(10) ** -55
    _, x1, x2 = sympy.ring("x1, x2", sympy.ZZ)
    assert p(x1, x2) == 3 * x1**2 * x2 - 1


def test_a_constant_has_the_shape_of_its_arguments() -> None:
    constant = Polynomial(((0, 0),), (4.0,))
    x = torch.zeros(5, dtype=torch.float64)
    assert torch.equal(constant(x, x), torch.full((5,), 4.0, dtype=torch.float64))


def test_gradients_go_through() -> None:
    p = Polynomial(((2, 1), (0, 3)), (3.0, -1.0))
    x = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(p(x[0], x[1]), x)
    assert gradient.tolist() == [60.0, 12.0 - 75.0]


@pytest.mark.parametrize(
    ("coefficients", "degree"), [((0, 0, 0), 0), ((1, 0, 0), 0), ((0, 2, 0), 1), ((1, 1, 1), 4)]
)
def test_degree_looks_at_nonzero_coefficients(coefficients: tuple, degree: int) -> None:
    assert Polynomial(((0, 0), (0, 1), (3, 1)), coefficients).degree == degree


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("powers", "coefficients", "error", "message"),
    [
        ((), (), ValueError, "at least one monomial"),
        (((1, 0), (1,)), (1, 2), ValueError, "same number of variables"),
        (((1, 0), (1, 0)), (1, 2), ValueError, "different monomials"),
        (((1, 0),), (1, 2), ValueError, r"one number per monomial \(1\), got 2"),
        (((1, -1),), (1,), ValueError, r"powers\[0\]\[1\] must be at least 0, got -1"),
        (((1, 0.5),), (1,), TypeError, r"powers\[0\]\[1\] must be an integer, got 0.5"),
        (((),), (1,), ValueError, r"powers\[0\] must hold at least one"),
        ((3,), (1,), TypeError, r"powers\[0\] must be a sequence"),
    ],
)
def test_bad_tables_are_refused(
    powers: tuple, coefficients: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Polynomial(powers, coefficients)


def test_number_of_arguments_is_checked() -> None:
    with pytest.raises(ValueError, match="x must be 2 values, got 3"):
        Polynomial(((1, 1),), (1,))(1, 2, 3)


# --- random polynomials --------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 99), st.integers(1, 9))
def test_random_polynomials_hold_all_monomials(n: int, k: int, seed: int, bound: int) -> None:
    real = random_polynomial(n, k, seed=seed, bound=bound)
    whole = random_polynomial(n, k, seed=seed, bound=bound, integer=True)
    assert real.powers == whole.powers == exponents(n, k)
    assert all(isinstance(c, float) and abs(c) <= bound for c in real.coefficients)
    assert all(isinstance(c, int) and 1 <= abs(c) <= bound for c in whole.coefficients)
    assert real == random_polynomial(n, k, seed=seed, bound=bound)
    assert whole.degree == k


def test_coefficients_spread_over_their_range() -> None:
    whole = random_polynomial(3, 14, seed=1, bound=3, integer=True).coefficients
    assert set(whole) == {-3, -2, -1, 1, 2, 3}
    real = np.array(random_polynomial(3, 14, seed=1, bound=2.0).coefficients)
    assert real.min() < -1.9 and real.max() > 1.9
    # 680 numbers: the mean of a uniform draw on [-2, 2] has standard deviation 0.044
    assert len(real) == math.comb(17, 3) and abs(real.mean()) < 0.2


def test_a_tree_gets_different_nodes_in_two_variables() -> None:
    nodes = random_tree_polynomial(7, 2, seed=3)
    assert len(set(nodes)) == 7 and {h.powers for h in nodes} == {exponents(2, 2)}
    assert nodes == random_tree_polynomial(7, 2, seed=3) != random_tree_polynomial(7, 2, seed=4)


def test_arguments_of_random_polynomials_are_checked() -> None:
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        random_polynomial(2, 2, seed=-1)
    with pytest.raises(ValueError, match="bound must be finite and greater than 0, got 0"):
        random_polynomial(2, 2, seed=0, bound=0)
    with pytest.raises(ValueError, match="bound must be at least 1, got 0"):
        random_polynomial(2, 2, seed=0, bound=0.5, integer=True)
    with pytest.raises(ValueError, match="num_nodes must be at least 1, got 0"):
        random_tree_polynomial(0, 2, seed=0)


@given(st.integers(1, 4), st.integers(0, 2), st.integers(0, 100))
def test_quadratic_form_is_the_polynomial(n: int, k: int, seed: int) -> None:
    p = random_polynomial(n, k, seed=seed, bound=9, integer=True)
    c, g, Q = p.quadratic_form()
    x = [Fraction(i + 1, 3) for i in range(n)]
    form = c + sum(g[i] * x[i] for i in range(n))
    form += sum(Q[i][j] * x[i] * x[j] for i in range(n) for j in range(n))
    assert form == p(*x)
    assert all(Q[i][j] == Q[j][i] for i in range(n) for j in range(n))


def test_a_cubic_has_no_quadratic_form() -> None:
    with pytest.raises(ValueError, match="degree at most 2, got 3"):
        Polynomial(((3, 0),), (1,)).quadratic_form()
