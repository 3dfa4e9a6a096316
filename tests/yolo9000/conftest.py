"""What the tests of the commands have in common."""

import sys

import pytest

from yolo9000 import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `yolo9000 WORDS` and returns (status, stdout, stderr)."""

    def _run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["yolo9000", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return _run
