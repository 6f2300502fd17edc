"""What made a row: versions, and the commit of the working folder."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib import metadata
from typing import Any


def provenance_columns(*, optuna: bool) -> dict[str, Any]:
    """Columns that say what made a row: versions, and the commit of the working folder."""
    return {
        "hpsweep_version": metadata.version("hpsweep"),
        "optuna_version": metadata.version("optuna") if optuna else None,
        "python_version": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Commit of the working folder, '+' if tracked files have changed; None outside git, or without git."""
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,})$", answer, re.MULTILINE)  # "(initial)" before the first
    if commit is None:
        return None
    changed = any(not line.startswith("#") for line in answer.splitlines())
    if changed:
        return f"{commit[1]}+"
    return commit[1]
