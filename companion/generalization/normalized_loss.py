"""Losses of normalized networks, and the line of Fig. 2.

A network with layer norms rho_k computes ``f(W; x) = rho f(V; x)``, rho = prod_k rho_k, with all
layers of V of Frobenius norm one. Fig. 2 of the paper compares the cross-entropy of f(V; x) on
training and test data. Outputs f have the shape (..., N, C), with any leading axes of networks, and
logarithms are natural.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from torch import Tensor

from companion import _checks, losses
from companion.networks import Network, directions

__all__ = [
    "Line",
    "Released",
    "centred_scores",
    "class_margins",
    "cross_entropy",
    "error",
    "fit_line",
    "normalized_outputs",
    "predicted_line",
    "released",
    "rho_of_loss",
]


@dataclass(frozen=True)
class Line:
    """A straight line ``y = slope x + intercept``.

    Args:
        slope: Change of y per unit of x.
        intercept: y at x = 0.
        r_squared: Share of the variance of y that the line explains, the squared correlation.
    """

    slope: float
    intercept: float
    r_squared: float


@dataclass(frozen=True)
class Released:
    """The authors' numbers behind Fig. 2, one entry per distinct run (75).

    Args:
        run_set: Folder of the run, "top", "8error", "threegood" or "old".
        init_scale: Factor on the initial weights.
        train_loss, test_loss: Cross-entropy of the trained networks, in nats; the first is the
            running mean over the last epoch, taken while the network trained.
        train_error, test_error: Fraction misclassified, along with these losses.
        normalized_train_loss, normalized_test_loss: Cross-entropy of the normalized networks, both
            after training.
        normalized_train_error: Fraction misclassified where the normalized training loss was
            evaluated.

    Source: https://github.com/liaoq/pnas2019.
    """

    run_set: NDArray[np.str_]
    init_scale: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    test_loss: NDArray[np.float64]
    train_error: NDArray[np.float64]
    test_error: NDArray[np.float64]
    normalized_train_loss: NDArray[np.float64]
    normalized_test_loss: NDArray[np.float64]
    normalized_train_error: NDArray[np.float64]


def cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy ``-log softmax(f)_y`` in nats, (...,) from f (..., N, C).

    Raises:
        TypeError, ValueError: if shapes do not fit or labels are not in 0 .. C - 1.

    >>> cross_entropy(torch.zeros(5, 10), torch.arange(5))  # log 10
    tensor(2.3026)
    """
    _outputs(f, y)
    m = losses.multiclass_margin(f, y)
    return torch.logaddexp(-m, torch.zeros_like(m)).mean(-1)  # softplus drops digits beyond 20


def centred_scores(f: Tensor, y: Tensor) -> Tensor:
    """Return ``f_y - mean_c f_c``, (..., N): minus the slope of the cross-entropy at f = 0.

    For small outputs the cross-entropy is log C less the mean of these scores.

    Raises:
        TypeError, ValueError: as :func:`cross_entropy`.
    """
    f, index = _outputs(f, y)
    return f.gather(-1, index).squeeze(-1) - f.mean(-1)


def class_margins(f: Tensor, y: Tensor) -> Tensor:
    """Return ``f_y - max_{c != y} f_c``, (..., N), positive where the class is right.

    Raises:
        TypeError, ValueError: as :func:`cross_entropy`.
    """
    f, index = _outputs(f, y)
    others = f.scatter(-1, index, -torch.inf).amax(-1)
    return f.gather(-1, index).squeeze(-1) - others


def error(f: Tensor, y: Tensor) -> Tensor:
    """Return the fraction misclassified, (...,); a tie counts as an error.

    Raises:
        TypeError, ValueError: as :func:`cross_entropy`.
    """
    return (class_margins(f, y) <= 0).to(f.dtype).mean(-1)


def normalized_outputs(
    net: Network, params: Mapping[str, Tensor], x: Tensor, *, rho: float = 1.0
) -> Tensor:
    """Return ``rho f(V; x)``, each layer of V divided by its Frobenius norm; (..., N, C).

    Raises:
        TypeError, ValueError: if rho is not positive, a layer is zero or shapes do not fit.

    Source: PNAS 2020, Fig. 2, caption.
    """
    return _checks.positive("rho", rho) * net(directions(params), x)


