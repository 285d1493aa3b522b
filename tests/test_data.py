"""Data: certified maximum margins against independent solvers, digits against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import clarabel
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from companion import data
from companion.data import SeparableDataset


def max_margin_by_qp(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Maximum margin through 0 by min |w|^2 / 2 subject to y_n w . x_n >= 1 (interior point)."""
    N, d = x.shape
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    # At 1e-13 one data set in 300 stalls.
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    solver = clarabel.DefaultSolver(
        scipy.sparse.identity(d, format="csc"),
        np.zeros(d),
        scipy.sparse.csc_matrix(-y[:, None] * x),
        -np.ones(N),
        [clarabel.NonnegativeConeT(N)],
        settings,
    )
    solution = solver.solve()
    assert solution.status == clarabel.SolverStatus.Solved
    w = np.array(solution.x)
    return 1 / np.linalg.norm(w), w / np.linalg.norm(w)


def max_margin_by_nnls(x: np.ndarray, y: np.ndarray) -> float:
    """Distance from 0 to the convex hull of y_n x_n, from min |A^T a|^2 + |sum a - 1|^2, a >= 0."""
    A = (y[:, None] * x).T
    a, _ = scipy.optimize.nnls(np.vstack([A, np.ones(len(y))]), np.append(np.zeros(len(A)), 1.0))
    return float(np.linalg.norm(A @ a) / a.sum())


def certificate_error(s: SeparableDataset) -> float:
    """Largest violation of what certifies the maximum margin."""
    margins = s.y * (s.x @ s.direction)
    combination = (s.weights * s.y) @ s.x
    errors = [
        (s.direction.norm() - 1).abs(),
        (s.weights.sum() - 1).abs(),
        (combination - s.margin * s.direction).abs().max(),
        (margins.min() - s.margin).abs(),
        (margins[s.weights > 0] - s.margin).abs().max(),
        s.weights.min().clamp(max=0).abs(),
    ]
    return max(error.item() for error in errors)


@given(
    num_points=st.integers(4, 40),
    dim=st.integers(2, 8),
    margin=st.floats(0.05, 3.0),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40)
def test_maximum_margin_agrees_with_independent_solvers(
    num_points: int, dim: int, margin: float, seed: int
) -> None:
    s = data.separable(num_points, dim, margin=margin, seed=seed)
    assert certificate_error(s) < 1e-13
    value, direction = max_margin_by_qp(s.x.numpy(), s.y.numpy())
    assert value == pytest.approx(margin, rel=1e-9)
    assert direction == pytest.approx(s.direction.numpy(), abs=1e-5)
    assert max_margin_by_nnls(s.x.numpy(), s.y.numpy()) == pytest.approx(margin, rel=1e-9)


def test_maximum_margin_agrees_with_a_support_vector_machine() -> None:
    """SVC has an intercept; with each point and its mirror image the best intercept is 0."""
    s = data.separable(30, 4, margin=0.7, seed=3)
    x, y = torch.cat([s.x, -s.x]).numpy(), torch.cat([s.y, -s.y]).numpy()
    machine = SVC(kernel="linear", C=1e8, tol=1e-8).fit(x, y)
    assert 1 / np.linalg.norm(machine.coef_) == pytest.approx(0.7, rel=1e-4)


@given(
    num_points=st.integers(2, 30),
    dim=st.integers(1, 6),
    num_support=st.integers(1, 10),
    spread=st.floats(1e-2, 10.0),
    seed=st.integers(0, 10**6),
)
def test_certificate_holds_for_any_number_of_support_vectors(
    num_points: int, dim: int, num_support: int, spread: float, seed: int
) -> None:
    num_support = min(num_support, num_points) if dim > 1 else 1
    s = data.separable(
        num_points, dim, margin=0.5, seed=seed, num_support=num_support, spread=spread
    )
    assert certificate_error(s) < 1e-13 * max(1, 10 * spread)
    assert int((s.weights > 0).sum()) == num_support
    beyond = (s.y * (s.x @ s.direction))[s.weights == 0]
    assert (beyond >= 1.1 * 0.5 - 1e-12).all()
    assert set(s.y.tolist()) == {-1.0, 1.0}


def test_separable_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = data.separable(10, 3, margin=1.0, seed=5)
    assert torch.equal(torch.rand(2), expected)
    again, other = (data.separable(10, 3, margin=1.0, seed=s) for s in (5, 6))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_three_points_by_hand() -> None:
    s = data.three_points()
    assert s.x.tolist() == [[1, 1], [1, -2], [3, 0]]
    assert s.y.tolist() == [1, 1, 1]
    assert certificate_error(s) < 1e-15
    value, direction = max_margin_by_qp(s.x.numpy(), s.y.numpy())
    assert value == pytest.approx(1, rel=1e-9)
    assert direction == pytest.approx([1, 0], abs=1e-6)


def test_digits_of_two_classes_agree_with_scikit_learn() -> None:
    bunch = load_digits()
    keep = np.isin(bunch.target, (3, 8))
    x, y = data.digits(classes=(3, 8), centred=False)
    assert (x.numpy() == bunch.data[keep] / 16).all()
    assert (y.numpy() == np.where(bunch.target[keep] == 8, 1.0, -1.0)).all()
    assert x.shape == (357, 64) and x.dtype == y.dtype == torch.float64
    assert 0 <= x.min() and x.max() == 1
    swapped = data.digits(classes=(8, 3), centred=False)
    assert torch.equal(swapped.x, x) and torch.equal(swapped.y, -y)


