"""The commands of ``python -m calibrators``: each takes parsed arguments and returns its text."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from tqdm import tqdm

from artefacts.errors import InputError
from artefacts.files import read_bounded, write_atomic
from artefacts.words import counted
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.ranges.auto import CANDIDATES, choose_per_tensor
from calibrators.ranges.diagnostics import TensorReport, convergence, describe
from calibrators.ranges.methods import METHODS, compute_ranges
from calibrators.ranges.ranges import LEVELS, READER_ERROR, Ranges
from calibrators.samples.checks import check_unnormalised
from calibrators.samples.data import input_specs, open_samples
from calibrators.statistics.observe import observe
from calibrators.statistics.statistics import Statistics
from calibrators.tensorrt.cache import (
    ALGORITHMS,
    CalibrationCache,
    cache_from_ranges,
    read_cache,
    rewrite_header,
    write_cache,
)

__all__ = [
    "add_cache",
    "add_merge",
    "add_observe",
    "add_ranges",
    "add_show",
    "cache",
    "merge",
    "observe_on",
    "ranges",
    "show",
    "table",
]

_LIMIT_BYTES = 64 << 20


def add_observe(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``observe``."""
    parser.add_argument("model", type=Path, help="prepared float ONNX file (*.prepared.onnx)")
    parser.add_argument("--data", required=True, help="samples, as for --calib-data")
    parser.add_argument("--preprocess", type=Path, help="YAML spec for images")
    parser.add_argument("--num", type=int, help="use only this many samples")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="*.stats.npz to write; where it is there, observing goes on from it",
    )


def observe_on(
    arguments: argparse.Namespace, model: onnx.ModelProto, tensors: Sequence[str]
) -> str:
    """Run the model over the samples and keep the statistics of ``tensors``."""
    spec = Preprocess.from_yaml(arguments.preprocess) if arguments.preprocess else None
    samples = open_samples(
        arguments.data, inputs=input_specs(model), preprocess=spec, limit=arguments.num
    )
    said = [f"warning: {text}" for text in check_unnormalised(samples)]
    with tqdm(total=len(samples), unit=" samples", leave=False, disable=None) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.update(done - bar.n)

        found = observe(
            model,
            tensors,
            samples,
            checkpoint=arguments.output,
            preprocess=samples.preprocess.to_dict() if samples.preprocess else None,
            progress=progress,
        )
    said.append(f"{arguments.output}: {len(found.samples)} samples, {len(found.tensors)} tensors")
    return "\n".join(said)


