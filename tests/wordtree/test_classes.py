"""The committed tables."""

import pytest

import wordtree
from wordtree import TreeError, WordTree
from wordtree.classes import table


@pytest.mark.parametrize(
    ("name", "classes", "distinct"),
    [("coco", 80, 80), ("voc", 20, 20), ("det", 200, 200), ("ilsvrc", 1000, 1000)],
)
def test_every_class_has_its_node_in_the_default_tree(name, classes, distinct):
    rows = wordtree.class_map(name)
    tree = WordTree.default()
    assert len(rows) == classes
    assert len({node for _, node in rows}) == distinct
    assert all(node in tree for _, node in rows)
    if name != "ilsvrc":
        assert len({label for label, _ in rows}) == classes
    tag = "coco" if name == "voc" else name
    assert all(tag in tree.sources[tree.index(node)] for _, node in rows)


def test_unknown_data_set():
    with pytest.raises(TreeError, match="there are coco, det, voc, ilsvrc"):
        wordtree.class_map("imagenet")


def test_left_out_labels_and_grafts():
    tree = WordTree.default()
    for node, _, reason in table("left_out.tsv", 3):
        assert node not in tree
        assert reason
    for node, hypernym, reason in table("grafts.tsv", 3):
        assert tree.ids[tree.parent(node)] == hypernym
        assert reason


@pytest.mark.reference
def test_the_maps_are_those_of_the_reference(shared):
    data = shared / "darknet" / "data"
    ids = [line.split()[0] for line in (data / "9k.tree").read_text().splitlines()]
    for name, file in (("coco", "coco9k.map"), ("det", "inet9k.map")):
        mapped = [ids[int(line)] for line in (data / file).read_text().split()]
        assert [node for _, node in wordtree.class_map(name)] == mapped
    thousand = (data / "imagenet.labels.list").read_text().split()[:1000]
    assert [node for _, node in wordtree.class_map("ilsvrc")] == thousand
    assert [label for label, _ in wordtree.class_map("voc")] == (data / "voc.names").read_text().split()


@pytest.mark.reference
def test_coco_names_are_those_of_its_annotations(shared):
    import json

    categories = json.loads((shared / "data" / "coco128" / "instances.json").read_text())["categories"]
    names = [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
    assert [label for label, _ in wordtree.class_map("coco")] == names
