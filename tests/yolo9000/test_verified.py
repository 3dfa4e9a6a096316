"""What people verified about pictures, from Open Images' and LVIS's files through pack and batch to the
gradient of the loss: crowds, difficult boxes, negatives, classes of which more may be there."""

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import Recipe, Source, Store, pack
from tests.yolo9000.test_loss import ANCHORS, make_lazy
from tests.yolo9000.test_loss import TREE as OTHER_TREE
from wordtree import WordTree
from yolo9000.assignment import collect, drop_moot
from yolo9000.batches import Batches, to_batch
from yolo9000.config import AugmentConfig, ModelConfig, PartConfig, SizeConfig, TrainConfig
from yolo9000.heldout import Truth
from yolo9000.hierarchy import Hierarchy
from yolo9000.loss import RegionLoss

# animal (cat, dog (husky, poodle)), thing (car, cup); ids like WordNet's, for the readers
IDS = [f"n{k:08d}" for k in range(1, 9)]
TREE = WordTree(
    IDS, [-1, -1, 0, 0, 1, 1, 3, 3], ["animal", "thing", "cat", "dog", "car", "cup", "husky", "poodle"]
)
CAT, DOG, CAR, HUSKY, POODLE = 2, 3, 4, 6, 7
STILL = AugmentConfig(layout="letterbox", flip=0, hue=0, saturation=1, exposure=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TREE.save(tmp_path / "tree.json")
    for name in ("a.jpg", "b.jpg"):
        out = io.BytesIO()
        Image.new("RGB", (64, 64)).save(out, "JPEG")
        (tmp_path / name).write_bytes(out.getvalue())
    return tmp_path


def targets_of(folder: Path, source: Source, **part) -> dict[str, dict[str, torch.Tensor]]:
    """The targets of all pictures by their name, packed and batched, nothing moved."""
    pack(Recipe((source,), "tree.json", root=folder), folder / "o.h5")
    store = Store(folder / "o.h5")
    config = TrainConfig(
        model=ModelConfig(preset="yolov2"),
        data=(PartConfig(1, **{"augment": STILL, **part}),),
        images=100,
        batch=len(store),
        input=SizeConfig((64,)),
    )
    batch = to_batch(Batches(config, [store])[0], torch.device("cpu"))
    return dict(zip(batch.names, batch.targets, strict=True))


def raw_output(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3 * (5 + len(TREE)), 2, 2, generator=generator, requires_grad=True)


def probability(raw: torch.Tensor, node: int) -> torch.Tensor:
    """Pr(node) at every box, (A, H, W)."""
    hierarchy = RegionLoss(ANCHORS, TREE).hierarchy
    logits = raw.view(3, 5 + len(TREE), *raw.shape[2:])[:, 5:]
    return hierarchy.log_probabilities(hierarchy.log_conditionals(logits, 1), 1).exp()[:, node]


def test_open_images_negatives_push_their_nodes_down(folder: Path) -> None:
    (folder / "b.csv").write_text(
        f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,{IDS[CAT]},0.1,0.5,0.2,0.6,0\n"
    )
    (folder / "l.csv").write_text(
        f"ImageID,Source,LabelName,Confidence\na,v,{IDS[DOG]},0\nb,v,{IDS[CAR]},1\nb,v,{IDS[POODLE]},0\n"
    )
    source = Source("oi", "openimages", ".", "b.csv", image_labels="l.csv")
    found = targets_of(folder, source)
    assert found["a.jpg"]["negative_labels"].tolist() == [DOG] and len(found["a.jpg"]["boxes"]) == 1
    assert found["b.jpg"]["negative_labels"].tolist() == [POODLE]
    loss = RegionLoss(ANCHORS, TREE)
    for name, node in (("a.jpg", DOG), ("b.jpg", POODLE)):
        raw = raw_output()
        target = found[name]
        before = probability(raw, node) * raw.view(3, 13, 2, 2)[:, 4].sigmoid()
        best = tuple(int(k) for k in np.unravel_index(int(before.argmax()), before.shape))
        without = {key: value for key, value in target.items() if key != "negative_labels"}
        (grad,) = torch.autograd.grad(loss(raw, [target])["loss"] - loss(raw, [without])["loss"], raw)
        assert not grad.view(3, 13, 2, 2)[:, :5].any(), "objectness and boxes are left alone"
        stepped = (raw - 0.1 * grad).detach()
        assert probability(stepped, node)[best] < probability(raw, node)[best]


def test_lvis_lists_reach_the_loss_and_say_nothing_of_other_classes(folder: Path) -> None:
    content = {
        "images": [
            {
                "id": 1,
                "file_name": "a.jpg",
                "width": 64,
                "height": 64,
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [1],
            }
        ],
        "categories": [{"id": 1, "name": IDS[CAT]}, {"id": 2, "name": IDS[HUSKY]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [6, 6, 20, 30]}],
    }
    (folder / "lvis.json").write_text(json.dumps(content))
    (target,) = targets_of(folder, Source("lvis", "coco", ".", "lvis.json")).values()
    assert target["negative_labels"].tolist() == [HUSKY]
    assert target["not_exhaustive_labels"].tolist() == [CAT]
    # car and cup are in no list: no box's logits for them feel anything
    raw = raw_output()
    (grad,) = torch.autograd.grad(RegionLoss(ANCHORS, TREE)(raw, [target])["loss"], raw)
    logits = grad.view(3, 5 + len(TREE), 2, 2)[:, 5:]
    assert not logits[:, [CAR, CAR + 1]].any()
    assert logits[:, [0, CAT, DOG, HUSKY]].flatten(2).any(2).any(0).all()


def test_crowds_and_difficult_boxes_cost_no_objectness(folder: Path) -> None:
    def target_of(flags: dict) -> dict[str, torch.Tensor]:
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}],
            "categories": [{"id": 1, "name": IDS[CAT]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 64, 64], **flags}],
        }
        (folder / "c.json").write_text(json.dumps(content))
        (folder / "o.h5").unlink(missing_ok=True)
        (target,) = targets_of(folder, Source("c", "coco", ".", "c.json")).values()
        return target

    loss, raw = RegionLoss(ANCHORS, TREE), raw_output()
    for flags in ({"iscrowd": 1}, {"difficult": 1}):
        target = target_of(flags)
        assert len(target["boxes"]) == 0 and target["ignore_boxes"].tolist() == [[0.5, 0.5, 1.0, 1.0]]
        losses = loss(raw, [target], images_seen=10**6)
        assert losses["loss"] == 0  # the box covers the picture: nothing in it is background
    assert loss(raw, [target_of({})], images_seen=10**6)["objectness"] > 0


