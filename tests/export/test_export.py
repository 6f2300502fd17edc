"""Exports of a card: what each says, its numbers beside the card's and a hand-written nanoGPT's, what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import hpsweep.export
from hpsweep.analysis.transfer.card import CARD_VERSION, Card
from hpsweep.analysis.transfer.card_trial import card_trial
from hpsweep.analysis.transfer.transfer import transfer
from hpsweep.cli import main
from hpsweep.export import TRAINERS
from hpsweep.export.write import checked_trial, export, parameter_groups
from hpsweep.proxy import schedule
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets
from hpsweep.proxy.train import train
from hpsweep.rules.multipliers import attention_scale, tensor_numbers
from hpsweep.schemes import Scheme
from hpsweep.spec import Target, Trial
from tests.analysis.transfer.test_transfer import BASE, sweep
from tests.own_model.test_plan_proxy import ProxyModule
from tests.pages import indented
from tests.paths import ROOT

REFERENCE = sorted(Path("results/reference").glob("*/card.json"))
TARGET = Target(width=256, density=1 / 4, depth=3, head_size=32, context=16, vocabulary=61, tokens=4800)


def made(scheme: Scheme = "supar", target: Target = TARGET, **changes: Any) -> Card:
    """A card of BASE's sweep; embedding_lr_mult is 1, which nanoGPT needs, unless given."""
    base = BASE.replace(**{"embedding_lr_mult": 1.0, "weight_decay": 0.1, "context": 16, "batch": 6} | changes)
    proxy = {"density": base.base_density}
    runs = sweep(base, density=[base.base_density, base.base_density / 4])
    return transfer(runs, target, scheme=scheme, proxy=proxy)


def loaded(text: str, folder: Path, name: str) -> ModuleType:
    """The module of an exported file."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unwrapped(text: str) -> str:
    """The text without line breaks and comment signs."""
    return re.sub(r"\s*\n(# )?\s*", " ", text)


# --- what every export says ---


@pytest.mark.parametrize("to", TRAINERS)
def test_every_export_states_base_target_numbers_rules_interval_and_warnings(to: str) -> None:
    card = made()
    said = unwrapped(export(card, to))
    row = card.optimum
    for part in (
        "scheme: supar",
        "base (m_d = m_rho = 1): width 128, density 1.0, attention scaled from head size 32",
        "target: width 256, density 0.25, depth 3, head_size 32, context 16, tied True, vocabulary 61, tokens 4800",
        "multipliers: m_d 2.0, m_rho 0.25",
        f"base values: lr {card.base['lr']!r}, init_std 0.08, alpha_input 2.0, alpha_attention 1.0, alpha_output 0.5",
        "weight decay: base 0.1, rule coupled",
        "beta1 0.9, beta2 0.95, eps 1e-12",
        "clipped at 1.0",
        "linear warm-up over 0.1 of the steps, then linear decay to 0.0",
        "duration 50 steps",
        f"interval: lr {row['opt']!r}, the proxy's optimum, 95 % interval [{row['low']!r}, {row['high']!r}], status ok",
        f"uncertainty: {card.uncertainty!r} octaves",
        f"forward multipliers: embedding 2.0, readout 0.25, attention logits {32**-0.5!r}",
        "density 0.25 of every hidden and residual_out matrix, seed 0",
        *(f"warning: {warning}" for warning in card.warnings),
        *(f"{kind}: m_d {n['m_d']!r}" for kind, n in card.kinds.items()),
        *(f"{name} {value!r}" for numbers in card.kinds.values() for name, value in numbers.items()),
    ):
        assert part in said, part
    assert card.warnings


def test_the_interval_is_that_of_what_is_carried() -> None:
    card = made()
    moved = {**card.along_drift, "carried": "drift", "value": 0.01, "low": 0.005, "high": 0.03}
    said = unwrapped(export(dataclasses.replace(card, along_drift=moved), "torch"))
    assert "the setting along the drift, 95 % interval [0.005, 0.03]" in said
    joint = Card.read("results/reference/lr_by_init_std/card.json")
    said = unwrapped(export(joint, "torch"))
    for name in ("lr", "init_std"):
        low, high = joint.optimum[f"{name}_low"], joint.optimum[f"{name}_high"]
        assert f"interval: {name} {joint.base[name]!r}, the proxy's optimum, 95 % interval [{low!r}, {high!r}]" in said
    bound = dataclasses.replace(card, uncertainty=None, optimum=card.optimum | {"status": "edge", "high": None})
    assert "uncertainty: unknown, a bound" in export(bound, "torch")


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.parent.name)
def test_every_published_card_is_exported_or_refused_with_the_reason(path: Path) -> None:
    card = Card.read(path)
    for to in ("torch", "hf"):
        compile(export(card, to), path, "exec")
    with pytest.raises(ValueError, match=r"nanoGPT cannot express this card: embedding_lr_mult is \d+.0, and it has"):
        export(card, "nanogpt")


def test_exported_files_are_clean_python(tmp_path: Path) -> None:
    for to in TRAINERS:
        (tmp_path / f"{to}.py").write_text(export(made(), to))
    words = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,W,B,UP"]
    checked = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("to", ["torch", "hf"])
def test_the_schedule_of_the_scripts_is_the_proxys(to: str, tmp_path: Path) -> None:
    trials = BASE, BASE.replace(warmup_fraction=0.3, final_lr_fraction=0.1), BASE.replace(warmup_fraction=0.0)
    for number, trial in enumerate(trials):  # a file of the name of another would be taken for it, as compiled
        card = made(warmup_fraction=trial.warmup_fraction, final_lr_fraction=trial.final_lr_fraction)
        script = loaded(export(card, to), tmp_path, f"schedule_{to}_{number}")
        assert [script.schedule(i, 100) for i in range(100)] == [schedule.lr_factor(trial, i) for i in range(100)]


# --- another trainer ---

LINES = """
from hpsweep.export.statement import statement_lines


