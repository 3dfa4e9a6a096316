"""From class scores to one node of the tree: the ways of walking down, each over all class logits or over
only those it needs.

The rules (`RULES`), with Pr(node) the product of the conditionals Pr(child | parent) from the root down to
it:

    "threshold"  the paper's: take the most probable child while its Pr(node) is above the threshold; answer
                 the last node taken
    "darknet"    as Darknet: the same, but what is held against the threshold is the product of the *absolute*
                 probabilities on the path, so it stops higher up (docs/darknet.md)
    "greedy"     take the most probable child to the bottom; no threshold
    "leaf"       the leaf with the largest Pr(node) of all leaves; no threshold

If not even a root passes, "threshold" and "darknet" answer the best root. A child of probability 0 (no
stored row) is never entered, so a group without stored rows ends the descent. Boxes, objectness and
suppression are elsewhere (detector.py, suppression.py)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolo9000.hierarchy import log_softmax_segments, ranges

if TYPE_CHECKING:
    from yolo9000.head import LazyOutput
    from yolo9000.hierarchy import Hierarchy, Restriction

RULES = ("threshold", "darknet", "leaf", "greedy")

Spans = list[tuple[int, int]]  # of sibling groups: the first node, and the one after the last
Opened = list[tuple[Tensor, Tensor, Tensor]]  # of each level: boxes (m,), nodes (m,), their log Pr (m,)

# The same product with fewer boxes beside it may be rounded otherwise, by far less than this.
_ROUNDING = 1e-3


class Conditionals(Protocol):
    """What a descent asks of a model: M boxes and their log Pr(child | parent), some sibling groups at a
    time."""

    count: int
    device: torch.device

    def groups(self, spans: Spans, boxes: Tensor, counts: list[int]) -> list[Tensor]:
        """Log conditionals (count, end - start) of the nodes start..end-1, a whole sibling group, of the
        first span at the first count of the boxes (m,), of the second at those after them, and so on."""
        ...

    def some(self, few: "Restriction") -> Tensor:
        """Log conditionals (U, M) of the restriction's columns at every box: nodes first."""
        ...

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        """Log conditionals (M, C) of every node at every box."""
        ...


class DenseConditionals:
    """Log conditionals that are all there already."""

    def __init__(self, log_conditionals: Tensor) -> None:
        """log_conditionals: (M, C), as Hierarchy.log_conditionals gives them."""
        self._values = log_conditionals
        self.count, self.device = len(log_conditionals), log_conditionals.device

    def groups(self, spans: Spans, boxes: Tensor, counts: list[int]) -> list[Tensor]:
        asked = zip(spans, boxes.split(counts), strict=True)
        return [self._values[some, start:end] for (start, end), some in asked]

    def some(self, few: "Restriction") -> Tensor:
        return self._values.index_select(1, few.columns).T

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return self._values


class LazyConditionals:
    """Log conditionals computed group by group, from the features at M chosen boxes and the class rows that
    the walk asks for."""

    def __init__(
        self, output: "LazyOutput", image: Tensor, anchor: Tensor, row: Tensor, column: Tensor
    ) -> None:
        """image, anchor, row, column: LongTensors (M,), one entry a box; output: what the network's `lazy`
        returned."""
        self._at = (image, anchor, row, column)
        self._output = output
        self._features = output.at(image, row, column).float()  # (M, D)
        self._sets = list(zip(output.weight, output.bias, strict=True))  # of class rows
        self._anchor = anchor if len(self._sets) > 1 else None
        self._stored = None if output.stored is None else output.stored.cpu().numpy()  # ascending
        self.count, self.device = len(image), self._features.device

    def groups(self, spans: Spans, boxes: Tensor, counts: list[int]) -> list[Tensor]:
        features = self._features.index_select(0, boxes).split(counts)
        if self._anchor is None:
            anchors = [None] * len(counts)
        else:
            anchors = self._anchor.index_select(0, boxes).split(counts)
        asked = zip(spans, features, anchors, strict=True)
        return [self._group(start, end, some, own) for (start, end), some, own in asked]

    def _group(self, start: int, end: int, features: Tensor, anchors: Tensor | None) -> Tensor:
        """Log conditionals (m, end - start) of one group at boxes of these features (m, D) and anchors."""
        first, last = start, end
        if self._stored is not None:
            first, last = self._stored.searchsorted((start, end)).tolist()
        if last - first == end - start:
            return self._logits(slice(first, last), features, anchors).log_softmax(dim=1)
        logs = features.new_full((len(features), end - start), -math.inf)
        if last > first:
            known = self._output.stored[first:last] - start
            logs[:, known] = self._logits(slice(first, last), features, anchors).log_softmax(dim=1)
        return logs

    def _logits(self, rows: slice, features: Tensor, anchors: Tensor | None) -> Tensor:
        """(m, K) logits by these K rows of features (m, D), each by its anchor's set."""
        if anchors is None:
            return self._apply(0, rows, features)
        logits = None
        for a in anchors.bincount().nonzero().squeeze(1).tolist():
            mine = (anchors == a).nonzero().squeeze(1)
            found = self._apply(a, rows, features.index_select(0, mine))
            if len(mine) == len(features):
                return found
            if logits is None:
                logits = found.new_empty(len(features), found.shape[1])
            logits[mine] = found
        return logits

    def _apply(self, number: int, rows: slice, features: Tensor) -> Tensor:
        """(m, K) logits of features (m, D) by these rows of one set."""
        weight, bias = self._sets[number]
        return F.linear(features, weight[rows].float(), bias[rows].float())

    def some(self, few: "Restriction") -> Tensor:
        logits = self._output.logits(*self._at, nodes=few.columns).float()  # (M, U)
        return log_softmax_segments(logits.T, few.segment_of, few.segments)

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return hierarchy.log_conditionals(self._output.logits(*self._at).float())


