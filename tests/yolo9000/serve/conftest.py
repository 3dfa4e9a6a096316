"""Skips where the server's packages are missing, and the servers that tests share."""

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed (pip install 'yolo9000[serve]')")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed (pip install 'yolo9000[serve]')")

from tests.yolo9000.serve.running import Running, running
from tests.yolo9000.small import small_detector
from yolo9000 import Detector


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector(small_detector("stored"), precision="float32")


@pytest.fixture(scope="session")
def server(detector):
    """One server with a small model and ordinary limits."""
    with running(detector) as found:
        yield found


@pytest.fixture
def start():
    """Starts servers of a test's own: `start(detector, limits, ...)`; ended with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def _start(*arguments, **settings) -> Running:
            return stack.enter_context(running(*arguments, **settings))

        yield _start
