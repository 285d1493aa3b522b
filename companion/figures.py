"""Figures in the book's one style, drawn for the light and the dark theme, with alt text.

Figures read the fields of results and know nothing of how they were computed.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patheffects import withStroke

from companion import _render
from companion._graph_drawing import FunctionGraph, function_graph, network_graph
from companion._style import LINE_STYLES, MARKERS, Colors, colors, palette

__all__ = [
    "Colors",
    "Figure",
    "FunctionGraph",
    "LINE_STYLES",
    "MARKERS",
    "MarginPath",
    "Plane",
    "colors",
    "decision",
    "figure",
    "function_graph",
    "lines",
    "margin",
    "margin_curves",
    "network_graph",
    "palette",
    "plane",
    "pulls",
]

_DPI = 200  # two pixels per CSS pixel: crisp on the usual high-resolution screen
_MOST_LINES = 6
_MOST_NUMBERED = 12
_MOST_ROWS = 8  # more indices than this cannot be named beside a low panel
_LABEL_SPACING = 0.075  # of the height of the axes; one line of text


@dataclass(frozen=True, repr=False)
class Figure:
    """A figure as it is displayed: one picture per theme, a PNG for printing, and alt text.

    In a page of the book its stylesheet shows the picture of the reader's theme. Elsewhere
    (JupyterLab, Colab) the light one is shown, and it brings its own background.
    """

    alt: str
    light: _render.Picture = field(compare=False)
    dark: _render.Picture = field(compare=False)
    png: bytes = field(compare=False)

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"

    @property
    def html(self) -> str:
        """Two ``<img>``; the dark one stays hidden where no stylesheet asks for it."""
        light = _image(self.light, self.alt, "figure-light", "")
        dark = _image(self.dark, self.alt, "figure-dark", "display:none;")
        return f'<div class="companion-figure">{light}{dark}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self.html, "image/png": self.png, "text/plain": repr(self)}


def _image(picture: _render.Picture, alt: str, name: str, style: str) -> str:
    # "dark-light" tells the site's theme not to dim the picture nor to put it on a pale panel.
    return (
        f'<img class="{name} dark-light" alt="{html.escape(alt)}" '
        f'width="{picture.width}" height="{picture.height}" src="{html.escape(picture.uri)}" '
        f'style="{style}max-width:100%;height:auto;padding:0;background:none">'
    )


def figure(
    draw: Callable[[Canvas], None], *, alt: str, size: tuple[float, float] = (6.4, 4.0)
) -> Figure:
    """A figure that ``draw`` draws once in the light and once in the dark theme.

    ``draw(fig)`` gets an empty matplotlib figure, without pyplot, in the book's style; it asks
    ``colors()`` for a colour by its role, and labels every axis or switches the axes off. ``size``
    is in inches of 100 CSS pixels. ``alt`` is a sentence that says what the figure shows, for a
    reader who does not see it. The same drawing gives the same bytes each time.

    Raises TypeError if ``draw`` cannot be called; ValueError if ``alt`` is not a sentence, if
    nothing is drawn, or if an axis has no label.

    >>> def draw(fig):
    ...     ax = fig.subplots()
    ...     ax.plot([0, 1], [0, 1], color=colors().accent)
    ...     ax.set(xlabel="time", ylabel="margin")
    >>> figure(draw, alt="The margin grows in proportion to time.")
    Figure: The margin grows in proportion to time.
    """
    if not callable(draw):
        raise TypeError(f"draw must be a function of a figure, got {type(draw).__name__}.")
    alt, size = _render.sentence("alt", alt), _render.inches(size)
    fig = _render.canvas(size, _DPI)
    with _render.drawn(fig, draw, "light"):
        pixels, layout = _render.indexed(_render.rgb(fig)), _render.layout(fig)
        light, png = _render.smallest(fig, pixels, size), _render.png(pixels)
    with _render.drawn(fig, draw, "dark", layout=layout):
        dark = _render.smallest(fig, _render.indexed(_render.rgb(fig)), size)
    return Figure(alt, light, dark, png)


def lines(
    x: Any,
    curves: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    xscale: str = "linear",
    yscale: str = "linear",
    levels: Mapping[str, float] | None = None,
    markers: bool = False,
    size: tuple[float, float] = (6.4, 4.0),
) -> Figure:
    """Curves over a common axis, each named at its right end.

    ``x`` (T,); ``curves`` maps a name to values (T,), six at most: more cannot be told apart in
    black and white. ``levels`` maps a name to a height at which a thin horizontal line is drawn,
    such as a limit. NaN leaves a gap.

    Raises ValueError if a curve does not have the shape of ``x``, or if there are none or too many.
    """
    x = _vector("x", x)
    if not 1 <= len(curves) <= _MOST_LINES:
        raise ValueError(f"curves must hold 1 to {_MOST_LINES} curves, got {len(curves)}.")
    values = {
        name: _vector(f"curves[{name!r}]", y, len(x), "x") for name, y in curves.items()
    }
    heights = {name: float(value) for name, value in (levels or {}).items()}

    def draw(fig: Canvas) -> None:
        ax = fig.subplots()
        ax.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
        for (name, y), marker in zip(values.items(), MARKERS, strict=False):
            every = max(1, len(x) // 12)
            ax.plot(x, y, label=name, marker=marker if markers else "", markevery=every)
        for value in heights.values():
            ax.axhline(value, color=colors().muted, linewidth=1, linestyle=(0, (1, 2)))
        ends = [
            (_last(x, y), name, line.get_color())
            for (name, y), line in zip(values.items(), ax.lines, strict=False)
        ]
        right = ax.get_xlim()[1]
        ends += [((right, value), name, colors().muted) for name, value in heights.items()]
        _name_ends(ax, ends)

    return figure(draw, alt=alt, size=size)


class MarginPath(Protocol):
    """What ``margin`` reads of a result; every field has shape (T,), T the recorded steps."""

    log_inverse_loss: Any
    hard_margin: Any
    smoothed_margin: Any
    support_vector: Any
    accuracy: Any


def margin(
    path: MarginPath,
    *,
    alt: str,
    xscale: str = "symlog",
    size: tuple[float, float] = (6.4, 4.0),
) -> Figure:
    """The normalized margins along a path, with each change of support vector (PNAS Fig. 3).

    Over l = -log of the sum of the losses: the hard margin min_n y_n f(V; x_n), the smoothed
    margin, the moment from which on the training set is separated (dotted), the stretches where
    the hard margin falls (shaded), and a circle at each change of support vector after separation
    with the index of the new one. Beyond twelve changes the circles lose their numbers, and a
    second panel shows the index of the support vector over time instead.

    ``xscale`` is "symlog" (logarithmic beyond |l| = 1), "log" (shows l > 0 only) or "linear".
    ``path`` is any object with the fields of ``MarginPath``.

    Raises TypeError if a field is missing; ValueError if the shapes differ or ``xscale`` is not
    one of the three.
    """
    if xscale not in ("symlog", "log", "linear"):
        raise ValueError(f"xscale must be 'symlog', 'log' or 'linear', got {xscale!r}.")
    record = _read_path(path)
    changes = _changes_of_support_vector(record)

    def draw(fig: Canvas) -> None:
        if len(changes) <= _MOST_NUMBERED:
            ax = fig.subplots()
        else:
            ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_margins(ax, record)
        _draw_changes(ax, record, changes)
        if len(changes) > _MOST_NUMBERED:
            _draw_indices(below, record)
        bottom = ax if len(changes) <= _MOST_NUMBERED else below
        bottom.set_xlabel(r"$\ell = -\log L$,  $L$ the sum of the losses")
        scale = {"linthresh": 1.0} if xscale == "symlog" else {}
        ax.set_xscale(xscale, **scale)
        ax.legend(loc="best")

    return figure(draw, alt=alt, size=size)


def margin_curves(ax: Axes, x: Any, hard: Any, smoothed: Any) -> None:
    """Plot a hard and a smoothed margin as everywhere in the book; for use inside draw.

    ``x``, ``hard`` and ``smoothed`` have shape (T,). Raises ValueError if they differ in length.
    """
    x = _vector("x", x)
    role = colors()
    ax.plot(x, _vector("hard", hard, len(x), "x"), color=role.c1, linestyle="-",
            label="hard margin", zorder=2.5)  # fmt: skip
    ax.plot(x, _vector("smoothed", smoothed, len(x), "x"), color=role.c0, linestyle="--",
            label="smoothed margin")  # fmt: skip


class Plane(NamedTuple):
    """A grid over the plane of two inputs: ``x1`` (W,), ``x2`` (H,), ``points`` (H * W, 2)."""

    x1: np.ndarray
    x2: np.ndarray
    points: Any


def plane(x: Any, *, resolution: int = 120, pad: float = 0.25) -> Plane:
    """The grid on which a function of two inputs is evaluated around the points ``x`` (N, 2).

    The grid reaches ``pad`` times the points' extent beyond them on each side. ``points`` is of
    the kind of ``x``: a tensor of its dtype and device if ``x`` is a tensor.

    Raises ValueError if ``x`` does not have shape (N, 2).

    >>> grid = plane(np.array([[0.0, 0.0], [1.0, 2.0]]), resolution=5)
    >>> grid.points.shape, float(grid.x1[0]), float(grid.x2[-1])
    ((25, 2), -0.5, 2.5)
    """
    known = _array(x)
    if known.ndim != 2 or known.shape[1] != 2 or not len(known):
        raise ValueError(f"x must have shape (N, 2) with N >= 1, got {known.shape}.")
    low, high = known.min(axis=0), known.max(axis=0)
    reach = pad * max(float((high - low).max()), 1e-6)
    x1, x2 = (np.linspace(low[i] - reach, high[i] + reach, resolution) for i in (0, 1))
    points = np.stack(np.meshgrid(x1, x2), axis=-1).reshape(-1, 2)
    return Plane(x1, x2, x.new_tensor(points) if hasattr(x, "new_tensor") else points)


def decision(
    ax: Axes,
    grid: Plane,
    f: Any,
    x: Any,
    y: Any,
    *,
    support: Sequence[int] = (),
    scale: float | None = None,
) -> None:
    """Draw a function of two inputs, its zero line, and the labelled points; for use inside draw.

    ``grid`` from ``plane``, ``f`` (H * W,) or (H, W) its values there, ``x`` (N, 2), ``y`` (N,)
    with labels -1 (squares) and +1 (circles). ``support`` lists the support vectors, which get a
    ring, and the dashed lines are the levels of f that the nearest of them reaches. ``scale`` is
    the value of |f| at full colour, by default the largest on the grid.

    Raises ValueError if the shapes do not fit or a label is neither -1 nor +1.
    """
    values, points, labels = _check_decision(grid, f, x, y)
    role = colors()
    top = float(np.abs(values).max()) if scale is None else float(scale)
    top = top if top > 0 else 1.0
    shades = np.linspace(-1, 1, 13)
    tints = [role.diverging(0.5 + 0.22 * shade) for shade in np.linspace(-1, 1, 14)]
    ax.contourf(grid.x1, grid.x2, values, levels=top * shades, colors=tints, extend="both")
    ax.contour(grid.x1, grid.x2, values, levels=[0.0], colors=[role.ink], linewidths=1.8)
    for label, marker, color in ((1, "o", role.positive), (-1, "s", role.negative)):
        chosen = points[labels == label]
        ax.scatter(*chosen.T, marker=marker, color=color, edgecolor=role.background, s=52,
                   label=f"$y = {label:+d}$", zorder=3)  # fmt: skip
    held = points[list(support)]
    if len(held):
        ax.scatter(*held.T, s=190, facecolor="none", edgecolor=role.ink, linewidth=1.6,
                   label="support vector", zorder=4)  # fmt: skip
        _draw_margin_lines(ax, grid, values, held)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.set_xlim(grid.x1[0], grid.x1[-1])
    ax.set_ylim(grid.x2[0], grid.x2[-1])
    ax.grid(False)


def pulls(ax: Axes, x: Any, direction: Any, terms: Any, weights: Any) -> None:
    """Draw how points in the plane pull a unit direction, and what is left; for use inside draw.

    ``x`` (N, 2) points, ``direction`` (2,) the unit vector v, ``terms`` (N, 2) the pulls B_n
    orthogonal to v, ``weights`` (N,) their weights alpha_n >= 0, which are scaled to sum 1. Each
    alpha_n B_n is a thin arrow from the tip of v; the thick arrow below them is their sum, zero at
    equilibrium. Points are as large as their weights and numbered from 1 on.

    Raises ValueError if the shapes do not fit or the weights do not have a positive sum.
    """
    points, v, pull = _array(x), _vector("direction", direction, 2, "a point"), _array(terms)
    alpha = _vector("weights", weights, len(points), "x")
    if points.shape != (len(alpha), 2) or pull.shape != points.shape:
        raise ValueError(
            f"x and terms must both have shape (N, 2), got {points.shape} and {pull.shape}."
        )
    if (alpha < 0).any() or not alpha.sum() > 0:
        raise ValueError(f"weights must be at least 0 with a positive sum, got {alpha.tolist()}.")
    role, shares = colors(), alpha / alpha.sum()
    reach = 1.15 * np.abs(np.vstack([points, [[1.5, 1.5]]])).max(axis=0)
    ax.scatter(*points.T, s=30 + 170 * shares, color=role.accent, edgecolor=role.background)
    for n, point in enumerate(points, start=1):
        ax.annotate(f"$x_{n}$", point, (8, 6), textcoords="offset points")
    arrow = {"angles": "xy", "scale_units": "xy", "scale": 1, "zorder": 3}
    ax.quiver(0, 0, *v, color=role.ink, width=0.012, **arrow)
    ax.annotate("$v$", 0.5 * v, (0, 8), textcoords="offset points")
    ax.quiver(*v, *(shares @ pull), color=role.muted, width=0.030, **{**arrow, "zorder": 2})
    for n, share in enumerate(shares):
        ax.quiver(*v, *(share * pull[n]), color=role.cycle[1 + n % 4], width=0.012, **arrow)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-0.3, reach[0]), ylim=(-reach[1], reach[1]))


def _array(value: Any) -> np.ndarray:
    """A NumPy array of a tensor, an array or a sequence; torch itself is not needed here."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=float)


