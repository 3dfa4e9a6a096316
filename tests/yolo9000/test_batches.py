"""Batches: exact composition, every sample equally often, the same whatever the workers and ranks."""

import dataclasses
import itertools
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data_prep import Store, StoreWriter
from tests.yolo9000 import toys
from yolo9000.batches import Batches, load_batches, to_batch
from yolo9000.config import AugmentConfig, ModelConfig, PartConfig, SizeConfig, TrainConfig
from yolo9000.errors import TrainingError
from yolo9000.parts import Turns, label_map, part_counts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(toys.pack_squares(tmp_path_factory.mktemp("toys") / "a.h5", boxed=13, labelled=7, size=32))


def make(store: Store, parts: tuple[PartConfig, ...], **settings) -> Batches:
    settings = {"images": 200, "batch": 10, "input": SizeConfig((32,)), "workers": 0} | settings
    config = TrainConfig(model=ModelConfig(preset="x"), data=parts, **settings)
    return Batches(config, [store], rank=0, ranks=1)


BOXED = PartConfig(3, kind="boxed", name="boxes")
LABEL = PartConfig(1, kind="label", name="labels")
WITHOUT_BLUE = label_map(toys.TREE.ids, ("green", "red", "yellow"))


def test_composition_is_exact_and_kinds_differ_in_their_targets(store: Store) -> None:
    batches = make(store, (BOXED, LABEL), batch=12)
    assert [p.count for p in batches.parts] == [9, 3] and len(batches) == 17
    for number in range(5):
        batch = to_batch(batches[number], CPU)
        assert batch.parts.tolist() == [0] * 9 + [1] * 3
        assert [("boxes" in t, "image_labels" in t) for t in batch.targets] == [(True, False)] * 9 + [
            (False, True)
        ] * 3
        assert all(n.startswith("squares/") for n in batch.names[:9])
        assert batch.images.shape == (12, 3, 32, 32) and 0 <= batch.images.min() <= batch.images.max() <= 1
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.seen == number * 12 and batch.size == (32, 32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 200))
def test_counts_add_up_and_are_within_one_of_their_share(shares: list[float], batch: int) -> None:
    counts = part_counts(shares, batch)
    assert sum(counts) == batch
    assert all(abs(c - s * batch / sum(shares)) < 1 for c, s in zip(counts, shares, strict=True))


def test_pictures_of_a_batch_are_laid_out_each_for_itself(store: Store) -> None:
    item = make(store, (BOXED,), batch=26)[0]
    layouts = {name: [] for name in item["names"]}
    for name, pixels in zip(item["names"], item["images"].numpy(), strict=True):
        layouts[name].append(pixels.tobytes())
    assert all(len(layout) == len(set(layout)) == 2 for layout in layouts.values())


@pytest.mark.parametrize("tiles", [1, 2])
def test_every_sample_comes_equally_often(store: Store, tiles: int) -> None:
    augment = AugmentConfig(layout="mosaic", tiles=(tiles, tiles))
    batches = make(store, (PartConfig(1, kind="boxed", augment=augment),), batch=3)
    taken = np.concatenate([batches.places(n, 0).ravel() for n in range(13)])
    epochs = taken.reshape(3 * tiles * tiles, 13)
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert any((a != b).any() for a, b in itertools.pairwise(epochs))


def test_a_batch_is_a_function_of_its_number(store: Store) -> None:
    mosaic = PartConfig(1, kind="boxed", augment=AugmentConfig(layout="mosaic"))
    straight, other = (make(store, (mosaic, LABEL)) for _ in range(2))
    list(map(straight.__getitem__, range(4)))
    a, b = straight[5], pickle.loads(pickle.dumps(other))[5]
    assert torch.equal(a["images"], b["images"]) and a["names"] == b["names"]
    for x, y in zip(a["targets"], b["targets"], strict=True):
        assert x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)
    assert not torch.equal(straight[6]["images"], a["images"])
    assert not torch.equal(make(store, (mosaic, LABEL), seed=1)[5]["images"], a["images"])


def test_workers_and_starting_late_change_nothing(store: Store) -> None:
    batches = make(store, (BOXED, LABEL), images=60)
    alone = [b.images for b in load_batches(batches, 0, 0, CPU)]
    assert len(alone) == 6
    for start, workers in ((0, 2), (4, 1)):
        found = [b.images for b in load_batches(batches, start, workers, CPU)]
        assert len(found) == 6 - start
        assert all(torch.equal(x, y) for x, y in zip(alone[start:], found, strict=True))


