"""What tensors are that shapes alone do not tell, and what they begin with; every remedy is pasted as it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import hpsweep
from benchmarks.architectures import pasted
from hpsweep.own_model.tensors.patterns import name_patterns
from tests.own_model.test_plan import Toy, perceptron, plan


class Within(Toy):
    """Toy with more layers, made by functions of the width."""

    def __init__(self, width: int, **layers: Callable[[int], nn.Module | nn.Parameter]) -> None:
        super().__init__(width)
        for name, make in layers.items():
            setattr(self, name, make(width))


def within(width: int = 64, **layers: Callable[[int], Any]) -> Callable[[], Within]:
    return lambda: Within(width, **layers)


def pair(**layers: Callable[[int], Any]) -> tuple[Within, Callable[[], Within]]:
    """The model and its base, half as wide."""
    return within(64, **layers)(), within(32, **layers)


def settled(model: nn.Module, base: Any, **options: Any) -> hpsweep.Plan:
    """The plan after one error, whose line is pasted."""
    with pytest.raises(ValueError, match=r"cannot be decided|is computed by|the plan would have no") as raised:
        plan(model, base, **options)
    given = pasted(str(raised.value), {**options, "run": None}, model)
    return plan(model, base, **{word: value for word, value in given.items() if word != "run"})


# --- layers from a fixed size to a width, and back ---


def test_an_adapter_within_the_net_is_asked_for_and_trains_at_the_base_rate() -> None:
    """From 16 to 64: fan-in 16 at every width, so m_d 1. At density 1/2 m_rho is 1/2, and the rate 2."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "down": lambda w: nn.Linear(w, 16, bias=False), "up": lambda w: nn.Linear(16, w, bias=False),
    }  # fmt: skip
    dense = settled(*pair(**layers), embedding_lr_mult=8.0, alpha_input=10.0).tensors
    assert [(dense["up.weight"].kind, dense["up.weight"].m_d, dense["up.weight"].lr, dense["up.weight"].forward)] == [
        ("hidden", 1, 1, 1)
    ]
    assert (dense["down.weight"].kind, dense["down.weight"].m_d, dense["down.weight"].lr) == ("hidden", 2, 0.5)
    sparse = settled(*pair(**layers), density=1 / 2).tensors["up.weight"]
    assert (sparse.density, sparse.lr) == (0.5, 2)


def test_a_way_up_that_comes_after_hidden_matrices_is_never_an_embedding_unasked() -> None:
    with pytest.raises(ValueError, match=r"kinds=\{'up.weight': 'embedding'\} if it is an end .* or 'hidden'"):
        plan(*pair(up=lambda w: nn.Linear(16, w)))


