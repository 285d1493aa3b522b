"""Linear solvers: their limits, their steps against naive formulas, their rates and records."""

from __future__ import annotations

import clarabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize

from companion import data
from companion.dynamics import linear_solvers
from companion.dynamics.linear_solvers import (
    Progress,
    dual_acceleration,
    gradient_descent,
    newton_path,
    normalized_descent,
)

DIGITS = data.digits(classes=(3, 8))
PLANTED = data.separable(100, 10, margin=0.5, seed=0)
HARD = data.separable(20, 2, margin=0.2, seed=5)[:2]  # the mean of the y_n x_n does not separate


def quadratic_program(x: torch.Tensor, y: torch.Tensor) -> float:
    """The largest margin 1 / ||w||, min ||w||^2 / 2 with y_n w . x_n >= 1, by an interior point."""
    rows = (y[:, None] * x).numpy()
    N, d = rows.shape
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix(np.eye(d)),
        np.zeros(d),
        sparse.csc_matrix(-rows),
        -np.ones(N),
        [clarabel.NonnegativeConeT(N)],
        settings,
    )
    return 1 / float(np.linalg.norm(solver.solve().x))


@pytest.mark.parametrize("points", [DIGITS, PLANTED[:2]], ids=["digits", "planted"])
def test_newton_ends_at_the_maximum_margin(points: tuple) -> None:
    best = quadratic_program(*points)
    run = newton_path(*points)
    rows = (points[1][:, None] * points[0]).numpy()
    assert run.margin.max() == pytest.approx(best, rel=1e-9)  # the interior point's own accuracy
    assert np.linalg.norm(run.direction) == pytest.approx(1, rel=1e-14)
    assert (rows @ run.direction).min() == pytest.approx(run.margin.max(), rel=1e-12)
    assert run.evaluations[-1] < 200


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), N=st.integers(3, 25), d=st.integers(2, 30))
def test_newton_finds_planted_margins(seed: int, N: int, d: int) -> None:
    points = data.separable(N, d, margin=0.3, seed=seed)
    run = newton_path(points.x, points.y)
    assert run.gap(points.margin)[-1] < 1e-6
    assert run.margin.max() <= points.margin * (1 + 1e-9)


def test_points_of_the_path_minimize_the_regularized_loss() -> None:
    rows = (PLANTED.y[:, None] * PLANTED.x).numpy() / 6
    w, lam = np.zeros(10), 0.01
    for w, margins, _ in linear_solvers._minimize(rows, w, lam):  # noqa: B020
        np.testing.assert_allclose(margins, rows @ w, rtol=1e-13)

    def objective(v: np.ndarray) -> tuple[float, np.ndarray]:
        e = np.exp(-rows @ v)
        return np.log(e.sum()) + lam / 2 * v @ v, lam * v - e / e.sum() @ rows

    found = minimize(objective, np.zeros(10), jac=True, method="BFGS", options={"gtol": 1e-10})
    np.testing.assert_allclose(w, found.x, rtol=0, atol=1e-6 * np.linalg.norm(w))


def naive(kind: str, x: np.ndarray, y: np.ndarray, lr: float, steps: int) -> list[float]:
    """Margins after each step, with the loss itself and autograd, as the papers write them."""
    points, w, found = torch.as_tensor(x), torch.zeros(x.shape[1], dtype=torch.float64), []
    scale = float(points.norm(dim=1).max())
    points = points if kind == "plain" else points / scale
    for _ in range(steps):
        leaf = w.clone().requires_grad_()
        loss = torch.exp(-torch.as_tensor(y) * (points @ leaf)).mean()
        (grad,) = torch.autograd.grad(loss, leaf)
        length = {"plain": 1.0, "loss": loss.item(), "unit": float(grad.norm())}[kind]
        w = w - lr / length * grad
        found.append(float((torch.as_tensor(y * x.T).T @ w).min() / w.norm()))
    return found


@pytest.mark.parametrize("kind", ["plain", "loss", "unit"])
def test_descent_takes_the_steps_of_its_definition(kind: str) -> None:
    x, y = PLANTED.x, PLANTED.y
    if kind == "plain":
        run = gradient_descent(x, y, lr=0.1, max_evaluations=30)
    else:
        run = normalized_descent(x, y, lr=0.7, unit=kind == "unit", max_evaluations=30)
    expected = naive(kind, x.numpy(), y.numpy(), 0.1 if kind == "plain" else 0.7, 30)
    np.testing.assert_allclose(run.margin, expected, rtol=1e-11)
    assert run.evaluations.tolist() == list(range(1, 31))
    assert (np.diff(run.seconds) >= 0).all()


