"""Networks built weight by weight: a shallow one for a polynomial, a tree of them for a tree of
polynomials (PNAS 2020, Theorems 2 and 3).

Read a unit as a function of its weights, g(a) = sigma(h a . x + b). Its derivatives at a = 0 are
``h^j sigma^(j)(b) x^alpha`` with j = |alpha|: each monomial of x is a derivative of g. So a
polynomial p is a combination of derivatives of g, and a formula that replaces derivatives by
differences of values of g makes it a combination of units. With as many units as monomials there
is one such formula for every polynomial if and only if the nodes a_i determine a polynomial of
degree k by its values. The principal lattice does: whole numbers m >= 0 with |m| <= k (Nicolaides
1972; Chung & Yao 1977). The formulas are rational and are computed exactly.

All weights are computed in arbitrary precision, and rounded once, to the dtype of the points, when
a network is evaluated on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from typing import Any

import mpmath
import torch
from mpmath import mpf
from sympy import QQ
from sympy.polys.matrices import DomainMatrix
from sympy.polys.rings import ring
from torch import Tensor

from companion import _checks
from companion.approximation.compositional import Compositional, Graph, evaluate
from companion.approximation.polynomials import Polynomial, exponents

Box = Sequence[tuple[float, float]]

_FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any]]] = {
    "softplus": (
        lambda z: torch.logaddexp(z, torch.zeros_like(z)),
        lambda z: mpmath.log1p(mpmath.exp(z)),
    ),
    "sigmoid": (torch.sigmoid, lambda z: 1 / (1 + mpmath.exp(-z))),
    "tanh": (torch.tanh, mpmath.tanh),
    "gaussian": (lambda z: torch.exp(-z * z), lambda z: mpmath.exp(-z * z)),
    "sin": (torch.sin, mpmath.sin),
    "exp": (torch.exp, mpmath.exp),
}

ACTIVATIONS = tuple(_FUNCTIONS)
"""Names of the activations: infinitely differentiable and not polynomials."""


@dataclass(frozen=True)
class RidgeNetwork:
    """A network with one hidden layer, ``sum_i outer[i] * sigma(inner[i] . x + biases[i])``.

    Args:
        activation: One of ``ACTIVATIONS``.
        inner: The weights of each unit, (r, n) mpmath numbers.
        biases: One mpmath number per unit, (r,).
        outer: One mpmath number per unit, (r,).

    Source: PNAS 2020, section 2.B, the shallow network of Fig. 1, with the last layer linear.
    """

    activation: str
    inner: tuple[tuple[mpf, ...], ...]
    biases: tuple[mpf, ...]
    outer: tuple[mpf, ...]

    @property
    def num_units(self) -> int:
        """Number of units r."""
        return len(self.outer)

    @property
    def num_vars(self) -> int:
        """Number of variables n."""
        return len(self.inner[0])

    @property
    def largest_weight(self) -> float:
        """The largest absolute value of an outer weight."""
        return float(max(abs(c) for c in self.outer))

    @property
    def product_norm(self) -> float:
        """rho, the product of the Frobenius norms of the two layers.

        Biases count as the weights of a constant input, as in PNAS 2020, section 2.B.
        """
        first = mpmath.norm([*(a for row in self.inner for a in row), *self.biases])
        return float(first * mpmath.norm(self.outer))

    def __call__(self, *x: Any) -> Any:
        """Return the value at x_1, ..., x_n.

        Tensors are taken elementwise, with weights rounded to their dtype. Any other numbers are
        evaluated by mpmath at its working precision (``with mpmath.workdps(60): ...``).

        Raises:
            ValueError: if the number of arguments is not the number of variables.
        """
        if len(x) != self.num_vars:
            raise ValueError(f"x must be {self.num_vars} values, got {len(x)}.")
        if isinstance(x[0], Tensor):
            return self.hidden(torch.stack(x, dim=-1)) @ self._tensors[2].to(x[0])
        sigma = _FUNCTIONS[self.activation][1]
        units = (
            c * sigma(mpmath.fdot(a, x) + b)
            for a, b, c in zip(self.inner, self.biases, self.outer, strict=True)
        )
        return mpmath.fsum(units)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the values of the units, (N, r), at points x (N, n)."""
        inner, biases, _ = (weights.to(x) for weights in self._tensors)
        return _FUNCTIONS[self.activation][0](x @ inner.T + biases)

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        rounded = (
            [[float(a) for a in row] for row in self.inner],
            [float(b) for b in self.biases],
            [float(c) for c in self.outer],
        )
        return tuple(torch.tensor(weights, dtype=torch.float64) for weights in rounded)