def test_a_layer_before_all_hidden_matrices_of_its_tower_is_given_data() -> None:
    """Patches beside looked-up positions, as in vision transformers; and the second tower of two."""

    class Tower(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.patches, self.mixing = nn.Conv2d(3, width, 4), nn.Linear(width, width)

    tensors = plan(*pair(vision=Tower), embedding_lr_mult=8.0).tensors
    assert (tensors["vision.patches.weight"].kind, tensors["vision.patches.weight"].lr) == ("embedding", 8)


@pytest.mark.filterwarnings("ignore:1 tensor with fewer than 8 nonzeros")
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("depthwise", lambda w: nn.Conv1d(w, w, 4, groups=w)),
        ("upwards", lambda w: nn.ConvTranspose1d(w, w, 4, groups=w)),
        ("four by four", lambda w: nn.Conv2d(w, 2 * w, (2, 2), groups=w // 4)),
    ],
)
def test_convolutions_whose_groups_grow_have_a_fan_in_that_does_not(name: str, make: Callable[[int], Any]) -> None:
    """4 and 4 weights, and 4 channels x 4: hidden, m_d 1, rate 1, dense; eps by the fan-out, as its bias's."""
    made = plan(*pair(mixing=make), embedding_lr_mult=8.0, alpha_input=10.0, density=1 / 2)
    tensor = made.tensors["mixing.weight"]
    assert (tensor.kind, tensor.m_d, tensor.lr, tensor.init_std, tensor.forward, tensor.density) == (
        "hidden", 1, 1, 1, 1, 1,
    )  # fmt: skip
    assert tensor.fan_in == {"depthwise": 4, "upwards": 4, "four by four": 16}[name]
    assert tensor.eps == made.tensors["mixing.bias"].eps == 0.5
    assert plan(*pair(mixing=make), optimizer="sgd").tensors["mixing.weight"].lr == 2  # m_out / m_d
    pruned = plan(*pair(mixing=make), density={"mixing.*": 3 / 4}, base_density=3 / 4).tensors["mixing.weight"]
    assert (pruned.density, pruned.lr) == (0.75, 1)


class Modulated(nn.Module):
    """A net that adds a multiple of what four numbers say: of the data, or of the stream itself."""

    def __init__(self, width: int, *, of_data: bool) -> None:
        super().__init__()
        self.token, self.shift, self.mixing = nn.Embedding(50, width), nn.Linear(4, width), nn.Linear(width, width)
        self.readout, self.of_data = nn.Linear(width, 50), of_data

    def forward(self, ids: Tensor) -> Tensor:
        x = self.mixing(self.token(ids)).relu()
        return self.readout(x + self.shift(ids[..., None].expand(*ids.shape, 4) / 50 if self.of_data else x[..., :4]))


@pytest.mark.parametrize("of_data", [False, True])
def test_a_layer_that_is_taken_for_an_input_is_looked_at_when_the_model_runs(of_data: bool) -> None:
    def make(width: int) -> nn.Module:
        return Modulated(width, of_data=of_data)

    model, ids = make(64), torch.arange(1, 17).view(2, 8)
    made = plan(model, lambda: make(32))
    assert made.tensors["shift.weight"].kind == "embedding"
    made.init_(model, init_std=0.1, seed=0)
    if of_data:
        made.wire_(model, ids, leave=["*"])
        return
    with pytest.raises(ValueError, match=r"shift.weight is planned as an embedding.* given what (mixing|token).weight"):
        made.wire_(model, ids, leave=["*"])
    again = plan(model, lambda: make(32), kinds={"shift.weight": "hidden"})
    again.init_(model, init_std=0.1, seed=0)
    again.wire_(model, ids, leave=["*"])


class Expert(nn.Module):
    """A choice among four experts, each kept as a slice of 3-d tensors, with biases."""

    def __init__(self, width: int, inner: int, *, transposed: bool) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4, bias=False)
        up, down = (4, width, 2 * inner), (4, inner, width)
        if transposed:
            up, down = (4, 2 * inner, width), (4, width, inner)
        self.up, self.down = nn.Parameter(torch.randn(up)), nn.Parameter(torch.randn(down))
        self.up_bias, self.down_bias = nn.Parameter(torch.zeros(4, 2 * inner)), nn.Parameter(torch.zeros(4, width))


@pytest.mark.parametrize("transposed", [False, True])
def test_experts_sum_over_what_their_biases_lack_and_routers_stay_dense(transposed: bool) -> None:
    """Width x 2, inner width x 8."""
    model = Within(64, moe=lambda w: Expert(w, 128, transposed=transposed))
    made = plan(model, within(32, moe=lambda w: Expert(w, 16, transposed=transposed)), density=1 / 4).tensors
    assert (made["moe.up"].kind, made["moe.up"].m_d, made["moe.down"].m_d) == ("hidden", 2, 8)
    assert (made["moe.up"].fan_in, made["moe.down"].fan_in) == (64, 128)
    assert {made[f"moe.{name}_bias"].kind for name in ("up", "down")} == {"bias"}
    router = made["moe.router.weight"]
    assert (router.kind, router.m_d, router.density, router.lr, router.forward) == ("hidden", 2, 1, 0.5, 1)
    assert made["moe.up"].density == 1 / 4


def test_the_one_end_of_a_model_may_be_called_a_gate() -> None:
    def make(width: int) -> nn.Module:
        return nn.ModuleDict(
            {"into": nn.Linear(5, width), "mixing": nn.Linear(width, width), "gate": nn.Linear(width, 2)}
        )

    assert settled(make(64), make(32)).tensors["gate.weight"].kind == "readout"


def test_what_an_adapter_on_a_frozen_net_trains_is_hidden() -> None:
    """As LoRA does: 64 to 4 to 64, the way up built as zeros; the frozen ends are the model's ends still."""

    def make(width: int) -> nn.Module:
        model = Toy(width).requires_grad_(False)
        model.down, model.up = nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False)
        nn.init.zeros_(model.up.weight)
        return model

    model = make(64)
    made = settled(model, lambda: make(32))
    assert {name: (t.kind, t.m_d, t.lr, t.init_std) for name, t in made.tensors.items()} == {
        "down.weight": ("hidden", 2, 0.5, pytest.approx(0.5**0.5)), "up.weight": ("hidden", 1, 1, 0),
    }  # fmt: skip
    made.init_(model, init_std=0.1, seed=0)
    assert (model.up.weight == 0).all()


