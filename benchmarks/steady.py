"""Steady-state speed of the engines: against eager processes, density, width, ensemble size and workers.

Each function is a part of `python -m benchmarks.throughput`: it measures, and returns a table and what is stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from benchmarks import matrices, peak
from benchmarks.record import knee, ratios, spread, table, with_range
from benchmarks.turns import Measured, in_turn
from benchmarks.variants import Engine, Variant, precision_name
from hpsweep.rules.count import flops_dense
from hpsweep.spec import Precision, Trial

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
SHAPES = ("64,2,64,8", "128,2,64,8", "256,2,64,8", "128,4,64,8", "128,2,128,8", "128,2,64,16", "128,4,128,16")
DENSITIES = tuple(2.0**-k for k in range(8))
VOCABULARY = 256


class Named(Protocol):
    """A way to train."""

    @property
    def name(self) -> str:
        """What it is called in tables."""


AnyNamed = TypeVar("AnyNamed", bound=Named)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long and how much is measured."""

    rounds: int = 5
    seconds: float = 0.8  # of a variant in a round
    repeats: int = 3  # of the end-to-end runs
    shapes: tuple[str, ...] = SHAPES  # width, depth, context, batch
    together: int = 4  # trials of a torch ensemble
    without: tuple[str, ...] = ()  # words: variants in whose name one occurs are left out
    quick: bool = False

    def kept(self, ways: Iterable[AnyNamed]) -> list[AnyNamed]:
        """Those that are to be measured, of variants or whatever else has a name."""
        return [way for way in ways if not self.leaves_out(way.name)]

    def leaves_out(self, name: str) -> bool:
        """Whether what is called so is not to be measured."""
        return any(word in name for word in self.without)


class Part(NamedTuple):
    """What a part of the benchmark found: as Markdown, and every value."""

    text: str
    values: list[dict[str, Any]]


def trials_of(
    shape: str, densities: Sequence[float] = DENSITIES, *, seeds: int = 1, precision: Precision = "float32"
) -> tuple[Trial, ...]:
    """A trial per seed and density of a shape, "width,depth,context,batch"; all densities of one seed come first."""
    width, depth, context, batch = (int(word) for word in shape.split(","))
    base = Trial(width=width, depth=depth, context=context, batch=batch, steps=5000, lr=2.0**-9, precision=precision)
    return tuple(base.replace(density=density, seed=seed) for seed in range(seeds) for density in densities)


def values_of(measured: Measured, **about: Any) -> dict[str, Any]:
    """What is stored of a variant: every round's value."""
    return {
        **about,
        "variant": measured.variant.name,
        "left_out": measured.left_out,
        "tokens_per_second": [round(rate, 1) for rate in measured.rates],
        "microseconds_per_token": [[round(1e6 * s, 3) for s in turn.seconds] for turn in measured.turns],
        "cores_of_others": [turn.load.others for turn in measured.turns],
        "cores_stolen": [turn.load.stolen for turn in measured.turns],
    }


def left_out(measured: Sequence[Measured]) -> str:
    """Which variants were not measured, and why; empty if all were."""
    reasons = {m.variant.name: m.left_out for m in measured if m.left_out}
    return "".join(f"\nLeft out: {name}: {reason}" for name, reason in reasons.items())


# --- against eager processes ---

BASELINE = "eager, float32, 2 processes x 1 thread"


def against_eager(shape: str, together: int) -> list[Variant]:
    """16 trials at densities 1 ... 1/128, trained in the ways that are compared."""
    both = {precision: trials_of(shape, seeds=2, precision=precision) for precision in PRECISIONS}
    half = both["float32"][: len(DENSITIES)]
    two = ", 2 processes"
    return [
        Variant(
            name="eager, float32, 1 process x 2 threads", engine="eager", trials=half, threads=2, every_trial=False
        ),
        *(
            Variant(
                name=f"eager, {precision_name(precision)}{two} x 1 thread",
                engine="eager",
                trials=both[precision],
                processes=2,
                every_trial=False,
            )
            for precision in PRECISIONS
        ),
        *(
            Variant(
                name=f"torch ensembles of {together}, {precision_name(precision)}{two}",
                engine="torch",
                trials=both[precision],
                together=together,
                processes=2,
            )
            for precision in PRECISIONS
        ),
        *(
            Variant(
                name=f"native, {precision_name(precision, 'native')}{two}",
                engine="native",
                trials=both[precision],
                processes=2,
            )
            for precision in PRECISIONS
        ),
    ]


def steady(options: Options) -> Part:
    """Trial-tokens per second of every variant and shape, and ratios to two eager processes."""
    names: list[str] = []
    rows, values, every = [], [], list[Measured]()
    for shape in options.shapes:
        variants = options.kept(against_eager(shape, options.together))
        measured = in_turn(variants, rounds=options.rounds, seconds=options.seconds)
        baseline = next((m.rates for m in measured if m.variant.name == BASELINE), [])
        names, every = [m.variant.name for m in measured], every + measured
        values += [values_of(m, shape=shape, ratios=_ratios(m.rates, baseline)) for m in measured]
        rows.append([shape.replace(",", ", "), *(_cell(m.rates, baseline) for m in measured)])
    text = table(["width, depth, context, batch", *names], rows)
    head = "Thousand trial-tokens per second, 16 trials at densities 1 ... 1/128; in brackets the ratio to two eager "
    return Part(
        f"{head}processes in float32, formed round by round, with its range.\n\n{text}\n{left_out(every)}", values
    )


