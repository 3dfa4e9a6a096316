"""Truths whose node the model's tree lacks: along the tree the nearest node above stands for them, as if the
data had said no more; where none is known they are left out, and counted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep import Sample, Store, StoreWriter
from tests.yolo9000 import small, toys
from tests.yolo9000.test_evaluate import Oracle, samples
from wordtree import WordTree, prune
from yolo9000 import report
from yolo9000.calibrate import calibrate, format_report, gather
from yolo9000.errors import TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.network import Network
from yolo9000.spec import Convolution, GlobalAveragePool, NetworkSpec, Softmax
from yolo9000.tables import format_table
from yolo9000.witness import Witness

NODES = EvalSettings(workers=0, resamples=0, precision="float32", nodes=True, threshold=0.1)
FEWER, KEPT = prune(toys.TREE, ["red"])  # (6,) the new node of each old one
RED, WARM = toys.TREE.index("red"), toys.TREE.index("warm")


class Pruned(Oracle):
    """The oracle without a row for red."""

    def __init__(self, answers: list[Sample]):
        super().__init__(answers, tree=FEWER)

    def lazy(self, images: torch.Tensor) -> LazyOutput:
        out, rows = super().lazy(images), torch.from_numpy(np.flatnonzero(KEPT >= 0))
        weight, bias = out.weight[:, rows], out.bias[:, rows]
        return dataclasses.replace(out, weight=weight, bias=bias, classes=len(FEWER))


def packed(path: Path, given: Store, tree: WordTree, **red: int) -> Store:
    """The same pictures; red is another node, as boxes' class, as label or as what lists say."""
    with StoreWriter(path, tree) as writer:
        for one in samples(given):
            lists = {field: getattr(one, field).copy() for field in ("labels", "image_labels")}
            for field, node in red.items():
                lists[field][lists[field] == RED] = node
            writer.add(dataclasses.replace(one, **lists))
    return Store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("toys") / "v.h5"
    return Store(toys.pack_squares(path, boxed=24, labelled=24, size=48, single=True))


def test_the_node_above_stands_for_it(store: Store, tmp_path: Path) -> None:
    warm = packed(tmp_path / "warm.h5", store, toys.TREE, labels=WARM, image_labels=WARM)
    found, wanted = (evaluate(Pruned(samples(store)), [data], NODES) for data in (store, warm))
    assert found["boxes"]["nodes"] == wanted["boxes"]["nodes"]
    assert found["boxes"]["nodes"]["levels"][0]["AP50"] == pytest.approx(1)
    assert found["labels"] == wanted["labels"] and found["labels"]["pictures"] == 24
    reds = sum(int((one.nodes == RED).sum()) for one in samples(store))
    assert (found["raised"], found["left_out"]) == (reds, 0) and reds > 4
    assert (wanted["raised"], wanted["left_out"]) == (0, 0)
    assert found["boxes"]["unknown"] == ["red"]  # of the classes it is still one of which nothing is found
    assert f"{reds} count as the nearest node above, 0 are left out" in format_table(found)
    assert "left out" not in format_table(wanted)
    evidence, same = (gather(Pruned(samples(store)), [data], NODES) for data in (store, warm))
    assert torch.equal(evidence.truths, same.truths) and evidence.missed == same.missed == 0


@pytest.mark.parametrize("what", ["negative_labels", "not_exhaustive_labels"])
def test_what_is_known_to_be_there_is_so_above_too(what: str, store: Store, tmp_path: Path) -> None:
    """Data annotated for some classes only: red things without a box, of which all is said or not."""
    boxed = [one for one in samples(store) if one.boxed]

    def data(name: str, node: int) -> Store:
        with StoreWriter(tmp_path / name, toys.TREE) as writer:
            for one in boxed:
                kept = one.labels != RED
                fields = ("boxes_cxcywh", "labels", "crowd", "difficult")
                changes = {field: getattr(one, field)[kept] for field in fields}
                seen = np.full(int(not kept.all()), node)
                other = seen if what == "not_exhaustive_labels" else np.array([toys.TREE.index("cold")])
                lists = {"image_labels": seen, what: other[: len(seen)]}
                writer.add(dataclasses.replace(one, **changes, **lists))
        return Store(tmp_path / name)

    pair = data("red.h5", RED), data("warm.h5", WARM)
    found, wanted = (evaluate(Pruned(boxed), [one], NODES)["boxes"]["nodes"] for one in pair)
    assert found == wanted and found["partial"] == len(boxed)
    assert (found["levels"][0]["AP50"] < 0.9) == (what == "negative_labels")