def _vector(name: str, value: Any, length: int | None = None, like: str = "") -> np.ndarray:
    array = _array(value)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must have shape (T,) with T >= 1, got {array.shape}.")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} must have as many values as {like} ({length}), got {len(array)}.")
    return array


def _last(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    finite = np.flatnonzero(np.isfinite(y))
    at = finite[-1] if len(finite) else len(y) - 1
    return float(x[at]), float(y[at])


def _name_ends(ax: Axes, ends: list[tuple[tuple[float, float], str, str]]) -> None:
    """Write each name to the right of the axes at the height where its line ends, never two on
    one another."""
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform(point)[1]) for point, _, _ in ends]
    order = sorted((h, i) for i, h in enumerate(heights) if np.isfinite(h))
    placed: list[tuple[float, int]] = []
    for height, i in order:
        floor = placed[-1][0] + _LABEL_SPACING if placed else 0.0
        placed.append((max(height, floor), i))
    overflow = max(0.0, placed[-1][0] - 1.0) if placed else 0.0
    for height, i in placed:
        _, name, color = ends[i]
        ax.annotate(name, (1.0, height - overflow), xycoords="axes fraction", xytext=(6, 0),
                    textcoords="offset points", va="center", color=color, size=11,
                    annotation_clip=False)  # fmt: skip