def test_a_router_is_pruned_where_a_pattern_asks_for_it() -> None:
    layers = {"gate": lambda w: nn.Linear(w, 4)}
    assert plan(*pair(**layers), density=1 / 4, include=["*"]).tensors["gate.weight"].density == 1
    assert plan(*pair(**layers), density=1 / 4, include=["*", "gate.*"]).tensors["gate.weight"].density == 1 / 4
    assert plan(*pair(**layers), density={"gate.*": 1 / 4}).tensors["gate.weight"].density == 1 / 4


def test_the_proposed_axis_of_experts_without_biases_is_what_their_names_say() -> None:
    """Where shapes do not tell, both readings stand in the message, with the sizes."""
    layers: dict[str, Callable[[int], Any]] = {
        "w1": lambda w: nn.Parameter(torch.randn(4, w, 2 * w)), "w2": lambda w: nn.Parameter(torch.randn(4, 2 * w, w)),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"w1 .* \(1 sums over 64, 2 sums over 128\)") as raised:
        plan(*pair(**layers))
    assert str(raised.value).endswith("fan_in_axis={'w1': 1, 'w2': 1}")


# --- what they begin with ---


def test_what_does_not_train_is_left_alone_and_has_no_plan() -> None:
    model, base = pair(table=lambda w: nn.Embedding(7, w), mixing=lambda w: nn.Linear(w, w))
    model.table.weight.requires_grad_(False)
    model.mixing.weight.requires_grad_(False)
    before = {name: getattr(model, name).weight.clone() for name in ("table", "mixing")}
    made = plan(model, base, density=1 / 2)
    assert not {"table.weight", "mixing.weight"} & made.tensors.keys()
    made.init_(model, init_std=0.1, seed=0)
    for name, values in before.items():
        assert torch.equal(getattr(model, name).weight, values)
    held = {name for group in made.param_groups(model, lr=0.1) for name in group["names"]}
    assert held == made.tensors.keys()
    model.mixing.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"mixing.weight, which the plan has not; .* leaves out what did not train"):
        made.init_(model, init_std=0.1, seed=0)


def test_a_frozen_embedding_is_the_model_s_embedding_still() -> None:
    model = Toy(64)
    model.token.weight.requires_grad_(False)
    assert plan(model, Toy(32)).tensors["readout.weight"].kind == "readout"


def test_a_planned_tensor_that_is_frozen_later_is_not_filled() -> None:
    model = Toy(64)
    made = plan(model, Toy(32))
    model.token.weight.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"token.weight does not train .* leave its values by leave=\['token.weight'\]"
    ):
        made.init_(model, init_std=0.1, seed=0)
    before = model.token.weight.clone()
    made.init_(model, init_std=0.1, seed=0, leave=["token.weight"])
    assert torch.equal(model.token.weight, before)


def test_a_model_that_does_not_train_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none of the 8 parameters of Toy trains .* model.requires_grad_\(True\)"):
        plan(Toy(64).requires_grad_(False), Toy(32))


def structured(width: int) -> nn.Linear:
    """A layer whose biases are the inverse softplus of time steps from 0.001 to 0.1."""
    layer = nn.Linear(width, width)
    steps = torch.exp(torch.linspace(-6.9, -2.3, width))
    layer.bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
    return layer


def test_values_that_are_not_one_constant_are_asked_for_and_kept() -> None:
    model, base = pair(mixing=structured, decay=lambda w: nn.Parameter(torch.arange(1.0, 1.0 + w).log()))
    before = model.mixing.bias.clone(), model.decay.clone()
    made = settled(model, base)
    assert {made.tensors[name].kind for name in ("mixing.bias", "decay")} == {"keep"}
    kept = made.tensors["decay"]
    assert (kept.init_mean, kept.init_std, kept.lr, kept.weight_decay, kept.forward) == (None, 0, 1, 0, 1)
    made.init_(model, init_std=0.1, seed=0)
    assert torch.equal(model.mixing.bias, before[0])
    assert torch.equal(model.decay, before[1])
    assert hpsweep.Plan.from_dict(made.to_dict()) == made


