"""Other people's data sets into checked samples in one file. Imports no torch.

Names are imported when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError

if TYPE_CHECKING:  # what __getattr__ does, as type checkers and editors see it
    from data_prep.anchors import kmeans
    from data_prep.checking import check
    from data_prep.packing import pack
    from data_prep.recipe import Recipe, Source
    from data_prep.sample import Sample
    from data_prep.store import Store
    from data_prep.writer import StoreWriter

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

__all__ = ["DataError", "Recipe", "Sample", "Source", "Store", "StoreWriter", "check", "kmeans", "pack"]


if not TYPE_CHECKING:  # a checker shall not take a misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        raise AttributeError(f"module 'data_prep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
