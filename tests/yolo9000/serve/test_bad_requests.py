"""What nobody should send: each is answered with a 4xx and one line of reason, and the server stands."""

import json
import socket
import struct
import time
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from tests.yolo9000.serve.running import encode, picture, png
from yolo9000.serve import decoder
from yolo9000.serve.limits import Limits

LIMITS = Limits(body_bytes=300_000, head_bytes=8192, pixels=2_000_000, pictures=3)


@pytest.fixture(scope="module")
def guarded(detector):
    """A server of little room and ordinary patience: this process may stand still for seconds."""
    yield from watched(detector, LIMITS)


@pytest.fixture(scope="module")
def hasty(detector):
    """The same of little patience, for clients who never come to an end."""
    yield from watched(detector, replace(LIMITS, body_seconds=1.5, head_seconds=1.5))


def watched(detector, limits):
    from tests.yolo9000.serve.running import running

    with running(detector, limits) as found:
        yield found
        assert found.detect(png()).status_code == 200
        assert found.metric("yolo9000_body_bytes ") == 0
        assert found.metric("yolo9000_queue_pictures ") == 0


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header alone is honest."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff() -> bytes:
    return encode(picture(), "TIFF")


BODIES = {
    "empty": (b"", 400),
    "text": (b"hello", 415),
    "a path": (b"/etc/passwd", 415),
    "a url": (b"http://127.0.0.1:9/x.png", 415),
    "a page": (b"<!DOCTYPE html><html></html>", 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", 415),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "pdf": (b"%PDF-1.7\n", 415),
    "tiff": (tiff(), 415),
    "gzip": (zlib.compress(png(), wbits=31), 415),
    "zip": (b"PK\x03\x04" + bytes(100), 415),
    "half a jpeg": (encode(picture(0, 300, 200), "JPEG")[:2000], 422),
    "half a png": (png(0, 300, 200)[:2000], 422),
    "a jpeg's first bytes": (b"\xff\xd8\xff", 422),
    "a png's first bytes": (b"\x89PNG\r\n\x1a\n", 422),
    "a webp of nothing": (b"RIFF\x00\x00\x00\x00WEBP", 422),
    "noise called jpeg": (b"\xff\xd8\xff" + np.random.default_rng(0).bytes(5000), 422),
    "a bmp of nothing": (b"BM" + bytes(60), 422),
    "a gif of nothing": (b"GIF89a" + bytes(20), 422),
    "bomb": (bomb(60_000, 60_000), 413),
    "thin bomb": (bomb(2**31 - 1, 1), 413),
    "more pixels than allowed": (png(0, 2001, 1000), 413),
    "no pixels": (bomb(0, 10), 422),
    "too large": (png() + bytes(LIMITS.body_bytes), 413),
}


def reason(answer) -> str:
    text = answer.json()["error"]
    assert text and text.isprintable() and len(text) <= 300 and "Traceback" not in text
    assert set(answer.json()) == {"error"} and answer.headers["content-type"] == "application/json"
    return text


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_pictures(guarded, name):
    body, status = BODIES[name]
    answer = guarded.detect(body)
    assert answer.status_code == status, answer.text
    reason(answer)


@pytest.mark.parametrize("name", BODIES)
def test_the_same_within_a_form_beside_a_good_one(guarded, name):
    body, status = BODIES[name]
    files = [("pictures", ("a.png", png(), "image/png")), ("pictures", ("b.png", body, "image/png"))]
    answer = guarded.client.post("/v1/detect", files=files)
    assert answer.status_code == status, answer.text
    if status == 422:
        assert reason(answer).startswith("picture 2: ")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b'{"url": "http://localhost/"}', 415),
        ({"content-type": "text/plain"}, png(), 415),
        ({"content-type": "image/png", "content-encoding": "gzip"}, zlib.compress(png(), wbits=31), 415),
        ({"content-type": "multipart/form-data"}, png(), 400),
        ({"content-type": "multipart/form-data; boundary="}, png(), 400),
        ({"content-type": "multipart/form-data; boundary=" + 300 * "x"}, png(), 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"", 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--\r\n", 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\n" + png(), 400),
        (
            {"content-type": "multipart/form-data; boundary=x; charset=idna"},
            b"--x\r\nA: b\r\n\r\n\r\n--x--",
            400,
        ),
        (
            {"content-type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n/etc/passwd\r\n--x--\r\n',
            422,
        ),
        (
            {"content-type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\n\r\n--x--\r\n',
            400,
        ),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x\r\n" + 20_000 * b"A: b\r\n", 400),
    ],
)
def test_kinds_of_bodies_that_are_not_taken(guarded, headers, body, status):
    answer = guarded.client.post("/v1/detect", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    reason(answer)


@pytest.mark.parametrize("kept", ["first", "half", "all but the end"])
def test_a_form_that_is_cut_off_is_not_answered_in_part(guarded, kept):
    files = [("pictures", (f"{k}.png", png(), "image/png")) for k in range(2)]
    whole = guarded.client.build_request("POST", "/v1/detect", files=files)
    body, kind = whole.read(), {"content-type": whole.headers["content-type"]}
    assert guarded.client.post("/v1/detect", content=body, headers=kind).status_code == 200
    second = body.rindex(b"PNG")
    body = {"first": body[: second - 99], "half": body[: second + 99], "all but the end": body[:-5]}[kept]
    answer = guarded.client.post("/v1/detect", content=body, headers=kind)
    assert answer.status_code == 400 and "cut off" in reason(answer)


def test_more_pictures_than_one_request_may_have(guarded):
    answer = guarded.client.post("/v1/detect", files=[("p", (f"{k}", png(), "image/png")) for k in range(4)])
    assert answer.status_code == 413 and "3 pictures" in reason(answer)


QUERIES = {
    422: (
        "threshold=2",
        "threshold=nan",
        "threshold=x",
        "threshold=%00",
        "rule=none",
        "nms=all",
        "nms_iou=-1",
        "vote_iou=2",
        "level=",
        "vocabulary=",
        "vocabulary=,",
        "vocabulary= ",
        "vocabulary=" + "x" * 201,
        "vocabulary=dog," + "x" * 201,
        "vocabulary=" + "&vocabulary=".join(["n1,n2,n3,n4"] * 600),
        "hedge_lambda=inf",
        "max_detections=0",
        "max_detections=100000000000",
        "candidates=2",
        "size=100000",
        "batch=4",
        "source=/etc/passwd",
    ),
    404: (
        "level=-1",
        "vocabulary=no such thing",
        "vocabulary=99999999999999999999999",
        "vocabulary=%ff%fe",
        "vocabulary=dog,../../etc/passwd",
    ),
    409: (
        "rule=vocabulary",
        "rule=level",
        "rule=hedge",
        "accuracy=0.9",
        "vocabulary=cat&level=1",
        "rule=leaf&vocabulary=cat",
        "mapped=true",
        "candidates=0.1&rule=leaf",
        "candidates=0.1&vocabulary=dog",
    ),
}


@pytest.mark.parametrize(("status", "query"), [(s, query) for s, found in QUERIES.items() for query in found])
def test_impossible_options(guarded, status, query):
    answer = guarded.client.post(f"/v1/detect?{query}", content=png())
    assert answer.status_code == status, answer.text
    reason(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing",
        "/static/..%2fapp.py",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/",
        "/docs",
        "//etc/passwd",
    ],
)
def test_nothing_but_what_is_listed_is_given(guarded, path):
    with guarded.connect() as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status, _ = said(link)
    assert status == 404


