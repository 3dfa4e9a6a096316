"""What a run says of its validation data at the start: what cannot be scored is refused then.
And by which score its moments are compared."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep import Store, StoreWriter
from tests.yolo9000 import toys
from tests.yolo9000.test_evaluate import Oracle, samples
from tests.yolo9000.test_train import CFG, settings
from wordtree import WordTree
from yolo9000.errors import TrainingError
from yolo9000.runlog import read_log
from yolo9000.train import train
from yolo9000.validation import Judge

# The toys' tree with nothing in common, and with one class that it lacks, below one that it has.
OTHER = WordTree([f"other {name}" for name in toys.TREE.ids], toys.TREE.parents)
FINER = WordTree([*toys.TREE.ids, "scarlet"], [*toys.TREE.parents, 2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toys.prepare(tmp_path, CFG, boxed=20)


def pack(path: Path, tree: WordTree, classes: Sequence[int], boxed: bool) -> Path:
    """A picture of one thing for each of these nodes."""
    with StoreWriter(path, tree) as writer:
        for k, node in enumerate(classes):
            sample = toys.square_sample(2 * k, boxed=boxed)
            label = np.array([node], np.int64)
            writer.add(dataclasses.replace(sample, **{"labels" if boxed else "image_labels": label}))
    return path


def warnings(folder: Path, data: Path) -> list[str]:
    """What a short run that is judged on this data is warned of."""
    config = settings(folder, images=4, batch=2, schedule={"burn_in": 0})
    train(config, [folder / "train.h5"], folder / "run", progress=False, validation=[data])
    return [line["reason"] for line in read_log(folder / "run") if line["event"] == "warning"]


@pytest.mark.parametrize("data, why", [("none.h5", "neither boxes nor labels"), ("no.h5", "no such file")])
def test_validation_data_that_does_not_fit_is_refused_at_the_start(folder: Path, data: str, why: str) -> None:
    with StoreWriter(folder / "none.h5", toys.TREE) as writer:
        nothing = toys.square_sample(1, boxed=False)
        writer.add(dataclasses.replace(nothing, image_labels=nothing.labels))
    words = {"progress": False, "validation": [folder / data]}
    with pytest.raises(TrainingError, match=why):
        train(settings(folder), [folder / "train.h5"], folder / "a", **words)
    assert not (folder / "a").exists()


@pytest.mark.parametrize("boxed", [True, False])
def test_validation_data_of_another_tree_is_refused_at_the_start(folder: Path, boxed: bool) -> None:
    data = pack(folder / "val.h5", OTHER, [2, 3, 2], boxed)
    words = "2 of the 2 classes of the validation data .* count as 0: other red, other yellow;"
    if not boxed:
        words = (
            "validation data: of 3 boxes and labels the model's tree has neither .*: other red, other yellow;"
        )
    with pytest.raises(TrainingError, match=f"^{words} pack the data .* no moment of the run could score$"):
        warnings(folder, data)
    assert not (folder / "run").exists()


def test_boxes_of_finer_classes_only_are_refused_and_labels_are_not(folder: Path) -> None:
    """AP50 has no node above to go by, a descent has."""
    boxes, labels = (pack(folder / f"{name}.h5", FINER, [6], name == "boxes") for name in ("boxes", "labels"))
    with pytest.raises(TrainingError, match=r"1 of the 1 classes of the validation data .*: scarlet;"):
        warnings(folder, boxes)
    assert warnings(folder, labels) == []


def test_some_classes_that_the_model_lacks_are_told(folder: Path) -> None:
    (told,) = warnings(folder, pack(folder / "val.h5", FINER, [2, 6], True))
    assert told.startswith(
        "1 of the 2 classes of the validation data are not in the model's tree and count as 0:"
    )
    assert "scarlet" in told and "red" not in told


def test_validation_data_that_fits_is_nothing_to_speak_of(folder: Path) -> None:
    assert warnings(folder, pack(folder / "val.h5", toys.TREE, [2, 5], True)) == []


def pack_difficult(path: Path, labelled: int) -> Store:
    """Four pictures whose boxes are all difficult, and some that have labels only."""
    with StoreWriter(path, toys.TREE) as writer:
        for k in range(4):
            one = toys.square_sample(k, 48)
            writer.add(dataclasses.replace(one, difficult=np.ones(len(one.labels), bool)))
        for k in range(labelled):
            writer.add(toys.square_sample(100 + k, 48, boxed=False))
    return Store(path)


def test_boxes_that_need_not_be_found_judge_nothing(tmp_path: Path) -> None:
    """Their AP50 is the same at every moment: the first would stay the best for ever."""
    store = pack_difficult(tmp_path / "some.h5", 6)
    judge = Judge(settings(tmp_path), Oracle([]), [store], 100)
    worse, better = (judge.judge(Oracle(samples(store), wrong=wrong)) for wrong in (True, False))
    assert worse.by == better.by == "labels greedy" and better.better and better.value > worse.value
    store = pack_difficult(tmp_path / "none.h5", 0)
    with pytest.raises(TrainingError, match=r"neither boxes nor labels .* are difficult or crowds"):
        Judge(settings(tmp_path), Oracle([]), [store], 100)


def test_a_known_class_counts_only_where_one_of_its_boxes_does(folder: Path) -> None:
    """Of "red" there is a difficult box only, and what is to be found is of a class that the model lacks."""
    with StoreWriter(folder / "val.h5", FINER) as writer:
        for node, difficult in ((2, True), (6, False)):
            one, label = toys.square_sample(node), np.array([node], np.int64)
            writer.add(dataclasses.replace(one, labels=label, difficult=np.array([difficult])))
    with pytest.raises(TrainingError, match=r"1 of the 1 classes of the validation data .*: scarlet;"):
        warnings(folder, folder / "val.h5")


def test_labels_judge_where_the_model_lacks_all_classes_of_boxes(folder: Path) -> None:
    """As they do where the boxes are left out: AP50 would be 0 at every moment."""
    named = [toys.square_sample(100 + k, boxed=False) for k in range(6)]
    drawn = toys.square_sample(2)
    found = []
    for name in ("both", "labels"):
        with StoreWriter(folder / f"{name}.h5", FINER) as writer:
            for one in named:
                writer.add(one)
            if name == "both":
                writer.add(dataclasses.replace(drawn, labels=np.array([6], np.int64)))
        judge = Judge(settings(folder), Oracle([]), [Store(folder / f"{name}.h5")], 100)
        oracles = (Oracle([*named, drawn], wrong=wrong) for wrong in (True, False))
        found.append([(one.by, one.value, one.better) for one in map(judge.judge, oracles)])
        words = "1 of the 1 classes .*: scarlet; .* judged by the pictures with labels alone$"
        assert re.search(words, judge.warning) if name == "both" else judge.warning == ""
    assert found[0] == found[1] and found[0][1][0] == "labels greedy" and found[0][1][2]
