"""Importing the package is quick and loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import companion


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_import_takes_less_than_0_3_seconds() -> None:
    code = "import time; t = time.perf_counter(); import companion; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def test_import_does_not_load_torch_or_matplotlib() -> None:
    code = (
        "import sys, companion; "
        "print(*({'torch', 'numpy', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    assert run(code) == ""


def test_submodules_load_on_first_use() -> None:
    code = "import sys, companion; companion.networks.MLP; print('torch' in sys.modules)"
    assert run(code) == "True"


@pytest.mark.parametrize("name", companion.__all__)
def test_every_listed_submodule_imports(name: str) -> None:
    assert getattr(companion, name).__name__ == f"companion.{name}"
    assert name in dir(companion)


@pytest.mark.parametrize("topic", ["approximation", "dynamics", "generalization", "landscape"])
def test_topics_list_all_their_submodules(topic: str) -> None:
    package = getattr(companion, topic)
    folder = Path(package.__file__).parent
    assert sorted(package.__all__) == sorted(
        file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")
    )
    for name in package.__all__:
        assert getattr(package, name).__name__ == f"companion.{topic}.{name}"
        assert name in dir(package)


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'network'"):
        companion.network  # noqa: B018


def test_types_are_announced() -> None:
    assert Path(companion.__file__).with_name("py.typed").is_file()
