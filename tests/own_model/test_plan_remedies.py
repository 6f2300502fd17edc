"""What an error proposes: everything at once, right where names, shapes or values tell, and else a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import hpsweep
from benchmarks.architectures import pasted
from tests.own_model.test_plan import Raw, Toy, plan
from tests.own_model.test_plan_kinds import pair, settled


def kinds_of(made: hpsweep.Plan) -> dict[str, str]:
    return {name: tensor.kind for name, tensor in made.tensors.items()}


def asked(*models: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"cannot be decided|without inputs|is computed by") as raised:
        plan(*models, **options)
    return str(raised.value)


# --- layers that sum over two inputs ---


def test_a_bilinear_layer_sums_over_both_of_its_inputs() -> None:
    """64 x 64 weights for an output, of 32 x 32 in the base: m_d 4, and gradients that shrink by its one fan-out."""
    made = plan(*pair(both=lambda w: nn.Bilinear(w, w, w))).tensors
    tensor = made["both.weight"]
    assert (tensor.kind, tensor.fan_in, tensor.m_d, tensor.lr, tensor.eps) == ("hidden", 4096, 4, 0.25, 0.5)
    assert tensor.init_std == pytest.approx(0.5)
    assert (made["both.bias"].kind, made["both.bias"].init_mean) == ("bias", 0)  # drawn as torch draws biases


@pytest.mark.parametrize(("sizes", "m_d", "fan_in"), [(lambda w: (5, w, w), 2, 320), (lambda w: (w, 5, w), 2, 320)])
def test_a_bilinear_layer_with_an_input_of_fixed_size_grows_with_the_other(
    sizes: Callable[[int], tuple[int, int, int]], m_d: float, fan_in: int
) -> None:
    tensor = plan(*pair(both=lambda w: nn.Bilinear(*sizes(w)))).tensors["both.weight"]
    assert (tensor.kind, tensor.m_d, tensor.fan_in) == ("hidden", m_d, fan_in)


def test_a_bilinear_layer_to_a_fixed_size_is_asked_for_as_a_readout_is() -> None:
    made = settled(*pair(score=lambda w: nn.Bilinear(w, w, 3), readout=lambda w: nn.Linear(w, 7)))
    assert (made.tensors["score.weight"].kind, made.tensors["score.weight"].m_d) == ("readout", 4)


@pytest.mark.parametrize("shape", [lambda w: (w, w, w), lambda w: (w, w * w)])
def test_no_axis_is_proposed_where_nothing_tells_it_and_it_would_change_the_rules(
    shape: Callable[[int], tuple[int, ...]],
) -> None:
    text = asked(Raw(16, shape), Raw(8, shape))
    assert "No answer is proposed for 'extra': add yours to the line." in text
    assert "fan_in_axis={'extra': 0} or fan_in_axis={'extra': 1}" in text
    assert plan(Raw(16, shape), Raw(8, shape), fan_in_axis={"extra": 0}).tensors["extra"].m_d == 2


def test_the_matrices_of_an_attention_sum_over_the_width_and_over_its_heads_on_the_way_back() -> None:
    """As in XLNet: (width, heads, head size), used as einsum("ibh,hnd->ibnd") and, over both, "ibnd,hnd->ibh"."""

    class Relative(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            for name in ("q", "k", "v", "o", "r"):
                setattr(self, name, nn.Parameter(torch.randn(width, width // 16, 16)))

    text = asked(*pair(attend=Relative))
    assert "'*.o': (1, 2)" in text or "'attend.o': (1, 2)" in text
    for name in ("q", "k", "v", "r"):
        assert f"'attend.{name}': 0" in text


class Named(nn.Module):
    """One parameter, drawn, by a name."""

    def __init__(self, width: int, name: str, shape: Callable[[int], tuple[int, ...]]) -> None:
        super().__init__()
        setattr(self, name, nn.Parameter(torch.randn(shape(width))))


EINSUMS: dict[str, tuple[str, Callable[[int], tuple[int, ...]], str]] = {
    "queries, number of heads grows": ("attn.wq", lambda w: (w, w // 16, 16), "btw,whd->bhtd"),
    "values by no name": ("mix.weight_a", lambda w: (w, w // 16, 16), "btw,whd->bhtd"),
    "outputs": ("attn.wo", lambda w: (w // 16, 16, w), "bhtd,hdw->btw"),
    "outputs by no name": ("mix.weight_b", lambda w: (w // 16, 16, w), "bhtd,hdw->btw"),
    "outputs by a long name": ("attention.out", lambda w: (w // 16, 16, w), "bhtd,hdw->btw"),
    "outputs as in XLNet": ("attn.o", lambda w: (w, w // 16, 16), "bhtd,whd->btw"),
    "a matrix for every head": ("attn.q", lambda w: (w // 16, w, 16), "btw,hwd->bhtd"),
    "queries, size of heads grows": ("attn.wq", lambda w: (w, 4, w // 4), "btw,whd->bhtd"),
    "outputs, size of heads grows": ("attn.wo", lambda w: (4, w // 4, w), "bhtd,hdw->btw"),
    "a matrix for every head, whose size grows": ("attn.wk", lambda w: (4, w, w // 4), "btw,hwd->bhtd"),
    "queries, keys and values as one": ("attn.wqkv", lambda w: (3, w, w // 16, 16), "btw,iwhd->ibhtd"),
    "the same in another order": ("attn.qkv", lambda w: (w, 3, w // 16, 16), "btw,wihd->ibhtd"),
    "the same by no name": ("mix.weight_c", lambda w: (3, w, w // 16, 16), "btw,iwhd->ibhtd"),
    "gate and up as one": ("mlp.wi", lambda w: (w, 2, 4 * w), "btw,wif->ibtf"),
    "gate and up as one by no name": ("mix.weight_d", lambda w: (w, 2, 4 * w), "btw,wif->ibtf"),
    "gate and up, twice as wide": ("mlp.wi", lambda w: (w, 2, 2 * w), "btw,wif->ibtf"),
    "experts up": ("experts.w1", lambda w: (4, w, 4 * w), "betw,ewf->betf"),
    "experts up, transposed": ("moe.up", lambda w: (4, 4 * w, w), "betw,efw->betf"),
    "as many heads as twice the width": ("attn.wq", lambda w: (w, w // 8, 16), "btw,whd->bhtd"),
    "outputs of as many heads": ("attn.wo", lambda w: (w // 8, 16, w), "bhtd,hdw->btw"),
    "fused, with as many heads": ("attn.wqkv", lambda w: (w, 3, w // 8, 16), "btw,wihd->ibhtd"),
    "heads of half of the width": ("attn.wk", lambda w: (w, 4, w // 8), "btw,whd->bhtd"),
    "keys of a fixed number of heads": ("attn.wk", lambda w: (w, 2, 16), "btw,whd->bhtd"),
    "keys and values of a fixed number of heads": ("attn.kv", lambda w: (2, w, 2, 16), "btw,iwhd->ibhtd"),
    "experts whose number grows, up": ("experts.w1", lambda w: (w // 16, w, 64), "betw,ewf->betf"),
    "experts whose number grows, down": ("experts.w2", lambda w: (w // 16, 64, w), "betf,efw->betw"),
    "gate and up of all experts as one": ("moe.w13", lambda w: (2, 8, w, 4 * w), "betw,iewf->ibetf"),
    "experts down": ("moe.wo", lambda w: (4, 4 * w, w), "betf,efw->betw"),
}


@pytest.mark.parametrize("case", EINSUMS)
def test_what_an_einsum_sums_over_is_proposed(case: str) -> None:
    """The fan-in is the product of the dimensions that stand in the input, and not in the outcome."""
    path, shape, equation = EINSUMS[case]
    module, name = path.split(".")
    layers = {module: lambda w: Named(w, name, shape)}
    given, weight, outcome = equation.replace("->", ",").split(",")
    summed = [axis for axis, letter in enumerate(weight) if letter in given and letter not in outcome]
    tensor = settled(*pair(**layers)).tensors[path]
    assert tensor.fan_in == torch.Size(shape(64)[axis] for axis in summed).numel()
    narrow = torch.Size(shape(32)[axis] for axis in summed).numel()
    assert (tensor.kind, tensor.m_d) == ("hidden", tensor.fan_in / narrow)
    axes = summed[0] if len(summed) == 1 else tuple(summed)
    assert f"{name}': {axes}" in asked(*pair(**layers)).splitlines()[-1]


def test_the_outputs_of_a_fixed_number_of_heads_have_a_fixed_fan_in() -> None:
    tensor = settled(*pair(attn=lambda w: Named(w, "wo", lambda w: (2, 16, w)))).tensors["attn.wo"]
    assert (tensor.kind, tensor.fan_in, tensor.m_d) == ("hidden", 32, 1)


def test_several_dimensions_are_given_as_a_tuple_or_a_list() -> None:
    layers = {"attn": lambda w: Named(w, "wo", lambda w: (w // 16, 16, w))}
    for axes in ((0, 1), [1, 0]):
        assert plan(*pair(**layers), fan_in_axis={"attn.wo": axes}).tensors["attn.wo"].fan_in == 64
    for odd in ((), (0, 0), (0, "1"), (True, 1)):
        with pytest.raises(
            ValueError, match=r"fan_in_axis has 'attn.wo': .*; of several give each once, as in .*\(0, 1\)"
        ):
            plan(*pair(**layers), fan_in_axis={"attn.wo": odd})
    with pytest.raises(ValueError, match="give an axis from 0 to 2"):
        plan(*pair(**layers), fan_in_axis={"attn.wo": (0, 3)})


def test_a_density_counts_all_inputs_of_the_matrix_of_an_output() -> None:
    """64 inputs, in 4 heads of 16: at density 1/8 a neuron has 8, and no warning says that some have none."""
    layers = {"attn": lambda w: Named(w, "wo", lambda w: (w // 16, 16, w))}
    assert settled(*pair(**layers), density=1 / 8).tensors["attn.wo"].nonzero_fan_in == 8


# --- ends of the model, and what lies within ---


def test_a_head_beside_the_readout_is_an_end_whatever_it_is_called() -> None:
    for name in ("value", "key", "query", "reward"):
        made = settled(*pair(**{name: lambda w: nn.Linear(w, 1), "head": lambda w: nn.Linear(w, 9)}))
        assert made.tensors[f"{name}.weight"].kind == "readout"
        assert made.tensors[f"{name}.weight"].density == 1


def test_keys_and_values_of_a_fixed_size_lie_within() -> None:
    class Heads(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.key, self.value = nn.Linear(width, 8), nn.Linear(width, 8)

    made = settled(*pair(attend=Heads))
    assert made.tensors["attend.key.weight"].kind == made.tensors["attend.value.weight"].kind == "hidden"


def test_an_autoencoder_begins_and_ends_at_its_fixed_size() -> None:
    class Auto(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.look = nn.Embedding(7, width)
            self.first, self.mid = nn.Linear(12, width), nn.Linear(width, width)
            self.last = nn.Linear(width, 12)

    kinds = kinds_of(settled(Auto(64), Auto(32)))
    assert (kinds["first.weight"], kinds["last.weight"]) == ("embedding", "readout")


class Block(nn.Module):
    """A hidden matrix, and what a test puts beside it."""

    def __init__(self, width: int, **layers: Callable[[int], Any]) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        for name, make in layers.items():
            setattr(self, name, make(width))


def blocks(**layers: Callable[[int], Any]) -> Callable[[int], nn.Module]:
    return lambda width: nn.ModuleList(Block(width, **layers) for _ in range(2))


@pytest.mark.parametrize(
    ("name", "make", "kind"),
    [
        ("gain", lambda w: nn.Parameter(torch.zeros(1, 1, 1, 4 * w)), "keep"),  # ConvNeXt V2's response norm
        ("scale", lambda w: nn.Parameter(torch.ones(w, 1, 1)), "keep"),
        ("attention_biases", lambda w: nn.Parameter(torch.zeros(w // 16, 9)), "keep"),  # LeViT
        ("rel_pos_biases", lambda w: nn.Parameter(torch.randn(w // 16, 9)), "keep"),
        ("cls_token", lambda w: nn.Parameter(torch.zeros(1, 1, w)), "embedding"),
        ("pos_embed", lambda w: nn.Parameter(torch.randn(1, 9, w)), "embedding"),
        ("up", lambda w: nn.Parameter(torch.zeros(w, 8)), "keep"),
    ],
)
def test_bare_tensors_in_a_block_are_kept_drawn_or_hidden_by_their_values_and_names(
    name: str, make: Callable[[int], nn.Parameter], kind: str
) -> None:
    made = settled(*pair(blocks=blocks(**{name: make})))
    assert made.tensors[f"blocks.0.{name}"].kind == kind


class LowRank(nn.Linear):
    """A frozen linear layer, and beside its weight a product of two narrow matrices."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)
        self.first, self.second = nn.Parameter(torch.randn(4, width)), nn.Parameter(torch.zeros(width, 4))
        self.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x @ self.first.T @ self.second.T


