"""Placements move pixels and boxes alike; colours are what going to HSV and back gives."""

import colorsys
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolo9000 import augment
from yolo9000.config import AugmentConfig, load_config
from yolo9000.errors import ImageError

MARK = 255  # a white rectangle on black, found again by its pixels


def marked(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = MARK
    return Image.fromarray(pixels)


def shares(box: tuple[int, int, int, int], width: int, height: int) -> np.ndarray:
    x0, y0, x1, y1 = box
    cxcywh = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    return np.array([cxcywh], np.float32)


def white_rectangle(canvas: np.ndarray) -> np.ndarray | None:
    """Corners of what is lighter than grey, to a fraction of a pixel by the brightness along its edges."""
    light = canvas[..., 0].astype(float)
    light[light == augment.GREY] = 0
    rows, columns = light.max(axis=1) / MARK, light.max(axis=0) / MARK
    if rows.max(initial=0) < 0.9:
        return None
    ys, xs = np.flatnonzero(rows > 0.5), np.flatnonzero(columns > 0.5)
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], float)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 150),
    st.integers(20, 150),
    st.sampled_from(["crop", "resized_crop", "centred"]),
    st.integers(0, 10_000),
)
def test_boxes_go_where_their_pixels_go(width: int, height: int, layout: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = int(random.integers(0, width - 12)), int(random.integers(0, height - 12))
    box = (x, y, x + int(random.integers(10, width - x + 1)), y + int(random.integers(10, height - y + 1)))
    scale = (0.3, 1.0) if layout == "resized_crop" else (0.6, 2.0)
    config = AugmentConfig(layout=layout if layout != "centred" else "letterbox", scale=scale)
    view = (7, 3, 7 + 96, 3 + 80)
    placement = getattr(augment, layout)(width, height, view, config, random)
    canvas = np.full((96, 120, 3), augment.GREY, np.uint8)
    augment.draw(marked(width, height, box), placement, canvas)
    boxes_xyxy, visible = augment.carry(shares(box, width, height), placement, (120, 96))
    seen = white_rectangle(canvas)
    sides = boxes_xyxy[0, 2:] - boxes_xyxy[0, :2]
    if seen is None:
        assert visible[0] == 0 or sides.min() < 4
    elif sides.min() >= 4:
        # Half a pixel for the threshold, and the blur of a pixel that was stretched to several.
        stretch = max(1.0, 96 / width, 80 / height) * 2
        np.testing.assert_allclose(seen, boxes_xyxy[0], atol=0.5 + 0.6 * stretch)
    grey = np.ones((96, 120), bool)
    grey[3:83, 7:103] = False
    assert (canvas[grey] == augment.GREY).all(), "drew outside its view"


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 150), st.integers(40, 150), st.floats(-45, 45), st.booleans(), st.integers(0, 10_000))
def test_turned_boxes_go_where_their_pixels_go(w: int, h: int, angle: float, flip: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = int(random.integers(0, w - 15)), int(random.integers(0, h - 15))
    box = (x, y, x + int(random.integers(12, w - x + 1)), y + int(random.integers(12, h - y + 1)))
    # The whole picture on a view with room around it: nothing is cut.
    view = (5, 9, 5 + 3 * w, 9 + 3 * h)
    placement = augment.Placement((-1, -1, 2, 2), view, flip, angle)
    canvas = np.full((3 * h + 20, 3 * w + 10, 3), augment.GREY, np.uint8)
    augment.draw(marked(w, h, box), placement, canvas)
    boxes_xyxy, visible = augment.carry(shares(box, w, h), placement, (3 * w + 10, 3 * h + 20))
    whole = np.array([view[0], view[1], view[2], view[3]], float)
    clear = (boxes_xyxy[0, :2] > whole[:2]).all() and (boxes_xyxy[0, 2:] < whole[2:]).all()
    if not clear:  # a long box that stands up in a flat picture
        assert visible[0] <= 1
        return
    assert visible[0] == pytest.approx(1, abs=1e-5)
    ys, xs = np.nonzero(canvas[..., 0] > (augment.GREY + MARK) / 2)
    seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
    # A turned corner ends in a point, of which only what covers most of a pixel is seen.
    np.testing.assert_allclose(seen, boxes_xyxy[0], atol=2.0)
    if abs(angle) < 0.5:
        np.testing.assert_allclose(seen, boxes_xyxy[0], atol=1.0 + 0.01 * max(w, h))
    area = (canvas[..., 0] > (augment.GREY + MARK) / 2).sum()
    assert area == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), rel=0.15)


