"""Let a page load the frames of its explorers when a reader comes to see them.

An explorer carries its frames and its script, so that it works in any notebook. A page of the site
names a file for the frames instead, `_static/frames/<hash>.js`, and all pages share one script.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.osutil import relative_uri

SCRIPT = "explorer.js"
FOLDER = "_static/frames"
# What `companion.widgets.Explorer.html` ends with: the frames, packed, and a copy of the script.
EXPLORER = re.compile(
    r'<div class="explorer">(?P<shown>.*?)'
    r'<script type="application/json">(?P<frames>[\w+/=]+)</script><script>.*?</script></div>',
    re.DOTALL,
)


def move_frames(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write the frames of a page's explorers into files, and name these in the explorers."""
    if app.builder.format != "html":
        return
    page = app.builder.get_target_uri(docname)

    def lighten(explorer: re.Match[str]) -> str:
        frames = explorer["frames"]
        name = f"{FOLDER}/{hashlib.sha256(frames.encode()).hexdigest()[:16]}.js"
        path = Path(app.outdir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'document.currentScript.frames="{frames}";\n', encoding="utf-8")
        url = relative_uri(page, name)
        return f'<div class="explorer" data-frames="{url}">{explorer["shown"]}</div>'

    for node in doctree.findall(nodes.raw):
        text = node.astext()
        if node.get("format") == "html" and EXPLORER.search(text):
            light = EXPLORER.sub(lighten, text)
            node.rawsource = light
            node.children = [nodes.Text(light)]


def add_script(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    if " data-frames=" in context.get("body", ""):
        app.add_js_file(SCRIPT, loading_method="defer")


def provide_script(app: Sphinx, config: Config) -> None:
    config.html_static_path.append(str(Path(__file__).parents[2] / "companion" / "_static"))


def remove_old_frames(app: Sphinx, exception: Exception | None) -> None:
    """Remove the files that earlier builds left and no page names any more."""
    folder = Path(app.outdir, FOLDER)
    if exception is not None or not folder.is_dir():
        return
    named = {
        name
        for page in Path(app.outdir).rglob("*.html")
        for name in re.findall(rf'data-frames="[^"]*{FOLDER}/(\w+\.js)"', page.read_text("utf-8"))
    }
    for path in folder.iterdir():
        if path.name not in named:
            path.unlink()


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("config-inited", provide_script)
    app.connect("doctree-resolved", move_frames)
    app.connect("html-page-context", add_script)
    app.connect("build-finished", remove_old_frames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
