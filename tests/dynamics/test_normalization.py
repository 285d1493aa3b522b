"""Weight and batch normalization against torch, autograd, SciPy and the exact margin solver."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.parametrizations import weight_norm

from companion import data, networks
from companion.dynamics import flow, margin, systems
from companion.dynamics import normalization as nz
from companion.dynamics.stiff import stiff_flow
from companion.networks import MLP, Params

POINTS = data.separable(12, 4, margin=0.5, seed=0)


def centred(num_points: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_points, dim, generator=generator, dtype=torch.float64)
    y = torch.where(torch.arange(num_points) % 2 == 0, 1.0, -1.0).double()
    return x - x.mean(dim=0), y


def log_inverse_loss(net: networks.Network, W: Params, x: Tensor, y: Tensor) -> Tensor:
    return -torch.logsumexp(-y * net(W, x), dim=0)


def autograd(function, state: Params) -> Params:  # noqa: ANN001
    return torch.func.grad(function)(state)


def agree(found: Params, expected: Params, rel: float) -> None:
    for name, value in expected.items():
        size = torch.linalg.vector_norm(value) + 1e-300
        assert float(torch.linalg.vector_norm(found[name] - value) / size) < rel, name


shapes = st.tuples(
    st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(2, 12), st.integers(0, 99)
)


# --- one length per layer: dynamics B ------------------------------------------------------------


@given(shapes)
@settings(deadline=None, max_examples=40)
def test_one_length_per_layer_is_dynamics_b(drawn: tuple[list[int], int, int]) -> None:
    hidden, num_points, seed = drawn
    x, y = centred(num_points, 3, seed)
    net = MLP((3, *hidden, 1), activation="leaky_relu")
    W = net.init(seed=seed)
    rho, V = networks.layer_norms(W), networks.directions(W)
    wn = systems.weight_normalization(net, rho, V, x, y)
    b = systems.multipliers(net, rho, V, x, y)
    scale = torch.linalg.vector_norm(b.rho)
    assert float((wn.rho - b.rho).abs().max() / scale) < 1e-12
    largest = max(float(torch.linalg.vector_norm(V_k)) for V_k in b.V.values())
    for name in V:
        assert float(torch.linalg.vector_norm(wn.V[name] - b.V[name])) < 1e-12 * (1 + largest)


@pytest.mark.parametrize("dim", [None, 0])
def test_velocities_are_those_of_torchs_weight_norm(dim: int | None) -> None:
    """torch's parametrization, its gradients with autograd, against the systems of the book."""
    x, y = centred(9, 3, 1)
    net = MLP((3, 5, 1))
    W = net.init(seed=1)
    layers = [torch.nn.Linear(3, 5, bias=False), torch.nn.Linear(5, 1, bias=False)]
    for layer, W_k in zip(layers, W.values(), strict=True):
        layer.double().weight.data = W_k.clone()
        weight_norm(layer, dim=dim)  # sets v = W
    f = layers[1](torch.relu(layers[0](x))).squeeze(-1)
    (-torch.logsumexp(-y * f, dim=0)).backward()
    lengths = [layer.parametrizations.weight.original0.grad for layer in layers]
    steps = [layer.parametrizations.weight.original1.grad for layer in layers]
    if dim is None:
        found = systems.weight_normalization(net, networks.layer_norms(W), W, x, y)
        g, v = found.rho, found.V
    else:
        system = nz.RowNormalization()
        state = {**system.start(W), **W}
        velocity = system.velocity(state, systems.unconstrained(net, W, x, y))
        g, v = velocity.pop(systems.NORMS), velocity
    torch.testing.assert_close(g, torch.cat([s.reshape(-1) for s in lengths]), rtol=1e-12, atol=0)
    for v_k, step in zip(v.values(), steps, strict=True):
        torch.testing.assert_close(v_k, step, rtol=1e-11, atol=1e-14)


# --- rows and batches ----------------------------------------------------------------------------


