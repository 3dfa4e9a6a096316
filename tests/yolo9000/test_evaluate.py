"""Scores of networks whose output is known beforehand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from data_prep import Sample, Store, StoreWriter
from tests.yolo9000 import toys
from tests.yolo9000.small import small_classifier
from wordtree import WordTree
from yolo9000 import augment
from yolo9000.cli import calibrate
from yolo9000.cli.eval import command
from yolo9000.errors import TrainingError
from yolo9000.evaluate import EvalSettings, _Pairs, evaluate
from yolo9000.head import LazyOutput
from yolo9000.heldout import HeldOut
from yolo9000.modelfile import save_model
from yolo9000.network import Network
from yolo9000.spec import Convolution, NetworkSpec, Region
from yolo9000.tables import format_table

QUICK = EvalSettings(workers=0, resamples=10, precision="float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("toys") / "v.h5"
    return Store(toys.pack_squares(path, boxed=20, labelled=10, size=48, single=True))


class Oracle(Network):
    """A detector of 8 x 8 cells that is told what to answer for the pictures, in their order."""

    def __init__(
        self,
        answers: list[Sample],
        certainty: float = 8.0,
        wrong: bool = False,
        tree: WordTree = toys.TREE,
    ):
        region = Region(((1.0, 1.0),), len(tree), boxes=0, features=0)
        conv = Convolution(5, 3, stride=8, activation="linear", batch_normalize=False)
        super().__init__(NetworkSpec(64, 64, (conv, region)), tree)
        self.answers, self.certainty, self.wrong, self.at = answers, certainty, wrong, 0

    def lazy(self, images: torch.Tensor) -> LazyOutput:
        n, nodes = len(images), len(toys.TREE)
        boxes = torch.zeros(n, 5, 8, 8)
        boxes[:, 4] = -20
        features = torch.zeros(n, nodes, 8, 8)
        for k, sample in enumerate(self.answers[self.at : self.at + n]):
            places = sample.boxes_cxcywh if sample.boxed else np.array([[0.5, 0.5, 0.4, 0.4]])
            for (cx, cy, w, h), label in zip(places, sample.nodes, strict=True):
                i, j = int(cx * 8), int(cy * 8)
                raw = [cx * 8 - i, cy * 8 - j]
                boxes[k, :2, j, i] = torch.tensor(raw).clamp(1e-4, 1 - 1e-4).logit()
                boxes[k, 2:4, j, i] = torch.tensor([w * 8, h * 8]).log()
                boxes[k, 4, j, i] = 5
                # On the way to the label, or (wrong) to its sibling.
                at = int(label) ^ 1 if self.wrong else int(label)
                features[k, :, j, i] = 0
                features[k, at, j, i] = self.certainty
                features[k, toys.TREE.parents[at], j, i] = self.certainty
        self.at += n
        return LazyOutput(boxes, features, torch.eye(nodes)[None], torch.zeros(1, nodes), None, nodes, 1)


def samples(store: Store) -> list[Sample]:
    return [store[i] for i in range(len(store))]


def test_the_truth_scores_one(store: Store) -> None:
    result = evaluate(Oracle(samples(store)), [store], QUICK, {"warm": ["red", "yellow"], "x": ["cold"]})
    boxes, labels = result["boxes"], result["labels"]
    assert boxes["AP50"] == pytest.approx(1.0) and boxes["any_class"]["AP50"] == pytest.approx(1.0)
    assert boxes["AP"] > 0.95 and boxes["classes"] == 4 and boxes["truths"] == 20
    assert boxes["groups"]["warm"]["classes"] == 2 and boxes["groups"]["x"]["AP50"] == -1
    assert labels["pictures"] == 10 and labels["greedy"] == labels["answer"] == 1.0
    assert labels["answer_depth"] == 1.0
    assert json.loads(json.dumps(result)) == result
    table = format_table(result)
    assert "warm (2)" in table and "whatever the class" in table and "1.000" in table


def test_the_wrong_name_at_the_right_place(store: Store) -> None:
    result = evaluate(Oracle(samples(store), wrong=True), [store], QUICK)
    assert result["boxes"]["any_class"]["AP50"] == pytest.approx(1.0)
    # The right name is still given, at almost no score: it comes after all the wrong ones.
    assert 0.2 < result["boxes"]["AP50"] < 0.7
    assert result["labels"]["greedy"] == result["labels"]["answer"] == 0.0
    assert result["labels"]["answer_depth"] is None and "-" in format_table(result)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_nodes_above_the_truth_are_scored_too(store: Store) -> None:
    settings = EvalSettings(workers=0, resamples=0, precision="float32", nodes=True)
    right = evaluate(Oracle(samples(store)), [store], settings)
    nodes = right["boxes"]["nodes"]
    assert nodes["nodes"] == 6 and nodes["AP50"] == pytest.approx(1.0) and nodes["partial"] == 0
    # Where no truth has one below it: as over the classes by pycocotools.
    assert nodes["leaves"]["AP"] == pytest.approx(right["boxes"]["AP"])
    assert [level["nodes"] for level in nodes["levels"]] == [2, 4]
    answers = right["labels"]["hierarchy"]
    assert answers["answers"] == 10 and answers["F"] == answers["right"] == 1.0
    assert answers["information"] == 2.0  # one of four leaves
    assert json.loads(json.dumps(right)) == right
    table = format_table(right)
    assert "every node above the truth too (6)" in table and "hierarchical F" in table
    # The sibling's name at the right place: the parent is right.
    wrong = evaluate(Oracle(samples(store), wrong=True), [store], settings)
    levels = wrong["boxes"]["nodes"]["levels"]
    assert levels[0]["AP50"] == pytest.approx(1.0) and levels[1]["AP50"] < 0.7
    assert wrong["labels"]["hierarchy"]["F"] == pytest.approx(0.5)
    assert [level["right"] for level in wrong["labels"]["hierarchy"]["levels"]] == [1.0, 0.0]


def test_only_what_was_looked_for_counts(tmp_path: Path) -> None:
    """One picture of a red square; on the one before, nobody looked for red, or somebody did ..."""
    red = next(s for s in (toys.square_sample(2 * k, 48) for k in range(99)) if s.labels[0] == 2)
    lists = {
        "all": {},
        "absent": {"negative_labels": [2]},
        "parent absent": {"negative_labels": [0]},
        "seen": {"image_labels": [2], "negative_labels": [4]},
        "other absent": {"negative_labels": [4]},
        "open": {"not_exhaustive_labels": [2], "image_labels": [2]},
        "parent open": {"not_exhaustive_labels": [0], "image_labels": [2]},
    }
    found = {}
    for name, given in lists.items():
        with StoreWriter(tmp_path / f"{name}.h5", toys.TREE) as writer:
            for k, box in enumerate((False, True)):
                changes = {} if box else {what: np.array(nodes) for what, nodes in given.items()}
                changes |= {f: getattr(red, f)[: int(box)] for f in ("boxes_cxcywh", "labels", "crowd")}
                changes |= {"name": str(k), "difficult": red.difficult[: int(box)]}
                writer.add(dataclasses.replace(red, **changes))
        net = Oracle([red, red])  # sees the square on both
        settings = EvalSettings(workers=0, resamples=0, precision="float32", nodes=True)
        found[name] = evaluate(net, [Store(tmp_path / f"{name}.h5")], settings)["boxes"]
    # Equal scores on both pictures: what is found on the first comes first. Right or not, any node's AP50 is
    # 1/2 if that counts as wrong, and 1 if not.
    for name, boxes in found.items():
        wanted = 0.5 if name in ("all", "absent", "parent absent", "seen") else 1.0
        assert boxes["AP50"] == pytest.approx(wanted) and boxes["partial"] == 2 * (name != "all")
        assert boxes["any_class"]["AP50"] == pytest.approx(0.5 if name == "all" else 1.0)
        levels = [level["AP50"] for level in boxes["nodes"]["levels"]]
        above = 1.0 if name == "absent" else wanted  # no red: nothing is said of warm
        assert levels == pytest.approx([above, wanted])


def test_answers_that_nobody_looked_for_count_neither_way(tmp_path: Path) -> None:
    """Pictures with labels only, named by the label's sibling: wrong, unless nothing is known of that one."""
    lists = {
        "all": {},
        "absent": {"negative_labels": "sibling"},
        "other absent": {"negative_labels": "cousin"},
        "contradicted": {"negative_labels": "parent"},
    }
    for name, given in lists.items():
        with StoreWriter(tmp_path / f"{name}.h5", toys.TREE) as writer:
            for k in range(6):
                one = toys.square_sample(k, 48, boxed=False)
                label = int(one.image_labels[0])
                nodes = {"sibling": label ^ 1, "cousin": 4 if label < 4 else 2, "parent": (label - 2) // 2}
                changes = {what: np.array([nodes[which]]) for what, which in given.items()}
                writer.add(dataclasses.replace(one, **changes))
        store = Store(tmp_path / f"{name}.h5")
        for wrong in (True, False):
            result = evaluate(Oracle(samples(store), wrong=wrong), [store], QUICK)
            labels = result["labels"]
            left_out = 6 if wrong and name in ("other absent", "contradicted") else 0
            assert labels["unasked"] == left_out and labels["hierarchy"]["answers"] == 6 - left_out
            assert labels["answer"] == labels["greedy"] == (None if left_out else float(not wrong))
            assert ("nobody looked for" in format_table(result)) == bool(left_out)


def test_other_rules_name_pictures(store: Store) -> None:
    def scores(**given):
        settings = EvalSettings(workers=0, resamples=0, precision="float32", **given)
        return evaluate(Oracle(samples(store)), [store], settings)["labels"]

    assert scores(level=0)["answer_depth"] == 0.0 and scores(level=0)["hierarchy"]["recall"] == 0.5
    assert (
        scores(hedge_lambda=1e11)["hierarchy"]["information"]
        < scores(hedge_lambda=0.0)["hierarchy"]["information"]
    )
    warm = scores(vocabulary=["red", "yellow"])
    assert 0 < warm["answer"] < 1
    for given, words in (({"rule": "hedge"}, "calibrate"), ({"vocabulary": ["pink"]}, "pink")):
        with pytest.raises(TrainingError, match=words):
            scores(**given)


def test_a_classifiers_first_is_the_most_probable_by_however_little(tmp_path: Path) -> None:
    net = small_classifier()
    conv = net.layers[-3].conv
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.copy_(torch.tensor([-2.0008, -2.0002, -2.0004, -9, -9, -9]))
    with StoreWriter(tmp_path / "x.h5", WordTree.flat(list("abcdef"))) as writer:
        for k, label in enumerate((0, 1, 1, 2)):
            one = toys.square_sample(k, boxed=False)
            writer.add(dataclasses.replace(one, image_labels=np.array([label])))
    found = evaluate(net, [Store(tmp_path / "x.h5")], QUICK)["labels"]
    assert (found["top1"], found["top5"]) == (0.5, 1)


def test_an_unsure_answer_is_the_parent(store: Store) -> None:
    # Certain of warm or cold, undecided between the colours: the rule stops above, the greedy walk does not.
    net = Oracle(samples(store))
    net.certainty = 0.0
    result = evaluate(net, [store], EvalSettings(workers=0, resamples=0, tree_threshold=0.3))
    assert result["labels"]["answer_depth"] == 0.0
    assert 0 < result["labels"]["answer"] < 1


def test_objectness_below_the_threshold_is_no_answer(store: Store) -> None:
    settings = EvalSettings(workers=0, resamples=0, threshold=0.999)
    labels = evaluate(Oracle(samples(store)), [store], settings)["labels"]
    assert labels["greedy"] == labels["answer"] == labels["boxed"] == 0.0
    # What is not given is the model's own.
    net = Oracle(samples(store))
    net.defaults = {"threshold": 0.999, "rule": "greedy", "size": [96, 96]}
    assert evaluate(net, [store], EvalSettings(workers=0, resamples=0, size=64))["labels"] == labels
    assert EvalSettings().of_model(net) == EvalSettings(
        size=96, threshold=0.999, rule="greedy", tree_threshold=0.5, vote_iou=1.0, resize="smooth"
    )


def test_pairs_equal_the_dense_way(store: Store) -> None:
    """Scores of (box, node) pairs from a few groups equal objectness x Pr(node) over the whole tree."""
    torch.manual_seed(0)
    held = HeldOut(Oracle([]), [store], QUICK)
    pairs = _Pairs(held, torch.ones(len(toys.TREE)))
    logits = torch.randn(7, len(toys.TREE))
    few = pairs.few.log_probabilities(logits[:, pairs.few.columns].T).exp().T
    dense = held.hierarchy.log_probabilities(held.hierarchy.log_conditionals(logits)).exp()
    torch.testing.assert_close(few, dense[:, list(held.truth.kinds)])


@pytest.mark.parametrize(("width", "height"), [(48, 48), (30, 90), (200, 40), (1, 500)])
def test_letterboxed_boxes_come_back(width: int, height: int) -> None:
    placement = augment.letterbox(width, height, (0, 0, 96, 96))
    boxes = np.array([[0.5, 0.5, 0.4, 0.6], [0.2, 0.8, 0.1, 0.1]], np.float32)
    canvas, _ = augment.carry(boxes, placement, (96, 96))
    found = augment.in_picture(canvas / 96, placement) * [width, height, width, height]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    np.testing.assert_allclose(found, corners * [width, height, width, height], atol=width * height * 1e-4)


def test_a_network_of_another_tree_is_scored_by_ids(store: Store) -> None:
    """Nodes in another order and one unknown: the classes it has score the same, the other 0."""
    other = WordTree(["cold", "warm", "green", "red", "yellow"], [-1, -1, 0, 1, 1])

    class Renamed(Oracle):
        def lazy(self, images: torch.Tensor) -> LazyOutput:
            out = super().lazy(images)
            keep = torch.tensor([toys.TREE.index(i) for i in other.ids])
            weight, bias = out.weight[:, keep], out.bias[:, keep]
            return LazyOutput(out.boxes, out.features, weight, bias, None, len(other), 1)

    net = Renamed(samples(store), tree=other)
    result = evaluate(net, [store], QUICK)
    assert result["boxes"]["unknown"] == ["blue"] and result["boxes"]["per_class"]["blue"] == 0.0
    assert result["boxes"]["per_class"]["red"] == pytest.approx(1.0)
    assert "not in the model's tree" in format_table(result)


def test_crowds_and_difficult_boxes_do_not_count(tmp_path: Path) -> None:
    found = []
    with StoreWriter(tmp_path / "c.h5", toys.TREE) as writer:
        for k in range(6):
            sample = toys.square_sample(2 * k, 48)  # even numbers have one square
            flag = np.array([k < 3])
            sample = Sample(**{**vars(sample), "crowd" if k % 2 else "difficult": flag})
            writer.add(sample)
            found.append(sample)
    result = evaluate(Oracle(found[3:] * 2), [Store(tmp_path / "c.h5")], QUICK)
    # The first three pictures are answered wrongly, which costs nothing only where a box lies on the crowd.
    assert result["boxes"]["truths"] == 6
    assert evaluate(Oracle(found), [Store(tmp_path / "c.h5")], QUICK)["boxes"]["AP50"] == pytest.approx(1.0)


def test_what_cannot_be_scored(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="multiple of the network's stride"):
        evaluate(Oracle([]), [store], EvalSettings(size=60))
    net = Oracle([], tree=WordTree.flat(["a", "b", "c"]))
    net.tree = None
    with pytest.raises(TrainingError, match="3 classes and no tree"):
        evaluate(net, [store], QUICK)
    with StoreWriter(tmp_path / "none.h5", toys.TREE) as writer:
        sample = toys.square_sample(1, 48, boxed=False)
        writer.add(Sample(**{**vars(sample), "image_labels": np.zeros(0, np.int64)}))
    with pytest.raises(TrainingError, match="neither boxes nor labels"):
        evaluate(Oracle([]), [Store(tmp_path / "none.h5")], QUICK)


def test_the_command_prints_a_table_or_json(store: Store, tmp_path: Path) -> None:
    stem = Convolution(4, 3, stride=8)
    conv = Convolution(2 * 11, 1, activation="linear", batch_normalize=False)
    net = Network(NetworkSpec(64, 64, (stem, conv, Region(((1.0, 1.0), (2.0, 2.0)), 6))), toys.TREE)
    save_model(net, tmp_path / "m.safetensors")
    (tmp_path / "groups.json").write_text('{"warm": ["red", "yellow"]}')
    arguments = [
        str(tmp_path / "m.safetensors"),
        "--data",
        str(store.path),
        "--resamples",
        "0",
        "--workers",
        "0",
    ]
    found = CliRunner().invoke(command, [*arguments, "--classes", str(tmp_path / "groups.json")])
    assert found.exit_code == 0 and "warm (2)" in found.output
    result = json.loads(CliRunner().invoke(command, [*arguments, "--json", "--limit", "5"]).output)
    assert result["pictures"] == 5
    page = tmp_path / "report.html"
    told = (
        CliRunner().invoke(command, [*arguments, "--limit", "2", "--html", str(page), "--worst", "0"]).output
    )
    assert f"written to {page}" in told and page.is_file()
    (tmp_path / "groups.json").write_text("[1]")
    with pytest.raises(TrainingError, match="object of lists"):
        CliRunner().invoke(
            command, [*arguments, "--classes", str(tmp_path / "groups.json")], catch_exceptions=False
        )


@pytest.mark.parametrize(
    "words",
    [
        ("--batch", "0"),
        ("--workers", "-1"),
        ("--resamples", "-3"),
        ("--limit", "-5"),
        ("--size", "-32"),
        ("--nms", "3"),
        ("--threshold", "7"),
    ],
)
def test_numbers_that_mean_nothing(words) -> None:
    for program in (command, calibrate.command):
        found = CliRunner().invoke(program, ["m.safetensors", "--data", "x.h5", *words])
        assert found.exit_code == 2 and (words[0] in found.output)


def test_of_a_flat_list_nothing_is_said_along_the_tree() -> None:
    scores = {"AP": 0.1, "AP50": 0.2, "AP75": 0.1, "AR100": 0.3}
    level = {"depth": 0, "nodes": 3, **scores}
    nodes = {"nodes": 3, "leaves": {"nodes": 3, **scores}, "levels": [level], **scores}
    boxes = {"classes": 3, "any_class": scores, "unknown": [], "nodes": nodes, **scores}
    result = {"pictures": 1, "size": 64, "boxes": boxes}
    assert "along the tree" not in format_table(result)
    nodes["levels"] = [level, {**level, "depth": 1}]
    assert "along the tree:" in format_table(result)
    boxes["partial"] = 1
    assert "along the tree, nothing counted that was not looked for:" in format_table(result)


def test_lists_of_classes_are_matched_by_name_whatever_their_order(store: Store, tmp_path: Path) -> None:
    """The same pictures packed with the classes in another order, or with fewer of them, score the same."""

    def packed(names: list[str]) -> Store:
        place = {name: k for k, name in enumerate(names)}
        with StoreWriter(tmp_path / "x.h5", WordTree.flat(names)) as writer:
            for one in samples(store):
                kinds = {
                    field: np.array([place[toys.TREE.ids[k]] for k in getattr(one, field)], np.int64)
                    for field in ("labels", "image_labels")
                }
                writer.add(dataclasses.replace(one, **kinds))
        return Store(tmp_path / "x.h5")

    def scored(data: list[str], names: tuple[str, ...] | None) -> dict:
        net = Oracle(samples(store))
        net.tree, net.names = None, names
        return evaluate(net, [packed(data)], QUICK)

    ids = list(toys.TREE.ids)
    wanted = scored(ids, None)  # nameless: by their order
    assert min(wanted["boxes"]["per_class"].values()) > 0.9 and wanted["labels"]["boxed"] == 1
    for data in (ids, ids[::-1], ["blue", "red", "green", "yellow"]):
        found = scored(data, tuple(ids))
        assert found["boxes"]["per_class"] == wanted["boxes"]["per_class"]
        assert found["labels"]["greedy"] == wanted["labels"]["greedy"]
    # Names against names of another kind, ids for one: the order is all there is.
    assert scored(ids, ("a", "b", "c", "d", "e", "f"))["boxes"]["per_class"] == wanted["boxes"]["per_class"]
    assert scored(ids[::-1], None)["boxes"]["AP50"] < wanted["boxes"]["AP50"]
    with pytest.raises(TrainingError, match="the network has no class 'blue'"):
        scored(ids, ("warm", "cold", "red", "yellow", "green", "azure"))
    with pytest.raises(TrainingError, match="6 classes and no tree; the data's labels are of another list"):
        scored(ids[2:], None)
