"""Margins and the points where the flow ends, against quadratic programs and closed forms."""

from __future__ import annotations

import math

import clarabel
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize
from sklearn.svm import SVC

from companion import data, losses, networks
from companion.dynamics import kkt, margin
from companion.dynamics.flow import LogLoss, gradient_flow
from companion.networks import MLP, ConvNet

THREE = data.three_points()
PLANE = data.quadrants(12, seed=12)
RELU = MLP(widths=(2, 8, 1))


def solve_qp(
    P: np.ndarray,  # noqa: N803 (the solver's letters)
    q: np.ndarray,
    equal: tuple[np.ndarray, np.ndarray] | None,
    at_least: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Minimize z'Pz/2 + q'z with A z = b for ``equal`` and A z >= b for ``at_least``."""
    A, b, cones = [-at_least[0]], [-at_least[1]], [clarabel.NonnegativeConeT(len(at_least[1]))]
    if equal is not None:
        A.insert(0, equal[0])
        b.insert(0, equal[1])
        cones.insert(0, clarabel.ZeroConeT(len(equal[1])))
    tight = clarabel.DefaultSettings()
    tight.verbose = False
    tight.tol_gap_abs = tight.tol_gap_rel = tight.tol_feas = 1e-11
    A, b = sparse.csc_matrix(np.vstack(A)), np.concatenate(b)
    solution = clarabel.DefaultSolver(sparse.csc_matrix(P), q, A, b, cones, tight).solve()
    assert str(solution.status) == "Solved"
    return np.array(solution.x)


def qp_max_margin(x: torch.Tensor, y: torch.Tensor) -> float:
    """1 / min |w| subject to y_n w . x_n >= 1, in units in which the margin is of order one."""
    rows = (y[:, None] * x).double().numpy()
    scale = np.linalg.norm(rows, axis=1).min()
    d = rows.shape[1]
    w = solve_qp(np.eye(d), np.zeros(d), None, (rows / scale, np.ones(len(rows))))
    return scale / np.linalg.norm(w)


@given(
    seed=st.integers(0, 10_000),
    num_points=st.integers(2, 80),
    dim=st.integers(2, 20),
    gamma=st.floats(0.05, 2.0),
)
@settings(max_examples=20)
def test_max_margin_of_random_separable_sets(
    seed: int, num_points: int, dim: int, gamma: float
) -> None:
    points = data.separable(num_points, dim, margin=gamma, seed=seed)
    solution = margin.max_margin(points.x, points.y)
    assert solution.margin == pytest.approx(points.margin, rel=1e-9)  # planted
    assert solution.margin == pytest.approx(qp_max_margin(points.x, points.y), rel=1e-9)
    assert abs(solution.gap) < 1e-9
    torch.testing.assert_close(solution.direction, points.direction, rtol=0, atol=1e-9)
    # The certificate, checked by hand: a convex combination of the y_n x_n equal to gamma v.
    assert float(solution.dual.min()) >= 0 and float(solution.dual.sum()) == pytest.approx(1)
    point = (solution.dual * points.y) @ points.x
    torch.testing.assert_close(point, solution.margin * solution.direction, rtol=0, atol=1e-9)
    assert torch.equal(solution.support, torch.nonzero(solution.dual)[:, 0])


@pytest.mark.parametrize("seed", range(20))
def test_max_margin_with_random_labels(seed: int) -> None:
    """More dimensions than points: any labels can be separated, and no margin is planted."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8 + seed % 4, 12, generator=generator, dtype=torch.float64)
    y = 2.0 * torch.randint(0, 2, (len(x),), generator=generator).double() - 1
    solution = margin.max_margin(x, y)
    assert solution.margin == pytest.approx(qp_max_margin(x, y), rel=1e-9)
    assert abs(solution.gap) < 1e-9


def test_max_margin_agrees_with_a_hard_margin_svm() -> None:
    x, y = data.digits(classes=(3, 8))
    ours = margin.max_margin(x, y)
    # A set symmetric about 0 has no use for the intercept, which the paper does not have either.
    both, labels = torch.cat([x, -x]).numpy(), torch.cat([y, -y]).numpy()
    svc = SVC(kernel="linear", C=1e10, tol=1e-3).fit(both, labels)
    assert abs(float(svc.intercept_[0])) < 1e-3
    assert 1 / np.linalg.norm(svc.coef_) == pytest.approx(ours.margin, rel=1e-3)  # its own tol
    assert abs(ours.gap) < 1e-12


@pytest.mark.parametrize("gamma", [1e-3, 1e-5])
def test_max_margin_where_the_points_nearly_touch_the_plane(gamma: float) -> None:
    points = data.separable(50, 5, margin=gamma, seed=4)
    solution = margin.max_margin(points.x, points.y)
    # The rows are of size one, so a margin carries their rounding, about 1e-15 / gamma.
    assert solution.margin == pytest.approx(gamma, rel=1e-14 / gamma)
    assert abs(solution.gap) < 1e-14 / gamma


def test_max_margin_follows_the_dtype_of_the_points() -> None:
    points = data.three_points(dtype=torch.float32)
    solution = margin.max_margin(points.x, points.y)
    assert solution.direction.dtype == solution.dual.dtype == torch.float32
    torch.testing.assert_close(solution.dual, torch.tensor([2 / 3, 1 / 3, 0.0]))


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9]],  # 0 inside the hull
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]],  # on its boundary
        [[0.0, 0.0], [0.0, 0.0]],  # and nothing else
    ],
)
def test_data_that_no_plane_separates_have_no_margin(rows: list[list[float]]) -> None:
    x = torch.tensor(rows, dtype=torch.float64)
    with pytest.raises(ValueError, match="must be linearly separable through the origin"):
        margin.max_margin(x, torch.ones(len(x), dtype=torch.float64))


