"""Gradient flow of a two-layer ReLU network across its kinks, as a solution of Filippov's.

Between kinks the flow of ``l = -log sum_n exp(-y_n f(W; x_n))`` is a smooth differential equation.
Where a preactivation z_nj = w_j . x_n reaches zero, one of two things happens. Either the
velocities on both sides lead through, and the flow crosses the kink. Or both lead back to it; then
the flow slides along the kink, with a slope theta_nj between 0 and 1 in place of the ReLU's
derivative, such that z_nj stays zero. Here every such event is located, decided from the one-sided
velocities, and the equation of the new mode is integrated to a tight tolerance: a reference for
small networks, against which integrators that step over the kinks can be measured.

Unit j moves the preactivations by ``dz_nj/dtau = a_j sum_m theta_mj p_m y_m x_n . x_m``, with p_m
the weights of the samples and a_j the outgoing weight. The slope theta_nj enters its own velocity
with the sign of a_j y_n, so a pair (n, j) can slide only where a_j y_n < 0. Such a kink is a ridge
of l; where a_j y_n > 0 it is a valley, which the flow crosses or leaves.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import DOP853, RK45
from scipy.optimize import brentq
from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import LogLoss, margins_of
from companion.networks import MLP, Params

__all__ = ["AdaptiveRun", "Event", "SlidingPath", "adaptive_flow", "sliding_flow"]

SUBSTEPS = 8  # places within a step at which the conditions of a mode are looked at
LONGEST = 0.5  # largest step in l, so that no condition fails and recovers unseen for long
ROUNDING = 1e-12  # by how much, relative to the weights, a condition may fail before it counts
CLEAR = 1e-9  # tolerance of the decision between crossing and sliding, relative
REST = 1e-6  # the flow is at rest where it is slower than this, beside |W| and the largest |x_n|
MOST_AT_ONCE = 50  # events without progress in l


class Event(NamedTuple):
    """A change of mode at l: the pair (sample, unit) goes from ``before`` to ``after``.

    Both are "on" (z > 0), "off" (z < 0) or "slide" (z = 0, and stays there).
    """

    l: float  # noqa: E741 (the paper's letter)
    sample: int
    unit: int
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class SlidingPath:
    """A path of the flow from l = ``start`` to l = ``end``, with all its changes of mode.

    Attributes:
        start: l at the start.
        end: l at the end.
        events: Every change of mode, in the order of l.
        evaluations: Evaluations of the right-hand side.
    """

    start: float
    end: float
    events: tuple[Event, ...]
    evaluations: int
    _system: _System
    _pieces: tuple[tuple[float, _Mode, Any], ...]  # l at its start, mode, dense output

    def params(self, l: float) -> Params:  # noqa: E741
        """Return the weights at l.

        Raises:
            ValueError: if l lies outside start .. end.
        """
        return self._system.params(self._at(l)[0])

    def velocity(self, l: float) -> Params:  # noqa: E741
        """Return dW/dtau at l: the element of the Clarke subdifferential that the flow follows."""
        w, forces = self._at(l)
        return self._system.params(forces.velocity(w))

    def preactivations(self, l: float) -> Tensor:  # noqa: E741
        """Return z_nj = w_j . x_n at l, shape (N, h)."""
        return torch.tensor(self._system.preactivations(self._at(l)[0]))

    def slopes(self, l: float) -> Tensor:  # noqa: E741
        """Return the slopes theta_nj at l, shape (N, h): 0, 1, or between where a pair slides."""
        w, forces = self._at(l)
        return torch.tensor(forces.slopes(forces.pull(w)[1]))

    def sliding(self, sample: int, unit: int) -> tuple[tuple[float, float], ...]:
        """Return the intervals of l on which this pair slides."""
        inside = self._pieces[0][1].state(sample, unit) == "slide"
        ends = [self.start] if inside else []
        for event in self.events:
            if (event.sample, event.unit) == (sample, unit) and "slide" in event[3:]:
                ends.append(event.l)
        ends += [self.end] if len(ends) % 2 else []
        return tuple(zip(ends[::2], ends[1::2], strict=True))

    def _at(self, l: float) -> tuple[np.ndarray, _Forces]:  # noqa: E741
        if not self.start <= l <= self.end:
            raise ValueError(f"l must lie in {self.start:.6g} .. {self.end:.6g}, got {l}.")
        at = bisect.bisect_right(self._pieces, l, key=lambda piece: piece[0])
        _, mode, dense = self._pieces[at - 1]
        return dense(l), _Forces(self._system, mode)


def sliding_flow(
    net: MLP,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss,
    rtol: float = 1e-11,
    max_evaluations: int = 100_000,
) -> SlidingPath:
    """Follow the gradient flow of a small two-layer ReLU network from event to event.

    The flow is ``dW/dtau = grad l`` of the exponential loss. Since dl/dtau = |dW/dtau|^2 > 0, l
    itself is the independent variable. Between events SciPy's DOP853 integrates the equation of
    one mode. A mode ends where a preactivation reaches zero, or where the slope of a sliding pair
    reaches 0 or 1. Conditions that fail and recover within an eighth of a step are not seen.

    Args:
        net: ``MLP((d, h, 1))`` with ReLUs.
        params: Weights at the start, one network, float64.
        x: Points, (N, d), none at the origin.
        y: Labels -1 and +1, (N,).
        until: Where to stop, as in ``LogLoss(-50)``.
        rtol: Relative tolerance of a step.
        max_evaluations: Budget of evaluations of the right-hand side.

    Raises:
        TypeError, ValueError: for data or parameters that do not fit; where the gradient vanishes;
            where there is no way to go on that the method covers, or more than one (a start on a
            kink that repels, parallel points on one kink, an outgoing weight that passes zero
            while its unit slides); and if the budget does not suffice.

    Source: Filippov 1988; the flow is that of PNAS 2020, Eq. 1, in another clock.

    >>> from companion import data
    >>> x, y = data.quadrants(12, seed=5)
    >>> x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # a bias coordinate
    >>> net = MLP(widths=(3, 6, 1))
    >>> path = sliding_flow(net, net.init(seed=1, scale=0.7), x, y, until=LogLoss(0.6))
    >>> [(event.sample, event.unit, event.after) for event in path.events[-2:]]
    [(10, 2, 'slide'), (8, 2, 'slide')]
    """
    _checks.positive("rtol", rtol)
    _checks.integer("max_evaluations", max_evaluations, at_least=1)
    system, w = _read(net, params, x, y, until)
    mode, l = _first_mode(system, w)  # noqa: E741
    end, first = -until.value, l
    if l >= end:
        raise ValueError(f"until must lie ahead of the start at l = {l:.6g}, got {until}.")
    events: list[Event] = []
    pieces: list[tuple[float, _Mode, Any]] = []
    while True:
        forces = _Forces(system, mode)
        found = _integrate(forces, w, l, end, rtol, max_evaluations, pieces)
        if found is None:
            break
        l, condition = found  # noqa: E741
        w = pieces[-1][2](l)
        states = _next_states(forces, w, condition, l)
        j = condition.unit
        events += [Event(l, n, j, mode.state(n, j), after) for n, after in states.items()]
        mode = mode.changed(j, states)
        if len(events) > MOST_AT_ONCE and l - events[-MOST_AT_ONCE].l < ROUNDING * (1 + abs(l)):
            raise ValueError(f"the flow must leave its kinks, but it grazes one at l = {l:.6g}.")
    changes = tuple(event for event in events if event.before != event.after)
    return SlidingPath(first, end, changes, system.evaluations, system, tuple(pieces))


@dataclass(frozen=True)
class AdaptiveRun:
    """What a plain adaptive solver did with the discontinuous right-hand side.

    Attributes:
        l: (T,) l after each step; the last one is where it arrived or ran out of evaluations.
        evaluations: (T,) evaluations of the right-hand side so far.
        reached: Whether it arrived.
    """

    l: Tensor  # noqa: E741
    evaluations: Tensor
    reached: bool


def adaptive_flow(
    net: MLP,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: LogLoss,
    method: str = "RK45",
    rtol: float = 1e-8,
    max_evaluations: int = 20_000,
) -> AdaptiveRun:
    """Give the same flow to an adaptive solver of SciPy's that knows nothing of kinks.

    The derivative of the ReLU is taken as 0 at 0, and l is the clock, as in :func:`sliding_flow`.
    The solver is not stopped for any reason but ``max_evaluations``.

    Args:
        net, params, x, y, until: As for :func:`sliding_flow`.
        method: "RK45" or "DOP853".
        rtol: Relative tolerance of a step; the absolute one is a hundredth of it.
        max_evaluations: Budget of evaluations of the right-hand side.

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.
    """
    solvers = {"RK45": RK45, "DOP853": DOP853}
    _checks.choice("method", method, solvers)
    system, w = _read(net, params, x, y, until)

    def slope(_: float, w: np.ndarray) -> np.ndarray:
        return _Forces(system, system.mode(w)).clocked(w)

    l = float(_Forces(system, system.mode(w)).pull(w)[2])  # noqa: E741
    steps, spent = [l], [0]
    solver = solvers[method](slope, l, w, -until.value, rtol=rtol, atol=rtol / 100)
    while solver.status == "running" and system.evaluations < max_evaluations:
        solver.step()
        steps.append(solver.t)
        spent.append(system.evaluations)
    return AdaptiveRun(
        torch.tensor(steps, dtype=torch.float64),
        torch.tensor(spent),
        reached=solver.status == "finished",
    )


@dataclass(frozen=True, eq=False)
class _Mode:
    """A smooth piece of the flow: which pairs are on, and which slide."""

    on: np.ndarray  # (N, h) bool, False where a pair slides
    sliding: tuple[tuple[int, ...], ...]  # for each unit, the samples that slide, in order

    def state(self, n: int, j: int) -> str:
        return "slide" if n in self.sliding[j] else "on" if self.on[n, j] else "off"

    def changed(self, j: int, states: Mapping[int, str]) -> _Mode:
        on = self.on.copy()
        for n, state in states.items():
            on[n, j] = state == "on"
        here = (set(self.sliding[j]) - set(states)) | {n for n in states if states[n] == "slide"}
        return _Mode(on, (*self.sliding[:j], tuple(sorted(here)), *self.sliding[j + 1 :]))


class _System:
    """Data and network; weights are one vector (W_1 row by row, then a), leading axes allowed."""

    def __init__(self, x: np.ndarray, y: np.ndarray, num_units: int) -> None:
        self.x, self.y, self.h = x, y, num_units
        self.gram = x @ x.T
        self.length = np.linalg.norm(x, axis=1)
        self.evaluations = 0

    def split(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W_1 (..., h, d) and a (..., h)."""
        cut = w.shape[-1] - self.h
        return w[..., :cut].reshape(*w.shape[:-1], self.h, -1), w[..., cut:]

    def params(self, w: np.ndarray) -> Params:
        W1, a = self.split(w)
        return {"W1": torch.tensor(W1), "W2": torch.tensor(a[None])}

    def preactivations(self, w: np.ndarray) -> np.ndarray:
        return self.x @ np.swapaxes(self.split(w)[0], -1, -2)  # (..., N, h)

    def mode(self, w: np.ndarray) -> _Mode:
        return _Mode(self.preactivations(w) > 0, ((),) * self.h)


