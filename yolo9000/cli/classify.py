"""`yolo9000 classify`: arguments in, names out. Classifying is yolo9000.classifier."""

from pathlib import Path
from typing import Any

import click

from wordtree.console import Command, to_json
from yolo9000.cli import _pictures


@click.command(
    cls=Command,
    epilog="Example: yolo9000 classify photos/ --cfg tiny.cfg --weights tiny.weights "
    "--labels imagenet.labels.list",
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@_pictures.model_options
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Names a picture.")
@_pictures.rule_options
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
    size: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Name what whole photographs show, with a network that ends in a softmax.

    PICTURES are files, folders (searched to the bottom) and patterns. The shorter side is scaled to the
    network's input, and the middle square looked at. A picture that cannot be read is reported and passed
    over; the exit status is then 1.
    """
    _pictures.check_model_options(model, cfg, weights, data_root)
    if model is None and cfg is None:
        raise click.UsageError(
            "name a classifier with --model, or --cfg and --weights; the model in the package is a detector"
        )
    skipped = _pictures.Skipped()
    files = skipped.files(pictures, go_on=as_json)

    from yolo9000.classifier import Classification, Classifier
    from yolo9000.detections import SOMETHING

    classifier = Classifier(_pictures.load_network(model, cfg, weights, data_root), names=names)
    flat = classifier.hierarchy.is_flat
    try:
        chosen = classifier.options(**options)  # impossible options are told before the first picture
        classifier.find([], chosen, top, size)
    except ValueError as error:
        raise _pictures.usage(error) from None
    records = []

    def run(file: Path) -> Classification:
        return classifier.find([file], chosen, top, size)[0]

    for file, found in _pictures.each_result(files, run, skipped):
        records.append(found.to_dict())
        if not as_json:
            lines = [_pictures.printable(file)]
            lines += [
                f"  {p:6.1%}  {name}" + (f"  ({node})" if node != name else "")
                for p, name, node in zip(found.probabilities, found.names, found.ids, strict=True)
            ]
            if not flat:
                sure, path = (found.path_probabilities or (1.0,))[-1], found.path_names or (SOMETHING,)
                lines.append(f"  answer {sure:.1%}: {' > '.join(path)}")
            _pictures.say("\n".join(lines))
    if as_json:
        click.echo(to_json({"pictures": records, "skipped": skipped.reasons}))
    skipped.finish()
