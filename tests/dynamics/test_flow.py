"""The flow against solutions in closed form, DOP853, and the theorems that hold along it."""

from __future__ import annotations

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy.integrate import solve_ivp

from companion import data, losses, networks
from companion.dynamics import flow, trajectory
from companion.dynamics.flow import LogLoss, LogTime, gradient_flow
from companion.networks import MLP, ConvNet

LINEAR = MLP(widths=(3, 1))
DEEP_LINEAR = MLP(widths=(3, 4, 1), activation="linear")
POINTS = data.separable(20, 3, margin=0.5, seed=0)
THREE = data.three_points()


def flatten(params: networks.Params) -> np.ndarray:
    return torch.cat([W.flatten() for W in params.values()]).numpy()


def reference(start: networks.Params, l_end: float) -> tuple[np.ndarray, float]:
    """Weights of a linear network, and log t, where DOP853 finds l = l_end on the points.

    Written in numpy and from the formulas: (W_1, W_2) as one vector, t as the last unknown.
    """
    rows = (POINTS.y[:, None] * POINTS.x).numpy()  # y_n x_n
    shapes = [tuple(W.shape) for W in start.values()]

    def unpack(u: np.ndarray) -> tuple[list[np.ndarray], float, np.ndarray]:
        W, at = [], 0
        for shape in shapes:
            W.append(u[at : at + math.prod(shape)].reshape(shape))
            at += math.prod(shape)
        m = rows @ np.linalg.multi_dot([*W[::-1], np.eye(3)]).ravel()
        e = np.exp(m.min() - m)
        return W, m.min() - np.log(e.sum()), e / e.sum()

    def slope(_: float, u: np.ndarray) -> np.ndarray:
        W, l, q = unpack(u)  # noqa: E741
        pull = q @ rows  # (d,), sum_n q_n y_n x_n
        grads = [pull] if len(W) == 1 else [np.outer(W[1], pull), W[0] @ pull]
        return np.concatenate([*(g.ravel() for g in grads), [len(rows) * np.exp(l)]])

    def arrived(_: float, u: np.ndarray) -> float:
        return unpack(u)[1] - l_end

    arrived.terminal = True
    u = np.append(flatten(start), 0.0)
    found = solve_ivp(slope, (0, 1e6), u, "DOP853", rtol=1e-12, atol=1e-13, events=arrived)
    return found.y[:-1, -1], math.log(found.y[-1, -1])


@pytest.mark.parametrize("net", [LINEAR, DEEP_LINEAR], ids=["one layer", "two layers"])
def test_weights_and_log_time_agree_with_dop853(net: MLP) -> None:
    start = net.init(seed=0)
    path = gradient_flow(
        net, start, POINTS.x, POINTS.y, until=LogLoss(-4), relative_step=0.002, max_increment=0.2
    )
    weights, log_time = reference(start, float(path.log_inverse_loss[-1]))
    # Errors of second order in the step; within a step l is a cubic in tau, which adds nothing.
    assert np.abs(flatten(path.params) - weights).max() < 1e-6
    assert abs(float(path.log_time[-1]) - log_time) < 2e-6


@pytest.mark.parametrize("net", [LINEAR, DEEP_LINEAR], ids=["one layer", "two layers"])
def test_error_falls_with_the_square_of_the_step(net: MLP) -> None:
    start, errors = net.init(seed=0), []
    for factor in (1, 2, 4):
        path = gradient_flow(
            net,
            start,
            POINTS.x,
            POINTS.y,
            until=LogLoss(-6),
            relative_step=0.02 / factor,
            max_increment=0.5 / factor,
        )
        weights, log_time = reference(start, float(path.log_inverse_loss[-1]))
        errors.append(
            (np.abs(flatten(path.params) - weights).max(), abs(path.log_time[-1] - log_time))
        )
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    # 4 in the limit; steps of different length end at slightly different l, which moves it a bit.
    assert ((3.3 < ratios) & (ratios < 4.8)).all(), ratios


