"""The chapters as they were executed, from the cache that their pages are built from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_cache import get_cache
from nbformat import NO_CONVERT, NotebookNode, read
from sphinx.application import Sphinx


class Chapter(NamedTuple):
    """A chapter, with outputs if it was executed.

    Args:
        page: Its name in the table of contents, such as ``book/dynamics/margin``.
        notebook: The notebook; without outputs if it failed.
        facts: What was recorded when it was executed; empty if it failed.
    """

    page: str
    notebook: NotebookNode
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """The stable id of the chapter, such as ``dynamics/margin``."""
        return self.page.removeprefix("book/")

    @property
    def title(self) -> str:
        return self.notebook.cells[0].source.partition("\n")[0].removeprefix("#").strip()


def chapters(app: Sphinx) -> Iterator[Chapter]:
    """All chapters, in the order of the table of contents."""
    cache = get_cache(app.env.mystnb_config.execution_cache_path)
    for page in app.config.external_site_map:
        path = Path(app.env.doc2path(page))
        if path.suffix != ".ipynb":
            continue
        notebook = read(path, NO_CONVERT)
        try:
            key, executed = cache.merge_match_into_notebook(notebook)
        except KeyError:  # it failed: the build says so where it reads the page
            yield Chapter(page, notebook, {})
        else:
            yield Chapter(page, executed, dict(cache.get_cache_record(key).data or {}))
