"""`yolo9000 average`: several models into one. The mean of weights is yolo9000.average's, that of what
twins say yolo9000.join's.
"""

import json
from pathlib import Path

import click

from wordtree.console import Command
from yolo9000.cli import _pictures

_FILE = click.Path(path_type=Path)


@click.command(cls=Command, epilog="Example: yolo9000 average runs/one runs/two --out mean.safetensors")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--out", required=True, type=_FILE, help="Model file to write, a .safetensors.")
@click.option(
    "--twins",
    is_flag=True,
    help="Keep the twin (model.twin) of each; the mean is of what they say, not of weights.",
)
@click.option(
    "--mirrored",
    is_flag=True,
    help="With --twins: each looks at the picture's mirror image, too, and the mean of both counts.",
)
@click.option(
    "--difference",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Of one model of the preset tiny9000: only this share of what its class features learnt beside "
    "their windows.",
)
@click.option("--half", is_flag=True, help="Store weights as float16: half the size.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    models: tuple[str, ...],
    out: Path,
    twins: bool,
    mirrored: bool,
    difference: float | None,
    half: bool,
    as_json: bool,
) -> None:
    """Write one model with the mean of the weights of several.

    Each MODEL is a model file, the folder of a run or a checkpoint; all must have begun as the same model, or
    the mean knows nothing. Tree, names, record and defaults are those of the first; what `yolo9000 calibrate`
    had fitted is left out.

    With --twins the models differ in what their twins learnt (say, by another seed), and the one that is
    written has all of these: larger and slower where they are heard, and righter than the mean of weights.

    With --difference there is one MODEL, and one layer of it goes some of the way back to where it began:
    what was learnt from few pictures is learnt by heart in part.
    """
    if out.suffix != ".safetensors":
        raise click.UsageError(f"a model file is named .safetensors, not {out.name}")
    if difference is not None and (len(models) > 1 or twins):
        raise click.UsageError("--difference is for one model alone")
    if len(models) < 2 and difference is None:
        raise click.UsageError("name two models or more; one alone is copied by `yolo9000 convert`")
    if mirrored and not twins:
        raise click.UsageError("--mirrored is for --twins: weights have no mirror image")
    from wordtree.files import check_target
    from yolo9000.average import average, shrink_difference
    from yolo9000.errors import ModelError
    from yolo9000.join import join_twins, mirror_twin
    from yolo9000.modelfile import save_model
    from yolo9000.options import told_dropped
    from yolo9000.start import load_any

    check_target(out, ModelError)
    nets = [load_any(model) for model in models]
    if mirrored:
        nets = [mirror_twin(net) for net in nets]
    if difference is not None:
        net, dropped = shrink_difference(nets[0], difference)
        about = {**net.record, "difference": difference}
    else:
        net, dropped = (join_twins if twins else average)(nets)
        about = {**net.record, "twins_of" if twins else "mean_of": [Path(model).name for model in models]}
    save_model(net, out, about, dtype="float16" if half else "float32")
    if as_json:
        click.echo(json.dumps({"written": str(out), "models": len(models), "dropped": list(dropped)}))
        return
    if dropped:
        click.echo(told_dropped(dropped))
    what = f"the {'twins' if twins else 'mean'} of {len(models)} models"
    if difference is not None:
        what = f"the model with {difference:g} of its difference"
    click.echo(f"{what} written to {_pictures.printable(out)}")
