"""The plots of a report, each as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from artefacts.libraries import require
from benchmarks.latency import SweepPoint
from benchmarks.report.canvas import INK, LEGEND, LINE, SERIES, SOFT, axes_of, to_svg
from benchmarks.report.document import RangeHistogram, Report, SystemReport
from benchmarks.report.timings import conversions_ms, shared_layers
from benchmarks.statistics.percentiles import Floats

__all__ = [
    "plot_cdf",
    "plot_latency",
    "plot_layer_times",
    "plot_layers",
    "plot_noise",
    "plot_pareto",
    "plot_range",
    "plot_rounds",
    "plot_sweep",
]

SHOWN_LAYERS = 14
SHOWN_NAMES, NEAR = 3, 5  # names in a plot, and how many places they need
SHOWN_LETTERS = 28


def plot_latency(samples_ms: Mapping[str, Floats]) -> str:
    """Histograms of the latencies, one colour per system; the last half percent is not drawn.

    Args:
        samples_ms: system → latencies (n,).
    """
    low = min(float(values.min()) for values in samples_ms.values())
    top = max(float(np.percentile(values, 99.5)) for values in samples_ms.values())
    wide = top > 4 * low
    fewest = min(values.size for values in samples_ms.values())
    bins = int(np.clip(2 * fewest**0.5, 24, 90))
    edges = np.geomspace(low, top, bins) if wide else np.linspace(low, top, bins)
    figure, axes = axes_of("latency, ms", "share of queries, %")
    for color, (name, values) in zip(SERIES, samples_ms.items(), strict=False):
        heights = 100 * np.histogram(values, bins=edges)[0] / values.size
        axes.stairs(heights, edges, color=color, fill=True, alpha=0.22)
        axes.stairs(heights, edges, color=color, label=name, linewidth=1.3)
    if wide:
        _logarithmic(axes.xaxis, axes.set_xscale)
    _legend(axes)
    return to_svg(figure, "Latency distribution")


def plot_cdf(samples_ms: Mapping[str, Floats]) -> str:
    """Share of queries answered within a time; every sample is in it.

    Args:
        samples_ms: system → latencies (n,).
    """
    figure, axes = axes_of("latency, ms", "answered within, %")
    shares = np.concatenate([np.linspace(0, 99, 300), np.linspace(99, 100, 101)])
    for color, (name, values) in zip(SERIES, samples_ms.items(), strict=False):
        axes.plot(np.percentile(values, shares), shares, color=color, label=name)
    _logarithmic(axes.xaxis, axes.set_xscale)
    axes.axhline(99, color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.annotate(
        "99 %", (0.995, 98), xycoords=("axes fraction", "data"), ha="right", va="top", color=SOFT
    )
    _legend(axes)
    return to_svg(figure, "Cumulative latency distribution")


def plot_rounds(systems: Sequence[SystemReport]) -> str:
    """Median of each round over the run: drift and disturbances show here.

    Args:
        systems: measured in the same rounds.
    """
    figure, axes = axes_of("round", "median latency, ms")
    for color, system in zip(SERIES, systems, strict=False):
        medians = [float(np.median(values)) for values in system.latency.rounds_ms]
        axes.plot(np.arange(1, len(medians) + 1), medians, color=color, label=system.name)
    axes.set_ylim(bottom=0)
    _legend(axes)
    return to_svg(figure, "Median latency of each round")


def plot_pareto(systems: Sequence[SystemReport]) -> str:
    """Accuracy against median latency; a system with another to its upper left is never the choice.

    Args:
        systems: with accuracy.
    """
    figure, axes = axes_of("median latency, ms", "accuracy")
    slowest = max(system.latency.figures["p50_ms"].value for system in systems)
    shares = all(system.accuracy and system.accuracy.unit == "share" for system in systems)
    for color, system in zip(SERIES, systems, strict=False):
        if system.accuracy is None:
            continue
        figure_ms = system.latency.figures["p50_ms"]
        value = system.accuracy.value * (100 if shares else 1)
        axes.plot([figure_ms.value], [value], "o", color=color, markersize=8)
        if figure_ms.interval:
            ends = [figure_ms.interval.low, figure_ms.interval.high]
            axes.plot(ends, [value, value], color=color, linewidth=1.4)
        axes.annotate(
            system.name,
            (figure_ms.value, value),
            (0, 9),
            textcoords="offset points",
            ha=_side(figure_ms.value / slowest),
            color=INK,
        )
    first = next(s.accuracy for s in systems if s.accuracy)
    axes.set_ylabel(f"{first.metric}, %" if shares else first.metric)
    axes.margins(x=0.18, y=0.35)
    if shares:
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))  # nothing is better than all
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis="y", useOffset=False)
    return to_svg(figure, "Accuracy against latency")


def _side(place: float) -> str:
    """Which way a label grows: away from the nearer edge."""
    return "left" if place < 0.3 else "right" if place > 0.7 else "center"


def plot_sweep(points: Sequence[SweepPoint], kind: str) -> str:
    """Throughput against batch size or threads.

    Args:
        points: of one kind.
        kind: ``batch`` or ``threads``.
    """
    label = "images per query" if kind == "batch" else "threads"
    figure, axes = axes_of(label, "images a second")
    names = list(dict.fromkeys(point.system for point in points))
    for color, name in zip(SERIES, names, strict=False):
        mine = [point for point in points if point.system == name]
        sizes = [point.size for point in mine]
        rates = [point.throughput_per_s for point in mine]
        axes.plot(sizes, [rate.value for rate in rates], "o-", color=color, label=name, ms=5)
        if all(rate.interval for rate in rates):
            low = [rate.interval.low for rate in rates if rate.interval]
            high = [rate.interval.high for rate in rates if rate.interval]
            axes.fill_between(sizes, low, high, color=color, alpha=0.18, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({point.size for point in points}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _legend(axes)
    return to_svg(figure, f"Throughput against {kind}")


def plot_layers(report: Report) -> str:
    """Work of each layer by the precision it runs in, one row of bars per engine.

    Args:
        report: with at least one system whose layers are known.
    """
    known = [s for s in report.systems if s.int8_mac_share is not None]
    figure, axes = axes_of(
        "share of the multiply-accumulates, %", "", height=0.8 + 0.5 * len(known)
    )
    colors = {"int8": SERIES[2], "fp16": SERIES[3], "bf16": SERIES[4], "fp32": SERIES[0]}
    for row, system in enumerate(reversed(known)):
        total = sum(layer.macs for layer in system.layers)
        left = 0.0
        for layer in system.layers:
            width = 100 * layer.macs / total
            color = colors.get(layer.precision, SOFT)
            axes.barh(row, width, left=left, color=color, height=0.6, edgecolor=LINE, linewidth=0.6)
            left += width
    axes.set_yticks(range(len(known)), [system.name for system in reversed(known)])
    axes.grid(visible=False)
    axes.set_xlim(0, 100)
    seen = dict.fromkeys(layer.precision for system in known for layer in system.layers)
    for name in seen:
        axes.barh([0], [0], color=colors.get(name, SOFT), label=name)
    _legend(axes)
    return to_svg(figure, "Work by precision")


def plot_layer_times(baseline: SystemReport, candidate: SystemReport) -> str:
    """Time of each layer in two systems, as pairs of bars.

    Args:
        baseline: with kernels.
        candidate: with kernels.
    """
    timed = [x for x in shared_layers(baseline, candidate) if x.times_ms != (None, None)]
    timed.sort(key=lambda layer: -max(time or 0.0 for time in layer.times_ms))
    shown = timed[:SHOWN_LAYERS][::-1]
    names = [layer.name for layer in shown]
    rows = [[time or 0.0 for time in layer.times_ms] for layer in shown]
    names.insert(0, "conversions")
    rows.insert(0, [conversions_ms(baseline), conversions_ms(candidate)])
    figure, axes = axes_of("ms per query", "", height=0.9 + 0.36 * len(rows))
    places = np.arange(len(rows))
    for index, system in enumerate((baseline, candidate)):
        axes.barh(
            places + 0.19 - 0.38 * index,
            [row[index] for row in rows],
            height=0.36,
            color=SERIES[index],
            label=system.name,
        )
    axes.set_yticks(places, [_short(name) for name in names])
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlim(left=0)
    _legend(axes)
    return to_svg(figure, f"Time by layer of {candidate.name}")


def plot_noise(system: SystemReport) -> str:
    """Signal to noise of each tensor along the graph: all that reaches it, and its own.

    Args:
        system: with tensors.
    """
    figure, axes = axes_of("tensors in the order of the graph", "SQNR, dB")
    for color, marker, label, values in (
        (SERIES[0], "o-", "with all errors before it", [t.sqnr_db for t in system.tensors]),
        (SERIES[1], "D", "its own pair alone", [t.own_sqnr_db for t in system.tensors]),
    ):
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        axes.plot(*zip(*known, strict=True), marker, color=color, label=label, markersize=4.5)
    noisy = [(t.sqnr_db, place) for place, t in enumerate(system.tensors) if t.sqnr_db is not None]
    named: list[int] = []
    for value, place in sorted(noisy):
        if len(named) == SHOWN_NAMES or any(abs(place - other) < NEAR for other in named):
            continue
        named.append(place)
        axes.annotate(
            _short(system.tensors[place].tensor),
            (place, value),
            (0, -11),
            textcoords="offset points",
            ha=_side(place / max(len(system.tensors) - 1, 1)),
            color=INK,
            fontsize=9,
        )
    axes.set_xticks([])
    axes.margins(y=0.15)
    _legend(axes)
    return to_svg(figure, f"Signal to noise of {system.name}")


def _short(name: str) -> str:
    """The end of a long name: that is where exporters write what differs."""
    return name if len(name) <= SHOWN_LETTERS else f"…{name[-SHOWN_LETTERS + 1 :]}"


def plot_range(histogram: RangeHistogram) -> str:
    """Absolute values of a calibrated tensor on a logarithmic scale, and where INT8 clips.

    Args:
        histogram: of the tensor.
    """
    figure, axes = axes_of("absolute value", "values", height=1.9)
    counts = np.array(histogram.counts, np.float64)
    edges = histogram.width * np.arange(counts.size + 1)
    used = max(int(np.max(np.nonzero(counts)[0], initial=0)) + 1, 1)
    axes.stairs(counts[:used], edges[: used + 1], color=SERIES[0], fill=True, alpha=0.5)
    axes.axvline(histogram.amax, color=SERIES[1], linewidth=1.6)
    axes.set_yscale("log")
    axes.set_title(_short(histogram.tensor), loc="left", color=INK)
    axes.set_xlim(left=0)
    axes.minorticks_off()
    return to_svg(figure, f"Calibrated range of {histogram.tensor}")


def _legend(axes: Any) -> None:
    """Above the axes, where it hides nothing; names below each other where they are long."""
    names = axes.get_legend_handles_labels()[1]
    columns = 4 if sum(len(name) + 4 for name in names) < 70 else 1
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, **LEGEND)


def _logarithmic(axis: Any, set_scale: Any) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    set_scale("log")
    axis.set_major_locator(_ticks((1.0, 2.0, 5.0)))
    axis.set_minor_locator(_ticks(()))
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _ticks(steps: tuple[float, ...]) -> Any:
    """Matplotlib's locator for a logarithmic axis."""
    ticker = require("matplotlib.ticker", extra="report")
    return ticker.LogLocator(subs=steps) if steps else ticker.NullLocator()
