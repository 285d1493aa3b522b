"""Suprema against brute force and SciPy, bounds against their definitions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from companion.generalization import rademacher
from companion.networks import MLP


def cloud(num_points: int, dim: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_points, dim, generator=generator, dtype=torch.float64)


def on_circle(x: np.ndarray, a: np.ndarray, c: np.ndarray, angle: float) -> float:
    u = np.array([math.cos(angle), math.sin(angle)])
    return float(a @ np.maximum(x @ u, 0) + c @ u)


def brute_force(x: np.ndarray, a: np.ndarray, c: np.ndarray) -> float:
    """The maximum over the circle, by SciPy's bounded search in each cell of a grid with kinks."""
    kinks = np.arctan2(x[:, 1], x[:, 0])
    grid = np.concatenate([kinks + np.pi / 2, kinks - np.pi / 2, np.linspace(0, 2 * np.pi, 9)])
    grid = np.sort(grid % (2 * np.pi))
    best = max(on_circle(x, a, c, angle) for angle in grid)
    for low, high in itertools.pairwise([*grid, grid[0] + 2 * np.pi]):
        found = optimize.minimize_scalar(
            lambda angle: -on_circle(x, a, c, angle),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-10},
        )
        best = max(best, -found.fun)
    return best


# --- signs and averages --------------------------------------------------------------------------


def test_signs() -> None:
    expected = list(itertools.product([-1.0, 1.0], repeat=3))
    assert rademacher.all_signs(3).tolist() == [list(row) for row in expected]
    drawn = rademacher.random_signs(2000, 4, seed=3)
    assert torch.equal(drawn, rademacher.random_signs(2000, 4, seed=3))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert drawn.mean(0).abs().max() < 5 / math.sqrt(2000)


def test_complexity_from_draws_agrees_with_enumeration() -> None:
    x = cloud(8)
    exact = rademacher.complexity(lambda e: rademacher.linear_suprema(x, e), 8)
    drawn = rademacher.complexity(
        lambda e: rademacher.linear_suprema(x, e), 8, num_draws=3000, seed=1
    )
    assert exact.standard_error == 0 and 0 < drawn.standard_error < 0.01
    assert abs(drawn.mean - exact.mean) < 4 * drawn.standard_error


def test_points_on_a_line_by_hand() -> None:
    x = torch.tensor([[1.0], [2.0], [2.0]], dtype=torch.float64)
    found = rademacher.complexity(lambda e: rademacher.linear_suprema(x, e, rho=3), 3)
    assert found.mean == pytest.approx(3 * 5 / 6, rel=1e-14)


# --- suprema -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_circle_extremes_against_scipy(seed: int) -> None:
    x, a, c = cloud(7, seed=seed), cloud(3, 7, seed=seed + 9), cloud(1, seed=seed + 20)[0]
    low, top = rademacher.circle_extremes(x, a, shift=c)
    for m in range(3):
        args = (x.numpy(), a[m].numpy(), c.numpy())
        assert float(top[m]) == pytest.approx(brute_force(*args), abs=1e-9)
        assert float(-low[m]) == pytest.approx(brute_force(args[0], -args[1], -args[2]), abs=1e-9)
    own = rademacher.circle_extremes(x.expand(3, -1, -1), a, shift=c)
    torch.testing.assert_close(own, (low, top), rtol=0, atol=0)


@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_circle_extremes_with_ties_and_zeros(rows: list[tuple[int, int, int]]) -> None:
    values = np.array(rows, dtype=float)
    x, a = values[:, :2], values[:, 2]
    low, top = rademacher.circle_extremes(torch.tensor(x), torch.tensor(a)[None])
    assert float(top) == pytest.approx(brute_force(x, a, np.zeros(2)), abs=1e-7)
    assert float(-low) == pytest.approx(brute_force(x, -a, np.zeros(2)), abs=1e-7)


def test_ascent_at_other_norms_meets_the_exact_supremum() -> None:
    x, e = cloud(6), rademacher.all_signs(6)
    exact = rademacher.two_layer_suprema(x, e)
    found = rademacher.ascent_suprema(
        MLP((2, 1, 1)), x, e, rho=(3, 0.5), drawn=4000, starts=24, first_step=0.02, last_step=1e-13
    )
    torch.testing.assert_close(found, 1.5 * exact, rtol=1e-10, atol=0)


@pytest.mark.parametrize("widths", [(2, 1, 1), (2, 4, 1)])
def test_ascent_is_a_lower_bound(widths: tuple[int, ...]) -> None:
    x, e = cloud(12), rademacher.random_signs(50, 12, seed=0)
    exact = rademacher.two_layer_suprema(x, e)
    found = rademacher.ascent_suprema(MLP(widths), x, e, drawn=200)
    assert (found <= exact * (1 + 1e-12)).all()
    assert found.mean() > 0.8 * exact.mean()


