"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.landscape import hessian, minima
from companion.networks import MLP


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- degenerate.1: counting ----------------------------------------------------------------------


def test_the_count() -> None:
    """A network with 20 weights, six random samples and two repetitions."""
    net = minima.SmoothMLP((4, 4, 1))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, W = torch.cat([x, x[:2]]), net.init(seed=0)
    assert net.num_params == 20 and len(x) == 8
    zeros = minima.nullity(net, W, x, net(W, x)).num_zero
    assert exercises.check("degenerate.1", zeros).correct


MISTAKES = [
    ("1", 12, "lower bound"),
    ("1", 6, "positive eigenvalues"),
    ("1", 8, "number of samples"),
    ("1", 2, "repeated samples add"),
    ("1", 20, "would be zero"),
    ("1", 10, "add zeros"),
    ("1", 13, "less the rank"),
    ("1", [14], "Wrong shape"),
    ("1", "14", "Wrong type"),
]


SOLUTIONS = [("1", 14), ("1", torch.tensor(14)), ("2", [2, -1, -3]), ("4", [1 / 4, 1.0, 4.0])]


# --- degenerate.2: a symmetry --------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, -2.0, 1e-3])
def test_the_tangent(factor: float) -> None:
    c = sympy.symbols("c")
    curve = sympy.Matrix([2 * c, -c, 3 / c])
    tangent = np.array(curve.diff(c).subs(c, 1), dtype=float).ravel()
    assert exercises.check("degenerate.2", factor * tangent).correct
    net = MLP((2, 1, 1))  # the Hessian maps it to zero at a critical point
    W = {"W1": torch.tensor([[2.0, -1.0]]).double(), "W2": torch.tensor([[3.0]]).double()}
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, 0.0]]).double()
    y = minima.critical_targets(net, W, x)
    H = hessian.hessian(net, W, x, y, loss="square", reduction="sum").matrix
    assert (H @ torch.as_tensor(tangent)).abs().max() < 1e-12


MISTAKES += [
    ("2", [2, -1, 3], "Wrong sign in one part"),
    ("2", [2, -1, -6], "squares its input"),
    ("2", [2, -1, 0], "outgoing weight changes"),
    ("2", [0, 0, -3], "incoming weights change"),
    ("2", [1, 2, -3], "keep their direction"),
    ("2", [2, -1, -1], "wrong ratio"),
    ("2", [0, 0, 0], "no direction"),
    ("2", [2, -1], "Wrong shape"),
    ("2", "a", "Wrong type"),
]


# --- degenerate.3: the correction ----------------------------------------------------------------


def by_normal_equations(J: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return -J.T @ torch.linalg.solve(J @ J.T, r)


def by_lstsq(J: torch.Tensor, r: torch.Tensor) -> np.ndarray:
    return np.linalg.lstsq(J.numpy(), -r.numpy(), rcond=None)[0]


def with_a_kernel_part(J: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    step, extra = by_normal_equations(J, r), torch.ones(J.shape[1], dtype=J.dtype)
    return step + extra - torch.linalg.pinv(J) @ (J @ extra)


SOLUTIONS += [
    ("3", by_normal_equations),
    ("3", by_lstsq),
    ("3", lambda J, r: -torch.linalg.pinv(J) @ r),
]


MISTAKES += [
    ("3", lambda J, r: -by_normal_equations(J, r), "Wrong sign"),
    ("3", lambda J, r: -J.T @ r, "gradient step"),
    ("3", lambda J, r: -2 * J.T @ r, "gradient of the loss"),
    ("3", with_a_kernel_part, "not the shortest"),
    ("3", lambda J, r: 2 * by_normal_equations(J, r), "does not solve"),
    ("3", lambda J, r: r, "Wrong shape"),
    ("3", lambda J, r: None, "Wrong type"),
    ("3", lambda J: J, "raised TypeError"),
    ("3", torch.ones(3), "the function itself"),
]


# --- degenerate.4: targets -----------------------------------------------------------------------


@given(st.floats(0.1, 0.4))
def test_targets_that_give_saddles(first: float) -> None:
    assert exercises.check("degenerate.4", [first, 1.0, 4.0]).correct
    net = minima.SmoothMLP((2, 2, 1), "square")
    x = torch.tensor([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]).double()
    W = {"W1": torch.ones(2, 2).double(), "W2": torch.tensor([[0.5, 0.5]]).double()}
    y = torch.tensor([first, 1.0, 4.0]).double()
    at = hessian.spectrum(net, W, x, y, loss="square", reduction="sum")
    assert at.num_negative == 1
    small, one = (
        minima.SmoothMLP((2, 1, 1), "square"),
        {"W1": W["W1"][:1], "W2": 2 * W["W2"][:, :1]},
    )
    at = hessian.spectrum(small, one, x, y, loss="square", reduction="sum")
    assert at.num_negative == 0


MISTAKES += [
    ("4", [0, 1, 4], "global minimum"),
    ("4", [-1, 1, 4], "other sign of B"),
    ("4", [1, 2, 4], "not a critical point"),
    ("4", [1, 1, 4], "has a way down already"),
    ("4", [1, 1], "Wrong shape"),
    ("4", None, "Wrong type"),
]


# --- degenerate.5: zero loss ---------------------------------------------------------------------


def zero_loss() -> list[float]:
    values, vectors = np.linalg.eigh(np.array([[7, 2.5], [2.5, -4]]))
    return [*vectors[:, 0], *vectors[:, 1], *values]


def rescaled() -> list[float]:
    a0, a1, b0, b1, v, u = zero_loss()
    return [2 * a0, 2 * a1, b0, b1, v / 4, u]


COMPLETED_SQUARE = [1, 5 / 14, 0, 1, 7, -4 - 25 / 28]

SOLUTIONS += [("5", zero_loss()), ("5", rescaled()), ("5", COMPLETED_SQUARE)]


MISTAKES += [
    ("5", [2, 1, 2, 1, 0.5, 0.5], "no output is negative"),
    ("5", [2, 1, 2, 1, -0.5, -0.5], "no output is positive"),
    ("5", [2, 1, 2, 1, 1.5, -0.5], "some sample is missed"),
    ("5", [*zero_loss()[:4], *zero_loss()[:3:-1]], "wrong order"),
    ("5", [1, 0, 5 / 14, 1, 7, -4 - 25 / 28], "transposed"),
    ("5", zero_loss()[:5], "Wrong shape"),
    ("5", [math.nan] * 6, "Not finite"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"degenerate.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"degenerate.{number}", answer))


# --- no answer in a message ----------------------------------------------------------------------


@settings(max_examples=25)
@given(st.floats(-30, 30), st.lists(st.floats(-9, 9), min_size=6, max_size=6))
def test_no_message_holds_an_answer(number: float, weights: list[float]) -> None:
    answers = {
        "degenerate.1": number,
        "degenerate.2": weights[:3],
        "degenerate.4": weights[:3],
        "degenerate.5": weights,
    }
    for exercise_id, answer in answers.items():
        digits = re.findall(r"\d+\.?\d*", exercises.check(exercise_id, answer).reason)
        assert not {float(value) for value in digits} & {14.0, 4.0, 7.0, 2.5}
