"""Generalization: normalized losses, bounds, minimum norm (PNAS 2020, Fig. 2 and section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from companion import _lazy

if TYPE_CHECKING:
    from companion.generalization import (
        cifar10,
        interpolation,
        normalized_loss,
        rademacher,
        ranking,
    )

__all__ = ["cifar10", "interpolation", "normalized_loss", "rademacher", "ranking"]

__getattr__, __dir__ = _lazy.submodules(__name__, __all__)
