"""The card of a model, Markdown as the Hugging Face Hub shows it, made of nothing but what the model file
says about itself. Figures and limits that are not in its record are not on the card.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# How licences are called there; others are "other", and what the record says of it stands in the text.
_LICENCES = {"mit": "mit", "apache-2.0": "apache-2.0", "bsd-3-clause": "bsd-3-clause", "cc0-1.0": "cc0-1.0"}

# Stands on every card made here; one without it belongs to whoever wrote it.
MADE = "<!-- Made by yolo9000 of the model's own record. Take this line out to keep what you write here. -->"

_LIMITS = (
    "An answer is a node of the model's tree; what the tree has no node for is answered as something above "
    "it, or not at all.",
    "Nodes that no class row is stored for have probability 0 and are never answered.",
)


def model_card(path: str | Path | None = None, name: str = "") -> str:
    """The card of a model file, by default of the model in the package. name: how `from_pretrained` is to
    call it. Raises ModelError for what is no model file."""
    from yolo9000.cli.info import describe

    facts = describe(None if path is None else Path(path))
    record = facts["record"]
    licence = str(record.get("licence") or record.get("license") or "")
    title = str(record.get("name") or name.rpartition("/")[2] or "A YOLO9000 model")
    front = {
        "license": _LICENCES.get(licence.split(";")[0].split(",")[0].strip().lower(), "other"),
        "library_name": "yolo9000",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "yolo9000", "wordnet", "hierarchical-classification"],
    }
    parts = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        MADE,
        "",
        f"# {_text(title)}",
    ]
    parts += ["", *_use(name, facts["network"]["kind"]), "", "## What it is", "", *_table(_facts(facts))]
    if facts.get("learnt from"):
        rows = {f"nodes: {kind}": f"{count:,}" for kind, count in facts["learnt from"].items()}
        parts += ["", "## What its nodes learnt from", "", *_table(rows)]
        parts += ["", "A node counts under every kind that named it."]
    parts += ["", "## Data", "", *_data(record)]
    if figures := _figures(record):
        parts += ["", "## Figures", "", *_table(figures)]
    limits = record.get("limits")
    limits = limits if isinstance(limits, list) else [limits]
    said = [one for one in limits if isinstance(one, str)]
    parts += ["", "## Limits", "", *(f"- {_text(one)}" for one in (*said, *_LIMITS))]
    parts += ["", "## Licence", "", _text(licence) or "Not said in the model's record."]
    return "\n".join(parts) + "\n"


def _use(name: str, kind: str) -> list[str]:
    if kind != "detector":
        return ["A network for `yolo9000.modelfile.load_model`."]
    called = json.dumps(name or "folder/of/this/model")
    return [
        "```python",
        "import yolo9000",
        "",
        f"detector = yolo9000.Detector.from_pretrained({called})",
        'for one in detector("photo.jpg"):',
        '    print(one.name, one.score, one.box_xyxy, " > ".join(one.path_names))',
        "```",
    ]


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    network, tree = facts["network"], facts.get("tree")
    rows = {f"network: {key}": value for key, value in network.items() if not isinstance(value, list | dict)}
    if tree:
        rows["tree: fingerprint"] = tree["fingerprint"]
        rows |= {f"tree: {key}": value for key, value in tree.items() if isinstance(value, int | str)}
    elif facts.get("names"):
        rows["classes"] = ", ".join(facts["names"])
    if "class rows" in facts:
        rows["class rows stored"] = f"{facts['class rows']['stored']:,} of {facts['class rows']['of']:,}"
    rows |= {f"default: {key}": value for key, value in facts["defaults"].items() if _plain(value)}
    return rows | {"bytes": f"{facts['size']:,}", "SHA-256": facts["sha256"]}


def _data(record: Mapping[str, Any]) -> list[str]:
    data = record.get("data")
    lines = [_text(data)] if isinstance(data, str) else []
    if isinstance(data, list):
        for entry in data:
            if isinstance(entry, dict):
                said = ", ".join(f"{key} {_shown(value)}" for key, value in entry.items() if value)
                lines.append(f"- {_text(said)}")
    rows = {key: record[key] for key in ("images", "made", "trunk") if _plain(record.get(key))}
    titles = {"images": "pictures trained on", "made": "made", "trunk": "began with"}
    lines += [f"- {titles[key]}: {_text(_shown(value))}" for key, value in rows.items()]
    return lines or ["Not said in the model's record."]


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """Scores on held-out data, and the losses of the last batches."""
    rows: dict[str, Any] = {}
    for group, title in (("figures", ""), ("best", "best moment: "), ("losses", "in training: ")):
        given = record.get(group)
        for key, value in given.items() if isinstance(given, dict) else ():
            if _plain(value):
                rows[f"{title}{key}"] = value
    return rows


def _table(rows: Mapping[str, Any]) -> list[str]:
    return [
        "|  |  |",
        "|---|---|",
        *(f"| {_text(key)} | {_text(_shown(value))} |" for key, value in rows.items()),
    ]


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _text(text: str) -> str:
    """Text of a model's record inside Markdown: one line, no markup of its own."""
    line = " ".join(str(text).split())
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("[", "&#91;"), ("`", "&#96;")):
        line = line.replace(sign, written)
    return line
