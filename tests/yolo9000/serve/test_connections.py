"""Connections as no good client uses them: slow, endless, broken off, too many. Each is told why, and the
server stands."""

import asyncio
import json
import select
import socket
import struct
import time
from contextlib import ExitStack, suppress
from unittest.mock import Mock

import pytest
from uvicorn.server import ServerState

from tests.yolo9000.serve.running import HEAD, png, said
from yolo9000.serve import server as module
from yolo9000.serve.bodies import Held, LimitedBody
from yolo9000.serve.limits import Limits, RequestError


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
    began = time.monotonic()
    with hasty.connect() as link:
        link.sendall(start_of_head)
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


@pytest.fixture
def patient(monkeypatch):
    """Who was refused is given all the time there is: this process may stand still for seconds."""
    monkeypatch.setattr(module, "LINGER", 600.0)


@pytest.mark.usefixtures("patient")
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
        send_on(link, 1000 * b"x", 0.05)


@pytest.mark.parametrize(
    "head", ["GET /healthz HTTP/1.1\r\nHost: localhost\r\n", HEAD, HEAD + "Expect: 100-continue\r\n"]
)
def test_a_broken_body_is_answered_once(guarded, caplog, head):
    with guarded.connect() as link:
        link.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
        status, body = said(link)
    assert status == 400 and json.loads(body)["error"]
    time.sleep(0.2)
    assert not caplog.records


@pytest.mark.usefixtures("patient")
def test_what_comes_behind_a_broken_body_is_read(guarded):
    """Also where reading paused: the chunk before the broken one is as long as uvicorn keeps."""
    chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
    with guarded.connect() as link:
        link.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"zz\r\n")
        link.sendall(bytes(20_000_000))
        assert said(link)[0] == 400


def test_a_body_that_came_while_the_server_stood_still_came_in_time():
    async def scenario():
        coming = asyncio.Queue()
        scope = {"type": "http", "headers": [(b"content-length", b"3")]}
        body = LimitedBody(scope, coming.get, Limits(body_seconds=0.2), Held())
        asyncio.get_running_loop().call_soon(time.sleep, 0.4)
        asyncio.get_running_loop().call_later(
            0.1, coming.put_nowait, {"type": "http.request", "body": b"abc"}
        )
        assert (await body.receive())["body"] == b"abc"
        body = LimitedBody(scope, coming.get, Limits(body_seconds=0.2), Held())
        with pytest.raises(RequestError, match="did not arrive"):
            await body.receive()

    asyncio.run(scenario())


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


def test_too_many_bodies_at_once_are_put_off(start, detector):
    server = start(detector, Limits(body_bytes=100_000, held_bytes=150_000))
    with server.connect() as one, server.connect() as other:
        for link in (one, other):
            link.sendall(f"{HEAD}Content-Length: 90000\r\n\r\n".encode() + bytes(80_000))
        told, _, _ = select.select((one, other), (), (), 20)
        assert len(told) == 1
        answer = told[0].recv(65536)
        assert b" 503 " in answer and b"retry-after: 1" in answer


def refused(unsent: int, times: int) -> tuple[int, int]:
    """How many of so many refused connections keep their place, and how many are closed by half only. unsent:
    bytes of earlier answers that each client has not read."""

    async def scenario():
        settings = module.config(None, Limits(connections=100))
        settings.load()
        state, links = ServerState(), []
        for _ in range(times):
            link = Mock(**{"is_closing.return_value": False, "get_write_buffer_size.return_value": unsent})
            link.get_extra_info.return_value = None
            protocol = settings.http_protocol_class(settings, state, {}, asyncio.get_running_loop())
            protocol.connection_made(link)
            protocol.data_received(b"hello\r\n\r\n")
            links.append(link)
        return len(state.connections), sum(link.write_eof.called for link in links)

    return asyncio.run(scenario())


def test_who_does_not_read_answers_keeps_its_place_when_refused():
    """Else it would hold a connection that nobody counts, and the next one would be let in beside it."""
    assert refused(unsent=1, times=10) == (10, 10)
    assert refused(unsent=0, times=10) == (0, 10)


def test_refused_connections_take_few_of_the_files_that_a_system_allows():
    assert refused(unsent=0, times=90) == (0, 64)


@pytest.mark.usefixtures("patient")
def test_connections_are_counted(start, detector):
    server = start(detector, Limits(connections=4))
    links = [server.connect() for _ in range(4)]
    time.sleep(0.3)
    try:
        with server.connect() as link:
            assert said(link)[0] == 503
        with server.connect() as link:  # who sends a request without looking reads it, too
            time.sleep(0.3)
            for _ in range(3):
                link.sendall(HEAD.encode() + bytes(50_000))
                time.sleep(0.1)
            assert said(link)[0] == 503
    finally:
        for link in links:
            link.close()
    time.sleep(0.3)
    assert server.detect(png()).status_code == 200


@pytest.mark.usefixtures("patient")
def test_refused_connections_take_no_other_place_and_are_not_kept_without_end(start, detector):
    server = start(detector, Limits(connections=2))
    with ExitStack() as stack:
        open_still = []
        for _ in range(6):
            link = stack.enter_context(server.connect())
            link.sendall(b"hello\r\n\r\n")
            assert said(link)[0] == 400
            with suppress(OSError):  # where the connection is closed, and not half of it, the second fails
                link.sendall(b"x")
                time.sleep(0.1)
                link.sendall(b"x")
                open_still.append(link)
        assert len(open_still) == 2
        assert server.detect(png()).status_code == 200
