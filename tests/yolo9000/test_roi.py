"""Averages over windows that follow boxes, against sums cell by cell."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.test_distill import KNOWN, started
from tests.yolo9000.test_loss import TREE
from yolo9000 import presets
from yolo9000.boxes import decode
from yolo9000.config import ModelConfig
from yolo9000.distill import class_branch
from yolo9000.errors import TrainingError
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.roi import roi_average, window_means
from yolo9000.spec import RoiAverage
from yolo9000.start import build_network, follow_boxes


def covered(low: float, high: float, cells: int) -> torch.Tensor:
    """How much of each of `cells` cells lies between two places, 0..1: (cells,)."""
    at = torch.arange(cells, dtype=torch.float64)
    return (torch.minimum(at + 1, torch.tensor(high * cells)) - at.clamp(min=low * cells)).clamp(min=0)


def mean(x: torch.Tensor, window) -> torch.Tensor:
    """Of (D, H, W) over a window (left, top, right, bottom)."""
    left, top, right, bottom = (float(v) for v in window)
    weights = covered(top, bottom, x.shape[1])[:, None] * covered(left, right, x.shape[2])
    return (x.double() * weights).sum((1, 2)) / weights.sum()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_means_of_windows_that_end_anywhere(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    x = torch.randn(2, 3, height, width)
    windows = torch.rand(2, 2, 4, 2, 2).sort(-2)[0].flatten(-2)  # (N, h, w, 4), corners in order
    windows[0, 0, 0] = torch.tensor([0, 0, 1, 1])
    windows[0, 0, 1] = torch.tensor([1 - 1 / width, 0, 1, 1 / height])  # a single cell
    found = window_means(x, windows)
    assert found.shape == (2, 3, 2, 4)
    for n, i, j in itertools.product(range(2), range(2), range(4)):
        if (windows[n, i, j, 2:] - windows[n, i, j, :2]).min() > 1e-2:  # a difference of sums has few digits
            expected = mean(x[n], windows[n, i, j]).float()
            torch.testing.assert_close(found[n, :, i, j], expected, rtol=1e-3, atol=1e-3)


def test_an_empty_window_is_nothing():
    assert not window_means(torch.ones(1, 2, 4, 4), torch.full((1, 1, 1, 4), 0.3)).any()


@settings(max_examples=30, deadline=None)
@given(least=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_windows_follow_the_surest_box_of_each_cell(least, seed):
    torch.manual_seed(seed)
    x, boxes = torch.randn(2, 3, 4, 6), torch.randn(2, 10, 4, 6)
    anchors = torch.tensor([[1.5, 2.0], [3.0, 1.0]])
    found = roi_average(x, boxes, anchors, least)
    cxcywh, objectness = decode(boxes, anchors)
    for n, i, j in itertools.product(range(2), range(4), range(6)):
        cx, cy, w, h = cxcywh[n, int(objectness[n, :, i, j].argmax()), i, j].tolist()
        w, h = max(w, least / 6), max(h, least / 4)
        window = [min(max(v, 0), 1) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]
        torch.testing.assert_close(found[n, :, i, j], mean(x[n], window).float(), rtol=1e-3, atol=1e-3)


def test_what_learns_is_the_features_and_not_the_boxes():
    x, boxes = torch.randn(1, 3, 4, 6, requires_grad=True), torch.randn(1, 5, 4, 6, requires_grad=True)
    roi_average(x, boxes, torch.ones(1, 2), 2)[0, 0, 1, 1].backward()
    assert boxes.grad is None
    torch.testing.assert_close(x.grad[0, 0].sum(), torch.tensor(1.0))  # a mean, whatever the window
    assert not x.grad[0, 1:].any()


def test_boxes_without_measure_are_cut_to_the_picture():
    x = torch.randn(1, 3, 4, 6)
    boxes = torch.zeros(1, 5, 4, 6)
    boxes[:, 2:4] = 1e30
    found = roi_average(x, boxes, torch.ones(1, 2), 2)
    torch.testing.assert_close(found, x.mean((2, 3), keepdim=True).expand_as(found), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_detector_names_by_windows_that_follow_its_boxes(tmp_path):
    """Features by hand; the file says the same; the lazy output is the dense one at every cell."""
    torch.manual_seed(1)
    form = {"neck": 8, "dilations": (1, 2), "branch": 16, "image_size": 64}
    spec = presets.tiny9000(TREE, ((1.5, 2.0), (3.0, 2.5)), known=KNOWN, **form)
    net = follow_boxes(Network(spec, TREE), 3)
    spec, (averaged, _) = net.spec, class_branch(net)
    layer = spec.layers[averaged]
    assert layer == RoiAverage(spec.region.boxes, 3)
    images = torch.rand(2, 3, 64, 96)
    trunk = spec.inputs(averaged)[0]
    found = net.outputs(images, (trunk, spec.region.boxes, averaged))
    expected = roi_average(found[trunk], found[spec.region.boxes], net.anchors, 3)
    assert torch.equal(found[averaged], expected)
    save_model(net, tmp_path / "m.safetensors")
    assert torch.equal(load_model(tmp_path / "m.safetensors")(images), net(images))
    lazy = net.lazy(images)
    torch.testing.assert_close(lazy.dense(), net(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_windows_of_a_trained_detector_can_follow_its_boxes(tmp_path):
    net = started()[1]
    save_model(net, tmp_path / "fixed.safetensors")
    config = ModelConfig(start=str(tmp_path / "fixed.safetensors"), follow=3)
    made, _, _ = build_network(config, [])
    averaged, joined = class_branch(made)
    assert made.spec.layers[averaged] == RoiAverage(net.spec.region.boxes, 3)
    images = torch.rand(2, 3, 96, 160)
    trunk, boxes = net.spec.inputs(averaged)[0], net.spec.region.boxes
    found = net.outputs(images, (trunk, boxes, averaged, joined))
    windows = roi_average(found[trunk], found[boxes], net.anchors, 3)
    features = found[joined] - found[averaged] + windows
    expected = net.lazy_from(found[boxes], features).dense()
    torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-4)
    for other in (made, Network(presets.tiny_yolov2(3, image_size=32, slim=0.05))):
        with pytest.raises(TrainingError, match=r"windows of a fixed size|an average plus a difference"):
            follow_boxes(other, 3)
