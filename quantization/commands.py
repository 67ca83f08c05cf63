"""What the subcommands of ``python -m quantization`` do: flags in, text and an exit code out."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from artefacts.files import write_atomic
from calibrators.ranges.ranges import Ranges
from calibrators.tensorrt.cache import ALGORITHMS, cache_from_ranges, write_cache
from graphs.files import load_model, save_model
from graphs.walk import nodes
from quantization.foreign.dynamic import from_dynamic, has_coded_weights_only, is_dynamic
from quantization.foreign.importer import import_quantized
from quantization.foreign.strip import strip
from quantization.lint.lint import lint
from quantization.lint.report import lint_json, lint_text
from quantization.measure.simulate import Feeds, simulate
from quantization.measure.simulate_report import simulation_json, simulation_plot, simulation_text
from quantization.placement import ATTENTIONS, PROFILES, Placement, place
from quantization.prepare.prepare import prepare
from quantization.write.fp16 import to_float16
from quantization.write.insert import insert_qdq, unify_ranges

__all__ = ["Command", "Outcome", "add_placement", "placement_of"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command prints and returns: 0 done, 1 a gate missed."""

    text: str
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """One subcommand.

    Attributes:
        summary: one line for ``--help``.
        configure: adds the command's flags to its parser.
        run: does it.
    """

    summary: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Outcome]


def add_lint(parser: ArgumentParser) -> None:
    """Flags of ``lint``."""
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--target", choices=("tensorrt", "tensorrt-rtx"), default="tensorrt")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="list every node")


def run_lint(arguments: Namespace) -> Outcome:
    """Exit code 1 where TensorRT would not build the model, or build something else."""
    findings = lint(load_model(arguments.model), arguments.target)
    name = str(arguments.model)
    if arguments.json:
        text = lint_json(name, findings)
    else:
        text = lint_text(name, findings, verbose=arguments.verbose)
    fatal = any(finding.severity == "fatal" for finding in findings)
    return Outcome(text=text, exit_code=int(fatal))


def add_prepare(parser: ArgumentParser) -> None:
    """Flags of ``prepare``."""
    _add_files(parser)


def run_prepare(arguments: Namespace) -> Outcome:
    """Write the graph that calibration and everything after refer to."""
    model = load_model(arguments.model)
    before = len(nodes(model))
    if is_dynamic(model) or has_coded_weights_only(model):
        model, _ = from_dynamic(model)
    prepared = prepare(model)
    save_model(prepared, arguments.output)
    after = len(nodes(prepared))
    return Outcome(text=f"{before} nodes became {after}: {arguments.output}")


def add_import(parser: ArgumentParser) -> None:
    """Flags of ``import``."""
    _add_files(parser)


def run_import(arguments: Namespace) -> Outcome:
    """Write a third-party quantized model in the form that TensorRT takes."""
    imported = import_quantized(load_model(arguments.model))
    save_model(imported.model, arguments.output)
    lines = [f"{imported.format} model of {imported.origin}"]
    lines += [f"  {note}" for note in imported.notes or ("taken as it is",)]
    return Outcome(text="\n".join([*lines, f"wrote {arguments.output}"]))


def add_placement(parser: ArgumentParser) -> None:
    """Flags that decide where Q/DQ goes: the same for observing and for inserting."""
    parser.add_argument("--profile", choices=PROFILES, default="tensorrt", help="placement rules")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        help="node name, /regex/ or op type left float; may be given again",
    )
    parser.add_argument(
        "--attention",
        choices=ATTENTIONS,
        default="auto",
        help="both products of an attention: as the profile has it (auto), INT8, or float",
    )
    parser.add_argument(
        "--portable",
        action="store_true",
        help="for CPUs without VNNI, too (the command's --cpu-isa portable)",
    )


def placement_of(
    arguments: Namespace,
    model: ModelProto,
    ranges: Ranges | None = None,
    *,
    unsigned: bool = False,
) -> Placement:
    """Where Q/DQ goes, by the flags of ``add_placement``, and by the ranges where there are any."""
    return place(
        model,
        profile=arguments.profile,
        exclude=arguments.exclude,
        unsigned=unsigned,
        portable=arguments.portable,
        attention=arguments.attention,
        amax=None if ranges is None else ranges.amax_by_tensor,
    )


def add_insert(parser: ArgumentParser) -> None:
    """Flags of ``insert``."""
    parser.add_argument("model", type=Path, help="prepared float ONNX file (*.prepared.onnx)")
    parser.add_argument("--ranges", type=Path, required=True, help="its *.ranges.json")
    parser.add_argument("--output", type=Path, required=True, help="*.int8.onnx to write")
    add_placement(parser)
    parser.add_argument(
        "--unsigned",
        action="store_true",
        help="profile cpu: uint8 codes for activations that cannot be negative",
    )
    parser.add_argument(
        "--weights",
        choices=("int8", "float"),
        default="int8",
        help="float: keep weights as float32 behind Q/DQ (TensorRT up to 8.5)",
    )
    parser.add_argument(
        "--used-ranges",
        type=Path,
        help="write the ranges as they are used: one, the largest, for tensors that share a scale",
    )


