"""A few rows of a large parameter at a time, with a gradient that stays a few rows until the very end.

Indexing a parameter makes a gradient as large as the parameter at each place that indexes it, while all that
the rest of the network keeps for its way back is still in memory. A bank is asked for rows instead, or to
apply them: it remembers what their gradient is made of, and adds all of it up in one tensor when autograd
comes to the bank itself, which is last where the bank was made first. Nothing here knows classes, boxes or
losses.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Row numbers; then the gradients of weight and bias there; or gradient and input of a product with the rows.
_Given = tuple[Tensor, Tensor, Tensor]
_Product = tuple[Tensor, Tensor, Tensor]
_Pending = tuple[list[_Given], list[_Product]]


class RowBank:
    """Rows of (weight, bias), for one forward pass. Make it before all else that learns in that pass.

    rows: R, how many there are.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: (R, ...), row r holds D values; bias: (R,)."""
        self._pending: _Pending = ([], [])
        self.rows = len(weight)
        self._weight, self._bias = weight.detach().flatten(1), bias.detach()
        self._root = _Root.apply(weight, bias, self._pending)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (k,) int64, any of them as often as wanted: weight (k, D) and bias (k,)."""
        return _Take.apply(self._root, self._weight, self._bias, rows, self._pending)

    def apply(self, x: Tensor, rows: Tensor) -> Tensor:
        """Inputs (m, D) of the rows' type times rows (k,) int64: (m, k). Unlike a product with what `take`
        gives it keeps neither the rows nor a gradient of their size: both are made again when wanted."""
        return _Apply.apply(self._root, x, self._weight, self._bias, rows, self._pending)


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
        given, products = ctx.pending
        weight, bias = (
            torch.zeros_like(values) if wanted else None
            for values, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        )
        # One after another, so that nothing is as large as the parameter but its gradient.
        for rows, part, offset in given:
            _add(weight, rows, part)
            _add(bias, rows, offset)
        for rows, gradient, x in products:
            if weight is not None:
                _add(weight, rows, gradient.T @ x)
            _add(bias, rows, gradient.sum(0))
        given.clear()
        products.clear()
        return weight, bias, None


def _add(whole: Tensor | None, rows: Tensor, part: Tensor) -> None:
    if whole is not None:
        whole.index_add_(0, rows, part.view(len(part), *whole.shape[1:]))


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
        ctx.pending[0].append((rows, weight, bias))
        return weight.new_zeros(()), None, None, None, None


class _Apply(torch.autograd.Function):
    """A product with rows; of their gradient only the two factors are laid by."""

    @staticmethod
    def forward(
        ctx: Any, _: Tensor, x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, pending: _Pending
    ) -> Tensor:
        ctx.pending = pending
        ctx.save_for_backward(x, weight, rows)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight.index_select(0, rows), bias.index_select(0, rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        x, weight, rows = ctx.saved_tensors
        ctx.pending[1].append((rows, gradient, x))
        back = gradient @ weight.index_select(0, rows) if ctx.needs_input_grad[1] else None
        return weight.new_zeros(()), back, None, None, None, None
