"""Ensembles on a GPU against the ways people train there: one eager trial, torch.compile, several processes.

Every way trains the same trials, the first n of them; the first has density 1/2, so that what all are compared with
multiplies its weights with masks, as sparse training does. The ceiling is what the step's products alone would reach,
those with weights, forward and backward, batched over the trials and captured in a CUDA graph. With compiled steps and
without (HPSWEEP_COMPILE). Written to run on a CPU too, with small numbers, so that it can be tested where there is no
GPU.
"""

from __future__ import annotations

from typing import Any, get_args

from benchmarks.record import knee, ratios, spread, table, with_range
from benchmarks.steady import DENSITIES, Options, Part, left_out, trials_of, values_of
from benchmarks.turns import Measured, in_turn
from benchmarks.variants import Variant
from hpsweep.spec import Precision

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WIDTHS = (64, 128, 256, 512)
SHAPE = "{width},4,128,16"  # 2048 tokens per step
PROCESSES = (2, 4, 8)
SIZES = (1, 4, 8, 16, 32, 64)
COMPILED_SIZES = (8, 64)  # compiling takes most of a minute for each
MASKED_FIRST = (*DENSITIES[1:], DENSITIES[0])
ONE = "one eager trial"
COLUMNS = ["way", "thousand trial-tokens / s", "over one eager trial", "over torch.compile", "of the products alone"]


def gpu(options: Options) -> Part:
    """Trial-tokens per second on the GPU of every way, and the ensemble size at the knee; says so without one."""
    import torch

    if not torch.cuda.is_available():
        return Part("Not measured: this needs a GPU, and torch sees none here. A CPU tells nothing of its speed.", [])
    parts = _quick(options) if options.quick else _all(options)
    text = "\n\n".join([f"On one {torch.cuda.get_device_name()}.", *(part.text for part in parts)])
    return Part(text, [value for part in parts for value in part.values])


def _all(options: Options) -> list[Part]:
    """Every width and precision: about three quarters of an hour, most of it for compiling."""
    return [
        compared(options, shape=SHAPE.format(width=width), precision=precision, processes=PROCESSES * (width == 256))
        for width in WIDTHS
        for precision in PRECISIONS
    ]


def _quick(options: Options) -> list[Part]:
    """About two minutes: widths 256 and 64 in bfloat16, and beside them what other precisions do at width 256."""
    wide, narrow = (SHAPE.format(width=width) for width in (256, 64))
    few: dict[str, Any] = {"sizes": (1, 16, 64), "compiled_sizes": (64,)}
    only: dict[str, Any] = {"sizes": (64,), "compiled_sizes": (), "compiled": None}
    return [
        *(compared(options, shape=shape, precision="bfloat16", **few) for shape in (wide, narrow)),
        *(compared(options, shape=wide, precision=other, **only) for other in PRECISIONS if other != "bfloat16"),
    ]


def compared(
    options: Options,
    *,
    precision: Precision = "float32",
    shape: str = SHAPE.format(width=256),
    device: str = "cuda",
    processes: tuple[int, ...] = (),
    sizes: tuple[int, ...] = SIZES,
    compiled_sizes: tuple[int, ...] = COMPILED_SIZES,
    compiled: str | None = "reduce-overhead",
) -> Part:
    """The ways in one precision, in turn: a table, and the knee."""
    seeds = -(-max((*sizes, *processes, *compiled_sizes)) // len(MASKED_FIRST))
    trials = trials_of(shape, MASKED_FIRST, seeds=seeds, precision=precision)
    largest = max(sizes)
    common: dict[str, Any] = {"device": device, "compiled": compiled or ""}
    variants = [
        Variant(name=ONE, engine="eager", trials=trials[:1], **common),
        *(
            Variant(name=f"one trial, torch.compile {mode}", engine="compiled", trials=trials[:1], **common)
            for mode in [compiled] * bool(compiled)
        ),
        *(
            Variant(name=f"{n} eager processes", engine="eager", trials=trials[:n], processes=n, **common)
            for n in processes
        ),
        *(Variant(name=f"ensemble of {n}", engine="torch", trials=trials[:n], together=n, **common) for n in sizes),
        *(
            Variant(
                name=f"ensemble of {n}, compiled",
                engine="torch",
                trials=trials[:n],
                together=n,
                compiles_step=True,
                **common,
            )
            for n in compiled_sizes
        ),
        Variant(
            name=f"products of {largest} alone", engine="products", trials=trials[:largest], together=largest, **common
        ),
    ]
    measured = in_turn(options.kept(variants), rounds=options.rounds, seconds=options.seconds)
    return Part(
        f"{precision}, width, depth, context, batch {shape}; densities 1/2 ... 1/128 and 1, one trial alone at 1/2, "
        f"weight times mask; ratios round by round, with range:\n\n{table(COLUMNS, _rows(measured))}"
        f"\n\nKnee, the smallest ensemble within 10 % of the best: {_knee(measured)}"
        f"\n{left_out(measured)}",
        [values_of(m, shape=shape, precision=precision, device=device) for m in measured],
    )


def _knee(measured: list[Measured]) -> str:
    rates = {
        m.variant.together: spread(m.rates).median
        for m in measured
        if m.variant.engine == "torch" and not m.variant.compiles_step and m.rates
    }
    return str(knee(rates)) if rates else "-"


def _rows(measured: list[Measured]) -> list[list[object]]:
    eager, compiled, products = (
        next((m.rates for m in measured if m.variant.engine == engine and m.variant.processes == 1), [])
        for engine in ("eager", "compiled", "products")
    )
    return [
        [
            m.variant.name,
            f"{spread(m.rates).median / 1e3:.1f}" if m.rates else None,
            *(with_range(ratios(m.rates, base)) if m.rates and base else None for base in (eager, compiled, products)),
        ]
        for m in measured
    ]
