"""Says so where the other tests of this folder cannot run."""

import pytest


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "python_multipart", "httpx"])
def test_the_servers_packages_are_installed(name):
    pytest.importorskip(
        name, reason=f"{name} is missing: pip install 'yolo9000[dev]'; nothing here was tested"
    )
