"""Which optimizers a plan holds for: by their classes, their settings, and what they really do at every width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.own_model.apply.optimizers import NO_RULE, RULE_OF

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
IDS = torch.randint(32, (2, 6), generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self, width: int, *, sparse: bool = False) -> None:
        super().__init__()
        self.tok = nn.Embedding(32, width, sparse=sparse)
        self.a, self.b, self.head = nn.Linear(width, width), nn.Linear(width, width, bias=False), nn.Linear(width, 32)

    def forward(self, ids: Tensor) -> Tensor:
        self.inner = torch.relu(self.a(self.tok(ids)))
        result: Tensor = self.head(self.b(self.inner))
        return result


def planned(
    width: int = 64, *, scheme: Any = "supar", density: float = 1.0, **options: Any
) -> tuple[Net, hpsweep.Plan]:
    model = Net(width, sparse=options.pop("sparse", False))
    plan = hpsweep.parametrize(model, scheme, base=lambda: Net(64), delta=lambda: Net(32), density=density, **options)
    plan.init_(model, init_std=0.1, seed=0)
    plan.wire_(model, IDS)
    return model, plan


def loss(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(IDS).flatten(0, 1), IDS.roll(1).flatten())


def octaves(
    make: Make, rule: Any = "adam", *, density: float = 1.0, attached: bool = True, lr: float = 2**-12
) -> float:
    """Slope of the change of a hidden layer's output by its own weights, after 8 steps, from width 64 to 512."""
    sizes = []
    for width in (64, 512):
        model, plan = planned(width, density=density, optimizer=rule)
        optimizer = make(plan.param_groups(model, lr=lr))
        if attached:
            plan.attach(model, optimizer)
        loss(model)
        inner, before = model.inner.detach(), model.b.weight.detach().clone()
        for _ in range(8):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
        sizes.append(float((inner @ (model.b.weight.detach() - before).T).square().mean().sqrt()))
    return math.log2(sizes[1] / sizes[0]) / 3


GOOD: dict[str, tuple[Any, Make]] = {
    "Adam": ("adam", torch.optim.Adam),
    "AdamW": ("adam", torch.optim.AdamW),
    "amsgrad": ("adam", lambda groups: torch.optim.AdamW(groups, amsgrad=True)),
    "NAdam": ("adam", torch.optim.NAdam),
    "RAdam": ("adam", torch.optim.RAdam),
    "Adamax": ("adam", torch.optim.Adamax),
    "RMSprop": ("adam", torch.optim.RMSprop),
    "centered RMSprop": ("adam", lambda groups: torch.optim.RMSprop(groups, centered=True, momentum=0.9)),
    "Adagrad": ("adam", torch.optim.Adagrad),
    "SGD": ("sgd", lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True)),
    "ASGD": ("sgd", lambda groups: torch.optim.ASGD(groups, lambd=0)),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("density", [1, 1 / 8])
def test_an_accepted_optimizer_changes_outputs_as_much_at_every_width(name: str, density: float) -> None:
    rule, make = GOOD[name]
    assert abs(octaves(make, rule, density=density)) < 0.15


BAD: dict[str, tuple[Make, float]] = {
    "Adafactor": (lambda groups: torch.optim.Adafactor(groups, weight_decay=0), -0.5),
    "Adadelta": (torch.optim.Adadelta, -0.9),
    "Adagrad": (lambda groups: torch.optim.Adagrad(groups, initial_accumulator_value=0.1), -1.0),
}


@pytest.mark.parametrize("name", BAD)
def test_a_refused_optimizer_would_change_them_less_and_less(name: str) -> None:
    make, slope = BAD[name]
    assert octaves(make, attached=False) == pytest.approx(slope, abs=0.2)
    with pytest.raises(
        ValueError, match=f"hpsweep has no rule for {name}|{name} begins with a sum of squared gradients"
    ):
        octaves(make)


