"""`yolo9000 calibrate`: temperatures and lambdas from packed data into a model file. What they are is
yolo9000.calibrate's."""

import json
from pathlib import Path

import click

from wordtree.console import Command
from yolo9000.cli import _pictures

_FILE = click.Path(path_type=Path)


@click.command(
    cls=Command,
    epilog="Example: yolo9000 calibrate model.safetensors --data val.h5 --out calibrated.safetensors; "
    "then: yolo9000 detect photo.jpg --model calibrated.safetensors --accuracy 0.95",
)
@click.argument("model", required=False)
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=_FILE,
    help="Packed file that the model was not trained on, or a pattern of shards such as 'val-*.h5'; "
    "repeatable.",
)
@click.option("--out", type=_FILE, help="Model file to write.  [default: MODEL itself, if it is one]")
@click.option("--dry-run", is_flag=True, help="Print what was found and write nothing.")
@click.option(
    "--accuracy",
    "accuracies",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="To be had; repeatable.  [default: 0.8 0.9 0.95 0.99]",
)
@_pictures.size_option
@_pictures.batch_option
@click.option("--threshold", type=_pictures.SHARE, help="Boxes with less objectness are not looked at.")
@_pictures.limit_option
@_pictures.workers_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    model: str | None,
    data: tuple[Path, ...],
    out: Path | None,
    dry_run: bool,
    accuracies: tuple[float, ...],
    as_json: bool,
    **settings,
) -> None:
    """Teach a model how certain it is, on pictures that it was not trained on.

    MODEL is a model file, the folder of a run, a checkpoint, or "x.cfg x.weights" in quotes; left out, or the
    word "model": the model in the package. The even pictures teach: a temperature for each depth of the tree
    where one helps, and for each accuracy the lambda with which hedged answers are right as often. The odd
    pictures test. Both become defaults of the model file, so that `yolo9000 detect --accuracy 0.95` answers
    as exactly as that allows.
    """
    name = _pictures.meant(model)
    source = Path(name)
    if out is None and name == model and source.suffix == ".safetensors":
        out = source  # never the package's own
    if out is None and not dry_run:
        raise click.UsageError("where to? give --out x.safetensors, or --dry-run")
    if out is not None and out.suffix != ".safetensors":
        raise click.UsageError(f"a model file is named .safetensors, not {out.name}")
    from data_prep.shards import find_packed
    from wordtree import WordTree
    from wordtree.files import check_target
    from yolo9000.batches import open_store
    from yolo9000.calibrate import ACCURACIES, calibrate, format_report, gather
    from yolo9000.errors import ModelError
    from yolo9000.evaluate import EvalSettings
    from yolo9000.hierarchy import Hierarchy
    from yolo9000.modelfile import read_info, save_model
    from yolo9000.options import ACCURACY, drop_options, told_dropped
    from yolo9000.start import load_any

    if not dry_run:
        check_target(out, ModelError)  # told now, not after an hour
    net = load_any(name)
    files = find_packed(data)
    stores = [open_store(path) for path in files]
    evidence = gather(net, stores, EvalSettings(**settings), not as_json)
    hierarchy = Hierarchy(net.tree or WordTree.flat([str(k) for k in range(net.classes)]))
    result = calibrate(hierarchy, evidence, sorted(set(accuracies)) or ACCURACIES)
    dropped = ()
    if not dry_run:
        half = source.suffix == ".safetensors" and any(
            kind == "F16" for kind, _ in read_info(source, verify=False).tensors.values()
        )
        defaults = {k: v for k, v in net.defaults.items() if k not in ("lambdas", "temperatures")}
        defaults |= {"lambdas": result["lambdas"]}
        if result["temperatures"]:
            defaults["temperatures"] = result["temperatures"]
        if max(map(float, result["lambdas"]), default=0) >= defaults.get("accuracy", ACCURACY):
            dropped = drop_options(defaults, ["hedge_lambda"])  # it would go before those just found
        elif defaults.get("rule") == "hedge" and defaults.get("hedge_lambda") is None:
            dropped = drop_options(defaults, ["rule"])  # which would find no lambda, and no Detector be made
        about = {k: result[k] for k in ("learnt_from", "tested_on", "missed", "test")}
        about["data"] = [path.name for path in files]
        save_model(
            net,
            out,
            {**net.record, "calibration": about},
            dtype="float16" if half else "float32",
            defaults=defaults,
        )
    if as_json:
        click.echo(json.dumps({"written": None if dry_run else str(out), "dropped": dropped, **result}))
        return
    click.echo(format_report(result))
    if dropped:
        click.echo(told_dropped(dropped))
    if not dry_run:
        click.echo(f"written to {out}")
