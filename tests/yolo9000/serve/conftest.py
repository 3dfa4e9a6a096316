"""The servers that tests share. Without the server's packages only test_extra.py runs, and says so."""

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