@pytest.mark.parametrize(("batches_free", "processes", "ahead"), [(3, 0, None), (5, 2, 1), (100, 2, 4)])
def test_little_shared_memory_changes_nothing(
    store: Store, monkeypatch, batches_free, processes, ahead
) -> None:
    """As containers have it: worker processes could hand over nothing, and would wait for ever."""
    batches = make(store, (BOXED, LABEL), images=60)
    assert batches.bytes == batches[0]["images"].nbytes
    alone = [b.images for b in load_batches(batches, 0, 0, CPU)]
    free = SimpleNamespace(free=batches_free * batches.bytes)
    monkeypatch.setattr("yolo9000.device.shutil.disk_usage", lambda path: free)
    monkeypatch.setattr("yolo9000.device.Path", lambda path: Path())  # there, whatever the system
    asked = []
    monkeypatch.setattr("yolo9000.batches.DataLoader", lambda *a, **k: asked.append(k) or DataLoader(*a, **k))
    found = [b.images for b in load_batches(batches, 0, 2, CPU)]
    assert all(torch.equal(x, y) for x, y in zip(alone, found, strict=True))
    assert (asked[0]["num_workers"], asked[0]["prefetch_factor"]) == (processes, ahead)


def test_ranks_share_out_the_pictures_of_one_batch(store: Store) -> None:
    config = make(store, (BOXED, LABEL)).config
    whole = Batches(config, [store])[3]
    for rank in range(2):
        part = Batches(config, [store], rank=rank, ranks=2)[3]
        assert part["names"] == whole["names"][rank::2]
        assert torch.equal(part["images"], whole["images"][rank::2])


def test_boxes_stand_on_their_squares(store: Store) -> None:
    augment = AugmentConfig(layout="mosaic", tiles=(2, 2), scale=(0.8, 1.2), hue=0, saturation=1, exposure=1)
    batches = make(store, (PartConfig(1, kind="boxed", augment=augment),), input=SizeConfig((128,)), batch=20)
    batch = to_batch(batches[0], CPU)
    checked = 0
    for image, target in zip(batch.images, batch.targets, strict=True):
        for (cx, cy, w, h), label in zip(target["boxes"] * 128, target["labels"], strict=True):
            assert cx - w / 2 + 1e-3 >= 0 and cx + w / 2 <= 128 + 1e-3
            inner = image[:, int(cy - h / 4) : int(cy + h / 4) + 1, int(cx - w / 4) : int(cx + w / 4) + 1]
            wanted = torch.tensor(toys.COLOURS[int(label)]) / 255
            # Two squares of one picture may lie on one another, so not every box shows its colour.
            checked += bool((inner.mean((1, 2)) - wanted).abs().max() < 0.1)
    assert checked > 0.8 * sum(len(t["boxes"]) for t in batch.targets) > 20


def test_boxes_mostly_cut_away_cost_no_objectness_and_teach_nothing(store: Store) -> None:
    augment = AugmentConfig(scale=(3.0, 3.0), min_visible=0.9)
    batches = make(store, (PartConfig(1, kind="boxed", augment=augment),))
    targets = [t for n in range(5) for t in batches[n]["targets"]]
    assert sum(len(t.get("ignore_boxes", ())) for t in targets) > 10
    for target in targets:
        for boxes in (target["boxes"], target.get("ignore_boxes", np.zeros((0, 4)))):
            assert boxes.shape == (len(boxes), 4) and np.isfinite(boxes).all()
        assert len(target["boxes"]) == len(target["labels"])


def test_labels_of_boxed_pictures_can_stand_in_for_their_boxes(store: Store) -> None:
    part = dataclasses.replace(BOXED, ignore_boxes=True)
    for target in make(store, (part,))[0]["targets"]:
        assert "boxes" not in target and 1 <= len(target["image_labels"]) <= 2


def test_boxes_can_teach_where_and_not_what(store: Store) -> None:
    for layout in ("crop", "mosaic"):
        part = dataclasses.replace(BOXED, names=False, augment=AugmentConfig(layout=layout))
        for target in make(store, (part,))[0]["targets"]:
            assert target["named"].dtype == bool and not target["named"].any()
            assert len(target["named"]) == len(target["labels"])
    assert "named" not in make(store, (BOXED,))[0]["targets"][0]


def test_sizes_are_drawn_anew_every_few_batches(store: Store) -> None:
    batches = make(store, (BOXED,), input=SizeConfig((32, 64, 96), every=5), images=1000)
    sizes = np.array([batches.size_of(n) for n in range(100)]).reshape(20, 5)
    assert (sizes == sizes[:, :1]).all() and set(sizes.ravel()) == {32, 64, 96}
    assert batches[0]["images"].shape[1] == sizes[0, 0]


SMALL = dataclasses.replace(BOXED, sizes=(64,), name="small")


