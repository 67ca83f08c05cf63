"""Where the time of a query goes: the runtime's own profiler, its kernels mapped to ONNX nodes.

    OpenVINO   PERF_COUNT: one time for each node of the executed graph, microseconds
    TensorRT   IProfiler: one time for each layer of the plan, by CUDA events

A profiler slows an engine down, so it runs on a model or context of its own, made on demand. The
sum of the kernels is less than the latency of a call: copies, checks and launches are not in it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engines.coverage import executed_kernel
from engines.tensorrt.layers import COPY, plan_kernel

__all__ = ["RUNS", "WARM_UP", "LayerTime", "openvino_layer_times", "tensorrt_layer_times"]

WARM_UP, RUNS = 3, 30  # runs that are dropped, runs whose median counts


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One kernel that a runtime executes.

    Attributes:
        name: as the runtime calls it.
        kind: the runtime's word for what it does, e.g. ``Convolution``, ``Reorder``.
        nodes: names of the ONNX nodes that it computes; a fused kernel has several.
        precision: that it computes in; ``unknown`` where the runtime does not tell.
        time_ms: median over ``RUNS`` queries.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: str
    time_ms: float

    def renamed(self, names: Mapping[str, str]) -> LayerTime:
        """With the nodes' own names for what the runtime calls by another."""
        nodes = dict.fromkeys(names.get(node, node) for node in self.nodes)
        return replace(self, nodes=tuple(nodes))


def openvino_layer_times(
    executed: Iterable[Mapping[str, str]], runs: Sequence[Iterable[tuple[str, float]]]
) -> tuple[LayerTime, ...]:
    """The kernels in the order of the executed graph.

    Args:
        executed: ``rt_info`` of its nodes with their ``name``, as ``executed_nodes`` reads it.
        runs: for each run the executed nodes' names and milliseconds.
    """
    times = _medians(runs)
    found = []
    for info in executed:
        if info["name"] in times:
            nodes, precision = executed_kernel(info)
            found.append(
                LayerTime(
                    name=info["name"],
                    kind=info["layerType"],
                    nodes=nodes,
                    precision=precision,
                    time_ms=times[info["name"]],
                )
            )
    return tuple(found)


def tensorrt_layer_times(
    inspected: Mapping[str, object], runs: Sequence[Iterable[tuple[str, float]]]
) -> tuple[LayerTime, ...]:
    """The kernels in the order in which the profiler reported them.

    Args:
        inspected: JSON of the engine inspector; a layer is a mapping only where the engine was
            built with detailed verbosity, else its name is all that is known.
        runs: for each run the names and milliseconds that the profiler was told.
    """
    listed = inspected.get("Layers", ())
    layers = listed if isinstance(listed, Sequence) else ()
    detailed = {entry["Name"]: entry for entry in layers if isinstance(entry, Mapping)}
    found = []
    for name, time_ms in _medians(runs).items():
        layer = detailed.get(name, {"Name": name})
        nodes, precision = plan_kernel(layer)
        kind = "Reformat" if name.startswith(COPY) else str(layer.get("LayerType", "unknown"))
        found.append(
            LayerTime(name=name, kind=kind, nodes=nodes, precision=precision, time_ms=time_ms)
        )
    return tuple(found)


def _medians(runs: Sequence[Iterable[tuple[str, float]]]) -> dict[str, float]:
    """Median by name; a kernel that a run names twice (in a loop) counts with its sum."""
    totals = []
    for run in runs:
        total: defaultdict[str, float] = defaultdict(float)
        for name, time_ms in run:
            total[name] += time_ms
        totals.append(total)
    names = dict.fromkeys(name for total in totals for name in total)
    return {name: statistics.median(total[name] for total in totals) for name in names}
