"""`yolo9000 detect`: arguments in, table, pictures and JSON out. Detecting is yolo9000.detector."""

import re
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yolo9000.cli import _bulk, _habits, _pictures
from yolo9000.cli._answers import Answers, json_file, table
from yolo9000.cli._targets import FILMS, Single, Targets, make_folder, single
from yolo9000.errors import ImageError
from yolo9000.folders import JSON_NAME, note_result
from yolo9000.signals import sigterm_as_ctrl_c

if TYPE_CHECKING:
    from yolo9000.detections import Detections
    from yolo9000.detector import Detector
    from yolo9000.keep import Keep
    from yolo9000.options import Options

# Addresses of streams that OpenCV's decoder follows. A path has lost one of its two strokes.
_STREAM = re.compile(r"(rtsps?|rtmps?|srt|udp|tcp|https?)://?[^/]", re.IGNORECASE)


@click.command(
    cls=_habits.Command,
    epilog="Examples: yolo9000 detect photo.jpg --out found/  |  "
    "yolo9000 detect holiday/ 'more/*.png' --json  |  yolo9000 detect film.mp4 --out film_out.mp4  |  "
    "yolo9000 detect --source 0  |  "
    "yolo9000 detect --engine ray --input photos/ --output found.parquet  |  "
    "yolo9000 detect dog.jpg --cfg yolo9000.cfg --weights yolo9000.weights --data-root darknet/",
)
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="The same as an argument, repeatable; or the number of a camera (0 is the first), or a stream: "
    "rtsp://...",
)
@_pictures.model_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"Folder for pictures with boxes, and {JSON_NAME}; or the name of the one picture, or of a film.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--json-lines", "as_lines", is_flag=True, help="Print a line of JSON for each picture.")
@click.option("--frames", type=click.IntRange(1), help="Stop after so many frames of a film or camera.")
@click.option(
    "--threshold",
    "--conf",
    type=_pictures.SHARE,
    help="Least objectness of a box.  [default: the model's, else 0.2]",
)
@_pictures.rule_options
@_pictures.box_options
@click.option(
    "--below",
    type=_pictures.Nodes(),
    multiple=True,
    help="Keep only what is one of these nodes, listed as --vocabulary's, or lies below one; repeatable.",
)
@click.option("--least", type=_pictures.SHARE, help="Least score of what is kept.")
@click.option(
    "--mapped",
    is_flag=True,
    default=None,
    help="Answer with the classes of the network's map only, as Darknet with a map.",
)
@click.option(
    "--size",
    type=_pictures.Size(),
    help="Input of the network, 416 or WIDTHxHEIGHT: 608x416.  [default: the model's]",
)
@click.option("--imgsz", type=_pictures.Size(square=True), help="The same, of a square.")
@_pictures.rect_option
@click.option(
    "--precision",
    type=click.Choice(("auto", "float32", "bfloat16")),
    help="auto: bfloat16 where the processor has it.  [default: auto; float32 for Darknet's files]",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@_bulk.options
@sigterm_as_ctrl_c()
def command(
    pictures: tuple[Path, ...],
    sources: tuple[str, ...],
    model: Path | None,
    cfg: Path | None,
    weights: Path | None,
    data_root: Path | None,
    names: str | None,
    out: Path | None,
    below: tuple[str | tuple[str, ...], ...],
    least: float | None,
    as_json: bool,
    as_lines: bool,
    frames: int | None,
    size: tuple[int, int] | None,
    imgsz: tuple[int, int] | None,
    rect: bool,
    precision: str | None,
    device: str,
    engine: str | None,
    input_: Path | None,
    output: Path | None,
    workers: int | None,
    part_size: int | None,
    **options: Any,
) -> None:
    """Find objects on photographs and name them as exactly as the model is sure of.

    PICTURES are files, folders (searched to the bottom) and patterns such as 'holiday/*.jpg'; or one film,
    of which every frame is looked at. Each line of the table is one object: name, score, objectness, box in
    pixels (left, top, right, bottom), and the path of names from the root of the tree.

    A picture that cannot be read is reported and passed over; the exit status is then 1. A camera's newest
    frame is looked at whenever the last one is done, until Ctrl-C or SIGTERM; the others are dropped.

    With --engine a folder or Parquet of any size becomes a folder of Parquet parts, a row a picture; killed
    at any moment, the same command goes on where it was (docs/scale.md).
    """
    _pictures.check_model_options(model, cfg, weights, data_root)
    if as_json and as_lines:
        raise click.UsageError("either --json or --json-lines")
    if size is not None and imgsz is not None:
        raise click.UsageError("either --size or --imgsz")
    size = size or imgsz
    if any(said is not None for said in (engine, input_, output, workers, part_size)):
        words = {"model": model, "cfg": cfg, "weights": weights, "data_root": data_root, "names": names}
        words |= {"size": size, "rect": rect, "precision": precision, "device": device, **options}
        words |= {"below": below, "least": least}
        typed = {"pictures": pictures, "source": sources, "out": out, "as_lines": as_lines, "frames": frames}
        _bulk.detect(engine, input_, output, workers, part_size, words, as_json, typed)
        return
    form = "json" if as_json else "lines" if as_lines else "table"
    film = _film(pictures, sources)
    skipped = _pictures.Skipped()
    files: list[Path] = []
    if film is None:
        if frames is not None:
            raise click.UsageError("--frames goes with a film or a camera")
        pictures += tuple(map(Path, sources))
        if not pictures:
            raise click.UsageError("Missing argument 'PICTURES...': which pictures, film or camera?")
        files = skipped.files(pictures, as_json, out)
    target = out if film is not None and out is not None and out.suffix.lower() in FILMS else None
    one = out is not None and target is None and single(out, film is not None, len(files))
    folder = None if one or target is not None else out
    if folder is not None:
        make_folder(folder)
        if film is not None:
            target = folder / (f"{film.stem}.mp4" if isinstance(film, Path) else "camera.mp4")
    if target is not None and isinstance(film, Path) and target.resolve() == film.resolve():
        raise click.UsageError(
            f"{film}: the film with boxes would replace the film itself; name another --out"
        )
    if target is not None and folder is not None:
        target = Targets(folder, []).free(target.stem, target.suffix)

    with _pictures.quick_start():
        from yolo9000.detector import Detector
        from yolo9000.keep import Keep

        net = _pictures.load_network(model, cfg, weights, data_root)
        precision = precision or ("float32" if cfg else "auto")
        try:
            detector = Detector(net, names=names, device=device, rect=rect, precision=precision)
            chosen = detector.options(**options)  # impossible options are told before the first picture
            keep = Keep.of(detector.tree, below, least)
            keep.check(detector)
            if size is not None:
                detector.size = detector.checked_size(size)
        except ValueError as error:
            raise _pictures.usage(error) from None

    with json_file(None if folder is None else folder / JSON_NAME) as file, Answers(form, file) as answers:
        if film is not None:
            from yolo9000.cli import _films

            failed = _films.detect(detector, chosen, film, answers, target, frames, keep=keep)
            if failed is not None:
                skipped(str(failed))
                answers.skip(str(failed))
            if folder is not None and target is not None:
                note_result(target)
        else:
            targets = None if out is None else Single(out) if one else Targets(out, files)
            _photographs(detector, chosen, keep, files, answers, targets, skipped)
        answers.finish(skipped.reasons, **({} if target is None else {"film": target.name}))
    if film is None and out is not None and form == "table":
        count = answers.count
        _pictures.say(f"{count} picture{'s' * (count != 1)} in {_pictures.printable(out)}")
    skipped.finish()


def _photographs(
    detector: "Detector",
    options: "Options",
    keep: "Keep",
    files: list[Path],
    answers: Answers,
    targets: Targets | Single | None,
    skipped: _pictures.Skipped,
) -> None:
    """Detect on files; write them with their boxes where `targets` say, if they do."""
    from yolo9000.keep import kept_outcomes
    from yolo9000.pipeline import Behind

    def finished(found: "Detections", target: Path | None) -> tuple[dict[str, Any], str] | ImageError:
        record = found.to_dict()
        if targets is not None and target is not None:
            try:
                drawn = found.draw()
            except ImageError as error:  # it is read anew, and may be gone or another by now
                return error
            record["picture"] = targets.write(drawn, target)
        return record, table(found) if answers.form == "table" else ""

    def take(done: Iterable[tuple[dict[str, Any], str] | ImageError]) -> None:
        for one in done:
            if isinstance(one, ImageError):
                skip(str(one))
            else:
                answers.add(*one)

    def skip(reason: str) -> None:
        skipped(reason)
        answers.skip(reason)

    for reason in skipped.reasons:
        answers.skip(reason)
    with closing(kept_outcomes(detector, files, options, keep)) as found, Behind() as behind:
        for outcome in _pictures.progress(found, len(files)):
            if outcome.error is not None:
                skip(str(outcome.error))
                continue
            target = None if targets is None else targets.name(outcome.picture, outcome.found.image_size)
            behind.put(finished, outcome.found, target)
            take(behind.due())
        take(behind.due(rest=True))


def _film(pictures: tuple[Path, ...], sources: tuple[str, ...]) -> Path | int | str | None:
    """The film, camera or stream that was asked for; None for pictures. Raises click.UsageError."""
    named = (*pictures, *map(Path, sources))
    for source in sources:
        if _STREAM.match(source):
            if len(named) > 1:
                raise click.UsageError("either pictures or a stream, and one at a time")
            return source
    for path in pictures:
        if _STREAM.match(str(path)) and not path.exists():
            raise click.UsageError("a stream goes with --source: --source rtsp://...")
    for source in sources:
        if source.isdecimal() and source.isascii() and not Path(source).exists():
            if len(named) > 1:
                raise click.UsageError("either pictures or a camera, and one at a time")
            return int(source)
    films = [path for path in named if path.suffix.lower() in FILMS and not path.is_dir()]
    if films and len(named) > 1:
        raise click.UsageError("one film at a time, and no pictures beside it")
    return films[0] if films else None
