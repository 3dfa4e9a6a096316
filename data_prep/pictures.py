"""Pictures by name out of a folder, a tar, or a folder of tars; and what a picture's bytes are. No
annotations here.

Names use forward slashes. In a folder of tars the first part of a name is the tar's: `n01443537/x.JPEG` is
the member `x.JPEG` or `n01443537/x.JPEG` of `n01443537.tar`. Nothing is ever unpacked to disk, so a tar's
member names are only names.
"""

import io
import os
import posixpath
import tarfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.errors import DataError
from data_prep.limits import FORMATS, MAX_PIXELS, check_size, is_wide, white_of

# What Pillow commonly opens; other files in a folder of pictures are notes and lists.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
)

# Beside tars such a file is one that somebody forgot to unpack.
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")

_MOST_LINKS = 40  # from one to the next, as Linux has it

# EXIF orientations that exchange width and height; 2..4 only mirror or turn by 180 degrees.
_TURNED = frozenset({5, 6, 7, 8})
_ORIENTATION = 0x0112  # EXIF tag
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101


class Pictures(Protocol):
    """Where pictures come from."""

    path: Path

    def names(self) -> list[str]:
        """Names of all pictures, sorted."""

    def read(self, name: str) -> bytes:
        """The encoded picture; DataError if there is none of that name or it cannot be read."""


@dataclass(frozen=True)
class Shape:
    """What a picture is before and after it is set upright by its EXIF orientation. Sizes are (width, height)
    in pixels."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        return self.stored[::-1] if self.orientation in _TURNED else self.stored


def open_pictures(path: Path | str) -> "Folder | Tar | TarFolder":
    """A folder of pictures, a tar, or a folder of tars; DataError for anything else, or a mixture of them."""
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: no such folder or tar of pictures")
        tar = Tar(path)
        tar.names()  # a tar that is none is no reason to miss each picture one by one
        return tar
    try:
        entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    tars = [p for p in entries if is_tar(p) and p.is_file()]
    packed = [p for p in entries if tars and p.name.lower().endswith(_PACKED)]
    if packed:
        raise DataError(
            f"{path}: holds tars and beside them {packed[0].name}; "
            "unpack it to an uncompressed tar, or move it away"
        )
    others = [p for p in entries if p not in tars and (p.is_dir() or _is_picture(p.name))] if tars else []
    if others:
        raise DataError(
            f"{path}: holds tars and beside them {others[0].name}; "
            "put the tars and the pictures into folders of their own"
        )
    return TarFolder(path, tars) if tars else Folder(path)


def is_tar(path: Path) -> bool:
    """Whether its name is that of an uncompressed tar."""
    return path.suffix.lower() == ".tar"


class Folder:
    """Pictures in a folder and the folders below it."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        return files_below(self.path, _is_picture)

    def read(self, name: str) -> bytes:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(
                f"{name}: leads out of {self.path}; file names must lie inside the folder of pictures"
            )
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{name}: not in {self.path}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name}: cannot be read ({error})") from error


def files_below(top: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Names, relative to `top` and sorted, of files in it and below it whose last part is wanted. Links to
    folders are followed, hidden files and folders left aside; DataError for a folder that cannot be read."""
    found = []
    for folder, folders, files in os.walk(top, followlinks=True, onerror=_refuse):
        here = Path(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not _leads_up(here / name)
        )
        inside = here.relative_to(top)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".") and wanted(name)]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); what is in it would be missing")


def _leads_up(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in: following it, one would find everything for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


class Tar:
    """Pictures in an uncompressed tar; the list of members is read once. Threads may share it.

    Links to files are followed within the tar; one that leads nowhere is a picture that cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self._members: dict[str, tuple[int, int] | str] | None = None  # offset and size, or why there is none
        self._handle: int | None = None
        self._lock = threading.Lock()

    def _index(self) -> dict[str, tuple[int, int] | str]:
        with self._lock:
            return self._read_index() if self._members is None else self._members

    def _read_index(self) -> dict[str, tuple[int, int] | str]:
        members: dict[str, tuple[int, int] | str] = {}
        links = {}
        try:
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if member.issparse():
                        members[name] = "is stored with holes; make the tar without --sparse"
                    elif member.isreg():
                        members[name] = (member.offset_data, member.size)
                    elif member.issym():
                        target = posixpath.join(posixpath.dirname(name), member.linkname)
                        links[name] = posixpath.normpath(target)
                    elif member.islnk():
                        links[name] = member.linkname.removeprefix("./")
            self._handle = os.open(self.path, os.O_RDONLY)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(
                f"{self.path}: not a whole, uncompressed tar ({error}); unpack .tar.gz and the like, "
                "or fetch it again"
            ) from error
        for name in links:
            members.setdefault(name, _end_of(name, links, members))
        self._members = members
        return members

    def names(self) -> list[str]:
        """As of a folder: hidden files and what lies in hidden folders are left aside."""
        shown = (name for name in self._index() if not _is_hidden(name))
        return sorted(name for name in shown if _is_picture(name.rpartition("/")[2]))

    def __contains__(self, name: str) -> bool:
        return name in self._index()

    def read(self, name: str) -> bytes:
        place = self._index().get(name)
        if place is None:
            raise DataError(f"{name}: not in {self.path}")
        if isinstance(place, str):
            raise DataError(f"{self.path}: {name} {place}")
        offset, size = place
        try:
            content = os.pread(self._handle, size, offset)
        except OSError as error:
            raise DataError(f"{self.path}: reading {name} failed ({error})") from error
        if len(content) != size:
            raise DataError(f"{self.path}: ends within {name}; the tar was cut short, fetch it again")
        return content

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)