def test_matrices_beside_the_weight_of_a_layer_lie_within() -> None:
    made = settled(*pair(extra=LowRank)).tensors
    assert (made["extra.first"].kind, made["extra.first"].m_d) == ("hidden", 2)
    assert made["extra.second"].kind == "keep"


def test_a_matrix_beside_the_weight_of_a_layer_that_is_called_an_embedding_is_not_read() -> None:
    models = pair(extra=LowRank)
    made = plan(*models, kinds={"extra.first": "embedding", "extra.second": "keep"})
    made.init_(models[0], init_std=0.08, seed=0)
    rows = {row.name: row for row in made.wire_(models[0], torch.randint(0, 7, (2, 5))).rows}
    assert (rows["extra.first"].expected, rows["extra.first"].after) == (1, None)


def test_a_layer_of_fixed_sizes_in_a_block_lies_within_whatever_it_is_called() -> None:
    made = settled(*pair(blocks=blocks(prediction_coefs=lambda w: nn.Linear(4, 16, bias=False))))  # Gemma 3n
    assert made.tensors["blocks.0.prediction_coefs.weight"].kind == "hidden"


def test_a_projection_to_a_fixed_size_beside_a_tied_readout_lies_within() -> None:
    def tied(width: int) -> Toy:
        model = Toy(width, tied=True)
        model.layer_projection = nn.Linear(width, 16, bias=False)
        return model

    made = settled(tied(64), tied(32))
    assert made.tensors["layer_projection.weight"].kind == "hidden"


