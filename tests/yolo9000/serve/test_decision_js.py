"""The page chooses nodes and suppresses boxes in JavaScript: it must come to what Python comes to."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import yolo9000.serve
from tests.yolo9000.serve.running import picture
from tests.yolo9000.small import TREE, small_detector
from wordtree import WordTree
from yolo9000 import Detector, cuts, descent, suppression
from yolo9000.hierarchy import Hierarchy
from yolo9000.serve.answers import Answerer, Question

STATIC = Path(yolo9000.serve.__file__).parent / "static"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None, reason="node is not installed: the page's arithmetic was not run"
)

_RUN = """
import { readFileSync } from "node:fs";
const js = await import(process.argv[1]);
const { parents, cases } = JSON.parse(readFileSync(0, "utf8"), (_, v) => (v === "-inf" ? -Infinity : v));
const tree = js.treeOf(parents);
const out = cases.map((c) => {
  if (c.kind === "walk") return js.walk(tree, Float32Array.from(c.logs), c.threshold);
  if (c.kind === "vocabulary") {
    return js.inVocabulary(tree, js.cutOf(tree, c.listed), Float32Array.from(c.logs), c.threshold);
  }
  if (c.kind === "iou") return js.iou(c.a, c.b);
  return js.decide(tree, c.picture, js.readCandidates(c.candidates), c.choice);
});
console.log(JSON.stringify(out, (_, v) => (v === -Infinity ? "-inf" : v)));
"""


def in_node(parents, cases: list[dict]) -> list:
    given = json.dumps({"parents": list(map(int, parents)), "cases": cases})
    command = [NODE, "--input-type=module", "-e", _RUN, (STATIC / "decision.js").as_uri()]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_json(values) -> list:
    return ["-inf" if value == -np.inf else float(value) for value in values]


def random_tree(rng: np.random.Generator, n: int) -> WordTree:
    from wordtree.layout import preorder

    parents = {f"n{i}": (f"n{rng.integers(0, i)}" if i >= 3 else None) for i in range(n)}
    ids, above = preorder(parents)
    return WordTree(ids, above)


def random_logs(rng: np.random.Generator, hierarchy: Hierarchy, count: int, missing: float) -> torch.Tensor:
    logits = torch.from_numpy(rng.normal(0, 3, (count, len(hierarchy))).astype(np.float32))
    logits[torch.from_numpy(rng.random(logits.shape) < missing)] = -torch.inf
    return hierarchy.log_conditionals(logits)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("missing", [0, 0.3])
def test_walks_and_vocabularies_are_those_of_python(seed, missing):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, int(rng.integers(4, 60)))
    hierarchy = Hierarchy(tree)
    logs = random_logs(rng, hierarchy, 12, missing)
    cases, wanted = [], []
    for threshold in (0.0, 0.1, 0.5, 0.9, 1.0):
        answer = descent.descend(hierarchy, logs, "threshold", threshold)
        listed = rng.choice(len(tree), int(rng.integers(1, len(tree))), replace=False)
        cut = cuts.Cut.of(hierarchy, listed)
        nodes, given = cuts.in_vocabulary(cut, hierarchy.log_probabilities(logs), threshold)
        for row in range(len(logs)):
            values = {"logs": as_json(logs[row]), "threshold": threshold}
            path = answer.log_path[row]
            cases.append({"kind": "walk", **values})
            wanted.append((int(answer.nodes[row]), as_json(path[~path.isnan()])))
            cases.append({"kind": "vocabulary", "listed": listed.tolist(), **values})
            wanted.append((int(nodes[row]), given[row].item()))
    for found, case, (node, value) in zip(in_node(tree.parents, cases), cases, wanted, strict=True):
        assert found["node"] == node
        if case["kind"] == "walk":
            assert found["logPath"] == value  # to the last bit
        elif node >= 0:
            assert found["logGiven"] == pytest.approx(value, abs=1e-5)


def test_overlaps_are_those_of_python():
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(-20, 60, (60, 2, 2)), axis=1).reshape(60, 4)  # (60, 2, 2) -> (60, 4)
    boxes[::7] = boxes[::7][:, [0, 1, 0, 1]]  # without area
    cases = [
        {"kind": "iou", "a": a.tolist(), "b": b.tolist()} for a, b in zip(boxes, boxes[::-1], strict=True)
    ]
    found = in_node([-1], cases)
    for value, case in zip(found, cases, strict=True):
        kept = suppression.nms(
            np.array([case["a"], case["b"]]), np.array([2, 1]), np.array([0, 0]), 0.1, "class"
        )
        assert (value > 0.1) == (len(kept) == 1)


CHOICES = [
    {},
    {"tree_threshold": 0.0},
    {"tree_threshold": 0.99},
    {"threshold": 0.6},
    {"threshold": 0.99, "tree_threshold": 0.3},
    {"nms": "class"},
    {"nms": "agnostic", "nms_iou": 0.1},
    {"nms": "none"},
    {"nms_iou": 0.0},
    {"max_detections": 3},
    {"clip": False},
    {"vocabulary": (0, 3, 7)},
    {"vocabulary": (7, 8), "tree_threshold": 0.1},
    {"vocabulary": (0, 1, 2, 3, 4, 5), "tree_threshold": 0.0, "threshold": 0.4},
    {"vocabulary": (4, 6)},
]


@pytest.mark.parametrize(
    ("form", "seed", "defaults"),
    [
        ("darknet", 0, {}),
        ("stored", 1, {}),
        ("flat", 1, {}),
        ("darknet", 1, {"temperatures": (2.5, 0.5)}),  # a calibrated model's
        ("stored", 0, {"tree_threshold": 0.8, "nms": "class", "size": (96, 64)}),
    ],
)
def test_the_page_answers_what_the_detector_answers(form, seed, defaults):
    net = small_detector(form, seed)
    net.defaults = defaults
    detector = Detector(net, precision="float32")
    answerer = Answerer(detector, "m", 1000)
    pixels = np.asarray(picture(seed, 90, 60))
    image, box = answerer.fit(pixels, (90, 60))
    floor = 0.1
    record = answerer([Question(image, box, detector.options(threshold=0.3), floor)])[0]
    choices = [c for c in CHOICES if form != "flat" or max(c.get("vocabulary", (0,))) < 6]
    cases, wanted = [], []
    for choice in choices:
        options = detector.options(**{"threshold": 0.3, **choice})
        wanted.append(detector.find(pixels, options))
        cases.append(
            {
                "kind": "decide",
                "picture": {"width": 90, "height": 60},
                "candidates": record["candidates"],
                "choice": {
                    "threshold": options.threshold,
                    "treeThreshold": options.tree_threshold,
                    "nms": options.nms,
                    "nmsIou": options.nms_iou,
                    "clip": options.clip,
                    "most": options.max_detections,
                    "vocabulary": choice.get("vocabulary"),
                },
            }
        )
    answered = 0
    for mine, found, choice in zip(in_node(detector.tree.parents, cases), wanted, choices, strict=True):
        assert len(mine) == len(found), choice
        answered += len(found)
        # Scores that differ in the last bit may change places.
        mine.sort(key=lambda one: (one["node"], [round(v, 2) for v in one["box"]]))
        order = sorted(
            range(len(found)),
            key=lambda k: (found.nodes[k], [round(float(v), 2) for v in found.boxes_xyxy[k]]),
        )
        for one, k in zip(mine, order, strict=True):
            assert one["node"] == found.nodes[k], choice
            assert one["box"] == pytest.approx(found.boxes_xyxy[k].tolist(), rel=1e-6, abs=1e-3)
            assert one["score"] == pytest.approx(float(found.scores[k]), rel=1e-5, abs=1e-12)
            assert one["probabilities"] == pytest.approx(found.path_probabilities[k], rel=1e-5, abs=1e-12)
            if one["given"] is not None:
                assert one["given"] == pytest.approx(float(found.conditionals[k]), abs=1e-5)
    assert answered > 20


def test_a_threshold_below_the_floor_is_the_floor():
    candidates = {
        "floor": 0.5,
        "nodes": len(TREE),
        "boxes_xyxy": [],
        "objectness": [],
        "log_conditionals": "",
    }
    choice = {"threshold": 0.1, "treeThreshold": 0.5, "nms": "none", "nmsIou": 0.4, "clip": True, "most": 9}
    case = {
        "kind": "decide",
        "picture": {"width": 5, "height": 5},
        "candidates": candidates,
        "choice": choice,
    }
    assert in_node(TREE.parents, [case]) == [[]]
