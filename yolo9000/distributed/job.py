"""A job: detections of a large input as a folder of Parquet parts, done once each however often it is begun.

The folder (`out.parquet/`) is a data set that Arrow, DuckDB, Spark and pandas read as one table:

    part-0000000.parquet ...  rows.PART_SCHEMA, each written whole or not at all
    _manifest.json            what the parts depend on: input, model, options
    _SUCCESS                  empty; there when all parts are

The input is cut into the same parts each time, so starting again after whatever happened does what is
missing, and a folder that was begun with something else is refused. Who does the parts is engines.py's."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yolo9000
from wordtree.files import written_whole
from yolo9000.distributed.inputs import Input, Part
from yolo9000.distributed.rows import part_name, read_counts
from yolo9000.errors import ImageError

MANIFEST, SUCCESS = "_manifest.json", "_SUCCESS"
_FORMAT = "yolo9000 detections"

# Pictures in a part: some ten seconds of a core's work, which is what a killed worker loses, and files of
# some hundred kilobytes.
PART_SIZE = 500

# What of a manifest tells the input, and what the rest of the message says.
_OTHER = {
    "pictures": "the input is another (files added, removed, renamed, changed, or other ones)",
    "part_size": "its parts have another size",
    "model": "the model is another",
    "options": "the options are others",
    "program": "another version of this program made it",
}


@dataclass(frozen=True)
class Job:
    """What is to be done. input: as it was listed; out: the folder of parts; facts: of the detector
    (DetectPictures.facts); part_size: pictures."""

    input: Input
    out: Path
    facts: dict[str, Any] = field(repr=False)
    part_size: int = PART_SIZE

    @property
    def manifest(self) -> dict[str, Any]:
        """What the parts depend on. Where the input lies is not in it: it may have been moved."""
        pictures = {"count": len(self.input), "sha256": self.input.fingerprint}
        return {
            "format": _FORMAT,
            "program": yolo9000.__version__,
            "pictures": pictures,
            "part_size": self.part_size,
            **self.facts,
        }

    @cached_property
    def key(self) -> str:
        """What every part of this job carries and no part of another."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    @cached_property
    def parts(self) -> list[Part]:
        return self.input.parts(self.part_size)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The folder, ready for parts and this process's alone: no second one starts the same job.

        Raises ImageError where it cannot be made, holds something else, or is being worked on.
        """
        try:
            if self.out.exists() and not self.out.is_dir():
                raise ImageError(f"{self.out}: is no folder; the output is a folder of Parquet parts")
            self.out.mkdir(parents=True, exist_ok=True)
            # What a process leaves that was killed before the manifest was there does not count.
            others = any(not file.name.startswith(".") for file in self.out.iterdir())
            if others and not (self.out / MANIFEST).exists():
                raise ImageError(f"{self.out}: holds something else than detections; choose another folder")
            with (self.out / ".lock").open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ImageError(f"{self.out}: another process is working on it") from None
                self._check_manifest()
                for pattern in (".*.part", ".attempts-*"):  # of processes that were killed
                    for left in self.out.glob(pattern):
                        left.unlink(missing_ok=True)
                yield
        except OSError as error:
            raise ImageError(f"{self.out}: cannot be used ({error.strerror or error})") from error

    def _check_manifest(self) -> None:
        """Write the manifest, or hold the one that is there against this job."""
        file, wanted = self.out / MANIFEST, self.manifest
        if not file.exists():
            with written_whole(file, ImageError, durable=True) as part:
                part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            known = isinstance(found, dict) and found.get("format") == _FORMAT
        except ValueError:
            known = False
        if not known:
            raise ImageError(f"{file}: damaged, or no manifest of detections; choose another folder")
        # As JSON has them: the manifest that was read holds lists where this one may hold tuples.
        wanted = json.loads(json.dumps(wanted))
        others = [why for name, why in _OTHER.items() if found.get(name) != wanted[name]]
        if others:
            raise ImageError(
                f"{self.out}: holds detections of another job: {'; '.join(others)}. Start that job again"
                " as it was, or choose another folder"
            )

    def finished(self) -> dict[int, dict[str, int]]:
        """Number -> counts (rows.read_counts) of the parts that are there and whole."""
        there = {file.name for file in self.out.glob("part-*.parquet")}
        found = {}
        for part in self.parts:
            name = part_name(part.number)
            if name in there:
                counts = read_counts(self.out / name, self.key, part.first, part.count)
                if counts is not None:
                    found[part.number] = counts
        return found

    def finish(self) -> None:
        """Marks the folder as whole. Raises ImageError where a part is missing, which names it."""
        missing = [part.number for part in self.parts if not (self.out / part_name(part.number)).is_file()]
        if missing:
            raise ImageError(
                f"{self.out}: {len(missing)} parts are missing, the first {part_name(missing[0])};"
                " start again"
            )
        with suppress(FileExistsError):
            (self.out / SUCCESS).touch()
