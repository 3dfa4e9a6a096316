"""Average precision of detections: pycocotools' numbers, means over groups of classes, and bootstrap
intervals. No network.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

MOST_DETECTIONS = 100  # a picture, over all classes; COCO's limit
_RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision


@dataclass(frozen=True)
class Boxes:
    """Boxes of many pictures as columns: truth, or detections with scores.

    image: (n,) int64 number of the picture; kind: (n,) int64 class; boxes_xyxy: (n, 4) pixels; score: (n,) (1
    for truth); ignored: (n,) bool, truth that is neither to be found nor wrong to find (crowds, difficult
    ones), or a detection that is not wrong where it matches no truth (asked.py).
    """

    image: np.ndarray
    kind: np.ndarray
    boxes_xyxy: np.ndarray
    score: np.ndarray
    ignored: np.ndarray

    def rows(self, chosen: np.ndarray) -> "Boxes":
        """Some of them: (n,) bool or numbers of rows."""
        return Boxes(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def where_asked(self, counts: np.ndarray, unsure: np.ndarray) -> "Boxes":
        """Detections that count, and among the `ignored` also those that are not wrong; (n,) bool each, of
        asked.asked_for."""
        return replace(self, ignored=self.ignored | unsure).rows(counts)

    @classmethod
    def join(cls, parts: Sequence["Boxes"]) -> "Boxes":
        if not parts:
            return cls(*(np.zeros(s) for s in (0, 0, (0, 4), 0)), np.zeros(0, bool))
        return cls(
            *(
                np.concatenate([getattr(p, f) for p in parts])
                for f in ("image", "kind", "boxes_xyxy", "score", "ignored")
            )
        )


def average_precision(
    truth: Boxes,
    found: Boxes,
    images: int,
    kinds: Sequence[int],
    groups: Mapping[str, Sequence[int]] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, object]:
    """AP (IoU 0.5 to 0.95), AP50, AP75 and AR100 over `kinds`, by pycocotools.

    found: those that count; of these the `ignored` are not wrong where they match no truth. images: pictures
    evaluated, numbered from 0. groups: name -> kinds, for each of which means are given too.
    resamples: bootstrap resamplings of the pictures for a 95% interval of AP50 ("AP50_interval"), 0 = none.
    "per_class" holds AP50 by kind, -1 where a kind has no truth.
    """
    coco, matches = _run_coco(truth, found, images, kinds)
    precision = coco.eval["precision"][:, :, :, 0, -1]  # (IoU thresholds, recalls, kinds); -1 = no truth
    recall = coco.eval["recall"][:, :, 0, -1]  # (IoU thresholds, kinds)
    every = np.arange(len(kinds))
    result = _means(precision, recall, every)
    ap50 = [float(_mean(precision[0, :, k])) for k in every]
    result["per_class"] = dict(zip((int(k) for k in kinds), ap50, strict=True))
    position = {int(kind): k for k, kind in enumerate(kinds)}
    chosen: dict[str | None, np.ndarray] = {None: every}  # no name of a group's
    for name, members in (groups or {}).items():
        chosen[name] = np.array([position[m] for m in members if m in position], np.int64)
        result.setdefault("groups", {})[name] = _means(precision, recall, chosen[name]) | {
            "classes": len(chosen[name])
        }
    if resamples:
        intervals = bootstrap_ap50(matches, images, chosen, resamples, seed)
        result["AP50_interval"] = intervals.pop(None)
        for name, interval in intervals.items():
            result["groups"][name]["AP50_interval"] = interval
    return result


@dataclass(frozen=True)
class Matches:
    """What became of one kind's detections at IoU 0.5, best score first, and how many boxes each picture
    has.
    """

    image: np.ndarray  # (d,)
    right: np.ndarray  # (d,) bool
    truth_image: np.ndarray  # (t,) picture of each box of truth that counts


def bootstrap_ap50(
    matches: Sequence[Matches],
    images: int,
    groups: Mapping[str | None, np.ndarray],
    resamples: int,
    seed: int = 0,
) -> dict[str | None, list[float]]:
    """95% interval of the mean AP50 of each group of kinds, by resampling pictures with replacement; -1, -1
    where a group has no truth.
    """
    random = np.random.default_rng(seed)

    def each_mean(weight: np.ndarray) -> np.ndarray:
        each = np.array([weighted_ap(m, weight) for m in matches])
        return np.array([_mean(each[chosen]) for chosen in groups.values()])

    whole = each_mean(np.ones(images, np.int64))  # (groups,)
    draws = [random.integers(images, size=images) for _ in range(resamples)]
    means = [each_mean(np.bincount(draw, minlength=images)) for draw in draws]
    return {
        name: centred_interval(estimate, resampled) if estimate >= 0 else [-1.0, -1.0]
        for name, estimate, resampled in zip(groups, whole, np.transpose(means), strict=True)
    }


def centred_interval(estimate: float, resampled: np.ndarray) -> list[float]:
    """95% interval of a share: the estimate +- 1.96 standard errors, those of its resamplings, cut to 0..1.

    resampled: (n,) the same statistic of each resampling, -1 where it has none; with fewer than two nothing
    is known, and the interval is 0..1.

    Only the spread of the resamplings is used (Efron and Tibshirani, An Introduction to the Bootstrap,
    section 13.2), not where they lie. A recall's precision is the best at that recall or a higher one, which
    is biased upwards, and more so in a resampling, where pictures repeat: percentiles of resampled AP, as
    they are or reflected about the estimate, lie to one side of it and may even leave it out.
    """
    known = resampled[resampled >= 0]
    if len(known) < 2:
        return [0.0, 1.0]
    error = 1.96 * known.std(ddof=1)  # 1.96: 97.5% of a normal distribution lie below
    return [float(max(0.0, estimate - error)), float(min(1.0, estimate + error))]


def weighted_ap(matches: Matches, weight: np.ndarray) -> float:
    """AP of one kind as COCO defines it, each picture counted `weight` times; -1 without truth."""
    positives = weight[matches.truth_image].sum()
    if positives == 0:
        return -1.0
    each = weight[matches.image]
    right = np.cumsum(each * matches.right)
    precision = right / np.maximum(np.cumsum(each), 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or a higher one
    place = np.searchsorted(right / positives, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())


def suppress(
    boxes_xyxy: np.ndarray, kinds: np.ndarray, overlap: float, most: int = MOST_DETECTIONS
) -> np.ndarray:
    """Non-maximum suppression within each kind of (n, 4) boxes, best first; the positions that stay, at most
    `most`.

    The same as going through them one by one: a box stays if no box that stays before it overlaps it by more
    than `overlap`; repeated until nothing changes, that is at most as often as suppressions hang on one
    another.
    """
    order = np.argsort(kinds, kind="stable")  # boxes of one kind side by side, best first
    sorted_kinds = np.asarray(kinds)[order]
    after = np.searchsorted(sorted_kinds, sorted_kinds, side="right") - np.arange(len(order)) - 1
    first = np.repeat(np.arange(len(order)), after)  # every pair of one kind: (earlier, later)
    step = np.arange(len(first)) - np.repeat(np.cumsum(after) - after, after)
    earlier, later = order[first], order[first + 1 + step]
    a, b = boxes_xyxy[earlier], boxes_xyxy[later]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = np.clip(sides[:, 0], 0, None) * np.clip(sides[:, 1], 0, None)
    area = np.prod(np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None), axis=1)
    rivals = common > overlap * (area[earlier] + area[later] - common)
    earlier, later = earlier[rivals], later[rivals]
    stays = np.ones(len(order), bool)
    while True:
        now = np.ones_like(stays)
        now[later[stays[earlier]]] = False
        if (now == stays).all():
            return np.flatnonzero(stays)[:most]
        stays = now


def _run_coco(truth: Boxes, found: Boxes, images: int, kinds: Sequence[int]) -> tuple[object, list[Matches]]:
    """COCOeval after accumulate(), and the matches at IoU 0.5 of each kind."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports to the terminal
        gt, dt = COCO(), COCO()
        pictures = [{"id": k} for k in range(images)]
        categories = [{"id": int(k)} for k in kinds]
        gt.dataset = {"images": pictures, "categories": categories, "annotations": _annotations(truth, False)}
        dt.dataset = {"images": pictures, "categories": categories, "annotations": _annotations(found, True)}
        gt.createIndex()
        dt.createIndex()
        coco = COCOeval(gt, dt, "bbox")
        coco.params.areaRng, coco.params.areaRngLbl = [[0, 1e10]], ["all"]
        coco.params.maxDets = [MOST_DETECTIONS]
        coco.params.catIds = [int(k) for k in kinds]
        coco.evaluate()
        _let_off(coco, found)
        coco.accumulate()
    matches = []
    for k in range(len(kinds)):
        scores, places, right, truths = [], [], [], []
        for picture in range(images):
            entry = coco.evalImgs[k * images + picture]
            if entry is None:
                continue
            counted = ~entry["dtIgnore"][0].astype(bool)
            scores.append(np.asarray(entry["dtScores"])[counted])
            right.append(np.asarray(entry["dtMatches"][0])[counted] > 0)
            places.append(np.full(int(counted.sum()), picture))
            truths.append(np.full(int((~np.asarray(entry["gtIgnore"], bool)).sum()), picture))
        if scores:
            # mergesort, as pycocotools: equal scores keep the order of the pictures.
            order = np.argsort(-np.concatenate(scores), kind="mergesort")
            matches.append(
                Matches(np.concatenate(places)[order], np.concatenate(right)[order], np.concatenate(truths))
            )
        else:
            matches.append(Matches(np.zeros(0, int), np.zeros(0, bool), np.zeros(0, int)))
    return coco, matches


