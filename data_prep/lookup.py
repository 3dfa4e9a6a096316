"""Lookup: which picture an annotation means, where it names it with another folder or without its ending.

Also here: small conversions that readers of text share. No picture is opened.
"""

import math
from collections.abc import Iterable, Sequence

from data_prep.pictures import SUFFIXES


class Lookup:
    """Finds pictures of a data set by what annotations call them."""

    def __init__(self, names: Iterable[str]):
        self._names: dict[str, str | None] = {}  # name without ending -> the picture, None if several
        self._last: dict[str, str | None] = {}  # the same for the last part of the name
        self._full = set()
        for name in names:
            self._full.add(name)
            stem = stem_of(name)
            self._names[stem] = None if stem in self._names else name
            last = stem.rpartition("/")[2]
            self._last[last] = None if last in self._last else name

    def find(self, *called: str) -> str | None:
        """The picture that goes by the first of these names that any goes by.

        A name is tried as it is, without its ending, and without folders in front of it (lists hold paths of
        the machine they were made on). A name without any folder may also lie in one, if only one does.
        """
        for name in called:
            rest = tidy(name)
            while rest:
                if rest in self._full:
                    return rest
                found = self._names.get(stem_of(rest))
                if found is not None:
                    return found
                rest = rest.partition("/")[2]
            if name and "/" not in tidy(name):
                found = self._last.get(stem_of(tidy(name)))
                if found is not None:
                    return found
        return None


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


def span(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest; NaN twice if one is NaN, which min and max would pass over or not by its
    place."""
    return (math.nan, math.nan) if any(map(math.isnan, values)) else (min(values), max(values))


def side(text: str) -> int | None:
    """A width or height in pixels; None where it is missing or none ("0" is what tools write that do not
    know)."""
    value = number(text)
    return int(value) if value is not None and math.isfinite(value) and value >= 1 else None
