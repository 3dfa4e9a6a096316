"""`yolo9000 eval`: scores of a model on packed data. What the scores are is yolo9000.evaluate's."""

import json
from pathlib import Path

import click

from yolo9000.cli import _pictures

_FILE = click.Path(path_type=Path)
_PRECISION = click.Choice(["auto", "bfloat16", "float32"])


@click.command(epilog="Example: yolo9000 eval runs/tiny --data val.h5 --size 96 --classes split.json")
@click.argument("model")
@click.option("--data", multiple=True, required=True, type=_FILE, help="Packed file; repeatable.")
@click.option("--size", default=0, help="Side of the square input in pixels; default: the model's own.")
@click.option("--classes", type=_FILE, help="JSON: name -> list of ids; scores for each such group.")
@click.option("--batch", default=32, show_default=True, help="Pictures at a time.")
@click.option("--nms", default=0.45, show_default=True, help="Overlap above which the worse box goes.")
@click.option(
    "--threshold", type=float, help="An answer's objectness exceeds this; default: the model's own."
)
@_pictures.rule_options
@click.option(
    "--nodes/--no-nodes",
    default=True,
    show_default=True,
    help="Score boxes at every node above the truth, too.",
)
@click.option("--precision", type=_PRECISION, default="auto", show_default=True)
@click.option("--resamples", default=200, show_default=True, help="For 95% intervals; 0 = none.")
@click.option("--limit", default=0, help="Evaluate the first so many pictures only.")
@click.option("--workers", default=1, show_default=True, help="Processes that load pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(model: str, data: tuple[Path, ...], classes: Path | None, as_json: bool, **settings) -> None:
    """Score a model: AP50 and AP by pycocotools, and how well labelled pictures are named.

    MODEL is a model file, the folder of a run, a checkpoint, or "x.cfg x.weights" in quotes. Thresholds and
    rule are for pictures that have labels only; average precision needs none.
    """
    from yolo9000.batches import open_store
    from yolo9000.errors import TrainingError
    from yolo9000.evaluate import EvalSettings, evaluate
    from yolo9000.start import load_any
    from yolo9000.tables import format_table

    groups = None
    if classes is not None:
        try:
            groups = json.loads(classes.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{classes}: not a readable JSON file ({error})") from None
        if not isinstance(groups, dict) or not all(isinstance(v, list) for v in groups.values()):
            raise TrainingError(f"{classes}: wanted an object of lists of ids")
    stores = [open_store(path) for path in data]
    result = evaluate(load_any(model), stores, EvalSettings(**settings), groups, progress=not as_json)
    click.echo(json.dumps(result) if as_json else format_table(result))
