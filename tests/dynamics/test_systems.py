"""The systems against autograd of the loss, torch's weight normalization, and one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import softmax
from torch.nn.utils.parametrizations import weight_norm

from companion import data, networks
from companion.dynamics import systems
from companion.dynamics.flow import LogLoss, LogNorm, LogTime, Rest, gradient_flow
from companion.dynamics.stiff import stiff_flow
from companion.networks import MLP, Params

THREE = data.three_points()
LINEAR = MLP(widths=(2, 1))


@st.composite
def cases(draw: st.DrawFn) -> tuple[MLP, torch.Tensor, Params, torch.Tensor, torch.Tensor]:
    """A random network in polar coordinates, and data."""
    d, *hidden = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    net = MLP(widths=(d, *hidden, 1), activation=draw(st.sampled_from(("relu", "linear"))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    num_points = draw(st.integers(1, 12))
    x = torch.randn(num_points, d, generator=generator, dtype=torch.float64)
    y = torch.where(torch.rand(num_points, generator=generator) < 0.5, -1.0, 1.0).double()
    rho = 0.2 + 2 * torch.rand(net.K, generator=generator, dtype=torch.float64)
    return net, rho, networks.directions(net.init(seed=draw(st.integers(0, 999)))), x, y


def mean_loss(net: MLP, W: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The paper's L, formed as printed."""
    return torch.exp(-y * net(W, x)).mean()


def close(actual: torch.Tensor, expected: torch.Tensor, scale: float) -> None:
    """Equal to 1e-12 of the largest velocity, since entries that cancel keep its rounding."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12 * scale)


def size(params: Params) -> float:
    return max(float(W.abs().max()) for W in params.values())


@settings(deadline=None, max_examples=60)
@given(cases())
def test_equations_are_gradients_of_the_loss(case: tuple) -> None:
    """Eqs 3, 6, 7, 13, 14 and the display after it, in the paper's time, by autograd."""
    net, rho, V, x, y = case
    W = networks.compose(rho, V)
    pace = math.exp(systems.log_clock(net, W, x, y))
    gradient = torch.func.grad(lambda W: mean_loss(net, W, x, y))(W)
    in_rho, in_V = torch.func.grad(
        lambda rho, V: mean_loss(net, networks.compose(rho, V), x, y), argnums=(0, 1)
    )(rho, V)
    free = systems.unconstrained(net, W, x, y)
    fixed = systems.fixed_norm(net, rho, V, x, y)
    both = systems.multipliers(net, rho, V, x, y)
    polar = systems.polar(net, rho, V, x, y)
    scale = max(size(gradient), size(in_V), float(in_rho.abs().max()))
    close(pace * both.rho, -in_rho, scale)
    close(pace * polar.rho, -in_rho, scale)
    for k, (name, V_k) in enumerate(V.items()):
        close(pace * free[name], -gradient[name], scale)
        tangent = in_V[name] - (V_k * in_V[name]).sum() * V_k  # Riemannian gradient on the sphere
        close(pace * fixed[name], -tangent, scale)
        close(pace * both.V[name], -tangent, scale)
        close(pace * polar.V[name], -tangent / rho[k] ** 2, scale / float(rho[k]) ** 2)
        radial = -(V_k * gradient[name]).sum()  # Eq. 14, from the motion of W_k
        close(pace * polar.rho[k], radial, scale)
        across = (-gradient[name] - radial * V_k) / rho[k]
        close(pace * polar.V[name], across, scale / float(rho[k]))


@settings(deadline=None, max_examples=40)
@given(cases(), st.floats(0.3, 3.0))
def test_weight_normalization_is_that_of_torch_and_at_norm_one_dynamics_b(
    case: tuple, v_norm: float
) -> None:
    net, rho, V, x, y = case
    pace = math.exp(systems.log_clock(net, networks.compose(rho, V), x, y))
    layers = torch.nn.ModuleList()
    for k, V_k in enumerate(V.values()):
        layer = weight_norm(torch.nn.Linear(*V_k.shape[::-1], bias=False, dtype=x.dtype), dim=None)
        layer.parametrizations.weight.original0.data.fill_(float(rho[k]))
        layer.parametrizations.weight.original1.data.copy_(v_norm * V_k)
        layers.append(layer)
    W = {name: layer.weight for name, layer in zip(V, layers, strict=True)}
    mean_loss(net, W, x, y).backward()
    v = {name: v_norm * V_k for name, V_k in V.items()}
    ours = systems.weight_normalization(net, rho, v, x, y)
    b = systems.multipliers(net, rho, V, x, y)
    scale = max(size(b.V), float(b.rho.abs().max()), 1.0)
    for k, (name, layer) in enumerate(zip(V, layers, strict=True)):
        g, v_k = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        close(pace * ours.rho[k], -g.grad.squeeze(), pace * scale)
        close(pace * ours.V[name], -v_k.grad, pace * scale / v_norm)
        close(ours.V[name] * v_norm, b.V[name], scale)
    close(ours.rho, b.rho, scale)


