"""The output of a detector with its class channels left uncomputed. No loss, no decoding, no tree.

Almost all of YOLO9000's time goes into class channels that nobody reads: objectness is low nearly everywhere,
and a descent looks at one sibling group after another. `LazyOutput` holds what is needed to compute any of
them on demand, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo9000.rowbank import RowBank


def apply_rows(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (M, K) of features (M, D) by rows (K, D) and (K,).

    In float32 on a CPU, where nothing is to be learned, by oneDNN's product: more than twice as fast as the
    one PyTorch chooses by default on processors that its other library does not favour.
    """
    plain = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
    if plain or torch.compiler.is_compiling() or not _has_onednn(features, weight):
        return F.linear(features, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")


def _has_onednn(features: Tensor, weight: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and features.dtype == weight.dtype == torch.float32
        and bool(features.numel() and weight.numel())
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@dataclass(frozen=True)
class LazyOutput:
    """Box channels, features, and the rows that turn the features into class logits.

    boxes: (N, A*5, H, W) raw x, y, w, h, objectness, anchor-major. features: (N, D, H, W). weight: (A or 1,
    K, D) and bias: (A or 1, K): the class rows, one set per anchor or one for all. stored: (K,) int64, the
    class that each row stands for, or None if K is all of them; a class without a row has logit -inf.
    expand: turns a cell's features (..., D0) into the (..., D) that rows are applied to, None where they are
    the same: layers without neighbours run only where someone asks; `features` then has D0 channels.
    classes: C. anchors: A. Everything is differentiable with respect to boxes, features, weight and bias.
    bank: where `weight` and `bias` come from while they learn, (A or 1) x R rows of which theirs are the last
    K of each R; a few classes' rows are then taken from it.
    """

    boxes: Tensor
    features: Tensor
    weight: Tensor
    bias: Tensor
    stored: Tensor | None
    classes: int
    anchors: int
    expand: Callable[[Tensor], Tensor] | None = None
    bank: RowBank | None = None

    def dense(self) -> Tensor:
        """All channels, as `Network.forward` gives them: (N, A*(5+C), H, W), [anchor][x, y, w, h, objectness,
        classes...].
        """
        n, _, h, w = self.boxes.shape
        boxes = self.boxes.reshape(n, self.anchors, 5, h, w)  # (N, A*5, H, W) -> (N, A, 5, H, W)
        logits = self._everywhere(self.weight, self.bias)
        if self.stored is not None:
            full = logits.new_full((n, self.anchors, self.classes, h, w), -torch.inf)
            logits = full.index_copy(2, self.stored, logits)
        return torch.cat((boxes, logits), 2).flatten(1, 2)  # (N, A, 5+C, H, W) -> (N, A*(5+C), H, W)

    def logits(
        self, image: Tensor, anchor: Tensor, row: Tensor, col: Tensor, nodes: Tensor | None = None
    ) -> Tensor:
        """Class logits at M chosen boxes: (M, C), or (M, len(nodes)) for these classes only.

        image, anchor, row, col: (M,) int64 indices of the boxes. nodes: (K',) int64 classes, or None for all.
        """
        features = self.at(image, row, col).to(self.weight.dtype)  # (M, D)
        apply, known = self._product(nodes)
        if self.weight.shape[0] == 1:
            logits = apply(0, features)
        else:
            # One product an anchor: gathering a (M, K, D) copy of the rows instead would cost M times their
            # memory.
            order, parts = [], []
            for a in range(self.anchors):
                chosen = (anchor == a).nonzero()[:, 0]
                order.append(chosen)
                parts.append(apply(a, features[chosen]))
            back = torch.cat(order).argsort()
            logits = torch.cat(parts)[back]
        if known is not None:
            return logits.masked_fill(~known, -torch.inf)
        if nodes is None and self.stored is not None:
            full = logits.new_full((len(logits), self.classes), -torch.inf)
            return full.index_copy(1, self.stored, logits)
        return logits

    def at(self, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """What class rows are applied to at M cells: (M, D)."""
        features = self.features[image, :, row, col]
        return features if self.expand is None else self.expand(features)

    def expanded(self) -> LazyOutput:
        """The same with the features of every cell computed: `features` is (N, D, H, W), `expand` None."""
        if self.expand is None:
            return self
        features = self.expand(self.features.movedim(1, -1)).movedim(-1, 1)
        return replace(self, features=features, expand=None)

    def logits_of(self, nodes: Tensor) -> Tensor:
        """Logits of a few classes everywhere: nodes (K',) int64 -> (N, A, K', H, W)."""
        weight, bias, known = self._rows(nodes)
        logits = self._everywhere(weight, bias)
        return logits if known is None else logits.masked_fill(~known[:, None, None], -torch.inf)

    def select(self, images: Tensor | slice) -> LazyOutput:
        """The same for some of the images: an index tensor, mask or slice over N."""
        return replace(self, boxes=self.boxes[images], features=self.features[images])

    def detach(self) -> LazyOutput:
        """The same without a gradient."""
        names = ("boxes", "features", "weight", "bias")
        expand = self.expand and (lambda features: self.expand(features).detach())
        return replace(
            self, **{name: getattr(self, name).detach() for name in names}, expand=expand, bank=None
        )

    def _product(self, nodes: Tensor | None) -> tuple[Callable[[int, Tensor], Tensor], Tensor | None]:
        """What applies the rows of these classes, None for all, of one set to features (M, D), giving (M,
        K'); and (K',) bool for which of the classes have a row, None if all do.
        """
        if nodes is not None and self.bank is not None:
            numbers, known = self._numbers(nodes)
            return lambda a, features: self.bank.apply(features, numbers[a]), known
        weight, bias, known = (self.weight, self.bias, None) if nodes is None else self._rows(nodes)
        return lambda a, features: apply_rows(features, weight[a], bias[a]), known

    def _rows(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of these classes: (A or 1, K', D), (A or 1, K'), and (K',) bool for which of them exist, None
        if all do.
        """
        if self.bank is None:
            position, known = self._positions(nodes)
            weight, bias = self.weight.index_select(1, position), self.bias.index_select(1, position)
            return weight, bias, known
        numbers, known = self._numbers(nodes)
        weight, bias = self.bank.take(numbers.flatten())  # (A or 1, K') -> ((A or 1) * K',)
        return weight.unflatten(0, numbers.shape), bias.unflatten(0, numbers.shape), known

    def _numbers(self, nodes: Tensor) -> tuple[Tensor, Tensor | None]:
        """The bank's numbers (A or 1, K') of the rows of these classes, and `known` as above."""
        position, known = self._positions(nodes)
        sets, rows, _ = self.weight.shape
        ends = torch.arange(1, sets + 1, device=nodes.device)[:, None] * (self.bank.rows // sets)
        return ends - rows + position, known

    def _positions(self, nodes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where in a set the rows of these classes lie, (K',), and `known` as above."""
        if self.stored is None:
            return nodes, None
        position = torch.searchsorted(self.stored, nodes).clamp_(max=len(self.stored) - 1)
        return position, self.stored[position] == nodes

    def _everywhere(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Rows applied to every cell: (A or 1, K, D), (A or 1, K) -> (N, A, K, H, W)."""
        if self.expand is not None:
            return self.expanded()._everywhere(weight, bias)
        sets, rows, _ = weight.shape
        if not rows:  # a convolution without outputs is an error in PyTorch
            n, _, h, w = self.features.shape
            return weight.new_zeros(n, self.anchors, 0, h, w)
        kernel = weight.flatten(0, 1)[:, :, None, None]  # (A or 1, K, D) -> (A*K, D, 1, 1)
        logits = F.conv2d(self.features.to(weight.dtype), kernel, bias.flatten())
        logits = logits.unflatten(1, (sets, rows))  # (N, A*K, H, W) -> (N, A, K, H, W)
        return logits.expand(-1, self.anchors, -1, -1, -1)
