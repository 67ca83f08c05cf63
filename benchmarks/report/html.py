"""The report as one HTML file: no scripts, no requests, light and dark."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

from benchmarks.report.document import Report
from benchmarks.report.plots import plot_cdf, plot_latency
from benchmarks.report.tables import Rows, result_rows

__all__ = ["render_html"]


def render_html(report: Report) -> str:
    """The page, ready to be written.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    template = Template(files("benchmarks.report").joinpath("page.html").read_text("utf-8"))
    title = "Benchmark: " + ", ".join(system.name for system in report.systems)
    samples = {system.name: system.latency.samples_ms for system in report.systems}
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(report.created)} · <code>{escape(report.command)}</code></p>',
        _notes(report.warnings),
        "<h2>Result</h2>",
        _table(result_rows(report)),
        "<h2>Latency</h2>",
        '<div class="plots">',
        _figure(plot_latency(samples), "Distribution; the slowest 0.5 % lie to the right."),
        _figure(plot_cdf(samples), "Share of queries answered within a time, all of them."),
        "</div>",
        "<h2>Environment</h2>",
        *(
            f"<h3>{escape(section)}</h3>{_pairs(values)}"
            for section, values in report.environment.items()
        ),
    ]
    return template.substitute(title=escape(title), body="\n".join(body))


def _table(rows: Rows) -> str:
    """Header row and body rows."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _figure(svg: str, caption: str) -> str:
    """A plot and what to see in it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _pairs(values: dict[str, str]) -> str:
    """Key and value, as a list of terms."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items())
        + "</dl>"
    )


def _notes(notes: tuple[str, ...]) -> str:
    """Warnings before any figure."""
    items = "".join(f'<li class="warn">{escape(note)}</li>' for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""
