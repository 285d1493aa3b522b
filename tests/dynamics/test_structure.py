"""The identities on random networks, in symbols, and how the counterexamples fail them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.dynamics import structure
from companion.networks import MLP, ConvNet, Params, directions, layer_norms, product_norm

ROUNDING = 1e-12  # measured: below 3e-15 on some thousand networks of these sizes


def points(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def scale(f: torch.Tensor) -> float:
    """Size of the outputs; the identities are relative to it, since single ones may vanish."""
    return float(f.abs().max())


mlps = st.builds(
    lambda d, hidden, activation: MLP(widths=(d, *hidden, 1), activation=activation),
    st.integers(1, 6),
    st.lists(st.integers(1, 12), max_size=4),
    st.sampled_from(["relu", "leaky_relu", "linear"]),
)
convnets = st.builds(
    lambda channels, stride: ConvNet(input_shape=(1, 6, 6), channels=channels, stride=stride),
    st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
    st.integers(1, 2),
)
seeds = st.integers(0, 10_000)


def inputs(net: MLP | ConvNet, n: int, seed: int) -> torch.Tensor:
    d = net.widths[0] if isinstance(net, MLP) else math.prod(net.input_shape)
    return points(n, d, seed + 1)


@given(net=mlps | convnets, n=st.integers(1, 9), seed=seeds)
@settings(deadline=None, max_examples=40)
def test_identities_hold_to_rounding(net: MLP | ConvNet, n: int, seed: int) -> None:
    W, x = net.init(seed=seed, scale=0.3 + seed % 5), inputs(net, n, seed)
    f, V, rho_k = net(W, x), directions(W), layer_norms(W)
    size = scale(f)
    if size == 0:  # every unit is dead on these points
        assert bool((structure.euler_products(net, W, x) == 0).all())
        return
    assert scale(structure.euler_products(net, W, x) - f) < ROUNDING * size
    assert structure.factorization_error(net, W, x) < ROUNDING
    slopes = structure.rho_derivatives(net, W, x)
    expected = (product_norm(W) / rho_k)[:, None] * net(V, x)
    torch.testing.assert_close(
        slopes, expected, rtol=0, atol=ROUNDING * float(expected.abs().max())
    )
    for name in net.layer_names:
        assert structure.homogeneity_defect(net, W, x, layer=name, c=3.7) < ROUNDING
    assert structure.homogeneity_defect(net, W, x, layer=None, c=0.2, degree=net.K) < ROUNDING


@given(net=mlps | convnets, seed=seeds)
@settings(deadline=None, max_examples=25)
def test_relation_3_holds_to_rounding(net: MLP | ConvNet, seed: int) -> None:
    W, x = net.init(seed=seed, scale=0.5), inputs(net, 4, seed)
    at_w, at_v = (net.vjp(params, x)[1](torch.ones(4).double()) for params in (W, directions(W)))
    rho_k, rho = layer_norms(W), product_norm(W)
    for k, name in enumerate(net.layer_names):
        expected = rho / rho_k[k] * at_v[name]
        atol = ROUNDING * float(expected.abs().max())
        torch.testing.assert_close(at_w[name], expected, rtol=0, atol=atol)


@given(net=mlps, seed=seeds, norm=st.sampled_from(list(structure.NORMS)))
@settings(deadline=None, max_examples=30)
def test_factorization_holds_for_every_norm(net: MLP, seed: int, norm: str) -> None:
    W, x = net.init(seed=seed), inputs(net, 5, seed)
    if scale(net(W, x)) > 0:
        assert structure.factorization_error(net, W, x, norm=norm) < ROUNDING


def test_norms_are_the_ones_named() -> None:
    W = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).double()
    found = {name: float(norm(W)) for name, norm in structure.NORMS.items()}
    assert found == pytest.approx(
        {"Frobenius": 5, "spectral": 5, "nuclear": 5, "largest row sum": 7}
        | {"sum of entries": 7, "largest entry": 4}
    )


@given(seed=seeds, size=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_projector(seed: int, size: int) -> None:
    w = 3 * points(size, 1, seed)[:, 0]
    S = structure.projector(w)
    assert scale(S @ w) < ROUNDING * float(w.norm())
    assert scale(S @ S - S) < ROUNDING
    jacobian = torch.func.jacrev(lambda u: u / u.norm())(w)
    torch.testing.assert_close(jacobian, S / w.norm(), rtol=0, atol=ROUNDING / float(w.norm()))


# --- in symbols ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "pattern"),
    [((2, 3, 1), [[1, 0, 1]]), ((2, 2, 2, 1), [[1, 1], [0, 1]]), ((3, 1), [])],
)
def test_identities_in_symbols(widths: tuple[int, ...], pattern: list[list[int]]) -> None:
    net = structure.symbolic_network(widths, pattern)
    rho = sympy.symbols(f"rho_1:{len(net.layers) + 1}", positive=True)
    scaled = net.evaluate([r * W for r, W in zip(rho, net.layers, strict=True)])
    assert sympy.expand(scaled - sympy.prod(rho) * net.f) == 0
    for r, W in zip(rho, net.layers, strict=True):
        assert sympy.expand(sum(w * net.f.diff(w) for w in W) - net.f) == 0
        assert sympy.expand(scaled.diff(r) - sympy.prod(rho) / r * net.f) == 0


def test_symbolic_network_is_the_network() -> None:
    net = MLP(widths=(2, 3, 2, 1))
    W, x = net.init(seed=3), points(1, 2, 0)
    pattern = [(z[0] > 0).int().tolist() for z in net.preactivations(W, x)]
    symbols = structure.symbolic_network(net.widths, pattern)
    value = symbols.evaluate([sympy.Matrix(W_k.numpy()) for W_k in W.values()])
    value = value.subs(dict(zip(symbols.x, x[0].tolist(), strict=True)))
    assert float(value) == pytest.approx(float(net(W, x)), rel=1e-13)


def test_symbolic_network_refuses_a_wrong_pattern() -> None:
    with pytest.raises(ValueError, match="pattern must have one entry per hidden unit"):
        structure.symbolic_network((2, 3, 1), [[1, 0]])


# --- what breaks them ----------------------------------------------------------------------------

SQUARE = MLP(widths=(3, 8, 8, 1))
W, X = SQUARE.init(seed=0), points(20, 3, 1)
BIASES = [torch.full((8,), 0.7).double(), torch.full((8,), -0.4).double()]


def numeric_degree(f: structure.Function, params: Params, name: str) -> torch.Tensor:
    """df(c W_k)/dc at c = 1 by central differences, per point."""
    up, down = (f({**params, name: (1 + s * 1e-6) * params[name]}, X) for s in (1, -1))
    return (up - down) / 2e-6


@pytest.mark.parametrize(
    "f",
    [
        SQUARE,
        structure.squared_relu,
        structure.batch_normalized,
        structure.residual,
        partial(structure.hidden_biases, biases=BIASES),
        partial(structure.softplus, beta=3.0),
    ],
)
def test_euler_products_agree_with_finite_differences(f: structure.Function) -> None:
    products = structure.euler_products(f, W, X)
    for k, name in enumerate(W):
        reference = numeric_degree(f, W, name)
        torch.testing.assert_close(products[k], reference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("f", "degree"),
    [
        (SQUARE, (1, 1, 1)),
        (structure.squared_relu, (4, 2, 1)),
        (structure.batch_normalized, (0, 0, 1)),
    ],
)
def test_degrees(f: structure.Function, degree: tuple[int, ...]) -> None:
    found = structure.degrees(f, W, X)
    assert found.degree.tolist() == pytest.approx(degree, abs=1e-10)
    assert float(found.misfit.max()) < 1e-10
    assert found.total == pytest.approx(sum(degree), abs=1e-10) and found.total_misfit < 1e-10
    for name, k in zip(W, degree, strict=True):
        assert structure.homogeneity_defect(f, W, X, layer=name, c=2.5, degree=k) < 1e-12


def test_residual_blocks_are_not_homogeneous_and_the_ends_are() -> None:
    found = structure.degrees(structure.residual, W, X)
    assert found.degree[[0, 2]].tolist() == pytest.approx([1, 1], abs=1e-12)
    assert float(found.misfit[[0, 2]].max()) < 1e-12
    assert float(found.misfit[1]) > 0.05 and found.total_misfit > 0.05


def test_hidden_biases_spoil_the_layers_below_them() -> None:
    f = partial(structure.hidden_biases, biases=BIASES)
    found = structure.degrees(f, W, X)
    assert float(found.misfit[0]) > 0.05 and float(found.misfit[1]) > 0.05
    assert float(found.degree[2]) == pytest.approx(1, abs=1e-12)
    assert float(found.misfit[2]) < 1e-12
    none = partial(structure.hidden_biases, biases=[torch.zeros(8).double()] * 2)
    torch.testing.assert_close(none(W, X), SQUARE(W, X), rtol=0, atol=0)


@given(c=st.floats(0.3, 3.0))
@settings(deadline=None, max_examples=10)
def test_biases_that_scale_along_restore_homogeneity(c: float) -> None:
    """f is quasi-homogeneous: b_k must be scaled by c^k when every layer is scaled by c."""
    f = partial(structure.hidden_biases, biases=[c**k * b for k, b in enumerate(BIASES, start=1)])
    scaled = f({name: c * W_k for name, W_k in W.items()}, X)
    expected = c**3 * structure.hidden_biases(W, X, BIASES)
    torch.testing.assert_close(scaled, expected, rtol=1e-12, atol=1e-12)


def test_batch_normalization_agrees_with_torch() -> None:
    z = X @ W["W1"].mT
    expected = torch.nn.functional.batch_norm(z, None, None, training=True, eps=1e-5).relu()
    one = {"W1": W["W1"], "W2": torch.eye(8).double()[:1]}
    found = structure.batch_normalized(one, X, eps=1e-5)
    torch.testing.assert_close(found, expected[:, 0], rtol=1e-12, atol=1e-12)


@given(beta=st.floats(0.5, 50.0), c=st.floats(1.1, 10.0))
@settings(deadline=None, max_examples=25)
def test_softplus_misses_homogeneity_by_the_known_amount(beta: float, c: float) -> None:
    """sup_z |sigma(c z) - c sigma(z)| = (c - 1) log(2) / beta, at z = 0; and the scaling law."""
    z = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    one = {"W1": torch.ones(1, 1).double(), "W2": torch.ones(1, 1).double()}
    gap = structure.softplus(one, c * z, beta) - c * structure.softplus(one, z, beta)
    assert float(gap.abs().max()) == pytest.approx((c - 1) * math.log(2) / beta, rel=1e-12)
    law = c * structure.softplus(one, z, c * beta)
    torch.testing.assert_close(structure.softplus(one, c * z, beta), law, rtol=1e-12, atol=1e-14)


# --- kinks ---------------------------------------------------------------------------------------


@given(seed=seeds, theta=st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=25)
def test_structural_lemma_holds_for_every_slope_at_a_kink(seed: int, theta: float) -> None:
    net = MLP(widths=(3, 5, 4, 1))
    params, x = net.init(seed=seed), points(6, 3, seed)
    row = params["W1"][0]  # turn unit 0 such that points 0 and 1 sit on its kink
    across, _ = torch.linalg.qr(x[:2].T)
    params["W1"][0] = row - across @ (across.T @ row)
    f = structure.at_kinks(theta, tol=1e-12)
    products = structure.euler_products(f, params, x)
    assert scale(f(params, x) - net(params, x)) < 1e-11
    assert scale(products - net(params, x)) < 1e-11


def test_slopes_at_a_kink_fill_the_segment_between_the_sides() -> None:
    net = MLP(widths=(2, 1, 1))
    params = {"W1": torch.tensor([[1.0, 1.0]]).double(), "W2": torch.tensor([[2.0]]).double()}
    x = torch.tensor([[1.0, -1.0]]).double()

    def gradient(f: structure.Function, first: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda W1: f({**params, "W1": W1}, x).sum())(first)

    on, off = (gradient(net, params["W1"] + s * 1e-9 * x) for s in (1, -1))
    for theta in (0.0, 0.25, 1.0):
        found = gradient(structure.at_kinks(theta, tol=1e-12), params["W1"])
        torch.testing.assert_close(found, theta * on + (1 - theta) * off, rtol=1e-12, atol=0)


# --- bad input -----------------------------------------------------------------------------------


def test_errors_name_the_argument() -> None:
    zero = {**W, "W2": torch.zeros_like(W["W2"])}
    with pytest.raises(ValueError, match=r"params\['W2'\] must have a positive norm"):
        structure.factorization_error(SQUARE, zero, X)
    with pytest.raises(ValueError, match=r"params\['W2'\] must not be zero"):
        structure.rho_derivatives(SQUARE, zero, X)
    with pytest.raises(ValueError, match="norm must be one of 'Frobenius'"):
        structure.factorization_error(SQUARE, W, X, norm="taxi")
    with pytest.raises(ValueError, match="layer must be one of 'W1'"):
        structure.homogeneity_defect(SQUARE, W, X, layer="W9", c=2.0)
    with pytest.raises(ValueError, match="c must be finite and greater than 0"):
        structure.homogeneity_defect(SQUARE, W, X, layer="W1", c=-1.0)
    with pytest.raises(ValueError, match="f must not vanish"):
        structure.degrees(SQUARE, zero, X)
    with pytest.raises(ValueError, match="f must not vanish"):
        structure.homogeneity_defect(SQUARE, zero, X, layer="W1", c=2.0)
    with pytest.raises(ValueError, match="w must not be zero"):
        structure.projector(torch.zeros(3))
