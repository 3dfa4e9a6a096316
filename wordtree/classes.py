"""Committed tables of facts: the WordNet id of each class of a data set and what grows the default tree.

Not here: .map files, which hold indices of one tree instead of ids (darknet.py).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from wordtree.errors import TreeError

# Data set -> its table in wordtree/data; each says in its first lines where it comes from.
_TABLES = {"coco": "coco.tsv", "det": "det.tsv", "voc": "voc.tsv", "ilsvrc": "ilsvrc.tsv"}


@cache
def table(name: str, fields: int) -> tuple[tuple[str, ...], ...]:
    """Rows of a tab-separated table of the package; lines that start with # are its explanation."""
    text = (files("wordtree") / "data" / name).read_text(encoding="utf-8")
    rows = tuple(tuple(line.split("\t")) for line in text.splitlines() if line and not line.startswith("#"))
    for row in rows:
        if len(row) != fields or not all(row):
            raise TreeError(f"wordtree/data/{name}: wanted {fields} fields in {row!r}")
    return rows


def class_map(data_set: str) -> tuple[tuple[str, str], ...]:
    """The classes of a data set as (class name, WordNet id), in the data set's own order.

    Args:
        data_set: "coco" (80), "voc" (20), "det" (ImageNet DET, 200) or "ilsvrc" (ImageNet-1k, 1,000, in the
            order of Darknet's classifiers). `tree.index(id)` gives the node; every id is a node of the
            default tree.

    Raises:
        TreeError: another name.
    """
    if data_set not in _TABLES:
        raise TreeError(f"no class map is called {data_set!r}; there are {', '.join(_TABLES)}")
    return table(_TABLES[data_set], 2)
