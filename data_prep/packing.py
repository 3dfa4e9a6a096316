"""Packing: the data sets of a recipe, judged and mapped, into one store file.

Not here: reading annotations (coco.py and the other readers) and writing the file (writer.py).
"""

import dataclasses
import hashlib
import json
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.coco import read_coco
from data_prep.cvat import read_cvat
from data_prep.errors import DataError
from data_prep.folders import read_folders, read_unlabelled
from data_prep.journal import Journal
from data_prep.judging import clip, judge, set_upright, to_pixels, to_shares, usable
from data_prep.lookup import Lookup
from data_prep.mapping import Mapping, map_categories
from data_prep.openimages import read_openimages
from data_prep.pictures import Pictures, Shape, inspect, open_pictures
from data_prep.recipe import Recipe, Source
from data_prep.record import HARMLESS, Fault, Record, Records
from data_prep.sample import Sample
from data_prep.selection import read_list, select
from data_prep.voc import read_voc
from data_prep.writer import StoreWriter, check_place
from data_prep.yolo import read_darknet, read_yolo
from wordtree import WordTree
from wordtree.files import read_lines

AHEAD = 64  # pictures a thread: enough to keep all threads busy, little enough memory


@dataclass
class PackReport:
    """What became of the pictures: counts for each source, and everything that was left out.

    pictures, boxes, image_labels: source -> count of what is in the file. faults: each cost a picture, a box
        or a label.
    dropped: source -> class name and why -> count of boxes and labels that were left out by choice (a map,
        --drop-unmapped).
    label_free: source -> pictures left out because all their labels were.
    """

    pictures: Counter = field(default_factory=Counter)
    boxes: Counter = field(default_factory=Counter)
    image_labels: Counter = field(default_factory=Counter)
    faults: list[tuple[str, Fault]] = field(default_factory=list)  # (source, fault)
    dropped: dict[str, Counter] = field(default_factory=dict)
    label_free: Counter = field(default_factory=Counter)

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
                }
                for name in self.pictures
            },
            "faults": [{"source": name, **dataclasses.asdict(fault)} for name, fault in self.faults],
        }


@dataclass(frozen=True, eq=False)
class Loaded:
    """A source whose annotations are read and whose pictures are chosen, but not yet touched."""

    source: Source
    pictures: Pictures
    records: Records  # only the chosen ones

    def faults(self) -> list[Fault]:
        """Faults of the annotations that concern the chosen pictures: those of another are nobody's loss."""
        taken = {record.name for record in self.records.records}
        return [fault for fault in self.records.faults if not fault.picture or fault.picture in taken]

    def used(self) -> Iterator[Hashable]:
        """Category keys that the chosen records have, in the data set's own order."""
        seen = set()
        for r in self.records.records:
            seen.update(r.categories, r.image_categories, r.negative_categories, r.not_exhaustive_categories)
        return (key for key in self.records.categories if key in seen)


def load_source(source: Source, root: Path) -> Loaded:
    """Read the annotations of a source and choose its pictures; DataError as the readers say."""
    pictures = open_pictures(root / source.images)
    records = _read(source, root, pictures)
    taken = select(
        [record.name for record in records.records],
        only=read_list(source.only, root) if source.only else None,
        leave_out=read_list(source.leave_out, root) if source.leave_out else frozenset(),
        holdout_every=source.holdout_every,
        holdout_first=source.holdout_first,
        holdout_part=source.holdout_part,
    )
    chosen = tuple(record for record in records.records if record.name in taken)
    if not chosen:
        raise DataError(f"source {source.name!r}: no pictures; look at its paths and at what it leaves out")
    return Loaded(source, pictures, dataclasses.replace(records, records=chosen))


def _read(source: Source, root: Path, pictures: Pictures) -> Records:
    """The annotations of a source, as its kind has them."""

    def at(path: str | None) -> Path | None:
        return root / path if path is not None else None

    if source.kind == "coco":
        return read_coco(at(source.annotations))
    if source.kind == "folders":
        return read_folders(pictures, read_list(source.classes, root) if source.classes else None)
    if source.kind == "unlabelled":
        return read_unlabelled(pictures)
    names = pictures.names()
    lookup = Lookup(names)
    if source.kind == "voc":
        return read_voc(at(source.annotations), lookup, source.corners)
    if source.kind == "cvat":
        return read_cvat(at(source.annotations), lookup)
    if source.kind == "openimages":
        labels, class_names = at(source.image_labels), at(source.class_names)
        return read_openimages(at(source.annotations), lookup, labels, class_names)
    if source.kind == "yolo":
        return read_yolo(at(source.annotations), names, lookup, at(source.class_names))
    return read_darknet(
        at(source.annotations),
        at(source.images),
        lookup,
        at(source.labels),
        at(source.class_names),
        at(source.node_map),
    )


def make_tree(recipe: Recipe, loaded: Iterable[Loaded]) -> WordTree:
    """The tree that a recipe names; a flat one over all classes of its sources in order of appearance."""
    loaded = list(loaded)
    for source in loaded if recipe.tree in ("default", "flat") else ():
        if any(category.node is not None for category in source.records.categories.values()):
            raise DataError(
                f"source {source.source.name!r}: classes are numbers of nodes in a tree; name its file "
                "(tree, --tree), or a .data file whose `labels` lists the WordNet ids (class_names, "
                "--class-names)"
            )
    if recipe.tree == "default":
        return WordTree.default()
    if recipe.tree != "flat":
        return WordTree.load(recipe.root / recipe.tree)
    if recipe.names is not None:
        return WordTree.flat(_class_names(recipe.root / recipe.names))
    names = [c.name for source in loaded for c in source.records.categories.values()]
    if not names:
        raise DataError("a flat tree needs class names, and the sources have none")
    return WordTree.flat(dict.fromkeys(names))


