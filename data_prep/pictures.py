"""Pictures by name out of a folder, a tar, or a folder of tars; and what a picture's bytes are. No
annotations here.

Names use forward slashes. In a folder of tars the first part of a name is the tar's: `n01443537/x.JPEG` is
the member `x.JPEG` or `n01443537/x.JPEG` of `n01443537.tar`. Nothing is ever unpacked to disk, so a tar's
member names are only names.
"""

import io
import os
import tarfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from data_prep.errors import DataError

# What Pillow commonly opens; other files in a folder of pictures are notes and lists.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
)

# Above this a picture is an accident or an attack: 200 megapixels decode to 600 MB.
MAX_PIXELS = 200_000_000

# EXIF orientations that exchange width and height; 2..4 only mirror or turn by 180 degrees.
_TURNED = frozenset({5, 6, 7, 8})
_ORIENTATION = 0x0112  # EXIF tag


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
    tars = [p for p in entries if p.suffix == ".tar" and p.is_file()]
    others = [p for p in entries if p not in tars and (p.is_dir() or _is_picture(p.name))] if tars else []
    if others:
        raise DataError(
            f"{path}: holds tars and beside them {others[0].name}; "
            "put the tars and the pictures into folders of their own"
        )
    return TarFolder(path, tars) if tars else Folder(path)


class Folder:
    """Pictures in a folder and the folders below it."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self.path, followlinks=True, onerror=_refuse):
            here = Path(folder)
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and not _leads_up(here / name)
            )
            inside = here.relative_to(self.path)
            found += [(inside / name).as_posix() for name in files if _is_picture(name)]
        return sorted(found)

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


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); its pictures would be missing")


def _leads_up(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in: following it, one would find everything for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


class Tar:
    """Pictures in an uncompressed tar; the list of members is read once. Threads may share it."""

    def __init__(self, path: Path):
        self.path = path
        self._members: dict[str, tuple[int, int]] | None = None
        self._handle: int | None = None
        self._lock = threading.Lock()

    def _index(self) -> dict[str, tuple[int, int]]:
        with self._lock:
            return self._read_index() if self._members is None else self._members

    def _read_index(self) -> dict[str, tuple[int, int]]:
        members = {}
        try:
            with tarfile.open(self.path, "r:") as tar:
                for member in tar:
                    if member.isreg() and not member.issparse():
                        members[member.name.removeprefix("./")] = (member.offset_data, member.size)
            self._handle = os.open(self.path, os.O_RDONLY)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(
                f"{self.path}: not a whole, uncompressed tar ({error}); unpack .tar.gz and the like, "
                "or fetch it again"
            ) from error
        self._members = members
        return members

    def names(self) -> list[str]:
        return sorted(name for name in self._index() if _is_picture(name.rpartition("/")[2]))

    def __contains__(self, name: str) -> bool:
        return name in self._index()

    def read(self, name: str) -> bytes:
        place = self._index().get(name)
        if place is None:
            raise DataError(f"{name}: not in {self.path}")
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


class TarFolder:
    """Pictures in a folder of tars, each named after the first part of its pictures' names."""

    def __init__(self, path: Path, tars: list[Path]):
        self.path = path
        self._tars = {tar.stem: Tar(tar) for tar in tars}

    def names(self, stems: frozenset[str] | None = None) -> list[str]:
        """Names of all pictures, or only of those in the tars of these stems, sorted."""
        return sorted(
            name if name.startswith(f"{stem}/") else f"{stem}/{name}"
            for stem, tar in self._tars.items()
            if stems is None or stem in stems
            for name in tar.names()
        )

    def read(self, name: str) -> bytes:
        stem, _, rest = name.partition("/")
        tar = self._tars.get(stem)
        if tar is None or not rest:
            raise DataError(f"{name}: {self.path} holds no {stem}.tar")
        return tar.read(name if name in tar else rest)


def _is_picture(file_name: str) -> bool:
    return not file_name.startswith(".") and Path(file_name).suffix.lower() in SUFFIXES


def inspect(content: bytes, decode: bool) -> Shape:
    """Size and orientation of an encoded picture; with `decode`, every pixel is decoded, so a file cut in
    half is found out.

    Raises:
        DataError: says in a few words what is wrong (the caller knows the name): empty, not a picture,
        truncated, too large.
    """
    if not content:
        raise DataError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning about size: MAX_PIXELS decides here
            with Image.open(io.BytesIO(content)) as picture:
                width, height = picture.size
                if width < 1 or height < 1 or width * height > MAX_PIXELS:
                    raise DataError(f"{width} x {height} pixels, the limit is {MAX_PIXELS:,}")
                # Before the orientation: to find a PNG's, Pillow decodes it, and what went wrong once in
                # decoding it does not tell again.
                if decode:
                    picture.load()
                orientation = _orientation(picture)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a picture (starts with {content[:12]!r})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels, the limit is {MAX_PIXELS:,}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"cannot be decoded ({type(error).__name__}: {error})") from error
    return Shape((width, height), orientation if orientation in range(1, 9) else 1)


def _orientation(picture: Image.Image) -> int:
    # A picture with broken EXIF is still a picture: viewers show it as it is stored.
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
