"""Companion to "Theoretical issues in deep networks" (Poggio, Banburski and Liao, PNAS 2020).

The submodules load on first use, so that ``import companion`` is quick and free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from companion import _lazy

if TYPE_CHECKING:
    from companion import (
        approximation,
        claims,
        data,
        dynamics,
        exercises,
        figures,
        generalization,
        landscape,
        least_squares,
        losses,
        networks,
        sweeps,
        training,
        widgets,
    )

__version__ = "0.1.0"

__all__ = [
    "approximation",
    "claims",
    "data",
    "dynamics",
    "exercises",
    "figures",
    "generalization",
    "landscape",
    "least_squares",
    "losses",
    "networks",
    "sweeps",
    "training",
    "widgets",
]

__getattr__, __dir__ = _lazy.submodules(__name__, __all__)
