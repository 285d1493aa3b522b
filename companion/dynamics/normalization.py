"""Weight normalization per row, batch normalization, and what both do in discrete steps.

Weight normalization writes a weight as a length times a direction, ``W = g v / |v|``. With one
length per layer it is a system of :mod:`companion.dynamics.systems`; here are its usual form, one
length per row (unit), and batch normalization, which is the same with another norm of the row:
the standard deviation that the unit has on the training set.

Both are written as a :class:`~companion.dynamics.systems.System`, so that
``flow.gradient_flow(..., system=...)`` integrates them in the clock shared by all systems and
records the weights W that they amount to. :class:`BatchNormalizedMLP` is the network as it is
trained in practice, normalized in every hidden layer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from companion import _checks
from companion.dynamics.systems import NORMS, System, named, onto_lemma_1
from companion.dynamics.trajectory import Objective, squared_norms
from companion.networks import MLP, Network, Params, layer_norms, product_norm

__all__ = [
    "BatchNormalization",
    "BatchNormalizedMLP",
    "Descent",
    "RowNormalization",
    "descend",
    "fold",
]


class _Rows(System):
    """Layers whose rows are ``g_i v_i / size(v_i)``; the state holds all g in one vector."""

    @abstractmethod
    def _normalized(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The layers that are normalized, among all of them."""

    @abstractmethod
    def _size(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Sizes of the rows of v, (h, 1), and their gradients in v, (h, fan_in)."""

    @abstractmethod
    def _first(self, W: Tensor) -> Tensor:
        """The v to start from, for a layer W."""

    def start(self, params: Params) -> Params:
        v, g = dict(params), []
        for name in self._normalized(tuple(params)):
            if params[name].ndim != 2:
                raise ValueError(
                    f"params[{name!r}] must be a matrix with one row per unit, "
                    f"got shape {tuple(params[name].shape)}."
                )
            v[name] = self._first(params[name])
            size = self._size(params[name])[0]
            if not bool((size > 0).all()):
                raise ValueError(f"params[{name!r}] must have no row of size 0.")
            g.append(size[:, 0])
        return {NORMS: torch.cat(g), **v}

    def weights(self, state: Params) -> Params:
        v, g = self._split(state)
        return {
            name: g[name] * v_k / self._size(v_k)[0] if name in g else v_k
            for name, v_k in v.items()
        }

    def velocity(self, state: Params, gradient: Params) -> Params:
        v, g = self._split(state)
        lengths, found = [], dict(gradient)
        for name, g_k in g.items():
            size, slope = self._size(v[name])
            along = (v[name] * gradient[name]).sum(dim=1, keepdim=True) / size
            found[name] = g_k / size * (gradient[name] - along * slope)
            lengths.append(along[:, 0])
        return {NORMS: torch.cat(lengths), **found}

    def rate(self, state: Params, velocity: Params) -> float:
        return sum(squared_norms(velocity).values())

    def restore(self, state: Params, first: Params) -> tuple[Params, float]:
        v, g = self._split(state)
        old_v, old_g = self._split(first)
        squares = squared_norms({**old_v, **old_g})
        norms, largest = onto_lemma_1({**v, **g}, squares)
        restored = {name: v_k for name, v_k in norms.items() if name not in g}
        for name in g:  # |v_i| is conserved row by row
            c = _row_norms(old_v[name]) / _row_norms(v[name])
            restored[name] = c * v[name]
            largest = max(largest, float((c - 1).abs().max()))
        lengths = torch.cat([norms[name][:, 0] for name in g])
        return {NORMS: lengths, **{name: restored[name] for name in v}}, largest

    def _split(self, state: Params) -> tuple[Params, Params]:
        """The v of all layers and the g (h, 1) of those that are normalized."""
        v = {name: part for name, part in state.items() if name != NORMS}
        names = self._normalized(tuple(v))
        pieces = state[NORMS].split([len(v[name]) for name in names])
        return v, {name: piece[:, None] for name, piece in zip(names, pieces, strict=True)}


@dataclass(frozen=True)
class RowNormalization(_Rows):
    """Weight normalization as it is usually meant: row i of W_k is ``g_ki v_ki / |v_ki|``.

    Every layer is normalized, the last one included; torch's ``weight_norm`` with ``dim=0``. The
    flow conserves each |v_ki| and, for any two layers, the difference of their sum_i g_ki^2.

    Args:
        v_norm: |v_ki| at the start, the same for all rows.

    Raises:
        TypeError, ValueError: if v_norm is not a positive number.

    Source: Salimans & Kingma 2016, Eqs 2 and 3.
    """

    v_norm: float = 1.0

    def __post_init__(self) -> None:
        _checks.positive("v_norm", self.v_norm)

    def _normalized(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names

    def _size(self, v: Tensor) -> tuple[Tensor, Tensor]:
        size = _row_norms(v)
        return size, v / size

    def _first(self, W: Tensor) -> Tensor:
        return self.v_norm * W / _row_norms(W)


@dataclass(frozen=True, eq=False)
class BatchNormalization(_Rows):
    """Batch normalization of the first layer on centred data, without shift.

    A unit with weights v_i sees ``v_i . x_n``, whose mean over centred data is 0 and whose
    variance is ``v_i' C v_i`` with ``C = sum_n x_n x_n' / N``. Divided by its standard deviation
    and multiplied by the gain g_i, it is the unit with weights ``g_i v_i / sqrt(v_i' C v_i)``:
    weight normalization per row, in another norm. The other layers stay as they are.

    The flow starts at v = W_1 and conserves each |v_i| (the Euclidean one).

    Args:
        covariance: C, (d, d), symmetric.

    Raises:
        TypeError, ValueError: if C is not a finite symmetric matrix.

    Source: Ioffe & Szegedy 2015, Algorithm 1, with all samples in one batch and epsilon = 0;
    Kohler et al. 2019, section 3, for the reading as a normalization of weights.
    """

    covariance: Tensor

    def __post_init__(self) -> None:
        C = _checks.finite("covariance", self.covariance)
        if (
            C.ndim != 2
            or C.shape[0] != C.shape[1]
            or not torch.allclose(C, C.T, rtol=1e-10, atol=0.0)
        ):
            raise ValueError(f"covariance must be a symmetric matrix, got shape {tuple(C.shape)}.")

    @classmethod
    def of(cls, x: Tensor) -> BatchNormalization:
        """The system for points x, (N, d), whose mean must be zero.

        Raises:
            TypeError, ValueError: if x is not finite or not centred.

        >>> from companion import data
        >>> BatchNormalization.of(data.digits(classes=(3, 8)).x).covariance.shape
        torch.Size([64, 64])
        """
        _checks.finite("x", x)
        offset, scale = float(x.mean(dim=0).abs().max()), float(x.abs().max())
        if not offset <= 1e-12 * scale:
            raise ValueError(f"x must be centred, got a mean of size {offset:.3g}.")
        C = x.T @ x / len(x)
        return cls(0.5 * (C + C.T))

    def norm(self, W: Tensor) -> float:
        """Root of the summed variances of the units of a layer W, (h, d): the norm of its gains."""
        return float(self._size(W)[0].square().sum().sqrt())

    def _normalized(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names[:1]

    def _size(self, v: Tensor) -> tuple[Tensor, Tensor]:
        image = v @ self.covariance
        size = (v * image).sum(dim=1, keepdim=True).sqrt()
        return size, image / size

    def _first(self, W: Tensor) -> Tensor:
        return W


def _row_norms(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v, dim=1, keepdim=True)


@dataclass(frozen=True)
class BatchNormalizedMLP(Network):
    """``W_K sigma(g_{K-1} BN(W_{K-1} ... sigma(g_1 BN(W_1 x))))``: normalized in each hidden layer.

    BN subtracts from each unit its mean over the points passed in and divides by its standard
    deviation over them: the network as it is trained, with all points in one batch, no shift and
    epsilon = 0. Parameters are "W1", "g1", "W2", ..., "WK", with gains g_k of shape (h_k,).
    Its output does not change when a row of W_k, k < K, is multiplied by a positive number.

    Args:
        widths: (d, h_1, ..., h_K).
        activation: As for :class:`companion.networks.MLP`.

    Raises:
        TypeError, ValueError: as MLP does.

    Source: Ioffe & Szegedy 2015, Algorithm 1.

    >>> net = BatchNormalizedMLP(widths=(2, 3, 1))
    >>> net.shapes
    {'W1': (3, 2), 'g1': (3,), 'W2': (1, 3)}
    """

    widths: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", self.plain.widths)

    @cached_property
    def plain(self) -> MLP:
        """The network without normalization; its ``init`` draws the same W_k."""
        return MLP(self.widths, self.activation)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of W1, g1, W2, ..., WK."""
        shapes = {}
        for k, (name, shape) in enumerate(self.plain.shapes.items(), start=1):
            shapes[name] = shape
            if k < self.plain.K:
                shapes[f"g{k}"] = shape[:1]
        return shapes

    def _draw(self, seed: int, scale: float) -> Params:
        """The MLP's weights, and gains 1."""
        drawn = self.plain._draw(seed, scale)
        return {
            k: drawn[k] if k in drawn else torch.ones(s).double() for k, s in self.shapes.items()
        }

    def _forward(
        self, params: Mapping[str, Tensor], x: Tensor, z: list[Tensor] | None = None
    ) -> Tensor:
        h = x
        for k in range(1, self.plain.K):
            raw = h @ params[f"W{k}"].mT  # (..., N, h_k)
            centred = raw - raw.mean(dim=-2, keepdim=True)
            size = centred.square().mean(dim=-2, keepdim=True).sqrt()
            z_k = params[f"g{k}"].unsqueeze(-2) * centred / size
            if z is not None:
                z.append(z_k)
            h = z_k.clamp(min=0) if self.activation == "relu" else self._sigma(z_k)
        return h @ params[f"W{self.plain.K}"].mT

    def _sigma(self, z: Tensor) -> Tensor:
        leaky = self.activation == "leaky_relu"
        return torch.nn.functional.leaky_relu(z, 0.01) if leaky else z

    def _check_x(self, x: Tensor, num_networks: int | None) -> None:
        if x.ndim < 2:
            raise ValueError(f"x must hold a batch of points, (N, d), got {tuple(x.shape)}.")
        self.plain._check_x(x, num_networks)


def fold(net: BatchNormalizedMLP, params: Params, x: Tensor) -> tuple[Params, Params]:
    """Return the weights and biases of the ordinary network that the normalized one amounts to.

    With the means and standard deviations that the units have on x, unit i of layer k is
    ``(g_ki / s_ki) (W_ki . h - mean_ki)``: a row ``g_ki W_ki / s_ki`` and a bias. For the first
    layer on centred data the bias is 0.

    Args:
        net: The network.
        params: Its parameters, one network.
        x: Points of the batch, (N, d).

    Returns:
        W_k by name, shapes of the MLP, and biases "b1", ..., each (h_k,).

    Raises:
        TypeError, ValueError: as evaluation does.

    Source: Ioffe & Szegedy 2015, Algorithm 2 (inference).
    """
    z = net.preactivations(params, x)
    weights, biases, h = {}, {}, x
    for k, z_k in enumerate(z, start=1):
        raw = h @ params[f"W{k}"].mT
        factor = params[f"g{k}"] / raw.std(dim=0, unbiased=False)
        weights[f"W{k}"] = factor[:, None] * params[f"W{k}"]
        biases[f"b{k}"] = -factor * raw.mean(dim=0)
        h = z_k.clamp(min=0) if net.activation == "relu" else net._sigma(z_k)
    last = f"W{net.plain.K}"
    return {**weights, last: params[last]}, biases


@dataclass(frozen=True, eq=False)
class Descent:
    """A run of gradient descent in the coordinates of a system, T = steps + 1 records.

    Attributes:
        log_inverse_loss: (T,) l = -log sum_n exp(-y_n f(W; x_n)).
        hard_margin: (T,) min_n y_n f(V; x_n) of the weights W that the coordinates amount to.
        v_squared: (T, K) squared norm of v_k, layer by layer.
        predicted: (T, K) squared norm at the start plus the sum of the squared steps of v_k.
        rho: (T, K) layer norms of W.
        params: W at the end.
    """

    log_inverse_loss: Tensor
    hard_margin: Tensor
    v_squared: Tensor
    predicted: Tensor
    rho: Tensor
    params: Params


def descend(
    net: Network,
    params: Params,
    x: Tensor,
    y: Tensor,
    *,
    system: str | System,
    lr: float,
    steps: int,
    relative: bool = False,
) -> Descent:
    """Run gradient descent on the mean of the exponential losses in the coordinates of a system.

    Where the loss does not depend on the length of v, its gradient in v is orthogonal to v, and
    by Pythagoras a step adds its own square: ``|v|^2 <- |v|^2 + lr^2 |grad|^2``.

    Args:
        net: Network with one output.
        params: Weights W to start from, one network.
        x: Points, (N, d).
        y: Labels -1 and +1, (N,).
        system: A name or a System of :mod:`companion.dynamics.systems`.
        lr: Step size.
        steps: Number of steps.
        relative: Divide the step by the loss, ``state + lr d(state)/dtau``; it then does not
            shrink with the loss.

    Returns:
        The run, one record per step.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        FloatingPointError: if the weights diverge, with the step at which they did.

    Source: Salimans & Kingma 2016, section 2 (the growth of v); Ioffe & Szegedy 2015, section 3.3.

    >>> from companion import data
    >>> points, net = data.three_points(), MLP(widths=(2, 1))
    >>> run = descend(net, net.init(seed=0), points.x, points.y,
    ...               system="weight_normalization", lr=0.1, steps=10)
    >>> bool((run.v_squared.diff(dim=0) > 0).all())
    True
    """
    objective = Objective(net, params, x, y, "exponential")
    system = named(system)
    lr, steps = _checks.positive("lr", lr), _checks.integer("steps", steps, at_least=1)
    state = system.start({name: W.detach().clone() for name, W in params.items()})
    layers = [name for name in state if name != NORMS]
    predicted = _squares(state, layers)
    rows = []
    for step in range(steps + 1):
        W = system.weights(state)
        try:
            l, margins, gradient = objective(W)  # noqa: E741
        except ValueError as error:
            raise FloatingPointError(
                f"The weights diverged at step {step}; lower lr={lr}."
            ) from error
        rho = float(product_norm(W))
        hard = float(margins.min()) / rho if rho > 0 else math.nan
        rows.append((l, hard, _squares(state, layers), predicted, layer_norms(W)))
        factor = lr if relative else lr * math.exp(-l) / len(y)
        velocity = system.velocity(state, gradient)
        state = {name: part + factor * velocity[name] for name, part in state.items()}
        predicted = predicted + factor * factor * _squares(velocity, layers)
    l_all, hard_all, v_squared, predicted_all, rho_all = zip(*rows, strict=True)
    return Descent(
        log_inverse_loss=torch.tensor(l_all, dtype=torch.float64),
        hard_margin=torch.tensor(hard_all, dtype=torch.float64),
        v_squared=torch.stack(v_squared),
        predicted=torch.stack(predicted_all),
        rho=torch.stack(rho_all),
        params=W,
    )


def _squares(parts: Params, layers: list[str]) -> Tensor:
    return torch.stack([parts[name].square().sum() for name in layers])
