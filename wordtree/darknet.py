"""Darknet's text files .tree, .names, .labels and .map: read strictly, written as Darknet does.

Not here: what the lines mean together (tree.py checks that), bytes and lines (files.py), and data sets'
class lists (classes.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wordtree.errors import TreeError
from wordtree.files import read_lines, write_whole

if TYPE_CHECKING:
    from wordtree.tree import WordTree

# Nine digits are more nodes than memory holds; int() itself fails on thousands of digits.
_INTEGER = re.compile(r"-?[0-9]{1,9}")
# What Darknet takes for blanks within a line; Python knows two dozen more, which may belong to an id.
_BLANK = " \t\v\f"
_BLANKS = re.compile(f"[{_BLANK}]")


def read(tree: str | Path, names: str | Path | None = None, labels: str | Path | None = None) -> WordTree:
    """Read a .tree file and the files beside it.

    Args:
        tree: one `<id> <parent>` a line; the line number, from 0, is the index, -1 marks a root.
        names: one display name a line, same order; default: the ids.
        labels: one id a line, same order; only checked against the tree.

    Raises:
        TreeError: a cycle, an unknown or forward parent, split siblings, a repeated or missing id, a blank
            line, bad encoding, or files of different lengths; names file and line.
    """
    from wordtree.tree import WordTree

    ids, parents = [], []
    for number, line in enumerate(read_lines(tree), 1):
        fields = [field for field in _BLANKS.split(line) if field]
        if len(fields) != 2 or not _INTEGER.fullmatch(fields[1]):
            raise TreeError(
                f"{tree}:{number}: wanted an id and its parent's line number counted from 0 (-1: a root), "
                f"found {line!r}"
            )
        ids.append(fields[0])
        parents.append(int(fields[1]))
    name_lines = None
    if names is not None:
        name_lines = _as_long_as(names, len(ids), tree)
    if labels is not None:
        for number, (label, node) in enumerate(zip(_as_long_as(labels, len(ids), tree), ids, strict=True), 1):
            if label.strip() != node:
                raise TreeError(f"{labels}:{number}: {label.strip()!r}, but {tree}:{number} has {node!r}")
    return WordTree(ids, parents, name_lines, where=lambda i: f"{tree}:{i + 1}")


def _as_long_as(path: str | Path, n: int, tree: str | Path) -> list[str]:
    lines = read_lines(path)
    if len(lines) != n:
        raise TreeError(f"{path}: {len(lines)} lines, but {tree} has {n}; both have one line per node")
    return lines


def write(tree: WordTree, folder: str | Path, stem: str = "wordtree") -> tuple[Path, Path, Path]:
    """Write <stem>.tree, <stem>.names and <stem>.labels; returns their paths."""
    spaced = next((node for node in tree.ids if node.split() != [node]), None)
    if spaced is not None:
        raise TreeError(
            f"the id {spaced!r} holds white space, which a .tree file cannot; give the tree other ids"
        )
    folder = Path(folder)
    columns = {
        "tree": [f"{node} {parent}" for node, parent in zip(tree.ids, tree.parents.tolist(), strict=True)],
        "names": tree.names,
        "labels": tree.ids,
    }
    paths = []
    for ending, lines in columns.items():
        path = folder / f"{stem}.{ending}"
        write_whole(path, "".join(f"{line}\n" for line in lines).encode())
        paths.append(path)
    return tuple(paths)


def read_map(path: str | Path, n: int) -> np.ndarray:
    """Read a .map file: the node index of each class of a data set.

    Args:
        path: one integer a line.
        n: nodes in the tree; an index outside it is an error (Darknet reads past the end).

    Returns:
        (classes,) int64.
    """
    nodes = []
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip(_BLANK)
        if not _INTEGER.fullmatch(text) or not 0 <= int(text) < n:
            raise TreeError(f"{path}:{number}: wanted the index of a node, 0 to {n - 1}, found {text!r}")
        nodes.append(int(text))
    return np.array(nodes, dtype=np.int64)


def write_map(path: str | Path, nodes: Sequence[int]) -> None:
    """Write a .map file."""
    write_whole(Path(path), "".join(f"{int(node)}\n" for node in nodes).encode())
