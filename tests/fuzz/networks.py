"""Readers of networks: Darknet's cfg and weight files, model files.

The independent parses: cfg lines by a regular expression, weights by numpy.frombuffer, safetensors by struct
and json.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tests.fuzz.mutate import edit_bytes, edit_text, edit_value
from tests.fuzz.reader import Check, MisreadError, Reader, same
from tests.yolo9000 import small
from yolo9000 import Detector, cfg, darknet
from yolo9000.errors import ModelError
from yolo9000.modelfile import KEY, load_model, save_model
from yolo9000.network import Network
from yolo9000.spec import Add, Convolution, MaxPool, NetworkSpec, Region, Reorg, Route

CFG = b"""[net]
width=64
height=64
channels=3
batch=1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

# a comment
[convolutional]
batch_normalize=1
filters=8
size=1
stride=1
activation=leaky

[shortcut]
from=-2
activation=linear

[route]
layers=-1,-3

[reorg]
stride=2

[convolutional]
filters=16
size=1
stride=1
pad=1
activation=linear

[region]
anchors=1.5,2.0, 3.0,2.5
classes=3
coords=4
num=2
softmax=1
jitter=.2
rescore=1
object_scale=5
noobject_scale=1
thresh=.6
"""
CLASSIFIER = b"""[net]
width=32
height=32
channels=3
[conv]
filters=4
size=3
stride=2
pad=1
groups=1
activation=relu
[dropout]
probability=.5
[avg]
[soft]
groups=1
[cost]
"""

# Above this a network that reads well is not built: building is not what is under test.
_MOST_VALUES = 1 << 22
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DEFAULTS = {"filters": 1, "size": 1, "stride": 1, "groups": 1, "dilation": 1, "batch_normalize": 0}


def plain_sections(data: bytes) -> list[tuple[str, dict[str, str]]]:
    """(name, settings) of cfg text as Darknet's C reads it: a line feed ends a line, blanks do not matter."""
    sections: list[tuple[str, dict[str, str]]] = []
    for line in data.decode("utf-8-sig").split("\n"):
        line = re.sub(r"[ \t\r\v\f]", "", line)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            sections.append((line[1:-1], {}))
        else:
            key, _, value = line.partition("=")
            sections[-1][1].setdefault(key, value)
    return sections


def _whole(settings: dict[str, str], key: str, default: int) -> int:
    text = settings.get(key, str(default))
    if not _INTEGER.fullmatch(text):
        raise MisreadError(f"{key}={text!r} was taken for a whole number")
    return int(text)


def compare_layers(spec: NetworkSpec, sections: Sequence[tuple[str, dict[str, str]]]) -> None:
    """MisreadError unless the sections, by their own words, are the layers."""
    short = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}
    named = [(short.get(name, name), settings) for name, settings in sections]
    net, rest = named[0][1], named[1:]
    if rest[-1][0] == "cost":
        rest = rest[:-1]
    same(len(spec), len(rest), "number of layers")
    sides = (spec.width, spec.height, spec.channels)
    same(sides, tuple(_whole(net, key, 0) for key in ("width", "height", "channels")), "size")
    for i, (layer, (_name, settings)) in enumerate(zip(spec, rest, strict=True)):
        match layer:
            case Convolution():
                found = [int(getattr(layer, key)) for key in _DEFAULTS]
                wanted = [_whole(settings, key, default) for key, default in _DEFAULTS.items()]
                wanted[-1] = int(wanted[-1] != 0)
                same(found, wanted, f"layer {i}")
            case MaxPool() | Reorg():
                same(layer.stride, _whole(settings, "stride", 1), f"layer {i}")
            case Route(layers=layers):
                texts = [text for text in settings["layers"].split(",") if text]
                wanted = [_whole({"layers": text}, "layers", 0) for text in texts]
                same(list(layers), [k + i if k < 0 else k for k in wanted], f"layer {i}")
            case Add(layer=other):
                wanted = _whole(settings, "from", 0)
                same(other, wanted + i if wanted < 0 else wanted, f"layer {i}")
            case Region(anchors=anchors, classes=classes):
                same(classes, _whole(settings, "classes", 20), f"layer {i}")
                numbers = [text for text in settings["anchors"].split(",") if text]
                if any("_" in text or not text.isascii() for text in numbers):
                    raise MisreadError(f"anchors {numbers} were taken for numbers")
                same([v for pair in anchors for v in pair], [float(text) for text in numbers], f"layer {i}")


