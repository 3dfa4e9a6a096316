#!/usr/bin/env python3
"""Makes the pictures of docs/serving.md: both pages in a headless Chromium, on a screen and on a telephone.

Needs the extras serve, demo (for a free photograph) and dev (for selenium), and chromium with chromedriver.
"""

import argparse
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

QUALITY = 80  # of JPEG; texts stay legible, a picture below 100 kB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Example: scripts/picture_pages.py")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--photo", type=Path, help="[default: the cat that comes with scikit-image]")
    given = parser.parse_args()
    photo = given.photo
    if photo is None:
        photo = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(word)
    command = [sys.executable, "-m", "yolo9000", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    driver = None
    try:
        url = re.search(r"http://\S+", server.stdout.readline())[0]
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

        def size(width: int, height: int, scheme: str) -> None:
            screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

        def wait(script: str) -> None:
            for _ in range(600):
                if driver.execute_script(f"return {script}"):
                    return
                time.sleep(0.1)
            raise RuntimeError(f"waited in vain: {script}")

        def keep(name: str) -> None:
            time.sleep(0.5)
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
            picture.save(given.out / name, quality=QUALITY)

        def detector() -> None:
            driver.get(url)
            wait("document.getElementById('facts').textContent.includes('names')")
            driver.find_element("id", "file").send_keys(str(photo.resolve()))
            wait("document.getElementById('status').textContent.includes('object')")
            driver.execute_script("document.querySelector('#list button').click()")

        size(1180, 760, "light")
        detector()
        keep("page.jpg")
        size(390, 844, "light")
        detector()
        keep("page-phone.jpg")
        size(900, 640, "dark")
        driver.get(f"{url}/tree#n02084071")
        wait("document.getElementById('facts').textContent.includes('nodes')")
        keep("tree-page.jpg")
        size(390, 844, "dark")
        driver.get("about:blank")
        driver.get(f"{url}/tree#n02084071")
        wait("document.getElementById('facts').textContent.includes('nodes')")
        keep("tree-page-phone.jpg")
    finally:
        if driver is not None:
            driver.quit()
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
