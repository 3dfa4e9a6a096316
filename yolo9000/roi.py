"""Features of regions of interest: averages over windows that follow the boxes, as RoI pooling (Girshick,
2015), but by the mean. No wiring; that is network.py's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo9000.boxes import cxcywh_to_xyxy, decode


def roi_average(x: Tensor, boxes: Tensor, anchors: Tensor, least: int) -> Tensor:
    """For every cell the mean of `x` over the window of the cell's surest box: (N, D, H, W) -> the same.

    boxes: (N, A*5, H, W) raw, as a region layer's; no gradient goes into them. anchors: (A, 2) in cells. A
    window is enlarged about the box's centre to at least `least` cells a side, then cut to the picture; a
    cell that it covers in part counts in part.
    """
    height, width = x.shape[2:]
    cells = x.new_tensor([width, height], dtype=torch.float32)
    with torch.no_grad():
        boxes_cxcywh, objectness = decode(boxes.float(), anchors.float())  # (N, A, H, W, 4), (N, A, H, W)
        surest = objectness.argmax(1)[:, None, :, :, None]  # (N, 1, H, W, 1)
        found = boxes_cxcywh.gather(1, surest.expand(-1, -1, -1, -1, 4))[:, 0]  # (N, H, W, 4)
        centre, size = found[..., :2], torch.maximum(found[..., 2:], least / cells)
        windows_xyxy = cxcywh_to_xyxy(torch.cat((centre, size), -1)).clamp(0, 1)
    return window_means(x, windows_xyxy)


def window_means(x: Tensor, windows_xyxy: Tensor) -> Tensor:
    """Means of `x` (N, D, H, W) over windows (N, h, w, 4), in shares of its grid: (N, D, h, w).

    By sums over everything above and to the left, as summed-area tables (Crow, 1984). Between the corners of
    cells such a sum is bilinear, so sampling it is exact for windows that end anywhere. Sums are in float32.
    """
    height, width = x.shape[2:]
    total = F.pad(x.float().cumsum(2).cumsum(3), (1, 0, 1, 0))  # (N, D, H+1, W+1), zero at the top and left
    left, top, right, bottom = windows_xyxy.float().unbind(-1)
    corners = ((right, bottom), (left, bottom), (right, top), (left, top))
    grid = torch.cat([torch.stack(corner, -1) for corner in corners], 1)  # (N, 4*h, w, 2)
    at = F.grid_sample(total, 2 * grid - 1, padding_mode="border", align_corners=True)
    whole, beside, above, both = at.chunk(4, 2)  # (N, D, 4*h, w) -> 4 x (N, D, h, w)
    inside = whole - beside - above + both
    area = (right - left) * (bottom - top) * (width * height)  # cells
    return (inside / area.clamp_min(1e-6)[:, None]).to(x.dtype)  # 1e-6: an empty window is 0, not NaN
