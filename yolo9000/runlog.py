"""The log of a run: a file of JSON lines, and the means of the loss parts that its lines give. What a run
says of its data and nodes is record.py's.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

LOG_NAME = "log.jsonl"


def append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Adds a line to the log in a run's folder."""
    with (folder / LOG_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@dataclass
class Meter:
    """Sums of the loss parts since the last line of the log."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Takes in one batch's parts, each a scalar."""
        for key, value in parts.items():
            value = float(value)
            if math.isfinite(value):  # an average over no boxes is not a number, and says nothing
                self.sums[key] = self.sums.get(key, 0.0) + value
                self.counts[key] = self.counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means of what was added, and starts anew."""
        means = {key: self.sums[key] / self.counts[key] for key in self.sums}
        self.sums, self.counts = {}, {}
        return means


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Five significant digits of each: more than one batch tells."""
    return {key: float(f"{value:.5g}") for key, value in values.items()}


def timestamp() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