def said(link: socket.socket) -> tuple[int, str]:
    """Status and body of an answer on a raw connection, however it ends."""
    data = b""
    try:
        while chunk := link.recv(65536):
            data += chunk
    except ConnectionError:
        pass
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body.decode()


HEAD = "POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n"


def send_on(link: socket.socket, part: bytes, pause: float, most: float = 20) -> None:
    """Go on sending until the other side has had enough."""
    until = time.monotonic() + most
    link.settimeout(5)
    try:
        while time.monotonic() < until:
            link.sendall(part)
            time.sleep(pause)
    except OSError:
        return
    raise AssertionError("the server let it be sent for ever")


@pytest.mark.parametrize("part", [b"400\r\n" + bytes(1024) + b"\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"])
def test_an_endless_chunked_body_is_cut_off(guarded, part):
    with guarded.connect() as link:
        link.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        began = time.monotonic()
        send_on(link, part, 0)
        status, body = said(link)
    assert status == 413 and "larger than" in body
    assert time.monotonic() - began < 10


def test_a_body_whose_announced_length_is_too_much_is_not_read(guarded):
    with guarded.connect() as link:
        link.sendall(f"{HEAD}Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n".encode())
        status, body = said(link)
    assert status == 413 and "larger than" in body


def test_a_body_on_a_route_that_has_none_does_not_hold_the_connection(guarded):
    with guarded.connect() as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        send_on(link, b"400\r\n" + bytes(1024) + b"\r\n", 0)
        status, _ = said(link)
    assert status == 200


def test_a_slow_body_is_given_up(hasty):
    with hasty.connect() as link:
        link.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n".encode())
        send_on(link, b"x", 0.1)
        status, body = said(link)
    assert status == 408 and "did not arrive" in body


@pytest.mark.parametrize("start_of_head", [b"", b"POST /v1/det", HEAD.encode()])
def test_a_slow_head_is_given_up(hasty, start_of_head):
    with hasty.connect() as link:
        link.sendall(start_of_head)
        began = time.monotonic()
        status, body = said(link)
    assert status == 408 and "head of the request did not arrive" in json.loads(body)["error"]
    assert 1 < time.monotonic() - began < 8


