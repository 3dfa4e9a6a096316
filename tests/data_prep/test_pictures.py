"""Pictures are the same bytes by the same names out of a folder, a tar and a folder of tars; and what
`inspect` finds."""

import gzip
import io
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_prep import DataError
from data_prep.limits import MAX_SIDE
from data_prep.pictures import inspect, open_pictures
from yolo9000.errors import ImageError
from yolo9000.images import read_image

FILES = {"n01/a.JPEG": b"aa", "n01/sub/b.png": b"b", "n02/a.JPEG": b"other"}
HIDDEN = {"n01/.hidden.jpg": b"x", "n01/.thumb/a.JPEG": b"x", ".n03/a.JPEG": b"x"}


def as_folder(root, make):
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "notes.txt").write_text("no picture")
    for name in HIDDEN:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def as_tar(root, make):
    return make.tar_of(root / "all.tar", {**FILES, **HIDDEN, "notes.txt": b"no picture"})


def as_tar_with_dots(root, make):
    return make.tar_of(root / "all.tar", {f"./{name}": content for name, content in (FILES | HIDDEN).items()})


def as_tars(root, make, keep_stem=False):
    (root / "tars").mkdir()
    for stem in ("n01", "n02"):
        start = 0 if keep_stem else len(stem) + 1
        files = {name[start:]: x for name, x in (FILES | HIDDEN).items() if name.startswith(stem)}
        make.tar_of(root / "tars" / f"{stem}.{'tar' if stem == 'n01' else 'TAR'}", files)
    return root / "tars"


def as_tars_with_stem(root, make):
    return as_tars(root, make, keep_stem=True)


@pytest.mark.parametrize("layout", [as_folder, as_tar, as_tar_with_dots, as_tars, as_tars_with_stem])
def test_every_layout_has_the_same_pictures(tmp_path, make, layout):
    pictures = open_pictures(layout(tmp_path, make))
    assert pictures.names() == sorted(FILES)
    assert {name: pictures.read(name) for name in pictures.names()} == FILES
    for absent in ("n01/none.jpg", "n03/a.JPEG", "none.jpg", ""):
        with pytest.raises(DataError):
            pictures.read(absent)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "a/../../secret.jpg", "a\0b.jpg"])
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError):
        open_pictures(tmp_path / "pictures").read(name)


