"""`yolo9000 classify`: arguments in, names out. Classifying is yolo9000.classifier."""

from pathlib import Path

import click

from yolo9000.cli import _pictures
from yolo9000.cli.detect import RULES


@click.command(
    epilog="Example: yolo9000 classify photos/ --cfg tiny.cfg --weights tiny.weights "
    "--labels imagenet.labels.list"
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@_pictures.model_options
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Names a picture.")
@click.option(
    "--rule",
    type=click.Choice(RULES),
    default="threshold",
    show_default=True,
    help="With a tree: how far down.",
)
@click.option(
    "--tree-threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="With a tree: least Pr(node) to go on down.",
)
@click.option(
    "--size", type=click.IntRange(1), help="Side of the network's input in pixels.  [default: the model's]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    pictures: tuple[Path, ...],
    model: Path | None,
    cfg: Path | None,
    weights: Path | None,
    data_root: Path | None,
    names: str | None,
    top: int,
    rule: str,
    tree_threshold: float,
    size: int | None,
    as_json: bool,
) -> None:
    """Name what whole photographs show, with a network that ends in a softmax.

    PICTURES are files, folders (searched to the bottom) and patterns. The shorter side is scaled to the
    network's input, and the middle square looked at. A picture that cannot be read is reported and passed
    over; the exit status is then 1.
    """
    from yolo9000.images import find_images

    _pictures.check_model_options(model, cfg, weights, data_root)
    if model is None and cfg is None:
        raise click.UsageError(
            "name a classifier with --model, or --cfg and --weights; the model in the package is a detector"
        )
    skipped = _pictures.Skipped()
    files, complaints = find_images(pictures)
    for complaint in complaints:
        skipped(complaint)
    if not files and not as_json:
        skipped.finish()

    from yolo9000.classifier import Classifier

    classifier = Classifier(_pictures.load_network(model, cfg, weights, data_root), names=names)
    flat = classifier.hierarchy.is_flat
    try:
        classifier.check(top, rule, tree_threshold, size)
    except ValueError as error:
        raise _pictures.usage(error) from None
    records = []

    def run(file: Path):
        return classifier(file, top, rule, tree_threshold=tree_threshold, size=size)

    for file, found in _pictures.each_result(files, run, skipped):
        records.append(found.to_dict())
        if not as_json:
            lines = [_pictures.printable(file)]
            lines += [
                f"  {p:6.1%}  {name}" + (f"  ({node})" if node != name else "")
                for p, name, node in zip(found.probabilities, found.names, found.ids, strict=True)
            ]
            if not flat:
                lines.append(f"  answer {found.path_probabilities[-1]:.1%}: {' > '.join(found.path_names)}")
            _pictures.say("\n".join(lines))
    if as_json:
        click.echo(_pictures.to_json({"pictures": records, "skipped": skipped.reasons}))
    skipped.finish()