def test_digits_are_centred_on_the_points_returned() -> None:
    raw, _ = data.digits(classes=(3, 8), centred=False)
    centred = data.digits(classes=(3, 8))
    assert centred.x.mean(dim=0).abs().max() < 1e-14
    torch.testing.assert_close(centred.x, raw - raw.mean(dim=0))


def test_digits_of_all_and_of_several_classes() -> None:
    bunch = load_digits()
    x, y = data.digits()
    assert x.shape == (1797, 64)
    assert y.dtype == torch.int64 and (y.numpy() == bunch.target).all()
    several = data.digits(classes=(7, 1, 4))
    target = bunch.target[np.isin(bunch.target, (7, 1, 4))]
    assert several.y.tolist() == [(7, 1, 4).index(t) for t in target]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device(dtype: torch.dtype, device: str) -> None:
    loaded = (
        data.digits(classes=(0, 1), dtype=dtype, device=device),
        data.separable(6, 2, margin=1.0, seed=0, dtype=dtype, device=device),
        data.three_points(dtype=dtype, device=device),
    )
    for dataset in loaded:
        for value in dataset:
            if isinstance(value, torch.Tensor):
                assert value.dtype == dtype and value.device.type == device


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.digits(classes=(3,)), "classes must be two or more distinct digits"),
        (lambda: data.digits(classes=(3, 3)), "classes must be two or more distinct digits"),
        (lambda: data.digits(classes=(3, 10)), "classes must be two or more distinct digits"),
        (lambda: data.digits(classes=(3, -1)), r"classes\[1\] must be at least 0, got -1"),
        (lambda: data.digits(classes=3), "classes must be a sequence of integers, got 3"),
        (lambda: data.digits(dtype=torch.int64), "dtype must be a floating-point type"),
        (lambda: data.separable(1, 2, margin=1, seed=0), "num_points must be at least 2, got 1"),
        (lambda: data.separable(4, 0, margin=1, seed=0), "dim must be at least 1, got 0"),
        (lambda: data.separable(4, 2.0, margin=1, seed=0), "dim must be an integer, got 2.0"),
        (lambda: data.separable(4, 2, margin=0, seed=0), "margin must be finite and greater"),
        (lambda: data.separable(4, 2, margin="x", seed=0), "margin must be a number, got 'x'"),
        (lambda: data.separable(4, 2, margin=1, seed=-1), "seed must be at least 0, got -1"),
        (lambda: data.separable(4, 2, margin=1, seed=True), "seed must be an integer, got True"),
        (
            lambda: data.separable(4, 2, margin=1, seed=0, spread=float("inf")),
            "spread must be finite",
        ),
        (
            lambda: data.separable(4, 2, margin=1, seed=0, num_support=5),
            "num_support must be at most 4, got 5",
        ),
        (
            lambda: data.separable(4, 1, margin=1, seed=0, num_support=2),
            "num_support must be at most 1, got 2",
        ),
        (
            lambda: data.separable(4, 2, margin=1, seed=0, dtype=torch.int32),
            "dtype must be a floating-point type",
        ),
        (lambda: data.three_points(dtype=torch.int32), "dtype must be a floating-point type"),
    ],
)
def test_invalid_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


# --- quadrants -----------------------------------------------------------------------------------


def test_quadrants_are_labelled_by_the_sign_of_the_product() -> None:
    x, y = data.quadrants(200, seed=3, radius=(0.5, 2.0))
    assert x.shape == (200, 2) and y.shape == (200,) and x.dtype == y.dtype == torch.float64
    assert torch.equal(y, torch.where(x.prod(dim=1) > 0, 1.0, -1.0).double())
    distance = x.norm(dim=1)
    assert 0.5 <= distance.min() and distance.max() <= 2.0
    assert len({(a > 0, b > 0) for a, b in x.tolist()}) == 4


def test_quadrants_repeat_by_seed_and_are_not_linearly_separable() -> None:
    x, y = data.quadrants(40, seed=1)
    again, _ = data.quadrants(40, seed=1)
    assert torch.equal(x, again) and not torch.equal(x, data.quadrants(40, seed=2).x)
    assert SVC(kernel="linear", C=1e6).fit(x.numpy(), y.numpy()).score(x.numpy(), y.numpy()) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_points": 1}, "num_points must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"radius": (2.0, 1.0)}, r"radius must be \(smallest, largest\), in this order"),
        ({"radius": (0.0, 1.0)}, r"radius\[0\] must be finite and greater than 0"),
    ],
)
def test_quadrants_refuse_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.quadrants(**{"num_points": 10, "seed": 0, **arguments})


def test_quadrants_refuse_a_draw_with_one_label() -> None:
    bad = next(
        seed for seed in range(100) if torch.rand(2, generator=torch.Generator().manual_seed(seed),
                                                  dtype=torch.float64).mul(4).floor().remainder(2)
        .unique().numel() == 1
    )  # fmt: skip
    with pytest.raises(ValueError, match="all 2 points drawn have the label"):
        data.quadrants(2, seed=bad)
