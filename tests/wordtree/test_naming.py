"""Class names to nodes: each rule by examples, whole data sets by their own tables."""

import csv
import unicodedata

import pytest

from wordtree import TreeError, WordTree, class_map
from wordtree.naming import ClassTable, class_key, exact, map_names, read_names, report, singulars


@pytest.fixture(scope="module")
def tree() -> WordTree:
    return WordTree.default()


@pytest.mark.parametrize(
    ("name", "rule", "node"),
    [
        ("n02084071", "id", "n02084071"),
        ("n02084071 dog, domestic dog", "id", "n02084071"),
        ("dog.n.01", "synset", "n02084071"),
        ("zebra", "name", "n02391049"),
        ("Polar_bear", "name", "ice bear"),
        ("tench, Tinca tinca", "name", "tench"),
        ("crane (bird)", "qualifier", "crane.n.05"),
        ("Crane (Device)", "qualifier", "crane.n.04"),
        ("zebras", "singular", "zebra"),
        ("poles", "singular", "n03976657"),  # no pol, a politician
        ("caves", "singular", "cave"),  # no cafe
        ("cranes (bird)", "singular", "crane.n.05"),
        ("oranges", "", None),  # the fruit, the tree and others, but no orang
        ("tapes", "", None),
        ("crane", "", None),
        ("no such thing", "", None),
        ("(", "", None),
        (" ", "", None),
        ("s", "", None),
    ],
)
def test_rules(tree, name, rule, node):
    (found,) = map_names([name], tree)
    assert (found.rule, found.node) == (rule, None if node is None else tree.index(node))
    assert bool(found.note) == (node is None or rule in ("qualifier", "singular"))


@pytest.mark.parametrize("table", ["coco", "voc", "det", "ilsvrc"])
def test_tables_give_every_class(tree, table):
    found = map_names([name for name, _ in class_map(table)], tree, table=table)
    names = [name for name, _ in class_map(table)]
    for f, (name, node) in zip(found, class_map(table), strict=True):
        if names.count(name) == 1:
            assert (f.rule, tree.ids[f.node]) == ("table", node)
        else:  # crane and maillot of ILSVRC
            assert (f.node, node in f.note) == (None, True)


def test_what_names_give_agrees_with_the_tables(tree):
    # By name alone a class must go where the table says; a few names mean another node to WordNet.
    wanted = dict(class_map("det"))
    found = [f for f in map_names(list(wanted), tree) if f.node is not None]
    assert {f.rule for f in found} <= {"name", "qualifier", "singular"}
    same = sum(tree.ids[f.node] == wanted[f.name] for f in found)
    assert len(found) >= 120
    assert same / len(found) >= 0.95


def test_wider(tree, needs_wordnet):
    (strict,) = map_names(["pug.n.01"], tree)
    lacking = next(
        n for n in ("n02108915", "n02084732", "n02110532") if n not in tree
    )  # dogs finer than the tree
    (found,) = map_names([lacking], tree, wider=True)
    assert (found.rule, tree.is_ancestor("dog.n.01", found.node)) == ("wider", True)
    assert map_names([lacking], tree)[0].node is None
    (unknown,) = map_names({"thing": "stop_sign_that_is_none.n.01"}, tree, wider=True)
    assert unknown.node is None
    assert "no noun" in unknown.note
    assert strict.node is None or strict.rule == "synset"


@pytest.mark.reference
def test_darknets_lists_of_coco_and_voc(shared, tree):
    for table in ("coco", "voc"):
        found = map_names(read_names(shared / "darknet" / "data" / f"{table}.names"), tree, table=table)
        assert [tree.ids[f.node] for f in found] == [node for _, node in class_map(table)]


@pytest.mark.reference
def test_lvis(shared, tree, needs_wordnet):
    names = read_names(shared / "data" / "coco" / "lvis_val_100.json")
    assert len(names) > 1000
    found = map_names(names, tree)
    assert all(f.rule == "synset" or (f.node is None and f.note) for f in found)
    for f in found:
        if f.node is not None:
            assert tree.synsets[f.node] == names[f.name]
    wide = map_names(names, tree, wider=True)
    assert sum(f.node is None for f in wide) < sum(f.node is None for f in found)
    text = report(wide)
    for f in wide:
        assert (f.node is None) == (f"- {f.name}: " in text)


