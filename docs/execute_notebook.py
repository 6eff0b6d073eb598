"""Executes a notebook in place: python docs/execute_notebook.py NOTEBOOK.

`jupyter execute` gives every kernel free ports, and two at a time may find the same ones. Here a
kernel listens on sockets that are files, in a folder of its own.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

#: Seconds for a cell, and for the start of a kernel beside other work.
CELL, START = 600, 180


def main(path: Path) -> None:
    """Execute a notebook in its own folder, and write its outputs into it."""
    notebook = nbformat.read(path, as_version=4)
    # A short path: a socket's name has 107 characters at most.
    with tempfile.TemporaryDirectory() as sockets:
        manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}
        NotebookClient(
            notebook,
            timeout=CELL,
            startup_timeout=START,
            resources={"metadata": {"path": str(path.parent)}},
            config=Config({"KernelManager": manager}),
        ).execute()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
