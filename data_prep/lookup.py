"""Lookup: which picture an annotation means, where it names it with another folder or without its ending.

Also here: small conversions that readers of text share. No picture is opened.
"""

import copy
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from data_prep.pictures import SUFFIXES, is_tar

# How closely a name is a picture's own, the least the closest: which of an entry's names it was, how far its
# folders are from the picture's (Lookup._apart), and whether the ending is the same (0), not said (1) or
# another (2).
Closeness = tuple[int, int, int]


class Lookup:
    """Finds pictures of a data set by what annotations call them."""

    def __init__(self, names: Iterable[str], path: Path | None = None):
        """names: all pictures; path: the folder or tar that they lie in."""
        names = list(names)
        self.folders = frozenset(name.rpartition("/")[0] for name in names)
        self._spelt = comparable(names)
        self._names: dict[str, str | None] = {}  # name without ending -> the picture, None if several
        self._last: dict[str, str | None] = {}  # the same for the last part, with its ending and without
        self._full: dict[str, str] = {}  # whole name -> the picture
        self._path = path.absolute() if path is not None else None
        self._elsewhere: dict[str, bool] = {}  # folders in front of a name -> whether that is another place
        self._closest: dict[str, Closeness] = {}  # picture -> how close the closest of all entries comes
        for name in names:
            spelt = self._spelt(name)
            self._full[spelt] = name
            stem, last = stem_of(spelt), spelt.rpartition("/")[2]
            self._names[stem] = None if stem in self._names else name
            for part in {last, stem_of(last)}:
                self._last[part] = None if part in self._last else name

    def among(self, entries: Iterable[Sequence[str]]) -> Self:
        """The same for annotations that have these entries, each with the names that it calls its picture:
        a picture is found by those alone that come closest to its name. So b/1.jpg, which is missing, does
        not take 1.jpg from the entry that means it."""
        narrower = copy.copy(self)
        narrower._closest = {}
        for called in entries:
            found = self._match(called)
            if found is not None:
                name, closeness = found
                narrower._closest[name] = min(closeness, narrower._closest.get(name, closeness))
        return narrower

    def find(self, *called: str) -> str | None:
        """The picture that goes by the first of these names that any goes by.

        A name is tried as it is, without its ending, and without folders in front of it (lists hold paths of
        the machine they were made on), unless these lead to a folder beside that of the pictures: cam0/1.jpg
        is not 1.jpg of cam1. A name without any folder may also lie in one, if only one does. Letters with
        accents may be written either way (`comparable`). Where nothing is found, names are read as parts of
        an address, %20 for a blank. None, too, for a picture that another entry comes closer to (`among`).
        """
        found = self._match(called)
        if found is None or found[1] > self._closest.get(found[0], found[1]):
            return None
        return found[0]

    def closeness(self, *called: str) -> Closeness | None:
        """How close to its name the first of these names comes that any picture goes by; None if none
        does."""
        found = self._match(called)
        return found and found[1]

    def _match(self, called: Sequence[str]) -> tuple[str, Closeness] | None:
        addresses = [unquote(name) for name in called if "%" in name]
        for position, name in enumerate((*called, *addresses)):
            whole = tidy(self._spelt(name))
            front, rest = "", whole
            while rest:
                found = self._full.get(rest) or self._names.get(stem_of(rest))
                if found is not None and not self._is_elsewhere(front):
                    return found, (position, self._apart(front), self._ending(rest, found))
                folder, slash, rest = rest.partition("/")
                front += folder + slash
            if whole and "/" not in whole:
                found = self._last.get(whole) or self._last.get(stem_of(whole))
                if found is not None:
                    return found, (position, 2, self._ending(whole, found))
        return None

    def _ending(self, called: str, found: str) -> int:
        """How the ending of a name is that of the picture: see Closeness."""
        if called.rpartition("/")[2] == self._spelt(found).rpartition("/")[2]:
            return 0
        return 1 if stem_of(called) == called else 2

    def _apart(self, front: str) -> int:
        """How far folders in front of a name, "a/b/", are from the pictures' own: 0 where the shorter of both
        ends in the other, 1 where some are the same, 2 where none is."""
        here, folders = self._parted(front)
        if not folders or here is None or here == here.parent:
            return 2 if folders and here is None else 0
        return 2 if here == self._path else 1

    def _parted(self, front: str) -> tuple[Path | None, list[str]]:
        """The folder of the pictures, or above it, where these folders in front of a name part from those
        that it lies in, and what is left of them."""
        here, folders = self._path, [part for part in front.split("/") if part not in ("", ".", "..")]
        while here is not None and folders and folders[-1] == _folder_name(here):
            here, folders = here.parent, folders[:-1]
        return here, folders

    def _is_elsewhere(self, front: str) -> bool:
        """Whether folders in front of a name, "a/b/", part from those of the pictures towards one that is
        there as well."""
        if self._path is None:
            return False
        if front not in self._elsewhere:
            here, folders = self._parted(front)
            beside = [
                here.parent / f"{folder}{ending}"
                for folder in folders[-1:]
                for ending in ("", ".tar", ".TAR")
            ]
            self._elsewhere[front] = any(map(_is_there, beside))
        return self._elsewhere[front]


def comparable(*groups: Collection[str]) -> Callable[[str], str]:
    """What makes one of the ways in which systems write é: a letter, or an e and an accent (NFC, NFD). Where
    two names of a group would become one, names are left as they are."""

    def composed(name: str) -> str:
        return unicodedata.normalize("NFC", name)

    apart = all(len(set(map(composed, group))) == len(set(group)) for group in groups)
    return composed if apart else str


def _folder_name(path: Path) -> str:
    """Of a folder, or of a tar that stands for one."""
    return path.stem if is_tar(path) else path.name


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that the system would not take
        return False


def tidy(name: str) -> str:
    """Forward slashes, nothing in front."""
    return name.strip().replace("\\", "/").removeprefix("./").lstrip("/")


def stem_of(name: str) -> str:
    """The name without the ending of a picture; other dots belong to the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def number(text: str) -> float | None:
    """A number as data files write it, NaN and infinity among them; None where it is none."""
    try:
        # Python would also take 1_0, and the digits of other scripts.
        return None if "_" in text or not text.isascii() else float(text)
    except ValueError:
        return None


def is_marked(value: Any) -> bool:
    """Whether a field that tools write as truth value, number or text says yes."""
    if not isinstance(value, str):
        return bool(value)
    text = value.strip().lower()
    return text in ("true", "yes") or number(text) == 1  # tables of numbers have 1.0


def span(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest; NaN twice if one is NaN, which min and max would pass over or not by its
    place."""
    return (math.nan, math.nan) if any(map(math.isnan, values)) else (min(values), max(values))


def side(text: str) -> int | None:
    """A width or height in pixels; None where it is missing or none ("0" is what tools write that do not
    know)."""
    value = number(text)
    return int(value) if value is not None and math.isfinite(value) and value >= 1 else None
