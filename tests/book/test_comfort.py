"""Small comforts: previews of links, a sitemap, a 404 page, the search, paper, the keyboard.

What only a published site has is tested on a book of two pages, built here as the real one is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote_plus, urljoin, urlsplit

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from companion import widgets
from companion.widgets import Slider
from tests.book import test_site
from tests.book.test_site import ROOT, VIEWS, Visit

BASE = "https://example.org/a-fork/"
CONF = f"""
import yaml

config = yaml.safe_load(open({str(ROOT / "_config.yml")!r}, encoding="utf-8"))
globals().update(config["sphinx"]["config"])
extensions = ["myst_nb", "sphinx_book_theme", "sphinx_proof", "notfound.extension", "offline",
              "paper_numbers", "publishing", "accessible", "lazy_frames", "findable"]
myst_enable_extensions = config["parse"]["myst_enable_extensions"]
nb_execution_mode = "off"
html_theme = "sphinx_book_theme"
html_static_path = [{str(ROOT / "book/_static")!r}]
html_favicon = {str(ROOT)!r} + "/" + config["html"]["favicon"]
"""
INDEX = """# A book

It has two pages.

```{toctree}
part/page
```
"""
PAGE = """# A page

It says that the margin "grows".

```{prf:lemma} A box
:label: lemma-3

Nothing.
```

$$1 = 1$$ (eq-8)