def test_log_time_of_one_example_is_exact() -> None:
    """With one example m = w . x the flow is a line and t = (e^l - e^{l_0}) / |x|^2."""
    x, y = torch.tensor([[0.6, -1.1, 0.3]], dtype=torch.float64), torch.ones(1).double()
    start = LINEAR.init(seed=1)
    path = gradient_flow(
        LINEAR, start, x, y, until=LogLoss(-1000), relative_step=0.5, max_increment=10.0
    )
    l0, l = path.log_inverse_loss[0], path.log_inverse_loss[1:]  # noqa: E741
    exact = l + torch.log(-torch.expm1(l0 - l)) - float((x * x).sum().log())
    # log t is a sum of exact terms, each rounded to 1e-16 of a number up to 1000.
    torch.testing.assert_close(path.log_time[1:], exact, rtol=0, atol=1e-10)


def test_chain_of_two_layers_agrees_with_the_exponential_integral() -> None:
    """With W_1 = a, W_2 = a and x = 1: l = a^2 grows as dl/dtau = 2 l, so t = int e^l dl / 2l."""
    net = MLP(widths=(1, 1, 1))
    one = torch.ones(1, 1, dtype=torch.float64)
    start = {"W1": 1.2 * one, "W2": 1.2 * one}
    path = gradient_flow(net, start, one, one[0], until=LogLoss(-200))
    l = float(path.log_inverse_loss[-1])  # noqa: E741
    exact = mpmath.log((mpmath.ei(l) - mpmath.ei(1.44)) / 2)
    # dl/dtau = 2 l is a line of slope 2 within a step h = 1 / (2 l), not the tangent parabola of
    # the cubic: what the method itself misses, at the default step.
    assert abs(float(path.log_time[-1]) - float(exact)) < 2e-6
    torch.testing.assert_close(path.rho**2, path.log_inverse_loss[:, None].expand(-1, 2))


