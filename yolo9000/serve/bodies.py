"""The body of a request as pictures' bytes, raw or multipart, within limits on size, time and memory.

What the bytes are is decoder.py's. Multipart forms are parsed by python-multipart by way of Starlette."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive, Scope

from yolo9000.serve.limits import Limits, RequestError

# What a raw body may be called. curl --data-binary says it is a form; the bytes tell better.
_RAW = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")


@dataclass
class Held:
    """Bytes of all bodies in memory."""

    bytes: int = 0


class LimitedBody:
    """ASGI's `receive` for one request, which refuses what exceeds a limit while it is read.

    Counts into `held` until `release`. Raises RequestError from `receive`."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, held: Held) -> None:
        self._receive, self._limits, self._held = receive, limits, held
        headers = Headers(scope=scope)
        self.length = _length(headers)
        self.expects = "expect" in headers
        self.unread = bool(self.length) or "transfer-encoding" in headers  # something may still come
        self.got = 0
        self._until = time.monotonic() + limits.body_seconds

    def check_length(self) -> None:
        """Refuse by the header alone what will be too much."""
        if self.length is not None and self.length > self._limits.body_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        if not self.unread:
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            message = await self._receive_late()
        if message["type"] != "http.request":
            self.unread = False
            return message
        size = len(message.get("body", b""))
        self.got += size
        self._held.bytes += size
        self.unread = message.get("more_body", False)
        if self.got > self._limits.body_bytes:
            raise self._too_large()
        if self._held.bytes > self._limits.held_bytes:
            raise RequestError(503, "too much is being uploaded at once; try again", retry=1)
        return message

    async def _receive_late(self) -> Message:
        """What came in time although nobody looked: the server itself may have stood still. Raises
        RequestError for nothing."""
        try:
            async with asyncio.timeout(0):
                return await self._receive()
        except TimeoutError:
            raise RequestError(
                408, f"the request's body did not arrive within {self._limits.body_seconds:g} s"
            ) from None

    async def linger(self, seconds: float) -> None:
        """Throw away what still comes, for so long: a client that is cut off while it sends may never look
        at the answer it was given."""
        if self.expects and not self.got:
            return  # it waits for leave to send, which it was not given
        try:
            async with asyncio.timeout(seconds):
                while self.unread:
                    message = await self._receive()
                    self.unread = message["type"] == "http.request" and message.get("more_body", False)
        except TimeoutError:
            pass

    def release(self) -> None:
        self._held.bytes -= self.got
        self.got = 0

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is larger than the limit of {self._limits.body_bytes:,} bytes")


async def read_pictures(headers: Headers, chunks: AsyncIterator[bytes], limits: Limits) -> list[bytes]:
    """The encoded pictures of a request, at least one. Raises RequestError."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RequestError(415, "a compressed body is not taken; pictures are compressed already")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(headers, chunks, limits)
    if kind and not kind.startswith(_RAW):
        raise RequestError(
            415, "the body is a picture, or multipart/form-data with one or several, not " + kind
        )
    data = b"".join([chunk async for chunk in chunks])
    if not data:
        raise RequestError(400, "the body is empty; send a picture")
    return [data]


class _InMemory(MultiPartParser):
    """Strangers' pictures are not laid on the disk; the limit on bodies bounds the memory."""

    def __init__(self, headers: Headers, chunks: AsyncIterator[bytes], limits: Limits) -> None:
        self.spool_max_size = limits.body_bytes + 1
        # Text fields are read only to say that there must be none.
        super().__init__(headers, chunks, max_files=limits.pictures, max_fields=1, max_part_size=1024)
        self.ended = False

    def on_end(self) -> None:
        self.ended = True


async def _from_form(headers: Headers, chunks: AsyncIterator[bytes], limits: Limits) -> list[bytes]:
    try:
        parser = _InMemory(headers, chunks, limits)
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise RequestError(413, f"more than {limits.pictures} pictures in one request") from None
        raise RequestError(400, f"not a form as multipart/form-data: {error.message}") from None
    except (ValueError, LookupError) as error:  # odd boundaries and character sets
        raise RequestError(400, f"not a form as multipart/form-data: {error}") from None
    try:
        if not parser.ended:
            raise RequestError(400, "the form is cut off: the boundary that ends it is missing")
        pictures = []
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                raise RequestError(422, f"the field {name!r} is text; options belong into the query")
            pictures.append(await value.read())
    finally:
        await form.close()
    if not pictures:
        raise RequestError(400, "the form holds no picture")
    if not all(pictures):
        raise RequestError(400, "one of the form's files is empty")
    return pictures


def _length(headers: Headers) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 20 else None
