"""Rules as a detector applies them: lazy as dense, options and their refusals, temperatures."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.small import FORMS, TREE, picture, small_detector
from tests.yolo9000.trees import random_conditionals, random_tree
from yolo9000 import cuts, decision, descent, hedging
from yolo9000.cli import detect
from yolo9000.conditionals import DenseConditionals, Looks
from yolo9000.decision import Decision
from yolo9000.descent import descend
from yolo9000.detections import SOMETHING, Detections
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.options import SCORES, Options, check_defaults
from yolo9000.temperature import TemperedConditionals, fit_temperatures, kept_temperatures, temper

CHOICES = {
    "depth": {"rule": "level", "level": 1},
    "cut": {"rule": "level", "level": ["animal", "car"]},
    "vocabulary": {"rule": "vocabulary", "vocabulary": ["dog", "husky", "vehicle"]},
    "hedge": {"rule": "hedge", "hedge_lambda": 2.0},
    "softened": {"rule": "threshold", "temperatures": [3.0, 0.5]},
}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "flat"])
@pytest.mark.parametrize("choice", CHOICES)
def test_lazy_equals_dense(form, choice):
    detector = Detector(small_detector(form), precision="float32")
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    options = detector.options(threshold=0.3, **CHOICES[choice])
    lazy = detector.candidates(detector.run(images), options)
    with torch.inference_mode():
        dense = detector.candidates(detector.net(images), options)
    assert len(lazy.node) > 10 and torch.equal(lazy.node, dense.node)
    assert torch.allclose(lazy.score, dense.score, atol=2e-5, rtol=1e-4)
    assert torch.allclose(lazy.log_given.exp(), dense.log_given.exp(), atol=1e-4)
    allowed = {"cut": {0, 5}, "vocabulary": {1, 3, 7}}.get(choice)
    assert allowed is None or set(lazy.node.tolist()) <= allowed


def test_scores_are_what_they_are_called():
    detector = Detector(small_detector("darknet"), precision="float32")
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    for choice in CHOICES.values():
        for score in SCORES:
            chosen = {k: v for k, v in choice.items() if k != "temperatures"}
            found = detector(image, threshold=0.1, nms="none", score=score, **chosen)
            other = {"objectness": 1.0, "absolute": found.probabilities, "conditional": found.conditionals}
            assert len(found) and np.allclose(found.scores, found.objectness * other[score], atol=1e-5)
    # Where nodes are listed, "conditional" is among them; elsewhere it is the last step of the path.
    found = detector(image, threshold=0.1, vocabulary=["dog", "cat"])
    assert (found.conditionals >= found.probabilities - 1e-6).all() and {3, 4} >= set(found.nodes.tolist())
    found = detector(image, threshold=0.1)
    for one in found:
        steps = [1.0, *one.path_probabilities]
        assert one.conditional == pytest.approx(steps[-1] / steps[-2], rel=1e-4)


def test_over_mapped_classes_darknets_rule_scores_as_the_others():
    net = small_detector("darknet")
    net.class_map = torch.tensor([3, 6, 2])
    detector = Detector(net, precision="float32")
    found, other = (
        detector(picture(), mapped=True, rule=rule, threshold=0.05, nms="none")
        for rule in ("darknet", "threshold")
    )
    assert len(found) and np.array_equal(found.scores, other.scores)
    assert not np.allclose(found.scores, found.objectness)


def test_something():
    """A hedge that must be right says that something is there; it is reported, drawn and written."""
    detector = Detector(small_detector("darknet"), precision="float32")
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    found = detector(image, threshold=0.1, hedge_lambda=1e11)
    assert len(found) and set(found.names) == {SOMETHING} and set(found.nodes.tolist()) == {-1}
    assert np.allclose(found.scores, found.objectness) and found[0].path == ()
    assert Detections.from_dict(found.to_dict()).nodes.tolist() == found.nodes.tolist()
    assert found.to_dict()["detections"][0]["id"] is None and found.to_coco(1) == []
    assert found.draw().size == (90, 60) and SOMETHING in detect.table(found)


def test_the_rule_is_asked_for_by_what_only_it_takes():
    detector = Detector(small_detector("darknet"), precision="float32")
    assert detector.options().rule == "threshold"
    assert detector.options(level=1).rule == "level"
    one, other = (detector(picture(), threshold=0.3, level=level) for level in (1, np.int64(1)))
    assert len(one) and one.paths == other.paths
    assert detector.options(vocabulary=["dog"]).rule == "vocabulary"
    assert detector.options(hedge_lambda=1.0).rule == "hedge"
    detector.defaults["lambdas"] = {"0.8": 0.5, "0.9": 4.0}
    assert detector.options(accuracy=0.8).chosen_lambda == 0.5
    assert detector.options(accuracy=0.85).chosen_lambda == detector.options(rule="hedge").chosen_lambda == 4
    with pytest.raises(ValueError, match=r"up to 0\.9, not for 0\.95"):
        detector.options(accuracy=0.95)
    with pytest.raises(ValueError, match="husky dog"):
        detector.options(vocabulary=["husky dog"])


def test_impossible_options():
    for bad, words in (
        ({"rule": "level"}, "needs level="),
        ({"rule": "vocabulary"}, "needs vocabulary="),
        ({"rule": "hedge"}, "yolo9000 calibrate"),
        ({"level": -1}, "from 0 on"),
        ({"level": 1.5}, "level is"),
        ({"level": True}, "level is"),
        ({"vocabulary": 3}, "vocabulary is"),
        ({"vocabulary": [1.5]}, "vocabulary is"),
        ({"accuracy": 1.5}, "accuracy"),
        ({"hedge_lambda": math.nan}, "hedge_lambda"),
        ({"lambdas": [1]}, "lambdas"),
        ({"lambdas": {"x": 1}}, "lambdas"),
        ({"lambdas": {"0.9": -1}}, "lambdas"),
        ({"temperatures": [0]}, "temperatures"),
        ({"temperatures": "hot"}, "temperatures"),
        ({"score": "best"}, "score is one of"),
    ):
        with pytest.raises(ValueError, match=words):
            Options(**bad)
        with pytest.raises(ModelError):
            check_defaults(bad)
    check_defaults({"lambdas": {"0.9": 3.5}, "temperatures": [1.2, 1], "score": "objectness"})


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 15),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_decision_is_its_pure_function(seed, groups, missing, few):
    """few: the share of the tree up to which only what the rule looks at is computed."""
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, logs = random_conditionals(random, tree, 4, missing)
    absolute = hierarchy.log_probabilities(logs)
    listed = random.permutation(len(tree))[: int(random.integers(1, len(tree) + 1))].tolist()
    cut = cuts.Cut.of(hierarchy, listed)
    depth = [0, 1, 2, 3, 10**30][int(random.integers(0, 5))]
    expected = [
        ("level", cuts.at_cut(cut, absolute)[0], {"level": listed}),
        ("level", cuts.at_depth(hierarchy, absolute, depth), {"level": depth}),
        ("vocabulary", cuts.in_vocabulary(cut, absolute, 0.4)[0], {"vocabulary": listed}),
        ("hedge", hedging.hedge(hierarchy, absolute, 1.5), {"hedge_lambda": 1.5}),
        *((rule, descend(hierarchy, logs, rule, 0.4).nodes, {}) for rule in descent.RULES),
    ]
    for rule, nodes, options in expected:
        with mock.patch.object(decision, "_FEW", few):
            asked = Decision(tree, hierarchy, Options(rule=rule, tree_threshold=0.4, **options))
        answer = asked(logs)
        assert torch.equal(answer.nodes, nodes)
        known = nodes >= 0
        there = absolute.gather(1, nodes.clamp(min=0)[:, None])[:, 0]
        assert torch.allclose(answer.log_probabilities[known], there[known], atol=1e-4)
        assert (answer.log_path[~known].isnan()).all() and (answer.log_given <= 0).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 15), st.sampled_from([0.0, 0.4]))
def test_tempered_group_by_group_as_all_at_once(seed, groups, missing):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, logs = random_conditionals(random, tree, 4, missing)
    temperatures = random.uniform(0.3, 4, int(random.integers(0, 5))).tolist()
    whole = temper(hierarchy, logs, temperatures)
    assert torch.equal(torch.isneginf(whole), torch.isneginf(logs))
    lazy = TemperedConditionals(DenseConditionals(logs), hierarchy, temperatures)
    starts = hierarchy.group_starts.numpy()
    looking = np.arange(hierarchy.groups).repeat(4)
    _, looks = Looks.sorted(starts, looking, np.tile(np.arange(4), hierarchy.groups))
    expected = [whole[:, start:end].flatten() for start, end in itertools.pairwise(starts.tolist())]
    assert np.allclose(lazy.groups(looks), torch.cat(expected), atol=1e-5)
    few = hierarchy.restrict(torch.from_numpy(random.permutation(len(tree))[:3]))
    assert torch.allclose(lazy.some(few), whole[:, few.columns].T, atol=1e-5)
    assert torch.allclose(temper(hierarchy, logs, []).exp(), logs.exp(), atol=1e-6)


def test_a_temperature_is_found_again():
    """Truths drawn from the conditionals; then the roots' logits are made three times too sure."""
    random = np.random.default_rng(0)
    hierarchy, honest = random_conditionals(random, TREE, 4000)
    leaves = torch.tensor([4, 6, 7, 8, 9, 2])
    drawn = torch.multinomial(
        hierarchy.log_probabilities(honest)[:, leaves].exp(), 1, generator=torch.Generator().manual_seed(0)
    )
    truths = leaves[drawn[:, 0]]
    sure = torch.where(hierarchy.depths == 0, 3 * honest, honest)
    fits = fit_temperatures(hierarchy, hierarchy.log_conditionals(sure), truths)
    assert fits[0].temperature == pytest.approx(3.0, rel=0.1) and fits[0].kept
    assert fits[0].after < fits[0].before
    assert not fits[1].kept and fits[1].temperature == pytest.approx(1.0, rel=0.15)
    assert kept_temperatures(fits) == (fits[0].temperature,)
    assert fit_temperatures(hierarchy, honest[:0], truths[:0]) == ()
    few = fit_temperatures(hierarchy, hierarchy.log_conditionals(sure)[:20], truths[:20])
    assert kept_temperatures(few) == ()
