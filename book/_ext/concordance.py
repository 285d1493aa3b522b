"""The concordance: every claim, its verdict, and what this build measured.

The directive ``{concordance}`` stands on one page. It reads ``claims.toml`` and the records that
the checks left in the executed notebooks, so no number on that page is typed by hand. A claim
without a verdict or a check, and a check of a claim that does not exist, are warnings, which fail
the build.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import executed
from docutils import nodes
from pybtex.database import Entry
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from companion import claims

logger = logging.getLogger(__name__)

PAGE = "book/reference/concordance"
BIBLIOGRAPHY = "book/reference/bibliography"
BUILD = "book/reference/build"


class Found(NamedTuple):
    """A record, and the page that shows it."""

    record: claims.Record
    page: str
    title: str


def measured(app: Sphinx) -> list[Found]:
    """All records of the executed notebooks, in the order of the book."""
    return [
        Found(record, chapter.page, chapter.title)
        for chapter in executed.chapters(app)
        for record in claims.records_from_notebook(chapter.notebook)
    ]


def holes(known: Iterable[claims.Claim], found: Iterable[Found]) -> list[str]:
    """What is missing: verdicts, checks, and claims that checks speak of."""
    known, checked = list(known), {each.record.id for each in found}
    missing = [f"the claim {c.id!r} has no verdict" for c in known if not c.verdict]
    missing += [f"the claim {c.id!r} has no check" for c in known if c.id not in checked]
    unknown = checked - {claim.id for claim in known}
    return missing + [f"a check names {name!r}, which is no claim" for name in sorted(unknown)]


class Works:
    """Finds the works of the bibliography by the words that the claims have for them.

    These are the authors' last names and the year ("Lyu & Li 2020", "Kunin et al. 2023"). Where
    they fit several works, the arXiv number that follows them decides.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._keys: dict[tuple[str, str], list[str]] = {}
        self._eprints: dict[str, str] = {}
        for entry in entries:
            for names in self._names(entry):
                words = html.escape(names, quote=False), entry.fields.get("year", "")
                self._keys.setdefault(words, []).append(entry.key)
            if "eprint" in entry.fields:
                self._eprints[entry.fields["eprint"]] = entry.key
        longest_first = sorted({names for names, _ in self._keys}, key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first)) or "(?!)"
        number = r"(?=[,( ]+arXiv:([\d.]+\d))?"
        self._pattern = re.compile(rf"\b({names})(?:,? (\d{{4}})\b| \((\d{{4}})\)){number}")

    @staticmethod
    def _names(entry: Entry) -> Iterator[str]:
        people = entry.persons.get("author", [])
        last = [" ".join([*p.prelast_names, *p.last_names]).strip("{}") for p in people]
        if len(last) > 1:
            yield f"{last[0]} et al."
            yield from (f"{', '.join(last[:-1])} {sign} {last[-1]}" for sign in ("&", "and"))
        else:
            yield from last

    def linked(self, text: str) -> str:
        """HTML in which each mention of a work leads to its entry in the bibliography."""

        def link(match: re.Match[str]) -> str:
            names, year, in_brackets, eprint = match.groups("")
            keys = self._keys.get((names, year or in_brackets), [])
            key = keys[0] if len(keys) == 1 else self._eprints.get(eprint)
            if key not in keys:
                return match[0]
            return f'<a href="{href(BIBLIOGRAPHY, anchor(key))}">{match[0]}</a>'

        return self._pattern.sub(link, text)


def anchor(key: str) -> str:
    """The anchor of a work on the bibliography page; `bibtex_cite_id` in the configuration."""
    return nodes.make_id(f"work-{key}")