# --- one error for all ---


class Squeeze(nn.Module):
    """A convolution net whose channels are weighted by way of four numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 1)
        self.fc1, self.fc2 = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.head = nn.Linear(width, 10)


def test_a_density_that_an_answer_makes_too_low_is_told_with_the_question() -> None:
    text = asked(Squeeze(64), Squeeze(32), density=1 / 8)
    assert "density 0.125 leaves neurons of fc2.weight without inputs: its fan-in is 4" in text
    made = settled(Squeeze(64), Squeeze(32), density=1 / 8)
    densities = {name: tensor.density for name, tensor in made.tensors.items() if tensor.kind == "hidden"}
    assert densities == {"mix.weight": 1 / 8, "fc1.weight": 1 / 8, "fc2.weight": 1}


def test_a_density_that_is_too_low_alone_ends_with_a_line_to_paste_too() -> None:
    kinds: Any = {"fc1.weight": "hidden", "fc2.weight": "hidden", "head.weight": "readout"}
    text = asked(Squeeze(64), Squeeze(32), density=1 / 8, kinds=kinds, exclude=["mix.*"])
    given = pasted(text, {"exclude": ["mix.*"]}, Squeeze(64))
    assert given["exclude"] == ["mix.*", "fc2.weight"]
    assert plan(Squeeze(64), Squeeze(32), density=1 / 8, kinds=kinds, **given).tensors["fc1.weight"].density == 1 / 8


def test_a_table_that_an_answer_would_draw_and_that_begins_with_a_meaning_is_asked_for_once() -> None:
    """It is a token by its name, and one constant: drawn, a second error would ask whether it is to be kept."""
    made = settled(*pair(register_tokens=lambda w: nn.Parameter(torch.full((1, 4, w), 0.5))))
    assert (made.tensors["register_tokens"].kind, made.tensors["register_tokens"].init_mean) == ("keep", None)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_readout_that_is_computed_is_no_missing_one(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = Toy(64)
    norm(model.readout)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = asked(model, lambda: Toy(32))
    assert text.startswith("readout.weight is computed by a parametrization")
    assert "no readout" not in text
    assert "Besides" not in text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_to_be_said_of_a_model_without_computed_weights_is_asked_with_them() -> None:
    """The readout is computed, and beside it a layer to a fixed size: which is the end is asked in the same error."""
    model, base = pair(adapt=lambda w: nn.Linear(w, 5))
    parametrizations.weight_norm(model.readout)
    text = asked(model, base)
    assert "kinds={'adapt.weight': 'readout'}" in text
    given = pasted(text, {}, model)
    assert kinds_of(plan(model, base, kinds=given["kinds"]))["readout.weight"] == "readout"


# --- experts whose number grows ---


class Experts(nn.Module):
    """One expert for 16 channels, chosen by a layer of any name."""

    def __init__(self, width: int, chooser: str) -> None:
        super().__init__()
        setattr(self, chooser, nn.Linear(width, width // 16, bias=False))
        self.w1 = nn.Parameter(torch.randn(width // 16, width, 2 * width))
        self.w2 = nn.Parameter(torch.randn(width // 16, 2 * width, width))


@pytest.mark.parametrize("chooser", ["router", "gate", "pick"])
def test_a_router_among_a_growing_number_of_experts_stays_dense(chooser: str) -> None:
    made = settled(*pair(experts=lambda w: Experts(w, chooser)), density=1 / 8).tensors
    router = made[f"experts.{chooser}.weight"]
    assert (router.kind, router.m_d, router.density, router.lr) == ("hidden", 2, 1, 0.5)
    assert {made["experts.w1"].density, made["experts.w2"].density} == {1 / 8}
    assert (made["experts.w1"].fan_in, made["experts.w2"].fan_in) == (64, 128)


def test_a_gate_that_is_no_router_is_pruned() -> None:
    made = plan(*pair(blocks=blocks(gate=lambda w: nn.Linear(w, 4 * w))), density=1 / 8).tensors
    assert made["blocks.0.gate.weight"].density == 1 / 8


# --- which of several layers to a fixed size are ends ---


class Chain(nn.Module):
    """Layers by name, in the order in which they are registered; `sizes` of a width."""

    def __init__(self, width: int, layers: dict[str, Callable[[int], tuple[int, int]]]) -> None:
        super().__init__()
        self.token = nn.Embedding(50, width)
        for name, sizes in layers.items():
            setattr(self, name, nn.Linear(*sizes(width), bias=False))


ENDS: dict[str, tuple[dict[str, Callable[[int], tuple[int, int]]], dict[str, str | None]]] = {
    "one in the midst, before the head": (
        {
            "up": lambda w: (w, 2 * w),
            "xp": lambda w: (2 * w, 20),
            "down": lambda w: (2 * w, w),
            "out": lambda w: (w, 50),
        },
        {"xp": "hidden", "out": "readout"},
    ),
    "one in the midst, after a head by its name": (
        {"head": lambda w: (w, 50), "up": lambda w: (w, w), "halt": lambda w: (w, 1), "down": lambda w: (w, w)},
        {"head": "readout", "halt": "hidden"},
    ),
    "two at the end": (
        {"up": lambda w: (w, w), "actor": lambda w: (w, 5), "critic": lambda w: (w, 1)},
        {"actor": "readout", "critic": "readout"},
    ),
    "a second one for the same classes, halfway": (
        {"up": lambda w: (w, w), "aux": lambda w: (w, 50), "down": lambda w: (w, w), "out": lambda w: (w, 50)},
        {"aux": "readout", "out": "readout"},
    ),
    "one of another width than the head's": (
        {"head": lambda w: (w, 50), "switch": lambda w: (w, w // 8), "mix": lambda w: (w // 8, 4)},
        {"head": "readout", "mix": None},
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_second_end_is_proposed_only_where_order_names_or_sizes_tell(case: str) -> None:
    layers, right = ENDS[case]
    text = asked(Chain(64, layers), lambda: Chain(16, layers))
    line = text.splitlines()[-1]
    for name, kind in right.items():
        assert f"{name}.weight " in text
        assert (f"'{name}.weight': '{kind}'" if kind else "mix") in (line if kind else text)
    open_ones = [f"{name}.weight" for name, kind in right.items() if kind is None]
    assert all(name not in line for name in open_ones)
    assert ("No answer is proposed for" in text) == bool(open_ones)


def test_one_layer_that_is_said_to_be_the_readout_does_not_make_another_one_a_readout() -> None:
    layers = ENDS["one in the midst, before the head"][0]
    models = Chain(64, layers), lambda: Chain(16, layers)
    assert "xp.weight" in asked(*models, kinds={"out.weight": "readout"})
    made = kinds_of(plan(*models, kinds={"xp.weight": "hidden"}))
    assert (made["xp.weight"], made["out.weight"]) == ("hidden", "readout")
