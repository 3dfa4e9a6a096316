"""What `detect` and `classify` have in common: options that name a model, going through pictures with the bad
ones reported, results as text and JSON."""

import gc
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wordtree.files import written_whole
from wordtree.words import typed_names
from yolo9000.errors import ImageError

if TYPE_CHECKING:
    from yolo9000.network import Network

FILE = click.Path(path_type=Path)

SHARE = click.FloatRange(0, 1)

# Of commands that go through packed data.
COUNT = click.IntRange(1)
ANY_COUNT = click.IntRange(0)
size_option = click.option(
    "--size",
    type=ANY_COUNT,
    default=0,
    help="Side of the square input in pixels; default: the model's own.",
)
rect_option = click.option(
    "--rect", is_flag=True, help="Compute on no more of the input than each picture needs: less grey."
)
batch_option = click.option("--batch", type=COUNT, default=32, show_default=True, help="Pictures at a time.")
workers_option = click.option(
    "--workers",
    type=ANY_COUNT,
    default=1,
    show_default=True,
    help="Processes that load pictures; 0 = none but this.",
)
limit_option = click.option(
    "--limit", type=ANY_COUNT, default=0, help="The first so many pictures only; 0 = all."
)


def _own(*names: str, kind: click.ParamType, text: str, default: str) -> Any:
    """An option that a model may have a default for."""
    return click.option(*names, type=kind, help=f"{text}.  [default: the model's, else {default}]")


vote_option = _own(
    "--vote-iou",
    kind=SHARE,
    text="Overlap from which boxes vote on place and objectness; 1 = none",
    default="1",
)

# Written out here as well as in decision.py, options.py and suppression.py, so that --help need not import
# torch; tests hold them equal.
RULES = ("threshold", "darknet", "leaf", "greedy", "level", "vocabulary", "hedge")
SCORES = ("objectness", "absolute", "conditional")
NMS = ("related", "class", "agnostic", "none")

