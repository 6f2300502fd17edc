from __future__ import annotations

from typing import get_args

import pytest

from hpsweep.architectures import SPARSE, Kind, tensors
from hpsweep.rules.multipliers import (
    DECAYED,
    RULES,
    attention_scale,
    eps_multiplier,
    kind_numbers,
    readout_multiplier,
    tensor_numbers,
)
from hpsweep.schemes import SCHEMES, Scheme
from hpsweep.spec import Trial

# Four times wider and four times sparser than the base: m_d = 4, m_rho = 1/4. Depth 2, head size 64.
TRIAL = Trial(
    width=512,
    base_width=128,
    density=1 / 8,
    base_density=1 / 2,
    depth=2,
    head_size=64,
    lr=0.01,
    init_std=0.08,
    alpha_input=3.0,
    alpha_output=2.0,
    embedding_lr_mult=5.0,
    weight_decay=0.1,
    steps=10,
)

# (scheme, tensor) -> (init_std, lr, forward), worked out by hand from Table 1:
# hidden init 0.08 (m_d m_rho)^-1/2, residual_out another (2 x 2)^-1/2 = 1/2, hidden lr 0.01 / (m_d m_rho).
EXPECTED = {
    ("sp", "embedding.token"): (0.08, 0.05, 1.0),
    ("sp", "block0.attention.qkv"): (0.08, 0.01, 1.0),
    ("sp", "block0.attention.out"): (0.04, 0.01, 1.0),
    ("sp", "block0.mlp.in"): (0.08, 0.01, 1.0),
    ("sp", "block1.mlp.out"): (0.04, 0.01, 1.0),
    ("sp", "block0.norm1"): (0.0, 0.01, 1.0),
    ("sp", "readout"): (0.08, 0.01, 1.0),
    ("mup", "embedding.token"): (0.08, 0.05, 3.0),
    ("mup", "embedding.position"): (0.08, 0.05, 3.0),
    ("mup", "block0.attention.qkv"): (0.04, 0.0025, 1.0),
    ("mup", "block0.attention.out"): (0.02, 0.0025, 1.0),
    ("mup", "block0.mlp.in"): (0.04, 0.0025, 1.0),
    ("mup", "block1.mlp.out"): (0.02, 0.0025, 1.0),
    ("mup", "norm"): (0.0, 0.01, 1.0),
    ("mup", "readout"): (0.08, 0.01, 0.5),
    ("supar", "embedding.token"): (0.08, 0.05, 3.0),
    ("supar", "block0.attention.qkv"): (0.08, 0.01, 1.0),
    ("supar", "block0.attention.out"): (0.04, 0.01, 1.0),
    ("supar", "block0.mlp.in"): (0.08, 0.01, 1.0),
    ("supar", "block1.mlp.out"): (0.04, 0.01, 1.0),
    ("supar", "norm"): (0.0, 0.01, 1.0),
    ("supar", "readout"): (0.08, 0.01, 0.5),
}


def test_every_scheme_has_a_rule_for_every_kind() -> None:
    assert set(RULES) == set(get_args(Kind))
    assert set(SCHEMES) == set(get_args(Scheme))
    assert set(DECAYED) == set(get_args(Kind))


@pytest.mark.parametrize(("scheme", "name"), EXPECTED)
def test_numbers_are_those_worked_out_by_hand(scheme: Scheme, name: str) -> None:
    n = tensor_numbers(TRIAL.replace(scheme=scheme, tied=False), vocabulary=256)[name]
    assert (n.init_std, n.lr, n.forward) == pytest.approx(EXPECTED[scheme, name])


def test_supar_corrects_a_sparse_tensor_and_not_a_dense_one() -> None:
    trial = TRIAL.replace(density=1 / 32)  # m_rho = 1/16, m_d m_rho = 1/4
    n = tensor_numbers(trial, 256)
    assert n["block0.mlp.in"].lr == pytest.approx(0.04)
    assert n["block0.mlp.in"].init_std == pytest.approx(0.16)
    assert n["block0.mlp.out"].init_std == pytest.approx(0.08)
    assert (n["embedding.token"].m_rho, n["norm"].m_rho) == (1.0, 1.0)
    assert n["embedding.token"].lr == pytest.approx(0.05)


@pytest.mark.parametrize("scheme", ["mup", "supar"])
def test_adams_eps_follows_the_width_that_a_gradient_comes_from(scheme: Scheme) -> None:
    """A matrix's gradient is its output's times its input, which does not shrink; the readout's is 1 / m_d times it."""
    eps = {kind: eps_multiplier(scheme, kind, m_d=4.0, m_out=2.0) for kind in get_args(Kind)}
    assert eps == {
        "embedding": 1 / 4, "hidden": 1 / 2, "residual_out": 1 / 2, "norm": 1 / 4, "bias": 1 / 4, "keep": 1 / 4,
            "readout": 1 / 4,
    }  # fmt: skip
    assert {eps_multiplier("sp", kind, m_d=4.0, m_out=2.0) for kind in get_args(Kind)} == {1.0}


