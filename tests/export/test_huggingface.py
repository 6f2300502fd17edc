"""GPT-2 and Llama of transformers under its Trainer: rates, masks, saving, resuming, and the exported script."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import hpsweep
from hpsweep.export.write import export
from tests.export.test_export import TARGET, made

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

STEPS, RATE, DECAY = 50, 2.0**-7, 0.1
RESIDUAL = {"gpt2": ("*.c_proj.weight",), "llama": ("*.o_proj.weight", "*.down_proj.weight")}


def configuration(name: str, width: int) -> Any:
    """Two blocks; dropout is 0."""
    if name == "gpt2":
        return transformers.GPT2Config(
            n_embd=width, n_head=width // 16, n_layer=2, n_positions=16, vocab_size=64, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    return transformers.LlamaConfig(
        hidden_size=width, intermediate_size=3 * width, num_attention_heads=width // 16, num_hidden_layers=2,
        max_position_embeddings=16, vocab_size=64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def start(name: str, width: int = 64) -> tuple[Any, hpsweep.Plan, torch.optim.AdamW]:
    """A model at density 1/3 with its plan, wired, and its optimizer; biases and all are trained."""
    model = {"gpt2": transformers.GPT2LMHeadModel, "llama": transformers.LlamaForCausalLM}[name](
        configuration(name, width)
    )
    kinds: Any = dict.fromkeys(RESIDUAL[name], "residual_out")
    options: dict[str, Any] = {"kinds": kinds, "density": 1 / 3, "seed": 3, "alpha_output": 2.0, "alpha_input": 1.5}
    base = configuration(name, 16)
    plan = hpsweep.parametrize(model, "supar", base=base, embedding_lr_mult=4.0, **options)
    plan.init_(model, init_std=0.1, seed=0)
    plan.wire_(model, example())
    groups = plan.param_groups(model, lr=RATE, weight_decay=DECAY)
    return model, plan, torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-12)


def example() -> dict[str, Tensor]:
    return {"input_ids": torch.arange(32).view(2, 16)}


class Rows(Dataset[dict[str, Tensor]]):
    """Sequences that can be learned: token ids that go up by a step each."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids = (torch.arange(16) * (i % 3 + 1) + i) % 64
        return {"input_ids": ids, "labels": ids}


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Attaches the plan, and keeps what the optimizer took at every step, and where weights were not zero."""

    def __init__(self, model: nn.Module, plan: hpsweep.Plan, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.plan, self.optimizer = model, plan, optimizer
        self.rates: list[list[float]] = []  # of every group, per step
        self.stray: list[int] = []
        self.losses: dict[int, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.attached = self.plan.attach(self.model, self.optimizer)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        assert all(group["weight_decay"] in (0.0, DECAY) for group in self.optimizer.param_groups)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        weights = dict(self.model.named_parameters())
        masks = self.plan.masks(self.model)
        assert len(masks) == {"GPT2LMHeadModel": 8, "LlamaForCausalLM": 14}[type(self.model).__name__]
        self.stray.append(sum(int((weights[name][~exists] != 0).sum()) for name, exists in masks.items()))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if "loss" in logs:
            self.losses[state.global_step] = float(logs["loss"])


def trainer_of(folder: Path, model: nn.Module, watch: Watch, schedule: str = "cosine", **settings: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=4, lr_scheduler_type=schedule,
        warmup_steps=5, max_grad_norm=1.0, logging_steps=1, save_steps=20, seed=1, use_cpu=True,
        dataloader_pin_memory=False, disable_tqdm=True, report_to="none", **settings,
    )  # fmt: skip
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=Rows(), optimizers=(watch.optimizer, None), callbacks=[watch]
    )


def factor(schedule: str, step: int) -> float:
    """Trainer's own factor of every rate."""
    if step < 5:
        return step / 5
    done = (step - 5) / (STEPS - 5)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