def rho_of_loss(f: Tensor, y: Tensor, *, loss: float) -> float:
    """Return the common rho at which the median over networks of CE(rho f) is ``loss``.

    Args:
        f: Outputs of M normalized networks, (M, N, C), that classify all points correctly.
        y: Labels, (N,).
        loss: Wanted median, between 0 and log C.

    Raises:
        TypeError, ValueError: if shapes do not fit, ``loss`` is out of range, or no rho below
            2**60 reaches it.
    """
    _outputs(f, y)
    bound = math.log(f.shape[-1])
    if not 0 < _checks.positive("loss", loss) < bound:
        raise ValueError(f"loss must lie between 0 and log C = {bound:.3f}, got {loss}.")

    def excess(log_rho: float) -> float:
        return float(cross_entropy(math.exp(log_rho) * f, y).median()) - loss

    low, high = -60 * math.log(2), 60 * math.log(2)
    if excess(high) > 0:
        raise ValueError(f"loss {loss} is not reached: at rho = 2**60 it is larger.")
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-12))


def fit_line(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Line:
    """Return the least-squares line through points (x, y), by SciPy's linregress.

    >>> fit_line([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    Line(slope=2.0, intercept=1.0, r_squared=1.0)
    """
    fit = stats.linregress(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    return Line(float(fit.slope), float(fit.intercept), float(fit.rvalue) ** 2)


def predicted_line(
    train_scores: Tensor, test_scores: Tensor, *, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return slope and intercept of the line on which small outputs put a network's two losses.

    To first order in the outputs both losses are log C less the mean centred score, so that for all
    small rho the point (training loss, test loss) of rho f lies on a line through (log C, log C)
    whose slope q is the ratio of the two means, with the intercept (1 - q) log C.

    Args:
        train_scores, test_scores: Values of :func:`centred_scores`, (..., N) and (..., N').
        num_classes: C.

    Returns:
        Slope and intercept, (...,) each, one line per network.

    Raises:
        TypeError, ValueError: if the leading axes differ, or a mean training score is zero.

    >>> predicted_line(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0, 1.5]), num_classes=10)
    (tensor(0.7500), tensor(0.5756))
    """
    _checks.integer("num_classes", num_classes, at_least=2)
    on_train = _checks.floating("train_scores", train_scores).mean(-1)
    on_test = _checks.floating("test_scores", test_scores).mean(-1)
    _checks.shape("test_scores without its last axis", on_test, on_train.shape)
    if (on_train == 0).any():
        raise ValueError("train_scores must not have mean zero: the slope is a ratio to it.")
    slope = on_test / on_train
    return slope, (1 - slope) * math.log(num_classes)


def released() -> Released:
    """Return the numbers that the authors released for Fig. 2, without repeated entries.

    >>> runs = released()
    >>> len(runs.test_error), round(float(runs.test_error.min()), 4)
    (75, 0.0698)
    """
    text = (resources.files(__package__) / "fig2_released.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))

    def column(name: str) -> NDArray[np.float64]:
        return np.array([float(row[name]) for row in rows])

    return Released(
        run_set=np.array([row["run_set"] for row in rows]),
        init_scale=column("init_scale"),
        train_loss=column("train_loss"),
        test_loss=column("test_loss"),
        train_error=1 - column("train_accuracy"),
        test_error=1 - column("test_accuracy"),
        normalized_train_loss=column("normalized_train_loss"),
        normalized_test_loss=column("normalized_test_loss"),
        normalized_train_error=1 - column("normalized_train_accuracy"),
    )


def _outputs(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Check f (..., N, C) against y (N,), and return f and y as an index into its last axis."""
    _checks.floating("f", f)
    if f.ndim < 2 or f.shape[-1] < 2:
        raise ValueError(f"f must have shape (..., N, C), C >= 2, got {tuple(f.shape)}.")
    _checks.shape("y", _checks.class_labels("y", y, f.shape[-1]), f.shape[-2:-1])
    return f, y.long().expand(f.shape[:-1]).unsqueeze(-1)
