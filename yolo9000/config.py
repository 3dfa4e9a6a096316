"""What a training run is: frozen dataclasses, and the configurations that come with the package. Holds no
training code, imports no torch; how tables become dataclasses is settings.py's.

A configuration is a file of the user's or one of the named ones in yolo9000/configs. `base = "name"` at its
top takes another one as the start (a name, or a path beside the file); tables are merged key by key, the list
of data parts is replaced.
"""

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo9000.errors import TrainingError
from yolo9000.settings import apply_settings, from_dict, read_table
from yolo9000.settings import to_dict as to_dict  # read and written back from the same place

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelConfig:
    """What is trained: exactly one of `preset`, `start` or `cfg` says where the network comes from.

    preset: name of a function in yolo9000.presets, called with `arguments`; start: model file or checkpoint
    to go on from; cfg, weights: Darknet files. With `preset`, `trunk` names files (a model file, a
    checkpoint, or cfg + weights separated by a space) whose first layers are copied as far as the layers
    agree; with trunk_rows, where it is a classifier on a tree, its class rows too, by id, to each anchor.
    known: the classes of `trunk`, a classifier, as WordNet ids (a table of wordtree.class_map, or a file);
    then the class rows begin as what that classifier knows (yolo9000.distill); with `start`, whose own trunk
    stays, those of the nodes that it knows, again. tree: "default", a tree file,
    "flat" (one sibling group of all classes that the data names), "" (that of the data), or "named" (of that
    the nodes on the paths of what the data names, for a classifier has a row for each). stored: "labels"
    gives class rows only to nodes on the paths of the data's labels and of `known`, "all" to every node.
    neck: boxes come from two 3x3 convolutions of so many channels over the trunk and a pass-through, names
    from the trunk's features as before; for a preset in Darknet's form.
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
    neck: int = 0
    follow: int = 0  # windows for names follow the boxes and have so many cells a side at least (roi.py)
    twin: int = 0  # with `start`: the first of the trunk's layers that get a copy that learns (yolo9000.twin)
    box_twin: bool = False  # with `start`, that of a twin: another of the neck (yolo9000.twin)
    hold: bool = False  # of two experts (`twin`, `box_twin`) only the second learns, and the gate
    hold_second: bool = False  # only the first; the gate, the second and what both say in common stay
    freeze: int = 0  # layers before this index are frozen, their batch norms in evaluation mode
    trunk_rows: bool = False  # class rows begin as those of the trunk, a classifier on a tree
    fold: bool = False  # the frozen layers' batch norms into their convolutions: the same outputs, faster

    def __post_init__(self) -> None:
        given = [name for name in ("preset", "start", "cfg") if getattr(self, name)]
        if len(given) != 1:
            raise TrainingError(
                f"[model] needs exactly one of preset, start and cfg; it has {given or 'none'}"
            )
        _choice("model.stored", self.stored, ("all", "labels"))
        if self.known and not self.trunk:
            raise TrainingError("model.known names the classes of model.trunk, a classifier")
        if self.trunk and not (self.preset or self.known):
            raise TrainingError("model.trunk is the start of a preset, or with model.known gives class rows")
        if self.weights and not self.cfg:
            raise TrainingError("model.weights is read with model.cfg; for a model file use model.start")
        if self.data_root and not self.cfg:
            raise TrainingError("model.data_root is where model.cfg's files lie; leave it out")
        for name in ("arguments", "stored", "shared_rows", "trunk_rows"):
            default = {"arguments": {}, "stored": "all"}.get(name, False)
            if getattr(self, name) != default and not self.preset:
                raise TrainingError(
                    f"model.{name} is for a model.preset; that of model.{given[0]} is made already: leave it "
                    f"out, or after a base that has it --set model.{name}={json.dumps(default)}"
                )
        if "tree" in self.arguments:
            raise TrainingError(
                "model.arguments.tree: a preset is given the tree of model.tree, or without one that of the "
                "data; leave it out, or set model.tree"
            )
        if self.trunk_rows and not self.trunk:
            raise TrainingError(
                "model.trunk_rows takes the class rows of model.trunk, a classifier on a tree: name it, or "
                "go without, with model.trunk_rows = false"
            )
        if (self.twin or self.box_twin) and not self.start:
            raise TrainingError("model.twin and box_twin add to a trained detector: name it with model.start")
        if self.hold and self.hold_second:
            raise TrainingError("model.hold and model.hold_second leave neither expert to learn: take one")
        if self.neck < 0 or (self.neck and not self.preset):
            raise TrainingError(
                f"model.neck is a number of channels, 0 or more, with model.preset; it is {self.neck}"
            )
        if self.freeze < 0:
            raise TrainingError(f"model.freeze is a layer index, 0 or more; it is {self.freeze}")
        if self.fold and not self.freeze:
            raise TrainingError(
                "model.fold is for frozen layers, and model.freeze is 0; set it, or fold = false"
            )


@dataclass(frozen=True)
class AugmentConfig:
    """How pictures of one part of the data are laid out and coloured; see yolo9000.augment.

    layout: "letterbox" (whole picture, centred), "crop" (random scale, aspect and place), "mosaic" (tiles x
    tiles pictures, each as with crop), "resized_crop" (a random area stretched to the whole picture; for
    labels without boxes).
    """

    layout: str = "crop"
    scale: tuple[float, float] = (0.75, 1.5)  # size over the one that just fits; resized_crop: share of area
    aspect: float = 0.2  # width / height is changed by up to this factor either way: 0.2 = x 1.2 or / 1.2
    rotation: float = 0.0  # resized_crop: turned by up to so many degrees either way
    flip: float = 0.5  # probability
    hue: float = 0.1  # Darknet's cfg files: shift by up to this share of the circle, either way
    saturation: float = 1.5  # Darknet's cfg files: multiplied or divided by up to this
    exposure: float = 1.5
    tiles: tuple[int, int] = (2, 3)  # mosaic: least and most tiles a side, drawn for each picture
    mosaic_share: float = 1.0  # mosaic: this share of the pictures, the rest as with crop
    min_visible: float = 0.3  # a box that keeps less of its area is no truth: there objectness costs nothing

    def __post_init__(self) -> None:
        _choice("augment.layout", self.layout, ("letterbox", "crop", "mosaic", "resized_crop"))
        _ordered("augment.scale", self.scale, 0.01, 100.0)
        _ordered("augment.tiles", self.tiles, 1, 16)
        if self.layout == "resized_crop" and self.scale[1] > 1:
            raise TrainingError(
                f"augment.scale of a resized_crop is a share of the area, at most 1; it is {self.scale}"
            )
        within("augment.aspect", self.aspect, 0, 4)
        within("augment.rotation", self.rotation, 0, 45)
        if self.rotation and self.layout != "resized_crop":
            raise TrainingError(
                f"augment.rotation is for the layout resized_crop, not {self.layout}: boxes about turned "
                "objects would not fit them"
            )
        for name in ("flip", "mosaic_share", "min_visible"):
            within(f"augment.{name}", getattr(self, name), 0, 1)
        within("augment.hue", self.hue, 0, 0.5)
        for name in ("saturation", "exposure"):
            within(f"augment.{name}", getattr(self, name), 1, 10)


@dataclass(frozen=True)
class PartConfig:
    """One part of every batch: which samples, how much of the batch, how augmented."""

    share: float
    source: tuple[str, ...] = ()  # patterns (* and ?) for the samples' source names; none = all
    kind: str = "any"  # boxed | label (labels, no boxes) | unlabelled (neither) | any
    name: str = ""
    sizes: tuple[
        int, ...
    ] = ()  # input sizes of batches of its own, shared by parts that have the same; () = all
    ignore_boxes: bool = False  # treat boxed pictures as if only their labels were known
    names: bool = True  # false: boxes teach where something is, but not what
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        _choice("data.kind", self.kind, ("boxed", "label", "unlabelled", "any"))
        if not 0 < self.share < 1e6:
            raise TrainingError(f"data.share of part {self.name!r} is a positive number; it is {self.share}")
        if self.ignore_boxes and not self.names:
            raise TrainingError(
                f"data part {self.name!r}: with ignore_boxes and names = false its boxes would teach nothing"
            )
        if self.sizes:
            _pixels(f"data.sizes of part {self.name!r}", self.sizes)


@dataclass(frozen=True)
class OptimiserConfig:
    """Weight decay is on the weights of convolutions, class rows and sums of evidence only (SPEC 3.3); batch
    norms, biases and everything one-dimensional have none.
    """

    name: str = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9  # AdamW: its beta1
    beta2: float = 0.999
    weight_decay: float = 5e-4
    nesterov: bool = False
    clip: float = 0.0  # largest gradient norm; 0 = no clipping
    scales: dict[str, float] = field(default_factory=dict)  # prefix of parameters' names -> factor on lr

    def __post_init__(self) -> None:
        _choice("optimiser.name", self.name, ("sgd", "adamw"))
        within("optimiser.lr", self.lr, 0, 100)
        within("optimiser.momentum", self.momentum, 0, 0.9999)
        within("optimiser.beta2", self.beta2, 0, 0.999999)
        within("optimiser.weight_decay", self.weight_decay, 0, 10)
        within("optimiser.clip", self.clip, 0, 1e9)
        for prefix, factor in self.scales.items():
            within(f"optimiser.scales of {prefix!r}", factor, 0, 1e9)


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
        for name in ("burn_in_power", "factor", "power", "final"):
            within(f"schedule.{name}", getattr(self, name), 0, 1e9)


@dataclass(frozen=True)
class SizeConfig:
    """Input sizes in pixels, square. One size, or several: a new one is drawn every `every` batches.
    None, for the task rows only: the model's own and somewhat less.
    """

    sizes: tuple[int, ...] = (416,)
    every: int = 10  # paper, section 2

    def __post_init__(self) -> None:
        if self.sizes:
            _pixels("input.sizes", self.sizes)
        if self.every < 1:
            raise TrainingError(f"input.every is a number of batches, 1 or more; it is {self.every}")


@dataclass(frozen=True)
class LogConfig:
    log_every: int = 20  # batches between lines of the log
    checkpoint_seconds: float = 300.0
    keep: int = 2  # checkpoints kept, beside the best one
    tensorboard: bool = True  # write for it too, where it is installed

    def __post_init__(self) -> None:
        within("log.log_every", self.log_every, 1, 1e9)
        within("log.checkpoint_seconds", self.checkpoint_seconds, 0, 1e9)
        within("log.keep", self.keep, 1, 1000)


@dataclass(frozen=True)
class ValidationConfig:
    """When the run is judged and on how much: by validation data, or by its loss where none is given."""

    every: int = 0  # batches; 0 = ten times in the run
    pictures: int = 0  # the first so many; 0 = all
    size: int = 0  # side of the square input in pixels; 0 = of input.sizes the nearest to the network's own
    sheet: int = 12  # pictures on the sheet of detections that is written each time; 0 = none

    def __post_init__(self) -> None:
        for name in ("every", "pictures", "size", "sheet"):
            within(f"validation.{name}", getattr(self, name), 0, 1e9)


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
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    name: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        _choice("task", self.task, ("detect", "classify", "distill", "rows"))
        _choice("precision", self.precision, ("auto", "bfloat16", "float32"))
        within("images", self.images, 0, 1e15)
        within("epochs", self.epochs, 0, 1e6)
        if (self.images > 0) == (self.epochs > 0):
            raise TrainingError("exactly one of images and epochs is set, to a positive number")
        if not self.data:
            raise TrainingError("no data: at least one [[data]] part is needed")
        if not self.input.sizes and self.task != "rows":
            raise TrainingError("input.sizes is empty; only the task rows then takes the model's own size")
        within("batch", self.batch, 1, 1_000_000)
        within("seed", self.seed, 0, 2**63 - 1)
        within("ema", self.ema, 0, 0.999999)
        within("workers", self.workers, 0, 256)
        within("threads", self.threads, 0, 4096)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All that a batch may have, each once."""
        found = [size for part in self.data for size in part.sizes or self.input.sizes]
        return tuple(dict.fromkeys(found))


