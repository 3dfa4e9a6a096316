"""What a way down the tree asks of a model: the probabilities of some sibling groups at some boxes, from all
of them or computed as asked. Which groups are asked for is descent.py's and search.py's.

The few hundred numbers of such a question are kept in NumPy, whose calls cost a third of PyTorch's.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolo9000.errors import NO_NUMBER, ModelError
from yolo9000.hierarchy import log_softmax_segments

if TYPE_CHECKING:
    from yolo9000.head import LazyOutput
    from yolo9000.hierarchy import Hierarchy, Restriction


@dataclass(frozen=True)
class Looks:
    """Walkers on their way down, each looking at one sibling group; those that look at the same group side by
    side. boxes: (m,) int64, the box that each walks for; first, last: (g,) int64, each group's first node and
    the one after its last; counts: (g,) int64, how many look at each, m in all; sizes: (m,) int64, how many
    nodes each walker sees."""

    boxes: np.ndarray
    first: np.ndarray
    last: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def sorted(
        cls, group_starts: np.ndarray, groups: np.ndarray, boxes: np.ndarray
    ) -> "tuple[np.ndarray, Looks]":
        """The order (m,) in which walkers at groups (m,), m > 0, for boxes (m,), come side by side; and them
        so."""
        order = groups.argsort(kind="stable")
        ordered = groups[order]
        edge = np.ones(len(groups) + 1, bool)
        np.not_equal(ordered[1:], ordered[:-1], out=edge[1:-1])
        edges = edge.nonzero()[0]
        distinct, counts = ordered[edges[:-1]], edges[1:] - edges[:-1]
        first, last = group_starts[distinct], group_starts[distinct + 1]
        return order, cls(boxes[order], first, last, counts, (last - first).repeat(counts))

    def best(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of what `Conditionals.groups` returns the largest at each walker, (m,), and its place in the group,
        (m,): the first of equal ones."""
        if len(self.counts) == 1:
            table = values.reshape(len(self.boxes), -1)
            place = table.argmax(axis=1)
            return table[np.arange(len(table)), place], place
        starts = self.sizes.cumsum() - self.sizes
        highest = np.maximum.reduceat(values, starts)
        hits = (~(values < highest.repeat(self.sizes))).nonzero()[0]  # all of a run with no number in it
        return highest, hits[hits.searchsorted(starts)] - starts


class Conditionals(Protocol):
    """What a descent asks of a model: M boxes and their log Pr(child | parent), some sibling groups at a
    time."""

    count: int
    device: torch.device

    def groups(self, looks: Looks) -> np.ndarray:
        """Log conditionals of the members of the group that each walker looks at, float32, one walker's after
        the other's: as many as `looks.sizes` sum to."""
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

    def groups(self, looks: Looks) -> np.ndarray:
        rows = torch.from_numpy(looks.boxes).to(self.device).split(looks.counts.tolist())
        asked = zip(looks.first.tolist(), looks.last.tolist(), rows, strict=True)
        return flat([self._values[some, start:end] for start, end, some in asked])

    def some(self, few: "Restriction") -> Tensor:
        return self._values.index_select(1, few.columns).T

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return self._values


