"""The tree's own file: JSON in columns, gzipped if named .gz, and the default tree that lies in the package.

Not here: Darknet's text files (darknet.py) and the making of the default tree (scripts/build_default_tree).
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from wordtree.errors import TreeError
from wordtree.files import MOST_BYTES, parse_json, read_whole, write_whole
from wordtree.tree import COLUMNS, WordTree

FORMAT = "wordtree"
VERSION = 1
_GZIP = b"\x1f\x8b"


def to_dict(tree: WordTree) -> dict[str, Any]:
    """The tree as JSON-able columns, after its format, version and fingerprint."""
    columns: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": tree.fingerprint,
        "about": dict(tree.about),
        "ids": list(tree.ids),
        "parents": tree.parents.tolist(),
        "names": list(tree.names),
    }
    for name in COLUMNS:
        values = getattr(tree, name)
        if values is not None:
            columns[name] = [value if isinstance(value, str) else list(value) for value in values]
    return columns


def from_dict(columns: Mapping[str, Any], where: str = "tree") -> WordTree:
    """The inverse of `to_dict`.

    Args:
        columns: what `to_dict` gave, perhaps by way of JSON.
        where: what to call it in errors, the file for one.

    Raises:
        TreeError: another format or version, a column that is missing or of the wrong type or length, a tree
            that is none, or one that does not have the fingerprint it came with.
    """
    if not isinstance(columns, Mapping) or columns.get("format") != FORMAT:
        raise TreeError(f'{where}: not a WordTree (wanted an object with "format": "{FORMAT}")')
    version = columns.get("version")
    if version != VERSION or isinstance(version, bool):
        raise TreeError(
            f"{where}: version {version!r}, but this program reads version {VERSION}; make the file again"
        )
    for name in ("ids", "parents", "names", *COLUMNS):
        if not isinstance(columns.get(name, [] if name in COLUMNS else None), list):
            raise TreeError(f"{where}: {name!r} is missing or not a list")
    if not isinstance(columns.get("about", {}), Mapping):
        raise TreeError(f"{where}: 'about' is not an object")
    try:
        tree = WordTree(
            columns["ids"],
            columns["parents"],
            columns["names"],
            **{name: columns.get(name) for name in COLUMNS},
            about=columns.get("about"),
        )
    except TreeError as error:
        raise TreeError(f"{where}: {error}") from error
    if columns.get("fingerprint") != tree.fingerprint:
        raise TreeError(
            f"{where}: ids and parents do not give their fingerprint {columns.get('fingerprint')!r}; "
            "the file was changed or damaged"
        )
    return tree


def load(path: str | Path) -> WordTree:
    """Read a file that `save` wrote, or another hierarchy, told by its name and keys.

    Darknet's .tree with the .names beside it, if any; .csv or .tsv (tables.py); .graphml (graphs.py); nested
    JSON (nested.py); a folder of folders (folders.py).
    """
    path = Path(path)
    if path.is_dir():
        from wordtree.folders import read_folders

        return read_folders(path)
    suffix = path.suffix.lower()  # some systems shout
    if suffix in (".csv", ".tsv"):
        from wordtree.tables import read_table

        return read_table(path)
    if suffix == ".graphml":
        from wordtree.graphs import read_graphml

        return read_graphml(path)
    if suffix == ".tree":
        names = path.with_suffix(".names")
        return WordTree.from_darknet(path, names if names.is_file() else None)
    data = read_whole(path)
    begin = data.removeprefix(codecs.BOM_UTF8).lstrip()[:2]
    if begin and suffix not in (".json", ".gz") and not begin.startswith((b"{", _GZIP)):
        raise TreeError(
            f"{path}: no form of a tree that is known here: JSON, .csv, .tsv, .graphml, Darknet's .tree, or "
            "a folder of folders"
        )
    return _parse(data, str(path))


def save(tree: WordTree, path: str | Path) -> None:
    """Write the tree; a name that ends in .gz is compressed. The same tree always gives the same bytes."""
    path = Path(path)
    if path.suffix == ".tree":
        raise TreeError(f"{path}: .tree is Darknet's format, this is JSON; name it .json or use to_darknet")
    if path.suffix.lower() in (".csv", ".tsv", ".graphml"):  # which `load` would take for another form
        raise TreeError(
            f"{path}: this is JSON; name it .json, and `wordtree export {path.name} --tree X.json` translates"
        )
    try:
        text = json.dumps(to_dict(tree), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TreeError(f"{path}: `about` of the tree cannot be written as JSON ({error})") from error
    # mtime=0: the time of writing would make the same tree give other bytes.
    write_whole(path, gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def _parse(data: bytes, where: str) -> WordTree:
    columns = parse_json(_unpack(data, where) if data.startswith(_GZIP) else data, where)
    if isinstance(columns, dict) and columns.get("format") == FORMAT:
        return from_dict(columns, where)
    from wordtree.nested import from_nested, is_nested  # and with it what trees are grown by

    if isinstance(columns, dict) and not is_nested(columns) and "format" not in columns:
        raise TreeError(
            f"{where}: neither a WordTree nor nested with names; a tree by keys alone, which any JSON looks "
            "like, is read by wordtree.nested.read_nested"
        )
    return from_nested(columns, where=where) if is_nested(columns) else from_dict(columns, where)


def _unpack(data: bytes, where: str) -> bytes:
    """gzip data, all of it and not too much."""
    stream = zlib.decompressobj(wbits=31)  # 31: a gzip header and the largest window
    try:
        unpacked = stream.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise TreeError(f"{where}: damaged gzip data ({error})") from error
    if stream.unconsumed_tail:
        raise TreeError(f"{where}: unpacks to over {MOST_BYTES >> 20} MiB; that is no tree")
    if not stream.eof:
        raise TreeError(f"{where}: the compressed file ends early; fetch or make it again")
    if stream.unused_data:
        raise TreeError(f"{where}: {len(stream.unused_data)} bytes follow the end of the gzip data")
    return unpacked


@cache
def default() -> WordTree:
    """The tree in the package, read once."""
    resource = files("wordtree") / "data" / "default.json.gz"
    if not resource.is_file():
        raise TreeError("the default tree is not in this installation; install the package again")
    return _parse(resource.read_bytes(), "the default tree")
