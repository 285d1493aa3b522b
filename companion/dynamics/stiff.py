"""The flows of smooth networks by an implicit solver, to times like exp(10,000).

Linear and diagonal networks have no kinks, so an adaptive method of variable order does better
than the fixed one of :mod:`companion.dynamics.flow`: a few thousand evaluations reach any time
whose logarithm is a double. The solver is SciPy's LSODA. Its independent variable u has
``du = sum_k (rho / rho_k^2) dtau``, so that ``d log rho = sum_n p_n y_n f(V; x_n) du``: it grows
like log rho, and does not stop where log rho does. For dynamics A, which come to rest, it is tau
itself. log t is one more unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.flow import check_until
from companion.dynamics.systems import System, imbalance, named
from companion.dynamics.trajectory import (
    LogLoss,
    LogNorm,
    LogTime,
    Objective,
    Recorder,
    Rest,
    Trajectory,
)
from companion.networks import Network, Params, layer_norms, product_norm

__all__ = ["stiff_flow"]

EARLY = 1e-6  # the first du: log t, minus infinity at the start, is followed from there


def stiff_flow(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss | LogTime | LogNorm | Rest,
    system: str | System = "unconstrained",
    rtol: float = 1e-9,
    max_step: float = 0.1,
    snapshots: Sequence[float] = (),
    max_evaluations: int = 200_000,
) -> Trajectory:
    """Follow one of the paper's systems for the exponential loss of a smooth network.

    Args:
        net: Network with one output, and with the activation "linear" unless it has one layer.
        params: Weights at t = 0, one network, no layer zero.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: ``LogLoss(-1000)``, ``LogTime(10_000)``, ``LogNorm(7)`` or ``Rest(1e-6)``. The last
            record lies on it, to rounding.
        system: As for :func:`companion.dynamics.flow.gradient_flow`.
        rtol: Relative tolerance of the solver, and absolute one for directions and log t.
        max_step: Largest step in u, which spaces the records; no limit for dynamics A.
        snapshots: Values of l at which to keep the weights, if they are reached.
        max_evaluations: Budget of gradients.

    Returns:
        The path, one record per step of the solver. Nothing is projected: the drift of what the
        flow conserves (Lemma 1, |V_k| = 1) is a measure of the error.

    Raises:
        TypeError, ValueError: for arguments that do not fit, an activation that is not smooth, or
            a start without direction.
        RuntimeError: if the solver fails, or the budget is spent before ``until``.

    Source: PNAS 2020, Eqs 1 and 13 (unconstrained), 3 (A), 6 and 7 (B); Petzold 1983 (LSODA).

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> start = net.init(seed=0)
    >>> path = stiff_flow(net, start, points.x, points.y, until=LogTime(10_000.0))
    >>> round(float(path.log_time[-1]), 6), round(float(path.rho[-1, 0] / path.log_time[-1]), 3)
    (10000.0, 1.0)
    """
    from scipy.integrate import LSODA

    if net.activation != "linear" and net.K > 1:
        raise ValueError(f'net must have the activation "linear", got {net.activation!r}.')
    chosen = named(system)
    check_until(until, chosen)
    rtol, max_step = _checks.positive("rtol", rtol), _checks.positive("max_step", max_step)
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    recorder = Recorder("exponential", snapshots)
    slope = _Slope(Objective(net, params, x, y, "exponential"), chosen, params)
    here = slope.at(slope.first)
    recorder.add(here.l, here.margins, here.weights, log_time=-math.inf, evaluations=1)
    if until.reached(-here.l, -math.inf, here):
        return recorder.finish(here.weights, reached=True)
    solver = LSODA(
        lambda _, z: slope(z),
        0.0,
        slope.first,
        math.inf,
        rtol=rtol,
        atol=rtol,
        max_step=math.inf if chosen.settles else max_step,
    )
    while True:
        message = solver.step()
        if solver.status == "failed" or slope.evaluations > max_evaluations:
            raise RuntimeError(
                f"The solver stopped at l = {here.l:.6g} after {slope.evaluations} gradients, "
                f"before {until}: {message or f'max_evaluations={max_evaluations} are spent'}."
            )
        here, z = slope.at(solver.y), solver.y
        arrived = until.reached(-here.l, z[-1], here)
        if arrived:
            z = slope.first_arrival(solver.dense_output(), solver.t_old, solver.t, until)
            here = slope.at(z)
        recorder.add(
            here.l, here.margins, here.weights, log_time=z[-1], evaluations=slope.evaluations
        )
        if arrived:
            return recorder.finish(here.weights, reached=True)


class _Point:
    """A state with what is measured there."""

    def __init__(self, objective: Objective, system: System, state: Params) -> None:
        self.state, self.weights = state, system.weights(state)
        self.l, self.margins, self.gradient = objective(self.weights)

    @property
    def log_norm(self) -> float:
        """log prod_k rho_k."""
        return math.log(float(product_norm(self.weights)))

    @property
    def imbalance(self) -> float:
        """||sum_n p_n B_n||."""
        return imbalance(self.weights, self.gradient)


class _Slope:
    """The right-hand side d(state, log t)/du on flat arrays."""

    def __init__(self, objective: Objective, system: System, params: Params) -> None:
        self.objective, self.system, self.evaluations = objective, system, 0
        self.log_num = math.log(len(objective.y))
        state = system.start({name: W.detach() for name, W in params.items()})
        self.shapes = {name: part.shape for name, part in state.items()}
        self.sizes = [part.numel() for part in state.values()]
        self.like = state[next(reversed(state))]
        self.first = np.append(self._flat(state), 0.0)
        point, pace = self._pace(self.first)
        if not (math.isfinite(pace) and any(bool(G.any()) for G in point.gradient.values())):
            raise ValueError("params must have no layer that is zero, and a gradient that is not.")
        self.first[-1] = self.log_num + point.l + math.log(EARLY / pace)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        point, pace = self._pace(z)
        velocity = self._flat(self.system.velocity(point.state, point.gradient))
        time = math.exp(min(self.log_num + point.l - z[-1], 700.0))  # d log t / dtau
        return np.append(velocity, time) / pace

    def at(self, z: np.ndarray) -> _Point:
        """Measure the state at z."""
        self.evaluations += 1
        parts = torch.as_tensor(z[:-1]).to(self.like).split(self.sizes)
        state = {k: p.view(s) for (k, s), p in zip(self.shapes.items(), parts, strict=True)}
        return _Point(self.objective, self.system, state)

    def first_arrival(
        self, path: object, start: float, end: float, until: LogLoss | LogTime | LogNorm | Rest
    ) -> np.ndarray:
        """Bisect the last step for the first point that has arrived."""
        while end - start > 4e-16 * end:
            middle = 0.5 * (start + end)
            z = path(middle)  # type: ignore[operator]
            there = self.at(z)
            if until.reached(-there.l, z[-1], there):
                end = middle
            elif middle == start:
                break
            else:
                start = middle
        return path(end)  # type: ignore[operator]

    def _pace(self, z: np.ndarray) -> tuple[_Point, float]:
        """The point at z and du/dtau there."""
        point = self.at(z)
        if self.system.settles:
            return point, 1.0
        rho = layer_norms(point.weights)
        return point, float((rho.prod() / rho**2).sum())

    def _flat(self, parts: Params) -> np.ndarray:
        return torch.cat([part.reshape(-1) for part in parts.values()]).cpu().double().numpy()