def test_every_optimizer_of_torch_is_in_one_of_the_tables() -> None:
    names = {name.lower() for name, value in vars(torch.optim).items() if isinstance(value, type)} - {"optimizer"}
    assert names <= RULE_OF.keys() | NO_RULE.keys()
    assert not RULE_OF.keys() & NO_RULE.keys()


REFUSED: dict[str, tuple[Make, str]] = {
    "Muon": (
        lambda groups: torch.optim.Muon([p for g in groups for p in g["params"] if p.dim() == 2]),
        "hpsweep has no rule for Muon: it makes the update of a whole matrix orthogonal.*Train all tensors with AdamW",
    ),
    "Rprop": (torch.optim.Rprop, "hpsweep has no rule for Rprop: lr is only where its steps begin"),
    "LBFGS": (
        lambda groups: torch.optim.LBFGS([p for g in groups for p in g["params"]]),
        "no rule for LBFGS: it takes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_optimizer_without_a_rule_is_refused_with_the_reason_and_the_remedy_helps(name: str) -> None:
    make, message = REFUSED[name]
    model, plan = planned()
    with pytest.raises(ValueError, match=message):
        plan.attach(model, make(plan.param_groups(model, lr=0.01)))
    plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "SGD", "ASGD"])
def test_an_optimizer_of_the_other_rules_is_refused(name: str) -> None:
    right, wrong = ("sgd", "adam") if "SGD" in name else ("adam", "sgd")
    model, plan = planned(optimizer=wrong)
    with pytest.raises(
        ValueError, match=rf"is for {wrong}, and {name} is not.*parametrize\(\.\.\., optimizer='{right}'\)"
    ):
        plan.attach(model, getattr(torch.optim, name)(plan.param_groups(model, lr=0.01)))


def test_under_sp_whose_multipliers_are_all_1_any_optimizer_may_train() -> None:
    model, plan = planned(scheme="sp")
    plan.attach(model, torch.optim.Adafactor(plan.param_groups(model, lr=0.01)))


# --- settings that break a rule ---

DECAYED: dict[str, str] = {
    "Adam": "Give decoupled_weight_decay=True, or train",
    "NAdam": "Give decoupled_weight_decay=True, or train",
    "RAdam": "Give decoupled_weight_decay=True, or train",
    "Adamax": "Give weight_decay=0, or train with AdamW",
    "RMSprop": "Give weight_decay=0, or train with AdamW",
    "Adagrad": "Give weight_decay=0, or train with AdamW",
}


@pytest.mark.parametrize("name", DECAYED)
def test_decay_that_is_added_to_a_gradient_is_refused_and_what_is_said_instead_is_not(name: str) -> None:
    model, plan = planned()
    make = getattr(torch.optim, name)
    with pytest.raises(ValueError, match=rf"{name} adds its weight decay 0.1 to the gradient.*{DECAYED[name]}"):
        plan.attach(model, make(plan.param_groups(model, lr=0.01, weight_decay=0.1)))
    if "decoupled" in DECAYED[name]:
        plan.attach(model, make(plan.param_groups(model, lr=0.01, weight_decay=0.1), decoupled_weight_decay=True))
    plan.attach(model, make(plan.param_groups(model, lr=0.01, weight_decay=0)))


def test_averaging_that_lets_ratios_drift_is_refused() -> None:
    model, plan = planned(optimizer="sgd")
    with pytest.raises(ValueError, match=r"ASGD lets its rate fall by .*, with lambd 0.0001 faster.*Give lambd=0"):
        plan.attach(model, torch.optim.ASGD(plan.param_groups(model, lr=0.01)))


def test_decay_that_a_loaded_state_brings_is_noticed_at_the_next_step() -> None:
    model, plan = planned()
    decayed = torch.optim.Adam(plan.param_groups(model, lr=0.01, weight_decay=0.1))
    optimizer = torch.optim.Adam(plan.param_groups(model, lr=0.01))
    plan.attach(model, optimizer)
    optimizer.load_state_dict(decayed.state_dict())
    loss(model).backward()
    with pytest.raises(ValueError, match=r"Adam adds its weight decay 0\.1 to the gradient"):
        optimizer.step()


