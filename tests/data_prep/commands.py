"""The `data-prep` command as tests call it."""

from pathlib import Path

from click.testing import CliRunner, Result

from data_prep import DataError
from data_prep.cli import cli
from wordtree import TreeError


def run(*arguments: object) -> Result:
    """What a command prints and raises; only our own errors are part of its result."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=True)
    error = result.exception
    if error is not None and not isinstance(error, SystemExit | DataError | TreeError):
        raise error
    return result


def boxed(data: Path, tree_file: Path) -> list:
    """The arguments for the three boxed pictures of the fixture `data`."""
    return ["--coco", data / "boxes.json", "--images", data / "boxed", "--tree", tree_file]
