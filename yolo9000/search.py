"""Ways down the tree at some boxes: one, from child to most probable child (`walk`); or all that may be worth
it (`search`), for where an answer is the best of many nodes and no node is more probable than its parent,
most of the tree need not be looked at.

The rules made of them are descent.py's, decision.py's and hedging.py's; what a model is asked for on the way
is conditionals.py's."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from yolo9000.conditionals import Conditionals, Looks, runs

if TYPE_CHECKING:
    from yolo9000.hierarchy import Hierarchy

# The same product with fewer boxes beside it may be rounded otherwise, by far less than this.
_ROUNDING = 1e-3


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
        """Log Pr(node reached), (M,); NaN where the roots' was."""
        depth = (~self.log_path.isnan()).sum(dim=1, keepdim=True) - 1
        return self.log_path.gather(1, depth.clamp(min=0)).squeeze(1)


@dataclass(frozen=True)
class Steps:
    """Pairs of a box and a node, m of them: boxes, nodes: int64; logs, given: float32, log Pr(node) and log
    Pr(node | parent) there."""

    boxes: np.ndarray
    nodes: np.ndarray
    logs: np.ndarray
    given: np.ndarray

    def __getitem__(self, some: np.ndarray) -> "Steps":
        return Steps(self.boxes[some], self.nodes[some], self.logs[some], self.given[some])


def walk(
    hierarchy: "Hierarchy",
    conditionals: Conditionals,
    rule: str,
    log_threshold: float = -math.inf,
    deepest: int | None = None,
) -> Descent:
    """By the rule "threshold", "darknet" or "greedy" of descent.py, no further than to the depth
    `deepest`."""
    # Who walks where is kept in NumPy: walkers are few, and a call costs a third of one of PyTorch's.
    count, device = conditionals.count, conditionals.device
    group_starts, child_group = _group_starts(hierarchy), _child_groups(hierarchy, deepest)
    nodes, given, levels = np.zeros(count, np.int64), np.zeros(count, np.float32), []
    # Of those that still walk: which they are, the group each looks at next (0 holds the roots), the log
    # probability of the node reached, and Darknet's second product.
    walking, groups = np.arange(count), np.zeros(count, np.int64)
    reached, held = np.zeros(count, np.float32), np.zeros(count, np.float32)
    while len(walking):
        order, looks = Looks.sorted(group_starts, groups, walking)
        walking, groups, reached, held = (part[order] for part in (walking, groups, reached, held))
        step, place = looks.best(conditionals.groups(looks))
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
    worth: Callable[[Steps], np.ndarray],
    dead_ends: Callable[[Steps], None] | None = None,
    deepest: int | None = None,
) -> Steps:
    """Down the tree at every box, by all ways that may be worth it, no further than to the depth `deepest`.
    worth: whether to look below each of these, (m,) bool; it is told once of every possible member of each
    group that is looked at, a level of the tree at a time. dead_ends: is told of those below which nothing
    turned out to be possible.

    Returns those below which it looked.
    """
    group_starts, child_group = _group_starts(hierarchy), _child_groups(hierarchy, deepest)
    boxes = np.arange(conditionals.count)
    at = Steps(boxes, np.full_like(boxes, -1), *np.zeros((2, len(boxes)), np.float32))
    groups, opened = np.zeros_like(boxes), []  # group 0 holds the roots
    while len(groups):
        order, looks = Looks.sorted(group_starts, groups, at.boxes)
        at, sizes = at[order], looks.sizes
        nodes = runs(looks.first.repeat(looks.counts), sizes)
        walker = np.arange(len(sizes)).repeat(sizes)
        given = conditionals.groups(looks)
        found = Steps(looks.boxes[walker], nodes, at.logs[walker] + given, given)
        possible = found.logs > -math.inf  # not without a row, nor where it is no number
        if not possible.all():
            found, walker = found[possible], walker[possible]
        if dead_ends is not None:
            dead = np.bincount(walker, minlength=len(sizes)) == 0
            if dead.any() and opened:  # something is above
                dead_ends(at[dead])
        at = found[worth(found) & (child_group[found.nodes] >= 0)]
        opened.append(at)
        groups = child_group[at.nodes]
    parts = zip(*((s.boxes, s.nodes, s.logs, s.given) for s in opened), strict=True)
    return Steps(*map(np.concatenate, parts)) if opened else at