# --- classes of other packages ---


class Plain(torch.optim.Optimizer):
    """Steps of the sign of the gradient."""

    def __init__(self, groups: Any, **_: Any) -> None:
        super().__init__(groups, {"lr": 0.1, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.grad.sign())


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Lion", "adam"), ("PagedAdamW8bit", "adam"), ("AdamW4bit", "adam"), ("FusedAdam", "adam"),
        ("DeepSpeedCPUAdam", "adam"), ("AdamWScheduleFree", "adam"), ("RMSprop8bit", "adam"), ("SGD8bit", "sgd"),
        ("SGDScheduleFree", "sgd"), ("FusedSGD", "sgd"), ("Prodigy", None), ("FusedLamb", None), ("LARS", None),
        ("SOAP", None), ("Adafactor", None),
    ],
)  # fmt: skip
def test_optimizers_of_other_packages_are_known_by_name(name: str, rule: str | None) -> None:
    made = type(name, (Plain,), {})
    for given in ("adam", "sgd"):
        model, plan = planned(optimizer=given)
        optimizer = made(plan.param_groups(model, lr=0.01))
        if given == rule:
            plan.attach(model, optimizer)
            continue
        with pytest.raises(
            ValueError, match=rf"no rule for {name}" if rule is None else rf"for {given}, and {name} is"
        ):
            plan.attach(model, optimizer)


def test_a_class_that_nobody_knows_is_taken_at_the_users_word() -> None:
    model, plan = planned()
    optimizer = Plain(plan.param_groups(model, lr=0.01))
    with pytest.raises(ValueError, match=r"does not know which rules Plain follows.*attach\(..., rule='adam'\)"):
        plan.attach(model, optimizer)
    with pytest.raises(ValueError, match="the plan is for adam, and Plain is not"):
        plan.attach(model, optimizer, rule="sgd")
    with pytest.raises(ValueError, match="rule is 'lion'; give 'adam', 'sgd', or nothing"):
        plan.attach(model, optimizer, rule="lion")  # type: ignore[arg-type]
    plan.attach(model, optimizer, rule="adam")


def test_a_subclass_is_what_its_base_is() -> None:
    class Mine(torch.optim.AdamW):
        pass

    class Other(torch.optim.Adafactor):
        pass

    model, plan = planned()
    plan.attach(model, Mine(plan.param_groups(model, lr=0.01, weight_decay=0.1)))
    with pytest.raises(ValueError, match="no rule for Other: it multiplies the rate by the size of the weights"):
        plan.attach(model, Other(plan.param_groups(model, lr=0.01)))


# --- wrappers, and several optimizers ---


