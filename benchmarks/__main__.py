"""``python -m benchmarks A.engine B.engine … --data labelled/``: which is faster, which is right.

The only module of this package that knows engines and the simulator; the rest gets callables.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

import engines
import quantization
from artefacts.command import run_command, say
from artefacts.files import read_bounded, write_atomic
from artefacts.texts import printable
from benchmarks.arguments import limits_of, parse_arguments, plan_of
from benchmarks.campaign import run_campaign
from benchmarks.graph_files import find_graphs
from benchmarks.machine.nvml import open_gpu
from benchmarks.machine.peak_memory import MemoryResult, peak_bytes, probe_process
from benchmarks.onnx_system import OnnxSystem
from benchmarks.queries import Feed
from benchmarks.report import load_report, save_report
from benchmarks.report.document import KernelReport, LayerReport, Report, TensorReport
from benchmarks.report.gate import check_limits, raise_if_missed
from benchmarks.report.html import render_html
from benchmarks.report.markdown import render_markdown
from benchmarks.report.results import insert_results, render_results
from benchmarks.report.tables import csv_rows, result_rows, to_csv, to_text
from benchmarks.systems import System, found_at_build, unique_names
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.axes import SampleAxes
from calibrators.samples.data import InputSpec, Samples, open_samples, preprocess_named
from graphs.names import node_name
from graphs.walk import producers

__all__ = ["main"]

PAGE_BYTES = 4 << 20


def main(argv: Sequence[str] | None = None, prog: str = "python -m benchmarks") -> int:
    """Run a command; 0 done, 1 a limit was missed, 2 bad input or environment."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"table": _table, "render": _render, "probe": _probe}
    command = commands.get(words[0] if words else "", partial(_compare, prog=prog))
    return run_command(lambda: command(words), debug="--debug" in words)


def _compare(words: Sequence[str], prog: str) -> None:
    """Measure, evaluate, report, judge."""
    arguments = parse_arguments(words, prog)
    plan, limits = plan_of(arguments, words), limits_of(arguments)
    if not arguments.no_probe:
        plan = replace(plan, probe=lambda path: probe_process([str(path)]))
    plan = replace(plan, simulate=_simulate)
    names = unique_names(arguments.systems)
    systems = [_open(path, name) for path, name in zip(arguments.systems, names, strict=True)]
    report = run_campaign(systems, _samples(arguments, systems), plan, _say)
    checks = check_limits(report, limits)
    report = replace(report, gate=checks)
    print()
    say(to_text(result_rows(report)))
    for warning in report.warnings:
        say(f"! {warning}")
    for explanation in report.explanations:
        say(f"Why is {explanation.candidate} not faster?")
        for line in explanation.findings:
            say(f"  - {line}")
        for line in explanation.advice:
            say(f"  - try: {line}")
        say("")
    _write(report, arguments)
    raise_if_missed(checks)


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _write(report: Report, arguments: argparse.Namespace) -> None:
    """The files that were asked for."""
    if getattr(arguments, "json", None):
        save_report(report, arguments.json)
        print(f"wrote {arguments.json}")
    renderings = (
        (arguments.report, render_html),
        (arguments.markdown, render_markdown),
        (arguments.csv, lambda found: to_csv(csv_rows(found))),
    )
    for path, render in renderings:
        if path:
            write_atomic(path, render(report).encode())
            print(f"wrote {path}")


def _table(words: Sequence[str]) -> None:
    """``table RESULTS.json.gz …``: the Markdown table of stored reports."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table")
    parser.add_argument("results", nargs="+", type=Path, help="reports or stored results")
    parser.add_argument("--into", type=Path, help="page to write it into, between its markers")
    parser.add_argument("--debug", action="store_true")
    arguments = parser.parse_args(words[1:])
    table = render_results(arguments.results)
    if arguments.into is None:
        print(table, end="")
        return
    page = read_bounded(arguments.into, limit_bytes=PAGE_BYTES, what="page").decode()
    write_atomic(arguments.into, insert_results(page, table).encode())
    print(f"wrote {arguments.into}")


def _render(words: Sequence[str]) -> None:
    """``render REPORT.json --report REPORT.html``: a stored report again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks render")
    parser.add_argument("stored", type=Path, help="report.json")
    parser.add_argument("--report", type=Path, help="HTML file to write")
    parser.add_argument("--markdown", type=Path, help="Markdown file to write")
    parser.add_argument("--csv", type=Path, help="CSV file to write")
    parser.add_argument("--debug", action="store_true")
    arguments = parser.parse_args(words[1:])
    report = load_report(arguments.stored)
    say(to_text(result_rows(report)))
    _write(report, arguments)


