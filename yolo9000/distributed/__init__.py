"""Where one process is too few: training by several (torchrun, world.py), and detection on any number of
pictures in parts that may be done by anybody, once each (Ray Data or this process alone).

    world.py      who is who among the processes of a training, and the one exchange of a step
    detecting.py  the callable for `Dataset.map_batches`: pictures in, rows of detections out
    inputs.py     the pictures of a folder or of Parquet, cut into parts
    rows.py       rows of detections as Arrow tables and Parquet parts
    job.py        the folder of parts, its manifest, and what is still to be done
    engines.py    who does it: this process, or the workers of a Ray cluster

What is named here is imported when it is first asked for: a training needs no Arrow, `--help` no torch, and
nothing but the engine needs Ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolo9000.distributed.detecting import DetectPictures as DetectPictures
    from yolo9000.distributed.detecting import PartWriter as PartWriter
    from yolo9000.distributed.job import Job as Job
    from yolo9000.distributed.world import World as World
    from yolo9000.distributed.world import join_world as join_world
    from yolo9000.distributed.world import running_buffers as running_buffers

_MODULES = {
    "DetectPictures": "detecting",
    "PartWriter": "detecting",
    "Job": "job",
    "World": "world",
    "join_world": "world",
    "running_buffers": "world",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
