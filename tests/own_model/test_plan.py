from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.own_model.tensors.kinds import derived_tensors


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


class Toy(nn.Module):
    """Token embedding with padding, residual blocks, a readout that may be tied."""

    def __init__(
        self, width: int, *, inner: int | None = None, vocabulary: int = 50, depth: int = 1, tied: bool = False
    ):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width, padding_idx=0)
        self.blocks = nn.ModuleList(Block(width, inner or 2 * width) for _ in range(depth))
        self.readout = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.readout.weight = self.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids)
        for block in self.blocks:
            x = block(x)
        return self.readout(x)


class Raw(Toy):
    """Toy with a parameter that belongs to no known layer."""

    def __init__(self, width: int, shape: Callable[[int], tuple[int, ...]]) -> None:
        super().__init__(width)
        self.extra = nn.Parameter(torch.zeros(shape(width)))


class FixedHeads(Toy):
    """Toy with layers to and from a size that does not grow."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.key, self.value = nn.Linear(width, 8, bias=False), nn.Linear(width, 8, bias=False)


class Functional(Toy):
    """Toy whose readout is the embedding's weight, written into forward."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        del self.readout

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.linear(self.blocks[0](self.token(ids)), self.token.weight)


def perceptron(width: int, *, inputs: int = 20, outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def plan(model: nn.Module, base: Any, scheme: Any = "supar", **settings: Any) -> hpsweep.Plan:
    return hpsweep.parametrize(model, scheme, base=base, **settings)


def test_numbers_of_every_tensor_are_those_worked_out_by_hand() -> None:
    """Width 32 to 128, inner 64 to 128: m_d 4 for up, 2 for down; density 1/4 of base density 1/2: m_rho 1/2. Eps goes
    by the fan-out, as that of the layer's bias.
    """
    made = plan(
        Toy(128, inner=128), Toy(32), density=1 / 4, base_density=1 / 2, kinds={"*.down.weight": "residual_out"},
        depth=8, alpha_input=3.0, alpha_output=2.0, embedding_lr_mult=5.0, weight_decay_rule="independent",
    )  # fmt: skip
    fields = ("kind", "fan_in", "nonzero_fan_in", "m_d", "m_rho", "init_std", "lr", "weight_decay", "eps", "forward")
    expected = {
        "token.weight": ("embedding", None, None, 4, 1, 1, 5, 1, 1 / 4, 3),
        "blocks.0.norm.weight": ("norm", None, None, 4, 1, 0, 1, 0, 1 / 4, 1),
        "blocks.0.norm.bias": ("bias", None, None, 4, 1, 0, 1, 0, 1 / 4, 1),
        "blocks.0.up.weight": ("hidden", 128, 32, 4, 1 / 2, 2**-0.5, 1 / 2, 2, 1 / 2, 1),
        "blocks.0.up.bias": ("bias", None, None, 2, 1, 0, 1, 0, 1 / 2, 1),
        "blocks.0.down.weight": ("residual_out", 128, 32, 2, 1 / 2, 1 / 4, 1, 1, 1 / 4, 1),
        "blocks.0.down.bias": ("bias", None, None, 4, 1, 0, 1, 0, 1 / 4, 1),
        "readout.weight": ("readout", 128, 128, 4, 1, 1, 1, 1, 1 / 4, 2 / 4),
    }
    got = {name: tuple(getattr(tensor, field) for field in fields) for name, tensor in made.tensors.items()}
    assert got.keys() == expected.keys()
    for name, numbers in expected.items():
        assert got[name] == pytest.approx(numbers), name


def test_sgds_learning_rates_are_those_worked_out_by_hand() -> None:
    """Hidden m_out / (m_d m_rho); vectors and the readout by their width."""
    made = plan(Toy(128, inner=128), Toy(32), density=1 / 4, optimizer="sgd")
    rates = {name: tensor.lr for name, tensor in made.tensors.items()}
    assert rates == {
        "token.weight": 4, "blocks.0.norm.weight": 4, "blocks.0.norm.bias": 4, "blocks.0.up.weight": 2 / 4 * 4,
        "blocks.0.up.bias": 2, "blocks.0.down.weight": 4 / 2 * 4, "blocks.0.down.bias": 4, "readout.weight": 4,
    }  # fmt: skip
    assert {tensor.eps for tensor in made.tensors.values()} == {1}


def test_a_base_may_be_a_module_a_function_or_a_configuration() -> None:
    whole = plan(Toy(64), Toy(32))
    with torch.device("meta"):
        assert plan(Toy(64), Toy(32)) == whole
        assert plan(Toy(64), Toy(32)).tensors["blocks.0.norm.weight"].init_mean == 1
    assert plan(Toy(64), lambda: Toy(32)) == whole
    assert plan(Toy(64), 32) == whole  # what Toy itself takes


def test_an_equally_wide_base_needs_a_third_model_to_tell_widths_by() -> None:
    with pytest.raises(ValueError, match=r"equal shapes.*give delta=\.\.\., the same architecture at any other width"):
        plan(Toy(64), Toy(64))
    made = plan(Toy(64), Toy(64), delta=Toy(32), density=1 / 4)
    assert {tensor.m_d for tensor in made.tensors.values()} == {1}
    assert made.tensors["blocks.0.up.weight"].lr == 4


def test_a_tied_readout_is_the_embedding_with_a_second_multiplier() -> None:
    made = plan(Toy(128, tied=True), lambda: Toy(32, tied=True), alpha_input=3.0, alpha_output=2.0)
    tied = made.tensors["token.weight"]
    assert (tied.kind, tied.tied, tied.forward, tied.readout_forward) == ("embedding", ("readout.weight",), 3, 0.5)
    assert made.forward_multipliers == {"token.weight": 3.0, "readout.weight": 0.5}
    assert "readout.weight" not in made.tensors


def test_a_plan_is_plain_data_with_a_hash_and_a_table() -> None:
    made = plan(Toy(128, tied=True), Toy(32, tied=True), density={"*.up.*": 1 / 4}, seed=3)
    assert {made, hpsweep.Plan.from_dict(json.loads(made.to_json()))} == {made}
    assert hpsweep.Plan.from_dict(made.to_dict()).hash == made.hash
    assert plan(Toy(128, tied=True), Toy(32, tied=True), density={"*.up.*": 1 / 4}, seed=4).hash != made.hash
    lines = str(made).splitlines()
    assert " ".join(lines[2].split()) == "token.weight = readout.weight embedding 128 128 4 1 1 1 1 0.25 1, 0.25"
    assert len(lines) == 2 + len(made.tensors) + 3
    assert "readout.weight 0.25" in lines[-3]
    assert "no tensor is residual_out" in lines[-1]


def test_densities_are_by_layer_and_the_rest_stays_dense() -> None:
    model, base = Toy(128, depth=2), Toy(32, depth=2)
    layers = plan(model, base, density={"blocks.0.*": 1 / 4, "blocks.1.up.weight": 1 / 2}).tensors
    assert {name: tensor.density for name, tensor in layers.items() if tensor.density < 1} == {
        "blocks.0.up.weight": 1 / 4, "blocks.0.down.weight": 1 / 4, "blocks.1.up.weight": 1 / 2,
    }  # fmt: skip
    assert (layers["blocks.0.up.weight"].lr, layers["blocks.1.down.weight"].lr) == (1, 1 / 4)
    chosen = plan(model, base, density=1 / 4, base_density=1 / 2, include="*.up.*", exclude=["blocks.0.*"]).tensors
    assert [name for name, tensor in chosen.items() if tensor.density < 1] == ["blocks.1.up.weight"]
    assert (chosen["blocks.1.up.weight"].m_rho, chosen["blocks.0.up.weight"].m_rho) == (1 / 2, 1)


def test_m_rho_comes_from_the_nonzeros_that_there_are() -> None:
    """1/3 of 128 x 256 = 32768 weights is 10923 of them."""
    tensor = plan(Toy(128), Toy(32), density=1 / 3).tensors["blocks.0.up.weight"]
    assert (tensor.nonzeros, tensor.m_rho, tensor.nonzero_fan_in) == (10923, 10923 / 32768, 128 * 10923 / 32768)


def test_few_nonzeros_per_neuron_are_a_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"1 tensor with fewer than 8 nonzeros per neuron, 4 in blocks.0.up.weight, where 1.7% of"
    ):
        made = plan(Toy(128), Toy(32), density=1 / 32)
    assert len(made.warnings) == 1
    assert made.warnings[0] in str(made)


