from __future__ import annotations

import gc

import numpy as np
import pytest

from artefacts.errors import RequestError
from benchmarks.latency import TimingRules, compare_speed, measure
from benchmarks.statistics import judge_stability
from tests.unit.benchmarks.simulated import FakeClock, bimodal, drifting, stalling, steady

RULES = TimingRules(min_time_s=2.0, limit_s=6.0, slice_s=0.05)
LONG = TimingRules(min_time_s=5.0, limit_s=6.0, slice_s=0.05)


def test_known_latencies_come_back(rng: np.random.Generator) -> None:
    clock = FakeClock()
    result = measure({"one": steady(clock, rng, 2.0)}, rules=RULES, clock=clock)["one"]
    assert result.stability.stable
    assert result.warmup_settled
    median = result.figures["p50_ms"]
    assert median.interval is not None
    assert median.interval.low <= median.value <= median.interval.high
    assert median.value == pytest.approx(2.0, rel=0.03)
    assert result.figures["throughput_per_s"].value == pytest.approx(500, rel=0.03)
    assert result.figures["max_ms"].value == result.samples_ms.max()
    assert result.figures["max_ms"].interval is None
    assert sum(result.busy_s) >= RULES.min_time_s


def test_throughput_counts_images_not_queries(rng: np.random.Generator) -> None:
    clock = FakeClock()
    result = measure({"one": steady(clock, rng, 4.0)}, rules=RULES, batch=8, clock=clock)["one"]
    assert result.figures["throughput_per_s"].value == pytest.approx(8 / 0.004, rel=0.03)


def test_a_pair_of_equals_is_called_equal(rng: np.random.Generator) -> None:
    clock = FakeClock()
    systems = {name: steady(clock, rng, 1.0) for name in "ab"}
    results = measure(systems, rules=LONG, clock=clock)
    found = compare_speed(results["a"], results["b"])
    assert found.verdict == "equal"
    assert found.interval.low <= found.speedup <= found.interval.high


def test_three_percent_are_found_with_enough_samples(rng: np.random.Generator) -> None:
    clock = FakeClock()
    systems = {"a": steady(clock, rng, 1.03), "b": steady(clock, rng, 1.0)}
    results = measure(systems, rules=RULES, clock=clock)
    found = compare_speed(results["a"], results["b"])
    assert found.verdict == "faster"
    assert found.speedup == pytest.approx(1.03, abs=0.01)
    assert compare_speed(results["b"], results["a"]).verdict == "slower"


def test_few_samples_give_a_wide_interval_not_a_bold_verdict(rng: np.random.Generator) -> None:
    clock = FakeClock()
    few = TimingRules(min_time_s=0.1, min_samples=1, min_rounds=6, limit_s=0.1, slice_s=0.001)
    systems = {"a": steady(clock, rng, 1.0, 0.3), "b": steady(clock, rng, 1.0, 0.3)}
    results = measure(systems, rules=few, clock=clock)
    found = compare_speed(results["a"], results["b"])
    assert found.interval.high - found.interval.low > 0.05
    assert found.verdict != "equal"


def test_drift_is_unstable_but_cancels_in_the_ratio(rng: np.random.Generator) -> None:
    clock = FakeClock()
    systems = {"a": drifting(clock, rng, 2.0, 0.05), "b": drifting(clock, rng, 1.0, 0.05)}
    results = measure(systems, rules=RULES, clock=clock)
    for result in results.values():
        assert not result.stability.stable
        assert "drifted by +" in " ".join(result.stability.reasons)
    found = compare_speed(results["a"], results["b"])
    assert found.speedup == pytest.approx(2.0, rel=0.03)
    assert found.interval.high - found.interval.low < 0.1


