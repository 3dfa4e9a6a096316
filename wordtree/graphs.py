"""Trees out of graphs: networkx, GraphML, and any table in which a node may have several parents.

Several parents are resolved as in building from WordNet: the path that grows the tree least. Every node is
kept. Not here: WordNet (growth.py) and the text forms that end in `from_parents` (nested.py, tables.py).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wordtree.errors import TreeError, TreeWarning
from wordtree.files import read_whole, write_whole
from wordtree.growth import Paths, grow
from wordtree.layout import Place, at, preorder
from wordtree.tree import WordTree

if TYPE_CHECKING:
    import networkx

# A graph in which every node has two parents doubles its paths at each level. So many steps are about 200 MB.
MOST_STEPS = 20_000_000

_SHOWN = 5  # nodes with several parents that are named

# What XML 1.0 cannot hold, in no spelling.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def from_parents(
    parents: Mapping[str, Sequence[str]],
    names: Mapping[str, str] | None = None,
    glosses: Mapping[str, str] | None = None,
    place: Place | None = None,
    where: str = "the hierarchy",
) -> WordTree:
    """The tree of a hierarchy: node -> its parents, () for a root; siblings keep this order.

    Where a node has several parents, growth decides (growth.grow, all nodes being labels): nodes with one
    path to a root come first, then the path that adds the fewest nodes, then the alphabetically first. A
    TreeWarning says which parents were passed over, as they may be those of another thing of that name.
    Messages about a node begin with its `place`, if given; the warning else with `where`.

    Raises:
        TreeError: a parent that is no node, a cycle, or paths of over 20 million steps in all.
    """
    if any(len(above) > 1 for above in parents.values()):
        single = _resolve(parents, place)
        _warn(parents, single, place or (lambda node: where))
    else:
        single = {node: above[0] if above else None for node, above in parents.items()}
    ids, indices = preorder(single, place)
    return WordTree(
        ids,
        indices,
        [names.get(node) or node for node in ids] if names else None,
        [glosses.get(node, "") for node in ids] if glosses else None,
        where=place and (lambda i: place(ids[i])),
    )


def _resolve(parents: Mapping[str, Sequence[str]], place: Place | None) -> dict[str, str | None]:
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(parents)
    for node, above in parents.items():
        for parent in above:
            if parent not in parents:
                raise TreeError(f"{at(place, node)}{node!r} has the parent {parent!r}, which is no node")
            graph.add_edge(parent, node)
    try:
        order = list(networkx.lexicographical_topological_sort(graph))
    except networkx.NetworkXUnfeasible:
        circle = [a for a, _ in networkx.find_cycle(graph)]
        raise TreeError(
            f"{at(place, circle[0])}a cycle through {', '.join(map(repr, circle[:5]))}: "
            "each lies below the other"
        ) from None
    counts: dict[str, int] = {}  # paths to each node, and their steps together
    steps: dict[str, int] = {}
    for node in order:
        counts[node] = sum(counts[parent] for parent in set(parents[node])) or 1
        steps[node] = sum(steps[parent] for parent in set(parents[node])) + counts[node]
    if sum(steps.values()) > MOST_STEPS:
        worst = max(steps, key=steps.get)
        raise TreeError(
            f"{at(place, worst)}paths of over {MOST_STEPS:,} steps from the roots "
            f"({counts[worst]:,} paths to {worst!r} alone); give more nodes one parent"
        )
    grown = grow(parents, _GraphPaths(parents))
    return {node: grown[node] for node in parents}


def _warn(parents: Mapping[str, Sequence[str]], taken: Mapping[str, str | None], place: Place) -> None:
    """Of nodes with several parents, which was taken and which were not."""
    others = {node: [p for p in dict.fromkeys(parents[node]) if p != taken[node]] for node in parents}
    said = [
        f"{place(node)}: {node!r} has {len(rest) + 1} parents; {taken[node]!r} was taken, not "
        + ", ".join(map(repr, rest))
        for node, rest in others.items()
        if rest
    ]
    if said:
        more = [f"and {len(said) - _SHOWN:,} more"] if len(said) > _SHOWN else []
        advice = "two things of one name need two ids, and edges lead from parent to child"
        warnings.warn("\n".join([*said[:_SHOWN], *more, advice]), TreeWarning, stacklevel=3)


class _GraphPaths(Paths):
    """Paths of a graph; "" stands above its roots."""

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        self._known, self._parents = {"": [()]}, parents

    def hypernyms(self, node: str) -> list[str]:
        return list(self._parents[node]) or [""]

    def name(self, node: str) -> str:
        return node


def from_networkx(graph: networkx.DiGraph, where: str = "the graph") -> WordTree:
    """The tree of a directed graph without cycles, edges from parent to child.

    Node attributes `name`, or else `label`, and `gloss` are kept; siblings come in the order of the graph's
    nodes. `where`: what to call it in warnings (`from_parents`).
    """
    if not graph.is_directed():
        raise TreeError("the graph has no directions; wanted edges from parent to child")
    ids = {node: str(node) for node in graph}
    if len(set(ids.values())) < len(ids):
        raise TreeError("two nodes of the graph are the same as text")
    data = dict(graph.nodes(data=True))
    called = "name" if any("name" in facts for facts in data.values()) else "label"
    names, glosses = (  # None and NaN, which tables have for none, are not taken for words
        {ids[node]: str(facts[key]) for node, facts in data.items() if isinstance(facts.get(key), str | int)}
        for key in (called, "gloss")
    )
    parents = {ids[node]: [ids[above] for above in dict.fromkeys(graph.predecessors(node))] for node in graph}
    return from_parents(parents, names, glosses, where=where)


def read_graphml(path: str | Path) -> WordTree:
    """Read a GraphML file, edges from parent to child; see `from_networkx`."""
    import networkx

    data = read_whole(path)
    try:
        graph = networkx.read_graphml(io.BytesIO(data))
    except Exception as error:  # of the XML parser or whatever networkx runs into
        raise TreeError(f"{path}: not GraphML ({type(error).__name__}: {error})") from error
    try:
        return from_networkx(graph, str(path))
    except TreeError as error:
        raise TreeError(f"{path}: {error}") from error


def write_graphml(tree: WordTree, path: str | Path) -> None:
    """Write ids, names and glosses as GraphML. TreeError on a character that XML cannot hold."""
    import networkx

    for what, texts in (("name", tree.names), ("gloss", tree.glosses or ())):
        for node, text in zip(tree.ids, texts, strict=False):
            if found := _NO_XML.search(text):
                raise TreeError(
                    f"{path}: the {what} of {node!r} holds {found[0]!r}, which XML cannot; "
                    "change it, or take another form"
                )
    graph = tree.to_networkx()
    for i, node in enumerate(tree.ids):
        if tree.glosses:
            graph.nodes[node]["gloss"] = tree.glosses[i]
    stream = io.BytesIO()
    networkx.write_graphml_xml(graph, stream)
    write_whole(path, stream.getvalue())
