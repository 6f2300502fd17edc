"""The card: numbers worked out by hand, what it warns of and refuses, and the comparison with re-tuning."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hpsweep.analysis.findings import Finding
from hpsweep.analysis.optimum.optima import optima
from hpsweep.analysis.transfer.card import CARD_VERSION, Card
from hpsweep.analysis.transfer.comparison import COMPARISON_COLUMNS, tuned_against_transferred
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.schemes import Scheme
from hpsweep.spec import Target, Trial
from tests.analysis.optimum.test_optima import OCTAVES, made_runs

BASE = Trial(steps=100, width=128, depth=2, head_size=32, embedding_lr_mult=4.0, alpha_input=2.0, alpha_output=0.5)
TARGET = Target(width=1024, density=1 / 16)
SP_PER_HALVING = 1.0


def loss(trial: Trial) -> float:
    """Optimum at 2^-7 for the dense proxy and under supar; under sp and mup it rises by an octave per halving.

    Tuned, every halving costs .01, sp loses another .05.
    """
    halvings = -math.log2(trial.density)
    optimum = -7 + (0 if trial.scheme == "supar" else SP_PER_HALVING * halvings)
    lowest = 2 + 0.01 * halvings + 0.05 * (trial.scheme == "sp")
    return lowest + 0.05 * (math.log2(trial.lr) - optimum) ** 2


def sweep(base: Trial = BASE, **grid: list[Any]) -> pd.DataFrame:
    axes = {"scheme": ["sp", "mup", "supar"], "density": [1, 1 / 4], "lr": OCTAVES, "seed": [0, 1]}
    return made_runs(loss, axes | grid, base=base)


# Worked out by hand for width 128 -> 1024 (m_d = 8), density 1 -> 1/16 (m_d m_rho = 1/2), base lr 2^-7, init std .08,
# depth 2 (residual_out: 1 / sqrt(4)), head size 32, embedding_lr_mult 4, alpha_input 2, alpha_output 1/2.
EXPECTED: dict[Scheme, dict[str, Any]] = {
    "supar": {
        "hidden": {"init_std": 0.08 * math.sqrt(2), "lr": 2.0**-6, "forward": 1.0},
        "residual_out": {"init_std": 0.04 * math.sqrt(2), "lr": 2.0**-6, "forward": 1.0},
        "embedding": {"init_std": 0.08, "lr": 2.0**-5, "forward": 2.0},
        "readout": {"init_std": 0.08, "lr": 4 * 2.0**-7, "forward": 0.5 / 8},
        "attention": 1 / math.sqrt(32),  # as at the base: the heads have its size
    },
    "mup": {
        "hidden": {"init_std": 0.08 / math.sqrt(8), "lr": 2.0**-10, "forward": 1.0},
        "residual_out": {"init_std": 0.04 / math.sqrt(8), "lr": 2.0**-10, "forward": 1.0},
        "embedding": {"init_std": 0.08, "lr": 2.0**-5, "forward": 2.0},
        "readout": {"init_std": 0.08, "lr": 4 * 2.0**-7, "forward": 0.5 / 8},
        "attention": 1 / math.sqrt(32),  # as at the base: the heads have its size
    },
    "sp": {
        "hidden": {"init_std": 0.08, "lr": 2.0**-7, "forward": 1.0},
        "residual_out": {"init_std": 0.04, "lr": 2.0**-7, "forward": 1.0},
        "embedding": {"init_std": 0.08, "lr": 2.0**-5, "forward": 1.0},
        "readout": {"init_std": 0.08, "lr": 4 * 2.0**-7, "forward": 1.0},
        "attention": 1 / math.sqrt(32),
    },
}


@pytest.mark.parametrize("scheme", ["supar", "mup", "sp"])
def test_the_numbers_of_a_card_are_those_worked_out_by_hand(scheme: Scheme) -> None:
    card = transfer(sweep(), TARGET, scheme=scheme)
    assert card.base["lr"] == pytest.approx(2.0**-7)
    for kind in ("hidden", "residual_out", "embedding", "readout"):
        expected = EXPECTED[scheme][kind]
        assert {name: card.kinds[kind][name] for name in expected} == pytest.approx(expected)
    assert (card.kinds["hidden"]["m_d"], card.kinds["hidden"]["m_rho"]) == (8, 1 / 16)
    assert (card.kinds["embedding"]["m_d"], card.kinds["embedding"]["m_rho"]) == (8, 1)
    assert card.kinds["norm"]["lr"] == pytest.approx(2.0**-7)
    assert card.attention_scale == pytest.approx(EXPECTED[scheme]["attention"])
    assert card.readout_multiplier == pytest.approx(EXPECTED[scheme]["readout"]["forward"])
    assert (card.alpha_input, card.alpha_output) == ((1, 1) if scheme == "sp" else (2, 0.5))
    assert card.embedding_lr_mult == 4


@pytest.mark.parametrize("scheme", ["supar", "mup", "sp"])
def test_attention_of_a_target_with_other_heads_is_scaled_from_the_base_and_by_its_alpha(scheme: Scheme) -> None:
    target = dataclasses.replace(TARGET, head_size=128)
    for base, alpha, scale in ((32, 1.0, math.sqrt(32) / 128), (8, 3.0, 3 * math.sqrt(8) / 128), (1, 1.0, 1 / 128)):
        card = transfer(sweep(BASE.replace(base_head_size=base, alpha_attention=alpha)), target, scheme=scheme)
        assert card.attention_scale == pytest.approx(scale if scheme != "sp" else 1 / math.sqrt(128))
        assert (card.proxy["base_head_size"], card.base["alpha_attention"]) == (base, alpha)


def test_alpha_attention_is_searched_and_carried_like_any_hyperparameter() -> None:
    def judged(trial: Trial) -> float:
        return loss(trial) + 0.1 * abs(math.log2(trial.alpha_attention) - 1)

    card = transfer(sweep(alpha_attention=[1.0, 2.0, 4.0]), TARGET)
    assert card.base["alpha_attention"] == 1.0
    runs = made_runs(
        judged, {"density": [1], "lr": OCTAVES, "alpha_attention": [1.0, 2.0, 4.0], "seed": [0, 1]}, base=BASE
    )
    card = transfer(runs, TARGET)
    assert (card.base["alpha_attention"], card.attention_scale) == (2.0, pytest.approx(2 / math.sqrt(32)))
    assert "alpha_attention" not in card.evidence["never_tuned"]


def test_a_card_of_before_is_read_with_the_scale_that_its_trials_had(tmp_path: Path) -> None:
    card = transfer(sweep(BASE.replace(base_head_size=1)), TARGET)
    values = json.loads(card.to_json()) | {"schema_version": 2}
    assert values["base"].pop("alpha_attention") == values["evidence"]["never_tuned"].pop("alpha_attention") == 1
    assert values["proxy"].pop("base_head_size") == 1
    path = tmp_path / "card.json"
    path.write_text(json.dumps(values))
    read = Card.read(path)
    assert read == card
    assert read.attention_scale == 1 / 32
    path.write_text(json.dumps(values | {"schema_version": CARD_VERSION}))
    with pytest.raises(ValueError, match="proxy has no base_head_size"):  # a card of now that lacks it was changed
        Card.read(path)


def test_the_card_says_what_the_target_is_and_how_many_weights_it_keeps() -> None:
    card = transfer(sweep(), dataclasses.replace(TARGET, vocabulary=1000, mask_seed=7, tokens=10**9))
    tensors = {row["name"]: row for row in card.tensors}
    assert tensors["embedding.token"] == {
        "name": "embedding.token",
        "shape": [1000, 1024],
        "kind": "embedding",
        "nonzeros": 1024000,
    }
    assert tensors["block1.attention.qkv"]["shape"] == [3072, 1024]
    assert tensors["block1.attention.qkv"]["nonzeros"] == 3072 * 1024 // 16
    # 12 width^2 per block: 2 x 12 x 1024^2 = 25,165,824, a sixteenth of it kept
    assert (card.sizes["hidden_parameters"], card.sizes["hidden_nonzeros"]) == (25_165_824, 1_572_864)
    assert card.mask == {"seed": 7, "density": 1 / 16, "kinds": ["hidden", "residual_out"]}
    target = {"width": 1024, "density": 1 / 16, "depth": 2, "head_size": 32, "context": 64, "tied": True}
    assert card.target == target | {"vocabulary": 1000, "tokens": 10**9}
    assert (card.proxy["width"], card.proxy["base_width"], card.proxy["vocabulary"]) == (128, 128, 256)


def test_the_card_says_how_to_optimize_and_what_the_result_rests_on() -> None:
    runs = sweep(BASE.replace(weight_decay=0.1, weight_decay_rule="independent", beta2=0.98, warmup_fraction=0.2))
    card = transfer(runs, TARGET)
    assert card.optimizer["beta2"] == 0.98
    assert card.optimizer["weight_decay_rule"] == "independent"
    assert card.schedule == {"warmup_fraction": 0.2, "final_lr_fraction": 0.0}
    assert card.kinds["hidden"]["weight_decay"] == pytest.approx(0.05)  # lr doubles, lr x wd stays
    assert card.kinds["norm"]["weight_decay"] == 0
    proxy = runs[(runs["scheme"] == "supar") & (runs["density"] == 1)]
    assert card.evidence == {
        "trial_ids": sorted(proxy["trial_id"]),
        "seeds": 2,
        "data_hash": "d" * 8,
        "hpsweep_versions": ["0.1.0"],
        "commits": ["abc"],
        "never_tuned": {
            "init_std": 0.08, "alpha_input": 2.0, "alpha_attention": 1.0, "alpha_output": 0.5, "embedding_lr_mult": 4.0,
            "weight_decay": 0.1,
        },
    }  # fmt: skip
    assert card.optimum["status"] == "ok"
    assert card.uncertainty is not None
    assert 0 <= card.uncertainty < 0.3
    [row] = card.drift
    assert (row["along"], row["verdict"]) == ("density", "stable")


def test_a_card_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    card = transfer(sweep(), TARGET)
    assert Card.read(card.write(tmp_path / "card.json")) == card
    assert json.loads(card.to_json())["schema_version"] == CARD_VERSION


def test_a_card_of_a_bound_has_null_for_what_is_not_known(tmp_path: Path) -> None:
    card = transfer(sweep(lr=OCTAVES[:6]), TARGET)
    assert card.uncertainty is None
    assert card.optimum["high"] is None
    assert Card.read(card.write(tmp_path / "card.json")) == card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no card"),
        ("no json", "is no card"),
        ("[1]", "is no card"),
        ('{"schema_version": 99}', "card of version 99; this hpsweep reads 2 to 5: upgrade"),
        ('{"schema_version": 0}', "make it anew"),
        ('{"schema_version": 2}', "missing or unknown along_drift, alpha_input"),
    ],
)
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Card.read(tmp_path / "card.json")


def test_of_other_hyperparameters_the_combination_with_the_lowest_optimum_is_taken() -> None:
    def tilted(trial: Trial) -> float:
        best = 0.04 if trial.density == 1 else 0.08
        return loss(trial) + (0.0 if trial.init_std == best else 0.1)

    grid = {"density": [1, 1 / 4], "init_std": [0.04, 0.08], "lr": OCTAVES, "seed": [0, 1]}
    runs = made_runs(tilted, grid, base=BASE)
    card = transfer(runs, TARGET)
    assert card.base["init_std"] == 0.04
    assert len(card.evidence["trial_ids"]) == 20
    [dense, sparse] = card.comparison
    assert dense["regret"] == pytest.approx(0)
    assert sparse["regret"] == pytest.approx(0.1)  # at 1/4 the other init std is better


def test_among_settings_as_good_within_noise_the_one_with_most_evidence_is_taken() -> None:
    def close(trial: Trial) -> float:
        return loss(trial) + {8.0: 0.001, 16.0: 0.0, 1.0: 0.1}[trial.embedding_lr_mult]

    dense = {"embedding_lr_mult": [1, 8, 16], "lr": OCTAVES, "seed": [0, 1]}
    sparse = {"density": [1 / 4, 1 / 16], "embedding_lr_mult": [8], "lr": OCTAVES, "seed": [0, 1]}
    runs = pd.concat([made_runs(close, grid, base=BASE, noise=0.001) for grid in (dense, sparse)])
    card = transfer(runs, TARGET)
    assert card.base["embedding_lr_mult"] == 8
    [other] = found(card, "as_good")
    assert other["numbers"] == {"settings": [{"embedding_lr_mult": 16}]}
    assert [(row["along"], row["n_ok"]) for row in card.drift] == [("density", 3)]
    assert {row["proxy_value"] for row in card.comparison} == {card.base["lr"]}
    worse = runs.assign(val_loss=runs["val_loss"] + 0.02 * (runs["embedding_lr_mult"] == 8))
    assert transfer(worse, TARGET).base["embedding_lr_mult"] == 16


def test_a_search_over_two_hyperparameters_together_has_no_curve_and_says_what_to_do() -> None:
    runs = made_runs(loss, {"lr": OCTAVES, "seed": [0, 1]}, base=BASE)
    runs = runs.assign(init_std=runs["lr"] * 10)
    for use in (lambda: transfer(runs, TARGET, over="lr"), lambda: tuned_against_transferred(runs)):
        with pytest.raises(
            ValueError, match=r"lr and init_std were searched together.*sweep a grid of lr around the best"
        ):
            use()


def joint_runs(loss: Callable[[Trial], float] | None = None, seed: int = 0) -> pd.DataFrame:
    """Runs over lr and init std at two densities; by default their joint optimum is at 2^-7.3, 2^-3.6 at both."""

    def joint(trial: Trial) -> float:
        return 2 + 0.04 * (math.log2(trial.lr) + 7.3) ** 2 + 0.03 * (math.log2(trial.init_std) + 3.6) ** 2

    grid = {"density": [1, 1 / 4], "lr": OCTAVES, "init_std": [2.0**k for k in range(-7, 0)], "seed": [0, 1]}
    return made_runs(loss or joint, grid, base=BASE, noise=0.002, seed=seed)


def test_a_joint_optimum_is_carried_with_both_of_its_fields() -> None:
    card = transfer(joint_runs(), TARGET, over=("lr", "init_std"), resamples=300)
    assert math.log2(card.base["lr"]) == pytest.approx(-7.3, abs=0.1)
    assert math.log2(card.base["init_std"]) == pytest.approx(-3.6, abs=0.1)
    assert card.optimum["hyperparameter"] == "lr,init_std"
    assert card.optimum["opt"] == card.optimum["lr_opt"] == card.base["lr"]
    assert card.uncertainty is not None
    assert 0 < card.uncertainty < 0.3
    assert codes(card) == ["duration_unknown", "untested"]
    json.loads(card.to_json())


def test_a_joint_optimum_that_is_elsewhere_at_another_density_is_named() -> None:
    def moves(trial: Trial) -> float:
        z = math.log2(trial.lr) + 7.3 + math.log2(trial.density) / 2
        return 2 + 0.04 * z * z + 0.03 * (math.log2(trial.init_std) + 3.6) ** 2

    card = transfer(joint_runs(moves), TARGET, over=("lr", "init_std"), resamples=300)
    [said] = found(card, "elsewhere")
    assert said["numbers"]["field"] == "lr"
    assert said["numbers"]["at"] == {"width": 128, "density": 0.25}
    assert said["numbers"]["octaves"] == pytest.approx(1, abs=0.1)


def test_a_field_that_is_not_identified_is_carried_at_its_best_measured_value_with_a_warning() -> None:
    runs = joint_runs(lambda trial: 2 + 0.04 * (math.log2(trial.lr) + 7.3) ** 2, seed=1)
    card = transfer(runs, TARGET, over=("lr", "init_std"), resamples=300)
    assert math.log2(card.base["lr"]) == pytest.approx(-7.3, abs=0.2)
    assert card.base["init_std"] == card.optimum["best_init_std"]
    [unknown] = found(card, "not_identified")
    assert (unknown["numbers"]["field"], unknown["numbers"]["value"]) == ("init_std", card.base["init_std"])
    with pytest.raises(ValueError, match="joint optimum is carried as a constant only"):
        transfer(runs, TARGET, over=("lr", "init_std"), along_drift=True)
    with pytest.raises(ValueError, match="has no optimum of lr and init_std"):
        transfer(runs[runs["init_std"] == runs["init_std"].iloc[0]], TARGET, over=("lr", "init_std"))


def test_the_tuned_loss_is_the_best_that_was_measured_whatever_its_curve() -> None:
    # at 1/4 the better init std has two finite values only: no optimum, but the lowest loss
    runs = sweep(scheme=["supar"], init_std=[0.08, 0.16])
    runs = runs.assign(val_loss=runs["val_loss"] + 0.1 * (runs["init_std"] == 0.16))
    lost = (runs["density"] == 1 / 4) & (runs["init_std"] == 0.08) & ~runs["lr"].isin([2.0**-7, 2.0**-8])
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    table = tuned_against_transferred(runs)
    assert (table["regret"] >= 0).all()
    assert table["status"].tolist() == ["ok", "none"]


def test_a_dense_mup_proxy_carries_to_sparse_supar() -> None:
    dense = sweep(scheme=["mup"], density=[1])
    sparse = sweep(scheme=["supar"], density=[1 / 4, 1 / 16])
    card = transfer(pd.concat([dense, sparse]), TARGET)
    assert card.scheme == "supar"
    assert set(card.evidence["trial_ids"]) == set(dense["trial_id"])
    assert card.kinds == transfer(sweep(scheme=["supar"], density=[1, 1 / 4, 1 / 16]), TARGET).kinds
    [line] = card.drift
    assert (line["n"], line["n_ok"], line["first"]) == (3, 3, 1)


def test_a_proxy_of_the_other_name_alone_is_all_that_was_tuned() -> None:
    sparse = sweep(scheme=["supar"], density=[1 / 4]).assign(status="failed", val_loss=math.nan)
    card = transfer(pd.concat([sweep(scheme=["mup"], density=[1]), sparse]), TARGET, scheme="supar")
    [beyond] = found(card, "beyond_tuned")
    assert (beyond["axis"], beyond["numbers"]) == ("density", {"last": 1, "value": 1 / 16, "factor": 16})


def test_a_line_whose_runs_differ_in_more_is_a_warning_and_no_end_of_the_card() -> None:
    wide = made_runs(loss, {"width": [256], "lr": OCTAVES, "seed": [0, 1]}, base=BASE.replace(head_size=64))
    card = transfer(pd.concat([sweep(scheme=["supar"], density=[1]), wide]), TARGET)
    [refused] = found(card, "drift_refused")
    assert (refused["axis"], refused["numbers"]["at"]) == ("width", {"density": 1})
    assert "head_size" in refused["numbers"]["why"]
    assert [finding["axis"] for finding in found(card, "drift_unknown")] == ["width"]  # two widths, and no drift


def test_a_hyperparameter_of_zero_is_no_end_of_a_grid() -> None:
    grid = {"weight_decay": [0, 0.1], "lr": OCTAVES, "seed": [0, 1]}
    worse = made_runs(lambda t: loss(t) + t.weight_decay, grid, base=BASE)
    assert not {"bound", "end_of_values"} & set(codes(transfer(worse, TARGET)))


def test_the_proxy_may_be_named() -> None:
    runs = sweep(density=[1 / 4], width=[128, 256])
    with pytest.raises(ValueError, match=r"width 128, density 0.25; width 256, density 0.25.*proxy=\{'width': 256"):
        transfer(runs, TARGET)
    card = transfer(runs, TARGET, proxy={"density": 1 / 4})
    assert (card.proxy["density"], card.proxy["base_density"]) == (1 / 4, 1)
    assert card.kinds["hidden"]["m_rho"] == 1 / 16  # base values stay those at base density


def test_the_proxy_may_select_other_fields() -> None:
    runs = pd.concat([sweep(), sweep(BASE.replace(steps=300))])
    with pytest.raises(ValueError, match="differ in steps"):
        transfer(runs, TARGET)
    assert transfer(runs, TARGET, proxy={"steps": 300}).proxy["steps"] == 300
    with pytest.raises(ValueError, match="no run has steps 200, as proxy asks; there are 100, 300"):
        transfer(runs, TARGET, proxy={"steps": 200})


def test_a_minimum_at_the_end_of_the_grid_is_carried_with_a_loud_warning() -> None:
    card = transfer(sweep(lr=OCTAVES[:6]), TARGET)
    assert card.optimum["status"] == "edge"
    assert codes(card)[0] == "bound"
    assert found(card, "bound")[0]["numbers"]["value"] == card.base["lr"] == 2.0**-7


def test_no_optimum_makes_no_card() -> None:
    with pytest.raises(ValueError, match=r"supar proxy at width 128 and density 1 has no optimum of lr: 2 values"):
        transfer(sweep(lr=OCTAVES[4:6]), TARGET)


def test_a_sound_transfer_has_no_findings() -> None:
    runs = sweep(scheme=["supar"], width=[128, 256, 512], density=[1, 1 / 4, 1 / 16])
    # as many tokens per nonzero parameter as the proxy: 102,400 / 393,216 x (2 x 12 x 512^2 / 4)
    sound = transfer(runs, Target(width=512, density=1 / 4, tokens=409_600))
    assert (sound.findings, sound.warnings) == ([], [])
    [unsaid] = transfer(runs, Target(width=512, density=1 / 4)).findings
    assert unsaid["code"] == "duration_unknown"
    assert unsaid["numbers"] == {"proxy": pytest.approx(0.26, abs=0.001), "per_step": 1024}


def card_of(target: Target = TARGET, scheme: Scheme = "supar", base: Trial = BASE, **grid: list[Any]) -> Card:
    return transfer(sweep(base, **grid), target, scheme=scheme)


def found(card: Card, code: str) -> list[dict[str, Any]]:
    """The findings of a code."""
    return [finding for finding in card.findings if finding["code"] == code]


def codes(card: Card) -> list[str]:
    return [finding["code"] for finding in card.findings]


def test_the_warnings_of_a_card_are_the_words_of_its_findings_and_are_read_again(tmp_path: Path) -> None:
    card = card_of(scheme="sp", lr=OCTAVES[:6])
    assert card.warnings == [str(Finding(**finding)) for finding in card.findings]
    assert len(card.warnings) > 3
    assert Card.read(card.write(tmp_path / "card.json")) == card


def test_a_card_of_before_has_its_warnings_and_no_findings(tmp_path: Path) -> None:
    card = card_of()
    values = json.loads(card.to_json()) | {"schema_version": 3, "warnings": ["in other words."]}
    del values["findings"]
    path = tmp_path / "card.json"
    path.write_text(json.dumps(values))
    assert Card.read(path) == dataclasses.replace(card, findings=[], warnings=["in other words."])
    path.write_text(json.dumps(values | {"schema_version": CARD_VERSION}))
    with pytest.raises(ValueError, match="missing or unknown findings"):
        Card.read(path)


def test_what_the_rules_do_not_correct_is_named() -> None:
    card = card_of(Target(width=1024, density=1 / 16, depth=4, context=128, vocabulary=50257, tokens=10**9))
    ends = {row["axis"]: (row["numbers"]["first"], row["numbers"]["last"]) for row in found(card, "not_corrected")}
    assert ends == {"depth": (2, 4), "context": (64, 128), "vocabulary": (256, 50257)}
    # 1e9 tokens / 4 blocks x 12 x 1024^2 / 16 = 3,145,728 nonzeros: 318;
    # the proxy: 100 steps x 16 x 64 = 102,400 tokens / (2 x 12 x 128^2 = 393,216) = .26
    [duration] = found(card, "duration")
    assert duration["numbers"]["target"] == pytest.approx(318, abs=0.5)
    assert duration["numbers"]["proxy"] == pytest.approx(0.26, abs=0.001)


def test_a_setting_that_diverges_at_the_targets_density_is_named() -> None:
    runs = sweep(scheme=["supar"], density=[1, 1 / 4, 1 / 16])
    lost = (runs["density"] == 1 / 16) & (runs["lr"] >= 2.0**-8)
    runs = runs.assign(status=runs["status"].mask(lost, "diverged"), val_loss=runs["val_loss"].mask(lost))
    card = transfer(runs, Target(width=128, density=1 / 16))
    [lost] = found(card, "no_loss")
    assert lost["numbers"]["at"] == {"width": 128, "density": 1 / 16}
    assert "diverges here" in lost["numbers"]["why"]
    [drift] = found(card, "undetermined")
    assert (drift["axis"], drift["scheme"], drift["numbers"]["places"]) == ("density", "supar", [{"width": 128}])


def test_densities_without_an_optimum_do_not_count_as_tuned() -> None:
    runs = sweep(scheme=["supar"], density=[1, 1 / 4, 1 / 64])
    lost = runs["density"] == 1 / 64
    failed = runs.assign(status=runs["status"].mask(lost, "failed"), val_loss=runs["val_loss"].mask(lost))
    [beyond] = found(transfer(failed, Target(width=128, density=1 / 64)), "beyond_tuned")
    assert (beyond["axis"], beyond["numbers"]) == ("density", {"last": 1 / 4, "value": 1 / 64, "factor": 16})
    assert not found(transfer(runs, Target(width=128, density=1 / 64)), "beyond_tuned")


def test_other_hyperparameters_at_the_end_of_what_was_tried_are_named() -> None:
    def falling(trial: Trial) -> float:
        return loss(trial) - 0.1 * math.log2(trial.init_std)

    grid = {"init_std": [0.02, 0.04, 0.08], "lr": OCTAVES, "seed": [0, 1]}
    [bound] = found(transfer(made_runs(falling, grid, base=BASE), TARGET, over="lr"), "end_of_values")
    assert bound["numbers"] == {"field": "init_std", "value": 0.08, "end": "highest"}


def test_an_optimum_known_within_octaves_only_is_named() -> None:
    def shallow(trial: Trial) -> float:
        return 2 + 0.003 * (math.log2(trial.lr) + 7) ** 2

    runs = made_runs(shallow, {"lr": [2.0**k for k in range(-12, 0)], "seed": [0, 1, 2]}, base=BASE, noise=0.005)
    card = transfer(runs, TARGET)
    [wide] = found(card, "wide_interval")
    assert wide["numbers"] == {"field": "lr", "low": card.optimum["low"], "high": card.optimum["high"]}


def test_targets_far_from_anything_tuned_are_named() -> None:
    assert not found(card_of(Target(width=2048, density=1 / 16)), "beyond_tuned")
    [sparser] = found(card_of(Target(width=1024, density=1 / 32)), "beyond_tuned")
    assert (sparser["axis"], sparser["numbers"]["factor"]) == ("density", 8)
    [wider] = found(card_of(Target(width=4096, density=1 / 16)), "beyond_tuned")
    assert (wider["axis"], wider["numbers"]["factor"]) == ("width", 32)


def test_few_nonzeros_per_neuron_are_named_and_less_than_one_refused() -> None:
    [few] = found(card_of(Target(width=256, density=1 / 64)), "few_nonzeros")
    assert few["numbers"] == {"nonzeros": 4, "fewest": 8}
    assert not found(card_of(Target(width=512, density=1 / 64)), "few_nonzeros")
    with pytest.raises(ValueError, match=r"keeps 0.5 of the 256 weights of a neuron.*density 0.031 or more"):
        transfer(sweep(), Target(width=256, density=1 / 512))


def test_a_head_size_that_does_not_divide_the_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width 1000 is not divisible by the proxy's head_size 32.*head_size=8"):
        transfer(sweep(), Target(width=1000, density=1 / 16))


def test_an_optimum_that_moves_or_was_never_tracked_is_named() -> None:
    [moves] = found(card_of(scheme="mup"), "moves")
    assert (moves["axis"], moves["scheme"]) == ("density", "mup")
    assert moves["numbers"] == {"field": "lr", "places": [{"width": 128}]}
    assert "density" not in [finding["axis"] for finding in card_of().findings]
    untested = {row["axis"]: row["numbers"] for row in found(card_of(density=[1]), "untested")}
    assert untested == {
        "density": {"first": 1, "last": 1 / 16, "add": [1 / 4, 1 / 16]},
        "width": {"first": 128, "last": 1024, "add": [64, 256]},
    }
    assert [row["axis"] for row in found(card_of(), "untested")] == ["width"]


def test_widths_to_add_are_such_that_heads_divide_them() -> None:
    [untested] = found(card_of(base=BASE.replace(head_size=128)), "untested")
    assert untested["numbers"]["add"] == [256, 512]


def test_an_optimum_that_moves_away_from_the_proxys_own_lines_is_named() -> None:
    def corner(trial: Trial) -> float:
        both = math.log2(trial.width / 128) * -math.log2(trial.density) / 6
        return 2 + 0.05 * (math.log2(trial.lr) + 7 - both) ** 2

    grid = {"width": [128, 1024], "density": [1, 1 / 16], "lr": OCTAVES, "seed": [0, 1]}
    card = transfer(made_runs(corner, grid, base=BASE, noise=0.001), TARGET)
    verdicts = {(row["along"], row.get("width"), row.get("density")): row["verdict"] for row in card.drift}
    assert verdicts[("density", 128, None)] == verdicts[("width", None, 1)] == "stable"
    assert verdicts[("density", 1024, None)] == verdicts[("width", None, 1 / 16)] == "moves"
    places = {row["axis"]: row["numbers"]["places"] for row in found(card, "moves")}
    assert places == {"width": [{"density": 1 / 16}], "density": [{"width": 1024}]}


def test_coupled_weight_decay_is_named_where_the_hidden_lr_changes() -> None:
    coupled = BASE.replace(weight_decay=0.1)
    [higher] = found(card_of(base=coupled), "coupled_decay")
    [lower] = found(card_of(Target(width=1024, density=1), base=coupled), "coupled_decay")
    assert (higher["numbers"], lower["numbers"]) == ({"factor": pytest.approx(2)}, {"factor": pytest.approx(1 / 8)})
    # m_d m_rho = 8 x 1/8: the lr is the proxy's, and so is lr x decay
    assert not found(card_of(Target(width=1024, density=1 / 8), base=coupled), "coupled_decay")
    assert not found(card_of(base=coupled, scheme="sp"), "coupled_decay")
    assert not found(card_of(base=coupled.replace(weight_decay_rule="independent")), "coupled_decay")


def test_sp_and_better_rivals_are_named() -> None:
    card = card_of(scheme="sp")
    assert [finding["scheme"] for finding in found(card, "unscaled")] == ["sp"]
    # re-tuned mup at density 1/4 loses 2.02, transferred sp (0.05 worse, two octaves off) 2.02 + .05 + .05 x 4 = 2.27
    [rival] = found(card, "rival")
    assert (rival["scheme"], rival["numbers"]["rival"]) == ("sp", "mup")
    assert rival["numbers"]["gap"] == pytest.approx(0.25)
    assert rival["numbers"]["at"] == {"width": 128, "density": 1 / 4}
    assert not {"unscaled", "rival"} & set(codes(card_of(scheme="supar")))


def test_mup_is_no_rival_of_supar_where_the_two_are_one_nor_a_lucky_single_run() -> None:
    def lucky(trial: Trial) -> float:
        return loss(trial) - (0.03 if trial.scheme == "mup" and trial.density == 1 else 0.0)

    runs = made_runs(lucky, {"scheme": ["mup", "supar"], "density": [1], "lr": OCTAVES, "seed": [0]}, base=BASE)
    assert not found(transfer(runs, TARGET), "rival")
    runs = runs.replace({"scheme": {"mup": "sp"}})
    small = runs.assign(val_loss=runs["val_loss"] + 0.025 * (runs["scheme"] == "sp"))  # .005 better, noise assumed .005
    assert not found(transfer(small, TARGET), "rival")
    assert [rival["numbers"]["rival"] for rival in found(transfer(runs, TARGET), "rival")] == ["sp"]


def test_one_seed_is_named() -> None:
    assert found(card_of(seed=[0]), "assumed_noise")
    assert not found(card_of(), "assumed_noise")


def test_a_dense_supar_proxy_alone_carries_to_mup() -> None:
    card = transfer(sweep(scheme=["supar"]), TARGET, scheme="mup")
    assert card.scheme == "mup"
    assert card.kinds == transfer(sweep(scheme=["mup"]), TARGET, scheme="mup").kinds


def test_runs_on_different_data_are_refused() -> None:
    runs = sweep()
    runs.loc[0, "data_hash"] = "other"
    with pytest.raises(ValueError, match="2 different data sets"):
        transfer(runs, TARGET)


def test_a_scheme_without_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="no run has scheme 'sp'; the runs have supar"):
        transfer(sweep(scheme=["supar"]), TARGET, scheme="sp")
    with pytest.raises(ValueError, match="no run has scheme 'mup'; the runs have supar"):
        transfer(sweep(scheme=["supar"], density=[1 / 4, 1 / 8]), TARGET, scheme="mup")  # mup's only where dense
    with pytest.raises(ValueError, match="allowed: sp, mup, supar"):
        transfer(sweep(), TARGET, scheme="mutransfer")  # type: ignore[arg-type]


def test_regret_is_what_reusing_the_proxys_optimum_costs() -> None:
    table = tuned_against_transferred(sweep()).set_index(["scheme", "density"])
    assert list(tuned_against_transferred(sweep()).columns) == ["scheme", "width", "density", *COMPARISON_COLUMNS]
    # by hand: sp at 1/4 has its optimum 2 octaves above the proxy's: .05 x 2^2
    assert table.loc[("sp", 0.25), "regret"] == pytest.approx(0.2)
    assert table.loc[("sp", 0.25), "tuned_loss"] == pytest.approx(2.07)
    assert table.loc[("sp", 0.25), "transferred_loss"] == pytest.approx(2.27)
    assert table.loc[("sp", 0.25), "transferred_from"] == "measured"
    assert table.loc[("supar", 0.25), "regret"] == pytest.approx(0)
    assert table.loc[("supar", 0.25), "tuned_value"] == pytest.approx(2.0**-7)


def test_between_cells_the_transferred_loss_is_fitted_and_says_so() -> None:
    runs = made_runs(
        lambda t: 2 + 0.05 * (math.log2(t.lr) + 7.4 - (t.density < 1)) ** 2,
        {"density": [1, 1 / 4], "lr": OCTAVES, "seed": [0, 1]},
        base=BASE,
    )
    sparse = tuned_against_transferred(runs).iloc[1]
    assert sparse["transferred_from"] == "fitted"
    assert sparse["transferred_value"] == pytest.approx(2**-7.4)
    # an octave below the optimum of 2^-6.4 on an exact parabola
    assert sparse["tuned_loss"] == pytest.approx(2.0)
    assert sparse["regret"] == pytest.approx(0.05)
    assert sparse["regret_low"] < 0.05 < sparse["regret_high"]


def test_beside_a_cliff_the_tuned_loss_is_none_below_those_that_were_reached() -> None:
    """The parabola through 2.13, 2.12, 3.1 has its minimum at 2.0; the curve's lies below 2.12 by its error at most."""
    losses = dict(zip(OCTAVES, (2.5, 2.3, 2.13, 2.12, 3.1, 3.2, 3.3, 3.4, 3.5), strict=False))
    runs = made_runs(lambda t: losses.get(t.lr, 3.5), {"density": [1], "lr": OCTAVES, "seed": [0, 1]}, base=BASE)
    row = tuned_against_transferred(runs).iloc[0]
    assert 2.12 - 1.96 * optima(runs)["loss_opt_se"].item() <= row["tuned_loss"] <= 2.13
    assert row["tuned_loss"] > 2.1
    assert row["regret"] == 0


