"""Arithmetic on boxes: conversions, overlap, clipping, and turning raw network channels into boxes.

No suppression (suppression.py), no matching of boxes to anchors (assignment.py), no undoing of letterboxes
(letterbox.py). Conventions are in the names: `boxes_xyxy` are corners (left, top, right, bottom),
`boxes_cxcywh` are centre and size; the unit (pixels, or shares of the network's input) is the caller's.
"""

import torch
from torch import Tensor

# exp of more than this is a box millions of anchors wide: never real, and it would turn overlaps into inf /
# inf. Nothing below it is changed, so decoded boxes equal Darknet's.
_MAX_LOG_SIZE = 16.0


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre and size (..., 4) to corners (..., 4), same unit."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Corners (..., 4) to centre and size (..., 4), same unit."""
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def area_xyxy(boxes_xyxy: Tensor) -> Tensor:
    """Areas (...,) of boxes (..., 4); 0 for an empty or inverted box."""
    size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou_xyxy(boxes_xyxy: Tensor, others_xyxy: Tensor, pairwise: bool = True) -> Tensor:
    """Intersection over union, 0..1; 0 where both boxes are empty.

    pairwise: (..., n, 4) and (..., m, 4) give (..., n, m), each with each. Otherwise both are broadcast,
    (..., 4) with (..., 4) giving (...,).
    """
    if pairwise:
        boxes_xyxy, others_xyxy = boxes_xyxy.unsqueeze(-2), others_xyxy.unsqueeze(-3)
    # Coordinate by coordinate: on the last dimension of 4, or 2, vector instructions have nothing to work on.
    (left, top, right, bottom), (left2, top2, right2, bottom2) = boxes_xyxy.unbind(-1), others_xyxy.unbind(-1)
    width = (torch.minimum(right, right2) - torch.maximum(left, left2)).clamp(min=0)
    height = (torch.minimum(bottom, bottom2) - torch.maximum(top, top2)).clamp(min=0)
    intersection = width * height
    union = area_xyxy(boxes_xyxy) + area_xyxy(others_xyxy) - intersection
    # An empty union divides 0 by the smallest number there is.
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def iou_sizes(sizes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of sizes (n, 2) with (m, 2) about a common centre, (n, m), as anchors are
    compared.
    """
    smaller = torch.minimum(sizes.unsqueeze(-2), others.unsqueeze(-3))  # (n, m, 2)
    intersection = smaller[..., 0] * smaller[..., 1]
    union = (
        (sizes[..., 0] * sizes[..., 1]).unsqueeze(-1)
        + (others[..., 0] * others[..., 1]).unsqueeze(-2)
        - intersection
    )
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def clip(boxes_xyxy: Tensor, width: float, height: float) -> Tensor:
    """Boxes (..., 4) cut to a picture of that width and height; one wholly outside becomes empty at the
    border.
    """
    limit = boxes_xyxy.new_tensor([width, height, width, height])
    return torch.minimum(boxes_xyxy.clamp(min=0), limit)


def decode(raw_boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Raw box channels to boxes and objectness (paper section 2, "Direct location prediction").

    raw_boxes: (N, A*5, H, W), for each anchor x, y, w, h, objectness before any sigmoid. anchors: (A, 2)
    width and height in cells. Returns boxes_cxcywh (N, A, H, W, 4) as shares of the network's input (0..1,
    though a box may reach beyond it) and objectness (N, A, H, W) in 0..1; both float32 (float64 for float64
    input).
    """
    N, channels, H, W = raw_boxes.shape
    A = len(anchors)
    if channels != 5 * A:
        raise ValueError(f"decode: {A} anchors need {5 * A} box channels, the tensor has {channels}")
    # Contiguous by channel, whose values are worked on together; seen as (N, A, H, W, 5).
    raw = _full_precision(raw_boxes.reshape(N, A, 5, H, W)).contiguous().movedim(2, -1)
    column = torch.arange(W, device=raw.device, dtype=raw.dtype)
    row = torch.arange(H, device=raw.device, dtype=raw.dtype).view(H, 1)
    cells = torch.stack(torch.broadcast_tensors(column, row), -1)  # (H, W, 2)
    return _located(raw[..., :4], cells, anchors.to(raw).view(A, 1, 1, 2), (W, H)), raw[..., 4].sigmoid()


def decode_at(raw_boxes: Tensor, anchors: Tensor, at: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """As `decode`, of M boxes only, whose image, anchor, row and column are `at`, (M,) each: boxes_cxcywh
    (M, 4)."""
    N, _, H, W = raw_boxes.shape
    image, anchor, row, column = at
    raw = raw_boxes.reshape(N, len(anchors), 5, H, W)[image, anchor, :4, row, column]  # (M, 4)
    raw = _full_precision(raw)
    return _located(raw, torch.stack((column, row), -1), anchors.to(raw)[anchor], (W, H))


def objectness(raw_boxes: Tensor, anchors: int) -> Tensor:
    """As `decode`, the objectness only, (N, A, H, W); anchors: their number, A."""
    return _full_precision(raw_boxes.unflatten(1, (anchors, 5))[:, :, 4]).contiguous().sigmoid()


def _located(raw: Tensor, cells: Tensor, sizes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Raw x, y, w, h (..., 4) in the cells (..., 2), column and row, of a grid, (width, height) in cells, by
    anchors of the sizes (..., 2): boxes_cxcywh (..., 4) in shares of the grid."""
    extent = raw.new_tensor(grid)
    centres = (raw[..., :2].sigmoid() + cells) / extent
    return torch.cat((centres, sizes * raw[..., 2:].clamp(max=_MAX_LOG_SIZE).exp() / extent), -1)


def _full_precision(raw: Tensor) -> Tensor:
    return raw if raw.dtype == torch.float64 else raw.float()