def test_max_margin_checks_its_data() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(N, d\), got \(3, 2, 1\)"):
        margin.max_margin(THREE.x[:, :, None], THREE.y)
    with pytest.raises(ValueError, match="y must hold only the labels"):
        margin.max_margin(THREE.x, 0 * THREE.y)
    with pytest.raises(ValueError, match="x must be finite"):
        margin.max_margin(THREE.x / 0, THREE.y)


@pytest.mark.parametrize("widths", [(2, 1), (2, 8, 1), (2, 5, 4, 1)])
def test_normalized_margins_are_those_of_the_scaled_network(widths: tuple[int, ...]) -> None:
    net = MLP(widths=widths)
    params = net.init(seed=2)
    ours = margin.normalized_margins(net, params, *PLANE)
    by_product = PLANE.y * net(params, PLANE.x) / networks.product_norm(params)
    torch.testing.assert_close(ours, by_product, rtol=1e-12, atol=1e-14)
    rescaled = {name: (k + 2.0) * W for k, (name, W) in enumerate(params.items())}
    torch.testing.assert_close(ours, margin.normalized_margins(net, rescaled, *PLANE))


@pytest.mark.parametrize("loss", losses.KINDS)
def test_smoothed_margin_is_the_record_s(loss: str) -> None:
    path = gradient_flow(RELU, RELU.init(seed=0), *PLANE, until=LogLoss(-3), loss=loss)
    value = margin.smoothed_margin(RELU, path.params, *PLANE, loss=loss)
    assert value == pytest.approx(float(path.smoothed_margin[-1]), rel=1e-14)


@given(seed=st.integers(0, 1000), scale=st.floats(0.5, 30.0))
def test_smoothed_margin_lies_below_the_hard_one(seed: int, scale: float) -> None:
    params = {name: scale * W for name, W in RELU.init(seed=seed).items()}
    rho = float(networks.product_norm(params))
    hard = float(margin.normalized_margins(RELU, params, *PLANE).min())
    gap = rho * (hard - margin.smoothed_margin(RELU, params, *PLANE))
    rounding = 1e-12 * rho
    assert -rounding <= gap <= math.log(12) + rounding
    logistic = margin.smoothed_margin(RELU, params, *PLANE, loss="logistic")
    assert logistic <= hard + 1e-12


def test_a_zero_layer_has_no_direction() -> None:
    params = {"W1": torch.zeros(1, 2, dtype=torch.float64)}
    net = MLP(widths=(2, 1))
    with pytest.raises(ValueError, match=r"params\['W1'\] must have a positive finite norm"):
        margin.normalized_margins(net, params, THREE.x, THREE.y)
    with pytest.raises(ValueError, match="no layer that is zero"):
        margin.smoothed_margin(net, params, THREE.x, THREE.y)


def test_networks_that_have_no_margin_are_refused() -> None:
    two = MLP(widths=(2, 2))
    with pytest.raises(ValueError, match="net must have one output, got 2"):
        margin.normalized_margins(two, two.init(seed=0), THREE.x[:2], THREE.y[:2])
    with pytest.raises(ValueError, match="ensemble of 2"):
        margin.smoothed_margin(RELU, RELU.init(seed=[0, 1]), *PLANE)
    with pytest.raises(ValueError, match="loss must be one of"):
        margin.smoothed_margin(RELU, RELU.init(seed=0), *PLANE, loss="hinge")


