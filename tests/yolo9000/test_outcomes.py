"""What became of true boxes and answers, and distances in the tree, held against networkx."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.small import TREE
from yolo9000.outcomes import IOU, MISTAKES, RELATIONS, judge, relation, tree_distance

ANIMAL, DOG, CAT, CAR, HUSKY = (TREE.index(name) for name in ("animal", "dog", "cat", "car", "husky"))
A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]


@pytest.mark.parametrize("flat", [False, True])
def test_distances_are_those_of_the_graph(flat):
    tree = TREE if not flat else type(TREE).flat(TREE.names)
    graph = networkx.Graph((k, int(parent)) for k, parent in enumerate(tree.parents))  # -1: the virtual root
    far = dict(networkx.all_pairs_shortest_path_length(graph))
    for a in range(-1, len(tree)):
        for b in range(-1, len(tree)):
            assert tree_distance(tree, a, b) == far[a][b]


def test_relations_are_those_of_paths():
    for truth in range(len(TREE)):
        for answer in range(len(TREE)):
            above, below = answer in TREE.path_nodes(truth), truth in TREE.path_nodes(answer)
            wanted = {(1, 1): "right", (1, 0): "above", (0, 1): "below", (0, 0): "aside"}[above, below]
            assert relation(TREE, truth, answer) == wanted
    assert relation(TREE, DOG, -1) == "above"


def outcome(truth, answers, ignored=(), absent=None, opened=()):
    """truth, answers: (box, node) pairs; ignored: numbers of true boxes."""
    boxes = [np.array([box for box, _ in some], float).reshape(-1, 4) for some in (truth, answers)]
    nodes = [[node for _, node in some] for some in (truth, answers)]
    marks = np.isin(np.arange(len(truth)), list(ignored))
    return judge(TREE, boxes[0], nodes[0], marks, boxes[1], nodes[1], absent, opened)


@pytest.mark.parametrize(
    ("truth", "answers", "more", "truths", "said"),
    [
        ([], [], {}, (), ()),
        ([(A, DOG)], [], {}, ("missed",), ()),
        ([], [(A, DOG)], {}, (), ("invented",)),
        ([(A, DOG)], [(A, DOG)], {}, ("right",), ("right",)),
        ([(A, DOG)], [(A, ANIMAL)], {}, ("above",), ("above",)),
        ([(A, DOG)], [(A, -1)], {}, ("above",), ("above",)),
        ([(A, DOG)], [(A, HUSKY)], {}, ("below",), ("below",)),
        ([(A, DOG)], [(A, CAT)], {}, ("aside",), ("aside",)),
        ([(A, DOG)], [(B, DOG)], {}, ("missed",), ("invented",)),
        ([(A, DOG)], [(A, CAT), (A, DOG)], {}, ("right",), ("again", "right")),  # the true name comes first
        ([(A, DOG), (A, CAR)], [(A, CAR), (A, DOG)], {}, ("right", "right"), ("right", "right")),
        ([(A, DOG), (A, CAT)], [(A, ANIMAL), (A, CAR)], {}, ("above", "aside"), ("above", "aside")),
        ([(A, DOG)], [(A, DOG), (A, DOG)], {}, ("right",), ("right", "again")),
        ([(A, DOG)], [(A, DOG)], {"ignored": [0]}, ("uncounted",), ("uncounted",)),
        # A small answer inside a crowd overlaps it little, and is none the worse for it.
        ([([0, 0, 100, 100], DOG)], [(A, DOG)], {"ignored": [0]}, ("uncounted",), ("uncounted",)),
        ([(A, -1)], [(A, DOG)], {}, ("uncounted",), ("uncounted",)),  # a class the model has not
        ([], [(A, HUSKY), (B, CAR)], {"absent": [DOG]}, (), ("invented", "uncounted")),
        ([(A, DOG)], [(A, DOG), (B, DOG)], {"opened": [DOG]}, ("right",), ("right", "uncounted")),
        ([], [(A, ANIMAL), (B, HUSKY), (C, CAT)], {"opened": [DOG]}, (), ("uncounted",) * 2 + ("invented",)),
        ([], [(A, HUSKY)], {"opened": [DOG], "absent": [HUSKY]}, (), ("invented",)),
        ([(A, DOG)], [([0, 0, 0, 0], DOG)], {}, ("missed",), ("invented",)),  # no area
    ],
)
def test_what_became(truth, answers, more, truths, said):
    found = outcome(truth, answers, **more)
    assert (found.truths, found.answers) == (truths, said)
    wrong = sum(what in MISTAKES for what in said) + truths.count("missed")
    assert found.mistakes == wrong


boxes = st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(-1, len(TREE) - 1)), max_size=6)


@settings(max_examples=150, deadline=None)
@given(boxes, boxes, st.sets(st.integers(0, 5), max_size=3))
def test_every_answer_has_one_box_at_most(truth, answers, ignored):
    found = outcome(truth, answers, ignored)
    matched = [m for m in found.match if m >= 0]
    assert len(set(matched)) == len(matched)
    for k, m in enumerate(found.match):
        assert (m >= 0) == (found.answers[k] in RELATIONS)
        if m >= 0:
            assert found.truths[m] == found.answers[k] == relation(TREE, truth[m][1], answers[k][1])
            assert truth[m][0] == answers[k][0]  # these boxes overlap wholly or not at all
    assert sum(what in RELATIONS for what in found.truths) == len(matched)
    # Nothing free is left that an answer could have had.
    left = {tuple(b) for (b, _), what in zip(truth, found.truths, strict=True) if what == "missed"}
    spare = {tuple(b) for (b, _), m in zip(answers, found.match, strict=True) if m < 0}
    assert not left & spare
    assert 0 < IOU < 1
