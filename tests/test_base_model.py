"""At the base model there is nothing to correct: dense mup and supar train as sp does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from hpsweep.proxy import ensemble, native
from hpsweep.proxy.outcome import Outcome
from hpsweep.spec import Trial

BASE = Trial(
    width=64, base_width=64, depth=2, head_size=16, context=32, batch=4, steps=8, eval_sequences=32,
    embedding_lr_mult=4.0, weight_decay=0.1,
)  # fmt: skip

ENGINES = [
    pytest.param(
        native.train,
        marks=pytest.mark.skipif(native.unavailable() is not None, reason="needs a C compiler"),
        id="native",
    ),
    pytest.param(ensemble.train, id="torch"),
]


def losses(train: Callable[[Sequence[Trial]], Outcome], trial: Trial) -> list[Any]:
    outcome = train([trial])
    return [outcome.rows[0]["val_loss"], *outcome.curves["train_loss"]]


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"head_size": 32}, {"precision": "bfloat16"}], ids=str)
@pytest.mark.parametrize("train", ENGINES)
def test_dense_mup_and_supar_have_the_losses_of_sp_at_the_base_model(train: Any, changes: dict[str, Any]) -> None:
    base = BASE.replace(**changes, base_head_size=changes.get("head_size", 16))
    sp, mup, supar = (losses(train, base.replace(scheme=scheme)) for scheme in ("sp", "mup", "supar"))
    assert np.isfinite(sp).all()
    assert sp == mup == supar


@pytest.mark.parametrize("train", ENGINES)
def test_with_the_published_scale_they_have_others(train: Any) -> None:
    sp, mup = (losses(train, BASE.replace(scheme=scheme, base_head_size=1)) for scheme in ("sp", "mup"))
    assert sp != mup


@pytest.mark.parametrize("train", ENGINES)
def test_alpha_attention_multiplies_the_logits_of_mup_and_supar_only(train: Any) -> None:
    for scheme in ("mup", "supar"):
        one, two = (losses(train, BASE.replace(scheme=scheme, alpha_attention=alpha)) for alpha in (1.0, 2.0))
        quadrupled = losses(train, BASE.replace(scheme=scheme, base_head_size=64))  # sqrt(64 / 16) = 2
        assert two == quadrupled != one
    one, two = (losses(train, BASE.replace(scheme="sp", alpha_attention=alpha)) for alpha in (1.0, 2.0))
    assert one == two
