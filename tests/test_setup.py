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
TOOLS = (
    *("sh", "make", "awk", "cat", "chmod", "cksum", "cp", "find"),
    *("mkdir", "rm", "sort", "touch", "tr"),
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the build files, and a PATH in which only plain tools are found."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "_config.yml", "_toc.yml"):
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


def fake_python(version: str, *, venv: bool = True, own: bool = True) -> str:
    """A shell script that answers what the Makefile asks of a Python, and keeps a diary."""
    refuse = "" if venv else "exit 1"
    foreign = "" if own else "exit 1"
    return f"""
echo "$@" >> "{{diary}}"
case "$*" in
  *base_prefix*exit*|*exit*base_prefix*) {foreign} ;;
  *version_info*realpath*) echo "{version} /usr" ;;
  *version_info*print*|*print*version_info*) echo {version} ;;
  *ensurepip*) {refuse} ;;
  *"-m venv"*) mkdir -p .venv/bin; rm -f .venv/bin/python
    cp "$0" .venv/bin/python; chmod +x .venv/bin/python ;;
  *jupyter_book*|*"-m benchmarks"*) test ! -e broken || exit 1 ;;
esac
exit 0
"""


def did(machine: Path, *arguments: str, code: int = 0) -> str:
    """What one run of make asked of the fake Pythons, besides questions about themselves."""
    diary = machine / "diary"
    diary.unlink(missing_ok=True)
    result = make(machine, *arguments)
    assert (result.returncode == 0) == (code == 0), result.stdout + result.stderr
    lines = diary.read_text().splitlines() if diary.exists() else []
    return "\n".join(line for line in lines if "sys.version_info" not in line)


def provide(machine: Path, version: str, name: str = "python3", **properties: bool) -> None:
    script = fake_python(version, **properties)
    install(machine, name, script.replace("{diary}", str(machine / "diary")))


@pytest.mark.parametrize(
    ("python", "complaint"),
    [
        (None, "'python3' was not found"),
        ("exit 3", "'python3' does not run"),
        (fake_python("2.7"), "'python3' is Python 2.7"),
        (fake_python("3.9"), "'python3' is Python 3.9"),
        (fake_python("3.10"), "'python3' is Python 3.10"),
        (fake_python("3.12", venv=False), "lacks its venv module (on Debian"),
        (fake_python("3.12", venv=False), "apt install python3.12-venv)"),
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
    assert complaint in said and "Python 3.11 or newer (tested with 3.11 and 3.13)" in said
    assert "Traceback" not in said
    assert not (machine / ".venv").exists()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14", "3.20"])
def test_every_python_from_3_11_on_is_accepted(machine: Path, version: str) -> None:
    provide(machine, version)
    assert "-m venv" in did(machine, "bench")


def test_second_run_reuses_the_environment_and_new_pins_renew_it(machine: Path) -> None:
    provide(machine, "3.12")
    first = did(machine, "bench")
    assert "-m venv" in first and "-r requirements.txt" in first and "-m benchmarks" in first
    assert did(machine, "bench") == "-m benchmarks"
    with (machine / "requirements.txt").open("a") as pins:
        pins.write("# a change\n")
    (machine / "bin" / "python3").unlink()  # a good environment needs no other Python
    renewed = did(machine, "bench")
    assert "-r requirements.txt" in renewed and "-m venv" not in renewed


def test_named_python_is_used(machine: Path) -> None:
    assert "'python3.12' was not found" in make(machine, "book", "PYTHON=python3.12").stderr
    provide(machine, "3.11")
    did(machine, "bench")
    assert "'python3.12' was not found" in make(machine, "book", "PYTHON=python3.12").stderr
    provide(machine, "3.12", "python3.12")
    renewed = did(machine, "bench", "PYTHON=python3.12")
    assert "-m venv" in renewed and "-r requirements.txt" in renewed
    assert did(machine, "bench", "PYTHON=python3.12") == "-m benchmarks"
    assert did(machine, "bench") == "-m benchmarks", "kept where no Python is named"


def test_environment_whose_python_is_gone_or_not_its_own_is_made_anew(machine: Path) -> None:
    provide(machine, "3.12")
    did(machine, "bench")
    python = machine / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(machine / "uninstalled")
    assert "-m venv" in did(machine, "bench")
    provide(machine, "3.12", "other", own=False)  # no pyvenv.cfg, say: not an environment's
    shutil.copy(machine / "bin" / "other", python)
    assert "-m venv" in did(machine, "bench")
    assert did(machine, "bench") == "-m benchmarks"


def test_book_is_built_again_only_when_it_changed_or_failed(machine: Path) -> None:
    provide(machine, "3.12")
    page = machine / "book" / "a page of 'notes'.md"
    page.write_text("one")
    assert "jupyter_book" in did(machine, "test")
    assert "jupyter_book" not in did(machine, "test")
    (machine / "book" / ".DS_Store").touch()
    assert "jupyter_book" not in did(machine, "test")
    page.write_text("two")
    assert "jupyter_book" in did(machine, "test")
    page.rename(page.with_name("b.md"))
    assert did(machine, "-j2", "test", "book").count("jupyter_book") == 2
    assert did(machine, "-j2", "book", "test").count("jupyter_book") == 1
    (machine / "broken").touch()
    did(machine, "book", code=2)
    assert "pytest" not in did(machine, "test", code=2), "a failed build is not tested"


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
    introduction = (ROOT / "book" / "intro.md").read_text()
    assert "version {{ version }}" in introduction and version not in introduction


def test_pictures_of_the_readme_exist_and_are_light() -> None:
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / picture).stat().st_size <= 150_000, picture


def test_example_in_the_readme_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX systems")
def test_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
