"""A few rows of a large parameter at a time, with a gradient that stays a few rows until the very end.

Indexing a parameter makes a gradient as large as the parameter at each place that indexes it, while all that
the rest of the network keeps for its way back is still in memory. A bank is asked for rows instead: it
remembers the gradient of what it gave, and adds all of it up in one tensor when autograd comes to the bank
itself, which is last where the bank was made first. Nothing here knows classes, boxes or losses.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_Pending = list[tuple[Tensor, Tensor, Tensor]]  # row numbers, and the gradients of weight and bias there


class RowBank:
    """Rows of (weight, bias), for one forward pass. Make it before all else that learns in that pass.

    rows: R, how many there are.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: (R, ...), row r holds D values; bias: (R,)."""
        self._pending: _Pending = []
        self.rows = len(weight)
        self._weight, self._bias = weight.detach().flatten(1), bias.detach()
        self._root = _Root.apply(weight, bias, self._pending)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (k,) int64, any of them as often as wanted: weight (k, D) and bias (k,)."""
        return _Take.apply(self._root, self._weight, self._bias, rows, self._pending)


class _Root(torch.autograd.Function):
    """Stands for the whole parameter; its value means nothing."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, pending: _Pending) -> Tensor:
        ctx.pending = pending
        ctx.save_for_backward(weight, bias)
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        # One after another, so that nothing is as large as the parameter but its gradient.
        whole = [
            torch.zeros_like(values) if wanted else None
            for values, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        for rows, *parts in ctx.pending:
            for values, part in zip(whole, parts, strict=True):
                if values is not None:
                    values.index_add_(0, rows, part.view(len(part), *values.shape[1:]))
        ctx.pending.clear()
        return *whole, None


class _Take(torch.autograd.Function):
    """Gives rows, and lays their gradient by."""

    @staticmethod
    def forward(
        ctx: Any, _: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, pending: _Pending
    ) -> tuple[Tensor, Tensor]:
        ctx.pending = pending
        ctx.save_for_backward(rows)
        return weight.index_select(0, rows), bias.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor, None, None, None, None]:
        (rows,) = ctx.saved_tensors
        ctx.pending.append((rows, weight, bias))
        return weight.new_zeros(()), None, None, None, None
