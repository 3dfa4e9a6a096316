"""Why a node is in a tree: whose label, which path was taken and passed over, what was left out around it.

Sources, contraction and promotion are in the tree itself; paths that were passed over need WordNet, and the
tree is grown once more. Not here: the rules (growth.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from wordtree import wordnet
from wordtree.errors import TreeError
from wordtree.grafts import Graft, as_grafts, default_grafts
from wordtree.growth import PHYSICAL_ENTITY, Choice, Paths, grow
from wordtree.tree import Node, WordTree
from wordtree.words import counted


@dataclass(frozen=True)
class Why:
    """Why one node is where it is; all nodes are ids.

    sources: whose label it is, () if it only holds others together or was added to the tree.
    path: the hypernym path it was grown along, itself last.
    contracted_above: the steps of that path between its parent and itself that the tree leaves out.
    contracted_below: child -> what was left out between the two.
    promoted_from: the node it was the only child of and stands beside now, None if there is none.
    promoted: what was its only child and stands beside it now.
    graft: the hypernym that somebody chose for it in place of WordNet's.
    choice: the label that brought it, that label's path, its cost and the paths passed over; None if it
        cannot be told, and `untold` says why.
    """

    node: str
    sources: tuple[str, ...]
    path: tuple[str, ...]
    contracted_above: tuple[str, ...]
    contracted_below: Mapping[str, tuple[str, ...]]
    promoted_from: str | None
    promoted: tuple[str, ...]
    graft: str | None
    choice: Choice | None
    untold: str = ""


def why(tree: WordTree, node: Node, grafts: Mapping[str, str] | Mapping[str, Graft] | None = None) -> Why:
    """Why a node of a tree that `build` made is there.

    Args:
        tree: the tree, with its sources and hypernyms.
        node: which node.
        grafts: those it was built with; default: the committed ones.
    """
    if tree.hypernyms is None or tree.sources is None:
        raise TreeError("the tree does not say how it was grown; `wordtree build` makes trees that do")
    grafts = default_grafts() if grafts is None else grafts
    k = tree.index(node)
    path = tree.hypernym_path(k)
    former, left_out = _link(tree, k)
    choice, untold = None, ""
    try:
        places = as_grafts(grafts)
        found = _choices(tree, tuple(places.values())).get(tree.ids[k])
        if found is not None and found[1] == path:
            choice = found[0]
        else:
            untold = "this tree was grown by other rules or grafts"
        graft = places[tree.ids[k]].hypernym if tree.ids[k] in places else None
    except TreeError as error:
        untold, graft = str(error), None
    links = {i: _link(tree, i) for i in (*tree.children(k), *tree.siblings(k))}
    return Why(
        node=tree.ids[k],
        sources=tree.sources[k],
        path=path,
        contracted_above=left_out,
        contracted_below={
            tree.ids[i]: links[i][1] for i in tree.children(k) if links[i][1] and not links[i][0]
        },
        promoted_from=former,
        promoted=tuple(tree.ids[i] for i in tree.siblings(k) if links[i][0] == tree.ids[k]),
        graft=graft if graft is not None and graft in path else None,
        choice=choice,
        untold=untold,
    )


def _link(tree: WordTree, k: int) -> tuple[str | None, tuple[str, ...]]:
    """The node it was promoted from, if any, and the ids left out between it and what is above it."""
    row, parent = tree.hypernyms[k], tree.parent(k)
    if not row:
        return None, ()
    if row[0] not in tree:
        return None, row
    return (None if parent >= 0 and row[0] == tree.ids[parent] else row[0]), row[1:]


@lru_cache(maxsize=1)
def _choices(tree: WordTree, grafts: tuple[Graft, ...]) -> dict[str, tuple[Choice, tuple[str, ...]]]:
    """Per node the choice that brought it and its path, from growing the tree again."""
    paths = Paths(PHYSICAL_ENTITY, {graft.node: graft for graft in grafts})
    labels = [node for node, tags in zip(tree.ids, tree.sources, strict=True) if tags]
    if any(not paths.of(label) for label in labels):
        raise TreeError("the tree has labels that are not below physical entity")
    choices: dict[str, Choice] = {}
    parents = grow(labels, paths, choices=choices)
    found = {}
    for node, choice in choices.items():
        path, above = [], node
        while above is not None:
            path.append(above)
            above = parents[above]
        found[node] = (choice, tuple(reversed(path)))
    return found


def lines(tree: WordTree, found: Why) -> list[str]:
    """What `why` found, as text for people."""

    def say(steps: tuple[str, ...]) -> str:
        return " > ".join(_name(tree, step) for step in steps)

    said = [tree.lookup.line(tree.index(found.node))]
    if found.sources:
        said.append(f"label of {', '.join(found.sources)}")
    elif below := tree.children(found.node):
        said.append(f"no label: it holds {counted(len(below), 'other')} together")
    else:
        said.append("no list names it")
    if found.graft:
        said.append(f"grafted below {_name(tree, found.graft)} by hand")
    said.append(f"path: {say(found.path)}")
    choice = found.choice
    if choice is None:
        said.append(f"which paths were passed over cannot be told: {found.untold}")
    else:
        if choice.label != found.node:
            said.append(f"came with the label {_name(tree, choice.label)}, by {say(choice.path)}")
        said.append(
            f"that path added {counted(choice.cost, 'node')}"
            if choice.passed_over
            else "there is no other path"
        )
        said += [f"passed over, {counted(cost, 'node')}: {say(path)}" for cost, path in choice.passed_over]
    if found.contracted_above:
        said.append(f"contracted above it: {say(found.contracted_above)}")
    for child, steps in found.contracted_below.items():
        said.append(f"contracted below it, above {_name(tree, child)}: {say(steps)}")
    if found.promoted_from:
        said.append(f"promoted: was the only child of {_name(tree, found.promoted_from)}, now beside it")
    if found.promoted:
        said.append(
            f"its only child stands beside it now: {', '.join(_name(tree, n) for n in found.promoted)}"
        )
    return said


def _name(tree: WordTree, node: str) -> str:
    if node in tree:
        return tree.names[tree.index(node)]
    try:
        return f"({wordnet.words(wordnet.synset(node))[0]})"  # in brackets: not in the tree
    except TreeError:
        return f"({node})"