def test_a_second_head_may_not_be_slow_either(hasty):
    with hasty.connect() as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in link.recv(65536)
        time.sleep(0.2)
        link.sendall(b"GET /he")
        assert said(link)[0] == 408


@pytest.mark.parametrize(
    "head",
    [
        HEAD.encode() + b"Connection: close\r\nX-Long: " + 100_000 * b"x" + b"\r\n\r\n",
        HEAD.encode() + 20_000 * b"X: y\r\n",
        b"GET /" + 100_000 * b"x",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"hello\r\n\r\n",
        HEAD.encode() + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD.encode() + b"Content-Length: -5\r\n\r\n",
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/detect HTTP/1.1\r\n\r\n",
    ],
)
def test_heads_that_are_none(hasty, head):
    with hasty.connect() as link:
        with suppress(OSError):
            link.sendall(head)
        status, body = said(link)
    assert 400 <= status < 500 and len(body.strip().splitlines()) == 1


def test_who_sends_a_head_too_long_and_goes_on_sending_reads_why(guarded):
    """A connection that is closed under what still comes is reset, and the answer is lost with it."""
    with guarded.connect() as link:
        link.sendall(HEAD.encode() + b"X-Long: " + 20_000 * b"x")
        for _ in range(4):
            time.sleep(0.1)
            link.sendall(100_000 * b"x")
        status, body = said(link)
    assert status == 400 and "head of the request is longer than 8,192 bytes" in json.loads(body)["error"]


def test_who_never_stops_sending_after_a_refusal_is_cut_off(guarded):
    with guarded.connect() as link:
        link.sendall(b"hello\r\n\r\n")
        began = time.monotonic()
        send_on(link, 1000 * b"x", 0.05)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("head", ["GET /healthz HTTP/1.1\r\nHost: localhost\r\n", HEAD])
def test_a_broken_body_is_answered_once(guarded, caplog, head):
    with guarded.connect() as link:
        link.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
        status, body = said(link)
    assert status == 400 and json.loads(body)["error"]
    time.sleep(0.2)
    assert not caplog.records


def test_a_head_that_is_not_http_is_told_in_what(guarded):
    with guarded.connect() as link:
        link.sendall(b"POST /v1/detect HTTP/1.1\r\n\r\n")
        status, body = said(link)
    assert status == 400 and "Host" in json.loads(body)["error"]


def test_clients_that_hang_up_leave_nothing(guarded, caplog):
    for k in range(30):
        with guarded.connect() as link:
            link.sendall(f"{HEAD}Content-Length: 5000\r\n\r\n".encode() + bytes(100 * k))
    with guarded.connect() as link:
        link.sendall(f"{HEAD}Content-Length: 5000\r\n\r\n".encode())
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset
    assert guarded.detect(png()).status_code == 200
    assert not caplog.records  # nothing to tell the server's owner


def test_a_picture_that_takes_too_long_costs_its_process_only(start, detector):
    server = start(detector, Limits(decode_seconds=0.05))
    answer = server.detect(encode(picture(0, 7000, 7000), "JPEG", progressive=True))
    assert answer.status_code == 422 and "0.05 s" in reason(answer)
    assert server.detect(png()).status_code == 200  # a new process is given time to start
    assert server.metric("yolo9000_decoder_restarts ") == 1


def test_too_many_bodies_at_once_are_put_off(start, detector):
    server = start(detector, Limits(body_bytes=100_000, held_bytes=150_000))
    with server.connect() as one, server.connect() as other:
        for link in (one, other):
            link.sendall(f"{HEAD}Content-Length: 90000\r\n\r\n".encode() + bytes(80_000))
        link.settimeout(10)
        answers = []
        for link in (one, other):
            link.settimeout(1)
            try:
                answers.append(link.recv(65536))
            except TimeoutError:
                answers.append(b"")
        refused = [answer for answer in answers if answer]
        assert len(refused) == 1 and b" 503 " in refused[0] and b"retry-after: 1" in refused[0]


def test_connections_are_counted(start, detector):
    server = start(detector, Limits(connections=4))
    links = [server.connect() for _ in range(4)]
    time.sleep(0.3)
    try:
        with server.connect() as link:
            assert said(link)[0] == 503
    finally:
        for link in links:
            link.close()
    time.sleep(0.3)
    assert server.detect(png()).status_code == 200


@pytest.mark.parametrize("name", sorted(decoder.SIGNATURES))
def test_the_allow_list_names_what_the_decoder_reads(name):
    form, at, sign = name
    assert decoder.form_of(b"RIFF"[:at] + bytes(max(0, at - 4)) + sign + bytes(20)) == form
    assert decoder.form_of(b"") is None and decoder.form_of(b"\xff\xd8") is None
