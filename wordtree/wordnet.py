"""WordNet 3.0 through nltk: where it lies, opening it once, and the few questions that building a tree asks.

Not here: fetching it (scripts/get_wordnet). Loading and querying trees never comes here.
"""

from __future__ import annotations

import gc
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from wordtree.errors import TreeError

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

    from wordtree.tree import WordTree

# All that nltk opens. When one is missing, nltk's lazy loader starts again at every attribute access, for
# minutes.
FILES = (
    *(f"{kind}.{part}" for kind in ("data", "index") for part in ("adj", "adv", "noun", "verb")),
    *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb")),
    "index.sense",
    "cntlist.rev",
    "lexnames",
)
_CHECKOUT = Path(__file__).resolve().parents[1]
_ADVICE = "run scripts/get_wordnet, or set NLTK_DATA to a folder that holds corpora/wordnet"
_ID = re.compile(r"n([0-9]{8})")


def find() -> Path:
    """The folder of WordNet 3.0's files: below $NLTK_DATA, `.wordnet` in the checkout, or where nltk looks.

    Raises:
        TreeError: none; says where was looked and what to do.
    """
    import nltk

    bases = [Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p]
    bases += [_CHECKOUT / ".wordnet", *map(Path, nltk.data.path)]
    incomplete = []
    for base in dict.fromkeys(bases):
        root = base / "corpora" / "wordnet"
        if not root.is_dir():
            continue
        missing = [name for name in FILES if not (root / name).is_file()]
        if not missing:
            return root
        incomplete.append(f"{root} lacks {', '.join(missing)}")
    found = "; ".join(incomplete) or "looked below " + ", ".join(map(str, dict.fromkeys(bases)))
    raise TreeError(f"WordNet 3.0 is not here ({found}); {_ADVICE}")


@cache
def reader() -> WordNetCorpusReader:
    """nltk's reader, opened once, in about two seconds. TreeError if there is no WordNet or it is not 3.0."""
    with _no_collections():
        return _open()


@contextmanager
def _no_collections() -> Iterator[None]:
    """Python looks for circles again and again while millions of objects arrive, none of which is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor look through them again later: they stay as long as the program
        if was_on:
            gc.enable()


def _open() -> WordNetCorpusReader:
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    root = find()
    base = str(root.parents[1])
    if base not in nltk.data.path:
        nltk.data.path.append(base)  # nltk reads nothing outside its path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other languages are not at hand
            opened = WordNetCorpusReader(nltk.data.FileSystemPathPointer(str(root)), None)
        version = opened.get_version()
    except Exception as error:
        raise TreeError(
            f"{root}: WordNet cannot be opened ({type(error).__name__}: {error}); {_ADVICE}"
        ) from error
    if version != "3.0":
        raise TreeError(f"{root}: this is WordNet {version}, whose ids differ; wanted 3.0: {_ADVICE}")
    return opened


class NoNounError(TreeError):
    """A text that is no noun of WordNet."""


@cache
def synset(node: str) -> Synset:
    """The synset of a WordNet id ("n02084071") or synset name ("dog.n.01"). NoNounError if there is none."""
    match = _ID.fullmatch(node)
    try:
        if match:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nltk warns and returns None; an error follows below
                found = reader().synset_from_pos_and_offset("n", int(match[1]))
            if found is not None:
                return found
            raise NoNounError(f"WordNet 3.0 has no noun {node!r}")
        if node.count(".") >= 2:
            found = reader().synset(node)
            if found.pos() == "n":
                return found
    except TreeError:
        raise
    except Exception as error:  # nltk raises whatever parsing at a wrong offset runs into
        raise NoNounError(f"WordNet 3.0 has no noun {node!r}") from error
    raise NoNounError(
        f"{node!r} is neither the id of a WordNet noun (n02084071) nor a synset name (dog.n.01)"
    )


def wnid(of: Synset) -> str:
    """The id of a synset: "n" and the eight digits of its offset."""
    return f"n{of.offset():08d}"


def hypernyms(of: Synset) -> list[Synset]:
    """What it is a kind of, then what it is an instance of, each in alphabetical order.

    nltk gives them in the order of a set, which changes from one run of Python to the next.
    """
    return [
        h for kind in (of.hypernyms(), of.instance_hypernyms()) for h in sorted(kind, key=lambda h: h.name())
    ]


def nearest(tree: WordTree, node: str) -> int | None:
    """Index of the node for a WordNet noun: itself, else the fewest hypernyms up; None if none is above.

    Of several equally near the alphabetically first. This is where a label goes that is finer than the tree.
    """
    level = [synset(node)]
    while level:
        for of in sorted(level, key=lambda of: of.name()):
            if wnid(of) in tree:
                return tree.index(wnid(of))
        level = [hypernym for of in level for hypernym in hypernyms(of)]
    return None


def words(of: Synset) -> tuple[str, ...]:
    """Its words as people write them, the most usual first."""
    return tuple(lemma.replace("_", " ") for lemma in of.lemma_names())
