"""Hierarchies as nested folders: a folder is a node, its name the id. Files in them do not matter.

Not here: pictures in such folders, which are a data set.
"""

from __future__ import annotations

import os
from pathlib import Path

from wordtree.errors import TreeError
from wordtree.graphs import from_parents
from wordtree.tree import WordTree


def read_folders(folder: str | Path) -> WordTree:
    """The tree of the folders below `folder`, which is no node itself; siblings in alphabetical order.

    Hidden folders (.git) are passed over. TreeError on a name that is there twice, a link to a folder, or no
    folder at all; names the places.
    """
    top = Path(folder)
    place: dict[str, Path] = {}
    parents: dict[str, list[str]] = {}
    waiting: list[tuple[Path, str | None]] = [(top, None)]
    while waiting:
        here, node = waiting.pop()
        try:
            with os.scandir(here) as found:
                below = sorted(
                    (e for e in found if e.is_dir() and not e.name.startswith(".")), key=lambda e: e.name
                )
        except (OSError, ValueError) as error:
            raise TreeError(
                f"{here}: cannot be read ({getattr(error, 'strerror', None) or error})"
            ) from error
        inner = []
        for entry in below:
            path = Path(entry.path)
            if entry.is_symlink():
                raise TreeError(f"{path}: a link to a folder; a tree of folders has none")
            if entry.name in place:
                raise TreeError(f"{path}: the name is taken by {place[entry.name]}; each stands for one node")
            place[entry.name] = path
            parents[entry.name] = [] if node is None else [node]
            inner.append((path, entry.name))
        waiting += reversed(inner)
    if not parents:
        raise TreeError(f"{top}: no folders in it")
    try:
        return from_parents(parents)
    except TreeError as error:
        raise TreeError(f"{top}: {error}") from error


def write_folders(tree: WordTree, folder: str | Path) -> None:
    """Make a folder per node below `folder`, named by id. TreeError if there is anything in it."""
    for node in tree.ids:
        if node.startswith(".") or "/" in node or "\\" in node:
            raise TreeError(f"the id {node!r} cannot be the name of a folder; give the tree other ids")
    try:
        if Path(folder).is_dir() and any(Path(folder).iterdir()):
            raise TreeError(
                f"{folder}: not empty, and what is in it would be mixed with the tree; name a new one"
            )
        for leaf in tree.leaves.tolist():
            Path(folder).joinpath(*tree.path(leaf)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TreeError(f"{folder}: folders cannot be made ({error.strerror})") from error
