"""Hessians of the loss: full matrices, their two parts, spectra, extreme eigenvalues, densities.

The loss is a function of the outputs, ``L(W) = l(f(W; x_1), ..., f(W; x_N))``, so its Hessian has
two parts, ``H = G + R`` with ``G = J^T (d^2 l) J`` and ``R = sum_n (dl/df_n) d^2 f_n``: the
Gauss-Newton matrix G, which is positive semidefinite for a convex l, and the rest. Exponential-type
losses underflow long before their Hessians lose interest. Results are therefore scaled: a stored
matrix or eigenvalue stands for ``exp(log_scale)`` times itself, and ``log_scale`` is log L for
these losses, 0 for the square.

All functions take one network, any ``f(params, x)`` with values (N,) or (N, C), and follow the
device and dtype of its parameters. They differentiate as autograd does: at a kink of a ReLU the
second derivative across it counts as zero. A :class:`~companion.networks.Network` is piecewise
linear in each layer alone, so the blocks of R of a layer with itself vanish, and R needs no second
derivatives within the largest layer; this makes full Hessians cheap. To have plain automatic
differentiation instead, pass the function ``net.__call__``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from companion import _checks, losses
from companion.networks import Network, Params

__all__ = [
    "LOSSES",
    "Curvature",
    "Density",
    "Extremes",
    "Spectrum",
    "density",
    "extremes",
    "flatten",
    "gauss_newton",
    "hessian",
    "jacobian",
    "layers",
    "of_function",
    "remainder",
    "smoothed",
    "spectrum",
    "spectrum_of",
    "unflatten",
]

Model = Callable[[Params, Tensor], Tensor]

LOSSES = ("square", "exponential", "logistic", "cross_entropy")
MEMORY = 4e9  # bytes that a full Hessian and its eigenvalues may take
COPIES = 4  # matrices alive at once: the Hessian, the sum with its transpose, LAPACK's copy, slack
ROWS_AT_ONCE = 32  # rows of a Hessian in one vectorized backward pass: what a CPU's cache holds
ENTRIES_AT_ONCE = 2**24  # of a Jacobian


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
        largest: (k,), descending.
        smallest: (j,), ascending; the most negative first.
        log_scale: Logarithm of the factor taken out.
        largest_vectors: (P, k), orthonormal eigenvectors of largest.
        smallest_vectors: (P, j), orthonormal eigenvectors of smallest.
        residual: Largest ``|H v - lambda v|`` over the pairs found. Within this distance of each
            number there is an eigenvalue.
        num_products: Hessian-vector products that were needed.
    """

    largest: Tensor
    smallest: Tensor
    log_scale: float
    largest_vectors: Tensor
    smallest_vectors: Tensor
    residual: float
    num_products: int


