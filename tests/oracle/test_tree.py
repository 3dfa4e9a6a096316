"""Darknet's own tree, held against the figures that are known of it and read and written byte for byte."""

import numpy as np
import pytest

from wordtree import WordTree, class_map, diff
from wordtree.darknet import read_map
from wordtree.default import FEWEST_PICTURES, build_1k, build_reference, default_labels, read_counts
from wordtree.grafts import overrides
from wordtree.growth import build

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


def as_parents(tree: WordTree) -> dict[str, str | None]:
    return {
        node: None if p < 0 else tree.ids[p] for node, p in zip(tree.ids, tree.parents.tolist(), strict=True)
    }


@pytest.fixture(scope="module")
def counts(shared):
    return read_counts(shared / "data" / "imagenet" / "fall2011_counts.tsv")


def test_the_rules_alone(reference, counts, needs_wordnet):
    labels = {node for node, pictures in counts.items() if pictures >= FEWEST_PICTURES}
    labels |= {node for name in ("ilsvrc", "det", "coco") for _, node in class_map(name)}
    fed = labels & set(reference.ids)
    assert fed == set(default_labels(counts))
    tree = build(fed)
    assert tree.fingerprint == WordTree.default().fingerprint
    ours, theirs = as_parents(tree), as_parents(reference)
    assert len(ours.keys() & theirs.keys()) >= 9410
    assert len(ours.items() & theirs.items()) >= 0.995 * 9418


def test_with_the_overrides_the_reference_comes_out_whole(reference, counts, needs_wordnet):
    tree = build_reference(counts)
    assert as_parents(tree) == as_parents(reference)
    # Pre-order over groups, as there: with the members of its groups sorted the reference is this tree.
    assert list(tree.ids) == preorder_of_sorted_groups(reference)


def preorder_of_sorted_groups(tree: WordTree, parent: str | None = None) -> list[str]:
    below = sorted(tree.ids[i] for i in (tree.roots if parent is None else tree.children(parent)))
    return below + [node for child in below for node in preorder_of_sorted_groups(tree, child)]


def test_the_reference_itself_is_in_preorder_over_groups(reference):
    def walk(group):
        return [*group, *(node for i in group for node in walk(reference.children(i)))]

    assert walk(reference.roots) == list(range(9418))


def test_no_override_is_idle(reference, counts, needs_wordnet):
    from wordtree.grafts import default_grafts

    labels, wanted = default_labels(counts), as_parents(reference)
    for node in overrides():
        others = {k: v for k, v in overrides().items() if k != node}
        assert as_parents(build(labels, grafts={**default_grafts(), **others})) != wanted


def test_class_rows_are_carried_over(reference):
    ours = WordTree.default()
    carried = diff(reference, ours).map
    rows = np.arange(9418) * 10  # row k of Darknet's class layer
    new = np.full(9418, -1)
    new[carried[carried >= 0]] = rows[carried >= 0]
    for i, node in enumerate(ours.ids):
        assert new[i] == (reference.index(node) * 10 if node in reference else -1)
    assert (carried < 0).sum() == 1


def test_wordtree1k_has_the_papers_number_of_nodes(needs_wordnet):
    tree = build_1k()
    assert len(tree) == 1369
    assert {node for _, node in class_map("ilsvrc")} == {
        n for n, s in zip(tree.ids, tree.sources, strict=True) if s
    }