def _end_of(
    name: str, links: dict[str, str], members: dict[str, tuple[int, int] | str]
) -> tuple[int, int] | str:
    """What the link `name` of a tar leads to."""
    target = name
    for _ in range(_MOST_LINKS):
        target = links.get(target, target)
        if target in members:
            return members[target]
    return f"is a link to {links[name]}, which is no file in the tar; make it with --dereference"


class TarFolder:
    """Pictures in a folder of tars, each named after the first part of its pictures' names."""

    def __init__(self, path: Path, tars: list[Path]):
        self.path = path
        self._tars: dict[str, Tar] = {}
        for tar in tars:
            if tar.stem in self._tars:
                raise DataError(f"{path}: {tar.name} differs from another tar by capitals only; rename one")
            self._tars[tar.stem] = Tar(tar)

    def names(self, stems: frozenset[str] | None = None) -> list[str]:
        """Names of all pictures, or only of those in the tars of these stems, sorted; DataError where a tar
        holds two of one name."""
        found: list[str] = []
        for stem, tar in self._tars.items():
            names = tar.names() if stems is None or stem in stems else []
            bare = {f"{stem}/{name}" for name in names if not name.startswith(f"{stem}/")}
            whole = {name for name in names if name.startswith(f"{stem}/")}
            for name in sorted(bare & whole):
                rest = name.removeprefix(f"{stem}/")
                raise DataError(f"{tar.path}: holds {rest} and {name}, which go by one name; take one out")
            found += bare | whole
        return sorted(found)

    def read(self, name: str) -> bytes:
        stem, _, rest = name.partition("/")
        tar = self._tars.get(stem)
        if tar is None or not rest:
            raise DataError(f"{name}: {self.path} holds no {stem}.tar")
        return tar.read(name if name in tar else rest)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _is_picture(file_name: str) -> bool:
    return not file_name.startswith(".") and Path(file_name).suffix.lower() in SUFFIXES


def inspect(content: bytes, decode: bool) -> Shape:
    """Size and orientation of an encoded picture of a format in limits.py; with `decode`, every pixel is
    decoded, so a file cut in half and samples that are no brightness are found out.

    Raises:
        DataError: says in a few words what is wrong (the caller knows the name): empty, not a picture,
        truncated, too large, of colours or samples that nobody can show to a network.
    """
    if not content:
        raise DataError("the file is empty")
    Image.init()
    known = [form for form in FORMATS if form in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning about size: MAX_PIXELS decides here
            with Image.open(io.BytesIO(content), formats=known) as picture:
                stored = _stored_size(picture)
                check_size(*stored)
                # Pillow turns a TIFF when it decodes it, and forgets how. To find a PNG's orientation, it
                # decodes it, and what went wrong once in decoding it does not tell again.
                orientation = _orientation(picture) if picture.format == "TIFF" else None
                if decode:
                    picture.load()
                    _check_samples(picture)
                if orientation is None:
                    orientation = _orientation(picture)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a picture (starts with {content[:12]!r})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"far more pixels than the limit of {MAX_PIXELS:,}; scale it down") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"cannot be decoded ({type(error).__name__}: {error})") from error
    return Shape(stored, orientation if orientation in range(1, 9) else 1)


def _check_samples(picture: Image.Image) -> None:
    """Raises DataError or ValueError for a decoded picture that has no RGB."""
    if is_wide(picture.mode):
        white_of(np.asarray(picture))
    else:  # by one pixel: which modes Pillow converts does not depend on the rest
        picture.crop((0, 0, 1, 1)).convert("RGBA" if picture.has_transparency_data else "RGB")


def _stored_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) before the orientation is applied, which some versions of Pillow do for TIFFs."""
    if picture.format == "TIFF":
        return picture.tag_v2[_TIFF_WIDTH], picture.tag_v2[_TIFF_HEIGHT]
    return picture.size


def _orientation(picture: Image.Image) -> int:
    # A picture with broken EXIF is still a picture: viewers show it as it is stored.
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
