"""The constrained problem: its Lagrangian, its rest points, its Hessian on the spheres.

Dynamics A of the paper minimizes ``L = (1/N) sum_n exp(-rho y_n f(V; x_n))`` at fixed rho over
directions with ``|V_k| = 1`` (PNAS 2020, section 3.B.1 and B.2, Eqs 2 to 5). The systems themselves
are in :mod:`companion.dynamics.systems`, their integrators in :mod:`companion.dynamics.flow` and
:mod:`companion.dynamics.stiff`; here is what is asked about a point, and about where they end.

Sums over samples use the weights ``p_n = exp(-rho y_n f(V; x_n)) / sum_m exp(-rho y_m f(V; x_m))``,
which do not underflow. The paper's sums are exp(-l) / N times ours, l = -log sum_n of the losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks, losses
from companion.dynamics.stiff import stiff_flow
from companion.dynamics.systems import System
from companion.dynamics.trajectory import LogNorm, Rest, margins_of
from companion.networks import Network, Params, compose, directions, layer_norms

__all__ = [
    "NormPath",
    "Sides",
    "angle",
    "equal_norms",
    "crossings",
    "follow_norms",
    "lagrangian",
    "multiplier",
    "rest_point",
    "rest_residual",
    "sides_of_eq_4",
    "sphere_hessian",
]

SPHERE = 1e-9  # |V_k| may differ from 1 by this much where a formula needs unit layers
NEAR_REST = 1e-5  # residual at which Newton takes over from the flow, deep in the basin
NEWTON = 8  # steps; each squares the residual, so three are enough for a point of rest
FLAT = 1e-5  # eigenvalues below this part of the largest count as flat: NEAR_REST leaves them less


def lagrangian(
    net: Network, rho: float, V: Params, multipliers: Tensor, x: Tensor, y: Tensor
) -> Tensor:
    """Return ``(1/N) sum_n exp(-rho y_n f(V; x_n)) + sum_k lambda_k (|V_k|^2 - 1)``.

    Can be differentiated in V; the paper leaves out the constant ``-sum_k lambda_k``.

    Args:
        net: Network with one output.
        rho: Product of the layer norms, positive.
        V: Directions, one network; of any norm.
        multipliers: lambda_k, (K,), in units of the loss.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: PNAS 2020, Eq. 2.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> V, zero = {"W1": points.direction[None]}, torch.zeros(1, dtype=torch.float64)
    >>> round(lagrangian(net, 1.0, V, zero, points.x, points.y).item(), 4)
    0.2618
    """
    _checks.positive("rho", rho)
    _checks.shape("multipliers", _checks.finite("multipliers", multipliers), (net.K,))
    _checks.dataset(x, y)
    loss = losses.log_loss(rho * y * net(V, x), reduction="mean").exp()
    excess = torch.stack([(V_k**2).sum() - 1 for V_k in V.values()])
    return loss + (multipliers * excess).sum()


def multiplier(net: Network, rho: float, V: Params, x: Tensor, y: Tensor) -> float:
    """Return ``lambda_k = (rho / 2) (1/N) sum_n exp(-rho y_n f(V; x_n)) y_n f(V; x_n)``.

    It is the same for all layers. Arguments and errors as for :func:`lagrangian`. Underflows to
    zero where the loss does, at rho times the smallest margin near 745.

    Source: PNAS 2020, section 3.B.2, below Eq. 3.
    """
    margins = _margins(net, rho, V, x, y)
    return 0.5 * rho * float((torch.exp(-rho * margins) * margins).mean())


@dataclass(frozen=True, eq=False)
class Sides:
    """The two sides of Eq. 4, per layer, with the weights p_n in place of the exponentials."""

    left: Params
    right: Params


def sides_of_eq_4(net: Network, rho: float, V: Params, x: Tensor, y: Tensor) -> Sides:
    """Return ``sum_n p_n y_n df(V; x_n)/dV_k`` and ``V_k sum_n p_n y_n f(V; x_n)`` for each layer.

    Equal exactly where dynamics A is at rest. The left side is a sum of gradients, the right one
    uses only values: neither is computed from the other. Arguments and errors as for
    :func:`lagrangian`, without multipliers; the layers must have norm 1.

    Source: PNAS 2020, Eqs 4 and 5.
    """
    _check_spheres(V)
    margins = _margins(net, rho, V, x, y)
    p = losses.example_weights(rho * margins)
    _, pullback = net.vjp(V, x)
    mean = (p * margins).sum()
    return Sides(pullback(p * y), {name: mean * V_k for name, V_k in V.items()})


def rest_residual(net: Network, rho: float, V: Params, x: Tensor, y: Tensor) -> float:
    """Return ``||sum_n p_n B_n(V)||`` over all layers, the distance between the sides of Eq. 4.

    In units of the normalized margins. Arguments and errors as for :func:`sides_of_eq_4`.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> V = rest_point(net, 10.0, net.init(seed=0), points.x, points.y)
    >>> rest_residual(net, 10.0, V, points.x, points.y) < 1e-10
    True
    """
    sides = sides_of_eq_4(net, rho, V, x, y)
    gaps = [sides.left[name] - sides.right[name] for name in V]
    return math.sqrt(sum(float((gap**2).sum()) for gap in gaps))


def rest_point(
    net: Network, rho: float, start: Params, x: Tensor, y: Tensor, *, tol: float = 1e-12
) -> Params:
    """Return the directions at which dynamics A, at this rho, comes to rest from ``start``.

    The stiff solver follows the flow from the directions of ``start`` until the residual of Eq. 4
    is small; Newton steps on the spheres, across the directions in which the loss is flat, then
    finish what the flow approaches exponentially.

    Args:
        net: Network with one output and without kinks (linear or diagonal).
        rho: The product of the layer norms that is held fixed, positive.
        start: Weights; only their directions matter.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        tol: Largest residual ``||sum_n p_n B_n||``, in the units of the margins.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or an activation with kinks.
        RuntimeError: if the residual stays above ``tol``.

    Source: PNAS 2020, Eqs 3 and 4.
    """
    _checks.positive("tol", tol)
    weights = compose(equal_norms(net, rho), directions(start))
    path = stiff_flow(net, weights, x, y, until=Rest(NEAR_REST), system="fixed_norm", rtol=1e-7)
    V = directions(path.params)
    for _ in range(NEWTON):
        if (residual := rest_residual(net, rho, V, x, y)) <= tol:
            return V
        V = _newton(net, rho, V, x, y)
    raise RuntimeError(f"Dynamics A stopped at a residual of {residual:.2g}, above tol={tol}.")


def crossings(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    radii: Sequence[float],
    *,
    system: str | System,
    rtol: float = 1e-9,
) -> list[Params]:
    """Return the weights at which a system's path passes ``prod_k rho_k = R``, for each R.

    Args:
        net: Network with one output and without kinks (linear or diagonal).
        params: Weights to start from, with a product of norms below the first R.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        radii: The values R, ascending.
        system: A system whose norms grow, as for
            :func:`companion.dynamics.stiff.stiff_flow`.
        rtol: Relative tolerance of the solver.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        RuntimeError: if the solver fails.

    Source: PNAS 2020, text before Lemma 2 ("there exists T such that rho(T) = R").

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> start = net.init(seed=0)
    >>> (W,) = crossings(net, start, points.x, points.y, [5.0], system="multipliers")
    >>> round(W["W1"].norm().item(), 9)
    5.0
    """
    sizes = [float(layer_norms(params).prod()), *(_checks.positive("radii", R) for R in radii)]
    if sorted(set(sizes)) != sizes or len(sizes) < 2:
        raise ValueError(
            f"radii must ascend from above the product of norms at the start, {sizes[0]:.6g}, "
            f"got {list(radii)}."
        )
    found = []
    for R in sizes[1:]:  # the systems do not depend on time: each piece starts where one ended
        until = LogNorm(math.log(R))
        params = stiff_flow(net, params, x, y, until=until, system=system, rtol=rtol).params
        found.append(params)
    return found


def sphere_hessian(net: Network, rho: float, V: Params, x: Tensor, y: Tensor) -> Tensor:
    """Return the Hessian of log L on the product of the unit spheres, in an orthonormal basis.

    ``Q' (H - diag_k(<V_k, g_k>)) Q`` with g and H the gradient and Hessian of
    ``log sum_n exp(-rho y_n f(V; x_n))`` in all weights and Q a basis of the directions tangent to
    the spheres: the second derivatives along great circles. At a point of rest it is the Hessian of
    L divided by L.

    Returns:
        Symmetric, (P - K, P - K), P the number of weights; at a kink of a ReLU, of the piece that
        autograd takes.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or layers whose norm is not 1.

    Source: Absil, Mahony & Sepulchre 2008, section 5.5 (submanifolds of Euclidean space).
    """
    return _second_order(net, rho, V, x, y)[1]


@dataclass(frozen=True, eq=False)
class NormPath:
    """Eq. 3 followed from layers that need not have norm 1, at T records.

    Attributes:
        tau: (T,) time, with ``dt = N exp(l) dtau``.
        norms: (T, K) the norms |V_k|.
        pull: (T,) ``sum_n p_n y_n f(V; x_n)``; the spheres attract while it is positive.
    """

    tau: Tensor
    norms: Tensor
    pull: Tensor


def follow_norms(
    net: Network, rho: float, V: Params, x: Tensor, y: Tensor, *, until: float, records: int = 61
) -> NormPath:
    """Integrate Eq. 3 as it is printed, from layers of any norm, and watch the norms.

    ``dV_k/dtau = rho sum_n p_n y_n (df(V; x_n)/dV_k - V_k f(V; x_n))``. By the structural lemma
    ``d|V_k|^2/dtau = 2 rho (1 - |V_k|^2) sum_n p_n y_n f(V; x_n)``.

    Args:
        net: Network with one output.
        rho: The fixed rho, positive.
        V: Layers to start from, of any positive norm.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        until: Last tau, positive.
        records: Number of records T, at least 2, evenly spaced in tau.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        RuntimeError: if the solution leaves every bound before ``until``.

    Source: PNAS 2020, Eq. 3.
    """
    from scipy.integrate import solve_ivp

    _margins(net, rho, V, x, y)
    _checks.integer("records", records, at_least=2)

    def pull(z: np.ndarray) -> tuple[Params, Tensor, Params]:
        at = _layers(torch.as_tensor(z).to(x), V)
        f, pullback = net.vjp(at, x)
        p = losses.example_weights(rho * y * f)
        return at, (p * y * f).sum(), pullback(p * y)

    def velocity(_: float, z: np.ndarray) -> np.ndarray:
        at, radial, gradient = pull(z)
        moves = [rho * (gradient[name] - radial * at[name]) for name in at]
        return torch.cat([move.flatten() for move in moves]).numpy()

    tau = np.linspace(0.0, _checks.positive("until", until), records)
    found = solve_ivp(
        velocity, (0.0, tau[-1]), _flat(V).numpy(), "LSODA", tau, rtol=1e-10, atol=1e-12
    )
    if found.status != 0:
        raise RuntimeError(f"Eq. 3 could not be followed to tau = {until}: {found.message}")
    along = [pull(z)[:2] for z in found.y.T]
    return NormPath(
        torch.as_tensor(tau),
        torch.stack([layer_norms(at) for at, _ in along]),
        torch.stack([radial for _, radial in along]),
    )


def angle(A: Params, B: Params) -> float:
    """Return the angle between two sets of directions, in radians.

    All layers form one vector. Accurate also for tiny angles (Kahan's formula).

    Raises:
        ValueError: if the layers differ in their names or shapes, or one of them is zero.

    >>> one = {"W1": torch.tensor([[1.0, 0.0]])}
    >>> round(angle(one, {"W1": torch.tensor([[3.0, 3.0]])}), 6)
    0.785398
    """
    if {n: W.shape for n, W in A.items()} != {n: W.shape for n, W in B.items()}:
        raise ValueError("B must have the layers of A, with the same names and shapes.")
    a, b = _flat(directions(A)), _flat(directions(B))
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))


def equal_norms(net: Network, rho: float) -> Tensor:
    """Return K equal layer norms whose product is rho, (K,) in float64.

    >>> from companion import networks
    >>> equal_norms(networks.MLP(widths=(2, 3, 1)), 9.0)
    tensor([3., 3.], dtype=torch.float64)
    """
    each = _checks.positive("rho", rho) ** (1 / net.K)
    return torch.full((net.K,), each, dtype=torch.float64)


def _margins(net: Network, rho: float, V: Params, x: Tensor, y: Tensor) -> Tensor:
    """Check the arguments and return y_n f(V; x_n), (N,)."""
    _checks.positive("rho", rho)
    for name, V_k in V.items():
        _checks.finite(f"V[{name!r}]", V_k)
    return margins_of(net, V, x, y).detach()


def _check_spheres(V: Params) -> None:
    for name, V_k in V.items():
        size = float(torch.linalg.vector_norm(V_k))
        if not abs(size - 1) <= SPHERE:
            raise ValueError(f"V[{name!r}] must have norm 1, got {size!r}.")


def _tangent_basis(v: Tensor) -> Tensor:
    """Orthonormal columns (n, n - 1) orthogonal to the unit vector v (n,)."""
    return torch.linalg.qr(v[:, None], mode="complete").Q[:, 1:]


def _second_order(
    net: Network, rho: float, V: Params, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient and Hessian of log L on the spheres, and the basis of tangents they refer to."""
    _check_spheres(V)
    _margins(net, rho, V, x, y)
    flat, sizes = _flat(V), [V_k.numel() for V_k in V.values()]

    def log_loss(z: Tensor) -> Tensor:
        return torch.logsumexp(-rho * y * net(_layers(z, V), x), dim=0)

    gradient = torch.func.grad(log_loss)(flat)
    hessian = torch.func.hessian(log_loss)(flat)
    radial = [(a * g).sum() for a, g in zip(flat.split(sizes), gradient.split(sizes), strict=True)]
    curvature = torch.cat([r.expand(n) for r, n in zip(radial, sizes, strict=True)])
    basis = torch.block_diag(*[_tangent_basis(piece) for piece in flat.split(sizes)])
    found = basis.T @ (hessian - torch.diag(curvature)) @ basis
    return basis.T @ gradient, 0.5 * (found + found.T), basis


def _newton(net: Network, rho: float, V: Params, x: Tensor, y: Tensor) -> Params:
    """One Newton step towards rest, none along directions in which the loss is flat."""
    gradient, hessian, basis = _second_order(net, rho, V, x, y)
    step = torch.linalg.pinv(hessian, rtol=FLAT, hermitian=True) @ gradient
    return directions(_layers(_flat(V) - basis @ step, V))


def _flat(V: Params) -> Tensor:
    return torch.cat([V_k.detach().flatten() for V_k in V.values()])


def _layers(z: Tensor, like: Params) -> Params:
    """The vector z cut into layers of the shapes of ``like``."""
    pieces = z.split([V_k.numel() for V_k in like.values()])
    return {n: part.view(V_k.shape) for (n, V_k), part in zip(like.items(), pieces, strict=True)}
