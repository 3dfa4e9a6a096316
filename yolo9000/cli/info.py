"""`yolo9000 info`: what a model file, a Darknet cfg or the folder of a training run is, and what it knows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wordtree.console import Command, to_json
from yolo9000.errors import ModelError

if TYPE_CHECKING:
    from wordtree import WordTree
    from yolo9000.spec import NetworkSpec


@click.command(
    cls=Command,
    epilog="Examples: yolo9000 info  |  yolo9000 info runs/tiny/  |  yolo9000 info yolov2.cfg --json",
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, the whole record included.")
@click.option("--layers", is_flag=True, help="List the layers too.")
def command(model: Path | None, as_json: bool, layers: bool) -> None:
    """Say what a model is: its network, tree, what each node learnt from, its record and fingerprints.

    MODEL is a model file, a .cfg, or the folder of a training run; left out, or the word "model": the model
    in the package. The weights are read and their SHA-256 is checked.
    """
    found = describe(None if model is None or (str(model) == "model" and not model.exists()) else model)
    if as_json:
        click.echo(to_json(found))
        return
    shown = {name: value for name, value in found.items() if name not in ("layers", "nodes", "log")}
    if "run" in shown:
        shown["run"] = _in_words(shown["run"])
        # What the run says of itself is not repeated out of the model's record.
        shown["record"] = {k: v for k, v in shown.get("record", {}).items() if k not in ("config", "losses")}
    _print(shown)
    if layers:
        click.echo("layers")
        for i, layer in enumerate(found["layers"]):
            settings = " ".join(
                f"{k}={v}" for k, v in layer.items() if k not in ("kind", "stored") and v is not None
            )
            click.echo(f"  {i:3d} {layer['kind']:<20} {settings}")


def describe(path: Path | None) -> dict[str, Any]:
    """Facts about a model as JSON-able data. Raises ModelError, TreeError."""
    if path is not None and path.suffix == ".cfg":
        from yolo9000 import cfg

        spec = cfg.read(path)
        return {"file": str(path), "network": _network(spec), "layers": spec.to_dict()["layers"]}
    from yolo9000.modelfile import MODEL_NAME, model_path, read_info

    facts: dict[str, Any] = {}
    if path is not None and path.is_dir():
        facts = {"folder": str(path), **_run(path)}
        if not (path / MODEL_NAME).is_file():
            return facts
    path = model_path(path)
    info = read_info(path)
    facts |= {"file": str(path), "size": info.size, "sha256": info.sha256}
    facts["network"] = _network(info.network)
    region = info.network.region
    facts["tree"] = _tree(info.tree, info.tree_fingerprint)
    if info.names is not None:
        facts["names"] = list(info.names)
    if region is not None and region.stored is not None:
        facts["class rows"] = {"stored": len(region.stored), "of": region.classes}
    nodes = info.record.get("nodes")
    if isinstance(nodes, dict) and info.tree is not None:
        facts["learnt from"] = knowledge(info.tree, nodes)
    facts["defaults"] = info.defaults
    facts["record"] = {name: value for name, value in info.record.items() if name != "nodes"}
    facts["nodes"] = nodes
    facts["layers"] = info.network.to_dict()["layers"]
    return facts


def knowledge(tree: "WordTree", nodes: dict[str, Any]) -> dict[str, int]:
    """How many nodes were named by each kind of teaching ("boxes", "labels", "teacher", ...), how many learnt
    only because nodes below them were named, and how many learnt nothing. A node counts under every kind that
    named it."""
    counts: dict[str, int] = {}
    named: set[int] = set()
    for kind, indices in nodes.items():
        if not isinstance(indices, list) or not all(
            isinstance(k, int) and 0 <= k < len(tree) for k in indices
        ):
            raise ModelError(f"the record's nodes[{kind!r}] are no nodes of the tree")
        counts[kind] = len(set(indices))
        named.update(indices)
    above: set[int] = set()
    for node in named:
        above.update(tree.path_nodes(node))
    return {**counts, "only nodes below": len(above - named), "nothing": len(tree) - len(above)}


def _network(spec: "NetworkSpec") -> dict[str, Any]:
    region = spec.region
    facts: dict[str, Any] = {
        "kind": "detector" if region else "classifier" if spec.softmax else "trunk",
        "input": f"{spec.width} x {spec.height}",
        "stride": spec.stride,
        "classes": spec.classes,
        "layers": len(spec.layers),
        "values": spec.values,
    }
    if region:
        facts["anchors"] = [[round(w * spec.stride, 2), round(h * spec.stride, 2)] for w, h in region.anchors]
    return facts


def _tree(tree: "WordTree | None", fingerprint: str | None) -> dict[str, Any] | None:
    if fingerprint is None:
        return None
    if tree is None:
        return {"fingerprint": fingerprint, "note": "another tree than this package's"}
    return {
        "nodes": len(tree),
        "groups": len(tree.group_parent),
        "leaves": len(tree.leaves),
        "depth": int(tree.depths.max()),
        "fingerprint": tree.fingerprint,
    }


def _run(folder: Path) -> dict[str, Any]:
    """What a run's log says: "run", a summary, and "log", the last line of each kind; nothing without one."""
    from yolo9000.history import summary
    from yolo9000.modelfile import MODEL_NAME
    from yolo9000.runlog import LOG_NAME, read_log

    lines = read_log(folder)
    if not (folder / LOG_NAME).is_file():
        if (folder / MODEL_NAME).is_file():
            return {}
        raise ModelError(
            f"{folder}: no {LOG_NAME} and no {MODEL_NAME}; this is not the folder of a training run"
        )
    return {"run": summary(lines), "log": {str(line.get("event")): line for line in lines}}


def _in_words(run: dict[str, Any]) -> dict[str, Any]:
    """A run's summary with counts, time and data as people say them."""
    words = dict(run)
    for key in ("batches", "images"):
        if key in run:
            done, wanted = run[key]
            words[key] = f"{done:,} of {wanted:,}" if wanted is not None else f"{done:,}"
    if "seconds" in run:
        minutes, seconds = divmod(round(run["seconds"]), 60)
        words["time"] = f"{minutes // 60} h {minutes % 60} min {seconds} s"
        del words["seconds"]
    if "best" in run:
        best = run["best"]
        words["best"] = f"{best['by']} {best['value']:.5g} after {best['images']:,} images (best.pt)"
    for key in ("data", "validation"):
        if key in run:
            words[key] = [f"{one.get('file')} ({one.get('samples'):,} pictures)" for one in run[key]]
    if "parts" in run:
        words["parts"] = [
            f"{one.get('name')}: {one.get('per_batch')} a batch of {one.get('samples'):,}"
            for one in run["parts"]
        ]
    return words


def _print(facts: dict[str, Any], indent: str = "") -> None:
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict) and not value:
            continue
        if isinstance(value, dict):
            click.echo(f"{indent}{name}")
            _print(value, indent + "  ")
        elif value is not None:
            click.echo(f"{indent}{name:<{width}}  {_brief(value)}")


def _brief(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        text = ", ".join(
            _brief(item) if not isinstance(item, list) else " x ".join(map(str, item)) for item in value[:12]
        )
        return text + (f", ... ({len(value)})" if len(value) > 12 else "")
    return str(value)
