"""What one request, and all of them together, may cost; and the refusal that tells a client so.

Not here: who enforces which limit (bodies.py, decoding.py, batching.py, guard.py, server.py)."""

from dataclasses import dataclass, fields

# Longest text that stands for one node: names are far shorter.
LONGEST_TEXT = 200

# Longest list of nodes with commas between them, some 400 ids: with all other parameters at their longest,
# too, it fits in the head of a request. For more the parameter is repeated.
LONGEST_LIST = 4 << 10

# Seconds for which a client may go on sending after it was refused, so that it comes to read why: one that is
# cut off while it sends may never look at the answer it was given.
LINGER = 2.0

# Nodes that one request may list as vocabulary or level: all that fit in the longest head of a request.
MOST_LISTED = 2_000


@dataclass(frozen=True)
class Limits:
    """Limits of a server; see `yolo9000 serve --help`. Raises ValueError for impossible ones.

    body_bytes: of one request. held_bytes: of all bodies being read or waiting for their turn. body_seconds:
    from the head of a request to the end of its body. head_seconds: from the first byte (or the connection)
    to the end of the head. head_bytes: of the head. pictures: in one request. pixels: of one picture.
    decode_seconds: for one picture. queue: pictures that are being decoded or wait for the network. batch:
    pictures that go through the network together, None for what suits the device. connections: open at a
    time. drain_seconds: after SIGTERM. candidates: boxes whose conditionals one picture's answer carries; up
    to four times as many if they pass the threshold.
    """

    body_bytes: int = 20 << 20  # the largest photographs of telephones are half of it
    held_bytes: int = 256 << 20  # a small machine has a gigabyte
    body_seconds: float = 30.0  # 20 MB at 5 Mbit/s
    head_seconds: float = 10.0  # a head is one packet or two, even by radio
    head_bytes: int = 32 << 10  # a vocabulary of thousands of ids fits into it
    pictures: int = 16
    pixels: int = 50_000_000  # 150 MB as RGB; telephones' cameras deliver 12 to 50 million
    decode_seconds: float = 10.0  # the largest JPEG within the limits takes about one
    queue: int = 128
    batch: int | None = None
    connections: int = 512
    drain_seconds: float = 30.0
    candidates: int = 64  # of 9,418 nodes each, 4 bytes a node: 2.4 MB

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and not 0 < value < 1 << 40:  # also refuses NaN
                raise ValueError(f"{part.name.replace('_', ' ')} is a number above 0, not {value}")
        if self.held_bytes < self.body_bytes:
            raise ValueError("less memory for all bodies than for one of them")
        if self.queue < self.pictures:
            raise ValueError(f"a request of {self.pictures} pictures never fits into a queue of {self.queue}")


class RequestError(Exception):
    """A request that is answered with an error: an HTTP status and one line of reason. retry: seconds after
    which it may be tried again, for the header Retry-After."""

    def __init__(self, status: int, reason: str, retry: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry = status, retry
        self.reason = one_line(reason)


def one_line(text: str) -> str:
    """Text as one line of at most a few hundred signs, whatever it quotes."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= 300 else line[:297] + "..."
