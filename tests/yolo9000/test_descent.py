"""The rules of descent against plain walks written down again here, dense against lazy, and trees with rows
missing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.trees import AskedConditionals
from wordtree import WordTree
from yolo9000 import descent
from yolo9000.conditionals import DenseConditionals, LazyConditionals
from yolo9000.descent import RULES, descend
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.temperature import TemperedConditionals


def random_tree(random: np.random.Generator, groups: int) -> WordTree:
    parents = [-1] * int(random.integers(1, 5))
    childless = list(range(len(parents)))
    for _ in range(groups):
        childless = [k for k in childless if k >= 0]
        parent = childless.pop(int(random.integers(len(childless))))
        first = len(parents)
        parents += [parent] * int(random.integers(1, 5))
        childless += range(first, len(parents))
    return WordTree([f"k{i}" for i in range(len(parents))], parents)


def plain_walk(
    tree: WordTree, conditionals: np.ndarray, rule: str, threshold: float
) -> tuple[int, list[float]]:
    """One box, in Python, from conditional probabilities (C,): node and the absolute probabilities on its
    path."""
    if rule == "leaf":
        best, node = -1.0, 0
        for k in tree.leaves:
            p = math.prod(conditionals[i] for i in tree.path_nodes(int(k)))
            if p > best:
                best, node = p, int(k)
    else:
        group, p, held, node = tree.roots, 1.0, 1.0, None
        while group:
            child = max(group, key=lambda k: conditionals[k])
            p *= conditionals[child]
            held *= p
            passed = {"threshold": p > threshold, "darknet": held > threshold, "greedy": True}[rule]
            if node is None or passed:
                node = child
            if not passed:
                break
            group = tree.children(child)
    path = tree.path_nodes(node)
    return node, [math.prod(conditionals[i] for i in path[: d + 1]) for d in range(len(path))]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 25),
    st.sampled_from(RULES),
    st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.9, 1.0]),
)
def test_equals_a_plain_walk(seed, groups, rule, threshold):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy = Hierarchy(tree)
    logs = hierarchy.log_conditionals(
        torch.from_numpy(random.normal(0, 3, (6, len(tree))).astype(np.float32))
    )
    found = descend(hierarchy, logs, rule, threshold)
    assert found.nodes.shape == (6,)
    for box in range(6):
        node, path = plain_walk(tree, logs[box].double().exp().numpy(), rule, threshold)
        if (
            int(found.nodes[box]) != node
        ):  # only a tie between leaves, or a product within rounding of the threshold
            other = logs[box].double().exp().numpy()
            ours = math.prod(other[i] for i in tree.path_nodes(int(found.nodes[box])))
            assert rule == "leaf" and ours == pytest.approx(path[-1], rel=1e-5)
            continue
        values = found.log_path[box].exp()
        assert values[: len(path)].tolist() == pytest.approx(path, rel=1e-4)
        assert values[len(path) :].isnan().all()
        assert found.log_probabilities[box].exp() == pytest.approx(path[-1], rel=1e-4)
        assert found.log_given[box] == logs[box, node]
        assert int(getattr(descent, rule)(hierarchy, logs, threshold)[box]) == node


@pytest.mark.parametrize(("rule", "depth"), [("threshold", 6), ("darknet", 3)])
def test_the_example_of_the_specification(rule, depth):
    """Every conditional at 0.9, threshold 0.5: the paper's rule goes 6 nodes down, Darknet's 3."""
    parents = [-1, -1] + [2 * (i // 2) for i in range(20)]  # two children a level; go on below the first
    tree = WordTree([f"k{i}" for i in range(22)], parents)
    logs = Hierarchy(tree).log_conditionals(torch.tensor([[math.log(9.0), 0.0] * 11]))
    assert (
        tree.depth(int(descend(Hierarchy(tree), logs, rule, 0.5).nodes[0])) == depth - 1
    )  # the root is the first node


def lazy_output(random, tree, shared, stored, dtype=torch.float32) -> LazyOutput:
    def draw(*shape):
        return torch.from_numpy(random.normal(0, 1.2, shape).astype(np.float32)).to(dtype)

    rows = len(tree) if stored is None else len(stored)
    sets = 1 if shared else 3
    return LazyOutput(
        draw(2, 15, 4, 5), draw(2, 7, 4, 5), draw(sets, rows, 7), draw(sets, rows), stored, len(tree), 3
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 25), st.booleans(), st.booleans(), st.sampled_from(RULES))
def test_lazy_equals_dense(seed, groups, shared, partial, rule):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy = Hierarchy(tree)
    stored = None
    if partial:
        stored = torch.from_numpy(np.flatnonzero(random.random(len(tree)) < 0.6))
        stored = stored if len(stored) else torch.tensor([0])
    output = lazy_output(random, tree, shared, stored)
    at = tuple(torch.from_numpy(random.integers(0, high, 9)) for high in (2, 3, 4, 5))
    raw = output.dense().view(2, 3, 5 + len(tree), 4, 5)
    dense = hierarchy.log_conditionals(raw[at[0], at[1], 5:, at[2], at[3]])
    lazy = LazyConditionals(output, *at)
    assert torch.allclose(lazy.all(hierarchy).exp(), dense.exp(), atol=1e-5)
    a, b = descend(hierarchy, lazy, rule, 0.3), descend(hierarchy, DenseConditionals(dense), rule, 0.3)
    assert torch.equal(a.nodes, b.nodes)
    assert torch.allclose(a.log_path.exp(), b.log_path.exp(), atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_nodes_without_rows(rule):
    """animal (dog (husky), cat), thing: husky has no row, so dog is the deepest answer; thing's children have
    none at all."""
    tree = WordTree(["animal", "thing", "dog", "cat", "cup", "pot", "husky"], [-1, -1, 0, 0, 1, 1, 2])
    logits = torch.full((2, 7), -math.inf)
    logits[0, [0, 1, 2, 3]] = torch.tensor([5.0, 0.0, 4.0, 0.0])
    logits[1, [0, 1, 2, 3]] = torch.tensor([0.0, 5.0, 4.0, 0.0])
    hierarchy = Hierarchy(tree)
    found = descend(hierarchy, hierarchy.log_conditionals(logits), rule, 0.0)
    names = [tree.names[k] for k in found.nodes]
    if rule == "leaf":
        assert names == ["cat", "cat"]  # the only leaf with a probability
    else:
        assert names == ["dog", "thing"]
    assert found.log_probabilities.isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_a_model_that_knows_no_leaf(rule):
    tree = WordTree(["animal", "thing", "dog"], [-1, -1, 0])
    hierarchy = Hierarchy(tree)
    logs = hierarchy.log_conditionals(torch.tensor([[1.0, -math.inf, -math.inf]]))
    assert descend(hierarchy, logs, rule, 0.0).nodes.tolist() == [0]
    hierarchy = Hierarchy(WordTree(["animal", "dog", "husky"], [-1, 0, 1]))  # husky alone has no row
    logs = hierarchy.log_conditionals(torch.tensor([[1.0, 1.0, -math.inf]]))
    assert descend(hierarchy, logs, rule, 0.0).nodes.tolist() == [1]


@pytest.mark.parametrize("rule", RULES)
def test_no_boxes(rule):
    tree = WordTree.flat(["a", "b"])
    found = descend(Hierarchy(tree), torch.zeros(0, 2), rule)
    assert found.nodes.shape == (0,) and found.log_probabilities.shape == (0,)


def test_the_best_root_when_none_passes():
    tree = WordTree(["a", "b", "a1"], [-1, -1, 0])
    logs = Hierarchy(tree).log_conditionals(torch.tensor([[0.1, 0.0, 3.0]]))
    for rule in ("threshold", "darknet"):
        assert descend(Hierarchy(tree), logs, rule, 0.9).nodes.tolist() == [0]


def test_a_deep_chain():
    tree = WordTree([f"k{i}" for i in range(2000)], list(range(-1, 1999)))
    logs = torch.zeros(1, 2000)
    assert descend(Hierarchy(tree), logs, "threshold", 0.5).nodes.tolist() == [1999]


def test_bad_options():
    hierarchy = Hierarchy(WordTree.flat(["a"]))
    with pytest.raises(ValueError, match="threshold, darknet"):
        descend(hierarchy, torch.zeros(1, 1), "best")
    with pytest.raises(ValueError, match=r"0\.\.1"):
        descend(hierarchy, torch.zeros(1, 1), "threshold", 1.5)


def test_the_best_leaf_is_looked_for_where_it_may_be():
    """Never below a root whose probability is less than that of the leaf at the end of the greedy walk."""
    tree = WordTree([f"k{i}" for i in range(6)], [-1, -1, 0, 0, 1, 1])
    hierarchy = Hierarchy(tree)
    for logits, nodes, groups in (
        ([2.0, -2, 3, -3, 0, 0], [2], {0, 2}),
        ([0.2, 0, 0, 0, 9, -9], [4], {0, 2, 4}),
    ):
        logs = hierarchy.log_conditionals(torch.tensor([logits]))
        conditionals = AskedConditionals(logs)
        walk = descend(hierarchy, TemperedConditionals(conditionals, hierarchy, ()), "leaf")
        assert walk.nodes.tolist() == nodes and set(conditionals.asked) == groups
        assert torch.allclose(walk.log_path, descend(hierarchy, logs, "leaf").log_path, atol=1e-6)
        assert torch.allclose(walk.log_given, logs[0, nodes], atol=1e-6)
    walk = descend(hierarchy, TemperedConditionals(AskedConditionals(logs[:0]), hierarchy, ()), "leaf")
    assert walk.nodes.shape == (0,) and walk.log_path.shape == (0, 1)
