"""The rules every tree keeps and the flat arrays that follow from them; messages say where one is broken.

Not here: the tree that holds these arrays (tree.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from wordtree.errors import TreeError
from wordtree.words import counted

_BREAK = re.compile(r"[\n\r]")  # a name has a line of its own in Darknet's files

Where = Callable[[int], str]  # how to name node i in a message: "node 3", "9k.tree:4"
Place = Callable[[str], str]  # where the node of an id stands in a file: "mine.csv:4"


def check_ids(ids: tuple[str, ...], where: Where) -> dict[str, int]:
    """Index of each id. TreeError on none at all, an empty, blank or unprintable one, or one given twice."""
    if not ids:
        raise TreeError("a tree needs at least one node")
    index = dict(zip(ids, range(len(ids)), strict=True)) if _are_texts(ids) else {}
    if len(index) == len(ids) and all(map(str.strip, ids)) and "".join(ids).isprintable():
        return index  # a million at once; what is wrong is then looked for one by one
    index = {}
    for i, node in enumerate(ids):
        if not isinstance(node, str) or not node.strip() or not node.isprintable():
            raise TreeError(f"{where(i)}: an id is a non-empty printable text, not {node!r}")
        if node in index:
            raise TreeError(f"{where(i)}: the id {node!r} was already given at {where(index[node])}")
        index[node] = i
    return index


def check_parents(parents: Iterable[int], ids: tuple[str, ...], where: Where) -> list[int]:
    """The parents as a list. TreeError on a wrong type or number, a cycle, an unknown or forward parent."""
    parents = list(parents.tolist() if isinstance(parents, np.ndarray) else parents)
    n = len(ids)
    if len(parents) != n:
        raise TreeError(f"{n} ids but {len(parents)} parents: every node needs one")
    if set(map(type, parents)) == {int} and min(parents) >= -1 and all(map(int.__lt__, parents, range(n))):
        return parents
    for i, parent in enumerate(parents):
        if isinstance(parent, bool) or not isinstance(parent, int | np.integer):
            raise TreeError(f"{where(i)}: the parent is the index of a node or -1, not {parent!r}")
        if parent == i:
            raise TreeError(f"{where(i)}: {ids[i]!r} is its own parent")
        if not -1 <= parent < n:
            raise TreeError(
                f"{where(i)}: {ids[i]!r} has the parent {parent}, but the nodes are 0 to {n - 1} (-1: a root)"
            )
        if parent > i:
            cycle = _cycle(parents, i)
            found = (
                f"a cycle through {', '.join(repr(ids[k]) for k in cycle[:5])}"
                if cycle
                else "a forward parent"
            )
            raise TreeError(
                f"{where(i)}: {ids[i]!r} has the parent {parent} ({ids[parent]!r} at {where(parent)}), "
                f"{found}; a parent comes before its children"
            )
    return parents


def _cycle(parents: Sequence[int], start: int) -> list[int]:
    """The nodes of the cycle that `start` is on, else []."""
    seen, k = [start], parents[start]
    while isinstance(k, int) and 0 <= k < len(parents) and len(seen) <= len(parents):
        if k == start:
            return seen
        seen.append(k)
        k = parents[k]
    return []


def at(place: Place | None, node: str) -> str:
    """What a message about a node begins with."""
    return f"{place(node)}: " if place else ""


def preorder(parents: Mapping[str, str | None], place: Place | None = None) -> tuple[list[str], list[int]]:
    """Lay out nodes group by group, each parent's children after its own group, as a pre-order walk does.

    Args:
        parents: id -> id of its parent, None for a root; siblings keep this order.
        place: where a node stands, for messages about it.

    Returns:
        ids and indices of the parents as WordTree wants them. TreeError on an unknown parent or a cycle.
    """
    children: dict[str | None, list[str]] = {}
    for node, parent in parents.items():
        if parent is not None and parent not in parents:
            raise TreeError(f"{at(place, node)}{node!r} has the parent {parent!r}, which is no node")
        children.setdefault(parent, []).append(node)
    ids: list[str] = []
    waiting: list[str | None] = [None]  # parents whose children come next
    while waiting:
        group = children.get(waiting.pop(), ())
        ids += group
        waiting += reversed(group)
    if len(ids) < len(parents):
        laid_out = set(ids)
        lost = next(node for node in parents if node not in laid_out)
        above: dict[str, None] = {}
        while lost not in above:  # up from any node that hangs nowhere one meets the circle
            above[lost] = None
            lost = parents[lost]
        circle = list(above)
        circle = circle[circle.index(lost) :]
        raise TreeError(
            f"{at(place, lost)}a cycle through {', '.join(map(repr, circle[:5]))}: each lies below the other"
        )
    index = {node: i for i, node in enumerate(ids)}
    return ids, [-1 if (parent := parents[node]) is None else index[parent] for node in ids]


def arrays(parents: list[int], ids: tuple[str, ...], where: Where) -> dict[str, np.ndarray]:
    """WordTree's int64 arrays by name. TreeError on siblings that do not lie side by side."""
    n = len(parents)
    parent_of = np.array(parents, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(parent_of)) + 1, [n]]).astype(np.int64)
    group_parent = parent_of[starts[:-1]]
    child_group = np.full(n, -1, dtype=np.int64)
    group_of = np.repeat(np.arange(len(group_parent), dtype=np.int64), np.diff(starts))
    seen: dict[int, int] = {}
    depth_of_group: list[int] = []
    above = group_of[
        group_parent
    ].tolist()  # the group of each group's parent; for the roots it means nothing
    for g, parent in enumerate(group_parent.tolist()):
        if parent in seen:
            i, last = int(starts[g]), int(starts[seen[parent] + 1]) - 1
            whose = "the roots" if parent < 0 else f"the children of {ids[parent]!r}"
            raise TreeError(
                f"{where(i)}: {ids[i]!r} belongs to {whose}, whose run ended at {where(last)}; "
                "siblings lie side by side"
            )
        seen[parent] = g
        depth_of_group.append(depth_of_group[above[g]] + 1 if parent >= 0 else 0)
    child_group[group_parent[1:]] = np.arange(1, len(group_parent))  # group 0 is the roots'
    return {
        "parents": parent_of,
        "group_of": group_of,
        "group_starts": starts,
        "group_parent": group_parent,
        "child_group": child_group,
        "depths": np.array(depth_of_group, dtype=np.int64)[group_of],
    }


