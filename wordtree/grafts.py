"""Places that somebody chose: hypernyms that replace WordNet's, and labels that WordNet does not know.

Not here: growing a tree with them (growth.py), and adding a node to a finished tree (edit.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wordtree import wordnet
from wordtree.classes import table
from wordtree.errors import TreeError
from wordtree.files import read_lines

# What looks like WordNet's own and is not there is a slip of the pen, no label of one's own.
_WORDNETS = re.compile(r"n[0-9]{8}|.+\.[nvasr]\.[0-9]+")


@dataclass(frozen=True)
class Graft:
    """One node below a hypernym of somebody's choice.

    node, hypernym: WordNet ids, or ids of one's own. new: whether WordNet does not know the node; then `name`
    (default: the id) and `gloss` are what the tree says of it.
    """

    node: str
    hypernym: str
    name: str = ""
    gloss: str = ""
    new: bool = False


def read_grafts(path: str | Path) -> dict[str, Graft]:
    """Read a grafts file: a line `node TAB hypernym [TAB name [TAB gloss]]` each; # starts a remark.

    A node that WordNet knows (n02084071, dog.n.01) is moved below the hypernym; any other is a label of one's
    own. The hypernym is WordNet's, or the node of another line.

    Raises:
        TreeError: names file and line.
    """
    lines = graft_lines(path)
    return as_grafts(lines.values(), [f"{path}:{number}: " for number in lines])


def graft_lines(path: str | Path) -> dict[int, Graft]:
    """The lines of a grafts file by their number, as they stand: no node is looked up anywhere.

    Raises:
        TreeError: names file and line.
    """
    grafts = {}
    for number, line in enumerate(read_lines(path, marked=True), 1):
        if line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        if not 2 <= len(fields) <= 4 or not all(fields[:2]):
            raise TreeError(
                f"{path}:{number}: wanted node TAB hypernym [TAB name [TAB gloss]], found {line!r}"
            )
        grafts[number] = Graft(*fields)
    if not grafts:
        raise TreeError(f"{path}: only remarks; a line is node TAB hypernym [TAB name [TAB gloss]]")
    return grafts


def as_grafts(
    grafts: Mapping[str, str] | Mapping[str, Graft] | Iterable[Graft], where: Iterable[str] | None = None
) -> dict[str, Graft]:
    """Grafts by node, all ids WordNet's own where it knows them.

    Args:
        grafts: node -> hypernym, or Grafts.
        where: what to begin the message about each with.

    Raises:
        TreeError: a node placed twice, or a hypernym that nobody knows.
    """
    if isinstance(grafts, Mapping):
        grafts = [g if isinstance(g, Graft) else Graft(node, g) for node, g in grafts.items()]
    grafts = list(grafts)
    where = [""] * len(grafts) if where is None else list(where)
    own = {graft.node for graft in grafts if _wordnets(graft.node) is None}
    found: dict[str, Graft] = {}
    for graft, place in zip(grafts, where, strict=True):
        known = _wordnets(graft.node)
        if known is None and _WORDNETS.fullmatch(graft.node):
            raise TreeError(
                f"{place}WordNet 3.0 has no noun {graft.node!r}; an id of your own looks otherwise"
            )
        hypernym = graft.hypernym if graft.hypernym in own else _wordnets(graft.hypernym)
        if hypernym is None:
            raise TreeError(
                f"{place}{graft.node!r} hangs below {graft.hypernym!r}, "
                "which is neither a noun of WordNet nor grafted"
            )
        node = known or graft.node
        if node in found:
            raise TreeError(f"{place}{graft.node!r} was already placed below {found[node].hypernym!r}")
        found[node] = Graft(node, hypernym, graft.name, graft.gloss, known is None)
    return found


def _wordnets(node: str) -> str | None:
    """WordNet's id of a node, None if it has none."""
    try:
        return wordnet.wnid(wordnet.synset(node))
    except wordnet.NoNounError:
        return None


def default_grafts() -> dict[str, str]:
    """The committed grafts: id -> hypernym."""
    return {node: hypernym for node, hypernym, _ in table("grafts.tsv", 3)}


def overrides() -> dict[str, str]:
    """What 9k.tree has against the rules: id -> hypernym. With these it comes out whole; off by default."""
    return {node: hypernym for node, hypernym, *_ in table("overrides.tsv", 4)}
