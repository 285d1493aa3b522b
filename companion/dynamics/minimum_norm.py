"""Roads to the solution of minimum norm: Halpern iterations, vanishing weight decay, square loss.

A gradient step T(w) = w - lr grad L(w) on a convex loss whose gradient is c-Lipschitz is
nonexpansive for lr <= 2/c: it never takes two points apart. For such maps Halpern's iteration
finds, among all fixed points, the one nearest to its anchor; anchored at 0 it is gradient descent
with weight decay that vanishes. For the loss of a network T is in general expansive, and the
theorem is silent.

The square loss is the sum ``sum_n (y_n - f(x_n))^2``, without a factor 1/2 or 1/N, as on the
slides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion import _checks
from companion.networks import Network, Params, layer_norms

__all__ = [
    "DecayedDescent",
    "SquareFlow",
    "decayed_descent",
    "expansion",
    "gradient_step",
    "halpern",
    "least_squares_flow",
    "minimum_norm_solution",
    "square_loss_flow",
]

Map = Callable[[Tensor], Tensor]
Schedule = Callable[[int], float]


def halpern(T: Map, start: Tensor, *, anchor: Tensor, weights: Schedule, steps: int) -> Tensor:
    """Return the path of ``w_{n+1} = a_n anchor + (1 - a_n) T(w_n)``.

    If T is nonexpansive and has a fixed point, a_n -> 0, sum a_n = infinity and
    sum |a_{n+1} - a_n| < infinity, then w_n tends to the fixed point nearest to the anchor. With
    a_n = 1 / (n + 2) and w_0 = anchor, ``|w_n - T w_n| <= 2 |w_0 - w*| / (n + 1)``.

    Args:
        T: The map, from tensors (d,) to tensors (d,).
        start: w_0, (d,).
        anchor: The point that the iteration is drawn to, (d,). Halpern starts from it.
        weights: a_n as a function of n = 0, 1, ..., in [0, 1].
        steps: Number of steps.

    Returns:
        (steps + 1, d), w_0 first.

    Raises:
        TypeError, ValueError: if shapes differ, a weight leaves [0, 1], or steps is not positive.
        FloatingPointError: if the iteration diverges, with the step at which it did.

    Source: Halpern 1967; Wittmann 1992, Thm 2; Lieder 2021, Thm 2.1 (the rate).

    >>> flip = lambda w: -w  # its only fixed point is 0
    >>> path = halpern(flip, torch.ones(1), anchor=torch.ones(1), weights=lambda n: 1 / (n + 2),
    ...                steps=3)
    >>> path[:, 0].abs().tolist()[1:3]
    [0.0, 0.3333333432674408]
    """
    _checks.finite("start", start)
    _checks.shape("anchor", _checks.finite("anchor", anchor), start.shape)
    steps = _checks.integer("steps", steps, at_least=1)
    path = start.new_empty(steps + 1, *start.shape)
    path[0] = start
    for n in range(steps):
        a = float(weights(n))
        if not 0 <= a <= 1:
            raise ValueError(f"weights must lie in [0, 1], got {a} at n = {n}.")
        path[n + 1] = a * anchor + (1 - a) * T(path[n])
        if not bool(torch.isfinite(path[n + 1]).all()):
            raise FloatingPointError(f"The iteration diverged at step {n + 1}.")
    return path


def gradient_step(loss: Map, lr: float) -> Map:
    """Return the map ``T(w) = w - lr grad loss(w)``.

    Args:
        loss: A differentiable function from tensors (d,) to tensors ().
        lr: Step size.

    Raises:
        TypeError, ValueError: if lr is not a positive number.

    >>> T = gradient_step(lambda w: (w**2).sum(), lr=0.25)
    >>> T(torch.tensor([2.0, 4.0]))
    tensor([1., 2.])
    """
    lr = _checks.positive("lr", lr)
    gradient = torch.func.grad(loss)
    return lambda w: w - lr * gradient(w)


def expansion(T: Map, w: Tensor) -> float:
    """Return the largest factor by which T stretches a small difference at w: |DT(w)|_2.

    Above 1, T takes some neighbouring points apart and is not nonexpansive. For a gradient step
    it is the largest |1 - lr h| over the eigenvalues h of the Hessian.

    >>> T = gradient_step(lambda w: (w[0] * w[1] - 1) ** 2, lr=0.1)
    >>> round(expansion(T, torch.zeros(2, dtype=torch.float64)), 12)
    1.2
    """
    return float(torch.linalg.matrix_norm(torch.func.jacrev(T)(_checks.finite("w", w)), ord=2))


def minimum_norm_solution(x: Tensor, y: Tensor, *, nearest_to: Tensor | None = None) -> Tensor:
    """Return the least squares solution nearest to a point, by default to 0.

    Args:
        x: Points, (N, d).
        y: Targets, (N,).
        nearest_to: (d,).

    Returns:
        ``u + x^+ (y - x u)`` for the point u, (d,).

    Raises:
        TypeError, ValueError: if shapes do not fit.

    >>> minimum_norm_solution(torch.tensor([[1.0, 1.0]]), torch.tensor([2.0]))
    tensor([1.0000, 1.0000])
    """
    u = _start(x, y, nearest_to)
    return u + torch.linalg.pinv(x) @ (y - x @ u)


def least_squares_flow(
    x: Tensor, y: Tensor, start: Tensor, times: Sequence[float] | Tensor
) -> Tensor:
    """Return w(t) along ``dw/dt = 2 sum_n E_n x_n``, E_n = y_n - w . x_n, in closed form.

    Along right singular vector i of x, w - w* decays like exp(-2 s_i^2 t); where s_i = 0 it stays.
    Here w* is the least squares solution nearest to the start.

    Args:
        x: Points, (N, d).
        y: Targets, (N,).
        start: w(0), (d,).
        times: t >= 0, (T,).

    Returns:
        (T, d).

    Raises:
        TypeError, ValueError: if shapes do not fit or a time is negative.

    Source: Poggio, Theory of Deep Learning (slides), one linear layer under the square loss.

    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([3.0])
    >>> least_squares_flow(x, y, torch.tensor([0.0, 5.0]), [0.0, 100.0])
    tensor([[0., 5.],
            [3., 5.]])
    """
    start = _start(x, y, start)
    t = torch.as_tensor(times, dtype=x.dtype, device=x.device)
    if t.ndim != 1 or not bool((t >= 0).all()):
        raise ValueError(f"times must be a sequence of numbers at least 0, got {times!r:.80}.")
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    rest = vt @ start  # coordinates of w(0), and of where w goes: those that x sees
    cutoff = s.max() * max(x.shape) * torch.finfo(x.dtype).eps
    goal = torch.where(s > cutoff, (u.T @ y) / s.clamp(min=cutoff), rest)
    moved = (goal - rest) * -torch.expm1(-2 * s**2 * t[:, None])
    return start + moved @ vt


@dataclass(frozen=True, eq=False)
class SquareFlow:
    """Gradient flow of the square loss of a network, at T times.

    Attributes:
        times: (T,).
        errors: (T, N) E_n = y_n - f(W; x_n).
        rho: (T, K) layer norms.
        params: the weights at the end.
    """

    times: Tensor
    errors: Tensor
    rho: Tensor
    params: Params


def square_loss_flow(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    times: Sequence[float] | Tensor,
    *,
    rtol: float = 1e-9,
) -> SquareFlow:
    """Follow ``dW_k/dt = 2 sum_n E_n df(W; x_n)/dW_k`` with SciPy's DOP853.

    By homogeneity ``d rho_k^2/dt = 4 sum_n E_n f(W; x_n)`` for every layer, as in Lemma 1, but
    where the errors vanish the norms come to rest.

    Args:
        net: Network with one output.
        params: Weights at t = 0, one network.
        x: Points, (N, d).
        y: Targets, (N,), real numbers.
        times: t >= 0 in ascending order; the first is where ``params`` are.
        rtol: Relative tolerance of the integrator; the absolute one is 1e-3 times it.

    Raises:
        TypeError, ValueError: if the data or times do not fit.
        RuntimeError: if the integrator gives up.

    Source: Poggio, Theory of Deep Learning (slides), dynamical system of gradient descent.
    """
    from scipy.integrate import solve_ivp

    _checks.finite("x", x)
    _checks.shape("y", _checks.finite("y", y), x.shape[:1])
    t = np.asarray(times, dtype=float)
    if t.ndim != 1 or len(t) < 2 or not (np.diff(t) > 0).all():
        raise ValueError("times must be two or more numbers in ascending order.")
    shapes = [W.shape for W in params.values()]
    sizes = [W.numel() for W in params.values()]

    def unpack(z: np.ndarray) -> Params:
        pieces = torch.as_tensor(z, dtype=x.dtype).split(sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(params, pieces, shapes, strict=True)
        }

    def velocity(_: float, z: np.ndarray) -> np.ndarray:
        f, pullback = net.vjp(unpack(z), x)
        return torch.cat([g.reshape(-1) for g in pullback(2 * (y - f)).values()]).numpy()

    z0 = torch.cat([W.detach().reshape(-1) for W in params.values()]).numpy()
    found = solve_ivp(velocity, (t[0], t[-1]), z0, "DOP853", t_eval=t, rtol=rtol, atol=1e-3 * rtol)
    if not found.success:
        raise RuntimeError(f"The integrator stopped: {found.message}")
    weights = [unpack(np.ascontiguousarray(z)) for z in found.y.T]
    with torch.no_grad():
        errors = torch.stack([y - net(W, x) for W in weights])
    return SquareFlow(
        torch.from_numpy(t), errors, torch.stack([layer_norms(W) for W in weights]), weights[-1]
    )


@dataclass(frozen=True, eq=False)
class DecayedDescent:
    """Gradient descent on the mean square error of M networks, with a weight decay of its own.

    Attributes:
        loss: (T, M) mean square error at the records.
        squared_norm: (T, M) sum_k rho_k^2.
        steps: (T,) steps taken at the records.
        params: the weights at the end, with a leading axis M.
    """

    loss: Tensor
    squared_norm: Tensor
    steps: Tensor
    params: Params


def decayed_descent(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    lr: float,
    decay: Schedule,
    steps: int,
    record_every: int = 10,
) -> DecayedDescent:
    """Run ``W <- (1 - a_n) (W - lr grad L)``, L the mean square error: Halpern's scheme for T.

    With a_n = 0 it is gradient descent; otherwise a Halpern iteration anchored at 0, that is
    weight decay applied after the step.

    Args:
        net: Network with one output.
        params: Weights of M networks to start from, with a leading axis M.
        x: Points, (N, d).
        y: Targets, (N,).
        lr: Step size.
        decay: a_n as a function of n = 0, 1, ..., in [0, 1).
        steps: Number of steps.
        record_every: Steps between records.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        FloatingPointError: if the weights diverge.

    Source: Theory III abstract (arXiv:1903.04991v2), the "NMGD version" of gradient descent.
    """
    _checks.finite("x", x)
    _checks.shape("y", _checks.finite("y", y), x.shape[:1])
    lr = _checks.positive("lr", lr)
    steps = _checks.integer("steps", steps, at_least=1)
    record_every = _checks.integer("record_every", record_every, at_least=1)
    W = {name: W_k.detach().clone() for name, W_k in params.items()}
    losses, norms, at = [], [], []
    for n in range(steps + 1):
        f, pullback = net.vjp(W, x)
        if f.ndim != 2:
            raise ValueError("params must be those of an ensemble, with a leading axis M.")
        if n % record_every == 0 or n == steps:
            losses.append((f - y).square().mean(dim=-1))
            norms.append(layer_norms(W).square().sum(dim=-1))
            at.append(n)
            if not bool(torch.isfinite(losses[-1]).all()):
                raise FloatingPointError(f"The weights diverged by step {n}; lower lr={lr}.")
        if n < steps:
            a = float(decay(n))
            if not 0 <= a < 1:
                raise ValueError(f"decay must lie in [0, 1), got {a} at n = {n}.")
            gradient = pullback(2 / len(y) * (f - y))
            W = {name: (1 - a) * (W_k - lr * gradient[name]) for name, W_k in W.items()}
    return DecayedDescent(torch.stack(losses), torch.stack(norms), torch.tensor(at), W)


def _start(x: Tensor, y: Tensor, start: Tensor | None) -> Tensor:
    _checks.finite("x", x)
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(f"x must have shape (N, d), got {tuple(x.shape)}.")
    _checks.shape("y", _checks.finite("y", y), x.shape[:1])
    if start is None:
        return x.new_zeros(x.shape[1])
    return _checks.shape("start", _checks.finite("start", start), x.shape[1:])
