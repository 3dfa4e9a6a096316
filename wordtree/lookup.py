"""Finding a node by what people call it: synset name, display name, synonym, and a guess where nothing fits.

Not here: ids and indices, which `WordTree.index` answers by itself.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from wordtree.errors import LookupTreeError

if TYPE_CHECKING:
    from wordtree.tree import WordTree

_MOST_CANDIDATES = 12  # what fits on a screen
_SIMILAR = 0.75  # difflib's ratio; below it the suggestions are other words altogether
_WORST = 5.0  # rank of a node that only its id or synset name brings up: behind all of _rank
_SYNSET = re.compile(r"(.+)\.[nvasr]\.[0-9]+")


def plain(text: str) -> str:
    """Text as it is compared: lower case, underscores and hyphens as blanks, single blanks."""
    return " ".join(text.casefold().replace("_", " ").replace("-", " ").split())


class Lookup:
    """The words of a tree. Made on the first question that needs it; the answers are indices of nodes."""

    def __init__(self, tree: WordTree) -> None:
        self._tree = tree
        self._exact: dict[str, list[int]] = {}
        self._synsets = {name: i for i, name in enumerate(tree.synsets or ()) if name}
        self._names: dict[str, list[int]] = {}
        self._synonyms: dict[str, list[int]] = {}
        for i, name in enumerate(tree.names):
            self._exact.setdefault(name, []).append(i)
            self._names.setdefault(plain(name), []).append(i)
        for i, words in enumerate(tree.synonyms or ()):
            for word in dict.fromkeys(map(plain, words)):
                self._synonyms.setdefault(word, []).append(i)

    def find(self, text: str) -> int:
        """The one node that goes by `text`: names come before synonyms, exact spelling before any other.

        Raises:
            LookupTreeError: none or several; lists candidates with ids and glosses.
        """
        if text in self._synsets:
            return self._synsets[text]
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

    def called(self, text: str) -> tuple[int, ...]:
        """The nodes of exactly that name; if none, in another spelling; if none, with it as a synonym."""
        word = plain(text)
        found = self._exact.get(text) or self._names.get(word) or self._synonyms.get(word) or ()
        return tuple(found)

    def similar(self, word: str) -> tuple[int, ...]:
        """Nodes whose names contain the word or are spelt like it."""
        nodes: dict[str, list[int]] = {}  # whole names and the single words in them: huskyy -> Siberian husky
        for words in (self._names, self._synonyms):
            for key, found in words.items():
                for part in {key, *key.split()}:
                    nodes.setdefault(part, []).extend(found)
        close = difflib.get_close_matches(word, nodes, _MOST_CANDIDATES, _SIMILAR)
        found = [i for key in close for i in nodes[key]]
        found += [i for *_, i in sorted(self._ranked(word))]
        return tuple(dict.fromkeys(found))[:_MOST_CANDIDATES]

    def search(self, text: str, limit: int | None = None) -> tuple[int, ...]:
        """Nodes with `text` in a name, synonym, synset name or id: whole names first, then whole words."""
        tree, ranked = self._tree, self._ranked(plain(text))
        named, code = {i for *_, i in ranked}, text.strip().casefold()
        for i, node in enumerate(tree.ids):
            codes = (node, tree.synsets[i]) if tree.synsets else (node,)
            if code and i not in named and any(code in c.casefold() for c in codes):
                ranked.append((_WORST, len(tree.names[i]), i))
        return tuple(i for *_, i in sorted(ranked)[:limit])

    def _ranked(self, word: str) -> list[tuple[float, int, int]]:
        """How well, length of name, and index, of the nodes with `word` in a name or synonym."""
        tree, ranked = self._tree, []
        for i, name in enumerate(tree.names):
            words = [plain(name), *map(plain, tree.synonyms[i] if tree.synonyms else ())]
            ranks = [_rank(w, word) + (0.5 if k else 0.0) for k, w in enumerate(words) if word and word in w]
            if ranks:
                ranked.append((min(ranks), len(name), i))
        return ranked

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
