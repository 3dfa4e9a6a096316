"""A model as one safetensors file: weights, the description of the network, its tree or class names, and what
is known about its making. Written whole or not at all; read with nothing unpickled and everything checked.

The header's metadata has one entry, `yolo9000-model` (one, because safetensors writes several in random
order): a line with the version of this format, a line with a SHA-256, and a description in JSON. The hash is
taken over the description and then every tensor in the order of names: name, type, shape, bytes. The
description has

    network      NetworkSpec.to_dict()
    tree         WordTree.to_dict(); or {"fingerprint": ...} alone if it is the default tree of this package;
                 null for a flat list of classes
    names        display names of a flat list, or null
    class_map    data set class -> node, or null
    seen, version  of Darknet's weight file header, so that one can be written again
    record       free: data, figures, licence; `nodes`, if there, lists the nodes by what taught them:
                 {"boxes": [...], "labels": [...], "teacher": [...]}
    defaults     what Detector takes where its caller says nothing: size, resize, threshold, tree_threshold,
    ...

Darknet's own files are darknet.py."""

import hashlib
import json
import operator
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wordtree import TreeError, WordTree
from wordtree.files import written_whole
from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.spec import External, NetworkSpec

KEY = "yolo9000-model"  # of the metadata
VERSION = 1

# What a training calls the model at its end.
MODEL_NAME = "model.safetensors"

# The model in the package.
DEFAULT_PATH = Path(__file__).parent / "data" / "default.safetensors"

# A model of 9,418 nodes with glosses and paths has a header of about 4 MB; far above that it was made to fill
# memory.
_MOST_HEADER = 1 << 28

