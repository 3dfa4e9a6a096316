"""Class names of data sets to nodes, by written rules; what fits none or several is reported, never guessed.

Two ways use the same words: `map_names` tries rule after rule, `exact` takes a text as it stands only.

Not here: the committed tables of COCO, VOC, DET and ILSVRC (classes.py), what a node is called (lookup.py).
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wordtree import wordnet
from wordtree.classes import class_map
from wordtree.errors import TreeError
from wordtree.files import read_lines, read_whole
from wordtree.lookup import plain
from wordtree.tree import WordTree
from wordtree.words import counted

_ID = re.compile(r"(n[0-9]{8})\b")
_SYNSET = re.compile(r".+\.n\.[0-9]+")
_QUALIFIED = re.compile(r"(.+?)\s*\((.+)\)")  # "Bat (Animal)", LVIS's "bat_(animal)"

# VOC's words for classes that COCO and the tables call otherwise; Darknet's coco.names has them too.
_SPELLINGS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
}

# What may stand before the ending of a plural, the ending, and what the singular has in its place.
_PLURALS = (
    ("", "ies", "y"),
    ("", "ves", "f"),
    ("i", "ves", "fe"),  # knives and lives; caves are no cafes
    ("", "men", "man"),
    (("s", "x", "z", "ch", "sh", "o"), "es", ""),
    ("", "s", ""),
)


@dataclass(frozen=True)
class Named:
    """One class name and the node found for it.

    node: its index, None if there is none. rule: which rule found it ("table", "id", "synset", "name",
    "qualifier", "singular"; "wider": the nearest node above a noun that the tree lacks). note: for a class
    without a node why, else what was taken for what.
    """

    name: str
    node: int | None
    rule: str
    note: str = ""


def class_key(name: str) -> str:
    """A class name without case, blanks, hyphens and underscores, in one spelling: "Potted plant" and
    "pottedplant" are one."""
    squeezed = re.sub(r"[\s_-]", "", unicodedata.normalize("NFC", name.casefold()))
    return _SPELLINGS.get(squeezed, squeezed)


class ClassTable:
    """What a table says of class names, found by the spelling of the table, else by `class_key`."""

    def __init__(self, rows: Iterable[tuple[str, Any]]) -> None:
        """rows: class name and what is said of it."""
        self._spelt: dict[str, list[Any]] = {}
        self._keys: dict[str, list[Any]] = {}
        for name, said in rows:
            self._spelt.setdefault(name, []).append(said)  # ILSVRC has a Cardigan and a cardigan
            self._keys.setdefault(class_key(name), []).append(said)

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        """All that is said of the name: nothing if it is not there, several things if rows share it."""
        return tuple(self._spelt.get(name) or self._keys.get(class_key(name)) or ())


def exact(text: str, tree: WordTree, by_name: bool = False) -> int | None:
    """The node whose id or synset name the text is; by_name: also the one node that goes by it. None: no
    node, or several. A WordNet id is never taken for a name."""
    for spelt in (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))):
        if spelt in tree:
            return tree.index(spelt)
    if tree.synsets and text in tree.synsets:
        return tree.synsets.index(text)
    if not by_name or _ID.fullmatch(text):
        return None
    found = tree.lookup.called(text)
    return found[0] if len(found) == 1 else None


def map_names(
    names: Iterable[str] | Mapping[str, str | None],
    tree: WordTree,
    *,
    table: str | None = None,
    wider: bool = False,
) -> tuple[Named, ...]:
    """Find the node of each class name. The first rule that gives exactly one node wins:

    1. table: the committed one of the data set; VOC's words for COCO's classes count;
    2. id: a WordNet id at the start of the name, as ImageNet's folders and label lists have it;
    3. synset: the name, or what comes with it, is a synset name ("dog.n.01"). A noun that rule 2 or 3 asks
       for and the tree lacks goes nowhere else but by rule 7. Only a tree that has no ids of WordNet (2), or
       no synset names (3), cannot say that it lacks the noun: there the rules for names follow;
    4. name: one node alone has it as its id or is called so, or else has it as a synonym; capitals,
       underscores, hyphens and commas with further words (ImageNet's "tench, Tinca tinca") do not matter;
    5. qualifier: of the nodes that go by "Bat" in "Bat (Animal)", one alone has the word in the names of what
       is above it or in its gloss;
    6. singular: of all that the name may be the plural of ("Doughnuts"), one node by rules 4 and 5;
    7. wider, only if asked for: the nearest node above the synset of rule 2 or 3. Needs WordNet.

    Args:
        names: class names, or class name -> synset name as LVIS has it (None: none).
        tree: whose nodes are wanted.
        table: "coco", "voc", "det" or "ilsvrc".
        wider: whether a noun finer than the tree may go to the node above it.

    Returns:
        One record per name, in their order; `report` prints those without a node.
    """
    if isinstance(names, str):
        raise TreeError(f"wanted a list of class names, not the one text {names!r}")
    pairs = names.items() if isinstance(names, Mapping) else ((name, None) for name in names)
    known = ClassTable(class_map(table) if table else ())
    judged = {"id"} if any(map(_ID.fullmatch, tree.ids)) else set()
    if tree.synsets is not None:
        judged.add("synset")
    return tuple(_one(name, synset, tree, known, judged, wider) for name, synset in pairs)


def _one(
    name: str, synset: str | None, tree: WordTree, known: ClassTable, judged: set[str], wider: bool
) -> Named:
    """judged: by which of the rules "id" and "synset" the tree can say that it lacks a noun."""
    if not isinstance(name, str) or not name.strip():
        return Named(str(name), None, "", "an empty name")
    there = [node for node in known[name] if node in tree]
    if len(there) == 1:
        return Named(name, tree.index(there[0]), "table")
    if there:
        return Named(name, None, "", f"{len(there)} classes of the table are called so: {', '.join(there)}")
    code, rule, words = None, "", name
    if match := _ID.match(name):
        code, rule, words = match[1], "id", name[match.end() :].strip() or name
    elif synset or _SYNSET.fullmatch(name):
        code, rule = synset or name, "synset"
    if code:
        node = exact(code, tree)
        if node is not None:
            return Named(name, node, rule)
        why = f"{code} is no node of the tree"
        if wider:
            try:
                node = wordnet.nearest(tree, code)
            except wordnet.NoNounError as error:
                why = str(error)
            if node is not None:
                return Named(name, node, "wider", f"{code} -> {tree.ids[node]} {tree.names[node]}")
        if rule in judged:
            return Named(name, None, "", why)
    whole = tree.lookup.called(words)  # commas and brackets may belong to it
    if len(whole) == 1:
        return Named(name, whole[0], "name")
    base = words.split(",")[0]
    qualified = _QUALIFIED.fullmatch(base.replace("_", " "))
    word = qualified[1] if qualified else base
    for spelt, rule in (((word,), "name"), (singulars(word), "singular")):
        candidates = tuple(dict.fromkeys(k for w in spelt for k in tree.lookup.called(w)))
        if qualified and len(candidates) > 1:
            candidates = tuple(k for k in candidates if _qualifies(tree, k, qualified[2]))
            rule = "qualifier" if rule == "name" else rule
        if len(candidates) == 1:
            return Named(
                name, candidates[0], rule, "" if rule == "name" else f"taken for {tree.names[candidates[0]]}"
            )
        if candidates:
            said = "; ".join(f"{tree.ids[k]} {tree.names[k]}" for k in candidates[:6])
            return Named(name, None, "", f"{len(candidates)} nodes go by that name: {said}")
    return Named(name, None, "", "no node goes by that name")


def singulars(name: str) -> tuple[str, ...]:
    """All that the name may be the plural of: -ies, -ves, -es, -s and -men at its end."""
    low = name.lower()
    return tuple(
        name[: -len(ending)] + instead
        for before, ending, instead in _PLURALS
        if low.endswith(ending) and low[: -len(ending)].endswith(before)
        if len(name) > len(ending) + 1 and not low.endswith("ss")
    )


def _qualifies(tree: WordTree, node: int, qualifier: str) -> bool:
    """Whether the qualifier is a word of the gloss or of what is above the node."""
    texts = [tree.glosses[node]] if tree.glosses else []
    for k in tree.path_nodes(node):
        texts += [tree.names[k], *(tree.synonyms[k] if tree.synonyms else ())]
    text = f" {re.sub('[^a-z0-9]+', ' ', plain(' '.join(texts)))} "
    return any(f" {plain(word)} " in text for word in (qualifier, *singulars(qualifier)))


def report(named: Iterable[Named]) -> str:
    """How many classes each rule found; a line per class without a node, or with one of another name."""
    named = tuple(named)
    counts: dict[str, int] = {}
    for found in named:
        counts[found.rule or "not found"] = counts.get(found.rule or "not found", 0) + 1
    lines = [
        f"{counted(len(named), 'class', 'classes')}: "
        + ", ".join(f"{n} {rule}" for rule, n in sorted(counts.items()))
    ]
    lines += [f"- {f.name}: {f.note}" for f in named if f.node is None]
    lines += [f"~ {f.name}: {f.note}" for f in named if f.node is not None and f.note]
    return "\n".join(lines)


def read_names(path: str | Path) -> dict[str, str | None]:
    """Class names out of a data set's own file -> the synset name it gives with them, if any.

    A .json with COCO's or LVIS's `categories`; Open Images' class-descriptions .csv (`/m/01g317,Person`);
    else a name a line, such as COCO's and VOC's .names or ImageNet's lists.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        try:
            categories = json.loads(read_whole(path).decode("utf-8-sig"))["categories"]
            return {c["name"]: c.get("synset") for c in categories}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TreeError(
                f"{path}: no JSON with COCO's categories ({type(error).__name__}: {error})"
            ) from error
    lines = read_lines(path, marked=True)
    if path.suffix.lower() == ".csv":
        rows = [_label_and_name(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
        return {name: None for label, name in rows if label != "LabelName"}
    return {line.strip(): None for line in lines}


def _label_and_name(line: str, where: str) -> tuple[str, str]:
    """The fields of a line of CSV; where none begins with a quote, which is a sign of the name (inches)
    elsewhere, all commas but the first belong to the name."""
    try:
        quoted = re.match(r' *"|[^,]*, *"', line)
        row = next(csv.reader([line], skipinitialspace=True, strict=True)) if quoted else line.split(",", 1)
        label, name = map(str.strip, row)
    except (csv.Error, ValueError):  # ValueError: another number of fields
        label, name = "", ""
    if not name:
        raise TreeError(f"{where}: wanted label,name, found {line!r}")
    return label, name
