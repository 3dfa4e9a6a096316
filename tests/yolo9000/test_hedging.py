"""Hedging against its definition in plain Python, its frontier against itself, and lambda on drawn data."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.trees import AskedConditionals, absolute, random_conditionals, random_tree
from wordtree import WordTree
from yolo9000.conditionals import DenseConditionals
from yolo9000.descent import path_log_probabilities
from yolo9000.hedging import Frontier, fit_lambda, hedge, hedge_walk, is_right, rewards, share_right
from yolo9000.hierarchy import Hierarchy

LAMBDAS = (0.0, 0.1, 1.0, 7.0, 300.0, 1e9)
MANY = (st.integers(0, 2**32 - 1), st.integers(0, 20), st.sampled_from([0.0, 0.4]))


def leaves_below(tree: WordTree, node: int) -> int:
    return max(1, sum(1 for k in tree.descendants(node) if not tree.children(k)))


def value(tree: WordTree, node: int, probability: float, lambda_: float) -> float:
    if node < 0:
        return lambda_
    reward = math.log2(leaves_below_all(tree)) - math.log2(leaves_below(tree, node))
    return (reward + lambda_) * probability


def leaves_below_all(tree: WordTree) -> int:
    return sum(1 for k in range(len(tree)) if not tree.children(k))


@settings(max_examples=60, deadline=None)
@given(*MANY, st.sampled_from(LAMBDAS))
def test_the_answer_has_the_largest_value(seed, groups, missing, lambda_):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, logs = random_conditionals(random, tree, 5, missing)
    nodes = hedge(hierarchy, hierarchy.log_probabilities(logs), lambda_)
    for box, probabilities in enumerate(absolute(tree, logs)):
        values = [value(tree, k, probabilities[k], lambda_) for k in range(len(tree))] + [lambda_]
        assert values[int(nodes[box])] == pytest.approx(max(values), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(*MANY, st.sampled_from(LAMBDAS))
def test_the_frontier_answers_the_same(seed, groups, missing, lambda_):
    random = np.random.default_rng(seed)
    hierarchy, logs = random_conditionals(random, random_tree(random, groups), 6, missing)
    probabilities = hierarchy.log_probabilities(logs)
    frontier = Frontier.join([Frontier.of(hierarchy, part) for part in probabilities.split(2)])
    column, nodes = frontier.answers(lambda_)
    assert torch.equal(nodes, hedge(hierarchy, probabilities, lambda_))
    found = frontier.nodes.gather(1, column.clamp(min=0)[:, None])[:, 0] if frontier.nodes.shape[1] else nodes
    assert torch.equal(torch.where(column < 0, -1, found), nodes)


@settings(max_examples=40, deadline=None)
@given(*MANY)
def test_more_lambda_is_never_less_certain(seed, groups, missing):
    """The paper's lemma: what is answered gets likelier with lambda, and its reward smaller."""
    random = np.random.default_rng(seed)
    hierarchy, logs = random_conditionals(random, random_tree(random, groups), 5, missing)
    logs = hierarchy.log_probabilities(logs)
    reward, before = rewards(hierarchy), None
    for lambda_ in LAMBDAS:
        nodes = hedge(hierarchy, logs, lambda_)
        likely = logs.gather(1, nodes.clamp(min=0)[:, None])[:, 0].exp().masked_fill(nodes < 0, 1.0)
        gain = reward[nodes.clamp(min=0)].masked_fill(nodes < 0, 0.0)
        if before is not None:
            assert (likely >= before[0] - 1e-6).all() and (gain <= before[1] + 1e-9).all()
        before = likely, gain


def test_the_ends_of_lambda():
    """0: a sure leaf; large: the virtual root of several roots, but a single root is itself always right."""
    tree = WordTree(["a", "b", "a1", "a2"], [-1, -1, 0, 0])
    hierarchy = Hierarchy(tree)
    logs = hierarchy.log_probabilities(hierarchy.log_conditionals(torch.tensor([[2.0, 0.0, 3.0, 0.0]])))
    assert hedge(hierarchy, logs, 0.0).tolist() == [2]
    assert hedge(hierarchy, logs, 1e9).tolist() == [-1]
    chain = Hierarchy(WordTree(["a", "b", "c", "d"], [-1, 0, 1, 1]))
    logs = chain.log_probabilities(chain.log_conditionals(torch.zeros(1, 4)))
    assert hedge(chain, logs, 1e6).tolist() == [1]  # the only child of the root is as sure and more telling
    assert rewards(chain).tolist() == [0.0, 0.0, 1.0, 1.0]
    nothing = hierarchy.log_probabilities(torch.full((2, 4), -math.inf))
    assert hedge(hierarchy, nothing, 1.0).tolist() == [-1, -1]
    assert Frontier.of(hierarchy, nothing).answers(1.0)[1].tolist() == [-1, -1]
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="lambda"):
            hedge(hierarchy, logs[:, :4], bad)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_right_is_the_truth_or_above_it(seed, groups):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    answers = random.integers(-1, len(tree), (7, 3))
    truths = random.integers(0, len(tree), 7)
    right = is_right(Hierarchy(tree), torch.from_numpy(answers), torch.from_numpy(truths))
    for i, j in np.ndindex(answers.shape):
        node = int(answers[i, j])
        assert bool(right[i, j]) == (node < 0 or node in tree.path_nodes(int(truths[i])))