```{raw} html
EXPLORER
```
"""
MARGIN = "book/dynamics/margin.html"

built, site, browser = test_site.built, test_site.site, test_site.browser


def draw(fig, k: int) -> None:
    ax = fig.subplots()
    ax.plot(np.arange(3), k * np.arange(3))
    ax.set(xlabel="time", ylabel="norm")


@pytest.fixture(scope="module")
def explorer() -> widgets.Explorer:
    return widgets.explore(
        draw, alt=lambda k: f"The norm grows {k} times.", size=(3, 2), k=Slider([1, 2], label="k")
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, explorer: widgets.Explorer) -> Path:
    folder = tmp_path_factory.mktemp("book")
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    (folder / "index.md").write_text(INDEX, encoding="utf-8")
    (folder / "part").mkdir()
    (folder / "part" / "page.md").write_text(PAGE.replace("EXPLORER", explorer.html), "utf-8")
    licence = folder / "book" / "_static" / "licenses" / "MathJax.txt"
    licence.parent.mkdir(parents=True)
    licence.write_text("", encoding="utf-8")
    return folder


def build(source: Path, base: str) -> Path:
    """The pages of the little book, as published at the address ``base``."""
    out = source / "_build" / (urlsplit(base).netloc or "local")
    old = out / "_static" / "frames" / "0000.js"  # as an earlier build may have left it
    old.parent.mkdir(parents=True)
    old.touch()
    path = os.pathsep.join([str(ROOT / "book" / "_ext"), str(ROOT)])
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-E", "-b", "html", str(source), str(out)],
        env={**os.environ, "BOOK_BASEURL": base, "BOOK_REPOSITORY": "", "PYTHONPATH": path},
        check=True,
    )
    return out


@pytest.fixture(scope="module")
def published(source: Path) -> Path:
    return build(source, BASE)


@pytest.fixture(scope="module")
def local(source: Path) -> Path:
    return build(source, "")


def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


# A published site


def test_previews_of_links(published: Path) -> None:
    page = parsed(published / "part" / "page.html")
    tags = {tag.get("property") or tag.get("name"): tag["content"] for tag in page("meta")[2:]}
    assert tags["og:title"] == "A page"
    assert tags["og:description"].startswith("It says that the margin “grows”.")
    assert tags["og:url"] == f"{BASE}part/page.html"
    assert tags["twitter:card"] == "summary_large_image"
    assert tags["og:image:alt"].endswith(".")
    assert tags["og:image"].startswith(BASE)
    card = published / tags["og:image"].removeprefix(BASE)
    with Image.open(card) as image:
        size = (int(tags["og:image:width"]), int(tags["og:image:height"]))
        assert image.size == size == (1200, 630)
    assert card.stat().st_size < 300_000
    (canonical,) = page.select('link[rel="canonical"]')
    assert canonical["href"] == f"{BASE}part/page.html"


def test_sitemap_lists_the_pages_that_one_reads(published: Path) -> None:
    text = (published / "sitemap.xml").read_text(encoding="utf-8")
    assert sorted(re.findall("<loc>(.*?)</loc>", text)) == [
        f"{BASE}index.html",
        f"{BASE}part/page.html",
    ]


def test_the_404_page_works_at_any_depth(published: Path) -> None:
    page = parsed(published / "404.html")
    links = [
        urlsplit(tag[attribute])
        for name, attribute in (("script", "src"), ("link", "href"), ("a", "href"), ("img", "src"))
        for tag in page.find_all(name, {attribute: True})
        if not tag[attribute].startswith("#") and tag.get("rel") != ["canonical"]
    ]
    assert any(link.path.endswith(".css") for link in links)
    assert any(link.path.endswith("index.html") for link in links)
    for link in links:
        assert not link.netloc
        assert link.path.startswith("/a-fork/"), link.path
        assert (published / link.path.removeprefix("/a-fork/")).is_file(), link.path


@pytest.mark.parametrize("name", ["index.html", "part/page.html", "404.html", "search.html"])
def test_every_page_has_the_icon(published: Path, name: str) -> None:
    (icon,) = parsed(published / name).select('link[rel="icon"]')
    path = urlsplit(urljoin(f"/a-fork/{name}", icon["href"])).path
    assert (published / path.removeprefix("/a-fork/")).is_file()


def test_a_local_site_names_no_address(local: Path) -> None:
    page = parsed(local / "part" / "page.html")
    assert page.select('link[rel="canonical"], meta[property^="og:"], meta[name^="twitter"]') == []
    assert not (local / "sitemap.xml").exists()


def test_frames_are_moved_into_a_file(local: Path, explorer: widgets.Explorer) -> None:
    (moved,) = parsed(local / "part" / "page.html").select(".explorer")
    (inline,) = BeautifulSoup(explorer.html, "html.parser").select(".explorer")
    file = (local / "part" / moved["data-frames"]).resolve()
    assert list(file.parent.iterdir()) == [file]  # and those of earlier builds are gone
    data = inline.find("script", type="application/json").string
    assert file.read_text("utf-8") == f'document.currentScript.frames="{data}";\n'
    for script in inline("script"):
        script.decompose()
    del moved["data-frames"]
    assert str(moved) == str(inline)
    scripts = [tag.get("src", "") for tag in parsed(local / "part" / "page.html")("script")]
    assert sum("_static/explorer.js" in script for script in scripts) == 1
    assert "explorer.js" not in (local / "index.html").read_text(encoding="utf-8")


# The search


@pytest.mark.parametrize(
    ("words", "page", "anchor"),
    [
        ("Lemma 3", MARGIN, "lemma-3"),
        ("theorem 4", "book/dynamics/theorem_4.html", "theorem-4"),
        ("Eq. 8", MARGIN, "equation-eq-8"),
        ("Equation 8", MARGIN, "equation-eq-8"),
        ("Fig. 2", "book/generalization/figure_2.html", "fig-2"),
        ("figure 3", MARGIN, "fig-3"),
    ],
)
def test_search_finds_what_the_paper_numbers(
    browser, site: str, words: str, page: str, anchor: str
) -> None:
    with Visit(browser, site, f"search.html?q={quote_plus(words)}", *VIEWS["desk light"]) as visit:
        first = visit.page.locator("ul.search > li").first
        found, _, place = first.locator("a").get_attribute("href").partition("#")
        assert found == page
        shown = test_site.parsed(page).find(id=place)
        assert shown["id"] == anchor or shown.find(id=anchor)
        visit.page.wait_for_selector("ul.search > li:first-child > p.context")
        assert visit.errors == []


def test_search_finds_words(browser, site: str) -> None:
    with Visit(browser, site, "search.html?q=normalized+margin", *VIEWS["desk light"]) as visit:
        visit.page.wait_for_function(
            "page => [...document.querySelectorAll('ul.search > li > a')]"
            ".some(a => a.getAttribute('href').split('#')[0] === page)",
            arg=MARGIN,
        )


# Paper

# Code and formulas that paper of this width would cut off at the side.
CUT_OFF = """() => [
  ...[...document.querySelectorAll('.bd-article pre')].filter((e) => e.scrollWidth > e.clientWidth),
  ...[...document.querySelectorAll('.bd-article mjx-container[display] mjx-math')]
    .filter((e) => e.getBoundingClientRect().right > innerWidth),
].map((e) => e.textContent.slice(0, 80))"""


def test_a_chapter_on_paper(browser, site: str) -> None:
    with Visit(browser, site, MARGIN, 680, 1000, "dark") as visit:
        page = visit.page
        image = page.locator(".explorer img").first
        page.locator(".explorer").first.scroll_into_view_if_needed()
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')) }")
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        hidden = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .copybtn"
        assert not any(e.is_visible() for e in page.locator(hidden).all())
        assert page.locator("h1:visible").count() == 1
        assert page.locator(".solution .admonition-title ~ *:visible").count() >= 5
        assert image.evaluate(test_site.SHOWN)
        assert page.locator(".explorer input:visible").count() == 0
        assert page.evaluate(CUT_OFF) == []
        page.evaluate("() => { window.dispatchEvent(new Event('afterprint')) }")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


# The keyboard

FOCUS = """() => {
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  if (e === document.body) return null;
  const shown = box.width > 1 && box.height > 1 && box.bottom > 0 && box.top < innerHeight;
  const framed = style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2;
  return [e.tagName.toLowerCase() + '.' + [...e.classList].join('.'), shown && framed,
          e.outerHTML.slice(0, 200)];
}"""


@pytest.mark.parametrize(
    ("page", "stops"),
    [("book/dynamics/theorem_4.html", 400), ("book/reference/concordance.html", 100)],
)
def test_the_keyboard_reaches_all_and_shows_where_it_is(
    browser, site: str, page: str, stops: int
) -> None:
    with Visit(browser, site, page, *VIEWS["desk light"]) as visit:
        visit.page.add_style_tag(content="* { transition: none !important; }")
        kinds, lost = set(), []
        for _ in range(stops):
            visit.page.keyboard.press("Tab")
            at = visit.page.evaluate(FOCUS)
            if at is None:
                break
            kinds.add(at[0])
            if not at[1]:
                lost.append(at[2])
        assert lost == []
        wanted = [r"button\..*theme-switch-button", r"button\..*search-button", "summary", "input"]
        if "concordance" in page:
            wanted += ["select"]
        else:
            wanted += [r"button\..*copybtn", r"button\..*toggle-button", r"a\.right-next"]
        assert [kind for kind in wanted if not any(re.match(kind, k) for k in kinds)] == []


def test_solutions_unfold_by_keyboard(browser, site: str) -> None:
    with Visit(browser, site, MARGIN, *VIEWS["desk light"]) as visit:
        button = visit.page.locator(".solution .toggle-button").first
        inside = visit.page.locator(".solution").first.locator("p").nth(1)
        assert not inside.is_visible() and button.get_attribute("aria-expanded") == "false"
        button.press("Enter")
        assert inside.is_visible() and button.get_attribute("aria-expanded") == "true"


def test_formulas_stop_the_keyboard_only_where_they_scroll(browser, site: str) -> None:
    with Visit(browser, site, MARGIN, *VIEWS["telephone dark"]) as visit:
        visit.page.wait_for_selector("mjx-container[tabindex]")
        # Not where only the hidden copy for screen readers is wider than its box.
        wide = """(e) => Math.ceil(e.querySelector('mjx-math').getBoundingClientRect().width)
          > e.clientWidth"""
        stops = visit.page.locator(".bd-article mjx-container[tabindex]").all()
        assert 0 < len(stops) < 30 and all(box.evaluate(wide) for box in stops)
        others = """(boxes) => boxes.filter((e) => e.getClientRects().length)
          .filter((e) => e.scrollWidth > e.clientWidth).length"""
        assert (
            visit.page.locator(".bd-article mjx-container:not([tabindex])").evaluate_all(others)
            == 0
        )
