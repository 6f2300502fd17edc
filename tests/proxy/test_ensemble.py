from __future__ import annotations

import gc
import math
import platform
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpsweep.architectures import SPARSE, tensors
from hpsweep.proxy import batches, ensemble_state, model
from hpsweep.proxy import ensemble as torch_engine
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets
from hpsweep.proxy.outcome import CURVE_POINTS, Outcome, _result
from hpsweep.rules import masks
from hpsweep.rules.masks import mask
from hpsweep.rules.multipliers import tensor_numbers
from hpsweep.spec import Trial
from hpsweep.store import CURVES, RUNS
from tests.own_model.plain_gpt import train_plain

SMALL: dict[str, Any] = {"width": 64, "depth": 2, "head_size": 16, "context": 32, "batch": 4, "steps": 30}
BASE = Trial(**SMALL, base_width=32, eval_sequences=16, lr=2.0**-8, weight_decay=0.1, clip=0.5)
MIXED = [
    BASE.replace(scheme="supar", density=1.0),
    BASE.replace(  # attention as published
        scheme="supar", density=1 / 4, seed=1, weight_decay_rule="independent", base_head_size=1
    ),
    BASE.replace(
        scheme="mup", density=1 / 16, lr=2.0**-7, alpha_input=3.0, alpha_attention=1.5, alpha_output=2.0,
        base_head_size=8,
    ),
    BASE.replace(scheme="sp", density=1 / 64, init_std=0.02),
    BASE.replace(scheme="supar", density=1 / 64, embedding_lr_mult=4.0, base_density=1 / 4),
]  # fmt: skip


def _curve(outcome: Outcome, trial: Trial) -> np.ndarray:
    return np.array(
        [
            loss
            for trial_id, loss in zip(outcome.curves["trial_id"], outcome.curves["train_loss"], strict=True)
            if trial_id == trial.trial_id
        ]
    )


def _plain(trial: Trial) -> tuple[list[float], Any]:
    data = load_dataset(trial.data)
    offsets = train_offsets(data, seed=trial.seed, steps=trial.total_steps, batch=trial.batch, context=trial.context)
    batches = [tuple(map(torch.from_numpy, token_windows(data.train, row, trial.context))) for row in offsets]
    weights = {name: w[0].clone() for name, w in model.initial_parameters([trial], data.vocabulary).items()}
    kept = {
        name: torch.from_numpy(mask(trial.seed, name, shape, trial.density))
        for name, (shape, kind) in tensors(trial, data.vocabulary).items()
        if kind in ("hidden", "residual_out")
    }
    return train_plain(trial, data.vocabulary, weights, kept, batches)


def _held_out(plain: Any, trial: Trial) -> float:
    """Mean loss of a plain module on evenly spread sequences of the validation tokens."""
    tokens = torch.from_numpy(load_dataset(trial.data).validation.astype(np.int64))
    starts = [i * (len(tokens) - 1) // trial.eval_sequences for i in range(trial.eval_sequences)]
    windows = torch.stack([tokens[start : start + trial.context + 1] for start in starts])
    with torch.no_grad():
        logits = plain(windows[:, :-1])
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))


@pytest.fixture(scope="module")
def together() -> Outcome:
    return torch_engine.train_ensemble(MIXED)


@pytest.mark.parametrize("place", range(len(MIXED)))
def test_an_ensemble_member_equals_the_same_trial_alone(together: Outcome, place: int) -> None:
    alone = torch_engine.train_ensemble([MIXED[place]])
    np.testing.assert_allclose(_curve(together, MIXED[place]), _curve(alone, MIXED[place]), atol=1e-4)
    assert together.rows[place]["val_loss"] == pytest.approx(alone.rows[0]["val_loss"], abs=1e-4)


@pytest.mark.parametrize("place", range(len(MIXED)))
def test_an_ensemble_member_equals_a_plain_module_trained_with_torch_adamw(together: Outcome, place: int) -> None:
    losses, plain = _plain(MIXED[place])
    np.testing.assert_allclose(_curve(together, MIXED[place]), losses, atol=1e-4)
    assert together.rows[place]["val_loss"] == pytest.approx(_held_out(plain, MIXED[place]), abs=1e-4)


