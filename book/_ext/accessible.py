"""Small repairs of what the toolchain writes, so that screen readers get valid roles."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx


def repair_roles(
    app: Sphinx, pagename: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    # `doc-biblioentry` is deprecated, and its enclosing list allows nothing but list items.
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("html-page-context", repair_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
