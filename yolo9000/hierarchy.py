"""The tree as torch buffers, and the probabilities that a row of class logits stands for on it.

Softmax over each sibling group, sums along paths, and cross entropy along paths. Nothing here knows boxes,
images or losses of a detector (loss.py), nor how a node is chosen for an answer (descent.py). A flat list of
classes is a tree of one group.

A logit of -inf says "no row is stored for this node": its probability is 0, and the softmax runs over the
rest of its group.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from yolo9000.siblings import SiblingSoftmax

if TYPE_CHECKING:
    from wordtree import WordTree

# Values whose sums along paths are worked on at once: 4 MB, which stay in the processor's cache.
_SUMS_AT_ONCE = 2**20
_NODES_FIRST = 12  # rows from which whole runs of memory are gathered, not single numbers


def ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The integers of several ranges, one after another, and the number of the range that each belongs to.

    starts, lengths: (r,) int64. Returns (sum of lengths,) twice; ranges([5, 2], [2, 3]) is ([5, 6, 2, 3, 4],
    [0, 0, 1, 1, 1]).
    """
    which = torch.repeat_interleave(torch.arange(len(starts), device=starts.device), lengths)
    first = lengths.cumsum(0) - lengths  # where each range begins in the result
    return torch.arange(len(which), device=starts.device) + (starts - first)[which], which


def log_softmax_segments(values: Tensor, segment_of: Tensor, segments: int) -> Tensor:
    """Log-softmax over runs of the first dimension: (n, ...), with segment_of (n,), to (n, ...).

    Stable for any finite values. Entries of -inf stay -inf without a gradient, even where a whole run is
    -inf. Runs lie along the first dimension because whole rows are then added at once, three times as fast.
    """
    if values.requires_grad:
        values = torch.where(torch.isneginf(values), values.detach(), values)
    index = segment_of.view(-1, *[1] * (values.dim() - 1)).expand(values.shape)
    shape = (segments, *values.shape[1:])
    highest = values.new_full(shape, -torch.inf).scatter_reduce(0, index, values.detach(), "amax")
    highest = torch.where(torch.isneginf(highest), 0, highest)  # -inf - -inf would be nan
    shifted = values - highest.index_select(0, segment_of)
    total = values.new_zeros(shape).scatter_add(0, index, shifted.exp())
    total = torch.where(total == 0, 1, total)  # only a segment that is -inf throughout sums to 0
    return shifted - total.log().index_select(0, segment_of)


