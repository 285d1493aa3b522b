"""Counts against rational arithmetic, walks against known curves, proofs against mpmath."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from companion import least_squares
from companion.landscape import hessian, minima
from companion.landscape.minima import Inertia, SmoothMLP
from companion.networks import MLP, Params

F64 = torch.float64


def rational(generator: torch.Generator, *shape: int) -> Tensor:
    """Odd multiples of 1/8 between -2 and 2: few digits, and no zeros."""
    return (2 * torch.randint(-8, 8, shape, generator=generator, dtype=F64) + 1) / 8


def problem(net: MLP | SmoothMLP, num_samples: int, seed: int) -> tuple[Params, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(net.widths[1:], net.widths[:-1], strict=True)
    params = {f"W{k}": rational(generator, *pair) for k, pair in enumerate(pairs, start=1)}
    return params, rational(generator, num_samples, net.widths[0])


def hessian_of(net: object, W: Params, x: Tensor, y: Tensor) -> Tensor:
    return hessian.hessian(net, W, x, y, loss="square", reduction="sum").matrix


def inertia_of(matrix: Tensor) -> Inertia:
    at = hessian.spectrum_of(hessian.Curvature(matrix, 0.0), tol=1e-9)
    return Inertia(at.num_negative, at.num_zero, at.num_positive)


# --- exact arithmetic ----------------------------------------------------------------------------

NETS = [
    MLP((2, 4, 1)),
    MLP((3, 3, 2, 1)),
    MLP((2, 3, 1), "linear"),
    MLP((2, 2, 2, 1), "linear"),
    SmoothMLP((2, 4, 1), "square"),
    SmoothMLP((2, 2, 2, 1), "square"),
]


@pytest.mark.parametrize("net", [*NETS, MLP((2, 3, 1), "leaky_relu")])
def test_exact_derivatives_are_those_of_autograd(net: MLP | SmoothMLP) -> None:
    W, x = problem(net, 5, seed=0)
    f, J = minima.exact_jacobian(net, W, x)
    assert all(isinstance(entry, Fraction) for entry in (*f, *J.reshape(-1)))
    np.testing.assert_allclose(f.astype(float), net(W, x).numpy(), rtol=1e-14, atol=1e-14)
    J_float = hessian.jacobian(net, W, x).numpy()
    np.testing.assert_allclose(J.astype(float), J_float, rtol=1e-13, atol=1e-13)


def test_exact_derivatives_are_those_of_sympy() -> None:
    net = SmoothMLP((2, 2, 2, 1), "square")
    W, x = problem(net, 3, seed=1)
    symbols = sympy.symbols(f"w:{net.num_params}")
    W1, W2 = sympy.Matrix(2, 2, symbols[:4]), sympy.Matrix(2, 2, symbols[4:8])
    W3 = sympy.Matrix(1, 2, symbols[8:])
    values = [sympy.Rational(w) for w in hessian.flatten(W).tolist()]
    _, J = minima.exact_jacobian(net, W, x)
    for row, point in zip(J, x.tolist(), strict=True):
        h = (W1 * sympy.Matrix([sympy.Rational(p) for p in point])).applyfunc(lambda z: z**2)
        f = (W3 * (W2 * h).applyfunc(lambda z: z**2))[0]
        expected = [sympy.diff(f, w).subs(dict(zip(symbols, values, strict=True))) for w in symbols]
        assert [sympy.Rational(e.numerator, e.denominator) for e in row] == expected


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_exact_rank_is_that_of_sympy(seed: int, rank: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-2, 3, (rows, rank)), rng.integers(-2, 3, (rank, columns))
    product = left @ right
    matrix = np.array([[Fraction(int(e), 3) for e in row] for row in product], dtype=object)
    assert minima.exact_rank(matrix) == sympy.Matrix(product.tolist()).rank()


def test_tanh_has_no_exact_jacobian() -> None:
    net = SmoothMLP((2, 2, 1))
    with pytest.raises(ValueError, match=r"activation of net must be one of 'relu', .* got 'tanh'"):
        minima.exact_jacobian(net, net.init(seed=0), torch.ones(1, 2, dtype=F64))


# --- the number of zero eigenvalues --------------------------------------------------------------


def with_repeats(x: Tensor) -> Tensor:
    return torch.cat([x, x[:2]])


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("num_samples", [3, 8, 24])
@pytest.mark.parametrize("net", NETS)
def test_the_count_is_exact(net: MLP | SmoothMLP, num_samples: int, repeated: bool) -> None:
    """72 problems: each net and size with two draws, P > N and P < N, repeated samples or not."""
    for seed in (2, 3):
        W, x = problem(net, num_samples, seed)
        x = with_repeats(x) if repeated else x
        f, J = minima.exact_jacobian(net, W, x)
        y = net(W, x)
        assert [Fraction(value) for value in y.tolist()] == list(f)  # the loss is zero, exactly
        rank = minima.exact_rank(J)
        assert rank <= min(num_samples, net.num_params)
        at = hessian.spectrum(net, W, x, y, loss="square", reduction="sum")
        assert at.num_zero == net.num_params - rank
        assert (at.num_positive, at.num_negative) == (rank, 0)
        # beyond doubt: two decades of nothing on both sides of the tolerance, or exact zeros
        sizes = at.eigenvalues.abs().sort().values
        assert sizes[net.num_params - rank] > 100 * at.tol


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(NETS), st.integers(1, 12))
def test_the_count_is_exact_where_float64_can_tell(
    seed: int, net: MLP | SmoothMLP, num_samples: int
) -> None:
    """2 sigma^2, with sigma the smallest singular value of J that is not zero, is above tol."""
    W, x = problem(net, num_samples, seed)
    _, J = minima.exact_jacobian(net, W, x)
    rank = minima.exact_rank(J)
    at = hessian.spectrum(net, W, x, net(W, x), loss="square", reduction="sum")
    sigma = torch.linalg.svdvals(hessian.jacobian(net, W, x))
    assume(2 * sigma[rank - 1] ** 2 > 2 * at.tol)
    assert at.num_zero == net.num_params - rank


def test_singular_values_see_more_than_the_hessian() -> None:
    """Degree 7 in the weights: 2 sigma^2 spans 15 decades, sigma only half as many."""
    net = SmoothMLP((2, 2, 2, 1), "square")
    W, x = problem(net, 6, seed=1799)
    at = minima.nullity(net, W, x, net(W, x))
    assert at.rank == minima.exact_rank(minima.exact_jacobian(net, W, x)[1]) == 5
    assert at.num_zero >= 10 - 5
    assert 2 * torch.linalg.svdvals(hessian.jacobian(net, W, x))[4] ** 2 < at.tol


def test_dead_units_add_zeros() -> None:
    net, dead = MLP((2, 3, 1)), torch.tensor([-1.0, -1.0], dtype=F64)
    W, x = problem(net, 4, seed=5)
    x = x.abs()  # then a unit with negative weights is inactive
    at = minima.nullity(net, W, x, net(W, x))
    wide, W = MLP((2, 5, 1)), minima.append_unit(minima.append_unit(W, dead, 3.0), 2 * dead, -1.0)
    more = minima.nullity(wide, W, x, wide(W, x))
    assert minima.exact_rank(minima.exact_jacobian(wide, W, x)[1]) == more.rank == at.rank
    assert more.num_zero == at.num_zero + 2 * 3


@pytest.mark.parametrize("width", [4, 10])
def test_minima_that_training_finds(width: int) -> None:
    net = SmoothMLP((2, width, 1))
    generator = torch.Generator().manual_seed(0)
    x = torch.stack([torch.ones(7, dtype=F64), torch.linspace(-2, 2, 7, dtype=F64)], dim=1)
    y = torch.randn(7, generator=generator, dtype=F64)
    found = least_squares.levenberg_marquardt(
        net, net.init(seed=range(3)), x, y, steps=150, ftol=1e-14
    )
    best = {name: W[found.loss.argmin()] for name, W in found.params.items()}
    at = minima.nullity(net, minima.onto_valley(net, best, x, y), x, y)
    assert (at.num_params, at.num_samples) == (3 * width, 7)
    assert (at.rank, at.num_zero) == (7, 3 * width - 7) and at.gap > 1e3


def test_the_tolerance_knows_the_residuals() -> None:
    """Off the minimum by r, eigenvalues of size |r| are not told from zero."""
    net = SmoothMLP((2, 4, 1))
    W, x = problem(net, 3, seed=0)
    y = net(W, x)
    at, near = minima.nullity(net, W, x, y), minima.nullity(net, W, x, y + 1e-6)
    assert at.tol < 1e-12 < 1e-7 < near.tol < 1e-4
    assert at.num_zero == near.num_zero == 9
    assert math.isinf(minima.nullity(net, {k: 0 * v for k, v in W.items()}, x, 0 * y).gap)


# --- walking -------------------------------------------------------------------------------------

ONE = torch.ones(1, dtype=F64)


def product(w: Params, x: Tensor) -> Tensor:
    return w["a"] * w["b"] * x


def squared_norm(w: Params, x: Tensor) -> Tensor:
    return w["w"].square().sum() * x


def test_walk_on_the_hyperbola_has_its_arc_length() -> None:
    start = {"a": ONE, "b": ONE}
    path = minima.walk(
        product, start, ONE, ONE, distance=3.0, direction=torch.tensor([1.0, -1.0]).double()
    )
    a, b = path.params["a"][:, 0], path.params["b"][:, 0]
    torch.testing.assert_close(a * b, torch.ones_like(a), rtol=1e-12, atol=0)
    assert (a.diff() > 0).all() and path.loss.max() < 1e-24
    # smallest singular value of J = (b, a)
    torch.testing.assert_close(path.smallest, (a**2 + b**2).sqrt())
    length, _ = quad(lambda t: math.hypot(1, 1 / t**2), 1.0, float(a[-1]))
    assert path.distance[-1] == pytest.approx(3.0, abs=2e-3)  # the last correction may lengthen it
    assert path.distance[-1] == pytest.approx(length, rel=1e-3)  # chords, of second order
    half = path.at(1.5)
    assert (half["a"] * half["b"]).item() == pytest.approx(1.0, rel=1e-12)


def test_straight_on_is_a_great_circle() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(5, generator=generator, dtype=F64)
    p = p / p.norm()
    t = torch.randn(5, generator=generator, dtype=F64)
    errors = []
    for step in (0.08, 0.04):
        path = minima.walk(squared_norm, {"w": p}, ONE, ONE, distance=2.0, direction=t, step=step)
        u = t - (t @ p) * p
        u = u / u.norm()
        angle = path.distance[:, None]
        errors.append(float((path.params["w"] - angle.cos() * p - angle.sin() * u).norm(dim=1)[-1]))
    assert errors[1] < 1e-3 and errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_walk_repeats_bit_for_bit_and_follows_its_seed() -> None:
    net = SmoothMLP((2, 4, 1))
    W, x = problem(net, 3, seed=0)
    y = net(W, x)
    first, again, other = (minima.walk(net, W, x, y, distance=1.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.params["W1"], again.params["W1"])
    assert not torch.allclose(first.params["W1"][-1], other.params["W1"][-1])
    J = hessian.jacobian(net, W, x)
    chord = hessian.flatten(first.at(0.05)) - hessian.flatten(W)
    assert (J @ chord).norm() < 0.05 * J.norm() * chord.norm()  # tangent, up to curvature
    assert first.distance[-1] == pytest.approx(1.0, abs=2e-3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.loss = None


def test_the_number_of_zeros_stays_along_a_walk() -> None:
    net = SmoothMLP((2, 4, 1))
    W, x = problem(net, 3, seed=0)
    y = net(W, x)
    path = minima.walk(net, W, x, y, distance=2.0, step=0.1)
    for t in (0, 5, len(path.distance) - 1):
        at = minima.nullity(net, {k: w[t] for k, w in path.params.items()}, x, y)
        assert (at.rank, at.num_zero) == (3, 9)


def cusp(w: Params, x: Tensor) -> Tensor:
    return (w["w"][0] ** 3 - w["w"][1] ** 2) * x


def test_walk_stops_at_a_cusp() -> None:
    start = {"w": torch.ones(2, dtype=F64)}
    with pytest.raises(RuntimeError, match="stopped after 1.4.* ends, branches or has a corner"):
        minima.walk(cusp, start, ONE, 0 * ONE, distance=3.0, direction=-torch.ones(2, dtype=F64))


def test_walk_turns_back_steps_that_are_too_long() -> None:
    path = minima.walk(squared_norm, {"w": torch.eye(3, dtype=F64)[0]}, ONE, ONE,
                       distance=3.0, step=1.0)  # fmt: skip
    assert path.num_rejected > 0 and path.loss.max() < 1e-24


def test_walk_refuses_bad_starts() -> None:
    net = SmoothMLP((2, 4, 1))
    W, x = problem(net, 3, seed=0)
    y = net(W, x)
    with pytest.raises(ValueError, match=r"point of zero loss, got 0.0003 .*onto_valley\(\) first"):
        minima.walk(net, W, x, y + 0.01, distance=1.0)
    with pytest.raises(ValueError, match=r"params\['W1'\] must be finite"):
        minima.walk(net, {**W, "W1": W["W1"] * math.nan}, x, y, distance=1.0)
    with pytest.raises(ValueError, match="y must be finite"):
        minima.walk(net, W, x, y / 0, distance=1.0)
    many = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.raises(ValueError, match="no valley to walk along with P = 12 .* N = 12"):
        minima.walk(net, W, many, net(W, many), distance=1.0)
    twice = torch.cat([x, x])
    with pytest.raises(ValueError, match="rank N = 6, .* leave out repeated samples"):
        minima.walk(net, W, twice, net(W, twice), distance=1.0)
    with pytest.raises(ValueError, match="direction must have a part in ker J"):
        across = hessian.jacobian(net, W, x)[0]
        minima.walk(net, W, x, y, distance=1.0, direction=across)
    with pytest.raises(ValueError, match=r"direction must have shape \(12,\)"):
        minima.walk(net, W, x, y, distance=1.0, direction=torch.ones(3, dtype=F64))
    with pytest.raises(ValueError, match="distance must be finite and greater than 0"):
        minima.walk(net, W, x, y, distance=0.0)
    with pytest.raises(ValueError, match="one number per sample"):
        minima.walk(lambda w, x: x, W, x, y, distance=1.0)


def test_the_correction_is_the_shortest() -> None:
    """A linear model: one step of minimum norm, which is the pseudoinverse's."""
    net = MLP((5, 1))
    W, x = problem(net, 3, seed=0)
    y = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    found = minima.onto_valley(net, W, x, y)
    expected = W["W1"][0] - torch.linalg.pinv(x) @ (x @ W["W1"][0] - y)
    torch.testing.assert_close(found["W1"][0], expected, rtol=1e-12, atol=1e-12)


