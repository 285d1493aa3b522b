"""Files of tensors: written in one piece, read back as plain data onto a device."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


def write(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write beside the file and rename, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    torch.save(content, part)
    os.replace(part, path)


def read(
    name: str,
    path: str | os.PathLike[str],
    *,
    keys: Iterable[str],
    writer: str,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Return what ``writer`` wrote, a dict with just these keys, on the CPU or ``device``.

    Only tensors and plain data are unpickled. ``name`` is the argument that named the file.

    Raises:
        ValueError: if the file holds something else.
        FileNotFoundError: if there is no file.
    """
    path = Path(path)
    content = None
    if _is_archive(path):
        try:
            content = torch.load(path, map_location=device or "cpu", weights_only=True)
        except pickle.UnpicklingError:
            pass
    if not isinstance(content, dict) or set(content) != set(keys):
        raise ValueError(f"{name} must be a file written by {writer}, got {path}.")
    return content


def _is_archive(path: Path) -> bool:
    """Whether torch.save may have written the file: a whole zip archive with a pickle in it."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return False
        with zipfile.ZipFile(file) as archive:
            return any(entry.endswith("/data.pkl") for entry in archive.namelist())
