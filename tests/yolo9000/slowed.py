"""Films whose rate changes."""

import struct
from pathlib import Path


def slowed(path: Path, first: int, factor: int) -> None:
    """Shows all frames of an .mp4 but the first ones for so many times as long: another stts box, in which
    pairs (frames, length) stand, and an edit list that is none any more."""
    film = bytearray(path.read_bytes())

    def box(names: list[bytes], start: int = 0, end: int | None = None) -> list[int]:
        while start < (len(film) if end is None else end):
            length, name = struct.unpack(">I4s", film[start : start + 8])
            if name == names[0]:
                return [start, *(box(names[1:], start + 8, start + length) if names[1:] else [])]
            start += length
        return []

    edits = box([b"moov", b"trak", b"edts"])
    film[edits[-1] + 4 : edits[-1] + 8] = b"free"
    *above, place = box([b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"])
    size, _, _, pairs, count, length = struct.unpack(">I4sIIII", film[place : place + 24])
    assert (size, pairs) == (24, 1)
    values = (32, b"stts", 0, 2, first, length, count - first, factor * length)
    film[place : place + 24] = struct.pack(">I4sIIIIII", *values)
    for where in above:  # every box around it is longer now
        film[where : where + 4] = struct.pack(">I", struct.unpack(">I", film[where : where + 4])[0] + 8)
    path.write_bytes(film)
