"""What the commands of all three programs have in common."""

from itertools import chain

import click
import pytest
from click.testing import CliRunner

import data_prep.cli
import wordtree.cli
import yolo9000.cli


@pytest.mark.parametrize("program", [data_prep.cli.cli, wordtree.cli.cli, yolo9000.cli.cli])
def test_no_option_that_takes_one_value_is_read_in_vain(program):
    """Of two values click alone keeps the last and says nothing."""
    for name in program.list_commands(click.Context(program)):
        params = program.get_command(click.Context(program), name).params
        needed = [abs(param.nargs) * ["1"] for param in params if isinstance(param, click.Argument)]
        options = [param for param in params if isinstance(param, click.Option)]
        for option in options:
            if option.is_flag or option.multiple:
                continue
            value = option.type.choices[0] if isinstance(option.type, click.Choice) else "1"
            others = [(other.opts[0], "1") for other in options if other.required and other is not option]
            words = [name, *chain(*needed, *others), option.opts[0], value, option.opts[-1], value]
            result = CliRunner().invoke(program, words)
            said = f"{' or '.join(option.opts)} is given more than once"
            assert (result.exit_code, said in result.output) == (2, True), (words, result.output)
