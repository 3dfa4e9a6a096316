"""Classifying whole pictures, and what classes are called."""

import numpy as np
import pytest
import torch

from tests.yolo9000.small import TREE, small_classifier, small_detector
from yolo9000.classifier import Classifier, central_square
from yolo9000.decision import Decision
from yolo9000.descent import RULES
from yolo9000.errors import ImageError, ModelError
from yolo9000.hierarchy import Hierarchy
from yolo9000.names import read_names, tree_of
from yolo9000.options import Options, asked_rule


def picture(seed: int, width: int = 90, height: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_flat_equals_the_networks_own_probabilities():
    net = small_classifier()
    classifier = Classifier(net, names=list("abcdef"))
    pixels = torch.from_numpy(picture(0)).permute(2, 0, 1)
    with torch.inference_mode():
        expected = net(central_square(pixels, 64)[None])[0]
    found = classifier(picture(0), top=6)
    assert found.nodes == tuple(expected.argsort(descending=True).tolist())
    assert found.probabilities == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-5)
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.names == tuple("abcdef"[k] for k in found.nodes) == found.ids
    assert found.answer == found.nodes[0] and found.path_names == found.names[:1]
    assert len(classifier(picture(0), top=99).nodes) == 6


@pytest.mark.parametrize("rule", RULES)
def test_tree(rule):
    net = small_classifier(tree=True)
    classifier = Classifier(net)
    found = classifier(picture(1), rule=rule, tree_threshold=0.3)
    leaves = [k for k in range(len(TREE)) if not TREE.children(k)]
    assert set(found.nodes) <= set(leaves) and list(found.probabilities) == sorted(
        found.probabilities, reverse=True
    )
    with torch.inference_mode():
        conditionals = net(central_square(torch.from_numpy(picture(1)).permute(2, 0, 1), 64)[None])[0]
    for k, p in zip(found.nodes, found.probabilities, strict=True):
        assert p == pytest.approx(float(conditionals[list(TREE.path_nodes(k))].prod()), abs=1e-5)
    assert found.path == TREE.path(found.answer)
    if rule == "leaf":
        assert found.answer == found.nodes[0]
    record = found.to_dict()
    assert record["answer"]["name"] == TREE.names[found.answer] and len(record["best"]) == 5


@pytest.mark.parametrize(
    "given",
    [
        {"level": 1},
        {"level": ["husky", "vehicle", "cat"]},
        {"vocabulary": ["husky", "animal", "taxi"]},
        {"hedge_lambda": 0.5},
        {"hedge_lambda": 1e12},
        {"rule": "darknet", "tree_threshold": 0.3},
    ],
)
def test_rules_answer_as_they_do_on_the_networks_own_conditionals(given):
    net = small_classifier(tree=True)
    classifier = Classifier(net)
    options = Options(**({"rule": asked_rule(given)} if "rule" not in given else {}), **given)
    squares = [central_square(torch.from_numpy(picture(k)).permute(2, 0, 1), 64) for k in range(6)]
    with torch.inference_mode():
        expected = Decision(TREE, Hierarchy(TREE), options)(net(torch.stack(squares)).log())
    found = classifier([picture(k) for k in range(6)], **given)
    assert [one.answer for one in found] == expected.nodes.tolist()
    for one, path in zip(found, expected.log_path, strict=True):
        assert one.path == (TREE.path(one.answer) if one.answer >= 0 else ())
        assert one.path_probabilities == pytest.approx(path[~path.isnan()].exp().tolist(), abs=1e-5)
        assert one.to_dict()["answer"]["name"] == (TREE.names[one.answer] if one.answer >= 0 else "something")


def test_the_models_own_defaults_hold_unless_given():
    net = small_classifier(tree=True)
    net.defaults = {"rule": "level", "level": 0, "threshold": 0.3}
    roots = {k for k in range(len(TREE)) if TREE.parents[k] < 0}
    assert all(one.answer in roots for one in Classifier(net)([picture(k) for k in range(5)]))
    assert Classifier(net).options(rule="leaf").rule == "leaf"
    assert Classifier(net).options(level=None).level == 0


