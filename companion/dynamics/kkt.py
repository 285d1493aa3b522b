"""Distance from the Karush-Kuhn-Tucker conditions of the margin problem (PNAS Eq. 12).

The problem is ``min (1/2) ||W||^2`` subject to ``y_n f(W; x_n) >= 1``. Stationarity asks that W be
a combination ``sum_n lambda_n h_n`` with lambda_n >= 0 and h_n in the subdifferential of the
margin of sample n. For a ReLU network on a kink that subdifferential is a convex set with many
corners (Clarke), and the distance of W from the cone of all such combinations is a convex problem
that we solve corner by corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.trajectory import margins_of
from companion.networks import MLP, SLOPES, Params, slopes_where

__all__ = ["KKT", "kkt_residual", "support_vectors"]

ROUNDS = 200  # of corners; the digits take about fifteen
GAP = 1e-9  # relative, on the squared distance
FLOOR = 1e-3  # distances are told apart down to sqrt(GAP) FLOOR, about 3e-8


def support_vectors(margins: Tensor, *, rtol: float) -> Tensor:
    """Return the indices of the samples within a relative ``rtol`` of the smallest margin.

    Args:
        margins: (N,), normalized or not, the smallest positive.
        rtol: Sample n counts if margin_n <= (1 + rtol) min margin.

    Raises:
        TypeError, ValueError: if margins are not (N,) finite numbers, or the smallest is not
            positive (the data are not separated yet).

    >>> support_vectors(torch.tensor([1.0, 3.0, 1.001]), rtol=0.01).tolist()
    [0, 2]
    """
    _checks.finite("margins", margins)
    if margins.ndim != 1 or len(margins) == 0:
        raise ValueError(f"margins must have shape (N,), got {tuple(margins.shape)}.")
    _checks.positive("rtol", rtol, zero=True)
    smallest = float(margins.min())
    if smallest <= 0:
        raise ValueError(f"margins must all be positive, got a smallest one of {smallest}.")
    return torch.nonzero(margins <= (1 + rtol) * smallest)[:, 0]


@dataclass(frozen=True, eq=False)
class KKT:
    """How nearly weights satisfy the KKT conditions of the margin problem.

    The weights are rescaled to W' with margins >= 1, all layers by the same factor.

    Attributes:
        residual: ``||W' - sum_n lambda_n h_n|| / ||W'||`` with h_n in the subdifferential of
            y_n f(W'; x_n).
        slackness: ``sum_n lambda_n (margin_n - 1) / sum_n lambda_n``.
        multipliers: lambda (S,), not negative.
        support: indices (S,) of the samples that were allowed a multiplier.
        num_kinks: number of (sample, unit) pairs whose derivative was free in [0, 1].
    """

    residual: float
    slackness: float
    multipliers: Tensor
    support: Tensor
    num_kinks: int


def kkt_residual(
    net: MLP,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    support_rtol: float,
    kink_tol: float = 0.0,
) -> KKT:
    """Return the KKT residual of ``min (1/2) ||W||^2`` subject to ``y_n f(W; x_n) >= 1``.

    At a kink of the ReLU the derivative of the margins is a set, the Clarke subdifferential, and
    stationarity means that *some* element of it does. Its corners have the derivative of each unit
    at a kink equal to one of its two sides; nonnegative least squares on a few corners alternates
    with a search for the corner that would reduce the distance most. For one and two layers that
    search is exact, and so is the distance, to 3e-8; for deeper networks the search climbs layer
    by layer and the result, which is attained, is an upper bound. It is never above the residual
    with ``kink_tol=0``. Computed in float64.

    Args:
        net: A bias-free MLP with one output.
        params: Weights that separate the data, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        support_rtol: Samples with margins up to (1 + support_rtol) times the smallest may carry a
            multiplier.
        kink_tol: A unit counts as being at its kink where ``|z| <= kink_tol ||w|| ||a||`` with w
            its weights and a its inputs, so a positive value enlarges the subdifferential to that
            of points nearby. 0 uses the gradient with sigma'(0) = 0.

    Raises:
        TypeError, ValueError: if data and parameters do not fit or do not separate.

    Source: PNAS 2020, Eq. 12; Lyu & Li 2020, section 4.3 and appendix C, whose approximate KKT
    points bound the same two quantities, without dividing by ||W'||.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> at_optimum = {"W1": points.direction[None]}
    >>> found = kkt_residual(net, at_optimum, points.x, points.y, support_rtol=1e-9)
    >>> found.residual < 1e-12, found.multipliers
    (True, tensor([0.6667, 0.3333], dtype=torch.float64))
    """
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}.")
    _checks.positive("kink_tol", kink_tol, zero=True)
    params, x, y = {name: W.detach() for name, W in params.items()}, x.detach(), y.detach()
    margins = margins_of(net, params, x, y)
    support = support_vectors(margins, rtol=support_rtol)
    unit = float(margins.min()) ** (-1 / net.K)
    W = [(unit * W_k).cpu().double() for W_k in params.values()]
    corners = _Corners(net, W, x[support].cpu().double(), y[support].cpu().double(), kink_tol)
    found, residual = _distance_to_cone(corners)
    excess = (margins[support].cpu().double() / margins.min().cpu().double() - 1).numpy()
    return KKT(
        residual=residual,
        slackness=float(found @ excess) / max(float(found.sum()), np.finfo(float).tiny),
        multipliers=torch.as_tensor(found, dtype=x.dtype, device=x.device),
        support=support,
        num_kinks=corners.num_free,
    )


class _Corners:
    """Corners of the subdifferentials of the margins, as rows h_n / ||W|| of length num_params."""

    def __init__(self, net: MLP, W: list[Tensor], x: Tensor, y: Tensor, kink_tol: float) -> None:
        self.W, self.y, self.low = W, y, SLOPES[net.activation]
        self.size = math.sqrt(sum(float((W_k**2).sum()) for W_k in W))
        self.target = torch.cat([W_k.flatten() for W_k in W]).numpy() / self.size
        self.inputs, self.plain, self.free = [x], [], []
        parameters = dict(zip(net.layer_names, W, strict=True))
        for W_k, z in zip(W, net.preactivations(parameters, x), strict=False):
            scale = self.inputs[-1].norm(dim=1, keepdim=True) * W_k.norm(dim=1)
            self.free.append((z.abs() <= kink_tol * scale) & (self.low < 1) & (kink_tol > 0))
            self.plain.append(slopes_where(net.activation, z > 0, z))
            self.inputs.append(z * self.plain[-1])
        self.num_free = sum(int(mask.sum()) for mask in self.free)

    def rows(self, slopes: list[Tensor]) -> Tensor:
        """The h_n for the derivatives ``slopes[k]`` (S, h_k) of the units: (S, num_params)."""
        delta = self.y[:, None] * self.W[-1]  # (S, h_{K-1})
        blocks = [self.y[:, None] * self.inputs[-1]]
        for k in range(len(self.W) - 2, -1, -1):
            delta = delta * slopes[k]
            blocks.append((delta[:, :, None] * self.inputs[k][:, None, :]).flatten(1))
            delta = delta @ self.W[k]
        return torch.cat(blocks[::-1], dim=1) / self.size

    def furthest(self, residual: np.ndarray) -> np.ndarray:
        """The corner of each sample with the largest ``h_n . residual`` that the search finds.

        The product is affine in the derivatives of one layer while those of the others are held,
        so each layer in turn takes its best side until none changes.
        """
        along, slopes, changed = torch.as_tensor(residual), list(self.plain), self.num_free > 0
        while changed:
            changed = False
            for k, mask in enumerate(self.free):
                at = slopes[k].clone().requires_grad_()
                value = (self.rows([*slopes[:k], at, *slopes[k + 1 :]]) @ along).sum()
                (gain,) = torch.autograd.grad(value, at)
                high, low = torch.ones_like(gain), torch.full_like(gain, self.low)
                sides = torch.where(gain > 0, high, torch.where(gain < 0, low, slopes[k]))
                better = torch.where(mask, sides, slopes[k])
                changed |= bool((better != slopes[k]).any()) and len(self.free) > 1
                slopes[k] = better
        return self.rows(slopes).numpy()


def _distance_to_cone(corners: _Corners) -> tuple[np.ndarray, float]:
    """Multipliers (S,) and distance of W / ||W|| from the cone of the subdifferentials.

    Column generation: with lambda optimal on the corners so far and r the residual, any other
    point of the cone, with multipliers lambda' and corners h', can lower ||r||^2 by no more than
    ``2 sum_n lambda'_n h'_n . r``.
    """
    from scipy.optimize import nnls

    rows = corners.rows(corners.plain).numpy()
    owner, previous = np.arange(len(rows)), math.inf
    for _ in range(ROUNDS):
        weights, _ = nnls(rows.T, corners.target, maxiter=10 * len(rows) + 300)
        residual = corners.target - weights @ rows
        distance = float(np.linalg.norm(residual))
        new = corners.furthest(residual)
        gain = new @ residual
        bound = 2 * float(gain.max() * weights.sum())
        if bound <= GAP * (distance**2 + FLOOR**2) or distance >= previous:
            break
        kept, added, previous = np.flatnonzero(weights), np.flatnonzero(gain > 0), distance
        rows = np.concatenate([rows[kept], new[added]])
        owner = np.concatenate([owner[kept], added])
    return np.bincount(owner, weights=weights, minlength=len(new)), distance
