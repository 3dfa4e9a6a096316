"""Inputs no larger than a picture needs (`rect`): the same scale as in a square, answers as with that size
said, and each picture once, whatever runs together."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep import Sample, Store, StoreWriter
from tests.yolo9000 import toys
from tests.yolo9000.small import small_detector
from tests.yolo9000.test_detector import assert_equal, picture
from yolo9000.cli.eval import command as eval_command
from yolo9000.detector import Detector
from yolo9000.errors import ImageError
from yolo9000.evaluate import evaluate
from yolo9000.fitted import alike
from yolo9000.head import LazyOutput
from yolo9000.heldout import EvalSettings, Pictures
from yolo9000.letterbox import Letterbox, letterbox, rect_size
from yolo9000.modelfile import save_model
from yolo9000.network import Network
from yolo9000.spec import Convolution, NetworkSpec, Region

SHAPES = [(90, 60), (60, 90), (64, 64), (1, 500), (700, 3), (33, 57), (90, 61), (45, 30)]  # width, height
sides = st.one_of(st.integers(1, 40), st.integers(1, 2**16))


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 8, 16, 32]))
def test_the_picture_is_scaled_as_without_and_less_than_a_stride_is_left_over(w, h, across, down, stride):
    size = across * stride, down * stride
    rect = rect_size((w, h), size, stride)
    box = Letterbox((w, h), rect)
    assert box.content_size == Letterbox((w, h), size).content_size
    for side, most in zip(rect, size, strict=True):
        assert 0 < side <= most and side % stride == 0
    scaled = min(size[0] / w, size[1] / h)
    assert all(r - scaled * side < stride + 1e-6 for r, side in zip(rect, (w, h), strict=True))
    assert rect[0] == size[0] or rect[1] == size[1]
    assert rect_size((w, h), rect, stride) == rect


def test_sizes_in_numbers():
    assert rect_size((640, 480), (416, 416), 32) == (416, 320)
    assert rect_size((1920, 1080), (416, 416), 32) == (416, 256)
    assert rect_size((1080, 1920), (416, 416), 32) == (256, 416)
    assert rect_size((640, 480), (256, 256), 16) == (256, 192)  # nothing left over
    assert rect_size((5000, 1), (416, 416), 32) == (416, 32)
    for image, size in (((0, 5), (64, 64)), ((5, 5), (64, 0))):
        with pytest.raises(ImageError, match="cannot be letterboxed"):
            rect_size(image, size, 32)


@pytest.mark.parametrize("resize", ["smooth", "darknet"])
def test_only_grey_is_left_out(resize):
    image = picture(4, 96, 72)
    whole, _ = letterbox(image, (64, 64), resize=resize)
    cut, box = letterbox(image, (64, 64), rect=16, resize=resize)
    assert torch.equal(cut, whole[:, 8:56]) and box == Letterbox((96, 72), (64, 48))
    assert (whole[:, :8] == 0.5).all() and (whole[:, 56:] == 0.5).all()


@pytest.mark.parametrize("resize", ["smooth", "darknet"])
def test_answers_are_those_of_the_size_said(resize):
    net = small_detector("stored")
    detector = Detector(net, precision="float32", resize=resize, rect=True)
    square = Detector(net, precision="float32", resize=resize)
    fewer = 0
    for seed, shape in enumerate(SHAPES):
        rect = rect_size(shape, (96, 96), detector.stride)
        fewer += rect != (96, 96)
        one = picture(seed, *shape)
        assert_equal(detector(one, 0.1, size=96), square(one, 0.1, size=rect))
    assert fewer == 7
    same = picture(0, 64, 64)
    assert_equal(detector(same, 0.1), square(same, 0.1))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_pictures_of_any_shapes_together_are_answered_in_order(batch):
    detector = Detector(small_detector(), precision="float32", rect=True)
    pictures = [picture(k, *shape) for k, shape in enumerate(2 * SHAPES)]
    single = [detector(one, 0.1) for one in pictures]
    assert sum(map(len, single)) > 20
    for many in (
        detector(pictures, 0.1, batch=batch),
        list(detector.stream(pictures, batch=batch, threshold=0.1)),
    ):
        assert len(many) == len(pictures)
        for a, b in zip(single, many, strict=True):
            assert_equal(a, b)


def test_inputs_of_one_size_are_alike():
    detector = Detector(small_detector(), precision="float32", rect=True)
    fitted = [detector.fit(picture(k, *shape)) for k, shape in enumerate(SHAPES)]
    groups = list(alike(fitted))
    assert sorted(k for rows in groups for k in rows) == list(range(len(SHAPES)))
    for rows in groups:
        assert len({fitted[k].image.shape for k in rows}) == 1 and rows == sorted(rows)
    assert len({fitted[rows[0]].image.shape for rows in groups}) == len(groups) < len(SHAPES)
    assert list(alike([])) == []


class Knows(Network):
    """A detector that is told what is on a picture, which it knows again by its colour, and carries the
    truth into its input by `Letterbox`."""

    def __init__(self, known: list[Sample]) -> None:
        region = Region(((1.0, 1.0),), len(toys.TREE), boxes=0, features=0)
        conv = Convolution(5, 3, stride=8, activation="linear", batch_normalize=False)
        super().__init__(NetworkSpec(64, 64, (conv, region)), toys.TREE)
        self.known, self.seen = known, []

    def lazy(self, images: torch.Tensor) -> LazyOutput:
        high, wide = images.shape[2] // 8, images.shape[3] // 8
        boxes = torch.full((len(images), 5, high, wide), -20.0)
        features = torch.zeros(len(images), len(toys.TREE), high, wide)
        for k, image in enumerate(images):
            number = round(float(image[0, 4 * high, 4 * wide]) * 255) // 10
            sample = self.known[number]
            self.seen.append((number, (8 * wide, 8 * high)))
            box = Letterbox((sample.width, sample.height), (8 * wide, 8 * high))
            truth = torch.from_numpy(sample.boxes_cxcywh[0] if sample.boxed else np.full(4, 0.5, np.float32))
            cx, cy, w, h = (box.to_network(truth) * torch.tensor([wide, high, wide, high])).tolist()
            i, j = int(cx), int(cy)
            boxes[k, :2, j, i] = torch.tensor([cx - i, cy - j]).clamp(1e-4, 1 - 1e-4).logit()
            boxes[k, 2:4, j, i] = torch.tensor([w, h]).log()
            boxes[k, 4, j, i] = 5
            for node in (int(sample.nodes[0]), toys.TREE.parents[int(sample.nodes[0])]):
                features[k, node, j, i] = 8
        nodes = len(toys.TREE)
        return LazyOutput(boxes, features, torch.eye(nodes)[None], torch.zeros(1, nodes), None, nodes, 1)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several shapes, each of one colour; some have a label only."""
    path = tmp_path_factory.mktemp("shapes") / "v.h5"
    random, none = np.random.default_rng(0), np.zeros(0, np.int64)
    with StoreWriter(path, toys.TREE) as writer:
        for k, (w, h) in enumerate(
            [(96, 48), (48, 96), (64, 64), (96, 48), (90, 61), (64, 48), (32, 24), (96, 47)]
        ):
            file = io.BytesIO()
            Image.new("RGB", (w, h), (10 * k + 5, 0, 0)).save(file, "PNG")
            boxed = k < 2 or bool(k % 2)
            size = random.uniform(0.3, 0.5, 2)
            box = np.concatenate((random.uniform(size / 2, 1 - size / 2), size)).astype(np.float32)
            writer.add(
                Sample(
                    name=f"{k}",
                    image=file.getvalue(),
                    width=w,
                    height=h,
                    boxes_cxcywh=box[None] if boxed else np.zeros((0, 4), np.float32),
                    labels=np.array([2 + k % 4] if boxed else [], np.int64),
                    image_labels=none if boxed else np.array([2 + k % 4]),
                    negative_labels=none,
                    crowd=np.zeros(int(boxed), bool),
                    difficult=np.zeros(int(boxed), bool),
                    source="shapes",
                    boxed=boxed,
                )
            )
    return path


