"""Rates against mpmath, SymPy, closed forms, and the integrators themselves."""

from __future__ import annotations

import math
import time

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import data
from companion.dynamics import rates
from companion.dynamics.flow import LogTime, gradient_flow
from companion.dynamics.stiff import stiff_flow
from companion.networks import MLP, Diagonal, layer_norms

ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_chain_against_mpmath(num_layers: int) -> None:
    K, gamma, N = num_layers, 0.7, 5
    beta = 2 - mpmath.mpf(2) / K
    for first, last in ((0.3, 0.31), (0.3, 4.0), (2.0, 90.0), (1.0, 3000.0)):
        edges = [first, *(last - u for u in (300, 100, 40, 15, 5, 1) if last - u > first), last]
        t = mpmath.quad(lambda s: mpmath.exp(s) * s**-beta, edges)  # noqa: B023
        exact = mpmath.log(t * N / (K * mpmath.mpf(gamma) ** (mpmath.mpf(2) / K)))
        ours = rates.chain_log_time(last, K, start=first, gamma=gamma, num_points=N)
        assert ours == pytest.approx(float(exact), rel=1e-11, abs=1e-11)


def test_two_layers_are_an_exponential_integral() -> None:
    exact = mpmath.log((mpmath.ei(50) - mpmath.ei(1)) / 3)
    # K = 3 has no such form, K = 2 has beta = 1: int e^m / m dm = Ei(m).
    found = rates.chain_log_time(50.0, 2, start=1.0, num_points=1)
    assert found + math.log(2) == pytest.approx(float(exact + mpmath.log(3)), abs=1e-12)


def test_expansion_solves_the_asymptotic_equation() -> None:
    """m - beta log m - c + beta/m = L, with all orders of log L over L^2 left out."""
    L, c, beta = sympy.symbols("L c beta", positive=True)
    log_l = sympy.log(L)
    m = L + beta * log_l + c + beta * (beta * log_l + c - 1) / L
    residue = m - beta * sympy.log(m) - c + beta / m - L
    small = sympy.Symbol("epsilon", positive=True)
    log_symbol = sympy.Symbol("Lambda")
    scaled = sympy.expand_log(residue.subs(L, 1 / small), force=True)
    inner = m.subs(L, 1 / small).subs(sympy.log(1 / small), log_symbol)
    inner = inner.subs(sympy.log(small), -log_symbol)
    correction = sympy.log(1 + sympy.expand((inner - 1 / small) * small))
    scaled = inner - beta * (log_symbol + correction) - c + beta / inner - 1 / small
    assert sympy.simplify(sympy.limit(scaled, small, 0)) == 0
    assert sympy.simplify(sympy.limit(scaled / small, small, 0)) == 0


@pytest.mark.parametrize("num_layers", [2, 3, 4])
def test_expansion_against_the_quadrature(num_layers: int) -> None:
    constant = rates.margin_constant(num_layers, 0.5, num_points=3)
    for m, allowed in ((100.0, 0.02), (10_000.0, 1e-5)):
        L = rates.chain_log_time(m, num_layers, start=1.0, gamma=0.5, num_points=3)
        errors = [
            abs(float(rates.predicted_margin(L, num_layers, constant, order=k)) - m)
            for k in (0, 1, 2)
        ]
        assert errors[2] < allowed and errors[2] < errors[1] < errors[0]


@settings(deadline=None, max_examples=30)
@given(
    K=st.integers(1, 6),
    first=st.floats(0.1, 5.0),
    more=st.floats(0.01, 500.0),
    N=st.integers(1, 50),
)
def test_time_increases_and_scales(K: int, first: float, more: float, N: int) -> None:
    near = rates.chain_log_time(first + more, K, start=first)
    far = rates.chain_log_time(first + 2 * more, K, start=first)
    assert far > near
    slower = rates.chain_log_time(first + more, K, start=first, num_points=N)
    assert slower - near == pytest.approx(math.log(N), abs=1e-10)


