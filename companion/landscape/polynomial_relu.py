"""Univariate polynomials in place of the ReLU: the best ones, and what they do in a network.

Replacing the ReLU by a polynomial p on an interval makes the network a polynomial in its weights,
which is what the slides need for Bezout's theorem ("RELU approximation by univariate polynomial
preserves deep nets properties"). The best p of degree k on [-a, a] has the error a E_k with
k E_k -> 0.2801... / 2 (Bernstein 1914; Varga & Carpenter 1985).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from companion import _checks

__all__ = [
    "BERNSTEIN",
    "Output",
    "PolynomialRelu",
    "best_polynomial",
    "chebyshev_series",
    "degree_in_weights",
    "error_bound",
    "evaluate",
]

BERNSTEIN = 0.2801694990238691  # lim 2m E_2m(|x|) on [-1, 1], Varga & Carpenter 1985
_MAX_DEGREE = 200
_MOST_EXCHANGES = 50


@dataclass(frozen=True, eq=False)
class PolynomialRelu:
    """A polynomial that stands for the ReLU max(0, z) on the interval [-radius, radius].

    Calling it evaluates it on numbers, arrays and tensors of any shape, inside and outside the
    interval.

    Attributes:
        degree: Its degree at most; for an odd degree > 1 the leading coefficient is zero.
        radius: Half the length a of the interval.
        coefficients: (degree + 1,) floats, p(z) = sum_j coefficients[j] T_j(z / radius) with the
            Chebyshev polynomials T_j.
        error: Largest |p(z) - max(0, z)| on the interval.
        lower_bound: No polynomial of this degree has a smaller error (de la Vallee Poussin).
    """

    degree: int
    radius: float
    coefficients: np.ndarray
    error: float
    lower_bound: float

    def __call__(self, z: Any) -> Any:
        return _clenshaw(self.coefficients, z / self.radius)

    def slope(self, z: Any) -> Any:
        """The derivative p'(z)."""
        derivative = np.polynomial.chebyshev.chebder(self.coefficients)
        return _clenshaw(derivative, z / self.radius) / self.radius

    def expression(self, z: sp.Expr, *, denominator: int = 10**6) -> sp.Expr:
        """The polynomial with its monomial coefficients rounded to multiples of 1 / denominator.

        >>> best_polynomial(2).expression(sp.Symbol("z"), denominator=16)
        z**2/2 + z/2 + 1/16
        """
        monomials = np.polynomial.chebyshev.cheb2poly(self.coefficients)
        return sum(
            (
                sp.Rational(round(c / self.radius**j * denominator), denominator) * z**j
                for j, c in enumerate(monomials)
            ),
            sp.Integer(0),
        )


def best_polynomial(degree: int, radius: float = 1.0) -> PolynomialRelu:
    """The polynomial of degree at most ``degree`` nearest to the ReLU on [-radius, radius].

    ReLU(z) = (z + |z|) / 2, so p is z / 2 plus half the best approximation of |z|, which is even:
    Remez' exchange of the points where the error alternates, in z = radius cos(theta). ``error``
    and ``lower_bound`` agree to rounding.

    Raises:
        TypeError, ValueError: if ``degree`` is not an integer in 1 .. 200, ``radius`` not positive.

    >>> p = best_polynomial(2)
    >>> float(round(p.error, 12)), float(round(p(0.0), 12))
    (0.0625, 0.0625)
    """
    degree, radius = _degree(degree), _checks.positive("radius", radius)
    orders = np.arange(0, degree + 1, 2)  # of the even Chebyshev polynomials
    count = len(orders) + 1
    theta = np.linspace(np.pi / 2, 0.0, count)
    sign = (-1.0) ** np.arange(count)
    for _ in range(_MOST_EXCHANGES):
        system = np.column_stack([np.cos(np.outer(theta, orders)), sign])
        *even, level = np.linalg.solve(system, np.cos(theta))
        theta, errors = _alternation(np.array(even), orders, count)
        if np.ptp(np.abs(errors)) <= 1e-13:
            break
    else:
        raise RuntimeError(f"Remez' exchange did not settle in {_MOST_EXCHANGES} rounds.")
    return _from_even(
        np.array(even), degree, radius, np.abs(errors).max(), max(abs(level), _least(errors))
    )


