"""Langevin dynamics, SGD, and the densities in which they come to rest.

The Langevin equation ``dw = -grad V(w) dt + sqrt(2 T) dB`` has the stationary density
``e^{-V/T} / Z`` wherever Z is finite. The slides write ``df = -gamma grad V dt + dB``: the same
equation in the time ``gamma t``, with ``T = 1 / (2 gamma)``. This module samples it with many
independent chains, integrates the density, runs gradient descent with minibatches and with added
noise (GD, GDL, SGD, SGDL of the slides), and computes what these do instead.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.optimize import brentq
from torch import Tensor

from companion import _checks
from companion.landscape.hessian import of_function
from companion.landscape.potentials import FiniteSum, Potential

__all__ = [
    "METHODS",
    "Chains",
    "Density",
    "Estimate",
    "descend",
    "diffusion_density",
    "escape_times",
    "euler_density",
    "eyring_kramers",
    "fraction",
    "log_partition",
    "lyapunov_edge",
    "lyapunov_exponent",
    "mean_square_edge",
    "noise_covariance",
    "passage_time",
    "probability_below",
    "sample",
]

METHODS = ("metropolis", "euler")
NODES = 20  # Gauss-Legendre nodes per panel
PANELS = 32  # panels per interval at first; doubled until two results agree
AGREE = 1e-12  # of the integral, and of its logarithm: more digits than that are not there
DOUBLINGS = 60  # of the distance from the boundary: what has not decayed by 1e18 never does
NEGLIGIBLE = 1e-15  # share of the total that the last shells may hold
BLOCK = 64  # steps whose noise is drawn at once


# --- densities by quadrature -------------------------------------------------------------------


def log_partition(
    potential: Potential, temperature: float, *, interval: tuple[float, float] | None = None
) -> float:
    """Return log Z, the logarithm of the integral of ``e^{-V/T}``, by Gauss-Legendre quadrature.

    Args:
        potential: With a known marginal of its coordinate.
        temperature: T > 0.
        interval: The values of the coordinate to integrate over, finite; all of them if left out.

    Raises:
        ValueError: if Z is infinite; the message says where the mass is. A tail that decays like
            ``1/|s|`` or slower counts as infinite, and so does one too slow to tell from it.

    >>> from companion.landscape.potentials import line
    >>> parabola = line(lambda x: x**2 / 2, lambda x: x)
    >>> round(log_partition(parabola, 0.5) - 0.5 * math.log(math.pi), 12)
    0.0
    """
    T = _checks.positive("temperature", temperature)
    if interval is None:
        return float(np.logaddexp(*_log_masses(potential, T)))
    low, high = map(float, interval)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"interval must be finite and ascending, got {interval!r}.")
    return _log_integral(_marginal(potential), T, low, high)


def probability_below(potential: Potential, temperature: float) -> float:
    """Return the Boltzmann probability of the basin below the boundary, by quadrature.

    Raises ValueError if there is no Boltzmann density, as :func:`log_partition`.

    >>> from companion.landscape.potentials import uneven_wells
    >>> round(probability_below(uneven_wells(0.5, 1.5), 0.1), 10)
    0.25
    """
    below, above = _log_masses(potential, _checks.positive("temperature", temperature))
    return float(np.exp(below - np.logaddexp(below, above)))


def _marginal(potential: Potential) -> Callable[[Tensor, float], Tensor]:
    if potential.log_marginal is None:
        raise ValueError(
            "The potential must have a log_marginal to be integrated, got None: its density is "
            "not known as a function of one coordinate."
        )
    return potential.log_marginal


def _log_masses(potential: Potential, T: float) -> tuple[float, float]:
    """Log of the integral on either side of the boundary, over intervals that double in length."""
    log_density, edge = _marginal(potential), potential.boundary
    reach = 1.0
    if potential.minima is not None and potential.coordinate is not None:
        reach = max(reach, 2 * float((potential.coordinate(potential.minima) - edge).abs().max()))
    sides = []
    for sign, end in zip((-1, 1), potential.support, strict=True):
        total, inner, outer = -math.inf, 0.0, reach
        while True:
            last = sign * (end - edge) <= outer
            a, b = edge + sign * inner, end if last else edge + sign * outer
            floor = total + math.log(NEGLIGIBLE)
            mass = _log_integral(log_density, T, min(a, b), max(a, b), floor)
            total = float(np.logaddexp(total, mass))
            if last or (inner > 0 and mass < total + math.log(NEGLIGIBLE)):
                break
            inner, outer = outer, 2 * outer
            if outer > reach * 2.0**DOUBLINGS:
                raise ValueError(_no_density(T, inner, mass, total))
        sides.append(total)
    return sides[0], sides[1]


def _no_density(T: float, inner: float, mass: float, total: float) -> str:
    share = math.exp(mass - total)
    return (
        f"e^(-V/T) has no finite integral at T = {T:g}, so there is no Boltzmann density: it does "
        f"not decay, and between {inner / 2:.0e} and {inner:.0e} away from the boundary there is "
        f"still a share of {share:.2g} of all the mass up to there. Give an interval to integrate "
        "over a part, or a potential that grows in every direction."
    )


def _log_integral(
    log_density: Callable[[Tensor, float], Tensor],
    T: float,
    low: float,
    high: float,
    floor: float = -math.inf,
) -> float:
    """Composite Gauss-Legendre rule, refined until two results agree, or it stays below floor."""
    nodes, weights = _rule()
    panels, change, previous = PANELS, math.inf, math.nan
    while panels <= 2**16:
        edges = np.linspace(low, high, panels + 1)
        half = 0.5 * np.diff(edges)[:, None]
        points = edges[:-1, None] + half * (1 + nodes)
        logs = log_density(torch.from_numpy(points.ravel()), T).numpy().reshape(points.shape)
        top = logs.max()
        if not top > -math.inf:
            return -math.inf
        ends = log_density(torch.tensor([low, high], dtype=torch.float64), T).numpy()
        bound = float(max(top, ends.max())) + math.log(high - low)
        if bound < floor:
            return bound
        current = float(top + np.log((np.exp(logs - top) * weights * half).sum()))
        change = abs(current - previous)
        if change < AGREE * max(1.0, abs(current)):
            return current
        panels, previous = 2 * panels, current
    raise ValueError(
        f"The density must be smooth enough to be integrated over ({low:g}, {high:g}); two "
        f"refinements still differ by {change:.1e}."
    )


@functools.cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)


@dataclass(frozen=True, eq=False)
class Density:
    """A density of one variable, tabulated.

    Args:
        x: Grid, (G,), ascending with equal steps.
        p: Density, (G,), of integral one by the trapezoidal rule.
    """

    x: Tensor
    p: Tensor

    def below(self, boundary: float) -> float:
        """Probability below a boundary, by the trapezoidal rule."""
        distribution = cumulative_trapezoid(self.p.numpy(), self.x.numpy(), initial=0.0)
        return float(np.interp(boundary, self.x.numpy(), distribution))


def euler_density(
    potential: Potential, *, temperature: float, step: float, grid: Tensor
) -> Density:
    """The stationary density of the Euler scheme itself, which is not ``e^{-V/T} / Z``.

    One step takes x to a Gaussian of mean ``x - h V'(x)`` and variance ``2 h T``; the density that
    this kernel leaves alone solves a linear system on the grid. It differs from Boltzmann's by
    O(h), the bias of Euler-Maruyama, without any sampling error.

    Args:
        potential: Of one weight.
        temperature: T > 0.
        step: h > 0.
        grid: (G,), equally spaced, reaching to where the density is negligible.

    Raises:
        ValueError: if the potential has several weights, or the grid is too coarse for the kernel.
    """
    T, h = _checks.positive("temperature", temperature), _checks.positive("step", step)
    _one_weight(potential)
    x = _grid(grid)
    spread, dx = math.sqrt(2 * h * T), float(x[1] - x[0])
    if dx > 0.5 * spread:
        raise ValueError(
            f"grid must resolve one step, whose standard deviation is {spread:.2g}, got points "
            f"{dx:.2g} apart: use at least {math.ceil(float(x[-1] - x[0]) / spread * 2)} points."
        )
    mean = x - h * potential.gradient(x[:, None])[:, 0]
    kernel = torch.exp(-0.5 * ((x - mean[:, None]) / spread) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # what leaves the grid stays at its end
    system = kernel.T - torch.eye(len(x), dtype=x.dtype)
    system[-1] = 1.0  # one balance equation follows from the others: ask for sum one instead
    right = torch.zeros_like(x)
    right[-1] = 1.0
    p = torch.linalg.solve(system, right)
    return _normalized(x, p)


def diffusion_density(potential: Potential, diffusion: Tensor, grid: Tensor) -> Density:
    """The stationary density of ``dx = -V'(x) dt + sqrt(2 D(x)) dB`` (Ito), for one weight.

    It makes the probability flux vanish, ``-V' p = (D p)'``:
    ``p(x) ~ exp(-int V'/D) / D(x)``. For SGD with step eta whose gradients have the standard
    deviation s(x), ``D = eta s(x)^2 / 2`` up to higher orders in eta; noise of temperature T adds
    T. With a constant D it is Boltzmann's density of temperature D.

    Args:
        potential: Of one weight.
        diffusion: D on the grid, (G,), positive.
        grid: (G,), equally spaced, reaching to where the density is negligible.

    Raises:
        ValueError: if the potential has several weights, or D is not positive everywhere: where
            noise vanishes, as at minima that all examples share, there is no such density.
    """
    _one_weight(potential)
    x = _grid(grid)
    D = _checks.shape("diffusion", _checks.finite("diffusion", diffusion), x.shape).to(x.dtype)
    if not (D > 0).all():
        raise ValueError(
            f"diffusion must be positive on the whole grid, got {float(D.min()):g}: where the "
            "noise vanishes there is no stationary density."
        )
    slope = potential.gradient(x[:, None])[:, 0]
    climb = torch.from_numpy(cumulative_trapezoid((slope / D).numpy(), x.numpy(), initial=0.0))
    log_p = -climb - D.log()
    return _normalized(x, torch.exp(log_p - log_p.max()))


def _normalized(x: Tensor, p: Tensor) -> Density:
    return Density(x, p / torch.trapezoid(p, x))


def _one_weight(potential: Potential) -> None:
    if potential.dim != 1:
        raise ValueError(f"potential must have one weight here, got dim = {potential.dim}.")


def _grid(grid: Tensor) -> Tensor:
    x = _checks.finite("grid", grid).to(torch.float64)
    if x.ndim != 1 or len(x) < 3 or not torch.allclose(x.diff(), x.diff()[0], rtol=1e-6):
        raise ValueError(f"grid must be equally spaced, shape (G,), got shape {tuple(x.shape)}.")
    return x


# --- sampling ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chains:
    """What independent chains recorded.

    Args:
        steps: Number of steps done at each record, (S,).
        positions: (S, M, d): records, chains, weights.
        acceptance: Share of proposals accepted; 1 without a Metropolis test.
    """

    steps: Tensor
    positions: Tensor
    acceptance: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """A mean over independent chains, and its standard error."""

    mean: float
    standard_error: float

    def z(self, exact: float) -> float:
        """Distance from the exact value in standard errors; infinite if there is no spread."""
        distance = self.mean - exact
        if self.standard_error == 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / self.standard_error


def fraction(chains: Chains, inside: Callable[[Tensor], Tensor]) -> Estimate:
    """The fraction of records for which ``inside`` (S, M, d) -> (S, M) holds.

    A chain's records depend on each other, chains do not: the standard error comes from the spread
    of the M fractions, one per chain.

    Raises ValueError if there are fewer than two chains.
    """
    each = inside(chains.positions).to(torch.float64).mean(dim=0)
    if len(each) < 2:
        raise ValueError(f"chains must hold at least 2 chains for an error bar, got {len(each)}.")
    return Estimate(float(each.mean()), float(each.std()) / math.sqrt(len(each)))


def sample(
    potential: Potential,
    start: Tensor,
    *,
    temperature: float,
    step: float,
    num_steps: int,
    seed: int,
    method: str = "metropolis",
    burn_in: int = 0,
    every: int = 1,
) -> Chains:
    """Run independent chains of ``dw = -grad V dt + sqrt(2 T) dB``.

    A step of length h proposes ``w - h grad V(w) + sqrt(2 h T) xi`` with a standard Gaussian xi.
    "euler" takes it (Euler-Maruyama, or GDL of the slides): its stationary density is off by O(h).
    "metropolis" takes it with the probability that makes ``e^{-V/T} / Z`` stationary for every h
    (the Metropolis-adjusted Langevin algorithm, Roberts & Tweedie 1996).

    Args:
        potential: V.
        start: (M, d), one row per chain.
        temperature: T > 0.
        step: h > 0, the time of a step.
        num_steps: Number of steps in all.
        seed: Seed of the noise.
        method: One of METHODS.
        burn_in: Steps at the beginning that are not recorded.
        every: Record one step in this many.

    Raises:
        ValueError: for arguments out of range, a start that is not finite, or Euler steps that
            diverge.

    >>> from companion.landscape.potentials import double_well
    >>> well = double_well()
    >>> chains = sample(well, torch.ones(50, 1).double(), temperature=0.2, step=0.1,
    ...                 num_steps=20, seed=0, every=10)
    >>> chains.positions.shape
    torch.Size([2, 50, 1])
    """
    T, h = _checks.positive("temperature", temperature), _checks.positive("step", step)
    _checks.choice("method", method, METHODS)
    w = _start(potential, start)
    record = _schedule(num_steps, burn_in, every)
    generator = torch.Generator(device=w.device).manual_seed(seed)
    gaussian, uniform = _noise(w, generator), _noise(w[:, 0], generator, draw=torch.rand)
    scale, accepted, records = math.sqrt(2 * h * T), 0, []
    V, gradient = potential.value(w), potential.gradient(w)
    for n in range(1, num_steps + 1):
        xi = next(gaussian)
        new = w - h * gradient + scale * xi
        new_gradient = potential.gradient(new)
        if method == "euler":
            w, gradient = new, new_gradient
        else:
            new_V = potential.value(new)
            # The log density of the step back, less that of the step: its noise is q - xi.
            q = h / scale * (gradient + new_gradient)
            log_ratio = (V - new_V) / T + 0.5 * (q * (2 * xi - q)).sum(-1)
            take = next(uniform).log() < log_ratio  # a NaN far out on a slope counts as no
            accepted += int(take.sum())
            V = torch.where(take, new_V, V)
            take = take.unsqueeze(-1)
            w, gradient = torch.where(take, new, w), torch.where(take, new_gradient, gradient)
        if n in record:
            records.append(w)
    positions = _finite(torch.stack(records), "step", h)
    acceptance = 1.0 if method == "euler" else accepted / (num_steps * len(w))
    return Chains(torch.tensor(record, dtype=torch.long), positions, acceptance)


def _noise(
    like: Tensor, generator: torch.Generator, *, draw: Callable[..., Tensor] = torch.randn
) -> Iterator[Tensor]:
    """Endless draws in the shape of ``like``, made in blocks because single ones are slow."""
    kind = {"dtype": like.dtype, "device": like.device}
    while True:
        yield from draw((BLOCK, *like.shape), generator=generator, **kind)


def _start(potential: Potential, start: Tensor) -> Tensor:
    w = _checks.finite("start", start).detach()
    if w.ndim != 2 or w.shape[1] != potential.dim or len(w) == 0:
        raise ValueError(
            f"start must have shape (M, {potential.dim}), one row per chain, got {tuple(w.shape)}."
        )
    return w


def _schedule(num_steps: int, burn_in: int, every: int) -> range:
    """The numbers of the steps to record; ``in`` takes no time for a range."""
    total = _checks.integer("num_steps", num_steps, at_least=1)
    skip = _checks.integer("burn_in", burn_in, at_least=0)
    stride = _checks.integer("every", every, at_least=1)
    record = range(skip + stride, total + 1, stride)
    if not record:
        raise ValueError(
            f"num_steps must exceed burn_in by at least every, got {total}, {skip} and {stride}."
        )
    return record


def _finite(positions: Tensor, name: str, value: float) -> Tensor:
    lost = ~torch.isfinite(positions).all(dim=-1)
    if lost.any():
        raise ValueError(
            f"{name} = {value:g} is too large: {int(lost.any(dim=0).sum())} of {lost.shape[1]} "
            "chains have diverged. Use a smaller one, or sample with method='metropolis'."
        )
    return positions


# --- gradient descent with noise ---------------------------------------------------------------


def descend(
    problem: FiniteSum,
    start: Tensor,
    *,
    lr: float,
    num_steps: int,
    seed: int,
    batch_size: int | None = None,
    temperature: float = 0.0,
    burn_in: int = 0,
    every: int = 1,
) -> Chains:
    """Run independent chains of GD, GDL, SGD or SGDL.

    ``w <- w - eta g + sqrt(2 eta T) xi``, where g is the mean gradient of a batch, drawn anew in
    each step and for each chain, uniformly and without replacement; without ``batch_size`` it is
    the gradient of the mean. GD has neither noise; GDL has the Gaussian one, at T > 0; SGD that of
    the batches; SGDL both.

    Args:
        problem: A mean over examples.
        start: (M, d), one row per chain.
        lr: Step size eta > 0.
        num_steps: Number of steps in all.
        seed: Seed of batches and noise.
        batch_size: Number of examples in a batch, at most N; None for all of them.
        temperature: T >= 0.
        burn_in: Steps at the beginning that are not recorded.
        every: Record one step in this many.

    Raises:
        ValueError: for arguments out of range, or chains that diverge.
    """
    eta = _checks.positive("lr", lr)
    T = _checks.positive("temperature", temperature, zero=True)
    w = _start(problem.potential, start)
    if batch_size is not None:
        _checks.integer("batch_size", batch_size, at_least=1)
        if batch_size > problem.num_examples:
            raise ValueError(
                f"batch_size must be at most {problem.num_examples}, the number of examples, "
                f"got {batch_size}."
            )
    record = _schedule(num_steps, burn_in, every)
    generator = torch.Generator(device=w.device).manual_seed(seed)
    batches = _batches(len(w), problem.num_examples, batch_size or 1, generator)
    gaussian, scale, records = _noise(w, generator), math.sqrt(2 * eta * T), []
    for n in range(1, num_steps + 1):
        if batch_size is None:
            gradient = problem.potential.gradient(w)
        else:
            chosen = next(batches)[..., None].expand(-1, -1, w.shape[1])
            gradient = problem.gradients(w).gather(1, chosen).mean(dim=1)
        w = w - eta * gradient
        if T > 0:
            w = w + scale * next(gaussian)
        if n in record:
            records.append(w)
    positions = _finite(torch.stack(records), "lr", eta)
    return Chains(torch.tensor(record, dtype=torch.long), positions)


def _batches(
    num_chains: int, num_examples: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Endless batches without replacement, one per chain, (M, b) indices, drawn in blocks."""
    shape = (BLOCK, num_chains, num_examples)
    while True:
        ranks = torch.rand(shape, generator=generator, device=generator.device)
        yield from ranks.topk(batch_size, dim=-1).indices


def noise_covariance(gradients: Tensor, batch_size: int) -> Tensor:
    """The exact covariance of SGD's noise, for batches drawn without replacement.

    ``(N - b) / (b (N - 1))`` times the covariance of the N gradients.

    Args:
        gradients: One gradient per example, (N, d).
        batch_size: b, from 1 to N.

    Returns:
        (d, d).
    """
    g = _checks.finite("gradients", gradients)
    b = _checks.integer("batch_size", batch_size, at_least=1)
    if g.ndim != 2 or len(g) < 2:
        raise ValueError(f"gradients must have shape (N, d) with N >= 2, got {tuple(g.shape)}.")
    if b > len(g):
        raise ValueError(f"batch_size must be at most {len(g)}, got {b}.")
    centred = g - g.mean(dim=0)
    return (len(g) - b) / (b * (len(g) - 1)) * centred.T @ centred / len(g)


# --- stability of a minimum that all examples share --------------------------------------------


def lyapunov_exponent(curvatures: Tensor, lr: float) -> float:
    """The rate at which SGD with batches of one leaves a shared minimum, per step.

    For losses ``h_n (w - w*)^2 / 2`` a step multiplies ``w - w*`` by ``1 - eta h_n``, so that
    ``log |w - w*|`` moves by the mean of ``log |1 - eta h_n|``: below zero, almost every path
    converges; above zero, almost every path leaves.

    >>> round(lyapunov_exponent(torch.tensor([1.0, 3.0]).double(), 4 / 3), 12) + 0.0
    0.0
    """
    h = _curvatures(curvatures)
    return float((1 - _checks.positive("lr", lr) * h).abs().log().mean())


def lyapunov_edge(curvatures: Tensor) -> float:
    """The smallest step size at which the Lyapunov exponent turns positive."""
    h = _curvatures(curvatures)
    # At 2 / min h every factor is at least 1 in size; the kinks at 1 / h_n are minus infinity.
    steps = torch.linspace(0, 2 / float(h.min()) * (1 + 1e-9), 20_001, dtype=torch.float64)[1:]
    exponents = (1 - steps[:, None] * h).abs().log().mean(dim=1)
    first = int((exponents > 0).nonzero()[0])
    low, high = float(steps[first - 1]), float(steps[first])
    return float(brentq(lambda eta: lyapunov_exponent(h, eta), low, high, xtol=1e-14))


def mean_square_edge(curvatures: Tensor) -> float:
    """The step size above which the mean of ``(w - w*)^2`` grows: ``2 mean(h) / mean(h^2)``.

    The condition of Wu, Ma & E 2018 for one weight and batches of one,
    ``mean((1 - eta h_n)^2) <= 1``.

    >>> mean_square_edge(torch.tensor([1.0, 3.0]).double())
    0.8
    """
    h = _curvatures(curvatures)
    return float(2 * h.mean() / (h**2).mean())


def _curvatures(curvatures: Tensor) -> Tensor:
    h = _checks.finite("curvatures", curvatures).to(torch.float64)
    if h.ndim != 1 or len(h) == 0 or not (h > 0).all():
        raise ValueError(f"curvatures must be positive, shape (N,), got {h.tolist()}.")
    return h


# --- how long it takes to leave a well ---------------------------------------------------------


def eyring_kramers(
    potential: Potential, minimum: Tensor, saddle: Tensor, *, temperature: float
) -> float:
    """The mean time to leave a well as T -> 0, in the time of ``dw = -grad V dt + sqrt(2 T) dB``.

    ``(2 pi / |l|) sqrt(|det V''(saddle)| / det V''(minimum)) e^{(V(saddle) - V(minimum)) / T}``,
    where l is the negative eigenvalue at the saddle (Berglund 2013); the relative error goes to
    zero with T.

    Args:
        potential: V, twice differentiable at both points.
        minimum: (d,).
        saddle: (d,), the lowest way out.
        temperature: T > 0.

    Raises:
        ValueError: if the Hessians do not have the signs of a minimum and of a saddle.
    """
    T = _checks.positive("temperature", temperature)
    curvatures = []
    for name, point, num_negative in (("minimum", minimum, 0), ("saddle", saddle, 1)):
        _checks.shape(name, _checks.finite(name, point), (potential.dim,))
        matrix = of_function(lambda p: potential.value(p["w"]), {"w": point}).matrix
        eigenvalues = torch.linalg.eigvalsh(matrix)
        if int((eigenvalues < 0).sum()) != num_negative or (eigenvalues == 0).any():
            raise ValueError(
                f"{name} must have {num_negative} negative and no zero curvature, got "
                f"{eigenvalues.tolist()}."
            )
        curvatures.append(eigenvalues)
    valley, top = curvatures
    log_ratio = 0.5 * float(top.abs().log().sum() - valley.log().sum())
    height = float(potential.value(saddle) - potential.value(minimum))
    return 2 * math.pi / float(top[0].abs()) * math.exp(log_ratio + height / T)


def passage_time(
    potential: Potential, *, start: float, end: float, temperature: float, points: int = 20_001
) -> float:
    """The exact mean time from ``start`` to ``end``, start < end, for one weight, by quadrature.

    ``(1/T) int_start^end e^{V(y)/T} int_{-inf}^y e^{-V(z)/T} dz dy``; the trapezoidal rule on
    ``points`` points between start and end.
    """
    T = _checks.positive("temperature", temperature)
    _one_weight(potential)
    if not start < end:
        raise ValueError(f"start must be below end, got {start!r} and {end!r}.")
    x = np.linspace(start, end, points)
    V = potential.value(torch.from_numpy(x)[:, None]).numpy() / T
    low = float(V.min())
    inner = cumulative_trapezoid(np.exp(low - V), x, initial=0.0)
    behind = Potential(
        1, potential.value, potential.gradient, potential.coordinate, potential.log_marginal,
        boundary=start, support=potential.support,
    )  # fmt: skip
    inner += math.exp(_log_masses(behind, T)[0] + low)
    return float(trapezoid(np.exp(V - low) * inner, x) / T)


def escape_times(
    potential: Potential,
    start: Tensor,
    *,
    temperature: float,
    step: float,
    seed: int,
    until: Callable[[Tensor], Tensor],
    max_steps: int = 100_000,
) -> Tensor:
    """The time at which each chain first satisfies ``until`` (M, d) -> (M,), with Euler steps.

    Args:
        potential: V.
        start: (M, d).
        temperature: T > 0.
        step: h > 0; the times are multiples of it, and late by part of a step.
        seed: Seed of the noise.
        until: Where a chain has arrived.
        max_steps: Most steps.

    Returns:
        (M,) times.

    Raises:
        ValueError: if a chain has not arrived after max_steps.
    """
    T, h = _checks.positive("temperature", temperature), _checks.positive("step", step)
    w = _start(potential, start)
    noise = _noise(w, torch.Generator(device=w.device).manual_seed(seed))
    scale = math.sqrt(2 * h * T)
    times = torch.full((len(w),), math.nan, dtype=torch.float64)
    waiting = torch.arange(len(w))
    for n in range(1, _checks.integer("max_steps", max_steps, at_least=1) + 1):
        w = w - h * potential.gradient(w) + scale * next(noise)[: len(w)]
        arrived = until(w)
        if arrived.any():
            times[waiting[arrived]] = n * h
            waiting, w = waiting[~arrived], w[~arrived]
            if not len(waiting):
                return times
    raise ValueError(
        f"max_steps = {max_steps} is too small: {len(waiting)} of {len(times)} chains have not "
        "arrived. Raise it, or the temperature."
    )