def file_text(card, trial):
    return "".join(f"{line}\\n" for line in statement_lines(card, trial))


def file_data(card, trial):
    return {"warnings": [], "lr": trial.lr}
"""


def test_an_export_target_is_a_file_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "to_lines.py").write_text(LINES)
    monkeypatch.setattr(hpsweep.export, "__path__", [*hpsweep.export.__path__, str(tmp_path)])
    monkeypatch.setitem(TRAINERS, "lines", "the statement alone")
    card = made()
    path = tmp_path / "card.json"
    card.write(path)
    assert main(["export", str(path), "--to", "lines"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "scheme: supar"
    assert main(["export", str(path), "--to", "lines", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lr"] == card.base["lr"]
    assert [group["kind"] for group in told["parameter_groups"]] == [group["kind"] for group in parameter_groups(card)]
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "lines: the statement alone" in unwrapped(capsys.readouterr().out)


def test_every_file_of_a_trainer_is_in_the_table() -> None:
    files = (ROOT / "hpsweep" / "export").glob("to_*.py")
    assert {path.stem.removeprefix("to_") for path in files} == set(TRAINERS)


# --- parameter groups of the reference GPT ---


def test_parameter_groups_by_tensor_name_are_the_rules() -> None:
    card = made(embedding_lr_mult=4.0, weight_decay_rule="independent")
    trial = checked_trial(card)
    numbers = tensor_numbers(trial, 61)
    listed = {name: (group, tensor) for group in parameter_groups(card) for name, tensor in group["tensors"].items()}
    assert [(name, t["shape"], t["nonzeros"]) for name, (_, t) in listed.items()] == unordered(card)
    for name, n in numbers.items():
        group, _ = listed[name]
        ours = dataclasses.asdict(n)
        assert {key: group[key] for key in ours} == ours
        assert group["eps"] == 1e-12
    assert numbers["block2.mlp.in"].weight_decay == 0.1 * 2 / 4


def unordered(card: Card) -> list[tuple[str, list[int], int]]:
    """The card's tensors, in the order of the groups."""
    kinds = list(dict.fromkeys(tensor["kind"] for tensor in card.tensors))
    ordered = sorted(card.tensors, key=lambda tensor: kinds.index(tensor["kind"]))
    return [(tensor["name"], tensor["shape"], tensor["nonzeros"]) for tensor in ordered]


# --- torch ---


def module_of(card: Card, width: int | None = None, **changes: Any) -> ProxyModule:
    trial: Trial = card_trial(card, steps=1, **({} if width is None else {"width": width}), **changes)
    return ProxyModule(trial, card.target["vocabulary"])


