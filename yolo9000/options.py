"""How detections are chosen from what a network answers: the options of a `Detector`, checked once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from yolo9000.descent import RULES
from yolo9000.errors import ModelError
from yolo9000.suppression import MODES

# Where neither the caller nor the model's own defaults say otherwise.
THRESHOLD = 0.2  # on objectness; the reference program's customary value lies between .2 and .25
TREE_THRESHOLD = 0.5  # on Pr(node): what is answered is more likely right than not
NMS_IOU = 0.4  # Darknet's demonstration programs use .4 or .45


@dataclass(frozen=True)
class Options:
    """How detections are chosen; see Detector.__call__, which takes the same names."""

    threshold: float = THRESHOLD
    rule: str = "threshold"
    tree_threshold: float = TREE_THRESHOLD
    nms: str = "related"
    nms_iou: float = NMS_IOU
    mapped: bool = False
    clip: bool = True
    max_detections: int = 300

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"the rule is one of {', '.join(RULES)}, not {self.rule!r}")
        if self.nms not in MODES:
            raise ValueError(f"suppression is one of {', '.join(MODES)}, not {self.nms!r}")
        for name in ("threshold", "tree_threshold", "nms_iou"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value <= 1:  # also refuses NaN
                raise ValueError(f"{name} lies in 0..1, not {value!r}")
        if not isinstance(self.max_detections, Integral) or self.max_detections < 1:
            raise ValueError(f"max_detections is a whole number from 1 on, not {self.max_detections!r}")


def check_defaults(defaults: Mapping[str, Any]) -> None:
    """Raises ModelError unless these options of a model file are some that exist, with possible values."""
    unknown = sorted(defaults.keys() - {part.name for part in fields(Options)})
    if unknown:
        raise ModelError(f"the model's defaults name options that this program has not: {', '.join(unknown)}")
    try:
        Options(**defaults)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's defaults: {error}") from error
