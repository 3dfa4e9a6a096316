"""Darknet's weight files: read into a `Network`, written from one, whole or the first layers only. Format:
docs/darknet.md.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from wordtree.files import written_whole
from yolo9000 import cfg as cfg_file
from yolo9000.errors import ModelError
from yolo9000.network import ConvolutionUnit, Network
from yolo9000.spec import Convolution, External, NetworkSpec

if TYPE_CHECKING:
    from wordtree import WordTree

# Values converted at a time when writing, so that a 116 MB layer needs no second copy of itself.
_BLOCK = 2**20


@dataclass(frozen=True)
class Header:
    """The start of a weight file: version and the number of images trained on."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` takes 8 bytes; 4 before version 0.2 and in those that mark transposed matrices."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    @property
    def size(self) -> int:
        """Bytes the header takes: 20 or 16."""
        return 20 if self.wide else 16

    def to_bytes(self) -> bytes:
        try:
            return struct.pack(
                "<iiiQ" if self.wide else "<iiiI", self.major, self.minor, self.revision, self.seen
            )
        except struct.error:
            raise ModelError(f"{self} does not fit a weight file's header") from None

    @classmethod
    def read(cls, stream: BinaryIO, name: str) -> Header:
        start = stream.read(12)
        if len(start) < 12:
            raise ModelError(f"{name}: {len(start)} bytes; too short for a weight file's header")
        version = cls(*struct.unpack("<iii", start))
        if min(version.major, version.minor, version.revision) < 0 or version.major > 10_000:
            raise ModelError(f"{name}: begins with {start[:8]!r}; this is no Darknet weight file")
        rest = stream.read(version.size - 12)
        if len(rest) < version.size - 12:
            raise ModelError(f"{name}: ends inside the header; wanted {version.size} bytes")
        (seen,) = struct.unpack("<Q" if version.wide else "<I", rest)
        return cls(version.major, version.minor, version.revision, seen)


def load(
    cfg: str | Path | NetworkSpec,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    *,
    partial: bool | int = False,
    bn: str = "darknet-cpu",
) -> Network:
    """A network in evaluation mode from Darknet's cfg and weight file.

    Args: cfg: a file or a description; weights: a file, or None for new random weights; data_root: the folder
    that `tree=` and `map=` of the cfg are relative to (default: the cfg's folder, those above it, then the
    working folder); partial: the file holds the first layers only and the others start new; True takes their
    number from the name (`x.conv.23`), an int gives it, counted as Darknet does, all layers included; bn: how
    batch norm divides (`NetworkSpec.bn`). Returns the network with `.tree`, `.class_map`, `.seen` and
    `.version` set; detectors with all their weights see pictures scaled as Darknet scales them (`.defaults`).
    Raises ModelError, TreeError.
    """
    spec = cfg if isinstance(cfg, NetworkSpec) else cfg_file.read(cfg, bn)
    roots = [Path(data_root)] if data_root is not None else _roots(cfg)
    tree = _tree(spec, roots)
    if weights is None:
        net = Network(spec, tree)
    else:
        net = _load_weights(spec, tree, Path(weights), partial)
        if spec.region is not None and not partial:
            net.defaults = {"resize": "darknet"}
    net.class_map = _class_map(spec, roots)
    return net.eval()


def save(
    net: Network,
    path: str | Path,
    *,
    partial: int | None = None,
    version: tuple[int, int, int] | None = None,
    seen: int | None = None,
) -> None:
    """Writes a weight file for `net`, or for its first `partial` layers.

    version: (major, minor, revision), by default the network's (0.2.0 unless it was loaded from another);
    seen: likewise, but 0 for a part. The file appears whole or not at all. Raises ModelError for a network
    that no weight file can hold.
    """
    layers = len(net.spec) if partial is None else _layers(net.spec, partial)
    _darknet_only(net.spec)
    if seen is None:
        seen = net.seen if layers == len(net.spec) else 0
    header = Header(*(version or net.version), seen=seen)
    start = header.to_bytes()
    with written_whole(path, ModelError) as part, part.open("wb") as stream:
        stream.write(start)
        for _, tensor in _tensors(net, layers):
            flat = tensor.detach().reshape(-1)
            for block in flat.split(_BLOCK):
                stream.write(block.to("cpu", torch.float32).numpy().astype("<f4", copy=False).tobytes())


def partial_layers(path: str | Path) -> int:
    """NN of a file named `x.conv.NN`."""
    found = re.search(r"\.conv\.(\d{1,6})$", Path(path).name)
    if found is None:
        raise ModelError(f"{path}: not named .conv.NN; give the number of layers it holds, partial=NN")
    return int(found[1])


def _load_weights(spec: NetworkSpec, tree: WordTree | None, path: Path, partial: bool | int) -> Network:
    _darknet_only(spec)
    layers = len(spec)
    if partial is not False:
        layers = _layers(spec, partial_layers(path) if partial is True else partial)
    try:
        with path.open("rb") as stream:
            header = Header.read(stream, str(path))
            _check_length(spec, layers, path, header)
            # On the CPU whatever the default device: the file is read straight into the tensors.
            with torch.device("cpu"), torch.no_grad():
                net = Network(spec, tree, init=layers < len(spec))
                for name, tensor in _tensors(net, layers):
                    _fill(tensor, stream, f"{path}: {name}")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    # A network with new layers is at the beginning of its training, however long its first were trained.
    net.seen = header.seen if layers == len(spec) else 0
    net.version = header.major, header.minor, header.revision
    return net


