"""What is checked of every request before anything else sees it, and what is said with every answer: hosts,
origins, the token, limits on the body, headers of security, counts.

An ASGI middleware around the whole application. Which limits there are is limits.py's."""

import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yolo9000.serve.bodies import Held, LimitedBody
from yolo9000.serve.limits import LINGER, Limits, RequestError
from yolo9000.serve.memory import Idle
from yolo9000.serve.metrics import Metrics

# Nothing is loaded but from this server, and nothing inline runs: a name that became markup could do nothing.
# blob: and data: are the picture that the user chose, shown to the user.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}

FAULT = "a fault of the server; its log says more"

_log = logging.getLogger(__name__)

# What any process may ask without a token: whether the server stands, and the pages, which hold no data.
_OPEN = ("/", "/tree", "/healthz", "/readyz", "/openapi.json")
_OPEN_FOLDER = "/static/"

_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Access:
    """Who is let in. token: asked of all but the open routes, None for no token; hosts: names by which the
    server may be called, None for any."""

    token: str | None = None
    hosts: tuple[str, ...] | None = _LOCAL

    @classmethod
    def for_host(cls, host: str, token: str | None, more: Collection[str] = ()) -> "Access":
        """For a server bound to `host`: on the machine itself by its local names only, so that a web page
        from elsewhere whose name was pointed here cannot ask; else by any name, unless some are given."""
        names = tuple(name.lower().strip("[]") for name in more)
        if names:
            return cls(token, (*names, *_LOCAL))
        return cls(token, _LOCAL if is_local(host) else None)


class Guard:
    """The application behind its checks."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics, held: Held) -> None:
        self.app, self.access, self.limits, self.metrics, self.held = app, access, limits, metrics, held
        self.idle = Idle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # start and end of the server
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        body = LimitedBody(scope, receive, self.limits, self.held)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if body.unread:
                    headers["connection"] = "close"
                await send(message)
            elif body.unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.linger(LINGER)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        try:
            try:
                self._check(scope, body)
            except RequestError as refused:
                await refuse(refused, answer)
            else:
                await self.app(scope, body.receive, answer)
        except Exception:  # uvicorn would cut the connection under an answer that was given already
            _log.exception("a request failed")
            if not status:
                await refuse(RequestError(500, FAULT), answer)
        finally:
            body.release()
            if scope["method"] == "POST":  # others take little, and probes ask for ever
                self.idle.touch()
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.add(route, str(status))
            self.metrics.request_seconds.observe(time.perf_counter() - began)

    def _check(self, scope: Scope, body: LimitedBody) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "").lower()
        if self.access.hosts is not None and _name(host) not in self.access.hosts:
            raise RequestError(421, "this server does not go by that name; see --allow-host")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise RequestError(403, "a page of another site may not ask this server")
        if self.access.token is not None and path not in _OPEN and not path.startswith(_OPEN_FOLDER):
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.access.token}".encode()):
                raise RequestError(401, "a token is wanted: Authorization: Bearer ...")
        body.check_length()


async def refuse(refused: RequestError, send: Send) -> None:
    """Answer a refusal as JSON: {"error": one line}."""
    body = json.dumps({"error": refused.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in extra_headers(refused).items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def extra_headers(refused: RequestError) -> dict[str, str]:
    """Headers that go with a refusal."""
    headers = {}
    if refused.retry is not None:
        headers["retry-after"] = str(refused.retry)
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


def is_local(host: str) -> bool:
    """Whether only this machine can reach what is bound to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name in a Host header: without port and brackets, lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
