"""The exercises as the chapters print them: numbered, solved, and right in the built book.

A solution on a page is checked when the book is built, but a check that says "not yet" only shows
a line. Here the executed pages are read, from the cache of the last build. Without one these tests
are skipped, unless `BROWSER_REQUIRED` or `CI` is set.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache

from companion import exercises

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "_build" / ".jupyter_cache"
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
CHECK = re.compile(r'exercises\.check\(\s*"([\w.]+)"')


def page(chapter: str) -> Path:
    (path,) = (ROOT / "book").rglob(f"{chapter}.ipynb")
    return path


def ids(chapter: str) -> list[str]:
    graders = importlib.import_module(f"companion.exercises.{chapter}").GRADERS
    return [f"{chapter}.{number}" for number in graders]


def printed(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The text of each exercise by its label, in the order of the page."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    blocks = re.findall(
        r"\{exercise-start\}[^\n]*\n:label: (\S+)\n(.*?)\{exercise-end\}", text, re.DOTALL
    )
    return dict(blocks)


def solutions(notebook: nbformat.NotebookNode) -> dict[str, list[nbformat.NotebookNode]]:
    """The code cells of each solution by the label of its exercise, in the order of the page."""
    found: dict[str, list[nbformat.NotebookNode]] = {}
    label = None
    for cell in notebook.cells:
        if cell.cell_type == "code" and label:
            found[label].append(cell)
        for start, end in re.findall(r"\{solution-start\} (\S+)|\{solution-(end)\}", cell.source):
            label = None if end else start
            if label:
                found[label] = []
    return found


def checked(source: str) -> list[str]:
    """The ids with which code calls ``exercises.check``."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    checks = [call for call in calls if ast.unparse(call.func) == "exercises.check"]
    return [ast.literal_eval(call.args[0]) for call in checks]


def test_every_chapter_with_exercises_has_graders_and_the_other_way_round() -> None:
    pages = [
        path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    ]
    with_exercises = {path.stem for path in pages if printed(nbformat.read(path, as_version=4))}
    assert with_exercises == set(exercises.CHAPTERS)


@pytest.mark.parametrize("chapter", exercises.CHAPTERS)
def test_every_exercise_asks_for_its_check_and_has_a_solution_that_calls_it(chapter: str) -> None:
    notebook = nbformat.read(page(chapter), as_version=4)
    asked, solved = printed(notebook), solutions(notebook)
    assert len(asked) >= 5 and list(asked) == list(solved)
    assert [CHECK.findall(text) for text in asked.values()] == [[name] for name in ids(chapter)]
    codes = ("\n".join(cell.source for cell in cells) for cells in solved.values())
    assert [checked(code) for code in codes] == [[name] for name in ids(chapter)]


@pytest.mark.parametrize("chapter", exercises.CHAPTERS)
def test_every_solution_is_right_in_the_built_book(chapter: str) -> None:
    notebook = executed(chapter)
    said = {
        label: [line for cell in cells for line in verdicts(cell)]
        for label, cells in solutions(notebook).items()
    }
    for (label, lines), name in zip(said.items(), ids(chapter), strict=True):
        assert len(lines) == 1 and lines[0].startswith(f"✓ {name}: right. "), (label, lines)
    everywhere = [line for cell in notebook.cells for line in verdicts(cell)]
    assert everywhere == [line for lines in said.values() for line in lines]


def verdicts(cell: nbformat.NotebookNode) -> list[str]:
    """The lines of all checks of exercises that a cell shows."""
    shown = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [data["text/plain"] for data in shown if "exercise-check" in data.get("text/html", "")]


def executed(chapter: str) -> nbformat.NotebookNode:
    """The page with the outputs of the last build, if the build has seen the page as it is."""
    if CACHE.exists():
        source = nbformat.read(page(chapter), nbformat.NO_CONVERT)
        try:
            return get_cache(CACHE).merge_match_into_notebook(source)[1]
        except KeyError:
            pass
    message = f"{chapter} is not executed as it is: run `make book` first"
    return pytest.fail(message) if REQUIRED else pytest.skip(message)
