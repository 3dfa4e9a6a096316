"""Held-out data: pictures with what is true of them, and what a model says of them, batch by batch. What is
made of that is evaluate.py's and calibrate.py's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data_prep.errors import DataError
from wordtree import WordTree
from yolo9000 import augment
from yolo9000.asked import Asked
from yolo9000.boxes import decode
from yolo9000.canvas import as_input, placed
from yolo9000.device import batches_ahead, loaders_told, wants_bfloat16
from yolo9000.errors import NO_NUMBER, ImageError, TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.letterbox import rect_size
from yolo9000.network import Network
from yolo9000.options import Options, asked_rule, merged
from yolo9000.parts import Samples, by_name, label_map
from yolo9000.tasks import full_precision
from yolo9000.voting import vote

# What helps where a process that loads pictures was killed (device.loaders_told).
KILLED = "take fewer workers, or a smaller batch"

# In the order in which Asked takes them.
_LISTS = ("negative_labels", "image_labels", "not_exhaustive_labels")


@dataclass(frozen=True)
class EvalSettings:
    """size: side of the square input in pixels, or (width, height), 0 = the model's own; rect: no more of
    it than each picture needs, in whole strides (letterbox.rect_size); resize: how pictures are scaled,
    "smooth" or "darknet", None = the model's own. objectness: boxes below are not looked at. pairs: (box,
    node) pairs of a picture that suppression looks at, the best ones; nms: overlap above which of two
    boxes with one node the worse goes. threshold, tree_threshold, rule: of the answer for pictures with
    labels only, None = as the model's detector has them; the best box counts if its objectness exceeds
    the threshold. level, vocabulary, accuracy, hedge_lambda: what rules of those names take, as in
    Options. vote_iou: overlap from which boxes vote (voting.py), None = the model's own. resamples: of
    the bootstrap. limit: pictures at most, 0 = all. nodes: also score boxes at every node above the
    truth, the best node_pairs pairs of a picture and depth.
    """

    size: int | tuple[int, int] = 0
    rect: bool = False
    batch: int = 32
    objectness: float = 0.001
    pairs: int = 600
    nms: float = 0.45
    threshold: float | None = None
    tree_threshold: float | None = None
    rule: str | None = None
    resamples: int = 200
    precision: str = "auto"
    workers: int = 1
    limit: int = 0
    nodes: bool = False
    node_pairs: int = 200
    level: int | str | Sequence[str | int] | None = None
    vocabulary: str | Sequence[str | int] | None = None
    accuracy: float | None = None
    hedge_lambda: float | None = None
    vote_iou: float | None = None
    resize: str | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def size_said(self) -> int | str:
        """The size as --size takes it: 416, or 608x416."""
        wide, high = self.sides
        return wide if wide == high else f"{wide}x{high}"

    def of_model(self, net: Network) -> "EvalSettings":
        """With everything that is left open as the model's own detector has it. Raises TrainingError for
        options that do not go together."""
        own = net.defaults
        size = self.size or net.own_size
        if not isinstance(size, int):
            size = int(size[0]) if size[0] == size[1] else (int(size[0]), int(size[1]))
        options = Options()
        filled = {
            name: own.get(name, getattr(options, name))
            for name in ("threshold", "tree_threshold", "rule", "vote_iou")
            if getattr(self, name) is None
        }
        try:  # what only one rule takes asks for that rule
            filled["rule"] = asked_rule(vars(self)) or filled["rule"]
        except ValueError as error:
            raise TrainingError(str(error)) from error
        return replace(self, size=size, resize=self.resize or own.get("resize", "smooth"), **filled)

    def options(self, net: Network) -> Options:
        """How an answer is chosen: as given here, else as the model's own detector does. Raises
        TrainingError."""
        known = {part.name for part in fields(Options)}
        own = {k: v for k, v in net.defaults.items() if k in known}
        names = ("threshold", "tree_threshold", "rule", "vote_iou")
        names += ("level", "vocabulary", "accuracy", "hedge_lambda")
        try:
            return merged(own, {name: getattr(self, name) for name in names})
        except (TypeError, ValueError) as error:
            raise TrainingError(str(error)) from error


class Pictures(Dataset):
    """Letterboxed pictures in batches, in order; of several sizes of input one after the other. Picklable."""

    def __init__(self, stores: Sequence[Samples], settings: EvalSettings, stride: int):
        where = [(s, i) for s, store in enumerate(stores) for i in range(len(store))]
        self.stores = list(stores)
        self.where = np.array(where[: settings.limit or None], np.int64).reshape(-1, 2)
        sizes: dict[tuple[int, int], list[int]] = {}  # (width, height) of the input -> places
        self.resize = settings.resize or "smooth"
        for place in range(len(self.where)):
            size = settings.sides
            if settings.rect:
                size = rect_size(self.pixels(place), size, stride)
            sizes.setdefault(size, []).append(place)
        self.batches = [
            (size, np.array(places[first : first + settings.batch], np.int64))
            for size, places in sizes.items()
            for first in range(0, len(places), settings.batch)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def bytes(self) -> int:
        """Of the pixels of the largest batch."""
        pixel = 12 if self.resize == "darknet" else 3  # float32, or uint8
        return max(
            (pixel * width * height * len(places) for (width, height), places in self.batches), default=1
        )

    def __getitem__(self, number: int) -> tuple[Tensor, list[augment.Placement], np.ndarray] | str:
        """A batch; or what is wrong with a picture of it, as text: an error from another process would bring
        its traceback."""
        size, places = self.batches[number]
        drawn = []
        for store, index in self.where[places]:
            name = ""
            try:
                sample = self.stores[store][int(index)]
                name = f"{sample.name}: "
                drawn.append(placed(sample.image, size, self.resize))
            # A checksum that does not fit, and what Pillow raises for broken files.
            except (DataError, ImageError, OSError, ValueError, SyntaxError) as error:
                return f"{name}{error}; data-prep check tells all such pictures, pack without them"
        return torch.stack([canvas for canvas, _ in drawn]), [placement for _, placement in drawn], places

    def pixels(self, place: int) -> tuple[int, int]:
        """(width, height) of a picture."""
        store, index = self.where[place]
        return int(self.stores[store].widths[index]), int(self.stores[store].heights[index])


class Truth:
    """What is true of each picture, in the network's nodes. `kinds`: the nodes that truth has boxes of, as
    columns; -1 for one that the network's tree has not; it counts as a class of which nothing is found.
    `labels`: those of pictures without boxes, as far as the tree has them. `absent`: of each picture the
    nodes verified not to be there; `asked`: what was looked for in it. Not everything was in pictures of a
    source that has, for any picture here, a list of absent or of not exhaustive nodes.

    Scores along the tree go by `kinds_along`, `labels_along` and `asked_along`. There the nearest node above,
    by the data's own tree, that the network's has too stands for one that it lacks: a husky is a dog.
    `raised`: of each picture how many boxes that count, or labels, another node stands for; `left_out`: how
    many none does; `strange`: the ids of these.
    """

    def __init__(self, stores: Sequence[Samples], where: np.ndarray, net: Network, tree: WordTree):
        if net.tree is None:
            self.maps = [by_name(net.names, net.classes, store.tree.ids) for store in stores]
            self.maps_along = self.maps
        else:
            self.maps = [label_map(store.tree.ids, tree.ids) for store in stores]
            pairs = zip(self.maps, stores, strict=True)
            self.maps_along = [_or_above(mapping, store.tree.parents) for mapping, store in pairs]
        self.samples = [self._sample(stores, *map(int, pair)) for pair in where]
        ids: dict[str, int] = {}
        along: dict[str, int] = {}
        for sample, (store, _) in zip(self.samples, where, strict=True):
            for node in sample.labels:
                wnid = stores[store].tree.ids[int(node)]
                ids.setdefault(wnid, _mapped(self.maps[store], node))
                # Of two trees with this node one may know a node above it that the other does not.
                along[wnid] = max(along.get(wnid, -1), _mapped(self.maps_along[store], node))
        self.ids = tuple(sorted(ids))
        self.kinds = tuple(ids[i] for i in self.ids)  # node of the network for each column, -1 = unknown
        self.kinds_along = tuple(along[i] for i in self.ids)
        column = {wnid: k for k, wnid in enumerate(self.ids)}
        self.columns, self.labels, self.labels_along = [], [], []
        self.raised, self.left_out = [], []
        strange = set()
        for sample, (store, _) in zip(self.samples, where, strict=True):
            names = stores[store].tree.ids
            columns = [column[names[int(n)]] for n in sample.labels]
            self.columns.append(np.array(columns, np.int64))
            # (id, the network's node, that which stands for it) of what is to be found or named
            if sample.boxed:
                given = [
                    (self.ids[k], self.kinds[k], self.kinds_along[k])
                    for k, ignored in zip(columns, sample.crowd | sample.difficult, strict=True)
                    if not ignored
                ]
            else:
                maps = self.maps[store], self.maps_along[store]
                given = [(names[int(n)], *(_mapped(m, n) for m in maps)) for n in sample.image_labels]
            self.labels.append([] if sample.boxed else [own for _, own, _ in given if own >= 0])
            self.labels_along.append([] if sample.boxed else [node for *_, node in given if node >= 0])
            self.raised.append(sum(own < 0 <= node for _, own, node in given))
            self.left_out.append(sum(node < 0 for *_, node in given))
            strange |= {wnid for wnid, _, node in given if node < 0}
        self.strange = tuple(sorted(strange))
        lists = {what: self._lists(what, where, self.maps) for what in _LISTS}
        self.absent = lists["negative_labels"]
        self.asked = self._asked(lists, where)
        # What is said to be there is so above, too; what is said to be absent need not be.
        lists |= {what: self._lists(what, where, self.maps_along) for what in _LISTS[1:]}
        self.asked_along = self._asked(lists, where)

    @property
    def complaint(self) -> str:
        """Which of the data's classes the model can't be asked for, or ""."""
        if not self.strange:
            return ""
        some = ", ".join(self.strange[:6]) + ", ..." * (len(self.strange) > 6)
        return (
            f"of {sum(self.left_out)} boxes and labels the model's tree has neither the class nor any node "
            f"above it: {some}; pack the data by the model's tree, or with --map"
        )

    def _lists(self, what: str, where: np.ndarray, maps: Sequence[np.ndarray | None]) -> list[list[int]]:
        """Nodes of each picture, -1 where the network's tree has none."""
        return [
            [_mapped(maps[store], n) for n in getattr(sample, what)]
            for sample, (store, _) in zip(self.samples, where, strict=True)
        ]

    def _asked(self, lists: dict[str, list[list[int]]], where: np.ndarray) -> Asked:
        of = [(int(store), sample.source) for sample, (store, _) in zip(self.samples, where, strict=True)]
        partial = {
            source
            for source, sample in zip(of, self.samples, strict=True)
            if len(sample.negative_labels) or len(sample.not_exhaustive_labels)
        }
        pairs = []
        for what in _LISTS:
            known = [(k, node) for k, nodes in enumerate(lists[what]) for node in nodes if node >= 0]
            pairs += list(np.array(known, np.int64).reshape(-1, 2).T)  # (k, 2) -> pictures, nodes
        return Asked(np.array([source not in partial for source in of], bool), *pairs)

    @staticmethod
    def _sample(stores: Sequence[Samples], store: int, index: int) -> Any:
        of = stores[store]
        return of.annotation(index) if hasattr(of, "annotation") else of[index]


