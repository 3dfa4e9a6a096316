"""`yolo9000 export`: a detector as a file for another runtime. Making it is yolo9000.export."""

from pathlib import Path
from typing import Any

import click

from wordtree.console import Command, to_json
from yolo9000.cli import _pictures

# Written out here as well as in yolo9000.export and options.py, so that --help need not import torch; tests
# hold them equal.
FORMATS = ("pt2", "onnx", "openvino")
RULES = ("threshold", "darknet", "leaf", "greedy")
CANDIDATES = 512

_PATH = click.Path(path_type=Path)


@click.command(
    cls=Command,
    epilog="Examples: yolo9000 export --out yolo9000.onnx  |  "
    "yolo9000 export model.safetensors --format openvino --out model.xml --size 416 --rule greedy  |  "
    "yolo9000 export --cfg yolo9000.cfg --weights yolo9000.weights --data-root darknet/ --out y.pt2 --raw",
)
@click.argument("model", required=False, type=_PATH)
@click.option("--format", type=click.Choice(FORMATS), help="Of the file.  [default: by the suffix of --out]")
@click.option("--out", required=True, type=_PATH, help="File to write: .pt2, .onnx, or .xml (and its .bin).")
@click.option("--cfg", type=_PATH, help="Darknet's description of a network; needs --weights.")
@click.option("--weights", type=_PATH, help="Darknet's weights.")
@click.option("--data-root", type=_PATH, help="Folder that tree= and map= in the cfg start from.")
@click.option("--names", metavar="FILE", help="Class names, one a line; or voc, coco, det, ilsvrc.")
@click.option("--size", type=_pictures.Size(), help="Input, 416 or 608x416.  [default: the model's]")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures a call.")
@click.option("--raw", is_flag=True, help="The network's channels instead of detections.")
@click.option(
    "--threshold", type=_pictures.SHARE, help="Least objectness of a box.  [default: the model's, else 0.2]"
)
@click.option(
    "--rule", type=click.Choice(RULES), help="How far down the tree.  [default: the model's, else threshold]"
)
@click.option(
    "--tree-threshold",
    type=_pictures.SHARE,
    help="Least Pr(node) to go on down.  [default: the model's, else 0.5]",
)
@_pictures.box_options
@click.option(
    "--candidates",
    type=click.IntRange(1),
    default=CANDIDATES,
    show_default=True,
    help="Boxes above the threshold that are looked at, at most; the file says how many there were.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    model: Path | None,
    format: str | None,
    out: Path,
    cfg: Path | None,
    weights: Path | None,
    data_root: Path | None,
    names: str | None,
    size: tuple[int, int] | None,
    batch: int,
    raw: bool,
    candidates: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a detector as a file that other runtimes run without this package.

    MODEL is a model file or the folder of a run, by default the model in the package. The file takes
    letterboxed pictures (batch, 3, height, width), RGB in 0..1, and the sizes of the originals; decoding, the
    descent down the tree and suppression are inside, and boxes in pixels, scores and nodes come out. The
    tree, its names and all options are in the file's metadata: docs/export.md.
    """
    _pictures.check_model_options(model, cfg, weights, data_root)
    parameters = click.get_current_context().command.params
    given = [one.opts[0] for one in parameters if options.get(one.name) is not None]
    if raw and given:
        raise click.UsageError(f"--raw writes the network's channels; it takes no {given[0]}")

    from tqdm import tqdm

    from yolo9000.detector import Detector
    from yolo9000.export import STAGES, export

    net, source = _load(model, cfg, weights, data_root)
    with tqdm(total=len(STAGES), delay=2, disable=None, leave=False, bar_format="{desc} {bar}") as bar:

        def tell(stage: str) -> None:
            bar.set_description_str(stage)
            bar.update(0 if stage == STAGES[0] else 1)

        try:
            detector = Detector(net, names=names, precision="float32")
            written = export(
                detector,
                out,
                format,
                options=detector.options(**options),
                raw=raw,
                size=size,
                batch=batch,
                candidates=candidates,
                source=source,
                tell=tell,
            )
        except ValueError as error:
            raise _pictures.usage(error) from None
    if as_json:
        click.echo(to_json({"written": [str(path) for path in written]}))
        return
    for path in written:
        click.echo(f"{_pictures.printable(path)}  {path.stat().st_size:,} bytes")


def _load(
    model: Path | None, cfg: Path | None, weights: Path | None, data_root: Path | None
) -> tuple[Any, dict[str, Any]]:
    """The network, and where it came from."""
    if cfg is not None:
        net = _pictures.load_network(None, cfg, weights, data_root)
        return net, {"cfg": cfg.name, "weights": weights.name}
    from yolo9000.modelfile import load_model, model_path, read_info

    path = model_path(model)
    net = load_model(path)
    return net, {"model": path.name, "sha256": read_info(path, verify=False).sha256}
