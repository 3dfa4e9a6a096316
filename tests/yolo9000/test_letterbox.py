"""Letterbox: pixels as Darknet's loops give them, boxes there and back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000.boxes import cxcywh_to_xyxy
from yolo9000.errors import ImageError
from yolo9000.letterbox import Letterbox, letterbox, scale

sides = st.integers(1, 12)


def darknet_resize(im: np.ndarray, w: int, h: int) -> np.ndarray:
    """(c, H, W) -> (c, h, w) the way Darknet's two loops do it: along rows, then along columns."""
    c, high, wide = im.shape
    part = np.zeros((c, high, w))
    for x in range(w):
        if x == w - 1 or wide == 1:
            part[:, :, x] = im[:, :, wide - 1]
        else:
            sx = x * (wide - 1) / (w - 1)
            part[:, :, x] = (1 - sx % 1) * im[:, :, int(sx)] + (sx % 1) * im[:, :, int(sx) + 1]
    out = np.zeros((c, h, w))
    for y in range(h):
        if y == h - 1 or high == 1:
            out[:, y] = part[:, high - 1]
        else:
            sy = y * (high - 1) / (h - 1)
            out[:, y] = (1 - sy % 1) * part[:, int(sy)] + (sy % 1) * part[:, int(sy) + 1]
    return out


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(2, 16), st.integers(2, 16))
def test_pixels_equal_darknets_loops(width, height, wide, high):
    image = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    # Darknet's integers; it breaks where a side would vanish, so does not say what happens there
    if wide / width < high / height:
        w, h = wide, height * wide // width
    else:
        w, h = width * high // height, high
    out, box = letterbox(image, (wide, high))
    assert out.shape == (3, high, wide) and out.dtype == torch.float32
    if not w or not h or 1 in (w, h):
        assert box.content_size == (max(1, w), max(1, h))
        return
    expected = np.full((3, high, wide), 0.5)
    top, left = (high - h) // 2, (wide - w) // 2
    expected[:, top : top + h, left : left + w] = darknet_resize(image.transpose(2, 0, 1) / 255, w, h)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("width, height", [(1, 5000), (5000, 1), (1, 1), (3, 2), (640, 480), (65536, 1)])
