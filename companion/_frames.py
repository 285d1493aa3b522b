"""Frames of an explorer: what the themes share is stored once, what frames share once too."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
import zlib
from typing import Any

import numpy as np

from companion import _render

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3  # PNG's colour type: one byte per pixel into a palette
_COLOR = re.compile(r"#[0-9a-f]{6}\b")


class ThemesDiffer(ValueError):
    """The drawings of the two themes differ in more than colours."""


class Frames:
    """Frames of an explorer in both themes, in the order of ``append``; equal ones stored once.

    ``packed`` is what the page carries, compressed, for the script to unpack.
    """

    def __init__(self) -> None:
        self.order: list[int] = []
        self.items: dict[Any, int] = {}
        self._stream = zlib.compressobj(9)
        self._compressed = 0

    def _add(self, item: Any) -> None:
        if item not in self.items:
            self.items[item] = len(self.items)
            text = json.dumps(item).encode()
            self._compressed += len(self._stream.compress(text))
            self._compressed += len(self._stream.flush(zlib.Z_SYNC_FLUSH))
        self.order.append(self.items[item])

    def repeat(self) -> None:
        """Add the last frame once more."""
        self.order.append(self.order[-1])

    @property
    def num_characters(self) -> int:
        """Length in the page of what is stored so far, within a few percent."""
        return self._compressed * 4 // 3

    def as_json(self) -> dict[str, Any]:
        return {"order": self.order, "items": list(self.items)}

    def uri(self, frame: int, theme: int = 0) -> str:
        """What an ``<img>`` shows; ``theme`` 0 is light, 1 is dark."""
        raise NotImplementedError

    def packed(self, **more: Any) -> str:
        """The frames, and ``more`` beside them, as JSON, gzipped without a date, in base64."""
        text = json.dumps({**more, **self.as_json()}, ensure_ascii=False, separators=(",", ":"))
        return _base64(gzip.compress(text.encode(), 9, mtime=0))


class Drawings(Frames):
    """Frames in SVG. One text serves both themes: each colour in it is a number between tildes,
    which stands for a pair of colours."""

    def __init__(self) -> None:
        super().__init__()
        self.colors: dict[tuple[str, str], int] = {}

    def append(self, light: str, dark: str) -> None:
        """Add one frame, as the text of its SVG in both themes."""
        if _COLOR.sub("", light) != _COLOR.sub("", dark) or "~" in light:
            raise ThemesDiffer
        pairs = zip(_COLOR.findall(light), _COLOR.findall(dark), strict=True)
        numbers = iter([self.colors.setdefault(pair, len(self.colors)) for pair in pairs])
        self._add(_COLOR.sub(lambda _: f"~{next(numbers)}~", light))

    def as_json(self) -> dict[str, Any]:
        return {"kind": "svg", "colors": list(self.colors), **super().as_json()}

    def uri(self, frame: int, theme: int = 0) -> str:
        colors, text = list(self.colors), list(self.items)[self.order[frame]]
        return _render.svg_uri(re.sub(r"~(\d+)~", lambda m: colors[int(m[1])][theme], text))


class Bitmaps(Frames):
    """Frames in PNG. A drawing has the same geometry in either theme, so that one image of palette
    indices serves both, with two palettes.

    The parts of the file have lengths divisible by three (signature and header 33 bytes, a palette
    of n colours 12 + 3n), hence their base64 forms can be joined as text.
    """

    def __init__(self, num_colors: int) -> None:
        super().__init__()
        self.num_colors = num_colors
        self.head = ""

    def append(self, light: np.ndarray, dark: np.ndarray) -> None:
        """Add one frame, drawn in both themes, each (H, W, 3) uint8."""
        indices, colors = joint_palette(light, dark, self.num_colors)
        height, width = indices.shape
        header = struct.pack(">IIBBBBB", width, height, 8, _INDEXED, 0, 0, 0)
        self.head = _base64(_SIGNATURE + _chunk(b"IHDR", header))
        palettes = tuple(_base64(_chunk(b"PLTE", colors[:, half].tobytes())) for half in _HALVES)
        rows = np.pad(indices, ((0, 0), (1, 0)))  # PNG: each row starts with its filter, 0 = none
        pixels = zlib.compress(rows.tobytes(), 9)
        self._add((palettes, _base64(_chunk(b"IDAT", pixels) + _chunk(b"IEND", b""))))

    def as_json(self) -> dict[str, Any]:
        return {"kind": "png", "head": self.head, **super().as_json()}

    def uri(self, frame: int, theme: int = 0) -> str:
        palettes, body = list(self.items)[self.order[frame]]
        return f"data:image/png;base64,{self.head}{palettes[theme]}{body}"


_HALVES = (slice(0, 3), slice(3, 6))


def joint_palette(
    light: np.ndarray, dark: np.ndarray, num_colors: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce two pictures (H, W, 3) uint8 at once to ``num_colors`` pairs of colours.

    Returns the indices (H, W) uint8 and the palette (n, 6) uint8, light in the first three columns
    and dark in the last. Cuts the six-dimensional box with the largest squared error at its mean,
    along the axis of that error (Wan, Wong and Prusinkiewicz 1990), until there are enough. The
    colour of the top left pixel, the background, is kept as it is.
    """
    both = np.concatenate((light, dark), axis=-1).astype(np.int64)
    keys = both @ (256 ** np.arange(5, -1, -1))
    background = keys[0, 0]
    drawn = keys != background
    unique, inverse, counts = np.unique(keys[drawn], return_inverse=True, return_counts=True)
    colors = np.stack([(unique >> shift) & 255 for shift in range(40, -1, -8)], axis=1)
    boxes = _cut(colors.astype(float), counts.astype(float), num_colors - 1)
    palette = [both[0, 0].astype(float)]
    label = np.zeros(len(unique), dtype=np.uint8)
    for number, box in enumerate(boxes, start=1):
        label[box] = number
        palette.append(np.average(colors[box], axis=0, weights=counts[box]))
    indices = np.zeros(keys.shape, dtype=np.uint8)
    indices[drawn] = label[inverse]
    return indices, np.rint(palette).astype(np.uint8)


def _cut(colors: np.ndarray, counts: np.ndarray, most: int) -> list[np.ndarray]:
    """Indices of the colours in each box."""
    if not len(colors):
        return []
    boxes = [np.arange(len(colors))]
    errors = [_worst_axis(colors, counts, boxes[0])]
    while len(boxes) < most:
        largest = max(range(len(boxes)), key=lambda i: errors[i][0])
        error, axis, mean = errors[largest]
        if error <= 0:
            break
        box = boxes[largest]
        above = colors[box, axis] > mean
        boxes[largest : largest + 1] = [box[~above], box[above]]
        errors[largest : largest + 1] = [
            _worst_axis(colors, counts, part) for part in boxes[largest : largest + 2]
        ]
    return boxes


def _worst_axis(
    colors: np.ndarray, counts: np.ndarray, box: np.ndarray
) -> tuple[float, int, float]:
    """(squared error, axis, mean there) of the axis along which a box is the most spread out."""
    weights, values = counts[box, None], colors[box]
    mean = (weights * values).sum(axis=0) / weights.sum()
    error = (weights * (values - mean) ** 2).sum(axis=0)
    axis = int(error.argmax())
    spread = values[:, axis].max() > values[:, axis].min()
    return (float(error[axis]) if spread else 0.0), axis, float(mean[axis])


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
