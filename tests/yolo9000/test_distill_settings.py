"""Values of the table [distill]: what nothing can be taught with, or does nothing, is refused by name."""

import math
from types import SimpleNamespace

import pytest

from tests.yolo9000.test_distill import detector
from tests.yolo9000.test_loss import TREE
from yolo9000.distill import class_labels, make_task
from yolo9000.errors import TrainingError


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"boxes": "False"}, "distill.boxes is true or false, not 'False', which is text to TOML"),
        ({"windows": [3, 0.5]}, "distill.windows.1 is a whole number, not 0.5"),
        ({"box": True}, "unknown key distill.box; did you mean boxes"),
        ({"per_picture": 0}, "whole numbers from 1; one is 0"),
        ({"windows": [3, -1]}, "whole numbers from 1; one is -1"),
        ({"teacher_weight": -5}, "distill.teacher_weight lies from 0"),
        ({"teacher_weight": math.inf}, "distill.teacher_weight is infinite"),
        ({"label_weight": -1.0}, "distill.label_weight lies from 0"),
        ({"gate_weight": -1.0}, "distill.gate_weight lies from 0"),
        ({"classifier": 3}, "distill.classifier is text, not 3"),
        ({"labels": 3}, "distill.labels is text, not 3"),
        ({"parts": 3}, "distill.parts is a list of one or more names"),
        ({"parts": []}, "distill.parts is a list of one or more names"),
        ({"parts": [["a"]]}, "distill.parts is a list of one or more names"),
        ({"parts": ["a"]}, "no data part is called 'a'"),
        ({"boxes": True, "windows": [3]}, "distill.windows does nothing with distill.boxes"),
        ({"boxes": True, "label_weight": 2.0}, "distill.label_weight does nothing with distill.boxes"),
        ({"boxes": False}, "loss.label_box is RegionLoss's"),
    ],
)
def test_settings_are_checked(setting, words):
    net = detector()
    settings = {"classifier": "x.cfg x.weights", "labels": "voc", **setting}
    loss = {"label_box": "best"} if setting == {"boxes": False} else {}
    with pytest.raises(TrainingError, match=words):
        make_task(SimpleNamespace(distill=settings, loss=loss, data=()), net, TREE)


def test_labels_are_a_file_or_a_table(tmp_path):
    (tmp_path / "ids").write_text("n00000009\nn00000004\n")
    assert class_labels(str(tmp_path / "ids")) == ["n00000009", "n00000004"]
    assert len(class_labels("voc")) == 20
    with pytest.raises(TrainingError, match="neither a readable file"):
        class_labels("no-such-list")
    (tmp_path / "bad").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="neither a readable file"):
        class_labels(str(tmp_path / "bad"))