def test_onto_valley_says_when_it_does_not_arrive() -> None:
    def no_root(w: Params, x: Tensor) -> Tensor:
        return (1 + w["w"] ** 2).sum() * x

    with pytest.raises(RuntimeError, match="did not reach zero loss from"):
        minima.onto_valley(no_root, {"w": torch.tensor([0.3, 0.1]).double()}, ONE, 0 * ONE)


# --- critical points of smaller networks ---------------------------------------------------------

SHARES = [[0.5, 0.5], [1.5, -0.5], [-0.25, 0.75, 0.5], [0.125, 0.25, 0.5, 0.125], [1.0, 0.0]]


def exact_gradient(net: MLP | SmoothMLP, W: Params, x: Tensor, y: Tensor) -> np.ndarray:
    f, J = minima.exact_jacobian(net, W, x)
    return 2 * J.T @ (f - np.array([Fraction(value) for value in y.tolist()], dtype=object))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(
    "small", [MLP((2, 2, 1)), SmoothMLP((2, 1, 1), "square"), MLP((3, 2, 1), "linear")]
)
def test_splitting_keeps_a_critical_point_exactly(
    small: MLP | SmoothMLP, shares: list[float]
) -> None:
    W, x = problem(small, 7, seed=3)
    y = minima.critical_targets(small, W, x)
    assert not exact_gradient(small, W, x, y).any()
    assert ((small(W, x) - y) ** 2).sum() >= 1
    wide = dataclasses.replace(
        small, widths=(small.widths[0], small.widths[1] + len(shares) - 1, 1)
    )
    copies = minima.split(W, 0, shares)
    torch.testing.assert_close(wide(copies, x), small(W, x), rtol=1e-14, atol=1e-14)
    assert not exact_gradient(wide, copies, x, y).any()


