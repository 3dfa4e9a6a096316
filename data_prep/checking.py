"""Checking: every picture of a recipe's sources decoded, every box judged, every class looked up.

The result is a report by kind of fault; the data sets are only read.
"""

import dataclasses
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tqdm import tqdm

from data_prep.judging import judge, set_upright, to_pixels
from data_prep.loading import AHEAD, Loaded, fetch, frame_of, in_order, load_source, make_tree
from data_prep.pictures import Shape
from data_prep.recipe import Recipe
from data_prep.record import HARMLESS, KINDS, Fault, Record
from wordtree import WordTree


@dataclass
class CheckReport:
    """What was looked at, and all that is wrong with it.

    pictures, boxes: source -> count. crowd: source -> boxes marked as crowd (no fault, but good to know).
    faults: (source, fault) in the order of sources and names. wider: as in PackReport.
    """

    pictures: Counter = field(default_factory=Counter)
    boxes: Counter = field(default_factory=Counter)
    crowd: Counter = field(default_factory=Counter)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    wider: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def by_kind(self) -> dict[str, int]:
        """Kind of fault -> count, kinds without any left out."""
        found = Counter(fault.kind for _, fault in self.faults)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def harmful(self) -> int:
        """Number of faults that would cost a picture, box or label."""
        return sum(fault.kind not in HARMLESS for _, fault in self.faults)

    def to_dict(self) -> dict:
        """JSON-able."""
        return {
            "sources": {
                name: {
                    "pictures": count,
                    "boxes": self.boxes[name],
                    "crowd": self.crowd[name],
                    "labelled_by_an_upper_folder": self.wider.get(name, {}),
                }
                for name, count in self.pictures.items()
            },
            "by_kind": self.by_kind,
            "faults": [{"source": name, **dataclasses.asdict(fault)} for name, fault in self.faults],
        }


def check(recipe: Recipe, *, jobs: int = 1, progress: bool = False) -> CheckReport:
    """Look at everything `pack` would take from the sources of a recipe.

    Args:
        recipe: its sources. jobs: threads that read and decode. progress: show a bar.

    Raises:
        DataError: the annotations or the tree cannot be read at all.
    """
    loaded = [load_source(source, recipe.root) for source in recipe.sources]
    tree = make_tree(recipe, loaded)
    report = CheckReport()
    total = sum(len(source.records.records) for source in loaded)
    with (
        ThreadPoolExecutor(max(jobs, 1)) as pool,
        tqdm(total=total, unit=" pictures", disable=not progress) as bar,
    ):
        for source in loaded:
            _check_source(source, tree, recipe, pool, jobs, report, bar)
    return report


def _check_source(
    loaded: Loaded,
    tree: WordTree,
    recipe: Recipe,
    pool: ThreadPoolExecutor,
    jobs: int,
    report: CheckReport,
    bar: tqdm,
) -> None:
    name = loaded.source.name
    report.pictures[name] = 0
    mapping = loaded.mapping(tree, recipe.root)
    report.wider[name] = loaded.wider(mapping)
    unmapped = (Fault("unmapped class", "", why) for why in mapping.unmapped.values())
    faults = [*loaded.records.faults, *unmapped]

    def work(record: Record) -> tuple[Record, Shape | Fault]:
        return record, fetch(loaded.pictures, record.name, decode=True)[1]

    for record, shape in in_order(pool, work, loaded.records.records, max(jobs, 1) * AHEAD):
        bar.update()
        report.pictures[name] += 1
        report.boxes[name] += len(record.categories)
        report.crowd[name] += int(record.crowd.sum())
        faults += _faults_of(record, shape)
    report.faults += [(name, fault) for fault in faults]


def _faults_of(record: Record, shape: Shape | Fault) -> list[Fault]:
    """What is wrong with one picture and its boxes."""
    faults, size, orientation = [], record.size, 1
    if isinstance(shape, Fault):
        faults.append(shape)
    else:
        frame = frame_of(record, shape)
        if isinstance(frame, Fault):
            faults.append(frame)
        else:
            size, orientation = frame
    # Without a usable picture its annotated size is the best there is to judge boxes by.
    if size is None or not len(record.boxes_xyxy):
        return faults
    boxes = to_pixels(record.boxes_xyxy, size) if record.in_shares else record.boxes_xyxy
    upright = set_upright(boxes, size, orientation)
    for position, kinds in enumerate(judge(boxes, record.categories, size)):
        box = [round(value, 2) for value in boxes[position].tolist()]
        detail = f"box {position} {box} in {size[0]} x {size[1]}"
        faults += [Fault(kind, record.name, detail, tuple(upright[position].tolist())) for kind in kinds]
    return faults
