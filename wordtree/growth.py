"""Growing one tree out of WordNet's many hypernym paths, and pruning it: growth, contraction, promotion.

Not here: reading WordNet (wordnet.py) and which labels the default tree has (default.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from tqdm import tqdm

from wordtree import wordnet
from wordtree.classes import table
from wordtree.errors import TreeError
from wordtree.tree import WordTree

# "physical entity": what has pictures. Itself it is left out, so that its children are the roots, as in 9k.
PHYSICAL_ENTITY = "n00001930"

Parents = dict[str, str | None]  # id -> id of its parent, None for a root


def build(
    labels: Iterable[str] | Mapping[str, Iterable[str]],
    *,
    root: str = PHYSICAL_ENTITY,
    grafts: Mapping[str, str] | None = None,
    promotion: bool = True,
    progress: bool = False,
) -> WordTree:
    """Build the tree of some WordNet nouns. Needs WordNet 3.0; the order of the labels does not matter.

    As in YOLO9000 (Redmon and Farhadi 2016, section 4): labels with a single path to the root come first,
    then, one at a time, the path that grows the tree least. Then nodes that are no label and have one child
    are removed, and an only child that is a leaf becomes its parent's sibling, because a softmax over one
    says nothing. The last is in no paper but in Darknet's 9k.tree.

    Args:
        labels: WordNet ids ("n02084071") or synset names ("dog.n.01"); a mapping gives each its
            `tree.sources`.
        root: id of the synset whose hyponyms may be roots; itself never a node.
        grafts: id -> id of the hypernym to take in place of WordNet's. Default: wordtree/data/grafts.tsv.
        promotion: whether only leaves become siblings; without it ancestry is exactly WordNet's.
        progress: whether to show a bar on stderr.

    Returns:
        The tree with every column filled; siblings in the order of their ids, groups in pre-order.

    Raises:
        TreeError: no labels, no such noun, a label that is not below `root`, or no WordNet.
    """
    if isinstance(labels, str):
        raise TreeError(f"wanted a list of labels, not the one text {labels!r}")
    tags = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, ("label",))
    sources: dict[str, tuple[str, ...]] = {}
    for label, tag in tqdm(tags.items(), "labels", disable=not progress):
        node = wordnet.wnid(wordnet.synset(label))
        sources[node] = tuple(sorted({*sources.get(node, ()), *tag}))
    if not sources:
        raise TreeError("a tree needs at least one label")
    paths = Paths(root, default_grafts() if grafts is None else grafts)
    # The root has a path too, the empty one, but is no node.
    outside = sorted(n for n in tqdm(sources, "paths", disable=not progress) if not any(paths.of(n)))
    if outside:
        shown = ", ".join(f"{node} ({wordnet.synset(node).name()})" for node in outside[:5])
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        raise TreeError(
            f"not below {wordnet.synset(root).name()}: {shown}{more}; "
            "leave them out, graft them, or take another root"
        )
    grown = grow(sources, paths, progress)
    parents = contract(grown, sources)
    if promotion:
        parents = promote(parents)
    return _tree(parents, grown, sources)


def default_grafts() -> dict[str, str]:
    """The committed grafts: id -> hypernym."""
    return {node: hypernym for node, hypernym, _ in table("grafts.tsv", 3)}


class Paths:
    """All hypernym paths of synsets down from one root, each as ids, the root left out."""

    def __init__(self, root: str, grafts: Mapping[str, str]) -> None:
        self._grafts = grafts
        self._root = wordnet.wnid(wordnet.synset(root))
        self._known: dict[str, list[tuple[str, ...]]] = {self._root: [()]}
        self._names: dict[str, str] = {}
        self._open: set[str] = set()  # nodes whose paths are being looked for: a circle comes back to one

    def of(self, node: str) -> list[tuple[str, ...]]:
        """The paths to a node, itself last, in alphabetical order of synset names; [] if outside."""
        if node in self._open:
            raise TreeError(f"the hypernyms of {node} lead back to it; a graft hangs something below itself")
        if node not in self._known:
            self._open.add(node)
            found = {(*path, node) for hypernym in self._hypernyms(node) for path in self.of(hypernym)}
            self._known[node] = sorted(found, key=lambda path: [self._name(step) for step in path])
            self._open.discard(node)
        return self._known[node]

    def _hypernyms(self, node: str) -> list[str]:
        if node in self._grafts:
            return [self._grafts[node]]
        return [wordnet.wnid(hypernym) for hypernym in wordnet.hypernyms(wordnet.synset(node))]

    def _name(self, node: str) -> str:
        if node not in self._names:
            self._names[node] = wordnet.synset(node).name()
        return self._names[node]


def grow(labels: Iterable[str], paths: Paths, progress: bool = False) -> Parents:
    """The union of one path per label, as parents.

    The cost of a path is the number of its nodes that the tree lacks. Of all labels the cheapest comes next,
    of equally cheap labels the one with the lowest id, of its equally cheap paths the first in alphabetical
    order from the root down: of all rules tried the one nearest to Darknet's 9k.tree (same parent for 9,406
    of 9,418 nodes).
    """
    parents: Parents = {}
    waiting: dict[str, set[str]] = {}  # node that is not in the tree -> labels with a path through it
    heap: list[tuple[int, str]] = []

    def cheapest(label: str) -> tuple[int, tuple[str, ...]]:
        return min(
            ((sum(node not in parents for node in path), path) for path in paths.of(label)),
            key=lambda c: c[0],
        )

    def add(path: tuple[str, ...]) -> None:
        changed: set[str] = set()
        for k in reversed(range(len(path))):
            if path[k] in parents:
                break  # what is above it in the tree stays, even where this path came another way
            parents[path[k]] = path[k - 1] if k else None
            changed |= waiting.pop(path[k], set())
        for label in changed:
            if label not in parents:
                heapq.heappush(heap, (cheapest(label)[0], label))

    many = []
    for label in sorted(labels):
        if len(paths.of(label)) == 1:
            add(paths.of(label)[0])
        else:
            many.append(label)
    for label in tqdm(many, "growing", disable=not progress):
        for path in paths.of(label):
            for node in path:
                if node not in parents:
                    waiting.setdefault(node, set()).add(label)
        heapq.heappush(heap, (cheapest(label)[0], label))
    while heap:
        cost, label = heapq.heappop(heap)
        if label in parents:
            continue
        now, path = cheapest(label)
        if now == cost:  # else a cheaper entry of the same label has been pushed since
            add(path)
    return parents


def _children(parents: Parents) -> dict[str | None, list[str]]:
    children: dict[str | None, list[str]] = {}
    for node, parent in parents.items():
        children.setdefault(parent, []).append(node)
    return children


def _bottom_up(parents: Parents) -> list[str]:
    """All nodes, each before its parent."""
    children = _children(parents)
    order = list(children.get(None, ()))
    for node in order:
        order += children.get(node, ())
    return order[::-1]


def contract(grown: Parents, labels: Iterable[str]) -> Parents:
    """Remove every node that is no label and has one child; the child takes its place."""
    parents, labels = dict(grown), set(labels)
    children = _children(parents)
    for node in _bottom_up(grown):
        below = children.get(node, [])
        if node in labels or len(below) != 1:
            continue
        parent = parents.pop(node)
        parents[below[0]] = parent
        siblings = children[parent]
        siblings[siblings.index(node)] = below[0]
    return parents


def promote(contracted: Parents) -> Parents:
    """Make every only child that is a leaf a sibling of its parent, from the bottom up."""
    parents = dict(contracted)
    children = _children(parents)
    for node in _bottom_up(contracted):
        below = children.get(node, [])
        if len(below) == 1 and not children.get(below[0]):
            parents[below[0]] = parents[node]
            children[parents[node]].append(below[0])
            children[node] = []
    return parents


def _tree(parents: Parents, grown: Parents, sources: Mapping[str, tuple[str, ...]]) -> WordTree:
    children = _children(parents)
    ids: list[str] = []
    waiting: list[str | None] = [None]  # parents whose children come next: a pre-order walk over groups
    while waiting:
        group = sorted(children.get(waiting.pop(), ()))
        ids += group
        waiting += reversed(group)
    index = {node: i for i, node in enumerate(ids)}
    synsets = [wordnet.synset(node) for node in ids]
    words = [wordnet.words(synset) for synset in synsets]
    return WordTree(
        ids,
        [-1 if parents[node] is None else index[parents[node]] for node in ids],
        [first for first, *_ in words],
        [synset.definition() for synset in synsets],
        synsets=[synset.name() for synset in synsets],
        synonyms=[others for _, *others in words],
        sources=[sources.get(node, ()) for node in ids],
        hypernyms=[_between(node, parents, grown) for node in ids],
    )


def _between(node: str, parents: Parents, grown: Parents) -> list[str]:
    """The grown path from the nearest node that was kept down to the hypernym; [] if just the parent."""
    steps: list[str] = []
    above = grown[node]
    while above is not None:
        steps.append(above)
        if above in parents:
            break
        above = grown[above]
    return [] if steps == [parents[node]] else steps[::-1]
