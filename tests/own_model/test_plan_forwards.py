"""Layers whose type is known and whose forward is their own: what they sum over, and what they make of their weight."""

from __future__ import annotations

import re
import warnings
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpsweep
from tests.own_model.test_plan_kinds import settled

IDS = torch.arange(1, 25).view(2, 12)


class Net(nn.Module):
    """A residual block of two layers, between widths that grow unlike: w and w * w / 16."""

    def __init__(self, width: int, make: Callable[[int, int], nn.Module], inner: int | None = None) -> None:
        super().__init__()
        inner = inner or width * width // 16
        self.token, self.norm = nn.Embedding(50, width), nn.LayerNorm(width)
        self.up, self.down = make(width, inner), make(inner, width)
        self.readout = nn.Linear(width, 50, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids)
        return self.readout(self.norm(x + self.down(self.up(x).relu())))


def planned(make: Callable[[int, int], nn.Module], scheme: Any = "supar", **options: Any) -> hpsweep.Plan:
    return hpsweep.parametrize(Net(64, make), scheme, base=lambda: Net(16, make), **options)


def linear(forward: Callable[[Any, Tensor], Any]) -> type[nn.Linear]:
    """A subclass with a forward of its own."""
    return type("Own", (nn.Linear,), {"forward": forward})


class Transposed(nn.Linear):
    """Keeps its weight as (in, out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(self.weight.detach().t().contiguous())

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight + self.bias


class Turned(nn.Linear):
    """The same, with sizes that agree with the weight's shape."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs, inputs, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight


class OfTwo(Transposed):
    """The same, with a forward that is not called with one tensor."""

    def forward(self, input: Tensor, more: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input + more)


# --- what a weight sums over ---


@pytest.mark.parametrize("make", [Transposed, Turned])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_subclass_that_keeps_its_weight_turned_sums_over_the_other_dimension(make: Any, device: str) -> None:
    """up is from 64 to 256, of 16 to 16 in the base: m_d 4; down the other way round: m_d 16."""
    with torch.device(device):
        model = Net(64, make)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Net(16, make), density=1 / 8).tensors
    assert [(plan[name].fan_in, plan[name].m_d) for name in ("up.weight", "down.weight")] == [(64, 4), (256, 16)]
    assert not [name for name in plan if plan[name].kind not in ("hidden", "embedding", "readout", "norm", "bias")]


def test_a_turned_weight_whose_forward_cannot_be_tried_is_known_by_the_sizes_that_its_layer_states() -> None:
    with pytest.warns(UserWarning, match=r"up.weight \(and 1 more\) cannot be tried on random numbers \(TypeError"):
        plan = planned(OfTwo).tensors
    assert [plan[name].m_d for name in ("up.weight", "down.weight")] == [4, 16]


def test_a_weight_that_has_neither_of_its_layer_s_sizes_is_asked_for() -> None:
    class Halved(nn.Linear):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(2 * inputs, 2 * outputs)
            self.weight = nn.Parameter(torch.randn(outputs, inputs))

        def forward(self, input: Tensor, more: Tensor) -> Tensor:  # type: ignore[override]
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"up.weight \(256, 64\) in Halved .*sums over an unknown dimension"):
        planned(Halved)
    with pytest.warns(UserWarning, match="cannot be tried"):
        plan = settled(Net(64, Halved), lambda: Net(16, Halved)).tensors
    assert [plan[name].m_d for name in ("up.weight", "down.weight")] == [4, 16]  # by their names


def test_a_turned_readout_is_wired() -> None:
    class Model(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width, nn.Linear)
            self.readout = Transposed(width, 50)

    model = Model(64)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Model(16))
    assert plan.tensors["readout.weight"].m_d == 4
    plan.init_(model, init_std=0.3, seed=0)
    rows = {row.name: row for row in plan.wire_(model, IDS).rows}
    assert rows["readout.weight"].after == pytest.approx(0.25)


# --- what a layer makes of its weight ---


class Standardized(nn.Module):
    """No subclass, and the weight has rows of length 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1), self.bias)


class Equalized(Standardized):
    """No subclass, with the factor of an equalized learning rate."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.factor = inputs**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.factor, self.bias)


class Buffered(nn.Linear):
    """The same factor in a buffer, which a base on the meta device does not show."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("factor", torch.tensor(inputs**-0.5))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.factor, self.bias)


def hooked(register: Callable[[nn.Linear], Any]) -> Callable[[int, int], nn.Linear]:
    """A plain layer with a hook of the user's."""

    def make(inputs: int, outputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, outputs)
        register(layer)
        return layer

    return make


