"""Small pictures, samples and trees for the tests of data_prep."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.sample import Sample
from wordtree import WordTree


@pytest.fixture(scope="session")
def tree() -> WordTree:
    """animal (cat, dog (husky, poodle)), thing (car, cup): depth 2, ids like WordNet's."""
    ids = [
        "n00000001",
        "n00000002",
        "n00000003",
        "n00000004",
        "n00000005",
        "n00000006",
        "n00000007",
        "n00000008",
    ]
    names = ["animal", "thing", "cat", "dog", "car", "cup", "husky", "poodle"]
    return WordTree(ids, [-1, -1, 0, 0, 1, 1, 3, 3], names)


@pytest.fixture(scope="session")
def tree_file(tree, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tree") / "tree.json"
    tree.save(path)
    return path


def picture(width: int = 20, height: int = 10, kind: str = "JPEG", seed: int = 0, **options) -> bytes:
    """Encoded noise of that size."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind, **options)
    return out.getvalue()


def sample(name: str = "a.jpg", image: bytes = b"bytes", boxes: int = 1, **changes) -> Sample:
    """A sound sample; `changes` replace fields."""
    fields = {
        "name": name,
        "image": image,
        "width": 20,
        "height": 10,
        "boxes_cxcywh": np.tile(np.asarray([[0.5, 0.5, 0.25, 0.5]], np.float32), (boxes, 1)),
        "labels": np.arange(boxes) % 8,
        "image_labels": np.zeros(0, np.int64),
        "negative_labels": np.zeros(0, np.int64),
        "crowd": np.zeros(boxes, bool),
        "difficult": np.zeros(boxes, bool),
        "source": "test",
        "boxed": True,
    }
    return Sample(**{**fields, **changes})


def same(a: Sample, b: Sample) -> bool:
    """Whether all fields of two samples are equal, types of arrays included."""
    for field in a.__dataclass_fields__:
        left, right = getattr(a, field), getattr(b, field)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or not np.array_equal(left, right):
                return False
        elif left != right or type(left) is not type(right):
            return False
    return True


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    """An uncompressed tar with these members."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def coco_of(path: Path, images: dict[str, tuple], boxes: list[tuple], categories: dict[int, str]) -> Path:
    """COCO JSON: images name -> (width, height); boxes (image name, category id, [l, t, w, h], further
    fields)."""
    ids = {name: number for number, name in enumerate(images, 1)}
    content = {
        "images": [
            {"id": ids[name], "file_name": name, "width": size[0], "height": size[1]}
            for name, size in images.items()
        ],
        "annotations": [
            {"id": k, "image_id": ids[name], "category_id": category, "bbox": box, "iscrowd": 0, **more}
            for k, (name, category, box, more) in enumerate(boxes, 1)
        ],
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def make():
    """The helpers above, as a namespace: with importlib's import mode tests cannot import their conftest."""

    class Make:
        picture = staticmethod(picture)
        sample = staticmethod(sample)
        same = staticmethod(same)
        tar_of = staticmethod(tar_of)
        coco_of = staticmethod(coco_of)

    return Make


@pytest.fixture
def data(tmp_path, make):
    """Three boxed pictures with categories named by id, and four pictures in class folders."""
    (tmp_path / "boxed").mkdir()
    for k in range(3):
        (tmp_path / "boxed" / f"{k}.jpg").write_bytes(make.picture(20, 10, seed=k))
    make.coco_of(
        tmp_path / "boxes.json",
        {f"{k}.jpg": (20, 10) for k in range(3)},
        [
            ("0.jpg", 1, [2, 1, 10, 5], {}),
            ("0.jpg", 2, [0, 0, 20, 10], {"iscrowd": 1}),
            ("1.jpg", 2, [15, 5, 10, 10], {}),
        ],
        {1: "n00000003", 2: "n00000004", 3: "unused"},
    )
    for name in ("n00000005/a.jpg", "n00000005/b.jpg", "n00000006/a.jpg", "n00000007/c.jpg"):
        (tmp_path / "classes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "classes" / name).write_bytes(make.picture(8, 8, "PNG"))
    return tmp_path
