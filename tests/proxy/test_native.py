"""The native engine as a whole against the torch engine."""

from __future__ import annotations

import dataclasses
import functools
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsweep.architectures import tensors
from hpsweep.proxy import device, model, native
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.data import Dataset, load_dataset, token_windows, train_offsets
from hpsweep.proxy.native import build, choice, engine
from hpsweep.proxy.native.engine import NativeTrial
from hpsweep.proxy.optimizer import mask_gradients
from hpsweep.proxy.outcome import Outcome
from hpsweep.proxy.schedule import lr_factor
from hpsweep.spec import Trial
from hpsweep.store import CURVES, RUNS
from tests.proxy.native_library import SANITIZER, TARGET, TARGETS, pieces, use

pytestmark = pytest.mark.skipif(native.why_unavailable() is not None, reason="needs a C compiler")

SMALL: dict[str, Any] = {"width": 64, "depth": 2, "head_size": 16, "context": 32, "batch": 4, "steps": 40}
BASE = Trial(**SMALL, base_width=32, eval_sequences=16, lr=2.0**-8, weight_decay=0.1, clip=0.5)
AWKWARD = BASE.replace(width=40, head_size=8, context=50, batch=3, eval_sequences=11, steps=20)
TRIALS = {
    "dense": BASE.replace(),
    "attention as published": BASE.replace(base_head_size=1, density=1 / 2),
    "attention from smaller heads, and its alpha": BASE.replace(base_head_size=8, alpha_attention=1.5, scheme="mup"),
    "half": BASE.replace(density=1 / 2, seed=1, weight_decay_rule="independent"),
    "quarter, mup, alphas": BASE.replace(
        density=1 / 4, scheme="mup", lr=2.0**-7, alpha_input=3.0, alpha_output=2.0, weight_decay_rule="independent"
    ),
    "quarter, untied": BASE.replace(density=1 / 4, tied=False, final_lr_fraction=0.25, warmup_fraction=0.0),
    "sixteenth, sp": BASE.replace(density=1 / 16, scheme="sp", init_std=0.02, warmup_fraction=0.5),
    "sixty-fourth": BASE.replace(density=1 / 64, embedding_lr_mult=4.0, base_density=1 / 4, seed=2),
    "sixty-fourth, sp, untied": BASE.replace(density=1 / 64, scheme="sp", tied=False, beta1=0.8, beta2=0.99, eps=1e-6),
    "never clipped": BASE.replace(clip=1e9, eval_sequences=130),
    "width 40": AWKWARD.replace(),
    "width 40, sparse": AWKWARD.replace(density=1 / 16, tied=False),
    "width 48, context 200": AWKWARD.replace(width=48, head_size=12, context=200, depth=1, density=1 / 2),
    "batch 5": AWKWARD.replace(width=24, head_size=4, batch=5, depth=3, context=17),
    "one head, context 1": AWKWARD.replace(width=16, head_size=16, context=1, batch=1, depth=1),
}


@pytest.fixture(scope="module", autouse=True)
def library() -> Iterator[None]:
    """Under a sanitizer every test trains by its library, and by that of a lesser processor where one is named."""
    with pytest.MonkeyPatch.context() as patch:
        if SANITIZER or TARGET:
            use(TARGET or "this processor", patch)
        yield


