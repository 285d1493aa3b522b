"""Figures: two themes, alt text, axis labels, the same bytes twice, and what margin draws."""

from __future__ import annotations

import io
import itertools
import urllib.parse
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from companion import _render, _style, figures

ALT = "The margin grows in proportion to time."

# Machado, Oliveira and Fernandes (2009): what a protanope, a deuteranope, a tritanope sees.
DICHROMACY = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def draw_line(fig) -> None:
    ax = fig.subplots()
    ax.plot([0, 1, 2], [0, 1, 4], color=figures.colors().accent)
    ax.set(xlabel="time", ylabel="margin")


def draw_image(fig) -> None:
    ax = fig.subplots()
    ax.imshow(np.linspace(0, 1, 400).reshape(20, 20), cmap=figures.colors().sequential,
              interpolation="bilinear")  # fmt: skip
    ax.set(xlabel="column", ylabel="row")


class Images(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        if tag == "img":
            self.images.append(dict(attrs))


def path(**changes) -> SimpleNamespace:
    """A path with one fall of the hard margin and three changes of support vector."""
    fields = {
        "log_inverse_loss": torch.tensor([-3.0, -1.0, 0.5, 2.0, 8.0, 30.0, 100.0]),
        "hard_margin": torch.tensor([-0.4, 0.01, 0.05, 0.08, 0.07, 0.09, 0.1]),
        "smoothed_margin": torch.tensor([-2.0, -0.3, 0.02, 0.04, 0.06, 0.08, 0.09]),
        "support_vector": torch.tensor([5, 5, 7, 7, 2, 2, 5]),
        "accuracy": torch.tensor([0.7, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    }
    return SimpleNamespace(**{**fields, **changes})


def drawn_by(monkeypatch: pytest.MonkeyPatch, make) -> matplotlib.figure.Figure:
    """The light matplotlib figure behind a prebuilt one."""
    seen = []

    def keep(draw, *, alt, size):
        fig = _render.canvas(size, 100)
        with _render.drawn(fig, draw, "light"):
            seen.append(fig)

    monkeypatch.setattr(figures, "figure", keep)
    make()
    return seen[0]


# The mime bundle


def test_bundle_has_two_pictures_a_png_and_text() -> None:
    bundle = figures.figure(draw_line, alt=ALT)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    light, dark = Images(bundle["text/html"]).images
    assert light["class"].split() == ["figure-light", "dark-light"]
    assert dark["class"].split() == ["figure-dark", "dark-light"]
    assert "display:none" in dark["style"] and "display" not in light["style"]
    for image in (light, dark):
        assert image["alt"] == ALT
        assert (image["width"], image["height"]) == ("640", "400")
        assert "max-width:100%" in image["style"] and "height:auto" in image["style"]
    assert light["src"] != dark["src"]
    assert Image.open(io.BytesIO(bundle["image/png"])).size == (1280, 800)
    assert ALT in bundle["text/plain"]


def test_alt_text_is_escaped() -> None:
    text = 'The ratio is "a < b & c" everywhere.'
    html = figures.figure(draw_line, alt=text).html
    assert text not in html
    assert [image["alt"] for image in Images(html).images] == [text, text]


def test_curves_become_svg_and_images_webp() -> None:
    curve, image = (figures.figure(draw, alt=ALT) for draw in (draw_line, draw_image))
    assert curve.light.uri.startswith("data:image/svg+xml,")
    assert image.light.uri.startswith("data:image/webp;base64,")
    svg = ET.fromstring(urllib.parse.unquote(curve.light.uri.partition(",")[2]))
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert not svg.findall(".//{http://www.w3.org/2000/svg}metadata")
    assert len(curve.html) < 60_000


def test_renumbered_svg_looks_the_same() -> None:
    """Every reference inside the picture still has its target."""
    figure = figures.figure(draw_line, alt=ALT)
    text = urllib.parse.unquote(figure.light.uri.partition(",")[2])
    root = ET.fromstring(text)
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    link = "{http://www.w3.org/1999/xlink}href"
    links = {element.get(link) for element in root.iter() if element.get(link)}
    clips = {element.get("clip-path") for element in root.iter() if element.get("clip-path")}
    targets = {name[1:] for name in links} | {name[5:-1] for name in clips}
    assert targets and targets <= ids


@pytest.mark.parametrize("draw", [draw_line, draw_image])
def test_same_bytes_twice(draw) -> None:
    first, second = (figures.figure(draw, alt=ALT)._repr_mimebundle_() for _ in range(2))
    assert first == second


def test_readers_settings_do_not_matter() -> None:
    expected = figures.figure(draw_line, alt=ALT).html
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert figures.figure(draw_line, alt=ALT).html == expected
        assert matplotlib.rcParams["font.size"] == 30


# What is refused


@pytest.mark.parametrize(
    "alt",
    ["", "Short one.", "the first letter is small here.", "There is no period at the end",
     "Onewordwithoutanyspaceinit.", "image_1234567890abcdef.png"],
)  # fmt: skip
def test_alt_must_be_a_sentence(alt: str) -> None:
    with pytest.raises(ValueError, match="alt must be a sentence"):
        figures.figure(draw_line, alt=alt)


def test_alt_is_required() -> None:
    with pytest.raises(TypeError, match="alt"):
        figures.figure(draw_line)
    with pytest.raises(TypeError, match="alt must be a string"):
        figures.figure(draw_line, alt=None)


def test_draw_must_be_callable_and_draw_something() -> None:
    with pytest.raises(TypeError, match="draw must be a function"):
        figures.figure([1, 2], alt=ALT)
    with pytest.raises(ValueError, match="at least one axes"):
        figures.figure(lambda fig: None, alt=ALT)


@pytest.mark.parametrize("size", [(0, 3), (3, -1), (7, 500), (float("nan"), 3)])
def test_size_out_of_range(size) -> None:
    with pytest.raises(ValueError, match="size must lie in"):
        figures.figure(draw_line, alt=ALT, size=size)


def test_size_of_wrong_kind() -> None:
    with pytest.raises(TypeError, match="size must be"):
        figures.figure(draw_line, alt=ALT, size=7)


def test_axes_without_labels_are_named() -> None:
    def draw(fig) -> None:
        first, second = fig.subplots(1, 2)
        first.set(xlabel="a", ylabel="b")
        second.set(xlabel="a", title="Right")

    with pytest.raises(ValueError, match="axes 2 of 2, titled 'Right' has no ylabel"):
        figures.figure(draw, alt=ALT)


def test_inset_without_labels_is_refused() -> None:
    def draw(fig) -> None:
        draw_line(fig)
        fig.axes[0].inset_axes((0.5, 0.5, 0.3, 0.3)).plot([0, 1])

    with pytest.raises(ValueError, match="inset or secondary axes has no xlabel and no ylabel"):
        figures.figure(draw, alt=ALT)


def test_axes_that_need_no_labels() -> None:
    def draw(fig) -> None:
        grid = fig.subplots(2, 2, sharex=True, sharey=True)
        for ax in grid[-1]:
            ax.set_xlabel("time")
        for ax in grid[:, 0]:
            ax.set_ylabel("margin")
        twin = grid[0, 0].twinx()
        twin.set_ylabel("loss")
        shade = grid[0, 1].imshow([[0, 1]], aspect="auto")
        fig.colorbar(shade, ax=grid[:, 1], label="value")
        grid[0, 1].secondary_xaxis("top").set_xlabel("epochs")

    def off(fig) -> None:
        fig.subplots().set_axis_off()

    figures.figure(draw, alt=ALT)
    figures.figure(off, alt=ALT)


# The palette


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def linear(color: str) -> np.ndarray:
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (np.array(matrix) @ rgb) / [0.9505, 1.0, 1.089]
    f = [np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_have_aa_contrast(theme: str) -> None:
    colors = figures.palette[theme]
    for color in (colors.ink, colors.muted, colors.accent, *colors.cycle):
        assert contrast(color, colors.background) >= 4.5
    assert contrast(colors.ink, colors.fill) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("sight", DICHROMACY)
def test_lines_differ_for_every_sight(theme: str, sight: str) -> None:
    seen = [
        lab(np.clip(np.array(DICHROMACY[sight]) @ linear(color), 0, 1))
        for color in figures.palette[theme].cycle
    ]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert nearest >= 15  # in CIELAB units; about 2 is the least an eye can tell apart


def test_lines_differ_without_colour() -> None:
    assert len(set(figures.LINE_STYLES)) == len(set(figures.MARKERS)) == 6


def test_colors_follow_the_theme() -> None:
    seen = []

    def draw(fig) -> None:
        seen.append(figures.colors())
        draw_line(fig)

    figures.figure(draw, alt=ALT)
    assert seen == [figures.palette["light"], figures.palette["dark"]]
    assert figures.colors() == figures.palette["light"]


def test_theme_ends_when_draw_raises() -> None:
    def draw(fig) -> None:
        raise RuntimeError(figures.colors().background)

    with pytest.raises(RuntimeError), _style.theme("dark"):
        figures.figure(draw, alt=ALT)
    assert figures.colors() == figures.palette["light"]


# lines


def test_lines_are_named_at_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(1, 10, 20)
    fig = drawn_by(monkeypatch, lambda: figures.lines(
        x, {"first": x, "second": torch.as_tensor(x + 0.01), "gap": np.where(x < 5, x, np.nan)},
        xlabel="t", ylabel="f", levels={"limit": 7.0}, alt=ALT,
    ))  # fmt: skip
    ax = fig.axes[0]
    names = {text.get_text(): text.xy[1] for text in ax.texts}
    assert set(names) == {"first", "second", "gap", "limit"}
    heights = sorted(names.values())
    assert min(np.diff(heights)) > 0.07  # no two names on one another
    assert max(heights) <= 1.0
    colors = {text.get_text(): text.get_color() for text in ax.texts}
    assert colors["first"] == ax.lines[0].get_color() != ax.lines[1].get_color()


def test_lines_refuses_what_does_not_fit() -> None:
    labels = {"xlabel": "t", "ylabel": "f", "alt": ALT}
    with pytest.raises(ValueError, match=r"curves\['a'\] must have as many values as x \(3\)"):
        figures.lines([1, 2, 3], {"a": [1, 2]}, **labels)
    with pytest.raises(ValueError, match="1 to 6 curves, got 7"):
        figures.lines([1, 2], {str(i): [1, 2] for i in range(7)}, **labels)
    with pytest.raises(ValueError, match="x must have shape"):
        figures.lines(np.ones((2, 2)), {"a": [1, 2]}, **labels)


# margin


def test_margin_marks_changes_of_support_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    fig = drawn_by(monkeypatch, lambda: figures.margin(path(), alt=ALT))
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.texts] == ["7", "2", "5"]
    lines = {line.get_label(): line for line in ax.lines}
    marks = lines["support vector changes"]
    assert marks.get_xdata().tolist() == [0.5, 8.0, 100.0]
    assert marks.get_ydata() == pytest.approx([0.05, 0.07, 0.1])
    assert lines["all points separated"].get_xdata()[0] == -1.0
    assert lines["hard margin"].get_linestyle() != lines["smoothed margin"].get_linestyle()


def test_margin_counts_as_separated_from_the_last_error_on(monkeypatch: pytest.MonkeyPatch) -> None:
    back = path(accuracy=torch.tensor([0.5, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0]))
    fig = drawn_by(monkeypatch, lambda: figures.margin(back, alt=ALT))
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    assert lines["all points separated"].get_xdata()[0] == back.log_inverse_loss[4]
    monkeypatch.undo()
    lost = path(accuracy=torch.tensor([0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.9]))
    fig = drawn_by(monkeypatch, lambda: figures.margin(lost, alt=ALT))
    assert [line.get_label() for line in fig.axes[0].lines] == ["hard margin", "smoothed margin"]


def test_margin_starts_from_zero_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    start = path()
    for name in ("hard_margin", "smoothed_margin"):
        values = torch.as_tensor(getattr(start, name)).clone()
        values[0] = torch.nan
        setattr(start, name, values)
    fig = drawn_by(monkeypatch, lambda: figures.margin(start, alt=ALT))
    assert np.isfinite(fig.axes[0].get_ylim()).all()


def test_margin_shades_falls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fig = drawn_by(monkeypatch, lambda: figures.margin(path(), alt=ALT))
    (spans,) = fig.axes[0].collections
    (box,) = spans.get_paths()
    assert sorted(set(box.vertices[:, 0])) == [2.0, 8.0]
    rising = path(hard_margin=torch.linspace(-1, 1, 7))
    monkeypatch.undo()
    fig = drawn_by(monkeypatch, lambda: figures.margin(rising, alt=ALT))
    assert not fig.axes[0].collections


@pytest.mark.parametrize("few", [True, False])
def test_margin_shows_the_index_over_many_changes(
    monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    steps = 40
    index = torch.tensor([7, 3, 90])[torch.arange(steps) % 3] if few else torch.arange(steps)
    many = SimpleNamespace(
        log_inverse_loss=torch.logspace(0, 2, steps),
        hard_margin=torch.linspace(0.1, 0.2, steps),
        smoothed_margin=torch.linspace(0.05, 0.2, steps),
        support_vector=index,
        accuracy=torch.ones(steps),
    )
    fig = drawn_by(monkeypatch, lambda: figures.margin(many, alt=ALT, xscale="log"))
    above, below = fig.axes
    assert not above.texts
    drawn = below.lines[0].get_ydata()
    if few:  # one named row for each sample that is ever the support vector
        assert [label.get_text() for label in below.get_yticklabels()] == ["3", "7", "90"]
        drawn = np.array([3, 7, 90])[drawn.astype(int)]
    assert drawn.tolist() == index.tolist()


def test_margin_without_separation(monkeypatch: pytest.MonkeyPatch) -> None:
    never = path(accuracy=torch.full((7,), 0.9), hard_margin=torch.linspace(-2, -1, 7))
    fig = drawn_by(monkeypatch, lambda: figures.margin(never, alt=ALT, xscale="linear"))
    assert [line.get_label() for line in fig.axes[0].lines] == ["hard margin", "smoothed margin"]


def test_margin_refuses_what_does_not_fit() -> None:
    incomplete = path()
    del incomplete.accuracy
    with pytest.raises(TypeError, match="path must have a field accuracy"):
        figures.margin(incomplete, alt=ALT)
    with pytest.raises(ValueError, match="path.hard_margin must have as many values"):
        figures.margin(path(hard_margin=torch.ones(3)), alt=ALT)
    with pytest.raises(ValueError, match="xscale must be 'symlog', 'log' or 'linear'"):
        figures.margin(path(), alt=ALT, xscale="cubic")


# decision


POINTS = torch.tensor([[1.0, 1.0], [1.0, -2.0], [-1.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([1.0, 1.0, -1.0])


def test_plane_follows_the_points() -> None:
    grid = figures.plane(POINTS.float(), resolution=7)
    assert grid.points.shape == (49, 2) and grid.points.dtype == torch.float32
    x1, x2 = grid.points[8].tolist()
    assert (x1, x2) == pytest.approx((grid.x1[1], grid.x2[1]))
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\)"):
        figures.plane(np.ones((3, 4)))


def test_decision_draws_the_levels_of_the_support_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = figures.plane(POINTS)
    levels = []

    def draw(fig) -> None:
        ax = fig.subplots()
        contour = ax.contour
        monkeypatch.setattr(ax, "contour", lambda *a, **k: levels.append(k["levels"]) or
                            contour(*a, **k))  # fmt: skip
        figures.decision(ax, grid, 2 * grid.points[:, 0], POINTS, LABELS, support=[0, 2])

    figures.figure(draw, alt=ALT)
    assert levels[0] == [0.0]
    assert levels[1] == pytest.approx([-2.0, 2.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"f": np.zeros(5)}, "f must have one value per point"),
     ({"x": np.zeros(3)}, r"x must have shape \(N, 2\)"),
     ({"y": np.array([0, 1, 1])}, "y must hold one label -1 or"),
     ({"y": np.array([1, 1])}, "y must hold one label -1 or")],
)  # fmt: skip
def test_decision_refuses_what_does_not_fit(change: dict, message: str) -> None:
    grid = figures.plane(POINTS)
    arguments = {"f": grid.points[:, 0], "x": POINTS, "y": LABELS, **change}
    with pytest.raises(ValueError, match=message):
        figures.decision(_render.canvas((4, 3), 100).subplots(), grid, *arguments.values())


# --- curves and pulls, for use inside draw -------------------------------------------------------


def test_margin_curves_are_named_and_told_apart_without_colour() -> None:
    def draw(fig):
        ax = fig.subplots()
        figures.margin_curves(ax, [0, 1, 2], [0.1, 0.2, 0.3], [0.0, 0.1, 0.2])
        assert [line.get_label() for line in ax.lines] == ["hard margin", "smoothed margin"]
        assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
        ax.set(xlabel="l", ylabel="margin")

    assert figures.figure(draw, alt=ALT).alt == ALT
    with pytest.raises(ValueError, match="smoothed must have as many values as x"):
        figures.figure(
            lambda fig: figures.margin_curves(fig.subplots(), [0, 1], [0, 1], [0]), alt=ALT
        )


def test_pulls_draws_each_weighted_pull_and_their_sum() -> None:
    x, v = np.array([[1.0, 1.0], [1.0, -2.0], [3.0, 0.0]]), np.array([1.0, 0.0])
    terms = x - np.outer(x @ v, v)
    weights = np.array([2.0, 1.0, 0.0])  # in balance: 2/3 (0, 1) + 1/3 (0, -2) = 0
    seen = []

    def draw(fig):
        ax = fig.subplots()
        figures.pulls(ax, x, v, terms, weights)
        seen.append([(float(q.U[0]), float(q.V[0])) for q in ax.collections if hasattr(q, "U")])

    figures.figure(draw, alt=ALT)
    arrows = np.array(seen[0])  # v, the sum, then one per point
    np.testing.assert_allclose(arrows[0], v)
    np.testing.assert_allclose(arrows[1], 0.0, atol=1e-15)
    np.testing.assert_allclose(arrows[2:], terms * (weights / 3)[:, None], atol=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0, -1.0, 0.5]}, "weights must be at least 0 with a positive sum"),
        ({"weights": [0.0, 0.0, 0.0]}, "weights must be at least 0 with a positive sum"),
        ({"weights": [1.0]}, "weights must have as many values as x"),
        ({"terms": [[1.0, 0.0]]}, r"x and terms must both have shape \(N, 2\)"),
        ({"direction": [1.0, 0.0, 0.0]}, "direction must have as many values"),
    ],
)
def test_pulls_refuses_what_does_not_fit(change: dict, message: str) -> None:
    given = {"x": np.ones((3, 2)), "direction": [1.0, 0.0], "terms": np.ones((3, 2)),
             "weights": [1.0, 1.0, 1.0], **change}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        figures.figure(lambda fig: figures.pulls(fig.subplots(), **given), alt=ALT)
