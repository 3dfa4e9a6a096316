"""`yolo9000 train`: arguments in, one line out. The loop is yolo9000.train."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wordtree.console import Command

if TYPE_CHECKING:
    from yolo9000.train import Result

_EXIT = {"SIGINT": 130, "SIGTERM": 143}  # as shells report them: 128 + the signal's number
_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    cls=Command,
    epilog="Example: yolo9000 train tiny-joint --data tiny.h5 --out runs/tiny --set optimiser.lr=0.01",
)
@click.argument("config")
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=_FILE,
    help="Packed file, or a pattern of shards such as 'boxes-*.h5'; repeatable.",
)
@click.option(
    "--val",
    multiple=True,
    type=_FILE,
    help="Packed file whose scores say which moment is the best, or a pattern of shards; repeatable.",
)
@click.option("--out", required=True, type=_FOLDER, help="Folder of the run.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="As optimiser.lr=0.01; repeatable."
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the folder, if any.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; no progress bar.")
def command(
    config: str,
    data: tuple[Path, ...],
    val: tuple[Path, ...],
    out: Path,
    settings: tuple[str, ...],
    resume: bool,
    as_json: bool,
) -> None:
    """Train on packed data: boxes, labels, or both.

    CONFIG is a TOML file or the name of a configuration that comes with the package (docs/training.md).
    Ctrl-C saves and stops; the same command with --resume goes on. The folder gets model.safetensors (with
    --val also best.safetensors) and curves.png at the end, log.jsonl, the last checkpoints and the best one,
    best.pt, and sheets of detections (with --val), on the way. `yolo9000 info` says what a run was.
    """
    from data_prep.shards import find_packed
    from yolo9000.config import load_config
    from yolo9000.train import train

    loaded = load_config(config, settings)
    files, held_out = find_packed(data), find_packed(val)
    result = train(loaded, files, out, resume=resume, progress=not as_json, validation=held_out)
    if as_json:
        fields = vars(result) | {"model": str(result.model) if result.model else None}
        click.echo(json.dumps(fields))
    elif result.stopped:
        done = f"stopped by {result.stopped} after {result.images:,} images"
        click.echo(f"{done}; go on with --resume", err=True)
    elif result.already:
        click.echo(f"finished already: {result.images:,} images; model: {result.model}{_best(result)}")
    else:
        click.echo(
            f"{result.images:,} images in {result.seconds:.0f} s; model: {result.model}{_best(result)}"
        )
    if result.skipped:
        click.echo(
            f"{result.skipped:,} pictures could not be read and were replaced; see log.jsonl", err=True
        )
    if result.stopped:
        raise click.exceptions.Exit(_EXIT.get(result.stopped, 1))


def _best(result: "Result") -> str:
    if not result.best or result.best["by"] == "loss":
        return ""
    best = result.best
    return f"; best {best['by']} {best['value']:.4g} after {best['images']:,} images"
