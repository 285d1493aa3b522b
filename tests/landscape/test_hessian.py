"""Hessians against mpmath, finite differences and curvlinops; Lanczos against full spectra."""

from __future__ import annotations

import math
from collections.abc import Callable

import curvlinops
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh
from torch import Tensor

from companion import data, networks, training
from companion.dynamics import descent, flow
from companion.landscape import hessian as hs
from companion.networks import MLP, ConvNet, Diagonal, Network, Params

SCALAR = ("square", "exponential", "logistic")
EVERY = (*SCALAR, "cross_entropy")


def problem(
    loss: str, net: Network, *, num_points: int = 9, seed: int = 0, scale: float = 1.0
) -> tuple[Params, Tensor, Tensor]:
    """Random parameters, points, and labels of the kind that the loss takes."""
    rng = torch.Generator().manual_seed(seed)
    d = {MLP: lambda: net.widths[0], Diagonal: lambda: net.d}.get(
        type(net), lambda: math.prod(net.input_shape)
    )()
    x = torch.randn(num_points, d, generator=rng, dtype=torch.float64)
    params = net.init(seed=seed, scale=scale)
    f = net(params, x)
    if loss == "cross_entropy":
        return params, x, torch.randint(f.shape[1], (num_points,), generator=rng)
    if loss == "square":
        return params, x, torch.randn(f.shape, generator=rng, dtype=torch.float64)
    return params, x, torch.where(torch.rand(num_points, generator=rng) < 0.5, -1.0, 1.0).double()


def of_outputs(loss: str, f: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The loss itself, unscaled, written with torch's own functions."""
    each = {
        "square": lambda: (f - y) ** 2,
        "exponential": lambda: torch.exp(-y * f),
        "logistic": lambda: torch.nn.functional.softplus(-y * f),
        "cross_entropy": lambda: torch.nn.functional.cross_entropy(f, y, reduction="none"),
    }[loss]()
    return each.sum() / (len(f) if reduction == "mean" else 1)


def outputs_for(loss: str) -> int:
    return 3 if loss == "cross_entropy" else 1


def plain(net: Network) -> hs.Model:
    """The same function, which the package does not know to be a network."""
    return lambda params, x: net(params, x)


def unscaled(curvature: hs.Curvature) -> Tensor:
    return math.exp(curvature.log_scale) * curvature.matrix


# --- the matrix ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_finite_differences_of_the_gradient(loss: str, reduction: str) -> None:
    net = MLP(widths=(4, 5, 4, outputs_for(loss)))
    params, x, y = problem(loss, net)

    def gradient(theta: Tensor) -> Tensor:
        at = theta.clone().requires_grad_()
        value = of_outputs(loss, net(hs.unflatten(at, params), x), y, reduction)
        return torch.autograd.grad(value, at)[0]

    theta, step = hs.flatten(params), 1e-6
    rows = [
        (gradient(theta + step * e) - gradient(theta - step * e)) / (2 * step)
        for e in torch.eye(len(theta), dtype=torch.float64)
    ]
    found = unscaled(hs.hessian(net, params, x, y, loss=loss, reduction=reduction))
    # Rounding of the gradient over the step, 1e-16 / 1e-6, and a truncation error of its square.
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-6, atol=1e-7)


NETS = [
    MLP(widths=(4, 1)),
    MLP(widths=(4, 6, 1), activation="linear"),
    MLP(widths=(3, 5, 4, 1), activation="leaky_relu"),
    MLP(widths=(4, 5, 3)),
    ConvNet(input_shape=(1, 4, 4), channels=(2, 2)),
    Diagonal(d=3, num_layers=3),
]


def kinds(net: Network) -> tuple[str, ...]:
    return SCALAR if net.num_outputs == 1 else ("square", "cross_entropy")


CASES = [(net, loss) for net in NETS for loss in kinds(net)]


@pytest.mark.parametrize(("net", "loss"), CASES)
def test_networks_take_a_short_cut_to_the_same_matrices(net: Network, loss: str) -> None:
    params, x, y = problem(loss, net)
    for function in (hs.hessian, hs.gauss_newton, hs.remainder):
        short, long = (function(f, params, x, y, loss=loss) for f in (net, plain(net)))
        torch.testing.assert_close(short.matrix, long.matrix, rtol=1e-11, atol=1e-12)
        assert short.log_scale == long.log_scale
        torch.testing.assert_close(short.matrix, short.matrix.T, rtol=0, atol=0)