UNDECIDED: dict[str, tuple[nn.Module, nn.Module, str, dict[str, Any]]] = {
    "a matrix of no known layer": (
        Raw(64, lambda w: (w, 2 * w)), Raw(32, lambda w: (w, 2 * w)),
        r"extra \(64, 128\) in Raw sums over an unknown dimension: fan_in_axis=\{'extra': 1\}, or another",
        {"fan_in_axis": {"extra": 0}},
    ),
    "positions": (
        Raw(64, lambda w: (1, 7, w)), Raw(32, lambda w: (1, 7, w)),
        r"extra \(1, 7, 64\) in Raw has 1 width: kinds=\{'extra': 'embedding'\} or 'readout'",
        {"kinds": {"extra": "embedding"}},
    ),
    "a router": (
        Raw(64, lambda w: (8, w)), Raw(32, lambda w: (8, w)),
        r"extra \(8, 64\) in Raw has 1 width: kinds=\{'extra': 'embedding'\} or 'readout' if it is an end of the "
        "model, or 'hidden' if it lies within",
        {"kinds": {"extra": "hidden"}, "fan_in_axis": {"extra": 1}},
    ),
    "a vector": (
        Raw(64, lambda w: (w,)), Raw(32, lambda w: (w,)),
        r"extra \(64,\) in Raw is a gain, a bias or a token: kinds=\{'extra': 'keep'\} \(it begins as it is built\), "
        r"'norm' or 'bias'; or 'embedding' for a token, which is drawn",
        {"kinds": {"extra": "norm"}},
    ),
    "keys of fixed size": (
        FixedHeads(64), FixedHeads(32),
        r"key.weight \(8, 64\) in Linear maps from a width to a fixed size, and is not the only one: "
        r"kinds=\{'key.weight': 'readout'\} if "
        "it is an end of the model, or 'hidden' if it lies within",
        {"kinds": {"key.*": "hidden", "value.*": "hidden"}},
    ),
    "a kind whose fan-in is not known": (
        Raw(64, lambda w: (4, w, w)), Raw(32, lambda w: (4, w, w)),
        r"extra \(4, 64, 64\) in Raw sums over an unknown dimension: fan_in_axis=\{'extra': 2\}",
        {"fan_in_axis": {"extra": 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNDECIDED)
def test_what_cannot_be_decided_is_named_with_the_line_that_settles_it(case: str) -> None:
    model, base, message, settled = UNDECIDED[case]
    with pytest.raises(ValueError, match=message):
        plan(model, base)
    assert plan(model, base, **settled).tensors.keys() == dict(model.named_parameters()).keys()


def test_settled_tensors_have_the_fan_in_that_was_said() -> None:
    tensors = plan(*UNDECIDED["a matrix of no known layer"][:2], fan_in_axis={"extra": 0}).tensors
    assert (tensors["extra"].kind, tensors["extra"].fan_in, tensors["extra"].m_d) == ("hidden", 64, 2)
    router = plan(*UNDECIDED["a router"][:2], **UNDECIDED["a router"][3]).tensors["extra"]
    assert (router.fan_in, router.m_d, router.lr, router.eps) == (64, 2, 0.5, 1)
    tensors = plan(*UNDECIDED["positions"][:2], kinds={"extra": "readout"}).tensors
    assert (tensors["extra"].fan_in, tensors["extra"].forward) == (64, 0.5)  # its one width is all it can sum over
    tensors = plan(*UNDECIDED["keys of fixed size"][:2], kinds={"key.*": "hidden", "value.*": "hidden"}).tensors
    assert (tensors["key.weight"].kind, tensors["key.weight"].lr) == ("hidden", 0.5)
    assert tensors["readout.weight"].kind == "readout"  # now the only one


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another depth": (
        lambda: plan(Toy(64, depth=2), Toy(32)),
        r"base is of another architecture: only the model has the tensor blocks.1.norm.weight with 1 dimensions, and 5 "
        r"more. base must differ from the model in widths only: the same depth, layers and ties",
    ),
    "a deeper base": (lambda: plan(Toy(64), Toy(32, depth=2)), "only base has the tensor blocks.1.norm.weight"),
    "other ties": (lambda: plan(Toy(64, tied=True), Toy(32)), r"only the model has the tensor token.weight \(tied to "),
    "a wider base": (lambda: plan(Toy(64), Toy(128)), r"token.weight has shape \(50, 64\), narrower than the base's"),
    "another vocabulary": (lambda: plan(Toy(64), Toy(32, vocabulary=40)), "token.weight has another number of entries"),
    "no base": (lambda: plan(Toy(64), "gpt2"), r"base is str, from which no Toy could be built .*; give a module, a"),
    "a base that returns none": (lambda: plan(Toy(64), lambda: 3), r"base\(\) returned int; it must return a torch.nn"),
    "an unknown scheme": (lambda: plan(Toy(64), Toy(32), "mu"), "scheme is 'mu'; allowed: sp, mup, supar"),
    "an unknown optimizer": (lambda: plan(Toy(64), Toy(32), optimizer="lion"), "optimizer is 'lion'; allowed: adam"),
    "an unknown kind": (lambda: plan(Toy(64), Toy(32), kinds={"token.*": "table"}), "'table'; allowed: embedding, hid"),
    "an unknown pattern": (
        lambda: plan(Toy(64), Toy(32), kinds={"*.donw.weight": "residual_out"}),
        r"kinds has '\*.donw.weight', which matches no tensor; the nearest name is 'blocks.0.down.weight'",
    ),
    "two kinds": (
        lambda: plan(Toy(64), Toy(32), kinds={"*.down.weight": "residual_out", "blocks.0.d*t": "hidden"}),
        "kinds gives 'blocks.0.down.weight' both 'residual_out' and 'hidden'; make its patterns exclude each other",
    ),
    "a matrix kind for a vector": (lambda: plan(Toy(64), Toy(32), kinds={"*.up.bias": "hidden"}), "has no fan-in, w"),
    "an axis that is not there": (lambda: plan(Toy(64), Toy(32), fan_in_axis={"*.up.weight": 2}), "an axis from 0 to"),
    "one matrix into the stream": (
        lambda: plan(Toy(64), Toy(32), kinds={"*.down.weight": "residual_out"}), "1 tensors are residual_out.*depth="
    ),
    "density 0": (lambda: plan(Toy(64), Toy(32), density=0.0), r"density is 0.0; allowed: \(0, 1\]"),
    "density above 1": (lambda: plan(Toy(64), Toy(32), density=1.5), r"density is 1.5; allowed: \(0, 1\]"),
    "a layer's density": (lambda: plan(Toy(64), Toy(32), density={"*.up.*": 2}), r"owed: \(0, 1\]. \(density of '\*"),
    "no inputs": (
        lambda: plan(Toy(64), Toy(32), density=1 / 100),
        r"density 0.01 leaves neurons of blocks.0.up.weight without inputs: its fan-in is 64. Give it at least 0.0",
    ),
    "density of an embedding": (
        lambda: plan(Toy(64), Toy(32), density={"token.*": 1 / 2}),
        r"density has 'token.\*', which matches no hidden matrix; token.weight is of kind embedding, which stays dense",
    ),
    "an unknown exclusion": (lambda: plan(Toy(64), Toy(32), exclude=["*.mid.*"]), "exclude has .* matches no tensor"),
    "a density of nothing": (
        lambda: plan(nn.Sequential(nn.Linear(4, 64), nn.Linear(64, 2)), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)),
                     density=1 / 2),
        "density is 0.5, and no hidden matrix is made sparse by it: there are 0",
    ),
    "all excluded": (lambda: plan(Toy(64), Toy(32), density=1 / 2, exclude="*"), r"are 2, less .* exclude=\['\*'\]"),
    "no module": (lambda: plan("gpt2", 32), r"the model is 'gpt2'; it must be a torch.nn.Module"),  # type: ignore[arg-type]
    "kinds that are no mapping": (
        lambda: plan(Toy(64), Toy(32), kinds=["*.down.weight"]),
        r"kinds is \['\*.down.weight'\]; it must map patterns to kinds, as in \{'\*.down.weight': 'residual_out'\}",
    ),
    "axes that are no mapping": (
        lambda: plan(Toy(64), Toy(32), fan_in_axis=1), r"fan_in_axis is 1; it must map patterns to axes, as in \{'"
    ),
    "an empty state": (
        lambda: plan(Toy(64), Toy(32)).load_state_dict({}),
        r"the state has no plan, hash, mask_hash; give what plan.state_dict\(\) returned",
    ),
    "a plan out of an empty state": (lambda: hpsweep.Plan.from_state_dict({}), "the state has no plan, hash, m"),
    "a state that is a plan": (
        lambda: hpsweep.Plan.from_state_dict(plan(Toy(64), Toy(32)).to_dict()), "the state has no plan, hash, mask_hash"
    ),
    "half a plan": (
        lambda: hpsweep.Plan.from_dict({**plan(Toy(64), Toy(32)).to_dict(), "tensors": {"token.weight": {}}}),
        r"the plan is not one that Plan.to_dict\(\) gave",
    ),
    "another number of classes": (
        lambda: plan(perceptron(64, outputs=100), perceptron(16)),
        r"the plan would have no readout: no tensor maps from a width to a fixed size. The base has another number of "
        r"outputs \(classes\) than the model; or .* F.linear\(x, token.weight\).* nn.Linear whose weight is tied; or "
        "the model is a part .*: say so by partial=True",
    ),
    "another number of features": (
        lambda: plan(perceptron(64, inputs=30), perceptron(16)),
        r"the plan would have no embedding: no tensor maps from a fixed size to a width. The base has another number "
        r"of inputs \(features\) than the model; or the model is a part .*: say so by partial=True",
    ),
    "blocks alone": (lambda: plan(Toy(64).blocks, Toy(32).blocks), "the plan would have no embedding"),
    "a tied readout that is no layer": (lambda: plan(Functional(64), Functional(32)), "the plan would have no readout"),
    "an unknown plan": (lambda: hpsweep.Plan.from_dict({"version": 99}), "the plan is of version 99; this hpsweep rea"),
}  # fmt: skip


