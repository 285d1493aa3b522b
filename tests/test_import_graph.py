"""The staircase: foundations know nothing of topics, topics nothing of each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import companion

ROOT = Path(companion.__file__).parent
TOPICS = {"approximation", "dynamics", "landscape", "generalization"}
PRESENTATION = {"claims", "exercises", "figures", "widgets"}

# What each part of the package may import. Names with an underscore are private helpers, and
# belong to no layer: they are checked not to import any of these.
FOUNDATIONS = {
    "data": set(),
    "networks": set(),
    "losses": set(),
    "training": {"networks", "losses"},
    "least_squares": set(),
    "sweeps": {"training"},
}
ALLOWED = {
    **FOUNDATIONS,
    **{topic: set(FOUNDATIONS) for topic in TOPICS},
    "claims": set(),
    "exercises": {"claims"},
    "figures": set(),
    "widgets": {"figures"},
}


def part(module: str) -> str:
    """Part of the package a dotted name belongs to: companion.dynamics.flow -> dynamics."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def imported(path: Path) -> set[str]:
    """Dotted names of everything inside companion that a file imports, wherever it does."""
    package = ["companion", *path.relative_to(ROOT).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "companion"}


def source_files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def own_part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def violations(path: Path) -> set[str]:
    own = own_part(path)
    allowed = set() if own.startswith("_") else ALLOWED[own] | {own}
    used = {part(name) for name in imported(path)}
    return {name for name in used if name and not name.startswith("_")} - allowed


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_staircase(path: Path) -> None:
    assert own_part(path).startswith("_") or own_part(path) in ALLOWED, "no layer for this module"
    assert violations(path) == set()


def test_layers_are_a_directed_acyclic_graph() -> None:
    remaining = dict(ALLOWED)
    while remaining:
        ready = [name for name, uses in remaining.items() if not uses & set(remaining)]
        assert ready, f"cycle among {sorted(remaining)}"
        for name in ready:
            del remaining[name]


def test_no_topic_may_import_another_and_presentation_none() -> None:
    for name in TOPICS | PRESENTATION | set(FOUNDATIONS):
        assert not ALLOWED[name] & TOPICS


def test_violations_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "landscape").mkdir()
    wrong = tmp_path / "landscape" / "hessian.py"
    wrong.write_text(
        "import torch\nfrom companion import networks, _checks\nfrom ..dynamics import flow\n"
        "from . import langevin\n\ndef f():\n    import companion.claims\n"
    )
    assert violations(wrong) == {"dynamics", "claims"}
