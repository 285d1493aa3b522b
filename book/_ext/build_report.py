"""How this build was made: when and where each chapter ran, how long, and from which seeds.

The directive ``{build-report}`` writes one part of it, named by its argument, from what was
recorded when the chapters were executed and from their code.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import executed
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

KEYWORDS = ("seed", "seeds", "random_state")
GENERATORS = ("default_rng", "manual_seed", "RandomState")
STORED = "companion/generalization/cifar10_*.json"


def seeds(cells: Iterable[str]) -> str:
    """The seeds that code writes: runs of numbers as `0–5`, and as code what is computed.

    Looked at are the arguments named `seed`, `seeds` and `random_state`, and the first argument of
    `default_rng`, `manual_seed` and `RandomState`. A name stands for all that the code gives it, by
    assignments, loops and comprehensions.
    """
    every = [node for cell in cells for node in ast.walk(ast.parse(_python(cell)))]
    given: dict[str, list[ast.expr | None]] = {}
    for node in every:
        for name, value in _bindings(node):
            given.setdefault(name, []).append(value)
    numbers: set[int] = set()
    computed: set[str] = set()
    for argument in (argument for node in every for argument in _arguments(node)):
        values = _values(argument, given)
        numbers |= values or set()
        if values is None:
            computed.add(f"`{ast.unparse(argument)}`")
    return ", ".join([*_runs(numbers), *sorted(computed)])


def _python(cell: str) -> str:
    """A cell without IPython's magics."""
    return re.sub(r"^([ \t]*)[%!].*$", r"\1pass", cell, flags=re.MULTILINE)


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """The names that a statement, a loop or a function binds; None is a value not followed."""
    if isinstance(node, ast.arg):
        yield node.arg, None
    elif isinstance(node, (ast.Assign, ast.For, ast.comprehension)):
        value = node.value if isinstance(node, ast.Assign) else node.iter
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            alone = isinstance(target, ast.Name)
            names = (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
            yield from ((name, value if alone else None) for name in names)


def _arguments(node: ast.AST) -> Iterator[ast.expr]:
    """The seeds of a call."""
    if isinstance(node, ast.Call):
        yield from (each.value for each in node.keywords if each.arg in KEYWORDS)
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in GENERATORS:
            yield from node.args[:1]


def _values(node: ast.expr | None, given: Mapping[str, list[ast.expr | None]]) -> set[int] | None:
    """The integers that an expression stands for, or runs through; None if it computes them."""
    parts: list[Any]
    if isinstance(node, ast.Name) and node.id in given:
        others = {name: values for name, values in given.items() if name != node.id}
        parts = [_values(value, others) for value in given[node.id]]
    elif isinstance(node, (ast.List, ast.Tuple)):
        parts = [_values(element, given) for element in node.elts]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "range":
        ends = [getattr(end, "value", None) for end in node.args]
        return set(range(*ends)) if all(type(end) is int for end in ends) else None
    else:
        number = getattr(node, "value", None)
        parts = [{number} if type(number) is int else None]
    return None if None in parts else set().union(*parts)


def _runs(numbers: Iterable[int]) -> list[str]:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [f"{r[0]}–{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs]


def revision(root: Path) -> str:
    """The commit that the sources are at, in words; "not known" outside a git repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain")
        commit = git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "not known"
    return f"`{commit[:12]}`" + (", with changes that are not committed" if changes else "")


def describe(environment: Mapping[str, Any]) -> str:
    """Where chapters ran, in a sentence."""
    if not environment:
        return "not recorded"
    threads = environment["threads"]
    return (
        f"{environment['device'].upper()} ({environment['processor']}), {threads} "
        f"thread{'' if threads == 1 else 's'} per chapter, {environment['system']}; Python "
        f"{environment['python']}, torch {environment['torch']}, NumPy {environment['numpy']}"
    )


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes and seconds."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def places(chapters: Iterable[executed.Chapter]) -> list[Mapping[str, Any]]:
    """The different environments in which they ran."""
    found: list[Mapping[str, Any]] = []
    for chapter in chapters:
        place = chapter.facts.get("environment", {})
        if place not in found:
            found.append(place)
    return found


def overview(root: Path, chapters: list[executed.Chapter]) -> Iterator[str]:
    """When, from what and where, in Markdown."""
    total = sum(chapter.facts.get("execution_seconds", 0) for chapter in chapters)
    yield f"- Pages written: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"- Sources: commit {revision(root)}"
    yield f"- Running times of the {len(chapters)} chapters, added up: {duration(total)}"
    for number, place in enumerate(places(chapters), start=1):
        yield f"- Environment {number}: {describe(place)}"


def table(root: Path, chapters: list[executed.Chapter]) -> Iterator[str]:
    """A row for each chapter, in Markdown."""
    yield "| Chapter | Ran for | Seeds | Environment | Finished (UTC) |\n|---|---|---|---|---|"
    numbers = places(chapters)
    for chapter in chapters:
        code = (cell.source for cell in chapter.notebook.cells if cell.cell_type == "code")
        date = chapter.facts.get("date")
        cells = (
            f"[{chapter.title}](../{chapter.name}.ipynb)",
            duration(chapter.facts["execution_seconds"]) if chapter.facts else "it failed",
            seeds(code) or "none",
            str(numbers.index(chapter.facts.get("environment", {})) + 1),
            f"{datetime.fromisoformat(date):%Y-%m-%d %H:%M}" if date else "not recorded",
        )
        yield "| " + " | ".join(cells) + " |"


def stored(root: Path, chapters: list[executed.Chapter]) -> Iterator[str]:
    """What is known about results that were computed before and are part of the package."""
    for path in sorted(root.glob(STORED)):
        about = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        versions, code = about["versions"], about["code"]["commit"]
        yield (
            f"- `{path.name}`: {about['images']['train']:,} training images, seeds "
            f"{', '.join(map(str, about['seeds']))}, on {about['device']}; Python "
            f"{versions['python']}, torch {versions['torch']}, NumPy {versions['numpy']}; commit "
            + (f"`{code[:12]}`" if code else "not known")
        )


PARTS = {"overview": overview, "chapters": table, "stored": stored}


class BuildReport(SphinxDirective):
    """One part of the report: `overview`, `chapters` or `stored`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # it is made of the other pages
        part = PARTS[directives.choice(self.arguments[0], list(PARTS))]
        chapters = list(executed.chapters(self.env.app))
        for chapter in chapters:
            if part is table and not chapter.facts:
                message = f"no record of the execution of {chapter.page}"
                logger.warning(message, location=self.get_location())
        lines = part(Path(self.env.app.srcdir), chapters)
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("build-report", BuildReport)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
