from __future__ import annotations

import pytest

from tests import fake_cuda, fake_inductor

REFUSAL = fake_cuda.refusal()
pytestmark = pytest.mark.skipif(REFUSAL is not None, reason=str(REFUSAL))
slow = pytest.mark.slow


@pytest.mark.parametrize("precision", ["bfloat16", *(pytest.param(p, marks=slow) for p in ("float32", "tf32"))])
def test_a_step_makes_as_many_launches_for_64_trials_as_for_one_and_never_waits(precision: str) -> None:
    one, many = (fake_cuda.recorded(f"{count} in {precision}") for count in (1, 64))
    assert many.launches == one.launches
    assert sum(many.launches.values()) > 100
    for record in (one, many):
        assert (record.cpu, record.waits) == ([], [])


def test_what_a_step_may_not_do_would_be_seen() -> None:
    record = fake_cuda.recorded("1 in bfloat16", "evaluation")  # it puts its sequences on the device
    assert "_to_copy" in record.cpu


def test_a_step_of_64_trials_moves_little_more_than_it_did_and_needs_no_more_memory() -> None:
    record = fake_cuda.recorded("64 in bfloat16")
    assert sum(record.moved.values()) < 77e9  # 72e9 with torch's fused AdamW, trial by trial
    assert record.peak < 7.62 * 2**30  # what it was then


@pytest.mark.parametrize("vocabulary", [256, pytest.param(8192, marks=slow), 50257])
def test_a_step_needs_13_bytes_for_each_logit_and_little_else(vocabulary: int) -> None:
    peak = fake_cuda.recorded(f"vocabulary {vocabulary}").peak
    logits = 2 * 32 * 256 * vocabulary  # of two trials
    assert 12 * logits < peak < 13.1 * logits + 2**30


@pytest.mark.parametrize("vocabulary", [256, 50257])
def test_an_evaluation_needs_less_memory_than_a_step(vocabulary: int) -> None:
    evaluation = fake_cuda.recorded(f"vocabulary {vocabulary}", "evaluation")
    assert 0 < evaluation.peak < fake_cuda.recorded(f"vocabulary {vocabulary}").peak


def test_the_compiled_step_of_64_trials_moves_40_gb() -> None:
    found = fake_inductor.compiled("64 in bfloat16")
    assert sum(kernel.moved for kernel in found) <= 40e9
