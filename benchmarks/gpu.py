"""Ensembles on a GPU against the ways people train there: one eager trial, torch.compile, several processes.

Every way trains the same trials, the first n of them; the first has density 1/2, so that what all are compared with
multiplies its weights with masks, as sparse training does. Written to run on a CPU too, with small numbers, so that it
can be tested where there is no GPU.
"""

from __future__ import annotations

from typing import Any

from benchmarks.record import knee, ratios, spread, table, with_range
from benchmarks.steady import DENSITIES, PRECISIONS, Options, Part, left_out, trials_of, values_of
from benchmarks.turns import Measured, in_turn
from benchmarks.variants import Variant
from hpsweep.spec import Precision

SHAPE = "256,4,128,16"  # 2048 tokens per step
PROCESSES = (2, 4, 8)
SIZES = (1, 2, 4, 8, 16, 32, 64)
MASKED_FIRST = (*DENSITIES[1:], DENSITIES[0])
ONE = "one eager trial"


def gpu(options: Options) -> Part:
    """Trial-tokens per second on the GPU of every way, and the ensemble size at the knee; says so without one."""
    import torch

    if not torch.cuda.is_available():
        return Part("Not measured: torch sees no GPU here.", [])
    texts, values = [], []
    for precision in PRECISIONS:
        part = compared(options, precision=precision)
        texts.append(part.text)
        values += part.values
    return Part("\n\n".join([f"On one {torch.cuda.get_device_name()}.", *texts]), values)


def compared(
    options: Options,
    *,
    precision: Precision = "float32",
    shape: str = SHAPE,
    device: str = "cuda",
    processes: tuple[int, ...] = PROCESSES,
    sizes: tuple[int, ...] = SIZES,
    compiled: str = "reduce-overhead",
) -> Part:
    """The ways in one precision, in turn: a table, and the knee."""
    seeds = -(-max(*sizes, *processes) // len(MASKED_FIRST))
    trials = trials_of(shape, MASKED_FIRST, seeds=seeds, precision=precision)
    common: dict[str, Any] = {"device": device, "compiled": compiled}
    variants = [
        Variant(name=ONE, engine="eager", trials=trials[:1], **common),
        Variant(name=f"one trial, torch.compile {compiled}", engine="compiled", trials=trials[:1], **common),
        *(
            Variant(name=f"{n} eager processes", engine="eager", trials=trials[:n], processes=n, **common)
            for n in processes
        ),
        *(Variant(name=f"ensemble of {n}", engine="torch", trials=trials[:n], together=n, **common) for n in sizes),
    ]
    measured = in_turn(options.kept(variants), rounds=options.rounds, seconds=options.seconds)
    rates = {m.variant.together: spread(m.rates).median for m in measured if m.variant.engine == "torch" and m.rates}
    return Part(
        f"{precision}, width, depth, context, batch {shape}; densities 1/2 ... 1/128 and 1, one trial alone at 1/2, "
        "weight times mask; ratios round by round, with range:\n\n"
        f"{table(['way', 'thousand trial-tokens / s', 'over one eager trial', 'over torch.compile'], _rows(measured))}"
        f"\n\nKnee, the smallest ensemble within 10 % of the best: {knee(rates) if rates else '-'}"
        f"\n{left_out(measured)}",
        [values_of(m, shape=shape, precision=precision, device=device) for m in measured],
    )


def _rows(measured: list[Measured]) -> list[list[object]]:
    eager, compiled = (
        next((m.rates for m in measured if m.variant.engine == engine and m.variant.processes == 1), [])
        for engine in ("eager", "compiled")
    )
    return [
        [
            m.variant.name,
            f"{spread(m.rates).median / 1e3:.1f}" if m.rates else None,
            *(with_range(ratios(m.rates, base)) if m.rates and base else None for base in (eager, compiled)),
        ]
        for m in measured
    ]
