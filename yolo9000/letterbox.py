"""A picture of any shape fitted into the network's input, and boxes carried back. Reads no files.

Darknet scales the picture to fit, bilinear with the corner pixels' centres kept in place and without
smoothing, and centres it on grey (docs/darknet.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yolo9000.errors import ImageError
from yolo9000.images import MAX_SIDE

GREY = 0.5  # Darknet's filling
RESIZES = ("darknet", "smooth")


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in a network's input.

    image_size, network_size: (width, height) in pixels. darknet: boxes are carried as Darknet carries them,
    whose offset may be half a pixel from where it put the picture; else exactly.
    """

    image_size: tuple[int, int]
    network_size: tuple[int, int]
    darknet: bool = False

    def __post_init__(self) -> None:
        for width, height in (self.image_size, self.network_size):
            if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
                raise ImageError(
                    f"{width} x {height} pixels cannot be letterboxed; 1 to {MAX_SIDE} a side can"
                )

    @property
    def content_size(self) -> tuple[int, int]:
        """(width, height) of the scaled picture, in pixels of the network's input; never 0."""
        (w, h), (wide, high) = self.image_size, self.network_size
        # The same as Darknet's wide / w < high / h, but in whole numbers.
        if wide * h < high * w:
            return wide, max(1, h * wide // w)
        return max(1, w * high // h), high

    @property
    def offset(self) -> tuple[int, int]:
        """(left, top) of the scaled picture in the network's input."""
        (w, h), (wide, high) = self.content_size, self.network_size
        return (wide - w) // 2, (high - h) // 2

    def to_image(self, boxes_cxcywh: Tensor) -> Tensor:
        """Boxes (..., 4) in 0..1 of the network's input -> in 0..1 of the picture; not clipped."""
        (left, top), (wide, high) = self._affine()
        x, y, w, h = boxes_cxcywh.unbind(-1)
        return torch.stack(((x - left) / wide, (y - top) / high, w / wide, h / high), -1)

    def to_pixels(self, boxes_cxcywh: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in 0..1 of the network's input -> corners boxes_xyxy (n, 4) in pixels of the picture,
        float32; not clipped. The same values as `to_image` gives."""
        (left, top), (wide, high) = self._affine()
        shift, extent = (np.array(v, np.float32) for v in ((left, top, 0, 0), (wide, high, wide, high)))
        boxes = (boxes_cxcywh - shift) / extent
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        return np.concatenate((centre - half, centre + half), 1) * np.array(2 * self.image_size, np.float32)

    def to_network(self, boxes_cxcywh: Tensor) -> Tensor:
        """The reverse of `to_image`."""
        (left, top), (wide, high) = self._affine()
        x, y, w, h = boxes_cxcywh.unbind(-1)
        return torch.stack((x * wide + left, y * high + top, w * wide, h * high), -1)

    def _affine(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Left and top, width and height of the picture in shares of the network's input."""
        (w, h), (wide, high) = self.content_size, self.network_size
        left, top = ((wide - w) / 2, (high - h) / 2) if self.darknet else self.offset
        return (left / wide, top / high), (w / wide, h / high)


def rect_size(image_size: tuple[int, int], size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The smallest input, (width, height) in whole strides, that holds the picture as it is scaled into
    `size`, at the same scale; of 4:3 three quarters of a square. Ultralytics' `rect`. image_size, size:
    (width, height) in pixels, the latter whole strides. Raises ImageError as `Letterbox`.
    """
    (w, h), (wide, high) = image_size, Letterbox(image_size, size).network_size
    # Whole strides no less than w or h times the smaller of wide / w and high / h, in whole numbers.
    if wide * h < high * w:
        return wide, -(-wide * h // (w * stride)) * stride
    return -(-high * w // (h * stride)) * stride, high


def letterbox(
    image: np.ndarray | Tensor,
    size: tuple[int, int],
    *,
    rect: int | None = None,
    resize: str = "darknet",
    darknet: bool = False,
    image_size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Letterbox]:
    """Fits a picture into `size` = (width, height); rect, a number of pixels: into as many of these as it
    needs, see `rect_size`.

    image: (H, W, 3) uint8 array or tensor, RGB; or (3, H, W) floating point tensor in 0..1. resize:
    "darknet", or "smooth", which averages over the pixels that a smaller one covers. darknet: see
    `Letterbox`. image_size: (width, height) of the picture where `image` is a reduced copy of it
    (images.read_reduced); boxes are then carried back to the picture. Returns the input (3, height, width),
    in 0..1 and of that dtype (rounded from float32), its memory in the order of pixels as networks here like
    it best, and the `Letterbox`. Raises ImageError for another form.
    """
    pixels = as_planes(image)
    image_size = image_size or (pixels.shape[2], pixels.shape[1])
    size = (int(size[0]), int(size[1]))
    box = Letterbox(image_size, rect_size(image_size, size, rect) if rect else size, darknet)
    (w, h), (left, top) = box.content_size, box.offset
    wide, high = box.network_size
    out = torch.empty(high, wide, 3, dtype=dtype).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    for band in (out[:, :top], out[:, top + h :], out[:, :, :left], out[:, :, left + w :]):
        band.fill_(GREY)
    scale(pixels, (w, h), resize, out=out[:, top : top + h, left : left + w])
    return out, box


def scale(
    pixels: Tensor, size: tuple[int, int], resize: str = "darknet", *, out: Tensor | None = None
) -> Tensor:
    """(3, H, W) uint8 or float in 0..1 -> (3, height, width) float32 in 0..1 for `size` = (width, height).

    resize: see `letterbox`. out: where to write it, (3, height, width) of a floating type; it is returned
    then.
    """
    if resize not in RESIZES:
        raise ImageError(f"resize must be one of {', '.join(RESIZES)}, not {resize!r}")
    width, height = size
    if resize == "smooth":
        # As bytes: 40 times as fast on a large photograph as in floating point, and rounded as in training.
        # The batch is made before channels come first: only then PyTorch sees that they lie last, as they do.
        batch = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # (3, H, W) -> (1, 3, H, W)
        smooth = F.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]
        if smooth.dtype == torch.uint8:
            # Bytes are exact in bfloat16, too, so that the quotient is rounded once.
            return smooth.float().div_(255) if out is None else out.copy_(smooth).div_(255)
        # In floating point its weights add up to 1 only to rounding.
        return _put(_unit(smooth).clamp_(0, 1), out)
    # Only the rows that are looked at become floating point: of a large photograph those are few.
    upper, lower, down = _samples(pixels.shape[1], height)
    rows = torch.lerp(_unit(pixels[:, upper]), _unit(pixels[:, lower]), down[:, None])  # (3, height, W)
    left, right, across = _samples(pixels.shape[2], width)
    return _put(torch.lerp(rows[:, :, left], rows[:, :, right], across), out)


def _put(values: Tensor, out: Tensor | None) -> Tensor:
    return values if out is None else out.copy_(values)


def as_planes(image: np.ndarray | Tensor) -> Tensor:
    """(H, W, 3) uint8 or (3, H, W) float in 0..1, array or tensor -> tensor (3, H, W) of the same type."""
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    if not isinstance(image, Tensor):
        raise ImageError(f"a picture is an array or a tensor here, not {type(image).__name__}")
    shape = tuple(image.shape)
    if image.dtype == torch.uint8 and len(shape) == 3 and shape[2] == 3 and min(shape) > 0:
        return image.permute(2, 0, 1)
    if image.is_floating_point() and len(shape) == 3 and shape[0] == 3 and min(shape) > 0:
        return image
    raise ImageError(
        f"a picture is (H, W, 3) uint8 or (3, H, W) floating point, not {shape} of {image.dtype}"
    )


def _unit(pixels: Tensor) -> Tensor:
    """float32 in 0..1."""
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels.to(torch.float32)


def _samples(extent: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """For `count` samples from the first to the last of `extent` pixels: (count,) the pixel before, the one
    after, and the share of the latter.
    """
    place = torch.arange(count, dtype=torch.float64) * ((extent - 1) / max(1, count - 1))
    before = place.floor().long().clamp_(max=extent - 1)
    return before, (before + 1).clamp_(max=extent - 1), (place - before).float()
