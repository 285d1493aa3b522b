"""Where the flows of many small networks end, all at once (PNAS 2020, Theorem 4).

The chapter asks which share of the starts leads to which limit, and needs thousands of flows of
networks with a handful of weights. One network at a time, and more exactly,
:func:`companion.dynamics.flow.gradient_flow` does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from companion import _checks
from companion.networks import Network, Params, directions

__all__ = ["Limits", "many_flows"]

AT_REST = 1e-16  # ||grad l||^2 / ||W||^2; of order one or more wherever the data are separated


@dataclass(frozen=True, eq=False)
class Limits:
    """Where M flows have come.

    Attributes:
        params: Weights at the end, an ensemble of M.
        log_inverse_loss: (M,) l = -log sum_n exp(-y_n f(W; x_n)) there.
        hard_margin: (M,) min_n y_n f(V; x_n), the normalized margin there.
        arrived: (M,) whether l has reached ``until``; the others have come to rest, or are slow.
    """

    params: Params
    log_inverse_loss: Tensor
    hard_margin: Tensor
    arrived: Tensor


def many_flows(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: float,
    increment: float = 0.2,
    relative_step: float = 0.02,
    max_steps: int = 4000,
) -> Limits:
    """Follow the unconstrained gradient flow of M networks until l reaches ``until``.

    Euler's method in the clock of l: a step raises l by ``increment``, or moves the weights by
    ``relative_step`` of their norm if that is less. For few samples an increment well below 1 is
    stable; at a kink the steps alternate from side to side, and their mean slides along it.

    Args:
        net: Network with one output.
        params: Weights at t = 0, an ensemble of M.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: Value of l = -log sum_n exp(-y_n f(W; x_n)) at which a network is done.
        increment: Largest increase of l in a step.
        relative_step: Largest change ||dW|| / ||W|| in a step.
        max_steps: Number of steps after which the rest is given up.

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: PNAS 2020, Eq. 1.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> found = many_flows(net, net.init(seed=[0, 1]), points.x, points.y, until=200.0)
    >>> found.arrived.tolist(), found.hard_margin.round(decimals=2).tolist()
    ([True, True], [1.0, 1.0])
    """
    x, y = _checks.dataset(x, y)
    until, last = float(until), params[net.layer_names[-1]]
    if not math.isfinite(until) or last.ndim != 3:
        raise ValueError("until must be finite, and params an ensemble with a leading axis M.")
    increment = _checks.positive("increment", increment)
    relative_step = _checks.positive("relative_step", relative_step)
    W = {name: W_k.detach().clone() for name, W_k in params.items()}
    for _ in range(_checks.integer("max_steps", max_steps, at_least=1)):
        f, pullback = net.vjp(W, x)
        l = -torch.logsumexp(-y * f, dim=1)  # noqa: E741
        grad = pullback(y * torch.softmax(-y * f, dim=1))
        slope, size = _squares(grad), _squares(W)
        moving = (l < until) & (slope > AT_REST * size)
        if not bool(moving.any()):
            break
        step = torch.minimum(increment / slope, relative_step * (size / slope).sqrt())
        step = torch.where(moving, step, 0.0)
        W = {name: W_k + step[:, None, None] * grad[name] for name, W_k in W.items()}
    margins = y * net(W, x)
    l = -torch.logsumexp(-margins, dim=1)  # noqa: E741
    hard = (y * net(directions(W), x)).min(dim=1).values
    return Limits(W, l, hard, l >= until)


def _squares(params: Params) -> Tensor:
    """Sum of the squares of all weights of each network, (M,)."""
    return sum((W_k**2).flatten(1).sum(dim=1) for W_k in params.values())  # type: ignore[return-value]
