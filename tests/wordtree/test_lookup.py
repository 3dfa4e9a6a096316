"""Finding nodes by what people call them."""

from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wordtree.forests import trees
from wordtree import LookupTreeError, WordTree, map_names
from wordtree.lookup import _all_plain, _rank, _slips, plain
from wordtree.naming import exact


@pytest.fixture
def tree() -> WordTree:
    return WordTree(
        ["n1", "n2", "n3", "n4", "n5", "n6"],
        [-1, 0, 0, 2, 2, 2],
        names=["animal", "crane", "dog", "husky", "Siberian husky", "crane"],
        glosses=["lives", "a bird", "barks", "pulls", "pulls too", "lifts"],
        synsets=["animal.n.01", "crane.n.05", "dog.n.01", "husky.n.01", "siberian_husky.n.01", "crane.n.04"],
        synonyms=[["beast"], [], ["domestic dog", "Canis familiaris"], ["sled dog"], ["sled dog"], ["dog"]],
    )


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("n3", 2),
        ("dog.n.01", 2),
        ("crane.n.04", 5),
        ("dog", 2),  # the name of one node beats the synonym of another
        ("DOG", 2),
        ("siberian_husky", 4),
        ("Siberian-Husky", 4),
        ("  beast ", 0),
        ("canis familiaris", 2),
        ("domestic_dog", 2),
        ("N3", 2),
        ("Dog.N.01", 2),
        ("Siberian Husky.n.01", 4),
    ],
)
def test_one_node(tree, text, node):
    assert tree.index(text) == node


@pytest.mark.parametrize(
    ("text", "candidates"),
    [("crane", (1, 5)), ("CRANE", (1, 5)), ("sled dog", (3, 4))],
)
def test_several_nodes_are_listed_with_ids_and_glosses(tree, text, candidates):
    with pytest.raises(LookupTreeError) as caught:
        tree.index(text)
    assert caught.value.candidates == candidates
    for i in candidates:
        assert f"{tree.ids[i]}  {tree.synsets[i]}  {tree.names[i]}: {tree.glosses[i]}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("huskyy", 3),
        ("siberan husky", 4),
        ("domestic dgo", 2),
        ("anima", 0),
        ("famliaris", 2),
        ("n", 0),
        ("dog.n.99", 2),
    ],
)
def test_misspelt(tree, text, meant):
    with pytest.raises(LookupTreeError, match="did you mean") as caught:
        tree.index(text)
    assert meant in caught.value.candidates


@pytest.mark.parametrize("text", ["", " ", "zzzz", "\x00", "é" * 1000])
def test_nothing_like_it(tree, text):
    with pytest.raises(LookupTreeError, match="no node is called") as caught:
        tree.index(text)
    assert caught.value.candidates == ()


def test_same_spelling_beats_other_case():
    tree = WordTree(["a", "b"], [-1, -1], ["Turkey", "turkey"])
    assert (tree.index("Turkey"), tree.index("turkey")) == (0, 1)
    with pytest.raises(LookupTreeError, match="may be any of"):
        tree.index("TURKEY")


def test_every_question_finds_a_node_by_all_that_it_is_called():
    ids = ["Felis_catus", "Puma (puma)", "x,y"]
    tree = WordTree(ids, [-1, -1, -1], ["cat", "cougar", "z"], synsets=["cat.n.01", "cougar.n.01", ""])
    for node, words in enumerate(zip(ids, tree.names, tree.synsets, strict=True)):
        for text in filter(None, (*words, *map(str.upper, words))):
            assert tree.index(text) == node and tree.lookup.called(text) == (node,)
            assert exact(text, tree, by_name=True) == node
            assert map_names([text], tree)[0].node == node
    # an id that is another node's name is the id; capitals tell two ids apart, and neither is guessed
    tree = WordTree(["a", "A", "b"], [-1, -1, -1], ["b", "x", "y"])
    assert tree.index("b") == 2 and tree.lookup.called("b") == (2,)
    tree = WordTree(["ab", "AB"], [-1, -1], ["x", "y"])
    assert (tree.index("ab"), tree.index("AB")) == (0, 1)
    with pytest.raises(LookupTreeError, match="may be any of"):
        tree.index("Ab")


def test_search_puts_the_closest_first(tree):
    assert tree.search("husky") == (3, 4)
    assert tree.search("crane") == (1, 5)
    assert tree.search("dog")[0] == 2
    assert set(tree.search("dog")) == {2, 3, 4, 5}
    assert tree.search("dog", limit=1) == (2,)
    assert tree.search("n.04") == (5,)
    assert tree.search("") == tree.search("zzz") == ()


