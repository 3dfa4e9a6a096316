"""What a way down the tree asks of a model: the probabilities of some sibling groups at some boxes, from all
of them or computed as asked. Which groups are asked for is descent.py's and search.py's.

The few hundred numbers of such a question are kept in NumPy, whose calls cost a third of PyTorch's.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolo9000.errors import NO_NUMBER, ModelError
from yolo9000.hierarchy import log_softmax_segments

if TYPE_CHECKING:
    from yolo9000.head import LazyOutput
    from yolo9000.hierarchy import Hierarchy, Restriction

# Multiplications up to which NumPy's product is the faster one: beyond a million OpenBLAS, which it comes
# with, wakes its threads, and takes as long as PyTorch.
_LITTLE = 1_000_000


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
        self._products = ClassProducts(self._features, output.weight)
        self._bias = output.bias.detach().float().cpu().numpy()  # (S, K), the same again
        self._anchor = anchor.cpu().numpy() if len(self._bias) > 1 else None
        self._stored = None if output.stored is None else output.stored.cpu().numpy()  # ascending
        self.count, self.device = len(image), self._features.device

    @np.errstate(all="ignore")  # infinite logits are refused
    def groups(self, looks: Looks) -> np.ndarray:
        found = self._groups(looks)
        if np.isnan(found).any():
            raise ModelError(NO_NUMBER)
        return found

    def _groups(self, looks: Looks) -> np.ndarray:
        first, last = looks.first, looks.last  # rows of each group
        if self._stored is not None:
            first, last = self._stored.searchsorted((first, last))
        anchors = None if self._anchor is None else self._anchor[looks.boxes]
        values = self._products(looks.boxes, looks.counts, first, last, anchors)
        # What is left is done for all groups at once: each product's bias alone costs as much as the product.
        own = (last - first).repeat(looks.counts)  # (m,) rows that each walker sees
        rows = runs(first.repeat(looks.counts), own)
        sets = 0 if anchors is None else anchors.repeat(own)
        values = log_softmax_runs(values + self._bias[sets, rows], own[own > 0])
        if len(values) == looks.sizes.sum():
            return values
        logs = np.full(looks.sizes.sum(), -math.inf, np.float32)
        starts = looks.sizes.cumsum() - looks.sizes - looks.first.repeat(looks.counts)
        logs[starts.repeat(own) + self._stored[rows]] = values
        return logs

    def some(self, few: "Restriction") -> Tensor:
        logits = self._output.logits(*self._at, nodes=few.columns).float()  # (M, U)
        found = log_softmax_segments(logits.T.contiguous(), few.segment_of, few.segments)
        if bool(found.isnan().any()):
            raise ModelError(NO_NUMBER)
        return found

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return hierarchy.log_conditionals(self._output.logits(*self._at).float())


class ClassProducts:
    """Class rows, without their bias, applied to the features of boxes: some rows at some boxes, many times.

    On a CPU by NumPy where that is little work, since its calls cost less; by PyTorch where it is much.
    """

    def __init__(self, features: Tensor, weight: Tensor) -> None:
        """features: (M, D) float32; weight: (S, K, D), the sets of rows."""
        self._features, self._weight = features.detach(), weight.detach()
        self._on_cpu = features.device.type == "cpu"
        self._rows = self._weight.numpy() if self._on_cpu and weight.dtype == torch.float32 else None

    def __call__(
        self,
        boxes: np.ndarray,
        counts: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
        sets: np.ndarray | None = None,
    ) -> np.ndarray:
        """The rows first[i] to last[i] of each of g groups at the next counts[i] of these boxes (m,), one
        box's after the other's, float32. sets: (m,) the set of rows that each box has, None for the only
        one."""
        features = self._features.index_select(0, torch.from_numpy(boxes).to(self._features.device))
        if self._on_cpu:
            features = features.numpy()
        ends = counts.cumsum().tolist()
        found, begin = [], 0
        for a, b, end in zip(first.tolist(), last.tolist(), ends, strict=True):
            some = slice(begin, end)
            if sets is None:
                found.append(self._product(0, a, b, features[some]))
            else:
                found.append(self._by_set(sets[some], a, b, features[some]))
            begin = end
        if isinstance(found[0], Tensor):
            return flat(found)
        return np.concatenate([part.ravel() for part in found])

    def _product(self, number: int, first: int, last: int, features: Any) -> Any:
        """(m, K): the rows of one set at features (m, D), both of NumPy on a CPU, else of PyTorch."""
        if self._rows is not None and features.size * (last - first) <= _LITTLE:
            return features @ self._rows[number, first:last].T
        rows = self._weight[number, first:last].float()
        if self._on_cpu:
            return F.linear(torch.from_numpy(features), rows).numpy()
        return F.linear(features, rows)

    def _by_set(self, sets: np.ndarray, first: int, last: int, features: Any) -> np.ndarray:
        found = np.empty((len(sets), last - first), np.float32)
        for number in set(sets.tolist()):
            mine = sets == number
            part = self._product(number, first, last, features[mine])
            found[mine] = part.cpu().numpy() if isinstance(part, Tensor) else part
        return found


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
