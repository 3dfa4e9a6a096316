"""Options that ask for a rule, and those that do not go together."""

import pytest

from tests.yolo9000.small import small_classifier, small_detector
from yolo9000.classifier import Classifier
from yolo9000.detector import Detector
from yolo9000.errors import TrainingError
from yolo9000.heldout import EvalSettings
from yolo9000.modelfile import load_model, save_model
from yolo9000.options import asked_rule

CONTRADICTIONS = [
    {"vocabulary": ["cat", "n4"], "level": 1},
    {"vocabulary": ["cat"], "rule": "leaf"},
    {"vocabulary": ["cat"], "accuracy": 0.9},
    {"level": 0, "hedge_lambda": 0.0},
    {"rule": "threshold", "level": ["cat"]},
    {"rule": "level", "level": 1, "vocabulary": ["cat"]},
]


@pytest.mark.parametrize("given", CONTRADICTIONS)
def test_what_is_for_another_rule_is_refused_wherever_it_is_given(given):
    detector, classifier = Detector(small_detector()), Classifier(small_classifier(tree=True))
    for options in (detector.options, classifier.options):
        with pytest.raises(ValueError, match="leave one out"):
            options(**given)
    with pytest.raises(TrainingError, match="leave one out"):
        EvalSettings(**given).of_model(detector.net)


def test_a_models_defaults_contradict_nothing():
    net = small_detector()
    net.defaults = {"rule": "vocabulary", "vocabulary": ["cat"], "level": 1, "hedge_lambda": 1.0}
    net.defaults["lambdas"] = {"0.8": 2.0}
    detector = Detector(net)
    for given, rule in (
        ({}, "vocabulary"),
        ({"rule": "leaf"}, "leaf"),
        ({"rule": "level"}, "level"),
        ({"level": 0}, "level"),
        ({"rule": "hedge", "accuracy": 0.8}, "hedge"),
    ):
        assert detector.options(**given).rule == EvalSettings(**given).of_model(net).rule == rule


def test_an_accuracy_asked_for_goes_before_a_default_lambda():
    defaults = {"rule": "hedge", "hedge_lambda": 0.5, "lambdas": {"0.9": 50.0, "0.99": 1e6}}
    net, named = small_detector(), small_classifier(tree=True)
    net.defaults = named.defaults = defaults
    ways = [Detector(net).options, Classifier(named).options]
    ways.append(lambda **given: EvalSettings(**given).of_model(net).options(net))
    for options in ways:
        assert options().chosen_lambda == 0.5
        assert options(accuracy=0.9).chosen_lambda == 50.0
        assert options(accuracy=0.95).chosen_lambda == 1e6
        assert options(accuracy=0.9, hedge_lambda=3.0).chosen_lambda == 3.0
        assert options(hedge_lambda=3.0).chosen_lambda == 3.0
        with pytest.raises((ValueError, TrainingError), match=r"up to 0\.99, not for 0\.999"):
            options(accuracy=0.999)


def test_the_rule_asked_for():
    assert asked_rule({"rule": None, "level": None, "threshold": 0.3}) is None
    assert asked_rule({"accuracy": 0.9, "hedge_lambda": 1.0}) == "hedge"
    assert asked_rule({"rule": "level", "level": 0}) == "level"


@pytest.mark.parametrize("name", ["level", "vocabulary"])
def test_a_default_lists_nodes_of_the_models_tree(name, run, tmp_path):
    source, target = tmp_path / "m.safetensors", tmp_path / "o.safetensors"
    save_model(small_detector(), source)
    for value, said in (
        ("cocoo", "'cocoo' is no list of nodes; coco, voc, det are"),
        ('["cat", "unicorn"]', "not in the model's tree: no node is called 'unicorn'"),
        ("[77]", "there is no node 77: the tree has the nodes 0 to 9"),
        ("coco", "not in the model's tree"),
        ("[]", "empty"),
        ("-1", "not -1"),
    ):
        status, _, errors = run("convert", source, target, "--default", f"{name}={value}")
        assert status == 1 and said in errors and not target.exists()
    assert run("convert", source, target, "--default", f'{name}=["cat", 3, "n6"]')[0] == 0
    assert load_model(target).defaults == {name: ["cat", 3, "n6"]}
