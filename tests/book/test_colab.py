"""Every launchable copy, alone in an empty folder of a machine like Colab, runs under nbval.

Such a machine has a torch and a numpy of its own, here an older numpy than the pinned one, and
common scientific packages. It knows of this book nothing but the address of a repository.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.book.test_launchable import BUILD, CHAPTERS, ROOT, launchable

OLD_NUMPY = "1.26.4" if sys.version_info < (3, 13) else "2.1.3"
PACKAGES = ["ipywidgets", "matplotlib", "pillow", "scikit-learn", "sympy", "tqdm"]
NOT_PASSED_ON = ("PYTHONPATH", "PYTEST_ADDOPTS", "BOOK_BUILD")
# One chapter meets a machine that has torch, numpy and a kernel, and nothing else.
BARE = "book/dynamics/margin.ipynb"


class Machine(NamedTuple):
    """Environments to start from, the larger one atop the other, and the copies."""

    bare: Path
    colab: Path
    copies: Path


def call(*command: str | Path, **options: object) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def python(environment: Path) -> Path:
    return environment / "bin" / "python"


def site_packages(environment: Path) -> Path:
    where = "import site; print(site.getsitepackages()[0])"
    return Path(call(python(environment), "-c", where).strip())


def versions(environment: Path) -> dict[str, str]:
    script = "import importlib.metadata as m; print(*map(m.version, ('torch', 'numpy')))"
    return dict(
        zip(("torch", "numpy"), call(python(environment), "-c", script).split(), strict=True)
    )


def overlay(folder: Path, *bases: Path) -> Path:
    """A new environment that sees the packages of others and can add to them."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    (site_packages(folder) / "bases.pth").write_text("\n".join(map(str, map(site_packages, bases))))
    return folder


def repository(folder: Path) -> tuple[str, str]:
    """A repository with the files as they are now: its address and the commit."""
    names = (".git", ".venv", "_build", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*names))
    git = ("git", "-C", folder, "-c", "user.name=test", "-c", "user.email=test@example.org")
    call("git", "init", "--quiet", folder)
    call(*git, "add", "--all")
    call(*git, "commit", "--quiet", "--message", "as it is")
    return folder.as_uri(), call(*git, "rev-parse", "HEAD").strip()


def lend(package: str, folder: Path, lent: set[str] | None = None) -> None:
    """Put a package of this environment, and all it needs, into another: it takes a minute less."""
    lent = set() if lent is None else lent
    if package in lent:
        return
    lent.add(package)
    distribution = importlib.metadata.distribution(package)
    for file in distribution.files or ():
        if ".." not in file.parts and file.locate().exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file.locate(), folder / file)
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            lend(canonicalize_name(requirement.name), folder, lent)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


def prepare(folder: Path) -> None:
    bare = folder / "bare"
    call(sys.executable, "-m", "venv", bare)
    lend("torch", site_packages(bare))
    install = ("-m", "pip", "install", "--quiet", "--no-compile")
    call(python(bare), *install, f"numpy=={OLD_NUMPY}", "ipykernel")
    colab = overlay(folder / "colab", bare)
    call(python(colab), *install, f"numpy=={OLD_NUMPY}", *PACKAGES)
    address, commit = repository(folder / "repository")
    book = launchable.Book.load(BUILD)
    launchable.write(BUILD, book, repository=address, ref=commit, output=folder / "copies")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Made once, also when several processes test."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "colab"
    with FileLock(shared / "colab.lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            prepare(folder)
            (folder / "ready").touch()
    return Machine(folder / "bare", folder / "colab", folder / "copies")


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.xdist_group(path)) for path in CHAPTERS]
)
def test_copy_runs_on_a_strange_machine(path: str, machine: Machine, tmp_path: Path) -> None:
    bases = [machine.bare] if path == BARE else [machine.colab, machine.bare]
    environment = overlay(tmp_path / "environment", *bases)
    before = versions(environment)
    kernel = tmp_path / "jupyter" / "kernels" / "strange"
    kernel.mkdir(parents=True)
    argv = [str(python(environment)), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "strange"}))
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(machine.copies / path, empty)
    variables = {k: v for k, v in os.environ.items() if k not in NOT_PASSED_ON}
    variables.setdefault("OMP_NUM_THREADS", "1")  # other tests run beside this one
    variables |= {"JUPYTER_PATH": str(kernel.parents[1]), "VIRTUAL_ENV": str(environment)}
    options = ["--nbval-lax", "--nbval-kernel-name=strange", "--nbval-cell-timeout=600"]
    options += ["--rootdir=.", "-p", "no:cacheprovider", "-p", "no:xdist", Path(path).name]
    call(sys.executable, "-m", "pytest", *options, cwd=empty, env=variables)
    assert versions(environment) == before and before["numpy"] == OLD_NUMPY
    ask = "import companion; print(companion.__file__)"
    where = call(python(environment), "-c", ask, cwd=empty, env=variables)
    assert Path(where.strip()).is_relative_to(environment), "another companion than the copy's"
