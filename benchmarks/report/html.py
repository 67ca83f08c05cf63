"""The report as one HTML file: no scripts, no requests, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape as escape_markup
from importlib.resources import files
from string import Template

from benchmarks.report import charts
from benchmarks.report.document import (
    AGAINST_GRAPH,
    Comparison,
    Explanation,
    Report,
    SystemReport,
)
from benchmarks.report.layer_sections import NOISE, times_section
from benchmarks.report.sections import sections
from benchmarks.report.tables import Rows, Section, format_score, result_rows

__all__ = ["render_html"]

UNITS = re.compile(r"(?<=\d) (?=%|ms|µs|MB|dB|s\b)")
LONG = 34  # characters from which a cell may break into lines
FOLDED = 14  # rows from which a table is folded away
SHOWN_RANGES = 6


def render_html(report: Report) -> str:
    """The page, ready to be written.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    template = Template(files("benchmarks.report").joinpath("page.html").read_text("utf-8"))
    names = [system.name for system in report.systems]
    title = " against ".join(names) if len(names) == 2 else "Benchmark of " + ", ".join(names)
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f'<p class="meta">{escape(report.created)} · batch {report.batch} · '
        f"{escape(report.data)}</p>",
        f'<p class="meta"><code>{escape(report.command)}</code></p></header>',
        _cards(report),
        _notes("warn", report.warnings),
        _limits(report),
        "<h2>Result</h2>",
        _table(result_rows(report)),
        _figures(_main_plots(report)),
        *(_explanation(entry, report) for entry in report.explanations),
        *(_section(section, report) for section in sections(report)),
        _environment(report),
    ]
    return template.substitute(title=escape(title), body="\n".join(part for part in body if part))


def escape(text: str) -> str:
    """Text as markup, numbers kept together with their units."""
    return UNITS.sub("&nbsp;", escape_markup(text))


def _cards(report: Report) -> str:
    """The answer first: engines that are wrong, speed-up and drop, or the lone system's median."""
    wrong = [card for system in report.systems for card in _gap(system)]
    cards = [card for comparison in report.comparisons[:3] for card in _pair(comparison, report)]
    if not cards:
        system = report.systems[0]
        median = system.latency.figures["p50_ms"]
        rate = system.latency.figures["throughput_per_s"].value
        cards = [_card("median latency", f"{median.value:.3g} ms", f"{rate:,.0f} images a second")]
    facts = report.steadiness.facts
    clocks = [
        f"{name} {facts[f'{name} clock']}" for name in ("GPU", "CPU") if f"{name} clock" in facts
    ]
    known = [clock for clock in clocks if not clock.endswith("unknown")]
    others = f"{facts.get('CPU time of others', 'unknown')} of the CPU time to others"
    tone = {"steady": "good", "disturbed": "warn"}.get(report.steadiness.verdict, "")
    cards.append(
        _card("machine during the run", report.steadiness.verdict, (known or [others])[0], tone)
    )
    return f'<div class="cards">{"".join(wrong + cards)}</div>'


def _gap(system: SystemReport) -> list[str]:
    """The first card of all where an engine computes something else than its graph."""
    found, _, why = system.settings.get(AGAINST_GRAPH, "").partition(", ")
    if not why.startswith("more than"):
        return []
    return [_card(f"{system.name}: against its graph", found, why, "bad")]


def _pair(comparison: Comparison, report: Report) -> list[str]:
    """Speed and accuracy of one system against the baseline."""
    speed = comparison.speed
    measured = [report.system(name) for name in (comparison.baseline, comparison.candidate)]
    note = f"{speed.verdict}, {speed.interval.low:.2f}–{speed.interval.high:.2f}"
    tone = {"faster": "good", "slower": "bad"}.get(speed.verdict, "")
    if not all(system.latency.stability.stable for system in measured):
        note, tone = f"{note}; unstable", "warn"
    cards = [_card(f"{comparison.candidate}: speed-up", f"{speed.speedup:.2f}×", note, tone)]
    drop, result = comparison.accuracy, report.system(comparison.candidate).accuracy
    if drop is not None and result is not None:
        value = format_score(result.value) if result.unit == "share" else f"{result.value:.4g}"
        cards.append(
            _card(
                f"{comparison.candidate}: {drop.metric}",
                value,
                f"drop {drop.drop:.2f} {drop.unit}, {drop.verdict}",
                {"worse": "bad"}.get(drop.verdict, "good"),
            )
        )
    return cards


def _card(label: str, value: str, note: str, tone: str = "") -> str:
    return (
        f'<div class="card"><div class="label">{escape(label)}</div>'
        f'<div class="value {tone}">{escape(value)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
    )


