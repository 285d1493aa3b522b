"""Let the search find a theorem, an equation or a figure by its number in the paper.

The search drops numbers from what a reader types, and the numbers of boxes are no text of the page.
It does look at the index, exactly as typed: so each of these is put there, with its anchor.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ANCHOR = re.compile(r"^(?:equation-)?(eq|fig|lemma|theorem|proposition)-(\d+)$")
NAMES = {
    "eq": ("Eq.", "Equation"),
    "fig": ("Fig.", "Figure"),
    "lemma": ("Lemma",),
    "theorem": ("Theorem",),
    "proposition": ("Proposition",),
}


class IndexNumbers(SphinxTransform):
    """Add an index entry, such as "Lemma 3", for each anchor of the paper in a document."""

    default_priority = 840  # when anchors are settled, and before the index collects its entries

    def apply(self, **kwargs: object) -> None:
        entries = {}
        for node in self.document.findall(nodes.Element):
            ids = node.get("ids", ())
            for found in filter(None, map(ANCHOR.match, ids)):
                for name in NAMES[found[1]]:
                    text = f"{name} {found[2]}"
                    # The first id is the element's own: only there is text for the search to show.
                    entries.setdefault(text, ("single", text, ids[0], "main", None))
        if entries:
            self.document += addnodes.index(entries=list(entries.values()))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_transform(IndexNumbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