@settings(deadline=None, max_examples=30)
@given(cases(), st.sampled_from(sorted(systems.SYSTEMS)))
def test_rate_is_the_derivative_of_l_along_the_velocity(case: tuple, name: str) -> None:
    net, rho, V, x, y = case
    system = systems.SYSTEMS[name]
    state = system.start(networks.compose(rho, V))

    def l_of(state: Params) -> torch.Tensor:
        return -torch.logsumexp(-y * net(system.weights(state), x), dim=0)

    G = systems.unconstrained(net, system.weights(state), x, y)
    velocity = system.velocity(state, G)
    slopes = torch.func.grad(l_of)(state)
    derivative = sum(float((slopes[k] * velocity[k]).sum()) for k in state)
    assert system.rate(state, velocity) == pytest.approx(derivative, rel=1e-10, abs=1e-12)
    assert system.rate(state, velocity) >= 0


@settings(deadline=None, max_examples=30)
@given(cases())
def test_imbalance_is_the_norm_of_the_weighted_pulls(case: tuple) -> None:
    from companion.dynamics import margin

    net, rho, V, x, y = case
    W = networks.compose(rho, V)
    terms = margin.stationarity_terms(net, V, x, y)
    p = torch.softmax(-y * net(W, x), dim=0)
    found = systems.imbalance(W, systems.unconstrained(net, W, x, y))
    assert found == pytest.approx(margin.combination_norm(terms, p), rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("name", ["multipliers", "weight_normalization"])
def test_b_conserves_what_it_should_and_ends_where_kkt_says(name: str) -> None:
    net, points = MLP(widths=(2, 8, 1)), data.three_points()
    path = gradient_flow(net, net.init(seed=1), points.x, points.y, until=LogLoss(-50), system=name)
    assert path.norm_drift < 1e-13 and path.smoothed_margin_fall == 0
    assert float(path.hard_margin[-1]) > 0


def test_polar_coordinates_follow_the_curve_of_the_weights() -> None:
    net = MLP(widths=(2, 3, 1), activation="linear")
    first, second = (
        stiff_flow(net, net.init(seed=0), *THREE[:2], until=LogNorm(2.0), system=name, rtol=1e-11)
        for name in ("unconstrained", "polar")
    )
    for name, W in first.params.items():
        torch.testing.assert_close(second.params[name], W, rtol=0, atol=1e-8)


def test_dynamics_a_keep_the_norms_and_come_to_rest_where_the_loss_is_smallest() -> None:
    """On the circle of directions the balance of the pulls is the root of a scalar equation."""
    rho, rows = 50.0, THREE.x.numpy()

    def slope(angle: float) -> float:
        v, turn = (
            np.array([np.cos(angle), np.sin(angle)]),
            np.array([-np.sin(angle), np.cos(angle)]),
        )
        return float(softmax(-rho * rows @ v) @ (rows @ turn))

    expected = brentq(slope, -0.1, 0.1, xtol=1e-15)
    start = {"W1": rho * torch.tensor([[0.8, 0.6]], dtype=torch.float64)}
    path = gradient_flow(LINEAR, start, *THREE[:2], until=Rest(1e-9), system="fixed_norm")
    angle = math.atan2(float(path.params["W1"][0, 1]), float(path.params["W1"][0, 0]))
    assert angle == pytest.approx(expected, rel=1e-7)
    assert angle == pytest.approx(
        -math.log(2) / (3 * rho), rel=0.02
    )  # its limit, times 1 + O(1/rho)
    torch.testing.assert_close(path.rho, torch.full_like(path.rho, rho), rtol=1e-14, atol=0)


def test_conditions_on_norm_and_rest() -> None:
    path = gradient_flow(
        LINEAR, LINEAR.init(seed=0), THREE.x, THREE.y, until=LogNorm(math.log(20.0))
    )
    assert path.rho[-1, 0] >= 20 > path.rho[-2, 0]
    assert not LogNorm(1.0).reached(-5.0, 3.0) and not Rest(1.0).reached(-5.0, 3.0)
    for condition, error, message in (
        (lambda: LogNorm("a"), TypeError, "value must be a number"),
        (lambda: LogNorm(math.inf), ValueError, "value must be finite"),
        (lambda: Rest(0.0), ValueError, "value must be finite and greater than 0"),
    ):
        with pytest.raises(error, match=message):
            condition()


def test_invalid_arguments() -> None:
    V = {"W1": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    one = torch.ones(1, dtype=torch.float64)
    for call, error, message in (
        (lambda: systems.named("C"), ValueError, "system must be one of"),
        (
            lambda: systems.WeightNormalization(0.0),
            ValueError,
            "v_norm must be finite and greater than 0",
        ),
        (lambda: systems.multipliers(LINEAR, -one, V, *THREE[:2]), ValueError, "rho must be pos"),
        (lambda: systems.polar(LINEAR, one[[0, 0]], V, *THREE[:2]), ValueError, "rho must have"),
        (
            lambda: gradient_flow(LINEAR, V, *THREE[:2], until=LogLoss(-5), system="fixed_norm"),
            ValueError,
            "until must be a Rest or a LogTime for a system that settles",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
    path = gradient_flow(LINEAR, V, *THREE[:2], until=LogTime(5.0), system="fixed_norm")
    assert path.reached and float(path.log_time[-1]) >= 5
