"""Networks: homogeneity, factorization, derivatives, ensembles, initialization, validation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import networks
from companion.networks import MLP, ConvNet, Diagonal, Network

NETS = [
    MLP(widths=(6, 5, 4, 1)),
    MLP(widths=(6, 5, 3), activation="leaky_relu"),
    MLP(widths=(6, 4, 4, 2), activation="linear"),
    MLP(widths=(6, 1)),
    ConvNet(input_shape=(1, 6, 6), channels=(3, 4)),
    ConvNet(input_shape=(2, 5, 7), channels=(3,), num_classes=4, stride=1),
    ConvNet(input_shape=(1, 4, 4), channels=(2, 2), kernel_size=1, activation="leaky_relu"),
    Diagonal(d=6, num_layers=3),
    Diagonal(d=6, num_layers=1),
]
every_net = pytest.mark.parametrize("net", NETS, ids=repr)


def input_dim(net: Network) -> int:
    if isinstance(net, Diagonal):
        return net.d
    return net.widths[0] if isinstance(net, MLP) else math.prod(net.input_shape)


def points(net: Network, *lead: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, input_dim(net), generator=generator, dtype=torch.float64)


def slow_mlp(net: MLP, params: dict[str, torch.Tensor], point: torch.Tensor) -> list[float]:
    """f(W; x) in plain Python, entry by entry."""
    slope = {"relu": 0.0, "leaky_relu": networks.LEAKY_SLOPE, "linear": 1.0}[net.activation]
    h = point.tolist()
    for name in net.layer_names:
        W = params[name].tolist()
        h = [sum(w * v for w, v in zip(row, h, strict=True)) for row in W]
        if name != net.layer_names[-1]:
            h = [v if v > 0 else slope * v for v in h]
    return h


@pytest.mark.parametrize("net", NETS[:4], ids=repr)
def test_mlp_agrees_with_a_loop_in_plain_python(net: MLP) -> None:
    params, x = net.init(seed=1), points(net, 5)
    expected = torch.tensor([slow_mlp(net, params, point) for point in x], dtype=torch.float64)
    torch.testing.assert_close(net(params, x).reshape(5, -1), expected, rtol=1e-13, atol=1e-13)


def test_diagonal_network_is_the_product_of_its_layers() -> None:
    net, x = Diagonal(d=3, num_layers=4), points(Diagonal(d=3, num_layers=4), 5)
    params = net.init(seed=0)
    product = torch.stack([W[0] for W in params.values()]).prod(dim=0)
    torch.testing.assert_close(net(params, x), x @ product, rtol=1e-13, atol=0)
    first, *_, last = net.preactivations(params, x)
    torch.testing.assert_close(first, x * params["W1"])
    torch.testing.assert_close((last * params["W4"]).sum(dim=1), net(params, x))


def test_convnet_agrees_with_torch_modules() -> None:
    net = ConvNet(input_shape=(2, 5, 7), channels=(3, 4), num_classes=3)
    params, x = net.init(seed=2), points(net, 6)
    conv1 = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    conv2 = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    head = torch.nn.Linear(4 * 2 * 2, 3, bias=False, dtype=torch.float64)
    relu = torch.nn.ReLU()
    layers = torch.nn.Sequential(conv1, relu, conv2, relu, torch.nn.Flatten(), head)
    for layer, W in zip((conv1, conv2, head), params.values(), strict=True):
        layer.weight.data = W
    torch.testing.assert_close(net(params, x), layers(x.reshape(6, 2, 5, 7)).detach())
    assert torch.equal(net(params, x), net(params, x.reshape(6, 2, 5, 7)))


@every_net
@given(c=st.floats(1e-3, 1e3), seed=st.integers(0, 10**6))
def test_f_is_homogeneous_of_degree_K_in_all_weights(net: Network, c: float, seed: int) -> None:
    params, x = net.init(seed=seed), points(net, 4, seed=seed)
    f = net(params, x)
    scaled = net({name: c * W for name, W in params.items()}, x)
    size = c**net.K * f.abs().max()
    assert (scaled - c**net.K * f).abs().max() <= 1e-12 * size


@every_net
@given(c=st.floats(1e-3, 1e3), seed=st.integers(0, 10**6))
def test_f_is_homogeneous_of_degree_one_in_each_layer(net: Network, c: float, seed: int) -> None:
    params, x = net.init(seed=seed), points(net, 4, seed=seed)
    f = net(params, x)
    for name in net.layer_names:
        scaled = net({**params, name: c * params[name]}, x)
        assert (scaled - c * f).abs().max() <= 1e-12 * c * f.abs().max()


@every_net
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-2, 1e2))
def test_f_factors_into_layer_norms_and_directions(net: Network, seed: int, scale: float) -> None:
    params, x = net.init(seed=seed, scale=scale), points(net, 4, seed=seed)
    rho, V = networks.layer_norms(params), networks.directions(params)
    f = net(params, x)
    product = networks.product_norm(params)
    assert (product * net(V, x) - f).abs().max() <= 1e-12 * f.abs().max()
    torch.testing.assert_close(networks.layer_norms(V), torch.ones_like(rho), rtol=1e-14, atol=0)
    for name, W in networks.compose(rho, V).items():
        torch.testing.assert_close(W, params[name], rtol=1e-14, atol=0)


@every_net
def test_structural_lemma(net: Network) -> None:
    """sum_ij (W_k)_ij df/d(W_k)_ij = f for each layer."""
    params, x = net.init(seed=3), points(net, 4)
    for name in net.layer_names:
        jacobian = torch.func.jacrev(net)(params, x)[name]  # (N[, C], *shape of W_k)
        axes = jacobian.ndim - params[name].ndim
        inner = (jacobian * params[name]).flatten(axes).sum(-1)
        torch.testing.assert_close(inner, net(params, x), rtol=1e-12, atol=1e-13)


@every_net
def test_gradients_agree_with_finite_differences(net: Network) -> None:
    params, x = net.init(seed=4), points(net, 3)
    u = torch.linspace(0.5, 1.5, net(params, x).numel(), dtype=torch.float64)

    def total(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return (u * net(params, x).flatten()).sum()

    gradient = torch.func.grad(total)(params)
    step = 1e-6
    for name, W in params.items():
        flat = torch.zeros(W.numel(), dtype=torch.float64)
        for i in range(W.numel()):
            e = torch.zeros_like(flat)
            e[i] = step
            e = e.reshape(W.shape)
            up, down = total({**params, name: W + e}), total({**params, name: W - e})
            flat[i] = (up - down) / (2 * step)
        torch.testing.assert_close(gradient[name].flatten(), flat, rtol=1e-5, atol=1e-8)


@every_net
@pytest.mark.parametrize("ensemble", [False, True], ids=["one", "ensemble"])
def test_vjp_agrees_with_autograd(net: Network, ensemble: bool) -> None:
    params = net.init(seed=[0, 1, 2] if ensemble else 0)
    for x in [points(net, 4), *([points(net, 3, 4)] if ensemble else [])]:
        leaves = {name: W.clone().requires_grad_() for name, W in params.items()}
        f = net(leaves, x)
        u = torch.randn(f.shape, generator=torch.Generator().manual_seed(0), dtype=f.dtype)
        expected = torch.autograd.grad((u * f).sum(), list(leaves.values()))
        value, pullback = net.vjp(params, x)
        torch.testing.assert_close(value, f.detach(), rtol=1e-13, atol=1e-13)
        for _ in range(2):  # the pullback may be used again
            gradients = pullback(u)
            assert tuple(gradients) == net.layer_names
            for got, want in zip(gradients.values(), expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", networks.SLOPES)
@pytest.mark.parametrize(("side", "stride"), [(1, 1), (1, 2), (3, 2), (3, 3), (5, 2)])
def test_convolutions_by_hand_are_those_of_torch(side: int, stride: int, activation: str) -> None:
    net = ConvNet((2, 7, 6), (3, 4), 2, kernel_size=side, stride=stride, activation=activation)
    W = net.init(seed=[0, 1, 2])
    for lead in ((5,), (3, 5)):
        x = points(net, *lead).unflatten(-1, net.input_shape)
        assert net._by_hand(5, x)
        (f, pullback), (expected, theirs) = net.vjp(W, x), Network.vjp(net, W, x)
        torch.testing.assert_close(f, expected, rtol=1e-12, atol=1e-13)
        gradients = theirs(f)
        for name, gradient in pullback(f).items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-11, atol=1e-12)
            assert gradient.is_contiguous()


def test_networks_at_once_shrink_with_the_work_of_one() -> None:
    x = torch.zeros(1, dtype=torch.float32)
    loop = ConvNet(input_shape=(1, 16, 16), channels=(16, 16, 16), stride=1)
    assert not loop._by_hand(64, x) and loop.at_once(64, x) == 1
    small = ConvNet(input_shape=(1, 8, 8), channels=(8, 16), num_classes=10)
    assert small._by_hand(50, x) and small.at_once(50, x) == 36
    assert small.at_once(100, x) == small.at_once(50, x.double()) == 18
    assert not small._by_hand(50, x.to("meta")), "other devices take the grouped convolution"
    for net in NETS:
        assert net.at_once(1, x) >= net.at_once(10**9, x) == 1
        assert net.at_once(10**9, x.to("meta")) > 10**9


def test_relu_slope_at_a_kink_is_zero_in_both_gradients() -> None:
    net = MLP(widths=(1, 1, 1))
    params = {name: torch.ones(1, 1, dtype=torch.float64) for name in net.layer_names}
    x = torch.zeros(1, 1, dtype=torch.float64)
    params["W1"] = torch.zeros(1, 1, dtype=torch.float64)
    x += 1.0
    _, pullback = net.vjp(params, x)
    assert pullback(torch.ones(1, dtype=torch.float64))["W1"].item() == 0
    assert torch.func.grad(lambda p: net(p, x).sum())(params)["W1"].item() == 0


@every_net
def test_works_under_vmap_and_hessian(net: Network) -> None:
    params, x = net.init(seed=5), points(net, 4)
    each = torch.func.vmap(net, in_dims=(None, 0))(params, x)
    torch.testing.assert_close(each, net(params, x), rtol=1e-12, atol=1e-13)
    ensemble = net.init(seed=[5, 6])
    torch.testing.assert_close(
        torch.func.vmap(net, in_dims=(0, None))(ensemble, x),
        net(ensemble, x),
        rtol=1e-12,
        atol=1e-13,
    )
    hessian = torch.func.hessian(lambda p: net(p, x).square().sum())(params)
    first = net.layer_names[0]
    assert hessian[first][first].shape == 2 * params[first].shape
    assert torch.isfinite(hessian[first][first]).all()


@every_net
def test_ensemble_agrees_with_its_members(net: Network) -> None:
    params = net.init(seed=[7, 8, 9], scale=[0.5, 1.0, 2.0])
    shared, own = points(net, 4), points(net, 3, 4)
    for x in (shared, own):
        f, z = net(params, x), net.preactivations(params, x)
        for m in range(3):
            single, x_m = networks.member(params, m), x if x.ndim == 2 else x[m]
            torch.testing.assert_close(f[m], net(single, x_m), rtol=1e-12, atol=1e-13)
            for z_k, single_k in zip(z, net.preactivations(single, x_m), strict=True):
                torch.testing.assert_close(z_k[m], single_k, rtol=1e-12, atol=1e-13)
    rho = networks.layer_norms(params)
    assert rho.shape == (3, net.K)
    assert torch.equal(rho[1], networks.layer_norms(networks.member(params, 1)))
    assert networks.product_norm(params).shape == (3,)
    V = networks.directions(params)
    torch.testing.assert_close(networks.compose(rho, V)["W1"], params["W1"])


@every_net
def test_member_of_an_ensemble_is_bit_identical_to_its_own_init(net: Network) -> None:
    params = net.init(seed=[7, 8], scale=[0.5, 2.0], dtype=torch.float32)
    alone = [net.init(seed=s, scale=c, dtype=torch.float32) for s, c in ((7, 0.5), (8, 2.0))]
    for m in range(2):
        for name in net.layer_names:
            assert torch.equal(params[name][m], alone[m][name])
    again = networks.stack(alone)
    assert all(torch.equal(again[name], params[name]) for name in params)
    assert sum(W.numel() for W in alone[0].values()) == net.num_params


def test_init_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    MLP(widths=(3, 2, 1)).init(seed=5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("activation", "gain"), [("relu", 2.0), ("linear", 1.0), ("leaky_relu", 2 / 1.0001)]
)
def test_init_has_the_stated_standard_deviation(activation: str, gain: float) -> None:
    params = MLP(widths=(300, 400, 500), activation=activation).init(seed=0, scale=3.0)
    assert params["W1"].dtype == torch.float64
    expected = {"W1": 3 * math.sqrt(gain / 300), "W2": 3 * math.sqrt(1 / 400)}
    for name, std in expected.items():
        assert params[name].std().item() == pytest.approx(std, rel=0.01)
        assert params[name].mean().item() == pytest.approx(0, abs=0.01 * std * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device_follow_the_inputs(dtype: torch.dtype, device: str) -> None:
    for net in (MLP(widths=(4, 3, 1)), ConvNet(input_shape=(1, 2, 2), channels=(2,))):
        params = net.init(seed=[0, 1], dtype=dtype, device=device)
        x = torch.ones(3, 4, dtype=dtype, device=device)
        f, pullback = net.vjp(params, x)
        for tensor in (net(params, x), f, *pullback(f).values(), networks.layer_norms(params)):
            assert tensor.dtype == dtype
            assert tensor.device.type == device


def test_evaluation_is_pure() -> None:
    net = MLP(widths=(6, 5, 4, 1))
    params, x = net.init(seed=0), points(net, 4)
    before = {name: W.clone() for name, W in params.items()}, x.clone()
    f, pullback = net.vjp(params, x)
    pullback(f)
    net(params, x)
    assert torch.equal(x, before[1])
    assert all(torch.equal(params[name], before[0][name]) for name in params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(widths=(3,)), r"widths must hold at least \(d, h_1\)"),
        (lambda: MLP(widths=(3, 0, 1)), r"widths\[1\] must be at least 1, got 0"),
        (lambda: MLP(widths=(3, 2.5, 1)), r"widths\[1\] must be an integer, got 2.5"),
        (lambda: MLP(widths=3), "widths must be a sequence of integers, got 3"),
        (lambda: MLP(widths=(3, 1), activation="tanh"), "activation must be one of 'relu'"),
        (lambda: Diagonal(0, 2), "d must be at least 1"),
        (lambda: Diagonal(2, 0), "num_layers must be at least 1"),
        (lambda: ConvNet((1, 8), (3,)), r"input_shape must be \(C, H, W\)"),
        (lambda: ConvNet((1, 8, 8), (0,)), r"channels\[0\] must be at least 1"),
        (lambda: ConvNet((1, 8, 8), (3,), kernel_size=4), "kernel_size must be odd, got 4"),
        (lambda: ConvNet((1, 8, 8), (3,), stride=0), "stride must be at least 1"),
        (lambda: ConvNet((1, 8, 8), (3,), activation="elu"), "activation must be one of"),
        (lambda: MLP((3, 1)).init(seed=-1), "seed must be at least 0, got -1"),
        (lambda: MLP((3, 1)).init(seed=2**64), r"seed must lie in 0 .. 2\*\*64 - 1, got 184467"),
        (lambda: MLP((3, 1)).init(seed=[0, 2**64]), r"seed must lie in 0 .. 2\*\*64 - 1"),
        (lambda: networks.product_norm({}), "params must hold at least one layer"),
        (lambda: MLP((3, 1)).init(seed=0.5), "seed must be an integer, got 0.5"),
        (lambda: MLP((3, 1)).init(seed=[]), "seed must hold at least one integer"),
        (lambda: MLP((3, 1)).init(seed=0, scale=0.0), "scale must be finite and greater than 0"),
        (lambda: MLP((3, 1)).init(seed=0, scale=math.nan), "scale must be finite"),
        (lambda: MLP((3, 1)).init(seed=[0, 1], scale=[1.0]), r"one number per seed \(2\), got 1"),
        (lambda: MLP((3, 1)).init(seed=0, dtype=torch.int64), "dtype must be a floating-point"),
        (lambda: networks.stack([]), "networks must hold at least one set"),
        (lambda: networks.layer_norms({}), "params must hold at least one layer"),
        (lambda: networks.member(MLP((3, 1)).init(seed=0), 0), "params must be an ensemble"),
        (lambda: networks.member(MLP((3, 1)).init(seed=[0, 1]), 2), r"m must lie in 0 .. 1, got 2"),
    ],
)
def test_invalid_arguments_are_named(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_invalid_inputs_are_named() -> None:
    net = MLP(widths=(3, 2, 1))
    params, x = net.init(seed=0), torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3\).*got \(4, 2\)"):
        net(params, x[:, :2])
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3\) or \(2, N, 3\)"):
        net(net.init(seed=[0, 1]), torch.ones(3, 4, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"params\['W1'\] must have the dtype of x"):
        net(params, x.float())
    with pytest.raises(TypeError, match="x must be a floating-point tensor, got dtype torch.int64"):
        net(params, x.long())
    with pytest.raises(TypeError, match="x must be a torch.Tensor, got list"):
        net(params, x.tolist())
    with pytest.raises(ValueError, match=r"params must have the keys \('W1', 'W2'\)"):
        net({"W1": params["W1"]}, x)
    with pytest.raises(ValueError, match=r"params\['W1'\] must have shape \(2, 3\)"):
        net({**params, "W1": params["W1"].mT}, x)
    conv = ConvNet(input_shape=(1, 2, 2), channels=(2,))
    with pytest.raises(ValueError, match=r"x must have shape \(N, \*\(1, 2, 2\)\)"):
        conv(conv.init(seed=0), x)


def test_directions_of_a_zero_layer_are_refused() -> None:
    params = MLP(widths=(3, 2, 1)).init(seed=[0, 1])
    params["W2"][1] = 0
    with pytest.raises(ValueError, match=r"params\['W2'\] must have a positive finite norm"):
        networks.directions(params)
    with pytest.raises(ValueError, match=r"rho must have shape \(2, 2\), got \(2,\)"):
        networks.compose(torch.ones(2, dtype=torch.float64), params)
    with pytest.raises(ValueError, match=r"networks\[1\] must have the shapes"):
        networks.stack([MLP((3, 1)).init(seed=0), MLP((2, 1)).init(seed=0)])


def test_the_largest_seed_is_taken() -> None:
    assert torch.isfinite(MLP((3, 1)).init(seed=2**64 - 1)["W1"]).all()


@pytest.mark.parametrize("activation", networks.SLOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_the_derivatives_of_the_activations(activation: str, dtype: torch.dtype) -> None:
    z = torch.tensor([-2.0, 3.0], dtype=dtype)
    net = MLP((1, 1, 1), activation=activation)
    one = {"W1": torch.ones(1, 1, dtype=dtype), "W2": torch.ones(1, 1, dtype=dtype)}
    _, pullback = net.vjp(one, z[:, None])
    gradients = torch.stack([pullback(u)["W1"][0, 0] for u in torch.eye(2, dtype=dtype)]) / z
    assert torch.equal(networks.slopes_where(activation, z > 0, z), gradients)
