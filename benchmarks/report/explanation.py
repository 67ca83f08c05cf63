"""Why is INT8 not faster? What the report knows, said in sentences."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from benchmarks.report.document import Comparison, Explanation, LayerReport, SystemReport
from benchmarks.report.timings import conversions_ms, kernels_ms, shared_layers

__all__ = ["explain"]

SLOW_LAYERS = 5
WORTH_NAMING = 0.01  # of the time in kernels, from which a slower layer is no noise
CONVERSION_SHARE = 0.05  # of the time in kernels, from which conversions are worth a sentence
# x86 and Arm instructions that multiply INT8 faster than FP32.
INT8_ARITHMETIC = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def explain(
    comparison: Comparison,
    baseline: SystemReport,
    candidate: SystemReport,
    environment: dict[str, dict[str, str]],
    overhead_us: float,
    disturbances: tuple[str, ...] = (),
) -> Explanation | None:
    """Findings and advice for an INT8 system that is not faster; None for any other.

    Args:
        comparison: of the two.
        baseline: the system compared with.
        candidate: the system that should be faster.
        environment: of the run.
        overhead_us: the harness's own median latency.
        disturbances: of the machine during the run.
    """
    if comparison.speed.verdict == "faster" or candidate.precision != "int8":
        return None
    findings = [f"{reason} during the run" for reason in disturbances]
    advice = ["repeat on a quiet machine"] if disturbances else []
    for part in (
        _coverage(candidate),
        _floating(candidate),
        _promises(candidate),
        _changes(candidate),
        _times(baseline, candidate),
        _conversions(baseline, candidate),
        _hardware(candidate, environment),
        _size(candidate, overhead_us),
    ):
        findings += part[0]
        advice += part[1]
    if comparison.speed.verdict == "undecided":
        advice.append("measure longer (--duration): the interval does not decide yet")
    return Explanation(
        candidate=candidate.name, findings=tuple(findings), advice=tuple(dict.fromkeys(advice))
    )


Part = tuple[list[str], list[str]]


def _coverage(candidate: SystemReport) -> Part:
    """Share of the work that runs INT8."""
    share = candidate.int8_mac_share
    if share is None:
        detailed = ["build with ProfilingVerbosity.DETAILED, so that the engine tells its layers"]
        return (
            ["which layers run INT8 is unknown: the runtime does not tell"],
            detailed if candidate.target.startswith("tensorrt") else [],
        )
    finding = f"{100 * share:.1f} % of the multiply-accumulates run INT8"
    advice = ["quantize more layers: see what kept them in floating point"] if share < 0.9 else []
    return [finding], advice


def _floating(candidate: SystemReport) -> Part:
    """Layers in floating point, by reason, the most work first."""
    groups: dict[str, list[LayerReport]] = defaultdict(list)
    for layer in candidate.layers:
        if layer.precision not in ("int8", "unknown") and not layer.promised:
            groups[layer.why or f"{layer.op_type} without a reason in the manifest"].append(layer)
    total = sum(layer.macs for layer in candidate.layers) or 1
    shares = {why: 100 * sum(x.macs for x in layers) / total for why, layers in groups.items()}
    return [
        f"{len(groups[why])} layers in floating point ({shares[why]:.1f} % of the work): "
        f"{why} ({_names(groups[why])})"
        for why in sorted(groups, key=lambda name: -shares[name])
    ], []


def _promises(candidate: SystemReport) -> Part:
    """Layers that have Q/DQ but run in floating point all the same."""
    broken = [x for x in candidate.layers if x.promised and x.precision not in ("int8", "unknown")]
    if not broken:
        return [], []
    return (
        [f"{len(broken)} layers have Q/DQ and run in floating point ({_names(broken)})"],
        ["check the Q/DQ placement of these layers with the linter: the runtime did not fuse them"],
    )


def _changes(candidate: SystemReport) -> Part:
    """Conversions between INT8 and floating point, along the order of the graph."""
    known = [layer.precision for layer in candidate.layers if layer.precision != "unknown"]
    changes = sum((a == "int8") != (b == "int8") for a, b in pairwise(known))
    if changes < 2:
        return [], []
    return (
        [f"the precision changes {changes} times along the graph; each change converts a tensor"],
        ["keep neighbouring layers in one precision: an INT8 island can cost more than it saves"],
    )


def _times(baseline: SystemReport, candidate: SystemReport) -> Part:
    """Layers that take longer than in the baseline, by the runtimes' profilers."""
    least_ms = WORTH_NAMING * kernels_ms(candidate)
    slower = [layer for layer in shared_layers(baseline, candidate) if layer.lost_ms > least_ms]
    findings = [
        f"{layer.name} ({layer.op_type}, {layer.precisions[1]}) takes {layer.times_ms[1]:.3f} ms, "
        f"{layer.times_ms[0]:.3f} ms in {baseline.name}"
        for layer in slower[:SLOW_LAYERS]
    ]
    quantized = [x for x in slower if x.precisions[1] == "int8" and x.precisions[0] != "int8"]
    names = " ".join(layer.name for layer in quantized[:SLOW_LAYERS])
    return findings, [
        f"leave in floating point (--exclude) what INT8 slows: {names}"
    ] if names else []


def _conversions(baseline: SystemReport, candidate: SystemReport) -> Part:
    """Time in kernels that only change a tensor's type or layout, and outside all kernels."""
    if not (baseline.kernels and candidate.kernels):
        return [], []
    findings, advice = [], []
    before, after = conversions_ms(baseline), conversions_ms(candidate)
    total = kernels_ms(candidate)
    if after > before and after > CONVERSION_SHARE * total:
        findings.append(
            f"conversions of type or layout take {after:.3f} ms of {total:.3f} ms in kernels, "
            f"{before:.3f} ms in {baseline.name}"
        )
        advice.append("quantize the layers between two conversions, or none of them")
    median_ms = candidate.latency.figures["p50_ms"].value
    if median_ms > 2 * total:
        findings.append(
            f"kernels take {total:.3f} ms of a query of {median_ms:.3f} ms: the rest is calls, "
            "copies and waiting, which INT8 does not shorten"
        )
    return findings, advice


def _hardware(candidate: SystemReport, environment: dict[str, dict[str, str]]) -> Part:
    """Whether the processor can multiply INT8 faster at all."""
    flags = environment.get("cpu", {}).get("INT8 instructions", "unknown")
    if candidate.target == "onnxruntime":
        return (
            ["onnxruntime is the reference here, not a fast INT8 runtime for symmetric weights"],
            ["build an engine for this CPU: --target cpu"],
        )
    if candidate.target != "cpu" or flags == "unknown":
        return [], []
    if any(name in flags.split(", ") for name in INT8_ARITHMETIC):
        return [], []
    return (
        [f"this CPU has no INT8 dot product (found: {flags}), so INT8 saves memory, not time"],
        ["measure on the machine that the engine is for"],
    )


def _size(candidate: SystemReport, overhead_us: float) -> Part:
    """Whether there is enough work for arithmetic to matter."""
    median_ms = candidate.latency.figures["p50_ms"].value
    if median_ms > 0.5 and overhead_us < 50 * median_ms:
        return [], []
    return (
        [f"a query takes {median_ms:.3f} ms only: calls and copies outweigh the arithmetic"],
        ["measure larger batches (--batch, --batches)"],
    )


def _names(layers: list[LayerReport]) -> str:
    """The first three names."""
    shown = ", ".join(layer.name for layer in layers[:3])
    return f"{shown}, …" if len(layers) > 3 else shown
