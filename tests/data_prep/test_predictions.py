"""What `yolo9000 detect` prints, to tools in which people correct it, and back, on the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep import DataError, Store
from data_prep.cli import cli
from data_prep.predictions import read_predictions


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
        ('{"a": 1}\n{', ":2: not JSON"),
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