def test_parts_with_sizes_of_their_own_have_batches_of_their_own(store: Store) -> None:
    """In 20 batches each group has its share of turns, and a part's stream goes on from its last turn."""
    parts = (SMALL, LABEL, dataclasses.replace(LABEL, name="more", kind="boxed"))
    batches = make(store, parts, images=600)
    plain = make(store, (SMALL,), input=SizeConfig((64,)), images=600)
    turns, seen = [], []
    for number in range(60):
        item = batches[number]
        turns.append(set(item["parts"].tolist()))
        assert item["images"].shape[1] == batches.size_of(number) == (64 if turns[-1] == {0} else 32)
        if turns[-1] == {0}:
            assert (batches.places(number, 0) == plain.places(len(seen), 0)).all()
            seen += [batches.places(number, 0)]
    assert all(turn in ({0}, {1, 2}) for turn in turns) and [p.count for p in batches.parts] == [10, 5, 5]
    small = np.array([turn == {0} for turn in turns])
    assert small.sum() == 36  # 3 of 5 shares
    assert (np.abs(np.cumsum(small) - 0.6 * np.arange(1, 61)) < 1).all()
    counts = np.bincount(np.concatenate(seen).ravel(), minlength=13)
    assert counts.max() - counts.min() <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 5), st.sampled_from([(), (64,), (64, 96)])), min_size=1, max_size=5))
def test_turns_are_the_shares_of_every_twenty_batches(parts) -> None:
    data = tuple(PartConfig(share, sizes=sizes) for share, sizes in parts)
    turns = Turns(TrainConfig(model=ModelConfig(preset="x"), data=data, images=1))
    group, before = zip(*(turns.of(number) for number in range(100)), strict=True)
    for g, members in enumerate(turns.members):
        assert {data[k].sizes or (416,) for k in members} == {turns.sizes[g]}
        assert [k for h, k in zip(group, before, strict=True) if h == g] == list(range(group.count(g)))
        share = sum(data[k].share for k in members) / sum(part.share for part in data)
        assert abs(group.count(g) / 100 - share) <= 1 / 20
    assert sorted(k for members in turns.members for k in members) == list(range(len(data)))


def test_epochs_of_parts_with_turns(store: Store) -> None:
    parts = (SMALL, LABEL)
    batches = make(store, parts, images=0, epochs=2.0, batch=4)
    assert (
        len(batches) == 14
    )  # 7 labelled pictures, 4 in each of 5 of 20 batches, twice; the 13 others faster
    taken = [batches.places(n, 1).ravel() for n in range(40) if batches.turns.of(n)[0] == 1]
    assert sorted(np.concatenate(taken)[:14]) == sorted([*range(7), *range(7)])


def test_a_part_with_sizes_of_its_own_and_too_few_turns(store: Store) -> None:
    with pytest.raises(TrainingError, match="labels has sizes of its own and less than one batch in 20"):
        make(store, (BOXED, dataclasses.replace(LABEL, share=0.01, sizes=(64,))))
    with pytest.raises(TrainingError, match=r"data.sizes of part 'labels' are pixels from 8 to 4096"):
        dataclasses.replace(LABEL, sizes=(64, 7))


def test_epochs_count_the_part_that_takes_longest(store: Store) -> None:
    batches = make(store, (BOXED, dataclasses.replace(LABEL, share=9)), images=0, epochs=2.0, batch=4)
    assert len(batches) == 26  # 13 boxed pictures, one a batch, twice


@pytest.mark.parametrize(
    ("part", "word"),
    [
        (PartConfig(1, source=("coco*",)), r"selects no sample.*labels \(label\), squares \(boxed\)"),
        (PartConfig(1, kind="unlabelled"), "selects no sample.*Give such data with --data"),
        (PartConfig(1, augment=AugmentConfig(layout="mosaic")), "a mosaic needs kind"),
    ],
)
def test_parts_that_cannot_be(store: Store, part: PartConfig, word: str) -> None:
    with pytest.raises(TrainingError, match=word):
        make(store, (part,))


def test_a_part_too_small_for_the_batch(store: Store) -> None:
    with pytest.raises(TrainingError, match="labels has less than one picture"):
        make(store, (BOXED, dataclasses.replace(LABEL, share=0.01)))


