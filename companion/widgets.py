"""Figures to play with: sliders over pre-rendered frames on a page, live in a running kernel."""

from __future__ import annotations

import functools
import html
import inspect
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox

from companion import _render
from companion._frames import Bitmaps, Drawings, Frames, ThemesDiffer

__all__ = ["Explorer", "Slider", "explore"]

_DPI = 150  # three pixels per two CSS pixels: full width on a telephone, and half the bytes of two
_MOST_FRAMES = 200
_MOST_BYTES = 700_000
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Slider:
    """The values of one slider: ``Slider([1, 2, 4], label="Depth K")``.

    ``values`` are passed on to ``draw`` and ``alt`` as they are. ``label`` is plain text, which
    reads the same with and without MathJax. ``format`` turns a value into what stands beside the
    slider: a format string such as "{:.0e}", or a function. ``start`` is the index of the value
    shown first.

    Raises TypeError or ValueError if there are fewer than two values, if ``label`` is empty, if
    ``format`` does not suit the values, or if ``start`` is not one of the indices.

    >>> Slider([0.1, 1.0, 10.0], label="Step size", format="{:.1f}", start=1).texts
    ('0.1', '1.0', '10.0')
    """

    values: Iterable[Any]
    _: KW_ONLY
    label: str
    format: str | Callable[[Any], str] = "{:g}"
    start: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Iterable):
            raise TypeError(f"values must be a sequence of values, got {self.values!r}.")
        object.__setattr__(self, "values", tuple(self.values))
        if len(self.values) < 2:
            raise ValueError(f"values must hold two values or more, got {self.values!r}.")
        if not isinstance(self.label, str) or not self.label.strip():
            raise ValueError(f"label must be a text that names the slider, got {self.label!r}.")
        if not (isinstance(self.start, int) and 0 <= self.start < len(self.values)):
            raise ValueError(
                f"start must be an index in 0 .. {len(self.values) - 1}, got {self.start!r}."
            )
        _ = self.texts

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """What stands beside the slider at each value."""
        write = self.format if callable(self.format) else self.format.format
        try:
            return tuple(str(write(value)) for value in self.values)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"format {self.format!r} does not suit the values of slider {self.label!r} "
                f"({error}): give a format string such as '{{}}', or a function."
            ) from error


def explore(
    draw: Callable[..., None],
    *,
    alt: Callable[..., str],
    size: tuple[float, float] = (6.4, 4.0),
    limit: int = _MOST_BYTES,
    num_colors: int = 64,
    **sliders: Slider,
) -> Explorer:
    """A figure whose parameters the reader chooses with sliders.

    ``draw(fig, **values)`` draws as in ``figures.figure``; ``alt(**values)`` returns the sentence
    that says what that frame shows. Each keyword in ``sliders`` names a parameter of both.

    All combinations are drawn here, 200 at most, in both themes, and travel in the page: it needs
    no kernel. ``limit`` bounds their size in bytes. In a running kernel the same sliders call
    ``draw`` anew.

        explore(draw, alt=describe, depth=Slider([1, 2, 3], label="Depth K"))

    With BOOK_DRAFT set in the environment only the first and the last combination are drawn, for
    tests of what a notebook computes.

    Raises TypeError if ``draw`` or ``alt`` cannot be called with these parameters or a slider is
    not a ``Slider``; ValueError if there are no sliders, two of them have the same label, there
    are too many frames or bytes, ``alt`` returns no sentence, or an axis has no label.
    """
    _check_sliders(sliders, size=size, limit=limit, num_colors=num_colors)
    _check_callable("draw", draw, sliders, positional=1)
    _check_callable("alt", alt, sliders, positional=0)
    size = _render.inches(size)
    grid = list(itertools.product(*(slider.values for slider in sliders.values())))
    if len(grid) > _MOST_FRAMES:
        raise ValueError(
            f"sliders must have at most {_MOST_FRAMES} combinations of values, got {len(grid)}: "
            "give some of them fewer values."
        )
    points = [dict(zip(sliders, values, strict=True)) for values in grid]
    alts = tuple(_render.sentence(f"alt({_call(point)})", alt(**point)) for point in points)
    began = time.perf_counter()
    frames = _render_frames(draw, points, size, limit, num_colors)
    seconds = (time.perf_counter() - began) / len(points)
    explorer = Explorer(draw, alt, size, sliders, frames, alts, seconds)
    if explorer.num_bytes > limit:
        raise _too_large(explorer.num_bytes, limit, "")
    return explorer


