"""WordNet's nouns out of its own files: index.noun at once, a line of data.noun when it is asked for.

The format is WordNet's wndb(5WN). Of every noun this says what nltk's reader says, in a tenth of the time,
because verbs, sense keys and lemmas are left alone. Not here: where the files lie and which version is wanted
(wordnet.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VERSION = re.compile(rb"WordNet (\d+(?:\.\d+)?) Copyright")  # in the licence on top of each data file
_LICENCE = 1 << 12  # bytes; the licence takes 1,740
_EXAMPLE = re.compile('".*?"')
_HYPERNYM, _INSTANCE = "@", "@i"


@dataclass(frozen=True, slots=True)
class Synset:
    """Some words that mean one thing.

    offset: of its line in data.noun, which is its identity. name: "dog.n.01": its first word, and which of
    that word's senses it is. words: as WordNet writes them, the most usual first. definition: without
    examples. hypernyms, instance_hypernyms: offsets of what it is a kind and an instance of.
    """

    offset: int
    name: str
    words: tuple[str, ...]
    definition: str
    hypernyms: tuple[int, ...]
    instance_hypernyms: tuple[int, ...]


class Nouns:
    """The nouns of WordNet's files in a folder. OSError, ValueError for files that are none of WordNet's."""

    def __init__(self, folder: Path) -> None:
        self._data = (folder / "data.noun").read_bytes()
        version = _VERSION.search(self._data, 0, _LICENCE)
        self.version = version[1].decode() if version else "of no known version"
        lines = (folder / "index.noun").read_text("utf-8").splitlines()
        # word -> the rest of its line: of 118,000 words a build asks for 9,000
        self._known: dict[int, Synset] = {}
        self._senses = dict(line.split(" ", 1) for line in lines if not line.startswith("  "))

    def __iter__(self) -> Iterator[Synset]:
        """All nouns, in the order of data.noun."""
        at = 0
        while 0 <= at < len(self._data):
            if self._data[at : at + 1] != b" ":  # not the licence
                yield self.at(at)
            at = self._data.find(b"\n", at) + 1 or -1

    def at(self, offset: int) -> Synset:
        """The noun whose line begins there. KeyError if none does."""
        if offset not in self._known:
            self._known[offset] = self._read(offset)
        return self._known[offset]

    def _read(self, offset: int) -> Synset:
        before = self._data[offset - 1 : offset]
        end = self._data.find(b"\n", offset)
        line = self._data[offset : end if end >= 0 else None].decode("utf-8")
        if (offset and before != b"\n") or not line.startswith(f"{offset:08d} "):
            raise KeyError(offset)
        columns, gloss = line.split("|")
        _, _, kind, count, *fields = columns.split()
        words = tuple(fields[: 2 * int(count, 16) : 2])  # word and lex_id in turns
        pointers = fields[
            2 * int(count, 16) + 1 :
        ]  # after their number: symbol, offset, part of speech, words
        above: dict[str, dict[int, None]] = {_HYPERNYM: {}, _INSTANCE: {}}
        for symbol, target in zip(pointers[::4], pointers[1::4], strict=False):
            if symbol in above:
                above[symbol][int(target)] = None
        first = words[0].lower()
        return Synset(
            offset,
            f"{first}.{kind}.{self.senses(first).index(offset) + 1:02d}",
            words,
            _EXAMPLE.sub("", gloss).strip().strip("; "),
            tuple(above[_HYPERNYM]),
            tuple(above[_INSTANCE]),
        )

    def senses(self, word: str) -> list[int]:
        """Offsets of what a word, in lower case and with underscores, may mean, the most usual first.

        KeyError for a word that is no noun.
        """
        kind, count, pointers, *rest = self._senses[word].split()
        # rest: symbols of pointers, the number of senses again, how many are ranked by use, an offset a sense
        if kind != "n" or int(count) < 1 or len(rest) != int(pointers) + 2 + int(count):
            raise ValueError(f"index.noun: the line of {word!r} is none of WordNet's")
        return [int(offset) for offset in rest[-int(count) :]]
