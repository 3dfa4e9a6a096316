"""The graph that is exported, run by PyTorch as it is: walks, suppression and the whole against the detector
and its parts."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.exported import assert_same, fit, passing
from tests.yolo9000.small import (
    FORMS,
    STORED,
    TREE,
    constant_detector,
    detector_spec,
    picture,
    small_detector,
)
from tests.yolo9000.trees import random_tree
from wordtree import WordTree
from yolo9000.descent import RULES, descend
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.export.graph import OUTPUTS, DetectorGraph, RawGraph
from yolo9000.export.suppress import suppress
from yolo9000.export.walks import Walker
from yolo9000.hierarchy import Hierarchy
from yolo9000.network import Network
from yolo9000.options import SCORES
from yolo9000.spec import Region
from yolo9000.suppression import MODES, nms
from yolo9000.temperature import temper

SHAPES = [(90, 60), (60, 90), (64, 64), (1, 500), (700, 3), (33, 57)]


def pictures() -> list[np.ndarray]:
    return [np.asarray(picture(i, *shape)) for i, shape in enumerate(SHAPES)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(RULES), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.booleans()
)
def test_walks_equal_descents(seed, rule, threshold, warm):
    random = np.random.default_rng(seed)
    tree = random_tree(random, int(random.integers(0, 12)))
    stored = np.sort(random.choice(len(tree), int(random.integers(1, len(tree) + 1)), replace=False))
    logits = torch.from_numpy(random.normal(0, 3, (7, len(stored))).astype(np.float32))
    logits[0] *= 1000  # as sure as can be
    hierarchy = Hierarchy(tree)
    full = torch.full((7, len(tree)), -torch.inf)
    full[:, stored] = logits
    conditionals = hierarchy.log_conditionals(full)
    temperatures = (2.0, 0.5) if warm else ()
    expected = descend(hierarchy, temper(hierarchy, conditionals, temperatures), rule, threshold)
    walk = Walker(tree, torch.from_numpy(stored), rule, threshold, temperatures)(logits)
    nodes = walk.path.gather(1, walk.depth[:, None])[:, 0]
    assert torch.equal(nodes, expected.nodes)
    for i, node in enumerate(nodes.tolist()):
        path = list(tree.path_nodes(node))
        assert walk.path[i, : len(path)].tolist() == path
        assert (walk.path[i, len(path) :] == -1).all()
        ours, theirs = walk.log_path[i, : len(path)].exp(), expected.log_path[i, : len(path)].exp()
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_tree_that_is_too_deep_is_refused():
    deep = WordTree([str(k) for k in range(65)], [*range(-1, 64)])
    with pytest.raises(ModelError, match="65 levels"):
        Walker(deep, None, "greedy", 0.5)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(MODES),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.booleans(),
    st.booleans(),
)
def test_suppression_equals_nms(seed, mode, iou, with_evidence, ties):
    random = np.random.default_rng(seed)
    tree = random_tree(random, 8)
    levels = int(np.max(tree.depths)) + 1
    count = int(random.integers(1, 25))
    corners = random.uniform(0, 3, (count, 2, 2)).astype(np.float32)
    boxes = np.concatenate((corners.min(1), corners.max(1) + 2), 1)
    nodes = random.integers(0, len(tree), count)
    shares = np.sort(random.uniform(0, 1, (count, levels)).astype(np.float32), axis=1)[:, ::-1]
    objectness = random.choice([0.5, 0.75], count) if ties else random.uniform(0, 1, count)
    evidence = (objectness[:, None] * shares).astype(np.float32)
    depth = np.array([tree.depth(int(k)) for k in nodes])
    scores = evidence[np.arange(count), depth]
    paths = np.full((count, levels), -1)
    for i, node in enumerate(nodes):
        paths[i, : depth[i] + 1] = tree.path_nodes(int(node))
    picture = np.sort(random.integers(0, 2, count))
    valid = random.random(count) < 0.8
    expected = np.zeros(count, dtype=bool)
    for which in (0, 1):
        rows = np.flatnonzero((picture == which) & valid)
        # The detector's table begins with "something" and has nothing below the node.
        table = np.concatenate((objectness[:, None].astype(np.float32), evidence), 1)[rows]
        table = np.where(np.arange(levels + 1) <= 1 + depth[rows][:, None], table, np.nan)
        kept = nms(
            boxes[rows], scores[rows], nodes[rows], iou, mode, tree.parents, table if with_evidence else None
        )
        expected[rows[kept]] = True
    ours = suppress(
        *(torch.from_numpy(part) for part in (boxes, scores, picture, paths, depth)),
        torch.from_numpy(evidence) if with_evidence else None,
        torch.from_numpy(valid),
        iou=iou,
        mode=mode,
    )
    assert np.array_equal(ours.numpy(), expected)


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return {form: Detector(small_detector(form), precision="float32") for form in FORMS}


def check(detector: Detector, size=None, candidates=4096, **given) -> dict[str, np.ndarray]:
    """The graph finds what the detector finds on all pictures at once."""
    options = detector.options(**given)
    size = size or detector.size
    graph = DetectorGraph(detector, options, size, len(SHAPES), candidates)
    with torch.inference_mode():
        outputs = graph(*map(torch.from_numpy, fit(detector, pictures(), size)))
    outputs = dict(zip(OUTPUTS, (output.numpy() for output in outputs), strict=True))
    detector.size, before = size, detector.size
    expected = [detector.find(one, options) for one in pictures()]
    detector.size = before
    assert_same(outputs, expected, passed=passing(detector, pictures(), options, size))
    return outputs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_equals_the_detector(form, rule, detectors):
    if (form, rule) == ("flat", "darknet"):
        pytest.skip("answers several classes a box; refused, see below")
    outputs = check(detectors[form], rule=rule, threshold=0.3, tree_threshold=0.4)
    assert len(outputs["scores"]) > 30


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("score", SCORES)
def test_scores_and_suppression(mode, score, detectors):
    check(detectors["rows"], nms=mode, score=score, nms_iou=0.2, threshold=0.2, tree_threshold=0.3)


@pytest.mark.parametrize(
    "given",
    [
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"clip": False},
        {"max_detections": 1},
        {"max_detections": 3, "nms": "none"},
        {"size": (96, 64)},
        {"tree_threshold": 0.0},
        {"tree_threshold": 1.0},
        {"vote_iou": 0.5},
        {"vote_iou": 0.0, "nms": "none"},
    ],
    ids=str,
)
def test_options(given, detectors):
    check(detectors["shared"], **given)


def test_temperatures_and_darknets_letterbox():
    net = small_detector("rows")
    net.defaults = {"temperatures": [2.0, 0.5], "resize": "darknet"}
    check(Detector(net, precision="float32"), tree_threshold=0.3)


def test_a_last_convolution_that_is_not_1x1_runs_dense():
    spec = detector_spec("darknet")
    last = dataclasses.replace(spec.layers[-2], size=3, padding=1)
    net = Network(dataclasses.replace(spec, layers=(*spec.layers[:-2], last, spec.layers[-1])), TREE).eval()
    detector = Detector(net, precision="float32")
    assert not detector.lazy
    check(detector, threshold=0.1)


def test_fewer_candidates_are_the_best_and_the_count_says_so(detectors):
    detector = detectors["stored"]
    options = detector.options(threshold=0.2, nms="none", rule="greedy", score="objectness")
    graph = DetectorGraph(detector, options, detector.size, 1, 7)
    one = pictures()[0]
    found = detector.find(one, options)
    assert len(found) > 7
    with torch.inference_mode():
        outputs = graph(*map(torch.from_numpy, fit(detector, [one])))
    boxes, scores, nodes, *_, passed = (output.numpy() for output in outputs)
    assert passed.tolist() == passing(detector, [one], options)
    # A candidate may lie outside the picture, so that up to 7 are left.
    assert 0 < len(scores) <= 7 and np.allclose(scores, found.scores[: len(scores)], atol=1e-6)
    assert np.array_equal(nodes, found.nodes[: len(nodes)])
    assert np.allclose(boxes, found.boxes_xyxy[: len(boxes)], atol=1e-2)


def test_boxes_that_are_not_finite_are_left_out():
    net = constant_detector([0.0, 0.0, 3.0, 3.0, 5.0, 1.0, 2.0])
    detector = Detector(net, precision="float32")
    graph = DetectorGraph(detector, detector.options(), detector.size, 1, 512)
    images, sizes = map(torch.from_numpy, fit(detector, pictures()[:1]))
    assert len(graph(images, sizes)[0]) == len(detector(pictures()[0])) > 0
    images[:] = torch.nan
    outputs = graph(images, sizes)
    assert len(outputs[0]) == 0 and outputs[-1].tolist() == [0]


@pytest.mark.parametrize("form", FORMS)
def test_raw_equals_the_network(form, detectors):
    detector = detectors[form]
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = RawGraph(detector)(images), detector.net(images)
    assert torch.allclose(ours, theirs, atol=1e-4)
    missing = len(TREE) - len(STORED) if form == "stored" else 0
    assert int(torch.isneginf(ours).sum()) == missing * 2 * 2 * 8 * 12


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rule": "hedge", "hedge_lambda": 1.0}, "rule 'hedge' cannot be exported"),
        ({"rule": "level", "level": 1}, "rule 'level' cannot be exported"),
    ],
    ids=str,
)
def test_what_has_no_graph_is_refused(given, told, detectors):
    detector = detectors["rows"]
    with pytest.raises(ModelError, match=told):
        DetectorGraph(detector, detector.options(**given), detector.size, 1, 512)


def test_darknets_rule_on_a_flat_list_and_maps_are_refused(detectors):
    flat = detectors["flat"]
    with pytest.raises(ModelError, match="several classes"):
        DetectorGraph(flat, flat.options(rule="darknet"), flat.size, 1, 512)
    net = small_detector("rows")
    net.class_map = torch.tensor([3, 4])
    mapped = Detector(net, precision="float32")
    with pytest.raises(ModelError, match="map"):
        DetectorGraph(mapped, mapped.options(mapped=True), mapped.size, 1, 512)
    with pytest.raises(ModelError, match="at least 1 candidate"):
        DetectorGraph(flat, flat.options(), flat.size, 1, 0)


def test_a_network_of_one_class():
    spec = dataclasses.replace(detector_spec("flat"))
    layers = (
        *spec.layers[:-2],
        dataclasses.replace(spec.layers[-2], filters=12),
        Region(((1, 2), (3, 2)), 1),
    )
    torch.manual_seed(0)
    detector = Detector(Network(dataclasses.replace(spec, layers=layers)).eval(), precision="float32")
    check(detector, threshold=0.3)