def _bin_source(folder: Path, vocabulary: int) -> str:
    """Tokens of a small walk, repeated: an odd or a large vocabulary, and something to learn."""
    steps = np.random.default_rng(0).integers(1, 4, 30_000)
    (folder / "tokens.bin").write_bytes((np.cumsum(steps) % min(vocabulary, 101) * (vocabulary // 101)).astype("<u2"))
    return f"bin:{folder / 'tokens.bin'}?dtype=uint16&vocabulary={vocabulary}"


def _torch_history(trials: Sequence[Trial]) -> tuple[np.ndarray, torch_engine.Ensemble]:
    """Losses of every step and trial by the torch engine, and what it trained."""
    ensemble = torch_engine.Ensemble(trials, load_dataset(trials[0].data), torch.device("cpu"))
    history = torch.full((trials[0].total_steps, len(trials)), torch.nan)
    for step in range(trials[0].total_steps):
        ensemble.step(step, history)
    return history.double().numpy(), ensemble


def _gradients(ensemble: torch_engine.Ensemble, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The masked gradients of one trial's mean loss, and the losses of its sequences."""
    trial = ensemble.trials[0]
    parameters = {name: p.clone().requires_grad_(True) for name, p in ensemble.parameters.items()}
    steps, batch, context = trial.total_steps, trial.batch, trial.context
    offsets = train_offsets(ensemble.data, seed=trial.seed, steps=steps, batch=batch, context=context)[step]
    inputs, targets = (torch.from_numpy(x)[None] for x in token_windows(ensemble.data.train, offsets, context))
    with device.in_precision(trial, torch.device("cpu")):
        losses = model.sequence_losses(parameters, ensemble.multipliers, inputs, targets, head_size=trial.head_size)
    found = torch.autograd.grad(losses.mean(), list(parameters.values()))
    by_name = {name: g.contiguous() for name, g in zip(parameters, found, strict=True)}
    mask_gradients(by_name, ensemble.masks)
    return by_name, losses[0].detach()


def _check_beginning(trial: Trial, within: float = 1e-6) -> None:
    """Weights bit for bit, the first losses, every gradient and the held-out losses as the torch engine has them."""
    data = load_dataset(trial.data)
    training, reference = NativeTrial(trial, data), torch_engine.Ensemble([trial], data, torch.device("cpu"))
    for name, parameter in reference.parameters.items():
        np.testing.assert_array_equal(training.tensor(name), parameter[0].numpy(), err_msg=name)
    gradients, losses = _gradients(reference, 0)
    np.testing.assert_allclose(training.gradients(0), losses, rtol=0, atol=within)
    for name, gradient in gradients.items():
        largest = float(gradient.abs().max())
        np.testing.assert_allclose(
            training.tensor(name, "gradient"), gradient[0], rtol=0, atol=1e-5 * largest, err_msg=name
        )
    np.testing.assert_allclose(training.evaluate(), reference.evaluate()[0], rtol=0, atol=2 * within)


def _check_training(trial: Trial, within: float = 1e-6) -> None:
    """Losses of every step, the weights they lead to and the held-out losses after them."""
    expected, reference = _torch_history([trial])
    training = NativeTrial(trial, load_dataset(trial.data))
    losses = training.steps(0, trial.total_steps)
    np.testing.assert_allclose(losses[0], expected[0, 0], rtol=0, atol=within)
    np.testing.assert_allclose(losses, expected[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(training.evaluate(), reference.evaluate()[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_begins_as_with_torch_and_has_its_gradients(name: str) -> None:
    _check_beginning(TRIALS[name])


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_trains_as_with_torch(name: str) -> None:
    _check_training(TRIALS[name])


def test_the_loss_is_the_mean_over_any_batch() -> None:
    _check_training(BASE.replace(batch=9, density=1 / 2))


@pytest.mark.parametrize(("vocabulary", "tied"), [(101, True), (257, False)])
def test_an_odd_vocabulary_trains_as_with_torch(tmp_path: Path, vocabulary: int, tied: bool) -> None:
    trial = AWKWARD.replace(data=_bin_source(tmp_path, vocabulary), tied=tied)
    _check_beginning(trial)
    _check_training(trial)


def test_a_large_vocabulary_trains_as_with_torch(tmp_path: Path) -> None:
    data = _bin_source(tmp_path, 50304)
    trial = AWKWARD.replace(data=data, width=16, context=20, steps=4, density=1 / 4)
    _check_beginning(trial, within=4e-6)  # four units in the last place of a loss of 11
    _check_training(trial, within=4e-6)


def test_clipping_and_decay_act_in_these_trials() -> None:
    """Else the comparisons above would say nothing of them."""
    for field, other in (("clip", 1e9), ("weight_decay", 0.0), ("weight_decay_rule", "independent")):
        data = load_dataset(BASE.data)
        one, two = (NativeTrial(t, data).steps(0, 40) for t in (BASE, BASE.replace(**{field: other})))
        assert np.abs(one - two).max() > 4e-4, field


def test_the_norm_that_clips_is_torchs_a_millionth_larger() -> None:
    """Seen where gradients are as small: in what is added to AdamW's first moment."""
    trial = BASE.replace(alpha_output=1e-6, clip=1e-7, steps=2, warmup_fraction=0.0)
    training = NativeTrial(trial, load_dataset(trial.data))
    training.steps(0, 1)
    _, reference = _torch_history([trial.replace(steps=1)])
    for name, moments in reference.optimizer.moments.items():
        expected = moments.exp_avg[0].numpy()
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(training.tensor(name, "first"), expected, rtol=0, atol=1e-4 * largest, err_msg=name)


def test_a_large_batch_needs_no_large_stack() -> None:
    program = (
        "import threading; from hpsweep.proxy import native; from hpsweep.spec import Trial\n"
        "trial = Trial(width=4, head_size=4, depth=1, context=1, batch=40_000, steps=1, eval_sequences=2)\n"
        "threading.stack_size(256 * 1024)\n"
        "thread = threading.Thread(target=lambda: print(native.train_native([trial]).rows[0]['status']))\n"
        "thread.start(); thread.join()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


LESSER = {
    "dense": AWKWARD.replace(steps=8),
    "untied": AWKWARD.replace(tied=False, width=36, head_size=12, steps=8),
    "sparse": AWKWARD.replace(density=1 / 16, tied=False, steps=8),
    "masked": BASE.replace(density=1 / 2, steps=8),
}


@pytest.mark.parametrize("name", LESSER)
@pytest.mark.parametrize("target", TARGETS)
def test_a_lesser_processor_trains_as_torch_does(target: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(target, monkeypatch)
    _check_beginning(LESSER[name])
    _check_training(LESSER[name])


HALF = {
    "dense": BASE.replace(steps=30, precision="bfloat16"),
    "masked": BASE.replace(steps=30, precision="bfloat16", density=1 / 2),
    "sparse": BASE.replace(steps=30, precision="bfloat16", density=1 / 64),
    "awkward": AWKWARD.replace(steps=30, precision="bfloat16", tied=False),
}


@functools.cache
def _torchs_first_gradients(trial: Trial) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    ensemble = torch_engine.Ensemble([trial], load_dataset(trial.data), torch.device("cpu"))
    return _gradients(ensemble, 0)


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("target", TARGETS)
def test_gradients_in_bfloat16_are_close_to_torchs(target: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(target, monkeypatch)
    trial, data = HALF[name], load_dataset("stdlib")
    training, (expected, losses) = NativeTrial(trial, data), _torchs_first_gradients(trial)
    np.testing.assert_allclose(training.gradients(0), losses, rtol=0, atol=5e-3)
    for tensor, gradient in expected.items():
        largest = float(gradient.abs().max())
        np.testing.assert_allclose(
            training.tensor(tensor, "gradient"), gradient[0], rtol=0, atol=0.03 * largest, err_msg=tensor
        )


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("target", TARGETS)
def test_bfloat16_trains_close_to_torchs_and_to_float32(
    target: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(target, monkeypatch)
    trial = HALF[name]
    half, single = (_held_out(native.train_native([t])) for t in (trial, trial.replace(precision="float32")))
    assert half == pytest.approx(_torchs_held_out(trial), abs=0.02)
    assert half != single
    assert half == pytest.approx(single, abs=0.02)


@functools.cache
def _torchs_held_out(trial: Trial) -> float:
    return _held_out(
        torch_engine.train_ensemble([trial])
    )  # seconds where a processor has no bfloat16: once for all targets


def _held_out(outcome: Outcome) -> float:
    return float(outcome.rows[0]["val_loss"])


MIXED = [
    BASE.replace(),
    BASE.replace(density=1 / 16, scheme="sp", lr=2.0**-7),
    BASE.replace(density=1 / 2, seed=3, tied=True),
    BASE.replace(density=1 / 16, seed=3),
]


@pytest.fixture(scope="module")
def both() -> tuple[Outcome, Outcome]:
    trials = [*MIXED, BASE.replace(lr=1e6)]
    return native.train_native(trials), torch_engine.train_ensemble(trials)


def test_rows_and_curves_are_those_of_the_torch_engine(both: tuple[Outcome, Outcome]) -> None:
    ours, theirs = both
    own = {"engine", "ensemble_size", "seconds", "finished_at", "torch_version", "device"}
    loose = {"val_loss", "val_loss_se", "train_loss", "initial_loss"}
    for a, b in zip(ours.rows, theirs.rows, strict=True):
        assert set(a) == set(b)
        assert {k: v for k, v in a.items() if k not in own | loose} == {
            k: v for k, v in b.items() if k not in own | loose
        }
        assert {k: a[k] for k in loose & set(a)} == pytest.approx({k: b[k] for k in loose & set(b)}, abs=1e-4)
        assert (a["engine"], a["ensemble_size"], a["torch_version"]) == ("native", 1, None)
        assert a["seconds"] > 0
    driver = {
        "trial_id",
        "hpsweep_version",
        "optuna_version",
        "commit",
        "attempts",
        "error",
        "diverged_step",
        "code_hash",
    }
    assert all(set(row) | driver == set(RUNS.names) for row in ours.rows if row["status"] == "ok")
    assert list(ours.curves) == CURVES.names
    kept = range(
        len(MIXED) * 40
    )  # those of the trial that diverges end where it is not a number, which rounding decides
    for column in ("trial_id", "step", "tokens"):
        assert [ours.curves[column][i] for i in kept] == [theirs.curves[column][i] for i in kept]
    for column in ("train_loss", "val_loss"):
        a, b = (np.array([outcome.curves[column][i] for i in kept], float) for outcome in both)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_a_diverging_trial_is_recorded_with_its_step(both: tuple[Outcome, Outcome]) -> None:
    ours, theirs = (outcome.rows[len(MIXED)] for outcome in both)
    assert ours["status"] == theirs["status"] == "diverged"
    assert 0 < ours["diverged_step"] == theirs["diverged_step"] < 39
    assert "val_loss" not in ours


def test_a_bfloat16_row_names_the_unit_that_multiplied() -> None:
    row = native.train_native([BASE.replace(precision="bfloat16", steps=2)]).rows[0]
    assert row["engine"].split() == ["native", native.engine.compiled_engine().native_half_unit().decode()]


def test_a_first_loss_that_is_not_a_number_is_divergence_at_step_0() -> None:
    rows = native.train_native([BASE.replace(init_std=1e30, steps=3), BASE.replace(steps=3)]).rows
    assert [row["status"] for row in rows] == ["diverged", "ok"]
    assert rows[0]["diverged_step"] == 0
    assert rows[0]["initial_loss"] is None


def test_a_gradient_that_is_not_finite_makes_the_loss_not_a_number() -> None:
    training = NativeTrial(BASE.replace(tied=False), load_dataset(BASE.data))
    training._arrays["norm"]["value"][:] *= 1e30
    training._arrays["readout"]["value"][:] *= 1e-30  # the same logits, and a gradient whose square overflows
    assert np.isfinite(training.gradients(0)).all()
    losses = training.steps(0, 3, limit=1e9)
    assert len(losses) == 1
    assert np.isnan(losses[0])


def test_a_loss_that_is_twice_too_high_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    uniform = math.log(256)
    for first, second, diverged in (
        (1.0, 1.99 * uniform, None),
        (1.0, 2.01 * uniform, 1),
        (8.0, 15.9, None),
        (8.0, 16.1, 1),
    ):
        training = NativeTrial(BASE.replace(steps=3, warmup_fraction=0.0), load_dataset(BASE.data))
        made = [first, second, 1.0]  # in one slice with what comes after

        def steps(start: int, count: int, *, limit: float = math.inf, made: list[float] = made) -> np.ndarray:
            some = np.array(made[start : start + count])
            beyond = np.flatnonzero(~(some <= limit))
            return some[: beyond[0] + 1] if len(beyond) else some

        monkeypatch.setattr(training, "steps", steps)
        assert training.train(lambda _: None)[1] == diverged


def test_training_stops_right_after_a_loss_above_the_limit() -> None:
    data = load_dataset(BASE.data)
    losses = NativeTrial(BASE, data).steps(0, 40)
    rising = int(np.flatnonzero(losses > losses[1] + 1e-9)[0]) if (losses > losses[1]).any() else 0
    limit = losses[rising] - 1e-9 if rising else losses[0] - 1e-9
    cut = NativeTrial(BASE, data).steps(0, 40, limit=limit)
    assert len(cut) == np.flatnonzero(losses > limit)[0] + 1
    np.testing.assert_array_equal(cut, losses[: len(cut)])


def test_each_precision_has_its_own_crossover(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(BASE.data)
    unit = NativeTrial(BASE.replace(precision="bfloat16"), data).engine.removeprefix("native ")
    monkeypatch.setattr(choice, "SPARSE_BELOW", {"float32": 0.3, unit: 0.1})
    sparse = {
        (precision, density): bool(NativeTrial(BASE.replace(precision=precision, density=density), data)._sparse)
        for precision in ("float32", "bfloat16")
        for density in (0.4, 0.2, 0.05)
    }
    assert list(sparse.values()) == [False, True, True, False, False, True]


@pytest.mark.parametrize("rule", ["coupled", "independent"])
@pytest.mark.parametrize(("density", "precision"), [(1 / 2, "float32"), (1 / 2, "bfloat16"), (1 / 64, "float32")])
def test_masked_weights_are_exactly_zero_after_100_steps_with_decay(rule: Any, density: float, precision: Any) -> None:
    trial = BASE.replace(
        width=32, steps=100, density=density, weight_decay=0.5, weight_decay_rule=rule, precision=precision
    )
    training = NativeTrial(trial, load_dataset(trial.data))
    training.steps(0, 100)
    for name, (_, kind) in tensors(trial, 256).items():
        if kind in ("hidden", "residual_out"):
            kept = training._mask(name)
            for part in ("value", "gradient", "first", "second"):
                assert (training.tensor(name, part)[~kept] == 0).all()
            assert (training.tensor(name)[kept] != 0).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_alone_packed_in_slices_and_in_two_threads_are_bit_identical(precision: Any) -> None:
    trials = [t.replace(precision=precision, batch=5) for t in MIXED]
    data, drawn = load_dataset(BASE.data), {}

    def train(trial: Trial, slices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        training, losses, done = NativeTrial(trial, data, drawn), [], 0
        for count in slices:
            losses.append(training.steps(done, count))
            done += count
        return np.concatenate(losses), training.evaluate()

    alone = [train(trial, [40]) for trial in trials]
    sliced = [train(trial, [1, 7, 2, 30]) for trial in trials]
    with ThreadPoolExecutor(2) as pool:
        threaded = list(pool.map(lambda trial: train(trial, [13, 27]), trials))
    packed = native.train_native(trials)
    for i, (losses, validation) in enumerate(alone):
        for other in (sliced[i], threaded[i]):
            np.testing.assert_array_equal(other[0], losses)
            np.testing.assert_array_equal(other[1], validation)
        assert packed.rows[i]["val_loss"] == validation.mean()
        place = packed.curves["trial_id"].index(trials[i].trial_id)
        np.testing.assert_array_equal(packed.curves["train_loss"][place : place + 40], losses)


def test_a_diverging_trial_leaves_its_neighbours_bit_identical(both: tuple[Outcome, Outcome]) -> None:
    for trial, row in zip(MIXED, both[0].rows, strict=False):
        assert _held_out(native.train_native([trial])) == row["val_loss"]


def test_seeds_are_trained_one_after_the_other_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [BASE.replace(steps=3, density=density, seed=seed) for density in (1, 1 / 8) for seed in (0, 1, 2)]
    alone = [native.train_native([trial]).rows[0]["val_loss"] for trial in trials]
    seeds: list[set[int]] = []

    class Watched(NativeTrial):
        def __init__(self, trial: Trial, data: Dataset, drawn: dict[Any, Any]) -> None:
            super().__init__(trial, data, drawn)
            seeds.append({key[1] for key in drawn})

    monkeypatch.setattr(engine, "NativeTrial", Watched)
    rows = native.train_native(trials).rows
    assert seeds == [{0}, {0}, {1}, {1}, {2}, {2}]
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in trials]
    assert [row["val_loss"] for row in rows] == alone


def test_a_token_that_is_in_no_vocabulary_is_refused() -> None:
    """As when a file is changed that is in use."""
    data = load_dataset(BASE.data)
    for token in (data.vocabulary, 2**32 - 1):
        wrong = np.full(5000, token, np.uint32)
        training = NativeTrial(BASE, dataclasses.replace(data, train=wrong, validation=wrong))
        for call in (lambda: training.steps(0, 2), training.evaluate, lambda: training.gradients(0)):  # noqa: B023
            with pytest.raises(ValueError, match=f"has token {token} now, and a vocabulary of 256"):
                call()


def test_progress_counts_the_steps_of_all_trials() -> None:
    seen: list[tuple[int, int]] = []
    native.train_native([BASE.replace(steps=30), BASE.replace(steps=30, seed=1)], progress=lambda *x: seen.append(x))
    assert seen[-1] == (60, 60)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {60}


def test_slices_of_the_schedule_are_the_trials_own() -> None:
    """A slice that begins later takes the later rates, and AdamW's later corrections."""
    trial = BASE.replace(warmup_fraction=0.5)
    assert len({lr_factor(trial, step) for step in range(20)}) == 20
    training = NativeTrial(trial, load_dataset(trial.data))
    for step in range(trial.steps):
        before = training.tensor("norm").astype(float)  # which does not decay
        training.steps(step, 1)
        first, second = (training.tensor("norm", part).astype(float) for part in ("first", "second"))
        first /= 1 - trial.beta1 ** (step + 1)
        second /= 1 - trial.beta2 ** (step + 1)
        expected = -trial.lr * lr_factor(trial, step) * first / (np.sqrt(second) + trial.eps)
        np.testing.assert_allclose(training.tensor("norm") - before, expected, rtol=1e-4, atol=2e-7)


@pytest.mark.parametrize(
    ("trials", "device", "message"),
    [
        ([BASE], "cuda", "on a CPU, not on cuda; use engine torch"),
        ([BASE.replace(context=1040)], "cpu", "context 1040 is above 1024; use engine torch"),
        (
            [BASE.replace(context=1024, head_size=1, depth=5)],
            "cpu",
            r"by 64 heads in 5 blocks would take 1\.25 GiB; use",
        ),
        ([BASE, BASE.replace(depth=3)], "cpu", "one shape"),
    ],
)
def test_what_the_engine_does_not_train_is_refused(trials: list[Trial], device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native.train_native(trials, device=device)


def test_a_tensor_is_given_back_in_its_own_shape() -> None:
    trial = AWKWARD.replace(density=1 / 16, tied=False)
    training = NativeTrial(trial, load_dataset(trial.data))
    for name, (shape, _) in tensors(trial, 256).items():
        for part in ("value", "gradient", "first", "second"):
            assert training.tensor(name, part).shape == shape


@pytest.mark.parametrize("target", TARGETS)
def test_the_tests_own_library_is_the_engine(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what holds for pieces holds for the engine that trains."""
    trains = build.compiled_engine() if target == "this processor" else pieces(target, build.ENGINE)
    losses = []
    for built in (pieces(target), trains):
        monkeypatch.setattr(engine, "compiled_engine", lambda built=built: built)
        losses.append(NativeTrial(BASE, load_dataset(BASE.data)).steps(0, 5))
    np.testing.assert_array_equal(*losses)
