"""Which quantities rank trained networks as their test error does, within and across groups.

A correlation over networks that differ in more than one respect can come from either: "within"
compares networks that share a hyperparameter, and the granulated coefficient of Jiang et al. lets
one hyperparameter vary at a time.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from companion import _checks, networks
from companion.data import Dataset
from companion.generalization import normalized_loss
from companion.networks import Network

__all__ = [
    "Measures",
    "at_common_rho",
    "concatenate",
    "granulated",
    "measure",
    "relabel",
    "spearman",
    "within",
]


@dataclass(frozen=True)
class Measures:
    """What is measured of M trained networks, each (M,); losses are mean cross-entropies in nats.

    The first group uses training data only, the second test data.

    Args:
        rho: Product of the layer norms.
        train_error: Fraction of the training points misclassified.
        train_loss: Of the trained network.
        normalized_train_loss: With each layer divided by its Frobenius norm.
        train_score: Mean of ``f_y - mean_c f_c`` of the normalized network.
        min_margin: Smallest ``f_y - max_{c != y} f_c`` of the normalized network.
        test_error: Fraction of the test points misclassified.
        test_loss: Of the trained network.
        normalized_test_loss: With each layer divided by its Frobenius norm.
        test_score: Mean of ``f_y - mean_c f_c`` of the normalized network.
    """

    rho: Tensor
    train_error: Tensor
    train_loss: Tensor
    normalized_train_loss: Tensor
    train_score: Tensor
    min_margin: Tensor
    test_error: Tensor
    test_loss: Tensor
    normalized_test_loss: Tensor
    test_score: Tensor


def measure(net: Network, params: Mapping[str, Tensor], train: Dataset, test: Dataset) -> Measures:
    """Measure M networks, each on its own scale and with every layer divided by its norm.

    Args:
        net: Architecture, with C outputs.
        params: Weights, each with a leading axis M; evaluated in the dtype of the data.
        train, test: Points and classes 0 .. C - 1.

    Raises:
        TypeError, ValueError: if shapes do not fit, labels are not classes or a layer is zero.

    Source: PNAS 2020, Fig. 2.
    """
    params = {name: W.to(train.x) for name, W in params.items()}
    rho = networks.product_norm(params)
    on_train, on_test = (normalized_loss.normalized_outputs(net, params, part.x)
                         for part in (train, test))  # fmt: skip
    scale = rho[:, None, None]
    return Measures(
        rho=rho,
        train_error=normalized_loss.error(on_train, train.y),
        train_loss=normalized_loss.cross_entropy(scale * on_train, train.y),
        normalized_train_loss=normalized_loss.cross_entropy(on_train, train.y),
        train_score=normalized_loss.centred_scores(on_train, train.y).mean(-1),
        min_margin=normalized_loss.class_margins(on_train, train.y).amin(-1),
        test_error=normalized_loss.error(on_test, test.y),
        test_loss=normalized_loss.cross_entropy(scale * on_test, test.y),
        normalized_test_loss=normalized_loss.cross_entropy(on_test, test.y),
        test_score=normalized_loss.centred_scores(on_test, test.y).mean(-1),
    )


def concatenate(parts: Sequence[Measures]) -> Measures:
    """Join measures of several sets of networks, in order.

    Raises:
        ValueError: if there are none.
    """
    if not parts:
        raise ValueError("parts must hold at least one Measures, got none.")
    joined = {
        f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Measures)
    }
    return Measures(**joined)


def at_common_rho(
    net: Network,
    params: Mapping[str, Tensor],
    train: Dataset,
    test: Dataset,
    *,
    loss: float,
) -> tuple[float, Tensor, Tensor]:
    """Give all networks one rho, at which the median of their training losses is ``loss``.

    Args:
        net, params, train, test: As in :func:`measure`.
        loss: Wanted median in nats, between 0 and log C.

    Returns:
        rho, and the cross-entropies of rho f(V; x) on training and test data, (M,) each.

    Raises:
        TypeError, ValueError: as :func:`measure`, or if no rho gives that loss.
    """
    params = {name: W.to(train.x) for name, W in params.items()}
    f = normalized_loss.normalized_outputs(net, params, train.x)
    rho = normalized_loss.rho_of_loss(f, train.y, loss=loss)
    on_test = normalized_loss.normalized_outputs(net, params, test.x, rho=rho)
    return (
        rho,
        normalized_loss.cross_entropy(rho * f, train.y),
        normalized_loss.cross_entropy(on_test, test.y),
    )


def relabel(y: Tensor, fraction: float, *, num_classes: int, seed: int) -> Tensor:
    """Give a fraction of the points a class drawn uniformly, the true one included.

    ``round(fraction N)`` points are chosen. With the same seed, the points chosen for a smaller
    fraction are among those for a larger one, and keep their new class.

    Args:
        y: Classes 0 .. num_classes - 1, (N,).
        fraction: In [0, 1]; 1 gives labels that are independent of the points.
        num_classes: C.
        seed: Seed of a local generator.

    Raises:
        TypeError, ValueError: if an argument is out of range.

    Source: Zhang, Bengio, Hardt, Recht & Vinyals 2017 (partially corrupted labels).

    >>> relabel(torch.arange(6), 0.5, num_classes=6, seed=1)
    tensor([5, 1, 1, 3, 2, 5])
    """
    _checks.integer("num_classes", num_classes, at_least=2)
    _checks.class_labels("y", y, num_classes)
    if _checks.positive("fraction", fraction, zero=True) > 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}.")
    rng = np.random.default_rng(_checks.integer("seed", seed, at_least=0))
    order, drawn = rng.permutation(len(y)), rng.integers(num_classes, size=len(y))
    chosen = torch.from_numpy(order[: round(fraction * len(y))]).to(y.device)
    noisy = y.clone()
    noisy[chosen] = torch.from_numpy(drawn).to(y)[chosen]
    return noisy


def spearman(values: ArrayLike | Tensor, error: ArrayLike | Tensor) -> float:
    """Return Spearman's rank correlation between a quantity and the error of M networks.

    Raises:
        ValueError: if they do not have the same shape (M,), M >= 3, hold NaN, or one is constant.

    >>> round(spearman([1.0, 2.0, 4.0, 8.0], [0.1, 0.3, 0.2, 0.4]), 12)
    0.8
    """
    a, b = _pair(values, error)
    for name, column in (("values", a), ("error", b)):
        if (column == column[0]).all():
            raise ValueError(f"{name} must not be constant: it has no ranking.")
    return float(stats.spearmanr(a, b).statistic)


def within(
    values: ArrayLike | Tensor, error: ArrayLike | Tensor, groups: Sequence[Hashable]
) -> dict[Any, float]:
    """Return Spearman's rank correlation inside each group of networks, by the group's name.

    Args:
        values, error: (M,).
        groups: The group of each network, in the order of ``values``.

    Raises:
        ValueError: as :func:`spearman`, for any group.

    >>> x, y = [1, 2, 3, 11, 12, 13], [6, 7, 8, 1, 2, 3]  # each group up, both together down
    >>> within(x, y, "aaabbb"), round(spearman(x, y), 2)
    ({'a': 1.0, 'b': 1.0}, -0.54)
    """
    a, b = _pair(values, error)
    names = list(groups)
    if len(names) != len(a):
        raise ValueError(f"groups must name {len(a)} networks, got {len(names)}.")
    places: dict[Hashable, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return {name: spearman(a[rows], b[rows]) for name, rows in places.items()}


def granulated(
    values: ArrayLike | Tensor,
    error: ArrayLike | Tensor,
    settings: Mapping[str, Sequence[Hashable]],
) -> dict[str, float]:
    """Return the granulated rank correlation along each hyperparameter.

    For the hyperparameter that varies, networks that agree in all others form a group; Kendall's
    tau is taken in each group and averaged over the groups. Ties count as zero.

    Args:
        values, error: (M,).
        settings: For each hyperparameter its value in each network.

    Returns:
        psi for each hyperparameter, between -1 and 1.

    Raises:
        ValueError: if lengths differ or a hyperparameter never varies alone.

    Source: Jiang, Neyshabur, Mobahi, Krishnan & Bengio 2020, section 2.2.

    >>> granulated([1, 2, 3, 4], [1, 2, 0, 1], {"noise": [0, 1, 0, 1], "scale": [1, 1, 2, 2]})
    {'noise': 1.0, 'scale': -1.0}
    """
    a, b = _pair(values, error)
    for name, column in settings.items():
        if len(column) != len(a):
            raise ValueError(f"settings[{name!r}] must have {len(a)} values, got {len(column)}.")
    psi = {}
    for name in settings:
        others = [column for other, column in settings.items() if other != name]
        groups: dict[tuple[Hashable, ...], list[int]] = {}
        for place in range(len(a)):
            groups.setdefault(tuple(column[place] for column in others), []).append(place)
        taus = [_kendall(a[rows], b[rows]) for rows in groups.values() if len(rows) > 1]
        if not taus:
            raise ValueError(f"settings[{name!r}] never varies with the others fixed.")
        psi[name] = math.fsum(taus) / len(taus)
    return psi


def _kendall(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kendall's tau, the mean over pairs of the product of signs (tau-a, as Jiang et al.)."""
    signs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    return float(signs.sum() / (len(a) * (len(a) - 1)))


def _pair(
    values: ArrayLike | Tensor, error: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = (np.asarray(column, dtype=float) for column in (values, error))
    if a.ndim != 1 or a.shape != b.shape or len(a) < 3:
        raise ValueError(
            f"values and error must have the same shape (M,), M >= 3, got {a.shape} and {b.shape}."
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("values and error must not hold NaN.")
    return a, b