@dataclass(frozen=True)
class _Record:
    l: np.ndarray  # noqa: E741 (the paper's letter)
    hard: np.ndarray
    smoothed: np.ndarray
    support: np.ndarray
    separated: int | None


def _read_path(path: MarginPath) -> _Record:
    fields = {}
    for name in MarginPath.__annotations__:
        if not hasattr(path, name):
            raise TypeError(f"path must have a field {name} of shape (T,), got {path!r:.80}.")
        length = len(fields["log_inverse_loss"]) if fields else None
        fields[name] = _vector(f"path.{name}", getattr(path, name), length, "log_inverse_loss")
    wrong = np.flatnonzero(~(fields["accuracy"] >= 1.0))
    separated = int(wrong[-1]) + 1 if len(wrong) else 0
    return _Record(
        fields["log_inverse_loss"],
        fields["hard_margin"],
        fields["smoothed_margin"],
        fields["support_vector"].astype(int),
        separated if separated < len(fields["accuracy"]) else None,
    )


def _changes_of_support_vector(record: _Record) -> np.ndarray:
    """The steps after separation at which the sample with the smallest margin is a new one."""
    if record.separated is None:
        return np.zeros(0, dtype=int)
    steps = np.flatnonzero(np.diff(record.support)) + 1
    return steps[steps > record.separated]