def load_config(name: str | Path, settings: tuple[str, ...] = ()) -> TrainConfig:
    """The configuration of a TOML file or of that name, with `key=value` settings applied on top.

    Keys of settings are dotted; data parts are named by their position or their name: data.0.share=3,
    optimiser.lr=1e-2. Values are TOML; what is not TOML is text. A length in images takes the place of one in
    epochs that the file or its base has, and the other way round. Raises TrainingError naming file, key and
    near matches.
    """
    path = find_config(name)
    table = read_table(path, find_config)
    apply_settings(table, settings)
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
    near = difflib.get_close_matches(str(name), named_configs(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise TrainingError(
        f"{name}: neither a file nor a named configuration; {hint}named ones are: "
        + ", ".join(named_configs())
    )


def _choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TrainingError(f"{key} is one of {', '.join(known)}, not {value!r}{hint}")


def within(key: str, value: float, low: float, high: float) -> None:
    """Raises TrainingError, naming the key, where the value lies outside."""
    if not low <= value <= high:
        raise TrainingError(f"{key} lies from {low} to {high:g}; it is {value}")


def _pixels(key: str, sizes: tuple[int, ...]) -> None:
    if not sizes or any(s < 8 or s > 4096 for s in sizes):
        raise TrainingError(f"{key} are pixels from 8 to 4096; they are {list(sizes)}")


def _ordered(key: str, pair: tuple[float, float], low: float, high: float) -> None:
    if not low <= pair[0] <= pair[1] <= high:
        raise TrainingError(f"{key} is a rising pair from {low} to {high:g}; it is {list(pair)}")
