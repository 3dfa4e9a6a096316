"""Counts along the tree, against counting one by one."""

from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.statistics import statistics
from data_prep.store import Store
from tests.data_prep.test_store import random_samples, write


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10), st.integers(0, 1000))
def test_every_node_counts_what_lies_below_it(tmp_path, tree, make, count, seed):
    samples = random_samples(make, count, seed)
    nodes = statistics(Store(write(tmp_path / "s.h5", tree, samples)))["nodes"]
    for k, node in enumerate(tree.ids):
        under = {k, *tree.descendants(k)}
        boxes = [label for one in samples for label in one.labels.tolist()]
        labels = [label for one in samples for label in one.image_labels.tolist()]
        wanted = {
            "name": tree.names[k],
            "depth": tree.depth(k),
            "boxes": boxes.count(k),
            "image_labels": labels.count(k),
            "all_boxes": sum(label in under for label in boxes),
            "all_image_labels": sum(label in under for label in labels),
        }
        assert nodes.get(node) == (wanted if wanted["all_boxes"] + wanted["all_image_labels"] else None)
    # An outline: whatever comes after a node and deeper lies below it, until something as high.
    order = [tree.index(node) for node in nodes]
    for before, after in pairwise(order):
        parent = int(tree.parents[after])
        assert parent < 0 or parent in (before, *tree.ancestors(before))
    roots = [nodes[tree.ids[k]] for k in order if tree.parents[k] < 0]
    sizes = [row["all_boxes"] + row["all_image_labels"] for row in roots]
    assert sizes == sorted(sizes, reverse=True)
    assert np.sum(sizes) == len([label for one in samples for label in one.nodes])
