"""Dynamics of the exponential-type losses and the margin (PNAS 2020, section 3, B.1 to B.5)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from companion.dynamics import descent, flow, kkt, margin, proximal, trajectory

__all__ = ["descent", "flow", "kkt", "margin", "proximal", "trajectory"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
