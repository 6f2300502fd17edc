"""At the base model there is nothing to correct: dense mup and supar train as sp does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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
        native.train_native,
        marks=pytest.mark.skipif(native.why_unavailable() is not None, reason="needs a C compiler"),
        id="native",
    ),
    pytest.param(ensemble.train_ensemble, id="torch"),
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


# initial and held-out loss, by scheme and density, of hpsweep before the field was: the scale of the published code
BEFORE_THE_FIELD = {
    ("sp", 1.0): ("a272262e26739221", 4.743335, 1.533600),
    ("mup", 1.0): ("dabe6a9e51b39de3", 4.684334, 1.534586),
    ("supar", 0.25): ("7f04f06a5466e64b", 4.725545, 1.524212),
}


@pytest.mark.parametrize(("scheme", "density"), BEFORE_THE_FIELD)
@pytest.mark.parametrize("train", ENGINES)
def test_with_the_published_scale_trials_have_the_ids_and_losses_of_before(
    train: Any, scheme: Any, density: float, tmp_path: Path
) -> None:
    steps = np.random.default_rng(0).integers(1, 4, 30_000)
    (tmp_path / "tokens.bin").write_bytes((np.cumsum(steps) % 101).astype("u1"))
    trial = Trial(
        scheme=scheme, density=density, width=64, base_width=32, depth=2, head_size=16, context=32, batch=4, steps=30,
        eval_sequences=32, lr=2.0**-7, embedding_lr_mult=4.0, alpha_input=2.0, weight_decay=0.1, base_head_size=1,
    )  # fmt: skip
    trial_id, initial, held_out = BEFORE_THE_FIELD[scheme, density]
    assert trial.trial_id == trial_id
    source = f"bin:{tmp_path / 'tokens.bin'}?dtype=uint8&vocabulary=101"
    published, now = (train([trial.replace(data=source, base_head_size=size)]).rows[0] for size in (1, 16))
    assert published["initial_loss"] == pytest.approx(initial, abs=2e-5)
    assert published["val_loss"] == pytest.approx(held_out, abs=1e-4)
    assert (abs(now["initial_loss"] - initial) > 5e-4) == (scheme != "sp")
