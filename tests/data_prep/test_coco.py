"""COCO JSON: equal to what pycocotools reads; every fault named; LVIS's and VOC's dialects."""

import contextlib
import io
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from data_prep import DataError
from data_prep.coco import read_coco

SIDE = st.floats(-50, 700, allow_nan=False, width=32)
BOXES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 3), SIDE, SIDE, SIDE, SIDE, st.booleans()), max_size=12
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=BOXES)
def test_same_boxes_as_pycocotools(tmp_path, make, rows):
    images = {f"{k}.jpg": (640, 480) for k in (3, 1, 4, 2)}
    boxes = [
        (f"{image}.jpg", category, [x, y, w, h], {"iscrowd": int(crowd)})
        for image, category, x, y, w, h, crowd in rows
    ]
    path = make.coco_of(tmp_path / "c.json", images, boxes, {1: "a", 2: "b", 3: "c"})
    found = read_coco(path)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
    assert [record.name for record in found.records] == sorted(images)
    for record in found.records:
        (image,) = [key for key, value in reference.imgs.items() if value["file_name"] == record.name]
        wanted = reference.imgToAnns.get(image, [])
        xywh = np.asarray([one["bbox"] for one in wanted], float).reshape(-1, 4)
        assert np.allclose(record.boxes_xyxy[:, :2], xywh[:, :2])
        assert np.allclose(record.boxes_xyxy[:, 2:] - record.boxes_xyxy[:, :2], xywh[:, 2:])
        assert list(record.categories) == [one["category_id"] for one in wanted]
        assert record.crowd.tolist() == [bool(one["iscrowd"]) for one in wanted]
        assert record.size == (640, 480)
        assert record.boxed
    assert found.faults == ()


def test_what_is_wrong_with_entries_is_reported_and_the_rest_kept(tmp_path):
    sound = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}
    annotations = [
        sound,
        {**sound, "id": 2, "image_id": 9},
        {**sound, "id": 3, "category_id": 9},
        {**sound, "id": 4, "bbox": [0, 0, 5]},
        {**sound, "id": 5, "bbox": "0 0 5 5"},
        {**sound, "id": 6, "bbox": [0, 0, None, 5]},
        {**sound, "id": 7, "image_id": None},
        {**sound, "id": 8, "image_id": [1]},
        {**sound, "id": 9, "bbox": [True, 0, 5, 5]},
        "no object",
        sound,
    ]
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 10, "height": 10},
        {"id": 1, "file_name": "a.jpg", "width": 10, "height": 10},
        {"id": 3, "file_name": "a.jpg", "width": 10, "height": 10},
        {"id": 4},
        {"file_name": "c.jpg"},
        7,
    ]
    categories = [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}, {"id": 2}, None]
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    found = read_coco(path)
    assert [record.name for record in found.records] == ["a.jpg"]
    assert len(found.records[0].categories) == 2  # the sound one and its repetition
    assert Counter(fault.kind for fault in found.faults) == {
        "orphan annotation": 4,
        "malformed annotation": 5 + 3 + 2,
        "repeated id": 1 + 2 + 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"images": 5, "annotations": [], "categories": []}',
        '{"images": [], "categories": []}',
        '{"images": [], "annotations": {}, "categories": []}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"c\.json"):
        read_coco(path)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no such"):
        read_coco(tmp_path / "none.json")


def test_absurd_numbers_are_kept_for_judging(tmp_path, make):
    path = make.coco_of(tmp_path / "c.json", {"a.jpg": (10, 10)}, [], {1: "x"})
    content = json.loads(path.read_text())
    row = {"image_id": 1, "category_id": 1}
    text = json.dumps({**content, "annotations": "HERE"}).replace(
        '"HERE"',
        f"[{json.dumps({**row, 'bbox': 'B'}).replace(chr(34) + 'B' + chr(34), '[NaN, 0, Infinity, 1e999]')},"
        f"{json.dumps({**row, 'bbox': [10**400, 0, 1, 1]})}]",
    )
    path.write_text(text)
    boxes = read_coco(path).records[0].boxes_xyxy
    assert boxes.shape == (2, 4)
    assert not np.isfinite(boxes).all(axis=1).any()


def test_federated_lists_synsets_and_difficult(tmp_path, make):
    path = make.coco_of(
        tmp_path / "c.json",
        {"a.jpg": (10, 10)},
        [("a.jpg", 1, [0, 0, 5, 5], {"difficult": 1}), ("a.jpg", 1, [0, 0, 5, 5], {"ignore": 0})],
        {1: "x", 2: "y"},
    )
    content = json.loads(path.read_text())
    content["images"][0] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [1, 9]}
    content["images"].append({"id": 8, "coco_url": "http://h/train2017/8.jpg", "width": 3, "height": 3})
    content["categories"][0]["synset"] = "x.n.01"
    path.write_text(json.dumps(content))
    found = read_coco(path)
    first, second = found.records
    assert first.negative_categories == (2,)
    assert first.not_exhaustive_categories == (1,)
    assert first.difficult.tolist() == [True, False]
    assert second.name == "train2017/8.jpg"
    assert found.categories[1].synset == "x.n.01"
    assert [fault.kind for fault in found.faults] == ["orphan annotation"]


@pytest.mark.reference
def test_both_dialects_of_voc100_are_the_same(shared):
    gts = shared / "data" / "voc100" / "gts"
    files = ["coco_format_v1/instances_default.json", "coco_format_v2/instances_v2.json"]
    first, second = (
        {
            record.name: Counter(
                (found.categories[key].name, *box)
                for key, box in zip(record.categories, record.boxes_xyxy.tolist(), strict=True)
            )
            for record in found.records
        }
        for found in (read_coco(gts / name) for name in files)
    )
    assert len(first) == 100
    assert first == second


@pytest.mark.reference
def test_lvis_keeps_its_lists(shared):
    path = shared / "data" / "coco" / "lvis_val_100.json"
    content, found = json.loads(path.read_text()), read_coco(path)
    assert len(found.records) == 100
    assert sum(len(record.categories) for record in found.records) == len(content["annotations"])
    for what, ours in (("neg", "negative"), ("not_exhaustive", "not_exhaustive")):
        wanted = sum(len(image[f"{what}_category_ids"]) for image in content["images"])
        assert sum(len(getattr(record, f"{ours}_categories")) for record in found.records) == wanted > 0
    assert all(category.synset for category in found.categories.values())
    assert found.faults == ()


@pytest.mark.parametrize("side", [0, -3, 10**400, float("nan"), float("inf"), "20", None, True])
def test_a_size_that_is_none_is_not_known(tmp_path, side):
    path = tmp_path / "c.json"
    image = {"id": 1, "file_name": "a.jpg", "width": side, "height": 10}
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": []}))
    (record,) = read_coco(path).records
    assert record.size is None
