"""Plots as SVG text that takes its colours from the page, so that dark mode needs no second set."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from artefacts.libraries import require
from benchmarks.statistics.percentiles import Floats

__all__ = ["plot_cdf", "plot_latency"]

# Written by matplotlib, replaced by CSS variables of page.html.
INK, GRID = "#0f0f01", "#0f0f02"
SERIES = tuple(f"#0f0f1{index}" for index in range(8))
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def plot_latency(samples_ms: Mapping[str, Floats]) -> str:
    """Histograms of the latencies of each system, tails folded into a note, not clipped from data.

    Args:
        samples_ms: system → latencies (n,).
    """
    top = max(float(np.percentile(values, 99.5)) for values in samples_ms.values())
    low = min(float(values.min()) for values in samples_ms.values())
    edges = np.linspace(low, top, 80)
    figure, axes = _axes("latency, ms", "share of queries, %")
    for color, (name, values) in zip(SERIES, samples_ms.items(), strict=False):
        counts, _ = np.histogram(values, bins=edges)
        heights = 100 * counts / values.size
        axes.stairs(heights, edges, color=color, fill=True, alpha=0.25)
        axes.stairs(heights, edges, color=color, label=name, linewidth=1.4)
    axes.legend(loc="upper right")
    return _svg(figure, "Latency distribution of each system")


def plot_cdf(samples_ms: Mapping[str, Floats]) -> str:
    """Share of queries answered within a time, whole range, logarithmic time axis.

    Args:
        samples_ms: system → latencies (n,).
    """
    figure, axes = _axes("latency, ms (logarithmic)", "queries answered within, %")
    shares = np.concatenate([np.linspace(0, 99, 400), np.linspace(99, 100, 101)])
    for color, (name, values) in zip(SERIES, samples_ms.items(), strict=False):
        axes.plot(np.percentile(values, shares), shares, color=color, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.legend(loc="lower right")
    return _svg(figure, "Cumulative latency distribution of each system")


def _axes(x_label: str, y_label: str) -> tuple[Any, Any]:
    """A figure without pyplot's global state, and its axes."""
    matplotlib = require("matplotlib", extra="report")
    figures = require("matplotlib.figure", extra="report")
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    """The figure as an ``<svg>`` element that scales with the page and names itself."""
    matplotlib = require("matplotlib", extra="report")
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for color, variable in {INK: "ink", GRID: "line"}.items():
        svg = svg.replace(color, f"var(--{variable})")
    for index, color in enumerate(SERIES):
        svg = svg.replace(color, f"var(--s{index})")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
