"""Nesterov's momentum on l = -log sum_n exp(-m_n): fast in gradients, and off the flow's path.

The gradient of l does not shrink with the loss, so its steps need no schedule that chases the
loss; momentum adds them up, and starts anew where l falls. It goes far with few gradients, but the
layer norms leave the conservation law of Lemma 1, and how far the margin gets depends on the two
factors by which the step is adapted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import LogLoss, Objective, Recorder, Trajectory, squared_norms
from companion.networks import Network, Params

__all__ = ["nesterov_ascent"]


def nesterov_ascent(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss,
    lr: float = 0.01,
    grow: float = 1.02,
    shrink: float = 0.7,
    loss: str = "exponential",
    snapshots: Sequence[float] = (),
    max_evaluations: int = 200_000,
) -> Trajectory:
    """Run ``W <- U + eta dl/dU`` at the points ``U = W + (k / (k + 3)) (W - W_before)``.

    While l rises from one U to the next, eta grows; where it falls, the point is given up, eta
    shrinks, and the momentum starts anew (k = 0) from the best point so far.

    Args:
        net: Network with one output.
        params: Weights to start from, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: Where to stop, on the log of the sum of the losses.
        lr: First eta.
        grow: Factor of eta after a step on which l rose, > 1.
        shrink: Factor of eta after a restart, in (0, 1).
        loss: "exponential" or "logistic".
        snapshots: Values of l at which to keep the weights, if they are reached.
        max_evaluations: Budget of gradients; beyond it the path warns and has ``reached=False``.

    Returns:
        The path of the points U, one record for each that was kept, one gradient per point.

    Raises:
        TypeError, ValueError: for arguments that do not fit, and where no step raises l.

    Source: Nesterov 1983; O'Donoghue & Candes 2015 (restart by function values).

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> path = nesterov_ascent(
    ...     net, net.init(seed=0), points.x, points.y, until=LogLoss(-100)
    ... )
    >>> path.reached, round(path.hard_margin[-1].item(), 1)
    (True, 1.0)
    """
    objective = Objective(net, params, x, y, loss)
    eta = _checks.positive("lr", lr)
    if not grow > 1:
        raise ValueError(f"grow must be greater than 1, got {grow!r}.")
    if not 0 < shrink < 1:
        raise ValueError(f"shrink must lie between 0 and 1, got {shrink!r}.")
    if not isinstance(until, LogLoss):
        raise TypeError(
            f"until must be a LogLoss, since momentum does not measure the flow's time, "
            f"got {until!r}."
        )
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    recorder = Recorder(loss, snapshots)
    U = {name: W.detach().clone() for name, W in params.items()}  # noqa: N806
    before, k = U, 0
    l, margins, grad = objective(U)  # noqa: E741
    evaluations = 1
    recorder.add(l, margins, U, log_time=math.nan, evaluations=evaluations)
    while not until.reached(-l, math.nan):
        if evaluations >= max_evaluations:
            warnings.warn(
                f"The ascent stopped at l = {l:.4g} after max_evaluations={max_evaluations}.",
                stacklevel=2,
            )
            return recorder.finish(U, reached=False)
        after = {name: W + eta * grad[name] for name, W in U.items()}
        momentum = k / (k + 3)
        trial = {name: W + momentum * (W - before[name]) for name, W in after.items()}
        trial_l, trial_margins, trial_grad = objective(trial)
        evaluations += 1
        if trial_l > l:
            U, l, margins, grad = trial, trial_l, trial_margins, trial_grad  # noqa: E741, N806
            before, k, eta = after, k + 1, eta * grow
            recorder.add(l, margins, U, log_time=math.nan, evaluations=evaluations)
            continue
        moved = eta**2 * sum(squared_norms(grad).values())
        if k == 0 and moved <= 1e-28 * sum(squared_norms(U).values()):
            raise ValueError(
                f"params, x, y must let the ascent raise l, but at l = {l:.6g} no step along the "
                "gradient does; draw other weights."
            )
        before, k, eta = U, 0, eta * shrink
    return recorder.finish(U, reached=True)