def _ratios(rates: Sequence[float], baseline: Sequence[float]) -> list[float]:
    return [round(ratio, 4) for ratio in ratios(rates, baseline)] if rates and baseline else []


def _cell(rates: Sequence[float], baseline: Sequence[float]) -> str | None:
    if not rates:
        return None
    thousands = f"{spread(rates).median / 1e3:.1f}"
    if not baseline:
        return thousands
    return f"{thousands} ({with_range(ratios(rates, baseline))})"


# --- against density ---


def density(options: Options) -> Part:
    """Microseconds per token of a whole step at every density, on one core, and how much faster than dense."""
    densities = DENSITIES[::3] if options.quick else DENSITIES
    texts, values = [], []
    for width in (256,) if options.quick else (256, 1024):
        variants = options.kept(_by_density(f"{width},2,64,8", densities))
        measured = in_turn(variants, rounds=options.rounds, seconds=options.seconds)
        values += [values_of(m, width=width, densities=[t.density for t in m.variant.trials]) for m in measured]
        rows = [[f"1/{1 / d:.0f}" if d < 1 else "1", *(_at_density(m, d) for m in measured)] for d in densities]
        texts.append(f"Width {width}:\n\n{table(['density', *(m.variant.name for m in measured)], rows)}")
        texts[-1] += "\n" + left_out(measured)
    head = "Microseconds per token of a whole step on one core (times faster than dense, round by round, with range)."
    alone = _matrices(options, densities)
    return Part("\n\n".join([head, *texts, alone.text]), values + alone.values)


def _by_density(shape: str, densities: Sequence[float]) -> list[Variant]:
    ends = (densities[0], densities[-1])  # the torch engine multiplies zeros: these two say it
    return [
        Variant(name="torch, float32", engine="torch", trials=trials_of(shape, ends)),
        *(
            Variant(
                name=f"native, {precision_name(precision, 'native')}",
                engine="native",
                trials=trials_of(shape, densities, precision=precision),
            )
            for precision in PRECISIONS
        ),
    ]


def _at_density(measured: Measured, density: float) -> str | None:
    at = [i for i, trial in enumerate(measured.variant.trials) if trial.density == density]
    if not at or not measured.turns:
        return None
    dense, here = ([turn.seconds[i] for turn in measured.turns] for i in (0, at[0]))
    return f"{1e6 * spread(here).median:.2f} ({with_range(ratios(dense, here))})"


def _matrices(options: Options, densities: Sequence[float]) -> Part:
    """The native engine's matrices alone."""
    rows, values = [], []
    try:
        matrices.require_native()
        for width in (256, 1024):
            for precision in PRECISIONS:
                name = f"native matrix, {precision_name(precision, 'native')}"
                if options.leaves_out(name):
                    continue
                turns = matrices.seconds(width, densities, precision, rounds=options.rounds)
                faster = [ratios(turns[0], each) for each in turns]
                cells = [f"{1e6 * spread(t).median:.0f} ({with_range(f)})" for t, f in zip(turns, faster, strict=True)]
                rows.append([width, name, *cells])
                microseconds = [[round(1e6 * second, 2) for second in each] for each in turns]
                about = {"width": width, "variant": name, "densities": list(densities)}
                values.append({**about, "microseconds_of_a_matrix": microseconds})
    except RuntimeError as why:
        return Part(f"The native engine's matrices alone: not measured, {why}.", [])
    head = "Microseconds of one matrix, 4 width x width, 512 tokens, forward and both gradients "
    head += "(times faster than dense, round by round, with range):"
    columns = ["width", "matrix", *(f"{density:g}" for density in densities)]
    return Part(f"{head}\n\n{table(columns, rows)}", values)


# --- against width ---


