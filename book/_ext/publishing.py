"""What only a published site needs: canonical links, link previews, a sitemap, launch buttons.

The addresses come from the environment, so that a fork publishes without an edit and a local build
refers to no address at all: `BOOK_BASEURL` is where the site will be, `BOOK_REPOSITORY` what one
would give to `git clone`. The buttons open the copies that `make notebooks` writes, from the branch
`notebooks` of that repository; without a repository there are no buttons.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any
from urllib.parse import quote, urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

# One picture for all pages; the preview of a link shows the title of its own page beside it.
CARD_ALT = "Theoretical Issues in Deep Networks: an executable edition."
CARD_TAGS = [
    '<meta property="og:image:width" content="1200" />',
    '<meta property="og:image:height" content="630" />',
    '<meta name="twitter:card" content="summary_large_image" />',
]


def base_url() -> str:
    url = os.environ.get("BOOK_BASEURL", "").strip()
    return url.rstrip("/") + "/" if url else ""


def set_base_url(app: Sphinx, config: Config) -> None:
    url = base_url()
    config.notfound_urls_prefix = urlsplit(url).path if url else "/"
    if url:
        config.html_baseurl = url
        config.ogp_site_url = url
        config.ogp_image = f"{url}_static/card.png"
        config.ogp_image_alt = CARD_ALT
        config.ogp_custom_meta_tags = CARD_TAGS
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["404.html", "search.html", "genindex.html", "prf-prf.html"]


def plain_math(tex: str) -> str:
    """A short formula as text for link previews: Greek letters, names of functions, no commands."""

    def command(match: re.Match[str]) -> str:
        name = match[1].removeprefix("var")
        greek = f"GREEK {'CAPITAL' if name[:1].isupper() else 'SMALL'} LETTER {name.upper()}"
        try:
            return unicodedata.lookup(greek)
        except KeyError:
            return {"lVert": "‖", "rVert": "‖", "tilde": "", "le": "≤", "ge": "≥"}.get(name, name)

    words = re.sub(r"\\([A-Za-z]+)\s*", lambda match: f"{command(match)} ", tex)
    return " ".join(re.sub(r"\\.|[{}]", "", words).split())


def preview_formulas_as_text(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Before the description is taken from the page, which is written already."""
    for formula in doctree.findall(nodes.math) if doctree is not None else ():
        formula.children = [nodes.Text(plain_math(formula.astext()))]


def repository() -> str:
    return os.environ.get("BOOK_REPOSITORY", "").strip().rstrip("/").removesuffix(".git")


def launch_links(repository: str, page: str) -> dict[str, str]:
    """Where the copy of a chapter runs, by the name of the service."""
    address = urlsplit(repository)
    path = f"{page}.ipynb"
    links = {}
    if address.netloc == "github.com":
        place = f"github{address.path}/blob/notebooks/{path}"
        links["Colab"] = f"https://colab.research.google.com/{place}"
        source = f"gh{address.path}"
    else:
        source = f"git/{quote(repository, safe='')}"
    binder = f"https://mybinder.org/v2/{source}/notebooks"
    links["Binder"] = f"{binder}?urlpath={quote(f'lab/tree/{path}', safe='')}"
    return links


def add_launch_buttons(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    if not context.get("page_source_suffix") == ".ipynb":
        return
    icons = {"Colab": "_static/images/logo_colab.png", "Binder": "_static/images/logo_binder.svg"}
    buttons = [
        {"type": "link", "text": name, "tooltip": f"Run on {name}", "icon": icons[name], "url": url}
        for name, url in launch_links(repository(), pagename).items()
    ]
    copy = context["pathto"](f"notebooks/{pagename}.ipynb", 1)
    buttons.append(
        {"type": "link", "text": "Notebook", "tooltip": "Download", "icon": "fas fa-download",
         "url": copy}
    )  # fmt: skip
    group = {"type": "group", "tooltip": "Run this chapter", "icon": "fas fa-rocket",
             "buttons": buttons, "label": "launch-buttons"}  # fmt: skip
    context["header_buttons"].append(group)


def setup(app: Sphinx) -> dict[str, object]:
    if base_url():
        app.setup_extension("sphinxext.opengraph")
        app.setup_extension("sphinx_sitemap")
        app.connect("html-page-context", preview_formulas_as_text, priority=400)
    if repository():
        # After the theme, which begins the list of buttons in the same event.
        app.connect("html-page-context", add_launch_buttons, priority=600)
    app.connect("config-inited", set_base_url, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
