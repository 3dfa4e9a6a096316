"""`yolo9000 average`: several models into one. What the mean is, is yolo9000.average's."""

import json
from pathlib import Path

import click

from yolo9000.cli import _pictures

_FILE = click.Path(path_type=Path)


@click.command(epilog="Example: yolo9000 average runs/one runs/two --out mean.safetensors")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--out", required=True, type=_FILE, help="Model file to write, a .safetensors.")
@click.option("--half", is_flag=True, help="Store weights as float16: half the size.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(models: tuple[str, ...], out: Path, half: bool, as_json: bool) -> None:
    """Write one model with the mean of the weights of several.

    Each MODEL is a model file, the folder of a run or a checkpoint; all must have begun as the same model, or
    the mean knows nothing. Tree, names, record and defaults are those of the first; what `yolo9000 calibrate`
    had fitted is left out.
    """
    if out.suffix != ".safetensors":
        raise click.UsageError(f"a model file is named .safetensors, not {out.name}")
    if len(models) < 2:
        raise click.UsageError("name two models or more; one alone is copied by `yolo9000 convert`")
    from wordtree.files import check_target
    from yolo9000.average import average
    from yolo9000.errors import ModelError
    from yolo9000.modelfile import save_model
    from yolo9000.start import load_any

    check_target(out, ModelError)
    net, dropped = average([load_any(model) for model in models])
    about = {**net.record, "mean_of": [Path(model).name for model in models]}
    save_model(net, out, about, dtype="float16" if half else "float32")
    if as_json:
        click.echo(json.dumps({"written": str(out), "models": len(models), "dropped": list(dropped)}))
        return
    if dropped:
        click.echo(f"dropped, as no longer true: {', '.join(dropped)} (yolo9000 calibrate)")
    click.echo(f"the mean of {len(models)} models written to {_pictures.printable(out)}")
