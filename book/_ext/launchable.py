"""Write launchable copies of the chapters: executed, in plain Markdown, installing what they need.

    python book/_ext/launchable.py --repository URL --ref REF [--site URL]

reads the finished build (`make book`) and writes one notebook per chapter, with its outputs, into
``_build/notebooks``. Nothing in a copy needs Sphinx: numbers of equations and theorems are written
out, references to other chapters are links, exercises are headings, and solutions fold. The first
cell installs the package from REPOSITORY at REF, unless it is there already, and leaves torch and
numpy as they are. Beside the copies stand a page that lists them and the set-up of Binder, so that
the folder can be pushed to a branch as it is.
"""

from __future__ import annotations

import argparse
import pickle
import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache import get_cache
from nbformat import NotebookNode
from pybtex.backends.markdown import Backend as Markdown

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "_build"

INSTALL = """\
# Installs the code of this book, unless it is there; torch and numpy stay as they are.
import importlib.metadata, importlib.util, sys, tempfile

packages = {{d.name.lower(): d.version for d in importlib.metadata.distributions()}}
with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as kept:
    kept.writelines(f"{{p}}=={{packages[p]}}\\n" for p in ("torch", "numpy") if p in packages)
if importlib.util.find_spec("companion") is None:
    %pip install -q -c "{{kept.name}}" "git+{repository}@{ref}"

print("Python", sys.version.split()[0])
for package in ("companion", "torch", "numpy"):
    print(package, importlib.metadata.version(package))"""

_FENCE = re.compile(r"^(`{3,}|:{3,})(.*)$")
_DIRECTIVE = re.compile(r"^\{([a-z:-]+)\}\s*(.*)$")
_OPTION = re.compile(r"^:([a-z-]+):\s*(.*)$")
_TARGET = re.compile(r"^\([a-z0-9-]+\)=\s*$")
_EQUATION = re.compile(r"^\$\$(.+?)\$\$[ ]*\(([\w.-]+)\)[ ]*$", re.MULTILINE | re.DOTALL)
# A role, a piece of code that is to stay as it is, or a link to another page of the book.
_INLINE = re.compile(
    r"\{(?P<role>[a-z:]+)\}`(?P<text>[^`]+)`"
    r"|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
    r"|\]\((?P<page>[^)\s:]*\.(?:ipynb|md))(?P<anchor>#[\w.-]+)?\)",
    re.DOTALL,
)


class Unresolved(ValueError):
    """A role, directive or reference that has no form in plain Markdown."""


@dataclass(frozen=True)
class Book:
    """What references resolve to, from the environment of a finished build.

    ``site`` is the address of the online book, ending in a slash, or empty: then references to
    other chapters are text without a link.
    """

    numbers: dict[str, dict[str, dict[str, tuple]]]
    proofs: dict[str, dict[str, Any]]
    citations: dict[str, Any]
    titles: dict[str, str]
    equations: dict[str, str]
    site: str = ""

    @classmethod
    def load(cls, build: Path, site: str = "") -> Book:
        """Read the environment that Sphinx left in ``build``.

        Raises:
            FileNotFoundError: if there is none.
        """
        path = build / ".doctrees" / "environment.pickle"
        if not path.exists():
            raise FileNotFoundError(f"no finished build in {build}: run `make book` first")
        with path.open("rb") as file:
            env = pickle.load(file)
        return cls(
            numbers=env.toc_fignumbers,
            proofs=env.proof_list,
            citations={c.key: c for c in env.domaindata["cite"]["citations"]},
            titles={name: title.astext() for name, title in env.titles.items()},
            equations={k: page for k, (page, _) in env.domaindata["math"]["objects"].items()},
            site=site.rstrip("/") + "/" if site else "",
        )

    def number(self, page: str, kind: str, anchor: str) -> str:
        """The number that the page shows, such as "8" or "M.1"."""
        try:
            return ".".join(map(str, self.numbers[page][kind][anchor]))
        except KeyError:
            raise Unresolved(f"no {kind} {anchor!r} on {page}") from None

    def link(self, text: str, page: str, anchor: str, here: str) -> str:
        """``text``, linked to the online book if it is on another page and there is an address."""
        if page == here or not self.site:
            return text
        return f"[{text}]({self.site}{page}.html{anchor and '#' + anchor.lstrip('#')})"

    def equation(self, label: str) -> str:
        """Number of an equation.

        Raises:
            Unresolved: if the label is unknown.
        """
        if label not in self.equations:
            raise Unresolved(f"no equation {label!r}")
        return self.number(self.equations[label], "displaymath", f"equation-{label}")

    def theorem(self, label: str) -> tuple[str, str]:
        """Name and number of a theorem ("Theorem", "4"), and of its like."""
        if label not in self.proofs:
            raise Unresolved(f"no theorem {label!r}")
        proof = self.proofs[label]
        kind = proof["countertype"]
        return proof["realtype"].capitalize(), self.number(proof["docname"], kind, label)


