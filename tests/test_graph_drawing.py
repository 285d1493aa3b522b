"""Drawings of graphs: every node, edge and unit is there, and nothing else is accepted."""

from __future__ import annotations

import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from companion import figures
from companion.approximation.compositional import Graph

DAG = Graph(3, ((0, 1), (1, 2), (0, 2), (3, 4, 5)))
GRAPHS = [Graph.tree(8), Graph.tree(9, arity=3), Graph.tree(6), Graph.shallow(5), DAG]


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_function_graph_has_all_nodes_edges_and_names(graph: Graph) -> None:
    ax = Figure().subplots()
    figures.function_graph(ax, graph)
    (edges,) = (c for c in ax.collections if isinstance(c, LineCollection))
    assert len(edges.get_segments()) == sum(map(len, graph.nodes))
    marks = [len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
    assert sorted(marks) == sorted([graph.num_nodes, graph.num_inputs])
    assert len(ax.texts) == graph.num_values and not ax.axison


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_network_graph_has_a_row_of_units_per_node(graph: Graph) -> None:
    ax = Figure().subplots()
    figures.network_graph(ax, graph, units=3)
    (edges,) = (c for c in ax.collections if isinstance(c, LineCollection))
    assert len(edges.get_segments()) == 3 * (sum(map(len, graph.nodes)) + graph.num_nodes)
    marks = [len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
    assert sorted(marks) == sorted([3 * graph.num_nodes, graph.num_nodes, graph.num_inputs])


def test_the_nodes_of_the_paper_have_its_names() -> None:
    ax = Figure().subplots()
    figures.function_graph(ax, Graph.tree(8), highlight=[0])
    names = [text.get_text() for text in ax.texts][:7]
    assert names == [f"$h_{{{i}}}$" for i in (11, 12, 13, 14, 21, 22, 3)]


def test_no_two_nodes_stand_on_one_another() -> None:
    ax = Figure().subplots()
    figures.function_graph(ax, Graph(2, ((0, 1), (0, 1), (2, 3))))
    places = [tuple(c) for c in ax.collections[1].get_offsets().tolist()]
    assert len(set(places)) == 3


def test_bad_input_is_refused() -> None:
    ax = Figure().subplots()
    with pytest.raises(ValueError, match=r"highlight must hold nodes 0 .. 6, got \[7\]"):
        figures.function_graph(ax, Graph.tree(8), highlight=[7])
    for units in (0, 25):
        with pytest.raises(ValueError, match=rf"units must lie in 1 .. 24, got {units}"):
            figures.network_graph(ax, Graph.tree(4), units=units)
