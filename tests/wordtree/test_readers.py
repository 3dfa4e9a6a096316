"""Other people's forms of a hierarchy: what is written comes back, and faults name their place."""

import csv
import json

import networkx
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from tests.wordtree.forests import trees
from wordtree import TreeError, TreeWarning, WordTree
from wordtree.cli import cli
from wordtree.folders import read_folders, write_folders
from wordtree.graphs import from_networkx, from_parents, write_graphml
from wordtree.layout import preorder
from wordtree.nested import from_nested, read_nested, to_nested
from wordtree.tables import read_edges, read_ranks, read_table, write_edges, write_ranks

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parents_of(tree: WordTree) -> dict[str, str | None]:
    return {n: None if tree.parent(n) < 0 else tree.ids[tree.parent(n)] for n in tree.ids}


def laid_out(tree: WordTree, names=None, glosses=None) -> WordTree:
    """The same tree in pre-order over groups, which is how readers lay trees out."""
    return WordTree(*preorder(parents_of(tree)), names, glosses)


@few
@given(trees())
def test_round_trips(tmp_path, tree):
    n = len(tree)
    tree = laid_out(
        tree, [f"name {i % 3}, é" for i in range(n)], ["" if i % 2 else f'a "gloss"; {i}' for i in range(n)]
    )
    bare = WordTree(tree.ids, tree.parents)
    for ending, form in (
        (".csv", "edges"),
        (".tsv", "edges"),
        (".graphml", "graphml"),
        (".json", "children"),
    ):
        path = tmp_path / f"t{ending}"
        write(tree, path, form)
        again = WordTree.load(path)
        assert (again, again.glosses) == (tree, tree.glosses if any(tree.glosses) else again.glosses)
    for ending, form in ((".csv", "ranks"), (".tsv", "ranks"), (".json", "openimages")):
        path = tmp_path / f"r{ending}"
        write(bare, path, form)
        assert WordTree.load(path) == bare
        before = path.read_bytes()
        write(WordTree.load(path), path, form)
        assert path.read_bytes() == before
    assert from_nested(json.loads(json.dumps(to_nested(bare, "keys")))) == bare
    assert WordTree.from_networkx(bare.to_networkx()) == bare


def write(tree, path, form):
    tree.save(source := path.with_name("source.json.gz"))
    done = CliRunner().invoke(cli, ["export", str(path), "--form", form, "--tree", str(source)])
    assert done.exit_code == 0, done


