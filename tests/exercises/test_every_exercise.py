"""Every exercise of the book: enough typical mistakes, and no wrong answer that is taken for right.

The tests of each chapter list ``SOLUTIONS`` and ``MISTAKES``. Here these are counted, changed in
many ways that must be seen, and their reasons searched for answers.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from companion import exercises

HERE = Path(__file__).parent
BOOK = HERE.parents[1] / "book"


def load(chapter: str) -> ModuleType:
    """The tests of a chapter, as a module of its own."""
    name = f"exercises_of_{chapter}"
    spec = importlib.util.spec_from_file_location(name, HERE / f"test_{chapter}.py")
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {chapter: load(chapter) for chapter in exercises.CHAPTERS}
IDS = [
    f"{chapter}.{number}"
    for chapter in exercises.CHAPTERS
    for number in importlib.import_module(f"companion.exercises.{chapter}").GRADERS
]


def listed(exercise_id: str, name: str) -> list[tuple[Any, ...]]:
    """What the chapter's ``SOLUTIONS`` or ``MISTAKES`` hold for an exercise, without its number."""
    chapter, number = exercise_id.split(".")
    return [row[1:] for row in getattr(MODULES[chapter], name) if row[0] == number]


SOLUTION = {i: rows[0][0] for i in IDS if (rows := listed(i, "SOLUTIONS"))}
FUNCTIONS = [exercise_id for exercise_id in SOLUTION if callable(SOLUTION[exercise_id])]

# Exercises whose answer is no array of numbers.
STRUCTURED = {
    "building.5": "three arrays of different shapes",
    "counting.5": "a number, and lists of different lengths",
}
# Exercises with many right answers: numbers near a solution may be another one.
MANY = {
    "shallow_and_deep.4": "any theta with the signs that are asked for",
    "homogeneity.5": "exponents with a given sum",
    "constrained.5": "any start in the basin",
    "norm_control.5": "any weights from which the two flows part",
    "margin.5": "any weights at which the margin falls",
    "rates.5": "any two points with a large constant",
    "theorem_4.5": "any start from which the flow is caught",
    "stationary.5": "any weights with a small loss and a large eigenvalue",
    "bezout.5": "any two curves that do not meet in the real plane",
    "degenerate.2": "any multiple of the tangent",
    "degenerate.4": "any targets near enough to the outputs",
    "degenerate.5": "any weights with zero loss",
    "langevin.5": "any curvatures that noise makes stable",
    "spectrum.5": "any weights that leave one sample silent",
    "complexity.5": "any loss that breaks the bound",
    "figure_2.5": "any outputs with the two properties",
    "ranking.4": "any six networks with the paradox",
    "minimum_norm.5": "any u with the two properties",
    "width.5": "any two directions with the two properties",
}
# Functions that stay right when all that they return is multiplied by a positive number.
SCALE_FREE = {"speed.5": "only the direction of the weights counts"}

NUMERIC = [i for i in SOLUTION if i not in FUNCTIONS and i not in STRUCTURED]
UNIQUE = [i for i in NUMERIC if i not in MANY]

KIND = re.compile(r"^(Wrong type|Wrong shape|Not finite)")
NOT_SPECIFIC = re.compile(r"^(Wrong type|Wrong shape|Not finite|The function raised)")
ODD = 1.7173  # a factor by which nobody is off


@pytest.fixture(autouse=True, scope="module")
def offline() -> Iterator[None]:
    """No connection to anywhere."""

    def refuse(*_: object) -> None:
        raise AssertionError("a grader asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


def refused(exercise_id: str, answer: object) -> str:
    """The reason why an answer is wrong; fails when it is not, and when an answer shines through.

    A reason is a sentence. It may hold numbers that the reader has from the exercise, and no other
    that agrees with an entry of the one right answer to three digits.
    """
    verdict = exercises.check(exercise_id, answer)
    assert isinstance(verdict, exercises.Verdict)
    assert verdict.correct is False, f"{exercise_id} accepts {answer!r}"
    assert verdict.reason.endswith((".", "?")), f"{exercise_id}: {verdict.reason!r}"
    if exercise_id in UNIQUE:
        for value in numbers_in(verdict.reason) - known_numbers(exercise_id):
            given_away = np.isclose(value, np.abs(values(exercise_id)), rtol=5e-3, atol=0).any()
            assert not given_away, f"{exercise_id}: {verdict.reason!r}"
    return verdict.reason


def numbers_in(text: str) -> set[float]:
    """All numbers of a text, also as quotients and powers; no indices as in x_1, no exponents."""
    text = re.sub(r"\\frac\{?(\d+)\}?\{?(\d+)\}?", r" \1/\2 ", text)
    text = re.sub(r"\\sqrt\{?(\d+)\}?", lambda m: f" {math.sqrt(int(m[1]))} ", text)
    number = r"(?<![\w^.])(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
    found = {float(value) for value in re.findall(number, text)}
    quotients = re.findall(rf"{number} ?/ ?(\d+(?:\.\d+)?)", text)
    powers = re.findall(rf"{number} ?\^ ?\{{?(-?\d+)", text)
    found |= {float(a) / float(b) for a, b in quotients if float(b)}
    return found | {float(a) ** int(b) for a, b in powers}


@functools.cache
def known_numbers(exercise_id: str) -> set[float]:
    """The numbers that the printed exercise holds, and those that are no news."""
    known = numbers_in(statements(exercise_id.split(".")[0])[exercise_id])
    answer = values(exercise_id)
    if answer.size > 1 and np.isin(answer, (0, 1)).all():
        known |= {0.0, 1.0}  # yes or no for each of several questions
    return known


@functools.cache
def statements(chapter: str) -> dict[str, str]:
    """The printed text of a chapter's exercises by their ids."""
    (path,) = BOOK.rglob(f"{chapter}.ipynb")
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    blocks = re.findall(r"\{exercise-start\}(.*?)\{exercise-end\}", text, re.DOTALL)
    return {re.findall(r'exercises\.check\("([\w.]+)"', block)[0]: block for block in blocks}


# --- what refused() sees -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x_1, W_2 and h^2 of Eq.", set()),
        ("5/3, or 5 / 3, or 1.5e-3", {5.0, 3.0, 5 / 3, 1.5e-3}),
        ("2^10, not 12.5.", {2.0, 1024.0, 12.5}),
        (r"\frac14 of $\sqrt2$", {1.0, 4.0, 0.25, math.sqrt(2)}),
    ],
)
def test_numbers_are_found_as_they_are_written(text: str, found: set[float]) -> None:
    assert sorted(numbers_in(text)) == pytest.approx(sorted(found))


