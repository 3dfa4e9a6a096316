"""Hierarchies as tables, CSV or TSV with a heading: an edge per line, or a column per rank. Fields are apart
by commas, or by semicolons or tabs where the heading has these and no comma: so spreadsheets write .csv in
countries with a decimal comma.

Not here: Darknet's .tree (darknet.py).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from wordtree.errors import TreeError
from wordtree.files import read_whole, write_whole
from wordtree.graphs import from_parents
from wordtree.tree import WordTree


def _rows(path: str | Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Heading, and (line number, fields) of each row; rows of nothing, which spreadsheets leave, are none."""
    try:
        text = read_whole(path).decode("utf-8-sig")  # spreadsheets put a byte order mark in front
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter(path, text),
            skipinitialspace=True,  # else a quote after a blank is a sign of the name: Canis, "Canis lupus"
            strict=True,
        )
        rows = [(reader.line_num, [field.strip() for field in row]) for row in reader]
        rows = rows[:1] + [row for row in rows[1:] if any(row[1])]
    except UnicodeDecodeError as error:
        raise TreeError(f"{path}: not UTF-8 text ({error})") from error
    except csv.Error as error:
        raise TreeError(f"{path}:{reader.line_num}: {error}") from error
    if len(rows) < 2:
        raise TreeError(f"{path}: wanted a heading and at least one row")
    heading = rows[0][1]
    if len(set(map(str.casefold, heading))) < len(heading) or not all(heading):
        raise TreeError(f"{path}:1: the heading has an empty or a repeated column: {heading}")
    for number, row in rows[1:]:
        if len(row) != len(heading):
            raise TreeError(f"{path}:{number}: {len(row)} fields, but the heading has {len(heading)}")
    return heading, rows[1:]


def delimiter(path: str | Path, text: str) -> str:
    """What is between the fields: tabs in a .tsv, else what the first line of `text` has."""
    if Path(path).suffix.lower() == ".tsv":
        return "\t"
    heading = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text, maxsplit=1)[0])
    return next((sign for sign in ",;\t" if sign in heading), ",")


def read_table(path: str | Path) -> WordTree:
    """Read edges, if the heading has a column that begins with `parent`, else rank columns."""
    heading, _ = _rows(path)
    edges = any(column.casefold().startswith("parent") for column in heading)
    return read_edges(path) if edges else read_ranks(path)


def read_edges(path: str | Path) -> WordTree:
    """Read a table with the columns `child` and `parent`, and perhaps `name` and `gloss`, in any case.

    A child on several lines has several parents, of which growth picks one (graphs.py). Roots have no parent;
    in a table where no line says so, what is never a child is a root. Else each parent needs a line.

    Raises:
        TreeError: names file and line.
    """
    found, rows = _rows(path)
    heading = [column.casefold() for column in found]
    if not {"child", "parent"} <= set(heading) <= {"child", "parent", "name", "gloss"}:
        raise TreeError(
            f"{path}:1: wanted the columns child, parent and perhaps name and gloss, found {found}; "
            "rename them, and leave out the others"
        )
    column = {name: heading.index(name) for name in heading}
    parents: dict[str, list[str]] = {}
    facts: dict[str, dict[str, str]] = {"name": {}, "gloss": {}}
    line: dict[str, int] = {}
    named: dict[str, int] = {}  # line that first names a parent, which may have none of its own
    implicit = all(row[column["parent"]] for _, row in rows)
    for number, row in rows:
        child, parent = row[column["child"]], row[column["parent"]]
        if not child:
            raise TreeError(f"{path}:{number}: no child")
        if implicit:
            parents.setdefault(parent, [])
            named.setdefault(parent, number)
        above = parents.setdefault(child, [])
        if parent in above or (child in line and not (parent and above)):
            raise TreeError(f"{path}:{number}: {child!r} was already placed in line {line[child]}")
        if parent:
            above.append(parent)
        line.setdefault(child, number)
        for name, known in facts.items():
            text = row[column[name]] if name in column else ""
            if text and known.setdefault(child, text) != text:
                raise TreeError(f"{path}:{number}: another {name} for {child!r} than before")
    for child, above in parents.items():
        for parent in above:
            if parent not in parents:
                raise TreeError(f"{path}:{line[child]}: {child!r} is below {parent!r}, which has no line")
    named |= line
    return from_parents(parents, facts["name"], facts["gloss"], lambda node: f"{path}:{named[node]}")


