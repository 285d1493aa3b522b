"""The event-driven flow against regularization, least norm, conservation, and what must fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import lsq_linear

from companion import data, losses
from companion.dynamics import filippov, flow
from companion.dynamics.filippov import SlidingPath, adaptive_flow, sliding_flow
from companion.dynamics.trajectory import LogLoss, LogTime
from companion.networks import MLP, Params, directions

NET = MLP(widths=(3, 6, 1))


def with_bias(num_points: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = data.quadrants(num_points, seed=seed)
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1), y


X, Y = with_bias(12, 5)


def start(seed: int) -> Params:
    return NET.init(seed=seed, scale=0.7)


@pytest.fixture(scope="module")
def path() -> SlidingPath:
    return sliding_flow(NET, start(1), X, Y, until=LogLoss(-50))


def flat(params: Params) -> torch.Tensor:
    return torch.cat([W.flatten() for W in params.values()])


def balance(params: Params) -> torch.Tensor:
    """|w_j|^2 - a_j^2 of every unit."""
    return (params["W1"] ** 2).sum(dim=1) - params["W2"][0] ** 2


def tensors(W1: list, a: list) -> Params:
    return {
        "W1": torch.tensor(W1, dtype=torch.float64),
        "W2": torch.tensor([a], dtype=torch.float64),
    }


# --- what the path must satisfy ------------------------------------------------------------------


def test_balance_of_every_unit_is_conserved(path: SlidingPath) -> None:
    """d(|w_j|^2 - a_j^2)/dtau = 0 for every slope at z = 0, so on kinks as well."""
    for l in np.linspace(path.start, path.end, 40):  # noqa: E741
        now = path.params(l)
        drift = (balance(now) - balance(start(1))).abs().max()
        assert float(drift) < 1e-11 * float(flat(now).square().sum())


def test_clock_is_the_loss(path: SlidingPath) -> None:
    for l in (path.start, -0.7, 0.0, 3.0, 50.0):  # noqa: E741
        margins = Y * NET(path.params(l), X)
        assert -float(losses.log_loss(margins)) == pytest.approx(l, abs=1e-10)


def test_sliding_pairs_stay_on_the_kink_with_a_slope_between(path: SlidingPath) -> None:
    pairs = {(event.sample, event.unit) for event in path.events if event.after == "slide"}
    assert len(pairs) >= 3
    for n, j in pairs:
        for low, high in path.sliding(n, j):
            for l in np.linspace(low, high, 12)[1:-1]:  # noqa: E741
                assert abs(float(path.preactivations(l)[n, j])) < 1e-11
                assert 0 <= float(path.slopes(l)[n, j]) <= 1
                assert float(path.params(l)["W2"][0, j] * Y[n]) < 0  # a ridge


def test_signs_agree_with_the_slopes_elsewhere(path: SlidingPath) -> None:
    for l in np.linspace(path.start, path.end, 60):  # noqa: E741
        z, theta = path.preactivations(l), path.slopes(l)
        clear = z.abs() > 1e-9
        assert torch.equal(theta[clear], (z[clear] > 0).double())


def test_velocity_is_the_element_of_least_norm(path: SlidingPath) -> None:
    """Davis et al. 2020: where the chain rule holds, the flow takes the shortest subgradient."""
    seen = 0
    for l in [*np.linspace(-0.94, -0.46, 8), 2.0, 20.0]:  # noqa: E741
        params, z = path.params(l), path.preactivations(l)
        pull = losses.example_weights(Y * NET(params, X)) * Y
        kinks = [tuple(pair) for pair in torch.nonzero(z.abs() < 1e-10).tolist()]
        seen += len(kinks)

        def gradient(theta: torch.Tensor, params=params, z=z, pull=pull) -> torch.Tensor:
            W1 = params["W2"].T * ((pull[:, None] * theta).T @ X)
            return torch.cat([W1.flatten(), pull @ z.clamp(min=0)])

        base = (z > 1e-10).double()
        columns = []
        for n, j in kinks:
            single = base.clone()
            single[n, j] = 1.0
            columns.append(gradient(single) - gradient(base))
        if not kinks:
            continue
        found = lsq_linear(
            torch.stack(columns, dim=1).numpy(), -gradient(base).numpy(), (0, 1), tol=1e-14
        ).x
        theta = path.slopes(l)
        assert found == pytest.approx([float(theta[n, j]) for n, j in kinks], abs=1e-6)
        least = base.clone()
        for (n, j), slope in zip(kinks, found, strict=True):
            least[n, j] = slope
        torch.testing.assert_close(flat(path.velocity(l)), gradient(least), rtol=0, atol=1e-6)
    assert seen >= 8


@given(seed=st.integers(0, 5000), width=st.integers(3, 5))
@settings(deadline=None, max_examples=5)
def test_conservation_on_random_networks(seed: int, width: int) -> None:
    net, (x, y) = MLP(widths=(3, width, 1)), with_bias(8, 3)
    params = net.init(seed=seed)
    try:
        found = sliding_flow(net, params, x, y, until=LogLoss(-2), rtol=1e-9, max_evaluations=2500)
    except ValueError as error:
        assert any(w in str(error) for w in ("params", "max_evaluations", "one way to go on"))
        found = None
    if found is None:  # at rest before the end, or an outgoing weight passed zero
        reject()
    end = found.params(found.end)
    drift = (balance(end) - balance(params)).abs().max() / flat(end).square().sum()
    assert float(drift) < 1e-8  # a thousand times the tolerance of a step would be 1e-6
    assert -float(losses.log_loss(y * net(end, x))) == pytest.approx(2, abs=1e-6)


# --- independent references ----------------------------------------------------------------------


def regularized(params: Params, l_end: float, width: float) -> torch.Tensor:
    """The flow in the clock l with slopes 1 / (1 + exp(-z / width)), by an implicit method."""
    x, y = X.numpy(), Y.numpy()

    def slope(_: float, w: np.ndarray) -> np.ndarray:
        W1, a = w[:18].reshape(6, 3), w[18:]
        z = x @ W1.T
        m = y * (np.maximum(z, 0) @ a)
        q = np.exp(m.min() - m)
        q *= y / q.sum()
        theta = 0.5 * (1 + np.tanh(z / (2 * width)))
        W1_dot = a[:, None] * ((q[:, None] * theta).T @ x)
        v = np.concatenate([W1_dot.ravel(), q @ np.maximum(z, 0)])
        return v / (v @ v)

    w = flat(params).numpy()
    first = -float(losses.log_loss(Y * NET(params, X)))
    found = solve_ivp(slope, (first, l_end), w, "LSODA", rtol=1e-9, atol=1e-11)
    return torch.tensor(found.y[:, -1])


def test_limit_of_smoothed_slopes(path: SlidingPath) -> None:
    """Where the solution is unique, steep smooth slopes lead to it (Filippov 1988)."""
    exact = flat(path.params(0.2))
    errors = [float((regularized(start(1), 0.2, w) - exact).norm()) for w in (1e-3, 1e-4)]
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 5


def test_without_events_it_is_a_smooth_flow() -> None:
    x, y = torch.tensor([[1.0, 0.2], [0.3, 1.0]]).double(), torch.ones(2).double()
    net, params = MLP(widths=(2, 2, 1)), tensors([[1.0, 0.5], [0.4, 0.9]], [1.0, 0.7])
    found = sliding_flow(net, params, x, y, until=LogLoss(-10))
    assert found.events == () and found.sliding(0, 0) == ()

    def slope(_: float, w: np.ndarray) -> np.ndarray:
        W1, a = w[:4].reshape(2, 2), w[4:]
        m = x.numpy() @ W1.T @ a
        p = np.exp(m.min() - m)
        p /= p.sum()
        v = np.concatenate([np.outer(a, p @ x.numpy()).ravel(), W1 @ (p @ x.numpy())])
        return v / (v @ v)

    exact = solve_ivp(slope, (found.start, 10), flat(params), "Radau", rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(flat(found.params(10.0)), exact.y[:, -1], rtol=1e-7)


def test_slope_of_a_sliding_pair_by_hand() -> None:
    """Two opposite labels at x = (1, 0) and (1, 1), a_1 = 1; the second sample is on its kink.

    theta solves p_1 x_1 . x_2 - theta p_2 x_2 . x_2 = 0, so theta = p_1 / (2 p_2).
    """
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double()
    y = torch.tensor([1.0, -1.0]).double()
    net, params = MLP(widths=(2, 1, 1)), tensors([[1.0, -1.0]], [1.0])
    found = sliding_flow(net, params, x, y, until=LogLoss(0.15))
    p = losses.example_weights(y * net(params, x))
    assert float(found.slopes(found.start)[1, 0]) == pytest.approx(float(p[0] / (2 * p[1])))
    assert found.sliding(1, 0)[0][0] == found.start
    assert float(found.preactivations(found.end)[1, 0]) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize(("seed", "dl", "bound"), [(1, 0.1, 1e-3), (1, 0.05, 5e-4), (2, 0.1, 1e-3)])
def test_chebyshev_integrator_agrees(seed: int, dl: float, bound: float) -> None:
    exact = sliding_flow(NET, start(seed), X, Y, until=LogLoss(-6.2))
    run = flow.gradient_flow(
        NET, start(seed), X, Y, until=LogLoss(-6),
        max_increment=dl, relative_step=dl / 20, stages=8,
    )  # fmt: skip
    reference = exact.params(float(run.log_inverse_loss[-1]))
    error = flat(directions(run.params)) - flat(directions(reference))
    assert float(error.norm()) < bound


def test_tolerance_hardly_matters(path: SlidingPath) -> None:
    loose = sliding_flow(NET, start(1), X, Y, until=LogLoss(-5), rtol=1e-8)
    assert float((flat(loose.params(5.0)) - flat(path.params(5.0))).norm()) < 1e-6
    assert loose.evaluations < path.evaluations


def test_repeats_bit_for_bit_and_leaves_its_input_alone() -> None:
    first = start(1)
    runs = [sliding_flow(NET, first, X, Y, until=LogLoss(0)) for _ in range(2)]
    assert runs[0].events == runs[1].events
    assert torch.equal(flat(runs[0].params(0.0)), flat(runs[1].params(0.0)))
    assert torch.equal(flat(first), flat(start(1)))


# --- a plain solver ------------------------------------------------------------------------------


def test_a_plain_solver_gets_stuck_where_sliding_begins(path: SlidingPath) -> None:
    first = next(event.l for event in path.events if event.after == "slide")
    run = adaptive_flow(
        NET, start(1), X, Y, until=LogLoss(-50), method="DOP853", rtol=1e-9, max_evaluations=4000
    )
    assert not run.reached and int(run.evaluations[-1]) >= 4000
    assert first < float(run.l[-1]) < first + 0.01
    assert bool((run.l.diff() > 0).all()) and len(run.l) == len(run.evaluations)


def test_a_plain_solver_is_right_where_nothing_slides(path: SlidingPath) -> None:
    first = next(event.l for event in path.events if event.after == "slide")
    run = adaptive_flow(NET, start(1), X, Y, until=LogLoss(-(first - 0.01)), rtol=1e-8)
    assert run.reached and float(run.l[-1]) == first - 0.01


# --- cases that are refused ----------------------------------------------------------------------


def test_a_start_on_a_valley_has_several_solutions() -> None:
    one = torch.ones(1, 1).double()
    with pytest.raises(ValueError, match=r"one way to go on .* samples \[0\] at unit 0 .* several"):
        sliding_flow(MLP(widths=(1, 1, 1)), tensors([[0.0]], [1.0]), one, one[0], until=LogLoss(-1))


def test_a_sign_change_of_an_outgoing_weight_is_refused() -> None:
    """The third sample holds the unit on its kink while the second drives a_1 through 0.

    Beyond it a_1 y_3 > 0: the kink has become a valley, and the flow may leave it at any time.
    """
    x = torch.tensor([[0.2, 0.6], [2.0, 0.0], [0.0, 1.0]]).double()
    y = torch.tensor([1.0, -1.0, -1.0]).double()
    net, params = MLP(widths=(2, 1, 1)), tensors([[1.0, 0.0]], [0.2])
    with pytest.raises(ValueError, match=r"outgoing weight pass zero .* l = -1\.0986.*not unique"):
        sliding_flow(net, params, x, y, until=LogLoss(-5))


def test_dead_networks_and_flows_at_rest_are_refused() -> None:
    x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([1.0, -1.0]).double()
    net = MLP(widths=(1, 1, 1))
    with pytest.raises(ValueError, match="every unit is dead"):
        sliding_flow(net, tensors([[-1.0]], [1.0]), x, y, until=LogLoss(-1))
    with pytest.raises(ValueError, match="comes to rest at l"):
        sliding_flow(net, tensors([[1.0]], [1.0]), x, y, until=LogLoss(-1))


def test_errors_name_the_argument() -> None:
    one = torch.ones(1, 1).double()
    net, W = MLP(widths=(1, 1, 1)), tensors([[1.0]], [1.0])
    with pytest.raises(ValueError, match="until must lie ahead of the start at l = 1"):
        sliding_flow(net, W, one, one[0], until=LogLoss(0))
    with pytest.raises(TypeError, match="until must be a LogLoss"):
        sliding_flow(net, W, one, one[0], until=LogTime(3))
    with pytest.raises(ValueError, match="net must be an MLP with two layers and ReLUs"):
        sliding_flow(MLP(widths=(1, 1)), W, one, one[0], until=LogLoss(-2))
    with pytest.raises(ValueError, match="x must hold no point at the origin"):
        sliding_flow(net, W, 0 * one, one[0], until=LogLoss(-2))
    with pytest.raises(ValueError, match="max_evaluations must let the flow arrive"):
        sliding_flow(net, W, one, one[0], until=LogLoss(-50), max_evaluations=20)
    with pytest.raises(ValueError, match="method must be one of 'RK45', 'DOP853'"):
        adaptive_flow(net, W, one, one[0], until=LogLoss(-2), method="Euler")
    found = sliding_flow(net, W, one, one[0], until=LogLoss(-2))
    with pytest.raises(ValueError, match="l must lie in 1 .. 2, got 3"):
        found.params(3.0)
    assert filippov.Event(0.0, 1, 2, "on", "off").after == "off"
