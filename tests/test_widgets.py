"""Explorers: one bundle for a page and for a kernel, limits, and the script in a browser."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import IPython
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from companion import _render, figures, widgets
from companion._frames import Bitmaps, Drawings, joint_palette
from companion.widgets import Slider

VIEW = "application/vnd.jupyter.widget-view+json"
VOID = {"img", "input", "br", "meta", "link"}
SMALL = (3.0, 2.0)


def draw(fig, k: float, a: float = 1.0) -> None:
    ax = fig.subplots()
    x = np.linspace(0, 1, 20)
    ax.plot(x, a * x**k, color=figures.colors().accent)
    ax.set(xlabel="time", ylabel="norm", ylim=(0, 4))


def draw_shade(fig, k: int) -> None:
    ax = fig.subplots()
    ax.imshow(np.outer(np.arange(30), np.arange(30) + k), cmap=figures.colors().diverging,
              interpolation="bilinear")  # fmt: skip
    ax.set(xlabel="column", ylabel="row")


def describe(k: float, a: float = 1.0) -> str:
    return f"The norm grows like the power {k:g}, times {a:g}."


def sliders() -> dict[str, Slider]:
    return {
        "k": Slider([1, 2, 3], label="Power k", start=1),
        "a": Slider([1.0, 3.5], label="Factor < a", format="{:.1f}"),
    }


@pytest.fixture(scope="module", autouse=True)
def final() -> Iterator[None]:
    """All frames, which notebooks under test go without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BOOK_DRAFT", raising=False)
        yield


@pytest.fixture(scope="module")
def explorer() -> widgets.Explorer:
    return widgets.explore(draw, alt=describe, size=SMALL, **sliders())


@pytest.fixture(scope="module")
def shaded() -> widgets.Explorer:
    return widgets.explore(
        draw_shade, alt=describe, size=SMALL, k=Slider(range(3), label="Shift k")
    )


