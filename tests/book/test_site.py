"""The built pages: in a browser that reaches nothing but the site, and as files.

`make test` builds the book first. Without a Chromium the browser tests are skipped, unless
`BROWSER_REQUIRED` or `CI` is set.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
PAGES = sorted(
    page.relative_to(HTML).as_posix()
    for page in HTML.rglob("*.html")
    if "_static" not in page.relative_to(HTML).parts
)
CHAPTERS = [page for page in PAGES if page.startswith("book/")]
# index.html only sends the reader on to the introduction.
VISITED = [page for page in PAGES if page != "index.html"]
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
# A page is loaded as the first of these and then turned into the second.
VIEWS = {"telephone dark": (390, 844, "dark"), "desk light": (1280, 900, "light")}
NO_BROWSER = "no Chromium found: name one in the environment variable CHROMIUM, or install one"

# Marks up every element that is wider than the window and not inside a box that scrolls.
TOO_WIDE = """() => {
  const boxes = ['auto', 'scroll', 'hidden'];
  const scrolls = (e) => e && e !== document.body &&
    (boxes.includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  return document.scrollingElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll('body *')]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e))
      .map((e) => e.outerHTML.slice(0, 120)).slice(0, 5).concat(['(page wider than window)']);
}"""
UNRENDERED = r"""() => {
  const wrong = [];
  for (const e of document.querySelectorAll('.math'))
    if (!e.querySelector('mjx-container')) wrong.push('not typeset: ' + e.textContent.slice(0, 80));
  for (const e of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
    wrong.push('error: ' + (e.getAttribute('data-mjx-error') || e.textContent));
  const walker = document.createTreeWalker(
    document.querySelector('main') || document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (/\\[(\[]|\$\$|\$[^$]*[\\_^{][^$]*\$|\{(eq|cite|prf:ref|numref|ref)\}/.test(text.data) &&
        !text.parentElement.closest('pre, code, script, style'))
      wrong.push('raw: ' + text.data.trim().slice(0, 80));
  }
  return wrong;
}"""
# Takes away what costs axe most of its time and is the same everywhere: the drawn glyphs of the
# formulas, which are hidden from it (their boxes and their MathML stay), and all but three of each
# kind of coloured token in the code.
LIGHTEN = """() => {
  const formulas = [...document.querySelectorAll('mjx-math[aria-hidden=true]')];
  const boxes = formulas.map((e) => e.getBoundingClientRect());
  formulas.forEach((e, i) => {
    e.replaceChildren();
    const { width, height } = boxes[i];
    e.style.cssText += `display: inline-block; width: ${width}px; height: ${height}px`;
  });
  const seen = new Map();
  for (const e of document.querySelectorAll('.highlight span')) {
    const around = ['.cell_input, .cell_output', '.admonition', '.highlight'];
    const boxes = around.map((box) => e.closest(box)?.className);
    const kind = [...boxes, e.closest('.highlight').parentElement.className, e.className].join();
    seen.set(kind, (seen.get(kind) || 0) + 1);
    if (seen.get(kind) > 3) e.replaceWith(...e.childNodes);
  }
}"""
# A test may have left the page in a theme of the reader's choice, and the switch with its tip.
AS_THE_SYSTEM_HAS_IT = """() => {
  localStorage.setItem('mode', 'auto');
  document.documentElement.dataset.mode = 'auto';
  document.activeElement.blur();
}"""
CALM = """(scheme) => document.documentElement.dataset.theme === scheme &&
  !document.querySelector('.tooltip') &&
  document.getAnimations().every((animation) => animation.playState === 'finished')"""


def source(page: str) -> str:
    return (HTML / page).read_text(encoding="utf-8")


SHOWN = "(e) => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; }"


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if not CHAPTERS:
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        candidates = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
        candidates.append(playwright.chromium.executable_path)
        path = next((p for p in candidates if p and Path(p).exists()), None)
        if path is None:
            pytest.fail(NO_BROWSER) if REQUIRED else pytest.skip(NO_BROWSER)
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """One page in one window, with everything that went wrong on the way."""

    def __init__(
        self,
        browser,
        site: str,
        page: str,
        width: int,
        height: int,
        scheme: str,
        javascript: bool = True,
    ) -> None:
        self.scheme = scheme
        self.external: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=javascript,
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.route("**/*", functools.partial(self._route, site))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("response", self._answered)
        self.page.goto(site + page, wait_until="load")
        if javascript:
            self.page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
            self.page.evaluate("() => document.fonts.ready.then(() => true)")

    def turn(self, width: int, height: int, scheme: str) -> None:
        """Show the page in a window of another size and colour, in the theme of the system."""
        self.scheme = scheme
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.mouse.move(0, 0)
        self.page.evaluate(AS_THE_SYSTEM_HAS_IT)
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function(CALM, arg=scheme)

    def _route(self, site: str, route) -> None:
        url = route.request.url
        if url.startswith((site, "data:", "blob:")):
            route.continue_()
        else:
            self.external.append(url)
            route.abort()

    def _answered(self, response) -> None:
        if response.status >= 400:
            self.errors.append(f"{response.status} {response.url}")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *exception: object) -> None:
        self.context.close()


class Window:
    """Shows one page at a time, and loads it once for all views of it."""

    def __init__(self, browser, site: str) -> None:
        self.browser, self.site = browser, site
        self.name, self.visit = "", None

    def show(self, name: str, view: str) -> Visit:
        if name != self.name:
            self.close()
            self.visit = Visit(self.browser, self.site, name, *VIEWS[view])
            self.name = name
        self.visit.turn(*VIEWS[view])
        return self.visit

    def close(self) -> None:
        if self.visit is not None:
            self.visit.context.close()
        self.name, self.visit = "", None


@pytest.fixture(scope="module")
def window(browser, site: str) -> Iterator[Window]:
    window = Window(browser, site)
    yield window
    window.close()


@pytest.fixture(scope="module", params=[f"{page}, {view}" for page in VISITED for view in VIEWS])
def visit(request: pytest.FixtureRequest, window: Window) -> Visit:
    return window.show(*request.param.split(", "))


def test_page_is_whole_without_any_other_host(visit: Visit) -> None:
    assert visit.page.evaluate("document.documentElement.dataset.theme") == visit.scheme
    assert visit.page.evaluate(TOO_WIDE) == []
    assert visit.page.evaluate(UNRENDERED) == []
    assert visit.external == []
    assert visit.errors == []


def violations(page) -> list[tuple[str, str]]:
    """The rules of axe-core that the page violates, each with the first element that does."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.evaluate(LIGHTEN)
    # Without preloading, which asks the site for style sheets in wrong places, and without the
    # details of what passed, which take as long as the check.
    options = {"preload": False, "resultTypes": ["violations"]}
    found = axe.run(page, options=options).response["violations"]
    return [(violation["id"], violation["nodes"][0]["html"][:200]) for violation in found]


def test_page_is_accessible(visit: Visit) -> None:
    assert violations(visit.page) == []


def test_a_page_that_is_not_accessible_is_noticed(browser, site: str) -> None:
    with Visit(browser, site, CHAPTERS[0], *VIEWS["desk light"]) as visit:
        visit.page.evaluate("""() => {
          document.querySelectorAll('main p')[2].style.color = '#bbb';
          const tokens = document.querySelectorAll('.cell_input .highlight .n');
          tokens[0].style.color = '#ddd';
          document.querySelector('main img').removeAttribute('alt');
        }""")
        found = {rule: html for rule, html in violations(visit.page)}
        assert set(found) == {"color-contrast", "image-alt"}


def visible_picture(explorer) -> tuple[str, str]:
    shown = [img for img in explorer.locator("img").all() if img.evaluate(SHOWN)]
    assert len(shown) == 1, f"{len(shown)} pictures of one explorer are visible at once"
    return shown[0].get_attribute("src") or "", shown[0].get_attribute("alt") or ""


def test_sliders_change_their_picture_by_keyboard(visit: Visit) -> None:
    for explorer in visit.page.locator(".explorer").all():
        explorer.scroll_into_view_if_needed()
        sliders = explorer.locator("input[type=range]").all()
        assert sliders, "an explorer without a slider"
        for slider in sliders:
            assert slider.evaluate("e => e.labels.length || e.ariaLabel"), "no label"
            before = visible_picture(explorer)
            at_end = slider.evaluate("e => Number(e.value) >= Number(e.max)")
            slider.focus()
            visit.page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
            for _ in range(50):
                after = visible_picture(explorer)
                if after[0] != before[0] and after[1] != before[1]:
                    break
                visit.page.wait_for_timeout(40)
            assert after[0] != before[0], "the picture stays"
            assert after[1] != before[1], "the picture changes and its alt text does not"
    assert visit.external == []
    assert visit.errors == []


def test_theme_switch_changes_the_figures(visit: Visit) -> None:
    """The last of the tests of a visit, because it leaves the page in the other theme."""
    figures = {name: visit.page.locator(f"img.figure-{name}") for name in ("light", "dark")}
    other = {"light": "dark", "dark": "light"}[visit.scheme]

    def shown(images) -> set[bool]:
        outside = [i for i in images.all() if not i.evaluate("e => !!e.closest('.explorer')")]
        return {image.evaluate(SHOWN) for image in outside}

    assert shown(figures[visit.scheme]) <= {True} and shown(figures[other]) <= {False}
    for _ in range(3):  # the button goes round: light, dark, as the system has it
        if visit.page.evaluate("document.documentElement.dataset.theme") == other:
            break
        visit.page.locator(".theme-switch-button:visible").first.click()
    assert visit.page.evaluate("document.documentElement.dataset.theme") == other
    assert shown(figures[visit.scheme]) <= {False} and shown(figures[other]) <= {True}
    for explorer in visit.page.locator(".explorer").all():
        visible_picture(explorer)


@pytest.mark.parametrize("page", [p for p in CHAPTERS if 'class="explorer"' in source(p)])
def test_first_frame_is_there_without_javascript(browser, site: str, page: str) -> None:
    with Visit(browser, site, page, 1280, 900, "light", javascript=False) as visit:
        figures = visit.page.locator(".explorer").all()
        assert figures
        for figure in figures:
            src, alt = visible_picture(figure)
            assert src and alt


@functools.cache
def parsed(page: str) -> BeautifulSoup:
    return BeautifulSoup(source(page), "html.parser")


@functools.cache
def anchors(page: str) -> frozenset[str]:
    return frozenset(tag["id"] for tag in parsed(page).find_all(id=True))


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_picture_has_a_sentence(page: str) -> None:
    for image in parsed(page).find_all("img"):
        alt = (image.get("alt") or "").strip()
        assert re.fullmatch(r"[A-Z\d].*\s.*\s.*[.?!]", alt, re.DOTALL), f"alt text {alt!r}"


@pytest.mark.parametrize("page", PAGES)
def test_files_name_no_other_host_to_load_from(page: str) -> None:
    loads = [
        tag.get(attribute, "")
        for name, attribute in (
            ("script", "src"),
            ("img", "src"),
            ("iframe", "src"),
            ("source", "src"),
            ("link", "href"),
        )
        for tag in parsed(page).find_all(name)
        if tag.get("rel") != ["canonical"]
    ]
    assert [url for url in loads if urlsplit(url).netloc] == []
    assert not re.search(r"widget-state\+json|require\.min\.js", str(parsed(page)))


@pytest.mark.parametrize("page", CHAPTERS)
def test_links_within_the_site_lead_somewhere(page: str) -> None:
    for link in parsed(page).find_all("a", href=True):
        target, anchor = urldefrag(urljoin(page, link["href"]))
        if urlsplit(target).scheme or link["href"] == "#":
            continue
        assert (HTML / unquote(target)).is_file(), link["href"]
        if anchor and target.endswith(".html"):
            assert unquote(anchor) in anchors(target), link["href"]


@pytest.mark.parametrize("page", CHAPTERS)
def test_equations_of_the_paper_have_their_own_anchor_and_number(page: str) -> None:
    for equation in parsed(page).select('[id^="equation-eq-"]'):
        name = equation["id"].removeprefix("equation-")
        assert name in anchors(page), f"no anchor #{name}"
        number = re.fullmatch(r"eq-(\d+)", name)
        block = equation if equation.name == "div" else equation.find_next("div", class_="math")
        if number:
            assert block.select_one(".eqno").get_text().startswith(f"({number[1]})")
