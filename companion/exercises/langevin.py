"""Graders of the chapter on SGD and Langevin dynamics."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_DRIFT, _NOISE = 3.0, 0.6


def _langevin_1(answer: Any) -> str:
    a, s = _DRIFT, _NOISE
    return one_number(
        answer,
        s**2 / (2 * a),
        right="Drift and diffusion cancel at that temperature.",
        mistakes={
            s**2 / a: "Off by a factor: dB of variance dt spreads a density at half the rate.",
            s**2 / (4 * a): "Off by a factor of two: the flux has one factor 1/2.",
            s / (2 * a): "It is the square of the coefficient of dB that spreads the density.",
            s / a: "It is the square of the coefficient of dB that spreads the density.",
            2 * a / s**2: "This is the inverse temperature.",
            a / s**2: "This looks like an inverse temperature, and a factor is missing.",
            s**2 / 2: "The coefficient of the drift is missing.",
            1 / (2 * a): "This is for dB with the coefficient one.",
            s**2 * a / 2: "A stronger drift confines more: it lowers the temperature.",
        },
        otherwise="Write down the probability flux of the density, and let it vanish.",
    )


_STIFF, _SOFT, _DEPTH, _DIMS = 25.0, 1.0, 0.3, 3


def _langevin_2(answer: Any) -> str:
    log_ratio = math.log(_STIFF / _SOFT)
    return one_number(
        answer,
        2 * _DEPTH / (_DIMS * log_ratio),
        right="Above that temperature the wide minimum is the more probable one.",
        mistakes={
            _DEPTH / (_DIMS * log_ratio): "Off by a factor: the determinant has the power -1/2.",
            2 * _DEPTH / log_ratio: "This is for a single direction; the widths multiply.",
            _DEPTH / log_ratio: "Count the directions, and mind the power of the determinant.",
            0.5 * _DIMS * log_ratio / _DEPTH: "This is the inverse temperature.",
            2 * _DEPTH / (_DIMS * math.log10(_STIFF / _SOFT)): "Use the natural logarithm.",
            2 * _DEPTH / (_DIMS * (_STIFF - _SOFT)): "The ratio of the curvatures enters by its "
            "logarithm.",
        },
        otherwise="Set the two expressions of Laplace's method equal and solve for T.",
    )


def _langevin_3(answer: Any) -> str:
    rng = np.random.default_rng(3)
    # The first batches are of two: at one, and at all examples, some mistakes look alike.
    for N, d, b in ((5, 3, 2), (5, 2, 1), (6, 2, 4), (4, 2, 4)):  # noqa: N806
        g = rng.normal(size=(N, d)) * [1.0, 3.0, 0.5][:d] + rng.normal(size=d)
        found = call(answer, g.copy(), b, name="noise_covariance")
        C = numbers(found, (d, d), "an array of shape (d, d)")  # noqa: N806
        batches = [g[list(batch)].mean(axis=0) for batch in itertools.combinations(range(N), b)]
        noise = np.array(batches) - g.mean(axis=0)
        right = noise.T @ noise / len(noise)
        if close(C, right, rel=1e-9, abs_=1e-12):
            continue
        centred = g - g.mean(axis=0)
        full = centred.T @ centred / N
        if close(C, g.T @ g / N, rel=1e-9) or close(C, g.T @ g / N / b, rel=1e-9):
            raise Wrong("The mean gradient is missing: subtract it first.")
        if close(C, full / b, rel=1e-9):
            raise Wrong("This is for draws with replacement; without, they are not independent.")
        if close(C, full, rel=1e-9) or close(C, full * N / (N - 1), rel=1e-9):
            raise Wrong("The size of the batch must matter.")
        if close(C, right * N / (N - 1), rel=1e-9):
            raise Wrong("Nearly: these N examples are all there are, so divide by their number.")
        if close(C, full / b * (N - b) / N, rel=1e-9):
            raise Wrong("Nearly: check the correction at batches of one, where it must be one.")
        if close(C, right * b, rel=1e-9) or close(C, right * b**2, rel=1e-9):
            raise Wrong("This is larger: the noise is that of the mean over the batch.")
        raise Wrong("It is not the covariance over all batches of that size.")
    return "It agrees with the average over all batches."


def _langevin_4(answer: Any) -> str:
    cases = (
        (lambda w: 0.5 * w**2, lambda w: w, 0.3, 0.9, 0.5, 0.4),
        (lambda w: 0.5 * w**2, lambda w: w, 0.9, 0.3, 0.5, 0.4),
        (lambda w: 0.5 * (w**2 - 1) ** 2, lambda w: 2 * w * (w**2 - 1), 0.4, -0.8, 0.25, 0.3),
        (lambda w: 0.5 * (w**2 - 1) ** 2, lambda w: 2 * w * (w**2 - 1), 1.4, 2.2, 0.25, 0.1),
        (lambda w: 0.5 * (w**2 - 1) ** 2, lambda w: 2 * w * (w**2 - 1), 3.0, 1.2, 0.02, 0.1),
    )
    values, readings = [], []
    for case in cases:
        found = call(answer, *case, name="acceptance")
        value = float(numbers(found, (), "one number, a probability"))
        if value > 1:
            raise Wrong("More than one: a probability is at most one.")
        if value < 0:
            raise Wrong("Negative: a probability is at least zero.")
        values.append(value)
        readings.append(_readings(*case))
    for reason in readings[0]:  # a reading must explain all cases: clipped at 1, one may not tell
        ratios = [min(1.0, reading[reason]) for reading in readings]
        if close(values, ratios, rel=1e-9, abs_=1e-300):
            if reason != "right":
                raise Wrong(reason)
            return "Boltzmann's density is stationary under these acceptances, whatever the step."
    raise Wrong("It is not the ratio of Metropolis and Hastings for this proposal.")


def _readings(V: Any, slope: Any, x: float, y: float, T: float, h: float) -> dict[str, float]:  # noqa: N803
    """The ratio of Metropolis and Hastings, and what typical mistakes make of it."""

    def log_proposal(to: float, start: float, spread: float = 2 * h * T) -> float:
        return -((to - start + h * slope(start)) ** 2) / (2 * spread)

    depth = (V(x) - V(y)) / T
    forth, back = log_proposal(y, x), log_proposal(x, y)
    wide = log_proposal(x, y, 4 * h * T) - log_proposal(y, x, 4 * h * T)
    tight = log_proposal(x, y, h * T) - log_proposal(y, x, h * T)
    logs = {
        "right": depth + back - forth,
        "The proposal is missing: a step and the step back are not equally likely.": depth,
        "The densities of the proposal are the wrong way round.": depth + forth - back,
        "The wrong sign of V: lower losses are more probable.": -depth + back - forth,
        "The temperature is missing in the density.": depth * T + back - forth,
        "The variance of the proposal is 2 h T.": depth + wide,
        "The variance of the proposal is 2 h T, not h T.": depth + tight,
    }
    return {reason: math.exp(min(value, 700.0)) for reason, value in logs.items()}


def _langevin_5(answer: Any) -> str:
    h1, h2, eta = numbers(answer, (3,), "three numbers, h1, h2 and eta")
    if h1 <= 0 or h2 <= 0:
        raise Wrong("The curvatures must be positive, so that both losses have a minimum.")
    if eta <= 0:
        raise Wrong("The step size must be positive.")
    if eta * (h1 + h2) / 2 <= 2:
        raise Wrong("GD does not diverge: its factor is not beyond minus one.")
    factors = np.abs(1 - eta * np.array([h1, h2]))
    product = float(factors.prod())
    if product >= 1:
        raise Wrong("Almost every path of SGD leaves: the mean logarithm of the factors is not "
                    "negative. Let one factor be close to zero.")  # fmt: skip
    return "GD diverges there, and almost every path of SGD converges."


GRADERS: dict[str, Grader] = {
    "1": _langevin_1,
    "2": _langevin_2,
    "3": _langevin_3,
    "4": _langevin_4,
    "5": _langevin_5,
}