@pytest.mark.parametrize(
    "net", [RELU, MLP(widths=(2, 4, 3, 1), activation="leaky_relu"), MLP(widths=(2, 1))], ids=str
)
def test_stationarity_terms_against_autograd(net: MLP) -> None:
    V = networks.directions(net.init(seed=5))
    x, y = PLANE
    jacobian = torch.func.jacrev(lambda W: net(W, x))(V)
    f = net(V, x)
    for name, B in margin.stationarity_terms(net, V, x, y).items():
        expected = y[:, None, None] * (jacobian[name] - f[:, None, None] * V[name])
        torch.testing.assert_close(B, expected, rtol=1e-12, atol=1e-14)
        # B_k is tangent to the sphere of V_k, because f is homogeneous in each layer.
        assert float(torch.einsum("nij,ij->n", B, V[name]).abs().max()) < 1e-14


def test_stationarity_terms_of_a_convolutional_network() -> None:
    net = ConvNet(input_shape=(1, 4, 4), channels=(2,))
    V = networks.directions(net.init(seed=0))
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    terms = margin.stationarity_terms(net, V, x, y)
    assert {name: tuple(B.shape) for name, B in terms.items()} == {
        name: (3, *shape) for name, shape in net.shapes.items()
    }


def test_stationarity_terms_want_unit_layers() -> None:
    with pytest.raises(ValueError, match=r"V\['W1'\] must have norm 1, got"):
        margin.stationarity_terms(RELU, RELU.init(seed=0), *PLANE)


def test_equilibrium_weights_are_the_softmax_of_the_margins() -> None:
    margins = torch.tensor([0.3, 0.2, 0.9, 0.2], dtype=torch.float64)
    alpha = margin.equilibrium_weights(margins, 7.0)
    torch.testing.assert_close(alpha / alpha.sum(), torch.softmax(-7 * margins, dim=0))
    assert alpha.max() == 1.0 and alpha[1] == alpha[3] == 1.0
    far = margin.equilibrium_weights(1e3 * margins, 1e6)
    assert far.tolist() == [0.0, 1.0, 0.0, 1.0]  # no overflow, however long the time
    with pytest.raises(ValueError, match="rho must be finite and greater than 0"):
        margin.equilibrium_weights(margins, 0.0)
    with pytest.raises(ValueError, match="margins must be finite"):
        margin.equilibrium_weights(margins / 0, 1.0)


def random_terms(seed: int, num: int, dim: int) -> networks.Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        "W1": torch.randn(num, dim, 2, generator=generator, dtype=torch.float64) + 0.4,
        "W2": torch.randn(num, 1, dim, generator=generator, dtype=torch.float64),
    }


@pytest.mark.parametrize("seed", range(10))
def test_nearest_combination_against_a_quadratic_program(seed: int) -> None:
    terms = random_terms(seed, num=4 + seed, dim=2)
    columns = torch.cat([B.flatten(1) for B in terms.values()], dim=1).numpy()
    N, P = columns.shape
    # Unknowns (alpha, r) with r = columns' alpha, so that the objective is not squared twice.
    equal = (
        np.block([[columns.T, -np.eye(P)], [np.ones((1, N)), np.zeros((1, P))]]),
        np.append(np.zeros(P), 1.0),
    )
    objective = np.diag(np.append(np.zeros(N), np.ones(P)))
    z = solve_qp(objective, np.zeros(N + P), equal, (np.eye(N, N + P), np.zeros(N)))
    alpha, norm = margin.nearest_combination(terms)
    assert norm == pytest.approx(np.linalg.norm(z[N:]), rel=1e-8, abs=1e-8)
    assert float(alpha.min()) >= 0 and float(alpha.sum()) == pytest.approx(1, rel=1e-14)
    assert margin.combination_norm(terms, alpha) == pytest.approx(norm, rel=1e-12, abs=1e-14)


def test_terms_of_the_three_points_balance_at_the_maximum_margin() -> None:
    net, v = MLP(widths=(2, 1)), {"W1": THREE.direction[None]}
    terms = margin.stationarity_terms(net, v, THREE.x, THREE.y)
    alpha, norm = margin.nearest_combination(terms)
    assert norm < 1e-15
    assert margin.combination_norm(terms, THREE.weights) < 1e-15
    assert margin.combination_norm(terms, torch.tensor([1.0, 0, 0]).double()) == 1.0  # B_1 is not 0
    torch.testing.assert_close(alpha[0], 2 * alpha[1], rtol=1e-12, atol=0)


def test_a_lone_example_is_at_equilibrium_where_its_term_vanishes() -> None:
    terms = {"W1": torch.zeros(1, 1, 2, dtype=torch.float64)}
    alpha, norm = margin.nearest_combination(terms)
    assert alpha.tolist() == [1.0] and norm == 0.0