def write_edges(tree: WordTree, path: str | Path) -> None:
    """Write child, parent, name and, if the tree has some, gloss."""
    heading = ["child", "parent", "name", *(["gloss"] if tree.glosses else [])]
    rows = []
    for i, parent in enumerate(tree.parents.tolist()):
        rows.append([tree.ids[i], tree.ids[parent] if parent >= 0 else "", tree.names[i]])
        if tree.glosses:
            rows[i].append(tree.glosses[i])
    _write(path, heading, rows)


def read_ranks(path: str | Path) -> WordTree:
    """Read a table with a column per rank, widest first: kingdom, phylum ... species.

    Each row is the way to one node; an empty cell is a rank that was not given. `tree.about["ranks"]` keeps
    the heading and, where that is not its depth, `tree.about["rank columns"]` the column of each node.

    Raises:
        TreeError: a name in two places or two columns, or a heading that is a name in its column, as it is
            where the table has no heading; names file and lines.
    """
    ranks, rows = _rows(path)
    if found := _own_heading(ranks, [row for _, row in rows]):
        row, name = found
        raise TreeError(
            f"{path}:{rows[row][0]}: {name!r} in the column {name!r}: a heading twice, or none; "
            "the first line alone has to be the heading (kingdom,genus,species)"
        )
    place: dict[str, tuple[str | None, str, int]] = {}  # node -> parent, rank and line
    for number, row in rows:
        above = None
        for rank, node in zip(ranks, row, strict=True):
            if not node:
                continue
            parent, was, line = place.setdefault(node, (above, rank, number))
            if (parent, was) != (above, rank):
                raise TreeError(
                    f"{path}:{number}: {node!r} is a {rank} of {above!r}, but in line {line} "
                    f"a {was} of {parent!r}; a name stands for one node"
                )
            above = node
    parents = {node: [parent] if parent else [] for node, (parent, *_) in place.items()}
    tree = from_parents(parents, place=lambda node: f"{path}:{place[node][2]}")
    columns = [ranks.index(place[node][1]) for node in tree.ids]
    full = columns == tree.depths.tolist() and len(ranks) - 1 in columns
    return WordTree(
        tree.ids, tree.parents, about={"ranks": ranks, **({} if full else {"rank columns": columns})}
    )


def _own_heading(ranks: Sequence[str], rows: list[list[str]]) -> tuple[int, str] | None:
    """The first row that has a heading in its own column, counted from 0, and the heading."""
    own = (
        (k, rank) for k, row in enumerate(rows) for rank, cell in zip(ranks, row, strict=True) if rank == cell
    )
    return next(own, None)


def write_ranks(tree: WordTree, path: str | Path, ranks: Sequence[str] | None = None) -> None:
    """Write a row per leaf and a column per depth; of a tree that `read_ranks` gave, the same columns again.

    Args:
        tree: the tree; its ids are the cells.
        path: a .csv or .tsv.
        ranks: the heading. Default: `tree.about["ranks"]` if there are as many, else rank1, rank2 ...
    """
    depth = int(tree.depths.max()) + 1
    known, columns = tree.about.get("ranks"), tree.depths.tolist()
    if ranks is None and known and "rank columns" in tree.about:
        ranks, columns, depth = known, tree.about["rank columns"], len(known)
    elif ranks is None:
        ranks = known if known and len(known) == depth else [f"rank{k + 1}" for k in range(depth)]
    if len(ranks) != depth:
        raise TreeError(f"the tree has {depth} levels, but {len(ranks)} ranks were given")
    rows, waiting = [], list(reversed(tree.roots))
    while waiting:  # leaves as a walk meets them, so that reading gives the siblings in this order again
        node = waiting.pop()
        below = tree.children(node)
        waiting += reversed(below)
        if not below:
            rows.append([""] * depth)
            for step in tree.path_nodes(node):
                rows[-1][columns[step]] = tree.ids[step]
    if found := _own_heading(ranks, rows):
        raise TreeError(
            f"{path}: {found[1]!r} is the heading of a column and a name in it; write another form, or in "
            "Python write_ranks(tree, path, ranks=...) with other headings"
        )
    _write(path, list(ranks), rows)


def _write(path: str | Path, heading: list[str], rows: list[list[str]]) -> None:
    for row in rows:
        for text in row:
            if text != text.strip():
                raise TreeError(f"{path}: {text!r} begins or ends with a blank, which a table does not keep")
    between = "\t" if Path(path).suffix.lower() == ".tsv" else ","
    if between == "," and len(heading) == 1 and re.search("[;\t]", heading[0]):
        raise TreeError(f"{path}: {heading[0]!r} alone would be read as several columns")
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=between, lineterminator="\n")
    writer.writerows([heading, *rows])
    write_whole(path, stream.getvalue().encode())