class Called(nn.Linear):
    """Multiplies what a call returns, behind forward."""

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = super().__call__(x)
        return output * self.in_features**-0.5


class Kernel(nn.Module):
    """A matrix by another name, kept as (in, out), the factor, and dropout."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.drop = nn.Parameter(torch.randn(inputs, outputs)), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x @ self.kernel * len(self.kernel) ** -0.5)


FACTOR = r"the layer of up.weight returns 0\.125 times the product of weight and input, and 0\.25 times in the base"
NOT_PROPORTIONAL = r"up.weight \(and 1 more\) returns what is not proportional to its weight"
OTHER = r"up.weight \(and 1 more\) returns another thing than the product"


def added(x: Tensor, y: Tensor) -> Tensor:
    """The input beside a branch, as often as it fits into the output, or the part of it that fits."""
    return y + torch.cat([x] * 16, -1)[..., : y.shape[-1]]


TOLD: dict[str, tuple[Callable[[int, int], nn.Module], str]] = {
    "equalized learning rate": (linear(lambda s, x: F.linear(x, s.weight * s.in_features**-0.5, s.bias)), FACTOR),
    "output by the root of the width": (linear(lambda s, x: F.linear(x, s.weight) * s.in_features**-0.5), FACTOR),
    "equalized, no subclass": (Equalized, FACTOR),
    "factor in a buffer": (Buffered, FACTOR),
    "unit inputs": (
        linear(lambda s, x: F.linear(F.normalize(x, dim=-1), s.weight)),
        r"up.weight returns 0\.12\d* time",
    ),
    "a hook behind": (
        hooked(lambda layer: layer.register_forward_hook(lambda m, i, o: o * m.in_features**-0.5)),
        FACTOR,
    ),
    "a hook before": (
        hooked(lambda layer: layer.register_forward_pre_hook(lambda m, i: (i[0] * m.in_features**-0.5,))),
        FACTOR,
    ),
    "a call of its own": (Called, FACTOR),
    "in training only": (
        linear(lambda s, x: F.linear(x, s.weight * s.in_features**-0.5 if s.training else s.weight)),
        r"the layer of up.weight returns 0\.125 times .* in training, and 0\.25 times in the base",
    ),
    "input added, and the factor": (linear(lambda s, x: added(x, F.linear(x, s.weight) * s.in_features**-0.5)), FACTOR),
    "sine that grows with the width": (linear(lambda s, x: (s.in_features * F.linear(x, s.weight)).sin()), OTHER),
    "sum of the inputs added": (linear(lambda s, x: F.linear(x, s.weight) + x.sum(-1, keepdim=True)), OTHER),
    "unit rows": (linear(lambda s, x: F.linear(x, F.normalize(s.weight, dim=1))), NOT_PROPORTIONAL),
    "unit rows, no subclass": (Standardized, NOT_PROPORTIONAL),
    "signs": (linear(lambda s, x: F.linear(x, s.weight.sign())), NOT_PROPORTIONAL),
    "squares": (linear(lambda s, x: F.linear(x, s.weight**2)), OTHER),
    "positive weights": (linear(lambda s, x: F.linear(x, F.softplus(s.weight))), OTHER),
    "an error": (linear(lambda s, x: x.no_such_method()), r"cannot be tried on random numbers \(AttributeError: "),
    "not finite": (linear(lambda s, x: F.linear(x, s.weight).log()), "it gives numbers that are not finite"),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_layer_that_is_no_product_of_weight_and_input_at_every_width_is_told(case: str) -> None:
    make, told = TOLD[case]
    with pytest.warns(UserWarning, match="y = W x") as caught:
        plan = planned(make)
    assert any(re.search(told, str(each.message)) for each in caught)
    assert plan.warnings == tuple(str(each.message) for each in caught)
    kinds: dict[str, Any] = {}
    for warning in plan.warnings:
        kinds |= literal_eval(warning.rpartition("kinds=")[2].rstrip("."))
    pasted = planned(make, kinds=kinds)  # warnings are errors here
    assert [pasted.tensors[name].kind for name in ("up.weight", "down.weight")] == ["keep", "keep"]
    planned(make, scheme="sp")  # which has no rules


class LowRank(nn.Linear):
    """LoRA as a subclass; `trained`: what is added is not zero."""

    def __init__(self, inputs: int, outputs: int, trained: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.a = nn.Parameter(torch.randn(4, inputs), requires_grad=False)
        self.b = nn.Parameter(torch.full((outputs, 4), float(trained)), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias) + input @ self.a.T @ self.b.T


def ternary(layer: Any, x: Tensor) -> Tensor:
    """As in BitNet: inputs are normed and rounded to 8 bits, weights to -1, 0 and 1 times their mean size."""
    x = F.rms_norm(x, x.shape[-1:])
    scale = 127 / x.abs().amax(-1, keepdim=True)
    size = layer.weight.abs().mean()
    rounded = (layer.weight / size).round().clamp(-1, 1) * size
    return F.linear((x * scale).round() / scale, layer.weight + (rounded - layer.weight).detach(), layer.bias)


def eight_bits(layer: Any, x: Tensor) -> Tensor:
    def rounded(values: Tensor) -> Tensor:
        scale = values.abs().amax() / 448
        return (values / scale).to(torch.float8_e4m3fn).float() * scale

    return F.linear(rounded(x), rounded(layer.weight), layer.bias)


def chosen(logits: Tensor) -> Tensor:
    """Zero but where a logit is the largest, as a router returns them."""
    return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)


class Observed(nn.Linear):
    """Rounds its weight by a scale that follows the weights that it has seen, as training for quantization does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("largest", torch.zeros(1))

    def forward(self, input: Tensor) -> Tensor:
        seen = self.weight.abs().amax()
        self.largest = seen if self.largest == 0 else 0.99 * self.largest + 0.01 * seen
        scale = self.largest / 127
        return F.linear(input, (self.weight / scale).round().clamp(-127, 127) * scale, self.bias)