def test_a_part_of_a_model_is_planned_where_it_is_said_to_be_one() -> None:
    """The blocks alone, then those with their embedding: as in the whole model."""
    whole = plan(Toy(64), Toy(32)).tensors
    alone = plan(Toy(64).blocks, Toy(32).blocks, partial=True).tensors
    assert {f"blocks.{name}": tensor for name, tensor in alone.items()} == {
        name: tensor for name, tensor in whole.items() if name.startswith("blocks")
    }
    headless = plan(Functional(64), Functional(32), partial=True).tensors
    assert headless == {name: tensor for name, tensor in whole.items() if name != "readout.weight"}
    assert plan(Toy(64), Toy(32), partial=True) == plan(Toy(64), Toy(32))


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_message_with_the_remedy(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_initial_weights_follow_the_plan() -> None:
    model = Toy(256)
    with torch.no_grad():
        model.blocks[0].norm.weight.fill_(0.0)  # a gain around zero, as some models have
    made = plan(model, Toy(32), "mup")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    made.init_(model, init_std=0.1, seed=0)
    model.requires_grad_(False)
    up = model.blocks[0].up
    assert float(up.weight.std()) == pytest.approx(0.1 * 8**-0.5, rel=0.02)
    assert abs(float(up.weight.mean())) < 1e-3
    assert float(model.readout.weight.std()) == pytest.approx(0.1, rel=0.02)
    assert (up.bias == 0).all()
    assert (model.blocks[0].norm.weight == 0).all()
    assert (model.token.weight[0] == 0).all()  # padding
    assert float(model.token.weight[1:].std()) == pytest.approx(0.1, rel=0.02)
    again = Toy(256)
    made.init_(again, init_std=0.1, seed=0)
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True))
    made.init_(again, init_std=0.1, seed=1)
    assert (up.weight != again.blocks[0].up.weight).any()


