"""`yolo9000 detect` on a film or a camera: frames in, results and a film with boxes out. Reading and writing
films is yolo9000.video."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from tqdm import tqdm

from yolo9000 import video
from yolo9000.cli import _pictures
from yolo9000.cli._answers import Answers, table
from yolo9000.errors import ImageError
from yolo9000.keep import Keep, kept_outcomes
from yolo9000.pipeline import Behind

if TYPE_CHECKING:
    from yolo9000.detections import Detections
    from yolo9000.detector import Detector
    from yolo9000.options import Options


def detect(
    detector: "Detector",
    options: "Options",
    source: Path | int | str | video.Capture,
    answers: Answers,
    target: Path | None,
    most: int | None,
    clock: Callable[[], float] = time.monotonic,
    keep: Keep = Keep(),  # noqa: B008 - it is frozen
) -> ImageError | None:
    """Detect on each frame of a film, or on a camera's newest until Ctrl-C; `answers` hears of each frame.

    source: a film's path, or a camera or stream (see video.Camera). target: the film to write, if any. most:
    frames after which to stop. keep: of detections. Returns what a camera failed by on the way, if it did:
    what was seen until then stands. Raises ImageError.
    """
    live, failed = not isinstance(source, Path), None
    frames = video.Camera(source) if live else video.Film(source)
    name = "camera" if live else _pictures.printable(source)
    with ExitStack() as stack:
        stack.enter_context(closing(frames))
        recorder = None
        if target is not None:
            recorder = stack.enter_context(video.Recorder(target, frames.size, frames.rate))
        # Live, every frame that waits is old when it is shown: one at a time, with all threads, and at once.
        settings: dict[str, Any] = {"lanes": 1, "depth": 1, "batch": 1} if live else {}
        behind = stack.enter_context(Behind(depth=0) if live else Behind())
        found = kept_outcomes(detector, islice(iter(frames), most), options, keep, own=True, **settings)
        stack.enter_context(closing(found))
        began = clock()
        total = None if live else min(filter(None, (most, frames.expected or None)), default=None)
        try:
            for k, outcome in enumerate(
                tqdm(found, total=total, unit=" frames", delay=2, disable=None, leave=False)
            ):
                if outcome.found is None:
                    raise outcome.error
                seconds = clock() - began if live else frames.seconds[k]
                behind.put(_drawn, outcome.found, seconds, recorder is not None)
                _take(behind.due(), answers, name, recorder, live)
            _take(behind.due(rest=True), answers, name, recorder, live)
        except (KeyboardInterrupt, ImageError) as ended:
            if not live:
                raise
            if recorder is not None:  # this is how a camera's film ends, or by its failing
                recorder.keep()
            failed = ended if isinstance(ended, ImageError) else None
    _report(frames, answers, target, most)
    return failed


def _drawn(
    found: "Detections", seconds: float, wanted: bool
) -> tuple["Detections", float, np.ndarray | None]:
    return found, seconds, np.asarray(found.draw()) if wanted else None


def _take(
    due: Iterator[tuple["Detections", float, np.ndarray | None]],
    answers: Answers,
    name: str,
    recorder: video.Recorder | None,
    live: bool,
) -> None:
    """Pass on the results that are due. A film that is written has every frame of a film once, a camera's for
    as long as it was the newest."""
    for found, seconds, drawn in due:
        if recorder is not None:
            recorder.write(drawn, seconds if live else None)
        record = {"frame": answers.count, "seconds": round(seconds, 3), **found.to_dict(), "source": name}
        answers.add(record, table(found, f"{name}  frame {answers.count}  {seconds:.2f} s"))


def _report(
    frames: "video.Film | video.Camera", answers: Answers, target: Path | None, most: int | None
) -> None:
    count = answers.count
    if isinstance(frames, video.Camera):
        click.echo(f"{count} frames, {frames.dropped} dropped", err=True)
    elif most is None and count < frames.expected:
        name = _pictures.printable(frames.path)
        click.echo(f"{name}: ends after {count} frames of the {frames.expected} it claims", err=True)
    if target is not None and count and answers.form == "table":
        _pictures.say(f"{count} frame{'s' * (count != 1)} in {_pictures.printable(target)}")
