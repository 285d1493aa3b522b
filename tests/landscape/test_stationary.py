"""Radial gradients, curvature bounds, ideals and the slide's Hessian against independent means."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import data, losses, networks
from companion.landscape import hessian, stationary

MLP = networks.MLP
seeds = st.integers(0, 10_000)
depths = st.integers(1, 4)
activations = st.sampled_from(["relu", "linear", "leaky_relu"])


def problem(seed: int, depth: int, activation: str = "relu", scale: float = 1.0):
    """A small random network and data that it need not separate."""
    generator = torch.Generator().manual_seed(seed)
    net = MLP(widths=(3, *[4] * (depth - 1), 1), activation=activation)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    return net, net.init(seed=seed, scale=scale), x, y


def separated(seed: int, depth: int, activation: str = "relu"):
    """The same network with the labels that it gives itself, and none of its outputs zero."""
    net, params, x, _ = problem(seed, depth, activation)
    f = net(params, x)
    keep = f.abs() > 1e-3
    if not keep.any():
        return None
    return net, params, x[keep], torch.sign(f[keep])


# --- the radial part of the gradient -------------------------------------------------------------


@given(seeds, depths, activations)
@settings(max_examples=25, deadline=None)
def test_radial_part_is_that_of_autograd(seed: int, depth: int, activation: str) -> None:
    net, params, x, y = problem(seed, depth, activation)

    def loss(W):
        return torch.exp(-y * net(W, x)).mean()

    gradient, value = torch.func.grad(loss)(params), loss(params)
    found = stationary.radial_part(net, params, x, y)
    scale = math.exp(found.log_scale)
    assert scale == pytest.approx(float(value), rel=1e-12)
    m = y * net(params, x)
    expected = float((m * torch.exp(-m)).mean())
    for k, name in enumerate(net.layer_names):
        along = -float((params[name] * gradient[name]).sum())
        assert scale * found.radial == pytest.approx(along, rel=1e-9, abs=1e-12)
        size = float(params[name].norm() * gradient[name].norm())
        assert scale * found.norms[k] == pytest.approx(size, rel=1e-9, abs=1e-12)
    assert scale * found.radial == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(seeds, depths, activations, st.sampled_from(losses.KINDS))
@settings(max_examples=25, deadline=None)
def test_gradient_is_never_below_its_radial_part(seed, depth, activation, loss) -> None:
    net, params, x, y = problem(seed, depth, activation)
    found = stationary.radial_part(net, params, x, y, loss=loss)
    assert (found.norms >= abs(found.radial) * (1 - 1e-12) - 1e-14).all()


@given(seeds, depths)
@settings(max_examples=15, deadline=None)
def test_separating_weights_are_not_stationary(seed: int, depth: int) -> None:
    if (found := separated(seed, depth)) is None:
        return
    assert stationary.radial_part(*found).radial > 0
    assert stationary.radial_part(*found, loss="logistic").radial > 0


def test_equality_for_a_single_parallel_sample() -> None:
    net, x = MLP(widths=(2, 1)), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    found = stationary.radial_part(net, {"W1": 2 * x}, x, torch.ones(1, dtype=torch.float64))
    assert found.norms[0] == pytest.approx(found.radial, rel=1e-14)
    assert found.radial == pytest.approx(50.0)  # m = 2 * 25, and the loss is taken out


def test_radial_part_far_below_underflow() -> None:
    net, params, x, y = separated(0, 2)
    far = stationary.to_log_loss(net, params, x, y, -2000.0)
    found = stationary.radial_part(net, far, x, y)
    assert found.log_scale == pytest.approx(-2000.0, rel=1e-12)
    m = y * net(far, x)
    assert found.radial == pytest.approx(float((torch.softmax(-m, 0) * m).sum()), rel=1e-12)


def test_a_weight_that_does_not_separate_can_be_stationary() -> None:
    x = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64)
    W = {"W1": torch.tensor([[2 / 3 * math.log(2)]], dtype=torch.float64)}
    found = stationary.radial_part(MLP(widths=(1, 1)), W, x, y)
    assert abs(found.radial) < 1e-15 and found.norms[0] < 1e-15


# --- points on a ray -----------------------------------------------------------------------------


@given(seeds, depths, st.floats(0.01, 1e5))
@settings(max_examples=25, deadline=None)
def test_point_of_the_ray_has_the_loss(seed: int, depth: int, level: float) -> None:
    if (found := separated(seed, depth)) is None:
        return
    net, params, x, y = found
    at = stationary.to_log_loss(net, params, x, y, -level)
    reached = losses.log_loss(y * net(at, x), reduction="mean")
    assert float(reached) == pytest.approx(-level, rel=1e-11)
    c = at["W1"] / params["W1"]
    torch.testing.assert_close(c, c[0, 0].expand_as(c), rtol=1e-12, atol=0)


def test_ray_of_a_single_sample() -> None:
    net, one = MLP(widths=(1, 1, 1)), torch.ones(1, 1, dtype=torch.float64)
    at = stationary.to_log_loss(net, {"W1": one, "W2": 2 * one}, one, one[0], -50.0)
    assert float(at["W1"]) == pytest.approx(5.0) and float(at["W2"]) == pytest.approx(10.0)


def test_ray_needs_separating_weights() -> None:
    net, params, x, y = problem(0, 2)
    with pytest.raises(ValueError, match="params must separate the data, got a smallest margin"):
        stationary.to_log_loss(net, params, x, y, -10.0)
    net, params, x, y = separated(0, 2)
    with pytest.raises(ValueError, match="-log_loss must be finite and greater than 0"):
        stationary.to_log_loss(net, params, x, y, 1.0)


# --- the Hessian in the norms --------------------------------------------------------------------


def restricted(net, params, x, y) -> torch.Tensor:
    """<V_j, H V_k> with the full Hessian, over L."""
    H = hessian.hessian(net, params, x, y)
    V = networks.directions(params)
    columns = [
        hessian.flatten({n: V[n] if n == name else 0 * V[n] for n in V}) for name in net.layer_names
    ]
    R = torch.stack(columns, dim=1)
    return R.T @ H.matrix @ R


@given(seeds, depths, activations)
@settings(max_examples=20, deadline=None)
def test_norm_hessian_is_a_restriction_of_the_hessian(seed, depth, activation) -> None:
    net, params, x, y = problem(seed, depth, activation)
    found = stationary.norm_hessian(net, params, x, y)
    expected = restricted(net, params, x, y)
    scale = float(expected.abs().max()) + 1e-12
    torch.testing.assert_close(found.matrix / scale, expected / scale, rtol=0, atol=1e-11)


def test_norm_hessian_in_symbols() -> None:
    rho, f = sympy.symbols("rho_1:4", positive=True), sympy.symbols("f_1:3")
    L = sum(sympy.exp(-sympy.prod(rho) * v) for v in f) / 2
    m = [sympy.prod(rho) * v for v in f]
    first = sum(a * sympy.exp(-a) for a in m) / 2
    second = sum(a**2 * sympy.exp(-a) for a in m) / 2
    for j in range(3):
        for k in range(3):
            entry = (second - (first if j != k else 0)) / (rho[j] * rho[k])
            assert sympy.expand(L.diff(rho[j], rho[k]) - entry) == 0


def test_norm_hessian_refuses_a_zero_layer() -> None:
    net, params, x, y = problem(0, 2)
    with pytest.raises(ValueError, match="must have a positive finite norm"):
        stationary.norm_hessian(net, {**params, "W2": 0 * params["W2"]}, x, y)


@given(seeds, st.integers(2, 4))
@settings(max_examples=15, deadline=None)
def test_inertia_where_the_data_are_separated(seed: int, depth: int) -> None:
    """K - 1 positive eigenvalues, the last one positive exactly if K M_2 > (K - 1) M_1."""
    if (found := separated(seed, depth)) is None:
        return
    net, params, x, y = found
    m = y * net(params, x)
    first, second = (m * torch.exp(-m)).mean(), (m**2 * torch.exp(-m)).mean()
    gap = float((depth * second - (depth - 1) * first) / first)
    if abs(gap) < 1e-6:
        return
    values = torch.linalg.eigvalsh(stationary.norm_hessian(net, params, x, y).matrix)
    assert (values[1:] > 0).all()
    assert (values[0] > 0) == (gap > 0)


# --- bounds --------------------------------------------------------------------------------------


@given(seeds, depths, activations)
@settings(max_examples=25, deadline=None)
def test_bounds_hold_the_largest_eigenvalue(seed: int, depth: int, activation: str) -> None:
    net, params, x, y = problem(seed, depth, activation)
    bounds = stationary.curvature_bounds(net, params, x, y)
    eigenvalues = hessian.spectrum(net, params, x, y).eigenvalues
    room = 1e-10 * bounds.upper
    assert float(bounds.per_layer.max()) <= bounds.lower + room
    assert bounds.lower <= float(eigenvalues[-1]) + room
    assert float(eigenvalues.abs().max()) <= bounds.upper * (1 + 1e-12)


def test_bounds_meet_for_one_parallel_sample() -> None:
    net, x = MLP(widths=(2, 1)), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    bounds = stationary.curvature_bounds(net, {"W1": x}, x, torch.ones(1, dtype=torch.float64))
    assert bounds.lower == pytest.approx(25.0) and bounds.upper == pytest.approx(25.0)


def test_bounds_are_for_mlps() -> None:
    net = networks.Diagonal(d=3, num_layers=2)
    _, _, x, y = problem(0, 2)
    with pytest.raises(TypeError, match="net must be an MLP, got Diagonal"):
        stationary.curvature_bounds(net, net.init(seed=0), x, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(6, dtype=torch.float64)}, "y must hold only the labels"),
        ({"y": torch.ones(5, dtype=torch.float64)}, "y must have shape"),
        ({"x": torch.full((6, 3), math.nan, dtype=torch.float64)}, "x must be finite"),
        ({"net": MLP(widths=(3, 4, 2))}, "net must have one output, got 2"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        stationary.radial_part,
        stationary.norm_hessian,
        stationary.curvature_bounds,
        stationary.slide_hessian,
    ],
)
def test_bad_input_is_named(function, change: dict, message: str) -> None:
    net, params, x, y = problem(0, 2)
    given_ = {"net": net, "params": params, "x": x, "y": y} | change
    with pytest.raises(ValueError, match=message):
        function(*given_.values())
    with pytest.raises(ValueError, match=r"params\['W1'\] must be finite"):
        function(net, {**params, "W1": params["W1"] / 0}, x, y)


# --- the Hessian along a ray, in high precision --------------------------------------------------


def eigenvalues_in_high_precision(a, b, x, y) -> tuple[mpmath.mpf, mpmath.mpf]:
    """log of the largest and of minus the smallest eigenvalue, f = sum_i a_i (b_i . x), mpmath."""
    h, d = b.shape
    mpmath.mp.dps = 60
    A, B = [mpmath.mpf(float(v)) for v in a], mpmath.matrix(b.tolist())
    H, size = mpmath.zeros(h * d + h), h * d + h
    for point, label in zip(x.tolist(), y.tolist(), strict=True):
        X = [mpmath.mpf(v) for v in point]
        hidden = [sum(B[i, j] * X[j] for j in range(d)) for i in range(h)]
        m = label * sum(A[i] * hidden[i] for i in range(h))
        g = [label * A[i] * X[j] for i in range(h) for j in range(d)]
        g += [label * value for value in hidden]
        p = mpmath.exp(-m) / len(y)
        for r in range(size):
            for s in range(size):
                H[r, s] += p * g[r] * g[s]
        for i in range(h):
            for j in range(d):
                r, s = i * d + j, h * d + i
                H[r, s] -= p * label * X[j]
                H[s, r] -= p * label * X[j]
    # mpmath's QR iteration compares with absolute numbers: bring the matrix to size one first.
    scale = max(abs(entry) for entry in H)
    found = mpmath.eigsy(H / scale, eigvals_only=True)
    values = [value * scale for value in found]
    return mpmath.log(max(values)), mpmath.log(-min(values))


@pytest.mark.parametrize("level", [1.0, 300.0, 1000.0, 5000.0])
def test_both_ends_of_the_spectrum_along_a_ray(level: float) -> None:
    net = MLP(widths=(2, 2, 1), activation="linear")
    points = data.three_points()
    start = {
        "W1": torch.tensor([[1.0, 0.25], [0.5, -0.125]], dtype=torch.float64),
        "W2": torch.tensor([[1.0, 0.5]], dtype=torch.float64),
    }
    at = stationary.to_log_loss(net, start, points.x, points.y, -level)
    found = hessian.spectrum(net, at, points.x, points.y)
    top, bottom = eigenvalues_in_high_precision(at["W2"][0], at["W1"], points.x, points.y)
    largest = math.log(found.eigenvalues[-1]) + found.log_scale
    smallest = math.log(-found.eigenvalues[0]) + found.log_scale
    assert largest == pytest.approx(float(top), abs=1e-9)
    assert smallest == pytest.approx(float(bottom), abs=1e-9)


@given(seeds, st.integers(1, 4), activations)
@settings(max_examples=15, deadline=None)
def test_trace_is_that_of_the_squares(seed: int, depth: int, activation: str) -> None:
    """f is linear in each single weight: its second derivatives have no diagonal."""
    net, params, x, y = problem(seed, depth, activation)
    H = hessian.hessian(net, params, x, y).matrix
    squares = (hessian.jacobian(net, params, x) ** 2).sum(dim=1)
    expected = (losses.example_weights(y * net(params, x)) * squares).sum()
    assert float(H.trace()) == pytest.approx(float(expected), rel=1e-10, abs=1e-12)


# --- the slide's Hessian -------------------------------------------------------------------------


@given(seeds, st.integers(1, 3), activations)
@settings(max_examples=15, deadline=None)
def test_labelled_slide_is_minus_the_hessian(seed: int, depth: int, activation: str) -> None:
    net, params, x, y = problem(seed, depth, activation)

    def flow(theta: torch.Tensor) -> torch.Tensor:  # the right-hand side, from autograd
        def loss(t):
            return torch.exp(-y * net(hessian.unflatten(t, params), x)).sum()

        return -torch.func.grad(loss)(theta)

    linearization = torch.func.jacfwd(flow)(hessian.flatten(params))
    found = stationary.slide_hessian(net, params, x, y, labelled=True)
    scale = float(linearization.abs().max())
    error = math.exp(found.log_scale) * found.matrix - linearization
    assert float(error.abs().max()) <= 1e-12 * scale


def test_printed_slide_is_right_where_all_labels_are_one() -> None:
    net, params, x, y = problem(3, 3)
    one = torch.ones_like(y)
    printed = stationary.slide_hessian(net, params, x, one)
    right = stationary.slide_hessian(net, params, x, one, labelled=True)
    assert torch.equal(printed.matrix, right.matrix)
    printed = stationary.slide_hessian(net, params, x, y)
    right = stationary.slide_hessian(net, params, x, y, labelled=True)
    assert (printed.matrix - right.matrix).abs().max() > 0.1


# --- ideals --------------------------------------------------------------------------------------


def test_critical_ideal_of_the_product_is_that_of_manifold_and_axes() -> None:
    w = sympy.symbols("w_1:4")
    p = sympy.prod(w)
    gradient = [sympy.expand(((p - 1) ** 2).diff(v) / 2) for v in w]
    axes = [[w[0], w[1]], [w[0], w[2]], [w[1], w[2]]]
    found = stationary.intersect_ideals([[p - 1], *axes], w)
    assert set(found) == set(sympy.groebner(gradient, *w, order="grevlex").exprs)
    crossing = stationary.intersect_ideals(axes, w)
    assert set(crossing) == {w[0] * w[1], w[0] * w[2], w[1] * w[2]}


def test_intersection_of_principal_ideals_is_the_least_common_multiple() -> None:
    a, b = sympy.symbols("a b")
    f, g = (a - b) ** 2 * (a + 1), (a - b) * (b + 2)
    (found,) = stationary.intersect_ideals([[f], [g]], [a, b])
    assert sympy.expand(found - sympy.lcm(f, g)) == 0


def test_intersection_needs_ideals() -> None:
    (a,) = sympy.symbols("a,")
    for ideals in ([], [[a], []]):
        with pytest.raises(ValueError, match="at least one ideal, none of them empty"):
            stationary.intersect_ideals(ideals, [a])


def test_numbers_are_float64_and_repeat() -> None:
    net, params, x, y = problem(1, 3)
    first, again = (stationary.norm_hessian(net, params, x, y).matrix for _ in range(2))
    assert first.dtype == torch.float64 and torch.equal(first, again)
    assert np.isfinite(first.numpy()).all()
