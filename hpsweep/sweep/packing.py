"""Which trials are trained together, and in which order: what a trial costs, how ensembles are cut and arranged."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpsweep.architectures import FLOPS_OF_A_WEIGHT
from hpsweep.proxy import native
from hpsweep.rules import count
from hpsweep.spec import BUILT_IN, Trial
from hpsweep.sweep.worker import Ensemble

if TYPE_CHECKING:
    from hpsweep.proxy.outcome import Trained

CPU_ENSEMBLE = 4
"""Trials that the torch engine trains together on a core, unless said otherwise."""
TORCH_WORK = 1.5e12
"""The cost of such an ensemble at most, unless it is of one trial: half a minute at 50 GFLOP/s.

Its trials advance together, so that a kill loses all of them; and long trials gain nothing from one another on a core.
"""
GPU_ENSEMBLE = 64
"""Trials trained together on a GPU, unless said otherwise, and more where they are small, up to GPU_TOKENS."""
GPU_TOKENS = 2**17
"""Tokens of all trials in a step that keep a GPU busy: small trials are trained together until they have so many.

The engine trains in parts what does not fit into the memory of the GPU, so neither number needs to know it."""
NATIVE_WORK = (2e11, 6e12)
"""The cost of an ensemble of the native engine, one trial after the other: from a second to half a minute of a core.

Less, and messages would count; more, and much would be lost with a worker. In between it is a share of all work, one
in NATIVE_SHARES per worker, so that workers finish together and large sweeps do not leave a file for every trial."""
NATIVE_SHARES = 64
NATIVE_WEIGHT = {"dense": 1.0, "sparse": 2.8, "half": 0.57, "rest": 1.5}
"""What a FLOP costs in the native engine: in hidden matrices by the way that they are multiplied, and in the rest.

The rest is readout and attention, and stands for all that no density shrinks. Chosen to fit times of one machine, to a
digit or two: native's steps by density and by width in results/reference/bench, the trials of
results/reference/lr_by_density, and the table of crossovers in docs/engine.md. tests/sweep/test_cost.py says how well.
"""
_UNIT = "avx512_bf16"  # what is taken to multiply in bfloat16


Sizes = Callable[[Trial], dict[str, Any]]
"""The columns of a trial's sizes."""


