"""Closed forms against explicit refits, exact rationals, plain loops and simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from companion.dynamics import minimum_norm
from companion.generalization import interpolation


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def refits(x: Tensor, y: Tensor, u: Tensor | None = None) -> np.ndarray:
    """Each sample's error after a fit to the others by LAPACK's least squares."""
    x, y = x.numpy(), y.numpy()
    u = np.zeros((x.shape[1], *y.shape[1:])) if u is None else u.numpy()
    errors = []
    for n in range(len(x)):
        others = np.arange(len(x)) != n
        step = np.linalg.lstsq(x[others], y[others] - x[others] @ u, rcond=None)[0]
        errors.append(y[n] - x[n] @ (u + step))
    return np.array(errors)


# --- features and fits ---------------------------------------------------------------------------


def test_features_are_relus_of_a_list_that_only_grows() -> None:
    x = normal(7, 3)
    few, many = (interpolation.relu_features(x, D, seed=5) for D in (11, 60))
    torch.testing.assert_close(few * math.sqrt(11 / 60), many[:, :11])
    u = np.random.default_rng(5).standard_normal((11, 3))
    expected = np.maximum(0, x.numpy() @ u.T) * math.sqrt(2 / 11)
    np.testing.assert_allclose(few.numpy(), expected, atol=1e-14)


def test_many_features_have_the_arc_cosine_kernel() -> None:
    x = normal(2, 3, seed=1)
    phi = interpolation.relu_features(x, 200_000, seed=0)
    size = torch.linalg.norm(x, dim=1)
    angle = math.acos(float(x[0] @ x[1] / size.prod()))
    kernel = float(size.prod()) * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
    assert float(phi[0] @ phi[1]) == pytest.approx(kernel, rel=0.02)
    torch.testing.assert_close(torch.linalg.norm(phi, dim=1), size, rtol=0.02, atol=0)


@pytest.mark.parametrize(("N", "D"), [(5, 9), (9, 5), (6, 6)])
def test_interpolant_agrees_with_lapack_and_with_the_dynamics_part(N: int, D: int) -> None:
    x, y, u = normal(N, D, seed=2), normal(N, seed=3), normal(D, seed=4)
    w = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(interpolation.interpolant(x, y).numpy(), w, atol=1e-11)
    torch.testing.assert_close(
        interpolation.interpolant(x, y, nearest_to=u),
        minimum_norm.minimum_norm_solution(x, y, nearest_to=u),
    )


def test_batches_and_outputs_are_fits_of_their_own() -> None:
    x, y, u = normal(3, 4, 7), normal(3, 4, 2, seed=1), normal(7, 2, seed=2)
    for function in (interpolation.interpolant, interpolation.leave_one_out):
        together = function(x, y, nearest_to=u)
        for m in range(3):
            for c in range(2):
                alone = function(x[m], y[m, :, c], nearest_to=u[:, c])
                torch.testing.assert_close(together[m, ..., c], alone)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_no_other_interpolant_is_nearer(seed: int) -> None:
    x, y, u = normal(4, 9, seed=seed), normal(4, seed=seed + 1), normal(9, seed=seed + 2)
    w = interpolation.interpolant(x, y, nearest_to=u)
    torch.testing.assert_close(x @ w, y, rtol=0, atol=1e-9)
    shift = normal(9, seed=seed + 3)
    shift -= torch.linalg.pinv(x) @ (x @ shift)
    assert torch.linalg.norm(w + shift - u) > torch.linalg.norm(w - u)


# --- leave-one-out -------------------------------------------------------------------------------


@pytest.mark.parametrize("N", [1, 2, 12])
@pytest.mark.parametrize("D", [1, 5, 11, 12, 13, 40])
def test_leave_one_out_equals_refits(N: int, D: int) -> None:
    x, y, u = normal(N, D, seed=N + D), normal(N, 3, seed=1), normal(D, 3, seed=2)
    found = interpolation.leave_one_out(x, y, nearest_to=u)
    np.testing.assert_allclose(found.numpy(), refits(x, y, u), rtol=1e-8, atol=1e-10)


def test_leave_one_out_where_some_samples_are_combinations_of_others() -> None:
    """Both forms in one data set: repeated samples are dispensable, the others are not."""
    x, y = normal(5, 9, seed=6), normal(8, seed=7)
    x = torch.cat([x, x[:1], x[1:3].sum(dim=0, keepdim=True), torch.zeros(1, 9).double()])
    found = interpolation.leave_one_out(x, y)
    np.testing.assert_allclose(found.numpy(), refits(x, y), rtol=1e-9, atol=1e-11)


def test_leave_one_out_over_the_rationals() -> None:
    rows, targets = [[1, 2, 0, 1], [0, 1, 1, 3], [2, 0, 1, 1]], [1, -2, 3]
    exact = []
    for n in range(3):
        others = [i for i in range(3) if i != n]
        X = sympy.Matrix([rows[i] for i in others])
        w = X.T * (X * X.T).inv() * sympy.Matrix([targets[i] for i in others])
        exact.append(Fraction(str(targets[n] - (sympy.Matrix([rows[n]]) * w)[0])))
    x, y = torch.tensor(rows).double(), torch.tensor(targets).double()
    found = interpolation.leave_one_out(x, y)
    np.testing.assert_allclose(found.numpy(), [float(e) for e in exact], atol=1e-13)


def test_leave_one_out_is_the_limit_of_ridge() -> None:
    for N, D in ((6, 4), (4, 6)):
        x, y = normal(N, D, seed=8), normal(N, seed=9)
        A = torch.linalg.inv(x @ x.T + 1e-9 * torch.eye(N).double())
        torch.testing.assert_close(
            interpolation.leave_one_out(x, y), A @ y / A.diagonal(), rtol=1e-5, atol=1e-6
        )


def test_novelties_make_the_errors_affine_in_the_starting_point() -> None:
    x, y, u = normal(5, 11, seed=3), normal(5, seed=4), normal(11, seed=5)
    b, w = interpolation.novelties(x), interpolation.interpolant(x, y)
    gram = x @ b.T
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-12)
    torch.testing.assert_close(gram.diagonal(), b.square().sum(dim=1))
    errors = interpolation.leave_one_out(x, y)
    torch.testing.assert_close(b @ w, errors)
    torch.testing.assert_close(
        interpolation.leave_one_out(x, y, nearest_to=u), errors - b @ u, rtol=0, atol=1e-12
    )
    with pytest.raises(ValueError, match="linearly independent rows"):
        interpolation.novelties(torch.cat([x, x[:1]]))


def test_sensitivities_are_norms_of_the_pseudoinverse() -> None:
    for x in (normal(4, 7), normal(7, 4), torch.diag(torch.tensor([3.0, 0.5, 0.0]).double())):
        norm, condition = interpolation.sensitivities(x)
        inverse = np.linalg.norm(np.linalg.pinv(x.numpy()), 2)
        assert float(norm) == pytest.approx(inverse, rel=1e-12)
        assert float(condition) == pytest.approx(inverse * np.linalg.norm(x.numpy(), 2), rel=1e-12)


# --- expected error ------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "D"), [(12, 4), (6, 14), (5, 5), (0, 3)])
def test_expected_error_against_simulation(N: int, D: int) -> None:
    draws, noise = 4000, 0.3 if N != D else 0.0
    w_star = normal(D, seed=1)
    signal = float(w_star @ w_star)
    expected = interpolation.expected_error(N, D, signal=signal, noise=noise)
    if N == 0:
        assert expected == pytest.approx(signal + noise)
        return
    x = normal(draws, N, D, seed=2)
    y = x @ w_star + noise**0.5 * normal(draws, N, seed=3)
    error = (interpolation.interpolant(x, y) - w_star).square().sum(dim=-1) + noise
    spread = float(error.std()) / draws**0.5
    assert abs(float(error.mean()) - expected) <= 4 * spread + 1e-9


def test_expected_error_has_its_pole_and_its_limits() -> None:
    error = interpolation.expected_error
    assert all(error(10, D, signal=1.0, noise=0.1) == math.inf for D in (9, 10, 11))
    assert error(10, 8, signal=9.0, noise=0.1) == pytest.approx(0.1 * (1 + 8))
    assert error(10, 10**9, signal=1.0, noise=0.1) == pytest.approx(1.1)
    # Breiman & Freedman: noise (N - 1) / (N - D - 1)
    assert error(30, 7, signal=2.0, noise=1.0) == pytest.approx(29 / 22)


# --- descent and classification ------------------------------------------------------------------


@pytest.mark.parametrize(("N", "D"), [(4, 7), (7, 4)])
def test_descent_path_equals_the_loop(N: int, D: int) -> None:
    x, y, start = normal(N, D, seed=1), normal(N, seed=2), normal(D, seed=3)
    lr = 0.7 * N / float(torch.linalg.matrix_norm(x, ord=2)) ** 2
    path = interpolation.descent_path(x, y, [0, 1, 2, 50], lr=lr, start=start)
    w = start.clone()
    torch.testing.assert_close(path[0], w)
    for t in range(1, 51):
        w = w - lr / N * (x.T @ (x @ w - y))
        if t in (1, 2, 50):
            torch.testing.assert_close(path[(1, 2, 50).index(t) + 1], w)


def test_descent_path_ends_at_the_nearest_interpolant() -> None:
    x, y, start = normal(4, 7, seed=1), normal(4, 2, seed=2), normal(7, 2, seed=3)
    end = interpolation.descent_path(x, y, [10**12], start=start)[0]
    torch.testing.assert_close(end, interpolation.interpolant(x, y, nearest_to=start))
    still = interpolation.descent_path(torch.zeros(2, 3).double(), y[:2], [5])
    assert not still.any()


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_no_classifier_beats_bayes(seed: int) -> None:
    root, mean = normal(4, 4, seed=seed), normal(4, seed=seed + 1)
    covariance = root @ root.T + 0.1 * torch.eye(4).double()
    bayes = interpolation.classification_error(
        torch.linalg.solve(covariance, mean), mean, covariance
    )
    others = interpolation.classification_error(normal(50, 4, seed=seed + 2), mean, covariance)
    assert bool((others >= bayes - 1e-12).all())
    distance = math.sqrt(float(mean @ torch.linalg.solve(covariance, mean)))
    assert float(bayes) == pytest.approx(stats.norm.cdf(-distance), abs=1e-9)


# --- bad input -----------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    x, y = normal(3, 5), normal(3)
    with pytest.raises(ValueError, match=r"x must have shape \(N, d\), got \(3,\)"):
        interpolation.relu_features(y, 4, seed=0)
    with pytest.raises(ValueError, match="num_features must be at least 1, got 0"):
        interpolation.relu_features(x, 0, seed=0)
    with pytest.raises(ValueError, match=r"y must have shape .* got \(4,\)"):
        interpolation.leave_one_out(x, normal(4))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., N, D\)"):
        interpolation.sensitivities(torch.zeros(0, 5).double())
    with pytest.raises(ValueError, match="x must be finite"):
        interpolation.interpolant(x * math.nan, y)
    with pytest.raises(ValueError, match="dtype and device of x"):
        interpolation.interpolant(x, y.float())
    with pytest.raises(ValueError, match=r"must broadcast to the weights, \(5,\), got \(4,\)"):
        interpolation.interpolant(x, y, nearest_to=normal(4))
    with pytest.raises(ValueError, match="lr must be at most"):
        interpolation.descent_path(x, y, [1], lr=100.0)
    with pytest.raises(ValueError, match="steps must be a list"):
        interpolation.descent_path(x, y, [-1])
    with pytest.raises(ValueError, match="noise must be finite and at least 0"):
        interpolation.expected_error(3, 4, signal=1.0, noise=-1.0)
    with pytest.raises(ValueError, match=r"mean must have shape \(5,\), got \(3,\)"):
        interpolation.classification_error(normal(5), y, torch.eye(5).double())
