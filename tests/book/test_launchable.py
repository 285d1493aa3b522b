"""Launchable copies of the chapters: plain Markdown, whole, and the same but for that."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "_build"
SPEC = importlib.util.spec_from_file_location("launchable", ROOT / "book/_ext/launchable.py")
launchable = importlib.util.module_from_spec(SPEC)
sys.modules["launchable"] = launchable  # its dataclasses look their module up
SPEC.loader.exec_module(launchable)

SITE = "https://example.org/book"
CHAPTERS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "book").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)


def chapter(**changes: object) -> launchable.Chapter:
    """A chapter of a small book with one equation, one theorem and one reference."""
    entry = SimpleNamespace(
        persons={"author": [SimpleNamespace(prelast_names=["van"], last_names=["Dam"])] * 3},
        fields={"year": "2020"},
    )
    book = launchable.Book(
        numbers={"book/a/one": {"displaymath": {"equation-eq-8": (8,)},
                                "theorem": {"theorem-own": ("O", 1)}}},
        proofs={"theorem-own": {"docname": "book/a/one", "countertype": "theorem",
                                "realtype": "lemma"}},
        citations={"Dam2020": SimpleNamespace(entry=entry)},
        titles={"book/a/one": "One", "book/b/two": "Two"},
        equations={"eq-8": "book/a/one"},
        site=SITE + "/",
    )  # fmt: skip
    return launchable.Chapter(book, **{"page": "book/a/one", **changes})


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("By {eq}`eq-8`.", "By (8)."),
        ("$$ a = b $$ (eq-8)", r"$$ a = b \tag{8} $$"),
        ("$$\na = b\n$$ (eq-8)", "$$\na = b \\tag{8}\n$$"),
        ("{prf:ref}`theorem-own` holds.", "Lemma O.1 holds."),
        ("{cite:t}`Dam2020` say", "van Dam et al. (2020) say"),
        ("so {cite:p}`Dam2020`.", "so (van Dam et al., 2020)."),
        ("[next](../b/two.ipynb#eq-1)", f"[next]({SITE}/book/b/two.html#eq-1)"),
        ("(fig-1)=\n## A figure", "## A figure"),
        ("`{eq}` is a role, ``{eq}`eq-8` `` too", "`{eq}` is a role, ``{eq}`eq-8` `` too"),
        ("```\n{eq}`eq-9`\n```", "```\n{eq}`eq-9`\n```"),
        (
            "```{prf:lemma} of ours\n:label: theorem-own\n\nIf\n\n$$\na\n$$\n\nthen b.\n```",
            "> **Lemma O.1 (of ours).** If\n>\n> $$ a $$\n>\n> then b.",
        ),
        ("```{prf:proof}\nBy {eq}`eq-8`.\n```", "> **Proof.** By (8). ∎"),
        (
            "```{exercise-start} Try\n:label: one-exercise-2\n```\nDo it.\n```{exercise-end}\n```",
            "### Exercise 2: Try\n\nDo it.",
        ),
        (
            "```{hint}\n:class: dropdown\n\nSee {eq}`eq-8`.\n```",
            "<details><summary>Hint</summary>\n\nSee (8).\n\n</details>",
        ),
        (
            "```{solution-start} one-exercise-2\n:class: dropdown\n```\nSo.\n```{solution-end}\n"
            "```\nThen.",
            "<details><summary>Solution</summary>\n\nSo.\n\n</details>\n\nThen.",
        ),
    ],
)
def test_markdown_becomes_plain(source: str, plain: str) -> None:
    assert chapter().markdown(source) == plain


def test_other_chapters_are_linked() -> None:
    two = chapter(page="book/b/two")
    assert two.markdown("{eq}`eq-8`") == f"[(8)]({SITE}/book/a/one.html#eq-8)"
    link = f"[Lemma O.1]({SITE}/book/a/one.html#theorem-own)"
    assert two.markdown("{prf:ref}`theorem-own`") == link


@pytest.mark.parametrize(
    "source",
    [
        "{numref}`fig-1`",
        "{eq}`eq-9`",
        "$$ a $$ (eq-9)",
        "{prf:ref}`theorem-2`",
        "{cite:t}`Nobody2020`",
        "[a](../c/three.ipynb)",
        "```{figure} a.png\n```",
        "```python",
    ],
)
def test_what_has_no_plain_form_is_an_error(source: str) -> None:
    with pytest.raises(launchable.Unresolved):
        chapter().markdown(source)


def test_error_names_the_cell() -> None:
    cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_markdown_cell("{eq}`eq-9`")]
    with pytest.raises(launchable.Unresolved, match="book/a/one, cell 1: no equation 'eq-9'"):
        list(chapter().cells(cells))


def test_solutions_fold_across_cells() -> None:
    cells = [
        nbformat.v4.new_markdown_cell("```{solution-start} one-exercise-1\n```\nFirst."),
        nbformat.v4.new_code_cell("1 + 1"),
        nbformat.v4.new_markdown_cell("Second.\n```{solution-end}\n```"),
        nbformat.v4.new_code_cell("2 + 2"),
    ]
    first, inner, second, outer = chapter().cells(cells)
    assert "<summary>Solution</summary>" in first.source
    assert "<summary>Solution, continued</summary>" in second.source
    assert inner.metadata.jupyter.source_hidden and "jupyter" not in outer.metadata


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, nbformat.NotebookNode]:
    if not (BUILD / ".doctrees" / "environment.pickle").exists():
        pytest.skip("the book is not built: run `make book` first")
    folder = tmp_path_factory.mktemp("launchable")
    book = launchable.Book.load(BUILD, SITE)
    paths = launchable.write(
        BUILD, book, repository="https://example.org/a/b", ref="v1", output=folder
    )
    return {path.relative_to(folder).as_posix(): nbformat.read(path, 4) for path in paths}


def test_every_chapter_has_a_copy(copies: dict[str, nbformat.NotebookNode]) -> None:
    assert sorted(copies) == CHAPTERS
    assert [*copies] == [f"{page}.ipynb" for page in launchable.contents()], "in another order"


# What Sphinx would still have to read. Between backticks and in blocks of code it may stand.
RAW = re.compile(
    r"\{[a-z:]+\}`|^[`:]{3,}\{|^\([\w-]+\)=|\$\$[ ]*\((?:eq|[a-z]+-)[\w-]*\)|^:[a-z-]+:"
    r"|\]\([^)\s]*\.(?:ipynb|md)\b|!\[[^]]*\]\((?!data:|https?:|attachment:)|^\+\+\+|^% ",
    re.MULTILINE,
)


@pytest.mark.parametrize("path", CHAPTERS)
def test_nothing_is_left_to_resolve(path: str, copies: dict[str, nbformat.NotebookNode]) -> None:
    for cell in copies[path].cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^(`{3,})(?!\{).*?^\1$", "", cell.source, flags=re.DOTALL | re.MULTILINE)
            assert not RAW.search(text), text
            assert text.count("<details>") == text.count("</details>")


@pytest.mark.parametrize("path", CHAPTERS)
def test_copy_carries_everything(path: str, copies: dict[str, nbformat.NotebookNode]) -> None:
    copy, source = copies[path], nbformat.read(ROOT / path, 4)
    assert "git+https://example.org/a/b@v1" in copy.cells[0].source
    code = [cell for cell in copy.cells[1:] if cell.cell_type == "code"]
    assert [c.source for c in code] == [c.source for c in source.cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "a cell that was not executed"
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell.outputs)
    prose = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert prose.count("<summary>Solution</summary>") == prose.count("### Exercise ") >= 5
    assert "## References" in prose


def test_no_address_is_taken_for_granted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        launchable.main(["--repository", "", "--ref", "v1"])
    assert "REPOSITORY is empty" in capsys.readouterr().err
