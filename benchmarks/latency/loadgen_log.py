"""What LoadGen writes of a run: its log, and our figures from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from artefacts.errors import ArtefactError
from artefacts.files import read_bounded

__all__ = ["figures_of", "parse_detail_log", "reasons_of"]

LIMIT_BYTES = 256 << 20
PERCENTILES = ("50.00", "90.00", "95.00", "99.00")


def parse_detail_log(path: Path) -> dict[str, Any]:
    """Key → value of LoadGen's ``mlperf_log_detail.txt``: lines ``:::MLLOG {"key": …}``.

    Raises:
        ArtefactError: no such lines.
    """
    text = read_bounded(path, limit_bytes=LIMIT_BYTES, what="LoadGen log").decode(errors="replace")
    values: dict[str, Any] = {}
    for line in text.splitlines():
        mark, _, content = line.partition(" ")
        if mark != ":::MLLOG":
            continue
        try:
            entry = json.loads(content)
            values[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError):
            continue  # the log of a killed run ends within a line
    if "result_validity" not in values:
        raise ArtefactError(
            f"LoadGen log {path} has no result, expected a line with result_validity; run the "
            "scenario again"
        )
    return values


def figures_of(values: dict[str, Any], scenario: str, per_query: int) -> dict[str, float]:
    """Milliseconds per query and images per second."""
    infix, extreme = ("_per_query", "_query") if scenario == "MultiStream" else ("", "")
    figures = {
        f"p{float(p):g}_ms": values[f"result_{p}_percentile{infix}_latency_ns"] / 1e6
        for p in PERCENTILES
    }
    for name in ("mean", "max"):
        figures[f"{name}_ms"] = values[f"result_{name}{extreme}_latency_ns"] / 1e6
    rates = ("result_samples_per_second", "result_completed_samples_per_sec")
    rate = next((values[key] for key in rates if key in values), None)
    # The stream scenarios have no rate of their own: one query follows the other.
    figures["throughput_per_s"] = float(rate or per_query * 1e3 / figures["mean_ms"])
    return figures


def reasons_of(values: dict[str, Any]) -> tuple[str, ...]:
    """What LoadGen found wanting."""
    checks = {
        "result_perf_constraints_met": "the latency bound was not kept",
        "result_min_duration_met": "it was too short",
        "result_min_queries_met": "it had too few queries",
        "early_stopping_met": "it had too few queries for a statement at 99 % confidence",
    }
    return tuple(text for key, text in checks.items() if values.get(key) is False)
