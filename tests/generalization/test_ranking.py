"""Rank correlations against SciPy and brute force, measures against one network at a time."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from companion import data, networks
from companion.data import Dataset
from companion.generalization import ranking
from companion.networks import MLP

NET = MLP((64, 8, 8, 10))


def digits() -> tuple[Dataset, Dataset]:
    x, y = data.digits()
    return Dataset(x[:60], y[:60]), Dataset(x[60:160], y[60:160])


def brute_force_losses(f: torch.Tensor, y: torch.Tensor) -> list[float]:
    """-log softmax(f)_y point by point, with math.exp."""
    rows = zip(f.tolist(), y.tolist(), strict=True)
    return [-row[c] + math.log(sum(math.exp(value) for value in row)) for row, c in rows]


# --- measures ------------------------------------------------------------------------------------


def test_measures_are_those_of_each_network_alone() -> None:
    train, test = digits()
    params = NET.init(seed=[3, 4], scale=[0.5, 2.0])
    found = ranking.measure(NET, params, train, test)
    for m in range(2):
        W = networks.member(params, m)
        norms = [float(torch.linalg.norm(W[name])) for name in NET.layer_names]
        rho = math.prod(norms)
        V = {name: W[name] / norm for name, norm in zip(NET.layer_names, norms, strict=True)}
        f, g = NET(W, train.x), NET(W, test.x)
        unit, unit_test = NET(V, train.x), NET(V, test.x)
        own = unit[range(60), train.y]
        others = torch.tensor(
            [
                max(row[:c] + row[c + 1 :])
                for row, c in zip(unit.tolist(), train.y.tolist(), strict=True)
            ]
        )
        expected = {
            "rho": rho,
            "train_error": float((f.argmax(1) != train.y).double().mean()),
            "train_loss": np.mean(brute_force_losses(f, train.y)),
            "normalized_train_loss": np.mean(brute_force_losses(unit, train.y)),
            "train_score": float((own - unit.mean(1)).mean()),
            "min_margin": float((own - others).min()),
            "test_error": float((g.argmax(1) != test.y).double().mean()),
            "test_loss": np.mean(brute_force_losses(g, test.y)),
            "normalized_test_loss": np.mean(brute_force_losses(unit_test, test.y)),
            "test_score": float((unit_test[range(100), test.y] - unit_test.mean(1)).mean()),
        }
        assert set(expected) == {f.name for f in fields(ranking.Measures)}
        for name, value in expected.items():
            assert float(getattr(found, name)[m]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_measures_are_evaluated_in_the_dtype_of_the_data() -> None:
    train, test = digits()
    params = NET.init(seed=[0], dtype=torch.float32)
    assert ranking.measure(NET, params, train, test).test_loss.dtype == torch.float64


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_normalized_measures_ignore_the_norms(factor: float) -> None:
    train, test = digits()
    params = NET.init(seed=[0, 1])
    scaled = {name: factor * W for name, W in params.items()}
    before, after = (ranking.measure(NET, p, train, test) for p in (params, scaled))
    for name in ("normalized_train_loss", "normalized_test_loss", "train_score", "min_margin"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-10, atol=0)
    torch.testing.assert_close(after.rho, factor**3 * before.rho, rtol=1e-10, atol=0)


def test_concatenate_keeps_the_order() -> None:
    train, test = digits()
    params = NET.init(seed=[0, 1, 2])
    whole = ranking.measure(NET, params, train, test)
    parts = [{n: W[rows] for n, W in params.items()} for rows in ([0], [1, 2])]
    joined = ranking.concatenate([ranking.measure(NET, p, train, test) for p in parts])
    for f in fields(ranking.Measures):
        torch.testing.assert_close(
            getattr(joined, f.name), getattr(whole, f.name), rtol=1e-10, atol=1e-14
        )
    with pytest.raises(ValueError, match="at least one Measures"):
        ranking.concatenate([])


def test_common_rho_gives_the_median_loss() -> None:
    train, test = digits()
    params = NET.init(seed=[0, 1, 2, 3, 4])
    V = networks.directions(params)
    y = NET(V, train.x)[2].argmax(-1)  # labels that network 2, and no other, fits
    y_all = Dataset(train.x, y)
    same = {name: W[[2, 2, 2]] for name, W in params.items()}
    rho, on_train, on_test = ranking.at_common_rho(NET, same, y_all, test, loss=0.5)
    assert float(on_train.median()) == pytest.approx(0.5, abs=1e-9)
    f = rho * NET(V, test.x)[2]
    assert float(on_test[0]) == pytest.approx(np.mean(brute_force_losses(f, test.y)), rel=1e-9)


# --- label noise ---------------------------------------------------------------------------------

labels = torch.arange(200) % 10


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 50))
def test_noise_is_nested(p: float, q: float, seed: int) -> None:
    low, high = sorted((p, q))
    a, b = (ranking.relabel(labels, v, num_classes=10, seed=seed) for v in (low, high))
    assert int((a != labels).sum()) <= round(200 * low)
    moved = a != labels
    assert torch.equal(a[moved], b[moved])
    assert ((b != labels) >= moved).all()


def test_noise_is_uniform_over_the_classes() -> None:
    y = torch.zeros(100_000, dtype=torch.int64)
    drawn = ranking.relabel(y, 1.0, num_classes=10, seed=0)
    assert stats.chisquare(torch.bincount(drawn, minlength=10).numpy()).pvalue > 1e-3
    half = ranking.relabel(y, 0.5, num_classes=10, seed=0)
    assert float((half != 0).double().mean()) == pytest.approx(0.45, abs=0.01)


def test_no_noise_leaves_the_labels_and_the_argument_alone() -> None:
    y = labels.clone()
    assert torch.equal(ranking.relabel(y, 0, num_classes=10, seed=0), labels)
    ranking.relabel(y, 1.0, num_classes=10, seed=0)
    assert torch.equal(y, labels)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fraction": 1.5}, r"fraction must be in \[0, 1\]"),
        ({"fraction": -0.1}, "fraction must be finite and at least 0"),
        ({"num_classes": 5}, r"y must lie in 0 \.\. 4"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_relabel_rejects(change: dict[str, float], match: str) -> None:
    arguments = {"fraction": 0.5, "num_classes": 10, "seed": 0, **change}
    with pytest.raises(ValueError, match=match):
        ranking.relabel(labels, **arguments)


# --- rank correlations ---------------------------------------------------------------------------

columns = st.integers(3, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 6), min_size=n, max_size=n)] * 2)
)


@given(columns)
def test_spearman_is_pearson_of_the_ranks(pair: tuple[list[int], list[int]]) -> None:
    a, b = pair
    if len(set(a)) == 1 or len(set(b)) == 1:
        with pytest.raises(ValueError, match="must not be constant"):
            ranking.spearman(a, b)
        return
    ranks = [[sum(v < w for v in c) + sum(v == w for v in c) / 2 for w in c] for c in (a, b)]
    assert ranking.spearman(a, b) == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-12)
    assert ranking.spearman(torch.tensor(a), np.exp(b)) == pytest.approx(ranking.spearman(a, b))


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ([1, 2, 3], [1, 2], "same shape"),
        ([1, 2], [1, 2], "M >= 3"),
        ([[1, 2, 3]], [[1, 2, 3]], "same shape"),
        ([1, 2, math.nan], [1, 2, 3], "NaN"),
    ],
)
def test_pairs_that_have_no_correlation(a: list, b: list, match: str) -> None:
    for function in (ranking.spearman, lambda a, b: ranking.within(a, b, "aaa")):
        with pytest.raises(ValueError, match=match):
            function(a, b)


def test_within_takes_each_group_alone() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12))
    groups = ["x", "y", "x", "z"] * 3
    found = ranking.within(a, b, groups)
    assert list(found) == ["x", "y", "z"]
    for name, value in found.items():
        rows = [i for i, g in enumerate(groups) if g == name]
        assert value == pytest.approx(stats.spearmanr(a[rows], b[rows])[0], abs=1e-12)
    with pytest.raises(ValueError, match="groups must name 12 networks, got 3"):
        ranking.within(a, b, "xyz")


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_granulated_is_the_mean_of_kendalls_tau(seed: int) -> None:
    grid = list(itertools.product([0.0, 0.5, 1.0], [0.1, 1.0], ["s", "t"]))
    rng = np.random.default_rng(seed)
    rng.shuffle(grid)
    a, b = rng.normal(size=(2, 12))  # no ties, so that scipy's tau-b is tau-a
    names = ("noise", "scale", "seed")
    columns = dict(zip(names, zip(*grid, strict=True), strict=True))
    found = ranking.granulated(a, b, columns)
    for axis, name in enumerate(names):
        groups: dict[tuple, list[int]] = {}
        for i, point in enumerate(grid):
            groups.setdefault(tuple(np.delete(np.array(point, dtype=object), axis)), []).append(i)
        taus = [stats.kendalltau(a[rows], b[rows])[0] for rows in groups.values()]
        assert found[name] == pytest.approx(np.mean(taus), abs=1e-12)


def test_granulated_with_ties_counts_them_as_zero() -> None:
    assert ranking.granulated([1, 1, 2], [1, 2, 3], {"p": [0, 1, 2]}) == {"p": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"p": [0, 1]}, r"settings\['p'\] must have 3 values, got 2"),
        ({"p": [0, 1, 2], "q": [0, 1, 2]}, r"settings\['p'\] never varies with the others fixed"),
    ],
)
def test_granulated_rejects(columns: dict[str, list[int]], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ranking.granulated([1, 2, 3], [1, 2, 3], columns)


def test_simpson() -> None:
    """Groups that all rise, and fall together when pooled: the case the chapter warns of."""
    a = np.concatenate([np.arange(5) + 10 * g for g in range(3)])
    b = np.concatenate([np.arange(5) - 10 * g for g in range(3)])
    groups = np.repeat([0, 1, 2], 5).tolist()
    assert list(ranking.within(a, b, groups).values()) == pytest.approx([1.0, 1.0, 1.0])
    assert ranking.spearman(a, b) < -0.5