@given(shapes, st.booleans())
@settings(deadline=None, max_examples=40)
def test_velocity_is_the_gradient_in_the_coordinates(
    drawn: tuple[list[int], int, int], batch: bool
) -> None:
    hidden, num_points, seed = drawn
    x, y = centred(num_points + 4, 3, seed)
    net = MLP((3, *hidden, 1), activation="leaky_relu")
    W = net.init(seed=seed)
    system = nz.BatchNormalization.of(x) if batch else nz.RowNormalization(v_norm=0.7)
    state = system.start(W)
    agree(system.weights(state), W, 1e-13)
    expected = autograd(lambda s: log_inverse_loss(net, system.weights(s), x, y), state)
    velocity = system.velocity(state, systems.unconstrained(net, W, x, y))
    top = max(float(v.abs().max()) for v in expected.values())
    for name, value in expected.items():
        assert float((velocity[name] - value).abs().max()) < 1e-11 * (1 + top)
    assert system.rate(state, velocity) == pytest.approx(
        sum(float((v * expected[k]).sum()) for k, v in velocity.items()), rel=1e-9, abs=1e-14
    )
    normalized = list(W)[:1] if batch else list(W)
    for name in normalized:  # orthogonal to each row of v
        along = (velocity[name] * state[name]).sum(dim=1).abs()
        assert float(along.max()) < 1e-12 * (1 + top)


