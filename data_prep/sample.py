"""Sample: one picture with all that is known about it, labels as node indices of a WordTree.

Not here: file formats (store.py, writer.py).
"""

from dataclasses import dataclass, field

import numpy as np

from data_prep.errors import DataError

_LARGEST = 2**31 - 1  # pixels a side: what a column of the store holds


def _no_nodes() -> np.ndarray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture, as it lies in a store and as training takes it.

    `image` is the encoded file, untouched. `width` and `height` are those of the upright picture (EXIF
    rotation applied), in pixels; boxes are in that frame.

    boxes_cxcywh: float32 (n, 4), centre x, centre y, width, height in 0..1 of the upright picture.
    labels: int64 (n,), node index of each box. crowd, difficult: bool (n,).
    image_labels: int64 (m,), nodes known to be somewhere in the picture.
    negative_labels: int64 (k,), nodes verified to be nowhere in the picture.
    not_exhaustive_labels: int64 (q,), nodes of which more may be in the picture than there are boxes (LVIS).
    boxed: the picture's boxes are given (perhaps none: background). False: nobody drew boxes here; there may
        be image_labels, or nothing at all (unlabelled).
    """

    name: str
    image: bytes
    width: int
    height: int
    boxes_cxcywh: np.ndarray
    labels: np.ndarray
    image_labels: np.ndarray
    negative_labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    source: str
    boxed: bool
    not_exhaustive_labels: np.ndarray = field(default_factory=_no_nodes)

    @property
    def nodes(self) -> np.ndarray:
        """All nodes this picture is a positive example of: labels of boxes, then image_labels; int64 (n +
        m,)."""
        return np.concatenate([self.labels, self.image_labels])

    def validate(self, nodes: int) -> None:
        """Raise DataError unless shapes agree, boxes are finite, positive and inside, and labels are in
        0..nodes-1."""
        n = len(self.labels)
        try:
            self.name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise DataError(f"{self.name!r}: the name holds half a character ({error.reason})") from error
        if not self.image:
            raise DataError(f"{self.name}: no image bytes")
        if not (1 <= self.width <= _LARGEST and 1 <= self.height <= _LARGEST):
            raise DataError(f"{self.name}: size {self.width} x {self.height} is not that of a picture")
        if self.boxes_cxcywh.shape != (n, 4) or self.crowd.shape != (n,) or self.difficult.shape != (n,):
            raise DataError(
                f"{self.name}: {n} labels, but boxes {self.boxes_cxcywh.shape}, crowd {self.crowd.shape}, "
                f"difficult {self.difficult.shape}"
            )
        if n and not self.boxed:
            raise DataError(f"{self.name}: marked as without boxes, but has {n}")
        wrong = ~sound(self.boxes_cxcywh)
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{self.name}: box {k} is {self.boxes_cxcywh[k].tolist()}, not a box inside 0..1")
        for what in ("labels", "image_labels", "negative_labels", "not_exhaustive_labels"):
            values = getattr(self, what)
            inside = values.ndim == 1 and (
                not len(values) or (values.dtype.kind in "iu" and values.min() >= 0 and values.max() < nodes)
            )
            if not inside:
                raise DataError(
                    f"{self.name}: {what} {values.tolist()[:8]} are not nodes of a tree of {nodes}"
                )


def sound(boxes_cxcywh: np.ndarray) -> np.ndarray:
    """bool (n,): finite, with positive sides, and inside 0..1."""
    slack = 1e-5  # float32 holds centre and side apart, so a box along the border may stick out by a rounding
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] / 2
    with np.errstate(invalid="ignore"):
        return (
            np.isfinite(boxes_cxcywh).all(axis=1)
            & (half > 0).all(axis=1)
            & (centre - half >= -slack).all(axis=1)
            & (centre + half <= 1 + slack).all(axis=1)
        )
