#!/usr/bin/env python3
"""Runs a notebook from its first cell to its last in an empty folder, and keeps what it prints and shows.

Needs nbclient and ipykernel (the extra `dev`). Without --out the outputs go into the notebook itself.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

# What a viewer needs to show a cell's output; times and paths of this run would only make differences.
_SHOWN = ("image/jpeg", "text/html", "text/plain")

# A bar of tqdm as it stands in the output: from the return of the carriage to the end of the line.
_BAR = re.compile(r"\r[^\r\n]*\d+%\|[^\r\n]*\n?")


def run(notebook, folder: Path, seconds: int) -> None:
    """Run the cells in `folder`, with the commands of this interpreter's environment at hand."""
    from nbclient import NotebookClient

    here = str(Path(sys.executable).parent)
    path = os.pathsep.join((here, os.environ.get("PATH", "")))
    home = {"IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_RUNTIME_DIR": str(folder / ".jupyter")}
    client = NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, **home, "PATH": path, "COLUMNS": "110"}, cwd=str(folder))


def tidy(notebook) -> None:
    """Leave of the outputs what is shown: one form of each, no times of execution, nothing on stderr,
    no progress bars."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = _BAR.sub("", output.text.replace("\r\n", "\n"))
            elif "data" in output:
                form = next(form for form in _SHOWN if form in output.data)
                output.data = {form: output.data[form]}
                output.metadata = {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: scripts/run_notebook.py examples/tour.ipynb --out run.ipynb"
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, help="[default: the notebook itself]")
    parser.add_argument("--seconds", type=int, default=600, help="For one cell.  [default: 600]")
    given = parser.parse_args()
    import nbformat
    from nbclient.exceptions import CellExecutionError

    from wordtree.files import written_whole

    notebook = nbformat.read(given.notebook, 4)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(notebook, Path(folder), given.seconds)
        except CellExecutionError as error:
            sys.exit(f"error: {given.notebook}: a cell failed\n{error}")
    tidy(notebook)
    target = given.out or given.notebook
    with written_whole(target, OSError) as part:
        part.write_text(nbformat.writes(notebook) + "\n")
    print(f"{target}: {len(notebook.cells)} cells, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
