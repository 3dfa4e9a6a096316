"""Packed pictures in a network's input: as training draws them, or as Darknet does for models that are its
own. What is detected on is letterbox.py's alone."""

import numpy as np
import torch
from torch import Tensor

from yolo9000 import augment
from yolo9000.boxes import cxcywh_to_xyxy
from yolo9000.images import read_image
from yolo9000.letterbox import letterbox


def placed(picture: bytes, size: tuple[int, int], resize: str) -> tuple[Tensor, augment.Placement]:
    """An encoded picture in an input of (width, height), (height, width, 3), and where it lies there.

    resize: a detector's; under "smooth" the values are uint8, under "darknet" float32 in 0..1. Raises
    ImageError or OSError for what is no picture.
    """
    width, height = size
    view = (0, 0, width, height)
    if resize == "darknet":
        image, box = letterbox(read_image(picture), size, resize=resize, darknet=True)
        source = cxcywh_to_xyxy(box.to_image(torch.tensor([0.5, 0.5, 1, 1], dtype=torch.float64)))
        return image.permute(1, 2, 0), augment.Placement(tuple(source.tolist()), view)
    canvas = np.full((height, width, 3), augment.GREY, np.uint8)
    image = augment.open_image(picture)
    placement = augment.letterbox(*image.size, view)
    augment.draw(image, placement, canvas)
    return torch.from_numpy(canvas), placement


def as_input(canvases: Tensor) -> Tensor:
    """Several of `placed`, (N, height, width, 3), as a network takes them: (N, 3, height, width), float32 in
    0..1."""
    images = canvases.permute(0, 3, 1, 2)
    return images if images.is_floating_point() else images.float().div_(255.0)
