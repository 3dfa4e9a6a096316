"""Answers from some of the tree's nodes only: all nodes of a depth, a cut through the tree, or a vocabulary.

Listed nodes may nest ("hot dog" below "sandwich"). What is true of one leaf is then told by the lowest listed
node at or above it, and a listed node's *own* share is its probability less that of the listed nodes next
below it. Pr(node | listed) is Pr(node) divided by the probability that any listed node is right, which is the
sum over those that have no listed node above them.

Pure functions of (listed nodes, log probabilities). Which nodes a name stands for is `resolve`'s; walking
down the whole tree descent.py's."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from wordtree import WordTree
    from yolo9000.hierarchy import Hierarchy
    from yolo9000.network import Network

# Names that stand for the classes of a data set; wordtree.class_map has their nodes.
SETS = ("coco", "voc", "det")

# Names that the tree has not for which those are told that may be meant: in a tree of thousands it takes a
# quarter of a second each.
_GUESSED = 3

_MOST_TOLD = 20  # names in one line


@dataclass(frozen=True)
class Cut:
    """Listed nodes. nodes: (V,) int64 ascending, no node twice; above: (V,) the position in `nodes` of the
    next listed node above each, -1 without one; columns: (V,) where each lies in the log probabilities that
    the functions below are given, None: column k is node k."""

    nodes: Tensor
    above: Tensor
    columns: Tensor | None = None

    @classmethod
    def of(cls, hierarchy: "Hierarchy", nodes: Iterable[int] | Tensor) -> "Cut":
        """Raises ValueError for no nodes and for nodes outside the tree."""
        given = [int(node) for node in nodes]
        if not given or not 0 <= min(given) <= max(given) < hierarchy.nodes:
            raise ValueError(f"the nodes that may be answered are some of 0..{hierarchy.nodes - 1}")
        device = hierarchy.parents.device
        listed = torch.tensor(sorted(set(given)), device=device)
        path, which = hierarchy.paths(listed)
        position = torch.searchsorted(listed, path).clamp_(max=len(listed) - 1)
        upper = (listed[position] == path) & (position != which)  # listed nodes on a path, but for its end
        # A path goes down and positions grow with it, so the largest is the next one above.
        above = torch.full_like(listed, -1).scatter_reduce(0, which[upper], position[upper], "amax")
        return cls(listed, above)

    def to(self, device: torch.device) -> "Cut":
        columns = None if self.columns is None else self.columns.to(device)
        return Cut(self.nodes.to(device), self.above.to(device), columns)

    def among(self, log_probabilities: Tensor) -> Tensor:
        """Of log probabilities (M, C) those of the listed nodes, (M, V)."""
        return log_probabilities.index_select(1, self.nodes if self.columns is None else self.columns)

    @cached_property
    def top(self) -> Tensor:
        """Positions in `nodes` of those without a listed node above."""
        return (self.above < 0).nonzero().squeeze(1)

    @cached_property
    def ends(self) -> Tensor:
        """Of each listed node whether no other is below it, (V,) bool."""
        ends = torch.ones_like(self.above, dtype=torch.bool)
        ends[self.above[self.above >= 0]] = False
        return ends

    def log_any(self, logs: Tensor) -> Tensor:
        """Log probability (M,) that any listed node is right; logs: (M, V) their log probabilities."""
        return logs.index_select(1, self.top).logsumexp(dim=1)


def at_depth(hierarchy: "Hierarchy", log_probabilities: Tensor, depth: int) -> Tensor:
    """The most probable node at this depth (roots: 0), nodes (M,); where the tree, or what is stored of it,
    ends higher up, its end stands for it. log_probabilities: (M, C). Raises ValueError below 0."""
    if depth < 0:
        raise ValueError(f"the level is a depth from 0 on, not {depth}")
    device = log_probabilities.device
    depth = min(depth, len(hierarchy.level_sizes))  # numbers beyond 64 bits can't be compared
    near = (hierarchy.depths <= depth).nonzero().squeeze(1).to(device)  # ascending, and all above each
    logs = log_probabilities.index_select(1, near)
    parents = hierarchy.parents.to(device)[near]
    children = (parents >= 0).nonzero().squeeze(1)
    above = torch.searchsorted(near, parents[children])
    possible = logs > -math.inf
    # scatter_reduce has no "or"; a maximum of 0 and 1 is one
    goes_on = torch.zeros_like(possible, dtype=torch.uint8).scatter_reduce_(
        1, above.expand(len(possible), -1), possible[:, children].byte(), "amax"
    )
    return near[logs.masked_fill(goes_on.bool(), -math.inf).argmax(dim=1)]


def at_cut(cut: Cut, log_probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The listed node with the largest share of its own, (M,), -1 where no listed node is possible; and
    log Pr(node | listed), (M,), -inf there. log_probabilities: (M, C)."""
    logs = cut.among(log_probabilities)
    shares = logs.double().exp()
    nested = (cut.above >= 0).nonzero().squeeze(1)
    own = shares.index_add(1, cut.above[nested], -shares[:, nested]).clamp_(min=0)
    # A node possible only by what is listed below it is no better than one that is impossible.
    place = own.masked_fill(logs == -math.inf, -1).argmax(dim=1)
    return _answer(cut, logs, cut.log_any(logs), place)


