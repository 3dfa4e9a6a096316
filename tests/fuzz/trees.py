"""Readers of trees: Darknet's .tree, .names and .map, the own JSON, nested JSON, tables, GraphML.

The independent parses: text split by hand, the json and csv modules, networkx.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import networkx

from tests.fuzz.mutate import edit_bytes, edit_json, edit_text, edit_value
from tests.fuzz.reader import Check, MisreadError, Reader, same
from wordtree import TreeError, WordTree
from wordtree.darknet import read_map

IDS = ("n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8")
PARENTS = (-1, -1, 0, 0, 1, 1, 3, 3)
NAMES = ("animal", "thing", "cat", "dog", "car", "cup", "husky dog", "poodle")

TREE = "".join(f"{a} {b}\n" for a, b in zip(IDS, PARENTS, strict=True)).encode()
NAME_LINES = "".join(f"{name}\n" for name in NAMES).encode()


def example() -> WordTree:
    return WordTree(
        IDS,
        PARENTS,
        NAMES,
        [f"what a {name} is" for name in NAMES],
        synonyms=[(name, name.upper()) for name in NAMES],
        sources=[("imagenet",)] * len(IDS),
        about={"made": "for the fuzzer"},
    )


def forest(tree: WordTree, edges: set[tuple[str, str]], nodes: list[str]) -> None:
    """MisreadError unless the tree is the forest of these edges, (parent, child), by networkx' reckoning."""
    wanted = networkx.DiGraph()
    wanted.add_nodes_from(nodes)
    wanted.add_edges_from(edges)
    if not networkx.is_directed_acyclic_graph(wanted) or any(d > 1 for _, d in wanted.in_degree):
        raise MisreadError("accepted what networkx finds to be no forest")
    found = tree.to_networkx()
    same(set(found.nodes), set(wanted.nodes), "nodes")
    same(set(found.edges), set(wanted.edges), "edges")
    own = {(tree.ids[p], tree.ids[i]) for i, p in enumerate(tree.parents.tolist()) if p >= 0}
    same(own, set(wanted.edges), "parents")
    for node in wanted.nodes:
        above = sorted(networkx.ancestors(wanted, node))
        same(sorted(tree.path(tree.index(node))[:-1]), above, f"path of {node}")


def _split_lines(data: bytes) -> list[str]:
    lines = data.decode().split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