def test_many_of_one_name_are_cut_short():
    tree = WordTree([f"n{i}" for i in range(100)], [-1] * 100, ["same"] * 100)
    with pytest.raises(LookupTreeError, match="and 88 more") as caught:
        tree.index("same")
    assert len(caught.value.candidates) == 100


@settings(max_examples=30, deadline=None)
@given(trees(), st.data())
def test_search_finds_exactly_what_contains_the_text(tree, data):
    words = ["big cat", "cat", "catalogue", "dog", "Dog house"]
    names = [data.draw(st.sampled_from(words)) for _ in tree.ids]
    named = WordTree(tree.ids, tree.parents, names)
    for text in ("cat", "dog", "DOG HOUSE", "x"):
        assert sorted(named.search(text)) == [i for i, n in enumerate(names) if text.lower() in n.lower()]


@settings(max_examples=30, deadline=None)
@given(trees())
def test_every_id_and_index_is_found(tree):
    for i, node in enumerate(tree.ids):
        assert tree.index(node) == tree.index(i) == i
        assert node in tree
        assert i in tree
    assert len(tree) not in tree
    assert "nobody" not in tree
    assert None not in tree


def test_ids_are_searched_but_never_suggested(tree):
    assert tree.search("n5") == (4,)
    with pytest.raises(LookupTreeError) as caught:
        tree.index("5")
    assert caught.value.candidates == ()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_search_ranks_as_one_by_one(data):
    """Against a plain walk over all nodes: rank of the best name or synonym, then length, then index."""
    letters = st.text("ab -_\t\xa0ßÀ.", min_size=1, max_size=6)
    names = data.draw(st.lists(letters.filter(str.strip), min_size=1, max_size=12))
    synonyms = [data.draw(st.lists(st.text("abß\n ", max_size=4), max_size=3)) for _ in names]
    ids = [f"Id{i}.ß" for i in range(len(names))]
    synsets = [data.draw(st.sampled_from(["", "a.n.01", "B-b.n.02"])) for _ in names]
    tree = WordTree(ids, [-1] * len(ids), names, synonyms=synonyms, synsets=synsets)
    text = data.draw(st.text("abß -.\n", max_size=3) | st.sampled_from(["id", "n.0", ".ss", "ss"]))
    word, code = plain(text), text.strip().casefold()
    ranked = []
    for i, name in enumerate(names):
        words = [plain(name), *map(plain, synonyms[i])]
        ranks = [_rank(w, word) + (0.5 if k else 0.0) for k, w in enumerate(words) if word and word in w]
        if not ranks and code and any(code in c.casefold() for c in (ids[i], synsets[i])):
            ranks = [5.0]
        ranked += [(min(ranks), len(name), i)] if ranks else []
    assert tree.search(text) == tuple(i for *_, i in sorted(ranked))
    assert tree.search(text, 2) == tree.search(text)[:2]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")), max_size=8))
def test_all_at_once_is_each_by_itself(names):
    assert _all_plain(tuple(names)) == [plain(name) for name in names] or not names


@settings(max_examples=100, deadline=None)
@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
@example("aab", "aba")  # every cell of the second row is dearer than the exchange that passes over it
def test_slips_are_what_their_definition_says(a, b):
    """Held against the definition itself, a recursion over the ends of both words."""

    @cache
    def far(i: int, k: int) -> float:
        if not i or not k:
            return float(i + k)
        costs = [far(i - 1, k) + 1, far(i, k - 1) + 1, far(i - 1, k - 1) + (a[i - 1] != b[k - 1])]
        if i > 1 and k > 1 and a[i - 2 : i] == b[k - 2 : k][::-1] and a[i - 1] != a[i - 2]:
            costs.append(far(i - 2, k - 2) + 0.5)
        return min(costs)

    true = far(len(a), len(b))
    for most in (0.5, 1.0, 2.0):
        told = _slips(a, b, most)
        assert told == true if true <= most and a and b else told > most


def test_the_nearest_word_is_the_first_that_is_meant():
    tree = WordTree.default()
    for typed, meant in (
        ("dgo", "dog"),
        ("zbera", "zebra"),
        ("bycicle", "bicycle"),
        ("elefant", "elephant"),
        ("tigar", "tiger"),
        ("motorcyle", "motorcycle"),
        ("girafe", "giraffe"),
    ):
        assert tree.names[tree.lookup.similar(typed)[0]] == meant
