"""How detections are chosen from what a network answers: the options of a `Detector`, checked once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from yolo9000.cuts import as_listed, resolve
from yolo9000.decision import RULES
from yolo9000.errors import ModelError
from yolo9000.hedging import LARGEST_LAMBDA
from yolo9000.suppression import MODES

if TYPE_CHECKING:
    from wordtree import WordTree

# Where neither the caller nor the model's own defaults say otherwise.
THRESHOLD = 0.2  # on objectness; the reference program's customary value lies between .2 and .25
TREE_THRESHOLD = 0.5  # on Pr(node): what is answered is more likely right than not
NMS_IOU = 0.4  # Darknet's demonstration programs use .4 or .45
ACCURACY = 0.9  # of hedged answers: as often right as one takes somebody's word

# What the score of an answer is; "" is the rule's own: "objectness" for "darknet" on a tree, else "absolute".
SCORES = ("objectness", "absolute", "conditional")


@dataclass(frozen=True)
class Options:
    """How detections are chosen; see Detector.__call__, which takes the same names.

    level, vocabulary: lists are kept as tuples. lambdas: accuracy -> lambda, as `yolo9000 calibrate` found
    them for this model; temperatures: one a depth.
    """

    threshold: float = THRESHOLD
    rule: str = "threshold"
    tree_threshold: float = TREE_THRESHOLD
    nms: str = "related"
    nms_iou: float = NMS_IOU
    vote_iou: float = 1.0
    mapped: bool = False
    clip: bool = True
    max_detections: int = 300
    level: int | str | Iterable[str | int] | None = None
    vocabulary: str | Iterable[str | int] | None = None
    accuracy: float = ACCURACY
    hedge_lambda: float | None = None
    lambdas: Mapping[str, float] | None = None
    temperatures: Sequence[float] | None = None
    score: str | None = None

    def __post_init__(self) -> None:
        for name in ("level", "vocabulary"):
            object.__setattr__(self, name, as_listed(getattr(self, name)))
        if self.rule not in RULES:
            raise ValueError(f"the rule is one of {', '.join(RULES)}, not {self.rule!r}")
        if self.nms not in MODES:
            raise ValueError(f"suppression is one of {', '.join(MODES)}, not {self.nms!r}")
        for name in ("threshold", "tree_threshold", "nms_iou", "vote_iou"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value <= 1:  # also refuses NaN
                raise ValueError(f"{name} lies in 0..1, not {value!r}")
        if not isinstance(self.max_detections, Integral) or self.max_detections < 1:
            raise ValueError(f"max_detections is a whole number from 1 on, not {self.max_detections!r}")
        if self.score is not None and self.score not in SCORES:
            raise ValueError(f"the score is one of {', '.join(SCORES)}, not {self.score!r}")
        self._check_nodes()
        self._check_certainty()

    def _check_nodes(self) -> None:
        for name in ("level", "vocabulary"):
            value = getattr(self, name)
            if self.rule == name and value is None:
                raise ValueError(f"the rule {name!r} needs {name}=: {_NEEDED[name]}")
            depth = name == "level" and isinstance(value, Integral) and not isinstance(value, bool)
            if depth and value < 0:
                raise ValueError(f"the level is a depth from 0 on, not {value}")
            listed = isinstance(value, Sequence) and all(isinstance(node, str | Integral) for node in value)
            if value is not None and not depth and not listed:
                raise ValueError(f"{name} is {_NEEDED[name]}, not {value!r}")

    def _check_certainty(self) -> None:
        def number(value: Any, least: float, most: float) -> bool:
            return isinstance(value, Real) and not isinstance(value, bool) and least <= value <= most

        if not number(self.accuracy, 0, 1):
            raise ValueError(f"accuracy lies in 0..1, not {self.accuracy!r}")
        if self.hedge_lambda is not None and not number(self.hedge_lambda, 0, LARGEST_LAMBDA):
            raise ValueError(f"hedge_lambda is a number from 0 on, not {self.hedge_lambda!r}")
        if self.lambdas is not None:
            if not isinstance(self.lambdas, Mapping):
                raise ValueError(f"lambdas are an object of accuracy: lambda, not {self.lambdas!r}")
            for accuracy, value in self.lambdas.items():
                try:
                    good = number(float(accuracy), 0, 1) and number(value, 0, LARGEST_LAMBDA)
                except ValueError:
                    good = False
                if not good:
                    raise ValueError(f"lambdas are accuracy: lambda, not {accuracy!r}: {value!r}")
        if self.temperatures is not None:
            good = isinstance(self.temperatures, Sequence) and not isinstance(self.temperatures, str)
            if not good or not all(number(t, 0.01, 100) for t in self.temperatures):
                raise ValueError(
                    f"temperatures are a list of numbers in 0.01..100, not {self.temperatures!r}"
                )
        if self.rule == "hedge":
            _ = self.chosen_lambda

    @property
    def chosen_lambda(self) -> float:
        """What "hedge" maximises with: hedge_lambda, else the calibrated one of the least accuracy that is
        not below the one asked for. Raises ValueError where the model has none."""
        if self.hedge_lambda is not None:
            return float(self.hedge_lambda)
        known = {float(accuracy): value for accuracy, value in (self.lambdas or {}).items()}
        enough = [accuracy for accuracy in known if accuracy >= self.accuracy - 1e-9]
        if not known:
            raise ValueError(
                "the rule 'hedge' needs a calibrated model (yolo9000 calibrate), "
                "or a lambda (--hedge-lambda, hedge_lambda=)"
            )
        if not enough:
            raise ValueError(
                f"the model is calibrated for accuracies up to {max(known):g}, not for {self.accuracy:g}"
            )
        return float(known[min(enough)])


# Options that one rule alone takes.
_ASKS = {"level": "level", "vocabulary": "vocabulary", "accuracy": "hedge", "hedge_lambda": "hedge"}

# Of the rules that need something, what: one of these.
_LEANS_ON = {"level": {"level"}, "vocabulary": {"vocabulary"}, "hedge": {"lambdas", "hedge_lambda"}}


def asked_rule(given: Mapping[str, Any]) -> str | None:
    """The rule that is given, or that options which only it takes ask for; what is None is not given. None if
    none is. Raises ValueError where two are asked for: one of the options would be ignored."""
    there = [name for name in ("rule", *_ASKS) if given.get(name) is not None]
    rules = [given["rule"] if name == "rule" else _ASKS[name] for name in there]
    for name, rule in zip(there, rules, strict=True):
        if rule != rules[0]:
            first = f"the rule {rules[0]!r}" if there[0] == "rule" else there[0]
            raise ValueError(f"{name} is for the rule {rule!r}, not to go with {first}; leave one out")
    return rules[0] if rules else None


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
    """The given options, completed by a model's defaults; None is not given. Without a rule, options that one
    rule alone takes ask for theirs. An accuracy that is asked for decides the lambda, whatever the defaults
    have. Raises TypeError, ValueError."""
    given = {name: value for name, value in given.items() if value is not None}
    if rule := asked_rule(given):
        given["rule"] = rule
    if "accuracy" in given:
        defaults = {name: value for name, value in defaults.items() if name != "hedge_lambda"}
    return Options(**{**defaults, **given})


def drop_options(defaults: dict[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Leaves these out of a model's defaults, and the rule if it needs them. Returns what was there."""
    dropped = [name for name in names if defaults.pop(name, None) is not None]
    needed = _LEANS_ON.get(defaults.get("rule"), set())
    if needed & set(dropped) and all(defaults.get(name) is None for name in needed):
        del defaults["rule"]
        dropped.append("rule")
    return tuple(dropped)


