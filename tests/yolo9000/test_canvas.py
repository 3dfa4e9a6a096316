"""Packed pictures in the input that the model's own detector has: its size, and its way of scaling."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import Store, StoreWriter
from tests.yolo9000.small import picture, small_detector
from tests.yolo9000.toys import TREE, pack_squares, square_sample
from yolo9000 import augment, propose
from yolo9000.boxes import cxcywh_to_xyxy, decode
from yolo9000.canvas import as_input, placed
from yolo9000.detector import Detector
from yolo9000.errors import TrainingError
from yolo9000.heldout import EvalSettings, HeldOut


def encoded(width: int, height: int) -> bytes:
    file = io.BytesIO()
    picture(1, width, height).save(file, "PNG")
    return file.getvalue()


def darknets(size: tuple[int, int] = (96, 64)) -> Detector:
    net = small_detector("shared")
    net.defaults = {"size": list(size), "resize": "darknet"}
    return Detector(net, precision="float32")


@pytest.mark.parametrize("shape", [(90, 61), (31, 75), (200, 100)])
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_darknets_is_the_detectors_own(shape, size):
    data = encoded(*shape)
    canvas, placement = placed(data, size, "darknet")
    fitted = darknets(size).fit(data)
    assert torch.equal(as_input(canvas[None])[0], fitted.image)
    boxes = torch.rand(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.3
    wanted = cxcywh_to_xyxy(fitted.box.to_image(boxes)).clamp(0, 1)
    found = augment.in_picture(cxcywh_to_xyxy(boxes).numpy(), placement)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_smooth_is_as_training_draws():
    canvas = np.full((64, 96, 3), augment.GREY, np.uint8)
    placement = augment.letterbox(90, 61, (0, 0, 96, 64))
    augment.draw(augment.open_image(encoded(90, 61)), placement, canvas)
    drawn, where = placed(encoded(90, 61), (96, 64), "smooth")
    assert np.array_equal(drawn, canvas) and where == placement
    expected = torch.from_numpy(canvas).permute(2, 0, 1).float() / 255
    assert torch.equal(as_input(drawn[None])[0], expected)


def test_held_out_pictures_are_seen_as_the_models_detector_sees_them(tmp_path):
    store, detector = Store(pack_squares(tmp_path / "v.h5", 3, size=48)), darknets()
    held = HeldOut(detector.net, [store], EvalSettings(workers=0, precision="float32"))
    assert (held.settings.sides, held.settings.size_said) == ((96, 64), "96x64")
    with torch.inference_mode():
        (said,) = held.outputs()
        images = torch.stack([detector.fit(store[k].image).image for k in range(3)])
        raw = detector.net.lazy(images)
        boxes, objectness = decode(raw.boxes, detector.net.anchors)
    torch.testing.assert_close((said.boxes_cxcywh, said.objectness), (boxes, objectness))
    assert HeldOut(detector.net, [store], EvalSettings(size=64)).settings.sides == (64, 64)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named_in_one_line(tmp_path, workers):
    wide = io.BytesIO()
    Image.new("1", (12000, 12000)).save(wide, "PNG")  # small in a file, and more than is ever decoded
    good = square_sample(0, size=48)
    for data, reason in ((wide.getvalue(), "12000 x 12000 pixels"), (b"no picture", "not a picture")):
        path = tmp_path / f"{len(data)}.h5"
        with StoreWriter(path, TREE) as writer:
            for sample in (good, replace(good, name="the bad one", image=data)):
                writer.add(sample)
        held = HeldOut(small_detector("shared"), [Store(path)], EvalSettings(workers=workers, size=64))
        with pytest.raises(TrainingError, match=r"^the bad one: ") as caught, torch.inference_mode():
            list(held.outputs())
        assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_boxes_are_proposed_in_the_detectors_own_input(monkeypatch):
    detector, seen = darknets(), []
    monkeypatch.setattr(propose, "best_boxes", lambda _, images, labels, __: seen.append(images) or [None])

    class Pictures(list):
        tree = detector.tree

    sample = square_sample(1, size=48, boxed=False)
    list(propose.propose(detector, Pictures([sample])))
    assert torch.equal(seen[0][0], detector.fit(sample.image).image)


def test_the_size_is_told_as_it_is(tmp_path):
    store, net = Store(pack_squares(tmp_path / "v.h5", 2, size=48)), small_detector("shared")
    for size, said in (([96, 64], "96x64"), ([64, 64], 64), (64, 64)):
        net.defaults = {"size": size}
        assert HeldOut(net, [store], EvalSettings()).settings.size_said == said
