"""Other people's data sets into checked samples in one file. Imports no torch.

Names are imported when first used.
"""

import importlib

from data_prep.errors import DataError

# Public name -> module that defines it. h5py and Pillow are imported at first use: `data-prep --help` must
# answer at once.
_HOME = {
    "Sample": "data_prep.sample",
    "Store": "data_prep.store",
    "StoreWriter": "data_prep.writer",
    "Recipe": "data_prep.recipe",
    "Source": "data_prep.recipe",
    "pack": "data_prep.packing",
    "check": "data_prep.checking",
    "kmeans": "data_prep.anchors",
}

__all__ = ["DataError", *sorted(_HOME)]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'data_prep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