def _falls(record: _Record) -> list[tuple[float, float]]:
    """(start, length) in l of each stretch after separation on which the hard margin falls."""
    if record.separated is None:
        return []
    # Rounding is no fall: one part in 10^12 is some thousand units in the last place.
    tolerance = 1e-12 * np.abs(record.hard[:-1])
    falling = np.diff(record.hard) < -tolerance
    falling[: record.separated] = False
    edges = np.flatnonzero(np.diff(np.concatenate(([0], falling.astype(int), [0]))))
    starts, stops = record.l[edges[::2]], record.l[edges[1::2]]
    return [(float(a), float(b - a)) for a, b in zip(starts, stops, strict=True)]


def _draw_margins(ax: Axes, record: _Record) -> None:
    role = colors()
    falls = _falls(record)
    if falls:
        ax.broken_barh(falls, (0, 1), transform=ax.get_xaxis_transform(), color=role.fill,
                       linewidth=0.8, label="hard margin falls", zorder=0.5)  # fmt: skip
    margin_curves(ax, record.l, record.hard, record.smoothed)
    if record.separated is not None:
        ax.axvline(record.l[record.separated], color=role.muted, linestyle=":", linewidth=1.6,
                   label="all points separated")  # fmt: skip
    both = np.concatenate((record.hard, record.smoothed))
    top = float(np.nanmax(both))
    if top > 0:
        # Before separation the margins can be hugely negative and would flatten all that matters.
        ax.set_ylim(max(float(np.nanmin(both)), -0.5 * top) - 0.05 * top, 1.12 * top)
    ax.set_ylabel("normalized margin")


