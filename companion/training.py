"""Stochastic gradient descent on M networks at once, with histories, checkpoints and resumption.

The M networks share an architecture, the data and the hyperparameters, and differ in seed and
scale of initialization. They are trained in one batched computation with a leading axis M;
network m sees the minibatches it would see alone, so a result does not depend on its company.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from companion import _checks, _files, losses
from companion.networks import Network, Params

T = TypeVar("T")

LOSSES = ("logistic", "exponential", "cross_entropy", "square")

_POINTS_AT_ONCE = 256  # in an evaluation on a CPU, of some networks at once


@dataclass(frozen=True)
class Until:
    """When a network is done: as soon as everything asked for holds at a recorded step.

    Args:
        error: Fraction of training points misclassified is at most this; 0 asks for all correct.
        log_loss: Log of the mean training loss is at most this, so that networks can be compared
            at equal loss.

    Raises:
        TypeError, ValueError: if nothing is asked for, error is outside [0, 1), or a number is NaN.

    >>> Until(error=0.0, log_loss=-5.0)
    Until(error=0.0, log_loss=-5.0)
    """

    error: float | None = None
    log_loss: float | None = None

    def __post_init__(self) -> None:
        if self.error is None and self.log_loss is None:
            raise ValueError("until must ask for an error, a log_loss or both, got neither.")
        if self.error is not None and _checks.positive("error", self.error, zero=True) >= 1:
            raise ValueError(f"error must be a fraction in [0, 1), got {self.error}.")
        if self.log_loss is not None and not math.isfinite(self.log_loss):
            raise ValueError(f"log_loss must be finite, got {self.log_loss}.")

    def holds(self, log_loss: Tensor, error: Tensor) -> Tensor:
        """Return for each network whether it is done, (M,)."""
        done = torch.ones_like(error, dtype=torch.bool)
        if self.error is not None:
            done &= error <= self.error
        if self.log_loss is not None:
            done &= log_loss <= self.log_loss
        return done


@dataclass(frozen=True)
class TrainingRun:
    """M trained networks and their histories at T recorded steps.

    Args:
        params: Final weights, each with a leading axis M.
        recorded_steps: The steps at which the histories were taken, (T,), from 0.
        log_loss: Log of the mean training loss, (T, M); the natural logarithm.
        error: Fraction of training points misclassified (margin <= 0), (T, M).
        steps: Number of steps each network took, (M,). A network that is done stops moving, and
            its histories repeat their last value.
        done: Whether each network met ``until``, (M,); all False without one.
        seeds: Seed of each network.
        scales: Scale of initialization of each network.
    """

    params: Params
    recorded_steps: Tensor
    log_loss: Tensor
    error: Tensor
    steps: Tensor
    done: Tensor
    seeds: tuple[int, ...]
    scales: tuple[float, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run to a file, in one piece: an interruption leaves the old file."""
        _files.write({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: torch.device | str | None = None
    ) -> TrainingRun:
        """Read a run written by :meth:`save`, onto the CPU or ``device``.

        Raises:
            ValueError: if the file holds something else.
            FileNotFoundError: if there is no file.
        """
        keys = [f.name for f in fields(cls)]
        content = _files.read("path", path, keys=keys, writer="TrainingRun.save", device=device)
        content["seeds"], content["scales"] = tuple(content["seeds"]), tuple(content["scales"])
        return cls(**content)


def progress(iterable: Iterable[T], **options: Any) -> Iterable[T]:
    """Iterate with a tqdm bar, except while the book is built (BOOK_BUILD set).

    Options are tqdm's; by default a bar appears only after a second and disappears at the end.

    >>> list(progress(range(3), disable=True))
    [0, 1, 2]
    """
    from tqdm.auto import tqdm  # costs an import of ipywidgets in a notebook, so only when used

    building = os.environ.get("BOOK_BUILD", "0") not in ("", "0")
    return tqdm(iterable, **{"disable": building, "delay": 1.0, "leave": False, **options})


def train(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    seeds: Sequence[int],
    scales: float | Sequence[float] = 1.0,
    loss: str = "logistic",
    lr: float,
    steps: int,
    batch_size: int | None = None,
    momentum: float = 0.0,
    until: Until | None = None,
    record_every: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TrainingRun:
    """Train M networks by (stochastic) gradient descent on the mean loss, all at once.

    ``v <- momentum v + grad``, ``W <- W - lr v``, with the gradient of the mean loss over a
    minibatch (torch.optim.SGD's rule). Each epoch visits every point once, in an order drawn from
    the network's seed and the epoch, so network m is the same trained alone or in company.

    Args:
        net: Architecture.
        x: Points, (N, d), or (N, C, H, W) for a ConvNet.
        y: Labels, (N,): -1 and +1 for "logistic" and "exponential"; integers 0 .. C - 1 for
            "cross_entropy"; real targets, (N,) or (N, C), for "square", the loss |f - y|^2.
        seeds: M seeds, of initialization and minibatches.
        scales: Scale of initialization, one number or M.
        loss: "logistic", "exponential", "cross_entropy" or "square".
        lr: Step size, per unit of the gradient of the mean loss.
        steps: Number of steps, at most.
        batch_size: Points per step; None takes all. The last batch of an epoch may be smaller.
        momentum: In [0, 1).
        until: When a network is done; it then stops moving. None: never before ``steps``.
        record_every: Steps between records; default one epoch.
        checkpoint: File to which the state is written now and then, and at the end. If it exists
            the run resumes from it, bit for bit; only ``steps`` may then be larger.
        checkpoint_seconds: Seconds between two writes, at least.
        dtype: Floating-point type in which to train; default that of x.
        device: Where to train; default where x is.

    Raises:
        TypeError, ValueError: if an argument is out of range, shapes do not fit, or the checkpoint
            is of another training.
        FloatingPointError: if a network's outputs become infinite or NaN; names network and step.

    Source: PNAS 2020, Fig. 2 (networks of different initialization trained to the same data).

    >>> from companion import data, networks
    >>> x, y = data.digits(classes=(3, 8))
    >>> net = networks.MLP(widths=(64, 16, 1))
    >>> run = train(net, x, y, seeds=[0, 1], lr=1.0, steps=300, until=Until(error=0.0))
    >>> run.done
    tensor([True, True])
    """
    seeds = _checks.integers("seeds", seeds, at_least=0)
    recipe = _Recipe(
        net, seeds, _scales(scales, len(seeds)), loss, lr, batch_size, momentum, record_every, until
    )
    _checks.integer("steps", steps, at_least=0)
    _checks.positive("checkpoint_seconds", checkpoint_seconds, zero=True)
    x, y = _training_data(net, x, y, loss, dtype, device)
    with torch.no_grad():
        state = _State.start(recipe, x, y)
        file = None
        if checkpoint is not None:
            file = _Checkpoint(Path(checkpoint), checkpoint_seconds, recipe.fingerprint(x, y))
            state = file.resume(state, steps)
        _run(recipe, state, x, y, steps, file)
    return state.result(recipe)


@dataclass(frozen=True)
class _Recipe:
    """What defines a training, apart from the data and its length."""

    net: Network
    seeds: tuple[int, ...]
    scales: tuple[float, ...]
    loss: str
    lr: float
    batch_size: int | None
    momentum: float
    record_every: int | None
    until: Until | None

    def __post_init__(self) -> None:
        _checks.choice("loss", self.loss, LOSSES)
        _checks.positive("lr", self.lr)
        if _checks.positive("momentum", self.momentum, zero=True) >= 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}.")
        for name in ("batch_size", "record_every"):
            if getattr(self, name) is not None:
                _checks.integer(name, getattr(self, name), at_least=1)
        if self.until is not None and not isinstance(self.until, Until):
            raise TypeError(f"until must be a training.Until, got {self.until!r}.")

    def size_of_batch(self, num_points: int) -> int:
        return num_points if self.batch_size is None else min(self.batch_size, num_points)

    def period(self, num_points: int) -> int:
        """Steps between records; one epoch unless said otherwise."""
        return self.record_every or -(-num_points // self.size_of_batch(num_points))

    def fingerprint(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """What must agree for a checkpoint to be continued."""
        digest = hashlib.sha256()
        for values in (x, y):
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        names = [f.name for f in fields(self) if f.name not in ("net", "until")]
        return {
            "net": repr(self.net),
            **{name: getattr(self, name) for name in names},
            "until": repr(self.until),
            "dtype": str(x.dtype),
            "data": digest.hexdigest(),
        }


@dataclass
class _State:
    """Where a training stands; everything a checkpoint has to hold."""

    params: Params
    velocity: Params
    step: int
    steps: Tensor
    recorded_steps: list[int]
    log_loss: list[Tensor]
    error: list[Tensor]

    @classmethod
    def start(cls, recipe: _Recipe, x: Tensor, y: Tensor) -> _State:
        params = recipe.net.init(
            seed=recipe.seeds, scale=recipe.scales, device=x.device, dtype=x.dtype
        )
        velocity = {name: torch.zeros_like(W) for name, W in params.items()}
        steps = torch.zeros(len(recipe.seeds), dtype=torch.int64, device=x.device)
        state = cls(params, velocity, 0, steps, [], [], [])
        state.record(recipe, x, y, None)
        return state

    def done(self, recipe: _Recipe) -> Tensor:
        if recipe.until is None:
            return torch.zeros_like(self.steps, dtype=torch.bool)
        return recipe.until.holds(self.log_loss[-1], self.error[-1])

    def record(self, recipe: _Recipe, x: Tensor, y: Tensor, live: Tensor | None) -> None:
        """Append the losses and errors of the live networks, and repeat those of the others."""
        rows = torch.arange(len(self.steps), device=x.device) if live is None else live
        log_loss, error = _evaluate(recipe, _rows(self.params, rows), x, y)
        bad = ~torch.isfinite(log_loss) & (log_loss != -torch.inf)  # -inf: zero square loss
        if bad.any():
            m = int(rows[bad.nonzero()[0, 0]])
            since = self.recorded_steps[-1] if self.recorded_steps else 0
            raise FloatingPointError(
                f"network {m} (seed {recipe.seeds[m]}, scale {recipe.scales[m]}) became "
                f"non-finite between steps {since} and {self.step}; lower lr, now {recipe.lr}, "
                "or the scale."
            )
        if live is not None:
            log_loss = self.log_loss[-1].index_copy(0, rows, log_loss)
            error = self.error[-1].index_copy(0, rows, error)
        self.recorded_steps.append(self.step)
        self.log_loss.append(log_loss)
        self.error.append(error)

    def result(self, recipe: _Recipe) -> TrainingRun:
        return TrainingRun(
            params=self.params,
            recorded_steps=torch.tensor(self.recorded_steps, device=self.steps.device),
            log_loss=torch.stack(self.log_loss),
            error=torch.stack(self.error),
            steps=self.steps,
            done=self.done(recipe),
            seeds=recipe.seeds,
            scales=recipe.scales,
        )


class _Checkpoint:
    """A file that holds the state, written now and then in one piece."""

    def __init__(self, path: Path, seconds: float, fingerprint: dict[str, Any]) -> None:
        self.path, self.seconds, self.fingerprint = path, seconds, fingerprint
        self.written = time.monotonic()

    def resume(self, start: _State, steps: int) -> _State:
        """Return the state in the file, or the starting state if there is no file."""
        if not self.path.exists():
            return start
        content = _files.read(
            "checkpoint",
            self.path,
            keys=("fingerprint", "state"),
            writer="train",
            device=start.steps.device,
        )
        for name, value in self.fingerprint.items():
            found = content["fingerprint"].get(name)
            if found != value:
                raise ValueError(
                    f"checkpoint {self.path} is of another training: its {name} is {found!r}, "
                    f"not {value!r}."
                )
        state = _State(**content["state"])
        if steps < state.step:
            raise ValueError(
                f"steps must be at least the {state.step} already in {self.path}, got {steps}."
            )
        return state

    def write(self, state: _State, *, now: bool = False) -> None:
        if now or time.monotonic() - self.written >= self.seconds:
            content = {f.name: getattr(state, f.name) for f in fields(state)}
            _files.write({"fingerprint": self.fingerprint, "state": content}, self.path)
            self.written = time.monotonic()


def _run(
    recipe: _Recipe, state: _State, x: Tensor, y: Tensor, steps: int, file: _Checkpoint | None
) -> None:
    """Step from record to record until all networks are done or have taken their steps."""
    period = recipe.period(len(x))
    for _ in progress(range(state.step // period, -(-steps // period)), desc="training"):
        live = (~state.done(recipe)).nonzero().squeeze(1)
        if len(live) == 0 or state.step >= steps:
            break
        stop = min(steps, (state.step // period + 1) * period)
        _advance(recipe, state, live, x, y, stop)
        state.record(recipe, x, y, live)
        if file:
            file.write(state)
    if file:
        file.write(state, now=True)


def _advance(recipe: _Recipe, state: _State, live: Tensor, x: Tensor, y: Tensor, stop: int) -> None:
    """Take the steps up to ``stop`` with the live networks, a cache's fill of them at a time."""
    at_once = min(len(live), recipe.net.at_once(recipe.size_of_batch(len(x)), x))
    for rows in live.split(at_once):
        W, v = _rows(state.params, rows), _rows(state.velocity, rows)
        for x_b, y_b in _minibatches(recipe, rows, x, y, state.step, stop):
            f, pullback = recipe.net.vjp(W, x_b)
            u = _output_gradient(recipe.loss, f, y_b).div_(f.shape[1])
            for name, gradient in pullback(u).items():
                if recipe.momentum:
                    gradient = v[name].mul_(recipe.momentum).add_(gradient)
                W[name].sub_(gradient, alpha=recipe.lr)
        for name in W:
            state.params[name].index_copy_(0, rows, W[name])
            state.velocity[name].index_copy_(0, rows, v[name])
    state.steps[live] += stop - state.step
    state.step = stop


def _minibatches(
    recipe: _Recipe, rows: Tensor, x: Tensor, y: Tensor, start: int, stop: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the points of each step, (m, B, d) and (m, B) for the m networks in ``rows``.

    The order of an epoch depends on the network's seed and the epoch only. A counter-based
    generator needs no state in the checkpoint, and its stream is not the one of the weights.
    """
    if recipe.batch_size is None:
        yield from itertools.repeat((x, y), stop - start)
        return
    seeds, size = [recipe.seeds[m] for m in rows.tolist()], recipe.size_of_batch(len(x))
    bits = np.random.Philox(0)
    fresh, order = bits.state, None
    for step in range(start, stop):
        epoch, j = divmod(step, -(-len(x) // size))
        if order is None or j == 0:
            drawn = np.empty((len(seeds), len(x)), dtype=np.int64)
            for i, seed in enumerate(seeds):
                fresh["state"]["key"][:] = seed, epoch
                bits.state = fresh  # the same as Philox(key=[seed, epoch]), in less time
                drawn[i] = np.random.Generator(bits).permutation(len(x))
            order = torch.from_numpy(drawn).to(x.device)
        index = order[:, j * size : (j + 1) * size]  # (m, B)
        yield _take(x, index), _take(y, index)


def _output_gradient(loss: str, f: Tensor, y: Tensor) -> Tensor:
    """Return dl/df for each example, in the shape of f; a new tensor."""
    if loss == "logistic":
        return -y * torch.sigmoid(-y * f)
    if loss == "exponential":
        return -y * torch.exp(-y * f)
    if loss == "square":
        return 2 * (f - y)
    index = y.unsqueeze(-1).expand(*f.shape[:-1], 1)
    return f.softmax(dim=-1).scatter_add(-1, index, -torch.ones_like(f[..., :1]))


def _evaluate(recipe: _Recipe, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of the mean loss and the error of each network, both (M,)."""
    f = _outputs(recipe.net, params, x)  # (M, N, ...)
    finite = torch.isfinite(f).flatten(1).all(dim=1)
    f = torch.where(finite.view(-1, *[1] * (f.ndim - 1)), f, 0.0)
    wrong = _misclassified(f, y)
    if recipe.loss == "square":
        squares = (f - y).square()
        total = (squares if squares.ndim == 2 else squares.sum(dim=2)).mean(dim=1).log()
    elif recipe.loss == "cross_entropy":
        m = losses.multiclass_margin(f, y)
        total = losses.log_loss(m, "logistic", reduction="mean")
    else:
        total = losses.log_loss(losses.margins(f, y), recipe.loss, reduction="mean")
    return torch.where(finite, total, torch.nan), wrong.to(f.dtype).mean(dim=1)


def _outputs(net: Network, params: Params, x: Tensor) -> Tensor:
    """Return f of each network at all points, (M, N, ...), portion by portion."""
    M = len(next(iter(params.values())))
    points = x.split(_POINTS_AT_ONCE if x.device.type == "cpu" else max(32, 2**20 // M))
    rows = torch.arange(M, device=x.device).split(min(M, net.at_once(len(points[0]), x)))
    f = []
    for part in rows:
        W = _rows(params, part)
        f.append(torch.cat([net.vjp(W, x_p)[0] for x_p in points], dim=1))
    return torch.cat(f)


def _misclassified(f: Tensor, y: Tensor) -> Tensor:
    """Whether the margin is not positive: y f, or own output less the largest other; (M, N)."""
    if f.ndim == 2:
        return y * f <= 0
    labels = y if y.ndim == 1 else y.argmax(dim=-1)  # (N,)
    index = labels.unsqueeze(-1).expand(*f.shape[:-1], 1)
    others = f.scatter(-1, index, -torch.inf).amax(dim=-1)
    return f.gather(-1, index).squeeze(-1) <= others


def _training_data(
    net: Network,
    x: Tensor,
    y: Tensor,
    loss: str,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[Tensor, Tensor]:
    """Check the data once, and bring them to the dtype and device of the training."""
    _checks.finite("x", x)
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"x must have shape (N, d), N >= 1, got {tuple(x.shape)}.")
    C = net.num_outputs
    if loss == "cross_entropy":
        if C < 2:
            raise ValueError(f"net must have at least 2 outputs for loss {loss!r}, got {C}.")
        y = _checks.class_labels("y", y, C).long()
    else:
        if loss != "square" and C > 1:
            raise ValueError(f"net must have 1 output for loss {loss!r}, got {C}.")
        y = _checks.finite("y", y) if loss == "square" else _checks.signs("y", y)
    _checks.shape("y", y, (len(x), C) if loss == "square" and C > 1 else (len(x),))
    x = x.detach().to(dtype=dtype, device=device)
    y = y.detach().to(x.device)
    return x, (y.to(x.dtype) if y.is_floating_point() else y)


def _scales(scales: float | Sequence[float], num_networks: int) -> tuple[float, ...]:
    if isinstance(scales, Tensor | np.ndarray):
        scales = scales.tolist()
    values = tuple(scales) if isinstance(scales, Iterable) else (scales,) * num_networks
    if len(values) != num_networks:
        raise ValueError(
            f"scales must be one number or one per seed ({num_networks}), got {len(values)}."
        )
    return tuple(_checks.positive(f"scales[{m}]", value) for m, value in enumerate(values))


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return values[index]; index_select copies rows several times faster on the CPU."""
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)


def _rows(params: Params, index: Tensor) -> Params:
    return {name: W[index] for name, W in params.items()}
