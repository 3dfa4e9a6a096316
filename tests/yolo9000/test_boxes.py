"""Boxes: conversions against each other, overlap against counting pixels, decoding against the formula for
single cells.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000.boxes import clip, cxcywh_to_xyxy, decode, decode_at, iou_sizes, iou_xyxy, xyxy_to_cxcywh
from yolo9000.boxes import objectness as objectness_of

corner = st.integers(0, 12)
integer_box = st.tuples(corner, corner, corner, corner).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


def count_iou(a, b) -> float:
    """Overlap by counting unit squares."""
    squares = [{(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b)]
    union = squares[0] | squares[1]
    return len(squares[0] & squares[1]) / len(union) if union else 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(integer_box, max_size=4), st.lists(integer_box, max_size=4))
def test_iou_equals_counting(first, second):
    a = torch.tensor(first, dtype=torch.float32).reshape(-1, 4)
    b = torch.tensor(second, dtype=torch.float32).reshape(-1, 4)
    expected = torch.tensor([[count_iou(x, y) for y in second] for x in first]).reshape(
        len(first), len(second)
    )
    torch.testing.assert_close(iou_xyxy(a, b), expected)
    n = min(len(first), len(second))
    torch.testing.assert_close(iou_xyxy(a[:n], b[:n], pairwise=False), expected[:n, :n].diagonal())
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(xyxy_to_cxcywh(a))), xyxy_to_cxcywh(a))
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(a)), a)


def test_iou_sizes_is_iou_about_a_common_centre():
    sizes, others = torch.rand(5, 2) * 9, torch.rand(3, 2) * 9
    boxes = [cxcywh_to_xyxy(torch.cat((torch.zeros_like(s), s), -1)) for s in (sizes, others)]
    torch.testing.assert_close(iou_sizes(sizes, others), iou_xyxy(*boxes))
    assert iou_sizes(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0


def test_iou_of_huge_and_empty_boxes_is_finite():
    boxes = torch.tensor([[0.0, 0, 1e15, 1e15], [0, 0, 0, 0], [-1e9, -1e9, 1e9, 1e9], [5, 5, 4, 4]])
    overlap = iou_xyxy(boxes, boxes)
    assert overlap.isfinite().all()
    assert overlap.diagonal().tolist() == [1.0, 0.0, 1.0, 0.0]


def test_clip():
    boxes = torch.tensor([[-3.0, -2, 5, 50], [1, 1, 2, 2], [30, 40, 35, 45]])
    assert clip(boxes, 10, 20).tolist() == [[0, 0, 5, 20], [1, 1, 2, 2], [10, 20, 10, 20]]
    assert clip(torch.zeros(0, 4), 10, 20).shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (5, 2)])
def test_decode_is_the_formula_cell_by_cell(height, width):
    anchors = torch.tensor([[1.5, 2.0], [4.0, 0.7]])
    raw = torch.randn(2, 10, height, width)
    boxes, objectness = decode(raw, anchors)
    assert boxes.shape == (2, 2, height, width, 4) and objectness.shape == (2, 2, height, width)
    sigmoid = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    for n in range(2):
        for a in range(2):
            for j in range(height):
                for i in range(width):
                    x, y, w, h, o = raw[n, 5 * a : 5 * a + 5, j, i].tolist()
                    expected = [
                        (i + sigmoid(x)) / width,
                        (j + sigmoid(y)) / height,
                        anchors[a, 0].item() * math.exp(w) / width,
                        anchors[a, 1].item() * math.exp(h) / height,
                    ]
                    assert boxes[n, a, j, i].tolist() == pytest.approx(expected, rel=1e-5)
                    assert objectness[n, a, j, i].item() == pytest.approx(sigmoid(o), rel=1e-5)


def test_decode_extremes():
    anchors = torch.ones(1, 2)
    boxes, objectness = decode(torch.full((1, 5, 2, 2), 1e4), anchors)
    assert boxes.isfinite().all() and (objectness == 1).all()
    assert decode(torch.randn(1, 5, 2, 2, dtype=torch.bfloat16), anchors)[0].dtype == torch.float32
    assert decode(torch.zeros(0, 5, 2, 2), anchors)[0].shape == (0, 1, 2, 2, 4)
    with pytest.raises(ValueError, match="need 5 box channels"):
        decode(torch.zeros(1, 6, 2, 2), anchors)


def test_decode_takes_channels_last():
    raw = torch.randn(2, 10, 3, 4)
    strided = raw.contiguous(memory_format=torch.channels_last)
    anchors = torch.rand(2, 2)
    boxes = decode(strided, anchors)[0]
    assert torch.equal(decode(raw, anchors)[0], boxes) and boxes.is_contiguous()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_decode_at_some_places_is_decode_there(form, count):
    raw = (3 * torch.randn(2, 10, 3, 4)).contiguous(memory_format=form)
    anchors = torch.rand(2, 2) + 0.1
    everywhere, likely = decode(raw, anchors)
    at = tuple(torch.randint(extent, (count,)) for extent in likely.shape)
    found = decode_at(raw, anchors, at)
    assert found.shape == (count, 4)
    torch.testing.assert_close(found, everywhere[at], rtol=1e-6, atol=0)
    torch.testing.assert_close(objectness_of(raw, 2), likely, rtol=1e-6, atol=0)
