"""Learning one class row: that row and nothing else, as far as its own pictures need."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import Sample, StoreWriter
from tests.yolo9000.edits import make
from tests.yolo9000.small import TREE, small_detector
from wordtree import WordTree, graft
from yolo9000.batches import Batch
from yolo9000.classrows import row_parameters, view_rows
from yolo9000.config import load_config
from yolo9000.edit import edit_model
from yolo9000.errors import TrainingError
from yolo9000.hierarchy import Hierarchy
from yolo9000.modelfile import load_model, save_model
from yolo9000.rowtask import RowTask, sums_of_evidence
from yolo9000.train import train

QUICK = ("images=120", "batch=6", "input.sizes=[64]", "workers=0", "threads=1", "precision=float32", "seed=3")


def pack(path: Path, tree: WordTree, node: int, count: int = 6) -> Path:
    """Reddish noise, labelled as the node."""
    none = np.zeros(0, np.int64)
    with StoreWriter(path, tree) as writer:
        for k in range(count):
            noise = np.random.default_rng(k).integers(0, 120, (64, 64, 3)).astype(np.uint8)
            noise[..., 0] += 130
            file = io.BytesIO()
            Image.fromarray(noise).save(file, "PNG")
            labels = np.array([node], np.int64)
            no_boxes = np.zeros((0, 4), np.float32)
            bools = np.zeros(0, bool)
            writer.add(
                Sample(
                    f"p{k}",
                    file.getvalue(),
                    64,
                    64,
                    no_boxes,
                    none,
                    labels,
                    none,
                    bools,
                    bools,
                    "mine",
                    False,
                )
            )
    return path


@pytest.fixture(scope="module", params=["rows", "stored", "sums"])
def taught(request, tmp_path_factory):
    """A model with a new class below dog, the same after teaching it, and what the run said."""
    folder = tmp_path_factory.mktemp("rows")
    edited, _ = edit_model(make(request.param), *graft(TREE, "dog", "pug"))
    save_model(edited, folder / "edited.safetensors", {**edited.record, "nodes": {"boxes": [1]}})
    data = pack(folder / "one.h5", edited.tree, edited.tree.index("pug"))
    start = f"model.start={folder / 'edited.safetensors'}"
    result = train(load_config("one-class", (start, *QUICK)), [data], folder / "run", progress=False)
    return load_model(folder / "edited.safetensors"), load_model(result.model), result


def test_only_the_new_row_moves_and_only_on_features(taught):
    before, after, _ = taught
    changed = [n for n, v in before.state_dict().items() if not torch.equal(v, after.state_dict()[n])]
    assert changed == [f"layers.{len(before.spec) - 1}.rows.weight"]
    old, new = (view_rows(net.spec, row_parameters(net)[0].data) for net in (before, after))
    moved = (old != new).nonzero()
    assert {before.spec.region.nodes[k] for k in moved[:, 1].tolist()} == {before.tree.index("pug")}
    sums = sums_of_evidence(before.spec, before.spec.region.features)
    assert not any(sums[channel] for channel in moved[:, 2].tolist())
    assert len(set(moved[:, 2].tolist())) > 10


def test_it_learns_up_to_the_target_and_not_beyond(taught):
    before, after, result = taught
    assert result.losses["avg_conditional"] == pytest.approx(0.95, abs=0.04)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    tree = Hierarchy(after.tree)
    group = list(after.tree.group(int(after.tree.group_of[after.tree.index("pug")])))
    others = [k for k in range(len(after.tree)) if k not in group]
    with torch.inference_mode():
        a, b = (
            tree.log_probabilities(
                tree.log_conditionals(net.lazy(images).dense().unflatten(1, (2, -1))[:, :, 5:], 2), 2
            )
            for net in (before, after)
        )
    assert torch.equal(a[:, :, others], b[:, :, others])  # outside its group of siblings: the same bits
    assert not torch.equal(a[:, :, group], b[:, :, group])


def test_the_record_goes_on(taught):
    before, after, _ = taught
    assert after.record["edits"] == before.record["edits"]
    assert after.record["nodes"]["boxes"] == [1] and after.record["nodes"]["labels"] == [
        after.tree.index("pug")
    ]
    assert after.record["config"]["model"]["start"] == "edited.safetensors"


def test_the_margin_is_that_of_the_dense_conditionals():
    net, _ = edit_model(small_detector("rows"), *graft(TREE, "dog", "pug"))
    task = RowTask(net, net.tree)
    out = net.lazy(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)))
    nodes = torch.tensor([net.tree.index(n) for n in ("pug", "husky", "animal")])
    image, anchor, row, column = torch.tensor([[0, 1, 2], [1, 0, 1], [3, 0, 7], [2, 2, 5]])
    siblings = [task._siblings(node) for node in nodes.tolist()]
    margins = task._margins(net, out.at(image, row, column), anchor, nodes, siblings)
    logs = Hierarchy(net.tree).log_conditionals(out.logits(image, anchor, row, column))
    assert torch.allclose(margins.sigmoid(), logs[torch.arange(3), nodes].exp(), atol=1e-5)
    probability = task._probability(out, image, nodes)[torch.arange(3), anchor, row * 8 + column]
    whole = Hierarchy(net.tree).log_probabilities(logs)[torch.arange(3), nodes].exp()
    assert torch.allclose(probability, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "settings", "sizes"),
    [(96, (), [72, 80, 96]), (256, (), [192, 224, 256]), (96, ("input.sizes=[64]",), [64])],
)
def test_it_trains_at_the_model_s_own_size_and_keeps_it(own, settings, sizes, tmp_path):
    edited, _ = edit_model(make("stored"), *graft(TREE, "dog", "pug"))
    save_model(edited, tmp_path / "e.safetensors", defaults={"size": own})
    data = pack(tmp_path / "one.h5", edited.tree, edited.tree.index("pug"))
    quick = [word for word in QUICK if not word.startswith("input")]
    words = (f"model.start={tmp_path / 'e.safetensors'}", *quick, "images=6", *settings)
    made = load_model(train(load_config("one-class", words), [data], tmp_path / "run", progress=False).model)
    assert made.own_size == ((64, 64) if settings else (own, own))
    assert made.record["config"]["input"]["sizes"] == sizes


def test_crops_that_lost_their_boxes_teach_nothing():
    net, _ = edit_model(small_detector("rows"), *graft(TREE, "dog", "pug"))
    task = RowTask(net, net.tree)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    batch = Batch(0, torch.rand(2, 3, 64, 64), [empty] * 2, ["", ""], torch.zeros(2, dtype=torch.long))
    loss = task.loss(net, batch)["loss"]
    loss.backward()
    assert loss == 0 and not row_parameters(net)[0].grad.any()


@pytest.mark.parametrize(
    ("graft_below", "settings", "message"),
    [
        (
            "husky",
            (),
            "only child .* without its pictures, or as pictures of n8, .* train every row, with model",
        ),
        ("dog", ("optimiser.weight_decay=0.1",), "weight_decay"),
        ("dog", ("loss.target=1.0",), "from 0.5 to below 1"),
        ("dog", ("loss.target=high",), "from 0.5 to below 1"),
        ("dog", ("loss.goal=0.5",), "goal"),
    ],
)
def test_what_cannot_be_learnt(graft_below, settings, message, tmp_path):
    edited, _ = edit_model(make("stored"), *graft(TREE, graft_below, "pug"))
    save_model(edited, tmp_path / "e.safetensors")
    data = pack(tmp_path / "one.h5", edited.tree, edited.tree.index("pug"))
    config = load_config("one-class", (f"model.start={tmp_path / 'e.safetensors'}", *QUICK, *settings))
    with pytest.raises(TrainingError, match=message):
        train(config, [data], tmp_path / "run", progress=False)


def test_a_class_without_a_row_and_networks_of_other_forms(tmp_path):
    save_model(make("stored"), tmp_path / "e.safetensors")
    data = pack(tmp_path / "one.h5", TREE, TREE.index("cat"))
    config = load_config("one-class", (f"model.start={tmp_path / 'e.safetensors'}", *QUICK))
    with pytest.raises(TrainingError, match="edit --row n5"):
        train(config, [data], tmp_path / "run", progress=False)
    for form in ("darknet", "flat", "classifier"):
        net = make(form)
        with pytest.raises(TrainingError, match="class rows"):
            RowTask(net, net.tree)
