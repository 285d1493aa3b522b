r"""How fast the norms, the direction and the margin move along the flow (PNAS 2020, claim 4.6).

Write l for minus the log of the sum of the losses. Where the direction has arrived at margin gamma
and the K layers are balanced, ``d rho/dt = (1/N) K rho^{2 - 2/K} gamma e^{-l}``, and so

    ``dl/dt = (1/N) K gamma^{2/K} l^{2 - 2/K} e^{-l}``  to leading order.

This is one equation in one unknown, its solution a quadrature. With N = 1 and scalar layers
(:class:`companion.networks.Diagonal` with d = 1) it is the flow itself: the exact reference for
the integrators. With several support vectors ``gamma rho - l`` tends to the entropy of their dual
weights, because ``-log sum exp(-m) = sum p m + sum p log p`` for the softmax p of the -m.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.networks import Network, Params

__all__ = [
    "aligned_start",
    "chain_log_time",
    "dual_entropy",
    "fitted_slope",
    "iterated_log_slope",
    "margin_constant",
    "predicted_margin",
]


def iterated_log_slope(num_layers: int) -> float:
    """Return ``2 - 2/K``, the coefficient of log log t in gamma rho.

    Raises:
        TypeError, ValueError: if num_layers is not a positive integer.

    >>> [round(iterated_log_slope(K), 3) for K in (1, 2, 3, 4)]
    [0.0, 1.0, 1.333, 1.5]
    """
    return 2 - 2 / _checks.integer("num_layers", num_layers, at_least=1)


def dual_entropy(weights: Tensor) -> float:
    """Return ``-sum_n alpha_n log alpha_n``, the limit of gamma rho - l.

    Args:
        weights: alpha (N,), at least 0, with sum 1: the dual weights of the limit direction.

    Raises:
        TypeError, ValueError: if they are not.

    >>> round(dual_entropy(torch.tensor([0.5, 0.5, 0.0])), 4)  # log 2
    0.6931
    """
    _checks.finite("weights", weights)
    if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-6:
        raise ValueError(f"weights must be at least 0 with sum 1, got {weights.tolist()}.")
    return float(torch.special.entr(weights.double()).sum())


def margin_constant(
    num_layers: int, gamma: float, *, num_points: int = 1, weights: Tensor | None = None
) -> float:
    """Return the limit of ``gamma rho - log t - (2 - 2/K) log log t``.

    It is ``log(K gamma^{2/K} / N) + H(alpha)`` for K balanced and aligned layers.

    Args:
        num_layers: K.
        gamma: Limiting normalized margin, in the units of f(V; x).
        num_points: N, which enters because L is a mean and t is its time.
        weights: Dual weights alpha (N,); one support vector if left out.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Source: derived here; Soudry et al. 2018 (K = 1) and Lyu & Li 2020 give the orders.

    >>> round(margin_constant(2, 1.0), 4)
    0.6931
    """
    K = _checks.integer("num_layers", num_layers, at_least=1)
    N = _checks.integer("num_points", num_points, at_least=1)
    entropy = 0.0 if weights is None else dual_entropy(weights)
    return math.log(K / N) + 2 / K * math.log(_checks.positive("gamma", gamma)) + entropy


def predicted_margin(
    log_time: np.ndarray | float, num_layers: int, constant: float = 0.0, *, order: int = 2
) -> np.ndarray:
    """Return gamma rho at late times, by its expansion in L = log t.

    ``L``, then ``beta log L + constant``, then ``beta (beta log L + constant - 1) / L``, with
    ``beta = 2 - 2/K``; what is left out is of order (log L)^2 / L^2.

    Args:
        log_time: L > 0, any shape.
        num_layers: K.
        constant: As :func:`margin_constant` returns, for one support vector.
        order: Corrections kept: 0, 1 or 2.

    Raises:
        TypeError, ValueError: if log_time is not positive, or order is none of these.

    >>> round(float(predicted_margin(100.0, 1)), 3)
    100.0
    """
    L = np.asarray(log_time, dtype=np.float64)
    if not (L > 0).all():
        raise ValueError(f"log_time must be greater than 0, got {L.min()}.")
    if order not in (0, 1, 2):
        raise ValueError(f"order must be one of 0, 1, 2, got {order!r}.")
    beta = iterated_log_slope(num_layers)
    shift = beta * np.log(L) + constant
    return L + (order >= 1) * shift + (order == 2) * beta * (shift - 1) / L


def chain_log_time(
    margin: float, num_layers: int, *, start: float, gamma: float = 1.0, num_points: int = 1
) -> float:
    """Return log t at which K balanced scalar layers reach gamma rho = margin.

    ``t = N / (K gamma^{2/K}) int_start^margin e^m m^{-(2 - 2/K)} dm``, by adaptive quadrature of
    the integrand over its last value, so that no margin is too large.

    Args:
        margin: gamma rho at the end, above start.
        num_layers: K.
        start: gamma rho at t = 0, positive.
        gamma: f(V; x).
        num_points: N equal points.

    Raises:
        TypeError, ValueError: for arguments out of range.

    Source: PNAS 2020, Eq. 6 with all factors equal.

    >>> t = math.expm1(1) * math.e  # K = 1: t = e^2 - e
    >>> math.isclose(chain_log_time(2.0, 1, start=1.0), math.log(t), rel_tol=1e-12)
    True
    """
    from scipy.integrate import quad

    first, last = _checks.positive("start", start), _checks.positive("margin", margin)
    if last <= first:
        raise ValueError(f"margin must be greater than start = {first}, got {last}.")
    beta, length = iterated_log_slope(num_layers), last - first
    edges = [0.0, *(edge for edge in (1.0, 5.0, 20.0, 60.0, 200.0) if edge < length), length]
    total = sum(
        quad(lambda u: math.exp(-u) * (1 - u / last) ** -beta, a, b, epsabs=0.0, epsrel=1e-13)[0]
        for a, b in zip(edges[:-1], edges[1:], strict=True)
        if a < 200.0  # e^{-200} times what remains is far below rounding
    )
    constant = margin_constant(num_layers, gamma, num_points=num_points)
    return last - beta * math.log(last) - constant + math.log(total)


def fitted_slope(
    abscissa: np.ndarray, values: np.ndarray, *, window: tuple[float, float], num: int = 200
) -> float:
    """Return the least-squares slope of values over a window of the abscissa.

    The values are interpolated at equidistant points first: the records of an adaptive integrator
    are not, and would weigh the fit.

    Args:
        abscissa: Increasing, (T,), such as log log t.
        values: (T,).
        window: First and last abscissa, inside the record.
        num: Number of points.

    Raises:
        ValueError: if the window is not inside the record, or the abscissa does not increase.

    >>> x = np.linspace(0, 1, 9) ** 2
    >>> round(fitted_slope(x, 3 * x + 1, window=(0.1, 0.9)), 12)
    3.0
    """
    x, v = np.asarray(abscissa, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != v.shape or not (np.diff(x) >= 0).all():
        raise ValueError(f"abscissa must increase, as long as values, got {x.shape}, {v.shape}.")
    if not x[0] <= window[0] < window[1] <= x[-1] * (1 + 1e-12):
        raise ValueError(f"window must lie in [{x[0]:.6g}, {x[-1]:.6g}], got {window}.")
    grid = np.linspace(*window, num)
    return float(np.polyfit(grid - grid.mean(), np.interp(grid, x, v), 1)[0])


def aligned_start(net: Network, direction: Tensor, *, rho_k: float = 1.0) -> Params:
    """Return weights of a deep linear network with ``W_{k+1}' W_{k+1} = W_k W_k'`` for all k.

    Every layer is ``rho_k u_k u_{k-1}'`` with unit vectors u_k, u_0 along ``direction`` and u_k
    the first unit vector of its space. The flow keeps such layers balanced and of rank one.

    Args:
        net: Network whose layers are matrices (h_k, h_{k-1}), with one output.
        direction: (d,), not zero.
        rho_k: Norm of every layer.

    Raises:
        TypeError, ValueError: if direction is not of shape (d,) or zero, or rho_k not positive.

    Source: Du, Hu & Lee 2018 (the flow conserves the difference of the two sides).

    >>> from companion.networks import MLP
    >>> W = aligned_start(MLP(widths=(2, 3, 1), activation="linear"), torch.tensor([3.0, 4.0]))
    >>> bool(torch.allclose(W["W2"].T @ W["W2"], W["W1"] @ W["W1"].T))
    True
    """
    _checks.finite("direction", direction)
    size, weights = _checks.positive("rho_k", rho_k), {}
    _checks.shape("direction", direction, (net.shapes["W1"][1],))
    if not bool(direction.any()):
        raise ValueError("direction must not be zero.")
    right = direction / torch.linalg.vector_norm(direction)
    for name, (rows, _) in net.shapes.items():
        left = torch.eye(rows, dtype=direction.dtype, device=direction.device)[0]
        weights[name] = size * torch.outer(left, right)
        right = left
    return weights