def ridge_network(
    p: Polynomial,
    *,
    h: float,
    activation: str = "softplus",
    bias: float | mpf | str = "flat",
    degree: int | None = None,
    box: Box | None = None,
    digits: int = 50,
) -> RidgeNetwork:
    """Build the network of Theorem 2, with exactly C(n + k, k) units, for a polynomial.

    The units are ``sigma(h a_i . u + b)`` with one bias b and a_i on the centred principal
    lattice, where u is x moved and scaled from ``box`` to [-1, 1]^n; this is part of the weights.
    On the box the error is O(h), and O(h^2) with the flat bias; the outer weights grow like h^-k.

    Args:
        p: A polynomial in n variables with integer, float or Fraction coefficients.
        h: Size of the inner weights, greater than 0.
        activation: One of ``ACTIVATIONS``.
        bias: b; sigma and its first k derivatives must not vanish there. "flat" chooses it by
            ``flat_bias``.
        degree: k, at least the degree of p; that degree by default.
        box: Interval of each variable, [-1, 1] by default.
        digits: Decimal digits of the weights.

    Raises:
        TypeError, ValueError: if an argument is out of range, or a derivative vanishes at b.

    Source: PNAS 2020, Theorem 2; Mhaskar 1996, who replaces derivatives by divided differences.

    >>> net = ridge_network(Polynomial(((1, 1),), (1,)), h=1e-3)
    >>> net.num_units, f"{float(net(0.5, -0.5)):.6f}"
    (6, '-0.250000')
    """
    q, middle, half = _on_the_cube(p, box)
    k = _degree(p, degree)
    step = Fraction(_checks.positive("h", h))
    b, jet = _bias_and_derivatives(activation, bias, k, digits)
    formulas, nodes = stencils(q, degree=k), lattice(p.num_vars, k)
    with mpmath.workdps(digits):
        scale = [1 / (_number(step**j) * jet[j]) for j in range(k + 1)]
        outer = tuple(
            mpmath.fdot(scale, map(_number, column)) for column in zip(*formulas, strict=True)
        )
        # h a . u + b with u = (x - middle) / half
        slopes = [[step * a / w for a, w in zip(node, half, strict=True)] for node in nodes]
        inner = tuple(tuple(map(_number, row)) for row in slopes)
        biases = tuple(
            b - _number(sum(a * m for a, m in zip(row, middle, strict=True))) for row in slopes
        )
    return RidgeNetwork(activation, inner, biases, outer)


@lru_cache(maxsize=None, typed=True)
def lattice(num_vars: int, degree: int) -> tuple[tuple[Fraction, ...], ...]:
    """Return the principal lattice, whole numbers m >= 0 with |m| <= k, moved to mean zero.

    C(n + k, k) nodes in the order of ``exponents``. A polynomial of degree k in n variables
    is determined by its values there.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    Source: Nicolaides 1972; Chung & Yao 1977.

    >>> [[str(a) for a in node] for node in lattice(1, 2)]
    [['-1'], ['0'], ['1']]
    """
    centre = Fraction(degree, num_vars + 1)
    return tuple(tuple(m - centre for m in row) for row in exponents(num_vars, degree))


def stencils(p: Polynomial, *, degree: int | None = None) -> tuple[tuple[Fraction, ...], ...]:
    """Return one difference formula on ``lattice(n, k)`` for each degree j = 0, ..., k.

    Applied to the values of a function g, row j is the sum of ``p_alpha d^alpha g(0)`` over
    |alpha| = j, exactly so if g is a polynomial of degree at most k.

    Args:
        p: A polynomial in n variables with integer, float or Fraction coefficients p_alpha.
        degree: k, at least the degree of p; that degree by default.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> product = Polynomial(((1, 1),), (1,))  # on (0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)
    >>> [int(w) for w in stencils(product)[2]]
    [1, -1, -1, 0, 1, 0]
    """
    exact, k = _rational(p), _degree(p, degree)
    position = {row: i for i, row in enumerate(exponents(p.num_vars, k))}
    inverse = _inverse(p.num_vars, k)
    formulas = [[Fraction(0)] * len(position) for _ in range(k + 1)]
    for row, c in zip(exact.powers, exact.coefficients, strict=True):
        if c:
            demand = c * math.prod(map(math.factorial, row))
            formula = formulas[sum(row)]
            for i, weights in enumerate(inverse):
                formula[i] += weights[position[row]] * demand
    return tuple(map(tuple, formulas))


