"""Attention and factors in whatever form a model calls torch's functions."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpsweep
from hpsweep.observer import Call
from hpsweep.observer.functions import factors_of

IDS = torch.arange(16).view(2, 8)
WIDTH = 64


class Net(nn.Module):
    """One attention without heads, whose logits `scores` computes from queries and keys."""

    def __init__(self, width: int, scores: Callable[[Tensor, Tensor], Tensor], softmax: Any = None) -> None:
        super().__init__()
        self.tok, self.head = nn.Embedding(64, width), nn.Linear(width, 64)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.told = (scores, softmax or (lambda x: x.softmax(-1)))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok(ids)
        scores, softmax = self.told
        result: Tensor = self.head(x + softmax(scores(self.q(x), self.k(x))) @ self.v(x))
        return result


def planned(scores: Any, softmax: Any = None) -> tuple[Net, hpsweep.Plan]:
    model = Net(WIDTH, scores, softmax)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Net(32, scores), base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    return model, plan


def out(q: Tensor, k: Tensor, factor: float) -> Tensor:
    into = torch.empty(2, 8, 8)
    return torch.bmm(q, k.mT, out=into) * factor


def in_place(q: Tensor, k: Tensor, factor: float) -> Tensor:
    scores = q @ k.mT
    return scores.multiply_(factor)


SCORES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "matmul": lambda q, k, f: torch.matmul(q, k.mT) * f,
    "matmul by keyword": lambda q, k, f: torch.matmul(input=q, other=k.mT) * f,
    "linalg": lambda q, k, f: torch.linalg.matmul(q, k.mT) * f,
    "bmm by keyword": lambda q, k, f: torch.bmm(q, mat2=k.mT) * f,
    "bmm with out": out,
    "baddbmm": lambda q, k, f: torch.baddbmm(torch.zeros(2, 8, 8), q, k.mT, alpha=f),
    "baddbmm by keyword": lambda q, k, f: torch.baddbmm(torch.zeros(2, 8, 8), batch1=q, batch2=k.mT, alpha=f),
    "baddbmm with a summand": lambda q, k, f: torch.baddbmm(torch.arange(8.0).expand(2, 8, 8), q, k.mT, alpha=f),
    "einsum": lambda q, k, f: torch.einsum("bid,bjd->bij", q, k) * f,
    "einsum of a tuple": lambda q, k, f: torch.einsum("bid,bjd->bij", (q, k)) * f,
    "einsum of a list": lambda q, k, f: torch.einsum("bid , bjd -> bij", [q, k]) * f,
    "einsum with an ellipsis": lambda q, k, f: torch.einsum("...id,...jd->...ij", q, k) * f,
    "einsum without an outcome": lambda q, k, f: torch.einsum("...id,...jd", q, k) * f,
    "einsum by numbers": lambda q, k, f: torch.einsum(q, [0, 1, 3], k, [0, 2, 3], [0, 1, 2]) * f,
    "einsum by numbers and ellipsis": lambda q, k, f: torch.einsum(q, [..., 1, 3], k, [..., 2, 3], [..., 1, 2]) * f,
    "in place": in_place,
    "the number first": lambda q, k, f: torch.mul(torch.tensor(f), q @ k.mT),
    "queries before": lambda q, k, f: torch.multiply(input=q, other=f) @ k.mT,
    "queries before, number first": lambda q, k, f: torch.mul(torch.tensor(f), q) @ k.mT,
    "keys before": lambda q, k, f: q @ torch.divide(k, 1 / f).mT,
}


@pytest.mark.parametrize("way", SCORES)
@pytest.mark.parametrize("wired", [False, True])
def test_the_scale_is_read_and_set_in_whatever_form_the_product_is_called(way: str, wired: bool) -> None:
    factor = 1 / WIDTH if wired else WIDTH**-0.5
    model, plan = planned(lambda q, k: SCORES[way](q, k, factor))
    rows = plan.wire_(model, IDS, queries=() if wired else "q").rows
    assert (rows[-1].kind, rows[-1].before) == ("attention", pytest.approx(factor, rel=1e-4))
    assert rows[-1].how == ("as it was" if wired else "output of q x 0.125")
    assert rows[-1].after == pytest.approx(1 / WIDTH, rel=1e-4)


@pytest.mark.parametrize("softmax", [torch.special.softmax, torch.softmax, F.softmax, nn.Softmax])
def test_every_softmax_of_torch_is_seen(softmax: Any) -> None:
    def weights(x: Tensor) -> Tensor:
        result: Tensor = nn.Softmax(dim=-1)(x) if softmax is nn.Softmax else softmax(input=x, dim=-1)
        return result

    model, plan = planned(lambda q, k: q @ k.mT / WIDTH, weights)
    assert plan.wire_(model, IDS).rows[-1].how == "as it was"


@pytest.mark.parametrize("way", ["positional", "keywords", "scale"])
def test_torchs_attention_is_read_however_it_is_called(way: str) -> None:
    class Attention(Net):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.tok(ids)
            q, k, v = self.q(x), self.k(x), self.v(x)
            if way == "positional":
                y = F.scaled_dot_product_attention(q, k, v, None, 0.5, True)
            elif way == "keywords":
                y = F.scaled_dot_product_attention(query=q, key=k, value=v, dropout_p=0.5)
            else:
                y = F.scaled_dot_product_attention(q, k, v, scale=1 / WIDTH)
            result: Tensor = self.head(x + y)
            return result

    model = Attention(WIDTH, torch.matmul)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Attention(32, torch.matmul), base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    rows = plan.wire_(model, IDS, queries="q" if way != "scale" else ()).rows
    assert rows[-1].before == pytest.approx(1 / WIDTH if way == "scale" else WIDTH**-0.5)


def by_vmap(q: Tensor, k: Tensor) -> Tensor:
    return torch.vmap(torch.vmap(lambda one, other: other @ one / WIDTH, (0, None)))(q, k)


@pytest.mark.parametrize(
    "scores",
    [
        lambda q, k: torch.tensordot(q[0], k[0].T, 1).expand(2, 8, 8) / WIDTH,
        lambda q, k: torch.cdist(q, k) * -1,
        by_vmap,
        lambda q, k: torch.vmap(lambda a, b: F.softmax(a @ b.T / WIDTH, -1))(q, k),
        lambda q, k: torch.stack([a @ b.T for a, b in zip(q, k, strict=True)]) / WIDTH,
        lambda q, k: torch.einsum("bid,bjd,d->bij", q, k, torch.ones(WIDTH)) / WIDTH,
        lambda q, k: torch.linalg.multi_dot([q[0], k[0].T]).expand(2, 8, 8) / WIDTH,
        lambda q, k: F.bilinear(q.unsqueeze(2).expand(2, 8, 8, -1), k.unsqueeze(1).expand(2, 8, 8, -1),
                                torch.eye(WIDTH)[None])[..., 0] / WIDTH,
    ],
)  # fmt: skip
def test_calls_that_are_not_known_neither_crash_nor_are_taken_for_right(scores: Any) -> None:
    model, plan = planned(scores)
    with pytest.raises(ValueError, match="no softmax of a multiple of queries times keys is seen"):
        plan.wire_(model, IDS)


def test_an_attention_of_one_sequence_without_a_batch_is_read() -> None:
    model, plan = planned(lambda q, k: q @ k.T / WIDTH)
    assert plan.wire_(model, IDS[0]).rows[-1].how == "as it was"
    model, plan = planned(lambda q, k: q @ k.T * WIDTH**-0.5)
    assert plan.wire_(model, IDS[0], queries="q").rows[-1].how == "output of q x 0.125"


def test_layers_that_are_called_by_keywords_are_multiplied() -> None:
    class Named(Net):
        def forward(self, ids: Tensor) -> Tensor:
            result: Tensor = self.head(input=self.v(input=self.tok(input=ids)))
            return result

    model = Named(WIDTH, torch.matmul)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Named(32, torch.matmul), alpha_input=2.0, base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    plain = 0.5 * F.linear(F.linear(2 * model.tok.weight[IDS], model.v.weight), model.head.weight)
    assert [row.how for row in plan.wire_(model, IDS).rows] == ["output of tok x 2", "input of head x 0.5"]
    torch.testing.assert_close(model(IDS), plain)


def test_a_norm_that_is_called_by_keywords_is_seen() -> None:
    class Normed(Net):
        def forward(self, ids: Tensor) -> Tensor:
            x = F.layer_norm(input=self.tok(input=ids), normalized_shape=(self.tok.embedding_dim,))
            result: Tensor = self.head(input=F.rms_norm(x + self.v(input=x), normalized_shape=(x.shape[-1],)) * 0.5)
            return result

    model = Normed(WIDTH, torch.matmul)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Normed(32, torch.matmul), base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    assert {row.how for row in plan.wire_(model, IDS).rows} == {"as it was"}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", ["module", "in place"])
def test_what_is_compiled_within_a_model_is_seen_as_it_is_written(way: str) -> None:
    class Inner(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), scale=1 / WIDTH)
            return result

    def make(width: int, compiled: bool = False) -> nn.Module:
        inner: Any = Inner(width)
        if compiled and way == "in place":
            inner.compile()
        elif compiled:
            inner = torch.compile(inner)
        return nn.Sequential(nn.Embedding(64, width), inner, nn.Linear(width, 64))

    model = make(WIDTH, compiled=True)
    plan = hpsweep.parametrize(model, "supar", base=lambda: make(32), base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    rows = plan.wire_(model, IDS).rows
    assert (rows[-1].kind, rows[-1].how) == ("attention", "as it was")


@pytest.mark.parametrize(
    ("args", "size"),
    [
        (("bid,bjd->bij", "q", "k"), 5),
        (("bhid,bhjd->bhij", ("q4", "k4")), 5),
        (("id...,jd...->ij...", "a", "b"), 3),
        (("ij,jk", "m", "n"), 7),
        (("bi,bj->bij", "p", "r"), 1),
        (("ijk->i", "t"), None),
    ],
)
def test_the_numbers_that_an_einsum_sums_are_counted_by_its_letters(args: Any, size: int | None) -> None:
    shapes = {"q": (2, 4, 5), "k": (2, 6, 5), "q4": (2, 3, 4, 5), "k4": (2, 3, 6, 5), "a": (4, 3, 9), "b": (6, 3, 9),
              "m": (2, 7), "n": (7, 3), "p": (2, 3), "r": (2, 4), "t": (2, 3, 4)}  # fmt: skip
    made = {name: torch.ones(shape) for name, shape in shapes.items()}
    given = [tuple(made[x] for x in arg) if isinstance(arg, tuple) else made.get(arg, arg) for arg in args]
    found = factors_of(Call(torch.einsum, tuple(given), {}))
    assert (None if found is None else found.size) == size


# --- what is said, and pasted ---


def pasted(plan: hpsweep.Plan, model: nn.Module, inputs: Any, word: str, **options: Any) -> Any:
    """What the error of `wire_` says to give as one of its arguments."""
    with pytest.raises(ValueError, match=f"{word}=") as error:
        plan.wire_(model, inputs, **options)
    found = re.findall(rf"{word}=(\[.*?\])\.(?:\s|$)", str(error.value))
    assert len(found) == 1, str(error.value)
    return literal_eval(found[0])


class Deep(nn.Module):
    """Twelve attentions, and two norms between them that are called attention and are not."""

    def __init__(self, width: int, depth: int = 12, scale: float = 0.3) -> None:
        super().__init__()
        self.tok, self.head = nn.Embedding(64, width), nn.Linear(width, 64)
        self.layers = nn.ModuleList(nn.ModuleDict({"attend": Attend(width, scale)}) for _ in range(depth))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok(ids)
        for layer in self.layers:
            x = x + layer["attend"](x)
        result: Tensor = self.head(x)
        return result


class Attend(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.told = {"scale": scale}
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.scaled_dot_product_attention(
            self.q_proj(x), self.k_proj(x), self.v_proj(x), scale=self.told["scale"]
        )
        return result


def deep() -> tuple[Deep, hpsweep.Plan]:
    model = Deep(WIDTH)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Deep(32), base_head_size=1)
    plan.init_(model, init_std=0.3, seed=0)
    return model, plan


def test_twelve_attentions_are_one_line_and_one_pattern_and_each_remedy_ends_the_error() -> None:
    model, plan = deep()
    with pytest.raises(ValueError, match="could not be changed") as error:
        plan.wire_(model, IDS)
    assert len(str(error.value).splitlines()) == 3
    assert "(12 in all: *.attend)" in str(error.value)
    left = pasted(plan, model, IDS, "leave")
    assert left == ["*.attend"]
    assert {row.how for row in plan.wire_(model, IDS, leave=left).rows if row.kind == "attention"} == {"left as it is"}
    queries = pasted(plan, model, IDS, "queries")
    assert queries == ["*.q_proj"]
    rows = [row for row in plan.wire_(model, IDS, queries=queries).rows if row.kind == "attention"]
    assert [row.after for row in rows] == pytest.approx([1 / WIDTH] * 12)


def test_what_was_tried_already_is_not_proposed_again() -> None:
    model, plan = deep()
    with pytest.raises(ValueError, match=r"queries= names 2 layers in it, q_proj, k_proj: name the one that returns"):
        plan.wire_(model, IDS, queries=["*.q_proj", "*.k_proj"])
    with pytest.raises(ValueError, match=r"attend") as error:
        plan.wire_(model, IDS, queries="*.v_proj")
    assert "queries=['*.q_proj']" in str(error.value)
    assert "returns its queries is not v_proj, but q_proj: queries='*.q_proj'" in str(error.value)


def test_a_readout_that_begins_at_zero_is_measured_and_stays_zero() -> None:
    model, plan = planned(lambda q, k: q @ k.mT / WIDTH)
    for layer in (model.head, model.q):
        nn.init.zeros_(layer.weight)
    wiring = plan.wire_(model, IDS)
    assert {row.name: row.how for row in wiring.rows}["head.weight"] == "input of head x 0.5"
    assert {row.name: row.how for row in wiring.rows}[""] == "as it was"
    assert (model.head.weight == 0).all()
    assert (model.q.weight == 0).all()


def test_random_numbers_of_the_user_go_on_as_if_nothing_had_been_measured() -> None:
    model, plan = planned(lambda q, k: q @ k.mT / WIDTH)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    plan.wire_(model, IDS)
    assert (torch.rand(3) == expected).all()
