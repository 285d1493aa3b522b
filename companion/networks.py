"""Bias-free homogeneous networks f(W; x), their layer norms rho_k and directions V_k.

A network is an immutable description; its parameters are a plain ``dict[str, Tensor]`` ordered by
layer, so that ``net(params, x)`` is a pure function and torch.func applies. An ensemble of M
networks is the same dict with a leading axis M on every tensor. With activations that satisfy
``sigma(c z) = c sigma(z)`` for c >= 0, f is homogeneous of degree one in each layer, and the
factorization ``f(W; x) = prod_k rho_k f(V; x)`` of the paper (PNAS 2020, section 3) follows.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from companion import _checks

Params = dict[str, Tensor]
Pullback = Callable[[Tensor], Params]

LEAKY_SLOPE = 0.01  # slope of leaky_relu for z < 0, torch's default
SLOPES = {"relu": 0.0, "linear": 1.0, "leaky_relu": LEAKY_SLOPE}  # of sigma for z <= 0
MAX_SEED = 2**64 - 1  # what torch.Generator takes
CACHE_BYTES = 2**21  # up to this size of its largest array, a computation gains from batching

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "linear": lambda z: z,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, LEAKY_SLOPE),
}
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "linear": lambda z: z,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu_(z, LEAKY_SLOPE),
}


class Network(ABC):
    """What every network offers: named layers, initialization, evaluation, a vector-Jacobian map.

    Subclasses are frozen dataclasses with a field ``activation``; the last layer is linear, a
    matrix of shape (C, fan_in), which is how functions of ``params`` alone tell one network
    (last layer 2-D) from an ensemble (3-D).
    """

    activation: str

    @cached_property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each W_k in one network, in the order of the layers."""

    @abstractmethod
    def _forward(
        self, params: Mapping[str, Tensor], x: Tensor, z: list[Tensor] | None = None
    ) -> Tensor:
        """Return the output (..., N, C); with a list z, append z_1 .. z_{K-1} to it."""

    @abstractmethod
    def _check_x(self, x: Tensor, num_networks: int | None) -> None:
        """Raise unless the shape of x fits the network."""

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, ("W1", ..., "WK")."""
        return tuple(self.shapes)

    @property
    def K(self) -> int:  # noqa: N802 (the paper's letter)
        """Number of layers, which is the degree of homogeneity of f in all the weights."""
        return len(self.shapes)

    @property
    def num_params(self) -> int:
        """Number of weights in one network."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def num_outputs(self) -> int:
        """Number of outputs C; with C = 1 the axis is dropped from f."""
        return self.shapes[self.layer_names[-1]][0]

    def init(
        self,
        *,
        seed: int | Sequence[int],
        scale: float | Sequence[float] = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Params:
        """Draw Gaussian weights that keep the size of the signal from layer to layer.

        ``W_k ~ scale * sqrt(g / fan_in) * N(0, 1)`` with g = 2 for a layer followed by a ReLU,
        2 / (1 + slope^2) by a leaky ReLU, and 1 for a linear or the last layer (He et al. 2015).

        Args:
            seed: One seed gives one network; M seeds give an ensemble with leading axis M, whose
                member m is bit-identical to ``init(seed=seed[m], scale=scale[m])``.
            scale: Multiplies every layer; with M seeds, one number for all or M numbers.
            device: Where the weights go; the default is the CPU. They are drawn on the CPU in
                float64 in any case, so a seed means the same network everywhere.
            dtype: Floating-point type; the default is float64, in which the data are loaded.

        Raises:
            TypeError, ValueError: if a seed is not an integer in 0 .. 2**64 - 1, a scale is not
                positive, or the numbers of seeds and scales differ.

        >>> params = MLP(widths=(2, 3, 1)).init(seed=[0, 1])
        >>> [tuple(W.shape) for W in params.values()]
        [(2, 3, 2), (2, 1, 3)]
        """
        dtype = torch.float64 if dtype is None else dtype
        if not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point type, got {dtype}.")
        if not _is_sequence(seed):
            factor = _checks.positive("scale", scale)
            drawn = self._draw(_checks.integer("seed", seed, at_least=0), factor)
            return {name: W.to(device=device, dtype=dtype) for name, W in drawn.items()}
        seeds = _checks.integers("seed", seed, at_least=0)
        scales = list(scale) if _is_sequence(scale) else [scale] * len(seeds)
        if len(scales) != len(seeds):
            raise ValueError(
                f"scale must hold one number per seed ({len(seeds)}), got {len(scales)}."
            )
        factors = [_checks.positive(f"scale[{m}]", s) for m, s in enumerate(scales)]
        drawn = stack([self._draw(s, c) for s, c in zip(seeds, factors, strict=True)])
        return {name: W.to(device=device, dtype=dtype) for name, W in drawn.items()}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Evaluate f(W; x).

        Args:
            params: Weights of one network or of an ensemble of M.
            x: Points, (N, d), shared by the ensemble; or (M, N, d), network m's own. One network
                also takes a single point (d,), which suits ``torch.func.vmap``.

        Returns:
            (N,) for scalar networks, (N, C) for C > 1; with a leading axis M for an ensemble.

        Raises:
            TypeError, ValueError: if keys, shapes or dtypes do not fit. That x is finite is
                checked where data enter, not here.
        """
        self._check(params, x)
        f = self._forward(params, x)
        return f.squeeze(-1) if self.num_outputs == 1 else f

    def preactivations(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs z_1 .. z_{K-1} of the activations, each (N, h_k) or (M, N, h_k).

        Their zeros are the kinks at which the Clarke subdifferential of f has more than one
        element. For a ConvNet, z_k has the shape (N, c_k, H_k, W_k).
        """
        self._check(params, x)
        z: list[Tensor] = []
        self._forward(params, x, z)
        return tuple(z)

    def vjp(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
        """Return f(W; x) and the map from a cotangent to gradients in the weights.

        ``pullback(u)["Wk"] = sum_n u_n df(W; x_n) / dW_k``, with u shaped like f and the
        gradients like the weights, network by network. The derivative of the ReLU at 0 is 0.

        Raises:
            TypeError, ValueError: as evaluation does.
        """
        self._check(params, x)
        leaves = {name: params[name].detach().requires_grad_() for name in self.layer_names}

        def evaluate() -> Tensor:
            with torch.enable_grad():
                f = self._forward(leaves, x)
                return f.squeeze(-1) if self.num_outputs == 1 else f

        graphs = [evaluate()]

        def pullback(u: Tensor) -> Params:
            f = graphs.pop() if graphs else evaluate()  # to keep a graph after its use costs time
            grads = torch.autograd.grad(f, list(leaves.values()), u)
            return dict(zip(leaves, grads, strict=True))

        return graphs[0].detach(), pullback

    def at_once(self, num_points: int, like: Tensor) -> int:
        """How many networks of an ensemble to evaluate at once on points of this dtype and device.

        Together they share the overhead of each operation; too many, and their arrays fall out of
        a CPU's cache. The number follows from sizes alone, so that results are reproducible. On
        other devices there is no such limit.

        >>> net, x = MLP(widths=(64, 64, 64, 1)), torch.zeros(1, dtype=torch.float32)
        >>> net.at_once(64, x), net.at_once(357, x), net.at_once(10_000, x)
        (128, 22, 1)
        """
        if like.device.type != "cpu":
            return sys.maxsize
        point = self._numbers_per_point(num_points, like) * like.dtype.itemsize
        return max(1, CACHE_BYTES // (num_points * point))

    def _numbers_per_point(self, num_points: int, like: Tensor) -> int:
        """Size of the largest array in the evaluation of one network, per point."""
        return max(max(shape[0], math.prod(shape[1:])) for shape in self.shapes.values())

    def _times_slope(self, delta: Tensor, h: Tensor) -> Tensor:
        """Multiply delta, in place if need be, by sigma'(z), read off h = sigma(z)."""
        if self.activation == "relu":  # autograd's own kernel, without a mask in memory
            return torch.ops.aten.threshold_backward.grad_input(delta, h, 0, grad_input=delta)
        if self.activation == "leaky_relu":
            return torch.where(h > 0, delta, LEAKY_SLOPE * delta)
        return delta

    def _draw(self, seed: int, scale: float) -> Params:
        if seed > MAX_SEED:
            raise ValueError(f"seed must lie in 0 .. 2**64 - 1, got {seed}.")
        generator = torch.Generator().manual_seed(seed)
        gains = {"relu": 2.0, "linear": 1.0, "leaky_relu": 2.0 / (1.0 + LEAKY_SLOPE**2)}
        weights = {}
        for name, shape in self.shapes.items():
            gain = 1.0 if name == self.layer_names[-1] else gains[self.activation]
            std = scale * math.sqrt(gain / math.prod(shape[1:]))
            weights[name] = std * torch.randn(shape, generator=generator, dtype=torch.float64)
        return weights

    def _check(self, params: Mapping[str, Tensor], x: Tensor) -> None:
        if tuple(params) != self.layer_names:
            raise ValueError(
                f"params must have the keys {self.layer_names} in this order, got {tuple(params)}."
            )
        _checks.floating("x", x)
        last = params[self.layer_names[-1]]
        num_networks = last.shape[0] if last.ndim == 3 else None
        lead = () if num_networks is None else (num_networks,)
        for name, shape in self.shapes.items():
            if params[name].shape != lead + shape:
                raise ValueError(
                    f"params[{name!r}] must have shape {shape}, or (M, *{shape}) for an ensemble, "
                    f"got {tuple(params[name].shape)}."
                )
            if params[name].dtype != x.dtype:
                raise ValueError(
                    f"params[{name!r}] must have the dtype of x, {x.dtype}, "
                    f"got {params[name].dtype}."
                )
        self._check_x(x, num_networks)


@dataclass(frozen=True)
class MLP(Network):
    """Fully connected network ``f(W; x) = W_K sigma(W_{K-1} ... sigma(W_1 x))`` without biases.

    Args:
        widths: (d, h_1, ..., h_K): input dimension, hidden widths, number of outputs. W_k has
            the shape (h_k, h_{k-1}); a last width of 1 makes f a scalar.
        activation: "relu", "linear" or "leaky_relu" (slope 0.01 for z < 0), all 1-homogeneous.

    Raises:
        TypeError, ValueError: if there are fewer than two widths, a width is not a positive
            integer, or the activation is unknown.

    Source: PNAS 2020, section 3 ("deep networks").

    >>> net = MLP(widths=(64, 32, 1), activation="relu")
    >>> net.K, net.num_params, net.layer_names
    (2, 2080, ('W1', 'W2'))
    """

    widths: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", _checks.integers("widths", self.widths, at_least=1))
        if len(self.widths) < 2:
            raise ValueError(f"widths must hold at least (d, h_1), got {self.widths}.")
        _checks.choice("activation", self.activation, _ACTIVATIONS)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape (h_k, h_{k-1}) of each W_k, in the order of the layers."""
        pairs = zip(self.widths[1:], self.widths[:-1], strict=True)
        return {f"W{k}": pair for k, pair in enumerate(pairs, start=1)}

    def vjp(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
        """Return f(W; x) and ``u -> sum_n u_n df(W; x_n) / dW_k``, written out by hand.

        Same as :meth:`Network.vjp`, without autograd's overhead, which dominates for small
        networks; it is not itself differentiable.
        """
        self._check(params, x)
        if x.ndim == 1:
            return super().vjp(params, x)
        W = [params[name].detach() for name in self.layer_names]
        sigma_ = _IN_PLACE[self.activation]
        h = [x.detach()]
        for W_k in W[:-1]:
            h.append(sigma_(h[-1] @ W_k.mT))  # (..., N, h_k)
        f = h[-1] @ W[-1].mT

        def pullback(u: Tensor) -> Params:
            delta = u.unsqueeze(-1) if self.num_outputs == 1 else u  # (..., N, h_K)
            grads: Params = {}
            for k in range(self.K, 0, -1):
                grads[f"W{k}"] = delta.mT @ h[k - 1]  # (..., h_k, h_{k-1})
                if k > 1:
                    # The last layer of a scalar network is a row: its product is an outer one.
                    back = delta * W[k - 1] if delta.shape[-1] == 1 else delta @ W[k - 1]
                    delta = self._times_slope(back, h[k - 1])
            return dict(reversed(grads.items()))

        return (f.squeeze(-1) if self.num_outputs == 1 else f), pullback

    def _forward(
        self, params: Mapping[str, Tensor], x: Tensor, z: list[Tensor] | None = None
    ) -> Tensor:
        sigma = (_IN_PLACE if z is None else _ACTIVATIONS)[self.activation]
        h = x
        for name in self.layer_names[:-1]:
            z_k = h @ params[name].mT  # (..., N, h_k)
            if z is not None:
                z.append(z_k)
            h = sigma(z_k)
        return h @ params[self.layer_names[-1]].mT

    def _check_x(self, x: Tensor, num_networks: int | None) -> None:
        _check_rows(x, self.widths[0], num_networks)


@dataclass(frozen=True)
class ConvNet(Network):
    """Convolutional network without biases: convolutions, each with an activation, then a matrix.

    Layer k < K convolves with W_k of shape (c_k, c_{k-1}, s, s), zero padding s // 2; the last
    layer is a matrix (C, features) applied to the flattened maps. Since each layer is linear in
    its weights, f is homogeneous of degree one in each W_k, as for an :class:`MLP`. An ensemble
    is evaluated as one grouped convolution; see :meth:`vjp` for its training.

    Args:
        input_shape: (C, H, W) of the images; x may hold images or flattened rows of C H W pixels.
        channels: (c_1, ..., c_{K-1}), one per convolution.
        num_classes: Number of outputs of the last layer; 1 makes f a scalar.
        kernel_size: Side s of the filters, odd.
        stride: Stride of every convolution.
        activation: "relu", "linear" or "leaky_relu".

    Raises:
        TypeError, ValueError: if a size is not a positive integer, kernel_size is even, or the
            activation is unknown.

    Source: PNAS 2020, Fig. 2 and Remarks (convolutional layers).

    >>> ConvNet(input_shape=(1, 8, 8), channels=(4, 8)).shapes
    {'W1': (4, 1, 3, 3), 'W2': (8, 4, 3, 3), 'W3': (1, 32)}
    """

    input_shape: tuple[int, int, int]
    channels: tuple[int, ...]
    num_classes: int = 1
    kernel_size: int = 3
    stride: int = 2
    activation: str = "relu"

    def __post_init__(self) -> None:
        for name in ("input_shape", "channels"):
            sizes = _checks.integers(name, getattr(self, name), at_least=1)
            object.__setattr__(self, name, sizes)
        if len(self.input_shape) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {self.input_shape}.")
        for name in ("num_classes", "kernel_size", "stride"):
            _checks.integer(name, getattr(self, name), at_least=1)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}.")
        _checks.choice("activation", self.activation, _ACTIVATIONS)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each W_k: filters (c_k, c_{k-1}, s, s), then the matrix (C, features)."""
        side = self.kernel_size
        pairs = zip(self.channels, (self.input_shape[0], *self.channels[:-1]), strict=True)
        shapes = {f"W{k}": (*pair, side, side) for k, pair in enumerate(pairs, start=1)}
        features = self.channels[-1] * math.prod(self._sizes[-1])
        return {**shapes, f"W{len(shapes) + 1}": (self.num_classes, features)}

    def vjp(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
        """Return f(W; x) and ``u -> sum_n u_n df(W; x_n) / dW_k``, as :meth:`Network.vjp`.

        An ensemble of small networks on a CPU is written out by hand, each convolution a product
        of matrices; everything else is left to autograd.
        """
        self._check(params, x)
        ensemble = params[self.layer_names[-1]].ndim == 3
        lead = self._lead(x, len(params["W1"]) if ensemble else None)
        if not (ensemble and self._by_hand(lead[-1], x)):
            return super().vjp(params, x)
        W = [params[name].detach().flatten(2) for name in self.layer_names]  # (M, c_k, fan_in)
        M, N = len(W[0]), lead[-1]
        taps = [_taps(*size, self.kernel_size, self.stride) for size in self._sizes[:-1]]
        # Points come last, so that whole rows of N numbers are moved: h_k is (M, c_k, pixels, N).
        images = x.detach().reshape(*(1,) * (2 - len(lead)), *lead, self.input_shape[0], -1)
        h, patches = [images.movedim(1, -1)], []
        for W_k, taps_k in zip(W[:-1], taps, strict=True):
            patches.append(_patches(h[-1], taps_k, W_k.shape[2]))
            z = (W_k @ patches[-1]).unflatten(2, (-1, N))
            h.append(_IN_PLACE[self.activation](z))
        patches.append(h[-1].flatten(1, 2))  # the last layer takes all the features
        f = (W[-1] @ patches[-1]).mT

        def pullback(u: Tensor) -> Params:
            delta = u.unsqueeze(1) if self.num_outputs == 1 else u.mT  # (M, c_k, pixels N)
            grads: Params = {}
            for k in range(self.K, 0, -1):
                grads[f"W{k}"] = (delta @ patches[k - 1].mT).view(M, *self.shapes[f"W{k}"])
                if k > 1:
                    delta = W[k - 1].mT @ delta
                    if k < self.K:
                        delta = _add_patches(delta, taps[k - 1], h[k - 1])
                    delta = self._times_slope(delta.view_as(h[k - 1]), h[k - 1]).flatten(2)
            return dict(reversed(grads.items()))

        return (f.squeeze(-1) if self.num_outputs == 1 else f), pullback

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        """Height and width of the images and of the maps of each layer."""
        sizes = [self.input_shape[1:]]
        for _ in self.channels:
            sizes.append(tuple(-(-side // self.stride) for side in sizes[-1]))
        return sizes

    def _by_hand(self, num_points: int, like: Tensor) -> bool:
        """Whether products of matrices are faster: on a CPU, with small and few patches.

        Measured in float32 with 4 to 16 channels, filters of side 1 to 5 and strides 1 to 3.
        """
        size = num_points * self._largest_patches * like.dtype.itemsize
        few = self.kernel_size < 3 * self.stride  # not many to a pixel
        return like.device.type == "cpu" and few and size <= CACHE_BYTES

    @property
    def _largest_patches(self) -> int:
        """Numbers in the patches of a layer, those of the last layer being its features."""
        places = [*(math.prod(size) for size in self._sizes[1:]), 1]
        fan_in = (math.prod(shape[1:]) for shape in self.shapes.values())
        return max(math.prod(pair) for pair in zip(places, fan_in, strict=True))

    def _numbers_per_point(self, num_points: int, like: Tensor) -> int:
        if self._by_hand(num_points, like):
            return self._largest_patches
        maps = zip((self.input_shape[0], *self.channels), self._sizes, strict=True)
        return 2 * max(c * math.prod(size) for c, size in maps)  # before and after activation

    def _forward(
        self, params: Mapping[str, Tensor], x: Tensor, z: list[Tensor] | None = None
    ) -> Tensor:
        head = params[self.layer_names[-1]]
        M = head.shape[0] if head.ndim == 3 else 1
        lead = self._lead(x, M if head.ndim == 3 else None) or ()
        h = x.reshape(*lead, *self.input_shape)
        groups = 1
        if len(lead) == 2:  # each network has its own images: (M, N, c, H, W) -> (N, M c, H, W)
            h, groups = h.transpose(0, 1).flatten(1, 2), M
        elif not lead:
            h = h.unsqueeze(0)
        for name in self.layer_names[:-1]:
            filters = params[name].flatten(0, 1) if head.ndim == 3 else params[name]
            maps = torch.nn.functional.conv2d(
                h, filters, stride=self.stride, padding=self.kernel_size // 2, groups=groups
            )
            if z is not None:
                z.append(self._unfold(maps, lead, M, head.ndim == 3))
            h = _ACTIVATIONS[self.activation](maps)
            groups = M
        return self._unfold(h, lead, M, head.ndim == 3).flatten(-3) @ head.mT

    def _unfold(self, maps: Tensor, lead: tuple[int, ...], M: int, ensemble: bool) -> Tensor:
        """Maps (N, M c, H, W) of the grouped convolution as (M, N, c, H, W), or of one network."""
        if ensemble:
            return maps.unflatten(1, (M, -1)).transpose(0, 1)
        return maps if lead else maps.squeeze(0)

    def _lead(self, x: Tensor, num_networks: int | None) -> tuple[int, ...] | None:
        """Leading axes of x before the pixels, (N,), (M, N) or (), or None if x does not fit."""
        leads = []
        if x.shape[-3:] == self.input_shape:
            leads.append(tuple(x.shape[:-3]))
        if x.shape[-1:] == (math.prod(self.input_shape),):
            leads.append(tuple(x.shape[:-1]))
        for lead in leads:
            if len(lead) == 1 or (len(lead) == 0 and num_networks is None):
                return lead
            if len(lead) == 2 and lead[0] == num_networks:
                return lead
        return None

    def _check_x(self, x: Tensor, num_networks: int | None) -> None:
        if self._lead(x, num_networks) is None:
            pixels = (math.prod(self.input_shape),)
            own = "" if num_networks is None else f", with an axis {num_networks} before N or not"
            raise ValueError(
                f"x must have shape (N, *{self.input_shape}) or (N, *{pixels}){own}, "
                f"got {tuple(x.shape)}."
            )


@dataclass(frozen=True)
class Diagonal(Network):
    """Linear network with diagonal layers, ``f(W; x) = sum_i x_i prod_k W_k[0, i]``.

    Every layer is one row of d weights. It computes a linear function of x, is homogeneous of
    degree one in each layer, and is the smallest network on which the flows of the paper can end
    at different margins.

    Args:
        d: Input dimension.
        num_layers: K.

    Raises:
        TypeError, ValueError: if a size is not a positive integer.

    Source: Woodworth et al. 2020, section 4 (diagonal linear networks).

    >>> Diagonal(d=2, num_layers=3).shapes
    {'W1': (1, 2), 'W2': (1, 2), 'W3': (1, 2)}
    """

    d: int
    num_layers: int
    activation: str = field(default="linear", init=False)

    def __post_init__(self) -> None:
        _checks.integer("d", self.d, at_least=1)
        _checks.integer("num_layers", self.num_layers, at_least=1)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape (1, d) of each W_k."""
        return {f"W{k}": (1, self.d) for k in range(1, self.num_layers + 1)}

    def vjp(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
        """Return f(W; x) and ``u -> sum_n u_n df(W; x_n) / dW_k``, written out by hand.

        Same as :meth:`Network.vjp`, without autograd's overhead; not itself differentiable.
        """
        self._check(params, x)
        if x.ndim == 1:
            return super().vjp(params, x)
        W = [params[name].detach() for name in self.layer_names]
        before = [torch.ones_like(W[0])]  # products of the layers below k, then of all
        for W_k in W:
            before.append(before[-1] * W_k)
        f = (x.detach() @ before[-1].mT).squeeze(-1)

        def pullback(u: Tensor) -> Params:
            back, grads = u.unsqueeze(-2) @ x.detach(), {}  # (..., 1, d)
            for k in range(self.K, 0, -1):
                grads[f"W{k}"] = before[k - 1] * back
                back = back * W[k - 1]
            return dict(reversed(grads.items()))

        return f, pullback

    def _forward(
        self, params: Mapping[str, Tensor], x: Tensor, z: list[Tensor] | None = None
    ) -> Tensor:
        h = x
        for name in self.layer_names[:-1]:
            h = h * (params[name] if params[name].ndim == 3 or x.ndim == 2 else params[name][0])
            if z is not None:
                z.append(h)
        return h @ params[self.layer_names[-1]].mT

    def _check_x(self, x: Tensor, num_networks: int | None) -> None:
        _check_rows(x, self.d, num_networks)


def layer_norms(params: Mapping[str, Tensor]) -> Tensor:
    """Return the Frobenius norms ``rho_k = |W_k|``, shape (K,), or (M, K) for an ensemble.

    Raises:
        ValueError: if params holds no layer.

    Source: PNAS 2020, section 3 (W_k = rho_k V_k).

    >>> layer_norms({"W1": torch.tensor([[3.0, 4.0]]), "W2": torch.tensor([[2.0]])})
    tensor([5., 2.])
    """
    start = 1 if _is_ensemble(params) else 0
    norms = [torch.linalg.vector_norm(W.flatten(start), dim=-1) for W in params.values()]
    return torch.stack(norms, dim=-1)


def directions(params: Mapping[str, Tensor]) -> Params:
    """Return the normalized weights ``V_k = W_k / rho_k``, with |V_k| = 1 in Frobenius norm.

    Shapes are those of the weights.

    Raises:
        ValueError: if a layer is zero, so that its direction is undefined, or not finite.

    Source: PNAS 2020, section 3.
    """
    rho = layer_norms(params)
    for k, name in enumerate(params):
        if not ((rho[..., k] > 0) & torch.isfinite(rho[..., k])).all():
            raise ValueError(
                f"params[{name!r}] must have a positive finite norm, got {rho[..., k].tolist()}."
            )
    return compose(1 / rho, params)


def product_norm(params: Mapping[str, Tensor]) -> Tensor:
    """Return ``rho = prod_k rho_k``, shape (), or (M,) for an ensemble.

    Raises:
        ValueError: if params holds no layer.

    Source: PNAS 2020, section 3.
    """
    return layer_norms(params).prod(dim=-1)


def compose(rho: Tensor, V: Mapping[str, Tensor]) -> Params:
    """Return the weights ``W_k = rho_k V_k``; with it ``f(W; x) = prod_k rho_k f(V; x)``.

    Args:
        rho: Layer norms, (K,), or (M, K) for an ensemble.
        V: Weights, usually directions; W_k inherits their shapes.

    Raises:
        ValueError: if rho does not have one entry per layer (and network).
    """
    lead = next(reversed(V.values())).shape[:1] if _is_ensemble(V) else ()
    _checks.shape("rho", _checks.floating("rho", rho), (*lead, len(V)))
    return {
        name: rho[..., k].reshape(lead + (1,) * (V_k.ndim - len(lead))) * V_k
        for k, (name, V_k) in enumerate(V.items())
    }


def stack(networks: Sequence[Mapping[str, Tensor]]) -> Params:
    """Stack the parameters of M networks of one architecture into an ensemble.

    Raises:
        ValueError: if there are none, or if their keys or shapes differ.
    """
    networks = list(networks)
    if not networks:
        raise ValueError("networks must hold at least one set of parameters, got none.")
    for m, params in enumerate(networks):
        shapes = {name: tuple(W.shape) for name, W in params.items()}
        first = {name: tuple(W.shape) for name, W in networks[0].items()}
        if shapes != first:
            raise ValueError(f"networks[{m}] must have the shapes {first}, got {shapes}.")
    return {name: torch.stack([params[name] for params in networks]) for name in networks[0]}


def member(params: Mapping[str, Tensor], m: int) -> Params:
    """Return the parameters of network m of an ensemble (views, not copies).

    Raises:
        ValueError: if params is not an ensemble, or has no network m.
    """
    if not _is_ensemble(params):
        raise ValueError("params must be an ensemble, with a leading axis M on every layer.")
    num_networks = next(iter(params.values())).shape[0]
    if not -num_networks <= m < num_networks:
        raise ValueError(f"m must lie in 0 .. {num_networks - 1}, got {m}.")
    return {name: W[m] for name, W in params.items()}


def slopes_where(activation: str, positive: Tensor, like: Tensor) -> Tensor:
    """Return sigma'(z), 1 where ``positive`` (z > 0) and the lower slope elsewhere.

    Shape of ``positive``, dtype and device of ``like``: no slope is rounded to float32 on the way.
    """
    one = like.new_ones(())
    return torch.where(positive, one, SLOPES[activation] * one)


@lru_cache(maxsize=64)
def _taps(height: int, width: int, side: int, stride: int) -> Tensor:
    """Return the pixels under each of the s^2 entries of a filter at each of its places.

    The pixels of a map are numbered row by row; ``height * width`` stands for those outside. Flat,
    of s^2 times as many entries as the filter has places.
    """
    inside = torch.arange(height * width).view(height, width)
    padded = torch.nn.functional.pad(inside, [side // 2] * 4, value=height * width)
    return padded.unfold(0, side, stride).unfold(1, side, stride).permute(2, 3, 0, 1).flatten()


def _patches(h: Tensor, taps: Tensor, fan_in: int) -> Tensor:
    """Return the patches (M, fan_in, places N) of the maps h, (M, c, pixels, N); fan_in = c s^2."""
    padded = torch.nn.functional.pad(h, (0, 0, 0, 1)).flatten(0, 1)  # a last pixel of zeros
    return padded.index_select(1, taps).view(len(h), fan_in, -1)


def _add_patches(patches: Tensor, taps: Tensor, like: Tensor) -> Tensor:
    """Add the patches up, pixel by pixel, to maps shaped ``like``: the transpose of _patches."""
    M, c, pixels, N = like.shape
    padded = patches.new_zeros(M * c, pixels + 1, N)
    padded.index_add_(1, taps, patches.view(M * c, -1, N))
    return padded[:, :-1].reshape(like.shape)


def _check_rows(x: Tensor, d: int, num_networks: int | None) -> None:
    """Raise unless x holds rows of d numbers, its own for each network of an ensemble or shared."""
    if num_networks is None:
        fits = x.ndim in (1, 2) and x.shape[-1] == d
        allowed = f"(N, {d}) or ({d},)"
    else:
        fits = x.ndim == 2 and x.shape[1] == d
        fits = fits or (x.ndim == 3 and x.shape[0] == num_networks and x.shape[2] == d)
        allowed = f"(N, {d}) or ({num_networks}, N, {d})"
    if not fits:
        raise ValueError(f"x must have shape {allowed}, got {tuple(x.shape)}.")


def _is_sequence(value: object) -> bool:
    return isinstance(value, (Sequence, range)) or getattr(value, "ndim", 0) == 1


def _is_ensemble(params: Mapping[str, Tensor]) -> bool:
    if not params:
        raise ValueError("params must hold at least one layer, got none.")
    return next(reversed(params.values())).ndim == 3
