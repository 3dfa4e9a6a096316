"""The `data-prep` command. Each sub-command lives in its own module, imported only when asked for."""

import click

from data_prep.errors import DataError
from wordtree.console import LazyGroup, run
from wordtree.errors import TreeError

# Sub-command -> the line `--help` shows for it; module data_prep.cli.<name> holds a click command `command`.
_COMMANDS = {
    "pack": "Data sets of all kinds into one file for training.",
    "check": "Decode every picture, judge every box, report by kind of fault; changes nothing.",
    "anchors": "Cluster the box sizes of packed files into anchors.",
    "predictions": "What a detector found, to COCO's JSON, or to FiftyOne or Label Studio to be corrected.",
    "stats": "Count what is in packed files: sources, levels of the tree, box sizes.",
}


@click.group(
    cls=LazyGroup,
    package="data_prep.cli",
    lines=_COMMANDS,
    epilog="Example: data-prep pack --coco instances.json --images images/ --map coco coco.h5",
)
@click.version_option(package_name="yolo9000")
def cli() -> None:
    """Other people's data sets into checked samples in one file."""


def main() -> None:
    """Entry point of the console command."""
    # OSError: what a file system refuses somewhere unforeseen, such as results on a full disk.
    run(cli, DataError, TreeError, OSError)