# Seconds before a progress bar appears.
_PATIENCE = 2.0


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--model, --cfg, --weights, --data-root, --names."""
    options = (
        click.option("--model", type=FILE, help="Model file (.safetensors), or the folder of a run."),
        click.option("--cfg", type=FILE, help="Darknet's description of a network; needs --weights."),
        click.option("--weights", type=FILE, help="Darknet's weights."),
        click.option("--data-root", type=FILE, help="Folder that tree= and map= in the cfg start from."),
        click.option(
            "--names",
            "--labels",
            metavar="FILE",
            help="Class names, one a line, a .data file or a data.yaml; or voc, coco, det, ilsvrc.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def box_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which boxes are kept: --score, --nms, --nms-iou, --vote-iou, --max."""
    one, most = click.Choice, click.IntRange(1)
    options = (
        _own("--score", kind=one(SCORES), text="What boxes are ordered by", default="absolute"),
        _own("--nms", kind=one(NMS), text="Which boxes suppress each other", default="related"),
        _own("--nms-iou", "--iou", kind=SHARE, text="Overlap above which they do", default="0.4"),
        vote_option,
        _own("--max", "--max-det", "max_detections", kind=most, text="Most boxes a picture", default="300"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def rule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--rule and what rules of decision take: --tree-threshold, --level, --vocabulary, --accuracy,
    --hedge-lambda.
    """
    options = (
        click.option(
            "--rule",
            type=click.Choice(RULES),
            help="How far down the tree to answer.  [default: the model's, else threshold]",
        ),
        click.option(
            "--tree-threshold",
            type=SHARE,
            help="Least Pr(node) to go on down.  [default: the model's, else 0.5]",
        ),
        click.option(
            "--level",
            type=Nodes(depth=True),
            multiple=True,
            callback=_joined,
            help="Answer at this depth (roots: 0), or with one of these nodes: as --vocabulary.",
        ),
        click.option(
            "--vocabulary",
            type=Nodes(),
            multiple=True,
            callback=_joined,
            help="Answer with these nodes only: coco, voc, det; ids, names or numbers with commas (in quotes "
            "what has one itself); or a file with one a line; repeatable.",
        ),
        click.option(
            "--accuracy",
            type=SHARE,
            help="Answer so exactly that this share is right (calibrated models): 0.8, 0.9, 0.95 or 0.99.",
        ),
        click.option("--hedge-lambda", type=click.FloatRange(0), help="Instead of a calibrated accuracy."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_model_options(
    model: Path | None, cfg: Path | None, weights: Path | None, data_root: Path | None
) -> None:
    """Raises click.UsageError unless the options name one model (or none: the one in the package)."""
    if (cfg is None) != (weights is None):
        raise click.UsageError(
            "--cfg and --weights go together: Darknet's weights do not describe their network. A model file"
            " of this package is given by --model"
        )
    if model is not None and cfg is not None:
        raise click.UsageError("either --model or --cfg with --weights")
    if data_root is not None and cfg is None:
        raise click.UsageError("--data-root goes with --cfg")


def load_network(
    model: Path | None, cfg: Path | None, weights: Path | None, data_root: Path | None
) -> "Network":
    """The network that the options name. Raises ModelError, TreeError."""
    if cfg is not None:
        from yolo9000 import darknet

        return darknet.load(cfg, weights, data_root=data_root)
    if model is not None and (model.is_dir() or model.suffix == ".pt") and model.exists():
        from yolo9000.start import load_any  # a run that has not ended yet has checkpoints only

        return load_any(str(model))
    from yolo9000.modelfile import load_model

    return load_model(model)


def meant(model: str | None) -> str:
    """The MODEL argument of `eval` and others for `yolo9000.start.load_any`: left out, or the word "model"
    where no file is called so, it is the model in the package."""
    if model is not None and (model != "model" or Path(model).exists()):
        return model
    from yolo9000.modelfile import DEFAULT_PATH

    return str(DEFAULT_PATH)


class Size(click.ParamType):
    """416 or 608x416, width first; with `square` both sides are one, for a word by which others mean height
    first."""

    name = "size"

    def __init__(self, square: bool = False) -> None:
        self.square = square

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | None:
        sides = str(value).lower().split("x")
        try:
            numbers = [int(side) for side in sides]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            self.fail(f"{value!r} is no size; {416 if self.square else '416 or 608x416'} is", param, ctx)
        if self.square and numbers[0] != numbers[-1]:
            self.fail(f"{value!r}: which is the width? --size WIDTHxHEIGHT says it", param, ctx)
        return numbers[0], numbers[-1]


class Nodes(click.ParamType):
    """Nodes of a tree: the name of a data set, ids, names or numbers with commas between them (what has a
    comma itself in quotes), or a file with one a line; or, with `depth`, a whole number, which is a depth.
    """

    name = "nodes"

    def __init__(self, depth: bool = False) -> None:
        self.depth = depth

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str | tuple[str, ...]:
        if not isinstance(value, str):
            return value
        if self.depth and value.isdecimal():
            return int(value)
        if value.lower() in ("coco", "voc", "det"):  # COCO is a palm, too
            return value.lower()
        try:
            if _is_file(value):
                parts = list(map(str.strip, Path(value).read_text(encoding="utf-8-sig").splitlines()))
            elif value.endswith((".txt", ".names", ".list")):  # no node is called so
                self.fail(f"{value}: no such file", param, ctx)
            else:
                parts = typed_names(value)
        except (OSError, ValueError) as error:
            self.fail(f"{value}: cannot be read ({error})", param, ctx)
        nodes = tuple(filter(None, parts))
        if not nodes:
            self.fail(f"{value!r} holds no nodes", param, ctx)
        return nodes


def _is_file(typed: str) -> bool:
    try:
        return Path(typed).is_file()
    except OSError:  # a list, too long for a file's name
        return False


def _joined(
    ctx: click.Context, param: click.Parameter, given: tuple[int | str | tuple[str, ...], ...]
) -> int | str | tuple[str, ...] | None:
    """Lists of nodes, given one after the other, as one."""
    if len(given) < 2:
        return given[0] if given else None
    nodes: list[str] = []
    for one in given:
        if isinstance(one, int):
            raise click.BadParameter("a depth stands alone: no other, and no nodes beside it", ctx, param)
        nodes += [one] if isinstance(one, str) else one
    return tuple(nodes)


class Skipped:
    """Pictures that could not be read: told on stderr as they turn up, and remembered."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, reason: str) -> None:
        from tqdm import tqdm

        self.reasons.append(reason)
        with tqdm.external_write_mode():
            click.echo(f"skipped: {printable(reason)}", err=True)

    def files(self, pictures: Sequence[Path], go_on: bool, out: Path | None = None) -> list[Path]:
        """The files that the arguments name, complaints reported; without any the command ends, unless it is
        to go on. Those that `detect --out` wrote are left out (out: where it is about to) and counted."""
        from yolo9000.folders import find_images, without_results

        found, complaints = find_images(pictures)
        for complaint in complaints:
            self(complaint)
        if not found and not go_on:
            self.finish()
        files, results = without_results(found, pictures, out)
        tell_results(results)
        return files

    def finish(self) -> None:
        """Ends the command with status 1 if anything was skipped."""
        if self.reasons:
            raise click.exceptions.Exit(1)


def tell_results(count: int) -> None:
    """That so many pictures are left out (folders.without_results), on stderr."""
    if count:
        click.echo(f"left out {count} with boxes that an earlier run wrote", err=True)


def each_result(
    files: Sequence[Path], run: Callable[[Path], Any], skipped: Skipped
) -> Iterator[tuple[Path, Any]]:
    """(file, run(file)) for each file that can be read, the others reported; with a progress bar if it takes
    long."""
    for file in progress(files, len(files)):
        try:
            result = run(file)
        except ImageError as error:
            skipped(str(error))
            continue
        yield file, result


def progress(pictures: Iterable[Any], count: int) -> Iterable[Any]:
    """The same with a progress bar, on a terminal, if it takes long and it is more than one picture."""
    from tqdm import tqdm

    hidden = True if count < 2 else None
    return tqdm(pictures, total=count, unit=" pictures", delay=_PATIENCE, disable=hidden, leave=False)


@contextmanager
def quick_start() -> Iterator[None]:
    """Importing torch and loading a model as fast as can be, in a program that does it once; warnings are
    told as lines on stderr.

    Without the garbage collector: nothing of what they make is garbage, and every look through torch's
    objects takes a tenth of a second. And with one thread: beside another program that is busy, several
    wait for one another at each of a hundred small tensors far longer than these take.
    """
    collecting = gc.isenabled()
    gc.disable()
    import torch

    threads, show = torch.get_num_threads(), warnings.showwarning

    def told(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if category is UserWarning:
            click.echo(f"warning: {printable(str(message))}", err=True)
        else:
            show(message, category, *where)

    torch.set_num_threads(1)
    warnings.showwarning = told
    try:
        yield
    finally:
        warnings.showwarning = show
        torch.set_num_threads(threads)
        gc.freeze()  # nor are they looked through later
        if collecting:
            gc.enable()


def say(text: str) -> None:
    """A line of results on stdout, above the progress bar if there is one."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        put(text + "\n")


def put(text: str) -> None:
    """Text on stdout, all of it: without a buffer (PYTHONUNBUFFERED) a signal that is only noted ends a
    write half way, and what is left would be lost."""
    out = getattr(sys.stdout, "buffer", None)
    if out is None:  # a notebook's, which is no file of the system's
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    left = memoryview(text.encode(sys.stdout.encoding or "utf-8", sys.stdout.errors or "strict"))
    while left:
        left = left[out.write(left) or 0 :]
    out.flush()


def printable(text: str | Path) -> str:
    """Text that came from elsewhere, a file's name: line ends, escape sequences and what is no Unicode spelt
    out.
    """
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises ImageError for what the file system refuses."""
    with written_whole(path, ImageError) as part:
        part.write_text(text, encoding="utf-8")


def usage(error: ValueError) -> click.UsageError:
    """An impossible option, told as click tells its own."""
    return click.UsageError(str(error))
