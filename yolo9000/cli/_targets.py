"""Where `yolo9000 detect` writes: what --out names, and names for the pictures in its folder, each noted
there as a result. Which files are results is folders.py's, writing draw.py's and video.py's."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from yolo9000.cli import _pictures
from yolo9000.errors import ImageError
from yolo9000.folders import JSON_NAME, note_older_results, noted_as_result, results_in

if TYPE_CHECKING:
    from PIL.Image import Image

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
    from yolo9000.folders import suffixes

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
        note_older_results(folder)
        results = results_in(folder)
        # Lower case: some file systems do not tell A.jpg from a.jpg.
        resolved = (file.resolve() for file in originals)
        self.taken = {file.name.lower() for file in resolved if file.parent == where} | {JSON_NAME}
        self.taken |= {file.name.lower() for file in folder.iterdir() if file.name not in results}

    def name(self, file: Path, size: tuple[int, int]) -> Path:
        """For a picture of (width, height) `size`: a JPEG, or a PNG for a PNG and for what no JPEG holds."""
        from yolo9000.draw import LONGEST_JPEG

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

    def write(self, picture: "Image", target: Path) -> str:
        """Write one, known as a result; returns its name. Raises ImageError."""
        from yolo9000.draw import save_picture

        with noted_as_result(target):
            return save_picture(picture, target).name


class Single:
    """The name of the one picture that is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(self, file: Path, size: tuple[int, int]) -> Path:
        if self.path.resolve() == file.resolve():
            raise click.UsageError(f"{file}: would be replaced by itself with boxes; name another --out")
        return self.path

    def write(self, picture: "Image", target: Path) -> str:
        """As Targets; who names a picture knows that it is a result."""
        from yolo9000.draw import save_picture

        return save_picture(picture, target).name
