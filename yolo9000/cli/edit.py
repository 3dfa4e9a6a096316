"""`yolo9000 edit`: a trained model over an edited tree. The rules are yolo9000.edit's and wordtree.edit's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wordtree.console import Command
from yolo9000.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

    from wordtree import WordTree
    from wordtree.edit import Edited
    from yolo9000.edit import Edit

_FILE = click.Path(path_type=Path)
_SHOWN = 8  # nodes listed in one line
_ROOT = "a new class hangs below another; a new root comes with --tree"


@click.command(
    cls=Command,
    epilog="Examples: yolo9000 edit --add labradoodle dog --out mine.safetensors  |  "
    "yolo9000 edit model.safetensors --subtree animal.n.01 --out animals.safetensors",
)
@click.argument("model", required=False)
@click.option("--out", required=True, type=_FILE, help="Model file to write.")
@click.option(
    "--tree", "new_tree", type=_FILE, help="The new tree, any file that `wordtree check` reads; nodes by id."
)
@click.option("--subtree", metavar="NODE", help="Only this node and all below it.")
@click.option(
    "--prune", multiple=True, metavar="NODE", help="Without this node and all below it; repeatable."
)
@click.option("--keep-children", is_flag=True, help="Of --prune: what is below takes the node's place.")
@click.option(
    "--rename", "renames", multiple=True, metavar="NODE=NAME", help="Another display name; repeatable."
)
@click.option(
    "--rename-id",
    "new_ids",
    multiple=True,
    metavar="NODE=ID",
    help="Another id, as Latin names get; the class keeps its row, also beside --tree; repeatable.",
)
@click.option(
    "--graft",
    "graft_path",
    type=_FILE,
    help="A file of lines `node TAB parent [TAB name [TAB gloss]]`: new classes (new roots: --tree).",
)
@click.option(
    "--add",
    nargs=2,
    multiple=True,
    metavar="ID PARENT",
    help="One new class below PARENT, a class of the tree or of --graft (new roots: --tree); repeatable.",
)
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="NODE",
    help="A node of the tree that the model has no class row for and that gets one; repeatable.",
)
@click.option("--tree-out", type=_FILE, help="Write the new tree too, for `data-prep pack --tree`.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def command(
    model: str | None,
    out: Path,
    new_tree: Path | None,
    subtree: str | None,
    prune: tuple[str, ...],
    keep_children: bool,
    renames: tuple[str, ...],
    new_ids: tuple[str, ...],
    graft_path: Path | None,
    add: tuple[tuple[str, str], ...],
    rows: tuple[str, ...],
    tree_out: Path | None,
    as_json: bool,
) -> None:
    """Carry a trained model over to an edited tree.

    MODEL is a model file, the folder of a run or a checkpoint; left out, or the word "model": the model in
    the package. The new tree is --tree, or the model's own after --subtree, --prune, --rename and
    --rename-id together, --graft and --add, in this order.

    Classes that stay keep their rows bit for bit; one that had no siblings and gets some takes the row of the
    first class above it that had, as its own never learnt. A new class begins with the mean of its siblings'
    rows, or with its parent's row where it has no siblings, so that no probability outside its group of
    siblings moves (docs/hierarchy.md). What it looks like is then taught with `yolo9000 train one-class`.
    """
    edits = bool(subtree or prune or renames or graft_path or add)
    if new_tree and edits:
        raise click.UsageError("--tree is the new tree; it goes with no other edit but --rename-id and --row")
    if not (new_tree or edits or new_ids or rows):
        raise click.UsageError(
            "nothing to do: name --tree, --subtree, --prune, --rename, --rename-id, --graft, --add or --row"
        )
    if keep_children and not prune:
        raise click.UsageError("--keep-children says what becomes of the children of --prune")
    if out.suffix != ".safetensors":
        raise click.UsageError(f"a model file is named .safetensors, not {out.name}")
    if tree_out is not None and tree_out.suffix.lower() not in (".json", ".gz"):
        raise click.UsageError(f"--tree-out is a .json, not {tree_out.name}; `wordtree export` translates it")
    from wordtree import WordTree
    from wordtree.files import check_target
    from yolo9000.edit import edit_model
    from yolo9000.modelfile import load_model, save_model
    from yolo9000.start import load_any

    for target in (out, tree_out):
        if target:
            check_target(target, ModelError)
    packaged = model is None or (model == "model" and not Path(model).exists())
    net = load_model() if packaged else load_any(model)
    if net.tree is None:
        raise ModelError("this model has no tree to edit, only a flat list of classes")
    if new_tree:
        tree = WordTree.load(new_tree)
        map = _carried(net.tree, tree, _pairs("--rename-id", new_ids))
    else:
        tree, map = edited_tree(net.tree, subtree, prune, keep_children, renames, new_ids, graft_path, add)
    edited, done = edit_model(net, tree, map, rows)
    save_model(edited, out, edited.record, dtype=_stored_type(None if packaged else Path(model)))
    if tree_out:
        tree.save(tree_out)
    if as_json:
        click.echo(json.dumps({"written": str(out), **done.to_dict()}))
        return
    for line in report(done):
        click.echo(line)
    click.echo(f"written to {out}")


def edited_tree(
    tree: "WordTree",
    subtree: str | None,
    prune: tuple[str, ...],
    keep_children: bool,
    renames: tuple[str, ...],
    new_ids: tuple[str, ...],
    graft_path: Path | None,
    add: tuple[tuple[str, str], ...],
) -> "Edited":
    """The tree after these edits, one after another, and the map of the old nodes. Raises TreeError."""
    import numpy as np

    from wordtree import edit

    names, ids = _pairs("--rename", renames), _pairs("--rename-id", new_ids)
    steps = []
    if subtree:
        steps.append(lambda tree: edit.subtree(tree, subtree))
    if prune:
        steps.append(lambda tree: edit.prune(tree, prune, keep_children=keep_children))
    if names or ids:
        steps.append(lambda tree: edit.rename(tree, names, ids=ids))
    if graft_path:
        steps.append(lambda tree: _grafted(tree, graft_path))
    for node, parent in add:
        steps.append(lambda tree, node=node, parent=parent: _added(tree, node, parent))
    map = np.arange(len(tree))
    for step in steps:
        tree, then = step(tree)
        map = np.where(map < 0, -1, then[map])
    return edit.Edited(tree, map)


def _grafted(tree: "WordTree", path: Path) -> "Edited":
    """With the classes of a file. Raises TreeError."""
    from wordtree import TreeError, edit
    from wordtree.errors import LookupTreeError

    try:
        return edit.graft_file(tree, path)
    except TreeError as error:
        orphan = isinstance(error.__cause__, LookupTreeError) or _lacks_parent(path)
        raise TreeError(f"{error}; {_ROOT}" if orphan else str(error)) from error


def _lacks_parent(path: Path) -> bool:
    """Whether a line of a grafts file names a node alone, as for a new root. Raises TreeError."""
    from wordtree.files import read_lines

    lines = (line.split("\t") for line in read_lines(path, marked=True) if not line.startswith("#"))
    return any(len(fields) < 2 or not fields[1].strip() for fields in lines)


def _added(tree: "WordTree", node: str, parent: str) -> "Edited":
    """With one class below a node. Raises TreeError."""
    from wordtree import TreeError, edit

    try:
        tree.index(parent)
    except TreeError as error:
        raise TreeError(f"--add {node}: {error}; {_ROOT}") from error
    return edit.graft(tree, parent, node)


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """What options NODE=TEXT say: node -> text."""
    pairs = {}
    for said in given:
        node, equals, text = said.rpartition("=")
        if not equals:
            raise click.UsageError(f"{option} {said}: wanted NODE={'NAME' if option == '--rename' else 'ID'}")
        if pairs.setdefault(node, text) != text:
            raise click.UsageError(f"{option}: {node} is to be both {pairs[node]} and {text}; leave one out")
    return pairs


def _carried(old: "WordTree", tree: "WordTree", ids: dict[str, str]) -> "np.ndarray":
    """The new index of each node of the old tree, by id after some ids have changed. Notes on stderr what may
    be the same id in another spelling."""
    from wordtree import edit
    from wordtree.difference import carry, respelt

    lost = [text for text in ids.values() if text not in tree]
    if lost:
        raise ModelError(f"--rename-id: the new tree has no id {lost[0]!r}")
    map = carry(edit.rename(old, ids=ids).tree, tree)
    there = set(map.tolist())
    gone = [node for node, k in zip(old.ids, map, strict=True) if k < 0]
    said = respelt(gone, [node for k, node in enumerate(tree.ids) if k not in there])
    for pair in said[:_SHOWN]:
        click.echo(f"note: {pair}; --rename-id OLD=NEW keeps the row", err=True)
    if len(said) > _SHOWN:
        click.echo(f"note: and {len(said) - _SHOWN:,} more such pairs", err=True)
    return map


def _stored_type(path: Path | None) -> str:
    """The type that keeps every value of a model as its file has it. None: the model in the package."""
    from yolo9000.modelfile import model_path, read_info

    path = model_path(path)
    if path.suffix != ".safetensors":
        return "float32"
    tensors = read_info(path, verify=False).tensors.values()
    return "float16" if all(kind == "F16" for kind, shape in tensors if len(shape) > 1) else "float32"


def report(done: "Edit") -> list[str]:
    """What was done, in lines."""
    from wordtree.words import counted
    from yolo9000.options import told_dropped

    lines = [f"{counted(done.kept, 'class row')} kept"]
    for what, became, nodes in (
        ("id", "changed", [f"{old} -> {new}" for old, new in done.renamed]),
        ("node", "removed", done.removed),
        ("node", "added", done.added),
        ("node", "moved; compared with other siblings now", done.moved),
        ("class row", "taken from above: had no siblings to learn to be told from", done.lifted),
        ("class row", "begun, not taught yet", done.begun),
    ):
        if nodes:
            more = f" and {len(nodes) - _SHOWN:,} more" if len(nodes) > _SHOWN else ""
            lines.append(f"{counted(len(nodes), what)} {became}: {', '.join(nodes[:_SHOWN])}{more}")
    if done.dropped:
        lines.append(told_dropped(done.dropped))
    return lines