@dataclass(frozen=True)
class Descent:
    """Where M walks ended. nodes: (M,) indices. log_path: (M, L) float32, log Pr of the node at depth 0, 1,
    ... of each path, NaN below the node reached; L is the longest path's length. log_given: (M,) float32,
    log Pr(node | parent) of the node reached."""

    nodes: Tensor
    log_path: Tensor
    log_given: Tensor

    @property
    def log_probabilities(self) -> Tensor:
        """Log Pr(node reached), (M,)."""
        depth = (~self.log_path.isnan()).sum(dim=1, keepdim=True) - 1
        return self.log_path.gather(1, depth).squeeze(1)


def descend(
    hierarchy: "Hierarchy",
    conditionals: Conditionals | Tensor,
    rule: str = "threshold",
    threshold: float = 0.5,
) -> Descent:
    """Walk down the tree at every box. conditionals: a tensor (M, C) of log conditionals, or something that
    computes them as asked.

    threshold (0..1) applies to "threshold" and "darknet". Raises ValueError for an unknown rule or an
    impossible threshold.
    """
    if rule not in RULES:
        raise ValueError(f"the rule is one of {', '.join(RULES)}, not {rule!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"the tree threshold lies in 0..1, not {threshold}")
    if isinstance(conditionals, Tensor):
        conditionals = DenseConditionals(conditionals)
    if rule == "leaf" and isinstance(conditionals, DenseConditionals):
        return _best_of_all_leaves(hierarchy, conditionals)
    if rule == "leaf":
        return _best_leaf(hierarchy, conditionals)
    return _walk(hierarchy, conditionals, rule, math.log(threshold) if threshold else -math.inf)


def threshold(hierarchy: "Hierarchy", log_conditionals: Tensor, threshold: float = 0.5) -> Tensor:
    """Nodes (M,) by the paper's rule from log conditionals (M, C)."""
    return descend(hierarchy, log_conditionals, "threshold", threshold).nodes


def darknet(hierarchy: "Hierarchy", log_conditionals: Tensor, threshold: float = 0.5) -> Tensor:
    """Nodes (M,) as Darknet answers them from log conditionals (M, C)."""
    return descend(hierarchy, log_conditionals, "darknet", threshold).nodes


def greedy(hierarchy: "Hierarchy", log_conditionals: Tensor, threshold: float = 0.0) -> Tensor:
    """Nodes (M,) at the bottom of the greedy walk from log conditionals (M, C); the threshold is not used."""
    return descend(hierarchy, log_conditionals, "greedy").nodes


def leaf(hierarchy: "Hierarchy", log_conditionals: Tensor, threshold: float = 0.0) -> Tensor:
    """The most probable leaves (M,) from log conditionals (M, C); the threshold is not used."""
    return descend(hierarchy, log_conditionals, "leaf").nodes


def _walk(hierarchy: "Hierarchy", conditionals: Conditionals, rule: str, log_threshold: float) -> Descent:
    # Who walks where is kept in NumPy: walkers are few, and a call costs a third of one of PyTorch's.
    count, device = conditionals.count, conditionals.device
    child_group, group_starts = (a.cpu().numpy() for a in (hierarchy.child_group, hierarchy.group_starts))
    nodes, given, levels = np.zeros(count, np.int64), np.zeros(count, np.float32), []
    # Of those that still walk: which they are, the group each looks at next (0 holds the roots), the log
    # probability of the node reached, and Darknet's second product.
    walking, groups = np.arange(count), np.zeros(count, np.int64)
    reached, held = np.zeros(count, np.float32), np.zeros(count, np.float32)
    while len(walking):
        order, spans, counts = by_group(group_starts, groups)
        walking, groups, reached, held = (part[order] for part in (walking, groups, reached, held))
        found = conditionals.groups(spans, torch.from_numpy(walking).to(device), counts)
        best = [part.float().max(dim=1) for part in found]
        step, place = (torch.cat(part).cpu().numpy() for part in zip(*best, strict=True))
        child = group_starts[groups] + place
        reached = reached + step
        if rule == "darknet":
            held = held + reached
        if rule == "greedy":
            passed = step > -math.inf
        else:
            passed = (held if rule == "darknet" else reached) > log_threshold
        # The best root is the least that is answered; below, a node that passes.
        taken = passed if levels else slice(None)
        walking, child, step, reached, held = (part[taken] for part in (walking, child, step, reached, held))
        nodes[walking], given[walking] = child, step
        levels.append(np.full(count, np.nan, np.float32))
        levels[-1][walking] = reached
        groups = child_group[child]
        further = (groups >= 0) & passed[taken]
        walking, groups, reached, held = (part[further] for part in (walking, groups, reached, held))
    log_path = np.stack(levels, axis=1) if levels else np.zeros((count, 1), np.float32)
    return Descent(*(torch.from_numpy(part).to(device) for part in (nodes, log_path, given)))


def search(
    hierarchy: "Hierarchy",
    conditionals: Conditionals,
    worth: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Opened:
    """Down the tree at every box, by all ways that may be worth it. worth: of pairs of a box (P,) and a node
    (P,), their log Pr (P,) and log Pr(node | parent) (P,), whether to look below, (P,) bool; it is told once
    of every possible member of each group that is looked at, a level of the tree at a time.

    Returns the nodes below which it looked.
    """
    device, levels = conditionals.device, []
    child_group, group_starts = hierarchy.child_group.to(device), hierarchy.group_starts.cpu().numpy()
    boxes = torch.arange(conditionals.count, device=device)
    above = torch.zeros(len(boxes), device=device)
    groups = np.zeros(len(boxes), np.int64)  # group 0 holds the roots
    while len(boxes):
        order, spans, counts = by_group(group_starts, groups)
        if not isinstance(order, slice):
            order = torch.from_numpy(order).to(device)
        boxes, above = boxes[order], above[order]
        given = torch.cat([part.flatten() for part in conditionals.groups(spans, boxes, counts)]).float()
        starts, ends = np.array(spans).repeat(counts, axis=0).T  # of each walker's group
        node, walker = ranges(*(torch.from_numpy(part).to(device) for part in (starts, ends - starts)))
        logs = above.index_select(0, walker) + given
        possible = (logs > -math.inf).nonzero().squeeze(1)  # not without a row, nor where it is no number
        who, node, logs = boxes[walker[possible]], node[possible], logs[possible]
        opened = worth(who, node, logs, given[possible]) & (child_group.index_select(0, node) >= 0)
        boxes, nodes, above = who[opened], node[opened], logs[opened]
        groups = child_group[nodes].cpu().numpy()
        levels.append((boxes, nodes, above))
    return levels


def searched_paths(hierarchy: "Hierarchy", nodes: Tensor, last: Tensor, levels: Opened) -> Tensor:
    """(M, L) log Pr along the paths to nodes (M,), -1 for an empty one, that `search` came to. last: (M,)
    their log Pr; of what lies above them the levels know it."""
    answered = (nodes >= 0).nonzero().squeeze(1)
    path, which = hierarchy.paths(nodes[answered])
    depth = hierarchy.depths[path]
    longest = int(depth.max()) + 1 if len(depth) else 1
    values = last.new_full((len(nodes), longest), math.nan)
    for level, (boxes, opened, logs) in enumerate(levels[: longest - 1]):
        here = (depth == level).nonzero().squeeze(1)
        table = boxes * hierarchy.nodes + opened
        order = table.argsort()
        wanted = answered[which[here]] * hierarchy.nodes + path[here]
        found = torch.searchsorted(table[order], wanted).clamp(max=max(0, len(table) - 1))
        if len(table):  # the node at a path's end may not have been opened; it has its own value below
            values[answered[which[here]], level] = logs[order[found]]
    values[answered, hierarchy.depths[nodes[answered]]] = last[answered]
    return values


def by_group(group_starts: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray | slice, Spans, list[int]]:
    """The order (m,) in which walkers that look at the same sibling group, of groups (m,), m > 0, come one
    after another; and of each such run the group's first node and the one after its last, and its length.
    """
    if (groups == groups[0]).all():  # most are together most of the way
        order, begins, distinct = slice(None), [0], groups[:1]
    else:
        order = groups.argsort(kind="stable")
        ordered = groups[order]
        begins = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist()]
        distinct = ordered[begins]
    spans = zip(group_starts[distinct].tolist(), group_starts[distinct + 1].tolist(), strict=True)
    ends = [*begins[1:], len(groups)]
    return order, list(spans), [end - begin for begin, end in zip(begins, ends, strict=True)]


def _best_leaf(hierarchy: "Hierarchy", conditionals: Conditionals) -> Descent:
    """No node is more probable than its parent: nothing is looked at below one that is less probable than the
    best leaf so far, nor than the leaf, if it is one, where the greedy walk ends. Where no leaf is possible
    that end is the answer."""
    greedy = _walk(hierarchy, conditionals, "greedy", -math.inf)
    leaf = hierarchy.child_group.to(conditionals.device) < 0
    nodes, last, last_given = greedy.nodes.clone(), greedy.log_probabilities, greedy.log_given.clone()
    least = torch.where(leaf[nodes], last - _ROUNDING, -math.inf)
    best = torch.full_like(least, -math.inf)

    def worth(who: Tensor, node: Tensor, logs: Tensor, given: Tensor) -> Tensor:
        nonlocal best
        before, best = best, best.scatter_reduce(0, who, logs.where(leaf[node], -math.inf), "amax")
        nodes.masked_fill_(best > before, hierarchy.nodes)
        here = leaf[node] & (logs == best[who])
        nodes.scatter_reduce_(0, who[here], node[here], "amin")  # the first of equal ones
        mine = (node == nodes[who]).nonzero().squeeze(1)
        last[who[mine]], last_given[who[mine]] = logs[mine], given[mine]
        return logs >= torch.maximum(best, least)[who]

    levels = search(hierarchy, conditionals, worth)
    return Descent(nodes, searched_paths(hierarchy, nodes, last, levels), last_given)


def _best_of_all_leaves(hierarchy: "Hierarchy", conditionals: DenseConditionals) -> Descent:
    log_conditionals = conditionals.all(hierarchy).float()
    log_probabilities = hierarchy.log_probabilities(log_conditionals)  # (M, C)
    child_group = hierarchy.child_group.to(log_probabilities.device)
    leaves = log_probabilities.masked_fill(child_group >= 0, -math.inf)
    nodes = leaves.argmax(dim=1)
    # Where no leaf below has a row, the argmax over -inf means nothing: answer the bottom of the greedy walk
    # instead.
    lost = (leaves.gather(1, nodes.unsqueeze(1)).squeeze(1) == -math.inf).nonzero().squeeze(1)
    if len(lost):
        nodes[lost] = _walk(hierarchy, DenseConditionals(log_conditionals[lost]), "greedy", -math.inf).nodes
    log_given = log_conditionals.gather(1, nodes.unsqueeze(1)).squeeze(1)
    return Descent(nodes, path_log_probabilities(hierarchy, log_probabilities, nodes), log_given)


def path_log_probabilities(hierarchy: "Hierarchy", log_probabilities: Tensor, nodes: Tensor) -> Tensor:
    """Log Pr of the nodes on the paths to `nodes` (M,), root first: (M, L), NaN beyond each path's end.
    log_probabilities: (M, C)."""
    path, which = hierarchy.paths(nodes)
    first = torch.searchsorted(which, torch.arange(len(nodes), device=nodes.device))
    level = torch.arange(len(path), device=nodes.device) - first[which]
    length = int(level.max()) + 1 if len(level) else 1
    values = log_probabilities.new_full((len(nodes), length), math.nan, dtype=torch.float32)
    values[which, level] = log_probabilities[which, path].float()
    return values
