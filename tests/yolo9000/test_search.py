"""Ways down the tree against looking at all of it, and runs of numbers against one run after the other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.trees import AskedConditionals, random_conditionals, random_tree
from yolo9000.conditionals import Looks, log_softmax_runs, runs
from yolo9000.cuts import at_depth
from yolo9000.descent import leaf, path_log_probabilities
from yolo9000.search import best_end


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 25),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.4, 0.8]),
    st.sampled_from([None, 0, 1, 2, 3, 10]),
)
def test_the_best_end_is_that_of_the_whole_tree(seed, groups, boxes, missing, deepest):
    check_best_end(seed, groups, boxes, missing, deepest)


@pytest.mark.parametrize("missing", [0.4, 0.8])
@pytest.mark.parametrize("deepest", [1, 2, 3])
def test_the_best_end_is_above_the_depth_where_rows_end_there(missing, deepest):
    for seed in range(8):
        check_best_end(seed, 25, 5, missing, deepest)


def check_best_end(seed, groups, boxes, missing, deepest):
    """The most probable node of a depth or of what ends above it, `deepest` None: leaf."""
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, logs = random_conditionals(random, tree, boxes, missing)
    whole = hierarchy.log_probabilities(logs)
    found = best_end(hierarchy, AskedConditionals(logs), deepest)
    expected = leaf(hierarchy, logs) if deepest is None else at_depth(hierarchy, whole, deepest)
    assert torch.equal(found.nodes, expected)
    path = path_log_probabilities(hierarchy, whole, expected)
    width = max(path.shape[1], found.log_path.shape[1])
    padded = [
        torch.nn.functional.pad(p, (0, width - p.shape[1]), value=math.nan) for p in (found.log_path, path)
    ]
    torch.testing.assert_close(*padded, equal_nan=True, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.log_given, logs.gather(1, expected[:, None])[:, 0])


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("deepest", [0, 1, 2])
def test_where_no_root_is_possible_the_best_end_is_that_of_the_whole_tree(value, deepest):
    random = np.random.default_rng(0)
    hierarchy, logs = random_conditionals(random, random_tree(random, 25), 3)
    logs[1] = value
    found = best_end(hierarchy, AskedConditionals(logs), deepest)
    assert torch.equal(found.nodes, at_depth(hierarchy, hierarchy.log_probabilities(logs), deepest))
    expected = logs.gather(1, found.nodes[:, None])[:, 0]
    torch.testing.assert_close(found.log_given, expected, equal_nan=True)


def test_what_cannot_be_the_best_is_not_looked_at():
    """At boxes that are sure of a path the groups beside it are asked for by nobody."""
    random = np.random.default_rng(5)
    tree = random_tree(random, 40)
    hierarchy, logs = random_conditionals(random, tree, 3)
    sure = hierarchy.log_conditionals(logs * 1e3)
    asked = AskedConditionals(sure)
    best = best_end(hierarchy, asked)
    on_the_way = {int(hierarchy.group_starts[hierarchy.group_of[k]]) for k in hierarchy.paths(best.nodes)[0]}
    assert set(asked.asked) == on_the_way and len(on_the_way) < hierarchy.groups / 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([-math.inf, -1e4, -1.0, 0.0, 2.5, 1e4]), min_size=1, max_size=6), min_size=1
    )
)
def test_log_softmax_of_each_run(values):
    """As torch's of each run; where a whole run is -inf, -inf."""
    flat = np.array([value for run in values for value in run], np.float32)
    found = log_softmax_runs(flat, np.array([len(run) for run in values]))
    expected = [
        torch.tensor(run).log_softmax(0).nan_to_num(nan=-math.inf, neginf=-math.inf) for run in values
    ]
    assert np.allclose(found, torch.cat(expected).numpy(), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([0.0, 0.3]))
def test_walkers_look_side_by_side(seed, count, broken):
    """Each walker finds its own group and the first of its largest values; where one is NaN, some place."""
    random = np.random.default_rng(seed)
    starts = np.concatenate(([0], random.integers(1, 5, 4).cumsum()))
    groups, boxes = random.integers(0, 4, count), random.permutation(count)
    order, looks = Looks.sorted(starts, groups, boxes)
    assert (looks.boxes == boxes[order]).all() and looks.counts.sum() == count
    assert (looks.first.repeat(looks.counts) == starts[groups[order]]).all()
    assert (looks.sizes == np.diff(starts)[groups[order]]).all()
    values = [random.integers(0, 3, size).astype(np.float32) for size in looks.sizes]
    for one in values:
        if random.random() < broken:
            one[random.integers(len(one))] = np.nan
    highest, place = looks.best(np.concatenate(values))
    for one, value, at in zip(values, highest, place, strict=True):
        if np.isnan(one).any():
            assert np.isnan(value) and 0 <= at < len(one)
        else:
            assert value == one.max() and at == one.argmax()


@pytest.mark.parametrize(
    ("starts", "lengths", "expected"),
    [([5, 2], [2, 3], [5, 6, 2, 3, 4]), ([7, 1, 4], [0, 2, 0], [1, 2]), ([], [], [])],
)
def test_runs(starts, lengths, expected):
    found = runs(np.array(starts, np.int64), np.array(lengths, np.int64))
    assert found.tolist() == expected