def _tensors(net: Network, layers: int) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything a weight file holds, in its order."""
    for i, module in enumerate(net.layers[:layers]):
        if not isinstance(module, ConvolutionUnit):
            continue
        if module.norm is None:
            yield f"layer {i}, biases", module.conv.bias
        else:
            yield f"layer {i}, biases", module.norm.bias
            yield f"layer {i}, scales", module.norm.weight
            yield f"layer {i}, mean", module.norm.running_mean
            yield f"layer {i}, variance", module.norm.running_var
        yield f"layer {i}, weights", module.conv.weight


def _fill(tensor: Tensor, stream: BinaryIO, name: str) -> None:
    """Reads into a tensor without a copy; refuses what no training could have written."""
    values = tensor.detach().numpy()
    if stream.readinto(memoryview(values).cast("B")) != values.nbytes:
        raise ModelError(f"{name}: the file ended while it was read")
    if sys.byteorder == "big":
        values.byteswap(inplace=True)
    if not torch.isfinite(tensor).all():
        raise ModelError(f"{name}: not all values are finite; the file is damaged or belongs to another cfg")
    if name.endswith("variance") and bool((tensor < 0).any()):
        raise ModelError(f"{name}: negative; the file is damaged or belongs to another cfg")


def _check_length(spec: NetworkSpec, layers: int, path: Path, header: Header) -> None:
    """ModelError unless the file holds exactly these layers; says how many values were wanted and found."""
    size = path.stat().st_size - header.size
    wanted = sum(spec.values_of(i) for i in range(layers))
    if size == 4 * wanted:
        return
    found, rest = divmod(size, 4)
    message = f"{path}: wanted {wanted:,} values for {layers} layers, found {found:,}"
    if rest:
        message += f" and {rest} bytes more"
    message += f" (header {header.major}.{header.minor}.{header.revision}, {header.size} bytes). "
    raise ModelError(message + _guess(spec, layers, found, rest))


def _guess(spec: NetworkSpec, layers: int, found: int, rest: int) -> str:
    """What may be behind a wrong length."""
    total = 0
    for i in range(len(spec)):
        if rest == 0 and spec.values_of(i) and total == found and i < layers:
            return f"It is as long as the first {i} layers: a partial file? Then load it with partial={i}."
        total += spec.values_of(i)
    other = "belongs to another cfg (filters, classes, anchors or batch_normalize differ)"
    if found > sum(spec.values_of(i) for i in range(layers)):
        return f"The file is too long: it {other}, or is damaged."
    return f"The file is too short: it is cut off or {other}."


def _layers(spec: NetworkSpec, count: int) -> int:
    if type(count) is not int or not 1 <= count <= len(spec):
        raise ModelError(
            f"the first {count} layers of a network of {len(spec)}; 1 to {len(spec)} are possible"
        )
    return count


def _darknet_only(spec: NetworkSpec) -> None:
    """ModelError for a network with values that a weight file has no place for."""
    for i, layer in enumerate(spec):
        if isinstance(layer, External) or (spec.values_of(i) and not isinstance(layer, Convolution)):
            raise ModelError(
                f"layer {i} ({layer.kind}): Darknet's weight files have no place for it; save a model file"
            )


def _roots(cfg: str | Path | NetworkSpec) -> list[Path]:
    """Where files that a cfg names are looked for: cfg/x.cfg says data/9k.tree of the folder above."""
    if isinstance(cfg, NetworkSpec):
        return [Path()]
    return [*list(Path(cfg).resolve().parents)[:2], Path()]


def _find(name: str, roots: list[Path], what: str) -> Path:
    for root in roots:
        if (root / name).is_file():
            return root / name
    tried = ", ".join(str(root / name) for root in roots)
    raise ModelError(f"the cfg's {what}={name} is missing (tried {tried}); say where it is with data_root")


def _tree(spec: NetworkSpec, roots: list[Path]) -> WordTree | None:
    """The tree that the last layer names."""
    last = spec.region or spec.softmax
    if last is None or last.tree is None:
        return None
    from wordtree import WordTree  # networks without a tree do not need it

    path = _find(last.tree, roots, "tree")
    names = path.with_suffix(".names")
    tree = WordTree.from_darknet(path, names=names if names.is_file() else None)
    if len(tree) != spec.classes:
        raise ModelError(f"{path}: a tree of {len(tree)} nodes; the cfg has {spec.classes} classes")
    return tree


def _class_map(spec: NetworkSpec, roots: list[Path]) -> Tensor | None:
    """The map that the region layer names: data set class -> node."""
    if spec.region is None or spec.region.map is None:
        return None
    from wordtree.darknet import read_map

    path = _find(spec.region.map, roots, "map")
    return torch.from_numpy(read_map(path, spec.classes))
