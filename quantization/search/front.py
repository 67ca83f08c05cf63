"""What a search found, for people: lines, plain values for the recipe, a plot of the front."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from artefacts.libraries import require
from quantization.measure.plots import save_figure
from quantization.search.candidates import SearchResult
from quantization.search.problem import Goal, Point

__all__ = ["found_of", "pareto_plot", "point_text"]


def point_text(point: Point, goal: Goal) -> str:
    """One candidate in a line."""
    count = len(point.released)
    what = "all groups in INT8" if not count else f"{count} group{'s'[: count > 1]} in float"
    kept = "kept" if goal.kept(point.score) else "missed"
    return f"{what}, {point.int8_share:.1%} of MACs in INT8: {goal.say(point.score)}, {kept}"


def found_of(result: SearchResult, goal: Goal) -> dict[str, Any]:
    """The outcome and the Pareto front as plain values, for the recipe."""
    return {
        "promise": str(goal),
        "kept_on_selection": result.met,
        "how": result.why,
        **_plain(result.point),
        "cost_unit": result.cost_unit,
        "front": [_plain(point) for point in result.front],
    }


def pareto_plot(result: SearchResult, goal: Goal, path: str | Path) -> None:
    """Every candidate that was tried, the front and the chosen one; the format is the ending's.

    The float network itself is left out: it lies so far above that nothing else could be
    distinguished.

    Raises:
        MissingLibraryError: matplotlib is not installed.
        InputError: the folder cannot be written to.
    """
    figures = require("matplotlib.figure", extra="report")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    sign = -1.0 if goal.drop else 1.0
    tried, front = (
        [point for point in points if point.int8_share > 0 and math.isfinite(point.score)]
        for points in (result.points, result.front)
    )
    axes.plot(*_line(tried, sign), "o", color="0.7", markersize=5, label="tried")
    axes.plot(*_line(front, sign), "o-", color="C0", markersize=5, label="front")
    chosen = [result.point] if result.point in tried else []
    axes.plot(*_line(chosen, sign), "*", color="C3", markersize=14, label="chosen")
    axes.axhline(sign * goal.minimum, color="C2", linestyle="--", label="promise")
    if goal.drop:
        axes.invert_yaxis()
        axes.set_ylabel(f"drop ({goal.unit}), better upwards")
    else:
        axes.set_ylabel(goal.unit)
    axes.set_xlabel(f"cost of the layers left in float ({result.cost_unit})")
    axes.set_title("Accuracy against the cost of layers left in float")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(path))


def _line(points: list[Point], sign: float) -> tuple[list[float], list[float]]:
    return [point.cost for point in points], [sign * point.score for point in points]


def _plain(point: Point) -> dict[str, Any]:
    values = dataclasses.asdict(point)
    return {**values, "released": list(point.released)}
