"""Execute the notebooks side by side, into the cache from which their pages are then built.

Jupyter Book executes a notebook when it reads it, one after the other. Here those that the cache
does not hold are executed before, in as many kernels as the environment variable JOBS says, or
one per core. One that fails is left out of the cache: the build executes it again and reports it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from nbformat import NO_CONVERT, NotebookNode, read
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

logger = logging.getLogger(__name__)


def missing(app: Sphinx, names: list[str], cache: JupyterCacheAbstract) -> Iterator[Path]:
    """The notebooks among these documents that the cache does not hold as they are now."""
    for name in names:
        path = Path(app.env.doc2path(name))
        if path.suffix == ".ipynb":
            try:
                cache.match_cache_notebook(read(path, NO_CONVERT))
            except KeyError:
                yield path


def execute(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    config = env.mystnb_config
    if config.execution_mode != "cache":
        return
    cache = get_cache(config.execution_cache_path)
    paths = list(missing(app, names, cache))
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)

    def run(path: Path) -> ExecutionResult:
        notebook: NotebookNode = read(path, NO_CONVERT)
        folder, timeout = str(path.parent), config.execution_timeout
        return single_nb_execution(notebook, cwd=folder, timeout=timeout, allow_errors=False)

    with ThreadPoolExecutor(jobs) as pool:  # the work is done by the kernels, not by the threads
        for path, result in zip(paths, pool.map(run, paths), strict=True):
            if result.err is None:
                logger.info(f"executed {path.stem} in {result.time:.0f} s")
                times = {"execution_seconds": result.time}
                bundle = CacheBundleIn(result.nb, str(path), data=times)
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("env-before-read-docs", execute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