@pytest.mark.parametrize(("net", "loss"), CASES)
def test_the_two_parts(net: Network, loss: str) -> None:
    params, x, y = problem(loss, net)
    H, G, R = (
        function(plain(net), params, x, y, loss=loss).matrix
        for function in (hs.hessian, hs.gauss_newton, hs.remainder)
    )
    torch.testing.assert_close(H, G + R, rtol=1e-11, atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(G)
    assert eigenvalues[0] >= -1e-13 * eigenvalues[-1]
    directions = net.num_outputs - (loss == "cross_entropy")
    assert torch.linalg.matrix_rank(G, hermitian=True) <= len(x) * directions
    for block in hs.layers(params).values():
        assert R[block, block].abs().max() == 0


def test_a_generic_model_has_no_zero_blocks() -> None:
    def smooth(params: Params, x: Tensor) -> Tensor:
        return torch.tanh(x @ params["w"]) + params["b"]

    params = {"w": torch.ones(2).double(), "b": torch.ones(1).double()}
    x, y = torch.eye(2).double(), torch.tensor([1.0, -1.0]).double()
    R = hs.remainder(smooth, params, x, y).matrix
    assert R[0, 0].abs() > 0.01
    H = hs.hessian(smooth, params, x, y)
    t, s = math.tanh(1.0), 1 - math.tanh(1.0) ** 2  # f, f' at both points
    up, down = math.exp(-t - 1), math.exp(t + 1)
    expected = torch.tensor(
        [
            [up * s**2 + up * 2 * t * s, 0, up * s],
            [0, down * s**2 - down * 2 * t * s, down * s],
            [up * s, down * s, up + down],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(unscaled(H), expected / 2, rtol=1e-12, atol=1e-13)


# --- far out: every exponential underflows -------------------------------------------------------


def exact(params: Params, x: Tensor, y: Tensor, loss: str, log_scale: float) -> np.ndarray:
    """Hessian of a two-layer ReLU network over exp(log_scale), in 60 digits, by pen and paper."""
    W, A = (params[name].tolist() for name in ("W1", "W2"))
    (C, h), d = (len(A), len(W)), len(W[0])
    P = h * d + C * h
    mp = mpmath.mp
    mp.dps = 60
    H = mp.zeros(P, P)
    for point, label in zip(x.tolist(), y.tolist(), strict=True):
        z = [mp.fsum(mp.mpf(w) * mp.mpf(v) for w, v in zip(row, point, strict=True)) for row in W]
        f = [mp.fsum(mp.mpf(a) * max(v, 0) for a, v in zip(row, z, strict=True)) for row in A]
        first, second = outer_derivatives(f, label, loss)
        J = mp.zeros(C, P)
        for c in range(C):
            for j in range(h):
                if z[j] <= 0:
                    continue
                J[c, h * d + c * h + j] = z[j]
                for i in range(d):
                    J[c, j * d + i] = mp.mpf(A[c][j]) * mp.mpf(point[i])
                    H[h * d + c * h + j, j * d + i] += first[c] * mp.mpf(point[i])
                    H[j * d + i, h * d + c * h + j] += first[c] * mp.mpf(point[i])
        H += J.T * second * J
    H *= mp.exp(-mp.mpf(log_scale)) / len(x)
    return np.array(H.tolist(), dtype=float)


def outer_derivatives(f: list, label: float, loss: str) -> tuple[list, mpmath.matrix]:
    mp = mpmath.mp
    if loss == "cross_entropy":
        total = mp.fsum(mp.exp(v) for v in f)
        p = [mp.exp(v) / total for v in f]
        own = [int(c == label) for c in range(len(f))]
        first = [a - b for a, b in zip(p, own, strict=True)]
        # 1 - p_y would cancel in fewer than 60 digits: the others are exact.
        first[int(label)] = -mp.fsum(p[c] for c in range(len(f)) if c != label)
        second = mp.matrix(len(f), len(f))
        for a in range(len(f)):
            for b in range(len(f)):
                second[a, b] = -p[a] * p[b]
            second[a, a] = p[a] * mp.fsum(p[c] for c in range(len(f)) if c != a)
        return first, second
    m = label * f[0]
    if loss == "exponential":
        return [-label * mp.exp(-m)], mp.matrix([[mp.exp(-m)]])
    s = 1 / (1 + mp.exp(m))
    return [-label * s], mp.matrix([[s * (1 - s)]])


@pytest.mark.parametrize("loss", ["exponential", "logistic", "cross_entropy"])
@pytest.mark.parametrize("size", [1.0, 400.0, 3000.0])
def test_right_where_the_loss_underflows(loss: str, size: float) -> None:
    net = MLP(widths=(2, 6, outputs_for(loss)))
    params, x, _ = problem(loss, net, num_points=5, seed=3)
    assert (net.preactivations(params, x)[0] > 0).any(dim=1).all()  # no output is zero
    f = net(params, x)
    if loss == "cross_entropy":  # what is left at large weights of its multiclass margin
        best = f.topk(2, dim=1).values
        f, y = best[:, 0] - best[:, 1], f.argmax(dim=1)
    else:
        y = torch.sign(f)
    params["W2"] = size / f.abs().min() * params["W2"]
    at = hs.hessian(net, params, x, y, loss=loss)
    if size > 1:
        assert at.log_scale < -300
    found, expected = at.matrix.numpy(), exact(params, x, y, loss, at.log_scale)
    # log_scale has an absolute rounding error of size * eps, which is a relative one of H; the
    # margins have the same.
    tolerance = 20 * size * np.finfo(float).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    parts = [part(net, params, x, y, loss=loss) for part in (hs.gauss_newton, hs.remainder)]
    np.testing.assert_allclose(sum(p.matrix for p in parts), found, atol=tolerance)


def test_ends_far_out_agree_with_the_spectrum() -> None:
    x, y = data.digits(classes=(3, 8))
    net = MLP(widths=(64, 6, 1))
    done = training.Until(error=0.0)
    run = training.train(net, x, y, seeds=[0], lr=1.0, steps=2000, until=done)
    params = networks.member(run.params, 0)
    margin = float((y * net(params, x)).min())
    assert margin > 0
    far = networks.compose(torch.tensor([1.0, 600 / margin]).double(), params)
    found = hs.spectrum(net, far, x, y)
    assert found.log_scale < -300 and found.eigenvalues[-1] > 1
    ends = hs.extremes(net, far, x, y)
    top = found.eigenvalues.abs().max()
    assert (ends.largest - found.eigenvalues.flip(0)[:20]).abs().max() < 1e-8 * top
    assert (ends.smallest - found.eigenvalues[:5]).abs().max() < 1e-8 * top


# --- invariants ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["exponential", "logistic"]), st.floats(0.3, 3))
def test_second_derivative_along_each_layer(seed: int, loss: str, scale: float) -> None:
    """f is linear along W_k, so W_k^T H W_k = mean m^2 l''(m): a bound for the top eigenvalue."""
    net = MLP(widths=(3, 4, 3, 1))
    params, x, y = problem(loss, net, num_points=5, seed=seed, scale=scale)
    at, m = hs.hessian(net, params, x, y, loss=loss), y * net(params, x)
    second = torch.exp(-m) if loss == "exponential" else torch.sigmoid(m) * torch.sigmoid(-m)
    expected = math.exp(-at.log_scale) * (m**2 * second).mean()
    top = torch.linalg.eigvalsh(at.matrix)[-1]
    theta = hs.flatten(params)
    for block in hs.layers(params).values():
        v = torch.zeros_like(theta)
        v[block] = theta[block]
        size = (v @ v) * at.matrix.abs().max()
        assert abs(v @ at.matrix @ v - expected) <= 1e-12 * size
        assert top >= (1 - 1e-10) * expected / (v @ v) - 1e-12 * at.matrix.abs().max()


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_trace_is_that_of_the_gauss_newton_matrix(seed: int) -> None:
    net = MLP(widths=(3, 4, 3, 2))
    params, x, y = problem("cross_entropy", net, num_points=4, seed=seed)
    H, G = (
        f(net, params, x, y, loss="cross_entropy").matrix for f in (hs.hessian, hs.gauss_newton)
    )
    assert H.diagonal().equal(G.diagonal())


def test_jacobian_against_autograd_row_by_row(device: str) -> None:
    net = MLP(widths=(3, 4, 2))
    params, x, _ = problem("cross_entropy", net, num_points=3)
    params, x = {name: W.to(device) for name, W in params.items()}, x.to(device)
    J = hs.jacobian(net, params, x)
    assert J.shape == (6, 20) and J.device.type == device
    leaves = {name: W.clone().requires_grad_() for name, W in params.items()}
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(v, leaves.values(), retain_graph=True)])
        for v in net(leaves, x).flatten()
    ]
    torch.testing.assert_close(J, torch.stack(rows), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(J, hs.jacobian(plain(net), params, x), rtol=1e-13, atol=1e-14)


def test_flatten_and_back() -> None:
    params = MLP(widths=(3, 4, 2)).init(seed=0)
    again = hs.unflatten(hs.flatten(params), params)
    assert all(again[name].equal(W) for name, W in params.items())
    where = hs.layers(params)
    assert hs.flatten(params)[where["W2"]].equal(params["W2"].flatten())


# --- Lanczos -------------------------------------------------------------------------------------


def trained(
    loss: str, device: str = "cpu", num_points: int = 120
) -> tuple[Network, Params, Tensor, Tensor]:
    x, y = data.digits(classes=(3, 8) if loss != "cross_entropy" else None, device=device)
    x, y = x[:num_points], y[:num_points]
    net = MLP(widths=(64, 6, 10 if loss == "cross_entropy" else 1))
    run = training.train(net, x, y, seeds=[0], loss=loss, lr=0.1, steps=150, batch_size=32)
    return net, networks.member(run.params, 0), x, y


@pytest.mark.parametrize("loss", EVERY)
def test_extremes_against_the_full_spectrum(loss: str, device: str) -> None:
    net, params, x, y = trained(loss, device)
    full = hs.spectrum(net, params, x, y, loss=loss)
    ends = hs.extremes(net, params, x, y, loss=loss)
    top = full.eigenvalues.abs().max()
    assert ends.log_scale == full.log_scale and ends.residual < 1e-8 * top
    assert (ends.largest - full.eigenvalues.flip(0)[:20]).abs().max() < 1e-8 * top
    assert (ends.smallest - full.eigenvalues[:5]).abs().max() < 1e-8 * top
    H = hs.hessian(net, params, x, y, loss=loss).matrix
    for values, vectors in (
        (ends.largest, ends.largest_vectors),
        (ends.smallest, ends.smallest_vectors),
    ):
        gram = vectors.T @ vectors
        torch.testing.assert_close(gram, torch.eye(len(gram)).to(gram), rtol=0, atol=1e-9)
        assert (H @ vectors - values * vectors).abs().max() < 1e-8 * top
    again = hs.extremes(net, params, x, y, loss=loss)
    assert again.largest.equal(ends.largest) and again.smallest.equal(ends.smallest)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_minimum_whose_smallest_eigenvalues_are_all_zero(activation: str) -> None:
    """Lanczos from one vector sees one of the hundreds of zeros, and then the next eigenvalue."""
    x, _ = data.digits(classes=(3, 8))
    x = x[:100]
    net = MLP(widths=(64, 8, 1), activation=activation)
    params = net.init(seed=0)
    at = (net, params, x, net(params, x))
    full = hs.spectrum(*at, loss="square")
    rank = torch.linalg.matrix_rank(hs.jacobian(net, params, x))
    assert full.num_zero == net.num_params - rank >= 400 and full.num_negative == 0
    ends = hs.extremes(*at, loss="square")
    assert ends.smallest.abs().max() < 1e-9 * full.eigenvalues[-1]
    assert (ends.largest - full.eigenvalues.flip(0)[:20]).abs().max() < 1e-8 * ends.largest[0]
    positive = full.eigenvalues[full.num_zero]
    assert positive > 1e-6 * ends.largest[0]  # so that a missed zero would show


def test_multiple_eigenvalues_at_both_ends() -> None:
    rng = torch.Generator().manual_seed(0)
    eigenvalues = torch.cat([-torch.ones(7), torch.linspace(0, 1, 86), 3 * torch.ones(7)]).double()
    Q, _ = torch.linalg.qr(torch.randn(100, 100, generator=rng, dtype=torch.float64))
    A = Q @ torch.diag(eigenvalues) @ Q.T

    def quadratic(params: Params, x: Tensor) -> Tensor:
        return 0.5 * (params["w"] @ A @ params["w"])[None]

    params = {"w": torch.zeros(100, dtype=torch.float64)}
    x, y = torch.zeros(1, 1, dtype=torch.float64), -torch.ones(1, dtype=torch.float64)
    ends = hs.extremes(quadratic, params, x, y, largest=8, smallest=8)
    torch.testing.assert_close(ends.largest[:7], eigenvalues[-7:], rtol=1e-9, atol=0)
    torch.testing.assert_close(ends.smallest[:7], eigenvalues[:7], rtol=1e-9, atol=0)
    assert abs(ends.largest[7] - 1) < 1e-9 and abs(ends.smallest[7]) < 1e-9


@pytest.mark.parametrize("num_params", [2, 3, 7, 30])
def test_nearly_all_eigenvalues_of_a_small_hessian(num_params: int) -> None:
    net = MLP(widths=(num_params, 1))
    params, x, y = problem("exponential", net)
    full = hs.spectrum(net, params, x, y).eigenvalues
    ends = hs.extremes(net, params, x, y, largest=num_params - 1, smallest=1)
    torch.testing.assert_close(ends.largest, full[1:].flip(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ends.smallest, full[:1], rtol=1e-9, atol=1e-9)
    assert len(hs.extremes(net, params, x, y, largest=0, smallest=1).largest) == 0


def test_a_hessian_that_is_zero() -> None:
    net = MLP(widths=(3, 4, 3, 1))
    params = {name: torch.zeros_like(W) for name, W in net.init(seed=0).items()}
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    assert hs.spectrum(net, params, x, y).num_zero == net.num_params
    ends = hs.extremes(net, params, x, y, largest=2, smallest=2)
    assert not ends.largest.any() and not ends.smallest.any()
    dead = {name: -torch.ones_like(W) for name, W in params.items()}
    assert hs.spectrum(net, dead, x, y).num_zero == net.num_params


def test_float32(device: str) -> None:
    net, params, x, y = trained("logistic", device)
    small = {name: W.float() for name, W in params.items()}, x.float(), y.float()
    full = hs.spectrum(net, params, x, y, loss="logistic").eigenvalues
    low = hs.spectrum(net, *small, loss="logistic").eigenvalues
    ends = hs.extremes(net, *small, loss="logistic")
    assert low.dtype == ends.largest.dtype == torch.float32 and low.device.type == device
    torch.testing.assert_close(low.double(), full, rtol=0, atol=1e-5 * float(full[-1]))
    torch.testing.assert_close(
        ends.largest.double(), full.flip(0)[:20], rtol=0, atol=1e-5 * float(full[-1])
    )


# --- against another library ---------------------------------------------------------------------


def theirs(
    operator: type, net: MLP, params: Params, x: Tensor, y: Tensor, loss: str
) -> curvlinops.HessianLinearOperator:
    """The same Hessian or Gauss-Newton matrix as a linear operator of curvlinops."""
    layers: list[torch.nn.Module] = []
    for name, W in params.items():
        layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
        layer.weight.data = W.clone()
        layers += [layer, torch.nn.ReLU()] if name != net.layer_names[-1] else [layer]
    module = torch.nn.Sequential(*layers)
    function = {
        "square": torch.nn.MSELoss,
        "logistic": torch.nn.BCEWithLogitsLoss,
        "cross_entropy": torch.nn.CrossEntropyLoss,
    }[loss]()
    targets = {"square": y, "logistic": (y + 1) / 2}.get(loss, y)
    targets = targets if loss == "cross_entropy" else targets[:, None]
    return operator(module, function, list(module.parameters()), [(x, targets)])


@pytest.mark.parametrize("loss", ["square", "logistic", "cross_entropy"])
def test_matrices_and_ends_agree_with_curvlinops(loss: str) -> None:
    net, params, x, y = trained(loss, num_points=60)
    P = net.num_params
    pairs: list[tuple[type, Callable[..., hs.Curvature]]] = [
        (curvlinops.HessianLinearOperator, hs.hessian),
        (curvlinops.GGNLinearOperator, hs.gauss_newton),
    ]
    for operator, ours in pairs:
        peer = theirs(operator, net, params, x, y, loss).to_scipy()
        mine = unscaled(ours(net, params, x, y, loss=loss)).numpy()
        some = np.eye(P)[:, :: P // 40]
        size = np.abs(mine).max()
        np.testing.assert_allclose(peer @ some, mine @ some, rtol=0, atol=1e-12 * size)
    peer = theirs(curvlinops.HessianLinearOperator, net, params, x, y, loss).to_scipy()
    ends = hs.extremes(net, params, x, y, loss=loss)
    factor = math.exp(ends.log_scale)
    high = np.sort(eigsh(peer, k=20, which="LA", ncv=60, tol=1e-10, return_eigenvectors=False))[
        ::-1
    ]
    low = np.sort(eigsh(peer, k=5, which="SA", ncv=60, tol=1e-10, return_eigenvectors=False))
    np.testing.assert_allclose(factor * ends.largest.numpy(), high, rtol=0, atol=1e-8 * high[0])
    np.testing.assert_allclose(factor * ends.smallest.numpy(), low, rtol=0, atol=1e-8 * high[0])


# --- the density ---------------------------------------------------------------------------------


def test_density_against_the_full_spectrum(device: str) -> None:
    net, params, x, y = trained("logistic", device)
    full = hs.spectrum(net, params, x, y, loss="logistic")
    estimate = hs.density(net, params, x, y, loss="logistic", num_steps=50, num_probes=12)
    assert estimate.num_products == 12 * 50 and estimate.num_params == net.num_params
    torch.testing.assert_close(
        estimate.weights.sum(dim=1), torch.ones(12).to(estimate.weights), rtol=0, atol=1e-12
    )
    # A probe's estimate of a mean has a standard error of at most sqrt(2 mean of squares / P).
    error = float((2 * (full.eigenvalues**2).mean() / net.num_params / 12) ** 0.5)
    assert abs(estimate.mean(lambda t: t) - full.eigenvalues.mean()) < 4 * error
    width = 0.02 * float(full.eigenvalues[-1])
    at = torch.linspace(-1.2, 1.2, 241, dtype=torch.float64, device=device) * full.eigenvalues[-1]
    left, right = (hs.smoothed(of, at, width=width) for of in (full, estimate))
    spacing = float(at[1] - at[0])
    assert float(left.sum()) * spacing == pytest.approx(1, abs=1e-6)
    assert float((left - right).abs().sum()) * spacing < 0.05
    again = hs.density(net, params, x, y, loss="logistic", num_steps=50, num_probes=12)
    assert again.nodes.equal(estimate.nodes)


def test_density_with_as_many_steps_as_parameters_has_the_eigenvalues_as_nodes() -> None:
    net = MLP(widths=(6, 1))
    params, x, y = problem("exponential", net)
    full = hs.spectrum(net, params, x, y).eigenvalues
    estimate = hs.density(net, params, x, y, num_steps=50, num_probes=2)
    torch.testing.assert_close(estimate.nodes[0], full, rtol=1e-9, atol=1e-9)


def test_density_of_a_zero_hessian_lies_at_zero() -> None:
    net = MLP(widths=(3, 4, 3, 1))
    params = {name: torch.zeros_like(W) for name, W in net.init(seed=0).items()}
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    estimate = hs.density(net, params, x, y, num_probes=2)
    assert estimate.mean(torch.ones_like) == pytest.approx(1) and not estimate.nodes.any()


# --- bad input -----------------------------------------------------------------------------------

NET = MLP(widths=(2, 3, 1))
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
W = NET.init(seed=0)
EVERY_FUNCTION = [hs.hessian, hs.gauss_newton, hs.remainder, hs.spectrum, hs.extremes, hs.density]


@pytest.mark.parametrize("function", EVERY_FUNCTION)
def test_bad_input(function: Callable[..., object]) -> None:
    wide = MLP(widths=(2, 3, 2))
    two = wide.init(seed=0)
    with pytest.raises(ValueError, match="one network, got an ensemble of 2: take networks.member"):
        function(NET, NET.init(seed=[0, 1]), X, Y)
    with pytest.raises(ValueError, match=r"params\['W2'\] must be finite"):
        function(NET, {**W, "W2": W["W2"] * torch.nan}, X, Y)
    with pytest.raises(ValueError, match="at least one tensor"):
        function(NET, {}, X, Y)
    with pytest.raises(ValueError, match="loss must be one of 'square', .*, got 'hinge'"):
        function(NET, W, X, Y, loss="hinge")
    with pytest.raises(ValueError, match="reduction must be one of 'sum', 'mean', got 'max'"):
        function(NET, W, X, Y, reduction="max")
    with pytest.raises(TypeError, match="y must be a floating-point tensor"):
        function(NET, W, X, torch.tensor([1, -1, 1, -1]))
    with pytest.raises(ValueError, match=r"labels -1 and \+1, got 0"):
        function(NET, W, X, (Y + 1) / 2, loss="logistic")
    with pytest.raises(TypeError, match="labels must be an integer tensor"):
        function(wide, two, X, Y, loss="cross_entropy")
    with pytest.raises(ValueError, match=r"shape \(N,\) for the logistic loss, got \(4, 2\)"):
        function(wide, two, X, Y, loss="logistic")
    with pytest.raises(ValueError, match=r"shape \(N, C\) for the cross_entropy loss, got \(4,\)"):
        function(NET, W, X, torch.tensor([0, 1, 0, 1]), loss="cross_entropy")
    with pytest.raises(ValueError, match=r"y must have shape \(4,\), got \(3,\)"):
        function(NET, W, X, Y[:3], loss="square")


@pytest.mark.parametrize("function", EVERY_FUNCTION[:4])
def test_a_hessian_too_large_for_memory(function: Callable[..., object]) -> None:
    net = MLP(widths=(64, 2000, 1))
    x, y = torch.ones(1, 64, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"130,000 parameters needs .* GB.*extremes\(\) or density"
    ):
        function(net, net.init(seed=0), x, y)


def test_numbers_out_of_range() -> None:
    with pytest.raises(
        ValueError, match="largest must be below the number of parameters, 9, got 9"
    ):
        hs.extremes(NET, W, X, Y, largest=9)
    with pytest.raises(ValueError, match="smallest must be at least 0, got -1"):
        hs.extremes(NET, W, X, Y, largest=2, smallest=-1)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        hs.density(NET, W, X, Y, num_steps=0)
    with pytest.raises(ValueError, match="width must be finite and greater than 0"):
        hs.smoothed(hs.spectrum(NET, W, X, Y), X[:, 0], width=0)
    with pytest.raises(ValueError, match="tol must be finite and at least 0"):
        hs.spectrum(NET, W, X, Y, tol=-1)
    with pytest.raises(ValueError, match="curvature.matrix must be finite"):
        hs.spectrum_of(hs.Curvature(torch.full((2, 2), torch.inf), 0.0))
    with pytest.raises(ValueError, match=r"vector must have shape \(9,\)"):
        hs.unflatten(torch.zeros(8), W)


def test_lanczos_says_so_when_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hs, "SUBSPACES", (4,))
    monkeypatch.setattr(hs, "RESTARTS", 1)
    net, params, x, y = trained("logistic")
    with pytest.raises(RuntimeError, match=r"did not converge.*spectrum\(\), or density\(\)"):
        hs.extremes(net, params, x, y, loss="logistic")


def test_extremes_deep_in_the_flow_take_few_products() -> None:
    """Small negative eigenvalues crowd towards the zeros there; a count stands for the time."""
    x, y = data.digits(classes=(3, 8))
    net = networks.MLP(widths=(64, 31, 1))
    deep = descent.loss_based_descent(net, net.init(seed=0), x, y, until=flow.LogLoss(-100)).params
    full = hs.spectrum(net, deep, x, y).eigenvalues
    ends = hs.extremes(net, deep, x, y)
    assert -0.01 < float(full[0] / full[-1]) < 0
    assert (ends.largest - full.flip(0)[:20]).abs().max() < 1e-10 * full[-1]
    assert (ends.smallest - full[:5]).abs().max() < 1e-10 * full[-1]
    assert ends.num_products < 600
