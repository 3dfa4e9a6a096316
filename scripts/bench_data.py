#!/usr/bin/env python3
"""Is a packed file at least as fast to read as the folder of pictures it was made from?

Packs a folder, then lets worker processes read all pictures in a shuffled order, out of the folder and out
of the packed file, in turns, so that whatever else the machine does disturbs both alike. Both are in the page
cache: this measures the reading, not the disk. Three figures: the bytes alone when a process reads them for
the first time (the packed file's checksums are then compared), the bytes alone later, and with JPEG decoding.
"""

import io
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import click
import numpy as np
from PIL import Image

from data_prep import Recipe, Source, Store, pack

ROOT = Path(__file__).resolve().parent.parent


@click.command(epilog="Example: scripts/bench_data.py --images photos/ --workers 2 --json")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT / "../shared/data/coco128/images",
    help="Folder of pictures.  [default: ../shared/data/coco128/images]",
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="Later passes a round.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="The median counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: Path, workers: int, epochs: int, rounds: int, as_json: bool) -> None:
    """Time worker processes that read a folder of pictures and the packed file made of it."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "packed.h5"
        source = Source("pictures", "unlabelled", str(images.absolute()))
        pack(Recipe((source,)), packed, decode=False)
        store = Store(packed)
        paths = [images / store.name_of(k) for k in range(len(store))]
        sizes = [len(_from_folder(paths, k)) for k in range(len(paths))]
        assert sizes == [len(store[k].image) for k in range(len(store))], "the two hold different bytes"
        store = Store(packed)  # which has compared no checksum yet
        rates: dict[tuple[str, str], list[float]] = {}
        for turn in range(rounds):
            # In turns, first now this, now that one.
            for name in sorted(("folder", "packed"), reverse=bool(turn % 2)):
                read = partial(_from_folder, paths) if name == "folder" else partial(_from_store, store)
                for what, seconds in _time(read, len(paths), workers, epochs).items():
                    count = len(paths) * workers * (epochs if what == "later" else 1)
                    rates.setdefault((what, name), []).append(count / seconds)
        total = store.image_bytes
    result = {"pictures": len(paths), "bytes": total, "workers": workers, "rounds": rounds}
    for what in ("first", "later", "decoded"):
        pairs = zip(rates[what, "folder"], rates[what, "packed"], strict=True)
        result[what] = {
            "folder": round(statistics.median(rates[what, "folder"])),
            "packed": round(statistics.median(rates[what, "packed"])),
            "packed_over_folder": round(statistics.median(b / a for a, b in pairs), 3),
        }
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    click.echo(f"{len(paths):,} pictures, {total:,} bytes, {workers} processes; pictures a second")
    for what in ("first", "later", "decoded"):
        row = result[what]
        ratio = row["packed_over_folder"]
        click.echo(f"{what:8} folder {row['folder']:8,} packed {row['packed']:8,}  ratio {ratio:.2f}")


def _time(read: Callable[[int], bytes], count: int, workers: int, epochs: int) -> dict[str, float]:
    """Seconds that the slowest of fresh worker processes takes for each of the three ways of reading."""
    context = multiprocessing.get_context("fork")  # as a DataLoader's workers on Linux
    results = context.SimpleQueue()
    barrier = context.Barrier(workers)
    processes = [
        context.Process(target=_work, args=(read, count, epochs, seed, barrier, results))
        for seed in range(workers)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return {what: max(one[what] for one in found) for what in found[0]}


def _work(read: Callable[[int], bytes], count: int, epochs: int, seed: int, barrier, results) -> None:
    dice = np.random.default_rng(seed)
    seconds = {}
    for what in ("first", "later", "decoded"):
        order = [dice.permutation(count).tolist() for _ in range(epochs if what == "later" else 1)]
        barrier.wait()
        start = time.perf_counter()
        for k in chain.from_iterable(order):
            image = read(k)
            if what == "decoded":
                Image.open(io.BytesIO(image)).load()
        seconds[what] = time.perf_counter() - start
    results.put(seconds)


def _from_folder(paths: list[Path], k: int) -> bytes:
    with open(paths[k], "rb", buffering=0) as file:  # noqa: PTH123 - the quickest way there is
        return file.read()


def _from_store(store: Store, k: int) -> bytes:
    """With all that is known of the picture."""
    return store[k].image


if __name__ == "__main__":
    main()
