"""The kinds of layers a network is described with, each a frozen dataclass that checks its own settings.

How layers fit together is `NetworkSpec`'s to say (spec.py), what they compute `Network`'s (network.py and
blocks.py). No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from yolo9000.errors import ModelError

ACTIVATIONS = ("linear", "leaky", "relu", "logistic", "silu")  # leaky: slope 0.1 below zero, as in Darknet
STARTS = ("darknet", "zero", "boxes")
REORG_ORDERS = ("darknet", "space_to_depth")
IMAGE = -1  # the layer reference that stands for the network's input

# A bound far beyond any network of this kind; it turns a damaged description into an error, not a terabyte.
_MOST = 2**20


@dataclass(frozen=True)
class Layer:
    """Base of all layers. `kind` is the name used in dicts."""

    kind: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form: `{"kind": ..., field: value, ...}`."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {"kind": self.kind, **values}

    def _integer(self, name: str, low: int, high: int = _MOST) -> None:
        value = getattr(self, name)
        if type(value) is not int or not low <= value <= high:
            raise ModelError(
                f"{self.kind}: {name} must be a whole number from {low} to {high}, not {value!r}"
            )

    def _number(self, name: str, low: float = 0.0) -> None:
        value = getattr(self, name)
        if type(value) not in (int, float) or not math.isfinite(value) or value < low:
            raise ModelError(f"{self.kind}: {name} must be a finite number of at least {low}, not {value!r}")

    def _truth(self, *names: str) -> None:
        for name in names:
            if type(getattr(self, name)) is not bool:
                raise ModelError(f"{self.kind}: {name} must be true or false, not {getattr(self, name)!r}")

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ModelError(
                f"{self.kind}: {name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}"
            )

    def _text(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise ModelError(f"{self.kind}: {name} must be a string or null, not {getattr(self, name)!r}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Convolution(Layer):
    """2-D convolution, then batch norm if asked (then without a bias of its own), then the activation.

    `padding`: pixels on every side; by default `dilation * (size // 2)`, which keeps the size at stride 1.
    `start`: what new weights are, "darknet" (`blocks.initialise`), "zero", or "boxes": zero, and every fifth
    bias, objectness, says 0.01, so that training need not first unlearn boxes everywhere. `twin_of`: the
    layer that this one begins as a copy of, batch norm folded, when a trunk is loaded (`start.copy_trunk`).
    """

    kind: ClassVar[str] = "convolution"
    filters: int
    size: int
    stride: int = 1
    padding: int | None = None
    activation: str = "leaky"
    batch_normalize: bool = True
    dilation: int = 1
    groups: int = 1
    start: str = "darknet"
    twin_of: int | None = None

    def __post_init__(self) -> None:
        self._integer("filters", 1)
        if self.twin_of is not None:
            self._integer("twin_of", 0)
        self._integer("size", 1, 99)
        self._integer("stride", 1, 99)
        self._integer("dilation", 1, 99)
        self._integer("groups", 1)
        if self.padding is None:
            self._set("padding", self.dilation * (self.size // 2))
        # Beyond, windows see padding alone, and a small network grows a grid of millions of cells.
        self._integer("padding", 0, self.dilation * self.size)
        self._choice("activation", ACTIVATIONS)
        self._choice("start", STARTS)
        self._truth("batch_normalize")
        if self.filters % self.groups:
            raise ModelError(f"convolution: {self.filters} filters do not divide into {self.groups} groups")


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over `size` x `size` windows. `padding` is the total on both sides, the smaller half first, as
    in Darknet.

    The default, `size - 1`, gives ceil(width / stride); with size 2 it is right and bottom only.
    """

    kind: ClassVar[str] = "maxpool"
    size: int
    stride: int
    padding: int | None = None

    def __post_init__(self) -> None:
        self._integer("size", 1, 99)
        self._integer("stride", 1, 99)
        if self.padding is None:
            self._set("padding", self.size - 1)
        self._integer("padding", 0, self.size - 1)


