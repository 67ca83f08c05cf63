"""What a pool and what stands beside it have done, as families of metrics for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from engines.monitoring.drift import InputDrift
from engines.monitoring.recorder import Recorder, RecorderStatistics
from engines.serving.pool_statistics import PoolStatistics
from engines.serving.shadow import Shadow, ShadowStatistics

__all__ = [
    "Family",
    "drift_families",
    "families",
    "prometheus_text",
    "recorder_families",
]

Kind = Literal["gauge", "counter"]
Samples = Iterable[tuple[Mapping[str, str], float | None]]

_POOL: tuple[tuple[str, Kind, str, str], ...] = (
    ("pool_size", "gauge", "Engines of the pool.", "size"),
    ("in_use", "gauge", "Engines that work now.", "in_use"),
    ("waiting", "gauge", "Requests that wait for an engine now.", "waiting"),
    ("served_total", "counter", "Requests that were answered.", "served"),
    ("failed_total", "counter", "Requests that an engine refused or could not run.", "failed"),
    ("rejected_total", "counter", "Requests turned away: too many waited.", "rejected"),
    ("timed_out_total", "counter", "Requests whose time was up.", "timed_out"),
    ("wait_seconds_total", "counter", "Time that engines were waited for.", "wait_s"),
    (
        "failed_in_row",
        "gauge",
        "Last requests that failed for no fault of theirs.",
        "failed_in_row",
    ),
    ("run_seconds_total", "counter", "Time that engines worked, decoding included.", "run_s"),
)
_RECORDER: tuple[tuple[str, Kind, str, str], ...] = (
    ("recorder_seen_total", "counter", "Requests that the recorder heard of.", "seen"),
    ("recorder_drawn_total", "counter", "Requests that its share chose, ever.", "drawn"),
    ("recorder_kept", "gauge", "Samples on disk.", "kept"),
    ("recorder_bytes", "gauge", "Bytes of them.", "bytes"),
    ("recorder_dropped_total", "counter", "Samples lost to a slow disk or a limit.", "dropped"),
    ("recorder_failed_total", "counter", "Samples that could not be written.", "failed"),
)
_SHADOW: tuple[tuple[str, Kind, str, str], ...] = (
    ("shadow_share", "gauge", "Share of the requests that the shadow answers, too.", "share"),
    ("shadow_drawn_total", "counter", "Requests that the share chose.", "drawn"),
    ("shadow_compared_total", "counter", "Requests that both have answered.", "compared"),
    ("shadow_dropped_total", "counter", "Requests that the shadow could not follow.", "dropped"),
    ("shadow_failed_total", "counter", "Requests that the shadow could not run.", "failed"),
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric with all its label values.

    Attributes:
        name: e.g. ``engine_served_total``.
        kind: as Prometheus has it.
        help: one sentence.
        samples: labels and value of each.
    """

    name: str
    kind: Kind
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def families(
    pool: PoolStatistics,
    sha256: str,
    *,
    drift: Mapping[str, InputDrift] | None,
    recorder: Recorder | None,
    shadow: Shadow | None,
) -> tuple[Family, ...]:
    """Load and counters of a pool, which engine answers, and what there is beside it."""
    return (
        _family("info", "gauge", "The engine that answers.", [({"sha256": sha256}, 1)]),
        *_counted(_POOL, pool),
        *(() if drift is None else drift_families(drift)),
        *(() if recorder is None else recorder_families(recorder.statistics())),
        *(() if shadow is None else _shadow_families(shadow.statistics())),
    )


def drift_families(drift: Mapping[str, InputDrift]) -> tuple[Family, ...]:
    """Distances of the last requests from the calibration data, their limits and the verdict."""
    found = drift.values()
    verdicts = ("usual", "moved", "unknown")
    requests = [({"input": d.name}, d.requests) for d in found]
    distances, limits = (
        [
            ({"input": d.name, "distance": name}, value)
            for d, one in ((d, getattr(d, which)) for d in found)
            if one is not None
            for name, value in vars(one).items()
        ]
        for which in ("distances", "limits")
    )
    said = [({"input": d.name, "verdict": v}, int(d.verdict == v)) for d in found for v in verdicts]
    return _filled(
        _family("drift_requests", "gauge", "Last requests that were looked at.", requests),
        _family("drift_distance", "gauge", "Of them from the calibration data.", distances),
        _family("drift_limit", "gauge", "Distances that are usual.", limits),
        _family("drift_verdict", "gauge", "1 for what is said of the input.", said),
    )


def recorder_families(statistics: RecorderStatistics) -> tuple[Family, ...]:
    """Counters of a recorder."""
    return _counted(_RECORDER, statistics)


def _shadow_families(statistics: ShadowStatistics) -> tuple[Family, ...]:
    outputs = statistics.outputs
    times_s = [
        ({"engine": engine, "quantile": f"{q / 100}"}, None if ms is None else ms / 1000)
        for engine in ("serving", "shadow")
        for q in (50, 99)
        for ms in (getattr(statistics, f"{engine}_p{q}_ms"),)
    ]
    same, levels, shapes = (
        [({"output": each.name}, getattr(each, what)) for each in outputs]
        for what in ("same", "sqnr_db", "other_shapes")
    )
    return (
        *_counted(_SHADOW, statistics),
        *_filled(
            _family("shadow_same", "gauge", "Share of answers that are the same.", same),
            _family("shadow_sqnr_decibels", "gauge", "Of its outputs against served ones.", levels),
            _family("shadow_other_shapes_total", "counter", "Answers of other shapes.", shapes),
            _family("shadow_seconds", "gauge", "Time of the last requests, of both.", times_s),
        ),
    )


def prometheus_text(families: Iterable[Family]) -> str:
    """Prometheus' text format, version 0.0.4."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            named = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{f'{{{named}}}' if named else ''} {_number(value)}")
    return "\n".join(lines) + "\n"


def _counted(table: Iterable[tuple[str, Kind, str, str]], statistics: object) -> tuple[Family, ...]:
    return tuple(
        _family(name, kind, what, [({}, getattr(statistics, attribute))])
        for name, kind, what, attribute in table
    )


def _family(name: str, kind: Kind, what: str, samples: Samples) -> Family:
    known = tuple((labels, value) for labels, value in samples if value is not None)
    return Family(name=f"engine_{name}", kind=kind, help=what, samples=known)


def _filled(*families: Family) -> tuple[Family, ...]:
    return tuple(family for family in families if family.samples)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(value)
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
