"""Probabilities over a tree, held against a plain loop over dictionaries on random trees, and at the
extremes.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wordtree import WordTree
from yolo9000.hierarchy import Hierarchy, ranges, soft_tree_cross_entropy, tree_cross_entropy


def make_tree(parents: list[int]) -> WordTree:
    return WordTree([f"n{k:08d}" for k in range(len(parents))], parents)


@st.composite
def trees(draw, largest: int = 24) -> WordTree:
    """A random forest with siblings side by side: group by group under a node already there."""
    parents = [-1] * draw(st.integers(1, 4))
    free = list(range(len(parents)))
    while free and len(parents) < largest and draw(st.booleans()):
        parent = free.pop(draw(st.integers(0, len(free) - 1)))
        size = draw(st.integers(1, 4))
        free += range(len(parents), len(parents) + size)
        parents += [parent] * size
    return make_tree(parents)


def naive_log_conditionals(tree: WordTree, logits: torch.Tensor) -> torch.Tensor:
    """One softmax after another, node by node, in float64."""
    parents = tree.parents.tolist()
    result = torch.empty(len(parents), dtype=torch.float64)
    for k, parent in enumerate(parents):
        group = [i for i, p in enumerate(parents) if p == parent]
        result[k] = logits[k].double() - torch.logsumexp(logits[group].double(), 0)
    return result


def naive_path(tree: WordTree, node: int) -> list[int]:
    path = []
    while node >= 0:
        path.insert(0, node)
        node = int(tree.parents[node])
    return path


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 10**6), st.sampled_from([0.1, 3.0, 1e4]))
def test_probabilities_equal_the_loop(tree, seed, scale):
    torch.manual_seed(seed)
    hierarchy = Hierarchy(tree)
    logits = torch.randn(2, 3, len(tree)) * scale
    logs = hierarchy.log_conditionals(logits)
    sums = hierarchy.log_probabilities(logs)
    assert logs.shape == sums.shape == logits.shape and logs.isfinite().all()
    for lead in [(0, 0), (1, 2)]:
        expected = naive_log_conditionals(tree, logits[lead])
        torch.testing.assert_close(logs[lead].double(), expected, rtol=1e-5, atol=1e-5)
        for k in range(len(tree)):
            path = naive_path(tree, k)
            torch.testing.assert_close(sums[lead][k].double(), expected[path].sum(), rtol=1e-5, atol=1e-4)
            first, last = hierarchy.path_starts[k : k + 2].tolist()
            assert hierarchy.path_nodes[first:last].tolist() == path
    # Any dimension may hold the classes.
    assert torch.equal(hierarchy.log_conditionals(logits.movedim(-1, 1), dim=1).movedim(1, -1), logs)
    assert torch.equal(hierarchy.log_probabilities(logs.movedim(-1, 0), dim=0).movedim(0, -1), sums)
    # The probabilities of the leaves sum to 1: nothing is lost on the way down.
    leaves = hierarchy.child_group < 0
    torch.testing.assert_close(sums[..., leaves].exp().sum(-1), torch.ones(2, 3), rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 10**6))
def test_cross_entropy_is_minus_log_probability(tree, seed):
    torch.manual_seed(seed)
    hierarchy = Hierarchy(tree)
    logits = torch.randn(5, len(tree), dtype=torch.float64, requires_grad=True)
    nodes = torch.randint(len(tree), (5,))
    loss = tree_cross_entropy(hierarchy, logits, nodes)
    sums = hierarchy.log_probabilities(hierarchy.log_conditionals(logits))
    expected = -sums[torch.arange(5), nodes]
    torch.testing.assert_close(loss, expected)
    (a,) = torch.autograd.grad(loss.sum(), logits)
    (b,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(a, b)
    # Soft labels that are certain of a path are the hard label.
    certain = torch.zeros(5, len(tree), dtype=torch.float64)
    for m, node in enumerate(nodes.tolist()):
        certain[m, naive_path(tree, node)] = 1
    torch.testing.assert_close(soft_tree_cross_entropy(hierarchy, logits, certain), loss)
    # The teacher itself is the student that loses least.
    teacher = sums.exp().detach()
    least = soft_tree_cross_entropy(hierarchy, logits, teacher).sum()
    assert torch.autograd.grad(least, logits)[0].abs().max() < 1e-9
    assert (
        soft_tree_cross_entropy(hierarchy, logits + torch.randn_like(logits), teacher).sum() >= least
    ).all()


@settings(max_examples=30, deadline=None)
@given(trees(), st.integers(0, 10**6))
def test_unstored_nodes(tree, seed):
    torch.manual_seed(seed)
    hierarchy = Hierarchy(tree)
    stored = torch.rand(len(tree)) < 0.6
    logits = torch.randn(4, len(tree)).masked_fill(~stored, -torch.inf).requires_grad_()
    logs = hierarchy.log_conditionals(logits)
    assert torch.equal(torch.isneginf(logs[0]), ~stored) and not logs.isnan().any()
    for g in range(hierarchy.groups):
        group = torch.arange(int(hierarchy.group_starts[g]), int(hierarchy.group_starts[g + 1]))
        kept = group[stored[group]]
        torch.testing.assert_close(logs[:, kept], logits[:, kept].log_softmax(-1))
    nodes = torch.randint(len(tree), (4,))
    loss = tree_cross_entropy(hierarchy, logits, nodes)
    paths, which = hierarchy.stored_paths(nodes, stored)
    for m, node in enumerate(nodes.tolist()):
        path = naive_path(tree, node)
        while not stored[path].all():
            path.pop()
        assert paths[which == m].tolist() == path
        torch.testing.assert_close(loss[m], -logs[m, path].sum())
    (loss.sum() + logs.masked_fill(torch.isneginf(logs), 0).sum()).backward()
    assert logits.grad.isfinite().all() and (logits.grad[:, ~stored] == 0).all()
    soft = soft_tree_cross_entropy(hierarchy, logits, torch.rand(4, len(tree)))
    assert soft.isfinite().all()
    # Even a gradient asked of every entry gives none to those of -inf.
    (grad,) = torch.autograd.grad(hierarchy.log_conditionals(logits).sum(), logits)
    assert (grad[:, ~stored] == 0).all() and not grad.isnan().any()


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_restriction_equals_the_whole(tree, seed, some, apart):
    """A few nodes' probabilities from the few classes on their paths: one row each, or an image's boxes."""
    torch.manual_seed(seed)
    hierarchy = Hierarchy(tree)
    stored = torch.rand(len(tree)) < 0.7 if some else None
    nodes = torch.randint(len(tree), (6,))
    owners = torch.tensor([0, 0, 2, 2, 2, 5]) if apart else None
    few = hierarchy.restrict(nodes, stored, owners)
    logits = torch.randn(6, len(tree), dtype=torch.float64)  # by image where apart, by node otherwise
    if some:
        logits[:, ~stored] = -torch.inf
    whole = hierarchy.log_conditionals(logits)
    path, which = hierarchy.stored_paths(nodes, stored)
    assert torch.equal(few.path, path) and torch.equal(few.which, which)
    assert torch.equal(few.columns[few.target], path)
    steps = few.log_conditionals(logits[:, few.columns])
    assert steps.isfinite().all()
    torch.testing.assert_close(steps, whole[which, path])
    if apart:
        sums = few.log_probabilities(logits[few.owner, few.columns, None])[:, 0]
        steps = whole[owners[which], path]
    else:
        assert few.columns.unique().shape == few.columns.shape
        sums = few.log_probabilities(logits.T[few.columns])[:, 0]
        steps = whole[0, path]
    torch.testing.assert_close(sums, torch.zeros(6, dtype=torch.float64).index_add(0, which, steps))
    every, of = hierarchy.paths(nodes)
    sizes = torch.bincount(hierarchy.group_of)[hierarchy.group_of[every]]
    assert torch.equal(hierarchy.path_widths(nodes), torch.zeros(6).long().index_add(0, of, sizes))


@pytest.mark.parametrize("rows", [1, 7, 49, 50])
def test_sums_of_some_rows_at_a_time_are_those_of_all(rows, monkeypatch):
    hierarchy = Hierarchy(make_tree([-1, -1, 0, 0, 0, 2]))
    logs = hierarchy.log_conditionals(torch.randn(50, 6))
    whole = hierarchy.log_probabilities(logs)
    monkeypatch.setattr("yolo9000.hierarchy._SUMS_AT_ONCE", rows * len(hierarchy))
    torch.testing.assert_close(hierarchy.log_probabilities(logs), whole)


def test_gradient_of_log_conditionals():
    hierarchy = Hierarchy(make_tree([-1, -1, 0, 0, 0, 2]))
    logits = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(hierarchy.log_conditionals, logits)


def test_flat_is_log_softmax():
    hierarchy = Hierarchy(WordTree.flat([str(k) for k in range(20)]))
    logits = torch.randn(7, 20)
    assert hierarchy.is_flat
    torch.testing.assert_close(hierarchy.log_conditionals(logits), logits.log_softmax(-1))
    nodes = torch.randint(20, (7,))
    expected = torch.nn.functional.cross_entropy(logits, nodes, reduction="none")
    torch.testing.assert_close(tree_cross_entropy(hierarchy, logits, nodes), expected)


@pytest.mark.parametrize(
    "parents", [[-1], list(range(-1, 400)), [-1] * 10_000], ids=["one node", "chain", "one wide group"]
)
def test_extreme_trees(parents):
    hierarchy = Hierarchy(make_tree(parents))
    logits = torch.randn(2, len(parents)) * 1e4
    sums = hierarchy.log_probabilities(hierarchy.log_conditionals(logits))
    loss = tree_cross_entropy(hierarchy, logits, torch.tensor([0, len(parents) - 1]))
    assert sums.isfinite().all() and torch.allclose(loss, -sums[[0, 1], [0, -1]], rtol=1e-5)


def test_empty_and_half_precision_and_wrong_size():
    hierarchy = Hierarchy(make_tree([-1, -1, 0]))
    none = torch.zeros(0, 3)
    assert hierarchy.log_probabilities(hierarchy.log_conditionals(none)).shape == (0, 3)
    assert tree_cross_entropy(hierarchy, none, torch.zeros(0, dtype=torch.long)).shape == (0,)
    half = torch.randn(4, 3).bfloat16()
    assert torch.equal(hierarchy.log_conditionals(half), hierarchy.log_conditionals(half.float()))
    assert hierarchy.log_conditionals(half).dtype == torch.float32
    assert not hierarchy.state_dict()
    with pytest.raises(ValueError, match="4 classes"):
        hierarchy.log_conditionals(torch.zeros(2, 4))


def test_ranges():
    values, which = ranges(torch.tensor([5, 9, 2]), torch.tensor([2, 0, 3]))
    assert values.tolist() == [5, 6, 2, 3, 4] and which.tolist() == [0, 0, 2, 2, 2]
    assert [len(t) for t in ranges(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))] == [
        0,
        0,
    ]
