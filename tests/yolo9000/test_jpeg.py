"""JPEGs read straight into arrays: the pixels are Pillow's, and what is amiss is left to Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from yolo9000 import ImageError, jpeg
from yolo9000.images import read_image, read_reduced


def encode(pixels: np.ndarray, mode: str = "RGB", **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **how)
    return file.getvalue()


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth and noisy parts, so that every way of upsampling colour shows."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels[:, width // 2 :] += random.integers(-40, 40, (height, width - width // 2, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def by_pillow(data: bytes, wanted: tuple[int, int] | None = None) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        if wanted is not None:
            opened.draft(opened.mode, wanted)
        return np.asarray(opened.convert("RGB"))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    mode=st.sampled_from(["RGB", "L"]),
    progressive=st.booleans(),
    restart=st.sampled_from([0, 1, 3]),
    keep_rgb=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_pixels_are_those_of_pillow(
    width, height, quality, subsampling, mode, progressive, restart, keep_rgb, seed
):
    how = {"quality": quality, "progressive": progressive, "restart_marker_blocks": restart}
    if mode == "RGB":
        how |= {"keep_rgb": True} if keep_rgb else {"subsampling": subsampling}
    data = encode(picture(width, height, seed), mode, **how)
    found = jpeg.decode(data, (width, height), (width, height))
    assert found is not None and found.dtype == np.uint8 and found.flags.writeable
    assert np.array_equal(found, by_pillow(data))
    assert np.array_equal(read_image(data), found)


@given(
    width=st.integers(64, 700),
    height=st.integers(64, 700),
    power=st.sampled_from([2, 4, 8]),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_reduced_pixels_are_those_of_pillow(width, height, power, subsampling, mode):
    how = {"subsampling": subsampling} if mode == "RGB" else {}
    data = encode(picture(width, height), mode, **how)
    expected = by_pillow(data, (width // power, height // power))
    wanted = expected.shape[1::-1]
    assert wanted == (-(-width // power), -(-height // power))
    found = jpeg.decode(data, (width, height), wanted)
    assert found is not None and np.array_equal(found, expected)


def test_a_photograph_is_read_so_without_pillow_decoding_it(monkeypatch):
    data = encode(picture(640, 480))
    expected = by_pillow(data)

    def never(*_):
        raise AssertionError("Pillow was asked to decode")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    assert np.array_equal(read_image(data), expected)
    assert read_reduced(data, (96, 96))[0].shape == (240, 320, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_upright_as_pillow_turns_it(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture(50, 31)).save(file, kind, exif=exif)
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(read_image(file.getvalue()), expected)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],  # cut off
        lambda data: data[:-2],  # without its end
        lambda data: data[:600] + bytes(200) + data[800:],
        lambda data: data[:-2] + b"\x00\x01\x02" * 9 + data[-2:],  # bytes that belong to nothing
        lambda data: data[:2] + b"\xff\xd8" + data[2:],
        lambda data: data[:4],
    ],
)
def test_damage_is_judged_by_pillow(spoil):
    data = spoil(encode(picture(120, 90)))
    assert jpeg.decode(data, (120, 90), (120, 90)) is None
    try:
        expected = by_pillow(data)
    except Exception:
        with pytest.raises(ImageError, match=r"damaged|not a picture"):
            read_image(data)
    else:
        assert np.array_equal(read_image(data), expected)


@given(st.integers(0, 2**32 - 1))
def test_a_flipped_byte_reads_as_pillow_reads_it(seed):
    random = np.random.default_rng(seed)
    data = bytearray(encode(picture(40, 30)))
    at = random.integers(2, len(data))
    data[at] ^= 1 << random.integers(8)
    data = bytes(data)
    try:
        expected = by_pillow(data)
    except Exception:
        expected = None
    try:
        found = read_image(data, max_pixels=10**6)
    except ImageError:
        return  # the size limit, or Pillow's own complaint
    if expected is not None:
        assert np.array_equal(found, expected)


def test_cmyk_and_sizes_that_do_not_agree_are_left_to_pillow():
    cmyk = encode(picture(24, 16), "CMYK")
    assert jpeg.decode(cmyk, (24, 16), (24, 16)) is None
    assert np.array_equal(read_image(cmyk), by_pillow(cmyk))
    data = encode(picture(24, 16))
    assert jpeg.decode(data, (16, 24), (16, 24)) is None
    assert jpeg.decode(data, (24, 16), (23, 16)) is None
    assert jpeg.decode(b"", (1, 1), (1, 1)) is None


def test_of_an_endless_file_that_starts_like_a_jpeg_only_some_is_read(tmp_path):
    path = tmp_path / "endless.jpg"
    with path.open("wb") as file:
        file.write(encode(picture(8, 8)))
        file.truncate(2**36)  # a hole: it takes no room
    assert read_image(path, max_pixels=64).shape == (8, 8, 3)
