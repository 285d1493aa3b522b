"""Hessians of the loss: full matrices, Gauss-Newton parts, spectra, and extreme eigenvalues.

The loss is a function of the outputs, ``L(W) = l(f(W; x_1), ..., f(W; x_N))``, so its Hessian has
two parts, ``H = J^T (d^2 l) J + sum_n (dl/df_n) d^2 f_n``: the Gauss-Newton matrix, which is
positive semidefinite for a convex l, and the rest. Exponential-type losses underflow long before
their Hessians lose interest. Results are therefore scaled: a stored matrix or eigenvalue stands
for ``exp(log_scale)`` times itself, and ``log_scale`` is log L for these losses, 0 for the square.

All functions take one network, any ``f(params, x)`` with values (N,) or (N, C), and follow the
device and dtype of its parameters. They differentiate as autograd does: at a kink of a ReLU the
second derivative across it counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from companion import _checks, losses
from companion.networks import Params

__all__ = [
    "LOSSES",
    "Curvature",
    "Extremes",
    "Spectrum",
    "extremes",
    "flatten",
    "gauss_newton",
    "hessian",
    "jacobian",
    "of_function",
    "spectrum",
    "spectrum_of",
    "unflatten",
]

Model = Callable[[Params, Tensor], Tensor]

LOSSES = ("square", "exponential", "logistic", "cross_entropy")
MEMORY = 4e9  # bytes that a full Hessian and its eigenvalues may take
COPIES = 4  # matrices alive at once: the Hessian, the sum with its transpose, LAPACK's copy, slack


@dataclass(frozen=True, eq=False)
class Curvature:
    """A symmetric matrix of second derivatives, ``exp(log_scale) * matrix``.

    Args:
        matrix: (P, P), parameters in the order of :func:`flatten`.
        log_scale: Logarithm of the factor taken out.
    """

    matrix: Tensor
    log_scale: float


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All eigenvalues of a Hessian, ``exp(log_scale) * eigenvalues``.

    Args:
        eigenvalues: (P,), ascending.
        log_scale: Logarithm of the factor taken out.
        tol: Eigenvalues of absolute value at most tol count as zero; in the units of eigenvalues.
    """

    eigenvalues: Tensor
    log_scale: float
    tol: float

    @property
    def num_zero(self) -> int:
        """Number of eigenvalues that cannot be told from zero."""
        return int((self.eigenvalues.abs() <= self.tol).sum())

    @property
    def num_positive(self) -> int:
        """Number of eigenvalues above tol."""
        return int((self.eigenvalues > self.tol).sum())

    @property
    def num_negative(self) -> int:
        """Number of eigenvalues below -tol."""
        return int((self.eigenvalues < -self.tol).sum())


