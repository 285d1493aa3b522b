"""Local networks compute what their graphs say, whatever shares its weights with what."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from companion.approximation.compositional import Graph, evaluate
from companion.approximation.local_networks import Dense, LocalNetwork, ShiftedFilters

F64 = torch.float64

# Node values 4 and 5 are read twice, by nodes of different levels and arities.
DAG = Graph(4, ((0, 1), (2, 3), (4, 5), (1, 4, 5), (6, 7, 3)))
NETS = [
    LocalNetwork(Graph.tree(8), 4),
    LocalNetwork(Graph.tree(8), 2, sharing="level"),
    LocalNetwork(Graph.tree(8), 3, sharing="all", activation="sin"),
    LocalNetwork(Graph.shallow(5), 6, activation="softplus"),
    LocalNetwork(DAG, 2),
    LocalNetwork(DAG, 2, sharing="all"),
    ShiftedFilters(num_inputs=6, filters=2),
    Dense((3, 4, 2, 1)),
]


def points(net, num: int = 9, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(num, net.num_inputs, generator=generator, dtype=F64) - 1


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A random graph: every value that no node reads yet is read by the last."""
    n = draw(st.integers(1, 4))
    nodes: list[tuple[int, ...]] = []
    for j in range(draw(st.integers(0, 4))):
        known = list(range(n + j))
        size = draw(st.integers(1, min(3, len(known))))
        nodes.append(tuple(draw(st.permutations(known))[:size]))
    read = {p for parents in nodes for p in parents}
    rest = tuple(p for p in range(n + len(nodes)) if p not in read)
    return Graph(n, (*nodes, rest))


