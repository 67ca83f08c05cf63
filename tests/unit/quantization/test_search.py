"""The search on networks whose groups cost and hurt what a table says."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from artefacts.errors import ArtefactError, InputError
from graphs.macs import macs
from graphs.view import GraphView
from quantization.improve.improved import Improved
from quantization.improve.methods import NOTHING
from quantization.measure.execution import load_int8, load_int8_quickly, load_onnxruntime
from quantization.measure.fidelity import compare, run_all
from quantization.search.candidates import Candidates
from quantization.search.heads import shrunk
from quantization.search.problem import Goal, Point
from quantization.search.search import search
from tests.accuracy_models import calibrated, samples_of
from tests.networks import resnet
from tests.unit.quantization.searched import DB, Fixture, truthful


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_it_meets_the_goal_at_nearly_the_least_cost(
    share: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(rng)
    fixture.noise[fixture.groups[3].name] = 1e-6  # one layer can always stay in INT8
    truthful(fixture, monkeypatch)
    minimum = -10 * math.log10(1e-3 + share * sum(fixture.noise.values()))
    goal = Goal(minimum=minimum, unit=DB)
    result = search(fixture.problem(goal, saved_ms=fixture.saved))
    assert result.met
    assert result.point.score >= minimum
    assert result.cost_unit == "ms"
    assert result.point.cost <= fixture.exhaustive(minimum) + max(fixture.saved.values())
    assert fixture.score(result.improved.quantized(result.placement)) == result.point.score
    # Shrunk: no single group could have gone back.
    for name in result.point.released:
        noise = fixture.noise[name] + sum(
            fixture.noise[g.name] for g in fixture.groups if g.name not in result.point.released
        )
        assert -10 * math.log10(1e-3 + noise) < minimum


def test_nothing_is_given_up_where_int8_is_good_enough(rng: np.random.Generator) -> None:
    fixture = Fixture(rng, 2)
    goal = Goal(minimum=-100.0, unit=DB)
    result = search(fixture.problem(goal))
    assert result.met
    assert result.point == Point(
        released=(), cost=0, score=result.point.score, int8_share=result.point.int8_share
    )
    assert result.placement == fixture.placement
    assert fixture.calls == 1
    assert result.why == "no layer had to be left in float"


def test_a_goal_out_of_reach_is_said_so(rng: np.random.Generator) -> None:
    fixture = Fixture(rng, 2)
    goal = Goal(minimum=31.0, unit=DB)
    result = search(fixture.problem(goal))
    assert not result.met
    assert [point.score for point in result.points] == [result.point.score, pytest.approx(30.0)]
    count = len(fixture.groups)
    assert result.why == (
        f"with all {count} groups in float there is 30 dB, expected 31 dB: out of reach of any "
        "mixed precision"
    )


def test_the_front_holds_what_nothing_beats(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(rng)
    truthful(fixture, monkeypatch)
    goal = Goal(minimum=15.0, unit=DB)
    result = search(fixture.problem(goal))
    costs = [point.cost for point in result.front]
    scores = [point.score for point in result.front]
    assert costs == sorted(costs)
    assert scores == sorted(set(scores))
    for point in result.points:
        assert any(p.cost <= point.cost and p.score >= point.score for p in result.front)
    assert result.cost_unit == "share of MACs"
    for point in result.points:
        released = {g.name: g.macs for g in fixture.groups if g.name in point.released}
        assert point.int8_share == pytest.approx(
            result.points[0].int8_share - sum(released.values()) / _total_macs(fixture)
        )


def _total_macs(fixture: Fixture) -> int:
    view = GraphView(fixture.model)
    return sum(macs(node, view.nominal_shape) for node in view.nodes)


def test_it_goes_on_where_it_was_killed(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(rng)
    truthful(fixture, monkeypatch)
    goal, state = Goal(minimum=10.0, unit=DB), tmp_path / "x.search.json"
    whole = search(fixture.problem(goal))
    needed, fixture.calls = fixture.calls, 0

    class KilledError(Exception):
        pass

    def dying(model: onnx.ModelProto) -> float:
        if fixture.calls == needed - 2:
            raise KilledError
        return fixture.score(model)

    with pytest.raises(KilledError):
        search(fixture.problem(goal, score=dying, state=state))
    again = search(fixture.problem(goal, state=state))
    assert fixture.calls == needed
    assert (again.point, again.points) == (whole.point, whole.points)


def test_a_state_of_something_else_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    fixture = Fixture(rng, 2)
    goal, state = Goal(minimum=-100.0, unit=DB), tmp_path / "x.search.json"
    search(fixture.problem(goal, state=state, state_key="these samples"))
    with pytest.raises(ArtefactError, match=r"x\.search\.json is of another network"):
        search(fixture.problem(goal, state=state, state_key="other samples"))
    content = json.loads(state.read_text())
    content["scores"] = ["broken"]
    state.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=r"x\.search\.json cannot be read"):
        search(fixture.problem(goal, state=state, state_key="these samples"))


def test_the_time_limit_ends_with_the_best_so_far(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:

    fixture = Fixture(rng)
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    goal = Goal(minimum=29.0, unit=DB)
    result = search(fixture.problem(goal, limit_s=0.5))
    assert not result.met
    assert result.point.released == ()
    assert result.why == ("the time limit ended the search before 29 dB, with no layer ranked yet")
    with pytest.raises(InputError, match="search time is 0 s"):
        search(fixture.problem(goal, limit_s=0))


def test_a_share_that_must_stay_in_int8_is_kept(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(rng)
    truthful(fixture, monkeypatch)
    goal = Goal(minimum=29.99, unit=DB)
    result = search(fixture.problem(goal, least_int8=0.6))
    assert not result.met
    assert result.point.int8_share >= 0.6
    within = [point.score for point in result.points if point.int8_share >= 0.6]
    assert result.point.score == max(within)
    worst = max(fixture.noise, key=lambda name: fixture.noise[name])
    assert f"expected at least 60.0%; most is lost in: {worst}" in result.why


def test_many_groups_are_returned_several_at_a_time(rng: np.random.Generator) -> None:
    fixture = Fixture(rng, 40)
    goal = Goal(minimum=0.0, unit=DB)
    tried = Candidates(fixture.problem(goal))
    needed = fixture.groups[7].name
    fixture.noise = {group.name: 0.01 for group in fixture.groups} | {needed: 10.0}
    left = shrunk(tried, tried.point(list(fixture.groups)))
    assert left.released == (needed,)
    assert fixture.calls < len(fixture.groups)


def test_real_scores_and_real_sensitivities(rng: np.random.Generator) -> None:
    fixture = Fixture(rng, 4)
    exact = run_all(load_onnxruntime(fixture.model), fixture.feeds)

    def score(model: onnx.ModelProto) -> float:
        return min(compare(load_int8(model), fixture.feeds, exact).sqnr_db, 120.0)

    start = score(fixture.improved.quantized(fixture.placement))
    goal = Goal(minimum=start + 3.0, unit=DB)
    tried: list[Point] = []
    result = search(fixture.problem(goal, score=score, report=tried.append))
    assert result.met
    assert 0 < len(result.point.released) < len(fixture.groups)
    assert tuple(tried) == result.points
    again = search(fixture.problem(goal, score=score))
    assert again.point == result.point


def test_quick_runs_compute_what_is_written(rng: np.random.Generator) -> None:
    model = resnet(size=16)
    feeds = samples_of(model, rng, 4)
    placement, ranges = calibrated(model, feeds)
    int8 = Improved(model=model, ranges=ranges, weights={}, methods=NOTHING).quantized(placement)
    exact = run_all(load_onnxruntime(model), feeds)
    noise = compare(load_int8(int8), feeds, exact).sqnr_db
    assert compare(load_int8_quickly(int8), feeds, exact).sqnr_db == pytest.approx(noise, abs=1.0)
