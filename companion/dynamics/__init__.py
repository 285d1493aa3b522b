"""Dynamics of the exponential-type losses and the margin (PNAS 2020, section 3, B.1 to B.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from companion import _lazy

if TYPE_CHECKING:
    from companion.dynamics import (
        balance,
        certificates,
        constrained,
        descent,
        filippov,
        flow,
        kkt,
        linear_solvers,
        margin,
        minimum_norm,
        nesterov,
        norm_control,
        normalization,
        proximal,
        rates,
        stiff,
        structure,
        systems,
        theorem_4,
        trajectory,
    )

__all__ = [
    "balance",
    "certificates",
    "constrained",
    "descent",
    "filippov",
    "flow",
    "kkt",
    "linear_solvers",
    "margin",
    "minimum_norm",
    "nesterov",
    "norm_control",
    "normalization",
    "proximal",
    "rates",
    "stiff",
    "structure",
    "systems",
    "theorem_4",
    "trajectory",
]

__getattr__, __dir__ = _lazy.submodules(__name__, __all__)