class Hierarchy(nn.Module):
    """A WordTree's arrays on a device, and probabilities over it. It has no parameters and adds nothing to a
    state dict.

    Buffers, all int64, n nodes in G sibling groups: parents (n,) -1 for roots; group_of (n,); group_starts
    (G+1,): group g is nodes group_starts[g]:group_starts[g+1]; group_parent (G,) -1 for roots; child_group
    (n,) -1 for leaves; depths (n,) 0 for roots; path_starts (n+1,) and path_nodes: the path of node k, root
    first and k last, is path_nodes[path_starts[k]:path_starts[k+1]]; leaves (n,): how many leaves lie at or
    below each; level_nodes and level_parents: the nodes by depth, see log_probabilities.
    """

    parents: Tensor
    group_of: Tensor
    group_starts: Tensor
    group_parent: Tensor
    child_group: Tensor
    depths: Tensor
    path_starts: Tensor
    path_nodes: Tensor
    leaves: Tensor

    def __init__(self, tree: "WordTree") -> None:
        """tree: anything with WordTree's arrays parents, group_of, group_starts, group_parent, child_group,
        depths.
        """
        super().__init__()
        names = ("parents", "group_of", "group_starts", "group_parent", "child_group", "depths")
        arrays = {name: np.asarray(getattr(tree, name), dtype=np.int64) for name in names}
        arrays["path_starts"], arrays["path_nodes"] = _paths(arrays["parents"], arrays["depths"])
        above_a_leaf = np.repeat(arrays["child_group"] < 0, np.diff(arrays["path_starts"]))
        arrays["leaves"] = np.bincount(arrays["path_nodes"][above_a_leaf], minlength=len(arrays["parents"]))
        # Nodes sorted by depth; within a level, where its parent stands in the level above (0 for roots).
        by_level = np.argsort(arrays["depths"], kind="stable")
        position = np.empty_like(by_level)
        level_sizes = np.bincount(arrays["depths"][by_level]) if len(by_level) else np.zeros(0, np.int64)
        level_starts = np.concatenate(([0], np.cumsum(level_sizes)))
        position[by_level] = np.arange(len(by_level)) - level_starts[arrays["depths"][by_level]]
        arrays["level_nodes"] = by_level
        arrays["level_parents"] = position[np.maximum(arrays["parents"][by_level], 0)]
        arrays["level_inverse"] = np.argsort(by_level, kind="stable")
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)), persistent=False)
        self.level_sizes = tuple(int(size) for size in level_sizes)
        self.nodes = len(arrays["parents"])
        self.groups = len(arrays["group_starts"]) - 1
        self._siblings: SiblingSoftmax | None = None  # made on first use; a lazy head never needs it

    def __len__(self) -> int:
        return self.nodes

    @property
    def is_flat(self) -> bool:
        """Whether all nodes are siblings: a plain list of classes."""
        return self.groups == 1

    def extra_repr(self) -> str:
        return f"{self.nodes} nodes, {self.groups} sibling groups, {len(self.level_sizes)} levels"

    def log_conditionals(self, logits: Tensor, dim: int = -1) -> Tensor:
        """Log Pr(node | parent) of every node: log-softmax over each sibling group (paper section 4).

        logits: any shape with the n nodes along `dim`. Returns the same shape, values <= 0, float32 inside
        and out for half precision. A node with logit -inf has -inf, and so has a group of nothing else;
        neither gets a gradient.
        """
        if logits.shape[dim] != self.nodes:
            has = f"logits have {logits.shape[dim]} classes along dimension {dim}"
            raise ValueError(f"{has}, the tree {self.nodes} nodes")
        if logits.device.type != "cpu" or not logits.numel() or torch.compiler.is_compiling():
            values = _full_precision(logits).movedim(dim, 0).contiguous()
            return log_softmax_segments(values, self.group_of, self.groups).movedim(0, dim)
        if self._siblings is None:
            self._siblings = SiblingSoftmax(self.group_starts.cpu())
        if logits.dim() == 2 and dim in (-1, 1):
            return self._siblings(logits)
        rows = logits.movedim(dim, -1)  # (..., n)
        return self._siblings(rows.reshape(-1, self.nodes)).reshape(rows.shape).movedim(-1, dim)

    def log_probabilities(self, log_conditionals: Tensor, dim: int = -1) -> Tensor:
        """Log Pr(node): sums of log conditionals along the path from the root, same shape as given."""
        rows = log_conditionals.movedim(dim, -1)  # (..., n)
        values = rows.reshape(-1, self.nodes)  # (M, n)
        at_once = max(1, _SUMS_AT_ONCE // max(1, self.nodes))
        learns = torch.is_grad_enabled() and values.requires_grad
        if learns or len(values) <= at_once or torch.compiler.is_compiling():
            sums = self._path_sums(values)
        else:
            sums = torch.empty_like(values)
            for first in range(0, len(values), at_once):
                sums[first : first + at_once] = self._path_sums(values[first : first + at_once])
        return sums.reshape(rows.shape).movedim(-1, dim)

    def _path_sums(self, values: Tensor) -> Tensor:
        """(M, n) -> (M, n): each node is its parent's sum plus its own value, level by level."""
        dim = 0 if len(values) >= _NODES_FIRST else 1
        values = values.T.contiguous() if dim == 0 else values
        by_level = values.index_select(dim, self.level_nodes).split(self.level_sizes, dim)
        levels = [by_level[0]]
        for own, parents in zip(by_level[1:], self.level_parents.split(self.level_sizes)[1:], strict=True):
            levels.append(levels[-1].index_select(dim, parents).add_(own))
        sums = torch.cat(levels, dim).index_select(dim, self.level_inverse)
        return sums.T if dim == 0 else sums

    def paths(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The paths of nodes (m,), one after another, each root first; and which of the m each entry belongs
        to.
        """
        starts = self.path_starts[nodes]
        entries, which = ranges(starts, self.path_starts[nodes + 1] - starts)
        return self.path_nodes[entries], which

    def stored_paths(self, nodes: Tensor, stored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `paths`, but each path ends before its first node that is not stored; stored: (n,) bool, None =
        all.
        """
        path, which = self.paths(nodes)
        if stored is None:
            return path, which
        missing = (~stored[path]).long()
        before = torch.cat((missing.new_zeros(1), missing.cumsum(0)))  # missing entries before each position
        first = torch.searchsorted(which, torch.arange(len(nodes), device=which.device))
        kept = before[1:] == before[first][which]
        return path[kept], which[kept]

    def members(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes of sibling groups (g,), one group after another; and which of the g each belongs to."""
        starts = self.group_starts[groups]
        return ranges(starts, self.group_starts[groups + 1] - starts)

    def path_widths(self, nodes: Tensor) -> Tensor:
        """How many nodes the sibling groups on each path hold together: (m,) for nodes (m,)."""
        path, which = self.paths(nodes)
        group = self.group_of[path]
        widths = self.group_starts[group + 1] - self.group_starts[group]
        return torch.zeros_like(nodes).index_add(0, which, widths)

    def restrict(
        self, nodes: Tensor, stored: Tensor | None = None, owners: Tensor | None = None
    ) -> "Restriction":
        """What the paths of a few nodes (m,) need of the tree: see Restriction.

        stored: (n,) bool, nodes that have a row, None = all. owners: (m,) int64, the image of each node;
        groups are shared only between nodes of one image. None = all of one.
        """
        path, which = self.stored_paths(nodes, stored)
        keys = self.group_of[path]
        if owners is not None:
            keys = keys + owners[which] * self.groups
        touched, segment_of_path = keys.unique(return_inverse=True)
        owner, touched = touched // self.groups, touched % self.groups
        columns, segment_of = self.members(touched)
        # A path node's column: where its group's columns begin, and its place in the group.
        begins = (columns == self.group_starts[self.group_of[columns]]).nonzero()[:, 0]
        target = begins[segment_of_path] + path - self.group_starts[self.group_of[path]]
        if stored is not None:
            kept = stored[columns]
            target = (kept.long().cumsum(0) - 1)[target]
            columns, segment_of = columns[kept], segment_of[kept]
        owner = owner[segment_of]
        return Restriction(
            columns, owner, segment_of, len(touched), path, which, target, segment_of_path, len(nodes)
        )


@dataclass(frozen=True)
class Restriction:
    """The few sibling groups that lie on the paths of m nodes, so that no other class needs a logit.

    columns: (U,) the classes needed, those of a group side by side, unstored ones left out; owner: (U,) the
    image that each is needed for; segment_of: (U,) its group, one of the `segments` touched.

    Then one entry for each step of each path, P in all, root first: path: (P,) the node; which: (P,) the one
    of the m nodes it leads to; target: (P,) its position in columns; segment_of_path: (P,) its group. A path
    ends before its first node that is not stored.
    """

    columns: Tensor
    owner: Tensor
    segment_of: Tensor
    segments: int
    path: Tensor
    which: Tensor
    target: Tensor
    segment_of_path: Tensor
    nodes: int

    def log_conditionals(self, logits: Tensor) -> Tensor:
        """Log Pr(node | parent) of every step of each path, each from its own row of logits.

        logits: (m, U), row k for the k-th node. Returns (P,).
        """
        sizes = torch.bincount(self.segment_of, minlength=self.segments)
        starts = sizes.cumsum(0) - sizes
        elements, step = ranges(starts[self.segment_of_path], sizes[self.segment_of_path])
        flat = self.which[step] * len(self.columns) + elements
        values = _full_precision(logits).reshape(-1).index_select(0, flat)
        lengths = sizes[self.segment_of_path]
        target = lengths.cumsum(0) - lengths + self.target - starts[self.segment_of_path]
        return log_softmax_segments(values, step, len(self.path)).index_select(0, target)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Log Pr(node) of each of the m nodes, from logits (U, ...) that all share. Returns (m, ...)."""
        return self.path_sums(log_softmax_segments(_full_precision(logits), self.segment_of, self.segments))

    def path_sums(self, log_conditionals: Tensor) -> Tensor:
        """Log Pr(node) of each of the m nodes, (m, ...), from log conditionals (U, ...) of the columns."""
        sums = log_conditionals.new_zeros((self.nodes, *log_conditionals.shape[1:]))
        return sums.index_add(0, self.which, log_conditionals.index_select(0, self.target))


def tree_cross_entropy(hierarchy: Hierarchy, logits: Tensor, nodes: Tensor) -> Tensor:
    """-log Pr(node), the sum of the cross entropies of the sibling groups on the path from the root (paper
    section 4).

    logits: (M, n); nodes: (M,) int64. Returns (M,). Groups below the node are not touched. The path ends
    before its first node with logit -inf (no row stored), so the result is finite.
    """
    few = hierarchy.restrict(nodes)
    logs = few.log_conditionals(logits.index_select(-1, few.columns))
    # A running count of the -inf, compared with the count where the path begins, says which steps come before
    # any.
    missing = torch.isneginf(logs).long().cumsum(0)
    first = torch.searchsorted(few.which, torch.arange(len(nodes), device=nodes.device))
    before = torch.cat((missing.new_zeros(1), missing))[first]
    logs = torch.where(missing == before[few.which], logs, 0)
    return -logs.new_zeros(len(nodes)).index_add(0, few.which, logs)


def soft_tree_cross_entropy(hierarchy: Hierarchy, logits: Tensor, probabilities: Tensor) -> Tensor:
    """Distillation: for every sibling group Pr_teacher(parent) x cross entropy of the teacher's conditionals,
    summed.

    logits: (M, n) of the student; probabilities: (M, n) the teacher's absolute Pr(node) in 0..1, a parent's
    at least the sum of its children's. Pr(parent) x Pr(child | parent) is Pr(child), so this is -sum Pr(node)
    log Pr_student(node | parent), and what the teacher leaves at a parent (it knows no finer class) teaches
    nothing below it. Nodes with logit -inf are left out. Returns (M,).
    """
    logs = hierarchy.log_conditionals(logits)
    return -(probabilities.to(logs) * torch.where(torch.isneginf(logs), 0, logs)).sum(-1)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _paths(parents: np.ndarray, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every node's path, root first, in one array, and where each begins."""
    starts = np.concatenate(([0], np.cumsum(depths + 1)))
    nodes = np.empty(starts[-1], dtype=np.int64)
    at = np.arange(len(parents))  # every node's ancestor, one step higher each turn
    place = starts[1:] - 1
    while len(at):
        nodes[place] = at
        up = parents[at] >= 0
        at, place = parents[at[up]], place[up] - 1
    return starts.astype(np.int64), nodes
