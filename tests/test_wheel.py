"""What is built of this checkout is whole: the wheel, installed where the checkout is not, detects."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_SOURCE = ("wordtree", "data_prep", "yolo9000", "pyproject.toml", "README.md", "LICENSE", "NOTICE")

pytestmark = pytest.mark.slow


def run(*words: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=600, **options
    )


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with the built wheel and source distribution; building leaves nothing in the checkout."""
    pytest.importorskip("build", reason="build is not installed (pip install build): no wheel was made")
    pytest.importorskip("setuptools", reason="setuptools is not installed: no wheel was made")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in _SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    # Not isolated: an isolated build would fetch setuptools each time.
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def test_twine_finds_nothing(dist):
    pytest.importorskip("twine", reason="twine is not installed (pip install twine): nothing was checked")
    done = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout


def test_every_file_of_the_packages_is_in_the_wheel(dist):
    (wheel,) = dist.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in _SOURCE[:3]:
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*") if path.is_file()}
        missing = {name for name in files if "__pycache__" not in name} - inside
        assert not missing, sorted(missing)
    assert not any(name.startswith(("tests", "scripts", "docs")) for name in inside)


def test_the_wheel_detects_outside_the_checkout(dist, tmp_path):
    """In an environment with nothing but the wheel; the packages that it needs are this one's, read by path,
    so that gigabytes need not be fetched."""
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path / "environment"
    assert run(sys.executable, "-m", "venv", "--without-pip", environment).returncode == 0
    paths = sysconfig.get_paths(vars={"base": str(environment), "platbase": str(environment)})
    site = Path(paths["purelib"])
    with zipfile.ZipFile(wheel) as archive:  # what an installer does with a wheel of Python alone
        archive.extractall(site)
    (site / "needed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    shutil.copy(ROOT / "docs" / "pictures" / "run.jpg", tmp_path / "photo.jpg")
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = run(python, "-c", "import yolo9000; print(yolo9000.__file__)", cwd=tmp_path, env=bare)
    assert Path(where.stdout.strip()).is_relative_to(environment), where.stdout + where.stderr
    done = run(python, "-m", "yolo9000", "detect", "photo.jpg", "--json", cwd=tmp_path, env=bare)
    assert done.returncode == 0, done.stderr
    (picture,) = json.loads(done.stdout)["pictures"]
    assert picture["detections"], "the embedded model finds nothing on its own documentation's picture"
    for words in (["wordtree", "path", "dog.n.01"], ["data_prep", "--help"]):
        code = f"from {words[0]}.cli import main; main()"
        said = run(python, "-c", code, *words[1:], cwd=tmp_path, env=bare)
        assert said.returncode == 0 and said.stdout, said.stderr
