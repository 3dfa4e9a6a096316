"""Writing files whole or not at all. What is in them is for others to say; checkpoints, which also have to
survive a power cut, are checkpoint.py's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: str | Path, error: type[Exception]) -> Iterator[Path]:
    """Gives a path beside `path` to write to; what is there at the end becomes `path`, in one step.

    The folder is made if it is missing. An error or an interruption leaves an older file as it was, and
    nothing else. What the file system refuses is raised as `error`, one line that names the path.
    """
    path = Path(path)
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: cannot be written (a folder or device, no plain file)")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except (OSError, ValueError) as reason:
        raise error(f"{path}: cannot be written ({getattr(reason, 'strerror', None) or reason})") from reason
    finally:
        with suppress(OSError):  # gone already, or its folder is none
            part.unlink()
