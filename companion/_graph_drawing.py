"""Drawings of a function's graph and of the network that copies it (PNAS 2020, Fig. 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from companion._style import colors

_MOST_DRAWN = 24  # units of one node
_NODE, _UNIT, _DOT = 430, 46, 16  # areas of the marks, in square points


class FunctionGraph(Protocol):
    """What the drawings read: values 0 .. num_inputs - 1 are the inputs, then come the nodes, each
    with the numbers of the values it reads, and its level."""

    num_inputs: int
    nodes: Sequence[Sequence[int]]
    levels: Sequence[int]


def function_graph(ax: Axes, graph: FunctionGraph, *, highlight: Sequence[int] = ()) -> None:
    """Draw a graph of constituent functions, inputs below and output on top; for use inside draw.

    Nodes are named by level and place, as in the paper: h_11, h_12, ..., the output by its level.
    ``graph`` is any object with the fields of ``FunctionGraph``; the nodes in ``highlight``, by
    number from 0 on, are filled.

    Raises ValueError if ``highlight`` names a node that does not exist.
    """
    wrong = [j for j in highlight if not 0 <= j < len(graph.nodes)]
    if wrong:
        raise ValueError(f"highlight must hold nodes 0 .. {len(graph.nodes) - 1}, got {wrong}.")
    role, places = colors(), _places(graph)
    edges = [
        (places[parent], places[graph.num_inputs + j])
        for j, parents in enumerate(graph.nodes)
        for parent in parents
    ]
    ax.add_collection(LineCollection(edges, colors=role.muted, linewidths=1.3, zorder=1))
    at = places[graph.num_inputs :]
    fill = [role.fill if j in highlight else role.background for j in range(len(at))]
    ax.scatter(*at.T, s=_NODE, color=fill, edgecolors=role.c0, linewidths=1.6, zorder=2)
    for place, name in zip(at, _names(graph), strict=True):
        ax.annotate(name, place, ha="center", va="center", size=10, zorder=3)
    _draw_inputs(ax, graph, places)
    _frame(ax, graph, places)


def network_graph(ax: Axes, graph: FunctionGraph, *, units: int) -> None:
    """Draw the network that copies a graph: a row of ``units`` units per node; for use inside draw.

    Every unit of a node sees all values that the node reads; the dot above a row is the weighted
    sum of its units, the value that the node passes on.

    Raises ValueError if ``units`` is not in 1 .. 24: more cannot be told apart.
    """
    if not 1 <= units <= _MOST_DRAWN:
        raise ValueError(f"units must lie in 1 .. {_MOST_DRAWN}, got {units}.")
    role, places = colors(), _places(graph)
    width = _room(graph, places)
    lines, units_at = [], []
    for j, parents in enumerate(graph.nodes):
        x, y = places[graph.num_inputs + j]
        row = x + width * (np.arange(units) - (units - 1) / 2) / max(units - 1, 1)
        units_at += [(u, y - 0.32) for u in row]
        lines += [(places[parent], (u, y - 0.32)) for u in row for parent in parents]
        lines += [((u, y - 0.32), (x, y)) for u in row]
    ax.add_collection(LineCollection(lines, colors=role.muted, linewidths=0.5, zorder=1))
    ax.scatter(*np.array(units_at).T, s=_UNIT, color=role.c0, edgecolors=role.background,
               linewidths=0.6, zorder=2)  # fmt: skip
    ax.scatter(*places[graph.num_inputs :].T, s=_DOT, color=role.ink, zorder=3)
    _draw_inputs(ax, graph, places)
    _frame(ax, graph, places)


def _places(graph: FunctionGraph) -> np.ndarray:
    """Where each value stands, (num_values, 2): inputs side by side, nodes above what they read."""
    places = [(float(i), 0.0) for i in range(graph.num_inputs)]
    for parents, level in zip(graph.nodes, graph.levels, strict=True):
        x = float(np.mean([places[parent][0] for parent in parents]))
        while any(y == level and abs(x - other) < 0.6 for other, y in places):
            x += 0.6  # of a general graph: two nodes above the same values stand side by side
        places.append((x, float(level)))
    return np.array(places)


def _room(graph: FunctionGraph, places: np.ndarray) -> float:
    """Width of a row of units: what the closest nodes of one level leave to each other."""
    gaps = [
        np.diff(np.sort(places[graph.num_inputs :][np.array(graph.levels) == level, 0])).min()
        for level, count in Counter(graph.levels).items()
        if count > 1
    ]
    return 0.65 * min(gaps) if gaps else 0.9 * places[:, 0].max()


def _names(graph: FunctionGraph) -> list[str]:
    seen: Counter[int] = Counter()
    names = []
    for level in graph.levels[:-1]:
        seen[level] += 1
        names.append(f"$h_{{{level}{seen[level]}}}$")
    return [*names, f"$h_{{{graph.levels[-1]}}}$" if len(graph.levels) > 1 else "$f$"]


def _draw_inputs(ax: Axes, graph: FunctionGraph, places: np.ndarray) -> None:
    at = places[: graph.num_inputs]
    ax.scatter(*at.T, s=_DOT, color=colors().ink, zorder=3)
    for i, (x, y) in enumerate(at, start=1):
        ax.annotate(f"$x_{{{i}}}$", (x, y), (0, -8), textcoords="offset points", ha="center",
                    va="top", size=11)  # fmt: skip


def _frame(ax: Axes, graph: FunctionGraph, places: np.ndarray) -> None:
    ax.set_axis_off()
    ax.set_xlim(places[:, 0].min() - 0.6, places[:, 0].max() + 0.6)
    ax.set_ylim(-0.55, max(graph.levels) + 0.45)
