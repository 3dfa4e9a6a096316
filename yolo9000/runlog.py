"""The log of a run: a file of JSON lines, the same figures for TensorBoard, and the means of the loss parts
that its lines give. What a run says of its data and nodes is record.py's, what can be read from a log later
history.py's.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from yolo9000.errors import TrainingError

LOG_NAME = "log.jsonl"
BOARD_NAME = "tensorboard"  # folder of its event files

# Parts of the loss that are no means over a batch but numbers of things in it: shares add up.
_COUNTS = ("boxes", "labels")


def append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Adds a line to the log in a run's folder, after half a line that a killed run left if there is one.

    Raises TrainingError where the disk refuses."""
    path = folder / LOG_NAME
    text = json.dumps(line) + "\n"
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror or error})") from error


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log in order; none where there is no log. Lines that are no JSON object, as the
    half one of a killed run or the one being written just now, are left out. Raises TrainingError."""
    path = folder / LOG_NAME
    if not path.exists():
        return []
    lines = []
    try:
        with path.open("rb") as file:
            for raw in file:
                try:
                    line = json.loads(raw)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    lines.append(line)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror or error})") from error
    return lines


class RunLog:
    """The log of a run in progress.

    folder: the run's. board: write for TensorBoard too, where it is installed. images: trained on so far;
    what an earlier process told TensorBoard of later ones is struck out.
    """

    def __init__(self, folder: Path, board: bool = False, images: int = 0):
        self.folder = folder
        self.board = _open_board(folder / BOARD_NAME, images) if board else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line; its numbers go to TensorBoard, if it has a count of images."""
        append_line(self.folder, line)
        if self.board is None or "images" not in line:
            return
        for key, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and key not in ("images", "batch"):
                self.board.add_scalar(f"{line['event']}/{key}", value, line["images"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _open_board(folder: Path, images: int) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=images + 1)  # it strikes out that step too


@dataclass
class Meter:
    """Weighted sums of the loss parts since the last line of the log, and of the weights."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, parts: Mapping[str, Tensor], share: float = 1.0) -> None:
        """Takes in the parts, each a scalar, of one batch or of a process's share of it."""
        for key, value in parts.items():
            value = float(value)
            if key in _COUNTS:
                value /= share
            if math.isfinite(value):  # an average over no boxes is not a number, and says nothing
                self.sums[key] = self.sums.get(key, 0.0) + share * value
                self.counts[key] = self.counts.get(key, 0.0) + share

    def take(self, gather: Callable[[Any], list[Any]] = lambda own: [own]) -> dict[str, float]:
        """The means of what was added, and starts anew. gather: gives what all processes have."""
        found = gather((self.sums, self.counts))
        self.sums, self.counts = {}, {}
        keys = dict.fromkeys(key for sums, _ in found for key in sums)
        return {
            key: sum(sums.get(key, 0.0) for sums, _ in found)
            / sum(counts.get(key, 0.0) for _, counts in found)
            for key in keys
        }


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Five significant digits of each: more than one batch tells."""
    return {key: float(f"{value:.5g}") for key, value in values.items()}


def timestamp() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
