from __future__ import annotations

import re
from dataclasses import replace

import pytest

from artefacts.errors import GateMissedError, RequestError
from benchmarks.report.document import LayerReport, Report
from benchmarks.report.explanation import explain
from benchmarks.report.gate import Limits, check_limits, raise_if_missed
from benchmarks.report.timings import conversions_ms, side_by_side
from tests.unit.benchmarks.made import kernel, made_report


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report(base_ms=2.0, int8_ms=1.0, lost=2)  # 2×, 0.4 points


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        (Limits(max_drop=0.5, min_speedup=1.5), None),
        (Limits(max_drop=0.4), None),
        (Limits(max_drop=0.39), "top1 drop of int8 is 0.40 points .* at most 0.39 points"),
        (Limits(min_speedup=2.5), "speed-up of int8 is .* expected at least 2.5×"),
        (Limits(max_drop=0.1, min_speedup=9), "1 more limits missed"),
    ],
)
def test_limits_are_kept_or_missed(report: Report, limits: Limits, missed: str | None) -> None:
    checks = check_limits(report, limits)
    if missed is None:
        raise_if_missed(checks)
        assert checks
        return
    with pytest.raises(GateMissedError, match=missed) as caught:
        raise_if_missed(checks)
    assert caught.value.exit_code == 1


def test_a_speedup_must_be_shown_not_only_found(report: Report) -> None:
    speed = report.comparisons[0].speed
    between = (speed.interval.low + speed.speedup) / 2
    with pytest.raises(GateMissedError):
        raise_if_missed(check_limits(report, Limits(min_speedup=between)))


def test_a_ratio_of_two_modes_passes_no_gate(report: Report) -> None:
    comparison = report.comparisons[0]
    blurred = replace(comparison, speed=replace(comparison.speed, meaningful=False))
    with pytest.raises(GateMissedError):
        raise_if_missed(
            check_limits(replace(report, comparisons=(blurred,)), Limits(min_speedup=1.1))
        )


def test_no_gate_passes_for_want_of_a_measurement(report: Report) -> None:
    alone = replace(report, systems=report.systems[:1], comparisons=())
    with pytest.raises(RequestError, match="with 1 system"):
        check_limits(alone, Limits(min_speedup=1.0))
    blind = replace(report, comparisons=(replace(report.comparisons[0], accuracy=None),))
    with pytest.raises(RequestError, match="without labels"):
        check_limits(blind, Limits(max_drop=1.0))


def test_the_same_again_is_no_regression(report: Report) -> None:
    checks = check_limits(report, Limits(stored=report))
    assert len(checks) == 5  # accuracy and latency of two systems, one speed-up
    raise_if_missed(checks)


def test_slower_and_less_accurate_than_stored_is_a_regression(report: Report) -> None:
    worse = made_report(base_ms=2.0, int8_ms=1.3, lost=9)
    failed = [c.what for c in check_limits(worse, Limits(stored=report)) if not c.passed]
    assert failed == [
        "top1 of int8 since the stored report",
        "median latency of int8 since the stored report",
        "speed-up of int8 since the stored report",
    ]
    allowed = Limits(stored=report, max_drop=2.0)
    assert "top1 of int8 since the stored report" not in [
        c.what for c in check_limits(worse, allowed) if not c.passed
    ]


def test_latencies_of_another_machine_are_not_compared(report: Report) -> None:
    elsewhere = replace(report, environment={"cpu": {"model": "another"}})
    checks = check_limits(made_report(base_ms=8.0, int8_ms=4.0), Limits(stored=elsewhere))
    assert not [check for check in checks if check.what.startswith("median latency")]
    raise_if_missed(checks)


def test_a_report_of_other_systems_is_refused(report: Report) -> None:
    renamed = replace(
        report,
        systems=tuple(replace(s, name=f"{s.name}-b") for s in report.systems),
        comparisons=(),
    )
    with pytest.raises(RequestError, match=r"\['fp32-b', 'int8-b'\]"):
        check_limits(report, Limits(stored=renamed))


def explained(report: Report, **changes: object) -> str:
    """The explanation of the INT8 system with some fields changed."""
    candidate = replace(report.systems[1], **changes)  # type: ignore[arg-type]
    found = explain(
        report.comparisons[0], report.systems[0], candidate, report.environment, report.overhead_us
    )
    return "" if found is None else "\n".join((*found.findings, "--", *found.advice))


def test_a_faster_engine_needs_no_explanation(report: Report) -> None:
    assert explained(report) == ""
    assert explained(made_report(int8_ms=3.0), precision="fp16") == ""


def test_layers_in_floating_point_are_told_with_their_rule() -> None:
    text = explained(made_report(int8_ms=3.0))
    assert "90.0 % of the multiply-accumulates run INT8" in text
    assert "1 layers in floating point (10.0 % of the work): first: reads the image (stem)" in text
    assert "stem (Conv, fp32) takes 0.090 ms, 0.060 ms in fp32" in text
    # It is slower, but runs in floating point already: no advice on it.
    assert "--exclude" not in text