def test_an_inactive_unit_keeps_a_critical_point_exactly() -> None:
    small, wide = MLP((2, 2, 1)), MLP((2, 3, 1))
    W, x = problem(small, 7, seed=3)
    x = x.abs()
    W["W1"] = W["W1"].abs()
    y = minima.critical_targets(small, W, x)
    for a, v in (([-1.0, -0.5], 3.0), ([-2.0, -0.25], -7.0)):
        more = minima.append_unit(W, torch.tensor(a, dtype=F64), v)
        assert not exact_gradient(wide, more, x, y).any()
        at, H = inertia_of(hessian_of(small, W, x, y)), hessian_of(wide, more, x, y)
        assert inertia_of(H) == Inertia(at.negative, at.zero + 3, at.positive)


def critical_point(seed: int = 0) -> tuple[SmoothMLP, Params, Tensor, Tensor]:
    """A local minimum of a tanh network with one unit and a bias, and seven targets."""
    net = SmoothMLP((2, 1, 1))
    x = torch.stack([torch.ones(7, dtype=F64), torch.arange(-3.0, 4.0, dtype=F64)], dim=1)
    y = torch.tensor([-1.3, -0.1, 1.7, 1.9, 2.9, 3.3, 2.7], dtype=F64)
    start = {"W1": torch.tensor([[[1.0, 0.5]]]).double(), "W2": torch.tensor([[[3.0]]]).double()}
    found = least_squares.levenberg_marquardt(net, start, x, y, steps=100, ftol=1e-14)
    return net, {name: W[0] for name, W in found.params.items()}, x, y


