#!/usr/bin/env python3
"""Makes the pictures of pages in docs/: those of `yolo9000 serve` and the report of the tutorial's model,
in a headless Chromium, on a screen and on a telephone.

Needs the extra dev (selenium, a server, a free photograph), and chromium with chromedriver. The report takes
some minutes: its model is trained first, by the commands of docs/tutorial.md.
"""

import argparse
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
QUALITY = 80  # of JPEG; texts stay legible, a picture below 100 kB
DESK, PHONE = (1180, 760), (390, 844)  # pixels: a window, and a telephone held upright

# Of the tutorial, up to its first figures; what of it is scored is in the report.
TUTORIAL = (
    "scripts/draw_shapes shapes/",
    "data-prep pack --coco shapes/boxes.json --images shapes/boxed --tree shapes/taxonomy.csv "
    "--map names boxes.h5",
    "data-prep pack --folders shapes/labelled --tree shapes/taxonomy.csv --map names labels.h5",
    "data-prep pack --coco shapes/held_out.json --images shapes/held_out --tree shapes/taxonomy.csv "
    "--map names held_out.h5",
    "yolo9000 train shapes.toml --data boxes.h5 --data labels.h5 --out runs/shapes",
    "yolo9000 eval runs/shapes --data held_out.h5 --classes shapes/split.json --html report.html",
)


class Page:
    """A browser, the folder for its pictures, and what one does with it."""

    def __init__(self, driver, out: Path) -> None:
        self.driver, self.out = driver, out

    def size(self, size: tuple[int, int], scheme: str) -> None:
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def wait(self, script: str) -> None:
        for _ in range(600):
            if self.driver.execute_script(f"return {script}"):
                return
            time.sleep(0.1)
        raise RuntimeError(f"waited in vain: {script}")

    def keep(self, name: str) -> None:
        time.sleep(0.5)
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        picture.save(self.out / name, quality=QUALITY)


@contextmanager
def browser(out: Path) -> Iterator[Page]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    words = "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"
    for word in words:
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Page(driver, out)
    finally:
        driver.quit()


def served(page: Page, photo: Path) -> None:
    """The detector's page and the tree's."""

    def detector() -> None:
        page.driver.get(url)
        page.wait("document.getElementById('facts').textContent.includes('names')")
        page.driver.find_element("id", "file").send_keys(str(photo.resolve()))
        page.wait("document.getElementById('status').textContent.includes('object')")
        page.driver.execute_script("document.querySelector('#list button').click()")

    def tree() -> None:
        page.driver.get("about:blank")
        page.driver.get(f"{url}/tree#n02084071")
        page.wait("document.getElementById('facts').textContent.includes('nodes')")

    command = [sys.executable, "-m", "yolo9000", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", server.stdout.readline())[0]
        for size, scheme, show, name in (
            (DESK, "light", detector, "page.jpg"),
            (PHONE, "light", detector, "page-phone.jpg"),
            ((900, 640), "dark", tree, "tree-page.jpg"),
            (PHONE, "dark", tree, "tree-page-phone.jpg"),
        ):
            page.size(size, scheme)
            show()
            page.keep(name)
    finally:
        server.terminate()
        server.wait(60)


def evaluated(folder: Path) -> Path:
    """The report of the tutorial's model, trained in `folder`."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    block = re.search(r'```toml title="shapes.toml"\n(.*?)```', text, re.DOTALL)
    (folder / "shapes.toml").write_text(block[1])
    for line in TUTORIAL:
        print(line, flush=True)
        program, *words = line.split()
        here = ROOT / program if "/" in program else Path(sys.executable).with_name(program)
        subprocess.run([sys.executable, here, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "report.html"


def reported(page: Page, report: Path) -> None:
    """The curves with the classes beside them; on a telephone, the tree with what its nodes score."""
    for size, scheme, name, shown in (
        ((1180, 900), "light", "report.jpg", "curves"),
        (PHONE, "dark", "report-phone.jpg", "tree"),
    ):
        page.size(size, scheme)
        page.driver.get(report.resolve().as_uri())
        page.wait("document.querySelectorAll('svg, canvas, img').length > 0")
        page.driver.execute_script(f"document.getElementById('{shown}').scrollIntoView()")
        page.keep(name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: scripts/picture_pages.py --only served",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--only", choices=("served", "report"), help="[default: both]")
    parser.add_argument("--photo", type=Path, help="[default: the cat that comes with scikit-image]")
    parser.add_argument("--report", type=Path, help="A report that is there.  [default: the tutorial's]")
    given = parser.parse_args()
    photo = given.photo
    if photo is None:
        photo = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"
    with tempfile.TemporaryDirectory() as folder:
        report = given.report
        if report is None and given.only != "served":
            report = evaluated(Path(folder))
        with browser(given.out) as page:
            if given.only != "report":
                served(page, photo)
            if given.only != "served":
                reported(page, report)


if __name__ == "__main__":
    main()
