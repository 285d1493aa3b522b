"""Trainable networks of smooth units that copy a graph, share weights over it, or do neither.

A local network has a group of units for each node of a graph, which see only what the node reads
(PNAS 2020, Fig. 1, Inset B); the shallow network is the local network of the graph with one node.
Parameters are a plain ``dict[str, Tensor]``, ``net(params, x)`` is a pure function, and an ensemble
of M networks is the same dict with a leading axis M on every tensor.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from companion import _checks
from companion.approximation.compositional import Graph

Params = dict[str, Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": torch.nn.functional.softplus,
    "sin": torch.sin,
}
SHARING = ("none", "level", "all")


class SmoothNetwork(ABC):
    """What these networks offer: shapes, initialization, checked evaluation.

    Subclasses are frozen dataclasses with a field ``activation``. Biases are named ``b``, constants
    on the output ``c0``; they start at random and at zero.
    """

    activation: str
    num_inputs: int

    @cached_property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of parameters of one network."""

    @property
    @abstractmethod
    def num_units(self) -> int:
        """Number of units evaluated; units that share their weights are counted each."""

    @abstractmethod
    def _forward(self, params: Mapping[str, Tensor], v: Tensor) -> Tensor:
        """Return f, (..., N), for inputs v (..., n, N) with the leading axes of the parameters."""

    @property
    def num_params(self) -> int:
        """Number of trainable numbers in one network."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def init(
        self,
        *,
        seed: int | Sequence[int],
        scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Params:
        """Draw Gaussian weights of variance 1 / fan-in and biases uniform in [-1, 1].

        Args:
            seed: One seed gives one network; M seeds give an ensemble with leading axis M, whose
                member m is bit-identical to ``init(seed=seed[m])``.
            scale: Multiplies all of them.
            device: Where the parameters go; they are drawn on the CPU, so a seed means the same
                network everywhere.
            dtype: Floating-point type.

        Raises:
            TypeError, ValueError: if a seed is not an integer in 0 .. 2**64 - 1, ``scale`` is not
                positive, or ``dtype`` is not a floating-point type.

        >>> params = Dense((2, 3, 1)).init(seed=[0, 1])
        >>> {name: tuple(p.shape) for name, p in params.items()}
        {'W1': (2, 3, 2), 'b1': (2, 3), 'W2': (2, 1, 3), 'c0': (2, 1)}
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point type, got {dtype}.")
        scale = _checks.positive("scale", scale)
        if isinstance(seed, Iterable):
            drawn = [self._draw(s, scale) for s in _checks.integers("seed", seed, at_least=0)]
            params = {name: torch.stack([one[name] for one in drawn]) for name in self.shapes}
        else:
            params = self._draw(_checks.integer("seed", seed, at_least=0), scale)
        return {name: p.to(device=device, dtype=dtype) for name, p in params.items()}

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Evaluate f.

        Args:
            params: Those of one network or of an ensemble of M.
            x: Points, (N, n), shared by the ensemble; or (M, N, n), network m's own.

        Returns:
            (N,), or (M, N) for an ensemble.

        Raises:
            TypeError, ValueError: if keys, shapes or dtypes do not fit.
        """
        lead = self._check(params, x)
        v = x.mT
        return self._forward(params, v.expand(*lead, *v.shape) if v.ndim == 2 else v)

    def _draw(self, seed: int, scale: float) -> Params:
        if seed > 2**64 - 1:
            raise ValueError(f"seed must lie in 0 .. 2**64 - 1, got {seed}.")
        generator = torch.Generator().manual_seed(seed)
        params = {}
        for name, shape in self.shapes.items():
            if name.startswith("c0"):
                params[name] = torch.zeros(shape, dtype=torch.float64)
            elif name.startswith("b"):
                uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
                params[name] = scale * (2 * uniform - 1)
            else:
                normal = torch.randn(shape, generator=generator, dtype=torch.float64)
                params[name] = scale / math.sqrt(self._fan_in(name)) * normal
        return params

    def _fan_in(self, name: str) -> int:
        """Number of terms in the sums that the weights of that name enter."""
        return self.shapes[name][-1]

    def _check(self, params: Mapping[str, Tensor], x: Tensor) -> tuple[int, ...]:
        """Raise unless parameters and points fit; return the leading axes of the parameters."""
        if tuple(params) != tuple(self.shapes):
            raise ValueError(
                f"params must have the keys {tuple(self.shapes)} in this order, "
                f"got {tuple(params)}."
            )
        _checks.floating("x", x)
        first, shape = next((params[name], shape) for name, shape in self.shapes.items())
        lead = tuple(first.shape[:1]) if first.ndim > len(shape) else ()
        for name, shape in self.shapes.items():
            if params[name].shape != lead + shape:
                raise ValueError(
                    f"params[{name!r}] must have shape {shape}, or (M, *{shape}) for an ensemble, "
                    f"got {tuple(params[name].shape)}."
                )
            _checks.same_kind(f"params[{name!r}]", params[name], "x", x)
        own = len(lead) == 1 and x.ndim == 3 and x.shape[0] == lead[0]
        if not (x.ndim == 2 or own) or x.shape[-1] != self.num_inputs:
            allowed = f"(N, {self.num_inputs})" + (f" or ({lead[0]}, N, ...)" if lead else "")
            raise ValueError(f"x must have shape {allowed}, got {tuple(x.shape)}.")
        return lead


@dataclass(frozen=True)
class LocalNetwork(SmoothNetwork):
    """A network with the graph of its target: a group of units for each constituent function.

    Node v computes ``c0 + sum_q c_q sigma(w_q . u + b_q)`` of the values u that it reads. Nodes on
    one level that read the same number of values are evaluated together: group g has the weights
    ``Wg`` (nodes, units, arity), ``bg``, ``cg`` (nodes, units) and ``c0_g`` (nodes,), where 1
    stands for the number of nodes if they share their weights.

    Args:
        graph: Any directed acyclic graph.
        units: Units per node, Q.
        activation: "tanh", "softplus" or "sin".
        sharing: "none"; "level", the nodes of one level share their weights, as in a convolutional
            network; "all", the levels share them too (among nodes that read equally many values).

    Raises:
        TypeError, ValueError: if ``units`` is not a positive integer or a name is unknown.

    Source: PNAS 2020, section 2.B and Fig. 1.

    >>> tree = LocalNetwork(Graph.tree(8), units=4)
    >>> tree.num_units, tree.num_params
    (28, 119)
    >>> LocalNetwork(Graph.shallow(8), units=28).num_params
    281
    """

    graph: Graph
    units: int
    activation: str = "tanh"
    sharing: str = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.graph, Graph):
            raise TypeError(f"graph must be a Graph, got {type(self.graph).__name__}.")
        _checks.integer("units", self.units, at_least=1)
        _checks.choice("activation", self.activation, ACTIVATIONS)
        _checks.choice("sharing", self.sharing, SHARING)

    @property
    def num_inputs(self) -> int:
        return self.graph.num_inputs

    @property
    def num_units(self) -> int:
        return self.units * self.graph.num_nodes

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, parents in zip(self._names, self._groups, strict=True):
            count = len(parents) if self.sharing == "none" else 1
            shapes[f"W{name}"] = (count, self.units, len(parents[0]))
            shapes[f"b{name}"] = (count, self.units)
            shapes[f"c{name}"] = (count, self.units)
            shapes[f"c0_{name}"] = (count,)
        return shapes

    @cached_property
    def _members(self) -> tuple[tuple[int, ...], ...]:
        """Nodes of each group, the groups by level, then by arity."""
        groups: dict[tuple[int, int], list[int]] = {}
        for j, parents in enumerate(self.graph.nodes):
            groups.setdefault((self.graph.levels[j], len(parents)), []).append(j)
        return tuple(tuple(groups[key]) for key in sorted(groups))

    @cached_property
    def _groups(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """What each node of each group reads, as rows: inputs first, then group after group."""
        n = self.graph.num_inputs
        order = [j for members in self._members for j in members]
        row = list(range(n)) + [n + order.index(j) for j in range(self.graph.num_nodes)]
        return tuple(
            tuple(tuple(row[p] for p in self.graph.nodes[j]) for j in members)
            for members in self._members
        )

    @cached_property
    def _names(self) -> tuple[int, ...]:
        """Number of the weights of each group; groups of equal arity have one if all is shared."""
        if self.sharing != "all":
            return tuple(range(1, len(self._groups) + 1))
        arities = list(dict.fromkeys(len(parents[0]) for parents in self._groups))
        return tuple(arities.index(len(parents[0])) + 1 for parents in self._groups)

    def _forward(self, params: Mapping[str, Tensor], v: Tensor) -> Tensor:
        sigma, lead = ACTIVATIONS[self.activation], v.shape[:-2]
        for name, parents in zip(self._names, self._groups, strict=True):
            rows = torch.tensor(parents, device=v.device)
            read = v.index_select(-2, rows.flatten()).reshape(*lead, *rows.shape, v.shape[-1])
            hidden = sigma(params[f"W{name}"] @ read + params[f"b{name}"][..., None])
            out = (params[f"c{name}"][..., None, :] @ hidden).squeeze(-2)
            v = torch.cat([v, out + params[f"c0_{name}"][..., None]], dim=-2)
        return v[..., -1, :]


@dataclass(frozen=True)
class ShiftedFilters(SmoothNetwork):
    """A shallow network with shared weights: each filter is applied in all n cyclic shifts.

    ``f(x) = c0 + sum_q sum_s c_qs sigma(sum_i w_q,i x_(i + s mod n) + b_q)``: global filters, since
    each sees all inputs, with the outer weights free.

    Args:
        num_inputs: n.
        filters: F; there are n F units.
        activation: "tanh", "softplus" or "sin".

    Raises:
        TypeError, ValueError: if a number is not a positive integer or the activation is unknown.

    >>> net = ShiftedFilters(num_inputs=8, filters=4)
    >>> net.num_units, net.num_params
    (32, 69)
    """

    num_inputs: int
    filters: int
    activation: str = "tanh"

    def __post_init__(self) -> None:
        _checks.integer("num_inputs", self.num_inputs, at_least=1)
        _checks.integer("filters", self.filters, at_least=1)
        _checks.choice("activation", self.activation, ACTIVATIONS)

    @property
    def num_units(self) -> int:
        return self.num_inputs * self.filters

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        n, F = self.num_inputs, self.filters  # noqa: N806
        return {"W": (F, n), "b": (F,), "c": (F, n), "c0": ()}

    def _fan_in(self, name: str) -> int:
        return self.num_units if name == "c" else self.num_inputs

    def _forward(self, params: Mapping[str, Tensor], v: Tensor) -> Tensor:
        i = torch.arange(self.num_inputs, device=v.device)
        shifted = params["W"][..., (i[None, :] - i[:, None]) % self.num_inputs]  # (..., F, n, n)
        z = shifted.flatten(-3, -2) @ v  # units by filter, then shift
        z = z + params["b"][..., None].expand(params["c"].shape).flatten(-2)[..., None]
        hidden = ACTIVATIONS[self.activation](z)
        out = (params["c"].flatten(-2)[..., None, :] @ hidden).squeeze(-2)
        return out + params["c0"][..., None]


@dataclass(frozen=True)
class Dense(SmoothNetwork):
    """Fully connected network with biases, ``f = W_K sigma(... sigma(W_1 x + b_1)) + c0``.

    Args:
        widths: (n, h_1, ..., h_{K-1}, 1).
        activation: "tanh", "softplus" or "sin".

    Raises:
        TypeError, ValueError: if there are fewer than three widths, a width is not a positive
            integer, the last is not 1, or the activation is unknown.

    >>> Dense((8, 7, 7, 1)).num_params
    127
    """

    widths: tuple[int, ...]
    activation: str = "tanh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", _checks.integers("widths", self.widths, at_least=1))
        if len(self.widths) < 3 or self.widths[-1] != 1:
            raise ValueError(f"widths must be (n, h_1, ..., 1) with K >= 2, got {self.widths}.")
        _checks.choice("activation", self.activation, ACTIVATIONS)

    @property
    def num_inputs(self) -> int:
        return self.widths[0]

    @property
    def num_units(self) -> int:
        return sum(self.widths[1:-1])

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for k, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False), 1):
            shapes[f"W{k}"] = (fan_out, fan_in)
            shapes[f"b{k}" if k < len(self.widths) - 1 else "c0"] = (fan_out,)
        return shapes

    def _forward(self, params: Mapping[str, Tensor], v: Tensor) -> Tensor:
        last = len(self.widths) - 1
        for k in range(1, last):
            z = params[f"W{k}"] @ v + params[f"b{k}"][..., None]
            v = ACTIVATIONS[self.activation](z)
        return (params[f"W{last}"] @ v + params["c0"][..., None]).squeeze(-2)
