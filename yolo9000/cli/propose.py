"""`yolo9000 propose`: boxes for pictures that have only labels. How they are found is yolo9000.propose's."""

from itertools import chain
from pathlib import Path

import click

from wordtree.console import Command
from yolo9000.cli import _pictures

_FILE = click.Path(path_type=Path)


@click.command(
    cls=Command, epilog="Example: yolo9000 propose runs/start --data labels.h5 --out proposed.h5 --size 128"
)
@click.argument("model")
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=_FILE,
    help="Packed file with labelled pictures, or a pattern of shards such as 'train-*.h5'; repeatable, each "
    "of the same tree.",
)
@click.option("--out", required=True, type=_FILE, help="Packed file to write.")
@click.option(
    "--size",
    "sizes",
    type=_pictures.COUNT,
    multiple=True,
    help="Side of the square input in pixels; default: the model's own. With --objects repeatable: an object "
    "has the mean of its boxes.",
)
@click.option(
    "--threshold",
    type=_pictures.SHARE,
    help="Least objectness of a proposed box.  [default: 0.3; with --objects 0.5]",
)
@click.option("--objects", is_flag=True, help="All objects that are found, not one box for each label.")
@click.option(
    "--unsure",
    type=_pictures.SHARE,
    default=0.08,
    show_default=True,
    help="With --objects: from this objectness to the threshold a box is marked difficult.",
)
@_pictures.batch_option
def command(
    model: str,
    data: tuple[Path, ...],
    out: Path,
    sizes: tuple[int, ...],
    threshold: float | None,
    objects: bool,
    unsure: float,
    batch: int,
) -> None:
    """Give pictures that have only labels the boxes that a model finds for them.

    MODEL is a model file, the folder of a run, a checkpoint, or "x.cfg x.weights" in quotes. Each label gets
    the box of highest objectness x Pr(label); pictures with no box above the threshold keep their labels,
    pictures with boxes keep those. The files given by --data stay as they are; --out has the pictures of all.

    With --objects, for photographs of many things: all objects found are boxes, named as the model answers;
    those it is unsure of are marked difficult, and cost training nothing. Pictures without labels get boxes,
    too.
    """
    if len(sizes) > 1 and not objects:
        raise click.UsageError("--size is repeatable with --objects only")
    from data_prep.errors import DataError
    from data_prep.shards import find_packed
    from data_prep.writer import StoreWriter
    from yolo9000.batches import open_store
    from yolo9000.detector import Detector
    from yolo9000.objects import ObjectSettings, propose_objects
    from yolo9000.propose import ProposeSettings, propose
    from yolo9000.start import load_any

    files = find_packed(data)
    stores = [open_store(path) for path in files]
    if out.resolve() in [path.resolve() for path in files]:
        raise DataError(f"{out}: --out would replace the file that is read; give another name")
    for store in stores:
        store.require_tree(stores[0].tree)
    detector = Detector(load_any(model))
    settings: ProposeSettings | ObjectSettings
    if objects:
        settings = ObjectSettings(sizes, 0.5 if threshold is None else threshold, unsure)
        each = [propose_objects(detector, store, settings, progress=True) for store in stores]
    else:
        settings = ProposeSettings(*(sizes or (0,)), 0.3 if threshold is None else threshold, batch)
        each = [propose(detector, store, settings, progress=True) for store in stores]
    names = [path.name for path in files]
    about = {"proposed": {"model": Path(model).name, "data": names, **vars(settings)}}
    known = (store.annotation(i) for store in stores for i in range(len(store)))
    had = got = boxes = unsure_boxes = 0
    with StoreWriter(out, stores[0].tree, about) as writer:
        for before, sample in zip(known, chain.from_iterable(each), strict=True):
            asked = not before.boxed and (objects or len(before.image_labels) > 0)
            had, got = had + asked, got + (asked and sample.boxed)
            if asked:
                boxes, unsure_boxes = boxes + len(sample.labels), unsure_boxes + int(sample.difficult.sum())
            writer.add(sample)
    what = "had no boxes" if objects else "had only labels"
    found = f" ({boxes - unsure_boxes:,} sure, {unsure_boxes:,} difficult)" if objects else ""
    click.echo(f"{out}: boxes for {got:,} of {had:,} pictures that {what}{found}; {len(writer):,} in all")
