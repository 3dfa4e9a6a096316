"""`data-prep pack`."""

import json
import os
import sys
from pathlib import Path

import click

from data_prep.cli.sources import processors, recipe_from, say_wider, source_options
from data_prep.shards import MOST_SHARDS, shard_paths
from wordtree.console import Command

_SHOWN = 20  # faults printed one by one; --report has them all


@click.command(
    cls=Command,
    once="several data sets go into a recipe",
    epilog="""Examples:\n
    data-prep pack --coco instances.json --images images/ --map coco coco.h5\n
    data-prep pack --folders train/ labels.h5\n
    data-prep pack recipe.toml everything.h5\n
    data-prep pack recipe.toml everything.h5 --shards 8""",
)
@click.argument("paths", nargs=-1, metavar="[RECIPE] OUT.h5")
@source_options
@click.option(
    "--quick", is_flag=True, help="Look at the headers of pictures only; a truncated one goes unnoticed."
)
@click.option("--skip-bad", is_flag=True, help="Exit status 0 although pictures or boxes had to be left out.")
@click.option(
    "--shards",
    type=click.IntRange(1, MOST_SHARDS),
    help="Into so many files, OUT-00000-of-00008.h5 and so on, instead of one.",
)
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON here."
)
def command(
    paths: tuple[str, ...], quick: bool, skip_bad: bool, shards: int | None, report: Path | None, **options
) -> None:
    """Pack data sets into one file, or into shards: a recipe's, or the one that options describe.

    Pictures that cannot be decoded and boxes without area are left out, counted and reported; the file is
    made of the rest, and the exit status is 1 unless --skip-bad. A class that no node is known for stops the
    run at once.
    """
    if len(paths) not in (1, 2):
        raise click.UsageError("wanted [RECIPE] OUT.h5")
    recipe = recipe_from(paths[0] if len(paths) == 2 else None, options)

    from data_prep.outputs import check_output
    from data_prep.packing import pack
    from wordtree.files import write_whole

    packed = shard_paths(Path(paths[-1]), shards) if shards is not None else [Path(paths[-1])]
    if report:
        if os.path.realpath(report) in map(os.path.realpath, packed):
            raise click.UsageError(f"--report would replace what is packed: both are {report}")
        check_output(report, "report")  # now, not after hours of packing
    jobs = options["jobs"] or processors()
    result = pack(recipe, paths[-1], decode=not quick, jobs=jobs, progress=sys.stderr.isatty(), shards=shards)
    say_wider(result.wider)
    content = {"file": paths[-1], **result.to_dict()}
    if shards is not None:
        content["shards"] = list(map(str, packed))
    if report:
        write_whole(report, json.dumps(content, indent=1).encode() + b"\n")
    if options["as_json"]:
        click.echo(json.dumps(content, indent=1))
    else:
        _print(content, report)
    if result.faults and not skip_bad:
        sys.exit(1)


def _print(content: dict, report: Path | None) -> None:
    click.echo(f"{'source':24} {'pictures':>9} {'boxes':>9} {'labels':>9}")
    for name, counts in content["sources"].items():
        click.echo(f"{name:24} {counts['pictures']:9,} {counts['boxes']:9,} {counts['image_labels']:9,}")
    for name, counts in content["sources"].items():
        for why, count in counts["left_out_by_choice"].items():
            click.echo(f"{name}: {count:,} left out: {why}")
    faults = content["faults"]
    for fault in faults[:_SHOWN]:
        click.echo(
            f"{fault['source']}: {fault['picture'] or '-'}: {fault['kind']}: {fault['detail']}", err=True
        )
    if faults:
        more = f", {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        where = f"; all in {report}" if report else " (--report FILE has them all)" if more else ""
        click.echo(f"{len(faults):,} faults: what they concern was left out{more}{where}", err=True)
    shards = content.get("shards")
    click.echo(f"wrote {shards[0]} to {Path(shards[-1]).name}" if shards else f"wrote {content['file']}")
