"""A chapter whose measurement violates a claim does not pass: tried on every check of the book."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

ROOT = Path(__file__).parents[2]
CHAPTERS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "book").rglob("*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts and "claims.check(" in path.read_text("utf-8")
]
KINDS = ("equals", "below", "above", "at_most", "at_least")


class Check(NamedTuple):
    """A call of ``claims.check`` whose bounds are written as numbers."""

    id: str
    quantity: str
    bounds: dict[str, Any]


def checks(notebook: nbformat.NotebookNode) -> list[Check]:
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or "claims.check(" not in cell.source:
            continue
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("claims.check"):
                try:
                    claim_id, quantity = map(ast.literal_eval, node.args[:2])
                    bounds = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
                except ValueError:
                    continue  # a bound that is computed
                found.append(Check(claim_id, quantity, bounds))
    return found


def measured(check: Check, *, kept: bool) -> Any:
    """A value that keeps all bounds of a check, or breaks one."""
    kind = next(kind for kind in KINDS if kind in check.bounds)
    bound = check.bounds[kind]
    if isinstance(bound, bool):
        return bound if kept else not bound
    if kept:
        sides = [check.bounds[kind] for kind in KINDS if kind in check.bounds]
        outwards = {"below": -1, "at_most": -1, "above": 1, "at_least": 1, "equals": 0}[kind]
        return sum(sides) / 2 if len(sides) == 2 else bound + outwards
    step = 1 + abs(bound)
    return bound - step if kind in ("above", "at_least") else bound + step


def run(folder: Path, found: list[Check], *, kept: bool) -> tuple[int, str]:
    """Run nbval on a notebook that makes these checks on given numbers: exit status, output."""
    sources = ["%xmode Minimal\nfrom companion import claims"]  # a traceback takes a while
    for check in found:
        bounds = ", ".join(f"{kind}={value!r}" for kind, value in check.bounds.items())
        value = measured(check, kept=kept)
        sources.append(f"claims.check({check.id!r}, {check.quantity!r}, {value!r}, {bounds})")
    if kept:  # what passes needs no cell of its own
        sources = ["\n".join(sources)]
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, folder / "twin.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--rootdir",
               str(folder), "-p", "no:cacheprovider", "-p", "no:xdist", "twin.ipynb"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    return result.returncode, re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)  # without colours


def test_one_broken_claim_fails_the_notebook_and_is_named(tmp_path: Path) -> None:
    found = [Check("lemma-3", "largest fall of the smoothed margin", {"below": 1e-5})]
    status, output = run(tmp_path, found, kept=True)
    assert status == 0, output
    status, output = run(tmp_path, found, kept=False)
    assert status == 1, output
    assert "ClaimError: lemma-3: largest fall of the smoothed margin is" in output


def test_every_check_of_the_book_can_fail(tmp_path: Path) -> None:
    """All chapters in one notebook, because each run starts a kernel."""
    by_chapter = {path: checks(nbformat.read(ROOT / path, as_version=4)) for path in CHAPTERS}
    for path, found in by_chapter.items():
        assert found, f"{path}: no check whose bounds are written as numbers"
    every = [check for found in by_chapter.values() for check in found]
    status, output = run(tmp_path, every, kept=True)
    assert status == 0, output
    status, output = run(tmp_path, every, kept=False)
    assert status == 1, output
    assert f"{len(every)} failed, 1 passed" in output
    for check in every:
        assert f"ClaimError: {check.id}: {check.quantity} is" in output