def _let_off(coco: object, found: Boxes) -> None:
    """Marks detections that are `ignored` and matched nothing as uncounted, as LVIS's evaluation does."""
    if not found.ignored.any():
        return
    for entry in coco.evalImgs:
        if entry is not None and len(entry["dtIds"]):
            let_off = found.ignored[np.asarray(entry["dtIds"]) - 1]  # ids count from 1 in found's order
            entry["dtIgnore"] = entry["dtIgnore"].astype(bool) | ((entry["dtMatches"] == 0) & let_off)


def _annotations(boxes: Boxes, scored: bool) -> list[dict]:
    sides = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
    corner_size = np.concatenate([boxes.boxes_xyxy[:, :2], sides], axis=1).tolist()
    columns = (boxes.image.tolist(), boxes.kind.tolist(), boxes.score.tolist(), boxes.ignored.tolist())
    out = []
    for image, kind, score, ignored, box in zip(*columns, corner_size, strict=True):
        entry = {"id": len(out) + 1, "image_id": int(image), "category_id": int(kind), "bbox": box}
        entry |= {"area": box[2] * box[3], "iscrowd": int(ignored and not scored)}
        if scored:
            entry["score"] = score
        out.append(entry)
    return out


def _means(precision: np.ndarray, recall: np.ndarray, chosen: np.ndarray) -> dict[str, object]:
    return {
        "AP": _mean(precision[:, :, chosen]),
        "AP50": _mean(precision[0, :, chosen]),
        "AP75": _mean(precision[5, :, chosen]),
        "AR100": _mean(recall[:, chosen]),
        "AR100_50": _mean(recall[0, chosen]),
    }


def _mean(values: np.ndarray) -> float:
    """Mean of what is not -1 (no truth); -1 if all are."""
    values = np.asarray(values)
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
