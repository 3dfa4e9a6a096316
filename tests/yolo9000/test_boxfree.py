"""scripts/boxfree_scores.py and the tables of scripts/bench_boxfree, on known answers."""

import importlib.machinery
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from wordtree import WordTree
from yolo9000 import presets
from yolo9000.config import load_config
from yolo9000.distill import copy_class_rows
from yolo9000.head import LazyOutput
from yolo9000.heldout import EvalSettings
from yolo9000.hierarchy import Hierarchy
from yolo9000.network import Network
from yolo9000.node_pairs import node_shares
from yolo9000.spec import LogSumExp

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TREE = WordTree(["a", "b", "a1", "a2", "b1", "b2", "a21"], [-1, -1, 0, 0, 1, 1, 3])


def load(name: str) -> ModuleType:
    """A script as a module."""
    loader = importlib.machinery.SourceFileLoader(f"scripts_{Path(name).stem}", str(SCRIPTS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


scores, bench = load("boxfree_scores.py"), load("bench_boxfree")


def picture(box: list[float], probability: list[float], truth: int, **changes: object):
    """One object at (10, 10, 30, 30), one box with objectness 0.8."""
    of = scores.Candidates(
        np.array([box], float),
        np.array([0.8]),
        np.array([probability]),
        np.zeros((1, 0)),
        np.array([[10.0, 10, 30, 30]]),
        np.array([truth]),
    )
    return replace(of, **changes)


def test_each_thing_given_mends_its_own_fault() -> None:
    right, near, far = [10, 10, 30, 30], [18, 18, 38, 38], [50, 50, 70, 70]
    named, misnamed = [0.9, 0.1], [0.1, 0.9]
    surer_elsewhere = replace(
        picture(right, named, 0),
        boxes_xyxy=np.array([right, far], float),
        objectness=np.array([0.2, 0.9]),
        probability=np.array([named, named]),
    )
    without_object = replace(picture(far, [0.5, 0.5], 0), truth=np.zeros(0, int), truth_xyxy=np.zeros((0, 4)))
    faults = {  # of a kind that the truth of one thing mends -> pictures, AP50 as they are
        "as it is": ([picture(right, named, 0)], 1.0),
        "boxes given": ([picture(near, named, 0)], 0.0),
        "names given": ([picture(right, misnamed, 0), without_object], 0.5),
        "objectness given": ([surer_elsewhere], 0.5),
    }
    for fault, (pictures, before) in faults.items():
        for name, given in scores.GIVEN.items():
            if (fault, name) == ("names given", "objectness given"):
                continue  # the picture without the object has no right box, so it is mended as well
            found = scores.ap50(pictures, {"all": [0]}, given, EvalSettings())["all"]
            assert found == pytest.approx(1.0 if name == fault else before, abs=0.01), (fault, name)


def test_what_is_given_is_given_at_the_nearest_object() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (40, 2))], axis=1)
    truth = boxes[:3] + rng.uniform(-3, 3, (3, 4))
    all_of = scores.Candidates(
        boxes, rng.random(40), rng.random((40, 5)), np.zeros((40, 0)), truth, np.arange(3)
    )

    def iou(a, b):
        w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    for k, box in enumerate(boxes):
        overlaps = [iou(box, t) for t in truth]
        best, most = int(np.argmax(overlaps)), max(overlaps)
        moved = scores.boxes_given(all_of).boxes_xyxy[k]
        assert np.array_equal(moved, truth[best] if most >= 0.1 else box)
        named = scores.names_given(all_of).probability[k]
        assert np.array_equal(named, np.eye(5)[best] if most >= 0.5 else all_of.probability[k])
        assert scores.objectness_given(all_of).objectness[k] == (most >= 0.5)
    nothing = replace(all_of, truth_xyxy=np.zeros((0, 4)), truth=np.zeros(0, int))
    assert np.array_equal(scores.boxes_given(nothing).boxes_xyxy, boxes)
    assert not scores.objectness_given(nothing).objectness.any()


def test_parents_are_those_of_the_classes() -> None:
    above, parents = scores.parents_above(["a1", "a21", "b1"], TREE)
    assert parents == ["a", "b", "a2"]
    assert above.tolist() == [[True, False, False], [True, False, True], [False, True, False]]
    assert scores.parents_above(["a", "b"], TREE)[1] == []