@lru_cache(maxsize=None, typed=True)
def derivatives(
    activation: str, at: float | mpf, order: int, *, digits: int = 50
) -> tuple[mpf, ...]:
    """Return sigma, sigma', ..., sigma^(order) at a point, to about ``digits`` decimal digits.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> [float(d) for d in derivatives("softplus", 0, 2)]
    [0.6931471805599453, 0.5, 0.25]
    """
    _checks.choice("activation", activation, ACTIVATIONS)
    order = _checks.integer("order", order, at_least=0)
    # Difference quotients lose a few digits to the factor j! and the size of the derivative.
    with mpmath.workdps(_checks.integer("digits", digits, at_least=10) + 10):
        sigma = _FUNCTIONS[activation][1]
        return tuple(mpf(value) for value in mpmath.diffs(sigma, mpf(at), order))


@lru_cache(maxsize=None, typed=True)
def flat_bias(activation: str, degree: int, *, digits: int = 50) -> mpf:
    """Return a point b at which sigma^(k+1) vanishes, but neither sigma nor sigma^(j), j <= k.

    There the first term of the error of ``ridge_network`` vanishes, and the error falls from O(h)
    to O(h^2). Of all such points in [-6, 6], the one with the largest |sigma^(k)(b)| is returned,
    which gives the smallest weights; of two that differ in sign only, the positive one.

    Raises:
        TypeError, ValueError: if an argument is out of range, or there is no such point, as for
            the exponential, which has no zeros, and the sine, whose zeros are those of sigma^(k-1).

    >>> flat_bias("softplus", 2) == 0, float(flat_bias("tanh", 2))
    (True, 0.6584789484624084)
    """
    _checks.choice("activation", activation, ACTIVATIONS)
    k = _checks.integer("degree", degree, at_least=0)
    found = []
    for low, high in _sign_changes(activation, k + 1):
        with mpmath.workdps(digits + 10):
            b = mpmath.findroot(
                lambda z: mpmath.diff(_FUNCTIONS[activation][1], z, k + 1),
                (low, high), solver="anderson", tol=mpf(10) ** -(2 * digits),
            )  # fmt: skip
            b = mpf(0) if abs(b) < mpf(10) ** -digits else b
        jet = derivatives(activation, b, k, digits=digits)
        if not any(_vanishes(value, digits) for value in jet):
            found.append((float(abs(jet[k])), b))
    if not found:
        raise ValueError(
            f"activation {activation!r} has no flat bias for degree {k} in [-6, 6]: "
            "give bias a number."
        )
    most = max(size for size, _ in found)
    return max(b for size, b in found if size > most * (1 - 1e-9))


