"""Words of what is told: a number and what it counts."""


def counted(n: int, one: str, several: str = "") -> str:
    """A number and the word for so many: "1 node", "9,418 nodes". several: the plural, if not with an s."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"
