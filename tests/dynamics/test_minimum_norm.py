"""Halpern iterations, vanishing weight decay and the square loss against NumPy, SciPy, SymPy."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from companion import networks
from companion.dynamics import minimum_norm as mn
from companion.networks import MLP


def problem(num_points: int, dim: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    draw = [
        torch.randn(*s, generator=g).double() for s in ((num_points, dim), (num_points,), (dim,))
    ]
    return draw[0], draw[1], draw[2]


def slow(n: int) -> float:
    return 1 / (n + 2)


def fast(n: int) -> float:
    return 1 / (n + 2) ** 2


# --- Halpern -------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_halpern_meets_lieders_bound_and_finds_the_nearest_solution(
    num_points: int, dim: int, seed: int
) -> None:
    x, y, start = problem(num_points, dim, seed)
    largest = torch.linalg.matrix_norm(x, ord=2) ** 2
    T = mn.gradient_step(lambda w: 0.5 * (y - x @ w).square().sum(), lr=float(1 / largest))
    path = mn.halpern(T, start, anchor=start, weights=slow, steps=30)
    goal = start + torch.from_numpy(np.linalg.pinv(x.numpy())) @ (y - x @ start)
    n = torch.arange(31).double()
    moved = torch.stack([(w - T(w)).norm() for w in path])
    bound = 2 * (start - goal).norm() / (n + 1)
    assert bool((moved <= bound * (1 + 1e-9) + 1e-12).all())


def test_halpern_from_any_start_reaches_the_minimum_norm_solution() -> None:
    x, y, start = problem(3, 6, 0)
    goal = mn.minimum_norm_solution(x, y)
    lr = float(1 / torch.linalg.matrix_norm(x, ord=2) ** 2)

    def T(w: Tensor) -> Tensor:  # noqa: N802
        return w + lr * x.T @ (y - x @ w)

    zero = torch.zeros(6, dtype=torch.float64)
    path = mn.halpern(T, start, anchor=zero, weights=slow, steps=4000)
    error = (path - goal).norm(dim=1)
    assert float(error[-1]) < 5e-3
    assert float(error[2000] / error[4000]) == pytest.approx(2.0, rel=1e-2)  # like 1/n
    # Where x does not see, the components are multiplied by prod (1 - a_n) = 1 / (n + 1).
    blind = torch.eye(6).double() - torch.linalg.pinv(x) @ x
    torch.testing.assert_close(blind @ path[100], blind @ start / 101, rtol=1e-10, atol=1e-13)
    # Weights with a finite sum leave a fixed part of the start: prod_{k >= 2} (1 - 1/k^2) = 1/2.
    path = mn.halpern(T, start, anchor=zero, weights=fast, steps=4000)
    torch.testing.assert_close(blind @ path[-1], blind @ start / 2, rtol=1e-3, atol=1e-13)


def test_halpern_refuses_bad_arguments() -> None:
    w = torch.ones(2).double()
    with pytest.raises(ValueError, match=r"anchor must have shape \(2,\)"):
        mn.halpern(lambda v: v, w, anchor=torch.ones(3), weights=slow, steps=1)
    with pytest.raises(ValueError, match=r"weights must lie in \[0, 1\], got 2.0 at n = 0"):
        mn.halpern(lambda v: v, w, anchor=w, weights=lambda n: 2.0, steps=1)
    with pytest.raises(FloatingPointError, match="diverged at step 2"):
        mn.halpern(lambda v: 1e200 * v, w, anchor=w, weights=lambda n: 0.0, steps=5)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        mn.halpern(lambda v: v, w, anchor=w, weights=slow, steps=0)


# --- expansive steps -----------------------------------------------------------------------------


def product_loss(w: Tensor) -> Tensor:
    return (w.prod() - 1) ** 2


def test_expansion_against_the_symbolic_hessian() -> None:
    a, b = sympy.symbols("a b")
    hessian = sympy.hessian((a * b - 1) ** 2, (a, b))
    for point in ((0.0, 0.0), (0.5, -0.3), (2.0, 0.7)):
        values = np.array(hessian.subs({a: point[0], b: point[1]}), dtype=float)
        expected = np.linalg.norm(np.eye(2) - 0.1 * values, 2)
        w = torch.tensor(point, dtype=torch.float64)
        assert mn.expansion(mn.gradient_step(product_loss, 0.1), w) == pytest.approx(expected)


def test_expansion_of_least_squares_is_at_most_one_up_to_the_bound() -> None:
    x, y, w = problem(4, 3, 1)
    largest = float(torch.linalg.matrix_norm(x, ord=2) ** 2)

    def loss(v: Tensor) -> Tensor:
        return 0.5 * (y - x @ v).square().sum()

    assert mn.expansion(mn.gradient_step(loss, 2 / largest), w) <= 1 + 1e-12
    assert mn.expansion(mn.gradient_step(loss, 2.1 / largest), w) == pytest.approx(1.1)


def test_four_factors_trap_the_iteration_at_zero() -> None:
    start = torch.full((4,), 0.5, dtype=torch.float64)
    T = mn.gradient_step(product_loss, 0.1)
    trapped = mn.halpern(T, start, anchor=0 * start, weights=slow, steps=800)
    free = mn.halpern(T, start, anchor=0 * start, weights=lambda n: 0.0, steps=800)
    assert float(product_loss(trapped[-1])) > 0.999999
    assert float(product_loss(free[-1])) < 1e-20


# --- the linear layer ----------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_closed_form_against_scipy(num_points: int, dim: int, seed: int) -> None:
    x, y, start = problem(num_points, dim, seed)
    times = [0.0, 0.05, 0.4, 1.5]
    X, Y = x.numpy(), y.numpy()
    found = solve_ivp(
        lambda _, w: 2 * X.T @ (Y - X @ w), (0, 1.5), start.numpy(), "LSODA",
        t_eval=times, rtol=1e-11, atol=1e-12,
    )  # fmt: skip
    w = mn.least_squares_flow(x, y, start, times)
    np.testing.assert_allclose(w.numpy(), found.y.T, rtol=1e-7, atol=1e-7)


def test_closed_form_is_minus_the_gradient_and_ends_at_the_nearest_solution() -> None:
    x, y, start = problem(3, 6, 2)
    w = mn.least_squares_flow(x, y, start, [0.3 - 1e-5, 0.3, 0.3 + 1e-5])
    gradient = torch.func.grad(lambda v: (y - x @ v).square().sum())(w[1])
    torch.testing.assert_close((w[2] - w[0]) / 2e-5, -gradient, rtol=1e-6, atol=1e-7)
    end = mn.least_squares_flow(x, y, start, [1e6])[0]
    torch.testing.assert_close(
        end, mn.minimum_norm_solution(x, y, nearest_to=start), rtol=1e-10, atol=1e-12
    )
    end = mn.least_squares_flow(x, y, 0 * start, [1e6])[0]
    expected = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(end.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_closed_form_refuses_bad_arguments() -> None:
    x, y, start = problem(3, 2, 0)
    with pytest.raises(ValueError, match="times must be a sequence of numbers at least 0"):
        mn.least_squares_flow(x, y, start, [-1.0])
    with pytest.raises(ValueError, match=r"y must have shape \(3,\)"):
        mn.least_squares_flow(x, y[:2], start, [1.0])
    with pytest.raises(ValueError, match=r"start must have shape \(2,\)"):
        mn.least_squares_flow(x, y, start[:1], [1.0])
    with pytest.raises(ValueError, match=r"x must have shape \(N, d\)"):
        mn.minimum_norm_solution(y, y)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(3, 4, 1), (3, 4, 2, 1)])
def test_square_loss_flow_balances_and_stops(widths: tuple[int, ...]) -> None:
    x, y, _ = problem(2, 3, 3)
    net = MLP(widths, activation="linear")
    start = net.init(seed=0)
    path = mn.square_loss_flow(net, start, x, y, np.linspace(0, 60, 31))
    grown = path.rho**2 - path.rho[0] ** 2
    assert float((grown - grown[:, :1]).abs().max()) < 1e-7
    assert float(path.errors[-1].abs().max()) < 1e-6
    assert float((path.rho[-1] - path.rho[-5]).abs().max()) < 1e-5
    first = {k: W - 1e-6 * g for (k, W), g in zip(start.items(), torch.func.grad(
        lambda p: (y - net(p, x)).square().sum())(start).values(), strict=True)}  # fmt: skip
    short = mn.square_loss_flow(net, start, x, y, [0.0, 1e-6])
    for name, W in first.items():
        torch.testing.assert_close(short.params[name], W, rtol=0, atol=1e-9)


def test_one_linear_layer_follows_the_closed_form() -> None:
    x, y, start = problem(4, 3, 4)
    net, times = MLP((3, 1)), [0.0, 0.1, 1.0]
    path = mn.square_loss_flow(net, {"W1": start[None]}, x, y, times)
    w = mn.least_squares_flow(x, y, start, times)
    torch.testing.assert_close(path.errors, y - w @ x.T, rtol=0, atol=1e-7)
    torch.testing.assert_close(path.params["W1"][0], w[-1], rtol=0, atol=1e-7)


def test_decayed_descent_is_halperns_scheme() -> None:
    x, y, _ = problem(4, 3, 5)
    net = MLP((3, 2, 1))
    params = net.init(seed=[0, 1])
    run = mn.decayed_descent(net, params, x, y, lr=0.05, decay=slow, steps=25)
    for m in (0, 1):
        one = networks.member(params, m)
        shapes = [W.shape for W in one.values()]
        sizes = [W.numel() for W in one.values()]

        def loss(z: Tensor, shapes: list = shapes, sizes: list = sizes) -> Tensor:
            parts = [p.view(s) for p, s in zip(z.split(sizes), shapes, strict=True)]
            return (net(dict(zip(net.layer_names, parts, strict=True)), x) - y).square().mean()

        z = torch.cat([W.reshape(-1) for W in one.values()])
        T = mn.gradient_step(loss, 0.05)
        end = mn.halpern(T, z, anchor=0 * z, weights=slow, steps=25)[-1]
        found = torch.cat([W[m].reshape(-1) for W in run.params.values()])
        torch.testing.assert_close(found, end, rtol=1e-11, atol=1e-13)
        assert float(run.loss[-1, m]) == pytest.approx(float(loss(end)), rel=1e-10)
        assert float(run.squared_norm[-1, m]) == pytest.approx(float(end @ end), rel=1e-10)
    assert run.steps.tolist() == [0, 10, 20, 25]


def test_networks_refuse_bad_arguments() -> None:
    x, y, _ = problem(4, 3, 5)
    net = MLP((3, 2, 1))
    with pytest.raises(ValueError, match="params must be those of an ensemble"):
        mn.decayed_descent(net, net.init(seed=0), x, y, lr=0.1, decay=slow, steps=1)
    ensemble = net.init(seed=[0])
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1.0 at n = 0"):
        mn.decayed_descent(net, ensemble, x, y, lr=0.1, decay=lambda n: 1.0, steps=1)
    with pytest.raises(FloatingPointError, match="diverged by step"):
        mn.decayed_descent(net, ensemble, x, y, lr=1e9, decay=lambda n: 0.0, steps=100)
    with pytest.raises(ValueError, match="times must be two or more numbers in ascending order"):
        mn.square_loss_flow(net, net.init(seed=0), x, y, [1.0, 0.5])
