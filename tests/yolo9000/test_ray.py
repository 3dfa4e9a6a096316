"""What workers of a local Ray cluster find, undisturbed and killed. Each test starts a cluster: slow."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.yolo9000.small import picture, small_detector
from yolo9000.modelfile import save_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra `ray`)"),
]

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

# The example in the docstring of yolo9000/distributed/detecting.py with a cluster of its own around it.
AROUND = """
import ray
from yolo9000.distributed import DetectPictures
# Reading and writing are work, too: with two processors the two that detect would keep all others waiting.
ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=80 << 20)
{example}
ray.shutdown()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


def test_nothing_is_lost_or_doubled_when_a_worker_or_the_driver_is_killed(tmp_path):
    """With a worker killed half-way, and with the driver killed half-way and started again: the one process's
    detections, exactly. What the workers find undisturbed is the next test's."""
    target, count, parts = tmp_path / "figures.json", 400, 40
    words = [ROOT / "scripts" / "bench_ray.py", "--pictures", count, "--part-size", count // parts]
    words += ["--case", "worker killed", "--case", "driver killed"]
    run = subprocess.run(
        [sys.executable, *map(str, words), "--json", str(target)], env=ENVIRONMENT, timeout=900, check=False
    )
    assert run.returncode == 0
    figures = json.loads(target.read_text())
    assert figures["detections"] > 0 and figures["parts"] == parts
    cases = {row["case"]: row for row in figures["cases"]}
    assert set(cases) == {"one process", "worker killed", "driver killed"}
    assert all(row["equal"] for row in cases.values())
    for name in ("worker killed", "driver killed"):
        assert parts // 2 <= cases[name]["killed_at"] < parts
    assert count // 2 <= cases["driver killed"]["summary"]["done_before"] < count
    assert cases["worker killed"]["summary"]["done_before"] == 0


def test_the_callable_in_a_pipeline_of_ray_data(tmp_path, model):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from yolo9000.distributed import DetectPictures, detecting

    photos, out = tmp_path / "photos", tmp_path / "found"
    photos.mkdir()
    for k in range(12):
        picture(k).save(photos / f"{k:02d}.png")
    (photos / "bad.png").write_bytes(b"")
    example = re.search(
        r"    ray\.data\.read_binary_files.*?\n    \)\.write_parquet\(.*?\)\n", detecting.__doc__, re.S
    )
    text = re.sub(r"^    ", "", example[0], flags=re.M)
    text = text.replace('"photos/"', repr(str(photos))).replace('"found/"', repr(str(out)))
    text = text.replace('{"threshold": 0.3}', f'{{"model": {str(model)!r}, "threshold": 0.3}}')
    assert str(model) in text
    script = tmp_path / "script.py"
    script.write_text(AROUND.format(example=text))
    subprocess.run([sys.executable, str(script)], env=ENVIRONMENT, timeout=300, check=True)
    found = sorted(pq.read_table(out).to_pylist(), key=lambda row: row["picture"])
    files = sorted(photos.iterdir())
    wanted = DetectPictures(model, threshold=0.3, threads=None)(
        pa.table({"path": [str(file) for file in files], "bytes": [file.read_bytes() for file in files]})
    )
    assert found == wanted.to_pylist()
    assert [row["error"] for row in found] == [None] * 12 + ["empty"]


def test_what_a_worker_cannot_read_is_one_line(tmp_path, model):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"bytes": [os.urandom(1000) for _ in range(20)]}), file, row_group_size=10)
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(60) + data[64:])  # the first page's header
    words = ["detect", "--engine", "ray", "--workers", "1", "--input", file, "--output", tmp_path / "out"]
    run = subprocess.run(
        [sys.executable, "-m", "yolo9000", *map(str, words), "--model", str(model)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert run.returncode == 1 and run.stdout == "" and "Traceback" not in run.stderr
    assert f"{file}: damaged" in run.stderr.splitlines()[-1]