def test_links_in_a_tar_are_followed_within_it(tmp_path, make):
    make.tar_of(tmp_path / "t.tar", {"./n01/a.jpg": b"aa"})
    with tarfile.open(tmp_path / "t.tar", "a") as tar:
        for name, kind, target in (
            ("n02/hard.jpg", tarfile.LNKTYPE, "./n01/a.jpg"),
            ("n02/soft.jpg", tarfile.SYMTYPE, "../n01/a.jpg"),
            ("again.jpg", tarfile.SYMTYPE, "./n02/soft.jpg"),
            ("lost.jpg", tarfile.SYMTYPE, "/n01/a.jpg"),
            ("round.jpg", tarfile.SYMTYPE, "round.jpg"),
            ("sparse.jpg", tarfile.GNUTYPE_SPARSE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    pictures = open_pictures(tmp_path / "t.tar")
    good, lost = ["again.jpg", "n01/a.jpg", "n02/hard.jpg", "n02/soft.jpg"], ["lost.jpg", "round.jpg"]
    assert pictures.names() == sorted([*good, *lost, "sparse.jpg"])
    assert [pictures.read(name) for name in good] == [b"aa"] * 4
    for name in lost:
        with pytest.raises(DataError, match=rf"{name} is a link to .*, which is no file in the tar"):
            pictures.read(name)
    with pytest.raises(DataError, match=r"sparse\.jpg is stored with holes; make the tar without --sparse"):
        pictures.read("sparse.jpg")


def test_pictures_as_a_browser_saves_them(tmp_path, make):
    (tmp_path / "a.JFIF").write_bytes(make.picture())
    assert open_pictures(tmp_path).names() == ["a.JFIF"]


def test_damaged_and_compressed_tars_are_refused(tmp_path, make):
    whole = make.tar_of(tmp_path / "t.tar", {"a.jpg": bytes(3000), "b.jpg": bytes(3000)}).read_bytes()
    for name, content in {
        "empty.tar": b"",
        "html.tar": b"<html>" * 200,
        "header.tar": whole[:100],
        "gz.tar": gzip.compress(whole),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="tar"):
            open_pictures(tmp_path / name).names()
    (tmp_path / "short.tar").write_bytes(whole[: 512 + 1000])  # the header promises 3000 bytes
    with pytest.raises(DataError, match=r"short\.tar"):
        open_pictures(tmp_path / "short.tar").read("a.jpg")
    with pytest.raises(DataError, match="no such"):
        open_pictures(tmp_path / "none.tar")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("decode", [True, False])
def test_size_of_common_kinds(make, kind, decode):
    assert inspect(make.picture(31, 17, kind), decode).upright == (31, 17)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_colour_mode_is_a_picture(mode):
    out = io.BytesIO()
    Image.new(mode, (5, 3)).save(out, "JPEG" if mode == "CMYK" else "PNG")
    assert inspect(out.getvalue(), decode=True).upright == (5, 3)


def _png_of_size(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def _tiff(samples):
    out = io.BytesIO()
    Image.fromarray(samples).save(out, "TIFF")
    return out.getvalue()


def _of_mode(mode, size=(5, 3), kind="TIFF"):
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


ODD = {
    "wide": _png_of_size(MAX_SIDE + 1, 1),
    "widest": _of_mode("1", (MAX_SIDE, 1), "PNG"),
    "large": _png_of_size(10_001, 10_000),
    "EPS": _of_mode("RGB", kind="EPS"),
    "PCX": _of_mode("RGB", kind="PCX"),
    "TGA": _of_mode("RGB", kind="TGA"),
    "ICO": _of_mode("RGB", (16, 16), "ICO"),
    "below black": _tiff(np.asarray([[-1, 5]], np.int32)),
    "above white": _tiff(np.asarray([[0, 70_000]], np.int32)),
    "grey": _tiff(np.asarray([[0, 60_000]], np.int32)),
    "undefined": _tiff(np.asarray([[0, np.nan]], np.float32)),
    "shares": _tiff(np.asarray([[0, 0.5]], np.float32)),
    "transparent": _of_mode("RGBA"),
} | {mode: _of_mode(mode) for mode in ("LAB", "CMYK", "YCbCr", "I;16", "I", "F", "P", "LA", "1")}


@pytest.mark.parametrize("what", ODD)
def test_what_passes_is_what_training_and_detecting_read(what, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started another program"))
    try:
        shape = read_image(ODD[what]).shape
    except ImageError as error:
        with pytest.raises(DataError) as refused:
            inspect(ODD[what], decode=True)
        if "not a picture" not in str(error) and "damaged" not in str(error):
            assert str(error).endswith(str(refused.value))
    else:
        assert inspect(ODD[what], decode=True).upright == shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_says(make, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = make.picture(31, 17, exif=exif)
    shape = inspect(content, decode=True)
    assert shape.stored == (31, 17)
    assert shape.orientation == orientation
    assert shape.upright == ImageOps.exif_transpose(Image.open(io.BytesIO(content))).size


@pytest.mark.parametrize("decode", [True, False])
def test_a_tiff_is_turned_once(make, decode):
    exif = Image.Exif()
    exif[0x0112] = 6
    shape = inspect(make.picture(31, 17, "TIFF", exif=exif), decode)
    assert (shape.stored, shape.orientation, shape.upright) == ((31, 17), 6, (17, 31))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_cut_in_half_passes_a_header_check_only(make, kind):
    half = make.picture(64, 64, kind)
    half = half[: len(half) // 2]
    assert inspect(half, decode=False).upright == (64, 64)
    with pytest.raises(DataError, match="cannot be decoded"):
        inspect(half, decode=True)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "not a picture"),
        (b"\xff\xd8\xff", "not a picture|cannot be decoded"),
        (_png_of_size(60_000, 60_000), "limit"),
        (_png_of_size(2**31 - 1, 2**31 - 1), "limit"),
        (bytes(5000), "not a picture"),
    ],
)
def test_what_is_no_picture(content, why, decode):
    with pytest.raises(DataError, match=why):
        inspect(content, decode)


def test_a_link_upwards_is_not_followed_for_ever(tmp_path, make):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x.jpg").write_bytes(make.picture())
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "other").symlink_to("a/b")
    assert open_pictures(tmp_path).names() == ["a/x.jpg"]
    (tmp_path / "a" / "b" / "y.jpg").write_bytes(make.picture())
    assert open_pictures(tmp_path).names() == ["a/b/y.jpg", "a/x.jpg", "other/y.jpg"]


def test_tars_beside_pictures_are_refused_not_half_read(tmp_path, make):
    make.tar_of(tmp_path / "n1.tar", {"x.jpg": make.picture()})
    (tmp_path / "README.txt").write_text("notes do no harm")
    assert open_pictures(tmp_path).names() == ["n1/x.jpg"]
    (tmp_path / "n2").mkdir()
    with pytest.raises(DataError, match="holds tars and beside them n2"):
        open_pictures(tmp_path)


@pytest.mark.parametrize("ending", [".tar.gz", ".TGZ", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip"])
def test_archives_beside_tars_are_refused_not_left_out(tmp_path, make, ending):
    make.tar_of(tmp_path / "n1.tar", {"x.jpg": make.picture()})
    (tmp_path / f"n2{ending}").write_bytes(b"")
    with pytest.raises(DataError, match=rf"beside them n2{ending}; unpack it"):
        open_pictures(tmp_path)


def test_two_of_one_name_in_a_folder_of_tars_are_refused(tmp_path, make):
    make.tar_of(tmp_path / "n1.tar", {"x.jpg": b"one", "n1/x.jpg": b"other", "n1/n1/x.jpg": b"third"})
    with pytest.raises(DataError, match=r"n1\.tar: holds x\.jpg and n1/x\.jpg, which go by one name"):
        open_pictures(tmp_path).names()
    make.tar_of(tmp_path / "n1.TAR", {"y.jpg": b""})
    with pytest.raises(DataError, match="differs from another tar by capitals only"):
        open_pictures(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    scan = os.scandir

    def refusing(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    pictures = open_pictures(tmp_path)
    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(DataError, match="a: cannot be read"):
        pictures.names()