@pytest.mark.parametrize("batch", [1, 2, 32])
@pytest.mark.parametrize("rect", [False, True])
def test_held_out_pictures_are_judged_where_they_lie(rect, batch, packed):
    store = Store(packed)
    net = Knows([store[k] for k in range(len(store))])
    result = evaluate(
        net, [store], EvalSettings(rect=rect, batch=batch, workers=0, resamples=0, precision="float32")
    )
    assert result["rect"] is rect and result["pictures"] == 8
    boxes, labels = result["boxes"], result["labels"]
    assert boxes["truths"] == 5
    for scores in (boxes, boxes["any_class"]):  # places differ by the whole pixels of one and not the other
        assert scores["AP50"] == pytest.approx(1) and scores["AP"] > 0.97
    assert labels["pictures"] == 3 and labels["greedy"] == 1
    assert sorted(number for number, _ in net.seen) == list(range(8))
    for number, size in net.seen:
        shape = int(store.widths[number]), int(store.heights[number])
        assert size == (rect_size(shape, (64, 64), 8) if rect else (64, 64))


def test_limit_and_batches_of_held_out_pictures(packed):
    store = Store(packed)
    pictures = Pictures([store], EvalSettings(size=64, rect=True, batch=2, limit=5), 8)
    batches = [pictures[k] for k in range(len(pictures))]
    assert sorted(int(place) for _, _, places in batches for place in places) == list(range(5))
    for canvas, placements, places in batches:
        assert len(canvas) == len(placements) == len(places) <= 2
    in_order = Pictures([store], EvalSettings(size=64, batch=3), 8)
    assert [in_order[k][2].tolist() for k in range(len(in_order))] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert len(Pictures([store], EvalSettings(size=64, rect=True, limit=1), 8)) == 1


def test_commands_take_rect(run, packed, tmp_path):
    model = tmp_path / "m.safetensors"
    net = small_detector("stored")
    save_model(net, model, defaults={"threshold": 0.1})
    Image.fromarray(picture(1, 90, 50)).save(tmp_path / "x.png")
    words = ("detect", tmp_path / "x.png", "--model", model, "--json", "--precision", "float32")
    status, out, _ = run(*words, "--rect")
    expected = Detector.load(model, precision="float32", rect=True)(tmp_path / "x.png")
    assert status == 0 and json.loads(out)["pictures"] == [json.loads(expected.to_json())]
    assert json.loads(run(*words)[1])["pictures"] != json.loads(out)["pictures"]

    words = [str(model), "--data", str(packed), "--workers", "0", "--size", "64"]
    done = CliRunner().invoke(eval_command, [*words, "--rect"])
    assert done.exit_code == 0, done.output
    assert "8 pictures at 64 px, rect" in done.output
    assert ", rect" not in CliRunner().invoke(eval_command, words).output


def test_parts_of_a_large_job_are_told_apart(tmp_path):
    distributed = pytest.importorskip("yolo9000.distributed.detecting")
    model = tmp_path / "m.safetensors"
    save_model(small_detector("stored"), model)
    make = distributed.DetectPictures
    plain, rect = make(model, threads=None), make(model, threads=None, rect=True)
    assert rect.detector.rect and make(**rect.words).detector.rect
    assert rect.facts()["options"].pop("rect") and "rect" not in plain.facts()["options"]
    assert plain.facts() != rect.facts()
