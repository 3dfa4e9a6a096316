"""A few hundred mutated files of every reader, in a child process under limits. scripts/fuzz runs more."""

from importlib.util import find_spec

import pytest

from tests.fuzz.harness import NAMES, fuzz

# Fixed, so that a failure is the change's that is tested; scripts/fuzz takes another each night.
SEED = 20_161_225

# All together stay far below a minute on one core; these cost milliseconds a file.
COUNTS = {"request": 120, "store": 120, "model": 150, "cfg": 200}
SERVED = all(find_spec(name) for name in ("fastapi", "uvicorn", "python_multipart", "httpx"))


@pytest.mark.parametrize("name", NAMES)
def test_no_crash_hang_or_misread(name):
    if name == "request" and not SERVED:
        pytest.skip("the server's packages are not installed (extra `serve`)")
    count = COUNTS.get(name, 250)
    found = fuzz(name, SEED, count, seconds=60)  # the machine may be busy
    assert not found.findings, "\n".join(f"--seed {f.seed} --case {f.case}: {f}" for f in found.findings)
    # Mutations that are all refused, or all taken, would test one half of the reader only.
    assert found.cases == count == found.accepted + found.refused
    assert found.accepted >= count // 50 and found.refused >= count // 50
