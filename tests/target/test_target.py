from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsweep import store
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.architectures import tensors
from hpsweep.cli import main
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.ensemble import train_ensemble
from hpsweep.rules.masks import mask
from hpsweep.spec import Target, Trial, trial_from_row
from hpsweep.store import RUNS
from hpsweep.target import checkpoint
from hpsweep.target.checkpoint import checkpoint_path
from hpsweep.target.ranks import Ranks
from hpsweep.target.run import Run, train_target
from hpsweep.target.trial import trial_to_train
from tests import processes
from tests.target.target_process import SHORT, TRIAL

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def _losses(folder: Path) -> list[float]:
    """Training losses of every step (a trial here has no more steps than a curve has points), and the held-out loss."""
    runs = store.load(folder)
    assert len(runs) == 1
    return [*store.load_curves(folder)["train_loss"], runs["val_loss"].item()]


def _trained(folder: Path, trial: Trial = TRIAL, **options: Any) -> list[float]:
    train_target(trial, load_dataset(trial.data), folder, device="cpu", **options)
    return _losses(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return _trained(tmp_path_factory.mktemp("whole") / "target")


def test_a_target_of_a_proxys_size_is_the_ensemble_member_bit_for_bit(uninterrupted: list[float]) -> None:
    alone = train_ensemble([TRIAL])
    assert uninterrupted == [*alone.curves["train_loss"], alone.rows[0]["val_loss"]]
    together = train_ensemble([TRIAL.replace(seed=0), TRIAL, TRIAL.replace(scheme="sp", density=1.0)])
    mine = [i for i, of in enumerate(together.curves["trial_id"]) if of == TRIAL.trial_id]
    np.testing.assert_allclose(uninterrupted[:-1], [together.curves["train_loss"][i] for i in mine], atol=1e-4)


def test_the_stored_row_is_a_trial_of_the_target_and_says_what_trained_it(tmp_path: Path) -> None:
    trial = TRIAL.replace(steps=2, precision="bfloat16")
    row = train_target(trial, load_dataset("stdlib"), tmp_path, device="cpu", accumulate=2)
    assert set(row) == set(RUNS.names) - {"error", "diverged_step", "code_hash"}
    (stored,) = store.load(tmp_path).to_dict("records")
    assert trial_from_row(stored) == trial
    assert (stored["engine"], stored["precision"], stored["ensemble_size"]) == ("torch target, 2 parts", "bfloat16", 1)


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before_to_the_same_losses(
    tmp_path: Path, uninterrupted: list[float]
) -> None:
    ended = subprocess.run([sys.executable, "-m", "tests.target.target_process", "killed", str(tmp_path)], check=False)
    assert ended.returncode == -9
    path = checkpoint_path(tmp_path, TRIAL)
    assert torch.load(path)["step"] == 10
    assert len(list(path.parent.glob(".*.tmp"))) == 1
    said: list[str] = []
    with pytest.warns(UserWarning, match="taking over from process"):
        losses = _trained(tmp_path, say=said.append)
    assert losses == uninterrupted
    assert any("goes on from step 10 of 30" in line for line in said)
    assert list(path.parent.iterdir()) == [path]
    assert _trained(tmp_path, say=said.append) == uninterrupted
    assert "has this run already (ok)" in said[-1]


def test_two_processes_have_the_same_masks_and_losses_and_go_on_to_the_same_losses(
    tmp_path: Path, uninterrupted: list[float]
) -> None:
    for what in ("whole", "stop", "resumed"):
        command = [*TWO, "-m", "tests.target.target_process", what, str(tmp_path)]
        assert (processes.start(command).wait(360) == 0) == (what != "stop")
    assert "goes on from step 15 of 30" in json.loads((tmp_path / "said0.json").read_text())[0]
    assert _losses(tmp_path / "resumed") == _losses(tmp_path / "whole")
    np.testing.assert_allclose(_losses(tmp_path / "whole"), uninterrupted, atol=1e-5)
    masks = [np.load(tmp_path / f"masks{rank}.npz") for rank in (0, 1)]
    weights = [np.load(tmp_path / f"weights{rank}.npz") for rank in (0, 1)]
    for name, (shape, kind) in tensors(TRIAL, 256).items():
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
        if kind in ("hidden", "residual_out"):
            kept = mask(TRIAL.seed, name, shape, TRIAL.density)
            assert kept.mean() == TRIAL.density
            for rank in (0, 1):
                np.testing.assert_array_equal(masks[rank][name][0], kept)
            # the union of what either process has
            assert ((weights[0][name] != 0) | (weights[1][name] != 0)).mean() == TRIAL.density


@pytest.mark.slow
def test_a_compiled_run_has_the_same_losses(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.target.target_process", "compiled", str(tmp_path)], check=True)
    assert store.load(tmp_path)["engine"].item() == "torch target, compiled"
    np.testing.assert_allclose(_losses(tmp_path), _trained(tmp_path / "plain", SHORT), atol=1e-5)


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path, uninterrupted: list[float]) -> None:
    np.testing.assert_allclose(_trained(tmp_path, accumulate=4), uninterrupted, atol=1e-5)


def test_bfloat16_trains_near_float32_with_weights_in_float32(tmp_path: Path, uninterrupted: list[float]) -> None:
    trial = TRIAL.replace(precision="bfloat16")
    losses = _trained(tmp_path, trial)
    (proxy,) = train_ensemble([trial]).rows
    assert losses[-1] == proxy["val_loss"]
    assert losses[10] != uninterrupted[10]
    np.testing.assert_allclose(losses, uninterrupted, atol=0.05)
    assert {w.dtype for w in torch.load(checkpoint_path(tmp_path, trial))["weights"].values()} == {torch.float32}


def test_masked_weights_in_a_checkpoint_are_exactly_zero_and_others_are_not(tmp_path: Path) -> None:
    _trained(tmp_path)
    weights = torch.load(checkpoint_path(tmp_path, TRIAL))["weights"]
    for name, (shape, kind) in tensors(TRIAL, 256).items():
        if kind in ("hidden", "residual_out"):
            kept = mask(TRIAL.seed, name, shape, TRIAL.density)
            np.testing.assert_array_equal(weights[name].numpy() != 0, kept)


def test_weights_that_left_the_mask_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsweep.target.run.mask_gradients", lambda gradients, masks: None)
    with pytest.raises(RuntimeError, match="not zero after step 2"):
        _trained(tmp_path, checkpoint_every=2)
    assert not checkpoint_path(tmp_path, TRIAL).exists()


def test_a_run_that_diverges_is_stored_with_its_step(tmp_path: Path) -> None:
    wild = TRIAL.replace(lr=1e6)
    row = train_target(wild, load_dataset("stdlib"), tmp_path, device="cpu")
    (expected,) = train_ensemble([wild]).rows
    assert row["status"] == "diverged"
    assert row["diverged_step"] == expected["diverged_step"]
    assert "val_loss" not in row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_hash": "0123456789abcdef"}, "has data_hash 0123456789abcdef, and this run has"),
        ({"mask": {"seed": 1, "density": 0.25, "hash": "another"}}, "has mask hash another, and this run has"),
        ({"trial_id": "another"}, "has trial_id another"),
        ({"checkpoint_version": 3}, "is a checkpoint of version 3; this hpsweep reads 2"),
        ({"checkpoint_version": "2"}, "is a checkpoint of version '2'; this hpsweep reads 2"),
        ({"checkpoint_version": True}, "is a checkpoint of version True"),
        ({"checkpoint_version": None}, "is a checkpoint of version None"),
        ({"mask": None}, "has mask hash None, and this run has"),
        ({"step": 10**9}, r"step is 1000000000; allowed: whole numbers in \[1, 30\]"),
        ({"step": -1}, "step is -1; allowed"),
        ({"step": "1"}, "step is '1'; allowed"),
        ({"step": 2}, r"train_losses has shape \[1\] of torch.float32, and this run has \[2\]"),
        ({"seconds": float("nan")}, "seconds is nan; allowed"),
        ({"seconds": "long"}, "seconds is 'long'; allowed"),
        ({"train_losses": torch.tensor([torch.nan])}, "train_losses has numbers that are not finite"),
        ({"train_losses": [1.0]}, "train_losses is a list, and no dense tensor"),
        ({"weights": {}}, r"weights has 0 entries, unlike this run in block0.attention.out, block0.attention.qkv"),
        ({"weights": [1]}, r"weights is \[1\], and no dictionary"),
        ({"moments": None}, "moments is None, and no dictionary"),
        (
            {"weights": {"block0.norm1": torch.ones(63)}},
            r"block0.norm1 has shape \[63\] of torch.float32, and .* \[64\]",
        ),
        ({"weights": {"block0.norm1": torch.ones(64).double()}}, "block0.norm1 has shape .64. of torch.float64, and"),
        ({"weights": {"block0.norm1": torch.full((64,), torch.nan)}}, "block0.norm1 has numbers that are not finite"),
        ({"weights": {"block0.norm1": torch.full((64,), -torch.inf)}}, "block0.norm1 has numbers that are not finite"),
        ({"weights": {"block0.norm1": torch.ones(64).to_sparse()}}, "block0.norm1 is a Tensor, and no dense tensor"),
        ({"weights": {"block0.mlp.in": torch.ones(256, 64)}}, "block0.mlp.in is not zero where its mask is"),
        ({"moments": {"block0.norm1": {"exp_avg_sq": -torch.ones(64)}}}, "block0.norm1 has negative mean squares"),
        ({"moments": {"block0.norm1": {"exp_avg": torch.full((64,), torch.nan)}}}, "exp_avg has numbers that are not"),
        ({"moments": {"block0.norm1": {"step": torch.tensor(7.0)}}}, "block0.norm1 is of step 7, and not of 1"),
        (
            {"moments": {"block0.norm1": {"other": torch.tensor(7.0)}}},
            "moments.block0.norm1 has .*unlike this run in other",
        ),
    ],
)
def test_a_checkpoint_that_is_not_this_runs_is_refused(begun: Path, change: dict[str, Any], words: str) -> None:
    """Each with the SHA-256 of its own content, as someone who changes it on purpose would write it."""
    path = checkpoint_path(begun, TRIAL)
    checkpoint.write_checkpoint(path, _changed(torch.load(path), change))
    with pytest.raises(ValueError, match=words) as refused:
        _trained(begun)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("remove it to begin anew.")
    assert not list(begun.glob("runs/*"))