def quadratic_network(
    p: Polynomial,
    *,
    h: float,
    activation: str = "softplus",
    bias: float | mpf | str = "flat",
    digits: int = 50,
) -> RidgeNetwork:
    """Build a network with n + 2 units, fitted to one generic quadratic, instead of C(n + 2, 2).

    With units ``sigma(h w_i . x + b)`` and outer weights ``2 g_i / (h^2 sigma''(b))`` the terms
    up to degree 2 are those of p = x^T A x + ... if g_i, g_i w_i and g_i w_i w_i^T have the right
    sums; that of g_i w_i w_i^T is A. One unit has w = 0 and makes the first sum right, one has a
    fixed w = v, and n lie along the eigenvectors of A - g v v^T, the matrix that is left, with the
    lengths that make the second sum right.

    Args:
        p: A polynomial of degree 2 in n variables.
        h, activation, bias, digits: As for ``ridge_network``.

    Raises:
        TypeError, ValueError: if an argument is out of range, or p is not generic: an eigenvalue
            or a component of the linear part vanishes in the construction.

    >>> p = Polynomial(((2, 0), (1, 1), (0, 1)), (1, -3, 2))
    >>> quadratic_network(p, h=1e-3).num_units
    4
    """
    if p.degree != 2:
        raise ValueError(f"p must have degree 2, got {p.degree}.")
    step = Fraction(_checks.positive("h", h))
    b, jet = _bias_and_derivatives(activation, bias, 2, digits)
    with mpmath.workdps(digits):
        constant, linear, matrix = _rational(p).quadratic_form()
        constant, linear = _number(constant), mpmath.matrix([_number(g) for g in linear])
        matrix = mpmath.matrix([[_number(q) for q in row] for row in matrix])
        t = _number(step)
        eigenvalues, vectors = mpmath.eigsy(matrix)
        size = 2 * mpmath.fsum(abs(value) for value in eigenvalues)
        v = matrix * (vectors * mpmath.ones(p.num_vars, 1)) / size
        eigenvalues, vectors = mpmath.eigsy(matrix - size * v * v.T)
        rest = vectors.T * (linear * (t * jet[2] / (2 * jet[1])) - size * v)
        tiny = mpf(10) ** (-digits // 2) * size
        if any(abs(value) < tiny for value in [*eigenvalues, *rest]):
            raise ValueError("p must be a generic quadratic, got one with a vanishing component.")
        lengths = [e / y for e, y in zip(eigenvalues, rest, strict=True)]
        inner = [list(length * vectors.column(i)) for i, length in enumerate(lengths)]
        inner += [list(v), [mpf(0)] * p.num_vars]
        g = [y * y / e for e, y in zip(eigenvalues, rest, strict=True)] + [size]
        g.append(constant * t**2 * jet[2] / (2 * jet[0]) - mpmath.fsum(g))
        outer = tuple(2 * value / (t**2 * jet[2]) for value in g)
        inner = tuple(tuple(t * w for w in row) for row in inner)
    return RidgeNetwork(activation, inner, (b,) * len(outer), outer)


def tree_network(
    graph: Graph,
    polynomials: Sequence[Polynomial],
    x: Tensor,
    *,
    h: float,
    activation: str = "softplus",
    bias: float | mpf | str = "flat",
    degree: int | None = None,
    digits: int = 50,
) -> Compositional:
    """Build the network of Theorem 3: each node of a graph becomes a network of Theorem 2.

    The box of a node is the range of what it reads, measured on the points x with the exact
    polynomials. The boxes are part of the weights and cost no units.

    Args:
        graph: Which value each node reads.
        polynomials: One per node, in as many variables as the node reads.
        x: Points (N, n) that fill the domain, its corners among them.
        h, activation, bias, digits: As for ``ridge_network``.
        degree: k of every node; that of its polynomial by default.

    Returns:
        A function of points whose nodes are RidgeNetworks. For a binary tree and degree k
        it has (n - 1) C(k + 2, 2) units.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    Source: PNAS 2020, Theorem 3.

    >>> x = cube_points(4, 100, seed=0)
    >>> product = Polynomial(((1, 1),), (1,))
    >>> net = tree_network(Graph.tree(4), [product] * 3, x, h=1e-3)
    >>> sum(node.num_units for node in net.functions)
    18
    """
    values = Compositional(graph, tuple(polynomials)).values(_checks.finite("x", x))
    ranges = [(float(v.min()), float(v.max())) for v in values]
    nodes = tuple(
        ridge_network(
            p, h=h, activation=activation, bias=bias, degree=degree, digits=digits,
            box=[ranges[parent] for parent in parents],
        )
        for p, parents in zip(polynomials, graph.nodes, strict=True)
    )  # fmt: skip
    return Compositional(graph, nodes)


@dataclass(frozen=True)
class ErrorBudget:
    """How the errors of the nodes of a compositional function reach its output.

    Attributes:
        error: |network - target|, (N,).
        node_errors: |network's node - target's node|, both reading the network's values;
            (N, num_nodes).
        budget: Sum over the nodes of their error times |df / dv_j| of the target, (N,). The error
            is at most the budget, up to terms of second order in the errors.
    """

    error: Tensor
    node_errors: Tensor
    budget: Tensor


def error_budget(network: Compositional, target: Compositional, x: Tensor) -> ErrorBudget:
    """Compare a network with the compositional target on the same graph at points x (N, n).

    Raises:
        TypeError, ValueError: if the graphs differ, or x is not a tensor of shape (N, n).
    """
    if network.graph != target.graph:
        raise ValueError("network and target must have the same graph, got two different ones.")
    values = network.values(x)
    inputs, nodes = values[: network.graph.num_inputs], values[network.graph.num_inputs :]
    exact = [
        function(*(values[parent] for parent in parents))
        for function, parents in zip(target.functions, target.graph.nodes, strict=True)
    ]
    node_errors = (torch.stack(nodes, dim=1) - torch.stack(exact, dim=1)).abs()
    points = torch.stack(inputs, dim=1)
    return ErrorBudget(
        error=(nodes[-1] - target(points)).abs(),
        node_errors=node_errors,
        budget=(target.sensitivities(points) * node_errors).sum(dim=1),
    )


def relative_error(
    network: RidgeNetwork | Compositional,
    target: Polynomial | Compositional,
    x: Tensor,
    *,
    digits: int | None = None,
) -> float:
    """Return the largest |network - target| over points x (N, n), divided by the target's range.

    The range is the largest minus the smallest value of the target on the same points. Evaluated
    in the dtype of x, or with ``digits`` decimal digits by mpmath, with x taken as exact.

    Raises:
        TypeError, ValueError: if x is not a floating-point tensor with as many columns as the
            functions have variables, or the target is constant on x.
    """
    _checks.floating("x", x)
    if digits is None:
        exact, values = _call(target, x.unbind(-1)), _call(network, x.unbind(-1))
        error, low, high = (values - exact).abs().max(), exact.min(), exact.max()
    else:
        with mpmath.workdps(_checks.integer("digits", digits, at_least=10)):
            points = [[mpf(value) for value in point] for point in x.tolist()]
            exact = [_call(target, point) for point in points]
            error = max(
                abs(_call(network, point) - y) for point, y in zip(points, exact, strict=True)
            )
            low, high = min(exact), max(exact)
    if high == low:
        raise ValueError("target must take more than one value on x, got a constant.")
    return float(error / (high - low))


def worst_error(network: RidgeNetwork, degree: int, x: Tensor) -> float:
    """Return the largest relative error over all of P_k^n if only the outer weights may change.

    The first layer is that of the network; each polynomial gets the outer weights that are best
    for it. The error is the root mean square over the points x (N, n), relative to that of
    the polynomial: the sine of the largest angle between P_k^n and the span of the units. With
    fewer units than monomials it is 1, since some polynomial is orthogonal to all of them.

    Raises:
        TypeError, ValueError: if an argument is out of range, or there are fewer points than units
            or monomials.
    """
    rows = exponents(network.num_vars, degree)
    hidden = network.hidden(_checks.finite("x", x))
    if len(x) < max(len(rows), network.num_units):
        raise ValueError(
            f"x must hold at least {max(len(rows), network.num_units)} points, got {len(x)}."
        )
    monomials = torch.stack([(x ** x.new_tensor(row)).prod(dim=1) for row in rows], dim=1)
    q_p, q_s = (torch.linalg.qr(columns)[0] for columns in (monomials, hidden))
    # Twice, so that an angle near machine precision keeps its digits.
    residual = q_p - q_s @ (q_s.T @ q_p)
    residual = residual - q_s @ (q_s.T @ residual)
    return float(torch.linalg.matrix_norm(residual, ord=2))


def cube_points(num_vars: int, count: int, *, seed: int) -> Tensor:
    """Return points of [-1, 1]^n: ``count`` uniform ones, then corners, as (N, n) float64.

    All 2^n corners if there are at most 1024, otherwise 1024 drawn ones.

    Raises:
        TypeError, ValueError: if an argument is out of range.
    """
    n = _checks.integer("num_vars", num_vars, at_least=1)
    count = _checks.integer("count", count, at_least=0)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, at_least=0))
    inside = torch.rand(count, n, generator=generator, dtype=torch.float64)
    if n <= 10:
        bits = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
    else:
        bits = torch.randint(0, 2, (1024, n), generator=generator)
    return torch.cat([2 * inside - 1, 2 * bits.to(torch.float64) - 1])