def texts(
    what: str, values: Iterable[str], n: int, where: Where, may_be_empty: bool = True
) -> tuple[str, ...]:
    """One line of text per node as a tuple. TreeError on another number or type, or what no file can hold."""
    values = _as_many(what, values, n)
    sound = _are_texts(values)
    if sound and (may_be_empty or all(map(str.strip, values))) and not _BREAK.search("".join(values)):
        return values
    for i, text in enumerate(values):
        if not (sound or _are_texts((text,))) or not (text.strip() or may_be_empty) or _BREAK.search(text):
            raise TreeError(f"{where(i)}: {what} holds one line of text per node, not {text!r}")
    return values


def rows(
    what: str, values: Iterable[Iterable[str]] | None, n: int, where: Where
) -> tuple[tuple[str, ...], ...] | None:
    """Some texts per node as tuples, None as None. TreeError as for `texts`."""
    if values is None:
        return None
    values = _as_many(what, values, n)
    plain = set(map(type, values)) <= {list, tuple}
    for i, row in enumerate(() if plain else values):
        if isinstance(row, str) or not isinstance(row, Iterable):
            raise TreeError(f"{where(i)}: {what} holds a list of texts per node, not {row!r}")
    values = tuple(map(tuple, values))
    if not _are_texts(chain.from_iterable(values)):
        i = next(i for i, row in enumerate(values) if not _are_texts(row))
        raise TreeError(f"{where(i)}: {what} holds a list of texts per node, not {values[i]!r}")
    return values


def _as_many(what: str, values: Iterable, n: int) -> tuple:
    values = tuple(values)
    if len(values) != n:
        raise TreeError(
            f"{counted(n, 'node')} but {len(values)} {what}: every node needs one, if only an empty one"
        )
    return values


def _are_texts(values: Iterable) -> bool:
    """Whether all are texts, and such as UTF-8 can hold: JSON's escape of half a character is none."""
    try:
        "".join(values).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True
