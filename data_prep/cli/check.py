"""`data-prep check`."""

import json
import sys
from pathlib import Path

import click

from data_prep.cli.sources import processors, recipe_from, refuse_options, say_wider, source_options
from data_prep.shards import find_packed
from wordtree.console import Command

_SHOWN = 5  # examples of each kind of fault; --json has them all


@click.command(
    cls=Command,
    once="several data sets go into a recipe",
    epilog="""Examples:\n
    data-prep check --coco instances.json --images images/ --map coco\n
    data-prep check recipe.toml --json > faults.json\n
    data-prep check recipe.toml --html faults.html\n
    data-prep check packed.h5\n
    data-prep check 'shards-*.h5'""",
)
@click.argument("paths", nargs=-1, metavar="[RECIPE|PACKED.h5...]")
@source_options
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with thumbnails of examples of each fault here.",
)
def command(paths: tuple[str, ...], html: Path | None, **options) -> None:
    """Look at data sets, or at packed files, and report by kind of fault. Only reads.

    Every picture is decoded to its last pixel, every box judged, every class looked up in the tree. Exit
    status 1 if anything is wrong that costs a picture, box or label. Of packed files every checksum is
    compared, to the last file though some are damaged; shards may be given as a pattern, and --json has a
    line for each file.
    """
    files = find_packed(paths)
    if files and all(path.suffix in (".h5", ".hdf5") for path in files):
        refuse_options("a packed file is whole or not: only --json goes with it", "as_json")
        whole = [_check_store(path, options["as_json"]) for path in files]
        if not all(whole):
            sys.exit(1)
        return
    if len(paths) > 1:
        raise click.UsageError("wanted one recipe, or packed files (.h5)")
    recipe = recipe_from(paths[0] if paths else None, options)

    from data_prep.checking import check
    from data_prep.outputs import check_output
    from data_prep.record import HARMLESS, KINDS
    from wordtree.files import write_whole

    if html:
        check_output(html, "page")  # now, not after hours
    report = check(recipe, jobs=options["jobs"] or processors(), progress=sys.stderr.isatty())
    say_wider(report.wider)
    if html:
        from data_prep.page import make_page

        write_whole(html, make_page(report, recipe).encode())
    if options["as_json"]:
        click.echo(json.dumps(report.to_dict(), indent=1))
    else:
        for name, count in report.pictures.items():
            crowd = f", {report.crowd[name]:,} crowd" if report.crowd[name] else ""
            click.echo(f"{name}: {count:,} pictures, {report.boxes[name]:,} boxes{crowd}")
        for kind, count in report.by_kind.items():
            click.echo(f"\n{kind}: {count:,} ({KINDS[kind]})")
            examples = [(source, fault) for source, fault in report.faults if fault.kind == kind]
            for source, fault in examples[:_SHOWN]:
                click.echo(f"  {source}: {fault.picture + ': ' if fault.picture else ''}{fault.detail}")
            if count > _SHOWN:
                click.echo(f"  ... and {count - _SHOWN:,} more")
        harmless = sum(count for kind, count in report.by_kind.items() if kind in HARMLESS)
        click.echo(f"\n{report.harmful:,} faults that cost a picture, box or label; {harmless:,} that do not")
    if report.harmful:
        sys.exit(1)


def _check_store(path: Path, as_json: bool) -> bool:
    """Whether the packed file is whole, which is printed."""
    from data_prep.errors import DataError
    from data_prep.store import Store

    try:
        store = Store(path)
        len(store.tree)  # rebuilt and held against its fingerprint
        store.verify(progress=sys.stderr.isatty())
    except DataError as error:
        if as_json:
            click.echo(json.dumps({"file": str(path), "whole": False, "error": str(error)}))
        else:
            click.echo(f"error: {error}", err=True)
        return False
    if as_json:
        click.echo(json.dumps({"file": str(path), "samples": len(store), "whole": True}))
    else:
        click.echo(f"{path}: {len(store):,} samples, every checksum fits")
    return True
