from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from artefacts.errors import ArtefactError, RequestError
from benchmarks.latency import TimingRules
from benchmarks.latency.loadgen_log import parse_detail_log
from benchmarks.latency.scenarios import (
    Scenario,
    ScenarioResult,
    ScenarioRules,
    find_server_rate,
    run_scenario,
)
from benchmarks.latency.sweep import sweep_batches, sweep_threads

QUICK = ScenarioRules(seconds=0.2, min_queries=20, rate_per_s=200.0, bound_ms=1000.0)


def slept(counted: list[int], seconds: float = 0.001) -> object:
    def query(indices: Sequence[int]) -> None:
        counted.append(len(indices))
        time.sleep(seconds)

    return query


@pytest.fixture(scope="module", autouse=True)
def loadgen() -> None:
    pytest.importorskip("mlperf_loadgen")


@pytest.mark.parametrize(
    ("scenario", "per_query"), [("SingleStream", 1), ("MultiStream", 8), ("Server", 1)]
)
def test_loadgen_drives_a_callable(
    scenario: Scenario, per_query: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counted: list[int] = []
    found = run_scenario(
        scenario, [slept(counted)], system="one", images=16, rules=QUICK, log_folder=tmp_path
    )
    assert found.scenario == scenario
    assert found.queries >= 20
    assert found.images_per_query == per_query
    assert sum(counted) == found.queries * per_query
    assert set(counted) == {per_query}
    assert found.figures["p50_ms"] >= 1.0
    assert found.figures["p50_ms"] <= found.figures["p99_ms"] <= found.figures["max_ms"]
    assert (tmp_path / "mlperf_log_summary.txt").is_file()
    assert capfd.readouterr().out == ""
    if scenario == "Server":
        assert found.rate_per_s == 200.0
        assert found.figures["throughput_per_s"] == pytest.approx(200, rel=0.6)


def test_offline_shares_one_large_query_between_workers() -> None:
    seen: dict[int, int] = {}

    def query(indices: Sequence[int]) -> None:
        seen[threading.get_ident()] = len(indices)
        time.sleep(0.02 * len(indices))

    found = run_scenario("Offline", [query, query], system="one", images=16, rules=QUICK)
    assert found.valid
    assert found.workers == 2
    assert len(seen) == 2
    assert sum(seen.values()) == found.images_per_query
    assert 60 < found.figures["throughput_per_s"] < 100.1


def test_a_short_run_is_told_to_be_invalid() -> None:
    rules = ScenarioRules(seconds=0.01, min_queries=5)
    found = run_scenario("SingleStream", [slept([])], system="one", images=4, rules=rules)
    assert not found.valid
    assert any("too few queries" in reason for reason in found.reasons)


def test_a_bound_that_is_not_kept_is_told() -> None:
    rules = ScenarioRules(seconds=0.2, min_queries=20, rate_per_s=100.0, bound_ms=0.5)
    found = run_scenario("Server", [slept([])], system="one", images=4, rules=rules)
    assert not found.valid
    assert "the latency bound was not kept" in found.reasons


@pytest.mark.parametrize("scenario", ["SingleStream", "Server"])
def test_a_query_that_fails_ends_the_run_with_its_error(scenario: Scenario) -> None:
    def broken(indices: Sequence[int]) -> None:
        raise RequestError("array has shape [1]")

    with pytest.raises(RequestError, match="array has shape"):
        run_scenario(scenario, [broken], system="one", images=4, rules=QUICK)


def test_unknown_scenarios_and_rules_are_refused() -> None:
    with pytest.raises(RequestError, match="'Interactive', expected one of SingleStream"):
        run_scenario("Interactive", [slept([])], system="x", images=1, rules=QUICK)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="seconds=0"):
        ScenarioRules(seconds=0)


def test_the_highest_rate_is_found_by_bisection() -> None:
    asked = []

    def run(rate: float) -> ScenarioResult:
        asked.append(rate)
        return ScenarioResult(
            system="one",
            scenario="Server",
            figures={"p99_ms": 5.0 if rate <= 620 else 50.0},
            valid=True,
            reasons=(),
            queries=100,
            images_per_query=1,
            workers=1,
            rate_per_s=rate,
            bound_ms=10.0,
        )

    found = find_server_rate(run, highest_per_s=1000.0, steps=6)
    assert found.rate_per_s is not None
    assert 620 - 1000 / 2**6 <= found.rate_per_s <= 620
    assert len(asked) == 6
    hopeless = find_server_rate(run, highest_per_s=64_000.0, steps=3)
    assert hopeless.figures["p99_ms"] == 50.0


@pytest.mark.parametrize("text", ["", "nonsense", ':::MLLOG {"key": "power_begin", "value": 1}'])
def test_a_log_without_a_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.txt").write_text(text)
    with pytest.raises(ArtefactError, match="has no result"):
        parse_detail_log(tmp_path / "log.txt")


def test_throughput_against_batch(rng: object) -> None:
    now = [0]

    def clock() -> int:
        return now[0]

    def queries(size: int) -> dict[str, object]:
        def call() -> None:
            now[0] += 1_000_000 + 100_000 * size  # 1 ms a query and 0.1 ms an image

        return {"one": call}

    rules = TimingRules(min_time_s=0.5, limit_s=2.0)
    points = sweep_batches(queries, [1, 8, 64], rules=rules, clock=clock)  # type: ignore[arg-type]
    assert [point.size for point in points] == [1, 8, 64]
    expected = [size / (1e-3 + 1e-4 * size) for size in (1, 8, 64)]
    assert [point.throughput_per_s.value for point in points] == pytest.approx(expected)
    assert all(point.stable and point.kind == "batch" for point in points)


def test_threads_wait_beside_each_other() -> None:
    callers = {"one": [lambda: time.sleep(0.002)] * 4}
    points = sweep_threads(callers, [1, 4], batch=2, rounds=3, slice_s=0.04)
    assert [point.size for point in points] == [1, 4]
    assert points[1].throughput_per_s.value > 2 * points[0].throughput_per_s.value
    assert points[0].p50_ms >= 2.0


def test_threads_need_a_caller_each_and_tell_errors() -> None:
    with pytest.raises(RequestError, match="1 callers of one for 2 threads"):
        sweep_threads({"one": [lambda: None]}, [2])

    def broken() -> None:
        raise RequestError("engine is closed")

    with pytest.raises(RequestError, match="engine is closed"):
        sweep_threads({"one": [broken]}, [1], rounds=1)
