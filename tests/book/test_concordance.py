"""The concordance: every claim with a verdict and its checks, and no build without one of them."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urljoin

import nbformat
import pytest
from bs4 import BeautifulSoup
from pybtex.database import parse_string

from companion import claims
from tests.book import test_site

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import concordance  # noqa: E402

HTML = ROOT / "_build" / "html"
PAGE = f"{concordance.PAGE}.html"
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
browser = test_site.browser

CLAIM = claims.Claim(
    id="lemma-3",
    part="dynamics",
    source="PNAS 2020, Lemma 3",
    statement="If $a < b$, the margin grows.",
    corrected="The smoothed margin grows.",
    verdict="needs an assumption",
    evidence="Lyu & Li 2020 (arXiv:1906.05890); see Kunin et al. 2023.",
)
RECORD = claims.Record(
    id="lemma-3",
    quantity="a < b",
    measured=0.25,
    bounds=(claims.Bound("below", 1),),
    passed=True,
)
BIBLIOGRAPHY = """
@article{LyuLi2020, author = {Lyu, Kaifeng and Li, Jian}, year = {2020}, eprint = {1906.05890}}
@article{Kunin2023, author = {Kunin, D. and Yamamura, A. and Ma, C.}, year = {2023}}
@article{OShea, author = {Cox, D. and Little, J. and O'Shea, D.}, year = {2005}}
@book{Filippov1988, author = {Filippov, A. F.}, year = {1988}}
@article{ZhangOne, author = {Zhang, A. and Li, B.}, year = {2017}, eprint = {1611.03530}}
@article{ZhangTwo, author = {Zhang, C. and Ma, D.}, year = {2017}, eprint = {1801.00173}}
"""


@functools.cache
def works() -> concordance.Works:
    entries = parse_string(BIBLIOGRAPHY, "bibtex").entries
    for key, entry in entries.items():
        entry.key = key
    return concordance.Works(entries.values())


def found(claim_id: str) -> concordance.Found:
    record = claims.Record(claim_id, "q", 1, (claims.Bound("equals", 1),), True)
    return concordance.Found(record, "book/a/one", "One")


def test_holes_name_what_is_missing() -> None:
    known = [SimpleNamespace(id=name, verdict="holds") for name in ("a", "b")]
    assert concordance.holes(known, [found("a"), found("b"), found("b")]) == []
    known[0].verdict = ""
    assert concordance.holes(known, [found("b"), found("c")]) == [
        "the claim 'a' has no verdict",
        "the claim 'a' has no check",
        "a check names 'c', which is no claim",
    ]


def test_summary_counts_by_part_and_verdict() -> None:
    parts = ["dynamics", "dynamics", "landscape"]
    verdicts = ["holds", "fails as stated", "holds"]
    known = [SimpleNamespace(part=p, verdict=v) for p, v in zip(parts, verdicts, strict=True)]
    rows = table(BeautifulSoup(concordance.summary(known), "html.parser"))
    assert rows["Holds"] == [0, 1, 1, 0, 2]
    assert rows["Fails as stated"] == [0, 1, 0, 0, 1]
    assert rows["Needs an assumption"] == [0, 0, 0, 0, 0]
    assert rows["All"] == [0, 2, 1, 0, 3]


def table(soup: BeautifulSoup) -> dict[str, list[int]]:
    return {
        row.th.get_text(): [int(cell.get_text()) for cell in row.find_all("td")]
        for row in soup.select(".concordance-counts tbody tr")
    }


def test_entry_says_everything_and_leads_to_the_check() -> None:
    shown = concordance.Found(RECORD, "book/dynamics/margin", "The margin: $t$")
    page = BeautifulSoup(concordance.entry(CLAIM, [shown, shown], works()), "html.parser")
    section = page.section
    assert section["id"] == "lemma-3"
    assert (section["data-part"], section["data-verdict"]) == ("dynamics", CLAIM.verdict)
    terms = [each.get_text() for each in section.find_all("dt")]
    texts = dict(zip(terms, section.find_all("dd"), strict=True))
    assert texts["Claim"].get_text() == r"If \(a < b\), the margin grows."
    assert texts["Shown in"].get_text() == r"The margin: \(t\)"
    assert texts["Shown in"].a["href"] == f"../dynamics/margin.html#{RECORD.anchor}"
    assert section.summary.get_text() == "2 checks of lemma-3"
    item = section.details.li
    assert item.get_text() == "a < b: 0.25 (required < 1)"
    assert item.a["href"] == f"../dynamics/margin.html#{RECORD.anchor}"


def test_evidence_leads_to_the_bibliography() -> None:
    def keys(text: str) -> list[str]:
        html = works().linked(claims.prose_as_html(text))
        assert BeautifulSoup(html, "html.parser").get_text() == text
        return [key.partition("#work-")[2] for key in re.findall(r'href="([^"]*)"', html)]

    assert keys(CLAIM.evidence) == ["lyuli2020", "kunin2023"]
    assert keys("Lyu and Li (2020), Cox, Little & O'Shea 2005") == ["lyuli2020", "oshea"]
    assert keys("Filippov 1988; Filippov 1989; Lyu 2020") == ["filippov1988"]
    assert keys("(Zhang et al. 2017, arXiv:1611.03530)") == ["zhangone"]
    assert keys("Zhang et al. 2017 (arXiv:1801.00173).") == ["zhangtwo"]
    assert keys("Zhang et al. 2017 found") == [], "two works fit: neither is named"


# --- a build -------------------------------------------------------------------------------------

CONF = """
import sys
from pathlib import Path
sys.path[:0] = [{ext!r}, {root!r}]
from companion import claims
claims.SOURCE = Path(__file__).with_name("claims.toml")
extensions = ["myst_nb", "sphinx_external_toc", "sphinxcontrib.bibtex", "concordance"]
external_toc_path = "_toc.yml"
bibtex_bibfiles = ["references.bib"]
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).with_name("cache"))
nb_execution_timeout = 60
suppress_warnings = ["mystnb.unknown_mime_type"]
"""
TOC = "root: book/reference/concordance\nentries:\n  - file: book/part/chapter\n"
TABLE = """[[claim]]
id = "{id}"
part = "dynamics"
source = "s"
statement = "a"
corrected = "b"
verdict = "holds"
evidence = "e"
"""


def project(folder: Path) -> Path:
    """A book of two claims and one chapter that checks both."""
    for name in ("book/part", "book/reference"):
        (folder / name).mkdir(parents=True)
    (folder / "conf.py").write_text(CONF.format(ext=str(ROOT / "book/_ext"), root=str(ROOT)))
    (folder / "_toc.yml").write_text(TOC)
    (folder / "references.bib").write_text(BIBLIOGRAPHY)
    tables = [TABLE.format(id=name) for name in ("lemma-3", "lemma-4")]
    (folder / "claims.toml").write_text("\n".join(tables))
    page = "# Concordance\n\n```{concordance}\n```\n"
    (folder / "book/reference/concordance.md").write_text(page)
    write_chapter(folder, "lemma-3", "lemma-4")
    return folder


def write_chapter(folder: Path, *checked: str) -> None:
    cells = [nbformat.v4.new_markdown_cell("# A chapter")]
    code = "from companion import claims\nclaims.check({!r}, 'six times seven', 42, equals=42)"
    cells += [nbformat.v4.new_code_cell(code.format(name)) for name in checked]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / "book/part/chapter.ipynb")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "."]
    return subprocess.run(
        [*command, "html"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_deleting_a_check_fails_the_build_and_names_the_claim(tmp_path: Path) -> None:
    folder = project(tmp_path)
    whole = build(folder)
    assert whole.returncode == 0, whole.stderr
    page = BeautifulSoup((folder / "html" / PAGE).read_text("utf-8"), "html.parser")
    assert [claim["id"] for claim in page.select(".concordance > section")] == [
        "lemma-3",
        "lemma-4",
    ]
    assert page.select_one("#lemma-4 li").get_text().startswith("six times seven: 42")

    write_chapter(folder, "lemma-3")
    without = build(folder)
    assert without.returncode != 0
    assert "concordance: the claim 'lemma-4' has no check" in without.stderr
    assert "lemma-3" not in without.stderr


# --- the book ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> BeautifulSoup:
    if not (HTML / PAGE).exists():
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    return parsed(PAGE)


@functools.cache
def parsed(page: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / page).read_text("utf-8"), "html.parser")


@functools.cache
def anchors(page: str) -> frozenset[str]:
    return frozenset(re.findall(r'\sid="([^"]*)"', (HTML / page).read_text("utf-8")))


def test_every_claim_has_its_verdict_and_its_checks_on_the_page(page: BeautifulSoup) -> None:
    entries = {entry["id"]: entry for entry in page.select(".concordance > section")}
    assert list(entries) == [claim.id for claim in claims.load()]
    for claim in claims.load():
        entry = entries[claim.id]
        assert entry.select_one(".claim-verdict").get_text() == claim.verdict
        assert claim.verdict in claims.VERDICTS
        assert len(entry.select("details li")) == int(entry["data-checks"]) >= 1
        assert all(item.strong.get_text() for item in entry.select("details li"))


def test_counts_add_up(page: BeautifulSoup) -> None:
    rows = table(page)
    assert sum(rows[verdict.capitalize()][-1] for verdict in claims.VERDICTS) == len(claims.load())
    assert rows["All"][-1] == sum(rows["All"][:-1]) == len(claims.load())


def test_every_link_leads_to_the_very_check(page: BeautifulSoup) -> None:
    links = [link["href"] for link in page.select(".concordance a[href]")]
    assert len(links) > len(claims.load())
    for href in links:
        target, anchor = urldefrag(urljoin(PAGE, href))
        assert unquote(anchor) in anchors(unquote(target)), href


def test_every_work_in_the_evidence_is_linked(page: BeautifulSoup) -> None:
    for text in page.select(".concordance dd"):
        for link in text.select('a[href*="#work-"]'):
            link.decompose()
        for work in re.findall(r"[A-Z][\w'-]+(?: et al\.)?,? \(?(?:19|20)\d\d\b", text.get_text()):
            assert work == "PNAS 2020", "this work is not linked"


def test_claims_are_filtered_and_sorted(page: BeautifulSoup, browser) -> None:
    tab = browser.new_page()
    tab.goto((HTML / PAGE).as_uri())

    def shown() -> list[str]:
        return tab.eval_on_selector_all(".concordance > :not([hidden])", "es => es.map(e => e.id)")

    every = [claim.id for claim in claims.load()]
    assert shown() == every
    tab.select_option("select[name=verdict]", "fails as stated")
    failing = [claim.id for claim in claims.load() if claim.verdict == "fails as stated"]
    assert shown() == failing
    assert tab.inner_text(".concordance-tools output") == f"{len(failing)} of {len(every)} claims"
    tab.select_option("select[name=part]", "dynamics")
    assert shown() == [name for name in failing if claims.get(name).part == "dynamics"]
    tab.evaluate(f"location.hash = '#{every[0]}'")
    tab.wait_for_function(
        f"document.querySelectorAll('.claim:not([hidden])').length > {len(failing)}"
    )
    assert shown() == every, "a link to a claim that is filtered away shows all again"
    tab.fill("input[name=words]", "leshno VAREPSILON")
    assert shown() == []
    tab.fill("input[name=words]", "VAREPSILON epsilon")
    texts = {
        claim.id: f"{claim.statement} {claim.corrected} {claim.evidence}" for claim in claims.load()
    }
    assert set(shown()) >= {name for name, text in texts.items() if "varepsilon" in text} != set()
    tab.fill("input[name=words]", "")
    tab.select_option("select[name=order]", "checks")
    counts = [int(page.find(id=name)["data-checks"]) for name in shown()]
    assert counts == sorted(counts, reverse=True)
    tab.select_option("select[name=order]", "")
    assert shown() == every
    tab.close()


def test_claims_can_be_read_without_javascript(browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((HTML / PAGE).as_uri())
    assert tab.locator(".concordance > section:visible").count() == len(claims.load())
    assert not tab.locator(".concordance-tools").is_visible()
    tab.locator("#lemma-3 summary").click()
    assert tab.locator("#lemma-3 details li").first.is_visible()
    context.close()
