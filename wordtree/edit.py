"""Trees out of trees: merge, subtree, prune, graft, rename, tidy. Each says where the old nodes went.

Nothing is changed in place. A node that stays keeps its id and all that is known of it. Not here: carrying a
trained model across (the map says which of its class rows go where) and comparing two trees (difference.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wordtree.difference import carry
from wordtree.errors import TreeError
from wordtree.layout import preorder
from wordtree.tree import COLUMNS, Node, WordTree
from wordtree.words import counted

# Facts about the tree as a whole that another layout makes untrue.
_OF_THE_LAYOUT = ("title", "ranks", "rank columns")
_EMPTY: dict[str, Any] = {"glosses": "", "synsets": "", "synonyms": (), "sources": (), "hypernyms": ()}


class Edited(NamedTuple):
    """tree: the new tree. map: (n,) int64, the new index of each node of the old tree, -1: gone."""

    tree: WordTree
    map: np.ndarray


class Merged(NamedTuple):
    """tree: the new tree. map, other_map: the new index of each node of the first and of the second tree."""

    tree: WordTree
    map: np.ndarray
    other_map: np.ndarray


def subtree(tree: WordTree, node: Node) -> Edited:
    """The node, as the only root, and all that lies below it."""
    k = tree.index(node)
    kept = {tree.ids[i] for i in (k, *tree.descendants(k))}
    parents = {n: p if p in kept else None for n, p in _parents(tree).items() if n in kept}
    return _edited(tree, parents)


def prune(tree: WordTree, nodes: Iterable[Node], *, keep_children: bool = False) -> Edited:
    """Without some nodes and all that lies below them.

    Args:
        tree: the tree.
        nodes: what goes.
        keep_children: what lies below a node that goes takes its place instead of going with it.

    Raises:
        TreeError: an unknown node, or nothing would be left.
    """
    _no_text("nodes", nodes)
    gone = {tree.ids[tree.index(node)] for node in nodes}
    parents: dict[str, str | None] = {}
    place: dict[str | None, str | None] = {None: None}  # node that goes or stays -> who stands for it now
    lost: set[str] = set()
    for node, parent in _parents(tree).items():  # parents come first
        if not keep_children and (node in gone or parent in lost):
            lost.add(node)
            continue
        place[node] = place[parent] if node in gone else node
        if node not in gone:
            parents[node] = place[parent]
    if not parents:
        raise TreeError("nothing would be left of the tree")
    return _edited(tree, parents)


def graft(
    tree: WordTree,
    parent: Node | None,
    what: str | WordTree,
    *,
    name: str | None = None,
    gloss: str = "",
    sources: Iterable[str] = (),
) -> Edited:
    """With a new leaf, or a whole tree, below a node; last among its new siblings.

    Args:
        tree: the tree.
        parent: the node it hangs below; None: it becomes a root.
        what: id of the new leaf, or a tree, whose roots become children of `parent`.
        name, gloss, sources: of the leaf; default name: its id.

    Raises:
        TreeError: an unknown parent, or an id that the tree has already.
    """
    above = None if parent is None else tree.ids[tree.index(parent)]
    if isinstance(what, WordTree):
        added, branch = _parents(what), what
    else:
        added = {what: None}
        tags = [tuple(sources)]
        names = [what if name is None else name]
        branch = WordTree([what], [-1], names, [gloss], sources=tags if any(tags) else None)
    there = next((node for node in added if node in tree), None)
    if there is not None:
        raise TreeError(f"the tree has {there!r} already, at {' > '.join(tree.path(there))}")
    parents = {**_parents(tree), **{node: above if p is None else p for node, p in added.items()}}
    return _edited(tree, parents, branch)


def graft_file(tree: WordTree, path: str | Path) -> Edited:
    """With the new leaves of a grafts file, `node TAB parent [TAB name [TAB gloss]]` each (grafts.py).

    A parent is a node of the tree, by anything that `tree.index` takes, or the node of another line. WordNet
    is not asked.

    Raises:
        TreeError: an unknown parent, an id that the tree has already, that is there twice or that is none, or
            a circle of lines; names file and line.
    """
    from wordtree.grafts import graft_lines

    lines = graft_lines(path)
    own = {graft.node for graft in lines.values()}
    added: dict[str, str | None] = {}
    for number, graft in lines.items():
        try:
            if graft.node in tree:
                raise TreeError(f"the tree has {graft.node!r} already")
            if graft.node in added:
                raise TreeError(f"{graft.node!r} was already placed below {added[graft.node]!r}")
            above = graft.hypernym
            added[graft.node] = above if above in own else tree.ids[tree.index(above)]
        except TreeError as error:
            raise TreeError(f"{path}:{number}: {error}") from error
    # Faults of the lines among themselves are told by line, so they are looked for before the tree comes in.
    place = {graft.node: f"{path}:{number}" for number, graft in lines.items()}
    preorder({node: above if above in own else None for node, above in added.items()}, place.__getitem__)
    grafts = list(lines.values())
    branch = WordTree(
        list(place),
        [-1] * len(grafts),
        [graft.name or graft.node for graft in grafts],
        [graft.gloss for graft in grafts],
        where=list(place.values()).__getitem__,
    )
    return _edited(tree, {**_parents(tree), **added}, branch)


def rename(
    tree: WordTree, names: Mapping[Node, str] | None = None, *, ids: Mapping[Node, str] | None = None
) -> Edited:
    """With other display names, or other ids, for some nodes; order and indices stay as they are.

    A node that was shown by its id is shown by the new one, unless `names` says otherwise. Other ids make
    another fingerprint: models made for the old tree have to be carried over, with the map that this gives.

    Raises:
        TreeError: an unknown node, one that is given two texts, or texts that are no names or ids.
    """
    new = {name: list(getattr(tree, name)) for name in ("ids", "names")}
    for k, text in _by_index(tree, ids).items():
        new["ids"][k] = text
        if tree.names[k] == tree.ids[k]:
            new["names"][k] = text
    for k, text in _by_index(tree, names).items():
        new["names"][k] = text
    hypernyms = tree.hypernyms
    if ids and hypernyms:
        called = dict(zip(tree.ids, new["ids"], strict=True))
        hypernyms = [[called.get(step, step) for step in row] for row in hypernyms]
    columns = {name: getattr(tree, name) for name in COLUMNS} | {"hypernyms": hypernyms}
    renamed = WordTree(new["ids"], tree.parents, new["names"], **columns, about=tree.about)
    return Edited(renamed, np.arange(len(tree), dtype=np.int64))


def _by_index(tree: WordTree, texts: Mapping[Node, str] | None) -> dict[int, str]:
    """A text for each of some nodes, which may be named in several ways."""
    found: dict[int, str] = {}
    for node, text in (texts or {}).items():
        k = tree.index(node)
        if found.setdefault(k, text) != text:
            raise TreeError(f"{tree.ids[k]!r} is to be both {found[k]!r} and {text!r}; leave one out")
    return found


def merge(tree: WordTree, other: WordTree, *, conflicts: str = "refuse") -> Merged:
    """The nodes of both trees; those of `other` alone hang below the parent they have there.

    Args:
        tree: its nodes keep parents, names and glosses.
        other: the second tree. A node of both adds its sources.
        conflicts: what to do with a node of both that has another parent in each: "refuse", or take the
            "first" tree's.

    Raises:
        TreeError: a conflict that is refused; names the nodes.
    """
    if conflicts not in ("refuse", "first"):
        raise TreeError(f'conflicts is "refuse" or "first", not {conflicts!r}')
    first, second = _parents(tree), _parents(other)
    torn = [node for node, parent in second.items() if node in first and first[node] != parent]
    if torn and conflicts == "refuse":
        shown = "; ".join(f"{n!r} is below {first[n]!r} and below {second[n]!r}" for n in torn[:3])
        raise TreeError(f"two places for {counted(len(torn), 'node')}: {shown}; or let the first tree decide")
    merged = _tree({**second, **first}, tree, other, order=[*first, *second])
    return Merged(merged, carry(tree, merged), carry(other, merged))


def tidy(
    tree: WordTree, labels: Iterable[Node] | None = None, *, contraction: bool = True, promotion: bool = True
) -> Edited:
    """As building from WordNet leaves a tree: no link with one child, no leaf without siblings.

    Args:
        tree: the tree.
        labels: what contraction keeps even with one child. Default: the nodes that have `sources`; the leaves
            if none has.
        contraction: whether nodes that are no label and have one child go.
        promotion: whether a leaf without siblings becomes its parent's sibling.
    """
    from wordtree.growth import contract, promote

    if labels is None:
        labels = [i for i, tags in enumerate(tree.sources or ()) if tags] or tree.leaves.tolist()
    _no_text("labels", labels)
    parents = _parents(tree)
    if contraction:
        parents = contract(parents, {tree.ids[tree.index(node)] for node in labels})
    if promotion:
        parents = promote(parents)
    return _edited(tree, parents)


def _no_text(what: str, value: object) -> None:
    if isinstance(value, str):
        raise TreeError(f"wanted a list of {what}, not the one text {value!r}")


def _parents(tree: WordTree) -> dict[str, str | None]:
    ids = tree.ids
    return {node: ids[p] if p >= 0 else None for node, p in zip(ids, tree.parents.tolist(), strict=True)}


def _edited(tree: WordTree, parents: Mapping[str, str | None], *others: WordTree) -> Edited:
    new = _tree(parents, tree, *others)
    return Edited(new, carry(tree, new))


def _tree(
    parents: Mapping[str, str | None], *donors: WordTree, order: Iterable[str] | None = None
) -> WordTree:
    """The tree of some parents; what is known of each node comes from the first of the trees that has it."""
    ids, indices = preorder(parents if order is None else {node: parents[node] for node in order})
    columns: dict[str, list[Any]] = {"names": []}
    columns |= {name: [] for name in COLUMNS if any(getattr(donor, name) for donor in donors)}
    for node in ids:
        having = [donor for donor in donors if node in donor]
        k = having[0].index(node)
        for name, column in columns.items():
            values = getattr(having[0], name)
            column.append(values[k] if values else _EMPTY[name])
        if len(having) > 1 and "sources" in columns:
            tags = (donor.sources[donor.index(node)] for donor in having if donor.sources)
            columns["sources"][-1] = tuple(sorted({tag for row in tags for tag in row}))
    if "hypernyms" in columns:  # an id that nothing leads to any more is no ancestor
        here = set(ids)
        columns["hypernyms"] = [
            row if not row or row[0] in here or p < 0 else ()
            for row, p in zip(columns["hypernyms"], indices, strict=True)
        ]
    about = {key: value for key, value in donors[0].about.items() if key not in _OF_THE_LAYOUT}
    return WordTree(ids, indices, **columns, about=about)
