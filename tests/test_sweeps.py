"""Sweeps: order, the disk cache, a killed sweep, and a Dask cluster of two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import data, networks, sweeps, training

ROOT = Path(__file__).parents[1]

# A module of its own, as a user would write it: each call appends a line where it can be counted.
MODULE = '''
import json, os, sys, time
from pathlib import Path
import torch
from companion import data, networks, sweeps, training

HERE = Path(__file__).parent

def train(seed, scale):
    """One small network on digits; the log tells that it was trained."""
    torch.set_num_threads(1)
    x, y = data.digits(classes=(3, 8))
    net = networks.MLP(widths=(64, 8, 1))
    run = training.train(net, x, y, seeds=[seed], scales=scale, lr=0.5, steps=60, batch_size=32)
    time.sleep(0.4)
    with (HERE / "log").open("a") as log:
        log.write(f"{seed} {os.getpid()}\\n")
    return {"seed": seed, "log_loss": run.log_loss[-1].item(), "rho": [
        float(v) for v in networks.layer_norms(run.params)[0]]}

JOBS = [{"seed": seed, "scale": 1.0 + seed / 10} for seed in range(6)]

def main():
    results = sweeps.run(train, JOBS, cache=HERE / "cache", n_jobs=2)
    (HERE / "result.json").write_text(json.dumps(results))
'''
RUN = [sys.executable, "-c", "import many; many.main()"]


def folder(path: Path) -> dict[str, str]:
    """Put the module into a folder and return the environment in which it is found."""
    path.mkdir()
    (path / "many.py").write_text(MODULE)
    return os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "BOOK_BUILD": "1"}


def trained(path: Path) -> list[int]:
    log = path / "log"
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def double(value: float) -> float:
    return 2 * value


def fails(value: int) -> int:
    if value == 2:
        raise RuntimeError("job 2")
    return value


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_results_come_in_the_order_of_the_jobs(values: list[int]) -> None:
    assert sweeps.run(double, [{"value": v} for v in values]) == [2 * v for v in values]


def test_equal_jobs_run_once_and_kinds_of_numbers_are_told_apart() -> None:
    calls = []
    sweeps.run(calls.append, [])
    assert sweeps.run(repr_of, [{"value": 1}, {"value": 1.0}, {"value": True}, {"value": 1}]) == [
        "1",
        "1.0",
        "True",
        "1",
    ]


def repr_of(value: object) -> str:
    return repr(value)


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = folder(whole)
    subprocess.run(RUN, env=environment, check=True, timeout=300)
    assert sorted(trained(whole)) == list(range(6))

    environment = folder(killed)
    process = subprocess.Popen(RUN, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(stored(killed)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # the sweep and its workers, with no chance to tidy up
    process.wait()
    assert not (killed / "result.json").exists()
    finished = stored(killed)
    assert 3 <= len(finished) < 6

    subprocess.run(RUN, env=environment, check=True, timeout=300)
    after = stored(killed)
    assert {name: after[name] for name in finished} == finished, "a finished network was repeated"
    assert len(after) == 6
    # Networks in flight when the sweep was killed may be logged twice; finished ones are not.
    assert len(trained(killed)) <= 6 + 2
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()


def stored(path: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each result in the cache: they change when one is written again."""
    return {
        file.parent.name: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.glob("cache/**/output.pkl")
    }


def test_the_same_call_runs_on_a_dask_cluster(tmp_path: Path, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed")
    environment = folder(tmp_path / "dask")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])  # for the workers
    monkeypatch.syspath_prepend(str(tmp_path / "dask"))
    import many

    jobs = many.JOBS[:4]
    expected = sweeps.run(many.train, jobs)
    log = tmp_path / "dask" / "log"
    log.unlink()
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        assert len(client.scheduler_info()["workers"]) == 2
        with joblib.parallel_config(backend="dask"):
            found = sweeps.run(many.train, jobs, cache=tmp_path / "cache", n_jobs=-1)
            again = sweeps.run(many.train, jobs, cache=tmp_path / "cache", n_jobs=-1)
    assert found == again == expected
    pids = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert len(pids) == 4 and len(set(pids)) == 2 and os.getpid() not in pids


def test_what_was_done_before_an_error_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="job 2"):
        sweeps.run(fails, [{"value": v} for v in range(4)], cache=tmp_path)
    assert len(list(tmp_path.glob("**/output.pkl"))) == 2


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    assert sweeps.run(double, [{"value": 3.0}], cache=tmp_path) == [6.0]
    (file,) = tmp_path.glob("**/output.pkl")
    file.write_bytes(file.read_bytes()[:3])
    assert sweeps.run(double, [{"value": 3.0}], cache=tmp_path) == [6.0]


def test_ensemble_and_sweep_agree() -> None:
    x, y = data.digits(classes=(3, 8))
    net = networks.MLP(widths=(64, 8, 1))
    options = {"lr": 0.5, "steps": 60, "batch_size": 32}
    together = training.train(net, x, y, seeds=[0, 1], scales=[1.0, 1.1], **options)
    alone = sweeps.run(log_loss, [{"seed": 0, "scale": 1.0}, {"seed": 1, "scale": 1.1}])
    torch.testing.assert_close(together.log_loss[-1], torch.tensor(alone, dtype=torch.float64))


def log_loss(seed: int, scale: float) -> float:
    x, y = data.digits(classes=(3, 8))
    net = networks.MLP(widths=(64, 8, 1))
    run = training.train(net, x, y, seeds=[seed], scales=scale, lr=0.5, steps=60, batch_size=32)
    return run.log_loss[-1].item()


@pytest.mark.parametrize(
    ("job", "error", "match"),
    [
        ({"value": torch.zeros(2)}, TypeError, r"jobs\[0\]\['value'\] must be a number"),
        ({"value": [1, 2]}, TypeError, "tuple of them, got list"),
        (3, TypeError, r"jobs\[0\] must be a mapping of arguments, got int"),
    ],
)
def test_bad_jobs(job: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        sweeps.run(double, [job])
