"""Gradients against autograd, marginals against SciPy's integrals, and the exact odds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from companion.landscape import langevin, potentials

ONE = torch.ones(1, 1, dtype=torch.float64)
PLANE = torch.tensor([[1.0, 1.0], [1.0, -2.0], [3.0, 0.0]], dtype=torch.float64)

LANDSCAPES = {
    "double well": potentials.double_well(0.7),
    "tilted": potentials.double_well(0.5, tilt=0.1),
    "uneven": potentials.uneven_wells(0.5, 1.5),
    "uneven, one deeper": potentials.uneven_wells(0.4, 1.3, barrier=0.6, deeper=0.2),
    "stiff and soft, m = 1": potentials.stiff_and_soft(1),
    "stiff and soft, m = 3": potentials.stiff_and_soft(3, stiff=9.0, soft=0.5, barrier=0.8),
    "ring": potentials.shell_and_point(2),
    "sphere": potentials.shell_and_point(3, height=2.0),
}
OTHERS = {
    "hyperbola": potentials.hyperbola(),
    "exponential, line": potentials.exponential_loss(ONE, ONE[0]),
    "exponential, plane": potentials.exponential_loss(PLANE, torch.ones(3).double()),
}


def points(dim: int, num: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(dim)
    return 1.5 * torch.randn(num, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", [*LANDSCAPES, *OTHERS])
def test_gradients_are_those_of_autograd(name: str) -> None:
    potential = (LANDSCAPES | OTHERS)[name]
    w = points(potential.dim).requires_grad_()
    value = potential.value(w)
    assert value.shape == (60,)
    (expected,) = torch.autograd.grad(value.sum(), w)
    torch.testing.assert_close(potential.gradient(w), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LANDSCAPES)
def test_minima_lie_on_their_sides_and_are_stationary(name: str) -> None:
    potential = LANDSCAPES[name]
    assert potential.below(potential.minima).tolist() == [True, False]
    assert float(potential.gradient(potential.minima).abs().max()) < 1e-12
    near = potential.minima[:, None] + 1e-3 * points(potential.dim)
    slack = potential.value(near) - potential.value(potential.minima)[:, None]
    assert float(slack.min()) > -1e-15


@pytest.mark.parametrize("name", ["stiff and soft, m = 1", "ring"])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_partition_function_against_a_double_integral(name: str, temperature: float) -> None:
    potential = LANDSCAPES[name]

    # A smooth density that has decayed at the edges: the trapezoidal rule on the plane is enough.
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    w = torch.stack(torch.meshgrid(x, x, indexing="ij"), dim=-1)
    total = float(torch.exp(-potential.value(w) / temperature).sum() * (x[1] - x[0]) ** 2)
    found = langevin.log_partition(potential, temperature)
    assert found == pytest.approx(math.log(total), abs=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_area_of_the_spheres(dim: int) -> None:
    potential = potentials.shell_and_point(dim)
    r = torch.ones(1, dtype=torch.float64)
    area = 2 * math.pi ** (dim / 2) / special.gamma(dim / 2)
    assert math.exp(float(potential.log_marginal(r, 0.3)[0])) == pytest.approx(area)


@settings(max_examples=40)
@given(st.floats(0.2, 2.0), st.floats(0.2, 2.0), st.floats(0.03, 3.0))
def test_uneven_wells_have_the_odds_of_their_widths(a: float, b: float, T: float) -> None:
    probability = langevin.probability_below(potentials.uneven_wells(a, b), T)
    assert probability == pytest.approx(a / (a + b), abs=1e-11)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_each_flat_direction_is_worth_half_a_power_of_the_temperature(dim: int) -> None:
    """Laplace: the sphere has d - 1 flat directions, the point none."""
    potential = potentials.shell_and_point(dim, height=1.0)
    area = 2 * math.pi ** (dim / 2) / special.gamma(dim / 2)
    for T in (1e-3, 1e-4):
        laplace = area * math.sqrt(math.pi * T / 4) / (math.pi * T) ** (dim / 2)
        point = langevin.probability_below(potential, T)
        assert (1 - point) / point == pytest.approx(laplace, rel=20 * T)


def test_marginal_of_the_hyperbola_is_flat() -> None:
    potential, T = potentials.hyperbola(), 0.1
    for s in (-3.0, 0.0, 2.0):
        w1 = math.exp(s)
        inner, _ = integrate.quad(
            lambda w2, w1=w1: math.exp(-((w1 * w2 - 1) ** 2) / T), -9 / w1, 9 / w1,
            points=[1 / w1], limit=200,
        )  # fmt: skip
        at = torch.tensor([s], dtype=torch.float64)
        marginal = math.exp(float(potential.log_marginal(at, T)[0]))
        assert 2 * w1 * inner == pytest.approx(marginal, rel=1e-8)


def test_two_noises_average_to_the_well() -> None:
    problem = potentials.two_noises(0.3, left=1.2, right=0.6)
    w = points(1)
    gradients = problem.gradients(w)
    assert gradients.shape == (60, 2, 1)
    torch.testing.assert_close(gradients.mean(dim=1), problem.potential.gradient(w))
    at_minima = problem.gradients(problem.potential.minima).std(dim=1, unbiased=False)
    torch.testing.assert_close(at_minima.flatten(), torch.tensor([1.2, 0.6]).double())


def test_scaled_examples_share_their_minima() -> None:
    well = potentials.uneven_wells()
    problem = potentials.scaled_examples(well, (0.5, 1.5))
    w = points(1)
    torch.testing.assert_close(problem.gradients(w).mean(dim=1), well.gradient(w))
    assert float(problem.gradients(well.minima).abs().max()) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: potentials.double_well(-1.0), r"barrier must be .*greater than 0, got -1"),
        (lambda: potentials.double_well(0.5, tilt=0.8), r"tilt must be smaller than 0.77"),
        (lambda: potentials.double_well(0.5, tilt=math.nan), "tilt must be smaller"),
        (lambda: potentials.uneven_wells(0.0, 1.0), "narrow must be"),
        (lambda: potentials.uneven_wells(deeper=-0.1), "deeper must be finite and at least 0"),
        (lambda: potentials.stiff_and_soft(0), "num_directions must be at least 1, got 0"),
        (lambda: potentials.shell_and_point(1), "dim must be at least 2, got 1"),
        (lambda: potentials.scaled_examples(potentials.double_well(), (1.0, 2.0)), "mean 1"),
        (lambda: potentials.scaled_examples(potentials.double_well(), ()), "mean 1"),
        (lambda: potentials.scaled_examples(potentials.double_well(), (-1, 3)), r"factors\[0\]"),
        (lambda: potentials.exponential_loss(ONE, 2 * ONE[0]), "labels -1 and"),
        (lambda: potentials.noisy_pair(LANDSCAPES["ring"], torch.ones_like), "got dim = 2"),
        (lambda: OTHERS["exponential, plane"].below(PLANE[:, :2]), "must have a coordinate"),
    ],
)
def test_bad_input_is_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_line_of_ones_own() -> None:
    potential = potentials.line(lambda x: x.abs(), lambda x: x.sign(), boundary=1.0)
    exact = 1 - 0.5 * np.exp(-1 / 0.7)
    assert langevin.probability_below(potential, 0.7) == pytest.approx(exact, abs=1e-8)
