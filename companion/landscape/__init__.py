"""The landscape of the losses: critical points, Hessians, minima (PNAS 2020, section 3.C.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from companion import _lazy

if TYPE_CHECKING:
    from companion.landscape import (
        bezout,
        hessian,
        langevin,
        minima,
        polynomial_relu,
        potentials,
        stationary,
    )

__all__ = [
    "bezout",
    "hessian",
    "langevin",
    "minima",
    "polynomial_relu",
    "potentials",
    "stationary",
]

__getattr__, __dir__ = _lazy.submodules(__name__, __all__)