def _class_names(path: Path) -> list[str]:
    """A class name per line; its line number is its class number, so none may be blank or there twice."""
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        first = lines.setdefault(line.strip(), number)
        if first != number:
            raise DataError(f"{path}:{number}: the class {line.strip()!r} was there already in line {first}")
    return list(lines)


def map_source(loaded: Loaded, tree: WordTree, root: Path) -> Mapping:
    """Nodes of a source's classes; DataError with the list of those that have none, unless the source drops
    them."""
    mapping = map_categories(loaded.records.categories, loaded.used(), tree, loaded.source.class_map, root)
    if mapping.unmapped and not loaded.source.drop_unmapped:
        lines = "\n  ".join(mapping.unmapped.values())
        raise DataError(
            f"source {loaded.source.name!r}: {len(mapping.unmapped)} classes have no node in the tree:\n"
            f"  {lines}\ngive a map (a table's name, `names`, or a file class,wnid), "
            "or go on without them: drop_unmapped, --drop-unmapped"
        )
    return mapping


def pack(
    recipe: Recipe, out: Path | str, *, decode: bool = True, jobs: int = 1, progress: bool = False
) -> PackReport:
    """Write the pictures of a recipe's sources into one store file.

    Pictures that cannot be used, and boxes without area in their picture, are left out and reported; boxes
    that stick out are clipped. Killed or interrupted, the same call goes on where it was (journal.py):
    pictures that were read are then not looked at again.

    Args:
        recipe: what goes in. out: the file; it appears whole at the end, or not at all.
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
    check_place(Path(out))
    journal = Journal(Path(out), _key(recipe, tree, decode))
    try:
        with (
            StoreWriter(out, tree, about, journal.add_chunk) as writer,
            ThreadPoolExecutor(max(jobs, 1)) as pool,
            tqdm(total=total, unit=" pictures", disable=not progress) as bar,
        ):
            first = 0
            for source, mapping in zip(loaded, mappings, strict=True):
                _pack_source(source, first, mapping, writer, journal, pool, jobs, decode, report, bar)
                first += len(source.records.records)
            if not len(writer):
                raise DataError(f"{out}: not one picture could be packed{_first_reason(report)}")
    except Exception:
        journal.drop()
        raise
    except BaseException:  # Ctrl-C
        journal.keep()
        raise
    journal.drop()
    return report


def _key(recipe: Recipe, tree: WordTree, decode: bool) -> str:
    """What decides whether an unfinished file is one of this run."""
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
    writer: StoreWriter,
    journal: Journal,
    pool: ThreadPoolExecutor,
    jobs: int,
    decode: bool,
    report: PackReport,
    bar: tqdm,
) -> None:
    name = loaded.source.name
    report.pictures[name] = 0
    dropped = report.dropped.setdefault(name, Counter())
    report.faults += [(name, fault) for fault in loaded.faults()]

    def work(item: tuple[int, Record]) -> tuple[int, Record, bytes, Shape | Fault]:
        number, record = item
        found = journal.taken(number, record.name) or fetch(loaded.pictures, record.name, decode)
        return number, record, *found

    items = enumerate(loaded.records.records, first)
    for number, record, image, shape in in_order(pool, work, items, max(jobs, 1) * AHEAD):
        bar.update()
        journal.add(number, record.name, writer.position, image, shape)
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


def in_order(pool: ThreadPoolExecutor, work, items: Iterable, ahead: int) -> Iterator:
    """pool.map that looks only `ahead` items ahead, so that the pictures of a large data set never lie in
    memory all at once."""
    items = iter(items)
    waiting = deque(pool.submit(work, item) for item in islice(items, ahead))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(items, 1))
    finally:
        for future in waiting:
            future.cancel()


def fetch(pictures: Pictures, name: str, decode: bool) -> tuple[bytes, Shape | Fault]:
    """A picture's bytes and shape, or the fault that stands in the way."""
    try:
        image = pictures.read(name)
    except DataError as error:
        return b"", Fault("missing picture", name, str(error))
    try:
        return image, inspect(image, decode)
    except DataError as error:
        return b"", Fault("unreadable picture", name, str(error))


def frame_of(record: Record, shape: Shape) -> tuple[tuple[int, int], int] | Fault:
    """The size of the frame a record's boxes are in, and the EXIF orientation still to be applied to them.

    Annotations carry no orientation, so their size decides whether they were drawn on the stored or on the
    upright picture; where that does not tell (squares, half turns, no size given), they were drawn as people
    saw the picture: upright.
    """
    if record.size in (None, shape.upright):
        return shape.upright, 1
    if record.size == shape.stored:
        return shape.stored, shape.orientation
    detail = f"annotated as {record.size[0]} x {record.size[1]}, is {shape.upright[0]} x {shape.upright[1]}"
    return Fault("wrong size", record.name, detail)


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
