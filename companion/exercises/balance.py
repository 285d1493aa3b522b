"""Graders of the chapter on balance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from companion.exercises._grading import Grader, Wrong, call, close, numbers, one_number

_CHAIN = (2.0, 1.0, 3.0)  # w_1 and w_2 at the start, w_2 at the end


def _balance_1(answer: Any) -> str:
    first, second, end = _CHAIN
    conserved = first**2 - second**2
    target = math.sqrt(end**2 + conserved)
    return one_number(
        answer,
        target,
        right="The difference of the squares is the same at the end.",
        mistakes={
            end + first - second: "This keeps the difference of the norms: the law is about their "
            "squares.",
            end**2 + conserved: "This is the square of the weight.",
            end * first / second: "This keeps the ratio of the norms: the law is about the "
            "difference of their squares.",
            math.sqrt(end**2 - conserved): "Wrong sign: the larger weight stays the larger one.",
            first * second / end: "This keeps the product, and with it the network's output.",
        },
        otherwise="Not conserved. Which combination of the two weights has the same value at the "
        "start and at the end?",
    )


_STEP = (2.0, 0.5, 0.1)  # w_1, w_2, eta


def _balance_2(answer: Any) -> str:
    w1, w2, eta = _STEP
    loss = math.exp(-w1 * w2)
    target = eta**2 * loss**2 * (w2**2 - w1**2)
    return one_number(
        answer,
        target,
        right="The square of the step size times the difference of the squared gradients.",
        mistakes={
            target / eta: "Off by a factor: the drift of one step has the square of the step size.",
            target / loss: "The gradient holds the loss, and it enters squared.",
            target / loss**2: "The loss is missing in the gradient.",
            eta**2 * loss**2 * (w2 - w1): "The gradients enter by their squares.",
            (w1 + eta * w2 * loss) ** 2
            - (w2 + eta * w1 * loss) ** 2: "This is the difference after "
            "the step: its change is asked for.",
            (w1 + eta * w2 * loss) ** 2 - w1**2: "This is the change of one square alone.",
            (w2 + eta * w1 * loss) ** 2 - w2**2: "This is the change of one square alone.",
            0.0: "The flow conserves the difference; a step of finite size does not.",
        },
        otherwise="Not the change. Compute both gradients of the loss, take the step, and compare "
        "the squares.",
    )


def _balance_3(answer: Any) -> str:
    lam, fraction = 0.01, 0.01
    target = -math.log(fraction) / (2 * lam)
    return one_number(
        answer,
        target,
        right="Decay acts on the squares, so they shrink at twice the rate of the weights.",
        mistakes={
            2 * target: "This is the time of the weights themselves: squares decay faster.",
            target / 2: "Off by a factor in the rate: the penalty has a 1/2 in front.",
            target / math.log(10): "The natural logarithm is asked for.",
            target * lam: "The rate holds lambda.",
            2 * target * lam: "The rate holds lambda.",
        },
        otherwise="Not the time. Which linear equation does the difference of the squares obey?",
        rel=5e-3,
    )


def _balance_4(answer: Any) -> str:
    rng = np.random.default_rng(20200609)
    for d, h, outputs in ((3, 4, 1), (2, 5, 1), (4, 4, 4)):
        first, second = rng.standard_normal((h, d)), rng.standard_normal((outputs, h))
        found = call(answer, *map(_as_tensor, (first, second)), name="unit_balance")
        found = numbers(found, (h,), "an array of shape (h,), one number per hidden unit")
        into, out = (first**2).sum(axis=1), (second**2).sum(axis=0)
        if close(found, into - out, rel=1e-9, abs_=1e-12):
            continue
        if close(found, out - into, rel=1e-9, abs_=1e-12):
            raise Wrong("Wrong sign: incoming minus outgoing is asked for.")
        if close(found, np.sqrt(into) - np.sqrt(out), rel=1e-9, abs_=1e-12):
            raise Wrong("These are differences of norms: their squares are conserved.")
        if close(found, into + out, rel=1e-9, abs_=1e-12):
            raise Wrong("The sum grows along the flow.")
        if close(found, into * out, rel=1e-9) or close(found, np.sqrt(into * out), rel=1e-9):
            raise Wrong("A product is unchanged by rescaling the unit, but the flow changes it.")
        if d == h and (
            close(found, (first**2).sum(axis=0) - out, rel=1e-9, abs_=1e-12)
            or close(found, into - (second**2).sum(axis=1), rel=1e-9, abs_=1e-12)
        ):
            raise Wrong("Rows and columns are mixed up.")
        raise Wrong(
            "Not conserved. Row j of W_1 enters unit j, and column j of W_2 leaves it: compare the "
            "sums of their squares."
        )
    return "One conserved number for every hidden unit."


def _balance_5(answer: Any) -> str:
    rng = np.random.default_rng(20200609)
    for h, d in ((3, 2), (4, 3)):
        first, second = rng.standard_normal((h, d)), rng.standard_normal((1, h))
        grads = (rng.standard_normal((h, d)), rng.standard_normal((1, h)))
        # Make <W_k, G_k> the same in both layers, as it is for gradients of a homogeneous network.
        wanted = (first * grads[0]).sum()
        g2 = grads[1] + second * (wanted - (second * grads[1]).sum()) / (second**2).sum()
        missed = []
        for eta in (0.02, 0.01):
            W1, W2 = _step(answer, first, second, grads[0], g2, eta)  # noqa: N806
            before = (first**2).sum() - (second**2).sum()
            if not close((W1**2).sum() - (W2**2).sum(), before, rel=1e-10, abs_=1e-10):
                _explain_drift(W1, W2, first, second, grads[0], g2, eta)
            moved = np.hypot(
                np.linalg.norm(W1 - first + eta * grads[0]), np.linalg.norm(W2 - second + eta * g2)
            )
            missed.append(moved)
        size = np.hypot(np.linalg.norm(grads[0]), np.linalg.norm(g2))
        if missed[0] > 0.02 * size / 2 or missed[1] > missed[0] / 3:
            _explain_step(W1, W2, first, second, grads[0], g2, eta)
    return "The law holds exactly, and the step is gradient descent to first order."


def _step(answer: Any, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """The two layers that the reader's step returns."""
    found = call(answer, *[_as_tensor(a) for a in arguments], name="step")
    what = "the two layers after the step, in the shapes of W1 and W2"
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise Wrong(f"Wrong type: return {what}.")
    return numbers(found[0], arguments[0].shape, what), numbers(found[1], arguments[1].shape, what)


