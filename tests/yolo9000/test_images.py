"""Reading pictures: every kind that comes from outside either becomes upright RGB or one clear ImageError."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolo9000.errors import ImageError
from yolo9000.folders import find_images
from yolo9000.images import MAX_SIDE, read_image

RED_LEFT = np.zeros((20, 30, 3), np.uint8)
RED_LEFT[:, :10, 0] = 255
RED_LEFT[:, 10:, 2] = 255  # a red third on the left, blue beside it


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises that many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_are_exact(kind, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(encode(Image.fromarray(RED_LEFT), kind))
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        assert np.array_equal(read_image(source), RED_LEFT)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_near(kind):
    found = read_image(encode(Image.fromarray(RED_LEFT), kind, quality=100))
    assert found.shape == RED_LEFT.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - RED_LEFT)[:, 14:].max() < 12  # away from the edge


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # as stored, so that a turn by 270 shows it upright
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(RED_LEFT)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_image(encode(stored, "PNG", exif=exif)), RED_LEFT)


def test_damaged_exif_leaves_the_picture_as_stored():
    data = encode(Image.fromarray(RED_LEFT), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40)
    assert read_image(data).shape == RED_LEFT.shape


def test_cmyk_palette_grey_and_one_bit():
    picture = Image.fromarray(RED_LEFT)
    cmyk = read_image(encode(picture.convert("CMYK"), "TIFF"))
    assert np.abs(cmyk.astype(int) - RED_LEFT).max() <= 1
    assert read_image(encode(picture.convert("CMYK"), "JPEG", quality=100)).shape == RED_LEFT.shape
    assert np.array_equal(
        read_image(encode(picture.convert("P", palette=Image.Palette.ADAPTIVE), "PNG")), RED_LEFT
    )
    grey = read_image(encode(picture.convert("L"), "PNG"))
    assert np.array_equal(grey, np.repeat(np.asarray(picture.convert("L"))[:, :, None], 3, axis=2))
    one_bit = read_image(encode(picture.convert("1"), "PNG"))
    assert set(np.unique(one_bit)) <= {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_brightness(kind):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = read_image(encode(Image.fromarray(ramp), kind))
    assert np.array_equal(found[:, :, 0], np.round(ramp / 257).astype(np.uint8))
    assert np.array_equal(found[:, :, 0], found[:, :, 2])


def test_sixteen_bits_of_a_dark_picture_of_either_byte_order():
    dark = np.full((5, 7), 200, np.uint16)  # a brightness that would be light grey in 8 bits
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        entries = [(256, 7), (257, 5), (258, 16), (259, 1), (262, 1), (273, 0), (277, 1), (278, 5), (279, 70)]
        start = 8 + 2 + 12 * len(entries) + 4
        file = mark + struct.pack(f"{order}IH", 8, len(entries))
        for tag, value in entries:
            file += struct.pack(f"{order}HHII", tag, 4, 1, start if tag == 273 else value)
        file += struct.pack(f"{order}I", 0) + dark.astype(f"{order}u2").tobytes()
        assert np.array_equal(read_image(file), np.full((5, 7, 3), 1, np.uint8))


def test_floating_point_pictures():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    found = read_image(encode(Image.fromarray(ramp), "TIFF"))
    assert np.array_equal(found[:, :, 1], np.round(ramp * 255).astype(np.uint8))
    ramp[3, 3] = np.nan
    with pytest.raises(ImageError, match="undefined"):
        read_image(encode(Image.fromarray(ramp), "TIFF"))


def test_transparency_is_laid_on_white():
    rgba = np.dstack([RED_LEFT, np.full(RED_LEFT.shape[:2], 255, np.uint8)])
    rgba[:, 20:] = (0, 0, 0, 0)
    expected = RED_LEFT.copy()
    expected[:, 20:] = 255
    assert np.array_equal(read_image(encode(Image.fromarray(rgba), "PNG")), expected)
    assert np.array_equal(read_image(rgba), expected)
    palette = Image.fromarray(RED_LEFT).convert("P", palette=Image.Palette.ADAPTIVE)
    blue = palette.getpixel((29, 0))
    found = read_image(encode(palette, "PNG", transparency=blue))
    assert (found[:, 10:] == 255).all() and np.array_equal(found[:, :10], RED_LEFT[:, :10])


def test_arrays_and_tensors_agree():
    tensor = torch.from_numpy(RED_LEFT).permute(2, 0, 1)
    grey = RED_LEFT[:, :, 0]
    forms = [
        RED_LEFT,
        tensor,
        tensor.float() / 255,
        tensor.to(torch.bfloat16) / 255,
        RED_LEFT / 255.0,
        Image.fromarray(RED_LEFT),
    ]
    for form in forms:
        assert np.array_equal(read_image(form), RED_LEFT)
    for form in (grey, grey[:, :, None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert np.array_equal(read_image(form), np.repeat(grey[:, :, None], 3, axis=2))


def test_what_interpolation_rounds_past_white_is_white():
    exact = RED_LEFT / np.float32(255)
    for off in (2e-7, 9e-4):
        past = np.where(exact == 1, np.float32(1 + off), exact - np.float32(off) * (exact == 0))
        assert past.max() > 1 and past.min() < 0
        assert np.array_equal(read_image(past), RED_LEFT)
        assert np.array_equal(read_image(torch.from_numpy(past).permute(2, 0, 1)), RED_LEFT)
        grey = Image.fromarray(past[:, :, 0])
        assert np.array_equal(read_image(encode(grey, "TIFF"))[:, :, 1], RED_LEFT[:, :, 0])
    white = torch.ones(1, 3, 37, 41)  # as people scale pictures themselves
    scaled = torch.nn.functional.interpolate(white, (64, 90), mode="bicubic", align_corners=True)[0]
    assert (read_image(scaled) == 255).all()
    for value in (-2e-3, 1.002, float("nan"), float("inf"), -float("inf")):
        wrong = exact.copy()
        wrong[1, 2, 0] = value
        with pytest.raises(ImageError, match="from 0 to 1"):
            read_image(wrong)


def test_the_result_is_a_copy():
    original = RED_LEFT.copy()
    read_image(original)[:] = 7
    assert np.array_equal(original, RED_LEFT)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes(shape):
    assert read_image(encode(Image.new("RGB", shape), "PNG")).shape == (shape[1], shape[0], 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\xef\xbb\xbf \n<HTML>", "web page"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),
        (bytes(range(256)), "format"),
        (b"\xff\xd8\xff", "damaged|format"),
        (bomb(60_000, 60_000), "too large|limit"),
        (bomb(10_001, 10_000), "limit of 100,000,000"),
        (bomb(0, 5), "damaged|format|no pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "too large|limit|damaged"),
        (bomb(500, 500), "damaged"),
    ],
)
def test_no_picture_is_one_clear_error(data, message, tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_at_any_length(kind):
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)), kind)
    whole = read_image(data)
    for length in np.linspace(1, len(data) - 1, 25).astype(int).tolist():
        try:  # a file that lacks only its end mark may still hold every pixel
            assert np.array_equal(read_image(data[:length]), whole)
        except ImageError:
            continue
    with pytest.raises(ImageError):
        read_image(data[: len(data) // 2])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP"]), st.integers(0, 2**32 - 1))
def test_damaged_bytes_never_escape(kind, seed):
    random = np.random.default_rng(seed)
    data = bytearray(encode(Image.fromarray(RED_LEFT), kind))
    for place in random.integers(0, len(data), 6):
        data[place] = random.integers(256)
    try:
        found = read_image(bytes(data))
    except ImageError:
        return
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "channels come last"),
        (np.zeros((2, 8, 8, 3), np.uint8), "as a list"),
        (np.zeros(8, np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 8, 3), np.int64), "uint8"),
        (np.full((8, 8, 3), 255.0), "0 to 1"),
        (np.full((8, 8, 3), np.nan), "0 to 1"),
        (torch.zeros(8, 8, 3), "permute"),
        (torch.zeros(2, 3, 8, 8), "as a list"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), "uint8"),
        (torch.zeros(3, 0, 8), "no pixels"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_wrong_objects(picture, message):
    with pytest.raises(ImageError, match=message):
        read_image(picture)


def test_missing_folder_and_pipe(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match="ordinary"):
        read_image(pipe)


def test_pixel_limit_is_the_callers():
    assert read_image(RED_LEFT, max_pixels=600).shape == RED_LEFT.shape
    with pytest.raises(ImageError, match="limit of 599"):
        read_image(RED_LEFT, max_pixels=599)


def test_what_is_too_long_to_be_letterboxed_is_refused_by_name(tmp_path):
    Image.new("RGB", (MAX_SIDE + 1, 2)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match=r"wide\.png: 65537 x 2"):
        read_image(tmp_path / "wide.png")
    assert read_image(np.zeros((2, MAX_SIDE, 3), np.uint8)).shape == (2, MAX_SIDE, 3)


def test_find_images(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "note.txt", ".hidden/x.jpg", "deep/.y.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    files, complaints = find_images([tmp_path])
    assert [str(f.relative_to(tmp_path)) for f in files] == ["a.PNG", "b.jpg", "deep/er/c.webp"]
    assert complaints == []
    assert find_images([tmp_path / "note.txt"]) == ([tmp_path / "note.txt"], [])  # named outright: tried
    assert find_images([tmp_path / "*.jpg", tmp_path / "b.jpg"]) == ([tmp_path / "b.jpg"], [])  # once each
    assert find_images([tmp_path / "d*"])[0] == [tmp_path / "deep/er/c.webp"]
    odd = [tmp_path / "odd" / name for name in ("a\nb.jpg", "caf\udce9.jpg")]
    odd[0].parent.mkdir()
    for path in odd:
        path.write_bytes(b"x")
        assert find_images([path]) == ([path], [])  # whatever the name, if it is there
    for bad in ("empty", "no.jpg", "*.gif", "x" * 300, "a\0b"):
        files, complaints = find_images([tmp_path / bad])
        assert files == [] and len(complaints) == 1 and "\0" not in complaints[0]


def test_folders_behind_links_are_searched_once_whatever_goes_in_circles(tmp_path):
    below = tmp_path / "photos" / "z" / "below"
    below.mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    for file in (below / "a.jpg", other / "b.jpg"):
        file.write_bytes(b"")
    photos = tmp_path / "photos"
    (photos / "again").symlink_to(photos / "z")  # found where it lies
    (below / "circle").symlink_to(photos)
    (photos / "linked").symlink_to(other)
    (other / "self").symlink_to(other / "self")
    (photos / ".hidden").symlink_to(tmp_path)
    assert find_images([photos]) == ([photos / "linked" / "b.jpg", below / "a.jpg"], [])
    assert find_images([photos / "linked"]) == ([photos / "linked" / "b.jpg"], [])


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"")
    scandir = os.scandir

    def refused(place):
        if str(place) == str(tmp_path / "a"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)  # the owner of a machine may list everything
    told = f"{tmp_path / 'a'}: a folder that cannot be listed (Permission denied)"
    assert find_images([tmp_path]) == ([tmp_path / "b" / "x.jpg"], [told])
    assert find_images([tmp_path / "a"]) == ([], [told])


def test_find_images_with_brackets_in_a_name(tmp_path, monkeypatch):
    (tmp_path / "photo [1].jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert find_images(["photo [1].jpg"])[1] == []  # a file's name first, a pattern only if there is none
    assert [f.name for f in find_images(["*.jpg"])[0]] == ["photo [1].jpg"]
