"""Tools for ONNX models on their way to INT8: ``python -m quantization COMMAND ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from artefacts.arguments import ArgumentParser
from artefacts.command import run_command, say
from calibrators import (
    InputSpec,
    Preprocess,
    Statistics,
    batches,
    input_specs,
    open_samples,
    preprocess_named,
)
from graphs.files import load_model
from quantization import commands
from quantization.commands import Command, Outcome
from quantization.search.sensitivity_report import add_sensitivity, sensitivity_on

__all__ = ["COMMANDS", "main", "parser"]


def _simulate(arguments: argparse.Namespace) -> Outcome:
    """Open the samples, which only a command may, and simulate."""
    model, int8 = load_model(arguments.model), load_model(arguments.int8)
    specs = input_specs(model)
    spec = _spec(arguments, specs)
    samples = open_samples(arguments.data, inputs=specs, preprocess=spec, limit=arguments.num)
    feeds = (batch.inputs for batch in batches(samples, 1, inputs=specs))
    return commands.simulate_on(arguments, model, int8, feeds)


def _sensitivity(arguments: argparse.Namespace) -> Outcome:
    """Open the samples and rank the fusion groups."""
    model = load_model(arguments.model)
    specs = input_specs(model)
    spec = _spec(arguments, specs)
    samples = open_samples(arguments.data, inputs=specs, preprocess=spec, limit=arguments.num)
    feeds = [batch.inputs for batch in batches(samples, 1, inputs=specs)]
    return sensitivity_on(arguments, model, feeds)


def _spec(arguments: argparse.Namespace, inputs: Sequence[InputSpec]) -> Preprocess | None:
    if not arguments.preprocess:
        return None
    return preprocess_named(arguments.preprocess, inputs)


def _fp16(arguments: argparse.Namespace) -> Outcome:
    """Read the largest magnitudes: ranges would not do, they are clipped."""
    amax = {}
    if arguments.stats:
        tensors = Statistics.load(arguments.stats).tensors
        amax = {name: entry.amax for name, entry in tensors.items()}
    return commands.fp16_with(arguments, amax)


COMMANDS: dict[str, Command] = {
    "lint": Command(
        summary="say what TensorRT will refuse or run slowly; exit 1 where it would not build",
        configure=commands.add_lint,
        run=commands.run_lint,
    ),
    "prepare": Command(
        summary="write the graph that calibration works on: opset, shapes, constants, BatchNorm",
        configure=commands.add_prepare,
        run=commands.run_prepare,
    ),
    "insert": Command(
        summary="write ranges into a prepared model as Q/DQ pairs, with INT8 weights",
        configure=commands.add_insert,
        run=commands.run_insert,
    ),
    "import": Command(
        summary="take a quantized model of another tool, without calibration",
        configure=commands.add_import,
        run=commands.run_import,
    ),
    "strip": Command(
        summary="write a Q/DQ model as plain ONNX, ranges and TensorRT calibration cache",
        configure=commands.add_strip,
        run=commands.run_strip,
    ),
    "fp16": Command(
        summary="write the floating-point part of a model in float16, where that is safe",
        configure=commands.add_fp16,
        run=_fp16,
    ),
    "simulate": Command(
        summary="compare the INT8 graph with the float one tensor by tensor, worst first",
        configure=commands.add_simulate,
        run=_simulate,
    ),
    "sensitivity": Command(
        summary="rank the layers by what INT8 costs in each, alone and when it is left in float",
        configure=add_sensitivity,
        run=_sensitivity,
    ),
}


def main(argv: Sequence[str] | None = None, prog: str = "python -m quantization") -> int:
    """Run a command; 0 done, 1 a gate missed, 2 bad input or environment."""
    arguments = parser(prog).parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    def command() -> int:
        outcome = COMMANDS[arguments.command].run(arguments)
        say(outcome.text)
        return outcome.exit_code

    return run_command(command, debug=arguments.debug)


def parser(prog: str) -> argparse.ArgumentParser:
    """The argument parser, a subparser for each command."""
    root = ArgumentParser(prog=prog, description=__doc__)
    subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        child = subparsers.add_parser(name, help=command.summary, description=command.summary)
        command.configure(child)
        child.add_argument("--debug", action="store_true", help="show the trace of an error")
    return root


if __name__ == "__main__":
    sys.exit(main())
