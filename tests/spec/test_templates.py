from __future__ import annotations

from typing import Any

import pytest

from hpsweep.spec.templates import filled, filled_arguments, used_names, value_text

VALUES = {"lr": 2.0**-7, "width": 256, "density": 0.25, "tied": True, "norm": False, "data": "my data; rm -rf $HOME"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("--lr={lr}", "--lr=0.0078125"),
        ("--min_lr={lr/10}", "--min_lr=0.00078125"),
        ("--sparsity={1-density}", "--sparsity=0.75"),
        ("--heads={width//64}", "--heads=4"),
        ("{width}x{width*4}", "256x1024"),
        ("--tied={tied}", "--tied=True"),
        ("--tied={int(tied)}", "--tied=1"),
        ("{data}", "my data; rm -rf $HOME"),
        ('{{"lr": {lr}}}', '{"lr": 0.0078125}'),
        ("plain", "plain"),
        ("", ""),
        ("{--tied if tied}", "--tied"),
        ("{--untied if not tied}", None),
        ("{--norm=rms if not norm}", "--norm=rms"),
        ("{--norm if norm}", None),
    ],
)
def test_a_template_is_filled_in_and_a_flag_is_there_or_left_out(template: str, expected: str | None) -> None:
    assert filled(template, VALUES) == expected


@pytest.mark.parametrize("value", [1e-05, 1e-7, 1.5e-300, 1e22, 0.1, 1 / 3, 1.0, -(2.0**-30), 123456789.0])
def test_a_float_has_a_point_and_is_read_back_exactly(value: float) -> None:
    text = value_text(value)
    assert "." in text
    assert float(text) == value


def test_a_whole_number_has_no_point_whatever_made_it() -> None:
    arguments = filled_arguments(["{width}", "{width//64}", "{width/64}", "{2**10}"], VALUES)
    assert arguments == ["256", "4", "4.0", "1024"]


def test_flags_that_do_not_hold_leave_no_empty_argument() -> None:
    words = ["train.py", "{--norm if norm}", "{--tied if tied}", "--lr", "{lr}"]
    assert filled_arguments(words, VALUES) == ["train.py", "--tied", "--lr", "0.0078125"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("--lr={lr", "a brace that belongs to no other; write {{ and }}"),
        ("--lr=lr}", "a brace that belongs to no other"),
        ("{}", "is no arithmetic"),
        ('{"lr": 3}', "Write {{ and }} for braces as such"),
        ("{open('x')}", "a part that is not allowed; allowed: names, numbers"),
        ("--tied={yes if tied}", "A flag is an argument of its own: {--name if field}"),
        ("--x={--tied if tied}", "A flag is an argument of its own"),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error_before_any_value_is_known(template: str, message: str) -> None:
    for take in (used_names, lambda text: filled(text, VALUES)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  the text has signs of its own
            take(template)
        assert message in str(caught.value)


@pytest.mark.parametrize("values", [{"tied": 1}, {"tied": "yes"}])
def test_a_flag_goes_by_a_truth_value(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a flag goes by a field that is true or false"):
        filled("{--tied if tied}", values)


def test_the_names_that_a_template_uses_are_listed() -> None:
    assert used_names("--x={lr/width} {width} {{no}}") == ["lr", "width"]
    assert used_names("{--tied if not tied}") == ["tied"]