def test_certificate_holds_the_point_that_mpmath_finds() -> None:
    net, W, x, y = critical_point()
    proved = minima.certify(net, W, x, y)
    with mpmath.workdps(40):

        def loss(b: float, a: float, v: float) -> mpmath.mpf:
            pairs = zip(x.tolist(), y.tolist(), strict=True)
            return mpmath.fsum((v * mpmath.tanh(b * p[0] + a * p[1]) - t) ** 2 for p, t in pairs)

        def gradient(*w: float) -> list[mpmath.mpf]:
            return [mpmath.diff(loss, w, tuple(int(i == k) for i in range(3))) for k in range(3)]

        centre = hessian.flatten(proved.params).tolist()
        root = mpmath.findroot(gradient, centre, tol=1e-40)
        assert all(abs(r - c) <= proved.radius for r, c in zip(root, centre, strict=True))
        low, high = proved.loss
        assert low <= loss(*root) <= high
    assert proved.radius < 1e-13 and high - low < 1e-13
    assert proved.hessian == inertia_of(hessian_of(net, proved.params, x, y)) == Inertia(0, 0, 3)
    B = minima.splitting_matrix(net, proved.params, 0, x, y)
    assert proved.splitting == (inertia_of(B),) == (Inertia(0, 0, 2),)


