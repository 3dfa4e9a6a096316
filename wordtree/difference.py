"""Where two trees differ, node by node. By id: indices of two trees do not correspond."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wordtree.lookup import ALIKE, alike, plain
from wordtree.tree import WordTree


@dataclass(frozen=True, eq=False)
class Difference:
    """What is to be changed in an old tree to get a new one, by id, in the order of the tree that has it.

    removed, added: nodes of only one of the two. moved: id, old parent, new parent (None: a root) of nodes of
        both. renamed: id, old name, new name. reordered: whether the nodes of both come in another order, so
        that their indices differ even where nothing else does.
    tree: the new tree. map: (n,) int64, its index of each node of the old one, -1 where it is gone: row k of
        a class layer made for the old tree belongs into row map[k] of one for the new tree.
    """

    removed: tuple[str, ...]
    added: tuple[str, ...]
    moved: tuple[tuple[str, str | None, str | None], ...]
    renamed: tuple[tuple[str, str, str], ...]
    reordered: bool
    tree: WordTree
    map: np.ndarray

    def __bool__(self) -> bool:
        return bool(self.removed or self.added or self.moved or self.renamed or self.reordered)


def diff(old: WordTree, new: WordTree) -> Difference:
    """How `new` differs from `old`."""
    both = [node for node in old.ids if node in new]
    parents = [(node, _parent(old, node), _parent(new, node)) for node in both]
    names = [(node, old.names[old.index(node)], new.names[new.index(node)]) for node in both]
    return Difference(
        removed=tuple(node for node in old.ids if node not in new),
        added=tuple(node for node in new.ids if node not in old),
        moved=tuple(row for row in parents if row[1] != row[2]),
        renamed=tuple(row for row in names if row[1] != row[2]),
        reordered=both != [node for node in new.ids if node in old],
        tree=new,
        map=carry(old, new),
    )


def carry(old: WordTree, new: WordTree) -> np.ndarray:
    """(n,) int64: the index in `new` of each node of `old`, by id; -1 where there is none."""
    return np.array([new.index(node) if node in new else -1 for node in old.ids], dtype=np.int64)


def respelt(removed: Iterable[str], added: Iterable[str]) -> list[str]:
    """What is to be said of each pair of an id that is gone and one that is new which may be meant as one:
    they differ only in what `lookup.plain` does not tell apart. Ids are compared letter for letter."""
    new: dict[str, list[str]] = {}
    for node in added:
        new.setdefault(plain(node), []).append(node)
    pairs = [(node, other) for node in removed for other in new.get(plain(node), ())]
    return [f"{' and '.join(*alike(pair))} {ALIKE}" for pair in pairs]


def _parent(tree: WordTree, node: str) -> str | None:
    parent = tree.parent(node)
    return None if parent < 0 else tree.ids[parent]
