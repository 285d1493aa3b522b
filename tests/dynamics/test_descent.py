"""Discrete descent against torch's own optimizer on the loss as the paper writes it."""

from __future__ import annotations

import math

import pytest
import torch

from companion import data, losses
from companion.dynamics.descent import gradient_descent, loss_based_descent
from companion.dynamics.flow import LogLoss, LogTime, gradient_flow
from companion.networks import MLP

POINTS = data.separable(20, 3, margin=0.5, seed=0)
LINEAR = MLP(widths=(3, 1))
START = LINEAR.init(seed=0)
PLANE = data.quadrants(12, seed=12)
RELU = MLP(widths=(2, 8, 1))


def mean_loss(net: MLP, params: dict, x: torch.Tensor, y: torch.Tensor, loss: str) -> torch.Tensor:
    m = y * net(params, x)
    return (torch.exp(-m) if loss == "exponential" else torch.log1p(torch.exp(-m))).mean()


@pytest.mark.parametrize("loss", losses.KINDS)
def test_steps_are_those_of_torch_sgd(loss: str) -> None:
    start = RELU.init(seed=0)
    theirs = {name: W.clone().requires_grad_() for name, W in start.items()}
    sgd = torch.optim.SGD(theirs.values(), lr=0.3)
    for steps in (1, 2, 3):
        sgd.zero_grad()
        mean_loss(RELU, theirs, *PLANE, loss).backward()
        sgd.step()
        path = gradient_descent(RELU, start, *PLANE, lr=0.3, steps=steps, loss=loss)
        for name, W in path.params.items():
            torch.testing.assert_close(W, theirs[name].detach(), rtol=1e-13, atol=1e-14)
        now = mean_loss(RELU, theirs, *PLANE, loss).log().item() + math.log(12)
        assert path.log_inverse_loss[-1].item() == pytest.approx(-now, rel=1e-13)


def test_records_every_so_many_steps_and_the_last_one() -> None:
    path = gradient_descent(
        LINEAR, START, POINTS.x, POINTS.y, lr=0.25, steps=10, record_every=4, snapshots=[-9]
    )
    assert path.evaluations.tolist() == [1, 5, 9, 11]
    assert path.log_time[1:].exp().tolist() == pytest.approx([1.0, 2.0, 2.5], rel=1e-14)
    assert path.log_time[0] == -math.inf
    assert path.reached and path.snapshot_index.tolist() == [0]
    assert not bool(path.norm_correction.any())


def test_small_steps_follow_the_flow_in_its_own_time() -> None:
    """Euler's method at t = 4, in the time of PNAS Eq. 1, against the flow stopped at that t."""
    net = MLP(widths=(3, 4, 1), activation="linear")
    start, errors = net.init(seed=0), []
    flow = gradient_flow(
        net,
        start,
        POINTS.x,
        POINTS.y,
        until=LogTime(math.log(4.0)),
        relative_step=0.002,
        max_increment=0.1,
    )
    time = float(flow.log_time[-1].exp())
    for steps in (400, 800):
        path = gradient_descent(net, start, POINTS.x, POINTS.y, lr=time / steps, steps=steps)
        errors.append(abs(float(path.log_inverse_loss[-1] - flow.log_inverse_loss[-1])))
        assert path.norm_drift > 0
    assert errors[0] < 0.1
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order, to the same limit


def test_drift_of_the_norms_is_what_a_step_adds() -> None:
    """One step of size eta changes rho_k^2 - rho_j^2 by eta^2 (|g_k|^2 - |g_j|^2), no more."""
    start, eta = RELU.init(seed=0), 0.1
    leaves = {name: W.clone().requires_grad_() for name, W in start.items()}
    mean_loss(RELU, leaves, *PLANE, "exponential").backward()
    g = [float((W.grad**2).sum()) for W in leaves.values()]
    path = gradient_descent(RELU, start, *PLANE, lr=eta, steps=1)
    gap = path.rho[:, 0] ** 2 - path.rho[:, 1] ** 2
    assert float(gap[1] - gap[0]) == pytest.approx(eta**2 * (g[0] - g[1]), rel=1e-9)


def test_loss_based_descent_lowers_the_loss_at_every_record() -> None:
    start = RELU.init(seed=0, scale=0.7)
    path = loss_based_descent(RELU, start, *PLANE, until=LogLoss(-100), snapshots=[50])
    assert path.reached and float(path.log_inverse_loss[-1]) >= 100
    assert bool((path.log_inverse_loss.diff() > 0).all())
    assert bool((path.evaluations.diff() >= 1).all())
    assert int(path.evaluations[-1]) > len(path.evaluations)  # some steps were taken back
    assert bool(path.log_time.isnan().all())
    assert float(path.accuracy[-1]) == 1.0 and len(path.snapshot_index) == 1