UNTOLD: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": linear(lambda s, x: F.linear(x, s.weight, s.bias)),
    "in another type of number": linear(lambda s, x: F.linear(x.double(), s.weight.double()).to(x.dtype)),
    "a factor that is the same at every width": linear(lambda s, x: 0.5 * F.linear(x, s.weight, s.bias)),
    "a function of the output": linear(lambda s, x: F.gelu(F.linear(x, s.weight, s.bias))),
    "input added": linear(lambda s, x: added(x, F.linear(x, s.weight, s.bias))),
    "input added to a function of the output": linear(lambda s, x: added(x, F.silu(F.linear(x, s.weight)))),
    "sine, as in SIREN": linear(lambda s, x: (30 * F.linear(x, s.weight, s.bias)).sin()),
    "cosine": linear(lambda s, x: F.linear(x, s.weight).cos()),
    "gates of the input": linear(lambda s, x: added(x, torch.zeros(s.out_features)) * F.linear(x, s.weight).sigmoid()),
    "a hook that looks on": hooked(lambda layer: layer.register_forward_hook(lambda m, i, o: None)),
    "a hook that fails on other inputs": hooked(lambda layer: layer.register_forward_hook(lambda m, i, o: o.no_such())),
    "a hook with one factor": hooked(lambda layer: layer.register_forward_hook(lambda m, i, o: o * 0.5)),
    "dropout in training": linear(lambda s, x: F.dropout(F.linear(x, s.weight), 0.5, s.training)),
    "gated halves": linear(lambda s, x: F.glu(F.linear(x, s.weight, s.bias))),
    "several outputs": linear(lambda s, x: (x, F.linear(x, s.weight, s.bias))),
    "chosen experts, and the logits": linear(lambda s, x: (chosen(F.linear(x, s.weight)), F.linear(x, s.weight))),
    "dropped weights": linear(lambda s, x: F.linear(x, F.dropout(s.weight, 0.5, s.training), s.bias)),
    "noise": linear(lambda s, x: F.linear(x, s.weight) + 0.1 * torch.randn(())),
    "LoRA": LowRank,
    "LoRA, trained": lambda i, o: LowRank(i, o, trained=True),
    "BitNet": linear(ternary),
    "fp8": linear(eight_bits),
    "turned": Transposed,
    "scale of the largest weight so far": Observed,
}


@pytest.mark.parametrize("case", UNTOLD)
def test_layers_that_the_rules_hold_for_pass_without_a_word(case: str) -> None:
    make = UNTOLD[case]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model = Net(64, make, 128)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    torch.set_rng_state(state)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Net(16, make, 32))
    assert plan.warnings == ()
    assert (plan.tensors["up.weight"].kind, plan.tensors["up.weight"].m_d) == ("hidden", 4)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_layers_are_tried_where_other_devices_and_types_of_number_are_the_default() -> None:
    make = linear(lambda s, x: F.linear(x, s.weight, s.bias) * torch.ones(()))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert planned(make).warnings == ()
    finally:
        torch.set_default_dtype(torch.float32)


class Causal(nn.Conv1d):
    """Pads on one side, as streaming models do."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (2, 0)))


class ByTime(nn.Conv1d):
    """Is given (batch, time, channel)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.mT).mT


