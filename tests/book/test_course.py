"""The instructor's page: the chapters' dependencies, the syllabi and the homework."""

from __future__ import annotations

import os
import posixpath
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import course  # noqa: E402
import executed  # noqa: E402

PAGE = ROOT / "_build" / "html" / "book" / "reference" / "instructors.html"
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
TEXT = (ROOT / "book" / "reference" / "instructors.md").read_text("utf-8")


def contents() -> list[str]:
    """The chapters in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [f.removeprefix("book/") for f in files if (ROOT / f"{f}.ipynb").exists()]


def chapter(name: str) -> executed.Chapter:
    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", 4)
    return executed.Chapter(f"book/{name}", notebook, {})


def test_every_chapter_has_its_entry_in_the_order_of_the_book() -> None:
    assert list(course.load(ROOT)) == contents()


def test_needs_lead_to_no_circle() -> None:
    needs = {name: entry["needs"] for name, entry in course.load(ROOT).items()}
    settled: list[str] = []
    while rest := [name for name in needs if name not in settled]:
        ready = [name for name in rest if set(needs[name]) <= set(settled)]
        assert ready, f"each of these needs another of them: {rest}"
        settled += ready


@pytest.mark.parametrize("name", contents())
def test_needs_name_the_chapters_that_the_chapter_itself_asks_for(name: str) -> None:
    """The line "You need" links to chapters; those that it links to are needed."""
    text = "\n".join(c.source for c in chapter(name).notebook.cells if c.cell_type == "markdown")
    line = re.search(r"\*\*You need\*\*(.*?)\*\*", text, re.DOTALL)
    assert line, "no line on what the reader needs"
    links = re.findall(r"\]\(([\w./]+)\.ipynb[^)]*\)", line[1])
    asked = {posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) for link in links}
    entries = course.load(ROOT)
    assert asked <= reachable(name, {each: entries[each]["needs"] for each in entries})


def reachable(name: str, needs: dict[str, list[str]]) -> set[str]:
    return set(needs[name]).union(*(reachable(each, needs) for each in needs[name]))


@pytest.mark.parametrize("name", contents())
def test_homework_is_there(name: str) -> None:
    homework = course.load(ROOT)[name]["homework"]
    titles = course.exercises(chapter(name))
    assert len(titles) >= 5 and all(titles)
    assert len(set(homework)) == len(homework) >= 3
    assert all(1 <= number <= len(titles) for number in homework)


def sessions(heading: str) -> list[list[str]]:
    """The cells of a syllabus."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def linked(cell: str) -> list[str]:
    return re.findall(r"\]\(\.\./([\w/]+)\.ipynb\)", cell)


@pytest.mark.parametrize(("heading", "number"), [("Six sessions", 6), ("Twelve sessions", 12)])
def test_syllabus_keeps_the_order_and_gives_homework_of_its_chapters(
    heading: str, number: int
) -> None:
    rows = sessions(heading)
    assert len(rows) == number
    entries, seen = course.load(ROOT), []
    for _, cell, homework in rows:
        here = linked(cell)
        assert here and not set(here) & set(seen)
        seen += here
        names = {name.partition("/")[2]: name for name in here}
        given = re.findall(r"`(\w+)\.(\d+)`", homework)
        assert given, homework
        for short, exercise in given:
            assert int(exercise) in entries[names[short]]["homework"], f"{short}.{exercise}"
    for position, name in enumerate(seen):
        assert set(entries[name]["needs"]) & set(seen[position + 1 :]) == set(), name


def test_twelve_sessions_cover_the_book() -> None:
    assert {name for row in sessions("Twelve sessions") for name in linked(row[1])} == set(
        contents()
    )


def test_six_sessions_take_from_every_part() -> None:
    parts = {name.partition("/")[0] for row in sessions("Six sessions") for name in linked(row[1])}
    assert parts == {"approximation", "dynamics", "landscape", "generalization"}


def write(folder: Path, text: str) -> None:
    (folder / course.SOURCE).parent.mkdir(parents=True)
    (folder / course.SOURCE).write_text(text)


def test_an_entry_that_is_not_whole_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/b: {goals: [g], needs: []}")
    with pytest.raises(ExtensionError, match="a/b must have goals, needs and homework"):
        course.load(tmp_path)


def test_a_chapter_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/b: {goals: [g], needs: [a/c], homework: [1]}")
    with pytest.raises(ExtensionError, match="a/b needs 'a/c', which is no chapter"):
        course.load(tmp_path)


def test_entries_and_chapters_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/b: {goals: [g], needs: [], homework: [2]}")
    source = "# B\n\n````{exercise-start} By hand\n:label: b-exercise-1\n````"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)])
    listed = [executed.Chapter("book/a/b", notebook, {})]
    monkeypatch.setattr(executed, "chapters", lambda app: listed)
    app = SimpleNamespace(srcdir=tmp_path)
    with pytest.raises(ExtensionError, match="a/b has fewer exercises"):
        course.chapters(app)
    listed.append(executed.Chapter("book/a/c", notebook, {}))
    with pytest.raises(ExtensionError, match=r"differ in \['a/c'\]"):
        course.chapters(app)


# --- the book ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> BeautifulSoup:
    if not PAGE.exists():
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    return BeautifulSoup(PAGE.read_text("utf-8"), "html.parser")


def test_page_says_of_each_chapter_what_it_takes(page: BeautifulSoup) -> None:
    entries = [section for section in page.find_all("section") if section.h3 and not section.h2]
    assert len(entries) == len(contents())
    for name, entry in zip(contents(), entries, strict=True):
        assert entry.h3.a["href"] == f"../{name}.html"
        text = entry.get_text()
        assert re.search(r"Ran for \d+ s in this build", text), name
        for number in course.load(ROOT)[name]["homework"]:
            assert re.search(rf"\b{number}, \S", text)


@pytest.mark.parametrize("name", contents())
def test_exercises_bear_the_number_of_their_check(name: str) -> None:
    file = ROOT / "_build" / "html" / "book" / f"{name}.html"
    if not file.exists():
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    html = BeautifulSoup(file.read_text("utf-8"), "html.parser")
    boxes = html.select("div.exercise.admonition")
    for place, box in enumerate(boxes, start=1):
        assert box.select_one(".caption-number").get_text().strip() == f"Exercise {place}"
        code = "".join(c.get_text() for c in box.find_all_next("div", class_="cell_input"))
        check = re.search(r'exercises\.check\(\s*"([^"]+)"', code)
        assert check and check[1] == f"{name.partition('/')[2]}.{place}"