def add_merge(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``merge``."""
    parser.add_argument("statistics", nargs="+", type=Path, help="*.stats.npz of the shards")
    parser.add_argument("-o", "--output", type=Path, required=True, help="*.stats.npz to write")


def merge(arguments: argparse.Namespace) -> str:
    """Join the statistics of shards."""
    first, *others = [Statistics.load(path) for path in arguments.statistics]
    merged = first.merge(*others)
    merged.save(arguments.output)
    samples, tensors = counted(len(merged.samples), "sample"), len(merged.tensors)
    return f"{arguments.output}: {samples}, {counted(tensors, 'tensor')}"


def add_ranges(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ranges``."""
    parser.add_argument("statistics", type=Path, help="*.stats.npz")
    parser.add_argument(
        "--method", default="entropy", help=f"{', '.join(METHODS)}, percentile:<percent>, or auto"
    )
    parser.add_argument(
        "--held-out", type=Path, help="auto: *.stats.npz of other samples that judge"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="*.ranges.json to write")


def ranges(arguments: argparse.Namespace) -> str:
    """Choose ranges from statistics by any method, without the samples."""
    statistics = Statistics.load(arguments.statistics)
    if arguments.held_out is not None and arguments.method != "auto":
        raise InputError(
            f"method {arguments.method} with --held-out, expected auto: of "
            f"{', '.join(CANDIDATES)} it takes what errs least on samples held out; "
            "give --method auto or drop --held-out"
        )
    if arguments.method != "auto":
        found = compute_ranges(statistics, method=arguments.method)
    else:
        other = arguments.held_out
        found = choose_per_tensor(statistics, None if other is None else Statistics.load(other))
    found.save(arguments.output)
    return f"{arguments.output}: {len(found.tensors)} ranges by {found.method}"


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cache``."""
    parser.add_argument("file", type=Path, help="*.ranges.json, or a calibration cache")
    parser.add_argument("--version", help="TensorRT that will read the cache, e.g. 10.3.0")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default=ALGORITHMS[0])
    parser.add_argument(
        "--rewrite-header",
        action="store_true",
        help="take over the scales of another version's or algorithm's cache, unchecked",
    )
    parser.add_argument("-o", "--output", type=Path, help="cache to write; none to show FILE")


def cache(arguments: argparse.Namespace) -> str:
    """Write TensorRT's calibration cache, show one, or change its header."""
    data = read_bounded(arguments.file, limit_bytes=_LIMIT_BYTES, what="cache or ranges")
    if arguments.output is None:
        return _show_cache(read_cache(data))
    if arguments.version is None:
        raise InputError(
            "no TensorRT version for the cache's header, expected --version, e.g. "
            "--version 10.3.0; TensorRT rejects caches of other versions"
        )
    note = ""
    if data.lstrip()[:1] == b"{":
        ranges = Ranges.load(arguments.file)
        written = cache_from_ranges(
            ranges, version=arguments.version, algorithm=arguments.algorithm
        )
        note = f"\n{_belongs_to(ranges)}"
    elif arguments.rewrite_header:
        written = rewrite_header(
            read_cache(data), version=arguments.version, algorithm=arguments.algorithm
        )
    else:
        raise InputError(
            f"{arguments.file} is a calibration cache already ({read_cache(data).header}), "
            "expected *.ranges.json; give --rewrite-header to take over its scales unchecked"
        )
    write_atomic(arguments.output, write_cache(written))
    return f"{arguments.output}: {written.header}, {len(written.scales)} tensors{note}"


def _belongs_to(ranges: Ranges) -> str:
    """Which graph a cache is for: an improved one has other values in tensors of the same names."""
    if any(entry.method.startswith(READER_ERROR) for entry in ranges.tensors.values()):
        return (
            f"for graph {ranges.graph_hash[:12]}, which was improved: give TensorRT the "
            "*.improved.onnx beside the ranges; for the prepared graph take build --calib-cache, "
            "or the ranges of its statistics"
        )
    return f"for graph {ranges.graph_hash[:12]}, the prepared one"


def add_show(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``show``."""
    parser.add_argument("statistics", type=Path, help="*.stats.npz")
    parser.add_argument("--method", default="entropy", help="method to show the ranges of")
    parser.add_argument("--ranges", type=Path, help="*.ranges.json to show instead")


def show(arguments: argparse.Namespace) -> str:
    """Show what is clipped, what is odd, and whether there were enough samples."""
    statistics = Statistics.load(arguments.statistics)
    if arguments.ranges is not None:
        found = Ranges.load(arguments.ranges)
        found.check_graph(statistics.graph_hash)
        found.check_statistics(statistics.digest)
    else:
        found = compute_ranges(statistics, method=arguments.method)
    rows = [_report_row(report) for report in describe(statistics, found)]
    head = ("tensor", "largest", "range", "clipped", "SQNR dB", "zeros", "remark")
    settled = "" if arguments.ranges else f"\n{convergence(statistics, method=arguments.method)}"
    return (
        "\n".join(
            [
                f"{counted(len(statistics.samples), 'sample')}, {counted(len(rows), 'tensor')}, "
                f"ranges by {found.method}",
                *table(head, rows),
            ]
        )
        + settled
    )


def _report_row(report: TensorReport) -> tuple[str, ...]:
    return (
        report.name,
        f"{report.largest:.4g}",
        f"{report.amax:.4g}",
        f"{report.clipped_share:.4%}",
        f"{report.sqnr_db:.1f}" if math.isfinite(report.sqnr_db) else "exact",
        f"{report.zero_share:.1%}",
        report.remark,
    )


def _show_cache(found: CalibrationCache) -> str:
    rows = [(name, f"{s:.6g}", f"{s * LEVELS:.6g}") for name, s in found.scales.items()]
    return "\n".join([found.header, *table(("tensor", "scale", "range"), rows)])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of columns; the first is flush left, the others right."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