@pytest.mark.parametrize("reason", ["", "No end", "It is 5/3.", "Not so: 1.667.", "It is -1.67."])
def test_a_reason_that_is_none_or_gives_the_answer_away_is_seen(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercises, "check", lambda *_: exercises.Verdict(False, reason))
    with pytest.raises(AssertionError):
        refused("rates.1", 0.0)


# --- how many -----------------------------------------------------------------------------------


def test_the_lists_speak_of_the_exercises_and_of_no_other() -> None:
    for chapter, module in MODULES.items():
        numbers = {row[0] for row in (*module.SOLUTIONS, *module.MISTAKES)}
        assert {f"{chapter}.{number}" for number in numbers} <= set(IDS)
    assert {*MANY, *STRUCTURED, *SCALE_FREE} <= set(IDS)


@pytest.mark.parametrize("exercise_id", IDS)
def test_a_solution_and_three_mistakes_with_reasons_of_their_own(exercise_id: str) -> None:
    """Besides type and shape, and besides what is said of an answer that is just wrong."""
    assert exercise_id in SOLUTION
    reasons = {refused(exercise_id, answer) for answer, _ in listed(exercise_id, "MISTAKES")}
    specific = {reason for reason in reasons if not NOT_SPECIFIC.match(reason)}
    if exercise_id in UNIQUE:
        specific -= {exercises.check(exercise_id, ODD * values(exercise_id)).reason}
    if exercise_id in FUNCTIONS:
        specific -= {exercises.check(exercise_id, changed(exercise_id, ODD)).reason}
    assert len(specific) >= 3, specific


# --- numbers ------------------------------------------------------------------------------------


def values(exercise_id: str) -> np.ndarray:
    return np.array(SOLUTION[exercise_id], dtype=np.float64)


def malformed(exercise_id: str) -> Iterator[object]:
    """Answers that are not even of the form that is asked for."""
    answer = values(exercise_id)
    yield from ("x", b"x", "1", None, {}, {"answer": 1}, set(), object(), 10**400, 1j, int)
    yield from (lambda: answer, answer.astype(str), answer + 1j, answer[None], answer[..., None])
    yield from ([], [[[1.0]]], np.datetime64("2020-06-09"))
    for index in np.ndindex(answer.shape):
        for value in (math.nan, math.inf, -math.inf):
            broken = answer.copy()
            broken[index] = value
            yield broken
            yield broken.tolist()
    for axis, length in enumerate(answer.shape):
        yield from (np.delete(answer, i, axis=axis) for i in range(length))


def test_answers_of_another_form_are_wrong_by_type_shape_or_range() -> None:
    for exercise_id in NUMERIC:
        for answer in malformed(exercise_id):
            assert KIND.match(refused(exercise_id, answer)), (exercise_id, answer)


@pytest.mark.parametrize("exercise_id", STRUCTURED)
def test_parts_of_another_form_are_wrong_by_type_shape_or_range(exercise_id: str) -> None:
    answer = SOLUTION[exercise_id]
    broken: list[object] = ["x", b"x", None, {}, set(), 1.0, object(), lambda: answer, [], [answer]]
    broken += [answer[:-1], (*answer, 1)]
    for part in range(len(answer)):
        for value in ("x", None, {"a": 1}, math.nan, [math.inf], [[1.0], [1.0, 2.0]], object()):
            broken.append((*answer[:part], value, *answer[part + 1 :]))
    for each in broken:
        assert KIND.match(refused(exercise_id, each)), each