@pytest.mark.parametrize("accuracy", [0.8, 0.9, 0.95, 0.99])
def test_lambda_on_data_that_are_as_sure_as_they_say(accuracy):
    """Truths drawn from the probabilities themselves: what one half learns holds on the other."""
    random = np.random.default_rng(3)
    tree = random_tree(random, 25)
    hierarchy, conditionals = random_conditionals(random, tree, 8000)
    logs = hierarchy.log_probabilities(conditionals)
    leaves = torch.tensor(tree.leaves.tolist())
    truths = leaves[
        torch.multinomial(logs[:, leaves].exp(), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    ]
    frontier = Frontier.of(hierarchy, logs)
    right = is_right(hierarchy, frontier.nodes, truths)
    learn, test = slice(0, None, 2), slice(1, None, 2)

    def part(which):
        return Frontier(*(getattr(frontier, name)[which] for name in ("nodes", "probability", "reward")))

    lambda_ = fit_lambda(part(learn), right[learn], accuracy)
    assert lambda_ is not None
    assert share_right(part(learn), right[learn], lambda_) >= accuracy
    if lambda_:
        assert share_right(part(learn), right[learn], lambda_ / 1.01) < accuracy
    assert share_right(part(test), right[test], lambda_) == pytest.approx(accuracy, abs=0.02)


def test_a_large_lambda_is_found_where_answers_are_surer_than_right():
    """Half of the answers are wrong, each almost certain: they give way to the virtual root where (2 bits +
    lambda) x Pr(node) = lambda."""
    hierarchy = Hierarchy(WordTree.flat(list("abcd")))
    rest = 1e-4
    probabilities = torch.tensor([[1 - rest, *[rest / 3] * 3]], dtype=torch.float64).repeat(10, 1)
    frontier = Frontier.of(hierarchy, probabilities.log())
    right = is_right(hierarchy, frontier.nodes, torch.arange(10) % 2)
    lambda_ = fit_lambda(frontier, right, 0.9)
    assert lambda_ == pytest.approx(2 * (1 - rest) / rest, rel=2e-3)
    assert share_right(frontier, right, lambda_) == 1 and share_right(frontier, right, lambda_ / 1.01) == 0.5


def test_an_accuracy_that_cannot_be_had():
    tree = WordTree.flat(["a", "b"])
    hierarchy = Hierarchy(tree)
    logs = torch.tensor([[0.0, -math.inf]]).repeat(4, 1)
    frontier = Frontier.of(hierarchy, logs)
    right = is_right(hierarchy, frontier.nodes, torch.ones(4, dtype=torch.long))
    assert fit_lambda(frontier, right, 0.9) is None
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            fit_lambda(frontier, right, bad)
    with pytest.raises(ValueError, match="without"):
        fit_lambda(Frontier.of(hierarchy, logs[:0]), right[:0], 0.9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.5, 4.0, 1e6]),
    st.sampled_from([0.0, 0.4]),
)
def test_the_walk_answers_what_the_whole_says(seed, groups, lambda_, missing):
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, conditionals = random_conditionals(random, tree, 6, missing)
    logs = hierarchy.log_probabilities(conditionals)
    nodes, path = hedge_walk(hierarchy, DenseConditionals(conditionals), lambda_)
    assert torch.equal(nodes, hedge(hierarchy, logs, lambda_))
    expected = path_log_probabilities(hierarchy, logs, nodes.clamp(min=0))
    expected = expected.masked_fill((nodes < 0)[:, None], torch.nan)[:, : path.shape[1]]
    torch.testing.assert_close(path, expected, equal_nan=True)


def test_what_is_no_number_is_something_by_the_walk_as_by_the_whole():
    random = np.random.default_rng(0)
    tree = random_tree(random, 8)
    hierarchy, conditionals = random_conditionals(random, tree, 3)
    conditionals[1] = torch.nan
    nodes, path = hedge_walk(hierarchy, DenseConditionals(conditionals), 0.5)
    assert torch.equal(nodes, hedge(hierarchy, hierarchy.log_probabilities(conditionals), 0.5))
    assert nodes.tolist()[1] == -1 and path[1].isnan().all() and (nodes[[0, 2]] >= 0).all()


def test_the_walk_leaves_out_what_cannot_win():
    """A certain root's other side is never asked for; no boxes, no questions."""
    tree = WordTree([f"k{i}" for i in range(6)], [-1, -1, 0, 0, 1, 1])
    logits = torch.tensor([[9.0, -9, 9, -9, 0, 0]])
    hierarchy = Hierarchy(tree)
    conditionals = AskedConditionals(hierarchy.log_conditionals(logits))
    nodes, _ = hedge_walk(hierarchy, conditionals, 1.0)
    assert nodes.tolist() == [2] and conditionals.asked == [0, 2]
    none = AskedConditionals(torch.zeros(0, 6))
    nodes, path = hedge_walk(hierarchy, none, 1.0)
    assert nodes.shape == (0,) and path.shape == (0, 1) and not none.asked
