"""What shallow and deep networks can approximate, and at what cost (PNAS 2020, section 2)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from companion.approximation import (
        compositional,
        counting,
        features,
        local_networks,
        polynomials,
        relu,
        ridge,
        splines,
        widths,
    )

__all__ = [
    "compositional",
    "counting",
    "features",
    "local_networks",
    "polynomials",
    "relu",
    "ridge",
    "splines",
    "widths",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
