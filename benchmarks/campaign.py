"""The steps of a comparison, in order: accuracy, latency, load, energy, layers, report."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from math import ceil

from tqdm import tqdm

from artefacts.words import counted
from benchmarks.accuracy import (
    AccuracyResult,
    ClassificationTask,
    CustomTask,
    DetectionTask,
    Task,
    compare_accuracy,
    evaluate_all,
)
from benchmarks.accuracy.overlap import refuse_calibration_samples
from benchmarks.campaign_plan import Plan
from benchmarks.latency import (
    LatencyResult,
    compare_speed,
    measure,
    measure_overhead_us,
)
from benchmarks.latency.figures import Figure, summarize_values
from benchmarks.load import run_scenarios, run_sweeps
from benchmarks.machine import (
    EnergyResult,
    MachineWatch,
    capture_environment,
    find_meter,
    measure_energy,
)
from benchmarks.machine.nvml import open_gpu
from benchmarks.queries import Feed, common_inputs, feeds_of, length_of
from benchmarks.range_files import find_ranges
from benchmarks.report.document import (
    Comparison,
    RangeHistogram,
    Report,
    SystemReport,
    TensorReport,
)
from benchmarks.report.explanation import explain
from benchmarks.report.timings import assign_times
from benchmarks.systems import System, check_same_inputs, file_facts, query_of
from calibrators.samples.data import Samples

__all__ = ["run_campaign"]

DEVICE_QUERIES = 200
Say = Callable[[str], object]


def run_campaign(systems: Sequence[System], samples: Samples, plan: Plan, say: Say) -> Report:
    """Measure everything that the plan names.

    Args:
        systems: the first is the baseline.
        samples: labelled for accuracy; else outputs are compared with the baseline's.
        plan: what to measure.
        say: called with each step.

    Raises:
        DataError: samples or labels that do not fit, or samples that were calibrated with.
    """
    check_same_inputs(systems)
    gpu = open_gpu()
    environment = capture_environment(gpu=gpu)
    accuracy = _accuracy(systems, samples, plan, say)
    feeds = feeds_of(systems, samples, plan.batch)
    watch = MachineWatch(gpu=gpu)
    latency = _latency(systems, feeds, plan, watch, say)
    steadiness, overhead_us = watch.verdict(), measure_overhead_us()
    scenarios = run_scenarios(systems, samples, latency, plan, say)
    sweeps = run_sweeps(systems, samples, feeds, plan, say)
    energy = _energy(systems, feeds, plan, say)
    reports = []
    for system in systems:
        report = SystemReport(
            name=system.name,
            **file_facts(system.path),
            target=system.target,
            precision=system.precision,
            settings=system.settings,
            latency=latency[system.name],
            device=_device(system, feeds),
            accuracy=accuracy[system.name],
            memory=plan.probe(system.path) if plan.probe else None,
            energy=energy.get(system.name),
        )
        reports.append(_with_insight(report, system, feeds, plan, say))
    comparisons = _comparisons(reports)
    explained = (
        explain(c, reports[0], r, environment, overhead_us, steadiness.reasons)
        for c, r in zip(comparisons, reports[1:], strict=True)
    )
    return Report(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=plan.command,
        data=f"{samples.path} ({counted(accuracy[systems[0].name].samples, 'sample')})",
        environment=environment,
        rules=plan.rules,
        batch=plan.batch,
        overhead_us=overhead_us,
        steadiness=steadiness,
        systems=tuple(reports),
        comparisons=comparisons,
        scenarios=scenarios,
        sweeps=sweeps,
        ranges=_ranges(systems),
        explanations=tuple(entry for entry in explained if entry),
        warnings=_warnings(reports, steadiness.reasons),
    )


def _accuracy(
    systems: Sequence[System], samples: Samples, plan: Plan, say: Say
) -> dict[str, AccuracyResult]:
    """Labels where there are some; likeness to the baseline in any case."""
    task = plan.task or ClassificationTask()
    labelled = _labelled(samples, task)
    if isinstance(task, DetectionTask):
        task = replace(task, preprocess=samples.preprocess)
    say(f"accuracy   {samples.path}" + ("" if labelled else " (no labels: likeness only)"))
    return evaluate_all(
        {system.name: system.exact or system.call for system in systems},
        refuse_calibration_samples(samples, _calibrated(systems)),
        task,
        inputs=common_inputs(systems),
        batch_size=plan.batch,
        reference=systems[0].name,
        labelled=labelled,
    )


def _labelled(samples: Samples, task: Task) -> bool:
    """Whether the task can be scored: a detector's labels are in its annotations.

    A source does not always know before it is read: a loader may yield labels or not.
    """
    if isinstance(task, DetectionTask | CustomTask):
        return True
    first = next(iter(samples), None)
    return not samples.unlabelled and first is not None and first.label is not None


def _calibrated(systems: Sequence[System]) -> dict[str, list[str]]:
    """Digests of the calibration samples of each engine whose manifest lists them."""
    return {s.name: list(s.passport.get("calibration_samples") or ()) for s in systems}


def _latency(
    systems: Sequence[System], feeds: list[Feed], plan: Plan, watch: MachineWatch, say: Say
) -> dict[str, LatencyResult]:
    """Host latency, interleaved."""
    rules = plan.rules
    least_s, most_s = (
        len(systems) * sum(times)
        for times in (
            (rules.warmup_s, max(rules.min_time_s, rules.min_rounds * rules.slice_s)),
            (rules.warmup_limit_s, rules.limit_s),
        )
    )
    say(
        f"latency    {len(systems)} systems in turns, batch {length_of(feeds[0])}: {least_s:.0f} s "
        f"where they are steady, at most {most_s:.0f} s"
    )
    usual = ceil(max(rules.min_time_s / rules.slice_s, rules.min_rounds))
    # On standard error, where that is a terminal.
    with tqdm(total=usual, unit=" rounds", leave=False, dynamic_ncols=True, disable=None) as bar:

        def after_round(number: int) -> None:
            watch.sample(number)
            if number > usual:  # not steady yet
                bar.total = ceil(rules.limit_s / rules.slice_s)
            bar.update(1)

        return measure(
            {system.name: query_of(system.call, feeds) for system in systems},
            rules=rules,
            batch=length_of(feeds[0]),
            on_round=after_round,
        )


def _energy(
    systems: Sequence[System], feeds: list[Feed], plan: Plan, say: Say
) -> dict[str, EnergyResult]:
    """Energy per image, where there is a meter."""
    meter = find_meter() if plan.energy_s else None
    if meter is None:
        return {}
    say(f"energy     {meter.name}")
    queries = {system.name: query_of(system.call, feeds) for system in systems}
    return measure_energy(queries, meter, batch=length_of(feeds[0]), seconds=plan.energy_s)


def _device(system: System, feeds: list[Feed]) -> dict[str, Figure]:
    """Transfers and compute by device events."""
    if system.device_times is None:
        return {}
    feed = cycle(feeds)
    times = [system.device_times(next(feed)) for _ in range(DEVICE_QUERIES)]
    return {name: summarize_values([entry[name] for entry in times]) for name in times[0]}


def _with_insight(
    report: SystemReport, system: System, feeds: list[Feed], plan: Plan, say: Say
) -> SystemReport:
    """The report with kernels, layers and tensors: all that needs runs of its own."""
    kernels = tuple(system.layer_times(feeds[0])) if system.layer_times else ()
    tensors: tuple[TensorReport, ...] = ()
    graphs = system.graphs() if plan.simulate and system.graphs else None
    if plan.simulate and graphs:
        say(f"tensors    {system.name}: float and Q/DQ graph on {len(feeds)} queries")
        found = plan.simulate(*graphs, feeds)
        tensors = tuple(sorted(found, key=lambda tensor: tensor.position))
    layers = assign_times(system.layers, kernels)
    by_node = {tensor.node: tensor.sqnr_db for tensor in tensors}
    return replace(
        report,
        layers=tuple(replace(x, sqnr_db=by_node.get(x.name)) for x in layers),
        kernels=kernels,
        tensors=tensors,
    )


def _ranges(systems: Sequence[System]) -> tuple[RangeHistogram, ...]:
    """Of the first engine whose calibration files lie beside it."""
    found = (find_ranges(system.path, system.passport) for system in systems)
    return next((ranges for ranges in found if ranges), ())


def _comparisons(reports: Sequence[SystemReport]) -> tuple[Comparison, ...]:
    """Every system against the first."""
    base = reports[0]
    return tuple(
        Comparison(
            baseline=base.name,
            candidate=report.name,
            speed=compare_speed(base.latency, report.latency),
            accuracy=compare_accuracy(base.accuracy, report.accuracy)
            if base.accuracy and base.accuracy.metric and report.accuracy
            else None,
        )
        for report in reports[1:]
    )


def _warnings(reports: Sequence[SystemReport], machine: tuple[str, ...]) -> tuple[str, ...]:
    """What to know before quoting a figure."""
    found = [f"{reason}: repeat on a quiet machine with locked clocks" for reason in machine]
    for report in reports:
        reasons = report.latency.stability.reasons
        found += [f"{report.name} is unstable: {reason}" for reason in reasons]
        if not report.latency.warmup_settled:
            found.append(f"{report.name} did not settle during {report.latency.warmup_s:.1f} s")
        if report.accuracy and report.accuracy.samples < 200 and report.accuracy.metric:
            found.append(
                f"accuracy of {report.name} rests on "
                f"{counted(report.accuracy.samples, 'sample')}: a drop of less than "
                "a point cannot be distinguished from chance"
            )
    return tuple(found)
