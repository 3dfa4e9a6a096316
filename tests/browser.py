"""A headless Chromium for tests of pages; where there is none, the tests skip and say so."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 30.0  # seconds; a loaded machine is slow, a page that works answers at once


@contextmanager
def chromium() -> Iterator[Any]:
    """selenium's driver of a fresh browser with a picture in place of the camera; or a skip."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed: no page was tested"
    )
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    binary = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    driver_path = shutil.which("chromedriver")
    if binary is None or driver_path is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver; no page was tested")
    options = Options()
    options.binary_location = binary
    words = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"]
    words += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--no-sandbox")  # it refuses to start as root otherwise
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for word in (*words, f"--user-data-dir={profile}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(driver_path))
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        try:
            yield driver
        finally:
            driver.quit()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What the condition gives once it is true; an AssertionError naming `what` if it never is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


def complaints(driver: Any) -> list[str]:
    """What the browser's console says: errors of scripts, refusals by the content policy, missing files."""
    return [
        entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


def resize(driver: Any, width: int, height: int, mobile: bool = False) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def colours(driver: Any, scheme: str) -> None:
    """scheme: light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def fits(driver: Any) -> bool:
    """Whether nothing sticks out sideways."""
    return driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def asked_elsewhere(driver: Any, base: str) -> list[str]:
    """Addresses that the page loaded from and that are not the server's."""
    script = "return JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))"
    return [
        a for a in json.loads(driver.execute_script(script)) if not a.startswith((base, "blob:", "data:"))
    ]
