"""Margins, support vectors, and the conditions that hold where the flow ends (PNAS 2020, B.4).

Everything here is about one point of a path: given weights W and data, which samples carry the
margin, which combination of their gradients vanishes (PNAS Eqs 8 and 9), and how far W is from a
Karush-Kuhn-Tucker point of the margin problem (PNAS Eq. 12). For one linear layer the margin
problem is solved exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks, losses
from companion.dynamics.kkt import KKT, kkt_residual, support_vectors
from companion.dynamics.trajectory import equivalent_margin, margins_of
from companion.networks import Network, Params, directions, product_norm

__all__ = [
    "KKT",
    "LinearMaxMargin",
    "combination_norm",
    "equilibrium_weights",
    "kkt_residual",
    "least_norm",
    "max_margin",
    "minimum_norm",
    "nearest_combination",
    "normalized_margins",
    "smoothed_margin",
    "stationarity_terms",
    "support_vectors",
]


def normalized_margins(net: Network, params: Params, x: Tensor, y: Tensor) -> Tensor:
    """Return the margins ``y_n f(V; x_n)`` of the normalized network, shape (N,).

    They do not change when a layer is rescaled; the smallest is the (hard) normalized margin.

    Raises:
        TypeError, ValueError: for data or parameters that do not fit, or a layer that is zero.

    Source: PNAS 2020, section 3.B.4.
    """
    return margins_of(net, directions(params), x, y)


def smoothed_margin(
    net: Network, params: Params, x: Tensor, y: Tensor, *, loss: str = "exponential"
) -> float:
    """Return ``-log(sum_n exp(-y_n f(W; x_n))) / prod_k rho_k``, the smoothed normalized margin.

    For the logistic loss the numerator is the margin at which one sample alone would have the
    total loss. It lies below the hard margin, by at most log(N) / rho for the exponential loss
    and by a little more for the logistic one, and never falls along the gradient flow once it is
    positive. The proof is Lyu & Li's (2020, Thm 4.1), who divide by ||W||^K; dividing by the
    product of the layer norms instead makes each layer's inequality do its own work.

    Raises:
        TypeError, ValueError: as :func:`normalized_margins`, or if the loss is unknown.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> round(smoothed_margin(net, {"W1": 100 * points.x[2:]}, points.x, points.y), 4)
    0.9977
    """
    _checks.choice("loss", loss, losses.KINDS)
    margins = margins_of(net, params, x, y)
    rho = float(product_norm(params))
    if rho == 0:
        raise ValueError("params must have no layer that is zero, got prod_k rho_k = 0.")
    return equivalent_margin(-float(losses.log_loss(margins, loss)), loss) / rho


def stationarity_terms(net: Network, V: Params, x: Tensor, y: Tensor) -> Params:
    """Return ``B_k(V; x_n) = y_n (df(V; x_n)/dV_k - V_k f(V; x_n))`` for every sample.

    Args:
        net: Network with one output.
        V: Layers of unit Frobenius norm.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Returns:
        The B_k with a leading axis N: (N, h_k, h_{k-1}) for layer k.

    Raises:
        TypeError, ValueError: if the data do not fit or a layer does not have norm 1.

    Source: PNAS 2020, section 3.B.4, above Eq. 8.
    """
    margins_of(net, V, x, y)
    for name, V_k in V.items():
        size = float(torch.linalg.vector_norm(V_k))
        if abs(size - 1) > 1e3 * torch.finfo(V_k.dtype).eps:
            raise ValueError(f"V[{name!r}] must have norm 1, got {size!r}.")
    terms: Params = {name: V_k.new_empty((len(y), *V_k.shape)) for name, V_k in V.items()}
    for n in range(len(y)):
        f, pullback = net.vjp(V, x[n : n + 1])
        for name, gradient in pullback(y[n : n + 1]).items():
            terms[name][n] = gradient - V[name] * (y[n] * f[0])
    return terms


def equilibrium_weights(margins: Tensor, rho: float) -> Tensor:
    """Return ``alpha_n = exp(-rho (margin_n - min margin))``, the weights of PNAS Eq. 9.

    Args:
        margins: y_n f(V; x_n), shape (N,).
        rho: Product of the layer norms, R in PNAS Eq. 8.

    Returns:
        (N,), in [0, 1], equal to 1 at the support vector.

    Raises:
        TypeError, ValueError: if margins are not finite or rho is not positive.

    >>> equilibrium_weights(torch.tensor([1.0, 1.0, 2.0]), rho=1.0)
    tensor([1.0000, 1.0000, 0.3679])
    """
    _checks.finite("margins", margins)
    return torch.exp(-_checks.positive("rho", rho) * (margins - margins.min()))


def combination_norm(terms: Params, weights: Tensor) -> float:
    """Return ``||sum_n alpha_n B_n|| / sum_n alpha_n`` over all layers: zero at equilibrium.

    Args:
        terms: B_k with leading axis N, as :func:`stationarity_terms` returns.
        weights: alpha, (N,), not negative.

    Raises:
        TypeError, ValueError: if terms is empty, the weights are not (N,) finite floating-point
            numbers, one is negative, or all are zero.

    Source: PNAS 2020, Eqs 5, 8 and 9.
    """
    if not terms:
        raise ValueError("terms must hold at least one layer.")
    _checks.shape("weights", _checks.finite("weights", weights), (len(next(iter(terms.values()))),))
    if bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise ValueError("weights must be at least 0 and not all 0.")
    alpha = weights / weights.sum()
    return math.sqrt(
        sum(float((torch.tensordot(alpha, B, dims=1) ** 2).sum()) for B in terms.values())
    )


def nearest_combination(terms: Params) -> tuple[Tensor, float]:
    """Return the weights alpha >= 0 with sum 1 that make ``||sum_n alpha_n B_n||`` smallest.

    This is the test of stationarity with several support vectors: the minimum is zero exactly
    when 0 lies in the convex hull of the B_n. One support vector alone is the corner
    ``alpha = (1, 0, ..., 0)`` of PNAS Eq. 15.

    Returns:
        alpha (N,) and the norm it reaches.

    Raises:
        ValueError: if terms is empty.
    """
    if not terms:
        raise ValueError("terms must hold at least one layer.")
    columns = torch.cat([B.flatten(1) for B in terms.values()], dim=1).detach()  # (N, num_params)
    alpha = _nearest_point_in_hull(columns.cpu().double().numpy())
    point = torch.as_tensor(alpha, dtype=columns.dtype, device=columns.device)
    return point, float(torch.linalg.vector_norm(point @ columns))


@dataclass(frozen=True)
class LinearMaxMargin:
    """Solution of the margin problem for one linear layer, with a certificate.

    Attributes:
        direction: (d,) unit vector v with the largest min_n y_n v . x_n.
        margin: that margin gamma, in the units of x.
        dual: (N,) weights alpha >= 0 with sum 1; ``sum_n alpha_n y_n x_n = gamma v``.
        support: indices n with alpha_n > 0.
        gap: relative distance of the dual bound ||sum_n alpha_n y_n x_n|| from the margin that
            ``direction`` attains; the true maximum lies between the two.
    """

    direction: Tensor
    margin: float
    dual: Tensor
    support: Tensor
    gap: float


def max_margin(x: Tensor, y: Tensor) -> LinearMaxMargin:
    """Return the L2 maximum margin of the linear separators through the origin.

    The dual asks for the point of the convex hull of the y_n x_n nearest to the origin, and
    nonnegative least squares finds it in finitely many steps (Lawson & Hanson 1995, ch. 23). A
    last linear solve on the support removes its rounding. In float64 the margin is usually exact
    to a few units in the last place; where it is tiny beside the largest ||x_n||, the support found
    can be off by rounding, and ``gap``, which bounds the error, grows.

    Args:
        x: Points, (N, d). A bias is a constant coordinate of x, as in the paper.
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for data that do not fit, or that no such plane separates.

    Source: PNAS 2020, Eqs 11 and 12 with K = 1; Soudry et al. 2018 for the flow's limit.

    >>> x = torch.tensor([[1.0, 1.0], [1.0, -2.0], [3.0, 0.0]], dtype=torch.float64)
    >>> solution = max_margin(x, torch.ones(3, dtype=torch.float64))
    >>> solution.support.tolist(), round(solution.margin, 12)
    ([0, 1], 1.0)
    """
    _checks.dataset(x, y)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (N, d), got {tuple(x.shape)}.")
    rows = (y[:, None] * x).detach().cpu().double().numpy()
    alpha = _nearest_point_in_hull(rows)
    support = np.flatnonzero(alpha)
    # On the support all margins are equal: the shortest w with rows[support] w = 1.
    w = np.linalg.lstsq(rows[support], np.ones(len(support)), rcond=None)[0]
    size = np.linalg.norm(w)
    if size == 0 or (rows @ w).min() <= 0:
        raise ValueError(
            "x, y must be linearly separable through the origin, but 0 lies in the convex hull "
            "of the y_n x_n."
        )
    attained = float((rows @ w).min() / size)
    bound = float(np.linalg.norm(alpha @ rows))

    def like_x(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=x.dtype, device=x.device)

    return LinearMaxMargin(
        direction=like_x(w / size),
        margin=attained,
        dual=like_x(alpha),
        support=torch.as_tensor(support, device=x.device),
        gap=(bound - attained) / attained,
    )


def _nearest_point_in_hull(rows: np.ndarray) -> np.ndarray:
    """Weights of the point of the convex hull of the rows nearest to 0, by NNLS.

    Minimizing ``||rows' u||^2 + (1 - sum u)^2`` over u >= 0 gives ``u = c alpha``: for fixed
    alpha the best c leaves ``p / (1 + p)`` with p = ||rows' alpha||^2, which grows with p.
    """
    from scipy.optimize import nnls

    scale = np.linalg.norm(rows, axis=1).max()
    if scale == 0:
        return np.full(len(rows), 1 / len(rows))
    system = np.vstack([rows.T / scale, np.ones(len(rows))])
    target = np.zeros(len(system))
    target[-1] = 1.0
    u, _ = nnls(system, target, maxiter=30 * len(rows) + 300)
    return u / u.sum()


def minimum_norm(margin: float, *, K: int) -> float:  # noqa: N803 (the paper's letter)
    """Return ``(K/2) gamma^(-2/K)``, the minimum of PNAS Eq. 12 for a maximum margin gamma.

    With all layers in the objective, ``min (1/2) sum_k ||W_k||^2`` subject to margins of at least
    1 asks for prod_k rho_k >= 1/gamma; the arithmetic-geometric mean inequality makes equal norms
    rho_k = gamma^(-1/K) the cheapest way (Lemma 4).

    Args:
        margin: gamma of PNAS Eq. 11, positive.
        K: Number of layers.

    Raises:
        TypeError, ValueError: if margin is not positive or K not a positive integer.

    >>> minimum_norm(0.5, K=1)
    2.0
    """
    gamma = _checks.positive("margin", margin)
    K = _checks.integer("K", K, at_least=1)  # noqa: N806
    return K / 2 * gamma ** (-2 / K)


def least_norm(net: Network, params: Params, x: Tensor, y: Tensor) -> Params:
    """Solve PNAS Eq. 12, ``min (1/2) sum_k ||W_k||^2`` subject to ``y_n f(W; x_n) >= 1``.

    Sequential quadratic programming (SciPy's SLSQP) from weights that separate the data. The
    problem is convex for K = 1 only; for deeper networks this is a local solution, one that
    depends on the start. Meant for small networks.

    Args:
        net: Network with one output and at most 300 weights.
        params: Weights to start from; they are rescaled to a smallest margin of 1.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Returns:
        Weights with all margins at least 1 (to SLSQP's accuracy, about 1e-8).

    Raises:
        ValueError: if the network is too large, the start does not separate, or the solver fails.
    """
    from scipy.optimize import minimize

    if net.num_params > 300:
        raise ValueError(f"net must have at most 300 weights, got {net.num_params}.")
    params, x, y = {name: W.detach() for name, W in params.items()}, x.detach(), y.detach()
    smallest = float(margins_of(net, params, x, y).min())
    if smallest <= 0:
        raise ValueError(f"params must separate the data, got a smallest margin of {smallest}.")
    sizes = [W.numel() for W in params.values()]

    def unflatten(flat: np.ndarray) -> Params:
        parts = torch.as_tensor(flat, dtype=x.dtype, device=x.device).split(sizes)
        return {k: p.view_as(W) for (k, W), p in zip(params.items(), parts, strict=True)}

    def slack(flat: np.ndarray) -> np.ndarray:
        return (y * net(unflatten(flat), x) - 1).cpu().double().numpy()

    def jacobian(flat: np.ndarray) -> np.ndarray:
        rows = torch.func.jacrev(lambda W: y * net(W, x))(unflatten(flat))
        return torch.cat([r.flatten(1) for r in rows.values()], dim=1).cpu().double().numpy()

    start = torch.cat([(smallest ** (-1 / net.K) * W).flatten() for W in params.values()])
    found = minimize(
        lambda w: 0.5 * float(w @ w),
        start.cpu().double().numpy(),
        jac=lambda w: w,
        constraints={"type": "ineq", "fun": slack, "jac": jacobian},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    if slack(found.x).min() < -1e-6:
        raise ValueError(f"params must lead to a solution, but SLSQP stopped: {found.message}.")
    return unflatten(found.x)
