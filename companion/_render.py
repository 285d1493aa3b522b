"""From a draw function to pictures: drawing in each theme, checking, encoding."""

from __future__ import annotations

import base64
import io
import re
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox
from PIL import Image

from companion import _style

CSS_PIXELS_PER_INCH = 100
MAX_INCHES = 40.0
_SHORTEST_ALT = 20
LONGEST_SVG = 150_000
# With these keys empty matplotlib writes no metadata: no date, so the same bytes each time.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_SAFE_IN_URI = " ='/:;(),.-_!~*+@$?[]|"


@dataclass(frozen=True)
class Picture:
    """One encoded picture; ``uri`` is what an ``<img>`` shows, ``width`` and ``height`` are CSS
    pixels."""

    uri: str
    width: int
    height: int


def sentence(name: str, text: Any) -> str:
    """Return ``text`` on one line if it is a sentence that can stand for a picture."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {type(text).__name__}.")
    line = " ".join(text.split())
    if len(line) >= _SHORTEST_ALT and " " in line and line[0].isupper() and line[-1] == ".":
        return line
    raise ValueError(
        f"{name} must be a sentence that tells what the picture shows (a capital first, a period "
        f"last, at least {_SHORTEST_ALT} characters), got {text!r}."
    )


def inches(size: Any) -> tuple[float, float]:
    """Return ``size`` as (width, height) in inches of 100 CSS pixels."""
    try:
        width, height = (float(side) for side in size)
    except (TypeError, ValueError):
        raise TypeError(f"size must be (width, height) in inches, got {size!r}.") from None
    if not (0 < width <= MAX_INCHES and 0 < height <= MAX_INCHES):
        raise ValueError(f"size must lie in (0, {MAX_INCHES:g}] inches, got {size!r}.")
    return width, height


def pixels(size: tuple[float, float]) -> tuple[int, int]:
    """The width and height of a picture on the page, in CSS pixels."""
    return round(size[0] * CSS_PIXELS_PER_INCH), round(size[1] * CSS_PIXELS_PER_INCH)


def canvas(size: tuple[float, float], dpi: float) -> Canvas:
    """A bare figure that pyplot knows nothing of."""
    fig = Canvas(figsize=size, dpi=dpi)
    FigureCanvasAgg(fig)
    return fig


@contextmanager
def drawn(
    fig: Canvas,
    draw: Callable[[Canvas], None],
    theme: str,
    *,
    layout: Sequence[Bbox] = (),
) -> Iterator[None]:
    """Draw on ``fig``, emptied first, in a theme that lasts until the block ends.

    The layout is solved for what is drawn, or taken from ``layout`` if it has a place for each
    axes: the same drawing in another theme has the same geometry, and solving is half the time.
    """
    with _style.theme(theme) as colors:
        fig.clear()
        fig.set_facecolor(colors.background)
        fig.set_layout_engine("constrained")
        draw(fig)
        _require_labels(fig)
        if len(layout) == len(fig.axes):
            fig.set_layout_engine("none")
            for ax, place in zip(fig.axes, layout, strict=True):
                ax.set_position(place)
        else:
            fig.get_layout_engine().execute(fig)
            fig.set_layout_engine("none")
        yield


def layout(fig: Canvas) -> list[Bbox]:
    """Where the axes of a drawn figure are."""
    return [ax.get_position(original=True) for ax in fig.axes]


def _require_labels(fig: Canvas) -> None:
    if not fig.axes:
        raise ValueError("draw must draw at least one axes on the figure it is given, got none.")
    for number, ax in enumerate(fig.axes, start=1):
        missing = _missing_labels(fig, ax)
        if missing:
            title = f", titled {ax.get_title()!r}" if ax.get_title() else ""
            raise ValueError(
                f"axes {number} of {len(fig.axes)}{title} has no {' and no '.join(missing)}: "
                "label every axis, or switch it off with ax.set_axis_off()."
            )
    for ax in (child for parent in fig.axes for child in parent.child_axes):
        missing = _missing_labels(fig, ax)
        if missing:
            raise ValueError(f"an inset or secondary axes has no {' and no '.join(missing)}.")


def _missing_labels(fig: Canvas, ax: Axes) -> list[str]:
    if not (ax.get_visible() and ax.axison):
        return []
    figure_labels = {"x": fig.get_supxlabel(), "y": fig.get_supylabel()}
    axes = {"x": ax.xaxis, "y": ax.yaxis, "z": getattr(ax, "zaxis", None)}
    missing = [
        f"{letter}label"
        for letter, axis in axes.items()
        if axis is not None
        and not (
            axis.label.get_text().strip()
            or not axis.get_visible()
            or figure_labels.get(letter, "")
            or _labelled_by_a_sibling(ax, letter, axis)
        )
    ]
    # matplotlib has no public name for the class of secondary axes
    secondary = any(base.__name__ == "SecondaryAxis" for base in type(ax).__mro__)
    one_axis_only = hasattr(ax, "_colorbar") or secondary
    return [] if one_axis_only and len(missing) == 1 else missing


def _labelled_by_a_sibling(ax: Axes, letter: str, axis: Axis) -> bool:
    """Inner panels of a shared grid hide their tick labels and leave the label to the edge."""
    if letter not in ("x", "y") or any(t.label1.get_visible() for t in axis.get_major_ticks()):
        return False
    if letter == "x":
        siblings = [other.xaxis for other in ax.get_shared_x_axes().get_siblings(ax)]
    else:
        siblings = [other.yaxis for other in ax.get_shared_y_axes().get_siblings(ax)]
    return any(other.label.get_text().strip() for other in siblings)


def smallest(fig: Canvas, indexed: Image.Image, size: tuple[float, float]) -> Picture:
    """The picture of a drawn figure as SVG or as lossless WebP, whichever travels lighter.

    Curves and text are a quarter of the size as SVG, once the server has compressed the page, and
    crisp at any zoom. Thousands of marks, images and contours are smaller as pixels: ``indexed``
    has two of them per CSS pixel, so that it is crisp too, and lossless WebP needs three quarters
    of the bytes of PNG. SVG beyond 150 kB is not worth the time it takes to draw.
    """
    buffer = io.BytesIO()
    indexed.convert("RGB").save(buffer, format="WEBP", lossless=True)
    webp, drawing = data_uri("image/webp", buffer.getvalue()), svg_uri(svg(fig))
    lighter = len(drawing) <= LONGEST_SVG and compressed(drawing) < compressed(webp)
    return Picture(drawing if lighter else webp, *pixels(size))


def rgb(fig: Canvas) -> np.ndarray:
    """The pixels (H, W, 3) uint8 of a drawn figure."""
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())[..., :3].copy()


def indexed(pixels: np.ndarray) -> Image.Image:
    """The pixels in 256 colours: only antialiasing is touched."""
    return Image.fromarray(pixels).quantize(256)


def png(picture: Image.Image) -> bytes:
    """A PNG, for front-ends and printers that know nothing else."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def compressed(text: str) -> int:
    """Bytes of a text as a server sends it."""
    return len(zlib.compress(text.encode("ascii"), 6))


