"""The reader of requests: bytes on a socket of the running server. The independent parses: http.client for
what is answered, Pillow for the picture that was sent.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.fuzz.mutate import WORDS, edit_bytes, edit_text
from tests.fuzz.photos import plain_pixels
from tests.fuzz.reader import Check, MisreadError, Reader
from tests.yolo9000 import small

# A request that promises more than it sends is answered when its time is over: a short one here.
_SECONDS = 0.25
_OPTIONS = ("threshold", "rule", "tree_threshold", "nms", "nms_iou", "level", "vocabulary", "accuracy")
_OPTIONS += (
    "hedge_lambda",
    "score",
    "mapped",
    "max_detections",
    "candidates",
    "node",
    "q",
    "limit",
    "a",
    "b",
)
_VALUES = ("0", "0.2", "0.9", "1", "threshold", "leaf", "greedy", "level", "vocabulary", "hedge", "darknet")
_VALUES += ("n4", "n8", "husky", "animal", "n4,n5", "coco", "related", "none", "objectness", "conditional")
_HOST = b"Host: 127.0.0.1\r\n"


class RefusedError(Exception):
    """The server said no, in one line."""


def request(line: bytes, body: bytes = b"", headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return line + b" HTTP/1.1\r\n" + _HOST + headers + length + b"\r\n" + body


@cache
def requests() -> tuple[bytes, ...]:
    out = io.BytesIO()
    small.picture(1, 30, 20).save(out, "PNG")
    png = out.getvalue()
    part = b'--edge\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'
    form = part + png + b"\r\n" + part + png + b"\r\n--edge--\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (png[:100], png[100:])) + b"0\r\n\r\n"
    query = b"?threshold=0.3&nms=class&max_detections=5&candidates=0.2"
    return (
        request(b"POST /v1/detect", png, b"Content-Type: image/png\r\n"),
        request(b"POST /v1/detect" + query, png),
        request(b"POST /v1/detect", form, b"Content-Type: multipart/form-data; boundary=edge\r\n"),
        request(b"POST /v1/detect", b"", b"Transfer-Encoding: chunked\r\n") + chunks,
        request(b"GET /v1/tree"),
        request(b"GET /v1/tree/search?q=dog&limit=3"),
        request(b"GET /v1/tree/path?node=husky"),
        request(b"GET /v1/tree/children?node=animal"),
        request(b"GET /v1/tree/lca?a=husky&b=cat"),
        request(b"GET /readyz"),
        request(b"GET /"),
    )


def edit_body(random: Random, data: bytes) -> bytes:
    """The body damaged, its length told rightly: what reaches the decoders."""
    head, _, body = data.partition(b"\r\n\r\n")
    if not body or b"Content-Length" not in head:
        return edit_text(random, data)
    body = edit_bytes(random, body)
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


def edit_query(random: Random, data: bytes) -> bytes:
    """A parameter of the query changed, added, doubled or taken away, well written as such."""
    line, end, rest = data.partition(b" HTTP/1.1")
    path, _, query = line.decode("latin-1").partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    pairs += [(random.choice(_OPTIONS), "0.5")] * (random.random() < 0.4 or not pairs)
    at, kind = random.randrange(len(pairs)), random.randrange(4)
    if kind == 0:
        pairs.append(random.choice(pairs))
    elif kind == 1:
        pairs[at] = (random.choice(_OPTIONS), pairs[at][1])
    else:
        value = random.choice((*WORDS, *_VALUES, *_VALUES, *_VALUES))
        pairs[at] = (pairs[at][0], value.encode("utf-8", "replace").decode())
    return f"{path}?{urlencode(pairs)}".encode() + end + rest


def edit_head(random: Random, data: bytes) -> bytes:
    """The head edited, the body as it was."""
    head, blank, body = data.partition(b"\r\n\r\n")
    return edit_text(random, head) + blank + body


class _Answer:
    """What http.client reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


