"""Quadrature against SciPy and closed forms, samplers against quadrature, SGD against theory."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from companion.landscape import langevin, potentials
from companion.landscape.langevin import Chains

F64 = torch.float64
WELL = potentials.double_well()
TILTED = potentials.double_well(tilt=0.1)
UNEVEN = potentials.uneven_wells()
ONE = torch.ones(1, 1, dtype=F64)
DECAY = potentials.exponential_loss(ONE, ONE[0])  # V(w) = e^{-w}
GRID = torch.linspace(-3.0, 3.0, 601, dtype=F64)


def both_starts(potential, num_chains: int) -> torch.Tensor:
    return potential.minima.repeat_interleave(num_chains // 2, dim=0)


# --- quadrature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.02, 0.2, 2.0])
@pytest.mark.parametrize("potential", [TILTED, potentials.uneven_wells(deeper=0.3)])
def test_probabilities_against_scipy(potential, temperature: float) -> None:
    def density(x: float) -> float:
        return math.exp(-float(potential.value(torch.tensor([x], dtype=F64))) / temperature)

    edge, options = potential.boundary, {"epsabs": 0, "epsrel": 1e-11, "limit": 400}
    wells = potential.minima[:, 0].tolist()
    below = integrate.quad(density, -6, edge, points=[wells[0]], **options)[0]
    above = integrate.quad(density, edge, 6, points=[wells[1]], **options)[0]
    found = langevin.probability_below(potential, temperature)
    assert found == pytest.approx(below / (below + above), rel=1e-9)
    log_z = langevin.log_partition(potential, temperature)
    assert log_z == pytest.approx(math.log(below + above), abs=1e-9)


@settings(max_examples=40)
@given(st.floats(0.05, 20.0), st.floats(0.01, 50.0), st.floats(-3.0, 3.0))
def test_gaussian_integrals(k: float, temperature: float, shift: float) -> None:
    bowl = potentials.line(
        lambda x: 0.5 * k * (x - shift) ** 2, lambda x: k * (x - shift), boundary=0.3
    )
    exact = 0.5 * math.log(2 * math.pi * temperature / k)
    assert langevin.log_partition(bowl, temperature) == pytest.approx(exact, abs=1e-10)
    below = special.ndtr((0.3 - shift) * math.sqrt(k / temperature))
    assert langevin.probability_below(bowl, temperature) == pytest.approx(below, abs=1e-10)


def test_no_density_without_decay() -> None:
    for potential in (potentials.hyperbola(), DECAY):
        with pytest.raises(ValueError, match="no finite integral at T = 0.1.* does not decay"):
            langevin.log_partition(potential, 0.1)
        with pytest.raises(ValueError, match="no Boltzmann density"):
            langevin.probability_below(potential, 0.1)
    slow = potentials.line(lambda x: torch.log1p(x.abs()), torch.sign)  # e^{-V/T} = 1/(1+|x|)^{1/T}
    assert langevin.log_partition(slow, 0.25) == pytest.approx(math.log(2 / 3), abs=1e-9)
    with pytest.raises(ValueError, match="no finite integral at T = 1,"):
        langevin.log_partition(slow, 1.0)


@pytest.mark.parametrize("radius", [10.0, 100.0, 1000.0])
def test_partition_function_of_separable_data_grows_with_the_radius(radius: float) -> None:
    found = math.exp(langevin.log_partition(DECAY, 0.1, interval=(-radius, radius)))
    exact = radius + math.log(0.1) - np.euler_gamma  # E_1(e^{-R} / T) up to e^{-R} / T
    if radius < 100:
        assert special.exp1(math.exp(-radius) / 0.1) == pytest.approx(exact, rel=1e-4)
        exact = special.exp1(math.exp(-radius) / 0.1)
    assert found == pytest.approx(exact, rel=1e-9)


def test_potentials_that_cannot_be_integrated() -> None:
    plane = potentials.exponential_loss(torch.eye(2, dtype=F64), torch.ones(2).double())
    with pytest.raises(ValueError, match="must have a log_marginal"):
        langevin.log_partition(plane, 0.1)
    for interval in ((0.0, math.inf), (1.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="interval must be finite and ascending"):
            langevin.log_partition(WELL, 0.1, interval=interval)
    noisy = potentials.line(lambda x: torch.sin(1e7 * x), torch.zeros_like)
    with pytest.raises(ValueError, match="smooth enough"):
        langevin.log_partition(noisy, 0.1, interval=(0.0, 1.0))
    for T in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"temperature must be finite and greater than 0"):
            langevin.probability_below(WELL, T)


# --- densities on a grid -------------------------------------------------------------------------


def test_euler_density_of_a_parabola_is_known() -> None:
    bowl = potentials.line(lambda x: 0.5 * x**2, lambda x: x, minima=(-1.0, 1.0))
    h, T = 0.2, 0.1  # x <- (1 - h) x + sqrt(2 h T) xi has the variance 2 h T / (1 - (1 - h)^2)
    density = langevin.euler_density(bowl, temperature=T, step=h, grid=GRID)
    variance = float(torch.trapezoid(density.x**2 * density.p, density.x))
    assert variance == pytest.approx(T / (1 - h / 2), rel=1e-6)


def test_bias_of_euler_is_of_first_order_and_what_the_sampler_has() -> None:
    exact = langevin.probability_below(TILTED, 0.2)
    bias = [
        langevin.euler_density(TILTED, temperature=0.2, step=h, grid=GRID).below(TILTED.boundary)
        - exact
        for h in (0.005, 0.01, 0.02, 0.12)
    ]
    assert bias[1] / bias[0] == pytest.approx(2, abs=0.1)  # 2 + O(h)
    assert bias[2] / bias[1] == pytest.approx(2, abs=0.2)
    chains = langevin.sample(
        TILTED, both_starts(TILTED, 2000), temperature=0.2, step=0.12, num_steps=2000, seed=1,
        method="euler", burn_in=1000, every=10,
    )  # fmt: skip
    found = langevin.fraction(chains, TILTED.below)
    assert abs(found.z(exact + bias[3])) < 3
    assert chains.acceptance == 1.0


def test_diffusion_density_with_constant_noise_is_boltzmanns() -> None:
    grid = torch.linspace(-4, 4, 4001, dtype=F64)
    for T in (0.1, 0.4):
        density = langevin.diffusion_density(TILTED, torch.full_like(grid, T), grid)
        exact = langevin.probability_below(TILTED, T)
        assert density.below(TILTED.boundary) == pytest.approx(exact, abs=1e-5)


def test_diffusion_density_has_no_flux() -> None:
    grid = torch.linspace(-3, 3, 6001, dtype=F64)

    noise = 0.2 + 0.1 * torch.tanh(grid)
    p = langevin.diffusion_density(WELL, noise, grid).p
    flux = WELL.gradient(grid[:, None])[:, 0] * p + torch.gradient(noise * p, spacing=(grid,))[0]
    assert float(flux[5:-5].abs().max()) < 1e-4  # dx^2 / 6 times a third derivative near 100


def test_bad_grids() -> None:
    kwargs = {"temperature": 0.2, "step": 0.01}
    with pytest.raises(ValueError, match=r"standard deviation is 0.063, .* at least 190 points"):
        langevin.euler_density(WELL, grid=torch.linspace(-3, 3, 100, dtype=F64), **kwargs)
    with pytest.raises(ValueError, match="equally spaced"):
        langevin.euler_density(WELL, grid=GRID**3, **kwargs)
    with pytest.raises(ValueError, match="must have one weight here, got dim = 2"):
        langevin.euler_density(potentials.hyperbola(), grid=GRID, **kwargs)
    with pytest.raises(ValueError, match="diffusion must be positive"):
        langevin.diffusion_density(WELL, GRID, GRID)


# --- samplers ------------------------------------------------------------------------------------

CASES = {
    "tilted": (TILTED, 0.25, 0.25),
    "uneven": (UNEVEN, 0.25, 0.12),
    "stiff and soft": (potentials.stiff_and_soft(1), 0.3, 0.08),
    "ring": (potentials.shell_and_point(2), 0.25, 0.05),
}


@pytest.mark.parametrize("name", CASES)
def test_metropolis_chains_have_boltzmanns_probabilities(name: str) -> None:
    """From both wells, and z-scores of 50 independent sets of 40 chains like those of a Gaussian.

    The statistic of a set is Student's t with 39 degrees of freedom, nearly Gaussian.
    """
    potential, T, h = CASES[name]
    exact = langevin.probability_below(potential, T)
    chains = langevin.sample(
        potential, both_starts(potential, 2000), temperature=T, step=h, num_steps=1500, seed=11,
        burn_in=900, every=20,
    )  # fmt: skip
    assert abs(langevin.fraction(chains, potential.below).z(exact)) < 3
    sides = chains.positions.chunk(2, dim=1)
    for side in sides:
        part = langevin.fraction(Chains(chains.steps, side), potential.below)
        assert abs(part.z(exact)) < 3.5  # eight of these: 0.4 per cent by chance
    z = []
    for n in range(50):  # each set takes as many chains from either start
        group = torch.cat([side[:, 20 * n : 20 * (n + 1)] for side in sides], dim=1)
        z.append(langevin.fraction(Chains(chains.steps, group), potential.below).z(exact))
    assert stats.kstest(z, stats.t(39).cdf).pvalue > 1e-3


def test_metropolis_has_no_bias_even_at_large_steps() -> None:
    exact = langevin.probability_below(TILTED, 0.25)
    options = {"temperature": 0.25, "step": 0.4, "num_steps": 1200, "burn_in": 600, "every": 20}
    start = both_starts(TILTED, 2000)
    chains = langevin.sample(TILTED, start, seed=2, **options)
    assert 0.5 < chains.acceptance < 0.7
    assert abs(langevin.fraction(chains, TILTED.below).z(exact)) < 3


def test_same_seed_same_chains() -> None:
    def run(seed: int) -> torch.Tensor:
        return langevin.sample(
            WELL, WELL.minima, temperature=0.2, step=0.1, num_steps=150, seed=seed
        ).positions

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_records_are_those_asked_for() -> None:
    full = langevin.sample(WELL, WELL.minima, temperature=0.2, step=0.1, num_steps=30, seed=0)
    some = langevin.sample(
        WELL, WELL.minima, temperature=0.2, step=0.1, num_steps=30, seed=0, burn_in=10, every=6
    )
    assert some.steps.tolist() == [16, 22, 28]
    assert torch.equal(some.positions, full.positions[some.steps - 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.1}, r"temperature must be finite and greater than 0, got -0.1"),
        ({"step": 0.0}, "step must be"),
        ({"method": "exact"}, "method must be one of 'metropolis', 'euler', got 'exact'"),
        ({"start": torch.tensor([[math.nan]]).double()}, "start must be finite, got 1 entries"),
        ({"start": torch.zeros(3).double()}, r"start must have shape \(M, 1\), .* got \(3,\)"),
        ({"start": torch.zeros(0, 1).double()}, r"start must have shape"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"burn_in": 10}, "num_steps must exceed burn_in by at least every, got 10, 10 and 1"),
        ({"every": 0}, "every must be at least 1"),
    ],
)
def test_bad_input_of_sample(change: dict, message: str) -> None:
    arguments = {
        "start": WELL.minima, "temperature": 0.2, "step": 0.1, "num_steps": 10, "seed": 0
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        langevin.sample(WELL, **arguments)


def test_euler_steps_that_diverge_are_reported() -> None:
    start = 5 * torch.ones(4, 1, dtype=F64)
    options = {"temperature": 0.2, "step": 0.5, "num_steps": 20, "seed": 0}
    with pytest.raises(ValueError, match=r"step = 0.5 is too large: 4 of 4 chains have diverged"):
        langevin.sample(WELL, start, method="euler", **options)
    assert torch.isfinite(langevin.sample(WELL, start, **options).positions).all()


def test_fraction_and_its_error() -> None:
    positions = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=F64)[..., None]
    found = langevin.fraction(Chains(torch.tensor([1, 2]), positions), lambda w: w[..., 0] > 0.5)
    assert found.mean == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(0.5 / math.sqrt(3))
    assert found.z(0.0) == pytest.approx(math.sqrt(3))
    still = langevin.Estimate(1.0, 0.0)
    assert still.z(0.5) == math.inf and still.z(1.0) == 0.0
    with pytest.raises(ValueError, match="at least 2 chains"):
        langevin.fraction(Chains(torch.tensor([1]), positions[:1, :1]), lambda w: w[..., 0] > 0)


# --- gradient descent with noise -----------------------------------------------------------------

NOISES = potentials.two_noises(0.1, left=1.2, right=0.6)


def test_gd_without_noise_is_gradient_descent() -> None:
    start = torch.tensor([[-0.3], [0.4]], dtype=F64)
    chains = langevin.descend(NOISES, start, lr=0.1, num_steps=3, seed=0)
    w = start
    for record in chains.positions:
        w = w - 0.1 * NOISES.potential.gradient(w)
        torch.testing.assert_close(record, w)
    full = langevin.descend(NOISES, start, lr=0.1, num_steps=3, seed=0, batch_size=2)
    torch.testing.assert_close(full.positions, chains.positions)


def test_gdl_is_euler() -> None:
    T, h = 0.05, 0.2
    chains = langevin.descend(
        NOISES, both_starts(NOISES.potential, 2000), lr=h, temperature=T, num_steps=1500, seed=0,
        burn_in=700, every=20,
    )  # fmt: skip
    euler = langevin.euler_density(NOISES.potential, temperature=T, step=h, grid=GRID)
    assert euler.below(0.0) == pytest.approx(0.5, abs=1e-9)
    assert abs(langevin.fraction(chains, NOISES.potential.below).z(0.5)) < 3


def test_sgd_has_the_density_of_its_diffusion() -> None:
    eta = 0.2
    grid = torch.linspace(-4, 4, 4001, dtype=F64)

    diffusion = eta / 2 * NOISES.gradients(grid[:, None]).var(dim=1, unbiased=False)[:, 0]
    exact = langevin.diffusion_density(NOISES.potential, diffusion, grid).below(0.0)
    chains = langevin.descend(
        NOISES, both_starts(NOISES.potential, 2000), lr=eta, batch_size=1, num_steps=1800, seed=0,
        burn_in=1000, every=20,
    )  # fmt: skip
    found = langevin.fraction(chains, NOISES.potential.below)
    assert found.mean == pytest.approx(exact, abs=0.01) and exact < 0.12


def test_bad_input_of_descend() -> None:
    start = NOISES.potential.minima
    for change, message in (
        ({"batch_size": 3}, "batch_size must be at most 2, the number of examples, got 3"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"temperature": -1.0}, "temperature must be finite and at least 0"),
        ({"lr": 0.0}, "lr must be"),
        ({"lr": 90.0, "num_steps": 30}, "lr = 90 is too large"),
    ):
        arguments = {"lr": 0.1, "num_steps": 3, "seed": 0} | change
        with pytest.raises(ValueError, match=message):
            langevin.descend(NOISES, start + 0.5, **arguments)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 1000))
def test_noise_covariance_is_that_of_all_batches(N: int, b: int, seed: int) -> None:
    b = min(b, N)
    g = torch.randn(N, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    means = torch.stack(
        [g[list(batch)].mean(dim=0) for batch in itertools.combinations(range(N), b)]
    )
    noise = means - g.mean(dim=0)
    torch.testing.assert_close(noise.mean(dim=0), torch.zeros(2, dtype=F64), atol=1e-14, rtol=0)
    expected = noise.T @ noise / len(noise)
    torch.testing.assert_close(langevin.noise_covariance(g, b), expected, atol=1e-13, rtol=1e-10)


def test_bad_input_of_the_covariance() -> None:
    g = torch.ones(3, 2, dtype=F64)
    with pytest.raises(ValueError, match="batch_size must be at most 3, got 4"):
        langevin.noise_covariance(g, 4)
    with pytest.raises(ValueError, match=r"shape \(N, d\) with N >= 2, got \(2,\)"):
        langevin.noise_covariance(g[0], 1)


# --- stability -----------------------------------------------------------------------------------


def test_edges_of_curvatures_one_and_three() -> None:
    h = torch.tensor([1.0, 3.0], dtype=F64)
    assert langevin.mean_square_edge(h) == pytest.approx(4 / 5)
    assert langevin.lyapunov_edge(h) == pytest.approx(4 / 3, abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5))
def test_edges_are_where_the_means_turn(curvatures: list[float]) -> None:
    h = torch.tensor(curvatures, dtype=F64)
    edge = langevin.mean_square_edge(h)
    assert float(((1 - edge * h) ** 2).mean()) == pytest.approx(1)
    lyapunov = langevin.lyapunov_edge(h)
    assert lyapunov >= edge * (1 - 1e-9)  # by Jensen: log is concave
    assert langevin.lyapunov_exponent(h, 0.5 * edge) < 0


def test_sgd_stays_below_the_edge_and_leaves_above_it() -> None:
    problem = potentials.scaled_examples(UNEVEN, (0.5, 1.5))
    k = 8 * 0.5 / 0.5**2
    start = torch.full((200, 1), -0.5 + 1e-6, dtype=F64)
    for lr, stays in ((2.2 / k, 1.0), (3.0 / k, 0.0)):
        end = langevin.descend(problem, start, lr=lr, batch_size=1, num_steps=2000, seed=0)
        below = UNEVEN.below(end.positions[-1])
        assert float(below.double().mean()) == stays
        assert float(UNEVEN.gradient(end.positions[-1]).abs().max()) < 1e-6


def test_bad_curvatures() -> None:
    for h in ([], [1.0, 0.0], [-1.0]):
        with pytest.raises(ValueError, match=re.escape(f"positive, shape (N,), got {h}")):
            langevin.lyapunov_exponent(torch.tensor(h, dtype=F64), 0.1)


# --- times ---------------------------------------------------------------------------------------


def test_passage_time_against_scipy_and_kramers() -> None:
    T = 0.1

    def V(x: float) -> float:
        return 0.5 * (x * x - 1) ** 2

    def outer(y: float) -> float:
        inner, _ = integrate.quad(lambda z: math.exp((V(y) - V(z)) / T), -3, y, points=[-1.0])
        return inner / T

    exact, _ = integrate.quad(outer, -1, 1, limit=200)
    found = langevin.passage_time(WELL, start=-1, end=1, temperature=T)
    assert found == pytest.approx(exact, rel=1e-6)
    bottom, top = WELL.minima[0], torch.zeros(1, dtype=F64)
    errors = []
    for cold in (0.1, 0.05, 0.025):
        kramers = langevin.eyring_kramers(WELL, bottom, top, temperature=cold)
        assert kramers == pytest.approx(math.pi / math.sqrt(2) * math.exp(0.5 / cold))
        time = langevin.passage_time(WELL, start=-1, end=1, temperature=cold)
        errors.append(time / kramers - 1)
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.6)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.3)


def test_eyring_kramers_in_several_dimensions() -> None:
    potential = potentials.stiff_and_soft(2)
    time = langevin.eyring_kramers(
        potential, potential.minima[0], torch.zeros(3, dtype=F64), temperature=0.2
    )
    assert time == pytest.approx(math.pi / math.sqrt(2) * (5 / 25) * math.exp(2.5), rel=1e-10)


def test_escape_times_have_the_exact_mean() -> None:
    times = langevin.escape_times(
        WELL, -torch.ones(1000, 1, dtype=F64), temperature=0.3, step=0.02, seed=0,
        until=lambda w: w[:, 0] > 1,
    )  # fmt: skip
    exact = langevin.passage_time(WELL, start=-1, end=1, temperature=0.3)
    error = float(times.std()) / math.sqrt(len(times))
    # Arrivals are seen at multiples of the step only: late by the time of an excursion.
    assert -3 * error < float(times.mean()) - exact < 3 * error + 0.06 * exact


def test_bad_input_of_times() -> None:
    zero, bottom = torch.zeros(1, dtype=F64), WELL.minima[0]
    with pytest.raises(ValueError, match="saddle must have 1 negative and no zero curvature"):
        langevin.eyring_kramers(WELL, bottom, bottom, temperature=0.1)
    with pytest.raises(ValueError, match="minimum must have 0 negative"):
        langevin.eyring_kramers(WELL, zero, zero, temperature=0.1)
    with pytest.raises(ValueError, match="start must be below end"):
        langevin.passage_time(WELL, start=1, end=-1, temperature=0.1)
    with pytest.raises(ValueError, match="2 of 2 chains have not arrived"):
        langevin.escape_times(
            WELL, -torch.ones(2, 1, dtype=F64), temperature=0.05, step=0.01, seed=0,
            until=lambda w: w[:, 0] > 1, max_steps=10,
        )  # fmt: skip
