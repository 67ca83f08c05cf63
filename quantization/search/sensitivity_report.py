"""``python -m quantization sensitivity``: what each fusion group costs, as table, JSON and plot."""

from __future__ import annotations

import dataclasses
import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from artefacts.files import write_atomic
from artefacts.libraries import require
from calibrators.ranges.ranges import Ranges
from graphs.identity import graph_hash
from quantization.commands import Outcome, add_placement, placement_of
from quantization.improve.improved import as_calibrated
from quantization.measure.execution import Arrays
from quantization.measure.plots import save_figure
from quantization.search.sensitivity import Sensitivity, sensitivities

__all__ = [
    "add_sensitivity",
    "sensitivity_json",
    "sensitivity_on",
    "sensitivity_plot",
    "sensitivity_text",
]

_LINE = "{:>9}  {:>10}  {:>11}  {:>7}  {}"


def add_sensitivity(parser: ArgumentParser) -> None:
    """Flags of ``sensitivity``."""
    parser.add_argument("model", type=Path, help="prepared float ONNX file (*.prepared.onnx)")
    parser.add_argument("--ranges", type=Path, required=True, help="its *.ranges.json")
    parser.add_argument("--data", required=True, help="samples, others than the calibration's")
    parser.add_argument("--preprocess", type=Path, help="YAML spec for images")
    parser.add_argument("--num", type=int, default=32, help="samples (default 32)")
    add_placement(parser)
    parser.add_argument("--all", action="store_true", help="list every group")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="draw it here (png, svg, pdf)")


def sensitivity_on(
    arguments: Namespace, model: onnx.ModelProto, samples: Sequence[Arrays]
) -> Outcome:
    """Rank the groups of a prepared model, and write what was asked for."""
    ranges = Ranges.load(arguments.ranges)
    ranges.check_graph(graph_hash(model))
    placement = placement_of(arguments, model, ranges)
    improved = as_calibrated(model, ranges)
    with tqdm(unit=" runs", leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = sensitivities(model, improved, placement, samples, progress=progress)
    if arguments.json:
        write_atomic(arguments.json, sensitivity_json(found).encode())
    if arguments.plot:
        sensitivity_plot(found, arguments.plot)
    return Outcome(text=sensitivity_text(found, limit=None if arguments.all else 20))


def sensitivity_text(found: Sequence[Sensitivity], *, limit: int | None = 20) -> str:
    """A table, largest gain first; ``limit`` rows, None for all."""
    shown = found if limit is None else found[:limit]
    total = sum(entry.group.macs for entry in found) or 1
    lines = [_LINE.format("gained %", "alone dB", "without dB", "MACs %", "group")]
    lines += [
        _LINE.format(
            f"{100 * entry.gained:.1f}",
            f"{entry.alone.sqnr_db:.1f}",
            f"{entry.without.sqnr_db:.1f}",
            f"{100 * entry.group.macs / total:.1f}",
            ", ".join(entry.group.nodes),
        )
        for entry in shown
    ]
    if len(shown) < len(found):
        lines.append(f"and {len(found) - len(shown)} that matter less")
    lines.append(
        "gained: share of the noise that goes when the group is left in float. alone: SQNR with "
        "only this group in INT8. without: SQNR with all groups in INT8 but this one."
    )
    return "\n".join(lines)


def sensitivity_json(found: Sequence[Sensitivity]) -> str:
    """A list of objects, largest gain first; infinite SQNR (no error) is null."""
    rows = [_finite(dataclasses.asdict(entry)) for entry in found]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)


def sensitivity_plot(found: Sequence[Sensitivity], path: str | Path) -> None:
    """Both SQNRs over the depth of the graph, as PNG, SVG or PDF by the ending of ``path``.

    Raises:
        MissingLibraryError: matplotlib is not installed.
        InputError: the folder cannot be written to.
    """
    figures = require("matplotlib.figure", extra="report")
    ordered = sorted(found, key=lambda entry: entry.group.position)
    places = range(len(ordered))
    figure = figures.Figure(figsize=(10, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.bar(places, [100 * entry.gained for entry in ordered])
    upper.set_ylabel("noise gone when in float (%)")
    upper.set_title("What each fusion group costs")
    for values, label in (
        ([entry.alone.sqnr_db for entry in ordered], "alone in INT8"),
        ([entry.without.sqnr_db for entry in ordered], "all in INT8 but this one"),
    ):
        finite = [value if math.isfinite(value) else math.nan for value in values]
        lower.plot(places, finite, "o-", markersize=4, linewidth=1, label=label)
    for entry in found[:3]:
        where = (ordered.index(entry), 100 * entry.gained)
        upper.annotate(entry.group.name, where, fontsize=7, ha="center", va="bottom")
    upper.margins(y=0.12)
    lower.set_xlabel("fusion group, in graph order")
    lower.set_ylabel("SQNR (dB)")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    lower.legend()
    save_figure(figure, Path(path))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