class Upward(nn.ConvTranspose1d):
    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return super().forward(input, output_size)


class OfUnitVariance(nn.Conv1d):
    """Standardizes its weight, as in BiT."""

    def forward(self, input: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2), keepdim=True), self.weight.std((1, 2), keepdim=True)
        return F.conv1d(input, (self.weight - mean) / std, self.bias)


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Causal, ""), (ByTime, ""), (Upward, ""), (OfUnitVariance, "returns what is not proportional to its weight")],
)
def test_convolutions_with_a_forward_of_their_own_are_looked_at_too(kind: Any, told: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = planned(lambda i, o: kind(i, o, 3))
    assert plan.tensors["up.weight"].m_d == 4
    assert len(caught) == bool(told)
    assert told in "".join(plan.warnings)


class TurnedConvolution(nn.Conv1d):
    """Keeps its weight as (in, out, kernel)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)
        self.weight = nn.Parameter(self.weight.detach().transpose(0, 1).contiguous())

    def forward(self, input: Tensor) -> Tensor:
        return F.conv1d(input, self.weight.transpose(0, 1), self.bias)


def test_a_convolution_that_keeps_its_weight_turned_sums_over_its_first_dimension() -> None:
    """up is from 64 to 256 with a kernel of 3, of 16 to 48 in the base."""
    make = lambda i, o: TurnedConvolution(i, o, 3)  # noqa: E731
    plan = hpsweep.parametrize(Net(64, make, 256), "supar", base=lambda: Net(16, make, 48)).tensors
    assert [(plan[name].fan_in, plan[name].m_d) for name in ("up.weight", "down.weight")] == [
        (64 * 3, 4),
        (256 * 3, 256 / 48),
    ]


class EqualLR:
    """A hook that computes a layer's weight from another tensor at every call, as in code for StyleGAN."""

    def __call__(self, module: Any, given: Any) -> None:
        module.weight = module.weight_orig * module.in_features**-0.5

    @staticmethod
    def applied(inputs: int, outputs: int, called: bool = False) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, bias=False)
        weight = layer.weight
        del layer.weight
        layer.register_parameter("weight_orig", nn.Parameter(weight.detach()))
        layer.register_forward_pre_hook(EqualLR())
        if called:
            layer(torch.randn(2, inputs))
        return layer


@pytest.mark.parametrize("called", [False, True])
def test_a_weight_that_a_hook_of_the_user_s_computes_is_told(called: bool) -> None:
    make = lambda i, o: EqualLR.applied(i, o, called)  # noqa: E731
    told = r"of up.weight_orig \(and 1 more\) returns 0\.125 times .* 0\.25 times in the base"
    with pytest.warns(UserWarning, match=told):
        plan = hpsweep.parametrize(Net(64, make, 64), "supar", base=lambda: Net(16, make, 16))
    assert plan.tensors["up.weight_orig"].m_d == 4


def test_a_module_of_one_matrix_by_any_name_is_tried_with_what_has_no_parameters_in_it() -> None:
    models = Net(64, Kernel), lambda: Net(16, Kernel)
    with pytest.warns(UserWarning, match="returns") as caught:
        plan = settled(*models)
    assert re.search(FACTOR.replace("weight", "kernel", 1), str(caught[0].message))
    assert "down.kernel returns 0.0625 times" in str(caught[1].message)
    assert plan.tensors["up.kernel"].m_d == 4


def test_a_wired_model_is_planned_again_without_a_word_of_its_factors() -> None:
    class Multiplied:
        """As wire_ puts it on a layer."""

        hpsweep_factor = 0.25

        def __call__(self, module: Any, given: Any, output: Tensor) -> Tensor:
            return output * self.hpsweep_factor

    model = Net(64, nn.Linear)
    model.up.register_forward_hook(Multiplied())
    assert hpsweep.parametrize(model, "supar", base=lambda: Net(16, nn.Linear)).warnings == ()


def test_hooks_are_called_with_copies_and_never_copied() -> None:
    class Whole(Net):
        """Every layer has a method of the model for its hook."""

        def __init__(self, width: int) -> None:
            super().__init__(width, nn.Linear)
            self.seen: list[nn.Module] = []
            self.up.register_forward_hook(self.look)

        def look(self, module: nn.Module, given: Any, output: Tensor) -> None:
            self.seen.append(module)

        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("the model was copied")

    model = Whole(64)
    assert hpsweep.parametrize(model, "supar", base=lambda: Whole(16)).warnings == ()
    assert model.seen
    assert model.up not in model.seen
