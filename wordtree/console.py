"""What the command lines of all packages share: commands that read no option in vain, sub-commands imported
when asked for, how a run ends, JSON.

Not here: any command. Imports nothing large but click, so that `--help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from wordtree.errors import TreeWarning

# For every command of a group.
HELP = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command that refuses an option given twice where one value is all it takes: click would keep the last
    and say nothing."""

    def __init__(self, *args, once: str | None = None, **settings) -> None:
        """`once`: what to do instead, for the message."""
        super().__init__(*args, **settings)
        self._once = once

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing:  # a shell asks what could be typed next
            return rest
        _, _, order = self.make_parser(ctx).parse_args(typed)
        for option, times in Counter(order).items():
            if times > 1 and isinstance(option, click.Option) and not (option.multiple or option.is_flag):
                said = f"{' or '.join(option.opts)} is given more than once, and takes one value"
                raise click.UsageError("; ".join(filter(None, (said, self._once))), ctx)
        return rest


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class LazyGroup(Group):
    """A group whose sub-command x is `command` of the module <package>.x, imported when asked for."""

    def __init__(
        self,
        *args,
        package: str,
        lines: dict[str, str],
        elsewhere: dict[str, str] | None = None,
        **settings,
    ) -> None:
        """`lines`: sub-command -> the line that `--help` shows for it; `elsewhere`: what other programs call
        one -> the sub-command."""
        settings.setdefault("context_settings", HELP)
        super().__init__(*args, **settings)
        self._package, self._lines, self._elsewhere = package, lines, elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lines)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._lines:
            return None
        return importlib.import_module(f"{self._package}.{name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        close = []
        if name not in self._lines:
            meant = self._elsewhere.get(name)
            close = [meant] if meant else difflib.get_close_matches(name, self._lines, 2)
        if close:  # click itself knows the names of imported commands only
            ctx.fail(f"No such command {name!r}. Did you mean {' or '.join(map(repr, close))}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))


def run(
    command: click.Command, *errors: type[Exception], usage: tuple[type[Exception], ...] = ()
) -> NoReturn:
    """Run a command and leave the program: an error of our own is one message on stderr, never a traceback.

    Args:
        command: what to run.
        errors: exceptions raised on purpose: exit status 1.
        usage: those of them that say what was typed means nothing: exit status 2, as click's own.

    Likewise a TreeWarning, without the line of the program that Python tells with a warning.
    Ctrl-C is status 130. What a system refuses where nobody foresaw it (a full disk behind `>`) is a message
    and status 1, too; anything else is a bug and keeps its traceback.
    """
    # A file name or class name may hold bytes that are no text: print them escaped rather than fail.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        with _warnings_as_lines():
            # Outside its standalone mode click returns the status of click.exceptions.Exit, does not leave.
            status = command(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # who reads the results has gone, as in `| head`: nothing is left to say or flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (*errors, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, usage) else 1)
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    show = warnings.showwarning

    def told(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, TreeWarning):
            click.echo(f"warning: {message}", err=True)
        else:
            show(message, category, *where)

    warnings.showwarning = told
    try:
        yield
    finally:
        warnings.showwarning = show


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON as text that stdout takes: letters of all languages as they are, or escaped where it is not UTF-8,
    or a name not Unicode. Raises ValueError for what is no number."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent, allow_nan=False)
    return text
