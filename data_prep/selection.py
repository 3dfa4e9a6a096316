"""Which pictures of a data set are taken: lists of names, and every n-th kept out for measuring.

Functions over names; no picture is touched.
"""

from collections.abc import Collection
from pathlib import Path

from data_prep.errors import DataError
from data_prep.lookup import comparable, stem_of
from data_prep.textfile import read_json, read_text


def read_list(reference: str, root: Path = Path()) -> frozenset[str]:
    """A list of names: `FILE` with one name a line or a JSON list, or `FILE:KEY` for a list inside a JSON
    object.

    Raises:
        DataError: no such file or key, or not a list of strings.
    """
    path, key = root / reference, None
    if not path.is_file() and ":" in reference:
        name, _, key = reference.rpartition(":")
        path = root / name
    if path.suffix != ".json":
        if key is not None:
            raise DataError(f"{path}: only a .json file has a list called {key!r}")
        return frozenset(line.strip() for line in read_text(path).splitlines() if line.strip())
    content = read_json(path)
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise DataError(f"{path}: no list called {key!r} in it")
        content = content[key]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise DataError(f"{path}: wanted a list of strings{f' under {key!r}' if key else ''}")
    return frozenset(content)


def select(
    names: list[str],
    only: frozenset[str] | None = None,
    leave_out: frozenset[str] = frozenset(),
    holdout_every: int = 0,
    holdout_first: int = 0,
    holdout_part: str = "rest",
    others: Collection[str] = (),
) -> set[str]:
    """The names that are taken.

    Args:
        names: all pictures of the data set; their order does not matter, each is once in the list.
        only: take only these; leave_out: take none of these. Full names, or the last part of them
            with or without its ending (as VOC's lists have it).
        holdout_every: n > 0: of all the data set's names in sorted order, number `holdout_first`,
            `holdout_first` + n, ... (counted from 0, before `only` and `leave_out`) are kept out for
            measuring.
        holdout_part: "rest": take what is not kept out (for training); "kept": take what is kept out (for
            measuring).
        others: pictures that have nothing to be taken (no annotation, a faulty one); lists may name them, and
            all that `only` and `leave_out` let through count as taken, for no part holds them out.

    Raises:
        DataError: a setting out of range, or a name in a list that no picture has.
    """
    if holdout_every < 0 or not 0 <= holdout_first < max(holdout_every, 1):
        raise DataError(f"holdout: every {holdout_every}, first {holdout_first}: wanted 0 <= first < every")
    if holdout_part not in ("rest", "kept"):
        raise DataError(f"holdout part {holdout_part!r}: wanted `rest` or `kept`")
    ordered = sorted(names)
    taken = set(ordered)
    if holdout_every:
        kept = set(ordered[holdout_first::holdout_every])
        taken = kept if holdout_part == "kept" else taken - kept
    taken.update(set(others).difference(ordered))
    known = {*ordered, *others}
    if only is not None:
        taken &= _matching(known, only)
    return taken - _matching(known, leave_out)


def _matching(names: Collection[str], wanted: frozenset[str]) -> set[str]:
    spelt = comparable(names)
    sought = {spelt(name): name for name in wanted}

    def called(name: str) -> set[str]:
        last = spelt(name).rpartition("/")[2]
        return {spelt(name), last, stem_of(last)}

    matching = {name for name in names if called(name) & sought.keys()}
    unknown = {sought[name] for name in sought.keys() - set().union(*map(called, matching))}
    if unknown:
        raise DataError(f"{len(unknown)} listed names that no picture has: {', '.join(sorted(unknown)[:10])}")
    return matching