def test_what_int8_slows_and_conversions_are_told() -> None:
    report = made_report(int8_ms=3.0)
    base, int8 = report.systems
    slow = tuple(
        replace(layer, precision="int8", time_ms=0.3) if layer.name == "stem" else layer
        for layer in int8.layers
    )
    text = explained(report, layers=slow)
    assert "stem (Conv, int8) takes 0.300 ms, 0.060 ms in fp32" in text
    assert "leave in floating point (--exclude) what INT8 slows: stem" in text
    assert "conversions of type or layout take 0.030 ms of 0.250 ms in kernels, 0.010 ms" in text
    assert "quantize the layers between two conversions" in text
    assert re.search(r"kernels take 0\.250 ms of a query of [23]\.\d+ ms", text)
    both = replace(report, systems=(replace(base, layers=slow), int8))
    slower = tuple(replace(layer, time_ms=0.9) for layer in slow)
    assert "--exclude" not in explained(both, layers=slower), "INT8 is not what slows it"
    nearly = tuple(replace(layer, time_ms=0.0601) for layer in int8.layers if layer.name == "stem")
    assert "stem (Conv" not in explained(report, layers=nearly), "a difference below 1 % is noise"
    assert "conversions" not in explained(report, kernels=())


def test_both_engines_stand_side_by_side() -> None:
    base, int8 = made_report().systems
    header, *rows = side_by_side(base, int8)
    assert header == [
        *("layer", "op", "fp32 runs", "int8 runs", "fp32 ms", "int8 ms", "difference ms"),
    ]
    assert rows == [
        ["stem", "Conv", "fp32", "fp32", "0.0600", "0.0900", "+0.0300"],
        ["block", "Conv", "fp32", "int8", "0.3500", "0.1100", "-0.2400"],
        ["conversions of type or layout", "–", "–", "–", "0.0100", "0.0300", "+0.0200"],
        ["other kernels", "–", "–", "–", "0.0200", "0.0200", "+0.0000"],
        ["all kernels", "–", "–", "–", "0.4400", "0.2500", "-0.1900"],
        rows[-1],
    ]
    medians = [system.latency.figures["p50_ms"].value for system in (base, int8)]
    outside = medians[0] - 0.44, medians[1] - 0.25
    assert rows[-1][:4] == ["outside the kernels", "–", "–", "–"]
    assert [float(cell) for cell in rows[-1][4:6]] == pytest.approx(outside, abs=1e-4)


def test_a_kernel_of_qdq_nodes_is_a_conversion() -> None:
    qdq = kernel("k", "Subgraph", "int8", 0.5, "x_QuantizeLinear", "x_DequantizeLinear")
    fused = kernel("k", "Subgraph", "int8", 0.7, "relu", "x_QuantizeLinear")
    int8 = replace(made_report().systems[1], kernels=(qdq, fused))
    assert conversions_ms(int8) == 0.5


def test_layers_that_only_one_engine_has_are_shown_without_a_difference() -> None:
    base, int8 = made_report().systems
    merged = replace(int8, layers=(replace(int8.layers[1], name="merged"),))
    rows = {row[0]: row for row in side_by_side(base, merged)}
    assert rows["block"][2:] == ["fp32", "–", "0.3500", "–", "–"]
    assert rows["merged"][2:] == ["–", "int8", "–", "0.1100", "–"]


def test_broken_promises_and_islands_are_told() -> None:
    layers = tuple(
        LayerReport(name=f"conv{i}", op_type="Conv", precision=p, macs=10, promised=p == "fp16")
        for i, p in enumerate(("int8", "fp16", "int8", "fp16", "int8"))
    )
    text = explained(made_report(int8_ms=3.0), layers=layers)
    assert "2 layers have Q/DQ and run in floating point (conv1, conv3)" in text
    assert "the precision changes 4 times" in text


def test_what_the_runtime_does_not_tell_is_said_to_be_unknown() -> None:
    assert "which layers run INT8 is unknown" in explained(made_report(int8_ms=3.0), layers=())


def test_hardware_and_size_are_reasons_too() -> None:
    report = made_report(base_ms=0.05, int8_ms=0.06)
    assert "a query takes 0.060 ms only" in explained(report)
    assert "not a fast INT8 runtime" in explained(report, target="onnxruntime")
    old = replace(report, environment={"cpu": {"INT8 instructions": "avx2"}})
    assert "no INT8 dot product (found: avx2)" in explained(old)


def test_a_disturbed_machine_is_the_first_suspect() -> None:
    report = made_report(int8_ms=3.0)
    found = explain(
        report.comparisons[0],
        report.systems[0],
        report.systems[1],
        report.environment,
        report.overhead_us,
        ("other programs used 80 % of the CPU time",),
    )
    assert found is not None
    assert found.findings[0] == "other programs used 80 % of the CPU time during the run"
    assert found.advice[0] == "repeat on a quiet machine"


def test_undecided_advises_to_measure_longer() -> None:
    report = made_report(base_ms=1.0, int8_ms=1.01)
    comparison = report.comparisons[0]
    undecided = replace(comparison, speed=replace(comparison.speed, verdict="undecided"))
    assert "--duration" in explained(replace(report, comparisons=(undecided,)))
