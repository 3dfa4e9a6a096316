"""What a run refuses before its first step, and what it says of itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_prep import StoreWriter
from tests.yolo9000 import toys
from tests.yolo9000.test_train import CFG, settings
from wordtree import WordTree
from yolo9000.config import TrainConfig
from yolo9000.distributed import World
from yolo9000.errors import TrainingError
from yolo9000.runlog import read_log
from yolo9000.train import train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.cfg").write_text(CFG)
    toys.TREE.save(tmp_path / "tree.json")
    toys.pack_squares(tmp_path / "train.h5", boxed=20)
    return tmp_path


def pack_labels(path: Path, **labels: list[int]) -> Path:
    """Pictures with these labels of pictures and no boxes, one by one."""
    none = {"image_labels": [], "negative_labels": []}
    lists = {key: np.array(value, np.int64) for key, value in (none | labels).items()}
    with StoreWriter(path, toys.TREE) as writer:
        for k in range(2):
            sample = toys.square_sample(k, boxed=False, source=path.stem)
            writer.add(dataclasses.replace(sample, **lists))
    return path


def short(folder: Path, **top) -> TrainConfig:
    return settings(folder, **{"images": 4, "batch": 2, "log": {"log_every": 1}} | top)


def refused(config: TrainConfig, data: list[Path], out: Path, word: str) -> None:
    with pytest.raises(TrainingError, match=word):
        train(config, data, out, resume=True, progress=False)


def test_a_run_is_not_resumed_on_data_files_in_another_order(folder: Path) -> None:
    (folder / "toy.cfg").write_text(CFG.replace("filters=22", "filters=14").replace("classes=6", "classes=2"))
    data = [pack_labels(folder / f"{label}.h5", image_labels=[label]) for label in (2, 5)]
    model = {"cfg": str(folder / "toy.cfg"), "tree": "flat"}
    config = short(folder, model=model, data=[{"share": 1.0, "kind": "label"}])
    train(config, data, folder / "run", progress=False)
    refused(config, data[::-1], folder / "run", "node 0 is red, here it is blue; give the data files")
    assert train(config, data, folder / "run", resume=True, progress=False).batches == 2


def test_a_run_is_not_resumed_on_another_tree_or_other_layers(folder: Path) -> None:
    data, out = [folder / "train.h5"], folder / "run"
    train(short(folder), data, out, progress=False)
    (folder / "toy.cfg").write_text(CFG.replace("3.6,3.6", "3.6,3.5"))
    refused(short(folder), data, out, "another network: layer 9 ")
    (folder / "toy.cfg").write_text(CFG.replace("width=64", "width=96"))  # no weight depends on it
    train(short(folder), data, out, resume=True, progress=False)
    moved = WordTree(toys.TREE.ids, [-1, -1, 0, 1, 1, 1])
    moved.save(folder / "tree.json")
    refused(short(folder), data, out, "its node 3 is warm/yellow, here it is cold/yellow.*model.tree")


def test_the_rate_that_is_logged_is_the_schedule_s(folder: Path) -> None:
    config = short(
        folder,
        optimiser={"lr": 0.25, "scales": {"layers.0.": 0.0}},
        schedule={"name": "steps", "burn_in": 0, "steps": [0.5], "factor": 0.5},
    )
    train(config, [folder / "train.h5"], folder / "run", progress=False)
    assert [line["rate"] for line in read_log(folder / "run") if line["event"] == "batch"] == [0.25, 0.125]


def test_a_burn_in_as_long_as_the_run_is_warned_of(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for burn_in, progress in ((1, True), (2, True), (2, False)):
        config = short(folder, schedule={"burn_in": burn_in})
        out = folder / f"run{burn_in}{progress}"
        train(config, [folder / "train.h5"], out, progress=progress)
        reasons = [line["reason"] for line in read_log(out) if line["event"] == "warning"]
        assert len(reasons) == (burn_in == 2)
        assert all("--set schedule.burn_in=0" in reason for reason in reasons)
        assert ("warning: schedule.burn_in = 2 batches of" in capsys.readouterr().err) == (
            burn_in == 2 and progress
        )


def test_a_classifier_refuses_a_part_that_says_nothing(folder: Path) -> None:
    model = {"preset": "darknet19", "arguments": {"slim": 0.03, "image_size": 64}}
    kinds = [{"name": kind, "share": 1.0, "kind": kind} for kind in ("boxed", "unlabelled")]
    config = short(folder, model=model, task="classify", loss={}, data=kinds)
    silent, absent = pack_labels(folder / "a.h5"), pack_labels(folder / "b.h5", negative_labels=[2])
    refused(config, [folder / "train.h5", silent], folder / "run", "data part unlabelled has no label")
    assert train(config, [folder / "train.h5", absent], folder / "run", progress=False).batches == 2


def test_more_processes_than_pictures_in_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo9000.train.join_world", lambda device: World(0, 3))
    refused(short(folder), [folder / "train.h5"], folder / "run", "batch = 2 leaves some of 3 processes")
