"""Pictures that arrive together go through the network together, and no more wait than the queue holds.

While batches run, the next gathers; nothing waits for company. On a CPU there is a lane for each of torch's
threads, as in pipeline.py, which says why; on a GPU one. What is computed is answers.py's."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from yolo9000.device import begun, threads_here
from yolo9000.pipeline import CPU_BATCH, GPU_BATCH
from yolo9000.serve.answers import Answerer, Question
from yolo9000.serve.limits import Limits, RequestError
from yolo9000.serve.metrics import Metrics


class Batcher:
    """The threads that run the network, and the queue before them. lanes: how many, by default what suits
    the device."""

    def __init__(
        self, answerer: Answerer, limits: Limits, metrics: Metrics, lanes: int | None = None
    ) -> None:
        self.answerer, self.limits, self.metrics = answerer, limits, metrics
        cpu = answerer.detector.device.type == "cpu"
        self._lanes = lanes or (threads_here() if cpu else 1)
        self._most = limits.batch or (CPU_BATCH if cpu else GPU_BATCH)
        self.inside = 0  # pictures admitted and not yet answered
        self._waiting: asyncio.Queue[tuple[Question, asyncio.Future]] = asyncio.Queue()
        several = cpu and self._lanes > 1
        self._threads = (
            begun(self._lanes, "network", 1) if several else ThreadPoolExecutor(self._lanes, "network")
        )
        self._thread = ThreadPoolExecutor(1, "options")
        self._tasks: list[asyncio.Task] = []

    @contextmanager
    def admit(self, pictures: int) -> Iterator[None]:
        """A place in the queue for so many pictures, from before they are decoded. Raises RequestError."""
        if self.inside + pictures > self.limits.queue:
            raise RequestError(503, "the queue is full; try again", retry=1)
        self.inside += pictures
        try:
            yield
        finally:
            self.inside -= pictures

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()) for _ in range(self._lanes)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for pool in (self._threads, self._thread):
            pool.shutdown(wait=True)

    async def in_thread(self, function, *arguments) -> Any:
        """Run something in a thread that runs one thing at a time, such as what fills a cache."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def __call__(self, question: Question) -> dict[str, Any]:
        """The answer to one picture. Cancelled while it waits, it costs nothing any more."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((question, future))
        return await future

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._most and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [entry for entry in batch if not entry[1].done()]
            if not batch:
                continue
            began, count = time.perf_counter(), len(batch)
            questions = [question for question, _ in batch]
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self.answerer, questions
                )
            except Exception as error:  # a bug or a full memory: these requests fail, the server stands
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                del batch, questions
                continue
            finally:
                self.metrics.batch_size.observe(count)
                self.metrics.network_seconds.observe(time.perf_counter() - began)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            del batch, questions, answers  # the pictures must not stay while the next is waited for
