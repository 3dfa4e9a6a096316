"""Darknet's cfg text, read into a `NetworkSpec` and written from one. No weights, and no file that a cfg
names is opened.

What is not understood is an error that names file and line: a setting silently passed over would give other
numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yolo9000.errors import ModelError
from yolo9000.spec import (
    ACTIVATIONS,
    IMAGE,
    Add,
    Convolution,
    Dropout,
    GlobalAveragePool,
    Layer,
    MaxPool,
    NetworkSpec,
    Region,
    Reorg,
    Route,
    Softmax,
)

_LARGEST_FILE = 2**22  # bytes; yolo9000.cfg has 2,329, so anything near this is no cfg

# Settings of [region]: of the layer itself; those that are only checked, or without effect here; those of the
# loss and of the pictures trained on, which have the same names in `Region`.
_REGION_KEYS = ("anchors", "classes", "num", "softmax", "tree", "map")
_CHECKED_KEYS = ("coords", "background", "log", "classfix", "mask_scale", "max")
_LOSS_KEYS = ("bias_match", "rescore", "object_scale", "noobject_scale", "class_scale", "coord_scale")
_LOSS_KEYS += ("thresh", "jitter", "absolute", "random")

# What Darknet takes for blanks; Python knows two dozen more.
_BLANK = re.compile(r"[ \t\r\v\f]+")

# Darknet's long and short section names.
_SECTIONS = {
    "network": "net",
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}


@dataclass(frozen=True)
class Section:
    """One `[name]` with its settings; values are text without blanks, each with the line it stands on."""

    name: str
    line: int
    values: dict[str, tuple[str, int]]
    file: str

    def fail(self, message: str, key: str | None = None) -> ModelError:
        """The error to raise about this section, or about one of its lines."""
        line = self.values[key][1] if key in self.values else self.line
        return ModelError(f"{self.file}:{line}: [{self.name}] {message}")

    def text(self, key: str, default: str | None = None) -> str | None:
        return self.values[key][0] if key in self.values else default

    def integer(self, key: str, default: int) -> int:
        return self._parsed(key, int, default, "a whole number")

    def number(self, key: str, default: float) -> float:
        value = self._parsed(key, float, default, "a number")
        if not math.isfinite(value):
            raise self.fail(f"{key}={value} is not a finite number", key)
        return value

    def truth(self, key: str, default: bool) -> bool:
        return self.integer(key, int(default)) != 0

    def numbers(self, key: str, kind: type) -> list:
        """A list with commas between; a comma at the end is allowed, as Darknet allows it."""
        parts = self.text(key, "").rstrip(",").split(",")
        try:
            return [_plain(kind, part) for part in parts if parts != [""]]
        except ValueError:
            raise self.fail(f"{key}={self.text(key)} is not a list of numbers", key) from None

    def only(self, *known: str) -> None:
        """ModelError for a setting that is none of these."""
        for key in self.values:
            if key not in known:
                raise self.fail(f"the setting {key!r} is not known here; known are {', '.join(known)}", key)

    def _parsed(self, key: str, kind: type, default, what: str):
        text = self.text(key)
        if text is None:
            return default
        try:
            return _plain(kind, text)
        except ValueError:
            raise self.fail(f"{key}={text} is not {what}", key) from None


def _plain(kind: type, text: str) -> int | float:
    """A number as C reads one: Python would also take 1_0 and the digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return kind(text)