class _Condition(NamedTuple):
    """Something that must not become negative while a mode lasts."""

    kind: str  # "kink": z keeps its sign; "off", "on": theta >= 0, <= 1; "sign": that of a_j
    sample: int
    unit: int


class _Forces:
    """The right-hand side in one mode, and the conditions under which the mode lasts."""

    def __init__(self, system: _System, mode: _Mode) -> None:
        self.system, self.mode = system, mode
        side = np.where(mode.on, 1.0, -1.0) / system.length[:, None]
        self.blocks = {}  # unit: samples S that slide, and A in theta_S = -(A q) / q_S
        for j, S in enumerate(mode.sliding):
            if S:
                rows = list(S)
                side[rows, j] = 0.0
                among, with_on = system.gram[np.ix_(rows, rows)], system.gram[rows]
                self.blocks[j] = rows, np.linalg.solve(among, with_on * mode.on[:, j])
        self.side, self.free = side, side != 0

    def pull(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Preactivations (..., N, h), signed weights q_n = p_n y_n (..., N), and l (...)."""
        z, y = self.system.preactivations(w), self.system.y
        # z on, not max(z, 0): smooth beyond the end of the mode too, where steps may look.
        m = y * ((z * self.mode.on) @ self.system.split(w)[1][..., None])[..., 0]
        low = m.min(axis=-1, keepdims=True)
        e = np.exp(low - m)
        total = e.sum(axis=-1, keepdims=True)
        return z, y * e / total, (low - np.log(total))[..., 0]

    def slopes(self, q: np.ndarray) -> np.ndarray:
        """theta (..., N, h): 0, 1, or what keeps a sliding pair on its kink."""
        theta = np.broadcast_to(self.mode.on, (*q.shape, self.system.h)).astype(float)
        for j, (rows, A) in self.blocks.items():
            theta[..., rows, j] = -(q @ A.T) / q[..., rows]
        return theta

    def velocity(self, w: np.ndarray) -> np.ndarray:
        """dW/dtau."""
        z, q, _ = self.pull(w)
        pulls = q[:, None] * self.slopes(q)
        W1 = self.system.split(w)[1][:, None] * (pulls.T @ self.system.x)
        return np.concatenate([W1.ravel(), q @ (z * self.mode.on)])

    def clocked(self, w: np.ndarray) -> np.ndarray:
        """dW/dl = dW/dtau / |dW/dtau|^2."""
        self.system.evaluations += 1
        v = self.velocity(w)
        square = v @ v
        return v / square if square > 0 else np.full_like(v, np.nan)  # the solver will go back

    def conditions(self, w: np.ndarray) -> np.ndarray:
        """Numbers (..., C), at least 0 while the mode lasts; preactivations in units of |x_n|."""
        z, q, _ = self.pull(w)
        theta, a = self.slopes(q), self.system.split(w)[1]
        found = [(self.side * z)[..., self.free]]
        for j, (rows, _) in self.blocks.items():
            slope = theta[..., rows, j]
            # Pairs that slide have a_j y_n < 0, so that the sign of a_j is known.
            found += [slope, 1 - slope, -self.system.y[rows[0]] * a[..., j : j + 1]]
        return np.concatenate(found, axis=-1)

    def names(self) -> list[_Condition]:
        """What the conditions are about, in the same order."""
        found = [_Condition("kink", int(n), int(j)) for n, j in np.argwhere(self.free)]
        for j, (rows, _) in self.blocks.items():
            found += [_Condition(kind, n, j) for kind in ("off", "on") for n in rows]
            found += [_Condition("sign", rows[0], j)]
        return found


def _read(
    net: MLP, params: Params, x: Tensor, y: Tensor, until: LogLoss
) -> tuple[_System, np.ndarray]:
    """Check what was given; return the system and the weights as one vector."""
    if not isinstance(net, MLP) or net.K != 2 or net.activation != "relu":
        raise ValueError(f"net must be an MLP with two layers and ReLUs, got {net!r}.")
    if not isinstance(until, LogLoss):
        raise TypeError(f"until must be a LogLoss, got {until!r}.")
    margins_of(net, params, x, y)
    points, weights = x.detach().double().cpu().numpy(), list(params.values())
    system = _System(points, y.detach().double().cpu().numpy(), net.widths[1])
    if not system.length.min() > 0:
        raise ValueError("x must hold no point at the origin: there every unit is at its kink.")
    flat = torch.cat([W.detach().double().cpu().flatten() for W in weights])
    return system, flat.numpy()


def _first_mode(system: _System, w: np.ndarray) -> tuple[_Mode, float]:
    """The mode at the start, whose kinks are resolved like any other, and l."""
    mode = system.mode(w)
    l = float(_Forces(system, mode).pull(w)[2])  # noqa: E741
    z = system.preactivations(w)
    near = np.abs(z) <= ROUNDING * np.linalg.norm(w) * system.length[:, None]
    for j in np.flatnonzero(near.any(axis=0)):
        states = _resolve(_Forces(system, mode), w, int(j), np.flatnonzero(near[:, j]).tolist(), l)
        mode = mode.changed(int(j), states)
    return mode, l


def _integrate(
    forces: _Forces,
    w: np.ndarray,
    l: float,  # noqa: E741
    end: float,
    rtol: float,
    max_evaluations: int,
    pieces: list[tuple[float, _Mode, Any]],
) -> tuple[float, _Condition] | None:
    """Go to the end of the mode, adding the steps to ``pieces``; None if ``end`` comes first."""

    def slope(_: float, w: np.ndarray) -> np.ndarray:
        return forces.clocked(w)

    if not np.any(forces.velocity(w)):
        raise ValueError(
            "params must leave the flow a direction, but the gradient of the loss is zero at "
            f"l = {l:.6g} (every unit is dead); draw other weights."
        )
    solver = DOP853(slope, l, w, end, rtol=rtol, atol=rtol / 100, max_step=LONGEST)
    while solver.status == "running":
        with np.errstate(all="ignore"):  # a trial step may lead anywhere
            solver.step()
        slowest = REST * np.linalg.norm(solver.y) * forces.system.length.max()
        if solver.status == "failed" or np.linalg.norm(solver.f) * slowest > 1:  # f = v / |v|^2
            raise ValueError(
                "params, x, y must let the flow separate the data, but it comes to rest at "
                f"l = {solver.t:.6g}; draw other weights or take a wider network."
            )
        if forces.system.evaluations > max_evaluations:
            raise ValueError(
                f"max_evaluations must let the flow arrive, but after {max_evaluations} it is at "
                f"l = {solver.t:.6g}."
            )
        dense = solver.dense_output()
        pieces.append((solver.t_old, forces.mode, dense))
        found = _first_failure(forces, dense, solver.t_old, solver.t)
        if found is not None:
            return found
    return None


def _first_failure(
    forces: _Forces, dense: Any, start: float, end: float
) -> tuple[float, _Condition] | None:
    """The first place in a step at which a condition of the mode fails, and which."""
    places = np.linspace(start, end, SUBSTEPS + 1)
    w = dense(places).T
    values = forces.conditions(w)
    failed = values < -ROUNDING * np.linalg.norm(w[0])
    rows = np.flatnonzero(failed.any(axis=1))
    if not len(rows):
        return None
    i = max(int(rows[0]), 1)
    low, high = places[i - 1], places[i]
    roots = {}
    for c in np.flatnonzero(failed[i] | failed[i - 1]):

        def value(l: float, c: int = c) -> float:  # noqa: E741
            return float(forces.conditions(dense(l))[c])

        if value(low) <= 0:  # just after an event its own condition starts at zero, up to rounding
            roots[c] = low
        elif value(high) >= 0:  # the failure at this place is one of rounding
            roots[c] = high
        else:
            roots[c] = brentq(value, low, high, xtol=1e-15, rtol=1e-15)
    first = min(roots, key=roots.__getitem__)
    return float(roots[first]), forces.names()[first]


def _next_states(
    forces: _Forces,
    w: np.ndarray,
    condition: _Condition,
    l: float,  # noqa: E741
) -> dict[int, str]:
    """What becomes of the pairs of a unit on their kinks after a condition has failed."""
    kind, n, j = condition
    if kind in ("on", "off"):  # the slope has reached its end: the pair leaves to that side
        return {n: kind}
    if kind == "sign":
        raise ValueError(
            f"params must not let an outgoing weight pass zero while its unit slides, but that of "
            f"unit {j} does at l = {l:.6g}; beyond it the solution is not unique."
        )
    return _resolve(forces, w, j, [*forces.mode.sliding[j], n], l)


def _resolve(
    forces: _Forces,
    w: np.ndarray,
    j: int,
    pairs: list[int],
    l: float,  # noqa: E741
) -> dict[int, str]:
    """Decide between crossing and sliding for samples that are on their kinks in unit j.

    A choice of states is admissible if pairs that are on do not move down, pairs that are off do
    not move up, and slopes of sliding pairs lie in 0 .. 1: Filippov's condition. Admissible
    choices must agree in their slopes.
    """
    found = [choice for choice in _choices(forces, w, j, pairs) if choice[0] >= -CLEAR]
    if not found or any(np.abs(slopes - found[0][1]).max() > CLEAR for _, slopes, _ in found):
        raise ValueError(
            f"the flow must have one way to go on from a kink, but samples {pairs} at unit {j} "
            f"have {'several' if found else 'none'} at l = {l:.6g}."
        )
    return dict(zip(pairs, found[0][2], strict=True))


def _choices(
    forces: _Forces, w: np.ndarray, j: int, pairs: list[int]
) -> list[tuple[float, np.ndarray, tuple[str, ...]]]:
    """All states of the pairs: by how much they are admissible, their slopes, and their names."""
    system = forces.system
    a, q = system.split(w)[1][j], forces.pull(w)[1]
    on = forces.mode.on[:, j].copy()
    on[pairs] = False
    from_others = system.gram[pairs] @ (q * on)
    gram, q = system.gram[np.ix_(pairs, pairs)], q[pairs]
    scale = np.abs(q) * gram.diagonal()
    found = []
    for states in itertools.product(("off", "on", "slide"), repeat=len(pairs)):
        slides = np.array([state == "slide" for state in states])
        theta = np.array([float(state == "on") for state in states])
        among = gram[np.ix_(slides, slides)]
        if (a * q[slides] >= 0).any():
            continue  # a pair with a_j y_n > 0 does not stay on its kink
        # NumPy before 2 has no rank of an empty matrix.
        if slides.any() and np.linalg.matrix_rank(among) < slides.sum():
            continue
        push = (from_others + gram @ (q * theta))[slides]
        theta[slides] = -np.linalg.solve(among, push) / q[slides]
        speed = np.sign(a) * (from_others + gram @ (q * theta)) / scale
        room = np.where(slides, np.minimum(theta, 1 - theta), np.where(theta > 0, speed, -speed))
        found.append((float(room.min()), theta, states))
    return found
