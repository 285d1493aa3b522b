"""Numbers and anchors of the paper.

A label that ends in the paper's own number (`eq-8`, `lemma-3`, `theorem-4`, `fig-3`) is shown
with that number, whatever stands before it on the page, and is an anchor of that very name
(`margin.html#eq-8`). Equations of our own (any other `eq-` label) are numbered per page, after
the page's initial: (M.1), (M.2). Theorems, definitions and figures of our own do the same.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PAPER_LABEL = re.compile(r"^(?:equation-)?(?:eq|lemma|theorem|proposition|fig)-(\d+)$")


def number_as_the_paper(app: Sphinx, env: BuildEnvironment) -> list[str]:
    for docname, by_kind in env.toc_fignumbers.items():
        initial = PurePosixPath(docname).name[0].upper()
        for kind, numbers in by_kind.items():
            if kind == "exercise":  # counted within the chapter, as for its checker
                numbers.update({anchor: (place,) for place, anchor in enumerate(numbers, start=1)})
                continue
            own: Counter[str] = Counter()
            for anchor in numbers:
                names = getattr(env, "paper_anchors", {}).get((docname, anchor), [anchor])
                paper = next(filter(None, map(PAPER_LABEL.match, names)), None)
                if paper:
                    numbers[anchor] = (paper[1],)
                else:
                    own[kind] += 1
                    numbers[anchor] = (initial, own[kind])
    return []


def note_anchors(app: Sphinx, document: nodes.document) -> None:
    """Give each equation its own name as an anchor; remember all names of each figure."""
    env = app.env
    if not hasattr(env, "paper_anchors"):
        env.paper_anchors = {}
    for figure in document.findall(nodes.figure):
        if figure["ids"]:
            env.paper_anchors[env.docname, figure["ids"][0]] = list(figure["ids"])
    for block in document.findall(nodes.math_block):
        label = block.get("label")
        if label and label not in document.ids:
            block["ids"].append(label)
            document.ids[label] = block


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("doctree-read", note_anchors)
    # After Sphinx's own collectors, which assign consecutive numbers in the same event.
    app.connect("env-get-updated", number_as_the_paper, priority=900)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
