"""A hierarchy of visual concepts: WordNet's nouns as one tree with a softmax over each group of siblings.

Works alone: no torch, and WordNet itself only to build a tree, never to load or query one.
"""

from wordtree.errors import LookupTreeError, TreeError
from wordtree.tree import WordTree

__all__ = ["LookupTreeError", "TreeError", "WordTree", "build", "class_map"]


def __getattr__(name: str):
    # Building needs nltk and the tables need reading: both are loaded when first asked for.
    if name == "build":
        from wordtree.growth import build

        return build
    if name == "class_map":
        from wordtree.classes import class_map

        return class_map
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