def test_a_kind_that_would_overwrite_structured_values_is_refused_or_said() -> None:
    model, base = pair(decay=lambda w: nn.Parameter(torch.arange(1.0, 1.0 + w).log()))
    with pytest.raises(ValueError, match=r"decay .* values from 0 to 4.159, which are not one constant: .*'keep'"):
        plan(model, base, kinds={"decay": "norm"})
    with pytest.warns(UserWarning, match=r"decay begins with values .* replaces by 0; .* leave=\['decay'\]"):
        plan(model, base, kinds={"decay": "bias"})


@pytest.mark.parametrize("value", [-4.6, 0.0, 1.0])
def test_a_bias_begins_at_the_constant_that_it_is_built_with(value: float) -> None:
    """Such as the prior of rare classes; noise, as torch draws it, begins at 0."""

    def head(width: int) -> nn.Linear:
        layer = nn.Linear(width, width)
        nn.init.constant_(layer.bias, value)
        return layer

    model, base = pair(mixing=head)
    made = plan(model, base)
    made.init_(model, init_std=0.1, seed=0)
    assert (model.mixing.bias == torch.tensor(value)).all()
    assert made.tensors["blocks.0.up.bias"].init_mean == 0
    assert (model.blocks[0].up.bias == 0).all()


def test_forget_gates_that_begin_open_are_asked_for() -> None:
    def memory(width: int) -> nn.LSTM:
        layer = nn.LSTM(width, width)
        with torch.no_grad():
            layer.bias_hh_l0[width : 2 * width] = 1.0
        return layer

    model, base = pair(memory=memory)
    before = model.memory.bias_hh_l0.clone()
    made = settled(model, base)
    assert (made.tensors["memory.weight_hh_l0"].kind, made.tensors["memory.weight_hh_l0"].m_d) == ("hidden", 2)
    made.init_(model, init_std=0.1, seed=0)
    assert torch.equal(model.memory.bias_hh_l0, before)
    assert (model.memory.bias_ih_l0 == 0).all()


def test_a_matrix_that_begins_at_zero_stays_there_and_one_of_another_constant_is_asked_for() -> None:
    def gate(width: int, value: float = 0.0) -> nn.Linear:
        layer = nn.Linear(width, width, bias=False)
        nn.init.constant_(layer.weight, value)
        return layer

    model, base = pair(gated=gate)
    made = plan(model, base, density=1 / 2)
    made.init_(model, init_std=0.1, seed=0)
    assert (model.gated.weight == 0).all()
    assert (made.tensors["gated.weight"].init_std, made.tensors["gated.weight"].lr) == (0, 1)
    tensors = settled(*pair(ones=lambda w: gate(w, 1.0))).tensors
    assert tensors["ones.weight"].kind == "keep"


def test_a_matrix_that_is_mostly_zero_is_overwritten_only_with_a_warning() -> None:
    def identity(width: int) -> nn.Linear:
        layer = nn.Linear(width, width, bias=False)
        nn.init.eye_(layer.weight)
        return layer

    model, base = pair(mixing=identity)
    with pytest.warns(UserWarning, match=r"most of mixing.weight is zero, .* leave=\['mixing.weight'\]"):
        made = plan(model, base)
    made.init_(model, init_std=0.1, seed=0, leave="mixing.*")
    assert torch.equal(model.mixing.weight, torch.eye(64))


def test_left_values_are_masked_all_the_same() -> None:
    model = Toy(64)
    before = model.blocks[0].up.weight.clone()
    made = plan(model, Toy(32), density=1 / 4)
    made.init_(model, init_std=0.1, seed=0, leave="*.up.weight")
    assert torch.equal(model.blocks[0].up.weight, before * made.masks(model)["blocks.0.up.weight"])
    with pytest.raises(ValueError, match=r"leave has '\*.mid.weight', which matches no tensor"):
        made.init_(model, init_std=0.1, seed=0, leave="*.mid.weight")


def test_kept_values_have_to_be_there() -> None:
    model, base = pair(scale=lambda w: nn.Parameter(torch.full((w,), 0.1)))
    made = plan(model, base, kinds={"scale": "keep"})
    with torch.no_grad():
        model.scale[3] = torch.nan
    with pytest.raises(ValueError, match="scale is to begin as it is, and has values that are not finite"):
        made.init_(model, init_std=0.1, seed=0)