def test_intervals_hold_the_derivatives_of_autograd() -> None:
    net = SmoothMLP((2, 2, 1))
    W, x = problem(net, 4, seed=0)
    y = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=F64)
    box = minima._Intervals(net, x, y)
    theta = [box.ctx.mpf(value) for value in hessian.flatten(W).tolist()]
    gradient, H = box.derivatives(theta)
    J = hessian.jacobian(net, W, x)
    middle = [float(entry.mid) for entry in gradient]
    np.testing.assert_allclose(middle, (2 * J.T @ (net(W, x) - y)).numpy(), rtol=1e-12, atol=1e-13)
    middle = [[float(entry.mid) for entry in row] for row in H]
    np.testing.assert_allclose(middle, hessian_of(net, W, x, y).numpy(), rtol=1e-12, atol=1e-12)
    B = [[float(entry.mid) for entry in row] for row in box.splitting(theta, 1)]
    expected = minima.splitting_matrix(net, W, 1, x, y)
    np.testing.assert_allclose(B, expected.numpy(), rtol=1e-12, atol=1e-13)


def test_no_certificate_without_a_proof() -> None:
    net, W, x, y = critical_point()
    with pytest.raises(RuntimeError, match="No proof: the Krawczyk operator"):
        minima.certify(net, W, x, y, radius=1.0)
    wide = SmoothMLP((2, 2, 1))
    with pytest.raises(RuntimeError, match="No proof"):  # on a line of critical points
        minima.certify(wide, minima.split(W, 0, [0.5, 0.5]), x, y)
    with pytest.raises(ValueError, match="tanh network with two layers"):
        minima.certify(SmoothMLP((2, 1, 1), "square"), W, x, y)


