"""Which nodes a list of names and numbers means, told from Python, on the command line, or over HTTP."""

import warnings

import numpy as np
import pytest
import torch
from click import BadParameter

from tests.yolo9000.small import STORED, TREE, picture, small_detector
from wordtree import WordTree
from yolo9000 import Detector
from yolo9000.cli._pictures import Nodes, quick_start
from yolo9000.cuts import resolve
from yolo9000.names import read_names


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_detector("shared"), precision="float32")


@pytest.mark.parametrize(
    "given",
    [
        {"dog", "vehicle"},
        ("dog", "n2"),
        {"dog": 1, "vehicle": 2}.keys(),
        np.array(["dog", "vehicle"]),
        np.array([3, 1], np.int16),
        torch.tensor([3, 1]),
        [np.int64(3), 1],
        ["3", "vehicle"],
        Nodes().convert("3,vehicle", None, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("word", ["vocabulary", "level", "classes"])
def test_any_iterable_of_names_and_numbers_is_a_list(detector, given, word):
    wanted = detector(picture(0), threshold=0.05, **{word: ["dog", "vehicle"]})
    found = detector(picture(0), threshold=0.05, **{word: given})
    assert len(wanted) and found.to_dict() == wanted.to_dict()


def test_a_name_with_a_comma_is_typed_in_quotes(tmp_path):
    (tmp_path / "list.txt").write_text("dog\nwolf, grey\n")
    for typed in ('dog,"wolf, grey"', 'dog, "wolf, grey" ', str(tmp_path / "list.txt")):
        assert Nodes().convert(typed, None, None) == ("dog", "wolf, grey")
    assert Nodes().convert('dog\n"wolf, grey"', None, None) == ("dog", "wolf, grey")  # a list that was pasted
    many = ("n02958343",) * 400  # longer than a file's name may be
    assert Nodes().convert(",".join(many), None, None) == many
    with pytest.raises(BadParameter, match="holds no nodes"):
        Nodes().convert('"', None, None)


def test_an_iterator_is_a_list(detector):
    assert detector.options(vocabulary=iter(["dog", 1])).vocabulary == ("dog", 1)


@pytest.mark.parametrize("given", [{"dog": 1}, [1.5], np.array([1.5]), np.array(3), 3, "dog", [None], []])
def test_what_is_no_list_is_refused(detector, given):
    with pytest.raises(ValueError, match=r"vocabulary is|is no list|is empty"):
        detector.options(vocabulary=given)


def test_a_name_of_digits_comes_before_a_number():
    tree = WordTree.flat(["7", "8", "9", "8"], ["x", "a", "b", "c"])
    assert resolve(tree, ["7", "9", "0", 0]) == (0, 2, 0, 0)
    for bad in ("8", "4", "9" * 30, "9" * 5000, "²"):  # of two nodes; of none
        with pytest.raises(ValueError, match="not in the model's tree"):
            resolve(tree, [bad])


def test_all_that_the_tree_has_not_is_told_and_little_is_guessed(monkeypatch):
    guessed, find = [], TREE.lookup.find
    monkeypatch.setattr(TREE.lookup, "find", lambda text: (guessed.append(text), find(text))[1])
    names = ["dgo", "n4", "huksy", "cat", "vehcile", "99", "poodel", "animla", *map(str, range(50, 80))]
    with pytest.raises(ValueError, match="did you mean") as told:
        resolve(TREE, names)
    for bad in ("dgo", "huksy", "vehcile", "99", "poodel", "animla", "79"):
        assert bad in str(told.value)
    assert len([text for text in guessed if text in ("dgo", "huksy", "vehcile", "poodel", "animla")]) == 3


@pytest.mark.parametrize("typed", ["coco", "COCO", "Voc", "DET"])
def test_data_sets_are_known_whatever_the_capitals(typed):
    assert Nodes().convert(typed, None, None) == typed.lower()
    net = small_detector("flat")
    with pytest.raises(ValueError, match="not in the model's tree"):
        Detector(net, precision="float32").options(vocabulary=typed)
    assert read_names(typed, 6) == read_names(typed.lower(), 6)


def test_nodes_that_can_never_be_answered_are_warned_of_once(capsys):
    detector = Detector(small_detector("stored"), precision="float32")
    assert 4 not in STORED and 9 not in STORED and 3 in STORED
    with pytest.warns(UserWarning, match=r"never answers with, cat \(n5\), taxi \(n10\)$"):
        found = detector(picture(0), threshold=0.0, vocabulary=["cat", "taxi"])
    assert not (found.nodes >= 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.options(vocabulary=["taxi", "dog"])
        detector.options(rule="leaf")
        Detector(small_detector("shared"), precision="float32").options(vocabulary=["cat"])
    show = warnings.showwarning
    with quick_start():
        Detector(small_detector("stored"), precision="float32").options(level=["cat", "animal"])
    assert warnings.showwarning is show
    assert capsys.readouterr().err == "warning: the model never learnt, and never answers with, cat (n5)\n"
