"""`data-prep stats`."""

import json

import click

from wordtree.console import Command


@click.command(cls=Command, epilog="Example: data-prep stats packed.h5")
@click.argument("packed", nargs=-1, required=True, metavar="PACKED.h5...")
@click.option(
    "--depth",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="List the tree's nodes down to this depth, 0 = the roots.",
)
@click.option(
    "--top", type=click.IntRange(0), default=10, show_default=True, help="Most frequent nodes to list."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    help="Draw levels of the tree and box sizes into this .png file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the counts of all nodes.")
def command(packed: tuple[str, ...], depth: int, top: int, plot: str | None, as_json: bool) -> None:
    """Count what is in packed files: pictures, boxes and labels by source, nodes along the tree, box
    sizes. Shards may be given as a pattern such as 'train-*.h5'."""
    from data_prep.outputs import check_output
    from data_prep.shards import find_packed
    from data_prep.statistics import statistics
    from data_prep.store import Store

    if plot:
        check_output(plot, "chart")
    found = {str(path): statistics(Store(path)) for path in find_packed(packed)}
    if plot:
        from data_prep.plots import bars, below, save

        charts = []
        for path, counts in found.items():
            levels = counts["levels"]
            examples = [row["boxes"] + row["image_labels"] for row in levels.values()]
            charts.append(
                bars(f"{path}: boxes and labels by depth in the tree", list(map(str, levels)), examples)
            )
            sides = counts["box_sides"]
            charts.append(bars(f"{path}: box side, pixels", list(sides), list(sides.values())))
        save(below(charts), plot)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for path, counts in found.items():
        click.echo(f"{path}: {counts['pictures']:,} pictures, {counts['image_bytes']:,} bytes")
        head = f"{'pictures':>9} {'boxed':>9} {'boxes':>9} {'labels':>9} {'unlabelled':>10}"
        click.echo(f"\n{'source':24} {head}")
        for name, row in counts["sources"].items():
            counted = f"{row['pictures']:9,} {row['boxed']:9,} {row['boxes']:9,} {row['image_labels']:9,}"
            click.echo(f"{name:24} {counted} {row['unlabelled']:10,}")
        click.echo(f"\n{'depth':>5} {'boxes':>9} {'labels':>9} {'nodes':>7}")
        for level, row in counts["levels"].items():
            click.echo(f"{level:>5} {row['boxes']:9,} {row['image_labels']:9,} {row['nodes']:7,}")
        if any(counts["box_sides"].values()):
            click.echo("\nbox side (square root of its area) in pixels of the picture")
            for label, count in counts["box_sides"].items():
                click.echo(f"{label:>12} {count:9,}")
        click.echo("\nalong the tree, with all below")
        # A column of ids only where they say more than the names do.
        wide = max((len(node) for node, row in counts["nodes"].items() if node != row["name"]), default=0)
        for node, row in counts["nodes"].items():
            if row["depth"] <= depth:
                shown = f"{'  ' * row['depth']}{row['name']}"[:42]
                click.echo(
                    f"  {_code(node, wide)}{shown:42} {row['all_boxes']:9,} boxes "
                    f"{row['all_image_labels']:9,} labels"
                )
        own = [item for item in counts["nodes"].items() if item[1]["boxes"] + item[1]["image_labels"]]
        nodes = sorted(own, key=lambda item: -item[1]["boxes"] - item[1]["image_labels"])
        click.echo(f"\nnodes with examples: {len(nodes):,}; the most frequent:")
        for node, row in nodes[:top]:
            click.echo(
                f"  {_code(node, wide)}{row['name'][:30]:30} {row['boxes']:9,} boxes "
                f"{row['image_labels']:9,} labels"
            )
        click.echo()


def _code(node: str, wide: int) -> str:
    """A node's id in a column of that width, which ends in a blank; nothing where there is no column."""
    return f"{node:{wide}} " if wide else ""
