"""Rows of detections: one a picture, as Arrow tables and as the Parquet parts of an output folder.

Finding is detecting.py's; which parts there are, job.py's."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wordtree.files import written_whole
from yolo9000.errors import ImageError

if TYPE_CHECKING:
    from yolo9000.detections import Detections
    from yolo9000.pipeline import Outcome

# One row a picture; lists have an entry a box, best score first, and are empty where nothing was found. Of a
# picture that could not be read there is the `error` and nothing else.
SCHEMA = pa.schema(
    [
        ("picture", pa.string()),  # name of the file below the input folder, or what the input calls it
        ("error", pa.string()),
        ("width", pa.int32()),  # of the original picture, upright
        ("height", pa.int32()),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4))),  # left, top, right, bottom in its pixels
        ("scores", pa.list_(pa.float32())),  # as Detections has them, all in 0..1
        ("objectness", pa.list_(pa.float32())),
        ("probabilities", pa.list_(pa.float32())),
        ("nodes", pa.list_(pa.int64())),  # class indices, -1 for "something"
        ("names", pa.list_(pa.string())),
        ("paths", pa.list_(pa.list_(pa.string()))),  # ids, root first
    ]
)

# The same in a part, with the position in the whole input.
PART_SCHEMA = pa.schema([pa.field("index", pa.int64(), nullable=False), *SCHEMA])

# Key of a part's own metadata.
_KEY = b"yolo9000"


def table_of(rows: Iterable[tuple[str | None, "Outcome"]]) -> pa.Table:
    """(name, outcome) of each picture as a table with SCHEMA."""
    return pa.Table.from_pylist([_row(name, outcome) for name, outcome in rows], SCHEMA)


def _row(name: str | None, outcome: "Outcome") -> dict:
    if outcome.error is not None:
        return {"picture": name, "error": _reason(outcome)}
    found: Detections = outcome.found
    width, height = found.image_size
    return {
        "picture": name,
        "width": width,
        "height": height,
        "boxes_xyxy": found.boxes_xyxy.tolist(),
        "scores": found.scores,
        "objectness": found.objectness,
        "probabilities": found.probabilities,
        "nodes": found.nodes,
        "names": found.names,
        "paths": found.paths,
    }


def _reason(outcome: "Outcome") -> str:
    """Why a picture could not be read, without its name, which stands beside it. Text that Parquet takes."""
    picture = outcome.picture
    named = f"picture of {len(picture)} bytes" if isinstance(picture, bytes) else str(picture)
    return str(outcome.error).removeprefix(f"{named}: ").encode("utf-8", "backslashreplace").decode()


def part_name(number: int) -> str:
    return f"part-{number:07d}.parquet"


def attempts_name(number: int) -> str:
    """Of a file that has a byte for each time the part was begun, until it is done."""
    return f".attempts-{number:07d}"


def write_part(file: Path, table: pa.Table, first: int, key: str) -> dict[str, int]:
    """Write a part whole and to the disk. first: position of its first picture in the input; key: of the job,
    as `read_counts` wants it. Returns what `read_counts` will. Raises ImageError."""
    index = pa.array(np.arange(first, first + len(table)))
    counts = {
        "pictures": len(table),
        "failed": len(table) - table["error"].null_count,
        "detections": len(pa.chunked_array(table["scores"]).combine_chunks().flatten()),
    }
    metadata = {_KEY: json.dumps({"key": key, "first": first, **counts}).encode()}
    whole = pa.table([index, *table.columns], PART_SCHEMA.with_metadata(metadata))
    with written_whole(file, ImageError, durable=True) as part:
        try:
            pq.write_table(whole, part, compression="zstd")
        except pa.ArrowException as error:
            raise ImageError(f"{file}: cannot be written ({error})") from error
    return counts


def read_counts(file: Path, key: str, first: int, count: int) -> dict[str, int] | None:
    """pictures, failed and detections of a part that is there and whole; None where it is missing, damaged,
    of another job, or of other pictures. Reads no rows."""
    try:
        footer = pq.read_metadata(file)
        said = json.loads((footer.metadata or {})[_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    if said.pop("key", None) != key or said.pop("first", None) != first:
        return None
    return said if footer.num_rows == said["pictures"] == count else None
