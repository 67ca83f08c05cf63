"""The search where candidates are fitted, and a fit may mend or miss."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantization.improve.improved import Improved
from quantization.placement import Placement
from quantization.search.problem import Goal
from quantization.search.search import search
from tests.unit.quantization.searched import DB, Fixture, truthful


def noisy(
    noise: Sequence[float], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> tuple[Fixture, list[str]]:
    """A chain whose groups have these noises, which the sensitivities tell; and their names."""
    fixture = Fixture(rng, len(noise) - 1)
    names = [group.name for group in fixture.groups]
    fixture.noise = dict(zip(names, noise, strict=True))
    truthful(fixture, monkeypatch)
    return fixture, names


class Fits:
    """A refit that records what was in float, and changes the table of noises."""

    def __init__(self, fixture: Fixture, *changes: dict[str, float]) -> None:
        self._fixture = fixture
        self._changes = iter(changes)
        self.asked: list[list[str]] = []

    def __call__(self, placement: Placement, between_steps: Callable[[int, int], None]) -> Improved:
        self.asked.append([entry.node for entry in placement.floating if entry.rule == "search"])
        self._fixture.noise |= next(self._changes, {})
        return self._fixture.improved


def test_what_fitting_mends_stays_in_int8(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture, names = noisy([5.0, 2.0, 0.01, 0.01], rng, monkeypatch)
    refit = Fits(fixture, {names[1]: 0.02})
    result = search(fixture.problem(Goal(minimum=10.0, unit=DB), refit=refit))
    assert result.met
    assert refit.asked == [[names[0]]]
    assert result.point.released == result.fitted_without == (names[0],)


def test_fitted_candidates_grow_until_one_keeps_the_goal(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture, names = noisy([5.0, 2.0, 0.01, 0.01], rng, monkeypatch)
    refit = Fits(fixture)
    result = search(fixture.problem(Goal(minimum=10.0, unit=DB), refit=refit))
    assert result.met
    assert refit.asked == [names[:1], names[:2]]
    assert result.point.released == result.fitted_without == tuple(names[:2])
    assert tuple(names[:1]) in {point.released for point in result.points}


@pytest.mark.parametrize("lucky", [True, False])
def test_a_smaller_candidate_counts_only_if_fitting_confirms_it(
    lucky: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture, names = noisy([5.0, 2.0, 0.03, 0.01, 0.01], rng, monkeypatch)
    refit = Fits(fixture, {}, {}, {names[2]: 1.0} if lucky else {})
    result = search(fixture.problem(Goal(minimum=10.0, unit=DB), refit=refit))
    assert result.met
    assert refit.asked == [names[:1], names[:3], names[:2]]
    assert result.point.released == tuple(names[:3] if lucky else names[:2])
    assert result.fitted_without == result.point.released


def test_half_of_a_lucky_candidate_is_tried_next(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [5.0, 2.0, 0.014, 0.013, 0.012, *[0.01] * 5]
    fixture, names = noisy(noise, rng, monkeypatch)
    refit = Fits(fixture, {}, {names[3]: 1.0}, {names[3]: 0.013}, {names[2]: 0.2})
    result = search(fixture.problem(Goal(minimum=9.5, unit=DB), refit=refit))
    assert result.met
    assert [len(asked) for asked in refit.asked] == [1, 3, 7, 2, 5]
    assert len(result.point.released) == 5
    assert names[2] in result.point.released


def test_what_was_fitted_and_missed_is_not_fitted_again(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture, names = noisy([5.0, 2.0, 0.01, 0.01], rng, monkeypatch)
    goal, state = Goal(minimum=10.0, unit=DB), tmp_path / "x.search.json"
    first = Fits(fixture)
    whole = search(fixture.problem(goal, refit=first, state=state))
    scored, second = fixture.calls, Fits(fixture)
    again = search(fixture.problem(goal, refit=second, state=state))
    assert first.asked == [names[:1], names[:2]]
    assert second.asked == [names[:2]], "the network itself is not in the state"
    assert fixture.calls == scored
    assert (again.point, again.points) == (whole.point, whole.points)


@pytest.mark.parametrize("fits", [0, 1, 2])
def test_the_time_limit_ends_a_fit(
    fits: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:

    fixture, names = noisy([5.0, 2.0, 0.03, 0.01, 0.01], rng, monkeypatch)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    fitted = Fits(fixture)

    def refit(placement: Placement, between_steps: Callable[[int, int], None]) -> Improved:
        nonlocal now
        now = 100.0 * (len(fitted.asked) >= fits)
        between_steps(1, 2)
        return fitted(placement, between_steps)

    goal = Goal(minimum=10.0, unit=DB)
    result = search(fixture.problem(goal, refit=refit, limit_s=60.0))
    assert len(fitted.asked) == fits
    assert "the time limit ended the search" in result.why
    assert result.met == (fits == 2)
    assert result.point.released == (tuple(names[:3]) if result.met else ())


def test_groups_are_ranked_where_nothing_is_fitted(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(rng, 3)
    truthful(fixture, monkeypatch)
    from quantization.search import search as module

    measured = module.sensitivities
    plain = dataclasses.replace(fixture.improved)
    seen = []

    def sensitivities(reference: object, improved: Improved, *rest: object, **more: object) -> Any:
        seen.append(improved)
        return measured(reference, improved, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sensitivities", sensitivities)
    goal = Goal(minimum=29.0, unit=DB)
    search(fixture.problem(goal, refit=Fits(fixture), unfitted=lambda _: plain))
    assert seen == [plain]
