"""The application on a socket: uvicorn, with limits of time and number on connections, and an end that lets
what was begun be answered.

Limits within a request are bodies.py's and guard.py's."""

import json
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from yolo9000.errors import ModelError
from yolo9000.serve.limits import LINGER, Limits, one_line

# Connections beyond the limit that may be open because they were refused: with the 512 that are the default's
# limit far from the 1,024 open files that systems allow.
_MOST_LINGERING = 64


def protocol_with(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol, which by itself waits for ever for the head of a first request."""
    refused: set[H11Protocol] = set()  # what they still send is thrown away

    class Protocol(H11Protocol):
        _late = None  # the timer of a head that is being waited for

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._end(503, "too many connections; try again", [(b"retry-after", b"1")])
            else:
                self._watch()

        def connection_lost(self, exc) -> None:
            self._unwatch()
            refused.discard(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self not in refused:
                super().data_received(data)
                self._watch()

        def send_400_response(self, msg: str) -> None:
            reason = sys.exception()  # uvicorn calls this while it handles what h11 found, and tells less
            if getattr(reason, "error_status_hint", None) == 431:
                reason = f"the head of the request is longer than {limits.head_bytes:,} bytes"
            self._end(400, one_line(str(reason or msg)))

        def _watch(self) -> None:
            if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
                self._unwatch()
            elif self._late is None:
                self._late = self.loop.call_later(limits.head_seconds, self._too_late)

        def _unwatch(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _too_late(self) -> None:
            self._late = None
            if self.conn.their_state is h11.IDLE:
                reason = f"the head of the request did not arrive within {limits.head_seconds:g} s"
                self._end(408, reason)

        def _end(self, status: int, reason: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
            """Say why, where nothing was said yet, and close the connection after the client, which is given
            a while for it; at once where it has an answer, or where too many are given that while."""
            self._unwatch()
            linger = len(refused - self.connections) < min(limits.connections, _MOST_LINGERING)
            refused.add(self)
            body = json.dumps({"error": reason}).encode()
            head = [(b"content-type", b"application/json"), (b"connection", b"close")]
            head += [(b"content-length", str(len(body)).encode()), *(headers or [])]
            answer = h11.Response(status_code=status, headers=head, reason=STATUS_PHRASES[status])
            try:
                for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event))
            except h11.LocalProtocolError:  # an answer is on its way
                linger = False
            if not self.transport.get_write_buffer_size():
                self.connections.discard(self)  # takes no other's place; who does not read keeps its own
            if self.cycle is not None:  # a request whose body broke: nothing more can be said to it
                self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
                self.cycle.message_event.set()
            if linger:
                self.flow.resume_reading()
                with suppress(OSError):  # the client has gone
                    self.transport.write_eof()
                self.loop.call_later(LINGER, self.transport.close)
            else:
                self.transport.close()

    return Protocol


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ModelError where the system refuses."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{host}:{port}: the server cannot listen there ({reason})") from error


def address(bound: socket.socket) -> str:
    """What a browser is told to reach it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """uvicorn's settings for the application."""
    return uvicorn.Config(
        app,
        http=protocol_with(limits),
        ws="none",
        lifespan="on",
        loop="asyncio",
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,  # a client could claim to be anybody
        h11_max_incomplete_event_size=limits.head_bytes,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=limits.drain_seconds,
    )


def run(app: ASGIApp, bound: socket.socket, limits: Limits, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; then nothing new is let in, what was begun is answered (for
    `drain_seconds` at most), and this returns. started: called when requests are answered."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

    with _signals_end_quietly():
        Server(config(app, limits)).run(sockets=[bound])


@contextmanager
def _signals_end_quietly():
    """uvicorn raises the signals that ended it once more when it is done; an orderly end is no failure."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
