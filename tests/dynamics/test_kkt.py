"""The KKT residual against points known by hand, quadratic programs, and all corners at once."""

from __future__ import annotations

import itertools
import math

import clarabel
import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import nnls

from companion import data, networks
from companion.dynamics.flow import LogLoss, gradient_flow
from companion.dynamics.kkt import kkt_residual, support_vectors
from companion.networks import MLP, ConvNet

PLANE = data.quadrants(12, seed=12)
PLANTED = data.separable(20, 3, margin=0.5, seed=0)
RELU = MLP(widths=(2, 8, 1))


@pytest.fixture(scope="module")
def ends() -> list[networks.Params]:
    """Where four flows are at l = 20: near a KKT point, not at one."""
    return [
        gradient_flow(RELU, RELU.init(seed=seed, scale=0.7), *PLANE, until=LogLoss(-20)).params
        for seed in range(4)
    ]


def kinked_solution() -> tuple[MLP, networks.Params, torch.Tensor, torch.Tensor]:
    """A KKT point at which both units are at the kink of the other one's example.

    With x_1 = (1, 0), y_1 = 1, x_2 = (1, 1), y_2 = -1 and r = 2^(1/4): w_1 = r (1, -1) / sqrt 2
    with v_1 = r is zero on x_2, w_2 = (0, 1) with v_2 = -1 is zero on x_1, both margins are 1, and
    lambda = (sqrt 2, 1) with both derivatives 1 / sqrt 2 gives W = sum_n lambda_n h_n.
    """
    r = 2**0.25
    W1 = torch.tensor([[r / 2**0.5, -r / 2**0.5], [0.0, 1.0]], dtype=torch.float64)
    W2 = torch.tensor([[r, -1.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64)
    return MLP(widths=(2, 2, 1)), {"W1": W1, "W2": W2}, x, y


def plain_columns(
    net: MLP, params: networks.Params, x: torch.Tensor, y: torch.Tensor, rtol: float
) -> tuple[np.ndarray, np.ndarray]:
    """W / |W| and the margin gradients of the support vectors, by autograd, in units of |W|."""
    m = y * net(params, x)
    unit = float(m.min()) ** (-1 / net.K)
    W = {name: unit * W_k for name, W_k in params.items()}
    rows = m <= (1 + rtol) * m.min()
    jacobian = torch.func.jacrev(lambda W: y[rows] * net(W, x[rows]))(W)
    H = torch.cat([J.flatten(1) for J in jacobian.values()], dim=1).numpy()
    target = torch.cat([W_k.flatten() for W_k in W.values()]).numpy()
    size = np.linalg.norm(target)
    return target / size, H / size


def clarke_distance(
    net: MLP,
    params: networks.Params,
    x: torch.Tensor,
    y: torch.Tensor,
    rtol: float,
    kink_tol: float,
) -> float:
    """The exact distance for two layers, a convex program in lambda_n and mu_nj = lambda_n s_nj.

    Minimize |t - sum_n lambda_n h_n - sum_nj mu_nj g_nj| with 0 <= mu_nj <= lambda_n, where h_n has
    the derivatives at the kinks set to 0 and g_nj is what unit j adds with derivative 1.
    """
    m = (y * net(params, x)).numpy()
    unit = m.min() ** -0.5
    W, v = (unit * params["W1"]).numpy(), (unit * params["W2"]).numpy()[0]
    rows = m <= (1 + rtol) * m.min()
    X, Y = x.numpy()[rows], y.numpy()[rows]
    Z = X @ W.T
    sizes = np.outer(np.linalg.norm(X, axis=1), np.linalg.norm(W, axis=1))
    kink = np.abs(Z) <= kink_tol * sizes
    target = np.append(W.ravel(), v)
    fixed, free, owner = [], [], []
    for n in range(len(X)):
        on = (Z[n] > 0) & ~kink[n]
        fixed.append(np.append(np.outer(Y[n] * v * on, X[n]), Y[n] * np.maximum(Z[n], 0)))
        for j in np.flatnonzero(kink[n]):
            g = np.zeros_like(W)
            g[j] = Y[n] * v[j] * X[n]
            free.append(np.append(g, 0 * v))
            owner.append(n)
    S, F, P = len(fixed), len(free), len(target)
    M = np.array(fixed + free).T
    cap = sparse.csc_matrix((np.ones(F), (range(F), owner)), shape=(F, S))
    A = sparse.bmat(
        [
            [sparse.csc_matrix(M), sparse.eye(P)],
            [-sparse.eye(S + F), None],
            [sparse.hstack([-cap, sparse.eye(F)]), None],
        ],
        format="csc",
    )
    b = np.concatenate([target, np.zeros(S + 2 * F)])
    objective = sparse.block_diag([sparse.csc_matrix((S + F, S + F)), sparse.eye(P)], format="csc")
    tight = clarabel.DefaultSettings()
    tight.verbose = False
    tight.tol_gap_abs = tight.tol_gap_rel = tight.tol_feas = 1e-12
    cones = [clarabel.ZeroConeT(P), clarabel.NonnegativeConeT(S + 2 * F)]
    z = clarabel.DefaultSolver(objective, np.zeros(S + F + P), A, b, cones, tight).solve().x
    return np.linalg.norm(target - M @ np.array(z)[: S + F]) / np.linalg.norm(target)


def test_support_vectors() -> None:
    margins = torch.tensor([0.5, 0.2, 0.21, 0.2], dtype=torch.float64)
    assert support_vectors(margins, rtol=0.0).tolist() == [1, 3]
    assert support_vectors(margins, rtol=0.06).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="margins must all be positive, got a smallest one of -0"):
        support_vectors(margins - 0.3, rtol=0.1)
    with pytest.raises(ValueError, match="rtol must be finite and at least 0"):
        support_vectors(margins, rtol=-0.1)
    with pytest.raises(ValueError, match=r"margins must have shape \(N,\), got \(2, 2\)"):
        support_vectors(margins.reshape(2, 2), rtol=0.1)


def test_linear_network_aligned_with_the_maximum_margin_is_a_kkt_point() -> None:
    """W_1 = c a v', W_2 = c a' with |a| = 1 solves Eq. 12 for two linear layers (Lemma 4)."""
    net = MLP(widths=(3, 4, 1), activation="linear")
    a = torch.tensor([[0.1, -0.7, 0.5, 0.5]], dtype=torch.float64)
    a = a / a.norm()
    for scale in (1.0, 30.0):  # the residual does not depend on the scale
        params = {"W1": scale * a.T * PLANTED.direction, "W2": scale * a}
        found = kkt_residual(net, params, PLANTED.x, PLANTED.y, support_rtol=1e-9)
        assert found.residual < 1e-7  # rounding, squared and undone in the least squares
        assert found.slackness < 1e-9 and found.num_kinks == 0
        # W = sum lambda_n h_n with the planted dual weights; their sum is |W'|^2 / K = 1 / gamma.
        lam = torch.zeros(20, dtype=torch.float64)
        lam[found.support] = found.multipliers
        torch.testing.assert_close(lam, PLANTED.weights / 0.5, rtol=0, atol=1e-7)


def test_unbalanced_layers_are_not_a_kkt_point() -> None:
    """All layers count in the objective, so only equal norms are stationary."""
    net = MLP(widths=(3, 1, 1), activation="linear")
    one = torch.ones(1, 1, dtype=torch.float64)
    params = {"W1": 2 * PLANTED.direction[None], "W2": one}
    found = kkt_residual(net, params, PLANTED.x, PLANTED.y, support_rtol=1e-9)
    # t = (2, 1) / sqrt 5 against the gradient's direction (1, 2) / sqrt 5: sin of the angle.
    assert found.residual == pytest.approx(0.6, rel=1e-9)


def test_clarke_subgradients_certify_a_kkt_point_at_kinks() -> None:
    net, params, x, y = kinked_solution()
    with_kinks = kkt_residual(net, params, x, y, support_rtol=1e-9, kink_tol=1e-12)
    assert with_kinks.residual < 1e-7 and with_kinks.num_kinks == 2
    torch.testing.assert_close(
        with_kinks.multipliers, torch.tensor([2**0.5, 1.0]).double(), rtol=1e-6, atol=0
    )
    plain = kkt_residual(net, params, x, y, support_rtol=1e-9)
    # By hand: the part of W that x_1 and x_2 then leave is a third of its squared norm.
    assert plain.residual == pytest.approx(3**-0.5, rel=1e-9) and plain.num_kinks == 0


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
def test_without_kinks_it_is_least_squares_on_the_gradients(activation: str) -> None:
    net = MLP(widths=(3, 5, 4, 1), activation=activation)
    start = net.init(seed=1)
    W = gradient_flow(net, start, PLANTED.x, PLANTED.y, until=LogLoss(-15)).params
    for rtol in (0.0, 0.1, 1.0):
        target, H = plain_columns(net, W, PLANTED.x, PLANTED.y, rtol)
        multipliers, distance = nnls(H.T, target)
        found = kkt_residual(net, W, PLANTED.x, PLANTED.y, support_rtol=rtol)
        # Both are NNLS, which stops at a gradient of about 1e-13, on columns rounded differently.
        assert found.residual == pytest.approx(distance, rel=1e-8)
        assert found.multipliers.tolist() == pytest.approx(multipliers.tolist(), rel=1e-4)
        m = PLANTED.y * net(W, PLANTED.x)
        excess = (m[found.support] / m.min() - 1).numpy()
        assert found.slackness == pytest.approx(multipliers @ excess / multipliers.sum(), abs=1e-4)


@pytest.mark.parametrize(("rtol", "kink_tol"), [(0.05, 1e-3), (0.3, 1e-2), (0.3, 0.3), (2.0, 0.1)])
def test_two_layers_reach_the_exact_distance(
    ends: list[networks.Params], rtol: float, kink_tol: float
) -> None:
    kinks = 0
    for params in ends:
        found = kkt_residual(RELU, params, *PLANE, support_rtol=rtol, kink_tol=kink_tol)
        exact = clarke_distance(RELU, params, *PLANE, rtol, kink_tol)
        assert found.residual == pytest.approx(exact, abs=1e-8)  # clarabel's accuracy
        plain = kkt_residual(RELU, params, *PLANE, support_rtol=rtol)
        assert found.residual <= plain.residual * (1 + 1e-12)
        assert float(found.multipliers.min()) >= 0
        kinks += found.num_kinks
    assert kinks > 0 or kink_tol < 1e-2


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
def test_three_layers_against_all_corners_at_once(seed: int) -> None:
    """For few kinks every corner can be listed; the cone they span is the exact answer."""
    net, rtol, kink_tol = MLP(widths=(3, 4, 3, 1)), 0.5, 0.15
    x, y = PLANTED.x, PLANTED.y
    params = gradient_flow(net, net.init(seed=seed), x, y, until=LogLoss(-8)).params
    found = kkt_residual(net, params, x, y, support_rtol=rtol, kink_tol=kink_tol)
    m = y * net(params, x)
    unit = float(m.min()) ** (-1 / 3)
    W1, W2, W3 = ((unit * W).numpy() for W in params.values())
    target = np.concatenate([W.ravel() for W in (W1, W2, W3)])
    columns = []
    for n in found.support.tolist():
        a0 = x[n].numpy()
        z1 = W1 @ a0
        a1 = np.maximum(z1, 0)
        z2 = W2 @ a1
        near = [
            np.abs(z) <= kink_tol * np.linalg.norm(W, axis=1) * np.linalg.norm(a)
            for z, W, a in ((z1, W1, a0), (z2, W2, a1))
        ]
        choices = [
            (0.0, 1.0) if kink else (float(z > 0),)
            for kink, z in zip(np.concatenate(near), np.concatenate([z1, z2]), strict=True)
        ]
        for corner in itertools.product(*choices):
            s1, s2 = np.array(corner[:4]), np.array(corner[4:])
            d2 = float(y[n]) * W3[0] * s2
            d1 = (d2 @ W2) * s1
            grads = np.outer(d1, a0), np.outer(d2, a1), float(y[n]) * np.maximum(z2, 0)
            columns.append(np.concatenate([g.ravel() for g in grads]))
    size = np.linalg.norm(target)
    exact = nnls(np.array(columns).T / size, target / size)[1]
    plain = kkt_residual(net, params, x, y, support_rtol=rtol)
    assert len(columns) > len(found.support)  # there are kinks to choose at
    # Attained, hence an upper bound; the search is local in depth, but finds these.
    assert exact - 1e-9 <= found.residual <= plain.residual + 1e-12
    assert found.residual == pytest.approx(exact, rel=1e-6)


def test_the_residual_falls_along_the_flow() -> None:
    path = gradient_flow(
        RELU, RELU.init(seed=0, scale=0.7), *PLANE, until=LogLoss(-60), snapshots=[5, 20, 60]
    )
    residuals = [
        kkt_residual(RELU, path.snapshot(i), *PLANE, support_rtol=0.3, kink_tol=1e-3).residual
        for i in range(3)
    ]
    assert residuals[2] < residuals[1] < residuals[0] < 1


def test_dtype_follows_the_inputs() -> None:
    net, params, x, y = kinked_solution()
    params = {name: W.float() for name, W in params.items()}
    found = kkt_residual(net, params, x.float(), y.float(), support_rtol=1e-4, kink_tol=1e-5)
    assert found.multipliers.dtype == torch.float32
    assert found.residual < 1e-5 and math.isfinite(found.slackness)


def test_invalid_arguments() -> None:
    params = RELU.init(seed=0)
    with pytest.raises(ValueError, match="margins must all be positive"):
        kkt_residual(RELU, params, *PLANE, support_rtol=0.1)
    with pytest.raises(ValueError, match="kink_tol must be finite and at least 0"):
        kkt_residual(RELU, params, *PLANE, support_rtol=0.1, kink_tol=-1.0)
    with pytest.raises(ValueError, match="ensemble of 2"):
        kkt_residual(RELU, RELU.init(seed=[0, 1]), *PLANE, support_rtol=0.1)
    with pytest.raises(ValueError, match="net must have one output"):
        two = MLP(widths=(2, 2))
        kkt_residual(two, two.init(seed=0), *PLANE, support_rtol=0.1)
    with pytest.raises(TypeError, match="net must be an MLP, got ConvNet"):
        conv = ConvNet(input_shape=(1, 2, 1), channels=(2,))
        kkt_residual(conv, conv.init(seed=0), *PLANE, support_rtol=0.1)


def test_tensors_that_require_grad_are_taken_as_they_are() -> None:
    net, points = MLP(widths=(2, 1)), data.three_points()
    plain = {"W1": points.direction[None].clone()}
    tracked = {"W1": points.direction[None].clone().requires_grad_()}
    found = [
        kkt_residual(net, W, points.x.clone().requires_grad_(), points.y, support_rtol=1e-9)
        for W in (plain, tracked)
    ]
    assert found[0].residual == found[1].residual < 1e-12
    assert not found[1].multipliers.requires_grad


def test_slope_of_the_leaky_relu_is_not_rounded() -> None:
    """One example with one unit on its lower side, balanced: h = W exactly, lambda = 1 / margin."""
    net = MLP(widths=(1, 1, 1), activation="leaky_relu")
    W = {"W1": torch.tensor([[-1.0]]).double(), "W2": torch.tensor([[-1.0]]).double()}
    one = torch.ones(1, 1, dtype=torch.float64)
    found = kkt_residual(net, W, one, one[0], support_rtol=0.0)
    assert found.multipliers.item() == pytest.approx(100.0, rel=1e-13)
    assert found.residual < 1e-13
