"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
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


@pytest.mark.parametrize(
    ("exercise_id", "answer"),
    [
        ("balance.1", math.sqrt(12)),
        ("balance.1", 3.464),
        ("balance.2", DRIFT),
        ("balance.2", np.float64(-0.005075)),
        ("balance.3", math.log(100) / 0.02),
        ("balance.3", 230),
        ("balance.4", unit_balance),
        ("balance.5", balanced_step),
        ("balance.5", one_layer_pays),
    ],
)
def test_solutions_are_right(exercise_id: str, answer: object) -> None:
    assert exercises.check(exercise_id, answer).correct


@pytest.mark.parametrize(
    ("exercise_id", "answer", "why"),
    [
        ("balance.1", 4.0, "difference of the norms"),
        ("balance.1", 12.0, "square of the weight"),
        ("balance.1", 6.0, "ratio"),
        ("balance.1", math.sqrt(6), "Wrong sign"),
        ("balance.1", 2 / 3, "product"),
        ("balance.1", -math.sqrt(12), "Wrong sign"),
        ("balance.1", 5.5, "Not conserved"),
        ("balance.1", None, "Wrong type"),
        ("balance.2", -DRIFT, "Wrong sign"),
        ("balance.2", 10 * DRIFT, "square of the step size"),
        ("balance.2", DRIFT * math.exp(1), "enters squared"),
        ("balance.2", DRIFT * math.exp(2), "loss is missing"),
        ("balance.2", 0.01 * math.exp(-2) * -1.5, "by their squares"),
        ("balance.2", 3.75 + DRIFT, "after the step"),
        ("balance.2", (2 + 0.05 * math.exp(-1)) ** 2 - 4, "one square alone"),
        ("balance.2", 0.0, "step of finite size"),
        ("balance.2", 7.0, "Not the change"),
        ("balance.3", math.log(100) / 0.01, "weights themselves"),
        ("balance.3", math.log(100) / 0.04, "factor in the rate"),
        ("balance.3", 100.0, "natural logarithm"),
        ("balance.3", math.log(100) / 2, "rate holds lambda"),
        ("balance.3", 1.0, "Not the time"),
        ("balance.4", lambda W1, W2: -unit_balance(W1, W2), "Wrong sign"),
        ("balance.4", lambda W1, W2: W1.norm(dim=1) - W2.norm(dim=0), "differences of norms"),
        ("balance.4", lambda W1, W2: (W1**2).sum(1) + (W2**2).sum(0), "sum grows"),
        ("balance.4", lambda W1, W2: W1.norm(dim=1) * W2.norm(dim=0), "product is unchanged"),
        ("balance.4", lambda W1, W2: (W1**2).sum() - (W2**2).sum(), "Wrong shape"),
        ("balance.4", lambda W1, W2: 2 * unit_balance(W1, W2), "Not conserved"),
        ("balance.4", lambda W1, W2: W1 @ W2, "raised"),
        ("balance.4", 3.0, "the function itself"),
        ("balance.5", lambda W1, W2, G1, G2, t: (W1 - t * G1, W2 - t * G2), "drifts with eta"),
        ("balance.5", lambda W1, W2, G1, G2, eta: (W1, W2), "is not that of gradient descent"),
        ("balance.5", lambda W1, W2, G1, G2, eta: (W1 + G1, W2), "is not the one before"),
        ("balance.5", lambda W1, W2, G1, G2, eta: W1, "Wrong type"),
        ("balance.5", lambda W1, W2, G1, G2, eta: (W1.T, W2), "Wrong shape"),
        ("balance.5", lambda W1, W2: (W1, W2), "raised TypeError"),
    ],
)  # fmt: skip
def test_mistakes_get_their_reason(exercise_id: str, answer: object, why: str) -> None:
    assert why in reason(exercise_id, answer)


def test_rows_and_columns_mixed_up_are_seen_where_the_shapes_allow_it() -> None:
    def mixed(W1, W2):  # noqa: N803
        return unit_balance(W1, W2) if W1.shape[0] != W1.shape[1] else unit_balance(W1.T, W2)

    assert "mixed up" in reason("balance.4", mixed)


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
    times = np.geomspace(1, 3e5, 60).tolist()  # until w_2 has passed 3
    path = balance.linear_flow(net, start, one, one[0], times=times)
    w1, w2 = path["W1"].flatten().numpy(), path["W2"].flatten().numpy()
    assert w2[-1] > 3
    assert math.isclose(np.interp(3.0, w2, w1), math.sqrt(12), rel_tol=1e-2)


@given(
    st.floats(-300, 300) | st.text(max_size=3),
    st.sampled_from(["balance.1", "balance.2", "balance.3"]),
)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    for number in re.findall(r"\d+\.\d+|\d{3,}", verdict.reason):
        for value in (math.sqrt(12), abs(DRIFT), math.log(100) / 0.02):
            assert not math.isclose(float(number), value, rel_tol=0.02)
