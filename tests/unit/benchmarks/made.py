"""A whole report, made from simulated systems: what renderings and gates are tested on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.accuracy import AccuracyResult, compare_accuracy
from benchmarks.accuracy.agreement import Agreement, OutputAgreement
from benchmarks.accuracy.result import mean_result
from benchmarks.latency import (
    Figure,
    LatencyResult,
    ScenarioResult,
    SweepPoint,
    TimingRules,
    compare_speed,
    measure,
)
from benchmarks.machine import EnergyResult, MemoryResult, Steadiness
from benchmarks.report.document import (
    Comparison,
    KernelReport,
    LayerReport,
    RangeHistogram,
    Report,
    SystemReport,
    TensorReport,
)
from benchmarks.statistics import Interval
from tests.unit.benchmarks.simulated import FakeClock, steady

RULES = TimingRules(min_time_s=0.5, limit_s=2.0, min_rounds=10)


def latencies(**mean_ms: float) -> dict[str, LatencyResult]:
    """Measured side by side on a simulated clock."""
    clock, rng = FakeClock(), np.random.default_rng(7)
    systems = {name: steady(clock, rng, value) for name, value in mean_ms.items()}
    return measure(systems, rules=RULES, clock=clock)


def right(count: int, of: int) -> AccuracyResult:
    """The first ``count`` of ``of`` samples right."""
    hits = [1.0] * count + [0.0] * (of - count)
    return mean_result("top1", {"top1": hits, "top5": [1.0] * of})


def system(name: str, latency: LatencyResult, accuracy: AccuracyResult | None) -> SystemReport:
    int8 = "int8" in name
    return SystemReport(
        name=name,
        path=f"out/{name}.engine",
        sha256="0123456789abcdef" * 4,
        size_bytes=460_000 if int8 else 1_480_000,
        target="cpu",
        precision="int8" if int8 else "fp32",
        settings={"threads": "2"},
        latency=latency,
        device={
            "h2d_ms": Figure(value=0.012),
            "compute_ms": Figure(value=0.4, interval=Interval(low=0.39, high=0.41)),
            "d2h_ms": Figure(value=0.004),
        },
        accuracy=accuracy,
        memory=MemoryResult(
            load_ms=210.0, first_ms=14.2, host_peak_bytes=120 << 20, host_growth_bytes=61 << 20
        ),
        energy=EnergyResult(
            meter="INA rails VDD_IN",
            idle_w=4.3,
            mean_w=9.8,
            per_image_j=0.0031,
            gross_per_image_j=0.0055,
            seconds=3.0,
            images=5320,
        ),
        layers=(
            LayerReport(
                name="stem", op_type="Conv", precision="fp32", macs=3_000_000,
                why="first: reads the image" if int8 else "", time_ms=0.09 if int8 else 0.06,
            ),
            LayerReport(
                name="block", op_type="Conv", precision="int8" if int8 else "fp32",
                macs=27_000_000, promised=int8, time_ms=0.11 if int8 else 0.35,
                sqnr_db=31.25 if int8 else None,
            ),
        ),
        kernels=kernels(int8=int8),
        tensors=tensors() if int8 else (),
    )  # fmt: skip


def kernels(*, int8: bool) -> tuple[KernelReport, ...]:
    """Two layers, a conversion in front of the second, and a Softmax."""
    return (
        kernel("k0", "Convolution", "fp32", 0.09 if int8 else 0.06, "stem", "relu"),
        kernel("k1", "Reorder", "int8" if int8 else "fp32", 0.03 if int8 else 0.01),
        kernel("k2", "Convolution", "int8" if int8 else "fp32", 0.11 if int8 else 0.35, "block"),
        kernel("k3", "Softmax", "fp32", 0.02, "softmax"),
    )


def kernel(name: str, kind: str, precision: str, time_ms: float, *nodes: str) -> KernelReport:
    return KernelReport(name=name, kind=kind, nodes=nodes, precision=precision, time_ms=time_ms)


def tensors() -> tuple[TensorReport, ...]:
    """An input that rounds finely, a layer that lost something, one that lost nothing."""
    return tuple(
        TensorReport(
            tensor=name, node=node, op_type=op, sqnr_db=sqnr, own_sqnr_db=own, position=place
        )
        for place, (name, node, op, sqnr, own) in enumerate(
            [
                ("image", "", "input", 48.0, 48.0),
                ("stem_output", "stem", "Conv", None, None),
                ("block_output", "block", "Conv", 31.25, 36.5),
            ]
        )
    )


def made_report(base_ms: float = 2.0, int8_ms: float = 1.0, lost: int = 2) -> Report:
    """FP32 against INT8; ``lost`` of 500 samples wrong that FP32 has right."""
    found = latencies(fp32=base_ms, int8=int8_ms)
    scores = {"fp32": right(490, 500), "int8": right(490 - lost, 500)}
    likeness = Agreement(
        reference="fp32",
        outputs={"logits": OutputAgreement(sqnr_db=24.1, cosine=0.998, max_abs_error=0.4)},
        top1=0.994,
    )
    scores["int8"] = replace(scores["int8"], agreement=likeness)
    systems = tuple(system(name, found[name], scores[name]) for name in ("fp32", "int8"))
    return Report(
        created="2026-01-02T03:04:05+00:00",
        command="python -m benchmarks fp32.engine int8.engine --data 'my test'",
        data="my test (500 samples)",
        environment={
            "cpu": {"model": "Example CPU <2 GHz>", "INT8 instructions": "avx2, avx512_vnni"},
            "software": {"git commit": "abc1234"},
        },
        rules=RULES,
        batch=1,
        overhead_us=0.13,
        steadiness=Steadiness(verdict="steady", reasons=(), facts={"CPU clock": "2000 MHz"}),
        systems=systems,
        comparisons=(
            Comparison(
                baseline="fp32",
                candidate="int8",
                speed=compare_speed(found["fp32"], found["int8"]),
                accuracy=compare_accuracy(scores["fp32"], scores["int8"]),
            ),
        ),
        scenarios=(made_scenario(),),
        sweeps=made_sweeps(),
        ranges=(
            RangeHistogram(
                tensor="stem_output", width=0.1,
                counts=tuple(int(1e6 * np.exp(-i / 4)) for i in range(60)),
                amax=4.2, method="entropy",
            ),
        ),
        warnings=("fp32 is unstable: <example>",),
    )  # fmt: skip


def made_scenario() -> ScenarioResult:
    return ScenarioResult(
        system="int8",
        scenario="Server",
        figures={"p50_ms": 1.1, "p90_ms": 2.0, "p95_ms": 2.4, "p99_ms": 3.1,
                 "mean_ms": 1.2, "max_ms": 9.0, "throughput_per_s": 640.0},
        valid=False,
        reasons=("it was too short",),
        queries=900,
        images_per_query=1,
        workers=1,
        rate_per_s=640.0,
        bound_ms=10.0,
    )  # fmt: skip


def made_sweeps() -> tuple[SweepPoint, ...]:
    return tuple(
        SweepPoint(
            system=name, kind=kind, size=size, p50_ms=size / rate * 1e3,
            p99_ms=size / rate * 1.2e3,
            throughput_per_s=Figure(
                value=rate, interval=Interval(low=0.97 * rate, high=1.02 * rate)
            ),
            stable=True,
        )
        for kind in ("batch", "threads")
        for name, scale in (("fp32", 1.0), ("int8", 2.0))
        for size, rate in ((1, 500 * scale), (4, 800 * scale), (16, 950 * scale))
    )  # fmt: skip