class Cost:
    """What a trial costs in its engine, in FLOPs, which the time goes by.

    In the torch engine, and where the native one hands over to it, the FLOPs with zeros multiplied. In the native
    engine those that dense matrices in float32 would do in the same time: NATIVE_WEIGHT times the FLOPs of each kind,
    of the nonzeros alone where the engine multiplies them alone. Which unit multiplies in bfloat16 is not known before
    the engine is built: it is taken to be AVX-512's. With AMX, densities from 0.07 to 0.2 are multiplied whole instead;
    without either, those from 0.2 to 0.32 by their nonzeros, and bfloat16 is no faster than float32.
    """

    def __init__(self, data: Mapping[str, Trained], engine: str = "torch", sizes: Sizes | None = None) -> None:
        self.data = data
        self.engine = engine
        self.sizes = sizes or self._of_built_in
        self.known: dict[tuple[Any, ...], float] = {}

    def __call__(self, trial: Trial) -> float:
        """The cost in FLOPs; trials of one shape and density have the same."""
        key = (trial.shape, trial.density)
        if key not in self.known:
            self.known[key] = self.stored({**trial.resolved, **self.sizes(trial)})
        return self.known[key]

    def _of_built_in(self, trial: Trial) -> dict[str, Any]:
        vocabulary = self.data[trial.data].vocabulary
        assert vocabulary is not None
        return count.size_columns(trial, vocabulary)

    def stored(self, row: Mapping[str, Any]) -> float:
        """The cost of a stored trial in FLOPs, 0 where its FLOPs are not known."""
        if self.engine != "native" or native.too_long(row["context"], row["depth"], row["width"] // row["head_size"]):
            if row["flops_dense"] is None and row["model"] != BUILT_IN:  # told by nobody: as of a GPT of its width
                return float(6 * 12 * row["width"] ** 2 * row["depth"] * row["tokens"])
            return row["flops_dense"] or 0.0
        if not row["flops_sparse"]:
            return 0.0
        way = native.product_way(row["density"], row["precision"], _UNIT)
        each = float(FLOPS_OF_A_WEIGHT * row["tokens"])
        weights: int = row["hidden_parameters"]
        if way == "sparse":  # the zeros of hidden matrices are left out
            weights = row["hidden_nonzeros"]
        rest: float = row["flops_sparse"] - each * row["hidden_nonzeros"]
        return NATIVE_WEIGHT[way] * each * weights + NATIVE_WEIGHT["rest"] * rest


def default_size(engine: str, device: str) -> int | None:
    """Trials per ensemble; None: as the work of the native engine's ensembles has it."""
    if device == "cuda":
        return GPU_ENSEMBLE
    if engine == "native":
        return None
    return CPU_ENSEMBLE


def default_work(device: str) -> float:
    """The cost of an ensemble of several trials that torch trains at most, unless said otherwise."""
    if device == "cpu":
        return TORCH_WORK
    return math.inf


def default_tokens(device: str) -> int:
    """Tokens of a step up to which an ensemble may have more trials than its size, unless said otherwise."""
    if device == "cuda":
        return GPU_TOKENS
    return 0


def arranged_ensembles(
    trials: Iterable[Trial],
    size: int | None,
    workers: int,
    cost: Callable[[Trial], float],
    most_work: float = math.inf,
    step_tokens: int = 0,
) -> list[Ensemble]:
    """Ensembles of at most `size` trials, or else of NATIVE_WORK, in the order of training.

    An ensemble of several trials that torch trains costs at most `most_work`. It has more than `size` trials where
    they do not have `step_tokens` in a step.

    All shapes advance evenly, the costliest first, so that coarse points of all of them come early; but an ensemble
    that would end after all others if it waited any longer comes next. Workers that take the first that waits whenever
    they are free finish together, as far as costs are known and the shortest ensembles allow.
    """
    shapes: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        shapes.setdefault(trial.shape, []).append(trial)
    whole = {shape: sum(map(cost, members)) for shape, members in shapes.items()}
    total = sum(whole.values())
    least, most = NATIVE_WORK
    work_each = min(max(least, total / (workers * NATIVE_SHARES)), most)
    ensembles: list[Ensemble] = []
    work: list[float] = []  # of every ensemble, FLOPs
    before: list[float] = []  # the part of its shape's work that comes before it
    for shape, members in shapes.items():
        share = max(1, round(workers * whole[shape] / total))  # of the workers
        together = size
        if not together and native.why_unsupported(members[0]):  # torch trains these
            together = CPU_ENSEMBLE
        if together:
            together = max(together, step_tokens // (members[0].batch * members[0].context))
            together = max(1, int(min(together, most_work / max(map(cost, members)))))
        if together:
            cut = packed_ensembles(members, together, share)
        else:
            cut = packed_ensembles(members, work_each, share, cost)
        costs = [sum(map(cost, ensemble)) for ensemble in cut]
        ensembles += cut
        work += costs
        before += [done / whole[shape] for done in itertools.accumulate(costs[:-1], initial=0.0)]
    return [ensembles[i] for i in _order(work, before, workers)]


def packed_ensembles(
    trials: Sequence[Trial], most: float, multiple: int = 1, weight: Callable[[Trial], float] = lambda _: 1.0
) -> list[Ensemble]:
    """The trials in their order, cut into ensembles of about equal weight: at most `most`, and the heaviest trial more.

    Of equal trials at most `most`. The number of ensembles is a multiple of `multiple` (workers) where there are trials
    enough, so that workers finish together.
    """
    weights = [weight(trial) for trial in trials]
    whole = sum(weights)
    number = multiple * math.ceil(whole / most / multiple)
    until = itertools.accumulate(weights)
    # A trial belongs to the ensemble in whose share of the whole weight its middle lies.
    middles = ((end - own / 2) * number / whole for end, own in zip(until, weights, strict=True))
    pairs = zip(middles, trials, strict=True)
    groups = itertools.groupby(pairs, key=lambda pair: int(pair[0]))
    return [tuple(trial for _, trial in group) for _, group in groups]


def _order(work: Sequence[float], before: Sequence[float], workers: int) -> list[int]:
    """The order of ensembles by `before`, but that of the longest that waits as soon as waiting would delay the end.

    That is where the worker that is free next could not end it in an even share of the time after another one.
    """
    in_turn = deque(sorted(range(len(work)), key=lambda i: (before[i], -work[i])))
    by_length = deque(sorted(range(len(work)), key=lambda i: -work[i]))
    free = [0.0] * workers  # when each will have trained what it has, a heap
    share = sum(work) / workers
    order: dict[int, None] = {}
    while in_turn:
        chosen = in_turn[0]
        longest = by_length[0]
        if free[0] + work[chosen] + work[longest] > share:  # it would end after all others
            chosen = longest
        order[chosen] = None
        heapq.heapreplace(free, free[0] + work[chosen])
        for waiting in (in_turn, by_length):
            while waiting and waiting[0] in order:
                waiting.popleft()
    return list(order)
