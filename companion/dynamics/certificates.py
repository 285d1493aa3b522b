"""The largest normalized margin that any two-layer ReLU network can have, with its certificate.

Write a network ``f(x) = sum_j a_j relu(w_j . x)`` with unit vectors u_j as
``sum_j c_j s_j relu(u_j . x)``, where ``c_j = |a_j| |w_j|`` and s_j is the sign of a_j. By the
inequality of Cauchy and Schwarz ``sum_j c_j <= rho_1 rho_2``, with equality where every unit has
|a_j| in the same proportion to |w_j|, so that over all widths

    max  min_n y_n f(V; x_n)  =  1 / min { sum_j c_j : y_n f(x_n) >= 1 for all n }.

The minimum on the right is a linear program with one variable per unit vector and sign. Its dual
has one variable per sample: maximize sum_n alpha_n over alpha >= 0 for which no unit responds with
more than 1, ``|sum_n alpha_n y_n relu(u . x_n)| <= 1`` for every unit vector u. Any such alpha
proves that no network of any width has a margin above 1 / sum_n alpha_n. For points in the plane
the strongest unit is found exactly, so both sides are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.networks import Params

__all__ = ["Certificate", "Unit", "best_margin", "strongest_unit"]

ROUNDS = 100  # of column generation; sets of a few dozen points take about ten


@dataclass(frozen=True, eq=False)
class Unit:
    """A hidden unit and what it collects.

    Attributes:
        u: Its weights, (2,), of norm 1.
        value: ``sum_n weights_n relu(u . x_n)``, with its sign.
    """

    u: Tensor
    value: float


@dataclass(frozen=True, eq=False)
class Certificate:
    """The largest margin of two-layer ReLU networks on a data set, and the proof that it is.

    Attributes:
        margin: Normalized margin ``min_n y_n f(V; x_n)`` of ``params``: attained.
        bound: ``1 / sum_n alpha_n``: no two-layer ReLU network, however wide, has more.
        dual: alpha, (N,), not negative, feasible for the dual problem to rounding.
        params: A network that attains ``margin``: W1 (m, 2) and W2 (1, m), of equal norms, scaled
            to a smallest margin ``y_n f(W; x_n)`` of 1.
    """

    margin: float
    bound: float
    dual: Tensor
    params: Params

    @property
    def gap(self) -> float:
        """How far ``margin`` may be from the largest one: ``bound - margin``."""
        return self.bound - self.margin


def strongest_unit(x: Tensor, weights: Tensor) -> Unit:
    """Return the unit vector u that maximizes ``|sum_n weights_n relu(u . x_n)|`` in the plane.

    The sum is linear in u wherever no ``u . x_n`` changes its sign. These arcs are enumerated; on
    each, the extrema lie along or against its gradient if that is inside, or at its ends.

    Args:
        x: Points, (N, 2).
        weights: One number per point, of any sign, (N,); for the dual, alpha_n y_n.

    Raises:
        TypeError, ValueError: if the points or the weights do not fit.

    >>> x = torch.tensor([[1.0, 0.25], [-1.0, 0.25]], dtype=torch.float64)
    >>> unit = strongest_unit(x, torch.ones(2, dtype=torch.float64))
    >>> round(unit.value, 4)  # along either point; both together would give 0.5
    1.0308
    """
    _plane(x)
    _checks.shape("weights", _checks.finite("weights", weights), (len(x),))
    points, signed = x.detach().cpu().double().numpy(), weights.detach().cpu().double().numpy()
    u = _candidates(points, signed)
    values = _responses(points, u).T @ signed
    best = int(np.abs(values).argmax())
    return Unit(torch.as_tensor(u[best]).to(x), float(values[best]))


def best_margin(x: Tensor, y: Tensor, *, rtol: float = 1e-9) -> Certificate:
    """Return the largest normalized margin of two-layer ReLU networks without biases.

    Column generation: the linear program over the units found so far gives alpha, the strongest
    unit of every arc for these alpha joins them, until the bound that alpha proves meets the margin
    attained. Units of one sign in one arc act as their sum, which costs less than they do.

    Args:
        x: Points in the plane, (N, 2).
        y: Labels -1 and +1, (N,).
        rtol: Largest relative gap between bound and margin.

    Raises:
        TypeError, ValueError: for data that do not fit, or that no such network separates.
        RuntimeError: if the gap does not close (rounding, for extreme data).

    Source: PNAS 2020, Eq. 11, for K = 2; Pilanci & Ergen 2020 (enumeration of the activation
    patterns and the dual, for training with weight decay).

    >>> x = torch.tensor([[1.0, 0.25], [-1.0, 0.25]], dtype=torch.float64)
    >>> found = best_margin(x, torch.ones(2, dtype=torch.float64))
    >>> round(found.margin, 4), found.gap < 1e-9
    (0.5154, True)
    """
    x, y = _checks.dataset(x, y)
    _plane(x)
    _checks.positive("rtol", rtol)
    points, labels = x.detach().cpu().double().numpy(), y.detach().cpu().double().numpy()
    size = float(np.linalg.norm(points, axis=1).max()) or 1.0
    points = points / size  # of order one, as the tolerances of the solver want it
    units, signs = _both(_candidates(points, None))
    for _ in range(ROUNDS):
        features = labels[:, None] * signs * _responses(points, units)
        cost, alpha = _linear_program(features)
        merged = _merge(points, units, signs, cost)
        margin = _margin(points, labels, merged)
        new = _candidates(points, labels * alpha)
        strongest = float(np.abs(_responses(points, new).T @ (labels * alpha)).max())
        bound = strongest / float(alpha.sum())
        if bound <= (1 + rtol) * margin:
            return Certificate(
                margin=size * margin,
                bound=size * bound,
                dual=torch.as_tensor(alpha / (strongest * size)).to(x),
                params=_network(size * margin, merged, x),
            )
        (added, added_signs), near = _both(new), alpha @ features > 0.9  # 1 for those in use
        units = np.concatenate([units[near], _directions(merged), added])
        signs = np.concatenate([signs[near], merged[:, 2], added_signs])
    raise RuntimeError(f"The gap {bound / margin - 1:.1e} is above rtol={rtol:g}.")


def _plane(x: Tensor) -> None:
    _checks.finite("x", x)
    if x.ndim != 2 or x.shape[1] != 2 or len(x) == 0:
        raise ValueError(f"x must have shape (N, 2), points in the plane, got {tuple(x.shape)}.")


def _responses(points: np.ndarray, u: np.ndarray) -> np.ndarray:
    """relu(u_j . x_n), (N, m)."""
    return np.maximum(points @ u.T, 0.0)


def _arcs(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles at which some u . x_n is zero, ascending from 0, and the widths of the arcs between.

    A point at the origin has no such angle; with none at all, the circle is cut once.
    """
    nonzero = points[np.linalg.norm(points, axis=1) > 0]
    across = np.arctan2(nonzero[:, 0], -nonzero[:, 1])
    ends = np.unique(np.mod(np.concatenate([across, across + math.pi, [0.0]]), 2 * math.pi))
    return ends, np.diff(np.append(ends, ends[0] + 2 * math.pi))


