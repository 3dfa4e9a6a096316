"""Scores along the tree against plain walks over paths."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.trees import random_tree
from wordtree import WordTree
from yolo9000.hierarchical import node_heights, score_answers
from yolo9000.hierarchy import Hierarchy


def height(tree: WordTree, node: int) -> int:
    return 1 + max((height(tree, k) for k in tree.children(node)), default=-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 30))
def test_equals_plain_walks(seed, groups, n):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy = Hierarchy(tree)
    assert node_heights(hierarchy).tolist() == [height(tree, k) for k in range(len(tree))]
    answers, truths = random.integers(-1, len(tree), n), random.integers(0, len(tree), n)
    scores = score_answers(hierarchy, answers, truths)
    highest = 1 + max(height(tree, k) for k in tree.roots)
    leaves = len(tree.leaves)
    shared = lengths = 0
    for i, (answer, truth) in enumerate(zip(answers.tolist(), truths.tolist(), strict=True)):
        path = set(tree.path_nodes(answer)) if answer >= 0 else set()
        common = path & set(tree.path_nodes(truth))
        lca = max(common, key=tree.depth, default=None)
        assert scores.shared[i] == len(common) and scores.answer_length[i] == len(path)
        assert scores.lca_depth[i] == (-1 if lca is None else tree.depth(lca))
        assert scores.lca_height[i] == (highest if lca is None else height(tree, lca))
        if answer >= 0:
            assert lca == tree.lca(answer, truth)
        right = answer < 0 or answer in tree.path_nodes(truth)
        assert scores.right[i] == right
        below = sum(1 for k in tree.leaves if answer in tree.path_nodes(int(k)))
        bits = np.log2(leaves / below) if right and answer >= 0 else 0.0
        assert scores.information[i] == pytest.approx(bits)
        shared, lengths = shared + len(common), lengths + len(path)
    summary = scores.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["precision"] == (pytest.approx(shared / lengths) if lengths else None)
    for level in summary["levels"]:
        deep = [i for i in range(n) if tree.depth(int(truths[i])) >= level["depth"]]
        hits = [
            answers[i] >= 0
            and tree.path_nodes(int(answers[i]))[: level["depth"] + 1]
            == tree.path_nodes(int(truths[i]))[: level["depth"] + 1]
            for i in deep
        ]
        assert level["truths"] == len(deep) and level["right"] == pytest.approx(np.mean(hits))


def test_a_husky_called_a_dog():
    tree = WordTree(["animal", "car", "dog", "cat", "husky", "poodle"], [-1, -1, 0, 0, 2, 2])
    hierarchy = Hierarchy(tree)
    one = score_answers(hierarchy, np.array([2]), np.array([4])).summary()
    assert (
        one["precision"] == 1.0 and one["recall"] == pytest.approx(2 / 3) and one["F"] == pytest.approx(0.8)
    )
    assert one["right"] == 1.0 and one["lca_depth"] == 1 and one["lca_height"] == 1
    assert one["information"] == 1.0  # of four leaves two are left
    assert [level["answered"] for level in one["levels"]] == [1, 1, 0]
    wrong = score_answers(hierarchy, np.array([1]), np.array([4])).summary()
    assert wrong["F"] == wrong["right"] == 0 and wrong["lca_height"] == 3
    nothing = score_answers(hierarchy, np.zeros(0, int), np.zeros(0, int)).summary()
    assert nothing["F"] is None and nothing["levels"] == []


def test_nodes_outside_the_tree():
    hierarchy = Hierarchy(WordTree.flat(["a", "b"]))
    for answers, truths in (([2], [0]), ([0], [-1]), ([-2], [0]), ([0], [2])):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            score_answers(hierarchy, np.array(answers), np.array(truths))
    with pytest.raises(ValueError, match="one answer for each"):
        score_answers(hierarchy, np.zeros(2, int), np.zeros(1, int))
