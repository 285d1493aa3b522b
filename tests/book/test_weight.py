"""What a browser has to load for a page before its pictures, and for an explorer that it shows.

Bytes are counted as a server may send them: compressed by gzip, but for fonts and pictures, which
are compressed as they are. Pictures do not count, neither in files nor inside a page.
"""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.book import test_site
from tests.book.test_site import CHAPTERS, HTML, ROOT

MOST_OF_A_PAGE = 1_000_000
MOST_OF_FRAMES = 700_000
PICTURE = re.compile(rb"data:image/[^\"']*")
FRAMES = sorted((HTML / "_static" / "frames").glob("*.js"))

built, site, browser = test_site.built, test_site.site, test_site.browser


@functools.cache
def sent(name: str) -> int:
    data = PICTURE.sub(b"", (HTML / name).read_bytes())
    return len(data) if Path(name).suffix in (".woff", ".woff2") else len(gzip.compress(data))


NOTEBOOKS = [page for page in CHAPTERS if (ROOT / page).with_suffix(".ipynb").exists()]
LONGEST = max(NOTEBOOKS, key=sent, default="")
VISITED = (LONGEST, "book/intro.html", "book/reference/concordance.html")


@pytest.fixture(scope="module")
def loaded(browser, site: str) -> Callable[[str], set[str]]:
    """The files that a page loads before the reader does anything."""

    @functools.cache
    def files(page: str) -> set[str]:
        names: set[str] = set()

        def note(request) -> None:
            name = request.url.partition("?")[0].removeprefix(site)
            if request.url.startswith(site) and request.resource_type != "image":
                names.add(name)

        window = browser.new_page(viewport={"width": 1280, "height": 900})
        window.on("request", note)
        window.goto(site + page, wait_until="load")
        window.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
        window.evaluate("() => document.fonts.ready.then(() => true)")
        window.close()
        return names

    return files


@pytest.mark.parametrize("page", VISITED)
def test_a_page_is_light(loaded: Callable[[str], set[str]], page: str) -> None:
    names = loaded(page)
    assert page in names and "_static/styles/pydata-sphinx-theme.css" in names
    assert sum(map(sent, names)) <= MOST_OF_A_PAGE, sorted((sent(name), name) for name in names)
    assert not any(name.startswith("_static/frames/") for name in names)


def test_every_other_page_is_light(loaded: Callable[[str], set[str]]) -> None:
    """Each with all that any of the visited pages shares, fonts and MathJax included."""
    shared = set.union(*map(loaded, VISITED)) - set(VISITED)
    assert {"_static/mathjax/tex-chtml.js", "_static/explorer.js"} <= shared
    assert any(name.endswith(".woff") for name in shared)
    total = sum(map(sent, shared))
    heavy = {page: total + sent(page) for page in CHAPTERS if total + sent(page) > MOST_OF_A_PAGE}
    assert heavy == {}


@pytest.mark.parametrize("file", FRAMES, ids=lambda file: file.stem)
def test_frames_are_light(file: Path) -> None:
    """Even uncompressed, where a server does not compress."""
    assert file.stat().st_size <= MOST_OF_FRAMES


def test_frames_lie_in_files_that_pages_name() -> None:
    named = []
    for page in CHAPTERS:
        text = (HTML / page).read_text(encoding="utf-8")
        names = re.findall(r'<div class="explorer" data-frames="[./]+/_static/frames/(.+?)">', text)
        assert len(names) == text.count('<div class="explorer"'), page
        assert '<script type="application/json">' not in text, page
        named += names
    assert named and set(named) == {file.name for file in FRAMES}


@pytest.mark.parametrize("served", [True, False], ids=["served", "opened as a file"])
def test_frames_come_when_the_explorer_comes_into_view(browser, site: str, served: bool) -> None:
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("request", lambda r: asked.append(r.url) if "/_static/frames/" in r.url else None)
    page.goto((site if served else f"{HTML.as_uri()}/") + LONGEST, wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
    assert asked == []
    explorer = page.locator(".explorer").first
    image, before = explorer.locator("img"), explorer.locator("img").get_attribute("alt")
    explorer.scroll_into_view_if_needed()
    slider = explorer.locator("input").first
    slider.press("ArrowLeft" if slider.evaluate("e => e.value === e.max") else "ArrowRight")
    page.wait_for_function("([e, alt]) => e.alt !== alt", arg=[image.element_handle(), before])
    assert [Path(url).name for url in asked] == [Path(explorer.get_attribute("data-frames")).name]
    page.close()


def test_the_first_frame_stays_where_the_frames_are_missing(browser, site: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.route("**/_static/frames/*", lambda route: route.abort())
    page.goto(site + LONGEST, wait_until="load")
    explorer = page.locator(".explorer").first
    image = explorer.locator("img")
    before = image.get_attribute("src"), image.get_attribute("alt")
    with page.expect_event("requestfailed"):
        explorer.scroll_into_view_if_needed()
    explorer.locator("input").first.press("ArrowRight")
    page.wait_for_timeout(200)
    assert (image.get_attribute("src"), image.get_attribute("alt")) == before
    assert image.evaluate("e => e.naturalWidth > 0")
    page.unroute("**/_static/frames/*")
    explorer.locator("input").first.press("ArrowLeft")
    explorer.locator("input").first.press("ArrowRight")
    page.wait_for_function("([e, alt]) => e.alt !== alt", arg=[image.element_handle(), before[1]])
    assert faults == []
    page.close()
