#!/usr/bin/env python3
"""Load and faults on `yolo9000 serve`: many uploads from many clients at once, one in four of them bad.

Starts a server on 127.0.0.1, compares every good answer with `yolo9000 detect` on the same picture, expects a
4xx with one line of reason for every bad request (nothing, for clients that hang up), reads the server's
memory before and after, and sets the throughput of good uploads beside the plain batched detector. Ends by
itself; the exit status is 1 if an answer was wrong or a request unanswered.
"""

import argparse
import gzip
import http.client
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

BODY_SECONDS = 3.0  # the server's patience with slow senders; ours must be longer
PATIENCE = 120.0  # seconds for any answer; a server that needs longer has failed
CLOSE = 3e-5  # answers are rounded to 1e-5, and a picture in a batch is added up in another order
CLOSE_PIXELS = 0.05


@dataclass
class Report:
    """What came back. wrong: lines that should not be there."""

    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, kind: str, status: int | None, wrong: str | None = None) -> None:
        with self.lock:
            self.statuses[kind, status] += 1
            if wrong:
                self.wrong.append(f"{kind}: {wrong}")


def synthetic(count: int, seed: int = 0) -> list[bytes]:
    """JPEGs of coarse coloured noise, 640 x 480."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def photographs(folder: Path | None, count: int) -> list[bytes]:
    if folder is None:
        return synthetic(count)
    from yolo9000.folders import find_images

    files, _ = find_images([folder])
    taken = [data for path in files[: 20 * count] if (data := path.read_bytes())[:2] == b"\xff\xd8"][:count]
    if not taken:
        sys.exit(f"error: {folder}: no JPEGs there")
    return taken


@contextmanager
def server(*words: str):
    """(process, host, port) of a server that answers; ended by SIGTERM, which must be clean."""
    command = [sys.executable, "-m", "yolo9000", "serve", "--port", "0", "--body-seconds", str(BODY_SECONDS)]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
        if address is None:
            raise RuntimeError("the server did not start")
        yield process, address[1], int(address[2])
    finally:
        process.terminate()
        if process.wait(60):
            raise RuntimeError(f"the server ended with status {process.returncode}")


def family(pid: int) -> list[Path]:
    """The folders in /proc of a process and of those it started; none where there is no /proc."""
    below = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [pid, *(int(child) for part in below for child in part.read_text().split())]
    return [folder for one in pids if (folder := Path(f"/proc/{one}")).is_dir()]


def memory(pid: int) -> float:
    """MiB resident in a process and those it started; 0 where /proc does not tell."""
    pages = sum(int((folder / "statm").read_text().split()[1]) for folder in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def worked(pid: int) -> float:
    """Seconds of processors that a process and those it started have used; 0 where /proc does not tell."""
    parts = [(folder / "stat").read_text().rpartition(")")[2].split() for folder in family(pid)]
    return sum(int(part[11]) + int(part[12]) for part in parts) / os.sysconf("SC_CLK_TCK")  # user, system


def by_command_line(pictures: list[bytes], words: tuple[str, ...]) -> list[dict]:
    """What `yolo9000 detect --json` says of the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        for k, data in enumerate(pictures):
            (Path(folder) / f"{k:04d}.jpg").write_bytes(data)
        command = [sys.executable, "-m", "yolo9000", "detect", folder, "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["pictures"]


def differs(found: dict, wanted: dict) -> str | None:
    """In what an answer differs from the command line's, None for nothing."""
    if (found["width"], found["height"]) != (wanted["width"], wanted["height"]):
        return "another size"
    if len(found["detections"]) != len(wanted["detections"]):
        return f"{len(found['detections'])} objects, not {len(wanted['detections'])}"

    def place(one: dict) -> tuple:
        return one["node"], [round(value) for value in one["box_xyxy"]]

    pairs = zip(*(sorted(one["detections"], key=place) for one in (found, wanted)), strict=True)
    for one, other in pairs:
        if one["path"] != other["path"]:
            return f"{one['name']}, not {other['name']}"
        if max(abs(a - b) for a, b in zip(one["box_xyxy"], other["box_xyxy"], strict=True)) > CLOSE_PIXELS:
            return "another box"
        if max(abs(one[key] - other[key]) for key in ("score", "objectness", "probability")) > CLOSE:
            return f"score {one['score']}, not {other['score']}"
    return None


# Bad requests: each a function of (socket, a good picture) that sends, and how it must be answered.


def head(length: int | None, *more: str, kind: str = "image/jpeg") -> bytes:
    lines = ["POST /v1/detect HTTP/1.1", "Host: localhost", "Connection: close", *more]
    lines.append(f"Content-Type: {kind}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels, which would be 10 GB."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b"")):
        parts += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return parts


