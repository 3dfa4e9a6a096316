"""What a run writes down of itself into log and model: data, settings, which nodes were taught how."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wordtree import WordTree
from yolo9000.config import TrainConfig
from yolo9000.distill import class_labels
from yolo9000.parts import Part, Samples
from yolo9000.start import stored_nodes


def known_nodes(
    config: TrainConfig,
    stores: Sequence[Samples],
    parts: Sequence[Part],
    maps: Sequence[np.ndarray | None],
    tree: WordTree | None,
) -> dict[str, list[int]]:
    """The nodes that boxes ("boxes") and labels of whole pictures ("labels") were given for in training, and
    those that a trunk's own classes lie at or below ("teacher"), ascending. Boxes of parts with names = false
    taught none.
    """
    found: dict[str, set[int]] = {"boxes": set(), "labels": set()}
    for part in parts:
        for s, store in enumerate(stores):
            index = part.where[part.where[:, 0] == s, 1]
            boxed = np.asarray(store.boxed, bool)[index]
            for flag, key in ((True, "boxes"), (False, "labels")):
                if flag and not part.config.names:
                    continue
                chosen = [store.labels_of(int(i)) for i in index[boxed == flag]]
                if not chosen:
                    continue
                nodes = np.unique(np.concatenate(chosen))
                nodes = nodes if maps[s] is None else maps[s][nodes]
                where = "labels" if part.config.ignore_boxes or config.task == "classify" else key
                found[where].update(int(n) for n in nodes if n >= 0)
    if config.model.known and tree is not None:
        found["teacher"] = set(stored_nodes(tree, class_labels(config.model.known)))
    return {key: sorted(nodes) for key, nodes in found.items()}


def going_on(earlier: Mapping[str, Any], nodes: Mapping[str, list[int]]) -> dict[str, Any]:
    """The record of a model that a run started from, with the nodes that the run taught added to its own."""
    before = earlier.get("nodes")
    before = before if isinstance(before, dict) else {}
    both = {key: sorted({*before.get(key, []), *nodes.get(key, [])}) for key in [*before, *nodes]}
    return {**earlier, "nodes": both}


def without_folders(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose files are named without their folders: a model is handed on, a disk is not."""

    def bare(value: Any) -> Any:
        return " ".join(Path(word).name for word in value.split()) if isinstance(value, str) else value

    files = ("start", "cfg", "weights", "data_root", "trunk", "tree", "known")
    model = {key: bare(value) if key in files else value for key, value in config["model"].items()}
    distill = {key: bare(value) for key, value in config["distill"].items()}
    return {**config, "model": model, "distill": distill}


def about(store: Any) -> dict[str, Any]:
    """What a packed file is, for the log and the model: name, samples, sources, fingerprints of all of it
    and of its tree."""
    path = getattr(store, "path", None)
    return {
        "file": Path(path).name if path else "",
        "samples": len(store),
        "sources": sorted({str(name) for name in store.source}),
        "fingerprint": getattr(store, "fingerprint", ""),
        "tree": getattr(store, "tree_fingerprint", ""),
    }