def test_slopes_of_chains_meet_the_bar() -> None:
    """2 - 2/K within 1 %, and 0 within 0.001, to t = e^10000, far past 1e300."""
    start = time.process_time()
    for K in (1, 2, 3, 4):
        net = Diagonal(d=1, num_layers=K)
        W = {name: 1.1 * ONE for name in net.layer_names}
        path = stiff_flow(net, W, ONE, ONE[0], until=LogTime(10_000.0), rtol=1e-8, max_step=1.0)
        late = path.log_time > 10
        L, rho = path.log_time[late].numpy(), path.rho[late].prod(dim=1).numpy()
        slope = rates.fitted_slope(
            np.log(L), rho - L, window=(math.log(1000), math.log(10_000) - 1e-9)
        )
        assert slope == pytest.approx(rates.iterated_log_slope(K), rel=0.01, abs=0.001)
        exact = rates.chain_log_time(float(rho[-1]), K, start=1.1**K)
        assert L[-1] == pytest.approx(exact, abs=1e-4)
    assert time.process_time() - start < 30


def test_chebyshev_time_agrees_with_the_quadrature() -> None:
    net = Diagonal(d=1, num_layers=3)
    W = {name: 1.1 * ONE for name in net.layer_names}
    path = gradient_flow(net, W, ONE, ONE[0], until=LogTime(100.0))
    exact = rates.chain_log_time(float(path.rho[-1].prod()), 3, start=1.1**3)
    assert float(path.log_time[-1]) == pytest.approx(exact, abs=2e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_constant_of_the_three_points(num_layers: int) -> None:
    points, K = data.three_points(), num_layers
    net = MLP(widths=(2, *(3,) * (K - 1), 1), activation="linear")
    W = rates.aligned_start(net, torch.tensor([1.0, 1.0], dtype=torch.float64))
    path = stiff_flow(net, W, points.x, points.y, until=LogTime(1000.0), rtol=1e-8)
    rho, L = float(path.rho[-1].prod()), float(path.log_time[-1])
    constant = rates.margin_constant(K, 1.0, num_points=3, weights=points.weights)
    assert rho == pytest.approx(float(rates.predicted_margin(L, K, constant)), abs=1e-3)
    entropy = rates.dual_entropy(points.weights)
    assert rho - float(path.log_inverse_loss[-1]) == pytest.approx(entropy, abs=1e-3)


def test_aligned_start_is_balanced() -> None:
    net = MLP(widths=(3, 4, 5, 1), activation="linear")
    W = rates.aligned_start(net, torch.tensor([1.0, -2.0, 2.0]), rho_k=1.5)
    torch.testing.assert_close(layer_norms(W), torch.full((3,), 1.5))
    torch.testing.assert_close(W["W2"].T @ W["W2"], W["W1"] @ W["W1"].T)
    torch.testing.assert_close(W["W3"].T @ W["W3"], W["W2"] @ W["W2"].T)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="num_layers"):
        rates.iterated_log_slope(0)
    with pytest.raises(ValueError, match="sum 1"):
        rates.dual_entropy(torch.tensor([0.5, 0.6]))
    with pytest.raises(ValueError, match="margin must be greater"):
        rates.chain_log_time(1.0, 2, start=1.0)
    with pytest.raises(ValueError, match="log_time"):
        rates.predicted_margin(-1.0, 2)
    with pytest.raises(ValueError, match="order"):
        rates.predicted_margin(10.0, 2, order=3)
    with pytest.raises(ValueError, match="window"):
        rates.fitted_slope(np.arange(4.0), np.arange(4.0), window=(1.0, 5.0))
    with pytest.raises(ValueError, match="abscissa"):
        rates.fitted_slope(np.array([0.0, 2.0, 1.0]), np.arange(3.0), window=(0.0, 1.0))
    net = MLP(widths=(2, 3, 1), activation="linear")
    with pytest.raises(ValueError, match="not be zero"):
        rates.aligned_start(net, torch.zeros(2))
    with pytest.raises(ValueError, match="direction must have shape"):
        rates.aligned_start(net, torch.ones(3))
