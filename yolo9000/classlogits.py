"""Class logits on demand, from either form of a detector's output, so that the loss has one way through.

Two views with the same three members. `stored`: (C,) bool, the classes that have a row, None = all. `at`: a
few classes at a few boxes, differentiable. `everywhere`: a few classes at all boxes of one image, without a
gradient.
"""

import torch
from torch import Tensor

from yolo9000.head import LazyOutput


class DenseLogits:
    """Logits read out of the dense class channels (N, A, C, H, W); -inf marks a class without a row."""

    def __init__(self, logits: Tensor):
        self.logits = logits
        # A class has a row everywhere or nowhere, so one box of one image tells.
        stored = ~torch.isneginf(logits.detach()[:1, 0, :, 0, 0]).flatten()
        self.stored = None if bool(stored.all()) else stored

    def at(self, image: Tensor, anchor: Tensor, row: Tensor, column: Tensor, classes: Tensor) -> Tensor:
        """(M, U) logits of classes (U,) at M boxes."""
        where = (t[:, None] for t in (image, anchor, row, column))
        image, anchor, row, column = where
        return self.logits[image, anchor, classes, row, column]

    def everywhere(self, image: Tensor, classes: Tensor) -> Tensor:
        """(U, A, H*W) logits at all boxes of an image, image and class (U,) of each row; image ascending."""
        return self.logits.detach()[image, :, classes].flatten(2)


class LazyLogits:
    """Logits computed from features and class rows where they are asked for."""

    def __init__(self, out: LazyOutput):
        self.out = out
        self.stored = None
        self.position = None
        if out.stored is not None:
            self.stored = torch.zeros(out.classes, dtype=torch.bool, device=out.stored.device)
            self.stored[out.stored] = True
            self.position = self.stored.new_zeros(out.classes, dtype=torch.long)
            self.position[out.stored] = torch.arange(len(out.stored), device=out.stored.device)
        self.weight, self.bias = out.weight.detach(), out.bias.detach()

    def at(self, image: Tensor, anchor: Tensor, row: Tensor, column: Tensor, classes: Tensor) -> Tensor:
        """(M, U) logits of classes (U,) at M boxes."""
        return self.out.logits(image, anchor, row, column, classes)

    def everywhere(self, image: Tensor, classes: Tensor) -> Tensor:
        """(U, A or 1, H*W) likewise, for stored classes; 1 where the anchors share their rows."""
        rows = classes if self.position is None else self.position[classes]
        features = self.out.features.detach().flatten(2)  # (N, D, H, W) -> (N, D, H*W)
        logits = self.weight.new_empty(len(self.weight), len(rows), features.shape[2])
        first = 0
        pictures, counts = image.unique_consecutive(return_counts=True)
        for b, count in zip(pictures.tolist(), counts.tolist(), strict=True):
            mine = slice(first, first + count)
            cells = features[b] if self.out.expand is None else self._expanded(features[b])
            # A picture at a time, for the rows of all would be a copy of much of the parameter.
            weight = self.weight.index_select(1, rows[mine])  # (A or 1, count, D)
            logits[:, mine] = weight @ cells.to(weight.dtype)
            first += count
        return logits.add_(self.bias.index_select(1, rows).unsqueeze(2)).transpose(0, 1)

    @torch.no_grad()
    def _expanded(self, features: Tensor) -> Tensor:
        """(D0, H*W) -> (D, H*W)."""
        return self.out.expand(features.T).T