NAMES: Any = {"*attention.out.weight": "residual_out", "*mlp.out.weight": "residual_out"}


def built(card: Card, folder: Path) -> tuple[ProxyModule, Any, Any, Any, ModuleType]:
    """The reference GPT without multipliers of its own, made ready by the exported torch file."""
    script = loaded(export(card, "torch"), folder, f"torch_{card.scheme}")
    model = module_of(card)
    model.plain[0].input_multiplier = model.plain[0].output_multiplier = 1.0
    ids = torch.arange(2 * 16).view(2, 16)
    return (model, *script.build(model, base=lambda: module_of(card, 128), kinds=NAMES, inputs=ids), script)


@pytest.mark.parametrize("scheme", ["sp", "mup", "supar"])
def test_the_torch_file_gives_a_module_the_cards_numbers(scheme: Scheme, tmp_path: Path) -> None:
    card = made(scheme, embedding_lr_mult=4.0, tied=False)
    model, plan, adamw, _, _ = built(card, tmp_path)
    std, found = card.base["init_std"], {}
    for group in adamw.param_groups:
        assert (group["eps"], group["betas"]) == (1e-12, (0.9, 0.95))
        for name in group["names"]:
            found[name] = (group["initial_lr"], group["weight_decay"], std * plan.tensors[name].init_std)
    assert len(found) == len(card.tensors)
    for tensor in card.tensors:
        n = card.kinds[tensor["kind"]]
        ours = found[f"{tensor['name']}.weight"]
        assert ours == pytest.approx((n["lr"], n["weight_decay"], n["init_std"]), rel=1e-12)
        weight = model.get_parameter(f"{tensor['name']}.weight").detach()
        assert int((weight != 0).sum()) == tensor["nonzeros"]
        if n["init_std"]:
            assert float(weight[weight != 0].std()) == pytest.approx(n["init_std"], rel=0.1)
    assert card.plan(model, base=lambda: module_of(card, 128), kinds=NAMES) == plan


@pytest.mark.parametrize("changes", [{}, {"base_head_size": 1}, {"base_head_size": 8, "alpha_attention": 3.0}], ids=str)
@pytest.mark.parametrize("scheme", ["sp", "mup", "supar"])
def test_the_scripts_scale_attention_as_the_card_does(scheme: Scheme, changes: dict[str, Any], tmp_path: Path) -> None:
    card = made(scheme, dataclasses.replace(TARGET, head_size=64), **changes)
    assert card.attention_scale != made(scheme, dataclasses.replace(TARGET, head_size=32), **changes).attention_scale
    _, plan, _, _, _ = built(card, tmp_path)  # wires the model, and verifies its factors
    own = card.plan(module_of(card), base=lambda: module_of(card, 128), kinds=NAMES)
    script = loaded(export(card, "hf"), tmp_path, f"hf_{scheme}")
    words = {"width": 256, "base_width": 128, "head_size": 64, "depth": 3, "context": 16, "vocabulary": 61}
    arguments = SimpleNamespace(model="gpt2", **words)
    hf = script.plan_of(script.MODELS["gpt2"](script.configuration(arguments, 256)), arguments)
    assert [one.attention_scale(64) for one in (plan, own, hf)] == [card.attention_scale] * 3
    options: Any = {"base": lambda: module_of(card, 128), "kinds": NAMES, "base_head_size": 16}
    given = card.plan(module_of(card), **options, check=False)
    assert given.attention_scale(64) == attention_scale(checked_trial(card).replace(base_head_size=16))
    if scheme != "sp":
        with pytest.raises(ValueError, match=r"scaled from a base head size 16, and the card's from \d+: leave it to"):
            card.plan(module_of(card), **options)


def test_a_script_that_was_exported_before_the_base_head_size_is_refused_under_the_scale_of_now(tmp_path: Path) -> None:
    text = export(made(), "torch")
    old = re.sub(r"\*\*\{\"base_head_size\": BASE_HEAD_SIZE, \*\*options\}.*", "**options,", text)
    old = old.replace(", base_head_size=BASE_HEAD_SIZE", "")
    assert old.count("BASE_HEAD_SIZE") == 1  # its literal
    script = loaded(old, tmp_path, "exported_before")
    card = made()
    with pytest.raises(
        ValueError, match=r"base head size that is not known, and the card's from 1: .*earlier hpsweep anew"
    ):
        script.plan_of(module_of(card), base=module_of(card, 128), kinds=NAMES)