def in_vocabulary(cut: Cut, log_probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The paper's rule on the tree of the listed nodes: from the most probable of those without a listed one
    above, on to the most probable next listed one below while Pr(node | listed) exceeds the threshold (0..1).

    Returns nodes (M,), -1 where no listed node is possible, and log Pr(node | listed) (M,), -inf there.
    log_probabilities: (M, C).
    """
    logs = cut.among(log_probabilities)
    total = cut.log_any(logs)
    given = (logs - total[:, None]).nan_to_num(nan=-math.inf, neginf=-math.inf)
    least = math.log(threshold) if threshold else -math.inf
    place = logs.masked_fill(cut.above >= 0, -math.inf).argmax(dim=1)
    walking = torch.arange(len(logs), device=logs.device)
    while len(walking := walking[~cut.ends[place[walking]]]):
        below = cut.above == place[walking, None]  # (m, V)
        best, child = given[walking].masked_fill(~below, -math.inf).max(dim=1)
        further = best > least
        walking = walking[further]
        place[walking] = child[further]
    return _answer(cut, logs, total, place)


def _answer(cut: Cut, logs: Tensor, total: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    given = logs.gather(1, place[:, None]).squeeze(1) - total
    possible = total > -math.inf
    return torch.where(possible, cut.nodes[place], -1), torch.where(possible, given.clamp(max=0), -math.inf)


def as_listed(given: Any) -> Any:
    """What was given as `level` or `vocabulary` as Options keeps it: iterables, but no texts, as tuples,
    NumPy's numbers as Python's, "COCO" as "coco"; all else as it is."""
    if isinstance(given, str):
        return given.lower() if given.lower() in SETS else given
    if hasattr(given, "tolist"):  # NumPy's and torch's
        given = given.tolist()
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        return given
    return tuple(one.item() if isinstance(one, np.generic) else one for one in given)


def spelt_out(tree: "WordTree", listed: Iterable[str | int]) -> Iterator[str | int]:
    """The same nodes, with the ids of a data set's classes for its name, whatever its case: "coco" is a
    palm only where a node has exactly that id or name."""
    import wordtree

    for node in listed:
        if isinstance(node, str) and node.lower() in SETS and not (node in tree or node in tree.names):
            yield from (wnid for _, wnid in wordtree.class_map(node.lower()))
        else:
            yield node


def resolve(tree: "WordTree", listed: str | Iterable[str | int]) -> tuple[int, ...]:
    """Nodes of a tree that a list stands for: "coco", "voc", "det", or a list of these (`spelt_out`), ids,
    names and node numbers, these also as texts (wordtree's Lookup.typed).

    Raises ValueError that tells all that the tree has not (or has more than once, for a name), the first few
    with what may be meant.
    """
    import wordtree

    listed = as_listed(listed)
    if isinstance(listed, str):
        if listed not in SETS:
            known = ", ".join(SETS)
            raise ValueError(f"{listed!r} is no list of nodes; {known} are, or give a list: [{listed!r}]")
        listed = [listed]
    nodes: list[int] = []
    reasons: list[str] = []
    rest: list[str] = []
    for node in spelt_out(tree, listed):
        typed = isinstance(node, str)
        if typed and len(reasons) >= _GUESSED and not (tree.lookup.called(node) or node.isdecimal()):
            rest.append(repr(node))
            continue
        try:
            nodes.append(tree.lookup.typed(node) if typed else int(tree.index(node)))
        except wordtree.TreeError as error:
            reasons.append(str(error))
    if rest:
        reasons.append(f"nor {_told(rest)}")
    if reasons:
        raise ValueError("not in the model's tree: " + "\n".join(reasons))
    if not nodes:
        raise ValueError("the list of nodes that may be answered is empty")
    return tuple(nodes)


def warn_of_rowless(net: "Network", tree: "WordTree", cut: Cut | None, told: set[int]) -> None:
    """Warns of listed nodes that are `rowless`. told: nodes that it was warned of before; the new ones are
    added."""
    never = [k for k in rowless(net, tree, cut) if k not in told]
    if never:
        told.update(never)
        warnings.warn(never_learnt(tree, never), stacklevel=3)


def rowless(net: "Network", tree: "WordTree", cut: Cut | None) -> list[int]:
    """The listed nodes that the network can never answer: it stores no row for them or for one above them."""
    region = net.spec.region
    if cut is None or region is None or region.stored is None:
        return []
    can = _with_rows(region.stored, tree)
    return [k for k in cut.nodes.tolist() if k not in can]


def never_learnt(tree: "WordTree", nodes: Sequence[int]) -> str:
    """What is said of them, the first few by name."""
    names = _told([f"{tree.names[k]} ({tree.ids[k]})" for k in nodes])
    return f"the model never learnt, and never answers with, {names}"


@lru_cache(4)
def _with_rows(stored: tuple[int, ...], tree: "WordTree") -> frozenset[int]:
    """The nodes that have a row, as all above them have."""
    found: set[int] = set()
    for node in sorted(stored):  # parents come before their children
        above = int(tree.parents[node])
        if above < 0 or above in found:
            found.add(node)
    return frozenset(found)


def _told(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_TOLD:,} more" * (len(texts) > _MOST_TOLD)
    return ", ".join(texts[:_MOST_TOLD]) + more
