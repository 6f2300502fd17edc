"""Factors of embeddings, wherever they are used: read by nudges, set, and left where nothing has to be multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import hpsweep

IDS = torch.arange(2, 18).view(2, 8)
SIZES = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


def encoder_decoder(name: str, width: int, scaled: bool) -> Any:
    config = getattr(transformers, f"{name}Config")(
        d_model=width, encoder_layers=1, decoder_layers=1, encoder_attention_heads=width // 16,
        decoder_attention_heads=width // 16, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width,
        max_position_embeddings=16, scale_embedding=scaled, **SIZES,
    )  # fmt: skip
    return getattr(transformers, "MarianMTModel" if name == "Marian" else f"{name}ForConditionalGeneration")(config)


@pytest.mark.parametrize("name", ["Marian", "Bart", "MBart", "Pegasus", "M2M100", "Blenderbot"])
@pytest.mark.parametrize("scaled", [False, True])
def test_both_streams_of_an_encoder_decoder_are_given_embeddings_of_one_size_at_every_width(
    name: str, scaled: bool
) -> None:
    sizes: dict[str, list[float]] = {"encoder": [], "decoder": []}
    for width in (64, 256):
        model = encoder_decoder(name, width, scaled)
        plan = hpsweep.parametrize(model, "supar", base=encoder_decoder(name, 32, scaled), base_head_size=1)
        plan.init_(model, init_std=0.08, seed=0)
        rows = plan.wire_(model, {"input_ids": IDS, "decoder_input_ids": IDS}).rows
        tokens = {row.name: row for row in rows if row.name.endswith("embed_tokens.weight")}
        assert len(tokens) == 2
        for row in tokens.values():
            assert (row.before, row.after) == (pytest.approx(width**0.5 if scaled else 1.0), pytest.approx(1.0))
        for part in sizes:
            embedding = getattr(model.model, part).embed_tokens
            behind = scaled and "Scaled" not in type(embedding).__name__
            size = float(embedding(IDS).detach().square().mean().sqrt())
            sizes[part].append(size * (width**0.5 if behind else 1.0))
    for pair in sizes.values():
        assert pair[0] == pytest.approx(0.08, rel=0.1)
        assert pair[1] == pytest.approx(0.08, rel=0.1)


class Own(nn.Module):
    """Embeddings used in one of several ways, multiplied by `factor`."""

    def __init__(self, width: int, way: str, factor: float = 1.0) -> None:
        super().__init__()
        self.way, self.told = way, {"factor": factor, "width": width}
        self.tok, self.layer = nn.Embedding(64, width), nn.Linear(width, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 64)
        if way in ("class token", "bare positions"):
            self.extra = nn.Parameter(torch.randn(width if way == "class token" else (24, width)))
        elif way in ("positions", "sliced", "frozen"):
            self.extra = nn.Embedding(24, width)
            self.extra.weight.requires_grad_(way != "frozen")

    def forward(self, ids: Tensor) -> Tensor:
        factor, batch, context = self.told["factor"], *ids.shape
        x = self.tok(ids) * factor if self.way != "indexed" else self.tok.weight[ids] * factor
        if self.way == "class token":
            x = torch.cat([self.extra.expand(batch, 1, -1), x], 1)
        elif self.way == "bare positions":
            x = x + self.extra[:context]
        elif self.way == "sliced":
            x = x + self.extra.weight[:context]
        elif self.way in ("positions", "frozen"):
            x = x + self.extra(torch.arange(context))
        elif self.way == "transposed":
            x = x.transpose(0, 1)
        elif self.way == "packed":
            x = x[ids > 4]
        elif self.way == "shifted":
            x = x + 100.0
        elif self.way == "twice":
            x = x + self.tok(ids.flip(1)) * factor
        elif self.way == "twice unlike":
            x = torch.cat([x, self.tok(ids.flip(1)) * 7], 1)
        elif self.way == "cubed":
            x = x**3
        elif self.way == "unused":
            x = x * 0 + 1.0
        x = self.layer(x).relu()
        result: Tensor = self.head(self.norm(x))
        return result


def planned(way: str, factor: float = 1.0, *, alpha: float = 3.0) -> tuple[Own, hpsweep.Plan]:
    model = Own(64, way, factor)
    kinds: Any = {"extra": "embedding"} if way in ("class token", "bare positions") else None
    plan = hpsweep.parametrize(
        model, "supar", base=lambda: Own(32, way), alpha_input=alpha, kinds=kinds, base_head_size=1
    )
    plan.init_(model, init_std=0.3, seed=0)
    return model, plan


WAYS = ["plain", "positions", "frozen", "transposed", "packed", "shifted", "twice", "class token", "bare positions"]


@pytest.mark.parametrize("way", WAYS)
def test_a_factor_is_read_wherever_what_is_looked_up_goes(way: str) -> None:
    model, plan = planned(way, factor=8.0)
    leave = ["extra*"] if way in ("class token", "bare positions") else []
    row = plan.wire_(model, IDS, leave=leave).rows[0] if not leave else None
    rows = {r.name: r for r in plan.wire_(model, IDS, leave=leave).rows}
    if row is not None:
        assert (row.name, row.before, row.how) == ("tok.weight", pytest.approx(8), "output of tok x 0.375")
    assert rows["tok.weight"].after == pytest.approx(3.0)
    if leave:
        assert (rows["extra"].after, rows["extra"].how) == (pytest.approx(1.0), "left as it is")


def test_an_embedding_that_the_code_indexes_itself_is_read_and_has_to_be_multiplied_there() -> None:
    model, plan = planned("indexed", factor=8.0)
    with pytest.raises(ValueError, match=r"embedding factor of tok.weight, which has to be 3: 8 is there, and could"):
        plan.wire_(model, IDS)
    model, plan = planned("indexed", factor=3.0)
    before = model.tok.weight.detach().clone()
    assert plan.wire_(model, IDS).rows[0].how == "as it was"
    assert (model.tok.weight == before).all()


def test_an_embedding_whose_rows_are_sliced_is_read() -> None:
    model, plan = planned("sliced", alpha=1.0)
    rows = {row.name: row for row in plan.wire_(model, IDS).rows}
    assert (rows["extra.weight"].before, rows["extra.weight"].how) == (pytest.approx(1.0), "as it was")


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("cubed", "it reaches no layer as a multiple of what is looked up"),
        ("unused", "nothing that a layer is given depends on it; give inputs that use it"),
        ("twice unlike", "it is not one number: 1 to 7 at its several places"),
    ],
)
def test_what_cannot_be_read_is_refused_only_where_something_has_to_be_multiplied(way: str, told: str) -> None:
    model, plan = planned(way)
    with pytest.raises(ValueError, match=rf"embedding factor of tok.weight, which has to be 3: {told}"):
        plan.wire_(model, IDS)
    model, plan = planned(way, alpha=1.0)
    if way == "twice unlike":  # it is known to be wrong
        with pytest.raises(ValueError, match=f"which has to be 1: {told}"):
            plan.wire_(model, IDS)
        return
    row = plan.wire_(model, IDS).rows[0]
    assert (row.before, row.after, row.how) == (None, None, "not read, and not to be multiplied")
    plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))


def test_embeddings_that_are_zero_are_read() -> None:
    model, plan = planned("plain", factor=8.0)
    nn.init.zeros_(model.tok.weight)
    rows = plan.wire_(model, IDS.clone(), leave="head.weight").rows
    assert (rows[0].before, rows[0].after) == (pytest.approx(8.0), pytest.approx(3.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_factor_is_read_in_other_types_of_number(dtype: torch.dtype) -> None:
    model, plan = planned("positions", factor=8.0)
    model.to(dtype)
    rows = plan.wire_(model, IDS).rows
    assert rows[0].before == pytest.approx(8.0, rel=0.02)
    assert [row.after for row in rows[:2]] == pytest.approx([3.0, 3.0], rel=0.02)


def test_layers_that_training_leaves_out_by_chance_are_the_same_in_both_runs() -> None:
    class Chance(Own):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.tok(ids)
            if self.training:
                x = x + torch.randn(x.shape)
            result: Tensor = self.head(self.layer(x))
            return result

    model = Chance(64, "plain")
    plan = hpsweep.parametrize(model, "supar", base=lambda: Chance(32, "plain"), alpha_input=3.0, base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    assert plan.wire_(model, IDS).rows[0].how == "output of tok x 3"
