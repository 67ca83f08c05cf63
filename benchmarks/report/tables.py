"""What a section of a report is, and the result table: the same cells as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from artefacts.texts import printable
from benchmarks.latency import Figure
from benchmarks.report.document import Comparison, Report, SystemReport

__all__ = [
    "NONE",
    "Rows",
    "Section",
    "as_markdown",
    "csv_rows",
    "format_score",
    "result_rows",
    "three_digits",
    "to_csv",
    "to_markdown",
    "to_text",
    "with_interval",
]

Rows = list[list[str]]
NONE = "–"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what to know before reading the table, and the table.

    Attributes:
        title: of the section.
        text: one or two sentences.
        rows: header row first; empty for none.
    """

    title: str
    text: str
    rows: Rows


def result_rows(report: Report) -> Rows:
    """Header and one row per system.

    A figure that did not become steady is marked ``unstable``: never a bare number.
    """
    metrics = {s.accuracy.metric: None for s in report.systems if s.accuracy}
    header = ["system", "p50 ms", "p90 ms", "p99 ms", "images/s", "size MB", *metrics, "speed-up"]
    against = {comparison.candidate: comparison for comparison in report.comparisons}
    return [
        header,
        *(_row(system, tuple(metrics), against.get(system.name)) for system in report.systems),
    ]


def _row(system: SystemReport, metrics: tuple[str, ...], against: Comparison | None) -> list[str]:
    """One system's cells."""
    figures = system.latency.figures
    times = [three_digits(figures[f"p{percent}_ms"].value) for percent in (50, 90, 99)]
    if not system.latency.stability.stable:
        times[0] += " unstable"
    scores = [
        format_score(system.accuracy.figures[metric])
        if system.accuracy and metric in system.accuracy.figures
        else "–"
        for metric in metrics
    ]
    return [
        system.name,
        *times,
        f"{figures['throughput_per_s'].value:,.0f}",
        f"{system.size_bytes / 1e6:.2f}",
        *scores,
        format_speedup(against),
    ]


def format_score(value: float) -> str:
    """A share as percent, e.g. ``98.33 %``."""
    return f"{100 * value:.2f} %"


def format_speedup(comparison: Comparison | None) -> str:
    """E.g. ``2.41× (2.38-2.45)``; the baseline itself has none."""
    if comparison is None:
        return "baseline"
    speed = comparison.speed
    text = f"{speed.speedup:.2f}× ({speed.interval.low:.2f}–{speed.interval.high:.2f})"
    return text if speed.verdict in ("faster", "slower") else f"{text} {speed.verdict}"


def three_digits(value: float) -> str:
    """Three significant digits, zeros kept: 0.0312, 1.20, 12.0, 1,234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def csv_rows(report: Report) -> Rows:
    """Header and one row per system, for programs: plain numbers, units in the header.

    A cell is empty where there is nothing to say: the baseline has no speed-up.
    """
    against = {comparison.candidate: comparison for comparison in report.comparisons}
    found = [_fields(report, system, against.get(system.name)) for system in report.systems]
    header = list(dict.fromkeys(name for fields in found for name in fields))
    return [header, *([_plain(fields.get(name)) for name in header] for fields in found)]


def _fields(
    report: Report, system: SystemReport, against: Comparison | None
) -> dict[str, str | float | None]:
    figures, result = system.latency.figures, system.accuracy
    fields: dict[str, str | float | None] = {
        "system": system.name,
        "target": system.target,
        "precision": system.precision,
        "batch": report.batch,
        **{name: figure.value for name, figure in figures.items()},
        "stable": "yes" if system.latency.stability.stable else "no",
        "size_bytes": system.size_bytes,
        "int8_mac_share": system.int8_mac_share,
        **(result.figures if result else {}),
    }
    if against:
        fields |= {
            "speedup": against.speed.speedup,
            "speedup_low": against.speed.interval.low,
            "speedup_high": against.speed.interval.high,
            "speed_verdict": against.speed.verdict,
        }
    if against and against.accuracy:
        fields |= {
            f"drop_{against.accuracy.unit}": against.accuracy.drop,
            "drop_low": against.accuracy.interval.low,
            "drop_high": against.accuracy.interval.high,
        }
    return fields


def _plain(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)


def to_text(rows: Rows) -> str:
    """Aligned columns for a terminal; numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "─" * max(len(line) for line in lines))
    return "\n".join(lines) + "\n"


def to_markdown(rows: Rows) -> str:
    """A pipe table; numbers to the right."""
    cells = [[as_markdown(cell).replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], rule, *cells[1:]]) + "\n"


def as_markdown(text: str) -> str:
    """A line that shows names of others as they are, and is no markup of theirs."""
    return printable(text, kept="").replace("&", "&amp;").replace("<", "&lt;")


def to_csv(rows: Rows) -> str:
    """Comma-separated, quoted where needed; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(_as_data, row) for row in rows])
    return text.getvalue()


def _as_data(cell: str) -> str:
    cell = printable(cell, kept="")
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
    return cell


def with_interval(figure: Figure) -> str:
    """E.g. ``1.23 (1.21–1.25)``."""
    if figure.interval is None:
        return three_digits(figure.value)
    low, high = three_digits(figure.interval.low), three_digits(figure.interval.high)
    return f"{three_digits(figure.value)} ({low}–{high})"
