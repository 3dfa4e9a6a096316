"""Judging boxes: which of them are boxes in a picture at all, and what is wrong with the rest.

Pure functions over arrays.
"""

import numpy as np

# Annotation tools round to a tenth or to whole pixels: a box that sticks out by less than this is not worth a
# report.
_ROUNDING = 1.0  # pixel

# Shares are written with six decimals: the centre is off by half of the last one, half a side by a quarter.
_WRITTEN = 0.75e-6

# A side below this is no side: it would vanish in float32 shares of a large picture.
_SMALLEST = 0.01  # pixel


def judge(boxes_xyxy: np.ndarray, categories: tuple, size: tuple[int, int]) -> list[list[str]]:
    """The kinds of fault (data_prep.record.KINDS) of each box.

    Args:
        boxes_xyxy: (n, 4) in pixels. categories: n keys. size: (width, height) of the picture the boxes are
            in.
    """
    found: list[list[str]] = [[] for _ in range(len(boxes_xyxy))]

    def note(kind: str, which: np.ndarray) -> np.ndarray:
        for k in np.flatnonzero(which):
            found[k].append(kind)
        return which

    finite = np.isfinite(boxes_xyxy).all(axis=1)
    note("box not finite", ~finite)
    boxes = np.where(finite[:, None], boxes_xyxy, 0)
    low, high, limit = boxes[:, :2], boxes[:, 2:], np.asarray(size, float)
    inverted = note("box inverted", finite & (high < low).any(axis=1))
    empty = note("box empty", finite & ~inverted & (_sides(boxes) < _SMALLEST).any(axis=1))
    area = finite & ~inverted & ~empty
    outside = note("box outside", area & (_sides(clip(boxes, size)) < _SMALLEST).any(axis=1))
    before, after = low < -_ROUNDING, high > limit + _ROUNDING
    larger = note("box larger than picture", area & ~outside & (before & after).any(axis=1))
    note("box cut", area & ~outside & ~larger & (before | after).any(axis=1))
    seen: dict[tuple, int] = {}
    for k in np.flatnonzero(area):
        if seen.setdefault((*boxes_xyxy[k].tolist(), categories[k]), int(k)) != k:
            found[k].append("box duplicate")
    return found


def usable(boxes_xyxy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (n,): finite and with some area inside a picture of `size` (width, height)."""
    finite = np.isfinite(boxes_xyxy).all(axis=1)
    boxes = np.where(finite[:, None], boxes_xyxy, 0)
    # A box can have sides and yet none in the picture, and the other way round where it is inverted.
    both = np.minimum(_sides(boxes), _sides(clip(boxes, size)))
    return finite & (both >= _SMALLEST).all(axis=1)


def _sides(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(n, 2) width and height."""
    with np.errstate(over="ignore"):  # annotated coordinates can be as large as floats get
        return boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]


def clip(boxes_xyxy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes cut to a picture of `size` (width, height)."""
    return np.clip(boxes_xyxy, 0, np.asarray([*size, *size], float))


def to_pixels(shares_xyxy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes in 0..1 into pixels of a picture of `size`.

    An edge that six decimals cannot tell from a whole pixel is that whole pixel: boxes drawn on pixels and
    written as shares come back as they were drawn, and no edge moves further than its rounding did.
    """
    scale = np.asarray([*size, *size], float)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = shares_xyxy * scale
        whole = np.round(boxes)
        return np.where(np.abs(boxes - whole) <= _WRITTEN * scale, whole, boxes)


def to_shares(boxes_xyxy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels to float32 (n, 4) centre and sides in 0..1 of a picture of `size`."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    scaled = np.concatenate([(low + high) / 2, high - low], axis=1) / np.asarray([*size, *size], float)
    return scaled.astype(np.float32)


def set_upright(boxes_xyxy: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Boxes of a picture as it is stored, `size` (width, height), into the frame after its EXIF orientation
    (1..8) is applied."""
    left, top, right, bottom = boxes_xyxy.T
    width, height = size
    corners = {
        1: (left, top, right, bottom),
        2: (width - right, top, width - left, bottom),
        3: (width - right, height - bottom, width - left, height - top),
        4: (left, height - bottom, right, height - top),
        5: (top, left, bottom, right),
        6: (height - bottom, left, height - top, right),
        7: (height - bottom, width - right, height - top, width - left),
        8: (top, width - right, bottom, width - left),
    }[orientation]
    return np.stack(corners, axis=1)
