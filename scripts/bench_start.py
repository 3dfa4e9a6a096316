#!/usr/bin/env python3
"""How long does `yolo9000` take to start? Its help, and `detect` on a small photograph, beside torch alone.

Every measurement is a process of its own; the kinds take turns, so that whatever else the machine does
disturbs them alike, and the table has medians: seconds on the clock, and seconds of processors (user and
system), which others disturb least. All run from compiled modules, as an installed package does, and from a
warm file cache. The last column is what a command takes beyond importing torch.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image
from tqdm import tqdm

BASE = "import torch"


def photograph(path: Path) -> None:
    """Coarse coloured noise, 640 x 480."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)


def kinds(picture: Path, model: str | None) -> dict[str, list[str]]:
    """What is measured -> the words that start it."""
    command = [sys.executable, "-m", "yolo9000"]
    detect = [*command, "detect", str(picture), *(("--model", model) if model else ())]
    return {
        "python": [sys.executable, "-c", "pass"],
        "yolo9000 --help": [*command, "--help"],
        "detect --help": [*command, "detect", "--help"],
        BASE: [sys.executable, "-c", BASE],
        "detect": detect,
        "detect, float32": [*detect, "--precision", "float32"],
    }


def once(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds on the clock and of processors of one process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(commands: dict[str, list[str]], rounds: int, environment: dict[str, str]) -> dict[str, dict]:
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in commands}
    for k in tqdm(range(rounds + 1), unit=" rounds", delay=2, disable=None, leave=False):
        for kind, words in commands.items():
            found = once(words, environment)
            if k:  # the first round compiles modules and fills the cache
                times[kind].append(found)
    table = {}
    for kind, found in times.items():
        seconds, used = (statistics.median(column) for column in zip(*found, strict=True))
        table[kind] = {"seconds": seconds, "cpu_seconds": used}
    for row in table.values():
        for name in ("seconds", "cpu_seconds"):
            row[f"{name}_beyond_torch"] = row[name] - table[BASE][name]
    return table


@click.command(epilog="Example: scripts/bench_start.py --rounds 15 --json")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True)
@click.option("--picture", type=click.Path(exists=True, path_type=Path), help="[default: 640 x 480 of noise]")
@click.option("--model", help="Model file.  [default: the one in the package]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(rounds: int, picture: Path | None, model: str | None, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if picture is None:
            picture = Path(folder) / "photograph.jpg"
            photograph(picture)
        # Modules compiled as they would be beside the package, whether or not this process may write there.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")
        table = measure(kinds(picture, model), rounds, environment)
    result = {"processor": platform.processor() or platform.machine(), "rounds": rounds, "kinds": table}
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{'':<18} {'s':>7} {'CPU s':>7}   {'beyond torch: s':>15} {'CPU s':>7}")
    for kind, row in table.items():
        beyond = (
            ("", "")
            if kind in ("python", BASE) or kind.endswith("--help")
            else (f"{row['seconds_beyond_torch']:.3f}", f"{row['cpu_seconds_beyond_torch']:.3f}")
        )
        click.echo(
            f"{kind:<18} {row['seconds']:7.3f} {row['cpu_seconds']:7.3f}   {beyond[0]:>15} {beyond[1]:>7}"
        )


if __name__ == "__main__":
    main()