def run_insert(arguments: Namespace) -> Outcome:
    """Write the Q/DQ model, and say how much of it is INT8."""
    model = load_model(arguments.model)
    given = Ranges.load(arguments.ranges)
    placement = placement_of(arguments, model, given, unsigned=arguments.unsigned)
    ranges = unify_ranges(given, placement)
    int8 = insert_qdq(model, placement, ranges, weights=arguments.weights)
    save_model(int8, arguments.output)
    if arguments.used_ranges:
        ranges.save(arguments.used_ranges)
    share = placement.int8_mac_share(model)
    lines = [
        f"{len(placement.int8_nodes)} layers read INT8 ({share:.1%} of multiply-accumulates), "
        f"{len(placement.floating)} stay in floating point"
    ]
    lines += [f"  {each.op_type} {each.node}: {each.why}" for each in placement.floating]
    return Outcome(text="\n".join([*lines, f"wrote {arguments.output}"]))


def add_fp16(parser: ArgumentParser) -> None:
    """Flags of ``fp16``."""
    _add_files(parser)
    parser.add_argument("--stats", type=Path, help="*.stats.npz: what passed 65504 stays float32")
    parser.add_argument("--half-io", action="store_true", help="inputs and outputs too")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="NODE", help="nodes that stay float32"
    )


def fp16_with(arguments: Namespace, amax: Mapping[str, float]) -> Outcome:
    """Write the model with its floating-point part in float16, and say what stayed and why."""
    result = to_float16(
        prepare(load_model(arguments.model)),
        amax,
        keep_io=not arguments.half_io,
        keep=arguments.keep,
    )
    save_model(result.model, arguments.output)
    lines = [f"{result.halved} operators in float16, {len(result.kept)} stay in float32"]
    lines += [f"  {entry.op_type} {entry.node}: {entry.why}" for entry in result.kept]
    return Outcome(text="\n".join([*lines, f"wrote {arguments.output}"]))


def add_strip(parser: ArgumentParser) -> None:
    """Flags of ``strip``."""
    _add_files(parser)
    parser.add_argument("--ranges", type=Path, help="write *.ranges.json here")
    parser.add_argument("--cache", type=Path, help="write a TensorRT calibration cache here")
    parser.add_argument(
        "--tensorrt", default="10.3.0", metavar="VERSION", help="of the cache (default 10.3.0)"
    )
    parser.add_argument(
        "--algorithm", default=ALGORITHMS[0], choices=ALGORITHMS, help="of the cache"
    )


def run_strip(arguments: Namespace) -> Outcome:
    """Write the plain model, and what its Q/DQ pairs knew as ranges and cache."""
    stripped = strip(load_model(arguments.model))
    lines = [f"{len(stripped.ranges.tensors)} ranges, plain model: {arguments.output}"]
    if arguments.cache:
        cache = cache_from_ranges(
            stripped.ranges, version=arguments.tensorrt, algorithm=arguments.algorithm
        )
        write_atomic(arguments.cache, write_cache(cache))
        lines.append(f"calibration cache {cache.header}: {arguments.cache}")
    if arguments.ranges:
        stripped.ranges.save(arguments.ranges)
        lines.append(f"ranges: {arguments.ranges}")
    save_model(stripped.model, arguments.output)
    lines += [f"range of {name} is lost: the tensor was folded away" for name in stripped.lost]
    return Outcome(text="\n".join(lines))


def add_simulate(parser: ArgumentParser) -> None:
    """Flags of ``simulate``."""
    parser.add_argument("model", type=Path, help="float ONNX file")
    parser.add_argument("int8", type=Path, help="Q/DQ ONNX file made from it")
    parser.add_argument("--data", required=True, help="samples, as for --calib-data")
    parser.add_argument("--preprocess", type=Path, help="YAML spec or preset for images")
    parser.add_argument("--num", type=int, default=16, help="samples (default 16)")
    parser.add_argument("--all", action="store_true", help="list every tensor")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="draw SQNR over depth here (png, svg, pdf)")


def simulate_on(
    arguments: Namespace, model: ModelProto, int8: ModelProto, samples: Iterable[Feeds]
) -> Outcome:
    """Say where the INT8 graph loses the signal, worst tensor first."""
    errors = simulate(model, int8, samples)
    if arguments.json:
        write_atomic(arguments.json, simulation_json(errors).encode())
    if arguments.plot:
        simulation_plot(errors, arguments.plot)
    return Outcome(text=simulation_text(errors, limit=None if arguments.all else 20))


def _add_files(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--output", type=Path, required=True, help="ONNX file to write")