class LazyConditionals:
    """Log conditionals computed group by group, from the features at M chosen boxes and the class rows that
    the walk asks for. Raises ModelError where they are no numbers, which not every rule's answer shows."""

    def __init__(
        self, output: "LazyOutput", image: Tensor, anchor: Tensor, row: Tensor, column: Tensor
    ) -> None:
        """image, anchor, row, column: LongTensors (M,), one entry a box; output: what the network's `lazy`
        returned."""
        self._at = (image, anchor, row, column)
        self._output = output
        self._features = output.at(image, row, column).float()  # (M, D)
        self._sets = list(zip(output.weight, output.bias, strict=True))  # of class rows
        self._bias = output.bias.detach().float().cpu().numpy()  # (S, K), the same again
        self._anchor = anchor if len(self._sets) > 1 else None
        self._stored = None if output.stored is None else output.stored.cpu().numpy()  # ascending
        self.count, self.device = len(image), self._features.device

    @np.errstate(invalid="ignore")  # of an infinite logit: it is refused
    def groups(self, looks: Looks) -> np.ndarray:
        found = self._groups(looks)
        if np.isnan(found).any():
            raise ModelError(NO_NUMBER)
        return found

    def _groups(self, looks: Looks) -> np.ndarray:
        first, last = looks.first, looks.last  # rows of each group
        if self._stored is not None:
            first, last = self._stored.searchsorted((first, last))
        boxes, counts = torch.from_numpy(looks.boxes).to(self.device), looks.counts.tolist()
        features = self._features.index_select(0, boxes)
        if len(counts) == 1 and self._anchor is None and last[0] - first[0] == looks.sizes[0]:
            weight, bias = (part[first[0] : last[0]].float() for part in self._sets[0])
            return flat([F.linear(features, weight, bias).log_softmax(dim=1)])
        features, anchors = features.split(counts), [None] * len(counts)
        if self._anchor is not None:
            anchors = self._anchor.index_select(0, boxes).split(counts)
        asked = zip(first.tolist(), last.tolist(), features, anchors, strict=True)
        values = flat([self._products(slice(a, b), some, own) for a, b, some, own in asked])
        # What is left is done for all groups at once: each product's bias alone costs as much as the product.
        own = (last - first).repeat(looks.counts)  # (m,) rows that each walker sees
        rows = runs(first.repeat(looks.counts), own)
        sets = 0 if self._anchor is None else self._anchor.cpu().numpy()[looks.boxes].repeat(own)
        values = log_softmax_runs(values + self._bias[sets, rows], own[own > 0])
        if len(values) == looks.sizes.sum():
            return values
        logs = np.full(looks.sizes.sum(), -math.inf, np.float32)
        starts = looks.sizes.cumsum() - looks.sizes - looks.first.repeat(looks.counts)
        logs[starts.repeat(own) + self._stored[rows]] = values
        return logs

    def _products(self, rows: slice, features: Tensor, anchors: Tensor | None) -> Tensor:
        """(m, K) products of these K rows with features (m, D), each with its anchor's set."""
        if anchors is None:
            return F.linear(features, self._sets[0][0][rows].float())
        found = features.new_empty(len(features), rows.stop - rows.start)
        for a in anchors.bincount().nonzero().squeeze(1).tolist():
            mine = (anchors == a).nonzero().squeeze(1)
            found[mine] = F.linear(features.index_select(0, mine), self._sets[a][0][rows].float())
        return found

    def some(self, few: "Restriction") -> Tensor:
        logits = self._output.logits(*self._at, nodes=few.columns).float()  # (M, U)
        found = log_softmax_segments(logits.T, few.segment_of, few.segments)
        if bool(found.isnan().any()):
            raise ModelError(NO_NUMBER)
        return found

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return hierarchy.log_conditionals(self._output.logits(*self._at).float())


def runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[i], starts[i] + 1, ... of each of these lengths (r,), one run after the other: (sum,) int64."""
    before = lengths.cumsum() - lengths
    return np.arange(int(lengths.sum())) + (starts - before).repeat(lengths)


def log_softmax_runs(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Log-softmax over runs of these lengths (r,), all above 0, of values (sum,) float32: the same shape.

    Entries of -inf stay so, even where a whole run is.
    """
    starts = lengths.cumsum() - lengths
    highest = np.maximum.reduceat(values, starts)
    highest[highest == -math.inf] = 0  # -inf - -inf would be nan
    shifted = values - highest.repeat(lengths)
    total = np.add.reduceat(np.exp(shifted), starts, dtype=np.float64)
    total[total == 0] = 1  # a run that is -inf throughout
    return shifted - np.log(total).astype(np.float32).repeat(lengths)


def flat(parts: list[Tensor]) -> np.ndarray:
    """The values of tensors, one after another, float32."""
    return torch.cat([part.flatten() for part in parts]).float().cpu().numpy()