@pytest.mark.parametrize("share", [0.3, 0.5, 0.65])
def test_two_modes_have_no_median_to_quote(share: float, rng: np.random.Generator) -> None:
    clock = FakeClock()
    systems = {
        "two": bimodal(clock, rng, 1.0, 2.0, slow_share=share),
        "one": steady(clock, rng, 1.0),
    }
    results = measure(systems, rules=RULES, clock=clock)
    assert results["two"].stability.two_modes
    assert not results["two"].stability.stable
    assert "two modes" in " ".join(results["two"].stability.reasons)
    assert not results["one"].stability.two_modes
    found = compare_speed(results["one"], results["two"])
    assert found.verdict == "undecided"
    assert not found.meaningful


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal", "uniform"])
def test_one_wide_mode_is_one_mode(draw: str, rng: np.random.Generator) -> None:
    samples = {
        "normal": rng.normal(10, 2, 2000),
        "exponential": 1 + rng.exponential(3, 2000),
        "lognormal": rng.lognormal(0, 1, 2000),
        "uniform": rng.uniform(1, 10, 2000),
    }[draw]
    assert not judge_stability(np.split(samples, 40)).two_modes


def test_rare_stalls_are_kept(rng: np.random.Generator) -> None:
    clock = FakeClock()
    system = stalling(clock, rng, 1.0, stall_ms=100.0, chance=0.004)
    result = measure({"one": system}, rules=LONG, clock=clock)["one"]
    assert result.figures["p50_ms"].value == pytest.approx(1.0, rel=0.05)
    assert result.figures["p99_ms"].value < 2.0
    assert result.figures["max_ms"].value > 100.0
    assert result.figures["mean_ms"].value == pytest.approx(result.samples_ms.mean())
    assert result.figures["mean_ms"].value > 1.05


def test_a_slow_system_ends_at_the_limit_and_says_what_is_missing(rng: np.random.Generator) -> None:
    clock = FakeClock()
    result = measure({"slow": steady(clock, rng, 1500.0)}, rules=RULES, clock=clock)["slow"]
    assert not result.stability.stable
    assert any("samples, expected 100" in reason for reason in result.stability.reasons)


def test_warm_up_outlasts_a_cold_start(rng: np.random.Generator) -> None:
    clock = FakeClock()
    base = steady(clock, rng, 1.0, 0.02)
    extra_ms = 20.0

    def cold() -> None:
        nonlocal extra_ms
        base()
        clock.now_ns += int(extra_ms * 1e6)
        extra_ms *= 0.9

    result = measure({"cold": cold}, rules=RULES, clock=clock)["cold"]
    assert result.warmup_settled
    assert result.figures["max_ms"].value < 1.5


def test_warm_up_that_never_settles_is_told() -> None:
    clock = FakeClock()
    latency_ms = 1.0

    def growing() -> None:
        nonlocal latency_ms
        latency_ms *= 1.2
        clock.now_ns += int(latency_ms * 1e6)

    result = measure({"one": growing}, rules=RULES, clock=clock)["one"]
    assert not result.warmup_settled
    assert result.warmup_s >= RULES.warmup_limit_s


def test_the_harness_measures_real_calls_and_restores_the_collector() -> None:
    rules = TimingRules(
        warmup_s=0.01,
        warmup_limit_s=0.02,
        min_time_s=0.03,
        limit_s=0.05,
        slice_s=0.002,
        min_samples=5,
        min_rounds=6,
    )
    assert gc.isenabled()
    result = measure({"null": lambda: None}, rules=rules)["null"]
    assert gc.isenabled()
    assert result.figures["p50_ms"].value >= 0


def test_systems_alternate_and_every_round_is_reported(rng: np.random.Generator) -> None:
    clock, rounds, order = FakeClock(), [], []
    inner = {name: steady(clock, rng, 100.0) for name in "ab"}

    def spy(name: str) -> None:
        order.append(name)
        inner[name]()

    measure(
        {name: (lambda name=name: spy(name)) for name in "ab"},
        rules=RULES,
        clock=clock,
        on_round=rounds.append,
    )
    assert rounds == list(range(1, len(rounds) + 1))
    measured = order[-2 * len(rounds) :]
    pairs = [tuple(measured[i : i + 2]) for i in range(0, len(measured), 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slice_s": 0.0}, "slice_s is 0.0"),
        ({"limit_s": 1.0}, "1.0 s"),
        ({"min_rounds": 5}, "5 rounds"),
    ],
)
def test_rules_that_cannot_work_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        TimingRules(**change)  # type: ignore[arg-type]


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(RequestError, match="0 systems"):
        measure({})
