"""The instructor's page: what each chapter teaches, needs, takes and asks.

The directive ``{course}`` writes one entry per chapter from `book/reference/chapters.yml`, with the
running time that this build measured and the titles of the exercises as they stand in the chapter.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import executed
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

SOURCE = "book/reference/chapters.yml"
_EXERCISE = re.compile(r"^`{3,}\{exercise-start\}[ ]*(.*)$", re.MULTILINE)


def load(root: Path) -> dict[str, dict[str, Any]]:
    """Read `chapters.yml`.

    Raises:
        ExtensionError: if an entry lacks a field, or needs what is no chapter.
    """
    entries = yaml.safe_load((root / SOURCE).read_text(encoding="utf-8"))
    for name, entry in entries.items():
        if set(entry) != {"goals", "needs", "homework"}:
            raise ExtensionError(f"{SOURCE}: {name} must have goals, needs and homework")
        for needed in entry["needs"]:
            if needed not in entries:
                raise ExtensionError(f"{SOURCE}: {name} needs {needed!r}, which is no chapter")
    return entries


def exercises(chapter: executed.Chapter) -> list[str]:
    """The titles of its exercises, in order."""
    cells = (cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")
    return _EXERCISE.findall("\n".join(cells))


def chapters(app: Sphinx) -> list[tuple[executed.Chapter, dict[str, Any]]]:
    """The chapters in the order of the book, each with its entry.

    Raises:
        ExtensionError: if a chapter has no entry, an entry no chapter, or an exercise for
            homework is not there.
    """
    entries = load(Path(app.srcdir))
    listed = list(executed.chapters(app))
    if odd := entries.keys() ^ {chapter.name for chapter in listed}:
        raise ExtensionError(f"{SOURCE} and the table of contents differ in {sorted(odd)}")
    for chapter in listed:
        if max(entries[chapter.name]["homework"]) > len(exercises(chapter)):
            raise ExtensionError(f"{SOURCE}: {chapter.name} has fewer exercises")
    return [(chapter, entries[chapter.name]) for chapter in listed]


class Course(SphinxDirective):
    """All chapters; see the module."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # it is made of the other pages
        listed = chapters(self.env.app)
        titles = {chapter.name: chapter.title for chapter, _ in listed}
        text = "\n\n".join(self.entry(chapter, entry, titles) for chapter, entry in listed)
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    def entry(
        self, chapter: executed.Chapter, entry: dict[str, Any], titles: dict[str, str]
    ) -> str:
        """One chapter in Markdown."""
        goals = "\n".join(f"  - {goal}" for goal in entry["goals"])
        needs = ", ".join(self.link(name, titles[name]) for name in entry["needs"]) or "no other"
        titles_of = exercises(chapter)
        homework = "; ".join(f"{n}, {titles_of[n - 1]}" for n in entry["homework"])
        seconds = chapter.facts.get("execution_seconds")
        ran = "an unknown time" if seconds is None else f"{seconds:.0f} s"
        return (
            f"### {self.link(chapter.name, chapter.title)}\n\n"
            f"- Afterwards the student can:\n{goals}\n"
            f"- Chapters before it: {needs}.\n"
            f"- Homework: {homework}.\n"
            f"- Ran for {ran} in [this build](build.md).\n"
        )

    def link(self, name: str, title: str) -> str:
        here = posixpath.dirname(self.env.docname)
        return f"[{title}]({posixpath.relpath(f'book/{name}.ipynb', here)})"


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("course", Course)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
