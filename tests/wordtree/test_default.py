"""The default tree: its figures, its likeness to Darknet's, and that public facts give it again."""

import random
import subprocess
import sys

import pytest

from wordtree import TreeError, WordTree, wordnet
from wordtree.classes import table
from wordtree.default import FEWEST_PICTURES, build_default, default_labels, read_counts
from wordtree.growth import build


def test_figures():
    tree = WordTree.default()
    assert len(tree) == 9418
    assert [tree.names[i] for i in tree.roots] == ["thing", "object", "matter", "atmospheric phenomenon"]
    assert tree is WordTree.default()
    assert all(
        len(c) == 9418 for c in (tree.glosses, tree.synsets, tree.synonyms, tree.sources, tree.hypernyms)
    )
    assert all(tree.glosses)
    assert len(set(tree.synsets)) == 9418


def test_models_depend_on_this_fingerprint():
    # A changed tree turns every model made for it into waste: change this line only together with the
    # embedded model.
    expected = "4990144da8b254b2768bfdfcc8942398a478f5d44c5367fedd7b4e0f2b865ddf"
    assert WordTree.default().fingerprint == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [("husky", "Eskimo dog"), ("dog.n.01", "dog"), ("n02391049", "zebra"), ("puma", "cougar")],
)
def test_names_people_use(text, name):
    tree = WordTree.default()
    assert tree.names[tree.index(text)] == name


def test_a_node_that_is_no_label_holds_others_together():
    tree = WordTree.default()
    for i, tags in enumerate(tree.sources):
        if not tags:
            assert len(tree.children(i)) > 1
    assert {tag for tags in tree.sources for tag in tags} == {"imagenet", "ilsvrc", "det", "coco"}


def test_only_children_have_children_of_their_own():
    tree = WordTree.default()
    for i in range(len(tree)):
        if not tree.siblings(i):
            assert tree.children(i)


def test_loading_needs_neither_wordnet_nor_torch():
    code = (
        "import sys, wordtree; t = wordtree.WordTree.default(); t.index('husky'); "
        "wordtree.class_map('coco'); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'nltk', 'networkx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_or_its_console_loads_nothing_heavy():
    code = (
        "import sys, wordtree, wordtree.console; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.reference
def test_made_again_from_public_facts_it_is_identical(shared, needs_wordnet):
    counts = read_counts(shared / "data" / "imagenet" / "fall2011_counts.tsv")
    assert build_default(counts).to_dict() == WordTree.default().to_dict()


@pytest.mark.reference
@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_labels_does_not_matter(shared, needs_wordnet, seed):
    labels = list(default_labels(read_counts(shared / "data" / "imagenet" / "fall2011_counts.tsv")).items())
    random.Random(seed).shuffle(labels)
    assert build(dict(labels)).fingerprint == WordTree.default().fingerprint


@pytest.mark.reference
def test_labels_are_counted_right(shared, needs_wordnet):
    counts = read_counts(shared / "data" / "imagenet" / "fall2011_counts.tsv")
    labels = default_labels(counts)
    tree = WordTree.default()
    assert set(labels) <= set(tree.ids)
    for node, tags in labels.items():
        assert ("imagenet" in tags) == (counts.get(node, 0) >= FEWEST_PICTURES)


@pytest.mark.reference
def test_no_line_of_the_labels_left_out_is_idle(shared, needs_wordnet, monkeypatch):
    counts = read_counts(shared / "data" / "imagenet" / "fall2011_counts.tsv")
    left_out = {node for node, *_ in table("left_out.tsv", 3)}
    with_them = set(default_labels(counts)) | left_out
    monkeypatch.setattr("wordtree.default.table", lambda *_: ())
    assert set(default_labels(counts)) == with_them


@pytest.mark.reference
def test_close_to_the_reference(shared):
    reference = WordTree.from_darknet(shared / "darknet" / "data" / "9k.tree")
    tree = WordTree.default()
    both = [node for node in tree.ids if node in reference]

    def parent(of, node):
        k = of.parent(node)
        return of.ids[k] if k >= 0 else None

    same = sum(parent(tree, node) == parent(reference, node) for node in both)
    assert len(both) >= 9400
    assert same >= 9280


@pytest.mark.reference
def test_hypernym_paths_are_wordnets_but_for_the_grafts(needs_wordnet, shared):
    from wordtree.grafts import default_grafts
    from wordtree.growth import PHYSICAL_ENTITY

    tree, grafts = WordTree.default(), default_grafts()
    for node in tree.ids:
        above = PHYSICAL_ENTITY
        for step in tree.hypernym_path(node):
            known = {wordnet.wnid(h) for h in wordnet.hypernyms(wordnet.synset(step))}
            assert above in known or grafts.get(step) == above
            above = step
        assert above == node


@pytest.mark.parametrize(
    "content",
    [
        "",
        "wnid\timages\nn1\n",
        "n1\t-5\n",
        "n1\t5\nn1\t6\n",
        "n1 5\n",
        "n1\tmany\n",
        "n1\t5\n\n",
        "n1\t800\n",
        "n02084071\t" + "9" * 5000,
    ],
)
def test_faults_of_counts(tmp_path, content):
    path = tmp_path / "counts.tsv"
    path.write_text(content)
    with pytest.raises(TreeError, match=r"counts\.tsv"):
        read_counts(path)


def test_counts_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "counts.tsv"
    path.write_text("wnid\timages\nn02084071\t800\n", "utf-8-sig")
    assert read_counts(path) == {"n02084071": 800}