def test_a_model_that_left_the_meta_device_untied_is_noticed() -> None:
    with torch.device("meta"):
        model = Toy(64, tied=True)
    made = plan(model, Toy(32, tied=True))
    with pytest.raises(ValueError, match=r"token.weight is on the meta device, without memory; call model.to_empty"):
        made.init_(model, init_std=0.1, seed=0)
    with pytest.raises(
        ValueError, match=r"token.weight is one tensor with \[\], in the plan with \['readout.weight'\]"
    ):
        made.init_(Toy(64), init_std=0.1, seed=0)
    made.init_(Toy(64, tied=True), init_std=0.1, seed=0)


def test_a_plan_refuses_another_model() -> None:
    made = plan(Toy(64), Toy(32))
    for other, message in (
        (Toy(128), r"token.weight has shape \(50, 128\), in the plan \(50, 64\)"),
        (Toy(64, depth=2), "the model has the tensor blocks.1.norm.weight, which the plan has not"),
        (nn.Linear(3, 3), "the model has no tensor token.weight, which the plan has"),
    ):
        with pytest.raises(ValueError, match=message):
            made.param_groups(other, lr=0.1)


def test_parameter_groups_hold_every_tensor_once_with_scaled_values() -> None:
    model = Toy(128, depth=2, tied=True)
    made = plan(model, lambda: Toy(32, depth=2, tied=True), density=1 / 2, embedding_lr_mult=3.0)
    groups = made.param_groups(model, lr=0.1, weight_decay=0.2, eps=1e-8)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    for group in groups:
        for name in group["names"]:
            tensor = made.tensors[name]
            assert (group["lr"], group["weight_decay"], group["eps"]) == (
                pytest.approx((0.1 * tensor.lr, 0.2 * tensor.weight_decay, 1e-8 * tensor.eps))
            )
    assert all("eps" not in group for group in made.param_groups(model, lr=0.1))
    with pytest.raises(ValueError, match=r"lr is -1; allowed: \(0, 1e\+30\]"):
        made.param_groups(model, lr=-1)


