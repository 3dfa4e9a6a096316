"""Folders of pictures: the files behind what a user typed, and which of them are results that `detect --out`
wrote, no pictures to look at. Reading pictures is images.py's."""

import json
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from yolo9000.errors import ImageError

# What the folder of --out gets beside the pictures: all that was found; and the names of what was written,
# one a line, each before the file itself and once more behind it with its size.
JSON_NAME = "detections.json"
RESULTS_NAME = ".yolo9000-results"


def find_images(arguments: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The picture files behind what a user typed: files as they are, folders (searched to the bottom, through
    links, by suffix), glob patterns.

    Returns (files in the order given, those of a folder by name; complaints, one for each argument that led
    to no picture and each folder that cannot be listed). A file that is named twice is returned once.
    """
    files: dict[Path, None] = {}  # ordered, each once
    complaints: list[str] = []
    for argument in arguments:
        files.update(dict.fromkeys(_expand(Path(argument), complaints.append)))
    return list(files), complaints


@cache
def suffixes() -> frozenset[str]:
    """What names of picture files end in, lower case with the dot: looked for in folders only."""
    from PIL import Image

    from yolo9000.images import FORMATS

    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, form in known if form in FORMATS)


def without_results(
    files: list[Path], typed: Sequence[Path], out: Path | None = None
) -> tuple[list[Path], int]:
    """The files but those with boxes that an earlier run wrote, and how many these are.

    typed: what the files were found by. Somebody who names such a file, or a folder in which there is nothing
    else, means it; unless the folder is `out`, whose results are about to be replaced.
    """
    said = {path.resolve() for path in typed} | {path.parent.resolve() for path in typed if _pattern(path)}
    placed = [(file.parent, file) for file in files]
    written = {folder: results_in(folder) for folder in {folder for folder, _ in placed}}
    of_originals = {folder for folder, file in placed if file.name not in written[folder]}
    mixed = {above for folder in of_originals for above in (folder, *folder.parents)}
    for folder, names in written.items():
        if names and folder not in mixed and not _others(folder, names):
            place = folder.resolve()
            if place in said and (out is None or out.resolve() != place):
                written[folder] = set()
    left = [file for folder, file in placed if file.name not in written[folder] or file.resolve() in said]
    return left, len(files) - len(left)


def results_in(folder: Path) -> set[str]:
    """Names of the pictures and films that runs wrote into a folder."""
    noted = _noted(folder)
    found = {name for name, size in noted.items() if size is None or _size(folder / name) in (size, None)}
    return found | (_results_of_json(folder) - noted.keys())


@contextmanager
def noted_as_result(target: Path) -> Iterator[None]:
    """Around the writing of a picture: its name is noted in its folder before, so that it is known
    for a result whenever the program is killed, and its size afterwards, so that another file that takes its
    place is not. Raises ImageError."""
    _note(target, "")
    yield
    note_result(target)


def note_result(target: Path) -> None:
    """What was written is known for a result while it has this size. Raises ImageError."""
    _note(target, f"\t{_size(target)}")


def note_older_results(folder: Path) -> None:
    """What detections.json alone tells is noted, too, for it is about to be replaced. Raises ImageError."""
    for name in sorted(_results_of_json(folder) - _noted(folder).keys()):
        note_result(folder / name)


def _note(target: Path, size: str) -> None:
    path = target.parent / RESULTS_NAME
    try:
        # At the end in one piece: several threads and runs may do so at a time. On a line of its own also
        # after half a line, as a full disk leaves it.
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n{target.name}{size}\n")
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _noted(folder: Path) -> dict[str, int | None]:
    """The names that were noted, with the last size in bytes; None while it is being written."""
    try:
        lines = (folder / RESULTS_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = (line.partition("\t") for line in lines if line)
    return {name: int(size) if size.isdecimal() else None for name, _, size in parts}


def _size(path: Path) -> int | None:
    facts = _stat(path)
    return None if facts is None else facts.st_size


def _results_of_json(folder: Path) -> set[str]:
    """What the last run's detections.json tells of a folder that was copied without its hidden files."""
    try:
        with (folder / JSON_NAME).open(encoding="utf-8") as file:
            said = json.load(file)
        if "film" in said:
            return {str(said["film"])}
        return {str(record["picture"]) for record in said["pictures"] if record["source"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()  # none there, or somebody else's file of that name


def _others(folder: Path, results: set[str]) -> bool:
    """Whether pictures lie in a folder that are no results, whether or not a pattern matches them."""
    try:
        return any(_named_so(file.name) and file.name not in results for file in folder.iterdir())
    except OSError:  # what was named by its path may be read all the same
        return False


def _pattern(path: Path) -> bool:
    return any(sign in path.name for sign in "*?[")


def _expand(path: Path, complain: Callable[[str], None]) -> list[Path]:
    typed = str(path)
    shown = _shown(typed)
    count = 0

    def unlisted(reason: str) -> None:
        nonlocal count
        count += 1
        complain(reason)

    try:
        if path.is_dir():
            found = _pictures_below(path, unlisted)
            if not found and not count:
                complain(f"{shown}: no pictures in this folder")
            return found
        if path.exists():
            return [path]
    except (OSError, ValueError) as error:  # a name too long, a zero byte
        complain(f"{shown}: {getattr(error, 'strerror', None) or error}")
        return []
    if not any(sign in typed for sign in "*?["):
        complain(f"{shown}: no such file or folder")
        return []
    root = Path(path.anchor) if path.anchor else Path()
    try:
        matches = sorted(root.glob(str(path.relative_to(path.anchor)) if path.anchor else typed))
    except (OSError, ValueError, NotImplementedError) as error:
        complain(f"{shown}: not a pattern ({error})")
        return []
    files = []
    for match in matches:
        files += _pictures_below(match, unlisted) if match.is_dir() else [match]
    if not files and not count:
        complain(f"{shown}: nothing matches this pattern")
    return files


def _pictures_below(folder: Path, complain: Callable[[str], None]) -> list[Path]:
    """By name. A link to nothing counts, too: somebody misses that picture."""
    found = []
    for place, names in _folders(folder, complain):
        for name in filter(_named_so, names):
            facts = _stat(place / name)
            if facts is None or stat.S_ISREG(facts.st_mode):
                found.append(place / name)
    return sorted(found)


def _named_so(name: str) -> bool:
    """Whether a file's name is that of a picture, and not hidden."""
    return name[0] != "." and Path(name).suffix.lower() in suffixes()


def _folders(folder: Path, complain: Callable[[str], None]) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, but hidden ones, with the names of what else is in each. Folders behind
    links come after all others, each once, whatever goes in circles."""

    def unlisted(error: OSError) -> None:
        complain(f"{_shown(error.filename)}: a folder that cannot be listed ({error.strerror or error})")

    waiting, seen = deque([folder]), set()
    while waiting:
        for root, folders, names in os.walk(waiting.popleft(), onerror=unlisted):
            place = Path(root)
            facts = _stat(place)
            # Some file systems number no files.
            which = (facts.st_dev, facts.st_ino or place.resolve()) if facts else None
            if which is None or which in seen:
                folders.clear()
                continue
            seen.add(which)
            folders[:] = sorted(name for name in folders if name[0] != ".")
            for name in folders:  # links among them, too, which os.walk does not follow
                facts = _stat(place / name, follow=False)
                if facts is not None and stat.S_ISLNK(facts.st_mode):
                    waiting.append(place / name)
            yield place, names


def _stat(path: Path, follow: bool = True) -> os.stat_result | None:
    """None for what is not there or may not be looked at."""
    try:
        return path.stat(follow_symlinks=follow)
    except OSError:
        return None


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)
