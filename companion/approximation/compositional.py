"""Functions made of functions of few variables: graphs, their evaluation, their error budget.

A compositional function has a directed acyclic graph whose nodes are constituent functions of few
variables; the tree of PNAS 2020, Fig. 1, is ``h3(h21(h11(x1, x2), h12(x3, x4)), h22(...))``.
Values are numbered like this throughout: 0 .. n - 1 are the inputs, n + j is the value of node j,
and the last node is the output.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from companion import _checks

Constituent = Callable[..., Any]


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph of constituent functions (PNAS 2020, Fig. 1, top).

    Args:
        num_inputs: n, the number of variables x_1 .. x_n.
        nodes: Node j lists the numbers of the values that it reads: inputs 0 .. n - 1 and earlier
            nodes, n + i with i < j. The last node is the output.

    Raises:
        TypeError, ValueError: if there is no node, a node reads nothing, the same value twice or a
            value that is not there yet, or a value other than the output is read by no node.

    >>> Graph.tree(4).nodes
    ((0, 1), (2, 3), (4, 5))
    """

    num_inputs: int
    nodes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        n = _checks.integer("num_inputs", self.num_inputs, at_least=1)
        nodes = tuple(
            _checks.integers(f"nodes[{j}]", parents, at_least=0)
            for j, parents in enumerate(self.nodes)
        )
        object.__setattr__(self, "nodes", nodes)
        if not nodes:
            raise ValueError("nodes must hold at least one node, got none.")
        for j, parents in enumerate(nodes):
            if len(set(parents)) < len(parents) or max(parents) >= n + j:
                raise ValueError(
                    f"nodes[{j}] must list different values among 0 .. {n + j - 1}, got {parents}."
                )
        unread = set(range(n + len(nodes) - 1)) - set(itertools.chain(*nodes))
        if unread:
            raise ValueError(f"nodes must read every value but the last, not read: {unread}.")

    @classmethod
    def shallow(cls, num_inputs: int) -> Graph:
        """One node that sees all inputs: the graph of a generic function (Fig. 1, Inset A)."""
        n = _checks.integer("num_inputs", num_inputs, at_least=1)
        return cls(n, (tuple(range(n)),))

    @classmethod
    def tree(cls, num_inputs: int, *, arity: int = 2) -> Graph:
        """The tree that joins neighbours, ``arity`` at a time, level by level (Fig. 1, Inset B).

        A lone value left over on a level passes on to the next. With two at a time there are
        n - 1 nodes, and log2 n levels if n is a power of 2.
        """
        n = _checks.integer("num_inputs", num_inputs, at_least=2)
        arity = _checks.integer("arity", arity, at_least=2)
        nodes: list[tuple[int, ...]] = []
        level = list(range(n))
        while len(level) > 1:
            above = []
            for start in range(0, len(level), arity):
                group = tuple(level[start : start + arity])
                if len(group) > 1:
                    nodes.append(group)
                    above.append(n + len(nodes) - 1)
                else:
                    above.append(group[0])
            level = above
        return cls(n, tuple(nodes))

    @property
    def num_nodes(self) -> int:
        """Number of constituent functions."""
        return len(self.nodes)

    @property
    def num_values(self) -> int:
        """Number of inputs and nodes."""
        return self.num_inputs + self.num_nodes

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Level of each node: 1 more than the highest of what it reads; inputs are at 0."""
        level = [0] * self.num_inputs
        for parents in self.nodes:
            level.append(1 + max(level[parent] for parent in parents))
        return tuple(level[self.num_inputs :])

    @property
    def depth(self) -> int:
        """Level of the output."""
        return self.levels[-1]

    @property
    def is_tree(self) -> bool:
        """Whether every input and every node but the last is read exactly once."""
        read = [parent for parents in self.nodes for parent in parents]
        return len(read) == self.num_values - 1

    def permuted(self, order: Sequence[int]) -> Graph:
        """The same graph with input i replaced by input ``order[i]``.

        Raises:
            ValueError: if ``order`` is not a permutation of 0 .. n - 1.

        >>> Graph.tree(4).permuted([0, 2, 1, 3]).nodes
        ((0, 2), (1, 3), (4, 5))
        """
        order = _checks.integers("order", order, at_least=0)
        if sorted(order) != list(range(self.num_inputs)):
            raise ValueError(
                f"order must be a permutation of 0 .. {self.num_inputs - 1}, got {order}."
            )
        renamed = [*order, *range(self.num_inputs, self.num_values)]
        return Graph(self.num_inputs, tuple(tuple(renamed[p] for p in node) for node in self.nodes))


def evaluate(graph: Graph, functions: Sequence[Constituent], inputs: Sequence[Any]) -> list[Any]:
    """Return all values, inputs first, of the composition of one function per node.

    Works for whatever the functions take: tensors, exact fractions, elements of a polynomial ring.

    Raises:
        ValueError: if there is not one function per node and one value per input.

    >>> evaluate(Graph.tree(4), [lambda a, b: a * b] * 3, [1, 2, 3, 4])
    [1, 2, 3, 4, 2, 12, 24]
    """
    for name, given, needed in (
        ("functions", functions, graph.num_nodes),
        ("inputs", inputs, graph.num_inputs),
    ):
        if len(given) != needed:
            raise ValueError(f"{name} must have {needed} entries, got {len(given)}.")
    values = list(inputs)
    for function, parents in zip(functions, graph.nodes, strict=True):
        values.append(function(*(values[parent] for parent in parents)))
    return values


@dataclass(frozen=True)
class Compositional:
    """A compositional function of tensors.

    Args:
        graph: Which value each constituent reads.
        functions: One function per node, of as many tensors as the node reads, each (N,); or a
            single function for all nodes.

    Raises:
        ValueError: if the numbers of functions and nodes differ.

    Source: PNAS 2020, section 2.B.

    >>> f = Compositional(Graph.tree(4), torch.maximum)
    >>> f(torch.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([3.])
    """

    graph: Graph
    functions: Constituent | tuple[Constituent, ...]

    def __post_init__(self) -> None:
        functions = self.functions
        if callable(functions):
            functions = (functions,) * self.graph.num_nodes
        object.__setattr__(self, "functions", tuple(functions))
        if len(self.functions) != self.graph.num_nodes:
            raise ValueError(
                f"functions must hold one function for all nodes, or one for each of the "
                f"{self.graph.num_nodes}, got {len(self.functions)}."
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x), (N,), for points x (N, n)."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """Return all values at points x (N, n), inputs first, each (N,).

        Raises:
            TypeError, ValueError: if x is not a floating-point tensor of shape (N, n).
        """
        _check_points(x, self.graph.num_inputs)
        return evaluate(self.graph, self.functions, x.unbind(-1))

    def sensitivities(self, x: Tensor) -> Tensor:
        """Return |df / dv_j| at points x (N, n), where v_j is the value of node j; (N, num_nodes).

        By how much an error made at a node is multiplied on its way to the output, to first
        order; 1 for the output itself.
        """
        _check_points(x, self.graph.num_inputs)
        errors = torch.zeros(
            self.graph.num_nodes, len(x), dtype=x.dtype, device=x.device, requires_grad=True
        )
        with torch.enable_grad():
            shifted = [
                lambda *args, h=h, e=e: h(*args) + e
                for h, e in zip(self.functions, errors, strict=True)
            ]
            f = evaluate(self.graph, shifted, x.unbind(-1))[-1]
            (gradient,) = torch.autograd.grad(f.sum(), errors)
        return gradient.abs().T

    def amplification(self, x: Tensor) -> float:
        """Return A, the largest over points x (N, n) of the summed sensitivities of the nodes.

        If each node is approximated to accuracy e, the tree is to A e, to first order in e. It is
        at least 1, and n - 1 for the product of n numbers at x = (1, ..., 1).
        """
        return float(self.sensitivities(x).sum(dim=1).max())


def _check_points(x: Tensor, num_inputs: int) -> None:
    _checks.floating("x", x)
    if x.ndim != 2 or x.shape[1] != num_inputs:
        raise ValueError(f"x must have shape (N, {num_inputs}), got {tuple(x.shape)}.")
