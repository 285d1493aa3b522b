"""How many parameters a class of functions of n variables needs: exact counts for Sobolev balls.

On the torus, the functions with sum_k (1 + |k|^2)^m |f_k|^2 <= 1 (m derivatives in mean square)
form an ellipsoid, whose axes belong to the frequencies k in Z^n. The best N-dimensional space for
all of them, in the mean square, is spanned by the N lowest frequencies, and its worst error is the
next axis, (1 + |k|^2)^(-m/2): Kolmogorov's N-width. So "how many parameters" is a count of lattice
points in a ball, an exact integer.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from companion import _checks


@cache
def _shells(num_vars: int, top: int) -> np.ndarray:
    """Number of k in Z^n with |k|^2 = s, for s = 0 .. top: exact integers, (top + 1,)."""
    fits = (2 * math.isqrt(top) + 1) ** num_vars < 2**62  # all points of the cube around the ball
    counts = np.zeros(top + 1, dtype=np.int64 if fits else object)
    counts[0] = 1
    for _ in range(num_vars):
        longer = counts.copy()  # last coordinate 0, then +-1, +-2, ...
        j = 1
        while j * j <= top:
            longer[j * j :] += 2 * counts[: top + 1 - j * j]
            j += 1
        counts = longer
    return counts


def num_parameters(num_vars: int, smoothness: int, accuracy: float) -> int:
    """Return the least N for which some N features serve the whole Sobolev ball to ``accuracy``.

    It grows like accuracy^(-n/m): the curse of dimensionality, for methods that fit the outer
    weights of fixed features. DeVore, Howard and Micchelli (1989) prove the same order for every
    method whose parameters depend continuously on the target.

    Args:
        num_vars: n.
        smoothness: m, derivatives bounded in mean square.
        accuracy: Root mean square error allowed, in (0, 1).

    Raises:
        TypeError, ValueError: if an argument is out of range.

    Source: Kolmogorov 1936; Pinkus 1985, chapter IV; PNAS 2020, after Theorem 1.

    >>> num_parameters(1, 1, 0.1), num_parameters(2, 1, 0.1), num_parameters(2, 2, 0.1)
    (19, 305, 25)
    """
    n = _checks.integer("num_vars", num_vars, at_least=1)
    m = _checks.integer("smoothness", smoothness, at_least=1)
    if not 0 < _checks.positive("accuracy", accuracy) < 1:
        raise ValueError(f"accuracy must lie in (0, 1), got {accuracy}.")
    # Axes longer than the accuracy: (1 + s)^(-m/2) > accuracy, with s = |k|^2 an integer.
    top = int(accuracy ** (-2 / m)) + 1
    longer = [(1 + s) ** (-m / 2) > accuracy * (1 + 1e-12) for s in range(top + 1)]
    return int(_shells(n, top)[np.array(longer)].sum())
