"""The sections of a report in reading order, once for every rendering."""

from __future__ import annotations

from benchmarks.accuracy import AccuracyResult
from benchmarks.report.document import Comparison, Report
from benchmarks.report.layer_sections import layers_section, tensors_section, times_section
from benchmarks.report.load_sections import (
    energy_section,
    memory_section,
    scenarios_section,
    sweeps_section,
)
from benchmarks.report.tables import NONE, Section, format_score, with_interval

__all__ = ["sections"]


def sections(report: Report) -> tuple[Section, ...]:
    """Every section that the report has something for, in reading order."""
    found = (
        _latency(report),
        _device(report),
        _settings(report),
        _accuracy(report),
        _agreement(report),
        scenarios_section(report),
        sweeps_section(report),
        energy_section(report),
        memory_section(report),
        layers_section(report),
        *(
            times_section(report, c.candidate)
            for c in report.comparisons
            if not _explained(report, c)
        ),
        *map(tensors_section, report.systems),
        _gate(report),
    )
    return tuple(section for section in found if len(section.rows) > 1)


def _latency(report: Report) -> Section:
    names = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms")
    header = ["system", *(name.replace("_", " ") for name in names), "samples"]
    return Section(
        title="Latency on the host, end to end",
        text=(
            f"From the call to its return, batch {report.batch}: what a caller waits, copies to "
            "and from a device included. 95 % bootstrap intervals over "
            f"{len(report.systems[0].latency.rounds_ms)} rounds; nothing is clipped. The harness "
            f"itself costs {report.overhead_us:.2f} µs a query, which is in every figure."
        ),
        rows=[
            header,
            *(
                [
                    system.name,
                    *(with_interval(system.latency.figures[name]) for name in names),
                    f"{system.latency.samples_ms.size:,}",
                ]
                for system in report.systems
            ),
        ],
    )


def _device(report: Report) -> Section:
    names = ("h2d_ms", "compute_ms", "d2h_ms")
    return Section(
        title="On the device",
        text=(
            "Medians between CUDA events: copy in, kernels, copy out. trtexec calls their sum "
            "latency; queueing is not in it."
        ),
        rows=[
            ["system", "H2D ms", "compute ms", "D2H ms"],
            *(
                [s.name, *(with_interval(s.device[n]) if n in s.device else NONE for n in names)]
                for s in report.systems
                if s.device
            ),
        ],
    )


def _settings(report: Report) -> Section:
    names = list(dict.fromkeys(name for s in report.systems for name in s.settings))
    gpu = any(s.target.startswith("tensorrt") for s in report.systems)
    flips = (
        " To compare with trtexec: up to 10.16 it includes transfers, launches kernels one by one "
        "and blocks while it waits; from 11.0 its defaults are no transfers, a CUDA graph and "
        "spinning. TF32 is allowed by both unless --noTF32."
    )
    return Section(
        title="Settings",
        text=(
            "What makes latencies comparable or not, and what the build found: SQNR against FP32 "
            "of the engine and of its graph as it is written, on the same samples. Where the "
            "engine's is much lower, the runtime is the cause and not the quantization."
        )
        + (flips if gpu else ""),
        rows=[
            ["system", "target", "precision", *names],
            *(
                [s.name, s.target, s.precision, *(s.settings.get(name, NONE) for name in names)]
                for s in report.systems
            ),
        ],
    )


def _accuracy(report: Report) -> Section:
    found = [(s.name, s.accuracy) for s in report.systems if s.accuracy and s.accuracy.metric]
    names = list(dict.fromkeys(name for _, result in found for name in result.figures))
    drops = {c.candidate: c.accuracy for c in report.comparisons}
    rows = [["system", *names, "drop", "95 % interval", "McNemar p", "verdict"]]
    for system, result in found:
        drop = drops.get(system)
        cells = [_score(result, name) for name in names]
        if drop is None:
            rows.append([system, *cells, "baseline", NONE, NONE, NONE])
            continue
        test = drop.mcnemar
        rows.append(
            [
                system,
                *cells,
                f"{drop.drop:.2f} {drop.unit}",
                f"{drop.interval.low:.2f} to {drop.interval.high:.2f}",
                f"{test.p_value:.2g} ({test.only_first} : {test.only_second})" if test else NONE,
                drop.verdict,
            ]
        )
    return Section(
        title="Accuracy",
        text=(
            f"On {report.data}. Drops are paired: both systems answered the same samples. "
            "McNemar's exact test counts the samples that only one of the two got right."
        ),
        rows=rows,
    )


def _score(result: AccuracyResult, name: str) -> str:
    """A figure in percent where it is a share."""
    if name not in result.figures:
        return NONE
    value = result.figures[name]
    return format_score(value) if result.unit == "share" else f"{value:.4g}"


def _agreement(report: Report) -> Section:
    rows = [["system", "output", "SQNR dB", "cosine", "largest error", "same top-1"]]
    for system in report.systems:
        agreement = system.accuracy.agreement if system.accuracy else None
        if agreement is None:
            continue
        same = NONE if agreement.top1 is None else format_score(agreement.top1)
        if not agreement.outputs:
            rows.append([system.name, *[NONE] * 4, same])
        for name, output in agreement.outputs.items():
            rows.append(
                [
                    system.name,
                    name,
                    "equal" if output.sqnr_db is None else f"{output.sqnr_db:.1f}",
                    f"{output.cosine:.6f}",
                    f"{output.max_abs_error:.4g}",
                    same,
                ]
            )
    return Section(
        title=f"Likeness to {report.systems[0].name}",
        text="Outputs compared without labels: signal to quantization noise, cosine, same class.",
        rows=rows,
    )


def _explained(report: Report, comparison: Comparison) -> bool:
    """Whether "Why is it not faster?" shows the times already."""
    return any(entry.candidate == comparison.candidate for entry in report.explanations)


def _gate(report: Report) -> Section:
    return Section(
        title="Limits",
        text="What was demanded with this run.",
        rows=[
            ["limit on", "demanded", "found", "kept"],
            *(
                [check.what, check.limit, check.found, "yes" if check.passed else "no"]
                for check in report.gate
            ),
        ],
    )