def test_where_nothing_above_is_known_it_is_left_out(store: Store, tmp_path: Path) -> None:
    flat = packed(tmp_path / "flat.h5", store, WordTree.flat(list(toys.TREE.ids)))
    found = evaluate(Pruned(samples(store)), [flat], NODES)
    reds = [one for one in samples(store) if RED in one.nodes]
    assert (found["raised"], found["left_out"]) == (0, len(reds))
    assert found["labels"]["pictures"] == 24 - sum(not one.boxed for one in reds)
    assert f"0 count as the nearest node above, {found['left_out']} are left out" in format_table(found)
    evidence = gather(Pruned(samples(store)), [flat], NODES)
    assert evidence.missed == evidence.left_out == found["left_out"]
    report = format_report(calibrate(Hierarchy(FEWER), evidence))
    assert f"{evidence.left_out} of them of classes that the tree has not" in report


def classifier(tree: WordTree) -> Network:
    last = Convolution(len(tree), 1, activation="linear", batch_normalize=False)
    spec = NetworkSpec(64, 64, (*small.trunk(), last, GlobalAveragePool(), Softmax()))
    return small.randomise(Network(spec, tree), 0)


def test_a_classifiers_first_leaves_out_what_it_cannot_answer(tmp_path: Path) -> None:
    net = classifier(prune(small.TREE, ["husky"])[0])
    found = {}
    for name, names in {"all": "husky poodle cat", "dog": "dog poodle cat", "fewer": "poodle cat"}.items():
        with StoreWriter(tmp_path / f"{name}.h5", small.TREE) as writer:
            for k, label in enumerate(names.split() * 4):
                one = toys.square_sample(k, boxed=False)
                writer.add(dataclasses.replace(one, image_labels=np.array([small.TREE.index(label)])))
        found[name] = evaluate(net, [Store(tmp_path / f"{name}.h5")], NODES)
    labels, fewer = found["all"]["labels"], found["fewer"]["labels"]
    assert found["all"]["raised"] == 4 and (labels["pictures"], fewer["pictures"]) == (12, 8)
    assert (labels["top1"], labels["top5"]) == (fewer["top1"], fewer["top5"])
    for score in ("greedy", "answer", "answer_depth", "hierarchy"):
        assert labels[score] == found["dog"]["labels"][score]


def test_data_of_which_the_tree_has_nothing(store: Store) -> None:
    net = classifier(small.TREE)
    with pytest.raises(
        TrainingError, match=r"neither the class nor any node above it: blue, green, red, yel"
    ):
        evaluate(net, [store], NODES)
    with pytest.raises(TrainingError, match=r"none of the labelled objects .*\(of .*: blue, green, red"):
        gather(net, [store], NODES)


def test_groups_of_classes_are_found_by_id_and_name_or_refused(store: Store) -> None:
    names = ["Warm", "Cold", "rouge", "jaune", "vert", "bleu"]
    tree = WordTree(toys.TREE.ids, toys.TREE.parents, names)
    net = Oracle(samples(store), tree=tree)  # its names; the data's tree has none
    groups = {"ids": ["red", "yellow"], "names": ["Rouge", "jaune", "red"]}
    found = evaluate(net, [store], NODES, groups)["boxes"]["groups"]
    assert found["ids"] == found["names"] and found["ids"]["classes"] == 2
    for wrong, words in (("gren", r"'b'.*gren.*did you mean\n  green"), ("xyzzy", "'b'.*no node is called")):
        with pytest.raises(TrainingError, match=words):
            evaluate(Oracle([]), [store], NODES, {"a": ["red"], "b": ["blue", wrong]})


class Rowless(Oracle):
    """The oracle of the same tree without a class row for some of its nodes."""

    def __init__(self, answers: list[Sample], lacking: str):
        super().__init__(answers)
        self.rows = torch.tensor([k for k in range(len(toys.TREE)) if k != toys.TREE.index(lacking)])

    def lazy(self, images: torch.Tensor) -> LazyOutput:
        out, rows = super().lazy(images), self.rows
        return dataclasses.replace(out, weight=out.weight[:, rows], bias=out.bias[:, rows], stored=rows)


def test_a_class_without_a_row_is_never_found(store: Store) -> None:
    found = evaluate(Rowless(samples(store), "red"), [store], NODES)["boxes"]
    assert found["per_class"]["red"] == 0 and found["per_class"]["yellow"] > 0.5
    assert found["AR100_50"] == pytest.approx(3 / 4)  # the three others are all found
    assert found["AP50"] == pytest.approx(found["nodes"]["leaves"]["AP50"])  # where it is so, too


@pytest.mark.parametrize("given", [{"vocabulary": ["red"]}, {"level": ["red"]}])
def test_none_of_the_listed_nodes_is_no_answer(given: dict, tmp_path: Path) -> None:
    data, witness = Store(toys.pack_squares(tmp_path / "labels.h5", 0, 9, size=48)), Witness()
    settings = dataclasses.replace(NODES, **given)
    result = evaluate(Rowless(samples(data), "red"), [data], settings, witness=witness)
    labels = result["labels"]
    assert labels["answer"] == labels["hierarchy"]["answers"] == 0 and labels["boxed"] == 1
    assert [(row.answer, row.truth) for row in witness.named] == [
        (None, data[k].image_labels[0]) for k in range(len(data))
    ]
    assert report.gather(witness, result, {})["labelled"]["mistaken"] == len(data)
