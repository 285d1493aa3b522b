"""Quadratic splines of one variable: networks with the activation x_+^2, and their ReLU form.

Mhaskar's route from smooth activations to the ReLU (PNAS 2020, section 2.B, refs. 25 and 26): units
(x - t)_+^2 make splines whose knots are free, and a sawtooth network takes the place of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import BSpline, PPoly, make_interp_spline
from torch import Tensor

from companion import _checks
from companion.approximation import relu


@dataclass(frozen=True, eq=False)
class SquaredReluNetwork:
    """The shallow network ``sum_i c_i (x - t_i)_+^2`` of one variable: a spline on [0, 1].

    Args:
        shifts: t_i < 1, (N,); those in (0, 1) are the knots.
        coefficients: c_i, (N,).

    Raises:
        TypeError, ValueError: if the shapes differ or a shift is not below 1.

    Source: Mhaskar 1993 (PNAS 2020, ref. 25), the activation x_+^2.

    >>> net = SquaredReluNetwork(torch.tensor([0.0, 0.5]), torch.tensor([1.0, -1.0]))
    >>> net(torch.tensor([0.25, 1.0]))
    tensor([0.0625, 0.7500])
    """

    shifts: Tensor
    coefficients: Tensor

    def __post_init__(self) -> None:
        _checks.finite("shifts", self.shifts)
        if self.shifts.ndim != 1 or not len(self.shifts) or bool((self.shifts >= 1).any()):
            raise ValueError("shifts must have shape (N,) with N >= 1 and all entries below 1.")
        _checks.finite("coefficients", self.coefficients)
        _checks.shape("coefficients", self.coefficients, self.shifts.shape)

    @property
    def num_units(self) -> int:
        """N."""
        return len(self.shifts)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values at points x (P,)."""
        return torch.relu(x[:, None] - self.shifts).square() @ self.coefficients

    def with_sawtooths(self, x: Tensor, steps: int) -> Tensor:
        """Return the values at points x (P,) in [0, 1] with every square replaced by f_m.

        The same function as ``to_relu(steps)``, by the closed form of f_m.
        """
        r = 1 - self.shifts
        return relu.interpolant((x[:, None] - self.shifts) / r, steps) @ (self.coefficients * r**2)

    def to_relu(self, steps: int) -> relu.ReluNetwork:
        """Return the ReLU network in which a sawtooth of m steps stands for each unit.

        For m >= 1 it has m hidden layers and 2 N m + m - 1 units.
        """
        radii = 1 - self.shifts
        weight = self.coefficients * radii**2
        return relu.sum_of_squares(
            torch.ones_like(radii)[:, None], self.coefficients, steps,
            radii=radii, shifts=-self.shifts,
            lift=-float(weight.clamp(max=0).sum()), one_sided=True,
        )  # fmt: skip

    def shared_sawtooth(self, steps: int) -> relu.ReluNetwork:
        """Return a ReLU network for the same spline on [0, 1] with one sawtooth for all pieces.

        With h the length of a piece, z in [0, 1] the position in it and c half its second
        derivative, the spline is its chord minus ``c h^2 (z - z^2)``, and ``z - z^2`` is the sum of
        ``g_s(z) / 4^s`` over s >= 1, cut off after m. Every term vanishes at the knots, so the
        tents of all pieces, each c h^2 high, are one piecewise linear function, and one unit per
        layer folds them all. Pieces with c > 0 and c < 0 take turns in two such chains.

        With P pieces there are m hidden layers and 4 P + 7 (m - 1) units, and the error is at most
        the largest |c| h^2 / 4^(m + 1) (see :meth:`heights`).

        Raises:
            TypeError, ValueError: if ``steps`` is not an integer >= 1.
        """
        m = _checks.integer("steps", steps, at_least=1)
        knots, heights = self._pieces()
        ramp = 2.0 ** -(m + 1)  # up at its full height before any tent is half as high
        z = heights.new_tensor([0.0, ramp, 0.5, 1 - ramp])
        kinks = (knots[:-1, None] + knots.diff()[:, None] * z).flatten()
        shapes = torch.stack([2 * torch.minimum(z, 1 - z), (z > 0).to(z.dtype)])
        sides = torch.stack([heights.clamp(min=0), (-heights).clamp(min=0)])
        pairs = (sides[:, None, :, None] * shapes[:, None]).flatten(2).flatten(0, 1)
        ends = self(knots)
        chord = (ends[:-1, None] + ends.diff()[:, None] * z).flatten()
        values = torch.cat([pairs, chord[None]])
        last = torch.cat([values.new_zeros(4), ends[-1:]])
        slopes = torch.diff(values, append=last[:, None]) / torch.diff(kinks, append=knots[-1:])
        bends = torch.diff(slopes, prepend=slopes.new_zeros(5, 1))
        lift = float(ends.abs().max() + heights.abs().max())  # bounds every partial sum
        return _fold(kinks, bends, m, constant=float(ends[0]), lift=lift)

    def heights(self) -> Tensor:
        """Return ``c h^2`` of each piece of [0, 1], (P,), with 2 c the second derivative there."""
        return self._pieces()[1]

    def _pieces(self) -> tuple[Tensor, Tensor]:
        """Knots 0 = t_0 < ... < t_P = 1, and c h^2 of each piece."""
        inner = self.shifts[self.shifts > 0].unique()
        knots = torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])
        active = (self.shifts <= knots[:-1, None]).to(inner.dtype)
        return knots, (active @ self.coefficients) * knots.diff() ** 2

    def replacement_error(self, steps: int) -> float:
        """Return the bound ``sum_i |c_i| (1 - t_i)^2 / 4^(m + 1)`` on what ``to_relu`` adds."""
        weight = self.coefficients.abs() * (1 - self.shifts) ** 2
        return float(weight.sum()) / 4.0 ** (_checks.integer("steps", steps, at_least=0) + 1)


