"""Stored results of reference machines, and the README's table made from them.

``benchmarks/results/*.json.gz`` are reports as ``--json`` writes them: with raw samples,
environment and commit, so that every published figure can be looked up and every table made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from artefacts.errors import ArtefactError
from benchmarks.report.codec import load_report
from benchmarks.report.document import Report
from benchmarks.report.tables import as_markdown, format_score, result_rows, to_markdown

__all__ = ["insert_results", "render_results"]

BEGIN, END = "<!-- results -->", "<!-- /results -->"

COLUMNS = ("p50 ms", "p99 ms", "images/s", "size MB", "speed-up")


def render_results(paths: Sequence[str | Path]) -> str:
    """One Markdown table of all systems, and a line on each machine.

    Args:
        paths: stored reports; or a folder with them.

    Raises:
        ArtefactError: a file is no report.
    """
    files = [
        file for path in map(Path, paths) for file in (_stored(path) if path.is_dir() else [path])
    ]
    reports = {file.name.split(".json")[0]: load_report(file) for file in files}
    rows = [["engine", "runs on", "p50 ms", "p99 ms", "images/s", "size MB", "accuracy", "drop"]]
    rows[0].append("speed-up")
    for report in reports.values():
        rows += _rows(report)
    notes = "".join(f"\n{as_markdown(_note(name, report))}\n" for name, report in reports.items())
    return to_markdown(rows) + notes if reports else ""


def insert_results(page: str, table: str) -> str:
    """The page with the table between its markers, instead of what was there.

    Raises:
        ArtefactError: the page has no such pair of markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ArtefactError(
            f"page has no lines {BEGIN} and {END} in this order, expected both; add them where "
            "the table belongs"
        )
    return f"{before}{BEGIN}\n\n{table.strip()}\n\n{END}{after}"


def _stored(folder: Path) -> list[Path]:
    """The reports in a folder, by name."""
    return sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")])


def _rows(report: Report) -> list[list[str]]:
    """The systems of one report."""
    header, *body = result_rows(report)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    drops = {c.candidate: c.accuracy for c in report.comparisons if c.accuracy}
    found = []
    for system in report.systems:
        row, result, drop = cells[system.name], system.accuracy, drops.get(system.name)
        shown = "–"
        if result and result.metric:
            share = result.unit == "share"
            value = format_score(result.value) if share else f"{result.value:.4g}"
            shown = f"{value} {result.metric}"
        found.append(
            [
                system.name,
                f"{system.target} {system.precision}",
                *(row[name] for name in COLUMNS[:4]),
                shown,
                f"{drop.drop:.2f} {drop.unit}" if drop else "–",
                row["speed-up"],
            ]
        )
    return found


def _note(name: str, report: Report) -> str:
    """Where, when and with what a report was made."""
    machine = report.environment.get("cpu", {}).get("model", "unknown")
    cores = report.environment.get("cpu", {}).get("usable cores", "unknown")
    gpu = report.environment.get("gpu", {}).get("name")
    commit = report.environment.get("software", {}).get("git commit", "unknown")
    where = f"{gpu}, " if gpu else ""
    return (
        f"{name}: {where}{machine}, {cores} cores, {report.created[:10]}, commit {commit}, "
        f"batch {report.batch}, steadiness of the machine {report.steadiness.verdict}."
    )
