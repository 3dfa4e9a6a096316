"""Words of what is told and typed: a number and what it counts, names in a line."""

import csv


def counted(n: int, one: str, several: str = "") -> str:
    """A number and the word for so many: "1 node", "9,418 nodes". several: the plural, if not with an s."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def typed_names(text: str) -> list[str]:
    """Names with commas or line ends between them; in quotes stands what has a comma itself."""
    try:
        rows = list(csv.reader(text.splitlines(), skipinitialspace=True))
    except csv.Error:  # a zero byte, or longer than csv's fields may be
        rows = [text.split(",")]
    return [name.strip() for row in rows for name in row if name.strip()]
