"""How to cite a chapter: what stands on the page, and what reference managers read."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from pybtex.database import Entry, parse_string

import companion

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import citing  # noqa: E402

HTML = ROOT / "_build" / "html"
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
CHAPTERS = [
    path.relative_to(ROOT).with_suffix("").as_posix()
    for path in sorted((ROOT / "book").rglob("*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts
]
CFF = """
title: "Networks & more: 100 %"
version: 1.2.0
date-released: "2026-03-04"
authors:
  - name: The companion contributors
  - family-names: Neumann
    name-particle: von
    given-names: John Louis
  - family-names: Poggio
    given-names: Tomaso
"""
URL = "https://example.org/book/dynamics/theorem_4.html"


@pytest.fixture
def book(tmp_path: Path) -> citing.Edition:
    (tmp_path / "CITATION.cff").write_text(CFF)
    return citing.edition(tmp_path)


def parse(text: str) -> tuple[str, Entry]:
    ((key, entry),) = parse_string(text, "bibtex").entries.items()
    return key, entry


def test_edition_knows_people_and_entities(book: citing.Edition) -> None:
    assert (book.version, book.date, book.year) == ("1.2.0", "2026-03-04", "2026")
    names = ["The companion contributors", "von Neumann, John Louis", "Poggio, Tomaso"]
    assert [author.inverted for author in book.authors] == names
    initials = ["The companion contributors", "von Neumann, J. L.", "Poggio, T."]
    assert [author.initials for author in book.authors] == initials


def test_edition_needs_its_fields(tmp_path: Path) -> None:
    (tmp_path / "CITATION.cff").write_text(CFF.replace("date-released", "released"))
    with pytest.raises(KeyError, match="date-released"):
        citing.edition(tmp_path)


def test_bibtex_is_read_as_it_was_meant(book: citing.Edition) -> None:
    text = citing.bibtex(book, "book/dynamics/theorem_4", "Theorem 4 & its claims", URL)
    key, entry = parse(text)
    assert (key, entry.type) == ("executable:dynamics:theorem_4", "incollection")
    first, second, third = entry.persons["author"]
    assert first.last_names == ["{The companion contributors}"] and not first.first_names
    assert (second.prelast_names, second.last_names) == (["von"], ["Neumann"])
    assert (third.first_names, third.last_names) == (["Tomaso"], ["Poggio"])
    assert entry.fields["title"] == r"{Theorem 4 \& its claims}"
    assert entry.fields["booktitle"] == r"{Networks \& more: 100 \%}"
    assert entry.fields["year"] == "2026"
    assert entry.fields["note"] == r"Version 1.2.0, chapter dynamics/theorem\_4"
    assert entry.fields["url"] == URL
    assert "url" not in citing.bibtex(book, "book/dynamics/theorem_4", "Theorem 4", "")


def test_apa(book: citing.Edition) -> None:
    line = citing.apa(book, "book/dynamics/theorem_4", "Theorem 4", URL)
    assert line == (
        "The companion contributors, von Neumann, J. L., & Poggio, T. (2026). Theorem 4. In "
        f"Networks & more: 100 % (Version 1.2.0, chapter dynamics/theorem_4). {URL}"
    )
    alone = book._replace(authors=book.authors[:1])
    assert citing.apa(alone, "book/a", "A", "") == (
        "The companion contributors. (2026). A. In Networks & more: 100 % (Version 1.2.0, "
        "chapter a)."
    )


def tags(html: BeautifulSoup) -> list[tuple[str, str]]:
    found = html.find_all("meta", attrs={"name": re.compile(r"^(citation_|DC\.)")})
    return [(tag["name"], tag["content"]) for tag in found]


def test_tags_are_escaped_and_one_for_each_author(book: citing.Edition) -> None:
    title = 'Is "<b>" & co. right?'
    soup = BeautifulSoup(citing.meta(book, "book/a/one", title, URL), "html.parser")
    assert {tag.name for tag in soup.find_all(True)} == {"meta"}
    found = tags(soup)
    assert dict(found)["citation_title"] == dict(found)["DC.title"] == title
    authors = [value for name, value in found if name == "citation_author"]
    assert authors == ["The companion contributors", "von Neumann, John Louis", "Poggio, Tomaso"]
    assert [value for name, value in found if name == "DC.creator"] == authors
    assert dict(found)["citation_publication_date"] == "2026/03/04"
    assert dict(found)["DC.date"] == "2026-03-04"
    for name in ("citation_public_url", "citation_fulltext_html_url", "DC.identifier"):
        assert dict(found)[name] == URL
    local = dict(tags(BeautifulSoup(citing.meta(book, "book/a/one", title, ""), "html.parser")))
    assert local["DC.identifier"] == "a/one"
    assert not [name for name in local if name.endswith("_url")]


# --- the book ------------------------------------------------------------------------------------


def test_edition_of_the_book_is_that_of_the_package() -> None:
    book = citing.edition(ROOT)
    assert book.version == companion.__version__
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert book.title == config["title"]
    assert [author.family for author in book.authors] == [config["author"]]


@functools.cache
def page(chapter: str) -> BeautifulSoup:
    file = HTML / f"{chapter}.html"
    if not file.exists():
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    return BeautifulSoup(file.read_text("utf-8"), "html.parser")


def test_introduction_cites_the_edition() -> None:
    book = citing.edition(ROOT)
    quoted = [" ".join(each.get_text().split()) for each in page("book/intro").select("blockquote")]
    people = " and ".join(author.family for author in book.authors)
    assert f"{people}, {book.title}, version {book.version} ({book.year})." in quoted


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_ends_with_how_to_cite_it(chapter: str) -> None:
    book, title = citing.edition(ROOT), page(chapter).h1.find(string=True, recursive=False)
    (section,) = page(chapter).find_all(id=citing.ANCHOR)
    assert section.find_next_sibling() is None, "the last section of the chapter"
    assert section.p.code.get_text() == citing.chapter_id(chapter)
    bibtex, apa = (block.get_text().strip() for block in section.select(".citation-text pre"))
    key, entry = parse(bibtex)
    assert key == "executable:" + citing.chapter_id(chapter).replace("/", ":")
    assert entry.fields["title"] == f"{{{title}}}"
    assert entry.fields["year"] == book.year
    assert book.version in entry.fields["note"] and book.version in apa
    assert f"({book.year}). {title}. In {book.title}" in apa
    found = dict(tags(page(chapter)))
    assert found["citation_title"] == title
    assert found["citation_book_title"] == found["citation_inbook_title"] == book.title
    assert found["citation_author"] == book.authors[-1].inverted
    assert found["citation_publication_date"] == book.date.replace("-", "/")


@pytest.mark.parametrize("name", ["intro", "reference/concordance", "reference/bibliography"])
def test_other_pages_are_no_chapters(name: str) -> None:
    html = page(f"book/{name}")
    assert html.find(id=citing.ANCHOR) is None and tags(html) == []
