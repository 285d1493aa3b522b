"""Momentum on l: its steps by autograd, what it reaches, and what it does not keep."""

from __future__ import annotations

import pytest
import torch

from companion import data
from companion.dynamics.descent import loss_based_descent
from companion.dynamics.flow import LogLoss, LogTime
from companion.dynamics.nesterov import nesterov_ascent
from companion.networks import MLP

PLANE = data.quadrants(12, seed=12)
RELU = MLP(widths=(2, 8, 1))
START = RELU.init(seed=0)
PLANTED = data.separable(20, 3, margin=0.5, seed=0)


def test_first_steps_are_nesterovs() -> None:
    """Three points without a restart, with the gradient of -log of the loss by autograd."""

    def gradient(U: dict) -> dict:
        leaves = {name: W.clone().requires_grad_() for name, W in U.items()}
        l = -torch.exp(-PLANE.y * RELU(leaves, PLANE.x)).sum().log()  # noqa: E741
        return dict(zip(U, torch.autograd.grad(l, list(leaves.values())), strict=True))

    U, W_before, eta = dict(START), dict(START), 0.001
    for k in range(4):
        g = gradient(U)
        W = {name: U[name] + eta * g[name] for name in U}
        U = {name: W[name] + k / (k + 3) * (W[name] - W_before[name]) for name in U}
        # At k = 0 there is no momentum, so the point before does not matter.
        W_before, eta = W, eta * 1.02
    with pytest.warns(UserWarning, match="max_evaluations=5"):
        path = nesterov_ascent(RELU, START, *PLANE, until=LogLoss(-50), lr=0.001, max_evaluations=5)
    assert not path.reached and path.evaluations.tolist() == [1, 2, 3, 4, 5]
    for name, W in U.items():
        torch.testing.assert_close(path.params[name], W, rtol=1e-12, atol=1e-14)


def test_far_with_fewer_gradients_than_without_momentum() -> None:
    start = {name: 0.7 * W for name, W in START.items()}
    path = nesterov_ascent(RELU, start, *PLANE, until=LogLoss(-200), snapshots=[50.0])
    plain = loss_based_descent(RELU, start, *PLANE, until=LogLoss(-200))
    assert path.reached and bool((path.log_inverse_loss.diff() > 0).all())
    assert int(path.evaluations[-1]) < int(plain.evaluations[-1])
    assert float(path.smoothed_margin[-1]) > 0.9 * float(plain.smoothed_margin[-1])
    assert path.norm_drift > 1e-3  # Lemma 1 is a law of the flow, not of momentum
    assert bool(path.log_time.isnan().all()) and len(path.snapshot_index) == 1
    assert int(path.evaluations[-1]) > len(path.evaluations)  # it did start anew


def test_linear_networks_reach_the_maximum_margin() -> None:
    net = MLP(widths=(3, 1))
    path = nesterov_ascent(net, net.init(seed=0), PLANTED.x, PLANTED.y, until=LogLoss(-500))
    assert float(path.hard_margin[-1]) == pytest.approx(0.5, rel=0.02)


def test_repeats_bit_for_bit_and_follows_the_dtype() -> None:
    first, second = (nesterov_ascent(RELU, START, *PLANE, until=LogLoss(-20)) for _ in range(2))
    assert all(torch.equal(first.params[k], second.params[k]) for k in START)
    x, y = (t.float() for t in PLANE)
    single = {name: W.float() for name, W in START.items()}
    path = nesterov_ascent(RELU, single, x, y, until=LogLoss(-20))
    assert {W.dtype for W in path.params.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"until": LogTime(10.0)}, TypeError, "until must be a LogLoss"),
        ({"lr": 0.0}, ValueError, "lr must be finite and greater than 0"),
        ({"grow": 1.0}, ValueError, "grow must be greater than 1"),
        ({"shrink": 1.0}, ValueError, "shrink must lie between 0 and 1"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
        ({"loss": "hinge"}, ValueError, "loss must be"),
        ({"params": RELU.init(seed=[0, 1])}, ValueError, "ensemble of 2"),
    ],
)
def test_invalid_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"params": START, "until": LogLoss(-10)} | change
    params = arguments.pop("params")
    with pytest.raises(error, match=message):
        nesterov_ascent(RELU, params, *PLANE, **arguments)


def test_a_dead_start_is_refused() -> None:
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dead = {"W1": -torch.ones(8, 2).double(), "W2": torch.ones(1, 8).double()}
    with pytest.raises(ValueError, match="no step along the gradient"):
        nesterov_ascent(RELU, dead, x, torch.ones(5).double(), until=LogLoss(-10))
