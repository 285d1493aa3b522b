"""Splines and their ReLU networks against SciPy's splines and the bounds they state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import make_interp_spline

from companion.approximation import relu, splines


def column(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)[:, None]


def wave(x: np.ndarray) -> np.ndarray:
    return np.sin(5 * x) + x**2


KNOTS = np.array([0.0, 0.1, 0.15, 0.4, 0.7, 0.75, 1.0])


def test_spline_is_scipys() -> None:
    net = splines.interpolate(wave, KNOTS)
    sites = np.concatenate([[0.0], (KNOTS[1:] + KNOTS[:-1]) / 2, [1.0]])
    padded = np.concatenate([[0, 0], KNOTS, [1, 1]])
    fitted = make_interp_spline(sites, wave(sites), k=2, t=padded)
    x = np.linspace(0, 1, 301)
    np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), fitted(x), atol=1e-12)
    assert net.num_units == len(KNOTS) + 1


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_spline_reproduces_parabolas(c: list[float]) -> None:
    net = splines.interpolate(lambda x: c[0] + c[1] * x + c[2] * x**2, KNOTS)
    x = torch.linspace(0, 1, 51, dtype=torch.float64)
    assert torch.allclose(net(x), c[0] + c[1] * x + c[2] * x**2, atol=1e-12)
    assert net.coefficients[3:].abs().max() < 1e-9


@pytest.mark.parametrize("m", [0, 1, 2, 7])
def test_replaced_units_keep_their_bound(m: int) -> None:
    net = splines.interpolate(wave, KNOTS)
    x = torch.linspace(0, 1, 999, dtype=torch.float64)
    deep = net.to_relu(m)
    assert torch.allclose(deep(x[:, None]), net.with_sawtooths(x, m), atol=1e-11)
    assert (deep(x[:, None]) - net(x)).abs().max() <= net.replacement_error(m) + 1e-12
    N = net.num_units
    assert deep.num_units == (2 * N * m + m - 1 if m else N)


@pytest.mark.parametrize("m", [1, 2, 5, 10])
def test_shared_sawtooth_is_the_spline(m: int) -> None:
    net = splines.interpolate(wave, KNOTS)
    deep = net.shared_sawtooth(m)
    assert (deep.depth, deep.num_units) == (m, 4 * (len(KNOTS) - 1) + 7 * (m - 1))
    x = torch.linspace(0, 1, 5001, dtype=torch.float64)
    curvature = np.array([(net(torch.tensor(
        [a, (a + b) / 2, b], dtype=torch.float64)) @ torch.tensor([2.0, -4.0, 2.0],
        dtype=torch.float64)).item() for a, b in itertools.pairwise(KNOTS)])  # fmt: skip
    bound = np.abs(curvature).max() / 4 ** (m + 1)
    error = (deep(x[:, None]) - net(x)).abs().max()
    assert 0.9 * bound <= error <= bound + 1e-12
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        net.shared_sawtooth(0)


def test_shared_sawtooth_of_a_parabola_is_yarotskys() -> None:
    parabola = splines.SquaredReluNetwork(column([0.0])[:, 0], column([1.0])[:, 0])
    x = torch.linspace(0, 1, 1025, dtype=torch.float64)
    for m in (1, 3, 6):
        deep = parabola.shared_sawtooth(m)
        assert torch.allclose(deep(x[:, None]), relu.interpolant(x, m), atol=1e-14)


def test_free_knots_have_equal_mass() -> None:
    # The integral of |x - a|^(-1/2) from 0 to t, with its singularity, in closed form.
    a, knots = 0.3, splines.free_knots(lambda x: np.abs(x - 0.3) ** -0.5, 20)
    mass = 2 * np.sqrt(a) + 2 * np.sign(knots - a) * np.sqrt(np.abs(knots - a))
    np.testing.assert_allclose(np.diff(mass), mass[-1] / 20, rtol=1e-2)
    assert knots[0] == 0 and knots[-1] == 1


def test_free_knots_keep_the_rate_where_uniform_ones_lose_it() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        return np.abs(x - 0.3) ** 1.5

    errors = {}
    for n in (16, 128):
        free = splines.free_knots(lambda x: np.abs(x - 0.3) ** -0.5, n)
        for name, knots in (("free", free), ("uniform", np.linspace(0, 1, n + 1))):
            x = np.unique(knots[:-1, None] + np.diff(knots)[:, None] * np.linspace(0, 1, 30))
            fit = splines.interpolate(f, knots)(torch.from_numpy(x)).numpy()
            errors[name, n] = np.abs(fit - f(x)).max()
    assert errors["free", 16] / errors["free", 128] > 8**2.7
    assert errors["uniform", 16] / errors["uniform", 128] < 8**2


def test_splines_refuse_bad_input() -> None:
    for knots in ([0.0, 0.5, 0.5, 1.0], [0.1, 1.0], [0.0, 2.0], [0.0]):
        with pytest.raises(ValueError, match="knots must increase from 0 to 1"):
            splines.interpolate(wave, np.array(knots))
    with pytest.raises(ValueError, match="density must be finite and at least 0"):
        splines.free_knots(lambda x: -x, 4)
    with pytest.raises(ValueError, match="pieces must be at least 1"):
        splines.free_knots(lambda x: x, 0)
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="all entries below 1"):
        splines.SquaredReluNetwork(one, one)
    with pytest.raises(ValueError, match=r"coefficients must have shape \(1,\)"):
        splines.SquaredReluNetwork(0 * one, torch.ones(2))
