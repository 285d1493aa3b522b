"""Solutions pass, typical mistakes get their reason, and no message gives an answer away."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from companion import exercises
from companion.generalization import normalized_loss, ranking


def reason(exercise_id: str, answer: object) -> str:
    verdict = exercises.check(exercise_id, answer)
    assert not verdict.correct
    return verdict.reason


# --- ranking.1: Spearman by hand -----------------------------------------------------------------


def test_spearman_by_hand() -> None:
    margins, errors = [0.9, 0.7, 0.5, 0.3, 0.1], [0.05, 0.04, 0.09, 0.30, 0.08]
    assert exercises.check("ranking.1", ranking.spearman(margins, errors)).correct


SOLUTIONS = [("1", 1 - 6 * 32 / (5 * 24)), ("2", [2 / 3, -1])]

MISTAKES = [
    ("1", -0.4, "Kendall's tau"),
    ("1", -0.4724, "correlation of the values"),
    ("1", 1 - 32 / 120, "factor 6"),
    ("1", 1 - 6 * 32 / 24, r"Divide by n\(n\^2 - 1\)"),
    ("1", 1 - 6 * 32 / 125, "not by n"),
    ("1", 32, "sum of the squared differences"),
    ("1", 0.6, "Wrong sign"),
    ("1", 0.1, "both rows of ranks"),
    ("1", [-0.6], "Wrong shape"),
    ("1", "-0.6", "Wrong type"),
]


# --- ranking.2: granulated coefficients by hand --------------------------------------------------


def test_granulated_by_hand() -> None:
    found = ranking.granulated(
        [1, 3, 4, 2, 6, 5],
        [2, 5, 6, 1, 3, 4],
        {"noise": [0, 1, 2, 0, 1, 2], "scale": ["A"] * 3 + ["B"] * 3},
    )
    assert found == {"noise": pytest.approx(2 / 3), "scale": -1.0}
    assert exercises.check("ranking.2", list(found.values())).correct


MISTAKES += [
    ("2", [-1, 2 / 3], "Wrong order"),
    ("2", [1, -1], "second scale"),
    ("2", [0.75, -1], "Spearman's"),
    ("2", [4 / 3, -1], "not the sum"),
    ("2", [1 / 3, -1], "average over both"),
    ("2", [-2 / 3, 1], "Wrong sign"),
    ("2", [2 / 3, 0.5], "Along the scale"),
    ("2", [0.1, -1], "within each scale"),
    ("2", [0.1, 0.1], "count pairs"),
    ("2", 2 / 3, "Wrong shape"),
]


# --- ranking.3: Spearman as a function -----------------------------------------------------------


def by_ranks(x: np.ndarray, y: np.ndarray) -> float:
    def ranks(v: np.ndarray) -> np.ndarray:
        return (v[:, None] > v).sum(1) + (v[:, None] == v).sum(1) / 2

    return np.corrcoef(ranks(x), ranks(y))[0, 1]


def ordinal(x: np.ndarray, y: np.ndarray) -> float:
    return np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1]


SOLUTIONS += [
    ("3", by_ranks),
    ("3", ranking.spearman),
    ("3", lambda x, y: stats.spearmanr(x, y)[0]),
]


MISTAKES += [
    ("3", ordinal, "Equal values must share"),
    ("3", lambda x, y: np.corrcoef(x, y)[0, 1], "replace them by their ranks"),
    ("3", lambda x, y: stats.kendalltau(x, y)[0], "Kendall"),
    ("3", lambda x, y: np.corrcoef(x.argsort(), y.argsort())[0, 1], "ranks take it twice"),
    ("3", lambda x, y: -by_ranks(x, y), "Wrong sign"),
    ("3", lambda x, y: 0.3, "even without ties"),
    ("3", lambda x, y: x, "Wrong shape"),
    ("3", lambda x: x, "raised TypeError"),
    ("3", 0.5, "Wrong type"),
]


# --- ranking.4: a paradox ------------------------------------------------------------------------

PARADOX = np.array([[1, 0.4], [2, 0.5], [3, 0.6], [4, 0.1], [5, 0.2], [6, 0.3]])


SOLUTIONS += [("4", PARADOX), ("4", PARADOX[[3, 4, 5, 0, 1, 2]]), ("4", torch.tensor(PARADOX))]


@pytest.mark.parametrize("answer", [answer for number, answer in SOLUTIONS if number == "4"])
def test_paradoxes(answer: object) -> None:
    values, errors = np.asarray(answer).T
    assert list(ranking.within(values, errors, "aaabbb").values()) == pytest.approx([1.0, 1.0])
    assert ranking.spearman(values, errors) < -0.5


MISTAKES += [
    ("4", PARADOX * [1, 10], "between 0 and 1"),
    ("4", [[1, 0.1], [2, 0.2], [3, 0.3], [4, 0.4], [5, 0.5], [6, 0.6]], "positive correlation"),
    ("4", [[1, 0.4], [2, 0.5], [3, 0.6], [2.5, 0.1], [3.5, 0.2], [6, 0.3]], "not low enough"),
    ("4", PARADOX[[1, 0, 2, 3, 4, 5]] * [-1, 1], "first group the value does not rank"),
    ("4", [*PARADOX[:3], [4, 0.3], [5, 0.2], [6, 0.1]], "second group the value does not rank"),
    ("4", [[1, 0.4], [1, 0.5], *PARADOX[2:]], "first group have the same"),
    ("4", PARADOX.T, "Wrong shape"),
    ("4", None, "Wrong type"),
]


# --- ranking.5: a common rho ---------------------------------------------------------------------


def common_rho(f: np.ndarray, y: np.ndarray, loss: float) -> float:
    """Bisection on a logarithmic scale; the loss falls where every point is right."""
    low, high = -20.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        z = torch.tensor(np.exp(middle) * f)
        above = torch.nn.functional.cross_entropy(z, torch.tensor(y)) > loss
        low, high = (middle, high) if above else (low, middle)
    return math.exp(low)


def of_the_package(f: np.ndarray, y: np.ndarray, loss: float) -> float:
    return normalized_loss.rho_of_loss(torch.tensor(f)[None], torch.tensor(y), loss=loss)


def naive(f: np.ndarray, y: np.ndarray, loss: float) -> float:
    """The same without the shift that keeps the exponentials finite: on a linear scale."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        z = middle * f
        own = np.exp(z[range(len(y)), y])
        above = -np.log(own / np.exp(z).sum(1)).mean() > loss  # NaN compares as False
        low, high = (middle, high) if above else (low, middle)
    return low


