"""Detections equal Darknet's, before and after suppression, from its own inputs and from photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from yolo9000.detector import Detector

pytestmark = pytest.mark.reference

CASES = (
    "yolov2",
    "yolov2-photo",
    "yolov2-tiny",
    "yolo9000",
    "yolo9000-photo",
    "real-voc-dog",
    "real-voc-horses-nobn",
    "real-coco-dog",
)


def load(shared: Path, case: str) -> tuple[Detector, dict[str, np.ndarray], dict]:
    """Detector, expected arrays, and the options under which Darknet made them."""
    folder = shared / "oracle" / case
    with np.load(folder / "expected.npz") as file:
        expected = dict(file)
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    if "weights" in expected:
        weights = shared / "weights" / "yolo-lite" / str(expected["weights"])
        cfg = weights.with_suffix(".cfg")
    options = {"rule": "darknet", "threshold": float(expected["thresh"]), "clip": False}
    options["max_detections"] = 10_000
    options["tree_threshold"] = float(expected.get("hier", 0.5))
    return Detector.from_darknet(cfg, weights, data_root=shared / "darknet"), expected, options


def rows(found, expected: dict[str, np.ndarray]) -> np.ndarray:
    """cx, cy, w, h in 0..1 of the picture, objectness, class, score: Darknet's columns without the box
    number."""
    scale = np.tile(expected["image_size"].astype(np.float64), 2)
    corners = found.boxes_xyxy.astype(np.float64) / scale
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return np.column_stack([centre, size, found.objectness, found.nodes, found.scores])


def assert_same_set(ours: np.ndarray, theirs: np.ndarray, atol: float = 1e-4) -> None:
    """Row by row once both are sorted; the class exactly, the rest within atol (of the size, for a box beyond
    the picture)."""
    assert len(ours) == len(theirs)

    def order(table: np.ndarray) -> np.ndarray:
        return np.lexsort((np.round(table[:, 0], 3), np.round(table[:, 4], 3), table[:, 5]))

    ours, theirs = ours[order(ours)], theirs[order(theirs)]
    assert np.array_equal(ours[:, 5], theirs[:, 5])
    largest = np.maximum(np.abs(theirs[:, 2:4]).max(axis=1, keepdims=True), 1)
    assert (np.abs(ours[:, :4] - theirs[:, :4]) <= atol * largest).all()
    assert np.abs(ours[:, [4, 6]] - theirs[:, [4, 6]]).max() <= atol


def detect(detector: Detector, expected: dict[str, np.ndarray], options: dict, output, **more):
    """What the detector makes of a network output that stands for a picture of the size Darknet had."""
    from yolo9000.letterbox import Letterbox

    chosen = detector.options(**options, **more)
    width, height = (int(side) for side in expected["image_size"])
    box = Letterbox((width, height), expected["input"].shape[:0:-1], darknet=True)
    return detector.detections(detector.candidates(output, chosen), box, chosen)


@pytest.mark.parametrize("case", CASES)
def test_detections_from_darknets_input(case, shared):
    detector, expected, options = load(shared, case)
    output = detector.run(torch.from_numpy(expected["input"])[None])
    before = detect(detector, expected, options, output, nms="none")
    assert_same_set(rows(before, expected), expected["detections"][:, 1:])
    after = detect(detector, expected, options, output, nms="class", nms_iou=float(expected["nms"]))
    assert_same_set(rows(after, expected), expected["detections_nms"][:, 1:])


@pytest.mark.parametrize("case", CASES)
def test_dense_output_gives_the_same(case, shared):
    detector, expected, options = load(shared, case)
    raw = torch.from_numpy(expected["before_region"])[None]
    before = detect(detector, expected, options, raw, nms="none")
    assert_same_set(rows(before, expected), expected["detections"][:, 1:])


@pytest.mark.parametrize("case", ["yolo9000", "yolov2"])
def test_the_order_before_suppression_is_darknets(case, shared):
    """Candidates come out by anchor, row, column, as Darknet numbers its boxes."""
    detector, expected, options = load(shared, case)
    found = detector.candidates(
        detector.run(torch.from_numpy(expected["input"])[None]), detector.options(**options)
    )
    assert found.node.tolist() == expected["detections"][:, 6].astype(int).tolist()


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith("-dog") or "horses" in case])
def test_real_weights_from_the_photograph(case, shared):
    """JPEG decoders differ by a grey level here and there, so a box at the very threshold may come or go; all
    others stay."""
    detector, expected, options = load(shared, case)
    found = detector(
        shared / "photos" / str(expected["photo"]), **options, nms="class", nms_iou=float(expected["nms"])
    )
    ours, theirs = rows(found, expected), expected["detections_nms"][:, 1:]
    margin = 0.02

    def matched(row: np.ndarray, table: np.ndarray) -> bool:
        near = (np.abs(table[:, :4] - row[:4]) < margin).all(axis=1) & (table[:, 5] == row[5])
        return bool((near & (np.abs(table[:, 6] - row[6]) < margin)).any())

    for table, other in ((ours, theirs), (theirs, ours)):
        clear = table[table[:, 6] > float(expected["thresh"]) + margin]
        assert len(clear) and all(matched(row, other) for row in clear)
