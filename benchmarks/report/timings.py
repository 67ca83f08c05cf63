"""Where the time goes: kernels of two systems side by side, by the ONNX layer they compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.report.document import KernelReport, LayerReport, SystemReport
from benchmarks.report.tables import Rows

__all__ = [
    "CONVERTS",
    "TimedLayer",
    "assign_times",
    "conversions_ms",
    "kernels_ms",
    "shared_layers",
    "side_by_side",
]

NONE = "–"
# What runtimes call kernels that only change a tensor's type or layout: OpenVINO, TensorRT,
# onnxruntime.
CONVERTS = frozenset(
    {
        *("Reorder", "Convert", "FakeQuantize", "Quantize", "Dequantize", "Reformat"),
        *("QuantizeLinear", "DequantizeLinear", "Cast", "ReorderInput", "ReorderOutput"),
    }
)


@dataclass(frozen=True, kw_only=True)
class TimedLayer:
    """One layer in two systems; a time is None where no kernel of the system names the layer."""

    name: str
    op_type: str
    precisions: tuple[str, str]
    times_ms: tuple[float | None, float | None]

    @property
    def lost_ms(self) -> float:
        """By how much the second is slower; 0 where one of the times is missing."""
        before, after = self.times_ms
        return 0.0 if before is None or after is None else after - before


def assign_times(
    layers: Sequence[LayerReport], kernels: Iterable[KernelReport]
) -> tuple[LayerReport, ...]:
    """Layers with the time of the kernels that compute them.

    A kernel that fuses several layers counts for the first that it names: a runtime does not
    tell how it shares its time among them. Several kernels of one layer count together.
    """
    known = {layer.name for layer in layers}
    times: dict[str, float] = {}
    for kernel in kernels:
        first = next((node for node in kernel.nodes if node in known), None)
        if first is not None:
            times[first] = times.get(first, 0.0) + kernel.time_ms
    return tuple(replace(layer, time_ms=times.get(layer.name)) for layer in layers)


def shared_layers(baseline: SystemReport, candidate: SystemReport) -> tuple[TimedLayer, ...]:
    """The weighted layers of both, those that lost the most time first."""
    before = {layer.name: layer for layer in baseline.layers}
    names = dict.fromkeys([*before, *(layer.name for layer in candidate.layers)])
    after = {layer.name: layer for layer in candidate.layers}
    found = [_timed(name, before.get(name), after.get(name)) for name in names]
    return tuple(sorted(found, key=lambda layer: -layer.lost_ms))


def _timed(name: str, before: LayerReport | None, after: LayerReport | None) -> TimedLayer:
    pair = (before, after)
    return TimedLayer(
        name=name,
        op_type=next(layer.op_type for layer in reversed(pair) if layer),
        precisions=(_precision(before), _precision(after)),
        times_ms=(before.time_ms if before else None, after.time_ms if after else None),
    )


def _precision(layer: LayerReport | None) -> str:
    return layer.precision if layer else NONE


def kernels_ms(system: SystemReport) -> float:
    """All kernels of a query together."""
    return sum(kernel.time_ms for kernel in system.kernels)


def conversions_ms(system: SystemReport) -> float:
    """Kernels that only change a tensor's type or layout, together."""
    return sum(kernel.time_ms for kernel in system.kernels if _converts(kernel))


def _converts(kernel: KernelReport) -> bool:
    """By its kind, or because nothing but Q/DQ nodes is in it."""
    only_qdq = all(node.lower().endswith("quantizelinear") for node in kernel.nodes)
    return kernel.kind in CONVERTS or (bool(kernel.nodes) and only_qdq)


def side_by_side(baseline: SystemReport, candidate: SystemReport) -> Rows:
    """Weighted layers, conversions, the rest, and what lies outside the kernels."""
    header = ["layer", "op", f"{baseline.name} runs", f"{candidate.name} runs"]
    header += [f"{baseline.name} ms", f"{candidate.name} ms", "difference ms"]
    rows = [
        [layer.name, layer.op_type, *layer.precisions, *_cells(*layer.times_ms)]
        for layer in shared_layers(baseline, candidate)
        if layer.times_ms != (None, None)
    ]
    pair = (baseline, candidate)
    for title, total in (
        ("conversions of type or layout", conversions_ms),
        ("other kernels", _others_ms),
        ("all kernels", kernels_ms),
        ("outside the kernels", _outside_ms),
    ):
        rows.append([title, NONE, NONE, NONE, *_cells(*map(total, pair))])
    return [header, *rows]


def _others_ms(system: SystemReport) -> float:
    weighted = sum(layer.time_ms or 0.0 for layer in system.layers)
    return max(kernels_ms(system) - weighted - conversions_ms(system), 0.0)


def _outside_ms(system: SystemReport) -> float:
    """Latency that no kernel explains: calls, checks, copies, launches.

    Profiling slows kernels down, so that their sum may exceed the latency without a profiler.
    """
    return system.latency.figures["p50_ms"].value - kernels_ms(system)


def _cells(before: float | None, after: float | None) -> list[str]:
    shown = [NONE if time is None else f"{time:.4f}" for time in (before, after)]
    if before is None or after is None:
        return [*shown, NONE]
    return [*shown, f"{round(after - before, 4) + 0.0:+.4f}"]  # + 0.0: no negative zero
