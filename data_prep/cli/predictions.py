"""`data-prep predictions`."""

import json
import os
from pathlib import Path

import click

from wordtree.console import Command

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    cls=Command,
    epilog="Example: yolo9000 detect pictures/ --json > found.json  |  "
    "data-prep predictions found.json --labelstudio tasks.json --config labels.xml  |  "
    "(correct and export)  |  "
    "data-prep pack --labelstudio export.json --images pictures/ --map names more.h5",
)
@click.argument("found", type=click.Path(path_type=Path))
@click.option("--coco", type=_FILE, help="Write a data set in COCO's JSON, a score to each box, here.")
@click.option("--fiftyone", type=_FILE, help="Write FiftyOne's labels.json here.")
@click.option("--labelstudio", type=_FILE, help="Write tasks for Label Studio here.")
@click.option("--config", type=_FILE, help="Write Label Studio's labelling configuration here.")
@click.option(
    "--prefix",
    default="/data/local-files/?d=",
    show_default=True,
    help="Label Studio: what makes an address of a picture's name.",
)
@click.option("--least", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Least score.")
@click.option(
    "--ids",
    is_flag=True,
    help="Label boxes with ids of the tree, not with names; classes that share a name have theirs anyway.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    found: Path,
    coco: Path | None,
    fiftyone: Path | None,
    labelstudio: Path | None,
    config: Path | None,
    prefix: str,
    least: float,
    ids: bool,
    as_json: bool,
) -> None:
    """What a detector found, to COCO's JSON or to a tool in which people correct it.

    FOUND is what `yolo9000 detect --json` or `--json-lines` printed, or the detections.json of --out. What
    comes back goes to `data-prep pack --coco`, `--fiftyone` or `--labelstudio`.
    """
    from data_prep.errors import DataError
    from data_prep.fiftyone import write_fiftyone
    from data_prep.labelstudio import labelling_config, write_labelstudio
    from data_prep.outputs import check_output
    from data_prep.predictions import class_labels, read_predictions
    from data_prep.results import write_coco
    from wordtree.files import written_whole

    forms = {"coco": coco, "fiftyone": fiftyone, "labelstudio": labelstudio, "config": config}
    files = {form: path for form, path in forms.items() if path}
    if not files:
        raise click.UsageError("to which form? --coco, --fiftyone, --labelstudio, --config")
    if len(set(map(os.path.realpath, files.values()))) < len(files):
        raise click.UsageError("each form needs a file of its own")
    for form, path in files.items():
        check_output(path, form)
    pictures = read_predictions(found, least)
    if coco:
        write_coco(coco, pictures, names=not ids)
    if fiftyone:
        write_fiftyone(fiftyone, pictures, names=not ids)
    if labelstudio:
        write_labelstudio(labelstudio, pictures, prefix, names=not ids)
    if config:
        label = class_labels(pictures, names=not ids)
        labels = {label(one) for picture in pictures for one in picture}
        with written_whole(config, DataError) as part:
            part.write_text(labelling_config(sorted(labels)), encoding="utf-8")
    written = list(map(str, files.values()))
    boxes = sum(len(picture.found) for picture in pictures)
    if as_json:
        click.echo(json.dumps({"pictures": len(pictures), "boxes": boxes, "files": written}))
    else:
        click.echo(f"boxes: {boxes:,}, pictures: {len(pictures):,}, written: {', '.join(written)}")
