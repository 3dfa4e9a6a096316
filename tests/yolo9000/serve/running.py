"""A server in a thread of the test, on a port of its own; and pictures to send."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import uvicorn
from PIL import Image

from yolo9000 import Detector
from yolo9000.serve import server
from yolo9000.serve.app import make_app
from yolo9000.serve.guard import Access
from yolo9000.serve.limits import Limits

# A server's of little room.
SMALL = Limits(body_bytes=300_000, head_bytes=8192, pixels=2_000_000, pictures=3)

# How a raw request begins.
HEAD = "POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n"


@dataclass
class Running:
    """A server that answers. host, port: of its socket; client: of httpx, its base the server."""

    host: str
    port: int
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self, seconds: float = 20) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=seconds)

    def detect(self, data: bytes, **query) -> httpx.Response:
        return self.client.post("/v1/detect", content=data, params=query)

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextmanager
def running(
    detector: Detector,
    limits: Limits | None = None,
    access: Access | None = None,
    decoders: int = 1,
    lanes: int | None = None,
) -> Iterator[Running]:
    limits = limits or Limits()
    app = make_app(detector, "a-model", limits=limits, access=access, decoders=decoders, lanes=lanes)
    bound = server.bind("127.0.0.1", 0)
    host, port = bound.getsockname()
    main = uvicorn.Server(server.config(app, limits))
    thread = threading.Thread(target=main.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        until = time.monotonic() + 60
        while not main.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        assert main.started, "the server did not start"
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
            yield Running(host, port, client)
    finally:
        main.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


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


def picture(seed: int = 0, width: int = 90, height: int = 60) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def png(seed: int = 0, width: int = 90, height: int = 60) -> bytes:
    return encode(picture(seed, width, height))
