"""`yolo9000 eval`: scores of a model on packed data, in words, as JSON, as a page. What the scores are is
yolo9000.evaluate's, what is on the page yolo9000.report's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wordtree.console import Command
from yolo9000.cli import _pictures

if TYPE_CHECKING:
    from yolo9000.network import Network
    from yolo9000.witness import Witness

_FILE = click.Path(path_type=Path)
_PRECISION = click.Choice(["auto", "bfloat16", "float32"])


@click.command(
    cls=Command,
    epilog="Examples: yolo9000 eval runs/tiny --data val.h5 --size 96 --classes split.json  |  "
    "yolo9000 eval runs/tiny --data val.h5 --html report.html",
)
@click.argument("model", required=False)
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=_FILE,
    help="Packed file, or a pattern of shards such as 'val-*.h5'; repeatable.",
)
@_pictures.size_option
@_pictures.rect_option
@click.option("--classes", type=_FILE, help="JSON: name -> list of ids; scores for each such group.")
@_pictures.batch_option
@click.option(
    "--nms",
    type=_pictures.SHARE,
    default=0.45,
    show_default=True,
    help="Overlap above which the worse box goes.",
)
@_pictures.vote_option
@click.option(
    "--threshold",
    type=_pictures.SHARE,
    help="An answer's objectness exceeds this; default: the model's own.",
)
@_pictures.rule_options
@click.option(
    "--nodes/--no-nodes",
    default=True,
    show_default=True,
    help="Score boxes at every node above the truth, too.",
)
@click.option("--precision", type=_PRECISION, default="auto", show_default=True)
@click.option(
    "--resamples",
    type=_pictures.ANY_COUNT,
    default=200,
    show_default=True,
    help="For 95% intervals; 0 = none.",
)
@_pictures.limit_option
@_pictures.workers_option
@click.option(
    "--html", type=_FILE, help="Also write a page: curves, AP along the tree, confusions, the worst pictures."
)
@click.option(
    "--worst",
    type=click.IntRange(0, 1000),
    default=24,
    show_default=True,
    help="With --html: pictures shown, some 20 KB each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    model: str | None,
    data: tuple[Path, ...],
    classes: Path | None,
    html: Path | None,
    worst: int,
    as_json: bool,
    **settings,
) -> None:
    """Score a model: AP50 and AP by pycocotools, and how well labelled pictures are named.

    MODEL is a model file, the folder of a run, a checkpoint, or "x.cfg x.weights" in quotes; left out, or the
    word "model": the model in the package. Thresholds and rule are for pictures that have labels only;
    average precision needs none.
    """
    from data_prep.shards import find_packed
    from yolo9000.batches import open_store
    from yolo9000.errors import TrainingError
    from yolo9000.evaluate import EvalSettings, evaluate
    from yolo9000.start import load_any
    from yolo9000.tables import format_table

    model = _pictures.meant(model)
    groups = None
    if classes is not None:
        try:
            groups = json.loads(classes.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{classes}: not a readable JSON file ({error})") from None
        if not isinstance(groups, dict) or not all(isinstance(v, list) for v in groups.values()):
            raise TrainingError(f"{classes}: wanted an object of lists of ids")
    witness = None
    if html is not None:
        from wordtree.files import check_target
        from yolo9000.witness import Witness

        check_target(html, TrainingError, (".html", ".htm"))  # told now, not after an hour
        witness = Witness()
    files = find_packed(data)
    stores = [open_store(path) for path in files]
    net = load_any(model)
    result = evaluate(net, stores, EvalSettings(**settings), groups, not as_json, witness)
    if witness is not None:
        from yolo9000.report import gather, write_report

        title = f"{Path(model.split()[0]).name} on {', '.join(path.name for path in files)}"
        facts = _facts(model, net, files, witness)
        write_report(html, gather(witness, result, facts, title, worst, progress=not as_json))
    click.echo(json.dumps(result) if as_json else format_table(result))
    if html is not None and not as_json:
        click.echo(f"written to {html}: curves, what is confused with what, the worst pictures")


def _facts(model: str, net: "Network", files: list[Path], witness: "Witness") -> dict[str, str]:
    """What was evaluated, on what and how, for the page: names without folders, and fingerprints."""
    import torch

    from yolo9000 import __version__
    from yolo9000.modelfile import MODEL_NAME, model_path, read_info
    from yolo9000.report import data_fingerprint
    from yolo9000.runlog import timestamp
    from yolo9000.serve.answers import fingerprint

    path = model_path(model)
    own = path.is_file() and path.suffix == Path(MODEL_NAME).suffix
    weights = read_info(path, verify=False).sha256 if own else fingerprint(net)
    held, options = witness.held, witness.decision.options
    said = {"threshold": options.threshold, "tree threshold": options.tree_threshold}
    said |= {"suppression": f"{options.nms}, overlap {options.nms_iou:g}"}
    said |= {"votes": f"from an overlap of {options.vote_iou:g}" if options.vote_iou < 1 else "none"}
    return {
        "model": " ".join(Path(word).name for word in model.split()),
        "weights": f"{weights} (SHA-256)",
        "tree": f"{held.tree.fingerprint} ({len(held.tree):,} nodes)",
        "data": ", ".join(path.name for path in files),
        "pictures": f"{len(held.pictures.where):,}, {data_fingerprint(witness)} (SHA-256)",
        "input": f"{held.settings.size_said} px{', rect' * held.settings.rect}, "
        f"{'bfloat16' if held.bfloat16 else 'float32'}",
        "answers": f"rule {options.rule}, " + ", ".join(f"{key} {value}" for key, value in said.items()),
        "made": f"{timestamp()} by yolo9000 {__version__}, torch {torch.__version__}",
    }
