"""What a run leaves behind: the record of losses, margins and layer norms along a path.

Every method of this package that moves the weights (the flow, gradient descent, the loss-based
schedules) measures itself with the same :class:`Recorder`, so that their paths compare like with
like. Throughout, ``l = -log sum_n loss_n`` takes the *sum* of the losses, not their mean: only
then is ``l / prod_k rho_k`` known to be monotone (Lyu & Li 2020, Thm 4.1; with the mean, an
entropy term has the wrong sign).
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Protocol

import torch
from torch import Tensor

from companion import _checks, _files, losses
from companion.networks import Network, Params, layer_norms


class Place(Protocol):
    """What a condition may ask of the point that a run has reached."""

    @property
    def log_norm(self) -> float:
        """log prod_k rho_k."""

    @property
    def imbalance(self) -> float:
        """||sum_n p_n B_n(V)||."""


@dataclass(frozen=True)
class _Level:
    """A finite number to arrive at."""

    value: float

    def __post_init__(self) -> None:
        try:
            finite = math.isfinite(self.value)
        except TypeError:
            raise TypeError(f"value must be a number, got {self.value!r}.") from None
        if not finite:
            raise ValueError(f"value must be finite, got {self.value!r}.")


@dataclass(frozen=True)
class LogLoss(_Level):
    """Stop once log sum_n loss_n is at or below ``value`` (natural logarithm, e.g. -1000).

    Raises TypeError if the value is not a number, ValueError if it is not finite.
    """

    def reached(self, log_loss: float, log_time: float, at: Place | None = None) -> bool:
        """Whether the run has arrived."""
        return log_loss <= self.value


@dataclass(frozen=True)
class LogTime(_Level):
    """Stop once log t is at or above ``value``, with t the flow's own time in PNAS Eq. 1.

    Raises TypeError if the value is not a number, ValueError if it is not finite.
    """

    def reached(self, log_loss: float, log_time: float, at: Place | None = None) -> bool:
        """Whether the run has arrived."""
        return log_time >= self.value


@dataclass(frozen=True)
class LogNorm(_Level):
    """Stop once log prod_k rho_k is at or above ``value`` (natural logarithm).

    Raises TypeError if the value is not a number, ValueError if it is not finite.
    """

    def reached(self, log_loss: float, log_time: float, at: Place | None = None) -> bool:
        """Whether the run has arrived; False if the run does not say where it is."""
        return at is not None and at.log_norm >= self.value


@dataclass(frozen=True)
class Rest:
    """Stop once the pulls balance, ``||sum_n p_n B_n(V)|| <= value`` (margins' units; p sums to 1).

    Raises TypeError, ValueError if the value is not a positive number.

    Source: PNAS 2020, Eqs 4 and 5.
    """

    value: float

    def __post_init__(self) -> None:
        _checks.positive("value", self.value)

    def reached(self, log_loss: float, log_time: float, at: Place | None = None) -> bool:
        """Whether the run has arrived; False if the run does not say where it is."""
        return at is not None and at.imbalance <= self.value


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A path of one network through weight space, measured at T records.

    Margins are normalized by ``rho = prod_k rho_k`` (PNAS 2020, section 3.B), so they are margins
    of f(V; x) and do not change when a layer is rescaled. Where a layer is zero, as at the start
    from W = 0, they are NaN.

    Attributes:
        log_inverse_loss: (T,) l = -log sum_n loss_n.
        log_time: (T,) log of the time t of PNAS Eq. 1 (mean of the losses), -inf at the start;
            NaN for methods that do not follow the flow.
        hard_margin: (T,) min_n y_n f(V; x_n).
        smoothed_margin: (T,) log(1 / sum of the losses) / rho for the exponential loss; in
            general the margin at which one sample would have the loss of them all, over rho.
        support_vector: (T,) index n of the sample with the smallest margin.
        accuracy: (T,) fraction of samples with y_n f(W; x_n) > 0.
        rho: (T, K) layer norms rho_k = ||W_k||_F.
        evaluations: (T,) gradient evaluations spent so far.
        params: the weights at the end.
        snapshots: weights at the recorded steps ``snapshot_index``, leading axis S: one snapshot
            for each level of l asked for that the path reached, at the first record at or above
            it, in the order of the levels. A step that passes several levels gives each of them
            the same weights; levels that the path did not reach are absent.
        snapshot_index: (S,) positions of the snapshots among the T records.
        snapshot_level: (S,) the levels of the snapshots, ascending.
        norm_correction: (T,) largest relative change |c - 1| of a layer norm by the projection
            onto Lemma 1 in the step before this record; 0 where a method does not project.
        reached: whether the run arrived where ``until`` asked.
    """

    log_inverse_loss: Tensor
    log_time: Tensor
    hard_margin: Tensor
    smoothed_margin: Tensor
    support_vector: Tensor
    accuracy: Tensor
    rho: Tensor
    evaluations: Tensor
    params: Params
    snapshots: Params
    snapshot_index: Tensor
    snapshot_level: Tensor
    norm_correction: Tensor
    reached: bool

    @cached_property
    def separated_at(self) -> int:
        """Position of the record from which on all samples stay on the right side.

        Raises:
            ValueError: if the last record does not separate the data.
        """
        wrong = torch.nonzero(self.accuracy < 1.0)
        first = int(wrong[-1]) + 1 if len(wrong) else 0
        if first == len(self.accuracy):
            raise ValueError("The path never separates the data; follow the flow further.")
        return first

    @cached_property
    def monotone_from(self) -> int:
        """Position of the record from which on the smoothed margin is positive.

        There the monotonicity theorem applies: a total loss below 1 for the exponential loss,
        below log 2 for the logistic one (Lyu & Li 2020, Thm 4.1).
        """
        below = torch.nonzero(~(self.smoothed_margin > 0))
        first = int(below[-1]) + 1 if len(below) else 0
        if first == len(self.smoothed_margin):
            raise ValueError(
                "The path never reaches a positive smoothed margin; follow the flow further."
            )
        return first

    @property
    def smoothed_margin_fall(self) -> float:
        """Largest relative fall of the smoothed margin between records once positive (0: none)."""
        return largest_fall(self.smoothed_margin[self.monotone_from :])

    @property
    def hard_margin_fall(self) -> float:
        """Largest relative fall of the hard margin between records after separation (0: none)."""
        return largest_fall(self.hard_margin[self.separated_at :])

    @property
    def hard_margin_drawdown(self) -> float:
        """Largest relative loss of the hard margin after separation, since its highest so far."""
        return drawdown(self.hard_margin[self.separated_at :])

    @property
    def norm_drift(self) -> float:
        """Largest relative drift of the conserved differences rho_k^2 - rho_j^2 (Lemma 1).

        The change of ``rho_k^2 - rho_j^2`` since the start, over the mean of the rho_k^2 at that
        record; 0 for one layer. This is what a projected method forces to zero; see
        ``norm_correction`` for what it had to correct.
        """
        squares = self.rho**2
        growth = squares - squares[0]
        spread = growth.amax(dim=1) - growth.amin(dim=1)  # of the largest pair (k, j)
        return float(torch.where(spread == 0, spread, spread / squares.mean(dim=1)).max())

    @cached_property
    def switches(self) -> Tensor:
        """Positions of the records, after separation, at which the support vector is a new one."""
        after = self.support_vector[self.separated_at :]
        return torch.nonzero(after[1:] != after[:-1])[:, 0] + 1 + self.separated_at

    def snapshot(self, i: int) -> Params:
        """Return the weights of snapshot i as the parameters of one network."""
        return {name: W[i] for name, W in self.snapshots.items()}

    def save(self, path: str | PathLike[str]) -> None:
        """Write the record to a file, in one piece: an interruption leaves the old file."""
        _files.write({f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, path)

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, device: torch.device | str | None = None
    ) -> Trajectory:
        """Read a record written by :meth:`save`, onto the CPU or ``device``.

        Raises:
            ValueError: if the file holds something else.
            FileNotFoundError: if there is no file.
        """
        keys = [f.name for f in dataclasses.fields(cls)]
        return cls(**_files.read("path", path, keys=keys, writer="Trajectory.save", device=device))


def drawdown(values: Tensor) -> float:
    """Return the largest relative loss since an earlier maximum, at least 0.

    Unlike the fall between neighbouring records it does not depend on how densely a path is
    recorded, which tells a true fall from the rattle of an integrator at a kink.

    >>> drawdown(torch.tensor([1.0, 2.0, 1.5, 1.0, 3.0]))
    0.5
    """
    highest = values.cummax(dim=0).values
    return float(((highest - values) / highest.abs()).max())


def largest_fall(values: Tensor) -> float:
    """Return the largest relative fall max_i (v_i - v_{i+1}) / |v_i| of a sequence, at least 0.

    >>> largest_fall(torch.tensor([1.0, 2.0, 1.5, 3.0]))
    0.25
    """
    falls = values[:-1] - values[1:]
    fell = falls > 0
    return float((falls[fell] / values[:-1][fell].abs()).max()) if bool(fell.any()) else 0.0


def equivalent_margin(l: float, loss: str) -> float:  # noqa: E741
    """Return the margin at which a single sample would have the total loss exp(-l).

    l itself for the exponential loss, ``-log(exp(L) - 1)`` with L = exp(-l) for the logistic one
    (the inverse function g of Lyu & Li 2020, appendix A); the two agree to rounding once l > 37.
    -inf for the logistic loss below l = -709, where L exceeds the largest double.

    Raises:
        ValueError: if the loss is unknown.

    >>> equivalent_margin(1000.0, "logistic")
    1000.0
    """
    _checks.choice("loss", loss, losses.KINDS)
    if loss == "exponential" or l > 37:
        return l
    try:
        total = math.exp(-l)
    except OverflowError:
        return -math.inf
    if total > 1:  # exp(L) overflows long before L does
        return -(total + math.log1p(-math.exp(-total)))
    return l - math.log(math.expm1(total) / total)


def margins_of(net: Network, params: Params, x: Tensor, y: Tensor) -> Tensor:
    """Return the margins ``y_n f(W; x_n)`` of one network, shape (N,), after checking the data.

    Raises:
        TypeError, ValueError: for data or parameters that do not fit, a network with several
            outputs, or the parameters of an ensemble.
    """
    _checks.dataset(x, y)
    if net.num_outputs != 1:
        raise ValueError(f"net must have one output, got {net.num_outputs}.")
    f = net(params, x)
    if f.ndim != 1:
        raise ValueError(f"params must be those of one network, got an ensemble of {len(f)}.")
    return y * f


class Objective:
    """l(W) = -log sum_n loss(y_n f(W; x_n)) with its gradient, for one network.

    The gradient ``sum_n q_n y_n df(W; x_n) / dW`` has weights q_n that sum to one for the
    exponential loss; it neither underflows nor overflows, however small the loss.
    """

    def __init__(self, net: Network, params: Params, x: Tensor, y: Tensor, loss: str) -> None:
        _checks.choice("loss", loss, losses.KINDS)
        for name, W in params.items():
            _checks.finite(f"params[{name!r}]", W)
        margins_of(net, params, x, y)
        self.net, self.x, self.y, self.loss = net, x, y, loss

    def margins(self, params: Params) -> Tensor:
        """Return y_n f(W; x_n), shape (N,)."""
        return self.y * self.net(params, self.x)

    def __call__(self, params: Params) -> tuple[float, Tensor, Params]:
        """Return l, the margins y_n f(W; x_n) of shape (N,), and the gradient of l.

        Raises:
            ValueError: if a margin is not finite.
        """
        f, pullback = self.net.vjp(params, self.x)
        margins = self.y * f
        if self.loss == "exponential":  # what losses computes, without its checks in between
            smallest = float(margins.min())
            if not math.isfinite(smallest):
                raise ValueError(f"margins must be finite, got a smallest one of {smallest}.")
            weights = torch.exp(smallest - margins)
            total = weights.sum()
            l, weights = smallest - math.log(float(total)), weights / total  # noqa: E741
        else:
            l = -float(losses.log_loss(margins, self.loss))  # noqa: E741
            weights = losses.example_weights(margins, self.loss)
        return l, margins, pullback(weights * self.y)


def squared_norms(params: Params) -> dict[str, float]:
    """Return the rho_k^2 by the names of the layers."""
    return {name: float((W * W).sum()) for name, W in params.items()}


class Recorder:
    """Collects the records of a run and keeps snapshots of the weights at chosen l."""

    def __init__(self, loss: str, snapshots: Sequence[float]) -> None:
        self.loss = loss
        self.levels = sorted(float(level) for level in snapshots)
        if not all(math.isfinite(level) for level in self.levels):
            raise ValueError(f"snapshots must be finite values of l, got {list(snapshots)}.")
        self.rows: list[tuple[float, ...]] = []
        self.rho: list[Tensor] = []
        self.kept: list[Params] = []
        self.kept_at: list[int] = []

    def add(
        self,
        l: float,  # noqa: E741 (the letter of the literature)
        margins: Tensor,
        params: Params,
        *,
        log_time: float,
        evaluations: int,
        correction: float = 0.0,
    ) -> None:
        """Measure one point of the path; its margins are NaN where a layer is zero."""
        rho = layer_norms(params)
        product = float(rho.prod())
        smallest, index = margins.min(dim=0)
        hard, smoothed = math.nan, math.nan
        if product != 0:
            hard, smoothed = float(smallest) / product, equivalent_margin(l, self.loss) / product
        self.rows.append(
            (
                l,
                log_time,
                hard,
                smoothed,
                float(index),
                int((margins > 0).sum()) / len(margins),
                float(evaluations),
                correction,
            )
        )
        self.rho.append(rho.detach().cpu())
        passed = bisect.bisect_right(self.levels, l) - len(self.kept)
        if passed > 0:  # one step may pass several levels: they share its weights
            weights = {name: W.detach().clone() for name, W in params.items()}
            self.kept += [weights] * passed
            self.kept_at += [len(self.rows) - 1] * passed

    def finish(self, params: Params, *, reached: bool) -> Trajectory:
        """Return the record of the whole run."""
        table = torch.tensor(self.rows, dtype=torch.float64)
        columns = dict(
            zip(
                ("log_inverse_loss", "log_time", "hard_margin", "smoothed_margin"),
                table[:, :4].T.contiguous(),
                strict=True,
            )
        )
        return Trajectory(
            **columns,
            support_vector=table[:, 4].long(),
            accuracy=table[:, 5].contiguous(),
            rho=torch.stack(self.rho).double(),
            evaluations=table[:, 6].long(),
            norm_correction=table[:, 7].contiguous(),
            params={name: W.detach().clone() for name, W in params.items()},
            snapshots={name: torch.stack([kept[name] for kept in self.kept]) for name in params}
            if self.kept
            else {name: W.detach()[None][:0] for name, W in params.items()},
            snapshot_index=torch.tensor(self.kept_at, dtype=torch.long),
            snapshot_level=torch.tensor(self.levels[: len(self.kept)], dtype=torch.float64),
            reached=reached,
        )