@few
@given(trees())
def test_folders(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("folders")
    write_folders(tree, folder)
    again = read_folders(folder)
    assert parents_of(again) == parents_of(tree)
    assert WordTree.load(folder) == again
    with pytest.raises(TreeError, match="not empty"):
        write_folders(again, folder)
    write_folders(again, folder / "new" / "one")
    assert read_folders(folder / "new" / "one") == again


def test_folders_with_other_things_in_them(tmp_path):
    (tmp_path / "animal" / "dog").mkdir(parents=True)
    (tmp_path / "animal" / "dog" / "1.jpg").write_text("")
    (tmp_path / ".git").mkdir()
    assert parents_of(read_folders(tmp_path)) == {"animal": None, "dog": "animal"}
    (tmp_path / "dog").mkdir()
    with pytest.raises(TreeError, match="the name is taken by"):
        read_folders(tmp_path)
    (tmp_path / "dog").rmdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(TreeError, match="a link to a folder"):
        read_folders(tmp_path)
    with pytest.raises(TreeError, match="no folders in it"):
        read_folders(tmp_path / "animal" / "dog")
    with pytest.raises(TreeError, match="cannot be read"):
        read_folders(tmp_path / "nowhere")
    with pytest.raises(TreeError, match="cannot be the name of a folder"):
        write_folders(WordTree(["a/b"], [-1]), tmp_path / "new")


def test_nested_forms():
    want = {"animal": None, "dog": "animal", "cat": "animal"}
    for value in (
        {"name": "animal", "children": [{"name": "dog"}, "cat"]},
        [{"id": "animal", "name": "Animals", "children": [{"name": "dog", "children": []}, {"id": "cat"}]}],
        {"LabelName": "animal", "Subcategory": [{"LabelName": "dog"}, {"LabelName": "cat"}]},
        {"animal": {"dog": {}, "cat": None}},
        {"animal": ["dog", "cat"]},
    ):
        assert parents_of(from_nested(value)) == want


def test_open_images_parts_and_several_parents():
    value = {
        "LabelName": "entity",
        "Subcategory": [
            {"LabelName": "person", "Subcategory": [{"LabelName": "man"}], "Part": [{"LabelName": "eye"}]},
            {"LabelName": "clown", "Subcategory": [{"LabelName": "man"}]},
        ],
    }
    with pytest.raises(TreeError, match=r"entity > person: has parts.*read_nested\(path, parts="):
        from_nested(value)
    assert parents_of(from_nested(value, parts="skip"))["man"] == "clown"  # both cost one; c comes before p
    assert parents_of(from_nested(value, parts="child"))["eye"] == "person"


def test_ranks_as_biologists_keep_them(tmp_path):
    path = tmp_path / "taxa.csv"
    path.write_text(
        "kingdom,family,genus,species\nAnimalia,Canidae,Canis,Canis lupus\n"
        "Animalia,,,Incerta\nAnimalia,Felidae,,\n"
    )
    tree = read_ranks(path)
    assert tree.path("Canis lupus") == ("Animalia", "Canidae", "Canis", "Canis lupus")
    assert tree.path("Incerta") == ("Animalia", "Incerta")
    assert list(tree.about["ranks"]) == ["kingdom", "family", "genus", "species"]
    write_ranks(tree, path)
    assert path.read_text().startswith("kingdom,family,genus,species\n")
    assert read_ranks(path).ids == tree.ids or parents_of(read_ranks(path)) == parents_of(tree)


@pytest.mark.parametrize(
    "text",
    [
        "kingdom,phylum,genus\nA,P1,G1\nA,,G2\nA,P2,\n",
        "kingdom,phylum,genus\nA,,G1\nB,,G2\n",
        "kingdom,phylum,genus\nA,P1,\nB,P2,\n",
        "kingdom,phylum,genus\n,,G1\nA,P1,G2\n",
    ],
)
def test_each_name_stays_in_its_rank(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    WordTree.load(tmp_path / "t.csv").save(tmp_path / "t.json")
    write_ranks(WordTree.load(tmp_path / "t.json"), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == text


def test_rows_of_nothing_are_none(tmp_path):
    for text in ("k,s\na,b\n,\n\n,\n", "child,parent\n\n,\nb,a\n , \n"):
        (tmp_path / "t.csv").write_text(text)
        assert read_table(tmp_path / "t.csv").ids == ("a", "b")


def test_check_warns_of_ids_that_may_be_one(tmp_path):
    rows = ["k,s", "Felidae,a", "felidae,b", "\u00e9quid\u00e9,c", "e\u0301quide\u0301,d", "Canidae,e"]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "t.csv")])
    assert result.exit_code == 0 and "sound" in result.stdout
    first, second = result.stderr.splitlines()
    assert "Felidae and felidae differ only in case" in first
    assert "'\\xe9quid\\xe9' and 'e\\u0301quide\\u0301' differ only" in second


