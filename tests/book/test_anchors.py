"""Anchors that others may link to: once published, they stay.

`anchors.txt` lists those of equations, theorems, figures, exercises and claims, and those that a
page names by itself. When a chapter gains one, add it to the list:

    python tests/book/test_anchors.py

This only ever adds lines. An anchor that is gone has to come back, if need be as a second name:
`(old-name)=` on a line before the heading or the figure.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
LIST = Path(__file__).with_name("anchors.txt")
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
CONCORDANCE = "book/reference/concordance.html"

# Where the page or the toolchain sets an anchor on purpose; all others come from headings, or from
# the wording of a check.
STABLE = re.compile(
    r'<span id="(?!id\d)([^"/]+)"></span>'  # named by the page: (name)=
    r'|<div class="(?:proof|exercise) (?:\w+ )?admonition" id="((?!proof")[^"/]+)"'
    r'|\sid="(eq-[^"/]+|(?:fig|lemma|theorem)-\d+|cite-this-chapter)"'
    r'|<section class="claim" id="([^"]+)"'
)
PAPER = [
    *(f"eq-{number}" for number in range(1, 16)),
    *(f"lemma-{number}" for number in range(1, 6)),
    *(f"theorem-{number}" for number in range(1, 5)),
    *(f"fig-{number}" for number in range(1, 4)),
]


def anchors(html: Path) -> list[str]:
    """All stable anchors of a built site, as often as they are set."""
    found = []
    for page in sorted((html / "book").rglob("*.html")):
        article = page.read_text("utf-8").partition("<article")[2]
        name = page.relative_to(html).as_posix()
        found += [f"{name}#{next(filter(None, each))}" for each in STABLE.findall(article)]
    return found


def listed() -> set[str]:
    return set(LIST.read_text("utf-8").split()) if LIST.exists() else set()


@pytest.fixture(scope="module")
def present() -> Counter[str]:
    found = Counter(anchors(HTML))
    if not found:
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    return found


def test_no_anchor_is_gone(present: Counter[str]) -> None:
    assert sorted(listed() - present.keys()) == [], "gone, but others may link to them"


def test_every_anchor_is_listed(present: Counter[str]) -> None:
    new = sorted(present.keys() - listed())
    assert new == [], "new: add them to the list by `python tests/book/test_anchors.py`"


def test_every_anchor_is_set_once(present: Counter[str]) -> None:
    for anchor in present:
        page, _, name = anchor.partition("#")
        text = (HTML / page).read_text("utf-8")
        assert text.count(f' id="{name}"') == 1, f"{anchor} is set twice"


@pytest.mark.parametrize("name", PAPER)
def test_numbers_of_the_paper_are_anchors_of_one_chapter(name: str, present: Counter[str]) -> None:
    pages = [each.partition("#")[0] for each in present if each.endswith(f"#{name}")]
    assert len([page for page in pages if page != CONCORDANCE]) == 1


def test_exercises_have_names_of_their_own() -> None:
    """Without one the toolchain names an exercise after its place in the chapter."""
    notebooks = [p for p in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    for path in notebooks:
        cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]
        text = "\n".join(cells)
        exercises = re.findall(r"^`{3,}\{exercise-start\}.*\n:label: (\S+)", text, re.MULTILINE)
        assert len(exercises) == text.count("{exercise-start}") > 0, path.name
        assert len(set(exercises)) == len(exercises), path.name


def test_what_is_an_anchor(tmp_path: Path) -> None:
    page = tmp_path / "book" / "a.html"
    page.parent.mkdir()
    page.write_text(
        '<span id="outside"></span><article><span id="verdicts"></span><section id="heading">'
        '<span id="id3"></span><div class="math" id="equation-eq-7"><span id="eq-7"></span></div>'
        '<div class="proof theorem admonition" id="theorem-margin"></div>'
        '<div class="proof admonition" id="proof"></div>'
        '<div class="exercise admonition" id="margin-exercise-1"></div>'
        '<div class="solution dropdown admonition" id="book/a-solution-4"></div>'
        '<div class="cell" id="fig-3"></div><section id="fig-3-on-images"></section>'
        '<section class="claim" id="theorem-4.1"></section><p id="check-lemma-3-fall"></p>'
    )
    names = [each.partition("#")[2] for each in anchors(tmp_path)]
    assert names == [
        "verdicts", "eq-7", "theorem-margin", "margin-exercise-1", "fig-3", "theorem-4.1"
    ]  # fmt: skip


def add(html: Path = HTML) -> None:
    """Write the anchors of a built site into the list, beside those that are there."""
    old = listed()
    LIST.write_text("\n".join(sorted(old | set(anchors(html)))) + "\n", "utf-8")
    print(f"{len(listed() - old)} anchors added to {LIST.name}, {len(listed())} in all")


if __name__ == "__main__":
    add(*map(Path, sys.argv[1:]))
