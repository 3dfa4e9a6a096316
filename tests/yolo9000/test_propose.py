"""Boxes for labelled pictures: the best one for the label, found by hand in the dense output; everything else
stays as it is.
"""

import io
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from data_prep import Store
from data_prep.errors import DataError
from data_prep.writer import StoreWriter
from tests.yolo9000.small import small_detector
from tests.yolo9000.toys import TREE, pack_squares, square_sample
from wordtree import WordTree
from yolo9000 import Network, presets
from yolo9000.boxes import cxcywh_to_xyxy, decode
from yolo9000.cli import cli
from yolo9000.detector import Detector
from yolo9000.errors import TrainingError
from yolo9000.hierarchy import Hierarchy
from yolo9000.modelfile import save_model
from yolo9000.objects import ObjectSettings, propose_objects
from yolo9000.propose import ProposeSettings, best_boxes, propose


def network(objectness: float = 1.0) -> Network:
    """Random weights, with about this objectness logit everywhere."""
    torch.manual_seed(3)
    net = Network(presets.yolo9000(TREE, ((0.8, 0.9), (1.5, 1.2)), slim=0.05, image_size=64), TREE)
    with torch.no_grad():
        net.layers[-2].conv.bias.view(2, -1)[:, 4] = objectness
    return net.eval()


def same(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        if isinstance(getattr(a, f.name), np.ndarray)
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(a)
    )


class Pictures(list):
    """Samples with a tree, as a store has them."""

    def __init__(self, samples, tree=TREE):
        super().__init__(samples)
        self.tree = tree


def labelled(number: int, **changes):
    return replace(square_sample(number, boxed=False), **changes)


def test_the_best_box_for_a_label_is_the_best_of_the_dense_output():
    net = network()
    detector = Detector(net, precision="float32")
    images = torch.rand(3, 3, 64, 96)
    labels = [[2], [5, 3], [1]]
    found = best_boxes(detector, images, labels, 0.1)
    with torch.no_grad():
        raw = net(images).unflatten(1, (2, -1))  # (N, A, 5+C, H, W)
        boxes, objectness = decode(raw[:, :, :5].flatten(1, 2), net.anchors)
    hierarchy = Hierarchy(TREE)
    logs = hierarchy.log_probabilities(hierarchy.log_conditionals(raw[:, :, 5:].movedim(2, -1)))
    for k, some in enumerate(labels):
        for row, node in enumerate(some):
            score = (objectness[k] * logs[k, ..., node].exp()).flatten()
            best = cxcywh_to_xyxy(boxes[k].reshape(-1, 4)[score.argmax()])
            torch.testing.assert_close(found[k][row], best, rtol=1e-4, atol=1e-5)
    assert best_boxes(detector, images, labels, 1.0) == [None] * 3


def test_what_needs_no_box_or_finds_none_stays_as_it_was():
    detector = Detector(network(), precision="float32")
    samples = Pictures(
        [
            square_sample(1),  # has boxes
            labelled(2, image_labels=np.zeros(0, np.int64)),  # unlabelled
            labelled(3, image=b"\xff\xd8 half a JPEG"),
        ]
    )
    assert all(map(same, propose(detector, samples), samples))
    blind = Detector(network(objectness=-20), precision="float32")
    some = Pictures([labelled(4), labelled(5)])
    assert all(map(same, propose(blind, some), some))
    assert list(propose(detector, Pictures([]))) == []


def test_a_label_without_a_class_row_has_no_box():
    detector = Detector(small_detector("stored"), precision="float32")
    images = torch.rand(2, 3, 64, 64)
    cat, dog = detector.tree.index("cat"), detector.tree.index("dog")  # the first has no row
    found = best_boxes(detector, images, [[dog, cat], [dog]], 0.0)
    assert found[0] is None and found[1].shape == (1, 4)


def test_labels_become_boxes_inside_the_picture():
    detector = Detector(network(), precision="float32")
    samples = Pictures([labelled(k, image_labels=np.array([2, 4])[: 1 + k % 2]) for k in range(5)])
    samples.insert(2, square_sample(9))
    found = list(propose(detector, samples, ProposeSettings(threshold=0.2, batch=2)))
    assert same(found[2], samples[2])
    for one, before in zip(found, samples, strict=True):
        one.validate(len(TREE))
        assert one.boxed and one.image == before.image and one.name == before.name
        if before is not samples[2]:
            assert one.labels.tolist() == before.image_labels.tolist() and not len(one.image_labels)
    batches = list(propose(detector, samples, ProposeSettings(threshold=0.2, batch=32)))
    for one, other in zip(found, batches, strict=True):  # whatever stands beside it in the batch
        np.testing.assert_allclose(one.boxes_cxcywh, other.boxes_cxcywh, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(200, 50), (50, 200), (64, 64)])
