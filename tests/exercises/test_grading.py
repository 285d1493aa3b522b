"""What graders share: numbers read as given, a reason per mistake, errors in the reader's code."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from companion.exercises._grading import Wrong, call, close, numbers, one_number


@pytest.mark.parametrize(
    "answer", [2, 2.0, Fraction(2), np.float32(2), torch.tensor(2.0, requires_grad=True)]
)
def test_a_number_may_come_from_anywhere(answer: object) -> None:
    assert numbers(answer, (), "one number") == 2.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("2", "Wrong type: give one number, not str."),
        (None, "Wrong type: give one number, not NoneType."),
        (len, "Wrong type: give one number, not builtin_function_or_method."),
        (1 + 1j, "Wrong type: give one number."),
        ([1, [2]], "Wrong type: give one number."),
        (["1", 2.0], "Wrong type: give one number."),
        (np.datetime64("2020-06-09"), "Wrong type: give one number."),
        ([2.0], "Wrong shape: give one number."),
        (10**400, "Not finite: a number leaves the range of float64."),
        (float("nan"), "Not finite: the answer holds a NaN or an infinity."),
    ],
)
def test_what_is_no_number_is_wrong_and_no_error(answer: object, said: str) -> None:
    with pytest.raises(Wrong) as wrong:
        numbers(answer, (), "one number")
    assert str(wrong.value) == said


def test_lists_may_hold_tensors_that_require_a_gradient() -> None:
    one = torch.tensor(1.0, requires_grad=True)
    assert numbers([one, 2 * one], (2,), "two numbers").tolist() == [1.0, 2.0]


class Stubborn:
    """What NumPy asks for its numbers, and is answered with an error of its own."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("no")


def test_errors_of_the_answers_own_class_are_reasons() -> None:
    with pytest.raises(Wrong, match="Wrong type: give one number."):
        numbers(Stubborn(), (), "one number")


@pytest.mark.parametrize(
    ("value", "target", "near"),
    [
        (1.0009, 1.0, True),
        ([1.0, 2.0], [1.0, 2.01], False),
        (0.0, 1e-300, False),
        (float("nan"), float("nan"), False),
        (5.0, float("inf"), False),
        (float("inf"), float("inf"), False),
        (-1.0, 1.0, False),
    ],
)
def test_close_is_relative_and_finite(value: object, target: object, near: bool) -> None:
    assert close(value, target, rel=1e-3) is near


def grade(answer: object) -> str:
    mistakes = {3.0: "Off by a factor.", 6.0: "Never said: this is the answer."}
    return one_number(answer, 6.0, right="Yes.", mistakes=mistakes, otherwise="No.")


def test_one_number_has_one_reason() -> None:
    assert grade(6) == grade(6.003) == "Yes."
    for answer, said in ((3, "Off by a factor."), (-6, "Wrong sign."), (7, "No.")):
        with pytest.raises(Wrong, match=said):
            grade(answer)


def test_the_readers_function_is_called_and_its_errors_are_reasons() -> None:
    assert call(lambda a, b: a + b, 1, 2, name="f") == 3
    with pytest.raises(Wrong, match="give the function itself, f, not int"):
        call(3, name="f")
    with pytest.raises(Wrong, match=r"^The function raised ZeroDivisionError: division by zero\.$"):
        call(lambda: 1 / 0, name="f")
    with pytest.raises(Wrong, match=r"^The function raised StopIteration\.$"):
        call(lambda: next(iter(())), name="f")
