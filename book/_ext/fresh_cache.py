"""Execute the notebooks again when the companion or the environment changed.

The execution cache of Jupyter Book looks at the notebooks alone, so a change in the package that
they import would leave old numbers on the pages.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)


def fingerprint(root: Path) -> str:
    """Hash of everything outside a notebook that its outputs depend on."""
    package = root / "companion"
    files = [file for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    files = sorted([*files, root / "requirements.txt", root / "pyproject.toml"])
    digest = hashlib.sha256("Python {}.{}".format(*sys.version_info[:2]).encode())
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def drop_stale_cache(app: Sphinx, config: Config) -> None:
    cache = Path(app.outdir).parent / ".jupyter_cache"
    stamp = cache / ".fingerprint"
    now = fingerprint(Path(app.srcdir))
    if stamp.exists() and stamp.read_text() == now:
        return
    if cache.exists():
        logger.info("the companion or the environment changed: executing every notebook again")
        shutil.rmtree(cache)
    cache.mkdir(parents=True)
    stamp.write_text(now)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("config-inited", drop_stale_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