class Page(HTMLParser):
    """Elements with their attributes, the text inside each, and tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[int, str] = {}
        self.open: list[str] = []
        self.unmatched: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.unmatched.append(f"{tag} repeats an attribute")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if not self.open or self.open.pop() != tag:
            self.unmatched.append(tag)

    def handle_data(self, data) -> None:
        at = len(self.elements) - 1
        self.texts[at] = self.texts.get(at, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [self.texts.get(i, "") for i, (name, _) in enumerate(self.elements) if name == tag]


def payload(explorer: widgets.Explorer) -> dict:
    (packed, _) = Page(explorer.html).text_of("script")
    return json.loads(gzip.decompress(base64.b64decode(packed)))


# The page


def test_html_is_well_formed_and_makes_no_request(explorer: widgets.Explorer) -> None:
    page = Page(explorer.html)
    assert not page.open and not page.unmatched
    assert Counter(tag for tag, _ in page.elements)["input"] == 2
    assert not any("id" in attrs for _, attrs in page.elements)  # nothing to clash with
    addresses = [a[key] for _, a in page.elements for key in ("src", "href") if key in a]
    assert all(address.startswith("data:") for address in addresses)


def test_inputs_are_native_named_and_keep_their_keys(explorer: widgets.Explorer) -> None:
    page = Page(explorer.html)
    first, second = page.all("input")
    assert first["type"] == "range"
    assert (first["min"], first["max"], first["step"], first["value"]) == ("0", "2", "1", "1")
    assert (second["max"], second["value"], second["aria-valuetext"]) == ("1", "0", "1.0")
    assert all(i["data-lm-suppress-shortcuts"] == "true" for i in (first, second))
    assert len(page.all("label")) == len(page.all("output")) == 2
    assert page.text_of("output") == ["2", "1.0"]
    assert "Factor < a" in page.text_of("span")


def test_first_frame_is_there_without_javascript(explorer: widgets.Explorer) -> None:
    page = Page(explorer.html)
    (image,) = page.all("img")
    assert image["alt"] == explorer.alt == "The norm grows like the power 2, times 1."
    assert (image["width"], image["height"]) == ("300", "200")
    assert "hidden" in dict(page.elements[[t for t, _ in page.elements].index("img") + 1][1])
    assert "Power k = 2" in "".join(page.text_of("p"))


def test_every_frame_travels_with_its_alt_text(explorer: widgets.Explorer) -> None:
    data = payload(explorer)
    assert explorer.num_frames == len(data["order"]) == len(data["alts"]) == 6
    assert data["texts"] == [["1", "2", "3"], ["1.0", "3.5"]]
    assert data["alts"][3] == "The norm grows like the power 2, times 3.5."
    assert data["kind"] == "svg" and len(data["items"]) == 6


def test_equal_frames_are_stored_once() -> None:
    twice = widgets.explore(
        lambda fig, k: draw(fig, k=k % 2), alt=describe, size=SMALL,
        k=Slider(range(6), label="Power k"),
    )  # fmt: skip
    data = payload(twice)
    assert data["order"] == [0, 1, 0, 1, 0, 1] and len(data["items"]) == 2


def test_light_and_dark_frames_differ(explorer: widgets.Explorer, shaded: widgets.Explorer) -> None:
    for each in (explorer, shaded):
        assert each._frames.uri(0, 0) != each._frames.uri(0, 1)
    colors = payload(explorer)["colors"]
    assert [figures.palette["light"].background, figures.palette["dark"].background] in colors


def test_images_travel_as_png_with_two_palettes(shaded: widgets.Explorer) -> None:
    data = payload(shaded)
    assert data["kind"] == "png"
    for frame in range(3):
        for theme, name in enumerate(("light", "dark")):
            picture = Image.open(
                io.BytesIO(base64.b64decode(shaded._frames.uri(frame, theme).partition(",")[2]))
            )
            assert picture.size == (450, 300) and picture.mode == "P"
            corner = "#{:02x}{:02x}{:02x}".format(*picture.convert("RGB").getpixel((0, 0)))
            assert corner == figures.palette[name].background


def test_same_bytes_twice(explorer: widgets.Explorer, shaded: widgets.Explorer) -> None:
    again = widgets.explore(draw, alt=describe, size=SMALL, **sliders())
    assert again._repr_mimebundle_() == explorer._repr_mimebundle_()
    again = widgets.explore(
        draw_shade, alt=describe, size=SMALL, k=Slider(range(3), label="Shift k")
    )
    assert again.html == shaded.html


def test_twenty_frames_of_curves_weigh_little() -> None:
    steps = Slider(np.linspace(0.5, 3, 20), label="Power k", format="{:.2f}")
    many = widgets.explore(draw, alt=describe, k=steps)
    assert many.num_frames == 20
    assert many.num_bytes == len(many.html.encode()) < 100_000


# The bundle


def test_a_draft_draws_the_first_and_the_last_frame_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOK_DRAFT", "1")
    drawn = []

    def count(fig, k: int) -> None:
        drawn.append(k)
        draw(fig, k)

    power = Slider([1, 2, 3, 4], label="Power k")
    draft = widgets.explore(count, alt=lambda k: f"The norm grows like power {k}.", k=power)
    assert set(drawn) == {1, 4} and draft.num_frames == 4
    assert draft._frames.order == [0, 0, 0, 1]


def test_bundle_on_a_page(explorer: widgets.Explorer) -> None:
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert Image.open(io.BytesIO(bundle["image/png"])).size == (450, 300)
    assert explorer.alt in bundle["text/plain"] and "Power k = 2" in bundle["text/plain"]


def test_bundle_in_a_kernel_and_in_the_books_build(
    explorer: widgets.Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.delenv("BOOK_BUILD", raising=False)
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain", VIEW}
    assert bundle[VIEW]["model_id"] == explorer.widget.model_id
    # The state of a widget would drag its scripts, from another host, into the page.
    monkeypatch.setenv("BOOK_BUILD", "1")
    assert VIEW not in explorer._repr_mimebundle_()


def test_live_sliders_draw_anew(explorer: widgets.Explorer) -> None:
    view, power, factor = explorer.widget.children
    assert (power.description, power.label, factor.label) == ("Power k", "2", "1.0")
    before = Page(view.value).all("img")[0]
    power.index = 2
    after = Page(view.value).all("img")[0]
    assert after["src"] != before["src"]
    assert after["alt"] == "The norm grows like the power 3, times 1."
    factor.index = 1
    assert Page(view.value).all("img")[0]["alt"] == "The norm grows like the power 3, times 3.5."
    assert explorer.widget is explorer.widget


# Limits and refusals


def test_too_many_bytes_name_the_measured_size() -> None:
    with pytest.raises(ValueError, match=r"frames need 0\.\d\d MB.*limit = 0\.02 MB.*num_colors"):
        widgets.explore(draw_shade, alt=describe, limit=20_000, k=Slider(range(4), label="Shift"))


def test_too_many_frames_name_the_sliders() -> None:
    drawn = []
    with pytest.raises(ValueError, match="sliders must have at most 200 combinations.*got 210"):
        widgets.explore(lambda fig, k, a: drawn.append(k), alt=describe,
                        k=Slider(range(15), label="k"), a=Slider(range(14), label="a"))  # fmt: skip
    assert not drawn


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"draw": 3}, TypeError, r"draw must be a function of the sliders' values \(k\)"),
        ({"alt": "A text that stays."}, TypeError, "alt must be a function of the sliders'"),
        ({"alt": lambda: "A sentence with no values."}, TypeError, r"alt must accept \(k\)"),
        ({"alt": lambda k: "nothing"}, ValueError, r"alt\(k=1\) must be a sentence"),
        ({"alt": lambda k: None}, TypeError, r"alt\(k=1\) must be a string"),
        ({"draw": lambda fig: None}, TypeError, r"draw must accept \(fig, k\)"),
        ({"draw": lambda k: None}, TypeError, r"draw must accept \(fig, k\)"),
        ({"draw": lambda fig, k: None}, ValueError, "at least one axes"),
        ({"draw": lambda fig, k: fig.subplots()}, ValueError, "no xlabel and no ylabel"),
        ({"k": [1, 2]}, TypeError, r"k must be a Slider\(values, label"),
        ({"size": Slider([1, 2], label="s")}, ValueError, "a slider cannot be called 'size'"),
        ({"limit": 0.5}, TypeError, "limit must be an integer"),
        ({"num_colors": 1}, ValueError, "num_colors must lie in 2 .. 256"),
        ({"a": Slider([1, 2], label="Power k")}, ValueError, "'k' and 'a' have the same label"),
        ({"size": (0, 1)}, ValueError, "size must lie in"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"draw": draw, "alt": describe, "k": Slider([1, 2], label="Power k"), **change}
    with pytest.raises(error, match=message):
        widgets.explore(arguments.pop("draw"), **arguments)


def test_no_slider() -> None:
    with pytest.raises(ValueError, match="sliders must hold at least one"):
        widgets.explore(draw, alt=describe)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ([], {}, ValueError, "values must hold two values or more"),
        ([1], {}, ValueError, "values must hold two values or more"),
        (3, {}, TypeError, "values must be a sequence"),
        ("ab", {}, TypeError, "values must be a sequence"),
        ([1, 2], {"label": " "}, ValueError, "label must be a text"),
        ([1, 2], {"start": 2}, ValueError, r"start must be an index in 0 \.\. 1, got 2"),
        ([1, 2], {"start": -1}, ValueError, "start must be an index"),
        (["relu", "linear"], {}, ValueError, "format '{:g}' does not suit the values"),
    ],
)
def test_bad_sliders(values, options, error, message) -> None:
    with pytest.raises(error, match=message):
        Slider(values, **{"label": "Power k", **options})


def test_slider_formats() -> None:
    assert Slider(["relu", "linear"], label="Activation", format="{}").texts == ("relu", "linear")
    assert Slider([1, 10], label="x", format=lambda v: f"10^{np.log10(v):.0f}").texts[1] == "10^1"


# The frames


def test_joint_palette_is_exact_when_colours_suffice() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 256, (16, 6), dtype=np.uint8)
    picked = rng.integers(0, 16, (20, 30))
    light, dark = pairs[picked][..., :3], pairs[picked][..., 3:]
    indices, palette = joint_palette(light, dark, 16)
    assert np.array_equal(palette[indices][..., :3], light)
    assert np.array_equal(palette[indices][..., 3:], dark)


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_joint_palette_keeps_its_size_and_the_background(num_colors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    light, dark = rng.integers(0, 256, (2, 12, 9, 3), dtype=np.uint8)
    indices, palette = joint_palette(light, dark, num_colors)
    assert len(palette) <= num_colors and indices.max() < len(palette)
    assert palette[indices[0, 0]].tolist() == [*light[0, 0], *dark[0, 0]]


def test_more_colours_come_closer() -> None:
    ramp = np.linspace(0, 255, 6000).reshape(60, 100, 1).repeat(3, axis=2).astype(np.uint8)
    errors = []
    for num_colors in (8, 32, 128):
        indices, palette = joint_palette(ramp, 255 - ramp, num_colors)
        errors.append(np.abs(palette[indices][..., :3].astype(int) - ramp).max())
    assert errors[0] > errors[1] > errors[2] and errors[2] <= 2


def test_parts_join_into_what_was_drawn() -> None:
    fig = _render.canvas(SMALL, 100)
    drawings, bitmaps = Drawings(), Bitmaps(256)
    kept = {}
    for name in ("light", "dark"):
        with _render.drawn(fig, lambda fig: draw(fig, k=2), name):
            kept[name] = _render.svg(fig), _render.rgb(fig)
    drawings.append(kept["light"][0], kept["dark"][0])
    bitmaps.append(kept["light"][1], kept["dark"][1])
    for theme, name in enumerate(("light", "dark")):
        assert drawings.uri(0, theme) == _render.svg_uri(kept[name][0])
        png = base64.b64decode(bitmaps.uri(0, theme).partition(",")[2])
        seen = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        assert np.abs(seen - kept[name][1]).mean() < 1.0


# The script


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = filter(None, [os.environ.get("CHROMIUM"), *map(shutil.which, names)])
    chromium = next(found, None)
    if chromium is None:
        pytest.skip("no Chromium on this machine: the script of explorers was not run")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_script_in_a_browser(browser, explorer: widgets.Explorer, shaded: widgets.Explorer) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 700})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.set_content(
        '<!doctype html><html lang="en" data-theme="light"><body>'
        f'{explorer.html}<div style="height:3000px"></div>{shaded.html}{explorer.html}'
    )
    first, second, third = page.locator(".explorer").all()
    image, power = first.locator("img"), first.locator("input").first
    power.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.images[0].alt.includes('power 3')")
    light = image.get_attribute("src")
    assert unquote(light) == unquote(explorer._frames.uri(4))
    assert power.get_attribute("aria-valuetext") == "3"
    assert first.locator("output").first.inner_text() == "3"
    assert third.locator("img").get_attribute("alt") == explorer.alt  # each minds its own
    # Out of view nothing is unpacked, not even for the other theme.
    waiting = second.locator("img").get_attribute("src")
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark' }")
    page.wait_for_function("src => document.images[0].src !== src", arg=light)
    assert unquote(image.get_attribute("src")) == unquote(explorer._frames.uri(4, 1))
    assert second.locator("img").get_attribute("src") == waiting
    second.scroll_into_view_if_needed()
    page.wait_for_function("src => document.images[1].src !== src", arg=waiting)
    assert second.locator("img").get_attribute("src") == shaded._frames.uri(0, 1)
    second.locator("input").focus()
    page.keyboard.press("End")
    page.wait_for_function("() => document.images[1].alt.includes('power 2')")
    assert page.evaluate("document.images[1].decode().then(() => document.images[1].naturalWidth)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert faults == []


def test_script_where_nothing_can_be_unpacked(browser, explorer: widgets.Explorer) -> None:
    page = browser.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.set_content(
        '<!doctype html><html lang="en"><body><script>delete window.DecompressionStream</script>'
        f"{explorer.html}"
    )
    assert page.evaluate("typeof DecompressionStream") == "undefined"
    page.wait_for_timeout(200)
    assert page.locator(".explorer-controls").is_hidden()
    assert page.locator("img").get_attribute("alt") == explorer.alt
    assert faults == []
