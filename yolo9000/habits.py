"""The words that users of other YOLO packages are used to, put into ours: keywords of a call. What else
becomes of their habits is docs/coming_from.md."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from yolo9000.options import Options

# Their keyword -> ours, of Detector.__call__.
SAME = {
    "source": "pictures",
    "conf": "threshold",
    "conf_thres": "threshold",
    "iou": "nms_iou",
    "iou_thres": "nms_iou",
    "imgsz": "size",
    "img_size": "size",
    "max_det": "max_detections",
    "classes": "vocabulary",
}

# Their keyword -> where to find here what it does there.
ELSEWHERE = {
    "device": "the device belongs to the detector: Detector.load(device='cuda')",
    "half": "the precision belongs to the detector: Detector.load(precision='bfloat16')",
    "rect": "it belongs to the detector: Detector.load(rect=True)",
    "save": "found.save('out.jpg') writes the picture with its boxes",
    "save_txt": "found.to_json(), found.to_coco(...) and found.to_pandas() give rows to write",
    "save_crop": "found.crop() gives the pictures inside the boxes",
    "show": "found.plot() gives the picture with its boxes",
    "stream": "detector.stream(pictures) gives results as they are ready",
    "verbose": "nothing is printed here",
    "augment": "pictures are looked at once; a larger size finds smaller things",
    "agnostic_nms": "nms='agnostic'",
}

# Ours.
KNOWN = frozenset({"pictures", "size", "batch"} | {part.name for part in fields(Options)})


def spoken(words: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords in either language in ours. Raises TypeError as `translated`."""
    ours = {word: value for word, value in words.items() if word in KNOWN}
    theirs = {word: value for word, value in words.items() if word not in KNOWN}
    return ours | translated(theirs, ours)


def translated(habits: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Our keywords for theirs.

    given: what the call has in our words, None is not given. A pair of `imgsz` is (height, width) there and
    (width, height) here. A single class is a list of one. Raises TypeError for a word that is unknown, says
    where to find what it asks for, and for the same thing said twice.
    """
    ours: dict[str, Any] = {}
    for word, value in habits.items():
        if word in ELSEWHERE:
            raise TypeError(f"a detector is not called with {word!r}: {ELSEWHERE[word]}")
        if word not in SAME:
            close = difflib.get_close_matches(word, {*SAME, *SAME.values(), *given}, 1)
            hint = f"did you mean {close[0]!r}?" if close else "help(Detector.__call__) lists what it takes"
            raise TypeError(f"a detector is not called with {word!r}; {hint}")
        name = SAME[word]
        if value is None:
            continue
        if given.get(name) is not None or name in ours:
            raise TypeError(f"{word!r} is another word for {name!r}, which is given already")
        if name == "size" and isinstance(value, tuple | list):
            value = tuple(reversed(value))
        if word == "classes" and isinstance(value, int):
            value = [value]
        ours[name] = value
    return ours
