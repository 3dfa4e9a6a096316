"""The store: what goes in comes out, from any process, and damage never passes for data."""

import multiprocessing
import os
import pickle
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import DataError
from data_prep.layout import CHUNK
from data_prep.store import Store
from data_prep.writer import StoreWriter
from wordtree import WordTree

_RELAXED = [HealthCheck.function_scoped_fixture]


def write(path, tree, samples, **options):
    with StoreWriter(path, tree, **options) as writer:
        for one in samples:
            writer.add(one)
    return path


def random_samples(make, count, seed=0, size=2000):
    rng = np.random.default_rng(seed)
    samples = []
    for k in range(count):
        boxes = int(rng.integers(0, 4))
        sides = rng.uniform(0.01, 0.5, (boxes, 2))
        centres = rng.uniform(sides / 2, 1 - sides / 2)
        samples.append(
            make.sample(
                f"folder/{k} ü.jpg",
                rng.bytes(int(rng.integers(1, size))),
                boxes,
                width=int(rng.integers(1, 5000)),
                height=int(rng.integers(1, 5000)),
                boxes_cxcywh=np.concatenate([centres, sides], 1).astype(np.float32),
                labels=rng.integers(0, 8, boxes),
                image_labels=rng.integers(0, 8, int(rng.integers(0, 3))),
                negative_labels=rng.integers(0, 8, int(rng.integers(0, 3))),
                not_exhaustive_labels=rng.integers(0, 8, int(rng.integers(0, 2))),
                crowd=rng.random(boxes) < 0.5,
                difficult=rng.random(boxes) < 0.5,
                source=f"source {rng.integers(0, 3)}",
                boxed=bool(boxes) or bool(rng.random() < 0.5),
            )
        )
    return samples


@settings(max_examples=25, deadline=None, suppress_health_check=_RELAXED)
@given(count=st.integers(0, 12), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 100, 5000]))
def test_what_goes_in_comes_out(tmp_path, tree, make, count, seed, size):
    samples = random_samples(make, count, seed, size)
    store = Store(write(tmp_path / "s.h5", tree, samples, about={"a": [1]}))
    assert len(store) == count
    assert all(make.same(store[k], one) for k, one in enumerate(samples))
    assert store.boxed.tolist() == [one.boxed for one in samples]
    assert store.source.tolist() == [one.source for one in samples]
    assert store.widths.tolist() == [one.width for one in samples]
    assert store.box_counts.tolist() == [len(one.labels) for one in samples]
    assert store.image_label_counts.tolist() == [len(one.image_labels) for one in samples]
    assert store.image_bytes == sum(len(one.image) for one in samples)
    assert all(store.labels_of(k).tolist() == one.nodes.tolist() for k, one in enumerate(samples))
    assert store.about == {"a": [1]}
    assert store.tree == tree
    assert store.tree_fingerprint == tree.fingerprint
    store.verify()


def test_a_fingerprint_is_of_samples_and_their_order(tmp_path, tree, make):
    samples = random_samples(make, 5)
    one, again, turned, fewer = (
        Store(write(tmp_path / f"{k}.h5", tree, some)).fingerprint
        for k, some in enumerate((samples, samples, samples[::-1], samples[:4]))
    )
    assert one == again and len({one, turned, fewer}) == 3