def test_headings_of_edges_are_told_from_ranks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Child,Parent,NAME\ndog,animal,Dog\nanimal,,Animal\n")
    assert parents_of(read_table(path)) == {"animal": None, "dog": "animal"}
    assert read_table(path).names == ("Animal", "Dog")
    path.write_text("taxonID,parentNameUsageID,scientificName\n1,,Animalia\n2,1,Canis\n")
    with pytest.raises(TreeError, match=r"t\.csv:1: wanted the columns child, parent .* rename them"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "wanted a heading"),
        ("child,parent\n", "wanted a heading"),
        ("child,parent\na,b,c\n", "t.csv:2: 3 fields"),
        ("child,parent,colour\na,b,c\n", "t.csv:1: wanted the columns"),
        ("child,parent\n,b\n", "t.csv:2: no child"),
        ("child,parent\na,\nb,x\n", "t.csv:3: 'b' is below 'x', which has no line"),
        ("child,parent\na,\nb,a\nb,a\n", "t.csv:4: 'b' was already placed in line 3"),
        ("child,parent\na,\nb,a\nb,\n", "t.csv:4: 'b' was already placed in line 3"),
        ("child,parent\na,b\nb,a\n", "t.csv:3: a cycle through 'b', 'a'"),
        ("child,parent\nc,\na,a\n", "t.csv:3: a cycle through 'a'"),
        ("child,parent\nc,a\na,b\na,c\nb,d\n", "t.csv:3: a cycle through 'a', 'c'"),
        ("child,parent\nb,a\nx\a,a\n", "t.csv:3: an id is a non-empty printable text"),
        ("child,parent\nb,a\nc,x\a\n", "t.csv:3: an id is a non-empty printable text"),
        ('child,parent,name\nb,a,B\na,c,"A\nB"\n', "t.csv:4: names holds one line"),
        ("k,s\na,b\na,x\a\n", "t.csv:3: an id is a non-empty printable text"),
        ("kingdom,Kingdom\na,b\n", "t.csv:1: the heading"),
        ("child,parent,name\na,,x\nc,,\nb,a,y\nb,c,z\n", "t.csv:5: another name for 'b'"),
        ("kingdom,kingdom\na,b\n", "t.csv:1: the heading"),
        ("k,s\na,b\nc,b\n", "t.csv:3: 'b' is a s of 'c', but in line 2"),
        ("k,s\na,b\nb,\n", "t.csv:3: 'b' is a k"),
        ('k,s\na,"b\n', "t.csv:"),
        ("A,B,B c\nA,D,D e\nA,B,B f\n", "t.csv:2: 'A' in the column 'A': a heading twice, or none"),
        ("k,s\nA,a\nk,s\nB,b\n", "t.csv:3: 'k' in the column 'k': a heading twice, or none; the first line"),
    ],
)
def test_faults_of_tables(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TreeError, match=says):
        read_table(tmp_path / "t.csv")


def test_edges_without_lines_for_roots(tmp_path):
    (tmp_path / "t.tsv").write_text("child\tparent\ndog\tanimal\ncat\tanimal\n")
    assert parents_of(read_edges(tmp_path / "t.tsv")) == {"animal": None, "dog": "animal", "cat": "animal"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "at least one node"),
        (5, "wanted a list or an object"),
        ([5], "wanted a name or an object"),
        ([{"children": []}], "without id and name"),
        ([{"name": 5}], "are texts"),
        ([{"name": "a", "colour": 1}], "'colour' means nothing"),
        (["a", {"name": "b", "children": ["a"]}], "the top > b|b: 'a' is there twice"),
        ([{"name": "a", "children": "bc"}], "a: wanted a list or an object of children"),
        ({"LabelName": "a", "Subcategory": [{"LabelName": "a"}]}, "a cycle through 'a'"),
    ],
)
def test_faults_of_nested(value, says):
    with pytest.raises(TreeError, match=says):
        from_nested(value)


