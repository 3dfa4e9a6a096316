"""Many pictures through a detector: read ahead, run on all processors, answered in order, a few in memory at
a time. Where pictures come from is images.py's and video.py's, what is done with answers the caller's.

On a CPU each of several lanes, threads that compute with one thread of torch's (with their share of them if
there are fewer batches), carries its pictures all the way from the file to the boxes: nothing waits at the
end of every layer for the slowest of several threads, and while one reads the others compute. On a GPU one
lane runs batches and threads read for it. Decoding and computing let go of Python's lock, so threads do as
well as processes here and copy nothing."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from yolo9000.device import begun, threads_here
from yolo9000.errors import ImageError
from yolo9000.images import as_it_is_now

if TYPE_CHECKING:
    from yolo9000.detections import Detections
    from yolo9000.detector import Detector, Fitted, Picture
    from yolo9000.options import Options

# Pictures that run together: on a CPU two stay within a core's cache and share the many small steps of the
# descent, on a GPU many fill it.
CPU_BATCH, GPU_BATCH = 2, 16

# Threads that read for a GPU; more than so many have no use for one that runs some hundred pictures a second.
_MOST_READERS = 16

# Batches a lane that are begun or waiting, so that none idles while the caller is busy with a result.
_DEPTH = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: `found`, or the `error` that kept it from being read."""

    picture: Any
    found: "Detections | None" = None
    error: ImageError | None = None

    def told(self, on_error: "Callable[[Picture, ImageError], None] | None") -> bool:
        """Whether there is a result; else `on_error` hears of it, or, without one, the error is raised."""
        if self.error is None:
            return True
        if on_error is None:
            raise self.error
        on_error(self.picture, self.error)
        return False


def results(
    detector: "Detector",
    pictures: "Iterable[Picture]",
    options: "Options",
    size: tuple[int, int],
    batch: int | None,
    on_error: "Callable[[Picture, ImageError], None] | None" = None,
) -> "Iterator[Detections]":
    """As `outcomes`, but the `Detections` alone: a picture that cannot be read is told to `on_error` and
    passed over; without it the error is raised, and nothing runs on."""
    found = outcomes(detector, pictures, options, size=size, batch=batch)

    def each() -> "Iterator[Detections]":
        with closing(found):  # an error that someone holds must not hold the lanes
            yield from (outcome.found for outcome in found if outcome.told(on_error))

    return each()


