"""Polar coordinates against autograd, and the ends of the product network's flows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from companion import data, losses, networks
from companion.dynamics import constrained, norm_control, systems
from companion.dynamics.trajectory import LogLoss, LogNorm, LogTime

POINT = torch.tensor([1.0, 0.8], dtype=torch.float64)


def example(seed: int, widths: tuple[int, ...], num: int) -> tuple:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(num, widths[0], generator=g, dtype=torch.float64)
    y = torch.where(torch.randn(num, generator=g) > 0, 1.0, -1.0).double()
    net = networks.MLP(widths=widths)
    W = net.init(seed=seed)
    scale = torch.rand(net.K, generator=g, dtype=torch.float64) + 0.5
    return net, networks.compose(scale, W), x, y


def starts(seed: int, num: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, 2, generator=g, dtype=torch.float64) + 0.05


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.lists(st.integers(3, 12), max_size=3),
    num=st.integers(1, 20),
)
def test_eq_14_and_its_display_are_the_gradient(seed: int, hidden: list[int], num: int) -> None:
    net, W, x, y = example(seed, (5, *hidden, 1), num)
    gradient = torch.func.grad(lambda w: losses.log_loss(y * net(w, x)))(W)
    W_dot = {k: -g for k, g in gradient.items()}
    rho, V = networks.layer_norms(W), networks.directions(W)
    rates = torch.func.jvp(networks.layer_norms, (W,), (W_dot,))[1]
    turns = torch.func.jvp(lambda w: {k: p / p.norm() for k, p in w.items()}, (W,), (W_dot,))[1]
    scale = max(float(p.norm() / r) for p, r in zip(W_dot.values(), rho, strict=True)) + 1e-300
    for velocity in (norm_control.induced_velocity(W, W_dot), systems.polar(net, rho, V, x, y)):
        torch.testing.assert_close(velocity.rho / scale, rates / scale, rtol=1e-12, atol=1e-12)
        for k in V:
            torch.testing.assert_close(velocity.V[k] / scale, turns[k] / scale, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 3))
def test_the_factor_is_the_square_of_each_layers_norm(seed: int, depth: int) -> None:
    net = networks.MLP(widths=(4, *[5] * depth, 1), activation="linear")
    _, _, x, y = example(seed, (4, 1), 6)
    W = net.init(seed=seed)
    factors = norm_control.direction_factors(net, W, x, y)
    torch.testing.assert_close(factors, networks.layer_norms(W) ** 2, rtol=1e-9, atol=0)


def test_factor_needs_a_direction_that_moves() -> None:
    net, one = networks.MLP(widths=(1, 1)), torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(ZeroDivisionError, match="at rest"):
        norm_control.direction_factors(net, {"W1": one}, one, one[0])


def test_induced_velocity_refuses_other_layers() -> None:
    one = torch.ones(1, 2)
    with pytest.raises(ValueError, match="W_dot must have the layers of W"):
        norm_control.induced_velocity({"W1": one}, {"W2": one})


def test_angles_apart_against_separate_runs() -> None:
    points, net = data.three_points(), networks.MLP(widths=(2, 1))
    W = {"W1": torch.tensor([[0.5, 1.0]], dtype=torch.float64)}
    until = [LogNorm(math.log(2.0)), LogNorm(math.log(2.5))]
    found = norm_control.angles_apart(net, W, points.x, points.y, until=until)
    apart = [
        constrained.crossings(net, W, points.x, points.y, [2.0, 2.5], system=name)
        for name in ("unconstrained", "multipliers")
    ]
    expected = [constrained.angle(a, b) for a, b in zip(*apart, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for kind in (LogTime(1.0), LogLoss(-3.0)):
        assert norm_control.angles_apart(net, W, points.x, points.y, until=[kind])[0] > 1e-3


def test_end_residuals_at_a_balanced_direction() -> None:
    points, net = data.three_points(), networks.MLP(widths=(2, 1))
    rho = 400.0  # where log p_1 - log p_2 = log 2, the pulls (0, 1) and (0, -2) balance
    W = {"W1": torch.tensor([[rho, -math.log(2) / 3]], dtype=torch.float64)}
    found = norm_control.end_residuals(net, W, points.x, points.y)
    assert found.single[0] > 0.99
    assert found.weighted[0] == pytest.approx(math.log(2) / (3 * rho), rel=1e-3)
    assert found.shares.tolist() == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-9)


# --- the product network on one point ------------------------------------------------------------


def test_stationary_margins_are_at_rest_and_at_no_other_value() -> None:
    net = networks.Diagonal(2, 3)
    for margin, v in ((1.0, [1, 0]), (0.8, [0, 1]), (None, [1, 1 / 0.8])):
        v = torch.tensor([v], dtype=torch.float64)
        V = {f"W{k}": v / v.norm() for k in (1, 2, 3)}
        found = float(net(V, POINT[None]))
        speed = systems.fixed_norm(
            net, torch.ones(3).double(), V, POINT[None], torch.ones(1).double()
        )
        assert max(float(p.norm()) for p in speed.values()) < 1e-15
        expected = norm_control.stationary_margins(POINT)
        assert (expected - found).abs().min() < 1e-12
        assert margin is None or found == pytest.approx(margin)


@settings(deadline=None, max_examples=20)
@given(a=st.floats(0.2, 3), b=st.floats(0.2, 3), c=st.floats(0.2, 3), sign=st.sampled_from([1, -1]))
def test_escape_times_against_quadrature(a: float, b: float, c: float, sign: int) -> None:
    if sign < 0 and sorted([a, b, c])[1] - min(a, b, c) < 0.05:
        return  # a double root: the turning takes arbitrarily long
    W = torch.tensor([[[sign * a], [b], [c]]], dtype=torch.float64)
    found = float(norm_control.escape_times(W, torch.tensor([0.7], dtype=torch.float64)))
    squares = np.array([a, b, c]) ** 2
    low = squares.min()

    def time(start: float) -> float:  # s = start + r^2 removes the root at the turning point
        def slope(r: float) -> float:
            rest = np.delete(squares, squares.argmin()) + start + r * r
            last = low + start + r * r
            return 2 * r / math.sqrt(last * rest.prod()) if last > 0 else 2 / math.sqrt(rest.prod())

        return quad(slope, 0, np.inf, epsabs=1e-11, epsrel=1e-11, limit=400)[0] / (2 * 0.7)

    expected = time(0.0) if sign > 0 else 2 * time(-low) - time(0.0)
    assert found == pytest.approx(expected, rel=1e-6)


def test_unconstrained_path_against_an_integrator() -> None:
    W = torch.tensor([[2.0, 4.0], [0.4, 0.3], [0.3, 0.4]], dtype=torch.float64)
    squares = torch.logspace(-3, 3, 7, dtype=torch.float64)
    path = norm_control.unconstrained_path(W, POINT, squares=squares)
    winner = int(norm_control.escape_times(W[None], POINT)[0].argmin())

    def slope(s: float, flat: np.ndarray) -> np.ndarray:  # with the winner's squares as the time
        w = flat.reshape(3, 2)
        others = np.stack([w[1] * w[2], w[0] * w[2], w[0] * w[1]]) * POINT.numpy()
        return (others / (2 * POINT.numpy() * w.prod(axis=0))[winner]).ravel()

    exact = solve_ivp(slope, (0, 1e3), W.numpy().ravel(), "LSODA", t_eval=squares.numpy(),
                      rtol=1e-10, atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(path.numpy().reshape(7, 6), exact.y.T, rtol=1e-6)


def test_equal_norms_end_together_and_unequal_ones_need_not() -> None:
    V = starts(0, 200)
    V /= V.norm(dim=2, keepdim=True)
    held = norm_control.constrained_ends(V, POINT)
    assert torch.equal(held, norm_control.unconstrained_ends(V, POINT))
    scale = torch.tensor([5.0, 0.5, 0.5], dtype=torch.float64)[:, None]
    assert (held != norm_control.unconstrained_ends(scale * V, POINT)).double().mean() > 0.05
    assert torch.equal(held, norm_control.constrained_ends(scale * V, POINT))


def test_constrained_path_is_dynamics_a() -> None:
    W = starts(3, 1)[0]
    path = norm_control.constrained_path(W, POINT, times=torch.linspace(0, 30, 61).double())
    torch.testing.assert_close(path.norm(dim=2), torch.ones(61, 3).double(), rtol=0, atol=1e-7)
    values = path.prod(dim=1) @ POINT
    assert (values.diff() > -1e-9).all()
    assert values[-1] == pytest.approx(
        float(norm_control.constrained_ends(W[None], POINT)), abs=1e-6
    )
    net = networks.Diagonal(2, 3)
    V = {f"W{k + 1}": path[10, k][None] for k in range(3)}
    V = networks.directions(V)
    speed = systems.fixed_norm(net, torch.ones(3).double(), V, POINT[None], torch.ones(1).double())
    quotient = norm_control.constrained_path(
        path[10], POINT, times=torch.tensor([0.0, 1e-5]).double()
    )
    difference = (quotient[1] - quotient[0]) / 1e-5
    expected = torch.cat(list(speed.values()))
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: norm_control.escape_times(torch.ones(3, 2), torch.ones(2)), "W must have shape"),
        (
            lambda: norm_control.stationary_margins(torch.tensor([1.0, 0.0])),
            "no entry that is zero",
        ),
        (
            lambda: norm_control.constrained_ends(torch.zeros(1, 3, 2), torch.ones(2)),
            "no layer that is zero",
        ),
        (
            lambda: norm_control.unconstrained_path(
                -torch.ones(3, 2), torch.ones(2), squares=torch.ones(1)
            ),
            "must be positive",
        ),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
