"""The tree itself: identity by id, flat arrays inside, and the questions one asks of it. Immutable.

Not here: the rules and arrays of a tree (layout.py), files (darknet.py, treefile.py), finding a node by what
people call it (lookup.py), growing a tree out of WordNet (growth.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from wordtree.errors import TreeError
from wordtree.layout import arrays, check_ids, check_parents, rows, texts
from wordtree.words import counted

if TYPE_CHECKING:
    import networkx

    from wordtree.lookup import Lookup

Node = int | str  # an index, or any text that `WordTree.index` takes

# Node data a tree may carry beside its names; all are tuples as long as the tree, or None.
COLUMNS = ("glosses", "synsets", "synonyms", "sources", "hypernyms")


class WordTree:
    """A forest of nodes whose siblings lie side by side; a node's index is its class index.

    Args:
        ids: one per node, unique, not blank (WordNet ids such as "n02084071", or anything else).
        parents: index of each node's parent, -1 for a root. A parent comes before its children
            (parents[i] < i) and the children of one node are contiguous, as are the roots.
        names: what to show to people; need not be unique. Default: the ids.
        glosses: one definition per node.
        synsets: WordNet's own names, "dog.n.01".
        synonyms: per node a tuple of further words for it.
        sources: per node a tuple of tags that say whose label it is ("imagenet", "coco", ...); () for a
            node that only holds others together, or was added by hand.
        hypernyms: per node how WordNet gets to it, where that is not its parent alone: ids from the nearest
            node of this tree that is above it there (or from the top) down to its own hypernym; see
            `hypernym_path`.
        about: free JSON-able facts about the tree as a whole.

    Raises:
        TreeError: names the first node that breaks one of these rules.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: np.ndarray  # (n,) int64
    group_of: np.ndarray  # (n,) int64, sibling group of each node
    group_starts: np.ndarray  # (G+1,) int64: group g is the nodes group_starts[g]:group_starts[g+1]
    group_parent: np.ndarray  # (G,) int64, -1 for the roots, which are group 0
    child_group: np.ndarray  # (n,) int64, the group of a node's children, -1 for a leaf
    depths: np.ndarray  # (n,) int64, roots have 0
    glosses: tuple[str, ...] | None
    synsets: tuple[str, ...] | None
    synonyms: tuple[tuple[str, ...], ...] | None
    sources: tuple[tuple[str, ...], ...] | None
    hypernyms: tuple[tuple[str, ...], ...] | None
    about: Mapping[str, Any]

    def __init__(
        self,
        ids: Iterable[str],
        parents: Iterable[int],
        names: Iterable[str] | None = None,
        glosses: Iterable[str] | None = None,
        *,
        synsets: Iterable[str] | None = None,
        synonyms: Iterable[Iterable[str]] | None = None,
        sources: Iterable[Iterable[str]] | None = None,
        hypernyms: Iterable[Iterable[str]] | None = None,
        about: Mapping[str, Any] | None = None,
        where: Callable[[int], str] | None = None,
    ) -> None:
        where = where or (lambda i: f"node {i}")
        ids = tuple(ids)
        index = check_ids(ids, where)
        flat = arrays(check_parents(parents, ids, where), ids, where)
        for array in flat.values():
            array.setflags(write=False)
        n = len(ids)
        self.__dict__.update(
            flat,
            ids=ids,
            names=ids if names is None else texts("names", names, n, where, may_be_empty=False),
            glosses=None if glosses is None else texts("glosses", glosses, n, where),
            synsets=None if synsets is None else texts("synsets", synsets, n, where),
            synonyms=rows("synonyms", synonyms, n, where),
            sources=rows("sources", sources, n, where),
            hypernyms=rows("hypernyms", hypernyms, n, where),
            about=MappingProxyType(dict(about or {})),
            _index=index,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a WordTree cannot be changed; make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a WordTree cannot be changed; make another one")

    # -- where trees come from and go to ---------------------------------------------------------------------

    @classmethod
    def default(cls) -> WordTree:
        """The 9,418-node tree in the package, loaded once. Needs no WordNet."""
        from wordtree.treefile import default

        return default()

    @classmethod
    def load(cls, path: str | Path) -> WordTree:
        """Read a tree that `save` wrote, or another hierarchy, told by its name and keys.

        Darknet's .tree with the .names beside it, a .csv or .tsv of edges or ranks, .graphml, nested JSON, or
        a folder of folders. A hierarchy is kept as it is; `wordtree.tidy` contracts and promotes. TreeError
        names the file and what is wrong with it.
        """
        from wordtree.treefile import load

        return load(path)

    def save(self, path: str | Path) -> None:
        """Write the tree as JSON, gzipped where the name ends in .gz. An older file is replaced whole."""
        from wordtree.treefile import save

        save(self, path)

    def to_dict(self) -> dict[str, Any]:
        """The tree as JSON-able columns, for embedding in other files."""
        from wordtree.treefile import to_dict

        return to_dict(self)

    @classmethod
    def from_dict(cls, columns: Mapping[str, Any]) -> WordTree:
        """The inverse of `to_dict`; TreeError on anything it did not write."""
        from wordtree.treefile import from_dict

        return from_dict(columns)

    @classmethod
    def from_darknet(
        cls, tree: str | Path, names: str | Path | None = None, labels: str | Path | None = None
    ) -> WordTree:
        """Read Darknet's .tree file and, if given, the .names and .labels beside it; see darknet.read."""
        from wordtree.darknet import read

        return read(tree, names, labels)

    def to_darknet(self, folder: str | Path, stem: str = "wordtree") -> tuple[Path, Path, Path]:
        """Write <stem>.tree, <stem>.names and <stem>.labels into `folder`; returns their paths."""
        from wordtree.darknet import write

        return write(self, folder, stem)

    @classmethod
    def from_networkx(cls, graph: networkx.DiGraph) -> WordTree:
        """The tree of a directed graph without cycles; of several parents growth picks one: graphs.py."""
        from wordtree.graphs import from_networkx

        return from_networkx(graph)

    @classmethod
    def flat(cls, names: Iterable[str], ids: Iterable[str] | None = None) -> WordTree:
        """A plain class list as a tree: all are roots of one group, so one softmax runs over them all."""
        if isinstance(names, str):
            raise TreeError(f"wanted a list of class names, not the one text {names!r}")
        names = tuple(names)
        return cls(names if ids is None else ids, [-1] * len(names), names)

    def to_networkx(self) -> networkx.DiGraph:
        """A DiGraph of ids, edges from parent to child; node attributes `index` and `name`."""
        import networkx

        graph = networkx.DiGraph()
        for i, node in enumerate(self.ids):
            graph.add_node(node, index=i, name=self.names[i])
        graph.add_edges_from((self.ids[p], self.ids[i]) for i, p in enumerate(self._parents) if p >= 0)
        return graph

    # -- the whole tree --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        """Same ids, parents and names in the same order. `fingerprint` says if two trees fit one model."""
        if not isinstance(other, WordTree):
            return NotImplemented
        return self.fingerprint == other.fingerprint and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        nodes, groups = counted(len(self), "node"), counted(len(self.group_parent), "group")
        return f"WordTree({nodes}, {groups}, {self.fingerprint[:12]})"

    def __reduce__(self):
        return type(self).from_dict, (self.to_dict(),)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids and parents: that of the tree's Darknet .tree file. Names do not matter."""
        text = "".join(map("{} {}\n".format, self.ids, self._parents))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def leaves(self) -> np.ndarray:
        """Indices of the nodes without children, ascending, int64."""
        leaves = np.flatnonzero(self.child_group < 0)
        leaves.setflags(write=False)
        return leaves

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """Indices of the roots: always 0 .. r-1."""
        return tuple(range(int(self.group_starts[1])))

    # -- one node --------------------------------------------------------------------------------------------

    def index(self, node: Node) -> int:
        """Index of a node given as index, id, synset name ("dog.n.01"), unique name or unique synonym.

        Raises:
            TreeError: nothing, or more than one node, goes by that name; the message lists the candidates.
        """
        if isinstance(node, str):
            found = self._index.get(node)
            return self.lookup.find(node) if found is None else found
        if isinstance(node, bool | np.bool_) or not isinstance(node, int | np.integer):
            raise TreeError(f"a node is an index or a text, not {type(node).__name__} {node!r}")
        if not 0 <= node < len(self):
            raise TreeError(f"there is no node {node}: the tree has the nodes 0 to {len(self) - 1}")
        return int(node)

    def __contains__(self, node: object) -> bool:
        """Whether `node` is the id or the index of a node (names may be ambiguous: ask `index`)."""
        if isinstance(node, str):
            return node in self._index
        return isinstance(node, int | np.integer) and not isinstance(node, bool) and 0 <= node < len(self)

    def search(self, text: str, limit: int | None = None) -> tuple[int, ...]:
        """Nodes whose name, synonym, synset name or id contains `text`; the closest match first."""
        return self.lookup.search(text, limit)

    def path(self, node: Node) -> tuple[str, ...]:
        """Ids from the root down to the node itself."""
        return tuple(self.ids[i] for i in self.path_nodes(node))

    def path_nodes(self, node: Node) -> tuple[int, ...]:
        """Indices from the root down to the node itself."""
        k = self.index(node)
        path = [k]
        while (k := self._parents[k]) >= 0:
            path.append(k)
        return tuple(reversed(path))

    def hypernym_path(self, node: Node) -> tuple[str, ...]:
        """The WordNet path the node was grown along, itself last: `path` and the ids that the tree left out.

        A promoted node has its former parent on this path, though in the tree the two are siblings.
        """
        node = self.ids[self.index(node)]
        found: list[str] = []
        while node is not None:
            if node in found:
                raise TreeError(
                    f"the hypernyms of {node!r} go round in a circle; the tree's file was made wrongly"
                )
            found.append(node)
            k = self._index[node]
            row = self.hypernyms[k] if self.hypernyms else ()
            if not row:
                parent = self._parents[k]
                node = self.ids[parent] if parent >= 0 else None
            elif row[0] in self._index:
                found += reversed(row[1:])
                node = row[0]
            else:
                found += reversed(row)
                node = None
        return tuple(reversed(found))

    def parent(self, node: Node) -> int:
        """Index of the parent, -1 for a root."""
        return self._parents[self.index(node)]

    def children(self, node: Node) -> tuple[int, ...]:
        """Indices of the children, () for a leaf."""
        group = int(self.child_group[self.index(node)])
        return () if group < 0 else self.group(group)

    def siblings(self, node: Node) -> tuple[int, ...]:
        """Indices of the other members of the node's sibling group."""
        k = self.index(node)
        return tuple(i for i in self.group(int(self.group_of[k])) if i != k)

    def group(self, group: int) -> tuple[int, ...]:
        """Indices of all members of a sibling group."""
        return tuple(range(int(self.group_starts[group]), int(self.group_starts[group + 1])))

    def ancestors(self, node: Node) -> tuple[int, ...]:
        """Indices of the nodes above it, root first, without itself."""
        return self.path_nodes(node)[:-1]

    def descendants(self, node: Node) -> tuple[int, ...]:
        """Indices of all nodes below it, ascending, without itself."""
        found: list[int] = []
        waiting = [self.index(node)]
        while waiting:
            below = self.children(waiting.pop())
            found += below
            waiting += below
        return tuple(sorted(found))

    def depth(self, node: Node) -> int:
        """Edges between the node and its root."""
        return int(self.depths[self.index(node)])

    def lca(self, a: Node, b: Node) -> int | None:
        """Index of the lowest node on both paths (`a` if `b` is below it); None under different roots."""
        a, b, parents = self.index(a), self.index(b), self._parents
        while a != b:  # a parent's index is the smaller: the node of the larger one is not above the other
            if a > b:
                a = parents[a]
            else:
                b = parents[b]
        return None if a < 0 else a

    def is_ancestor(self, a: Node, b: Node) -> bool:
        """Whether `a` is `b` or lies above it."""
        a, b = self.index(a), self.index(b)
        while b > a:
            b = self._parents[b]
        return a == b

    # -- inside ----------------------------------------------------------------------------------------------

    @cached_property
    def _parents(self) -> list[int]:
        return self.parents.tolist()  # walking up a list is ten times faster than up an array

    @cached_property
    def lookup(self) -> Lookup:
        """What people call the nodes."""
        from wordtree.lookup import Lookup

        return Lookup(self)
