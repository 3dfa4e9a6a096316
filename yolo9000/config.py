"""What a training run is: frozen dataclasses, read from TOML with strict keys. Holds no training code and
imports no torch.

A configuration is a file of the user's or one of the named ones in yolo9000/configs. `base = "name"` at its
top takes another one as the start (a name, or a path beside the file); tables are merged key by key, the list
of data parts is replaced.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo9000.errors import TrainingError

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelConfig:
    """What is trained: exactly one of `preset`, `start` or `cfg` says where the network comes from.

    preset: name of a function in yolo9000.presets, called with `arguments`; start: model file or checkpoint
    to go on from; cfg, weights: Darknet files. With `preset`, `trunk` names files (a model file, a
    checkpoint, or cfg + weights separated by a space) whose first layers are copied as far as the layers
    agree. known: the classes of `trunk`, a classifier, as WordNet ids (a table of wordtree.class_map, or a
    file); then the class rows begin as what that classifier knows (yolo9000.distill). tree: "default", a tree
    file, "flat" (one sibling group of all classes that the data names), or "" (that of the data). stored:
    "labels" gives class rows only to nodes on the paths of the data's labels and of `known`, "all" to every
    node.
    """

    preset: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    cfg: str = ""
    weights: str = ""
    data_root: str = ""
    trunk: str = ""
    tree: str = ""
    stored: str = "all"
    known: str = ""
    shared_rows: bool = False  # one set of class rows for all anchors
    freeze: int = 0  # layers before this index are frozen, their batch norms in evaluation mode
    fold: bool = (
        False  # fold the frozen layers' batch norms into their convolutions: the same outputs, faster
    )

    def __post_init__(self) -> None:
        given = [name for name in ("preset", "start", "cfg") if getattr(self, name)]
        if len(given) != 1:
            raise TrainingError(
                f"[model] needs exactly one of preset, start and cfg; it has {given or 'none'}"
            )
        _choice("model.stored", self.stored, ("all", "labels"))
        if self.known and not (self.preset and self.trunk):
            raise TrainingError("model.known names the classes of model.trunk, the start of a preset")
        if self.weights and not self.cfg:
            raise TrainingError("model.weights is read with model.cfg; for a model file use model.start")
        if self.freeze < 0:
            raise TrainingError(f"model.freeze is a layer index, 0 or more; it is {self.freeze}")


@dataclass(frozen=True)
class AugmentConfig:
    """How pictures of one part of the data are laid out and coloured; see yolo9000.augment.

    layout: "letterbox" (whole picture, centred), "crop" (random scale, aspect and place), "mosaic" (tiles x
    tiles pictures, each as with crop), "resized_crop" (a random area stretched to the whole picture; for
    labels without boxes).
    """

    layout: str = "crop"
    scale: tuple[float, float] = (
        0.75,
        1.5,
    )  # picture's size over the size that just fits; resized_crop: share of the area
    aspect: float = 0.2  # width / height is changed by up to this factor either way: 0.2 = x 1.2 or / 1.2
    flip: float = 0.5  # probability
    hue: float = 0.1  # Darknet's cfg files: shift by up to this share of the circle, either way
    saturation: float = 1.5  # Darknet's cfg files: multiplied or divided by up to this
    exposure: float = 1.5
    tiles: tuple[int, int] = (2, 3)  # mosaic: least and most tiles a side, drawn for each picture
    mosaic_share: float = 1.0  # mosaic: this share of the pictures, the rest as with crop
    min_visible: float = (
        0.3  # a box that keeps less of its area is no truth but a place where objectness costs nothing
    )

    def __post_init__(self) -> None:
        _choice("augment.layout", self.layout, ("letterbox", "crop", "mosaic", "resized_crop"))
        _ordered("augment.scale", self.scale, 0.01, 100.0)
        _ordered("augment.tiles", self.tiles, 1, 16)
        if self.layout == "resized_crop" and self.scale[1] > 1:
            raise TrainingError(
                f"augment.scale of a resized_crop is a share of the area, at most 1; it is {self.scale}"
            )
        _within("augment.aspect", self.aspect, 0, 4)
        for name in ("flip", "mosaic_share", "min_visible"):
            _within(f"augment.{name}", getattr(self, name), 0, 1)
        _within("augment.hue", self.hue, 0, 0.5)
        for name in ("saturation", "exposure"):
            _within(f"augment.{name}", getattr(self, name), 1, 10)


@dataclass(frozen=True)
class PartConfig:
    """One part of every batch: which samples, how much of the batch, how augmented."""

    share: float
    source: tuple[str, ...] = ()  # patterns (* and ?) for the samples' source names; none = all
    kind: str = "any"  # boxed | label (labels, no boxes) | unlabelled (neither) | any
    name: str = ""
    ignore_boxes: bool = False  # treat boxed pictures as if only their labels were known
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        _choice("data.kind", self.kind, ("boxed", "label", "unlabelled", "any"))
        if not 0 < self.share < 1e6:
            raise TrainingError(f"data.share of part {self.name!r} is a positive number; it is {self.share}")


@dataclass(frozen=True)
class OptimiserConfig:
    """Weight decay is on convolution weights only (SPEC 3.3); batch norms, biases and everything
    one-dimensional have none.
    """

    name: str = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9  # AdamW: its beta1
    beta2: float = 0.999
    weight_decay: float = 5e-4
    nesterov: bool = False
    clip: float = 0.0  # largest gradient norm; 0 = no clipping
    scales: dict[str, float] = field(
        default_factory=dict
    )  # parameter name prefix -> factor on the learning rate

    def __post_init__(self) -> None:
        _choice("optimiser.name", self.name, ("sgd", "adamw"))
        _within("optimiser.lr", self.lr, 0, 100)
        _within("optimiser.momentum", self.momentum, 0, 0.9999)
        _within("optimiser.beta2", self.beta2, 0, 0.999999)
        _within("optimiser.weight_decay", self.weight_decay, 0, 10)
        _within("optimiser.clip", self.clip, 0, 1e9)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate's factor over the run: burn-in (batches / burn_in) ** burn_in_power, then one of the
    rules below.
    """

    name: str = "steps"  # constant | steps | polynomial | cosine
    burn_in: int = 1000  # batches; yolo9000.cfg
    burn_in_power: float = 4.0
    steps: tuple[float, ...] = (0.8, 0.9)  # shares of the run; yolo9000.cfg: 400k and 450k of 500,200 batches
    factor: float = 0.1  # at each step
    power: float = 4.0  # polynomial: (1 - done) ** power, SPEC 3.3
    final: float = 0.0  # cosine: the last factor

    def __post_init__(self) -> None:
        _choice("schedule.name", self.name, ("constant", "steps", "polynomial", "cosine"))
        if self.burn_in < 0:
            raise TrainingError(f"schedule.burn_in is a number of batches, 0 or more; it is {self.burn_in}")
        if any(not 0 <= s <= 1 for s in self.steps) or list(self.steps) != sorted(self.steps):
            raise TrainingError(
                f"schedule.steps are shares of the run, 0..1, rising; they are {list(self.steps)}"
            )


