"""An evaluation as one HTML page: the figures, precision against recall, average precision along the tree,
what is confused with what, and the worst pictures with truth and answer. It needs no other file and loads
nothing.

What is shown is gathered here from a Witness and the result of `evaluate`; how it looks is data/report.html,
.css and .js; what became of a box outcomes.py's."""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from wordtree import WordTree
from wordtree.files import written_whole
from wordtree.page import DATA as SHARED
from wordtree.page import one_file
from yolo9000.errors import TrainingError
from yolo9000.hierarchy import Hierarchy
from yolo9000.node_precision import NodePrecision, node_precision
from yolo9000.outcomes import RELATIONS, relation, tree_distance
from yolo9000.tables import format_table

if TYPE_CHECKING:
    from yolo9000.scoring import Boxes
    from yolo9000.witness import Witness

WORST = 24  # pictures shown: some 20 KB each, and more than anybody looks at in one go
SIDE = 360  # pixels of a shown picture's longer side: a phone's width
_QUALITY = 70  # of JPEG: faults of naming and placing are seen, not those of the picture
_MOST_BOXES = 60  # drawn on one picture, the surest; more hide it
_MOST_PAIRS = 400  # of confusions, the most frequent; the rest is counted

_DATA = Path(__file__).parent / "data"


def gather(
    witness: "Witness",
    result: Mapping[str, Any],
    facts: Mapping[str, str],
    title: str = "Evaluation",
    worst: int = WORST,
    progress: bool = False,
) -> dict[str, Any]:
    """Everything that the page shows, JSON-able.

    witness, result: of one call of `evaluate`. facts: what was evaluated, shown as it is. worst: pictures
    shown at most. Shares are in 0..1, curves in thousandths, -1 where there is none.
    """
    names = display_names(witness)
    outcomes = {
        place: witness.outcome(place)
        for place in tqdm(witness.boxed(), unit="img", desc="judging", delay=2, disable=not progress)
    }
    classes = _classes(witness, result, outcomes)
    boxed = [(place, outcome.mistakes) for place, outcome in outcomes.items() if outcome.mistakes]
    boxed.sort(key=lambda pair: (-pair[1], pair[0]))
    return {
        "title": title,
        "facts": [[str(key), str(value)] for key, value in facts.items()],
        "figures": format_table(dict(result)),
        "flat": bool((witness.held.tree.parents < 0).all()),
        "relations": RELATIONS,
        "curves": _curves(witness, result, classes),
        "classes": [{key: value for key, value in row.items() if key != "node"} for row in classes],
        "nodes": _nodes(witness, classes, names),
        "confusions": _confusions(witness, outcomes, names),
        "worst": [_picture(witness, place, outcomes[place], names) for place, _ in boxed[:worst]],
        "mistaken": len(boxed),
        "boxed": len(outcomes),
        "labelled": _labelled(witness, names, worst),
    }


def page(data: Mapping[str, Any]) -> str:
    """The page of what `gather` gives, as text; it may hold halves of characters where names of files do."""
    style = (SHARED / "page.css").read_text(encoding="utf-8") + _read("report.css")
    return one_file(_read("report.html"), data["title"], style, _read("report.js"), "report-data", data)


