"""Families of metrics, and Prometheus' text of them."""

from __future__ import annotations

import math

from engines import Family, InputDrift, OutputAgreement, PoolStatistics, ShadowStatistics
from engines.monitoring.distance import Distances
from engines.monitoring.recorder import RecorderStatistics
from engines.serving.metrics import drift_families, families, prometheus_text, recorder_families

DISTANCES = Distances(saturation=0.25, psi=1.5, ks=0.5, step_psi=0.1, colour_ks=0.0)
LIMITS = Distances(saturation=0.01, psi=0.2, ks=0.1, step_psi=0.2, colour_ks=0.1)
POOL = PoolStatistics(
    size=2,
    in_use=1,
    waiting=0,
    served=10,
    failed=1,
    rejected=2,
    timed_out=3,
    not_finite=0,
    failed_in_row=0,
    wait_s=0.5,
    run_s=1.25,
)


class Standing:
    """A shadow, or a recorder, that says what it is told to."""

    def __init__(self, statistics: object) -> None:
        self.statistics = lambda: statistics


def shadowed(same: float | None) -> ShadowStatistics:
    output = OutputAgreement(name="logits", same=same, sqnr_db=same and 30.0, other_shapes=0)
    milliseconds = None if same is None else 2.0
    return ShadowStatistics(
        sha256="b",
        share=0.1,
        drawn=7,
        compared=5,
        dropped=2,
        failed=0,
        error="",
        outputs=(output,),
        serving_p50_ms=milliseconds,
        serving_p99_ms=milliseconds,
        shadow_p50_ms=milliseconds,
        shadow_p99_ms=milliseconds,
    )


def test_what_stands_beside_a_pool_is_shown_where_it_is_there() -> None:
    alone = prometheus_text(families(POOL, "a", drift=None, recorder=None, shadow=None))
    lines = alone.splitlines()
    assert 'engine_info{sha256="a"} 1' in lines
    assert "engine_pool_size 2" in lines
    assert "engine_run_seconds_total 1.25" in lines
    assert not [line for line in lines if "shadow" in line or "recorder" in line or "drift" in line]
    beside = families(POOL, "a", drift=None, recorder=None, shadow=Standing(shadowed(0.75)))  # type: ignore[arg-type]
    lines = prometheus_text(beside).splitlines()
    assert 'engine_shadow_same{output="logits"} 0.75' in lines
    assert 'engine_shadow_sqnr_decibels{output="logits"} 30.0' in lines
    assert 'engine_shadow_seconds{engine="shadow",quantile="0.99"} 0.002' in lines
    assert "engine_shadow_dropped_total 2" in lines


def test_what_is_not_known_yet_is_left_out() -> None:
    young = families(POOL, "a", drift=None, recorder=None, shadow=Standing(shadowed(None)))  # type: ignore[arg-type]
    text = prometheus_text(young)
    assert "engine_shadow_compared_total 5" in text
    assert "shadow_same" not in text
    assert "shadow_seconds" not in text
    fresh = InputDrift(name="x", requests=0, distances=None, limits=None, verdict="unknown")
    text = prometheus_text(drift_families({"x": fresh}))
    assert 'engine_drift_verdict{input="x",verdict="unknown"} 1' in text
    assert "distance" not in text


def test_drift_by_input_and_distance() -> None:
    moved = InputDrift(
        name='im"age\\', requests=50, distances=DISTANCES, limits=LIMITS, verdict="moved"
    )
    lines = prometheus_text(drift_families({moved.name: moved})).splitlines()
    name = r'input="im\"age\\"'
    assert f'engine_drift_distance{{{name},distance="psi"}} 1.5' in lines
    assert f'engine_drift_limit{{{name},distance="colour_ks"}} 0.1' in lines
    assert f"engine_drift_requests{{{name}}} 50" in lines
    verdicts = [line.split()[-1] for line in lines if line.startswith("engine_drift_verdict{")]
    assert verdicts == ["0", "1", "0"]


def test_counters_of_a_recorder() -> None:
    statistics = RecorderStatistics(
        seen=9, drawn=4, kept=3, bytes=100, dropped=1, failed=0, error=""
    )
    lines = prometheus_text(recorder_families(statistics)).splitlines()
    assert "# TYPE engine_recorder_seen_total counter" in lines
    assert "engine_recorder_kept 3" in lines
    assert "engine_recorder_bytes 100" in lines


def test_infinite_values_are_written_as_prometheus_reads_them() -> None:
    family = Family(name="x", kind="gauge", help="X.", samples=(({}, math.inf), ({}, math.nan)))
    assert prometheus_text([family]).splitlines()[2:] == ["x +Inf", "x NaN"]
