"""Notebooks executed ahead of the build: those that pass are in the cache, the others are not."""

from __future__ import annotations

import importlib.util
import platform
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from jupyter_cache import get_cache

EXTENSION = Path(__file__).parents[2] / "book" / "_ext" / "side_by_side.py"
SPEC = importlib.util.spec_from_file_location("side_by_side", EXTENSION)
side_by_side = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(side_by_side)


def write(path: Path, source: str) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.cells = [nbformat.v4.new_code_cell(source)]
    nbformat.write(notebook, path)


def test_only_what_passes_is_cached_and_nothing_runs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS", "2")
    write(tmp_path / "right.ipynb", "with open('runs', 'a') as f:\n    f.write('x')\n6 * 7")
    write(tmp_path / "wrong.ipynb", "1 / 0")
    (tmp_path / "page.md").write_text("# A page")
    config = SimpleNamespace(
        execution_mode="cache", execution_cache_path=str(tmp_path / "cache"), execution_timeout=60
    )
    kinds = {"right": ".ipynb", "wrong": ".ipynb", "page": ".md"}
    env = SimpleNamespace(
        mystnb_config=config, doc2path=lambda name: str(tmp_path / (name + kinds[name]))
    )
    app = SimpleNamespace(env=env)
    for _ in range(2):
        side_by_side.execute(app, env, list(kinds))
    cache = get_cache(config.execution_cache_path)
    right = nbformat.read(tmp_path / "right.ipynb", nbformat.NO_CONVERT)
    _, executed = cache.merge_match_into_notebook(right)
    assert executed.cells[0].outputs[0]["data"]["text/plain"] == "42"
    assert (tmp_path / "runs").read_text() == "x"
    facts = cache.match_cache_notebook(right).data
    assert facts["execution_seconds"] > 0
    assert datetime.fromisoformat(facts["date"]) <= datetime.now(UTC)
    place = facts["environment"]
    assert place["python"] == platform.python_version()
    assert place["torch"] == torch.__version__
    assert place["device"] == "cpu" and place["threads"] >= 1 and place["processor"]
    with pytest.raises(KeyError):
        cache.match_cache_notebook(nbformat.read(tmp_path / "wrong.ipynb", nbformat.NO_CONVERT))