@contextmanager
def open_cfg(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.cfg"
        path.write_bytes(data)
        spec = cfg.read(path)
        compare_layers(spec, plain_sections(data))
        same(cfg.parse(cfg.format(spec)), spec, "what is written again")
        same(NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))), spec, "the description")
        if spec.values <= _MOST_VALUES:
            _runs(spec)

    yield check


def _runs(spec: NetworkSpec) -> None:
    """A description that exists can be built and run, and gives what it says."""
    if (spec.softmax or spec.region) and (spec.region or spec.softmax).tree:
        return  # needs a tree's file
    side = 2 * spec.stride
    if side > 512 or max(out.channels for out in spec.outputs) > 4096:
        return
    with torch.device("meta"), torch.no_grad():
        net = Network(spec, None, init=False)
        held = sum(v.numel() for v in net.state_dict().values() if v.is_floating_point())
        same(held, spec.values, "number of values")
        try:
            out = net.eval()(torch.empty(1, spec.channels, side, side))
        except ModelError:
            return  # sizes that do not fit one another show when a picture comes, and are told then
    wanted = (1, spec.outputs[-1].channels)
    same(tuple(out.shape[:2]), wanted, "shape of the output")


@contextmanager
def open_weights(folder: Path) -> Iterator[Check]:
    spec = cfg.parse(CFG.decode())

    def check(data: bytes) -> None:
        path = folder / "x.weights"
        path.write_bytes(data)
        net = darknet.load(spec, path)
        major, minor, revision = np.frombuffer(data, "<i4", 3).tolist()
        wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
        same(net.version, (major, minor, revision), "version")
        same(net.seen, int.from_bytes(data[12 : 20 if wide else 16], "little"), "seen")
        values = np.frombuffer(data, "<f4", offset=20 if wide else 16)
        if not np.isfinite(values).all():
            raise MisreadError("accepted values that are not finite")
        at = 0
        for unit in net.layers:
            if not hasattr(unit, "conv"):
                continue
            norm = unit.norm
            parts = (
                [unit.conv.bias]
                if norm is None
                else [norm.bias, norm.weight, norm.running_mean, norm.running_var]
            )
            for tensor in [*parts, unit.conv.weight]:
                found = tensor.detach().numpy().ravel()
                if found.tobytes() != values[at : at + found.size].tobytes():
                    raise MisreadError(f"values {at} to {at + found.size} are not those of the file")
                at += found.size
        same(at, len(values), "number of values")

    yield check


@cache
def _weight_files() -> tuple[bytes, ...]:
    """Both widths of the header."""
    spec, files = cfg.parse(CFG.decode()), []
    with TemporaryDirectory() as folder:
        for version in ((0, 2, 0), (0, 1, 0)):
            net = small.randomise(Network(spec), 1)
            darknet.save(net, Path(folder) / "x.weights", version=version, seen=640)
            files.append((Path(folder) / "x.weights").read_bytes())
    return tuple(files)