class _Broken:
    """A store whose pictures with these numbers are cut in half."""

    def __init__(self, store: Store, bad: set[int]):
        self.store, self.bad = store, bad
        self.boxed, self.source, self.labels_of = store.boxed, store.source, store.labels_of

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int):
        sample = self.store[index]
        half = sample.image[: len(sample.image) // 2]
        return dataclasses.replace(sample, image=half) if index in self.bad else sample


def test_broken_pictures_are_replaced_and_reported(store: Store) -> None:
    batches = make(_Broken(store, {2, 5}), (BOXED,), batch=13)
    item = batches[0]
    assert len(item["names"]) == 13
    assert sorted(line.partition(":")[0] for line in item["skipped"]) == ["squares/2", "squares/5"]
    assert not {"squares/2", "squares/5"} & set(item["names"])


def test_a_sample_whose_checksum_does_not_fit_is_replaced_and_reported(tmp_path: Path) -> None:
    path = toys.pack_squares(tmp_path / "a.h5", boxed=6)
    image = toys.square_sample(3).image
    content = bytearray(path.read_bytes())
    content[content.find(image) + len(image) // 2] ^= 1
    path.write_bytes(content)
    item = make(Store(path), (BOXED,), batch=6)[0]
    assert len(item["skipped"]) == 1 and "squares/3" in item["skipped"][0] and "damaged" in item["skipped"][0]
    assert len(item["names"]) == 6 and "squares/3" not in item["names"]


def test_nothing_but_broken_pictures_stops_the_run(store: Store) -> None:
    batches = make(_Broken(store, set(range(20))), (BOXED,))
    with pytest.raises(TrainingError, match="20 pictures in a row"):
        next(load_batches(batches, 0, 0, CPU))
    with pytest.raises(TrainingError, match="20 pictures in a row"):
        next(load_batches(batches, 0, 1, CPU))


def test_labels_are_carried_to_another_tree_by_id(store: Store) -> None:
    assert label_map(("a", "b"), ("a", "b")) is None
    mapping = label_map(toys.TREE.ids, ("blue", "green", "red", "yellow"))
    assert mapping.tolist() == [-1, -1, 2, 3, 1, 0]
    config = make(store, (BOXED, LABEL)).config
    plain, mapped = Batches(config, [store])[0], Batches(config, [store], [mapping])[0]
    for a, b in zip(plain["targets"], mapped["targets"], strict=True):
        for key in ("labels", "image_labels"):
            if key in a:
                assert sorted(mapping[a[key]]) == sorted(b[key])
    # A class that the other tree has not is no label of a picture whose boxes are left aside.
    parts = (dataclasses.replace(BOXED, ignore_boxes=True),)
    for target in Batches(dataclasses.replace(config, data=parts), [store], [WITHOUT_BLUE])[0]["targets"]:
        assert set(target["image_labels"].tolist()) <= {0, 1, 2}


def test_boxes_of_a_class_that_the_other_tree_has_not_are_ignored(store: Store) -> None:
    config, lost = make(store, (BOXED,)).config, 0
    plain, mapped = (Batches(config, [store], [to])[0]["targets"] for to in (None, WITHOUT_BLUE))
    for a, b in zip(plain, mapped, strict=True):
        known = WITHOUT_BLUE[a["labels"]] >= 0
        assert b["labels"].tolist() == WITHOUT_BLUE[a["labels"]][known].tolist()
        assert np.array_equal(b["boxes"], a["boxes"][known])
        assert len(b.get("ignore_boxes", ())) - len(a.get("ignore_boxes", ())) == (~known).sum()
        lost += (~known).sum()
    assert lost


@pytest.mark.parametrize("mapping", [None, WITHOUT_BLUE])
def test_what_a_sample_says_beside_its_boxes_is_carried_too(tmp_path: Path, mapping) -> None:
    """Besides, what it shows is whatever it names, with a box or without."""
    warm, red, yellow, green, blue = map(toys.TREE.index, ("warm", "red", "yellow", "green", "blue"))
    sample = toys.square_sample(4)  # yellow
    lists = {"image_labels": [yellow], "negative_labels": [green, blue], "not_exhaustive_labels": [warm, red]}
    with StoreWriter(tmp_path / "a.h5", toys.TREE) as writer:
        writer.add(dataclasses.replace(sample, **{what: np.array(nodes) for what, nodes in lists.items()}))
    store = Store(tmp_path / "a.h5")
    target = Batches(make(store, (BOXED,)).config, [store], [mapping])[0]["targets"][0]

    def carried(nodes) -> list[int]:
        return [k for k in (nodes if mapping is None else mapping[nodes]) if k >= 0]

    for what in ("negative_labels", "not_exhaustive_labels"):
        assert target[what].tolist() == carried(lists[what]), what
    shown = [*sample.labels, *lists["image_labels"], *lists["not_exhaustive_labels"]]
    assert target["shown_labels"].tolist() == sorted(set(carried(shown)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    from yolo9000.batches import open_store

    with pytest.raises(TrainingError, match="data-prep pack"):
        open_store(tmp_path / "none.h5")