@pytest.mark.parametrize("scheme", ["sp", "supar"])
def test_the_torch_file_trains_the_reference_gpt_to_the_losses_of_hpsweep(scheme: Scheme, tmp_path: Path) -> None:
    card = made(scheme, dataclasses.replace(TARGET, vocabulary=256, depth=1, tokens=1920), embedding_lr_mult=4.0)
    trial, data = checked_trial(card), load_dataset("stdlib")
    model, plan, adamw, scheduler, script = built(card, tmp_path)
    losses = []
    for row in train_offsets(data, seed=0, steps=script.STEPS, batch=script.BATCH, context=16):
        inputs, targets = map(torch.from_numpy, token_windows(data.train, row, 16))
        loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        losses.append(loss.item())
        adamw.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), script.CLIP)
        adamw.step()
        scheduler.step()
    curve = list(train([trial.replace(eval_sequences=2)]).curves["train_loss"])
    assert len(losses) == 20
    assert losses == pytest.approx(curve, abs=2e-4)
    weights = dict(model.named_parameters())
    for name, exists in plan.masks(model).items():
        assert (weights[name][~exists] == 0).all()


def test_a_module_of_other_sizes_than_the_cards_is_refused_unless_told() -> None:
    card = made()

    def plan(model: nn.Module, base: int = 128, **options: Any) -> hpsweep.Plan:
        planned: hpsweep.Plan = card.plan(model, base=lambda: module_of(card, base), **options)
        return planned

    with pytest.raises(ValueError, match=r"block0.attention.qkv.weight has m_d 4 \(fan-in 256\), and the card's.* 2; "):
        plan(module_of(card), 64, kinds=NAMES)
    with pytest.raises(ValueError, match=r"no hidden matrix has fan-in 256, the card's width; there are \[512, 2048\]"):
        plan(module_of(card, 512), 256, kinds=NAMES)
    with pytest.raises(ValueError, match=r"0 tensors are residual_out, and the card's 3 blocks have 6: name the"):
        plan(module_of(card))
    with pytest.raises(ValueError, match=r"block0.\w+.\w+.weight has density 1, and the card's hidden matrices 0.25;"):
        plan(module_of(card), kinds=NAMES, exclude="block0.*")
    with pytest.raises(ValueError, match=r"4 tensors are residual_out, and the card's 3 blocks have 6"):
        card.plan(module_of(card, depth=2), base=module_of(card, 128, depth=2), kinds=NAMES)
    assert plan(module_of(card), 64, check=False).tensors["block0.mlp.out.weight"].m_d == 4


# --- nanoGPT ---


def run_config(text: str, **scope: Any) -> dict[str, Any]:
    """What a config leaves in the scope that train.py executes it in."""
    exec(compile(text, "config.py", "exec"), scope)
    return scope


