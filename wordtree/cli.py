"""The `wordtree` command: show, path, search, lca, diff, check, export; --json for programs.

Not here: any answer, each sub-command asks the library one question and prints it; `build` (building.py).
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wordtree.building import build
from wordtree.console import HELP, Group, run
from wordtree.errors import LookupTreeError, TreeError
from wordtree.printing import branch, json_option, print_branch, print_json, record, summary
from wordtree.tree import WordTree
from wordtree.words import counted

if TYPE_CHECKING:
    from wordtree.difference import Difference


def open_tree(path: Path | None) -> WordTree:
    """The tree of a file, or the default one."""
    return WordTree.default() if path is None else WordTree.load(path)


_tree = click.option(
    "--tree",
    "path",
    type=click.Path(path_type=Path),
    help="A tree: .json(.gz), .csv, .tsv, .graphml, .tree or a folder of folders.  [default: the 9,418 nodes "
    "built in]",
)


# What `export` may write under an ending, and `load` reads it as; the first is meant where no form is named.
_FORMS = {
    ".json": ("own", "children", "openimages", "keys"),
    ".gz": ("own",),
    ".csv": ("edges", "ranks"),
    ".tsv": ("edges", "ranks"),
    ".graphml": ("graphml",),
    ".html": ("html",),
    ".tree": (),
}

# Of other endings: what `load` knows by how it begins, and what it never reads.
_ANY_ENDING = ("own", "keys", "html")

# A tree of one's own is looked at whole; the default one has 9,418 nodes.
_SMALL = 60


@click.group(cls=Group, epilog="Example: wordtree path husky", context_settings=HELP)
@click.version_option(package_name="yolo9000")
def cli() -> None:
    """A tree of things one can photograph: look into it, check one, build one.

    NODE is an index (unless ids of the tree are numbers), an id (n02084071), a synset name (dog.n.01), or a
    name or synonym if only one node has it.
    """


cli.add_command(build)


@cli.command(epilog="Example: wordtree show bear --depth 2")
@click.argument("node", required=False)
@click.option(
    "--depth",
    type=click.IntRange(0),
    help=f"Levels below the node.  [default: 1; all of a whole tree of up to {_SMALL} nodes]",
)
@click.option("--why", "reasons", is_flag=True, help="Say why NODE is there; best with WordNet at hand.")
@_tree
@json_option
def show(node: str | None, depth: int | None, reasons: bool, path: Path | None, as_json: bool) -> None:
    """Show NODE and what lies below it, or the whole tree.

    With --why: whose label it is, the hypernym path it came by and those passed over, and what was contracted
    or promoted around it. With --json what lies below is nested as `children`; of a whole tree only where
    --depth is given.
    """
    tree = open_tree(path)
    nested = depth is not None
    if depth is None:
        depth = len(tree) if node is None and len(tree) <= _SMALL else 1
    if node is None and reasons:
        raise click.UsageError("--why of which node?")
    if node is None:
        facts = summary(tree)
        if as_json and nested:
            facts["children"] = [branch(tree, root, depth - 1) for root in tree.roots if depth]
        if as_json:
            return print_json(facts)
        for key, value in facts.items():
            click.echo(f"{key:>12}  {value}")
        click.echo()
        for root in tree.roots:
            print_branch(tree, root, depth - 1)
        return None
    k = tree.lookup.typed(node)
    if reasons:
        from wordtree.reasons import lines, why

        found = why(tree, k)
        if as_json:
            return print_json(asdict(found))
        for line in lines(tree, found):
            click.echo(line)
        return None
    if as_json:
        return print_json(branch(tree, k, depth))
    for key, value in record(tree, k).items():
        if value not in (None, [], ""):
            click.echo(f"{key:>12}  {', '.join(value) if isinstance(value, list) else value}")
    click.echo()
    print_branch(tree, k, depth)
    return None


@cli.command("path", epilog="Example: wordtree path husky")
@click.argument("node")
@_tree
@json_option
def path_(node: str, path: Path | None, as_json: bool) -> None:
    """The way from the root down to NODE."""
    tree = open_tree(path)
    steps = tree.path_nodes(tree.lookup.typed(node))
    if as_json:
        return print_json([record(tree, i) for i in steps])
    for level, i in enumerate(steps):
        click.echo(f"{'  ' * level}{tree.lookup.line(i)}")
    return None


@cli.command(epilog="Example: wordtree search husk")
@click.argument("text")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@_tree
@json_option
def search(text: str, limit: int, path: Path | None, as_json: bool) -> None:
    """Find nodes with TEXT in a name, synonym or id.

    The closest match comes first. Exit status 1 if there is none.
    """
    tree = open_tree(path)
    found = tree.search(text)
    if as_json:
        print_json([record(tree, i) for i in found[:limit]])
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
@json_option
def lca(a: str, b: str, path: Path | None, as_json: bool) -> None:
    """The lowest node that is above (or is) both A and B.

    Exit status 1 if they lie under different roots.
    """
    tree = open_tree(path)
    found = tree.lca(tree.lookup.typed(a), tree.lookup.typed(b))
    if as_json:
        print_json(None if found is None else record(tree, found))
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
@json_option
def check(file: Path, names: Path | None, labels: Path | None, map_file: Path | None, as_json: bool) -> None:
    """Check a tree FILE and say what it holds.

    Any file or folder that --tree takes (docs/hierarchy.md), read strictly. The first fault is named with its
    file and line: exit status 1. Ids that differ in case alone are warned of: they may be meant as one.
    """
    from wordtree.darknet import read_map
    from wordtree.lookup import ALIKE, alike

    if (names or labels) and file.suffix != ".tree":
        raise click.UsageError("--names and --labels go with Darknet's .tree")
    tree = WordTree.from_darknet(file, names, labels) if names or labels else WordTree.load(file)
    facts = summary(tree)
    if map_file:
        facts["mapped"] = len(read_map(map_file, len(tree)))
    if as_json:
        return print_json(facts)
    for ids in alike(tree.ids):
        click.echo(f"warning: {' and '.join(ids)} {ALIKE}", err=True)
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
@json_option
def diff_(old: Path, new: Path | None, map_file: Path | None, as_json: bool) -> None:
    """What must change in the tree OLD to get NEW (the built-in one).

    Nodes are compared by id: - removed, + added, > under another parent, ~ under another name. Exit status 1
    if there is a difference, 2 where a tree cannot be read or the answer not be written.

    --map carries a class layer over: its row k, made for OLD, is the row of the node that stands in line k
    of the map. (Line 0 is the first.)
    """
    from wordtree.darknet import write_map
    from wordtree.difference import diff

    try:
        before, after = open_tree(old), open_tree(new)
        found = diff(before, after)
        if map_file:
            write_map(map_file, found.map)
        _print_difference(found, before, after, as_json)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        raise
    except (TreeError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None  # 1 says that they differ
    if found:
        sys.exit(1)


def _print_difference(found: Difference, before: WordTree, after: WordTree, as_json: bool) -> None:
    from wordtree.difference import respelt

    if as_json:
        print_json(
            {k: getattr(found, k) for k in ("removed", "added", "moved", "renamed", "reordered")}
            | {"map": found.map.tolist()}
        )
        return
    for said in respelt(found.removed, found.added):
        click.echo(f"note: {said}; they count as two nodes", err=True)
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


@cli.command(
    epilog="Examples: wordtree export animals.csv --tree animals.json  |  wordtree export --html tree.html"
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--form",
    type=click.Choice(
        ["own", "children", "openimages", "keys", "edges", "ranks", "graphml", "folders", "darknet", "html"]
    ),
    help="How to write it.  [default: by OUT's ending: .json(.gz) own; .csv, .tsv edges; .graphml; .html]",
)
@click.option(
    "--html", is_flag=True, help="As --form html: a page to look through, which needs no other file."
)
@_tree
@json_option
def export(out: Path, form: str | None, html: bool, path: Path | None, as_json: bool) -> None:
    """Write the tree in another form.

    --tree reads them all but keys and html, so this translates between any two. darknet and folders take
    OUT for a folder; folders want an empty or a new one.
    """
    from wordtree import folders, graphs, nested, page, tables

    if html and form not in (None, "html"):
        raise click.UsageError(f"either --html or --form {form}")
    tree = open_tree(path)
    known = _FORMS.get(out.suffix.lower())
    form = "html" if html else form or next(iter(known or ()), None)
    if form is None:
        raise click.UsageError(f"what is {out.name}? name it .json, .csv, .graphml or .html, or say --form")
    if form not in (*(_ANY_ENDING if known is None else known), "folders", "darknet"):
        fitting = " or ".join(ending for ending, forms in _FORMS.items() if form in forms)
        if known is not None:
            raise click.UsageError(f"{out.name} is no name for the form {form}; name it {fitting}")
        click.echo(f"note: --tree reads the form {form} from {fitting} only, not {out.name}", err=True)
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
            "html": lambda out: page.write_page(tree, out),
        }[form](out)
    if as_json:
        return print_json({"file": str(out), "form": form, **summary(tree)})
    click.echo(f"{counted(len(tree), 'node')} -> {out} ({form})")
    return None


def main() -> None:
    """Entry point of the console command."""
    run(cli, TreeError, usage=(LookupTreeError,))


if __name__ == "__main__":
    main()
