"""Toy data for the tests of training: coloured squares on grey noise, packed as data-prep packs."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep import Sample, StoreWriter
from wordtree import WordTree

# Two kinds of thing with two colours each, so that one level of the tree can be learnt without the other.
TREE = WordTree(["warm", "cold", "red", "yellow", "green", "blue"], [-1, -1, 0, 0, 1, 1])
COLOURS = {2: (230, 30, 30), 3: (230, 220, 30), 4: (30, 200, 40), 5: (40, 60, 230)}


def square_sample(
    number: int, size: int = 64, boxed: bool = True, kind: str = "PNG", source: str = "squares"
) -> Sample:
    """A picture with one or two squares, the same for the same number."""
    random = np.random.default_rng(number)
    pixels = random.integers(90, 130, (size, size, 3)).astype(np.uint8)
    boxes, labels = [], []
    for _ in range(1 if not boxed else 1 + number % 2):
        side = int(random.integers(size // 4, size // 2))
        x, y = (int(v) for v in random.integers(0, size - side, 2))
        label = 2 + int(random.integers(4))
        pixels[y : y + side, x : x + side] = COLOURS[label]
        boxes.append([(x + side / 2) / size, (y + side / 2) / size, side / size, side / size])
        labels.append(label)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    none = np.zeros(0, np.int64)
    return Sample(
        name=f"{source}/{number}",
        image=file.getvalue(),
        width=size,
        height=size,
        boxes_cxcywh=np.array(boxes if boxed else np.zeros((0, 4)), np.float32).reshape(-1, 4),
        labels=np.array(labels if boxed else [], np.int64),
        image_labels=none if boxed else np.array(labels, np.int64),
        negative_labels=none,
        crowd=np.zeros(len(labels) if boxed else 0, bool),
        difficult=np.zeros(len(labels) if boxed else 0, bool),
        source=source,
        boxed=boxed,
    )


def pack_squares(
    path: Path, boxed: int, labelled: int = 0, first: int = 0, size: int = 64, single: bool = False
) -> Path:
    """Packs `boxed` pictures with boxes and `labelled` ones with labels only. single: no boxed picture has a
    second square, which might hide the first."""
    with StoreWriter(path, TREE) as writer:
        for k in range(boxed):
            writer.add(square_sample(first + (2 * k if single else k), size))
        for k in range(labelled):
            writer.add(square_sample(100_000 + first + k, size, boxed=False, source="labels"))
    return path


def prepare(folder: Path, cfg: str, val: tuple[int, int] | None = None, **train: int) -> Path:
    """A folder to train in: toy.cfg, tree.json, train.h5 of so many `boxed` and `labelled` squares, and
    val.h5 of as many others as val says. Returns the folder."""
    (folder / "toy.cfg").write_text(cfg)
    TREE.save(folder / "tree.json")
    pack_squares(folder / "train.h5", **train)
    if val is not None:
        pack_squares(folder / "val.h5", *val, first=5000)
    return folder
