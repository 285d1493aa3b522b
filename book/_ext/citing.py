"""How to cite a chapter: a section at its end, and tags for reference managers and search engines.

All of it comes from `CITATION.cff`, the table of contents and the chapter's title. A chapter's id
is its place in the contents, such as `dynamics/margin`, and does not change.
"""

from __future__ import annotations

import functools
import html
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

ANCHOR = "cite-this-chapter"
FOLDER = "book/"


class Author(NamedTuple):
    """A person, or with no given names an entity that keeps its name in one piece."""

    family: str
    given: str = ""

    @property
    def inverted(self) -> str:
        """As indexes sort it: "Poggio, Tomaso"."""
        return f"{self.family}, {self.given}" if self.given else self.family

    @property
    def initials(self) -> str:
        """As APA prints it: "Poggio, T."."""
        letters = " ".join(f"{name[0]}." for name in self.given.split())
        return f"{self.family}, {letters}" if letters else self.family


class Edition(NamedTuple):
    """The book, as `CITATION.cff` describes it."""

    title: str
    authors: tuple[Author, ...]
    version: str
    date: str

    @property
    def year(self) -> str:
        return self.date.partition("-")[0]


@functools.cache
def edition(root: Path) -> Edition:
    """Read `CITATION.cff`.

    Raises:
        KeyError: if it lacks a title, an author, a version or the date of the release.
    """
    data = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    authors = tuple(map(_author, data["authors"]))
    return Edition(data["title"], authors, str(data["version"]), str(data["date-released"]))


def _author(entry: dict[str, str]) -> Author:
    if "name" in entry:
        return Author(entry["name"])
    particle = entry.get("name-particle", "")
    return Author(f"{particle} {entry['family-names']}".strip(), entry["given-names"])


def chapter_id(docname: str) -> str:
    """The stable id of a chapter, such as `dynamics/margin`."""
    return docname.removeprefix(FOLDER)


def address(app: Sphinx, docname: str) -> str:
    """Where the page will be, if that is known."""
    return f"{app.config.html_baseurl}{docname}.html" if app.config.html_baseurl else ""


def bibtex(book: Edition, docname: str, title: str, url: str) -> str:
    """The entry of a chapter; titles and names of entities are braced, to keep their form."""
    names = (each.inverted if each.given else f"{{{each.family}}}" for each in book.authors)
    note = f"Version {book.version}, chapter {chapter_id(docname)}"
    fields = {
        "author": _latex(" and ".join(names)),
        "title": f"{{{_latex(title)}}}",
        "booktitle": f"{{{_latex(book.title)}}}",
        "year": book.year,
        "note": _latex(note),
        **({"url": url} if url else {}),
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    key = f"executable:{chapter_id(docname).replace('/', ':')}"
    return f"@incollection{{{key},\n{lines}\n}}"


def _latex(text: str) -> str:
    """Text with the characters that LaTeX takes for commands escaped."""
    return text.translate({ord(character): f"\\{character}" for character in "&%$#_"})


def apa(book: Edition, docname: str, title: str, url: str) -> str:
    """The chapter as a line of a list of references in the style of the APA."""
    names = [author.initials for author in book.authors]
    people = names[0] if len(names) == 1 else ", ".join(names[:-1]) + f", & {names[-1]}"
    stop = "" if people.endswith(".") else "."
    place = f"(Version {book.version}, chapter {chapter_id(docname)})"
    return f"{people}{stop} ({book.year}). {title}. In {book.title} {place}. {url}".rstrip()


def is_chapter(app: Sphinx, docname: str) -> bool:
    return Path(app.env.doc2path(docname)).suffix == ".ipynb"


def add_section(app: Sphinx, document: nodes.document) -> None:
    """Append the section before Sphinx collects the contents of the page."""
    docname = app.env.docname
    if not is_chapter(app, docname):
        return
    top = next(iter(document.findall(nodes.section)))
    title = top.next_node(nodes.title).astext()
    book, url = edition(Path(app.srcdir)), address(app, docname)
    section = nodes.section(ids=[ANCHOR], names=[ANCHOR])
    section += nodes.title("", "Cite this chapter")
    section += nodes.paragraph(
        "",
        "",
        nodes.Text("The id of this chapter, "),
        nodes.literal("", chapter_id(docname)),
        nodes.Text(f", does not change from version to version; this is version {book.version}."),
    )
    for name, text, language in (
        ("BibTeX", bibtex(book, docname, title, url), "bibtex"),
        ("APA", apa(book, docname, title, url), "text"),
    ):
        section += nodes.paragraph("", f"{name}:")
        section += nodes.literal_block(text, text, language=language, classes=["citation-text"])
    top += section
    document.note_explicit_target(section)


def add_tags(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    if doctree is None or not is_chapter(app, pagename):
        return
    title, url = app.env.titles[pagename].astext(), address(app, pagename)
    tags = meta(edition(Path(app.srcdir)), pagename, title, url)
    context["metatags"] = context.get("metatags", "") + tags


def meta(book: Edition, docname: str, title: str, url: str) -> str:
    """The tags of a chapter, in the names of Highwire Press and of the Dublin Core.

    Zotero takes a page for a chapter of a book by `citation_book_title`; others read
    `citation_inbook_title`.
    """
    tags: list[tuple[str, str]] = [
        ("citation_title", title),
        *(("citation_author", author.inverted) for author in book.authors),
        ("citation_publication_date", book.date.replace("-", "/")),
        ("citation_inbook_title", book.title),
        ("citation_book_title", book.title),
        ("citation_language", "en"),
        ("DC.title", title),
        *(("DC.creator", author.inverted) for author in book.authors),
        ("DC.date", book.date),
        ("DC.isPartOf", book.title),
        ("DC.identifier", url or chapter_id(docname)),
        ("DC.type", "Text"),
        ("DC.format", "text/html"),
        ("DC.language", "en"),
    ]
    if url:
        tags += [("citation_public_url", url), ("citation_fulltext_html_url", url)]
    return "".join(_tag(name, value) for name, value in tags)


def _tag(name: str, value: str) -> str:
    return f'\n<meta name="{name}" content="{html.escape(value)}" />'


def name_the_edition(app: Sphinx, config: Config) -> None:
    """Let pages write `{{ version }}` and the like where they cite the book."""
    book = edition(Path(app.srcdir))
    names = " and ".join(f"{a.given} {a.family}".strip() for a in book.authors)
    words = {"authors": names, "version": book.version, "year": book.year}
    config.myst_substitutions = {**config.myst_substitutions, "title": book.title, **words}


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("config-inited", name_the_edition)
    app.connect("doctree-read", add_section, priority=100)
    app.connect("html-page-context", add_tags)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
