"""Walks down the tree as a graph: what `descent.descend` does, by a fixed number of levels and gathers, so
that other runtimes run it. A test holds the two equal.

Sibling groups are runs of neighbouring nodes, so a level is: of each box take the logits of one run, as long
as the level's longest group, softmax over what belongs to the group, step to the best. Only "leaf" looks at
all conditionals; there a softmax over all groups is two scatters, and sums along all paths double their
length each turn."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTree
from yolo9000.errors import ModelError
from yolo9000.hierarchy import Hierarchy

# Log probability of what has no row. Infinities are what runtimes that take liberties with arithmetic get
# wrong (OpenVINO's fused kernels did); no sum of real log probabilities comes near the limit.
NEVER = -1e30
POSSIBLE = -1e29  # above this it is a real one

# Each level is some twenty operations of the graph; WordNet has 16 levels.
_MOST_LEVELS = 64


@dataclass(frozen=True)
class Walk:
    """Answers at M boxes. path: (M, L) int64, the nodes from the root to the answer, -1 beyond; depth: (M,)
    int64, where on it the answer stands; log_path: (M, L) float32, log Pr of these nodes, NEVER beyond and
    for nodes without a row."""

    path: Tensor
    depth: Tensor
    log_path: Tensor


class Walker(nn.Module):
    """From class logits at M boxes to nodes, by one of descent.RULES."""

    def __init__(
        self,
        tree: WordTree,
        stored: Tensor | None,
        rule: str,
        threshold: float,
        temperatures: tuple[float, ...] = (),
    ) -> None:
        """stored: (K,) the node that each row of logits stands for, None = all nodes. Raises ModelError for a
        tree that is too deep."""
        super().__init__()
        hierarchy = Hierarchy(tree)
        self.rule = rule
        self.log_threshold = math.log(threshold) if threshold else POSSIBLE
        self.classes = len(tree)
        self.levels = len(hierarchy.level_sizes)
        if self.levels > _MOST_LEVELS:
            raise ModelError(f"a tree of {self.levels} levels; up to {_MOST_LEVELS} can be exported")
        sizes = hierarchy.group_starts.diff()
        depth_of_group = hierarchy.depths[hierarchy.group_starts[:-1]]
        self.widths = [int(sizes[depth_of_group == level].max()) for level in range(self.levels)]
        temperature = torch.ones(self.levels)
        temperature[: len(temperatures)] = torch.tensor(temperatures)[: self.levels]
        self.temperatures = temperature.tolist()
        row_of = torch.arange(self.classes)
        if stored is not None:
            row_of = torch.full((self.classes,), -1)
            row_of[stored] = torch.arange(len(stored))
        # Nodes past the end, which a run may reach, belong to no group and have no row.
        past = torch.full((max(self.widths),), -1)
        self.register_buffer("row_of", torch.cat((row_of, past)), persistent=False)
        self.register_buffer("starts", hierarchy.group_starts[:-1].clone(), persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("child_group", hierarchy.child_group, persistent=False)
        if rule == "leaf":
            self._prepare_leaf(hierarchy)

    def forward(self, logits: Tensor) -> Walk:
        """logits: (M, K) one for each row."""
        if self.rule == "leaf":
            return self._best_leaf(logits)
        return self._down(logits, self.rule)

    def _down(self, logits: Tensor, rule: str) -> Walk:
        group = torch.zeros_like(logits[:, 0], dtype=torch.long)  # that of the roots
        walking = torch.ones_like(group, dtype=torch.bool)
        log_probability = torch.zeros_like(logits[:, 0])
        held = log_probability  # Darknet's second product
        depth = group - 1
        path, log_path = [], []
        for level, width in enumerate(self.widths):
            place = torch.arange(width, device=logits.device)
            start = self.starts.index_select(0, group)
            rows = self.row_of[start.unsqueeze(1) + place]  # (M, width)
            there = (place < self.sizes.index_select(0, group).unsqueeze(1)) & (rows >= 0)
            values = logits.gather(1, rows.clamp(min=0)) / self.temperatures[level]
            values = torch.where(there, values, NEVER)
            highest = values.amax(1, keepdim=True)
            child = start + values.argmax(1)
            some = highest.squeeze(1) > POSSIBLE
            # The best child's own share of the sum is 1, so its log probability is minus the sum's log.
            step = torch.where(some, -(values - highest).exp().sum(1).log(), NEVER)
            reached = log_probability + step
            held = torch.where(walking, held + reached, held)
            if rule == "greedy":
                passed = some
            else:
                passed = (held if rule == "darknet" else reached) > self.log_threshold
            taken = walking & passed if level else walking  # the best root is the least that is answered
            log_probability = torch.where(taken, reached, log_probability)
            depth = torch.where(taken, level, depth)
            path.append(torch.where(taken, child, -1))
            log_path.append(torch.where(taken, reached, NEVER))
            below = self.child_group.index_select(0, child.clamp(max=self.classes - 1))
            walking = walking & passed & (below >= 0)
            group = torch.where(walking, below, 0)
        return Walk(torch.stack(path, 1), depth, torch.stack(log_path, 1))

    def _prepare_leaf(self, hierarchy: Hierarchy) -> None:
        """Tables for `_best_leaf`: paths (C, L), and each node's ancestor 1, 2, 4, ... above, C for none."""
        paths = np.full((self.classes, self.levels), -1, dtype=np.int64)
        starts, nodes = hierarchy.path_starts.numpy(), hierarchy.path_nodes.numpy()
        owner = np.repeat(np.arange(self.classes), np.diff(starts))
        paths[owner, np.arange(len(nodes)) - starts[owner]] = nodes
        self.register_buffer("paths", torch.from_numpy(paths), persistent=False)
        self.register_buffer("depths", hierarchy.depths, persistent=False)
        self.register_buffer("group_of", hierarchy.group_of, persistent=False)
        self.register_buffer("leaf", hierarchy.child_group < 0, persistent=False)
        above = torch.cat((hierarchy.parents, torch.tensor([-1])))
        above = torch.where(above < 0, self.classes, above)
        jumps = []
        while bool((above < self.classes).any()):
            jumps.append(above)
            above = above[above]
        # No empty table: torch.export cannot save one.
        self.register_buffer("jumps", torch.stack(jumps) if jumps else None, persistent=False)
        by_depth = torch.tensor(self.temperatures)[hierarchy.depths]
        self.register_buffer("temperature_of", by_depth, persistent=False)

    def _best_leaf(self, logits: Tensor) -> Walk:
        rows = self.row_of[: self.classes]
        values = logits.index_select(1, rows.clamp(min=0)) / self.temperature_of
        values = torch.where(rows >= 0, values, NEVER)
        groups = self.group_of.expand(values.shape)  # (M, C)
        none = torch.zeros_like(values[:, :1]).expand(-1, len(self.starts))  # (M, G)
        highest = (none + NEVER).scatter_reduce(1, groups, values, "amax")
        values = values - highest.gather(1, groups)
        totals = none.scatter_add(1, groups, values.exp())
        conditionals = torch.where(rows >= 0, values - totals.gather(1, groups).log(), NEVER)
        logs = torch.cat((conditionals, torch.zeros_like(conditionals[:, :1])), 1)  # (M, C + 1)
        for jump in () if self.jumps is None else self.jumps:
            logs = logs + logs.index_select(1, jump)
        logs = logs[:, : self.classes]
        leaves = torch.where(self.leaf, logs, 4 * NEVER * self.levels)  # below any sum
        node = leaves.argmax(1)
        path = self.paths.index_select(0, node)
        log_path = torch.where(path >= 0, logs.gather(1, path.clamp(min=0)), NEVER)
        depth = self.depths.index_select(0, node)
        # Where no leaf below has a row the greedy walk answers, as in descent.py.
        lost = leaves.amax(1) < POSSIBLE
        greedy = self._down(logits, "greedy")
        return Walk(
            torch.where(lost.unsqueeze(1), greedy.path, path),
            torch.where(lost, greedy.depth, depth),
            torch.where(lost.unsqueeze(1), greedy.log_path, log_path),
        )