def _fold(
    kinks: Tensor, bends: Tensor, steps: int, *, constant: float, lift: float
) -> relu.ReluNetwork:
    """Fold the tents of all pieces together, layer by layer, and add their sum to the chord.

    ``bends`` (5, width) holds the changes of slope at the kinks (width,) of: the tents of the
    convex pieces, their heights, the same of the concave pieces, the chord. A layer turns a tent T
    of height H into ``2 T - 4 (T - H / 2)_+``, with half the period.
    """
    weights, biases = [torch.ones_like(kinks)[:, None]], [-kinks]
    read, total = bends[:4], bends[4] - (bends[0] - bends[2]) / 4
    offset = constant
    for step in range(2, steps + 1):
        halves = torch.stack([read[0] - read[1] / 2, read[2] - read[3] / 2])
        weights.append(torch.cat([read, halves, total[None]]))
        biases.append(total.new_tensor([0.0] * 6 + [offset + lift]))
        read = total.new_zeros(4, 7)
        for row, half in ((0, 4), (2, 5)):
            read[row, row], read[row, half], read[row + 1, row + 1] = 2.0, -4.0, 1.0
        total = -(read[0] - read[2]) / 4.0**step
        total[6], offset = 1.0, -lift
    return relu.ReluNetwork((*weights, total[None]), (*biases, total.new_tensor([offset])))


def interpolate(f: Callable[[np.ndarray], np.ndarray], knots: np.ndarray) -> SquaredReluNetwork:
    """Return the quadratic spline that interpolates f on [0, 1], as a network of x_+^2 units.

    It interpolates at both ends and at the middle of each piece, which is stable for any knots
    (Marsden 1974). On [0, 1] the units with t = 0, -1, -2 make the first parabola and each inner
    knot adds one more, so that n pieces take n + 2 units.

    Args:
        f: A function of an array.
        knots: 0 = t_0 < ... < t_n = 1, (n + 1,).

    Raises:
        ValueError: if the knots do not increase from 0 to 1.
    """
    t = np.asarray(knots, dtype=float)
    if t.ndim != 1 or len(t) < 2 or t[0] != 0 or t[-1] != 1 or (np.diff(t) <= 0).any():
        raise ValueError("knots must increase from 0 to 1.")
    sites = np.concatenate([t[:1], (t[1:] + t[:-1]) / 2, t[-1:]])
    padded = np.concatenate([[0.0, 0.0], t, [1.0, 1.0]])
    fitted: BSpline = make_interp_spline(sites, f(sites), k=2, t=padded)
    curvature = PPoly.from_spline(fitted).c[0, 2:-2]  # half of the second derivative, per piece
    # (x + 2)^2, (x + 1)^2 and x^2 span the parabolas: match value, slope and curvature at 0.
    start = [float(fitted(0.0)), float(fitted(0.0, 1)), curvature[0]]
    first = np.linalg.solve([[4.0, 1.0, 0.0], [4.0, 2.0, 0.0], [1.0, 1.0, 1.0]], start)
    return SquaredReluNetwork(
        torch.from_numpy(np.concatenate([[-2.0, -1.0, 0.0], t[1:-1]])),
        torch.from_numpy(np.concatenate([first, np.diff(curvature)])),
    )


def free_knots(
    density: Callable[[np.ndarray], np.ndarray], pieces: int, *, sweeps: int = 6
) -> np.ndarray:
    """Return knots 0 = t_0 < ... < t_n = 1 with the same integral of ``density`` in each piece.

    With the density |f'''|^(1/3) the error of a quadratic spline is the same in each piece, to
    leading order. The integral is taken on a fine grid that itself follows the density more
    closely with each sweep, so an integrable singularity does no harm.

    Raises:
        TypeError, ValueError: if ``pieces`` is not an integer >= 1, or the density is negative or
            not finite somewhere.

    >>> free_knots(lambda x: 1 + 0 * x, 4)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    n = _checks.integer("pieces", pieces, at_least=1)
    fine = 16 * n + 4001
    grid = np.linspace(0.0, 1.0, fine)
    for sweep in range(_checks.integer("sweeps", sweeps, at_least=1) + 1):
        height = np.asarray(density((grid[1:] + grid[:-1]) / 2), dtype=float)
        if not (np.isfinite(height).all() and (height >= 0).all() and height.any()):
            raise ValueError("density must be finite and at least 0, and not 0 everywhere.")
        mass = np.concatenate([[0.0], np.cumsum(height * np.diff(grid))])
        count = n + 1 if sweep == sweeps else fine
        grid = np.interp(np.linspace(0.0, mass[-1], count), mass, grid)
    grid[0], grid[-1] = 0.0, 1.0
    return grid