@pytest.mark.parametrize("resize", ["darknet", "smooth"])
def test_extreme_shapes(width, height, resize):
    image = np.full((height, width, 3), 255, np.uint8)
    out, box = letterbox(image, (64, 32), resize=resize)
    w, h = box.content_size
    assert 1 <= w <= 64 and 1 <= h <= 32 and (w == 64 or h == 32)
    assert int((out > 0.999999).sum()) == 3 * w * h and int((out == 0.5).sum()) == 3 * (64 * 32 - w * h)


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 4000)] * 2, *[st.integers(1, 20).map(lambda n: 32 * n)] * 2, st.booleans())
def test_boxes_there_and_back(width, height, wide, high, darknet):
    box = Letterbox((width, height), (wide, high), darknet)
    boxes = torch.rand(5, 4, dtype=torch.float64)
    torch.testing.assert_close(box.to_network(box.to_image(boxes)), boxes)
    torch.testing.assert_close(box.to_image(box.to_network(boxes)), boxes)
    assert box.to_image(boxes[:0]).shape == (0, 4)


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 4000)] * 2, *[st.integers(1, 20).map(lambda n: 32 * n)] * 2, st.booleans())
def test_pixels_are_those_of_to_image_to_the_bit(width, height, wide, high, darknet):
    box = Letterbox((width, height), (wide, high), darknet)
    boxes = torch.rand(50, 4) * torch.tensor([1, 1, 3, 1000.0])
    expected = cxcywh_to_xyxy(box.to_image(boxes)) * torch.tensor([width, height, width, height])
    found = box.to_pixels(boxes.numpy())
    assert found.dtype == np.float32 and np.array_equal(found, expected.numpy())
    assert box.to_pixels(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("width, height", [(773, 512), (333, 1000), (96, 96)])
def test_a_box_stays_on_its_pixels(width, height):
    """A painted rectangle is found where `to_network` says it is."""
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = (int(f * n) for f, n in ((0.2, width), (0.3, height), (0.7, width), (0.9, height)))
    image[y0:y1, x0:x1] = 255
    out, box = letterbox(image, (416, 416), resize="smooth")
    found = (out[0] > 0.501).nonzero()
    (top, left), (bottom, right) = found.amin(0).tolist(), found.amax(0).tolist()
    boxes = torch.tensor(
        [[(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]]
    )
    cx, cy, w, h = (416 * box.to_network(boxes)[0]).tolist()
    expected = (cx - w / 2, cy - h / 2, cx + w / 2 - 1, cy + h / 2 - 1)
    assert all(
        math.isclose(a, b, abs_tol=1) for a, b in zip((left, top, right, bottom), expected, strict=True)
    )


@pytest.mark.parametrize("resize", ["darknet", "smooth"])
@pytest.mark.parametrize("width, height", [(640, 480), (50, 333), (96, 64), (1, 1)])
def test_in_bfloat16_each_value_is_rounded_once(resize, width, height):
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    exact, box = letterbox(image, (96, 64), resize=resize)
    rounded, same = letterbox(image, (96, 64), resize=resize, dtype=torch.bfloat16)
    assert rounded.dtype == torch.bfloat16 and same == box and rounded.stride() == exact.stride()
    assert torch.equal(rounded, exact.to(torch.bfloat16))
    every = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).expand(16, 16, 3).contiguous().numpy()
    exact, rounded = (
        letterbox(every, (16, 16), resize=resize, dtype=t)[0] for t in (torch.float, torch.bfloat16)
    )
    assert torch.equal(rounded, exact.to(torch.bfloat16)) and len(rounded.unique()) > 200


def test_darknets_offset_is_half_a_pixel_off_where_the_border_is_odd():
    exact, theirs = (Letterbox((773, 512), (96, 96), darknet) for darknet in (False, True))
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2]], dtype=torch.float64)
    assert exact.content_size == (96, 63) and exact.offset == (0, 16)
    difference = (exact.to_image(boxes) - theirs.to_image(boxes))[0]
    torch.testing.assert_close(difference, torch.tensor([0, 0.5 / 63, 0, 0], dtype=torch.float64))


def test_forms_of_a_picture():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    expected, _ = letterbox(image, (32, 32))
    planes = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    read_only = image.copy()
    read_only.flags.writeable = False
    for form in (
        torch.from_numpy(image),
        planes,
        planes.double(),
        planes.numpy(),
        read_only,
        image[:, ::-1][:, ::-1],
    ):
        torch.testing.assert_close(letterbox(form, (32, 32))[0], expected)


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_smooth_averages_over_what_a_pixel_covers(factor):
    image = torch.rand(3, 6 * factor, 4 * factor)
    small = scale(image, (4, 6), "smooth")
    # a triangle filter: exact for a constant, and equal to the picture itself at the same size
    if factor == 1:
        torch.testing.assert_close(small, image)
    torch.testing.assert_close(
        scale(torch.full_like(image, 0.3), (4, 6), "smooth"), torch.full((3, 6, 4), 0.3)
    )
    noise = torch.rand(3, 60 * factor, 40 * factor)
    assert factor == 1 or scale(noise, (40, 60), "smooth").std() < 0.8 * scale(noise, (40, 60)).std()


@pytest.mark.parametrize(
    "image, size",
    [
        (np.zeros((4, 4), np.uint8), (8, 8)),
        (np.zeros((4, 4, 4), np.uint8), (8, 8)),
        (np.zeros((0, 4, 3), np.uint8), (8, 8)),
        (np.zeros((4, 4, 3), np.float32), (8, 8)),
        (np.zeros((4, 4, 3), np.uint16), (8, 8)),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), (8, 8)),
        ("x.jpg", (8, 8)),
        (None, (8, 8)),
        (np.zeros((4, 4, 3), np.uint8), (0, 8)),
        (np.zeros((4, 4, 3), np.uint8), (8, 10**6)),
    ],
)
def test_what_is_no_picture_is_refused(image, size):
    with pytest.raises(ImageError):
        letterbox(image, size)


def test_an_unknown_way_to_resize():
    with pytest.raises(ImageError, match="one of darknet, smooth"):
        letterbox(np.zeros((4, 4, 3), np.uint8), (8, 8), resize="nearest")
