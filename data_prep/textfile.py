"""Small files of text and JSON, read whole. What is in them is their readers'."""

import json
from pathlib import Path
from typing import Any

from data_prep.errors import DataError


def read_text(path: Path) -> str:
    """UTF-8 text of a small file; DataError if it cannot be read."""
    try:
        # In one piece: read piece by piece, the first bytes of a byte order mark alone are taken for no text.
        text = path.read_bytes().decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error


def read_json(path: Path) -> Any:
    """What a small JSON file holds; DataError if it cannot be read or is none."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
