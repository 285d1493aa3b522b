"""The largest margin of two-layer ReLU networks against a cone program and by weak duality."""

from __future__ import annotations

import math

import clarabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from companion.dynamics import certificates, margin
from companion.networks import MLP


def cross() -> tuple[Tensor, Tensor]:
    x = torch.tensor([[1.0, 0.25], [-1.0, 0.25]], dtype=torch.float64)
    return x, torch.ones(2, dtype=torch.float64)


def random_set(num: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(num, 2, generator=g, dtype=torch.float64)
    return x, torch.where(torch.rand(num, generator=g) < 0.5, -1.0, 1.0).double()


def by_cone_program(x: np.ndarray, y: np.ndarray) -> float:
    """1 / min sum |w_c| over one vector per activation pattern and sign, w_c in its closed cone."""
    dense = np.linspace(0, 2 * math.pi, 20_000, endpoint=False)
    patterns = np.unique(x @ np.stack([np.cos(dense), np.sin(dense)]) > 0, axis=1).T
    blocks, cones, rows, rhs = [], [], [], []
    num = 2 * len(patterns)  # variables: w (num, 2), then t (num,)
    margins = np.zeros((len(y), 3 * num))
    for j in range(num):
        active, s = patterns[j % len(patterns)], 1.0 if j < len(patterns) else -1.0
        margins[:, 2 * j : 2 * j + 2] = s * (y * active)[:, None] * x
        inside = np.zeros((len(y), 3 * num))
        inside[:, 2 * j : 2 * j + 2] = np.where(active, 1.0, -1.0)[:, None] * x
        blocks.append(inside)
        cone = np.zeros((3, 3 * num))
        cone[0, 2 * num + j] = cone[1, 2 * j] = cone[2, 2 * j + 1] = 1.0
        rows.append(cone)
    A = -np.concatenate([margins, *blocks, *rows])
    rhs = np.zeros(len(A))
    rhs[: len(y)] = -1.0
    cones = [clarabel.NonnegativeConeT(len(y) * (1 + num))]
    cones += [clarabel.SecondOrderConeT(3)] * num
    cost = np.r_[np.zeros(2 * num), np.ones(num)]
    settings_ = clarabel.DefaultSettings()
    settings_.verbose = False
    zero = sparse.csc_matrix((3 * num, 3 * num))
    solution = clarabel.DefaultSolver(
        zero, cost, sparse.csc_matrix(A), rhs, cones, settings_
    ).solve()
    return 1 / solution.obj_val


def test_two_points() -> None:
    found = certificates.best_margin(*cross())
    assert found.margin == pytest.approx(math.sqrt(17) / 8, rel=1e-12)
    assert abs(found.gap) < 1e-12
    torch.testing.assert_close(found.dual, torch.full((2,), 4 / math.sqrt(17)).double())


@pytest.mark.parametrize(("num", "seed"), [(3, 0), (5, 1), (8, 2), (12, 3)])
def test_against_a_cone_program(num: int, seed: int) -> None:
    x, y = random_set(num, seed)
    found = certificates.best_margin(x, y)
    assert found.margin == pytest.approx(by_cone_program(x.numpy(), y.numpy()), rel=1e-5)
    assert -1e-12 < found.gap <= 1.01e-9 * found.margin


@pytest.mark.parametrize(("num", "seed"), [(1, 0), (4, 1), (10, 2), (25, 3)])
def test_the_network_attains_the_margin(num: int, seed: int) -> None:
    x, y = random_set(num, seed)
    found = certificates.best_margin(x, y)
    net = MLP(widths=(2, len(found.params["W1"]), 1))
    reached = margin.normalized_margins(net, found.params, x, y).min()
    assert float(reached) == pytest.approx(found.margin, rel=1e-10)
    assert float((y * net(found.params, x)).min()) == pytest.approx(1.0, rel=1e-10)
    assert (found.dual >= 0).all()
    assert abs(certificates.strongest_unit(x, found.dual * y).value) < 1 + 1e-9
    assert 1 / float(found.dual.sum()) == pytest.approx(found.bound, rel=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(deadline=None, max_examples=50)
def test_no_network_exceeds_the_bound(seed: int, width: int) -> None:
    x, _ = random_set(6, seed)
    net = MLP(widths=(2, width, 1))
    W = net.init(seed=seed)
    y = torch.sign(net(W, x))
    if (y == 0).any():
        return
    reached = float(margin.normalized_margins(net, W, x, y).min())
    assert reached <= certificates.best_margin(x, y).bound * (1 + 1e-9)


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_strongest_unit_beats_a_dense_search(seed: int, num: int) -> None:
    x, y = random_set(num, seed)
    unit = certificates.strongest_unit(x, y)
    angles = torch.linspace(0, 2 * math.pi, 5001, dtype=torch.float64)
    u = torch.stack([angles.cos(), angles.sin()])
    dense = float((y @ torch.relu(x @ u)).abs().max())
    assert abs(unit.value) >= dense - 1e-12
    assert abs(unit.value) <= dense + 2e-3 * float(x.norm(dim=1).sum())
    assert float(unit.u.norm()) == pytest.approx(1.0)
    assert float(y @ torch.relu(x @ unit.u)) == pytest.approx(unit.value, abs=1e-12)


def test_scale_and_rotation() -> None:
    x, y = random_set(7, 4)
    c, s = math.cos(0.7), math.sin(0.7)
    turned = 3 * x @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    one, other = certificates.best_margin(x, y), certificates.best_margin(turned, y)
    assert other.margin == pytest.approx(3 * one.margin, rel=1e-8)


def test_bad_input() -> None:
    x, y = cross()
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\)"):
        certificates.best_margin(torch.ones(3, 4, dtype=torch.float64), torch.ones(3).double())
    with pytest.raises(ValueError, match="must be separable"):
        certificates.best_margin(torch.cat([x, 2 * x[:1]]), torch.tensor([1.0, 1.0, -1.0]).double())
    with pytest.raises(ValueError, match="must be separable"):
        certificates.best_margin(torch.zeros_like(x), y)
    with pytest.raises(ValueError, match="labels"):
        certificates.best_margin(x, 0.5 * y)
    with pytest.raises(ValueError, match="rtol"):
        certificates.best_margin(x, y, rtol=0.0)
    with pytest.raises(ValueError, match="weights"):
        certificates.strongest_unit(x, torch.ones(3).double())
