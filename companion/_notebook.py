"""Showing something in a notebook, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def show(bundle: Mapping[str, Any]) -> None:
    """Display a mime bundle where IPython is running; do nothing elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    from IPython.display import display

    display(bundle, raw=True)
