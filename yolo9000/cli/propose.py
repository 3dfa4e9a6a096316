"""`yolo9000 propose`: boxes for pictures that have only labels. How they are found is yolo9000.propose's."""

from pathlib import Path

import click

from yolo9000.cli import _pictures

_FILE = click.Path(path_type=Path)


@click.command(epilog="Example: yolo9000 propose runs/start --data labels.h5 --out proposed.h5 --size 128")
@click.argument("model")
@click.option("--data", required=True, type=_FILE, help="Packed file with labelled pictures.")
@click.option("--out", required=True, type=_FILE, help="Packed file to write.")
@_pictures.size_option
@click.option(
    "--threshold",
    type=_pictures.SHARE,
    default=0.3,
    show_default=True,
    help="Least objectness of a proposed box.",
)
@_pictures.batch_option
def command(model: str, data: Path, out: Path, size: int, threshold: float, batch: int) -> None:
    """Give pictures that have only labels the boxes that a model finds for them.

    MODEL is a model file, the folder of a run, a checkpoint, or "x.cfg x.weights" in quotes. Each label gets
    the box of highest objectness x Pr(label); pictures with no box above the threshold keep their labels,
    pictures with boxes keep those. The file given by --data stays as it is.
    """
    from data_prep.errors import DataError
    from data_prep.writer import StoreWriter
    from yolo9000.batches import open_store
    from yolo9000.detector import Detector
    from yolo9000.propose import ProposeSettings, propose
    from yolo9000.start import load_any

    store = open_store(data)
    if out.resolve() == data.resolve():
        raise DataError(f"{out}: --out would replace the file that is read; give another name")
    detector = Detector(load_any(model))
    about = {"proposed": {"model": Path(model).name, "data": data.name, "threshold": threshold, "size": size}}
    had = got = 0
    with StoreWriter(out, store.tree, about) as writer:
        settings = ProposeSettings(size, threshold, batch)
        for sample in propose(detector, store, settings, progress=True):
            before = store.annotation(len(writer))
            labelled = not before.boxed and len(before.image_labels) > 0
            had, got = had + labelled, got + (labelled and sample.boxed)
            writer.add(sample)
    click.echo(f"{out}: boxes for {got:,} of {had:,} pictures that had only labels; {len(store):,} in all")
