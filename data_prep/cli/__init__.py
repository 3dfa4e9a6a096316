"""The `data-prep` command. Each sub-command lives in its own module, imported only when asked for, so
`--help` answers at once."""

import importlib
import sys

import click

from data_prep.errors import DataError
from wordtree.errors import TreeError

# Sub-command -> the line `--help` shows for it; module data_prep.cli.<name> holds a click command `command`.
_COMMANDS = {
    "pack": "Data sets of all kinds into one file for training.",
    "check": "Decode every picture, judge every box, report by kind of fault; changes nothing.",
    "anchors": "Cluster the box sizes of packed files into anchors.",
    "stats": "Count what is in packed files: sources, levels of the tree, box sizes.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return importlib.import_module(f"data_prep.cli.{name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    epilog="Example: data-prep pack --coco instances.json --images images/ --map coco coco.h5",
)
def cli() -> None:
    """Other people's data sets into checked samples in one file."""


def main() -> None:
    """Entry point: an error of our own is one message on stderr and exit status 1; Ctrl-C is status 130."""
    try:
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except (DataError, TreeError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