def test_a_box_over_the_whole_input_is_cut_to_a_letterboxed_picture(size):
    net = network()
    with torch.no_grad():
        last = net.layers[-2].conv
        last.weight.zero_()
        last.bias.view(2, -1)[:, 2:4] = 5.0  # exp(5) anchors wide: everything
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    sample = labelled(0, image=file.getvalue(), width=size[0], height=size[1])
    (found,) = propose(Detector(net, precision="float32"), Pictures([sample]))
    np.testing.assert_allclose(found.boxes_cxcywh, [[0.5, 0.5, 1, 1]], atol=1e-3)


def test_labels_of_another_tree_are_found_by_their_ids_or_refused():
    detector = Detector(network(), precision="float32")
    turned = WordTree(["cold", "warm", "blue", "red"], [-1, -1, 0, 1])
    sample = labelled(0, image_labels=np.array([3]))
    (found,) = propose(detector, Pictures([sample], turned), ProposeSettings(threshold=0.1))
    (same_node,) = propose(
        detector, Pictures([replace(sample, image_labels=np.array([2]))]), ProposeSettings(threshold=0.1)
    )
    assert found.labels.tolist() == [3]  # still a node of the data's tree
    np.testing.assert_array_equal(found.boxes_cxcywh, same_node.boxes_cxcywh)
    other = WordTree(["red", "purple"], [-1, -1])
    with pytest.raises(TrainingError, match="is not in the model's"):
        list(propose(detector, Pictures([labelled(0, image_labels=np.array([1]))], other)))


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("names", ["abcdef", "aacdef", None])
def test_lists_of_classes_are_read_as_they_are_scored(names, objects):
    """By name; without names in common, or where some are alike, in their order."""
    net = small_detector("flat")
    net.names = names and tuple(names)
    detector = Detector(net, precision="float32")
    make = propose_objects if objects else propose
    settings = ObjectSettings(unsure=0.3, threshold=0.3) if objects else ProposeSettings(threshold=0.0)

    def boxes(ids, label):
        pictures = Pictures([labelled(1, image_labels=np.array([label]))], WordTree.flat(ids))
        (found,) = make(detector, pictures, settings)
        return found.boxed, found.boxes_cxcywh.tolist(), [ids[k] for k in found.labels]

    there, where, of = boxes(detector.tree.ids, 1)
    assert there and where
    numbers = [str(k) for k in range(6)]
    assert boxes(numbers, 1) == (there, where, [numbers[detector.tree.index(k)] for k in of])
    if names == "abcdef":
        assert boxes(list("fedcba"), 4) == (there, where, of)
        assert boxes(list("cabdefgh"), 2) == (there, where, of)  # more than it knows
    with pytest.raises(TrainingError, match="another list"):
        boxes(list("xyz"), 2)


@pytest.mark.parametrize(
    "settings, message",
    [({"threshold": 1.5}, "0 to 1"), ({"threshold": float("nan")}, "0 to 1"), ({"size": 65}, "multiple")],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(TrainingError, match=message):
        list(propose(Detector(network()), Pictures([]), ProposeSettings(**settings)))


def test_the_command_writes_a_file_of_its_own(tmp_path):
    save_model(network(), tmp_path / "model.safetensors")
    data = pack_squares(tmp_path / "data.h5", 3, 4)
    before = data.read_bytes()
    words = ["propose", str(tmp_path / "model.safetensors"), "--data", str(data), "--threshold", "0.1"]
    done = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "out.h5")], catch_exceptions=False)
    assert done.exit_code == 0 and "boxes for 4 of 4 pictures" in done.output
    assert data.read_bytes() == before
    old, new = Store(data), Store(tmp_path / "out.h5")
    assert len(new) == 7 and new.boxed.all() and new.tree_fingerprint == old.tree_fingerprint
    assert [new.labels_of(k).tolist() for k in range(7)] == [old.labels_of(k).tolist() for k in range(7)]
    assert all(same(old[k], new[k]) for k in range(3))
    more = pack_squares(tmp_path / "more.h5", 1, 2, first=50)
    for pair, typed in [((data, more), None), ((more, data), None), ((data, more), ["[dm]*.h5"])]:
        given = [*words[:2], *words[4:], "--out", str(tmp_path / "both.h5")]
        given += [word for name in typed or pair for word in ("--data", str(tmp_path / name))]
        done = CliRunner().invoke(cli, given, catch_exceptions=False)
        assert done.exit_code == 0 and "boxes for 6 of 6 pictures" in done.output
        assert "10 in all" in done.output
        both = Store(tmp_path / "both.h5")
        names = [store.annotation(k).name for store in map(Store, pair) for k in range(len(store))]
        assert [both.annotation(k).name for k in range(10)] == names
        if pair[0] == data:
            assert all(same(both[k], new[k]) for k in range(7))
    with StoreWriter(tmp_path / "other.h5", WordTree(["red"], [-1])):
        pass
    with pytest.raises(DataError, match="another tree"):
        CliRunner().invoke(cli, [*given, "--data", str(tmp_path / "other.h5")], catch_exceptions=False)
    with pytest.raises(DataError, match="would replace"):
        CliRunner().invoke(cli, [*words, "--out", str(data)], catch_exceptions=False)
