"""The constrained problem against autograd, root finding, finite differences and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from companion import data, losses
from companion.dynamics import constrained, systems
from companion.networks import MLP, Diagonal, compose, directions, layer_norms

THREE = data.three_points()
LINEAR = MLP(widths=(2, 1))
HIDDEN = MLP(widths=(2, 3, 1), activation="linear")


def problem(widths: tuple[int, ...], num: int, seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    net = MLP(widths=widths)
    x = torch.randn(num, widths[0], generator=generator, dtype=torch.float64)
    y = torch.sign(torch.randn(num, generator=generator, dtype=torch.float64))
    return net, net.init(seed=seed), x, y


networks_of_all_sizes = st.tuples(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(lambda hidden: (*hidden, 1)),
    st.integers(1, 6),
    st.integers(0, 10_000),
)


def project(V: dict, gradient: dict) -> dict:
    return {k: gradient[k] - (gradient[k] * V[k]).sum() * V[k] for k in V}


def close(found: torch.Tensor, exact: torch.Tensor, scale: torch.Tensor) -> None:
    """Equal to 1e-12 of the size that the terms of a difference have."""
    assert float((found - exact).norm()) <= 1e-12 * max(float(scale.norm()), 1e-300)


@given(networks_of_all_sizes, st.floats(0.1, 20.0))
@settings(deadline=None, max_examples=20)
def test_eqs_1_3_6_7_are_derivatives_of_the_loss(drawn: tuple, rho: float) -> None:
    net, W, x, y = problem(*drawn)
    rho_k, V = layer_norms(W), directions(W)

    slope = torch.func.grad(lambda w: losses.log_loss(y * net(w, x)))(W)  # log L: no scale to carry
    for name, part in systems.unconstrained(net, W, x, y).items():
        close(part, -slope[name], slope[name])

    def polar_loss(r: torch.Tensor, v: dict) -> torch.Tensor:
        return losses.log_loss(y * r.prod() * net(v, x))

    # Sums over samples may cancel: errors are measured against the sum of the sizes of the terms.
    d_rho, d_V = torch.func.grad(polar_loss, argnums=(0, 1))(rho_k, V)
    B = systems.multipliers(net, rho_k, V, x, y)
    WN = systems.weight_normalization(net, rho_k, V, x, y)
    size = 1 + rho_k.prod() * net(V, x).abs().max()
    close(B.rho, -d_rho, size * (1 + 1 / rho_k))
    close(B.rho, WN.rho, size * (1 + 1 / rho_k))
    for name, part in project(V, d_V).items():
        close(B.V[name], -part, size * (1 + d_V[name].norm()))
        close(B.V[name], WN.V[name], size * (1 + d_V[name].norm()))

    equal = constrained.equal_norms(net, rho)
    A = systems.fixed_norm(net, equal, V, x, y)
    d_A = torch.func.grad(lambda v: losses.log_loss(rho * y * net(v, x)))(V)
    for name, part in project(V, d_A).items():
        close(A[name], -part, size * (1 + d_A[name].norm()))


@given(networks_of_all_sizes, st.floats(0.1, 5.0))
@settings(deadline=None, max_examples=20)
def test_multiplier_keeps_every_layer_on_its_sphere(drawn: tuple, rho: float) -> None:
    net, W, x, y = problem(*drawn)
    V = directions(W)
    zero = torch.zeros(net.K, dtype=torch.float64)
    free = torch.func.grad(lambda v: constrained.lagrangian(net, rho, v, zero, x, y))(V)
    found = constrained.multiplier(net, rho, V, x, y)
    size = 1 + rho * float((net(V, x).abs() * torch.exp(-rho * y * net(V, x))).max())
    for name in V:
        assert abs(found + float((V[name] * free[name]).sum()) / 2) <= 1e-12 * size


def test_lagrangian_is_the_loss_on_the_spheres_and_has_its_penalty_off_them() -> None:
    net, W, x, y = problem((3, 4, 1), 5, 0)
    V, lambdas = directions(W), torch.tensor([0.7, -0.2], dtype=torch.float64)
    loss = float(torch.exp(-2.0 * y * net(V, x)).mean())
    assert float(constrained.lagrangian(net, 2.0, V, lambdas, x, y)) == pytest.approx(
        loss, rel=1e-13
    )
    off = {"W1": 2 * V["W1"], "W2": 3 * V["W2"]}
    loss = float(torch.exp(-2.0 * y * net(off, x)).mean())
    expected = loss + 0.7 * (4 - 1) - 0.2 * (9 - 1)
    assert float(constrained.lagrangian(net, 2.0, off, lambdas, x, y)) == pytest.approx(
        expected, rel=1e-13
    )


# --- rest points ---------------------------------------------------------------------------------


def log_loss_at(angle: float, rho: float) -> float:
    margins = THREE.x.numpy() @ np.array([math.cos(angle), math.sin(angle)])
    return float(np.logaddexp.reduce(-rho * margins))


def turning(angle: float, rho: float) -> float:
    """Derivative of log L along the circle, by hand."""
    margins = THREE.x.numpy() @ np.array([math.cos(angle), math.sin(angle)])
    slopes = THREE.x.numpy() @ np.array([-math.sin(angle), math.cos(angle)])
    weights = np.exp(-rho * (margins - margins.min()))
    return float(-rho * weights @ slopes / weights.sum())


@pytest.mark.parametrize("rho", [1.0, 10.0, 300.0])
def test_rest_point_is_the_root_of_the_derivative_on_the_circle(rho: float) -> None:
    V = constrained.rest_point(LINEAR, rho, LINEAR.init(seed=0), THREE.x, THREE.y)
    exact = brentq(turning, -0.6, 0.6, args=(rho,), xtol=1e-16, rtol=1e-15)
    assert math.atan2(*V["W1"][0].flip(0).tolist()) == pytest.approx(exact, abs=1e-12)
    assert constrained.rest_residual(LINEAR, rho, V, THREE.x, THREE.y) < 1e-11


def test_one_linear_layer_has_a_second_minimum_that_does_not_separate() -> None:
    """A point of rest of dynamics A with a negative multiplier, where x_2 is misclassified."""
    V = constrained.rest_point(LINEAR, 10.0, LINEAR.init(seed=4), THREE.x, THREE.y)
    exact = minimize_scalar(log_loss_at, bounds=(2.0, 2.6), args=(10.0,), method="bounded").x
    assert math.atan2(*V["W1"][0].flip(0).tolist()) == pytest.approx(exact, abs=1e-4)
    assert float((THREE.x @ V["W1"][0]).min()) < -2
    assert constrained.multiplier(LINEAR, 10.0, V, THREE.x, THREE.y) < 0
    assert float(constrained.sphere_hessian(LINEAR, 10.0, V, THREE.x, THREE.y)) > 100


def test_hidden_layer_leaves_the_product_unique_and_the_layers_free() -> None:
    found = [
        constrained.rest_point(HIDDEN, 10.0, HIDDEN.init(seed=seed), THREE.x, THREE.y)
        for seed in (0, 1)
    ]
    products = [V["W2"] @ V["W1"] for V in found]
    torch.testing.assert_close(products[0], products[1], rtol=0, atol=1e-11)
    assert float((found[0]["W1"] - found[1]["W1"]).norm()) > 0.5
    values = torch.linalg.eigvalsh(
        constrained.sphere_hessian(HIDDEN, 10.0, found[0], THREE.x, THREE.y)
    )
    assert float(values[:2].abs().max()) < 1e-9 * float(values[-1]) < 1e-2 * float(values[2])


def test_residual_is_the_distance_between_the_sides() -> None:
    net, W, x, y = problem((3, 4, 1), 5, 1)
    rho_k = torch.tensor([2.0, 1.5]).double()
    V = directions(W)
    sides = constrained.sides_of_eq_4(net, 3.0, V, x, y)
    A = systems.fixed_norm(net, rho_k, V, x, y)
    for name in V:
        torch.testing.assert_close(
            3.0 * (sides.left[name] - sides.right[name]), A[name], rtol=0, atol=1e-13
        )
    gradient = systems.unconstrained(net, compose(rho_k, V), x, y)
    assert constrained.rest_residual(net, 3.0, V, x, y) == pytest.approx(
        systems.imbalance(compose(rho_k, V), gradient), rel=1e-12
    )


def test_hessian_is_the_second_difference_along_great_circles() -> None:
    net, V = HIDDEN, directions(HIDDEN.init(seed=5))
    tensors = list(V.values())
    values = torch.linalg.eigvalsh(constrained.sphere_hessian(net, 2.0, V, THREE.x, THREE.y))
    assert values.shape == (net.num_params - net.K,)

    def along(tangents: list, s: float) -> float:
        at = {}
        for (name, V_k), u in zip(V.items(), tangents, strict=True):
            size = float(u.norm())
            at[name] = math.cos(s * size) * V_k + math.sin(s * size) * u / size
        return float(torch.logsumexp(-2.0 * THREE.y * net(at, THREE.x), dim=0))

    generator, quotients = torch.Generator().manual_seed(0), []
    for _ in range(20):
        raw = [torch.randn(W.shape, generator=generator, dtype=torch.float64) for W in tensors]
        free = [u - (u * W).sum() * W for u, W in zip(raw, tensors, strict=True)]
        size = math.sqrt(sum(float((u**2).sum()) for u in free))
        free = [u / size for u in free]
        h = 1e-4
        quotients.append((along(free, h) - 2 * along(free, 0) + along(free, -h)) / h**2)
    assert float(values[0]) - 1e-5 < min(quotients) < max(quotients) < float(values[-1]) + 1e-5
    # the mean over many directions is the trace over the dimension; here an exact one in 2-D
    circle = constrained.sphere_hessian(LINEAR, 3.0, {"W1": THREE.direction[None]}, *THREE[:2])
    second = (log_loss_at(1e-4, 3.0) - 2 * log_loss_at(0, 3.0) + log_loss_at(-1e-4, 3.0)) / 1e-8
    assert float(circle) == pytest.approx(second, rel=1e-5)


# --- off the spheres, and along the paths --------------------------------------------------------


def test_norms_follow_their_own_equation() -> None:
    """d|V|^2/dtau = 2 rho pull (1 - |V|^2), so log of the excess is minus 2 rho int pull."""
    V = {"W1": torch.tensor([[1.2, 0.3]]).double()}
    path = constrained.follow_norms(LINEAR, 2.0, V, THREE.x, THREE.y, until=0.5, records=201)
    excess = (path.norms[:, 0] ** 2 - 1).abs().log()
    pull = torch.cumulative_trapezoid(path.pull, path.tau)
    torch.testing.assert_close(excess[1:] - excess[0], -4.0 * pull, rtol=0, atol=1e-4)


def test_sphere_repels_where_the_margins_are_negative_on_average() -> None:
    V = {"W1": torch.tensor([[-0.95, 0.3]]).double()}
    for size, grows in ((0.9, False), (1.1, True)):
        at = {"W1": size * directions(V)["W1"]}
        path = constrained.follow_norms(LINEAR, 2.0, at, THREE.x, THREE.y, until=0.1)
        assert float(path.pull.max()) < 0
        assert bool((path.norms[:, 0].diff() > 0).all()) == grows


def test_crossings_lie_on_their_radii_and_on_one_path() -> None:
    start = LINEAR.init(seed=0)
    both = constrained.crossings(
        LINEAR, start, THREE.x, THREE.y, [2.0, 5.0], system="multipliers", rtol=1e-9
    )
    (directly,) = constrained.crossings(
        LINEAR, start, THREE.x, THREE.y, [5.0], system="multipliers", rtol=1e-9
    )
    for R, W in zip((2.0, 5.0), both, strict=True):
        assert float(W["W1"].norm()) == pytest.approx(R, rel=1e-7)
    assert constrained.angle(both[1], directly) < 1e-6


@pytest.mark.parametrize(("system", "power"), [("unconstrained", 2), ("multipliers", 4)])
def test_lag_behind_the_rest_point(system: str, power: int) -> None:
    """log(2)/6 over R^2 and R^4, up to 1/R: see the chapter's derivation."""
    R = 40.0
    (W,) = constrained.crossings(
        LINEAR, LINEAR.init(seed=0), THREE.x, THREE.y, [R], system=system, rtol=1e-9
    )
    V = constrained.rest_point(LINEAR, R, W, THREE.x, THREE.y)
    assert constrained.angle(W, V) * R**power == pytest.approx(math.log(2) / 6, rel=0.06)


