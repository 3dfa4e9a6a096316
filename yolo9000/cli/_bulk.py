"""`yolo9000 detect --engine`: a large input into a folder of Parquet parts. What is done is
yolo9000.distributed's; here are its options, the progress bar and the summary."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from wordtree.console import to_json
from yolo9000.cli import _pictures
from yolo9000.errors import ModelError

ENGINES = ("local", "ray")

# Of the command's other options those that print or draw one picture after the other.
_NOT_HERE = {
    "pictures": "PICTURES",
    "source": "--source",
    "out": "--out",
    "as_lines": "--json-lines",
    "frames": "--frames",
}


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--engine, --input, --output, --workers, --part-size."""
    chosen = (
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            help="Detect on --input in parts, in this process or by Ray's workers.",
        ),
        click.option("--input", "input_", type=_pictures.FILE, help="Folder of pictures, or Parquet."),
        click.option("--output", type=_pictures.FILE, help="Folder of Parquet parts, as found.parquet."),
        click.option(
            "--workers", type=click.IntRange(1), help="Of --engine ray.  [default: one per processor]"
        ),
        click.option("--part-size", type=click.IntRange(1), help="Pictures in a part.  [default: 500]"),
    )
    for option in reversed(chosen):
        command = option(command)
    return command


def detect(
    engine: str | None,
    input_: Path | None,
    output: Path | None,
    workers: int | None,
    part_size: int | None,
    words: Mapping[str, Any],
    as_json: bool,
    typed: Mapping[str, Any],
) -> None:
    """Do the job, or what is left of it. words: of DetectPictures; typed: the command's other options.

    Ends the command with status 1 if a picture could not be read or a folder not be listed. Raises
    click.UsageError, ImageError, ModelError.
    """
    if engine is None:
        raise click.UsageError(
            "--input, --output and --part-size go with --engine local or ray, --workers with --engine ray"
        )
    if input_ is None or output is None:
        raise click.UsageError("--engine needs --input and --output")
    if workers is not None and engine != "ray":
        raise click.UsageError("--workers goes with --engine ray")
    for name, shown in _NOT_HERE.items():
        if typed.get(name):
            raise click.UsageError(f"{shown} does not go with --engine; --input says which pictures")
    with _pictures.quick_start():
        try:
            from yolo9000.distributed.inputs import list_input
        except ImportError as error:
            raise ModelError(f"--engine writes Parquet: pip install 'yolo9000[ray]' ({error})") from None
        from yolo9000.distributed.detecting import DetectPictures
        from yolo9000.distributed.job import PART_SIZE, Job

        pictures = list_input(input_)
        skipped = _pictures.Skipped()
        for complaint in pictures.complaints:
            skipped(complaint)
        _pictures.tell_results(pictures.results)
        try:
            detector = DetectPictures(**_absolute(words), threads=None)
        except ValueError as error:
            raise _pictures.usage(error) from None
    job = Job(pictures, output, detector.facts(), part_size or PART_SIZE)
    words = detector.words
    del detector  # the engine's workers have their own
    with job.opened():
        summary = _run(job, engine, words, workers)
    if as_json:
        click.echo(to_json(summary))
    else:
        done = f", {summary['done_before']:,} of them before" if summary["done_before"] else ""
        click.echo(
            f"{summary['pictures']:,} pictures{done}: {summary['detections']:,} detections in"
            f" {_pictures.printable(output)}"
        )
    if failed := summary["failed"]:
        click.echo(
            f"{failed:,} picture{'s' * (failed != 1)} could not be read; the column `error` says why",
            err=True,
        )
        raise click.exceptions.Exit(1)
    skipped.finish()


def _run(job: Any, engine: str, words: Mapping[str, Any], workers: int | None) -> dict[str, Any]:
    from tqdm import tqdm

    from yolo9000.distributed.engines import run_local, run_ray

    begun = time.monotonic()
    counts = job.finished()
    before = sum(count["pictures"] for count in counts.values())
    parts = job.parts
    missing = [part for part in parts if part.number not in counts]
    total = {name: sum(count[name] for count in counts.values()) for name in ("failed", "detections")}
    if missing and engine == "ray":
        done = run_ray(job, missing, words, workers)
    else:
        done = run_local(job, missing, words) if missing else iter(())
    bar = tqdm(total=len(job.input), initial=before, unit=" pictures", disable=None, leave=False)
    # Ray tells of workers that died on stdout, which is for results.
    with bar, redirect_stdout(sys.stderr):
        for count in done:
            bar.update(count["pictures"])
            for name in total:
                total[name] += count[name]
    job.finish()
    seconds = round(time.monotonic() - begun, 2)
    facts = {"output": str(job.out), "pictures": len(job.input), **total, "parts": len(parts)}
    return {**facts, "done_before": before, "engine": engine, "seconds": seconds}


def _absolute(words: Mapping[str, Any]) -> dict[str, Any]:
    """The same, names of files from the root on: workers have current folders of their own."""
    files = {"model", "cfg", "weights", "data_root", "names"}
    return {
        name: str(Path(value).absolute()) if name in files and value and Path(value).exists() else value
        for name, value in words.items()
    }
