"""First and second order roads to the maximum margin of one linear layer, with their costs.

All of them work on ``l(w) = -log sum_n exp(-m_n)`` with margins ``m_n = y_n w . x_n``, whose
gradient ``sum_n p_n y_n x_n`` has the softmax weights p of -m. They differ in what they do with it,
and each leaves the same record: the normalized margin ``min_n m_n / ||w||`` after every gradient.
The exact solution, by nonnegative least squares, is :func:`companion.dynamics.margin.max_margin`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from companion import _checks

__all__ = [
    "Progress",
    "dual_acceleration",
    "gradient_descent",
    "newton_path",
    "normalized_descent",
]

Step = tuple[np.ndarray, np.ndarray, int]  # w, the margins, gradients that it took


@dataclass(frozen=True, eq=False)
class Progress:
    """What a solver had reached after each step, T steps in all.

    Attributes:
        margin: (T,) normalized margin min_n y_n w . x_n / ||w||, in the units of x.
        evaluations: (T,) gradients of l so far; each reads all N points once. A Newton step and
            a trial point of its line search count as one each.
        seconds: (T,) CPU time of the process so far.
        direction: (d,) w / ||w|| at the step with the largest margin.
    """

    margin: np.ndarray
    evaluations: np.ndarray
    seconds: np.ndarray
    direction: np.ndarray

    def gap(self, best: float) -> np.ndarray:
        """Relative gap (T,) of the largest margin so far to ``best``, at least 0.

        >>> run = Progress(np.array([-1.0, 0.9, 0.8]), np.arange(3), np.zeros(3), np.ones(1))
        >>> run.gap(1.0).round(12).tolist()
        [2.0, 0.1, 0.1]
        """
        best = _checks.positive("best", best)
        return np.maximum(1 - np.maximum.accumulate(self.margin) / best, 0.0)

    def cost(self, best: float, gap: float) -> tuple[float, float]:
        """Evaluations and seconds until the relative gap to ``best`` was ``gap``; inf if never."""
        at = np.flatnonzero(self.gap(best) <= _checks.positive("gap", gap))
        if not len(at):
            return np.inf, np.inf
        return float(self.evaluations[at[0]]), float(self.seconds[at[0]])


def gradient_descent(
    x: Tensor,
    y: Tensor,
    *,
    lr: float,
    stop_at: float = np.inf,
    max_evaluations: int = 100_000,
    max_seconds: float = np.inf,
) -> Progress:
    """Run ``w <- w + (lr / N) sum_n exp(-m_n) y_n x_n`` from w = 0: descent on the mean loss.

    Args:
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        lr: Step size. The loss at w = 0 has curvature at most mean ||x_n||^2.
        stop_at: Normalized margin at which to stop.
        max_evaluations: Budget of gradients.
        max_seconds: Budget of CPU time.

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: PNAS 2020, Eq. 1 with K = 1; Soudry et al. 2018: the gap falls like 1 / log t.

    >>> from companion import data
    >>> points = data.three_points()
    >>> run = gradient_descent(points.x, points.y, lr=0.1, max_evaluations=100)
    >>> len(run.margin), bool(run.gap(1.0)[-1] < 0.2)
    (100, True)
    """
    lr = _checks.positive("lr", lr)
    rows = _rows(x, y)

    def steps() -> Iterator[Step]:
        w = np.zeros(rows.shape[1])
        margins = rows @ w
        while True:
            w = w + lr / len(rows) * (np.exp(-margins) @ rows)
            margins = rows @ w
            yield w, margins, 1

    return _follow(steps(), stop_at, max_evaluations, max_seconds)


def normalized_descent(
    x: Tensor,
    y: Tensor,
    *,
    lr: float = 1.0,
    unit: bool = False,
    stop_at: float = np.inf,
    max_evaluations: int = 100_000,
    max_seconds: float = np.inf,
) -> Progress:
    """Run ``w <- w + eta dl/dw``: the gradient of the loss, divided by the loss, from w = 0.

    The points are first scaled to a largest norm of 1, the scale in which the theory takes a
    step of 1: eta is ``lr / max_n ||x_n||^2``.

    Args:
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        lr: Step size in that scale.
        unit: Divide the step by the norm of the gradient, so that it has length ``lr`` in that
            scale.
        stop_at: Normalized margin at which to stop.
        max_evaluations: Budget of gradients.
        max_seconds: Budget of CPU time.

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: Nacson et al. 2019 and Ji & Telgarsky 2021, who prove that the gap falls like 1 / t.

    >>> from companion import data
    >>> points = data.three_points()
    >>> run = normalized_descent(points.x, points.y, max_evaluations=1000)
    >>> bool(run.gap(1.0)[-1] < 0.01)
    True
    """
    lr = _checks.positive("lr", lr)
    rows = _rows(x, y)
    scale = np.linalg.norm(rows, axis=1).max()
    rows = rows / scale

    def steps() -> Iterator[Step]:
        w = np.zeros(rows.shape[1])
        margins = rows @ w
        while True:
            grad = _softmax(-margins) @ rows
            w = w + (lr / np.linalg.norm(grad) if unit else lr) * grad
            margins = rows @ w
            yield w, margins, 1

    return _follow(steps(), stop_at / scale, max_evaluations, max_seconds, scale)


def dual_acceleration(
    x: Tensor,
    y: Tensor,
    *,
    stop_at: float = np.inf,
    max_evaluations: int = 100_000,
    max_seconds: float = np.inf,
) -> Progress:
    """Run the momentum method that Nesterov's acceleration of the dual problem becomes in w.

    With the points scaled to norms of at most 1 and p the softmax weights,
    ``g <- (t / (t + 1)) (g + sum_n p_n y_n x_n)`` and ``w <- w + g + sum_n p_n y_n x_n``: the
    gradients are summed with weights that grow in proportion to t, and so do the steps.

    Args:
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        stop_at: Normalized margin at which to stop.
        max_evaluations: Budget of gradients.
        max_seconds: Budget of CPU time.

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: Ji, Srebro & Telgarsky 2021, Algorithm 1 with theta_t = 1 and beta_t = t / (t + 1);
    their theorem bounds the gap by a constant times (1 + log N) log t / t^2.

    >>> from companion import data
    >>> points = data.three_points()
    >>> run = dual_acceleration(points.x, points.y, max_evaluations=300)
    >>> bool(run.gap(1.0)[-1] < 1e-3)
    True
    """
    rows = _rows(x, y)
    scale = np.linalg.norm(rows, axis=1).max()
    rows = rows / scale

    def steps() -> Iterator[Step]:
        w, g = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        grad, t = rows.mean(axis=0), 0
        while True:
            w = w + g + grad
            margins = rows @ w
            grad = _softmax(-margins) @ rows
            g = t / (t + 1) * (g + grad)
            t += 1
            yield w, margins, 1

    return _follow(steps(), stop_at / scale, max_evaluations, max_seconds, scale)


def newton_path(
    x: Tensor,
    y: Tensor,
    *,
    shrink: float = 8.0,
    stop_at: float = np.inf,
    smallest: float = 1e-10,
    max_seconds: float = np.inf,
) -> Progress:
    """Follow the minimizers of ``-l(w) + (lambda / 2) ||w||^2`` as lambda goes to 0, by Newton.

    The minimizer w(lambda) tends in direction to the maximum margin, with a gap in proportion
    to lambda. In s = 1 / lambda the path becomes a straight line once the support vectors are
    settled, up to terms that are exponentially small in s. So the tangent dw / ds says where the
    next minimizer is, a few damped Newton steps, each a d by d system, go there; and the tangent
    itself points to the maximum margin long before w does. It is on the record, too.

    Args:
        x: Points, (N, d), scaled inside to a largest norm of 1.
        y: Labels -1 and +1, (N,).
        shrink: Factor by which lambda falls from one point of the path to the next, > 1.
        stop_at: Normalized margin at which to stop.
        smallest: lambda at which to stop, in the scale of the scaled points.
        max_seconds: Budget of CPU time.

    Returns:
        The record, with one entry per Newton step and one per tangent.

    Raises:
        TypeError, ValueError: for arguments that do not fit.

    Source: Rosset, Zhu & Hastie 2004 (the path ends at the maximum margin); Newton's method with
    a predictor is the classical continuation method.

    >>> from companion import data
    >>> points = data.three_points()
    >>> run = newton_path(points.x, points.y)
    >>> bool(run.gap(1.0)[-1] < 1e-10), int(run.evaluations[-1]) < 200
    (True, True)
    """
    if not shrink > 1:
        raise ValueError(f"shrink must be greater than 1, got {shrink!r}.")
    smallest = _checks.positive("smallest", smallest)
    rows = _rows(x, y)
    scale = np.linalg.norm(rows, axis=1).max()
    rows = rows / scale

    def steps() -> Iterator[Step]:
        w, lam = np.zeros(rows.shape[1]), 1.0
        while lam >= smallest:
            for w, margins, cost in _minimize(rows, w, lam):  # noqa: B020 (w is where it arrives)
                yield w, margins, cost
            tangent = lam**2 * np.linalg.solve(_hessian(rows, margins, lam), w)  # dw / ds
            yield tangent, rows @ tangent, 1
            w = w + (shrink - 1) / lam * tangent
            lam /= shrink

    return _follow(steps(), stop_at / scale, np.inf, max_seconds, scale)


def _minimize(rows: np.ndarray, w: np.ndarray, lam: float) -> Iterator[Step]:
    """Damped Newton steps on ``log sum_n exp(-rows w) + (lam / 2) ||w||^2``."""
    margins = rows @ w
    for _ in range(50):
        p = _softmax(-margins)
        slope = lam * w - p @ rows
        move = -np.linalg.solve(_hessian(rows, margins, lam), slope)
        decrement, length, cost = -float(slope @ move), 1.0, 1
        lift = rows @ move
        # The change of the objective is a difference of numbers near 1 / lam: take it term by term.
        while (
            np.log(p @ np.exp(np.minimum(-length * lift, 700.0)))
            + lam * (length * (w @ move) + length**2 / 2 * (move @ move))
            > -1e-4 * length * decrement + 1e-14
        ) and length > 1e-8:
            length, cost = length / 2, cost + 1
        w = w + length * move
        margins = rows @ w
        yield w, margins, cost
        if decrement < 1e-10:
            return


def _hessian(rows: np.ndarray, margins: np.ndarray, lam: float) -> np.ndarray:
    p = _softmax(-margins)
    live = p > 1e-18
    mean, p, rows = p @ rows, p[live], rows[live]
    centred = rows - mean
    return (p[:, None] * centred).T @ centred + lam * np.eye(rows.shape[1])


def _softmax(z: np.ndarray) -> np.ndarray:
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def _rows(x: Tensor, y: Tensor) -> np.ndarray:
    """The y_n x_n as a float64 array (N, d)."""
    _checks.dataset(x, y)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (N, d), got {tuple(x.shape)}.")
    rows = (y[:, None] * x).detach().cpu().double().numpy()
    if not rows.any():
        raise ValueError("x must not be zero at all points.")
    return rows


def _follow(
    steps: Iterator[Step],
    stop_at: float,
    max_evaluations: float,
    max_seconds: float,
    scale: float = 1.0,
) -> Progress:
    """Run the steps until the margin, the budget or the time is reached, and keep the record."""
    if np.isfinite(max_evaluations):
        _checks.integer("max_evaluations", max_evaluations, at_least=1)
    if not max_seconds > 0:
        raise ValueError(f"max_seconds must be greater than 0, got {max_seconds!r}.")
    margin, evaluations, seconds = [], [], []
    best, direction, spent = -np.inf, np.zeros(0), 0
    began = time.process_time()
    while True:
        with np.errstate(over="ignore", invalid="ignore"):  # told below, with the way out
            w, margins, cost = next(steps, (None, None, 0))
        if w is None:
            break
        spent += cost
        size = float(np.sqrt(w @ w))
        reached = float(margins.min()) / size
        if not np.isfinite(reached):
            raise FloatingPointError(f"The weights diverged after {spent} gradients; lower lr.")
        now = time.process_time() - began
        margin.append(reached * scale)
        evaluations.append(spent)
        seconds.append(now)
        if reached > best:
            best, direction = reached, w / size
        if reached >= stop_at or spent >= max_evaluations or now >= max_seconds:
            break
    return Progress(np.array(margin), np.array(evaluations), np.array(seconds), direction)
