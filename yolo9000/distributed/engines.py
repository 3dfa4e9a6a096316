"""Who does the parts of a job: this process, or workers that Ray Data starts, feeds and replaces.

Nothing is scheduled here: a part that is done is a file (job.py), so an engine need only see to it that every
part is written by somebody."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep.cli.sources import processors
from yolo9000.distributed.inputs import Part
from yolo9000.distributed.job import Job
from yolo9000.errors import ImageError, ModelError

# The worker's traceback, which is what comes of its error, names ours so.
_OURS = re.compile(r"yolo9000\.errors\.(ImageError|ModelError): (.+)")

# Ray's least, 75 MiB, and a little: through it go names of files and counts, no pictures and no detections.
_STORE_BYTES = 80 << 20

# Blocks of parts a worker: enough that none is left with the last of the work, few enough to be no burden.
_BLOCKS = 16


def run_local(job: Job, parts: Sequence[Part], words: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    """The counts of each part, done one after the other by this process with all its threads. words: of
    DetectPictures."""
    from yolo9000.distributed.detecting import PartWriter

    writer = PartWriter(job.input.root, job.out, job.key, {**words, "threads": None})
    for part in parts:
        yield writer.write(part)


def run_ray(
    job: Job, parts: Sequence[Part], words: Mapping[str, Any], workers: int | None = None
) -> Iterator[dict[str, int]]:
    """The counts of each part as it is done, by `workers` processes with a thread each (on a GPU, with a GPU
    each); by default as many as there are processors (or GPUs).

    On the cluster that RAY_ADDRESS names, or one of this machine's own that ends with the generator: without
    a dashboard, without statistics of use. A worker that dies is replaced, and its parts are done again
    (detecting.PartWriter says how often). Raises ModelError where Ray is missing or has no room for so many
    workers, and what a worker raises.
    """
    # Before the import, which reads them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what it has to tell stands in its own logs
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError as error:
        raise ModelError(f"the engine `ray` needs Ray Data: pip install 'yolo9000[ray]' ({error})") from None
    from yolo9000.distributed.detecting import PartWriter

    mine = not ray.is_initialized()
    own: dict[str, Any] = {
        "address": "local",
        "num_cpus": workers or processors(),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    if mine:
        given = {} if "RAY_ADDRESS" in os.environ else own
        try:
            ray.init(log_to_driver=False, logging_level="error", **given)
        except (OSError, RuntimeError, ValueError) as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"Ray cannot be reached or started: {text[0]}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpu = str(words.get("device", "cpu")).startswith("cuda")
    try:
        room = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if not 1 <= (workers := workers or room) <= room:  # Ray would wait for ever
            raise ModelError(f"{workers} workers, but Ray has {room} {'GPUs' if gpu else 'processors'}")
        rows = ray.data.from_items(
            [part.to_row() for part in parts], override_num_blocks=min(len(parts), _BLOCKS * workers)
        )
        done = rows.map_batches(
            PartWriter,
            fn_constructor_kwargs={
                "root": job.input.root,
                "out": job.out.absolute(),
                "key": job.key,
                "detect": {**words, "threads": 1},
            },
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if gpu else None,
        )
        yield from done.iter_rows()
    except RayError as error:
        raise _told(error) from error
    finally:
        if mine:
            ray.shutdown()


def _told(error: Exception) -> ImageError | ModelError:
    """What a worker raised, as one line."""
    found = _OURS.findall(str(error))
    if found:
        name, text = found[-1]
        return ModelError(text) if name == "ModelError" else ImageError(text)
    lines = str(error).strip().splitlines()
    return ImageError(f"Ray gave up: {lines[0] if lines else type(error).__name__}")
