"""Gradient flow of the exponential-type losses, in a time in which it does not stop.

The flow ``dW/dt = -grad L`` of PNAS Eq. 1 slows down like the loss itself, so we follow
``dW/dtau = grad l`` with ``l = -log sum_n loss_n``: the same curve, traversed with
``dt = N exp(l) dtau`` for the mean of the losses. Nothing underflows, and log t is carried along.
The constrained systems of the paper run in the same clock (see :mod:`companion.dynamics.systems`).

The right-hand side is stiff (its Jacobian is the covariance of the margin gradients, symmetric
with a long negative spectrum) and, for ReLU networks, jumps at the kinks along which the flow then
slides in the sense of Filippov. Adaptive high-order solvers stall there. The stabilized explicit
Runge-Kutta-Chebyshev method damps exactly such spectra and averages over the kinks, and after
every step the layer norms are put back on the conservation law of Lemma 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.systems import System, imbalance, named, onto_lemma_1
from companion.dynamics.trajectory import (
    LogLoss,
    LogNorm,
    LogTime,
    Objective,
    Recorder,
    Rest,
    Trajectory,
)
from companion.networks import Network, Params, product_norm

__all__ = [
    "LogLoss",
    "LogNorm",
    "LogTime",
    "Rest",
    "Trajectory",
    "gradient_flow",
    "onto_lemma_1",
]

# Two power iterations underestimate the stiffness, and a kink can raise it within the step: with a
# half of the stability interval the smoothed margin rattled by up to 1.6 % on sets of twelve points
# in the plane, with an eighth it did not fall on the same sets.
SAFETY = 8.0
TINY = 1e-300  # a gradient that is zero
ROUNDING = 1e-13  # of l, relative: a system that settles may lose as much in a step


def gradient_flow(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss | LogTime | LogNorm | Rest,
    system: str | System = "unconstrained",
    loss: str = "exponential",
    relative_step: float = 0.01,
    max_increment: float = 1.0,
    stages: int = 16,
    project: bool = True,
    snapshots: Sequence[float] = (),
    max_evaluations: int = 200_000,
) -> Trajectory:
    """Follow the gradient flow ``dW_k/dt = -dL/dW_k`` (PNAS Eq. 1 = Eq. 13) of one network.

    Or one of the other systems of the paper, which differ in what is constrained. One step of the
    Runge-Kutta-Chebyshev method (Sommeijer, Shampine & Verwer 1998) costs ``stages`` gradients
    plus two that measure the stiffness on the scale of the step.

    Args:
        net: Network with one output.
        params: Weights at t = 0, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: ``LogLoss(-1000)``, ``LogTime(600)``, ``LogNorm(7)`` or ``Rest(1e-6)``.
        system: "unconstrained", "polar", "fixed_norm" (dynamics A), "multipliers" (dynamics B),
            "weight_normalization", or a System of :mod:`companion.dynamics.systems`.
        loss: "exponential" or "logistic".
        relative_step: Largest ||dW|| / ||W|| of a step; in polar coordinates, of either part.
        max_increment: Largest increase of l the step aims at, which also spaces the records.
            Where the flow is smooth, the error falls with the square of these two together.
        stages: Stages of the method; its stability interval grows with their square.
        project: Put the layer norms back on rho_k^2 - rho_j^2 = const (Lemma 1), and directions
            back on their spheres, after each step.
        snapshots: Values of l at which to keep the weights, if they are reached.
        max_evaluations: Budget of gradients; a path that ends there (the last step may exceed
            it) warns and has ``reached=False``.

    Returns:
        The path, one record per step.

    Raises:
        TypeError, ValueError: for data, labels or parameters that do not fit; where the gradient
            of l vanishes (all units dead, two layers zero), since no flow leaves such a point;
            for weights that are all zero; where the flow comes to rest, as it does on data
            that the network cannot separate; and for dynamics A without ``Rest`` or ``LogTime``,
            which may never reach anything else.

    Source: PNAS 2020, Eqs 1 and 13 (unconstrained), 3 (A), 6 and 7 (B).

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> start = net.init(seed=0)
    >>> path = gradient_flow(net, start, points.x, points.y, until=LogLoss(-100))
    >>> path.reached, round(path.hard_margin[-1].item(), 2)
    (True, 1.0)
    """
    objective = Objective(net, params, x, y, loss)
    check_until(until, named(system))
    step_of = _Stepper(objective, named(system), relative_step, max_increment, stages, project)
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    recorder = Recorder(loss, snapshots)
    log_time, log_num = -math.inf, math.log(len(y))
    state = step_of.start(params)
    recorder.add(state.l, state.margins, state.weights, log_time=log_time, evaluations=1)
    while not until.reached(-state.l, log_time, state):
        if step_of.evaluations >= max_evaluations:
            warnings.warn(
                f"The flow stopped at l = {state.l:.4g} after max_evaluations="
                f"{max_evaluations} gradients, before {until}.",
                stacklevel=2,
            )
            return recorder.finish(state.weights, reached=False)
        before = state
        h = step_of.size(state)
        while (state := step_of(before, h)) is None:
            h = step_of.shorter(before, h)
        log_mean = _log_mean_exp(before.l, state.l, h * before.rate, h * state.rate)
        log_time = float(np.logaddexp(log_time, log_num + math.log(h) + log_mean))
        recorder.add(
            state.l,
            state.margins,
            state.weights,
            log_time=log_time,
            evaluations=step_of.evaluations,
            correction=state.correction,
        )
    return recorder.finish(state.weights, reached=True)


def check_until(until: object, system: System) -> None:
    """Raise unless ``until`` is a condition that the system can reach."""
    if not isinstance(until, (LogLoss, LogTime, LogNorm, Rest)):
        raise TypeError(f"until must be a LogLoss, LogTime, LogNorm or Rest, got {until!r}.")
    if system.settles and not isinstance(until, (Rest, LogTime)):
        raise ValueError(
            f"until must be a Rest or a LogTime for a system that settles, got {until!r}."
        )


class _State:
    """A point of the path: coordinates, weights, l, margins, and the velocity in coordinates.

    The coordinates are one flat vector ``z``, and so is the velocity: a stage of the integrator
    then costs a few operations, however many layers there are.
    """

    z: Tensor
    weights: Params
    l: float  # noqa: E741 (the letter of the literature)
    margins: Tensor
    gradient: Params
    velocity: Tensor
    rate: float
    speed: float
    correction: float

    @property
    def log_norm(self) -> float:
        """log prod_k rho_k."""
        rho = float(product_norm(self.weights))
        return math.log(rho) if rho > 0 else -math.inf

    @property
    def imbalance(self) -> float:
        """||sum_n p_n B_n||."""
        return imbalance(self.weights, self.gradient)


class _Stepper:
    """Runge-Kutta-Chebyshev steps in the coordinates of a system, restored after each."""

    def __init__(
        self,
        objective: Objective,
        system: System,
        relative_step: float,
        max_increment: float,
        stages: int,
        project: bool,
    ) -> None:
        self.objective, self.system = objective, system
        self.relative_step = _checks.positive("relative_step", relative_step)
        self.max_increment = _checks.positive("max_increment", max_increment)
        stages = _checks.integer("stages", stages, at_least=2)
        self.first, later, self.interval = chebyshev_coefficients(stages)
        self.later = torch.tensor(later, dtype=torch.float64)
        self.project = project
        self.evaluations = 0

    def start(self, params: Params) -> _State:
        """Evaluate the first point; the direction of the stiffness starts at the gradient."""
        self.origin = self.system.start({k: W.detach().clone() for k, W in params.items()})
        self.shapes = {k: part.shape for k, part in self.origin.items()}
        self.sizes = [part.numel() for part in self.origin.values()]
        state = self.state(self._flat(self.origin))
        self.direction = state.velocity / max(state.speed, TINY)
        self.later = self.later.to(state.z)
        return state

    def state(self, z: Tensor, correction: float = 0.0) -> _State:
        """Everything at the coordinates z, at the cost of one gradient."""
        here, parts = _State(), self._parts(z)
        here.z, here.correction = z, correction
        here.weights = self.system.weights(parts)
        here.l, here.margins, here.gradient = self.objective(here.weights)
        velocity = self.system.velocity(parts, here.gradient)
        here.rate = self.system.rate(parts, velocity)
        here.velocity = self._flat(velocity)
        here.speed = float(torch.linalg.vector_norm(here.velocity))
        self.evaluations += 1
        return here

    def velocity(self, z: Tensor) -> Tensor:
        """The velocity at the coordinates z, at the cost of one gradient."""
        parts = self._parts(z)
        _, _, gradient = self.objective(self.system.weights(parts))
        self.evaluations += 1
        return self._flat(self.system.velocity(parts, gradient))

    def size(self, state: _State) -> float:
        """Largest step in tau allowed by accuracy and by the stiffness over that very step."""
        if state.speed < TINY:
            raise ValueError(
                "params must leave the flow a direction, but the gradient of the loss is zero at "
                f"l = {state.l:.6g} (every unit is dead, or a layer is zero); draw other weights."
            )
        if not bool(state.z.any()):
            raise ValueError("params must not all be zero: steps are measured against ||W||.")
        h = self.relative_step / self._relative(state, state.velocity)
        h = min(self.max_increment / max(state.rate, TINY), h)
        stiffness = 0.0
        for _ in range(2):  # power iteration with secants as long as the step: it sees the kinks
            delta = 0.5 * h * state.speed
            change = self.velocity(state.z + delta * self.direction) - state.velocity
            size = float(torch.linalg.vector_norm(change))
            if size == 0.0:
                break
            stiffness = size / delta
            self.direction = change / size
        return min(h, self.interval / (SAFETY * stiffness)) if stiffness > 0 else h

    def shorter(self, state: _State, h: float) -> float:
        """Halve a step that failed: it was longer than the stiffness allows."""
        if h * self._relative(state, state.velocity) < 1e-12:
            raise ValueError(
                f"params, x, y must let the flow separate the data, but from l = {state.l:.6g} no "
                "step along the gradient lowers the loss: the flow has come to rest at a "
                "stationary point. Draw other weights or take a wider network."
            )
        return 0.5 * h

    def __call__(self, state: _State, h: float) -> _State | None:
        """Take one step of size h in tau; None if it fails.

        It fails if it lowers l, which the flow never does, or if it ends further away than twice
        the largest distance it may go: the sign of an unstable step.
        """
        try:
            z, correction = self._end(state, h), 0.0
            if not self._relative(state, z - state.z) <= 2 * self.relative_step:
                return None
            if self.project:
                restored, correction = self.system.restore(self._parts(z), self.origin)
                z = self._flat(restored)
            arrived = self.state(z, correction)
        except ValueError:  # margins overflowed at a stage
            return None
        allowed = ROUNDING * (1 + abs(state.l)) if self.system.settles else 0.0
        return arrived if arrived.l > state.l - allowed else None

    def _end(self, state: _State, h: float) -> Tensor:
        """The last stage of the method, before the projection."""
        start, slope = state.z, h * state.velocity
        known = torch.stack([start, slope, start, start + self.first * slope, slope])
        for row in self.later:  # known: Y_0, h F_0, Y_{j-2}, Y_{j-1}, h F_{j-1}
            known[4] = h * self.velocity(known[3])
            latest = row @ known
            known[2] = known[3]
            known[3] = latest
        return known[3]

    def _relative(self, state: _State, change: Tensor) -> float:
        return self.system.relative_size(self._parts(state.z), self._parts(change))

    def _flat(self, parts: Params) -> Tensor:
        return torch.cat([part.reshape(-1) for part in parts.values()])

    def _parts(self, z: Tensor) -> Params:
        pieces = zip(self.shapes.items(), z.split(self.sizes), strict=True)
        return {name: piece.view(shape) for (name, shape), piece in pieces}


@lru_cache
def chebyshev_coefficients(
    stages: int, damping: float = 2 / 13
) -> tuple[float, tuple[tuple[float, ...], ...], float]:
    """Return the coefficients of the second-order Runge-Kutta-Chebyshev method.

    Stage 1 is ``Y_1 = Y_0 + first h F_0``; stage j >= 2 is ``Y_j = (1 - mu - nu) Y_0
    + gamma h F_0 + nu Y_{j-2} + mu Y_{j-1} + mu' h F_{j-1}``, and its row holds the five
    coefficients in this order. The last returned number is the length of the real interval of
    stability, about 0.65 stages^2.

    Source: Sommeijer, Shampine & Verwer 1998, section 2.

    >>> first, later, interval = chebyshev_coefficients(16)
    >>> len(later), round(interval)
    (15, 167)
    """
    w0 = 1 + damping / stages**2
    T, dT, d2T = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for j in range(2, stages + 1):
        T.append(2 * w0 * T[-1] - T[-2])
        dT.append(2 * T[j - 1] + 2 * w0 * dT[-1] - dT[-2])
        d2T.append(4 * dT[j - 1] + 2 * w0 * d2T[-1] - d2T[-2])
    w1 = dT[stages] / d2T[stages]
    b = [d2T[j] / dT[j] ** 2 for j in range(2, stages + 1)]
    b = [b[0], b[0], *b]
    later = []
    for j in range(2, stages + 1):
        mu, nu, mu_slope = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], 2 * b[j] * w1 / b[j - 1]
        gamma = -(1 - b[j - 1] * T[j - 1]) * mu_slope
        later.append((1 - mu - nu, gamma, nu, mu, mu_slope))
    return b[1] * w1, tuple(later), (w0 + 1) * d2T[stages] / dT[stages]


# Enough for an l that rises by 10 in a step, to rounding.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def _log_mean_exp(a: float, b: float, slope_a: float, slope_b: float) -> float:
    """Log of the mean of exp over a step on which l goes from a to b, b >= a.

    l is taken as the cubic with the slopes ``slope_a`` and ``slope_b`` (per step) at the ends,
    which are first limited so that it is monotone (Fritsch & Carlson 1980): beside a kink the
    slopes on its two sides say little about what happens along it.
    """
    rise = b - a
    first, last = (min(max(slope, 0.0), 3 * max(rise, 0.0)) for slope in (slope_a, slope_b))
    s = 0.5 * (_NODES + 1)
    cubic = s * (first + s * (3 * rise - 2 * first - last + s * (first + last - 2 * rise)))
    high = float(cubic.max())
    return a + high + math.log(0.5 * float(_WEIGHTS @ np.exp(cubic - high)))
