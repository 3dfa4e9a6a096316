"""Every link and anchor on a page leads somewhere, every command line parses, every flag and file exists."""

import importlib
import re
from functools import cache

import click
import pytest

from tests.docs import pages

PROGRAMS = {"yolo9000": "yolo9000.cli", "wordtree": "wordtree.cli", "data-prep": "data_prep.cli"}
PAGES = [pytest.param(pages.read(path), id=path.relative_to(pages.ROOT).as_posix()) for path in pages.PAGES]

# Flags of other people's programs, which pages show.
FOREIGN = {
    "--strict",
    "--extra-index-url",
    "--index-url",
    "--data-binary",
    "--nproc-per-node",
    "--max-restarts",
}


@cache
def group(program: str) -> click.Group:
    return importlib.import_module(PROGRAMS[program]).cli


@cache
def subcommand(program: str, name: str) -> click.Command | None:
    return group(program).get_command(click.Context(group(program)), name)


@cache
def all_flags() -> frozenset[str]:
    """Of every command, and those that scripts name."""
    flags = {"--help", "--version"}
    for program in PROGRAMS:
        for name in group(program).list_commands(click.Context(group(program))):
            for parameter in subcommand(program, name).params:
                flags.update(parameter.opts, parameter.secondary_opts)
    for script in (pages.ROOT / "scripts").iterdir():
        if script.is_file():
            flags.update(re.findall(r"--[a-z][a-z0-9-]*", script.read_text(encoding="utf-8")))
    return frozenset(flags)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_exist(page):
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name}: {link} leads nowhere"
        if anchor:
            hub, site = pages.anchors(pages.read(path))
            assert anchor in hub, f"{page.name}: no heading of {path.name} is called #{anchor} on GitHub"
            assert anchor in site, f"{page.name}: no heading of {path.name} is called #{anchor} on the site"


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_parse(page):
    for where, words in pages.commands(page):
        refuse(where, words)


def refuse(where: str, words: list[str]) -> None:
    """Fails unless click takes these words; nothing is run, no file need be there."""
    program, name, *rest = [word for word in words if word not in ("...", "\u2026")]
    if name.startswith("--"):
        assert name in ("--help", "--version"), f"{where}: {program} has no {name}"
        return
    if not re.fullmatch(r"[a-z-]+", name):
        return  # a placeholder, as in `yolo9000 COMMAND --help`
    command = subcommand(program, name)
    assert command is not None, f"{where}: {program} has no command {name}"
    above = group(program).make_context(program, [name])  # its settings are those of its commands, too
    context = click.Context(command, parent=above, info_name=name)
    if (
        "`" in where and rest and rest[-1].startswith("--")
    ):  # in a sentence an option may stand without its value
        flag = next((p for p in command.params if rest[-1] in p.opts), None)
        rest += ["X"] * (isinstance(flag, click.Option) and not flag.is_flag)
    try:
        given, _, _ = command.make_parser(context).parse_args(list(rest))
    except click.UsageError as error:
        pytest.fail(f"{where}: {' '.join(words)}: {error.format_message()}")
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) and parameter.name in given:
            values = given[parameter.name]
            for value in values if isinstance(values, list | tuple) else [values]:
                if isinstance(value, str) and not re.fullmatch(r"[A-Z_]+", value):
                    chosen = parameter.type.choices
                    assert value in chosen, f"{where}: {parameter.opts[0]} is one of {chosen}, not {value}"


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_prose_exist(page):
    for text in page.inline:
        if re.match(r"(pip|python|mkdocs|curl|pytest|schemathesis|torchrun|apt|git|docker)\b", text):
            continue
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text):
            assert flag in all_flags() | FOREIGN, (
                f"{page.name}: no command and no script has {flag} (`{text}`)"
            )


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_name_exist(page):
    texts = [*page.inline, *(block.text for block in page.blocks if block.language in ("sh", "indented"))]
    for text in texts:
        named = re.findall(
            r"(?<![\w/.-])((?:wordtree|data_prep|yolo9000|scripts|tests|docs)/[\w/.-]*\w)", text
        )
        for name in named:
            assert (pages.ROOT / name).exists(), f"{page.name}: there is no {name} (`{text[:60]}`)"


@pytest.mark.parametrize("page", PAGES)
def test_python_on_pages_compiles(page):
    for block in page.blocks:
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")


def test_the_table_of_commands_is_whole():
    """docs/reference/commands.md has every command and no other."""
    text = (pages.ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    found = set(re.findall(r"^\| `([a-z0-9-]+ [a-z]+)` \| .+ \|$", text, re.MULTILINE))
    wanted = set()
    for program in PROGRAMS:
        context = click.Context(group(program))
        for name in group(program).list_commands(context):
            wanted.add(f"{program} {name}")
    assert found == wanted


def test_the_table_of_named_configurations_is_whole():
    """docs/training.md has every configuration that comes with the package and no other."""
    from yolo9000.config import named_configs

    text = (pages.ROOT / "docs/training.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^### Named configurations\n(.+?)^#", text, re.MULTILINE | re.DOTALL)
    names = [name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in row.split(", ")]
    assert sorted(names) == sorted(f"`{name}`" for name in named_configs())


# The checks themselves


def test_a_page_is_read_as_its_parts(tmp_path):
    path = pages.ROOT / "docs" / "x.md"
    text = (
        "# A `b` title\n\nsee [there](y.md#z) and `--flag x`\n\n```sh\nyolo9000 detect a.jpg  # why\n"
        "wordtree path husky; data-prep stats x.h5 | head\n```\n\n    wordtree show\n    yolo9000 info \\\n"
        "        x\n\nend, `yolo9000 train`\n"
    )
    written = tmp_path / "x.md"
    written.write_text(text)
    page = pages.read(written)
    page = pages.Page(path, page.prose, page.blocks)
    assert page.links == ["y.md#z"] and page.headings == ["A b title"]
    assert pages.anchors(page) == ({"a-b-title"}, {"a-b-title"})
    assert [words for _, words in pages.commands(page)] == [
        ["yolo9000", "detect", "a.jpg"],
        ["wordtree", "path", "husky"],
        ["data-prep", "stats", "x.h5"],
        ["wordtree", "show"],
        ["yolo9000", "info", "x"],
        ["yolo9000", "train"],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "yolo9000 detect a.jpg --no-such-flag",
        "yolo9000 nosuch a.jpg",
        "yolo9000 detect a.jpg --rule nosuch",
        "yolo9000 detect a.jpg --out",
        "wordtree --nosuch",
    ],
)
def test_wrong_lines_are_found(line):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        refuse("here", line.split())


def test_right_lines_are_not():
    for line in ("yolo9000 detect a.jpg --rule RULE", "wordtree --help", "yolo9000 detect a.jpg --rule leaf"):
        refuse("here", line.split())