def test_finite_class_lies_below_massart() -> None:
    f, e = cloud(20, 10), rademacher.all_signs(10)
    found = rademacher.finite_suprema(f, e)
    expected = [max(float(row @ g) for g in f) / 10 for row in e[:5]]
    np.testing.assert_allclose(found[:5].numpy(), expected, rtol=1e-13)
    largest = math.sqrt(max(float(g @ g) for g in f))
    assert rademacher.massart_bound(f) == pytest.approx(largest * math.sqrt(2 * math.log(20)) / 10)
    assert found.mean() < rademacher.massart_bound(f)


@pytest.mark.parametrize("rho", [(1.0, 1.0), (2.0, 3.0)])
def test_order_of_the_bounds(rho: tuple[float, float]) -> None:
    x, e = cloud(8), rademacher.all_signs(8)
    product = math.prod(rho)
    exact = product * rademacher.two_layer_suprema(x, e).mean()
    linear = rademacher.linear_suprema(x, e, rho=product).mean()
    assert exact < 2 * linear < rademacher.golowich_bound(x, rho)
    size = math.sqrt(float((x**2).sum())) / 8
    factor = math.sqrt(4 * math.log(2)) + 1
    assert rademacher.golowich_bound(x, rho) == pytest.approx(factor * product * size, rel=1e-13)


# --- bounds --------------------------------------------------------------------------------------


@given(st.floats(0.05, 20), st.floats(-30, 30))
def test_ramp_lies_between_indicators(eta: float, m: float) -> None:
    value = float(rademacher.ramp(torch.tensor(m, dtype=torch.float64), eta))
    assert float(m <= 0) <= value <= float(m < eta)
    if eta <= 1:
        assert value <= math.exp(-m) + 1e-15


@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_deviation_is_hoeffdings(delta: float) -> None:
    for sides in (1, 2):
        t = rademacher.deviation(17, delta, sides=sides)
        assert sides * math.exp(-2 * 17 * t**2) == pytest.approx(delta, rel=1e-12)


def test_two_tosses_break_the_two_sided_bound_with_one_side() -> None:
    allowed = rademacher.deviation(2, 0.4)
    chance = sum(
        Fraction(math.comb(2, k), 4) for k in range(3) if abs(Fraction(k, 2) - 0.5) > allowed
    )
    assert chance == Fraction(1, 2) > 0.4


def test_margin_bound_by_hand() -> None:
    m = torch.tensor([-1.0, 0.25, 0.5, 2.0], dtype=torch.float64)
    found = rademacher.margin_bound(m, 0.1, [1.0, 0.5], delta=0.1)
    last = math.sqrt(math.log(20) / 8)
    expected = [(1 + 0.75 + 0.5) / 4 + 0.2 + last, (1 + 0.5) / 4 + 0.4 + last]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)


@given(st.floats(1e-3, 1e3))
def test_peeled_bound_covers_the_norm_and_costs_at_most_twice(rho: float) -> None:
    found = rademacher.peeled_bound(0.25, 0.1, rho, 50, delta=0.05)
    share = found - 0.25 - rademacher.deviation(50, 0.05)
    assert 2 * rho * 0.1 < share + 1e-12
    cost = rademacher.deviation(50, 0.05 / 132) - rademacher.deviation(50, 0.05)  # j <= 10
    assert share <= 4 * max(rho, 0.5) * 0.1 + cost + 1e-12


def test_shares_of_delta_sum_to_one() -> None:
    total = sum(Fraction(1, (j + 1) * (j + 2)) for j in range(100))
    assert total == 1 - Fraction(1, 101)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: rademacher.all_signs(21), "num_points must be at most 20, got 21"),
        (lambda: rademacher.all_signs(0), "num_points must be at least 1"),
        (
            lambda: rademacher.complexity(lambda e: e, 3),
            r"suprema\(signs\) must have shape \(8,\)",
        ),
        (
            lambda: rademacher.linear_suprema(cloud(3), rademacher.all_signs(2)),
            "signs must have shape",
        ),
        (lambda: rademacher.linear_suprema(cloud(3), cloud(1, 3)), "signs must hold only"),
        (
            lambda: rademacher.two_layer_suprema(cloud(3, 3), rademacher.all_signs(3)),
            r"x must have shape \(3, 2\)",
        ),
        (lambda: rademacher.circle_extremes(cloud(3), cloud(3)[0]), "weights"),
        (lambda: rademacher.deviation(5, 1.0), r"delta must lie in \(0, 1\), got 1.0"),
        (lambda: rademacher.deviation(5, 0.1, sides=3), "sides must be 1 or 2, got 3"),
        (lambda: rademacher.ramp(cloud(1), 0.0), "eta must be finite and greater than 0"),
        (
            lambda: rademacher.ascent_suprema(MLP((2, 1, 2)), cloud(3), rademacher.all_signs(3)),
            "net must have one output, got 2",
        ),
        (
            lambda: rademacher.ascent_suprema(
                MLP((2, 1, 1)), cloud(3), rademacher.all_signs(3), rho=(1,)
            ),
            "rho must hold one norm per layer, 2, got 1",
        ),
        (
            lambda: rademacher.ascent_suprema(
                MLP((2, 1, 1)), cloud(3), rademacher.all_signs(3), drawn=3
            ),
            "starts must be at most drawn = 3, got 4",
        ),
    ],
)
def test_bad_input_is_named(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
