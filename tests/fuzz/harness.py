"""The fuzzer itself: runs cases of a reader in a child process under limits of time and memory, and starts
another where one dies. `python -m tests.fuzz.harness READER SEED FIRST COUNT` is the child.

Not here: what a case is (reader.py), and the command line (scripts/fuzz).
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.reader import Reader, case, outcome

ROOT = Path(__file__).resolve().parents[2]

# The modules that hold readers, imported when one of theirs is asked for: some import torch, some a server.
MODULES = {
    "trees": ("tree", "names", "map", "tree-json", "nested", "table", "graphml"),
    "networks": ("cfg", "weights", "model"),
    "annotations": ("coco", "lvis", "voc", "cvat", "openimages", "yolo", "darknet-list"),
    "classnames": ("class-names",),
    "stores": ("store",),
    "photos": ("picture", "inspect"),
    "requests": ("request",),
}
NAMES = tuple(name for names in MODULES.values() for name in names)

# A child has to import torch and start a server before its first case, perhaps on a busy machine.
_START_SECONDS = 180.0

# Of resident memory, more than any of the tiny files here is worth: its growth in one case is a finding.
_GROWTH = 256 << 20


@dataclass(frozen=True)
class Finding:
    """A case that ended as none should. kind: crash, hang, memory or misread."""

    reader: str
    seed: int
    case: int
    kind: str
    detail: str


@dataclass
class Summary:
    """What became of the cases of one reader."""

    reader: str
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def to_dict(self) -> dict:
        return asdict(self)


def find_reader(name: str) -> Reader:
    module = next((module for module, names in MODULES.items() if name in names), None)
    if module is None:
        raise ValueError(f"no reader {name!r}; there are {', '.join(NAMES)}")
    readers = importlib.import_module(f"tests.fuzz.{module}").READERS
    return next(reader for reader in readers if reader.name == name)


def fuzz(
    name: str,
    seed: int,
    count: int,
    *,
    first: int = 0,
    seconds: float = 10.0,
    memory: int = 1 << 30,
    summary: Summary | None = None,
    module: str | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> Summary:
    """Run cases `first` to `first + count` of a reader.

    seconds: for one case; the child that takes longer is ended. memory: bytes of address space that a child
    may take beside what it has after starting. summary: filled as cases end, so that an interrupted caller
    has it. module: holds READERS, for readers that are not in MODULES. told: called with the number of cases
    done.
    """
    summary = summary or Summary(name)
    position, end = first, first + count
    started = time.monotonic()
    while position < end:
        arguments = [sys.executable, "-m", "tests.fuzz.harness", name, str(seed), str(position)]
        arguments += [str(end - position), str(memory), *([module] if module else [])]
        child = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            position = _follow(child, summary, seed, position, seconds, told)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            summary.seconds = time.monotonic() - started
        if position is None:
            break
    return summary


def _follow(
    child: subprocess.Popen, summary: Summary, seed: int, position: int, seconds: float, told: Callable
) -> int | None:
    """Reads what a child reports; returns the case to go on with."""
    reports = _lines(child, seconds)
    if next(reports, None) is None:
        raise RuntimeError(f"the reader {summary.reader} does not start: run scripts/fuzz with --case 0")
    for line in reports:
        if line is None:
            summary.cases += 1
            summary.findings.append(Finding(summary.reader, seed, position, "hang", f"over {seconds:g} s"))
            return position + 1
        if line.get("end"):
            return position
        summary.cases += 1
        kind = line["outcome"]
        if kind in ("accepted", "refused"):
            setattr(summary, kind, getattr(summary, kind) + 1)
        else:
            summary.findings.append(Finding(summary.reader, seed, line["case"], kind, line["detail"]))
        summary.slowest = max(summary.slowest, line["seconds"])
        position = line["case"] + 1
        told(summary.cases)
    status = child.wait()
    summary.cases += 1
    summary.findings.append(Finding(summary.reader, seed, position, "crash", f"the process ended ({status})"))
    return position + 1


def _lines(child: subprocess.Popen, seconds: float) -> Iterator[dict | None]:
    """The child's reports, the first once it has started; None where none came in time."""
    limit = _START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        waiting = b""
        while True:
            if not selector.select(limit):
                yield None
                return
            piece = os.read(child.stdout.fileno(), 1 << 16)
            if not piece:
                return
            *whole, waiting = (waiting + piece).split(b"\n")
            for line in whole:
                limit = seconds
                yield json.loads(line)


def _limit_memory(more: int) -> None:
    with suppress(ImportError, OSError, ValueError):  # not on Windows, and not everywhere else
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _peak() -> int:
    """Bytes of resident memory at the highest so far; 0 where that cannot be known."""
    # Linux gives getrusage's figure on to children, and a parent may have held more than they ever will.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10  # kB
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def _child(name: str, seed: int, first: int, count: int, memory: int, module: str | None) -> None:
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not get among the reports

    def report(**facts: object) -> None:
        sink.write(json.dumps(facts).encode() + b"\n")

    readers = importlib.import_module(module).READERS if module else (find_reader(name),)
    reader = next(r for r in readers if r.name == name)
    seeds = reader.seeds()
    with TemporaryDirectory() as folder, reader.open(Path(folder)) as check:
        for data in seeds:
            check(data)
        report(ready=True)
        _limit_memory(memory)
        for number in range(first, first + count):
            data, before, peak = case(reader, seeds, seed, number), time.monotonic(), _peak()
            kind, detail = outcome(reader, check, data)
            if _peak() - peak > _GROWTH:
                kind, detail = "memory", f"{_peak() - peak >> 20} MiB for {len(data)} bytes ({kind})"
            report(case=number, outcome=kind, detail=detail[:500], seconds=time.monotonic() - before)
    report(end=True)


def by_kind(findings: list[Finding]) -> Counter:
    return Counter(finding.kind for finding in findings)


if __name__ == "__main__":
    given = sys.argv[1:]
    _child(given[0], *map(int, given[1:5]), given[5] if len(given) > 5 else None)