def svg_uri(text: str) -> str:
    """The address of an SVG picture, percent-encoded: a server compresses it far better than
    base64."""
    return "data:image/svg+xml," + urllib.parse.quote(text, safe=_SAFE_IN_URI)


def svg(fig: Canvas) -> str:
    """A drawn figure as SVG: no metadata, ids numbered in order, a hundredth of a point kept."""
    buffer, canvas, dpi = io.StringIO(), fig.canvas, fig.dpi
    # fig.savefig would draw twice, but also put back what print_svg changes.
    FigureCanvasSVG(fig).print_svg(buffer, metadata=_NO_METADATA)
    fig.set_canvas(canvas)
    fig.set_dpi(dpi)
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->", "", buffer.getvalue(), flags=re.S)
    text = re.sub(r"\s+", " ", re.sub(r">\s+<", "><", text)).strip()
    text = re.sub(r' (?:d|x|y|points)="[^"]*"', lambda match: _rounded(match[0]), text)
    text = _renumbered(text)
    return text if "'" in text else text.replace('"', "'")  # which needs no escape in a URI


def _rounded(attribute: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute)


def _renumbered(text: str) -> str:
    """Matplotlib derives ids from colours too; numbers make the themes' drawings comparable."""
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    found = [name for name in re.findall(r' id="([^"]+)"', text) if name in used]
    ids = {name: f"i{number}" for number, name in enumerate(dict.fromkeys(found))}
    text = re.sub(
        r' id="([^"]+)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", text
    )
    return re.sub(r'(url\(|href=")#([^")]+)', lambda m: f"{m[1]}#{ids.get(m[2], m[2])}", text)