def _mapped(mapping: np.ndarray | None, node: int) -> int:
    """The network's node for one of the data's tree; None: both trees are the same."""
    return int(node) if mapping is None else int(mapping[node])


def _or_above(mapping: np.ndarray | None, parents: np.ndarray) -> np.ndarray | None:
    """A label_map (n,) in which nodes that the network's tree has not go where their parents go, if anywhere;
    parents: (n,) of the data's tree, -1 for roots."""
    if mapping is None:
        return None
    found = mapping.copy()
    for node in np.flatnonzero(mapping < 0):  # parents come before their children
        if parents[node] >= 0:
            found[node] = found[parents[node]]
    return found


@dataclass(frozen=True)
class Output:
    """What a network says of N pictures. places: (N,) their positions; placements: where each lies in the
    input. Of a detector: lazy, boxes_cxcywh (N, A, H, W, 4) in 0..1 of the input, objectness (N, A, H, W);
    of a classifier: logits (N, C). All float32.
    """

    places: np.ndarray
    placements: list[augment.Placement]
    lazy: LazyOutput | None = None
    boxes_cxcywh: Tensor | None = None
    objectness: Tensor | None = None
    logits: Tensor | None = None


class HeldOut:
    """Packed data as one network is tried on it.

    Attributes: settings (completed by the model's own), tree (a flat one for a list of classes), hierarchy,
    pictures, truth, detector (else a classifier), bfloat16 (whether the network runs in it). Raises
    TrainingError for a network, a size or labels that do not fit.
    """

    def __init__(self, net: Network, stores: Sequence[Samples], settings: EvalSettings):
        self.settings = settings = settings.of_model(net)
        if net.spec.region is None and net.spec.softmax is None:
            raise TrainingError("this network is neither a detector nor a classifier; it cannot be judged")
        if any(side % max(1, net.stride) for side in settings.sides):
            raise TrainingError(
                f"size {settings.size_said} is not a multiple of the network's stride, {net.stride}"
            )
        self.tree = net.tree or WordTree.flat([str(k) for k in range(net.classes)])
        self.net = net.eval().to(memory_format=torch.channels_last)
        self.device = next(net.parameters()).device
        self.hierarchy = Hierarchy(self.tree).to(self.device)
        self.pictures = Pictures(stores, settings, max(1, net.stride))
        self.truth = Truth(stores, self.pictures.where, net, self.tree)
        self.detector = net.spec.region is not None
        self.bfloat16 = wants_bfloat16(settings.precision, self.device)

    def outputs(self, progress: bool = False) -> Iterator[Output]:
        """What the network says of all pictures, in order; to be called under torch.inference_mode, and
        `loaders_told(KILLED)`: that a loading process was killed may be told at any line of the caller's.
        Raises TrainingError for a picture that cannot be read, and objectness or logits that are no numbers.
        """
        workers = self.settings.workers
        ahead = batches_ahead(self.pictures.bytes, workers, 2)
        workers = workers if ahead else 0
        loader = DataLoader(
            self.pictures,
            batch_size=None,  # an item is a whole batch
            num_workers=workers,
            prefetch_factor=ahead if workers else None,
            worker_init_fn=_one_thread,
            collate_fn=_same,
        )
        bar = tqdm(total=len(self.pictures.where), unit="img", disable=not progress)
        with bar, loaders_told(KILLED):
            for item in loader:
                if isinstance(item, str):
                    raise TrainingError(item)
                canvas, placements, places = item
                images = as_input(canvas.to(self.device))
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    out = self.net.lazy(images) if self.detector else self.net.logits(images)
                if self.detector:
                    out = full_precision(out)
                    boxes, objectness = decode(out.boxes, self.net.anchors)
                    voted = vote(boxes, numbers(objectness), self.settings.vote_iou)
                    yield Output(places, placements, out, *voted)
                else:
                    yield Output(places, placements, logits=numbers(out.float()))
                bar.update(len(places))


def numbers(values: Tensor) -> Tensor:
    """What a network answers, of any shape, as it is. Raises TrainingError where it is no number, as by
    damaged weights: sorted and compared, that would give scores all the same. -inf is a number here."""
    if bool(values.isnan().any()):
        raise TrainingError(NO_NUMBER)
    return values


def _same(item: Any) -> Any:
    return item


def _one_thread(number: int) -> None:
    torch.set_num_threads(1)
