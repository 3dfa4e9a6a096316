"""A network as plain data: which layers, in which order, with which settings. No tensors and no files.

`Network` makes modules from it, `cfg` reads it from Darknet's text, `presets` holds the published ones, and
model files embed `NetworkSpec.to_dict()`. Everything is checked when it is made, so a description that exists
can be built and run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from yolo9000.errors import ModelError
from yolo9000.layers import (
    ACTIVATIONS,
    IMAGE,
    LAYERS,
    REORG_ORDERS,
    Add,
    AveragePool,
    Convolution,
    Dropout,
    External,
    Gate,
    GlobalAveragePool,
    Layer,
    LogSumExp,
    MaxPool,
    Region,
    Reorg,
    RoiAverage,
    Route,
    Softmax,
)

__all__ = [
    "ACTIVATIONS",
    "BATCH_NORMS",
    "IMAGE",
    "LAYERS",
    "REORG_ORDERS",
    "Add",
    "AveragePool",
    "Convolution",
    "Dropout",
    "External",
    "Gate",
    "GlobalAveragePool",
    "Layer",
    "LogSumExp",
    "MaxPool",
    "NetworkSpec",
    "Output",
    "Region",
    "Reorg",
    "RoiAverage",
    "Route",
    "Softmax",
]

BATCH_NORMS = ("darknet-cpu", "darknet-gpu")

# Bounds far beyond any network of this kind; they turn a damaged description into an error, not a terabyte.
_MOST_VALUES = 2**31
_MOST_LAYERS = 2000


@dataclass(frozen=True)
class Output:
    """What a layer gives: `channels`, and input pixels a cell as `stride`; 0: no cells, (N, channels)."""

    channels: int
    stride: int


@dataclass(frozen=True)
class NetworkSpec:
    """A whole network. `width`, `height`: the input size its author meant; any multiple of `stride` runs.

    Layer references are absolute indices into `layers`. `bn` says how batch norm divides in evaluation
    (docs/darknet.md): `darknet-cpu` by sqrt(var) + 1e-6, `darknet-gpu` by sqrt(var + 1e-5), which is also
    PyTorch's. Raises ModelError.
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
                    raise ModelError(
                        f"layer {i} ({layer.kind}): refers to layer {j}; only 0 to {i - 1} come before it"
                    )
            try:
                before = [outputs[j] if j >= 0 else Output(self.channels, 1) for j in self.inputs(i)]
                outputs.append(_output(layer, before))
            except ModelError as error:
                raise ModelError(f"layer {i} ({layer.kind}): {error}") from None
        object.__setattr__(self, "outputs", tuple(outputs))
        for i, layer in enumerate(layers):
            if isinstance(layer, RoiAverage):
                self._check_boxes(i, layer)
        if self.region and (self.width % self.stride or self.height % self.stride):
            size = f"{self.width} x {self.height}"
            raise ModelError(f"network: width and height must be multiples of {self.stride}, not {size}")
        if self.values > _MOST_VALUES:
            raise ModelError(f"network: {self.values:,} parameters; at most {_MOST_VALUES:,} are supported")

    def _check_boxes(self, index: int, layer: RoiAverage) -> None:
        """ModelError unless the boxes that this layer follows are those of the network's anchors."""
        wanted = 5 * len(self.region.anchors) if self.region else 0
        found = self.outputs[layer.boxes].channels
        if found != wanted:
            what = f"anchors * 5 = {wanted} channels of boxes" if wanted else "a network with a region layer"
            raise ModelError(f"layer {index} (roi_average): wants {what}; layer {layer.boxes} has {found}")

    def inputs(self, index: int) -> tuple[int, ...]:
        """Indices of the layers whose outputs layer `index` takes; -1 is the image."""
        layer = self.layers[index]
        match layer:
            case Route(layers=layers):
                return layers
            case Add(layer=other):
                return (index - 1, other)
            case Gate(first=first, share=share):
                return (index - 1, first, share)
            case RoiAverage(boxes=boxes):
                return (index - 1, boxes)
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
        """Number of values of layer `index`, batch norm's running mean and variance included: what a weight
        file holds.
        """
        layer = self.layers[index]
        if isinstance(layer, Convolution):
            weights = layer.filters * (self.channels_into(index) // layer.groups) * layer.size**2
            return weights + layer.filters * (4 if layer.batch_normalize else 1)
        if isinstance(layer, LogSumExp):
            return layer.rows * (self.channels_into(index) + 1)
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

    def last_of_stride(self, stride: float) -> int | None:
        """The last layer whose grid has this stride, if any."""
        return max((i for i, output in enumerate(self.outputs) if output.stride == stride), default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, read back by `from_dict`."""
        layers = [layer.to_dict() for layer in self.layers]
        return {
            "width": self.width,
            "height": self.height,
            "channels": self.channels,
            "bn": self.bn,
            "layers": layers,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        """The reverse of `to_dict`. Raises ModelError that names the first bad layer and field."""
        values = _known(
            data, ("width", "height", "channels", "bn", "layers"), ("width", "height", "layers"), "network"
        )
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
        raise ModelError(
            f"layer {index} ({kind}): fields are missing or of a wrong type; wanted {', '.join(names)}"
        ) from None


def _known(data: Any, names: Iterable[str], wanted: Iterable[str], what: str) -> dict[str, Any]:
    """`data` as a dict whose keys are all in `names` and include `wanted`."""
    if not isinstance(data, Mapping):
        raise ModelError(f"{what}: wanted a dict, found {type(data).__name__}")
    unknown = [str(key) for key in data if key not in names]
    missing = [key for key in wanted if key not in data]
    if unknown or missing:
        raise ModelError(
            f"{what}: unknown {', '.join(unknown) or 'nothing'}; missing {', '.join(missing) or 'nothing'}"
        )
    return dict(data)


def moved(layer: Layer, at: Callable[[int], int]) -> Layer:
    """A layer as it is where those that it refers to stand elsewhere; at: from their old index to the new."""
    match layer:
        case Route():
            return Route(tuple(map(at, layer.layers)))
        case Add():
            return replace(layer, layer=at(layer.layer))
        case Gate():
            return Gate(at(layer.first), at(layer.share))
        case RoiAverage():
            return replace(layer, boxes=at(layer.boxes))
        case Region() if layer.boxes is not None:
            return replace(layer, boxes=at(layer.boxes), features=at(layer.features))
    return layer


def _output(layer: Layer, before: list[Output]) -> Output:
    """Channels and stride that `layer` gives for these inputs, or a ModelError where they do not fit
    together.
    """
    first = before[0]
    flat = [out for out in (before[:2] if isinstance(layer, Gate) else before) if out.stride == 0]
    if flat and not isinstance(layer, Softmax | Dropout):
        raise ModelError("needs cells, but the global average pool before it leaves none")
    match layer:
        case Convolution():
            if first.channels % layer.groups:
                raise ModelError(f"{first.channels} channels do not divide into {layer.groups} groups")
            return Output(layer.filters, first.stride * layer.stride)
        case MaxPool() | AveragePool():
            return Output(first.channels, first.stride * layer.stride)
        case RoiAverage():
            if before[1].stride != first.stride:
                raise ModelError(f"boxes at stride {before[1].stride}, features at stride {first.stride}")
            return first
        case GlobalAveragePool():
            return Output(first.channels, 0)
        case LogSumExp():
            if layer.rows * len(layer.sets) > _MOST_VALUES:
                raise ModelError(f"{layer.rows:,} rows and {len(layer.sets):,} sets are too many")
            return Output(len(layer.sets), first.stride)
        case Route():
            if len({out.stride for out in before}) > 1:
                raise ModelError(f"joins grids of different strides {[out.stride for out in before]}")
            return Output(sum(out.channels for out in before), first.stride)
        case Add():
            if before[0] != before[1]:
                raise ModelError(f"adds {before[1]} to {before[0]}; they must be the same")
            return first
        case Gate():
            if first.stride != before[1].stride or before[2] not in (Output(1, first.stride), Output(1, 0)):
                raise ModelError(
                    f"shares {before[1]} and {first} by {before[2]}; wanted two of the same stride and one "
                    "channel"
                )
            return Output(before[1].channels + first.channels, first.stride)
        case Reorg():
            if layer.order == "darknet" and first.channels % layer.stride**2:
                raise ModelError(
                    f"Darknet's order needs channels divisible by {layer.stride**2}, found {first.channels}"
                )
            return Output(first.channels * layer.stride**2, first.stride * layer.stride)
        case External():
            return Output(layer.channels, layer.stride)
        case Region(boxes=None):
            wanted = len(layer.anchors) * (5 + layer.classes)
            if first.channels != wanted:
                raise ModelError(
                    f"{len(layer.anchors)} anchors and {layer.classes} classes need {wanted} filters, "
                    f"anchors * (5 + classes), in the layer before; it has {first.channels}"
                )
            return first
        case Region():
            if first.channels != len(layer.anchors) * 5:
                raise ModelError(
                    f"layer {layer.boxes} gives {first.channels} channels, wanted {5 * len(layer.anchors)}"
                )
            if first.stride != before[1].stride:
                raise ModelError(f"boxes at stride {first.stride}, features at stride {before[1].stride}")
            return Output(len(layer.anchors) * (5 + layer.classes), first.stride)
        case Softmax():
            if first.channels % layer.groups:
                raise ModelError(f"{first.channels} classes do not divide into {layer.groups} groups")
            return Output(first.channels, 0)
        case _:
            return first