def _surnames(entry: Any) -> list[str]:
    persons = entry.persons.get("author") or entry.persons.get("editor") or []
    return [" ".join([*person.prelast_names, *person.last_names]) for person in persons]


def in_text(names: list[str]) -> str:
    """Names of authors as the pages cite them: A; A and B; A et al."""
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


@dataclass
class Chapter:
    """Conversion of one chapter: ``cells`` of the copy, from cells of the source.

    ``page`` is the document's name, such as "book/dynamics/margin".
    """

    book: Book
    page: str
    cited: list[str] = field(default_factory=list)
    solving: bool = False
    folded: bool = False

    def cells(self, cells: list[NotebookNode]) -> Iterator[NotebookNode]:
        for number, cell in enumerate(cells):
            if cell.cell_type == "markdown":
                try:
                    source = self.markdown(cell.source)
                except Unresolved as error:
                    raise Unresolved(f"{self.page}, cell {number}: {error}") from None
                if source:
                    yield nbformat.v4.new_markdown_cell(source)
            else:
                copy = nbformat.from_dict(cell)
                copy.metadata = nbformat.from_dict({})
                if self.solving or "hide-input" in cell.metadata.get("tags", ()):
                    copy.metadata.jupyter = {"source_hidden": True}
                    copy.metadata.cellView = "form"
                yield copy
        if self.cited:
            yield nbformat.v4.new_markdown_cell(self.references())

    def markdown(self, source: str) -> str:
        """One Markdown cell in plain Markdown; empty if nothing of it is left."""
        plain: list[str] = []
        for solving, text in self.blocks(source):
            text = text.strip("\n")
            if not text.strip():
                continue
            if solving:
                summary = "Solution, continued" if self.folded else "Solution"
                self.folded = True
                text = f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"
            plain.append(text)
        return "\n\n".join(plain)

    def blocks(self, source: str) -> Iterator[tuple[bool, str]]:
        """Pieces of a cell, each with whether it is part of a solution."""
        lines = source.split("\n")
        text: list[str] = []
        at = 0
        while at < len(lines):
            fence = _FENCE.match(lines[at])
            if fence is None:
                if not _TARGET.match(lines[at]):
                    text.append(lines[at])
                at += 1
                continue
            end = self.closing(lines, at, fence[1])
            directive = _DIRECTIVE.match(fence[2])
            if directive is None:  # a block of code
                yield self.solving, self.prose("\n".join(text))
                yield self.solving, "\n".join(lines[at : end + 1])
            else:
                yield self.solving, self.prose("\n".join(text))
                options, body = self.options(lines[at + 1 : end])
                written = self.directive(directive[1], directive[2].strip(), options, body)
                yield False if written.startswith("###") else self.solving, written
            text = []
            at = end + 1
        yield self.solving, self.prose("\n".join(text))

    @staticmethod
    def closing(lines: list[str], start: int, fence: str) -> int:
        for number in range(start + 1, len(lines)):
            if lines[number].strip() == fence:
                return number
        raise Unresolved(f"the block {lines[start]!r} is not closed")

    @staticmethod
    def options(lines: list[str]) -> tuple[dict[str, str], str]:
        options: dict[str, str] = {}
        for number, line in enumerate(lines):
            option = _OPTION.match(line)
            if option is None:
                return options, "\n".join(lines[number:])
            options[option[1]] = option[2]
        return options, ""

    def directive(self, name: str, title: str, options: dict[str, str], body: str) -> str:
        if name == "exercise-start":
            _, _, number = options["label"].rpartition("-")  # in the chapter, as its checker has it
            return f"### Exercise {number}: {self.prose(title)}"
        if name == "hint":
            return f"<details><summary>Hint</summary>\n\n{self.prose(body).strip()}\n\n</details>"
        if name in ("exercise-end", "solution-end"):
            self.solving = False
            return ""
        if name == "solution-start":
            self.solving, self.folded = True, False
            return ""
        if name.startswith("prf:"):
            return self.boxed(name.removeprefix("prf:"), self.prose(title), options, body)
        raise Unresolved(f"the directive {name!r} has no form in plain Markdown")

    def boxed(self, kind: str, title: str, options: dict[str, str], body: str) -> str:
        """A theorem or a proof as a quotation, which notebooks show with a line at its side."""
        head, end = kind.capitalize(), ""
        if kind == "proof":
            end = " ∎"
        else:
            head = " ".join(self.book.theorem(options["label"]))
        if title:
            head += f" ({title})"
        text = f"**{head}.** {self.prose(body).strip()}{end}"
        # Notebooks take out formulas before they read the quotation, so one may not span lines.
        text = re.sub(r"\$\$.+?\$\$", lambda m: " ".join(m[0].split()), text, flags=re.DOTALL)
        return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))

    def prose(self, text: str) -> str:
        """Text without fenced blocks: equations get their numbers, roles and links resolve."""

        def equation(match: re.Match[str]) -> str:
            body, tag = match[1].rstrip(), f"\\tag{{{self.book.equation(match[2])}}}"
            return f"$${body} {tag}{match[1].removeprefix(body)}$$"

        return _INLINE.sub(self.inline, _EQUATION.sub(equation, text))

    def inline(self, match: re.Match[str]) -> str:
        if match["ticks"]:
            return match[0]
        if match["page"]:
            page = posixpath.normpath(posixpath.join(posixpath.dirname(self.page), match["page"]))
            page = posixpath.splitext(page)[0]
            if page not in self.book.titles:
                raise Unresolved(f"no page {page!r}")
            return f"]({self.book.site}{page}.html{match['anchor'] or ''})"
        resolve = _ROLES.get(match["role"])
        if resolve is None:
            raise Unresolved(f"the role {match['role']!r} has no form in plain Markdown")
        return resolve(self, match["text"])

    def eq(self, label: str) -> str:
        page = self.book.equations.get(label, self.page)
        return self.book.link(f"({self.book.equation(label)})", page, label, self.page)

    def prf(self, label: str) -> str:
        name = " ".join(self.book.theorem(label))
        return self.book.link(name, self.book.proofs[label]["docname"], label, self.page)

    def cite_t(self, keys: str) -> str:
        return "; ".join(f"{names} ({year})" for names, year in self.cite(keys))

    def cite_p(self, keys: str) -> str:
        return f"({'; '.join(f'{names}, {year}' for names, year in self.cite(keys))})"

    def cite(self, keys: str) -> Iterator[tuple[str, str]]:
        for key in re.split(r"\s*,\s*", keys.strip()):
            if key not in self.book.citations:
                raise Unresolved(f"no reference {key!r}")
            if key not in self.cited:
                self.cited.append(key)
            entry = self.book.citations[key].entry
            yield in_text(_surnames(entry)), entry.fields["year"]

    def references(self) -> str:
        """The works that the chapter cites, by author."""
        cited = [self.book.citations[key] for key in self.cited]
        cited.sort(key=lambda c: (*_surnames(c.entry), c.entry.fields["year"]))
        entries = [citation.formatted_entry.text.render(Markdown()) for citation in cited]
        # The backend escapes more than Markdown asks for, and breaks lines between sentences.
        entries = [" ".join(re.sub(r"\\([.!()-])", r"\1", entry).split()) for entry in entries]
        return "## References\n\n" + "\n".join(f"- {entry}" for entry in entries)