def read(path: str | Path, bn: str = "darknet-cpu") -> NetworkSpec:
    """The network that a cfg file describes. Raises ModelError that names file and line."""
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ModelError(
                f"{path}: {path.stat().st_size:,} bytes; too long for a cfg, is it a weight file?"
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not text (byte {error.start}); is it a weight file?") from None
    return parse(text, str(path), bn)


def parse(text: str, file: str = "cfg", bn: str = "darknet-cpu") -> NetworkSpec:
    """The network that cfg text describes; `file` is the name used in errors."""
    sections = split(text, file)
    if not sections or sections[0].name != "net":
        raise ModelError(f"{file}: must begin with [net]")
    net, *rest = sections
    if rest and rest[-1].name == "cost":  # a classifier's loss; computes nothing that is asked for here
        rest.pop()
    if not rest:
        raise ModelError(f"{file}: no layers after [net]")
    layers: list[Layer] = []
    for section in rest:
        reader = _READERS.get(section.name)
        if reader is None:
            raise section.fail(
                f"this kind of layer is not supported; supported are {', '.join(sorted(_READERS))}"
            )
        try:
            layers.append(reader(section, len(layers)))
        except ModelError as error:
            raise error if str(error).startswith(f"{file}:") else section.fail(str(error)) from None
    width, height, channels = (net.integer(key, 0) for key in ("width", "height", "channels"))
    for key in ("width", "height", "channels"):
        if key not in net.values:
            raise net.fail(f"{key} is missing")
    try:
        return NetworkSpec(width, height, tuple(layers), channels, bn)
    except ModelError as error:
        raise ModelError(f"{file}: {error}{_place(rest, str(error))}") from None


def split(text: str, file: str = "cfg") -> list[Section]:
    """Text into sections: blanks dropped, lines that begin with # or ; skipped, of two equal keys the first
    counts.
    """
    sections: list[Section] = []
    for number, line in enumerate(text.split("\n"), 1):  # no other sign ends a line for Darknet
        line = "".join(_BLANK.split(line))
        if not line or line[0] in "#;":
            continue
        if "\0" in line:
            raise ModelError(f"{file}:{number}: a zero byte; this is no cfg file")
        if line[0] == "[":
            if line[-1] != "]" or len(line) < 3:
                raise ModelError(f"{file}:{number}: a section is written [name], not {line[:40]!r}")
            name = line[1:-1]
            sections.append(Section(_SECTIONS.get(name, name), number, {}, file))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not value:
            raise ModelError(f"{file}:{number}: wanted key=value, found {line[:40]!r}")
        if not sections:
            raise ModelError(f"{file}:{number}: {key} stands before any [section]")
        values = sections[-1].values
        if key in values and values[key][0] != value and sections[-1].name != "net":
            raise sections[-1].fail(
                f"{key} is set twice, to {values[key][0]} and on line {number} to {value}", key
            )
        values.setdefault(key, (value, number))
    return sections


def _place(sections: list[Section], message: str) -> str:
    """Where in the file the layer that an error of NetworkSpec names stands."""
    head = message.removeprefix("layer ").split(" ")[0].rstrip(":")
    if message.startswith("layer ") and head.isdigit():
        section = sections[int(head)]
        return f" (line {section.line}, [{section.name}])"
    return ""


def _convolution(s: Section, index: int) -> Layer:
    s.only(
        "batch_normalize", "filters", "size", "stride", "pad", "padding", "activation", "groups", "dilation"
    )
    size = s.integer("size", 1)
    dilation = s.integer("dilation", 1)
    padding = dilation * (size // 2) if s.truth("pad", False) else s.integer("padding", 0)
    activation = _activation(s, "logistic")
    filters, stride, groups = s.integer("filters", 1), s.integer("stride", 1), s.integer("groups", 1)
    return Convolution(
        filters, size, stride, padding, activation, s.truth("batch_normalize", False), dilation, groups
    )


def _maxpool(s: Section, index: int) -> Layer:
    s.only("size", "stride", "padding")
    stride = s.integer("stride", 1)
    size = s.integer("size", stride)
    return MaxPool(size, stride, s.integer("padding", size - 1))


def _avgpool(s: Section, index: int) -> Layer:
    s.only()
    return GlobalAveragePool()


def _dropout(s: Section, index: int) -> Layer:
    s.only("probability")
    return Dropout(s.number("probability", 0.5))


def _route(s: Section, index: int) -> Layer:
    s.only("layers")
    return Route(tuple(_absolute(s, "layers", layer, index) for layer in s.numbers("layers", int)))


def _shortcut(s: Section, index: int) -> Layer:
    s.only("from", "activation")
    if "from" not in s.values:
        raise s.fail("from is missing")
    return Add(_absolute(s, "from", s.integer("from", 0), index), _activation(s, "linear"))


def _reorg(s: Section, index: int) -> Layer:
    s.only("stride", "reverse", "flatten", "extra")
    for key in ("reverse", "flatten", "extra"):
        if s.integer(key, 0):
            raise s.fail(f"{key}={s.text(key)} is not supported", key)
    return Reorg(s.integer("stride", 1), "darknet")


def _region(s: Section, index: int) -> Layer:
    s.only(*_REGION_KEYS, *_CHECKED_KEYS, *_LOSS_KEYS)
    for key, wanted in (("coords", 4), ("background", 0), ("log", 0), ("classfix", 0)):
        if s.integer(key, wanted) != wanted:
            raise s.fail(f"{key}={s.text(key)}: only {key}={wanted} is supported", key)
    tree = s.text("tree")
    if tree is None and not s.truth("softmax", False):
        raise s.fail("softmax=0, a sigmoid for each class, is not supported", "softmax")
    values = s.numbers("anchors", float)
    count = s.integer("num", 1)
    if len(values) != 2 * count:
        raise s.fail(f"num={count} anchors need {2 * count} numbers, found {len(values)}", "anchors")
    return Region(
        tuple(zip(values[::2], values[1::2], strict=True)),
        s.integer("classes", 20),
        tree,
        s.text("map"),
        bias_match=s.truth("bias_match", False),
        rescore=s.truth("rescore", False),
        object_scale=s.number("object_scale", 1),
        noobject_scale=s.number("noobject_scale", 1),
        class_scale=s.number("class_scale", 1),
        coord_scale=s.number("coord_scale", 1),
        thresh=s.number("thresh", 0.5),
        jitter=s.number("jitter", 0.2),
        absolute=s.truth("absolute", False),
        random=s.truth("random", False),
    )


def _softmax(s: Section, index: int) -> Layer:
    s.only("groups", "tree", "temperature", "spatial", "noloss")
    if s.integer("spatial", 0):
        raise s.fail("spatial=1 is not supported", "spatial")
    return Softmax(s.text("tree"), s.integer("groups", 1), s.number("temperature", 1))


def _activation(s: Section, default: str) -> str:
    name = s.text("activation", default)
    if name not in ACTIVATIONS:
        raise s.fail(
            f"activation {name!r} is not supported; supported are {', '.join(ACTIVATIONS)}", "activation"
        )
    return name


def _absolute(s: Section, key: str, layer: int, index: int) -> int:
    """A layer reference counted from the start; a negative one counts back from the layer that makes it."""
    found = layer + index if layer < 0 else layer
    if not 0 <= found < index:
        raise s.fail(f"{key}={layer} means layer {found}; only 0 to {index - 1} come before this one", key)
    return found


_READERS: dict[str, Callable[[Section, int], Layer]] = {
    "convolutional": _convolution,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "dropout": _dropout,
    "route": _route,
    "shortcut": _shortcut,
    "reorg": _reorg,
    "region": _region,
    "softmax": _softmax,
}


def format(spec: NetworkSpec) -> str:
    """cfg text that reads back as the same network. ModelError for layers Darknet has not and file names with
    blanks; training settings are not written.
    """
    head = {"width": spec.width, "height": spec.height, "channels": spec.channels}
    parts = [_section("net", head)]
    for i, layer in enumerate(spec):
        for file in (getattr(layer, "tree", None), getattr(layer, "map", None)):
            if file and (_BLANK.search(file) or "\n" in file):
                raise ModelError(f"layer {i}: {file!r} has blanks, which a cfg drops; name the file without")
        parts.append(_section(*_written(i, layer)))
    return "\n".join(parts)


def _section(name: str, values: dict[str, object]) -> str:
    lines = [f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _written(index: int, layer: Layer) -> tuple[str, dict[str, object]]:
    """Section name and settings of one layer."""
    match layer:
        case Convolution():
            values = {"batch_normalize": 1} if layer.batch_normalize else {}
            values |= {"filters": layer.filters, "size": layer.size, "stride": layer.stride}
            same = layer.padding == layer.dilation * (layer.size // 2)
            values |= {"pad": 1} if same else {"padding": layer.padding}
            values |= {"groups": layer.groups} if layer.groups > 1 else {}
            values |= {"dilation": layer.dilation} if layer.dilation > 1 else {}
            return "convolutional", {**values, "activation": layer.activation}
        case MaxPool():
            values = {"size": layer.size, "stride": layer.stride}
            return "maxpool", values | ({} if layer.padding == layer.size - 1 else {"padding": layer.padding})
        case GlobalAveragePool():
            return "avgpool", {}
        case Dropout():
            return "dropout", {"probability": layer.probability}
        case Route() if IMAGE not in layer.layers:
            return "route", {"layers": ",".join(map(str, layer.layers))}
        case Add() if layer.layer != IMAGE:
            return "shortcut", {"from": layer.layer, "activation": layer.activation}
        case Reorg(order="darknet"):
            return "reorg", {"stride": layer.stride}
        case Region(boxes=None):
            anchors = ", ".join(f"{w},{h}" for w, h in layer.anchors)
            values = {"anchors": anchors, "classes": layer.classes, "coords": 4}
            values |= {"num": len(layer.anchors), "softmax": 1}
            values |= {name: getattr(layer, name) for name in _LOSS_KEYS}
            files = {"tree": layer.tree, "map": layer.map}
            return "region", values | {name: file for name, file in files.items() if file}
        case Softmax():
            values = {"groups": layer.groups, "temperature": layer.temperature}
            return "softmax", values | ({"tree": layer.tree} if layer.tree else {})
    raise ModelError(f"layer {index}: Darknet's cfg has no {layer.kind} with these settings")
