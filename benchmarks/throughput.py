"""Training throughput of ensembles against one eager process per trial: python -m benchmarks.throughput

Variants run in turn within every round, so that a noisy machine slows all of them; ratios are formed round by round,
and their median is what counts. 16 trials at densities 1, 1/2, ... 1/128, steady state, synthetic bytes for the
eager variants and the real data path for hpsweep.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hpsweep.spec import Trial

SHAPES = {
    "64, 2, 64, 8": Trial(width=64, depth=2, context=64, batch=8, steps=1_000_000, clip=1.0),
    "128, 2, 64, 8": Trial(width=128, depth=2, context=64, batch=8, steps=1_000_000),
    "256, 2, 64, 8": Trial(width=256, depth=2, context=64, batch=8, steps=1_000_000),
    "128, 4, 128, 16": Trial(width=128, depth=4, context=128, batch=16, steps=1_000_000),
}
DENSITIES = [2.0**-k for k in range(8)] * 2
VARIANTS = {
    # name: (trials trained together, processes, threads of each); 4 is what `hpsweep run` takes on a CPU
    "eager, 1 process x 2 threads": (1, 1, 2),
    "eager, 2 processes x 1 thread": (1, 2, 1),
    "ensembles of 4, 2 processes x 1 thread": (4, 2, 1),
    "ensembles of 8, 2 processes x 1 thread": (8, 2, 1),
}


def trials_of(shape: str) -> list[Trial]:
    """The 16 trials of a shape."""
    return [
        SHAPES[shape].replace(density=density, lr=2.0**-9, seed=i, steps=5000) for i, density in enumerate(DENSITIES)
    ]


def _eager_steps(trials: list[Trial]) -> Callable[[], int]:
    from benchmarks.eager import EagerTrial

    waiting = [EagerTrial(trial) for trial in trials]

    def step() -> int:
        waiting.append(waiting.pop(0))  # one trial at a time; which one does not matter to its speed
        waiting[-1].step()
        return trials[0].batch * trials[0].context

    return step


def _ensemble_steps(trials: list[Trial]) -> Callable[[], int]:
    import torch

    from hpsweep.proxy.data import load_dataset
    from hpsweep.proxy.ensemble import Ensemble

    ensemble = Ensemble(trials, load_dataset("stdlib"), torch.device("cpu"))
    history = torch.full((trials[0].total_steps, len(trials)), torch.nan)
    taken = 0

    def step() -> int:
        nonlocal taken
        ensemble.step(taken, history)
        ensemble.drop_diverged(history[: taken + 1], since=taken)
        taken += 1
        return len(ensemble.members) * trials[0].batch * trials[0].context

    return step


def _serve(pipe: Connection, together: int, shape: str, part: int, parts: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    trials = trials_of(shape)[part::parts]
    step = _eager_steps(trials) if together == 1 else _ensemble_steps(trials[:together])
    for _ in range(3):
        step()
    pipe.send("ready")
    while (seconds := pipe.recv()) is not None:
        started, tokens = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            tokens += step()
        pipe.send(tokens / (time.perf_counter() - started))


def measure(shape: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Tokens per second of every variant: one dict per variant, with the rounds' values."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, list[Connection]] = {}
    for name, (together, processes, threads) in VARIANTS.items():
        os.environ["OMP_NUM_THREADS"] = str(threads)
        pipes[name] = []
        for part in range(processes):
            ours, theirs = context.Pipe()
            context.Process(
                target=_serve, args=(theirs, together, shape, part, processes, threads), daemon=True
            ).start()
            pipes[name].append(ours)
        for pipe in pipes[name]:
            assert pipe.recv() == "ready"
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, ends in pipes.items():
            for pipe in ends:
                pipe.send(seconds)
            rates[name].append(sum(pipe.recv() for pipe in ends))
    for pipe in (pipe for ends in pipes.values() for pipe in ends):
        pipe.send(None)
    baseline = rates["eager, 1 process x 2 threads"]
    return [
        {
            "shape": shape,
            "variant": name,
            "tokens_per_second": statistics.median(values),
            "ratio": statistics.median(v / b for v, b in zip(values, baseline, strict=True)),
        }
        for name, values in rates.items()
    ]


def main() -> None:
    """Print a table of throughputs and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds per shape (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per variant and round (default 3)")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), help="shapes as 'width, depth, context, batch'")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores; 16 trials at densities 1 ... 1/128, float32")
    print("| width, depth, context, batch | variant | thousand trial-tokens / s | ratio |\n|---|---|---|---|")
    for shape in arguments.shapes:
        for row in measure(shape, arguments.rounds, arguments.seconds):
            rate = row["tokens_per_second"] / 1e3
            print(f"| {row['shape']} | {row['variant']} | {rate:.1f} | {row['ratio']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