def test_pictures_across_chunks_equal_what_h5py_reads(tmp_path, tree, make):
    rng = np.random.default_rng(0)
    sizes = [CHUNK - 1, 1, 3, CHUNK, 2 * CHUNK + 7, 5, 3 * CHUNK // 2]
    samples = [make.sample(f"{k}", rng.bytes(size)) for k, size in enumerate(sizes)]
    store = Store(write(tmp_path / "s.h5", tree, samples))
    with h5py.File(tmp_path / "s.h5") as file:
        for k, one in enumerate(samples):
            start, end = file["index/image_starts"][k : k + 2]
            assert store[k].image == one.image == file["bytes"][start:end].tobytes()


def test_annotation_is_the_sample_without_its_picture(tmp_path, tree, make):
    samples = random_samples(make, 5)
    store = Store(write(tmp_path / "s.h5", tree, samples))
    for k in range(5):
        found, whole = store.annotation(k), store[k]
        assert found.image == b"" and store.image(k) == whole.image
        assert found.boxes_cxcywh.tolist() == whole.boxes_cxcywh.tolist()
        assert (found.name, found.source) == (whole.name, whole.source)


def test_positions_count_from_both_ends_and_stop_there(tmp_path, tree, make):
    store = Store(write(tmp_path / "s.h5", tree, random_samples(make, 3)))
    assert make.same(store[-1], store[2])
    assert make.same(store[np.int64(1)], store[1])
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            store[wrong]
    assert len(list(store)) == 3


def test_changing_a_sample_does_not_change_the_store(tmp_path, tree, make):
    store = Store(write(tmp_path / "s.h5", tree, [make.sample()]))
    store[0].boxes_cxcywh[:] = 0
    store[0].labels[:] = 7
    assert store[0].boxes_cxcywh[0, 0] == 0.5
    assert store[0].labels.tolist() == [0]


def test_same_samples_give_the_same_file(tmp_path, tree, make):
    first = write(tmp_path / "a.h5", tree, random_samples(make, 20))
    second = write(tmp_path / "b.h5", tree, random_samples(make, 20))
    assert first.read_bytes() == second.read_bytes()


def _read_all(store, queue):
    try:
        queue.put([store[k].image for k in range(len(store))])
    except DataError as error:
        queue.put(str(error))


def test_several_forked_processes_read_at_once(tmp_path, tree, make):
    samples = random_samples(make, 200)
    store = Store(write(tmp_path / "s.h5", tree, samples))
    assert store[0].image == samples[0].image  # the handle is open before the fork, and shared
    context = multiprocessing.get_context("fork")
    queues = [context.Queue() for _ in range(3)]
    workers = [context.Process(target=_read_all, args=(store, queue)) for queue in queues]
    for worker in workers:
        worker.start()
    for queue in queues:
        assert queue.get(timeout=30) == [one.image for one in samples]
    for worker in workers:
        worker.join()


def test_a_pickled_store_reads_the_same_file_and_no_other(tmp_path, tree, make):
    store = Store(write(tmp_path / "s.h5", tree, random_samples(make, 4)))
    frozen = pickle.dumps(store)
    again = pickle.loads(frozen)
    assert all(make.same(again[k], store[k]) for k in range(4))
    write(tmp_path / "s.h5", tree, random_samples(make, 4, seed=1))
    with pytest.raises(DataError, match="replaced"):
        pickle.loads(frozen)


# Damage


def test_a_flipped_bit_is_found_or_lies_where_nothing_is(tmp_path, tree, make):
    samples = random_samples(make, 6, size=20_000)
    path = write(tmp_path / "s.h5", tree, samples)
    whole = path.read_bytes()
    # Places all over the file, and densely where HDF5's own structures and the index lie, behind and before
    # the chunk.
    rng = np.random.default_rng(0)
    places = {
        *rng.integers(0, len(whole), 150).tolist(),
        *range(0, 600, 7),
        *range(len(whole) - 8000, len(whole), 53),
    }
    damaged = tmp_path / "d.h5"
    found = 0
    for place in sorted(places):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(content)
        try:
            store = Store(damaged)
            read = [store[k] for k in range(len(store))]
        except DataError:
            found += 1
            continue
        assert len(read) == len(samples), place
        assert all(make.same(a, b) for a, b in zip(read, samples, strict=True)), place
    assert found > 50


def test_a_truncated_file_is_refused(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, random_samples(make, 6))
    whole = path.read_bytes()
    for length in [0, 1, 8, 100, 1000, CHUNK // 2, CHUNK, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"s\.h5"):
            store = Store(path)
            store.verify()


def test_cut_short_while_open(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, random_samples(make, 6))
    store = Store(path)
    os.truncate(path, 700)
    with pytest.raises(DataError, match=r"cut short|checksum"):
        store.verify()


def test_a_file_still_being_written_is_refused(tmp_path, tree, make):
    writer = StoreWriter(tmp_path / "s.h5", tree)
    for k in range(3):
        writer.add(make.sample(f"{k}", b"x" * CHUNK))
    assert not (tmp_path / "s.h5").exists()
    with pytest.raises(DataError):
        Store(writer.partial)
    # What a crash at this moment would leave behind.
    writer._file.flush()
    shutil.copy(writer.partial, tmp_path / "left.h5")
    with pytest.raises(DataError):
        Store(tmp_path / "left.h5")
    writer.finish()
    assert len(Store(tmp_path / "s.h5")) == 3


def test_a_closed_but_unfinished_file_is_refused(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, [make.sample()])
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(DataError, match="never finished"):
        Store(path)


def test_another_version_and_another_format_are_refused(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, [make.sample()])
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(DataError, match="version 99"):
        Store(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1, 2]
    with pytest.raises(DataError, match="not one that"):
        Store(tmp_path / "other.h5")


@pytest.mark.parametrize("content", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "s.h5").write_bytes(content)
    with pytest.raises(DataError, match=r"s\.h5"):
        Store(tmp_path / "s.h5")


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Store(tmp_path / "none.h5")
    with pytest.raises(DataError, match="no such file"):
        Store(tmp_path)


# Writing


def test_an_error_or_ctrl_c_leaves_the_older_file_and_nothing_else(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, [make.sample("old")])
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), StoreWriter(path, tree) as writer:
            writer.add(make.sample("new"))
            raise error
    assert Store(path)[0].name == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_two_writers_of_one_file_do_not_mix(tmp_path, tree, make):
    with StoreWriter(tmp_path / "s.h5", tree) as writer:
        writer.add(make.sample())
        with pytest.raises(DataError, match="already open"):
            StoreWriter(tmp_path / "s.h5", tree)
    assert len(Store(tmp_path / "s.h5")) == 1


def test_nowhere_to_write(tmp_path, tree):
    with pytest.raises(DataError, match="no such folder"):
        StoreWriter(tmp_path / "none" / "s.h5", tree)
    with pytest.raises(DataError, match="is a folder"):
        StoreWriter(tmp_path, tree)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no plain file"):
        StoreWriter(tmp_path / "pipe", tree)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()


_BOX = [0.5, 0.5, 0.2, 0.2]


@pytest.mark.parametrize(
    "change",
    [
        {"image": b""},
        {"width": 0},
        {"width": 2**31},
        {"name": "bad \ud800"},
        {"labels": np.asarray([0.5])},
        {"labels": np.asarray([8])},
        {"labels": np.asarray([-1])},
        {"labels": np.asarray([0, 1])},
        {"boxed": False},
        {"image_labels": np.asarray([99])},
        {"negative_labels": np.asarray([-1])},
        {"not_exhaustive_labels": np.asarray([8])},
        {"crowd": np.zeros(2, bool)},
        *({"boxes_cxcywh": np.asarray([box], np.float32)} for box in (
            [np.nan, 0.5, 0.2, 0.2], [0.5, np.inf, 0.2, 0.2], [0.5, 0.5, 0, 0.2], [0.5, 0.5, 0.2, -0.2],
            [0.95, 0.5, 0.2, 0.2], [0.5, 0.05, 0.2, 0.2], [0.5, 0.5, 1.2, 0.2],
        )),
    ],
)  # fmt: skip
def test_an_unsound_sample_is_refused_and_leaves_no_trace(tmp_path, tree, make, change):
    with StoreWriter(tmp_path / "s.h5", tree) as writer:
        writer.add(make.sample("first"))
        with pytest.raises(DataError, match="bad"):
            writer.add(make.sample(**{"name": "bad", **change}))
        writer.add(make.sample("last"))
    store = Store(tmp_path / "s.h5")
    assert [one.name for one in store] == ["first", "last"]


def test_another_tree_is_refused(tmp_path, tree, make):
    store = Store(write(tmp_path / "s.h5", tree, [make.sample()]))
    store.require_tree(tree)
    with pytest.raises(DataError, match="another tree"):
        store.require_tree(WordTree.flat(["a", "b"]))
