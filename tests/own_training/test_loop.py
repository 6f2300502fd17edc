"""A module of the user's own, trained by hpsweep's loop."""

from __future__ import annotations

import pytest
import torch

from hpsweep.own_training.batches import TextBatches
from hpsweep.own_training.build import built
from hpsweep.own_training.loop import train_model
from hpsweep.proxy import model as proxy_model
from hpsweep.proxy.ensemble import train_ensemble
from hpsweep.spec import Model, Trial
from tests.own_training.models import RESIDUAL, build_gpt

MODEL = Model(build_gpt, kinds=RESIDUAL, queries={"*.qkv": (0, 1 / 3)})  # type: ignore[arg-type]
BASE = Trial(
    steps=30, batch=4, context=32, width=64, base_width=64, head_size=16, eval_sequences=64, lr=2.0**-6,
    embedding_lr_mult=4.0, weight_decay=0.1,
)  # fmt: skip
TRIALS = [
    BASE.replace(scheme="sp", density=0.25),
    BASE.replace(scheme="mup", base_width=32, alpha_input=2.0, alpha_output=0.5),
    BASE.replace(scheme="supar", base_width=32, density=1 / 8, seed=3, tied=False),
    BASE.replace(scheme="supar", head_size=32, base_head_size=16, density=0.5, weight_decay_rule="independent"),
]


def own(trial: Trial) -> Trial:
    return trial.replace(model=str(MODEL.source))


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.scheme} {trial.density}")
def test_a_gpt_of_ones_own_has_the_losses_of_the_built_in_one(trial: Trial) -> None:
    ours = train_ensemble([trial])
    theirs = train_model([own(trial)], model=MODEL.to_dict())
    for column in ("train_loss", "val_loss"):
        pairs = zip(ours.curves[column], theirs.curves[column], strict=True)
        assert all(one == pytest.approx(other, abs=1e-5) for one, other in pairs)
    (row,), (own_row,) = ours.rows, theirs.rows
    for column in ("val_loss", "val_loss_se", "train_loss", "initial_loss"):
        assert own_row[column] == pytest.approx(row[column], abs=1e-5), column
    same = ("tokens", "parameters", "embedding_parameters", "hidden_parameters", "hidden_nonzeros", "data_hash")
    assert {name: own_row[name] for name in same} == {name: row[name] for name in same}


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.scheme} {trial.density}")
def test_its_initial_weights_and_masks_are_those_of_the_built_in_one(trial: Trial) -> None:
    made = built(MODEL, own(trial), TextBatches(trial.data).vocabulary)
    masks = proxy_model.hidden_masks([trial], 256)
    weights = proxy_model.initial_parameters([trial], 256, kept=masks)
    parameters = dict(made.module.named_parameters())
    assert {name.removesuffix(".weight") for name in parameters} == weights.keys()
    for name, parameter in parameters.items():
        assert torch.equal(parameter.data, weights[name.removesuffix(".weight")][0]), name
    for name, kept in made.plan.masks(made.module).items():
        assert torch.equal(kept, masks[name.removesuffix(".weight")][0]), name
