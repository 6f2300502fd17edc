"""The coordinate check: slopes and verdicts worked out by hand, what is measured, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.analysis.coords import culprit, student_t_quantile, verdict_sentence
from hpsweep.coords.attention import Attention
from hpsweep.observer import Call
from hpsweep.proxy import model
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets
from hpsweep.spec import Trial
from tests.own_model.test_plan_proxy import parametrized

Slopes = dict[str, tuple[float, float, float]]


def made(slopes: Slopes, *, along: str = "density", noise: float = 0.01, features: Any = None) -> pd.DataFrame:
    """Sizes with the given slopes of size, own and change per module, of 4 seeds and 4 values, and a little noise."""
    values = [1.0, 1 / 4, 1 / 16, 1 / 64] if along == "density" else [64, 128, 256, 512]
    random = np.random.default_rng(0)
    rows = []
    for place, (module, (size, own, change)) in enumerate(slopes.items()):
        for value in values:
            for seed in range(4):
                x = -math.log2(value) if along == "density" else math.log2(value / 64)
                factors = [2 ** (slope * x + random.normal(0, noise)) for slope in (size, own, change)]
                where = {"width": 512, "density": 1.0, along: value}
                known = {"module": module, "place": place, "features": features or where["width"], "seed": seed}
                rows.append(known | where | {"step": 0, "size": factors[0], "change": math.nan, "own": math.nan})
                rows.append(known | where | {"step": 4, "size": 9.0, "own": factors[1], "change": factors[2]})
    return pd.DataFrame(rows)


def found(sizes: pd.DataFrame) -> pd.DataFrame:
    return hpsweep.coords.slopes(sizes).set_index(["module", "quantity"])


# --- slopes and verdicts ---


def test_slopes_that_were_put_in_are_found_with_their_verdicts() -> None:
    table = found(made({"a": (0.0, 0.5, -1.0), "b": (0.05, -0.5, 0.17)}))
    expected = {
        ("a", "size"): (0.0, "ok"), ("a", "own"): (0.5, "grows"), ("a", "change"): (-1.0, "shrinks"),
        ("b", "size"): (0.05, "ok"), ("b", "own"): (-0.5, "shrinks"), ("b", "change"): (0.17, "undetermined"),
    }  # fmt: skip
    for key, (slope, verdict) in expected.items():
        row = table.loc[key]
        assert row["slope"] == pytest.approx(slope, abs=0.01)
        assert row["low"] < row["slope"] < row["high"]
        assert row["verdict"] == verdict
        assert (row["along"], row["n"], row["seeds"]) == ("density", 4, 4)


def test_a_slope_and_its_interval_are_those_worked_out_by_hand() -> None:
    # Seed 0 goes from 1 to 2 over the two halvings to 1/4, seed 1 from 1 to 4: slopes 1/2 and 1, mean 3/4, standard
    # error 1/4; Student's 97.5 % quantile with one degree of freedom is 12.706.
    rows = [
        {"module": "a", "place": 0, "features": 8, "width": 8, "density": density, "seed": seed, "step": 0,
         "size": size, "change": math.nan, "own": math.nan}
        for density, seed, size in [(1.0, 0, 1.0), (1 / 4, 0, 2.0), (1.0, 1, 1.0), (1 / 4, 1, 4.0)]
    ]  # fmt: skip
    row = found(pd.DataFrame(rows)).loc[("a", "size")]
    assert row["slope"] == pytest.approx(0.75)
    assert (row["low"], row["high"]) == (pytest.approx(0.75 - 12.706 / 4), pytest.approx(0.75 + 12.706 / 4))
    assert row["verdict"] == "undetermined"
    assert "wide: take more seeds" in row["why"]


@pytest.mark.parametrize("degrees", [1, 3, 10, 11, 30, 1000])
def test_students_quantile_is_that_of_scipy(degrees: int) -> None:
    assert student_t_quantile(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), abs=1e-3)


def test_along_width_logits_may_shrink_by_half_a_power_and_hidden_activations_may_not() -> None:
    slopes = {"logits": (-0.5, 0.0, -0.3)}
    assert set(found(made(slopes, along="width", features=256))["verdict"]) == {"ok"}
    assert found(made(slopes, along="width")).loc[("logits", "size"), "verdict"] == "shrinks"
    assert found(made({"logits": (0.5, 0.0, 0.0)}, along="width", features=256))["verdict"].iloc[0] == "grows"
    assert found(made(slopes, features=256)).loc[("logits", "size"), "verdict"] == "shrinks"  # not along density


def test_attention_logits_of_growing_heads_must_shrink_by_half_a_power_before_training() -> None:
    right, wrong = {"b.attention_logits": (-0.5, 0, -0.2)}, {"b.attention_logits": (0.0, 0, 0.0)}
    assert set(found(made(right, along="width"))["verdict"]) == {"ok"}
    table = found(made(wrong, along="width"))
    assert table["verdict"].to_dict() == {
        ("b.attention_logits", "size"): "grows", ("b.attention_logits", "own"): "ok",
        ("b.attention_logits", "change"): "ok",
    }  # fmt: skip
    assert set(found(made(wrong, along="width", features=16))["verdict"]) == {"ok"}  # more heads of one size
    assert found(made(right, along="width", features=16))["verdict"].iloc[0] == "shrinks"


def test_one_seed_zeros_and_what_is_not_finite_have_no_verdict_but_a_reason() -> None:
    sizes = made({"a": (0.0, 0.0, 0.0)})
    assert set(found(sizes[sizes["seed"] == 0])["why"]) == {"one seed has no interval: take two or more"}
    still = found(sizes.assign(change=0.0)).loc[("a", "change")]
    assert (still["verdict"], math.isnan(still["slope"])) == ("zero", True)
    lost = sizes.assign(change=sizes["change"].where(sizes["density"] > 1 / 64, math.inf))
    row = found(lost).loc[("a", "change")]
    assert row["verdict"] == "undetermined"
    assert "not finite at density 0.015625" in row["why"]


def test_weights_that_do_not_learn_are_named_and_modules_without_weights_are_not() -> None:
    sizes = made({"rotary": (0, 0, 0), "frozen": (0, 0, 0)})
    sizes.loc[sizes["module"] == "rotary", ["own", "change"]] = [math.nan, 0.0]
    sizes.loc[sizes["module"] == "frozen", ["own"]] = 0.0
    verdicts = hpsweep.coords.verdicts(hpsweep.coords.slopes(sizes))
    assert dict(zip(verdicts["module"], verdicts["verdict"], strict=True)) == {"rotary": "ok", "frozen": "zero"}
    assert "not settled: frozen" in verdict_sentence(verdicts)


@pytest.mark.parametrize(
    ("slopes", "name", "quantity"),
    [
        ({"a": (0, 0, 0.5), "b": (0, 0.5, 0), "c": (-0.5, 0, 0), "d": (-0.5, 0, 0)}, "c", "size"),
        ({"a": (0, 0, 0.5), "b": (0, 0.5, 0), "c": (0, -1, -1)}, "b", "own"),
        ({"a": (0, 0, 0), "b": (0, 0, 0.5), "c": (0, 0, 0.5)}, "b", "change"),
    ],
)
def test_the_culprit_is_the_first_whose_size_is_wrong_else_own_change_else_change(
    slopes: Slopes, name: str, quantity: str
) -> None:
    verdicts = hpsweep.coords.verdicts(hpsweep.coords.slopes(made(slopes)))
    row = culprit(verdicts)
    assert row is not None
    assert (row["module"], row["quantity"]) == (name, quantity)
    assert verdict_sentence(verdicts).startswith(f"{name} {row['verdict']} along density: its ")


def test_a_model_without_fault_has_no_culprit_and_one_sentence() -> None:
    verdicts = hpsweep.coords.verdicts(hpsweep.coords.slopes(made({"a": (0, 0, 0), "b": (0, 0, 0.05)})))
    assert culprit(verdicts) is None
    assert verdict_sentence(verdicts) == "ok: none of 2 modules grows or shrinks along density, before or by training."
    assert verdicts.set_index("module").loc["b", "quantity"] == "change"  # the one furthest from flat


def test_slopes_refuse_bounds_out_of_order_and_sizes_without_an_axis() -> None:
    sizes = made({"a": (0, 0, 0)})
    with pytest.raises(ValueError, match=r"bound is 0.3 and wrong is 0.25; they need 0 < bound <= wrong"):
        hpsweep.coords.slopes(sizes, bound=0.3)
    with pytest.raises(ValueError, match="one width and one density, and have no slope"):
        hpsweep.coords.slopes(sizes[sizes["density"] == 1])


# --- what is measured ---


class Two(nn.Module):
    """Two linear layers without biases, of which the output is multiplied afterwards."""

    def __init__(self, width: int, *, spare: bool = False) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(2, width, False), nn.Dropout(0.5), nn.Linear(width, 1, False)
        if spare:
            self.spare = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.last(self.drop(self.first(x)))


def two(width: int, density: float, seed: int, **options: Any) -> tuple[nn.Module, Any, Callable[[], Tensor]]:
    made = Two(width, **options)
    for weight in made.parameters():
        nn.init.constant_(weight, 1.0)
    made.drop.p = 0.0
    x = torch.tensor([[3.0, 1.0]])
    return made, torch.optim.SGD(made.parameters(), lr=0.1), lambda: made(x).sum()


def test_sizes_changes_and_own_changes_are_those_worked_out_by_hand() -> None:
    # x = (3, 1), width 2, all weights 1: first gives (4, 4), last 8, halved 4. The gradient of every weight of first is
    # half its input, (1.5, 0.5), of last (2, 2): first becomes 0.85 and 0.95, last 0.8. Then first gives 3 x 0.85 +
    # 0.95 = 3.5, a change of 0.5, and the output 0.5 x 2 x 0.8 x 3.5 = 2.8, a change of 1.2.
    table = hpsweep.coords.check(two, widths=[2, 4], steps=1, seeds=[0])
    rows = table[table["width"] == 2].set_index(["module", "step"])
    assert list(dict.fromkeys(table["module"])) == ["first", "last"]  # what dropout passes on is not listed twice
    assert rows.loc[("first", 0), "size"] == pytest.approx(4)
    assert rows.loc[("last", 0), "size"] == pytest.approx(4)  # the model's output, with its multiplier
    assert rows.loc[("first", 1), ["size", "change", "own"]].tolist() == pytest.approx([3.5, 0.5, 0.5])
    assert rows.loc[("last", 1), ["size", "change"]].tolist() == pytest.approx([2.8, 1.2])
    assert rows.loc[("first", 0), ["change", "own"]].isna().all()
    assert rows["features"].to_dict() == {("first", 0): 2, ("first", 1): 2, ("last", 0): 1, ("last", 1): 1}


def test_every_width_is_measured_at_the_highest_density_and_every_density_at_the_largest_width() -> None:
    told: list[tuple[int, int]] = []
    table = hpsweep.coords.check(
        two, widths=[4, 2], densities=[1 / 4, 1 / 2], steps=1, seeds=[3, 5], progress=lambda *done: told.append(done)
    )
    places = set(zip(table["width"], table["density"], table["seed"], strict=True))
    assert places == {(w, d, s) for w, d in [(2, 0.5), (4, 0.5), (4, 0.25)] for s in (3, 5)}
    assert told == [(i, 6) for i in range(6)]


def test_the_model_is_left_as_it_was_and_dropout_is_off_while_it_is_looked_at() -> None:
    kept: list[nn.Module] = []

    def build(width: int, density: float, seed: int) -> Any:
        made, optimizer, loss = two(width, density, seed)
        made.get_submodule("drop").p = 0.5  # type: ignore[assignment]
        kept.append(made)
        return made, optimizer, loss

    torch.manual_seed(0)
    table = hpsweep.coords.check(build, widths=[2, 4], steps=1, seeds=[0])
    assert table[(table["module"] == "last") & (table["step"] == 0)]["size"].tolist() == pytest.approx([4, 8])
    assert all(module.training and not module._forward_hooks for made in kept for module in made.modules())


TRIAL = Trial(width=64, head_size=16, base_width=16, density=1 / 4, lr=2**-7, steps=3, context=8, batch=2, clip=1e9)


@pytest.mark.parametrize("tied", [True, False])
def test_a_proxy_has_the_sizes_that_a_plain_module_has_under_hooks(tied: bool) -> None:
    trial = TRIAL.replace(tied=tied, warmup_fraction=0.0, final_lr_fraction=1.0)
    data = load_dataset(trial.data)

    def plain(width: int, density: float, seed: int) -> Any:
        of = trial.replace(width=width, density=density, seed=seed)
        module, plan = parametrized(of, data.vocabulary)
        groups = plan.param_groups(module, lr=of.lr, weight_decay=0.0)
        optimizer = torch.optim.AdamW(groups, betas=(of.beta1, of.beta2), eps=of.eps)
        plan.attach(module, optimizer)
        row = train_offsets(data, seed=seed, steps=1, batch=of.batch, context=of.context)[0]
        inputs, targets = map(torch.from_numpy, token_windows(data.train, row, of.context))
        return module, optimizer, lambda: nn.functional.cross_entropy(module(inputs).flatten(0, 1), targets.flatten())

    options: dict[str, Any] = {"widths": [32, 64], "densities": [1, 1 / 4], "steps": 3, "seeds": [1]}
    keys = ["module", "width", "density", "step"]
    ours = hpsweep.coords.check(trial, **options).set_index(keys)
    theirs = hpsweep.coords.check(plain, **options).set_index(keys)
    shared = [key for key in ours.index if key in theirs.index]
    assert {key[0] for key in shared} >= {"block0.attention.qkv", "block1.mlp.out", "readout"}
    for column in ("size", "change", "own"):
        both = ours.loc[shared, column].notna() & theirs.loc[shared, column].notna()
        np.testing.assert_allclose(ours.loc[shared, column][both], theirs.loc[shared, column][both], rtol=1e-3)
    assert (ours.loc["readout"]["own"].drop(0, level="step") > 0).all()  # of a tied one too
    both_logits = theirs.loc["attention_logits"]["size"] ** 2  # of both blocks, one after the other
    mean = (ours.loc["block0.attention_logits"]["size"] ** 2 + ours.loc["block1.attention_logits"]["size"] ** 2) / 2
    np.testing.assert_allclose(mean, both_logits, rtol=1e-3)


def test_a_tensor_of_a_proxy_that_recorded_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_attention", lambda p, m, x, **_: torch.bmm(x, p["attention.out"].mT) * 0)
    with pytest.raises(
        ValueError, match=r"block0.attention.qkv recorded nothing: the model multiplies with it otherwise"
    ):
        hpsweep.coords.check(TRIAL, widths=[32, 64], seeds=[0])


def logits(scale: float, **options: Any) -> Tensor:
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    call = Call(nn.functional.scaled_dot_product_attention, (query, key, key), {"scale": scale, **options})
    seen = Attention().seen(call, 0)
    assert seen is not None
    assert seen.head_size == 8
    return seen.values


def test_attention_logits_are_the_same_before_a_softmax_and_in_torchs_attention() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    attention, product = Attention(), query @ key.mT
    assert attention.seen(Call(torch.matmul, (query, key.mT), {}), product) is None
    scores = (product * 0.3).masked_fill(future, -math.inf)
    seen = attention.seen(Call(torch.softmax, (scores, -1), {}), None)
    assert seen is not None
    assert seen.head_size == 8
    assert len(seen.values) == 2 * 4 * 15  # those of the past
    for options in (
        {"is_causal": True},
        {"attn_mask": ~future},
        {"attn_mask": torch.zeros(5, 5).masked_fill(future, -math.inf)},
    ):
        torch.testing.assert_close(seen.values, logits(0.3, **options))
    assert attention.seen(Call(torch.softmax, (torch.ones(3, 4), -1), {}), None) is None  # a choice among classes
    attention.seen(Call(torch.einsum, ("bhqd,bhkd->bhqk", query, key), {}), product)
    unknown = attention.seen(Call(torch.softmax, (scores, -1), {}), None)
    assert unknown is not None
    assert unknown.head_size == 0


# --- what is refused ---


def test_a_module_that_recorded_nothing_is_named_and_can_be_left_out() -> None:
    def build(width: int, density: float, seed: int) -> Any:
        return two(width, density, seed, spare=True)

    with pytest.raises(ValueError, match=r"spare \(Linear\) recorded nothing: .* exclude=\('spare',\)"):
        hpsweep.coords.check(build, widths=[2, 4], seeds=[0])
    table = hpsweep.coords.check(build, widths=[2, 4], seeds=[0], exclude=["spare"])
    assert set(table["module"]) == {"first", "last"}


def test_a_loss_that_runs_another_model_is_an_error() -> None:
    def build(width: int, density: float, seed: int) -> Any:
        return Two(width), *two(width, density, seed)[1:]

    with pytest.raises(ValueError, match=r"first \(Linear\) recorded nothing"):
        hpsweep.coords.check(build, widths=[2, 4], seeds=[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, r"widths is \[\]; give one or more whole numbers of at least 1, each once"),
        ({"widths": [2, 2]}, r"widths is \[2, 2\]"),
        ({"widths": [2, 2.5]}, r"widths is \[2, 2.5\]"),
        ({"densities": [1, 0.0]}, r"densities is \[1, 0.0\]; give one or more numbers in \(0, 1\]"),
        ({"seeds": []}, r"seeds is \[\]"),
        ({"seeds": [-1]}, r"seeds is \[-1\]; give one or more whole numbers of at least 0"),
        ({"steps": 0}, r"steps is 0; give a whole number of at least 1"),
        ({"widths": [2]}, r"one width \(2\) and one density \(1\), and nothing to compare"),
        ({"exclude": ["nowhere.*"]}, r"exclude has 'nowhere.\*', which matches no module"),
        ({"heads": 2}, "heads and device belong to a Trial"),
        ({"what": "gpt"}, "cannot check a str; give a Trial, or a function that builds a model"),
        ({"what": lambda *_: Two(2)}, r"the build function returned Two; return \(model, optimizer, loss\)"),
        ({"what": TRIAL, "exclude": ["readout"]}, r"exclude is \['readout'\], which belongs to models of your own"),
        ({"what": TRIAL, "widths": [16, 64], "heads": 3}, "heads is 3, which does not divide the width 16"),
        ({"what": TRIAL, "widths": [20, 64]}, "width 20 is not divisible by head_size 16"),
    ],
)
def test_wrong_input_is_refused_with_the_remedy(options: dict[str, Any], message: str) -> None:
    given = {"what": two, "widths": [2, 4], "seeds": [0]} | options
    with pytest.raises(ValueError, match=message):
        hpsweep.coords.check(given.pop("what"), **given)


def test_a_loss_without_a_graph_and_models_of_other_modules_are_refused() -> None:
    def without_graph(width: int, density: float, seed: int) -> Any:
        made, optimizer, loss = two(width, density, seed)
        return made, optimizer, lambda: loss().detach()

    with pytest.raises(ValueError, match=r"loss\(\) returned .*; return the mean loss"):
        hpsweep.coords.check(without_graph, widths=[2, 4], seeds=[0])
    with pytest.raises(ValueError, match=r"spare recorded something at only one of width 2, density 1 and width 4"):
        hpsweep.coords.check(uneven, widths=[2, 4], seeds=[0])


def uneven(width: int, density: float, seed: int) -> Any:
    made, optimizer, loss = two(width, density, seed, spare=width == 4)
    if width == 4:
        x = torch.ones(1, 2)
        return made, optimizer, lambda: loss() + made.get_submodule("spare")(x).sum()
    return made, optimizer, loss


def test_few_nonzeros_per_neuron_are_a_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"1 nonzeros per neuron at width 64 and density 0.015625.* Take a width of 512"
    ):
        hpsweep.coords.check(TRIAL, widths=[64], densities=[1, 1 / 64], seeds=[0], steps=1)