def width(options: Options) -> Part:
    """Useful GFLOP/s of a whole step of dense training on one core, and the fraction of the peak in the same round."""
    widths = (64, 256) if options.quick else (64, 128, 256, 512, 1024)
    variants = [
        Variant(
            name=f"{engine}, {precision_name(precision, engine)}",
            engine=engine,
            trials=trials_of(f"{width},2,64,8", [1.0], precision=precision),
        )
        for width in widths
        for engine in ("torch", "native")
        for precision in PRECISIONS
    ]
    found: list[dict[str, float]] = []
    every = in_turn(
        options.kept(variants),
        rounds=options.rounds,
        seconds=options.seconds,
        meanwhile=lambda: found.append(peak.measured()),
    )
    peaks = {name: [one[name] for one in found] for name in found[0] if all(name in one for one in found)}
    rows, values = [], []
    for each in widths:
        measured = [m for m in every if m.variant.trials[0].width == each]
        (trial,) = trials_of(f"{each},2,64,8", [1.0])
        flops = flops_dense(trial, VOCABULARY) / trial.total_tokens
        values += [values_of(m, width=each, flops_per_token=flops, peaks=peaks) for m in measured]
        torch = {m.variant.trials[0].precision: m.rates for m in measured if m.variant.engine == "torch"}
        rows.append([each, *(_fraction(m, flops, peaks, torch) for m in measured)])
    known = ", ".join(f"{name} {spread(these).median:.0f} GFLOP/s" for name, these in peaks.items())
    head = "Useful GFLOP/s of a whole step of dense training on one core (percent of the peak, formed round by round, "
    head += "with range). Counted as is usual: per token 6 FLOPs for every weight of the hidden matrices and the "
    head += "readout, and 12 x depth x width x context for attention, over all positions, though half of them are "
    head += f"masked. Median peaks of a core: {known}."
    names = dict.fromkeys(m.variant.name for m in every)
    return Part(f"{head}\n\n{table(['width', *names], rows)}\n{left_out(every)}", values)


def _fraction(
    measured: Measured, flops: float, peaks: dict[str, list[float]], torch: dict[Precision, list[float]]
) -> str | None:
    """GFLOP/s, percent of the peak, and of the native engine the ratio to torch in the same precision."""
    if not measured.rates:
        return None
    precision = measured.variant.trials[0].precision
    gflops = [1e-9 * flops * rate for rate in measured.rates]
    said = [_percent(ratios(gflops, peaks[precision]))] if precision in peaks else []
    if measured.variant.engine == "native" and torch.get(precision):
        said.append(f"{with_range(ratios(measured.rates, torch[precision]))} x torch")
    return f"{spread(gflops).median:.0f}" + (f" ({', '.join(said)})" if said else "")


def _percent(fractions: Sequence[float]) -> str:
    median, low, high = (f"{100 * fraction:.0f}" for fraction in spread(fractions))
    return f"{median} %; {low}-{high}" if low != high else f"{median} %"


# --- against ensemble size and workers ---


def ensemble(options: Options) -> Part:
    """Time per token of the torch engine against the size of its ensembles, one process on one core."""
    sizes = (1, 4) if options.quick else (1, 2, 4, 8, 16)
    rows, values, every = [], [], list[Measured]()
    for each in (64,) if options.quick else (64, 128):
        trials = trials_of(f"{each},2,64,8", seeds=2)
        variants = [Variant(name=f"torch, {n} together", engine="torch", trials=trials, together=n) for n in sizes]
        measured = in_turn(options.kept(variants), rounds=options.rounds, seconds=options.seconds)
        values += [values_of(m, width=each, together=m.variant.together) for m in measured]
        rates = {m.variant.together: spread(m.rates).median for m in measured if m.rates}
        one, every = next((m.rates for m in measured if m.variant.together == 1), []), every + measured
        rows.append([each, *(_per_token(m.rates, one) for m in measured), knee(rates) if rates else None])
    head = "Microseconds per trial-token of the torch engine on one core against the size of its ensembles, 16 trials "
    columns = ["width", *dict.fromkeys(m.variant.name for m in every), "knee"]
    return Part(
        f"{head}(times faster than one at a time, with range; the knee is the smallest within 10 % of the best).\n\n"
        f"{table(columns, rows)}\n{left_out(every)}",
        values,
    )


def _per_token(rates: Sequence[float], one: Sequence[float]) -> str | None:
    """Microseconds per trial-token, and how much faster than one at a time, if that was measured."""
    if not rates:
        return None
    faster = f" ({with_range(ratios(rates, one))})" if one else ""
    return f"{1e6 / spread(rates).median:.2f}{faster}"


def workers(options: Options) -> Part:
    """Speed against the number of worker processes, one thread each."""
    cores = os.cpu_count() or 1
    counts = sorted({1, min(2, cores), cores})
    rows, values, missing = [], [], ""
    engines: tuple[tuple[Engine, int], ...] = (("eager", 1), ("torch", options.together), ("native", 1))
    for engine, together in engines:
        variants = [
            Variant(
                name=f"{engine}, float32",
                engine=engine,
                trials=trials_of("128,2,64,8", seeds=max(2, -(-count // len(DENSITIES)))),
                together=together,
                processes=count,
            )
            for count in counts
        ]
        measured = in_turn(options.kept(variants), rounds=options.rounds, seconds=options.seconds)
        if not measured:
            continue
        values += [values_of(m, workers=m.variant.processes) for m in measured]
        rows.append([measured[0].variant.name, *(_cell(m.rates, measured[0].rates) for m in measured)])
        missing += left_out(measured)
    columns = ["engine", *(f"{count} worker{'s' * (count > 1)}" for count in counts)]
    head = (
        f"Thousand trial-tokens per second at width 128 against workers, on {cores} cores (ratio to one worker, range)."
    )
    return Part(f"{head}\n\n{table(columns, rows)}\n{missing}", values)
