"""The keywords of a call of a Detector as type checkers and editors see them, and what a picture may be.

What they mean is Detector.__call__'s to say; the words of other YOLO packages are habits.py's."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image
from torch import Tensor

Picture = str | Path | bytes | Image.Image | np.ndarray | Tensor
Pictures = Sequence[Picture]
Nodes = str | Iterable[str | int] | None
Size = int | tuple[int, int] | None


class Keywords(TypedDict, total=False):
    """Ours, then theirs. None is not given."""

    threshold: float | None
    rule: str | None
    nms_iou: float | None
    tree_threshold: float | None
    vote_iou: float | None
    nms: str | None
    size: Size
    mapped: bool | None
    clip: bool | None
    max_detections: int | None
    level: int | Nodes
    vocabulary: Nodes
    accuracy: float | None
    hedge_lambda: float | None
    score: str | None
    batch: int | None

    conf: float | None
    conf_thres: float | None
    iou: float | None
    iou_thres: float | None
    imgsz: Size
    img_size: Size
    max_det: int | None
    classes: int | Nodes