@pytest.mark.parametrize("form", ["dense", "lazy", "shared", "sigmoid"])
def test_not_exhaustive_classes_cost_less_objectness_where_boxes_claim_them(form: str) -> None:
    """Against the formula, written out: every background box costs (1 - max Pr) o^2 / 2."""
    if form == "sigmoid":
        loss = RegionLoss(ANCHORS, classes=12, class_loss="sigmoid")
    else:
        loss = RegionLoss(ANCHORS, OTHER_TREE)
    out = make_lazy(2, OTHER_TREE, shared=form == "shared", seed=3)
    raw = out.dense() if form in ("dense", "sigmoid") else out
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    targets = [empty | {"not_exhaustive_labels": torch.tensor([4, 9])}, empty]
    found = loss(raw, targets, images_seen=10**6)["no_objectness"]
    dense = out.dense().view(2, 3, 17, 3, 4)
    if form == "sigmoid":
        pr = dense[0, :, [9, 14]].sigmoid()
    else:
        logs = loss.hierarchy.log_conditionals(dense[0, :, 5:], dim=1)
        pr = loss.hierarchy.log_probabilities(logs, dim=1).exp()[:, [4, 9]]
    cost = dense[:, :, 4].sigmoid().square()
    wanted = ((1 - pr.amax(1)) * cost[0]).sum() + cost[1].sum()
    torch.testing.assert_close(found, wanted / 2 / 2)
    (grad,) = torch.autograd.grad(found, out.weight, allow_unused=True)
    assert grad is None or not grad.any(), "the classes themselves learn nothing from it"