def as_nanogpt_trains(c: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Numbers by kind as nanoGPT-mup's supar branch has them, written by hand after its model.py and train.py.

    The module is linear; norms begin at 1 and do not decay.
    """
    rest = {"lr": c["learning_rate"], "weight_decay": c["weight_decay"], "init_std": c["init_std"], "forward": 1.0}
    gain = {"lr": c["learning_rate"], "weight_decay": 0.0, "init_std": 0.0, "forward": 1.0}
    width, density = 1.0, 1.0
    if c["mup_enabled"]:
        width = c["mup_width_multiplier"]
        if c["supar_enabled"] and c["sparsity"] > 0:
            density = 1 - c["sparsity"]
    hidden = {
        "lr": c["learning_rate"] * (1 / (width * density)),
        "weight_decay": c["weight_decay"],
        "init_std": c["init_std"] / math.sqrt(width * density),
        "forward": 1.0,
    }
    embedding = rest | {"forward": c["mup_input_alpha"] if c["mup_enabled"] else 1.0}
    return {
        "embedding": embedding,
        "readout": rest | {"forward": c["mup_output_alpha"] / width if c["mup_enabled"] else 1.0},
        "hidden": hidden,
        "residual_out": hidden | {"init_std": hidden["init_std"] / math.sqrt(2 * c["n_layer"])},
        "norm": gain,
        "bias": gain,
    }


NANOGPT_CARDS: list[tuple[Scheme, dict[str, Any], Target]] = [
    ("supar", {}, TARGET),
    ("supar", {}, dataclasses.replace(TARGET, density=1.0)),
    ("supar", {"base_density": 1 / 4}, dataclasses.replace(TARGET, density=1 / 8)),
    ("supar", {"base_density": 1 / 4}, dataclasses.replace(TARGET, density=1.0)),
    ("supar", {"weight_decay": 0.0, "weight_decay_rule": "independent"}, dataclasses.replace(TARGET, density=0.3)),
    ("mup", {}, TARGET),
    ("mup", {"base_density": 1 / 4}, TARGET),
    ("sp", {}, dataclasses.replace(TARGET, density=1.0)),
    ("sp", {"base_head_size": 1, "alpha_attention": 3.0}, dataclasses.replace(TARGET, density=1.0, head_size=64)),
    ("supar", {"base_head_size": 1}, TARGET),
    ("mup", {"base_head_size": 1}, dataclasses.replace(TARGET, head_size=64)),
    ("supar", {"base_head_size": 16, "alpha_attention": 2.0}, dataclasses.replace(TARGET, head_size=64)),
]


@pytest.mark.parametrize(("scheme", "changes", "target"), NANOGPT_CARDS)
def test_nanogpt_trains_every_kind_with_the_cards_numbers(
    scheme: Scheme, changes: dict[str, Any], target: Target
) -> None:
    card = made(scheme, target, **changes)
    config = run_config(export(card, "nanogpt"))
    numbers = as_nanogpt_trains(config)
    assert numbers.keys() == card.kinds.keys()
    for kind, ours in numbers.items():
        for name, value in ours.items():
            assert value == pytest.approx(card.kinds[kind][name], rel=1e-12), (kind, name)
    d_head = config["n_embd"] // config["n_head"]
    by_size = config["mup_enabled"] and not config["mup_disable_attention_scaling"]
    scale = 1 / d_head if by_size else 1 / math.sqrt(d_head)
    assert scale == pytest.approx(card.attention_scale, rel=1e-12)
    assert 1 - config["sparsity"] == pytest.approx(target.density, rel=1e-12)


def test_a_nanogpt_config_has_the_keys_of_the_branch_with_the_cards_values() -> None:
    card = made(final_lr_fraction=0.1)
    config = run_config(export(card, "nanogpt"))
    assert {name: value for name, value in config.items() if name != "__builtins__"} == {
        "out_dir": "out-supar-256", "eval_interval": 250, "eval_iters": 200, "log_interval": 10,
        "dataset": "openwebtext", "gradient_accumulation_steps": 1, "batch_size": 6, "block_size": 16,
        "n_layer": 3, "n_head": 8, "n_embd": 256, "dropout": 0.0, "bias": False, "init_std": 0.08,
        "learning_rate": card.base["lr"], "max_iters": 49, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95,
        "grad_clip": 1.0, "decay_lr": True, "warmup_iters": 5, "lr_decay_iters": 49,
        "min_lr": card.base["lr"] * 0.1, "mup_enabled": True, "mup_disable_attention_scaling": True,
        "mup_disable_hidden_lr_scaling": False, "mup_width_multiplier": 2.0, "mup_input_alpha": 2.0,
        "mup_output_alpha": 0.5, "supar_enabled": True, "sparsity": 0.75, "seed": 0,
    }  # fmt: skip


def test_init_std_reaches_the_model_though_train_py_does_not_hand_it_over() -> None:
    @dataclasses.dataclass
    class GPTConfig:
        n_layer: int = 12
        init_std: float = 0.02

    scope = run_config(export(made(init_std=0.05), "nanogpt"), GPTConfig=GPTConfig)
    config = scope["GPTConfig"](n_layer=scope["n_layer"])
    assert (config, type(config)) == (GPTConfig(n_layer=3, init_std=0.05), GPTConfig)
    assert scope["GPTConfig"](init_std=0.1).init_std == 0.1


def test_what_nanogpt_does_otherwise_stands_in_its_config() -> None:
    short = dataclasses.replace(TARGET, tokens=None)
    assert "duration unknown, the proxy's 100 steps stand in for it" in unwrapped(export(made("mup", short), "torch"))
    said = unwrapped(export(made("supar", short, base_density=1 / 2), "nanogpt"))
    for part in (
        "warning: here, after warm-up the rate falls by a cosine",
        "warning: here, eps is torch's 1e-08 and has no key; the card has 1e-12",
        "warning: here, the card does not say how long the target is trained: max_iters is the proxy's 100 steps",
        "61 has to be vocab_size of the data set's meta.pkl",
        "masks are drawn by coin flips",
        "the readout's multiplier acts only where targets are given",
        "the base density 0.5 has no key",
    ):
        assert part in said, part
    dense = unwrapped(export(made("sp", dataclasses.replace(TARGET, density=1.0), eps=1e-8), "nanogpt"))
    for part in (
        "masks are drawn",
        "multiplier acts only",
        "base density 0",
        "eps is torch's",
        "does not say how long",
    ):
        assert part not in dense, part


@pytest.mark.parametrize(
    ("scheme", "changes", "reason"),
    [
        (
            "supar",
            {"embedding_lr_mult": 4.0},
            r"embedding_lr_mult is 4.0, and it has one rate.* gains, whose rate would be 16 x the card's",
        ),
        ("sp", {"embedding_lr_mult": 0.5}, r"embedding_lr_mult is 0.5"),
        ("mup", {"tied": False}, r"the readout is not tied.*Make a card of tied models"),
        (
            "supar",
            {"base_head_size": 8},
            r"attention logits are multiplied by 0.0883\d* \(base_head_size 8, alpha_attention 1.0\), and at head size "
            r"32 it has 0.03125 and 0.176\d*\. Make a card whose target has heads of the base's size",
        ),
        ("mup", {"alpha_attention": 2.0}, r"attention logits are multiplied by 0.353\d* .*alpha_attention 2.0"),
        ("sp", {}, r"scheme sp at density 0.25: .*keep PyTorch's own initial weights"),
        (
            "supar",
            {"weight_decay_rule": "independent"},
            r"the weight decay rule independent makes the decay 0.05 for hidden .*0.1 for emb",
        ),
    ],
)
def test_what_nanogpt_cannot_express_is_refused_with_the_reason(
    scheme: Scheme, changes: dict[str, Any], reason: str
) -> None:
    card = made(scheme, **changes)
    with pytest.raises(ValueError, match=f"nanoGPT cannot express this card: {reason}"):
        export(card, "nanogpt")
    for to in ("torch", "hf"):
        assert export(card, to)


def test_what_could_make_up_for_embedding_lr_mult_in_nanogpt_would_change_the_rate_of_gains() -> None:
    """The reason that the refusal gives: under Adam only forward x init std and forward x rate matter."""
    factor = 4.0
    card = made(embedding_lr_mult=factor)
    config = run_config(export(made(), "nanogpt"))
    config["learning_rate"] = card.base["lr"] * factor**2
    config["mup_width_multiplier"] *= factor**2
    config["init_std"] *= factor
    config["mup_input_alpha"] /= factor
    config["mup_output_alpha"] *= factor
    for kind, ours in as_nanogpt_trains(config).items():
        theirs = card.kinds[kind]
        rates = [n["forward"] * n["lr"] for n in (ours, theirs)]
        if kind in ("norm", "bias"):
            assert rates[0] / rates[1] == pytest.approx(factor**2)
        else:
            stds = [n["forward"] * n["init_std"] for n in (ours, theirs)]
            assert (rates[0], stds[0]) == pytest.approx((rates[1], stds[1]), rel=1e-12)


# --- wrong input, and the command ---


def test_a_card_that_was_changed_is_refused_by_every_export() -> None:
    card = made()
    kinds = card.kinds | {"hidden": card.kinds["hidden"] | {"lr": 0.5}}
    for to in TRAINERS:
        with pytest.raises(ValueError, match=r"the card says kinds.hidden.lr is 0.5, and the rules make it .*Make the"):
            export(dataclasses.replace(card, kinds=kinds), to)
        with pytest.raises(ValueError, match=r"the card is not whole \(schedule has no warmup_fraction, .*\); make it"):
            export(dataclasses.replace(card, schedule={}), to)
        with pytest.raises(ValueError, match=r"lr is -1.0; allowed: \(0, 1e\+30\]"):
            export(dataclasses.replace(card, base=card.base | {"lr": -1.0}), to)


@pytest.mark.parametrize("part", ["evidence", "proxy", "optimum", "along_drift", "optimizer", "mask", "base", "target"])
def test_a_card_that_lacks_a_part_is_refused_in_one_line(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for empty in ({}, None):
        path = dataclasses.replace(made(), **{part: empty}).write(tmp_path / "card.json")
        for to in TRAINERS:
            said = one_line(capsys, "export", str(path), "--to", to)
            assert "the card is not whole (" in said
            assert f"{part}" in said
            assert said.endswith("; make it anew.\n")
        assert "the card is not whole (" in one_line(capsys, "train", str(path), "--steps", "2")


@pytest.mark.parametrize(
    ("part", "changed", "problem"),
    [
        ("optimum", {"low": None}, "optimum has status ok and no low"),
        ("optimum", {"opt": None}, "optimum has status ok and no opt"),
        ("optimum", {"high": 1e-30}, "out of order"),
        ("mask", {"kinds": []}, "mask.kinds"),
    ],
)
def test_a_card_with_a_value_that_cannot_be_is_refused_in_one_line(
    part: str, changed: dict[str, Any], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = made()
    path = dataclasses.replace(card, **{part: {**getattr(card, part), **changed}}).write(tmp_path / "card.json")
    said = one_line(capsys, "export", str(path), "--to", "torch")
    assert "the card is not whole (" in said
    assert problem in said


def test_the_card_for_nanogpt_on_the_page_is_made_and_exported_by_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in indented(ROOT / "docs" / "exports.md") if "hpsweep transfer" in block]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    for line in block.replace("\\\n", " ").splitlines():
        program, *words = line.split("#")[0].split()
        assert program == "hpsweep"
        assert main(words) == 0
    capsys.readouterr()
    config = run_config((tmp_path / "config.py").read_text())
    assert (config["sparsity"], config["n_embd"]) == (0.9375, 1024)
    # a fit: its last digits differ between the kernels that processors multiply matrices with
    assert config["learning_rate"] == pytest.approx(0.00378341727, rel=1e-6)


def test_an_unknown_trainer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"there is no export to 'jax'; allowed: torch, hf, nanogpt\."):
        export(made(), "jax")


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        status = main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


def test_the_command_prints_writes_and_gives_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = made()
    path, out = str(card.write(tmp_path / "card.json")), tmp_path / "config.py"
    assert main(["export", path, "--to", "nanogpt"]) == 0
    printed, err = capsys.readouterr()
    assert printed == export(card, "nanogpt")
    assert err.count("hpsweep: warning: ") >= len(card.warnings)
    assert main(["export", path, "--to", "nanogpt", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"written to {out}\n"
    assert out.read_text() == printed
    assert main(["export", path, "--to", "nanogpt", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["keys"]["sparsity"] == 0.75
    assert data["parameter_groups"] == json.loads(json.dumps(parameter_groups(card)))
    assert main(["export", path, "--to", "torch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == export(card, "torch")


def test_wrong_input_of_the_command_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(embedding_lr_mult=2.0).write(tmp_path / "card.json")
    assert "invalid choice: 'jax'" in one_line(capsys, "export", str(path), "--to", "jax")
    assert "required: --to" in one_line(capsys, "export", str(path))
    assert "give the file of a card" in one_line(capsys, "export", str(tmp_path / "none.json"), "--to", "hf")
    assert "embedding_lr_mult is 2.0" in one_line(capsys, "export", str(path), "--to", "nanogpt")
    assert "does not exist; give the" in one_line(
        capsys, "export", str(path), "--to", "hf", "--out", str(tmp_path / "a" / "b.py")
    )
    said = one_line(capsys, "export", str(path), "--to", "hf", "--out", "/proc/a.py")
    assert re.search(r"/proc/a\.py cannot be written \(.+\); give another file with --out\.$", said)
    assert "is a folder" in one_line(capsys, "export", str(path), "--to", "hf", "--out", str(tmp_path))
    values = json.loads(path.read_text()) | {"schema_version": CARD_VERSION + 1}
    path.write_text(json.dumps(values))
    assert f"is a card of version {CARD_VERSION + 1}" in one_line(capsys, "export", str(path), "--to", "hf")
