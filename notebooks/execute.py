"""Execute the notebooks in place: python notebooks/execute.py [--check] [notebook ...]

Every notebook of this folder by default, in its own fresh kernel of this very Python. What a run leaves by chance
is taken out (times, ids, version of the interpreter, paths of this machine), so that a second run changes nothing
but the results. --check executes and writes nothing. Exits with 1, naming notebook and cell, where one fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def normalised(notebook: Any) -> Any:
    """The notebook with stable metadata and ids, outputs joined, and no path of this machine in its texts."""
    notebook.metadata = nbformat.from_dict(KERNEL)
    for i, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({})
        cell.id = f"cell-{i}"
        for output in cell.get("outputs", []):
            output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
            if "text" in output:
                output.text = plain(output.text)
            for kind, text in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = plain(text)
    return notebook


def plain(text: str) -> str:
    """The text without what differs between machines and runs: the folder of the repository, addresses, colours."""
    return re.sub(r" at 0x[0-9a-f]+|\x1b\[[0-9;]*m", "", text.replace(f"{HERE.parent}{os.sep}", ""))


def execute(path: Path, scratch: Path) -> Any:
    """The executed notebook; sockets in `scratch`. Raises RuntimeError naming the notebook and the cell that failed."""
    notebook = nbformat.read(path, as_version=4)
    started = ["no cell"]
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_start=lambda cell, cell_index: started.append(f"cell-{cell_index}"),
        config=Config(KernelManager={"transport": "ipc", "ip": str(scratch / "kernel")}),  # files: no open ports
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
        raise RuntimeError(f"{path.name}, {started[-1]}: {plain(str(error))}") from None
    return normalised(notebook)


def write(notebook: Any, path: Path) -> None:
    """Replace the notebook at once: it is never half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        nbformat.write(notebook, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(scratch: Path) -> int:
    """The exit code: 0 if every notebook ran through, else 1. Kernels leave their files in `scratch`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in this folder")
    parser.add_argument("--check", action="store_true", help="execute, but write nothing")
    arguments = parser.parse_args()
    failed = 0
    for path in arguments.notebooks or sorted(HERE.glob("*.ipynb")):
        try:
            notebook = execute(path, scratch)
        except RuntimeError as error:
            print(f"FAILED {error}", file=sys.stderr)
            failed += 1
            continue
        if not arguments.check:
            write(notebook, path)
        print(f"{'checked' if arguments.check else 'executed'} {path.name}")
    return min(failed, 1)


if __name__ == "__main__":
    # Of all kernels installed anywhere, the one of this Python; sockets and history in a folder that vanishes.
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(KeyboardInterrupt):
        os.environ.update(
            JUPYTER_PATH=str(Path(sys.prefix) / "share" / "jupyter"), IPYTHONDIR=scratch, JUPYTER_RUNTIME_DIR=scratch
        )
        sys.exit(main(Path(scratch)))
