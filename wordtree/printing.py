"""What the commands print of trees and nodes: figures, records, branches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from wordtree.console import to_json
from wordtree.errors import TreeError

if TYPE_CHECKING:
    from wordtree.tree import WordTree

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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


def branch(tree: WordTree, node: int, levels: int) -> dict[str, Any]:
    """What --json says about a node, with the same of its `children`, down `levels` levels."""
    top = record(tree, node)
    waiting = [(top, levels)]
    while waiting:
        facts, left = waiting.pop()
        if left > 0:
            facts["children"] = [record(tree, i) for i in tree.children(facts["index"])]
            waiting += [(child, left - 1) for child in facts["children"]]
    return top


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
    if tree.about.get("ranks"):  # of a table with a column per rank: all of them, also one that is none
        facts["ranks"] = " > ".join(map(str, tree.about["ranks"]))
    if tree.sources and any(tree.sources):
        counts = Counter(tag for tags in tree.sources for tag in tags)
        # What no list names and holds nothing together was added, or lost what was below it.
        counts["intermediate"] += sum(
            not tags and group >= 0
            for tags, group in zip(tree.sources, tree.child_group.tolist(), strict=True)
        )
        facts |= dict(sorted((+counts).items()))
    return facts


def print_branch(tree: WordTree, node: int, levels: int) -> None:
    """The node and `levels` levels below it, indented; one stack, so that a chain of thousands prints too."""
    waiting = [(node, 0)]
    while waiting:
        k, level = waiting.pop()
        below = tree.children(k)
        hidden = f"  (+{len(below)})" if below and level >= levels else ""
        code = "" if tree.names[k] == tree.ids[k] else f"  {tree.ids[k]}"
        click.echo(f"{'  ' * level}{tree.names[k]}{code}{hidden}")
        if level < levels:
            waiting += [(i, level + 1) for i in reversed(below)]


def print_json(value: object) -> None:
    """Indented, on stdout. TreeError on what is nested deeper than JSON goes."""
    try:
        text = to_json(value)
    except RecursionError:
        raise TreeError("too deep for nested JSON; show fewer levels (--depth)") from None
    click.echo(text)
