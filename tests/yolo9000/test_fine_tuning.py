"""Runs that go on from a model: what it brings along, what holds no longer, what it cannot learn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep import Store, StoreWriter
from tests.yolo9000 import toys
from wordtree import WordTree
from yolo9000 import Detector
from yolo9000.batches import Batches
from yolo9000.config import ModelConfig, TrainConfig, from_dict
from yolo9000.errors import TrainingError
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.presets import yolo9000, yolov2
from yolo9000.start import build_network, load_any, own_rows
from yolo9000.train import train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Packed squares, and a model over their tree that has seen 12,000 pictures and was calibrated."""
    toys.pack_squares(tmp_path / "train.h5", boxed=8)
    net = Network(yolo9000(toys.TREE, image_size=64, slim=0.02), toys.TREE)
    net.seen, net.defaults = 12_000, {"threshold": 0.3, "lambdas": {"0.9": 1.5}, "temperatures": [1.0, 2.0]}
    save_model(net, tmp_path / "start.safetensors")
    return tmp_path


def settings(folder: Path, **top) -> TrainConfig:
    table = {
        "model": {"start": str(folder / "start.safetensors")},
        "images": 8,
        "batch": 4,
        "workers": 0,
        "threads": 1,
        "precision": "float32",
        "input": {"sizes": [64]},
        "schedule": {"burn_in": 0},
        "data": [{"share": 1.0}],
    }
    return from_dict(TrainConfig, table | top, "test")


def run(folder: Path, config: TrainConfig, name: str = "run") -> Network:
    return load_model(train(config, [folder / "train.h5"], folder / name, progress=False).model)


def test_pictures_seen_before_count(folder: Path) -> None:
    """So that boxes that were learnt are not drawn to their anchors again."""
    net, _, maps = build_network(settings(folder).model, [store := Store(folder / "train.h5")])
    batches = Batches(settings(folder), [store], maps, seen=net.seen)
    assert [batches[k]["seen"] for k in range(2)] == [12_000, 12_004]
    assert run(folder, settings(folder)).seen == load_any(str(folder / "run")).seen == 12_008
    last = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    never = run(folder, settings(folder, loss={"early_images": 12_000}), "never")
    assert not torch.equal(next(never.parameters()), next(run(folder, settings(folder), "a").parameters()))
    twin = run(folder, settings(folder, loss={"early_images": 0}), "b")
    assert torch.equal(next(never.parameters()), next(twin.parameters()))
    assert [line["images"] for line in last if line["event"] == "batch"][-1] == 8  # the run's own


def test_what_calibration_had_fitted_is_dropped(folder: Path) -> None:
    assert run(folder, settings(folder)).defaults == {"threshold": 0.3}
    assert load_any(str(folder / "run")).defaults == {"threshold": 0.3}
    first = json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["dropped"] == ["temperatures", "lambdas"]


@pytest.mark.parametrize(
    ("own", "sizes", "wanted"),
    [(0, [64], 64), (0, [32, 96], 64), (0, [96, 128], 96), (256, [64, 128], 128), (96, [64, 96], 96)],
)
def test_a_model_runs_at_a_size_that_it_was_trained_at(folder, own, sizes, wanted) -> None:
    net = load_model(folder / "start.safetensors")
    save_model(net, folder / "start.safetensors", defaults={"size": own} if own else {})
    made = run(folder, settings(folder, input={"sizes": sizes}))
    assert Detector(made).size == (wanted, wanted)
    assert ("size" in made.defaults) == bool(own or wanted != 64)
    lines = map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines())
    said = [line["reason"] for line in lines if line["event"] == "warning"]
    assert len(said) == (wanted != (own or 64)) and all(f"runs at {wanted} px" in reason for reason in said)


def flat(folder: Path, names: list[str]) -> Path:
    """Squares of four colours, boxed, packed with the classes in this order."""
    with StoreWriter(folder / "flat.h5", WordTree.flat(names)) as writer:
        for k in range(8):
            one = toys.square_sample(k)
            labels = [names.index(toys.TREE.ids[label]) for label in one.labels]
            writer.add(replace(one, labels=np.array(labels, np.int64)))
    return folder / "flat.h5"


def test_classes_without_a_tree_are_learnt_by_name(folder: Path) -> None:
    """As they are evaluated: whatever the order of the data's classes, and whether it has them all."""
    leaves = [toys.TREE.ids[k] for k in toys.COLOURS]
    net = Network(yolov2(len(leaves), image_size=64, slim=0.02))
    net.names = tuple(leaves)
    save_model(net, folder / "start.safetensors")
    model = settings(folder).model

    def learnt(order: list[str], seed: int = 0) -> list[torch.Tensor]:
        store = flat(folder, order)
        made = load_model(train(settings(folder, seed=seed), [store], folder / str(order[0])).model)
        assert made.names == tuple(leaves)
        return list(made.parameters())

    for one, other in zip(learnt(leaves), learnt(leaves[::-1]), strict=True):
        assert torch.equal(one, other)
    store = Store(flat(folder, [*leaves[::-1], "plaid"]))
    with pytest.raises(TrainingError, match="no class 'plaid'"):
        build_network(model, [store])
    store = Store(flat(folder, leaves[::-1]))
    with pytest.raises(TrainingError, match="leave it out"):
        build_network(replace(model, tree="flat"), [store])
    store = Store(flat(folder, leaves))
    made = run_on(folder, settings(folder, model={**vars(model), "tree": "flat"}))
    assert made.tree.ids == tuple(leaves) and made.names is None


def run_on(folder: Path, config: TrainConfig) -> Network:
    return load_model(train(config, [folder / "flat.h5"], folder / "flat", progress=False).model)


def test_what_darknet_trained_sees_pictures_as_it_is_trained_on_here(folder: Path) -> None:
    net = load_model(folder / "start.safetensors")
    save_model(net, folder / "start.safetensors", defaults={"resize": "darknet", "threshold": 0.4})
    made = run(folder, settings(folder))
    assert Detector(made).resize == "smooth" and made.defaults["threshold"] == 0.4


def test_labels_without_a_class_row_are_refused(folder: Path) -> None:
    spec = own_rows(yolo9000(toys.TREE, image_size=64, slim=0.02), (0, 1, 2, 3, 4), shared=True)
    save_model(Network(spec, toys.TREE), folder / "start.safetensors")
    with pytest.raises(TrainingError, match=r"1 labels .* no class row.*blue.*edit --row blue"):
        run(folder, settings(folder))
    assert not (folder / "run").exists()


def test_another_tree_than_the_models_is_refused(folder: Path) -> None:
    stores = [Store(folder / "train.h5")]
    start = str(folder / "start.safetensors")
    toys.TREE.save(folder / "same.json")
    for tree in ("", "named", str(folder / "same.json")):
        net, tree, _ = build_network(ModelConfig(start=start, tree=tree), stores)
        assert net.tree is tree and tree.ids == toys.TREE.ids
    for tree in ("flat", "default", str(folder / "none.json")):
        with pytest.raises(TrainingError, match=r"model\.tree"):
            build_network(ModelConfig(start=start, tree=tree), stores)
