"""Proximal steps along the margin path: the flow at a few dozen gradients instead of thousands.

An implicit Euler step of ``dW/dtau = grad l`` maximizes ``l(W + D) - ||D||^2 / (2 mu)``. With the
margins linearized in D it becomes a small convex problem in one dual variable per sample, whose
optimum ``D = mu sum_n p_n dm_n`` is a gradient step with the softmax weights p of the *end* of
the step instead of its beginning: the stiffness of the soft minimum is gone, and steps are limited
by the curvature of the network alone (the prox-linear method, Drusvyatskiy & Lewis 2018).

The kinks of the ReLU would still make such steps rattle across the surfaces on which the flow
slides. So each sample near the margin also keeps the linear pieces it was on at the last few
points, evaluated at the present weights: a bundle, in the sense of nonsmooth optimization
(Lemarechal 1975), of elements of the Clarke subdifferential among which the step can balance.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.flow import onto_lemma_1
from companion.dynamics.trajectory import (
    LogLoss,
    Objective,
    Recorder,
    Trajectory,
    squared_norms,
)
from companion.networks import MLP, Params, product_norm, slopes_where

__all__ = ["proximal_ascent"]

NEGLIGIBLE = 25.0  # a margin this far above the smallest has a weight below exp(-25)


def proximal_ascent(
    net: MLP,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss,
    relative_step: float = 0.03,
    memory: int = 2,
    snapshots: Sequence[float] = (),
    max_evaluations: int = 10_000,
) -> Trajectory:
    """Drive the exponential loss of an MLP down by proximal steps on l = -log sum_n exp(-m_n).

    A step that lowers l, or the smoothed margin once l > 0, is taken back and halved, down to
    1/25 of ``relative_step``. Layer norms are kept on the flow's conservation law (Lemma 1).

    Args:
        net: A bias-free MLP with one output.
        params: Weights to start from, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: Where to stop, on the log of the sum of the losses.
        relative_step: Largest ||dW|| / ||W|| of a step.
        memory: Number of earlier points whose linear pieces are kept.
        snapshots: Values of l at which to keep the weights, if they are reached.
        max_evaluations: Budget; beyond it the path warns and has ``reached=False``.

    Returns:
        The path, one record per accepted step. ``evaluations`` counts one per trial point (a
        forward pass) and, where pieces are built, their share of a pass over the N samples; this
        charges the method rather too much than too little.

    Raises:
        TypeError, ValueError: for arguments that do not fit, weights that are all zero, and where
            no step lowers the loss.

    Source: companion method for PNAS Eq. 12; it stays within 1 % of the flow's smoothed margin on
    the digits, which the benchmarks measure.
    """
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}.")
    if not isinstance(until, LogLoss):
        raise TypeError(
            "until must be a LogLoss, since proximal steps do not measure the flow's time, "
            f"got {until!r}."
        )
    largest = _checks.positive("relative_step", relative_step)
    _checks.integer("memory", memory, at_least=0)
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    objective = Objective(net, params, x, y, "exponential")
    model = _Model(net, x, y, memory)
    recorder = Recorder("exponential", snapshots)
    current = _Point(objective, {k: W.detach().clone() for k, W in params.items()})
    squares = squared_norms(current.params)
    trials, size = 1, 0.4 * largest
    recorder.add(
        current.l, current.margins, current.params, log_time=math.nan, evaluations=trials
    )
    while not until.reached(-current.l, math.nan):
        if trials + model.passes >= max_evaluations:
            warnings.warn(
                f"The ascent stopped at l = {current.l:.4g} after max_evaluations="
                f"{max_evaluations}.",
                stacklevel=2,
            )
            return recorder.finish(current.params, reached=False)
        pieces = model.pieces(current.params, current.margins, size)
        while True:
            moved, correction = onto_lemma_1(pieces.step(current.params, size), squares)
            trial = _Point(objective, moved)
            trials += 1
            if trial.better_than(current, anyway=size <= largest / 25):
                break
            if size < 1e-8 * largest:
                raise ValueError(
                    f"params must leave a way to lower the loss, but no step along the model "
                    f"does at l = {current.l:.6g}."
                )
            size *= 0.5
        current, size = trial, min(1.3 * size, largest)
        recorder.add(
            current.l,
            current.margins,
            current.params,
            log_time=math.nan,
            evaluations=trials + math.ceil(model.passes),
            correction=correction,
        )
    return recorder.finish(current.params, reached=True)


class _Point:
    """Weights with l, the margins, and the smoothed normalized margin."""

    def __init__(self, objective: Objective, params: Params) -> None:
        self.params = params
        self.margins = objective.margins(params)
        self.l = -float(torch.logsumexp(-self.margins, dim=0))
        rho = float(product_norm(params))
        self.smoothed = self.l / rho if rho else math.nan

    def better_than(self, other: _Point, *, anyway: bool) -> bool:
        """Whether l is higher, and so is the smoothed margin where it counts (not ``anyway``)."""
        return self.l > other.l and (anyway or other.l <= 0 or self.smoothed >= other.smoothed)


@dataclass
class _Pieces:
    """R linear pieces of the margins near W: values, activations and backpropagated deltas.

    The gradient of piece r in layer k is the outer product of ``deltas[k][r]`` and
    ``inputs[k][r]``, so Gram matrix and combinations never form it.
    """

    margins: Tensor
    inputs: list[Tensor]
    deltas: list[Tensor]

    def gram(self) -> Tensor:
        """Inner products of the gradients of all pieces, (R, R)."""
        blocks = zip(self.deltas, self.inputs, strict=True)
        return torch.stack([(d @ d.T) * (a @ a.T) for d, a in blocks]).sum(dim=0)

    def step(self, params: Params, relative_step: float) -> Params:
        """Return W + D for the largest proximal step with ||D|| <= relative_step ||W||."""
        gram = self.gram()
        allowed = relative_step * math.sqrt(sum(float((W * W).sum()) for W in params.values()))
        weights = torch.softmax(-self.margins, dim=0)
        speed = math.sqrt(max(float(weights @ gram @ weights), 0.0))
        if speed == 0.0:
            raise ValueError(
                "params must leave a way to lower the loss, but its gradient is exactly zero "
                "(every unit is dead, or a layer is zero); draw other weights."
            )
        if allowed == 0.0:
            raise ValueError("params must not all be zero: steps are measured against ||W||.")
        mu = allowed / speed
        a, length = torch.zeros_like(weights), 0.0
        for _ in range(12):  # the step is shorter than mu times the present gradient: stretch mu
            a = _proximal_weights(self.margins, gram, mu, a)
            length = math.sqrt(max(float(a @ gram @ a), 1e-300))
            if length >= 0.7 * allowed:
                break
            mu *= min(10.0, allowed / length)
        a = a * min(1.0, allowed / length)
        return {
            name: W + (a[:, None] * d).T @ h
            for (name, W), d, h in zip(params.items(), self.deltas, self.inputs, strict=True)
        }


class _Model:
    """Builds the pieces at a point and remembers the activation patterns of earlier ones."""

    def __init__(self, net: MLP, x: Tensor, y: Tensor, memory: int) -> None:
        self.net, self.x, self.y, self.memory = net, x, y, memory
        self.patterns: list[list[Tensor]] = []
        self.passes = 0.0

    def pieces(self, params: Params, margins: Tensor, relative_step: float) -> _Pieces:
        """Collect the present piece of every sample that matters, then the remembered ones."""
        low = float(margins.min())
        reach = NEGLIGIBLE + 3 * relative_step * self.net.K * abs(low)
        active = torch.nonzero(margins <= low + reach)[:, 0]
        now = [z > 0 for z in self.net.preactivations(params, self.x)]
        W = list(params.values())
        found = [self._piece(W, now, active)]
        self.passes += len(active) / len(self.y)
        for pattern in self.patterns:
            differs = torch.zeros_like(active, dtype=torch.bool)
            for old, new in zip(pattern, now, strict=True):
                differs |= (old[active] != new[active]).any(dim=1)
            if bool(differs.any()):
                found.append(self._piece(W, pattern, active[differs]))
                self.passes += int(differs.sum()) / len(self.y)
        self.patterns = ([now] + self.patterns)[: self.memory]
        return _Pieces(
            margins=torch.cat([piece.margins for piece in found]),
            inputs=[torch.cat(rows) for rows in zip(*(p.inputs for p in found), strict=True)],
            deltas=[torch.cat(rows) for rows in zip(*(p.deltas for p in found), strict=True)],
        )

    def _piece(self, W: list[Tensor], pattern: list[Tensor], rows: Tensor) -> _Pieces:
        """The margins of ``rows`` as if each unit kept the side of its kink in ``pattern``."""
        gates = [slopes_where(self.net.activation, side[rows], self.x) for side in pattern]
        inputs = [self.x[rows]]
        for W_k, gate in zip(W, gates, strict=False):
            inputs.append((inputs[-1] @ W_k.T) * gate)
        delta = self.y[rows, None]
        deltas = [delta]
        for W_k, gate in zip(reversed(W), reversed(gates), strict=False):
            deltas.append((deltas[-1] @ W_k) * gate)
        return _Pieces(self.y[rows] * (inputs[-1] @ W[-1].T)[:, 0], inputs, deltas[::-1])


def _proximal_weights(margins: Tensor, gram: Tensor, mu: float, a: Tensor) -> Tensor:
    """Minimize ``log sum exp(-(m + G a)) + a' G a / (2 mu)`` by damped Newton steps from a.

    The optimum satisfies a = mu softmax(-(m + G a)).
    """

    def value(a: Tensor) -> tuple[float, Tensor]:
        lift = gram @ a
        soft = torch.logsumexp(-(margins + lift), dim=0)
        return float(soft + a @ lift / (2 * mu)), lift

    best, lift = value(a)
    for _ in range(50):
        p = torch.softmax(-(margins + lift), dim=0)
        gap = p - a / mu
        if float(gap.abs().max()) < 1e-5:  # in units of the weights, which sum to one
            break
        # Where p is negligible the system is the identity over mu: solve for the others only.
        live = p > 1e-9
        move = torch.where(live, 0.0, mu * gap)
        part, weights = gram[live], p[live]
        system = weights[:, None] * (part[:, live] - weights @ part[:, live])
        system.diagonal().add_(1 / mu)
        push = part @ move
        move[live] = torch.linalg.solve(system, gap[live] - weights * (push - weights @ push))
        slope, length = -float((gram @ gap) @ move), 1.0
        while length > 1e-6:
            trial, trial_lift = value(a + length * move)
            if trial <= best + 1e-4 * length * slope + 1e-12 * abs(best):
                break
            length *= 0.5
        a, best, lift = a + length * move, trial, trial_lift
    return a
