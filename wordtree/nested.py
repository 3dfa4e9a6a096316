"""Hierarchies as nested JSON: name and children, Open Images' LabelName and Subcategory, or keys in keys.

Not here: the tree's own file (treefile.py), which keeps all that a tree knows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wordtree.errors import TreeError
from wordtree.files import parse_json, read_whole, write_whole
from wordtree.graphs import from_parents
from wordtree.tree import WordTree

FORMS = ("children", "openimages", "keys")
_CHILDREN = {"id", "name", "gloss", "children"}
_OPEN_IMAGES = {"LabelName", "Subcategory", "Part"}


def is_nested(value: object) -> bool:
    """Whether a JSON value looks like one of the forms that say so themselves ("children", "openimages")."""
    if isinstance(value, list):  # no other file of a tree is one
        return True
    return isinstance(value, dict) and bool(value.keys() & {"children", "LabelName", "Subcategory"})


def read_nested(path: str | Path, *, parts: str = "refuse") -> WordTree:
    """Read a nested JSON file; see `from_nested`."""
    return from_nested(parse_json(read_whole(path), str(path)), parts=parts, where=str(path))


def from_nested(value: Any, *, parts: str = "refuse", where: str = "the hierarchy") -> WordTree:
    """The tree of a nested JSON value.

    Forms, told apart by their keys:
      {"name": .., "id": .., "gloss": .., "children": [..]}, or a list of them; one of id and name is enough;
      {"LabelName": .., "Subcategory": [..], "Part": [..]}, Open Images; a label that stands in several
        places has several parents, of which growth picks one (graphs.py);
      {"animal": {"dog": {}, "cat": null}, "car": []} or ["dog", "cat"], names alone.

    Args:
        value: what JSON gave.
        parts: what to do with Open Images' `Part`, which is no kind of its whole: "refuse", "skip" it and
            all below it, or take it for a "child".
        where: what to call it in messages.

    Raises:
        TreeError: says at which path of names the fault is.
    """
    if parts not in ("refuse", "skip", "child"):
        raise TreeError(f'parts is "refuse", "skip" or "child", not {parts!r}')
    parents: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    glosses: dict[str, str] = {}
    several = False
    waiting: list[tuple[Any, tuple[str, ...]]] = [(value, ())]  # children of one place, and the way to it
    while waiting:
        below, way = waiting.pop()
        at = f"{where}: {' > '.join(way) or 'the top'}"
        inner = []
        for entry in _entries(below, at):
            node, name, gloss, children, own_parts, open_images = _entry(entry, at)
            if own_parts and parts == "refuse":
                raise TreeError(
                    f"{at} > {node}: has parts, which are no kinds of it; read the file with "
                    'wordtree.nested.read_nested(path, parts="skip"), or "child", and save what it gives '
                    '(tree.save("own.json"))'
                )
            several |= open_images
            if node in parents and not several:
                raise TreeError(f"{at}: {node!r} is there twice; names have to be unique, or give each an id")
            above = parents.setdefault(node, [])
            if way and way[-1] not in above:
                above.append(way[-1])
            if name:
                names[node] = name
            if gloss:
                glosses[node] = gloss
            for more in (children, own_parts if parts == "child" else None):
                if more:
                    inner.append((more, (*way[-3:], node)))  # the last steps are enough for a message
        waiting += reversed(inner)
    try:
        return from_parents(parents, names, glosses, where=where)
    except TreeError as error:
        raise TreeError(f"{where}: {error}") from error


def _entries(below: Any, at: str) -> list[Any]:
    """The children in a list, an object of a form of its own, or keys."""
    if isinstance(below, list):
        return below
    if isinstance(below, dict):
        keyed = below.keys() & (_CHILDREN | _OPEN_IMAGES)
        return [below] if keyed else [{"name": key, "children": inner} for key, inner in below.items()]
    raise TreeError(f"{at}: wanted a list or an object of children, not {str(below)[:60]!r}")


def _entry(entry: Any, at: str) -> tuple[str, str, str, Any, Any, bool]:
    """id, name, gloss, children, parts, and whether it is Open Images', of one node."""
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict):
        raise TreeError(f"{at}: wanted a name or an object, not {str(entry)[:60]!r}")
    open_images = "LabelName" in entry
    strange = entry.keys() - (_OPEN_IMAGES if open_images else _CHILDREN)
    if strange:
        raise TreeError(f"{at}: the key {min(strange)!r} means nothing here")
    texts = [entry.get(key) for key in (("LabelName",) if open_images else ("id", "name", "gloss"))]
    if any(text is not None and not isinstance(text, str) for text in texts):
        raise TreeError(f"{at}: ids, names and glosses are texts: {str(entry)[:60]!r}")
    node, name, gloss = (*texts, None, None)[:3]
    if not (node or name):
        raise TreeError(f"{at}: a node without id and name: {str(entry)[:60]!r}")
    below = entry.get("Subcategory" if open_images else "children")
    return node or name, name or "", gloss or "", below, entry.get("Part"), open_images


def to_nested(tree: WordTree, form: str = "children") -> Any:
    """The inverse of `from_nested`: ids, names and glosses in `form` "children", else ids alone."""
    if form not in FORMS:
        raise TreeError(f"a nested form is {', '.join(FORMS)}, not {form!r}")
    entries: list[dict[str, Any]] = []
    for i, node in enumerate(tree.ids):
        if form == "openimages":
            entries.append({"LabelName": node})
        elif form == "keys":
            entries.append({})
        else:
            entries.append({"id": node, "name": tree.names[i]})
            if tree.glosses and tree.glosses[i]:
                entries[i]["gloss"] = tree.glosses[i]
    if form == "keys":
        reserved = next((node for node in tree.ids if node in _CHILDREN | _OPEN_IMAGES), None)
        if reserved:
            raise TreeError(f"the id {reserved!r} is a key with a meaning of its own; take another form")
        top: dict[str, Any] = {}
        for i, parent in enumerate(tree.parents.tolist()):
            (entries[parent] if parent >= 0 else top)[tree.ids[i]] = entries[i]
        return top
    for i, parent in enumerate(tree.parents.tolist()):
        if parent >= 0:
            entries[parent].setdefault("Subcategory" if form == "openimages" else "children", []).append(
                entries[i]
            )
    return [entries[i] for i in tree.roots]


def write_nested(tree: WordTree, path: str | Path, form: str = "children") -> None:
    """Write `to_nested` as JSON."""
    try:
        text = json.dumps(to_nested(tree, form), ensure_ascii=False, indent=1)
    except RecursionError:
        raise TreeError(f"{path}: the tree is too deep for nested JSON; write edges instead") from None
    write_whole(path, f"{text}\n".encode())