@dataclass(frozen=True)
class AveragePool(Layer):
    """Mean over `size` x `size` windows. `padded`: stride 1, the same size, and at borders the mean of the
    real cells only.
    """

    kind: ClassVar[str] = "average_pool"
    size: int
    stride: int = 1
    padded: bool = True

    def __post_init__(self) -> None:
        self._integer("size", 1, 99)
        self._integer("stride", 1, 99)
        self._truth("padded")
        if self.padded and (self.stride != 1 or self.size % 2 == 0):
            raise ModelError("average_pool: a padded one has stride 1 and an odd size")


@dataclass(frozen=True)
class RoiAverage(Layer):
    """At every cell the mean over a window that follows the surest of the cell's boxes from layer `boxes`, at
    least `least` cells a side, cut to the picture (roi.py).
    """

    kind: ClassVar[str] = "roi_average"
    boxes: int
    least: int = 1

    def __post_init__(self) -> None:
        self._integer("boxes", 0)
        self._integer("least", 1, 99)


@dataclass(frozen=True)
class GlobalAveragePool(Layer):
    """Mean over all cells: (N, C, H, W) -> (N, C)."""

    kind: ClassVar[str] = "global_average_pool"


@dataclass(frozen=True)
class LogSumExp(Layer):
    """At every cell `rows` linear values, and for each of `sets` the log of the sum of their exponentials.

    Where the rows are a flat classifier's, a channel is what that classifier says of all the classes below an
    inner node of a tree: a softmax over sibling nodes of such channels gives exactly its conditionals.
    """

    kind: ClassVar[str] = "log_sum_exp"
    rows: int
    sets: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        self._integer("rows", 1)
        if not isinstance(self.sets, list | tuple) or not self.sets:
            raise ModelError("log_sum_exp: sets must be a list of lists of row numbers, at least one")
        self._set("sets", tuple(_integers(self, "sets", members) for members in self.sets))
        if any(not members or not 0 <= min(members) <= max(members) < self.rows for members in self.sets):
            raise ModelError(f"log_sum_exp: every set needs row numbers from 0 to {self.rows - 1}")


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes values in training with this probability; nothing in evaluation."""

    kind: ClassVar[str] = "dropout"
    probability: float = 0.5

    def __post_init__(self) -> None:
        self._number("probability")
        if self.probability >= 1:
            raise ModelError(f"dropout: probability must be below 1, not {self.probability}")


@dataclass(frozen=True)
class Route(Layer):
    """The outputs of earlier layers, joined along the channels in the order given."""

    kind: ClassVar[str] = "route"
    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        self._set("layers", _integers(self, "layers", self.layers))
        if not self.layers:
            raise ModelError("route: no layers to take")


@dataclass(frozen=True)
class Add(Layer):
    """The previous layer's output plus that of an earlier layer of the same shape, then the activation."""

    kind: ClassVar[str] = "add"
    layer: int
    activation: str = "linear"

    def __post_init__(self) -> None:
        self._integer("layer", IMAGE)
        self._choice("activation", ACTIVATIONS)


@dataclass(frozen=True)
class Gate(Layer):
    """At every cell 1 - s times the output of layer `first` and s times the previous layer's, side by side: a
    network decides by it which of two experts to hear where, and what comes after has weights for each of
    them. s = clip(1/2 + v / 6, 0, 1): an expert that is not heard is not heard at all, and need not be run.
    v is the only channel of layer `share`, of every cell or, after a global average pool, of the picture.
    """

    kind: ClassVar[str] = "gate"
    first: int
    share: int

    def __post_init__(self) -> None:
        self._integer("first", IMAGE)
        self._integer("share", IMAGE)


@dataclass(frozen=True)
class Reorg(Layer):
    """Space to depth: (C, H, W) -> (C * stride^2, H / stride, W / stride), in one of two orders.

    `darknet`: that program's own permutation, needed for its weights (docs/darknet.md). `space_to_depth`:
    channels ordered (dy, dx, c).
    """

    kind: ClassVar[str] = "reorg"
    stride: int = 2
    order: str = "darknet"

    def __post_init__(self) -> None:
        self._integer("stride", 1, 99)
        self._choice("order", REORG_ORDERS)


@dataclass(frozen=True)
class External(Layer):
    """Output number `output` of one's own backbone, the module given to `Network(spec, external=module)`.

    `channels` and `stride` describe that output. The module sees the image and returns one tensor or several.
    """

    kind: ClassVar[str] = "external"
    channels: int
    stride: int
    output: int = 0

    def __post_init__(self) -> None:
        self._integer("channels", 1)
        self._integer("stride", 1, 9999)
        self._integer("output", 0, 99)


