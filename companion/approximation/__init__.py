"""What shallow and deep networks can approximate, and at what cost (PNAS 2020, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from companion import _lazy

if TYPE_CHECKING:
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

__getattr__, __dir__ = _lazy.submodules(__name__, __all__)