def test_log_time_counts_the_mean_of_the_losses() -> None:
    """Doubling every example leaves the mean loss, hence path and time of PNAS Eq. 1."""
    once = gradient_flow(LINEAR, LINEAR.init(seed=0), POINTS.x, POINTS.y, until=LogLoss(-5))
    x, y = torch.cat([POINTS.x, POINTS.x]), torch.cat([POINTS.y, POINTS.y])
    until = LogLoss(-float(once.log_inverse_loss[-1]) + math.log(2) + 1e-9)
    twice = gradient_flow(LINEAR, LINEAR.init(seed=0), x, y, until=until)
    torch.testing.assert_close(twice.params["W1"], once.params["W1"], rtol=1e-10, atol=0)
    torch.testing.assert_close(twice.log_time, once.log_time, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stages", [2, 3, 8, 16, 40])
def test_stability_polynomial(stages: int) -> None:
    """Applied to dW/dtau = W a step multiplies by P(h): second order, and |P| <= 1 where claimed.

    P is computed by the stages and compared with its closed form a + b T_s(w_0 + w_1 z).
    """
    first, later, interval = flow.chebyshev_coefficients(stages)

    def P(z):  # noqa: N802 (the name in the literature)
        older, newer = 1.0, 1 + first * z
        for start, gamma, nu, mu, mu_slope in later:
            latest = start + mu * newer + nu * older + (mu_slope * newer + gamma) * z
            older, newer = newer, latest
        return newer

    z = np.linspace(-interval, 0, 20_001)
    w0 = 1 + 2 / 13 / stages**2
    T = [chebyshev.Chebyshev.basis(stages).deriv(k)(w0) if k else None for k in range(3)]
    b, w1 = T[2] / T[1] ** 2, T[1] / T[2]
    value = chebyshev.Chebyshev.basis(stages)
    # The recurrence amplifies rounding by about stages^2.
    rounding = 1e-15 * stages**2
    closed = 1 - b * value(w0) + b * value(w0 + w1 * z)
    np.testing.assert_allclose(P(z), closed, rtol=0, atol=10 * rounding)
    assert np.abs(P(z)).max() <= 1 + rounding
    if stages > 2:  # two stages are the plain second-order method: no damping to speak of
        assert np.abs(P(np.linspace(-0.95 * interval, -3, 1000))).max() < 0.97  # damped
    if stages > 2 and stages % 2 == 0:
        assert P(-1.01 * interval) > 1  # the interval is no longer than claimed
    assert interval == pytest.approx(0.653 * stages**2, rel=0.3 if stages < 4 else 0.02)
    h = np.array([1e-2, 5e-3])
    remainder = P(h) - (1 + h + h**2 / 2)
    if stages > 2:  # two stages give exactly 1 + z + z^2 / 2
        assert remainder[0] / remainder[1] == pytest.approx(8, rel=0.02)
    assert (np.abs(remainder) < 0.2 * h**3).all()


@pytest.mark.filterwarnings("ignore:The flow stopped")
@given(seed=st.integers(0, 10_000), num_layers=st.sampled_from([2, 3]))
@settings(max_examples=6)
def test_theorems_hold_on_random_relu_networks(seed: int, num_layers: int) -> None:
    points = data.separable(10, 2, margin=0.3, seed=seed)
    net = MLP(widths=(2, *[6] * (num_layers - 1), 1))
    start, until = net.init(seed=seed), LogLoss(-25)
    try:
        path = gradient_flow(net, start, points.x, points.y, until=until, max_evaluations=10_000)
    except ValueError as error:
        assert "params" in str(error)
        path = None
    if path is None or not path.reached:  # no unit is alive on some example: the flow is stuck
        reject()
    # The flow itself never lowers it; steps across kinks of the ReLU do, by 1e-5 at most. Nothing
    # of the kind was seen on 46 such networks.
    assert path.smoothed_margin_fall <= 1e-5
    assert path.norm_drift < 1e-13  # Lemma 1, to rounding: the norms are projected
    assert bool((path.smoothed_margin <= path.hard_margin + 1e-15).all())
    gap = path.hard_margin - path.smoothed_margin
    assert bool((gap <= math.log(10) / path.rho.prod(dim=1) + 1e-15).all())
    assert bool((path.log_inverse_loss.diff() > 0).all())
    assert bool((path.log_time.diff()[1:] > 0).all())


def test_layer_norms_are_nearly_conserved_without_the_projection() -> None:
    """Lemma 1 is a property of the flow: the drift is the method's error, and falls with it."""
    start, drifts = DEEP_LINEAR.init(seed=0), []
    for step in (0.02, 0.01):
        path = gradient_flow(
            DEEP_LINEAR,
            start,
            POINTS.x,
            POINTS.y,
            until=LogLoss(-5),
            relative_step=step,
            max_increment=50 * step,
            project=False,
        )
        assert float(path.norm_correction.max()) == 0.0
        drifts.append(path.norm_drift)
    assert drifts[0] < 1e-4
    assert drifts[1] < drifts[0] / 3


def test_no_step_goes_further_than_it_may() -> None:
    """Past a saddle the Jacobian has a positive eigenvalue, along which steps could explode.

    Three layers from this start first fit one class with the other at f = 0, then leave that
    saddle; there some steps are refused and halved.
    """
    net = MLP(widths=(3, 4, 3, 1))
    path = gradient_flow(
        net,
        net.init(seed=3),
        POINTS.x,
        POINTS.y,
        until=LogLoss(-5),
        snapshots=np.linspace(-6, 5, 20_000).tolist(),
    )
    W = torch.cat([kept.flatten(1) for kept in path.snapshots.values()], dim=1)
    next_to = path.snapshot_index.diff() == 1
    moved = (W.diff(dim=0).norm(dim=1) / W[:-1].norm(dim=1))[next_to]
    assert len(moved) > 90
    assert float(moved.max()) < 0.0201  # twice relative_step, and a projection of order 1e-5
    assert int(path.evaluations[-1]) > 18 * (len(path.accuracy) - 1) + 1


def test_projection_puts_the_norms_back_and_reports_by_how_much() -> None:
    params = {"W1": torch.tensor([[3.0, 4.0]]).double(), "W2": torch.tensor([[2.0]]).double()}
    moved, correction = flow.onto_lemma_1(params, {"W1": 24.0, "W2": 1.0})
    # |W_1|^2 grew by 1 and |W_2|^2 by 3: both must have grown by 2.
    assert networks.layer_norms(moved).square().tolist() == pytest.approx([26.0, 3.0], rel=1e-15)
    assert correction == pytest.approx(1 - math.sqrt(3) / 2, rel=1e-14)


def test_linear_flow_ends_at_the_maximum_margin() -> None:
    path = gradient_flow(
        LINEAR,
        LINEAR.init(seed=3),
        POINTS.x,
        POINTS.y,
        until=LogLoss(-3000),
        relative_step=0.05,
        max_increment=30.0,
    )
    # Soudry et al. 2018: the gap falls like 1/rho, here 1/6000 times a constant of order one.
    assert float(path.hard_margin[-1]) == pytest.approx(POINTS.margin, rel=1e-3)
    assert float(path.hard_margin.max()) <= POINTS.margin * (1 + 1e-14)
    assert float(path.accuracy[-1]) == 1.0


def test_logistic_and_exponential_flows_agree_where_the_losses_do() -> None:
    start = gradient_flow(
        DEEP_LINEAR, DEEP_LINEAR.init(seed=0), POINTS.x, POINTS.y, until=LogLoss(-45)
    ).params
    paths = [
        gradient_flow(DEEP_LINEAR, start, POINTS.x, POINTS.y, until=LogLoss(-120), loss=loss)
        for loss in losses.KINDS
    ]
    # log(1 + e) = e (1 - e/2 + ...) with e < exp(-45) = 3e-20: equal to rounding.
    for field in ("log_inverse_loss", "hard_margin", "smoothed_margin", "log_time"):
        first, second = (getattr(path, field) for path in paths)
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_logistic_flow_from_a_generic_start() -> None:
    start = DEEP_LINEAR.init(seed=0)
    path = gradient_flow(
        DEEP_LINEAR, start, POINTS.x, POINTS.y, until=LogLoss(-60), loss="logistic"
    )
    assert path.smoothed_margin_fall == 0.0
    first = path.monotone_from
    # The theorem starts at a total loss of log 2, not of 1.
    assert float(path.log_inverse_loss[first]) > -math.log(math.log(2))
    assert float(path.log_inverse_loss[first - 1]) <= -math.log(math.log(2))
    assert float(path.hard_margin[-1]) == pytest.approx(POINTS.margin, rel=0.05)


def test_repeats_bit_for_bit_and_leaves_its_input_alone() -> None:
    net, (x, y) = MLP(widths=(2, 8, 1)), data.quadrants(12, seed=12)
    start = net.init(seed=0)
    before = {name: W.clone() for name, W in start.items()}
    first, second = (gradient_flow(net, start, x, y, until=LogLoss(-3)) for _ in range(2))
    assert all(torch.equal(start[k], before[k]) for k in start)
    assert torch.equal(first.log_inverse_loss, second.log_inverse_loss)
    assert all(torch.equal(first.params[k], second.params[k]) for k in start)


def test_stops_at_the_log_time_asked_for() -> None:
    path = gradient_flow(LINEAR, LINEAR.init(seed=0), POINTS.x, POINTS.y, until=LogTime(300.0))
    assert path.reached
    assert float(path.log_time[-1]) >= 300.0 > float(path.log_time[-2])
    # K = 1: L t tends to a constant, so -log L runs beside log t.
    assert abs(float(path.log_inverse_loss[-1] - path.log_time[-1])) < 10


def test_a_spent_budget_warns() -> None:
    start = LINEAR.init(seed=0)
    with pytest.warns(UserWarning, match=r"max_evaluations=100 gradients, before LogLoss"):
        path = gradient_flow(
            LINEAR, start, POINTS.x, POINTS.y, until=LogLoss(-1000), max_evaluations=100
        )
    assert not path.reached
    assert 100 <= int(path.evaluations[-1]) <= 100 + 18


def test_every_gradient_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, evaluate = [0], trajectory.Objective.__call__

    def counted(self: trajectory.Objective, params: networks.Params) -> tuple:
        calls[0] += 1
        return evaluate(self, params)

    monkeypatch.setattr(trajectory.Objective, "__call__", counted)
    net, (x, y) = MLP(widths=(2, 8, 1)), data.quadrants(12, seed=12)
    path = gradient_flow(net, net.init(seed=0), x, y, until=LogLoss(-1), stages=5)
    assert int(path.evaluations[-1]) == calls[0]
    assert int(path.evaluations[0]) == 1


def test_float32_follows_the_inputs_to_a_loss_it_cannot_hold() -> None:
    net = MLP(widths=(3, 6, 1))
    x, y = POINTS.x.float(), POINTS.y.float()
    start = net.init(seed=0, dtype=torch.float32)
    coarse = {"until": LogLoss(-1000), "relative_step": 0.02, "max_increment": 10.0}
    path = gradient_flow(net, start, x, y, snapshots=[10.0], **coarse)
    assert path.reached and float(path.log_inverse_loss[-1]) >= 1000
    assert {W.dtype for W in path.params.values()} == {torch.float32}
    assert path.snapshots["W1"].dtype == torch.float32
    assert path.log_inverse_loss.dtype == torch.float64  # records are numbers, not weights
    start = {name: W.double() for name, W in start.items()}
    double = gradient_flow(net, start, POINTS.x, POINTS.y, **coarse)
    # Single precision, over a few hundred steps across kinks.
    assert float(path.smoothed_margin[-1] / double.smoothed_margin[-1]) == pytest.approx(1, 1e-3)


def test_the_device_follows_the_inputs(device: str) -> None:
    x, y = POINTS.x.to(device), POINTS.y.to(device)
    path = gradient_flow(LINEAR, LINEAR.init(seed=0, device=device), x, y, until=LogLoss(-3))
    assert path.params["W1"].device.type == device
    assert path.hard_margin.device.type == "cpu"


def test_convolutional_networks_flow_too() -> None:
    net = ConvNet(input_shape=(1, 4, 4), channels=(2,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 16, generator=generator, dtype=torch.float64)
    y = torch.tensor([1.0, -1.0] * 3, dtype=torch.float64)
    path = gradient_flow(net, net.init(seed=0), x, y, until=LogLoss(-10))
    assert path.reached and path.norm_drift < 1e-13 and path.smoothed_margin_fall <= 1e-5


def test_snapshots_hold_the_weights_of_their_records() -> None:
    path = gradient_flow(
        LINEAR, LINEAR.init(seed=0), POINTS.x, POINTS.y, until=LogLoss(-20), snapshots=[15, 2, 500]
    )
    assert path.snapshot_level.tolist() == [2, 15]  # 500 is never reached
    for i, level in enumerate((2, 15)):
        at = int(path.snapshot_index[i])
        assert float(path.log_inverse_loss[at]) >= level > float(path.log_inverse_loss[at - 1])
        margins = POINTS.y * LINEAR(path.snapshot(i), POINTS.x)
        assert -float(losses.log_loss(margins)) == float(path.log_inverse_loss[at])


def test_a_saved_path_is_read_back_whole(tmp_path) -> None:
    path = gradient_flow(
        LINEAR, LINEAR.init(seed=0), POINTS.x, POINTS.y, until=LogLoss(-5), snapshots=[1]
    )
    assert path.switches is not None  # a cached property is not part of the record
    path.save(tmp_path / "path.pt")
    again = trajectory.Trajectory.load(tmp_path / "path.pt")
    for field in dataclasses.fields(path):
        ours, theirs = getattr(path, field.name), getattr(again, field.name)
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs), field.name
        elif isinstance(ours, dict):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[k], theirs[k]) for k in ours)
        else:
            assert ours == theirs


