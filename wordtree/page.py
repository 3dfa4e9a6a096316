"""A tree as one HTML page to look through: search, open and close, path, gloss, where a node came from.

The page needs no other file and loads nothing; it draws only the rows in sight, so that trees of 100,000
nodes are as fast as small ones. The same page stands in a server (`server_page`), which gives the data apart.
Other pages of one file are put together here too (`one_file`).
What is on it is data/tree_page.html, .css and .js and data/page.css.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wordtree.files import write_whole

if TYPE_CHECKING:
    from wordtree.tree import WordTree

DATA = Path(__file__).parent / "data"

_TITLE = "Tree"


def tree_columns(tree: WordTree, taught: Sequence[str] | None = None) -> dict[str, Any]:
    """What the page reads, JSON-able, one entry a node in each list.

    Args:
        tree: to be shown.
        taught: per node "boxes", "labels", "teacher", "nothing" or "unknown": what a model saw of it.
    """
    columns: dict[str, Any] = {
        "fingerprint": tree.fingerprint,
        "ids": tree.ids,
        "parents": tree.parents.tolist(),
        "names": tree.names,
    }
    for name in ("glosses", "synsets", "synonyms", "sources"):
        if getattr(tree, name) is not None:
            columns[name] = getattr(tree, name)
    if taught is not None:
        columns["taught"] = list(taught)
    return columns


def page(tree: WordTree, taught: Sequence[str] | None = None) -> str:
    """The whole page, UTF-8 text."""
    title = tree.about.get("title")
    return one_file(
        _read("tree_page.html"),
        title if isinstance(title, str) else _TITLE,
        _read("page.css") + _read("tree_page.css"),
        _read("tree_page.js"),
        "tree-data",
        tree_columns(tree, taught),
    )


def one_file(template: str, title: str, style: str, script: str, data_id: str, data: Any) -> str:
    """A page that needs no other file and may load nothing, UTF-8 text.

    Args:
        template: HTML with places <!--title-->, <!--policy-->, <!--style-->, <!--data-->, <!--script-->.
        title: text. style, script: CSS, and a JavaScript module.
        data_id: of the element whose text is `data`, JSON-able, for the script to read.
    """
    # Nothing else may run or be fetched, whatever a name holds.
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'"
    )
    # "<" escaped: no name can end the element that the data stand in.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")
    return _fill(
        template,
        title=html.escape(title),
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        style=f"<style>{style}</style>",
        data=f'<script type="application/json" id="{data_id}">{text}</script>',
        script=f'<script type="module">{script}</script>',
    )


def server_page(source: str, static: str) -> str:
    """The page whose data come from the address `source` and whose files lie under the address `static`."""
    styles = "".join(
        f'<link rel="stylesheet" href="{static}{name}">' for name in ("page.css", "tree_page.css")
    )
    return _fill(
        _read("tree_page.html"),
        title=_TITLE,
        source=f' data-source="{html.escape(source)}"',
        style=styles,
        script=f'<script type="module" src="{static}tree_page.js"></script>',
        links='<a href="/">Detector</a>',
    )


def write_page(tree: WordTree, path: str | Path, taught: Sequence[str] | None = None) -> None:
    """Write the page, whole or not at all. TreeError where the file system refuses."""
    write_whole(path, page(tree, taught).encode())


def _fill(text: str, **parts: str) -> str:
    # The data last: what stands in them is not looked at for further places.
    for name in ("title", "policy", "style", "links", "source", "script", "data"):
        text = text.replace(f"<!--{name}-->", parts.get(name, ""))
    return text


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")
