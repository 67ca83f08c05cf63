"""Limits that fail a build: accuracy drop, speed-up, regression against a stored report."""

from __future__ import annotations

from dataclasses import dataclass

from artefacts.errors import GateMissedError, RequestError
from benchmarks.report.document import GateCheck, Report

__all__ = ["Limits", "check_limits", "raise_if_missed"]

REGRESSION = 0.05  # relative: 5 %; a stored report is another day on the same machine


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the user demands of every system but the first.

    Attributes:
        max_drop: largest accuracy drop, in points (percent for metrics that are no share).
        min_speedup: least speed-up over the baseline; must be *shown*: the lower end of its
            interval counts.
        stored: an earlier report of the same systems.
    """

    max_drop: float | None = None
    min_speedup: float | None = None
    stored: Report | None = None


def check_limits(report: Report, limits: Limits) -> tuple[GateCheck, ...]:
    """Every check that applies.

    Raises:
        RequestError: a limit cannot be checked, so that no gate passes for want of a measurement.
    """
    if (limits.max_drop is not None or limits.min_speedup is not None) and not report.comparisons:
        raise RequestError(
            "a gate on drop or speed-up with 1 system, expected at least 2; name the baseline first"
        )
    checks = [*_drops(report, limits.max_drop), *_speedups(report, limits.min_speedup)]
    if limits.stored is not None:
        checks += _regressions(report, limits.stored, limits.max_drop)
    return tuple(checks)


def raise_if_missed(checks: tuple[GateCheck, ...]) -> None:
    """Fail with the first missed limits.

    Raises:
        GateMissedError: at least one check did not pass.
    """
    missed = [check for check in checks if not check.passed]
    if missed:
        first = missed[0]
        others = f" ({len(missed) - 1} more limits missed)" if len(missed) > 1 else ""
        raise GateMissedError(
            f"{first.what} is {first.found}, expected {first.limit}{others}; see the report, or "
            "change the limit"
        )


def _drops(report: Report, limit: float | None) -> list[GateCheck]:
    """The accuracy drop of each system."""
    if limit is None:
        return []
    checks = []
    for comparison in report.comparisons:
        drop = comparison.accuracy
        if drop is None:
            raise RequestError(
                f"a gate on the accuracy of {comparison.candidate} without labels, expected "
                "labelled samples; give them, or drop --max-drop"
            )
        checks.append(
            GateCheck(
                what=f"{drop.metric} drop of {comparison.candidate}",
                limit=f"at most {limit:g} {drop.unit}",
                found=f"{drop.drop:.2f} {drop.unit} ({drop.interval.low:.2f} to "
                f"{drop.interval.high:.2f})",
                # Rounded as shown: 0.5 of 1000 samples is not 0.4999999 or 0.5000001 points.
                passed=round(drop.drop, 6) <= limit,
            )
        )
    return checks


def _speedups(report: Report, limit: float | None) -> list[GateCheck]:
    """The speed-up of each system, by the lower end of its interval."""
    if limit is None:
        return []
    return [
        GateCheck(
            what=f"speed-up of {comparison.candidate}",
            limit=f"at least {limit:g}× with 95 % confidence",
            found=f"{comparison.speed.speedup:.2f}× ({comparison.speed.interval.low:.2f} to "
            f"{comparison.speed.interval.high:.2f})",
            passed=comparison.speed.meaningful and comparison.speed.interval.low >= limit,
        )
        for comparison in report.comparisons
    ]


def _regressions(report: Report, stored: Report, max_drop: float | None) -> list[GateCheck]:
    """Accuracy and speed of each system against the stored report."""
    known = {system.name: system for system in stored.systems}
    common = [system.name for system in report.systems if system.name in known]
    if not common:
        raise RequestError(
            f"stored report has the systems {sorted(known)}, expected one of "
            f"{[system.name for system in report.systems]}; give a report of the same systems"
        )
    checks = _accuracy_regressions(report, stored, common, max_drop or 0.0)
    if _machine(report) == _machine(stored):
        checks += _latency_regressions(report, stored, common)
    return checks + _speedup_regressions(report, stored)


def _machine(report: Report) -> tuple[str, str]:
    """What must be equal for latencies to be comparable."""
    sections = report.environment
    return (
        sections.get("cpu", {}).get("model", "unknown"),
        sections.get("gpu", {}).get("name", "none"),
    )


def _accuracy_regressions(
    report: Report, stored: Report, names: list[str], max_drop: float
) -> list[GateCheck]:
    """The headline figure of each system, against the stored one."""
    checks = []
    for name in names:
        now, then = report.system(name).accuracy, stored.system(name).accuracy
        if now is None or then is None or not now.metric or now.metric != then.metric:
            continue
        sign = 1.0 if now.higher_is_better else -1.0
        scale = 100.0 if now.unit == "share" else 100.0 / (abs(then.value) or 1.0)
        unit = "points" if now.unit == "share" else "percent"
        lost = round(sign * scale * (then.value - now.value), 6)
        checks.append(
            GateCheck(
                what=f"{now.metric} of {name} since the stored report",
                limit=f"a loss of at most {max_drop:g} {unit}",
                found=f"a loss of {lost:.2f} {unit}",
                passed=lost <= max_drop,
            )
        )
    return checks


def _latency_regressions(report: Report, stored: Report, names: list[str]) -> list[GateCheck]:
    """Median latency of each system on the same machine; intervals must part to fail."""
    checks = []
    for name in names:
        now = report.system(name).latency.figures["p50_ms"]
        then = stored.system(name).latency.figures["p50_ms"]
        if now.interval is None or then.interval is None:
            continue
        checks.append(
            GateCheck(
                what=f"median latency of {name} since the stored report",
                limit=f"at most {then.value:.4g} ms + 5 %",
                found=f"{now.value:.4g} ms",
                passed=now.interval.low <= then.interval.high * (1 + REGRESSION),
            )
        )
    return checks


def _speedup_regressions(report: Report, stored: Report) -> list[GateCheck]:
    """Speed-ups, which also compare between machines of one kind."""
    then = {(c.baseline, c.candidate): c.speed for c in stored.comparisons}
    return [
        GateCheck(
            what=f"speed-up of {c.candidate} since the stored report",
            limit=f"at least {then[c.baseline, c.candidate].speedup:.2f}× - 5 %",
            found=f"{c.speed.speedup:.2f}×",
            passed=c.speed.interval.high
            >= then[c.baseline, c.candidate].interval.low * (1 - REGRESSION),
        )
        for c in report.comparisons
        if (c.baseline, c.candidate) in then and c.speed.meaningful
    ]
