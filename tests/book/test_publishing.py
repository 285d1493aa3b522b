"""What only a published site has: launch buttons, a set-up for Binder, and a workflow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.book.test_launchable import BUILD, ROOT, SITE, launchable

SPEC = importlib.util.spec_from_file_location("publishing", ROOT / "book/_ext/publishing.py")
publishing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(publishing)

PAGE = "book/dynamics/margin"
TOOLCHAIN = re.compile(
    r"jupyter-book|sphinx|nbval|pytest|playwright|ruff|torchvision|jupyter-cache"
)


@pytest.mark.parametrize(
    ("repository", "links"),
    [
        (
            "https://github.com/someone/a-fork",
            {
                "Colab": "https://colab.research.google.com/github/someone/a-fork/blob/notebooks/"
                f"{PAGE}.ipynb",
                "Binder": "https://mybinder.org/v2/gh/someone/a-fork/notebooks"
                "?urlpath=lab%2Ftree%2Fbook%2Fdynamics%2Fmargin.ipynb",
            },
        ),
        (
            "https://gitlab.com/someone/a-fork",
            {
                "Binder": "https://mybinder.org/v2/git/"
                "https%3A%2F%2Fgitlab.com%2Fsomeone%2Fa-fork/notebooks"
                "?urlpath=lab%2Ftree%2Fbook%2Fdynamics%2Fmargin.ipynb",
            },
        ),
    ],
)
def test_buttons_lead_to_the_branch_of_notebooks(repository: str, links: dict[str, str]) -> None:
    assert publishing.launch_links(repository, PAGE) == links


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"\log\log t", "log log t"),
        ("10^{300}", "10^300"),
        (r"\lVert V_k \rVert = 1", "‖ V_k ‖ = 1"),
        (r"\gamma\rho \le \varepsilon", "γ ρ ≤ ε"),
        (r"f(W;\, x)", "f(W; x)"),
    ],
)
def test_formulas_in_previews_are_text(tex: str, text: str) -> None:
    assert publishing.plain_math(tex) == text


def context(suffix: str) -> dict[str, object]:
    """What the theme passes on when it writes the page, as far as buttons go."""
    return {
        "page_source_suffix": suffix,
        "header_buttons": [],
        "pathto": lambda path, resource: f"../../{path}",
    }


def test_chapters_alone_get_buttons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOK_REPOSITORY", "https://github.com/someone/a-fork.git/")
    chapter, page = context(".ipynb"), context(".md")
    for each in (chapter, page):
        publishing.add_launch_buttons(SimpleNamespace(), PAGE, "page.html", each, None)
    assert page["header_buttons"] == []
    (group,) = chapter["header_buttons"]
    assert [button["text"] for button in group["buttons"]] == ["Colab", "Binder", "Notebook"]
    assert group["buttons"][0]["url"].startswith(
        "https://colab.research.google.com/github/someone/a-fork/blob/notebooks/"
    )
    assert group["buttons"][2]["url"] == f"../../notebooks/{PAGE}.ipynb"


@pytest.mark.parametrize(("given", "connected"), [("", 1), ("https://github.com/a/b", 2)])
def test_without_a_repository_there_is_no_button(
    given: str, connected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOK_REPOSITORY", given)
    monkeypatch.delenv("BOOK_BASEURL", raising=False)
    events: list[str] = []
    app = SimpleNamespace(connect=lambda event, function, priority=500: events.append(event))
    publishing.setup(app)
    assert len(events) == connected and ("html-page-context" in events) == bool(given)


def installed(lines: list[str]) -> list[str]:
    """What a requirements file asks for, without options and comments."""
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def needs(package: str, found: set[str]) -> Iterator[str]:
    """The package and everything it needs here, without extras."""
    if package in found:
        return
    found.add(package)
    yield package
    for line in importlib.metadata.requires(package) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from needs(canonicalize_name(requirement.name), found)


def test_what_binder_installs_is_no_toolchain() -> None:
    """The package itself and all that it needs; the constraints name more, but install nothing."""
    lines = (ROOT / ".binder" / "requirements.txt").read_text().splitlines()
    assert installed(lines) == ["torch", "."]
    assert "-c ../requirements.txt" in lines
    for package in needs("companion", set()):
        assert not TOOLCHAIN.search(package), package


def test_branch_of_notebooks_is_ready_to_push(tmp_path: Path) -> None:
    if not (BUILD / ".doctrees" / "environment.pickle").exists():
        pytest.skip("the book is not built: run `make book` first")
    book = launchable.Book.load(BUILD, SITE)
    paths = [tmp_path / "book/dynamics/margin.ipynb", tmp_path / "book/dynamics/rates.ipynb"]
    url = "https://github.com/someone/a-fork"
    launchable.write_set_up(book, paths, repository=url, ref="0123abc", output=tmp_path)
    readme = (tmp_path / "README.md").read_text()
    for path in paths:
        page = path.relative_to(tmp_path).with_suffix("").as_posix()
        assert f"]({page}.ipynb) ([online]({SITE}/{page}.html))" in readme
    lines = (tmp_path / "binder/requirements.txt").read_text().splitlines()
    assert installed(lines) == ["torch", f"git+{url}@0123abc"]
    pins = (tmp_path / "binder/constraints.txt").read_text()
    assert pins == (ROOT / "requirements.txt").read_text()


def test_the_forge_tells_its_own_address() -> None:
    """A fork publishes without an edit: no owner, host or branch of ours is in the workflow."""
    text = (ROOT / ".github/workflows/pages.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["env"]["REPOSITORY"] == "${{ github.server_url }}/${{ github.repository }}"
    assert not re.search(r"github\.com|github\.io", text.replace("users.noreply.github.com", ""))
    (build,) = (
        step for step in workflow["jobs"]["build"]["steps"] if "make book" in step.get("run", "")
    )
    assert set(build["env"]) == {"BOOK_BASEURL", "BOOK_REPOSITORY"}
    assert 'make notebooks REF="$GITHUB_SHA"' in build["run"]
