"""Growing one tree out of WordNet's many hypernym paths, and pruning it: growth, contraction, promotion.

Not here: reading WordNet (wordnet.py) and which labels the default tree has (default.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tqdm import tqdm

from wordtree import wordnet
from wordtree.errors import TreeError
from wordtree.grafts import Graft, as_grafts, default_grafts
from wordtree.layout import preorder
from wordtree.tree import WordTree

# "physical entity": what has pictures. Itself it is left out, so that its children are the roots, as in 9k.
PHYSICAL_ENTITY = "n00001930"

# How the length of a path counts among equally cheap ones.
_TIES = {"alphabet": 0, "shortest": 1, "longest": -1}

Parents = dict[str, str | None]  # id -> id of its parent, None for a root


def build(
    labels: Iterable[str] | Mapping[str, Iterable[str]],
    *,
    root: str = PHYSICAL_ENTITY,
    grafts: Mapping[str, str] | Iterable[Graft] | None = None,
    ties: str = "alphabet",
    promotion: bool = True,
    progress: bool = False,
) -> WordTree:
    """Build the tree of some WordNet nouns. Needs WordNet 3.0; the order of the labels does not matter.

    As in YOLO9000 (Redmon and Farhadi 2016, section 4): labels with a single path to the root come first,
    then, one at a time, the path that grows the tree least. Then nodes that are no label and have one child
    are removed, and an only child that is a leaf becomes its parent's sibling, because a softmax over one
    says nothing. The last is in no paper but in Darknet's 9k.tree.

    Args:
        labels: WordNet ids ("n02084071") or synset names ("dog.n.01"), or ids of `grafts` that WordNet does
            not know; a mapping gives each its `tree.sources`.
        root: id of the synset whose hyponyms may be roots; itself never a node.
        grafts: id -> id of the hypernym to take in place of WordNet's, or what `read_grafts` gives. Default:
            wordtree/data/grafts.tsv.
        ties: which of a label's equally cheap paths is taken: the first in alphabetical order from the root
            down ("alphabet"), or the "shortest" or "longest", and only then the first.
        promotion: whether only leaves become siblings; without it ancestry is exactly WordNet's.
        progress: whether to show a bar on stderr.

    Returns:
        The tree with every column filled; siblings in the order of their ids, groups in pre-order.

    Raises:
        TreeError: no labels, no such noun, a label that is not below `root`, or no WordNet.
    """
    if isinstance(labels, str):
        raise TreeError(f"wanted a list of labels, not the one text {labels!r}")
    places = as_grafts(default_grafts() if grafts is None else grafts)
    tags = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, ("label",))
    sources: dict[str, tuple[str, ...]] = {}
    for label, tag in tqdm(tags.items(), "labels", disable=not progress):
        node = label if label in places else wordnet.wnid(wordnet.synset(label))
        sources[node] = tuple(sorted({*sources.get(node, ()), *tag}))
    if not sources:
        raise TreeError("a tree needs at least one label")
    paths = Paths(root, places)
    # The root has a path too, the empty one, but is no node.
    outside = sorted(n for n in tqdm(sources, "paths", disable=not progress) if not any(paths.of(n)))
    if outside:
        shown = ", ".join(f"{node} ({paths.name(node)})" for node in outside[:5])
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        raise TreeError(
            f"not below {wordnet.synset(root).name}: {shown}{more}; "
            "leave them out, graft them, or take another root"
        )
    grown = grow(sources, paths, ties, progress)
    parents = contract(grown, sources)
    if promotion:
        parents = promote(parents)
    return _tree(parents, grown, sources, places)


class Paths:
    """All hypernym paths of synsets down from one root, each as ids, the root left out."""

    def __init__(self, root: str, grafts: Mapping[str, str] | Mapping[str, Graft]) -> None:
        self._grafts = as_grafts(grafts)
        self._root = wordnet.wnid(wordnet.synset(root))
        self._known: dict[str, list[tuple[str, ...]]] = {self._root: [()]}

    def of(self, node: str) -> list[tuple[str, ...]]:
        """The paths to a node, itself last, in alphabetical order of synset names; [] if outside."""
        opened: dict[str, list[str]] = {}  # nodes whose paths are being looked for -> their hypernyms
        waiting = [node]
        while waiting:
            here = waiting[-1]
            if here in self._known:
                waiting.pop()
                continue
            if here not in opened:
                opened[here] = self.hypernyms(here)
            lacking = [above for above in opened[here] if above not in self._known]
            for above in lacking:
                if above in opened:
                    raise TreeError(
                        f"the hypernyms of {above} lead back to it; a graft hangs something below itself"
                    )
            waiting += lacking
            if not lacking:
                found = {(*path, here) for above in opened[here] for path in self._known[above]}
                self._known[here] = sorted(found, key=lambda path: [self.name(step) for step in path])
        return self._known[node]

    def hypernyms(self, node: str) -> list[str]:
        """What it is a kind of, by graft or by WordNet."""
        if node in self._grafts:
            return [self._grafts[node].hypernym]
        return [wordnet.wnid(hypernym) for hypernym in wordnet.hypernyms(wordnet.synset(node))]

    def name(self, node: str) -> str:
        """Its synset name; of a node that WordNet does not know its id."""
        return node if node in self._grafts and self._grafts[node].new else wordnet.synset(node).name


@dataclass(frozen=True)
class Choice:
    """How one label came into the tree, and with it the nodes of its path that were not there yet.

    cost: how many nodes that were. passed_over: the label's other paths with what each would have cost then.
    """

    label: str
    path: tuple[str, ...]
    cost: int
    passed_over: tuple[tuple[int, tuple[str, ...]], ...]


def grow(
    labels: Iterable[str],
    paths: Paths,
    ties: str = "alphabet",
    progress: bool = False,
    choices: dict[str, Choice] | None = None,
) -> Parents:
    """The union of one path per label, as parents.

    The cost of a path is the number of its nodes that the tree lacks. Of all labels the cheapest comes next,
    of equally cheap labels the one with the lowest id, of its equally cheap paths the first in alphabetical
    order from the root down: of all rules tried the one nearest to Darknet's 9k.tree (same parent for 9,406
    of 9,418 nodes).

    Args:
        labels: the nodes to reach.
        paths: their paths.
        ties: as in `build`.
        progress: whether to show a bar on stderr.
        choices: filled, if given, with node -> the choice that brought it.
    """
    if ties not in _TIES:
        raise TreeError(f"ties are broken by {', '.join(_TIES)}, not {ties!r}")
    sign = _TIES[ties]
    parents: Parents = {}
    waiting: dict[str, set[str]] = {}  # node that is not in the tree -> labels with a path through it
    heap: list[tuple[int, str]] = []

    def cost_of(path: tuple[str, ...]) -> int:
        return sum(node not in parents for node in path)

    def cheapest(label: str) -> tuple[int, tuple[str, ...]]:
        costs = ((cost_of(path), path) for path in paths.of(label))
        return min(costs, key=lambda c: (c[0], sign * len(c[1])))

    def add(label: str, path: tuple[str, ...]) -> None:
        if choices is not None:
            others = tuple((cost_of(other), other) for other in paths.of(label) if other != path)
            choice = Choice(label, path, cost_of(path), others)
        changed: set[str] = set()
        for k in reversed(range(len(path))):
            if path[k] in parents:
                break  # what is above it in the tree stays, even where this path came another way
            parents[path[k]] = path[k - 1] if k else None
            changed |= waiting.pop(path[k], set())
            if choices is not None:
                choices[path[k]] = choice
        for other in changed:
            if other not in parents:
                heapq.heappush(heap, (cheapest(other)[0], other))

    many = []
    for label in sorted(labels):
        if len(paths.of(label)) == 1:
            add(label, paths.of(label)[0])
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
            add(label, path)
    return parents


def _children(parents: Parents) -> dict[str | None, dict[str, None]]:
    children: dict[str | None, dict[str, None]] = {}  # dicts, because thousands of siblings come and go
    for node, parent in parents.items():
        children.setdefault(parent, {})[node] = None
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
        below = children.get(node, {})
        if node in labels or len(below) != 1:
            continue
        (child,) = below
        parents[child] = parent = parents.pop(node)
        del children[parent][node]
        children[parent][child] = None
    return parents


def promote(contracted: Parents) -> Parents:
    """Make every only child that is a leaf a sibling of its parent, from the bottom up."""
    parents = dict(contracted)
    children = _children(parents)
    for node in _bottom_up(contracted):
        below = children.get(node, {})
        if len(below) == 1 and not children.get(child := next(iter(below))):
            parents[child] = parents[node]
            children[parents[node]][child] = None
            children[node] = {}
    return parents


def _tree(
    parents: Parents, grown: Parents, sources: Mapping[str, tuple[str, ...]], grafts: Mapping[str, Graft]
) -> WordTree:
    ids, indices = preorder({node: parents[node] for node in sorted(parents)})
    own = {node: graft for node, graft in grafts.items() if graft.new}
    synsets = [None if node in own else wordnet.synset(node) for node in ids]
    words = [
        wordnet.words(of) if of else (own[node].name or node,) for node, of in zip(ids, synsets, strict=True)
    ]
    return WordTree(
        ids,
        indices,
        [first for first, *_ in words],
        [of.definition if of else own[node].gloss for node, of in zip(ids, synsets, strict=True)],
        synsets=[of.name if of else "" for of in synsets],
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
