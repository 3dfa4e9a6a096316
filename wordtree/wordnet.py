"""WordNet 3.0: where it lies, opening it once, and the few questions that building a tree asks.

Not here: the format of its files (nouns.py), fetching it (scripts/get_wordnet). Loading and querying trees
never comes here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from wordtree.errors import TreeError
from wordtree.nouns import Nouns, Synset

if TYPE_CHECKING:
    from wordtree.tree import WordTree

FILES = ("data.noun", "index.noun")
_CHECKOUT = Path(__file__).resolve().parents[1]
_ADVICE = "run scripts/get_wordnet, or set NLTK_DATA to a folder that holds corpora/wordnet"
_ID = re.compile(r"n([0-9]{8})")


def find() -> Path:
    """The folder of WordNet 3.0's files: below $NLTK_DATA, `.wordnet` in the checkout, or where nltk looks.

    Raises:
        TreeError: none; says where was looked and what to do.
    """
    incomplete = []
    looked: list[Path] = []
    for base in _bases():
        looked.append(base)
        root = base / "corpora" / "wordnet"
        if not root.is_dir():
            continue
        missing = [name for name in FILES if not (root / name).is_file()]
        if not missing:
            return root
        incomplete.append(f"{root} lacks {', '.join(missing)}")
    found = "; ".join(incomplete) or "looked below " + ", ".join(map(str, dict.fromkeys(looked)))
    raise TreeError(f"WordNet 3.0 is not here ({found}); {_ADVICE}")


def _bases() -> Iterator[Path]:
    yield from (Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p)
    yield _CHECKOUT / ".wordnet"
    import nltk  # only now: a second, which most need not wait

    yield from map(Path, nltk.data.path)


@cache
def reader() -> Nouns:
    """WordNet's nouns, opened once. TreeError if there is no WordNet or it is not 3.0."""
    root = find()
    try:
        opened = Nouns(root)
    except (OSError, ValueError) as error:
        raise TreeError(
            f"{root}: WordNet cannot be opened ({type(error).__name__}: {error}); {_ADVICE}"
        ) from error
    if opened.version != "3.0":
        raise TreeError(f"{root}: this is WordNet {opened.version}, whose ids differ; wanted 3.0: {_ADVICE}")
    return opened


class NoNounError(TreeError):
    """A text that is no noun of WordNet."""


@cache
def synset(node: str) -> Synset:
    """The synset of a WordNet id ("n02084071") or synset name ("dog.n.01"). NoNounError if there is none."""
    match, parts = _ID.fullmatch(node), node.lower().rsplit(".", 2)
    if not match and (len(parts) < 3 or parts[1] != "n" or not parts[2].isdecimal()):
        raise NoNounError(
            f"{node!r} is neither the id of a WordNet noun (n02084071) nor a synset name (dog.n.01)"
        )
    nouns = reader()
    try:
        if match:
            return nouns.at(int(match[1]))
        word, _, sense = parts
        senses = nouns.senses(word)
        if 1 <= int(sense) <= len(senses):
            return nouns.at(senses[int(sense) - 1])
    except (KeyError, ValueError) as error:
        raise NoNounError(f"WordNet 3.0 has no noun {node!r}") from error
    raise NoNounError(f"WordNet 3.0 has no noun {node!r}")


def wnid(of: Synset) -> str:
    """The id of a synset: "n" and the eight digits of its offset."""
    return f"n{of.offset:08d}"


def hypernyms(of: Synset) -> list[Synset]:
    """What it is a kind of, then what it is an instance of, each in alphabetical order."""
    nouns = reader()
    return [
        synset
        for kind in (of.hypernyms, of.instance_hypernyms)
        for synset in sorted(map(nouns.at, kind), key=lambda above: above.name)
    ]


def nearest(tree: WordTree, node: str) -> int | None:
    """Index of the node for a WordNet noun: itself, else the fewest hypernyms up; None if none is above.

    Of several equally near the alphabetically first. This is where a label goes that is finer than the tree.
    """
    level = [synset(node)]
    while level:
        for of in sorted(level, key=lambda of: of.name):
            if wnid(of) in tree:
                return tree.index(wnid(of))
        level = [hypernym for of in level for hypernym in hypernyms(of)]
    return None


def words(of: Synset) -> tuple[str, ...]:
    """Its words as people write them, the most usual first."""
    return tuple(lemma.replace("_", " ") for lemma in of.words)