@contextmanager
def open_server(folder: Path) -> Iterator[Check]:
    from tests.yolo9000.serve.running import running
    from yolo9000 import Detector
    from yolo9000.serve.limits import Limits

    limits = Limits(
        body_bytes=300_000, body_seconds=_SECONDS, head_seconds=_SECONDS, head_bytes=16_384, pixels=1_000_000
    )
    detector = Detector(small.small_detector("stored"), precision="float32")
    with running(detector, limits) as server:

        def check(data: bytes) -> None:
            with server.connect(5) as line:
                answer = _exchange(line, data)
            _judge(data, answer)

        yield check
        if server.metric("yolo9000_body_bytes ") or server.metric("yolo9000_queue_pictures "):
            raise MisreadError("bodies or pictures are left in the server's memory")


def _exchange(line: socket.socket, data: bytes) -> bytes:
    """Send all, read until the first answer is whole or the server closes."""
    with suppress(ConnectionError):  # it may have answered and gone
        line.sendall(data)
    got = b""
    with suppress(ConnectionError):
        while not _whole(got) and (piece := line.recv(1 << 16)):
            got += piece
    return got


def _whole(got: bytes) -> bool:
    head, blank, body = got.partition(b"\r\n\r\n")
    if not blank:
        return False
    for field in head.lower().split(b"\r\n"):
        if field.startswith(b"content-length:"):
            return len(body) >= int(field.partition(b":")[2])
    return False


def _judge(data: bytes, answer: bytes) -> None:
    """RefusedError for a 4xx with a reason; MisreadError for what an answer must not be."""
    if not answer:
        raise MisreadError("the connection was closed without an answer")
    found = http.client.HTTPResponse(_Answer(answer), method=data.split(b" ", 1)[0].decode("latin-1"))
    found.begin()
    body = found.read()
    if found.status >= 500 and found.status != 503:
        raise AssertionError(f"{found.status}: {body[:200]!r}")
    if found.status >= 400:
        text = body.decode()
        if found.getheader("content-type", "").startswith("application/json"):
            text = json.loads(text)["error"]
        if data[:5] != b"HEAD " and (not text.strip() or "\n" in text.strip() or "Traceback" in text):
            raise MisreadError(f"{found.status} without one line of reason: {body[:200]!r}")
        raise RefusedError(f"{found.status} {text.strip()}")
    if found.getheader("content-type", "").startswith("application/json"):
        _judge_answer(data, json.loads(body, parse_constant=_no_constant))


def _no_constant(name: str) -> None:
    raise MisreadError(f"{name} in an answer, which JSON has no word for")


def _judge_answer(data: bytes, answer: dict) -> None:
    """Sizes of pictures sent raw, against Pillow; boxes within them; scores in 0..1."""
    for picture in answer.get("pictures", ()):
        for one in picture["detections"]:
            left, top, right, bottom = one["box_xyxy"]
            inside = 0 <= left <= right <= picture["width"] and 0 <= top <= bottom <= picture["height"]
            if not inside or not 0 <= one["score"] <= 1 or (one["path"] and one["path"][-1] != one["id"]):
                raise MisreadError(f"an impossible detection: {one}")
    head, _, body = data.partition(b"\r\n\r\n")
    fields = [field.partition(b":") for field in head.split(b"\r\n")[1:]]
    lengths = [value.strip() for name, _, value in fields if name.lower() == b"content-length"]
    forms = any(name.lower() in (b"content-type", b"transfer-encoding") for name, _, _ in fields)
    path = urlsplit(head.split(b" ")[1].decode("latin-1")).path
    if path == "/v1/detect" and not forms and len(lengths) == 1 and lengths[0].isdigit():
        wanted = plain_pixels(body[: int(lengths[0])])
        if wanted is not None:
            found = [(p["height"], p["width"]) for p in answer["pictures"]]
            if found != [wanted.shape[:2]]:
                raise MisreadError(f"a picture of {wanted.shape[:2]} was read as {found}")


READERS = (
    Reader(
        "request",
        (RefusedError,),
        open_server,
        requests,
        (edit_query, edit_query, edit_head, edit_body, edit_bytes),
    ),
)
