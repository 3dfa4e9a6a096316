"""Shards: one packing in several files, `name-00000-of-00004.h5` and so on, and the files behind a pattern.

Sample k of a packing lies in shard k mod n, so every shard is a fair sample of the whole. Holds no samples:
packing.py writes shards, store.py reads each as any packed file."""

import re
from collections.abc import Iterable
from pathlib import Path

from data_prep.errors import DataError

# More files at a time are more than many systems let a process open.
MOST_SHARDS = 256

_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.[^.]*)?")


def shard_paths(out: Path, count: int) -> list[Path]:
    """Names of `count` shards of `out`, beside it. Raises DataError for an impossible count."""
    if not 1 <= count <= MOST_SHARDS:
        raise DataError(f"shards: from 1 to {MOST_SHARDS}, not {count}")
    return [out.with_name(f"{out.stem}-{k:05d}-of-{count:05d}{out.suffix}") for k in range(count)]


def find_packed(paths: Iterable[Path | str]) -> list[Path]:
    """Files behind names and patterns such as `train-*.h5`, those of a pattern by name, each once.

    A name that is there stands for itself, whatever signs it has. Raises DataError for a pattern that nothing
    matches, and where shards that a pattern finds are no whole set: one that was forgotten would be missed by
    nobody.
    """
    found: dict[Path, None] = {}  # ordered, each once
    for path in map(Path, paths):
        if path.exists() or not any(sign in str(path) for sign in "*?["):
            found[path] = None
            continue
        root = Path(path.anchor) if path.anchor else Path()
        try:
            matches = sorted(root.glob(str(path.relative_to(path.anchor)) if path.anchor else str(path)))
        except (OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path}: not a pattern ({error})") from error
        if not matches:
            raise DataError(f"{path}: no file matches this pattern")
        _check_whole(path, matches)
        found.update(dict.fromkeys(matches))
    return list(found)


def _check_whole(pattern: Path, files: list[Path]) -> None:
    """DataError where shards of a set are missing, or two sets have one name."""
    sets: dict[tuple[Path, str], dict[int, set[int]]] = {}  # (folder and stem, suffix) -> count -> numbers
    for file in files:
        if name := _NAME.fullmatch(file.name):
            of = sets.setdefault((file.with_name(name[1]), name[4] or ""), {})
            of.setdefault(int(name[3]), set()).add(int(name[2]))
    for (stem, suffix), counts in sets.items():
        if len(counts) > 1:
            many = " and ".join(f"of {count}" for count in sorted(counts))
            raise DataError(
                f"{pattern}: finds two packings of {stem}{suffix}, {many}; name one of them, as"
                f" {stem.name}-*-of-{max(counts):05d}{suffix}"
            )
        ((count, numbers),) = counts.items()
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise DataError(
                f"{pattern}: {len(missing)} of {count} shards are missing, the first"
                f" {stem.name}-{missing[0]:05d}-of-{count:05d}{suffix}; pack the data again, or name files"
                " one by one"
            )
