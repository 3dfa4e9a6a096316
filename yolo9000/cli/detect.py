"""`yolo9000 detect`: arguments in, table, pictures and JSON out. Detecting is yolo9000.detector."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yolo9000.cli import _pictures
from yolo9000.errors import ImageError

if TYPE_CHECKING:
    from yolo9000.detections import Detections

# Written out here as well as in options.py and suppression.py, so that --help need not import torch; tests
# hold them equal.
SCORES = ("objectness", "absolute", "conditional")
NMS = ("related", "class", "agnostic", "none")

# What the folder of --out gets beside the pictures.
JSON_NAME = "detections.json"


@click.command(
    epilog="Examples: yolo9000 detect photo.jpg --out found/  |  "
    "yolo9000 detect holiday/ 'more/*.png' --json  |  "
    "yolo9000 detect dog.jpg --cfg yolo9000.cfg --weights yolo9000.weights --data-root darknet/"
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@_pictures.model_options
@click.option(
    "--out", type=click.Path(path_type=Path), help=f"Folder for pictures with boxes, and {JSON_NAME}."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--threshold", type=_pictures.SHARE, help="Least objectness of a box.  [default: the model's, else 0.2]"
)
@_pictures.rule_options
@click.option("--score", type=click.Choice(SCORES), help="What boxes are ordered by.  [default: absolute]")
@click.option("--nms", type=click.Choice(NMS), help="Which boxes suppress each other.  [default: related]")
@click.option("--nms-iou", type=_pictures.SHARE, help="Overlap above which they do.  [default: 0.4]")
@click.option(
    "--mapped",
    is_flag=True,
    default=None,
    help="Answer with the classes of the network's map only, as Darknet with a map.",
)
@click.option(
    "--max", "max_detections", type=click.IntRange(1), help="Boxes a picture at most.  [default: 300]"
)
@click.option(
    "--size", type=_pictures.Size(), help="Input of the network, 416 or 608x416.  [default: the model's]"
)
@click.option(
    "--precision",
    type=click.Choice(("auto", "float32", "bfloat16")),
    help="auto: bfloat16 where the processor has it.  [default: auto; float32 for Darknet's files]",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
def command(
    pictures: tuple[Path, ...],
    model: Path | None,
    cfg: Path | None,
    weights: Path | None,
    data_root: Path | None,
    names: str | None,
    out: Path | None,
    as_json: bool,
    size: tuple[int, int] | None,
    precision: str | None,
    device: str,
    **options: Any,
) -> None:
    """Find objects on photographs and name them as exactly as the model is sure of.

    PICTURES are files, folders (searched to the bottom) and patterns such as 'holiday/*.jpg'. Each line of
    the table is one object: name, score, objectness, box in pixels (left, top, right, bottom), and the path
    of names from the root of the tree.

    A picture that cannot be read is reported and passed over; the exit status is then 1.
    """
    _pictures.check_model_options(model, cfg, weights, data_root)
    skipped = _pictures.Skipped()
    files = skipped.files(pictures, go_on=as_json)
    if out is not None:
        _make_folder(out)

    from yolo9000.detector import Detector

    net = _pictures.load_network(model, cfg, weights, data_root)
    darknet = (
        {"precision": precision or "float32", "resize": "darknet"}
        if cfg
        else {"precision": precision or "auto"}
    )
    try:
        detector = Detector(net, names=names, device=device, **darknet)
        chosen = detector.options(**options)  # impossible options are told before the first picture
        if size is not None:
            detector.size = detector.checked_size(size)
    except ValueError as error:
        raise _pictures.usage(error) from None

    records = []
    targets = _Targets(out, files) if out is not None else None
    for file, found in _pictures.each_result(files, lambda f: detector.find(f, chosen), skipped):
        record = found.to_dict()
        if targets is not None:
            record["picture"] = found.save(targets.name(file)).name
        records.append(record)
        if not as_json:
            _pictures.say(table(found))
    result = {"pictures": records, "skipped": skipped.reasons}
    if out is not None:
        _pictures.write_text(out / JSON_NAME, _pictures.to_json(result) + "\n")
        if not as_json:
            _pictures.say(f"{len(records)} picture{'s' * (len(records) != 1)} in {_pictures.printable(out)}")
    if as_json:
        click.echo(_pictures.to_json(result))
    skipped.finish()


def table(found: "Detections") -> str:
    """One picture's results as text: a heading, then a line an object."""
    width, height = found.image_size
    count = f"{len(found)} object{'s' * (len(found) != 1)}"
    lines = [f"{_pictures.printable(found.source or 'picture')}  {width} x {height}  {count}"]
    if len(found):
        widest = max(len(one.name) for one in found)
        lines.append(f"  {'name':<{widest}}  score  objectness  {'box':<23}  path")
        for one in found:
            box = " ".join(f"{round(value):5d}" for value in one.box_xyxy)
            path = " > ".join(one.path_names)
            lines.append(
                f"  {one.name:<{widest}}  {one.score:5.2f}  {one.objectness:10.2f}  {box:<23}  {path}"
            )
    return "\n".join(lines)


class _Targets:
    """Names for annotated pictures in one folder: the original's own, numbered where two are alike, never
    that of an original."""

    def __init__(self, folder: Path, originals: list[Path]) -> None:
        self.folder = folder
        where = folder.resolve()
        # Lower case: some file systems do not tell A.jpg from a.jpg.
        resolved = (file.resolve() for file in originals)
        self.taken = {file.name.lower() for file in resolved if file.parent == where} | {JSON_NAME}

    def name(self, file: Path) -> Path:
        suffix = ".png" if file.suffix.lower() == ".png" else ".jpg"
        # Short in bytes, of which a name may have 255, and without what a terminal or a shell misreads.
        stem = _pictures.printable(file.stem).encode()[:150].decode(errors="ignore")
        number, name = 1, f"{stem}{suffix}"
        while name.lower() in self.taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self.taken.add(name.lower())
        return self.folder / name


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{folder}: the folder for results cannot be made ({error.strerror or error})"
        ) from error
