"""What graders share: reading an answer, and ending with a reason why it is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

BY_HAND = 5e-3  # an answer rounded to two decimals is right

Grader = Callable[[Any], str]  # returns why the answer is right, raises Wrong if it is not


class Wrong(Exception):
    """Ends a grader with a reason."""


def numbers(answer: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The answer as a float64 array of that shape, or a reason why it is none."""
    if callable(answer) or isinstance(answer, (str, bytes, dict, set)) or answer is None:
        raise Wrong(f"Wrong type: give {what}, not {type(answer).__name__}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # complex numbers lose their imaginary part
            values = np.asarray(plain(answer))
            if values.dtype.kind not in "biufcO":  # NumPy would read numbers from strings and dates
                raise TypeError
            values = values.astype(np.float64)
    except OverflowError:
        raise Wrong("Not finite: a number leaves the range of float64.") from None
    except Exception:  # whatever the classes of the answer raise
        raise Wrong(f"Wrong type: give {what}.") from None
    if values.shape != shape:
        raise Wrong(f"Wrong shape: give {what}.")
    if not np.isfinite(values).all():
        raise Wrong("Not finite: the answer holds a NaN or an infinity.")
    return values


def plain(answer: Any) -> Any:
    """The answer with arrays in place of tensors, also inside lists and tuples."""
    if isinstance(answer, (list, tuple)):
        return [plain(part) for part in answer]
    return answer.detach().cpu().numpy() if hasattr(answer, "detach") else answer


def close(value: Any, target: Any, *, rel: float, abs_: float = 0.0) -> bool:
    """Whether all entries agree; what is not finite agrees with nothing."""
    value, target = np.asarray(value, dtype=np.float64), np.asarray(target, dtype=np.float64)
    with np.errstate(all="ignore"):
        near = np.abs(value - target) <= abs_ + rel * np.abs(target)
    return bool((near & np.isfinite(target)).all())


def one_number(
    answer: Any,
    target: float,
    *,
    right: str,
    mistakes: Mapping[float, str],
    otherwise: str,
    rel: float = 1e-3,
) -> str:
    """Grade one number: the reason why it is right, or that of the mistake that gives it.

    ``mistakes`` maps values that typical mistakes lead to onto reasons; ``otherwise`` is said of
    any other value. No reason may hold the answer.
    """
    value = float(numbers(answer, (), "one number"))
    if close(value, target, rel=rel):
        return right
    for mistaken, reason in mistakes.items():
        if not close(mistaken, target, rel=rel) and close(value, mistaken, rel=rel):
            raise Wrong(reason)
    if target != 0 and close(value, -target, rel=rel):
        raise Wrong("Wrong sign.")
    raise Wrong(otherwise)


def call(function: Any, *arguments: Any, name: str) -> Any:
    """What the reader's function returns for these arguments, or a reason why it does not."""
    if not callable(function):
        raise Wrong(f"Wrong type: give the function itself, {name}, not {type(function).__name__}.")
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments)
    except Exception as error:  # whatever the reader's code raises
        raise raised(error) from None


def raised(error: Exception, where: str = "") -> Wrong:
    """The reason that repeats what the reader's function raised, as a sentence."""
    said = f"The function raised {type(error).__name__}{where}: {error}".strip(": \n")
    return Wrong(said if said.endswith((".", "!", "?")) else f"{said}.")
