"""Coverage-guided fuzzing of one reader with atheris, where its wheel installs: pip install atheris.

Not here: the mutations of harness.py, which need no such package.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp

import click


def run(name: str, seed: int, count: int) -> None:
    """Fuzz until `count` runs are over or something is found; atheris then ends the process."""
    try:
        import atheris
    except ImportError:
        raise click.ClickException("atheris is not installed: pip install atheris") from None
    # What a reader imports is instrumented; the libraries beneath are not what is under test.
    with atheris.instrument_imports(include=["wordtree", "data_prep", "yolo9000"]):
        from tests.fuzz.harness import find_reader

        reader = find_reader(name)
    folder = Path(mkdtemp(prefix="fuzz-"))
    corpus, place = folder / "corpus", folder / "reader"
    corpus.mkdir(parents=True)
    place.mkdir()
    for k, data in enumerate(reader.seeds()):
        (corpus / str(k)).write_bytes(data)
    opened = reader.open(place)
    check = opened.__enter__()

    def one(data: bytes) -> None:
        try:
            check(data)
        except reader.errors as error:
            if not str(error).strip():
                raise

    options = [f"-runs={count}", f"-seed={seed}", "-timeout=10", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)], one)
    atheris.Fuzz()