def chebyshev_series(degree: int, radius: float = 1.0) -> PolynomialRelu:
    """The Chebyshev series of the ReLU on [-radius, radius], cut off behind ``degree``.

    |x| = 2 / pi - (4 / pi) sum_j (-1)^j T_2j(x) / (4 j^2 - 1). All terms left out have the same
    sign at x = 0, so that the error is radius / (pi (2 m + 1)) with m = degree // 2: 2.27 times
    that of the best polynomial for large degrees, whose ``lower_bound`` is given.

    Raises:
        TypeError, ValueError: as ``best_polynomial``.

    >>> float(round(chebyshev_series(2).error * np.pi, 12))
    0.333333333333
    """
    degree, radius = _degree(degree), _checks.positive("radius", radius)
    j = np.arange(degree // 2 + 1)
    even = -4 / np.pi * (-1.0) ** j / (4.0 * j**2 - 1)
    even[0] /= 2
    error = 2 / (np.pi * (2 * j[-1] + 1))
    least = 2 * best_polynomial(degree).lower_bound
    return _from_even(even, degree, radius, error, least)


class Output(NamedTuple):
    """What ``evaluate`` returns: f (N,) or (N, C), and the largest |z_k| of each layer (K - 1,)."""

    f: Tensor
    largest: Tensor


def evaluate(
    params: Mapping[str, Tensor], x: Tensor, activation: Callable[[Tensor], Tensor]
) -> Output:
    """The network W_K p(W_{K-1} ... p(W_1 x)) with any activation p, such as a PolynomialRelu.

    Args:
        params: Matrices W1, ..., WK of a fully connected network, as ``networks.MLP`` has them.
        x: Points (N, d).
        activation: Acts entry by entry.

    Raises:
        TypeError, ValueError: if a weight is not a matrix or the shapes do not fit.

    >>> params = {"W1": torch.tensor([[2.0]]), "W2": torch.tensor([[3.0]])}
    >>> evaluate(params, torch.tensor([[1.0], [-1.0]]), torch.relu).f
    tensor([6., 0.])
    """
    _checks.floating("x", x)
    matrices, a, largest = _matrices(params), x, []
    for name, W in matrices.items():  # noqa: N806 (the paper's letter)
        if a.ndim != 2 or a.shape[1] != W.shape[1]:
            raise ValueError(f"{name} needs inputs (N, {W.shape[1]}), got {tuple(a.shape)}.")
        if name != next(iter(matrices)):
            largest.append(a.abs().max())
            a = activation(a)
        a = a @ W.T
    f = a.squeeze(-1) if a.shape[1] == 1 else a
    return Output(f, torch.stack(largest) if largest else x.new_zeros(0))


def error_bound(params: Mapping[str, Tensor], error: float) -> float:
    """Largest |f_p(W; x) - f(W; x)| that an activation with this error can cause.

    It holds while the preactivations of the network with p stay in the interval: the ReLU does not
    expand distances, so a layer turns a largest error delta of its inputs into at most
    ||W_k||_inf (delta + error), where ||W||_inf is the largest sum of |entries| in a row.

    Raises:
        TypeError, ValueError: if a weight is not a matrix or ``error`` is negative.

    >>> params = {"W1": torch.tensor([[2.0]]), "W2": torch.tensor([[3.0]])}
    >>> error_bound(params, 0.25)
    0.75
    """
    error, delta = _checks.positive("error", error, zero=True), 0.0
    for W in list(_matrices(params).values())[1:]:  # noqa: N806 (the paper's letter)
        delta = float(W.abs().sum(dim=1).max()) * (delta + error)
    return delta


def degree_in_weights(K: int, degree: int) -> int:  # noqa: N803 (the paper's letter)
    """Degree in all the weights of K layers with a polynomial of that degree between them.

    Each layer multiplies by one more weight: 1 + s + ... + s^(K-1), while the degree in x is
    s^(K-1).

    Raises:
        TypeError, ValueError: if an argument is not an integer >= 1.

    >>> degree_in_weights(3, 10)
    111
    """
    K = _checks.integer("K", K, at_least=1)  # noqa: N806
    degree = _checks.integer("degree", degree, at_least=1)
    return sum(degree**k for k in range(K))


def _degree(degree: Any) -> int:
    degree = _checks.integer("degree", degree, at_least=1)
    if degree > _MAX_DEGREE:
        raise ValueError(f"degree must be at most {_MAX_DEGREE}, got {degree}.")
    return degree


def _alternation(even: np.ndarray, orders: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` extrema of cos(theta) - sum_j even_j cos(orders_j theta) with changing sign."""

    def error(t: np.ndarray) -> np.ndarray:
        return np.cos(t) - np.cos(np.outer(t, orders)) @ even

    grid = np.linspace(np.pi / 2, 0.0, 40 * count + 1)
    e = error(grid)
    turns = (e[1:-1] - e[:-2]) * (e[2:] - e[1:-1]) <= 0
    found = [0, *(np.flatnonzero(turns) + 1), len(grid) - 1]
    kept: list[int] = []
    for i in found:
        if kept and (e[i] > 0) == (e[kept[-1]] > 0):
            kept[-1] = max(kept[-1], i, key=lambda i: abs(e[i]))
        else:
            kept.append(i)
    while len(kept) > count:
        kept.pop(0 if abs(e[kept[0]]) < abs(e[kept[-1]]) else -1)
    theta = grid[kept]
    inside = (theta > 0) & (theta < np.pi / 2)  # the ends need no refinement: the error is even
    for _ in range(4):  # Newton's method for e' = 0
        t = theta[inside]
        first = -np.sin(t) + np.sin(np.outer(t, orders)) @ (orders * even)
        second = -np.cos(t) + np.cos(np.outer(t, orders)) @ (orders**2 * even)
        theta[inside] = t - first / second
    return theta, error(theta)


def _least(errors: np.ndarray) -> float:
    return float(np.abs(errors).min())


def _from_even(
    even: np.ndarray, degree: int, radius: float, error: float, lower_bound: float
) -> PolynomialRelu:
    """(x + |x|) / 2 with |x| replaced by the even Chebyshev sum, scaled from [-1, 1]."""
    coefficients = np.zeros(degree + 1)
    coefficients[::2] = even / 2
    coefficients[1] += 0.5
    coefficients *= radius
    coefficients.flags.writeable = False
    half = radius / 2
    return PolynomialRelu(
        degree, radius, coefficients, float(half * error), float(half * lower_bound)
    )


def _clenshaw(coefficients: np.ndarray, x: Any) -> Any:
    """sum_j coefficients[j] T_j(x) for numbers, arrays and tensors."""
    last, before = 0.0 * x, 0.0 * x
    for c in coefficients[:0:-1]:
        last, before = 2.0 * x * last - before + float(c), last
    return x * last - before + float(coefficients[0])


def _matrices(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(params, Mapping) or not params:
        raise TypeError(f"params must be a dict of matrices W1, ..., WK, got {params!r:.60}.")
    for name, W in params.items():  # noqa: N806 (the paper's letter)
        if _checks.floating(name, W).ndim != 2:
            raise ValueError(
                f"{name} must be a matrix, got shape {tuple(W.shape)}: give one fully connected "
                "network, not an ensemble or a ConvNet."
            )
    return dict(params)
