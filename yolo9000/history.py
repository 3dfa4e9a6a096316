"""What the log of a run says afterwards: what it was, how it went, how far it came, in words and as curves.
Writing the log is runlog.py's.
"""

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wordtree.files import written_whole
from yolo9000.errors import TrainingError

CURVES_NAME = "curves.png"
# Figures of a line of the log that are no part of the loss, and the shares among them.
_SHARES = ("avg_iou", "recall50", "avg_objectness", "avg_probability", "avg_label_probability")
_COUNTS = ("batch", "images", "rate", "size", "images_per_second", "waited", "seconds", "boxes", "labels")
_SERIES = 6  # in one chart: more have no colour of their own
_SETTLED = 0.05  # of the run: what the loss was before that would press the rest of the curve flat


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run was, from the lines of its log: JSON-able, figures that the log does not give left out.

    "state": finished, stopped by a signal, ended by an error, or neither said (running, or killed); "images"
    and "batches": [done, wanted]; "seconds": of all its processes, one after another; "configuration": what
    differs from the defaults, by dotted key; "data"; "best"; "losses": the last; "skipped": pictures.
    """
    starts = [line for line in lines if line.get("event") in ("start", "resume")]
    batches = [line for line in lines if line.get("event") == "batch"]
    facts: dict[str, Any] = {"state": _state(lines)}
    if starts:
        first = starts[-1]
        config = first.get("config", {})
        facts["name"], facts["task"] = config.get("name"), config.get("task")
        facts["started"] = starts[0].get("time")
        if len(starts) > 1:
            facts["resumed"] = len(starts) - 1
        done = batches[-1].get("batch", 0) if batches else first.get("batch", 0)
        facts["batches"] = [done, first.get("batches")]
        if isinstance(config.get("batch"), int) and isinstance(first.get("batches"), int):
            facts["images"] = [done * config["batch"], first["batches"] * config["batch"]]
        facts["configuration"] = differences(config)
        facts["data"], facts["validation"] = first.get("data"), first.get("validation") or None
        facts["parts"] = first.get("parts")
        for key in ("parameters", "device", "bfloat16", "threads", "processes"):
            facts[key] = first.get(key)
    seconds = _seconds(lines)
    if seconds is not None:
        facts["seconds"] = seconds
    if batches:
        facts["losses"] = {key: value for key, value in batches[-1].items() if key not in (*_COUNTS, "event")}
    best = [line for line in lines if line.get("event") == "validation" and line.get("best")]
    if best:
        last = best[-1]
        facts["best"] = {key: last.get(key) for key in ("by", "value", "batch", "images")}
    facts["skipped"] = sum(line.get("event") == "skipped" for line in lines)
    return {key: value for key, value in facts.items() if value is not None}


def models_left(lines: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of the model files that a run has left since its last batch."""
    found: set[str] = set()
    for line in lines:
        match line.get("event"):
            case "start" | "resume" | "batch":
                found = set()
            case "model":
                found.add(str(line.get("file")))
    return found


def differences(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration that differ from the defaults, by dotted key; all of them where it is not
    of this version."""
    from yolo9000.config import TrainConfig
    from yolo9000.settings import from_dict, to_dict

    try:
        known = from_dict(TrainConfig, dict(config), "log")
    except TrainingError:
        return _flat(config)
    return {key: value for key, value in _flat(to_dict(known)).items() if key not in _defaults(known)}


def draw_curves(lines: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draws losses, shares, scores and learning rate over the images as a PNG; False where there is nothing
    to draw. Raises TrainingError where it cannot be written.
    """
    from data_prep import plots

    # A resumed run repeats batches: the later line counts.
    batches = {line["batch"]: line for line in lines if line.get("event") == "batch" and "images" in line}
    steps = [batches[number] for number in sorted(batches)]
    if not steps:
        return False
    scores = {line["images"]: line for line in lines if line.get("event") == "validation"}
    judged = [scores[images] for images in sorted(scores)]
    keys = dict.fromkeys(key for line in steps for key in line)
    parts = [key for key in keys if key not in (*_COUNTS, *_SHARES, "event", "gradient", "top1_all_nodes")]
    shares = [key for key in keys if key in (*_SHARES, "top1_all_nodes")]
    named = {line["by"]: None for line in judged if line.get("by") not in (None, "loss")}
    charts = [("losses", parts[:_SERIES], steps), ("means over the truths", shares[:_SERIES], steps)]
    charts += [(f"validation: {by}", ["value"], [v for v in judged if v["by"] == by]) for by in named]
    charts += [("learning rate", ["rate"], steps)]
    drawn = []
    for title, chosen, source in charts:
        series = {key: _points(source, key) for key in chosen}
        series = {key: points for key, points in series.items() if points}
        if series:
            drawn.append(plots.curves(title, "images (thousands)", "", _clipped(series)))
    if not drawn:
        return False
    out = io.BytesIO()
    plots.below(drawn).save(out, "PNG")
    with written_whole(path, TrainingError) as part:
        part.write_bytes(out.getvalue())
    return True


def _state(lines: Sequence[Mapping[str, Any]]) -> str:
    for line in reversed(lines):
        match line.get("event"):
            case "model":
                return "finished"
            case "stopped":
                return f"stopped by {line.get('signal')}"
            case "not finite":
                return f"ended: the {line.get('what')} of batch {line.get('batch')} was not finite"
            case "start" | "resume" | "batch":
                return "running, or killed"
    return "running, or killed"


def _seconds(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Time in training of all processes that the run had one after another; their last lines tell."""
    total, current, known = 0.0, 0.0, False
    for line in lines:
        if line.get("event") in ("start", "resume"):
            total, current = total + current, 0.0
        elif isinstance(line.get("seconds"), int | float):
            current, known = float(line["seconds"]), True
    return round(total + current, 1) if known else None


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = [(line["images"] / 1000, line[key]) for line in lines if isinstance(line.get(key), int | float)]
    return [(x, float(y)) for x, y in found if math.isfinite(y)]


def _clipped(series: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """With the start of the run, far above all that follows, cut off at what follows."""
    last = max(points[-1][0] for points in series.values())
    settled = [y for points in series.values() for x, y in points if x >= _SETTLED * last]
    top = 1.2 * max(settled)
    return {name: [(x, min(y, top)) for x, y in points] for name, points in series.items()}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}; parts of a list of tables by their name or number."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            for number, entry in enumerate(value):
                found |= _flat(entry, f"{prefix}{key}.{entry.get('name') or number}.")
        else:
            found[prefix + key] = value
    return found


def _defaults(config: Any, prefix: str = "") -> set[str]:
    """Dotted keys of a configuration's fields that have their default's value."""
    found: set[str] = set()
    for part in dataclasses.fields(config):
        value, key = getattr(config, part.name), f"{prefix}{part.name}"
        if dataclasses.is_dataclass(value):
            found |= _defaults(value, f"{key}.")
        elif isinstance(value, tuple) and value and all(dataclasses.is_dataclass(v) for v in value):
            for number, entry in enumerate(value):
                found |= _defaults(entry, f"{key}.{getattr(entry, 'name', '') or number}.")
        elif part.default is not dataclasses.MISSING and value == part.default:
            found.add(key)
    return found