def _changed(old: Any, new: Any) -> Any:
    if not isinstance(new, dict) or not new:
        return new
    return {**old, **{name: _changed(old.get(name, {}), value) for name, value in new.items()}}


@pytest.fixture(scope="module")
def first_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of a run that was stopped after its first step."""

    class Enough(Exception):
        pass

    def stop(*_: object) -> None:
        raise Enough

    folder = tmp_path_factory.mktemp("begun") / "target"
    with pytest.raises(Enough):
        _trained(folder, checkpoint_every=1, progress=stop)
    return folder


@pytest.fixture
def begun(first_step: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own."""
    shutil.copytree(first_step, tmp_path / "target")
    return tmp_path / "target"


def _like_and_identity() -> tuple[checkpoint.Identity, checkpoint.Like]:
    run = Run(TRIAL, load_dataset("stdlib"), Ranks(0, 1, torch.device("cpu")), compiled=False, accumulate=1)
    return run.identity, run.like()


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_which_one_bit_has_changed_is_refused(begun: Path, version: int) -> None:
    """Wherever in the file; of version 1, which had no SHA-256, in its tensors and in what says what they are."""
    path, (identity, like) = checkpoint_path(begun, TRIAL), _like_and_identity()
    if version == 1:
        torch.save({**torch.load(path), "checkpoint_version": 1}, path)
        with zipfile.ZipFile(path) as records:
            inside = [
                (record.header_offset + 30 + len(record.filename) + 64, record.file_size)
                for record in records.infolist()
                if record.file_size > 128
            ]
    whole = path.read_bytes()
    assert checkpoint.load_checkpoint(path, identity, like) is not None
    random = np.random.default_rng(0)
    places = {0, 1, len(whole) - 1, len(whole) - 64, len(whole) - 72, *random.integers(len(whole), size=60).tolist()}
    if version == 1:
        places = {start + size // 2 for start, size in inside}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is no checkpoint, or damaged .*remove it to begin anew"):
            checkpoint.load_checkpoint(path, identity, like)
    assert len(places) >= (20 if version == 1 else 60)


def test_a_checkpoint_of_version_1_is_gone_on_from(begun: Path, uninterrupted: list[float]) -> None:
    path = checkpoint_path(begun, TRIAL)
    torch.save({**torch.load(path), "checkpoint_version": 1}, path)
    assert _trained(begun) == uninterrupted


ODD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is no checkpoint, or damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "is no checkpoint, or damaged"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "is no checkpoint, or damaged"),
    "without its last line": (lambda path: path.write_bytes(path.read_bytes()[:-72]), "its SHA-256 is missing"),
    "text": (lambda path: path.write_text("no checkpoint"), "is no checkpoint, or damaged"),
    "a list": (lambda path: checkpoint.write_checkpoint(path, {"a": 1}), "it has no checkpoint_version"),
    "zip": (lambda path: zipfile.ZipFile(path, "w").close(), "is no checkpoint, or damaged"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), r"cannot be read \(it is no regular file\)"),
    "a loop": (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read"),
    "code": (lambda path: torch.save({"checkpoint_version": print}, path), "is no checkpoint, or damaged"),
}