def plain(body: bytes, *more: str, kind: str = "image/jpeg") -> Callable[[socket.socket, bytes], None]:
    return lambda link, picture: link.sendall(head(len(body), *more, kind=kind) + body)


def endless(link: socket.socket, picture: bytes) -> None:
    link.sendall(head(None, "Transfer-Encoding: chunked"))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        link.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def slow(link: socket.socket, picture: bytes) -> None:
    link.sendall(head(len(picture)))
    for byte in picture:
        link.sendall(bytes([byte]))
        time.sleep(0.05)


def hang_up(link: socket.socket, picture: bytes) -> None:
    link.sendall(head(len(picture)) + picture[: random.randrange(len(picture))])
    link.close()


def hang_up_answered(link: socket.socket, picture: bytes) -> None:
    link.sendall(head(len(picture)) + picture)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset
    link.close()


def half(link: socket.socket, picture: bytes) -> None:
    body = picture[: len(picture) // 2]
    link.sendall(head(len(body)) + body)


FORM = "multipart/form-data; boundary=x"
BAD: dict[str, tuple[Callable[[socket.socket, bytes], None], int | None]] = {
    "bomb": (plain(bomb(), kind="image/png"), 413),
    "endless chunks": (endless, 413),
    "slow sender": (slow, 408),
    "half a JPEG": (half, 422),
    "gzip body": (plain(gzip.compress(b"x" * 1000), "Content-Encoding: gzip"), 415),
    "gzip as picture": (plain(gzip.compress(b"x" * 1000)), 415),
    "huge header": (lambda link, _: link.sendall(head(0, "X-Long: " + "x" * 1_000_000)), 400),
    "wrong type": (plain(b'{"url": "http://localhost/"}', kind="application/json"), 415),
    "text as picture": (plain(b"/etc/passwd"), 415),
    "form of nothing": (plain(b"--x\r\nrubbish", kind=FORM), 400),
    "empty": (plain(b""), 400),
    "announced too long": (lambda link, _: link.sendall(head(10**10)), 413),
    "hangs up while sending": (hang_up, None),
    "hangs up while waiting": (hang_up_answered, None),
}


def bad(host: str, port: int, kind: str, picture: bytes, report: Report) -> None:
    send, expected = BAD[kind]
    data = b""
    with socket.create_connection((host, port), timeout=PATIENCE) as link:
        with suppress(ConnectionError, TimeoutError):  # the server has said enough
            send(link, picture)
        if expected is None:
            report.note(kind, None)
            return
        with suppress(ConnectionError):
            while chunk := link.recv(65536):
                data += chunk
    found, _, body = data.partition(b"\r\n\r\n")
    parts = found.split(b" ", 2)
    status = int(parts[1]) if len(parts) > 1 else None
    reason = body.decode("utf-8", "replace").strip()
    wrong = (
        None
        if status == expected and reason and len(reason.splitlines()) == 1
        else f"{status}: {reason[:200]!r}"
    )
    report.note(kind, status, wrong)


def load(
    host: str,
    port: int,
    pictures: list[bytes],
    wanted: list[dict],
    uploads: int,
    clients: int,
    bad_share: int,
) -> Report:
    """`uploads` requests from `clients` threads; every `bad_share`-th is bad, none if 0. Good answers are
    compared when the last has come: what that takes of the processors is not the server's."""
    report, numbers = Report(), iter(range(uploads))
    answers: list[tuple[int, int, bytes]] = []  # picture, status, body
    kinds = list(BAD)
    lock = threading.Lock()

    def client() -> None:
        link = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        while True:
            with lock:
                k = next(numbers, None)
            if k is None:
                link.close()
                return
            which = k % len(pictures)
            try:
                if bad_share and k % bad_share == 0:
                    bad(host, port, kinds[k // bad_share % len(kinds)], pictures[which], report)
                    continue
                for _ in range(20):
                    with suppress(ConnectionError):  # kept alive too long: a new connection
                        link.request("POST", "/v1/detect", pictures[which], {"Content-Type": "image/jpeg"})
                        answer = link.getresponse()
                        body = answer.read()
                        if answer.status != 503:
                            break
                        report.note("good, put off", 503)
                        time.sleep(float(answer.headers["Retry-After"]))
                    link.close()
                answers.append((which, answer.status, body))
            except Exception as error:
                report.note("good" if not bad_share or k % bad_share else "bad", None, f"{error!r}")
                link.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.seconds = time.perf_counter() - began
    for which, status, body in answers:
        record = json.loads(body)
        wrong = differs(record["pictures"][0], wanted[which]) if status == 200 else record.get("error")
        report.note("good", status, wrong)
    return report


_PLAIN = """
import sys, time, pickle
from yolo9000 import Detector
pictures, uploads, model = pickle.load(sys.stdin.buffer)
detector = Detector.load(model)
detector(pictures[:8])
began, worked = time.perf_counter(), time.process_time()
for first in range(0, uploads, 64):  # results hold on to their pictures: not all at a time
    detector([pictures[k % len(pictures)] for k in range(first, min(first + 64, uploads))])
print(time.perf_counter() - began, time.process_time() - worked)
"""


def plain_batched(pictures: list[bytes], uploads: int, model: str | None) -> tuple[float, float]:
    """Seconds, and seconds of processors, of the plain detector on lists of 64, in a process of its own."""
    import pickle

    given = pickle.dumps((pictures, uploads, model))
    done = subprocess.run([sys.executable, "-c", _PLAIN], input=given, capture_output=True, check=True)
    return tuple(map(float, done.stdout.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Example: scripts/bench_serve.py --json")
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pictures", type=Path, help="A folder with JPEGs.  [default: 24 made of noise]")
    parser.add_argument("--model", help="A model file.  [default: the one in the package]")
    parser.add_argument("--compared", type=int, help="Good uploads for throughput.  [default: --uploads]")
    parser.add_argument("--rounds", type=int, default=3, help="Of the comparison; the best counts.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    words = ("--model", given.model) if given.model else ()
    pictures = photographs(given.pictures, 24)
    wanted = by_command_line(pictures, words)
    many, compared = given.uploads, given.compared or given.uploads
    alone, served = [], []
    with server(*words) as (process, host, port):
        fresh = memory(process.pid)
        load(host, port, pictures, wanted, 128, given.clients, 0)  # warm: threads and buffers are there
        time.sleep(BODY_SECONDS + 3)  # what is free is given back when the server has nothing to do
        before = memory(process.pid)
        mixed = load(host, port, pictures, wanted, many, given.clients, 4)
        time.sleep(BODY_SECONDS + 3)  # until the last that hung up is forgotten
        after_first = memory(process.pid)
        again = load(host, port, pictures, wanted, many, given.clients, 4)
        time.sleep(BODY_SECONDS + 3)
        after = memory(process.pid)
        for _ in range(given.rounds):
            alone.append(plain_batched(pictures, compared, given.model))
            began = worked(process.pid)
            good = load(host, port, pictures, wanted, compared, given.clients, 0)
            served.append((good.seconds, worked(process.pid) - began))
            mixed.wrong += good.wrong
    wrong = mixed.wrong + again.wrong
    # The best of each: what else the machine does only ever takes time away.
    (alone_wall, alone_work), (served_wall, served_work) = (
        map(min, zip(*t, strict=True)) for t in (alone, served)
    )
    if given.json:
        statuses = {f"{kind}: {status}": n for (kind, status), n in sorted(mixed.statuses.items(), key=str)}
        figures = {
            "uploads": many,
            "clients": given.clients,
            "statuses": statuses,
            "wrong": wrong,
            "mixed_seconds": mixed.seconds,
            "memory_fresh_mib": fresh,
            "memory_mib": [before, after_first, after],
            "plain_pictures_per_second": compared / alone_wall,
            "served_pictures_per_second": compared / served_wall,
            "share": alone_wall / served_wall,
            "plain_processor_ms_per_picture": 1000 * alone_work / compared,
            "served_processor_ms_per_picture": 1000 * served_work / compared,
            "processor_share": alone_work / served_work,
            "load_of_the_machine": os.getloadavg(),
        }
        print(json.dumps(figures, indent=2))
    else:
        print(f"{many} uploads from {given.clients} clients, one in four bad: {mixed.seconds:.1f} s")
        for (kind, status), n in sorted(mixed.statuses.items(), key=str):
            print(f"  {kind:<26} {status if status else '-':>4} {n:6}")
        print(f"wrong answers              {len(wrong):11}")
        print(f"memory before, after, after as many again  {before:.0f}, {after_first:.0f}, {after:.0f} MiB")
        print(f"memory of a server that has seen nothing   {fresh:.0f} MiB")
        rows = ("plain batched", alone_wall, alone_work), ("served, good uploads", served_wall, served_work)
        for name, wall, work in rows:
            print(
                f"{name:<26} {compared / wall:8.1f} pictures/s {1000 * work / compared:8.1f} ms of processors"
            )
        shares = 100 * alone_wall / served_wall, 100 * alone_work / served_work
        print(f"share                      {shares[0]:7.0f}% {shares[1]:19.0f}%")
        print(f"load of the machine        {os.getloadavg()[0]:8.1f} on {os.cpu_count()} processors")
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
