"""Random features: exact least squares, nested fits, rates of known functions, clear errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from companion.approximation import features
from companion.approximation.compositional import Compositional, Graph
from companion.approximation.features import RandomFeatures, loglog_slope, uniform_points


def test_outer_weights_are_numpys_ridge_regression() -> None:
    drawn = RandomFeatures.draw(2, 12, seeds=[3, 4], scale=1.5)
    x = uniform_points(200, 2, seed=0)
    y = torch.sin(3 * x[:, 0]) * x[:, 1]
    ridge = 1e-3
    for units, outer in zip((5, 12), drawn.solve(x, y, units=[5, 12], ridge=ridge), strict=True):
        assert outer.shape == (2, 1 + units)
        for m in range(2):
            A = drawn(x)[m, :, : 1 + units].numpy()
            tall = np.vstack([A, ridge * np.sqrt(200) * np.eye(1 + units)])
            target = np.concatenate([y.numpy(), np.zeros(1 + units)])
            reference = np.linalg.lstsq(tall, target, rcond=None)[0]
            np.testing.assert_allclose(outer[m].numpy(), reference, rtol=1e-8, atol=1e-10)


def test_units_follow_their_formula_and_their_seed() -> None:
    drawn = RandomFeatures.draw(3, 4, seeds=[7, 8], scale=2.0, activation="softplus")
    x = uniform_points(5, 3, seed=1)
    values = drawn(x)
    assert values.shape == (2, 5, 5) and (values[..., 0] == 1).all()
    z = x @ drawn.weights[1].T + drawn.biases[1]
    torch.testing.assert_close(values[1, :, 1:], torch.nn.functional.softplus(z))
    alone = RandomFeatures.draw(3, 4, seeds=[8], scale=2.0)
    assert torch.equal(alone.weights[0], drawn.weights[1])
    own = torch.stack([x, -x])
    torch.testing.assert_close(drawn(own)[1], drawn(-x)[1])


def test_functions_in_the_span_are_found() -> None:
    units = RandomFeatures.draw(2, 8, seeds=[0], activation="square")
    x = uniform_points(300, 2, seed=0)
    y = 1 + x[:, 0] * x[:, 1] - x[:, 0]
    (outer,) = units.solve(x, y, units=[8], ridge=1e-12)
    torch.testing.assert_close((units(x)[0] @ outer[0]), y, rtol=0, atol=1e-9)


def test_shallow_and_tree_are_the_same_for_two_variables() -> None:
    f = Compositional(Graph.tree(2), lambda a, b: torch.cos(a + 2 * b))
    runs = [
        features.shallow(f, 2, units=[8, 32], seeds=[0, 1]),
        features.tree(f, units=[8, 32], seeds=[0, 1]),
    ]
    for run in runs:
        assert run.units.tolist() == [8, 32] and run.slope < -1
        assert (run.error[1] < run.error[0]) and (run.sup > 0).all()


def test_tree_counts_the_units_of_all_nodes_and_composes_the_fits() -> None:
    f = Compositional(Graph.tree(8), lambda a, b: torch.sin(a * b + 0.8 * a - 0.5 * b + 0.3))
    own = features.tree(f, units=[16, 64], seeds=[0], scale=1.0)
    shared = features.tree(f, units=[16, 64], seeds=[0], scale=1.0, shared=True)
    assert own.units.tolist() == [112, 448]
    assert own.error[1] < 1e-3 and shared.error[1] < 1e-3  # equal nodes: sharing costs nothing
    different = Compositional(
        Graph.tree(4),
        (lambda a, b: (a + b) / 2, lambda a, b: (a - b) / 2, lambda a, b: torch.sin(a * b)),
    )
    assert features.tree(different, units=[32], seeds=[0], scale=1.0).error < 0.05
    assert features.tree(different, units=[32], seeds=[0], scale=1.0, shared=True).error > 0.5


def test_every_device_computes_the_same(device: str) -> None:
    f = Compositional(Graph.tree(4), torch.maximum)
    for run in (features.tree, lambda f, **options: features.shallow(f, 4, **options)):
        here, there = (run(f, units=[8, 16], seeds=[5], device=d) for d in ("cpu", device))
        torch.testing.assert_close(here.error, there.error, rtol=1e-6, atol=0)


def test_results_repeat_bit_for_bit() -> None:
    f = Compositional(Graph.tree(4), torch.maximum)
    first, second = (features.tree(f, units=[8, 16], seeds=[5]) for _ in range(2))
    assert torch.equal(first.error, second.error) and torch.equal(first.sup, second.sup)


def test_points_fill_the_cube() -> None:
    x = uniform_points(4000, 3, seed=0, reach=1.5)
    assert x.shape == (4000, 3) and x.dtype == torch.float64
    assert 1.49 < x.abs().max() <= 1.5 and x.mean(dim=0).abs().max() < 0.06


def test_slope_of_a_power_law() -> None:
    x = torch.tensor([1.0, 3.0, 10.0])
    assert loglog_slope(x, 5 * x**-1.5) == pytest.approx(-1.5, rel=1e-6)
    with pytest.raises(ValueError, match="x and y must be positive"):
        loglog_slope([1.0, 2.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="two or more, got 1, 1"):
        loglog_slope([1.0], [1.0])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="activation must be one of 'tanh'"):
        RandomFeatures.draw(2, 3, seeds=[0], activation="step")
    with pytest.raises(ValueError, match="scale must be finite and greater than 0"):
        RandomFeatures.draw(2, 3, seeds=[0], scale=0.0)
    drawn = RandomFeatures.draw(2, 3, seeds=[0, 1])
    x = uniform_points(6, 2, seed=0)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\) or \(2, N, 2\), got \(6, 3"):
        drawn(torch.zeros(6, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="units must be at most 3, got 4"):
        drawn.solve(x, x[:, 0], units=[4])
    with pytest.raises(ValueError, match=r"y must have shape \(6,\) or \(2, 6\), got \(5,\)"):
        drawn.solve(x, x[:5, 0], units=[2])
    mixed = Compositional(Graph(3, ((0, 1, 2), (0, 3))), (lambda a, b, c: a, torch.add))
    with pytest.raises(ValueError, match=r"equally many values, got \[2, 3\]"):
        features.tree(mixed, units=[2], seeds=[0])