def test_combinations_check_their_arguments() -> None:
    terms = random_terms(0, 3, 2)
    for weights in ([1.0, -0.1, 0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="weights must be at least 0 and not all 0"):
            margin.combination_norm(terms, torch.tensor(weights, dtype=torch.float64))
    nan = torch.tensor([1.0, math.nan, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="weights must be finite, got 1 entries"):
        margin.combination_norm(terms, nan)
    with pytest.raises(ValueError, match=r"weights must have shape \(3,\), got \(2,\)"):
        margin.combination_norm(terms, torch.ones(2, dtype=torch.float64))
    for of in (margin.nearest_combination, lambda t: margin.combination_norm(t, torch.ones(3))):
        with pytest.raises(ValueError, match="terms must hold at least one layer"):
            of({})


def test_minimum_norm_of_two_layers_by_calculus() -> None:
    a, g = sympy.symbols("a gamma", positive=True)
    half = (a**2 + 1 / (g * a) ** 2) / 2  # rho_2 = 1 / (gamma rho_1)
    (at,) = sympy.solve(sympy.diff(half, a), a)
    least = sympy.simplify(half.subs(a, at))
    for gamma in (0.1, 0.5, 1.0, 4.0):
        exact = float(least.subs(g, gamma))
        assert margin.minimum_norm(gamma, K=2) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("K", [1, 2, 3, 5])
def test_minimum_norm_against_a_solver(K: int) -> None:
    gamma = 0.37
    found = minimize(
        lambda s: 0.5 * np.exp(2 * s).sum(),  # rho_k = e^{s_k}: convex, with sum s_k = -log gamma
        np.linspace(0.0, 0.3, K) - np.log(gamma) / K,
        jac=lambda s: np.exp(2 * s),
        constraints={"type": "eq", "fun": lambda s: s.sum() + np.log(gamma)},
        method="SLSQP",
        options={"ftol": 1e-15},
    )
    assert margin.minimum_norm(gamma, K=K) == pytest.approx(found.fun, rel=1e-10)


def test_minimum_norm_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match="margin must be finite and greater than 0"):
        margin.minimum_norm(-0.5, K=2)
    with pytest.raises(ValueError, match="K must be at least 1"):
        margin.minimum_norm(0.5, K=0)


@pytest.mark.parametrize("widths", [(3, 1), (3, 2, 1), (3, 2, 2, 1)], ids="K={0}".format)
def test_least_norm_of_linear_networks(widths: tuple[int, ...]) -> None:
    """The margin of a linear network is at most the planted one, at any depth."""
    planted = data.separable(20, 3, margin=0.5, seed=0)
    net = MLP(widths=widths, activation="linear")
    start = gradient_flow(net, net.init(seed=0), planted.x, planted.y, until=LogLoss(-5)).params
    found = margin.least_norm(net, start, planted.x, planted.y)
    assert float((planted.y * net(found, planted.x)).min()) > 1 - 1e-8  # SLSQP's accuracy
    rho = networks.layer_norms(found)
    assert 0.5 * float((rho**2).sum()) == pytest.approx(
        margin.minimum_norm(planted.margin, K=net.K), rel=1e-8
    )
    residual = margin.kkt_residual(net, found, planted.x, planted.y, support_rtol=1e-6).residual
    assert residual < 1e-5  # the distance is first order where the objective is second


def test_least_norm_refuses_what_it_cannot_solve() -> None:
    large = MLP(widths=(2, 101, 1))
    with pytest.raises(ValueError, match="net must have at most 300 weights, got 303"):
        margin.least_norm(large, large.init(seed=0), *PLANE)
    with pytest.raises(ValueError, match="params must separate the data, got a smallest margin"):
        margin.least_norm(RELU, RELU.init(seed=0), *PLANE)


def test_margin_offers_the_kkt_residual() -> None:
    assert margin.kkt_residual is kkt.kkt_residual and margin.KKT is kkt.KKT
    assert margin.support_vectors is kkt.support_vectors
    assert all(hasattr(margin, name) for name in margin.__all__)


def test_tensors_that_require_grad_are_taken_as_they_are() -> None:
    terms = random_terms(0, 3, 2)
    tracked = {k: B.clone().requires_grad_() for k, B in terms.items()}
    alpha, norm = margin.nearest_combination(tracked)
    assert torch.equal(alpha, margin.nearest_combination(terms)[0]) and not alpha.requires_grad
    net, points = MLP(widths=(2, 1)), data.three_points()
    W = {"W1": points.direction[None].clone().requires_grad_()}
    found = margin.least_norm(net, W, points.x.clone().requires_grad_(), points.y)
    assert not found["W1"].requires_grad
    assert float((points.y * net(found, points.x)).min()) > 1 - 1e-8
