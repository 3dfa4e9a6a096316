"""schemathesis over the OpenAPI description: what the server says of itself is how it behaves. Slow."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Beside the interpreter: the environment need not be the active one.
PROGRAM = shutil.which("schemathesis", path=Path(sys.executable).parent) or shutil.which("schemathesis")


@pytest.mark.slow
@pytest.mark.skipif(
    PROGRAM is None, reason="schemathesis is not installed: the description was not tried out"
)
def test_schemathesis_finds_nothing(server, tmp_path):
    command = [PROGRAM, "run", f"{server.url}/openapi.json", "--max-examples", "40", "--seed", "1"]
    # That check calls every string of bytes valid which is labelled as a picture; random ones are refused.
    command += ["--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    # Requests are quoted whole, with a hundred kilobytes of one sign.
    assert done.returncode == 0, "\n".join(line[:300] for line in done.stdout.splitlines()[-100:])
