"""Packing: the data sets of a recipe, judged and mapped, into one store file or several shards.

Not here: reading annotations and choosing pictures (loading.py), writing the file (writer.py).
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.errors import DataError
from data_prep.journal import Journal
from data_prep.judging import clip, judge, set_upright, to_pixels, to_shares, usable
from data_prep.loading import AHEAD, Loaded, fetch, frame_of, in_order, load_source, make_tree, map_source
from data_prep.mapping import Mapping
from data_prep.pictures import Shape
from data_prep.recipe import Recipe
from data_prep.record import HARMLESS, Fault, Record
from data_prep.sample import Sample
from data_prep.shards import shard_paths
from data_prep.writer import StoreWriter, check_place
from wordtree import WordTree


@dataclass
class PackReport:
    """What became of the pictures: counts for each source, and everything that was left out.

    pictures, boxes, image_labels: source -> count of what is in the file. faults: each cost a picture, a box
        or a label.
    dropped: source -> class name and why -> count of boxes and labels that were left out by choice (a map,
        --drop-unmapped).
    label_free: source -> pictures left out because all their labels were.
    wider: source -> "'dog/rex' as 'dog'" -> pictures labelled by a folder above their own (Loaded.wider).
    """

    pictures: Counter = field(default_factory=Counter)
    boxes: Counter = field(default_factory=Counter)
    image_labels: Counter = field(default_factory=Counter)
    faults: list[tuple[str, Fault]] = field(default_factory=list)  # (source, fault)
    dropped: dict[str, Counter] = field(default_factory=dict)
    label_free: Counter = field(default_factory=Counter)
    wider: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """JSON-able."""
        return {
            "sources": {
                name: {
                    "pictures": self.pictures[name],
                    "boxes": self.boxes[name],
                    "image_labels": self.image_labels[name],
                    "left_out_by_choice": dict(self.dropped.get(name, {})),
                    "pictures_without_a_label_left": self.label_free[name],
                    "labelled_by_an_upper_folder": self.wider.get(name, {}),
                }
                for name in self.pictures
            },
            "faults": [{"source": name, **dataclasses.asdict(fault)} for name, fault in self.faults],
        }


def pack(
    recipe: Recipe,
    out: Path | str,
    *,
    decode: bool = True,
    jobs: int = 1,
    progress: bool = False,
    shards: int | None = None,
) -> PackReport:
    """Write the pictures of a recipe's sources into one store file, or into `shards` files beside it
    (shards.py), picture k into shard k mod `shards`.

    Pictures that cannot be used, and boxes without area in their picture, are left out and reported; boxes
    that stick out are clipped. Killed or interrupted, the same call goes on where it was (journal.py):
    pictures that were read are then not looked at again.

    Args:
        recipe: what goes in. out: the file; it appears whole at the end, or not at all, as each shard does.
        decode: decode every picture fully, so that truncated ones are found; otherwise look at headers only.
        jobs: threads that read and decode. progress: show a bar.

    Raises:
        DataError: annotations, tree or mapping cannot be used, nothing is left to pack, or `out` cannot be
        written.
    """
    loaded = [load_source(source, recipe.root) for source in recipe.sources]
    tree = make_tree(recipe, loaded)
    mappings = [map_source(source, tree, recipe.root) for source in loaded]
    report = PackReport()
    about = {"tree": recipe.tree, "sources": [dataclasses.asdict(source) for source in recipe.sources]}
    total = sum(len(source.records.records) for source in loaded)
    paths = [Path(out)] if shards is None else shard_paths(Path(out), shards)
    journals: list[Journal] = []
    try:
        with ExitStack() as stack:
            files: list[tuple[StoreWriter, Journal]] = []
            for path in paths:
                check_place(path)
                journals.append(Journal(path, _key(recipe, tree, decode)))
                writer = StoreWriter(path, tree, about, journals[-1].add_chunk)
                files.append((stack.enter_context(writer), journals[-1]))
            pool = stack.enter_context(ThreadPoolExecutor(max(jobs, 1)))
            bar = stack.enter_context(tqdm(total=total, unit=" pictures", disable=not progress))
            first = 0
            for source, mapping in zip(loaded, mappings, strict=True):
                _pack_source(source, first, mapping, files, pool, jobs, decode, report, bar)
                first += len(source.records.records)
            empty = [writer.path for writer, _ in files if not len(writer)]
            if len(empty) == len(files):
                raise DataError(f"{out}: not one picture could be packed{_first_reason(report)}")
            if empty:
                raise DataError(f"{empty[0]}: no picture is left for this shard; make fewer")
    except Exception:
        for journal in journals:
            journal.drop()
        raise
    except BaseException:  # Ctrl-C
        for journal in journals:
            journal.keep()
        raise
    for journal in journals:
        journal.drop()
    return report


def _key(recipe: Recipe, tree: WordTree, decode: bool) -> str:
    """What decides whether an unfinished file is one of this run; of shards their names say the rest."""
    said = [dataclasses.asdict(recipe), str(recipe.root.absolute()), tree.fingerprint, decode]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()


def _first_reason(report: PackReport) -> str:
    """Why the first picture or label was left out, as the end of a sentence."""
    for name, fault in report.faults:
        return f"; the first fault: {name}: {fault.picture or '-'}: {fault.kind}: {fault.detail}"
    for name, dropped in report.dropped.items():
        for why, count in dropped.items():
            return f"; {name}: {count:,} labels left out: {why}"
    return ""


def _pack_source(
    loaded: Loaded,
    first: int,
    mapping: Mapping,
    files: Sequence[tuple[StoreWriter, Journal]],
    pool: ThreadPoolExecutor,
    jobs: int,
    decode: bool,
    report: PackReport,
    bar: tqdm,
) -> None:
    name = loaded.source.name
    report.pictures[name] = 0
    dropped = report.dropped.setdefault(name, Counter())
    report.faults += [(name, fault) for fault in loaded.records.faults]
    report.wider[name] = loaded.wider(mapping)

    def work(item: tuple[int, Record]) -> tuple[int, Record, bytes, Shape | Fault]:
        number, record = item
        journal = files[number % len(files)][1]
        found = journal.taken(number // len(files), record.name) or fetch(
            loaded.pictures, record.name, decode
        )
        return number, record, *found

    items = enumerate(loaded.records.records, first)
    for number, record, image, shape in in_order(pool, work, items, max(jobs, 1) * AHEAD):
        bar.update()
        writer, journal = files[number % len(files)]
        journal.add(number // len(files), record.name, writer.position, image, shape)
        if isinstance(shape, Fault):
            report.faults.append((name, shape))
            continue
        sample, faults = make_sample(record, image, shape, mapping, loaded, dropped)
        report.faults += [(name, fault) for fault in faults]
        if sample is None:
            report.label_free[name] += not faults
            continue
        writer.add(sample)
        report.pictures[name] += 1
        report.boxes[name] += len(sample.labels)
        report.image_labels[name] += len(sample.image_labels)


def make_sample(
    record: Record, image: bytes, shape: Shape, mapping: Mapping, loaded: Loaded, dropped: Counter
) -> tuple[Sample | None, list[Fault]]:
    """A record and its picture as a sample, with what was left out of it as faults; None if nothing is left
    to pack."""
    faults: list[Fault] = []
    boxes, size = record.boxes_xyxy, shape.upright
    if len(boxes):
        frame = frame_of(record, shape)
        if isinstance(frame, Fault):
            return None, [frame]
        size, orientation = frame
        boxes = to_pixels(boxes, size) if record.in_shares else boxes
        known = np.asarray([_known(key, mapping, loaded, dropped) for key in record.categories], bool)
        sound = usable(boxes, size)
        if (known & ~sound).any():
            for kinds, box, bad in zip(
                judge(boxes, record.categories, size), boxes, known & ~sound, strict=True
            ):
                if bad:
                    kind = next((kind for kind in kinds if kind not in HARMLESS), "box empty")
                    shown = [round(value, 2) for value in box.tolist()]
                    faults.append(Fault(kind, record.name, f"box {shown} left out"))
        keep = known & sound
        boxes = set_upright(clip(boxes[keep], size), size, orientation)
        size = shape.upright
    else:
        keep = np.zeros(0, bool)
    categories = [key for key, kept in zip(record.categories, keep, strict=True) if kept]
    image_labels = _nodes(record.image_categories, mapping, loaded, dropped)
    if record.image_categories and not len(image_labels) and not record.boxed:
        return None, faults
    sample = Sample(
        name=record.name,
        image=image,
        width=size[0],
        height=size[1],
        boxes_cxcywh=to_shares(boxes, size),
        labels=np.asarray([mapping.nodes[key] for key in categories], np.int64),
        image_labels=image_labels,
        negative_labels=_nodes(record.negative_categories, mapping, loaded, dropped),
        crowd=record.crowd[keep],
        difficult=record.difficult[keep],
        source=loaded.source.name,
        boxed=record.boxed,
        not_exhaustive_labels=_nodes(record.not_exhaustive_categories, mapping, loaded, dropped),
    )
    return sample, faults


def _nodes(keys: tuple, mapping: Mapping, loaded: Loaded, dropped: Counter) -> np.ndarray:
    """Node indices of the keys that have one, each once, int64."""
    nodes = [mapping.nodes[key] for key in keys if _known(key, mapping, loaded, dropped)]
    return np.asarray(list(dict.fromkeys(nodes)), np.int64)


def _known(key: Hashable, mapping: Mapping, loaded: Loaded, dropped: Counter) -> bool:
    if key in mapping.nodes:
        return True
    dropped[mapping.left_out.get(key) or mapping.unmapped[key]] += 1
    return False