@contextmanager
def open_tree(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.tree"
        path.write_bytes(data)
        tree = WordTree.load(path)
        pairs = [re.findall(r"[^ \t\v\f]+", line) for line in _split_lines(data)]  # as C splits
        same(tree.ids, tuple(pair[0] for pair in pairs), "ids")
        parents = [int(pair[1]) for pair in pairs]
        same(tree.parents.tolist(), parents, "parents")
        forest(tree, {(tree.ids[p], tree.ids[i]) for i, p in enumerate(parents) if p >= 0}, list(tree.ids))
        canonical = "".join(f"{a} {b}\n" for a, b in zip(tree.ids, parents, strict=True)).encode()
        same(tree.fingerprint, hashlib.sha256(canonical).hexdigest(), "fingerprint")

    yield check


@contextmanager
def open_names(folder: Path) -> Iterator[Check]:
    (folder / "x.tree").write_bytes(TREE)

    def check(data: bytes) -> None:
        path = folder / "x.names"
        path.write_bytes(data)
        same(WordTree.from_darknet(folder / "x.tree", path).names, tuple(_split_lines(data)), "names")

    yield check


@contextmanager
def open_map(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.map"
        path.write_bytes(data)
        found = read_map(path, 10).tolist()
        wanted = [int(line) for line in _split_lines(data)]
        same(found, wanted, "nodes")
        if not all(0 <= node < 10 for node in wanted):
            raise MisreadError(f"a node outside the tree: {wanted}")

    yield check


@contextmanager
def open_json(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.json"
        path.write_bytes(data)
        tree = WordTree.load(path)
        columns = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
        if not isinstance(columns, dict) or "ids" not in columns:
            return  # nested: open_nested looks at these
        for key in ("ids", "names", "glosses", "synsets"):
            values = columns.get(key)
            same(getattr(tree, key), None if values is None else tuple(values), key)
        same(tree.parents.tolist(), columns["parents"], "parents")
        same({type(p) for p in columns["parents"]}, {int}, "types of parents")
        for key in ("synonyms", "sources", "hypernyms"):
            rows = columns.get(key)
            same(getattr(tree, key), None if rows is None else tuple(map(tuple, rows)), key)
        ids = columns["ids"]
        forest(tree, {(ids[p], ids[i]) for i, p in enumerate(columns["parents"]) if p >= 0}, ids)
        same(WordTree.from_dict(tree.to_dict()), tree, "what is written again")

    yield check


def seal(random: Random, data: bytes) -> bytes:
    """JSON edited inside, with a fingerprint that fits ids and parents, so that later checks are met."""
    columns = edit_value(random, json.loads(data))
    if not isinstance(columns, dict):
        return json.dumps(columns).encode()
    ids, parents = columns.get("ids"), columns.get("parents")
    if isinstance(ids, list) and isinstance(parents, list) and "fingerprint" in columns:
        text = "".join(f"{a} {b}\n" for a, b in zip(ids, parents, strict=False))
        columns["fingerprint"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps(columns).encode()


def zipped(edit: Callable[[Random, bytes], bytes]) -> Callable[[Random, bytes], bytes]:
    """The edit inside or around gzip."""

    def change(random: Random, data: bytes) -> bytes:
        if random.random() < 0.5:
            return gzip.compress(edit(random, data), 1, mtime=0)
        return edit_bytes(random, gzip.compress(data, 1, mtime=0))

    return change


@contextmanager
def open_nested(folder: Path) -> Iterator[Check]:
    from wordtree.nested import read_nested

    def check(data: bytes) -> None:
        path = folder / "x.json"
        path.write_bytes(data)
        tree = read_nested(path)
        edges: set[tuple[str, str]] = set()
        nodes: list[str] = []
        keyed = {"id", "name", "gloss", "children", "LabelName", "Subcategory", "Part"}
        waiting = [(json.loads(data), None)]
        while waiting:
            below, above = waiting.pop()
            if isinstance(below, dict) and not keyed & below.keys():
                below = [{"name": key, "children": inner} for key, inner in below.items()]
            for entry in [below] if isinstance(below, dict) else below:
                entry = {"name": entry} if isinstance(entry, str) else entry
                node = entry.get("LabelName") or entry.get("id") or entry["name"]
                nodes.append(node)
                if above is not None:
                    edges.add((above, node))
                inner = entry.get("children") or entry.get("Subcategory")
                if inner:
                    waiting.append((inner, node))
        same(set(tree.ids), set(nodes), "nodes")
        found = {(tree.ids[p], tree.ids[i]) for i, p in enumerate(tree.parents.tolist()) if p >= 0}
        if not found <= edges or {child for _, child in found} != {child for _, child in edges}:
            raise MisreadError(f"edges: the reader has {found}, the file says {edges}")

    yield check


@contextmanager
def open_table(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.csv"
        path.write_bytes(data)
        tree = WordTree.load(path)
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        heading = [cell.strip().casefold() for cell in rows[0]]
        cells = [[cell.strip() for cell in row] for row in rows[1:]]
        cells = [row for row in cells if any(row)]  # a row of nothing is none
        if "child" in heading and "parent" in heading:
            child, parent = heading.index("child"), heading.index("parent")
            edges = {(row[parent], row[child]) for row in cells if row[parent]}
            nodes = {row[child] for row in cells} | {a for a, _ in edges}
        else:
            ways = [[cell for cell in row if cell] for row in cells]
            edges = {edge for way in ways for edge in pairwise(way)}
            nodes = {node for way in ways for node in way}
        same(set(tree.ids), nodes, "nodes")
        found = {(tree.ids[p], tree.ids[i]) for i, p in enumerate(tree.parents.tolist()) if p >= 0}
        if not found <= edges or {b for _, b in found} != {b for _, b in edges}:
            raise MisreadError(f"edges: the reader has {found}, the file says {edges}")

    yield check


@contextmanager
def open_graphml(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.graphml"
        path.write_bytes(data)
        tree = WordTree.load(path)
        graph = networkx.parse_graphml(data.decode())
        same(set(tree.ids), {str(node) for node in graph.nodes}, "nodes")
        edges = {(str(edge[0]), str(edge[1])) for edge in graph.edges}
        found = {(tree.ids[p], tree.ids[i]) for i, p in enumerate(tree.parents.tolist()) if p >= 0}
        if not found <= edges or {b for _, b in found} != {b for _, b in edges}:
            raise MisreadError(f"edges: the reader has {found}, the file says {edges}")

    yield check


def _own() -> list[bytes]:
    return [json.dumps(example().to_dict()).encode()]


def _nested() -> list[bytes]:
    from wordtree.nested import FORMS, to_nested

    return [json.dumps(to_nested(example(), form)).encode() for form in FORMS]


def _tables() -> list[bytes]:
    edges = "child,parent,name\n" + "".join(
        f"{IDS[i]},{IDS[p] if p >= 0 else ''},{NAMES[i]}\n" for i, p in enumerate(PARENTS)
    )
    ranks = "kingdom,genus,species\nanimal,dog,husky\nanimal,dog,poodle\nanimal,cat,\nthing,,cup\n"
    return [edges.encode(), ranks.encode(), edges.replace("\n", "\r\n").encode()]


def _graphs() -> list[bytes]:
    return ["\n".join(networkx.generate_graphml(example().to_networkx())).encode()]


_TEXT = (edit_text, edit_text, edit_bytes)
READERS = (
    Reader("tree", (TreeError,), open_tree, lambda: [TREE, TREE.replace(b"\n", b"\r\n")], _TEXT),
    Reader("names", (TreeError,), open_names, lambda: [NAME_LINES], _TEXT),
    Reader("map", (TreeError,), open_map, lambda: [b"3\n4\n0\n9\n3\n", b"7"], _TEXT),
    Reader(
        "tree-json",
        (TreeError,),
        open_json,
        _own,
        (seal, seal, edit_json, edit_text, edit_bytes, zipped(seal)),
    ),
    Reader("nested", (TreeError,), open_nested, _nested, (edit_json, edit_json, edit_text, edit_bytes)),
    Reader("table", (TreeError,), open_table, _tables, _TEXT),
    Reader("graphml", (TreeError,), open_graphml, _graphs, _TEXT),
)
