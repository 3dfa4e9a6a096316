"""Predictions to FiftyOne's and Label Studio's JSON and, corrected there, back as training data. The JSON is
written as their documentation has it; the programs themselves are not run here."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import DataError, Recipe, Source, Store, pack
from data_prep.cli import cli
from data_prep.fiftyone import read_fiftyone, write_fiftyone
from data_prep.labelstudio import labelling_config, read_labelstudio, write_labelstudio
from data_prep.lookup import Lookup

PICTURES = Lookup(["a.jpg", "b.jpg", "deep/c.png"])
READERS = {"fiftyone": read_fiftyone, "labelstudio": read_labelstudio}
WRITERS = {"fiftyone": write_fiftyone, "labelstudio": write_labelstudio}


@dataclass(frozen=True)
class One:
    box_xyxy: tuple
    name: str
    path: tuple
    score: float = 0.5


class Found(list):
    """What the writers use of yolo9000.Detections."""

    def __init__(self, source, image_size, ones):
        super().__init__(ones)
        self.source, self.image_size = source, image_size


def written(path, content) -> object:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def boxes(records, name) -> list:
    return next(r for r in records.records if r.name == name).boxes_xyxy.tolist()


# Predictions written, and read again


@pytest.mark.parametrize("tool", READERS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 100), min_size=4, max_size=4), st.sampled_from("xyz")), max_size=5
    )
)
def test_predictions_come_back(tool, tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("f")
    ones = [
        One((min(a, c), min(b, d), max(a, c), max(b, d)), label, ("root", f"id {label}"), 0.25)
        for (a, b, c, d), label in rows
    ]
    found = [Found("pictures/a.jpg", (100, 200), ones), Found("pictures/b.jpg", (7, 9), [])]
    assert WRITERS[tool](folder / "p.json", found) == len(rows)
    more = {"field": "predictions"} if tool == "labelstudio" else {}
    records = READERS[tool](folder / "p.json", PICTURES, **more)
    assert [r.name for r in records.records] == ["a.jpg", "b.jpg"] and records.faults == ()
    got = np.array(boxes(records, "a.jpg")).reshape(-1, 4) * [100, 200, 100, 200]
    np.testing.assert_allclose(got, np.array([one.box_xyxy for one in ones]).reshape(-1, 4), atol=1e-3)
    assert records.records[0].categories == tuple(one.name for one in ones) and records.records[0].in_shares
    assert records.records[1].boxed and not len(records.records[1].boxes_xyxy)
    WRITERS[tool](folder / "i.json", found, names=False)
    assert set(READERS[tool](folder / "i.json", PICTURES, **more).categories) == {f"id {n}" for _, n in rows}


@pytest.mark.parametrize("tool", WRITERS)
def test_what_cannot_be_written(tool, tmp_path):
    with pytest.raises(DataError, match="without a source"):
        WRITERS[tool](tmp_path / "p.json", [Found(None, (5, 5), [])])
    with pytest.raises(DataError, match="cannot be written"):
        WRITERS[tool](tmp_path, [])
    if tool == "fiftyone":
        with pytest.raises(DataError, match="two pictures are called 'a'"):
            write_fiftyone(tmp_path / "p.json", [Found("x/a.jpg", (5, 5), []), Found("x/a.png", (5, 5), [])])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sources", "keys"),
    [
        (["/at/home/a.jpg", "/at/home/b.png"], ["a", "b"]),
        (["p/dog/a.jpg", "p/cat/a.jpg", "p/b.jpg"], ["dog/a", "cat/a", "b"]),
        (["a.jpg"], ["a"]),
        (["p\\a.jpg", "p\\q\\a.jpg"], ["a", "q/a"]),
        ([], []),
    ],
)
def test_fiftyone_names_are_relative_to_the_common_folder(sources, keys, tmp_path):
    write_fiftyone(tmp_path / "p.json", [Found(source, (5, 5), []) for source in sources])
    assert list(json.loads((tmp_path / "p.json").read_text())["labels"]) == keys


def test_labelstudio_addresses_are_quoted(tmp_path):
    name = "of &#? ä.jpg"
    write_labelstudio(tmp_path / "p.json", [Found(f"x/{name}", (5, 5), [])])
    address = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))[0]["data"]["image"]
    assert address == "/data/local-files/?d=x/of%20%26%23%3F%20%C3%A4.jpg"
    records = read_labelstudio(tmp_path / "p.json", Lookup([name]), "predictions")
    assert [record.name for record in records.records] == [name]


def test_the_labelling_configuration_is_xml():
    root = ElementTree.fromstring(labelling_config(["dog", '<a & "b">', "dog"]))
    assert [label.get("value") for label in root.iter("Label")] == ["dog", '<a & "b">']
    assert {child.get("name") for child in root} == {"image", "label"}


# FiftyOne


def sample(path: str, **fields) -> dict:
    return {
        "_id": {"$oid": "1"},
        "filepath": path,
        "tags": [],
        "metadata": {"width": 4, "height": 4},
        **fields,
    }


def detections(*rows) -> dict:
    found = [{"_cls": "Detection", "label": n, "bounding_box": box, **more} for n, box, more in rows]
    return {"_cls": "Detections", "detections": found}


BOX = [0.1, 0.2, 0.3, 0.4]


def test_fiftyone_samples(tmp_path):
    truth = detections(
        ("cat", BOX, {"iscrowd": 1, "confidence": None}),
        ("dog", BOX, {"attributes": {"difficult": {"_cls": "BooleanAttribute", "value": True}}}),
    )
    content = {
        "samples": [
            sample("/elsewhere/of/data/a.jpg", ground_truth=truth, predictions=detections(("car", BOX, {}))),
            sample("b.jpg", ground_truth=detections()),
            sample("deep/c.png", ground_truth=None, predictions=detections(("cup", BOX, {}))),
        ]
    }
    records = read_fiftyone(written(tmp_path / "samples.json", content), PICTURES)
    a, b = records.records
    assert (a.name, b.name) == ("a.jpg", "b.jpg") and b.boxed and not len(b.categories)
    np.testing.assert_allclose(a.boxes_xyxy, [[0.1, 0.2, 0.4, 0.6]] * 2)
    assert a.categories == ("cat", "dog") and a.crowd.tolist() == [True, False]
    assert a.difficult.tolist() == [False, True] and a.in_shares
    assert [(f.kind, f.picture) for f in records.faults] == [("missing labels", "deep/c.png")]
    other = read_fiftyone(tmp_path / "samples.json", PICTURES, "predictions")
    assert [r.categories for r in other.records] == [("car",), ("cup",)]
    with pytest.raises(DataError, match=r"field.*ground_truth, predictions"):
        read_fiftyone(tmp_path / "samples.json", PICTURES, "tags")
    two = {"samples": [sample("a.jpg", x=detections(), y=detections())]}
    with pytest.raises(DataError, match="which field"):
        read_fiftyone(written(tmp_path / "two.json", two), PICTURES)
    one = {"samples": [sample("a.jpg", fixed={"_cls": "Classification", "label": "cat"})]}
    found = read_fiftyone(written(tmp_path / "one.json", one), PICTURES).records[0]
    assert found.image_categories == ("cat",) and not found.boxed


def test_fiftyone_labels(tmp_path):
    content = {
        "classes": ["cat", "dog"],
        "labels": {
            "a": [{"label": 1, "bounding_box": BOX}, {"label": "cup", "bounding_box": BOX}],
            "b": None,
            "c": 0,
        },
    }
    records = read_fiftyone(written(tmp_path / "labels.json", content), PICTURES)
    assert [r.name for r in records.records] == ["a.jpg", "deep/c.png"]
    assert records.records[0].categories == ("dog", "cup") and records.records[1].image_categories == ("cat",)
    assert [f.kind for f in records.faults] == ["missing labels"]


@pytest.mark.parametrize(
    "detection",
    [
        {"label": "cat"},
        {"label": "cat", "bounding_box": [1, 2, 3]},
        {"label": "cat", "bounding_box": [1, 2, 3, "4"]},
        {"label": "cat", "bounding_box": [1, 2, 3, True]},
        {"label": 7, "bounding_box": BOX},
        {"label": "", "bounding_box": BOX},
        {"bounding_box": BOX},
        "cat",
        None,
    ],
)
def test_fiftyone_detections_that_are_none(tmp_path, detection):
    truth = {"_cls": "Detections", "detections": [detection]}
    content = {"samples": [sample("a.jpg", ground_truth=truth)]}
    records = read_fiftyone(written(tmp_path / "s.json", content), PICTURES)
    assert [f.kind for f in records.faults] == ["malformed annotation"]
    assert not len(records.records[0].categories)


# Both


@pytest.mark.parametrize("tool", READERS)
@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', "{}", '{"samples": 5}', '{"labels": []}', "null"])
def test_files_that_are_something_else(tool, content, tmp_path):
    with pytest.raises(DataError):
        READERS[tool](written(tmp_path / "x.json", content), PICTURES)
    with pytest.raises(DataError, match="no such file"):
        READERS[tool](tmp_path / "none.json", PICTURES)


KEYS = (
    *("_cls", "label", "detections", "bounding_box", "filepath", "samples", "labels", "classes"),
    *("attributes", "data", "image", "annotations", "result", "value", "x", "rotation", "points", "choices"),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@pytest.mark.parametrize("tool", READERS)
@settings(max_examples=50, deadline=None)
@given(inner=JSON)
def test_no_json_leads_to_a_crash(tool, tmp_path_factory, inner):
    path = tmp_path_factory.mktemp("f") / "x.json"
    shapes = [inner, [inner], {"samples": [inner]}, {"labels": {"a": inner}}]
    shapes += [{"samples": [{"filepath": "a.jpg", "truth": {"_cls": "Detections", "detections": inner}}]}]
    shapes += [
        [{"data": inner, "annotations": [{"result": [inner]}]}],
        [{"image": "a.jpg", "label": [inner]}],
    ]
    for content in shapes:
        try:
            records = READERS[tool](written(path, content), PICTURES)
        except DataError:
            continue
        for record in records.records:
            n = len(record.categories)
            assert record.boxes_xyxy.shape == (n, 4) and len(record.crowd) == len(record.difficult) == n
            assert set(record.categories) | set(record.image_categories) <= set(records.categories)


@pytest.mark.parametrize("tool", READERS)
def test_packed_as_training_data(tool, data, tree_file, tmp_path, make):
    """The same pictures with the same boxes by COCO's JSON and by the tool's."""
    ones = [One((2, 1, 12, 6), "cat", ("n00000001", "n00000003")), One((0, 0, 20, 10), "dog", ("n00000004",))]
    found = [Found("0.jpg", (20, 10), ones), Found("1.jpg", (20, 10), ones[1:]), Found("2.jpg", (20, 10), [])]
    WRITERS[tool](tmp_path / "p.json", found, names=False)
    field = "predictions" if tool == "labelstudio" else None
    source = Source("x", tool, str(data / "boxed"), str(tmp_path / "p.json"), field=field)
    report = pack(Recipe((source,), str(tree_file)), tmp_path / "o.h5")
    assert report.faults == [] and report.pictures.total() == 3
    ids = ["n00000003", "n00000004"]
    rows = [
        ("0.jpg", 0, [2, 1, 10, 5], {}),
        ("0.jpg", 1, [0, 0, 20, 10], {}),
        ("1.jpg", 1, [0, 0, 20, 10], {}),
    ]
    make.coco_of(tmp_path / "c.json", {f"{k}.jpg": (20, 10) for k in range(3)}, rows, dict(enumerate(ids)))
    same = Source("x", "coco", str(data / "boxed"), str(tmp_path / "c.json"))
    pack(Recipe((same,), str(tree_file)), tmp_path / "c.h5")
    for a, b in zip(Store(tmp_path / "o.h5"), Store(tmp_path / "c.h5"), strict=True):
        assert make.same(a, b)
    words = ["pack", str(tmp_path / "cli.h5"), f"--{tool}", str(tmp_path / "p.json")]
    words += ["--images", str(data / "boxed"), "--tree", str(tree_file)]
    done = CliRunner().invoke(cli, words + (["--field", field] if field else []))
    assert done.exit_code == 0, done.output
    assert [s.name for s in Store(tmp_path / "cli.h5")] == ["0.jpg", "1.jpg", "2.jpg"]