def _probe(words: Sequence[str]) -> None:
    """``probe ENGINE``: load it in this fresh process, run it once, tell what that cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks probe")
    parser.add_argument("system", type=Path)
    parser.add_argument("--debug", action="store_true")
    path = parser.parse_args(words[1:]).system
    gpu = open_gpu()
    used_before = gpu.memory_used_bytes() if gpu else None
    before, start = peak_bytes(), time.perf_counter()
    system = _open(path, path.name)
    loaded = time.perf_counter()
    system.call(
        {s.name: np.zeros([d if isinstance(d, int) else 1 for d in s.shape], s.dtype)
         for s in system.inputs}
    )  # fmt: skip
    done = time.perf_counter()
    used_after = gpu.memory_used_bytes() if gpu else None
    result = MemoryResult(
        load_ms=(loaded - start) * 1e3,
        first_ms=(done - loaded) * 1e3,
        host_peak_bytes=peak_bytes(),
        host_growth_bytes=peak_bytes() - before,
        device_bytes=None
        if used_before is None or used_after is None
        else max(used_after - used_before, 0),
    )
    print(json.dumps(asdict(result)))


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
            precision=model.precision,
            settings=_onnx_settings(model.precision),
            exact=model.exact if model.precision == "int8" else None,
            clone=lambda: model,  # onnxruntime's sessions may be run from several threads
            layers=model.layers,
            layer_times=model.layer_times,
        )
    engine = engines.load(path)
    passport = engine.manifest.passport.to_json()
    graphs = partial(find_graphs, path, {**passport, **engine.manifest.onnx})
    return System(
        name=name,
        path=path,
        call=engine,
        inputs=_inputs(engine),
        target=engine.manifest.target,
        precision=engine.manifest.precision,
        settings=_settings(engine.manifest) | found_at_build(engine.manifest.measured),
        passport=passport,
        layers=_layers(engine.manifest),
        clone=engine.clone,
        device_times=None if engine.manifest.target == "cpu" else engine.device_times,
        layer_times=lambda request: [
            KernelReport(**asdict(time)) for time in engine.layer_times(request)
        ],
        graphs=graphs if engine.manifest.precision == "int8" else None,
    )


def _inputs(engine: engines.Engine) -> tuple[InputSpec, ...]:
    """With the axes of samples that the passport tells."""
    specs = tuple(
        InputSpec(name=spec.name, dtype=np.dtype(spec.dtype), shape=spec.shape)
        for spec in engine.inputs
    )
    note = engine.manifest.passport.sample_axes
    return specs if note is None else SampleAxes.from_dict(note).of(specs)


def _simulate(
    float_graph: Path, int8_graph: Path, feeds: Sequence[Feed]
) -> tuple[TensorReport, ...]:
    """Error of each tensor, by the simulator that ``python -m quantization simulate`` runs."""
    reference = quantization.load_model(float_graph)
    makers = producers(reference)
    errors = quantization.simulate(reference, quantization.load_model(int8_graph), feeds)
    return tuple(
        TensorReport(
            tensor=error.tensor,
            node=node_name(makers[error.tensor]) if error.tensor in makers else "",
            op_type=error.op_type,
            sqnr_db=_finite(error.sqnr_db),
            own_sqnr_db=_finite(error.own_sqnr_db),
            position=error.position,
        )
        for error in errors
    )


def _finite(value: float | None) -> float | None:
    """None for a tensor that is equal, or zero in the float graph."""
    return value if value is not None and math.isfinite(value) else None


def _onnx_settings(precision: str) -> dict[str, str]:
    """Of a plain model: its speed may be that of kernels that saturate."""
    found = {"threads": "the library's choice", "waiting": "spinning stopped"}
    if precision == "int8" and engines.has_module("openvino"):
        saturates = "saturates on this CPU (no VNNI); accuracy is that of the graph as written"
        found["INT8 arithmetic"] = saturates if engines.cpu_isa() == "portable" else "exact (VNNI)"
    return found


def _settings(manifest: engines.Manifest) -> dict[str, str]:
    """What trtexec has flags for, and how it is here."""
    if manifest.target == "cpu":
        threads = manifest.options.get("threads") or "the library's choice"
        return {
            "threads": str(threads),
            "floating point": str(manifest.build.get("inference_precision", "unknown")),
            "INT8 arithmetic": str(manifest.build.get("cpu_isa", "unknown")),
        }
    return {
        "TF32": "allowed" if manifest.options.get("tf32") else "off",
        "transfers": "in the host latency; apart under device",
        "CUDA graph": "replayed for shapes that repeat",
        "waiting": "stream synchronize",
    }


def _layers(manifest: engines.Manifest) -> tuple[LayerReport, ...]:
    """Weighted layers with the reason that kept each in floating point."""
    if manifest.coverage is None:
        return ()
    placement = manifest.passport.placement
    floating = () if placement is None else placement.floating
    reasons = {entry.node: f"{entry.rule}: {entry.why}" for entry in floating}
    return tuple(
        LayerReport(
            name=node.name,
            op_type=node.op_type,
            precision=node.precision,
            macs=node.macs,
            promised=node.promised,
            why=reasons.get(node.name, ""),
        )
        for node in manifest.coverage.nodes
    )


def _samples(arguments: argparse.Namespace, systems: Sequence[System]) -> Samples:
    """The samples, preprocessed as the flag or the first manifest says."""
    stated = [s.passport["preprocess"] for s in systems if s.passport.get("preprocess")]
    spec = Preprocess.from_dict(stated[0]) if stated else None
    if arguments.preprocess:
        spec = preprocess_named(arguments.preprocess, systems[0].inputs)
    return open_samples(
        arguments.data, inputs=systems[0].inputs, preprocess=spec, limit=arguments.num
    )


if __name__ == "__main__":
    sys.exit(main())