@pytest.mark.parametrize(("name", "schedule"), [("gpt2", "cosine"), ("llama", "linear")])
def test_ratios_are_exact_and_masked_weights_zero_at_every_step(name: str, schedule: str, tmp_path: Path) -> None:
    model, plan, optimizer = start(name)
    watch = Watch(model, plan, optimizer)
    trainer_of(tmp_path, model, watch, schedule, save_strategy="no").train()
    multipliers = [plan.tensors[group["names"][0]].lr for group in optimizer.param_groups]
    assert set(multipliers) == {
        4.0,
        1.0,
        *(t.lr for t in plan.tensors.values() if t.kind in ("hidden", "residual_out")),
    }
    assert len(watch.rates) == len(watch.stray) == STEPS
    for step, rates in enumerate(watch.rates):
        for rate, multiplier in zip(rates, multipliers, strict=True):
            assert rate / multiplier == pytest.approx(RATE * factor(schedule, step), rel=1e-12)
    assert watch.stray == [0] * STEPS
    assert watch.losses[STEPS] < watch.losses[1] - 1


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_saving_and_loading_keep_the_masks_bit_for_bit_and_the_outputs(name: str, tmp_path: Path) -> None:
    model, plan, optimizer = start(name)
    trainer_of(tmp_path, model, Watch(model, plan, optimizer), save_strategy="no").train()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "plan.json").write_text(json.dumps(plan.state_dict()))
    loaded = type(model).from_pretrained(tmp_path / "model")
    again = hpsweep.Plan.from_state_dict(json.loads((tmp_path / "plan.json").read_text()))
    assert (again, again.mask_hash) == (plan, plan.mask_hash)
    weights = dict(loaded.named_parameters())
    for tensor, exists in plan.masks(model).items():
        assert ((weights[tensor] != 0) == (model.get_parameter(tensor) != 0)).all()
        assert (weights[tensor][~exists] == 0).all()
        assert (weights[tensor][exists] != 0).float().mean() > 0.99
        assert (again.masks(loaded)[tensor] == exists).all()
    again.wire_(loaded, example())
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**example()).logits, model.eval()(**example()).logits)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_resumed_run_has_the_masks_and_the_losses_of_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    model, plan, optimizer = start(name)
    whole = Watch(model, plan, optimizer)
    trainer_of(tmp_path / "whole", model, whole).train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-20", tmp_path / "part" / "checkpoint-20")

    resumed, _, optimizer = start(name)
    part = Watch(resumed, plan, optimizer)
    trainer_of(tmp_path / "part", resumed, part).train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-20"))
    assert part.rates == whole.rates[20:]
    assert part.stray == [0] * (STEPS - 20)
    assert part.losses == {step: loss for step, loss in whole.losses.items() if step > 20}
    for ours, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# --- the exported script ---

SMALL = "--width 64 --base-width 32 --depth 2 --head-size 16 --vocabulary 256 --steps 12 --batch 2 --save-every 6 --cpu"


def script(folder: Path) -> Path:
    path = folder / "train.py"
    path.write_text(export(made(embedding_lr_mult=4.0, clip=0.5), "hf"))
    return path


def loaded_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported_hf", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(path: Path, *words: str) -> str:
    """What the script prints, in a process of its own."""
    command = [sys.executable, "-W", "error", str(path), *SMALL.split(), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_exported_script_trains_saves_and_resumes_to_the_same_model(tmp_path: Path) -> None:
    path = script(tmp_path)
    said = run(path, "--out", str(tmp_path / "whole"))
    last = said.strip().splitlines()[-1]
    trained, loaded = last.removeprefix("loss of a held-out sequence: trained ").split(", loaded ")
    assert trained == loaded
    for part in ("supar for adam", "lm_head.weight", "transformer.h.1.attn.scaling = 0.353553"):  # sqrt(32) / 16
        assert part in said
    shutil.copytree(tmp_path / "whole" / "checkpoint-6", tmp_path / "part" / "checkpoint-6")
    resumed = run(path, "--out", str(tmp_path / "part"), "--resume")
    assert resumed.strip().splitlines()[-1] == last
    assert (said.count("{'loss'"), resumed.count("{'loss'")) == (12, 6)
    exported = loaded_script(path)
    model, plan = exported.load(tmp_path / "whole" / "model", "gpt2")
    other, again = exported.load(tmp_path / "part" / "model", "gpt2")
    assert plan == again
    for tensor, exists in plan.masks(model).items():
        weights = model.get_parameter(tensor)
        assert (weights[~exists] == 0).all()
        assert int(exists.sum()) == exists.numel() // 4
        assert torch.equal(weights, other.get_parameter(tensor))


def in_process(path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """The settings that the script gave Trainer."""
    monkeypatch.setattr(sys, "argv", [str(path), *SMALL.split(), *words])
    exported, seen = loaded_script(path), dict[str, Any]()
    make = exported.TrainingArguments
    exported.TrainingArguments = lambda **settings: (seen.update(settings), make(**settings))[1]
    exported.main()
    return seen


def test_the_exported_script_trains_a_llama_on_files_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = script(tmp_path), tmp_path / "data.txt"
    data.write_bytes(b"abcd" * 1000)
    seen = in_process(path, monkeypatch, "--model", "llama", "--data", str(data), "--out", str(tmp_path / "out"))
    assert (seen["max_grad_norm"], seen["max_steps"], seen["per_device_train_batch_size"]) == (0.5, 12, 2)
    trained, loaded = capsys.readouterr().out.strip().splitlines()[-1].split("trained ")[1].split(", loaded ")
    assert trained == loaded
    assert float(trained) < math.log(256) - 1


def test_the_exported_script_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = script(tmp_path), ["--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="has no checkpoint; leave --resume out"):
        in_process(path, monkeypatch, "--out", str(tmp_path / "none"), "--resume")
    with pytest.raises(SystemExit, match="has no checkpoint; leave --resume out"):
        in_process(path, monkeypatch, *out, "--resume")
    folder = tmp_path / "checkpoint-6"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(start("gpt2")[1].state_dict()))
    with pytest.raises(SystemExit, match="--resume: the checkpoint was made under plan"):
        in_process(path, monkeypatch, *out, "--resume")
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(SystemExit, match="--data has 5 bytes; sequences of 16 need 320 at least"):
        in_process(path, monkeypatch, *out, "--data", str(tmp_path / "short.txt"))
    with pytest.raises(SystemExit, match="--vocabulary 64: bytes are token ids from 0 to 255"):
        in_process(path, monkeypatch, *out, "--vocabulary", "64")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--head-size", "24"), "--head-size 24 is no head of gpt2 at --width 64; give one of 1, 2, 4, 8, 16, 32, 64."),
        (("--width", "63"), "--head-size 16 is no head of gpt2 at --width 63; give one of 1, 3, 7, 9, 21, 63."),
        (("--steps", "0"), "--steps 0: give a whole number of at least 1."),
        (("--save-every", "0"), "--save-every 0: give a whole number of at least 1."),
        (("--depth", "-1"), "--depth -1: give a whole number of at least 1."),
        (("--context", "1"), "--context 1: give a whole number of at least 2."),
        (("--head-size", "1", "--model", "llama"), "no head of llama at --width 64; give one of 2, 4, 8, 16,"),
        (("--width", "63", "--model", "llama"), "no head of llama at --width 63; give an even width, for llama."),
        (("--base-width", "128"), "--base-width 128 is wider than --width 64; give at most the width."),
        (("--data", "nosuch"), "--data nosuch is no file that can be read; give files whose bytes are the tokens."),
        (("--data", str(Path(__file__).parent)), "is no file that can be read"),
        (("--out", __file__), "test_huggingface.py is no folder; give one for checkpoints and the model."),
        (("--resume", "--out", "nosuch"), "--resume: nosuch has no checkpoint; leave --resume out"),
    ],
)
def test_the_exported_script_checks_sizes_and_paths_before_it_builds_a_model(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.PreTrainedModel, "__init__", lambda *_, **__: pytest.fail("a model was built"))
    with pytest.raises(SystemExit) as end:
        in_process(path, monkeypatch, *words)
    assert said in str(end.value.code)
    assert {each.name for each in tmp_path.iterdir()} - {"__pycache__"} == {path.name}