def test_a_dead_network_is_refused() -> None:
    net = MLP(widths=(2, 3, 1))
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dead = {"W1": -torch.ones(3, 2).double(), "W2": torch.ones(1, 3).double()}
    with pytest.raises(ValueError, match="every unit is dead"):
        gradient_flow(net, dead, x, torch.ones(5).double(), until=LogLoss(-10))


def test_data_that_cannot_be_separated_bring_the_flow_to_rest() -> None:
    """0 is a convex combination of the y_n x_n, so l has a finite maximum, which it reaches."""
    x = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9]], dtype=torch.float64)
    net = MLP(widths=(2, 1))
    with pytest.raises(ValueError, match="come to rest at a stationary point"):
        gradient_flow(net, net.init(seed=0), x, torch.ones(3).double(), until=LogLoss(-10))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_targets_must_be_finite(value: float) -> None:
    for target in (LogLoss, LogTime):
        with pytest.raises(ValueError, match="value must be finite"):
            target(value)


START = LINEAR.init(seed=0)
BAD_X = POINTS.x.clone()
BAD_X[3, 1] = torch.nan
INVALID = [
    ({"x": POINTS.x[:, :2]}, ValueError, r"x must have shape \(N, 3\)"),
    ({"x": POINTS.x[0]}, ValueError, r"x must have shape \(N, d\)"),
    ({"x": BAD_X}, ValueError, "x must be finite, got 1 entries"),
    ({"x": POINTS.x.long()}, TypeError, "x must be a floating-point tensor"),
    ({"x": POINTS.x.numpy()}, TypeError, "x must be a torch.Tensor"),
    ({"x": POINTS.x.float()}, ValueError, "y must have the dtype and device of x"),
    ({"y": POINTS.y[1:]}, ValueError, r"y must have shape \(20,\), got \(19,\)"),
    ({"y": (POINTS.y + 1) / 2}, ValueError, "y must hold only the labels -1 and \\+1"),
    ({"params": LINEAR.init(seed=[0, 1])}, ValueError, "one network, got an ensemble of 2"),
    ({"params": LINEAR.init(seed=0, dtype=torch.float32)}, ValueError, "the dtype of x"),
    ({"params": {"W1": torch.full((1, 3), torch.inf)}}, ValueError, r"params\['W1'\] must be fin"),
    ({"net": MLP(widths=(3, 2))}, ValueError, "net must have one output, got 2"),
    ({"loss": "hinge"}, ValueError, "loss must be one of 'exponential', 'logistic'"),
    ({"until": -1000.0}, TypeError, "until must be a LogLoss, LogTime, LogNorm or Rest"),
    ({"stages": 1}, ValueError, "stages must be at least 2, got 1"),
    ({"stages": 2.5}, TypeError, "stages must be an integer"),
    ({"relative_step": -0.01}, ValueError, "relative_step must be finite and greater than 0"),
    ({"max_increment": 0.0}, ValueError, "max_increment must be finite and greater than 0"),
    ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
    ({"snapshots": [math.nan]}, ValueError, "snapshots must be finite"),
]


