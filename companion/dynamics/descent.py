"""Gradient descent in discrete time, for comparison with the flow.

Plain gradient descent is what Eq. 1 of the paper discretizes; its steps shrink with the loss. The
loss-based schedule of Lyu & Li (2020, section 5) divides the step by the loss and lets the
quotient grow while the loss falls. Neither follows the flow's conservation law; the record shows
by how much they miss it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import (
    LogLoss,
    Objective,
    Recorder,
    Trajectory,
    squared_norms,
)
from companion.networks import Network, Params

__all__ = ["gradient_descent", "loss_based_descent"]


def gradient_descent(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    lr: float,
    steps: int,
    loss: str = "exponential",
    record_every: int = 1,
    snapshots: Sequence[float] = (),
) -> Trajectory:
    """Run ``W <- W - lr dL/dW`` on the mean L of the losses, as PNAS Eq. 1 is discretized.

    Args:
        net: Network with one output.
        params: Weights to start from, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        lr: Step size, constant.
        steps: Number of steps.
        loss: "exponential" or "logistic".
        record_every: Steps between records.
        snapshots: Values of l at which to keep the weights, if they are reached.

    Returns:
        The path; ``log_time`` is log(lr * step), the flow's time that the steps add up to.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        FloatingPointError: if the weights diverge, with the step at which they did.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> start = net.init(seed=0)
    >>> path = gradient_descent(net, start, points.x, points.y, lr=0.1, steps=100)
    >>> bool((path.log_inverse_loss.diff() > 0).all())
    True
    """
    objective = Objective(net, params, x, y, loss)
    lr = _checks.positive("lr", lr)
    steps = _checks.integer("steps", steps, at_least=1)
    record_every = _checks.integer("record_every", record_every, at_least=1)
    recorder = Recorder(loss, snapshots)
    params = {name: W.detach().clone() for name, W in params.items()}
    l, margins, grad = objective(params)  # noqa: E741
    recorder.add(l, margins, params, log_time=-math.inf, evaluations=1)
    for step in range(1, steps + 1):
        if l < -700:
            raise FloatingPointError(f"The loss overflowed before step {step}; lower lr={lr}.")
        rate = lr * math.exp(-l) / len(y)  # -lr dL/dW = lr (exp(-l) / N) dl/dW
        params = {name: W + rate * grad[name] for name, W in params.items()}
        try:
            l, margins, grad = objective(params)  # noqa: E741
        except ValueError as error:
            raise FloatingPointError(
                f"The weights diverged at step {step}; lower lr={lr}."
            ) from error
        if step % record_every == 0 or step == steps:
            recorder.add(
                l, margins, params, log_time=math.log(lr * step), evaluations=step + 1
            )
    return recorder.finish(params, reached=True)


def loss_based_descent(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss,
    lr: float = 0.01,
    grow: float = 1.02,
    shrink: float = 1.5,
    loss: str = "exponential",
    snapshots: Sequence[float] = (),
    max_evaluations: int = 200_000,
) -> Trajectory:
    """Run ``W <- W - (eta / L) dL/dW``, with eta grown on success and shrunk on failure.

    A step that does not lower the loss is taken back.

    Args:
        net: Network with one output.
        params: Weights to start from, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: Where to stop, on the log of the sum of the losses.
        lr: First eta.
        grow: Factor of eta after a step that lowered the loss, > 1.
        shrink: Divisor of eta after one that did not, > 1.
        loss: "exponential" or "logistic".
        snapshots: Values of l at which to keep the weights, if they are reached.
        max_evaluations: Budget of gradients; beyond it the path warns and has ``reached=False``.

    Raises:
        TypeError, ValueError: for arguments that do not fit, and where no step lowers the loss.

    Source: Lyu & Li 2020, section 5 and appendix on the loss-based learning rate, who use
    grow = 2^(1/5) and shrink = 2^(1/10).
    """
    objective = Objective(net, params, x, y, loss)
    eta = _checks.positive("lr", lr)
    for name, factor in (("grow", grow), ("shrink", shrink)):
        if not factor > 1:
            raise ValueError(f"{name} must be greater than 1, got {factor!r}.")
    if not isinstance(until, LogLoss):
        raise TypeError(
            f"until must be a LogLoss, since this schedule does not measure the flow's time, "
            f"got {until!r}."
        )
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    recorder = Recorder(loss, snapshots)
    params = {name: W.detach().clone() for name, W in params.items()}
    l, margins, grad = objective(params)  # noqa: E741
    evaluations = 1
    recorder.add(l, margins, params, log_time=math.nan, evaluations=evaluations)
    while not until.reached(-l, math.nan):
        if evaluations >= max_evaluations:
            warnings.warn(
                f"The descent stopped at l = {l:.4g} after max_evaluations={max_evaluations}.",
                stacklevel=2,
            )
            return recorder.finish(params, reached=False)
        trial = {name: W + eta * grad[name] for name, W in params.items()}
        trial_l, trial_margins, trial_grad = objective(trial)
        evaluations += 1
        if trial_l > l:
            params, l, margins, grad = trial, trial_l, trial_margins, trial_grad  # noqa: E741
            eta *= grow
            recorder.add(l, margins, params, log_time=math.nan, evaluations=evaluations)
        else:
            eta /= shrink
            moved = eta**2 * sum(squared_norms(grad).values())
            if moved <= 1e-28 * sum(squared_norms(params).values()):
                raise ValueError(
                    f"params, x, y must let the descent lower the loss, but at l = {l:.6g} no step "
                    "along the gradient does; draw other weights."
                )
    return recorder.finish(params, reached=True)