def test_first_loss_based_step_is_the_gradient_over_the_loss() -> None:
    with pytest.warns(UserWarning, match="max_evaluations=2"):
        path = loss_based_descent(
            LINEAR, START, POINTS.x, POINTS.y, until=LogLoss(-9), lr=0.01, max_evaluations=2
        )
    leaf = START["W1"].clone().requires_grad_()
    loss = torch.exp(-POINTS.y * (POINTS.x @ leaf[0])).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    expected = START["W1"] - 0.01 / loss.item() * gradient
    torch.testing.assert_close(path.params["W1"], expected, rtol=1e-13, atol=0)
    assert not path.reached


def test_loss_based_descent_approaches_the_maximum_margin() -> None:
    path = loss_based_descent(LINEAR, START, POINTS.x, POINTS.y, until=LogLoss(-300))
    # The gap is that of the flow, about log(N) / -log L = 1 %.
    assert float(path.hard_margin[-1]) == pytest.approx(POINTS.margin, rel=0.01)


def test_descent_that_diverges_says_where() -> None:
    with pytest.raises(FloatingPointError, match=r"overflowed before step \d+; lower lr=1000.0"):
        gradient_descent(RELU, RELU.init(seed=0), *PLANE, lr=1000.0, steps=50)
    with pytest.raises(FloatingPointError, match=r"diverged at step 1; lower lr=1e\+308"):
        gradient_descent(LINEAR, START, POINTS.x, POINTS.y, lr=1e308, steps=50)


def test_loss_based_descent_says_that_it_is_stuck() -> None:
    x = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9]], dtype=torch.float64)
    net = MLP(widths=(2, 1))
    with pytest.raises(ValueError, match="no step along the gradient does"):
        loss_based_descent(net, net.init(seed=0), x, torch.ones(3).double(), until=LogLoss(-10))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, "lr must be finite and greater than 0"),
        ({"lr": "fast"}, TypeError, "lr must be a number"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 1.5}, TypeError, "steps must be an integer"),
        ({"record_every": 0}, ValueError, "record_every must be at least 1"),
        ({"loss": "square"}, ValueError, "loss must be one of"),
        ({"snapshots": [math.inf]}, ValueError, "snapshots must be finite"),
    ],
)
def test_invalid_arguments_of_gradient_descent(
    change: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gradient_descent(LINEAR, START, POINTS.x, POINTS.y, **({"lr": 0.1, "steps": 2} | change))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr must be finite and greater than 0"),
        ({"grow": 1.0}, ValueError, "grow must be greater than 1"),
        ({"shrink": 0.5}, ValueError, "shrink must be greater than 1"),
        ({"until": LogTime(9.0)}, TypeError, "until must be a LogLoss"),
        ({"until": -9.0}, TypeError, "until must be a LogLoss"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
    ],
)
def test_invalid_arguments_of_loss_based_descent(
    change: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loss_based_descent(LINEAR, START, POINTS.x, POINTS.y, **({"until": LogLoss(-9)} | change))


def test_data_are_checked() -> None:
    with pytest.raises(ValueError, match="y must hold only the labels"):
        gradient_descent(LINEAR, START, POINTS.x, 2 * POINTS.y, lr=0.1, steps=1)
    with pytest.raises(ValueError, match="ensemble of 2"):
        loss_based_descent(LINEAR, LINEAR.init(seed=[0, 1]), POINTS.x, POINTS.y, until=LogLoss(-9))


def test_descent_starts_from_zero_as_linear_models_do() -> None:
    zero = {"W1": torch.zeros_like(START["W1"])}
    path = gradient_descent(LINEAR, zero, POINTS.x, POINTS.y, lr=0.1, steps=20)
    assert path.hard_margin[0].isnan() and path.smoothed_margin[0].isnan()
    assert not path.hard_margin[1:].isnan().any()
    assert path.log_inverse_loss[0].item() == pytest.approx(-math.log(len(POINTS.y)), rel=1e-15)
    path = loss_based_descent(LINEAR, zero, POINTS.x, POINTS.y, until=LogLoss(-5))
    assert path.reached and path.smoothed_margin[0].isnan() and path.monotone_from > 0
