"""What nobody should send: each is answered with a 4xx and one line of reason, and the server stands."""

import struct
import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from tests.yolo9000.serve.running import SMALL, encode, picture, png, said
from yolo9000.serve import decoder, decoding
from yolo9000.serve.limits import Limits


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
    "too large": (png() + bytes(SMALL.body_bytes), 413),
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


def test_a_picture_that_takes_too_long_costs_its_process_only(start, detector):
    server = start(detector, Limits(decode_seconds=0.05))
    answer = server.detect(encode(picture(0, 7000, 7000), "JPEG", progressive=True))
    assert answer.status_code == 422 and "0.05 s" in reason(answer)
    assert server.detect(png()).status_code == 200  # a new process is given time to start
    assert server.metric("yolo9000_decoder_restarts ") == 1


def test_a_decoder_ended_as_it_answered_does_not_take_the_next_picture(monkeypatch):
    decoders, read, parts = decoding.Decoders(Limits(), 1), decoding._read, []
    process = decoders._all[0]
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr(decoding, "time", clock)  # of this module alone: servers have theirs

    def late(pipe, length):
        data = read(pipe, length)
        parts.append(data)
        if len(parts) == 2:  # head and pixels: the answer is there, and at this moment its time is over
            now = process._until
            clock.monotonic = lambda: now
            process.end_if_late()
        return data

    monkeypatch.setattr(decoding, "_read", late)
    process.start()
    kill = process._process.kill
    process._process.kill = lambda: threading.Timer(0.2, kill).start()  # dying takes its time
    try:
        assert decoders._run(png(), lambda pixels, size: size) == (90, 60)
        assert not process.alive  # not found by the next picture
        assert decoders._run(png(), lambda pixels, size: size) == (90, 60)
    finally:
        decoders.close()
    assert (len(parts), decoders.restarts) == (4, 1)


@pytest.mark.parametrize("name", sorted(decoder.SIGNATURES))
def test_the_allow_list_names_what_the_decoder_reads(name):
    form, at, sign = name
    assert decoder.form_of(b"RIFF"[:at] + bytes(max(0, at - 4)) + sign + bytes(20)) == form
    assert decoder.form_of(b"") is None and decoder.form_of(b"\xff\xd8") is None
