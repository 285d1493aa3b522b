"""The book's one look: colours of the light and the dark theme, and matplotlib settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import matplotlib
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap

LINE_STYLES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (1.5, 1.5, 6, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Colors:
    """Named colours of one theme; every role but ``grid`` and ``fill`` is readable as text.

    ``ink`` (text, axes), ``muted`` (secondary text and lines), ``accent`` (the thing to look at),
    ``grid`` and ``fill`` (behind the data), ``background``, and the cycle ``c0`` .. ``c5``,
    which descends from Okabe and Ito's: hues kept, lightness moved until each reaches a contrast
    of 4.5 : 1 on its background and no two coincide for the three kinds of dichromats.
    """

    background: str
    ink: str
    muted: str
    grid: str
    fill: str
    c0: str
    c1: str
    c2: str
    c3: str
    c4: str
    c5: str

    @property
    def accent(self) -> str:
        return self.c1

    @property
    def cycle(self) -> tuple[str, ...]:
        """The six line colours, in order."""
        return (self.c0, self.c1, self.c2, self.c3, self.c4, self.c5)

    @property
    def positive(self) -> str:
        """Label +1, and positive values."""
        return self.c0

    @property
    def negative(self) -> str:
        """Label -1, and negative values."""
        return self.c1

    @property
    def diverging(self) -> LinearSegmentedColormap:
        """From ``negative`` through the background to ``positive``."""
        return LinearSegmentedColormap.from_list(
            "companion-diverging", [self.negative, self.background, self.positive]
        )

    @property
    def sequential(self) -> LinearSegmentedColormap:
        """From the background to ``c0``."""
        return LinearSegmentedColormap.from_list(
            "companion-sequential", [self.background, self.c0]
        )


palette: dict[str, Colors] = {
    "light": Colors(
        background="#ffffff", ink="#1f2328", muted="#5b636d", grid="#e3e6ea", fill="#f6e3d3",
        c0="#0069d0", c1="#c84a00", c2="#007048", c3="#a0307a", c4="#473f00", c5="#272b2d",
    ),
    # The background is sphinx-book-theme's in dark mode, so that a figure has no visible edge.
    "dark": Colors(
        background="#121212", ink="#e6e9ec", muted="#a3abb5", grid="#2d333b", fill="#4a3021",
        c0="#4d94d8", c1="#e2670f", c2="#4ae8a0", c3="#cc6c96", c4="#f4c430", c5="#e3e4e4",
    ),
}
THEMES = tuple(palette)

_theme: ContextVar[str] = ContextVar("companion_theme", default="light")


def colors() -> Colors:
    """The colours of the theme being drawn; those of the light theme outside ``figure``."""
    return palette[_theme.get()]


def _settings(theme: Colors) -> dict[str, object]:
    return {
        "font.family": "DejaVu Sans", "font.size": 12, "mathtext.fontset": "dejavusans",
        "axes.titlesize": 13, "axes.labelsize": 12, "legend.fontsize": 11,
        "xtick.labelsize": 11, "ytick.labelsize": 11,
        "figure.facecolor": theme.background, "savefig.facecolor": theme.background,
        "axes.facecolor": theme.background, "figure.edgecolor": theme.background,
        "savefig.edgecolor": theme.background,
        "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.titlecolor": theme.ink,
        "axes.edgecolor": theme.muted, "xtick.color": theme.muted, "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink, "ytick.labelcolor": theme.ink,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": theme.grid,
        "grid.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=theme.cycle) + cycler(linestyle=LINE_STYLES),
        "lines.linewidth": 2.0, "lines.markersize": 6, "lines.color": theme.c0,
        "patch.edgecolor": theme.ink, "hatch.color": theme.muted,
        "legend.facecolor": theme.background, "legend.edgecolor": "none",
        "legend.framealpha": 0.85, "boxplot.flierprops.color": theme.ink,
        "figure.dpi": 100, "figure.constrained_layout.use": True,
        # A fixed salt and paths for glyphs: the same bytes each time, on any reader's machine.
        "svg.hashsalt": "companion", "svg.fonttype": "path", "path.simplify_threshold": 0.2,
    }  # fmt: skip


@contextmanager
def theme(name: str) -> Iterator[Colors]:
    """Draw in the theme ``name``, whatever the reader's own matplotlib settings are."""
    token = _theme.set(name)
    defaults = {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if key not in ("backend", "backend_fallback", "interactive")
    }
    try:
        with matplotlib.rc_context({**defaults, **_settings(palette[name])}):
            yield palette[name]
    finally:
        _theme.reset(token)
