"""The page on how the build was made: times, seeds, devices and versions as they were recorded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import build_report  # noqa: E402
import executed  # noqa: E402

PAGE = ROOT / "_build" / "html" / "book" / "reference" / "build.html"
REQUIRED = bool(os.environ.get("BROWSER_REQUIRED") or os.environ.get("CI"))
PLACE = {
    "device": "cpu",
    "processor": "Model 1",
    "threads": 1,
    "system": "Linux",
    "python": "3.11.7",
    "torch": "2.1",
    "numpy": "2.2",
}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("net.init(seed=0)", "0"),
        ("f(seed=3); f(seeds=[1, 2, 7]); SVC(random_state=0)", "0–3, 7"),
        ("rng = np.random.default_rng(4); torch.manual_seed(5)", "4, 5"),
        ("f(seed=range(20)); f(seeds=range(30, 32))", "0–19, 30, 31"),
        ("SEED = 8\nf(seed=SEED)", "8"),
        ("for s in range(3):\n    f(seed=s)", "0–2"),
        ("[f(seed=s) for s in (1, 5)]", "1, 5"),
        ("seeds = range(2)\nfor s in seeds:\n    f(seed=s)", "0, 1"),
        ("def run(seed):\n    f(seed=seed)\nrun(seed=6)", "6, `seed`"),
        ("for a, s in pairs:\n    f(seed=s)", "`s`"),
        ("for i in range(9):\n    f(seed=10 + i)", "`10 + i`"),
        ("n = n + 1\nf(seed=n)", "`n`"),
        ("%matplotlib inline\nf(seed=1)", "1"),
        ("f(scale=3, num_seeds=4); rng.integers(5)", ""),
    ],
)
def test_seeds_are_those_that_the_code_writes(code: str, expected: str) -> None:
    assert build_report.seeds([code]) == expected


def test_names_are_followed_from_cell_to_cell() -> None:
    assert build_report.seeds(["SEED = 7", "f(seed=SEED)", "f(seed=1)"]) == "1, 7"


def test_duration() -> None:
    texts = [build_report.duration(seconds) for seconds in (0.4, 89.6, 120, 754)]
    assert texts == ["0 s", "90 s", "2 min 0 s", "12 min 34 s"]


def chapter(name: str, code: str, facts: dict[str, object]) -> executed.Chapter:
    cells = [nbformat.v4.new_markdown_cell(f"# {name.title()}\n\nText."),
             nbformat.v4.new_code_cell(code)]  # fmt: skip
    return executed.Chapter(f"book/part/{name}", nbformat.v4.new_notebook(cells=cells), facts)


def test_report_of_two_environments_and_a_failure(tmp_path: Path) -> None:
    facts = {"execution_seconds": 100.0, "date": "2026-01-02T03:04:05+00:00", "environment": PLACE}
    other = PLACE | {"threads": 2}
    chapters = [
        chapter("one", "f(seed=3)", facts),
        chapter("two", "pass", facts | {"environment": other, "execution_seconds": 30.2}),
        chapter("three", "pass", {}),
    ]
    _, *rows = "\n".join(build_report.table(tmp_path, chapters)).splitlines()[1:]
    assert rows == [
        "| [One](../part/one.ipynb) | 100 s | 3 | 1 | 2026-01-02 03:04 |",
        "| [Two](../part/two.ipynb) | 30 s | none | 2 | 2026-01-02 03:04 |",
        "| [Three](../part/three.ipynb) | it failed | none | 3 | not recorded |",
    ]
    lines = list(build_report.overview(tmp_path, chapters))
    assert lines[1:] == [
        "- Sources: commit not known",
        "- Running times of the 3 chapters, added up: 2 min 10 s",
        "- Environment 1: CPU (Model 1), 1 thread per chapter, Linux; Python 3.11.7, torch 2.1, "
        "NumPy 2.2",
        "- Environment 2: CPU (Model 1), 2 threads per chapter, Linux; Python 3.11.7, torch 2.1, "
        "NumPy 2.2",
        "- Environment 3: not recorded",
    ]


def test_revision_is_the_commit_and_says_what_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert build_report.revision(tmp_path) == "not known"
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", ".")
    git("commit", "-q", "-m", "First")
    commit = git("rev-parse", "HEAD")[:12]
    assert build_report.revision(tmp_path) == f"`{commit}`"
    (tmp_path / "file").write_text("two")
    assert build_report.revision(tmp_path) == f"`{commit}`, with changes that are not committed"


def test_stored_results_say_where_they_come_from() -> None:
    lines = list(build_report.stored(ROOT, []))
    files = sorted(ROOT.glob(build_report.STORED))
    assert len(lines) == len(files) == 2
    for line, file in zip(lines, files, strict=True):
        about = json.loads(file.read_text())["provenance"]
        assert file.name in line and about["versions"]["torch"] in line
        assert about["device"] in line and about["code"]["commit"][:12] in line


# --- the book ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> BeautifulSoup:
    if not PAGE.exists():
        message = "the book is not built: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    return BeautifulSoup(PAGE.read_text("utf-8"), "html.parser")


def test_every_chapter_is_on_the_page_with_all_that_was_recorded(page: BeautifulSoup) -> None:
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in page.select("tbody tr")]
    links = [row.a["href"] for row in page.select("tbody tr")]
    chapters = [p for p in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    assert {(PAGE.parent / link).resolve().stem for link in links} == {p.stem for p in chapters}
    assert len(rows) == len(chapters)
    environments = page.find_all("li", string=re.compile("^Environment"))
    for title, seconds, seeds, place, date in rows:
        assert re.fullmatch(r"(\d+ min )?\d+ s", seconds), title
        assert seeds and 1 <= int(place) <= len(environments)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", date), title
    for environment in environments:
        assert re.search(r"CPU|CUDA", environment.get_text())
        assert re.search(r"Python 3\.\d+\.\d+.*, torch \d.*, NumPy \d", environment.get_text())
