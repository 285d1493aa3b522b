"""Gradient flow of the exponential-type losses, in a time in which it does not stop.

The flow ``dW/dt = -grad L`` of PNAS Eq. 1 slows down like the loss itself, so we follow
``dW/dtau = grad l`` with ``l = -log sum_n loss_n``: the same curve, traversed with
``dt = N exp(l) dtau`` for the mean of the losses. Nothing underflows, and log t is carried along.

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

from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import (
    LogLoss,
    LogTime,
    Objective,
    Recorder,
    Trajectory,
    squared_norms,
)
from companion.networks import Network, Params

__all__ = ["LogLoss", "LogTime", "Trajectory", "gradient_flow"]

# Two power iterations underestimate the stiffness, and a kink can raise it within the step: with a
# half of the stability interval the smoothed margin rattled by up to 1.6 % on sets of twelve points
# in the plane, with an eighth it did not fall on the same sets.
SAFETY = 8.0
TINY = 1e-300  # a gradient that is zero


def gradient_flow(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss | LogTime,
    loss: str = "exponential",
    relative_step: float = 0.01,
    max_increment: float = 1.0,
    stages: int = 16,
    project: bool = True,
    snapshots: Sequence[float] = (),
    max_evaluations: int = 200_000,
) -> Trajectory:
    """Follow the gradient flow ``dW_k/dt = -dL/dW_k`` (PNAS Eq. 1 = Eq. 13) of one network.

    One step of the Runge-Kutta-Chebyshev method (Sommeijer, Shampine & Verwer 1998) costs
    ``stages`` gradients plus two that measure the stiffness on the scale of the step.

    Args:
        net: Network with one output.
        params: Weights at t = 0, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: ``LogLoss(-1000)`` or ``LogTime(600)``.
        loss: "exponential" or "logistic".
        relative_step: Largest ||dW|| / ||W|| of a step.
        max_increment: Largest increase of l the step aims at, which also spaces the records.
            Where the flow is smooth, the error falls with the square of these two together.
        stages: Stages of the method; its stability interval grows with their square.
        project: Put the layer norms back on rho_k^2 - rho_j^2 = const (Lemma 1) after each step.
        snapshots: Values of l at which to keep the weights, if they are reached.
        max_evaluations: Budget of gradients; a path that ends there (the last step may exceed
            it) warns and has ``reached=False``.

    Returns:
        The path, one record per step.

    Raises:
        TypeError, ValueError: for data, labels or parameters that do not fit; where the gradient
            of l vanishes (all units dead, two layers zero), since no flow leaves such a point;
            for weights that are all zero; and where the flow comes to rest, as it does on data
            that the network cannot separate.

    Source: PNAS 2020, Eq. 1 and Eq. 13.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> start = net.init(seed=0)
    >>> path = gradient_flow(net, start, points.x, points.y, until=LogLoss(-100))
    >>> path.reached, round(path.hard_margin[-1].item(), 2)
    (True, 1.0)
    """
    objective = Objective(net, params, x, y, loss)
    step_of = _Stepper(objective, params, relative_step, max_increment, stages, project)
    if not isinstance(until, (LogLoss, LogTime)):
        raise TypeError(f"until must be a LogLoss or a LogTime, got {until!r}.")
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    recorder = Recorder(loss, snapshots)
    log_time, log_num = -math.inf, math.log(len(y))
    state = step_of.start(params)
    recorder.add(state.l, state.margins, state.params, log_time=log_time, evaluations=1)
    while not until.reached(-state.l, log_time):
        if step_of.evaluations >= max_evaluations:
            warnings.warn(
                f"The flow stopped at l = {state.l:.4g} after max_evaluations="
                f"{max_evaluations} gradients, before {until}.",
                stacklevel=2,
            )
            return recorder.finish(state.params, reached=False)
        before = state
        h = step_of.size(state)
        while (state := step_of(before, h)) is None:
            h = step_of.shorter(before, h)
        log_time = _log_add(log_time, log_num + math.log(h) + _log_mean_exp(before.l, state.l))
        recorder.add(
            state.l,
            state.margins,
            state.params,
            log_time=log_time,
            evaluations=step_of.evaluations,
            correction=state.correction,
        )
    return recorder.finish(state.params, reached=True)


class _State:
    """A point of the path: weights, l, margins, gradient of l, and its norm."""

    __slots__ = ("params", "l", "margins", "grad", "speed", "correction")

    def __init__(self, params: Params, objective: Objective, correction: float = 0.0) -> None:
        self.params = params
        self.l, self.margins, self.grad = objective(params)
        self.speed = _norm(self.grad)
        self.correction = correction


class _Stepper:
    """Runge-Kutta-Chebyshev steps for dW/dtau = grad l, with the layer norms projected."""

    def __init__(
        self,
        objective: Objective,
        params: Params,
        relative_step: float,
        max_increment: float,
        stages: int,
        project: bool,
    ) -> None:
        self.objective = objective
        self.relative_step = _checks.positive("relative_step", relative_step)
        self.max_increment = _checks.positive("max_increment", max_increment)
        stages = _checks.integer("stages", stages, at_least=2)
        self.first, self.later, self.interval = chebyshev_coefficients(stages)
        self.project = project
        self.squares = squared_norms(params)
        self.evaluations = 1
        self.direction: Params | None = None

    def start(self, params: Params) -> _State:
        """Evaluate the first point; the direction of the stiffness starts at the gradient."""
        state = _State({name: W.detach().clone() for name, W in params.items()}, self.objective)
        self.direction = {name: g / max(state.speed, TINY) for name, g in state.grad.items()}
        return state

    def size(self, state: _State) -> float:
        """Largest step in tau allowed by accuracy and by the stiffness over that very step."""
        if state.speed < TINY:
            raise ValueError(
                "params must leave the flow a direction, but the gradient of the loss is zero at "
                f"l = {state.l:.6g} (every unit is dead, or a layer is zero); draw other weights."
            )
        length = _norm(state.params)
        if length == 0.0:
            raise ValueError("params must not all be zero: steps are measured against ||W||.")
        h = min(self.max_increment / state.speed**2, self.relative_step * length / state.speed)
        stiffness = 0.0
        for _ in range(2):  # power iteration with secants as long as the step: it sees the kinks
            delta = 0.5 * h * state.speed
            moved = {k: W + delta * self.direction[k] for k, W in state.params.items()}
            _, _, grad = self.objective(moved)
            change = {k: g - state.grad[k] for k, g in grad.items()}
            size = _norm(change)
            self.evaluations += 1
            if size == 0.0:
                break
            stiffness = size / delta
            self.direction = {k: c / size for k, c in change.items()}
        return min(h, self.interval / (SAFETY * stiffness)) if stiffness > 0 else h

    def shorter(self, state: _State, h: float) -> float:
        """Halve a step that failed: it was longer than the stiffness allows."""
        if h * state.speed < 1e-12 * _norm(state.params):
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
            newer = self._end(state, h)
        except ValueError:  # margins overflowed at a stage
            return None
        away = _norm({k: W - state.params[k] for k, W in newer.items()})
        if not away <= 2 * self.relative_step * _norm(state.params):
            return None
        correction = 0.0
        if self.project:
            newer, correction = onto_lemma_1(newer, self.squares)
        self.evaluations += 1
        arrived = _State(newer, self.objective, correction)
        return arrived if arrived.l > state.l else None

    def _end(self, state: _State, h: float) -> Params:
        """The last stage of the method, before the projection."""
        start, slope = state.params, state.grad
        older, newer = start, {k: W + self.first * h * slope[k] for k, W in start.items()}
        for mu, nu, mu_slope, gamma in self.later:
            self.evaluations += 1
            _, _, grad = self.objective(newer)
            latest = {
                k: (1 - mu - nu) * start[k]
                + mu * newer[k]
                + nu * older[k]
                + mu_slope * h * grad[k]
                + gamma * h * slope[k]
                for k in start
            }
            older, newer = newer, latest
        return newer


def onto_lemma_1(params: Params, squares: dict[str, float]) -> tuple[Params, float]:
    """Rescale the layers so that every rho_k^2 has grown by the same amount since ``squares``.

    The sum of the rho_k^2 is kept. Returns the weights and the largest |c - 1| among the factors.

    Source: PNAS 2020, Lemma 1 (d rho_k^2 / dt does not depend on k).
    """
    now = squared_norms(params)
    growth = sum(now[k] - squares[k] for k in now) / len(now)
    factors = {
        k: math.sqrt(max(squares[k] + growth, 0.0) / now[k]) if now[k] else 1.0 for k in now
    }
    return {k: c * params[k] for k, c in factors.items()}, max(abs(c - 1) for c in factors.values())


@lru_cache
def chebyshev_coefficients(
    stages: int, damping: float = 2 / 13
) -> tuple[float, tuple[tuple[float, float, float, float], ...], float]:
    """Return the coefficients of the second-order Runge-Kutta-Chebyshev method.

    Stage 1 is ``Y_1 = Y_0 + first h F_0``; stage j >= 2 is ``Y_j = (1 - mu - nu) Y_0 + mu Y_{j-1}
    + nu Y_{j-2} + mu' h F_{j-1} + gamma h F_0``. The last returned number is the length of the
    real interval of stability, about 0.65 stages^2.

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
        later.append((mu, nu, mu_slope, -(1 - b[j - 1] * T[j - 1]) * mu_slope))
    return b[1] * w1, tuple(later), (w0 + 1) * d2T[stages] / dT[stages]


def _norm(params: Params) -> float:
    return math.sqrt(sum(squared_norms(params).values()))


def _log_mean_exp(a: float, b: float) -> float:
    """Log of the mean of exp over the segment from a to b, exact for linear interpolation."""
    low, high = min(a, b), max(a, b)
    gap = high - low
    if gap < 1e-8:
        return low + gap / 2
    return high + math.log(-math.expm1(-gap) / gap)


def _log_add(a: float, b: float) -> float:
    high = max(a, b)
    return high + math.log(math.exp(a - high) + math.exp(b - high))
