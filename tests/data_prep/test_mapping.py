"""Classes to nodes: by id, synset, table, file and name; never by a guess."""

import pytest

import wordtree
from data_prep import DataError
from data_prep.mapping import map_categories
from data_prep.record import Category
from wordtree import WordTree


def mapped(names, tree, how=None, root=None, synsets=None):
    categories = {k: Category(name, (synsets or {}).get(name)) for k, name in enumerate(names)}
    return map_categories(categories, categories, tree, how, *([root] if root else []))


@pytest.fixture(scope="module")
def with_synsets():
    ids = ["n00000001", "n00000002", "n00000003"]
    return WordTree(
        ids, [-1, -1, 0], ["mouse", "device", "mouse"], synsets=["a.n.01", "b.n.01", "mouse.n.04"]
    )


def test_by_wordnet_id_and_by_synset(with_synsets):
    found = mapped(
        ["n00000002", "a.n.01", "n99999999", "device", "any"], with_synsets, synsets={"any": "mouse.n.04"}
    )
    assert found.nodes == {0: 1, 1: 0, 4: 2}
    assert set(found.unmapped) == {2, 3}  # `device` is a node's name, but nobody said that names are meant


def test_names_only_when_asked_for_and_unique(with_synsets):
    found = mapped(["device", "mouse"], with_synsets, "names")
    assert found.nodes == {0: 1}
    assert set(found.unmapped) == {1}


def test_only_used_classes_are_looked_up(tree):
    categories = {1: Category("n00000001"), 2: Category("nothing")}
    assert map_categories(categories, [1, 1], tree, None).unmapped == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "class,wnid\n# a comment\nhund,n00000004\n\nkatze,n00000003,with a remark\nother,\n"),
        ("m.csv", '"hund", "n00000004"\n"katze", "cat", "a, remark"\n"other", ""\n'),
        ("m.tsv", "hund\tn00000004\nkatze\tcat\nother\t\tnot wanted\n"),
        ("M.CSV", "hund,n00000004\nkatze,cat\nother,\n"),
        ("m.json", '{"hund": "n00000004", "katze": "cat", "other": null}'),
    ],
)
def test_a_file_says_it(tmp_path, tree, name, text):
    (tmp_path / name).write_text(text)
    found = mapped(["Hund", "katze", "other", "missing"], tree, name, tmp_path)
    assert found.nodes == {0: 3, 1: 2}
    assert set(found.left_out) == {2}
    assert set(found.unmapped) == {3}


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_fields_are_apart_as_in_tables_of_trees(tmp_path, tree, sign):
    text = f"# one; two, three\n\nant{sign}{tree.ids[1]}\nbee{sign}{sign}unwanted\n"
    (tmp_path / "m.csv").write_text(text)
    found = mapped(["ant", "bee"], tree, "m.csv", tmp_path)
    assert found.nodes == {0: 1} and "unwanted" in found.left_out[1]


def test_a_file_may_use_the_data_sets_numbers(tmp_path, tree):
    (tmp_path / "m.csv").write_text("0,n00000004\n")
    assert mapped(["hund"], tree, "m.csv", tmp_path).nodes == {0: 3}


def test_two_spellings_of_one_class_may_both_be_there(tmp_path, tree):
    (tmp_path / "m.csv").write_text("sofa,n00000004\ncouch,n00000004,as COCO has it\n")
    assert mapped(["sofa", "couch", "Couch"], tree, "m.csv", tmp_path).nodes == {0: 3, 1: 3, 2: 3}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "hund\n"),
        ("m.csv", "sofa,n00000004\ncouch,n00000003\n"),
        ("m.csv", "hund,n00000004\nhund,n00000004\n"),
        ("m.csv", ",n00000004\n"),
        ("m.csv", "hund,n00000004\nHund,n00000003\n"),
        ("m.json", "[1]"),
        ("m.json", '{"hund": 3}'),
        ("m.json", "{"),
        ("m.csv", b"\xff\xfe"),
        ("m.xlsx", "x"),
        ("nothing", ""),
    ],
)
def test_unreadable_maps_are_refused(tmp_path, tree, name, text):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError):
        mapped(["hund"], tree, name, tmp_path)
    with pytest.raises(DataError):
        mapped(["hund"], tree, "absent.csv", tmp_path)


@pytest.mark.parametrize("table", ["coco", "voc", "det"])
def test_every_class_of_a_table_is_a_node_of_the_default_tree(table):
    names = [name for name, _ in wordtree.class_map(table)]
    found = mapped(names, WordTree.default(), table)
    tree = WordTree.default()
    assert [tree.ids[node] for node in found.nodes.values()] == [
        wnid for _, wnid in wordtree.class_map(table)
    ]
    assert len(found.nodes) == len(names)


def test_a_name_that_two_rows_of_a_table_share_is_no_guess():
    found = mapped(["crane", "Cardigan", "Tabby"], WordTree.default(), "ilsvrc")
    tree = WordTree.default()
    assert {tree.ids[node] for node in found.nodes.values()} == {"n02113186", "n02123045"}
    assert list(found.unmapped) == [0] and "several classes of ilsvrc" in found.unmapped[0]


@pytest.mark.reference
def test_caltech101_is_in_the_default_tree(shared):
    from data_prep.pictures import open_pictures

    pictures = open_pictures(shared / "data" / "caltech101" / "images.tar")
    names = sorted({name.split("/")[0] for name in pictures.names()})
    found = mapped(names, WordTree.default(), "caltech101")
    assert found.unmapped == {}
    assert len(found.nodes) + len(found.left_out) == len(names) == 100
    assert {names[k] for k in found.left_out} == {
        "brain",
        "buddha",
        "dollar_bill",
        "garfield",
        "snoopy",
        "yin_yang",
    }
    assert all(":" in why for why in found.left_out.values())
