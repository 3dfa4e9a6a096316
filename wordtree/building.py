"""`wordtree build`: labels in, a tree out. How it grows is growth.py's.

Imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wordtree.console import Command
from wordtree.errors import TreeError
from wordtree.files import check_target, read_lines
from wordtree.printing import json_option, print_branch, print_json, summary
from wordtree.words import counted


@click.command(cls=Command, epilog="Example: wordtree build dog.n.01 wolf.n.01 n02121620 --out pets.json")
@click.argument("labels", nargs=-1)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="A file with one WordNet id or synset name per line; what follows it on the line is a remark. Nodes "
    "of --grafts may have several words.",
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
@json_option
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
    own = read_grafts(graft_file) if graft_file else {}
    grafts |= own
    wanted = [*labels, *(labels_of(source, grafts) if source else ())]
    if not wanted:
        raise click.UsageError("no labels: name some, or a file of them with --from")
    for target in (out, darknet and darknet / "wordtree.tree"):
        if target:
            check_target(target)
    tree = build_tree(
        wanted, root=root, grafts=grafts, promotion=not keep_only_children, progress=sys.stderr.isatty()
    )
    unasked = [node for node, graft in own.items() if graft.new and node not in tree]
    if unasked:
        shown = ", ".join(unasked[:5]) + (", ..." if len(unasked) > 5 else "")
        click.echo(
            f"{graft_file}: {len(unasked)} not in the tree, as nobody asked for them; name them as labels: "
            f"{shown}",
            err=True,
        )
    if out:
        tree.save(out)
    if darknet:
        tree.to_darknet(darknet)
    if as_json:
        print_json({**summary(tree), "files": [str(path) for path in (out, darknet) if path]})
    elif out or darknet:
        click.echo(
            f"{counted(len(tree), 'node')} -> {', '.join(str(path) for path in (out, darknet) if path)}"
        )
    else:
        for root_node in tree.roots:
            print_branch(tree, root_node, len(tree))


def labels_of(path: Path, grafts: Mapping[str, Any]) -> list[str]:
    """The label of each line: the line, or what stands before a tab, if it is grafted; else the first word,
    which has to be a noun or grafted. TreeError names file and line."""
    from wordtree import wordnet

    labels = []
    for number, line in enumerate(read_lines(path, marked=True), 1):
        first = line.split()[0]
        label = next((text for text in (line.strip(), line.split("\t")[0].strip()) if text in grafts), first)
        try:
            if label not in grafts:
                wordnet.synset(label)
        except wordnet.NoNounError as error:
            raise TreeError(f"{path}:{number}: {error}") from error
        labels.append(label)
    return labels
