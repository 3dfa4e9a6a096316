"""The quick checksum: against slow arithmetic, on damage, and files of the time before it."""

import json
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import DataError
from data_prep.checksum import BLOCK, quick
from data_prep.store import Store
from tests.data_prep.test_store import random_samples, write

LENGTHS = st.sampled_from([0, 1, 4 * BLOCK - 1, 4 * BLOCK, 4 * BLOCK + 7, 9 * BLOCK + 4095])


def slow(data: bytes) -> int:
    """In integers, as the docstring says it."""
    if len(data) < 4 * BLOCK:
        return zlib.crc32(data)
    whole = len(data) // BLOCK * BLOCK
    sums = b""
    for start in range(0, whole, BLOCK):
        words = [int.from_bytes(data[k : k + 8], "little") for k in range(start, start + BLOCK, 8)]
        sums += (sum(words) % 2**64).to_bytes(8, "little")
    return zlib.crc32(sums + data[whole:])


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 2**32 - 1))
def test_equals_slow_arithmetic_whatever_holds_the_bytes(length, seed):
    data = np.random.default_rng(seed).bytes(length)
    assert quick(data) == quick(bytearray(data)) == quick(memoryview(b"x" + data)[1:]) == slow(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(0, 2**32 - 1), st.sampled_from(["random", "zeros", "ones"]))
def test_finds_any_flipped_bit_and_any_lost_or_misplaced_block(length, seed, kind):
    random = np.random.default_rng(seed)
    data = {"random": random.bytes(length), "zeros": bytes(length), "ones": b"\xff" * length}[kind]
    whole = quick(data)
    for bit in random.integers(0, 8 * length, 20).tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert quick(flipped) != whole
    if kind == "random" and length >= 2 * BLOCK:
        assert quick(data[BLOCK : 2 * BLOCK] + data[:BLOCK] + data[2 * BLOCK :]) != whole
        assert quick(bytes(512) + data[512:]) != whole
        assert quick(data[:-1]) != whole


def test_a_run_of_carries_is_noticed():
    """A flipped bit may turn over all 64 bits of a sum."""
    data = bytearray(b"\xff" * 8 + bytes(5 * BLOCK - 8))
    whole = quick(data)
    for bit in range(64):
        changed = data.copy()
        changed[8 + bit // 8] ^= 1 << bit % 8
        assert quick(changed) != whole


def as_version_1(path) -> None:
    """The file as it was before there was a quick checksum."""
    with h5py.File(path, "r+") as file:
        del file["index/image_quick"]
        checksums = json.loads(file.attrs["index_crc32"])
        del checksums["image_quick"]
        file.attrs["index_crc32"] = json.dumps(checksums)
        file.attrs["version"] = 1


def test_files_of_version_1_are_read_and_their_damage_is_found(tmp_path, tree, make):
    samples = random_samples(make, 5, size=60_000)
    path = write(tmp_path / "s.h5", tree, samples)
    as_version_1(path)
    store = Store(path)
    assert all(make.same(store[k], samples[k]) for k in range(5))
    store.verify()
    content = path.read_bytes()
    path.write_bytes(content.replace(samples[3].image, samples[3].image[:-1] + b"?"))
    with pytest.raises(DataError, match=r"sample 3 .*checksum"):
        Store(path)[3]


def test_a_version_2_file_without_its_quick_checksums_is_damaged(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, [make.sample()])
    as_version_1(path)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(DataError, match="damaged"):
        Store(path)


def test_what_the_quick_checksum_cannot_see_verifying_does(tmp_path, tree, make):
    """Two words of a block change places: nothing that a disk does, but verify goes by CRC-32."""
    image = np.arange(8 * BLOCK // 8, dtype="<u8").tobytes()
    path = write(tmp_path / "s.h5", tree, [make.sample(image=image)])
    swapped = image[8:16] + image[:8] + image[16:]
    path.write_bytes(path.read_bytes().replace(image, swapped))
    store = Store(path)
    assert store[0].image == swapped
    with pytest.raises(DataError, match="checksum"):
        store.verify()
