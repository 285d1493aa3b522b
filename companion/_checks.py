"""Validators shared by the package: each names the argument, what it got and what is allowed."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def choice(name: str, value: str, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    if value not in allowed:
        options = ", ".join(repr(option) for option in allowed)
        raise ValueError(f"{name} must be one of {options}, got {value!r}.")
    return value


def integer(name: str, value: Any, *, at_least: int) -> int:
    """Return ``value`` as an int no smaller than ``at_least``; floats and booleans are refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}.") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {number}.")
    return number


def integers(name: str, values: Iterable[Any], *, at_least: int) -> tuple[int, ...]:
    """Return ``values`` as a non-empty tuple of ints no smaller than ``at_least``."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of integers, got {values!r}.")
    numbers = tuple(integer(f"{name}[{i}]", v, at_least=at_least) for i, v in enumerate(values))
    if not numbers:
        raise ValueError(f"{name} must hold at least one integer, got none.")
    return numbers


def positive(name: str, value: Any, *, zero: bool = False) -> float:
    """Return ``value`` as a finite float > 0 (``zero=True``: >= 0)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}.") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        bound = "at least 0" if zero else "greater than 0"
        raise ValueError(f"{name} must be finite and {bound}, got {value!r}.")
    return number


def floating(name: str, value: Any) -> Tensor:
    """Return ``value`` if it is a real floating-point tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}.")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got dtype {value.dtype}.")
    return value


def finite(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if it is a floating-point tensor without NaN or infinity.

    It reads every entry: call it once where data enter, not in each evaluation of a network.
    """
    bad = ~torch.isfinite(floating(name, value))
    if _any(bad):
        raise ValueError(
            f"{name} must be finite, got {int(bad.sum())} entries that are NaN or infinite."
        )
    return value


def signs(name: str, y: Tensor) -> Tensor:
    """Return ``y`` if it is a floating-point tensor of labels -1 and +1."""
    floating(name, y)
    wrong = y.abs() != 1
    if _any(wrong):
        raise ValueError(f"{name} must hold only the labels -1 and +1, got {y[wrong][0].item()}.")
    return y


def class_labels(name: str, labels: Any, num_classes: int) -> Tensor:
    """Return ``labels`` if it is an integer tensor with values in 0 .. num_classes - 1."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(labels).__name__}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer tensor, got dtype {labels.dtype}.")
    wrong = (labels < 0) | (labels >= num_classes)
    if _any(wrong):
        raise ValueError(
            f"{name} must lie in 0 .. {num_classes - 1}, got {labels[wrong][0].item()}."
        )
    return labels


def shape(name: str, value: Tensor, expected: Sequence[int]) -> Tensor:
    """Return ``value`` if it has the shape ``expected``."""
    if tuple(value.shape) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}, got {tuple(value.shape)}.")
    return value


def same_kind(name: str, value: Tensor, other_name: str, other: Tensor) -> Tensor:
    """Return ``value`` if it shares its dtype and device with ``other``."""
    if value.dtype != other.dtype or value.device != other.device:
        raise ValueError(
            f"{name} must have the dtype and device of {other_name} "
            f"({other.dtype} on {other.device}), got {value.dtype} on {value.device}."
        )
    return value


def dataset(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Check once a set of N points with labels -1 and +1: x (N, ...) finite, y (N,)."""
    finite("x", x)
    if x.ndim < 2 or x.shape[0] == 0:
        raise ValueError(f"x must have shape (N, d) with at least one point, got {tuple(x.shape)}.")
    signs("y", y)
    shape("y", y, (x.shape[0],))
    same_kind("y", y, "x", x)
    return x, y


def _any(mask: Tensor) -> bool:
    """Whether an entry is true; False where torch.vmap hides the values from Python."""
    try:
        return bool(mask.any())
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return False
