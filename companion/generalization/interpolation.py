"""Minimum norm interpolation, its leave-one-out errors and its expected error, in closed form.

A linear model ``f(x) = x . w`` of D features is fitted to N samples, the rows of X (N, D). Where
D >= rank X = N it can interpolate in many ways, and ``w = X^+ y`` is the way of smallest norm; from
any other point u the nearest interpolant is ``u + X^+ (y - X u)``. In every function x is
(..., N, D), with any leading batch axes, and y is (..., N), or (..., N, C) for C outputs at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from companion import _checks

__all__ = [
    "classification_error",
    "descent_path",
    "expected_error",
    "interpolant",
    "leave_one_out",
    "novelties",
    "relu_features",
    "sensitivities",
]


def relu_features(x: Tensor, num_features: int, *, seed: int) -> Tensor:
    """Return D random ReLU features ``sqrt(2 / D) max(0, x . u_j)``, (N, D).

    The directions u_j have independent normal entries, so the kernel ``phi(x) . phi(x')`` tends
    to the arc-cosine kernel as D grows, with ``|phi(x)|`` near ``|x|``. With the same seed the
    features for a smaller D are the first ones of those for a larger D, up to the factor
    ``sqrt(2 / D)``.

    Args:
        x: Points, (N, d). A bias is a constant coordinate of x.
        num_features: D.
        seed: Seed of the directions.

    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Rahimi & Recht 2007; Cho & Saul 2009 for the kernel; Mei & Montanari 2022.

    >>> x = torch.eye(3, dtype=torch.float64)
    >>> few, many = relu_features(x, 5, seed=0), relu_features(x, 20, seed=0)
    >>> torch.allclose(few, 2 * many[:, :5])
    True
    """
    _checks.finite("x", x)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (N, d), got {tuple(x.shape)}.")
    count = _checks.integer("num_features", num_features, at_least=1)
    seed = _checks.integer("seed", seed, at_least=0)
    # NumPy draws one number after the other: a longer list starts with the shorter one.
    directions = np.random.default_rng(seed).standard_normal((count, x.shape[1]))
    return (x @ torch.as_tensor(directions).to(x).T).clamp(min=0) * math.sqrt(2 / count)


def interpolant(x: Tensor, y: Tensor, *, nearest_to: Tensor | None = None) -> Tensor:
    """Return the least squares solution nearest to a point u: ``u + X^+ (y - X u)``.

    Args:
        x: Features, (..., N, D).
        y: Targets, (..., N) or (..., N, C).
        nearest_to: u, of the shape of the result or one that broadcasts to it; 0 if left out.

    Returns:
        (..., D) or (..., D, C).

    Raises:
        TypeError, ValueError: if data do not fit.

    >>> x, y = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([2.0]).double()
    >>> interpolant(x, y, nearest_to=torch.tensor([3.0, 0.0]).double())
    tensor([ 2.5000, -0.5000], dtype=torch.float64)
    """
    residual, vector = _residual(x, y, nearest_to)
    w = (torch.linalg.pinv(x) @ residual).squeeze(-1 if vector else ())
    return w if nearest_to is None else w + nearest_to


def leave_one_out(x: Tensor, y: Tensor, *, nearest_to: Tensor | None = None) -> Tensor:
    """Return what each sample's target misses by when it is left out of the fit, without refits.

    The n-th entry is ``y_n - x_n . w_n`` with w_n the least squares solution on the other N - 1
    samples that is nearest to u. The ridge formula ``[A y]_n / A_nn``, A = (K + lambda)^{-1} and
    K = X X^T, has a limit as lambda -> 0 for every X. With P the projection that leaves residuals,
    it is ``[P y]_n / P_nn`` where P_nn > 0: the hat matrix form. Where P_nn = 0, no combination of
    the other samples gives x_n, that form is 0/0, and the limit is ``[K^+ y]_n / [K^+]_nn``.

    Args:
        x: Features, (..., N, D).
        y: Targets, (..., N) or (..., N, C).
        nearest_to: u, as in :func:`interpolant`. It must not depend on the samples.

    Returns:
        The shape of y.

    Raises:
        TypeError, ValueError: if data do not fit.

    Source: Allen 1974 (PRESS) for the hat matrix form; Hastie et al. 2022 for the other.

    >>> x = torch.tensor([[1.0], [1.0], [2.0]]).double()
    >>> leave_one_out(x, torch.tensor([1.0, 2.0, 2.0]).double())
    tensor([-0.2000,  1.0000, -1.0000], dtype=torch.float64)
    """
    residual, vector = _residual(x, y, nearest_to)
    U, s, _ = torch.linalg.svd(x, full_matrices=False)  # noqa: N806
    kept, rounding = _rank(x, s)
    # Columns of Q beyond the rank span what no fit reaches: P = Z Z^T without subtraction from 1.
    Q = torch.linalg.qr(U, mode="complete").Q  # noqa: N806
    missing = torch.nn.functional.pad(~kept, (0, Q.shape[-1] - s.shape[-1]), value=True)
    Z = Q * missing[..., None, :]  # noqa: N806
    A = U * torch.where(kept, 1 / s, 0.0)[..., None, :]  # noqa: N806 (K^+ = A A^T)
    free, fixed = (M.square().sum(dim=-1, keepdim=True) for M in (Z, A))
    essential = free.sqrt() <= rounding[..., None, None]
    numerator = torch.where(essential, A @ (A.mT @ residual), Z @ (Z.mT @ residual))
    errors = numerator / torch.where(essential, fixed, free)
    return errors.squeeze(-1) if vector else errors


def novelties(x: Tensor) -> Tensor:
    """Return the part b_n of each sample that is orthogonal to all others, (..., N, D).

    ``X^+`` has the columns ``b_n / |b_n|^2`` where the samples are linearly independent. Then the
    leave-one-out errors are ``b_n . w`` for the interpolant w of minimum norm, and
    ``b_n . (w - u)`` for that nearest to u.

    Raises:
        TypeError, ValueError: if the rows of x are linearly dependent, or x is not as said.

    >>> novelties(torch.tensor([[1.0, 1.0], [2.0, 0.0]]).double()).abs().round(decimals=12)
    tensor([[0., 1.],
            [1., 1.]], dtype=torch.float64)
    """
    _features(x)
    U, s, Vh = torch.linalg.svd(x, full_matrices=False)  # noqa: N806
    if x.shape[-2] > x.shape[-1] or not bool(_rank(x, s)[0].all()):
        raise ValueError("x must have linearly independent rows.")
    columns = (U / s[..., None, :]) @ Vh
    return columns / columns.square().sum(dim=-1, keepdim=True)


def sensitivities(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``|X^+|``, the most that a unit change of targets moves ``X^+ y``, and cond X.

    Both are of the largest singular value over those above rounding, (...,).

    >>> norm, condition = sensitivities(torch.tensor([[2.0, 0.0], [0.0, 0.125]]).double())
    >>> round(float(norm), 10), round(float(condition), 10)
    (8.0, 16.0)
    """
    s = torch.linalg.svdvals(_features(x))
    kept, _ = _rank(x, s)
    smallest = torch.where(kept, s, torch.inf).amin(dim=-1)
    return 1 / smallest, s[..., 0] / smallest


def expected_error(num_samples: int, num_features: int, *, signal: float, noise: float) -> float:
    """Return the expected test error of the minimum norm solution for isotropic normal features.

    ``y = x . w* + e`` with ``x ~ N(0, I)`` of D entries and e of variance ``noise``; the error is
    the mean of ``(y - x . w)^2`` over test points, noise included, and over training samples. What
    the model leaves out, independent features times their weights, counts as noise. For the
    interpolant nearest to u the signal is ``|w* - u|^2``.

    Args:
        num_samples: N >= 0.
        num_features: D >= 1.
        signal: ``|w*|^2``.
        noise: Variance of the noise.

    Returns:
        Infinity for ``|D - N| <= 1`` where there is noise. Otherwise
        ``noise (1 + D / (N - D - 1))`` for D < N and
        ``signal (1 - N / D) + noise (1 + N / (D - N - 1))`` for D >= N.

    Raises:
        TypeError, ValueError: if an argument is not as said.

    Source: Breiman & Freedman 1983 for D < N; Belkin, Hsu & Xu 2020, Thm 1; Hastie et al. 2022.

    >>> expected_error(20, 41, signal=1.0, noise=0.0) == 1 - 20 / 41
    True
    >>> expected_error(20, 9, signal=1.0, noise=0.1)
    0.19
    """
    N = _checks.integer("num_samples", num_samples, at_least=0)  # noqa: N806
    D = _checks.integer("num_features", num_features, at_least=1)  # noqa: N806
    signal = _checks.positive("signal", signal, zero=True)
    noise = _checks.positive("noise", noise, zero=True)
    bias = signal * max(0.0, 1 - N / D)
    if noise == 0:
        return bias
    if N > 0 and abs(D - N) <= 1:
        return math.inf
    return bias + noise * (1 + min(N, D) / (abs(D - N) - 1 if N else 1))


def descent_path(
    x: Tensor,
    y: Tensor,
    steps: Sequence[int] | Tensor,
    *,
    lr: float | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Return where gradient descent on ``|X w - y|^2 / 2N`` is after given numbers of steps.

    In the basis of singular vectors every component goes its own way: the distance to the limit
    ``u + X^+ (y - X u)`` shrinks by ``1 - lr s_i^2 / N`` in each step. So t may be 10^15.

    Args:
        x: Features, (N, D).
        y: Targets, (N,) or (N, C).
        steps: Numbers of steps, (T,), each at least 0.
        lr: Step size, at most ``N / s_1^2``, which is taken if left out.
        start: u, (D,) or (D, C); 0 if left out.

    Returns:
        Weights, (T, D) or (T, D, C).

    Raises:
        TypeError, ValueError: if an argument is not as said.

    >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 0.1]]).double(), torch.ones(2).double()
    >>> descent_path(x, y, [0, 1, 10**6])
    tensor([[ 0.0000,  0.0000],
            [ 1.0000,  0.1000],
            [ 1.0000, 10.0000]], dtype=torch.float64)
    """
    residual, vector = _residual(x, y, start)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (N, D), got {tuple(x.shape)}.")
    t = torch.as_tensor(steps, dtype=x.dtype, device=x.device)
    if t.ndim != 1 or not len(t) or not bool((t >= 0).all()):
        raise ValueError(f"steps must be a list of numbers of at least 0, got {steps}.")
    U, s, Vh = torch.linalg.svd(x, full_matrices=False)  # noqa: N806
    kept, _ = _rank(x, s)
    curvature = torch.where(kept, s.square(), 0.0) / len(x)
    most = 1 / float(curvature[0]) if curvature[0] > 0 else math.inf
    lr = min(most, 1.0) if lr is None and most == math.inf else _step(lr, most)
    # log1p keeps the digits of slow components; xlog1py is 0 at t = 0 even where lr h = 1.
    reached = -torch.expm1(torch.special.xlog1py(t[:, None], -(lr * curvature).clamp(max=1)))
    weights = reached * torch.where(kept, 1 / s, 0.0)
    w = Vh.T @ (weights[..., None] * (U.T @ residual))
    w = w.squeeze(-1) if vector else w
    return w if start is None else w + start


def classification_error(w: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Return the share of points that sign(x . w) gets wrong, x ~ N(y mean, covariance).

    Both labels y = -1, 1 are equally frequent, so it is ``Phi(-w . mean / sqrt(w' C w))``. It is
    smallest, Bayes' error, at ``w = C^{-1} mean``.

    Args:
        w: Weights, (..., d); the scale does not matter.
        mean: Mean of the class y = 1, (d,).
        covariance: C, (d, d), positive definite.

    Raises:
        TypeError, ValueError: if shapes do not fit.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(float(classification_error(one, 1.96 * one, torch.eye(1).double())), 4)
    0.025
    """
    _checks.finite("w", w)
    _checks.finite("covariance", covariance)
    _checks.shape("mean", _checks.finite("mean", mean), w.shape[-1:])
    _checks.shape("covariance", covariance, (w.shape[-1], w.shape[-1]))
    spread = ((w @ covariance) * w).sum(dim=-1).sqrt()
    return torch.special.ndtr(-(w @ mean) / spread)