@pytest.mark.parametrize(("change", "error", "message"), INVALID, ids=lambda value: str(value)[:30])
def test_invalid_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"net": LINEAR, "params": START, "x": POINTS.x, "y": POINTS.y} | change
    arguments = {"until": LogLoss(-10)} | arguments
    positional = [arguments.pop(name) for name in ("net", "params", "x", "y")]
    if "net" in change:
        positional[1] = change["net"].init(seed=0)
    with pytest.raises(error, match=message):
        gradient_flow(*positional, **arguments)


def test_zero_layers() -> None:
    """One zero layer of two is left at once; more leave no gradient, or no scale for the steps."""
    start = {k: W.clone() for k, W in DEEP_LINEAR.init(seed=0).items()}
    start["W2"].zero_()
    path = gradient_flow(DEEP_LINEAR, start, POINTS.x, POINTS.y, until=LogLoss(-10))
    assert path.reached and path.norm_drift < 1e-13
    assert path.hard_margin.isnan().tolist() == [True] + [False] * (len(path.rho) - 1)
    cases = ((DEEP_LINEAR, "gradient of the loss is zero"), (LINEAR, "not all be zero"))
    for net, message in cases:
        zero = {k: torch.zeros_like(W) for k, W in net.init(seed=0).items()}
        with pytest.raises(ValueError, match=message):
            gradient_flow(net, zero, POINTS.x, POINTS.y, until=LogLoss(-10))
