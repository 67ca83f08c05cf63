"""The report as Markdown."""

from __future__ import annotations

from benchmarks.report.document import Report
from benchmarks.report.layer_sections import times_section
from benchmarks.report.sections import sections
from benchmarks.report.tables import as_markdown, result_rows, to_markdown

__all__ = ["render_markdown"]


def render_markdown(report: Report) -> str:
    """All tables and sentences; plots are in the HTML report."""
    parts = [
        "# Benchmark",
        as_markdown(f"{report.created} · `{report.command}`"),
        _bullets(report.warnings),
        "## Result",
        to_markdown(result_rows(report)),
    ]
    for explanation in report.explanations:
        parts.append(as_markdown(f"## Why is {explanation.candidate} not faster?"))
        parts.append(_bullets(explanation.findings))
        if explanation.advice:
            parts += ["What to try:", _bullets(explanation.advice)]
        times = times_section(report, explanation.candidate)
        if times.rows:
            parts += [f"### {times.title}", times.text, to_markdown(times.rows)]
    for section in sections(report):
        parts += [f"## {section.title}", as_markdown(section.text), to_markdown(section.rows)]
    parts.append("## Environment")
    for name, facts in report.environment.items():
        parts += [
            as_markdown(f"### {name}"),
            _bullets(tuple(f"{key}: {v}" for key, v in facts.items())),
        ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _bullets(lines: tuple[str, ...]) -> str:
    """A list, or nothing."""
    return "\n".join(f"- {as_markdown(line)}" for line in lines)