def test_half_a_turn_is_mirrored_twice_and_none_is_none() -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8))
    source, view = (0.2, 0.1, 0.9, 0.8), (3, 5, 51, 45)

    def drawn(angle: float) -> np.ndarray:
        canvas = np.full((50, 60, 3), augment.GREY, np.uint8)
        augment.draw(image, augment.Placement(source, view, angle=angle), canvas)
        return canvas

    upright, turned, hardly = drawn(0), drawn(180), drawn(1e-9)
    inside = np.s_[5:45, 3:51]
    np.testing.assert_allclose(turned[inside].astype(int), upright[inside][::-1, ::-1].astype(int), atol=1)
    # Pillow resamples a larger part here, with coefficients that it rounds to whole steps anew.
    np.testing.assert_allclose(hardly.astype(int), upright.astype(int), atol=3)
    outside = np.ones((50, 60), bool)
    outside[inside] = False
    assert (turned[outside] == augment.GREY).all()


def test_classifiers_recipe_turns_pictures_by_up_to_seven_degrees() -> None:
    config = load_config("darknet19-448").data[0].augment
    assert (config.layout, config.rotation) == ("resized_crop", 7.0)
    random = np.random.default_rng(0)
    angles = [augment.resized_crop(80, 60, (0, 0, 32, 32), config, random).angle for _ in range(300)]
    assert -7 <= min(angles) < -6.5 and 6.5 < max(angles) <= 7 and abs(np.mean(angles)) < 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10_000))
def test_grey_borders_end_on_whole_pixels_so_drawing_and_carrying_agree(w: int, h: int, seed: int) -> None:
    config = AugmentConfig(scale=(0.2, 1.0), aspect=1.0, flip=0.5)
    placement = augment.crop(w, h, (0, 0, 64, 64), config, np.random.default_rng(seed))
    canvas = np.full((64, 64, 3), augment.GREY, np.uint8)
    augment.draw(Image.new("RGB", (w, h), (MARK, MARK, MARK)), placement, canvas)
    whole = np.array([[0.5, 0.5, 1, 1]], np.float32)
    boxes_xyxy, _ = augment.carry(whole, placement, (64, 64))
    np.testing.assert_allclose(white_rectangle(canvas), boxes_xyxy[0], atol=1e-3)


def test_letterbox_centres_the_whole_picture() -> None:
    placement = augment.letterbox(100, 50, (0, 0, 60, 60))
    boxes_xyxy, visible = augment.carry(np.array([[0.5, 0.5, 1, 1]], np.float32), placement, (60, 60))
    np.testing.assert_allclose(boxes_xyxy, [[0, 15, 60, 45]], atol=1e-4)
    np.testing.assert_allclose(visible, 1, atol=1e-5)


def test_carrying_knows_how_much_of_a_box_is_left() -> None:
    # The left half of the picture on the whole canvas: of two boxes one is half there, one not at all.
    placement = augment.Placement((0.0, 0.0, 0.5, 1.0), (0, 0, 40, 80))
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2]], np.float32)
    boxes_xyxy, visible = augment.carry(boxes, placement, (40, 80))
    np.testing.assert_allclose(visible, [0.5, 0.0], atol=1e-5)
    np.testing.assert_allclose(boxes_xyxy[0], [32, 32, 40, 48], atol=1e-3)
    flipped = augment.Placement(placement.source, placement.view, flip=True)
    mirrored, _ = augment.carry(boxes, flipped, (40, 80))
    np.testing.assert_allclose(mirrored[0], [0, 32, 8, 48], atol=1e-3)


def test_no_boxes_stay_no_boxes() -> None:
    boxes_xyxy, visible = augment.carry(
        np.zeros((0, 4), np.float32), augment.letterbox(9, 9, (0, 0, 4, 4)), (4, 4)
    )
    assert boxes_xyxy.shape == (0, 4) and visible.shape == (0,)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(8, 300), st.integers(8, 300), st.integers(0, 100))
