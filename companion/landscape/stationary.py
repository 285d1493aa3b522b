"""Stationary points of exponential-type losses, and the curvature on the way to zero loss.

A network that is homogeneous of degree one in each layer satisfies ``<W_k, df/dW_k> = f`` (Euler).
Paired with W_k, the gradient of the loss is therefore known from the margins alone, and so is the
Hessian between the directions V_j and V_k, which is the Hessian of the loss in the layer norms.
Both give bounds that need no derivative of the network. All losses here are means over the samples;
results are scaled as in :mod:`companion.landscape.hessian`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy
import torch
from scipy.optimize import brentq
from torch import Tensor

from companion import _checks, losses
from companion.landscape.hessian import Curvature, jacobian, of_function
from companion.networks import MLP, Network, Params, directions, layer_norms

__all__ = [
    "CurvatureBounds",
    "RadialPart",
    "curvature_bounds",
    "intersect_ideals",
    "norm_hessian",
    "radial_part",
    "slide_hessian",
    "to_log_loss",
]


@dataclass(frozen=True, eq=False)
class RadialPart:
    """The gradient of the loss and its part along the weights; ``exp(log_scale)`` times these.

    By Euler ``-<W_k, grad_k L> = (1/N) sum_n m_n (-l'(m_n))``, the same for every layer, and by
    Cauchy-Schwarz no entry of ``norms`` is smaller than ``|radial|``; where they are equal the
    gradient in W_k is parallel to W_k.

    Args:
        norms: ``rho_k ||grad_k L||``, (K,).
        radial: ``-<W_k, grad_k L>``; positive where all margins are.
        log_scale: log L, with L the mean of the losses.
    """

    norms: Tensor
    radial: float
    log_scale: float


def radial_part(
    net: Network, params: Params, x: Tensor, y: Tensor, *, loss: str = "exponential"
) -> RadialPart:
    """Return ``rho_k ||grad_k L||`` for every layer, and what bounds it from below.

    Args:
        net: Network with one output, homogeneous of degree one in each layer.
        params: Weights of one network; layers may be zero.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        loss: "exponential" or "logistic".

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: PNAS 2020, section 3.C.1 ("do not have zeros of the gradient that separate the data").

    >>> from companion import data
    >>> points, net = data.three_points(), MLP(widths=(2, 1))
    >>> found = radial_part(net, {"W1": points.direction[None]}, points.x, points.y)
    >>> bool(found.norms[0] >= found.radial > 0)
    True
    """
    margins = _margins(net, params, x, y)
    q = losses.example_weights(margins, loss)
    _, pullback = net.vjp(params, x)
    gradients = pullback(q * y)  # of -log L
    return RadialPart(
        layer_norms(params) * layer_norms(gradients),
        float((q * margins).sum()),
        float(losses.log_loss(margins, loss, reduction="mean")),
    )


def to_log_loss(net: Network, params: Params, x: Tensor, y: Tensor, log_loss: float) -> Params:
    """Return the point cW, c > 0, of the ray through W where the mean exponential loss is given.

    Args:
        net: Network with one output, homogeneous of degree one in each of its K layers.
        params: Weights that separate the data.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        log_loss: ``log (1/N) sum_n exp(-c^K m_n)``, below 0.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or weights that do not separate.

    >>> from companion import data
    >>> points, net = data.three_points(), MLP(widths=(2, 1))
    >>> W = to_log_loss(net, {"W1": points.direction[None]}, points.x, points.y, -1000.0)
    >>> round(losses.log_loss(points.y * net(W, points.x), reduction="mean").item(), 9)
    -1000.0
    """
    margins = _margins(net, params, x, y)
    smallest = float(margins.min())
    if smallest <= 0:
        raise ValueError(f"params must separate the data, got a smallest margin of {smallest:.3g}.")
    level = _checks.positive("-log_loss", -log_loss)

    def excess(t: float) -> float:  # t = c^K multiplies every margin
        return -float(losses.log_loss(t * margins, reduction="mean")) - level

    # t min m <= -log L <= t min m + log N, with room for rounding
    low = (1 - 1e-9) * max(0.0, level - math.log(len(y))) / smallest
    high = (1 + 1e-9) * level / smallest
    t = brentq(excess, low, high, xtol=1e-300, rtol=1e-15)
    return {name: t ** (1 / net.K) * W for name, W in params.items()}


def norm_hessian(net: Network, params: Params, x: Tensor, y: Tensor) -> Curvature:
    """Return the Hessian of the exponential loss in the layer norms rho_k at fixed directions.

    With ``M_i = (1/N) sum_n m_n^i exp(-m_n)`` its entries are ``M_2 / rho_k^2`` on the diagonal and
    ``(M_2 - M_1) / (rho_j rho_k)`` off it. They are ``<V_j, H V_k>`` with the full Hessian H, so
    by Cauchy's interlacing the largest eigenvalue of H is at least the largest here, and H has at
    least as many positive (negative) eigenvalues.

    Args:
        net: Network with one output, homogeneous of degree one in each layer.
        params: Weights of one network, no layer zero.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Returns:
        (K, K), times exp(log_scale).

    Raises:
        TypeError, ValueError: for arguments that do not fit, or a layer that is zero.

    Source: PNAS 2020, section 3.C.1 ("has at least some positive eigenvalues").

    >>> net = MLP(widths=(1, 1, 1))  # one sample with margin 2
    >>> W = {"W1": torch.tensor([[1.0]]), "W2": torch.tensor([[2.0]])}
    >>> norm_hessian(net, W, torch.ones(1, 1), torch.ones(1)).matrix
    tensor([[4., 1.],
            [1., 1.]])
    """
    margins = _margins(net, params, x, y)
    directions(params)  # refuses a layer that is zero
    rho = layer_norms(params)
    p = losses.example_weights(margins)
    first, second = (p * margins).sum(), (p * margins**2).sum()
    entries = (second - first).expand(net.K, net.K) + first * torch.eye(net.K).to(rho)
    log_scale = float(losses.log_loss(margins, reduction="mean"))
    return Curvature(entries / torch.outer(rho, rho), log_scale)


@dataclass(frozen=True, eq=False)
class CurvatureBounds:
    """What margins and norms say of the Hessian H; ``exp(log_scale)`` times these.

    ``max(per_layer) <= lower <= lambda_max(H) <= ||H|| <= upper``.

    Args:
        per_layer: ``M_2 / rho_k^2``, (K,): second derivatives along V_k.
        lower: Largest eigenvalue of :func:`norm_hessian`.
        upper: Bound on the absolute value of every eigenvalue.
        log_scale: log L, with L the mean of the losses.
    """

    per_layer: Tensor
    lower: float
    upper: float
    log_scale: float


def curvature_bounds(net: MLP, params: Params, x: Tensor, y: Tensor) -> CurvatureBounds:
    """Return bounds on the largest eigenvalue of the Hessian of the mean exponential loss.

    With s_k the spectral norm of W_k, ``||df/dW_k|| <= |x| prod_{j != k} s_j``, and the second
    derivative along A_j and A_k is at most ``|x| |A_j| |A_k| prod_{i != j, k} s_i``; the upper
    bound is the mean of ``exp(-m_n)`` times the sum of both.

    Args:
        net: MLP with one output.
        params: Weights of one network, no layer zero.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).

    Raises:
        TypeError, ValueError: for arguments that do not fit, another kind of network, or a layer
            that is zero.

    Source: PNAS 2020, section 3.C.1.

    >>> from companion import data
    >>> from companion.landscape import hessian
    >>> points, net = data.three_points(), MLP(widths=(2, 3, 1))
    >>> W = net.init(seed=0)
    >>> bounds = curvature_bounds(net, W, points.x, points.y)
    >>> top = hessian.spectrum(net, W, points.x, points.y).eigenvalues[-1]
    >>> bool(bounds.lower <= top <= bounds.upper)
    True
    """
    if not isinstance(net, MLP):
        raise TypeError(f"net must be an MLP, got {type(net).__name__}.")
    restricted = norm_hessian(net, params, x, y)
    p = losses.example_weights(_margins(net, params, x, y))
    size = torch.linalg.vector_norm(x, dim=1)
    s = torch.stack([torch.linalg.matrix_norm(W, 2) for W in params.values()])
    first = torch.stack([_product_without(s, k) for k in range(net.K)])
    second = torch.zeros_like(restricted.matrix)
    for j in range(net.K):
        for k in range(j):
            second[j, k] = second[k, j] = _product_without(s, j, k)
    upper = (p * size**2).sum() * (first**2).sum()
    upper = upper + (p * size).sum() * torch.linalg.matrix_norm(second, 2)
    return CurvatureBounds(
        restricted.matrix.diagonal(),
        float(torch.linalg.eigvalsh(restricted.matrix)[-1]),
        float(upper),
        restricted.log_scale,
    )


def slide_hessian(
    net: Network, params: Params, x: Tensor, y: Tensor, *, labelled: bool = False
) -> Curvature:
    """Return the slide's ``sum_n exp(-y_n f_n) (-df_n df_n^T + d^2 f_n)``, without ``-lambda I``.

    Args:
        net: Network with one output.
        params: Weights of one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        labelled: Put the y_n before the second derivative that the slide lacks. The result is then
            minus the Hessian of ``sum_n exp(-y_n f_n)``, the linearization of its gradient flow.

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: Poggio, Theory of Deep Learning (slides), exponential loss with Halpern term.

    >>> net, one = MLP(widths=(1, 1, 1)), torch.ones(1, 1)
    >>> W = {"W1": one, "W2": one}
    >>> slide_hessian(net, W, one, -one[0]).matrix
    tensor([[-1.,  0.],
            [ 0., -1.]])
    >>> slide_hessian(net, W, one, -one[0], labelled=True).matrix
    tensor([[-1., -2.],
            [-2., -1.]])
    """
    margins = _margins(net, params, x, y)
    p = losses.example_weights(margins)
    J = jacobian(net, params, x)
    weights = p * y if labelled else p
    second = of_function(lambda at: (weights * net(at, x)).sum(), params).matrix
    return Curvature(second - J.T @ (p[:, None] * J), float(losses.log_loss(margins)))


def intersect_ideals(
    ideals: Sequence[Sequence[sympy.Expr]], gens: Sequence[sympy.Symbol]
) -> tuple[sympy.Expr, ...]:
    """Return the reduced Groebner basis (grevlex) of the intersection of polynomial ideals.

    The zeros of the intersection are the union of the zeros. Two at a time, by eliminating t from
    ``t I + (1 - t) J``.

    Args:
        ideals: Generators of each ideal, polynomials with rational coefficients in ``gens``.
        gens: The variables.

    Raises:
        ValueError: if there is no ideal, or one without generators.

    Source: Cox, Little & O'Shea, Ideals, Varieties, and Algorithms, section 4.3.

    >>> a, b = sympy.symbols("a b")
    >>> intersect_ideals([[a], [b]], [a, b])
    (a*b,)
    """
    if not ideals or not all(ideals):
        raise ValueError(f"ideals must hold at least one ideal, none of them empty, got {ideals}.")
    t = sympy.Dummy("t")
    meet = list(ideals[0])
    for other in ideals[1:]:
        mixed = [t * p for p in meet] + [(1 - t) * q for q in other]
        basis = sympy.groebner(mixed, t, *gens, order="lex")
        meet = [p for p in basis.exprs if not p.has(t)]
    return tuple(sympy.groebner(meet, *gens, order="grevlex").exprs)


def _product_without(s: Tensor, *left_out: int) -> Tensor:
    """Product of the entries of s except those; 1 if none is left."""
    return s[[i for i in range(len(s)) if i not in left_out]].prod()


def _margins(net: Network, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Check the arguments and return y_n f(W; x_n), (N,)."""
    for name, W in params.items():
        _checks.finite(f"params[{name!r}]", W)
    _checks.dataset(x, y)
    if net.num_outputs != 1:
        raise ValueError(f"net must have one output, got {net.num_outputs}.")
    with torch.no_grad():
        return losses.margins(net(params, x), y)
