"""The report: everything that was measured, said once; all renderings come from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from artefacts.errors import RequestError
from benchmarks.accuracy import AccuracyResult
from benchmarks.latency import LatencyResult, SpeedComparison, TimingRules

__all__ = ["VERSION", "Comparison", "Report", "SystemReport"]

VERSION = 1


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
    """

    name: str
    path: str
    sha256: str
    size_bytes: int
    target: str
    precision: str
    latency: LatencyResult
    accuracy: AccuracyResult | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One system against the baseline, the first of the report."""

    baseline: str
    candidate: str
    speed: SpeedComparison


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole run.

    Attributes:
        version: of this format.
        created: UTC time, ISO 8601.
        command: what was run.
        environment: section → key → value; ``unknown`` where it cannot be read.
        rules: timing rules of the run.
        batch: images per query.
        warnings: what a reader must know before quoting a figure.
    """

    version: int = VERSION
    created: str
    command: str
    environment: dict[str, dict[str, str]]
    rules: TimingRules
    batch: int
    systems: tuple[SystemReport, ...]
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if not names or len(set(names)) != len(names):
            raise RequestError(
                f"report of systems {names}, expected at least one and no name twice; rename one"
            )
