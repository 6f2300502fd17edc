"""The stages of a refinement of one group, with results that are known beforehand."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping

import pytest

from hpsweep.spec import Refine
from hpsweep.sweep import stages
from hpsweep.sweep.stages import Cell, Step, next_step

SPACE = (2.0**-12, 2.0**-3)
OPTIMUM = -7.3
LIMITS = Refine()

Loss = Callable[[Cell], float | None]


def noise(cell: Cell) -> float:
    return random.Random(repr(cell)).gauss(0, 1)


def bowl(cell: Cell) -> float:
    """A parabola around OPTIMUM with a shift per seed and a little noise, nats/token."""
    return 2 + 0.03 * (cell[0] - OPTIMUM) ** 2 + 0.01 * cell[1] + 0.002 * noise(cell)


def noisy(cell: Cell) -> float:
    return 2 + 0.01 * (cell[0] - OPTIMUM) ** 2 + 0.01 * noise(cell)


def falling(cell: Cell) -> float:
    return 3 - 0.05 * cell[0] + 0.001 * noise(cell)


def step(results: Mapping[Cell, float | None], seeds: tuple[int, ...] = (0,), limits: Refine = LIMITS) -> Step:
    return next_step("lr", SPACE, seeds, limits, results)


def refine(
    loss: Loss, seeds: tuple[int, ...] = (0,), limits: Refine = LIMITS
) -> tuple[list[Step], dict[Cell, float | None]]:
    """(all steps, all results) of a refinement carried out to its end."""
    results: dict[Cell, float | None] = {}
    steps = [step(results, seeds, limits)]
    while not steps[-1].ended:
        assert steps[-1].missing
        assert len(steps) < 50, "no end"
        results.update({cell: loss(cell) for cell in steps[-1].missing})
        steps.append(step(results, seeds, limits))
    return steps, results


def names(steps: list[Step]) -> list[str]:
    return [step.stage for step in steps]


# --- what is tried ---


def test_octaves_come_first_then_half_octaves_around_their_optimum_with_three_seeds() -> None:
    steps, results = refine(bowl)
    assert names(steps) == ["coarse", "fine", "ok"]
    assert steps[0].missing == tuple((float(octave), 0) for octave in range(-12, -2))
    # the coarse optimum is -7.3, to half an octave -7.5; -8 and -7 have seed 0 already
    fine = {(octave, seed) for octave in (-8.5, -8.0, -7.5, -7.0, -6.5) for seed in (0, 1, 2)}
    assert set(steps[1].missing) == fine - {(-8.0, 0), (-7.0, 0)}
    assert len(results) == len(steps[-1].planned) == 10 + 13
    assert steps[-1].missing == ()
    assert steps[0].why == "nothing known: every octave of the space, 1 seed"
    assert steps[1].why.endswith("half octaves within 1 octave of 2^-7.5, 3 seeds")
    assert steps[-1].why.startswith("optimum at lr 2^-7.3")
    assert steps[-1].why.endswith("narrow enough")


@pytest.mark.parametrize(
    ("seeds", "used"), [((4,), {4, 5, 6}), ((0, 5), {0, 5, 6}), ((3, 1, 2, 0, 9), {0, 1, 2, 3, 9})]
)
def test_seeds_are_those_of_the_sweep_and_then_the_numbers_that_follow(seeds: tuple[int, ...], used: set[int]) -> None:
    steps, results = refine(bowl, seeds)
    assert {seed for _, seed in steps[0].missing} == {min(seeds)}
    assert {seed for _, seed in results} == used


def test_the_coarse_pass_has_as_many_seeds_as_are_said() -> None:
    steps, _ = refine(bowl, limits=Refine(coarse_seeds=2))
    assert {seed for _, seed in steps[0].missing} == {0, 1}
    assert len(steps[0].missing) == 20


@pytest.mark.parametrize(("optimum", "added"), [(-1.7, [-2.0, -1.0]), (-13.4, [-14.0, -13.0])])
def test_a_grid_is_extended_at_the_end_that_has_the_minimum(optimum: float, added: list[float]) -> None:
    steps, _ = refine(lambda cell: bowl((cell[0] - optimum + OPTIMUM, cell[1])))
    assert steps[1].stage == "extend"
    assert sorted(octave for octave, _ in steps[1].missing) == added
    assert steps[-1].stage == "ok"


def test_a_minimum_past_every_limit_is_a_bound_and_says_so() -> None:
    steps, results = refine(falling, limits=Refine(extend=3))
    assert names(steps) == ["coarse", "extend", "extend", "fine", "limit reached"]
    assert max(octave for octave, _ in results) == 0.0
    assert "minimum at the highest lr 2^0" in steps[-1].why
    assert steps[-1].why.endswith("but the grid ends 3 octaves beyond the space")
    assert names(refine(falling, limits=Refine(extend=0))[0]) == ["coarse", "fine", "limit reached"]


def test_beside_a_divergence_the_middle_is_tried_down_to_a_quarter_octave() -> None:
    steps, results = refine(lambda cell: falling(cell) if cell[0] < -5.2 else math.inf)
    assert names(steps) == ["coarse", "fine", "between", "limit reached"]
    tried = sorted({octave for octave, _ in results if octave > -7})
    assert tried == [-6.5, -6.0, -5.5, -5.25, -5.0, -4.0, -3.0]  # nothing half past the divergence
    assert {octave for octave, _ in steps[2].missing} == {-5.25}
    assert "beside 2^-5, which diverged" in steps[-1].why
    assert steps[-1].why.endswith("values are no closer than 0.25 octave")


def test_where_every_octave_diverged_smaller_ones_are_tried_up_to_the_limit() -> None:
    steps, results = refine(lambda _: math.inf)
    assert names(steps) == ["coarse", "extend", "extend", "limit reached"]
    assert min(octave for octave, _ in results) == -16.0
    assert steps[1].why == "every value diverged: on to 2^-13 and 2^-14"
    assert steps[-1].why == "no lr from 2^-16 to 2^1 has a finite loss"
    steps, _ = refine(lambda cell: bowl((cell[0] + 7, cell[1])) if cell[0] < -12.5 else math.inf)
    assert steps[-1].stage == "ok"


def test_two_finite_octaves_between_diverged_ones_get_half_and_quarter_octaves() -> None:
    steps, results = refine(lambda cell: bowl(cell) if -8.2 < cell[0] < -6.7 else math.inf)
    assert {octave for octave, _ in results if -8.2 < octave < -6.7} >= {-8.0, -7.5, -7.0}
    assert steps[-1].stage == "ok"


def test_a_curve_that_is_flat_or_too_uncertain_gets_a_wider_window_and_then_more_seeds() -> None:
    steps, results = refine(noisy, limits=Refine(trials=200))
    assert list(dict.fromkeys(names(steps))) == ["coarse", "fine", "wider", "seeds", "ok"]
    wider = {octave for octave, _ in next(step for step in steps if step.stage == "wider").missing}
    assert max(wider) - min(wider) == 4.0
    assert max(seed for _, seed in results) > 2
    narrower, _ = refine(bowl, limits=Refine(interval=0.04, trials=200))
    assert len(narrower[-1].planned) > len(refine(bowl)[0][-1].planned)


# --- limits ---


def test_noise_without_a_minimum_ends_at_the_trials_that_are_allowed() -> None:
    steps, results = refine(lambda cell: 2 + 0.01 * noise(cell), limits=Refine(trials=40))
    assert steps[-1].stage == "limit reached"
    assert len(results) <= 40
    assert "all 40 trials that a group may have" in steps[-1].why


@pytest.mark.parametrize("loss", [bowl, noisy, falling])
def test_a_larger_limit_continues_what_a_smaller_one_began(loss: Loss) -> None:
    planned = [refine(loss, limits=Refine(trials=trials))[0][-1].planned for trials in (22, 30, 45, 64, 100)]
    for smaller, larger in itertools.pairwise(planned):
        assert larger[: len(smaller)] == smaller


# --- determined by the results ---


@pytest.mark.parametrize("loss", [bowl, noisy, falling])
def test_results_that_come_one_by_one_in_any_order_lead_to_the_same_trials(loss: Loss) -> None:
    expected = set(refine(loss)[1])
    for number in range(3):
        dice, results = random.Random(number), dict[Cell, float | None]()
        while not (now := step(dict(dice.sample(sorted(results.items()), len(results))))).ended:
            for cell in dice.sample(now.missing, dice.randint(1, len(now.missing))):
                results[cell] = loss(cell)
            assert set(results) <= expected
        assert set(results) == expected


def test_what_is_lost_is_missing_again_and_what_was_not_asked_for_changes_nothing() -> None:
    steps, results = refine(noisy)
    for lost in (steps[0].missing[3], steps[1].missing[5], steps[-1].planned[-1]):
        again = step({cell: loss for cell, loss in results.items() if cell != lost})
        assert lost in again.missing
        assert set(again.planned) <= set(steps[-1].planned)
    others = {(octave / 4, 7): 0.1 for octave in range(-60, 0)}
    assert step({**results, **others}) == steps[-1]


def test_trials_that_are_given_up_are_missing_cells_and_no_dead_end() -> None:
    lost = {(-7.0, 0), (-7.5, 1), (-3.0, 0)}
    steps, results = refine(lambda cell: None if cell in lost else bowl(cell))
    assert steps[-1].stage == "ok"
    assert lost <= set(results)
    steps, _ = refine(lambda cell: None)
    assert names(steps) == ["coarse", "limit reached"]
    assert "has a finite loss" in steps[-1].why


def test_a_fit_is_made_once_for_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, results = refine(bowl)
    monkeypatch.setattr(stages, "optima", None)
    assert step(results) == steps[-1]
