"""What only a published site needs: canonical links, link previews and a sitemap.

The address comes from the environment (`BOOK_BASEURL`), so that a fork publishes without an edit
and a local build refers to no address at all.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config


def base_url() -> str:
    url = os.environ.get("BOOK_BASEURL", "").strip()
    return url.rstrip("/") + "/" if url else ""


def set_base_url(app: Sphinx, config: Config) -> None:
    url = base_url()
    config.notfound_urls_prefix = urlsplit(url).path if url else "/"
    if url:
        config.html_baseurl = url
        config.ogp_site_url = url
        config.ogp_social_cards = {"enable": False}
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["404.html", "search.html", "genindex.html", "prf-prf.html"]


def setup(app: Sphinx) -> dict[str, object]:
    if base_url():
        app.setup_extension("sphinxext.opengraph")
        app.setup_extension("sphinx_sitemap")
    app.connect("config-inited", set_base_url, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