SOLUTIONS += [("5", common_rho), ("5", of_the_package)]


MISTAKES += [
    ("5", lambda f, y, loss: math.log(common_rho(f, y, loss)), "logarithm of rho"),
    ("5", lambda f, y, loss: common_rho(f, y, loss / 12), "take the mean"),
    ("5", lambda f, y, loss: common_rho(f, y, loss * math.log(10)), "natural logarithm"),
    ("5", lambda f, y, loss: 0.0, "must be positive"),
    ("5", lambda f, y, loss: 1e-9, "larger"),
    ("5", lambda f, y, loss: 1e9, "smaller"),
    ("5", lambda f, y, loss: math.nan, "Not finite"),
    ("5", lambda f, y, loss: f, "Wrong shape"),
    ("5", 1.0, "Wrong type"),
]


@pytest.mark.parametrize(("number", "answer"), SOLUTIONS)
def test_solutions_are_right(number: str, answer: object) -> None:
    assert exercises.check(f"ranking.{number}", answer).correct


@pytest.mark.parametrize(("number", "answer", "why"), MISTAKES)
def test_mistakes_get_their_reason(number: str, answer: object, why: str) -> None:
    assert re.search(why, reason(f"ranking.{number}", answer))


def test_the_naive_bisection_only_works_by_luck() -> None:
    """Overflow gives NaN, which bisection takes for a small loss: here it still brackets."""
    assert exercises.check("ranking.5", naive).correct


# --- no answer in a message ----------------------------------------------------------------------


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=2) | st.floats(-10, 10) | st.text(max_size=3),
    st.sampled_from(["ranking.1", "ranking.2"]),
)
@settings(max_examples=25)
def test_no_message_holds_an_answer(answer: object, exercise_id: str) -> None:
    verdict = exercises.check(exercise_id, answer)
    if not verdict.correct:
        for number in re.findall(r"\d*\.\d+", verdict.reason):
            assert not any(math.isclose(float(number), v, rel_tol=0.02) for v in (0.6, 2 / 3))
