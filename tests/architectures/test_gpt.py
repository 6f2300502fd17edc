"""The GPT's inventory, counted by hand, and the refusal of what has none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpsweep.architectures import architecture, hidden_nonzeros, nonzeros, tensors
from hpsweep.spec import Trial

TRIAL = Trial(steps=1, width=8, head_size=4, depth=2, context=16)


def test_a_block_has_two_gains_and_four_matrices_of_twelve_squared_widths() -> None:
    table = tensors(TRIAL.replace(tied=False), 100)
    assert list(table) == [
        "embedding.token", "embedding.position",
        "block0.norm1", "block0.norm2",
        "block0.attention.qkv", "block0.attention.out", "block0.mlp.in", "block0.mlp.out",
        "block1.norm1", "block1.norm2",
        "block1.attention.qkv", "block1.attention.out", "block1.mlp.in", "block1.mlp.out",
        "norm", "readout",
    ]  # fmt: skip
    assert table["block1.mlp.out"] == ((8, 32), "residual_out")
    assert table["block1.attention.qkv"] == ((24, 8), "hidden")
    assert table["readout"] == ((100, 8), "readout")
    assert "readout" not in tensors(TRIAL, 100)
    assert hidden_nonzeros(8, 2, 1.0) == 2 * 12 * 8**2


def test_hidden_matrices_keep_the_nearest_number_of_weights_and_other_tensors_all() -> None:
    assert hidden_nonzeros(8, 1, 0.1) == 19 + 6 + 26 + 26  # of 192, 64, 256 and 256
    assert nonzeros((8, 32), "residual_out", 0.1) == 26
    assert nonzeros((100, 8), "readout", 0.1) == 800
    assert nonzeros((8, 32), "hidden", 1e-9) == 1


def test_a_token_costs_six_flops_a_weight_and_twelve_an_entry_of_attention() -> None:
    assert architecture().flops_per_token(TRIAL, 100, 1000) == 6 * (1000 + 800) + 12 * 2 * 8 * 16


def test_the_residual_stream_has_a_name_before_a_block_and_none_within() -> None:
    assert architecture().residual_streams(2) == {
        "block0.norm1": "embedding", "block0.norm2": "", "block1.norm1": "block0", "block1.norm2": "", "norm": "block1",
    }  # fmt: skip
    assert list(architecture().residual_streams(2)) == [
        name for name, (_, kind) in tensors(TRIAL, 9).items() if kind == "norm"
    ]
    assert architecture().readout_tensor(TRIAL) == "embedding.token"
    assert architecture().readout_tensor(TRIAL.replace(tied=False)) == "readout"


def test_an_architecture_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"architecture is 'mlp'; allowed: gpt\."):
        architecture("mlp")


def test_inventories_schemes_and_what_a_plan_holds_need_no_torch() -> None:
    program = (
        "import sys, hpsweep.architectures, hpsweep.schemes, hpsweep.own_model.data; print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
