"""Parts of the data: which samples of the stores make up a share of every batch, and how many; and, where
parts have input sizes of their own, whose turn a batch is. Opens no picture; what becomes of the samples is
batches.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np

from yolo9000.config import PartConfig, TrainConfig
from yolo9000.errors import TrainingError

_CYCLE = 20  # batches in which every group of sizes has its turns


class Samples(Protocol):
    """What batches need of data_prep.Store: length, samples by position, and what is known of them without
    their pictures.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Part:
    """The samples of one part: (store, index) pairs in the order of the stores, and how many pictures of a
    batch they fill.
    """

    config: PartConfig
    where: np.ndarray  # (n, 2) int64: number of the store, index in it
    count: int  # pictures in each batch

    @property
    def stride(self) -> int:
        """Samples of the stream that a picture may use up: a mosaic takes as many as its largest has
        tiles.
        """
        tiles = self.config.augment.tiles[1] if self.config.augment.layout == "mosaic" else 1
        return tiles * tiles


class Turns:
    """Whose turn each batch is. Parts with the same input sizes share batches; where there are several such
    groups, each has its share of every 20 batches, spread evenly. One group: every batch is its.

    members: for each group the positions of its parts; sizes: for each group its input sizes.
    """

    def __init__(self, config: TrainConfig):
        groups: dict[tuple[int, ...], list[int]] = {}
        for k, part in enumerate(config.data):
            groups.setdefault(part.sizes or config.input.sizes, []).append(k)
        self.sizes, self.members = list(groups), list(groups.values())
        weights = [sum(config.data[k].share for k in members) for members in self.members]
        cycle = _CYCLE if len(weights) > 1 else 1
        self.counts = part_counts(weights, cycle)
        for members, count in zip(self.members, self.counts, strict=True):
            if not count:
                part = config.data[members[0]].name or str(members[0])
                raise TrainingError(
                    f"data part {part} has sizes of its own and less than one batch in {cycle}"
                )
        # Each time the one whose turns so far fall furthest behind its share.
        self.order: list[int] = []
        for n in range(1, cycle + 1):
            behind = [n * count / cycle - self.order.count(g) for g, count in enumerate(self.counts)]
            self.order.append(max(range(len(behind)), key=behind.__getitem__))

    def of(self, number: int) -> tuple[int, int]:
        """The group of batch `number`, and how many batches it had before."""
        cycles, place = divmod(number, len(self.order))
        group = self.order[place]
        return group, cycles * self.counts[group] + self.order[:place].count(group)


def select_parts(config: TrainConfig, stores: Sequence[Samples], turns: Turns) -> list[Part]:
    """The parts of the configuration with their samples and exact counts in a batch; TrainingError where a
    part has none.
    """
    counts = [0] * len(config.data)
    for members in turns.members:
        shares = part_counts([config.data[k].share for k in members], config.batch)
        for k, count in zip(members, shares, strict=True):
            counts[k] = count
    parts = []
    described = [describe(store) for store in stores]
    for k, (part, count) in enumerate(zip(config.data, counts, strict=True)):
        where = []
        for s, (sources, kinds) in enumerate(described):
            keep = np.ones(len(kinds), bool) if part.kind == "any" else kinds == part.kind
            if part.source:
                known = {n for n in np.unique(sources) if any(fnmatchcase(n, p) for p in part.source)}
                keep &= np.isin(sources, list(known))
            index = np.flatnonzero(keep)
            where.append(np.stack([np.full(len(index), s), index], axis=1))
        chosen = np.concatenate(where) if where else np.zeros((0, 2), np.int64)
        title = part.name or str(k)
        if not len(chosen):
            known = sorted(
                {
                    f"{a} ({b})"
                    for sources, kinds in described
                    for a, b in set(zip(sources, kinds, strict=True))
                }
            )
            raise TrainingError(
                f"data part {title} (source {list(part.source) or 'any'}, kind {part.kind}) selects no "
                f"sample; the data has: {', '.join(known)}. Give such data with --data, or leave the part "
                "out of the configuration"
            )
        if count == 0:
            raise TrainingError(f"data part {title} has less than one picture in a batch of {config.batch}")
        if part.augment.layout == "mosaic" and part.kind not in ("boxed", "label"):
            raise TrainingError(
                f"data part {title}: a mosaic needs kind boxed or label, so that its tiles agree"
            )
        parts.append(Part(part, chosen.astype(np.int64), count))
    return parts


def describe(store: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Source name and kind (boxed | label | unlabelled) of every sample, each (n,) of str, without touching
    the pictures.
    """
    boxed = np.asarray(store.boxed, bool)
    labelled = np.array([len(store.labels_of(i)) > 0 for i in range(len(store))], bool)
    kinds = np.where(boxed, "boxed", np.where(labelled, "label", "unlabelled"))
    return np.asarray(store.source, dtype=object).astype(str), kinds


def part_counts(shares: Sequence[float], batch: int) -> list[int]:
    """Whole numbers that add up to `batch`, in proportion to the shares (largest remainders first; ties to
    the earlier part).
    """
    exact = np.asarray(shares, float) * (batch / sum(shares))
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: batch - counts.sum()]] += 1
    return counts.tolist()


def total_batches(config: TrainConfig, parts: Sequence[Part], turns: Turns) -> int:
    """Batches in the run: `images` of them, or `epochs` passes over the part that takes longest."""
    if config.images:
        return -(-config.images // config.batch)
    often = {
        k: count / len(turns.order)
        for members, count in zip(turns.members, turns.counts, strict=True)
        for k in members
    }
    longest = max(len(part.where) / (part.count * part.stride * often[k]) for k, part in enumerate(parts))
    return max(1, int(np.ceil(config.epochs * longest)))


def label_map(store_ids: Sequence[str], tree_ids: Sequence[str]) -> np.ndarray | None:
    """(n,) index in the network's tree of every node of the store's tree, -1 where it has none; None where
    both are the same.
    """
    if tuple(store_ids) == tuple(tree_ids):
        return None
    index = {wnid: k for k, wnid in enumerate(tree_ids)}
    return np.array([index.get(wnid, -1) for wnid in store_ids], np.int64)


def by_name(names: Sequence[str] | None, classes: int, ids: Sequence[str]) -> np.ndarray | None:
    """The class of a network without a tree for each class of the data, (len(ids),), if both have names;
    None: they are in the same order. names: of the network's classes. Raises TrainingError for lists that
    differ.
    """
    names = names or ()
    place = {name: k for k, name in enumerate(names)}
    strange = [name for name in ids if name not in place]
    if len(place) < len(names) or len(strange) == len(ids):  # repeated names, or names against ids or numbers
        place = {}
    if place and strange:
        raise TrainingError(
            f"the network has no class {strange[0]!r}; pack the data with the names of its classes "
            "(--flat --names FILE), or map them (--map FILE)"
        )
    if place:
        return np.array([place[name] for name in ids], np.int64)
    if len(ids) != classes:
        raise TrainingError(
            f"the network has {classes} classes and no tree; the data's labels are of another list"
        )
    return None
