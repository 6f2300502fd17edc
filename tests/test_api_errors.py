"""Bad types, a wrong order of calls, models of other shapes: one ValueError with the remedy, never a bare TypeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.spec import Trial

IDS = torch.arange(16).view(2, 8)


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.tok, self.a, self.head = nn.Embedding(32, width), nn.Linear(width, width), nn.Linear(width, 32)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.head(torch.relu(self.a(self.tok(ids))))
        return result


def planned() -> tuple[Net, hpsweep.Plan]:
    model = Net(64)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Net(32), density=1 / 4)
    plan.init_(model, init_std=0.1, seed=0)
    return model, plan


Call = Callable[[Any, Any], Any]

PLANS: dict[str, tuple[Call, str]] = {
    "wire_: no model": (lambda m, p: p.wire_(None, IDS), "the model is of type NoneType; give the torch.nn.Module"),
    "wire_: a name": (lambda m, p: p.wire_("m", IDS), "the model is of type str"),
    "wire_: another width": (
        lambda m, p: p.wire_(Net(32), IDS),
        r"tok.weight has shape \(32, 32\), in the plan \(32, 64\)",
    ),
    "wire_: another model": (
        lambda m, p: p.wire_(nn.Linear(3, 3), IDS),
        "has no tensor tok.weight, which the plan has",
    ),
    "wire_: no inputs": (lambda m, p: p.wire_(m, None), "inputs are NoneType; give what the model is called with"),
    "wire_: text": (lambda m, p: p.wire_(m, "ids"), "inputs are str; give what the model is called with"),
    "wire_: floats": (
        lambda m, p: p.wire_(m, IDS.float()),
        "could not be called with these inputs .*RuntimeError: Expected",
    ),
    "wire_: too many": (
        lambda m, p: p.wire_(m, (IDS, IDS)),
        "could not be called with these inputs .*TypeError: .*takes 2",
    ),
    "wire_: too few": (lambda m, p: p.wire_(m, ()), "could not be called with these inputs .*missing 1 required"),
    "wire_: another keyword": (
        lambda m, p: p.wire_(m, {"x": IDS}),
        "could not be called .*unexpected keyword argument 'x'",
    ),
    "wire_: a number as keyword": (lambda m, p: p.wire_(m, {1: IDS}), "could not be called .*keywords must be strings"),
    "wire_: ids too large": (lambda m, p: p.wire_(m, IDS + 99), "could not be called .*IndexError: index out of range"),
    "queries: a number": (lambda m, p: p.wire_(m, IDS, queries=3), "queries has 3; give a pattern of names"),
    "queries: None": (lambda m, p: p.wire_(m, IDS, queries=None), "queries has None; give a pattern of names"),
    "queries: numbers": (lambda m, p: p.wire_(m, IDS, queries={3: slice(1)}), "queries has 3; give a pattern of names"),
    "leave: a number": (lambda m, p: p.wire_(m, IDS, leave=3), "leave has 3; give a pattern of names"),
    "leave: numbers": (lambda m, p: p.wire_(m, IDS, leave=["head.weight", 3]), "leave has 3; give a pattern of names"),
    "attach: no model": (
        lambda m, p: p.attach(None, sgd(m)),
        "the model is of type NoneType; give the torch.nn.Module",
    ),
    "attach: swapped": (lambda m, p: p.attach(sgd(m), m), "the model is of type SGD; give the torch.nn.Module"),
    "attach: parameters": (
        lambda m, p: p.attach(m, m.parameters()),
        "the optimizer is of type generator; give a torch",
    ),
    "attach: before wire_": (
        lambda m, p: p.attach(m, torch.optim.AdamW(p.param_groups(m, lr=0.1))),
        r"not verified: call plan.wire_\(model, ",
    ),
    "attach: parameters of another": (
        lambda m, p: (p.wire_(m, IDS), p.attach(m, torch.optim.AdamW(Net(64).parameters()))),
        "does not hold tok.weight; make it from plan.param_groups",
    ),
    "param_groups: no model": (lambda m, p: p.param_groups(None, lr=0.1), "the model is of type NoneType"),
    "param_groups: another width": (lambda m, p: p.param_groups(Net(32), lr=0.1), "tok.weight has shape"),
    "param_groups: lr as text": (lambda m, p: p.param_groups(m, lr="a"), "lr is 'a'"),
    "param_groups: no lr": (lambda m, p: p.param_groups(m, lr=None), "lr is None"),
    "param_groups: several": (lambda m, p: p.param_groups(m, lr=[0.1]), r"lr is \[0.1\]"),
    "param_groups: NaN": (lambda m, p: p.param_groups(m, lr=float("nan")), "lr is nan"),
    "param_groups: no decay": (lambda m, p: p.param_groups(m, lr=0.1, weight_decay=None), "weight_decay is None"),
    "param_groups: decay below 0": (lambda m, p: p.param_groups(m, lr=0.1, weight_decay=-1), "weight_decay is -1"),
    "param_groups: eps as text": (lambda m, p: p.param_groups(m, lr=0.1, eps="a"), "eps is 'a'"),
    "masks: another model": (lambda m, p: p.masks(Net(32)), "tok.weight has shape"),
}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters())


@pytest.mark.parametrize("case", PLANS)
def test_wrong_calls_of_a_plan_are_one_clear_error(case: str) -> None:
    call, told = PLANS[case]
    model, plan = planned()
    with pytest.raises(ValueError, match=told):
        call(model, plan)


def build(width: int, density: float, seed: int) -> Any:
    raise AssertionError("work began")


TRIAL = Trial(steps=1, scheme="supar", lr=0.1, init_std=0.1, base_width=64, head_size=16)

CHECKS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "widths: one number": (build, {"widths": 64}, "widths is 64; give a list of values"),
    "widths: None": (build, {"widths": None}, "widths is None; give a list of values"),
    "widths: text": (build, {"widths": "64,128"}, "widths is '64,128'; give a list of values"),
    "widths: texts": (build, {"widths": ["64", "128"]}, r"widths is \['64', '128'\]; give one or more whole numbers"),
    "widths: nested": (build, {"widths": [[64], [128]]}, r"widths is \[\[64\], \[128\]\]; give one or more whole"),
    "densities: one number": (build, {"densities": 0.5}, "densities is 0.5; give a list of values"),
    "densities: texts": (build, {"densities": ["a"]}, r"densities is \['a'\]; give one or more numbers in \(0, 1\]"),
    "seeds: one number": (build, {"seeds": 3}, "seeds is 3; give a list of values"),
    "steps: text": (build, {"steps": "4"}, "steps is '4'; give a whole number"),
    "exclude: a number": (build, {"exclude": 3}, "exclude is 3; give a list of values"),
    "exclude: numbers": (build, {"exclude": [3]}, "exclude has 3; give patterns of names of modules"),
    "progress: a number": (build, {"progress": 3}, "progress is 3; give a function of"),
    "what: a model": (Net(64), {}, "cannot check a Net; give a Trial, or a function that builds a model"),
    "what: None": (None, {}, "cannot check a NoneType; give a Trial"),
    "what: of width alone": (lambda width: None, {}, r"cannot be called with \(width, density, seed\) \(too many pos"),
    "an optimizer's class": (lambda *_: (Net(64), torch.optim.AdamW, list), {}, "returned the class AdamW; return an"),
    "a loss of a batch": (
        lambda *_: (Net(64), sgd(Net(64)), lambda x: x),
        {},
        r"loss\(\) cannot be called without arg",
    ),
    "heads: text": (TRIAL, {"heads": "2"}, "heads is '2'; give a whole number"),
    "heads: half": (TRIAL, {"heads": 2.5}, "heads is 2.5; give a whole number"),
    "device: unknown": (TRIAL, {"device": "gpu"}, "device is 'gpu'; allowed: cpu, cuda"),
    "device: a number": (TRIAL, {"device": 0}, "device is 0; allowed: cpu, cuda"),
    "device: none there": (TRIAL, {"device": "cuda:1"}, "device is cuda:1, but there is no GPU that torch can use"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_wrong_calls_of_the_coordinate_check_are_one_clear_error(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    what, options, told = CHECKS[case]
    with pytest.raises(ValueError, match=told):
        hpsweep.coords.check(what, **{"widths": [64, 128], **options})
