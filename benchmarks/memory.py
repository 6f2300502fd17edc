"""Memory per trial more, by way of training: a process each, in a torch ensemble, in the native engine."""

from __future__ import annotations

import itertools
import multiprocessing
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.record import table
from benchmarks.steady import Options, Part, trials_of
from benchmarks.variants import Engine, Variant, groups

FEW, MANY = 4, 12  # trials held by two processes; the difference is what eight more take
DENSITIES = (1.0, 1 / 8)


class Way(NamedTuple):
    """A way to hold trials."""

    name: str
    engine: Engine


WAYS = (Way("a process per trial", "eager"), Way("torch ensemble", "torch"), Way("native", "native"))


def memory(options: Options) -> Part:
    """MiB of memory per additional trial, by width and density."""
    ways = options.kept(WAYS)
    rows, values, reasons = [], [], {}
    for width, density in itertools.product((64,) if options.quick else (64, 128, 256), DENSITIES):
        row: list[object] = [width, "1" if density == 1 else f"1/{1 / density:.0f}"]
        for name, engine in ways:
            taken = per_trial(engine, f"{width},2,64,8", density)
            known = None if isinstance(taken, str) else taken
            if isinstance(taken, str):
                reasons[name] = taken
            row.append(None if known is None else f"{known:.1f}")
            values.append({"width": width, "density": density, "way": name, "mebibytes_per_trial": known})
        rows.append(row)
    missing = "".join(f"\nLeft out: {name}: {reason}" for name, reason in reasons.items())
    head = "MiB per additional trial after five steps: the most that a process with one eager trial has held, less the "
    head += f"pages of files, which processes share; and the difference between {FEW} and {MANY} trials in one process."
    return Part(f"{head}\n\n{table(['width', 'density', *(way.name for way in ways)], rows)}\n{missing}", values)


def per_trial(engine: Engine, shape: str, density: float) -> float | str:
    """MiB that one more trial takes, or why that is not known."""
    if engine == "eager":
        return _in_a_process(engine, shape, density, 1)
    few, many = (_in_a_process(engine, shape, density, count) for count in (FEW, MANY))
    if isinstance(few, str) or isinstance(many, str):
        return few if isinstance(few, str) else str(many)
    return (many - few) / (MANY - FEW)


def _in_a_process(engine: Engine, shape: str, density: float, count: int) -> float | str:
    """The most memory of its own that a new process with so many trials has held, MiB; or why that is not known."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_train, args=(theirs, engine, shape, density, count))
    process.start()
    theirs.close()
    try:
        answer: float | str = ours.recv()
    except EOFError:
        raise RuntimeError(f"the process with {count} trials of {engine} died; what it wrote is above.") from None
    process.join()
    return answer


def _train(pipe: Any, engine: Engine, shape: str, density: float, count: int) -> None:
    import torch

    torch.set_num_threads(1)
    trials = trials_of(shape, [density], seeds=count)
    try:
        for group in groups(Variant(name="", engine=engine, trials=trials, together=count), trials):
            group.steps(5)
        pipe.send(most_of_its_own())
    except (ImportError, NotImplementedError, ValueError, OSError) as error:
        pipe.send(str(error))


def most_of_its_own() -> float:
    """The most that this process has held so far but for pages of files, MiB.

    Raises OSError where the system does not say (it is Linux that does). Not getrusage's, which a new process takes
    over from the one that started it.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    if not {"VmHWM", "RssFile"} <= kibibytes.keys():
        raise OSError("/proc/self/status has no VmHWM and RssFile")
    return (kibibytes["VmHWM"] - kibibytes["RssFile"]) / 1024
