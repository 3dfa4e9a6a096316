"""Mapping: the classes of a data set to nodes of a tree.

By WordNet id, synset name, a committed table, a file, or, where asked for, by name. When a text names a node
and which spellings of a class are one is wordtree.naming's.
"""

import csv
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import wordtree
from data_prep.errors import DataError
from data_prep.record import Category
from data_prep.textfile import read_json, read_text
from wordtree import WordTree
from wordtree.naming import ClassTable, class_key, exact
from wordtree.tables import delimiter

# Tables that `map` may name: the first are wordtree's, the last ours.
_WORDTREE_TABLES = ("coco", "voc", "det", "ilsvrc")
_OWN_TABLES = ("caltech101",)


@dataclass(frozen=True)
class Mapping:
    """Result of mapping a data set's classes.

    nodes: category key -> node index. left_out: key -> why a table or file leaves it out on purpose.
    unmapped: key -> why no node was found.
    wider: key in `nodes` -> the name it has its node by, where its own is unknown and that of something it
        lies in is taken (see Category.closer).
    """

    nodes: dict[Hashable, int]
    left_out: dict[Hashable, str]
    unmapped: dict[Hashable, str]
    wider: dict[Hashable, str] = field(default_factory=dict)


def map_categories(
    categories: dict[Hashable, Category],
    used: Iterable[Hashable],
    tree: WordTree,
    how: str | None,
    root: Path = Path(),
) -> Mapping:
    """Find the node of each category in `used`.

    Args:
        categories: all of the data set, by key. used: keys that pictures really have.
        tree: whose nodes are wanted; in a flat tree names are ids.
        how: None: the category is a WordNet id or a synset name, has a synset, or is a flat tree's class.
            "names": besides, a name that only one node of the tree has. Else the name of a committed table
            (coco, voc, det, ilsvrc, caltech101) or a .csv, .tsv or .json file, relative to `root`, from class
            name or id to WordNet id, synset name or name; an empty node leaves the class out on purpose.

    Raises:
        DataError: the table or file cannot be read. Classes without a node are no error here but `unmapped`.
    """
    table = None if how in (None, "names") else _read_table(how, root)
    mapping = Mapping({}, {}, {})
    for key in dict.fromkeys(used):
        category = categories[key]
        if category.node is not None:
            if category.node < len(tree):
                mapping.nodes[key] = category.node
            else:
                mapping.unmapped[key] = f"{category.name!r}: the tree has only {len(tree)} nodes"
            continue
        names = (*category.closer, category.name)
        found = [_find(name, key, category.synset, tree, how, table) for name in names]
        place = next((k for k, (what, _) in enumerate(found) if what != "unmapped"), 0)
        what, said = found[place]
        getattr(mapping, what)[key] = said
        if what == "nodes" and place:
            apart = [
                name
                for name, (kind, node) in zip(names[place + 1 :], found[place + 1 :], strict=True)
                if kind == "nodes" and node != said and node not in tree.ancestors(said)
            ]
            if apart:
                del mapping.nodes[key]
                mapping.unmapped[key] = (
                    f"{names[0]!r}: {names[place]!r} and {apart[0]!r} are both classes, and neither lies "
                    "below the other; a map can tell which is meant"
                )
            elif place > 1:  # the first two of several are the class's own
                mapping.wider[key] = names[place]
    return mapping


def _find(
    name: str, key: Hashable, synset: str | None, tree: WordTree, how: str | None, table: ClassTable | None
) -> tuple[str, int | str]:
    """What becomes of a class that goes by this name: the field of Mapping that it belongs to, and what
    stands there."""
    wanted = [synset, name]
    if table is not None:
        rows = table[name] or table[str(key)]
        if len({node for node, _ in rows}) != 1:
            why = f"several classes of {how} are called so" if rows else f"not in {how}"
            return "unmapped", f"{name!r}: {why}"
        word, remark = rows[0]
        if not word:
            return "left_out", f"{name!r}: {remark or 'left out by ' + str(how)}"
        wanted = [word]
    # A table's word is meant as it stands; a class's own name may mean something else in WordNet ("mouse").
    words = [word for word in wanted if word]
    nodes = (exact(word, tree, by_name=how is not None) for word in words)
    node = next((node for node in nodes if node is not None), None)
    if node is not None:
        return "nodes", node
    why = "is not, or not only, one node" if how else "is no WordNet id or synset"
    return "unmapped", f"{name!r}: {words[0] if words else ''!r} {why} of the tree"


def _read_table(how: str, root: Path) -> ClassTable:
    """Class name -> (node or "", remark)."""
    if how in _WORDTREE_TABLES:
        return ClassTable((name, (wnid, "")) for name, wnid in wordtree.class_map(how))
    if how in _OWN_TABLES:
        text = (resources.files("data_prep") / "data" / f"{how}.tsv").read_text(encoding="utf-8")
        return _rows(text, how, "\t")
    path = root / how
    kind = path.suffix.lower()  # some systems shout
    if kind not in (".csv", ".tsv", ".json"):
        tables = ", ".join([*_WORDTREE_TABLES, *_OWN_TABLES, "names"])
        raise DataError(f"map {how!r}: wanted one of {tables}, or a .csv, .tsv or .json file")
    if kind != ".json":
        text = read_text(path)
        said = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        return _rows(text, str(path), delimiter(path, "\n".join(said[:1])))
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, str | None) for v in content.values()):
        raise DataError(
            f"{path}: wanted an object from class name to WordNet id (or null to leave the class out)"
        )
    return ClassTable((name, (node or "", "")) for name, node in content.items())


def _rows(text: str, where: str, between: str) -> ClassTable:
    table: dict[str, tuple[str, str]] = {}
    nodes: dict[str, str] = {}
    rows = csv.reader(text.splitlines(), delimiter=between, skipinitialspace=True)  # blanks before quotes
    for number, row in enumerate(rows, 1):
        if not row or row[0].lstrip().startswith("#"):
            continue
        if len(row) < 2 or not row[0].strip():
            raise DataError(f"{where}: line {number}: wanted class, node[, remark], found {row!r}")
        node, remark = row[1].strip(), row[2].strip() if len(row) > 2 else ""
        # Of two spellings, "sofa" and "couch", both may be there, but not with two nodes.
        if row[0] in table or nodes.setdefault(class_key(row[0]), node) != node:
            raise DataError(
                f"{where}: line {number}: {row[0]!r} is there twice, or otherwise spelt with another node"
            )
        table[row[0]] = node, remark
    return ClassTable(table.items())
