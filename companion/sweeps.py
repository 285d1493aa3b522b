"""Sweeps: one function on many jobs, in parallel, with every finished job kept on disk.

A thin layer over joblib. A sweep that is killed and started again computes only what is missing,
and inside ``joblib.parallel_config(backend="dask")`` the same call runs on a Dask cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib

from companion.training import progress

_PLAIN = (str, int, float, bool, type(None))


def run(
    function: Callable[..., Any],
    jobs: Sequence[Mapping[str, Any]],
    *,
    cache: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
) -> list[Any]:
    """Return ``[function(**job) for job in jobs]``, computed in parallel and remembered.

    Args:
        function: A function of a module. Its results must depend on its arguments alone, so that a
            stored one can stand for a new one, and be picklable.
        jobs: Keyword arguments of each call: plain numbers, strings, booleans, None, and tuples
            of them. Let the function load its data, and pass what identifies them.
        cache: Folder in which each result is kept as soon as it is there, whole or not at all;
            None keeps nothing. A result belongs to the arguments and the source of ``function``;
            when that source changes the results of the old one are dropped. The folder holds
            pickles: use only one that you trust. Workers on other machines need it at the same
            path.
        n_jobs: Processes; -1 for all cores. None: what ``joblib.parallel_config`` says, else 1.

    Returns:
        The results, in the order of ``jobs``. Equal jobs are computed once.

    Raises:
        TypeError, ValueError: if a job is not a mapping of plain values.

    >>> run(max, [])
    []
    """
    keys = [_key(i, job) for i, job in enumerate(jobs)]
    distinct = {key: dict(job) for key, job in zip(keys, jobs, strict=True)}
    if not distinct:
        return []
    call = function
    if cache is not None:
        call = joblib.Memory(Path(cache), verbose=0).cache(function)
        # Asked here before any worker is, so that they do not all register the function at once.
        call.check_call_in_cache(**next(iter(distinct.values())))
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(joblib.delayed(call)(**job) for job in distinct.values())
    found = dict(zip(distinct, progress(results, total=len(distinct), desc="sweep"), strict=True))
    return [found[key] for key in keys]


def _key(i: int, job: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    if not isinstance(job, Mapping):
        raise TypeError(f"jobs[{i}] must be a mapping of arguments, got {type(job).__name__}.")
    for name, value in job.items():
        entries = value if isinstance(value, tuple) else (value,)
        for entry in entries:
            if not isinstance(entry, _PLAIN):
                raise TypeError(
                    f"jobs[{i}][{name!r}] must be a number, string, boolean, None or a tuple of "
                    f"them, got {type(entry).__name__}."
                )
    return tuple(sorted((name, repr(value)) for name, value in job.items()))
