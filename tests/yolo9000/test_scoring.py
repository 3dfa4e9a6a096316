"""Average precision against pycocotools and counting by hand; suppression against one box at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000.scoring import (
    Boxes,
    Matches,
    _run_coco,
    average_precision,
    bootstrap_ap50,
    centred_interval,
    suppress,
    weighted_ap,
)
from yolo9000.suppression import nms


def boxes(rows: list[tuple]) -> Boxes:
    """Rows of (picture, kind, x0, y0, x1, y1, score, ignored)."""
    table = np.array(rows, float).reshape(-1, 8)
    return Boxes(
        table[:, 0].astype(int),
        table[:, 1].astype(int),
        table[:, 2:6],
        table[:, 6],
        table[:, 7].astype(bool),
    )


def random_boxes(random: np.random.Generator, images: int, kinds: int, each: int, scored: bool) -> Boxes:
    rows = []
    for image in range(images):
        for _ in range(int(random.integers(0, each + 1))):
            x, y = random.integers(0, 40, 2)
            w, h = random.integers(8, 40, 2)
            score = random.integers(1, 20) / 20 if scored else 1
            rows.append(
                (
                    image,
                    random.integers(kinds),
                    x,
                    y,
                    x + w,
                    y + h,
                    score,
                    not scored and random.random() < 0.1,
                )
            )
    return boxes(rows)


def test_one_right_one_wrong_one_missed() -> None:
    truth = boxes([(0, 0, 0, 0, 10, 10, 1, 0), (1, 0, 0, 0, 10, 10, 1, 0)])
    found = boxes([(0, 0, 50, 50, 60, 60, 0.9, 0), (0, 0, 0, 0, 10, 10, 0.8, 0)])
    result = average_precision(truth, found, 2, [0])
    # Precision 1/2 up to recall 1/2, nothing beyond: 51 of 101 points at 1/2.
    assert result["AP50"] == pytest.approx(0.5 * 51 / 101)
    assert result["AP"] == pytest.approx(result["AP50"]) and result["AR100"] == pytest.approx(0.5)


def test_nothing_found_nothing_true_and_ignored_truth() -> None:
    truth = boxes([(0, 0, 0, 0, 10, 10, 1, 0), (0, 1, 0, 0, 10, 10, 1, 1)])
    none = Boxes.join([])
    assert average_precision(truth, none, 1, [0, 1])["AP50"] == 0.0
    assert average_precision(none, boxes([(0, 0, 0, 0, 5, 5, 0.5, 0)]), 1, [0])["AP50"] == -1.0
    # A crowd is neither to be found nor wrong to find, so the kind has no truth at all.
    result = average_precision(truth, boxes([(0, 1, 0, 0, 10, 10, 0.9, 0)]), 1, [0, 1])
    assert result["per_class"] == {0: 0.0, 1: -1.0} and result["AP50"] == 0.0


@pytest.mark.parametrize(
    ("iou", "expected"),
    [
        (0.47, (0, 0, 0, 0, 0)),
        (0.52, (0.1, 1, 0, 0.1, 1)),
        (0.72, (0.5, 1, 0, 0.5, 1)),
        (0.77, (0.6, 1, 1, 0.6, 1)),
    ],
)
def test_each_number_is_read_at_its_own_overlap(iou: float, expected: tuple[float, ...]) -> None:
    truth, found = boxes([(0, 0, 0, 0, 100, 100, 1, 0)]), boxes([(0, 0, 0, 0, 100 * iou, 100, 1, 0)])
    result = average_precision(truth, found, 1, [0])
    numbers = tuple(result[name] for name in ("AP", "AP50", "AP75", "AR100", "AR100_50"))
    assert numbers == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_weighted_ap_with_weights_of_one_is_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    images, kinds = 6, [0, 1, 2]
    truth = random_boxes(random, images, 3, 4, scored=False)
    found = random_boxes(random, images, 3, 8, scored=True)
    coco, matches = _run_coco(truth, found, images, kinds)
    for k, one in enumerate(matches):
        wanted = coco.eval["precision"][0, :, k, 0, -1]
        wanted = wanted[wanted > -1].mean() if (wanted > -1).any() else -1.0
        assert weighted_ap(one, np.ones(images, int)) == pytest.approx(wanted)


def test_a_picture_counted_twice_is_a_picture_that_is_there_twice() -> None:
    random = np.random.default_rng(3)
    truth, found = random_boxes(random, 4, 1, 4, False), random_boxes(random, 4, 1, 8, True)
    _, (once,) = _run_coco(truth, found, 4, [0])
    moved = [Boxes(b.image + 4, b.kind, b.boxes_xyxy, b.score, b.ignored) for b in (truth, found)]
    both = [Boxes.join([a, b]) for a, b in zip((truth, found), moved, strict=True)]
    _, (twice,) = _run_coco(*both, 8, [0])
    # Equal scores are ordered by picture, and the order of the doubled pictures differs between the two.
    assert weighted_ap(once, np.full(4, 2)) == pytest.approx(weighted_ap(twice, np.ones(8, int)), abs=0.03)
    assert weighted_ap(once, np.zeros(4, int)) == -1.0


def test_intervals_hold_the_mean_and_groups_their_kinds() -> None:
    random = np.random.default_rng(5)
    truth, found = random_boxes(random, 40, 3, 3, False), random_boxes(random, 40, 3, 6, True)
    result = average_precision(truth, found, 40, [0, 1, 2], {"first": [0], "rest": [1, 2], "none": [7]}, 50)
    low, high = result["AP50_interval"]
    assert low <= result["AP50"] <= high and low < high
    groups = result["groups"]
    assert groups["first"]["AP50"] == pytest.approx(result["per_class"][0])
    assert groups["rest"]["AP50"] == pytest.approx((result["per_class"][1] + result["per_class"][2]) / 2)
    assert groups["none"]["AP50"] == -1.0 and groups["none"]["classes"] == 0
    for name in ("first", ""):  # whatever the group is called
        again = average_precision(truth, found, 40, [0, 1, 2], {name: [0], "rest": [1, 2]}, 50)
        assert again["AP50_interval"] == [low, high]
        assert again["groups"][name] == groups["first"] and again["groups"]["rest"] == groups["rest"]


def proportion(right: np.ndarray) -> Matches:
    """A box of truth in each picture, found in some, and no wrong detections: AP50 is the share found."""
    found = np.flatnonzero(right)
    return Matches(found, np.ones(len(found), bool), np.arange(len(right)))


def test_intervals_cover_as_often_as_they_say() -> None:
    images, share, trials = 100, 0.6, 300
    random = np.random.default_rng(0)
    truth = (images * share + 1) / 101  # of 101 recalls those from 0 to the share, in hundredths
    error = np.sqrt(share * (1 - share) / images) * images / 101
    covered, widths = 0, []
    for trial in range(trials):
        matches = proportion(random.random(images) < share)
        interval = bootstrap_ap50([matches], images, {"": np.array([0])}, 100, seed=trial)
        low, high = interval[""]
        covered += low <= truth <= high
        widths.append(high - low)
    # Three standard errors of a share of 0.95 among so many trials.
    assert abs(covered / trials - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / trials)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_an_interval_is_centred_on_its_estimate(seed: int, images: int) -> None:
    """Also with few pictures, where every resampling's AP may lie above the whole's."""
    random = np.random.default_rng(seed)
    truth, found = random_boxes(random, images, 2, 4, False), random_boxes(random, images, 2, 12, True)
    _, matches = _run_coco(truth, found, images, [0, 1])
    ones = np.ones(images, int)
    for kind, one in enumerate(matches):
        estimate = weighted_ap(one, ones)
        low, high = bootstrap_ap50(matches, images, {"": np.array([kind])}, 20)[""]
        assert (low, high) == (-1, -1) if estimate < 0 else 0 <= low <= estimate <= high <= 1
        if low > 0 and high < 1:
            assert (low + high) / 2 == pytest.approx(estimate)


def test_an_interval_needs_two_resamplings_with_truth() -> None:
    assert centred_interval(0.5, np.array([-1.0, 0.4, -1.0])) == [0.0, 1.0]
    assert centred_interval(0.5, np.array([0.4, -1.0, 0.4])) == [0.5, 0.5]
    low, high = centred_interval(0.5, np.array([0.4, 0.6]))
    assert high - 0.5 == pytest.approx(0.5 - low) == pytest.approx(1.96 * np.sqrt(0.02))
    assert centred_interval(0.9, np.array([0.4, 0.6]))[1] == 1.0


def greedy(boxes_xyxy: np.ndarray, kinds: np.ndarray, overlap: float) -> list[int]:
    kept: list[int] = []
    for i, (a, kind) in enumerate(zip(boxes_xyxy, kinds, strict=True)):
        for j in kept:
            b = boxes_xyxy[j]
            w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            if kinds[j] == kind and w * h > overlap * union:
                break
        else:
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 3), st.floats(0.1, 0.9), st.integers(0, 10_000))
def test_suppression_equals_one_box_at_a_time(count: int, kinds: int, overlap: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    corner = random.random((count, 2)) * 10
    found = np.concatenate([corner, corner + 1 + random.random((count, 2)) * 10], axis=1)
    kind = random.integers(0, kinds, count)
    assert suppress(found, kind, overlap).tolist() == greedy(found, kind, overlap)[:100]
    assert len(suppress(found, kind, overlap, most=2)) <= 2


def test_suppression_is_that_of_the_detector_where_overlaps_are_at_the_limit() -> None:
    random = np.random.default_rng(0)
    for count in range(1, 40):
        corners = random.integers(0, 6, (count, 2, 2)).astype(float)  # many overlaps of just one half
        found = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        kind = random.integers(0, 3, count)
        kept = nms(found, -np.arange(count), kind, 0.5, "class")
        assert suppress(found, kind, 0.5).tolist() == kept.tolist()


def test_no_detections_of_a_kind() -> None:
    empty = Matches(np.zeros(0, int), np.zeros(0, bool), np.array([0, 1]))
    assert weighted_ap(empty, np.ones(2, int)) == 0.0
