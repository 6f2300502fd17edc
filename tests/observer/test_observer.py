"""What is seen of a forward pass, in which order, and that nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.observer import Call, evaluating, numbers_in, observing
from hpsweep.observer.functions import factors_of


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))


def test_calls_of_modules_and_functions_are_seen_in_order_with_the_innermost_module_that_runs() -> None:
    model, running, seen = net(), list[str](), list[Any]()

    def call(made: Call) -> Any:
        if made.func in (F.linear, F.relu):
            seen.append((made.func.__name__, running[-1]))
        return made.result()

    with observing(
        call,
        dict(model.named_modules()),
        before=lambda name, module, args, kwargs: seen.append(("in", name)),
        after=lambda name, module, output: seen.append(("out", name)),
        running=running,
    ):
        model(torch.ones(1, 3))
    assert seen == [
        ("in", ""), ("in", "0"), ("linear", "0"), ("out", "0"),
        ("in", "1"), ("in", "1.0"), ("relu", "1.0"), ("out", "1.0"),
        ("in", "1.1"), ("linear", "1.1"), ("out", "1.1"), ("out", "1"), ("out", ""),
    ]  # fmt: skip
    assert running == []


def test_what_is_returned_stands_for_the_input_of_a_module_and_for_the_result_of_a_function() -> None:
    model, x = net(), torch.ones(1, 3)
    first = dict(model.named_modules())["0"]
    expected = model[1](3 * first(2 * x))  # type: ignore[index]

    def call(made: Call) -> Any:
        triple = made.func is F.linear and made.args[1] is first.weight
        return 3 * made.result() if triple else made.result()

    with observing(call, {"0": first}, before=lambda name, module, args, kwargs: ((2 * args[0],), kwargs)):
        torch.testing.assert_close(model(x), expected)


def test_after_an_error_no_hook_is_left_and_nothing_is_seen_any_more() -> None:
    model, seen = net(), list[Call]()

    def call(made: Call) -> Any:
        seen.append(made)
        return made.result()

    with pytest.raises(RuntimeError), observing(call, dict(model.named_modules())):
        model(torch.ones(1, 5))
    before = len(seen)
    model(torch.ones(1, 3))
    assert len(seen) == before > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("func", "shapes", "size"),
    [
        (torch.matmul, [(2, 5), (5, 3)], 5),
        (Tensor.__rmatmul__, [(5, 3), (2, 5)], 5),  # the second times the first
        (torch.baddbmm, [(4, 2, 3), (4, 2, 5), (4, 5, 3)], 5),
        (F.linear, [(2, 5), (3, 5), (3,)], 5),
        (torch.add, [(2, 5), (2, 5)], None),
    ],
)
def test_the_factors_of_a_product_have_the_dimensions_that_are_summed_over(
    func: Any, shapes: list[tuple[int, ...]], size: int | None
) -> None:
    found = factors_of(Call(func, tuple(torch.ones(shape) for shape in shapes), {}))
    assert (None if found is None else found.size) == size
    if found is not None:
        assert {found.right.shape[axis] for axis in found.right_axes} == {size}
        assert (found.summand is None) == (func is not torch.baddbmm)


def test_numbers_are_found_wherever_a_module_returns_them() -> None:
    one, two = torch.ones(2), torch.zeros(3)
    output = {"logits": one, "more": (torch.arange(3), [two, None])}
    assert [tuple(x.shape) for x in numbers_in(output)] == [(2,), (3,)]


def test_dropout_and_statistics_of_batches_rest_while_a_model_is_looked_at_as_in_training() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2), nn.Linear(2, 2))
    with evaluating(model, training=True):
        assert [module.training for module in model] == [False, False, True]
    with evaluating(model):
        assert not any(module.training for module in model)
    assert all(module.training for module in model)
