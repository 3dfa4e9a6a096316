"""A hierarchy of visual concepts: WordNet's nouns as one tree with a softmax over each group of siblings.

Works alone: no torch, and WordNet itself only to build a tree, never to load or query one.
"""

import importlib
from typing import TYPE_CHECKING, Any

from wordtree.errors import LookupTreeError, TreeError, TreeWarning

if TYPE_CHECKING:
    from wordtree.classes import class_map
    from wordtree.difference import diff
    from wordtree.edit import graft, merge, prune, rename, subtree, tidy
    from wordtree.growth import build
    from wordtree.naming import map_names
    from wordtree.reasons import why
    from wordtree.tree import WordTree

# Public name -> module that defines it, imported when first used: `--help`, here and in the packages that
# build on this one, must not wait for numpy, nltk and the tables.
_HOME = {
    "WordTree": "wordtree.tree",
    "build": "wordtree.growth",
    "class_map": "wordtree.classes",
    "diff": "wordtree.difference",
    **dict.fromkeys(("graft", "merge", "prune", "rename", "subtree", "tidy"), "wordtree.edit"),
    "map_names": "wordtree.naming",
    "why": "wordtree.reasons",
}

__all__ = [
    "LookupTreeError",
    "TreeError",
    "TreeWarning",
    "WordTree",
    "build",
    "class_map",
    "diff",
    "graft",
    "map_names",
    "merge",
    "prune",
    "rename",
    "subtree",
    "tidy",
    "why",
]


if not TYPE_CHECKING:  # a checker shall not take a misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
