"""All objects found as boxes to train on: what the detector answers, seen twice and once; what is left."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import Store
from tests.yolo9000.test_propose import Pictures, labelled, network, same
from tests.yolo9000.toys import TREE, pack_squares, square_sample
from wordtree import WordTree
from yolo9000.detector import Detector
from yolo9000.errors import TrainingError
from yolo9000.modelfile import save_model
from yolo9000.objects import ObjectSettings, merge, named, propose_objects


def test_at_one_size_they_are_the_detectors_own_answers():
    detector = Detector(network(), precision="float32")
    settings = ObjectSettings(sizes=(64,), threshold=0.72, unsure=0.7)
    samples = Pictures([labelled(k) for k in range(4)])
    sure = 0
    for sample, found in zip(samples, propose_objects(detector, samples, settings), strict=True):
        expected = detector(sample.image, threshold=0.7, size=64, nms="agnostic")
        shares = np.clip(expected.boxes_xyxy / 64, 0, 1)  # cut to the picture some may be the same
        boxes, objectness, first = merge(shares, expected.objectness, 1)
        wide = (boxes[:, 2:] - boxes[:, :2] > 0.01).all(1)
        found.validate(len(TREE))
        assert found.boxed and len(first) <= len(expected) and wide.any()
        np.testing.assert_allclose(found.boxes_cxcywh[:, 2:], (boxes[:, 2:] - boxes[:, :2])[wide], atol=1e-5)
        assert np.array_equal(found.difficult, objectness[wide] < 0.72)
        agreed = set(sample.image_labels.tolist())
        for label, node in zip(found.labels.tolist(), expected.nodes[first][wide].tolist(), strict=True):
            assert label == node or label in agreed
        sure += int((~found.difficult).sum())
    assert sure


def test_the_detectors_own_input_need_not_be_square():
    net = network()
    net.defaults = {"size": [96, 64]}
    detector = Detector(net, precision="float32")
    [found] = propose_objects(detector, Pictures([labelled(1)]), ObjectSettings(threshold=0.7, unsure=0.7))
    wanted = detector(labelled(1).image, threshold=0.7, nms="agnostic")
    boxes, _, _ = merge(np.clip(wanted.boxes_xyxy / 64, 0, 1), wanted.objectness, 1)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert len(found.boxes_cxcywh)
    np.testing.assert_allclose(found.boxes_cxcywh[:, 2:], sides[(sides > 0.01).all(1)], atol=1e-5)


def test_a_size_that_was_set_is_read_as_detecting_reads_it():
    detector = Detector(network(), precision="float32")
    settings = ObjectSettings(threshold=0.7, unsure=0.7)
    [at_96] = propose_objects(detector, Pictures([labelled(1)]), replace(settings, sizes=(96,)))
    detector.size = 96
    [own] = propose_objects(detector, Pictures([labelled(1)]), settings)
    assert len(own.boxes_cxcywh) and np.array_equal(own.boxes_cxcywh, at_96.boxes_cxcywh)
    detector.size = 97
    with pytest.raises(TrainingError, match="multiple"):
        list(propose_objects(detector, Pictures([labelled(1)]), settings))


def test_two_sizes_agree_or_count_half():
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.6], [0.7, 0.7, 0.9, 0.9]])
    joined, objectness, first = merge(boxes, np.array([0.6, 0.3, 0.8]), 2)
    np.testing.assert_allclose(joined, [[0.1, 0.1, 0.5, 0.5 + 0.1 / 3], [0.7, 0.7, 0.9, 0.9]])
    np.testing.assert_allclose(objectness, [0.45, 0.4])
    assert first.tolist() == [0, 2]
    nothing = merge(np.zeros((0, 4)), np.zeros(0), 3)
    assert [part.shape for part in nothing] == [(0, 4), (0,), (0,)]


corner, side = st.floats(0, 0.8), st.floats(0, 0.2)
box = st.tuples(corner, corner, side, side, st.floats(0, 1))


@given(st.lists(box, max_size=12), st.integers(1, 4))
def test_every_box_is_part_of_one_object_and_inside_its_parts(boxes, looks):
    rows = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes], float).reshape(-1, 4)
    scores = np.array([score for *_, score in boxes], float)
    joined, objectness, first = merge(rows, scores, looks)
    assert len(set(first.tolist())) == len(first) <= len(rows)
    assert (objectness <= 1 + 1e-9).all() and (np.diff(objectness) <= 0).all()
    assert objectness.sum() * looks <= scores.sum() + 1e-6
    weighed = scores[first] > 1e-6
    if len(joined):
        assert (joined[weighed] >= rows.min(0) - 1e-6).all() and (joined[weighed] <= rows.max(0) + 1e-6).all()
    alone, again, _ = merge(rows[:1], scores[:1], 1)
    if len(rows) and scores[0] > 1e-6:
        np.testing.assert_allclose(alone, rows[:1], atol=1e-9)
        np.testing.assert_allclose(again, scores[:1])


def test_the_picture_s_label_goes_to_the_surest_box_that_agrees():
    tree = WordTree(["animal", "thing", "dog", "cat", "husky"], [-1, -1, 0, 0, 2])
    store = Pictures([], tree)
    found, left = named(np.array([1, 0, 2]), [2], store)  # thing, animal, dog; the picture shows a dog
    assert found.tolist() == [1, 2, 2] and not len(left)
    found, left = named(np.array([4, 0]), [0], store)  # a husky is an animal, and more is known of it
    assert found.tolist() == [4, 0] and not len(left)
    found, left = named(np.array([3, 1]), [2, 1], store)
    assert found.tolist() == [3, 1] and left.tolist() == [2]


def test_what_has_boxes_or_shows_nothing_stays():
    detector = Detector(network(), precision="float32")
    samples = Pictures([square_sample(1), labelled(3, image=b"\xff\xd8 half a JPEG")])
    assert all(map(same, propose_objects(detector, samples), samples))
    blind = Detector(network(objectness=-20), precision="float32")
    some = Pictures([labelled(4), labelled(5)])
    assert all(map(same, propose_objects(blind, some), some))
    unlabelled = labelled(2, image_labels=np.zeros(0, np.int64))
    (found,) = propose_objects(detector, Pictures([unlabelled]))
    assert found.boxed and len(found.labels)


def test_answers_that_the_data_s_tree_has_not_are_left_out():
    detector = Detector(network(), precision="float32")
    strange = WordTree(["a", "b"], [-1, -1])
    sample = labelled(1, image_labels=np.array([1]))
    (found,) = propose_objects(detector, Pictures([sample], strange))
    assert same(found, sample)
    turned = WordTree(list(TREE.ids[::-1]), [-1] * len(TREE))
    (there,) = propose_objects(detector, Pictures([sample]))
    (found,) = propose_objects(detector, Pictures([replace(sample, image_labels=np.array([5]))], turned))
    assert len(found.labels) == len(there.labels)


@pytest.mark.parametrize(
    "settings", [{"threshold": 1.5}, {"unsure": 0.6}, {"unsure": float("nan")}, {"sizes": (64, 65)}]
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(TrainingError, match=r"0 to 1|multiple"):
        list(propose_objects(Detector(network()), Pictures([]), ObjectSettings(**settings)))


def test_the_command(run, tmp_path):
    model = tmp_path / "model.safetensors"
    save_model(network(), model)
    data, out = pack_squares(tmp_path / "data.h5", 3, 4), tmp_path / "out.h5"
    words = ["propose", model, "--objects", "--data", data, "--size", 64, "--size", 96]
    status, text, _ = run(*words, "--out", out)
    assert status == 0 and "boxes for 4 of 4 pictures that had no boxes (" in text and "difficult)" in text
    new = Store(out)
    assert new.boxed.all() and all(same(Store(data)[k], new[k]) for k in range(3))
    assert new.about["proposed"]["sizes"] == [64, 96]
    status, _, error = run(*[word for word in words if word != "--objects"], "--out", out)
    assert status == 2 and "repeatable with --objects only" in error
