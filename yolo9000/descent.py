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
stored row) is never entered, so a group without stored rows ends the descent. Who walks where is search.py's,
what a model is asked for on the way conditionals.py's; boxes, objectness and suppression are elsewhere
(detector.py, suppression.py)."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from yolo9000.conditionals import Conditionals, DenseConditionals
from yolo9000.search import Descent, best_end, walk

if TYPE_CHECKING:
    from yolo9000.hierarchy import Hierarchy

RULES = ("threshold", "darknet", "leaf", "greedy")


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
        return best_end(hierarchy, conditionals)
    return walk(hierarchy, conditionals, rule, math.log(threshold) if threshold else -math.inf)


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
        nodes[lost] = walk(hierarchy, DenseConditionals(log_conditionals[lost]), "greedy").nodes
    log_given = log_conditionals.gather(1, nodes.unsqueeze(1)).squeeze(1)
    return Descent(nodes, path_log_probabilities(hierarchy, log_probabilities, nodes), log_given)


def path_log_probabilities(
    hierarchy: "Hierarchy", log_probabilities: Tensor, nodes: Tensor, column: Tensor | None = None
) -> Tensor:
    """Log Pr of the nodes on the paths to `nodes` (M,), root first: (M, L), NaN beyond each path's end.
    log_probabilities: (M, C); column: (n,) where each node lies in them, None: column k is node k."""
    path, which = hierarchy.paths(nodes)
    first = torch.searchsorted(which, torch.arange(len(nodes), device=nodes.device))
    level = torch.arange(len(path), device=nodes.device) - first[which]
    length = int(level.max()) + 1 if len(level) else 1
    values = log_probabilities.new_full((len(nodes), length), math.nan, dtype=torch.float32)
    values[which, level] = log_probabilities[which, path if column is None else column[path]].float()
    return values
