"""Architectures of transformers that a newcomer brings: at most one round each, and the right numbers then."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hpsweep
from benchmarks.architectures import ARCHITECTURES, configuration, model_of, row, tried
from tests.paths import ROOT

transformers = pytest.importorskip("transformers")

PAGE = ROOT / "docs" / "architectures.md"
SHORT = ("gpt2", "llama, one key head", "mixtral", "gpt_oss", "mamba", "bamba", "whisper", "wav2vec2", "vit", "clip")


def rows() -> dict[str, str]:
    """The lines of the stored table, by architecture."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def test_the_stored_table_has_every_architecture_with_one_round_at_most() -> None:
    stored = rows()
    assert list(stored) == list(ARCHITECTURES)
    assert len(stored) >= 40
    assert {line.split(" | ")[1] for line in stored.values()} == {"0", "1"}


@pytest.mark.parametrize("name", SHORT)
def test_an_architecture_has_a_plan_after_the_rounds_of_the_table(name: str) -> None:
    result = tried(name)
    assert result.plan is not None, result.error
    assert result.rounds <= 1
    assert row(name, result) == rows()[name]


def plan_of(name: str, **options: Any) -> hpsweep.Plan:
    given = {"base": configuration(name, 32), **options}
    return hpsweep.parametrize(model_of(name), "supar", **given)


def test_the_convolution_of_a_state_space_model_trains_at_the_base_rate() -> None:
    """It is depthwise: four weights per channel at every width."""
    made = plan_of("bamba", embedding_lr_mult=8.0, density=0.5, kinds={"*.A_log": "keep", "*.D": "keep"})
    tensor = made.tensors["model.layers.0.mamba.conv1d.weight"]
    assert (tensor.kind, tensor.m_d, tensor.lr, tensor.forward) == ("hidden", 1, 1, 1)


def test_state_space_models_keep_their_time_constants() -> None:
    model = model_of("mamba")
    mixer = model.backbone.layers[0].mixer  # type: ignore[union-attr]
    before = {name: getattr(mixer, name).detach().clone() for name in ("A_log", "D")}  # type: ignore[arg-type]
    steps = mixer.dt_proj.bias.detach().clone()  # type: ignore[union-attr]
    kinds: Any = {"*.A_log": "keep", "*.D": "keep", "*.dt_proj.bias": "keep"}
    made = hpsweep.parametrize(model, "supar", base=configuration("mamba", 32), kinds=kinds)
    made.init_(model, init_std=0.08, seed=0)
    for name, values in before.items():
        assert torch.equal(getattr(mixer, name), values)  # type: ignore[arg-type]
    assert torch.equal(mixer.dt_proj.bias, steps)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"A_log .* are not one constant"):
        plan_of("mamba", kinds={**kinds, "*.A_log": "norm"})


def test_frozen_sinusoids_are_left_alone() -> None:
    model = model_of("whisper")
    table = model.model.encoder.embed_positions.weight  # type: ignore[union-attr]
    before = table.detach().clone()  # type: ignore[operator, union-attr]
    made = hpsweep.parametrize(model, "supar", base=configuration("whisper", 32))
    made.init_(model, init_std=0.08, seed=0)
    assert torch.equal(before, table)  # type: ignore[arg-type]
    assert "model.encoder.embed_positions.weight" not in made.tensors


def test_gains_are_the_same_from_the_meta_device() -> None:
    with torch.device("meta"):
        shapes = model_of("gemma")
    made = hpsweep.parametrize(shapes, "supar", base=configuration("gemma", 32))
    assert made.hash == plan_of("gemma").hash
    assert made.tensors["model.norm.weight"].init_mean == 0


def test_experts_of_transformers_sum_over_the_axis_that_their_class_says() -> None:
    """Width x 2, inner width x 8: in and out as GPT-OSS keeps them, out and in as Mixtral does."""
    for name, axis in (("gpt_oss", 1), ("mixtral", 2)):
        base = configuration(name, 32)
        base.intermediate_size = 16
        kinds: Any = {"*.sinks": "keep", "*.router.bias": "keep"} if name == "gpt_oss" else {}
        tensors = plan_of(name, base=base, kinds=kinds, density=0.5).tensors
        experts = {n.rpartition(".")[2]: t for n, t in tensors.items() if ".0.mlp.experts." in n}
        assert (experts["gate_up_proj"].m_d, experts["down_proj"].m_d) == (2, 8)
        assert experts["gate_up_proj"].fan_in == experts["gate_up_proj"].shape[axis]
        (router,) = (t for n, t in tensors.items() if n.endswith((".0.mlp.gate.weight", ".0.mlp.router.weight")))
        assert (router.kind, router.m_d, router.density) == ("hidden", 2, 1)
