"""Pictures that arrive together go through the network together, and no more wait than the queue holds.

While one batch runs, the next gathers; nothing waits for company. What is computed is answers.py's."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from yolo9000.serve.answers import Answerer, Question
from yolo9000.serve.limits import Limits, RequestError
from yolo9000.serve.metrics import Metrics


class Batcher:
    """The one thread that runs the network, and the queue before it."""

    def __init__(self, answerer: Answerer, limits: Limits, metrics: Metrics) -> None:
        self.answerer, self.limits, self.metrics = answerer, limits, metrics
        self.inside = 0  # pictures admitted and not yet answered
        self._waiting: asyncio.Queue[tuple[Question, asyncio.Future]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._task: asyncio.Task | None = None

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
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=True)

    async def in_thread(self, function, *arguments) -> Any:
        """Run something in the network's thread: a detector is not for several threads at once."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def __call__(self, question: Question) -> dict[str, Any]:
        """The answer to one picture. Cancelled while it waits, it costs nothing any more."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((question, future))
        return await future

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self.limits.batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [entry for entry in batch if not entry[1].done()]
            if not batch:
                continue
            began, count = time.perf_counter(), len(batch)
            try:
                answers = await self.in_thread(self.answerer, [question for question, _ in batch])
            except Exception as error:  # a bug or a full memory: these requests fail, the server stands
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                del batch
                continue
            finally:
                self.metrics.batch_size.observe(count)
                self.metrics.network_seconds.observe(time.perf_counter() - began)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            del batch, answers  # the pictures must not stay while the next is waited for