class Wrapper:
    """As Lightning's or accelerate's: an optimizer as an attribute, and none of its hooks."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def step(self) -> None:
        self.optimizer.step()


def assert_held(model: nn.Module, plan: hpsweep.Plan, step: Callable[[], Any]) -> None:
    """Whether pruned weights that become nonzero in a step are zeroed after it."""
    name, kept = next(iter(plan.masks(model).items()))
    loss(model).backward()
    step()
    assert ((model.get_parameter(name) != 0) == kept).all()
    with torch.no_grad():
        model.get_parameter(name).masked_fill_(~kept, 1.0)
    with pytest.raises(ValueError, match=f"{name} has .* nonzero weights outside of its mask"):
        step()


def test_an_optimizer_inside_of_wrappers_is_found() -> None:
    model, plan = planned(density=1 / 4)
    wrapped = Wrapper(Wrapper(torch.optim.AdamW(plan.param_groups(model, lr=0.01))))
    plan.attach(model, wrapped)  # type: ignore[arg-type]
    assert_held(model, plan, wrapped.step)


def test_an_optimizer_that_accelerate_has_wrapped_is_found() -> None:
    accelerate = pytest.importorskip("accelerate")
    model, plan = planned(density=1 / 4)
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    model, optimizer = accelerate.Accelerator(cpu=True).prepare(model, optimizer)
    plan.attach(model, optimizer)
    assert_held(model, plan, optimizer.step)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_zero_redundancy_is_what_the_optimizer_in_it_is(tmp_path: Any) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        model, plan = planned(density=1 / 4)
        groups = plan.param_groups(model, lr=0.01, weight_decay=0.1)
        optimizer = ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW)
        plan.attach(model, optimizer)
        assert_held(model, plan, optimizer.step)
        with pytest.raises(ValueError, match="no rule for"):
            plan.attach(model, ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.Adafactor))
    finally:
        distributed.destroy_process_group()


def in_two(model: nn.Module, plan: hpsweep.Plan, second: Make, lr: float = 0.02) -> list[torch.optim.Optimizer]:
    """AdamW for hidden matrices, another for the rest, of its own base rate."""

    def chosen(groups: list[dict[str, Any]], hidden: bool) -> list[dict[str, Any]]:
        picked = []
        for group in groups:
            names = [n for n in group["names"] if (plan.tensors[n].kind == "hidden") == hidden]
            params = [p for n, p in zip(group["names"], group["params"], strict=True) if n in names]
            if params:
                picked.append({**group, "names": names, "params": params})
        return picked

    first = torch.optim.AdamW(chosen(plan.param_groups(model, lr=0.01), True))
    return [first, second(chosen(plan.param_groups(model, lr=lr), False))]


def test_several_optimizers_hold_a_model_together_each_with_its_own_base_rate() -> None:
    model, plan = planned(density=1 / 4)
    both = in_two(model, plan, torch.optim.Adagrad)
    for one in both:
        with pytest.raises(ValueError, match=r"does not hold .* several optimizers train the model, .* as a list"):
            plan.attach(model, one)
    with pytest.raises(ValueError, match=r"AdamW and AdamW both hold a\.weight; give every tensor to one"):
        plan.attach(model, [both[0], torch.optim.AdamW(plan.param_groups(model, lr=0.01))])
    attached = plan.attach(model, both)
    assert_held(model, plan, lambda: [one.step() for one in both])
    attached.remove()
    loss(model).backward()
    both[0].step()  # and nobody says anything


def test_ratios_are_checked_within_each_of_several_optimizers() -> None:
    model, plan = planned(256)
    both = in_two(model, plan, torch.optim.AdamW)
    plan.attach(model, both)
    both[1].param_groups[0]["lr"] = 1.0
    assert len(both[1].param_groups) > 1
    loss(model).backward()
    both[0].step()
    with pytest.raises(ValueError, match=r"learning rates .* something has re-written the groups"):
        both[1].step()


def test_sparse_gradients_of_an_embedding_go_to_an_optimizer_of_their_own() -> None:
    model, plan = planned(density=1 / 4, sparse=True)
    tok, *rest = plan.param_groups(model, lr=0.01)
    tok["params"].remove(model.tok.weight)
    both = [torch.optim.SparseAdam([model.tok.weight], lr=0.01), torch.optim.AdamW([tok, *rest])]
    plan.attach(model, both)
    loss(model).backward()
    for one in both:
        one.step()


def test_muon_beside_adamw_is_refused_for_what_it_is() -> None:
    model, plan = planned(density=1 / 4)
    muon, adam = in_two(model, plan, torch.optim.AdamW)
    muon = torch.optim.Muon([model.a.weight, model.b.weight], lr=0.01)
    with pytest.raises(ValueError, match="hpsweep has no rule for Muon"):
        plan.attach(model, [muon, adam])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "the optimizer is of type NoneType; give a torch.optim.Optimizer"),
        (torch.optim.AdamW, "the optimizer is the class AdamW; give a torch.optim.Optimizer"),
        ("AdamW", "the optimizer is of type str"),
        ([], "the list of optimizers is empty"),
        ([None], "the optimizer is of type NoneType"),
        ({}, "the optimizer is of type dict"),
    ],
)
def test_what_is_no_optimizer_is_refused(given: Any, told: str) -> None:
    model, plan = planned()
    with pytest.raises(ValueError, match=told):
        plan.attach(model, given)
