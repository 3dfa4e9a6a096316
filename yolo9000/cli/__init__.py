"""The `yolo9000` command. Each sub-command lives in its own module, imported only when asked for."""

import click

import yolo9000
from data_prep.errors import DataError
from wordtree.console import LazyGroup, run
from wordtree.errors import TreeError
from yolo9000.errors import ImageError, ModelError, TrainingError

# Sub-command -> the line `--help` shows for it; module yolo9000.cli.<name> holds a click command `command`.
_COMMANDS = {
    "detect": "Find objects on photographs; print names and paths, write pictures and JSON.",
    "classify": "Name whole photographs with a classifier.",
    "train": "Train on packed data: boxes, labels, or both.",
    "eval": "Score a model: AP50 and AP by pycocotools.",
    "edit": "Carry a model to an edited tree: classes go, classes come, rows stay.",
    "calibrate": "Teach a model how certain it is, so that answers are as often right as asked for.",
    "average": "One model of several that began as the same one: the mean of their weights.",
    "propose": "Give pictures that have only labels the boxes that a model finds for them.",
    "info": "Say what a model file or a training run is.",
    "serve": "A page to try a model on, and a JSON API.",
    "export": "Write a detector as a file for other runtimes: torch.export, ONNX, OpenVINO.",
    "convert": "Turn Darknet's files into a model file and back.",
}

# What other packages call them.
_ELSEWHERE = {"predict": "detect", "val": "eval", "test": "eval"}


@click.group(
    cls=LazyGroup,
    package="yolo9000.cli",
    lines=_COMMANDS,
    elsewhere=_ELSEWHERE,
    epilog="Example: yolo9000 detect photo.jpg --out found/",
)
@click.version_option(yolo9000.__version__)
def cli() -> None:
    """Detect thousands of categories that hang together in a tree."""


def main() -> None:
    """Entry point of the console command."""
    # OSError: what a file system refuses somewhere unforeseen; it names the file.
    run(cli, ModelError, ImageError, TrainingError, TreeError, DataError, OSError)
