"""What `yolo9000 detect` prints, to tools in which people correct it, and back, on the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep import DataError, Store
from data_prep.cli import cli
from data_prep.labelstudio import labelling_config
from data_prep.outputs import check_output
from data_prep.predictions import Prediction, class_labels, read_predictions
from data_prep.results import write_coco


def written(path, content) -> object:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


RECORD = {
    "source": "pictures/0.jpg",
    "width": 20,
    "height": 10,
    "detections": [
        {"name": "cat", "path": ["n00000001", "n00000003"], "score": 0.75, "box_xyxy": [2, 1, 12.5, 6]},
        {"name": "something", "path": [], "score": 0.25, "box_xyxy": [0, 0, 20, 10]},
    ],
}


def test_what_detect_prints_is_read(tmp_path):
    """Of a real Detections, in all forms that the command has."""
    detections = pytest.importorskip("yolo9000.detections")
    found = detections.Detections.from_dict(
        {**RECORD, "detections": [_whole(one, k) for k, one in enumerate(RECORD["detections"])]}
    )
    record = found.to_dict()
    forms = {
        "json": json.dumps({"pictures": [record, record], "skipped": ["x.jpg: empty"]}, indent=2),
        "lines": "\n".join(map(json.dumps, [record, {"skipped": "x.jpg: empty"}, record])) + "\n",
        "one line": json.dumps(record),
    }
    for form, text in forms.items():
        pictures = read_predictions(written(tmp_path / "p.json", text))
        assert len(pictures) == (1 if form == "one line" else 2)
        assert [(one.name, one.path, one.score, one.box_xyxy) for one in pictures[0]] == [
            (one.name, one.path, one.score, one.box_xyxy) for one in found
        ]
        assert pictures[0].image_size == found.image_size and pictures[0].source == found.source
    assert [len(p.found) for p in read_predictions(tmp_path / "p.json", least=0.5)] == [1]


def _whole(one: dict, number: int) -> dict:
    n = len(one["path"])
    more = {"objectness": one["score"], "probability": 1.0, "node": 2 if n else -1, "conditional": 1.0}
    return {**one, **more, "path_names": one["path"], "path_probabilities": [1.0] * n}


def _but(**changes) -> str:
    return json.dumps({"pictures": [{**RECORD, "detections": [{**RECORD["detections"][0], **changes}]}]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no predictions"),
        ("[]", "not what"),
        ('{"pictures": 5}', "not what"),
        ('{"pictures": [5]}', "picture 1"),
        ('{"a": 1}\n{', ":2: not JSON .* cut off"),
        (json.dumps({"pictures": [RECORD]}, indent=1)[:-40], r"p\.json: not JSON \(.*line 2[0-9] .* cut off"),
        (json.dumps({"pictures": [RECORD]})[:-40], r"p\.json: not JSON \(.*line 1 .* cut off"),
        (json.dumps({"pictures": [RECORD], "skipped": [], "unfinished": True}), "stopped before its end"),
        (json.dumps({**RECORD, "width": 0}), "size"),
        (json.dumps({**RECORD, "source": 5}), "source"),
        (_but(box_xyxy=[1, 2, 3]), "box 1"),
        (_but(box_xyxy=[5, 2, 3, 4]), "no box"),
        (_but(score=float("nan")), "box 1"),
        (_but(score=True), "box 1"),
        (_but(name=None), "box 1"),
        (_but(path="abc"), "box 1"),
        (_but(box_xyxy=[0, 0, 10**400, 1]), "box 1"),
    ],
)
def test_predictions_that_are_none(text, words, tmp_path):
    with pytest.raises(DataError, match=words):
        read_predictions(written(tmp_path / "p.json", text))


def test_the_whole_way_on_the_command_line(data, tree_file, tmp_path):
    found = {"pictures": [{**RECORD, "detections": RECORD["detections"][:1]}], "skipped": []}
    words = ["predictions", str(written(tmp_path / "found.json", found)), "--ids", "--json"]
    words += ["--labelstudio", str(tmp_path / "t.json"), "--fiftyone", str(tmp_path / "f.json")]
    done = CliRunner().invoke(cli, [*words, "--config", str(tmp_path / "c.xml")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["boxes"] == 1
    assert "n00000003" in (tmp_path / "c.xml").read_text()
    for tool, name in (("labelstudio", "t.json"), ("fiftyone", "f.json")):
        words = ["pack", str(tmp_path / f"{tool}.h5"), f"--{tool}", str(tmp_path / name)]
        words += ["--images", str(data / "boxed"), "--tree", str(tree_file)]
        words += ["--field", "predictions"] if tool == "labelstudio" else []
        assert CliRunner().invoke(cli, words).exit_code == 0
        (sample,) = Store(tmp_path / f"{tool}.h5")
        np.testing.assert_allclose(sample.boxes_cxcywh, [[0.3625, 0.35, 0.525, 0.5]], atol=1e-6)
        assert sample.labels.tolist() == [2]
    assert CliRunner().invoke(cli, ["predictions", str(tmp_path / "found.json")]).exit_code == 2


def test_classes_of_one_name_stay_apart_in_every_form(tmp_path):
    """Two robins and a wren; the config lists what the tasks say."""
    paths = [["bird", "turdus"], ["bird", "erithacus"], ["bird", "wren1"], []]
    names = ["robin", "robin", "wren", "something"]
    boxes = [
        {"name": name, "path": path, "score": 0.5, "box_xyxy": [0, 0, k, k]}
        for k, (name, path) in enumerate(zip(names, paths, strict=True), 1)
    ]
    found = written(tmp_path / "found.json", {"pictures": [{**RECORD, "detections": boxes}]})
    files = {tool: tmp_path / tool for tool in ("coco", "fiftyone", "labelstudio", "config")}
    words = [str(word) for tool, path in files.items() for word in (f"--{tool}", path)]
    said = CliRunner().invoke(cli, ["predictions", str(found), *words], catch_exceptions=False).output
    assert said.startswith("boxes: 4, pictures: 1, written: ")
    wanted = ["turdus", "erithacus", "wren", "something"]
    coco = json.loads(files["coco"].read_text())
    called = {row["id"]: row["name"] for row in coco["categories"]}
    assert [called[row["category_id"]] for row in coco["annotations"]] == wanted[:3]
    assert [row["label"] for row in json.loads(files["fiftyone"].read_text())["labels"]["0"]] == wanted
    (task,) = json.loads(files["labelstudio"].read_text())
    rows = task["predictions"][0]["result"]
    assert [row["value"]["rectanglelabels"] for row in rows] == [[label] for label in wanted]
    assert all(f'"{label}"' in files["config"].read_text() for label in wanted)
    assert '"robin"' not in files["config"].read_text()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), unique_by=lambda both: both[0]))
def test_there_are_as_many_labels_as_classes(classes):
    found = [[Prediction((0, 0, 1, 1), name, (one,), 0.5) for one, name in classes]]
    label = class_labels(found)
    assert len({label(one) for one in found[0]}) == len(classes)
    assert [class_labels(found, names=False)(one) for one in found[0]] == [one for one, _ in classes]


def test_what_was_found_is_a_data_set_in_cocos_json(tmp_path):
    """Packed again it is the same boxes of the same classes; the scores stand beside them."""
    Image.new("RGB", (20, 10)).save(tmp_path / "0.jpg")
    (tmp_path / "below").mkdir()
    Image.new("RGB", (30, 40)).save(tmp_path / "below" / "1.png")
    dog = {"name": "dog", "path": ["n1"], "score": 0.5, "box_xyxy": [1.25, 2, 3, 40]}
    records = [
        {**RECORD, "source": str(tmp_path / "0.jpg")},
        {"source": str(tmp_path / "below" / "1.png"), "width": 30, "height": 40, "detections": [dog]},
    ]
    found = written(tmp_path / "found.json", {"pictures": records, "skipped": []})
    out = tmp_path / "coco.json"
    done = CliRunner().invoke(cli, ["predictions", str(found), "--coco", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    content = json.loads(out.read_text())
    assert [image["file_name"] for image in content["images"]] == ["0.jpg", "below/1.png"]
    assert [row["score"] for row in content["annotations"]] == [0.75, 0.5]  # "something" is no category
    names = {row["id"]: row["name"] for row in content["categories"]}
    assert [names[row["category_id"]] for row in content["annotations"]] == ["cat", "dog"]
    packed = str(tmp_path / "p.h5")
    words = ["pack", "--coco", str(out), "--images", str(tmp_path), "--flat", packed]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    store = Store(packed)
    boxes = {sample.name: sample for sample in (store[k] for k in range(len(store)))}
    assert len(boxes) == 2
    for record in records:
        sample = boxes[record["source"].removeprefix(f"{tmp_path}/")]
        real = [one for one in record["detections"] if one["path"]]
        assert [store.tree.ids[k] for k in sample.labels] == [one["name"] for one in real]
        centre, side = sample.boxes_cxcywh[:, :2], sample.boxes_cxcywh[:, 2:]
        size = np.array([record["width"], record["height"]] * 2)
        edges = np.concatenate([centre - side / 2, centre + side / 2], 1) * size
        assert np.allclose(edges, [one["box_xyxy"] for one in real], atol=1e-4)


def test_a_picture_twice_or_without_a_name_is_no_data_set(tmp_path):
    for source, reason in (("a.jpg", "two pictures are called 'a.jpg'"), (None, "without a source")):
        found = written(tmp_path / "f.json", {"pictures": [{**RECORD, "source": source}] * 2, "skipped": []})
        with pytest.raises(DataError, match=reason):
            write_coco(tmp_path / "coco.json", read_predictions(found))
    assert not (tmp_path / "coco.json").exists()
    assert write_coco(tmp_path / "coco.json", []) == 0


def test_predictions_replace_older_ones_and_nothing_else(data, tmp_path):
    """Neither what is read, nor the ground truth in the same format, nor what people corrected."""
    one = {"label": "cat", "bounding_box": [0, 0, 1, 1]}
    others = {
        "coco": (data / "boxes.json").read_text(),
        "fiftyone": json.dumps({"classes": ["cat"], "labels": {"a": [one | {"confidence": 1}, one]}}),
        "labelstudio": json.dumps([{"data": {}, "predictions": [], "annotations": [{"result": []}]}]),
        "config": "labels: cat",
    }
    found = written(tmp_path / "found.json", RECORD)
    for form, other in others.items():
        words = ["predictions", str(found), f"--{form}"]
        target = tmp_path / "new" / form
        assert CliRunner().invoke(cli, [*words, str(target)]).exit_code == 0
        once = target.read_bytes()
        assert CliRunner().invoke(cli, [*words, str(target), "--ids"]).exit_code == 0
        assert target.read_bytes() != once
        for path in (written(tmp_path / form, other), found):
            before = path.read_bytes()
            done = CliRunner().invoke(cli, [*words, str(path)])
            assert isinstance(done.exception, DataError) and str(path) in str(done.exception)
            assert path.read_bytes() == before
    for same in (tmp_path / "x.json", tmp_path / "new" / ".." / "x.json"):
        twice = ["--coco", str(tmp_path / "x.json"), "--fiftyone", str(same)]
        assert CliRunner().invoke(cli, ["predictions", str(found), *twice]).exit_code == 2


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_labelling_configurations_replace_their_own_kind(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("config") / "labels.xml"
    for ends in ("\n", "\r\n"):
        path.write_text(labelling_config(names), encoding="utf-8", newline=ends)
        check_output(path, "config")


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("config", '<View>\n  <Text name="t" value="$text"/>\n</View>\n'),
        ("config", labelling_config(["cat"]).replace('"cat"', '"cat" background="red"')),
        ("config", labelling_config(["cat"]) + "<!-- mine -->\n"),
        ("coco", '{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}'),
        ("fiftyone", '{"classes": ["cat"], "labels": {"a": [], "b": []}}'),
    ],
)
def test_what_people_have_begun_is_not_replaced(tmp_path, form, content):
    """Though no box in it lacks a score, and it begins as what is written."""
    with pytest.raises(DataError, match="was not written by this option"):
        check_output(written(tmp_path / "theirs", content), form)


@pytest.mark.parametrize("form", ["coco", "fiftyone", "labelstudio", "config"])
def test_nothing_found_is_replaced_too(tmp_path, form):
    found = written(tmp_path / "found.json", {**RECORD, "detections": []})
    words = ["predictions", str(found), f"--{form}", str(tmp_path / "out")]
    for _ in range(2):
        assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