def searched_paths(hierarchy: "Hierarchy", nodes: np.ndarray, last: np.ndarray, opened: Steps) -> np.ndarray:
    """(M, L) log Pr along the paths to nodes (M,), -1 for an empty one, that `search` came to. last: (M,)
    their log Pr; what lies above them it has opened."""
    path_starts, path_nodes = (a.cpu().numpy() for a in (hierarchy.path_starts, hierarchy.path_nodes))
    answered = np.flatnonzero(nodes >= 0)
    starts, lengths = path_starts[nodes[answered]], np.diff(path_starts)[nodes[answered]]
    values = np.full((len(nodes), max(1, lengths.max(initial=0))), np.nan, np.float32)
    above = lengths - 1
    boxes = answered.repeat(above)
    table = opened.boxes * hierarchy.nodes + opened.nodes
    order = table.argsort()
    wanted = boxes * hierarchy.nodes + path_nodes[runs(starts, above)]
    values[boxes, runs(np.zeros_like(above), above)] = opened.logs[order[table[order].searchsorted(wanted)]]
    values[answered, above] = last[answered]
    return values


def best_end(hierarchy: "Hierarchy", conditionals: Conditionals, deepest: int | None = None) -> Descent:
    """The most probable leaf; or, with `deepest`, the most probable of the nodes at that depth and of those
    above it where the tree, or what is possible of it, ends. Of equal ones the first.

    Nothing is looked at below a node that is less probable than the best end so far, nor than the end, if it
    is one, to which the greedy walk comes. Where no leaf is possible that is the answer.
    """
    greedy = walk(hierarchy, conditionals, "greedy", deepest=deepest)
    end = _child_groups(hierarchy, deepest) < 0
    nodes, last, last_given = (
        part.cpu().numpy().copy() for part in (greedy.nodes, greedy.log_probabilities, greedy.log_given)
    )
    # Where nothing is possible below, the walk has come to an end as well, though to no leaf.
    least = np.where(end[nodes] if deepest is None else True, last - _ROUNDING, -math.inf)
    best = np.full(len(nodes), -math.inf, np.float32)

    def ends(steps: Steps) -> None:
        before = best.copy()
        np.maximum.at(best, steps.boxes, steps.logs)
        nodes[best > before] = hierarchy.nodes
        steps = steps[steps.logs == best[steps.boxes]]
        np.minimum.at(nodes, steps.boxes, steps.nodes)
        steps = steps[steps.nodes == nodes[steps.boxes]]
        last[steps.boxes], last_given[steps.boxes] = steps.logs, steps.given

    def worth(steps: Steps) -> np.ndarray:
        ends(steps[end[steps.nodes]])
        return steps.logs >= np.maximum(best, least)[steps.boxes]

    opened = search(hierarchy, conditionals, worth, None if deepest is None else ends, deepest)
    path = searched_paths(hierarchy, nodes, last, opened)
    return Descent(*(torch.from_numpy(part).to(conditionals.device) for part in (nodes, path, last_given)))


def _group_starts(hierarchy: "Hierarchy") -> np.ndarray:
    """Where each sibling group begins, and the end of the last: (G + 1,)."""
    return hierarchy.group_starts.cpu().numpy()


def _child_groups(hierarchy: "Hierarchy", deepest: int | None = None) -> np.ndarray:
    """The group below each node (n,), -1 below leaves, and below nodes of the depth `deepest` if one is
    given."""
    below = hierarchy.child_group.cpu().numpy()
    return below if deepest is None else np.where(hierarchy.depths.cpu().numpy() >= deepest, -1, below)
