"""Lemma 1, its finer forms, and what each method of training does to it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import data
from companion.dynamics import balance, flow
from companion.networks import MLP, ConvNet, Params, directions, layer_norms, member

SGD = torch.optim.SGD
DEPTHS = st.integers(1, 5)
WIDTHS = st.integers(1, 9)
BATCHES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32 - 1)
ACTIVATIONS = st.sampled_from(["relu", "linear", "leaky_relu"])
RATES = st.floats(1e-3, 0.3)


def case(K: int, width: int, N: int, seed: int, activation: str = "relu"):  # noqa: N803
    """A random network with norms that differ from layer to layer, points and labels."""
    net = MLP(widths=(3, *[width] * (K - 1), 1), activation=activation)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (N,), generator=generator).double() * 2 - 1
    params = {k: W * (1 + 0.5 * i) for i, (k, W) in enumerate(net.init(seed=seed).items())}
    rho = float(layer_norms(params).prod())  # tame the exponentials
    return net, {k: W * min(1.0, (3 / rho) ** (1 / K)) for k, W in params.items()}, x, y


def mean_loss(net, x, y):
    return lambda params: torch.exp(-y * net(params, x)).mean()


def products(net, params: Params, x, y) -> torch.Tensor:
    gradient = torch.func.grad(mean_loss(net, x, y))(params)
    return torch.stack([-2 * (params[k] * gradient[k]).sum() for k in params])


# --- the rate ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(DEPTHS, WIDTHS, BATCHES, SEEDS, ACTIVATIONS)
def test_rate_is_that_of_every_layer(K, width, N, seed, activation) -> None:  # noqa: N803
    net, params, x, y = case(K, width, N, seed, activation)
    margins = y * net(params, x)
    size = float((margins.abs() * torch.exp(-margins)).mean()) * 2  # terms of both signs cancel
    rate = balance.norm_rate(net, params, x, y)
    assert (products(net, params, x, y) - rate).abs().max() <= 1e-12 * max(size, 1e-300)


def test_rate_against_difference_quotients_of_the_flow() -> None:
    net, params, x, y = case(3, 4, 6, 5, "linear")
    h = 1e-4
    after = member(balance.linear_flow(net, params, x, y, times=[h]), 0)
    quotient = (layer_norms(after) ** 2 - layer_norms(params) ** 2) / h
    np.testing.assert_allclose(quotient, balance.norm_rate(net, params, x, y), rtol=2e-2)
    middle = member(balance.linear_flow(net, params, x, y, times=[h / 2]), 0)
    np.testing.assert_allclose(quotient, balance.norm_rate(net, middle, x, y), rtol=1e-6)


def test_rate_holds_for_convolutions() -> None:
    net = ConvNet(input_shape=(1, 4, 4), channels=(2, 3))
    params = net.init(seed=1)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    rate = balance.norm_rate(net, params, x, y)
    np.testing.assert_allclose(products(net, params, x, y), rate, rtol=1e-12)


# --- the conserved quantities --------------------------------------------------------------------


def test_matrices_units_and_norms_are_one_another() -> None:
    net, params, _, _ = case(4, 5, 2, 3)
    differences = balance.norm_differences(params)
    units, matrices = balance.unit_balance(net, params), balance.balance_matrices(net, params)
    assert len(units) == len(matrices) == 3
    for k, (unit, matrix) in enumerate(zip(units, matrices, strict=True)):
        np.testing.assert_allclose(matrix, matrix.T)
        np.testing.assert_allclose(matrix.diagonal(), unit, atol=1e-12)
        np.testing.assert_allclose(unit.sum(), differences[k] - differences[k + 1], atol=1e-12)


def test_one_layer_has_nothing_to_balance() -> None:
    net, params, _, _ = case(1, 1, 2, 3)
    assert balance.unit_balance(net, params) == balance.balance_matrices(net, params) == ()
    assert balance.norm_differences(params).tolist() == [0.0]


@settings(deadline=None)
@given(st.integers(2, 4), WIDTHS, BATCHES, SEEDS, ACTIVATIONS)
def test_gradient_is_orthogonal_to_the_conserved_units(K, width, N, seed, activation) -> None:  # noqa: N803
    net, params, x, y = case(K, width, N, seed, activation)
    gradient = torch.func.grad(mean_loss(net, x, y))(params)
    names = list(params)
    for below, above in zip(names[:-1], names[1:], strict=True):
        into = (params[below] * gradient[below]).sum(dim=1)
        out = (params[above] * gradient[above]).sum(dim=0)
        size = 1 + float(into.abs().max())
        assert float((into - out).abs().max()) <= 1e-12 * size * 10


def test_linear_flow_conserves_the_matrices_before_and_after_separation() -> None:
    points = data.separable(20, 3, margin=0.5, seed=0)
    net = MLP(widths=(3, 3, 3, 1), activation="linear")
    params = net.init(seed=1)
    start = balance.balance_matrices(net, params)
    path = balance.linear_flow(net, params, points.x, points.y, times=[0.0, 0.1, 1.0, 100.0])
    separated = [bool((points.y * net(member(path, i), points.x) > 0).all()) for i in range(4)]
    assert separated == [False, False, False, True] or separated == [False, False, True, True]
    for i in range(4):
        for now, then in zip(balance.balance_matrices(net, member(path, i)), start, strict=True):
            np.testing.assert_allclose(now, then, atol=1e-11)


def test_weight_decay_shrinks_the_differences_at_the_rate_2_lambda() -> None:
    points = data.separable(20, 3, margin=0.5, seed=0)
    net = MLP(widths=(3, 3, 3, 1), activation="linear")
    params, lam, times = net.init(seed=0), 0.05, [1.0, 5.0, 10.0]
    path = balance.linear_flow(net, params, points.x, points.y, times=times, weight_decay=lam)
    for i, t in enumerate(times):
        now = balance.norm_differences(member(path, i))[1:]
        expected = math.exp(-2 * lam * t) * balance.norm_differences(params)[1:]
        np.testing.assert_allclose(now, expected, rtol=1e-11)


def test_relu_flow_conserves_the_units_better_with_smaller_steps() -> None:
    points = data.separable(12, 3, margin=0.5, seed=0)
    net = MLP(widths=(3, 6, 1))
    params = net.init(seed=1)
    before = balance.unit_balance(net, params)[0]
    missed = []
    for fraction in (2.0, 0.5):
        path = flow.gradient_flow(
            net, params, points.x, points.y, until=flow.LogLoss(-3),
            relative_step=0.01 * fraction, max_increment=fraction,
        )  # fmt: skip
        after = balance.unit_balance(net, path.params)[0]
        missed.append(float((after - before).abs().max() / before.abs().max()))
        assert path.norm_drift < 1e-12
    assert missed[1] < missed[0] / 3 and missed[1] < 1e-4


# --- one step and many ---------------------------------------------------------------------------


@settings(deadline=None)
@given(DEPTHS, WIDTHS, BATCHES, SEEDS, ACTIVATIONS, RATES)
def test_drift_of_one_gradient_step(K, width, N, seed, activation, lr) -> None:  # noqa: N803
    net, params, x, y = case(K, width, N, seed, activation)
    gradient = torch.func.grad(mean_loss(net, x, y))(params)
    moved = {k: params[k] - lr * gradient[k] for k in params}
    measured = balance.norm_differences(moved) - balance.norm_differences(params)
    squares = torch.stack([G.square().sum() for G in gradient.values()])
    size = float((layer_norms(params) ** 2 + layer_norms(moved) ** 2).sum())
    expected = lr**2 * (squares - squares[0])
    assert float((measured - expected).abs().max()) <= 1e-13 * size * 10
    run = balance.descend(net, params, x, y, partial(SGD, lr=lr), steps=1)
    np.testing.assert_allclose(run.drift[-1], measured, atol=1e-12 * size)
    np.testing.assert_allclose(run.gradients[0], squares, rtol=1e-10, atol=1e-300)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 4), WIDTHS, BATCHES, SEEDS, st.floats(1e-3, 0.05), st.floats(0, 0.95),
    st.floats(0, 0.5), st.none() | st.integers(1, 4),
)  # fmt: skip
def test_momentum_decay_and_batches_are_predicted(
    K,
    width,
    N,
    seed,
    lr,
    momentum,
    decay,
    batch_size,  # noqa: N803
) -> None:
    net, params, x, y = case(K, width, N, seed)
    method = partial(SGD, lr=lr, momentum=momentum, weight_decay=decay)
    run = balance.descend(net, params, x, y, method, steps=4, batch_size=batch_size, seed=seed)
    predicted = balance.predicted_differences(run, lr=lr, momentum=momentum, weight_decay=decay)
    size = float(run.squares.max())  # what the differences of squares are rounded to
    assert float((predicted - run.differences).abs().max()) <= 1e-12 * size


def test_a_long_run_of_gradient_descent_drifts_as_predicted() -> None:
    x, y = data.digits(classes=(3, 8))
    net = MLP(widths=(64, 8, 8, 1))
    run = balance.descend(net, net.init(seed=0), x, y, partial(SGD, lr=0.1), steps=100)
    predicted = balance.leading_drift(run, lr=0.1)
    np.testing.assert_allclose(run.drift[1:, 1:], predicted[1:, 1:], rtol=1e-6, atol=1e-9)
    assert float(run.drift[-1].abs().max()) > 1e-3
    both = balance.predicted_differences(run, lr=0.1) - run.differences[0]
    np.testing.assert_allclose(both, predicted, atol=1e-12)


def test_momentum_conserves_a_corrected_quantity_up_to_the_steps() -> None:
    """rho^2 - 2 eta m / (1 - m) <W, b> gains eta^2 (1 + m) / (1 - m) ||b||^2 in each step."""
    net, params, x, y = case(3, 4, 8, 7)
    lr, m = 0.02, 0.8
    run = balance.descend(net, params, x, y, partial(SGD, lr=lr, momentum=m), steps=30)
    C = torch.zeros(net.K, dtype=torch.float64)  # noqa: N806
    Q = [run.differences[0]]  # noqa: N806
    for step in range(30):
        B = (run.steps[step] - run.steps[step, 0]) / lr**2  # noqa: N806
        C = m * C - lr * B  # noqa: N806
        Q.append(run.differences[step + 1] - 2 * lr * m / (1 - m) * C)
    gains = torch.stack(Q).diff(dim=0)
    expected = (1 + m) / (1 - m) * (run.steps - run.steps[:, :1])
    np.testing.assert_allclose(gains, expected, atol=1e-12)


def test_leading_order_of_momentum() -> None:
    points = data.separable(20, 3, margin=0.5, seed=0)
    net = MLP(widths=(3, 4, 4, 1))
    params = net.init(seed=1, scale=0.7)
    errors = []
    for lr in (0.02, 0.005):
        method = partial(SGD, lr=lr, momentum=0.8)
        run = balance.descend(net, params, points.x, points.y, method, steps=round(1 / lr))
        predicted = balance.leading_drift(run, lr=lr, momentum=0.8)
        errors.append(
            float((predicted[-1] - run.drift[-1]).abs().max() / run.drift[-1].abs().max())
        )
    assert errors[1] < errors[0] / 2 and errors[1] < 0.2


def test_bookkeeping_holds_for_any_method() -> None:
    net, params, x, y = case(3, 4, 8, 7)
    for method in (partial(SGD, lr=0.1), partial(torch.optim.Adam, lr=0.01)):
        run = balance.descend(net, params, x, y, method, steps=20)
        change = 2 * run.pairings + run.steps
        np.testing.assert_allclose(run.squares.diff(dim=0), change, atol=1e-12)
    spread = run.pairings.amax(dim=1) - run.pairings.amin(dim=1)
    assert float(spread.max()) > 1e-3  # Adam's updates are not gradients


def test_sign_descent_is_adam_without_memory() -> None:
    net, params, x, y = case(2, 4, 8, 7)
    method = partial(torch.optim.Adam, lr=0.01, betas=(0.0, 0.0), eps=1e-30)
    run = balance.descend(net, params, x, y, method, steps=1)
    gradient = torch.func.grad(mean_loss(net, x, y))(params)
    for k in params:
        moved = params[k] - 0.01 * torch.sign(gradient[k])
        np.testing.assert_allclose(run.params[k], moved, atol=1e-14)


def test_descend_repeats_and_leaves_its_start_alone() -> None:
    net, params, x, y = case(2, 4, 8, 7)
    kept = {k: W.clone() for k, W in params.items()}
    runs = [
        balance.descend(net, params, x, y, partial(SGD, lr=0.1), steps=5, batch_size=3, seed=4)
        for _ in range(2)
    ]
    assert torch.equal(runs[0].squares, runs[1].squares)
    assert all(torch.equal(params[k], kept[k]) for k in params)
    assert not any(W.requires_grad or W.grad is not None for W in runs[0].params.values())
    assert runs[0].losses.shape == (5,) and runs[0].squares.shape == (6, 2)
    assert float(runs[0].losses[0]) > 0 and set(directions(runs[0].params)) == set(params)


# --- bad input -----------------------------------------------------------------------------------


def test_errors_name_the_argument() -> None:
    net, params, x, y = case(2, 3, 4, 0)
    linear = MLP(widths=(3, 3, 1), activation="linear")
    run = balance.descend(net, params, x, y, partial(SGD, lr=0.1), steps=1)
    with pytest.raises(ValueError, match="params must hold at least one layer"):
        balance.norm_differences({})
    with pytest.raises(TypeError, match="net must be an MLP, got ConvNet"):
        balance.unit_balance(ConvNet(input_shape=(1, 4, 4), channels=(2,)), params)
    with pytest.raises(ValueError, match="params must have the shapes"):
        balance.balance_matrices(MLP(widths=(3, 2, 1)), params)
    with pytest.raises(ValueError, match="net.activation must be one of 'linear', got 'relu'"):
        balance.linear_flow(net, params, x, y, times=[1.0])
    for times in ([], [0.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="times must ascend to a positive time"):
            balance.linear_flow(linear, params, x, y, times=times)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        balance.descend(net, params, x, y, partial(SGD, lr=0.1), steps=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        balance.descend(net, params, x, y, partial(SGD, lr=0.1), steps=1, batch_size=0)
    with pytest.raises(ValueError, match="momentum must be below 1, got 1.0"):
        balance.predicted_differences(run, lr=0.1, momentum=1.0)
    with pytest.raises(ValueError, match="lr must be finite and greater than 0"):
        balance.leading_drift(run, lr=0.0)
    with pytest.raises(FloatingPointError, match="The loss overflowed at step"):
        balance.descend(net, params, x, -y, partial(SGD, lr=1e6), steps=20)