_FLOAT16_LARGEST = 65504.0


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says beside its weights. tensors: name -> (type, shape); size: of the file in
    bytes."""

    network: NetworkSpec
    tree: WordTree | None
    tree_fingerprint: str | None
    names: tuple[str, ...] | None
    class_map: tuple[int, ...] | None
    seen: int
    version: tuple[int, int, int]
    record: dict[str, Any]
    defaults: dict[str, Any]
    sha256: str
    size: int
    tensors: dict[str, tuple[str, tuple[int, ...]]] = field(repr=False)


def save_model(
    net: Network,
    path: str | Path,
    record: Mapping[str, Any] | None = None,
    *,
    dtype: str = "float32",
    names: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    embed_tree: bool | None = None,
) -> str:
    """Write a network as a model file; returns the SHA-256 that the file carries.

    record, defaults: JSON-able. names: display names of a network without a tree. All three are by default
    those it was loaded with. dtype: "float32", or "float16" for weights of two and more dimensions that fit
    (biases and batch norm stay float32). embed_tree: whether the tree's nodes go into the file; by default
    unless it is this package's default tree, names included.

    Raises ModelError for a network with an external backbone, weights that are not finite, a record that is
    no JSON, and a path that cannot be written. An older file is replaced only by a whole new one.
    """
    path = Path(path)
    if dtype not in ("float32", "float16"):
        raise ModelError(f"model files hold float32 or float16, not {dtype}")
    if any(isinstance(layer, External) for layer in net.spec):
        raise ModelError(
            "a network with an external backbone cannot be a model file: only its owner can build it again"
        )
    names = names if names is not None else net.names
    if names is not None and (net.tree is not None or len(names) != net.classes):
        raise ModelError(f"{len(names)} names for {net.classes} classes; a tree carries its own names")
    model = {
        "network": net.spec.to_dict(),
        "tree": _tree_to_dict(net.tree, embed_tree),
        "names": None if names is None else [str(name) for name in names],
        "class_map": None if net.class_map is None else [int(k) for k in net.class_map],
        "seen": int(net.seen),
        "version": [int(part) for part in net.version],
        "record": dict(net.record if record is None else record),
        "defaults": dict(defaults if defaults is not None else net.defaults),
    }
    try:
        text = json.dumps(model, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as error:
        raise ModelError(f"the record or defaults of a model must be JSON ({error})") from error
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in net.state_dict().items()}
    digest = _digest(text, tensors)
    metadata = {KEY: f"{VERSION}\n{digest}\n{text}"}
    with written_whole(path, ModelError) as part:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:  # its word for a full disk
            raise ModelError(f"{path}: cannot be written ({error})") from error
    return digest


def load_model(path: str | Path | None = None, *, mapped: bool = False) -> Network:
    """The network of a model file, or of the folder of a run that has ended, float32, in evaluation mode,
    with .tree, .names, .class_map, .seen, .version, .record and .defaults set. None: the model in the
    package.

    mapped: what is float32 in the file stays there and comes into memory where it is looked at, as the few
    class rows that a walk down the tree asks for. The weights may still change, which does not change the
    file. The file may be deleted or replaced by another; who writes into it or cuts it off meanwhile changes
    the weights or ends the process.

    Raises ModelError for a file that is missing, no model file, of a newer version, damaged (its SHA-256 is
    checked), or whose parts do not fit one another; for a tree that is not in the file and not this
    package's.
    """
    path = model_path(path)
    info, tensors = _read(path, weights=True)
    if info.tree is None and info.tree_fingerprint is not None:
        raise ModelError(
            f"{path}: made for the tree {info.tree_fingerprint[:12]}, which is not in the file and not this "
            "package's default tree; use the version of yolo9000 that the model came with"
        )
    try:
        # shapes first: nothing is allocated for a description that its tensors do not fit
        with torch.device("meta"):
            net = Network(info.network, info.tree, init=False)
        state = net.state_dict()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    _check_state(path, state, tensors)
    net = Network(info.network, info.tree, init=False)
    values = {name: tensor.to(state[name].dtype) for name, tensor in tensors.items()}
    if mapped:  # opened anew, for checking has brought all of it into memory
        del tensors, values
        values = _map(path, state)
    net.load_state_dict(values, assign=mapped)
    net.class_map = None if info.class_map is None else torch.tensor(info.class_map)
    net.seen, net.version = info.seen, info.version
    net.names, net.record, net.defaults = info.names, info.record, info.defaults
    return net.eval()


def read_info(path: str | Path | None = None, verify: bool = True) -> ModelInfo:
    """What a model file says about itself; verify: also read the weights and check the SHA-256. Raises
    ModelError as load_model."""
    return _read(model_path(path), weights=verify)[0]


def model_path(path: str | Path | None) -> Path:
    """The model file that is meant: the package's own, that of a run's folder, or the file itself."""
    path = DEFAULT_PATH if path is None else Path(path)
    try:
        return path / MODEL_NAME if (path / MODEL_NAME).is_file() else path
    except OSError:  # a name too long: told where the file is opened
        return path


def _read(path: Path, weights: bool) -> tuple[ModelInfo, dict[str, Tensor]]:
    try:
        if not path.is_file():
            if path == DEFAULT_PATH:
                raise ModelError(
                    "no model is embedded in this build of the package; name a model file (--model "
                    "x.safetensors)"
                )
            if path.is_dir():
                raise ModelError(f"{path}: a folder without {MODEL_NAME}; has its training ended?")
            raise ModelError(f"{path}: no such model file")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(start) < 8 or not 2 <= struct.unpack("<Q", start)[0] <= min(size - 8, _MOST_HEADER):
        raise ModelError(f"{path}: not a safetensors file, or cut off{_other_kind(path, start)}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise ModelError(f"{path}: a safetensors file, but not a model of this program (no {KEY!r})")
            version, _, rest = metadata[KEY].partition("\n")
            digest, _, text = rest.partition("\n")
            if version != str(VERSION):
                raise ModelError(
                    f"{path}: model version {version[:20]}; this program reads {VERSION}, a newer may help"
                )
            shapes = {}
            for name in file.keys():  # noqa: SIM118 (safe_open is no dict)
                part = file.get_slice(name)
                shapes[name] = (part.get_dtype(), tuple(part.get_shape()))
            tensors = {name: file.get_tensor(name) for name in shapes} if weights else {}
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged ({error})") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if weights and _digest(text, tensors) != digest:
        raise ModelError(f"{path}: damaged or changed: its content does not give its SHA-256; fetch it again")
    return _info(path, text, digest, size, shapes), tensors


def _map(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file that has been checked, of the shapes and types of `state`."""
    try:
        with safe_open(path, "pt") as file:
            values = {name: file.get_tensor(name).to(wanted.dtype) for name, wanted in state.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: changed while it was read ({error})") from error
    if any(values[name].shape != wanted.shape for name, wanted in state.items()):
        raise ModelError(f"{path}: changed while it was read")
    return values


def _info(
    path: Path, text: str, digest: str, size: int, shapes: dict[str, tuple[str, tuple[int, ...]]]
) -> ModelInfo:
    try:
        model = json.loads(text)
        spec = NetworkSpec.from_dict(model["network"])
        tree, fingerprint = _tree_from_dict(model["tree"])
        for key in ("names", "class_map"):
            if not isinstance(model[key], list | None):
                raise TypeError(f"{key} is no list")
        if not all(isinstance(name, str) for name in model["names"] or ()):
            raise TypeError("a name is no text")
        names = None if model["names"] is None else tuple(model["names"])
        class_map = None if model["class_map"] is None else tuple(map(operator.index, model["class_map"]))
        version = tuple(map(operator.index, model["version"]))
        record, defaults, seen = model["record"], model["defaults"], operator.index(model["seen"])
        if not isinstance(record, dict) or not isinstance(defaults, dict):
            raise TypeError("record or defaults is no object")
    except (ModelError, TreeError) as error:
        raise ModelError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path}: its description cannot be read ({type(error).__name__}: {error})"
        ) from error
    if len(version) != 3 or seen < 0:
        raise ModelError(
            f"{path}: the weight file version {version} or the count of pictures {seen} is impossible"
        )
    if tree is not None and len(tree) != spec.classes:
        raise ModelError(f"{path}: the tree has {len(tree)} nodes, the network {spec.classes} classes")
    if names is not None and (fingerprint is not None or len(names) != spec.classes):
        raise ModelError(
            f"{path}: {len(names)} names for {spec.classes} classes; a tree carries its own names"
        )
    if class_map is not None and not all(0 <= k < spec.classes for k in class_map):
        raise ModelError(f"{path}: its class map points outside the {spec.classes} classes")
    return ModelInfo(
        spec, tree, fingerprint, names, class_map, seen, version, record, defaults, digest, size, shapes
    )


