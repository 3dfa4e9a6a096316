"""Log-softmax over all sibling groups of a tree at once, on a CPU: groups of about the same size are laid out
side by side, and each such bucket is one call of `torch.log_softmax`.

No paths, no logits of a few classes (hierarchy.py). A bucket's groups lie member by member, (k, groups), so
that the inner loop runs over groups however small they are. Many rows are worked on a part at a time, which
stays in the processor's cache. On a GPU, and inside an exported program, hierarchy.py adds by index instead.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Of one bucket the largest group is at most so many times the smallest; shorter ones are filled up. Measured:
# 41 sizes of the default tree in 16 buckets with 8% of filling; fewer buckets cost more in filling.
_SPREAD = 1.25
# The same for a single row of up to so many nodes, where what costs is the number of calls: 7 buckets.
_FEW, _FEW_SPREAD = 2**15, 2.0
_PART = 2**20  # values worked on at once: 4 MB and as much again a few times over, about a cache's size
# Rows from which, and groups a bucket up to which, the nodes come first and rows last: copying is then
# cheaper than short inner loops.
_TALL_ROWS = 12
_TALL_WIDTH = 1024


class _Layout:
    """Where the nodes of each group go. buckets: (members k of the largest, groups) of each; order: (P,) the
    node of each slot, P a little above n; place: (n,) the slot of each node."""

    def __init__(self, group_starts: Tensor, spread: float) -> None:
        starts, sizes = group_starts[:-1], group_starts.diff()
        nodes = int(group_starts[-1])
        self.buckets: list[tuple[int, int]] = []
        order, self.place, first = [], torch.zeros(nodes, dtype=torch.int32), 0
        distinct = sizes.unique()
        while len(distinct):
            within = distinct <= int(distinct[0] * spread)
            smallest, largest = int(distinct[0]), int(distinct[within][-1])
            distinct = distinct[~within]
            groups = ((sizes >= smallest) & (sizes <= largest)).nonzero()[:, 0]
            member = torch.arange(largest)[:, None]  # (k, 1)
            exists = (member < sizes[groups]).flatten()  # (k, groups) -> (k * groups,)
            members = (starts[groups] + member).flatten()
            order.append(members.where(exists, nodes))  # filled up with the entry behind the last node
            slots = torch.arange(first, first + len(members), dtype=torch.int32)
            self.place[members[exists]] = slots[exists]
            self.buckets.append((largest, len(groups)))
            first += len(members)
        self.order = torch.cat(order).int()
        self.lengths = [members * groups for members, groups in self.buckets]


class SiblingSoftmax:
    """The buckets of one tree; immutable, on the CPU."""

    def __init__(self, group_starts: Tensor) -> None:
        """group_starts: (G+1,) int64, group g is nodes group_starts[g]:group_starts[g+1]."""
        self.nodes = int(group_starts[-1])
        self._many = self._one = _Layout(group_starts, _SPREAD)
        if self.nodes <= _FEW:
            self._one = _Layout(group_starts, _FEW_SPREAD)
        self._narrow = len(group_starts) - 1 <= _TALL_WIDTH * len(self._many.buckets)

    def __call__(self, logits: Tensor) -> Tensor:
        """(M, n) of any floating type -> (M, n), float32, float64 for float64: log-softmax over each group.

        Entries of -inf stay -inf, also where a whole group is, and get no gradient.
        """
        if torch.is_grad_enabled() and logits.requires_grad:
            return _Differentiable.apply(logits, self)
        return self.forward(logits)

    def forward(self, logits: Tensor) -> Tensor:
        found = self._by_parts(_log_softmax, (logits,), (-torch.inf,), _full_type(logits))
        if has_missing(logits):
            found = found.masked_fill(torch.isneginf(logits), -torch.inf)  # nan where a whole group is -inf
        return found

    def backward(self, gradient: Tensor, found: Tensor) -> Tensor:
        """gradient: (M, n) with respect to what forward found, (M, n). Returns that of its logits."""
        if missing := has_missing(found):
            gone = torch.isneginf(found)
            gradient = gradient.masked_fill(gone, 0)
        result = self._by_parts(_log_softmax_backward, (gradient, found), (0.0, -torch.inf), found.dtype)
        return result.masked_fill(gone, 0) if missing else result

    def _by_parts(
        self,
        work: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        fillings: tuple[float, ...],
        dtype: torch.dtype,
    ) -> Tensor:
        """`work` on each bucket of each part of the rows; inputs (M, n), their fillings behind node n - 1."""
        count = len(inputs[0])
        rows = max(1, _PART // self.nodes)
        if count <= rows:
            return self._part(work, inputs, fillings, dtype)
        result = torch.empty(count, self.nodes, dtype=dtype)
        for first in range(0, count, rows):
            mine = tuple(values[first : first + rows] for values in inputs)
            result[first : first + rows] = self._part(work, mine, fillings, dtype)
        return result

    def _part(
        self,
        work: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        fillings: tuple[float, ...],
        dtype: torch.dtype,
    ) -> Tensor:
        rows = len(inputs[0])
        if rows == 1:
            return self._row(work, inputs, fillings, dtype)
        layout, tall = self._many, self._narrow and rows >= _TALL_ROWS
        laid_out = [
            (_tall if tall else _wide)(values, fill, dtype).index_select(0 if tall else 1, layout.order)
            for values, fill in zip(inputs, fillings, strict=True)
        ]
        pieces = [values.split_with_sizes(layout.lengths, 0 if tall else 1) for values in laid_out]
        buckets = zip(layout.buckets, zip(*pieces, strict=True), strict=True)
        if not tall:
            parts = [  # (rows, k * groups) -> (rows, k, groups), and back
                work(*(piece.view(rows, *shape) for piece in bucket), 1).flatten(1)
                for shape, bucket in buckets
            ]
            return torch.cat(parts, 1).index_select(1, layout.place)
        found, first = torch.empty(len(layout.order), rows, dtype=dtype), 0
        for (members, groups), bucket in buckets:  # (k * groups, rows) -> (k, groups * rows)
            last = first + members * groups
            bucket = [piece.view(members, groups * rows) for piece in bucket]
            work(*bucket, 0, out=found[first:last].view(members, groups * rows))
            first = last
        return found.index_select(0, layout.place).T

    def _row(
        self,
        work: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        fillings: tuple[float, ...],
        dtype: torch.dtype,
    ) -> Tensor:
        """The same for a single row, where every call counts."""
        layout, laid_out = self._one, []
        for values, fill in zip(inputs, fillings, strict=True):
            values = torch.cat((values.flatten().to(dtype), torch.full((1,), fill, dtype=dtype)))  # (n + 1,)
            laid_out.append(values.index_select(0, layout.order).split_with_sizes(layout.lengths))
        parts = [  # (k * groups,) -> (k, groups), and back
            work(*(piece.view(shape) for piece in bucket), 0).view(-1)
            for shape, *bucket in zip(layout.buckets, *laid_out, strict=True)
        ]
        return torch.cat(parts).index_select(0, layout.place)[None]


def has_missing(values: Tensor) -> bool:
    """Whether any entry is -inf."""
    return bool(values.numel()) and float(values.amin()) == -torch.inf


class _Differentiable(torch.autograd.Function):
    """Keeps the result alone for the way back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, siblings: SiblingSoftmax) -> Tensor:
        found = siblings.forward(logits)
        ctx.siblings, ctx.dtype = siblings, logits.dtype
        ctx.save_for_backward(found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.siblings.backward(gradient, *ctx.saved_tensors).to(ctx.dtype), None


def _tall(values: Tensor, fill: float, dtype: torch.dtype) -> Tensor:
    """(M, n) -> (n + 1, M) with `fill` behind."""
    result = torch.empty(values.shape[1] + 1, len(values), dtype=dtype)
    result[:-1] = values.T
    result[-1] = fill
    return result


def _wide(values: Tensor, fill: float, dtype: torch.dtype) -> Tensor:
    """(M, n) -> (M, n + 1) with `fill` behind."""
    values = values.to(dtype)
    return torch.cat((values, values.new_full((len(values), 1), fill)), 1)


def _full_type(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _log_softmax(values: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    return torch.log_softmax(values, dim, out=out)


def _log_softmax_backward(gradient: Tensor, found: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    if out is None:
        return torch.ops.aten._log_softmax_backward_data(gradient, found, dim, found.dtype)
    return torch.ops.aten._log_softmax_backward_data.out(gradient, found, dim, found.dtype, out=out)
