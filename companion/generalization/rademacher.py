"""Rademacher complexity from its definition, and the bounds that are built on it.

The empirical complexity of a class F on points x_1 .. x_N is the mean over all sign vectors e of
the supremum ``sup_{f in F} (1/N) sum_n e_n f(x_n)`` (Bartlett & Mendelson 2002, who take the
absolute value and a factor 2; here neither). Functions named ``*_suprema`` return that
supremum for M sign vectors, shape (M,); :func:`complexity` averages it. All arithmetic is float64,
or the dtype of the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from companion import _checks
from companion.networks import Network, Params, compose, directions

__all__ = [
    "Estimate",
    "all_signs",
    "ascent_suprema",
    "circle_extremes",
    "complexity",
    "deviation",
    "finite_suprema",
    "golowich_bound",
    "linear_suprema",
    "margin_bound",
    "massart_bound",
    "peeled_bound",
    "ramp",
    "random_signs",
    "two_layer_suprema",
]

_MOST_ENUMERATED = 20  # points; 2**20 sign vectors


@dataclass(frozen=True)
class Estimate:
    """A mean over sign vectors.

    Args:
        mean: The complexity, or its estimate.
        standard_error: Of the mean over random signs; 0 where all sign vectors were enumerated.
    """

    mean: float
    standard_error: float


def all_signs(num_points: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return all sign vectors, (2**N, N).

    Raises:
        TypeError, ValueError: if N is not an integer in 1 .. 20.

    >>> all_signs(2).int().tolist()
    [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    """
    if _checks.integer("num_points", num_points, at_least=1) > _MOST_ENUMERATED:
        raise ValueError(f"num_points must be at most {_MOST_ENUMERATED}, got {num_points}.")
    codes = torch.arange(2**num_points).unsqueeze(1)
    bits = codes >> torch.arange(num_points - 1, -1, -1) & 1
    return (2 * bits - 1).to(dtype)


