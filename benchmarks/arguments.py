"""The flags of ``python -m benchmarks``, and the plan they make."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from artefacts.arguments import ArgumentParser
from artefacts.errors import DataError
from benchmarks.accuracy import CustomTask, Task, read_task
from benchmarks.campaign_plan import Plan
from benchmarks.latency import ScenarioRules, TimingRules
from benchmarks.latency.scenarios import Scenario
from benchmarks.report.codec import load_report
from benchmarks.report.gate import Limits

__all__ = ["limits_of", "parse_arguments", "parser", "plan_of"]

DESCRIPTION = "Compare engines and ONNX models: how fast, how accurate, is the difference real?"
EPILOG = """
other commands:
  python -m benchmarks table RESULTS …         the README's table, from stored reports
  python -m benchmarks render REPORT.json …    HTML, Markdown or CSV of a stored report
  python -m benchmarks probe ENGINE            memory and cold start of one engine, as JSON
exit codes: 0 done, 1 a limit was missed, 2 bad input or environment
"""


def parse_arguments(argv: Sequence[str], prog: str = "python -m benchmarks") -> argparse.Namespace:
    """What the flags of a comparison say."""
    return parser(prog).parse_args(argv)


def parser(prog: str) -> argparse.ArgumentParser:
    """The flags of a comparison, grouped by what they are about."""
    root = ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument(
        "systems",
        nargs="+",
        type=Path,
        metavar="ENGINE",
        help="engines or ONNX models (run by onnxruntime); the first is the baseline",
    )
    _add_data(root.add_argument_group("data and task"))
    _add_timing(root.add_argument_group("timing"))
    _add_load(root.add_argument_group("load (MLPerf LoadGen, extra 'bench')"))
    _add_gate(root.add_argument_group("limits: exit code 1 when missed"))
    _add_output(root.add_argument_group("output"))
    return root


def _add_data(group: Any) -> None:
    add = group.add_argument
    add("--data", type=Path, required=True, help="samples: image folder, .npz, .npy, loader .py")
    add(
        "--preprocess",
        type=Path,
        help="YAML spec or preset; default: what the engines' manifests say",
    )
    add("--task", type=Path, help="YAML task spec; default: classification")
    add("--metric", help="FILE.py:FUNCTION that scores (outputs, label); the mean is reported")
    add("--num", type=int, help="evaluate on so many samples, evenly spread")
    add("--batch", type=int, default=1, help="images per query (default 1)")


def _add_timing(group: Any) -> None:
    add = group.add_argument
    add("--duration", type=float, default=3.0, help="least seconds per engine (default 3)")
    add("--limit", type=float, default=30.0, help="most seconds per engine (default 30)")
    add("--min-samples", type=int, default=100, help="fewest latencies per engine (default 100)")
    add("--warmUp", type=float, default=200.0, help="least warm-up in ms (default 200)")
    add("--energy", type=float, default=3.0, help="seconds with the power meter; 0: none")
    add("--no-probe", action="store_true", help="skip memory and cold start")


def _add_load(group: Any) -> None:
    add = group.add_argument
    add(
        "--scenario",
        action="append",
        default=[],
        choices=get_args(Scenario),
        help="drive by LoadGen; may be given several times",
    )
    add("--scenario-seconds", type=float, default=5.0, help="least seconds (default 5)")
    add("--rate", type=float, help="Server: queries a second (default: search the highest)")
    add("--bound", type=float, default=100.0, help="Server: bound of p99 in ms (default 100)")
    add("--logs", type=Path, help="folder to keep LoadGen's own logs in")
    add("--batches", type=_numbers, default=(), help="sweep batch sizes, e.g. 1,2,4,8")
    add("--infStreams", type=_numbers, default=(), help="sweep threads, e.g. 1,2,4")


def _add_gate(group: Any) -> None:
    add = group.add_argument
    add("--max-drop", type=float, help="largest accuracy drop in points")
    add("--min-speedup", type=float, help="least speed-up over the baseline, shown by its interval")
    add("--baseline", type=Path, help="earlier report (JSON) that must not be undercut")


def _add_output(group: Any) -> None:
    add = group.add_argument
    add("--json", type=Path, help="write everything, raw samples too")
    add("--report", type=Path, help="write one HTML file with plots")
    add("--markdown", type=Path, help="write the tables as Markdown")
    add("--csv", type=Path, help="write the result table as CSV")
    add("--debug", action="store_true", help="show the trace of an error")


def _numbers(text: str) -> tuple[int, ...]:
    """E.g. ``1,2,4``."""
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers of at least 1")
    return numbers


def plan_of(arguments: argparse.Namespace, argv: Sequence[str]) -> Plan:
    """What to measure.

    Raises:
        DataError: the task or metric cannot be used.
        RequestError: times or rates of 0 or less.
    """
    return Plan(
        command=shlex.join(["python", "-m", "benchmarks", *argv]),
        task=_task(arguments),
        rules=TimingRules(
            min_time_s=arguments.duration,
            limit_s=max(arguments.limit, arguments.duration),
            min_samples=arguments.min_samples,
            # The fewest rounds must fit into the least time.
            slice_s=min(TimingRules().slice_s, arguments.duration / TimingRules().min_rounds),
            warmup_s=arguments.warmUp / 1000,
            warmup_limit_s=max(5.0, arguments.warmUp / 1000),
        ),
        batch=arguments.batch,
        scenarios=tuple(arguments.scenario),
        scenario_rules=ScenarioRules(
            seconds=arguments.scenario_seconds,
            rate_per_s=arguments.rate or ScenarioRules().rate_per_s,
            bound_ms=arguments.bound,
        ),
        search_rate=arguments.rate is None,
        log_folder=arguments.logs,
        batches=arguments.batches,
        threads=arguments.infStreams,
        energy_s=arguments.energy,
    )


def limits_of(arguments: argparse.Namespace) -> Limits:
    """What must be kept.

    Raises:
        ArtefactError: the stored report cannot be used.
    """
    return Limits(
        max_drop=arguments.max_drop,
        min_speedup=arguments.min_speedup,
        stored=load_report(arguments.baseline) if arguments.baseline else None,
    )


def _task(arguments: argparse.Namespace) -> Task | None:
    """The task of ``--task`` or ``--metric``."""
    if arguments.task and arguments.metric:
        raise DataError("both --task and --metric are given, expected one; drop the other")
    if arguments.task:
        return read_task(arguments.task)
    return _custom(arguments.metric) if arguments.metric else None


def _custom(text: str) -> CustomTask:
    """The function of ``FILE.py:FUNCTION``: the user's own code, named on the command line."""
    file, mark, name = text.rpartition(":")
    spec = importlib.util.spec_from_file_location("_metric", file) if mark else None
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise DataError(
            f"metric {text} names no file and function, expected FILE.py:FUNCTION; correct it"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"metric file {file} has no function {name}, expected one; define it")
    return CustomTask(score=function, name=name)