def _candidates(points: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Ends of all arcs; with weights the extrema inside them, without their middles: (m, 2)."""
    ends, width = _arcs(points)
    middle = ends + width / 2
    if weights is None:
        angles = np.concatenate([ends, middle])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inside = np.stack([np.cos(middle), np.sin(middle)], axis=1)
    gradients = ((points @ inside.T > 0) * weights[:, None]).T @ points  # (arcs, 2)
    angles = [ends]
    for along in (gradients, -gradients):
        angle = np.arctan2(along[:, 1], along[:, 0])
        reached = np.mod(angle - ends, 2 * math.pi) < width
        angles.append(angle[reached])
    flat = np.concatenate(angles)
    return np.stack([np.cos(flat), np.sin(flat)], axis=1)


def _both(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every unit with either sign."""
    return np.concatenate([u, u]), np.repeat([1.0, -1.0], len(u))


def _linear_program(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimize sum_j c_j subject to ``features @ c >= 1``, c >= 0; also the dual variables."""
    from scipy.optimize import linprog

    found = linprog(
        np.ones(features.shape[1]),
        A_ub=-features,
        b_ub=-np.ones(len(features)),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.status != 0:
        raise ValueError(
            "x and y must be separable by a two-layer ReLU network without biases: points on one "
            f"ray from the origin need the same label, and none may be zero ({found.message})"
        )
    return found.x, np.maximum(-found.ineqlin.marginals, 0.0)


def _merge(
    points: np.ndarray, units: np.ndarray, signs: np.ndarray, cost: np.ndarray
) -> np.ndarray:
    """Sum units of one sign with the same active points: rows (w_1, w_2, s), with |w| the cost."""
    groups: dict[tuple[bytes, float], np.ndarray] = {}
    for u, s, c in zip(units, signs, cost, strict=True):
        if c > 0:
            key = ((points @ u > 1e-12).tobytes(), float(s))
            groups[key] = groups.get(key, np.zeros(2)) + c * u
    return np.array([[*w, s] for (_, s), w in groups.items()])


def _directions(merged: np.ndarray) -> np.ndarray:
    return merged[:, :2] / np.linalg.norm(merged[:, :2], axis=1, keepdims=True)


def _margin(points: np.ndarray, labels: np.ndarray, merged: np.ndarray) -> float:
    f = _responses(points, merged[:, :2]) @ merged[:, 2]
    return float((labels * f).min() / np.linalg.norm(merged[:, :2], axis=1).sum())


def _network(margin: float, merged: np.ndarray, like: Tensor) -> Params:
    """Balanced layers, |a_j| = |w_j|, with a smallest margin of 1."""
    size = np.linalg.norm(merged[:, :2], axis=1)
    share = size / (size.sum() * margin)  # c_j, which sum to 1 / margin
    W1 = np.sqrt(share)[:, None] * _directions(merged)
    W2 = (merged[:, 2] * np.sqrt(share))[None]
    return {"W1": torch.as_tensor(W1).to(like), "W2": torch.as_tensor(W2).to(like)}
