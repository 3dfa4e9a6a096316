#!/usr/bin/env python3
"""Is a packed file at least as fast to read as the folder of pictures it was made from?

Packs a folder, then lets worker processes read all pictures in a shuffled order, out of the folder and out
of the packed file, in turns, so that whatever else the machine does disturbs both alike. Both are in the page
cache: this measures the reading, not the disk. Four figures: the bytes when a process reads them for the
first time (the packed file's checksums are then compared), the bytes later, "samples": the bytes later and,
out of the packed file, all that is known of the picture (the folder knows nothing), and that with JPEG
decoding.
Each as pictures a second by the clock, and as a ratio of the processor time too, which others disturb less.
"""

import io
import json
import multiprocessing
import shutil
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
WHAT = ("first", "later", "samples", "decoded")
DECODED = 128  # pictures decoded a round: some hundred times the work of reading them


@click.command(epilog="Example: scripts/bench_data.py --images photos/ --workers 2 --json")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT / "../shared/data/coco128/images",
    help="Folder of pictures.  [default: ../shared/data/coco128/images]",
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option(
    "--copies",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Copies of the folder's pictures: many, so that a process's start weighs little.",
)
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True, help="Later passes a round.")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="The median counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: Path, workers: int, copies: int, epochs: int, rounds: int, as_json: bool) -> None:
    """Time worker processes that read a folder of pictures and the packed file made of it."""
    with tempfile.TemporaryDirectory() as folder:
        packed, originals = Path(folder) / "packed.h5", images
        images = Path(folder) / "images"
        for k in range(copies):
            shutil.copytree(originals, images / str(k))
        source = Source("pictures", "unlabelled", str(images.absolute()))
        pack(Recipe((source,)), packed, decode=False)
        store = Store(packed)
        paths = [images / store.name_of(k) for k in range(len(store))]
        sizes = [len(_from_folder(paths, k)) for k in range(len(paths))]
        assert sizes == [len(store[k].image) for k in range(len(store))], "the two hold different bytes"
        store = Store(packed)  # which has compared no checksum yet
        rates: dict[tuple[str, str], list[float]] = {}
        work: dict[tuple[str, str], list[float]] = {}
        for turn in range(rounds):
            # In turns, first now this, now that one.
            for name in sorted(("folder", "packed"), reverse=bool(turn % 2)):
                read = partial(_from_folder, paths) if name == "folder" else partial(_from_store, store)
                for what, (seconds, processor) in _time(read, len(paths), workers, epochs).items():
                    each = {"later": len(paths) * epochs, "decoded": min(len(paths), DECODED)}
                    count = workers * each.get(what, len(paths))
                    rates.setdefault((what, name), []).append(count / seconds)
                    work.setdefault((what, name), []).append(processor)
        total = store.image_bytes
    result = {"pictures": len(paths), "bytes": total, "workers": workers, "rounds": rounds}
    for what in WHAT:
        clock = zip(rates[what, "folder"], rates[what, "packed"], strict=True)
        processor = zip(work[what, "folder"], work[what, "packed"], strict=True)
        result[what] = {
            "folder": round(statistics.median(rates[what, "folder"])),
            "packed": round(statistics.median(rates[what, "packed"])),
            "packed_over_folder": round(statistics.median(b / a for a, b in clock), 3),
            "packed_over_folder_by_processor_time": round(statistics.median(a / b for a, b in processor), 3),
        }
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    click.echo(f"{len(paths):,} pictures, {total:,} bytes, {workers} processes; pictures a second")
    for what in WHAT:
        row = result[what]
        ratios = f"{row['packed_over_folder']:.2f}, by processor time "
        ratios += f"{row['packed_over_folder_by_processor_time']:.2f}"
        click.echo(f"{what:8} folder {row['folder']:8,} packed {row['packed']:8,}  ratio {ratios}")


def _time(
    read: Callable[[int, str], bytes], count: int, workers: int, epochs: int
) -> dict[str, tuple[float, float]]:
    """Seconds that the slowest of fresh worker processes takes for each of the three ways of reading, and
    those of processor time of all together."""
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
    return {
        what: (max(one[what][0] for one in found), sum(one[what][1] for one in found)) for what in found[0]
    }


def _work(read: Callable[[int, str], bytes], count: int, epochs: int, seed: int, barrier, results) -> None:
    dice = np.random.default_rng(seed)
    seconds = {}
    for what in WHAT:
        order = [dice.permutation(count).tolist() for _ in range(epochs if what == "later" else 1)]
        if what == "decoded":
            order = [order[0][:DECODED]]
        barrier.wait()
        start, used = time.perf_counter(), time.process_time()
        for k in chain.from_iterable(order):
            image = read(k, what)
            if what == "decoded":
                Image.open(io.BytesIO(image)).load()
        seconds[what] = time.perf_counter() - start, time.process_time() - used
    results.put(seconds)


def _from_folder(paths: list[Path], k: int, what: str = "") -> bytes:
    with open(paths[k], "rb", buffering=0) as file:  # noqa: PTH123 - the quickest way there is
        return file.read()


def _from_store(store: Store, k: int, what: str) -> bytes:
    return store.image(k) if what in ("first", "later") else store[k].image


if __name__ == "__main__":
    main()
