"""The notebooks as files: listed, clean, and about claims that exist."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from companion import claims

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(
    path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
NAMES = [path.relative_to(ROOT).as_posix() for path in NOTEBOOKS]


def listed() -> set[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return {toc["root"], *chapters}


def test_table_of_contents_lists_exactly_what_exists() -> None:
    pages = {*(ROOT / "book").rglob("*.md"), *NOTEBOOKS}
    assert listed() == {page.relative_to(ROOT).with_suffix("").as_posix() for page in pages}


def test_build_takes_nothing_but_the_listed_pages() -> None:
    html = ROOT / "_build" / "html"
    if not html.exists():
        pytest.skip("the book is not built: run `make book` first")
    sources = html / "_sources"
    built = {page.relative_to(sources).as_posix() for page in sources.rglob("*") if page.is_file()}
    assert {page.split(".")[0] for page in built} <= listed(), "a page from outside the contents"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_is_valid_and_carries_no_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_checks_only_known_claims(path: Path) -> None:
    known = {claim.id for claim in claims.load()}
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    for claim in re.findall(r'claims\.check\(\s*"([^"]+)"', source):
        assert claim in known, f"{claim} is not in claims.toml"


FINISHED = ("approximation", "dynamics", "landscape", "generalization")


@pytest.mark.parametrize("part", FINISHED)
def test_every_claim_of_a_finished_part_has_a_check_and_a_verdict(
    part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claims.main(["--part", part, "--book", str(ROOT / "book")]) == 0, capsys.readouterr().out
