"""Matplotlib to SVG text that takes its colours from the page: dark mode needs no second set."""

from __future__ import annotations

import io
import re
from typing import Any

from artefacts.libraries import require

__all__ = ["INK", "LEGEND", "LINE", "SERIES", "SOFT", "axes_of", "to_svg"]

# Written by matplotlib, replaced by CSS variables of page.html.
INK, LINE, SOFT, PANEL = "#0f0f01", "#0f0f02", "#0f0f03", "#0f0f04"
SERIES = tuple(f"#0f0f1{index}" for index in range(8))
VARIABLES = {INK: "ink", LINE: "line", SOFT: "soft", PANEL: "panel"} | {
    color: f"s{index}" for index, color in enumerate(SERIES)
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
WIDTH = 5.2  # inches; a narrower figure has larger text on the page
# Matplotlib reads these when a legend is made, long after the axes.
LEGEND = {"frameon": False, "handlelength": 1.2, "fontsize": 10.5, "labelcolor": INK}


def axes_of(x_label: str, y_label: str, *, height: float = 2.9) -> tuple[Any, Any]:
    """A figure without pyplot's global state, and its axes.

    Args:
        x_label: with the unit.
        y_label: with the unit.
        height: inches; the width is 5.2.
    """
    matplotlib = require("matplotlib", extra="report")
    figures = require("matplotlib.figure", extra="report")
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def to_svg(figure: Any, title: str) -> str:
    """The figure as an ``<svg>`` element that scales with the page and names itself."""
    matplotlib = require("matplotlib", extra="report")
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    # Ids would clash between the figures of one page.
    mark = re.sub(r"\W+", "-", title.lower())
    rest = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{mark}-", rest)
    return f'{head} role="img" aria-label="{title}">{rest}'
