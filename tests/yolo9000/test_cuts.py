"""Answers from some of the nodes against their definitions in plain Python."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from tests.yolo9000.trees import absolute, random_conditionals, random_tree
from wordtree import WordTree
from wordtree.lookup import Lookup
from yolo9000.cuts import Cut, at_cut, at_depth, in_vocabulary, resolve
from yolo9000.hierarchy import Hierarchy
from yolo9000.keep import Keep

MANY = (st.integers(0, 2**32 - 1), st.integers(0, 20), st.sampled_from([0.0, 0.4]))

# food: sandwich (hot dog, hamburger), fruit (apple); animal
FOOD = WordTree(
    ["food", "animal", "sandwich", "fruit", "hot dog", "hamburger", "apple", "pear"],
    [-1, -1, 0, 0, 2, 2, 3, 3],
)


def drawn(seed, groups, missing):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, logs = random_conditionals(random, tree, 5, missing)
    return random, tree, hierarchy, hierarchy.log_probabilities(logs), absolute(tree, logs)


@settings(max_examples=60, deadline=None)
@hypothesis.given(*MANY, st.integers(0, 6) | st.just(10**30))
def test_at_depth(seed, groups, missing, depth):
    _, tree, hierarchy, logs, probabilities = drawn(seed, groups, missing)
    nodes = at_depth(hierarchy, logs, depth)
    for box, p in enumerate(probabilities):
        ends = [
            k
            for k in range(len(tree))
            if tree.depth(k) == depth or (tree.depth(k) < depth and not any(p[c] for c in tree.children(k)))
        ]
        assert sum(p[k] for k in ends) == pytest.approx(1.0, rel=1e-4)  # it is a cut: something is right
        assert int(nodes[box]) in ends
        assert p[int(nodes[box])] == pytest.approx(max(p[k] for k in ends), rel=1e-5)


def listed_above(tree, node, listed):
    return next((k for k in reversed(tree.path_nodes(node)[:-1]) if k in listed), None)


@settings(max_examples=80, deadline=None)
@hypothesis.given(*MANY, st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_listed_nodes(seed, groups, missing, threshold):
    random, tree, hierarchy, logs, probabilities = drawn(seed, groups, missing)
    listed = sorted(random.permutation(len(tree))[: int(random.integers(1, len(tree) + 1))].tolist())
    cut = Cut.of(hierarchy, reversed(listed))
    assert cut.nodes.tolist() == listed
    above = [listed_above(tree, k, listed) for k in listed]
    assert [listed[a] if a >= 0 else None for a in cut.above.tolist()] == above
    by_level, level_given = at_cut(cut, logs)
    by_words, words_given = in_vocabulary(cut, logs, threshold)
    for box, p in enumerate(probabilities):
        total = sum(p[k] for k, a in zip(listed, above, strict=True) if a is None)
        if total == 0:
            assert by_level[box] == by_words[box] == -1
            assert level_given[box] == words_given[box] == -math.inf
            continue
        own = {k: p[k] - sum(p[j] for j, a in zip(listed, above, strict=True) if a == k) for k in listed}
        assert sum(own.values()) == pytest.approx(total, rel=1e-4)
        assert own[int(by_level[box])] == pytest.approx(max(own.values()), abs=1e-6)
        # The paper's rule on the tree of the listed nodes.
        node = max((k for k, a in zip(listed, above, strict=True) if a is None), key=lambda k: p[k])
        while True:
            children = [k for k, a in zip(listed, above, strict=True) if a == node]
            best = max(children, key=lambda k: p[k], default=None)
            if best is None or not p[best] / total > threshold:
                break
            node = best
        close = any(abs(p[k] / total - threshold) < 1e-6 for k in listed)
        assert int(by_words[box]) == node or close
        for nodes, given in ((by_level, level_given), (by_words, words_given)):
            assert float(given[box].exp()) == pytest.approx(p[int(nodes[box])] / total, rel=1e-4, abs=1e-7)


def test_nested_classes():
    """sandwich .6 of which hot dog .5; animal .3: of these three, given any of them."""
    hierarchy = Hierarchy(FOOD)
    p = {"food": 0.7, "animal": 0.3, "sandwich": 0.6, "fruit": 0.1, "hot dog": 0.5, "hamburger": 0.1}
    logs = torch.tensor([[p.get(name, 0.05) for name in FOOD.names]]).log()
    cut = Cut.of(hierarchy, resolve(FOOD, ["sandwich", "hot dog", "animal"]))
    node, given = in_vocabulary(cut, logs, 0.5)
    assert FOOD.names[int(node)] == "hot dog" and float(given.exp()) == pytest.approx(0.5 / 0.9)
    node, given = in_vocabulary(cut, logs, 0.6)
    assert FOOD.names[int(node)] == "sandwich" and float(given.exp()) == pytest.approx(0.6 / 0.9)
    node, _ = at_cut(cut, logs)
    assert FOOD.names[int(node)] == "hot dog"  # a sandwich that is none has only .1


def test_names_are_not_guessed():
    assert resolve(FOOD, ("apple", 1)) == (6, 1)
    with pytest.raises(ValueError, match=r"not in the model's tree: .*'spoon'\nno node is called 'fork'"):
        resolve(FOOD, ["apple", "spoon", "fork"])
    with pytest.raises(ValueError, match="no node 99"):
        resolve(FOOD, ["spoon", "apple", "fork", 99, 1])
    with pytest.raises(ValueError, match="coco, voc, det"):
        resolve(FOOD, "lvis")
    with pytest.raises(ValueError, match="empty"):
        resolve(FOOD, [])
    for bad in ([], [8], [-1]):
        with pytest.raises(ValueError, match=r"0\.\.7"):
            Cut.of(Hierarchy(FOOD), bad)
    with pytest.raises(ValueError, match="depth"):
        at_depth(Hierarchy(FOOD), torch.zeros(1, 8), -1)


def test_only_what_is_told_is_looked_for(monkeypatch):
    asked, similar = [], Lookup.similar
    monkeypatch.setattr(Lookup, "similar", lambda self, word: asked.append(word) or similar(self, word))
    with pytest.raises(ValueError, match=r"nor 'spoon3', .* and 477 more"):
        resolve(FOOD, [f"spoon{k}" for k in range(500)])
    assert asked == ["spoon0", "spoon1", "spoon2"]


@pytest.mark.parametrize("name", ["coco", "voc", "det"])
def test_the_data_sets_are_in_the_default_tree(name):
    tree = WordTree.default()
    nodes = resolve(tree, name)
    assert len(nodes) == {"coco": 80, "voc": 20, "det": 200}[name]
    cut = Cut.of(Hierarchy(tree), nodes)
    above = [listed_above(tree, k, set(nodes)) for k in cut.nodes.tolist()]
    assert [int(cut.nodes[a]) if a >= 0 else None for a in cut.above.tolist()] == above


def test_the_data_sets_mean_the_same_within_a_list():
    tree = WordTree.default()
    car, palm = tree.index("n02958343"), tree.index("n12587803")  # people call the coconut coco
    assert resolve(tree, ["COCO", "voc", car]) == (*resolve(tree, "coco"), *resolve(tree, "voc"), car)
    assert resolve(tree, ["det"]) == resolve(tree, "det") and resolve(tree, [palm]) == (palm,)
    assert Keep.of(tree, [["coco", "taxi"]]) == Keep.of(tree, ["coco", ["taxi"]])
    own = WordTree(["coco", "n2", "n3"], [-1, 0, 0], ["fruit", "voc", "car"])
    assert resolve(own, ["coco", "voc", "car"]) == (0, 1, 2)  # its own ids and names come first
    assert resolve(own, "coco") == (0,)
    with pytest.raises(ValueError, match="not in the model's tree"):
        resolve(own, ["det", "car"])


def test_no_boxes():
    cut, none = Cut.of(Hierarchy(FOOD), [2, 4]), torch.zeros(0, 8)
    assert at_depth(Hierarchy(FOOD), none, 1).shape == (0,)
    assert at_cut(cut, none)[0].shape == in_vocabulary(cut, none, 0.5)[0].shape == (0,)


def test_a_vocabulary_at_threshold_0_goes_down_to_no_node_that_is_impossible():
    tree = WordTree(["a", "b", "c", "d"], [-1, -1, 0, 0])
    hierarchy = Hierarchy(tree)
    logits = torch.tensor([[2.0, 1.0, -math.inf, -math.inf], [2.0, 1.0, -math.inf, 0.0]])
    logs = hierarchy.log_probabilities(hierarchy.log_conditionals(logits))
    nodes, given = in_vocabulary(Cut.of(hierarchy, [0, 1, 2, 3]), logs, 0.0)
    assert nodes.tolist() == [0, 3]
    assert bool((given > -1).all())
