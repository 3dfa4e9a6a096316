"""Judging and moving boxes: two independent ways agree."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_prep.judging import clip, judge, set_upright, to_shares, usable
from data_prep.record import HARMLESS, KINDS

COORDINATE = st.one_of(
    st.integers(-30, 60).map(float),
    st.floats(-30, 60),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-12, 0.0, 20.0, 40.0]),
)
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)


@settings(max_examples=300, deadline=None)
@given(boxes=st.lists(BOX, max_size=6))
def test_a_box_is_usable_unless_something_harmful_is_wrong_with_it(boxes):
    boxes_xyxy = np.asarray(boxes, float).reshape(-1, 4)
    kinds = judge(boxes_xyxy, ("x",) * len(boxes), (40, 20))
    assert set().union(*kinds) <= set(KINDS)
    harmful = [bool(set(found) - HARMLESS) for found in kinds]
    assert usable(boxes_xyxy, (40, 20)).tolist() == [not bad for bad in harmful]
    for found, bad in zip(kinds, harmful, strict=True):
        assert len(set(found) - HARMLESS) == bad  # one reason each


@settings(max_examples=200, deadline=None)
@given(boxes=st.lists(BOX, min_size=1, max_size=6))
def test_usable_boxes_become_sound_shares(make, boxes):
    boxes_xyxy = np.asarray(boxes, float).reshape(-1, 4)
    boxes_xyxy = boxes_xyxy[usable(boxes_xyxy, (40, 20))]
    shares = to_shares(clip(boxes_xyxy, (40, 20)), (40, 20))
    make.sample(
        boxes=len(shares), boxes_cxcywh=shares, width=40, height=20, labels=np.zeros(len(shares), int)
    ).validate(1)
    back = np.concatenate([shares[:, :2] - shares[:, 2:] / 2, shares[:, :2] + shares[:, 2:] / 2], 1) * [
        40,
        20,
        40,
        20,
    ]
    assert np.allclose(back, clip(boxes_xyxy, (40, 20)), atol=1e-4)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([1, 1, 5, 5], None),
        ([0, 0, 40, 20], None),
        ([-0.5, 0, 40.5, 20], None),
        ([np.nan, 1, 5, 5], "box not finite"),
        ([1, 1, np.inf, 5], "box not finite"),
        ([5, 1, 1, 5], "box inverted"),
        ([1, 1, 1, 5], "box empty"),
        ([1, 5, 9, 5], "box empty"),
        ([41, 1, 45, 5], "box outside"),
        ([-9, 1, 0, 5], "box outside"),
        ([1, 20, 9, 25], "box outside"),
        ([-9, 1, 5, 5], "box cut"),
        ([-9, 1, 49, 5], "box larger than picture"),
        ([1, -5, 9, 25], "box larger than picture"),
    ],
)
def test_each_kind(box, kind):
    assert judge(np.asarray([box], float), ("x",), (40, 20)) == [[kind] if kind else []]


def test_duplicates_have_the_same_place_and_class():
    boxes = np.asarray([[1, 1, 5, 5]] * 3 + [[1, 1, 5, 6]], float)
    assert judge(boxes, ("a", "b", "a", "a"), (40, 20)) == [[], [], ["box duplicate"], []]


def test_no_boxes():
    none = np.zeros((0, 4))
    assert judge(none, (), (5, 5)) == []
    assert usable(none, (5, 5)).shape == (0,)
    assert to_shares(none, (5, 5)).shape == (0, 4)
    assert set_upright(none, (5, 5), 6).shape == (0, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_picture(orientation):
    left, top, right, bottom = 3, 4, 11, 9
    pixels = np.zeros((17, 31), np.uint8)
    pixels[top:bottom, left:right] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(out)))
    rows, columns = np.flatnonzero(upright.any(axis=1)), np.flatnonzero(upright.any(axis=0))
    wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    found = set_upright(np.asarray([[left, top, right, bottom]], float), (31, 17), orientation)
    assert found.tolist() == [wanted]