def summary(known: Iterable[claims.Claim]) -> str:
    """The table of verdicts: how many claims of each part have which."""
    counts = Counter((claim.part, claim.verdict) for claim in known)

    def row(head: str, values: list[int]) -> str:
        cells = "".join(f"<td>{value}</td>" for value in [*values, sum(values)])
        return f'<tr><th scope="row">{html.escape(head)}</th>{cells}</tr>'

    columns = "".join(f'<th scope="col">{part.capitalize()}</th>' for part in claims.PARTS)
    rows = [row(v.capitalize(), [counts[p, v] for p in claims.PARTS]) for v in claims.VERDICTS]
    total = [sum(counts[p, v] for v in claims.VERDICTS) for p in claims.PARTS]
    return (
        '<div class="pst-scrollable-table-container"><table class="table concordance-counts">'
        f'<thead><tr><th scope="col">Verdict</th>{columns}<th scope="col">All</th></tr></thead>'
        f"<tbody>{''.join(rows)}{row('All', total)}</tbody></table></div>"
    )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def entry(claim: claims.Claim, found: list[Found], works: Works) -> str:
    """One claim: what is claimed, what holds and why, and everything that was measured."""
    by_page: dict[tuple[str, str], list[claims.Record]] = {}
    for each in found:
        by_page.setdefault((each.page, each.title), []).append(each.record)
    shown = ", ".join(
        f'<a href="{href(page, records[0].anchor)}">{claims.prose_as_html(title)}</a>'
        for (page, title), records in by_page.items()
    )
    lines = [
        ("Source", claim.source),
        ("Claim", claim.statement),
        ("Here", claim.corrected),
        ("Evidence", claim.evidence),
    ]
    texts = [(head, works.linked(claims.prose_as_html(text))) for head, text in lines]
    terms = "".join(f"<dt>{h}</dt><dd>{text}</dd>" for h, text in [*texts, ("Shown in", shown)])
    checks = "".join(
        f"<p>{claims.prose_as_html(title)}</p><ul>"
        + "".join(f"<li>{line(record, page)}</li>" for record in records)
        + "</ul>"
        for (page, title), records in by_page.items()
    )
    return (
        f'<section class="claim" id="{claim.id}" data-part="{claim.part}" '
        f'data-verdict="{claim.verdict}" data-checks="{len(found)}">'
        f'<h3><a href="#{claim.id}"><code>{claim.id}</code></a> '
        f'<span class="claim-verdict">{claim.verdict}</span></h3><dl>{terms}</dl>'
        f"<details><summary>{count(len(found), 'check')} of <code>{claim.id}</code></summary>"
        f"{checks}</details></section>"
    )


def href(page: str, anchor: str = "") -> str:
    """The address of a page of the book, as seen from the concordance."""
    url = posixpath.relpath(page, posixpath.dirname(PAGE)) + ".html"
    return html.escape(url + (f"#{anchor}" if anchor else ""))


def line(record: claims.Record, page: str) -> str:
    """Quantity, measured value and bound of one check, linked to the place that made it."""
    required = html.escape(" and ".join(map(str, record.bounds)))
    return (
        f'<a href="{href(page, record.anchor)}">{html.escape(record.quantity)}</a>: '
        f"<strong>{html.escape(record.shown)}</strong> "
        f'<span class="claim-bound">(required {required})</span>'
    )


TOOLS = """<form class="concordance-tools" hidden>
<label>Part <select name="part"><option value="">all</option>{parts}</select></label>
<label>Verdict <select name="verdict"><option value="">all</option>{verdicts}</select></label>
<label>Order <select name="order"><option value="">of the paper</option>
<option value="id">by name</option><option value="verdict">by verdict</option>
<option value="checks">by number of checks</option></select></label>
<label>Words <input type="search" name="words"></label>
<output aria-live="polite"></output></form>"""


def tools() -> str:
    """The form that sorts and filters; hidden until the script shows it."""

    def options(values: Iterable[str]) -> str:
        return "".join(f'<option value="{value}">{value}</option>' for value in values)

    return TOOLS.format(parts=options(claims.PARTS), verdicts=options(claims.VERDICTS))


class Concordance(SphinxDirective):
    """All claims; see the module."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # it is made of the other pages
        known, found = claims.load(), measured(self.env.app)
        for hole in holes(known, found):
            logger.warning(f"concordance: {hole}", location=self.get_location())
        by_claim: dict[str, list[Found]] = {}
        for each in found:
            by_claim.setdefault(each.record.id, []).append(each)
        cited = self.env.get_domain("cite")
        works = Works(cited.get_entries(cited.bibdata.bibfiles))
        pages = len({each.page for each in found})
        total = (
            f"<p>{count(len(known), 'claim')}; {count(len(found), 'check')} in "
            f"{count(pages, 'chapter')}, all of which held in "
            f'<a href="{href(BUILD)}">this build</a>.</p>'
        )
        entries = "".join(entry(claim, by_claim.get(claim.id, []), works) for claim in known)
        listing = f'{tools()}<div class="concordance">{entries}</div>'
        return [nodes.raw("", part, format="html") for part in (summary(known) + total, listing)]


def load_scripts(
    app: Sphinx, pagename: str, template: str, context: Mapping[str, Any], doctree: Any
) -> None:
    """Load the page's own script, and MathJax for the formulas, which stand in raw HTML."""
    if pagename == PAGE:
        app.add_js_file("concordance.js", defer="defer")
        app.env.get_domain("math").data["has_equations"][pagename] = True


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("concordance", Concordance)
    app.connect("html-page-context", load_scripts, priority=400)  # before MathJax decides
    return {"parallel_read_safe": True, "parallel_write_safe": True}
