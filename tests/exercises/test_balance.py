"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion import exercises
from companion.dynamics import balance
from companion.networks import MLP

DRIFT = 0.01 * math.exp(-2) * (0.25 - 4)


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


def unit_balance(W1, W2):  # noqa: N803
    return (W1**2).sum(dim=1) - (W2**2).sum(dim=0)


def balanced_step(W1, W2, G1, G2, eta):  # noqa: N803
    before = (W1**2).sum() - (W2**2).sum()
    W1, W2 = W1 - eta * G1, W2 - eta * G2
    a, b = (W1**2).sum(), (W2**2).sum()
    excess = (a - b - before) / 2
    return W1 * torch.sqrt(1 - excess / a), W2 * torch.sqrt(1 + excess / b)


def one_layer_pays(W1, W2, G1, G2, eta):  # noqa: N803
    before = (W1**2).sum() - (W2**2).sum()
    W1, W2 = W1 - eta * G1, W2 - eta * G2
    return W1, W2 * torch.sqrt(((W1**2).sum() - before) / (W2**2).sum())


def each_norm_kept(W1, W2, G1, G2, eta):  # noqa: N803
    moved = (W1 - eta * G1, W2 - eta * G2)
    return tuple(W * old.norm() / W.norm() for W, old in zip(moved, (W1, W2), strict=True))


SOLUTIONS = [
    ("1", math.sqrt(12)),
    ("1", 3.464),
    ("2", DRIFT),
    ("2", np.float64(-0.005075)),
    ("3", math.log(100) / 0.02),
    ("3", 230),
    ("4", unit_balance),
    ("5", balanced_step),
    ("5", one_layer_pays),
]


MISTAKES = [
    ("1", 4.0, "difference of the norms"),
    ("1", 12.0, "square of the weight"),
    ("1", 6.0, "ratio"),
    ("1", math.sqrt(6), "Wrong sign"),
    ("1", 2 / 3, "product"),
    ("1", -math.sqrt(12), "Wrong sign"),
    ("1", 5.5, "Not conserved"),
    ("1", None, "Wrong type"),
    ("2", -DRIFT, "Wrong sign"),
    ("2", 10 * DRIFT, "square of the step size"),
    ("2", DRIFT * math.exp(1), "enters squared"),
    ("2", DRIFT * math.exp(2), "loss is missing"),
    ("2", 0.01 * math.exp(-2) * -1.5, "by their squares"),
    ("2", 3.75 + DRIFT, "after the step"),
    ("2", (2 + 0.05 * math.exp(-1)) ** 2 - 4, "one square alone"),
    ("2", 0.0, "step of finite size"),
    ("2", 7.0, "Not the change"),
    ("3", math.log(100) / 0.01, "weights themselves"),
    ("3", math.log(100) / 0.04, "factor in the rate"),
    ("3", 100.0, "natural logarithm"),
    ("3", math.log(100) / 2, "rate holds lambda"),
    ("3", 1.0, "Not the time"),
    ("4", lambda W1, W2: -unit_balance(W1, W2), "Wrong sign"),
    ("4", lambda W1, W2: W1.norm(dim=1) - W2.norm(dim=0), "differences of norms"),
    ("4", lambda W1, W2: (W1**2).sum(1) + (W2**2).sum(0), "sum grows"),
    ("4", lambda W1, W2: W1.norm(dim=1) * W2.norm(dim=0), "product is unchanged"),
    ("4", lambda W1, W2: (W1**2).sum() - (W2**2).sum(), "Wrong shape"),
    ("4", lambda W1, W2: 2 * unit_balance(W1, W2), "Not conserved"),
    ("4", lambda W1, W2: W1 @ W2, "raised"),
    ("4", 3.0, "the function itself"),
    ("5", lambda W1, W2, G1, G2, t: (W1 - t * G1, W2 - t * G2), "drifts with eta"),
    ("5", lambda W1, W2, G1, G2, eta: (W1, W2), "nothing moves"),
    ("5", lambda W1, W2, G1, G2, eta: balanced_step(W1, W2, G1, G2, -eta), "goes uphill"),
    ("5", lambda W1, W2, G1, G2, eta: balanced_step(W1, W2, G1, G2, eta / 2), "is not that"),
    ("5", each_norm_kept, "keeps its norm"),
    ("5", lambda W1, W2, G1, G2, eta: (W1 + G1, W2), "is not the one before"),
    ("5", lambda W1, W2, G1, G2, eta: W1, "Wrong type"),
    ("5", lambda W1, W2, G1, G2, eta: (W1.T, W2), "Wrong shape"),
    ("5", lambda W1, W2: (W1, W2), "raised TypeError"),
]


def mixed(W1, W2):  # noqa: N803
    return unit_balance(W1, W2) if W1.shape[0] != W1.shape[1] else unit_balance(W1.T, W2)


MISTAKES += [("4", mixed, "mixed up")]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"balance.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"balance.{number}", answer))


def test_answers_are_those_of_the_package() -> None:
    net = MLP(widths=(1, 1, 1), activation="linear")
    one = torch.ones(1, 1, dtype=torch.float64)
    W = {"W1": 2 * one, "W2": 0.5 * one}
    run = balance.descend(net, W, one, one[0], lambda p: torch.optim.SGD(p, lr=0.1), steps=1)
    assert math.isclose(-float(run.drift[-1, 1]), DRIFT, rel_tol=1e-10)
    relu = MLP(widths=(3, 4, 1))
    params = relu.init(seed=0)
    expected = balance.unit_balance(relu, params)[0]
    torch.testing.assert_close(unit_balance(*params.values()), expected)
    start = {"W1": 2 * one, "W2": one}
    times = np.geomspace(1, 4e3, 30).tolist()  # until w_2 has passed 3
    path = balance.linear_flow(net, start, one, one[0], times=times, rtol=1e-9)
    w1, w2 = path["W1"].flatten().numpy(), path["W2"].flatten().numpy()
    assert w2[-1] > 3
    assert math.isclose(np.interp(3.0, w2, w1), math.sqrt(12), rel_tol=1e-4)


@settings(max_examples=25)
@given(
    st.floats(-300, 300) | st.text(max_size=3),
    st.sampled_from(["balance.1", "balance.2", "balance.3"]),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.\d+|\d{3,}", verdict.reason):
        for value in (math.sqrt(12), abs(DRIFT), math.log(100) / 0.02):
            assert not math.isclose(float(number), value, rel_tol=0.02)
