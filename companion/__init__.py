"""Companion to "Theoretical issues in deep networks" (Poggio, Banburski and Liao, PNAS 2020).

The submodules load on first use, so that ``import companion`` is quick and free of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from companion import (
        claims,
        data,
        dynamics,
        exercises,
        figures,
        losses,
        networks,
        training,
        widgets,
    )

__version__ = "0.1.0"

__all__ = [
    "claims",
    "data",
    "dynamics",
    "exercises",
    "figures",
    "losses",
    "networks",
    "training",
    "widgets",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