@pytest.mark.parametrize(
    "text",
    [
        '["cat", {"name": "dog", "children": ["husky"]}]',
        '[{"name": "dog", "children": ["husky"]}, "cat"]',
        '["cat", "dog"]',
    ],
)
def test_a_list_is_a_hierarchy_whatever_comes_first(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    assert WordTree.load(tmp_path / "t.json") == from_nested(json.loads(text))


@pytest.mark.parametrize(
    "text",
    ['{"name": "animal", "children": ["dog"], "children": ["cat"]}', '{"animal": {"dog": 1}, "animal": {}}'],
)
def test_a_key_that_is_there_twice_loses_no_branch(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    for read in (WordTree.load, read_nested):
        with pytest.raises(TreeError, match=r"t\.json: an object has the key '(children|animal)' twice"):
            read(tmp_path / "t.json")


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_names_of_graphs_that_are_none(nothing):
    graph = networkx.DiGraph([("a", "b")])
    graph.nodes["a"].update(name="Aye", gloss=nothing)
    graph.nodes["b"].update(name=nothing, gloss="two")
    tree = from_networkx(graph)
    assert (tree.names, tree.glosses) == (("Aye", "b"), ("", "two"))


def test_graphs():
    graph = networkx.DiGraph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("x", "d")])
    graph.nodes["d"]["name"] = "Dee"
    tree = from_networkx(graph)
    # All paths to d add one node; a > b > d is the first in the alphabet.
    assert (parents_of(tree)["d"], tree.names[tree.index("d")]) == ("b", "Dee")
    assert networkx.is_forest(tree.to_networkx())
    with pytest.raises(TreeError, match="no directions"):
        from_networkx(networkx.Graph([("a", "b")]))
    with pytest.raises(TreeError, match="cycle through"):
        from_networkx(networkx.DiGraph([("a", "b"), ("b", "a")]))
    with pytest.raises(TreeError, match="same as text"):
        from_networkx(networkx.DiGraph([(1, "1")]))
    ladder = {f"{k}{side}": [f"{k - 1}a", f"{k - 1}b"] if k else [] for k in range(30) for side in "ab"}
    with pytest.raises(TreeError, match="over 20,000,000 steps"):
        from_parents(ladder)


def test_a_parent_that_is_passed_over_is_told(tmp_path):
    edges = [("Life", "Plantae"), ("Life", "Animalia"), ("Plantae", "Ficus"), ("Animalia", "Ficus")]
    path = tmp_path / "t.csv"
    path.write_text("child,parent\nLife,\n" + "".join(f"{child},{parent}\n" for parent, child in edges))
    networkx.write_graphml(networkx.DiGraph(edges), tmp_path / "t.graphml")
    for file, place in ((path, rf"{path}:5"), (tmp_path / "t.graphml", r"t\.graphml")):
        with pytest.warns(TreeWarning, match=rf"{place}: 'Ficus' has 2 parents; 'Animalia' was .* 'Plantae'"):
            assert parents_of(WordTree.load(file))["Ficus"] == "Animalia"


def test_a_label_is_a_name_where_no_node_has_one(tmp_path):
    graph = networkx.DiGraph([(1, 2), (1, 3)])
    networkx.set_node_attributes(graph, {1: "Felidae", 2: "Felis"}, "label")
    networkx.write_graphml(graph, tmp_path / "t.graphml")
    assert WordTree.load(tmp_path / "t.graphml").names == ("Felidae", "Felis", "3")
    graph.nodes[3]["name"] = "Panthera"
    assert from_networkx(graph).names == ("1", "2", "Panthera")


@pytest.mark.parametrize("sign", ["\x0b", "\x01", "\x1f", "\ufffe", "\uffff", "\0"])
def test_what_xml_cannot_hold_is_not_written(tmp_path, sign):
    path = tmp_path / "t.graphml"
    for what, tree in (
        ("name", WordTree(["a", "b"], [-1, 0], ["A", f"x{sign}"])),
        ("gloss", WordTree(["a", "b"], [-1, 0], ["A", "B"], ["", f"x{sign}"])),
    ):
        with pytest.raises(TreeError, match=rf"t\.graphml: the {what} of 'b' holds .*which XML cannot"):
            write_graphml(tree, path)
        assert not path.exists()
    tree = WordTree(["a", "b"], [-1, 0], ["\t<&>\"' \x7f", "\ud7ff \ue000 \ufffd \U0001f600 \U0010ffff"])
    write_graphml(tree, path)
    assert WordTree.load(path) == tree


def test_graphml_that_is_none(tmp_path):
    (tmp_path / "g.graphml").write_text("<graphml>")
    with pytest.raises(TreeError, match="not GraphML"):
        WordTree.load(tmp_path / "g.graphml")


