"""Sibling log-softmax in buckets against four other ways to compute it, and at the extremes."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.test_hierarchy import make_tree, trees
from wordtree import WordTree
from yolo9000 import siblings
from yolo9000.hierarchy import Hierarchy, log_softmax_segments
from yolo9000.siblings import SiblingSoftmax


def by_loop(h: Hierarchy, logits: torch.Tensor) -> torch.Tensor:
    result = logits.clone()
    starts = h.group_starts.tolist()
    for first, last in pairwise(starts):
        result[:, first:last] = logits[:, first:last].log_softmax(1)
    return result


def by_split(h: Hierarchy, logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.log_softmax(1) for part in logits.split(h.group_starts.diff().tolist(), 1)], 1)


def by_padding(h: Hierarchy, logits: torch.Tensor) -> torch.Tensor:
    longest = int(h.group_starts.diff().max())
    column = torch.arange(h.nodes) - h.group_starts[h.group_of] + h.group_of * longest
    padded = logits.new_full((len(logits), h.groups * longest), -math.inf).index_copy(1, column, logits)
    return padded.view(len(logits), h.groups, longest).log_softmax(2).flatten(1)[:, column]


def by_scatter(h: Hierarchy, logits: torch.Tensor) -> torch.Tensor:
    return log_softmax_segments(logits.T.contiguous(), h.group_of, h.groups).T


OTHERS = (by_loop, by_split, by_padding, by_scatter)


@pytest.mark.parametrize("part", [1, 40, 2**20], ids=["row by row", "in parts", "at once"])
@settings(max_examples=10, deadline=None)
@given(
    trees(60),
    st.sampled_from([0, 1, 3, 13, 40]),
    st.sampled_from([1.0, 1e4]),
    st.integers(0, 2**31),
    st.sampled_from([0, 10**6]),
)
def test_equals_the_four_other_forms(part, tree, rows, scale, seed, tall_width):
    """With gradients; both layouts, whole and in parts."""
    h = Hierarchy(tree)
    torch.manual_seed(seed)
    logits = (torch.randn(rows, h.nodes, dtype=torch.float64) * scale).requires_grad_()
    weights = torch.randn(rows, h.nodes, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(siblings, "_PART", part)
        patch.setattr(siblings, "_TALL_WIDTH", tall_width)
        patch.setattr(siblings, "_FEW", tall_width)
        ours = SiblingSoftmax(h.group_starts)(logits)
        (gradient,) = torch.autograd.grad((ours * weights).sum(), logits)
        with torch.no_grad():
            assert torch.equal(SiblingSoftmax(h.group_starts)(logits), ours)
    for form in OTHERS:
        found = form(h, logits)
        torch.testing.assert_close(ours, found, rtol=1e-10, atol=1e-9)
        (expected,) = torch.autograd.grad((found * weights).sum(), logits)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 20], ids=["one", "wide", "tall"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_stable_far_out_in_every_precision(rows, dtype):
    """Logits of +-1e4 as the type holds them: finite, and as exact as float64 computes from the same."""
    h = Hierarchy(WordTree.default())
    torch.manual_seed(0)
    logits = ((torch.rand(rows, h.nodes) * 2 - 1) * 1e4).to(dtype)
    found = h.log_conditionals(logits)
    assert found.dtype == torch.float32 and found.isfinite().all() and (found <= 0).all()
    torch.testing.assert_close(found, h.log_conditionals(logits.double()).float(), rtol=1e-6, atol=1e-6)
    sums = torch.zeros(rows, h.groups).index_add(1, h.group_of, found.exp())
    torch.testing.assert_close(sums, torch.ones_like(sums))
    learning = logits.clone().requires_grad_()
    h.log_conditionals(learning)[:, 5].sum().backward()
    assert learning.grad.dtype == dtype and learning.grad.isfinite().all()


@pytest.mark.parametrize("rows", [2, 13], ids=["wide", "tall"])
def test_gradients_by_finite_differences(rows):
    h = Hierarchy(make_tree([-1, -1, 0, 0, 0, 2, 3, 3]))
    logits = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(h.log_conditionals, logits)


@pytest.mark.parametrize("rows", [3, 13], ids=["wide", "tall"])
def test_missing_nodes_and_groups_of_one(rows):
    """A missing node takes nothing from its siblings and no gradient; a whole group may be missing."""
    h = Hierarchy(make_tree([-1, -1, -1, 0, 1, 1]))
    logits = torch.randn(rows, 6)
    logits[:, [1, 4, 5]] = -math.inf
    logits[0, 3] = -math.inf  # a group of one
    logits.requires_grad_()
    found = h.log_conditionals(logits)
    assert torch.isneginf(found.detach()).equal(torch.isneginf(logits.detach()))
    torch.testing.assert_close(found[:, [0, 2]], logits[:, [0, 2]].log_softmax(1))
    assert (found[1:, 3] == 0).all()
    found.exp().sum().backward()
    found = h.log_conditionals(logits)
    found[:, 0].sum().backward()
    assert logits.grad.isfinite().all() and (logits.grad[:, [1, 3, 4, 5]] == 0).all()
    assert (logits.grad[:, 0] > 0).all()


def test_nan_is_not_hidden():
    h = Hierarchy(make_tree([-1, -1, 0, 0]))
    logits = torch.zeros(2, 4)
    logits[0, 2] = math.nan
    found = h.log_conditionals(logits)
    assert found[0, 2:].isnan().all() and found[1].isfinite().all() and found[0, :2].isfinite().all()
