"""Systems under load: LoadGen's scenarios, sweeps of batch and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks.campaign_plan import Plan
from benchmarks.latency import (
    LatencyResult,
    ScenarioResult,
    SweepPoint,
    run_scenario,
    sweep_batches,
    sweep_threads,
)
from benchmarks.latency.scenarios import Scenario, find_server_rate
from benchmarks.queries import Feed, feeds_of, length_of, stack
from benchmarks.systems import System, query_of
from calibrators.samples.data import Samples

__all__ = ["run_scenarios", "run_sweeps"]

Say = Callable[[str], object]


def run_scenarios(
    systems: Sequence[System],
    samples: Samples,
    latency: Mapping[str, LatencyResult],
    plan: Plan,
    say: Say,
) -> tuple[ScenarioResult, ...]:
    """LoadGen's scenarios, system by system."""
    found = []
    singles = feeds_of(systems, samples, 1) if plan.scenarios else []
    for scenario in plan.scenarios:
        for system in systems:
            say(f"load       {scenario}: {system.name}")
            rate = latency[system.name].figures["throughput_per_s"].value
            found.append(_scenario(scenario, system, singles, rate, plan))
    return tuple(found)


def _scenario(
    scenario: Scenario, system: System, singles: list[Feed], rate: float, plan: Plan
) -> ScenarioResult:
    """One system in one scenario; LoadGen's indices name ``singles``."""
    group = plan.batch if system.free_batch else 1
    # A fixed batch makes every index that many images.
    images = length_of(singles[0])

    def answer(indices: Sequence[int]) -> None:
        for start in range(0, len(indices), group):
            system.call(stack([singles[index] for index in indices[start : start + group]]))

    def run(rate_per_s: float) -> ScenarioResult:
        folder = plan.log_folder / f"{scenario}-{system.name}" if plan.log_folder else None
        found = run_scenario(
            scenario,
            [answer],
            system=system.name,
            images=len(singles),
            rules=replace(plan.scenario_rules, rate_per_s=rate_per_s),
            log_folder=folder,
        )
        throughput = images * found.figures["throughput_per_s"]
        return replace(
            found,
            figures={**found.figures, "throughput_per_s": throughput},
            images_per_query=images * found.images_per_query,
        )

    if scenario == "Server" and plan.search_rate:
        return find_server_rate(run, highest_per_s=rate / images)
    return run(plan.scenario_rules.rate_per_s if scenario == "Server" else rate / images)


def run_sweeps(
    systems: Sequence[System], samples: Samples, feeds: list[Feed], plan: Plan, say: Say
) -> tuple[SweepPoint, ...]:
    """Throughput against batch and threads, for the systems that can vary them."""
    points: tuple[SweepPoint, ...] = ()
    if plan.batches:
        free = [system for system in systems if system.free_batch]
        say(f"sweep      batches {', '.join(map(str, plan.batches))}: {len(free)} systems")

        def queries(size: int) -> dict[str, Callable[[], object]]:
            chosen = feeds_of(free, samples, size)
            return {system.name: query_of(system.call, chosen) for system in free}

        points += sweep_batches(queries, plan.batches, rules=plan.rules) if free else ()
    if plan.threads:
        able = [system for system in systems if system.clone]
        say(f"sweep      threads {', '.join(map(str, plan.threads))}: {len(able)} systems")
        callers = {
            system.name: [
                query_of(system.clone(), feeds) for _ in range(max(plan.threads)) if system.clone
            ]
            for system in able
        }
        if able:
            points += sweep_threads(
                callers,
                plan.threads,
                batch=length_of(feeds[0]),
                slice_s=min(0.2, plan.rules.min_time_s / 10),
            )
    return points
