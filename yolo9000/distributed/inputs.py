"""The pictures of a large input, a folder or Parquet, cut into parts that can be read by themselves.

A part is the same whenever and wherever the input is listed, and the fingerprint says whether the input is
still the same. Opens no picture; what becomes of them is detecting.py's."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from yolo9000.errors import ImageError
from yolo9000.folders import find_images, without_results

# Columns of a table that hold the picture, the first that is there: encoded bytes, Hugging Face's struct of
# bytes and path, the name of a file.
PICTURES = ("bytes", "image", "path")
# Columns that name it.
NAMES = ("id", "path", "file_name")

# Rows of Parquet in memory at a time: photographs are up to megabytes each.
_ROWS = 32


@dataclass(frozen=True)
class Part:
    """Pictures `first`, `first` + 1, ... of the input. files: names below the input's folder, as the file
    system has them: of pictures; or of Parquet files, and then `rows` has the (start, stop) of each."""

    number: int
    first: int
    files: tuple[bytes, ...]
    rows: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        """Pictures."""
        return sum(stop - start for start, stop in self.rows) if self.rows else len(self.files)

    def to_row(self) -> dict[str, Any]:
        """As a row of a table."""
        starts, stops = [start for start, _ in self.rows], [stop for _, stop in self.rows]
        return {
            "part": self.number,
            "first": self.first,
            "files": list(self.files),
            "starts": starts,
            "stops": stops,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Part":
        rows = tuple(zip(row["starts"], row["stops"], strict=True))
        return cls(row["part"], row["first"], tuple(row["files"]), rows)


@dataclass(frozen=True)
class Input:
    """An input that was listed. root: the folder; files: names below it, sorted; rows: how many each Parquet
    file has, None for pictures; facts: size and time of change in nanoseconds of each file, -1 of what cannot
    be read. results: how many pictures are left out because `detect --out` wrote them; complaints: of folders
    that cannot be listed."""

    root: Path
    files: tuple[bytes, ...]
    facts: tuple[tuple[int, int], ...]
    rows: tuple[int, ...] | None = None
    results: int = 0
    complaints: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Pictures."""
        return len(self.files) if self.rows is None else sum(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and times of change: as `make` and rsync judge whether a file is another
        one. Where the folder lies does not count."""
        digest = hashlib.sha256()
        for name, (size, changed) in zip(self.files, self.facts, strict=True):
            digest.update(b"%d:%b:%d:%d;" % (len(name), name, size, changed))
        return digest.hexdigest()

    def parts(self, size: int) -> list[Part]:
        """All parts, of `size` pictures but for the last."""
        if self.rows is None:
            starts = range(0, len(self.files), size)
            return [Part(k, first, self.files[first : first + size]) for k, first in enumerate(starts)]
        parts, begun, room = [], [], size  # begun: (file, start, stop) of the part that is being filled
        for name, rows in zip(self.files, self.rows, strict=True):
            start = 0
            while start < rows:
                stop = min(rows, start + room)
                begun.append((name, start, stop))
                room -= stop - start
                start = stop
                if not room:
                    parts.append(_parquet_part(len(parts), size, begun))
                    begun, room = [], size
        return [*parts, _parquet_part(len(parts), size, begun)] if begun else parts


def _parquet_part(number: int, size: int, pieces: Sequence[tuple[bytes, int, int]]) -> Part:
    names = tuple(name for name, _, _ in pieces)
    return Part(number, number * size, names, tuple((start, stop) for _, start, stop in pieces))


def list_input(path: Path | str) -> Input:
    """The pictures of a folder (searched to the bottom, by suffix, as by `detect`), of a Parquet file, or of
    the Parquet files that lie in a folder. Raises ImageError where there are none, or both kinds."""
    path = Path(path).absolute()
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ImageError(f"{path}: neither a folder nor a .parquet file")
        return _list_parquet(path.parent, [path])
    if not path.is_dir():
        raise ImageError(f"{path}: no such file or folder")
    tables = sorted(p for p in path.glob("*.parquet") if p.is_file() and p.name[0] not in "._")
    found, complaints = find_images([path])
    files, results = without_results(found, [path])
    if tables and files:
        raise ImageError(
            f"{path}: holds pictures and Parquet files; which of them? Name a folder of one kind"
        )
    if tables:
        return _list_parquet(path, tables)
    if not files:
        if found:
            raise ImageError(f"{path}: no pictures but {results} with boxes that an earlier run wrote")
        raise ImageError(f"{complaints[0]}, nor Parquet files")
    return Input(path, *_described(path, files), results=results, complaints=tuple(complaints))


def _described(root: Path, files: Sequence[Path]) -> tuple[tuple[bytes, ...], tuple[tuple[int, int], ...]]:
    """Names below root, and size and time of change of each, -1 for a link to nothing and what vanishes: it
    is told in its turn."""
    start, names, facts = len(os.fsencode(root)) + (root != root.parent), [], []
    for file in files:
        names.append(os.fsencode(file)[start:])
        try:
            found = file.stat()
        except OSError:
            facts.append((-1, -1))
        else:
            facts.append((found.st_size, found.st_mtime_ns))
    return tuple(names), tuple(facts)


def _list_parquet(root: Path, files: Sequence[Path]) -> Input:
    rows = []
    for file in files:
        with _open_parquet(file) as table:
            picture_column(table.schema_arrow, file)
            rows.append(table.metadata.num_rows)
    if not sum(rows):
        raise ImageError(f"{root if len(files) > 1 else files[0]}: no rows, so no pictures")
    return Input(root, *_described(root, files), tuple(rows))


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise ImageError(f"{file}: not a Parquet file, or a damaged one ({_line(error)})") from error


def picture_column(schema: pa.Schema, where: Path | str = "table") -> str:
    """The column of a table that holds the pictures. Raises ImageError where none does."""
    for name in PICTURES:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        struct = pa.types.is_struct(kind) and {"bytes", "path"} & {
            kind.field(k).name for k in range(len(kind))
        }
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if text if name == "path" else binary or struct:
            return name
    raise ImageError(
        f"{where}: no column of pictures; wanted `bytes` or `image` (encoded bytes, or a struct of bytes and"
        f" path), or `path` (text); it has {', '.join(f'{f.name} ({f.type})' for f in schema) or 'none'}"
    )


def table_pictures(table: pa.Table, root: Path | None = None) -> Iterator[tuple[str | None, Path | bytes]]:
    """(name, path or encoded bytes) of each row; a name that is nowhere in the row is None, a picture b"".
    root: what relative paths start from, by default the current folder. Raises ImageError as picture_column.
    """
    column = picture_column(table.schema)
    named = next((name for name in NAMES if name in table.column_names), None)
    names = table[named].to_pylist() if named else [None] * len(table)
    for name, picture in zip(names, table[column].to_pylist(), strict=True):
        path = picture if column == "path" else None
        if isinstance(picture, dict):
            path, picture = picture.get("path"), picture.get("bytes")
            if picture is None and path:
                picture = path
        name = path if name is None else name
        picture = (root or Path()) / picture if isinstance(picture, str) and picture else picture or b""
        yield None if name is None else str(name), picture


def read_part(root: Path, part: Part) -> Iterator[tuple[str, Path | bytes]]:
    """(name, path or encoded bytes) of each picture of a part, a few at a time. Raises ImageError for Parquet
    that cannot be read or has changed."""
    if not part.rows:
        for name in part.files:
            # A name that is no Unicode is spelt out, for Parquet's text is.
            yield name.decode("utf-8", "backslashreplace"), root / os.fsdecode(name)
        return
    for name, (start, stop) in zip(part.files, part.rows, strict=True):
        file = root / os.fsdecode(name)
        shown = name.decode("utf-8", "backslashreplace")
        for row, (said, picture) in enumerate(_read_rows(file, start, stop), start):
            yield f"{shown}:{row}" if said is None else said, picture


def _read_rows(file: Path, start: int, stop: int) -> Iterator[tuple[str | None, Path | bytes]]:
    """Rows start to stop of a Parquet file; only the row groups that have them are read."""
    with _open_parquet(file) as parquet:
        column = picture_column(parquet.schema_arrow, file)
        wanted = [n for n in parquet.schema_arrow.names if n in (column, *NAMES)]
        groups, first, end = [], None, 0
        for group in range(parquet.num_row_groups):
            begin, end = end, end + parquet.metadata.row_group(group).num_rows
            if begin < stop and end > start:
                first = begin if first is None else first
                groups.append(group)
        if end < stop:
            raise ImageError(f"{file}: has {end} rows, rows to {stop} were wanted; it has changed")
        at = first
        try:
            for batch in parquet.iter_batches(_ROWS, row_groups=groups, columns=wanted):
                low, high = max(start - at, 0), min(stop - at, len(batch))
                at += len(batch)
                if low < high:
                    yield from table_pictures(pa.table(batch.slice(low, high - low)), file.parent)
                if at >= stop:
                    return
        except (OSError, pa.ArrowException) as error:
            raise ImageError(f"{file}: damaged ({_line(error)})") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
