"""The report: everything that was measured, said once; all renderings come from it."""

from __future__ import annotations

from dataclasses import dataclass

from artefacts.errors import RequestError
from benchmarks.accuracy import AccuracyComparison, AccuracyResult
from benchmarks.latency import (
    Figure,
    LatencyResult,
    ScenarioResult,
    SpeedComparison,
    SweepPoint,
    TimingRules,
)
from benchmarks.machine import EnergyResult, MemoryResult, Steadiness

__all__ = [
    "AGAINST_GRAPH",
    "LIKENESS",
    "VERSION",
    "Comparison",
    "Explanation",
    "GateCheck",
    "KernelReport",
    "LayerReport",
    "RangeHistogram",
    "Report",
    "SystemReport",
    "TensorReport",
]

VERSION = 1
AGAINST_GRAPH = "against its graph"
LIKENESS = "against FP32"
"""The setting of an engine that says how far it is from the graph it was made from."""


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One weighted layer of an engine.

    Attributes:
        name: of the ONNX node.
        op_type: ONNX's word.
        precision: that the runtime executes; ``unknown`` where it does not tell.
        macs: multiply-accumulates for one image.
        promised: whether the graph asked for INT8.
        why: the rule or op that kept it in floating point; empty for none known.
        time_ms: by the runtime's profiler; None where it has none.
        sqnr_db: of its output in the Q/DQ graph against the float graph; None where unknown.
    """

    name: str
    op_type: str
    precision: str
    macs: int
    promised: bool = False
    why: str = ""
    time_ms: float | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class KernelReport:
    """One kernel that a runtime executes, timed by its profiler.

    Attributes:
        name: as the runtime calls it.
        kind: the runtime's word, e.g. ``Convolution``, ``Reorder``.
        nodes: ONNX nodes that it computes.
        precision: that it computes in; ``unknown`` where the runtime does not tell.
        time_ms: median of a query.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: str
    time_ms: float


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """What INT8 does to one tensor, by simulation of the Q/DQ graph.

    Attributes:
        tensor: its name.
        node: that makes it; empty for an input.
        op_type: of that node.
        sqnr_db: against the float graph, with all errors that reach it; None where equal.
        own_sqnr_db: of its own Q/DQ pair alone; None where it has none or changes nothing.
        position: of the node in the graph.
    """

    tensor: str
    node: str
    op_type: str
    sqnr_db: float | None
    own_sqnr_db: float | None
    position: int


@dataclass(frozen=True, kw_only=True)
class RangeHistogram:
    """A calibrated tensor: how its absolute values lie, and where it is clipped.

    Attributes:
        tensor: its name.
        width: of one bin.
        counts: values per bin, from 0 on.
        amax: the chosen threshold.
        method: that chose it.
    """

    tensor: str
    width: float
    counts: tuple[int, ...]
    amax: float
    method: str


@dataclass(frozen=True, kw_only=True)
class SystemReport:
    """One engine or model.

    Attributes:
        name: unique within the report.
        path: the file, as it was given.
        sha256: of the file.
        size_bytes: of the file.
        target: ``cpu``, ``tensorrt``, ``tensorrt-rtx`` or ``onnxruntime``.
        precision: as the manifest says, else ``unknown``.
        settings: what makes latencies comparable or not: transfers, CUDA graph, TF32, threads.
        latency: host, end to end.
        device: ``h2d_ms compute_ms d2h_ms`` by CUDA events; empty without a GPU.
        accuracy: None where none was asked for.
        memory: None where it was not probed.
        energy: None without a readable meter.
        layers: weighted layers, in the order of the graph; empty where unknown.
        kernels: by the runtime's profiler, which slows them down; empty where it has none.
        tensors: in the order of the graph; empty where the graphs do not lie beside the engine.
    """

    name: str
    path: str
    sha256: str
    size_bytes: int
    target: str
    precision: str
    settings: dict[str, str]
    latency: LatencyResult
    device: dict[str, Figure]
    accuracy: AccuracyResult | None = None
    memory: MemoryResult | None = None
    energy: EnergyResult | None = None
    layers: tuple[LayerReport, ...] = ()
    kernels: tuple[KernelReport, ...] = ()
    tensors: tuple[TensorReport, ...] = ()

    @property
    def int8_mac_share(self) -> float | None:
        """Multiply-accumulates that run INT8, of all; None where the layers are not known."""
        total = sum(layer.macs for layer in self.layers)
        if not total or all(layer.precision == "unknown" for layer in self.layers):
            return None
        return sum(layer.macs for layer in self.layers if layer.precision == "int8") / total


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One system against the baseline, the first of the report."""

    baseline: str
    candidate: str
    speed: SpeedComparison
    accuracy: AccuracyComparison | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a system is not faster than the baseline.

    Attributes:
        candidate: the system.
        findings: what was seen.
        advice: what to try, best first.
    """

    candidate: str
    findings: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One limit that the user set, and whether it was kept."""

    what: str
    limit: str
    found: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole run.

    Attributes:
        version: of this format.
        created: UTC time, ISO 8601.
        command: what was run.
        data: where the samples came from.
        environment: section → key → value; ``unknown`` where it cannot be read.
        rules: timing rules of the run.
        batch: images per query.
        overhead_us: median latency of a system that does nothing: the harness's own cost, which
            is in every latency and subtracted from none.
        steadiness: whether the machine stayed the same.
        systems: the first one is the baseline.
        comparisons: every other system against it.
        scenarios: LoadGen's results.
        sweeps: throughput against batch and threads.
        explanations: of systems that are not faster.
        ranges: of the calibrated tensors, where their files lie beside an engine.
        gate: limits that were set.
        warnings: what a reader must know before quoting a figure.
    """

    version: int = VERSION
    created: str
    command: str
    data: str
    environment: dict[str, dict[str, str]]
    rules: TimingRules
    batch: int
    overhead_us: float
    steadiness: Steadiness
    systems: tuple[SystemReport, ...]
    comparisons: tuple[Comparison, ...] = ()
    scenarios: tuple[ScenarioResult, ...] = ()
    sweeps: tuple[SweepPoint, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    ranges: tuple[RangeHistogram, ...] = ()
    gate: tuple[GateCheck, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if not names or len(set(names)) != len(names):
            raise RequestError(
                f"report of systems {names}, expected at least one and no name twice; rename one"
            )

    def system(self, name: str) -> SystemReport:
        """The system of that name."""
        return next(system for system in self.systems if system.name == name)