class Explorer:
    """What ``explore`` returns: displayable, on a page and in a running kernel.

    ``num_frames`` counts the frames, ``num_bytes`` measures the page's part of it, and
    ``seconds_per_frame`` is what rendering took, both themes together.
    """

    def __init__(
        self,
        draw: Callable[..., None],
        alt: Callable[..., str],
        size: tuple[float, float],
        sliders: dict[str, Slider],
        frames: Frames,
        alts: tuple[str, ...],
        seconds_per_frame: float,
    ) -> None:
        self._draw, self._alt, self._size = draw, alt, size
        self._frames, self._alts = frames, alts
        self.sliders = sliders
        self.seconds_per_frame = seconds_per_frame

    def __repr__(self) -> str:
        return f"Explorer ({', '.join(_where(self.sliders))}): {self.alt}"

    @property
    def num_frames(self) -> int:
        return len(self._alts)

    @cached_property
    def num_bytes(self) -> int:
        return len(self.html.encode())

    @property
    def alt(self) -> str:
        """The sentence of the frame shown first."""
        return self._alts[self._start]

    @property
    def _start(self) -> int:
        at = 0
        for slider in self.sliders.values():
            at = at * len(slider.values) + slider.start
        return at

    @cached_property
    def html(self) -> str:
        """The first frame, the sliders, all frames as data, and the script that joins them."""
        texts = [slider.texts for slider in self.sliders.values()]
        payload = self._frames.packed(texts=texts, alts=self._alts)
        rows = "".join(_row(slider) for slider in self.sliders.values())
        return (
            '<div class="explorer">'
            f"{_image(self._frames.uri(self._start), self.alt, self._size)}"
            f'<div class="explorer-controls" hidden>{rows}</div>'
            f"<noscript><p>Shown: {html.escape('; '.join(_where(self.sliders)))}. "
            "The sliders need JavaScript.</p></noscript>"
            f'<script type="application/json">{payload}</script>'
            f"<script>{_script()}</script></div>"
        )

    @cached_property
    def _poster(self) -> bytes:
        first = {name: slider.values[slider.start] for name, slider in self.sliders.items()}
        return self._print(_render.canvas(self._size, _DPI), first)

    @cached_property
    def widget(self) -> Any:
        """The same sliders as ipywidgets, which draw anew with each change; made at first use."""
        import ipywidgets  # a running kernel only: half a second that no page needs

        fig = _render.canvas(self._size, _DPI)
        wide = {"layout": {"width": "100%"}, "style": {"description_width": "initial"}}
        controls = [
            ipywidgets.SelectionSlider(
                options=[(text, i) for i, text in enumerate(slider.texts)],
                index=slider.start, description=slider.label, continuous_update=False, **wide,
            )  # fmt: skip
            for slider in self.sliders.values()
        ]
        view = ipywidgets.HTML(_image(self._frames.uri(self._start), self.alt, self._size))

        def redraw(_: Any) -> None:
            values = {
                name: slider.values[control.index]
                for (name, slider), control in zip(self.sliders.items(), controls, strict=True)
            }
            view.value = self._live_image(fig, values)

        for control in controls:
            control.observe(redraw, names="index")
        return ipywidgets.VBox([view, *controls])

    def _live_image(self, fig: Canvas, values: dict[str, Any]) -> str:
        alt = _render.sentence(f"alt({_call(values)})", self._alt(**values))
        png = self._print(fig, values)
        return _image(_render.data_uri("image/png", png), alt, self._size)

    def _print(self, fig: Canvas, values: dict[str, Any]) -> bytes:
        with _render.drawn(fig, lambda fig: self._draw(fig, **values), "light"):
            return _render.png(_render.indexed(_render.rgb(fig)))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {
            "text/html": self.html,
            "image/png": self._poster,
            "text/plain": repr(self),
        }
        if _in_live_kernel():
            bundle[_WIDGET_VIEW] = self.widget._repr_mimebundle_()[_WIDGET_VIEW]
        return bundle


def _render_frames(
    draw: Callable[..., None],
    points: list[dict[str, Any]],
    size: tuple[float, float],
    limit: int,
    num_colors: int,
) -> Frames:
    fig = _render.canvas(size, _DPI)
    layout = _shared_layout(fig, draw, points)
    try:
        if _drawings_are_lighter(draw, points[0], fig, layout, num_colors):
            return _fill(Drawings(), _render.svg, draw, points, fig, layout, limit)
    except ThemesDiffer:
        pass  # such as an image inside the drawing: only pixels can share it between themes
    return _fill(Bitmaps(num_colors), _render.rgb, draw, points, fig, layout, limit)


def _shared_layout(
    fig: Canvas, draw: Callable[..., None], points: list[dict[str, Any]]
) -> list[Bbox]:
    """One place per axes for all frames, so that nothing jumps: what the first and the last share.

    Empty, so that each frame is laid out by itself, where these differ in their axes.
    """
    places = []
    for point in (points[0], points[-1]):
        with _render.drawn(fig, functools.partial(draw, **point), "light"):
            places.append(_render.layout(fig))
    if len(places[0]) != len(places[1]):
        return []
    shared = [Bbox.intersection(a, b) for a, b in zip(*places, strict=True)]
    return [] if None in shared else shared


def _drawings_are_lighter(
    draw: Callable[..., None],
    point: dict[str, Any],
    fig: Canvas,
    layout: list[Bbox],
    num_colors: int,
) -> bool:
    """Whether one frame takes fewer bytes as SVG than as PNG, and is quick to show."""
    svg, png = Drawings(), Bitmaps(num_colors)
    svg.append(*_in_both_themes(fig, draw, point, layout, _render.svg))
    png.append(*_in_both_themes(fig, draw, point, layout, _render.rgb))
    short = len(svg.uri(0)) <= _render.LONGEST_SVG
    return short and svg.num_characters < png.num_characters