def test_an_untied_readout_equals_a_plain_module_too() -> None:
    trial = MIXED[2].replace(tied=False)
    losses, _ = _plain(trial)
    np.testing.assert_allclose(_curve(torch_engine.train_ensemble([trial]), trial), losses, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_mask_and_normal_of_an_ensemble_is_drawn_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [BASE.replace(seed=seed, density=d, lr=lr) for seed in (1, 0) for d in (1.0, 1 / 4) for lr in (0.1, 0.2)]
    drawn: list[tuple[Any, ...]] = []
    for name in ("mask", "initial_normals"):
        inner = getattr(masks, name)
        monkeypatch.setattr(masks, name, lambda *key, inner=inner: (drawn.append((inner, *key)), inner(*key))[1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    ensemble = torch_engine.Ensemble(trials, load_dataset("stdlib"), torch.device("cpu"))
    assert len(drawn) == len(set(drawn)) > 0
    monkeypatch.undo()
    for name, (shape, kind) in tensors(trials[0], 256).items():
        for place, trial in enumerate(trials):
            weights = ensemble.parameters[name][place]
            if kind == "norm":
                assert (weights == 1).all()
                continue
            expected = masks.initial_normals(trial.seed, name, shape) * np.float32(
                tensor_numbers(trial, 256)[name].init_std
            )
            if kind in SPARSE:
                kept = mask(trial.seed, name, shape, trial.density)
                assert (ensemble.masks[name][place].numpy() == kept).all()
                expected = expected * kept
            np.testing.assert_array_equal(weights.numpy(), expected)


def test_a_trial_that_diverges_leaves_its_neighbours_bit_identical() -> None:
    calm = [BASE.replace(lr=2.0**-8), BASE.replace(lr=2.0**-9, scheme="sp", density=1 / 4)]
    wild = BASE.replace(init_std=1e30)  # its first loss is not a number
    outcome = torch_engine.train_ensemble([calm[0], wild, calm[1]])
    reference = torch_engine.train_ensemble(calm)
    assert [row["status"] for row in outcome.rows] == ["ok", "diverged", "ok"]
    assert outcome.rows[1]["diverged_step"] == 0
    assert "val_loss" not in outcome.rows[1]
    for trial, mixed, alone in zip(calm, (outcome.rows[0], outcome.rows[2]), reference.rows, strict=True):
        assert mixed["val_loss"] == alone["val_loss"]
        assert (_curve(outcome, trial) == _curve(reference, trial)).all()


def test_a_trial_that_diverges_midway_is_recorded_with_its_step_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    losses = model.sequence_losses

    def spying(parameters: Any, multiply: Any, inputs: Any, targets: Any, *, head_size: int) -> Any:
        sizes.append(inputs.shape[0])
        return losses(parameters, multiply, inputs, targets, head_size=head_size)

    monkeypatch.setattr(model, "sequence_losses", spying)
    calm = BASE.replace(lr=2.0**-8)
    outcome = torch_engine.train_ensemble([calm, BASE.replace(lr=1e6)])
    step = outcome.rows[1]["diverged_step"]
    assert outcome.rows[1]["status"] == "diverged"
    assert 0 < step < 30
    assert sizes[: step + 1] == [2] * (step + 1)
    assert set(sizes[step + 1 :]) == {1}
    alone = torch_engine.train_ensemble([calm])
    assert outcome.rows[0]["val_loss"] == alone.rows[0]["val_loss"]
    assert (_curve(outcome, calm) == _curve(alone, calm)).all()


def test_a_loss_that_is_finite_and_twice_too_high_is_divergence() -> None:
    uniform = math.log(256)
    ensemble = torch_engine.Ensemble(
        [BASE.replace(seed=seed) for seed in range(4)], load_dataset("stdlib"), torch.device("cpu")
    )
    # twice uniform guessing is the limit, whatever smaller loss a trial began with; or twice a larger first loss
    history = torch.tensor([[uniform, uniform, 1.0, 8.0], [2.01 * uniform, 1.99 * uniform, 1.99 * uniform, 15.9]])
    ensemble.drop_diverged(history, since=1)
    assert ensemble.members == [1, 2, 3]
    assert ensemble.diverged == {0: 1}


def test_the_training_loss_of_a_row_is_that_of_the_last_twentieth_of_the_steps() -> None:
    row = _result(np.arange(100.0), np.array([1.0, 2.0]), None)
    assert row["train_loss"] == pytest.approx((95 + 96 + 97 + 98 + 99) / 5)
    assert row["initial_loss"] == 0


def test_looking_for_diverged_trials_less_often_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [BASE, BASE.replace(lr=1e6), BASE.replace(lr=2.0**-9)]
    often = torch_engine.train_ensemble(trials)
    monkeypatch.setitem(torch_engine.CHECK_EVERY, "cpu", 7)
    seldom = torch_engine.train_ensemble(trials)
    for a, b in zip(often.rows, seldom.rows, strict=True):
        assert (a["status"], a.get("val_loss"), a.get("diverged_step")) == (
            b["status"],
            b.get("val_loss"),
            b.get("diverged_step"),
        )


@pytest.mark.parametrize("rule", ["coupled", "independent"])
def test_masked_weights_are_exactly_zero_after_100_steps_with_decay(rule: str) -> None:
    trials = [
        BASE.replace(steps=100, density=density, scheme=scheme, weight_decay=0.5, weight_decay_rule=rule)
        for density, scheme in [(1.0, "supar"), (1 / 4, "supar"), (1 / 64, "sp")]
    ]
    data = load_dataset("stdlib")
    ensemble = torch_engine.Ensemble(trials, data, torch.device("cpu"))
    history = torch.full((100, 3), torch.nan)
    for step in range(100):
        ensemble.step(step, history)
    for name, kept in model.hidden_masks(trials, data.vocabulary).items():
        weights = ensemble.parameters[name]
        assert (weights[~kept] == 0).all()
        assert (weights[kept] != 0).all()


def test_rows_and_curves_have_the_columns_of_the_store(together: Outcome) -> None:
    driver = {"trial_id", "hpsweep_version", "optuna_version", "commit", "attempts", "error", "diverged_step"}
    driver.add("code_hash")  # of the user's own code alone
    for row in together.rows:
        assert set(row) | driver == set(RUNS.names)
    assert list(together.curves) == CURVES.names


def test_a_curve_has_at_most_200_points_and_ends_at_the_last_step() -> None:
    trial = Trial(width=16, head_size=16, depth=1, context=8, batch=1, steps=451, eval_sequences=4)
    curves = torch_engine.train_ensemble([trial]).curves
    assert len(curves["step"]) == CURVE_POINTS
    assert curves["step"][-1] == 451
    assert curves["tokens"][-1] == 451 * 8
    assert curves["val_loss"][-1] is not None
    assert set(curves["val_loss"][:-1]) == {None}


def test_the_standard_error_of_the_held_out_loss_is_the_spread_over_sequences(together: Outcome) -> None:
    trial = BASE.replace(eval_sequences=64, steps=5)
    data = load_dataset("stdlib")
    ensemble = torch_engine.Ensemble([trial], data, torch.device("cpu"))
    each = ensemble.evaluate()[0]
    row = _result(np.ones(5), each, None)
    assert len(each) == 64
    assert row["val_loss_se"] == pytest.approx(np.std(each, ddof=1) / 8)
    # an untrained tied model with small weights is near uniform guessing
    assert row["val_loss"] == pytest.approx(math.log(256), abs=0.5)


def test_an_ensemble_that_does_not_fit_in_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "_fitting", {})
    inner = torch_engine._train
    tried = []

    def crowded(trials: Any, *rest: Any) -> Outcome:
        tried.append(len(trials))
        if len(trials) > 2:
            raise torch.OutOfMemoryError("made up")
        return inner(trials, *rest)

    trials = [BASE.replace(steps=10, lr=2.0**-k) for k in range(5, 10)]
    reference = torch_engine.train_ensemble(trials)
    monkeypatch.setattr(torch_engine, "_train", crowded)
    seen: list[tuple[int, int]] = []
    outcome = torch_engine.train_ensemble(trials, progress=lambda *x: seen.append(x))
    assert tried == [5, 2, 3, 1, 2]
    assert seen == sorted(seen)
    evaluated = math.ceil(trials[0].eval_sequences / (2 * trials[0].batch))  # a word after every batch of sequences
    assert (seen[9], seen[-1], len(seen)) == ((4, 10), (10, 10), 3 * (10 + evaluated))  # two of five are two fifths
    assert [row["trial_id"] for row in outcome.rows] == [trial.trial_id for trial in trials]
    np.testing.assert_allclose(
        [row["val_loss"] for row in outcome.rows], [row["val_loss"] for row in reference.rows], atol=1e-5
    )


def test_no_more_are_trained_at_a_time_than_were_found_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "trials_that_fit", lambda trials, data, device: 2)
    outcome = torch_engine.train_ensemble([BASE.replace(steps=2, seed=seed) for seed in range(5)])
    assert [row["ensemble_size"] for row in outcome.rows] == [1, 2, 2, 2, 2]


def test_what_fits_is_measured_once_for_a_shape_and_half_is_tried_where_measuring_runs_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials, data, gpu = [BASE.replace(seed=seed) for seed in range(20)], load_dataset(BASE.data), torch.device("cuda")
    monkeypatch.setattr(torch_engine, "_fitting", {})
    asked: list[int] = []
    held = 1000

    def measured(some: Any, data: Any, device: Any) -> int:
        asked.append(len(some))
        if 100 * len(some) > held:
            raise torch.OutOfMemoryError("made up")
        return 100 * len(some) or held

    monkeypatch.setattr(torch_engine, "_bytes", measured)
    for _ in range(2):
        assert torch_engine.trials_that_fit(trials, data, gpu) == 9
    assert asked == [0, 1, 8]
    held = 500
    wider = [trial.replace(width=2 * BASE.width) for trial in trials]
    assert torch_engine.trials_that_fit(wider, data, gpu) == 4
    assert torch_engine.trials_that_fit(trials[:8], data, gpu) == 8
    assert torch_engine.trials_that_fit(trials, data, torch.device("cpu")) == 20


def test_a_gradient_that_is_not_finite_makes_the_loss_not_a_number() -> None:
    ensemble = torch_engine.Ensemble([BASE.replace(tied=False)] * 2, load_dataset(BASE.data), torch.device("cpu"))
    ensemble.parameters["norm"][0] *= 1e30
    ensemble.parameters["readout"][0] *= 1e-30  # the same logits, and a gradient whose square overflows
    history = torch.zeros(BASE.total_steps, 2)
    ensemble.step(0, history)
    assert history[0].isfinite().tolist() == [False, True]


def test_trials_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        torch_engine.train_ensemble([BASE, BASE.replace(depth=3)])


def test_bfloat16_trains_to_nearly_the_loss_of_float32() -> None:
    single, half = BASE, BASE.replace(precision="bfloat16")
    a, b = (
        torch_engine.train_ensemble([single]).rows[0]["val_loss"],
        torch_engine.train_ensemble([half]).rows[0]["val_loss"],
    )
    assert a != b
    assert a == pytest.approx(b, abs=0.02)


LONG = {"width": 96, "context": 300, "batch": 3}


@pytest.mark.parametrize(
    ("change", "precision"),
    [
        *(({}, "float32"), ({}, "bfloat16"), (LONG, "float32")),
        pytest.param(LONG, "bfloat16", marks=pytest.mark.slow),
        *(pytest.param({"width": 128}, each, marks=pytest.mark.slow) for each in ("float32", "bfloat16")),
        *(
            pytest.param({"context": 33, "batch": 5, "depth": 4}, each, marks=pytest.mark.slow)
            for each in ("float32", "bfloat16")
        ),
    ],
)
def test_with_one_thread_a_trial_alone_and_among_others_is_the_same_bit_for_bit(change: Any, precision: Any) -> None:
    steps = 3 if precision == "bfloat16" else 6  # seconds each, where a processor has no bfloat16
    trials = [trial.replace(steps=steps, precision=precision, **change) for trial in MIXED]
    together = torch_engine.train_ensemble(trials)
    for place in (0, 3):
        alone = torch_engine.train_ensemble([trials[place]])
        assert (_curve(alone, trials[place]) == _curve(together, trials[place])).all()
        assert alone.rows[0]["val_loss"] == together.rows[place]["val_loss"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_step_as_a_gpu_takes_it_has_the_losses_of_the_cpus(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [*MIXED, BASE.replace(lr=1e6), BASE.replace(init_std=1e30)]  # two diverge, and stay
    reference = torch_engine.train_ensemble(trials)
    monkeypatch.setitem(torch_engine.CHECK_EVERY, "cpu", torch_engine.CHECK_EVERY["cuda"])
    monkeypatch.setitem(ensemble_state.SHRINK_AT, "cpu", ensemble_state.SHRINK_AT["cuda"])
    monkeypatch.setitem(batches.WHOLE, "cpu", batches.WHOLE["cuda"] if whole else 0)
    monkeypatch.setitem(batches.AHEAD, "cpu", 7)
    monkeypatch.setattr(model, "_look_up", model._gathered)
    kept = []
    monkeypatch.setattr(torch_engine.Ensemble, "_keep", lambda self, remaining: kept.append(remaining))
    outcome = torch_engine.train_ensemble(trials)
    assert kept == []
    for row, expected in zip(outcome.rows, reference.rows, strict=True):
        assert (row["status"], row.get("diverged_step")) == (expected["status"], expected.get("diverged_step"))
        if row["status"] == "ok":
            assert row["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-4)
    assert _curve(outcome, MIXED[0])[0] == pytest.approx(_curve(reference, MIXED[0])[0], abs=1e-6)


def test_an_ensemble_gets_smaller_once_no_more_than_its_share_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ensemble_state.SHRINK_AT, "cpu", 0.5)
    ensemble = torch_engine.Ensemble(MIXED[:4], load_dataset("stdlib"), torch.device("cpu"))
    fine, high = 5.0, 100.0
    ensemble.drop_diverged(torch.tensor([[fine, fine, fine, fine], [fine, high, fine, fine]]), since=1)
    assert (ensemble.members, ensemble.diverged) == ([0, 1, 2, 3], {1: 1})
    assert set(ensemble.evaluate()) == {0, 2, 3}
    ensemble.drop_diverged(torch.tensor([[fine] * 4, [fine] * 4, [high, high, fine, fine]]), since=2)
    assert (ensemble.members, ensemble.diverged) == ([2, 3], {1: 1, 0: 2})
    assert [len(p) for p in ensemble.parameters.values()] == [2] * len(ensemble.parameters)


def test_the_step_asks_no_tensor_for_its_value() -> None:
    asked = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
                asked.append(func)
            return func(*args, **(kwargs or {}))

    ensemble = torch_engine.Ensemble(MIXED, load_dataset("stdlib"), torch.device("cpu"))
    ensemble.step(0, torch.full((2, 5), torch.nan))
    ensemble.number.fill_(1)
    with Watch():
        ensemble._update()
        assert asked == []
        ensemble.number.item()
    assert len(asked) == 1


def test_the_memory_of_an_ensemble_is_free_as_soon_as_it_is_left() -> None:
    ensemble = torch_engine.Ensemble(MIXED, load_dataset("stdlib"), torch.device("cpu"))
    ensemble.step(0, torch.full((1, 5), torch.nan))
    weights = weakref.ref(ensemble.parameters["embedding.token"])
    gc.disable()
    del ensemble
    gc.enable()
    assert weights() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_a_step_finds_the_memory_of_the_step_before() -> None:
    resource = pytest.importorskip("resource")
    ensemble = torch_engine.Ensemble(
        [BASE.replace(context=64, batch=8, seed=i) for i in range(4)], load_dataset("stdlib"), torch.device("cpu")
    )
    history = torch.full((20, 4), torch.nan)
    faults = []
    for step in range(20):
        ensemble.step(step, history)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert faults[-1] - faults[9] < 10 * 1000  # 7000 in every step otherwise