# What sets a default anew, of those that a model may lose.
_REMEDIES = {"lambdas": "calibrate", "temperatures": "calibrate"} | dict.fromkeys(
    ("rule", "level", "vocabulary"), "convert --default"
)


def told_dropped(dropped: Iterable[str]) -> str:
    """A line of what a model lost, options and others, and how to set them anew."""
    ways = [f"{name} (yolo9000 {_REMEDIES[name]})" if name in _REMEDIES else name for name in dropped]
    return f"dropped, as no longer true: {', '.join(ways)}"


_NEEDED = {
    "level": "a depth (roots: 0), 'coco', 'voc', 'det', or a list of ids, names or numbers",
    "vocabulary": "'coco', 'voc', 'det', or a list of ids, names or numbers",
}


def check_defaults(defaults: Mapping[str, Any]) -> None:
    """Raises ModelError unless these options of a model file are some that exist, with possible values."""
    unknown = sorted(defaults.keys() - {part.name for part in fields(Options)})
    if unknown:
        raise ModelError(f"the model's defaults name options that this program has not: {', '.join(unknown)}")
    try:
        Options(**defaults)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's defaults: {error}") from error


def check_listed(defaults: Mapping[str, Any], tree: "WordTree") -> None:
    """Raises ModelError unless the tree has all nodes that `level` and `vocabulary` of defaults list."""
    for name in ("level", "vocabulary"):
        listed = defaults.get(name)
        if listed is not None and not isinstance(listed, Integral):
            try:
                resolve(tree, listed)
            except ValueError as error:
                raise ModelError(f"the model's default {name}: {error}") from error