def write_report(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write the page whole or not at all. Raises TrainingError where the file system refuses."""
    with written_whole(path, TrainingError) as part:
        # In JSON a half character's escape is what Python writes for it: \udc80.
        part.write_bytes(page(data).encode("utf-8", "backslashreplace"))


def data_fingerprint(witness: "Witness") -> str:
    """SHA-256 over the pictures evaluated, in order: bytes, size, boxes, marks, and labels by the tree's ids;
    however they are packed."""
    digest, pictures = hashlib.sha256(), witness.held.pictures
    for store, index in pictures.where.tolist():
        sample, ids = pictures.stores[store][index], pictures.stores[store].tree.ids
        digest.update(hashlib.sha256(sample.image).digest())
        digest.update(f"{sample.width} {sample.height} {bool(sample.boxed)}\n".encode())
        for nodes in (sample.labels, sample.image_labels, sample.negative_labels):
            digest.update("".join(f"{ids[int(k)]}\n" for k in nodes).encode() + b"\n")
        for part in (sample.boxes_cxcywh.astype("<f4"), sample.crowd, sample.difficult):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def display_names(witness: "Witness") -> tuple[str, ...]:
    """Names of the network's nodes: its own, else, for a bare list of classes, those of the data."""
    held = witness.held
    if held.net.tree is not None:
        return held.tree.names
    if held.net.names is not None:
        return tuple(held.net.names)
    return held.pictures.stores[0].tree.names if held.pictures.stores else held.tree.names


def _classes(witness: "Witness", result: Mapping[str, Any], outcomes: Mapping) -> list[dict[str, Any]]:
    """Of each class of the truth: id, name, node, number of boxes, AP50, curve, and what became of them."""
    if witness.truth is None:
        return []
    held, truth = witness.held, witness.truth
    names = {i: name for store in held.pictures.stores for i, name in zip(*_ids(store.tree), strict=True)}
    precision = _flat_precision(len(held.truth.ids), truth, witness.found, len(held.pictures.where))
    curves = dict(zip(precision.nodes.tolist(), precision.curves, strict=True))
    kinds = truth.kind[~truth.ignored].astype(np.int64)
    counts = np.bincount(kinds, minlength=len(held.truth.ids))
    became: dict[int, Counter] = {k: Counter() for k in range(len(held.truth.ids))}
    for place, outcome in outcomes.items():
        for column, what in zip(held.truth.columns[place].tolist(), outcome.truths, strict=True):
            became[column][what] += 1
    per_class = result["boxes"]["per_class"]
    return [
        {
            "id": i,
            "name": names.get(i, i),
            "node": node,
            "known": node >= 0,
            "boxes": int(counts[k]),
            "AP50": _short(per_class[i]),
            "curve": _thousandths(curves[k]) if k in curves else [],
            "became": dict(became[k]),
        }
        for k, (i, node) in enumerate(zip(held.truth.ids, held.truth.kinds, strict=True))
    ]


def _curves(
    witness: "Witness", result: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Curves over everything: the mean of the classes', and the boxes whatever their class."""
    known = [row["curve"] for row in classes if row["curve"]]
    curves = []
    if known:
        mean = np.mean(known, axis=0).round().astype(int).tolist()
        row = {"name": f"mean of {len(known)} classes", "AP50": _short(result["boxes"]["AP50"])}
        curves.append(row | {"curve": mean})
    if witness.truth is not None and len(witness.truth.kind):
        of = witness.truth
        one = type(of)(of.image, np.zeros(len(of.kind), np.int64), of.boxes_xyxy, of.score, of.ignored)
        blind = _flat_precision(1, one, witness.blind, len(witness.held.pictures.where))
        if len(blind.curves):
            row = {"name": "whatever the class", "AP50": _short(result["boxes"]["any_class"]["AP50"])}
            curves.append(row | {"curve": _thousandths(blind.curves[0])})
    return curves


def _flat_precision(kinds: int, truth: "Boxes", found: "Boxes", images: int) -> NodePrecision:
    """Precision of kinds that have nothing to do with each other: exact boxes, as over the classes."""
    flat = Hierarchy(WordTree.flat([str(k) for k in range(max(kinds, 1))]))
    return node_precision(flat, _whole(truth), _whole(found), images)


def _whole(boxes: "Boxes") -> "Boxes":
    """Numbers of pictures and kinds as whole numbers, also where there are none."""
    image, kind = boxes.image.astype(np.int64), boxes.kind.astype(np.int64)
    return type(boxes)(image, kind, boxes.boxes_xyxy.reshape(-1, 4), boxes.score, boxes.ignored)


def _nodes(
    witness: "Witness", classes: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of the tree, parents before children, `parent` a row's number: every node that has truths at or
    below it. Without precision per node, the classes side by side."""
    if witness.nodes is None:
        rows = [{key: row[key] for key in ("id", "name", "boxes", "AP50", "curve")} for row in classes]
        return [row | {"parent": -1} for row in rows]
    tree, of = witness.held.tree, witness.nodes
    number = {node: k for k, node in enumerate(of.nodes.tolist())}
    rows = []
    for k, node in enumerate(of.nodes.tolist()):
        row = {"id": tree.ids[node], "name": names[node], "boxes": int(of.truths[k])}
        row |= {"parent": number.get(int(tree.parents[node]), -1), "curve": _thousandths(of.curves[k])}
        rows.append(row | {key: _short(getattr(of, key)[k]) for key in ("AP", "AP50", "AP75")})
    return rows


def _confusions(witness: "Witness", outcomes: Mapping, names: Sequence[str]) -> dict[str, Any]:
    """What was answered for what, boxes and labelled pictures apart; distances in edges of the tree."""
    pairs: Counter = Counter()
    for place, outcome in outcomes.items():
        truths, answers = witness.truth_of(place)[1], witness.answers[place].nodes
        for k, match in enumerate(outcome.match):
            if match >= 0:
                pairs["boxes", int(truths[match]), int(answers[k])] += 1
    for row in witness.named:
        if row.answer is not None:
            pairs["pictures", row.truth, row.answer] += 1
    tree, rows, distances = witness.held.tree, [], {}
    for (kind, truth, answer), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        what, far = relation(tree, truth, answer), tree_distance(tree, truth, answer)
        by_kind = distances.setdefault(kind, {}).setdefault(far, Counter())
        by_kind[what] += count
        if what != "right":
            row = {"of": kind, "truth": names[truth], "answer": _name(names, answer)}
            rows.append(row | {"relation": what, "distance": far, "count": count})
    return {
        "pairs": rows[:_MOST_PAIRS],
        "left_out": max(0, len(rows) - _MOST_PAIRS),
        "distances": {
            kind: [{"distance": far, **counts} for far, counts in sorted(by_distance.items())]
            for kind, by_distance in distances.items()
        },
        "missed": sum(outcome.truths.count("missed") for outcome in outcomes.values()),
        "invented": sum(outcome.answers.count("invented") for outcome in outcomes.values()),
        "again": sum(outcome.answers.count("again") for outcome in outcomes.values()),
    }


def _picture(witness: "Witness", place: int, outcome: Any, names: Sequence[str]) -> dict[str, Any]:
    """One picture with its boxes, in shares of its sides."""
    held, said = witness.held, witness.answers[place]
    boxes, nodes, _ = witness.truth_of(place)
    size = np.array(held.pictures.pixels(place) * 2, np.float64)
    ids = [held.truth.ids[column] for column in held.truth.columns[place].tolist()]
    truth = [
        {"box": _corners(box / size), "name": names[node] if node >= 0 else i, "what": what}
        for box, node, i, what in zip(boxes, nodes.tolist(), ids, outcome.truths, strict=True)
    ]
    answers = [
        {"box": _corners(box / size), "name": _name(names, node), "what": what, "score": _short(score)}
        for box, node, score, what in zip(
            said.boxes_xyxy, said.nodes.tolist(), said.scores.tolist(), outcome.answers, strict=True
        )
    ]
    left_out = max(0, len(truth) - _MOST_BOXES) + max(0, len(answers) - _MOST_BOXES)
    boxes = {"truth": truth[:_MOST_BOXES], "answers": answers[:_MOST_BOXES], "left_out": left_out}
    return {"name": witness.name(place), "mistakes": outcome.mistakes, **boxes, **_image(witness, place)}


def _labelled(witness: "Witness", names: Sequence[str], most: int) -> dict[str, Any]:
    """The worst of the pictures that have labels only: confused, the farthest first, then those without an
    answer."""
    tree, wrong = witness.held.tree, []
    for row in witness.named:
        if row.answer is None:
            wrong.append((1, 0, row))
        elif relation(tree, row.truth, row.answer) == "aside":
            wrong.append((0, -tree_distance(tree, row.truth, row.answer), row))
    wrong.sort(key=lambda entry: (*entry[:2], entry[2].place))
    shown = [
        {
            "name": witness.name(row.place),
            "truth": names[row.truth],
            "answer": None if row.answer is None else _name(names, row.answer),
            "distance": -far,
            **_image(witness, row.place),
        }
        for _, far, row in wrong[:most]
    ]
    return {"pictures": len(witness.named), "mistaken": len(wrong), "worst": shown}


def _image(witness: "Witness", place: int) -> dict[str, Any]:
    """A picture as a data URI, with its size in pixels; "" where it cannot be shown."""
    try:
        small = witness.thumbnail(place, SIDE)
    except TrainingError:
        return {"image": "", "size": [SIDE, SIDE]}
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_QUALITY)
    encoded = base64.b64encode(out.getvalue()).decode()
    return {"image": f"data:image/jpeg;base64,{encoded}", "size": list(small.size)}


def _name(names: Sequence[str], node: int) -> str:
    return names[node] if node >= 0 else "something"


def _ids(tree: WordTree) -> tuple[Sequence[str], Sequence[str]]:
    return tree.ids, tree.names


def _thousandths(curve: np.ndarray) -> list[int]:
    return np.round(np.asarray(curve) * 1000).astype(int).tolist()


def _corners(box: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in box]


def _short(value: float) -> float:
    return round(float(value), 4)


def _read(name: str) -> str:
    return (_DATA / name).read_text(encoding="utf-8")
