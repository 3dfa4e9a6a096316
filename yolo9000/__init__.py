"""YOLO9000: detection over thousands of categories arranged in a tree.

Names are imported when first used, so `import yolo9000` is light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ does, as type checkers and editors see it
    from yolo9000 import darknet, draw, edit, export, images, pipeline, presets, video
    from yolo9000.detections import Detection, Detections
    from yolo9000.detector import Detector
    from yolo9000.errors import ImageError, ModelError, TrainingError
    from yolo9000.loss import RegionLoss
    from yolo9000.network import Network
    from yolo9000.spec import NetworkSpec

__version__ = "0.1.0"

# Public name -> module that defines it, imported at first use: torch takes seconds, `--help` must not.
_HOME = {
    "ModelError": "yolo9000.errors",
    "ImageError": "yolo9000.errors",
    "TrainingError": "yolo9000.errors",
    "Detector": "yolo9000.detector",
    "Detection": "yolo9000.detections",
    "Detections": "yolo9000.detections",
    "RegionLoss": "yolo9000.loss",
    "Network": "yolo9000.network",
    "NetworkSpec": "yolo9000.spec",
}
# Modules of which the pages speak (tests/docs/test_python.py).
_MODULES = ("darknet", "draw", "edit", "export", "images", "pipeline", "presets", "video")

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "ImageError",
    "ModelError",
    "Network",
    "NetworkSpec",
    "RegionLoss",
    "TrainingError",
    "__version__",
    "darknet",
    "draw",
    "edit",
    "export",
    "images",
    "pipeline",
    "presets",
    "video",
]


if not TYPE_CHECKING:  # a checker shall not take a misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        if name in _MODULES:
            return importlib.import_module(f"yolo9000.{name}")
        raise AttributeError(f"module 'yolo9000' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
