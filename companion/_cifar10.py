"""The files of CIFAR-10: found or downloaded, and read without trust in what they hold.

A batch is a pickle, and a pickle may call whatever it names. Here it can name only what a uint8
array needs, and gets stand-ins of this module for it: numpy never unpickles anything. The
stand-ins all have ``__setstate__``, so that a pickle cannot set attributes of the classes.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)
PIXELS = 3 * 32 * 32
VARIABLE = "COMPANION_CIFAR10"
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
ADDRESS = "https://www.cs.toronto.edu/~kriz/"
# As in Keras, keras/datasets/cifar10.py; several projects list it beside torchvision's MD5,
# c58f30108f718f92721af3b95e74349a.
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
RETRIES = 3


def find(folder: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the six batch files: given, of the environment, or downloaded.

    Raises:
        TypeError, ValueError: if the folder given lacks a file, or an archive is not the official.
        OSError: if nothing was given and the download fails.
    """
    name = "folder"
    if folder is None and os.environ.get(VARIABLE):
        name, folder = VARIABLE, os.environ[VARIABLE]
    if folder is not None:
        return _existing(name, folder)
    return _cached()


def read(
    name: str, num: int | None, folder: Path, files: Sequence[str], *, classes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``num`` images of some classes, uint8 (N, 3072), and their labels (N,).

    No file is read after the one with the last of these. ``name`` is the argument that gave num.

    Raises:
        ValueError: if there are fewer images, or a file is not a batch.
    """
    pixels, labels, found = [], [], 0
    for file in files:
        if num is not None and found == num:
            break
        file_pixels, file_labels = batch(folder / file)
        keep = np.flatnonzero(np.isin(file_labels, classes))
        keep = keep if num is None else keep[: num - found]
        pixels.append(file_pixels[keep])
        labels.append(file_labels[keep])
        found += len(keep)
    if found == 0 or (num is not None and found < num):
        raise ValueError(
            f"{name} must be at most {found}, the number of images of these classes in {folder}, "
            f"got {num}."
        )
    return np.concatenate(pixels), np.concatenate(labels)


def checksum(folder: Path) -> str:
    """Return the SHA-256 of all images and labels, however they were pickled.

    For each batch, training batches first, it runs over the line "name N", the pixels in the
    order of the images, and the labels, one byte each.
    """
    digest = hashlib.sha256()
    for name in TRAIN + TEST:
        pixels, labels = batch(folder / name)
        digest.update(f"{name} {len(labels)}\n".encode())
        digest.update(np.ascontiguousarray(pixels))
        digest.update(labels.astype(np.uint8))
    return digest.hexdigest()


def batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 (N, 3072), and labels, int64 (N,), of one file.

    Raises:
        ValueError: if the file is not a pickle of just this, naming it and what is wrong.
    """
    content = path.read_bytes()
    try:
        _check_sizes(content)
        return _contents(_Unpickler(io.BytesIO(content), encoding="bytes").load())
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is not a batch of CIFAR-10: {reason}") from error


def _check_sizes(content: bytes) -> None:
    """Walk through a pickle without running it, so that no false size makes it take memory.

    The walk itself raises at an operation that is cut off. Places in the memo are numbered in
    the order of use, so that there are not more of them than operations.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count:
            raise ValueError(f"it stores something at place {argument} of its memo.")


def _contents(content: Any) -> tuple[np.ndarray, np.ndarray]:
    if type(content) is not dict:
        raise ValueError(f"it holds a {type(content).__name__}, not a dict.")
    # Python 2 wrote the keys as bytes; a copy may have text.
    entries = {key.decode() if type(key) is bytes else key: value for key, value in content.items()}
    absent = [key for key in ("data", "labels") if key not in entries]
    if absent:
        raise ValueError(f"it has no entry {absent[0]!r}.")
    data, labels = entries["data"], entries["labels"]
    pixels = data.pixels if isinstance(data, _Array) else None
    if pixels is None:
        raise ValueError(f"data must be an array of uint8, got {type(data).__name__}.")
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS or len(pixels) == 0:
        raise ValueError(f"data must have the shape (N, {PIXELS}), N > 0, got {pixels.shape}.")
    if type(labels) is not list or any(type(label) is not int for label in labels):
        raise ValueError("labels must be a list of integers.")
    if len(labels) != len(pixels):
        raise ValueError(f"there must be a label per image, got {len(labels)} for {len(pixels)}.")
    if min(labels) < 0 or max(labels) > 9:
        raise ValueError(f"labels must lie in 0 .. 9, got {min(labels)} .. {max(labels)}.")
    return pixels, np.array(labels, dtype=np.int64)


class _Dtype:
    """In place of numpy.dtype: remembers the code, "u1" for uint8."""

    code: Any = None

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        self.code = code.decode() if type(code) is bytes else code

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and fields, which uint8 does not have."""


class _Array:
    """In place of numpy.ndarray and of the function that begins one, filled by its state."""

    pixels: np.ndarray | None = None

    def __init__(self, *unused: Any) -> None:
        """Ignore type and shape of the empty array: the state has the final ones."""

    def __setstate__(self, state: Any) -> None:
        *_, shape, dtype, is_fortran, raw = state  # a version number comes first, if any
        self._fill(raw, dtype, shape, "F" if is_fortran else "C")

    def _fill(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", "|u1"):
            raise ValueError(f"data must be an array of uint8, got {getattr(dtype, 'code', None)}.")
        if type(raw) not in (bytes, bytearray) or order not in ("C", "F"):
            raise ValueError("data must be an array stored as bytes, by rows or by columns.")
        if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("data must have a shape of integers.")
        self.pixels = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order=order)


class _ArrayFromBuffer(_Array):
    """In place of the function that makes an array in protocol 5."""

    def __init__(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        self._fill(raw, dtype, shape, order)


class _Latin1:
    """In place of _codecs.encode, by which Python 3 writes bytes in protocol 2."""

    def __new__(cls, text: Any, encoding: Any) -> Any:
        if type(text) is not str or encoding not in ("latin1", b"latin1"):
            raise ValueError(f"it encodes something as {encoding!r}.")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise ValueError("bytes have no state.")


_STAND_INS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # numpy 1
    ("numpy._core.multiarray", "_reconstruct"): _Array,  # numpy 2
    ("numpy.core.numeric", "_frombuffer"): _ArrayFromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _ArrayFromBuffer,
    ("_codecs", "encode"): _Latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise ValueError(f"it refers to {module}.{name}, which no batch needs.")
        return _STAND_INS[module, name]


def _missing(folder: Path) -> list[str]:
    return [name for name in TRAIN + TEST if not (folder / name).is_file()]


def _existing(name: str, path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {path!r}.")
    folder = min([Path(path).expanduser(), Path(path).expanduser() / FOLDER], key=_num_missing)
    if missing := _missing(folder):
        raise ValueError(
            f"{name} must be the folder {FOLDER} or the one that holds it, "
            f"got {path}: there is no {', '.join(missing)} in {folder}."
        )
    return folder


def _num_missing(folder: Path) -> int:
    return len(_missing(folder))


def _cached() -> Path:
    """Return the folder in the user's cache, after the download if it is not there."""
    import pooch  # slow to import, and only needed here

    cache = Path(pooch.os_cache("companion"))
    folder, archive = cache / FOLDER, cache / ARCHIVE
    if not _missing(folder):
        return folder
    registry = {ARCHIVE: f"sha256:{SHA256}"}
    store = pooch.create(cache, ADDRESS, registry=registry, retry_if_failed=RETRIES)
    try:
        store.fetch(ARCHIVE)  # checks the SHA-256, also of an archive that someone put there
    except ValueError as error:
        raise ValueError(f"{ADDRESS}{ARCHIVE} is not the official archive: {error}") from error
    except OSError as error:
        there = " (the file there has another SHA-256)" if archive.exists() else ""
        raise OSError(
            f"CIFAR-10 could not be downloaded from {ADDRESS}{ARCHIVE}: {type(error).__name__}. "
            f"Put the archive at {archive}{there}, or set the environment variable {VARIABLE}, "
            f"or the argument folder, to a folder that holds {FOLDER}."
        ) from error
    _unpack(archive, folder)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Copy the six batches out of the archive, under our names, each renamed into place."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{FOLDER}/{name}": name for name in TRAIN + TEST}
    with tempfile.TemporaryDirectory(dir=folder.parent) as part, tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and (name := wanted.get(member.name)):
                with Path(part, name).open("wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)
                os.replace(Path(part, name), folder / name)
    if missing := _missing(folder):
        raise ValueError(f"{archive} has no {', '.join(missing)}.")
