"""What this package raises and warns of on purpose. The command line prints it; anything else is a bug."""


class TreeError(Exception):
    """A tree, file, name or WordNet that cannot be used; says where, what was found and what helps."""


class LookupTreeError(TreeError):
    """A text that names no node, or several. `candidates`: indices of the nodes it may have meant."""

    def __init__(self, message: str, candidates: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class TreeWarning(UserWarning):
    """A tree that can be used, but is perhaps not what was meant; says where and what helps."""