@dataclass(frozen=True)
class Region(Layer):
    """The detection layer of YOLOv2 and YOLO9000; always the last.

    anchors: (width, height) pairs in cells. Darknet's form (`boxes` and `features` None): the layer before
    gives `len(anchors) * (5 + classes)` channels. Otherwise layer `boxes` gives `len(anchors) * 5` channels,
    and this layer holds the class rows, applied to the channels of layer `features`: one set per anchor, or
    one for all if `shared_rows`. `stored`: the nodes that have a row, ascending, or None for all; the others
    have logit -inf. `tree` and `map` name files, as in a cfg. The rest are settings of the loss and of
    training, by their names in cfg files.
    """

    kind: ClassVar[str] = "region"
    anchors: tuple[tuple[float, float], ...]
    classes: int
    tree: str | None = None
    map: str | None = None
    boxes: int | None = None
    features: int | None = None
    stored: tuple[int, ...] | None = None
    shared_rows: bool = False
    bias_match: bool = True
    rescore: bool = True
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0
    thresh: float = 0.6
    jitter: float = 0.2
    absolute: bool = True
    random: bool = True

    def __post_init__(self) -> None:
        self._set("anchors", _anchors(self.anchors))
        self._integer("classes", 1)
        self._text("tree", "map")
        if (self.boxes is None) != (self.features is None):
            raise ModelError("region: `boxes` and `features` are given together or not at all")
        if self.boxes is not None:
            self._integer("boxes", 0)
            self._integer("features", 0)
        elif self.stored is not None or self.shared_rows:
            raise ModelError("region: `stored` and `shared_rows` need `boxes` and `features`")
        if self.stored is not None:
            stored = _integers(self, "stored", self.stored)
            self._set("stored", stored)
            if not stored or any(b <= a for a, b in zip((-1, *stored), stored, strict=False)):
                raise ModelError("region: `stored` must be ascending node indices, at least one")
            if stored[-1] >= self.classes:
                raise ModelError(f"region: stored node {stored[-1]} of only {self.classes} classes")
        self._truth("shared_rows", "bias_match", "rescore", "absolute", "random")
        for name in ("object_scale", "noobject_scale", "class_scale", "coord_scale", "thresh", "jitter"):
            self._number(name)

    @property
    def rows(self) -> int:
        """Number of class rows an anchor has."""
        return len(self.nodes)

    @property
    def nodes(self) -> Sequence[int]:
        """The classes that have a row, ascending."""
        return range(self.classes) if self.stored is None else self.stored


@dataclass(frozen=True)
class Softmax(Layer):
    """Turns a classifier's (N, C) into probabilities; with a tree, over each sibling group. `groups`: equal
    parts, each its own softmax.
    """

    kind: ClassVar[str] = "softmax"
    tree: str | None = None
    groups: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self._text("tree")
        self._integer("groups", 1)
        self._number("temperature")
        if self.temperature == 0:
            raise ModelError("softmax: temperature must be above 0")


LAYERS: dict[str, type[Layer]] = {cls.kind: cls for cls in Layer.__subclasses__()}


def twin_of(index: int, layer: Layer) -> Layer:
    """The same layer to learn beside it: batch norm folded, for its statistics must not run with the data."""
    if not isinstance(layer, Convolution):
        return layer
    return replace(layer, batch_normalize=False, twin_of=index)


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _integers(layer: Layer, name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or any(type(v) is not int for v in values):
        raise ModelError(f"{layer.kind}: {name} must be a list of whole numbers")
    return tuple(values)


def _anchors(values: Any) -> tuple[tuple[float, float], ...]:
    """(width, height) pairs of positive finite numbers; arrays are accepted."""
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        anchors = tuple((float(w), float(h)) for w, h in values)
    except (TypeError, ValueError):
        raise ModelError("region: anchors must be pairs of (width, height) in cells") from None
    if not 1 <= len(anchors) <= 1000 or not all(0 < v < math.inf for pair in anchors for v in pair):
        raise ModelError("region: anchors must be 1 to 1000 pairs of positive numbers")
    return anchors
