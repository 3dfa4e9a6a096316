"""What the README's second command says where it cannot do its work."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_full_disk_is_said_before_anything_is_done(tmp_path):
    (tmp_path / "df").write_text("#!/bin/sh\necho Header\necho disk 1000000 900000 100000 90% /tmp\n")
    (tmp_path / "df").chmod(0o755)
    paths = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [ROOT / "scripts/test"], env=os.environ | paths, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.splitlines() == [
        f"error: the tests need 2 GB for temporary files; {tmp_path} has 97 MB. Make room, or set TMPDIR to "
        "another folder."
    ]