def random_signs(
    num_draws: int, num_points: int, *, seed: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return M independent sign vectors, (M, N), the same for the same seed."""
    _checks.integer("num_draws", num_draws, at_least=1)
    _checks.integer("num_points", num_points, at_least=1)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, at_least=0))
    bits = torch.randint(2, (num_draws, num_points), generator=generator)
    return (2 * bits - 1).to(dtype)


def complexity(
    suprema: Callable[[Tensor], Tensor],
    num_points: int,
    *,
    num_draws: int | None = None,
    seed: int = 0,
) -> Estimate:
    """Return the empirical Rademacher complexity of the class whose suprema are given.

    Args:
        suprema: Maps sign vectors (M, N) to the suprema (M,).
        num_points: N.
        num_draws: Random sign vectors; None enumerates all 2**N, for N up to 20.
        seed: Of the random signs.

    Raises:
        TypeError, ValueError: if a number is out of range or the suprema have another shape.

    Source: Bartlett & Mendelson 2002, Definition 2.

    >>> x = torch.tensor([[3.0, 4.0]])  # one point: the complexity of the unit ball is its norm
    >>> complexity(lambda signs: linear_suprema(x.double(), signs), 1)
    Estimate(mean=5.0, standard_error=0.0)
    """
    if num_draws is None:
        signs = all_signs(num_points)
    else:
        _checks.integer("num_draws", num_draws, at_least=2)
        signs = random_signs(num_draws, num_points, seed=seed)
    values = _checks.shape("suprema(signs)", suprema(signs), (len(signs),))
    error = 0.0 if num_draws is None else float(values.std()) / math.sqrt(num_draws)
    return Estimate(float(values.mean()), error)


def linear_suprema(x: Tensor, signs: Tensor, *, rho: float = 1.0) -> Tensor:
    """Return the suprema over ``f(x) = w . x`` with ``|w| <= rho``: ``rho |sum_n e_n x_n| / N``.

    Args:
        x: Points, (N, d).
        signs: Sign vectors, (M, N).
        rho: Norm of w.

    Raises:
        TypeError, ValueError: if shapes do not fit or rho is not positive.
    """
    _sample(x, signs)
    return _checks.positive("rho", rho) * torch.linalg.vector_norm(signs @ x, dim=-1) / len(x)


def finite_suprema(f: Tensor, signs: Tensor) -> Tensor:
    """Return the suprema over finitely many functions with values ``f`` (F, N) on the points.

    Raises:
        TypeError, ValueError: if shapes do not fit.
    """
    _sample(f.mT, signs)
    return (signs @ f.mT).amax(dim=-1) / f.shape[1]


def circle_extremes(
    x: Tensor, weights: Tensor, *, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return min and max over unit vectors u of ``sum_n a_n sigma(u . x_n) + c . u``.

    Exact: between two neighbouring angles at which some u . x_n changes sign the function is
    ``s . u`` with a fixed vector s, so an extremum lies at such an angle or at that of s or -s.

    Args:
        x: Points of the plane, (N, 2), or (M, N, 2) if each row of weights has its own.
        weights: a, (M, N).
        shift: c, (2,); default zero.

    Returns:
        Two tensors (M,).

    Raises:
        TypeError, ValueError: if shapes do not fit.
    """
    _checks.floating("x", x)
    _checks.floating("weights", weights)
    if weights.ndim != 2 or x.ndim not in (2, 3):
        raise ValueError(
            f"x must have shape (N, 2) or (M, N, 2) and weights (M, N), got {tuple(x.shape)} "
            f"and {tuple(weights.shape)}."
        )
    lead = weights.shape[:1] if x.ndim == 3 else ()
    _checks.shape("x", x, (*lead, weights.shape[1], 2))
    c = x.new_zeros(2) if shift is None else _checks.shape("shift", shift, (2,))
    turn = 2 * math.pi
    angle = torch.atan2(x[..., 1], x[..., 0]).expand(weights.shape)
    pull = weights.unsqueeze(-1) * x  # (M, N, 2)
    # Unit n is active between angle - pi/2 and angle + pi/2.
    kinks, order = torch.cat([angle - turn / 4, angle + turn / 4], dim=1).remainder(turn).sort()
    index = order.unsqueeze(-1).expand(-1, -1, 2)
    jumps = torch.cat([pull, -pull], dim=1).gather(1, index).cumsum(dim=1)
    length = torch.cat([kinks[:, 1:], kinks[:, :1] + turn], dim=1) - kinks  # of arc i, after kink i
    widest = length.argmax(dim=1, keepdim=True)  # its middle is on no kink
    middle = (kinks + length / 2).gather(1, widest)
    active = (_unit(middle) * x).sum(-1) > 0  # (M, N)
    start = (active.unsqueeze(-1) * pull).sum(1, keepdim=True)
    s = start + jumps - jumps.gather(1, widest.unsqueeze(-1).expand(-1, -1, 2)) + c  # (M, 2N, 2)
    at_kinks = (s * _unit(kinks)).sum(-1)
    size, towards = torch.linalg.vector_norm(s, dim=-1), torch.atan2(s[..., 1], s[..., 0])
    top = torch.where((towards - kinks).remainder(turn) < length, size, at_kinks)
    low = torch.where((towards + turn / 2 - kinks).remainder(turn) < length, -size, at_kinks)
    return torch.minimum(low, at_kinks).amin(1), torch.maximum(top, at_kinks).amax(1)


def two_layer_suprema(x: Tensor, signs: Tensor) -> Tensor:
    """Return the suprema over two-layer ReLU networks with layers of norm 1, in the plane.

    ``sup |e-mean of V_2 sigma(V_1 x)| = max_{|u| = 1} |sum_n e_n sigma(u . x_n)| / N``: one unit
    takes the whole norm, whatever the width. Exact, by :func:`circle_extremes`.

    Args:
        x: Points, (N, 2).
        signs: Sign vectors, (M, N).

    Raises:
        TypeError, ValueError: if the points are not in the plane or shapes do not fit.

    >>> two_layer_suprema(torch.eye(2).double(), all_signs(2))
    tensor([0.7071, 0.5000, 0.5000, 0.7071], dtype=torch.float64)
    """
    _sample(x, signs)
    low, top = circle_extremes(x, signs)
    return torch.maximum(top, -low) / len(x)


def ascent_suprema(
    net: Network,
    x: Tensor,
    signs: Tensor,
    *,
    rho: Sequence[float] | None = None,
    drawn: int = 1000,
    starts: int = 4,
    steps: int = 100,
    first_step: float = 0.2,
    last_step: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """Return the largest values that projected gradient ascent finds in the class of a network.

    The class holds the scalar networks f(W; x) with ``|W_k| = rho_k``. Of ``drawn`` random members
    each sign vector takes the ``starts`` best as its starts; the steps, as angles on the sphere of
    each layer, shrink geometrically. The result is a *lower* bound of each supremum.

    Args:
        net: Architecture with one output.
        x: Points, (N, d).
        signs: Sign vectors, (M, N).
        rho: Norms of the K layers; default all 1.
        drawn: Random members of the class.
        starts: Starts per sign vector, at most ``drawn``.
        steps: Steps from each start.
        first_step: Size of the first step, in radians.
        last_step: Size of the last step, in radians.
        seed: Of the random members.

    Returns:
        (M,).

    Raises:
        TypeError, ValueError: if the network has several outputs or a number is out of range.
    """
    _sample(x, signs)
    if net.num_outputs != 1:
        raise ValueError(f"net must have one output, got {net.num_outputs}.")
    norms = [1.0] * net.K if rho is None else [_checks.positive("rho", r) for r in rho]
    if len(norms) != net.K:
        raise ValueError(f"rho must hold one norm per layer, {net.K}, got {len(norms)}.")
    for name, value in (("drawn", drawn), ("starts", starts), ("steps", steps)):
        _checks.integer(name, value, at_least=1)
    if starts > drawn:
        raise ValueError(f"starts must be at most drawn = {drawn}, got {starts}.")
    first = _checks.positive("first_step", first_step)
    last = _checks.positive("last_step", last_step)
    scale = x.new_tensor(norms)
    pool = compose(scale.expand(drawn, -1), directions(_gaussian(net, drawn, x.dtype, seed)))
    best = (signs @ net(pool, x).mT).topk(starts, dim=1).indices.flatten()  # (M starts,)
    W = {name: W_k[best] for name, W_k in pool.items()}
    e, scale = signs.repeat_interleave(starts, dim=0) / len(x), scale.expand(len(best), -1)
    for t in range(steps):
        step = first * (last / first) ** (t / max(1, steps - 1))
        W = compose(scale, directions(_climb(W, net.vjp(W, x)[1](e), step)))
    return (e * net(W, x)).sum(-1).reshape(len(signs), starts).amax(dim=1)


def massart_bound(f: Tensor) -> float:
    """Return Massart's bound for finitely many functions: ``max_f |f|_2 sqrt(2 log F) / N``.

    Args:
        f: Values on the points, (F, N).

    Source: Massart 2000, Lemma 5.2.
    """
    _checks.floating("f", f)
    largest = float(torch.linalg.vector_norm(f, dim=1).max())
    return largest * math.sqrt(2 * math.log(f.shape[0])) / f.shape[1]


def golowich_bound(x: Tensor, rho: Sequence[float]) -> float:
    """Return ``(sqrt(2 K log 2) + 1) prod_k rho_k sqrt(sum_n |x_n|^2) / N``.

    It bounds the complexity of ReLU networks of K layers with Frobenius norms at most rho_k.

    Args:
        x: Points, (N, d).
        rho: Norms of the K layers.

    Source: Golowich, Rakhlin & Shamir 2018, Theorem 1 (with the sum of squares of its proof).
    """
    _checks.finite("x", x)
    product = math.prod(_checks.positive("rho", r) for r in rho)
    factor = math.sqrt(2 * math.log(2) * len(rho)) + 1
    return factor * product * float(torch.linalg.vector_norm(x)) / len(x)


def deviation(num_points: int, delta: float, *, sides: int = 1) -> float:
    """Return ``sqrt(log(sides / delta) / (2 N))``, the last term of the bounds.

    Args:
        num_points: N.
        delta: Probability with which the bound may fail, in (0, 1).
        sides: 1 for a one-sided bound, 2 for a two-sided one.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    >>> round(deviation(100, 0.05), 4), round(deviation(100, 0.05, sides=2), 4)
    (0.1224, 0.1358)
    """
    _checks.integer("num_points", num_points, at_least=1)
    if _checks.positive("delta", delta) >= 1:
        raise ValueError(f"delta must lie in (0, 1), got {delta}.")
    if sides not in (1, 2):
        raise ValueError(f"sides must be 1 or 2, got {sides}.")
    return math.sqrt(math.log(sides / delta) / (2 * num_points))


def ramp(margins: Tensor, eta: float = 1.0) -> Tensor:
    """Return the ramp loss ``min(1, max(0, 1 - m / eta))``, in [0, 1] and (1 / eta)-Lipschitz.

    It lies above the 0-1 loss (1 where m <= 0) and below the indicator of m < eta.

    >>> ramp(torch.tensor([-1.0, 0.5, 3.0]), eta=2.0)
    tensor([1.0000, 0.7500, 0.0000])
    """
    return (1 - margins / _checks.positive("eta", eta)).clamp(0.0, 1.0)


def margin_bound(
    margins: Tensor, unit_complexity: float, etas: Sequence[float], *, delta: float
) -> Tensor:
    """Return the margin bound on the classification error for each eta of a grid.

    ``mean ramp(m; eta) + 2 R / eta + sqrt(log(J / delta) / (2 N))``. With probability at least
    1 - delta it holds for all J values of the grid at once, hence for the smallest of them,
    as long as the grid was fixed before the data were seen.

    Args:
        margins: Training margins y_n f(x_n), (N,).
        unit_complexity: Expected Rademacher complexity R of the class that f is from.
        etas: Grid of margins, J numbers.
        delta: Probability with which the bound may fail.

    Source: Koltchinskii & Panchenko 2002; Bartlett & Mendelson 2002, Theorem 8.
    """
    last = deviation(len(margins), delta / len(etas))
    R = _checks.positive("unit_complexity", unit_complexity, zero=True)  # noqa: N806
    return torch.stack([ramp(margins, eta).mean() + 2 * R / eta + last for eta in etas])


def peeled_bound(
    loss: float, unit_complexity: float, rho: float, num_points: int, *, delta: float
) -> float:
    """Return a bound on the expected loss for a network whose norm rho was found in training.

    The classes of norm at most 2^j, j = 0, 1, 2, .., get the share ``delta / ((j + 1) (j + 2))``
    each, and f is treated as a member of the smallest that holds it. For losses in [0, 1] that
    are 1-Lipschitz in f.

    Args:
        loss: Mean training loss.
        unit_complexity: Rademacher complexity of the class of norm 1.
        rho: Norm that was found.
        num_points: N.
        delta: Probability with which the bound may fail.

    Source: Bartlett 1998 (the union); Koltchinskii & Panchenko 2002.

    >>> peeled_bound(0.0, 0.1, 3.0, 100, delta=0.05) > 2 * 3.0 * 0.1 + deviation(100, 0.05)
    True
    """
    j = max(0, math.ceil(math.log2(_checks.positive("rho", rho))))
    share = delta / ((j + 1) * (j + 2))
    return loss + 2 * 2.0**j * unit_complexity + deviation(num_points, share)


def _sample(x: Tensor, signs: Tensor) -> None:
    _checks.floating("x", x)
    if x.ndim != 2 or signs.ndim != 2 or signs.shape[1] != x.shape[0]:
        raise ValueError(
            f"signs must have shape (M, N) with x of shape (N, d), got {tuple(signs.shape)} "
            f"and {tuple(x.shape)}."
        )
    _checks.signs("signs", signs)


def _unit(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def _gaussian(net: Network, count: int, dtype: torch.dtype, seed: int) -> Params:
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, at_least=0))
    return {
        name: torch.randn(count, *shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in net.shapes.items()
    }


def _climb(W: Params, gradient: Params, step: float) -> Params:
    """Move each layer by ``step`` times its norm along the tangential part of the gradient."""
    moved = {}
    for name, W_k in W.items():
        axes = tuple(range(1, W_k.ndim))
        g, square = gradient[name], W_k.square().sum(axes, keepdim=True)
        g = g - (g * W_k).sum(axes, keepdim=True) / square * W_k
        length = g.square().sum(axes, keepdim=True).sqrt().clamp(min=torch.finfo(g.dtype).tiny)
        moved[name] = W_k + step * square.sqrt() * g / length
    return moved
