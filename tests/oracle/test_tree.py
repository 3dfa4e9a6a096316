"""Darknet's own tree, held against the figures that are known of it and read and written byte for byte."""

import numpy as np
import pytest

from wordtree import WordTree
from wordtree.darknet import read_map

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def data(shared):
    return shared / "darknet" / "data"


@pytest.fixture(scope="module")
def reference(data) -> WordTree:
    return WordTree.from_darknet(data / "9k.tree", data / "9k.names", data / "9k.labels")


def test_figures(reference):
    sizes = np.diff(reference.group_starts)
    assert len(reference) == 9418
    assert len(sizes) == 1846
    assert len(reference.leaves) == 7573
    assert [reference.names[i] for i in reference.roots] == [
        "thing",
        "matter",
        "object",
        "atmospheric phenomenon",
    ]
    assert (reference.depths.min(), reference.depths.max()) == (0, 16)
    assert (np.median(sizes), sizes.max(), (sizes == 1).sum()) == (3, 149, 46)
    assert len(set(reference.names)) == 8756


def test_written_byte_for_byte(data, reference, tmp_path):
    for path in reference.to_darknet(tmp_path, "9k"):
        assert path.read_bytes() == (data / path.name).read_bytes()


def test_maps(data, reference):
    coco = read_map(data / "coco9k.map", len(reference))
    det = read_map(data / "inet9k.map", len(reference))
    assert (len(coco), len(set(coco.tolist())), len(det)) == (80, 80, 200)
    assert np.isin(coco, reference.leaves).sum() == 36


def test_nested_targets(reference):
    assert reference.is_ancestor("sandwich", "hotdog")
    assert reference.is_ancestor("timepiece", "parking meter")


def test_promoted_labels_stand_beside_their_parents(reference):
    assert reference.parent("n07714895") == reference.parent("n07714571")  # savoy cabbage, head cabbage
    for above, below in (("pachyderm", "elephant"), ("cetacean", "whale")):
        (only,) = reference.children(above)
        assert reference.names[only] == below