def _fill(
    frames: Frames,
    take: Callable[[Canvas], Any],
    draw: Callable[..., None],
    points: list[dict[str, Any]],
    fig: Canvas,
    layout: list[Bbox],
    limit: int,
) -> Frames:
    drafting = os.environ.get("BOOK_DRAFT", "0") not in ("", "0")
    for number, point in enumerate(points, start=1):
        if drafting and 1 < number < len(points):
            frames.repeat()
            continue
        frames.append(*_in_both_themes(fig, draw, point, layout, take))
        if frames.num_characters > limit:
            projected = frames.num_characters * len(points) // number
            raise _too_large(projected, limit, f", judging by {number} of {len(points)} frames")
    return frames


def _in_both_themes(
    fig: Canvas,
    draw: Callable[..., None],
    point: dict[str, Any],
    layout: list[Bbox],
    take: Callable[[Canvas], Any],
) -> tuple[Any, Any]:
    paint = functools.partial(draw, **point)
    with _render.drawn(fig, paint, "light", layout=layout):
        light, used = take(fig), _render.layout(fig)
    with _render.drawn(fig, paint, "dark", layout=used):
        return light, take(fig)


def _too_large(measured: int, limit: int, basis: str) -> ValueError:
    return ValueError(
        f"the frames need {measured / 1e6:.2f} MB{basis}, more than limit = {limit / 1e6:.2f} MB: "
        "give a slider fewer values, make size smaller, draw less, or set num_colors=32."
    )


def _image(uri: str, alt: str, size: tuple[float, float]) -> str:
    width, height = _render.pixels(size)
    return (
        f'<img class="dark-light" alt="{html.escape(alt)}" width="{width}" height="{height}" '
        f'src="{uri}" style="max-width:100%;height:auto;padding:0;background:none">'
    )


def _row(slider: Slider) -> str:
    text = html.escape(slider.texts[slider.start])
    # JupyterLab takes the arrow keys for itself unless the input itself asks it not to.
    return (
        '<div style="display:flex;align-items:end;gap:.75rem;margin:.25rem 0">'
        '<label style="display:flex;flex:1 1 auto;flex-wrap:wrap;align-items:center;'
        f'gap:0 .75rem;margin:0"><span>{html.escape(slider.label)}</span>'
        f'<input type="range" min="0" max="{len(slider.values) - 1}" step="1" '
        f'value="{slider.start}" aria-valuetext="{text}" autocomplete="off" '
        'data-lm-suppress-shortcuts="true" '
        'style="flex:1 1 12rem;min-width:8rem;min-height:1.75rem;margin:0"></label>'
        f'<output style="min-width:4.5em" aria-live="off">{text}</output></div>'
    )


def _where(sliders: dict[str, Slider]) -> list[str]:
    return [f"{slider.label} = {slider.texts[slider.start]}" for slider in sliders.values()]


def _script() -> str:
    return resources.files("companion").joinpath("_static", "explorer.js").read_text("utf-8")


def _in_live_kernel() -> bool:
    """True in a notebook that someone runs; the book's build keeps the frames alone."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel") and not os.environ.get("BOOK_BUILD")


def _call(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r:.40}" for name, value in values.items())


def _check_sliders(sliders: dict[str, Slider], **options: Any) -> None:
    for name, value in options.items():
        if isinstance(value, Slider):
            raise ValueError(f"a slider cannot be called {name!r}: it is an option of explore.")
    for name in ("limit", "num_colors"):
        if not isinstance(options[name], int) or isinstance(options[name], bool):
            raise TypeError(f"{name} must be an integer, got {options[name]!r}.")
    if not 2 <= options["num_colors"] <= 256:
        raise ValueError(f"num_colors must lie in 2 .. 256, got {options['num_colors']}.")
    if not sliders:
        raise ValueError("sliders must hold at least one, as in k=Slider([1, 2], label='Depth').")
    labels: dict[str, str] = {}
    for name, slider in sliders.items():
        if not isinstance(slider, Slider):
            raise TypeError(f"{name} must be a Slider(values, label=...), got {slider!r:.60}.")
        if slider.label in labels:
            raise ValueError(
                f"sliders {labels[slider.label]!r} and {name!r} have the same label "
                f"{slider.label!r}."
            )
        labels[slider.label] = name


def _check_callable(
    name: str, function: Any, sliders: dict[str, Slider], *, positional: int
) -> None:
    if not callable(function):
        raise TypeError(
            f"{name} must be a function of the sliders' values ({', '.join(sliders)}), "
            f"got {function!r:.60}."
        )
    try:
        inspect.signature(function).bind(*[None] * positional, **dict.fromkeys(sliders))
    except TypeError as error:
        first = "fig, " * positional
        raise TypeError(
            f"{name} must accept ({first}{', '.join(sliders)}), the names of the sliders: {error}."
        ) from None
