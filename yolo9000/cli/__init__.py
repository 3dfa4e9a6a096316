"""The `yolo9000` command. Each sub-command lives in its own module and is imported only when asked for, so
`--help` answers at once."""

import importlib
import os
import sys

import click

import yolo9000
from yolo9000.errors import ImageError, ModelError, TrainingError

# Sub-command -> the line `--help` shows for it. The module yolo9000.cli.<name> holds a click command called
# `command`.
_COMMANDS = {
    "detect": "Find objects on photographs; print names and paths, write pictures and JSON.",
    "classify": "Name whole photographs with a classifier.",
    "train": "Train on packed data: boxes, labels, or both.",
    "eval": "Score a model: AP50 and AP by pycocotools.",
    "info": "Say what a model file or a training run is.",
    "convert": "Turn Darknet's files into a model file and back.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return importlib.import_module(f"yolo9000.cli.{name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, epilog="Example: yolo9000 detect photo.jpg --out found/")
@click.version_option(yolo9000.__version__)
def cli() -> None:
    """Detect thousands of categories that hang together in a tree."""


def main() -> None:
    """Entry point: an error of our own is one line on stderr and exit status 1; Ctrl-C is exit status 130."""
    # Names in errors come from three packages; the sub-command that raised has imported the ones it uses.
    try:
        # Outside its standalone mode click returns the status of click.exceptions.Exit instead of leaving.
        status = cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # who reads the results has gone, as in `| head`: nothing left to say or flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ModelError, ImageError, TrainingError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("wordtree", "data_prep"):
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        raise
    sys.exit(status if isinstance(status, int) else 0)
