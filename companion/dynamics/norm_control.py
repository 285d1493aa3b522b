"""Unconstrained against constrained flow: the same equations up to a factor per layer (PNAS B.5).

Eq. 14 turns the unconstrained flow into one of norms and directions. Its equation for V_k has the
factor rho / rho_k^2 where the constrained system (Eq. 7) has rho. The ratio rho_k^2 differs from
layer to layer, and so the two flows take different roads and can end at different margins. The
smallest example is a product network on one point, where the end of the unconstrained flow is
known in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion import _checks, losses
from companion.dynamics import systems
from companion.dynamics.constrained import angle
from companion.dynamics.margin import stationarity_terms
from companion.dynamics.stiff import stiff_flow
from companion.dynamics.trajectory import LogLoss, LogNorm, LogTime, Trajectory, margins_of
from companion.networks import Network, Params, directions, layer_norms

__all__ = [
    "EndResiduals",
    "angles_apart",
    "constrained_ends",
    "constrained_path",
    "direction_factors",
    "end_residuals",
    "escape_times",
    "induced_velocity",
    "stationary_margins",
    "unconstrained_ends",
    "unconstrained_path",
]

HORIZON = 200.0  # of the constrained flow on one point; errors shrink like exp(-min |x_i| time)
ARRIVED = 1e-6  # distance of the product of the directions from a corner


def induced_velocity(W: Params, W_dot: Params) -> systems.Polar:
    """Return ``d rho_k = <V_k, W_dot_k>`` and ``dV_k = (S_k / rho_k) W_dot_k``.

    ``S_k = I - V_k V_k'`` acts on the vectorized layer. Times are those of ``W_dot``.

    Args:
        W: Weights, no layer zero.
        W_dot: Velocities of the weights, same names and shapes.

    Raises:
        ValueError: if a layer is zero or the layers of ``W_dot`` are not those of ``W``.

    Source: PNAS 2020, Eq. 14.

    >>> W = {"W1": torch.tensor([[3.0, 0.0]])}
    >>> velocity = induced_velocity(W, {"W1": torch.tensor([[1.0, 6.0]])})
    >>> velocity.rho, velocity.V["W1"]
    (tensor([1.]), tensor([[0., 2.]]))
    """
    if {n: p.shape for n, p in W.items()} != {n: p.shape for n, p in W_dot.items()}:
        raise ValueError("W_dot must have the layers of W, with the same names and shapes.")
    rho, V = layer_norms(W), directions(W)
    radial = torch.stack([(V[name] * W_dot[name]).sum() for name in W])
    across = {name: (W_dot[name] - radial[k] * V[name]) / rho[k] for k, name in enumerate(W)}
    return systems.Polar(radial, across)


def direction_factors(net: Network, W: Params, x: Tensor, y: Tensor) -> Tensor:
    """Return the measured ratio of the constrained to the unconstrained dV_k, (K,).

    Layer by layer, ``<B, U> / <U, U>`` with B the right-hand side of Eq. 7 and U that of the
    display after Eq. 14 at the same weights. The two are parallel, and the ratio is rho_k^2.

    Args:
        net: Network with one output.
        W: Weights, one network, no layer zero.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.
        ZeroDivisionError: if a direction is at rest, so that there is no ratio.

    Source: PNAS 2020, section 3.B.5, before Lemma 5.
    """
    rho, V = layer_norms(W), directions(W)
    free = induced_velocity(W, systems.unconstrained(net, W, x, y)).V
    held = systems.multipliers(net, rho, V, x, y).V
    squares = torch.stack([(free[name] ** 2).sum() for name in W])
    if not bool((squares > 0).all()):
        raise ZeroDivisionError("A direction is at rest: 0 / 0 is no factor.")
    return torch.stack([(held[name] * free[name]).sum() for name in W]) / squares


def angles_apart(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    until: Sequence[LogTime | LogNorm | LogLoss],
    follow: Callable[..., Trajectory] = stiff_flow,
) -> Tensor:
    """Return the angles between the directions of the two flows, stopped under each condition.

    The flows are the unconstrained one and dynamics B, from the same weights.

    Args:
        net: Network with one output.
        params: Weights at t = 0.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: Where to stop both: equal t, equal prod_k rho_k or equal loss. Norms ascend and
            losses descend, since each run then goes on where the last one ended.
        follow: Integrator, ``stiff_flow`` for smooth networks or
            :func:`companion.dynamics.flow.gradient_flow`, which stops within a step of the
            condition.

    Returns:
        (len(until),) radians, all layers taken together as one vector.

    Raises:
        TypeError, ValueError, RuntimeError: as the integrator does.

    Source: PNAS 2020, section 3.B.5.
    """
    names, found = ("unconstrained", "multipliers"), []
    ends = dict.fromkeys(names, params)
    for condition in until:
        for name in names:  # the systems are autonomous, but a new run starts its clock at t = 0
            first = params if isinstance(condition, LogTime) else ends[name]
            ends[name] = follow(net, first, x, y, until=condition, system=name).params
        found.append(angle(*ends.values()))
    return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class EndResiduals:
    """How far a direction is from rest; units of the margins.

    Attributes:
        single: (K,) ``||B_k(V; x_1)||``, x_1 the sample of smallest margin: Eq. 15.
        weighted: (K,) ``||sum_n p_n B_k(V; x_n)||``, p_n the shares of the samples in the loss.
        shares: (N,) p_n.
    """

    single: Tensor
    weighted: Tensor
    shares: Tensor


def end_residuals(net: Network, W: Params, x: Tensor, y: Tensor) -> EndResiduals:
    """Measure Eq. 15 with its one support vector, and the condition that holds with several.

    Args:
        net: Network with one output.
        W: Weights, one network, no layer zero.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data or parameters that do not fit.

    Source: PNAS 2020, Eqs 4 and 15.
    """
    margins = margins_of(net, W, x, y)
    shares = losses.example_weights(margins)
    terms = stationarity_terms(net, directions(W), x, y)
    first = int(margins.argmin())
    single = torch.stack([B[first].norm() for B in terms.values()])
    weighted = torch.stack([torch.tensordot(shares, B, dims=1).norm() for B in terms.values()])
    return EndResiduals(single, weighted, shares)


def stationary_margins(x: Tensor) -> Tensor:
    """Return the positive margins of the KKT points of a product network on one point.

    The network ``f = sum_i x_i prod_k W_k[i]`` with three layers and ``y = 1``. At a KKT point with
    f > 0, ``x_i prod_{j != k} V_j[i] = f V_k[i]``; times V_k[i], this says that |V_k[i]| does not
    depend on k, so |V_k[i]| is 0 or f / |x_i|. Each nonempty set of coordinates gives one margin,
    ``(sum x_i^-2)^(-1/2)``. The single coordinates are the local maxima.

    Args:
        x: The point, (d,), no entry zero.

    Returns:
        (2^d - 1,), descending.

    Raises:
        TypeError, ValueError: if x is not (d,), or an entry is zero.

    >>> stationary_margins(torch.tensor([3.0, 4.0]))
    tensor([4.0000, 3.0000, 2.4000])
    """
    d = len(_point(x))
    masks = torch.tensor([[bool(s >> i & 1) for i in range(d)] for s in range(1, 2**d)])
    return (masks.to(x.dtype) @ x**-2).rsqrt().sort(descending=True).values


def escape_times(W: Tensor, x: Tensor) -> Tensor:
    """Return when each coordinate of a product network would reach infinity by itself.

    On one point with y = 1 the unconstrained flow in the clock dtau = exp(-f) dt is
    ``dW_k[i] = x_i prod_{j != k} W_j[i]``: the coordinates do not see each other. All W_k[i]^2 grow
    by the same s with ``ds = 2 x_i prod_k W_k[i] dtau``, which takes the time

        R_F(W_1[i]^2, W_2[i]^2, W_3[i]^2) / |x_i|

    to reach infinity, R_F being Carlson's elliptic integral. Where the product has the wrong sign,
    the squares first shrink until the smallest is 0, and grow from there. The coordinate that
    arrives first is the one the flow ends on.

    Args:
        W: Weights of M networks with three layers, (M, 3, d).
        x: The point, (d,), no entry zero.

    Returns:
        (M, d). Infinite where two weights of equal size meet at 0.

    Raises:
        TypeError, ValueError: if the shapes do not fit or an entry of x is zero.

    Source: Carlson 1995 for R_F (SciPy's ``elliprf``).

    >>> one = torch.ones(1, 3, 2, dtype=torch.float64)  # dW = x W^2 in each coordinate: 1 / x
    >>> escape_times(one, torch.tensor([1.0, 0.8], dtype=torch.float64))
    tensor([[1.0000, 1.2500]], dtype=torch.float64)
    """
    from scipy.special import elliprf

    squares = _starts(W, x).square().numpy()
    direct = elliprf(*np.moveaxis(squares, 1, 0))
    lowered = squares - squares.min(axis=1, keepdims=True)
    turning = elliprf(*np.moveaxis(lowered, 1, 0))  # from the turning point to infinity
    wrong = (W.prod(dim=1) * x < 0).numpy()
    return torch.as_tensor(np.where(wrong, 2 * turning - direct, direct)) / x.abs()


def unconstrained_ends(W: Tensor, x: Tensor) -> Tensor:
    """Return the margins at which the unconstrained flows end, (M,), from :func:`escape_times`.

    Arguments and errors as there.

    >>> W = torch.tensor([[[1.0, 9.0], [1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
    >>> unconstrained_ends(W, torch.tensor([1.0, 0.8], dtype=torch.float64))
    tensor([0.8000], dtype=torch.float64)
    """
    return x.abs()[escape_times(W, x).argmin(dim=1)]


def constrained_ends(W: Tensor, x: Tensor) -> Tensor:
    """Return the margins at which dynamics A and B end on a product network with one point.

    With one sample, ``dV_k = rho B_k(V; x_1)`` in the paper's time is ``dV_k = B_k(V; x_1)`` in
    another: the path of the directions depends neither on rho nor on the rho_k, and A and B
    share it. SciPy's DOP853 follows all M starts together.

    Args:
        W: Weights of M networks, (M, 3, d); only their directions matter. Where f(W; x) < 0 at the
            start, the norms of B can shrink to 0 before f changes sign; A then ends as said here.
        x: The point, (d,), no entry zero, with y = 1.

    Returns:
        (M,) margins, each the size of an entry of x.

    Raises:
        TypeError, ValueError: if the shapes do not fit, an entry of x or a layer is zero.
        RuntimeError: if a path has not come to a corner by the end of the integration.

    Source: PNAS 2020, Eqs 3, 6 and 7.
    """
    first = _on_spheres(W, x)

    def corner(_: float, flat: np.ndarray) -> float:
        products = np.abs(flat.reshape(first.shape).prod(axis=1))
        return float(products.max(axis=1).min()) - (1 - ARRIVED)

    corner.terminal = True  # type: ignore[attr-defined]
    solution = _ascend(first, x, HORIZON, events=corner)
    if solution.status != 1:
        raise RuntimeError(f"A path has not come to a corner: {solution.message}")
    ended = np.abs(solution.y[:, -1].reshape(first.shape).prod(axis=1)).argmax(axis=1)
    return x.abs()[torch.as_tensor(ended)]


def constrained_path(W: Tensor, x: Tensor, *, times: Tensor) -> Tensor:
    """Return the directions of one network along the path of dynamics A and B, (T, 3, d).

    Args:
        W: Weights of one network, (3, d); only their directions matter.
        x: The point, (d,), no entry zero, with y = 1.
        times: Ascending times of ``dV_k = B_k(V; x)``, (T,), the last one positive.

    Raises:
        TypeError, ValueError: as :func:`constrained_ends`.
    """
    first = _on_spheres(W[None], x)
    path = _ascend(first, x, float(times[-1]), t_eval=times.numpy())
    return torch.as_tensor(path.y.T.reshape(-1, *first.shape[1:]).copy())


def unconstrained_path(W: Tensor, x: Tensor, *, squares: Tensor) -> Tensor:
    """Return the weights of one network along the path of the unconstrained flow, (T, 3, d).

    A coordinate whose squares have grown by s still needs the time R_F(W_k[i]^2 + s) / x_i. All
    coordinates have spent the same time, which is solved for their s by bisection.

    Args:
        W: Weights of one network, (3, d), positive.
        x: The point, (d,), positive, with y = 1.
        squares: Growth s of the coordinate that arrives first, (T,), ascending, at least 0.

    Raises:
        TypeError, ValueError: if the shapes do not fit or an entry is not positive.

    Source: as :func:`escape_times`.

    >>> W = torch.ones(3, 2, dtype=torch.float64)
    >>> x = torch.tensor([1.0, 0.5], dtype=torch.float64)  # W = 1 / (1 - x tau)
    >>> unconstrained_path(W, x, squares=torch.tensor([3.0], dtype=torch.float64))[0, 0]
    tensor([2.0000, 1.3333], dtype=torch.float64)
    """
    if not bool((W > 0).all()) or not bool((x > 0).all()):
        raise ValueError("W and x must be positive.")
    ends = escape_times(W[None], x)[0]
    winner = int(ends.argmin())
    start = W.square()
    left = _remaining(start[:, winner], squares) / x[winner]
    grown = torch.empty(len(squares), W.shape[1], dtype=W.dtype)
    for i in range(W.shape[1]):
        goal = (left - ends[winner] + ends[i]) * x[i]  # R_F that coordinate i has left
        low, high = torch.zeros_like(goal), 2 * squares.max() + 2 * start.max() + 1 + 0 * goal
        for _ in range(100):
            middle = (low + high) / 2
            more = _remaining(start[:, i], middle) > goal
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        grown[:, i] = squares if i == winner else low
    return (start + grown[:, None, :]).sqrt()


def _remaining(start: Tensor, grown: Tensor) -> Tensor:
    from scipy.special import elliprf

    return torch.as_tensor(elliprf(*(start[:, None] + grown).numpy()))


def _on_spheres(W: Tensor, x: Tensor) -> np.ndarray:
    sizes = torch.linalg.vector_norm(_starts(W, x), dim=2, keepdim=True)
    if not bool((sizes > 0).all()):
        raise ValueError("W must have no layer that is zero.")
    return (W / sizes).numpy()


def _ascend(first: np.ndarray, x: Tensor, until: float, **options: Any) -> Any:
    """Follow dV_k = B_k(V; x) for all networks together, with SciPy's DOP853."""
    from scipy.integrate import solve_ivp

    point = x.numpy()

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        V = flat.reshape(first.shape)
        others = np.stack([V[:, 1] * V[:, 2], V[:, 0] * V[:, 2], V[:, 0] * V[:, 1]], axis=1)
        f = (point * V.prod(axis=1)).sum(axis=1)
        return (point * others - f[:, None, None] * V).ravel()

    return solve_ivp(
        velocity, (0.0, until), first.ravel(), "DOP853", rtol=1e-9, atol=1e-12, **options
    )


def _point(x: Tensor) -> Tensor:
    _checks.finite("x", x)
    if x.ndim != 1 or not bool((x != 0).all()):
        raise ValueError(f"x must have shape (d,) and no entry that is zero, got {x.tolist()}.")
    return x


def _starts(W: Tensor, x: Tensor) -> Tensor:
    d = len(_point(x))
    _checks.finite("W", W)
    if W.ndim != 3 or W.shape[1:] != (3, d):
        raise ValueError(f"W must have shape (M, 3, {d}), got {tuple(W.shape)}.")
    return W
