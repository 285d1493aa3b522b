"""What the two commands do before they do anything: on machines that lack something, and again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import companion

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "make", "cat", "cksum", "tr", "find", "rm", "touch", "sed", "mkdir", "cp", "chmod")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the build files, and a PATH in which only plain tools are found."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "companion").mkdir()
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    return tmp_path


def install(machine: Path, name: str, script: str) -> None:
    program = machine / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def make(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine / "bin"), "HOME": str(machine), "LC_ALL": "C"}
    return subprocess.run(
        ["make", *arguments],
        cwd=machine,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake_python(version: str, *, venv: bool = True) -> str:
    """A shell script that answers what the Makefile asks of a Python, and keeps a diary."""
    refuse = "" if venv else "exit 1"
    return f"""
echo "$@" >> "{{diary}}"
case "$*" in
  *version_info*print*|*print*version_info*) echo {version} ;;
  *ensurepip*) {refuse} ;;
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; chmod +x .venv/bin/python ;;
esac
exit 0
"""


@pytest.mark.parametrize(
    ("python", "complaint"),
    [
        (None, "'python3' was not found"),
        ("exit 3", "'python3' does not run"),
        (fake_python("3.9"), "'python3' is Python 3.9"),
        (fake_python("3.14"), "'python3' is Python 3.14"),
        (fake_python("3.12", venv=False), "lacks its venv module"),
    ],
)
@pytest.mark.parametrize("target", ["book", "test"])
def test_unfit_machine_is_told_so_in_one_line(
    machine: Path, python: str | None, complaint: str, target: str
) -> None:
    if python is not None:
        install(machine, "python3", python.replace("{diary}", str(machine / "diary")))
    result = make(machine, target)
    said = (result.stdout + result.stderr).strip()
    assert result.returncode != 0
    assert len(said.splitlines()) == 1, said
    assert complaint in said and "3.11, 3.12 or 3.13" in said
    assert "Traceback" not in said
    assert not (machine / ".venv").exists()


def test_named_python_is_used(machine: Path) -> None:
    result = make(machine, "book", "PYTHON=python3.12")
    assert "'python3.12' was not found" in result.stderr


def test_second_run_reuses_the_environment_and_new_pins_renew_it(machine: Path) -> None:
    diary = machine / "diary"
    install(machine, "python3", fake_python("3.12").replace("{diary}", str(diary)))
    assert make(machine, "bench").returncode == 0
    first = diary.read_text()
    assert "-m venv" in first and "-r requirements.txt" in first and "-m benchmarks" in first
    diary.unlink()
    assert make(machine, "bench").returncode == 0
    assert diary.read_text().strip() == "-m benchmarks"
    with (machine / "requirements.txt").open("a") as pins:
        pins.write("# a change\n")
    assert make(machine, "bench").returncode == 0
    assert "-r requirements.txt" in diary.read_text()


def test_help_names_every_target(machine: Path) -> None:
    said = make(machine, "help").stdout
    for target in ("book", "test", "bench", "clean"):
        assert f"make {target}" in said


def pins() -> dict[str, Version]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*]+", str(r.specifier)) for r in requirements)
    return {canonicalize_name(r.name): Version(str(r.specifier)[2:]) for r in requirements}


def test_pins_lie_in_the_ranges_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    pinned = pins()
    for requirement in map(Requirement, ranges):
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} against {version}"
        for extra in requirement.specifier:
            assert extra.operator != "==", "ranges, so that nothing that is installed is replaced"


def test_version_is_the_same_everywhere() -> None:
    version = companion.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version {version}" in (ROOT / "book" / "intro.md").read_text()


def test_pictures_of_the_readme_exist_and_are_light() -> None:
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / picture).stat().st_size <= 150_000, picture


def test_example_in_the_readme_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX systems")
def test_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