def test_batch_equals_single_whatever_the_shapes():
    classifier = Classifier(small_classifier())
    pictures = [
        picture(i, *shape) for i, shape in enumerate([(90, 60), (1, 5000), (5000, 1), (64, 64), (30, 200)])
    ]
    many = classifier(pictures, batch=2)
    for one, found in zip(pictures, many, strict=True):
        assert classifier(one).probabilities == pytest.approx(found.probabilities, abs=1e-5)
    assert classifier([]) == []


def test_the_middle_square_is_what_is_seen():
    ground = np.zeros((40, 100, 3), np.uint8)
    ground[:, 30:70] = 200
    square = central_square(torch.from_numpy(ground).permute(2, 0, 1), 20)
    assert square.shape == (3, 20, 20) and torch.allclose(square, torch.tensor(200 / 255), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"top": 0},
        {"rule": "best"},
        {"size": 1},
        {"size": 10**6},
        {"batch": 0},
        {"tree_threshold": 2},
        {"nms": "related"},  # a detector's
        {"level": ["unicorn"]},
        {"rule": "vocabulary"},
        {"accuracy": 0.9},  # of a model that is not calibrated
    ],
)
def test_impossible_options(options):
    with pytest.raises(ValueError):
        Classifier(small_classifier())(picture(0), **options)


def test_wrong_models_and_pictures():
    with pytest.raises(ModelError, match="softmax"):
        Classifier(small_detector())
    with pytest.raises(ImageError):
        Classifier(small_classifier())(b"")


def test_read_names(tmp_path):
    path = tmp_path / "x.names"
    path.write_text("one\ntwo \nthree\n", encoding="utf-8")
    assert read_names(path, 2) == ("one", "two")
    with pytest.raises(ModelError, match="3 names, the network has 4"):
        read_names(path, 4)
    path.write_text("one\n\nthree\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"x\.names:2"):
        read_names(path, 3)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="UTF-8"):
        read_names(path, 1)
    with pytest.raises(ModelError, match="no names there"):
        read_names(tmp_path / "no.names", 1)
    with pytest.raises(ModelError, match="no names there"):
        read_names(tmp_path, 1)
    assert read_names("voc", 20)[0] == "aeroplane" and len(read_names("coco", 80)) == 80
    assert len(read_names("ilsvrc", 1000)) == 1000
    with pytest.raises(ModelError, match="no names there"):
        read_names("n" * 300, 1)


def test_names_for_a_tree_change_only_what_is_shown():
    tree = tree_of(small_detector(), [name.upper() for name in TREE.names])
    assert tree.fingerprint == TREE.fingerprint and tree.names[3] == "DOG"


def test_names_of_a_data_set(tmp_path):
    """Its own file tells which names are the classes; its other lines are none."""
    (tmp_path / "obj.names").write_text("cat\ndog\nhot dog\n")
    (tmp_path / "obj.data").write_text("classes = 3\ntrain = train.txt\nnames = data/obj.names\n")
    (tmp_path / "data.yaml").write_text("path: here\ntrain: images\nnc: 3\nnames: [cat, dog, 'hot dog']\n")
    (tmp_path / "b.YML").write_text("train: images\nnames:\n  0: cat\n  1: dog\n  2: hot dog\n")
    wanted = read_names(tmp_path / "obj.names", 3)
    for name in ("obj.data", "data.yaml", "b.YML"):
        assert read_names(tmp_path / name, 3) == wanted
        for classes in (2, 4):  # a data set has as many classes as it has
            with pytest.raises(ModelError, match=f"{name}: 3 names, the network has {classes}"):
                read_names(tmp_path / name, classes)
    (tmp_path / "bad.yaml").write_text("nc: 3\n")
    with pytest.raises(ModelError, match=r"bad\.yaml"):
        read_names(tmp_path / "bad.yaml", 3)
