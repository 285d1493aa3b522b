"""Graders of the homogeneity chapter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_POWER, _LAYERS = 3, 3  # exercise 1


def _homogeneity_1(answer: Any) -> str:
    given = numbers(answer, (_LAYERS,), "three numbers, one degree per layer")
    target = np.array([float(_POWER**k) for k in reversed(range(_LAYERS))])
    if close(given, target, rel=1e-9):
        return "Each activation above a layer raises the power of its factor once more."
    mistakes = [
        (target[::-1], "Reversed: a factor on the first layer passes the most activations."),
        (np.ones(_LAYERS), "These are the degrees for the ReLU itself, without the power."),
        (
            _POWER * np.arange(_LAYERS)[::-1],
            "The powers multiply from activation to activation, they do not add; and the last "
            "layer passes none.",
        ),
        (
            1 + (_POWER - 1) * np.arange(_LAYERS)[::-1],
            "The powers multiply from activation to activation, they do not add.",
        ),
        (target * _POWER, "One activation too many: there is none after the last layer."),
        (2.0 ** np.arange(_LAYERS)[::-1], "These are the degrees for the square of the ReLU."),
    ]
    for mistaken, reason in mistakes:
        if close(given, mistaken, rel=1e-9):
            raise Wrong(reason)
    right = int(np.isclose(given, target).sum())
    if right:
        raise Wrong("Not all degrees are right: follow the factor of each layer to the output.")
    raise Wrong("Not the degrees: follow a factor on each layer through the activations above it.")


def _paths(W: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network of exercise 2."""
    h = x @ W[0].T
    h = h + np.maximum(h @ W[1].T, 0)
    h = np.maximum(h @ W[2].T, 0)
    return ((h @ W[3].T) @ W[4].T)[:, 0]


def _homogeneous_layers() -> np.ndarray:
    """1 for each layer in which doubling doubles the output, on a random network."""
    rng = np.random.default_rng(20200609)
    W = [rng.normal(size=(5, 5)) for _ in range(4)] + [rng.normal(size=(1, 5))]
    x = rng.normal(size=(8, 5))
    doubled = [_paths([*W[:k], 2 * W[k], *W[k + 1 :]], x) for k in range(5)]
    return np.array([float(np.allclose(f, 2 * _paths(W, x))) for f in doubled])


def _homogeneity_2(answer: Any) -> str:
    given = numbers(answer, (5,), "five numbers, 1 or 0 for each layer")
    if not np.isin(given, (0.0, 1.0)).all():
        raise Wrong("Wrong type: give 1 or 0 for each layer.")
    target = _homogeneous_layers()
    if np.array_equal(given, target):
        return "Only a layer with a path around it loses the property."
    if np.array_equal(given, 1 - target):
        raise Wrong("All answers are turned round: 1 means that the lemma holds.")
    if (given >= target).all():
        raise Wrong("A layer with a path around it does not scale the whole of the output.")
    if (given <= target).all():
        raise Wrong("Too strict: scale that layer, and follow the factor along every path.")
    raise Wrong("Scale one layer at a time, and ask whether every path to the output carries it.")


_A, _W = math.log(3), np.array([1.0, -1.0])  # exercise 3
_X, _Y = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([1.0, -1.0])


def _homogeneity_3(answer: Any) -> str:
    p = np.exp(-_Y * _A * np.maximum(_X @ _W, 0))
    p /= p.sum()
    gram = _X @ _X.T
    theta = p[0] * gram[0, 1] / (p[1] * gram[1, 1])
    return one_number(
        answer,
        theta,
        right="With it the two pulls on the second preactivation cancel.",
        mistakes={
            gram[0, 1] / gram[1, 1]: "The examples do not pull equally: weigh them by p.",
            p[0] * gram[0, 1] / p[1]: "Divide by the squared length of the second point.",
            p[0] / (p[1] * gram[1, 1]): "The inner product of the two points is missing.",
            p[1] * gram[1, 1] / (p[0] * gram[0, 1]): "Upside down: a slope lies between 0 and 1.",
            0.5: "Half of the two sides keeps the unit on the kink only if they push equally.",
            p[0]: "This is the weight of the first example; balance the pulls of both.",
            math.exp(-_A) * gram[0, 1] / gram[1, 1]: "The first margin is not just a: multiply "
            "by the preactivation.",
        },
        otherwise="Not the slope: set the velocity of the second preactivation to zero and solve.",
    )


