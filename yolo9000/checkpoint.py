"""Checkpoints of a run: written whole or not at all, several kept and the best, the newest sound one found.
What is in them is run.py's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wordtree.files import written_whole
from yolo9000.device import loader_killed
from yolo9000.errors import TrainingError

BEST_NAME = "best.pt"
_PATTERN = "checkpoint-*.pt"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary path), brings the file to the disk and only then to its name. A failure leaves
    the old file.

    Raises TrainingError where the disk refuses."""
    try:
        with written_whole(path, TrainingError, durable=True) as part:
            write(part)
    except RuntimeError as error:  # as torch.save reports a full disk
        if loader_killed(error):
            raise
        raise TrainingError(f"{path}: cannot be written; is the disk full? ({error})") from error


def save_checkpoint(folder: Path, batch: int, state: dict[str, Any], keep: int) -> Path:
    """Writes the state after `batch` batches and removes all but the newest `keep` checkpoints."""
    path = folder / f"checkpoint-{batch:08d}.pt"
    write_atomically(path, lambda partial: torch.save(state, partial))
    killed = folder.glob(f".{_PATTERN}.*.part")  # what runs left that were killed while they wrote
    for old in (*list_checkpoints(folder)[:-keep], *killed):
        old.unlink(missing_ok=True)
    return path


def save_best(folder: Path, state: dict[str, Any]) -> Path:
    """Writes the state in place of the best one so far."""
    path = folder / BEST_NAME
    write_atomically(path, lambda partial: torch.save(state, partial))
    for killed in folder.glob(f".{BEST_NAME}.*.part"):
        killed.unlink(missing_ok=True)
    return path


def set_best_aside(folder: Path, batch: int) -> Path | None:
    """Gives the best one, which was judged otherwise before batch `batch`, a name that no later one takes.
    None where there is none."""
    best, aside = folder / BEST_NAME, folder / f"best-before-{batch:08d}.pt"
    if not best.exists():
        return None
    if not aside.exists():  # else a run that was killed here has been judged anew
        best.rename(aside)
    return aside


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob(_PATTERN))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, or in the newest sound checkpoint of a run's folder. Nothing but tensors and
    plain data is unpickled.

    Raises TrainingError where there is none or all are damaged."""
    if path.is_dir():
        candidates = list_checkpoints(path)[::-1]
        if not candidates:
            raise TrainingError(f"{path}: no checkpoint in this folder")
    else:
        candidates = [path]
    complaints = []
    for candidate in candidates:
        try:
            state = torch.load(candidate, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or "config" not in state:
                raise ValueError("not a checkpoint of yolo9000 train")
            return state
        except Exception as error:  # zip, pickle and torch each have their own for a damaged file
            complaints.append(
                f"{candidate}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            )
    raise TrainingError("no checkpoint can be read: " + "; ".join(complaints))