def _limits(report: Report) -> str:
    """Whether the limits were kept, before any table."""
    missed = tuple(
        f"Limit missed: {check.what} is {check.found}, demanded {check.limit}."
        for check in report.gate
        if not check.passed
    )
    if missed or not report.gate:
        return _notes("bad", missed)
    return _notes("good", (f"All {len(report.gate)} limits were kept.",))


def _main_plots(report: Report) -> Iterable[tuple[str, str]]:
    """Plot and caption, most telling first."""
    samples = {system.name: system.latency.samples_ms for system in report.systems}
    yield charts.plot_latency(samples), "Latencies; the slowest half percent lies to the right."
    yield charts.plot_cdf(samples), "Queries answered within a time, the slowest one included."
    scored = [system for system in report.systems if system.accuracy and system.accuracy.metric]
    if scored:
        yield charts.plot_pareto(scored), "Up is more accurate, left is faster."
    yield charts.plot_rounds(report.systems), "Medians round by round: drift would be a slope."


def _section_plots(section: Section, report: Report) -> Iterable[tuple[str, str]]:
    """The plots that belong to a table."""
    if section.title.startswith("Throughput"):
        for kind in ("batch", "threads"):
            points = [point for point in report.sweeps if point.kind == kind]
            if points:
                yield charts.plot_sweep(points, kind), "Bands are 95 % intervals."
    if section.title == "Layers" and any(s.int8_mac_share is not None for s in report.systems):
        for entry in report.ranges[:SHOWN_RANGES]:
            caption = f"INT8 clips at the line, {entry.amax:.4g}, by {entry.method}."
            yield charts.plot_range(entry), caption
        yield charts.plot_layers(report), "Each segment is a layer, in the order of the graph."
    for comparison in report.comparisons:
        pair = report.systems[0], report.system(comparison.candidate)
        if section == times_section(report, comparison.candidate):
            caption = "The layers that take the most time in either system."
            yield charts.plot_layer_times(*pair), caption
    for system in report.systems:
        if section.title == f"{NOISE}: {system.name}":
            yield charts.plot_noise(system), "Higher is closer to the float graph."


def _section(section: Section, report: Report, *, level: int = 2) -> str:
    """Heading, text, plots, table; a long table is folded."""
    table = _table(section.rows)
    if len(section.rows) > FOLDED:
        table = f"<details><summary>{len(section.rows) - 1} rows</summary>{table}</details>"
    return (
        f"<h{level}>{escape(section.title)}</h{level}><p class='soft'>{escape(section.text)}</p>"
        f"{_figures(_section_plots(section, report))}{table}"
    )


def _explanation(explanation: Explanation, report: Report) -> str:
    """Why a system is not faster, with the times of both systems' kernels."""
    advice = ""
    if explanation.advice:
        advice = f"<p>What to try:</p>{_list(explanation.advice)}"
    times = times_section(report, explanation.candidate)
    return (
        f"<h2>Why is {escape(explanation.candidate)} not faster?</h2>"
        f"{_list(explanation.findings)}{advice}"
        f"{_section(times, report, level=3) if times.rows else ''}"
    )


def _environment(report: Report) -> str:
    """What it ran on, and the timing rules."""
    rules = {name: f"{value:g}" for name, value in vars(report.rules).items()}
    groups = {**report.environment, "during the run": report.steadiness.facts, "rules": rules}
    parts = "".join(
        f"<section><h3>{escape(name)}</h3>{_pairs(facts)}</section>"
        for name, facts in groups.items()
    )
    files = "".join(
        f"<section><h3>{escape(system.name)}</h3>"
        + _pairs({"file": system.path, "sha256": system.sha256, "target": system.target})
        + "</section>"
        for system in report.systems
    )
    return f'<h2>Environment</h2><div class="facts">{parts}{files}</div>'


def _table(rows: Rows) -> str:
    """Header row and body rows; long texts may break."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[1:])
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    return (
        f'<td class="long">{escape(text)}</td>' if len(text) > LONG else f"<td>{escape(text)}</td>"
    )


def _figures(found: Iterable[tuple[str, str]]) -> str:
    """Plots with what to see in them."""
    drawn = "".join(
        f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        for svg, caption in found
    )
    return f'<div class="plots">{drawn}</div>' if drawn else ""


def _pairs(values: dict[str, str]) -> str:
    """Key and value, as a list of terms."""
    terms = (f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in values.items())
    return f"<dl>{''.join(terms)}</dl>"


def _list(lines: Iterable[str]) -> str:
    return '<ul class="plain">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _notes(tone: str, notes: tuple[str, ...]) -> str:
    """A coloured box, or nothing."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes {tone}">{items}</ul>' if items else ""
