"""Finding a node by what people call it: id, synset name, display name, synonym; a guess where nothing fits.

Not here: indices, which `WordTree.index` answers by itself.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from wordtree.errors import LookupTreeError

if TYPE_CHECKING:
    from wordtree.tree import WordTree

# What is said of two ids that are `alike`.
ALIKE = "differ only in case, hyphens or how accents are written"
_MOST_CANDIDATES = 12  # what fits on a screen
_SIMILAR = 0.75  # difflib's ratio; below it the suggestions are other words altogether
_LONG = 6  # letters from which on two slips are believed; dog is two from any word of three letters
_WORST = 5.0  # rank of a node that only its id or synset name brings up: behind all of _rank
_BLANKS = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")  # all but a single plain blank
_SYNSET = re.compile(r"(.+)\.[nvasr]\.[0-9]+")
# More digits than any tree has nodes are a name; int() itself fails on thousands of digits.
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def plain(text: str) -> str:
    """Text as it is compared: lower case, underscores and hyphens as blanks, single blanks, accents in one
    with their letters (a Mac's file names have them apart)."""
    return " ".join(_folded(text).split())


def alike(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Those of several ids that are one as `plain`, which trees made by hand rarely mean; spelt out where
    nobody could tell them apart by eye."""
    groups: dict[str, list[str]] = {}
    for one in ids:
        groups.setdefault(plain(one), []).append(one)
    found = []
    for group in groups.values():
        if len(group) > 1:
            seen = len({unicodedata.normalize("NFC", one) for one in group}) == len(group)
            found.append(tuple(group if seen else map(ascii, group)))
    return found


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold()).replace("_", " ").replace("-", " ")


def _all_plain(names: tuple[str, ...]) -> list[str]:
    """`plain` of each of many names, none of which has a line break: several times as fast as one by one."""
    return [line.strip() for line in _BLANKS.sub(" ", _folded("\n".join(names))).split("\n")]


def _places(words: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, word in words:
        places.setdefault(word, []).append(i)
    return places


class _Texts:
    """Many texts side by side in one, so that a search runs at the speed of `str.find`.

    nodes: the node of each text, rising; None: text i is node i's.
    """

    def __init__(self, texts: list[str], nodes: list[int] | None = None) -> None:
        self._texts, self._nodes = texts, nodes
        self._all = "\n".join(texts)
        self._starts = list(accumulate((len(text) + 1 for text in texts), initial=0))

    def containing(self, part: str) -> Iterator[tuple[int, str]]:
        """Node and text of each text with `part` in it."""
        at = -1 if "\n" in part else self._all.find(part)
        while at >= 0:
            i = bisect_right(self._starts, at) - 1
            yield (i if self._nodes is None else self._nodes[i]), self._texts[i]
            at = self._all.find(part, self._starts[i + 1])


class Lookup:
    """The words of a tree. Made on the first question that needs it; the answers are indices of nodes."""

    def __init__(self, tree: WordTree) -> None:
        self._tree = tree

    @cached_property
    def _synsets(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._tree.synsets or ()) if name}

    @cached_property
    def _numeric(self) -> str | None:
        """The first id that is a number."""
        return next(filter(_NUMBER.fullmatch, self._tree.ids), None)

    @cached_property
    def _exact(self) -> dict[str, list[int]]:
        return _places(enumerate(self._tree.names))

    @cached_property
    def _names(self) -> dict[str, list[int]]:
        return _places(enumerate(self._plain_names))

    @cached_property
    def _plain_codes(self) -> dict[str, list[int]]:
        """Nodes by id and synset name, as they are compared."""
        tree = self._tree
        columns = [_all_plain(tree.ids), map(plain, tree.synsets or ())]
        return _places((i, code) for codes in columns for i, code in enumerate(codes) if code)

    @cached_property
    def _synonyms(self) -> dict[str, list[int]]:
        return _places(self._plain_synonyms)

    @cached_property
    def _plain_names(self) -> list[str]:
        return _all_plain(self._tree.names)

    @cached_property
    def _plain_synonyms(self) -> list[tuple[int, str]]:
        synonyms = enumerate(self._tree.synonyms or ())
        return [(i, word) for i, words in synonyms for word in dict.fromkeys(map(plain, words))]

    @cached_property
    def _words(self) -> tuple[_Texts, _Texts]:
        """All names, and all synonyms, as they are compared."""
        nodes, words = [i for i, _ in self._plain_synonyms], [word for _, word in self._plain_synonyms]
        return _Texts(self._plain_names), _Texts(words, nodes)

    @cached_property
    def _codes(self) -> tuple[_Texts, ...]:
        """All ids, and all synset names if the tree has them."""
        tree = self._tree
        return tuple(_Texts([c.casefold() for c in codes]) for codes in (tree.ids, tree.synsets) if codes)

    def find(self, text: str) -> int:
        """The one node that goes by `text`, as `called` has it.

        Raises:
            LookupTreeError: none or several; lists candidates with ids and glosses.
        """
        word = plain(text)
        found = self.called(text)
        if len(found) == 1:
            return found[0]
        if found:
            # Somebody who has to choose wants to see every node of that name, synonyms too.
            every = tuple(dict.fromkeys([*found, *self._names.get(word, ()), *self._synonyms.get(word, ())]))
            raise LookupTreeError(f"{text!r} may be any of\n{self.list(every)}", every)
        # Of a synset that the tree lacks ("pug.n.01") the word is what was meant.
        synset = _SYNSET.fullmatch(text)
        similar = self.similar(plain(synset[1]) if synset else word)
        if similar:
            raise LookupTreeError(f"no node is called {text!r}; did you mean\n{self.list(similar)}", similar)
        raise LookupTreeError(f"no node is called {text!r}")

    def typed(self, text: str) -> int:
        """The one node that people mean by `text`: as `find`, but digits that no node goes by are an index,
        unless ids of the tree are numbers. Raises TreeError."""
        if not _NUMBER.fullmatch(text) or self.called(text):
            return self.find(text)
        if self._numeric is None:
            return self._tree.index(int(text))
        raise LookupTreeError(
            f"no node has the id {text}; as this tree has ids like {self._numeric}, none is an index"
        )

    def called(self, text: str) -> tuple[int, ...]:
        """The nodes that go by `text`: the one of exactly that id, or else synset name; if none, those of
        exactly that name; if none, of that name in another spelling, or else of that id or synset name in
        another spelling; if none, with it as a synonym."""
        if text in self._tree:
            return (self._tree.index(text),)
        if text in self._synsets:
            return (self._synsets[text],)
        word = plain(text)
        found = self._exact.get(text) or self._names.get(word) or self._plain_codes.get(word)
        return tuple(dict.fromkeys(found or self._synonyms.get(word, ())))

    def similar(self, word: str) -> tuple[int, ...]:
        """Nodes whose names contain the word or are spelt like it."""
        # Whole names and the single words in them: huskyy -> Siberian husky. By how much each says of a node:
        # 0 its name, 1 a word of that, 2 and 3 the same of a synonym.
        nodes: dict[str, list[tuple[int, int]]] = {}
        for less, words in enumerate((self._names, self._synonyms)):
            for key, found in words.items():
                for part in {key, *key.split()}:
                    nodes.setdefault(part, []).extend((2 * less + (part != key), i) for i in found)
        most = 2.0 if len(word) >= _LONG else 1.0
        costs = {key: cost for key in nodes if (cost := _slips(word, key, most)) <= most}
        near = sorted((cost, *place) for key, cost in costs.items() for place in nodes[key])
        found = [i for *_, i in near]
        close = difflib.get_close_matches(word, nodes, _MOST_CANDIDATES, _SIMILAR)
        found += [i for key in close for _, i in sorted(nodes[key])]
        found += [i for *_, i in sorted(self._ranked(word))]
        return tuple(dict.fromkeys(found))[:_MOST_CANDIDATES]

    def search(self, text: str, limit: int | None = None) -> tuple[int, ...]:
        """Nodes with `text` in a name, synonym, synset name or id: whole names first, then whole words."""
        names, ranked = self._tree.names, self._ranked(plain(text))
        named, code = {i for *_, i in ranked}, text.strip().casefold()
        if code:
            found = {i for codes in self._codes for i, _ in codes.containing(code)}
            ranked += [(_WORST, len(names[i]), i) for i in found - named]
        return tuple(i for *_, i in sorted(ranked)[:limit])

    def _ranked(self, word: str) -> list[tuple[float, int, int]]:
        """How well, length of name, and index, of the nodes with `word` in a name or synonym."""
        best: dict[int, float] = {}
        for behind, texts in zip((0.0, 0.5), self._words, strict=True):
            for i, text in texts.containing(word) if word else ():
                rank = _rank(text, word) + behind
                best[i] = min(rank, best.get(i, rank))
        return [(rank, len(self._tree.names[i]), i) for i, rank in best.items()]

    def list(self, nodes: tuple[int, ...]) -> str:
        """One line a node: id, synset name, name and gloss."""
        lines = [f"  {self.line(i)}" for i in nodes[:_MOST_CANDIDATES]]
        if len(nodes) > _MOST_CANDIDATES:
            lines.append(f"  ... and {len(nodes) - _MOST_CANDIDATES} more")
        return "\n".join(lines)

    def line(self, node: int) -> str:
        """id, synset name, name and gloss of a node, as far as the tree has them."""
        tree = self._tree
        parts = [tree.ids[node]]
        if tree.synsets and tree.synsets[node]:
            parts.append(tree.synsets[node])
        if tree.names[node] != tree.ids[node]:
            parts.append(tree.names[node])
        text = "  ".join(parts)
        return f"{text}: {tree.glosses[node]}" if tree.glosses and tree.glosses[node] else text


def _rank(candidate: str, word: str) -> float:
    """0 the whole name, 1 a whole word at its start or end, 2 the start of a word, 3 anywhere."""
    if candidate == word:
        return 0
    padded, wanted = f" {candidate} ", f" {word}"
    if f"{wanted} " in padded:
        return 1
    return 2 if wanted in padded else 3


def _slips(typed: str, meant: str, most: float) -> float:
    """How many slips of the finger apart two words are: a letter too many, too few or another is 1, two
    neighbours exchanged 1/2, for that is what fingers do most. More than `most` may be told as any more."""
    if abs(len(typed) - len(meant)) > most or not meant or not typed:
        return most + 1
    if len(set(typed) ^ set(meant)) > 2 * most:  # each slip changes at most one letter for another
        return most + 1
    before: list[float] = []
    row = [float(k) for k in range(len(meant) + 1)]
    for i, a in enumerate(typed, 1):
        before, last, row = row, before, [float(i)]
        for k, b in enumerate(meant, 1):
            cost = min(before[k] + 1, row[k - 1] + 1, before[k - 1] + (a != b))
            if i > 1 and k > 1 and a == meant[k - 2] and typed[i - 2] == b and a != b:
                cost = min(cost, last[k - 2] + 0.5)
            row.append(cost)
        if min(row) > most and min(before) + 0.5 > most:  # exchanges pass over a row
            return most + 1
    return row[-1]
