"""Counts against SymPy's elimination with Sturm, NumPy's roots, and numbers known in advance."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.landscape import bezout

a, b, c, d, x, y, z, t = sp.symbols("a b c d x y z t")


def by_elimination(solutions: bezout.Solutions, weights: list[int]) -> tuple[int, int]:
    """Distinct and real solutions from the minimal polynomial of a linear form (FGLM, Sturm)."""
    w = solutions.variables
    form = t - sum(k * v for k, v in zip(weights, w, strict=True))
    basis = sp.groebner([p.as_expr() for p in solutions.basis] + [form], *w, t, order="grevlex")
    minimal = sp.Poly(basis.fglm("lex").exprs[-1], t)
    assert minimal.free_symbols == {t}
    squarefree = minimal.sqf_part()
    return squarefree.degree(), squarefree.count_roots()


# --- Bezout's theorem ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "seed"),
    [((2,), 0), ((5,), 0), ((2, 2), 1), ((3, 3), 0), ((2, 3), 2), ((2, 2, 2), 0), ((1, 2, 3), 1),
     ((4, 4), 0), ((2, 2, 2, 2), 0)],
)  # fmt: skip
def test_generic_square_systems_have_bezouts_number(degrees: tuple[int, ...], seed: int) -> None:
    equations, w = bezout.generic_system(degrees, len(degrees), seed=seed)
    found = bezout.solve(equations, w)
    assert found.count == found.bezout == math.prod(degrees)
    assert found.dimension == 0 and found.dimension_at_infinity == -1 and found.at_infinity == 0
    if found.count <= 9:
        weights = list(range(1, len(w) + 1))
        assert (found.distinct, found.real) == by_elimination(found, weights)


def test_twenty_seven_solutions_of_three_cubics() -> None:
    equations, w = bezout.generic_system((3, 3, 3), 3, seed=0)
    assert bezout.solve(equations, w).count == 27


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([(i, j) for i in range(3) for j in range(3) if i + j <= 2]),
            st.integers(-4, 4).filter(bool), min_size=2, max_size=5,
        ),
        min_size=2, max_size=2,
    )
)  # fmt: skip
def test_solutions_at_infinity_make_up_the_difference(terms: list[dict]) -> None:
    equations = [sp.Poly(p, a, b) for p in terms]
    found = bezout.solve(equations, (a, b))
    turned = bezout.solve(bezout.turn_infinity(equations, (a, b), seed=3), (a, b))
    if found.dimension > 0:
        assert found.count is None and found.distinct is None and found.real is None
        assert turned.dimension == found.dimension
        return
    assert 0 <= found.real <= found.distinct <= found.count <= found.bezout
    assert (found.distinct - found.real) % 2 == 0
    assert (found.dimension == -1) == (found.count == 0)
    if found.at_infinity is not None and turned.dimension_at_infinity == -1:
        assert turned.count == found.bezout == found.count + found.at_infinity
        assert (found.at_infinity == 0) == (found.dimension_at_infinity == -1)
    nonzero = [p for p in found.basis if p.total_degree() > 0]
    if nonzero:
        # the linear form with the most values, in case that one takes a value twice
        counts = max(by_elimination(found, form) for form in ([1, 7], [13, -2]))
        assert (found.distinct, found.real) == counts


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.fractions(-3, 3, max_denominator=4), max_size=4),
    st.lists(st.tuples(st.integers(-2, 2), st.integers(1, 3)), max_size=2),
)
def test_one_polynomial_with_known_roots(
    real: list[Fraction], pairs: list[tuple[int, int]]
) -> None:
    factors = [a - sp.Rational(r.numerator, r.denominator) for r in real]
    factors += [(a - u) ** 2 + v for u, v in pairs]
    if not factors:
        return
    found = bezout.solve([sp.expand(sp.prod(factors))], (a,))
    assert found.count == len(real) + 2 * len(pairs)
    assert found.real == len(set(real))
    assert found.distinct == len(set(real)) + 2 * len(set(pairs))


def test_real_solutions_against_numpy() -> None:
    for seed in range(5):
        equations, w = bezout.generic_system((3, 2), 2, seed=seed)
        eliminated = sp.Poly(sp.resultant(*(p.as_expr() for p in equations), w[1]), w[0])
        roots = np.roots([float(k) for k in eliminated.all_coeffs()])
        assert abs(roots.imag[roots.imag != 0]).min() > 1e-6  # or the comparison means nothing
        assert bezout.solve(equations, w).real == (abs(roots.imag) < 1e-9).sum()


def test_the_trace_form_with_zeros_on_its_diagonal() -> None:
    assert bezout._inertia([[0, 1], [1, 0]]) == (1, 1)
    assert bezout._inertia([[sp.QQ(0)] * 2] * 2) == (0, 0)
    assert bezout._inertia([[0, 2, 0], [2, 0, 0], [0, 0, sp.QQ(-1)]]) == (1, 2)
    rng = np.random.default_rng(0)
    for rank in (2, 4, 6):
        half = rng.integers(-3, 4, size=(6, rank))
        signs = rng.choice([-1, 1], size=rank)
        matrix = half @ np.diag(signs) @ half.T
        values = np.linalg.eigvalsh(matrix)
        exact = [[sp.QQ(int(k)) for k in row] for row in matrix]
        assert bezout._inertia(exact) == ((values > 1e-9).sum(), (values < -1e-9).sum())


# --- dimension, multiplicity, infinity -----------------------------------------------------------


@pytest.mark.parametrize(
    ("equations", "variables", "dimension"),
    [
        ([a * b - c], (a, b, c), 2),
        ([b - a**2, c - a**3], (a, b, c), 1),  # the twisted cubic
        ([a * b, a * c], (a, b, c), 2),  # a plane and a line
        ([a * (a - 1), a * b], (a, b), 1),  # a line and a point
        ([a**2 + b**2 + 1], (a, b), 1),  # no real point
        ([a - 1, a - 2], (a, b), -1),
        ([a - 1, b - 2, a + b - 3], (a, b), 0),
        ([sp.Integer(3), a], (a,), -1),
    ],
)
def test_dimension(equations: list, variables: tuple, dimension: int) -> None:
    found = bezout.solve(equations, variables)
    assert found.dimension == dimension
    assert (found.count is None) == (dimension > 0)


@pytest.mark.parametrize(("N", "W", "degree"), [(1, 2, 3), (1, 3, 2), (2, 3, 2), (2, 4, 2)])
def test_more_weights_than_equations_leave_w_minus_n_dimensions(N, W, degree) -> None:
    equations, w = bezout.generic_system([degree] * N, W, seed=0)
    found = bezout.solve(equations, w)
    assert found.dimension == W - N and found.dimension_at_infinity == W - N - 1
    with pytest.raises(ValueError, match=rf"as many equations as unknowns.* {N} .* in {W} unk"):
        _ = found.bezout
    with pytest.raises(ValueError, match="as many equations"):
        _ = found.at_infinity


@pytest.mark.parametrize(
    ("equations", "count", "distinct", "real", "at_infinity"),
    [
        ([(a - 1) ** 2, (b + 2) ** 3], 6, 1, 1, 0),
        ([a**2 + 1, b**2 - 2], 4, 4, 0, 0),
        ([b - a**2, b], 2, 1, 1, 0),  # a tangent line
        ([a * b - 1, a - b], 2, 2, 2, 0),
        ([a * b - 1, a], 0, 0, 0, 2),  # an asymptote
        ([a**2 + b**2 - 1, a**2 + b**2 - 4], 0, 0, 0, 4),  # concentric circles
        ([a**2 + b**2 - 1, (a - 1) ** 2 + b**2 - 1], 2, 2, 2, 2),  # any two circles
        ([a * b - 1, a * b - 2], 0, 0, 0, 4),
    ],
)
def test_curves_in_the_plane(equations, count, distinct, real, at_infinity) -> None:
    found = bezout.solve(equations, (a, b))
    assert (found.count, found.distinct, found.real) == (count, distinct, real)
    assert found.at_infinity == at_infinity
    turned = bezout.solve(bezout.turn_infinity(equations, (a, b), seed=1), (a, b))
    assert turned.count == found.bezout and turned.at_infinity == 0


def test_turning_back_and_forth_keeps_finite_solutions() -> None:
    equations, w = bezout.generic_system((2, 2), 2, seed=5)
    turned = bezout.solve(bezout.turn_infinity(equations, w, seed=0), w)
    assert (turned.count, turned.real) == (4, bezout.solve(equations, w).real)


# --- networks ------------------------------------------------------------------------------------


def test_one_squared_unit() -> None:
    system = bezout.interpolation((a * x + b) ** 2, x, [1, 3], [2, 5])
    found = bezout.solve(system, (a, b))
    assert (found.count, found.distinct, found.real, found.at_infinity) == (4, 4, 4, 0)
    none_real = bezout.solve(bezout.interpolation((a * x + b) ** 2, x, [1, 3], [2, -5]), (a, b))
    assert (none_real.count, none_real.real) == (4, 0)


def test_outer_weight_turns_the_count_into_nothing_or_a_curve() -> None:
    network = c * (a * x + b) ** 2
    generic = bezout.solve(bezout.interpolation(network, x, [1, 2, 3], [2, 7, 5]), (c, a, b))
    assert [p.as_expr() for p in generic.basis] == [1]
    assert (generic.dimension, generic.count, generic.bezout) == (-1, 0, 27)
    assert generic.dimension_at_infinity == 1 and generic.at_infinity is None
    square = bezout.solve(bezout.interpolation(network, x, [1, 2, 3], [2, 8, 18]), (c, a, b))
    assert square.dimension == 1 and square.count is None


def test_sum_of_two_cubes() -> None:
    network = (a * x + b) ** 3 + (c * x + d) ** 3
    system = bezout.interpolation(network, x, [0, 1, 2, 3], [2, 3, 7, -5])
    found = bezout.solve(system, (a, b, c, d))
    assert (found.bezout, found.count, found.distinct, found.real) == (81, 18, 18, 2)
    assert found.dimension_at_infinity == 1


@pytest.mark.parametrize(("N", "W", "k"), [(1, 1, 2), (2, 2, 2), (3, 2, 2), (2, 2, 3), (2, 1, 3)])
def test_critical_points_of_the_square_loss(N: int, W: int, k: int) -> None:
    equations, w = bezout.generic_system([k] * N, W, seed=2)
    loss = sum(p**2 for p in equations)
    found = bezout.solve([loss.diff(v) for v in w], w)
    assert found.count == found.distinct == (2 * k - 1) ** W
    assert found.real % 2 == 1  # the loss is coercive, so that the degree of its gradient is one


# --- sharper counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [(3,), (2, 3), (1, 2, 3), (2, 2, 2, 2)])
def test_dense_systems_have_bezouts_number_by_all_counts(degrees: tuple[int, ...]) -> None:
    equations, w = bezout.generic_system(degrees, len(degrees), seed=0)
    number = math.prod(degrees)
    assert bezout.bezout_number(equations, w) == number
    assert bezout.multihomogeneous_number(equations, [w]) == number
    assert bezout.mixed_volume(equations, w) == number


def test_mixed_volume_in_the_plane_is_a_difference_of_areas() -> None:
    from scipy.spatial import ConvexHull

    rng = np.random.default_rng(1)
    corner = [[0, 0], [1, 0], [0, 1]]
    for _ in range(5):
        supports = [np.vstack([corner, rng.integers(0, 5, size=(4, 2))]) for _ in range(2)]
        p, q = (sp.Poly({tuple(map(int, m)): 1 for m in s}, a, b) for s in supports)
        both = (supports[0][:, None] + supports[1][None]).reshape(-1, 2)
        areas = [ConvexHull(points).volume for points in (both, *supports)]
        assert bezout.mixed_volume([p, q], (a, b)) == round(areas[0] - areas[1] - areas[2])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=3, max_size=3))
def test_mixed_volume_of_boxes_is_a_permanent(sides: list[list[int]]) -> None:
    w = (a, b, c)
    boxes = [sp.prod([v**k + 1 for v, k in zip(w, side, strict=True)]) for side in sides]
    permanent = sum(
        math.prod(sides[i][j] for i, j in enumerate(order))
        for order in itertools.permutations(range(3))
    )
    assert bezout.mixed_volume([sp.expand(p) for p in boxes], w) == permanent
    assert bezout.multihomogeneous_number(boxes, [(v,) for v in w]) == permanent


def test_sparse_systems_attain_the_mixed_volume() -> None:
    system = [3 * a * b + 5 * a - 7 * b + 2, 4 * a * b - 9 * a + b - 5]
    assert bezout.solve(system, (a, b)).count == bezout.mixed_volume(system, (a, b)) == 2
    assert bezout.multihomogeneous_number(system, [(a,), (b,)]) == 2


def test_three_layers_of_counts() -> None:
    system = [*bezout.interpolation(c * (a * x + b) ** 2, x, [1, 2], [2, 7]), a**2 + b**2 - 1]
    w = (c, a, b)
    assert bezout.bezout_number(system, w) == 18
    assert bezout.multihomogeneous_number(system, [(c,), (a, b)]) == 8
    assert bezout.mixed_volume(system, w) == bezout.solve(system, w).count == 4


def test_eigenvectors_by_multihomogeneous_bezout() -> None:
    system = [(2 - t) * a + 3 * b, 5 * a + (7 - t) * b, a + b - 1]
    assert bezout.bezout_number(system, (t, a, b)) == 4
    assert bezout.multihomogeneous_number(system, [(t,), (a, b)]) == 2
    assert bezout.solve(system, (t, a, b)).count == 2


# --- random systems ------------------------------------------------------------------------------


def test_draws_repeat_and_have_no_zero_coefficient() -> None:
    one, w = bezout.generic_system((2, 3), 2, seed=4)
    assert one == bezout.generic_system((2, 3), 2, seed=4)[0]
    assert one != bezout.generic_system((2, 3), 2, seed=5)[0]
    assert [len(p.terms()) for p in one] == [6, 10] and [str(v) for v in w] == ["w1", "w2"]
    assert all(1 <= abs(k) <= 9 for p in one for k in p.coeffs())


def test_kostlan_variances() -> None:
    draws = [bezout.kostlan_system((2,), 2, seed=seed)[0][0] for seed in range(400)]
    for monomial, variance in ((a**2, 1), (a * b, 2), (a, 2), (sp.Integer(1), 1)):
        exponents = sp.Poly(monomial, a, b).monoms()[0]
        values = np.array([float(p.nth(*exponents)) for p in draws]) / 1000
        assert abs((values**2).mean() / variance - 1) < 0.3  # standard error 0.07


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equations", "error", "why"),
    [
        ([0.5 * a - b, a], TypeError, r"equations\[0\] must have exact coefficients.*Rational"),
        ([a, sp.sqrt(2) * b], ValueError, r"equations\[1\] must have rational coefficients"),
        ([a - sp.I, b], ValueError, "rational coefficients"),
        ([sp.exp(a), b], ValueError, "must be a polynomial.*best_polynomial"),
        ([sp.Max(0, a), b], ValueError, "must be a polynomial"),
        ([1 / a, b], ValueError, "must be a polynomial"),
        ([a * x - 1, b], ValueError, r"no symbols but the variables, got \['x'\].*interpolation"),
        ([a - a, b], ValueError, "is zero for all values"),
        ([], TypeError, "one or more"),
        (a * b, TypeError, "must be a sequence"),
        ([a, sp.true], TypeError, "must be a SymPy expression"),
    ],
)
def test_refused_equations(equations: object, error: type, why: str) -> None:
    with pytest.raises(error, match=why):
        bezout.solve(equations, (a, b))


@pytest.mark.parametrize("variables", [(), (a, a), (a, 2), ("a", "b")])
def test_refused_variables(variables: tuple) -> None:
    with pytest.raises(TypeError, match="variables must be different SymPy symbols"):
        bezout.solve([a * b - 1], variables)


def test_square_systems_are_asked_for() -> None:
    system = [a * b - 1]
    for call in (
        lambda: bezout.bezout_number(system, (a, b)),
        lambda: bezout.mixed_volume(system, (a, b)),
        lambda: bezout.multihomogeneous_number(system, [(a,), (b,)]),
    ):
        with pytest.raises(ValueError, match=r"1 equations in 2 unknowns: solve\(...\).dimension"):
            call()


def test_too_large_systems_are_refused_at_once() -> None:
    equations, w = bezout.generic_system((3, 3, 3, 3, 3), 5, seed=0)
    with pytest.raises(ValueError, match="limit = 100, got 243: .*HomotopyContinuation"):
        bezout.solve(equations, w)
    many = sp.symbols("w:9")
    with pytest.raises(ValueError, match="at most 8 .*, got 9: take fewer weights"):
        bezout.solve([sum(many) - 1], many)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        bezout.solve([a - 1], (a,), limit=0)


def test_refused_data_and_draws() -> None:
    with pytest.raises(TypeError, match=r"points\[1\] must be exact, got the float 0.1"):
        bezout.interpolation(a * x, x, [1, 0.1], [1, 2])
    with pytest.raises(TypeError, match=r"targets\[0\] must be a rational number"):
        bezout.interpolation(a * x, x, [1], [sp.pi])
    with pytest.raises(ValueError, match="same length, got 2 and 1"):
        bezout.interpolation(a * x, x, [1, 2], [1])
    assert bezout.interpolation(a * x, x, [Fraction(1, 3)], [2]) == (a / 3 - 2,)
    with pytest.raises(ValueError, match=r"degrees\[0\] must be at least 1"):
        bezout.generic_system([0], 1, seed=0)
    with pytest.raises(ValueError, match="num_variables"):
        bezout.generic_system([2], 0, seed=0)
    with pytest.raises(ValueError, match="scale"):
        bezout.kostlan_system([2], 1, seed=0, scale=0)


def test_results_are_frozen() -> None:
    found = bezout.solve([sp.Eq(a**2, 2)], (a,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.count = 3
    assert found.real == 2
