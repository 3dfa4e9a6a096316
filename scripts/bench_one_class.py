#!/usr/bin/env python3
"""Add one class at a time to the model in the package, from a few pictures of it, and count its answers.

Classes of Caltech 101 that the model knows nothing of, half of their pictures to learn from, half held out;
and, for what changes elsewhere, photographs of ImageNet's classes. The way is that of docs/hierarchy.md.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from yolo9000 import Detections, Detector

ROOT = Path(__file__).resolve().parent.parent
# New class: the folders of Caltech 101 with pictures of it, and the node that it hangs below, the lowest one
# that most of its pictures are answered at or below.
CASES = {
    "cartoon": (("garfield", "snoopy"), "artifact"),
    "dollar_bill": (("dollar_bill",), "artifact"),
    "buddha": (("buddha",), "artifact"),
    "yin_yang": (("yin_yang",), "instrumentality"),
    "brain": (("brain",), "whole"),
}
TREE_THRESHOLDS = (0.5, 0.9)  # the second is the model's own
PICTURES = (".jpg", ".jpeg", ".png")


def unpack(tar: Path, folder: Path, classes: Sequence[str] | None = None, every: int = 1) -> list[Path]:
    """Pictures of a tar of <class>/<file>, of some classes or all, every so many-th, as files."""
    with tarfile.open(tar) as archive:
        members = [m for m in archive if m.isfile() and m.name.lower().endswith(PICTURES)]
        members = [m for m in members if classes is None or Path(m.name).parent.name in classes]
        members = sorted(members, key=lambda m: m.name)[::every]
        archive.extractall(folder, members, filter="data")
    return [folder / member.name for member in members]


def run(command: str, *words: object) -> None:
    program = Path(sys.executable).with_name(command)
    subprocess.run([str(program), *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def teach(
    node: str, parent: str, pictures: Sequence[Path], folder: Path, settings: Sequence[str] = ()
) -> Path:
    """The model in the package with one more class, taught on these pictures: the file."""
    labelled = folder / "pictures" / node
    labelled.mkdir(parents=True)
    for k, picture in enumerate(pictures):
        (labelled / f"{k:03d}{picture.suffix}").write_bytes(picture.read_bytes())
    edited, tree, packed = (folder / name for name in ("edited.safetensors", "tree.json", "one.h5"))
    run("yolo9000", "edit", "--add", node, parent, "--out", edited, "--tree-out", tree)
    run("data-prep", "pack", "--folders", labelled.parent, "--tree", tree, packed)
    words = [word for setting in (f"model.start={edited}", *settings) for word in ("--set", setting)]
    run("yolo9000", "train", "one-class", "--data", packed, "--out", folder / "run", *words, "--json")
    return folder / "run" / "model.safetensors"


def answered(found: Sequence[Detections], node: str) -> int:
    """Pictures on which a box is answered as the node or below it."""
    return sum(any(node in path for path in one.paths) for one in found)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: scripts/bench_one_class.py --cases cartoon --json",
    )
    parser.add_argument("--shared", type=Path, default=ROOT / "../shared", help="folder with data/")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--every", type=int, default=2, help="every so many-th picture of imagenet1k-sample")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as yolo9000 train")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = options.shared / "data"
    before = Detector.load()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = unpack(data / "imagenet1k-sample" / "images.tar", folder / "others", every=options.every)
        old = {t: before(others, tree_threshold=t) for t in TREE_THRESHOLDS}
        for node in options.cases:
            classes, parent = CASES[node]
            pictures = unpack(data / "caltech101" / "images.tar", folder / node / "all", classes)
            taught = Detector.load(teach(node, parent, pictures[::2], folder / node, options.set))
            above = taught.tree.ids[taught.tree.parent(node)]
            for t in TREE_THRESHOLDS:
                held, new = (taught(which, tree_threshold=t) for which in (pictures[1::2], others))
                changed = [k for k in range(len(others)) if old[t][k].paths != new[k].paths]
                rows.append(
                    {
                        "class": node,
                        "below": parent,
                        "learnt_from": len(pictures[::2]),
                        "tree_threshold": t,
                        "held_out": len(pictures[1::2]),
                        "at_parent": answered(held, above),
                        "right": answered(held, node),
                        "others": len(others),
                        "others_at_parent": answered(old[t], above),
                        "changed": len(changed),
                        "changed_elsewhere": len(changed) - answered([old[t][k] for k in changed], above),
                        "wrong": answered(new, node),
                    }
                )
                if not options.json:
                    print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