def test_dual_acceleration_weighs_the_gradients_as_its_formula_says() -> None:
    """Unrolled: w_t adds up gradients q_j with weights (j + 1) / t' for each later step t'."""
    x, y = PLANTED.x.numpy(), PLANTED.y.numpy()
    z = -(y[:, None] * x) / np.linalg.norm(x, axis=1).max()  # the paper's z_n = -y_n x_n
    w, g, q = np.zeros(10), np.zeros(10), np.full(100, 1 / 100)
    margins = []
    for t in range(40):
        w = w - (g + z.T @ q)
        q = np.exp(z @ w) / np.exp(z @ w).sum()
        g = t / (t + 1) * (g + z.T @ q)
        margins.append((y * (x @ w)).min() / np.linalg.norm(w))
    run = dual_acceleration(PLANTED.x, PLANTED.y, max_evaluations=40)
    np.testing.assert_allclose(run.margin, margins, rtol=1e-11)


def test_rates() -> None:
    """The gap falls like 1/t for normalized descent and faster than t^-1.7 with acceleration."""
    best, t = PLANTED.margin, np.array([300, 10_000])
    plain = normalized_descent(PLANTED.x, PLANTED.y, max_evaluations=10_000).gap(best)[t - 1]
    fast = dual_acceleration(PLANTED.x, PLANTED.y, max_evaluations=10_000).gap(best)[t - 1]
    slopes = [np.diff(np.log(gap))[0] / np.diff(np.log(t))[0] for gap in (plain, fast)]
    assert slopes[0] == pytest.approx(-1, abs=0.2)
    assert slopes[1] < -1.7


def test_fifty_times_fewer_gradients_on_digits() -> None:
    best = newton_path(*DIGITS).margin.max()
    goal = 0.99 * best
    fast = dual_acceleration(*DIGITS, stop_at=goal).cost(best, 0.01 * (1 + 1e-9))
    slow = normalized_descent(*DIGITS, stop_at=goal).cost(best, 0.01 * (1 + 1e-9))
    assert slow[0] > 50 * fast[0]


def test_invariance_under_scaling_of_the_points() -> None:
    for solver in (normalized_descent, dual_acceleration):
        run = solver(PLANTED.x, PLANTED.y, max_evaluations=50)
        scaled = solver(8.0 * PLANTED.x, PLANTED.y, max_evaluations=50)
        np.testing.assert_allclose(scaled.margin, 8.0 * run.margin, rtol=1e-10)


def test_runs_stop_where_they_are_told() -> None:
    run = normalized_descent(PLANTED.x, PLANTED.y, stop_at=0.4)
    assert run.margin[-1] >= 0.4 and (run.margin[:-1] < 0.4).all()
    assert run.cost(0.5, 0.2 * (1 + 1e-12))[0] == run.evaluations[-1]
    assert run.cost(0.5, 1e-6) == (np.inf, np.inf)
    short = gradient_descent(PLANTED.x, PLANTED.y, lr=0.1, max_seconds=1e-9)
    assert len(short.margin) == 1
    again = normalized_descent(PLANTED.x, PLANTED.y, stop_at=0.4)
    assert np.array_equal(run.margin, again.margin)


def test_gap_is_of_the_best_so_far() -> None:
    run = Progress(np.array([0.5, 0.8, 0.7]), np.arange(1, 4), np.arange(3.0), np.ones(1))
    np.testing.assert_allclose(run.gap(1.0), [0.5, 0.2, 0.2])
    assert run.cost(1.0, 0.25) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y: gradient_descent(x, y, lr=0), ValueError, "lr must be finite and greater"),
        (lambda x, y: gradient_descent(*HARD, lr=1e6), FloatingPointError, "diverged after"),
        (lambda x, y: normalized_descent(x, y, lr=-1), ValueError, "lr must be finite"),
        (lambda x, y: normalized_descent(x, 0 * y), ValueError, "y must hold only"),
        (lambda x, y: dual_acceleration(0 * x, y), ValueError, "x must not be zero"),
        (lambda x, y: dual_acceleration(x[..., None], y), ValueError, r"shape \(N, d\)"),
        (lambda x, y: dual_acceleration(x, y, max_evaluations=0), ValueError, "at least 1"),
        (lambda x, y: dual_acceleration(x, y, max_seconds=0), ValueError, "max_seconds"),
        (lambda x, y: newton_path(x, y, shrink=1.0), ValueError, "shrink must be greater"),
        (lambda x, y: newton_path(x, y, smallest=0), ValueError, "smallest must be"),
    ],
)
def test_invalid_arguments(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(PLANTED.x, PLANTED.y)
