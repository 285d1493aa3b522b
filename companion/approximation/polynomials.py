"""Polynomials of total degree at most k in n variables, the spaces P_k^n of PNAS 2020, section 2.

A polynomial is a table of exponents and coefficients. It can be evaluated on anything that
multiplies and adds: tensors, exact fractions, mpmath numbers, elements of a SymPy ring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from companion import _checks

Exponents = tuple[tuple[int, ...], ...]


def num_monomials(num_vars: int, degree: int) -> int:
    """Return dim P_k^n = C(n + k, k), the number of monomials of degree at most k in n variables.

    Source: PNAS 2020, Theorem 2.

    >>> num_monomials(8, 2), num_monomials(8, 8)
    (45, 12870)
    """
    n = _checks.integer("num_vars", num_vars, at_least=1)
    k = _checks.integer("degree", degree, at_least=0)
    return math.comb(n + k, k)


@lru_cache(maxsize=None, typed=True)  # typed: 2.0 is refused although it equals 2
def exponents(num_vars: int, degree: int) -> Exponents:
    """Return the exponents of all monomials of degree at most k in n variables, by degree.

    Within a degree, those with a larger power of an earlier variable come first.

    >>> exponents(2, 2)
    ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    """
    n = _checks.integer("num_vars", num_vars, at_least=1)
    k = _checks.integer("degree", degree, at_least=0)
    return tuple(row for total in range(k + 1) for row in _compositions(n, total))


def _compositions(parts: int, total: int) -> list[tuple[int, ...]]:
    """All ways to write ``total`` as an ordered sum of ``parts`` numbers >= 0, largest first."""
    if parts == 1:
        return [(total,)]
    return [
        (first, *rest)
        for first in range(total, -1, -1)
        for rest in _compositions(parts - 1, total - first)
    ]


@dataclass(frozen=True)
class Polynomial:
    """A polynomial ``sum_r coefficients[r] * prod_i x_i ** powers[r][i]``.

    Args:
        powers: Exponents of each monomial, all different, one number per variable.
        coefficients: As many numbers: Python's, fractions or mpmath's, kept as they are.

    Raises:
        TypeError, ValueError: if an exponent is not an integer >= 0, two monomials are the same,
            or the numbers of monomials, variables and coefficients do not fit.

    >>> p = Polynomial(powers=((1, 1), (0, 2)), coefficients=(3, -1))
    >>> p(2, 5), p.degree, p.num_vars
    (5, 2, 2)
    """

    powers: Exponents
    coefficients: tuple[Any, ...]

    def __post_init__(self) -> None:
        powers = tuple(
            _checks.integers(f"powers[{r}]", row, at_least=0) for r, row in enumerate(self.powers)
        )
        object.__setattr__(self, "powers", powers)
        object.__setattr__(self, "coefficients", tuple(self.coefficients))
        if not powers:
            raise ValueError("powers must hold at least one monomial, got none.")
        if len({len(row) for row in powers}) > 1 or len(set(powers)) < len(powers):
            raise ValueError(
                "powers must hold different monomials in the same number of variables, "
                f"got {powers}."
            )
        if len(self.coefficients) != len(powers):
            raise ValueError(
                f"coefficients must hold one number per monomial ({len(powers)}), "
                f"got {len(self.coefficients)}."
            )

    @property
    def num_vars(self) -> int:
        """Number of variables n."""
        return len(self.powers[0])

    @cached_property
    def degree(self) -> int:
        """Largest total degree of a monomial whose coefficient is not zero; 0 if all are."""
        pairs = zip(self.powers, self.coefficients, strict=True)
        return max((sum(row) for row, c in pairs if c != 0), default=0)

    def __call__(self, *x: Any) -> Any:
        """Return the value at x_1, ..., x_n; tensors are taken elementwise.

        Raises:
            ValueError: if the number of arguments is not the number of variables.
        """
        if len(x) != self.num_vars:
            raise ValueError(f"x must be {self.num_vars} values, got {len(x)}.")
        powers = [self._table(value, i) for i, value in enumerate(x)]
        total = None
        for row, coefficient in zip(self.powers, self.coefficients, strict=True):
            term = coefficient
            for i, exponent in enumerate(row):
                if exponent:
                    term = term * powers[i][exponent]
            total = term if total is None else total + term
        return total + 0 * x[0]  # a constant takes the kind and shape of its arguments

    def quadratic_form(
        self,
    ) -> tuple[Fraction, list[Fraction], list[list[Fraction]]]:
        """Return c, g (n,) and symmetric Q (n, n) with ``p(x) = c + g . x + x . Q x``, exactly.

        Raises:
            ValueError: if the degree exceeds 2.

        >>> c, g, Q = Polynomial(((0, 0), (1, 0), (1, 1)), (7, 5, 3)).quadratic_form()
        >>> Q[0][1] == Q[1][0] == Fraction(3, 2)
        True
        """
        if self.degree > 2:
            raise ValueError(f"the polynomial must have degree at most 2, got {self.degree}.")
        n = self.num_vars
        c, g, Q = Fraction(0), [Fraction(0)] * n, [[Fraction(0)] * n for _ in range(n)]
        for row, coefficient in zip(self.powers, self.coefficients, strict=True):
            read = [i for i, exponent in enumerate(row) for _ in range(exponent)]
            if not read:
                c += Fraction(coefficient)
            elif len(read) == 1:
                g[read[0]] += Fraction(coefficient)
            elif len(read) == 2:
                for i, j in (read, read[::-1]):
                    Q[i][j] += Fraction(coefficient) / 2
        return c, g, Q

    def _table(self, value: Any, i: int) -> list[Any]:
        """Powers 0, 1, ... of one variable, by repeated multiplication."""
        table = [1, value]
        for _ in range(max(row[i] for row in self.powers) - 1):
            table.append(table[-1] * value)
        return table


def random_polynomial(
    num_vars: int, degree: int, *, seed: int, bound: float = 1.0, integer: bool = False
) -> Polynomial:
    """Draw a polynomial with all monomials of P_k^n and coefficients uniform in [-bound, bound].

    Args:
        num_vars: n.
        degree: k.
        seed: Seed of the draw.
        bound: Largest absolute value of a coefficient.
        integer: Draw nonzero integers with absolute value at most ``bound`` instead, for exact
            arithmetic.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> random_polynomial(2, 1, seed=0, bound=9, integer=True).coefficients
    (-8, -6, -5)
    """
    rows = exponents(num_vars, degree)
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    bound = _checks.positive("bound", bound)
    if integer:
        top = _checks.integer("bound", int(bound), at_least=1)
        size = rng.integers(1, top + 1, len(rows)) * rng.choice([-1, 1], len(rows))
        return Polynomial(rows, tuple(int(c) for c in size))
    return Polynomial(rows, tuple(rng.uniform(-bound, bound, len(rows)).tolist()))


def random_tree_polynomial(
    num_nodes: int, degree: int, *, seed: int, bound: float = 1.0, integer: bool = False
) -> tuple[Polynomial, ...]:
    """Draw one polynomial of P_k^2 per node of a binary tree: an element of T_k^n.

    Raises:
        TypeError, ValueError: if an argument is out of range.
    """
    _checks.integer("num_nodes", num_nodes, at_least=1)
    seeds: Sequence[int] = np.random.default_rng(
        _checks.integer("seed", seed, at_least=0)
    ).integers(0, 2**31, num_nodes)
    return tuple(
        random_polynomial(2, degree, seed=int(s), bound=bound, integer=integer) for s in seeds
    )
