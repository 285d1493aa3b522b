"""Graders of the chapter on degenerate minima."""

from __future__ import annotations

from typing import Any

import numpy as np

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number

_WEIGHTS, _SAMPLES, _REPEATED = 20, 8, 2


def _degenerate_1(answer: Any) -> str:
    rank = _SAMPLES - _REPEATED
    return one_number(
        answer,
        _WEIGHTS - rank,
        right="The rank of J is the number of independent rows.",
        mistakes={
            _WEIGHTS - _SAMPLES: "This is W - N, the lower bound; repeated samples repeat a row.",
            rank: "This is the number of positive eigenvalues.",
            _SAMPLES: "This is the number of samples.",
            _REPEATED: "This is what the repeated samples add to W - N.",
            _WEIGHTS: "Then the Hessian would be zero: J is not.",
            _WEIGHTS - _SAMPLES - _REPEATED: "Repeated samples lower the rank: they add zeros.",
        },
        otherwise="Count the weights less the rank of J.",
    )


_A, _V = np.array([2.0, -1.0]), 3.0


def _degenerate_2(answer: Any) -> str:
    t = numbers(answer, (3,), "three numbers, two for a and one for v")
    size = np.linalg.norm(t)
    if size == 0:
        raise Wrong("The zero vector is no direction.")
    tangent = np.array([*_A, -_V])
    tangent = tangent / np.linalg.norm(tangent)
    if abs(abs(t @ tangent) / size - 1) < BY_HAND**2:
        return "The incoming weights grow as the outgoing one shrinks, at equal relative rates."
    parallel = np.array([*_A, _V])
    if abs(abs(t @ parallel) / size / np.linalg.norm(parallel) - 1) < BY_HAND**2:
        raise Wrong("Wrong sign in one part: where a grows, v must shrink.")
    squares = np.array([*_A, -2 * _V])
    if abs(abs(t @ squares) / size / np.linalg.norm(squares) - 1) < BY_HAND**2:
        raise Wrong("That is the symmetry of a unit that squares its input; this one is a ReLU.")
    if abs(t[2]) <= BY_HAND * size:
        raise Wrong("The outgoing weight changes too.")
    if np.abs(t[:2]).max() <= BY_HAND * size:
        raise Wrong("The incoming weights change too.")
    if abs(t[0] * _A[1] - t[1] * _A[0]) > BY_HAND * size * np.linalg.norm(_A):
        raise Wrong("The incoming weights must keep their direction.")
    raise Wrong("Right directions, wrong ratio: differentiate both parts at c = 1.")


def _degenerate_3(answer: Any) -> str:
    import torch

    rng = np.random.default_rng(3)
    for num_samples, num_weights in ((3, 7), (1, 4), (5, 6)):
        J, r = rng.normal(size=(num_samples, num_weights)), rng.normal(size=num_samples)  # noqa: N806
        found = call(answer, torch.tensor(J), torch.tensor(r), name="correction")
        step = numbers(found, (num_weights,), "an array of shape (W,)")
        right = -np.linalg.pinv(J) @ r
        if close(step, right, rel=1e-8, abs_=1e-10):
            continue
        if close(step, -right, rel=1e-8, abs_=1e-10):
            raise Wrong("Wrong sign: the step must cancel the residual, not double it.")
        if close(step, -J.T @ r, rel=1e-8, abs_=1e-10):
            raise Wrong("This is a gradient step: it leads downhill, but not to zero residual.")
        if close(step, -2 * J.T @ r, rel=1e-8, abs_=1e-10):
            raise Wrong("This is minus the gradient of the loss: it does not solve J step = -r.")
        if close(J @ step, -r, rel=1e-8, abs_=1e-10):
            raise Wrong("It solves the equations, but is not the shortest: it has a part in ker J.")
        raise Wrong("It does not solve the linearized equations J step = -r.")
    return "It solves the equations, and has no part in ker J."


_S = np.array([-1.0, 0.0, 1.0])


def _degenerate_4(answer: Any) -> str:
    y = numbers(answer, (3,), "three numbers, one target per sample")
    xi = np.stack([np.ones(3), _S], axis=1)
    z = xi @ np.array([1.0, 1.0])
    J = np.column_stack([2 * z[:, None] * xi, z**2])  # noqa: N806
    r = z**2 - y
    if np.linalg.norm(r) <= BY_HAND:
        raise Wrong("The loss is zero there: the weights are a global minimum.")
    if np.linalg.norm(J.T @ r) > BY_HAND * np.linalg.norm(r):
        raise Wrong(
            "The weights are not a critical point: the residuals must be orthogonal to every "
            "column of J."
        )
    B = 4 * np.einsum("n,ni,nj->ij", r, xi, xi)  # noqa: N806
    if np.linalg.eigvalsh(B)[0] >= 0:
        raise Wrong("A critical point, but with the other sign of B: those are minima.")
    H = 2 * J.T @ J  # noqa: N806 (J^T r = 0, so the mixed second derivatives cancel)
    H[:2, :2] += B
    if np.linalg.eigvalsh(H)[0] < -1e-9:
        raise Wrong("The single unit has a way down already: make the residual smaller.")
    return "The single unit has no way down, and two copies have: B has a negative eigenvalue."


def _degenerate_5(answer: Any) -> str:
    a0, a1, b0, b1, v, u = numbers(answer, (6,), "six numbers, a0, a1, b0, b1, v, u")
    y = np.array([-2.0, 7.0, 8.0])
    residual = v * (a0 + a1 * _S) ** 2 + u * (b0 + b1 * _S) ** 2 - y
    loss = float(residual @ residual)
    if loss <= BY_HAND**2:
        return "All three samples are met, with outgoing weights of both signs."
    if v >= 0 and u >= 0:
        raise Wrong("With two outgoing weights of that sign no output is negative.")
    if v <= 0 and u <= 0:
        raise Wrong("With two outgoing weights of that sign no output is positive.")
    swapped = u * (a0 + a1 * _S) ** 2 + v * (b0 + b1 * _S) ** 2 - y
    if swapped @ swapped <= BY_HAND**2:
        raise Wrong("The outgoing weights are in the wrong order: v belongs to a, u to b.")
    crossed = v * (a0 + b0 * _S) ** 2 + u * (a1 + b1 * _S) ** 2 - y
    if crossed @ crossed <= BY_HAND**2:
        raise Wrong("The incoming weights are transposed: give those of one unit after another.")
    raise Wrong("The signs are possible, but the loss is not zero: some sample is missed.")


GRADERS: dict[str, Grader] = {
    "1": _degenerate_1,
    "2": _degenerate_2,
    "3": _degenerate_3,
    "4": _degenerate_4,
    "5": _degenerate_5,
}