def by_hand(net: LocalNetwork, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network node by node from the definition, with its weights found by level and arity."""
    sigma = {"tanh": torch.tanh, "sin": torch.sin, "softplus": torch.nn.functional.softplus}
    kinds = sorted({(net.graph.levels[j], len(p)) for j, p in enumerate(net.graph.nodes)})
    arities = list(dict.fromkeys(arity for _, arity in kinds))
    seen: dict[tuple[int, int], int] = {}
    functions = []
    for level, parents in zip(net.graph.levels, net.graph.nodes, strict=True):
        kind = (level, len(parents))
        name = arities.index(len(parents)) if net.sharing == "all" else kinds.index(kind)
        place = seen.get(kind, 0) if net.sharing == "none" else 0
        seen[kind] = place + 1
        W, b, c = (params[f"{p}{name + 1}"][place] for p in ("W", "b", "c"))  # noqa: N806
        c0 = params[f"c0_{name + 1}"][place]

        def node(*read, W=W, b=b, c=c, c0=c0):  # noqa: N803
            total = c0
            for q in range(net.units):
                z = sum(w * v for w, v in zip(W[q], read, strict=True)) + b[q]
                total = total + c[q] * sigma[net.activation](z)
            return total

        functions.append(node)
    return evaluate(net.graph, functions, x.unbind(-1))[-1]


@settings(max_examples=30)
@given(graphs(), st.integers(1, 3), st.sampled_from(["none", "level", "all"]))
def test_local_network_is_the_composition_of_its_nodes(
    graph: Graph, units: int, sharing: str
) -> None:
    net = LocalNetwork(graph, units, sharing=sharing)
    params, x = net.init(seed=1), points(net)
    torch.testing.assert_close(net(params, x), by_hand(net, params, x))


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_an_ensemble_is_its_members(net) -> None:
    params, x = net.init(seed=[4, 0, 7]), points(net)
    assert net(params, x).shape == (3, 9)
    for m, seed in enumerate([4, 0, 7]):
        one = net.init(seed=seed)
        assert all(torch.equal(one[name], params[name][m]) for name in one)
        torch.testing.assert_close(net(one, x), net(params, x)[m])
    own = torch.stack([x, x + 1, -x])
    torch.testing.assert_close(net(params, own)[1], net(net.init(seed=0), x + 1))


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_all_parameters_are_counted_and_matter(net) -> None:
    params = {name: p.requires_grad_() for name, p in net.init(seed=2).items()}
    net(params, points(net, 40)).square().sum().backward()
    assert net.num_params == sum(p.numel() for p in params.values())
    assert all((p.grad != 0).all() for p in params.values())
    assert {name: tuple(p.shape) for name, p in params.items()} == net.shapes


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_vmap_and_grad_apply(net) -> None:
    params, x = net.init(seed=[0, 1]), points(net, 4)

    def value(one: dict[str, Tensor], point: Tensor) -> Tensor:
        return net(one, point[None])[0]

    f = torch.func.vmap(torch.func.vmap(value, in_dims=(None, 0)), in_dims=(0, None))(params, x)
    torch.testing.assert_close(f, net(params, x))


def test_sizes_of_the_tree_of_eight_inputs() -> None:
    tree, Q = Graph.tree(8), 4  # noqa: N806
    per_node = Q * (2 + 1 + 1) + 1
    for sharing, groups in (("none", 7), ("level", 3), ("all", 1)):
        net = LocalNetwork(tree, Q, sharing=sharing)
        assert (net.num_units, net.num_params) == (28, groups * per_node)
    assert LocalNetwork(Graph.shallow(8), 28).num_params == 28 * 10 + 1
    assert ShiftedFilters(8, 4).num_params == 4 * (8 + 1 + 8) + 1
    assert Dense((8, 7, 7, 1)).num_units == 14


def test_a_node_depends_on_what_it_reads_only() -> None:
    net = LocalNetwork(Graph.tree(4), 3)
    params, x = net.init(seed=0), points(net, 5).requires_grad_()
    params["c2"] = torch.zeros_like(params["c2"])
    params["c2"][0, 0] = 1.0
    params["W2"] = torch.zeros_like(params["W2"])
    params["W2"][0, 0, 1] = 1.0  # the root looks at its right value alone
    net(params, x).sum().backward()
    assert (x.grad[:, :2] == 0).all() and (x.grad[:, 2:] != 0).any()


def test_shared_nodes_are_equal_functions() -> None:
    """With one function on a level, exchanging the two halves below it exchanges its values."""
    net = LocalNetwork(Graph(4, ((0, 1), (2, 3), (4, 5))), 3, sharing="level")
    params, x = net.init(seed=3), points(net)
    swapped = params | {"W2": params["W2"].flip(-1)}  # the root reads them the other way round
    torch.testing.assert_close(net(params, x), net(swapped, x[:, [2, 3, 0, 1]]))


def test_shifted_filters_are_a_shallow_network_with_repeated_weights() -> None:
    net, n = ShiftedFilters(num_inputs=5, filters=2), 5
    params, x = net.init(seed=0), points(net)
    expected = params["c0"].expand(9)
    for q in range(2):
        for s in range(n):
            rolled = torch.stack([x[:, (i + s) % n] for i in range(n)], dim=1)
            z = rolled @ params["W"][q] + params["b"][q]
            expected = expected + params["c"][q, s] * torch.tanh(z)
    torch.testing.assert_close(net(params, x), expected)
    even = params | {"c": params["c"][:, :1].expand(2, n)}  # equal outer weights: invariant
    torch.testing.assert_close(net(even, x), net(even, x.roll(2, dims=1)))


def test_dense_is_what_torch_computes() -> None:
    net = Dense((3, 4, 2, 1), activation="softplus")
    params, x = net.init(seed=0), points(net)
    h = x
    for k in (1, 2):
        h = torch.nn.functional.softplus(
            torch.nn.functional.linear(h, params[f"W{k}"], params[f"b{k}"])
        )
    expected = torch.nn.functional.linear(h, params["W3"], params["c0"]).squeeze(-1)
    torch.testing.assert_close(net(params, x), expected)


def test_initialization_has_the_stated_scale() -> None:
    net = LocalNetwork(Graph.shallow(50), 400)
    params = net.init(seed=0, scale=3.0)
    assert params["W1"].std() == pytest.approx(3 / math.sqrt(50), rel=0.03)
    assert params["c1"].std() == pytest.approx(3 / math.sqrt(400), rel=0.15)
    assert params["b1"].abs().max() == pytest.approx(3.0, rel=0.02)
    assert (params["c0_1"] == 0).all()
    assert net.init(seed=0, dtype=torch.float32)["W1"].dtype == torch.float32


@pytest.mark.parametrize("net", NETS[::3], ids=repr)
def test_networks_run_on_every_device(net, device: str) -> None:
    params, x = net.init(seed=[0, 1], device=device), points(net).to(device)
    assert net(params, x).device == x.device
    torch.testing.assert_close(net(params, x).cpu(), net(net.init(seed=[0, 1]), points(net)))


def test_networks_are_immutable_and_compare_by_value() -> None:
    assert LocalNetwork(Graph.tree(4), 2) == LocalNetwork(Graph.tree(4), 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        NETS[0].units = 5


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: LocalNetwork(8, 4), TypeError, "graph must be a Graph, got int"),
        (lambda: LocalNetwork(Graph.tree(4), 0), ValueError, "units must be at least 1, got 0"),
        (lambda: LocalNetwork(Graph.tree(4), 1.5), TypeError, "units must be an integer"),
        (lambda: LocalNetwork(Graph.tree(4), 1, "relu"), ValueError, "activation must be one of"),
        (
            lambda: LocalNetwork(Graph.tree(4), 1, sharing="some"),
            ValueError,
            "sharing must be one of 'none', 'level', 'all', got 'some'",
        ),
        (lambda: ShiftedFilters(0, 1), ValueError, "num_inputs must be at least 1"),
        (lambda: ShiftedFilters(4, 0), ValueError, "filters must be at least 1"),
        (lambda: ShiftedFilters(4, 1, "x"), ValueError, "activation must be one of"),
        (lambda: Dense((4, 1)), ValueError, "widths must be"),
        (lambda: Dense((4, 3, 2)), ValueError, r"widths must be \(n, h_1, ..., 1\)"),
        (lambda: Dense((4, 0, 1)), ValueError, r"widths\[1\] must be at least 1"),
        (lambda: Dense((4, 2, 1), "x"), ValueError, "activation must be one of"),
        (lambda: NETS[0].init(seed=-1), ValueError, "seed must be at least 0"),
        (lambda: NETS[0].init(seed=2**64), ValueError, r"seed must lie in 0 .. 2\*\*64 - 1"),
        (lambda: NETS[0].init(seed=[]), ValueError, "seed must hold at least one"),
        (lambda: NETS[0].init(seed=0.5), TypeError, "seed must be an integer"),
        (lambda: NETS[0].init(seed=0, scale=0), ValueError, "scale must be finite and greater"),
        (lambda: NETS[0].init(seed=0, dtype=torch.int64), TypeError, "dtype must be a floating"),
    ],
)
def test_bad_descriptions_are_refused(make, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_bad_parameters_and_points_are_refused() -> None:
    net = LocalNetwork(Graph.tree(4), 2)
    one, two, x = net.init(seed=0), net.init(seed=[0, 1]), points(net)
    with pytest.raises(ValueError, match="params must have the keys"):
        net({"W1": one["W1"]}, x)
    with pytest.raises(ValueError, match=r"params\['b1'\] must have shape \(2, 2\), or \(M"):
        net(one | {"b1": one["b1"][:1]}, x)
    with pytest.raises(ValueError, match=r"params\['b1'\] must have shape"):
        net(two | {"b1": one["b1"]}, x)
    with pytest.raises(ValueError, match=r"params\['W1'\] must have the dtype and device of x"):
        net(one, x.float())
    with pytest.raises(TypeError, match="x must be a torch.Tensor"):
        net(one, x.numpy())
    for bad in (x[0], x[:, :3], x.expand(2, 9, 4)):
        with pytest.raises(ValueError, match=r"x must have shape \(N, 4\), got"):
            net(one, bad)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 4\) or \(2, N, ...\), got"):
        net(two, x.expand(3, 9, 4))
