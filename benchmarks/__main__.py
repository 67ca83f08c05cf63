"""``python -m benchmarks A.engine B.engine … --data labelled/``: which is faster, which is right.

The only module of this package that knows engines; it hands callables to the rest.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import engines
from artefacts.errors import BuilderError
from artefacts.files import write_atomic
from benchmarks.accuracy import evaluate_all
from benchmarks.latency import TimingRules, compare_speed, measure
from benchmarks.onnx_system import OnnxSystem
from benchmarks.report import Comparison, Report, SystemReport, save_report
from benchmarks.report.html import render_html
from benchmarks.report.tables import result_rows, to_text
from benchmarks.systems import System, file_facts, query_of, unique_names
from calibrators.data import InputSpec, Samples, batches, open_samples, require_labels
from calibrators.preprocess import Preprocess

__all__ = ["main"]

QUERIES = 16  # distinct batches that the timing cycles through


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 a gate missed, 2 bad input or environment."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except BuilderError as err:
        if arguments.debug:
            traceback.print_exc()
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    """The flags, grouped by what they are about."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "systems", nargs="+", type=Path, help="engines or ONNX models; first = baseline"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, help="labelled samples")
    data.add_argument("--preprocess", type=Path, help="YAML spec; default: the manifest's")
    data.add_argument("--num", type=int, help="evaluate on so many samples only")
    data.add_argument("--batch", type=int, default=1, help="images per query (default 1)")
    timing = parser.add_argument_group("timing")
    timing.add_argument("--duration", type=float, default=2.0, help="least seconds per system")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, help="write all results with raw samples")
    output.add_argument("--report", type=Path, help="write one HTML file with plots")
    output.add_argument("--debug", action="store_true", help="show the trace of an error")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    """Measure, evaluate, report."""
    systems = [
        _open(path, name)
        for path, name in zip(arguments.systems, unique_names(arguments.systems), strict=True)
    ]
    samples = _samples(arguments, systems)
    require_labels(samples)
    inputs = systems[0].inputs
    accuracy = evaluate_all({s.name: s.call for s in systems}, samples, inputs=inputs)
    queries = [
        batch.inputs
        for batch in batches(samples[: QUERIES * arguments.batch], arguments.batch, inputs=inputs)
    ]
    rules = TimingRules(min_time_s=arguments.duration, limit_s=max(30.0, 5 * arguments.duration))
    latency = measure(
        {system.name: query_of(system.call, queries) for system in systems},
        rules=rules,
        batch=arguments.batch,
    )
    report = Report(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        environment={},
        rules=rules,
        batch=arguments.batch,
        systems=tuple(
            SystemReport(
                name=system.name,
                **file_facts(system.path),
                target=system.target,
                precision=system.precision,
                latency=latency[system.name],
                accuracy=accuracy[system.name],
            )
            for system in systems
        ),
        comparisons=tuple(
            Comparison(
                baseline=systems[0].name,
                candidate=system.name,
                speed=compare_speed(latency[systems[0].name], latency[system.name]),
            )
            for system in systems[1:]
        ),
    )
    print(to_text(result_rows(report)))
    if arguments.json:
        save_report(report, arguments.json)
        print(f"wrote {arguments.json}")
    if arguments.report:
        write_atomic(arguments.report, render_html(report).encode())
        print(f"wrote {arguments.report}")


def _open(path: Path, name: str) -> System:
    """An engine, or an ONNX model through onnxruntime."""
    if path.suffix == ".onnx":
        model = OnnxSystem(path)
        return System(
            name=name,
            path=path,
            call=model,
            inputs=model.inputs,
            target="onnxruntime",
            precision="unknown",
        )
    engine = engines.load(path)
    return System(
        name=name,
        path=path,
        call=engine,
        inputs=tuple(
            InputSpec(name=spec.name, dtype=np.dtype(spec.dtype), shape=spec.shape)
            for spec in engine.inputs
        ),
        target=engine.manifest.target,
        precision=engine.manifest.precision,
        passport=engine.manifest.passport,
    )


def _samples(arguments: argparse.Namespace, systems: Sequence[System]) -> Samples:
    """The samples, preprocessed as the flag or the first manifest says."""
    stated = [s.passport["preprocess"] for s in systems if s.passport.get("preprocess")]
    spec = None
    if arguments.preprocess:
        spec = Preprocess.from_yaml(arguments.preprocess)
    elif stated:
        spec = Preprocess.from_dict(stated[0])
    return open_samples(
        arguments.data, inputs=systems[0].inputs, preprocess=spec, limit=arguments.num
    )


if __name__ == "__main__":
    sys.exit(main())
