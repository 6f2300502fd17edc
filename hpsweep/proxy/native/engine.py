"""Trials as the native engine sees them: their memory (memory.py), and training by the library in it.

The library lets go of the interpreter's lock meanwhile.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hpsweep.architectures import SPARSE, tensors
from hpsweep.proxy.data import Dataset, load_dataset, token_sequences, train_offsets, validation_windows
from hpsweep.proxy.divergence import loss_limit
from hpsweep.proxy.native.build import compiled_engine
from hpsweep.proxy.native.choice import Way, product_way, why_unsupported
from hpsweep.proxy.native.memory import (
    BlockMemory,
    Floats,
    MatrixMemory,
    ModelMemory,
    TensorMemory,
    aligned,
    aligned_rows,
    padded,
    pointer,
)
from hpsweep.proxy.outcome import (
    Finished,
    Outcome,
    Progress,
    check_precision,
    check_shapes,
    cpu_name,
    ensemble_outcome,
)
from hpsweep.proxy.schedule import lr_factor
from hpsweep.rules import masks
from hpsweep.rules.multipliers import attention_scale, readout_multiplier, tensor_numbers
from hpsweep.spec import Trial

_WAYS: dict[Way, int] = {"dense": 0, "sparse": 1, "half": 2}
_SLICE_SECONDS = 0.2  # of training between two looks at the clock, and at an interrupt
_EVALUATED = 64  # sequences between two looks at an interrupt


class NativeTrial:
    """A trial's weights, optimizer and batches, and its training by the native engine."""

    def __init__(self, trial: Trial, data: Dataset, drawn: dict[Any, Any] | None = None) -> None:
        """`drawn`: random numbers that trials of one seed share, kept there from the first that draws them."""
        self.trial = trial
        self.data = data
        if drawn is None:
            drawn = {}
        self._drawn = drawn
        self._library = compiled_engine()
        self._half = self._library.native_half_unit().decode()
        self._kept: list[Any] = []  # what the library holds pointers to
        self._arrays: dict[str, dict[str, Floats]] = {}
        self._shapes = tensors(trial, data.vocabulary)
        self._numbers = tensor_numbers(trial, data.vocabulary)
        self.offsets = self._draw(
            ("offsets", trial.seed),
            lambda: train_offsets(
                data, seed=trial.seed, steps=trial.total_steps, batch=trial.batch, context=trial.context
            ),
        )
        self._model = self._build()
        self._model.scratch = self._keep(aligned(self._library.native_scratch_floats(ctypes.byref(self._model))))

    @property
    def engine(self) -> str:
        """What a row says of its engine: in bfloat16 the unit that multiplies belongs to it."""
        if self.trial.precision == "float32":
            return "native"
        return f"native {self._half}"

    def steps(self, first: int, count: int, *, limit: float = math.inf) -> npt.NDArray[np.float64]:
        """Train `count` steps from step `first` (0-based); their losses, nats/token, shape (steps taken,).

        Not a number where the gradient was not finite. Stops after a loss that is not at most `limit`.
        """
        trial = self.trial
        tokens = self._tokens(token_sequences(self.data.train, self.offsets[first : first + count], trial.context))
        factors = np.array([lr_factor(trial, step) for step in range(first, first + count)], np.float32)
        losses = np.empty(count)
        each = np.empty(trial.batch)
        taken = self._library.native_train(
            ctypes.byref(self._model),
            *(pointer(tokens), count, first, pointer(factors), limit),
            *(pointer(losses), pointer(each)),
        )
        return losses[:taken]

    def train(self, progress: Callable[[int], None]) -> tuple[npt.NDArray[np.float64], int | None]:
        """Losses of all steps, not a number after divergence, and the step of it; `progress`: the steps taken."""
        total = self.trial.total_steps
        losses = np.full(total, np.nan)
        done = 0
        count = 1  # steps until the next look at the clock
        limit = math.inf  # the first loss, by which divergence is judged, is not known yet
        while done < total:
            started = time.perf_counter()
            some = self.steps(done, min(count, total - done), limit=limit)
            losses[done : done + len(some)] = some
            done += len(some)
            if not some[-1] <= limit:
                return losses, done - 1
            limit = loss_limit(losses[0], self.data.vocabulary)
            count = max(1, round(len(some) * _SLICE_SECONDS / (time.perf_counter() - started)))
            progress(done)
        return losses, None

    def evaluate(self, alive: Callable[[], None] = lambda: None) -> npt.NDArray[np.float64]:
        """Loss of every held-out sequence, nats/token; `alive` is called between some sequences and the next."""
        inputs, targets = validation_windows(self.data, self.trial.eval_sequences, self.trial.context)
        tokens = self._tokens(np.concatenate([inputs, targets[:, -1:]], 1))
        losses = np.empty(len(tokens))
        for i in range(0, len(tokens), _EVALUATED):
            some = tokens[i : i + _EVALUATED]
            found = losses[i : i + _EVALUATED]
            self._library.native_evaluate(ctypes.byref(self._model), pointer(some), len(some), pointer(found))
            alive()
        return losses

    def gradients(self, step: int) -> npt.NDArray[np.float64]:
        """Losses of the sequences of a step's batch, nats/token; `tensor` then gives their mean's gradients."""
        tokens = self._tokens(token_sequences(self.data.train, self.offsets[step], self.trial.context))
        losses = np.empty(self.trial.batch)
        self._library.native_gradients(ctypes.byref(self._model), pointer(tokens), pointer(losses))
        return losses

    def tensor(self, name: str, part: str = "value") -> Floats:
        """A tensor's value, gradient, first or second moment, in the tensor's shape; zero where no weight exists."""
        shape, _ = self._shapes[name]
        flat = self._arrays[name][part]
        if name in self._sparse:
            whole = np.zeros(shape, np.float32)
            whole[self._sparse[name]] = flat[: np.count_nonzero(self._sparse[name])]
            return whole
        if len(shape) == 1:
            return flat[: shape[0]].copy()
        rows = flat.reshape(*shape[:-1], -1)  # padded
        return rows[..., : shape[-1]].copy()

    def _tokens(self, found: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Tokens for the library, which takes rows of the embedding by them.

        Raises ValueError for one that is not in the vocabulary: data that is mapped from a file can change.
        """
        largest = found.max()
        if largest >= self.data.vocabulary:
            raise ValueError(
                f"{self.trial.data} has token {largest} now, and a vocabulary of {self.data.vocabulary} when training "
                "began: do not change it meanwhile."
            )
        return found.astype(np.int32)

    def _build(self) -> ModelMemory:
        trial = self.trial
        self._sparse: dict[str, npt.NDArray[np.bool_]] = {}
        blocks = (BlockMemory * trial.depth)(
            *[
                BlockMemory(
                    *[self._tensor(f"block{i}.{name}") for name in ("norm1", "norm2")],
                    *[
                        self._matrix(f"block{i}.{name}")
                        for name in ("attention.qkv", "attention.out", "mlp.in", "mlp.out")
                    ],
                )
                for i in range(trial.depth)
            ]
        )
        return ModelMemory(
            trial.width, trial.depth, trial.width // trial.head_size, trial.head_size, trial.context, trial.batch,
            self.data.vocabulary, trial.tied,
            self._numbers["embedding.token"].forward, attention_scale(trial), readout_multiplier(trial),
            trial.beta1, trial.beta2, trial.eps, trial.clip,
            token=self._matrix("embedding.token"),
            position=self._tensor("embedding.position"),
            blocks=blocks,
            norm=self._tensor("norm"),
            untied=MatrixMemory() if trial.tied else self._matrix("readout"),
        )  # fmt: skip

    def _matrix(self, name: str) -> MatrixMemory:
        (out, fan_in), kind = self._shapes[name]
        density = 1.0
        if kind in SPARSE:
            density = self.trial.density
        chosen = product_way(density, self.trial.precision, self._half)
        if chosen == "sparse":
            return self._sparse_matrix(name)
        result = MatrixMemory(self._tensor(name), out, fan_in, _WAYS[chosen])
        if density < 1:
            result.mask = self._keep(aligned_rows(self._mask(name).astype(np.float32)))
        if chosen == "half":
            result.pairs = self._keep(aligned(out * padded(-(-fan_in // 2))))
            result.pairs_transposed = self._keep(aligned(fan_in * padded(-(-out // 2))))
        return result

    def _sparse_matrix(self, name: str) -> MatrixMemory:
        (out, fan_in), _ = self._shapes[name]
        kept = self._sparse[name] = self._mask(name)
        row, column = (x.astype(np.int32) for x in np.nonzero(kept))
        by_column = np.argsort(column, kind="stable").astype(np.int32)
        result = MatrixMemory(self._tensor(name), out, fan_in, _WAYS["sparse"])
        result.start, result.start_transposed = (
            self._keep(np.concatenate([[0], np.cumsum(kept.sum(axis))]).astype(np.int32)) for axis in (1, 0)
        )
        result.row = self._keep(row)
        result.column = self._keep(column)
        result.row_transposed = self._keep(row[by_column])
        result.place = self._keep(by_column)
        result.transposed = self._keep(aligned(len(row)))
        return result

    def _tensor(self, name: str) -> TensorMemory:
        numbers = self._numbers[name]
        value = self._initial(name)
        arrays = {"value": value, **{part: aligned(value.size) for part in ("gradient", "first", "second")}}
        self._arrays[name] = arrays
        count = value.size
        if name in self._sparse:
            count = int(np.count_nonzero(self._sparse[name]))
        return TensorMemory(count, *map(self._keep, arrays.values()), numbers.lr, numbers.weight_decay)

    def _initial(self, name: str) -> Floats:
        """The tensor's first values as they are stored: padded rows, or the nonzeros."""
        shape, kind = self._shapes[name]
        if kind == "norm":
            return aligned_rows(np.ones((1, *shape), np.float32)).reshape(-1)
        seed = self.trial.seed
        normals = self._draw(("normals", seed, name, shape), lambda: masks.initial_normals(seed, name, shape))
        values = normals * np.float32(self._numbers[name].init_std)
        if name in self._sparse:
            nonzeros = values[self._sparse[name]]
            stored = aligned(nonzeros.size)
            stored[: nonzeros.size] = nonzeros
            return stored
        if kind in SPARSE:
            values = values * self._mask(name)
        return aligned_rows(values).reshape(-1)

    def _mask(self, name: str) -> npt.NDArray[np.bool_]:
        shape, _ = self._shapes[name]
        seed = self.trial.seed
        density = self.trial.density
        mask: npt.NDArray[np.bool_] = self._draw(
            ("mask", seed, name, shape, density), lambda: masks.mask(seed, name, shape, density)
        )
        return mask

    def _draw(self, key: Any, draw: Callable[[], Any]) -> Any:
        if key not in self._drawn:
            self._drawn[key] = draw()
        return self._drawn[key]

    def _keep(self, array: npt.NDArray[Any]) -> int:
        """The address of an array that lives as long as the trial."""
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return array.ctypes.data


def train_native(
    trials: Sequence[Trial],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> Outcome:
    """Train the trials, one after the other, each whole, those of one seed together; rows in the order of the trials.

    `progress` is called with (steps done, steps in all), `finished` with what came of each trial. Raises ValueError if
    the shapes differ, the data is unfit, the device is no CPU, or a trial is left to the torch engine; RuntimeError
    where the engine cannot be built.
    """
    if device != "cpu":
        raise ValueError(f"the native engine trains on a CPU, not on {device}; use engine torch, or auto.")
    for precision in {trial.precision for trial in trials}:
        check_precision(precision, device)
    for reason in filter(None, map(why_unsupported, trials)):
        raise ValueError(f"the native engine leaves this trial to torch: {reason}; use engine torch, or auto.")
    check_shapes(trials)
    data = load_dataset(trials[0].data)
    total = sum(trial.total_steps for trial in trials)
    before = 0  # steps of the trials that are done
    found: dict[int, Outcome] = {}
    seed = trials[0].seed
    drawn: dict[Any, Any] = {}  # random numbers that the trials of a seed share
    for i in sorted(range(len(trials)), key=lambda i: trials[i].seed):
        trial = trials[i]
        if trial.seed != seed:
            seed = trial.seed
            drawn = {}

        def report(steps: int, before: int = before) -> None:
            if progress is not None:
                progress(before + steps, total)

        found[i] = _trained(trial, data, drawn, report)
        before += trial.total_steps
        if finished is not None:
            finished(found[i])
    whole = [found[i] for i in range(len(trials))]
    curves = {name: [x for own in whole for x in own.curves[name]] for name in whole[0].curves}
    return Outcome(rows=[row for own in whole for row in own.rows], curves=curves)


def _trained(trial: Trial, data: Dataset, drawn: dict[Any, Any], report: Callable[[int], None]) -> Outcome:
    """What comes of one trial; `report` is called with the steps taken."""
    started = time.perf_counter()
    training = NativeTrial(trial, data, drawn)
    losses, diverged = training.train(report)
    validation = {}
    diverged_steps = {}
    if diverged is None:
        validation[0] = training.evaluate(lambda: report(trial.total_steps))
    else:
        diverged_steps[0] = diverged
    return ensemble_outcome(
        [trial],
        data,
        losses[:, None],
        validation,
        diverged_steps,
        device=cpu_name(),
        engine=training.engine,
        ensemble_size=1,
        torch_version=None,
        seconds=time.perf_counter() - started,
    )
