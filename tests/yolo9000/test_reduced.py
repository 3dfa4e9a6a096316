"""Large JPEGs decoded at reduced size: what is read, and that results stay in the picture's own pixels."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.yolo9000.small import constant_detector, small_detector
from yolo9000.detector import Detector
from yolo9000.errors import ImageError
from yolo9000.images import SPARE, read_image, read_reduced
from yolo9000.letterbox import letterbox


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@settings(max_examples=30, deadline=None)
@example(6, 384, 32, 5)  # at a quarter 6 pixels are 2, a third
@example(5, 320, 32, 5)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([32, 64, 224]), st.integers(1, 8))
def test_a_jpeg_is_reduced_only_as_far_as_the_network_can_see(width, height, network, orientation):
    picture = photograph(width, height)
    exif = picture.getexif()
    exif[0x0112] = orientation
    data = encode(picture, "JPEG", exif=exif)
    whole = read_image(data)
    pixels, size = read_reduced(data, (network, 2 * network))
    assert size == (whole.shape[1], whole.shape[0])
    if pixels.shape == whole.shape:
        assert np.array_equal(pixels, whole)
    power = round(max(whole.shape) / max(pixels.shape))
    assert power in (1, 2, 4, 8)
    assert pixels.shape[:2] == tuple(max(1, round(side / power)) for side in whole.shape[:2])
    scale = SPARE * min(network / size[0], 2 * network / size[1])  # of what is kept at least
    most = min(side / math.ceil(side * scale) for side in size)
    assert power <= max(1, most) and (power == 8 or 2 * power > most)


def test_reducing_by_each_power_keeps_what_is_seen():
    for power in (1, 2, 4, 8):
        picture = photograph(64 * SPARE * power, 48 * SPARE * power)
        data = encode(picture, "JPEG", quality=95)
        pixels, size = read_reduced(data, (64, 64))
        assert size == picture.size
        assert pixels.shape == (48 * SPARE, 64 * SPARE, 3)
        seen, box = letterbox(pixels, (64, 64), resize="smooth", image_size=size)
        wanted, whole = letterbox(read_image(data), (64, 64), resize="smooth")
        assert box == whole
        assert (seen - wanted).abs().max() < 4 / 255 and (seen - wanted).abs().mean() < 1 / 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_nothing_is_stretched(orientation):
    """Sides of one more than a multiple of the power: the pixels left over are a column and a row that hold
    next to nothing of the picture."""
    picture = photograph(801, 601)
    exif = picture.getexif()
    exif[0x0112] = orientation
    data = encode(picture, "JPEG", quality=95, exif=exif)
    pixels, size = read_reduced(data, (48, 48))
    assert sorted(pixels.shape) == [3, 75, 100]
    seen, _ = letterbox(pixels, (48, 48), resize="smooth", image_size=size)
    wanted, _ = letterbox(read_image(data), (48, 48), resize="smooth")
    assert (seen - wanted).abs().mean() < 1 / 255  # stretched: 4


def test_reading_reduced_changes_no_other_picture():
    picture = photograph(1000, 800)
    for kind in ("PNG", "WEBP", "BMP"):
        data = encode(picture, kind)
        pixels, size = read_reduced(data, (32, 32))
        assert size == picture.size and np.array_equal(pixels, read_image(data))
    array = np.asarray(picture)
    for source in (picture, array, torch.from_numpy(array.copy()).permute(2, 0, 1)):
        pixels, size = read_reduced(source, (32, 32))
        assert size == picture.size and np.array_equal(pixels, array)
    assert picture.size == (1000, 800)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_mode_are_reduced(mode, tmp_path):
    path = tmp_path / "picture.jpg"
    photograph(800, 640).convert(mode).save(path, "JPEG", quality=95)
    pixels, size = read_reduced(path, (50, 50))
    whole = Image.fromarray(read_image(path)).resize(pixels.shape[1::-1], Image.Resampling.BOX)
    assert size == (800, 640) and pixels.shape == (80, 100, 3)
    assert np.abs(pixels.astype(int) - np.asarray(whole)).mean() < 3


def test_a_truncated_large_jpeg_is_an_error_reduced_too():
    data = encode(photograph(800, 640), "JPEG")
    for reader in (read_image, lambda part: read_reduced(part, (32, 32))):
        with pytest.raises(ImageError, match="damaged"):
            reader(data[: len(data) // 2])
        with pytest.raises(ImageError, match="empty"):
            reader(b"")
    with pytest.raises(ImageError, match="more than the limit"):
        read_reduced(data, (32, 32), max_pixels=800 * 639)  # of the whole, not of what is decoded


@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_of_a_large_jpeg_are_in_its_own_pixels(orientation, tmp_path):
    """Boxes that do not depend on the content, in a picture of odd sides decoded at a quarter of its size."""
    large = photograph(1203, 899)
    exif = large.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    large.save(path, "JPEG", exif=exif)
    detector = Detector(constant_detector([0.3, -0.2, 0.1, 0.4, 2.0, 1.0, 0.0]), precision="float32")
    options = {"threshold": 0.3, "nms": "none", "max_detections": 999, "clip": False}
    whole = read_image(path)
    expected = detector(whole, **options)
    assert len(expected) == 64
    content = path.read_bytes()
    for source in (path, content, bytearray(content), memoryview(content)):
        assert read_reduced(source, detector.size)[0].shape[0] < whole.shape[0] / 3
        found = detector(source, **options)
        assert found.image_size == expected.image_size == whole.shape[1::-1]
        assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)
        assert found.draw().size == found.image_size


def test_a_network_sees_the_same_at_reduced_size():
    """Raw outputs of a random network, which magnifies differences, beside those of another picture."""
    detector = Detector(small_detector("darknet"), precision="float32")
    data, other = (encode(photograph(1200, 900, seed), "JPEG", quality=95) for seed in (0, 1))
    reduced, whole = detector.fit(data).image, detector.fit(read_image(data)).image
    a, b, c = (detector.run(image[None]).features for image in (reduced, whole, detector.fit(other).image))
    assert not torch.equal(reduced, whole)
    assert (a - b).abs().mean() < 0.03 * (a - c).abs().mean()


def test_darknets_resizing_reads_every_pixel(tmp_path):
    path = tmp_path / "large.jpg"
    photograph(1200, 900).save(path, "JPEG")
    detector = Detector(small_detector("darknet"), precision="float32", resize="darknet")
    found, expected = detector(path), detector(read_image(path))
    assert len(found) and np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)
    assert np.array_equal(found.scores, expected.scores)