@pytest.mark.parametrize(
    ("scheme", "base", "scale"),
    [("sp", 16, 1 / 8), ("mup", 16, 3 * 4 / 64), ("supar", 16, 3 * 4 / 64), ("mup", 1, 3 / 64), ("supar", 64, 3 / 8)],
)
def test_attention_logits_are_scaled_from_the_base_head_size(scheme: Scheme, base: int, scale: float) -> None:
    trial = TRIAL.replace(scheme=scheme, base_head_size=base, alpha_attention=3.0)
    assert attention_scale(trial) == pytest.approx(scale)


@pytest.mark.parametrize("head_size", [8, 24, 32, 48, 80, 128])
@pytest.mark.parametrize("scheme", ["mup", "supar"])
def test_at_the_base_head_size_attention_is_scaled_as_under_sp_to_the_last_bit(scheme: Scheme, head_size: int) -> None:
    trial = Trial(steps=1, width=2 * head_size, head_size=head_size, scheme=scheme)
    assert attention_scale(trial) == attention_scale(trial.replace(scheme="sp")) == head_size**-0.5


@pytest.mark.parametrize("head_size", [8, 24, 32, 48, 80, 128])
@pytest.mark.parametrize("scheme", ["mup", "supar"])
def test_the_published_scale_is_1_over_the_head_size_to_the_last_bit(scheme: Scheme, head_size: int) -> None:
    trial = Trial(steps=1, width=2 * head_size, head_size=head_size, scheme=scheme, base_head_size=1)
    assert attention_scale(trial) == 1 / head_size


def test_the_base_head_size_is_the_trials_own_unless_given_and_stays_where_the_head_size_changes() -> None:
    assert Trial(steps=1, head_size=16).base_head_size == 16
    assert Trial(steps=1, head_size=16).replace(head_size=64).base_head_size == 16
    assert Trial(steps=1, head_size=16, base_head_size=8).base_head_size == 8


@pytest.mark.parametrize(("scheme", "factor"), [("sp", 1.0), ("mup", 0.5), ("supar", 0.5)])
@pytest.mark.parametrize("tied", [True, False])
def test_the_readout_is_multiplied_by_alpha_output_over_m_d(scheme: Scheme, factor: float, tied: bool) -> None:
    assert readout_multiplier(TRIAL.replace(scheme=scheme, tied=tied)) == pytest.approx(factor)


def test_supar_at_density_one_is_mup_tensor_by_tensor() -> None:
    dense = TRIAL.replace(density=1.0, base_density=1.0, tied=False, weight_decay_rule="independent")
    assert tensor_numbers(dense.replace(scheme="supar"), 256) == tensor_numbers(dense.replace(scheme="mup"), 256)


def test_supar_is_mup_at_the_product_of_multipliers_with_alpha_output_times_m_rho() -> None:
    """m_eff = m_d m_rho = 4 x 1/4 = 1 is width 128 over base width 128; alpha_output 2 x 1/4."""
    supar = TRIAL.replace(scheme="supar", tied=False)
    mup = TRIAL.replace(scheme="mup", tied=False, base_width=512, alpha_output=0.5)
    for name, n in tensor_numbers(supar, 256).items():
        m = tensor_numbers(mup, 256)[name]
        assert (n.init_std, n.lr, n.weight_decay, n.forward) == pytest.approx(
            (m.init_std, m.lr, m.weight_decay, m.forward)
        )


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_coupled_decay_is_the_base_value_for_matrices_and_zero_for_gains(scheme: Scheme) -> None:
    for n in tensor_numbers(TRIAL.replace(scheme=scheme, tied=False), 256).values():
        assert n.weight_decay == (0.0 if n.kind == "norm" else 0.1)


def test_independent_decay_shrinks_weights_alike_at_every_density() -> None:
    for density in (1.0, 1 / 8, 1 / 64):
        trial = TRIAL.replace(density=density, weight_decay_rule="independent")
        n = tensor_numbers(trial, 256)["block0.mlp.in"]
        # wd x m_d x m_rho, so that lr x wd stays 0.01 x 0.1
        assert n.weight_decay == pytest.approx(0.1 * 4 * density / 0.5)
        assert n.lr * n.weight_decay == pytest.approx(0.001)


def test_an_unknown_kind_is_an_error_and_not_multiplier_one() -> None:
    with pytest.raises(ValueError, match=r"unknown kind of tensor 'conv'.*embedding"):
        kind_numbers(TRIAL, "conv", m_d=1.0, m_rho=1.0)  # type: ignore[arg-type]


def test_the_tensors_are_those_of_a_gpt() -> None:
    table = tensors(TRIAL.replace(tied=False), vocabulary=256)
    assert len(table) == 2 + 2 * 6 + 2
    assert table["block1.attention.qkv"] == ((1536, 512), "hidden")
    assert table["block1.attention.out"] == ((512, 512), "residual_out")
    assert table["block1.mlp.in"] == ((2048, 512), "hidden")
    assert table["block1.mlp.out"] == ((512, 2048), "residual_out")
    assert table["readout"] == ((256, 512), "readout")
    assert "readout" not in tensors(TRIAL, vocabulary=256)
    assert {kind for _, kind in table.values() if kind in SPARSE} == {"hidden", "residual_out"}