_ROLES: dict[str, Callable[[Chapter, str], str]] = {
    "eq": Chapter.eq,
    "prf:ref": Chapter.prf,
    "cite:t": Chapter.cite_t,
    "cite:p": Chapter.cite_p,
}


def launchable(
    executed: NotebookNode, page: str, book: Book, *, repository: str, ref: str
) -> NotebookNode:
    """The launchable copy of an executed chapter.

    Raises:
        Unresolved: if something in it has no form in plain Markdown; the message names the cell.
    """
    copy = nbformat.v4.new_notebook()
    copy.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "colab": {"provenance": []},
        }
    )
    first = nbformat.v4.new_code_cell(INSTALL.format(repository=repository, ref=ref))
    cells = list(Chapter(book, page).cells(executed.cells))
    heading, _, rest = cells[0].source.partition("\n")
    origin = book.link("a chapter of the online book", page, "", "")
    cells[0].source = f"{heading}\n\n*This notebook is {origin}, version {ref}.*\n{rest}"
    copy.cells = [first, *cells]
    for number, cell in enumerate(copy.cells):
        cell.id = f"cell-{number}"  # the same in every build
    nbformat.validate(copy)
    return copy


def contents() -> list[str]:
    """Return the chapters in the order of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [page for page in pages if (ROOT / f"{page}.ipynb").exists()]


def write(build: Path, book: Book, *, repository: str, ref: str, output: Path) -> list[Path]:
    """Write the copies of all chapters of a finished build, and return their paths.

    Raises:
        KeyError: if the cache of the build lacks a chapter as it is now.
    """
    cache = get_cache(build / ".jupyter_cache")
    paths = []
    for page in contents():
        source = ROOT / f"{page}.ipynb"
        _, executed = cache.merge_match_into_notebook(nbformat.read(source, nbformat.NO_CONVERT))
        path = output / f"{page}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(launchable(executed, page, book, repository=repository, ref=ref), path)
        paths.append(path)
    return paths


README = """\
# Notebooks of "{title}"

