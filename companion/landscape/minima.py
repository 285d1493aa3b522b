"""Minima of the square loss: how degenerate they are, and families of other critical points.

The loss is ``L(W) = sum_n (f(W; x_n) - y_n)^2``, without a factor 1/2, with J the Jacobian (N, P)
of the outputs. At zero loss its Hessian is exactly ``2 J^T J``, with ``P - rank J`` zero
eigenvalues. Where ``rank J = N < P`` the zeros of the loss form a smooth valley of dimension
``P - N`` with tangent space ker J (Cooper 2021), which :func:`walk` follows. The second half of
the module embeds critical points of a small network with two layers in a larger one (Fukumizu &
Amari 2000), and certifies them in interval arithmetic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.landscape import hessian
from companion.networks import LEAKY_SLOPE, MLP, Params, stack

__all__ = [
    "Certificate",
    "Inertia",
    "Nullity",
    "SmoothMLP",
    "Walk",
    "append_unit",
    "certify",
    "critical_targets",
    "exact_jacobian",
    "exact_rank",
    "nullity",
    "onto_valley",
    "split",
    "split_inertia",
    "splitting_matrix",
    "walk",
]

Model = Callable[[Params, Tensor], Tensor]

ON_VALLEY = 1e-12  # |r| <= ON_VALLEY (1 + |y|) counts as zero loss; float64 leaves some 1e-15
FULL_RANK = 1e-9  # of the largest singular value of J: below it Newton steps lose their digits
CORRECTIONS = 6  # Newton steps per correction: convergence is quadratic
LARGEST_TURN = 0.1  # most that a correction may be of the step that it corrects
SHORTEST = 1e-8  # of the requested step: shorter ones mean that the valley ends or branches
DIGITS = 30  # of interval arithmetic

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "square": torch.square}


@dataclass(frozen=True)
class SmoothMLP:
    """Fully connected network without biases and without kinks, ``W_K s(... s(W_1 x))``.

    As :class:`companion.networks.MLP`, also for ensembles, but with activations that are smooth and
    not 1-homogeneous. A first coordinate 1 of x gives the first layer a bias.

    Args:
        widths: (d, h_1, ..., 1): input dimension, hidden widths, one output.
        activation: "tanh" or "square".

    Raises:
        TypeError, ValueError: if widths or activation are not as said.

    >>> net = SmoothMLP(widths=(2, 3, 1))
    >>> net.num_params, net(net.init(seed=0), torch.ones(4, 2, dtype=torch.float64)).shape
    (9, torch.Size([4]))
    """

    widths: tuple[int, ...]
    activation: str = "tanh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", self._linear.widths)
        _checks.choice("activation", self.activation, _ACTIVATIONS)
        if self.widths[-1] != 1:
            raise ValueError(f"widths must end in 1, got {self.widths}.")

    @property
    def _linear(self) -> MLP:
        return MLP(widths=self.widths, activation="linear")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, ("W1", ..., "WK")."""
        return self._linear.layer_names

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return self._linear.num_params

    def init(self, *, seed: int | Sequence[int], **options: Any) -> Params:
        """Draw ``W_k ~ scale * N(0, 1 / fan_in)``; arguments as for ``MLP.init``."""
        return self._linear.init(seed=seed, **options)

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return f(W; x), (N,) for x (N, d); (M, N) for an ensemble of M networks."""
        sigma = _ACTIVATIONS[self.activation]
        *inner, last = self.layer_names
        h = x
        for name in inner:
            h = sigma(h @ params[name].mT)
        return (h @ params[last].mT).squeeze(-1)


# --- counting zero eigenvalues -------------------------------------------------------------------


@dataclass(frozen=True)
class Nullity:
    """Zero eigenvalues of the Hessian at a (nearly) global minimum, beside the rank of J.

    Args:
        num_params: P.
        num_samples: N.
        rank: Rank of J, from its singular values.
        num_zero: Eigenvalues of the Hessian of absolute value at most tol.
        tol: ``|H - 2 J^T J| + P eps |H|`` in the spectral norm: by Weyl's theorem the residuals
            that are left move no eigenvalue of 2 J^T J by more than the first term, and the second
            covers the rounding of the eigenvalue solver.
        gap: Smallest eigenvalue above tol, over tol: large where the count is beyond doubt;
            infinite where there is none.
    """

    num_params: int
    num_samples: int
    rank: int
    num_zero: int
    tol: float
    gap: float


def nullity(net: Model, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Nullity:
    """Count the zero eigenvalues of the Hessian of ``sum_n (f - y)^2``, and the rank of J.

    Args:
        net: f(params, x), values (N,).
        params: Parameters of one network, where the loss is zero up to rounding.
        x: Points, (N, ...).
        y: Targets, (N,).

    Raises:
        TypeError, ValueError: for arguments that do not fit, parameters that are not finite, or a
            Hessian that would not fit into memory.

    Source: Poggio, Theory of Deep Learning (slides), "global minima are degenerate".

    >>> net, x = SmoothMLP((2, 3, 1)), torch.eye(2, dtype=torch.float64)
    >>> W = net.init(seed=0)
    >>> at = nullity(net, W, x, net(W, x))
    >>> at.rank, at.num_zero  # P = 9, N = 2
    (2, 7)
    """
    H = hessian.hessian(net, params, x, y, loss="square", reduction="sum").matrix
    G = hessian.gauss_newton(net, params, x, y, loss="square", reduction="sum").matrix
    J = hessian.jacobian(net, params, x)
    eps = torch.finfo(H.dtype).eps
    tol = float(torch.linalg.matrix_norm(H - G, 2) + len(H) * eps * torch.linalg.matrix_norm(H, 2))
    sizes = hessian.spectrum_of(hessian.Curvature(H, 0.0), tol=tol).eigenvalues.abs()
    above = sizes[sizes > tol]
    gap = float(above.min()) / tol if len(above) else math.inf
    rank = int(torch.linalg.matrix_rank(J))
    return Nullity(len(H), len(J), rank, int((sizes <= tol).sum()), tol, gap)


def exact_jacobian(
    net: MLP | SmoothMLP, params: Mapping[str, Tensor], x: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return f and J in rational arithmetic, without any rounding.

    Every float64 is a fraction, and a network whose activation is made of polynomials maps
    fractions to fractions. The derivative of the ReLU at 0 is taken as 0, as autograd does.

    Args:
        net: Network with one output; activation "relu", "linear", "leaky_relu" or "square".
        params: Weights of one network, finite.
        x: Points, (N, d).

    Returns:
        f (N,) and J (N, P), arrays of ``Fraction``; the order of the parameters is that of
        :func:`companion.landscape.hessian.flatten`.

    Raises:
        ValueError: if the activation is tanh, or numbers are not finite.

    >>> net = SmoothMLP((1, 1, 1), activation="square")
    >>> W = {"W1": torch.tensor([[0.5]]).double(), "W2": torch.tensor([[3.0]]).double()}
    >>> f, J = exact_jacobian(net, W, torch.tensor([[1.0]]).double())
    >>> str(f[0]), [str(entry) for entry in J[0]]
    ('3/4', ['3', '1/4'])
    """
    slopes = {"relu": Fraction(0), "linear": Fraction(1), "leaky_relu": Fraction(LEAKY_SLOPE)}
    _checks.choice("activation of net", net.activation, (*slopes, "square"))

    def slope(z: Fraction) -> Fraction:
        if net.activation == "square":
            return 2 * z
        return Fraction(1) if z > 0 else slopes[net.activation]

    # sigma(z) = z sigma'(z) for the homogeneous ones, and half of it for the square
    share = Fraction(1, 2) if net.activation == "square" else Fraction(1)
    *inner, last = (_fractions(f"params[{name!r}]", params[name]) for name in net.layer_names)
    outputs, rows = [], []
    for h in _fractions("x", x):
        signals, slopes_at = [h], []
        for W in inner:
            z = W @ signals[-1]
            slopes_at.append(np.array([slope(entry) for entry in z], dtype=object))
            signals.append(share * z * slopes_at[-1])
        outputs.append((last @ signals[-1])[0])
        back, parts = last[0], [signals[-1]]
        for W, signal, at in zip(inner[::-1], signals[-2::-1], slopes_at[::-1], strict=True):
            back = back * at
            parts.append(np.outer(back, signal).reshape(-1))
            back = back @ W
        rows.append(np.concatenate(parts[::-1]))
    return np.array(outputs, dtype=object), np.array(rows, dtype=object)