def test_a_finished_run_of_the_exported_script_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = script(tmp_path), tmp_path / "out"
    in_process(path, monkeypatch, "--steps", "2", "--out", str(out))
    for steps in ("2", "1"):
        with pytest.raises(SystemExit, match=f"checkpoint-2 was saved after step 2 of --steps {steps}, and nothing"):
            in_process(path, monkeypatch, "--steps", steps, "--out", str(out), "--resume")
    assert sorted(folder.name for folder in out.iterdir()) == ["checkpoint-2", "model"]
    (out / "checkpoint-2" / "plan.json").unlink()
    with pytest.raises(SystemExit, match=r"checkpoint-2 has no plan\.json; remove that folder"):
        in_process(path, monkeypatch, "--steps", "4", "--out", str(out), "--resume")


def test_the_exported_script_says_which_heads_its_base_has_and_takes_short_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--base-width", "24", "--context", "4", "--steps", "1", "--out", str(tmp_path / "out"))
    in_process(script(tmp_path), monkeypatch, *words)
    said = capsys.readouterr().out
    assert said.startswith("heads of 16 do not divide the base width 24: the base has heads of 8\n")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_exported_script_at_the_cards_size_has_the_cards_numbers(name: str, tmp_path: Path) -> None:
    card = made(embedding_lr_mult=4.0)
    exported = loaded_script(script(tmp_path))
    sizes: dict[str, Any] = {key: card.target[key] for key in ("width", "depth", "head_size", "context", "vocabulary")}
    arguments = SimpleNamespace(model=name, base_width=exported.BASE_WIDTH, **sizes)
    with torch.device("meta"):
        model = exported.MODELS[name](exported.configuration(arguments, TARGET.width))
    plan = exported.plan_of(model, arguments)
    for tensor, planned in plan.tensors.items():
        n = card.kinds[planned.kind]
        ours = (card.base["lr"] * planned.lr, DECAY * planned.weight_decay, card.base["init_std"] * planned.init_std)
        assert ours == pytest.approx((n["lr"], n["weight_decay"], n["init_std"]), rel=1e-12), tensor
    config = exported.configuration(arguments, 128)  # the proxy's, where the architecture has it
    for key, value in {
        "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "attention_dropout": 0, "layer_norm_epsilon": 1e-5,
        "rms_norm_eps": 1e-5, "activation_function": "gelu", "tie_word_embeddings": True, "num_attention_heads": 4,
        "max_position_embeddings": 16, "vocab_size": 61,
    }.items():  # fmt: skip
        assert getattr(config, key, value) == value, key
    assert exported.plan_of(model, SimpleNamespace(**vars(arguments) | {"base_width": 64})).tensors
