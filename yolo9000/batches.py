"""Batches for training: pictures laid out and coloured, with their targets. Which samples they are taken from
is parts.py's. Holds no loss and no optimiser.

Batch number n is a pure function of (configuration, seed, n): every part of the data is an endless stream of
permutations, a batch takes the next stretch of each, and each picture's augmentation draws from a generator
keyed by seed, batch and part. So nothing but a count needs saving for a resumed run to see exactly the
batches it would have seen, whatever the number of workers.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.errors import DataError
from yolo9000 import augment
from yolo9000.config import PartConfig, TrainConfig
from yolo9000.device import batches_ahead
from yolo9000.errors import ImageError, TrainingError
from yolo9000.parts import Part, Samples, Turns, select_parts, total_batches

_FEWEST_PIXELS = 2.0  # a side of a box cut to less than this shows nothing that could be learnt

# Whether a signal can be waited for together with who sent it: on Linux.
_TELLS_SENDER = hasattr(signal, "sigtimedwait")
_LAYOUTS = {
    "letterbox": augment.centred,
    "crop": augment.crop,
    "mosaic": augment.crop,  # within each tile
    "resized_crop": augment.resized_crop,
}


@dataclass
class Batch:
    """What a task is given.

    images: (N, 3, H, W) float32 RGB 0..1, channels_last. targets: N dicts as RegionLoss takes them: boxed
    pictures have "boxes" (n, 4) cxcywh in 0..1 and "labels" (n,), perhaps "ignore_boxes" (m, 4) where
    objectness costs nothing, "named" (n,) and "not_exhaustive_labels" (q,); others "image_labels" (m,), which
    is empty for unlabelled ones; both may have "negative_labels", and then "shown_labels". parts: (N,)
    position of each picture's data part.
    """

    number: int
    images: torch.Tensor
    targets: list[dict[str, torch.Tensor]]
    names: list[str]
    parts: torch.Tensor
    seen: int = 0  # pictures before this batch, over all processes
    skipped: list[str] = field(default_factory=list)  # not decoded, each replaced by another picture

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.images.shape[3], self.images.shape[2]


class Batches(Dataset):
    """All batches of a run, by number; picklable, and each worker process opens the stores for itself.

    label_map: for each store, (n,) node of the network for each label of the store, or None where they are
    the same; -1 = no such node. rank, ranks: this process's share of every batch, pictures rank, rank +
    ranks, ... seen: pictures that the network was trained on before the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        stores: Sequence[Samples],
        label_maps: Sequence[np.ndarray | None] | None = None,
        rank: int = 0,
        ranks: int = 1,
        seen: int = 0,
    ):
        self.config = config
        self.stores = list(stores)
        self.label_maps = list(label_maps) if label_maps is not None else [None] * len(self.stores)
        self.rank, self.ranks, self.seen = rank, ranks, seen
        self.turns = Turns(config)
        self.parts = select_parts(config, self.stores, self.turns)
        self._permutations: dict[tuple[int, int], np.ndarray] = {}  # (part, epoch); the last few

    def __len__(self) -> int:
        return total_batches(self.config, self.parts, self.turns)

    @property
    def bytes(self) -> int:
        """Of the pixels of the largest batch, all processes' shares together."""
        return 3 * self.config.batch * max(self.config.sizes) ** 2

    def size_of(self, number: int) -> int:
        """The input size of a batch: drawn anew every `input.every` batches (paper, section 2, multi-scale
        training).
        """
        group, turn = self.turns.of(number)
        sizes = self.turns.sizes[group]
        if len(sizes) == 1:
            return sizes[0]
        random = np.random.default_rng([self.config.seed, 1, turn // self.config.input.every])
        return sizes[int(random.integers(len(sizes)))]

    def places(self, number: int, part: int, count: int | None = None) -> np.ndarray:
        """Positions within the part, (pictures, stride), of the samples that batch `number` takes from it, if
        it is the part's turn.
        """
        chosen = self.parts[part]
        count = chosen.count if count is None else count
        length, stride = len(chosen.where), chosen.stride
        first = self.turns.of(number)[1] * chosen.count * stride
        stream = np.arange(first, first + count * stride)
        out = np.empty(len(stream), np.int64)
        for epoch in np.unique(stream // length):
            inside = stream // length == epoch
            out[inside] = self._permutation(part, int(epoch))[stream[inside] % length]
        return out.reshape(count, stride)  # (count * stride,) -> (pictures, samples of each)

    def __getitem__(self, number: int) -> dict[str, Any]:
        try:
            return self._make(number)
        except (TrainingError, DataError) as error:
            return {"error": str(error)}  # raised where it is used: a worker's comes with its whole traceback

    def _make(self, number: int) -> dict[str, Any]:
        size = self.size_of(number)
        # The generator is keyed by picture, so that a rank's share is the same pictures that a single process
        # would make.
        members = self.turns.members[self.turns.of(number)[0]]
        pictures = [(p, k) for p in members for k in range(self.parts[p].count)]
        mine = pictures[self.rank :: self.ranks]
        canvas = np.full((len(mine), size, size, 3), augment.GREY, np.uint8)
        draws = np.zeros((len(mine), 3))  # for the colours
        targets, names, skipped = [], [], []
        places = {p: self.places(number, p) for p in members}
        for row, (p, k) in enumerate(mine):
            # The high words of the counter: a picture's draws move the low ones.
            bits = np.random.Philox(key=[self.config.seed, number], counter=[0, 0, p, k])
            random = np.random.Generator(bits)
            target, name, bad = self._picture(p, places[p][k], canvas[row], random)
            draws[row] = random.random(3)
            targets.append(target)
            names.append(name)
            skipped += bad
        for p, part in enumerate(self.parts):
            rows = [row for row, (q, _) in enumerate(mine) if q == p]
            if rows:
                span = slice(rows[0], rows[-1] + 1)  # pictures of a part stand together
                canvas[span] = augment.colour(canvas[span], part.config.augment, draws[span])
        parts = np.array([p for p, _ in mine], np.int64)
        # Arrays for the targets, not tensors: each tensor would travel by a file descriptor of its own.
        return {
            "number": number,
            "seen": self.seen + number * self.config.batch,
            "images": torch.from_numpy(canvas),
            "targets": targets,
            "names": names,
            "parts": parts,
            "skipped": skipped,
        }

    def _permutation(self, part: int, epoch: int) -> np.ndarray:
        key = part, epoch
        if key not in self._permutations:
            while len(self._permutations) > 4 * len(self.parts):
                self._permutations.pop(next(iter(self._permutations)))
            random = np.random.default_rng([self.config.seed, 0, part, epoch])
            self._permutations[key] = random.permutation(len(self.parts[part].where))
        return self._permutations[key]

    def _picture(
        self, p: int, places: np.ndarray, canvas: np.ndarray, random: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], str, list[str]]:
        part, settings = self.parts[p], self.parts[p].config.augment
        height, width = canvas.shape[:2]
        views, choose = [(0, 0, width, height)], _LAYOUTS[settings.layout]
        if settings.layout == "mosaic" and random.random() < settings.mosaic_share:
            tiles = int(random.integers(settings.tiles[0], settings.tiles[1] + 1))
            views = augment.mosaic_views((width, height), tiles, random)
        found, names, bad = [], [], []
        for place, view in zip(places, views, strict=False):
            sample, placement = self._drawn(part, int(place), choose, view, canvas, random, bad)
            found.append(_target(sample, placement, (width, height), part.config))
            names.append(sample.name)
        return _joined(found), "+".join(names), bad

    def _drawn(
        self,
        part: Part,
        place: int,
        choose: Any,
        view: tuple,
        canvas: np.ndarray,
        random: np.random.Generator,
        bad: list,
    ) -> tuple[Any, augment.Placement]:
        """Draws a sample into its view; a picture that cannot be read is reported in `bad` and another of the
        part takes its place.
        """
        for _ in range(20):  # so many bad ones in a row are no accident
            store, index = part.where[place]
            name = ""
            try:
                sample = self.stores[store][int(index)]
                name = f"{sample.name}: "
                image = augment.open_image(sample.image)
                placement = choose(*image.size, view, part.config.augment, random)
                augment.draw(image, placement, canvas)
            # A checksum that does not fit, and what Pillow raises for broken files.
            except (DataError, ImageError, OSError, ValueError, SyntaxError) as error:
                bad.append(f"{name}{error}")
                place = int(random.integers(len(part.where)))
                continue
            return _mapped(sample, self.label_maps[store]), placement
        raise TrainingError(f"20 pictures in a row cannot be read, the last: {bad[-1]}; run data-prep check")


def load_batches(batches: Batches, start: int, workers: int, device: torch.device) -> Iterator[Batch]:
    """Batches start, start + 1, ... to the end, made ahead by worker processes (or here, with workers = 0, or
    where the system lets processes share too little memory).
    """
    ahead = batches_ahead(batches.bytes, workers, 4)
    workers = workers if ahead else 0
    loader = DataLoader(
        batches,
        batch_size=None,  # an item is a whole batch
        sampler=range(start, len(batches)),
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        persistent_workers=False,
        worker_init_fn=_quiet_worker,
        pin_memory=device.type == "cuda",
        # It draws a seed for its workers, which nothing here reads: not from the generator that losses and
        # networks draw from, whose state a resumed run has just put back.
        generator=torch.Generator(),
    )
    for item in loader:
        if "error" in item:
            raise TrainingError(item["error"])
        yield to_batch(item, device)


def to_batch(item: dict[str, Any], device: torch.device) -> Batch:
    """Tensors of what `Batches[number]` made: bytes become 0..1, (N, H, W, 3) memory is (N, 3, H, W) in
    channels_last as it stands.
    """
    images = item["images"].to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255.0)
    targets = [{k: torch.as_tensor(v).to(device) for k, v in t.items()} for t in item["targets"]]
    parts = torch.as_tensor(item["parts"])
    return Batch(item["number"], images, targets, item["names"], parts, item["seen"], item["skipped"])


def open_store(path: Path) -> Samples:
    """A packed file (data-prep pack)."""
    from data_prep.store import Store

    if not path.is_file():
        raise TrainingError(f"{path}: no such file; make one with: data-prep pack")
    return Store(path)


def _mapped(sample: Any, mapping: np.ndarray | None) -> Any:
    if mapping is None:
        return sample
    lists = {}
    for what in ("image_labels", "negative_labels", "not_exhaustive_labels"):
        nodes = mapping[getattr(sample, what)]
        lists[what] = nodes[nodes >= 0]
    return replace(sample, labels=mapping[sample.labels], **lists)


def _target(
    sample: Any, placement: augment.Placement, size: tuple[int, int], part: PartConfig
) -> dict[str, np.ndarray]:
    target = {}
    if len(sample.negative_labels):
        # Crowds, difficult boxes and what the view cuts off are shown in the picture, too.
        positive = sample.labels, sample.image_labels, sample.not_exhaustive_labels
        target["negative_labels"] = sample.negative_labels
        target["shown_labels"] = np.unique(np.concatenate([nodes[nodes >= 0] for nodes in positive]))
    if not sample.boxed or part.ignore_boxes:
        labels = (
            sample.image_labels if not sample.boxed else np.concatenate([sample.labels, sample.image_labels])
        )
        target["image_labels"] = np.unique(labels[labels >= 0])
        return target
    if len(sample.not_exhaustive_labels):
        target["not_exhaustive_labels"] = sample.not_exhaustive_labels
    boxes_xyxy, visible = augment.carry(sample.boxes_cxcywh, placement, size)
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    shown = (sides.min(axis=1, initial=np.inf) >= _FEWEST_PIXELS) if len(sides) else np.zeros(0, bool)
    whole = np.array(sample.boxes_cxcywh[:, 2:] > 0).all(axis=1)
    truth = whole & shown & (visible >= part.augment.min_visible) & ~sample.crowd & ~sample.difficult
    truth &= sample.labels >= 0
    scale = np.array([*size, *size], np.float32)
    centre = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    boxes_cxcywh = (np.concatenate([centre, sides], axis=1) / scale).astype(np.float32)
    target["boxes"], target["labels"] = boxes_cxcywh[truth], sample.labels[truth]
    if not part.names:
        target["named"] = np.zeros(len(target["labels"]), bool)
    ignored = ~truth & (visible > 0)
    if ignored.any():
        target["ignore_boxes"] = boxes_cxcywh[ignored]
    return target


def _joined(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One target of the tiles' targets. What is nowhere in one tile may be in another: only what is absent
    from all stays a negative label.
    """
    if len(found) == 1:
        return found[0]
    keys = {key for target in found for key in target} - {"negative_labels"}
    joined = {key: np.concatenate([t[key] for t in found if key in t]) for key in keys}
    if "image_labels" in joined:
        joined["image_labels"] = np.unique(joined["image_labels"])
    absent = reduce(np.intersect1d, [t.get("negative_labels", ()) for t in found]).astype(np.int64)
    return joined | ({"negative_labels": absent} if len(absent) else {})


def _quiet_worker(number: int) -> None:
    """Workers leave signals to the training process, which saves and then ends them, and end by themselves
    where it was killed; one thread each, the network needs the rest.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # terminals send it to the whole group
    if _TELLS_SENDER:  # elsewhere SIGTERM is how the training process ends its workers
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the thread to take
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, or when the parent itself asks for it, as it does where an
    error ends it with the workers still at work. One that waits for its queue to be read would stay forever,
    and the parent with it.
    """
    while os.getppid() == parent:
        if not _TELLS_SENDER:
            time.sleep(1)
        elif (told := signal.sigtimedwait({signal.SIGTERM}, 1)) and told.si_pid == parent:
            os._exit(0)
    os._exit(1)
