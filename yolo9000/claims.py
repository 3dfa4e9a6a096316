"""Which predicted boxes claim a label: Pr(label) at every box of the images that ask for it, without a
gradient. What that means for a loss is loss.py's.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo9000.classlogits import DenseLogits, LazyLogits
from yolo9000.hierarchy import Hierarchy

# Class logits looked at together: 4 million floats are 16 MB.
_LOGITS_AT_ONCE = 2**22


@torch.no_grad()
def label_claims(
    hierarchy: Hierarchy,
    logits: DenseLogits | LazyLogits,
    labels: Tensor,
    image: Tensor,
    boxes: int,
    sigmoid: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Log Pr(label) at all boxes, many labels at a time but not more logits than memory likes.

    labels: (m,) nodes; image: (m,) the image that each is asked of. boxes: A*H*W, how many an image has.
    sigmoid: each class for itself. Yields positions (k,) among the m and values (k, A or 1, H*W), 1 where the
    anchors share their class rows. A path ends before its first node without a row.
    """
    if not len(labels):
        return
    order = image.argsort(stable=True)
    sizes = hierarchy.path_widths(labels[order]) * boxes
    parts = (sizes.cumsum(0) // _LOGITS_AT_ONCE).unique_consecutive(return_counts=True)[1]
    for mine in order.split(parts.tolist()):
        few = hierarchy.restrict(labels[mine], logits.stored, image[mine])
        values = logits.everywhere(few.owner, few.columns)  # (U, A or 1, H*W)
        if not sigmoid:
            yield mine, few.log_probabilities(values)
            continue
        found = F.logsigmoid(values.float()[few.target])
        yield mine, found.new_zeros(len(mine), *found.shape[1:]).index_add(0, few.which, found)


def best_claims(
    hierarchy: Hierarchy,
    logits: DenseLogits | LazyLogits,
    objectness: Tensor,
    labels: Tensor,
    image: Tensor,
    sigmoid: bool = False,
    among: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The box with the largest objectness x Pr(label) for each of m labels.

    objectness: (N, A, H, W) before the sigmoid. labels, image: (m,). among: (m, A, H, W) bool, the boxes that
    each may be given, at least one. Returns image, anchor, row, column, each (m,).
    """
    H, W = objectness.shape[2:]
    best = torch.zeros_like(labels)
    log_objectness = F.logsigmoid(objectness.detach().flatten(2))  # (N, A, H*W)
    boxes = objectness[0].numel()
    for mine, log_probability in label_claims(hierarchy, logits, labels, image, boxes, sigmoid):
        score = (log_objectness[image[mine]] + log_probability).flatten(1)  # (k, A*H*W)
        if among is not None:
            score = score.masked_fill(~among[mine].flatten(1), -torch.inf)
        best[mine] = score.argmax(dim=1)
    return image, best // (H * W), best // W % H, best % W


def largest_proposals(objectness: Tensor, boxes_xyxy: Tensor, least: float) -> Tensor:
    """Of each image the box that covers most of it, among those whose objectness is above `least`.

    objectness: (N, A, H, W) before the sigmoid; boxes_xyxy: (N, A, H, W, 4) in 0..1 of the image, of which
    only what lies in the image counts. Returns (N, A, H, W) bool: several where several cover as much, all
    boxes of an image without any so sure.
    """
    corners = boxes_xyxy.clamp(0, 1)
    area = (corners[..., 2:] - corners[..., :2]).prod(dim=-1)  # (N, A, H, W)
    proposed = objectness.sigmoid() > least
    area = torch.where(proposed, area, -1)
    largest = proposed & (area == area.amax(dim=(1, 2, 3), keepdim=True))
    return largest | ~proposed.any(dim=3).any(dim=2).any(dim=1)[:, None, None, None]


def claimed(
    hierarchy: Hierarchy,
    logits: DenseLogits | LazyLogits,
    shape: tuple[int, int, int, int],
    labels: Tensor,
    image: Tensor,
    sigmoid: bool = False,
) -> Tensor:
    """The probability that a box is what one of an image's labels says: (N, A, H, W) for that shape, the
    largest Pr(label) of the image's labels, 0 where it has none. labels, image: (m,).
    """
    N, A, H, W = shape
    highest = torch.zeros(N, A, H * W, device=labels.device)
    for mine, log_probability in label_claims(hierarchy, logits, labels, image, A * H * W, sigmoid):
        values = log_probability.exp().float().expand(-1, A, -1)  # (k, A, H*W)
        index = image[mine].view(-1, 1, 1).expand_as(values)
        highest.scatter_reduce_(0, index, values, "amax")
    return highest.view(N, A, H, W)