# --- pieces --------------------------------------------------------------------------------------


@cache
def _inverse(num_vars: int, degree: int) -> tuple[tuple[Fraction, ...], ...]:
    """The inverse of the matrix (a_i^alpha), one row per monomial and one column per node."""
    rows, nodes = exponents(num_vars, degree), lattice(num_vars, degree)
    matrix = [
        [QQ(math.prod(a**e for a, e in zip(node, row, strict=True))) for node in nodes]
        for row in rows
    ]
    inverse = DomainMatrix(matrix, (len(rows), len(rows)), QQ).inv().to_list()
    return tuple(tuple(map(_fraction, row)) for row in inverse)


def _degree(p: Polynomial, degree: int | None) -> int:
    if degree is None:
        return p.degree
    return _checks.integer("degree", degree, at_least=p.degree)


def _rational(p: Polynomial) -> Polynomial:
    """The same polynomial with its coefficients as fractions."""
    for c in p.coefficients:
        if isinstance(c, bool) or not isinstance(c, (int, float, Fraction)):
            raise TypeError(f"p must have integer, float or Fraction coefficients, got {c!r}.")
        if not math.isfinite(c):
            raise ValueError(f"p must have finite coefficients, got {c!r}.")
    return Polynomial(p.powers, tuple(map(Fraction, p.coefficients)))


