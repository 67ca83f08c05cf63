"""The tables of a report on systems under load: scenarios, sweeps, energy, memory."""

from __future__ import annotations

from benchmarks.latency import Figure
from benchmarks.report.document import Report
from benchmarks.report.tables import NONE, Section, three_digits

__all__ = ["energy_section", "memory_section", "scenarios_section", "sweeps_section"]


def scenarios_section(report: Report) -> Section:
    """LoadGen's scenarios, a row for each system in each."""
    header = ["system", "scenario", "p50 ms", "p90 ms", "p99 ms", "images/s", "load", "LoadGen"]
    rows = [header]
    for result in report.scenarios:
        load = NONE
        if result.rate_per_s is not None:
            load = f"{result.rate_per_s:,.0f}/s, p99 ≤ {result.bound_ms:g} ms"
        rows.append(
            [
                result.system,
                result.scenario,
                *(three_digits(result.figures[f"p{p}_ms"]) for p in (50, 90, 99)),
                f"{result.figures['throughput_per_s']:,.0f}",
                load,
                "valid" if result.valid else "not valid: " + "; ".join(result.reasons),
            ]
        )
    return Section(
        title="Load scenarios",
        text=(
            "Driven and judged by MLPerf LoadGen. Runs are shorter than MLPerf's 600 s and are no "
            "MLPerf results. Server: queries arrive at random, latency counts from the arrival."
        ),
        rows=rows,
    )


def sweeps_section(report: Report) -> Section:
    """Throughput at each batch size and number of threads."""
    return Section(
        title="Throughput against batch and threads",
        text="Systems side by side at each size. With several threads trust throughput.",
        rows=[
            ["system", "varied", "size", "p50 ms", "p99 ms", "images/s"],
            *(
                [
                    point.system,
                    point.kind,
                    str(point.size),
                    three_digits(point.p50_ms),
                    three_digits(point.p99_ms),
                    _rate(point.throughput_per_s) + ("" if point.stable else " unstable"),
                ]
                for point in report.sweeps
            ),
        ],
    )


def energy_section(report: Report) -> Section:
    """Energy of an image, where there was a meter."""
    found = [(s.name, s.energy) for s in report.systems if s.energy]
    return Section(
        title="Energy",
        text=(
            f"Read from {found[0][1].meter}; idle power is measured before the run and subtracted."
            if found
            else ""
        ),
        rows=[
            ["system", "mJ per image", "with idle, mJ", "mean W", "idle W", "images", "seconds"],
            *(
                [
                    name,
                    three_digits(1e3 * energy.per_image_j),
                    three_digits(1e3 * energy.gross_per_image_j),
                    f"{energy.mean_w:.1f}",
                    f"{energy.idle_w:.1f}",
                    f"{energy.images:,}",
                    f"{energy.seconds:.1f}",
                ]
                for name, energy in found
            ),
        ],
    )


def memory_section(report: Report) -> Section:
    """Size of the file, and what loading it costs."""
    return Section(
        title="Memory and cold start",
        text=(
            "Each engine loaded and run once in a fresh process, as a service starts: loading "
            "imports the runtime's library, and the growth of memory includes it."
        ),
        rows=[
            ["system", "file MB", "load ms", "first run ms", "host MB", "growth MB", "device MB"],
            *(
                [
                    s.name,
                    f"{s.size_bytes / 1e6:.2f}",
                    f"{s.memory.load_ms:.0f}",
                    f"{s.memory.first_ms:.1f}",
                    f"{s.memory.host_peak_bytes / 1e6:.0f}",
                    f"{s.memory.host_growth_bytes / 1e6:.0f}",
                    NONE if s.memory.device_bytes is None else f"{s.memory.device_bytes / 1e6:.0f}",
                ]
                for s in report.systems
                if s.memory
            ),
        ],
    )


def _rate(figure: Figure) -> str:
    """E.g. ``1,234 (1,200–1,260)``."""
    if figure.interval is None:
        return f"{figure.value:,.0f}"
    return f"{figure.value:,.0f} ({figure.interval.low:,.0f}–{figure.interval.high:,.0f})"