def _draw_changes(ax: Axes, record: _Record, changes: np.ndarray) -> None:
    if not len(changes):
        return
    role = colors()
    numbered = len(changes) <= _MOST_NUMBERED
    ax.plot(record.l[changes], record.hard[changes], marker="o", linestyle="",
            markersize=8 if numbered else 4, markerfacecolor=role.background,
            markeredgecolor=role.ink, markeredgewidth=1.4 if numbered else 0.8,
            label="support vector changes", zorder=4)  # fmt: skip
    for number, step in enumerate(changes if numbered else ()):
        # Alternating sides keep the numbers of neighbouring circles apart.
        ax.annotate(str(record.support[step]), (record.l[step], record.hard[step]),
                    xytext=(0, -16 if number % 2 == 0 else 12), textcoords="offset points",
                    ha="center", va="center", size=10, color=role.ink,
                    path_effects=[withStroke(linewidth=3, foreground=role.background)],
                    zorder=5)  # fmt: skip


def _draw_indices(ax: Axes, record: _Record) -> None:
    """Which sample is the support vector, from separation on: one row for each that ever is."""
    index = record.support[record.separated :].astype(int)
    present, row = np.unique(index, return_inverse=True)
    few = len(present) <= _MOST_ROWS
    ax.step(record.l[record.separated :], row if few else index, where="post",
            color=colors().ink, linestyle="-", linewidth=1.2)  # fmt: skip
    if few:
        ax.set_yticks(range(len(present)), [str(n) for n in present])
        ax.set_ylim(-0.5, len(present) - 0.5)
    ax.set_ylabel("index")


def _check_decision(
    grid: Plane, f: Any, x: Any, y: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (len(grid.x2), len(grid.x1))
    values, points, labels = _array(f), _array(x), _array(y)
    if values.size != shape[0] * shape[1]:
        raise ValueError(f"f must have one value per point of grid {shape}, got {values.shape}.")
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"x must have shape (N, 2), got {points.shape}.")
    if labels.shape != points.shape[:1] or not np.isin(labels, (-1.0, 1.0)).all():
        raise ValueError(f"y must hold one label -1 or +1 per point of x, got {labels!r:.80}.")
    return values.reshape(shape), points, labels


def _draw_margin_lines(ax: Axes, grid: Plane, values: np.ndarray, held: np.ndarray) -> None:
    at_held = [
        np.interp(x2, grid.x2, [np.interp(x1, grid.x1, row) for row in values]) for x1, x2 in held
    ]
    reach = float(np.abs(at_held).min())
    if 0 < reach < float(np.abs(values).max()):
        ax.contour(grid.x1, grid.x2, values, levels=[-reach, reach], colors=[colors().muted],
                   linewidths=1.2, linestyles="--")  # fmt: skip
