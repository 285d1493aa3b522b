"""The paper's dynamical systems for the weights, each as a right-hand side of its own.

All of them are gradient flows of the same loss in different coordinates or metrics, so they share
a clock. With l = -log sum_n exp(-y_n f(W; x_n)) and the weights p_n = exp(-y_n f(W; x_n) + l) of
the samples, which sum to one, every right-hand side of the paper is exp(-l) / N times an
expression in the p_n. Here that factor is left out: derivatives are with respect to tau, where
``dt = N exp(l) dtau``. Nothing underflows, however small the loss.

==========================  ==================================================================
"unconstrained"             dW_k = sum_n p_n y_n df(W; x_n)/dW_k             (Eqs 1 and 13)
"polar"                     the same curve in rho_k and V_k                  (after Eq. 14)
"fixed_norm"                dV_k = rho sum_n p_n B_k(V; x_n), rho_k fixed    (Eq. 3, dynamics A)
"multipliers"               the same, with d rho_k = (rho/rho_k) sum_n p_n y_n f(V; x_n)
                            (Eqs 6 and 7, dynamics B)
"weight_normalization"      W_k = g_k v_k / |v_k|, gradient flow in g and v (Salimans & Kingma)
==========================  ==================================================================

B_k(V; x_n) = y_n (df(V; x_n)/dV_k - V_k f(V; x_n)) is the pull of a sample on a direction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import Objective, squared_norms
from companion.networks import Network, Params, compose, directions, layer_norms

__all__ = [
    "SYSTEMS",
    "Polar",
    "System",
    "WeightNormalization",
    "fixed_norm",
    "log_clock",
    "multipliers",
    "named",
    "polar",
    "unconstrained",
    "weight_normalization",
]

NORMS = "rho"  # key of the layer norms in the state of a system; layers keep their own names


@dataclass(frozen=True, eq=False)
class Polar:
    """Velocities of layer norms and directions, per unit of tau.

    Attributes:
        rho: (K,) d rho_k / dtau (for weight normalization, dg_k / dtau).
        V: dV_k / dtau, shapes of the layers (for weight normalization, dv_k / dtau).
    """

    rho: Tensor
    V: Params


def unconstrained(net: Network, W: Params, x: Tensor, y: Tensor) -> Params:
    """Return ``dW_k/dtau = sum_n p_n y_n df(W; x_n)/dW_k``, minus the gradient of log L.

    Args:
        net: Network with one output.
        W: Weights, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.

    Source: PNAS 2020, Eqs 1 and 13 (times N exp(l)).
    """
    return Objective(net, W, x, y, "exponential")(W)[2]


def polar(net: Network, rho: Tensor, V: Params, x: Tensor, y: Tensor) -> Polar:
    """Return the unconstrained flow in rho_k and V_k.

    ``d rho_k = (rho/rho_k) sum_n p_n y_n f(V; x_n)`` and
    ``dV_k = (rho/rho_k^2) sum_n p_n B_k(V; x_n)``, per unit of tau.

    Args:
        net: Network with one output.
        rho: Layer norms rho_k, (K,), positive.
        V: Directions, each layer of norm 1.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.

    Source: PNAS 2020, Eq. 14 and the display after it.
    """
    return _polar("polar", net, rho, V, x, y)


def fixed_norm(net: Network, rho: Tensor, V: Params, x: Tensor, y: Tensor) -> Params:
    """Return ``dV_k/dtau = rho sum_n p_n B_k(V; x_n)`` at fixed rho_k: dynamics A.

    Arguments and errors as for :func:`polar`; only the product of ``rho`` matters.

    Source: PNAS 2020, Eq. 3.
    """
    return _polar("fixed_norm", net, rho, V, x, y).V


def multipliers(net: Network, rho: Tensor, V: Params, x: Tensor, y: Tensor) -> Polar:
    """Return dynamics B: Eq. 3 for V_k with the present rho, and the gradient in rho_k.

    ``d rho_k = (rho/rho_k) sum_n p_n y_n f(V; x_n)`` and ``dV_k = rho sum_n p_n B_k(V; x_n)``,
    per unit of tau. Arguments and errors as for :func:`polar`.

    Source: PNAS 2020, Eqs 6 and 7.
    """
    return _polar("multipliers", net, rho, V, x, y)


def weight_normalization(net: Network, g: Tensor, v: Params, x: Tensor, y: Tensor) -> Polar:
    """Return the gradient flow in g_k and v_k, where ``W_k = g_k v_k / |v_k|``.

    ``dg_k = <v_k / |v_k|, G_k>`` and ``dv_k = (g_k / |v_k|) (I - v_k v_k' / |v_k|^2) G_k`` per
    unit of tau, with G_k the right-hand side of :func:`unconstrained`. |v_k| is conserved.

    Args:
        net: Network with one output.
        g: One norm per layer, (K,), positive.
        v: One tensor per layer, of any positive norm.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.

    Source: Salimans & Kingma 2016, Eq. 3, with one vector per layer.
    """
    return _polar("weight_normalization", net, g, v, x, y)


def log_clock(net: Network, W: Params, x: Tensor, y: Tensor) -> float:
    """Return ``log(dtau/dt) = -l - log N``: its exponential times d/dtau is the paper's d/dt.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> zero = {"W1": torch.zeros(1, 2, dtype=torch.float64)}
    >>> abs(log_clock(net, zero, points.x, points.y)) < 1e-15  # all losses are 1, and so their mean
    True
    """
    return -Objective(net, W, x, y, "exponential")(W)[0] - math.log(len(y))


def _polar(kind: str, net: Network, rho: Tensor, V: Params, x: Tensor, y: Tensor) -> Polar:
    _checks.shape("rho", _checks.finite("rho", rho), (net.K,))
    if not bool((rho > 0).all()):
        raise ValueError(f"rho must be positive, got {rho.tolist()}.")
    state = {NORMS: rho, **V}
    system = SYSTEMS[kind]
    velocity = system.velocity(state, unconstrained(net, system.weights(state), x, y))
    return Polar(velocity[NORMS], {name: velocity[name] for name in V})


class System(ABC):
    """Coordinates in which one of the systems lives, as an integrator needs them.

    A state is a dict of tensors; only "unconstrained" has the weights themselves as its state.
    """

    settles = False  # whether the system comes to rest at finite weights

    @abstractmethod
    def start(self, params: Params) -> Params:
        """The state that belongs to weights W."""

    @abstractmethod
    def weights(self, state: Params) -> Params:
        """The weights W that belong to a state."""

    @abstractmethod
    def velocity(self, state: Params, gradient: Params) -> Params:
        """d(state)/dtau, given ``gradient``, the gradient of l in W."""

    @abstractmethod
    def rate(self, state: Params, velocity: Params) -> float:
        """dl/dtau along the velocity, at least 0."""

    @abstractmethod
    def restore(self, state: Params, first: Params) -> tuple[Params, float]:
        """Put a state back on what the flow from ``first`` conserves; also the largest |c - 1|."""

    def relative_size(self, state: Params, change: Params) -> float:
        """Size of a change of the state beside the state itself: the larger of its parts."""
        layers = [name for name in state if name != NORMS]
        size = _norm(change, layers) / max(_norm(state, layers), 1e-300)
        if NORMS in change:
            size = max(size, _norm(change, [NORMS]) / max(_norm(state, [NORMS]), 1e-300))
        return size


class Unconstrained(System):
    """W itself."""

    def start(self, params: Params) -> Params:
        return dict(params)

    def weights(self, state: Params) -> Params:
        return state

    def velocity(self, state: Params, gradient: Params) -> Params:
        return gradient

    def rate(self, state: Params, velocity: Params) -> float:
        return _norm(velocity, velocity) ** 2

    def restore(self, state: Params, first: Params) -> tuple[Params, float]:
        return onto_lemma_1(state, squared_norms(first))


class _Directions(System):
    """rho_k and V_k with |V_k| = 1: what the polar form and dynamics A and B share."""

    def start(self, params: Params) -> Params:
        return {NORMS: layer_norms(params), **directions(params)}

    def weights(self, state: Params) -> Params:
        return compose(state[NORMS], _layers(state))

    def velocity(self, state: Params, gradient: Params) -> Params:
        rho, found = state[NORMS], {}
        radial = torch.stack([(state[k] * G).sum() for k, G in gradient.items()])
        found[NORMS] = self._norms(radial)
        for k, (name, G) in enumerate(gradient.items()):
            found[name] = self._gain(rho[k]) * (G - radial[k] * state[name])
        return found

    def rate(self, state: Params, velocity: Params) -> float:
        parts = [
            rho_k / self._gain(rho_k) * (velocity[name] ** 2).sum()
            for rho_k, name in zip(state[NORMS], _layers(state), strict=True)
        ]
        return float((velocity[NORMS] ** 2).sum() + torch.stack(parts).sum())

    def restore(self, state: Params, first: Params) -> tuple[Params, float]:
        return _restore(state, first, 1.0)

    def _norms(self, radial: Tensor) -> Tensor:
        """d rho_k / dtau from <V_k, G_k> = (rho / rho_k) sum_n p_n y_n f(V; x_n)."""
        return radial

    @abstractmethod
    def _gain(self, rho_k: Tensor) -> Tensor:
        """Factor c in dV_k = c S_k G_k, where S_k G_k = (rho / rho_k) sum_n p_n B_k(V; x_n)."""


class PolarForm(_Directions):
    """The unconstrained flow in rho_k and V_k."""

    def _gain(self, rho_k: Tensor) -> Tensor:
        return 1 / rho_k


class Multipliers(_Directions):
    """Dynamics B."""

    def _gain(self, rho_k: Tensor) -> Tensor:
        return rho_k


class FixedNorm(Multipliers):
    """Dynamics A."""

    settles = True

    def _norms(self, radial: Tensor) -> Tensor:
        return torch.zeros_like(radial)

    def restore(self, state: Params, first: Params) -> tuple[Params, float]:
        return super().restore({**state, NORMS: first[NORMS]}, first)


@dataclass(frozen=True)
class WeightNormalization(System):
    """g_k and v_k with ``W_k = g_k v_k / |v_k|``, one vector per layer.

    Args:
        v_norm: |v_k| at the start, the same for all layers; the flow conserves it.

    Raises:
        TypeError, ValueError: if v_norm is not a positive number.
    """

    v_norm: float = 1.0

    def __post_init__(self) -> None:
        _checks.positive("v_norm", self.v_norm)

    def start(self, params: Params) -> Params:
        v = {name: self.v_norm * V_k for name, V_k in directions(params).items()}
        return {NORMS: layer_norms(params), **v}

    def weights(self, state: Params) -> Params:
        return compose(state[NORMS], directions(_layers(state)))

    def velocity(self, state: Params, gradient: Params) -> Params:
        found: Params = {NORMS: torch.empty_like(state[NORMS])}
        for k, (name, G) in enumerate(gradient.items()):
            size = torch.linalg.vector_norm(state[name])
            unit = state[name] / size
            found[NORMS][k] = radial = (unit * G).sum()
            found[name] = state[NORMS][k] / size * (G - radial * unit)
        return found

    def rate(self, state: Params, velocity: Params) -> float:
        return _norm(velocity, velocity) ** 2

    def restore(self, state: Params, first: Params) -> tuple[Params, float]:
        return _restore(state, first, self.v_norm)


SYSTEMS: dict[str, System] = {
    "unconstrained": Unconstrained(),
    "polar": PolarForm(),
    "fixed_norm": FixedNorm(),
    "multipliers": Multipliers(),
    "weight_normalization": WeightNormalization(),
}


def named(system: str | System) -> System:
    """Return the system of that name, or the system itself.

    Raises:
        ValueError: if there is none of that name; the message lists those there are.
    """
    return (
        system if isinstance(system, System) else SYSTEMS[_checks.choice("system", system, SYSTEMS)]
    )


def imbalance(params: Params, gradient: Params) -> float:
    """Return ``||sum_n p_n B_n||`` over all layers, from the gradient of l in W.

    Zero where the direction is at rest, in every one of the systems: (rho/rho_k) sum_n p_n B_k is
    the part of the gradient orthogonal to W_k.
    """
    rho = layer_norms(params)
    product, total = float(rho.prod()), 0.0
    if product == 0:
        return math.inf
    for k, (name, W_k) in enumerate(params.items()):
        V_k = W_k / rho[k]
        across = gradient[name] - (V_k * gradient[name]).sum() * V_k
        total += float((rho[k] * across).square().sum())
    return math.sqrt(total) / product


def onto_lemma_1(params: Params, squares: dict[str, float]) -> tuple[Params, float]:
    """Rescale the layers so that every rho_k^2 has grown by the same amount since ``squares``.

    The sum of the rho_k^2 is kept. Returns the weights and the largest |c - 1| among the factors.

    Source: PNAS 2020, Lemma 1 (d rho_k^2 / dt does not depend on k).
    """
    now = squared_norms(params)
    growth = sum(now[k] - squares[k] for k in now) / len(now)
    factors = {k: math.sqrt(max(squares[k] + growth, 0.0) / now[k]) if now[k] else 1.0 for k in now}
    return {k: c * params[k] for k, c in factors.items()}, max(abs(c - 1) for c in factors.values())


def _restore(state: Params, first: Params, size: float) -> tuple[Params, float]:
    """Norms back onto Lemma 1 and every layer of the state back to the norm ``size``."""
    norms = dict(zip(_layers(state), state[NORMS], strict=True))
    before = dict(zip(_layers(state), first[NORMS], strict=True))
    norms, largest = onto_lemma_1(norms, squared_norms(before))
    restored = {NORMS: torch.stack(list(norms.values()))}
    for name, V_k in _layers(state).items():
        c = size / float(torch.linalg.vector_norm(V_k))
        restored[name], largest = c * V_k, max(largest, abs(c - 1))
    return restored, largest


def _layers(state: Params) -> Params:
    return {name: tensor for name, tensor in state.items() if name != NORMS}


def _norm(state: Params, names: object) -> float:
    return math.sqrt(sum(float((state[name] ** 2).sum()) for name in names))  # type: ignore[attr-defined]