def test_the_best_scheme_after_tuning_stands_beside_every_transferred_loss() -> None:
    table = tuned_against_transferred(sweep()).set_index(["scheme", "density"])
    # tuned, a halving costs .01 and sp another .05: at 1/4 sp 2.07, mup and supar 2.02
    assert set(table["best_scheme"]) <= {"mup", "supar"}
    assert table.loc[("sp", 0.25), "best_loss"] == pytest.approx(2.02)
    assert table.loc[("supar", 1), "best_loss"] == pytest.approx(2.0)


def test_a_transferred_setting_that_diverges_or_was_not_tried_is_null_with_the_reason() -> None:
    def diverging(trial: Trial) -> float:
        return math.nan if trial.density < 1 and trial.lr > 2.0**-8.5 else loss(trial) + 0 * trial.seed

    table = tuned_against_transferred(made_runs(diverging, {"density": [1, 1 / 4], "lr": OCTAVES}, base=BASE))
    assert math.isnan(table["regret"][1])
    assert "the proxy's setting diverges here" in table["why"][1]
    runs = sweep(scheme=["supar"])
    few = runs[(runs["density"] == 1) | (runs["lr"] > 2.0**-6.5)]
    table = tuned_against_transferred(few)
    assert math.isnan(table["regret"][1])
    assert "outside the values tried" in table["why"][1]


def test_mup_and_supar_share_their_dense_proxy() -> None:
    runs = sweep()
    partial = runs[(runs["scheme"] != "mup") | (runs["density"] < 1)]
    table = tuned_against_transferred(partial).set_index(["scheme", "density"])
    assert table.loc[("mup", 0.25), "regret"] == pytest.approx(0.2)
    alone = tuned_against_transferred(runs[(runs["scheme"] == "sp") & (runs["density"] < 1)])
    assert math.isnan(alone["regret"].item())
    assert "proxy was not trained" in alone["why"].item()
