"""The `wordtree` command: build, show, path, search, lca, diff, check, export; --json for programs.

Not here: any answer; each sub-command asks the library one question and prints it.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wordtree.console import run
from wordtree.errors import LookupTreeError, TreeError
from wordtree.files import check_target, read_lines
from wordtree.tree import WordTree

# More digits than any tree has nodes are a name; int() itself fails on thousands of digits.
_INDEX = re.compile(r"-?[0-9]{1,18}")


def open_tree(path: Path | None) -> WordTree:
    """The tree of a file, or the default one."""
    return WordTree.default() if path is None else WordTree.load(path)


_tree = click.option(
    "--tree",
    "path",
    type=click.Path(path_type=Path),
    help="A tree file (.json, .json.gz, .tree).  [default: the 9,418 nodes built in]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(epilog="Example: wordtree path husky")
@click.version_option(package_name="yolo9000")
def cli() -> None:
    """A tree of things one can photograph: look into it, check one, build one.

    NODE is an index, a WordNet id (n02084071), a synset name (dog.n.01), or a name or synonym if only one
    node has it.
    """


@cli.command(epilog="Example: wordtree build dog.n.01 wolf.n.01 n02121620 --out pets.json")
@click.argument("labels", nargs=-1)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="A file with one WordNet id or synset name per line; what follows it on the line is a remark.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write this .json or .json.gz.  [default: print the tree]",
)
@click.option(
    "--darknet", type=click.Path(path_type=Path), help="Write .tree, .names and .labels into this folder."
)
@click.option(
    "--root",
    default="n00001930",
    show_default=True,
    help="What the roots are kinds of; here physical entity.",
)
@click.option(
    "--keep-only-children", is_flag=True, help="Leave a leaf without siblings where WordNet has it."
)
@click.option(
    "--grafts",
    "graft_file",
    type=click.Path(path_type=Path),
    help="A file of lines `node TAB hypernym [TAB name [TAB gloss]]`, beside the built-in ones.",
)
@click.option("--overrides", "as_9k", is_flag=True, help="Where no rule gives Darknet's 9k.tree, follow it.")
@_json
def build(
    labels: tuple[str, ...],
    source: Path | None,
    out: Path | None,
    darknet: Path | None,
    root: str,
    keep_only_children: bool,
    graft_file: Path | None,
    as_9k: bool,
    as_json: bool,
) -> None:
    """Build the tree of some WordNet nouns: LABELS and --from.

    A label is a WordNet id (n02084071) or a synset name (dog.n.01), or a node of --grafts, which is how
    labels get in that WordNet does not know. Each gets the one of its hypernym paths that makes the tree grow
    least. Needs WordNet 3.0: scripts/get_wordnet.
    """
    from wordtree.grafts import as_grafts, default_grafts, overrides, read_grafts
    from wordtree.growth import build as build_tree

    grafts = as_grafts({**default_grafts(), **(overrides() if as_9k else {})})
    if graft_file:
        grafts |= read_grafts(graft_file)
    wanted = [*labels, *(labels_of(source, grafts) if source else ())]
    if not wanted:
        raise click.UsageError("no labels: name some, or a file of them with --from")
    for target in (out, darknet and darknet / "wordtree.tree"):
        if target:
            check_target(target)
    tree = build_tree(
        wanted, root=root, grafts=grafts, promotion=not keep_only_children, progress=sys.stderr.isatty()
    )
    if out:
        tree.save(out)
    if darknet:
        tree.to_darknet(darknet)
    if as_json:
        _print_json({**summary(tree), "files": [str(path) for path in (out, darknet) if path]})
    elif out or darknet:
        click.echo(f"{len(tree):,} nodes -> {', '.join(str(path) for path in (out, darknet) if path)}")
    else:
        for root_node in tree.roots:
            _print_branch(tree, root_node, len(tree))


@cli.command(epilog="Example: wordtree show bear --depth 2")
@click.argument("node", required=False)
@click.option("--depth", default=1, show_default=True, type=click.IntRange(0), help="Levels below the node.")
@click.option("--why", "reasons", is_flag=True, help="Say why NODE is there; best with WordNet at hand.")
@_tree
@_json
def show(node: str | None, depth: int, reasons: bool, path: Path | None, as_json: bool) -> None:
    """Show NODE and what lies below it, or the whole tree.

    With --why: whose label it is, the hypernym path it came by and those passed over, and what was contracted
    or promoted around it.
    """
    tree = open_tree(path)
    if node is None and reasons:
        raise click.UsageError("--why of which node?")
    if node is None:
        facts = summary(tree)
        if as_json:
            return _print_json(facts)
        for key, value in facts.items():
            click.echo(f"{key:>12}  {value}")
        click.echo()
        for root in tree.roots:
            _print_branch(tree, root, depth - 1)
        return None
    k = find(tree, node)
    if reasons:
        from wordtree.reasons import lines, why

        found = why(tree, k)
        if as_json:
            return _print_json(asdict(found))
        for line in lines(tree, found):
            click.echo(line)
        return None
    if as_json:
        return _print_json({**record(tree, k), "children": [record(tree, i) for i in tree.children(k)]})
    for key, value in record(tree, k).items():
        if value not in (None, [], ""):
            click.echo(f"{key:>12}  {', '.join(value) if isinstance(value, list) else value}")
    click.echo()
    _print_branch(tree, k, depth)
    return None


@cli.command("path", epilog="Example: wordtree path husky")
@click.argument("node")
@_tree
@_json
def path_(node: str, path: Path | None, as_json: bool) -> None:
    """The way from the root down to NODE."""
    tree = open_tree(path)
    steps = tree.path_nodes(find(tree, node))
    if as_json:
        return _print_json([record(tree, i) for i in steps])
    for level, i in enumerate(steps):
        click.echo(f"{'  ' * level}{tree.lookup.line(i)}")
    return None


@cli.command(epilog="Example: wordtree search husk")
@click.argument("text")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@_tree
@_json
def search(text: str, limit: int, path: Path | None, as_json: bool) -> None:
    """Find nodes with TEXT in a name, synonym or id.

    The closest match comes first. Exit status 1 if there is none.
    """
    tree = open_tree(path)
    found = tree.search(text)
    if as_json:
        _print_json([record(tree, i) for i in found[:limit]])
    else:
        for i in found[:limit]:
            click.echo(tree.lookup.line(i))
        if len(found) > limit:
            click.echo(f"... and {len(found) - limit} more (--limit)", err=True)
    if not found:
        click.echo(f"nothing in the tree contains {text!r}", err=True)
        sys.exit(1)


@cli.command(epilog="Example: wordtree lca dog.n.01 wolf.n.01")
@click.argument("a")
@click.argument("b")
@_tree
@_json
def lca(a: str, b: str, path: Path | None, as_json: bool) -> None:
    """The lowest node that is above (or is) both A and B.

    Exit status 1 if they lie under different roots.
    """
    tree = open_tree(path)
    found = tree.lca(find(tree, a), find(tree, b))
    if as_json:
        _print_json(None if found is None else record(tree, found))
    elif found is not None:
        click.echo(tree.lookup.line(found))
    if found is None:
        click.echo(f"{a} and {b} lie under different roots", err=True)
        sys.exit(1)


@cli.command(epilog="Example: wordtree check 9k.tree --names 9k.names --labels 9k.labels")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--names", type=click.Path(path_type=Path), help="Darknet's .names of the same tree.")
@click.option("--labels", type=click.Path(path_type=Path), help="Darknet's .labels of the same tree.")
@click.option("--map", "map_file", type=click.Path(path_type=Path), help="A .map file into it.")
@_json
def check(file: Path, names: Path | None, labels: Path | None, map_file: Path | None, as_json: bool) -> None:
    """Check a tree FILE and say what it holds.

    Reads .json, .json.gz or Darknet's .tree strictly. The first fault is named with its file and line: exit
    status 1.
    """
    from wordtree.darknet import read_map

    if (names or labels) and file.suffix != ".tree":
        raise click.UsageError("--names and --labels go with Darknet's .tree")
    tree = WordTree.from_darknet(file, names, labels) if names or labels else WordTree.load(file)
    facts = summary(tree)
    if map_file:
        facts["mapped"] = len(read_map(map_file, len(tree)))
    if as_json:
        return _print_json(facts)
    click.echo(f"{file}: sound")
    for key, value in facts.items():
        click.echo(f"{key:>12}  {value}")
    return None


@cli.command("diff", epilog="Example: wordtree diff 9k.tree")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option(
    "--map",
    "map_file",
    type=click.Path(path_type=Path),
    help="Write the index in NEW of each node of OLD into this file, a line each; -1: gone.",
)
@_json
def diff_(old: Path, new: Path | None, map_file: Path | None, as_json: bool) -> None:
    """What must change in the tree OLD to get NEW (the built-in one).

    Nodes are compared by id: - removed, + added, > under another parent, ~ under another name. Exit status 1
    if there is a difference.

    --map carries a class layer over: its row k, made for OLD, is the row of the node that stands in line k
    of the map. (Line 0 is the first.)
    """
    from wordtree.darknet import write_map
    from wordtree.difference import diff

    before, after = open_tree(old), open_tree(new)
    found = diff(before, after)
    if map_file:
        write_map(map_file, found.map)
    if as_json:
        _print_json(
            {k: getattr(found, k) for k in ("removed", "added", "moved", "renamed", "reordered")}
            | {"map": found.map.tolist()}
        )
    else:
        for mark, tree, nodes in (("-", before, found.removed), ("+", after, found.added)):
            for node in nodes:
                click.echo(f"{mark} {tree.lookup.line(tree.index(node))}")
        for node, was, now in found.moved:
            name, was, now = (
                tree.names[tree.index(n)] if n else "(root)"
                for tree, n in ((after, node), (before, was), (after, now))
            )
            click.echo(f"> {node}  {name}: {was} -> {now}")
        for node, was, now in found.renamed:
            click.echo(f"~ {node}  {was} -> {now}")
        order = "another order" if found.reordered else "the same order"
        click.echo(
            f"{len(found.removed):,} removed, {len(found.added):,} added, {len(found.moved):,} moved, "
            f"{len(found.renamed):,} renamed; {order}"
        )
    if found:
        sys.exit(1)


@cli.command(epilog="Example: wordtree export animals.csv --tree animals.json")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--form",
    type=click.Choice(
        ["own", "children", "openimages", "keys", "edges", "ranks", "graphml", "folders", "darknet"]
    ),
    help="How to write it.  [default: by OUT's ending: .json, .json.gz own; .csv, .tsv edges; .graphml]",
)
@_tree
@_json
def export(out: Path, form: str | None, path: Path | None, as_json: bool) -> None:
    """Write the tree in another form.

    --tree reads them all but keys, so this translates between any two. darknet and folders take OUT for a
    folder.
    """
    from wordtree import folders, graphs, nested, tables

    tree = open_tree(path)
    form = form or {".csv": "edges", ".tsv": "edges", ".graphml": "graphml"}.get(out.suffix, "own")
    if form == "own" and out.suffix not in (".json", ".gz"):
        raise click.UsageError(f"what is {out.name}? name it .json, .csv, .tsv or .graphml, or say --form")
    if form in nested.FORMS:
        nested.write_nested(tree, out, form)
    else:
        {
            "own": tree.save,
            "edges": lambda out: tables.write_edges(tree, out),
            "ranks": lambda out: tables.write_ranks(tree, out),
            "graphml": lambda out: graphs.write_graphml(tree, out),
            "folders": lambda out: folders.write_folders(tree, out),
            "darknet": tree.to_darknet,
        }[form](out)
    if as_json:
        return _print_json({"file": str(out), "form": form, **summary(tree)})
    click.echo(f"{len(tree):,} nodes -> {out} ({form})")
    return None


def find(tree: WordTree, text: str) -> int:
    """A node as people type it: digits are an index."""
    return tree.index(int(text) if _INDEX.fullmatch(text) and text not in tree else text)


def labels_of(path: Path, grafts: Mapping[str, Any]) -> list[str]:
    """The first word of each line, which has to be a noun or grafted. TreeError names file and line."""
    from wordtree import wordnet

    labels = [line.split()[0] for line in read_lines(path)]
    for number, label in enumerate(labels, 1):
        try:
            if label not in grafts:
                wordnet.synset(label)
        except wordnet.NoNounError as error:
            raise TreeError(f"{path}:{number}: {error}") from error
    return labels


def record(tree: WordTree, i: int) -> dict[str, Any]:
    """What --json says about a node."""
    return {
        "index": i,
        "id": tree.ids[i],
        "name": tree.names[i],
        "synset": tree.synsets[i] if tree.synsets else None,
        "synonyms": list(tree.synonyms[i]) if tree.synonyms else [],
        "gloss": tree.glosses[i] if tree.glosses else None,
        "sources": list(tree.sources[i]) if tree.sources else [],
        "depth": tree.depth(i),
        "path": list(tree.path(i)),
    }


def summary(tree: WordTree) -> dict[str, Any]:
    """Figures of a whole tree."""
    sizes = tree.group_starts[1:] - tree.group_starts[:-1]
    facts: dict[str, Any] = {
        "nodes": len(tree),
        "roots": len(tree.roots),
        "leaves": len(tree.leaves),
        "groups": len(sizes),
        "largest": int(sizes.max()),
        "only child": int((sizes == 1).sum()),
        "depth": int(tree.depths.max()),
        "fingerprint": tree.fingerprint,
    }
    if tree.sources:
        facts |= dict(
            sorted(Counter(tag for tags in tree.sources for tag in tags or ("intermediate",)).items())
        )
    return facts


def _print_branch(tree: WordTree, node: int, levels: int) -> None:
    """The node and `levels` levels below it, indented; one stack, so that a chain of thousands prints too."""
    waiting = [(node, 0)]
    while waiting:
        k, level = waiting.pop()
        below = tree.children(k)
        hidden = f"  (+{len(below)})" if below and level >= levels else ""
        click.echo(f"{'  ' * level}{tree.names[k]}  {tree.ids[k]}{hidden}")
        if level < levels:
            waiting += [(i, level + 1) for i in reversed(below)]


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def main() -> None:
    """Entry point of the console command."""
    run(cli, TreeError, usage=(LookupTreeError,))


if __name__ == "__main__":
    main()