Executed copies of the book's chapters, written by `make notebooks` at version {ref} of
[{repository}]({repository}). Each runs by itself: its first cell installs the code. Do not edit
them here; they are written anew from the sources.

{chapters}
"""

# Binder has no GPU: torch's CPU build is a tenth of the default one. The constraints are the
# versions that the book is tested with; what they name is not installed unless something needs it.
BINDER = """\
--extra-index-url https://download.pytorch.org/whl/cpu
-c constraints.txt
torch
git+{repository}@{ref}
"""


def write_set_up(book: Book, paths: list[Path], *, repository: str, ref: str, output: Path) -> None:
    """Write the README of the branch and what Binder installs."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    lines = []
    for path in paths:
        page = path.relative_to(output).with_suffix("").as_posix()
        online = f" ([online]({book.site}{page}.html))" if book.site else ""
        lines.append(f"- [{book.titles[page]}]({page}.ipynb){online}")
    texts = {
        "README.md": README.format(
            title=citation["title"], repository=repository, ref=ref,
            chapters="\n".join(lines),
        ),
        "binder/requirements.txt": BINDER.format(repository=repository, ref=ref),
        "binder/constraints.txt": (ROOT / "requirements.txt").read_text(encoding="utf-8"),
        "binder/runtime.txt": "python-3.11\n",
    }  # fmt: skip
    for name, text in texts.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(text, encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make notebooks", description="Write launchable copies of the chapters."
    )
    parser.add_argument("--repository", required=True, help="address that `git clone` takes")
    parser.add_argument("--ref", required=True, help="commit or tag of that repository")
    parser.add_argument("--site", default="", help="address of the online book")
    parser.add_argument("--output", type=Path, default=BUILD / "notebooks")
    options = parser.parse_args(arguments)
    for name in ("repository", "ref"):
        if not getattr(options, name).strip():
            parser.error(f"{name.upper()} is empty: make notebooks REPOSITORY=<url> REF=<commit>")
    try:
        book = Book.load(BUILD, options.site)
        source = {"repository": options.repository, "ref": options.ref, "output": options.output}
        paths = write(BUILD, book, **source)
        write_set_up(book, paths, **source)
    except (FileNotFoundError, Unresolved) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(paths)} notebooks are in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
