"""The detector as a whole: lazy equals dense, a batch equals its pictures, boxes land where arithmetic
says."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import yolo9000
from tests.yolo9000.small import (
    FORMS,
    STORED,
    TREE,
    constant_detector,
    detector_spec,
    small_classifier,
    small_detector,
)
from yolo9000 import modelfile
from yolo9000.descent import RULES
from yolo9000.detections import Detections
from yolo9000.detector import Detector
from yolo9000.errors import ImageError, ModelError
from yolo9000.network import Network
from yolo9000.spec import Convolution, External, NetworkSpec, Region
from yolo9000.suppression import MODES


def picture(seed: int, width: int = 90, height: int = 60) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def assert_equal(a: Detections, b: Detections, atol: float = 1e-4) -> None:
    assert a.names == b.names and a.paths == b.paths and a.image_size == b.image_size
    assert np.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=atol * max(a.image_size))
    for part in ("scores", "objectness", "probabilities"):
        assert np.allclose(getattr(a, part), getattr(b, part), atol=atol)
    for ours, theirs in zip(a.path_probabilities, b.path_probabilities, strict=True):
        assert ours == pytest.approx(theirs, abs=atol)


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return {form: Detector(small_detector(form), precision="float32") for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_lazy_equals_dense(form, rule, detectors):
    detector = detectors[form]
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    options = detector.options(rule=rule, threshold=0.3, tree_threshold=0.4)
    lazy = detector.candidates(detector.run(images), options)
    with torch.inference_mode():
        # the network as given: not fused, all channels
        dense = detector.candidates(detector.net(images), options)
    assert len(lazy.node) > 20
    assert torch.equal(lazy.image, dense.image) and torch.equal(lazy.node, dense.node)
    for part in ("boxes_cxcywh", "objectness", "score"):
        assert torch.allclose(getattr(lazy, part), getattr(dense, part), atol=2e-5, rtol=1e-4)
    assert torch.allclose(lazy.log_path, dense.log_path, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_network_without_a_lazy_form_gives_the_same(form, detectors):
    detector = detectors[form]
    dense = Detector(detector.net, precision="float32")
    dense.lazy = False
    assert_equal(detector(picture(1)), dense(picture(1)))


def test_a_last_convolution_that_is_not_1x1_runs_dense():
    spec = detector_spec("darknet")
    last = dataclasses.replace(spec.layers[-2], size=3, padding=1)
    net = Network(dataclasses.replace(spec, layers=(*spec.layers[:-2], last, spec.layers[-1])), TREE).eval()
    detector = Detector(net)
    assert not detector.lazy
    assert len(detector(picture(0), threshold=0.1)) > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batch_equals_single(form, precision):
    detector = Detector(small_detector(form), precision=precision)
    shapes = [(90, 60), (60, 90), (64, 64), (1, 500), (700, 3), (33, 57)]
    pictures = [picture(i, *shape) for i, shape in enumerate(shapes)]
    single = [detector(one) for one in pictures]
    # Convolutions over another number of pictures may add up in another order.
    atol = 1e-4 if precision == "float32" else 0.02
    for batch in (1, 4, 8):
        many = detector(pictures, batch=batch)
        assert len(many) == len(pictures)
        for a, b in zip(single, many, strict=True):
            assert_equal(a, b, atol)


def test_lists_and_kinds_of_input(detectors, tmp_path):
    detector = detectors["darknet"]
    array = picture(3)
    Image.fromarray(array).save(tmp_path / "x.png")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds = [array, Image.fromarray(array), tensor, tensor.float() / 255, buffer.getvalue()]
    kinds += [tmp_path / "x.png", str(tmp_path / "x.png")]
    expected = detector(array)
    assert len(expected) > 0
    for kind in kinds:
        assert_equal(detector(kind), expected, 0)
    assert [found.source for found in detector(kinds)] == [None] * 5 + [str(tmp_path / "x.png")] * 2
    assert detector([]) == []
    assert isinstance(detector([array]), list)
    assert detector(tmp_path / "x.png").draw().size == (90, 60)  # read again
    assert detector(array).draw().size == (90, 60)


@pytest.mark.parametrize("resize", ["darknet", "smooth"])
@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (128, 64), (50, 200), (1, 500), (500, 1), (333, 100)]
)
def test_boxes_are_where_arithmetic_says(width, height, resize):
    """Every cell of an 8 x 8 grid answers a box of 2 x 1 cells about its middle (raw 0, 0, 0, 0)."""
    detector = Detector(
        constant_detector([0.0, 0.0, 0.0, 0.0, 3.0, 5.0, 0.0]), precision="float32", resize=resize
    )
    found = detector(np.zeros((height, width, 3), np.uint8), nms="none", clip=False, threshold=0.5)
    assert len(found) == 64
    scale = 64 / max(width, height)
    shown = np.maximum(1, np.array([width, height]) * 64 // max(width, height))
    offset = (64 - shown) / 2 if resize == "darknet" else (64 - shown) // 2
    per_pixel = shown / np.array([width, height])
    assert np.all(np.abs(per_pixel - scale) <= scale + 1)  # the scales of both sides, rounded to whole pixels
    rows, columns = np.divmod(np.arange(64), 8)
    centres = (np.stack([columns, rows], 1) * 8 + 4 - offset) / per_pixel
    half = np.array([8.0, 4.0]) / per_pixel
    expected = np.concatenate([centres - half, centres + half], axis=1)
    order = np.lexsort(found.boxes_xyxy.T.round(2))
    assert np.allclose(
        found.boxes_xyxy[order], expected[np.lexsort(expected.T.round(2))], rtol=1e-4, atol=1e-2
    )
    sigmoid = 1 / (1 + math.exp(-3))
    assert found.objectness == pytest.approx(sigmoid)
    assert found.scores == pytest.approx(sigmoid / (1 + math.exp(-5)), rel=1e-5)
    assert set(found.names) == {"class 0"}
    clipped = detector(np.zeros((height, width, 3), np.uint8), nms="none", threshold=0.5)
    inside = (expected[:, :2] < (width, height)).all(1) & (expected[:, 2:] > 0).all(1)
    assert len(clipped) == inside.sum()
    assert (clipped.boxes_xyxy >= 0).all() and (clipped.boxes_xyxy <= (width, height, width, height)).all()


def test_flat_list_under_darknets_rule_answers_every_class_above_the_threshold():
    raw = [0.0, 0.0, 0.0, 0.0, 9.0, math.log(0.5), math.log(0.3), math.log(0.2)]
    detector = Detector(constant_detector(raw), names=["a", "b", "c"], precision="float32")
    image = np.zeros((64, 64, 3), np.uint8)
    found = detector(image, rule="darknet", threshold=0.25, nms="none")
    assert sorted(set(found.names)) == ["a", "b"] and len(found) == 128
    assert set(detector(image, threshold=0.25).names) == {"a"}


def test_mapped_answers_only_classes_of_the_map():
    net = small_detector("darknet")
    net.class_map = torch.tensor([3, 6, 2])
    detector = Detector(net, precision="float32")
    found = detector(picture(2), mapped=True, threshold=0.05, nms="none")
    assert len(found) and set(found.nodes.tolist()) <= {2, 3, 6}
    assert np.allclose(found.scores, found.objectness * found.probabilities, atol=1e-6)
    assert (found.scores > 0.05).all()
    with torch.inference_mode():  # the same from the dense output, written down once more
        from yolo9000.letterbox import letterbox

        raw = net(letterbox(picture(2), detector.size, resize="smooth")[0][None]).view(2, 15, 64)
        objectness = raw[:, 4].sigmoid()
        logs = detector.hierarchy.log_conditionals(raw[:, 5:], dim=1)
        p = detector.hierarchy.log_probabilities(logs, dim=1).exp()[:, [3, 6, 2]] * objectness[:, None]
    inside = detector(picture(2), mapped=True, threshold=0.05, nms="none", clip=False)
    assert len(inside) == int((p > 0.05).sum())
    with pytest.raises(ValueError, match="no map"):
        Detector(small_detector("darknet"))(picture(2), mapped=True)


@pytest.mark.parametrize("rule", RULES)
def test_scores(rule, detectors):
    found = detectors["darknet"](picture(5), rule=rule, threshold=0.2, nms="none")
    expected = found.objectness if rule == "darknet" else found.objectness * found.probabilities
    assert np.allclose(found.scores, expected, atol=1e-6)
    assert (np.diff(found.scores) <= 0).all()
    for one in found:
        assert one.path == TREE.path(one.node) and one.path_probabilities[-1] == pytest.approx(
            one.probability
        )
        assert list(one.path_probabilities) == sorted(one.path_probabilities, reverse=True)


def test_nodes_without_rows_are_never_answered(detectors):
    for rule in RULES:
        found = detectors["stored"](picture(6), rule=rule, threshold=0.05, tree_threshold=0.0, nms="none")
        assert len(found) and set(found.nodes.tolist()) <= set(STORED)
    assert "taxi" not in found.names  # and car, with no row below it, is the end


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000),
    st.floats(0.1, 0.9),
    st.sampled_from(RULES),
    st.sampled_from(MODES),
    st.floats(0.0, 1.0),
)
def test_thresholds_and_suppression_only_remove(seed, threshold, rule, mode, tree_threshold):
    detector = Detector(small_detector("shared"), precision="float32")
    image = picture(seed)
    options = {"rule": rule, "tree_threshold": tree_threshold, "max_detections": 999}
    everything = detector(image, threshold=0.05, nms="none", **options)
    found = detector(image, threshold=threshold, nms=mode, **options)
    assert len(found) <= (everything.objectness > threshold).sum()
    assert (found.objectness > threshold).all()
    rows = {tuple(np.round(row, 2)) for row in everything.boxes_xyxy.tolist()}
    assert {tuple(np.round(row, 2)) for row in found.boxes_xyxy.tolist()} <= rows
    assert len(detector(image, threshold=threshold, nms=mode, **(options | {"max_detections": 2}))) == min(
        2, len(found)
    )


def test_a_threshold_of_one_finds_nothing(detectors):
    found = detectors["darknet"](picture(0), threshold=1.0)
    assert len(found) == 0 and found.boxes_xyxy.shape == (0, 4)
    assert detectors["darknet"]([picture(0)] * 3, threshold=1.0)[2].image_size == (90, 60)


def test_other_sizes(detectors):
    detector = detectors["darknet"]
    for size in (32, 128, (96, 64), [64, 32]):
        found = detector(picture(0), size=size)
        assert found.image_size == (90, 60)
    assert detector.size == (64, 64)
    assert len(detector(picture(0), size=np.int64(64))) == len(detector(picture(0), size=64))
    for bad in (0, 4, 60, -8, 100_000, (64, 60), 64.0, "64", (64, 64, 64), (64,), ()):
        with pytest.raises(ValueError, match="the size is"):
            detector(picture(0), size=bad)


def test_a_size_that_was_set_is_checked_as_one_that_is_given():
    detector, photo = Detector(small_detector("rows"), precision="float32"), picture(0)
    wanted = detector(photo, size=96).to_dict()
    detector.size = 96
    assert detector(photo).to_dict() == wanted == detector.find(photo, detector.options()).to_dict()
    assert [one.to_dict() for one in detector.stream([photo])] == [wanted]
    detector.size = 60
    for call in (detector, detector.stream, lambda photo: detector.find(photo, detector.options())):
        with pytest.raises(ValueError, match=r"multiple of 8 .* not 60"):
            call(photo)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"rule": "best"}, "rule"),
        ({"nms": "soft"}, "suppression"),
        ({"nms_iou": -1}, "nms_iou"),
        ({"vote_iou": 1.1}, "vote_iou"),
        ({"tree_threshold": 2}, "tree_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"max_detections": 1.5}, "max_detections"),
        ({"threshold": "high"}, "threshold"),
        ({"batch": 0}, "batch"),
    ],
)
def test_impossible_options(options, message, detectors):
    with pytest.raises(ValueError, match=message):
        detectors["darknet"](picture(0), **options)


def test_a_bad_picture_is_an_image_error(detectors, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"<html>")
    with pytest.raises(ImageError, match="web page"):
        detectors["darknet"]([picture(0), tmp_path / "x.jpg"])


def test_wrong_models():
    with pytest.raises(ModelError, match="region"):
        Detector(small_classifier())
    with pytest.raises(ModelError, match="5 names for 6"):
        Detector(small_detector("flat"), names=list("abcde"))
    with pytest.raises(ModelError, match="device"):
        Detector(small_detector(), device="no such device")
    with pytest.raises(ValueError, match="precision"):
        Detector(small_detector(), precision="float8")


def test_a_network_for_other_channels():
    spec = dataclasses.replace(detector_spec("flat"), channels=1)
    with pytest.raises(ModelError, match="takes 1"):
        Detector(Network(spec))


def test_an_external_backbone():
    """A module of the user's own, whatever it is made of, under a head of ours; never put into bfloat16
    unasked."""
    backbone = torch.nn.Conv2d(3, 4, 8, stride=8)
    layers = (
        External(4, 8),
        Convolution(2 * (5 + 3), 1, activation="linear", batch_normalize=False),
        Region(((1.0, 1.0), (2.0, 2.0)), 3),
    )
    detector = Detector(Network(NetworkSpec(64, 64, layers), external=backbone))
    assert detector.precision == "float32" and detector.lazy
    assert len(detector(picture(0), threshold=0.1)) > 0


def test_names_that_repeat():
    detector = Detector(small_detector("flat"), names=["crane", "crane", "cup", "dog", "cat", "eel"])
    assert detector.tree.names[0] == detector.tree.names[1] == "crane"
    assert detector.tree.ids[:3] == ("crane (0)", "crane (1)", "cup")


def test_a_weight_that_is_not_finite_gives_no_box():
    net = small_detector("darknet")
    with torch.no_grad():
        net.layers[-2].conv.weight[2] = torch.nan  # the widths of the first anchor
    found = Detector(net, precision="float32")(picture(0), threshold=0.0, nms="none", max_detections=999)
    assert 0 < len(found) <= 64


def test_bfloat16_is_near_float32():
    exact = Detector(small_detector("shared"), precision="float32")
    near = Detector(small_detector("shared"), precision="bfloat16")
    assert (exact.precision, near.precision) == ("float32", "bfloat16")
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    a, b = (d.candidates(d.run(images), d.options(threshold=0.0, rule="greedy")) for d in (exact, near))
    assert torch.equal(a.image, b.image)
    assert (a.objectness - b.objectness).abs().mean() < 0.01
    assert (a.node == b.node).float().mean() > 0.95


def test_the_models_own_defaults(tmp_path):
    net = small_detector("darknet")
    modelfile.save_model(
        net, tmp_path / "x.safetensors", defaults={"threshold": 0.6, "size": [96, 64], "rule": "leaf"}
    )
    detector = Detector.load(tmp_path / "x.safetensors", precision="float32")
    assert detector.size == (96, 64) and detector.options().rule == "leaf"
    assert detector(picture(0), threshold=None).objectness.min(initial=1) > 0.6
    assert detector.options(threshold=0.1).threshold == 0.1
    net.defaults = {"colour": "red"}
    with pytest.raises(ModelError, match="colour"):
        Detector(net)
    net.defaults = {"size": [60, 60]}
    with pytest.raises(ModelError, match="size"):
        Detector(net)
    net.defaults = {"threshold": 7}
    with pytest.raises(ModelError, match="threshold"):
        Detector(net)


def test_no_model_in_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(modelfile, "DEFAULT_PATH", tmp_path / "default.safetensors")
    with pytest.raises(ModelError, match="no model is embedded"):
        yolo9000.Detector.load()


def test_the_network_given_is_left_alone():
    net = small_detector("darknet")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    Detector(net, precision="bfloat16")(picture(0))
    for name, value in net.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])


@pytest.mark.reference
@pytest.mark.parametrize("photo", ["dog.jpg", "horses.jpg", "kite.jpg"])
def test_bfloat16_finds_the_same_objects_with_real_weights(photo, shared):
    folder = shared / "weights" / "yolo-lite"
    files = folder / "tiny-yolov2-trial3.cfg", folder / "tiny-yolov2-trial3.weights"
    exact, near = (
        Detector.from_darknet(*files, names="voc", precision=precision)(
            shared / "photos" / photo, threshold=0.1
        )
        for precision in ("float32", "bfloat16")
    )
    clear = exact[exact.scores > 0.3]
    from yolo9000.boxes import iou_xyxy

    for one in clear:
        same = np.array([name == one.name for name in near.names])
        overlaps = iou_xyxy(torch.tensor([one.box_xyxy]), torch.from_numpy(near.boxes_xyxy.copy()))[0].numpy()
        assert (same & (overlaps > 0.9) & (np.abs(near.scores - one.score) < 0.05)).any()
