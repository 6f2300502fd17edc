"""Memory per trial more, by way of training: a process each, in a torch ensemble, in the native engine."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from benchmarks.record import table
from benchmarks.steady import Options, Part, trials_of
from benchmarks.variants import Engine, Variant, groups

FEW, MANY = 4, 12  # trials held by two processes; the difference is what eight more take


def memory(options: Options) -> Part:
    """MiB of memory per additional trial: the peak of the resident set after some steps."""
    rows, values, missing = [], [], ""
    engines: tuple[tuple[str, Engine], ...] = (
        *(("a process per trial", "eager"), ("torch ensemble", "torch"), ("native", "native")),
    )
    for width in (64,) if options.quick else (64, 128, 256):
        row: list[object] = [width]
        for name, engine in engines:
            taken = per_trial(engine, f"{width},2,64,8")
            if isinstance(taken, str):
                missing += "" if f"Left out: {name}:" in missing else f"\nLeft out: {name}: {taken}"
            row.append(None if isinstance(taken, str) else f"{taken:.1f}")
            values.append({"width": width, "way": name, "mebibytes_per_trial": None if row[-1] is None else taken})
        rows.append(row)
    head = (
        "MiB per additional trial: the largest resident set after five steps, of a process with one eager trial, and "
    )
    head += f"the difference between {FEW} and {MANY} trials in one process."
    return Part(f"{head}\n\n{table(['width', *(name for name, _ in engines)], rows)}\n{missing}", values)


def per_trial(engine: Engine, shape: str) -> float | str:
    """MiB that one more trial takes, or why that is not known."""
    if engine == "eager":
        return _in_a_process(engine, shape, 1)
    few, many = (_in_a_process(engine, shape, count) for count in (FEW, MANY))
    if isinstance(few, str) or isinstance(many, str):
        return few if isinstance(few, str) else str(many)
    return (many - few) / (MANY - FEW)


def _in_a_process(engine: Engine, shape: str, count: int) -> float | str:
    """Largest resident set of a new process that trains so many trials, MiB; or why there is none."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_train, args=(theirs, engine, shape, count))
    process.start()
    theirs.close()
    try:
        answer: float | str = ours.recv()
    except EOFError:
        raise RuntimeError(f"the process with {count} trials of {engine} died; what it wrote is above.") from None
    process.join()
    return answer


def _train(pipe: Any, engine: Engine, shape: str, count: int) -> None:
    import torch

    torch.set_num_threads(1)
    trials = trials_of(shape, [1 / 8], seeds=count)
    try:
        for group in groups(Variant(name="", engine=engine, trials=trials, together=count), trials):
            group.steps(5)
        pipe.send(largest_resident_set())
    except (ImportError, NotImplementedError, ValueError, OSError) as error:
        pipe.send(str(error))


def largest_resident_set() -> float:
    """Of this process so far, MiB. Raises OSError where the system does not say (it is Linux that does).

    Not getrusage's, which a new process takes over from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")