@dataclass(frozen=True)
class SizeConfig:
    """Input sizes in pixels, square. One size, or several: a new one is drawn every `every` batches."""

    sizes: tuple[int, ...] = (416,)
    every: int = 10  # paper, section 2

    def __post_init__(self) -> None:
        if not self.sizes or any(s < 8 or s > 4096 for s in self.sizes):
            raise TrainingError(f"input.sizes are pixels from 8 to 4096; they are {list(self.sizes)}")
        if self.every < 1:
            raise TrainingError(f"input.every is a number of batches, 1 or more; it is {self.every}")


@dataclass(frozen=True)
class LogConfig:
    log_every: int = 20  # batches between lines of the log
    checkpoint_seconds: float = 300.0
    keep: int = 2  # checkpoints kept

    def __post_init__(self) -> None:
        _within("log.log_every", self.log_every, 1, 1e9)
        _within("log.keep", self.keep, 1, 1000)


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `images` counts pictures that enter the network (a mosaic is one); `epochs`, in its place,
    counts passes over the part that takes longest.
    """

    model: ModelConfig
    data: tuple[PartConfig, ...]
    task: str = "detect"
    images: int = 0
    epochs: float = 0.0
    batch: int = 64
    seed: int = 0
    precision: str = "auto"  # bfloat16 where the processor has it; or bfloat16 | float32
    device: str = "auto"
    threads: int = 0  # torch's threads; 0 = as many as there are processors
    workers: int = 1  # processes that load and augment; 0 = load in the training process
    ema: float = 0.0  # decay of the averaged weights per batch; 0 = none
    input: SizeConfig = field(default_factory=SizeConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: dict[str, Any] = field(default_factory=dict)  # settings of the task's loss (RegionLoss's keywords)
    distill: dict[str, Any] = field(default_factory=dict)  # settings of the task "distill"
    log: LogConfig = field(default_factory=LogConfig)
    name: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        _choice("task", self.task, ("detect", "classify", "distill"))
        _choice("precision", self.precision, ("auto", "bfloat16", "float32"))
        if (self.images > 0) == (self.epochs > 0):
            raise TrainingError("exactly one of images and epochs is set, to a positive number")
        if not self.data:
            raise TrainingError("no data: at least one [[data]] part is needed")
        _within("batch", self.batch, 1, 1_000_000)
        _within("ema", self.ema, 0, 0.999999)
        _within("workers", self.workers, 0, 256)
        _within("threads", self.threads, 0, 4096)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.input.sizes


def load_config(name: str | Path, settings: tuple[str, ...] = ()) -> TrainConfig:
    """The configuration of a TOML file or of that name, with `key=value` settings applied on top.

    Keys of settings are dotted; data parts are named by their position or their name: data.0.share=3,
    optimiser.lr=1e-2. Values are TOML; what is not TOML is text. Raises TrainingError naming file, key and
    near matches.
    """
    path = find_config(name)
    table = _read_table(path, ())
    for setting in settings:
        _apply(table, setting)
    table.setdefault("name", path.stem)
    return from_dict(TrainConfig, table, str(path))


def named_configs() -> tuple[str, ...]:
    """Names of the configurations that come with the package."""
    return tuple(sorted(p.stem for p in CONFIGS.glob("*.toml")))


def find_config(name: str | Path) -> Path:
    """The file of a configuration given by path or name."""
    path = Path(name)
    if path.is_file():
        return path
    packaged = CONFIGS / f"{name}.toml"
    if path.name == str(name) and packaged.is_file():
        return packaged
    raise TrainingError(
        f"{name}: neither a file nor a named configuration; named ones are: {', '.join(named_configs())}"
    )


def from_dict(cls: type, table: dict[str, Any], where: str, prefix: str = "") -> Any:
    """A dataclass from plain data; every key must be a field, every value of the field's type."""
    if not isinstance(table, dict):
        raise TrainingError(
            f"{where}: {prefix.rstrip('.') or 'the file'} is a table of settings, not {table!r}"
        )
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(hints)}"
            raise TrainingError(f"{where}: unknown key {prefix}{key}{hint}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in table
    ]
    if missing:
        raise TrainingError(f"{where}: {prefix}{missing[0]} is missing")
    values = {key: _convert(hints[key], value, where, f"{prefix}{key}") for key, value in table.items()}
    try:
        return cls(**values)
    except TrainingError as error:
        raise TrainingError(str(error) if where in str(error) else f"{where}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON-able data from which `from_dict` makes the same configuration."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where, f"{key}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if isinstance(value, str) and arguments[0] is str:
            value = [value]  # source = "coco" for source = ["coco"]
        if not isinstance(value, list | tuple):
            raise TrainingError(f"{where}: {key} is a list, not {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, where, f"{key}.{i}") for i, v in enumerate(value))
        if len(value) != len(arguments):
            raise TrainingError(f"{where}: {key} has {len(arguments)} values, not {len(value)}")
        return tuple(
            _convert(a, v, where, f"{key}.{i}") for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise TrainingError(f"{where}: {key} is a table, not {value!r}")
        return {k: _convert(arguments[1], v, where, f"{key}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        raise TypeError(f"{key}: unions are not supported in configurations")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise TrainingError(f"{where}: {key} is {names[hint]}, not {value!r}")
    if hint is float and value != value:
        raise TrainingError(f"{where}: {key} is not a number (NaN)")
    return value


def _read_table(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise TrainingError(f"{path}: base leads back to itself")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: not a readable TOML file: {error}") from None
    base = table.pop("base", None)
    if base is None:
        return table
    beside = path.parent / str(base)
    start = _read_table(beside if beside.is_file() else find_config(str(base)), (*seen, path))
    start.pop("name", None)
    return _merge(start, table)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise TrainingError(f"--set {setting}: wanted key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    here: Any = table
    for name in parents:
        here = _step(here, name, setting)
    if isinstance(here, list):
        here[_position(here, last, setting)] = value
    else:
        here[last] = value


def _step(here: Any, name: str, setting: str) -> Any:
    if isinstance(here, list):
        return here[_position(here, name, setting)]
    if not isinstance(here, dict):
        raise TrainingError(f"--set {setting}: {name} lies below something that has no keys")
    return here.setdefault(name, {})


def _position(parts: list, name: str, setting: str) -> int:
    for position, part in enumerate(parts):
        if str(position) == name or (isinstance(part, dict) and part.get("name") == name):
            return position
    known = [p.get("name") or str(i) for i, p in enumerate(parts) if isinstance(p, dict)]
    raise TrainingError(f"--set {setting}: no part {name}; there are {', '.join(known)}")


def _choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TrainingError(f"{key} is one of {', '.join(known)}, not {value!r}{hint}")


def _within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise TrainingError(f"{key} lies from {low} to {high:g}; it is {value}")


def _ordered(key: str, pair: tuple[float, float], low: float, high: float) -> None:
    if not low <= pair[0] <= pair[1] <= high:
        raise TrainingError(f"{key} is a rising pair from {low} to {high:g}; it is {list(pair)}")
