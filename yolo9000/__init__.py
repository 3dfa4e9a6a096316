"""YOLO9000: detection over thousands of categories arranged in a tree.

Names are imported when first used, so `import yolo9000` is light.
"""

import importlib

__version__ = "0.1.0"

# Public name -> module that defines it, imported at first use: torch takes seconds, `--help` must not.
_HOME = {
    "ModelError": "yolo9000.errors",
    "ImageError": "yolo9000.errors",
    "TrainingError": "yolo9000.errors",
    "Detector": "yolo9000.detector",
    "Detections": "yolo9000.detections",
    "RegionLoss": "yolo9000.loss",
    "Network": "yolo9000.network",
    "NetworkSpec": "yolo9000.spec",
}
_MODULES = ("darknet", "presets")

__all__ = ["__version__", *sorted(_HOME), *_MODULES]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"yolo9000.{name}")
    raise AttributeError(f"module 'yolo9000' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