class AroundOne(nn.Module):
    """A gain of 1 + weight, as Gemma has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))


AroundOne.__name__ = "AroundOneNorm"


def test_values_that_the_meta_device_hides_are_read_off_the_base() -> None:
    seen = plan(*pair(gain=AroundOne, bare=lambda w: nn.Linear(w, w)))
    with torch.device("meta"):
        model = within(64, gain=AroundOne, bare=lambda w: nn.Linear(w, w))()
        hidden = within(32, gain=AroundOne, bare=lambda w: nn.Linear(w, w))()
    state = torch.get_rng_state()
    assert plan(model, within(32, gain=AroundOne, bare=lambda w: nn.Linear(w, w))).hash == seen.hash
    assert torch.equal(torch.get_rng_state(), state)
    assert seen.tensors["gain.weight"].init_mean == 0
    with pytest.raises(ValueError, match=r"gain.weight .* nothing shows on the meta device: give base as a function"):
        plan(model, hidden)


def test_a_trained_model_begins_as_its_base_is_built() -> None:
    model = Toy(64)
    with torch.no_grad():
        model.blocks[0].norm.weight.uniform_(0.5, 2)
        model.blocks[0].norm.bias.uniform_(-2, 2)
    assert plan(model, lambda: Toy(32)).hash == plan(Toy(64), Toy(32)).hash


# --- weights that are computed from others ---

COMPUTED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "orthogonal": parametrizations.orthogonal,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "pruned twice": lambda layer: prune.l1_unstructured(prune.random_unstructured(layer, "weight", 0.1), "weight", 0.1),
    "spectral norm by hooks": nn.utils.spectral_norm,
}


@pytest.mark.parametrize("how", COMPUTED)
@pytest.mark.parametrize("built", [False, True])
def test_a_weight_that_is_computed_from_others_is_refused_and_the_remedy_leaves_a_plain_one(
    how: str, built: bool
) -> None:
    make = COMPUTED[how]
    layers = {"mixing": lambda w: make(nn.Linear(w, w)), "more": lambda w: make(nn.Linear(w, w))}
    model, base = pair(**layers)
    theirs: Any = base if built else Within(32, mixing=lambda w: nn.Linear(w, w), more=lambda w: nn.Linear(w, w))
    with pytest.raises(ValueError, match=r"mixing.weight is computed by .* and 1 more: neither the density"):
        plan(model, theirs, density=1 / 2)
    made = settled(model, theirs)
    assert {made.tensors[f"{name}.weight"].kind for name in layers} == {"hidden"}


def test_questions_of_the_other_tensors_come_with_the_refusal() -> None:
    model, base = pair(
        mixing=lambda w: parametrizations.weight_norm(nn.Linear(w, w)), decay=lambda w: nn.Parameter(torch.rand(w))
    )
    assert settled(model, base).tensors["decay"].kind == "keep"


# --- what errors say ---


def test_patterns_match_what_is_wanted_and_no_more() -> None:
    names = [f"layers.{i}.{part}.weight" for i in range(12) for part in ("k", "v", "q")] + ["head.weight", "k.weight"]
    wanted = [name for name in names if ".k." in name]
    assert name_patterns(wanted, names) == {"*.k.weight": wanted}
    assert name_patterns(["head.weight"], names) == {"head.weight": ["head.weight"]}
    first = [name for name in wanted if name.startswith(("layers.1.", "layers.2."))]
    assert list(name_patterns(first, names)) == first


def test_every_tensor_is_in_the_line_to_paste_however_many_there_are() -> None:
    """Twelve differently named vectors, of which eight are told."""
    layers = {f"decay{chr(97 + i)}": lambda w: nn.Parameter(torch.rand(w)) for i in range(12)}
    model, base = pair(**layers)
    with pytest.raises(ValueError, match="and 4 more") as raised:
        plan(model, base)
    assert len(str(raised.value).splitlines()) == 1 + 8 + 1 + 1
    assert {t.kind for name, t in settled(model, base).tensors.items() if "decay" in name} == {"keep"}


def test_a_missing_end_is_said_together_with_what_is_not_decided() -> None:
    model, base = pair(decay=lambda w: nn.Parameter(torch.rand(w)))
    del model.readout

    def headless() -> nn.Module:
        narrow = base()
        del narrow.readout
        return narrow

    assert settled(model, headless).tensors["decay"].kind == "keep"


def test_densities_that_leave_neurons_without_inputs_are_said_for_all_of_them_at_once() -> None:
    model, base = Toy(64, depth=3), Toy(32, depth=3)
    with pytest.raises(ValueError, match=r"\(and of 2 more\) without inputs: its fan-in is 64") as raised:
        plan(model, base, density={"*.up.*": 1 / 100, "*.down.*": 1 / 2})
    assert "exclude=['*.up.weight']" in str(raised.value)


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "a model that is a class": ({"model": Toy}, "the model is <class .*>; it must be a torch.nn.Module"),
    "a model without parameters": ({"model": nn.ReLU()}, "the model ReLU has no parameters"),
    "a model without shapes": (
        {"model": nn.Sequential(nn.LazyLinear(3))}, "0.weight of the model has no shape yet; call the model once"
    ),
    "no base": ({"base": None}, "base is NoneType, from which no Toy could be built .*; give a module, a function"),
    "a base that fails": ({"base": lambda: 1 / 0}, r"could be built \(division by zero\)"),
    "a base that is a class": ({"base": Toy}, "base is type, from which no Toy could be built"),
    "a delta that is text": ({"delta": "wider"}, "delta is str, from which no Toy could be built"),
    "a density that is text": ({"density": "half"}, "density is 'half'"),
    "no density": ({"density": None}, "density is None"),
    "a density that is a list": ({"density": [0.5]}, r"density is \[0.5\]"),
    "a density of nan": ({"density": float("nan")}, "density is nan"),
    "a density by number": ({"density": {3: 0.5}}, "density has 3; patterns are text"),
    "an include that is a number": ({"include": 3}, "include is 3; it must be a pattern or a list of patterns"),
    "an include of numbers": ({"include": [3]}, "include has 3; patterns are text"),
    "an exclude that is nothing": ({"exclude": None}, "exclude is None; it must be a pattern or a list of patterns"),
    "kinds by number": ({"kinds": {3: "hidden"}}, "kinds has 3: 'hidden'; it must map patterns to kinds"),
    "a kind that is none": ({"kinds": {"*.up.weight": None}}, "kinds has .*: None; it must map patterns to kinds"),
    "an axis that is text": ({"fan_in_axis": {"*.up.weight": "1"}}, "fan_in_axis has .*: '1'; it must map patterns"),
    "an axis that is true": ({"fan_in_axis": {"*.up.weight": True}}, "fan_in_axis has .*: True; it must map patterns"),
    "a negative axis": ({"fan_in_axis": {"*.up.weight": -1}}, "give an axis from 0 to 1"),
    "a partial that is text": ({"partial": "yes"}, "partial is 'yes'; allowed: True, False"),
    "a depth that is text": ({"depth": "deep"}, "depth is 'deep'"),
    "depth 0": ({"depth": 0}, "depth is 0"),
    "a seed that is text": ({"seed": "a"}, "seed is 'a'"),
    "a negative multiplier": ({"embedding_lr_mult": -1.0}, "embedding_lr_mult is -1.0"),
    "an alpha that is text": ({"alpha_input": "1"}, "alpha_input is '1'"),
    "a scheme that is a list": ({"scheme": ["mup"]}, r"scheme is \['mup'\]"),
    "an optimizer that is a class": ({"optimizer": torch.optim.AdamW}, "optimizer is <class .*; allowed: adam, sgd"),
    "a base density of 2": ({"base_density": 2.0}, "base_density is 2.0"),
    "a decay rule": ({"weight_decay_rule": "both"}, "weight_decay_rule is 'both'; allowed: coupled, independent"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_is_one_clear_line(call: str) -> None:
    given, message = CALLS[call]
    arguments: dict[str, Any] = {"model": Toy(64), "scheme": "supar", "base": Toy(32), **given}
    model, scheme = arguments.pop("model"), arguments.pop("scheme")
    with pytest.raises(ValueError, match=message) as raised:
        hpsweep.parametrize(model, scheme, **arguments)
    assert len(str(raised.value).splitlines()) == 1


def test_a_model_that_cannot_be_built_without_memory_is_built_with_it() -> None:
    def counting(width: int) -> nn.Module:
        assert torch.linspace(0, 1, width).sum().item() > 0  # what the meta device does not allow
        return perceptron(width)

    assert plan(counting(64), lambda: counting(32)) == plan(perceptron(64), perceptron(32))