def test_files(tmp_path):
    (tmp_path / "classes.csv").write_text("LabelName,DisplayName\n/m/01,Person\n/m/02,Bat (Animal)\n")
    assert list(read_names(tmp_path / "classes.csv")) == ["Person", "Bat (Animal)"]
    names = ["Person", 'Genus\u00e9 "the odd"', "Bat, grey", '5" gun']
    with (tmp_path / "CLASSES.CSV").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("LabelName", "DisplayName"), *enumerate(names)])
    assert list(read_names(tmp_path / "CLASSES.CSV")) == names
    names = ["Bat, grey", "'x'", '12" ruler, steel', 'Ruler, "steel', 'a "b" c']
    (tmp_path / "classes.csv").write_text("".join(f"{k}, {name}\n" for k, name in enumerate(names)))
    assert list(read_names(tmp_path / "classes.csv")) == names
    (tmp_path / "voc.names").write_text("\ufeffdog\ncat\n", encoding="utf-8")
    assert list(read_names(tmp_path / "voc.names")) == ["dog", "cat"]
    for name, text in (
        ("a.json", "{}"),
        ("a.json", "[]"),
        ("a.json", "{"),
        ("a.csv", "x\n"),
        ("a.csv", '1,"x\n'),
        ("a.csv", '1,"x",y\n'),
        ("a.names", ""),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(TreeError, match=name):
            read_names(tmp_path / name)


def test_a_plural_of_several_names_is_not_guessed():
    tree = WordTree.flat(["ax", "axe", "leaf", "loaf"])
    several, one = map_names(["axes", "leaves"], tree)
    assert (several.node, several.note) == (None, "2 nodes go by that name: ax ax; axe axe")
    assert (one.node, one.rule) == (2, "singular")


def test_a_tree_without_wordnets_ids_and_synset_names_is_asked_by_name():
    own = WordTree.flat(["dog", "stop sign"])
    named = {
        "dog": "dog.n.01",
        "stop_sign": "stop_sign.n.01",
        "n02084071 dog, domestic dog": None,
        "cat": "cat.n.01",
    }
    assert [(f.node, f.rule) for f in map_names(named, own)] == [
        (0, "name"),
        (1, "name"),
        (0, "name"),
        (None, ""),
    ]
    darknet = WordTree(["n02084071", "n00000001"], [-1, -1], ["dog", "crane"])  # ids, but no synset names
    assert [f.node for f in map_names(["n02012849 crane", "n02084071 crane"], darknet)] == [None, 0]
    assert [f.node for f in map_names({"dog": "dog.n.01"}, darknet)] == [0]


def test_accents_apart_from_their_letters_are_no_other_name():
    together, apart = (unicodedata.normalize(form, "Pâté") for form in ("NFC", "NFD"))
    assert together != apart and class_key(together) == class_key(apart)
    for own, asked in ((together, apart), (apart, together)):
        assert exact(asked, WordTree.flat([own])) == 0
        assert map_names([asked.upper()], WordTree(["x"], [-1], [own]))[0].node == 0


def test_singulars():
    assert "cherry" in singulars("cherries")
    assert "knife" in singulars("knives")
    assert "glass" in singulars("glasses")
    assert singulars("glass") == ()
    assert singulars("stages") == ("stage",)
    assert singulars("torches") == ("torch", "torche")
    assert singulars("s") == ()


def test_spellings_of_coco_and_voc_meet():
    for one, other in [
        ("aeroplane", "airplane"),
        ("pottedplant", "Potted plant"),
        ("tvmonitor", "tv"),
        ("sofa", "couch"),
    ]:
        assert class_key(one) == class_key(other)
    assert class_key("cat") != class_key("car")


def test_a_table_prefers_its_own_spelling():
    table = ClassTable([("Cardigan", 1), ("cardigan", 2), ("hot dog", 3), ("crane", 4), ("crane", 5)])
    assert [table[name] for name in ("Cardigan", "cardigan", "CARDIGAN")] == [(1,), (2,), (1, 2)]
    assert [table[name] for name in ("Hot_Dog", "hotdog", "crane", "dog")] == [(3,), (3,), (4, 5), ()]


@pytest.mark.parametrize(
    ("text", "node", "by_name"),
    [
        ("n02084071", "n02084071", "n02084071"),
        ("dog.n.01", "n02084071", "n02084071"),
        ("zebra", None, "n02391049"),
        ("zebras", None, None),
        ("tench, Tinca tinca", None, None),
        ("crane", None, None),
        ("n99999999", None, None),
        ("pug.n.99", None, None),
    ],
)
def test_exact_takes_a_text_as_it_stands(tree, text, node, by_name):
    for said, wanted in ((exact(text, tree), node), (exact(text, tree, by_name=True), by_name)):
        assert (None if said is None else tree.ids[said]) == wanted
