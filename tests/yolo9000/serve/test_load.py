"""The load and fault test of scripts/bench_serve.py with the model in the package: slow."""

import importlib.util
import time
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "bench_serve.py"

# Resident memory may differ between two equal rounds by what the allocator holds on to, in MiB.
SLACK = 48


def script():
    spec = importlib.util.spec_from_file_location("bench_serve", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_good_upload_is_answered_and_every_bad_one_refused():
    bench = script()
    pictures = bench.synthetic(12)
    wanted = bench.by_command_line(pictures, ())
    with bench.server() as (process, host, port):
        reports, memory = [], []
        for _ in range(2):
            reports.append(bench.load(host, port, pictures, wanted, 500, 64, 4))
            time.sleep(bench.BODY_SECONDS + 3)  # until the last that hung up is forgotten
            memory.append(bench.memory(process.pid))
    for report in reports:
        assert report.wrong == []
        assert report.statuses["good", 200] == 375
        assert sum(n for (kind, _), n in report.statuses.items() if kind in bench.BAD) == 125
    assert not memory[1] > memory[0] + SLACK, memory