@given(st.integers(0, 50), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_batch_normalization_is_weight_normalization_in_the_norm_of_the_data(
    seed: int, width: int
) -> None:
    """The network with statistics of the batch equals the one with normalized weights."""
    x, y = centred(9, 3, seed)
    net = nz.BatchNormalizedMLP((3, width, 1))
    params = net.init(seed=seed)
    params["g1"] = torch.linspace(0.5, 2.0, width, dtype=torch.float64)
    system = nz.BatchNormalization.of(x)
    state = {systems.NORMS: params["g1"], "W1": params["W1"], "W2": params["W2"]}
    W = system.weights(state)
    torch.testing.assert_close(net(params, x), net.plain(W, x), rtol=1e-11, atol=1e-12)
    folded, bias = nz.fold(net, params, x)
    agree(folded, W, 1e-12)
    assert float(bias["b1"].abs().max()) < 1e-12
    gradient = autograd(lambda p: log_inverse_loss(net, p, x, y), params)
    velocity = system.velocity(state, systems.unconstrained(net.plain, W, x, y))
    for name, other in (("W1", "W1"), ("g1", systems.NORMS), ("W2", "W2")):
        torch.testing.assert_close(velocity[other], gradient[name], rtol=1e-9, atol=1e-11)
    assert system.norm(W["W1"]) == pytest.approx(float(params["g1"].norm()), rel=1e-12)


def test_on_whitened_data_both_systems_agree() -> None:
    x, y = centred(30, 4, 3)
    u, _, _ = torch.linalg.svd(x, full_matrices=False)
    x = u * len(x) ** 0.5  # covariance 1
    net = MLP((4, 5, 1))
    W = net.init(seed=0)
    W["W1"] = W["W1"] / torch.linalg.vector_norm(W["W1"], dim=1, keepdim=True)
    gradient = systems.unconstrained(net, W, x, y)
    rows, batch = nz.RowNormalization(), nz.BatchNormalization.of(x)
    a, b = (s.velocity(s.start(W), gradient) for s in (rows, batch))
    torch.testing.assert_close(a["W1"], b["W1"], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(a[systems.NORMS][:5], b[systems.NORMS], rtol=1e-11, atol=1e-13)


# --- what the flows conserve and where they go ---------------------------------------------------


def test_the_flow_per_row_conserves_rows_and_balance_without_projection() -> None:
    x, y = POINTS.x, POINTS.y
    net = MLP((4, 3, 1), activation="linear")
    system = nz.RowNormalization()
    stepper_args = {"relative_step": 0.01, "max_increment": 0.1}
    path = flow.gradient_flow(
        net, net.init(seed=0), x, y, until=flow.LogLoss(-1), system=system, project=False,
        **stepper_args,
    )  # fmt: skip
    squares = path.rho**2
    drift = (squares[:, 0] - squares[:, 1]) - (squares[0, 0] - squares[0, 1])
    assert float((drift.abs() / squares.mean(dim=1)).max()) < 1e-4
    projected = flow.gradient_flow(
        net, net.init(seed=0), x, y, until=flow.LogLoss(-1), system=system, **stepper_args
    )
    assert projected.norm_drift < 1e-12
    assert float(projected.norm_correction.max()) < 1e-4
    torch.testing.assert_close(projected.hard_margin[-1], path.hard_margin[-1], rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["rows", "batch"])
def test_restore_puts_back_what_is_conserved(name: str) -> None:
    x, _ = centred(12, 4, 0)
    net = MLP((4, 3, 2, 1))
    system = nz.RowNormalization() if name == "rows" else nz.BatchNormalization.of(x)
    first = system.start(net.init(seed=0))
    moved = {k: part + 0.01 * torch.sin(17 * part) for k, part in first.items()}
    restored, largest = system.restore(moved, first)
    assert list(restored) == list(first) and 0 < largest < 0.1
    v = torch.linalg.vector_norm(restored["W1"], dim=1)
    torch.testing.assert_close(v, torch.linalg.vector_norm(first["W1"], dim=1), rtol=1e-14, atol=0)

    def parts(state: Params) -> list[Tensor]:
        _, g = system._split(state)
        return [(g[k] if k in g else state[k]).square().sum() for k in ("W1", "W2", "W3")]

    growth = [a - b for a, b in zip(parts(restored), parts(first), strict=True)]
    torch.testing.assert_close(growth[0], growth[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(growth[0], growth[2], rtol=1e-9, atol=1e-12)


def test_a_linear_unit_goes_to_the_margin_of_its_own_norm() -> None:
    """One linear layer: the Euclidean margin for rows, that of whitened data for batches."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(16, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1, 0.3])
    x = torch.cat([x, -x])  # centred; the labels flip with the points
    y = torch.sign(x @ torch.tensor([0.3, 1.0, 1.0]).double())
    x = x + 0.5 * y[:, None] * torch.tensor([0.1, 1.0, 1.0]).double()
    net = MLP((3, 1))
    start = net.init(seed=0)
    batch = nz.BatchNormalization.of(x - x.mean(dim=0))
    values, vectors = torch.linalg.eigh(batch.covariance)
    root = vectors / values.sqrt()  # C = (root root')^-1
    white = margin.max_margin(x @ root, y)
    plain = margin.max_margin(x, y)
    ends = {}
    for name, system in (("rows", nz.RowNormalization()), ("batch", batch)):
        path = stiff_flow(net, start, x, y, until=flow.LogLoss(-200), system=system, rtol=1e-7)
        ends[name] = path.params["W1"][0]
    margins = {name: float((y * (x @ w)).min()) for name, w in ends.items()}
    w = ends["rows"]
    assert margins["rows"] / float(w.norm()) == pytest.approx(plain.margin, rel=1e-2)
    w = ends["batch"]
    assert margins["batch"] / batch.norm(w[None]) == pytest.approx(white.margin, rel=1e-2)
    assert margins["batch"] / float(w.norm()) < 0.95 * plain.margin


# --- the network ---------------------------------------------------------------------------------


@given(shapes, st.floats(0.1, 10.0))
@settings(deadline=None, max_examples=25)
def test_batch_normalized_network_ignores_the_scale_of_a_layer(
    drawn: tuple[list[int], int, int], factor: float
) -> None:
    hidden, num_points, seed = drawn
    x, y = centred(num_points + 4, 3, seed)
    net = nz.BatchNormalizedMLP((3, *hidden, 1), activation="leaky_relu")
    params = net.init(seed=seed)
    scaled = {**params, "W1": factor * params["W1"]}
    torch.testing.assert_close(net(scaled, x), net(params, x), rtol=1e-8, atol=1e-10)
    gradient = autograd(lambda p: log_inverse_loss(net, p, x, y), params)
    for k in range(1, len(hidden) + 1):
        G, W = gradient[f"W{k}"], params[f"W{k}"]
        assert abs(float((G * W).sum())) < 1e-10 * (1 + float(G.norm() * W.norm()))
    again = autograd(lambda p: log_inverse_loss(net, p, x, y), scaled)
    torch.testing.assert_close(again["W1"], gradient["W1"] / factor, rtol=1e-7, atol=1e-10)


def test_batch_normalized_network_against_torch() -> None:
    x, _ = centred(10, 3, 0)
    net = nz.BatchNormalizedMLP((3, 4, 5, 1))
    params = net.init(seed=2)
    params["g1"] = torch.linspace(0.5, 1.5, 4).double()
    h = x
    for k in (1, 2):
        z = h @ params[f"W{k}"].T
        h = torch.relu(
            torch.nn.functional.batch_norm(
                z, None, None, params[f"g{k}"], training=True, eps=1e-300
            )
        )
    torch.testing.assert_close(net(params, x), (h @ params["W3"].T)[:, 0], rtol=1e-11, atol=1e-12)
    weights, biases = nz.fold(net, params, x)
    h = x
    for k in (1, 2):
        h = torch.relu(h @ weights[f"W{k}"].T + biases[f"b{k}"])
    torch.testing.assert_close((h @ weights["W3"].T)[:, 0], net(params, x), rtol=1e-11, atol=1e-12)
    assert float(biases["b2"].abs().max()) > 0.1  # the second layer gets a bias


def test_batch_normalized_network_draws_the_weights_of_the_plain_one_and_runs_ensembles() -> None:
    x, _ = centred(10, 3, 0)
    net = nz.BatchNormalizedMLP((3, 4, 1))
    one, two = net.init(seed=1), net.init(seed=[1, 2])
    torch.testing.assert_close(one["W1"], net.plain.init(seed=1)["W1"], rtol=0, atol=0)
    assert bool((one["g1"] == 1).all())
    torch.testing.assert_close(net(two, x)[0], net(one, x), rtol=1e-13, atol=1e-14)


# --- discrete steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", ["layer", "rows", "batch"])
def test_each_step_adds_its_own_square_to_v(name: str, relative: bool) -> None:
    x, y = POINTS.x - POINTS.x.mean(dim=0), POINTS.y
    system = {
        "layer": "weight_normalization",
        "rows": nz.RowNormalization(),
        "batch": nz.BatchNormalization.of(x),
    }[name]
    net = MLP((4, 6, 1))
    run = nz.descend(
        net, net.init(seed=0), x, y, system=system, lr=0.05, steps=50, relative=relative
    )
    layers = 1 if name == "batch" else 2  # the last layer is not normalized by a batch
    torch.testing.assert_close(
        run.v_squared[:, :layers], run.predicted[:, :layers], rtol=1e-12, atol=0
    )
    assert bool((run.v_squared[:, :layers].diff(dim=0) > 0).all())
    assert float(run.log_inverse_loss[-1]) > float(run.log_inverse_loss[0])


def test_plain_descent_agrees_with_the_one_of_the_unconstrained_system() -> None:
    from companion.dynamics import descent

    net = MLP((4, 3, 1))
    start = net.init(seed=0)
    run = nz.descend(net, start, POINTS.x, POINTS.y, system="unconstrained", lr=0.1, steps=20)
    path = descent.gradient_descent(net, start, POINTS.x, POINTS.y, lr=0.1, steps=20)
    torch.testing.assert_close(run.log_inverse_loss, path.log_inverse_loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(run.hard_margin, path.hard_margin, rtol=1e-12, atol=1e-14)


# --- refusals ------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    x, y = POINTS.x, POINTS.y
    with pytest.raises(ValueError, match="x must be centred, got a mean"):
        nz.BatchNormalization.of(x + 1)
    with pytest.raises(ValueError, match="covariance must be a symmetric matrix"):
        nz.BatchNormalization(torch.ones(2, 3))
    with pytest.raises(ValueError, match="v_norm must be finite and greater than 0"):
        nz.RowNormalization(v_norm=0.0)
    net = MLP((4, 3, 1))
    dead = net.init(seed=0)
    dead["W1"][1] = 0
    with pytest.raises(ValueError, match=r"params\['W1'\] must have no row of size 0"):
        nz.RowNormalization().start(dead)
    conv = networks.ConvNet(input_shape=(1, 4, 4), channels=(2,))
    with pytest.raises(ValueError, match="must be a matrix with one row per unit"):
        nz.RowNormalization().start(conv.init(seed=0))
    normalized = nz.BatchNormalizedMLP((4, 3, 1))
    with pytest.raises(ValueError, match="x must hold a batch of points"):
        normalized(normalized.init(seed=0), x[0])
    with pytest.raises(ValueError, match="steps must be at least 1"):
        nz.descend(net, net.init(seed=0), x, y, system="unconstrained", lr=0.1, steps=0)
    with pytest.raises(FloatingPointError, match="diverged at step"):
        nz.descend(net, net.init(seed=0), x, y, system="unconstrained", lr=1e200, steps=9)
