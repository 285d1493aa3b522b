"""What homogeneity gives a network, as quantities that can be measured on any function of weights.

A network without hidden biases and with ``sigma(c z) = c sigma(z)`` for c >= 0 is homogeneous of
degree one in each of its layers. Three identities of PNAS 2020, section 3.B, follow: the structural
lemma, the factorization ``f(W; x) = prod_k rho_k f(V; x)``, and the derivative with respect to a
layer norm. The functions here take any callable ``f(params, x)``, so that the same measure also
tells by how much an identity fails: four networks that are not homogeneous in every layer are
included. ``params`` may hold several layers; "layer by layer" means each entry of the dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from companion import _checks
from companion.networks import Params

if TYPE_CHECKING:
    import sympy

__all__ = [
    "NORMS",
    "Degrees",
    "Function",
    "SymbolicNetwork",
    "at_kinks",
    "batch_normalized",
    "degrees",
    "euler_products",
    "factorization_error",
    "hidden_biases",
    "homogeneity_defect",
    "projector",
    "residual",
    "rho_derivatives",
    "softplus",
    "squared_relu",
    "symbolic_network",
]

Function = Callable[[Params, Tensor], Tensor]

NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "Frobenius": lambda W: torch.linalg.vector_norm(W),
    "spectral": lambda W: torch.linalg.matrix_norm(W, ord=2),
    "nuclear": lambda W: torch.linalg.matrix_norm(W, ord="nuc"),
    "largest row sum": lambda W: torch.linalg.matrix_norm(W, ord=math.inf),
    "sum of entries": lambda W: W.abs().sum(),
    "largest entry": lambda W: W.abs().max(),
}


# --- identities ----------------------------------------------------------------------------------


def euler_products(f: Function, params: Params, x: Tensor) -> Tensor:
    """Return ``<W_k, df(W; x_n)/dW_k>`` for every layer and point, by forward differentiation.

    The structural lemma says that each row equals f(W; x). At a kink torch's derivative is used,
    0 for the ReLU; see :func:`at_kinks` for others.

    Args:
        f: Function of (params, x) with values (N,).
        params: Weights, one network.
        x: Points, (N, ...).

    Returns:
        (K, N), in the order of the layers.

    Source: PNAS 2020, section 3.B, structural lemma.

    >>> from companion.networks import MLP
    >>> net = MLP(widths=(2, 3, 1))
    >>> W, x = net.init(seed=0), torch.ones(4, 2, dtype=torch.float64)
    >>> torch.allclose(euler_products(net, W, x), net(W, x).expand(2, 4))
    True
    """
    rows = []
    for name, W_k in params.items():

        def of_layer(layer: Tensor, name: str = name) -> Tensor:
            return f({**params, name: layer}, x)

        rows.append(torch.func.jvp(of_layer, (W_k,), (W_k,))[1])
    return torch.stack(rows)


def factorization_error(
    f: Function, params: Params, x: Tensor, *, norm: Callable[[Tensor], Tensor] | str = "Frobenius"
) -> float:
    """Return ``max_n |f(W; x_n) - prod_k rho_k f(V; x_n)| / max_n |f(W; x_n)|``, W_k = rho_k V_k.

    Args:
        f: Function of (params, x) with values (N,).
        params: Weights, one network.
        x: Points, (N, ...).
        norm: What rho_k = ||W_k|| means: a function of one layer, or a name of ``NORMS``.

    Raises:
        ValueError: if the norm is unknown, a layer has norm zero, or f vanishes at every point.

    Source: PNAS 2020, section 3.B.
    """
    if isinstance(norm, str):
        norm = NORMS[_checks.choice("norm", norm, NORMS)]
    rho = {name: norm(W_k) for name, W_k in params.items()}
    for name, size in rho.items():
        if not bool(size > 0):
            raise ValueError(f"params[{name!r}] must have a positive norm, got {float(size)}.")
    V = {name: W_k / rho[name] for name, W_k in params.items()}
    product = torch.stack(list(rho.values())).prod()
    return _relative(product * f(V, x), f(params, x))


def rho_derivatives(f: Function, params: Params, x: Tensor) -> Tensor:
    """Return ``df(W; x_n)/drho_k`` at fixed directions V_k, with Frobenius norms rho_k.

    The paper gives (rho / rho_k) f(V; x). Here f is differentiated along ``rho_k -> rho_k V_k``.

    Returns:
        (K, N), in the order of the layers.

    Raises:
        ValueError: if a layer is zero.

    Source: PNAS 2020, section 3.B.
    """
    rows = []
    for name, W_k in params.items():
        size = torch.linalg.vector_norm(W_k)
        if not bool(size > 0):
            raise ValueError(f"params[{name!r}] must not be zero: it has no direction.")

        def of_norm(rho: Tensor, name: str = name, V: Tensor = W_k / size) -> Tensor:
            return f({**params, name: rho * V}, x)

        rows.append(torch.func.jvp(of_norm, (size,), (torch.ones_like(size),))[1])
    return torch.stack(rows)


def projector(w: Tensor) -> Tensor:
    """Return ``S = I - v v^T`` with v = w / |w|, for w as one vector: shape (P, P), P entries.

    S / |w| is the derivative of v with respect to w; S w = 0 and S^2 = S.

    Raises:
        ValueError: if w is zero.

    Source: PNAS 2020, section 3.B.5, relations 1 and 2.

    >>> projector(torch.tensor([3.0, 0.0]))
    tensor([[0., 0.],
            [0., 1.]])
    """
    flat = _checks.floating("w", w).flatten()
    size = torch.linalg.vector_norm(flat)
    if not bool(size > 0):
        raise ValueError("w must not be zero: it has no direction.")
    v = flat / size
    return torch.eye(len(v), dtype=v.dtype, device=v.device) - torch.outer(v, v)


# --- by how much they fail -----------------------------------------------------------------------


def homogeneity_defect(
    f: Function, params: Params, x: Tensor, *, layer: str | None, c: float, degree: float = 1.0
) -> float:
    """Return max_n |f(.., c W_k, ..) - c^degree f(W)| / max_n |c^degree f(W)| over the points.

    Args:
        f: Function of (params, x) with values (N,).
        params: Weights, one network.
        x: Points, (N, ...).
        layer: Which layer is scaled; None scales all of them together.
        c: The factor, positive.
        degree: The degree of homogeneity that is expected.

    Raises:
        TypeError, ValueError: if the layer is unknown, c is not positive, or f vanishes everywhere.

    >>> from companion.networks import MLP
    >>> net = MLP(widths=(2, 3, 1))
    >>> W, x = net.init(seed=0), torch.ones(4, 2, dtype=torch.float64)
    >>> homogeneity_defect(net, W, x, layer="W1", c=2.0)
    0.0
    >>> homogeneity_defect(net, W, x, layer=None, c=2.0)
    1.0
    """
    c = _checks.positive("c", c)
    if layer is not None:
        _checks.choice("layer", layer, params)
    scaled = {k: c * W_k if layer in (None, k) else W_k for k, W_k in params.items()}
    return _relative(f(scaled, x), c**degree * f(params, x))


@dataclass(frozen=True)
class Degrees:
    """Local degrees of homogeneity, from Euler's identity ``<W_k, df/dW_k> = degree_k f``.

    Attributes:
        degree: (K,) the degree of each layer that fits best over the points.
        misfit: (K,) what is left, ``||<W_k, df/dW_k> - degree_k f|| / ||f||`` over the points: 0
            if f is homogeneous in that layer, of any degree.
        total: The best degree in all layers together.
        total_misfit: What is left there.
    """

    degree: Tensor
    misfit: Tensor
    total: float
    total_misfit: float


def degrees(f: Function, params: Params, x: Tensor) -> Degrees:
    """Measure the degree of homogeneity in each layer, and in all layers together.

    Raises:
        ValueError: if f vanishes at every point.

    >>> from companion.networks import MLP
    >>> net = MLP(widths=(2, 5, 3, 1))
    >>> x = torch.eye(2, dtype=torch.float64)
    >>> degrees(squared_relu, net.init(seed=0), x).degree.round()
    tensor([4., 2., 1.], dtype=torch.float64)
    """
    values = f(params, x)
    size = torch.linalg.vector_norm(values)
    if not bool(size > 0):
        raise ValueError("f must not vanish at every point of x.")
    products = euler_products(f, params, x)
    rows = torch.cat([products, products.sum(dim=0, keepdim=True)])
    found = rows @ values / size**2
    left = torch.linalg.vector_norm(rows - found[:, None] * values, dim=1) / size
    return Degrees(found[:-1], left[:-1], float(found[-1]), float(left[-1]))


def _relative(value: Tensor, expected: Tensor) -> float:
    size = float(expected.abs().max())
    if size == 0:
        raise ValueError("f must not vanish at every point of x.")
    return float((value - expected).abs().max()) / size


# --- networks that are not homogeneous in every layer --------------------------------------------


def hidden_biases(params: Params, x: Tensor, biases: Sequence[Tensor]) -> Tensor:
    """Return a ReLU network with constant biases: ``h_k = max(0, W_k h_{k-1} + b_k)``.

    Args:
        params: The layers of an MLP with one output.
        x: Points, (N, d).
        biases: b_1, ..., b_{K-1}, each (h_k,); they are constants, not layers.

    Returns:
        (N,), as for the other networks here.
    """
    *hidden, last = params.values()
    h = x
    for W_k, b_k in zip(hidden, biases, strict=True):
        h = torch.relu(h @ W_k.mT + b_k)
    return (h @ last.mT)[..., 0]


def batch_normalized(params: Params, x: Tensor, eps: float = 0.0) -> Tensor:
    """Return a ReLU network whose preactivations are normalized over the N points.

    ``h_k = max(0, (z - mean z) / sqrt(var z + eps))`` with z = W_k h_{k-1}, without gain and shift:
    with eps = 0 homogeneous of degree zero in every hidden layer.

    Source: Ioffe & Szegedy 2015.
    """
    *hidden, last = params.values()
    h = x
    for W_k in hidden:
        z = h @ W_k.mT
        h = torch.relu((z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, correction=0) + eps))
    return (h @ last.mT)[..., 0]


def residual(params: Params, x: Tensor) -> Tensor:
    """Return a residual network: ``h_1 = W_1 x``, ``h_k = h_{k-1} + max(0, W_k h_{k-1})``, W_K h.

    The hidden layers 2 .. K-1 are square. Homogeneous of degree one in the first and the last
    layer, and not homogeneous in the blocks between.

    Source: He et al. 2016.
    """
    first, *blocks, last = params.values()
    h = x @ first.mT
    for W_k in blocks:
        h = h + torch.relu(h @ W_k.mT)
    return (h @ last.mT)[..., 0]


def squared_relu(params: Params, x: Tensor) -> Tensor:
    """Return a network with ``sigma(z) = max(0, z)^2``: of degree 2^(K-k) in layer k."""
    *hidden, last = params.values()
    h = x
    for W_k in hidden:
        h = torch.relu(h @ W_k.mT).square()
    return (h @ last.mT)[..., 0]


def softplus(params: Params, x: Tensor, beta: float) -> Tensor:
    """Return a network with ``sigma(z) = log(1 + exp(beta z)) / beta``, a smooth ReLU.

    It exceeds the ReLU by at most log(2) / beta, at z = 0.
    """
    *hidden, last = params.values()
    h = x
    for W_k in hidden:
        h = torch.logaddexp(beta * (h @ W_k.mT), x.new_zeros(())) / beta
    return (h @ last.mT)[..., 0]


def at_kinks(theta: float | Tensor, *, tol: float = 0.0) -> Function:
    """Return the ReLU network whose derivative at a kink, |z| <= tol, is theta instead of 0.

    With theta between 0 and 1 its derivatives lie in the Clarke subdifferential if the kinks are
    those of one unit at one point; with one hidden layer and a theta per point and unit they
    contain it.

    Args:
        theta: A number; for a network with one hidden layer also a tensor (N, h).
        tol: How close to zero a preactivation counts as zero.

    Returns:
        A function of the layers of an MLP with one output and of x, with values (N,).
    """

    def f(params: Params, x: Tensor) -> Tensor:
        *hidden, last = params.values()
        h = x
        for W_k in hidden:
            z = h @ W_k.mT
            h = torch.where(z.abs() <= tol, theta * z, torch.relu(z))
        return (h @ last.mT)[..., 0]

    return f


# --- symbols -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SymbolicNetwork:
    """A ReLU network in symbols, in a region of weights where its pattern of activations is fixed.

    Attributes:
        f: The output, a SymPy expression.
        layers: W_1, ..., W_K as SymPy matrices of symbols.
        x: The input, a column of symbols.
    """

    f: sympy.Expr
    layers: tuple[Any, ...]
    x: Any

    def evaluate(self, layers: Sequence[Any]) -> sympy.Expr:
        """Return f with other matrices in place of the layers."""
        import sympy

        symbols = [s for W in self.layers for s in W]
        values = [v for W in layers for v in sympy.Matrix(W)]
        return self.f.subs(dict(zip(symbols, values, strict=True)), simultaneous=True)


def symbolic_network(widths: Sequence[int], pattern: Sequence[Sequence[int]]) -> SymbolicNetwork:
    """Return ``f(W; x) = W_K D_{K-1} W_{K-1} ... D_1 W_1 x`` with D_k = diag(pattern[k]), in SymPy.

    Args:
        widths: (d, h_1, ..., h_K) with h_K = 1.
        pattern: For each hidden layer which units are on, 0 or 1.

    Raises:
        TypeError, ValueError: if the pattern does not fit the widths.

    >>> symbolic_network((1, 2, 1), [[1, 0]]).f
    W1_11*W2_11*x_1
    """
    import sympy

    widths = _checks.integers("widths", widths, at_least=1)
    if [len(units) for units in pattern] != list(widths[1:-1]) or widths[-1] != 1:
        raise ValueError(f"pattern must have one entry per hidden unit of {widths}, got {pattern}.")
    layers = tuple(
        sympy.Matrix(b, a, [sympy.Symbol(f"W{k}_{i + 1}{j + 1}", real=True)
                            for i in range(b) for j in range(a)])
        for k, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True), start=1)
    )  # fmt: skip
    x = sympy.Matrix([sympy.Symbol(f"x_{i + 1}", real=True) for i in range(widths[0])])
    h = x
    for W_k, units in zip(layers[:-1], pattern, strict=True):
        h = sympy.diag(*units) * W_k * h
    return SymbolicNetwork(sympy.expand((layers[-1] * h)[0]), layers, x)
