"""Which labels the default tree has: public facts about ImageNet, COCO and the committed tables.

Not here: how a tree grows from its labels (growth.py), and loading the tree that was made (treefile.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from wordtree.classes import class_map, table
from wordtree.errors import TreeError
from wordtree.files import read_lines
from wordtree.grafts import default_grafts, overrides
from wordtree.growth import PHYSICAL_ENTITY, Paths, build
from wordtree.tree import WordTree

# Darknet's 9k.tree holds the ImageNet synsets with at least this many pictures in Fall 2011: the paper's "top
# 9,000".
FEWEST_PICTURES = 777

_COUNT = re.compile(r"n[0-9]{8}\t[0-9]{1,9}")


def read_counts(path: str | Path) -> dict[str, int]:
    """Pictures per WordNet id from lines `wnid TAB images` under a heading. TreeError names file and line."""
    counts = {}
    for number, line in enumerate(read_lines(path, marked=True), 1):
        fields = line.split("\t")
        if number == 1 and fields == ["wnid", "images"]:
            continue
        if not _COUNT.fullmatch(line) or fields[0] in counts:
            raise TreeError(f"{path}:{number}: wanted `wnid TAB images`, each id once, found {line[:80]!r}")
        counts[fields[0]] = int(fields[1])
    return counts


def default_labels(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The labels of the default tree -> whose labels they are: "imagenet", "ilsvrc", "det", "coco".

    Args:
        counts: pictures in ImageNet Fall 2011 per WordNet id.
    """
    labels: dict[str, tuple[str, ...]] = {
        node: ("imagenet",) for node, pictures in counts.items() if pictures >= FEWEST_PICTURES
    }
    for name in ("ilsvrc", "det", "coco"):
        for _, node in class_map(name):
            labels[node] = (*labels.get(node, ()), name) if name not in labels.get(node, ()) else labels[node]
    left_out = {node for node, *_ in table("left_out.tsv", 3)}
    paths = Paths(PHYSICAL_ENTITY, default_grafts())
    return {node: tags for node, tags in labels.items() if node not in left_out and paths.of(node)}


def build_default(counts: Mapping[str, int], progress: bool = False) -> WordTree:
    """Build the default tree from WordNet 3.0; the one in the package was made so."""
    tree = build(default_labels(counts), progress=progress)
    about = {
        "title": "Tree of 9,418 things one can photograph",
        "wordnet": "3.0",
        "labels": f"ImageNet Fall 2011 with at least {FEWEST_PICTURES} pictures, ILSVRC, ImageNet DET, COCO",
        "made by": "scripts/build_default_tree",
        "licence": "names, glosses and hypernyms: WordNet 3.0, Copyright 2006 by Princeton University",
    }
    return WordTree.from_dict({**tree.to_dict(), "about": about})


def build_reference(counts: Mapping[str, int], progress: bool = False) -> WordTree:
    """Darknet's 9k.tree but for the order within groups: the default labels, and the overrides besides."""
    return build(default_labels(counts), grafts={**default_grafts(), **overrides()}, progress=progress)


def build_1k(progress: bool = False) -> WordTree:
    """The 1,369 nodes of the paper's WordTree1k: the 1,000 ILSVRC classes and what holds them together.

    The three classes outside "physical entity" are roots; of equally cheap paths the shortest is taken, not
    the alphabetically first that fits 9k.tree best and gives 1,371 nodes here. The paper tells the number of
    nodes alone, so that no more than this can be held against it.
    """
    labels = {node: ("ilsvrc",) for _, node in class_map("ilsvrc")}
    paths = Paths(PHYSICAL_ENTITY, {})
    outside = {node: PHYSICAL_ENTITY for node in labels if not paths.of(node)}
    return build(labels, grafts=outside, ties="shortest", promotion=False, progress=progress)
