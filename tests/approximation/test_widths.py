"""Counts of lattice points against lists of them, closed forms and asymptotics."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.approximation.widths import _shells, num_parameters


@given(st.integers(1, 4), st.integers(0, 12))
def test_shells_are_what_a_list_of_all_points_has(n: int, top: int) -> None:
    side = range(-math.isqrt(top), math.isqrt(top) + 1)
    squares = [sum(k * k for k in point) for point in itertools.product(side, repeat=n)]
    assert _shells(n, top).tolist() == [squares.count(s) for s in range(top + 1)]


def test_jacobis_four_and_eight_squares() -> None:
    """r_4(s) is 8 times the divisors that 4 does not divide; r_8(s) = 16 sum (-1)^(s + d) d^3."""
    for s in range(1, 60):
        divisors = [d for d in range(1, s + 1) if s % d == 0]
        assert _shells(4, 60)[s] == 8 * sum(d for d in divisors if d % 4)
        assert _shells(8, 60)[s] == 16 * sum((-1) ** (s + d) * d**3 for d in divisors)


def test_integers_stay_exact_beyond_int64() -> None:
    total = num_parameters(16, 1, 0.02)
    assert isinstance(total, int) and total > 2**63
    volume = math.pi**8 / math.factorial(8)
    assert total == pytest.approx(volume * (0.02**-2 - 1) ** 8, rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_count_is_the_number_of_long_axes(n: int, m: int) -> None:
    accuracy = 0.07
    side = range(-15, 16)
    axes = [
        (1 + sum(k * k for k in point)) ** (-m / 2) for point in itertools.product(side, repeat=n)
    ]
    assert num_parameters(n, m, accuracy) == sum(axis > accuracy for axis in axes)


def test_an_axis_as_long_as_the_accuracy_needs_no_feature() -> None:
    assert num_parameters(1, 2, 0.5) == 1  # 1 / (1 + 1) is 0.5 for k = +-1
    assert num_parameters(1, 2, 0.499) == 3


def test_bad_input_is_refused() -> None:
    for accuracy in (1.0, 2.0):
        with pytest.raises(ValueError, match=r"accuracy must lie in \(0, 1\), got"):
            num_parameters(2, 1, accuracy)
    with pytest.raises(ValueError, match="accuracy must be finite and greater than 0"):
        num_parameters(2, 1, 0.0)
    with pytest.raises(ValueError, match="smoothness must be at least 1, got 0"):
        num_parameters(2, 0, 0.1)
    with pytest.raises(TypeError, match="num_vars must be an integer, got 2.0"):
        num_parameters(2.0, 1, 0.1)