def test_a_deep_tree(tmp_path):
    n = 5000
    tree = WordTree([f"n{i}" for i in range(n)], [i - 1 for i in range(n)])
    write_edges(tree, tmp_path / "deep.csv")
    assert WordTree.load(tmp_path / "deep.csv") == tree
    graph = tree.to_networkx().subgraph([f"n{i}" for i in range(1200)]).copy()  # deeper than Python's calls
    graph.add_edge("n0", "n1199")  # two parents: through the growth rule
    assert len(from_networkx(graph)) == 1200


@pytest.mark.parametrize("sign", [";", "\t"])
@pytest.mark.parametrize("form", ["ranks", "edges"])
@few
@given(tree=trees())
def test_tables_of_spreadsheets_with_another_sign_between_fields(tmp_path, tree, form, sign):
    tree = laid_out(tree)
    path = tmp_path / "t.csv"
    write(tree, path, form)
    if len(path.read_text().splitlines()[0].split(",")) > 1:  # a single column has nothing between
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        with (tmp_path / "OTHER.CSV").open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=sign, quoting=csv.QUOTE_ALL).writerows(rows)
        assert WordTree.load(tmp_path / "OTHER.CSV") == tree


def test_a_comma_in_a_quoted_heading_is_no_comma_between_fields(tmp_path):
    (tmp_path / "t.csv").write_text('"k", "s"\n"fish", "cod, Atlantic"\n')
    assert read_table(tmp_path / "t.csv").ids == ("fish", "cod, Atlantic")
    (tmp_path / "t.csv").write_text('"order, or group";species\nfish;"cod; Atlantic"\n')
    tree = WordTree.load(tmp_path / "t.csv")
    assert tree.ids == ("fish", "cod; Atlantic") and list(tree.about["ranks"]) == [
        "order, or group",
        "species",
    ]
    with pytest.raises(TreeError, match="'a' is the heading of a column and a name in it; write another"):
        write_ranks(WordTree.flat(["a", "b"]), tmp_path / "t.csv", ["a"])
    with pytest.raises(TreeError, match="read as several columns"):
        write_ranks(WordTree.flat(["a", "b"]), tmp_path / "t.csv", ["x;y"])


def test_check_tells_the_ranks_that_were_read(tmp_path):
    (tmp_path / "t.csv").write_text("family;genus;species;seen\nCanidae;Canis;Canis lupus;12\n")
    out = CliRunner().invoke(cli, ["check", str(tmp_path / "t.csv")]).output
    assert "ranks  family > genus > species > seen" in " ".join(out.split(" ")) and "nodes  4" in out
    out = CliRunner().invoke(cli, ["show", "Canis", "--tree", str(tmp_path / "t.csv")]).output
    assert out.splitlines()[-2:] == ["Canis", "  Canis lupus  (+1)"]  # an id that is the name is said once


def test_a_tree_by_keys_alone_is_told_from_other_json(tmp_path):
    (tmp_path / "keys.json").write_text('{"animal": {"dog": {}, "cat": null}}')
    with pytest.raises(TreeError, match=r"read by wordtree\.nested\.read_nested"):
        WordTree.load(tmp_path / "keys.json")
    assert read_nested(tmp_path / "keys.json").ids == ("animal", "dog", "cat")


def test_a_small_tree_is_shown_whole_a_large_one_by_its_roots(tmp_path):
    def shown(count: int, *words: str) -> list[str]:
        WordTree([f"n{k}" for k in range(count)], [-1, *range(count - 1)]).save(tmp_path / "t.json")
        out = CliRunner().invoke(cli, ["show", "--tree", str(tmp_path / "t.json"), *words]).output
        return [line.strip() for line in out.partition("\n\n")[2].splitlines()]

    assert shown(60) == [f"n{k}" for k in range(60)]
    assert shown(61) == ["n0  (+1)"]
    assert shown(3, "--depth", "2") == ["n0", "n1  (+1)"]
