"""ReLU networks on digits 3 and 8: gradient evaluations until -log L = 1000.

Ours is the companion's fastest method, proximal steps. The peer is gradient descent with the
loss-based schedule of Lyu & Li (2020), failed steps taken back, with the best of a grid of factors.
Same networks, same starts, five seeds. A small loss alone proves nothing, since scaling the
weights makes it, so the smoothed margin at -log L = 1000 must lie within 0.5 % of the gradient
flow's, or above it; settings of the peer whose median does not are left out, and ours has to.
"""

from __future__ import annotations

import itertools
import statistics
import time
import warnings

import numpy as np
from torch import Tensor

from benchmarks.comparison import Comparison
from companion import data, networks
from companion.dynamics import descent, flow, proximal
from companion.dynamics.trajectory import Trajectory

GOAL = flow.LogLoss(-1000.0)
SEEDS = range(5)
GROW = (1.02, 1.05, 1.15, 1.3, 2.0)
SHRINK = (1.1, 1.5, 2.0, 4.0)
NETS = {
    "nonlinear_log_loss": networks.MLP(widths=(64, 32, 1)),
    "nonlinear_log_loss_3_layers": networks.MLP(widths=(64, 32, 32, 1)),
}


def run() -> dict[str, Comparison]:
    """Measure both networks on one thread."""
    x, y = data.digits(classes=(3, 8))
    return {name: _compare(net, x, y) for name, net in NETS.items()}


def _compare(net: networks.MLP, x: Tensor, y: Tensor) -> Comparison:
    starts = [net.init(seed=seed) for seed in SEEDS]
    flows = [_margin(flow.gradient_flow(net, start, x, y, until=GOAL)) for start in starts]
    began = time.perf_counter()
    ours = [proximal.proximal_ascent(net, start, x, y, until=GOAL) for start in starts]
    our_seconds = (time.perf_counter() - began) / len(starts)
    our_margins = [_margin(path) / m for path, m in zip(ours, flows, strict=True)]
    if min(our_margins) < 0.995:
        raise RuntimeError(f"Proximal steps fell short of the flow's margin: {our_margins}.")
    best, factors, seconds, margins = np.inf, None, np.nan, []
    for grow, shrink in itertools.product(GROW, SHRINK):
        began = time.perf_counter()
        paths = [_loss_based(net, start, x, y, grow, shrink) for start in starts]
        spent = (time.perf_counter() - began) / len(starts)
        cost = statistics.median(_cost(path) for path in paths)
        ratios = [_margin(path) / m for path, m in zip(paths, flows, strict=True)]
        if statistics.median(ratios) >= 0.995 and cost < best:
            best, factors, seconds, margins = cost, (grow, shrink), spent, ratios
    note = (
        f"smoothed margin over the flow's: ours {min(our_margins):.4f} to {max(our_margins):.4f}, "
        f"peer {min(margins):.4f} to {max(margins):.4f} with factors {factors}; seconds a run: "
        f"ours {our_seconds:.2f}, peer {seconds:.2f}"
    )
    median = statistics.median(_cost(path) for path in ours)
    return Comparison.of_costs(median, best, unit="gradient evaluations", bar=3, note=note)


def _loss_based(
    net: networks.MLP, start: networks.Params, x: Tensor, y: Tensor, grow: float, shrink: float
) -> Trajectory:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a setting that never arrives is left out
        return descent.loss_based_descent(
            net, start, x, y, until=GOAL, grow=grow, shrink=shrink, max_evaluations=5000
        )


def _cost(path: Trajectory) -> float:
    return float(path.evaluations[-1]) if path.reached else np.inf


def _margin(path: Trajectory) -> float:
    """Smoothed margin at -log L = 1000, between the last two records; 0 if never reached."""
    if not path.reached:
        return 0.0
    last = path.log_inverse_loss[-2:].numpy()
    return float(np.interp(-GOAL.value, last, path.smoothed_margin[-2:].numpy()))
