"""What this package raises on purpose. The command line prints it as one line; anything else is a bug."""


class TreeError(Exception):
    """A tree, file, name or WordNet that cannot be used; says where, what was found and what helps."""


class LookupTreeError(TreeError):
    """A text that names no node, or several. `candidates`: indices of the nodes it may have meant."""

    def __init__(self, message: str, candidates: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates
