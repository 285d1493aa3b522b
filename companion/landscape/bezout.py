"""Polynomial systems f(w; x_n) = y_n counted exactly: Bezout's number and what it counts.

The unknowns are the weights. Everything is exact: Groebner bases over the rationals (SymPy), the
quotient ring QQ[w] / I for the number of solutions with multiplicity, and Hermite's trace form for
the distinct and for the real ones. Source: the slides' "Bezout theorem"; for the algorithms Cox,
Little & O'Shea, Using Algebraic Geometry, chapters 2, 3 and 7.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from sympy import QQ
from sympy.polys.matrices import DomainMatrix

from companion import _checks

__all__ = [
    "MAX_VARIABLES",
    "Solutions",
    "bezout_number",
    "generic_system",
    "interpolation",
    "kostlan_system",
    "mixed_volume",
    "multihomogeneous_number",
    "solve",
    "turn_infinity",
]

MAX_VARIABLES = 8
_LIMIT = 100
_LARGEST = 9  # of the integer coefficients of a generic system

Exponents = tuple[int, ...]
Polynomials = Sequence[sp.Expr | sp.Poly]


@dataclass(frozen=True)
class Solutions:
    """The complex solutions of a polynomial system, counted.

    Attributes:
        variables: The W unknowns.
        degrees: The degrees of the equations in them.
        dimension: Dimension of the set of complex solutions: 0 for finitely many, -1 for none.
        count: Their number with multiplicity, dim QQ[w] / I; None if there are infinitely many.
        dimension_at_infinity: Dimension of the set of solutions at infinity, where only the forms
            of highest degree of the equations count; -1 if there is none.
        basis: Reduced Groebner basis of the system, graded reverse lexicographic order. It is
            (1,) exactly if there is no complex solution (Hilbert's Nullstellensatz).
    """

    variables: tuple[sp.Symbol, ...]
    degrees: tuple[int, ...]
    dimension: int
    count: int | None
    dimension_at_infinity: int
    basis: tuple[sp.Poly, ...] = field(repr=False)

    @property
    def bezout(self) -> int:
        """The product of the degrees, Bezout's number; ValueError if the system is not square."""
        return _product(self.degrees, self.variables)

    @property
    def at_infinity(self) -> int | None:
        """Solutions at infinity with multiplicity, by Bezout's theorem.

        None if the solutions, those at infinity included, are not isolated, so that the theorem
        does not speak; ValueError if the system is not square.
        """
        number = self.bezout
        if self.count is None or self.dimension_at_infinity > 0:
            return None
        return number - self.count

    @property
    def distinct(self) -> int | None:
        """Number of different complex solutions: the rank of Hermite's trace form; or None."""
        return None if self.count is None else sum(self._inertia)

    @property
    def real(self) -> int | None:
        """Number of different real solutions: the signature of Hermite's trace form; or None."""
        return None if self.count is None else self._inertia[0] - self._inertia[1]

    @cached_property
    def _inertia(self) -> tuple[int, int]:
        return _inertia(_trace_form(self.basis, self.variables)) if self.count else (0, 0)


def solve(
    equations: Polynomials, variables: Sequence[sp.Symbol], *, limit: int = _LIMIT
) -> Solutions:
    """Count the complex solutions of N polynomial equations in W unknowns, exactly.

    The dimension is read off the leading monomials of a Groebner basis, and the number of
    solutions is the number of monomials that no leading monomial divides. Any N and W will do.

    Args:
        equations: Left-hand sides of the equations "= 0", with rational coefficients.
        variables: The unknowns; all other symbols must have been given numbers.
        limit: Refuse systems for which the product of the min(N, W) highest degrees is larger.

    Raises:
        TypeError, ValueError: if an equation is zero, not a polynomial, or holds floats, irrational
            numbers or other symbols; if there are more than MAX_VARIABLES unknowns, or the product
            of the degrees is larger than ``limit``.

    >>> a, b = sp.symbols("a b")
    >>> found = solve([(a + b) ** 2 - 2, (3 * a + b) ** 2 - 5], (a, b))
    >>> found.count, found.distinct, found.real, found.bezout, found.at_infinity
    (4, 4, 4, 4, 0)
    """
    polys, w = _read(equations, variables)
    degrees = tuple(p.total_degree() for p in polys)
    _affordable(degrees, len(w), limit)
    basis = _groebner(polys, w)
    dimension = _dimension(basis)
    top = _groebner([_top_form(p) for p in polys], w)
    return Solutions(
        variables=w,
        degrees=degrees,
        dimension=dimension,
        count=len(_standard_monomials(basis)) if dimension <= 0 else None,
        dimension_at_infinity=max(_dimension(top), 0) - 1,
        basis=basis,
    )


def bezout_number(equations: Polynomials, variables: Sequence[sp.Symbol]) -> int:
    """The product of the degrees of as many equations as unknowns.

    It is the number of complex solutions with multiplicity, those at infinity included, if these
    are isolated, and an upper bound of the number of isolated ones in any case (Bezout).

    Raises:
        TypeError, ValueError: as ``solve``, and if the system is not square.

    >>> a, b = sp.symbols("a b")
    >>> bezout_number([a * b - 1, a**2 + b**3], (a, b))
    6
    """
    polys, w = _read(equations, variables)
    return _product([p.total_degree() for p in polys], w)


def multihomogeneous_number(equations: Polynomials, groups: Sequence[Sequence[sp.Symbol]]) -> int:
    """Bezout's number for unknowns in groups, such as the layers of a network.

    The coefficient of t_1^{n_1} ... t_g^{n_g} in prod_i (d_i1 t_1 + ... + d_ig t_g), where d_ij is
    the degree of equation i in group j of n_j unknowns. It bounds the number of isolated complex
    solutions, and one group gives back ``bezout_number``.

    Raises:
        TypeError, ValueError: as ``solve``, and if the system is not square.

    >>> a, b = sp.symbols("a b")
    >>> multihomogeneous_number([a * b - 1, a * b + a + b], [(a,), (b,)])
    2
    """
    groups = [tuple(group) for group in groups]
    polys, w = _read(equations, tuple(itertools.chain.from_iterable(groups)))
    _square(len(polys), len(w))
    t = sp.symbols(f"t:{len(groups)}")
    product = sp.Poly(1, *t)
    for p in polys:
        degrees = [_degree_in(p, group) for group in groups]
        product *= sp.Poly(sum(d * s for d, s in zip(degrees, t, strict=True)), *t)
    return int(product.coeff_monomial([len(group) for group in groups]))


def mixed_volume(equations: Polynomials, variables: Sequence[sp.Symbol]) -> int:
    """Bernstein's number: the mixed volume of the Newton polytopes of W equations in W unknowns.

    It bounds the number of isolated complex solutions with all w_i != 0, with multiplicity, and
    equals it for generic coefficients at the same monomials (Bernstein 1975). Volumes are those of
    convex hulls of integer points in floating point; the sum is an integer and is rounded.

    Raises:
        TypeError, ValueError: as ``solve``, and if the system is not square.

    >>> a, b = sp.symbols("a b")
    >>> mixed_volume([a * b - 1, a * b + a + b + 2], (a, b))
    2
    """
    polys, w = _read(equations, variables)
    _square(len(polys), len(w))
    supports = [np.array(p.monoms(), dtype=float) for p in polys]
    total = 0.0
    for size in range(1, len(w) + 1):
        for chosen in itertools.combinations(supports, size):
            total += (-1) ** (len(w) - size) * _volume(_minkowski_sum(chosen))
    return round(total)


def turn_infinity(
    equations: Polynomials, variables: Sequence[sp.Symbol], *, seed: int
) -> tuple[sp.Poly, ...]:
    """The same system seen from elsewhere: solutions at infinity come to finite places.

    Each f of degree d becomes f^h(1 + c . w, w), where f^h(w_0, w) = w_0^d f(w / w_0) and c holds
    random integers: a projective change of coordinates. Solutions with w_0 = 1 + c . w = 0 are
    those that were at infinity, and for all but special c none is at infinity now
    (``solve(...).dimension_at_infinity`` tells).

    Raises:
        TypeError, ValueError: as ``solve``.

    >>> a, b = sp.symbols("a b")
    >>> parallel = [a + b - 1, a + b - 2]
    >>> solve(parallel, (a, b)).count, solve(turn_infinity(parallel, (a, b), seed=0), (a, b)).count
    (0, 1)
    """
    polys, w = _read(equations, variables)
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    c = rng.integers(100, 1000, size=len(w))  # large: no simple solution on the new horizon
    horizon = sp.Poly(1 + sum(int(k) * v for k, v in zip(c, w, strict=True)), *w, domain=QQ)
    turned = []
    for p in polys:
        degree = p.total_degree()
        terms = (_monomial(m, k, w) * horizon ** (degree - sum(m)) for m, k in p.terms())
        turned.append(sum(terms, sp.Poly(0, *w, domain=QQ)))
    return tuple(turned)


def interpolation(
    f: sp.Expr, x: sp.Symbol, points: Sequence[Any], targets: Sequence[Any]
) -> tuple[sp.Expr, ...]:
    """The N equations f(w; x_n) - y_n = 0 that the weights of a network f must satisfy.

    ``points`` and ``targets`` hold N rational numbers each (int, Fraction, sp.Rational).

    Raises:
        TypeError, ValueError: if a number is a float or not rational, or the lengths differ.

    >>> w, x = sp.symbols("w x")
    >>> interpolation(w**2 * x, x, [2, 3], [1, 5])
    (2*w**2 - 1, 3*w**2 - 5)
    """
    if len(points) != len(targets):
        raise ValueError(
            f"points and targets must have the same length, got {len(points)} and {len(targets)}."
        )
    xs = [_rational(f"points[{n}]", value) for n, value in enumerate(points)]
    ys = [_rational(f"targets[{n}]", value) for n, value in enumerate(targets)]
    f = sp.sympify(f)
    return tuple(f.subs(x, at) - y for at, y in zip(xs, ys, strict=True))


def generic_system(
    degrees: Sequence[int], num_variables: int, *, seed: int
) -> tuple[tuple[sp.Poly, ...], tuple[sp.Symbol, ...]]:
    """N dense polynomials in W unknowns with random nonzero integer coefficients in -9 .. 9.

    Returns the equations and the unknowns w1, ..., wW. "Generic" is a property of all systems but
    those in a set of measure zero; that a drawn one has it is to be checked.

    Raises:
        TypeError, ValueError: if a degree or ``num_variables`` is not an integer >= 1.

    >>> equations, w = generic_system([2, 3], 2, seed=0)
    >>> solve(equations, w).count
    6
    """

    def draw(rng: np.random.Generator, exponents: Exponents, degree: int) -> int:
        return int(rng.integers(1, _LARGEST + 1)) * int(rng.choice([-1, 1]))

    return _draw_system(degrees, num_variables, seed, draw)


def kostlan_system(
    degrees: Sequence[int], num_variables: int, *, seed: int, scale: int = 1000
) -> tuple[tuple[sp.Poly, ...], tuple[sp.Symbol, ...]]:
    """N random polynomials whose mean number of real solutions is the root of Bezout's number.

    The coefficient of w^m is Gaussian with variance d! / (m_1! ... m_W! (d - |m|)!), which no
    rotation of projective space changes (Shub & Smale 1993); it is multiplied by ``scale`` and
    rounded to an integer.

    Raises:
        TypeError, ValueError: as ``generic_system``, and if ``scale`` is not an integer >= 1.

    >>> equations, w = kostlan_system([2, 2], 2, seed=0)
    >>> solve(equations, w).count
    4
    """
    scale = _checks.integer("scale", scale, at_least=1)

    def draw(rng: np.random.Generator, exponents: Exponents, degree: int) -> int:
        parts = (*exponents, degree - sum(exponents))
        variance = math.factorial(degree) / math.prod(map(math.factorial, parts))
        return round(scale * math.sqrt(variance) * rng.standard_normal())

    return _draw_system(degrees, num_variables, seed, draw)


# --- Groebner bases and the quotient ring --------------------------------------------------------


def _groebner(polys: Sequence[sp.Poly], w: tuple[sp.Symbol, ...]) -> tuple[sp.Poly, ...]:
    found = sp.groebner([p.as_expr() for p in polys], *w, order="grevlex", domain=QQ)
    return tuple(found.polys)


def _leading_monomials(basis: Sequence[sp.Poly]) -> list[Exponents]:
    return [p.monoms(order="grevlex")[0] for p in basis]


def _dimension(basis: Sequence[sp.Poly]) -> int:
    """Most unknowns of which no leading monomial is made; -1 if 1 is a leading monomial."""
    made_of = [{i for i, e in enumerate(m) if e} for m in _leading_monomials(basis)]
    unknowns = range(len(basis[0].gens))
    for size in reversed(range(len(unknowns) + 1)):
        for free in itertools.combinations(unknowns, size):
            if not any(used <= set(free) for used in made_of):
                return size
    return -1


def _standard_monomials(
    basis: Sequence[sp.Poly],
) -> dict[Exponents, tuple[Exponents, int] | None]:
    """Monomials that no leading monomial divides: a basis of the quotient ring if finitely many.

    Each comes with the monomial and the unknown whose product it is, earlier ones first.
    """
    leading = _leading_monomials(basis)
    one = (0,) * len(basis[0].gens)
    if one in leading:
        return {}
    found: dict[Exponents, tuple[Exponents, int] | None] = {one: None}
    queue = [one]
    for monomial in queue:  # grows while it is read
        for i in range(len(one)):
            larger = _raised(monomial, i)
            if larger not in found and not any(_divides(m, larger) for m in leading):
                found[larger] = monomial, i
                queue.append(larger)
    return found


def _trace_form(basis: Sequence[sp.Poly], w: tuple[sp.Symbol, ...]) -> list[list[Any]]:
    """Hermite's symmetric matrix Tr(b_i b_j) of rationals, (D, D), over the standard monomials b.

    The trace is that of the multiplication by b_i b_j in the quotient ring.
    """
    standard = _standard_monomials(basis)
    index = {m: j for j, m in enumerate(standard)}
    ring = sp.ring(w, QQ, "grevlex")[0]
    divisors = [ring.from_expr(p.as_expr()) for p in basis]
    size = len(index)
    by_unknown = []
    for i in range(len(w)):
        columns: dict[int, dict[int, Any]] = {}
        for monomial, j in index.items():
            product = ring({_raised(monomial, i): QQ(1)}).rem(divisors)
            for m, coefficient in product.items():
                columns.setdefault(index[m], {})[j] = coefficient
        by_unknown.append(DomainMatrix(columns, (size, size), QQ))
    times = {next(iter(index)): DomainMatrix.eye(size, QQ)}  # multiplication by each monomial
    for monomial, origin in standard.items():
        if origin is not None:
            times[monomial] = by_unknown[origin[1]] * times[origin[0]]
    traces = [sum((m[j, j].element for j in range(size)), QQ(0)) for m in times.values()]
    trace = DomainMatrix([traces], (1, size), QQ).to_sparse()
    rows = [trace * m for m in times.values()]
    return [[row[0, j].element for j in range(size)] for row in rows]


def _inertia(matrix: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Numbers of positive and negative squares of a symmetric rational matrix (Lagrange)."""
    a = [list(row) for row in matrix]
    left, signs = set(range(len(a))), []
    while left:
        pivot = next((i for i in sorted(left) if a[i][i]), None)
        if pivot is None:
            pair = next(((i, j) for i in left for j in left if a[i][j]), None)
            if pair is None:
                break
            pivot, other = pair  # a[i][i] = a[j][j] = 0: adding row and column j to i helps
            for k in left:
                a[pivot][k] += a[other][k]
            for k in left:
                a[k][pivot] += a[k][other]
        left.remove(pivot)
        signs.append(a[pivot][pivot] > 0)
        for i in left:
            factor = a[i][pivot] / a[pivot][pivot]
            if factor:
                for j in left:
                    a[i][j] -= factor * a[pivot][j]
    return signs.count(True), signs.count(False)


# --- small algebra -------------------------------------------------------------------------------


def _raised(monomial: Exponents, i: int) -> Exponents:
    return (*monomial[:i], monomial[i] + 1, *monomial[i + 1 :])


def _divides(monomial: Exponents, other: Exponents) -> bool:
    return all(a <= b for a, b in zip(monomial, other, strict=True))


def _monomial(exponents: Exponents, coefficient: Any, w: tuple[sp.Symbol, ...]) -> sp.Poly:
    return sp.Poly({exponents: coefficient}, *w, domain=QQ)


def _top_form(p: sp.Poly) -> sp.Poly:
    degree = p.total_degree()
    return sp.Poly({m: c for m, c in p.terms() if sum(m) == degree}, *p.gens, domain=QQ)


def _degree_in(p: sp.Poly, group: Sequence[sp.Symbol]) -> int:
    where = [p.gens.index(v) for v in group]
    return max(sum(m[i] for i in where) for m in p.monoms())


def _minkowski_sum(supports: Sequence[np.ndarray]) -> np.ndarray:
    total = supports[0]
    for support in supports[1:]:
        total = np.unique((total[:, None] + support[None]).reshape(-1, total.shape[1]), axis=0)
    return total


def _volume(points: np.ndarray) -> float:
    """Volume of the convex hull of points (M, W); 0 if they lie in a hyperplane."""
    if np.linalg.matrix_rank(points - points[0]) < points.shape[1]:
        return 0.0
    if points.shape[1] == 1:
        return float(np.ptp(points))
    from scipy.spatial import ConvexHull

    return float(ConvexHull(points).volume)


def _draw_system(
    degrees: Sequence[int],
    num_variables: int,
    seed: int,
    draw: Callable[[np.random.Generator, Exponents, int], int],
) -> tuple[tuple[sp.Poly, ...], tuple[sp.Symbol, ...]]:
    degrees = _checks.integers("degrees", degrees, at_least=1)
    size = _checks.integer("num_variables", num_variables, at_least=1)
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    w = sp.symbols(f"w1:{size + 1}")
    equations = []
    for degree in degrees:
        exponents = itertools.product(range(degree + 1), repeat=size)
        terms = {m: draw(rng, m, degree) for m in exponents if sum(m) <= degree}
        equations.append(sp.Poly(terms, *w, domain=QQ))
    return tuple(equations), w


# --- what is refused -----------------------------------------------------------------------------


def _read(
    equations: Polynomials, variables: Sequence[sp.Symbol]
) -> tuple[list[sp.Poly], tuple[sp.Symbol, ...]]:
    w = tuple(variables)
    wrong = [v for v in w if not isinstance(v, sp.Symbol)]
    if not w or wrong or len(set(w)) < len(w):
        raise TypeError(f"variables must be different SymPy symbols, one or more, got {w!r}.")
    if isinstance(equations, (sp.Basic, str)) or len(equations) == 0:
        raise TypeError(f"equations must be a sequence of one or more, got {equations!r}.")
    return [_polynomial(f"equations[{n}]", e, w) for n, e in enumerate(equations)], w


def _polynomial(name: str, equation: Any, w: tuple[sp.Symbol, ...]) -> sp.Poly:
    expr = equation.as_expr() if isinstance(equation, sp.Poly) else sp.sympify(equation)
    if isinstance(expr, sp.Equality):
        expr = expr.lhs - expr.rhs
    if not isinstance(expr, sp.Expr):
        raise TypeError(f"{name} must be a SymPy expression, got {equation!r}.")
    if expr.has(sp.Float):
        raise TypeError(
            f"{name} must have exact coefficients, got floats in {_short(expr)}: "
            "write them as sp.Rational(1, 3) or fractions.Fraction."
        )
    if others := expr.free_symbols - set(w):
        raise ValueError(
            f"{name} must hold no symbols but the variables, got {sorted(map(str, others))}: give "
            "them numbers first, the data with interpolation(f, x, points, targets)."
        )
    try:
        poly = sp.Poly(expr, *w, domain=QQ)
    except sp.CoercionFailed:
        raise ValueError(f"{name} must have rational coefficients, got {_short(expr)}.") from None
    except sp.PolynomialError:
        raise ValueError(
            f"{name} must be a polynomial in the variables, got {_short(expr)}: replace activations"
            " that are not polynomials, the ReLU for example by polynomial_relu.best_polynomial."
        ) from None
    if poly.is_zero:
        raise ValueError(f"{name} is zero for all values of the variables: leave it out.")
    return poly


def _short(expr: sp.Expr) -> str:
    text = str(expr)
    return text if len(text) <= 60 else text[:57] + "..."


def _rational(name: str, value: Any) -> sp.Rational:
    number = sp.sympify(value)
    if isinstance(number, sp.Float):
        raise TypeError(
            f"{name} must be exact, got the float {value!r}: write it as sp.Rational(1, 3) or "
            "fractions.Fraction."
        )
    if not isinstance(number, sp.Rational):
        raise TypeError(f"{name} must be a rational number, got {value!r}.")
    return number


def _square(num_equations: int, num_variables: int) -> None:
    if num_equations != num_variables:
        raise ValueError(
            "the system must have as many equations as unknowns for this number, got "
            f"{num_equations} equations in {num_variables} unknowns: solve(...).dimension and "
            "solve(...).count need no square system."
        )


def _product(degrees: Sequence[int], w: Sequence[sp.Symbol]) -> int:
    _square(len(degrees), len(w))
    return math.prod(degrees)


def _affordable(degrees: Sequence[int], num_variables: int, limit: int) -> None:
    instead = (
        "take fewer weights or a lower degree, or follow the solutions numerically by homotopy "
        "continuation (HomotopyContinuation.jl, PHCpack, Bertini)"
    )
    if num_variables > MAX_VARIABLES:
        raise ValueError(
            f"variables must be at most {MAX_VARIABLES} for a Groebner basis over the rationals, "
            f"got {num_variables}: {instead}."
        )
    number = math.prod(sorted(degrees, reverse=True)[:num_variables])
    if number > _checks.integer("limit", limit, at_least=1):
        raise ValueError(
            f"the product of the degrees must be at most limit = {limit}, got {number}: {instead}; "
            "or raise limit and wait."
        )