def test_one_level_up_takes_a_sibling_for_the_class_and_leaves_other_groups_alone() -> None:
    above = np.array([[True, False], [True, False], [False, True]])  # classes 0 and 1 below one parent
    box, wrong = [10, 10, 30, 30], [0.05, 0.9, 0.05]
    mistaken = picture(box, wrong, 0, parents=np.array([[0.95, 0.05]]))
    pictures = [mistaken, picture(box, [0.1, 0.85, 0.05], 1, parents=np.array([[0.99, 0.01]]))]
    groups = {"first": [0], "second": [1, 2]}
    up = scores.ap50_above(pictures, groups, above, EvalSettings())
    # The surer box lies on an object of the other group: it counts neither way for the first.
    assert up["first"] == pytest.approx(1.0)
    below = scores.ap50(pictures, groups, scores.GIVEN["as it is"], EvalSettings())
    assert below["first"] < 0.6


@pytest.mark.parametrize("shared", [True, False])
def test_shares_of_chosen_boxes_equal_those_of_all(shared: bool) -> None:
    torch.manual_seed(0)
    hierarchy, sets = Hierarchy(TREE), 1 if shared else 3
    shapes = [(2, 15, 3, 4), (2, 6, 3, 4), (sets, 7, 6), (sets, 7)]
    out = LazyOutput(*(torch.randn(shape) for shape in shapes), None, 7, 3)
    at = tuple(torch.randint(0, high, (50,)) for high in (2, 3, 3, 4))
    nodes = torch.tensor([4, 6, 1])
    dense = out.dense().unflatten(1, (3, 12))[:, :, 5:]  # (N, A, C, H, W)
    logs = hierarchy.log_probabilities(hierarchy.log_conditionals(dense, dim=2), dim=2)
    expected = logs.exp()[at[0], at[1], :, at[2], at[3]][:, nodes]
    torch.testing.assert_close(node_shares(hierarchy.restrict(nodes), out, at), expected)
    empty = tuple(index[:0] for index in at)
    assert node_shares(hierarchy.restrict(nodes), out, empty).shape == (0, 3)


def test_a_flat_list_begins_as_the_classifier() -> None:
    """Without inner nodes there are no sums of evidence, and the class rows are the classifier's."""
    flat = WordTree.flat(["x", "y", "z"])
    classifier = Network(presets.tiny_darknet(3, image_size=64))
    for parameter in classifier.layers[-3].parameters():
        torch.nn.init.normal_(parameter)
    net = Network(presets.tiny9000(flat, known=(0, 1, 2), neck=8, branch=8, image_size=64), flat)
    assert not any(isinstance(layer, LogSumExp) for layer in net.spec)
    assert copy_class_rows(classifier, [2, 0, 1], net, flat) == 3
    convolution = dict(classifier.layers[-3].named_parameters())
    weight = next(p for p in convolution.values() if p.dim() == 4)[:, :, 0, 0]
    assert torch.equal(net.layers[-1].rows.weight[0, [2, 0, 1]], weight)


def figures(free: float, boxed: float = 0.3, **more: object) -> dict:
    entry = {"AP50_interval": [0.1, 0.4]}
    halves = {"boxed": {"AP50": boxed} | entry, "box_free": {"AP50": free} | entry}
    return {"images": 64, "any_class": {"AP50": 0.5} | entry} | halves | more


def test_a_flat_list_learns_at_the_same_rates() -> None:
    """Its class rows stand where the tree's sums of evidence do; the trunk's rates stay."""
    config = load_config("tiny-joint-trunk", ("model.trunk=tiny",)).optimiser.scales
    given = '{ "layers.[0-9]." = 0.1, "layers.44." = 0.3, "layers.46." = 0.2 }'
    assert bench.flat_rates(["images=7"]) == [
        "images=7",
        f'optimiser.scales={{ "layers.44." = {config["layers.46."]} }}',
    ]
    rates = '{ "layers.[0-9]." = 0.1, "layers.44." = 0.2 }'
    assert bench.flat_rates([f"optimiser.scales={given}", "seed=1"]) == [
        "seed=1",
        f"optimiser.scales={rates}",
    ]


