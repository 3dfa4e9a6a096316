"""Callables that detect on tables of pictures, wherever they are sent: for `Dataset.map_batches` of Ray Data,
and for anything else that maps batches over processes. Imports no Ray.

    import ray
    from yolo9000.distributed import DetectPictures

    ray.data.read_binary_files("photos/", include_paths=True).map_batches(
        DetectPictures, fn_constructor_kwargs={"threshold": 0.3}, batch_format="pyarrow", batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1,
    ).write_parquet("found/")

Reading and writing need processors as well: two workers want a cluster of three or more.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from yolo9000.detector import Detector
from yolo9000.distributed.inputs import Part, read_part, table_pictures
from yolo9000.distributed.rows import attempts_name, part_name, read_counts, table_of, write_part
from yolo9000.errors import ImageError, ModelError
from yolo9000.keep import Keep, kept_outcomes
from yolo9000.modelfile import read_info
from yolo9000.pipeline import Outcome

# Times that a part is begun. A worker may be lost now and then; a picture that takes its worker with it would
# do so for ever.
_ATTEMPTS = 10


class DetectPictures:
    """Pictures in, rows of detections out: `detect(table)` -> table with rows.SCHEMA, one row a picture in
    the order they came. A picture that cannot be read becomes a row with `error`, never an exception.

    An instance pickles as the words it was made with; the model is loaded again where it is unpickled.

    Attributes: detector; options; keep; sha256 of the model.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        cfg: str | Path | None = None,
        weights: str | Path | None = None,
        data_root: str | Path | None = None,
        names: str | None = None,
        precision: str | None = None,
        device: str = "cpu",
        size: int | tuple[int, int] | None = None,
        rect: bool = False,
        threads: int | None = 1,
        sha256: str | None = None,
        below: Iterable[str | Iterable[str | int]] | None = None,
        least: float | None = None,
        **options: Any,
    ) -> None:
        """model, or cfg with weights and data_root: files that every worker can read; neither: the model in
        the package. names, precision, device, size, rect, options: as Detector takes them. threads: what
        torch computes with in this process from now on, None to leave it. sha256: what the model must have.
        below, least: which detections are kept, as Keep.of.

        Raises ModelError for a model that cannot be read or is another one, ValueError for impossible
        options.
        """
        words = dict(locals()) | options
        self._words = {name: words[name] for name in words.keys() - {"self", "options"}}
        if threads is not None:
            torch.set_num_threads(threads)
        if cfg is not None:
            self.sha256 = _sha256(cfg, weights)
            self.detector = Detector.from_darknet(
                cfg,
                weights,
                data_root,
                names=names,
                device=device,
                rect=rect,
                precision=precision or "float32",
            )
        else:
            self.sha256 = read_info(model, verify=False).sha256
            self.detector = Detector.load(
                model, names=names, device=device, rect=rect, precision=precision or "auto"
            )
        if sha256 is not None and sha256 != self.sha256:
            raise ModelError(
                f"{model or cfg}: is another model ({self.sha256[:12]}) than the one that was asked for"
                f" ({sha256[:12]}); has it been replaced?"
            )
        if size is not None:
            self.detector.size = self.detector.checked_size(size)
        self.options = self.detector.options(**options)
        self.keep = Keep.of(self.detector.tree, below, least)
        self.keep.check(self.detector)

    @property
    def words(self) -> dict[str, Any]:
        """What makes the same again on another machine: the precision as it was found here, the hash."""
        return self._words | {"precision": self.detector.precision, "sha256": self.sha256}

    def facts(self) -> dict[str, Any]:
        """What the detections depend on beside the pictures, JSON-able."""
        detector = self.detector
        options = {name: value for name, value in asdict(self.options).items() if value is not None}
        options = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
        return {
            "model": {"sha256": self.sha256, "tree": detector.tree.fingerprint},
            "options": {
                **options,
                "size": list(detector.size),
                # Neither is in what was begun before there was this.
                **({"rect": True} if detector.rect else {}),
                **self.keep.facts(),
                "precision": detector.precision,
                "resize": detector.resize,
                "device": detector.device.type,
            },
        }

    def __reduce__(self) -> tuple:
        return partial(type(self), **self.words), ()

    def __call__(self, batch: pa.Table | Mapping[str, Any]) -> pa.Table:
        """batch: a table, or columns by name, with `bytes` or `image` (encoded), or `path`; `id` or `path`
        name the pictures. Raises ImageError where no such column is there."""
        table = batch if isinstance(batch, pa.Table) else pa.table({k: list(v) for k, v in batch.items()})
        return table_of(self.found(table_pictures(table)))

    def found(
        self, pictures: Iterable[tuple[str | None, Path | bytes]]
    ) -> Iterator[tuple[str | None, Outcome]]:
        """(name, outcome) of each (name, path or bytes), in order; a few pictures are in memory at a time."""
        names: deque[str | None] = deque()  # of pictures that are begun

        def alone() -> Iterator[Path | bytes]:
            for name, picture in pictures:
                names.append(name)
                yield picture

        # An iterator, not a list: pictures then run together the same way however many there are, so results
        # are the same to the last bit.
        for outcome in kept_outcomes(self.detector, alone(), self.options, self.keep):
            yield names.popleft(), outcome


class PartWriter:
    """Does parts of a job (job.py): pictures read, detections written under the part's name, once.

    A part that is there already is passed over, so a part may be given to two workers, or to one again.
    """

    def __init__(self, root: Path, out: Path, key: str, detect: "DetectPictures | Mapping[str, Any]") -> None:
        """root: of the input; out: the output folder; key: of the job; detect: or the words that make it."""
        self.root, self.out, self.key = root, out, key
        self._detect = detect if isinstance(detect, DetectPictures) else DetectPictures(**detect)

    def write(self, part: Part) -> dict[str, int]:
        """The part's counts, as rows.read_counts. Raises ImageError for Parquet that cannot be read, a folder
        that cannot be written, and a part that was begun too often and never done."""
        file = self.out / part_name(part.number)
        done = read_counts(file, self.key, part.first, part.count)
        if done is not None:
            return done
        attempts = self.out / attempts_name(part.number)
        with attempts.open("ab") as log:
            log.write(b".")
        if attempts.stat().st_size > _ATTEMPTS:
            raise ImageError(
                f"{file}: {_ATTEMPTS} workers ended while they worked on it, pictures {part.first} to"
                f" {part.first + part.count - 1} of the input; too little memory, or a picture that breaks a"
                " decoder?"
            )
        table = table_of(self._detect.found(read_part(self.root, part)))
        counts = write_part(file, table, part.first, self.key)
        attempts.unlink(missing_ok=True)
        return counts

    def __call__(self, parts: pa.Table) -> pa.Table:
        """Rows of Part.to_row in, their counts out."""
        return pa.Table.from_pylist([self.write(Part.from_row(row)) for row in parts.to_pylist()])


def _sha256(*files: str | Path | None) -> str:
    """Of several files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        try:
            with Path(file or "").open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
