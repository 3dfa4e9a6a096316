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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from yolo9000.head import LazyOutput
    from yolo9000.hierarchy import Hierarchy

RULES = ("threshold", "darknet", "leaf", "greedy")


class Conditionals(Protocol):
    """What a descent asks of a model: M boxes and their log Pr(child | parent), one sibling group at a
    time."""

    count: int
    device: torch.device

    def group(self, start: int, end: int, boxes: Tensor) -> Tensor:
        """Log conditionals (m, end - start) of the nodes start..end-1, one whole sibling group, at the boxes
        (m,)."""
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

    def group(self, start: int, end: int, boxes: Tensor) -> Tensor:
        return self._values[boxes, start:end]

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
        self._anchor = anchor if len(output.weight) > 1 else None
        self._place = None  # (C,) the row of each node, -1 without one; None: row k is node k
        if output.stored is not None:
            self._place = torch.full((output.classes,), -1, dtype=torch.long, device=self._features.device)
            self._place[output.stored] = torch.arange(len(output.stored), device=self._features.device)
        self.count, self.device = len(image), self._features.device

    def group(self, start: int, end: int, boxes: Tensor) -> Tensor:
        if self._place is None:
            return self._logits(slice(start, end), boxes).log_softmax(dim=1)
        place = self._place[start:end]
        nodes = (place >= 0).nonzero().squeeze(1)
        logs = self._features.new_full((len(boxes), end - start), -math.inf)
        if len(nodes):
            logs[:, nodes] = self._logits(place[nodes], boxes).log_softmax(dim=1)
        return logs

    def _logits(self, rows: slice | Tensor, boxes: Tensor) -> Tensor:
        """(m, K) logits by K rows at the boxes (m,)."""
        features, weight, bias = self._features.index_select(0, boxes), self._output.weight, self._output.bias
        if self._anchor is None:
            return F.linear(features, weight[0, rows].float(), bias[0, rows].float())
        anchors = self._anchor.index_select(0, boxes)
        logits = None
        for a in anchors.unique().tolist():
            mine = (anchors == a).nonzero().squeeze(1)
            found = F.linear(features.index_select(0, mine), weight[a, rows].float(), bias[a, rows].float())
            if len(mine) == len(boxes):
                return found
            if logits is None:
                logits = found.new_empty(len(boxes), found.shape[1])
            logits[mine] = found
        return logits

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return hierarchy.log_conditionals(self._output.logits(*self._at).float())


@dataclass(frozen=True)
class Descent:
    """Where M walks ended. nodes: (M,) indices. log_path: (M, L) float32, log Pr of the node at depth 0, 1,
    ... of each path, NaN below the node reached; L is the longest path's length."""

    nodes: Tensor
    log_path: Tensor

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
    count, device = conditionals.count, conditionals.device
    child_group, group_starts = hierarchy.child_group.to(device), hierarchy.group_starts.to(device)
    nodes = torch.zeros(count, dtype=torch.long, device=device)
    levels = []
    # Of those that still walk: which they are, the group each looks at next (0 holds the roots), the log
    # probability of the node reached, and Darknet's second product.
    walking, groups = torch.arange(count, device=device), torch.zeros_like(nodes)
    reached, held = torch.zeros(count, device=device), torch.zeros(count, device=device)
    while len(walking):
        order, spans, counts = by_group(hierarchy, groups)
        walking, groups, reached, held = chosen(order, walking, groups, reached, held)
        best = [
            conditionals.group(start, end, boxes).float().max(dim=1)
            for (start, end), boxes in zip(spans, walking.split(counts), strict=True)
        ]
        step = torch.cat([values for values, _ in best])
        child = torch.cat([places for _, places in best]) + group_starts.index_select(0, groups)
        reached = reached + step
        if rule == "darknet":
            held = held + reached
        passed = (
            step > -math.inf if rule == "greedy" else (held if rule == "darknet" else reached) > log_threshold
        )
        groups = child_group.index_select(0, child)
        if levels:
            further = passed.nonzero().squeeze(1)
            walking, groups, reached, held, child = chosen(further, walking, groups, reached, held, child)
            passed = None
        nodes.index_copy_(0, walking, child)
        levels.append(reached.new_full((count,), math.nan).index_copy_(0, walking, reached))
        # The best root is the least that is answered, but who goes on has passed.
        further = (groups >= 0 if passed is None else passed & (groups >= 0)).nonzero().squeeze(1)
        walking, groups, reached, held = chosen(further, walking, groups, reached, held)
    log_path = torch.stack(levels, dim=1) if levels else torch.zeros(count, 1, device=device)
    return Descent(nodes, log_path)


def chosen(index: Tensor | None, *values: Tensor) -> list[Tensor]:
    """The entries (m,) of each of the values (n,); index None: all, as they are."""
    return list(values) if index is None else [one.index_select(0, index) for one in values]


def by_group(
    hierarchy: "Hierarchy", groups: Tensor
) -> tuple[Tensor | None, list[tuple[int, int]], list[int]]:
    """The order (m,) in which walkers that look at the same sibling group, of groups (m,), come one after
    another, None where they do; and of each such run the group's first node and the one after its last, and
    its length.
    """
    ordered, order = groups.sort(stable=True)
    ends = [end + 1 for end in ordered.diff().nonzero().squeeze(1).tolist()]
    begins = [0, *ends]
    counts = [end - begin for begin, end in zip(begins, [*ends, len(groups)], strict=True)]
    if not ends:
        order, distinct = None, ordered[:1]
    else:
        distinct = ordered[begins]
    return order, [(start, end) for _, start, end in hierarchy.spans(distinct)], counts


def _best_leaf(hierarchy: "Hierarchy", conditionals: Conditionals) -> Descent:
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
    return Descent(nodes, path_log_probabilities(hierarchy, log_probabilities, nodes))


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