def _explain_drift(W1, W2, first, second, g1, g2, eta) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    plain = close(W1, first - eta * g1, rel=1e-10, abs_=1e-12) and close(
        W2, second - eta * g2, rel=1e-10, abs_=1e-12
    )
    if plain:
        raise Wrong("This is gradient descent itself: its difference drifts with eta squared.")
    raise Wrong("The difference of the squared norms after the step is not the one before it.")


def _explain_step(W1, W2, first, second, g1, g2, eta) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    def gap(step: float) -> float:
        return float(
            np.hypot(
                np.linalg.norm(W1 - first - step * g1), np.linalg.norm(W2 - second - step * g2)
            )
        )

    size = eta * np.hypot(np.linalg.norm(g1), np.linalg.norm(g2))
    if gap(0.0) < 1e-9 * size:
        raise Wrong("The difference is conserved, but nothing moves.")
    if gap(eta) < 0.1 * size:
        raise Wrong("Wrong sign: the difference is conserved, but the step goes uphill.")
    if close(np.linalg.norm(W1), np.linalg.norm(first), rel=1e-9):
        raise Wrong("Each layer keeps its norm: it is the difference alone that is conserved.")
    raise Wrong(
        "The difference is conserved, but the step is not that of gradient descent up to terms of "
        "second order in eta."
    )


def _as_tensor(value: Any) -> Any:
    """A float64 tensor of an array; a plain number stays one."""
    if not isinstance(value, np.ndarray):
        return value
    import torch

    return torch.tensor(value)


GRADERS: dict[str, Grader] = {
    "1": _balance_1,
    "2": _balance_2,
    "3": _balance_3,
    "4": _balance_4,
    "5": _balance_5,
}
