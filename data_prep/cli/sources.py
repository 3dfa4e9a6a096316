"""Options shared by `pack` and `check`: a recipe, or one data set given on the command line."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from data_prep.errors import DataError
from data_prep.recipe import CORNERS, KINDS, Recipe, Source

_OPTIONS = [
    click.option("--coco", metavar="JSON", help="One data set: annotations in COCO's format; with --images."),
    click.option("--voc", metavar="FOLDER", help="One data set: VOC's XML files; with --images."),
    click.option("--cvat", metavar="XML", help="One data set: CVAT for images; with --images."),
    click.option(
        "--fiftyone",
        metavar="JSON",
        help="One data set: FiftyOne's samples.json or labels.json; with --images.",
    ),
    click.option(
        "--labelstudio", metavar="JSON", help="One data set: an export of Label Studio; with --images."
    ),
    click.option("--openimages", metavar="CSV", help="One data set: Open Images' boxes; with --images."),
    click.option("--yolo", metavar="FOLDER", help="One data set: YOLO's label files; with --images."),
    click.option("--darknet", metavar="LIST", help="One data set: Darknet's list of files; with --images."),
    click.option(
        "--folders",
        metavar="PATH",
        help="One data set: <class>/<file> in a folder, a tar, or <class>.tar files.",
    ),
    click.option("--unlabelled", metavar="PATH", help="One data set: pictures without labels."),
    click.option(
        "--images", metavar="PATH", help="Pictures of annotations: a folder, a tar, or a folder of tars."
    ),
    click.option(
        "--class-names",
        metavar="FILE",
        help="Of --yolo and --darknet (.names, .data, .yaml) and --openimages.",
    ),
    click.option("--image-labels", metavar="CSV", help="Of --openimages: labels of pictures."),
    click.option(
        "--labels", metavar="FOLDER", help="Of --darknet: label files.  [default: beside the pictures]"
    ),
    click.option(
        "--corners",
        type=click.Choice(CORNERS),
        default="edges",
        help="Of --voc: edges as they stand, or pixels from 1, the last included.  [default: edges]",
    ),
    click.option("--field", metavar="NAME", help="Of --fiftyone and --labelstudio: where the truth is."),
    click.option("--source", metavar="NAME", help="What samples are said to come from.  [default: the kind]"),
    click.option(
        "--map",
        "map_",
        metavar="MAP",
        help="coco, voc, det, ilsvrc, caltech101, names, or a file class,wnid.",
    ),
    click.option(
        "--classes", metavar="LIST", help="Of --folders, take only these classes (FILE or FILE.json:KEY)."
    ),
    click.option("--only", metavar="LIST", help="Take only pictures of these names."),
    click.option("--except", "leave_out", metavar="LIST", help="Leave out pictures of these names."),
    click.option(
        "--holdout-every", type=int, default=0, metavar="N", help="Keep every N-th picture by name out."
    ),
    click.option("--holdout-first", type=int, default=0, metavar="I", help="The first kept out, from 0."),
    click.option(
        "--holdout-part",
        type=click.Choice(["rest", "kept"]),
        default="rest",
        help="Take the rest, or those kept out.  [default: rest]",
    ),
    click.option("--drop-unmapped", is_flag=True, help="Go on without classes that no node is known for."),
    click.option(
        "--tree",
        metavar="FILE",
        help="A tree: .json(.gz), .csv, .tsv, .graphml, .tree or a folder of folders.  [default: the one "
        "built in]",
    ),
    click.option("--flat", is_flag=True, help="No hierarchy: the data's own classes, side by side."),
    click.option("--names", metavar="FILE", help="With --flat: the classes in order, one a line."),
    click.option("--root", metavar="FOLDER", help="Paths of the recipe are relative to this."),
    click.option(
        "--jobs", type=click.IntRange(1, 256), default=None, help="Threads.  [default: one per processor]"
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
]


# Options that do not describe a single data set; those of `pack` itself among them.
_ANY_SOURCE = (
    *("tree", "flat", "names", "root", "jobs", "as_json"),
    *("quick", "skip_bad", "report", "html", "shards"),
)


def source_options(command: Callable) -> Callable:
    """Add the shared options to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def say_wider(wider: dict[str, dict[str, int]]) -> None:
    """A line on stderr for each source with pictures labelled by a folder above their own."""
    for source, found in wider.items():
        if found:
            example, count = next(iter(found)), sum(found.values())
            click.echo(
                f"{source}: pictures labelled by a folder above their own, which no class is called: "
                f"{count:,}, such as {example}",
                err=True,
            )


def refuse_options(why: str, *allowed: str) -> None:
    """UsageError if an option that describes data was typed, other than those allowed."""
    context = click.get_current_context()
    typed = [
        option.opts[0]
        for option in context.command.params
        if isinstance(option, click.Option)
        and option.name not in allowed
        and context.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if typed:
        raise click.UsageError(f"{why}, not {', '.join(typed)}")


def recipe_from(recipe: str | None, options: dict) -> Recipe:
    """The recipe file, or one made of the options that describe a single data set."""
    chosen = [kind for kind in KINDS if options[kind]]
    tree = "flat" if options["flat"] else options["tree"]
    if options["flat"] and options["tree"]:
        raise click.UsageError("--flat and --tree exclude each other")
    if recipe is not None:
        refuse_options("with a recipe, what concerns one data set stands in the recipe", *_ANY_SOURCE)
        return _with_tree(Recipe.load(recipe, options["root"]), tree, options["names"])
    if len(chosen) != 1:
        raise click.UsageError("give a recipe, or one of " + ", ".join(f"--{kind}" for kind in KINDS))
    kind = chosen[0]
    annotated = kind not in ("folders", "unlabelled")
    if kind == "yolo" and options[kind].lower().endswith((".yaml", ".yml")):
        raise click.UsageError(
            "--yolo is the folder of the label files, and --images that of the pictures, such as "
            f"--yolo labels/train --images images/train --class-names {options[kind]}"
        )
    if annotated != bool(options["images"]):
        raise click.UsageError(f"--{kind} {'needs' if annotated else 'takes no'} --images")
    source = Source(
        name=options["source"] or kind,
        kind=kind,
        images=options["images"] or options[kind],
        annotations=options[kind] if annotated else None,
        map=options["map_"],
        classes=options["classes"],
        only=options["only"],
        leave_out=options["leave_out"],
        holdout_every=options["holdout_every"],
        holdout_first=options["holdout_first"],
        holdout_part=options["holdout_part"],
        drop_unmapped=options["drop_unmapped"],
        class_names=options["class_names"],
        image_labels=options["image_labels"],
        labels=options["labels"],
        corners=options["corners"],
        field=options["field"],
    )
    return Recipe((source,), tree or "default", options["names"], Path(options["root"] or "."))


def _with_tree(recipe: Recipe, tree: str | None, names: str | None) -> Recipe:
    if tree is None and names is None:
        return recipe
    # What is typed on the command line is relative to where it is typed, not to the recipe.
    if tree not in (None, "flat"):
        tree = str(Path(tree).absolute())
    try:
        return Recipe(
            recipe.sources,
            tree or recipe.tree,
            str(Path(names).absolute()) if names else (recipe.names if tree is None else None),
            recipe.root,
        )
    except DataError as error:
        raise click.UsageError(str(error)) from error
