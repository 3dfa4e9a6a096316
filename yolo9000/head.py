"""The output of a detector with its class channels left uncomputed. No loss, no decoding, no tree.

Almost all of YOLO9000's time goes into class channels that nobody reads: objectness is low nearly everywhere,
and a descent looks at one sibling group after another. `LazyOutput` holds what is needed to compute any of
them on demand, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LazyOutput:
    """Box channels, features, and the rows that turn the features into class logits.

    boxes: (N, A*5, H, W) raw x, y, w, h, objectness, anchor-major. features: (N, D, H, W). weight: (A or 1,
    K, D) and bias: (A or 1, K): the class rows, one set per anchor or one for all. stored: (K,) int64, the
    class that each row stands for, or None if K is all of them; a class without a row has logit -inf.
    classes: C. anchors: A. Everything is differentiable with respect to boxes, features, weight and bias.
    """

    boxes: Tensor
    features: Tensor
    weight: Tensor
    bias: Tensor
    stored: Tensor | None
    classes: int
    anchors: int

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
        features = self.features[image, :, row, col].to(self.weight.dtype)  # (M, D)
        weight, bias, known = (self.weight, self.bias, None) if nodes is None else self._rows(nodes)
        if weight.shape[0] == 1:
            logits = F.linear(features, weight[0], bias[0])
        else:
            # One product an anchor: gathering a (M, K, D) copy of the rows instead would cost M times their
            # memory.
            order, parts = [], []
            for a in range(self.anchors):
                chosen = (anchor == a).nonzero()[:, 0]
                order.append(chosen)
                parts.append(F.linear(features[chosen], weight[a], bias[a]))
            back = torch.cat(order).argsort()
            logits = torch.cat(parts)[back]
        if known is not None:
            return logits.masked_fill(~known, -torch.inf)
        if nodes is None and self.stored is not None:
            full = logits.new_full((len(logits), self.classes), -torch.inf)
            return full.index_copy(1, self.stored, logits)
        return logits

    def logits_of(self, nodes: Tensor) -> Tensor:
        """Logits of a few classes everywhere: nodes (K',) int64 -> (N, A, K', H, W)."""
        weight, bias, known = self._rows(nodes)
        logits = self._everywhere(weight, bias)
        return logits if known is None else logits.masked_fill(~known[:, None, None], -torch.inf)

    def select(self, images: Tensor | slice) -> LazyOutput:
        """The same for some of the images: an index tensor, mask or slice over N."""
        rows = (self.weight, self.bias, self.stored, self.classes, self.anchors)
        return LazyOutput(self.boxes[images], self.features[images], *rows)

    def detach(self) -> LazyOutput:
        """The same without a gradient."""
        tensors = (t.detach() for t in (self.boxes, self.features, self.weight, self.bias))
        return LazyOutput(*tensors, self.stored, self.classes, self.anchors)

    def _rows(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of these classes: (A or 1, K', D), (A or 1, K'), and (K',) bool for which of them exist, None
        if all do.
        """
        if self.stored is None:
            return self.weight[:, nodes], self.bias[:, nodes], None
        position = torch.searchsorted(self.stored, nodes).clamp_(max=len(self.stored) - 1)
        known = self.stored[position] == nodes
        return self.weight[:, position], self.bias[:, position], known

    def _everywhere(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Rows applied to every cell: (A or 1, K, D), (A or 1, K) -> (N, A, K, H, W)."""
        sets, rows, _ = weight.shape
        if not rows:  # a convolution without outputs is an error in PyTorch
            n, _, h, w = self.features.shape
            return weight.new_zeros(n, self.anchors, 0, h, w)
        kernel = weight.flatten(0, 1)[:, :, None, None]  # (A or 1, K, D) -> (A*K, D, 1, 1)
        logits = F.conv2d(self.features.to(weight.dtype), kernel, bias.flatten())
        logits = logits.unflatten(1, (sets, rows))  # (N, A*K, H, W) -> (N, A, K, H, W)
        return logits.expand(-1, self.anchors, -1, -1, -1)