def exact_rank(matrix: np.ndarray) -> int:
    """Return the rank of a matrix of fractions, by elimination over the rationals.

    >>> exact_rank(np.array([[Fraction(1, 3), Fraction(1)], [Fraction(1), Fraction(3)]]))
    1
    """
    return _rational(matrix).rank()


# --- walking along the valley --------------------------------------------------------------------


def onto_valley(net: Model, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Params:
    """Return a point of zero loss near ``params``, by Gauss-Newton steps of minimum norm.

    Each step ``-J^T (J J^T)^-1 (f - y)`` is the shortest that solves the linearized equations; near
    the valley it is orthogonal to it and the residual is squared. From afar use
    :func:`companion.least_squares.levenberg_marquardt` first.

    Args:
        net: f(params, x), values (N,), differentiable.
        params: Parameters of one network, near a zero of the loss at which J has rank N.
        x: Points, (N, ...).
        y: Targets, (N,).

    Raises:
        TypeError, ValueError: for arguments that do not fit, or if J has no rank N.
        RuntimeError: if the residual does not come down to ``ON_VALLEY * (1 + |y|)``.

    >>> net, x = SmoothMLP((2, 3, 1)), torch.eye(2, dtype=torch.float64)
    >>> found = onto_valley(net, net.init(seed=0), x, torch.tensor([0.25, 0.5]).double())
    >>> [round(value, 12) for value in net(found, x).tolist()]
    [0.25, 0.5]
    """
    theta = hessian.flatten(params)
    equations = _Equations(net, params, x, y)
    frame = equations.frame(theta)
    frame.require_rank()
    moved = _correct(equations, theta, frame)
    if moved is None:
        raise RuntimeError(
            f"Newton's method did not reach zero loss from |f - y| = {frame.residual.norm():.2g}: "
            "start nearer, for example where least_squares.levenberg_marquardt has ended."
        )
    return hessian.unflatten(moved[0], params)


@dataclass(frozen=True, eq=False)
class Walk:
    """A path along the zero-loss set.

    Args:
        params: The points, an ensemble of T networks: each tensor has a leading axis T.
        distance: Length of the path up to each point, (T,), summed over straight pieces.
        loss: ``sum_n (f - y)^2`` there, (T,).
        smallest: Smallest singular value of J, (T,); zero where the valley ends or branches.
        num_rejected: Trial steps that were taken back because the valley turned too fast.
    """

    params: Params
    distance: Tensor
    loss: Tensor
    smallest: Tensor
    num_rejected: int

    def at(self, distance: float) -> Params:
        """Parameters at the recorded point nearest to that distance, one network."""
        t = int((self.distance - distance).abs().argmin())
        return {name: W[t] for name, W in self.params.items()}


def walk(
    net: Model,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    distance: float,
    direction: Tensor | None = None,
    seed: int = 0,
    step: float = 0.05,
) -> Walk:
    """Walk straight on along the zero-loss set: predict along ker J, correct across it.

    A step goes along the last direction projected onto ker J, and Gauss-Newton steps of minimum
    norm bring it back to zero loss. A correction longer than ``LARGEST_TURN`` of the step, or one
    that does not converge, halves the step; short ones let it grow up to ``step``. For small steps
    the path is a geodesic of the valley.

    Args:
        net: f(params, x), values (N,), differentiable along the way.
        params: Parameters of one network at zero loss, see :func:`onto_valley`.
        x: Points, (N, ...).
        y: Targets, (N,).
        distance: Length of the path, positive.
        direction: First direction, (P,), projected onto ker J; the default is drawn with ``seed``.
        seed: Of the drawn direction.
        step: Longest step.

    Raises:
        TypeError, ValueError: for arguments that do not fit; if the loss is not zero at the start,
            P <= N or J has not rank N there, so that there is no valley, or ``direction`` has no
            part in ker J.
        RuntimeError: if steps become too short, as they do where J loses rank. A step may jump
            across a crossing of two branches without notice.

    Source: Allgower & Georg 2003 for predictor and corrector; Cooper 2021 for the valley.

    >>> product = lambda w, x: w["a"] * w["b"] * x  # zero loss on the hyperbola a b = 1
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> path = walk(product, {"a": one, "b": one}, one, one, distance=2.0)
    >>> bool(path.loss.max() < 1e-24), round(float(path.distance[-1]), 6)
    (True, 2.0)
    """
    _checks.positive("distance", distance)
    longest = _checks.positive("step", step)
    theta = hessian.flatten(params)
    equations = _Equations(net, params, x, y)
    frame = equations.frame(theta)
    _require_valley(frame, equations)
    heading = _first_heading(theta, frame, direction, _checks.integer("seed", seed, at_least=0))
    points, frames, covered, rejected = [theta], [frame], [0.0], 0
    while covered[-1] < distance * (1 - 1e-12):
        size = min(step, distance - covered[-1])
        moved = _correct(equations, theta + size * heading, None)
        if moved is None or float((moved[0] - theta - size * heading).norm()) > LARGEST_TURN * size:
            step, rejected = size / 2, rejected + 1
            if step < SHORTEST * longest:
                raise RuntimeError(
                    f"The walk stopped after {covered[-1]:.6g}, where the smallest singular value "
                    f"of J is {frame.singular_values[-1]:.1g}: the zero-loss set ends, branches or "
                    "has a corner there."
                )
            continue
        turn = float((moved[0] - theta - size * heading).norm()) / size
        covered.append(covered[-1] + float((moved[0] - theta).norm()))
        theta, frame = moved
        heading = frame.along(heading)
        heading = heading / heading.norm()
        points.append(theta)
        frames.append(frame)
        if turn < LARGEST_TURN / 4:
            step = min(1.5 * step, longest)
    return Walk(
        stack([hessian.unflatten(point, params) for point in points]),
        theta.new_tensor(covered),
        torch.stack([f.residual.square().sum() for f in frames]),
        torch.stack([f.singular_values[-1] for f in frames]),
        rejected,
    )


@dataclass(frozen=True, eq=False)
class _Frame:
    """Residual r (N,) and ``J^T = Q R`` with Q (P, N) orthonormal across the valley."""

    residual: Tensor
    Q: Tensor
    R: Tensor

    @functools.cached_property
    def singular_values(self) -> Tensor:
        """Of J, (N,), descending; zeros where it has fewer rows than columns."""
        values = torch.linalg.svdvals(self.R)
        return torch.cat([values, values.new_zeros(len(self.residual) - len(values))])

    @property
    def has_rank(self) -> bool:
        return bool(self.singular_values[-1] > FULL_RANK * self.singular_values[0])

    def step(self) -> Tensor:
        """The Gauss-Newton step of minimum norm, ``-Q R^-T r``."""
        across = torch.linalg.solve_triangular(self.R.T, self.residual[:, None], upper=False)
        return -(self.Q @ across).squeeze(-1)

    def along(self, vector: Tensor) -> Tensor:
        """The part of a vector in ker J."""
        for _ in range(2):  # once more takes away what rounding left
            vector = vector - self.Q @ (self.Q.T @ vector)
        return vector

    def require_rank(self) -> None:
        if not self.has_rank:
            low, high = float(self.singular_values[-1]), float(self.singular_values[0])
            raise ValueError(
                f"J must have rank N = {len(self.residual)}, the number of samples, but its "
                f"singular values fall from {high:.2g} to {low:.2g}: leave out repeated samples, "
                "or start elsewhere."
            )


class _Equations:
    """``f(theta; x) - y`` and its Jacobian, as functions of one vector of parameters."""

    def __init__(self, net: Model, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> None:
        for name, W in params.items():
            _checks.finite(f"params[{name!r}]", W)
        with torch.no_grad():
            f = net(dict(params), x)
        if f.ndim != 1:
            raise ValueError(f"net must return one number per sample, got shape {tuple(f.shape)}.")
        _checks.shape("y", _checks.finite("y", y), f.shape)
        self.net, self.like, self.x, self.y = net, dict(params), x, y
        self.tol = ON_VALLEY * (1 + float(y.norm()))

    def frame(self, theta: Tensor) -> _Frame:
        at = hessian.unflatten(theta, self.like)
        with torch.no_grad():
            residual = self.net(at, self.x) - self.y
        return _Frame(residual, *torch.linalg.qr(hessian.jacobian(self.net, at, self.x).T))


def _correct(
    equations: _Equations, theta: Tensor, frame: _Frame | None
) -> tuple[Tensor, _Frame] | None:
    """Newton steps across the valley; None unless they converge."""
    frame = equations.frame(theta) if frame is None else frame
    for _ in range(CORRECTIONS):
        if frame.residual.norm() <= equations.tol:
            return theta, frame
        if not frame.has_rank:
            return None
        theta = theta + frame.step()
        if not torch.isfinite(theta).all():
            return None
        frame = equations.frame(theta)
    return (theta, frame) if frame.residual.norm() <= equations.tol else None


def _require_valley(frame: _Frame, equations: _Equations) -> None:
    num_params, num_samples = len(frame.Q), len(frame.residual)
    loss = float(frame.residual.square().sum())
    if not frame.residual.norm() <= equations.tol:
        raise ValueError(
            f"params must be a point of zero loss, got {loss:.3g} for sum_n (f - y)^2: "
            "go there with onto_valley() first."
        )
    if num_params <= num_samples:
        raise ValueError(
            f"There is no valley to walk along with P = {num_params} parameters and N = "
            f"{num_samples} samples, its dimension is P - N: take P > N."
        )
    frame.require_rank()


def _first_heading(theta: Tensor, frame: _Frame, direction: Tensor | None, seed: int) -> Tensor:
    if direction is None:
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    _checks.shape("direction", _checks.finite("direction", direction), theta.shape)
    along = frame.along(direction)
    if along.norm() <= 1e-8 * direction.norm():
        raise ValueError("direction must have a part in ker J, got one that leads off the valley.")
    return along / along.norm()


# --- critical points of a smaller network --------------------------------------------------------


def split(params: Mapping[str, Tensor], unit: int, shares: Sequence[float]) -> Params:
    """Replace a hidden unit by copies of itself that share its outgoing weight.

    ``v s(a x)`` becomes ``sum_i shares[i] v s(a x)``: the same function, and if ``params`` is a
    critical point so is the result, for all shares with sum 1.

    Args:
        params: Weights of a network with two layers, W1 (h, d) and W2 (1, h).
        unit: Index of the hidden unit, 0 .. h - 1.
        shares: m numbers with sum 1, of any sign.

    Returns:
        W1 (h + m - 1, d) and W2 (1, h + m - 1); the copies take the place of the unit.

    Raises:
        TypeError, ValueError: if arguments are not as said.

    Source: Fukumizu & Amari 2000, Theorem 1.

    >>> W = {"W1": torch.tensor([[2.0, 1.0]]), "W2": torch.tensor([[4.0]])}
    >>> split(W, 0, [0.25, 0.75])["W2"]
    tensor([[1., 3.]])
    """
    W1, W2 = _two_layers(params)
    unit = _unit(unit, W1)
    part = torch.as_tensor(shares, dtype=W2.dtype, device=W2.device)
    if part.ndim != 1 or not len(part) or abs(float(part.sum()) - 1) > 1e-12:
        raise ValueError(f"shares must be numbers with sum 1, got {shares}.")
    copies = W1[unit].expand(len(part), -1)
    return {
        "W1": torch.cat([W1[:unit], copies, W1[unit + 1 :]]),
        "W2": torch.cat([W2[:, :unit], part * W2[:, unit : unit + 1], W2[:, unit + 1 :]], dim=1),
    }


def append_unit(params: Mapping[str, Tensor], a: Tensor, v: float) -> Params:
    """Add a hidden unit with incoming weights a (d,) and outgoing weight v as the last one.

    If it is inactive on all samples (a ReLU with ``a x_n < 0``), a critical point stays one,
    whatever v is.

    >>> W = {"W1": torch.tensor([[2.0, 1.0]]), "W2": torch.tensor([[4.0]])}
    >>> append_unit(W, torch.tensor([-1.0, 0.0]), 7.0)["W2"]
    tensor([[4., 7.]])
    """
    W1, W2 = _two_layers(params)
    _checks.shape("a", _checks.finite("a", a), W1.shape[1:])
    return {"W1": torch.cat([W1, a[None]]), "W2": torch.cat([W2, W2.new_tensor([[float(v)]])], 1)}


def splitting_matrix(
    net: SmoothMLP, params: Mapping[str, Tensor], unit: int, x: Tensor, y: Tensor
) -> Tensor:
    """Return ``B = 2 v sum_n (f(x_n) - y_n) s''(a x_n) x_n x_n^T`` of a hidden unit, (d, d).

    Its signs decide whether splitting the unit at a local minimum of the loss gives minima or
    saddles, see :func:`split_inertia`.

    Args:
        net: Network with two layers.
        params: Its weights.
        unit: Index of the hidden unit.
        x: Points, (N, d).
        y: Targets, (N,).

    Raises:
        TypeError, ValueError: if arguments are not as said.

    Source: Fukumizu & Amari 2000.
    """
    W1, W2 = _two_layers(params)
    unit = _unit(unit, W1)
    weight = 2 * W2[0, unit] * (net(params, x) - y) * _second(net.activation, x @ W1[unit])
    return torch.einsum("n,ni,nj->ij", weight, x, x)


@dataclass(frozen=True)
class Inertia:
    """Numbers of negative, zero and positive eigenvalues of a symmetric matrix."""

    negative: int
    zero: int
    positive: int


def split_inertia(small: Inertia, splitting: Inertia, shares: Sequence[float]) -> Inertia:
    """Return the inertia of the Hessian after :func:`split`, from those of H and B before.

    In the coordinates "weighted mean of the copies, differences of the copies" the Hessian of the
    larger network falls apart into that of the smaller one, one copy of B per difference, with the
    sign of ``sum_i shares[i] |difference_i|^2`` on ``sum_i shares[i] difference_i = 0``, and m - 1
    zeros along the shares. That form has as many negative directions as there are negative shares,
    and one positive direction fewer than there are positive ones.

    Args:
        small: Inertia of the Hessian at the critical point of the smaller network.
        splitting: Inertia of :func:`splitting_matrix`.
        shares: As for :func:`split`.

    Source: Fukumizu & Amari 2000, for two copies.

    >>> split_inertia(Inertia(0, 0, 3), Inertia(0, 0, 2), [0.5, 0.5])  # a line of minima
    Inertia(negative=0, zero=1, positive=5)
    >>> split_inertia(Inertia(0, 0, 3), Inertia(0, 0, 2), [1.5, -0.5])  # saddles
    Inertia(negative=2, zero=1, positive=3)
    """
    up, down = sum(s > 0 for s in shares) - 1, sum(s < 0 for s in shares)
    none = sum(s == 0 for s in shares)
    size = splitting.negative + splitting.zero + splitting.positive
    return Inertia(
        small.negative + up * splitting.negative + down * splitting.positive,
        small.zero + (len(shares) - 1) + (up + down) * splitting.zero + none * size,
        small.positive + up * splitting.positive + down * splitting.negative,
    )


def critical_targets(net: MLP | SmoothMLP, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return targets y that make ``params`` an exact critical point with positive loss.

    ``grad L = 2 J^T (f - y)`` vanishes where f - y is orthogonal to the columns of J. Over the
    rationals such a vector is found exactly, and scaled to integers.

    Args:
        net, params, x: As for :func:`exact_jacobian`.

    Returns:
        y (N,), for which the gradient is zero in rational arithmetic, with no rounding in y.

    Raises:
        ValueError: if J has rank N, so that zero loss is the only way, or if an entry of y has too
            many digits for a float64; simpler weights help.

    >>> line, x = MLP((1, 1)), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> critical_targets(line, {"W1": torch.tensor([[3.0]]).double()}, x)
    tensor([5., 5.], dtype=torch.float64)
    """
    f, J = exact_jacobian(net, params, x)
    kernel = _rational(J.T).nullspace().to_Matrix()
    if not kernel.rows:
        raise ValueError(f"J must have a rank below N = {len(f)}: take fewer parameters.")
    row = [Fraction(int(q.p), int(q.q)) for q in kernel.row(0)]
    row = [entry * math.lcm(*(e.denominator for e in row)) for entry in row]
    row = [entry / math.gcd(*(e.numerator for e in row)) for entry in row]
    exact = [value - entry for value, entry in zip(f, row, strict=True)]
    y = [float(value) for value in exact]
    if [Fraction(value) for value in y] != exact:
        raise ValueError("y needs more digits than a float64 has: take weights with few digits.")
    return torch.tensor(y, dtype=torch.float64, device=x.device)


# --- certificates --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What interval arithmetic has proved about a critical point of a network with two layers.

    Args:
        params: Centre of the box.
        radius: The box ``|W - centre| <= radius`` in each weight holds exactly one critical point.
        loss: Bounds of ``sum_n (f - y)^2`` there.
        hessian: Inertia of the Hessian there.
        splitting: Inertia of the splitting matrix of each hidden unit there.
    """

    params: Params
    radius: float
    loss: tuple[float, float]
    hessian: Inertia
    splitting: tuple[Inertia, ...]


def certify(
    net: SmoothMLP,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    radius: float = 1e-10,
) -> Certificate:
    """Prove that there is a nondegenerate critical point near ``params``, and bound it.

    Newton's method in float64 finds the centre; the operator of Krawczyk, evaluated with intervals
    that contain all rounding errors, must map the box of that radius into its own interior.

    Args:
        net: A tanh network with two layers and few weights: interval arithmetic is slow. (The
            critical points of a homogeneous network are degenerate, being free to rescale.)
        params: Weights near a critical point of ``sum_n (f - y)^2``.
        x: Points, (N, d).
        y: Targets, (N,).
        radius: Half the width of the box.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        RuntimeError: if the proof fails: no convergence, a degenerate Hessian, or a radius that
            is too large.

    Source: Krawczyk 1969; Fukumizu & Amari 2000 for what the splitting matrices are good for.

    >>> net, x = SmoothMLP((1, 1, 1)), torch.tensor([[1.0], [2.0], [3.0]]).double()
    >>> W, y = {"W1": torch.tensor([[0.5]]).double()}, torch.tensor([0.4, 1.0, 0.8]).double()
    >>> proved = certify(net, {**W, "W2": torch.ones(1, 1).double()}, x, y)
    >>> proved.radius < 1e-14, [round(bound, 9) for bound in proved.loss]
    (True, [0.065030036, 0.065030036])
    """
    if len(net.widths) != 3 or net.activation != "tanh":
        raise ValueError(f"net must be a tanh network with two layers, got {net}.")
    radius = _checks.positive("radius", radius)
    centre = _newton(net, params, x, y)
    box = _Intervals(net, x, y)
    middle = [box.ctx.mpf(value) for value in centre.tolist()]
    wide = [m + box.ctx.mpf([-radius, radius]) for m in middle]
    Y = torch.linalg.pinv(_curvature(net, centre, params, x, y)).tolist()
    image = box.krawczyk(middle, wide, Y)
    inside = all(w.a < i.a and i.b < w.b for w, i in zip(wide, image, strict=True))
    if not inside:
        raise RuntimeError(
            f"No proof: the Krawczyk operator does not map the box of radius {radius:.1g} into "
            "itself. The critical point may be degenerate; or try another radius."
        )
    spread = max(_outward(abs(i - m))[1] for i, m in zip(image, middle, strict=True))
    return Certificate(
        hessian.unflatten(centre, params),
        spread,
        _outward(box.loss(image)),
        box.inertia(box.derivatives(image)[1]),
        tuple(box.inertia(box.splitting(image, unit)) for unit in range(net.widths[1])),
    )


class _Intervals:
    """Loss, gradient and Hessian of a two-layer tanh network in interval arithmetic."""

    def __init__(self, net: SmoothMLP, x: Tensor, y: Tensor) -> None:
        from mpmath.ctx_iv import MPIntervalContext  # its own context: no global precision to set

        self.ctx = MPIntervalContext()
        self.ctx.dps = DIGITS
        self.d, self.h = net.widths[0], net.widths[1]
        self.x = [[self.ctx.mpf(value) for value in row] for row in x.tolist()]
        self.y = [self.ctx.mpf(value) for value in y.tolist()]

    def _sigma(self, z: Any) -> tuple[Any, Any, Any]:
        """tanh and its first two derivatives."""
        t = 1 - 2 / (self.ctx.exp(2 * z) + 1)  # z occurs once: the narrowest interval
        return t, 1 - t**2, -2 * t * (1 - t**2)

    def _units(self, theta: list[Any], point: list[Any]) -> list[tuple[Any, Any, Any]]:
        rows = (theta[j * self.d : (j + 1) * self.d] for j in range(self.h))
        return [self._sigma(self._dot(row, point)) for row in rows]

    def _residual(self, theta: list[Any], units: list[tuple[Any, Any, Any]], target: Any) -> Any:
        return self._dot(theta[self.h * self.d :], [s for s, _, _ in units]) - target

    def _dot(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        return sum((p * q for p, q in zip(a, b, strict=True)), self.ctx.mpf(0))

    def loss(self, theta: list[Any]) -> Any:
        pairs = zip(self.x, self.y, strict=True)
        residuals = [self._residual(theta, self._units(theta, p), t) for p, t in pairs]
        return sum((r**2 for r in residuals), self.ctx.mpf(0))

    def derivatives(self, theta: list[Any]) -> tuple[list[Any], list[list[Any]]]:
        """Gradient (P,) and Hessian (P, P) of the loss."""
        d, h, P = self.d, self.h, len(theta)
        gradient = [self.ctx.mpf(0)] * P
        H = [[self.ctx.mpf(0)] * P for _ in range(P)]
        for point, target in zip(self.x, self.y, strict=True):
            units = self._units(theta, point)
            r = self._residual(theta, units, target)
            slopes = [theta[h * d + j] * units[j][1] * point[i] for j in range(h) for i in range(d)]
            slopes += [s for s, _, _ in units]
            second = [[self.ctx.mpf(0)] * P for _ in range(P)]  # of f at this point
            for j, (_, first, curve) in enumerate(units):
                for i in range(d):
                    second[j * d + i][h * d + j] = second[h * d + j][j * d + i] = first * point[i]
                    for k in range(d):
                        bend = theta[h * d + j] * curve * point[i] * point[k]
                        second[j * d + i][j * d + k] = bend
            for p in range(P):
                gradient[p] += 2 * r * slopes[p]
                for q in range(P):
                    H[p][q] += 2 * (slopes[p] * slopes[q] + r * second[p][q])
        return gradient, H

    def splitting(self, theta: list[Any], unit: int) -> list[list[Any]]:
        B = [[self.ctx.mpf(0)] * self.d for _ in range(self.d)]
        for point, target in zip(self.x, self.y, strict=True):
            units = self._units(theta, point)
            r = self._residual(theta, units, target)
            weight = 2 * theta[self.h * self.d + unit] * r * units[unit][2]
            for i in range(self.d):
                for k in range(self.d):
                    B[i][k] += weight * point[i] * point[k]
        return B

    def krawczyk(self, middle: list[Any], box: list[Any], Y: list[list[float]]) -> list[Any]:
        """``m - Y grad L(m) + (I - Y H(box)) (box - m)``."""
        gradient, _ = self.derivatives(middle)
        _, H = self.derivatives(box)
        offset = [b - m for b, m in zip(box, middle, strict=True)]
        image = []
        for p, row in enumerate(Y):
            row = [self.ctx.mpf(value) for value in row]
            rest = [
                self.ctx.mpf(int(p == q)) - self._dot(row, [line[q] for line in H])
                for q in range(len(box))
            ]
            image.append(middle[p] - self._dot(row, gradient) + self._dot(rest, offset))
        return image

    def inertia(self, matrix: list[list[Any]]) -> Inertia:
        """Signs of the pivots of Gaussian elimination, which are those of the eigenvalues."""
        rows, negative, positive = [list(row) for row in matrix], 0, 0
        while rows:
            pivot = rows[0][0]
            if pivot.a <= 0 <= pivot.b:
                raise RuntimeError("No proof: a pivot of the Hessian or of B may be zero.")
            negative, positive = negative + (pivot.b < 0), positive + (pivot.a > 0)
            first, *others = rows
            rows = [
                [row[k] - row[0] * first[k] / pivot for k in range(1, len(first))] for row in others
            ]
        return Inertia(int(negative), 0, int(positive))


def _outward(interval: Any) -> tuple[float, float]:
    """Bounds of an interval in float64, rounded away from its middle."""
    return math.nextafter(float(interval.a), -math.inf), math.nextafter(float(interval.b), math.inf)


def _newton(net: Model, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Weights (P,) at which Newton's method for grad L = 0 has stopped improving."""
    theta = hessian.flatten(params)
    best, least = theta, math.inf
    for _ in range(20):
        residual = net(hessian.unflatten(theta, params), x) - y
        J = hessian.jacobian(net, hessian.unflatten(theta, params), x)
        gradient = 2 * J.T @ residual
        if not float(gradient.norm()) < least:
            break
        best, least = theta, float(gradient.norm())
        theta = theta - torch.linalg.pinv(_curvature(net, theta, params, x, y)) @ gradient
    return best


def _curvature(
    net: Model, theta: Tensor, like: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> Tensor:
    at = hessian.unflatten(theta, like)
    return hessian.hessian(net, at, x, y, loss="square", reduction="sum").matrix


def _second(activation: str, z: Tensor) -> Tensor:
    t = torch.tanh(z)
    return torch.full_like(z, 2.0) if activation == "square" else -2 * t * (1 - t**2)


def _two_layers(params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    if tuple(params) != ("W1", "W2"):
        raise ValueError(f"params must be those of two layers, W1 and W2, got {tuple(params)}.")
    W1, W2 = _checks.finite("params['W1']", params["W1"]), _checks.finite("W2", params["W2"])
    if W1.ndim != 2:
        raise ValueError(f"params['W1'] must have shape (h, d), got {tuple(W1.shape)}.")
    _checks.shape("params['W2']", W2, (1, len(W1)))
    return W1, W2


def _unit(unit: int, W1: Tensor) -> int:
    unit = _checks.integer("unit", unit, at_least=0)
    if unit >= len(W1):
        raise ValueError(f"unit must be below the {len(W1)} hidden units, got {unit}.")
    return unit


def _fractions(name: str, values: Tensor) -> np.ndarray:
    values = _checks.finite(name, values).detach()
    flat = [Fraction(value) for value in values.reshape(-1).tolist()]
    return np.array(flat, dtype=object).reshape(tuple(values.shape))


def _rational(matrix: np.ndarray) -> Any:
    """A SymPy matrix over the rationals."""
    from sympy import QQ
    from sympy.polys.matrices import DomainMatrix

    rows = [[QQ(entry.numerator, entry.denominator) for entry in row] for row in matrix]
    return DomainMatrix(rows, matrix.shape, QQ)