def specials(random: Random, data: bytes) -> bytes:
    """A value that is not finite, a negative one, or a whole other header."""
    out = bytearray(data)
    if random.random() < 0.3:
        version = [random.choice((0, 1, 2, 999, 1000, 1001, 10_000, 2**31 - 1, -1)) for _ in range(3)]
        out[:12] = struct.pack("<iii", *version)
    else:
        at = random.randrange(5, len(out) // 4) * 4
        value = random.choice((float("nan"), float("inf"), -1.0, 3e38, 1e-45))
        out[at : at + 4] = struct.pack("<f", value)
    return bytes(out)


def split_model(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and the bytes behind it."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_model(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def model_tensors(header: dict[str, Any], body: bytes) -> dict[str, np.ndarray]:
    types = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            found[name] = np.frombuffer(body[start:end], types[about["dtype"]]).reshape(about["shape"])
    return found


def plain_digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    """The SHA-256 that docs of modelfile.py describe."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    names = {"float32": "torch.float32", "float16": "torch.float16", "int64": "torch.int64"}
    for name in sorted(tensors):
        array = tensors[name]
        kind = names.get(str(array.dtype), f"torch.{array.dtype}")
        digest.update(f"\n{name} {kind} {tuple(array.shape)}\n".encode("utf-8", "surrogatepass"))
        digest.update(array.tobytes())
    return digest.hexdigest()


def seal_model(random: Random, data: bytes) -> bytes:
    """The description or a tensor edited, with a SHA-256 that fits: what only later checks can see."""
    header, body = split_model(data)
    version, _, rest = header["__metadata__"][KEY].partition("\n")
    _, _, text = rest.partition("\n")
    if random.random() < 0.8:
        text = json.dumps(edit_value(random, json.loads(text)), ensure_ascii=False)
    else:
        at = random.randrange(len(body) // 4) * 4
        value = struct.pack("<f", random.choice((float("nan"), float("-inf"), -1.0, 1e38)))
        body = body[:at] + value + body[at + 4 :]
    header["__metadata__"][KEY] = f"{version}\n{plain_digest(text, model_tensors(header, body))}\n{text}"
    return join_model(header, body)


def edit_header(random: Random, data: bytes) -> bytes:
    """safetensors' own header edited: offsets, shapes, types, names."""
    header, body = split_model(data)
    edited = edit_value(random, header)
    return join_model(edited, body)


@contextmanager
def open_model(folder: Path) -> Iterator[Check]:
    pixels = np.full((40, 60, 3), 127, np.uint8)

    def check(data: bytes) -> None:
        path = folder / "x.safetensors"
        path.write_bytes(data)
        net = load_model(path)
        header, body = split_model(data)
        _, digest, text = header["__metadata__"][KEY].split("\n", 2)
        tensors = model_tensors(header, body)
        same(plain_digest(text, tensors), digest, "SHA-256")
        state = net.state_dict()
        same(set(state), set(tensors), "tensors")
        for name, array in tensors.items():
            wanted = array.astype(np.float32) if array.dtype.kind == "f" else array
            if not np.array_equal(state[name].numpy(), wanted):
                raise MisreadError(f"{name} is not what the file holds")
        model = json.loads(text)
        same(net.record, model["record"], "record")
        same(net.defaults, model["defaults"], "defaults")
        same(net.names, None if model["names"] is None else tuple(model["names"]), "names")
        same(net.seen, model["seen"], "seen")
        same(list(net.version), model["version"], "version")
        if model["class_map"] is not None:
            same(net.class_map.tolist(), model["class_map"], "class map")
        if isinstance(model["tree"], dict) and "ids" in model["tree"]:
            same(list(net.tree.ids), model["tree"]["ids"], "ids")
            same(net.tree.parents.tolist(), model["tree"]["parents"], "parents")
        written = json.loads(json.dumps(net.spec.to_dict()))
        for key in ("width", "height", "channels", "bn"):
            same(written[key], model["network"].get(key, written[key]), key)
        for k, (found, layer) in enumerate(zip(written["layers"], model["network"]["layers"], strict=True)):
            for key, value in layer.items():
                if isinstance(value, int | str):  # null stands for a default
                    same(found[key], value, f"layer {k}: {key}")
        if net.spec.region is not None:
            detector = Detector(net, precision="float32")
            if max(detector.size) <= 256:
                detector(pixels)

    yield check


@cache
def _models() -> tuple[bytes, ...]:
    files = []
    record = {"data": "none", "nodes": {"boxes": [0, 3], "labels": [1]}}
    defaults = {"size": [64, 64], "resize": "smooth", "threshold": 0.3, "tree_threshold": 0.5}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        for form, dtype in (("stored", "float32"), ("flat", "float16"), ("darknet", "float32")):
            net = small.small_detector(form)
            net.class_map = torch.tensor([0, 2, 1]) if form == "darknet" else None
            names = [f"class {k}" for k in range(6)] if form == "flat" else None
            save_model(net, path, record, dtype=dtype, names=names, defaults=defaults)
            files.append(path.read_bytes())
    return tuple(files)


READERS = (
    Reader(
        "cfg",
        (ModelError,),
        open_cfg,
        lambda: [CFG, CLASSIFIER],
        (edit_text, edit_text, edit_text, edit_bytes),
    ),
    Reader("weights", (ModelError,), open_weights, _weight_files, (specials, specials, edit_bytes)),
    Reader("model", (ModelError,), open_model, _models, (seal_model, seal_model, edit_header, edit_bytes)),
)