@pytest.mark.parametrize("shares", SHARES)
def test_splitting_matrix_is_the_curvature_between_copies(shares: list[float]) -> None:
    """Move copy i by d_i with sum_i shares_i d_i = 0: d^T H d = (sum_i shares_i c_i^2) d^T B d."""
    net, W, x, y = critical_point()
    m = len(shares)
    wide = SmoothMLP((2, m, 1))
    H = hessian_of(wide, minima.split(W, 0, shares), x, y)
    B = minima.splitting_matrix(net, W, 0, x, y)
    generator = torch.Generator().manual_seed(0)
    lam = torch.tensor(shares, dtype=F64)
    c = torch.randn(m, generator=generator, dtype=F64)
    c = c - (lam * c).sum() * torch.ones(m, dtype=F64)  # sum_i shares_i c_i = 0
    delta = torch.randn(2, generator=generator, dtype=F64)
    move = torch.cat([torch.outer(c, delta).reshape(-1), torch.zeros(m, dtype=F64)])
    assert float(move @ H @ move) == pytest.approx(
        float((lam * c**2).sum() * (delta @ B @ delta)), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shares", SHARES)
def test_inertia_after_splitting(shares: list[float], seed: int) -> None:
    """Against the eigenvalues of the larger Hessian, at planted critical points."""
    rng = np.random.default_rng(seed)
    net = SmoothMLP((2, 2, 1))
    W = {name: torch.as_tensor(rng.normal(size=shape)) for name, shape in
         (("W1", (2, 2)), ("W2", (1, 2)))}  # fmt: skip
    x = torch.as_tensor(rng.normal(size=(9, 2)))
    Q, _ = np.linalg.qr(hessian.jacobian(net, W, x).numpy(), mode="complete")
    y = net(W, x) - torch.as_tensor(Q[:, 6:] @ rng.normal(size=3))  # residual orthogonal to J
    small = inertia_of(hessian_of(net, W, x, y))
    B = inertia_of(minima.splitting_matrix(net, W, 1, x, y))
    wide = SmoothMLP((2, 1 + len(shares), 1))
    H = hessian_of(wide, minima.split(W, 1, shares), x, y)
    assert inertia_of(H) == minima.split_inertia(small, B, shares)


def test_targets_that_make_a_critical_point() -> None:
    net = MLP((2, 2, 1))
    W, x = problem(net, 3, seed=0)
    with pytest.raises(ValueError, match="rank below N = 1"):
        minima.critical_targets(net, W, x[:1])
    rough = {name: torch.sqrt(w.abs()) for name, w in W.items()}  # 53 binary digits each
    x = torch.cat([x, x]).abs().sqrt()
    with pytest.raises(ValueError, match="more digits than a float64 has"):
        minima.critical_targets(MLP((2, 2, 1), "linear"), rough, x)


def test_bad_splits() -> None:
    W = {"W1": torch.eye(2, dtype=F64), "W2": torch.ones(1, 2, dtype=F64)}
    with pytest.raises(ValueError, match="numbers with sum 1"):
        minima.split(W, 0, [0.5, 0.25])
    with pytest.raises(ValueError, match="below the 2 hidden units, got 2"):
        minima.split(W, 2, [0.5, 0.5])
    with pytest.raises(ValueError, match="W1 and W2, got"):
        minima.split({"W1": W["W1"]}, 0, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"a must have shape \(2,\)"):
        minima.append_unit(W, torch.ones(3, dtype=F64), 1.0)
    with pytest.raises(ValueError, match=r"shape \(h, d\), got \(2, 2, 2\)"):
        minima.split({"W1": torch.ones(2, 2, 2), "W2": torch.ones(1, 2)}, 0, [0.5, 0.5])


def test_smooth_networks_are_as_described() -> None:
    net = SmoothMLP((2, 3, 1))
    W, x = net.init(seed=[0, 1]), torch.randn(4, 2, generator=torch.Generator().manual_seed(0),
                                              dtype=F64)  # fmt: skip
    both = net(W, x)
    for m in (0, 1):
        one = {name: w[m] for name, w in W.items()}
        expected = torch.tanh(x @ one["W1"].T) @ one["W2"][0]
        torch.testing.assert_close(both[m], expected)
    with pytest.raises(ValueError, match="activation must be one of 'tanh', 'square', got 'relu'"):
        SmoothMLP((2, 3, 1), "relu")
    with pytest.raises(ValueError, match=r"widths must end in 1, got \(2, 3\)"):
        SmoothMLP((2, 3))