@dataclass(frozen=True, eq=False)
class Extremes:
    """Eigenvalues at both ends of a spectrum, ``exp(log_scale)`` times these.

    Args:
        largest: Descending.
        smallest: Ascending; the most negative first.
        log_scale: Logarithm of the factor taken out.
        num_products: Hessian-vector products that were needed.
    """

    largest: Tensor
    smallest: Tensor
    log_scale: float
    num_products: int


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """Return all parameters of one network in one vector (P,), layer after layer."""
    return torch.cat([W.reshape(-1) for W in params.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Params:
    """Return the parameters that :func:`flatten` put into ``vector`` (P,), shaped like ``like``."""
    _checks.shape("vector", vector, (sum(W.numel() for W in like.values()),))
    pieces = vector.split([W.numel() for W in like.values()])
    return {
        name: piece.reshape(W.shape) for (name, W), piece in zip(like.items(), pieces, strict=True)
    }


def jacobian(net: Model, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the derivatives of all outputs by all parameters, (N * C, P).

    Args:
        net: f(params, x), values (N,) or (N, C).
        params: Parameters of one network.
        x: Points, (N, ...).

    Raises:
        TypeError, ValueError: if params are not finite floating-point tensors.

    >>> from companion.networks import MLP
    >>> line, x = MLP((2, 1)), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> jacobian(line, line.init(seed=0), x)
    tensor([[1., 2.]], dtype=torch.float64)
    """
    theta = flatten(_checked(params))

    def outputs(point: Tensor) -> Tensor:
        return net(unflatten(point, params), x).reshape(-1)

    return torch.func.jacrev(outputs)(theta)


def of_function(value: Callable[[Params], Tensor], params: Mapping[str, Tensor]) -> Curvature:
    """Return the Hessian of any scalar function of the parameters, with log_scale 0.

    Args:
        value: Function of the parameters that returns a scalar and is made of torch operations.
        params: Where to take it.

    Raises:
        TypeError, ValueError: if params are not finite floating-point tensors, or the Hessian
            would not fit into memory.

    >>> w = {"w": torch.tensor([1.0, 2.0])}
    >>> of_function(lambda w: w["w"].prod(), w).matrix
    tensor([[0., 1.],
            [1., 0.]])
    """
    theta = flatten(_checked(params))
    _require_memory(theta)
    H = torch.func.jacrev(torch.func.grad(lambda t: value(unflatten(t, params))))(theta).detach()
    return Curvature((H + H.T) / 2, 0.0)


def hessian(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "exponential",
    reduction: str = "mean",
) -> Curvature:
    """Return the Hessian of the loss in all parameters.

    Args:
        net: f(params, x), values (N,), or (N, C) for the cross-entropy.
        params: Parameters of one network.
        x: Points, (N, ...).
        y: Labels -1 and +1 (N,) for "exponential" and "logistic"; classes (N,), integers, for
            "cross_entropy"; targets of the shape of the outputs for "square".
        loss: One of LOSSES. The square loss is (f - y)^2, without a factor 1/2.
        reduction: "mean" or "sum" over the N samples.

    Raises:
        TypeError, ValueError: for arguments that do not fit, parameters that are not finite, or a
            matrix that would not fit into memory; :func:`extremes` needs no matrix.

    Source: PNAS 2020, section 3.C.1; Sagun et al. 2017 for the two parts.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> at = hessian(net, net.init(seed=0), points.x, points.y)
    >>> at.matrix.shape, round(at.log_scale, 4)
    (torch.Size([2, 2]), -1.4931)
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    scaled = of_function(lambda weights: objective.outer(net(weights, x)), params)
    return Curvature(scaled.matrix, objective.log_scale)


def gauss_newton(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "exponential",
    reduction: str = "mean",
) -> Curvature:
    """Return ``J^T (d^2 l) J``, the part of the Hessian without second derivatives of f.

    Positive semidefinite, of rank at most N times the number of outputs. Arguments and errors as
    for :func:`hessian`.

    Source: Sagun et al. 2017, section 3.
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    _require_memory(flatten(params))
    J = jacobian(net, params, x)
    with torch.no_grad():
        f = net(dict(params), x)
    inner = torch.func.hessian(lambda t: objective.outer(t.reshape(f.shape)))(f.reshape(-1))
    G = J.T @ inner.detach() @ J
    return Curvature((G + G.T) / 2, objective.log_scale)


def spectrum_of(curvature: Curvature, *, tol: float | None = None) -> Spectrum:
    """Return all eigenvalues of a matrix of second derivatives.

    Args:
        curvature: The matrix (P, P) and its scale.
        tol: Absolute value up to which an eigenvalue counts as zero, in the units of the stored
            matrix; the default is ``P * eps * max |eigenvalue|``. LAPACK's eigenvalues are those
            of a matrix that differs by about ``eps * |H|`` times a small power of P.

    Raises:
        TypeError, ValueError: if the matrix is not finite or tol is negative.

    >>> spectrum_of(Curvature(torch.diag(torch.tensor([2.0, 0.0, -1.0])), 0.0)).num_zero
    1
    """
    H = _checks.finite("curvature.matrix", curvature.matrix)
    eigenvalues = torch.linalg.eigvalsh(H)
    if tol is None:
        eps = torch.finfo(H.dtype).eps
        tol = len(H) * eps * float(eigenvalues.abs().max())
    return Spectrum(eigenvalues, curvature.log_scale, _checks.positive("tol", tol, zero=True))


def spectrum(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "exponential",
    reduction: str = "mean",
    tol: float | None = None,
) -> Spectrum:
    """Return all eigenvalues of the Hessian: :func:`hessian`, then :func:`spectrum_of`.

    >>> from companion import networks
    >>> net = networks.MLP(widths=(2, 2, 1), activation="linear")
    >>> params, x = net.init(seed=0), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> at_zero = spectrum(net, params, x, net(params, x), loss="square", reduction="sum")
    >>> at_zero.num_positive, at_zero.num_zero  # N = 1, W - N = 5
    (1, 5)
    """
    return spectrum_of(hessian(net, params, x, y, loss=loss, reduction=reduction), tol=tol)


def extremes(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    largest: int = 20,
    smallest: int = 5,
    loss: str = "exponential",
    reduction: str = "mean",
    seed: int = 0,
) -> Extremes:
    """Return eigenvalues at both ends by Lanczos, from Hessian-vector products alone.

    Args:
        net, params, x, y, loss, reduction: As for :func:`hessian`; any number of parameters.
        largest: How many at the upper end, at least 0.
        smallest: How many at the lower end, at least 0.
        seed: Of the vector from which Lanczos starts.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or when more eigenvalues are asked
            for than there are parameters less one.

    Source: Lehoucq, Sorensen & Yang 1998 (ARPACK, through SciPy).
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    theta = flatten(params).detach()
    wanted = {
        "LA": _checks.integer("largest", largest, at_least=0),
        "SA": _checks.integer("smallest", smallest, at_least=0),
    }
    for name, number in zip(("largest", "smallest"), wanted.values(), strict=True):
        if number >= len(theta):
            raise ValueError(f"{name} must be below the {len(theta)} parameters, got {number}.")
    product, count = _products(lambda t: objective.outer(net(unflatten(t, params), x)), theta)
    operator = LinearOperator((len(theta), len(theta)), matvec=product, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(len(theta))
    found = {
        end: np.sort(eigsh(operator, k=number, which=end, v0=start, return_eigenvectors=False))
        for end, number in wanted.items()
        if number
    }
    top, bottom = found.get("LA", np.empty(0)), found.get("SA", np.empty(0))
    return Extremes(
        theta.new_tensor(top[::-1].copy()), theta.new_tensor(bottom), objective.log_scale, count()
    )


class _Objective:
    """The scaled loss as a function of the outputs, and the logarithm of the factor taken out."""

    def __init__(
        self,
        net: Model,
        params: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        loss: str,
        reduction: str,
    ) -> None:
        self.loss = _checks.choice("loss", loss, LOSSES)
        self.reduction = _checks.choice("reduction", reduction, losses.REDUCTIONS)
        self.y = y
        _checked(params)
        with torch.no_grad():
            f = net(dict(params), x)
        if loss == "square":
            _checks.shape("y", _checks.finite("y", y), f.shape)
            self.log_scale = 0.0
        else:
            self.log_scale = float(self._log_loss(f))

    def outer(self, f: Tensor) -> Tensor:
        """The loss of the outputs f over exp(log_scale)."""
        if self.loss == "square":
            each = (f - self.y) ** 2
            return each.sum() if self.reduction == "sum" else each.sum() / len(f)
        return (self._log_loss(f) - self.log_scale).exp()

    def _log_loss(self, f: Tensor) -> Tensor:
        if self.loss == "cross_entropy":
            return losses.log_loss(
                losses.multiclass_margin(f, self.y), "logistic", reduction=self.reduction
            )
        return losses.log_loss(losses.margins(f, self.y), self.loss, reduction=self.reduction)


def _products(
    value: Callable[[Tensor], Tensor], theta: Tensor
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[], int]]:
    """Hessian-vector products of ``value`` at theta, from one graph, and how many were made."""
    theta = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(theta), theta, create_graph=True)
    count = 0

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        v = torch.as_tensor(vector.reshape(-1), dtype=theta.dtype, device=theta.device)
        (Hv,) = torch.autograd.grad(gradient, theta, v, retain_graph=True)
        return Hv.cpu().numpy().astype(np.float64)

    return product, lambda: count


def _checked(params: Mapping[str, Tensor]) -> Params:
    if not params:
        raise ValueError("params must hold at least one tensor, got none.")
    for name, W in params.items():
        _checks.finite(f"params[{name!r}]", W)
    return dict(params)


def _require_memory(theta: Tensor) -> None:
    need = COPIES * theta.element_size() * len(theta) ** 2
    if need > MEMORY:
        raise ValueError(
            f"The Hessian of {len(theta):,} parameters needs {need / 1e9:.1f} GB, more than the "
            f"{MEMORY / 1e9:.1f} GB set by MEMORY: use extremes(), which needs no matrix."
        )
