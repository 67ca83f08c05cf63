"""The simulator's errors as table, JSON and plot."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from artefacts.libraries import require
from quantization.measure.plots import save_figure
from quantization.measure.simulate import TensorError

__all__ = ["simulation_json", "simulation_plot", "simulation_text"]

_LINE = "{:>8}  {:>9}  {:>8}  {:<18}  {}"


def simulation_text(errors: Sequence[TensorError], *, limit: int | None = 20) -> str:
    """A table, worst tensor first; ``limit`` rows, None for all."""
    shown = errors if limit is None else errors[:limit]
    lines = [_LINE.format("SQNR dB", "cosine", "own dB", "operator", "tensor")]
    lines += [
        _LINE.format(
            _number(error.sqnr_db),
            f"{error.cosine:.6f}",
            "" if error.own_sqnr_db is None else _number(error.own_sqnr_db),
            error.op_type,
            error.tensor,
        )
        for error in shown
    ]
    if len(shown) < len(errors):
        lines.append(f"and {len(errors) - len(shown)} better ones")
    lines.append("SQNR and cosine: against the float graph. own: rounding of this tensor alone.")
    return "\n".join(lines)


def simulation_json(errors: Sequence[TensorError]) -> str:
    """A list of objects, worst first; infinite SQNR (no error) is null."""
    rows = [
        {
            key: None if isinstance(value, float) and math.isinf(value) else value
            for key, value in dataclasses.asdict(error).items()
        }
        for error in errors
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)


def simulation_plot(errors: Sequence[TensorError], path: str | Path) -> None:
    """SQNR over the depth of the graph, as PNG, SVG or PDF by the ending of ``path``.

    Raises:
        MissingLibraryError: matplotlib is not installed.
        InputError: the folder cannot be written to.
    """
    figures = require("matplotlib.figure", extra="report")
    ordered = sorted(errors, key=lambda error: error.position)
    figure = figures.Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    for values, label, style in (
        ([error.sqnr_db for error in ordered], "with all errors before it", "o-"),
        ([error.own_sqnr_db for error in ordered], "rounding of this tensor alone", "x"),
    ):
        finite = [math.nan if v is None or math.isinf(v) else v for v in values]
        axes.plot(range(len(ordered)), finite, style, label=label, markersize=4, linewidth=1)
    for error in errors[:3]:
        if math.isfinite(error.sqnr_db):
            axes.annotate(error.tensor, (ordered.index(error), error.sqnr_db), fontsize=7)
    axes.set_xlabel("tensor, in graph order")
    axes.set_ylabel("SQNR (dB)")
    axes.set_title("INT8 against float32, tensor by tensor")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(path))


def _number(decibel: float) -> str:
    return f"{decibel:.1f}"
