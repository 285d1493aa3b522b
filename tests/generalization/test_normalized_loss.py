"""Losses and scores against torch, autograd, SymPy and brute force; lines against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from companion import data, networks
from companion.generalization import normalized_loss as nl
from companion.networks import MLP, ConvNet

ENSEMBLE = (3, 7, 4)  # M, N, C


def outputs(seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f = scale * torch.randn(ENSEMBLE, generator=generator, dtype=torch.float64)
    return f, torch.randint(ENSEMBLE[-1], ENSEMBLE[1:2], generator=generator)


seeds = st.integers(0, 2**31 - 1)

# --- one network's outputs ------------------------------------------------------------------------


@settings(max_examples=40)
@given(seeds, st.sampled_from([1e-8, 1.0, 30.0, 1e4]))
def test_cross_entropy_is_torchs(seed: int, scale: float) -> None:
    f, y = outputs(seed, scale)
    expected = torch.stack([torch.nn.functional.cross_entropy(one, y) for one in f])
    # torch takes the difference of two numbers of the size of f
    atol = 1e-14 * max(1.0, scale)
    torch.testing.assert_close(nl.cross_entropy(f, y), expected, rtol=1e-13, atol=atol)


def test_cross_entropy_keeps_the_digits_of_a_small_loss() -> None:
    f = torch.tensor([[50.0, 0.0, 0.0]], dtype=torch.float64)
    value = nl.cross_entropy(f, torch.tensor([0]))
    np.testing.assert_allclose(float(value), 2 * math.exp(-50), rtol=1e-12)


def test_centred_scores_are_minus_the_slope_at_zero() -> None:
    f, y = outputs()
    rho = torch.zeros(3, 1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(nl.cross_entropy(rho * f, y).sum(), rho)
    slope = slope.flatten()
    torch.testing.assert_close(nl.centred_scores(f, y).mean(-1), -slope, rtol=1e-13, atol=1e-15)


def test_expansion_to_second_order_by_sympy() -> None:
    rho, *f = sp.symbols("rho f0:4", real=True)
    loss = sp.log(sum(sp.exp(rho * f_c) for f_c in f)) - rho * f[1]
    mean = sum(f) / 4
    variance = sum((f_c - mean) ** 2 for f_c in f) / 4
    at_zero = [sp.diff(loss, rho, order).subs(rho, 0) for order in range(3)]
    assert sp.simplify(at_zero[0] - sp.log(4)) == 0
    assert sp.simplify(at_zero[1] + f[1] - mean) == 0
    assert sp.simplify(at_zero[2] - variance) == 0


@settings(max_examples=40)
@given(seeds, st.floats(1e-3, 50.0))
def test_first_order_misses_at_most_an_eighth_of_the_squared_range(seed: int, rho: float) -> None:
    f, y = outputs(seed)
    line = math.log(4) - rho * nl.centred_scores(f, y).mean(-1)
    rest = nl.cross_entropy(rho * f, y) - line
    bound = rho**2 * ((f.amax(-1) - f.amin(-1)) ** 2).mean(-1) / 8
    assert (rest >= -1e-12).all() and (rest <= bound + 1e-12).all()


@settings(max_examples=40)
@given(seeds)
def test_margins_and_errors_by_brute_force(seed: int) -> None:
    f, y = outputs(seed)
    expected = np.empty(ENSEMBLE[:2])
    for m, n in np.ndindex(expected.shape):
        row, c = f[m, n].tolist(), int(y[n])
        expected[m, n] = row[c] - max(row[:c] + row[c + 1 :])
    np.testing.assert_array_equal(nl.class_margins(f, y).numpy(), expected)
    np.testing.assert_allclose(nl.error(f, y).numpy(), (expected <= 0).mean(1), rtol=1e-15)


def test_a_tie_is_an_error() -> None:
    assert float(nl.error(torch.zeros(2, 3), torch.tensor([0, 2]))) == 1.0


@settings(max_examples=40)
@given(seeds, st.floats(-5, 5))
def test_a_common_shift_of_all_classes_changes_nothing(seed: int, shift: float) -> None:
    f, y = outputs(seed)
    for function in (nl.cross_entropy, nl.centred_scores, nl.class_margins):
        torch.testing.assert_close(function(f + shift, y), function(f, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("function", [nl.cross_entropy, nl.centred_scores, nl.class_margins])
def test_outputs_and_labels_must_fit(function: object) -> None:
    f, y = outputs()
    with pytest.raises(TypeError, match="f must be a floating-point tensor"):
        function(y, y)
    with pytest.raises(TypeError, match="y must be an integer tensor"):
        function(f, y.double())
    with pytest.raises(ValueError, match=r"f must have shape \(\.\.\., N, C\), C >= 2"):
        function(f[..., :1], y)
    with pytest.raises(ValueError, match=r"y must have shape \(7,\)"):
        function(f, y[:-1])
    with pytest.raises(ValueError, match=r"y must lie in 0 \.\. 3, got 4"):
        function(f, y.clamp(min=4))


# --- normalization --------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [MLP((64, 9, 7, 10)), ConvNet((1, 8, 8), (3, 4), num_classes=10)])
def test_normalized_outputs_are_the_outputs_over_the_product_of_norms(net: MLP | ConvNet) -> None:
    x = data.digits().x[:20]
    params = net.init(seed=[0, 1], scale=[0.3, 4.0])
    product = torch.stack([W.flatten(1).norm(dim=1) for W in params.values()]).prod(0)
    expected = 2.5 * net(params, x) / product[:, None, None]
    found = nl.normalized_outputs(net, params, x, rho=2.5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    one = nl.normalized_outputs(net, networks.member(params, 1), x)
    torch.testing.assert_close(one, expected[1] / 2.5, rtol=1e-12, atol=1e-15)


def test_normalized_outputs_refuse_a_zero_layer_or_rho() -> None:
    net, x = MLP((64, 3, 10)), data.digits().x[:5]
    params = net.init(seed=0)
    with pytest.raises(ValueError, match="rho must be finite and greater than 0"):
        nl.normalized_outputs(net, params, x, rho=0.0)
    with pytest.raises(ValueError, match=r"params\['W2'\] must have a positive finite norm"):
        nl.normalized_outputs(net, {**params, "W2": 0 * params["W2"]}, x)


def separated(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of three networks that classify all points correctly."""
    f, y = outputs(seed)
    own = torch.nn.functional.one_hot(y, ENSEMBLE[-1])
    return 0.1 * f + own * torch.tensor([0.8, 1.0, 2.0]).double()[:, None, None], y