def outcomes(
    detector: "Detector",
    pictures: "Iterable[Picture]",
    options: "Options",
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    lanes: int | None = None,
    depth: int = _DEPTH,
    own: bool = False,
) -> Generator[Outcome, None, None]:
    """One `Outcome` a picture, in the order of `pictures`.

    size: (width, height) of the network's input, by default the detector's. batch: pictures run at a time,
    by default what suits the device. lanes: threads that run the network, by default torch's number of
    threads on a CPU, or fewer for a few batches. depth: batches a lane that are begun before their results
    are taken; `pictures` is asked for no more than these, from the thread that takes the results. own: no
    picture is changed by whoever made it; else each is kept as it is when it is taken, but those of lists.

    Closing the generator, or Ctrl-C, gives up what has not begun and waits for what has. An error that
    `pictures` raises comes after the results of those before it. Raises ValueError for a batch, lanes or
    depth below 1.
    """
    cpu = detector.device.type == "cpu"
    count = len(pictures) if isinstance(pictures, Sized) else None
    if lanes is None:
        threads = threads_here() if cpu else 1
        # With fewer batches than threads the batches share the threads.
        lanes = threads if count is None else max(1, min(-(-count // max(1, batch or 1)), threads))
    if batch is None:
        batch = CPU_BATCH if cpu else GPU_BATCH
        if cpu and count is not None and count < batch * lanes:  # no lane waits while another has several
            batch = 1
    if min(batch, lanes, depth) < 1:
        raise ValueError(f"batch, lanes and depth are at least 1, not {batch}, {lanes} and {depth}")

    own = own or count is not None

    def take(picture: "Picture") -> "Picture | ImageError":
        try:
            return picture if own else as_it_is_now(picture)
        except ImageError as error:
            return error

    def fit(picture: "Picture | ImageError") -> "Fitted | ImageError":
        try:
            return picture if isinstance(picture, ImageError) else detector.fit(picture, size)
        except ImageError as error:
            return error

    def run(chunk: list[Any], read: Callable[[Any], "Fitted | ImageError"]) -> list[Any]:
        fitted = [read(one) for one in chunk]
        good = [one for one in fitted if not isinstance(one, ImageError)]
        answers = iter(detector.answers(good, options) if good else ())
        return [one if isinstance(one, ImageError) else next(answers) for one in fitted]

    taken = ((picture, take(picture)) for picture in pictures)
    return _in_order(taken, fit, run, batch, lanes, lanes * depth, cpu)


def _in_order(
    pictures: "Iterator[tuple[Picture, Any]]",
    fit: Callable[[Any], Any],
    run: Callable[[list[Any], Callable[[Any], Any]], list[Any]],
    batch: int,
    lanes: int,
    most: int,
    cpu: bool,
) -> Generator[Outcome, None, None]:
    """The loop behind `outcomes`. pictures: each with what `fit` takes in its place. most: batches begun
    whose results are not yet taken."""
    waiting: deque[tuple[list[Any], Future[list[Any]]]] = deque()
    failure: Exception | None = None
    with _lanes(lanes, cpu) as pool, _readers(cpu) as readers:
        more = True
        while more or waiting:
            while more and len(waiting) < most:
                try:
                    chunk: list[tuple[Any, Any]] = []
                    chunk.extend(islice(pictures, batch))  # on an error it keeps what came before
                except Exception as error:
                    failure = error
                more = len(chunk) == batch and failure is None
                given, held = [picture for picture, _ in chunk], [kept for _, kept in chunk]
                if chunk and readers is None:
                    waiting.append((given, pool.submit(run, held, fit)))
                elif chunk:
                    reading = [readers.submit(fit, kept) for kept in held]
                    waiting.append((given, pool.submit(run, reading, Future.result)))
                del chunk, held
            if waiting:
                given, future = waiting.popleft()
                for picture, result in zip(given, future.result(), strict=True):
                    failed = isinstance(result, ImageError)
                    yield Outcome(picture, error=result) if failed else Outcome(picture, result)
                del given, future, picture, result  # pixels must not stay while the next is waited for
    if failure is not None:
        raise failure


@contextmanager
def _lanes(count: int, cpu: bool) -> Iterator[ThreadPoolExecutor]:
    """Threads that run the network, on a CPU each with its share of torch's threads, one at least."""
    several = cpu and count > 1
    share = max(1, threads_here() // count)
    with _ending(begun(count, "lane", share) if several else ThreadPoolExecutor(count, "lane")) as pool:
        yield pool


@contextmanager
def _readers(cpu: bool) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that read ahead for a GPU; none for a CPU, whose lanes read for themselves."""
    if cpu:
        yield None
        return
    count = min(_MOST_READERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    with _ending(ThreadPoolExecutor(count, "reading")) as pool:
        yield pool


@contextmanager
def _ending(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """A pool that gives up what has not begun when it is left."""
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Behind:
    """Work on results that runs while the next ones are computed; its own results come in order.

    As a context: leaving it waits for what was begun; what has not begun is given up. workers: threads;
    depth: pieces of work begun or waiting at a time.
    """

    def __init__(self, workers: int = 2, depth: int = 4) -> None:
        self._pool = ThreadPoolExecutor(workers, "behind")
        self._begun: deque[Future[Any]] = deque()
        self._depth = depth

    def put(self, work: Callable[..., Any], *given: Any) -> None:
        """Begin `work(*given)`; `due` must be asked after each."""
        self._begun.append(self._pool.submit(work, *given))

    def due(self, *, rest: bool = False) -> Iterator[Any]:
        """The results, oldest first, that must be waited for before more is begun; rest: all. Raises what
        their work raised."""
        while len(self._begun) > (0 if rest else self._depth):
            yield self._begun.popleft().result()

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
