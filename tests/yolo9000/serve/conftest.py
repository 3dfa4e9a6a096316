"""The servers that tests share. Without the server's packages only test_extra.py runs, and says so."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

missing = [name for name in ("fastapi", "uvicorn", "python_multipart", "httpx") if find_spec(name) is None]
if missing:
    collect_ignore = [
        path.name for path in Path(__file__).parent.glob("test_*.py") if path.stem != "test_extra"
    ]


@pytest.fixture(scope="session")
def detector():
    from tests.yolo9000.small import small_detector
    from yolo9000 import Detector

    return Detector(small_detector("stored"), precision="float32")


@pytest.fixture(scope="session")
def server(detector):
    """One server with a small model and ordinary limits."""
    from tests.yolo9000.serve.running import running

    with running(detector) as found:
        yield found


@pytest.fixture
def start():
    """Starts servers of a test's own: `start(detector, limits, ...)`; ended with the test."""
    from contextlib import ExitStack

    from tests.yolo9000.serve.running import running

    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(running(*arguments, **settings))


@pytest.fixture(scope="module")
def guarded(detector):
    """A server of little room and ordinary patience: this process may stand still for seconds."""
    from tests.yolo9000.serve.running import SMALL

    yield from _watched(detector, SMALL)


@pytest.fixture(scope="module")
def hasty(detector):
    """The same of little patience, for clients who never come to an end."""
    from tests.yolo9000.serve.running import SMALL

    yield from _watched(detector, replace(SMALL, body_seconds=1.5, head_seconds=1.5))


def _watched(detector, limits):
    from tests.yolo9000.serve.running import png, running

    with running(detector, limits) as found:
        yield found
        assert found.detect(png()).status_code == 200
        assert found.metric("yolo9000_body_bytes ") == 0
        assert found.metric("yolo9000_queue_pictures ") == 0
