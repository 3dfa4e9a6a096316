"""What an exported file says of itself: JSON in the file's metadata, enough to use it without this package.

kind          "detections" or "raw"
inputs, outputs   name -> shape, type and meaning
size          [width, height] of the input; batch: pictures a call
letterbox     how a picture gets into the input: resize "smooth" (bilinear, averaging over the pixels that
              a smaller one covers, rounded to bytes, as PIL's BILINEAR) or "darknet" (bilinear between
              the four nearest, corner pixels' centres kept in place), and the grey around it
options       the options that the graph was made with
anchors       [[width, height], ...] in cells; stride: pixels a cell
tree          fingerprint, ids, names, parents (-1: a root); a flat list of classes is a tree of roots
class_map     data set class -> node, or null
weights_sha256, source   which weights these are and where they came from
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

import yolo9000
from yolo9000.detector import Detector
from yolo9000.export.graph import INPUTS, OUTPUTS, RAW_OUTPUTS
from yolo9000.letterbox import GREY
from yolo9000.network import Network
from yolo9000.options import Options

KEY = "yolo9000"  # of the metadata
VERSION = 1


def describe(
    detector: Detector,
    options: Options | None,
    size: tuple[int, int],
    batch: int,
    candidates: int,
    source: Mapping[str, Any] | None,
) -> str:
    """The description as JSON text, ASCII. options: None for the raw channels."""
    tree = detector.tree
    raw = options is None
    record = {
        "version": VERSION,
        "kind": "raw" if raw else "detections",
        "inputs": {"images": INPUTS["images"]} if raw else INPUTS,
        "outputs": RAW_OUTPUTS if raw else OUTPUTS,
        "size": list(size),
        "batch": batch,
        "letterbox": {"resize": detector.resize, "grey": GREY},
        "options": None if raw else {**_chosen(options), "candidates": candidates},
        "anchors": detector.net.anchors.tolist(),
        "stride": detector.stride,
        "tree": {
            "fingerprint": tree.fingerprint,
            "ids": list(tree.ids),
            "names": list(tree.names),
            "parents": [int(parent) for parent in tree.parents],
        },
        "class_map": None if detector.class_map is None else detector.class_map.tolist(),
        "weights_sha256": weights_sha256(detector.net),
        "source": dict(source or {}),
        "made_with": {"yolo9000": yolo9000.__version__, "torch": torch.__version__},
    }
    # ASCII: OpenVINO keeps it in XML, whose readers differ over what lies beyond.
    return json.dumps(record, allow_nan=False, separators=(",", ":"))


def weights_sha256(net: Network) -> str:
    """SHA-256 over name, type, shape and bytes of every weight, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _chosen(options: Options) -> dict[str, Any]:
    """The options that a graph depends on."""
    names = (
        "threshold",
        "rule",
        "tree_threshold",
        "nms",
        "nms_iou",
        "vote_iou",
        "clip",
        "max_detections",
        "score",
    )
    chosen = {name: getattr(options, name) for name in names}
    return {**chosen, "temperatures": list(options.temperatures or ()) or None}
