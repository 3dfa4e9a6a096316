"""`data-prep anchors`."""

import json
import sys

import click
import numpy as np
from tqdm import tqdm

from wordtree.console import Command


@click.command(cls=Command, epilog="Example: data-prep anchors voc.h5 --k 5 --size 416 --stride 32")
@click.argument("packed", nargs=-1, required=True, metavar="PACKED.h5...")
@click.option(
    "--k", type=click.IntRange(1, 64), default=5, show_default=True, help="How many anchors to print."
)
@click.option("--most", type=click.IntRange(1, 64), default=15, show_default=True, help="Try k = 1 .. this.")
@click.option(
    "--size",
    type=click.IntRange(0, 100_000),
    default=416,
    show_default=True,
    help="Side of the square that pictures are fitted into, in pixels; 0: pixels of the pictures themselves.",
)
@click.option(
    "--stride",
    type=click.IntRange(1, 100_000),
    default=32,
    show_default=True,
    help="Pixels a cell, for --unit cells.",
)
@click.option(
    "--unit",
    type=click.Choice(["cells", "pixels"]),
    default="cells",
    show_default=True,
    help="Of the anchors: Darknet's cfg files want cells.",
)
@click.option("--source", multiple=True, help="Only boxes of this source; may be repeated.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the starting points drawn."
)
@click.option(
    "--plot", type=click.Path(dir_okay=False), help="Draw the average IoU for each k into this .png file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(packed, k, most, size, stride, unit, source, seed, plot, as_json) -> None:
    """Cluster box sizes into anchors: k-means with the distance 1 - IoU about a common centre.

    Crowd boxes do not count. Prints the average IoU with the best anchor for each k, and the k anchors asked
    for, smallest first, as width,height pairs. Shards may be given as a pattern such as 'train-*.h5'.
    """
    from data_prep.anchors import Anchors, kmeans
    from data_prep.errors import DataError
    from data_prep.outputs import check_output
    from data_prep.shards import find_packed
    from data_prep.statistics import box_sizes
    from data_prep.store import Store

    if plot:
        check_output(plot, "chart")  # now, not after the clustering
    sizes = np.concatenate([box_sizes(Store(path), size, source) for path in find_packed(packed)])
    if not len(sizes):
        raise DataError(f"no boxes in {', '.join(packed)}" + (f" from {', '.join(source)}" if source else ""))
    if unit == "cells":
        sizes = sizes / stride
    curve: list[Anchors] = []
    for n in tqdm(range(1, max(most, k) + 1), desc="k-means", disable=not sys.stderr.isatty()):
        curve.append(kmeans(sizes, n, seed=seed, warm=curve[-1] if curve else None))
    chosen = curve[k - 1]
    if len(chosen.sizes) < k:
        click.echo(
            f"the boxes have {len(chosen.sizes)} distinct sizes, so there are no {k} anchors", err=True
        )
    if plot:
        from data_prep.plots import line, save

        ious = [found.average_iou for found in curve]
        save(
            line(
                "average IoU with the best of k anchors", [str(n + 1) for n in range(len(ious))], ious, k - 1
            ),
            plot,
        )
    if as_json:
        content = {
            "boxes": len(sizes),
            "unit": unit,
            "size": size,
            "stride": stride,
            "anchors": chosen.sizes.tolist(),
            "average_iou": {n: found.average_iou for n, found in enumerate(curve, 1)},
        }
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(f"{len(sizes):,} boxes, in {unit}" + (f" of {stride} pixels" if unit == "cells" else ""))
    for n, found in enumerate(curve, 1):
        click.echo(f"k {n:2}  average IoU {found.average_iou:.4f}{'  <' if n == k else ''}")
    click.echo("anchors " + " ".join(f"{w:.5f},{h:.5f}" for w, h in chosen.sizes))
    # As a configuration of `yolo9000 train` has them.
    click.echo("anchors = [" + ", ".join(f"[{w:.5f}, {h:.5f}]" for w, h in chosen.sizes) + "]")
