"""What a benchmark says: ratios round by round, tables, the machine and what others did on it, and the stored file."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.variants import bfloat16_hardware
from hpsweep.proxy.native import build
from hpsweep.proxy.outcome import cpu_name


class Load(NamedTuple):
    """What others took of the machine during a measurement, mean number of cores; None where nobody says."""

    others: float | None  # other processes
    stolen: float | None  # other virtual machines

    @classmethod
    def between(
        cls, before: tuple[float, float] | None, after: tuple[float, float] | None, seconds: float, ours: float
    ) -> Load:
        """From busy and stolen core-seconds before and after, and the core-seconds that were ours."""
        if before is None or after is None:
            return cls(None, None)
        busy, stolen = (later - earlier for earlier, later in zip(before, after, strict=True))
        return cls(max(0.0, (busy - ours) / seconds), stolen / seconds)


def busy_and_stolen() -> tuple[float, float] | None:
    """Core-seconds since boot that all processes ran, and that were stolen; None where there is no /proc/stat."""
    try:
        fields = [float(word) for word in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


class Spread(NamedTuple):
    """A median with the lowest and the highest value."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and range of the values of all rounds."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Each round's value over the same round's baseline: what slows a round slows both."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def with_range(values: Sequence[float]) -> str:
    """The median of the rounds' ratios with their range: 4.31; 4.20-4.52. Without a range where there is none."""
    median, low, high = spread(values)
    return f"{median:.2f}; {low:.2f}-{high:.2f}" if low < high else f"{median:.2f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; None is a dash."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join('-' if cell is None else str(cell) for cell in line)} |" for line in lines)


def knee(rates: dict[int, float], within: float = 0.1) -> int:
    """The smallest size whose rate is within a tenth of the best."""
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= (1 - within) * best)


def machine() -> dict[str, Any]:
    """The machine and the software on it, as far as speed depends on them."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "bfloat16": bfloat16_hardware(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "compiler": _first_line([*shlex.split(build.find_compiler() or "cc"), "--version"]),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.throughput", *sys.argv[1:]]),
    }


def _commit() -> str | None:
    """The commit of the working folder, with a + if files have changed since."""
    commit = _first_line(["git", "rev-parse", "HEAD"])
    changed = _first_line(["git", "status", "--porcelain", "--untracked-files=no"])
    return commit and commit + ("+" if changed else "")


def _first_line(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.partition("\n")[0].strip() or None


def write(record: dict[str, Any], output: Path) -> Path:
    """The file it was stored in: `output` itself if it ends in .json, else a new one there, by machine and date."""
    if output.suffix != ".json":
        name = "".join(c if c.isalnum() else "-" for c in str(record["machine"]["gpu"] or record["machine"]["cpu"]))
        moment = record["machine"]["date"][:19].replace(":", "").replace("T", "-")
        output = _new_file(output, f"{name.strip('-').lower()}-{record['machine']['cores']}-cores-{moment}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record) + "\n")
    return output


def _new_file(folder: Path, name: str) -> Path:
    """An empty file name.json that was not there before, or name-2.json and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{name}.json", 1
    while True:
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1
            path = folder / f"{name}-{number}.json"
