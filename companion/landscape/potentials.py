"""Landscapes with two basins whose Boltzmann densities are known: where Langevin dynamics ends.

Every landscape has a coordinate that tells its basins apart, and the exact density of that
coordinate under ``e^{-V/T} / Z``. All integrals of :mod:`companion.landscape.langevin` are then
over one variable, in any dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks

__all__ = [
    "FiniteSum",
    "Potential",
    "double_well",
    "exponential_loss",
    "hyperbola",
    "line",
    "noisy_pair",
    "scaled_examples",
    "shell_and_point",
    "stiff_and_soft",
    "two_noises",
    "uneven_wells",
]

Function = Callable[[Tensor], Tensor]

SWITCH = 2.0  # how fast stiffness or noise change between the wells at -1 and 1


@dataclass(frozen=True, eq=False)
class Potential:
    """A function V of d weights, for any number of chains at once.

    Args:
        dim: d.
        value: V, (..., d) -> (...).
        gradient: Its gradient, (..., d) -> (..., d).
        coordinate: The variable that tells the basins apart, (..., d) -> (...); or None.
        log_marginal: ``log_marginal(s, T)`` is the logarithm of the integral of ``e^{-V/T}`` over
            all weights with coordinate s, (G,) -> (G,); or None where it is not known.
        boundary: The value of the coordinate that separates the basins.
        support: The values that the coordinate can take.
        minima: One minimum on either side of the boundary, (2, d); or None.
    """

    dim: int
    value: Function
    gradient: Function
    coordinate: Function | None = None
    log_marginal: Callable[[Tensor, float], Tensor] | None = None
    boundary: float = 0.0
    support: tuple[float, float] = (-math.inf, math.inf)
    minima: Tensor | None = None

    def below(self, w: Tensor) -> Tensor:
        """Whether weights (..., d) lie in the basin below the boundary: booleans (...)."""
        if self.coordinate is None:
            raise ValueError("The potential must have a coordinate that tells its basins apart.")
        return self.coordinate(w) < self.boundary


@dataclass(frozen=True, eq=False)
class FiniteSum:
    """The mean of N functions of d weights, one per example, for any number of chains at once.

    Args:
        potential: The mean, which gradient descent sees.
        num_examples: N.
        gradients: The N gradients, (M, d) -> (M, N, d).
    """

    potential: Potential
    num_examples: int
    gradients: Function


def line(
    value: Function,
    slope: Function,
    *,
    boundary: float = 0.0,
    minima: tuple[float, float] | None = None,
) -> Potential:
    """The potential of one weight with that value and slope, functions of tensors (...) -> (...).

    >>> parabola = line(lambda x: x**2 / 2, lambda x: x)
    >>> parabola.value(torch.tensor([[3.0]]))
    tensor([4.5000])
    """
    return Potential(
        dim=1,
        value=lambda w: value(w[..., 0]),
        gradient=lambda w: slope(w[..., 0]).unsqueeze(-1),
        coordinate=lambda w: w[..., 0],
        log_marginal=lambda s, T: -value(s) / T,
        boundary=boundary,
        minima=None if minima is None else torch.tensor(minima, dtype=torch.float64)[:, None],
    )


def double_well(barrier: float = 0.5, *, tilt: float = 0.0) -> Potential:
    """``V(x) = B (x^2 - 1)^2 + tilt x``: two wells, and a barrier of height B if there is no tilt.

    Raises ValueError if the tilt is so strong that only one well is left.
    """
    B = _checks.positive("barrier", barrier)
    tilt = float(tilt)
    if not abs(tilt) < 8 * B / math.sqrt(27):
        raise ValueError(
            f"tilt must be smaller than {8 * B / math.sqrt(27):.3g} in absolute value to leave "
            f"two wells with barrier {B:g}, got {tilt:g}."
        )
    low, top, high = np.sort(np.roots([4 * B, 0.0, -4 * B, tilt]).real)
    return line(
        lambda x: B * (x**2 - 1) ** 2 + tilt * x,
        lambda x: 4 * B * x * (x**2 - 1) + tilt,
        boundary=float(top),
        minima=(float(low), float(high)),
    )


def uneven_wells(
    narrow: float = 0.5, wide: float = 1.5, *, barrier: float = 0.5, deeper: float = 0.0
) -> Potential:
    """A narrow well on the left of a wide one: one shape, drawn in two widths a and b.

    ``V(x) = (B + deeper) (1 - (x/a)^2)^2 - deeper`` for x < 0, and ``B (1 - (x/b)^2)^2`` for x > 0.
    The minima are at -a and b, the barrier of height B at 0. With equal depths the substitutions
    x = a z and x = b z show that the wells have probabilities a : b at every temperature.
    """
    a, b = _checks.positive("narrow", narrow), _checks.positive("wide", wide)
    B, deeper = _checks.positive("barrier", barrier), _checks.positive("deeper", deeper, zero=True)

    depths = torch.tensor([B, B + deeper], dtype=torch.float64)
    scales = torch.tensor([1 / b, 1 / a], dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        left = (x < 0).long()
        return depths.to(x)[left] * (1 - (scales.to(x)[left] * x) ** 2) ** 2 - deeper * left

    def slope(x: Tensor) -> Tensor:
        left = (x < 0).long()
        scale = scales.to(x)[left]
        z = scale * x
        return -4 * depths.to(x)[left] * scale * z * (1 - z**2)

    return line(value, slope, minima=(-a, b))


def stiff_and_soft(
    num_directions: int = 1, *, stiff: float = 25.0, soft: float = 1.0, barrier: float = 0.5
) -> Potential:
    """``V(u, v) = B (u^2 - 1)^2 + k(u) |v|^2 / 2``: two wells of equal depth, u = -1 and u = 1.

    The m = ``num_directions`` directions v have the curvature ``k(-1) = stiff`` in the first well
    and ``k(1) = soft`` in the second; log k moves from one to the other like tanh(2 u). Integrating
    over v leaves ``e^{-B (u^2 - 1)^2 / T} (2 pi T / k(u))^{m/2}``. Weights are (u, v), d = m + 1.
    """
    m = _checks.integer("num_directions", num_directions, at_least=1)
    stiff, soft = _checks.positive("stiff", stiff), _checks.positive("soft", soft)
    B = _checks.positive("barrier", barrier)
    middle = 0.5 * math.log(stiff * soft)
    swing = 0.5 * math.log(stiff / soft) / math.tanh(SWITCH)

    def log_k(u: Tensor) -> Tensor:
        return middle - swing * torch.tanh(SWITCH * u)

    def value(w: Tensor) -> Tensor:
        u = w[..., 0]
        return B * (u**2 - 1) ** 2 + 0.5 * log_k(u).exp() * (w[..., 1:] ** 2).sum(-1)

    def gradient(w: Tensor) -> Tensor:
        u, v = w[..., 0], w[..., 1:]
        t = torch.tanh(SWITCH * u)
        k = torch.exp(middle - swing * t)
        along = 4 * B * u * (u**2 - 1) - 0.5 * swing * SWITCH * (1 - t**2) * k * (v**2).sum(-1)
        return torch.cat([along.unsqueeze(-1), k.unsqueeze(-1) * v], dim=-1)

    def log_marginal(u: Tensor, T: float) -> Tensor:
        return -B * (u**2 - 1) ** 2 / T + 0.5 * m * (math.log(2 * math.pi * T) - log_k(u))

    minima = torch.zeros(2, m + 1, dtype=torch.float64)
    minima[:, 0] = torch.tensor([-1.0, 1.0])
    return Potential(
        dim=m + 1, value=value, gradient=gradient, coordinate=lambda w: w[..., 0],
        log_marginal=log_marginal, minima=minima,
    )  # fmt: skip


def shell_and_point(dim: int = 2, *, height: float = 4.0) -> Potential:
    """``V(w) = c |w|^2 (|w|^2 - 1)^2``: an isolated minimum at 0, and a valley, the unit sphere.

    Both have V = 0. The valley has d - 1 flat directions, the point none. The coordinate is |w|;
    the barrier, of height 4c/27, lies at |w|^2 = 1/3.
    """
    d = _checks.integer("dim", dim, at_least=2)
    c = _checks.positive("height", height)
    log_area = math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)

    def gradient(w: Tensor) -> Tensor:
        s = (w**2).sum(-1, keepdim=True)
        return 2 * c * (s - 1) * (3 * s - 1) * w

    def value(w: Tensor) -> Tensor:
        s = (w**2).sum(-1)
        return c * s * (s - 1) ** 2

    minima = torch.zeros(2, d, dtype=torch.float64)
    minima[1, 0] = 1.0
    return Potential(
        dim=d,
        value=value,
        gradient=gradient,
        coordinate=lambda w: torch.linalg.vector_norm(w, dim=-1),
        log_marginal=lambda r, T: (
            log_area + (d - 1) * torch.log(r) - c * r**2 * (r**2 - 1) ** 2 / T
        ),
        boundary=1 / math.sqrt(3),
        support=(0.0, math.inf),
        minima=minima,
    )


def hyperbola() -> Potential:
    """``V(w_1, w_2) = (w_1 w_2 - 1)^2``: two linear layers of width one fitted to one example.

    Its minima are the branches of a hyperbola, and ``e^{-V/T}`` has an infinite integral: the
    coordinate ``s = log |w_1|`` has the marginal ``2 sqrt(pi T)``, the same for every s.
    """

    def gradient(w: Tensor) -> Tensor:
        return 2 * (w.prod(-1, keepdim=True) - 1) * w.flip(-1)

    return Potential(
        dim=2,
        value=lambda w: (w.prod(-1) - 1) ** 2,
        gradient=gradient,
        coordinate=lambda w: w[..., 0].abs().log(),
        log_marginal=lambda s, T: torch.full_like(s, math.log(2) + 0.5 * math.log(math.pi * T)),
    )


def exponential_loss(x: Tensor, y: Tensor) -> Potential:
    """The mean exponential loss of a linear classifier, ``V(w) = (1/N) sum_n e^{-y_n w . x_n}``.

    x (N, d), y (N,) with labels -1 and +1. With one weight the density has a marginal, and
    :func:`companion.landscape.langevin.log_partition` says why it has no finite integral if the
    data are separable.
    """
    _checks.dataset(x, y)
    signed = y[:, None] * x

    def value(w: Tensor) -> Tensor:
        return torch.exp(-w @ signed.T).mean(-1)

    def gradient(w: Tensor) -> Tensor:
        return -torch.exp(-w @ signed.T) @ signed / len(signed)

    if x.shape[1] == 1:
        return line(lambda s: value(s[..., None]), lambda s: gradient(s[..., None])[..., 0])
    return Potential(dim=x.shape[1], value=value, gradient=gradient)


def noisy_pair(potential: Potential, spread: Function) -> FiniteSum:
    """Two examples whose losses ``V + S`` and ``V - S`` average to a potential V of one weight.

    ``S' = spread``, a function (...) -> (...) of the weight, is the standard deviation of the
    gradient of a single example. Raises ValueError if the potential has several weights.

    >>> pair = noisy_pair(double_well(), torch.ones_like)
    >>> pair.gradients(torch.zeros(1, 1)).flatten()
    tensor([ 1., -1.])
    """
    if potential.dim != 1:
        raise ValueError(f"potential must have one weight here, got dim = {potential.dim}.")

    def gradients(w: Tensor) -> Tensor:
        slope, noise = potential.gradient(w), spread(w)
        return torch.stack([slope + noise, slope - noise], dim=1)

    return FiniteSum(potential, 2, gradients)


def two_noises(barrier: float = 0.5, *, left: float = 1.2, right: float = 0.6) -> FiniteSum:
    """The symmetric double well as the mean of two examples, noisy on the left, quiet on the right.

    The standard deviation of the gradient moves from ``left`` to ``right`` like tanh(2 x), with
    these values at the minima -1 and 1.
    """
    left, right = _checks.positive("left", left), _checks.positive("right", right)
    middle, swing = 0.5 * (left + right), 0.5 * (left - right) / math.tanh(SWITCH)
    return noisy_pair(double_well(barrier), lambda x: middle - swing * torch.tanh(SWITCH * x))


def scaled_examples(potential: Potential, factors: tuple[float, ...]) -> FiniteSum:
    """Examples whose losses are multiples of one potential: all of them share all its minima.

    Example n has the loss ``c_n V`` with the given factors c_n > 0 of mean 1: at a minimum of V
    every example has gradient zero, as where a network interpolates its data.

    Raises ValueError if a factor is not positive or their mean is not 1.
    """
    c = torch.tensor(
        [_checks.positive(f"factors[{n}]", c_n) for n, c_n in enumerate(factors)],
        dtype=torch.float64,
    )
    if len(c) == 0 or abs(float(c.mean()) - 1) > 1e-12:
        raise ValueError(f"factors must have mean 1, so that V is the mean loss, got {factors!r}.")
    return FiniteSum(
        potential, len(c), lambda w: c.to(w)[:, None] * potential.gradient(w)[:, None, :]
    )
