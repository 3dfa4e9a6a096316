"""The container of results: what it accepts, how it is taken apart, and its conversions there and back."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.yolo9000.small import small_detector
from yolo9000 import Detector
from yolo9000 import draw as draw_module
from yolo9000.detections import Detection, Detections
from yolo9000.draw import colour_of, crops, draw, legible, save_picture
from yolo9000.errors import ImageError


def make(n: int, size=(100, 80), seed=0, **changes) -> Detections:
    random = np.random.default_rng(seed)
    corners = random.random((n, 2, 2)) * np.array(size)
    parts = {
        "boxes_xyxy": np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1),
        "objectness": random.random(n),
        "scores": np.sort(random.random(n))[::-1],
        "nodes": random.integers(0, 9, n),
        "names": [f"name {i}" for i in range(n)],
        "paths": [("root", f"id{i}") for i in range(n)],
        "image_size": size,
        "probabilities": random.random(n),
        "path_names": [("root", f"name {i}") for i in range(n)],
        "path_probabilities": [(1.0, 0.5)] * n,
    }
    return Detections(**{**parts, **changes})


@pytest.mark.parametrize("n", [0, 1, 7])
def test_length_iteration_and_json(n):
    found = make(n)
    assert len(found) == n and found.boxes_xyxy.shape == (n, 4) and found.boxes_xyxy.dtype == np.float32
    assert [one.name for one in found] == list(found.names)
    assert all(isinstance(one, Detection) for one in found)
    again = Detections.from_dict(json.loads(found.to_json()))
    assert np.allclose(again.boxes_xyxy, found.boxes_xyxy, atol=0.005 + 1e-5)
    assert np.allclose(again.scores, found.scores, atol=1e-5)
    assert (again.names, again.paths, again.image_size) == (found.names, found.paths, found.image_size)
    assert again.to_dict() == Detections.from_dict(again.to_dict()).to_dict()


def test_indexing():
    found = make(5)
    assert found[-1] == found[4] == list(found)[4]
    assert found[1:3].names == found.names[1:3]
    assert found[[4, 0]].names == (found.names[4], found.names[0])
    assert found[found.scores > 2].names == ()
    assert found[np.array([True, False, True, False, False])].nodes.tolist() == found.nodes[[0, 2]].tolist()
    assert len(found[[]]) == 0
    with pytest.raises(IndexError):
        found[5]


def test_frozen():
    found = make(2)
    with pytest.raises(ValueError, match="read-only"):
        found.scores[0] = 1
    with pytest.raises(AttributeError):
        found.nodes = 3


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("boxes_xyxy", np.zeros((2, 5)), r"\(n, 4\)"),
        ("boxes_xyxy", np.zeros((3, 4)), r"\(3,\)"),
        ("boxes_xyxy", [[0, 0, 1, 1], [5, 0, 4, 1]], "box 1"),
        ("boxes_xyxy", [[0, 0, 1, np.nan], [0, 0, 1, 1]], "box 0"),
        ("scores", [0.5, 1.5], "box 1"),
        ("scores", [np.nan, 0.5], "box 0"),
        ("objectness", [0.5], "objectness"),
        ("nodes", [0, -1], "node -1"),
        ("names", ["a"], "1 names for 2"),
        ("paths", [("a",), ()], "box 0"),
        ("image_size", (0, 5), "0 x 5"),
    ],
)
def test_parts_that_do_not_belong_together(part, value, message):
    with pytest.raises(ValueError, match=message):
        make(2, **{part: value})


def test_from_dict_refuses_other_things():
    endless = {"detections": [], "width": float("inf"), "height": 1}
    high = make(1).to_dict()
    high["detections"][0]["node"] = 2**63
    for record in ({}, {"detections": [{}], "width": 1, "height": 1}, {"detections": 3}, endless, high):
        with pytest.raises(ValueError, match="not a record"):
            Detections.from_dict(record)


def test_coco_rows():
    found = make(3, nodes=[4, 5, 4])
    rows = found.to_coco(17)
    assert [row["category_id"] for row in rows] == [4, 5, 4] and {row["image_id"] for row in rows} == {17}
    x, y, width, height = rows[0]["bbox"]
    assert np.allclose([x, y, x + width, y + height], found.boxes_xyxy[0], atol=0.02)
    assert [row["category_id"] for row in found.to_coco(17, {4: 90})] == [90, 90]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 12), st.integers(0, 1000))
def test_drawing_keeps_the_picture_outside_boxes_and_labels(width, height, n, seed):
    ground = np.full((height, width, 3), 90, np.uint8)
    canvas = draw(ground, make(n, size=(width, height), seed=seed))
    assert canvas.size == (width, height)
    assert (ground == 90).all()
    if n == 0:
        assert (np.asarray(canvas) == 90).all()


def test_the_frame_lies_on_the_border_of_the_box():
    found = make(1, boxes_xyxy=[[20.0, 30.0, 60.0, 70.0]])
    canvas = np.asarray(draw(np.zeros((80, 100, 3), np.uint8), found))
    colour = colour_of(found.paths[0])
    assert (
        tuple(canvas[69, 59]) == colour and tuple(canvas[69, 20]) == colour
    )  # last pixel inside, first pixel
    assert (canvas[72:] == 0).all() and (canvas[40:60, 25:55] == 0).all()


def test_labels_that_are_long_or_not_printable():
    names = ["a" * 300, "tab\there\n", "Ærøskøbing 北京"]
    picture = draw(Image.new("RGB", (100, 80)), make(3, names=names))
    assert picture.size == (100, 80)


def test_names_in_letters_that_a_font_lacks(monkeypatch):
    assert legible("dog\n", "n1", 20)[0] == "dog "
    fonts = [font for font in map(draw_module._font, draw_module._FONTS) if font is not None]
    for text in ("собака", "Ærøskøbing", "κύων"):
        if any(draw_module._has(font, text) for font in fonts):
            written, font = legible(text, "n1", 20)
            assert written == text and font.size == 20 and draw_module._has(font, text)
    monkeypatch.setattr(draw_module, "_FONTS", ("no font is called so.ttf",))
    legible.cache_clear()
    for text, otherwise, wanted in (
        ("собака", "n02084071", "n02084071"),
        ("café", "n1", "cafe"),
        ("犬 2", "犬", "? 2"),
        ("犬", "", "?"),
    ):
        written, font = legible(text, otherwise, 20)
        assert written == wanted and draw_module._has(font, written)
    one = {"names": ["собака"], "paths": [("n1", "n2")], "path_names": [("a", "собака")]}
    drawn = [
        draw(Image.new("RGB", (100, 80)), make(1, **{**one, **more})) for more in ({}, {"names": ["n2"]})
    ]
    assert drawn[0] == drawn[1]
    legible.cache_clear()


def test_pixels_stay_out_of_pickles_and_files_are_known_still(tmp_path):
    ground = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    found = make(2, _picture=ground)
    again = pickle.loads(pickle.dumps(found))
    assert len(pickle.dumps(found)) < 2000 and again.to_dict() == found.to_dict()
    assert draw(ground, again) == found.draw()
    with pytest.raises(ImageError, match=r"do not know their picture .*draw\.draw"):
        again.save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="read-only"):
        again.scores[0] = 1
    assert copy.copy(found).draw() == copy.deepcopy([found])[0].draw() == found.draw()
    Image.fromarray(ground).save(tmp_path / "a.png")
    of_file = make(2, _picture=tmp_path / "a.png", source=str(tmp_path / "a.png"))
    assert pickle.loads(pickle.dumps(of_file))[:1].draw() == found[:1].draw()


def test_a_file_that_has_changed_is_not_drawn_on(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 80)).save(path)
    found = Detector(small_detector("stored"))(path)
    pickled = pickle.dumps(found)
    found.save(path)  # what it holds now is the picture with boxes
    for one in (found, found[:1], pickle.loads(pickled)):
        with pytest.raises(ImageError, match=r"a\.png: has changed since"):
            one.draw()
    path.unlink()
    with pytest.raises(ImageError, match="no such file"):
        found.draw()


@pytest.mark.parametrize(
    ("suffix", "most"), [("jpg", 65_500), ("webp", 16_383), ("gif", 65_535), ("tga", 65_535)]
)
def test_what_no_such_picture_holds(suffix, most, tmp_path):
    path = tmp_path / f"x.{suffix}"
    save_picture(Image.new("RGB", (1, most)), path)
    before = path.read_bytes()
    with pytest.raises(ImageError, match=rf"x\.{suffix}: 1 x {most + 1} pixels, and no .*; write a \.png"):
        save_picture(Image.new("RGB", (1, most + 1)), path)
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of formats that Pillow will give up
def test_a_picture_that_can_be_written_has_its_size(tmp_path):
    Image.init()
    written = set()
    for suffix, kind in Image.registered_extensions().items():
        try:
            path = save_picture(Image.new("RGB", (200, 100), (200, 10, 10)), tmp_path / f"x{suffix}")
        except ImageError:
            continue
        written.add(kind)
        if kind in Image.OPEN:  # a PDF is only written
            assert Image.open(path).size == (200, 100), suffix
    assert {"PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"} <= written and not {"ICO", "ICNS"} & written
    assert not [one for one in tmp_path.iterdir() if one.suffix in (".ico", ".icns")]
    with pytest.raises(ImageError, match=r"x\.ico: ICO scales .* use \.jpg or \.png"):
        save_picture(Image.new("RGB", (16, 16)), tmp_path / "x.ico")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_drawn_on_is_what_was_detected_on(orientation, tmp_path):
    pixels = np.random.default_rng(orientation).integers(0, 256, (48, 96, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    path = tmp_path / "a.png"
    detector = Detector(small_detector("stored"), precision="float32")
    with Image.open(path) as opened:
        for picture in (path, str(path), path.read_bytes(), opened):
            found = detector(picture, threshold=0.3)
            assert len(found) > 0
            assert draw(picture, found) == found.draw()
            assert crops(picture, found) == found.crop()


def test_drawing_on_every_kind_of_array():
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (48, 96, 4), np.uint8)
    detector = Detector(small_detector("stored"), precision="float32")
    tensor = torch.from_numpy(colours[:, :, :3].copy()).permute(2, 0, 1)
    for picture in (
        colours,
        colours[:, :, :3],
        colours[:, :, 0],
        colours[:, :, :1],
        colours / np.float32(255),
        tensor,
        tensor / 255,
        Image.fromarray(colours),
    ):
        before = np.asarray(picture).copy()
        found = detector(picture, threshold=0.3)
        assert len(found) > 0
        assert draw(picture, found) == found.draw() and crops(picture, found) == found.crop()
        assert (np.asarray(picture) == before).all()
    with pytest.raises(ImageError, match="no such file"):
        draw("nowhere.jpg", found)


def test_sizes_must_agree():
    with pytest.raises(ImageError, match="100"):
        draw(np.zeros((10, 10, 3), np.uint8), make(1))


def test_save(tmp_path):
    found = make(3, _picture=np.zeros((80, 100, 3), np.uint8))
    path = found.save(tmp_path / "deep" / "found.png")
    assert Image.open(path).size == (100, 80)
    assert [p.name for p in path.parent.iterdir()] == ["found.png"]  # nothing half-written beside it
    with pytest.raises(ImageError, match="suffix"):
        found.save(tmp_path / "found.doc")
    with pytest.raises(ImageError, match="suffix"):
        found.save(tmp_path / "found")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="cannot be written"):
        save_picture(Image.new("RGB", (4, 4)), tmp_path / "file" / "x.png")
    with pytest.raises(ImageError, match="do not know their picture"):
        make(1).save(tmp_path / "x.png")