def _features(x: Tensor) -> Tensor:
    _checks.finite("x", x)
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"x must have shape (..., N, D) with N, D >= 1, got {tuple(x.shape)}.")
    return x


def _residual(x: Tensor, y: Tensor, u: Tensor | None) -> tuple[Tensor, bool]:
    """y - X u as columns, (..., N, C), and whether y is a vector per data set."""
    _features(x)
    _checks.same_kind("y", _checks.finite("y", y), "x", x)
    vector = y.ndim == x.ndim - 1
    if y.shape[: x.ndim - 1] != x.shape[:-1] or y.ndim > x.ndim:
        raise ValueError(
            f"y must have shape (..., N) or (..., N, C) for x of shape {tuple(x.shape)}, "
            f"got {tuple(y.shape)}."
        )
    columns = y[..., None] if vector else y
    if u is None:
        return columns, vector
    _checks.same_kind("the starting point", _checks.finite("the starting point", u), "x", x)
    wanted = (*x.shape[:-2], x.shape[-1], *y.shape[x.ndim - 1 :])
    try:
        u = u.expand(wanted)
    except RuntimeError:
        raise ValueError(
            f"the starting point must broadcast to the weights, {wanted}, got {tuple(u.shape)}."
        ) from None
    return columns - x @ (u[..., None] if vector else u), vector


def _rank(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Which singular values are not zero, (..., r), and the error of singular vectors, (...,)."""
    unit = max(x.shape[-2:]) * torch.finfo(x.dtype).eps
    kept = s > unit * s[..., :1]
    smallest = torch.where(kept, s, torch.inf).amin(dim=-1)
    return kept, unit * s[..., 0] / smallest


def _step(lr: float | None, most: float) -> float:
    if lr is None:
        return most
    lr = _checks.positive("lr", lr)
    if lr > most * (1 + 1e-12):
        raise ValueError(f"lr must be at most N / s_1^2 = {most:.6g}, got {lr:.6g}.")
    return lr
