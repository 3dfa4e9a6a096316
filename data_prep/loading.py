"""Loading: a recipe's sources with their annotations read, their pictures chosen and their classes mapped,
and pictures fetched as they are needed. What becomes of them is packing.py's and checking.py's.
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.classnames import read_class_names
from data_prep.coco import read_coco
from data_prep.cvat import read_cvat
from data_prep.errors import DataError
from data_prep.fiftyone import read_fiftyone
from data_prep.folders import read_folders, read_unlabelled
from data_prep.labelstudio import read_labelstudio
from data_prep.lookup import Lookup
from data_prep.mapping import Mapping, map_categories
from data_prep.openimages import read_openimages
from data_prep.pictures import Pictures, Shape, inspect, open_pictures
from data_prep.recipe import Recipe, Source
from data_prep.record import Fault, Record, Records
from data_prep.selection import read_list, select
from data_prep.voc import read_voc
from data_prep.yolo import read_darknet, read_yolo
from wordtree import WordTree

AHEAD = 64  # pictures a thread: enough to keep all threads busy, little enough memory


@dataclass(frozen=True, eq=False)
class Loaded:
    """A source whose annotations are read and whose pictures are chosen, but not yet touched."""

    source: Source
    pictures: Pictures
    records: Records  # only the chosen ones, and faults that concern them or pictures lost by them

    def used(self) -> Iterator[Hashable]:
        """Category keys that the chosen records have, in the data set's own order."""
        seen = set()
        for r in self.records.records:
            seen.update(r.categories, r.image_categories, r.negative_categories, r.not_exhaustive_categories)
        return (key for key in self.records.categories if key in seen)

    def mapping(self, tree: WordTree, root: Path) -> Mapping:
        """Nodes of the classes used; root: what the path of a map starts from."""
        return map_categories(self.records.categories, self.used(), tree, self.source.class_map, root)

    def wider(self, mapping: Mapping) -> dict[str, int]:
        """Count of the pictures that are labelled by a folder above their own, whose name is unknown:
        "'dog/rex' as 'dog'" -> pictures."""
        keys = (key for record in self.records.records for key in record.image_categories)
        return dict(Counter(f"{key!r} as {mapping.wider[key]!r}" for key in keys if key in mapping.wider))


def load_source(source: Source, root: Path) -> Loaded:
    """Read the annotations of a source and choose its pictures; DataError as the readers say."""
    pictures = open_pictures(root / source.images)
    records, outdone = _read(source, root, pictures)
    # A fault may have cost a picture its record; lists of pictures may name some that have no annotation.
    others = {fault.picture for fault in records.faults if fault.picture}
    if source.only or source.leave_out:
        others.update(pictures.names())
    taken = select(
        [record.name for record in records.records],
        only=read_list(source.only, root) if source.only else None,
        leave_out=read_list(source.leave_out, root) if source.leave_out else frozenset(),
        holdout_every=source.holdout_every,
        holdout_first=source.holdout_first,
        holdout_part=source.holdout_part,
        others=others,
    )
    # Only now: what is held out is counted over all that the annotations list, as with missing pictures.
    wanted = taken - outdone.keys()
    chosen = tuple(record for record in records.records if record.name in wanted)
    if not chosen:
        raise DataError(f"source {source.name!r}: no pictures; look at its paths and at what it leaves out")
    # Those of a picture that is not wanted are nobody's loss.
    found = (*records.faults, *outdone.values())
    faults = tuple(fault for fault in found if not fault.picture or fault.picture in taken)
    return Loaded(source, pictures, dataclasses.replace(records, records=chosen, faults=faults))


def _read(source: Source, root: Path, pictures: Pictures) -> tuple[Records, dict[str, Fault]]:
    """The annotations of a source, as its kind has them, and what is wrong with those outdone: see
    _outdone."""

    def at(path: str | None) -> Path | None:
        return root / path if path is not None else None

    if source.kind == "folders":
        return read_folders(pictures, read_list(source.classes, root) if source.classes else None), {}
    if source.kind == "unlabelled":
        return read_unlabelled(pictures), {}
    names = pictures.names()
    lookup = Lookup(names, pictures.path)
    records = _read_annotations(source, at, names, lookup)
    return records, _outdone(records, lookup)


def _outdone(records: Records, lookup: Lookup) -> dict[str, Fault]:
    """Name -> fault of each record of no picture that would have had one, if another did not come closer to
    its name: whoever looks for it would find a picture there."""
    faults = {}
    for record in records.records:
        near = lookup.find(record.name)
        if near is not None and near != record.name:
            detail = f"no such picture; {near} goes to another entry, which comes closer to its name"
            faults[record.name] = Fault("repeated id", record.name, detail)
    return faults


def _read_annotations(
    source: Source, at: Callable[[str | None], Path | None], names: Sequence[str], lookup: Lookup
) -> Records:
    """Those of the kinds whose annotations lie apart from the pictures. at: where a path of the source
    leads. names, lookup: of the pictures."""
    if source.kind == "coco":
        return read_coco(at(source.annotations), lookup)
    if source.kind == "voc":
        return read_voc(at(source.annotations), lookup, source.corners)
    if source.kind == "cvat":
        return read_cvat(at(source.annotations), lookup)
    if source.kind == "fiftyone":
        return read_fiftyone(at(source.annotations), lookup, source.field)
    if source.kind == "labelstudio":
        return read_labelstudio(at(source.annotations), lookup, source.field)
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
        return WordTree.flat(read_class_names(recipe.root / recipe.names))
    for source in loaded:
        if source.source.kind in ("yolo", "darknet") and source.source.class_names is None:
            # In order of appearance class 11 could become class 0, and a Darknet network be scored on that.
            raise DataError(
                f"source {source.source.name!r}: its classes are numbers; a flat list needs their names "
                "(class_names, --class-names data.yaml) or their order (names, --names)"
            )
    names = [c.name for source in loaded for c in source.records.categories.values()]
    if not names:
        raise DataError("a flat tree needs class names, and the sources have none")
    return WordTree.flat(dict.fromkeys(names))


def map_source(loaded: Loaded, tree: WordTree, root: Path) -> Mapping:
    """Nodes of a source's classes; DataError with the list of those that have none, unless the source drops
    them."""
    mapping = loaded.mapping(tree, root)
    if mapping.unmapped and not loaded.source.drop_unmapped:
        lines = "\n  ".join(mapping.unmapped.values())
        raise DataError(
            f"source {loaded.source.name!r}: {len(mapping.unmapped)} classes have no node in the tree:\n"
            f"  {lines}\ngive a map (a table's name, `names`, or a file class,wnid), "
            "or go on without them: drop_unmapped, --drop-unmapped"
        )
    return mapping


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], ahead: int
) -> Iterator[Any]:
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
