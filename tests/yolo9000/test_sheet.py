"""The sheet of detections: the same pictures each time, truth beside answers, and no run ends over it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import Store
from tests.yolo9000 import toys
from tests.yolo9000.small import small_classifier
from tests.yolo9000.test_evaluate import Oracle, samples
from tests.yolo9000.test_train import CFG, settings
from yolo9000 import run as run_module
from yolo9000.errors import TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.runlog import read_log
from yolo9000.sheet import FOLDER, _both, draw_sheet, sample_places, sheet_name, write_sheet
from yolo9000.train import train
from yolo9000.witness import Witness

QUICK = EvalSettings(workers=0, resamples=0, precision="float32", rule="leaf")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("toys") / "v.h5"
    return Store(toys.pack_squares(path, boxed=8, labelled=4, size=64, single=True))


def seen(net, store, places=None, where=QUICK) -> Witness:
    witness = Witness(places)
    evaluate(net, [store], where, witness=witness)
    return witness


@pytest.mark.parametrize("pictures", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("shown", [0, 1, 3, 12])
def test_places_are_spread_and_each_there(pictures, shown):
    places = sample_places(pictures, shown)
    assert len(places) == min(shown, pictures) and list(places) == sorted(set(places))
    assert all(0 <= place < pictures for place in places)
    if len(places) > 1:
        assert places[0] == 0 and places[-1] == pictures - 1


def test_truth_and_answers_side_by_side(store):
    """In pixels of the thumbnail, half as large as the picture."""
    right, wrong = (seen(Oracle(samples(store), wrong=wrong), store) for wrong in (False, True))
    for place in range(8):
        (truth, no), (answer, yes) = _both(right, place, (32, 32))
        other = list(_both(wrong, place, (32, 32)))[1][0]
        assert not no and yes and truth.names == answer.names != other.names
        assert len(truth) == len(answer) == len(other) == 1
        np.testing.assert_allclose(truth.boxes_xyxy, answer.boxes_xyxy, atol=0.1)
        sample = store[place]
        np.testing.assert_allclose(
            (truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2]) / 32, sample.boxes_cxcywh[:, 2:], atol=1e-5
        )
        assert truth.paths == answer.paths and truth.paths[0][-1] == store.tree.ids[int(sample.labels[0])]
    assert len(list(_both(seen(Oracle(samples(store)), store, {0}, nothing()), 0, (32, 32)))[1][0]) == 0
    sheets = [np.asarray(draw_sheet(witness)) for witness in (right, wrong)]
    assert sheets[0].shape == sheets[1].shape and (sheets[0] != sheets[1]).any()


def nothing() -> EvalSettings:
    return EvalSettings(workers=0, resamples=0, precision="float32", threshold=0.9999)


def test_labels_classifiers_and_nothing(store, tmp_path):
    assert draw_sheet(seen(Oracle(samples(store)), store, ())) is None
    assert not write_sheet(seen(Oracle(samples(store)), store, ()), tmp_path / "none.jpg")
    assert not (tmp_path / "none.jpg").exists()
    labels = draw_sheet(seen(Oracle(samples(store)), store, {9, 10, 11}), "labels")
    assert labels.size == (3 * 486 + 6, labels.height)
    assert draw_sheet(seen(small_classifier(), store)).height > labels.height
    with pytest.raises(TrainingError, match="cannot be written"):
        (tmp_path / "folder.jpg").mkdir()
        write_sheet(seen(Oracle(samples(store)), store), tmp_path / "folder.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return toys.prepare(tmp_path_factory.mktemp("run"), CFG, boxed=60, val=(12, 0))


def ran(folder: Path, out: Path, **validation) -> list[dict]:
    config = settings(folder, images=96, validation={"every": 3, **validation})
    train(config, [folder / "train.h5"], out, progress=False, validation=[folder / "val.h5"])
    return read_log(out)


def test_a_run_leaves_a_sheet_of_each_evaluation(folder, tmp_path):
    lines = ran(folder, tmp_path / "a", sheet=5)
    judged = [line["batch"] for line in lines if line["event"] == "validation"]
    sheets = sorted((tmp_path / "a" / FOLDER).iterdir())
    assert judged == [3, 6]
    assert [f"{FOLDER}/{path.name}" for path in sheets] == [sheet_name(batch) for batch in judged]
    sizes = {Image.open(path).size for path in sheets}
    assert len(sizes) == 1  # the same pictures
    # What is shown changes nothing of the run.
    ran(folder, tmp_path / "b", sheet=0)
    assert not (tmp_path / "b" / FOLDER).exists()
    a, b = ((tmp_path / name / "best.safetensors").read_bytes() for name in "ab")
    assert a[-1000:] == b[-1000:]


def test_a_sheet_that_cannot_be_written_ends_no_run(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise TrainingError("disk full")

    monkeypatch.setattr(run_module, "write_sheet", refuse)
    lines = ran(folder, tmp_path / "c")
    assert [line["reason"] for line in lines if line["event"] == "no sheet"] == ["disk full"] * 2
    assert lines[-1]["event"] == "model"
