"""A network as plain data: what layers there are, in which order, with which settings. No tensors, no torch, no files.

`Network` makes modules from it, `cfg` reads it from Darknet's text, `presets` holds the published ones, and model files embed
`NetworkSpec.to_dict()`. Everything is checked when it is made, so a description that exists can be built and run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from yolo9000.errors import ModelError

ACTIVATIONS = ("linear", "leaky", "relu", "logistic", "silu")  # leaky: slope 0.1 below zero, as in Darknet
REORG_ORDERS = ("darknet", "space_to_depth")
BATCH_NORMS = ("darknet-cpu", "darknet-gpu")
IMAGE = -1  # the layer reference that stands for the network's input

# Bounds far beyond any network of this kind; they turn a damaged description into an error instead of a terabyte.
_MOST = 2**20
_MOST_VALUES = 2**31
_MOST_LAYERS = 2000


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
            raise ModelError(f"{self.kind}: {name} must be a whole number from {low} to {high}, not {value!r}")

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
            raise ModelError(f"{self.kind}: {name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")

    def _text(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise ModelError(f"{self.kind}: {name} must be a string or null, not {getattr(self, name)!r}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Convolution(Layer):
    """2-D convolution, then batch norm if asked (then without a bias of its own), then the activation.

    `padding` is on every side and in pixels; by default it keeps the size at stride 1 (`dilation * (size // 2)`).
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

    def __post_init__(self) -> None:
        self._integer("filters", 1)
        self._integer("size", 1, 99)
        self._integer("stride", 1, 99)
        self._integer("dilation", 1, 99)
        self._integer("groups", 1)
        if self.padding is None:
            self._set("padding", self.dilation * (self.size // 2))
        self._integer("padding", 0, 9999)
        self._choice("activation", ACTIVATIONS)
        self._truth("batch_normalize")
        if self.filters % self.groups:
            raise ModelError(f"convolution: {self.filters} filters do not divide into {self.groups} groups")


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over `size` x `size` windows. `padding` is the total on both sides, the smaller half first, as in Darknet.

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
    """Mean over `size` x `size` windows. `padded`: stride 1, the same size, and at borders the mean of the real cells only."""

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
class GlobalAveragePool(Layer):
    """Mean over all cells: (N, C, H, W) -> (N, C)."""

    kind: ClassVar[str] = "global_average_pool"


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
class Reorg(Layer):
    """Space to depth: (C, H, W) -> (C * stride^2, H / stride, W / stride), in one of two orders (docs/darknet.md).

    `darknet`: that program's own permutation, needed for its weights. `space_to_depth`: channels ordered (dy, dx, c).
    """

    kind: ClassVar[str] = "reorg"
    stride: int = 2
    order: str = "darknet"

    def __post_init__(self) -> None:
        self._integer("stride", 1, 99)
        self._choice("order", REORG_ORDERS)


@dataclass(frozen=True)
class External(Layer):
    """Output number `output` of a module that the user hands to `Network(spec, external=module)`: his own backbone.

    `channels` and `stride` describe that output. The module sees the image; it returns a tensor or a sequence of tensors.
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

    anchors: (width, height) pairs in cells. Darknet's form (`boxes` and `features` None): the layer before gives
    `len(anchors) * (5 + classes)` channels. Otherwise layer `boxes` gives `len(anchors) * 5` channels, and this layer holds
    the class rows, applied to the channels of layer `features`: one set per anchor, or one for all if `shared_rows`.
    `stored`: the nodes that have a row, ascending, or None for all; the others have logit -inf.
    `tree` and `map` name files, as in a cfg. The rest are settings of the loss and of training, by their names in cfg files.
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
        return self.classes if self.stored is None else len(self.stored)


@dataclass(frozen=True)
class Softmax(Layer):
    """Turns a classifier's (N, C) into probabilities; with a tree, over each sibling group. `groups`: equal parts, each its own softmax."""

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


@dataclass(frozen=True)
class Output:
    """What a layer gives: `channels`, and `stride` in input pixels a cell (0: no cells, the shape is (N, channels))."""

    channels: int
    stride: int


@dataclass(frozen=True)
class NetworkSpec:
    """A whole network. `width`, `height`: the input size its author meant, in pixels; any multiple of `stride` runs.

    Layer references are absolute indices into `layers`. `bn` says how batch norm divides in evaluation (SPEC: docs/darknet.md):
    `darknet-cpu` by sqrt(var) + 1e-6, `darknet-gpu` by sqrt(var + 1e-5), which is also PyTorch's. Raises ModelError.
    """

    width: int
    height: int
    layers: tuple[Layer, ...]
    channels: int = 3
    bn: str = "darknet-cpu"
    outputs: tuple[Output, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, high in (("width", 2**14), ("height", 2**14), ("channels", 2**12)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= high:
                raise ModelError(f"network: {name} must be a whole number from 1 to {high}, not {value!r}")
        if self.bn not in BATCH_NORMS:
            raise ModelError(f"network: bn must be one of {', '.join(BATCH_NORMS)}, not {self.bn!r}")
        layers = tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if not 1 <= len(layers) <= _MOST_LAYERS:
            raise ModelError(f"network: {len(layers)} layers; 1 to {_MOST_LAYERS} are possible")
        outputs: list[Output] = []
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise ModelError(f"layer {i}: not a layer but {type(layer).__name__}")
            if isinstance(layer, Region | Softmax) and i != len(layers) - 1:
                raise ModelError(f"layer {i}: a {layer.kind} must be the last layer")
            for j in self.inputs(i):
                if not IMAGE <= j < i:
                    raise ModelError(f"layer {i} ({layer.kind}): refers to layer {j}; only 0 to {i - 1} come before it")
            try:
                before = [outputs[j] if j >= 0 else Output(self.channels, 1) for j in self.inputs(i)]
                outputs.append(_output(layer, before))
            except ModelError as error:
                raise ModelError(f"layer {i} ({layer.kind}): {error}") from None
        object.__setattr__(self, "outputs", tuple(outputs))
        if self.values > _MOST_VALUES:
            raise ModelError(f"network: {self.values:,} parameters; at most {_MOST_VALUES:,} are supported")

    def inputs(self, index: int) -> tuple[int, ...]:
        """Indices of the layers whose outputs layer `index` takes; -1 is the image."""
        layer = self.layers[index]
        match layer:
            case Route(layers=layers):
                return layers
            case Add(layer=other):
                return (index - 1, other)
            case External():
                return (IMAGE,)
            case Region(boxes=boxes, features=features) if boxes is not None:
                return (boxes, features)
            case _:
                return (index - 1,)

    @property
    def region(self) -> Region | None:
        """The region layer of a detector, else None."""
        return self.layers[-1] if isinstance(self.layers[-1], Region) else None

    @property
    def softmax(self) -> Softmax | None:
        """The softmax layer of a classifier, else None."""
        return self.layers[-1] if isinstance(self.layers[-1], Softmax) else None

    @property
    def classes(self) -> int:
        """Number of classes of a detector or classifier; for a bare trunk the channels of its last layer."""
        return self.region.classes if self.region else self.outputs[-1].channels

    @property
    def stride(self) -> int:
        """Input pixels a cell of the last grid: what width and height must be multiples of (1 for none)."""
        return max(1, max(out.stride for out in self.outputs))

    def channels_into(self, index: int) -> int:
        """Channels of the first input of layer `index`."""
        source = self.inputs(index)[0]
        return self.channels if source == IMAGE else self.outputs[source].channels

    def values_of(self, index: int) -> int:
        """Number of values of layer `index`, batch norm's running mean and variance included: what a weight file holds."""
        layer = self.layers[index]
        if isinstance(layer, Convolution):
            weights = layer.filters * (self.channels_into(index) // layer.groups) * layer.size**2
            return weights + layer.filters * (4 if layer.batch_normalize else 1)
        if isinstance(layer, Region) and layer.features is not None:
            anchors = 1 if layer.shared_rows else len(layer.anchors)
            return anchors * layer.rows * (self.outputs[layer.features].channels + 1)
        return 0

    @property
    def values(self) -> int:
        """Number of values of all layers; those of an external backbone are not counted."""
        return sum(self.values_of(i) for i in range(len(self.layers)))

    def trunk(self, layers: int) -> NetworkSpec:
        """The first `layers` layers as a network of their own."""
        return replace(self, layers=self.layers[:layers])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, read back by `from_dict`."""
        layers = [layer.to_dict() for layer in self.layers]
        return {"width": self.width, "height": self.height, "channels": self.channels, "bn": self.bn, "layers": layers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        """The reverse of `to_dict`. Raises ModelError that names the first bad layer and field."""
        values = _known(data, ("width", "height", "channels", "bn", "layers"), ("width", "height", "layers"), "network")
        if not isinstance(values["layers"], list | tuple):
            raise ModelError("network: layers must be a list")
        return cls(**{**values, "layers": tuple(_layer(i, item) for i, item in enumerate(values["layers"]))})

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def _layer(index: int, data: Any) -> Layer:
    """One layer from its dict."""
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ModelError(f"layer {index}: unknown kind {kind!r}; known are {', '.join(sorted(LAYERS))}")
    cls = LAYERS[kind]
    names = [f.name for f in fields(cls)]
    try:
        values = _known({k: v for k, v in data.items() if k != "kind"}, names, (), kind)
        return cls(**values)
    except ModelError as error:
        raise ModelError(f"layer {index}: {error}") from None
    except TypeError:
        raise ModelError(f"layer {index} ({kind}): fields are missing or of a wrong type; wanted {', '.join(names)}") from None


def _known(data: Any, names: Iterable[str], wanted: Iterable[str], what: str) -> dict[str, Any]:
    """`data` as a dict whose keys are all in `names` and include `wanted`."""
    if not isinstance(data, Mapping):
        raise ModelError(f"{what}: wanted a dict, found {type(data).__name__}")
    unknown = [str(key) for key in data if key not in names]
    missing = [key for key in wanted if key not in data]
    if unknown or missing:
        raise ModelError(f"{what}: unknown {', '.join(unknown) or 'nothing'}; missing {', '.join(missing) or 'nothing'}")
    return dict(data)


def _output(layer: Layer, before: list[Output]) -> Output:
    """Channels and stride that `layer` gives for these inputs, or a ModelError where they do not fit together."""
    first = before[0]
    flat = [out for out in before if out.stride == 0]
    if flat and not isinstance(layer, Softmax | Dropout):
        raise ModelError("needs cells, but the global average pool before it leaves none")
    match layer:
        case Convolution():
            if first.channels % layer.groups:
                raise ModelError(f"{first.channels} channels do not divide into {layer.groups} groups")
            return Output(layer.filters, first.stride * layer.stride)
        case MaxPool() | AveragePool():
            return Output(first.channels, first.stride * layer.stride)
        case GlobalAveragePool():
            return Output(first.channels, 0)
        case Route():
            if len({out.stride for out in before}) > 1:
                raise ModelError(f"joins grids of different strides {[out.stride for out in before]}")
            return Output(sum(out.channels for out in before), first.stride)
        case Add():
            if before[0] != before[1]:
                raise ModelError(f"adds {before[1]} to {before[0]}; they must be the same")
            return first
        case Reorg():
            if layer.order == "darknet" and first.channels % layer.stride**2:
                raise ModelError(f"Darknet's order needs channels divisible by {layer.stride**2}, found {first.channels}")
            return Output(first.channels * layer.stride**2, first.stride * layer.stride)
        case External():
            return Output(layer.channels, layer.stride)
        case Region(boxes=None):
            wanted = len(layer.anchors) * (5 + layer.classes)
            if first.channels != wanted:
                raise ModelError(
                    f"{len(layer.anchors)} anchors and {layer.classes} classes need {wanted} filters in the layer before, "
                    f"anchors * (5 + classes); it has {first.channels}"
                )
            return first
        case Region():
            if first.channels != len(layer.anchors) * 5:
                raise ModelError(f"layer {layer.boxes} gives {first.channels} channels, not {len(layer.anchors)} anchors * 5")
            if first.stride != before[1].stride:
                raise ModelError(f"boxes at stride {first.stride}, features at stride {before[1].stride}")
            return Output(len(layer.anchors) * (5 + layer.classes), first.stride)
        case Softmax():
            if first.channels % layer.groups:
                raise ModelError(f"{first.channels} classes do not divide into {layer.groups} groups")
            return Output(first.channels, 0)
        case _:
            return first


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