FACTORS = st.floats(-100, 0.95) | st.floats(1.05, 100)


@settings(max_examples=25)
@given(factor=FACTORS)
@example(factor=-1.0)
@example(factor=0.0)
def test_no_multiple_of_an_answer_is_right(factor: float) -> None:
    for exercise_id in UNIQUE:
        refused(exercise_id, factor * values(exercise_id))


@settings(max_examples=25)
@given(size=st.floats(0.06, 50), sign=st.sampled_from([-1, 1]), at=st.integers(0, 59))
def test_no_entry_may_be_off(size: float, sign: int, at: int) -> None:
    for exercise_id in UNIQUE:
        answer = values(exercise_id)
        index = np.unravel_index(at % answer.size, answer.shape)
        answer[index] += sign * size * (abs(answer[index]) or 1.0)
        refused(exercise_id, answer)


def test_the_order_of_the_entries_counts() -> None:
    for exercise_id in UNIQUE:
        answer = values(exercise_id)
        for axis in range(answer.ndim):
            turned = np.flip(answer, axis=axis)
            if not np.allclose(turned, answer):
                refused(exercise_id, turned)


MOST = max(np.size(SOLUTION[exercise_id]) for exercise_id in NUMERIC)
ANY = st.floats(-10, 10) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25)
@given(entries=st.lists(ANY, min_size=MOST, max_size=MOST))
@example(entries=[0.0] * MOST)
@example(entries=[1e300] * MOST)
@example(entries=[-1e300, 1e300] * MOST)
@example(entries=[0.0, 1e308] * MOST)
@example(entries=[1e-300] * MOST)
def test_any_numbers_get_a_verdict(entries: list[float]) -> None:
    """Also the largest and the smallest there are."""
    for exercise_id in NUMERIC:
        answer = values(exercise_id)
        answer[...] = np.reshape(entries[: answer.size], answer.shape)
        with np.errstate(all="ignore"):
            verdict = exercises.check(exercise_id, answer)
        assert verdict.correct or verdict.reason.endswith((".", "?")), exercise_id


# --- functions ----------------------------------------------------------------------------------


def times(factor: float, result: Any) -> Any:
    """All numbers that a function returns, multiplied."""
    if isinstance(result, (tuple, list)):
        return [times(factor, part) for part in result]
    return result if result is None else factor * result


def changed(exercise_id: str, factor: float) -> Callable[..., Any]:
    solution = SOLUTION[exercise_id]
    return lambda *arguments: times(factor, solution(*arguments))


def test_what_is_no_function_is_a_wrong_type() -> None:
    for exercise_id in FUNCTIONS:
        for answer in (1.0, "f", None, {}, [], np.eye(2), math.nan, object()):
            assert refused(exercise_id, answer).startswith("Wrong type"), (exercise_id, answer)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, KeyError, RuntimeError("two\nlines"), Warning]
)
def test_what_the_function_raises_is_a_reason(error: Any) -> None:
    def fails(*_: object) -> object:
        raise error

    said = f"The function raised {getattr(error, '__name__', type(error).__name__)}"
    for exercise_id in FUNCTIONS:
        assert refused(exercise_id, fails).startswith(said), exercise_id


def test_a_function_of_other_arguments_is_wrong_and_no_error() -> None:
    for exercise_id in FUNCTIONS:
        assert refused(exercise_id, lambda: 1.0).startswith("The function raised TypeError")


RETURNED = (
    *(None, "x", b"x", {}, set(), object(), int, [], (), [None], ((), ()), 1j, 10**400),
    *(math.nan, math.inf, -math.inf, np.full(3, math.nan), [[1.0], [2.0, 3.0]]),
    *(np.zeros((2, 3, 4)), np.array("x"), [0.0, "x"], (math.nan, math.nan), {"a": 1}),
    *(-1e300, 1e300, 1e-300, (1.0, 2.0), (1.0, 2.0, 3.0), [(0, 1)], True, False, 0, 12345.678),
)


def test_nothing_else_that_a_function_returns_is_right() -> None:
    for exercise_id in FUNCTIONS:
        for result in RETURNED:
            refused(exercise_id, lambda *_, result=result: result)


@pytest.mark.parametrize("factor", [1.1, -1.0, 0.5])
def test_no_multiple_of_what_a_function_returns_is_right(factor: float) -> None:
    for exercise_id in FUNCTIONS:
        if factor < 0 or exercise_id not in SCALE_FREE:
            refused(exercise_id, changed(exercise_id, factor))


@pytest.mark.parametrize("exercise_id", FUNCTIONS)
def test_a_function_must_be_right_at_every_call(exercise_id: str) -> None:
    """Right at first and not finite later: no call may go unread."""
    solution, calls = SOLUTION[exercise_id], []

    def counted(*arguments: Any) -> Any:
        calls.append(0)
        return solution(*arguments)

    assert exercises.check(exercise_id, counted).correct
    last = len(calls)
    calls.clear()

    def spoilt(*arguments: Any) -> Any:
        result = counted(*arguments)
        return math.nan if len(calls) == last else result

    refused(exercise_id, spoilt)