@dataclass(frozen=True, eq=False)
class Density:
    """Estimated density of the eigenvalues, by stochastic Lanczos quadrature.

    Args:
        nodes: (R, m), Ritz values of R random probes; ``exp(log_scale)`` times these.
        weights: (R, m), their weights; each row sums to one.
        log_scale: Logarithm of the factor taken out.
        num_params: P, the number of eigenvalues that the density stands for.
        num_products: Hessian-vector products that were needed.
    """

    nodes: Tensor
    weights: Tensor
    log_scale: float
    num_params: int
    num_products: int

    def mean(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Estimate ``(1 / P) sum_i function(eigenvalue_i)``, a number."""
        return (self.weights * function(self.nodes)).sum() / len(self.nodes)


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
    params = _checked(net, params)
    if isinstance(net, Network):  # f(W; x_n) sees x_n alone: one small backward pass per point

        def at_point(weights: Params, point: Tensor) -> Tensor:
            return net(weights, point[None])[0]

        columns = torch.func.vmap(torch.func.jacrev(at_point), in_dims=(None, 0))(params, x)
        start = 1 if net.num_outputs == 1 else 2
        J = torch.cat([column.flatten(start) for column in columns.values()], dim=-1)
        return J.reshape(-1, J.shape[-1]).detach()

    def outputs(point: Tensor) -> Tensor:
        return net(unflatten(point, params), x).reshape(-1)

    return torch.func.jacrev(outputs)(flatten(params)).detach()


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
    theta = flatten(_checked(None, params))
    _require_memory(theta)
    gradient = torch.func.grad(lambda t: value(unflatten(t, params)))
    return Curvature(_symmetric(_rows(gradient, theta)), 0.0)


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
            matrix that would not fit into memory; :func:`extremes` and :func:`density` need none.

    Source: PNAS 2020, section 3.C.1; Sagun et al. 2017 for the two parts.

    >>> from companion import data, networks
    >>> points, net = data.three_points(), networks.MLP(widths=(2, 1))
    >>> at = hessian(net, net.init(seed=0), points.x, points.y)
    >>> at.matrix.shape, round(at.log_scale, 4)
    (torch.Size([2, 2]), -1.4931)
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    if isinstance(net, Network):
        _require_memory(flatten(params))
        G = _gauss_newton(objective)
        return Curvature(G.add_(_remainder(objective)), objective.log_scale)
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
    """Return ``G = J^T (d^2 l) J``, the part of the Hessian without second derivatives of f.

    Positive semidefinite. Its rank is at most N for scalar outputs, N C for the square loss of C
    outputs, and N (C - 1) for the cross-entropy, which does not see a common shift of all outputs.
    Arguments and errors as for :func:`hessian`.

    Source: Sagun et al. 2017, section 3; Schraudolph 2002.
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    _require_memory(flatten(params))
    return Curvature(_gauss_newton(objective), objective.log_scale)


def remainder(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "exponential",
    reduction: str = "mean",
) -> Curvature:
    """Return ``R = H - G = sum_n (dl/df_n) d^2 f_n``, computed by itself and not as a difference.

    Its trace is zero for a bias-free ReLU network, where f is piecewise linear in each layer
    alone. Arguments and errors as for :func:`hessian`.

    Source: Sagun et al. 2017, section 3.
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    _require_memory(flatten(params))
    return Curvature(_remainder(objective), objective.log_scale)


def layers(params: Mapping[str, Tensor]) -> dict[str, slice]:
    """Return where each layer lies in the vector of :func:`flatten`, to cut blocks of a Hessian.

    >>> layers({"W1": torch.zeros(3, 2), "W2": torch.zeros(1, 3)})
    {'W1': slice(0, 6, None), 'W2': slice(6, 9, None)}
    """
    ends = np.cumsum([W.numel() for W in params.values()]).tolist()
    starts = [0, *ends[:-1]]
    return {name: slice(a, b) for name, a, b in zip(params, starts, ends, strict=True)}


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
    # cuSOLVER in float32 errs by 7e-5 of the largest eigenvalue where LAPACK errs by 6e-7.
    exact = H if H.device.type == "cpu" else H.double()
    eigenvalues = torch.linalg.eigvalsh(exact).to(H.dtype)
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

    Each end is found by ARPACK in a shifted operator, where a residual of ``TOLERANCE`` is relative
    to the largest eigenvalue. Lanczos from one vector sees one copy of a multiple eigenvalue, and
    the zeros of a degenerate minimum have multiplicities of thousands; so the search is repeated
    in the orthogonal complement of what was found until nothing beyond it turns up.

    Args:
        net, params, x, y, loss, reduction: As for :func:`hessian`; any number of parameters.
        largest: How many at the upper end, at least 0.
        smallest: How many at the lower end, at least 0.
        seed: Of the vector from which Lanczos starts.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or when as many eigenvalues are asked
            for as there are parameters.
        RuntimeError: if Lanczos does not converge, which happens where thousands of eigenvalues
            crowd at the end asked for; :func:`spectrum` and :func:`density` need no convergence.

    Source: Lehoucq, Sorensen & Yang 1998 (ARPACK, through SciPy).

    >>> from companion import data, networks
    >>> x, y = data.digits(classes=(3, 8))
    >>> net = networks.MLP(widths=(64, 8, 1))
    >>> params = net.init(seed=0)
    >>> ends = extremes(net, params, x, y, largest=2, smallest=1)
    >>> full = spectrum(net, params, x, y).eigenvalues
    >>> bool((ends.largest - full[[-1, -2]]).abs().max() < 1e-8 * full[-1])
    True
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    theta = flatten(params).detach()
    for name, number in (("largest", largest), ("smallest", smallest)):
        if _checks.integer(name, number, at_least=0) >= len(theta):
            raise ValueError(
                f"{name} must be below the number of parameters, {len(theta)}, got {number}: "
                "spectrum() returns all eigenvalues."
            )
    products = _Products(objective)
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    radius = _radius(products, rng)
    top, top_vectors = _end(products, radius, 1.0, largest, rng)
    bottom, bottom_vectors = _end(products, radius, -1.0, smallest, rng)
    values, vectors = np.append(top, bottom), np.hstack([top_vectors, bottom_vectors])
    used = products.count
    residual = max(
        (np.linalg.norm(products(v) - a * v) for a, v in zip(values, vectors.T, strict=True)),
        default=0.0,
    )
    return Extremes(
        largest=theta.new_tensor(top),
        smallest=theta.new_tensor(bottom),
        log_scale=objective.log_scale,
        largest_vectors=theta.new_tensor(top_vectors),
        smallest_vectors=theta.new_tensor(bottom_vectors),
        residual=float(residual),
        num_products=used,
    )


def density(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    num_steps: int = 80,
    num_probes: int = 10,
    loss: str = "exponential",
    reduction: str = "mean",
    seed: int = 0,
) -> Density:
    """Estimate the density of all eigenvalues by stochastic Lanczos quadrature.

    From a random unit vector v, Lanczos makes a Gauss quadrature of the measure
    ``sum_i (v . v_i)^2 delta(lambda - lambda_i)``, exact for polynomials up to degree 2 m - 1;
    averaged over v it is the density of the eigenvalues.

    Args:
        net, params, x, y, loss, reduction: As for :func:`hessian`; any number of parameters.
        num_steps: m, Lanczos steps per probe; at most P are taken.
        num_probes: R, random probes. The statistical error falls like ``1 / sqrt(R P)``.
        seed: Of the probes.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or parameters that are not finite.

    Source: Ghorbani, Krishnan & Xiao 2019; Golub & Welsch 1969 for the quadrature.
    """
    objective = _Objective(net, params, x, y, loss, reduction)
    theta = flatten(params).detach()
    m = min(_checks.integer("num_steps", num_steps, at_least=1), len(theta))
    R = _checks.integer("num_probes", num_probes, at_least=1)
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    products = _Products(objective)
    nodes, weights = theta.new_zeros(R, m), theta.new_zeros(R, m)
    for r in range(R):
        probe = theta.new_tensor(rng.standard_normal(len(theta)))
        T = _tridiagonal(products.tensor, probe / probe.norm(), m)
        values, vectors = torch.linalg.eigh(T)
        nodes[r, : len(values)], weights[r, : len(values)] = values, vectors[0] ** 2
    return Density(nodes, weights, objective.log_scale, len(theta), products.count)


def smoothed(of: Spectrum | Density, at: Tensor, *, width: float) -> Tensor:
    """Return the density of the eigenvalues at the values ``at`` (T,), smoothed by a Gaussian.

    Args:
        of: All eigenvalues, or an estimate of their density. The density integrates to one.
        at: Where, in the units of the stored eigenvalues.
        width: Standard deviation of the Gaussian, in the same units.

    Raises:
        TypeError, ValueError: if width is not positive, or at is not finite.
    """
    scale = _checks.positive("width", width)
    _checks.finite("at", at)
    if isinstance(of, Spectrum):
        nodes, weights = of.eigenvalues, torch.ones_like(of.eigenvalues) / len(of.eigenvalues)
    else:
        nodes, weights = of.nodes.reshape(-1), of.weights.reshape(-1) / len(of.nodes)
    kernel = torch.exp(-0.5 * ((at[:, None] - nodes) / scale) ** 2)
    return kernel @ weights / (scale * math.sqrt(2 * math.pi))


class _Objective:
    """The scaled loss as a function of the outputs, its derivatives there, and its scale."""

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
        self.net, self.params, self.x, self.y = net, _checked(net, params), x, y
        with torch.no_grad():
            self.f = _checks.finite("net(params, x)", net(self.params, x))
        self._check_outputs()
        self.log_scale = 0.0 if loss == "square" else float(self._log_loss(self.f))

    def _check_outputs(self) -> None:
        f, y = self.f, self.y
        allowed = {"square": (1, 2), "cross_entropy": (2,)}.get(self.loss, (1,))
        if f.ndim not in allowed:
            shapes = " or ".join({1: "(N,)", 2: "(N, C)"}[n] for n in allowed)
            raise ValueError(
                f"net(params, x) must have shape {shapes} for the {self.loss} loss, got "
                f"{tuple(f.shape)}; of an ensemble, take networks.member(params, m)."
            )
        if self.loss == "square":
            _checks.shape("y", _checks.finite("y", y), f.shape)
            _checks.same_kind("y", y, "net(params, x)", f)

    def outer(self, f: Tensor) -> Tensor:
        """The loss of the outputs f over exp(log_scale)."""
        if self.loss == "square":
            return ((f - self.y) ** 2).sum() * self._square_factor
        return (self._log_loss(f) - self.log_scale).exp()

    def quadratic(self, theta: Tensor) -> Tensor:
        """A function of all parameters in one vector with the same Hessian at the point given.

        The second-order Taylor polynomial of the loss in the outputs: fewer operations to
        differentiate than in the loss, and none that underflows.
        """
        first, second = self.derivatives()
        f = self.net(unflatten(theta, self.params), self.x)
        step = (f - self.f).reshape(first.shape)
        return (first * step).sum() + 0.5 * torch.einsum("nc,ncd,nd->", step, second, step)

    @property
    def _square_factor(self) -> float:
        return 1.0 if self.reduction == "sum" else 1.0 / len(self.f)

    def _margins(self, f: Tensor) -> Tensor:
        if self.loss == "cross_entropy":
            return losses.multiclass_margin(f, self.y)
        return losses.margins(f, self.y)

    def _log_loss(self, f: Tensor) -> Tensor:
        kind = "exponential" if self.loss == "exponential" else "logistic"
        return losses.log_loss(self._margins(f), kind, reduction=self.reduction)

    def derivatives(self) -> tuple[Tensor, Tensor]:
        """First and second derivatives in each sample's outputs: (N, C) and (N, C, C).

        With q_n = -d log L / dm_n they are -q m' and q s(m) m' m'^T - q m'', where s is 1 for the
        exponential loss and the logistic function for the others: nothing here underflows.
        """
        f = self.f.reshape(len(self.f), -1)
        if self.loss == "square":
            factor = 2 * self._square_factor
            first = factor * (f - self.y.reshape(f.shape))
            return first, factor * torch.eye(f.shape[1]).to(f).expand(len(f), -1, -1)
        m = self._margins(self.f)
        kind = "exponential" if self.loss == "exponential" else "logistic"
        q = losses.example_weights(m, kind)[:, None]
        slope = torch.ones_like(q) if kind == "exponential" else torch.sigmoid(m)[:, None]
        if self.loss != "cross_entropy":
            return -q * self.y[:, None], (q * slope)[:, :, None]
        own = torch.nn.functional.one_hot(self.y.long(), f.shape[1]).to(f)
        others = f.masked_fill(own > 0, -torch.inf).softmax(dim=1)
        dm = own - others
        spread = torch.diag_embed(others) - others[:, :, None] * others[:, None, :]
        outer = dm[:, :, None] * dm[:, None, :]
        return -q * dm, q[:, :, None] * (slope[:, :, None] * outer + spread)


def _gauss_newton(objective: _Objective) -> Tensor:
    """``sum_n J_n^T B_n J_n``, (P, P), some samples at a time where the network allows it."""
    net, params, x = objective.net, objective.params, objective.x
    _, B = objective.derivatives()
    N, C = B.shape[:2]
    P = sum(W.numel() for W in params.values())
    size = max(1, ENTRIES_AT_ONCE // (C * P)) if isinstance(net, Network) else N
    G = B.new_zeros(P, P)
    for part in range(0, N, size):
        some = x[part : part + size] if isinstance(net, Network) else x
        J = jacobian(net, params, some)
        J_n = J.reshape(-1, C, P)
        G.addmm_((B[part : part + size] @ J_n).reshape(-1, P).T, J)
    return _symmetric(G)


def _remainder(objective: _Objective) -> Tensor:
    """``sum_n u_n d^2 f_n``, (P, P), with u the first derivatives in the outputs."""
    net, params, x = objective.net, objective.params, objective.x
    u = objective.derivatives()[0].reshape(objective.f.shape)
    theta, where = flatten(params), layers(params)
    if not isinstance(net, Network):
        gradient = torch.func.grad(lambda t: (u * net(unflatten(t, params), x)).sum())
        return _symmetric(_rows(gradient, theta))
    # f is piecewise linear in each layer alone: the diagonal blocks of R vanish, so the rows of
    # all layers but the largest hold every other block.
    largest = max(params, key=lambda name: params[name].numel())
    few = [name for name in params if name != largest]
    R = theta.new_zeros(len(theta), len(theta))
    if few:
        index = torch.cat([torch.arange(len(theta))[where[name]] for name in few]).to(theta.device)
        gradient = torch.func.grad(lambda t: (u * net(unflatten(t, params), x)).sum())
        R[index] = _rows(lambda t: gradient(t)[index], theta)
        R[where[largest]] = R[:, where[largest]].T
    return _symmetric(R)


def _rows(gradient: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return torch.func.jacrev(gradient, chunk_size=ROWS_AT_ONCE)(theta).detach()


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


# --- Lanczos -------------------------------------------------------------------------------------

TOLERANCE = 1e-10  # residual over the largest absolute eigenvalue; never below the dtype's eps
# Enough to see whether an eigenvalue was passed over: the error of the value is the square.
SEARCH_TOLERANCE = 1e-6
SUBSPACES = (100, 300, 1000)  # dimensions of the Krylov space to try, one after another
RESTARTS = 4  # in each


class _Products:
    """Hessian-vector products from one graph, and how many were made."""

    def __init__(self, objective: _Objective) -> None:
        self._theta = flatten(objective.params).detach().requires_grad_()
        value = objective.quadratic(self._theta)
        (self._gradient,) = torch.autograd.grad(value, self._theta, create_graph=True)
        self.size, self.count = len(self._theta), 0
        # Without R the rank is at most this, and a Krylov space of one dimension more is invariant.
        self.rank = objective.f.numel()
        self.tolerance = max(TOLERANCE, torch.finfo(self._theta.dtype).eps)

    def tensor(self, v: Tensor) -> Tensor:
        self.count += 1
        if not self._gradient.requires_grad:  # f and so the gradient is constant
            return torch.zeros_like(v)
        return torch.autograd.grad(self._gradient, self._theta, v, retain_graph=True)[0]

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(vector.reshape(-1)).to(self._theta)
        return self.tensor(v).cpu().numpy().astype(np.float64)


def _radius(products: _Products, rng: np.random.Generator) -> float:
    """The largest absolute eigenvalue, to a per cent and from above."""
    start = rng.standard_normal(products.size)
    if not products(start).any():
        return 0.0
    if products.size <= 2:
        return max(np.linalg.norm(products(e)) for e in np.eye(products.size)) * 2**0.5
    operator = LinearOperator((products.size,) * 2, matvec=products, dtype=np.float64)
    largest = eigsh(
        operator, k=1, v0=start, tol=1e-2, return_eigenvectors=False, **_seeded(rng)
    )  # fmt: skip
    return 1.01 * float(abs(largest[0]))


def _seeded(rng: np.random.Generator) -> dict[str, np.random.Generator]:
    """ARPACK draws new vectors where a Krylov space ends; SciPy before 1.17 takes no generator."""
    return {"rng": rng} if "rng" in inspect.signature(eigsh).parameters else {}


def _end(
    products: _Products, radius: float, sign: float, k: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The k eigenvalues at one end, the outermost first, and their eigenvectors (P, k)."""
    P = products.size
    if k == 0 or radius == 0:
        return np.zeros(k), np.eye(P, k)
    sizes = {min(n, P) for n in SUBSPACES}
    first, last = SUBSPACES[0], min(P, SUBSPACES[-1])
    invariant = products.rank + 2 * k  # holds the whole Krylov space if R = 0
    if first < invariant < last:
        sizes = {first if invariant > 2 * first else invariant, invariant, last}
    search = _Search(products, sign / radius, sorted(sizes), rng)
    found, vectors = search.outermost(k, np.zeros((P, 0)), products.tolerance)
    while True:  # copies of a multiple eigenvalue that Lanczos has passed over
        more, more_vectors = search.outermost(1, vectors, SEARCH_TOLERANCE)
        if more[0] <= found[-1] + 10 * products.tolerance:
            return sign * radius * (found - 1), vectors
        more, more_vectors = search.outermost(1, vectors, products.tolerance)
        found, vectors = np.append(found, more), np.hstack([vectors, more_vectors])
        order = np.argsort(-found, kind="stable")[:k]
        found, vectors = found[order], vectors[:, order]


class _Search:
    """ARPACK on ``A = 1 + factor H``, in Krylov spaces that grow until it converges.

    With factor = +-1 / |H| the operator is positive semidefinite and its largest eigenvalues are
    of order one, so ARPACK's relative tolerance is what it should be also for zeros of H.
    """

    def __init__(
        self, products: _Products, factor: float, sizes: list[int], rng: np.random.Generator
    ) -> None:
        self.products, self.factor, self.rng = products, factor, rng
        self.sizes = sizes

    def outermost(
        self, k: int, known: np.ndarray, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k largest eigenvalues of A orthogonal to the columns of known, descending."""
        P = self.products.size

        def complement(v: np.ndarray) -> np.ndarray:
            return v - known @ (known.T @ v)

        def product(vector: np.ndarray) -> np.ndarray:
            v = complement(vector.reshape(-1))
            return complement(v + self.factor * self.products(v))

        operator = LinearOperator((P, P), matvec=product, dtype=np.float64)
        while self.sizes:
            size = min(P, max(self.sizes[0], 2 * k + 1))
            try:
                values, vectors = eigsh(
                    operator, k=k, which="LA", v0=complement(self.rng.standard_normal(P)),
                    ncv=size, maxiter=RESTARTS, tol=tolerance, **_seeded(self.rng),
                )  # fmt: skip
            except ArpackNoConvergence:
                del self.sizes[0]  # the next searches at this end need no less
                continue
            order = np.argsort(-values, kind="stable")
            return values[order], vectors[:, order]
        raise RuntimeError(
            f"Lanczos did not converge in a space of {size} dimensions: too many eigenvalues crowd "
            "at this end. Use spectrum(), or density() where the Hessian is too large."
        )


def _tridiagonal(product: Callable[[Tensor], Tensor], v: Tensor, num_steps: int) -> Tensor:
    """Lanczos from the unit vector v with full reorthogonalization: the matrix T, (m, m).

    It is smaller than asked for if the Krylov space of v is.
    """
    basis = [v]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(num_steps):
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        V = torch.stack(basis)
        for _ in range(2):
            w = w - V.T @ (V @ w)
        norm = float(w.norm())
        scale = max(map(abs, (*diagonal, *beside)))
        if norm <= 100 * torch.finfo(v.dtype).eps * scale:
            break
        beside.append(norm)
        basis.append(w / norm)
    m = len(diagonal)
    T = torch.diag(v.new_tensor(diagonal))
    off = v.new_tensor(beside[: m - 1])
    return T + torch.diag(off, 1) + torch.diag(off, -1)


# --- checks --------------------------------------------------------------------------------------


def _checked(net: Model | None, params: Mapping[str, Tensor]) -> Params:
    if not params:
        raise ValueError("params must hold at least one tensor, got none.")
    for name, W in params.items():
        _checks.finite(f"params[{name!r}]", W)
    if isinstance(net, Network) and next(reversed(params.values())).ndim == 3:
        M = next(iter(params.values())).shape[0]
        raise ValueError(
            f"params must be those of one network, got an ensemble of {M}: take "
            "networks.member(params, m)."
        )
    return {name: W.detach() for name, W in params.items()}


def _require_memory(theta: Tensor) -> None:
    need = COPIES * theta.element_size() * len(theta) ** 2
    if need > MEMORY:
        raise ValueError(
            f"The Hessian of {len(theta):,} parameters needs {need / 1e9:.1f} GB, more than the "
            f"{MEMORY / 1e9:.1f} GB set by MEMORY: use extremes() or density(), which need no "
            "matrix."
        )