def _on_the_cube(
    p: Polynomial, box: Box | None
) -> tuple[Polynomial, list[Fraction], list[Fraction]]:
    """p as a polynomial in u = (x - middle) / half, and the middle and half width of the box."""
    exact, n = _rational(p), p.num_vars
    if box is None:
        return exact, [Fraction(0)] * n, [Fraction(1)] * n
    if len(box) != n or any(not low <= high for low, high in box):
        raise ValueError(f"box must hold {n} intervals (low, high), got {list(box)}.")
    ends = [(Fraction(low), Fraction(high)) for low, high in box]
    middle = [(low + high) / 2 for low, high in ends]
    half = [(high - low) / 2 or Fraction(1) for low, high in ends]  # 1 for a value that is constant
    _, *u = ring([f"u{i}" for i in range(n)], QQ)
    arguments = [QQ(m) + QQ(w) * v for m, w, v in zip(middle, half, u, strict=True)]
    moved = Polynomial(exact.powers, tuple(map(QQ, exact.coefficients)))(*arguments)
    terms = {tuple(row): _fraction(c) for row, c in moved.terms()}
    return Polynomial(tuple(terms), tuple(terms.values())), middle, half


def _bias_and_derivatives(
    activation: str, bias: float | mpf | str, degree: int, digits: int
) -> tuple[mpf, tuple[mpf, ...]]:
    """The common bias b, and sigma^(j)(b) for j = 0, ..., k, none of which may vanish."""
    _checks.choice("activation", activation, ACTIVATIONS)
    _checks.integer("digits", digits, at_least=10)
    if isinstance(bias, str):
        _checks.choice("bias", bias, ("flat",))
        b = flat_bias(activation, degree, digits=digits)
    else:
        try:
            with mpmath.workdps(digits):
                b = mpf(bias)
        except TypeError:
            raise TypeError(f"bias must be 'flat' or a number, got {bias!r}.") from None
        if not mpmath.isfinite(b):
            raise ValueError(f"bias must be 'flat' or a finite number, got {bias!r}.")
    jet = derivatives(activation, b, degree, digits=digits)
    for j, value in enumerate(jet):
        if _vanishes(value, digits):
            raise ValueError(
                f"bias must be a point where {activation} and its first {degree} derivatives do "
                f"not vanish, got b = {mpmath.nstr(b, 6)}, where derivative {j} does."
            )
    return b, jet


def _vanishes(value: mpf, digits: int) -> bool:
    """Difference quotients of a function of size 1 return a zero as about 10^-digits."""
    return abs(value) < mpf(10) ** -(digits // 2)


def _sign_changes(activation: str, order: int) -> list[tuple[mpf, mpf]]:
    """Intervals of [-6, 6] on which sigma^(order) changes its sign; 0 is inside one, if at all."""
    with mpmath.workdps(20):
        grid = [mpf(i) / 8 + mpf(1) / 19 for i in range(-49, 49)]
        signs = [mpmath.sign(mpmath.diff(_FUNCTIONS[activation][1], z, order)) for z in grid]
    pairs = zip(grid, grid[1:], signs, signs[1:], strict=False)
    return [(low, high) for low, high, s, t in pairs if s * t < 0]


def _call(function: Any, x: Sequence[Any]) -> Any:
    """The value at x_1, ..., x_n, tensors or numbers, of a network or a target."""
    if isinstance(function, Compositional):
        return evaluate(function.graph, function.functions, x)[-1]
    return function(*x)


def _number(value: Fraction | int) -> mpf:
    """An exact number at mpmath's working precision."""
    value = Fraction(value)
    return mpf(value.numerator) / value.denominator


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.numerator), int(value.denominator))