def _vectors() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(20200610)
    sizes = (3, 1, 10, 100_000)
    return [(rng.normal(size=n) * 2.5, rng.normal(size=n)) for n in sizes]


def _homogeneity_4(answer: Any) -> str:
    for w, u in _vectors():
        large = len(w) > 1000
        try:
            result = call(answer, w.copy(), u.copy(), name="tangential")
        except Wrong as wrong:
            if large and "emory" in str(wrong):
                raise Wrong("Out of memory on long vectors: do not form the matrix.") from None
            raise
        found = numbers(result, w.shape, "an array with as many entries as the vectors")
        square, inner = w @ w, w @ u
        target = u - w * (inner / square)
        if close(found, target, rel=1e-9, abs_=1e-10):
            continue
        readings = [
            (u - w * inner, "Normalize: w is not a unit vector."),
            (u - w * inner / math.sqrt(square), "Normalize twice: v occurs two times in S."),
            (w * (inner / square), "This is the part along w; the other part is wanted."),
            (target / math.sqrt(square), "This is divided by the norm, as in relation 1."),
            (-target, "Wrong sign."),
            (w - u * (inner / (u @ u)), "The two vectors are exchanged."),
            (u, "Nothing is projected."),
        ]
        for reading, reason in readings:
            if close(found, reading, rel=1e-9, abs_=1e-10):
                raise Wrong(reason)
        if abs(found @ w) > 1e-8 * np.linalg.norm(w) * np.linalg.norm(u):
            raise Wrong("The result is not orthogonal to w.")
        raise Wrong("Orthogonal to w, but it is not the part of u that is.")
    return "The result is orthogonal to w, and the rest of u is along w."


def _biased(W: list[np.ndarray], b: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network of exercise 5."""
    h = np.maximum(x @ W[0].T + b[0], 0)
    return (np.maximum(h @ W[1].T + b[1], 0) @ W[2].T)[:, 0]


def _homogeneity_5(answer: Any) -> str:
    a1, b1, a2, b2, a3 = numbers(answer, (5,), "five exponents: W_1, b_1, W_2, b_2, W_3")
    if min(a1, b1, a2, b2, a3) <= 0:
        raise Wrong("All exponents must be positive.")
    if max(a1, b1, a2, b2, a3) > 50:
        raise Wrong("Too large an exponent: the factors of the layers together must give c.")
    rng = np.random.default_rng(20200611)
    W = [rng.normal(size=(6, 4)), rng.normal(size=(6, 6)), rng.normal(size=(1, 6))]
    b, x = [rng.normal(size=6), rng.normal(size=6)], rng.normal(size=(20, 4))

    def scaled(c: float, exponents: tuple[float, ...]) -> np.ndarray:
        p, q, r, s, t = (c**e for e in exponents)
        return _biased([p * W[0], r * W[1], t * W[2]], [q * b[0], s * b[1]], x)

    base, given = _biased(W, b, x), (a1, b1, a2, b2, a3)
    if all(close(scaled(c, given), c * base, rel=2e-2, abs_=1e-9) for c in (0.4, 3.0)):
        return "Each bias is scaled like the sum that it enters."
    total = a1 + a2 + a3
    if close(scaled(2.0, given), 2.0**total * base, rel=1e-2):
        raise Wrong("f is multiplied by a power of c, but not by c itself: look at the sum.")
    if not math.isclose(b1, a1, rel_tol=1e-2):
        raise Wrong("The first bias is added to W_1 x: both must be scaled by the same factor.")
    if math.isclose(b2, a2, rel_tol=1e-2):
        raise Wrong("The second bias is added to W_2 h, and h is scaled already.")
    raise Wrong("The second bias must be scaled like the sum that it enters.")


GRADERS: dict[str, Grader] = {
    "1": _homogeneity_1,
    "2": _homogeneity_2,
    "3": _homogeneity_3,
    "4": _homogeneity_4,
    "5": _homogeneity_5,
}