def test_wrapped_models_have_the_names_of_the_plan() -> None:
    model = Toy(64)
    made = plan(model, Toy(32))
    assert [group["names"] for group in made.param_groups(torch.compile(model, backend="eager"), lr=1.0)] == [
        group["names"] for group in made.param_groups(model, lr=1.0)
    ]
    partly = copy.deepcopy(model)
    partly.blocks[0] = torch.compile(partly.blocks[0], backend="eager")
    assert made.param_groups(partly, lr=1.0)[0]["names"] == made.param_groups(model, lr=1.0)[0]["names"]
    assert plan(torch.compile(model, backend="eager"), Toy(32)) == made


def test_attention_and_convolutions_of_torch_are_known() -> None:
    class Vision(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, width, 4)
            self.mixing = nn.Conv2d(width, width, 3)
            self.rising = nn.ConvTranspose2d(width, 2 * width, 2, groups=4)
            self.attention = nn.MultiheadAttention(width, 4)
            self.head = nn.Linear(width, 10)

    class Decoder(nn.Module):
        def __init__(self, width: int, inner: int) -> None:
            super().__init__()
            self.first, self.second = nn.ConvTranspose1d(5, width, 4), nn.ConvTranspose3d(width, inner, 2)
            self.last = nn.ConvTranspose2d(inner, 3, 4)

    decoder = derived_tensors(Decoder(64, 96), Decoder(16, 48))
    assert {name: tuple(t)[3:7] for name, t in decoder.items() if name.endswith("weight")} == {
        "first.weight": ((), 20, 4, 1), "second.weight": ((), 512, 4, 2), "last.weight": ((), 1536, 2, 1),
    }  # fmt: skip
    assert [tensor.kind for tensor in decoder.values()][::2] == ["embedding", "hidden", "readout"]
    derived = derived_tensors(Vision(64), Vision(16))
    assert {name: (tensor.kind, tensor.fan_in) for name, tensor in derived.items() if tensor.fan_in} == {
        "patch.weight": ("embedding", 48),
        "mixing.weight": ("hidden", 576),
        "rising.weight": ("hidden", 64),  # 64 / 4 channels x 2 x 2
        "attention.in_proj_weight": ("hidden", 64),
        "attention.out_proj.weight": ("hidden", 64),
        "head.weight": ("readout", 64),
    }
    assert {tensor.kind for name, tensor in derived.items() if "bias" in name} == {"bias"}


def test_planning_imports_neither_ray_nor_optuna_nor_pandas() -> None:
    code = (
        "import sys, hpsweep, torch; m = lambda w: torch.nn.Sequential(torch.nn.Linear(4, w), torch.nn.Linear(w, 2));"
        "hpsweep.parametrize(m(8), 'mup', base=m(4));"
        "print(*({'ray', 'optuna', 'pandas', 'matplotlib', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
