"""Execute the notebooks side by side, into the cache from which their pages are then built.

Jupyter Book executes a notebook when it reads it, one after the other. Here those that the cache
does not hold are executed before, in as many kernels as the environment variable JOBS says, or
one per core. One that fails is left out of the cache: the build executes it again and reports it.
With each goes into the cache how long it took, when, and in which environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from nbformat import NO_CONVERT, NotebookNode, read, v4
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Asked of a kernel, because that is where the chapters run.
QUESTION = """
import json, pathlib, platform, re, numpy, torch
info = pathlib.Path("/proc/cpuinfo")
model = re.search(r"model name\\s*: (.+)", info.read_text() if info.exists() else "")
print(json.dumps({
    "device": torch.get_default_device().type,
    "processor": model[1] if model else platform.processor() or platform.machine(),
    "threads": torch.get_num_threads(),
    "system": platform.system(),
    "python": platform.python_version(),
    "torch": torch.__version__,
    "numpy": numpy.__version__,
}))
"""


def environment(folder: Path) -> dict[str, Any]:
    """Device, threads and versions of a kernel that starts in this folder; empty if none does."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(QUESTION)])
    result = single_nb_execution(notebook, cwd=str(folder), timeout=120, allow_errors=False)
    return {} if result.err else json.loads(result.nb.cells[0].outputs[0]["text"])


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

    def run(path: Path) -> tuple[ExecutionResult, str]:
        notebook: NotebookNode = read(path, NO_CONVERT)
        options = {"timeout": config.execution_timeout, "allow_errors": False}
        result = single_nb_execution(notebook, cwd=str(path.parent), **options)
        return result, datetime.now(UTC).isoformat(timespec="seconds")

    if not paths:
        return
    with ThreadPoolExecutor(jobs) as pool:  # the work is done by the kernels, not by the threads
        place = pool.submit(environment, paths[0].parent)
        for path, (result, date) in zip(paths, pool.map(run, paths), strict=True):
            if result.err is None:
                logger.info(f"executed {path.stem} in {result.time:.0f} s")
                facts = {"date": date, "environment": place.result()}
                facts["execution_seconds"] = result.time  # a name that MyST-NB knows
                bundle = CacheBundleIn(result.nb, str(path), data=facts)
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("env-before-read-docs", execute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