@settings(max_examples=25)
@given(seeds, st.floats(1e-6, 1.38))
def test_rho_of_loss_gives_the_median_loss(seed: int, loss: float) -> None:
    f, y = separated(seed)
    rho = nl.rho_of_loss(f, y, loss=loss)
    losses = sorted(nl.cross_entropy(rho * f, y).tolist())
    assert losses[1] == pytest.approx(loss, rel=1e-8)


def test_rho_of_loss_scales_against_the_outputs() -> None:
    f, y = separated(0)
    rho = nl.rho_of_loss(f, y, loss=0.1)
    assert nl.rho_of_loss(8 * f, y, loss=0.1) == pytest.approx(rho / 8, rel=1e-9)


def test_rho_of_loss_refuses_what_no_rho_gives() -> None:
    f, y = separated(0)
    with pytest.raises(ValueError, match=r"loss must lie between 0 and log C = 1\.386, got 1\.4"):
        nl.rho_of_loss(f, y, loss=1.4)
    with pytest.raises(ValueError, match="is not reached"):
        nl.rho_of_loss(-f, y, loss=0.1)
    with pytest.raises(ValueError, match="y must have shape"):
        nl.rho_of_loss(f, y[:-1], loss=0.1)


# --- lines ----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=20, unique=True), seeds)
def test_fit_line_is_least_squares(x: list[float], seed: int) -> None:
    x = np.round(x, 3) + np.arange(len(x))
    if np.ptp(x) < 1e-2:
        return
    y = np.random.default_rng(seed).normal(size=len(x))
    line = nl.fit_line(torch.tensor(x), y)
    slope, intercept = np.polyfit(x, y, 1)
    np.testing.assert_allclose([line.slope, line.intercept], [slope, intercept], atol=1e-9)
    assert line.r_squared == pytest.approx(stats.pearsonr(x, y).statistic ** 2, abs=1e-9)


def test_small_outputs_lie_on_the_predicted_line() -> None:
    f, y = outputs(1)
    g, z = outputs(2)
    slope, intercept = nl.predicted_line(
        nl.centred_scores(f, y), nl.centred_scores(g, z), num_classes=4
    )
    assert slope.shape == intercept.shape == (3,)
    for rho, rtol in ((1e-3, 2e-2), (1e-5, 2e-4)):  # the ratio's error is of order rho
        reached = math.log(4) - nl.cross_entropy(rho * g, z)
        reached = reached / (math.log(4) - nl.cross_entropy(rho * f, y))
        torch.testing.assert_close(reached, slope, rtol=rtol, atol=0.0)
    torch.testing.assert_close(slope * math.log(4) + intercept, torch.full_like(slope, math.log(4)))


def test_predicted_line_refuses_misfits() -> None:
    scores = torch.ones(3, 5)
    with pytest.raises(ValueError, match=r"test_scores without its last axis must have shape \(3,"):
        nl.predicted_line(scores, scores[:2], num_classes=4)
    with pytest.raises(ValueError, match="must not have mean zero"):
        nl.predicted_line(0 * scores, scores, num_classes=4)
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        nl.predicted_line(scores, scores, num_classes=1)


# --- the released numbers -------------------------------------------------------------------------


def test_released_runs() -> None:
    runs = nl.released()
    columns = [value for value in vars(runs).values()]
    assert {len(column) for column in columns} == {75}
    assert len(np.unique(np.stack(columns[1:], axis=1), axis=0)) == 75  # no run twice
    folders, counts = np.unique(runs.run_set, return_counts=True)
    assert dict(zip(folders.tolist(), counts.tolist(), strict=True)) == {
        "8error": 16,
        "old": 29,
        "threegood": 24,
        "top": 6,
    }
    for name in ("train_error", "test_error", "normalized_train_error"):
        assert ((0 < getattr(runs, name)) & (getattr(runs, name) < 0.5)).all()


def test_released_line_with_numpy() -> None:
    runs = nl.released()
    x, y = runs.normalized_train_loss, runs.normalized_test_loss
    slope, intercept = np.polyfit(x, y, 1)
    line = nl.fit_line(x, y)
    np.testing.assert_allclose([line.slope, line.intercept], [slope, intercept], rtol=1e-9)
    np.testing.assert_allclose([slope, intercept, line.r_squared], [0.949, 0.064, 0.931], atol=5e-4)
    assert np.count_nonzero(y < x) == 65
