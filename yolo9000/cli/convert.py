"""`yolo9000 convert`: Darknet's files into a model file, a model file into Darknet's files or into a model
file that is smaller or says more of itself."""

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wordtree.console import Command, to_json
from yolo9000.cli import _pictures
from yolo9000.errors import ModelError

if TYPE_CHECKING:
    from yolo9000.network import Network

_PATH = click.Path(path_type=Path)


@click.command(
    cls=Command,
    epilog="Examples: yolo9000 convert yolo9000.cfg yolo9000.weights yolo9000.safetensors "
    "--data-root darknet/  |  "
    "yolo9000 convert yolo9000.safetensors folder/",
)
@click.argument("sources", nargs=-1, required=True, type=_PATH, metavar="SOURCE...")
@click.argument("target", type=_PATH)
@click.option("--data-root", type=_PATH, help="Folder that tree= and map= in the cfg start from.")
@click.option(
    "--names", metavar="FILE", help="Class names for the model file, one a line; or voc, coco, det, ilsvrc."
)
@click.option(
    "--half",
    is_flag=True,
    help="Store weights as float16: half the size, not byte-identical on the way back.",
)
@click.option(
    "--bn",
    type=click.Choice(("darknet-cpu", "darknet-gpu")),
    help="How batch norm divides; darknet-gpu: as the GPU that trained the weights did.  "
    "[default: darknet-cpu]",
)
@click.option("--record", type=_PATH, help="JSON file to put into the model file: origin, licence, figures.")
@click.option(
    "--default",
    "defaults",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the model does unless told otherwise: size=320, threshold=0.2, tree_threshold=0.5, ...",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    sources: tuple[Path, ...],
    target: Path,
    data_root: Path | None,
    names: str | None,
    half: bool,
    bn: str | None,
    record: Path | None,
    defaults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Turn Darknet's files into a model file and back.

    Two SOURCEs, a .cfg and its .weights, become the model file TARGET (.safetensors) with tree, map and names
    in it. One SOURCE, a model file, becomes the folder TARGET with .cfg, .weights, .names and, with a tree,
    .tree, .labels and .map. What Darknet has no place for is an error. One SOURCE, a model file or a run's
    folder, and a TARGET .safetensors: the same model with --half, --record (added to its own) or --default.
    """
    dropped: tuple[str, ...] = ()
    if len(sources) == 2:
        if defaults:
            raise click.UsageError("--default is for a model file made from a model file")
        written = _to_model(*sources, target, data_root, names, half, bn or "darknet-cpu", record)
    elif len(sources) == 1 and target.suffix == ".safetensors":
        if data_root or names or bn:
            raise click.UsageError("--data-root, --names and --bn are for reading Darknet's files")
        written, dropped = _again(sources[0], target, half, record, defaults)
    elif len(sources) == 1:
        if data_root or names or half or bn or record or defaults:
            raise click.UsageError(
                "without a target .safetensors, which the other options are for making, there is only --json"
            )
        written = _to_darknet(sources[0], target)
    else:
        raise click.UsageError("give x.cfg x.weights x.safetensors, or x.safetensors folder/")
    if as_json:
        click.echo(to_json({"written": [str(path) for path in written], "dropped": list(dropped)}))
        return
    if dropped:
        from yolo9000.options import told_dropped

        click.echo(told_dropped(dropped))
    for path in written:
        click.echo(f"{_pictures.printable(path)}  {path.stat().st_size:,} bytes")


def _to_model(
    cfg: Path,
    weights: Path,
    target: Path,
    data_root: Path | None,
    names: str | None,
    half: bool,
    bn: str,
    record: Path | None,
) -> list[Path]:
    from yolo9000 import darknet
    from yolo9000.modelfile import save_model
    from yolo9000.names import tree_of

    if target.suffix != ".safetensors":
        raise click.UsageError(f"a model file is named .safetensors, not {target.name}")
    about = _read_record(record) if record else {"origin": f"{cfg.name} and {weights.name}"}
    net = darknet.load(cfg, weights, data_root=data_root, bn=bn)
    if names is not None:
        tree = tree_of(net, names)
        if net.tree is None:
            net.names = tree.names
        else:
            net.tree = tree
    save_model(net, target, about, dtype="float16" if half else "float32")
    return [target]


def _again(
    source: Path, target: Path, half: bool, record: Path | None, defaults: tuple[str, ...]
) -> tuple[list[Path], tuple[str, ...]]:
    """The files written, and which of the model's own defaults are no longer there."""
    from yolo9000.detector import Detector
    from yolo9000.modelfile import save_model
    from yolo9000.options import check_listed
    from yolo9000.start import load_any

    given = dict(_default(item) for item in defaults)
    net = load_any(str(source))
    # An accuracy that is given decides the lambda, as where one is asked for: the own one would go before it.
    own, dropped = dict(net.defaults), ()
    if "accuracy" in given and "hedge_lambda" not in given and own.pop("hedge_lambda", None) is not None:
        dropped = ("hedge_lambda",)
    net.defaults = {**own, **given}
    if given:
        detector = Detector(net, precision="float32")  # refuses what is no detector or no possible default
        check_listed(given, detector.tree)
    about = {**net.record, **(_read_record(record) if record else {})}
    save_model(net, target, about, dtype="float16" if half else "float32")
    return [target], dropped


def _default(item: str) -> tuple[str, Any]:
    """KEY=VALUE; the value as JSON where it is some, else as text."""
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not key:
        raise click.UsageError(f"--default {item}: wanted KEY=VALUE")
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def _to_darknet(source: Path, folder: Path) -> list[Path]:
    from yolo9000 import cfg, darknet
    from yolo9000.modelfile import load_model

    net = load_model(source)
    stem = re.sub(r"\s+", "_", source.stem)  # a cfg, which names files by it, has no blanks
    spec, files = _named_files(net, stem)
    # Before anything is written: a network that Darknet cannot describe, numbers its header has no room for.
    text = cfg.format(spec)
    darknet.Header(*net.version, seen=net.seen).to_bytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be made ({error.strerror or error})") from error
    # What may still be refused comes first, so that no half of a model is left.
    beside = [] if net.tree is None else net.tree.to_darknet(folder, stem)
    paths = [folder / f"{stem}.cfg", folder / f"{stem}.weights", *beside]
    darknet.save(net, paths[1])
    _pictures.write_text(paths[0], text)
    for name, lines in files.items():
        _pictures.write_text(folder / name, "".join(f"{line}\n" for line in lines))
        paths.append(folder / name)
    return paths


def _named_files(net: "Network", stem: str) -> tuple[Any, dict[str, list[Any]]]:
    """The description at the model's own input size, with its tree and map named as they will lie beside it;
    and the text files to write."""
    files: dict[str, list[Any]] = {}
    last = net.spec.layers[-1]
    if net.tree is not None:
        last = dataclasses.replace(last, tree=f"{stem}.tree")
    if net.class_map is not None:
        last = dataclasses.replace(last, map=f"{stem}.map")
        files[f"{stem}.map"] = net.class_map.tolist()
    if net.names is not None:
        files[f"{stem}.names"] = list(net.names)
    width, height = net.own_size
    layers = (*net.spec.layers[:-1], last)
    return dataclasses.replace(net.spec, width=width, height=height, layers=layers), files


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no JSON there ({error})") from error
    if not isinstance(record, dict):
        raise ModelError(f"{path}: a record is a JSON object")
    return record