def _tree_to_dict(tree: WordTree | None, embed: bool | None) -> dict[str, Any] | None:
    if tree is None:
        return None
    if embed is None:  # other names for the same nodes are the model's own
        embed = tree.fingerprint != _default_fingerprint() or tree.names != WordTree.default().names
    return tree.to_dict() if embed else {"fingerprint": tree.fingerprint}


def _tree_from_dict(record: Any) -> tuple[WordTree | None, str | None]:
    """The tree, if it is in the file or the package's; and its fingerprint."""
    if record is None:
        return None, None
    if "ids" in record:
        tree = WordTree.from_dict(record)
        return tree, tree.fingerprint
    fingerprint = str(record["fingerprint"])
    return (WordTree.default() if fingerprint == _default_fingerprint() else None), fingerprint


def _default_fingerprint() -> str | None:
    try:
        return WordTree.default().fingerprint
    except TreeError:  # a checkout in which the default tree was not built yet
        return None


def _stored(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """As it goes into the file: on the CPU, contiguous, sharing memory with nothing, in the file's type."""
    tensor = tensor.detach().to("cpu")
    if tensor.is_floating_point():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name} holds values that are not finite; such a model is not worth keeping")
        half = dtype == "float16" and tensor.ndim > 1 and float(tensor.abs().max()) <= _FLOAT16_LARGEST
        tensor = tensor.to(torch.float16 if half else torch.float32)
    return tensor.contiguous().clone()


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_state(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} has no place in it"
        raise ModelError(f"{path}: the weights do not fit the network described: {what}")
    for name, tensor in wanted.items():
        if tuple(tensor.shape) != tuple(found[name].shape):
            shapes = f"{tuple(found[name].shape)}, the network wants {tuple(tensor.shape)}"
            raise ModelError(f"{path}: {name} is {shapes}")
        if found[name].is_floating_point() != tensor.is_floating_point():
            raise ModelError(f"{path}: {name} is {found[name].dtype}, the network wants {tensor.dtype}")
        if found[name].is_floating_point() and not torch.isfinite(found[name]).all():
            raise ModelError(f"{path}: {name} holds values that are not finite")
        if name.endswith("running_var") and bool((found[name] < 0).any()):
            raise ModelError(f"{path}: {name} holds negative variances")


def _other_kind(path: Path, start: bytes) -> str:
    """A hint at what a file is instead."""
    if start.startswith(b"version "):
        return " (a Git LFS pointer: git lfs pull)"
    if start.lstrip().lower().startswith(b"<"):
        return " (a web page: a download that went wrong?)"
    if start.startswith((b"PK", b"\x80")):
        return " (a pickled PyTorch file: such files can run programs and are not read here)"
    if path.suffix == ".weights":
        return " (Darknet's weights need their cfg: --cfg and --weights, or yolo9000 convert)"
    return ""