def test_classes_without_a_row_say_nothing_as_negatives() -> None:
    """Their probability is 0, and that of the nodes above them must not be pushed down in their place."""
    loss, stored = RegionLoss(ANCHORS, OTHER_TREE), (0, 1, 2, 3, 5)
    out = make_lazy(1, OTHER_TREE, stored=list(stored))
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    for form in (out, out.dense()):
        plain = loss(form, [empty])["loss"]
        for node in range(len(OTHER_TREE)):
            for kind in ("negative_labels", "not_exhaustive_labels"):
                found = loss(form, [empty | {kind: torch.tensor([node])}])["loss"]
                known = set(OTHER_TREE.path_nodes(node)) <= set(stored)
                assert bool(found != plain) == known, (node, kind)


def test_a_negative_that_a_positive_contradicts_is_left_out() -> None:
    loss = RegionLoss(ANCHORS, TREE)
    raw = raw_output()
    boxed = {"boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]), "labels": torch.tensor([HUSKY])}
    for positive in (boxed, {"image_labels": torch.tensor([HUSKY])}):
        plain = loss(raw, [positive])["loss"]
        for negatives, counts in (([0], False), ([DOG, HUSKY], False), ([POODLE], True), ([CAT, 0], True)):
            found = loss(raw, [positive | {"negative_labels": torch.tensor(negatives)}])["loss"]
            assert bool(found > plain) == counts
    # What is shown beside the boxes contradicts, too, and teaches nothing.
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    shown = empty | {"shown_labels": torch.tensor([HUSKY])}
    assert loss(raw, [shown])["loss"] == loss(raw, [empty])["loss"]
    for negatives, counts in (([DOG], False), ([POODLE], True)):
        found = loss(raw, [shown | {"negative_labels": torch.tensor(negatives)}])["loss"]
        assert bool(found > loss(raw, [empty])["loss"]) == counts
    # Another picture's positive contradicts nothing.
    two = torch.cat((raw, raw_output(1)))
    targets = [boxed, {"negative_labels": torch.tensor([HUSKY])}]
    assert loss(two, targets)["loss"] > loss(two, [boxed, {}])["loss"]


@pytest.mark.parametrize("how", ["a crowd", "seen, not boxed", "cut off"])
def test_whatever_a_boxed_picture_shows_contradicts(folder: Path, how: str) -> None:
    """A dog in the picture, and no poodle: both are "dog" for these data."""
    crowd, box = int(how == "a crowd"), "0.9,0.95,0.9,0.95" if how == "cut off" else "0.1,0.5,0.2,0.6"
    drawn = CAT if how == "seen, not boxed" else DOG
    (folder / "b.csv").write_text(
        f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,{IDS[drawn]},{box},{crowd}\n"
    )
    seen = f"a,v,{IDS[DOG]},1\n" if how == "seen, not boxed" else ""
    (folder / "l.csv").write_text(f"ImageID,Source,LabelName,Confidence\n{seen}a,v,{IDS[POODLE]},0\n")
    (folder / "map.csv").write_text(
        "".join(f"{wnid},{IDS[DOG] if k == POODLE else wnid}\n" for k, wnid in enumerate(IDS))
    )
    source = Source("oi", "openimages", ".", "b.csv", image_labels="l.csv", map="map.csv")
    layout = {"layout": "crop", "scale": (2.0, 2.0)} if how == "cut off" else {}
    target = targets_of(folder, source, augment=dataclasses.replace(STILL, **layout))["a.jpg"]
    assert target["negative_labels"].tolist() == [DOG]
    assert not (target["labels"] == DOG).any()
    known = drop_moot(collect([target], len(TREE), "cpu"), Hierarchy(TREE))
    assert not len(known.negative_labels)


def test_what_one_tile_of_a_mosaic_lacks_another_may_show(folder: Path) -> None:
    (folder / "l.csv").write_text(
        f"ImageID,LabelName,Confidence\na,{IDS[CAT]},1\na,{IDS[CAR]},0\na,{IDS[HUSKY]},0\n"
        f"b,{IDS[CAT]},1\nb,{IDS[CAR]},0\n"
    )
    pack(
        Recipe((Source("oi", "openimages", ".", image_labels="l.csv"),), "tree.json", root=folder),
        folder / "o.h5",
    )
    store = Store(folder / "o.h5")
    mosaic = dataclasses.replace(STILL, layout="mosaic", tiles=(2, 2))
    config = TrainConfig(
        model=ModelConfig(preset="yolov2"),
        data=(PartConfig(1, kind="label", augment=mosaic),),
        images=100,
        batch=4,
        input=SizeConfig((64,)),
    )
    for number in range(4):
        item = Batches(config, [store])[number]
        for name, target in zip(item["names"], item["targets"], strict=True):
            wanted = [CAR] if "b.jpg" in name else [CAR, HUSKY]
            assert target["negative_labels"].tolist() == wanted


def test_the_same_lists_reach_scoring(folder: Path) -> None:
    """Open Images' files and LVIS's, packed, as what was looked for in each picture."""
    (folder / "b.csv").write_text(
        f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,{IDS[CAT]},0.1,0.5,0.2,0.6,0\n"
    )
    (folder / "l.csv").write_text(
        f"ImageID,Source,LabelName,Confidence\na,v,{IDS[DOG]},0\na,v,{IDS[CAR]},1\nb,v,{IDS[POODLE]},0\n"
    )
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 64, "height": 64, "neg_category_ids": [2]},
            {"id": 2, "file_name": "b.jpg", "width": 64, "height": 64, "not_exhaustive_category_ids": [1]},
        ],
        "categories": [{"id": 1, "name": IDS[CAT]}, {"id": 2, "name": IDS[HUSKY]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [6, 6, 20, 30]}],
    }
    (folder / "lvis.json").write_text(json.dumps(content))
    plain = content | {"images": [{k: image[k] for k in list(image)[:4]} for image in content["images"]]}
    (folder / "coco.json").write_text(json.dumps(plain))
    sources = {
        "oi": Source("oi", "openimages", ".", "b.csv", image_labels="l.csv"),
        "lvis": Source("lvis", "coco", ".", "lvis.json"),
        "coco": Source("coco", "coco", ".", "coco.json"),
    }
    # All in one file: a source's lists say nothing of another's pictures.
    pack(Recipe(tuple(sources.values()), "tree.json", root=folder), folder / "all.h5")
    store = Store(folder / "all.h5")
    where = np.array([(0, i) for i in range(len(store))])
    truth = Truth([store], where, SimpleNamespace(tree=TREE, classes=len(TREE)), TREE)
    place = {(one.source, one.name): k for k, one in enumerate(truth.samples)}
    asked = truth.asked
    partial = {key for key, k in place.items() if not asked.exhaustive[k]}
    assert partial == {(source, name) for source in ("oi", "lvis") for name in ("a.jpg", "b.jpg")}

    def pairs(images: np.ndarray, nodes: np.ndarray) -> set:
        names = {k: key for key, k in place.items()}
        return {(*names[int(k)], int(node)) for k, node in zip(images, nodes, strict=True)}

    assert pairs(asked.absent_image, asked.absent_node) == {
        ("oi", "a.jpg", DOG),
        ("oi", "b.jpg", POODLE),
        ("lvis", "a.jpg", HUSKY),
    }
    assert pairs(asked.seen_image, asked.seen_node) == {("oi", "a.jpg", CAR)}
    assert pairs(asked.open_image, asked.open_node) == {("oi", "a.jpg", CAR), ("lvis", "b.jpg", CAT)}