@pytest.mark.parametrize("what", ODD_FILES)
def test_a_file_that_is_no_checkpoint_is_refused(begun: Path, what: str) -> None:
    path, (identity, like) = checkpoint_path(begun, TRIAL), _like_and_identity()
    make, words = ODD_FILES[what]
    make(path)
    with pytest.raises(ValueError, match=words) as refused:
        checkpoint.load_checkpoint(path, identity, like)
    assert "\n" not in str(refused.value)


def test_a_folder_with_rows_of_other_data_or_in_use_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trained(tmp_path, TRIAL.replace(steps=1))
    monkeypatch.setattr(Run, "step", None)  # nothing is trained
    other = dataclasses.replace(load_dataset("stdlib"), data_hash="0123456789abcdef")
    with pytest.raises(ValueError, match=r"their losses cannot be compared\. Give another folder with --out"):
        train_target(TRIAL, other, tmp_path, device="cpu")
    with store.lock(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        train_target(TRIAL, load_dataset("stdlib"), tmp_path, device="cpu")


# --- from a card ---

PROXY = Trial(width=16, depth=1, head_size=8, context=16, batch=8, steps=20, eval_sequences=32, base_width=16)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with learning rates at the proxy's and the target's size, and the card between them."""
    folder = tmp_path_factory.mktemp("results") / "swept"
    for place, off in ((PROXY, 0.0), (PROXY.replace(width=32, density=1 / 2), 0.5)):  # none at the card's, a bound
        outcome = train_ensemble(
            [place.replace(lr=2.0 ** (k + off), seed=seed) for k in range(-9, -2) for seed in (0, 1)]
        )
        store.append(folder, outcome.rows, outcome.curves)
    transfer(store.load(folder), Target(width=32, density=1 / 2, tokens=2560)).write(folder / "card.json")
    return folder


def test_a_card_is_trained_with_its_own_settings_and_its_row_stands_beside_the_sweeps(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card.read(swept / "card.json")
    trial, _ = trial_to_train(card, eval_sequences=32)
    assert (trial.width, trial.density, trial.total_steps, trial.seed) == (32, 0.5, 20, 0)
    assert {name: getattr(trial, name) for name in card.base} == card.base
    assert trial.trial_id not in set(store.load(swept)["trial_id"])
    words = ["train", str(swept / "card.json"), "--eval-sequences", "32", "--device", "cpu", "--out", str(swept)]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["trial_id"] == trial.trial_id
    runs = store.load(swept)
    assert len(runs) == 29
    assert runs.set_index("trial_id").loc[trial.trial_id, "val_loss"] == printed["val_loss"]
    assert main(["regret", str(swept), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["regret"]
    assert main(words) == 0
    assert "has this run already" in capsys.readouterr().err


def test_runs_of_a_card_with_seeds_of_their_own_are_what_its_regret_is_measured_by(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card.read(swept / "card.json")
    words = ["train", str(swept / "card.json"), "--eval-sequences", "32", "--device", "cpu", "--out", str(tmp_path)]
    for seed in ("0", "1"):
        assert main([*words, "--seed", seed]) == 0
    runs = store.load(tmp_path).sort_values("seed")
    assert runs["trial_id"].tolist() == [
        trial_to_train(card, eval_sequences=32, seed=seed)[0].trial_id for seed in (0, 1)
    ]
    capsys.readouterr()
    assert main(["regret", str(swept), str(tmp_path), "--card", str(swept / "card.json"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["card_regret"]
    assert (found["used_from"], found["used_runs"]) == ("measured", 2)
    assert found["used_loss"] == pytest.approx(runs["val_loss"].mean())
    assert found["regret"] == pytest.approx(found["used_loss"] - found["own_loss"])


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"target": {"tokens": None}}, [], "the card does not say how long its target is trained; give --tokens"),
        (
            {"target": {"vocabulary": 50257}},
            [],
            "the card says tensors[0].shape[0] is 256, and the rules make it 50257",
        ),
        ({"kinds": {"hidden": {"lr": 1.0}}}, ["--data", "text:README.md"], "the card says kinds.hidden.lr is 1.0, and"),
        ({}, ["--data", "text:absent/file"], "absent/file does not exist"),
        ({}, ["--accumulate", "3"], "batch 8 cannot be split over 1 processes x 3 parts"),
        ({}, ["--accumulate", "0"], "--accumulate is 0; give a whole number of at least 1"),
        ({}, ["--batch", "0"], "batch is 0; allowed: whole numbers in [1, 1e+08]"),
        ({}, ["--tokens", "0"], "tokens is 0; allowed: whole numbers in [1, 1e+16]"),
        ({"kinds": {"hidden": {"lr": 1.0}}}, [], "the card says kinds.hidden.lr is 1.0, and the rules make it"),
        ({"attention_scale": 0.5}, [], f"the card says attention_scale is 0.5, and the rules make it {8**-0.5!r}"),
        ({"mask": {"density": 0.25}}, [], "is not of density 0.5; make the card anew"),
        ({"schema_version": 99}, [], "is a card of version 99; this hpsweep reads"),
    ],
)
def test_a_card_that_cannot_be_trained_is_refused_in_one_line_before_any_work(
    swept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    options: list[str],
    words: str,
) -> None:
    def changed(old: Any, new: Any) -> Any:
        return {**old, **{k: changed(old[k], v) for k, v in new.items()}} if isinstance(new, dict) else new

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(changed(json.loads((swept / "card.json").read_text()), change)))
    assert main(["train", str(path), *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert list(tmp_path.iterdir()) == [path]


def test_data_of_another_vocabulary_than_the_cards_is_refused(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(width=32, density=1 / 2, tokens=2560, vocabulary=50257)
    path = transfer(store.load(swept), target).write(tmp_path / "card.json")
    assert main(["train", str(path)]) == 2
    assert "target has vocabulary 50257, and the data 'stdlib' has 256: give data" in capsys.readouterr().err


def test_tokens_that_are_no_whole_steps_are_said_with_those_that_are_trained(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(swept / "card.json"), "--eval-sequences", "32", "--device", "cpu", "--out"]
    assert main([*words, str(tmp_path / "a"), "--tokens", "10"]) == 0
    text = capsys.readouterr().err
    assert "for 1 step of 8 x 16 tokens (128 tokens, where 10 were asked for: steps are whole) on stdlib" in text
    assert main([*words, str(tmp_path / "b"), "--tokens", "256"]) == 0
    assert "for 2 steps of 8 x 16 tokens on stdlib" in capsys.readouterr().err


def test_a_card_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none" / "card.json"
    assert main(["train", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"hpsweep: {path} cannot be read (No such file or directory); give the file of a card, as Card.write or "
        "transfer writes it.\n"
    )