def test_tables_are_means_over_seeds_and_shares_of_the_same_seed(tmp_path: Path) -> None:
    given = {"as it is": {"box_free": 0.2, "boxed": 0}, "one level up": {"box_free": 0.25, "boxed": 0.35}}
    runs = {
        "none": {"0": figures(0.18, given=given), "2": figures(0.3)},
        "boxed": {"0": figures(0.2), "1": figures(0.3)},
        "paper": {"1": figures(0.15, 0.2)},
        "flat": {"1": figures(0.5)},  # no fully boxed one of its kind
    }
    bench.write("trunk", runs, tmp_path, ("images=64",))
    bench.write("scratch", {"darknet": {"3": figures(0.1)}}, tmp_path, ())
    text = (tmp_path / "boxfree.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:2] == "| "
    ]
    runs_in_order = ("boxed", "none", "paper", "flat")
    wide = {row[0]: row for row in rows if len(row) == 10}
    boxed, none, paper, flat = (wide[bench.RUNS[name][-1]] for name in runs_in_order)
    assert boxed[1] == "2" and boxed[5] == "0.250 ± 0.071" and boxed[6] == "1.000 ± 0.000"
    assert none[5] == "0.240 ± 0.085" and none[6] == "0.900"  # only seed 0 has both
    assert none[7:9] == ["0.350", "0.250"] and paper[7:9] == ["-", "-"]
    assert paper[5] == "0.150 (0.100 to 0.400)" and paper[4] == "0.667" and paper[6] == "0.500"
    assert flat[5][:5] == "0.500" and flat[4] == flat[6] == "-"
    assert wide[bench.RUNS["darknet"][-1]][6] == "-"
    assert "objectness left alone) reaches 0.900 of" in text
    assert "--start trunk --set images=64 --seed 0 --seed 1 --seed 2`" in text and "--seed 3`" in text
    assert [bench.RUNS["none"][-1], "1", "0.200"] in rows
    bench.write("trunk", {"flat": {"0": figures(0.4), "1": figures(0.45)}}, tmp_path, ("images=64",))
    bench.write("classes", {"boxed": runs["boxed"]}, tmp_path, ("images=64",), "other")
    kept = json.loads((tmp_path / "boxfree.json").read_text())
    assert list(kept) == ["trunk images=64", "scratch", "classes other images=64"]
    assert kept["trunk images=64"]["runs"] == {  # measured again: replaced; all else stays
        **runs,
        "flat": {"0": figures(0.4), "1": figures(0.45)},
    }
    assert list(kept["trunk images=64"]["runs"]) == ["boxed", "none", "paper", "flat"]
    text = (tmp_path / "boxfree.md").read_text()
    command = "--start classes --classifier other --set images=64 --seed 0 --seed 1`"
    assert f"`scripts/bench_boxfree {command}" in text


def test_the_best_that_keeps_the_boxed_half_is_named_too() -> None:
    runs = {
        "boxed": {"0": figures(0.2, 0.3)},
        "none": {"0": figures(0.19, 0.28)},
        "mostly": {"0": figures(0.18, 0.3)},
        "paper": {"0": figures(0.17, 0.31)},
    }
    text = " ".join(bench.table_lines({"runs": runs, "settings": [], "start": "trunk"}))
    assert "(joint, objectness left alone) reaches 0.950 of the fully boxed model's AP50" in text
    assert text.endswith("the best (joint, three boxed pictures to one labelled) reaches 0.900 and 1.000.")
    del runs["mostly"], runs["paper"]
    assert "Of those that lose" not in " ".join(
        bench.table_lines({"runs": runs, "settings": [], "start": "trunk"})
    )


def test_every_start_has_its_configurations() -> None:
    for start, (_, suffix, size, _) in bench.STARTS.items():
        trunk = ("model.trunk=somewhere",) if suffix else ()
        for name, (config, _, changes, _) in bench.RUNS.items():
            if start in bench.ONLY_FOR.get(name, bench.STARTS):
                given = [f"{key}={value}" for key, value in changes.items()]
                assert load_config(f"tiny-{config}{suffix}", (*given, *trunk)).input.sizes == (size,)
