"""Where `yolo9000 detect` writes: what --out names, names for the pictures in its folder, and what an earlier
run left there, which is no picture to look at again. Writing is draw.py's and video.py's."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from yolo9000.cli import _pictures
from yolo9000.errors import ImageError

# What the folder of --out gets beside the pictures.
JSON_NAME = "detections.json"

# Pixels of a JPEG's longer side, at most: libjpeg's JPEG_MAX_DIMENSION.
LONGEST_JPEG = 65_500

# Names of films end in these: yolo9000.video's, held equal by a test.
FILMS = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")

# Files of which somebody who names one wants no folder, and what writes them.
_NOT_FOLDERS = {
    ".json": "--json > {out}",
    ".jsonl": "--json-lines > {out}",
    ".ndjson": "--json-lines > {out}",
    ".parquet": "--engine local --input FOLDER --output {out}",
}


def single(out: Path, film: bool, count: int) -> bool:
    """Whether --out names the one picture to be written, and not a folder.

    film: a film or camera is looked at; count: of picture files otherwise. Raises click.UsageError for a file
    name that nothing can be written under: nobody wants a folder called x.jpg.
    """
    suffix = out.suffix.lower()
    if not suffix or out.is_dir():
        return False
    if suffix in _NOT_FOLDERS:
        way = _NOT_FOLDERS[suffix].format(out=out)
        raise click.UsageError(f"--out is a folder, not {out}; such a file is written by {way}")
    from yolo9000.images import suffixes

    if suffix not in suffixes():
        if suffix in FILMS and not film:
            raise click.UsageError(f"{out} names a film, but pictures are looked at; --out is their folder")
        return False
    if film:
        raise click.UsageError(f"{out} names a picture, but a film is looked at; --out is a film or a folder")
    if count > 1:
        raise click.UsageError(f"{out} names one picture, but there are {count}; --out is their folder")
    return True


def make_folder(folder: Path) -> None:
    """Raises ImageError for what the file system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{folder}: the folder for results cannot be made ({error.strerror or error})"
        ) from error


class Targets:
    """Names for annotated pictures, or a film, in a folder that is there: the original's own, numbered where
    two are alike; never that of an original, or of a file that no earlier run is known to have written."""

    def __init__(self, folder: Path, originals: list[Path]) -> None:
        self.folder = folder
        where = folder.resolve()
        results, _ = _written(folder)
        # Lower case: some file systems do not tell A.jpg from a.jpg.
        resolved = (file.resolve() for file in originals)
        self.taken = {file.name.lower() for file in resolved if file.parent == where} | {JSON_NAME}
        self.taken |= {file.name.lower() for file in folder.iterdir() if file.name not in results}

    def name(self, file: Path, size: tuple[int, int]) -> Path:
        """For a picture of (width, height) `size`: a JPEG, or a PNG for a PNG and for what no JPEG holds."""
        png = file.suffix.lower() == ".png" or max(size) > LONGEST_JPEG
        return self.free(file.stem, ".png" if png else ".jpg")

    def free(self, stem: str, suffix: str) -> Path:
        """The name of these two parts, or the first numbered one that is free."""
        # Short in bytes, of which a name may have 255, and without what a terminal or a shell misreads.
        stem = _pictures.printable(stem).encode()[:150].decode(errors="ignore")
        number, name = 1, f"{stem}{suffix}"
        while name.lower() in self.taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self.taken.add(name.lower())
        return self.folder / name


class Single:
    """The name of the one picture that is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(self, file: Path, size: tuple[int, int]) -> Path:
        if self.path.resolve() == file.resolve():
            raise click.UsageError(f"{file}: would be replaced by itself with boxes; name another --out")
        return self.path


def without_results(files: list[Path], typed: Sequence[Path], out: Path | None) -> tuple[list[Path], int]:
    """The files but those with boxes that an earlier run wrote, and how many these are.

    A folder's detections.json says which they are. Somebody who names such a file, or a folder of nothing
    else, means it; unless the folder is --out itself, whose results are about to be replaced.
    """
    said = {path.resolve() for path in typed} | {path.parent.resolve() for path in typed if _pattern(path)}
    written: dict[Path, set[str]] = {}
    left = []
    for file in files:
        folder = file.parent
        if folder not in written:
            written[folder], mixed = _written(folder)
            place = folder.resolve()
            if place in said and not mixed and (out is None or out.resolve() != place):
                written[folder] = set()
        if file.name not in written[folder] or file.resolve() in said:
            left.append(file)
    return left, len(files) - len(left)


def _pattern(path: Path) -> bool:
    return any(sign in path.name for sign in "*?[")


def _written(folder: Path) -> tuple[set[str], bool]:
    """Names of the pictures, or of the film, that a run wrote into the folder, as far as its detections.json
    tells, and whether originals lie among them."""
    try:
        with (folder / JSON_NAME).open(encoding="utf-8") as file:
            said = json.load(file)
        if "film" in said:
            return {str(said["film"])}, False
        records = said["pictures"]
        names = [record["picture"] for record in records]
        # A picture that was looked at in place is an original, whatever name it goes by.
        seen = {Path(str(record["source"])).resolve() for record in records}
        where = folder.resolve()
        found = {str(name) for name in names if where / str(name) not in seen}
        return found, any(source.parent == where for source in seen)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set(), False  # none there, or somebody else's file of that name