def test_mosaic_views_cover_the_canvas_once(tiles: int, width: int, height: int, seed: int) -> None:
    covered = np.zeros((height, width), int)
    views = augment.mosaic_views((width, height), tiles, np.random.default_rng(seed))
    for x0, y0, x1, y1 in views:
        covered[y0:y1, x0:x1] += 1
    assert len(views) == tiles * tiles and (covered == 1).all()


def test_colour_equals_the_way_through_hsv() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    images[0, 0] = [[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0], [255, 255, 0]]  # edges of HSV
    hue, saturation, exposure = (
        np.array([0.1, -0.3, 0.5]),
        np.array([1.5, 0.5, 3.0]),
        np.array([0.7, 1.4, 1.0]),
    )
    found = augment.distort(images, hue, saturation, exposure)
    for n in range(3):
        for y in range(4):
            for x in range(5):
                h, s, v = colorsys.rgb_to_hsv(*(images[n, y, x] / 255))
                wanted = colorsys.hsv_to_rgb(
                    (h + hue[n]) % 1, min(1, s * saturation[n]), min(1, v * exposure[n])
                )
                np.testing.assert_allclose(found[n, y, x], np.array(wanted) * 255, atol=0.51)


def test_colour_without_hue_is_the_special_case_of_colour_with_hue() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
    same, tiny = np.zeros(2), np.full(2, 1e-12)
    factors = np.array([0.6, 1.7]), np.array([1.2, 0.8])
    a, b = augment.distort(images, same, *factors), augment.distort(images, tiny, *factors)
    assert np.abs(a.astype(int) - b).max() <= 1
    np.testing.assert_array_equal(augment.distort(images, same, np.ones(2), np.ones(2)), images)


def test_colour_that_changes_nothing_is_left_out() -> None:
    images = np.zeros((2, 3, 3, 3), np.uint8)
    config = AugmentConfig(hue=0, saturation=1, exposure=1)
    assert augment.colour(images, config, np.zeros((2, 3))) is images
    assert augment.colour(images[:0], AugmentConfig(), np.zeros((0, 3))).shape == (0, 3, 3, 3)
    grey = np.full((2, 3, 3, 3), 77, np.uint8)
    np.testing.assert_array_equal(augment.colour(grey, AugmentConfig(), np.full((2, 3), 0.5)), grey)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_decoded_small_is_the_same_picture(mode: str) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    pixels = np.broadcast_to(ramp, (480, 640))
    image = Image.fromarray(pixels.copy()).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    placement = augment.Placement((0.25, 0.1, 0.75, 0.9), (0, 0, 60, 60))
    small, full = (np.zeros((60, 60, 3), np.uint8) for _ in range(2))
    augment.draw(augment.open_image(file.getvalue()), placement, small)
    augment.draw(image.convert("RGB"), placement, full)
    assert np.abs(small.astype(int) - full).max() <= 4


def test_pictures_turned_by_exif_or_xmp_are_upright() -> None:
    image = Image.new("RGB", (40, 20), (200, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for metadata, size in (
        ({"exif": exif}, (20, 40)),
        ({"xmp": b'<rdf:Description tiff:Orientation="6"/>'}, (20, 40)),
        ({"xmp": b"<rdf:Description/>"}, (40, 20)),
    ):
        file = io.BytesIO()
        image.save(file, "JPEG", **metadata)
        assert augment.open_image(file.getvalue()).size == size


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"<html></html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_an_error(data: bytes) -> None:
    with pytest.raises((ImageError, OSError)):
        augment.open_image(data).load()


def test_a_view_without_pixels_draws_nothing() -> None:
    canvas = np.full((4, 4, 3), augment.GREY, np.uint8)
    augment.draw(Image.new("RGB", (5, 5)), augment.Placement((0, 0, 1, 1), (2, 2, 2, 4)), canvas)
    augment.draw(Image.new("RGB", (5, 5)), augment.Placement((2, 2, 3, 3), (0, 0, 4, 4)), canvas)
    assert (canvas == augment.GREY).all()
