"""Label Studio's exports as its documentation has them; writing is test_corrected.py's."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import DataError
from data_prep.labelstudio import read_labelstudio
from data_prep.lookup import Lookup

PICTURES = Lookup(["a.jpg", "b.jpg", "deep/c.png"])


def written(path, content) -> object:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def boxes(records, name) -> list:
    return next(r for r in records.records if r.name == name).boxes_xyxy.tolist()


def task(image: str, *annotations, **more) -> dict:
    return {"id": 1, "data": {"image": image}, "annotations": list(annotations), **more}


def region(label: str = "cat", x=10, y=20, width=30, height=40, rotation=0, size=(200, 100), **more) -> dict:
    value = {
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "rotation": rotation,
        "rectanglelabels": [label],
    }
    row = {"type": "rectanglelabels", "original_width": size[0], "original_height": size[1], "value": value}
    return {**row, **more}


def choice(*names) -> dict:
    return {"type": "choices", "value": {"choices": list(names)}}


def test_labelstudio_annotations(tmp_path):
    content = [
        task(
            "/data/local-files/?d=pictures/a.jpg",
            {"result": [region("no")]},
            {"result": [region(), region("dog")]},
        ),
        task("/data/upload/3/1a2b3c4d-b.jpg", {"result": [], "was_cancelled": False}),
        task("https://x.example/deep/c.png?token=1", predictions=[{"result": [region("cup")]}]),
    ]
    records = read_labelstudio(written(tmp_path / "export.json", content), PICTURES)
    a, b = records.records
    assert (a.name, b.name) == ("a.jpg", "b.jpg") and a.categories == ("cat", "dog") and a.size == (200, 100)
    np.testing.assert_allclose(a.boxes_xyxy, [[0.1, 0.2, 0.4, 0.6]] * 2)
    assert b.boxed and not len(b.categories)
    assert [(f.kind, f.picture) for f in records.faults] == [("missing labels", "deep/c.png")]
    said = read_labelstudio(tmp_path / "export.json", PICTURES, "predictions")
    assert [(r.name, r.categories) for r in said.records] == [("deep/c.png", ("cup",))]


def test_labelstudio_which_annotation_counts(tmp_path):
    def label(*annotations) -> tuple:
        path = written(tmp_path / "e.json", [task("a.jpg", *annotations)])
        records = read_labelstudio(path, PICTURES)
        return records.records[0].categories if records.records else None

    one, two = {"result": [region("one")]}, {"result": [region("two")]}
    assert label(one, two) == ("two",)
    assert label({**one, "ground_truth": True}, two) == ("one",)
    assert label(one, {**two, "was_cancelled": True}) == ("one",)
    assert label({**one, "was_cancelled": True}) is None
    assert label() is None


def test_labelstudio_choices_and_shapes(tmp_path):
    only = [task("a.jpg", {"result": [choice("cat")]}), task("b.jpg", {"result": []})]
    records = read_labelstudio(written(tmp_path / "c.json", only), PICTURES)
    assert [r.image_categories for r in records.records] == [("cat",), ()]
    assert not any(r.boxed for r in records.records)
    polygon = {
        "type": "polygonlabels",
        "value": {"points": [[10, 20], [50, 5], [30, 60]], "polygonlabels": ["p"]},
    }
    both = [task("a.jpg", {"result": [choice("cat"), polygon, {"type": "relation"}]})]
    found = read_labelstudio(written(tmp_path / "d.json", both), PICTURES).records[0]
    np.testing.assert_allclose(found.boxes_xyxy, [[0.1, 0.05, 0.5, 0.6]])
    assert found.boxed and found.image_categories == ("cat",) and found.categories == ("p",)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=3))
def test_labelstudio_tells_labelled_pictures_from_boxed_ones_one_by_one(tmp_path_factory, pictures):
    rows = [[choice("sunny")] * chosen + [region()] * drawn for chosen, drawn in pictures]
    content = [task(f"{k}.jpg", {"result": result}) for k, result in enumerate(rows)]
    path = written(tmp_path_factory.mktemp("f") / "e.json", content)
    only_choices = any(chosen for chosen, _ in pictures) and not any(drawn for _, drawn in pictures)
    for record, (chosen, drawn) in zip(read_labelstudio(path, Lookup([])).records, pictures, strict=True):
        assert record.image_categories == ("sunny",) * chosen and len(record.categories) == drawn
        assert record.boxed == (drawn or not (chosen or only_choices))


def test_labelstudio_json_min(tmp_path):
    value = region()["value"] | {"original_width": 200, "original_height": 100}
    content = [
        {"id": 1, "image": "/data/upload/1/00000000-a.jpg", "label": [value], "annotator": 1},
        {"id": 2, "image": "b.jpg", "label": [value], "choice": {"choices": ["x", "y"]}},
        {"id": 3, "image": "deep/c.png", "label": [value], "choice": "x"},
    ]
    records = read_labelstudio(written(tmp_path / "min.json", content), PICTURES)
    assert [r.categories for r in records.records] == [("cat",)] * 3
    assert [r.image_categories for r in records.records] == [(), ("x", "y"), ("x",)]
    np.testing.assert_allclose(records.records[0].boxes_xyxy, [[0.1, 0.2, 0.4, 0.6]])
    assert records.records[0].size == (200, 100)


def minimal(image: str, number: int, **controls) -> dict:
    """A task as its JSON-MIN has it: data, id, controls, then what it says of the annotation."""
    own = {"annotator": 1, "annotation_id": 7, "created_at": "2024", "updated_at": "2024", "lead_time": 3.2}
    return {"image": image, "licence": "CC0", "id": number, **controls, **own}


def test_labelstudio_json_min_choices_of_any_name(tmp_path):
    content = [minimal("a.jpg", 1, species="cat"), minimal("b.jpg", 2, species={"choices": ["cat", "dog"]})]
    records = read_labelstudio(written(tmp_path / "min.json", content), PICTURES)
    assert [r.image_categories for r in records.records] == [("cat",), ("cat", "dog")]
    assert not any(r.boxed for r in records.records) and not records.faults
    with pytest.raises(DataError, match=r"min\.json: no region and no choice .* export the project as JSON"):
        read_labelstudio(written(tmp_path / "min.json", [minimal("a.jpg", 1, stars=[])]), PICTURES)


def test_labelstudio_remarks_on_one_region_are_no_labels_of_the_picture(tmp_path):
    place = {key: region()["value"][key] for key in ("x", "y", "width", "height", "rotation")}

    def remark(kind: str, **said) -> dict:
        return {"id": "r1", "type": kind, "value": {**place, **said}}

    remarks = [remark("choices", choices=["occluded"]), remark("textarea", text=["AB 123"])]
    content = [task("a.jpg", {"result": [region(id="r1"), *remarks]})]
    records = read_labelstudio(written(tmp_path / "e.json", content), PICTURES)
    assert (records.records[0].image_categories, records.faults) == ((), ())
    # In JSON-MIN those of several regions are a list, of one alone a string.
    label = [region()["value"]]
    content = [
        minimal("a.jpg", 1, label=label * 2, state=["occluded", "whole"]),
        minimal("b.jpg", 2, label=label, state="whole"),
        minimal("deep/c.png", 3, label=label, state=[{**place, "choices": ["occluded", "cut"]}]),
    ]
    records = read_labelstudio(written(tmp_path / "min.json", content), PICTURES)
    assert [(r.categories, r.image_categories) for r in records.records] == [
        (("cat", "cat"), ()),
        (("cat",), ()),
        (("cat",), ()),
    ]
    assert not records.faults


def test_labelstudio_corners_that_are_no_numbers_are_not_passed_over(tmp_path):
    row = {"value": {"points": [[10, 20], [float("nan"), 5], [30, 60]], "polygonlabels": ["p"]}}
    records = read_labelstudio(written(tmp_path / "n.json", [task("a.jpg", {"result": [row]})]), PICTURES)
    assert np.isnan(boxes(records, "a.jpg")[0]).tolist() == [True, False, True, False]  # judged as not finite


def test_labelstudio_turns_in_pixels(tmp_path):
    """Their issue 2293: 300 x 100 pixels at (200, 100) turned by 90 degrees, on 1000 x 500."""
    row = region(x=20, y=20, width=30, height=20, rotation=90, size=(1000, 500))
    records = read_labelstudio(written(tmp_path / "t.json", [task("a.jpg", {"result": [row]})]), PICTURES)
    # 100 wide and 300 high, to the left of the corner: in YOLO's form 0.15 0.5 0.1 0.6.
    np.testing.assert_allclose(boxes(records, "a.jpg"), [[0.1, 0.2, 0.2, 0.8]], atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(-360, 360), st.integers(1, 400), st.integers(1, 400))
def test_labelstudio_turned_boxes(tmp_path_factory, turn, width, height):
    """The upright box about corners turned one by one, as complex numbers."""
    path = tmp_path_factory.mktemp("f") / "t.json"
    content = [task("a.jpg", {"result": [region(rotation=turn, size=(width, height))]})]
    (found,) = boxes(read_labelstudio(written(path, content), PICTURES), "a.jpg")
    corner = complex(0.1 * width, 0.2 * height)
    sides = [complex(0.3 * a * width, 0.4 * b * height) for a in (0, 1) for b in (0, 1)]
    turned = [corner + side * np.exp(1j * np.radians(turn)) for side in sides]
    xs, ys = [z.real / width for z in turned], [z.imag / height for z in turned]
    np.testing.assert_allclose(found, [min(xs), min(ys), max(xs), max(ys)], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(-360, 360), st.integers(1, 400), st.integers(1, 400))
def test_labelstudio_ellipses_are_boxed_as_polygons_are(tmp_path_factory, turn, width, height):
    around = np.exp(2j * np.pi * np.arange(4096) / 4096)
    turned = (0.1 * width * around.real + 0.2j * height * around.imag) * np.exp(1j * np.radians(turn))
    points = [[40 + 100 * z.real / width, 50 + 100 * z.imag / height] for z in turned]
    ellipse = {"x": 40, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": turn, "ellipselabels": ["e"]}
    own = {"original_width": width, "original_height": height}
    rows = [{"value": ellipse, **own}, {"value": {"points": points, "polygonlabels": ["e"]}, **own}]
    path = written(tmp_path_factory.mktemp("f") / "e.json", [task("a.jpg", {"result": rows})])
    first, second = boxes(read_labelstudio(path, PICTURES), "a.jpg")
    np.testing.assert_allclose(first, second, atol=1e-4 * max(1, width / height, height / width))


def test_labelstudio_regions_with_their_labels_in_rows_of_their_own(tmp_path):
    """As its template for OCR has them: <Rectangle>, <Labels> and <TextArea>."""
    place = {key: region()["value"][key] for key in ("x", "y", "width", "height", "rotation")}
    said = [{"labels": ["cat"]}, {}, {"text": ["AB 123"]}]
    rows = [{"id": "r1", "value": {**place, **more}} for more in said]
    alone = {"id": "r2", "value": {**place, "x": 50}}
    content = [task("a.jpg", {"result": rows}), task("b.jpg", {"result": [*rows, alone]})]
    records = read_labelstudio(written(tmp_path / "e.json", content), PICTURES)
    assert [r.categories for r in records.records] == [("cat",)] * 2
    assert [f.picture for f in records.faults] == ["b.jpg"]  # a region that nobody gave a label
    content = [minimal("a.jpg", 1, bbox=[place], label=[place | {"labels": ["cat"]}], transcription="x")]
    records = read_labelstudio(written(tmp_path / "min.json", content), PICTURES)
    assert records.records[0].categories == ("cat",) and not records.faults


def test_labelstudio_remarks_on_the_whole_picture(tmp_path):
    """They cost nothing beside a region or a choice; alone they leave open what is there."""
    remark, rating = {"type": "textarea", "value": {"text": ["night"]}}, {"value": {"rating": 3}}
    rows = {"a.jpg": [remark, choice("cat"), rating], "b.jpg": [region(), remark], "c.png": [remark]}
    content = [task(name, {"result": result}) for name, result in rows.items()]
    records = read_labelstudio(written(tmp_path / "e.json", content), Lookup(list(rows)))
    assert [(r.image_categories, r.categories) for r in records.records] == [
        (("cat",), ()),
        ((), ("cat",)),
        ((), ()),
    ]
    assert [(f.kind, f.picture) for f in records.faults] == [("malformed annotation", "c.png")]


def test_labelstudio_taxonomies_label_pictures_by_the_ends_of_paths(tmp_path):
    chosen = {"type": "taxonomy", "value": {"taxonomy": [["animal", "dog", "husky"], ["thing"], [], 7]}}
    records = read_labelstudio(written(tmp_path / "e.json", [task("a.jpg", {"result": [chosen]})]), PICTURES)
    (found,) = records.records
    assert found.image_categories == ("husky", "thing") and not found.boxed and not records.faults


@pytest.mark.parametrize(
    "row",
    [
        region(image_rotation=90),
        region(rotation=30, size=(None, None)),
        region(x="10"),
        region(x=True),
        region(label=""),
        {"type": "keypointlabels", "value": {"x": 1, "y": 2, "keypointlabels": ["eye"]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["cat"]}},
        {"type": "polygonlabels", "value": {"points": [[1, 2], [3]], "polygonlabels": ["p"]}},
        {"type": "rectanglelabels"},
        {"value": 5},
        7,
    ],
)
def test_labelstudio_regions_that_are_no_boxes(tmp_path, row):
    content = [task("a.jpg", {"result": [row, region()]})]
    records = read_labelstudio(written(tmp_path / "e.json", content), PICTURES)
    assert [f.kind for f in records.faults] == ["malformed annotation"]
    assert records.records[0].categories == ("cat",)


@pytest.mark.parametrize(
    "address", ["http://[", "", "/data/local-files/?d=", "file://%zz", "C:\\x\\y.jpg", "\0"]
)
def test_labelstudio_addresses_of_nothing(tmp_path, address):
    records = read_labelstudio(written(tmp_path / "e.json", [task(address, {"result": []})]), PICTURES)
    assert len(records.records) + len(records.faults) == 1  # of a picture that will be missing, or of none
