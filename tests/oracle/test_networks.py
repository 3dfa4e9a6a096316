"""Networks against what Darknet itself computed, for each one in ../shared/oracle, and a second witness.

Not here: detections (decoding, descent and suppression have their own tests) and losses.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from yolo9000 import cfg, darknet
from yolo9000.letterbox import letterbox
from yolo9000.network import Network

from .darknet_numpy import forward

pytestmark = pytest.mark.reference

DETECTORS = ["yolov2", "yolov2-photo", "yolov2-tiny", "yolo9000", "yolo9000-photo"]
DETECTORS += ["real-coco-dog", "real-voc-dog", "real-voc-horses-nobn"]
CLASSIFIERS = ["darknet19-photo", "darknet9000-photo", "real-imagenet-eagle"]
# Its [cost] layer comes last and is what was written down: all 0, as it computes nothing without a truth.
EMPTY = "darknet9000-photo"


@dataclass(frozen=True)
class Case:
    """One folder of the reference results."""

    cfg: Path
    weights: Path
    root: Path
    expected: dict[str, np.ndarray]

    def load(self) -> Network:
        return darknet.load(self.cfg, self.weights, self.root)

    @property
    def images(self) -> torch.Tensor:
        """(1, 3, H, W)"""
        return torch.from_numpy(self.expected["input"])[None]

    def by_hand(self) -> dict[str, np.ndarray]:
        return forward(self.cfg, self.weights, self.expected["input"], self.root)


@pytest.fixture
def case(request, shared) -> Case:
    folder = shared / "oracle" / request.param
    with np.load(folder / "expected.npz") as arrays:
        expected = dict(arrays)
    weights = folder / "net.weights"
    if "weights" in expected:
        (weights,) = (shared / "weights").rglob(str(expected["weights"]))
    config = folder / "net.cfg" if weights.parent == folder else weights.with_suffix(".cfg")
    return Case(config, weights, shared / "darknet", expected)


def every(*names: str):
    return pytest.mark.parametrize("case", [name for group in names for name in group], indirect=True)


def close(found: torch.Tensor, expected: np.ndarray, share: float) -> None:
    """Every value within this share of the largest one."""
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=share * np.abs(expected).max())


def test_no_case_is_forgotten(shared):
    folders = {p.name for p in (shared / "oracle").iterdir() if (p / "expected.npz").is_file()}
    assert {name for name in folders if not name.startswith("region-")} == {*DETECTORS, *CLASSIFIERS}


@every(DETECTORS)
@torch.no_grad()
def test_what_enters_the_region_layer(case):
    """Within 1e-4 of the largest value, whichever way it is computed; measured: 1.5e-6."""
    net = case.load()
    expected = case.expected["before_region"]
    close(net(case.images)[0], expected, 1e-4)
    close(net.lazy(case.images).dense()[0], expected, 1e-4)
    close(net.fuse()(case.images)[0], expected, 1e-4)
    close(net.fuse().to(memory_format=torch.channels_last)(case.images)[0], expected, 1e-4)
    close(net(torch.cat([case.images] * 3))[2], expected, 1e-4)


@every(["yolov2", "yolov2-photo"])
@torch.no_grad()
def test_reorg(case):
    net = case.load()
    (index,) = [i for i, layer in enumerate(net.spec) if layer.kind == "reorg"]
    close(net.features(case.images, index)[0], case.expected["reorg"], 1e-4)


@every(CLASSIFIERS)
@torch.no_grad()
def test_classifiers(case, request):
    net = case.load()
    found = net(case.images)[0]
    expected = case.expected["output"]
    if not expected.any():
        assert EMPTY in request.node.name
        expected = case.by_hand()["softmax"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(net.fuse()(case.images)[0].numpy(), expected, rtol=0, atol=1e-5)


@every(["darknet19-photo", "yolov2", "yolov2-tiny", "yolo9000-photo", "real-voc-dog"])
def test_the_second_witness_agrees_with_darknet(case):
    found = case.by_hand()
    if "output" in case.expected:
        np.testing.assert_allclose(found["softmax"], case.expected["output"], rtol=0, atol=1e-5)
    else:
        close(torch.from_numpy(found["convolutional"]), case.expected["before_region"], 1e-4)


@every(DETECTORS, CLASSIFIERS)
def test_load_save_load_is_byte_identical(case, tmp_path):
    net = case.load()
    again = tmp_path / "again.weights"
    darknet.save(net, again)
    assert again.read_bytes() == case.weights.read_bytes()
    second = darknet.load(case.cfg, again, case.root)
    assert second.seen == net.seen and second.version == net.version
    for (name, a), (other, b) in zip(net.state_dict().items(), second.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)


@every(["yolov2"])
def test_seen_is_read(case):
    assert case.load().seen == 123456  # ../shared/oracle/README.md


@every(DETECTORS, CLASSIFIERS)
def test_a_cfg_says_the_same_when_written_again(case):
    spec = cfg.read(case.cfg)
    assert cfg.parse(cfg.format(spec)) == spec


@every(["yolo9000"])
def test_tree_and_map_come_with_the_network(case):
    net = case.load()
    assert len(net.tree) == net.classes == 9418 and net.tree.ids[0].startswith("n")
    assert net.class_map.shape == (80,) and 0 <= int(net.class_map.min()) <= int(net.class_map.max()) < 9418


PHOTOS = [name for name in DETECTORS + CLASSIFIERS if "photo" in name or name.startswith("real-")]


@every(PHOTOS)
def test_letterbox(case, shared):
    """Within 2/255 at the 99th percentile (JPEG decoders differ by about 1/255)."""
    photo = Image.open(shared / "photos" / str(case.expected["photo"])).convert("RGB")
    _, height, width = case.expected["input"].shape
    found, box = letterbox(np.asarray(photo), (width, height))
    assert box.image_size == tuple(case.expected["image_size"])
    difference = np.abs(found.numpy() - case.expected["input"])
    assert np.percentile(difference, 99) < 2 / 255
    grey = case.expected["input"] == 0.5
    assert (found.numpy() == 0.5)[:, grey.all((0, 2))].all()  # the border is in the same rows


@pytest.mark.slow
@torch.no_grad()
def test_tiny_darknet_names_photographs(shared):
    """Top-1 of 59% or more over 500 ILSVRC photographs: shorter side to 224, bilinear, centre crop."""
    folder = shared / "weights" / "tiny-darknet"
    net = darknet.load(folder / "tiny.cfg", folder / "tiny.weights").fuse()
    classes = (shared / "darknet" / "data" / "imagenet.labels.list").read_text().splitlines()[:1000]
    right = top5 = count = 0
    with tarfile.open(shared / "data" / "imagenet1k-sample" / "images.tar") as tar:
        for member in tar:
            if not member.isfile():
                continue
            photo = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
            size = [max(224, round(side * 224 / min(photo.size))) for side in photo.size]
            photo = photo.resize(size, Image.Resampling.BILINEAR)
            left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
            pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)))
            best = net(torch.tensor(pixels).permute(2, 0, 1)[None] / 255)[0].topk(5).indices.tolist()
            wanted = classes.index(Path(member.name).parent.name)
            right, top5, count = right + (best[0] == wanted), top5 + (wanted in best), count + 1
    assert count == 500
    assert right / count >= 0.59 and top5 / count >= 0.83, (right / count, top5 / count)
