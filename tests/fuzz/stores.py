"""The reader of packed HDF5 files. The independent parse: h5py, column by column, and the json module."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from PIL import Image

from data_prep import DataError, Sample, Store, StoreWriter
from data_prep.layout import CHUNK, COLUMNS, RAGGED
from tests.fuzz.mutate import edit_bytes, edit_value
from tests.fuzz.reader import Check, MisreadError, Reader, same
from tests.fuzz.trees import IDS, example


def _picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (10, 20, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()


@cache
def _stores() -> tuple[bytes, ...]:
    """One store: boxes, labels only, nothing known."""
    nothing = np.zeros(0, np.int64)
    box = np.asarray([[0.5, 0.5, 0.25, 0.5], [0.25, 0.5, 0.5, 0.5]], np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        with StoreWriter(path, example(), {"made": "for the fuzzer"}) as writer:
            for k in range(4):
                n = (2, 0, 1, 0)[k]
                writer.add(
                    Sample(
                        name=f"{k}.jpg",
                        image=_picture(k),
                        width=20,
                        height=10,
                        boxes_cxcywh=box[:n],
                        labels=np.arange(n, dtype=np.int64) + k,
                        image_labels=np.asarray([3, 4][: k % 3], np.int64),
                        negative_labels=np.asarray([7] if k == 2 else [], np.int64),
                        crowd=np.zeros(n, bool),
                        difficult=np.arange(n) > 0,
                        source="boxes" if n else "labels",
                        boxed=k != 1,
                        not_exhaustive_labels=np.asarray([2], np.int64) if k == 2 else nothing,
                    )
                )
        return (path.read_bytes(),)


def seal(random: Random, data: bytes) -> bytes:
    """A column, the tree or an attribute edited, with checksums that fit: what only the checks behind see."""
    memory = io.BytesIO(data)
    with h5py.File(memory, "r+") as file:
        kind = random.randrange(8)
        if kind == 0:
            _edit_attribute(random, file)
        elif kind == 1:
            tree = edit_value(random, json.loads(zlib.decompress(file["tree"][()].tobytes())))
            _replace(file, "tree", np.frombuffer(zlib.compress(json.dumps(tree).encode()), "u1"))
        else:
            name = random.choice(list(COLUMNS))
            _replace(file, f"index/{name}", _edit_column(random, file[f"index/{name}"][()]))
        sums = {name: zlib.crc32(file[f"index/{name}"][()].tobytes()) for name in COLUMNS}
        sums["tree"] = zlib.crc32(file["tree"][()].tobytes())
        if kind:
            file.attrs["index_crc32"] = json.dumps(sums)
    return memory.getvalue()


def _replace(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file.create_dataset(name, data=values)


def _edit_column(random: Random, values: np.ndarray) -> np.ndarray:
    values = values.copy()
    if not len(values):
        return np.ones((1, *values.shape[1:]), values.dtype)
    at, kind = random.randrange(len(values)), random.randrange(6)
    if kind == 0:
        return np.delete(values, at, axis=0)
    if kind == 1:
        return np.insert(values, at, values[at], axis=0)
    if kind == 2:
        return values[::-1].copy()
    if kind == 3:
        return values.reshape(-1, 1) if values.ndim == 1 else values.reshape(-1)
    if values.dtype.kind == "f":
        values[at] = random.choice((np.nan, np.inf, -1, 2, 0, 1e38))
    else:
        least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
        odd = (least, most, 0, 1, 2, 9, 1000, min(1 << 40, most), int(values[at]) + 1)
        values[at] = min(random.choice(odd), most)
    return values


def _edit_attribute(random: Random, file: h5py.File) -> None:
    name = random.choice(list(file.attrs))
    value = file.attrs[name]
    if isinstance(value, str) and value[:1] in "[{":
        file.attrs[name] = json.dumps(edit_value(random, json.loads(value)))
    elif random.random() < 0.3:
        del file.attrs[name]
    else:
        file.attrs[name] = random.choice((0, -1, 2, "x", "", True, np.zeros(3), 1.5, "0" * 64))


@contextmanager
def open_store(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.h5"
        path.write_bytes(data)
        store = Store(path)
        try:
            tree = store.tree
            store.verify()
            samples = [store[k] for k in range(len(store))]
        finally:
            store.close()
        with h5py.File(path, "r") as file:
            columns = {name: column[()] for name, column in file["index"].items()}
            images = file["bytes"][()].tobytes()
            sources = json.loads(file.attrs["sources"])
            written = json.loads(zlib.decompress(file["tree"][()].tobytes()))
        same(list(tree.ids), written["ids"], "ids")
        same(tree.parents.tolist(), written["parents"], "parents")
        for k, sample in enumerate(samples):
            try:
                sample.validate(len(tree))  # what the writer asks of each sample
            except DataError as error:
                raise MisreadError(f"sample {k} is handed out though it is not sound: {error}") from error
            start, end = columns["image_starts"][k : k + 2].tolist()
            same(sample.image, images[start:end], f"image {k}")
            same((sample.width, sample.height), (columns["width"][k], columns["height"][k]), f"size {k}")
            same(sample.source, sources[columns["source"][k]], f"source {k}")
            for rows, starts in RAGGED.items():
                first, last = columns[starts][k : k + 2].tolist()
                if not 0 <= first <= last <= len(columns[rows]):
                    raise MisreadError(f"{starts} of sample {k} go from {first} to {last}")
                values = columns[rows][first:last]
                if rows == "name_bytes":
                    same(sample.name, values.tobytes().decode("utf-8", "surrogateescape"), f"name {k}")
                elif not np.array_equal(getattr(sample, rows), values.astype(getattr(sample, rows).dtype)):
                    raise MisreadError(f"{rows} of sample {k} are not those of the file")
        same(sum(len(sample.image) for sample in samples), len(images), "bytes of images")
        same(len(samples), len(columns["width"]), "samples")

    yield check


assert len(IDS) == 8 and CHUNK > 0
READERS = (Reader("store", (DataError,), open_store, _stores, (seal, seal, edit_bytes)),)
