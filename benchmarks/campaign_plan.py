"""What a comparison measures: the flags of the command, as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy import Task
from benchmarks.latency import ScenarioRules, TimingRules
from benchmarks.latency.scenarios import Scenario
from benchmarks.machine import MemoryResult
from benchmarks.queries import Feed
from benchmarks.report.document import TensorReport

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        command: for the report.
        task: what labels mean; None for classification.
        rules: of the timing.
        batch: images per query.
        scenarios: of LoadGen.
        scenario_rules: how long and how hard; a Server without a rate searches the highest.
        search_rate: whether Server searches its rate.
        log_folder: where LoadGen's logs stay; None to drop them.
        batches: batch sizes to sweep.
        threads: thread counts to sweep.
        energy_s: seconds per system with the power meter; 0 for none.
        probe: measures one engine's memory and cold start; None for none.
        simulate: compares a float and a Q/DQ graph tensor by tensor; None for none.
    """

    command: str
    task: Task | None = None
    rules: TimingRules
    batch: int = 1
    scenarios: tuple[Scenario, ...] = ()
    scenario_rules: ScenarioRules
    search_rate: bool = True
    log_folder: Path | None = None
    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    energy_s: float = 3.0
    probe: Callable[[Path], MemoryResult | None] | None = None
    simulate: Callable[[Path, Path, Sequence[Feed]], Sequence[TensorReport]] | None = None
