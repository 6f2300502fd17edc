"""A copy of the package in which a test adds something, by hand as a developer would, and what a program says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT


def copied_package(folder: Path) -> Path:
    """The package `hpsweep` in a folder, to be edited there."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "hpsweep", folder / "hpsweep", ignore=ignored))


def edit(path: Path, old: str, new: str) -> None:
    """Put `new` in the place of `old`, which the file has once."""
    text = path.read_text("utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), "utf-8")


def told_by(package: Path, program: str) -> list[str]:
    """The lines that a program prints, which imports the copy."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