def test_angle() -> None:
    a = {"W1": torch.tensor([[1.0, 0.0]]).double()}
    b = {"W1": torch.tensor([[3.0, 3e-12]]).double()}
    assert constrained.angle(a, b) == pytest.approx(1e-12, rel=1e-9)
    assert constrained.angle(a, {"W1": -a["W1"]}) == pytest.approx(math.pi, rel=1e-15)


# --- bad input ----------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    V = {"W1": THREE.direction[None]}
    one = torch.ones(1, dtype=torch.float64)
    x, y = THREE.x, THREE.y
    with pytest.raises(ValueError, match="rho must be finite and greater than 0"):
        constrained.multiplier(LINEAR, 0.0, V, x, y)
    with pytest.raises(ValueError, match=r"multipliers must have shape \(1,\)"):
        constrained.lagrangian(LINEAR, 1.0, V, torch.ones(2).double(), x, y)
    with pytest.raises(ValueError, match="labels -1 and"):
        constrained.lagrangian(LINEAR, 1.0, V, one, x, 2 * y)
    with pytest.raises(ValueError, match=r"V\['W1'\] must have norm 1"):
        constrained.sides_of_eq_4(LINEAR, 1.0, {"W1": 2 * V["W1"]}, x, y)
    with pytest.raises(ValueError, match=r"V\['W1'\] must have norm 1"):
        constrained.sphere_hessian(LINEAR, 1.0, {"W1": 2 * V["W1"]}, x, y)
    with pytest.raises(ValueError, match="V.*must be finite"):
        constrained.multiplier(LINEAR, 1.0, {"W1": math.nan * V["W1"]}, x, y)
    with pytest.raises(ValueError, match="radii must ascend"):
        constrained.crossings(LINEAR, V, x, y, [5.0, 2.0], system="multipliers")
    with pytest.raises(ValueError, match="radii must ascend"):
        constrained.crossings(LINEAR, V, x, y, [0.5], system="multipliers")
    with pytest.raises(ValueError, match="records must be at least 2"):
        constrained.follow_norms(LINEAR, 1.0, V, x, y, until=1.0, records=1)
    with pytest.raises(ValueError, match="tol must be"):
        constrained.rest_point(LINEAR, 1.0, V, x, y, tol=0.0)
    with pytest.raises(ValueError, match='activation "linear"'):
        relu = MLP(widths=(2, 3, 1))
        constrained.rest_point(relu, 1.0, relu.init(seed=0), x, y)
    with pytest.raises(ValueError, match="same names and shapes"):
        constrained.angle(V, {"W2": V["W1"]})
    with pytest.raises(RuntimeError, match="above tol"):
        constrained.rest_point(LINEAR, 1.0, V, x, y, tol=1e-300)


def test_diagonal_networks_rest_too() -> None:
    net = Diagonal(d=2, num_layers=2)
    V = constrained.rest_point(net, 5.0, net.init(seed=0), *data.three_points()[:2])
    assert constrained.rest_residual(net, 5.0, V, *data.three_points()[:2]) < 1e-12
