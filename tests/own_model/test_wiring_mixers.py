"""Softmaxes that choose among experts, and mixers without a softmax: neither is an attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hpsweep

IDS = torch.arange(16).view(2, 8)


class Mixer(nn.Module):
    """Queries times keys, a function of these, times values."""

    def __init__(self, width: int, weigh: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.weigh(self.q(x) @ self.k(x).mT / x.shape[-1]) @ self.v(x)
        return result


class Experts(nn.Module):
    """As many experts as an input has positions, and a router before them."""

    def __init__(self, width: int, weigh: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.router, self.up = nn.Linear(width, 8), nn.Linear(width, 8)
        self.down = nn.Linear(8, width)
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self.weigh(self.router(x)) * self.up(x))
        return result


class Net(nn.Module):
    def __init__(self, width: int, mix: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.tok, self.mix, self.head = nn.Embedding(64, width), mix(width), nn.Linear(width, 64)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok(ids)
        result: Tensor = self.head(x + self.mix(x))
        return result


def wired(mix: Callable[[int], nn.Module], **kinds: str) -> dict[str, str]:
    """How every factor came to be, by name."""
    model = Net(64, mix)
    given = {f"mix.{name}.weight": kind for name, kind in kinds.items()} | {"head.weight": "readout"}
    plan = hpsweep.parametrize(model, "supar", base=lambda: Net(32, mix), kinds=given, base_head_size=1)  # type: ignore[arg-type]
    plan.init_(model, init_std=0.3, seed=0)
    return {row.name: row.how for row in plan.wire_(model, IDS).rows}


ROUTER = {"router": "hidden", "up": "hidden", "down": "hidden"}


@pytest.mark.parametrize(
    "weigh", [lambda x: x.softmax(-1), lambda x: (x / 2).softmax(-1), lambda x: x.float().log_softmax(-1)]
)
def test_a_softmax_of_what_a_layer_returns_is_no_attention_though_it_is_square(
    weigh: Callable[[Tensor], Tensor],
) -> None:
    assert wired(lambda width: Experts(width, weigh), **ROUTER).keys() == {"tok.weight", "head.weight"}


def test_a_mixer_without_a_softmax_has_no_attention_factor() -> None:
    found = wired(lambda width: Mixer(width, lambda x: x.tril()))
    assert found["mix"] == "no softmax in it, and no attention factor"


@pytest.mark.parametrize(
    "weigh",
    [torch.sigmoid, torch.relu, lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
     lambda x: (x - x.amax(-1, keepdim=True)).exp(), lambda x: nn.functional.relu(x.tril())],
)  # fmt: skip
def test_logits_that_something_else_than_a_softmax_takes_are_still_asked_for(weigh: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="attention factor of mix: no softmax of a multiple"):
        wired(lambda width: Mixer(width, weigh))


def test_a_softmax_in_a_module_of_its_own_is_of_the_attention_around_it() -> None:
    class Scores(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return q @ k.mT / q.shape[-1]

    class Apart(Mixer):
        def __init__(self, width: int) -> None:
            super().__init__(width, nn.Softmax(dim=-1))
            self.scores = Scores()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.weigh(self.scores(self.q(x), self.k(x))) @ self.v(x)
            return result

    found = wired(Apart)
    assert {name: how for name, how in found.items() if name.startswith("mix")} == {"mix.weigh": "as it was"}
