"""Proximal steps: where they end, what they keep, and the dual problem of one step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from companion import data, networks
from companion.dynamics import proximal
from companion.dynamics.flow import LogLoss, LogTime, gradient_flow
from companion.dynamics.proximal import proximal_ascent
from companion.dynamics.trajectory import Objective
from companion.networks import MLP, ConvNet

PLANE = data.quadrants(12, seed=12)
RELU = MLP(widths=(2, 8, 1))
PLANTED = data.separable(20, 3, margin=0.5, seed=0)


def started(net: MLP, seed: int, x: torch.Tensor, y: torch.Tensor) -> networks.Params:
    """Weights that the flow has brought to l = 1."""
    return gradient_flow(net, net.init(seed=seed, scale=0.7), x, y, until=LogLoss(-1)).params


@pytest.mark.parametrize(
    ("net", "points"),
    [
        (RELU, PLANE),
        (MLP(widths=(3, 5, 1)), PLANTED),
        (MLP(widths=(3, 5, 4, 1), activation="leaky_relu"), PLANTED),
        (MLP(widths=(3, 4, 1), activation="linear"), PLANTED),
    ],
    ids=lambda value: str(value) if isinstance(value, MLP) else "",
)
def test_ends_where_the_flow_does(net: MLP, points: tuple) -> None:
    x, y = points[:2]
    start = started(net, 0, x, y)
    flow = gradient_flow(net, start, x, y, until=LogLoss(-200), relative_step=0.02)
    path = proximal_ascent(net, start, x, y, until=LogLoss(-200), snapshots=[50.0])
    assert path.reached and float(path.log_inverse_loss[-1]) >= 200
    # Steps of 3 % leave the flow's path, but not its direction: within 1 %, as the page says.
    at = float(path.smoothed_margin[-1] / flow.smoothed_margin[-1])
    assert at == pytest.approx(1, abs=0.01)
    assert int(path.evaluations[-1]) < int(flow.evaluations[-1]) / 3
    assert bool((path.log_inverse_loss.diff() > 0).all())
    assert path.norm_drift < 1e-13  # Lemma 1, put back after every step
    assert 0 < float(path.norm_correction.max()) < 0.03
    assert bool(path.log_time.isnan().all()) and len(path.snapshot_index) == 1


def test_linear_networks_reach_the_maximum_margin() -> None:
    net = MLP(widths=(3, 1))
    path = proximal_ascent(net, net.init(seed=0), PLANTED.x, PLANTED.y, until=LogLoss(-2000))
    assert float(path.hard_margin[-1]) == pytest.approx(0.5, rel=2e-3)  # the gap is about 1/rho


def test_repeats_bit_for_bit() -> None:
    start = started(RELU, 0, *PLANE)
    first, second = (proximal_ascent(RELU, start, *PLANE, until=LogLoss(-20)) for _ in range(2))
    assert all(torch.equal(first.params[k], second.params[k]) for k in start)


def test_float32_follows_the_inputs() -> None:
    x, y = (t.float() for t in PLANE)
    start = {name: W.float() for name, W in started(RELU, 0, *PLANE).items()}
    path = proximal_ascent(RELU, start, x, y, until=LogLoss(-100))
    assert path.reached and {W.dtype for W in path.params.values()} == {torch.float32}


def random_instance(seed: int, num: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(num, 6, generator=generator, dtype=torch.float64)
    return 3 * torch.rand(num, generator=generator, dtype=torch.float64), J, J @ J.T


@pytest.mark.parametrize("mu", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_one_step_solves_its_proximal_problem(seed: int, mu: float) -> None:
    """Maximize -log sum exp(-(m + J D)) - |D|^2 / (2 mu) over D itself, against BFGS."""
    m, J, gram = random_instance(seed, num=9)
    a = proximal._proximal_weights(m, gram, mu, torch.zeros(9, dtype=torch.float64))

    def objective(D: np.ndarray) -> tuple[float, np.ndarray]:
        lifted = m.numpy() + J.numpy() @ D
        e = np.exp(lifted.min() - lifted)
        value = np.log(e.sum()) - lifted.min() + D @ D / (2 * mu)
        return value, -J.numpy().T @ (e / e.sum()) + D / mu

    found = minimize(objective, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-9})
    D = (J.T @ a).numpy()
    # The optimum is a gradient step with the weights of its end. Newton stops when that holds to
    # 1e-5; the objective is stationary, and its error of second order: mu |J' 1e-5|^2 < 1e-6.
    p = torch.softmax(-(m + gram @ a), dim=0)
    torch.testing.assert_close(a, mu * p, rtol=0, atol=1.1e-5 * mu)
    assert objective(D)[0] <= found.fun + 1e-6
    np.testing.assert_allclose(D, found.x, rtol=0, atol=1e-3 * np.linalg.norm(found.x))


def test_linear_pieces_are_value_and_gradient_of_the_margins() -> None:
    """The Gram matrix and the combination never form a gradient; autograd does."""
    net = MLP(widths=(2, 5, 4, 1))
    params = net.init(seed=3)
    x, y = PLANE
    model = proximal._Model(net, x, y, memory=2)
    margins = Objective(net, params, x, y, "exponential").margins(params)
    pieces = model.pieces(params, margins, 0.03)
    assert len(pieces.margins) == 12  # all margins are small: all samples, one piece each
    torch.testing.assert_close(pieces.margins, margins)
    jacobian = torch.func.jacrev(lambda W: y * net(W, x))(params)
    J = torch.cat([block.flatten(1) for block in jacobian.values()], dim=1)
    torch.testing.assert_close(pieces.gram(), J @ J.T, rtol=1e-12, atol=1e-12)
    moved = pieces.step(params, 0.03)
    D = torch.cat([(moved[name] - W).flatten() for name, W in params.items()])
    size = torch.cat([W.flatten() for W in params.values()]).norm()
    assert 0.02 < float(D.norm() / size) <= 0.03 * (1 + 1e-12)
    # D lies in the span of the margins' gradients.
    coefficients = torch.linalg.lstsq(J.T, D[:, None], driver="gelsd").solution
    assert float((J.T @ coefficients - D[:, None]).norm()) < 1e-10


def test_remembered_pieces_are_those_of_the_old_pattern() -> None:
    params = RELU.init(seed=0)
    x, y = PLANE
    model = proximal._Model(RELU, x, y, memory=1)
    margins = y * RELU(params, x)
    model.pieces(params, margins, 0.03)
    old = [z > 0 for z in RELU.preactivations(params, x)]
    moved = {"W1": -params["W1"], "W2": params["W2"]}  # every unit changes its side
    pieces = model.pieces(moved, y * RELU(moved, x), 0.03)
    assert len(pieces.margins) == 24
    assert model.passes == 3.0  # all samples at the first point; present and old at the second
    z = x @ moved["W1"].T
    expected = y * ((z * old[0]) @ moved["W2"].T)[:, 0]
    torch.testing.assert_close(pieces.margins[12:], expected)


def test_a_spent_budget_warns() -> None:
    start = started(RELU, 0, *PLANE)
    with pytest.warns(UserWarning, match="max_evaluations=20"):
        path = proximal_ascent(RELU, start, *PLANE, until=LogLoss(-200), max_evaluations=20)
    assert not path.reached


def test_starts_without_a_way_up_are_refused() -> None:
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net, one = MLP(widths=(2, 3, 1)), torch.ones(5, dtype=torch.float64)
    dead = {"W1": -torch.ones(3, 2).double(), "W2": torch.ones(1, 3).double()}
    with pytest.raises(ValueError, match="gradient is exactly zero"):
        proximal_ascent(net, dead, x, one, until=LogLoss(-10))
    hull = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9]], dtype=torch.float64)
    line = MLP(widths=(2, 1))
    with pytest.raises(ValueError, match="no step along the model"):
        proximal_ascent(line, line.init(seed=0), hull, one[:3], until=LogLoss(-10))


CONV = ConvNet(input_shape=(1, 2, 1), channels=(2,))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"net": CONV}, TypeError, "net must be an MLP, got ConvNet"),
        ({"net": MLP(widths=(2, 2))}, ValueError, "net must have one output"),
        ({"until": LogTime(10.0)}, TypeError, "until must be a LogLoss"),
        ({"until": -200}, TypeError, "until must be a LogLoss"),
        ({"relative_step": 0.0}, ValueError, "relative_step must be finite and greater than 0"),
        ({"memory": -1}, ValueError, "memory must be at least 0"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
        ({"snapshots": [math.nan]}, ValueError, "snapshots must be finite"),
        ({"y": 0 * PLANE.y}, ValueError, "y must hold only the labels"),
        ({"params": RELU.init(seed=[0, 1])}, ValueError, "ensemble of 2"),
    ],
)
def test_invalid_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"net": RELU, "x": PLANE.x, "y": PLANE.y, "until": LogLoss(-10)} | change
    params = arguments.pop("params", None) or arguments["net"].init(seed=0)
    net, x, y = (arguments.pop(name) for name in ("net", "x", "y"))
    with pytest.raises(error, match=message):
        proximal_ascent(net, params, x, y, **arguments)


def test_zero_layers() -> None:
    x, y = data.separable(20, 3, margin=0.5, seed=0)[:2]
    net = MLP(widths=(3, 4, 1), activation="linear")
    start = {k: W.clone() for k, W in net.init(seed=0).items()}
    start["W2"].zero_()
    path = proximal_ascent(net, start, x, y, until=LogLoss(-10))
    assert path.reached and path.hard_margin[0].isnan() and not path.hard_margin[1:].isnan().any()
    for other, message in ((net, "gradient is exactly zero"), (MLP((3, 1)), "not all be zero")):
        zero = {k: torch.zeros_like(W) for k, W in other.init(seed=0).items()}
        with pytest.raises(ValueError, match=message):
            proximal_ascent(other, zero, x, y, until=LogLoss(-10))


def test_pieces_of_a_leaky_network_have_its_margins() -> None:
    """In float64: a slope of 0.01 rounded to float32 would be wrong by 2e-8."""
    x, y = data.quadrants(12, seed=5)
    net = MLP(widths=(2, 5, 4, 1), activation="leaky_relu")
    params = net.init(seed=0)
    margins = y * net(params, x)
    pieces = proximal._Model(net, x, y, 0).pieces(params, margins, 1e3)
    torch.testing.assert_close(pieces.margins, margins, rtol=1e-13, atol=1e-15)
